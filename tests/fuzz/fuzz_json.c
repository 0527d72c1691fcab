/* Arbitrary bytes through json_walk: it never crashes, it agrees with Jansson on what is JSON where
 * both have the same rules, and the raw text of every value is itself JSON of the type it named. */
#include <jansson.h>

#include "broker/json/members.h"
#include "broker/json/walk.h"

struct seen {
    size_t values;
    bool root;
};

static bool note(void *ctx, const struct json_value *v) {
    struct seen *s = ctx;
    s->values++;
    CHECK(v->raw.len > 0);
    CHECK(v->depth <= JSON_WALK_DEPTH);
    uint8_t first = v->raw.data[0], last = v->raw.data[v->raw.len - 1];
    switch (v->type) {
    case JSON_IS_OBJECT: CHECK(first == '{' && last == '}'); break;
    case JSON_IS_ARRAY: CHECK(first == '[' && last == ']'); break;
    case JSON_IS_STRING: CHECK(v->raw.len >= 2 && first == '"' && last == '"'); break;
    case JSON_IS_NUMBER: CHECK(first == '-' || (first >= '0' && first <= '9')); break;
    case JSON_IS_BOOL: CHECK(slice_eq_str(v->raw, "true") || slice_eq_str(v->raw, "false")); break;
    case JSON_IS_NULL: CHECK(slice_eq_str(v->raw, "null")); break;
    }
    if (v->type == JSON_IS_STRING) {
        char out[64];
        long len = json_string_decode(v->raw, out, sizeof out);
        CHECK(len >= -1 && len < (long)sizeof out);
        CHECK(len < 0 || json_utf8_error(slice_of(out, (size_t)len)) == (size_t)len);
    }
    if (v->depth == 0) s->root = true;
    return true;
}

/* Whether Jansson's no can be a yes of json_walk: it holds numbers to the range of its own types
 * and refuses lone surrogates and NUL in keys. */
static bool differs_by_rule(struct slice text, const json_error_t *error) {
    enum json_error_code code = json_error_code(error);
    return code == json_error_numeric_overflow || code == json_error_null_byte_in_key ||
           memmem(text.data, text.len, "\\u", 2) != NULL;
}

/* The members that the walker names, one after the other. */
static bool same_member(void *ctx, const struct json_value *v) {
    struct slice name, value;
    if (v->depth == 0 || v->path[0].data == NULL) return true;
    bool more = json_members_next(ctx, &name, &value);
    CHECK(more && slice_eq(name, v->path[0]) && slice_eq(value, v->raw));
    return true;
}

static void check_members(struct slice text, bool ok) {
    struct json_members members;
    struct slice name, value;
    json_members_init(&members, text);
    if (ok) {
        bool again = json_walk(text, 1, same_member, &members, NULL);
        CHECK(again && !json_members_next(&members, &name, &value));
        return;
    }
    while (json_members_next(&members, &name, &value)) {
        CHECK(name.data >= text.data && name.data + name.len <= text.data + text.len);
        CHECK(value.data >= text.data && value.data + value.len <= text.data + text.len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice text = slice_of(data, size);
    struct json_error error = {.line = 0};
    struct seen seen = {.values = 0};
    bool ok = json_walk(text, JSON_WALK_DEPTH, note, &seen, &error);
    CHECK(!ok || seen.root);
    check_members(text, ok);
    CHECK(ok || (error.line > 0 && error.column > 0 && error.message[0] != '\0'));

    char out[256];
    json_string_decode(text, out, sizeof out);
    if (size > 0 && memchr(data, 0, size) != NULL) {
        CHECK(!ok); /* Jansson lets a NUL pass after a number */
        return 0;
    }
    json_error_t tree_error;
    json_t *tree =
        json_loadb((const char *)data, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &tree_error);
    if (tree != NULL) CHECK(ok || strstr(error.message, "nested deeper") != NULL);
    else CHECK(!ok || differs_by_rule(text, &tree_error));
    json_decref(tree);
    return 0;
}
