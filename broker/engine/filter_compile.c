/* A JSON text becomes clauses, one level at a time: the members of an object or an array are listed
 * as parts of the text (collect), then each is read by what its name asks for, which may list its
 * own parts. The whole text is verified first, so that from there on only meaning can be wrong. The
 * depth of the recursion is that of the text, which LIMIT_FILTER_DEPTH bounds. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "broker/engine/engine.h"
#include "broker/engine/filter_internal.h"

struct compiler {
    struct slice json;
    struct filter_memory *memory;
    struct arena parts; /* dies with the compiler */
    size_t nodes, depth;
    char *why;
    size_t why_size;
};

/* Where in the filter we are; a chain from the inside to the root, on the stack. */
struct place {
    const struct place *up; /* NULL: the filter itself */
    struct slice name;      /* as it is in the text, without quotes */
    size_t index;           /* when name.data is NULL: an element's */
};

#define PLACE_NAME_BYTES 64 /* what is shown of a longer name */
#define PLACE_BYTES      512

/* A member of an object or an element of an array. */
struct part {
    struct slice name; /* raw; data is NULL in an array */
    enum json_is type;
    struct slice raw;
};

struct parts {
    struct arena *arena;
    struct part *list;
    size_t count, cap;
};

/* ---- saying what is wrong ---- */

static void put_place(struct buf *b, const struct place *place) {
    const struct place *chain[2 * LIMIT_FILTER_DEPTH + 8];
    size_t count = 0;
    for (; place->up != NULL; place = place->up) {
        CHECK(count < sizeof chain / sizeof chain[0]);
        chain[count++] = place;
    }
    buf_append_str(b, "filter");
    while (count > 0) {
        const struct place *p = chain[--count];
        if (p->name.data == NULL) {
            buf_printf(b, "[%zu]", p->index);
            continue;
        }
        size_t len = p->name.len;
        if (len > PLACE_NAME_BYTES) {
            len = PLACE_NAME_BYTES;
            while (len > 0 && (p->name.data[len] & 0xC0) == 0x80) len--; /* no half characters */
        }
        buf_append_byte(b, '.');
        buf_append(b, p->name.data, len);
        if (len < p->name.len) buf_append_str(b, "...");
    }
}

