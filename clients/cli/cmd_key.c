/* key: who may speak to the broker. A key is printed once, by `key create`. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clients/cli/api.h"
#include "clients/cli/commands.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"

/* Adds the values of a repeated option as a list, if there is one. */
static int add_list(json_t *tree, const struct args *args, const char *option, const char *key) {
    const char *text;
    size_t at = 0;
    json_t *list = json_array();
    while ((text = args_next(args, option, &at)) != NULL) {
        if (json_array_append_new(list, json_string(text)) == 0) continue;
        cli_complain("%s: '%s' is not UTF-8", option, text);
        json_decref(list);
        return CLI_USAGE;
    }
    if (json_array_size(list) > 0) json_object_set_new(tree, key, list);
    else json_decref(list);
    return 0;
}

static int add_expiry(json_t *tree, const struct args *args) {
    const char *text = args_get(args, "--expire");
    char when[RFC3339_SIZE];
    uint64_t span_ms;
    if (text == NULL) return 0;
    int error = value_duration_ms("--expire", text, &span_ms);
    if (error != 0) return error;
    rfc3339_format((uint64_t)time(NULL) * 1000 + span_ms, when);
    json_object_set_new(tree, "expire_time", json_string(when));
    return 0;
}

static void print_key(struct slice key) {
    char *id = json_show(key, "id"), *text = json_show(key, "key");
    printf("created key %s\n  %s\n  it is shown this once: export BELLHOP_KEY=..., and keep it\n",
           id, text);
    free(id);
    free(text);
}

int cmd_key_create(struct cli *cli, const struct args *args) {
    struct http_reply reply;
    json_t *tree = json_object();
    int error = api_set_text(tree, "NAME", "name", args_word(args, 0));
    if (error == 0 && args_get(args, "--scope") == NULL) {
        cli_complain("--scope is missing: publish, consume, manage or admin");
        error = CLI_USAGE;
    }
    const char *project = args_get(args, "--project");
    if (error == 0 && project != NULL) error = api_set_text(tree, "--project", "project", project);
    if (error == 0) error = add_list(tree, args, "--scope", "scopes");
    if (error == 0) error = add_list(tree, args, "--source", "sources");
    if (error == 0) error = add_list(tree, args, "--subscription", "subscriptions");
    if (error == 0) error = add_expiry(tree, args);
    if (error != 0) {
        json_decref(tree);
        return error;
    }
    error = api_send(cli, "POST", "/v1/keys", tree, &reply);
    if (error != 0) return error;
    if (cli->json) list_print_json(buf_slice(&reply.body));
    else print_key(buf_slice(&reply.body));
    buf_free(&reply.body);
    return CLI_OK;
}

/* ["a","b"] as "a, b"; "" becomes `otherwise`. */
static char *list_text(struct slice item, const char *key, const char *otherwise) {
    struct slice list, unused, value;
    struct json_walk walk;
    char *text = mem_strdup("");
    if (json_find(item, key, &list) && json_walk_open(&walk, list)) {
        while (json_walk_next(&walk, &unused, &value)) {
            /* Scopes and globs have no escapes. */
            char *longer = text_printf("%s%s%.*s", text, text[0] == '\0' ? "" : ", ",
                                       (int)value.len - 2, (const char *)value.data + 1);
            free(text);
            text = longer;
        }
    }
    if (text[0] != '\0') return text;
    free(text);
    return mem_strdup(otherwise);
}

static char *show_or(struct slice item, const char *key, size_t bytes, const char *otherwise) {
    char *text = json_show(item, key);
    if (bytes > 0 && strlen(text) > bytes) text[bytes] = '\0';
    if (text[0] != '\0') return text;
    free(text);
    return mem_strdup(otherwise);
}

static void on_key(void *ctx, struct slice item) {
    struct table *t = ctx;
    table_add(t, json_show(item, "id"));
    table_add(t, json_show(item, "name"));
    table_add(t, json_show(item, "project"));
    table_add(t, list_text(item, "scopes", ""));
    table_add(t, list_text(item, "sources", "all"));
    table_add(t, list_text(item, "subscriptions", "all"));
    table_add(t, show_or(item, "expire_time", 0, "never"));
    table_add(t, show_or(item, "last_used_day", sizeof "2026-11-21" - 1, "never"));
}

int cmd_key_ls(struct cli *cli, const struct args *args) {
    static const char *const heads[] = {"ID",      "NAME",      "PROJECT",
                                        "SCOPES",  "SOURCES",   "SUBSCRIPTIONS",
                                        "EXPIRES", "LAST USED", NULL};
    const char *project = args_get(args, "--project");
    struct table t;
    int error = project == NULL ? 0 : value_name("project", project);
    if (error != 0) return error;
    char *path = text_printf("/v1/keys?page_size=1000%s%s",
                             project == NULL ? "" : "&project=", project == NULL ? "" : project);
    table_init(&t, heads);
    error = list_each(cli, path, "keys", on_key, &t);
    free(path);
    table_end(&t, cli, error, "no key yet: bellhop key create NAME --scope admin");
    return error;
}

/* A key in a path would be in logs on the way. Its text is bh_ID_SECRET. */
static int check_id(const char *id) {
    if (strncmp(id, "bh_", 3) != 0 || strcspn(id + 3, "_") == 0) return value_name("key", id);
    cli_complain("ID is not the key itself, but what stands in it between bh_ and _: %.*s",
                 (int)strcspn(id + 3, "_"), id + 3);
    return CLI_USAGE;
}

int cmd_key_revoke(struct cli *cli, const struct args *args) {
    const char *id = args_word(args, 0);
    struct http_reply reply;
    int error = check_id(id);
    if (error == 0) error = api_can_confirm(args, "revoke the key");
    if (error != 0) return error;
    char *question = text_printf("revoke key %s and close what it has open?", id);
    error = api_confirm(args, question);
    free(question);
    if (error != 0) return error;
    char *path = text_printf("/v1/keys/%s%s", id, args_has(args, "--force") ? "?force=yes" : "");
    error = http_send(cli->http, &(struct http_request){.method = "DELETE", .path = path}, &reply);
    free(path);
    if (error != 0) return error;
    return api_done(cli, &reply, text_printf("revoked key %s", id));
}
