/* arena.h: memory that dies all at once.
 *
 * A list of chunks that only grows; pointers stay valid until arena_reset or arena_free. The owner
 * of the arena owns everything in it. arena_reset keeps the first chunk (unless it was made for one
 * large request), so that a turn of usual size allocates nothing. Alignment is 8. May call:
 * base/check. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/slice.h"

struct arena_chunk;

struct arena {
    struct arena_chunk *first, *current;
    size_t used_bytes; /* handed out since the last reset */
};

void arena_init(struct arena *a);
void arena_free(struct arena *a);
/* Forgets everything that was handed out. */
void arena_reset(struct arena *a);
/* len bytes, not zeroed. */
void *arena_alloc(struct arena *a, size_t len);
/* A copy of s that lives as long as the arena. */
struct slice arena_copy(struct arena *a, struct slice s);

#endif
