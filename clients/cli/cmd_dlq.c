/* dlq: the dead letters of a subscription: looked at, given back, removed. */
#include <stdlib.h>
#include <string.h>

#include "clients/cli/commands.h"
#include "clients/cli/filter_args.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/task.h"
#include "clients/cli/value.h"

#define PATH_BYTES (128 * 1024)

static char *error_of(struct slice letter) {
    char *type = json_show(letter, "error.type"), *message = json_show(letter, "error.message");
    char *text =
        text_printf("%s%s%s", type, type[0] != '\0' && message[0] != '\0' ? ": " : "", message);
    free(type);
    free(message);
    return text;
}

static void on_letter(void *ctx, struct slice item) {
    static const char *const fields[] = {"seq",        "event.type", "event.subject", "reason",
                                         "deliveries", "fails",      "replay",        "died_at"};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        table_add(ctx, json_show(item, fields[i]));
    }
    char *error = error_of(item);
    text_clean(error);
    text_cut(error, 60);
    table_add(ctx, error);
}

/* Appends the query; 0, or CLI_USAGE when it is longer than a request may be. */
static int make_query(struct buf *path, const struct args *args) {
    json_t *filter;
    char *text = NULL;
    int error = filter_args_json(args, &filter);
    if (error != 0) return error;
    if (filter != NULL) {
        text = json_dumps(filter, JSON_COMPACT);
        json_decref(filter);
        CHECK(text != NULL);
    }
    buf_append_str(path, "/v1/dead-letters?page_size=200");
    http_query(path, "subscription", args_word(args, 0));
    http_query(path, "type", args_get(args, "--type"));
    http_query(path, "subject_prefix", args_get(args, "--subject-prefix"));
    http_query(path, "reason", args_get(args, "--reason"));
    http_query(path, "filter", text);
    buf_append_byte(path, '\0');
    free(text);
    /* A page token comes behind it. */
    if (path->overflow || path->len > LIMIT_HTTP_TARGET_BYTES - 256) {
        cli_complain("what to list is longer than a request may be, %d bytes: use fewer conditions",
                     LIMIT_HTTP_TARGET_BYTES);
        return CLI_USAGE;
    }
    return 0;
}

int cmd_dlq_ls(struct cli *cli, const struct args *args) {
    static const char *const heads[] = {">SEQ",   "TYPE",    "SUBJECT", "REASON", ">DELIVERIES",
                                        ">FAILS", ">REPLAY", "DIED",    "ERROR",  NULL};
    const char *name = args_word(args, 0);
    struct buf path;
    buf_init(&path, PATH_BYTES);
    int error = value_name("subscription", name);
    if (error == 0) error = make_query(&path, args);
    if (error == 0) {
        struct table t;
        table_init(&t, heads);
        error = list_each(cli, (const char *)path.data, "dead_letters", on_letter, &t);
        table_end(&t, cli, error, "no dead letter");
    }
    buf_free(&path);
    return error;
}

static void print_block(const char *title, char *text) {
    text_clean_lines(text);
    size_t len = strlen(text);
    if (len > 0) printf("\n%s\n%s%s", title, text, text[len - 1] == '\n' ? "" : "\n");
    free(text);
}

/* The body as it came in: `body` is JSON text, which is shown as it is. */
static char *body_of(struct slice letter) {
    struct slice body;
    if (json_find(letter, "event.body", &body)) return text_printf("%.*s", SLICE_ARG(body));
    char *text = json_show(letter, "event.body_text");
    if (text[0] != '\0') return text;
    free(text);
    return json_show(letter, "event.body_base64");
}

static void print_letter(struct cli *cli, struct slice letter) {
    static const char *const heads[] = {"", "", NULL};
    static const char *const fields[][2] = {{"subscription", "subscription"},
                                            {"seq", "seq"},
                                            {"replay", "replay"},
                                            {"reason", "reason"},
                                            {"deliveries", "deliveries"},
                                            {"fails", "fails"},
                                            {"died", "died_at"},
                                            {"error", "error.type"},
                                            {"message", "error.message"},
                                            {"type", "event.type"},
                                            {"id", "event.id"},
                                            {"source", "event.source"},
                                            {"subject", "event.subject"},
                                            {"time", "event.time"},
                                            {"received", "event.received_at"},
                                            {"user_metadata", "event.user_metadata"},
                                            {"content type", "event.content_type"}};
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        char *value = json_show(letter, fields[i][1]);
        if (value[0] == '\0') {
            free(value);
            continue;
        }
        table_add(&t, mem_strdup(fields[i][0]));
        table_add(&t, value);
    }
    table_print(&t, stdout, cli, "", "");
    struct slice base64;
    bool binary = json_find(letter, "event.body_base64", &base64);
    print_block("detail of the error:", json_show(letter, "error.detail"));
    print_block(binary ? "body (base64):" : "body:", body_of(letter));
}

