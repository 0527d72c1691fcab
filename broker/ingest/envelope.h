/* envelope.h: what a webhook says about itself, picked out of headers and body in one pass without
 * a tree.
 *
 * Where a provider puts its type, subject, id and time is a rule: constant data, one per scheme. A
 * verified event is never refused for what its body says: a field that is absent, of another type,
 * longer than an event may hold or otherwise unusable is empty, and so is every field of a body
 * that is not JSON. The body itself has everything. Of a field that occurs twice the last counts.
 *
 * The slices point into the request, or into the struct where an escape had to be undone or a text
 * was put together: they die with either. May call: http/server.h, json, base. */
#ifndef INGEST_ENVELOPE_H
#define INGEST_ENVELOPE_H

#include "base/slice.h"
#include "broker/http/server.h"
#include "proto/limits.h"

#define ENVELOPE_PATHS 12
#define ENVELOPE_DEPTH 3

enum envelope_field {
    ENVELOPE_TYPE,
    ENVELOPE_TYPE_SUFFIX, /* appended after a dot when it is there and there is a type */
    ENVELOPE_SUBJECT,
    ENVELOPE_SUBJECT_NUMBER, /* appended after a '#' */
    ENVELOPE_TIME,           /* RFC 3339 */
    ENVELOPE_TIME_SECONDS,   /* since 1970, a number */
    ENVELOPE_ID,
    ENVELOPE_METADATA,
};

/* The names of members on the way from the root of the body to a value. */
struct envelope_path {
    enum envelope_field field;
    size_t depth; /* 0: the end of a list */
    struct slice names[ENVELOPE_DEPTH];
};
#define ENVELOPE_NAME(text)                                                                        \
    { .data = (const uint8_t *)(text), .len = sizeof(text) - 1 }
#define ENVELOPE_AT(field, a)                                                                      \
    {                                                                                              \
        ENVELOPE_##field, 1, {                                                                     \
            ENVELOPE_NAME(a)                                                                       \
        }                                                                                          \
    }
#define ENVELOPE_AT2(field, a, b)                                                                  \
    {                                                                                              \
        ENVELOPE_##field, 2, {                                                                     \
            ENVELOPE_NAME(a), ENVELOPE_NAME(b)                                                     \
        }                                                                                          \
    }
#define ENVELOPE_AT3(field, a, b, c)                                                               \
    {                                                                                              \
        ENVELOPE_##field, 3, {                                                                     \
            ENVELOPE_NAME(a), ENVELOPE_NAME(b), ENVELOPE_NAME(c)                                   \
        }                                                                                          \
    }

/* Names of headers: NULL: there is none. */
struct envelope_rule {
    const char *type_header; /* goes before what the body says */
    char type_slash;         /* this byte of the header becomes a dot; 0: none does */
    const char *time_header; /* RFC 3339; goes before what the body says */
    /* Of several for one field the first counts that is there and usable. */
    struct envelope_path paths[ENVELOPE_PATHS + 1];
};

/* type, timestamp, data.id and user_metadata (or data.user_metadata). */
extern const struct envelope_rule envelope_standard;

struct envelope {
    struct slice type;
    struct slice subject; /* a string, or a number as it was written */
    struct slice id;
    struct slice metadata; /* the text of an object */
    uint64_t time_ms;      /* 0: not said */
    char type_text[LIMIT_EVENT_TYPE_BYTES + 1];
    char subject_text[LIMIT_EVENT_SUBJECT_BYTES + 1];
    char id_text[LIMIT_EVENT_ID_BYTES + 1];
};

/* Everything empty. */
void envelope_clear(struct envelope *out);
/* `r` gives the headers and the body. */
void envelope_read(const struct envelope_rule *rule, const struct http_request *r,
                   struct envelope *out);
/* CloudEvents over HTTP, binary (ce- headers) and structured mode: its attributes take the place of
 * what was read, one by one; `id` becomes "source#id", since an id alone is unique within its
 * source only. The id of a header, which no scheme signs, is taken only with `id_header_too`.
 * Harmless for a request that is no CloudEvent. */
void envelope_read_cloudevent(const struct http_request *r, bool id_header_too,
                              struct envelope *out);

#endif
