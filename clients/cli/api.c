#include "clients/cli/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/cli/list.h"
#include "clients/cli/output.h"

int api_send(struct cli *cli, const char *method, const char *path, json_t *tree,
             struct http_reply *reply) {
    struct http_request request = {.method = method, .path = path};
    struct slice body;
    char *text = NULL;
    if (tree != NULL) {
        text = json_dumps(tree, JSON_COMPACT);
        json_decref(tree);
        CHECK(text != NULL);
        body = slice_str(text);
        request.body = &body;
    } else if (strcmp(method, "POST") == 0) {
        body = slice_of(NULL, 0);
        request.body = &body; /* a POST says its length, also when that is 0 */
    }
    int error = http_send(cli->http, &request, reply);
    free(text);
    return error;
}

int api_done(struct cli *cli, struct http_reply *reply, char *text) {
    if (cli->json) {
        list_print_json(buf_slice(&reply->body));
    } else {
        puts(text);
    }
    free(text);
    buf_free(&reply->body);
    return CLI_OK;
}

void api_set_u64(json_t *tree, const char *key, uint64_t value) {
    CHECK(value <= INT64_MAX);
    CHECK(json_object_set_new(tree, key, json_integer((json_int_t)value)) == 0);
}

int api_set_text(json_t *tree, const char *option, const char *key, const char *value) {
    json_t *text = json_string(value);
    if (text == NULL) {
        cli_complain("%s: '%s' is not UTF-8", option, value);
        return CLI_USAGE;
    }
    CHECK(json_object_set_new(tree, key, text) == 0);
    return 0;
}

int api_workers_open(const struct cli *cli, const char *url, struct bellhop_options *options,
                     struct bellhop **out) {
    options->ca_file = cli->tls.ca;
    options->cert_file = cli->tls.cert;
    options->key_file = cli->tls.key;
    int error = bellhop_open(out, url, options);
    if (error == 0) return 0;
    cli_complain("the address of the worker port cannot be used (BELLHOP_WORKERS is HOST:PORT): %s",
                 bellhop_strerror(error));
    return CLI_USAGE;
}

int api_can_confirm(const struct args *args, const char *act) {
    if (args_has(args, "--yes") || isatty(STDIN_FILENO)) return 0;
    cli_complain("stdin is no terminal, so nobody can be asked: add --yes to %s", act);
    return CLI_USAGE;
}

int api_confirm(const struct args *args, const char *question) {
    if (args_has(args, "--yes")) return 0;
    char answer[16];
    fflush(stdout);
    fprintf(stderr, "%s [y/N] ", question);
    if (fgets(answer, sizeof(answer), stdin) != NULL) {
        answer[strcspn(answer, "\r\n")] = '\0';
        if (strcmp(answer, "y") == 0 || strcmp(answer, "Y") == 0 || strcmp(answer, "yes") == 0) {
            return 0;
        }
    }
    cli_complain("nothing was done");
    return CLI_REFUSED;
}

int api_workers_url(struct cli *cli, char **url) {
    const char *key = getenv("BELLHOP_KEY"), *address = getenv("BELLHOP_WORKERS");
    const char *at = key != NULL && key[0] != '\0' ? "@" : "";
    bool https = strncmp(http_url(cli->http), "https:", 6) == 0;
    if (key == NULL) key = "";
    if (address != NULL && address[0] != '\0') {
        const char *scheme = https ? "bellhops://" : "bellhop://", *end = strstr(address, "://");
        if (end != NULL) {
            scheme = strncmp(address, "bellhops:", 9) == 0 ? "bellhops://" : "bellhop://";
            address = end + 3;
        }
        *url = text_printf("%s%s%s%s", scheme, key, at, address);
        return 0;
    }
    struct http_reply reply;
    int error = http_get(cli->http, "/v1/status", &reply);
    if (error != 0) return error;
    struct slice tls;
    uint64_t port = json_number(buf_slice(&reply.body), "workers_port", 0);
    bool with_tls =
        json_find(buf_slice(&reply.body), "workers_tls", &tls) && slice_eq_str(tls, "true");
    buf_free(&reply.body);
    if (port == 0 || port > 65535) {
        cli_complain("%s/v1/status names no worker port; BELLHOP_WORKERS=HOST:PORT overrides it",
                     http_url(cli->http));
        return CLI_INTERNAL;
    }
    *url = text_printf("bellhop%s://%s%s%s:%u", with_tls ? "s" : "", key, at, http_host(cli->http),
                       (unsigned)port);
    return 0;
}
