#include "clients/cli/webhook_args.h"

#include <stdlib.h>
#include <string.h>

#include "clients/cli/filter_args.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"

#define PATH_BYTES (16 * 1024)

char *webhook_escaped(const char *before, const char *text, const char *after) {
    struct buf b;
    buf_init(&b, PATH_BYTES);
    buf_append_str(&b, before);
    http_escape(&b, text);
    buf_append_str(&b, after);
    /* What is longer is no id of anything: the broker says so. */
    char *path = text_printf("%.*s", (int)b.len, (const char *)b.data);
    buf_free(&b);
    return path;
}

char *webhook_path(const struct args *args, const char *verb) {
    return webhook_escaped("/v1/webhooks/", args_word(args, 0), verb);
}

static int read_events(json_t *tree, const struct args *args) {
    const char *glob;
    size_t at = 0;
    if (!args_has(args, "--event")) return 0;
    json_t *list = json_array();
    json_object_set_new(tree, "subscribed_events", list);
    while ((glob = args_next(args, "--event", &at)) != NULL) {
        if (json_array_append_new(list, json_string(glob)) == 0) continue;
        cli_complain("--event: '%s' is not UTF-8", glob);
        return CLI_USAGE;
    }
    return 0;
}

/* NAME:VALUE; blanks around the value go. */
static int read_header(json_t *headers, const char *text) {
    const char *colon = strchr(text, ':');
    if (colon == NULL || colon == text) {
        cli_complain("--header: '%s' is not NAME:VALUE such as 'x-team: video'", text);
        return CLI_USAGE;
    }
    char *name = text_printf("%.*s", (int)(colon - text), text);
    const char *value = colon + 1 + strspn(colon + 1, " \t");
    int error = 0;
    if (json_object_get(headers, name) != NULL) {
        cli_complain("--header: %s is given twice", name);
        error = CLI_USAGE;
    } else if (json_object_set_new(headers, name, json_string(value)) != 0) {
        cli_complain("--header: '%s' is not UTF-8", text);
        error = CLI_USAGE;
    }
    free(name);
    return error;
}

static int read_headers(json_t *tree, const struct args *args) {
    const char *text;
    size_t at = 0;
    if (!args_has(args, "--header")) return 0;
    json_t *headers = json_object();
    json_object_set_new(tree, "headers", headers);
    while ((text = args_next(args, "--header", &at)) != NULL) {
        int error = read_header(headers, text);
        if (error != 0) return error;
    }
    return 0;
}

static int read_numbers(json_t *tree, const struct args *args) {
    const char *rate = args_get(args, "--rate"), *concurrency = args_get(args, "--concurrency");
    uint64_t number;
    if (rate != NULL) {
        int error = value_u64("--rate", rate, 0, LIMIT_RATE_PER_S, &number);
        if (error != 0) return error;
        api_set_u64(tree, "rate_per_s", number);
    }
    if (concurrency != NULL) {
        int error = value_u64("--concurrency", concurrency, 1, LIMIT_WEBHOOK_CONCURRENCY, &number);
        if (error != 0) return error;
        api_set_u64(tree, "concurrency", number);
    }
    return 0;
}

int webhook_args_read(json_t *tree, const struct args *args) {
    static const char *const texts[][2] = {{"--name", "name"},
                                           {"--description", "description"},
                                           {"--uri", "uri"},
                                           {"--state", "state"}};
    json_t *filter;
    int error = 0;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]) && error == 0; i++) {
        const char *text = args_get(args, texts[i][0]);
        if (text != NULL) error = api_set_text(tree, texts[i][0], texts[i][1], text);
    }
    if (error == 0) error = read_events(tree, args);
    if (error == 0) error = read_headers(tree, args);
    if (error == 0) error = read_numbers(tree, args);
    if (error == 0) error = filter_args_json(args, &filter);
    if (error == 0 && filter != NULL) json_object_set_new(tree, "filter", filter);
    return error;
}
