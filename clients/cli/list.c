#include "clients/cli/list.h"

#include <stdlib.h>

#include "clients/cli/output.h"
#include "clients/cli/value.h"

#define PATH_BYTES (16 * 1024)

void list_print_json(struct slice item) {
    json_write(stdout, item);
    putchar('\n');
}

/* One page; *token becomes the next one's, "" after the last. */
static int one_page(struct cli *cli, const char *path, const char *key, list_item *each, void *ctx,
                    char **token) {
    struct http_reply reply;
    int error = http_get(cli->http, path, &reply);
    if (error != 0) return error;
    struct slice page = buf_slice(&reply.body);
    struct slice items, name, item;
    struct json_walk walk;
    if (!json_find(page, key, &items) || !json_walk_open(&walk, items)) {
        cli_complain("%s%s answered without '%s'", http_url(cli->http), path, key);
        buf_free(&reply.body);
        return CLI_INTERNAL;
    }
    while (json_walk_next(&walk, &name, &item)) {
        if (cli->json) {
            list_print_json(item);
        } else {
            each(ctx, item);
        }
    }
    free(*token);
    *token = json_show(page, "next_page_token");
    buf_free(&reply.body);
    return 0;
}

int list_each(struct cli *cli, const char *path, const char *key, list_item *each, void *ctx) {
    char *token = mem_strdup("");
    int error;
    do {
        struct buf full;
        buf_init(&full, PATH_BYTES);
        buf_append_str(&full, path);
        if (token[0] != '\0') http_query(&full, "page_token", token);
        buf_append_byte(&full, '\0');
        CHECK(!full.overflow);
        error = one_page(cli, (const char *)full.data, key, each, ctx, &token);
        buf_free(&full);
    } while (error == 0 && token[0] != '\0');
    free(token);
    return error;
}

int list_remove(struct cli *cli, const char *what, const char *path, const char *name) {
    int error = value_name(what, name);
    if (error != 0) return error;
    char *full = text_printf("%s%s", path, name);
    struct http_reply reply;
    error = http_send(cli->http, &(struct http_request){.method = "DELETE", .path = full}, &reply);
    free(full);
    if (error != 0) return error;
    buf_free(&reply.body);
    if (cli->json) {
        printf("{\"removed\":\"%s\"}\n", name);
    } else {
        printf("removed %s %s\n", what, name);
    }
    return CLI_OK;
}
