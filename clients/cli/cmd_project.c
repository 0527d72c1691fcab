/* project: the tenants of the broker, for the operator. */
#include <stdlib.h>

#include "clients/cli/api.h"
#include "clients/cli/commands.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"

int cmd_project_create(struct cli *cli, const struct args *args) {
    const char *name = args_word(args, 0);
    struct http_reply reply;
    int error = value_name("project", name);
    if (error != 0) return error;
    json_t *tree = json_object();
    error = api_set_text(tree, "NAME", "name", name);
    if (error != 0) {
        json_decref(tree);
        return error;
    }
    error = api_send(cli, "POST", "/v1/projects", tree, &reply);
    if (error != 0) return error;
    return api_done(cli, &reply,
                    text_printf("created project %s: its first key is made with\n"
                                "  bellhop key create NAME --scope admin --project %s",
                                name, name));
}

static char *created_text(struct slice project) {
    char *text = json_show(project, "create_time");
    if (text[0] != '\0') return text;
    free(text);
    return mem_strdup("always there");
}

static void on_project(void *ctx, struct slice item) {
    struct table *t = ctx;
    table_add(t, json_show(item, "name"));
    table_add(t, created_text(item));
}

int cmd_project_ls(struct cli *cli, const struct args *args) {
    (void)args;
    static const char *const heads[] = {"NAME", "CREATED", NULL};
    struct table t;
    table_init(&t, heads);
    int error = list_each(cli, "/v1/projects?page_size=1000", "projects", on_project, &t);
    table_end(&t, cli, error, "");
    return error;
}

int cmd_project_show(struct cli *cli, const struct args *args) {
    static const char *const rows[][2] = {
        {"keys", "keys"},
        {"sources", "sources"},
        {"subscriptions", "subscriptions"},
        {"webhooks", "webhooks"},
        {"jobs", "jobs"},
        {"running replays", "tasks_running"},
        {"workers", "attachments"},
        {"journaled", "totals.published"},
        {"duplicates", "totals.duplicates"},
        {"refused", "totals.refused"},
        {"delivered", "totals.delivered"},
        {"acked", "totals.acked"},
        {"nacked", "totals.nacked"},
        {"expired", "totals.expired"},
        {"dead", "totals.dead"},
    };
    static const char *const heads[] = {"", "", NULL};
    const char *name = args_word(args, 0);
    struct http_reply reply;
    int error = value_name("project", name);
    if (error != 0) return error;
    char *path = text_printf("/v1/projects/%s", name);
    error = http_get(cli->http, path, &reply);
    free(path);
    if (error != 0) return error;
    struct slice project = buf_slice(&reply.body);
    if (cli->json) {
        list_print_json(project);
    } else {
        struct table t;
        table_init(&t, heads);
        table_add(&t, mem_strdup("project"));
        table_add(&t, json_show(project, "name"));
        table_add(&t, mem_strdup("created"));
        table_add(&t, created_text(project));
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            table_add(&t, mem_strdup(rows[i][0]));
            table_add(&t, json_show(project, rows[i][1]));
        }
        table_print(&t, stdout, cli, "", "");
    }
    buf_free(&reply.body);
    return CLI_OK;
}

int cmd_project_rm(struct cli *cli, const struct args *args) {
    const char *name = args_word(args, 0);
    int error = value_name("project", name);
    if (error == 0) error = api_can_confirm(args, "delete the project");
    if (error != 0) return error;
    char *question = text_printf("delete project %s? nobody reads its events after that", name);
    error = api_confirm(args, question);
    free(question);
    if (error != 0) return error;
    return list_remove(cli, "project", "/v1/projects/", name);
}