int cmd_dlq_show(struct cli *cli, const struct args *args) {
    const char *name = args_word(args, 0), *replay_text = args_get(args, "--replay");
    uint64_t seq, replay = 0;
    struct http_reply reply;
    int error = value_name("subscription", name);
    if (error == 0) error = value_u64("the seq", args_word(args, 1), 1, INT64_MAX, &seq);
    if (error == 0 && replay_text != NULL) {
        error = value_u64("--replay", replay_text, 1, UINT32_MAX, &replay);
    }
    if (error != 0) return error;
    char *query = replay_text != NULL ? text_printf("?replay=%llu", (unsigned long long)replay)
                                      : mem_strdup("");
    char *path = text_printf("/v1/dead-letters/%s/%llu%s", name, (unsigned long long)seq, query);
    free(query);
    error = http_get(cli->http, path, &reply);
    free(path);
    if (error != 0) return error;
    if (cli->json) {
        list_print_json(buf_slice(&reply.body));
    } else {
        print_letter(cli, buf_slice(&reply.body));
    }
    buf_free(&reply.body);
    return CLI_OK;
}

/* Which dead letters: exactly one of --seq, a filter and --all. */
static int make_request(const struct args *args, json_t **out) {
    const char *name = args_word(args, 0), *seq_text = args_get(args, "--seq");
    const char *rate_text = args_get(args, "--rate");
    int ways = (seq_text != NULL) + filter_args_given(args) + args_has(args, "--all");
    uint64_t number;
    json_t *tree = json_object(), *filter = NULL;
    int error = value_name("subscription", name);
    if (error == 0 && ways != 1) {
        cli_complain(ways == 0
                         ? "say which dead letters: --seq N, --filter JSON, --type GLOB or --all"
                         : "--seq, a filter and --all exclude each other");
        error = CLI_USAGE;
    }
    if (error == 0 && seq_text != NULL) {
        error = value_u64("--seq", seq_text, 1, INT64_MAX, &number);
        if (error == 0) api_set_u64(tree, "seq", number);
    }
    if (error == 0) error = filter_args_read(args, &filter);
    if (error == 0 && rate_text != NULL) {
        error = value_u64("--rate", rate_text, 1, LIMIT_RATE_PER_S, &number);
        if (error == 0) api_set_u64(tree, "rate", number);
    }
    if (filter != NULL) json_object_set_new(tree, "filter", filter);
    if (error != 0) {
        json_decref(tree);
        return error;
    }
    json_object_set_new(tree, "subscription", json_string(name));
    *out = tree;
    return 0;
}

int cmd_dlq_redrive(struct cli *cli, const struct args *args) {
    json_t *tree;
    int error = make_request(args, &tree);
    if (error != 0) return error;
    return task_start(cli, "/v1/dead-letters:redrive", tree, args_has(args, "--wait"), false);
}

/* Says how many there are, and asks. */
static int confirm_purge(struct cli *cli, const struct args *args) {
    const char *name = args_word(args, 0), *seq = args_get(args, "--seq");
    struct http_reply reply;
    if (args_has(args, "--yes")) return 0;
    char *path = text_printf("/v1/subscriptions/%s", name);
    int error = http_get(cli->http, path, &reply);
    free(path);
    if (error != 0) return error;
    unsigned long long dead = json_number(buf_slice(&reply.body), "dead", 0);
    buf_free(&reply.body);
    char *question =
        seq != NULL
            ? text_printf("%s has %llu dead letters. Remove that of seq %s for good?", name, dead,
                          seq)
            : text_printf("%s has %llu dead letters. Remove %s for good?", name, dead,
                          args_has(args, "--all") ? "all of them" : "those that match the filter");
    error = api_confirm(args, question);
    free(question);
    return error;
}

int cmd_dlq_purge(struct cli *cli, const struct args *args) {
    json_t *tree;
    int error = make_request(args, &tree);
    if (error != 0) return error;
    error = api_can_confirm(args, "remove them for good");
    if (error == 0) error = confirm_purge(cli, args);
    if (error != 0) {
        json_decref(tree);
        return error;
    }
    return task_start(cli, "/v1/dead-letters:purge", tree, args_has(args, "--wait"), false);
}
