#include "broker/admin/fields.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/rfc3339.h"

#define SHOWN_BYTES 64 /* of a name that somebody else chose */

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
    json_t *tree = json_loadb((const char *)body.data, body.len,
                              JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (tree == NULL) return refuse_syntax(&error, f);
    if (!json_is_object(tree)) {
        json_decref(tree);
        return refuse(f, ERR_INVALID_REQUEST, "the body must be a JSON object");
    }
    out->object = tree;
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

bool fields_known(const struct fields *o, const char *const *known, struct refusal *f) {
    const char *name;
    json_t *value;
    json_object_foreach(o->object, name, value) {
        if (in_list(name, known)) continue;
        char list[200] = "";
        for (size_t i = 0, len = 0; known[i] != NULL && len < sizeof list; i++) {
            len += (size_t)snprintf(list + len, sizeof list - len, "%s%s", i == 0 ? "" : ", ",
                                    known[i]);
        }
        return refuse(f, ERR_PARAMETER_UNKNOWN, "unknown field \"%s%.*s\": the fields are %s",
                      o->path, SHOWN_BYTES, name, list);
    }
    return true;
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
