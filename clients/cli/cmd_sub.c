/* sub: subscriptions, as they are defined and as they run. */
#include <stdlib.h>
#include <string.h>

#include "clients/cli/commands.h"
#include "clients/cli/filter_args.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/policy.h"
#include "clients/cli/value.h"

/* "/v1/subscriptions/NAME" and what follows; NULL after a complaint. The caller frees. */
static char *path_of(const struct args *args, const char *verb) {
    const char *name = args_word(args, 0);
    if (value_name("subscription", name) != 0) return NULL;
    return text_printf("/v1/subscriptions/%s%s", name, verb);
}

int cmd_sub_create(struct cli *cli, const struct args *args) {
    const char *name = args_word(args, 0), *start = args_get(args, "--start");
    struct http_reply reply;
    json_t *tree = json_object();
    int error = value_name("subscription", name);
    if (error == 0) error = policy_read(tree, args, false);
    if (error == 0 && start != NULL) {
        error = policy_read_position(tree, "--start (new, first, a seq or a time)", "start", start);
    }
    if (error != 0) {
        json_decref(tree);
        return error;
    }
    json_object_set_new(tree, "name", json_string(name));
    error = api_send(cli, "POST", "/v1/subscriptions", tree, &reply);
    if (error != 0) return error;
    char *text =
        reply.status == 201
            ? text_printf("created subscription %s\n  work on it with: bellhop work %s -- CMD",
                          name, name)
            : text_printf("subscription %s exists already, with this policy", name);
    return api_done(cli, &reply, text);
}

int cmd_sub_update(struct cli *cli, const struct args *args) {
    struct http_reply reply;
    char *path = path_of(args, "");
    if (path == NULL) return CLI_USAGE;
    json_t *tree = json_object();
    int error = policy_read(tree, args, true);
    if (error == 0 && json_object_size(tree) == 0) {
        cli_complain("nothing to change was given; see: bellhop sub update --help");
        error = CLI_USAGE;
    }
    if (error == 0) {
        error = api_send(cli, "PATCH", path, json_incref(tree), &reply);
    }
    json_decref(tree);
    free(path);
    if (error != 0) return error;
    return api_done(cli, &reply, text_printf("updated subscription %s", args_word(args, 0)));
}

static int act(struct cli *cli, const struct args *args, const char *verb, const char *now) {
    struct http_reply reply;
    char *path = path_of(args, verb);
    if (path == NULL) return CLI_USAGE;
    int error = api_send(cli, "POST", path, NULL, &reply);
    free(path);
    if (error != 0) return error;
    return api_done(cli, &reply, text_printf("subscription %s %s", args_word(args, 0), now));
}

int cmd_sub_pause(struct cli *cli, const struct args *args) {
    return act(cli, args, ":pause", "is paused: it keeps its queue and hands nothing out");
}

int cmd_sub_resume(struct cli *cli, const struct args *args) {
    return act(cli, args, ":resume", "hands out again");
}

/* Says what would be lost, and asks. */
static int confirm_seek(struct cli *cli, const struct args *args, const char *to) {
    const char *name = args_word(args, 0);
    struct http_reply reply;
    if (args_has(args, "--yes")) return 0;
    char *path = path_of(args, "");
    int error = http_get(cli->http, path, &reply);
    free(path);
    if (error != 0) return error;
    struct slice sub = buf_slice(&reply.body);
    char *question = text_printf(
        "%s reads on at seq %llu now; %llu events are with workers, %llu wait.\n"
        "Move it to %s? What it has out is forgotten and its leases are revoked.",
        name, (unsigned long long)json_number(sub, "next", 0),
        (unsigned long long)json_number(sub, "leased", 0),
        (unsigned long long)json_number(sub, "ready", 0), to);
    error = api_confirm(args, question);
    free(question);
    buf_free(&reply.body);
    return error;
}

int cmd_sub_seek(struct cli *cli, const struct args *args) {
    const char *to = args_get(args, "--to");
    struct http_reply reply;
    if (to == NULL) {
        cli_complain("say where it shall read on: --to new, first, a seq or a time");
        return CLI_USAGE;
    }
    char *path = path_of(args, ":seek");
    if (path == NULL) return CLI_USAGE;
    json_t *tree = json_object();
    int error = policy_read_position(tree, "--to (new, first, a seq or a time)", "to", to);
    if (error == 0) error = api_can_confirm(args, "move the subscription");
    if (error == 0) error = confirm_seek(cli, args, to);
    if (error == 0) error = api_send(cli, "POST", path, json_incref(tree), &reply);
    json_decref(tree);
    free(path);
    if (error != 0) return error;
    return api_done(
        cli, &reply,
        text_printf("subscription %s reads on at seq %llu", args_word(args, 0),
                    (unsigned long long)json_number(buf_slice(&reply.body), "next", 0)));
}