/* Says "place: what" and returns false. */
static bool refuse(struct compiler *c, const struct place *place, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
static bool refuse(struct compiler *c, const struct place *place, const char *fmt, ...) {
    struct buf b;
    buf_init(&b, PLACE_BYTES);
    put_place(&b, place);
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    snprintf(c->why, c->why_size, "%.*s: %s", SLICE_ARG(buf_slice(&b)), what);
    buf_free(&b);
    return false;
}

/* Line and column, from 1, of a part of the text. */
static void line_and_column(const struct compiler *c, struct slice raw, size_t *line,
                            size_t *column) {
    *line = *column = 1;
    for (const uint8_t *p = c->json.data; p < raw.data; p++) {
        if (*p == '\n') {
            ++*line;
            *column = 1;
        } else if ((*p & 0xC0) != 0x80) {
            ++*column;
        }
    }
}

/* ---- parts ---- */

static bool add_part(void *ctx, const struct json_value *v) {
    struct parts *p = ctx;
    if (v->depth == 0) return true;
    if (p->count == p->cap) {
        size_t cap = p->cap == 0 ? 8 : 2 * p->cap;
        struct part *bigger = arena_alloc(p->arena, cap * sizeof *bigger);
        if (p->count > 0) memcpy(bigger, p->list, p->count * sizeof *bigger);
        p->list = bigger;
        p->cap = cap;
    }
    p->list[p->count++] = (struct part){v->path[0], v->type, v->raw};
    return true;
}

static struct parts collect(struct compiler *c, struct slice raw) {
    struct parts p = {.arena = &c->parts};
    bool ok = json_walk(raw, 1, add_part, &p, NULL);
    CHECK(ok); /* a part of a text that was verified */
    return p;
}

static struct place place_of(const struct place *up, const struct part *p, size_t index) {
    return (struct place){.up = up, .name = p->name, .index = index};
}

static void *alloc(struct compiler *c, size_t count, size_t size) {
    return filter_memory_alloc(c->memory, count * size);
}

/* Counts one glob, name, value, condition or filter. */
static bool count_node(struct compiler *c, const struct place *place) {
    if (++c->nodes <= LIMIT_FILTER_NODES) return true;
    return refuse(c, place, "more than %d globs, names, values and conditions in one filter",
                  LIMIT_FILTER_NODES);
}

/* Enters all, any or not. The caller leaves by c->depth--. */
static bool enter(struct compiler *c, const struct part *part, const struct place *place) {
    if (c->depth < LIMIT_FILTER_DEPTH) {
        c->depth++;
        return true;
    }
    size_t line, column;
    line_and_column(c, part->raw, &line, &column);
    return refuse(c, place,
                  "more than %d of all, any and not within each other (line %zu, column %zu)",
                  LIMIT_FILTER_DEPTH, line, column);
}

/* ---- texts and scalars ---- */

/* A raw string without its escapes. */
static bool read_text(struct compiler *c, struct slice raw, const struct place *place,
                      struct slice *out) {
    char *text = alloc(c, raw.len, 1);
    long len = json_string_decode(raw, text, raw.len);
    if (len < 0) return refuse(c, place, "must not contain U+0000");
    *out = slice_of(text, (size_t)len);
    return true;
}

/* A string of 1 to max bytes. */
static bool read_bounded(struct compiler *c, const struct part *p, const struct place *place,
                         size_t max, struct slice *out) {
    if (!count_node(c, place)) return false;
    if (p->type == JSON_IS_STRING) {
        if (!read_text(c, p->raw, place, out)) return false;
        if (out->len > 0 && out->len <= max) return true;
    }
    return refuse(c, place, "must be a string of 1 to %zu bytes", max);
}

static bool read_scalar(struct compiler *c, const struct part *p, const struct place *place,
                        struct filter_value *out) {
    if (!count_node(c, place)) return false;
    if (p->type == JSON_IS_ARRAY || p->type == JSON_IS_OBJECT) {
        return refuse(c, place, "must be a string, a number, true, false or null");
    }
    if (p->type == JSON_IS_STRING) {
        *out = (struct filter_value){.type = FILTER_STRING};
        return read_text(c, p->raw, place, &out->text);
    }
    uint8_t *bytes = alloc(c, p->raw.len, 1);
    memcpy(bytes, p->raw.data, p->raw.len);
    filter_value_read(slice_of(bytes, p->raw.len), NULL, out);
    if (out->type != FILTER_OTHER) return true;
    return refuse(c, place, "must be a number of at most %d characters that a double can hold",
                  FILTER_NUMBER_BYTES);
}

/* ---- conditions on user_metadata ---- */

static bool read_condition(struct compiler *c, const struct part *p, const struct place *place,
                           struct filter_condition *out);

static bool read_in(struct compiler *c, const struct part *p, const struct place *place,
                    struct filter_condition *out) {
    struct parts list = {0};
    if (p->type == JSON_IS_ARRAY) list = collect(c, p->raw);
    if (list.count == 0 || list.count > LIMIT_FILTER_IN) {
        return refuse(c, place, "must be a list of 1 to %d scalars", LIMIT_FILTER_IN);
    }
    out->in = alloc(c, list.count, sizeof *out->in);
    for (size_t i = 0; i < list.count; i++) {
        struct place at = place_of(place, &list.list[i], i);
        if (!read_scalar(c, &list.list[i], &at, &out->in[i])) return false;
        out->in_count++;
    }
    return true;
}

static bool read_exists(struct compiler *c, const struct part *p, const struct place *place,
                        struct filter_condition *out) {
    if (!count_node(c, place)) return false;
    if (p->type != JSON_IS_BOOL) return refuse(c, place, "must be true or false");
    out->has_exists = true;
    out->exists = p->raw.data[0] == 't';
    return true;
}

static bool read_inverse_condition(struct compiler *c, const struct part *p,
                                   const struct place *place, struct filter_condition *out) {
    if (!enter(c, p, place)) return false;
    struct filter_condition *inverse = alloc(c, 1, sizeof *inverse);
    if (!read_condition(c, p, place, inverse)) return false;
    out->inverse = inverse;
    c->depth--;
    return true;
}

static bool read_operator(struct compiler *c, const struct part *p, const struct place *place,
                          struct filter_condition *out) {
    static const char *const names[] = {"equals", "in", "prefix", "exists", "not"};
    bool there[] = {out->has_equals, out->in_count > 0, out->prefix.len > 0, out->has_exists,
                    out->inverse != NULL};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (slice_eq_str(p->name, names[i]) && there[i]) return refuse(c, place, "given twice");
    }
    if (slice_eq_str(p->name, "equals")) {
        out->has_equals = true;
        return read_scalar(c, p, place, &out->equals);
    }
    if (slice_eq_str(p->name, "in")) return read_in(c, p, place, out);
    if (slice_eq_str(p->name, "prefix")) {
        return read_bounded(c, p, place, LIMIT_EVENT_METADATA_BYTES, &out->prefix);
    }
    if (slice_eq_str(p->name, "exists")) return read_exists(c, p, place, out);
    if (slice_eq_str(p->name, "not")) return read_inverse_condition(c, p, place, out);
    return refuse(c, place, "unknown; a condition has equals, in, prefix, exists and not");
}

