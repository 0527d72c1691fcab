/* filter.h: which events a subscription (or a replay, or a redrive) wants.
 *
 * One JSON form everywhere: HTTP, worker protocol, CLI, the store (docs/filters.md). A filter is an
 * object; every member that is there must hold:
 *
 *   {"types": ["batch.*", "video.generated"],          globs (base/glob.h); one of them
 *    "sources": ["gemini"],                            names; one of them
 *    "subject_prefix": "batches/",
 *    "endpoint": 0,                                    it has endpoints of its own, so many or more
 *    "user_metadata": {"job_group": "nightly-eval",    a scalar: equals it
 *                      "priority": {"in": ["high", "urgent"]},
 *                      "region": {"prefix": "eu-"},
 *                      "owner": {"exists": true},
 *                      "tier": {"not": {"equals": "free"}},
 *                      "/job/kind": "train"},          a name with / in front: JSON Pointer, RFC
 * 6901 "all": [FILTER, ...], "any": [FILTER, ...], "not": FILTER}
 *
 * {} and an empty text want everything. Scalars are strings (compared after unescaping), numbers
 * (by value), true, false, null. A name that is absent equals nothing; `not` of that is true.
 *
 * A filter is immutable. Owner: whoever compiled it, until filter_free. Matching allocates nothing
 * and reads an event's user_metadata at most once per event: that reading is a struct
 * filter_subject, made on the stack for each event and passed to every filter that is asked.
 *
 * May call: base, proto/limits.h and err.h, broker/json, name_ok of engine.h. Pure. */
#ifndef ENGINE_FILTER_H
#define ENGINE_FILTER_H

#include "base/event.h"
#include "proto/err.h"
#include "proto/limits.h"

struct filter;

/* Compiles a JSON text. ERR_OK: *out is the caller's (filter_free); ERR_BAD_FILTER: *out is NULL
 * and why[size] names the place and what is wrong: "filter.user_metadata.priority.in: must be a
 * list of 1 to 64 scalars". */
enum err filter_compile(struct slice json, struct filter **out, char *why, size_t size);
/* Frees; *f becomes NULL; harmless on NULL. */
void filter_free(struct filter **f);
/* The filter as JSON without spaces, members in the order of the page above: two filters that are
 * written the same have the same text. Owned by the filter. "{}" for one that wants everything. */
struct slice filter_text(const struct filter *f);

#define FILTER_SUBJECT_MEMBERS 64 /* top-level members of user_metadata that are noted */

/* An event as filters see it. Borrows the event. */
struct filter_subject {
    const struct event *event;
    uint32_t endpoints; /* how many it has */
    bool parsed;        /* members are noted: done by the first filter that asks for metadata */
    bool overflow;      /* there are more members: the rest is looked for in the text */
    size_t count;
    struct filter_member {
        struct slice name; /* raw, without quotes */
        struct slice raw;  /* the value's JSON text */
        uint64_t hash;     /* of name and value as filters compare them; for the index */
        bool hashed;
    } members[FILTER_SUBJECT_MEMBERS];
};
/* Sets only what must be set: the members are left as they are. */
void filter_subject_init(struct filter_subject *s, const struct event *event);

bool filter_match(const struct filter *f, struct filter_subject *subject);

/* Whether this can stand for a value of user_metadata: a name that is not empty, or, when it begins
 * with a slash, a JSON Pointer. */
bool filter_name_ok(struct slice name);

#define FILTER_VALUE_BYTES_MIN 32 /* of scratch */

/* The scalar under a user_metadata name (or /pointer, filter_name_ok), as bytes that are equal
 * exactly for equal values: for order keys. A string is its text; everything else, and a string
 * longer than scratch_size, which is told by a 64-bit hash, begins with 0xFF, which no text does.
 * False: there is none, or it is an array or an object. `out` borrows from the event or scratch. */
bool filter_subject_value(struct filter_subject *subject, struct slice name, uint8_t *scratch,
                          size_t scratch_size, struct slice *out);

/* ---- the index ----
 *
 * Finds the filters that may match an event without asking each. A filter is entered under one
 * thing that must be so for it to match: a value of user_metadata (equals or in), a subject prefix,
 * literal leading segments of its types, its sources; of these the one that fewest others are
 * entered under at that time (an `any` under one of each of its parts); under its `endpoint`
 * whenever it has one, as few events do. One that names nothing of the kind is asked for every
 * event. What the index offers is a candidate: filter_match decides. An owner is offered at most
 * once per event. */
struct filter_index;
struct filter_index *filter_index_new(void);
void filter_index_free(struct filter_index **x);
/* Enters `owner` under f; remove with the same two. f must stay as long as it is entered. */
void filter_index_add(struct filter_index *x, const struct filter *f, void *owner);
void filter_index_remove(struct filter_index *x, const struct filter *f, void *owner);
/* Calls fn with each owner that may want the event. fn must not change the index. */
typedef void filter_index_fn(void *ctx, void *owner);
void filter_index_candidates(struct filter_index *x, struct filter_subject *subject,
                             filter_index_fn *fn, void *ctx);

#endif
