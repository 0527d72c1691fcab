/* heap.h: an intrusive binary min-heap of deadlines.
 *
 * Elements embed a heap_node; the heap keeps an array of pointers to them and each node knows its
 * index, so that any element leaves in O(log n). Ties are broken by the order of insertion: a run
 * is reproducible. Whoever owns the heap frees the array; nodes belong to their elements.
 * Invariants: nodes[i]->index == i; no child is due before its parent.
 *
 * May call: base/check. */
#ifndef BASE_HEAP_H
#define BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAP_NOT_IN SIZE_MAX

struct heap_node {
    uint64_t at_ms; /* when it is due */
    uint64_t order; /* insertion number: breaks ties */
    size_t index;   /* place in the array, HEAP_NOT_IN outside */
};

struct heap {
    struct heap_node **nodes;
    size_t len, cap;
    uint64_t next_order;
};

static inline void heap_node_init(struct heap_node *n) {
    n->index = HEAP_NOT_IN;
}

static inline bool heap_contains(const struct heap_node *n) {
    return n->index != HEAP_NOT_IN;
}

void heap_init(struct heap *h);
void heap_free(struct heap *h);
/* Puts n, which is in no heap, in with the given due time. */
void heap_insert(struct heap *h, struct heap_node *n, uint64_t at_ms);
/* Takes n out; harmless when it is not in. */
void heap_remove(struct heap *h, struct heap_node *n);
/* The element that is due first, or NULL. It stays in. */
struct heap_node *heap_min(const struct heap *h);
/* Verifies the invariants by CHECK. */
void heap_check(const struct heap *h);

#endif
