#include "broker/fields/fields.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/rfc3339.h"
#include "broker/engine/engine.h"
#include "broker/json/walk.h"

#define SHOWN_BYTES 64 /* of a name that somebody else chose */
#define NAME_SIZE                                                                                  \
    64 /* more than any name of a field that field_json is asked for, escaped or not */

bool refuse(struct refusal *f, enum err err, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(f->message, sizeof f->message, fmt, args);
    va_end(args);
    f->err = err;
    return false;
}

/* Jansson's words without the piece of the text that it quotes: it may be a secret. */
static bool refuse_syntax(const json_error_t *error, struct refusal *f) {
    const char *near = strstr(error->text, " near ");
    int len = near == NULL ? (int)strlen(error->text) : (int)(near - error->text);
    int line = error->line < 1 ? 1 : error->line, column = error->column < 1 ? 1 : error->column;
    if (json_error_code(error) == json_error_null_character) {
        return refuse(f, ERR_INVALID_REQUEST,
                      "line %d, column %d: the character U+0000 cannot be used here", line, column);
    }
    return refuse(f, ERR_INVALID_REQUEST, "the body is not valid JSON: line %d, column %d: %.*s",
                  line, column, len, error->text);
}

bool fields_parse(struct slice body, struct fields *out, struct refusal *f) {
    json_error_t error;
    *out = (struct fields){.object = NULL, .path = ""};
    if (body.len == 0) {
        return refuse(f, ERR_INVALID_REQUEST, "the body is empty: it must be a JSON object");
    }
    /* Jansson reports exhausted memory as bad syntax, which would blame the sender for good. */
    json_set_alloc_funcs(mem_alloc, free);
    json_t *tree = json_loadb((const char *)body.data, body.len,
                              JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (tree == NULL) return refuse_syntax(&error, f);
    if (!json_is_object(tree)) {
        json_decref(tree);
        return refuse(f, ERR_INVALID_REQUEST, "the body must be a JSON object");
    }
    out->object = tree;
    out->text = body;
    return true;
}

void fields_free(struct fields *o) {
    json_decref(o->object);
    o->object = NULL;
}

static bool in_list(const char *name, const char *const *list) {
    for (; *list != NULL; list++) {
        if (strcmp(name, *list) == 0) return true;
    }
    return false;
}

static size_t put_names(char *list, size_t size, size_t len, const char *const *names) {
    for (; *names != NULL && len < size; names++) {
        len += (size_t)snprintf(list + len, size - len, "%s%s", len == 0 ? "" : ", ", *names);
    }
    return len;
}

bool fields_known_in(const struct fields *o, const char *const *known, const char *const *more,
                     struct refusal *f) {
    const char *name;
    json_t *value;
    json_object_foreach(o->object, name, value) {
        if (in_list(name, known) || in_list(name, more)) continue;
        char list[280] = ""; /* those of a source's options */
        size_t len = put_names(list, sizeof list, 0, known);
        len = put_names(list, sizeof list, len, more);
        return refuse(f, ERR_PARAMETER_UNKNOWN, "unknown field \"%s%.*s\": %s%s", o->path,
                      SHOWN_BYTES, name, len == 0 ? "there are none here" : "the fields are ",
                      list);
    }
    return true;
}

bool fields_known(const struct fields *o, const char *const *known, struct refusal *f) {
    static const char *const none[] = {NULL};
    return fields_known_in(o, known, none, f);
}

bool field_present(const struct fields *o, const char *name) {
    return json_object_get(o->object, name) != NULL;
}

bool field_required(const struct fields *o, const char *name, struct refusal *f) {
    if (field_present(o, name)) return true;
    return refuse(f, ERR_INVALID_REQUEST, "%s%s is required", o->path, name);
}

bool field_u64(const struct fields *o, const char *name, uint64_t min, uint64_t max, uint64_t *out,
               struct refusal *f) {
    const json_t *v = json_object_get(o->object, name);
    if (v == NULL) return true;
    json_int_t n = json_integer_value(v);
    if (!json_is_integer(v) || n < 0 || (uint64_t)n < min || (uint64_t)n > max) {
        return refuse(f, ERR_INVALID_REQUEST,
                      "%s%s must be a whole number from %" PRIu64 " to %" PRIu64, o->path, name,
                      min, max);
    }
    *out = (uint64_t)n;
    return true;
}

bool field_real(const struct fields *o, const char *name, double min, double max, double *out,
                struct refusal *f) {
    const json_t *v = json_object_get(o->object, name);
    if (v == NULL) return true;
    double n = json_number_value(v);
    if (!json_is_number(v) || n < min || n > max) {
        return refuse(f, ERR_INVALID_REQUEST, "%s%s must be a number from %g to %g", o->path, name,
                      min, max);
    }
    *out = n;
    return true;
}

bool field_bool(const struct fields *o, const char *name, bool *out, struct refusal *f) {
    const json_t *v = json_object_get(o->object, name);
    if (v == NULL) return true;
    if (!json_is_boolean(v)) {
        return refuse(f, ERR_INVALID_REQUEST, "%s%s must be true or false", o->path, name);
    }
    *out = json_is_true(v);
    return true;
}

bool field_text(const struct fields *o, const char *name, struct slice *out, struct refusal *f) {
    const json_t *v = json_object_get(o->object, name);
    if (v == NULL) return true;
    if (!json_is_string(v)) {
        return refuse(f, ERR_INVALID_REQUEST, "%s%s must be a string", o->path, name);
    }
    *out = slice_of(json_string_value(v), json_string_length(v));
    return true;
}

bool field_time(const struct fields *o, const char *name, uint64_t *out, struct refusal *f) {
    struct slice text = slice_of(NULL, 0);
    if (!field_present(o, name)) return true;
    if (!field_text(o, name, &text, f)) return false;
    if (rfc3339_parse(text, out)) return true;
    return refuse(f, ERR_INVALID_REQUEST,
                  "%s%s must be a time like \"2026-11-21T09:00:00Z\" (RFC 3339)", o->path, name);
}

bool field_name(const struct fields *o, const char *name, struct slice *out, struct refusal *f) {
    if (!field_required(o, name, f) || !field_text(o, name, out, f)) return false;
    if (name_ok(*out)) return true;
    return refuse(f, ERR_INVALID_REQUEST,
                  "%s%s must have 1 to %d of A-Z a-z 0-9 . _ - and start with a letter or digit",
                  o->path, name, LIMIT_NAME_BYTES);
}

struct find {
    const char *name;
    struct slice raw;
};

/* A key may be written with escapes: it is compared as what it says. */
static bool find_member(void *ctx, const struct json_value *v) {
    struct find *find = ctx;
    char name[NAME_SIZE];
    if (v->depth != 1) return true;
    struct slice quoted = slice_of(v->path[0].data - 1, v->path[0].len + 2);
    long len = json_string_decode(quoted, name, sizeof name);
    if (len < 0 || !slice_eq_str(slice_of(name, (size_t)len), find->name)) return true;
    find->raw = v->raw;
    return false;
}

bool field_json(const struct fields *o, const char *name, struct slice *out, struct refusal *f) {
    struct find find = {.name = name};
    struct json_error error;
    if (!field_present(o, name)) return true;
    CHECK(o->text.len > 0);
    if (!json_walk(o->text, 1, find_member, &find, &error)) {
        return refuse(f, ERR_INVALID_REQUEST, "%s: line %zu, column %zu: %s", name, error.line,
                      error.column, error.message);
    }
    CHECK(find.raw.len > 0); /* the tree has it, and names that long are not ours */
    *out = find.raw;
    return true;
}

bool field_object(const struct fields *o, const char *name, const char *path, struct fields *out,
                  struct refusal *f) {
    *out = (struct fields){.object = json_object_get(o->object, name), .path = path};
    if (out->object == NULL || json_is_object(out->object)) return true;
    return refuse(f, ERR_INVALID_REQUEST, "%s%s must be an object", o->path, name);
}

bool field_texts(const struct fields *o, const char *name, size_t max_count, size_t max_len,
                 struct arena *arena, const struct slice **out, size_t *count, struct refusal *f) {
    const json_t *v = json_object_get(o->object, name);
    if (v == NULL) return true;
    size_t len = json_array_size(v);
    if (!json_is_array(v) || len > max_count) {
        return refuse(f, ERR_INVALID_REQUEST, "%s%s must be an array of at most %zu strings",
                      o->path, name, max_count);
    }
    struct slice *texts = arena_alloc(arena, len * sizeof *texts);
    for (size_t i = 0; i < len; i++) {
        const json_t *item = json_array_get(v, i);
        texts[i] = slice_of(json_string_value(item), json_string_length(item));
        if (json_is_string(item) && texts[i].len > 0 && texts[i].len <= max_len) continue;
        return refuse(f, ERR_INVALID_REQUEST, "%s%s[%zu] must be a string of 1 to %zu bytes",
                      o->path, name, i, max_len);
    }
    *out = texts;
    *count = len;
    return true;
}

bool field_objects(const struct fields *o, const char *name, size_t max_count, size_t *count,
                   struct refusal *f) {
    const json_t *v = json_object_get(o->object, name);
    if (v == NULL) return true;
    size_t len = json_array_size(v);
    bool objects = json_is_array(v) && len <= max_count;
    for (size_t i = 0; i < len && objects; i++) objects = json_is_object(json_array_get(v, i));
    if (!objects) {
        return refuse(f, ERR_INVALID_REQUEST, "%s%s must be an array of at most %zu objects",
                      o->path, name, max_count);
    }
    *count = len;
    return true;
}

struct fields field_object_at(const struct fields *o, const char *name, size_t i,
                              const char *path) {
    json_t *item = json_array_get(json_object_get(o->object, name), i);
    CHECK(json_is_object(item)); /* field_objects has looked */
    return (struct fields){.object = item, .path = path};
}

bool field_text_members(const struct fields *o, const char *name, size_t max_count,
                        struct arena *arena, const struct text_member **out, size_t *count,
                        struct refusal *f) {
    json_t *v = json_object_get(o->object, name), *item;
    const char *key;
    size_t len = 0;
    if (v == NULL) return true;
    if (!json_is_object(v) || json_object_size(v) > max_count) {
        return refuse(f, ERR_INVALID_REQUEST, "%s%s must be an object of at most %zu strings",
                      o->path, name, max_count);
    }
    struct text_member *members = arena_alloc(arena, json_object_size(v) * sizeof *members);
    json_object_foreach(v, key, item) {
        if (!json_is_string(item)) {
            return refuse(f, ERR_INVALID_REQUEST, "%s%s.%.*s must be a string", o->path, name,
                          SHOWN_BYTES, key);
        }
        members[len].name = key;
        members[len++].value = slice_of(json_string_value(item), json_string_length(item));
    }
    *out = members;
    *count = len;
    return true;
}
