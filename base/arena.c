#include "base/arena.h"

#include <stdlib.h>

#include "base/check.h"

#define ARENA_CHUNK_BYTES (64 * 1024) /* about 200 small events: a usual turn */

struct arena_chunk {
    struct arena_chunk *next;
    size_t size, used;
    uint8_t bytes[];
};

void arena_init(struct arena *a) {
    *a = (struct arena){0};
}

void arena_free(struct arena *a) {
    for (struct arena_chunk *c = a->first, *next; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    arena_init(a);
}

void arena_reset(struct arena *a) {
    struct arena_chunk *first = a->first;
    if (first == NULL) return;
    if (first->size > ARENA_CHUNK_BYTES) {
        arena_free(a); /* one large request must not hold its memory for ever */
        return;
    }
    for (struct arena_chunk *c = first->next, *next; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    first->next = NULL;
    first->used = 0;
    a->current = first;
    a->used_bytes = 0;
}

void *arena_alloc(struct arena *a, size_t len) {
    CHECK(len <= SIZE_MAX / 2);
    len = (len + 7) & ~(size_t)7;
    struct arena_chunk *c = a->current;
    if (c == NULL || c->size - c->used < len) {
        size_t size = len > ARENA_CHUNK_BYTES ? len : ARENA_CHUNK_BYTES;
        struct arena_chunk *fresh = mem_alloc(sizeof *fresh + size);
        *fresh = (struct arena_chunk){.size = size};
        if (c == NULL) a->first = fresh;
        else c->next = fresh;
        a->current = c = fresh;
    }
    void *at = c->bytes + c->used;
    c->used += len;
    a->used_bytes += len;
    return at;
}

struct slice arena_copy(struct arena *a, struct slice s) {
    if (s.len == 0) return slice_of(NULL, 0);
    return slice_of(memcpy(arena_alloc(a, s.len), s.data, s.len), s.len);
}
