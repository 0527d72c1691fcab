/* webhook: what became of deliveries, sending again, keys, dynamic endpoints; event-types. */
#include <stdlib.h>
#include <string.h>

#include "clients/cli/commands.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"
#include "clients/cli/webhook_args.h"

/* "200", or "timeout: the time of 15000 ms is over". The caller frees. */
static char *outcome_of(struct slice attempt) {
    char *error = json_show(attempt, "error"), *detail = json_show(attempt, "detail");
    char *status = json_show(attempt, "status"), *response = json_show(attempt, "response");
    bool answered = status[0] != '\0' && strcmp(status, "0") != 0;
    const char *more = detail[0] != '\0' ? detail : answered ? response : "";
    char *text =
        text_printf("%s%s%s", answered ? status : error, more[0] != '\0' ? ": " : "", more);
    text_clean(text);
    text_cut(text, 80);
    free(error);
    free(detail);
    free(status);
    free(response);
    return text;
}

static void on_attempt(void *ctx, struct slice item) {
    struct table *t = ctx;
    struct slice ping;
    bool is_ping = json_find(item, "ping", &ping) && slice_eq_str(ping, "true");
    table_add(t, json_show(item, "time"));
    table_add(t, is_ping ? mem_strdup("ping") : json_show(item, "seq"));
    table_add(t, json_show(item, "type"));
    table_add(t, json_show(item, "attempt"));
    table_add(t, text_duration(json_number(item, "duration_ms", 0)));
    table_add(t, json_show(item, "next_attempt_at"));
    table_add(t, outcome_of(item));
}

int cmd_webhook_attempts(struct cli *cli, const struct args *args) {
    static const char *const heads[] = {"TIME",  ">SEQ",         "TYPE",    ">ATTEMPT",
                                        ">TOOK", "NEXT ATTEMPT", "OUTCOME", NULL};
    struct table t;
    table_init(&t, heads);
    char *path = webhook_path(args, "/attempts");
    int error = list_each(cli, path, "attempts", on_attempt, &t);
    free(path);
    table_end(&t, cli, error, "no attempt is known");
    return error;
}

/* POSTs the tree (takes it) and says which task was started. */
static int start(struct cli *cli, const struct args *args, const char *verb, json_t *tree,
                 const char *field, const char *what) {
    struct http_reply reply;
    char *path = webhook_path(args, verb);
    int error = api_send(cli, "POST", path, tree, &reply);
    free(path);
    if (error != 0) return error;
    char *id = json_show(buf_slice(&reply.body), field);
    char *text = text_printf("%s webhook %s again\n  how far it is: bellhop replay show %s", what,
                             args_word(args, 0), id);
    free(id);
    return api_done(cli, &reply, text);
}

int cmd_webhook_resend(struct cli *cli, const struct args *args) {
    uint64_t seq;
    int error = value_u64("SEQ", args_word(args, 1), 1, INT64_MAX, &seq);
    if (error != 0) return error;
    json_t *tree = json_object();
    api_set_u64(tree, "seq", seq);
    return start(cli, args, ":resend", tree, "replay_id", "the event goes to");
}

int cmd_webhook_recover(struct cli *cli, const struct args *args) {
    const char *since = args_get(args, "--since");
    char time[RFC3339_SIZE];
    if (since == NULL) {
        cli_complain("say from when on: --since 2h, or --since 2026-11-21T09:00:00Z");
        return CLI_USAGE;
    }
    int error = value_time("--since", since, time);
    if (error != 0) return error;
    return start(cli, args, ":recover", json_pack("{s:s}", "since", time), "redrive_id",
                 "the dead letters go to");
}

static void on_key(void *ctx, struct slice item) {
    static const char *const fields[] = {"kid", "alg", "state", "create_time", "retire_time"};
    struct slice from_file;
    bool file = json_find(item, "from_file", &from_file) && slice_eq_str(from_file, "true");
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        table_add(ctx, json_show(item, fields[i]));
    }
    table_add(ctx, mem_strdup(file ? "a file" : "the store"));
}

static const char *const key_heads[] = {"KID",     "ALG",     "STATE", "CREATED",
                                        "RETIRED", "KEPT IN", NULL};

int cmd_webhook_keys(struct cli *cli, const struct args *args) {
    (void)args;
    struct table t;
    table_init(&t, key_heads);
    int error = list_each(cli, "/v1/webhook-keys", "keys", on_key, &t);
    table_end(&t, cli, error, "no key");
    return error;
}

int cmd_webhook_rotate_key(struct cli *cli, const struct args *args) {
    struct http_reply reply;
    int error = api_send(cli, "POST", "/v1/webhook-keys:rotate", json_object(), &reply);
    if (error != 0) return error;
    buf_free(&reply.body);
    return cmd_webhook_keys(cli, args);
}

static void on_endpoint(void *ctx, struct slice item) {
    static const char *const fields[] = {"origin",    "delivered",         "failed",
                                         "in_flight", "last_success_time", "failing_since",
                                         "breaker",   "next_probe_at"};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        table_add(ctx, json_show(item, fields[i]));
    }
}

int cmd_webhook_endpoints(struct cli *cli, const struct args *args) {
    (void)args;
    static const char *const heads[] = {"ORIGIN",  ">DELIVERED",   ">FAILED",
                                        ">FLYING", "LAST SUCCESS", "FAILING SINCE",
                                        "BREAKER", "NEXT PROBE",   NULL};
    struct table t;
    table_init(&t, heads);
    int error = list_each(cli, "/v1/webhook-endpoints", "endpoints", on_endpoint, &t);
    table_end(&t, cli, error, "no event has brought URIs of its own yet");
    return error;
}

/* "id, output_file_uri". The caller frees. */
static char *fields_of(struct slice type) {
    struct slice list, key, item;
    struct json_walk walk;
    char *text = mem_strdup("");
    if (!json_find(type, "fields", &list) || !json_walk_open(&walk, list)) return text;
    while (json_walk_next(&walk, &key, &item)) {
        char *name = json_show(item, "name");
        char *longer = text_printf("%s%s%s", text, text[0] != '\0' ? ", " : "", name);
        free(name);
        free(text);
        text = longer;
    }
    return text;
}

static void on_type(void *ctx, struct slice item) {
    table_add(ctx, json_show(item, "type"));
    table_add(ctx, fields_of(item));
    table_add(ctx, json_show(item, "description"));
}

int cmd_event_types(struct cli *cli, const struct args *args) {
    (void)args;
    static const char *const heads[] = {"TYPE", "DATA", "WHEN", NULL};
    struct table t;
    table_init(&t, heads);
    int error = list_each(cli, "/v1/event-types", "event_types", on_type, &t);
    table_end(&t, cli, error, "no type is listed");
    return error;
}
