/* source: the doors for providers' webhooks. */
#include <stdlib.h>
#include <time.h>

#include "base/base64.h"
#include "clients/cli/api.h"
#include "clients/cli/commands.h"
#include "clients/cli/input.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"

static void print_line(struct slice source, const char *path, const char *head) {
    char *text = json_show(source, path);
    if (text[0] != '\0') printf("  %-10s %s\n", head, text);
    free(text);
}

static void print_source(struct cli *cli, struct slice source, const char *verb) {
    char *name = json_show(source, "name");
    char *scheme = json_show(source, "scheme");
    char *path = json_show(source, "url_path");
    char *secret = json_show(source, "secret");
    printf("%s source %s (%s)\n  url     %s%s\n", verb, name, scheme, http_url(cli->http), path);
    if (secret[0] != '\0') {
        printf("  secret  %s\n  it is shown this once: give it to the sender and keep it\n",
               secret);
    }
    free(name);
    free(scheme);
    free(path);
    free(secret);
}

/* ---- what the options say ---- */

static bool is_in(const char *const *names, const char *name) {
    for (; *names != NULL; names++) {
        if (strcmp(*names, name) == 0) return true;
    }
    return false;
}

/* KEY=VALUE: which options are no texts is known here; an unknown one is the broker's to refuse. */
static int set_option(json_t *options, const char *text) {
    static const char *const numbers[] = {"tolerance_s", "dedupe_ms",  "dedupe_events",
                                          "rate_per_s",  "rate_burst", NULL};
    static const char *const switches[] = {"jwks_allow_http", "jwt_unbound_body", "trust_id_header",
                                           NULL};
    char key[64];
    const char *equals = strchr(text, '=');
    uint64_t number = 0;
    json_t *item = NULL;
    if (equals == NULL || equals == text || (size_t)(equals - text) >= sizeof(key)) {
        cli_complain("--set: '%s' is not KEY=VALUE", text);
        return CLI_USAGE;
    }
    const char *value = equals + 1;
    snprintf(key, sizeof(key), "%.*s", (int)(equals - text), text);
    if (is_in(numbers, key)) {
        int error = value_u64(key, value, 0, INT64_MAX, &number);
        if (error != 0) return error;
        item = json_integer((json_int_t)number);
    } else if (is_in(switches, key)) {
        if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0) {
            cli_complain("--set: %s is true or false, not '%s'", key, value);
            return CLI_USAGE;
        }
        item = json_boolean(value[0] == 't');
    } else {
        item = json_string(value);
    }
    if (json_object_set_new(options, key, item) == 0) return 0;
    cli_complain("--set: '%s' is not UTF-8", text);
    return CLI_USAGE;
}

static int set_options(json_t *tree, const struct args *args) {
    const char *text;
    json_t *options = NULL;
    for (size_t at = 0; (text = args_next(args, "--set", &at)) != NULL;) {
        if (options == NULL) {
            options = json_object();
            json_object_set_new(tree, "options", options);
        }
        int error = set_option(options, text);
        if (error != 0) return error;
    }
    return 0;
}

/* The values of an option that may be repeated become an array, when there are any. */
static int set_texts(json_t *tree, const struct args *args, const char *option, const char *key) {
    const char *text;
    json_t *array = NULL;
    for (size_t at = 0; (text = args_next(args, option, &at)) != NULL;) {
        if (array == NULL) {
            array = json_array();
            json_object_set_new(tree, key, array);
        }
        if (json_array_append_new(array, json_string(text)) != 0) {
            cli_complain("%s: it is not UTF-8", option);
            return CLI_USAGE;
        }
    }
    return 0;
}

/* The time in so long. */
static int set_expiry(json_t *tree, const struct args *args) {
    const char *text = args_get(args, "--expire-previous");
    uint64_t in_ms;
    char when[RFC3339_SIZE];
    if (text == NULL) return 0;
    int error = value_duration_ms("--expire-previous", text, &in_ms);
    if (error != 0) return error;
    rfc3339_format((uint64_t)time(NULL) * 1000 + in_ms, when);
    json_object_set_new(tree, "previous_expire_time", json_string(when));
    return 0;
}

static int send_source(struct cli *cli, const char *method, const char *path, json_t *tree,
                       const char *verb) {
    struct http_reply reply;
    int error = api_send(cli, method, path, tree, &reply);
    if (error != 0) return error;
    if (cli->json) {
        list_print_json(buf_slice(&reply.body));
    } else {
        print_source(cli, buf_slice(&reply.body), verb);
    }
    buf_free(&reply.body);
    return CLI_OK;
}

int cmd_source_add(struct cli *cli, const struct args *args) {
    const char *name = args_word(args, 0), *scheme = args_get(args, "--scheme");
    int error = value_name("source", name);
    if (error != 0) return error;
    json_t *tree = json_object();
    if (scheme != NULL) error = api_set_text(tree, "--scheme", "scheme", scheme);
    if (error == 0) error = set_texts(tree, args, "--secret", "secrets");
    if (error == 0) error = set_options(tree, args);
    if (error != 0) {
        json_decref(tree);
        return error;
    }
    json_object_set_new(tree, "name", json_string(name));
    return send_source(cli, "POST", "/v1/sources", tree, "created");
}

