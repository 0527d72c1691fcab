#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clients/cli/commands.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"

#define POLL_MS_MIN 50
#define POLL_MS_MAX 1000

static int set_seq(json_t *tree, const char *option, const char *key, const char *text) {
    uint64_t seq;
    if (text == NULL) return 0;
    int error = value_u64(option, text, 1, INT64_MAX, &seq);
    if (error == 0) json_object_set_new(tree, key, json_integer((json_int_t)seq));
    return error;
}

static int set_time(json_t *tree, const char *option, const char *key, const char *text) {
    char time[RFC3339_SIZE];
    if (text == NULL) return 0;
    int error = value_time(option, text, time);
    if (error == 0) json_object_set_new(tree, key, json_string(time));
    return error;
}

/* A range by seq or by time, never a mixture. */
static int set_range(json_t *tree, const struct args *args) {
    const char *from = args_get(args, "--from-seq"), *to = args_get(args, "--to-seq");
    const char *since = args_get(args, "--since"), *until = args_get(args, "--until");
    bool by_seq = from != NULL || to != NULL, by_time = since != NULL || until != NULL;
    if (by_seq && by_time) {
        cli_complain(
            "a range is by seq (--from-seq, --to-seq) or by time (--since, --until), "
            "not both");
        return CLI_USAGE;
    }
    if (from == NULL && since == NULL) {
        cli_complain("say where the replay begins: --from-seq N or --since TIME");
        return CLI_USAGE;
    }
    int error = set_seq(tree, "--from-seq", "from_seq", from);
    if (error == 0) error = set_seq(tree, "--to-seq", "to_seq", to);
    if (error == 0) error = set_time(tree, "--since", "since", since);
    if (error == 0) error = set_time(tree, "--until", "until", until);
    return error;
}

static bool is_finished(struct slice replay) {
    char *state = json_show(replay, "state");
    bool finished = strcmp(state, "finished") == 0;
    free(state);
    return finished;
}

static void print_replay(struct cli *cli, struct slice replay, const char *what) {
    if (cli->json) {
        list_print_json(replay);
    } else {
        char *sub = json_show(replay, "subscription");
        text_clean(sub);
        printf("%s replay %llu to %s: seq %llu to %llu", what,
               (unsigned long long)json_number(replay, "id", 0), sub,
               (unsigned long long)json_number(replay, "from_seq", 0),
               (unsigned long long)json_number(replay, "to_seq", 0));
        if (is_finished(replay)) {
            printf(", %llu acked", (unsigned long long)json_number(replay, "acked", 0));
        }
        putchar('\n');
        free(sub);
    }
    fflush(stdout);
}

static int wait_finished(struct cli *cli, uint64_t id) {
    char *path = text_printf("/v1/replays/%llu", (unsigned long long)id);
    uint64_t pause_ms = POLL_MS_MIN;
    int error;
    for (;;) {
        struct http_reply reply;
        error = http_get(cli->http, path, &reply);
        if (error != 0) break;
        bool finished = is_finished(buf_slice(&reply.body));
        if (finished) print_replay(cli, buf_slice(&reply.body), "finished");
        buf_free(&reply.body);
        if (finished) break;
        struct timespec span = {.tv_nsec = (long)(pause_ms % 1000) * 1000000,
                                .tv_sec = (time_t)(pause_ms / 1000)};
        nanosleep(&span, NULL);
        pause_ms = pause_ms * 2 < POLL_MS_MAX ? pause_ms * 2 : POLL_MS_MAX;
    }
    free(path);
    return error;
}

int cmd_replay(struct cli *cli, const struct args *args) {
    const char *name = args_word(args, 0);
    char *text = NULL;
    struct http_reply reply;
    json_t *tree = json_object();
    int error = value_name("subscription", name);
    if (error == 0) error = set_range(tree, args);
    if (error != 0) goto out;
    json_object_set_new(tree, "subscription", json_string(name));
    text = json_dumps(tree, JSON_COMPACT);
    CHECK(text != NULL);
    struct slice body = slice_str(text);
    error = http_send(
        cli->http, &(struct http_request){.method = "POST", .path = "/v1/replays", .body = &body},
        &reply);
    if (error != 0) goto out;
    uint64_t id = json_number(buf_slice(&reply.body), "id", 0);
    print_replay(cli, buf_slice(&reply.body), "started");
    buf_free(&reply.body);
    if (args_has(args, "--wait")) error = wait_finished(cli, id);
out:
    free(text);
    json_decref(tree);
    return error;
}

static void on_replay(void *ctx, struct slice item) {
    static const char *const fields[] = {"id",   "subscription", "state", "from_seq",   "to_seq",
                                         "next", "outstanding",  "acked", "create_time"};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        table_add(ctx, json_show(item, fields[i]));
    }
}

int cmd_replay_ls(struct cli *cli, const struct args *args) {
    (void)args;
    static const char *const heads[] = {">ID",   "SUBSCRIPTION", "STATE",  ">FROM",   ">TO",
                                        ">NEXT", ">OUTSTANDING", ">ACKED", "CREATED", NULL};
    struct table t;
    table_init(&t, heads);
    int error = list_each(cli, "/v1/replays?page_size=1000", "replays", on_replay, &t);
    table_end(&t, cli, error, "no replay yet: bellhop replay SUB --since 1h");
    return error;
}
