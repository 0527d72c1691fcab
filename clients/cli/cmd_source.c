#include <stdlib.h>

#include "clients/cli/api.h"
#include "clients/cli/commands.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"

static void print_source(struct cli *cli, struct slice source) {
    char *name = json_show(source, "name");
    char *scheme = json_show(source, "scheme");
    char *path = json_show(source, "url_path");
    char *secret = json_show(source, "secret");
    printf("created source %s (%s)\n  url     %s%s\n", name, scheme, http_url(cli->http), path);
    if (secret[0] != '\0') {
        printf("  secret  %s\n  it is shown this once: give it to the sender and keep it\n",
               secret);
    }
    free(name);
    free(scheme);
    free(path);
    free(secret);
}

int cmd_source_add(struct cli *cli, const struct args *args) {
    const char *name = args_word(args, 0);
    int error = value_name("source", name);
    if (error != 0) return error;
    json_t *tree = json_object(), *secrets = NULL;
    const char *scheme = args_get(args, "--scheme"), *secret;
    if (scheme != NULL) error = api_set_text(tree, "--scheme", "scheme", scheme);
    for (size_t at = 0; error == 0 && (secret = args_next(args, "--secret", &at)) != NULL;) {
        if (secrets == NULL) secrets = json_array();
        if (json_array_append_new(secrets, json_string(secret)) != 0) {
            cli_complain("--secret: it is not UTF-8");
            error = CLI_USAGE;
        }
    }
    if (secrets != NULL) json_object_set_new(tree, "secrets", secrets);
    if (error != 0) {
        json_decref(tree);
        return error;
    }
    struct http_reply reply;
    json_object_set_new(tree, "name", json_string(name));
    error = api_send(cli, "POST", "/v1/sources", tree, &reply);
    if (error != 0) return error;
    if (cli->json) {
        list_print_json(buf_slice(&reply.body));
    } else {
        print_source(cli, buf_slice(&reply.body));
    }
    buf_free(&reply.body);
    return CLI_OK;
}

static void on_source(void *ctx, struct slice item) {
    struct table *t = ctx;
    table_add(t, json_show(item, "name"));
    table_add(t, json_show(item, "scheme"));
    table_add(t, json_show(item, "url_path"));
    table_add(t, json_show(item, "accepted"));
    table_add(t, json_show(item, "duplicates"));
    table_add(t, json_show(item, "refused"));
}

int cmd_source_ls(struct cli *cli, const struct args *args) {
    (void)args;
    static const char *const heads[] = {"NAME",        "SCHEME",   "PATH", ">ACCEPTED",
                                        ">DUPLICATES", ">REFUSED", NULL};
    struct table t;
    table_init(&t, heads);
    int error = list_each(cli, "/v1/sources?page_size=1000", "sources", on_source, &t);
    table_end(&t, cli, error, "no source yet: bellhop source add NAME");
    return error;
}

int cmd_source_rm(struct cli *cli, const struct args *args) {
    return list_remove(cli, "source", "/v1/sources/", args_word(args, 0));
}
