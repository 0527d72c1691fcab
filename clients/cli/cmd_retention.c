/* retention: how long events and dead letters are kept, of the whole broker. */
#include <stdlib.h>
#include <string.h>

#include "clients/cli/api.h"
#include "clients/cli/commands.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"

#define PATH "/v1/retention"

static void line(struct table *t, const char *label, char *value) {
    table_add(t, mem_strdup(label));
    table_add(t, value);
}

static char *limit_text(uint64_t limit, char *(*show)(uint64_t)) {
    return limit == 0 ? mem_strdup("no limit") : show(limit);
}

/* The smaller of the limit that was set here and that of the broker's flags counts. */
static char *limit_of(struct slice retention, const char *field, char *(*show)(uint64_t)) {
    char *path = text_printf("configured.%s", field);
    uint64_t own = json_number(retention, field, 0), flags = json_number(retention, path, 0);
    free(path);
    if (flags == 0 || (own != 0 && own <= flags)) return limit_text(own, show);
    char *counts = show(flags), *other = limit_text(own, show);
    char *text = text_printf("%s, by the broker's flags; by retention set: %s", counts, other);
    free(counts);
    free(other);
    return text;
}

static void print_retention(struct cli *cli, struct slice retention) {
    static const char *const heads[] = {"", "", NULL};
    unsigned long long oldest = json_number(retention, "oldest_seq", 0);
    unsigned long long newest = json_number(retention, "newest_seq", 0);
    char *blocked_by = json_show(retention, "blocked_by");
    char *project = json_show(retention, "blocked_by_project"); /* "": the operator's own */
    struct table t;
    table_init(&t, heads);
    line(&t, "max age", limit_of(retention, "max_age_ms", text_span));
    line(&t, "max bytes", limit_of(retention, "max_bytes", text_bytes));
    line(&t, "dead letters", limit_of(retention, "dead_max_age_ms", text_span));
    line(&t, "journal",
         newest == 0 || newest < oldest ? mem_strdup("empty")
                                        : text_printf("seq %llu to %llu", oldest, newest));
    line(&t, "size", text_bytes(json_number(retention, "journal_bytes", 0)));
    line(&t, "trimmed", json_show(retention, "trimmed"));
    if (blocked_by[0] != '\0') {
        line(&t, "blocked by",
             text_printf("%s%s%s: new events are refused until it has read on", blocked_by,
                         project[0] == '\0' ? "" : " of project ", project));
    }
    free(blocked_by);
    free(project);
    table_print(&t, stdout, cli, "", "");
}

static int print_reply(struct cli *cli, struct http_reply *reply) {
    if (cli->json) {
        list_print_json(buf_slice(&reply->body));
    } else {
        print_retention(cli, buf_slice(&reply->body));
    }
    buf_free(&reply->body);
    return CLI_OK;
}

int cmd_retention_show(struct cli *cli, const struct args *args) {
    (void)args;
    struct http_reply reply;
    int error = http_get(cli->http, PATH, &reply);
    return error != 0 ? error : print_reply(cli, &reply);
}

int cmd_retention_set(struct cli *cli, const struct args *args) {
    static const struct {
        const char *option, *field;
        int (*read)(const char *, const char *, uint64_t *);
    } options[] = {{"--max-age", "max_age_ms", value_duration_ms},
                   {"--max-bytes", "max_bytes", value_bytes},
                   {"--dead-max-age", "dead_max_age_ms", value_duration_ms}};
    struct http_reply reply;
    json_t *tree = json_object();
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        const char *text = args_get(args, options[i].option);
        uint64_t value;
        if (text == NULL) continue;
        int error = options[i].read(options[i].option, text, &value);
        if (error != 0) {
            json_decref(tree);
            return error;
        }
        api_set_u64(tree, options[i].field, value);
    }
    if (json_object_size(tree) == 0) {
        cli_complain("say what to keep: --max-age TIME, --max-bytes SIZE or --dead-max-age TIME");
        json_decref(tree);
        return CLI_USAGE;
    }
    int error = api_send(cli, "PATCH", PATH, tree, &reply);
    return error != 0 ? error : print_reply(cli, &reply);
}
