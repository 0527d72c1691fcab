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

#define ENVELOPE_PATHS 3

/* Paths are dotted names of members, at most three deep; NULL: there is none. Of several the first
 * that is there counts. */
struct envelope_rule {
    const char *type_header; /* goes before what the body says */
    char type_slash;         /* this byte of the header becomes a dot; 0: none does */
    const char *type[ENVELOPE_PATHS];
    const char *type_suffix; /* appended after a dot when it is there and there is a type */
    const char *subject[ENVELOPE_PATHS];
    const char *subject_number[ENVELOPE_PATHS]; /* appended after a '#' */
    const char *time_header;
    const char *time;  /* RFC 3339 */
    bool time_seconds; /* of time: a number of seconds since 1970 instead */
    const char *id;
    const char *metadata[ENVELOPE_PATHS];
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
