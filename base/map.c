#include "base/map.h"

#include <stdlib.h>

#include "base/check.h"

void map_init(struct map *m) {
    *m = (struct map){0};
}

void map_free(struct map *m) {
    free(m->slots);
    map_init(m);
}

/* The slot that holds key, or the empty one where it would go. */
static size_t find(const struct map *m, uint64_t key) {
    size_t mask = m->cap - 1;
    size_t i = map_mix(key) & mask;
    while (m->slots[i].value != NULL && m->slots[i].key != key) i = (i + 1) & mask;
    return i;
}

static void grow(struct map *m) {
    struct map bigger = {.cap = m->cap == 0 ? 16 : m->cap * 2, .len = m->len};
    bigger.slots = mem_zalloc(bigger.cap * sizeof(struct map_slot));
    for (size_t i = 0; i < m->cap; i++) {
        if (m->slots[i].value != NULL) bigger.slots[find(&bigger, m->slots[i].key)] = m->slots[i];
    }
    free(m->slots);
    *m = bigger;
}

void *map_get(const struct map *m, uint64_t key) {
    return m->cap == 0 ? NULL : m->slots[find(m, key)].value;
}

void map_add(struct map *m, uint64_t key, void *value) {
    CHECK(value != NULL);
    if (m->len + 1 > m->cap / 4 * 3) grow(m);
    size_t i = find(m, key);
    CHECK(m->slots[i].value == NULL);
    m->slots[i] = (struct map_slot){.key = key, .value = value};
    m->len++;
}

void *map_remove(struct map *m, uint64_t key) {
    if (m->cap == 0) return NULL;
    size_t mask = m->cap - 1;
    size_t hole = find(m, key);
    void *value = m->slots[hole].value;
    if (value == NULL) return NULL;
    /* Backward shift: move each follower whose home is not after the hole into the hole. */
    for (size_t i = (hole + 1) & mask; m->slots[i].value != NULL; i = (i + 1) & mask) {
        size_t home = map_mix(m->slots[i].key) & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole].value = NULL;
    m->len--;
    return value;
}
