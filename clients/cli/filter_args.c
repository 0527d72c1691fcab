#include "clients/cli/filter_args.h"

#include <stdlib.h>
#include <string.h>

#include "clients/cli/input.h"
#include "clients/cli/output.h"

static const char *const short_forms[] = {"--type", "--source", "--subject-prefix", "--meta", NULL};

static const char *first_short_form(const struct args *args) {
    for (size_t i = 0; short_forms[i] != NULL; i++) {
        if (args_has(args, short_forms[i])) return short_forms[i];
    }
    return NULL;
}

bool filter_args_given(const struct args *args) {
    return args_has(args, "--filter") || first_short_form(args) != NULL;
}

/* --filter: an object, from the command line or a file. */
static int read_json(const char *text, json_t **out) {
    struct buf file;
    struct slice json = slice_str(text);
    json_error_t why;
    buf_init(&file, INPUT_BYTES);
    int error = 0;
    bool from_file = text[0] == '@';
    if (from_file) {
        error = input_file(text + 1, &file);
        json = buf_slice(&file);
    }
    if (error != 0) goto out;
    *out = json_loadb((const char *)json.data, json.len, JSON_REJECT_DUPLICATES, &why);
    if (*out == NULL) {
        cli_complain("--filter: %s is not a filter: %s, line %d, column %d",
                     from_file ? text + 1 : "this", why.text, why.line, why.column);
    } else if (!json_is_object(*out)) {
        cli_complain("--filter: %s is not an object such as {\"types\":[\"batch.*\"]}",
                     from_file ? text + 1 : "this");
        json_decref(*out);
        *out = NULL;
    }
    if (*out == NULL) error = from_file ? CLI_DATA : CLI_USAGE;
out:
    buf_free(&file);
    return error;
}

static int add_list(json_t *filter, const struct args *args, const char *option, const char *key) {
    const char *value;
    json_t *list = NULL;
    for (size_t at = 0; (value = args_next(args, option, &at)) != NULL;) {
        json_t *text = json_string(value);
        if (text == NULL) {
            cli_complain("%s: '%s' is not UTF-8", option, value);
            json_decref(list);
            return CLI_USAGE;
        }
        if (list == NULL) list = json_array();
        json_array_append_new(list, text);
    }
    if (list != NULL) json_object_set_new(filter, key, list);
    return 0;
}

/* KEY=VALUE; the value is a string. */
static int add_metadata(json_t *filter, const struct args *args) {
    const char *pair;
    json_t *names = NULL;
    int error = 0;
    for (size_t at = 0; error == 0 && (pair = args_next(args, "--meta", &at)) != NULL;) {
        const char *equals = strchr(pair, '=');
        if (equals == NULL || equals == pair) {
            cli_complain("--meta: '%s' is not KEY=VALUE such as priority=high", pair);
            error = CLI_USAGE;
            break;
        }
        if (names == NULL) names = json_object();
        char *name = text_printf("%.*s", (int)(equals - pair), pair);
        json_t *value = json_string(equals + 1);
        if (json_object_get(names, name) != NULL) {
            cli_complain(
                "--meta: '%s' is given twice; one of several values is --filter "
                "'{\"user_metadata\":{\"%s\":{\"in\":[...]}}}'",
                name, name);
            json_decref(value);
            error = CLI_USAGE;
        } else if (value == NULL || json_object_set_new(names, name, value) != 0) {
            cli_complain("--meta: '%s' is not UTF-8", pair);
            error = CLI_USAGE;
        }
        free(name);
    }
    if (names != NULL) json_object_set_new(filter, "user_metadata", names);
    return error;
}

int filter_args_read(const struct args *args, json_t **out) {
    const char *json = args_get(args, "--filter"), *prefix = args_get(args, "--subject-prefix");
    const char *other = first_short_form(args);
    *out = NULL;
    if (json != NULL && other != NULL) {
        cli_complain("%s and --filter exclude each other: put it into the filter", other);
        return CLI_USAGE;
    }
    if (json != NULL) return read_json(json, out);
    if (other == NULL) return 0;
    json_t *filter = json_object();
    int error = add_list(filter, args, "--type", "types");
    if (error == 0) error = add_list(filter, args, "--source", "sources");
    if (error == 0 && prefix != NULL) {
        error = api_set_text(filter, "--subject-prefix", "subject_prefix", prefix);
    }
    if (error == 0) error = add_metadata(filter, args);
    if (error != 0) {
        json_decref(filter);
        return error;
    }
    *out = filter;
    return 0;
}

int filter_args_json(const struct args *args, json_t **out) {
    const char *json = args_get(args, "--filter");
    *out = NULL;
    return json != NULL ? read_json(json, out) : 0;
}

/* "a,b" of an array of strings; "" when it is not there. */
static char *join(struct slice object, const char *path) {
    struct slice list, key, item;
    struct json_walk walk;
    char *text = mem_strdup("");
    if (!json_find(object, path, &list) || !json_walk_open(&walk, list)) return text;
    while (json_walk_next(&walk, &key, &item)) {
        size_t quotes = item.len >= 2 && item.data[0] == '"';
        char *longer = text_printf("%s%s%.*s", text, text[0] != '\0' ? "," : "",
                                   (int)(item.len - 2 * quotes), (const char *)item.data + quotes);
        free(text);
        text = longer;
    }
    return text;
}

char *filter_show(struct slice object) {
    struct slice filter, key, item;
    struct json_walk walk;
    size_t members = 0, plain = 0;
    if (!json_find(object, "filter", &filter) || !json_walk_open(&walk, filter)) {
        return mem_strdup("everything");
    }
    while (json_walk_next(&walk, &key, &item)) {
        members++;
        plain += slice_eq_str(key, "\"types\"") || slice_eq_str(key, "\"sources\"");
    }
    if (members == 0) return mem_strdup("everything");
    if (plain < members) return json_show(object, "filter");
    char *types = join(object, "filter.types"), *sources = join(object, "filter.sources");
    char *text = text_printf("%s%s%s%s", types, types[0] != '\0' ? " " : "",
                             sources[0] != '\0' ? "from " : "", sources);
    free(types);
    free(sources);
    size_t len = strlen(text);
    if (len > 0 && text[len - 1] == ' ') text[len - 1] = '\0';
    return text;
}
