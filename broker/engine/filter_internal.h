/* filter_internal.h: what the files filter*.c share; nobody else includes it.
 *
 *   filter.c          the struct filter and its canonical text
 *   filter_compile.c  JSON to clauses, with the places of what is wrong
 *   filter_value.c    scalars, names and how they compare and hash
 *   filter_match.c    an event against clauses
 *   filter_index.c    which filters to ask at all
 *
 * Everything a filter points at lives in its filter_memory and dies with it. Pure. */
#ifndef ENGINE_FILTER_INTERNAL_H
#define ENGINE_FILTER_INTERNAL_H

#include "base/buf.h"
#include "broker/engine/filter.h"
#include "broker/json/walk.h"

/* Memory that dies all at once, in pieces small enough for ten thousand filters (base/arena.h takes
 * 64 KiB at a time). */
struct filter_chunk;
struct filter_memory {
    struct filter_chunk *chunks;
};
void *filter_memory_alloc(struct filter_memory *m, size_t bytes); /* aligned to 16, zeroed */
void filter_memory_free(struct filter_memory *m);

/* ---- scalars ---- */

#define FILTER_NUMBER_BYTES 256 /* a longer number is none that a filter can name */

enum filter_type {
    FILTER_NULL,
    FILTER_FALSE,
    FILTER_TRUE,
    FILTER_NUMBER,
    FILTER_STRING,
    FILTER_OTHER /* an array, an object, or what cannot be compared: equal to nothing */
};

struct filter_value {
    enum filter_type type;
    /* NUMBER: what is integral and below 2^64 is sign and magnitude, however it was written; the
     * rest is a double. */
    bool whole, negative;
    uint64_t magnitude;
    double real;
    struct slice text; /* STRING: unescaped; NUMBER: as it was written */
};

/* Room to unescape any string or name of a user_metadata of legal size. */
struct filter_scratch {
    char bytes[LIMIT_EVENT_METADATA_BYTES + 1];
};

/* Reads a JSON value. A string is unescaped into scratch if it must be; otherwise the value borrows
 * from raw. */
void filter_value_read(struct slice raw, struct filter_scratch *scratch, struct filter_value *out);
bool filter_value_eq(const struct filter_value *a, const struct filter_value *b);
/* Of a name and a value under it. The value is not OTHER. */
uint64_t filter_value_hash(uint64_t name_hash, const struct filter_value *v);
uint64_t filter_name_hash(struct slice name);

/* ---- names ---- */

/* The text of a member's raw name (a slice inside its quotes). False: it cannot be compared. */
bool filter_name_read(struct slice raw, struct filter_scratch *scratch, struct slice *out);
/* Takes the first token (still with ~0 and ~1) off a pointer, which begins with a slash. */
struct slice filter_pointer_next(struct slice *pointer);
/* Whether a pointer's token is this name. */
bool filter_token_eq(struct slice token, struct slice name);

/* ---- clauses ---- */

/* What is asked of one value: every part that is there must hold. */
struct filter_condition {
    bool bare; /* written as the scalar alone */
    bool has_equals, has_exists, exists;
    struct filter_value equals;
    struct filter_value *in;
    size_t in_count;                  /* 0: not there */
    struct slice prefix;              /* empty: not there */
    struct filter_condition *inverse; /* "not" */
};

struct filter_field {
    struct slice name; /* as filters write it: a name or a pointer */
    bool top;          /* a top-level member: name_hash is of its name */
    uint64_t name_hash;
    struct filter_condition condition;
};

/* One filter object. */
struct filter_clause {
    struct slice *types, *sources;
    size_t types_count, sources_count;
    struct slice subject_prefix; /* empty: not there */
    bool has_endpoint;
    uint32_t endpoint;           /* below LIMIT_ENDPOINTS */
    struct filter_field *fields; /* by name */
    size_t fields_count;
    struct filter_clause *all, *any;
    size_t all_count, any_count;
    struct filter_clause *inverse; /* "not" */
};

struct filter {
    struct filter_memory memory;
    struct filter_clause root;
    struct slice text;
};

/* Calls fn with the hash (filter_value_hash) of each top-level member of user_metadata that a
 * filter can name by value; a name that occurs twice is told twice. */
typedef void filter_hash_fn(void *ctx, uint64_t hash);
void filter_subject_hashes(struct filter_subject *s, filter_hash_fn *fn, void *ctx);

/* Compiles the JSON text into f->root. False: why[size] says where and what; what was allocated in
 * f->memory stays there. */
bool filter_compile_text(struct slice json, struct filter *f, char *why, size_t size);

#endif
