#include "base/heap.h"

#include <stdlib.h>

#include "base/check.h"

static bool before(const struct heap_node *a, const struct heap_node *b) {
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void place(struct heap *h, size_t i, struct heap_node *n) {
    h->nodes[i] = n;
    n->index = i;
}

static void sift_up(struct heap *h, size_t i, struct heap_node *n) {
    while (i > 0 && before(n, h->nodes[(i - 1) / 2])) {
        place(h, i, h->nodes[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(h, i, n);
}

static void sift_down(struct heap *h, size_t i, struct heap_node *n) {
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->len) break;
        if (child + 1 < h->len && before(h->nodes[child + 1], h->nodes[child])) child++;
        if (!before(h->nodes[child], n)) break;
        place(h, i, h->nodes[child]);
        i = child;
    }
    place(h, i, n);
}

void heap_init(struct heap *h) {
    *h = (struct heap){0};
}

void heap_free(struct heap *h) {
    free(h->nodes);
    heap_init(h);
}

void heap_insert(struct heap *h, struct heap_node *n, uint64_t at_ms) {
    CHECK(!heap_contains(n));
    if (h->len == h->cap) {
        h->cap = h->cap == 0 ? 16 : h->cap * 2;
        h->nodes = mem_realloc(h->nodes, h->cap * sizeof(struct heap_node *));
    }
    n->at_ms = at_ms;
    n->order = h->next_order++;
    h->len++;
    sift_up(h, h->len - 1, n);
}

void heap_remove(struct heap *h, struct heap_node *n) {
    if (!heap_contains(n)) return;
    size_t i = n->index;
    CHECK(i < h->len && h->nodes[i] == n);
    struct heap_node *last = h->nodes[--h->len];
    n->index = HEAP_NOT_IN;
    if (last == n) return;
    if (i > 0 && before(last, h->nodes[(i - 1) / 2])) sift_up(h, i, last);
    else sift_down(h, i, last);
}

struct heap_node *heap_min(const struct heap *h) {
    return h->len == 0 ? NULL : h->nodes[0];
}

void heap_check(const struct heap *h) {
    for (size_t i = 0; i < h->len; i++) {
        CHECK(h->nodes[i]->index == i);
        CHECK(i == 0 || !before(h->nodes[i], h->nodes[(i - 1) / 2]));
    }
}
