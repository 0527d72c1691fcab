#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "clients/cli/commands.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"

static void set_filter(json_t *tree, const struct args *args) {
    static const char *const options[][2] = {{"--type", "types"}, {"--source", "sources"}};
    json_t *filter = NULL;
    for (size_t i = 0; i < 2; i++) {
        json_t *list = NULL;
        const char *value;
        size_t at = 0;
        while ((value = args_next(args, options[i][0], &at)) != NULL) {
            if (list == NULL) list = json_array();
            json_array_append_new(list, json_string(value));
        }
        if (list == NULL) continue;
        if (filter == NULL) filter = json_object();
        json_object_set_new(filter, options[i][1], list);
    }
    if (filter != NULL) json_object_set_new(tree, "filter", filter);
}

static int set_start(json_t *tree, const char *start) {
    uint64_t seq;
    char time[RFC3339_SIZE];
    if (strcmp(start, "new") == 0 || strcmp(start, "first") == 0) {
        json_object_set_new(tree, "start", json_string(start));
    } else if (slice_to_u64(slice_str(start), &seq) && seq <= INT64_MAX) {
        json_object_set_new(tree, "start", json_pack("{s:I}", "seq", (json_int_t)seq));
    } else {
        int error = value_time("--start (new, first, a seq or a time)", start, time);
        if (error != 0) return error;
        json_object_set_new(tree, "start", json_pack("{s:s}", "time", time));
    }
    return 0;
}

/* The policy options, into the request. */
static int set_policy(json_t *tree, const struct args *args) {
    const char *lease = args_get(args, "--lease"), *fails = args_get(args, "--max-fails");
    const char *backoff = args_get(args, "--backoff"), *start = args_get(args, "--start");
    uint64_t number, max_ms;
    double factor;
    int error = 0;
    if (lease != NULL) {
        error = value_duration_ms("--lease", lease, &number);
        if (error != 0) return error;
        json_object_set_new(tree, "lease_ms", json_integer((json_int_t)number));
    }
    if (fails != NULL) {
        error = value_u64("--max-fails", fails, 0, INT64_MAX, &number);
        if (error != 0) return error;
        json_object_set_new(tree, "max_fails", json_integer((json_int_t)number));
    }
    if (backoff != NULL) {
        error = value_backoff("--backoff", backoff, &number, &max_ms, &factor);
        if (error != 0) return error;
        json_object_set_new(tree, "backoff",
                            json_pack("{s:I,s:I,s:f}", "min_ms", (json_int_t)number, "max_ms",
                                      (json_int_t)max_ms, "factor", factor));
    }
    return start != NULL ? set_start(tree, start) : 0;
}

int cmd_sub_create(struct cli *cli, const struct args *args) {
    const char *name = args_word(args, 0);
    struct http_reply reply;
    char *text = NULL;
    json_t *tree = json_object();
    int error = value_name("subscription", name);
    if (error == 0) error = set_policy(tree, args);
    if (error != 0) goto out;
    json_object_set_new(tree, "name", json_string(name));
    set_filter(tree, args);
    text = json_dumps(tree, JSON_COMPACT);
    CHECK(text != NULL);
    struct slice body = slice_str(text);
    error = http_send(
        cli->http,
        &(struct http_request){.method = "POST", .path = "/v1/subscriptions", .body = &body},
        &reply);
    if (error != 0) goto out;
    if (cli->json) {
        list_print_json(buf_slice(&reply.body));
    } else if (reply.status == 201) {
        printf("created subscription %s\n  work on it with: bellhop work %s -- CMD\n", name, name);
    } else {
        printf("subscription %s exists already, with this policy\n", name);
    }
    buf_free(&reply.body);
out:
    free(text);
    json_decref(tree);
    return error;
}

/* "types batch.*, video.*; sources gemini", or "everything". */
static char *filter_of(struct slice sub) {
    static const char *const paths[] = {"filter.types", "filter.sources"};
    char *text = mem_strdup("");
    for (size_t i = 0; i < 2; i++) {
        struct slice list, key, item;
        struct json_walk walk;
        bool first = true;
        if (!json_find(sub, paths[i], &list) || !json_walk_open(&walk, list)) continue;
        while (json_walk_next(&walk, &key, &item)) {
            const char *before = !first ? "," : i == 0 ? "" : text[0] == '\0' ? "from " : " from ";
            size_t quotes = item.len >= 2 && item.data[0] == '"';
            char *longer = text_printf("%s%s%.*s", text, before, (int)(item.len - 2 * quotes),
                                       (const char *)item.data + quotes);
            free(text);
            text = longer;
            first = false;
        }
    }
    if (text[0] != '\0') return text;
    free(text);
    return mem_strdup("everything");
}

static void on_sub(void *ctx, struct slice item) {
    struct table *t = ctx;
    static const char *const fields[] = {"backlog", "ready", "leased",      "delayed",
                                         "acked",   "dead",  "attachments", "why_idle"};
    table_add(t, json_show(item, "name"));
    char *filter = filter_of(item);
    text_cut(filter, 40);
    table_add(t, filter);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        table_add(t, json_show(item, fields[i]));
    }
}

int cmd_sub_ls(struct cli *cli, const struct args *args) {
    (void)args;
    static const char *const heads[] = {"NAME",     "FILTER",   ">BACKLOG", ">READY",
                                        ">LEASED",  ">DELAYED", ">ACKED",   ">DEAD",
                                        ">WORKERS", "STATE",    NULL};
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

static char *backoff_of(struct slice sub) {
    char *min = text_duration(json_number(sub, "backoff.min_ms", 0));
    char *max = text_duration(json_number(sub, "backoff.max_ms", 0));
    char *factor = json_show(sub, "backoff.factor");
    char *text = text_printf("%s to %s, times %s", min, max, factor);
    free(min);
    free(max);
    free(factor);
    return text;
}

static void print_sub(struct cli *cli, struct slice sub) {
    static const char *const heads[] = {"", "", NULL};
    static const char *const fields[][2] = {
        {"max fails", "max_fails"}, {"created", "create_time"}, {"floor", "floor"},
        {"next", "next"},           {"backlog", "backlog"},     {"ready", "ready"},
        {"leased", "leased"},       {"delayed", "delayed"},     {"acked", "acked"},
        {"dead", "dead"},           {"workers", "attachments"}, {"replays", "replays"},
        {"state", "why_idle"}};
    struct table t;
    table_init(&t, heads);
    line(&t, "name", json_show(sub, "name"));
    line(&t, "takes", filter_of(sub));
    line(&t, "lease", text_duration(json_number(sub, "lease_ms", 0)));
    line(&t, "backoff", backoff_of(sub));
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        line(&t, fields[i][0], json_show(sub, fields[i][1]));
    }
    table_print(&t, cli, "", "");
}

int cmd_sub_show(struct cli *cli, const struct args *args) {
    const char *name = args_word(args, 0);
    int error = value_name("subscription", name);
    if (error != 0) return error;
    char *path = text_printf("/v1/subscriptions/%s", name);
    struct http_reply reply;
    error = http_get(cli->http, path, &reply);
    free(path);
    if (error != 0) return error;
    if (cli->json) {
        list_print_json(buf_slice(&reply.body));
    } else {
        print_sub(cli, buf_slice(&reply.body));
    }
    buf_free(&reply.body);
    return CLI_OK;
}

int cmd_sub_rm(struct cli *cli, const struct args *args) {
    return list_remove(cli, "subscription", "/v1/subscriptions/", args_word(args, 0));
}
