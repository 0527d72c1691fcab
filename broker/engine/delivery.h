/* delivery.h: one event between hand-out and settlement, and the leases on it.
 *
 *                          hand-out
 *   journal --match--> READY -----> LEASED --ack----------------------------> (settled)
 *                       ^  ^         |  |
 *                       |  | release,|  | fail, expiry or lost worker of a started event
 *                       |  +unstarted+  v
 *                       +-----due---- DELAYED       fails = max_fails, or reject --> (dead letter)
 *
 * delivery_set_state is the only function that changes the state; the legal edges are a table in
 * delivery.c. A delivery is owned by its cursor and dies when it is settled or dead.
 *
 * A lease is a hand-out: it belongs to an attachment under a tag and lives until the worker
 * settles that tag or goes. When its time runs out it stays there, marked expired, so that it keeps
 * its place in the window; it points at the delivery as long as nobody else has it (a late ack is
 * then honoured), else at NULL. */
#ifndef ENGINE_DELIVERY_H
#define ENGINE_DELIVERY_H

#include "base/heap.h"
#include "base/list.h"
#include "broker/engine/engine.h"

struct attachment;
struct cursor;
struct subscription;

enum delivery_state { DELIVERY_NEW, DELIVERY_READY, DELIVERY_LEASED, DELIVERY_DELAYED };

struct lease {
    uint64_t tag;
    struct attachment *attachment;
    struct delivery *delivery; /* NULL: settled, dead or handed out anew: stale */
    size_t bytes;              /* counted in the attachment's window */
    bool expired;
    struct list in_attachment; /* by rising tag */
};

struct delivery {
    enum delivery_state state;
    struct cursor *cursor;
    uint64_t seq;
    uint32_t fails, deliveries;
    bool has_retry;      /* a row of STORE_RETRIES exists */
    struct lease *lease; /* LEASED: the live one; else an expired one that may still ack, or NULL */
    struct list in_cursor;  /* the cursor's outstanding, by rising seq */
    struct list in_ready;   /* the subscription's ready list, when READY */
    struct heap_node timer; /* LEASED: expiry; DELAYED: due */
};

/* A new delivery at the end of the cursor's outstanding, in no state yet: the caller puts it READY
 * or leases it at once. */
struct delivery *delivery_new(struct cursor *c, uint64_t seq);
/* Moves it along a legal edge. at_ms: when a LEASED one expires or a DELAYED one is due. */
void delivery_set_state(struct engine *e, struct delivery *d, enum delivery_state to,
                        uint64_t at_ms);
/* Takes it out of every list and frees it; its lease, if any, becomes stale. For settled, dead
 * and deleted ones. */
void delivery_free(struct engine *e, struct delivery *d);

/* The ways out of LEASED (and, for a late ack or reject, out of READY and DELAYED). After ack and
 * reject the delivery is gone, after fail it may be. */
void delivery_ack(struct engine *e, struct delivery *d);
/* Back without a fail, at once or after delay_ms. */
void delivery_release(struct engine *e, struct delivery *d, uint64_t delay_ms);
/* One fail more: DELAYED by the policy or delay_ms, or a dead letter at max_fails. */
void delivery_fail(struct engine *e, struct delivery *d, uint64_t delay_ms, struct slice error);
void delivery_reject(struct engine *e, struct delivery *d, struct slice error);
/* Its lease has run out. */
void delivery_expire(struct engine *e, struct delivery *d);

#endif
