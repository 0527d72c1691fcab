/* webhook: registered webhooks, as they are defined and as they stand. */
#include <stdlib.h>
#include <string.h>

#include "clients/cli/commands.h"
#include "clients/cli/filter_args.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"
#include "clients/cli/webhook_args.h"

static void print_secret(struct slice reply, const char *field) {
    char *secret = json_show(reply, field);
    printf("  secret %s\n  it is not shown again; how to verify with it: docs/receiving.md\n",
           secret);
    free(secret);
}

int cmd_webhook_create(struct cli *cli, const struct args *args) {
    struct http_reply reply;
    json_t *tree = json_object();
    int error = api_set_text(tree, "the URI", "uri", args_word(args, 0));
    if (error == 0 && !args_has(args, "--event")) {
        cli_complain("--event is missing: such as --event 'batch.*', or --event '*' for all");
        error = CLI_USAGE;
    }
    if (error == 0) error = webhook_args_read(tree, args);
    if (error == 0) error = api_send(cli, "POST", "/v1/webhooks", json_incref(tree), &reply);
    json_decref(tree);
    if (error != 0) return error;
    if (cli->json) return api_done(cli, &reply, NULL);
    char *id = json_show(buf_slice(&reply.body), "id");
    printf("created webhook %s\n", id);
    print_secret(buf_slice(&reply.body), "new_signing_secret");
    free(id);
    buf_free(&reply.body);
    return CLI_OK;
}

/* "a,b" of subscribed_events. The caller frees. */
static char *events_of(struct slice webhook) {
    struct slice list, key, item;
    struct json_walk walk;
    char *text = mem_strdup("");
    if (!json_find(webhook, "subscribed_events", &list) || !json_walk_open(&walk, list)) {
        return text;
    }
    while (json_walk_next(&walk, &key, &item)) {
        if (item.len < 2) continue;
        char *longer = text_printf("%s%s%.*s", text, text[0] != '\0' ? "," : "",
                                   (int)(item.len - 2), (const char *)item.data + 1);
        free(text);
        text = longer;
    }
    return text;
}

/* The state, with what stands in its way. The caller frees. */
static char *state_of(struct slice webhook) {
    struct slice paused;
    char *state = json_show(webhook, "state"), *breaker = json_show(webhook, "stats.breaker");
    bool is_paused = json_find(webhook, "paused", &paused) && slice_eq_str(paused, "true");
    bool closed = breaker[0] == '\0' || strcmp(breaker, "closed") == 0;
    char *text = text_printf("%s%s%s%s", state, is_paused ? ", paused" : "",
                             closed ? "" : ", breaker ", closed ? "" : breaker);
    free(state);
    free(breaker);
    return text;
}

static void on_webhook(void *ctx, struct slice item) {
    static const char *const counts[] = {"stats.backlog", "stats.delayed", "stats.in_flight",
                                         "stats.dead"};
    struct table *t = ctx;
    char *name = json_show(item, "name"), *events = events_of(item);
    text_clean(name);
    text_cut(name, 24);
    text_clean(events);
    text_cut(events, 32);
    table_add(t, json_show(item, "id"));
    table_add(t, name);
    table_add(t, json_show(item, "uri"));
    table_add(t, events);
    table_add(t, state_of(item));
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        table_add(t, json_show(item, counts[i]));
    }
}

int cmd_webhook_ls(struct cli *cli, const struct args *args) {
    (void)args;
    static const char *const heads[] = {"ID",       "NAME",     "URI",     "EVENTS", "STATE",
                                        ">BACKLOG", ">DELAYED", ">FLYING", ">DEAD",  NULL};
    struct table t;
    table_init(&t, heads);
    int error = list_each(cli, "/v1/webhooks?page_size=1000", "webhooks", on_webhook, &t);
    table_end(&t, cli, error, "no webhook yet: bellhop webhook create URI --event GLOB");
    return error;
}

static void line(struct table *t, const char *label, char *value) {
    if (value[0] == '\0') {
        free(value);
        return;
    }
    table_add(t, mem_strdup(label));
    table_add(t, value);
}

