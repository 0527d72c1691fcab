#include "broker/engine/dedupe.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/hash.h"

#define DEDUPE_SEED      0x62656c6c686f70ULL /* "bellhop": stored fingerprints depend on it */
#define DEDUPE_FIRST_CAP 1024

struct dedupe_slot {
    uint32_t tag;      /* upper half of the fingerprint; its mix picks the slot */
    uint32_t distance; /* seq - base_seq + 1; 0: empty */
};

void dedupe_init(struct dedupe *d, size_t ids_max, uint64_t age_ms) {
    *d = (struct dedupe){.ids_max = ids_max, .age_ms = age_ms};
}

static void generation_free(struct dedupe_generation *g) {
    free(g->slots);
    *g = (struct dedupe_generation){0};
}

void dedupe_free(struct dedupe *d) {
    generation_free(&d->current);
    generation_free(&d->previous);
}

uint64_t dedupe_fingerprint(const struct event *e) {
    uint64_t h = hash_bytes(DEDUPE_SEED ^ e->project, e->source);
    h = hash_bytes(h, e->id);
    return h == 0 ? 1 : h;
}

static void put(struct dedupe_slot *slots, size_t cap, uint64_t home, struct dedupe_slot slot) {
    size_t i = home & (cap - 1);
    while (slots[i].distance != 0) i = (i + 1) & (cap - 1);
    slots[i] = slot;
}

/* The home is computed from the 32 bits that a slot keeps, so that a table can be doubled without
 * the fingerprints. A million ids share 2^32 tags: a false candidate is one in thousands. */
static uint64_t home_of(uint32_t tag) {
    return map_mix(tag);
}

static void grow(struct dedupe_generation *g) {
    size_t cap = g->cap == 0 ? DEDUPE_FIRST_CAP : g->cap * 2;
    struct dedupe_slot *slots = mem_zalloc(cap * sizeof *slots);
    for (size_t i = 0; i < g->cap; i++) {
        if (g->slots[i].distance != 0) put(slots, cap, home_of(g->slots[i].tag), g->slots[i]);
    }
    free(g->slots);
    g->slots = slots;
    g->cap = cap;
}

void dedupe_add(struct dedupe *d, uint64_t fingerprint, uint64_t seq, uint64_t wall_ms) {
    struct dedupe_generation *g = &d->current;
    bool old = g->len > 0 && wall_ms > g->started_ms && wall_ms - g->started_ms >= d->age_ms;
    bool far = g->len > 0 && seq - g->base_seq >= UINT32_MAX - 1;
    if (g->len >= d->ids_max || old || far) {
        generation_free(&d->previous);
        d->previous = *g;
        *g = (struct dedupe_generation){0};
    }
    if (g->len == 0) {
        g->base_seq = seq;
        g->started_ms = wall_ms;
    }
    if (g->len + 1 > g->cap / 4 * 3) grow(g);
    uint32_t tag = (uint32_t)(fingerprint >> 32);
    put(g->slots, g->cap, home_of(tag),
        (struct dedupe_slot){.tag = tag, .distance = (uint32_t)(seq - g->base_seq + 1)});
    g->len++;
}

static uint64_t find_in(const struct dedupe_generation *g, uint32_t tag, dedupe_same_fn *same,
                        void *ctx) {
    if (g->cap == 0) return 0;
    for (size_t i = home_of(tag) & (g->cap - 1); g->slots[i].distance != 0;
         i = (i + 1) & (g->cap - 1)) {
        if (g->slots[i].tag != tag) continue;
        uint64_t seq = g->base_seq + g->slots[i].distance - 1;
        if (same(ctx, seq)) return seq;
    }
    return 0;
}

uint64_t dedupe_find(const struct dedupe *d, uint64_t fingerprint, dedupe_same_fn *same,
                     void *ctx) {
    uint32_t tag = (uint32_t)(fingerprint >> 32);
    uint64_t seq = find_in(&d->current, tag, same, ctx);
    return seq != 0 ? seq : find_in(&d->previous, tag, same, ctx);
}

uint64_t dedupe_oldest_seq(const struct dedupe *d) {
    if (d->previous.len > 0) return d->previous.base_seq;
    return d->current.base_seq;
}