int cmd_source_update(struct cli *cli, const struct args *args) {
    const char *name = args_word(args, 0);
    int error = value_name("source", name);
    if (error != 0) return error;
    json_t *tree = json_object();
    error = set_texts(tree, args, "--secret", "secrets");
    if (error == 0) error = set_texts(tree, args, "--add-secret", "add_secrets");
    if (error == 0) error = set_expiry(tree, args);
    if (error == 0) error = set_options(tree, args);
    if (error == 0 && json_object_size(tree) == 0) {
        cli_complain("nothing to change: --secret, --add-secret or --set");
        error = CLI_USAGE;
    }
    if (error != 0) {
        json_decref(tree);
        return error;
    }
    char *path = text_printf("/v1/sources/%s", name);
    error = send_source(cli, "PATCH", path, tree, "updated");
    free(path);
    return error;
}

int cmd_source_show(struct cli *cli, const struct args *args) {
    static const char *const lines[][2] = {
        {"secrets", "secrets"},    {"expiring_secrets", "expiring"}, {"options", "options"},
        {"public_keys", "keys"},   {"create_time", "created"},       {"accepted", "accepted"},
        {"duplicates", "repeats"}, {"refused", "refused"},
    };
    const char *name = args_word(args, 0);
    struct http_reply reply;
    int error = value_name("source", name);
    if (error != 0) return error;
    char *path = text_printf("/v1/sources/%s", name);
    error = http_get(cli->http, path, &reply);
    free(path);
    if (error != 0) return error;
    struct slice source = buf_slice(&reply.body);
    if (cli->json) {
        list_print_json(source);
    } else {
        char *scheme = json_show(source, "scheme"), *at = json_show(source, "url_path");
        printf("source %s (%s)\n  %-10s %s%s\n", name, scheme, "url", http_url(cli->http), at);
        free(scheme);
        free(at);
        print_line(source, "project", "project");
        for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
            print_line(source, lines[i][0], lines[i][1]);
        }
    }
    buf_free(&reply.body);
    return CLI_OK;
}

/* ---- test ---- */

/* "Name: value". */
static int set_header(json_t *headers, const char *text) {
    const char *colon = strchr(text, ':');
    if (colon == NULL || colon == text) {
        cli_complain("--header: '%s' is not NAME: VALUE", text);
        return CLI_USAGE;
    }
    char *name = text_printf("%.*s", (int)(colon - text), text);
    const char *value = colon + 1;
    while (*value == ' ' || *value == '\t') value++;
    int failed = json_object_set_new(headers, name, json_string(value));
    free(name);
    if (failed == 0) return 0;
    cli_complain("--header: '%s' is not UTF-8", text);
    return CLI_USAGE;
}

static int set_request(json_t *tree, const struct args *args, struct slice body) {
    const char *text, *query = args_get(args, "--query"), *when = args_get(args, "--at");
    json_t *headers = json_object();
    json_object_set_new(tree, "headers", headers);
    for (size_t at = 0; (text = args_next(args, "--header", &at)) != NULL;) {
        int error = set_header(headers, text);
        if (error != 0) return error;
    }
    if (when != NULL) {
        char came[RFC3339_SIZE];
        int error = value_time("--at", when, came);
        if (error != 0) return error;
        json_object_set_new(tree, "time", json_string(came));
    }
    char *encoded = mem_alloc(BASE64_LEN(body.len) + 1);
    base64_encode(body, encoded);
    json_object_set_new(tree, "body_base64", json_string(encoded));
    free(encoded);
    return query == NULL ? 0 : api_set_text(tree, "--query", "query", query);
}

static int print_verdict(struct cli *cli, struct slice verdict) {
    static const char *const lines[][2] = {
        {"event.id", "id"},
        {"event.type", "type"},
        {"event.subject", "subject"},
        {"event.time", "time"},
        {"event.headers", "headers"},
        {"event.user_metadata", "metadata"},
        {"repeats_told_by", "repeats"},
    };
    struct slice verified;
    bool good = json_find(verdict, "verified", &verified) && slice_eq_str(verified, "true");
    char *by = json_show(verdict, "by"), *code = json_show(verdict, "error.code");
    char *message = json_show(verdict, "error.message");
    if (cli->json) list_print_json(verdict);
    else if (!good) printf("refused (%s): %s\n", code, message);
    else printf("verified by %s\n", by);
    for (size_t i = 0; good && !cli->json && i < sizeof(lines) / sizeof(lines[0]); i++) {
        print_line(verdict, lines[i][0], lines[i][1]);
    }
    free(by);
    free(code);
    free(message);
    return good ? CLI_OK : CLI_REFUSED;
}

int cmd_source_test(struct cli *cli, const struct args *args) {
    const char *name = args_word(args, 0), *file = args_get(args, "--body");
    struct http_reply reply;
    struct buf body;
    int error = value_name("source", name);
    if (error != 0) return error;
    buf_init(&body, INPUT_BYTES);
    if (file != NULL) error = input_file(file, &body);
    json_t *tree = json_object();
    if (error == 0) error = set_request(tree, args, buf_slice(&body));
    buf_free(&body);
    if (error != 0) {
        json_decref(tree);
        return error;
    }
    char *path = text_printf("/v1/sources/%s:test", name);
    error = api_send(cli, "POST", path, tree, &reply);
    free(path);
    if (error != 0) return error;
    error = print_verdict(cli, buf_slice(&reply.body));
    buf_free(&reply.body);
    return error;
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
