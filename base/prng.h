/* prng.h: a small seeded random generator (xoshiro256**, public domain, Blackman and Vigna 2018).
 *
 * For jitter, hashing salt and simulation, never for secrets: those come from OpenSSL. A struct
 * that is passed in; there is no global state, so the same seed replays the same run. */
#ifndef BASE_PRNG_H
#define BASE_PRNG_H

#include <stdint.h>

struct prng {
    uint64_t s[4];
};

void prng_seed(struct prng *p, uint64_t seed);
uint64_t prng_next(struct prng *p);
/* A number in [0, bound), bound > 0. Its bias is below 2^-32 for bounds below 2^32. */
uint64_t prng_below(struct prng *p, uint64_t bound);

#endif
