/* example_wait: waits for the event that ends a job, without polling, and prints it.
 *
 *   example_wait bellhop://127.0.0.1:8421 batches/123 60
 *
 * Exit code 0: the job's event came; 1: nothing within so many seconds, or an error. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <bellhop.h>

struct wait {
    struct bellhop *client;
    int exit_code;
};

/* Called once. */
static void on_waited(void *ctx, int error, const char *message, const struct bellhop_job *job) {
    struct wait *w = ctx;
    w->exit_code = 1;
    if (error != 0) {
        fprintf(stderr, "example_wait: %s: %s\n", bellhop_strerror(error), message);
    } else if (job->event == NULL) {
        printf("%s: nothing came\n", job->state);
    } else {
        printf("%s: %s, seq %" PRIu64 ": %.*s\n", job->state, job->event->type, job->seq,
               (int)job->event->body_len, (const char *)job->event->body);
        w->exit_code = 0;
    }
    bellhop_stop(w->client);
}

int main(int argc, char **argv) {
    struct wait w = {.exit_code = 1};
    if (argc != 4) {
        fprintf(stderr, "usage: example_wait URL JOB SECONDS\n");
        return 2;
    }
    const struct bellhop_wait_options options = {.timeout_ms = strtoull(argv[3], NULL, 10) * 1000};
    int error = bellhop_open(&w.client, argv[1], NULL);
    if (error == 0) error = bellhop_wait(w.client, argv[2], &options, on_waited, &w);
    if (error == 0) error = bellhop_run(w.client);
    if (error != 0) fprintf(stderr, "example_wait: %s\n", bellhop_strerror(error));
    bellhop_close(&w.client);
    return w.exit_code;
}