static void add_secrets(struct table *t, struct slice webhook) {
    struct slice list, key, item;
    struct json_walk walk;
    if (!json_find(webhook, "signing_secrets", &list) || !json_walk_open(&walk, list)) return;
    while (json_walk_next(&walk, &key, &item)) {
        char *secret = json_show(item, "truncated_secret"), *until = json_show(item, "expire_time");
        line(t, "secret", text_printf("%s%s%s", secret, until[0] != '\0' ? " until " : "", until));
        free(secret);
        free(until);
    }
}

static void add_headers(struct table *t, struct slice webhook) {
    struct slice object, key, value;
    struct json_walk walk;
    if (!json_find(webhook, "headers", &object) || !json_walk_open(&walk, object)) return;
    while (json_walk_next(&walk, &key, &value)) {
        if (key.len < 2 || value.len < 2) continue;
        line(t, "header",
             text_printf("%.*s: %.*s", (int)key.len - 2, (const char *)key.data + 1,
                         (int)value.len - 2, (const char *)value.data + 1));
    }
}

static void add_definition(struct table *t, struct slice webhook) {
    static const char *const fields[][2] = {
        {"id", "id"}, {"name", "name"}, {"description", "description"}, {"uri", "uri"}};
    uint64_t rate = json_number(webhook, "rate_per_s", 0);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        line(t, fields[i][0], json_show(webhook, fields[i][1]));
    }
    line(t, "events", events_of(webhook));
    line(t, "filter", json_show(webhook, "filter"));
    line(t, "state", state_of(webhook));
    line(t, "reason", json_show(webhook, "disabled_reason"));
    add_secrets(t, webhook);
    add_headers(t, webhook);
    line(t, "rate",
         rate == 0 ? mem_strdup("no limit")
                   : text_printf("%llu a second", (unsigned long long)rate));
    line(t, "concurrency", json_show(webhook, "concurrency"));
    line(t, "created", json_show(webhook, "create_time"));
    line(t, "updated", json_show(webhook, "update_time"));
}

static void add_stats(struct table *t, struct slice webhook) {
    static const char *const fields[][2] = {{"delivered", "delivered"},
                                            {"failed", "failed"},
                                            {"failed here", "internal_errors"},
                                            {"in flight", "in_flight"},
                                            {"backlog", "backlog"},
                                            {"delayed", "delayed"},
                                            {"dead letters", "dead"},
                                            {"last success", "last_success_time"},
                                            {"last failure", "last_failure_time"},
                                            {"failing since", "failing_since"},
                                            {"next probe", "next_probe_at"},
                                            {"next attempt", "next_attempt_at"}};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        char *path = text_printf("stats.%s", fields[i][1]);
        line(t, fields[i][0], json_show(webhook, path));
        free(path);
    }
}

int cmd_webhook_show(struct cli *cli, const struct args *args) {
    static const char *const heads[] = {"", "", NULL};
    struct http_reply reply;
    char *path = webhook_path(args, "");
    int error = http_get(cli->http, path, &reply);
    free(path);
    if (error != 0) return error;
    if (cli->json) return api_done(cli, &reply, NULL);
    struct table t;
    table_init(&t, heads);
    add_definition(&t, buf_slice(&reply.body));
    add_stats(&t, buf_slice(&reply.body));
    table_print(&t, stdout, cli, "", "");
    buf_free(&reply.body);
    return CLI_OK;
}

/* PATCHes the tree (takes it) and says so. */
static int patch(struct cli *cli, const struct args *args, json_t *tree, const char *now) {
    struct http_reply reply;
    char *path = webhook_path(args, "");
    int error = api_send(cli, "PATCH", path, tree, &reply);
    free(path);
    if (error != 0) return error;
    return api_done(cli, &reply, text_printf("webhook %s %s", args_word(args, 0), now));
}

