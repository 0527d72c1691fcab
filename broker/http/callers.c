#include "broker/http/callers.h"

#include <stdlib.h>

#include "base/check.h"

void callers_init(struct callers *c, uint64_t seed) {
    map_init(&c->map);
    c->seed = seed;
}

void callers_free(struct callers *c) {
    CHECK(c->map.len == 0);
    map_free(&c->map);
}

struct caller *callers_enter(struct callers *c, uint64_t group, size_t most) {
    uint64_t key = group ^ c->seed;
    struct caller *caller = map_get(&c->map, key);
    if (caller == NULL) {
        caller = mem_alloc(sizeof *caller);
        *caller = (struct caller){.key = key};
        map_add(&c->map, key, caller);
    }
    if (caller->open >= most) return NULL;
    caller->open++;
    return caller;
}

void callers_leave(struct callers *c, struct caller *caller) {
    if (caller == NULL || --caller->open > 0) return;
    CHECK(map_remove(&c->map, caller->key) == caller);
    free(caller);
}