static void on_sub(void *ctx, struct slice item) {
    struct table *t = ctx;
    static const char *const fields[] = {"backlog", "ready",   "leased",
                                         "delayed", "blocked", "dead"};
    table_add(t, json_show(item, "name"));
    char *filter = filter_show(item);
    text_clean(filter);
    text_cut(filter, 40);
    table_add(t, filter);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        table_add(t, json_show(item, fields[i]));
    }
    table_add(t, text_age(json_number(item, "oldest_ms", 0)));
    table_add(t, json_show(item, "attachments"));
    table_add(t, json_show(item, "why_idle"));
}

int cmd_sub_ls(struct cli *cli, const struct args *args) {
    (void)args;
    static const char *const heads[] = {"NAME",    "FILTER",   ">BACKLOG", ">READY",
                                        ">LEASED", ">DELAYED", ">BLOCKED", ">DEAD",
                                        ">OLDEST", ">WORKERS", "WHY IDLE", NULL};
    struct table t;
    table_init(&t, heads);
    int error = list_each(cli, "/v1/subscriptions?page_size=1000", "subscriptions", on_sub, &t);
    table_end(&t, cli, error, "no subscription yet: bellhop sub create NAME");
    return error;
}

static void line(struct table *t, const char *label, char *value) {
    table_add(t, mem_strdup(label));
    table_add(t, value);
}

/* A field, or two as "12 a second". */
static void field_line(struct table *t, const char *label, struct slice sub, const char *field,
                       const char *unit) {
    char *value = json_show(sub, field);
    line(t, label, text_printf("%s%s", value, unit));
    free(value);
}

static char *limit_of(struct slice sub, const char *field) {
    uint64_t ms = json_number(sub, field, 0);
    return ms == 0 ? mem_strdup("no limit") : text_span(ms);
}

static char *backoff_of(struct slice sub) {
    struct slice list, key, item;
    struct json_walk walk;
    char *jitter = json_show(sub, "backoff.jitter"), *text;
    if (json_find(sub, "backoff.list_ms", &list) && json_walk_open(&walk, list)) {
        text = mem_strdup("");
        while (json_walk_next(&walk, &key, &item)) {
            uint64_t ms = 0;
            if (!slice_to_u64(item, &ms)) continue;
            char *step = text_span(ms);
            char *longer = text_printf("%s%s%s", text, text[0] != '\0' ? ", " : "", step);
            free(step);
            free(text);
            text = longer;
        }
    } else {
        char *min = text_span(json_number(sub, "backoff.min_ms", 0));
        char *max = text_span(json_number(sub, "backoff.max_ms", 0));
        char *factor = json_show(sub, "backoff.factor");
        text = text_printf("%s to %s, times %s", min, max, factor);
        free(min);
        free(max);
        free(factor);
    }
    char *whole = jitter[0] != '\0' ? text_printf("%s, jitter %s", text, jitter) : mem_strdup(text);
    free(jitter);
    free(text);
    return whole;
}

/* The key of "order" when it is not the subject. */
static char *order_of(struct slice sub) {
    struct slice key;
    if (!json_find(sub, "order.key", &key)) return json_show(sub, "order");
    char *name = json_show(sub, "order.key");
    char *text = text_printf("key %s", name);
    free(name);
    return text;
}

static void add_policy(struct table *t, struct slice sub) {
    uint64_t fails = json_number(sub, "max_fails", 0), rate = json_number(sub, "rate", 0);
    line(t, "takes", filter_show(sub));
    line(t, "lease", text_span(json_number(sub, "lease_ms", 0)));
    line(t, "max hold", text_span(json_number(sub, "max_hold_ms", 0)));
    line(t, "max age", limit_of(sub, "max_age_ms"));
    line(t, "max fails",
         fails == 0 ? mem_strdup("no limit") : text_printf("%llu", (unsigned long long)fails));
    line(t, "backoff", backoff_of(sub));
    line(t, "rate",
         rate == 0 ? mem_strdup("no limit")
                   : text_printf("%llu a second", (unsigned long long)rate));
    line(t, "order", order_of(sub));
    field_line(t, "lag", sub, "lag", "");
    field_line(t, "created", sub, "create_time", "");
}

