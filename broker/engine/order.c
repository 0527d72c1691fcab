/* order.c: one event at a time per key, in the order in which they were read.
 *
 * A key's queue holds its outstanding deliveries; the first has the key: it alone may be READY,
 * LEASED or DELAYED, the others are BLOCKED. Keys are known by a 64-bit hash: two keys that share
 * one are ordered with each other, which is harmless. The due cursor's deliveries queue too: a
 * redriven event has lost its place in the order but still goes alone. */
#include <stdlib.h>

#include "base/hash.h"
#include "broker/engine/state.h"

struct order_key {
    uint64_t hash;
    struct list queue; /* of deliveries */
};

static bool key_of(const struct policy *p, const struct event *event, uint64_t *hash) {
    struct slice key = event->subject;
    struct filter_subject subject;
    uint8_t scratch[LIMIT_EVENT_METADATA_BYTES];
    if (p->order_key.len > 0) {
        filter_subject_init(&subject, event);
        if (!filter_subject_value(&subject, p->order_key, scratch, sizeof scratch, &key)) {
            return false;
        }
    }
    *hash = hash_bytes(1, key);
    return key.len > 0;
}

bool order_enter(struct engine *e, struct delivery *d, const struct event *event) {
    (void)e;
    struct subscription *s = d->cursor->sub;
    uint64_t hash;
    if (!s->policy.ordered || !key_of(&s->policy, event, &hash)) return true;
    struct order_key *key = map_get(&s->keys, hash);
    bool first = key == NULL;
    if (first) {
        key = mem_alloc(sizeof *key);
        key->hash = hash;
        list_init(&key->queue);
        map_add(&s->keys, hash, key);
    }
    d->key = key;
    list_push_back(&key->queue, &d->in_key);
    return first;
}

void order_leave(struct engine *e, struct delivery *d) {
    struct subscription *s = d->cursor->sub;
    struct order_key *key = d->key;
    d->key = NULL;
    list_unlink(&d->in_key);
    struct list *n = list_first(&key->queue);
    if (n == NULL) {
        map_remove(&s->keys, key->hash);
        free(key);
        return;
    }
    struct delivery *next = CONTAINER_OF(n, struct delivery, in_key);
    if (next->state != DELIVERY_BLOCKED) return; /* it was not the first that left */
    if (next->not_before_wall_ms <= e->time.wall_ms) {
        delivery_set_state(e, next, DELIVERY_READY, 0);
    } else {
        uint64_t wait_ms = next->not_before_wall_ms - e->time.wall_ms;
        delivery_set_state(e, next, DELIVERY_DELAYED, e->time.now_ms + wait_ms);
    }
}

bool order_first(const struct delivery *d) {
    return d->key->queue.next == &d->in_key;
}
