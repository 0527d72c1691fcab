#include <stdlib.h>
#include <string.h>

#include "clients/cli/commands.h"
#include "clients/cli/filter_args.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/task.h"
#include "clients/cli/value.h"

static int set_seq(json_t *tree, const char *option, const char *key, const char *text) {
    uint64_t seq;
    if (text == NULL) return 0;
    int error = value_u64(option, text, 1, INT64_MAX, &seq);
    if (error == 0) api_set_u64(tree, key, seq);
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
    const char *from = args_get(args, "--from"), *to = args_get(args, "--to");
    const char *since = args_get(args, "--since"), *until = args_get(args, "--until");
    bool by_seq = from != NULL || to != NULL, by_time = since != NULL || until != NULL;
    if (by_seq && by_time) {
        cli_complain(
            "a range is by seq (--from, --to) or by time (--since, --until), "
            "not both");
        return CLI_USAGE;
    }
    if (from == NULL && since == NULL) {
        cli_complain("say where the replay begins: --from SEQ or --since TIME");
        return CLI_USAGE;
    }
    int error = set_seq(tree, "--from", "from_seq", from);
    if (error == 0) error = set_seq(tree, "--to", "to_seq", to);
    if (error == 0) error = set_time(tree, "--since", "since", since);
    if (error == 0) error = set_time(tree, "--until", "until", until);
    return error;
}

int cmd_replay(struct cli *cli, const struct args *args) {
    const char *name = args_word(args, 0), *rate_text = args_get(args, "--rate");
    bool dry_run = args_has(args, "--dry-run");
    json_t *tree = json_object(), *filter = NULL;
    uint64_t rate;
    int error = value_name("subscription", name);
    if (error == 0) error = set_range(tree, args);
    if (error == 0) error = filter_args_read(args, &filter);
    if (error == 0 && rate_text != NULL) {
        error = value_u64("--rate", rate_text, 1, LIMIT_RATE_PER_S, &rate);
        if (error == 0) api_set_u64(tree, "rate", rate);
    }
    if (filter != NULL) json_object_set_new(tree, "filter", filter);
    if (error != 0) {
        json_decref(tree);
        return error;
    }
    json_object_set_new(tree, "subscription", json_string(name));
    if (dry_run) json_object_set_new(tree, "dry_run", json_true());
    return task_start(cli, "/v1/replays", tree, dry_run || args_has(args, "--wait"), dry_run);
}

static char *percent_of(struct slice task) {
    char *text = json_show(task, "progress");
    double part = strtod(text, NULL);
    free(text);
    return text_printf("%.0f %%", part * 100);
}

/* The subscription of a task, which may be gone; no name has brackets. */
static char *subscription_of(struct slice task) {
    char *name = json_show(task, "subscription");
    if (name[0] != '\0') return name;
    free(name);
    return mem_strdup("(deleted)");
}

static void on_task(void *ctx, struct slice item) {
    static const char *const before[] = {"state", "from_seq", "to_seq"};
    static const char *const after[] = {"matched", "outstanding", "acked", "create_time"};
    table_add(ctx, json_show(item, "id"));
    table_add(ctx, json_show(item, "kind"));
    table_add(ctx, subscription_of(item));
    for (size_t i = 0; i < sizeof(before) / sizeof(before[0]); i++) {
        table_add(ctx, json_show(item, before[i]));
    }
    table_add(ctx, percent_of(item));
    for (size_t i = 0; i < sizeof(after) / sizeof(after[0]); i++) {
        table_add(ctx, json_show(item, after[i]));
    }
}

int cmd_replay_ls(struct cli *cli, const struct args *args) {
    (void)args;
    static const char *const heads[] = {">ID",   "KIND",   "SUBSCRIPTION", "STATE",
                                        ">FROM", ">TO",    ">DONE",        ">MATCHED",
                                        ">OUT",  ">ACKED", "CREATED",      NULL};
    struct table t;
    table_init(&t, heads);
    int error = list_each(cli, "/v1/replays?page_size=1000", "replays", on_task, &t);
    table_end(&t, cli, error, "no replay yet: bellhop replay SUB --since 1h");
    return error;
}

/* "/v1/replays/ID" and what follows; NULL after a complaint. The caller frees. */
static char *path_of(const struct args *args, const char *verb) {
    uint64_t id;
    if (value_u64("the id of a replay", args_word(args, 0), 1, UINT32_MAX, &id) != 0) return NULL;
    return text_printf("/v1/replays/%llu%s", (unsigned long long)id, verb);
}

static void print_details(struct cli *cli, struct slice task) {
    static const char *const heads[] = {"", "", NULL};
    static const char *const fields[][2] = {{"id", "id"},
                                            {"kind", "kind"},
                                            {"subscription", "subscription"},
                                            {"state", "state"},
                                            {"from", "from_seq"},
                                            {"to", "to_seq"},
                                            {"next", "next"},
                                            {"matched", "matched"},
                                            {"outstanding", "outstanding"},
                                            {"acked", "acked"},
                                            {"expired", "expired"},
                                            {"rate", "rate"},
                                            {"created", "create_time"},
                                            {"finished", "finish_time"}};
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        bool name = strcmp(fields[i][1], "subscription") == 0;
        char *value = name ? subscription_of(task) : json_show(task, fields[i][1]);
        if (value[0] == '\0') {
            free(value);
            continue;
        }
        table_add(&t, mem_strdup(fields[i][0]));
        table_add(&t, value);
    }
    table_add(&t, mem_strdup("done"));
    table_add(&t, percent_of(task));
    table_add(&t, mem_strdup("takes"));
    table_add(&t, filter_show(task));
    table_print(&t, stdout, cli, "", "");
}

int cmd_replay_show(struct cli *cli, const struct args *args) {
    struct http_reply reply;
    char *path = path_of(args, "");
    if (path == NULL) return CLI_USAGE;
    int error = http_get(cli->http, path, &reply);
    free(path);
    if (error != 0) return error;
    if (cli->json) {
        list_print_json(buf_slice(&reply.body));
    } else {
        print_details(cli, buf_slice(&reply.body));
    }
    buf_free(&reply.body);
    return CLI_OK;
}

int cmd_replay_cancel(struct cli *cli, const struct args *args) {
    struct http_reply reply;
    char *path = path_of(args, ":cancel");
    if (path == NULL) return CLI_USAGE;
    int error = api_send(cli, "POST", path, NULL, &reply);
    free(path);
    if (error != 0) return error;
    return api_done(cli, &reply, task_show(buf_slice(&reply.body)));
}
