/* map.h: a hash map from u64 to pointer.
 *
 * Open addressing with linear probing and backward-shift deletion: no tombstones, so a map that
 * churns forever stays as fast as on its first day. Keys are spread by a fixed 64-bit mixer; keys
 * that a peer can choose (tags) are checked against what was handed out before they get here.
 * Whoever owns the map frees it; it owns neither keys nor values. Values are never NULL.
 * Iteration order is that of the table: deterministic for the same history.
 *
 * May call: base/check. */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map_slot {
    uint64_t key;
    void *value; /* NULL: empty */
};

struct map {
    struct map_slot *slots;
    size_t len, cap; /* cap is 0 or a power of two; len <= cap * 3 / 4 */
};

void map_init(struct map *m);
void map_free(struct map *m);
/* The value of key, or NULL. */
void *map_get(const struct map *m, uint64_t key);
/* Sets key, which must not be there yet. */
void map_add(struct map *m, uint64_t key, void *value);
/* Takes key out and returns its value; NULL when it was not there. */
void *map_remove(struct map *m, uint64_t key);

/* The 64-bit finaliser of MurmurHash3 (public domain, Austin Appleby). */
static inline uint64_t map_mix(uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    x ^= x >> 33;
    return x;
}

#endif
