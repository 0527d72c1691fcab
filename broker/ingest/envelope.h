/* envelope.h: what a webhook's body says about itself, picked out in one pass without a tree.
 *
 * From a JSON object: `type`, `timestamp`, `data.id` and `user_metadata` (or `data.user_metadata`).
 * A verified event is never refused for what its body says: a field that is absent, of another
 * type, longer than an event may hold or otherwise unusable is empty, and so is every field of a
 * body that is not JSON. The body itself has everything. Of a field that occurs twice the last
 * counts.
 *
 * The slices point into the body, or into the struct where an escape had to be undone: they die
 * with either. May call: json, base. */
#ifndef INGEST_ENVELOPE_H
#define INGEST_ENVELOPE_H

#include "base/slice.h"
#include "proto/limits.h"

struct envelope {
    struct slice type;
    struct slice subject;  /* data.id: a string, or a number as it was written */
    struct slice metadata; /* the text of an object */
    uint64_t time_ms;      /* 0: not said */
    char type_text[LIMIT_EVENT_TYPE_BYTES + 1];
    char subject_text[LIMIT_EVENT_SUBJECT_BYTES + 1];
};

void envelope_read(struct slice body, struct envelope *out);

#endif
