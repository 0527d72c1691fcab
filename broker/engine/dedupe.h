/* dedupe.h: which ids were taken in lately.
 *
 * A compact table from a 64-bit fingerprint of (source, id) to the seq of its event: eight bytes a
 * slot, at most three quarters full. A hit is only a candidate: the caller compares with the
 * stored event. Two generations: when the current one is full or old it becomes the previous one
 * and the one before is dropped, so an id is remembered for at least one whole generation. Rebuilt
 * at start from the id log, which holds the fingerprints in order of seq.
 *
 * Owned by the engine. Pure. May call: base. */
#ifndef ENGINE_DEDUPE_H
#define ENGINE_DEDUPE_H

#include "base/event.h"

struct dedupe_generation {
    struct dedupe_slot *slots; /* cap of them, a power of two, or NULL */
    size_t cap, len;
    uint64_t base_seq;   /* slots hold seq - base_seq */
    uint64_t started_ms; /* wall time of its first id */
};

struct dedupe {
    struct dedupe_generation current, previous;
    size_t ids_max;  /* of a generation */
    uint64_t age_ms; /* of a generation */
};

void dedupe_init(struct dedupe *d, size_t ids_max, uint64_t age_ms);
void dedupe_free(struct dedupe *d);
/* The fingerprint of an event's source and id; never 0, which means "no id". */
uint64_t dedupe_fingerprint(const struct event *e);
/* Remembers it; seqs rise from call to call. */
void dedupe_add(struct dedupe *d, uint64_t fingerprint, uint64_t seq, uint64_t wall_ms);
/* Asks `same` for each candidate seq until it says yes; returns that seq, or 0. */
typedef bool dedupe_same_fn(void *ctx, uint64_t seq);
uint64_t dedupe_find(const struct dedupe *d, uint64_t fingerprint, dedupe_same_fn *same, void *ctx);
/* Everything before this seq is forgotten: its rows of the id log may go. */
uint64_t dedupe_oldest_seq(const struct dedupe *d);

#endif
