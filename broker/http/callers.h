/* callers.h: how many connections each caller has (net/peer.h says who counts as one).
 *
 * Owned by a server. An entry lives while its caller has a connection, so there are never more
 * entries than connections. The keys are hidden behind a secret number: a caller who has many IPv6
 * networks to choose from cannot make them collide. May call: base. */
#ifndef HTTP_CALLERS_H
#define HTTP_CALLERS_H

#include "base/map.h"

struct caller {
    uint64_t key;
    size_t open;
};

struct callers {
    struct map map;
    uint64_t seed;
};

void callers_init(struct callers *c, uint64_t seed);
/* Every caller has left. */
void callers_free(struct callers *c);
/* Counts one more connection of the group. NULL: it has `most` already, and nothing is counted. */
struct caller *callers_enter(struct callers *c, uint64_t group, size_t most);
/* Harmless on NULL. */
void callers_leave(struct callers *c, struct caller *caller);

#endif