/* The word of why_idle and what it means. */
static char *why_idle_of(struct slice sub) {
    static const char *const words[][2] = {
        {"busy", "events are being handed out"},
        {"empty", "nothing waits to be handed out"},
        {"no_workers", "no worker is attached: bellhop work"},
        {"window", "the workers hold as many events as they asked for"},
        {"paused", "an operator paused it: bellhop sub resume"},
        {"backoff", "what is left waits for its retry, or to become due"},
        {"rate", "its rate limit is reached"},
        {"order", "what is left waits for an earlier event of its key"},
        {"cap", "too many events are unsettled: it reads no further until some are"},
        {"scanning", "it reads the journal for events that match"}};
    char *why = json_show(sub, "why_idle");
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(why, words[i][0]) != 0) continue;
        char *text = text_printf("%s: %s", why, words[i][1]);
        free(why);
        return text;
    }
    return why;
}

static void add_state(struct table *t, struct slice sub) {
    static const char *const fields[][3] = {{"floor", "floor", ": every event below it is settled"},
                                            {"next", "next", ": where it reads on"},
                                            {"backlog", "backlog", " journal positions to read"},
                                            {"ready", "ready", ""},
                                            {"leased", "leased", ""},
                                            {"delayed", "delayed", ""},
                                            {"blocked", "blocked", ""},
                                            {"dead letters", "dead", ""}};
    static const char *const totals[][3] = {
        {"in", "in_per_s", " a second"}, {"out", "out_per_s", " a second"},
        {"acked", "acked", ""},          {"dead in all", "dead_total", ""},
        {"expired", "expired", ""},      {"workers", "attachments", ""},
        {"replays", "replays", ""}};
    line(t, "why idle", why_idle_of(sub));
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        field_line(t, fields[i][0], sub, fields[i][1], fields[i][2]);
    }
    line(t, "oldest", text_age(json_number(sub, "oldest_ms", 0)));
    for (size_t i = 0; i < sizeof(totals) / sizeof(totals[0]); i++) {
        field_line(t, totals[i][0], sub, totals[i][1], totals[i][2]);
    }
}

static int show(struct cli *cli, const struct args *args, bool state, bool policy) {
    static const char *const heads[] = {"", "", NULL};
    struct http_reply reply;
    char *path = path_of(args, "");
    if (path == NULL) return CLI_USAGE;
    int error = http_get(cli->http, path, &reply);
    free(path);
    if (error != 0) return error;
    struct slice sub = buf_slice(&reply.body);
    if (cli->json) {
        list_print_json(sub);
    } else {
        struct table t;
        table_init(&t, heads);
        line(&t, "name", json_show(sub, "name"));
        if (state) add_state(&t, sub);
        if (policy) add_policy(&t, sub);
        if (!state) line(&t, "why idle", why_idle_of(sub));
        table_print(&t, stdout, cli, "", "");
    }
    buf_free(&reply.body);
    return CLI_OK;
}

int cmd_sub_show(struct cli *cli, const struct args *args) {
    return show(cli, args, false, true);
}

int cmd_sub_stats(struct cli *cli, const struct args *args) {
    return show(cli, args, true, true);
}

/* Says what goes with it, and asks. */
static int confirm_rm(struct cli *cli, const struct args *args) {
    const char *name = args_word(args, 0);
    struct http_reply reply;
    if (args_has(args, "--yes")) return 0;
    char *path = path_of(args, "");
    int error = http_get(cli->http, path, &reply);
    free(path);
    if (error != 0) return error;
    struct slice sub = buf_slice(&reply.body);
    uint64_t open = json_number(sub, "ready", 0) + json_number(sub, "leased", 0) +
                    json_number(sub, "delayed", 0) + json_number(sub, "blocked", 0);
    char *events = text_count(open, "unsettled event");
    char *unread = text_count(json_number(sub, "backlog", 0), "unread journal position");
    char *dead = text_count(json_number(sub, "dead", 0), "dead letter");
    char *question = text_printf("%s has %s, %s and %s.\nDelete it with all of them?", name, events,
                                 unread, dead);
    error = api_confirm(args, question);
    free(events);
    free(unread);
    free(dead);
    free(question);
    buf_free(&reply.body);
    return error;
}

int cmd_sub_rm(struct cli *cli, const struct args *args) {
    int error = value_name("subscription", args_word(args, 0));
    if (error == 0) error = api_can_confirm(args, "delete the subscription");
    if (error == 0) error = confirm_rm(cli, args);
    if (error != 0) return error;
    return list_remove(cli, "subscription", "/v1/subscriptions/", args_word(args, 0));
}
