#include "clients/cli/task.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clients/cli/list.h"
#include "clients/cli/output.h"

#define POLL_MS_MIN 50
#define POLL_MS_MAX 1000

static bool has(struct slice task, const char *field, const char *text) {
    char *value = json_show(task, field);
    bool same = strcmp(value, text) == 0;
    free(value);
    return same;
}

/* Nothing more will happen: also what a replay fed is settled. */
static bool is_over(struct slice task) {
    if (has(task, "state", "running")) return false;
    return has(task, "state", "cancelled") || json_number(task, "outstanding", 0) == 0;
}

static char *replay_text(struct slice task, const char *sub, const char *state) {
    unsigned long long from = json_number(task, "from_seq", 0), to = json_number(task, "to_seq", 0);
    unsigned long long matched = json_number(task, "matched", 0);
    unsigned long long expired = json_number(task, "expired", 0);
    unsigned long long id = json_number(task, "id", 0);
    char *gone = expired == 0
                     ? mem_strdup("")
                     : text_printf(", %llu positions expired before they were read", expired);
    char *text;
    if (has(task, "kind", "count")) {
        char *total = text_count(to >= from ? to - from + 1 : 0, "event");
        text = text_printf("%llu of %s match%s: %s would be delivered to %s again%s", matched,
                           total, matched == 1 ? "es" : "",
                           matched == 0   ? "nothing"
                           : matched == 1 ? "it"
                                          : "they",
                           sub, gone);
        free(total);
    } else if (strcmp(state, "started") == 0) {
        text = text_printf("started replay %llu to %s: seq %llu to %llu", id, sub, from, to);
    } else {
        text = text_printf("%s replay %llu to %s: seq %llu to %llu, %llu acked%s", state, id, sub,
                           from, to, (unsigned long long)json_number(task, "acked", 0), gone);
    }
    free(gone);
    return text;
}

char *task_show(struct slice task) {
    char *sub = json_show(task, "subscription"), *kind = json_show(task, "kind");
    char *state = json_show(task, "state");
    unsigned long long id = json_number(task, "id", 0), matched = json_number(task, "matched", 0);
    text_clean(sub);
    const char *word = strcmp(state, "running") == 0 ? "started" : state;
    char *text;
    if (strcmp(kind, "redrive") != 0 && strcmp(kind, "purge") != 0) {
        text = replay_text(task, sub, word);
    } else if (strcmp(word, "started") == 0) {
        text = text_printf("started %s %llu of the dead letters of %s", kind, id, sub);
    } else {
        text = text_printf("%s %s %llu of the dead letters of %s: %llu %s", word, kind, id, sub,
                           matched, strcmp(kind, "purge") == 0 ? "removed" : "given back");
    }
    free(sub);
    free(kind);
    free(state);
    text_clean(text);
    return text;
}

static void print_task(struct cli *cli, struct slice task) {
    if (cli->json) {
        list_print_json(task);
    } else {
        char *text = task_show(task);
        puts(text);
        free(text);
    }
    fflush(stdout);
}

/* Asks until the task is over and keeps the last answer, which the caller frees on 0. */
static int wait_over(struct cli *cli, uint64_t id, struct http_reply *reply) {
    char *path = text_printf("/v1/replays/%llu", (unsigned long long)id);
    uint64_t pause_ms = POLL_MS_MIN;
    int error;
    while ((error = http_get(cli->http, path, reply)) == 0 && !is_over(buf_slice(&reply->body))) {
        buf_free(&reply->body);
        struct timespec span = {.tv_sec = (time_t)(pause_ms / 1000),
                                .tv_nsec = (long)(pause_ms % 1000) * 1000000};
        nanosleep(&span, NULL);
        pause_ms = pause_ms * 2 < POLL_MS_MAX ? pause_ms * 2 : POLL_MS_MAX;
    }
    free(path);
    return error;
}

int task_start(struct cli *cli, const char *path, json_t *request, bool wait, bool quietly) {
    struct http_reply reply;
    int error = api_send(cli, "POST", path, request, &reply);
    if (error != 0) return error;
    uint64_t id = json_number(buf_slice(&reply.body), "id", 0);
    bool over = is_over(buf_slice(&reply.body));
    if (!quietly || (wait && over)) print_task(cli, buf_slice(&reply.body));
    if (!quietly && !wait && !over && !cli->json) {
        printf("  how far it is: bellhop replay show %llu\n", (unsigned long long)id);
    }
    if (wait && !over) {
        buf_free(&reply.body);
        error = wait_over(cli, id, &reply);
        if (error != 0) {
            cli_complain(
                "only the wait has ended; what was started goes on: bellhop replay show "
                "%llu",
                (unsigned long long)id);
            return error;
        }
        print_task(cli, buf_slice(&reply.body));
    }
    if (wait && has(buf_slice(&reply.body), "state", "cancelled")) {
        cli_complain("it was cancelled before its end");
        error = CLI_REFUSED;
    }
    buf_free(&reply.body);
    return error;
}
