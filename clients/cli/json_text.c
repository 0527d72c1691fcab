#include "clients/cli/json_text.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

static bool is_blank(uint8_t c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_blanks(struct slice s, size_t *at) {
    while (*at < s.len && is_blank(s.data[*at])) (*at)++;
}

/* From the opening quote to behind the closing one. */
static bool skip_string(struct slice s, size_t *at) {
    for (size_t i = *at + 1; i < s.len; i++) {
        if (s.data[i] == '\\') {
            i++;
        } else if (s.data[i] == '"') {
            *at = i + 1;
            return true;
        }
    }
    return false;
}

/* Any value, from its first character to behind its last. */
static bool skip_value(struct slice s, size_t *at) {
    size_t depth = 0, start = *at;
    while (*at < s.len) {
        uint8_t c = s.data[*at];
        if (c == '"') {
            if (!skip_string(s, at)) return false;
            if (depth == 0) return true;
            continue;
        }
        if (depth == 0 && (c == ',' || c == ']' || c == '}' || is_blank(c))) return *at > start;
        (*at)++;
        if (c == '{' || c == '[') depth++;
        if (c == '}' || c == ']') {
            if (--depth == 0) return true;
        }
    }
    return depth == 0 && *at > start;
}

bool json_walk_open(struct json_walk *w, struct slice value) {
    *w = (struct json_walk){.text = value};
    skip_blanks(value, &w->at);
    if (w->at == value.len) return false;
    uint8_t c = value.data[w->at++];
    w->object = c == '{';
    return c == '{' || c == '[';
}

bool json_walk_next(struct json_walk *w, struct slice *key, struct slice *value) {
    struct slice s = w->text;
    skip_blanks(s, &w->at);
    if (w->at < s.len && s.data[w->at] == ',') w->at++;
    skip_blanks(s, &w->at);
    if (w->at >= s.len || s.data[w->at] == '}' || s.data[w->at] == ']') return false;
    *key = slice_of(NULL, 0);
    size_t start = w->at;
    if (w->object) {
        if (s.data[w->at] != '"' || !skip_string(s, &w->at)) return false;
        *key = slice_of(s.data + start, w->at - start);
        skip_blanks(s, &w->at);
        if (w->at >= s.len || s.data[w->at++] != ':') return false;
        skip_blanks(s, &w->at);
        start = w->at;
    }
    if (!skip_value(s, &w->at)) return false;
    *value = slice_of(s.data + start, w->at - start);
    return true;
}

static bool find_member(struct slice object, struct slice name, struct slice *out) {
    struct json_walk w;
    struct slice key, value;
    if (!json_walk_open(&w, object) || !w.object) return false;
    while (json_walk_next(&w, &key, &value)) {
        if (key.len == name.len + 2 && memcmp(key.data + 1, name.data, name.len) == 0) {
            *out = value;
            return true;
        }
    }
    return false;
}

bool json_find(struct slice value, const char *path, struct slice *out) {
    for (;;) {
        const char *dot = strchr(path, '.');
        size_t len = dot != NULL ? (size_t)(dot - path) : strlen(path);
        if (!find_member(value, slice_of(path, len), &value)) return false;
        if (dot == NULL) break;
        path = dot + 1;
    }
    *out = value;
    return true;
}

char *json_show(struct slice value, const char *path) {
    struct slice found;
    if (!json_find(value, path, &found)) return mem_strdup("");
    if (found.data[0] == '"') {
        json_t *text =
            json_loadb((const char *)found.data, found.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        char *copy = mem_strdup(json_is_string(text) ? json_string_value(text) : "");
        json_decref(text);
        return copy;
    }
    char *text = NULL;
    size_t len = 0;
    FILE *memory = open_memstream(&text, &len);
    CHECK(memory != NULL);
    json_write(memory, found);
    CHECK(fclose(memory) == 0);
    return text;
}

uint64_t json_number(struct slice value, const char *path, uint64_t otherwise) {
    struct slice found;
    uint64_t number;
    return json_find(value, path, &found) && slice_to_u64(found, &number) ? number : otherwise;
}

void json_write(FILE *out, struct slice value) {
    size_t at = 0;
    while (at < value.len) {
        size_t start = at;
        if (value.data[at] == '"') {
            if (!skip_string(value, &at)) at = value.len;
        } else if (is_blank(value.data[at])) {
            start = ++at;
        } else {
            at++;
        }
        if (at > start) fwrite(value.data + start, 1, at - start, out);
    }
}

bool json_valid(struct slice text, bool object, uint64_t line, char *why, size_t why_size) {
    json_error_t error;
    /* Numbers are only looked at: as reals they may be of any length. */
    json_t *value = json_loadb((const char *)text.data, text.len,
                               JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
    if (value == NULL) {
        snprintf(why, why_size, "%s, line %" PRIu64 ", column %d", error.text,
                 line + (uint64_t)error.line - 1, error.column);
        return false;
    }
    bool ok = !object || json_is_object(value);
    if (!ok) snprintf(why, why_size, "it is not an object");
    json_decref(value);
    return ok;
}
