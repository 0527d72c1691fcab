/* example_worker: prints the events of a subscription and acknowledges them, until Ctrl-C.
 *
 *   example_worker bellhop://127.0.0.1:8421 batches */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include <bellhop.h>

static struct bellhop *client; /* for the signal handler */

static void on_signal(int signum) {
    (void)signum;
    bellhop_stop(client); /* safe here: it only wakes the loop */
}

static void on_state(void *ctx, const char *state) {
    (void)ctx;
    fprintf(stderr, "%s\n", state);
}

/* Called for each event, at most `concurrency` of them unsettled at a time. Work that takes long
 * is started here and settled later, from another callback of the loop. */
static void on_event(void *ctx, struct bellhop_event *event) {
    const struct bellhop_info *info = bellhop_event_info(event);
    (void)ctx;
    printf("%" PRIu64 " %s %s attempt %" PRIu32 ": %.*s\n", info->seq, info->type, info->subject,
           info->attempt, (int)info->body_len, (const char *)info->body);
    fflush(stdout);
    bellhop_ack(event);
}

int main(int argc, char **argv) {
    const struct bellhop_options options = {.name = "example_worker", .on_state = on_state};
    const struct bellhop_sub_options sub = {
        .handler = on_event,
        .concurrency = 16,
        .create = "{\"start\":\"first\"}", /* made so when it does not exist */
    };
    if (argc != 3) {
        fprintf(stderr, "usage: example_worker URL SUBSCRIPTION\n");
        return 2;
    }
    int error = bellhop_open(&client, argv[1], &options);
    if (error == 0 && bellhop_subscribe(client, argv[2], &sub) == NULL) error = BELLHOP_EARGUMENT;
    if (error == 0) {
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
        error = bellhop_run(client); /* connects, and again whenever the connection is lost */
    }
    if (error != 0) {
        fprintf(stderr, "example_worker: %s\n", bellhop_strerror(error));
        if (client != NULL) fprintf(stderr, "%s\n", bellhop_error(client));
    }
    bellhop_close(&client);
    return error == 0 ? 0 : 1;
}