/* A scalar, or an object of operators. */
static bool read_condition(struct compiler *c, const struct part *p, const struct place *place,
                           struct filter_condition *out) {
    static const char must_be[] =
        "must be a scalar, or an object with equals, in, prefix, exists or not";
    if (p->type == JSON_IS_ARRAY) return refuse(c, place, must_be);
    if (p->type != JSON_IS_OBJECT) {
        out->bare = out->has_equals = true;
        return read_scalar(c, p, place, &out->equals);
    }
    struct parts list = collect(c, p->raw);
    if (list.count == 0) return refuse(c, place, must_be);
    for (size_t i = 0; i < list.count; i++) {
        struct place at = place_of(place, &list.list[i], i);
        if (!read_operator(c, &list.list[i], &at, out)) return false;
    }
    return true;
}

static bool read_name(struct compiler *c, const struct part *p, const struct place *place,
                      struct filter_field *out) {
    struct slice quoted = slice_of(p->name.data - 1, p->name.len + 2); /* they are in the text */
    if (!read_text(c, quoted, place, &out->name)) return false;
    if (out->name.len == 0) {
        return refuse(c, place->up,
                      "a name must not be empty; \"/\" is the member with the empty name");
    }
    if (!filter_name_ok(out->name)) {
        return refuse(c, place,
                      "not a JSON Pointer (RFC 6901): after ~ comes 0 (for ~) or 1 (for /)");
    }
    struct slice top = out->name;
    if (top.data[0] == '/') {
        struct slice rest = out->name, token = filter_pointer_next(&rest);
        char *name = alloc(c, token.len + 1, 1);
        size_t len = 0;
        for (size_t i = 0; i < token.len; i++, len++) {
            name[len] = (char)token.data[i];
            if (name[len] == '~') name[len] = token.data[++i] == '0' ? '~' : '/';
        }
        top = slice_of(name, len);
        out->top = rest.len == 0;
    } else {
        out->top = true;
    }
    out->name_hash = filter_name_hash(top);
    return true;
}

