#include "broker/engine/filter.h"

#include <stdio.h>
#include <stdlib.h>

#include "broker/engine/filter_internal.h"

/* ---- memory ---- */

#define CHUNK_BYTES 496 /* a filter of a few conditions */

struct filter_chunk {
    struct filter_chunk *next;
    size_t size, used;
    _Alignas(16) uint8_t bytes[];
};

void *filter_memory_alloc(struct filter_memory *m, size_t bytes) {
    size_t need = (bytes + 15) / 16 * 16;
    struct filter_chunk *c = m->chunks;
    if (c == NULL || c->size - c->used < need) {
        size_t size = need > CHUNK_BYTES ? need : CHUNK_BYTES;
        c = mem_zalloc(sizeof *c + size);
        c->size = size;
        c->next = m->chunks;
        m->chunks = c;
    }
    void *at = c->bytes + c->used;
    c->used += need;
    return at;
}

void filter_memory_free(struct filter_memory *m) {
    for (struct filter_chunk *c = m->chunks, *next; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    m->chunks = NULL;
}

/* ---- canonical text ---- */

static void put_clause(struct buf *b, const struct filter_clause *k);

/* Begins a member: a comma unless it is the first of its object. */
static void put_name(struct buf *b, const char *name) {
    if (b->data[b->len - 1] != '{') buf_append_byte(b, ',');
    buf_printf(b, "\"%s\":", name);
}

static void put_strings(struct buf *b, const char *name, const struct slice *list, size_t count) {
    if (count == 0) return;
    put_name(b, name);
    for (size_t i = 0; i < count; i++) {
        buf_append_byte(b, i == 0 ? '[' : ',');
        buf_append_json_string(b, list[i]);
    }
    buf_append_byte(b, ']');
}

static void put_value(struct buf *b, const struct filter_value *v) {
    switch (v->type) {
    case FILTER_NULL: buf_append_str(b, "null"); return;
    case FILTER_FALSE: buf_append_str(b, "false"); return;
    case FILTER_TRUE: buf_append_str(b, "true"); return;
    case FILTER_NUMBER: buf_append_slice(b, v->text); return;
    case FILTER_STRING: buf_append_json_string(b, v->text); return;
    case FILTER_OTHER: break;
    }
    UNREACHABLE("a filter names scalars only");
}

static void put_condition(struct buf *b, const struct filter_condition *c) {
    if (c->bare) {
        put_value(b, &c->equals);
        return;
    }
    buf_append_byte(b, '{');
    if (c->has_equals) {
        put_name(b, "equals");
        put_value(b, &c->equals);
    }
    if (c->in_count > 0) {
        put_name(b, "in");
        for (size_t i = 0; i < c->in_count; i++) {
            buf_append_byte(b, i == 0 ? '[' : ',');
            put_value(b, &c->in[i]);
        }
        buf_append_byte(b, ']');
    }
    if (c->prefix.len > 0) {
        put_name(b, "prefix");
        buf_append_json_string(b, c->prefix);
    }
    if (c->has_exists) {
        put_name(b, "exists");
        buf_append_str(b, c->exists ? "true" : "false");
    }
    if (c->inverse != NULL) {
        put_name(b, "not");
        put_condition(b, c->inverse);
    }
    buf_append_byte(b, '}');
}

static void put_clauses(struct buf *b, const char *name, const struct filter_clause *list,
                        size_t count) {
    if (count == 0) return;
    put_name(b, name);
    for (size_t i = 0; i < count; i++) {
        buf_append_byte(b, i == 0 ? '[' : ',');
        put_clause(b, &list[i]);
    }
    buf_append_byte(b, ']');
}

static void put_clause(struct buf *b, const struct filter_clause *k) {
    buf_append_byte(b, '{');
    put_strings(b, "types", k->types, k->types_count);
    put_strings(b, "sources", k->sources, k->sources_count);
    if (k->subject_prefix.len > 0) {
        put_name(b, "subject_prefix");
        buf_append_json_string(b, k->subject_prefix);
    }
    if (k->has_endpoint) {
        put_name(b, "endpoint");
        buf_printf(b, "%u", k->endpoint);
    }
    for (size_t i = 0; i < k->fields_count; i++) {
        if (i == 0) put_name(b, "user_metadata");
        buf_append_byte(b, i == 0 ? '{' : ',');
        buf_append_json_string(b, k->fields[i].name);
        buf_append_byte(b, ':');
        put_condition(b, &k->fields[i].condition);
    }
    if (k->fields_count > 0) buf_append_byte(b, '}');
    put_clauses(b, "all", k->all, k->all_count);
    put_clauses(b, "any", k->any, k->any_count);
    if (k->inverse != NULL) {
        put_name(b, "not");
        put_clause(b, k->inverse);
    }
    buf_append_byte(b, '}');
}

/* False: unescaped and escaped again it is longer than a filter may be, and it would not be read
 * again from where it is stored. */
static bool write_text(struct filter *f) {
    struct buf b;
    buf_init(&b, LIMIT_FILTER_BYTES);
    put_clause(&b, &f->root);
    bool fits = !b.overflow;
    if (fits) {
        uint8_t *copy = filter_memory_alloc(&f->memory, b.len);
        memcpy(copy, b.data, b.len);
        f->text = slice_of(copy, b.len);
    }
    buf_free(&b);
    return fits;
}

/* ---- life ---- */

enum err filter_compile(struct slice json, struct filter **out, char *why, size_t size) {
    *out = NULL;
    if (json.len > LIMIT_FILTER_BYTES) {
        snprintf(why, size, "filter: longer than %d bytes", LIMIT_FILTER_BYTES);
        return ERR_BAD_FILTER;
    }
    struct filter *f = mem_zalloc(sizeof *f);
    bool ok = json.len == 0 || filter_compile_text(json, f, why, size);
    if (ok && !write_text(f)) {
        snprintf(why, size, "filter: longer than %d bytes when control characters are escaped",
                 LIMIT_FILTER_BYTES);
        ok = false;
    }
    if (!ok) filter_free(&f);
    *out = f;
    return ok ? ERR_OK : ERR_BAD_FILTER;
}

void filter_free(struct filter **f) {
    if (*f == NULL) return;
    filter_memory_free(&(*f)->memory);
    free(*f);
    *f = NULL;
}

struct slice filter_text(const struct filter *f) {
    return f->text;
}