int cmd_webhook_update(struct cli *cli, const struct args *args) {
    json_t *tree = json_object();
    int error = webhook_args_read(tree, args);
    if (error == 0 && json_object_size(tree) == 0) {
        cli_complain("nothing to change was given; see: bellhop webhook update --help");
        error = CLI_USAGE;
    }
    if (error == 0) error = patch(cli, args, json_incref(tree), "is updated");
    json_decref(tree);
    return error;
}

int cmd_webhook_enable(struct cli *cli, const struct args *args) {
    return patch(cli, args, json_pack("{s:s}", "state", "enabled"),
                 "is enabled: what waited is delivered");
}

int cmd_webhook_disable(struct cli *cli, const struct args *args) {
    return patch(cli, args, json_pack("{s:s}", "state", "disabled"),
                 "is disabled: its events wait, and grow old");
}

static int act(struct cli *cli, const struct args *args, const char *verb, const char *now) {
    struct http_reply reply;
    char *path = webhook_path(args, verb);
    int error = api_send(cli, "POST", path, json_object(), &reply);
    free(path);
    if (error != 0) return error;
    return api_done(cli, &reply, text_printf("webhook %s %s", args_word(args, 0), now));
}

int cmd_webhook_pause(struct cli *cli, const struct args *args) {
    return act(cli, args, ":pause", "is paused: it keeps its events, and they do not grow old");
}

int cmd_webhook_resume(struct cli *cli, const struct args *args) {
    return act(cli, args, ":resume", "delivers again");
}

int cmd_webhook_ping(struct cli *cli, const struct args *args) {
    struct http_reply reply;
    char *path = webhook_path(args, ":ping");
    int error = api_send(cli, "POST", path, json_object(), &reply);
    free(path);
    if (error != 0) return error;
    return api_done(cli, &reply,
                    text_printf("webhook.ping is on its way; what became of it: bellhop webhook "
                                "attempts %s",
                                args_word(args, 0)));
}

int cmd_webhook_rotate(struct cli *cli, const struct args *args) {
    bool now = args_has(args, "--now");
    struct http_reply reply;
    char *path = webhook_path(args, ":rotateSigningSecret");
    json_t *tree = json_pack(
        "{s:s}", "revocation_behavior",
        now ? "revoke_previous_secrets_immediately" : "revoke_previous_secrets_after_h24");
    int error = api_send(cli, "POST", path, tree, &reply);
    free(path);
    if (error != 0) return error;
    if (cli->json) return api_done(cli, &reply, NULL);
    printf("webhook %s has a new secret; those before %s\n", args_word(args, 0),
           now ? "do not sign any more" : "sign beside it for 24 hours");
    print_secret(buf_slice(&reply.body), "secret");
    buf_free(&reply.body);
    return CLI_OK;
}

/* Says what goes with it, and asks. */
static int confirm_rm(struct cli *cli, const struct args *args) {
    struct http_reply reply;
    if (args_has(args, "--yes")) return 0;
    char *path = webhook_path(args, "");
    int error = http_get(cli->http, path, &reply);
    free(path);
    if (error != 0) return error;
    struct slice webhook = buf_slice(&reply.body);
    char *uri = json_show(webhook, "uri");
    uint64_t open =
        json_number(webhook, "stats.delayed", 0) + json_number(webhook, "stats.in_flight", 0);
    char *unread = text_count(json_number(webhook, "stats.backlog", 0), "unread journal position");
    char *events = text_count(open, "undelivered event");
    char *dead = text_count(json_number(webhook, "stats.dead", 0), "dead letter");
    text_clean(uri);
    char *question =
        text_printf("The webhook to %s has %s, %s and %s.\nDelete it with all of them?", uri,
                    events, unread, dead);
    error = api_confirm(args, question);
    free(uri);
    free(unread);
    free(events);
    free(dead);
    free(question);
    buf_free(&reply.body);
    return error;
}

int cmd_webhook_rm(struct cli *cli, const struct args *args) {
    int error = value_name("webhook", args_word(args, 0));
    if (error == 0) error = api_can_confirm(args, "delete the webhook");
    if (error == 0) error = confirm_rm(cli, args);
    if (error != 0) return error;
    return list_remove(cli, "webhook", "/v1/webhooks/", args_word(args, 0));
}