static int by_name(const void *left, const void *right) {
    const struct filter_field *a = left, *b = right;
    size_t len = a->name.len < b->name.len ? a->name.len : b->name.len;
    int order = memcmp(a->name.data, b->name.data, len);
    if (order != 0) return order;
    return (a->name.len > b->name.len) - (a->name.len < b->name.len);
}

static bool read_user_metadata(struct compiler *c, const struct part *p, const struct place *place,
                               struct filter_clause *out) {
    if (p->type != JSON_IS_OBJECT) {
        return refuse(c, place, "must be an object of names and what is asked of them");
    }
    struct parts list = collect(c, p->raw);
    out->fields = alloc(c, list.count, sizeof *out->fields);
    for (size_t i = 0; i < list.count; i++) {
        struct place at = place_of(place, &list.list[i], i);
        struct filter_field *field = &out->fields[i];
        if (!read_name(c, &list.list[i], &at, field)) return false;
        if (!read_condition(c, &list.list[i], &at, &field->condition)) return false;
    }
    out->fields_count = list.count;
    /* An object's members have no order: sorted, the text is the same for the same filter. */
    qsort(out->fields, out->fields_count, sizeof *out->fields, by_name);
    for (size_t i = 1; i < out->fields_count; i++) {
        if (by_name(&out->fields[i - 1], &out->fields[i]) != 0) continue;
        struct place at = {.up = place, .name = out->fields[i].name};
        return refuse(c, &at, "given twice");
    }
    return true;
}

/* ---- the other members of a filter ---- */

static bool read_clause(struct compiler *c, const struct part *p, const struct place *place,
                        struct filter_clause *out);

static bool read_types(struct compiler *c, const struct part *p, const struct place *place,
                       struct filter_clause *out) {
    struct parts list = {0};
    if (p->type == JSON_IS_ARRAY) list = collect(c, p->raw);
    if (list.count == 0)
        return refuse(c, place, "must be a list of 1 or more globs: [\"batch.*\"]");
    out->types = alloc(c, list.count, sizeof *out->types);
    for (size_t i = 0; i < list.count; i++) {
        struct place at = place_of(place, &list.list[i], i);
        if (!read_bounded(c, &list.list[i], &at, LIMIT_EVENT_TYPE_BYTES, &out->types[i])) {
            return false;
        }
    }
    out->types_count = list.count;
    return true;
}

static bool read_sources(struct compiler *c, const struct part *p, const struct place *place,
                         struct filter_clause *out) {
    struct parts list = {0};
    if (p->type == JSON_IS_ARRAY) list = collect(c, p->raw);
    if (list.count == 0) return refuse(c, place, "must be a list of 1 or more names of sources");
    out->sources = alloc(c, list.count, sizeof *out->sources);
    for (size_t i = 0; i < list.count; i++) {
        struct place at = place_of(place, &list.list[i], i);
        if (!read_bounded(c, &list.list[i], &at, LIMIT_NAME_BYTES, &out->sources[i])) return false;
        if (name_ok(out->sources[i])) continue;
        return refuse(c, &at,
                      "not the name of a source: A-Z a-z 0-9 . _ - after a letter or a digit");
    }
    out->sources_count = list.count;
    return true;
}

static bool read_subject_prefix(struct compiler *c, const struct part *p, const struct place *place,
                                struct filter_clause *out) {
    return read_bounded(c, p, place, LIMIT_EVENT_SUBJECT_BYTES, &out->subject_prefix);
}

static bool read_endpoint(struct compiler *c, const struct part *p, const struct place *place,
                          struct filter_clause *out) {
    struct filter_value v = {.type = FILTER_OTHER};
    if (!count_node(c, place)) return false;
    if (p->type == JSON_IS_NUMBER) filter_value_read(p->raw, NULL, &v);
    if (v.type != FILTER_NUMBER || !v.whole || v.negative || v.magnitude >= LIMIT_ENDPOINTS) {
        return refuse(c, place, "must be a number from 0 to %d: which of an event's own endpoints",
                      LIMIT_ENDPOINTS - 1);
    }
    out->has_endpoint = true;
    out->endpoint = (uint32_t)v.magnitude;
    return true;
}

