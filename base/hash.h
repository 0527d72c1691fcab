/* hash.h: a 64-bit hash of bytes, stable over builds and machines (it is stored on disk).
 *
 * Eight bytes at a time through map_mix. Not for secrets; whoever can choose inputs can make
 * collisions, so a hit is always compared with the real bytes. Pure. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/map.h"
#include "base/slice.h"

static inline uint64_t hash_bytes(uint64_t seed, struct slice s) {
    uint64_t h = map_mix(seed ^ (s.len * 0x9e3779b97f4a7c15ULL));
    size_t i = 0;
    for (; i + 8 <= s.len; i += 8) {
        uint64_t word = 0;
        for (int k = 7; k >= 0; k--) word = word << 8 | s.data[i + (size_t)k];
        h = map_mix(h ^ word);
    }
    uint64_t tail = 0;
    for (size_t k = s.len; k > i; k--) tail = tail << 8 | s.data[k - 1];
    return map_mix(h ^ tail);
}

#endif