static bool read_clauses(struct compiler *c, const struct part *p, const struct place *place,
                         struct filter_clause **out, size_t *count) {
    struct parts list = {0};
    if (p->type == JSON_IS_ARRAY) list = collect(c, p->raw);
    if (list.count == 0) return refuse(c, place, "must be a list of 1 or more filters");
    if (!enter(c, p, place)) return false;
    struct filter_clause *clauses = alloc(c, list.count, sizeof *clauses);
    for (size_t i = 0; i < list.count; i++) {
        struct place at = place_of(place, &list.list[i], i);
        if (!count_node(c, &at) || !read_clause(c, &list.list[i], &at, &clauses[i])) return false;
    }
    *out = clauses;
    *count = list.count;
    c->depth--;
    return true;
}

static bool read_all(struct compiler *c, const struct part *p, const struct place *place,
                     struct filter_clause *out) {
    return read_clauses(c, p, place, &out->all, &out->all_count);
}

static bool read_any(struct compiler *c, const struct part *p, const struct place *place,
                     struct filter_clause *out) {
    return read_clauses(c, p, place, &out->any, &out->any_count);
}

static bool read_inverse(struct compiler *c, const struct part *p, const struct place *place,
                         struct filter_clause *out) {
    if (!enter(c, p, place) || !count_node(c, place)) return false;
    out->inverse = alloc(c, 1, sizeof *out->inverse);
    if (!read_clause(c, p, place, out->inverse)) return false;
    c->depth--;
    return true;
}

typedef bool read_fn(struct compiler *c, const struct part *p, const struct place *place,
                     struct filter_clause *out);
static const struct {
    const char *name;
    read_fn *read;
} members[] = {
    {"types", read_types},
    {"sources", read_sources},
    {"subject_prefix", read_subject_prefix},
    {"endpoint", read_endpoint},
    {"user_metadata", read_user_metadata},
    {"all", read_all},
    {"any", read_any},
    {"not", read_inverse},
};
#define MEMBERS (sizeof members / sizeof members[0])

static bool read_clause(struct compiler *c, const struct part *p, const struct place *place,
                        struct filter_clause *out) {
    if (p->type != JSON_IS_OBJECT) {
        return refuse(c, place, "must be an object such as {\"types\":[\"batch.*\"]}");
    }
    struct parts list = collect(c, p->raw);
    bool there[MEMBERS] = {false};
    for (size_t i = 0; i < list.count; i++) {
        const struct part *part = &list.list[i];
        struct place at = place_of(place, part, i);
        size_t m = 0;
        while (m < MEMBERS && !slice_eq_str(part->name, members[m].name)) m++;
        if (m == MEMBERS) {
            return refuse(c, &at,
                          "unknown; a filter has types, sources, subject_prefix, endpoint, "
                          "user_metadata, all, any and not");
        }
        if (there[m]) return refuse(c, &at, "given twice");
        there[m] = true;
        if (!members[m].read(c, part, &at, out)) return false;
    }
    return true;
}

static bool note_root(void *ctx, const struct json_value *v) {
    struct part *root = ctx;
    *root = (struct part){.type = v->type, .raw = v->raw};
    return true;
}

bool filter_compile_text(struct slice json, struct filter *f, char *why, size_t size) {
    struct compiler c = {.json = json, .memory = &f->memory, .why = why, .why_size = size};
    struct part root = {.raw = json};
    struct json_error error;
    if (!json_walk(json, 0, note_root, &root, &error)) {
        snprintf(why, size, "filter: not JSON: line %zu, column %zu: %s", error.line, error.column,
                 error.message);
        return false;
    }
    arena_init(&c.parts);
    bool ok = read_clause(&c, &root, &(struct place){.up = NULL}, &f->root);
    arena_free(&c.parts);
    return ok;
}
