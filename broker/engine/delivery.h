/* delivery.h: one event between hand-out and settlement, and the leases on it.
 *
 *                          hand-out
 *   journal --match--> READY -----> LEASED --ack----------------------------> (settled)
 *      |    \          ^ ^ ^         |  |
 *      |     \ key     | | | release,|  | fail, expiry or lost worker of a started event
 *      |      \ busy   | | +unstarted+  v
 *      |       BLOCKED-+ +----due--- DELAYED       fails = max_fails, or reject --> (dead letter)
 *      |     key free                  |
 *      +-- deliver_at --> on disk <----+ a long delay           too old, at any hand-out --^
 *                         (due.c)
 *
 * delivery_set_state is the only function that changes the state; the legal edges are a table in
 * delivery.c. A delivery is owned by its cursor and dies when it is settled, dead or parked on
 * disk.
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
struct order_key;

/* What is in the engine's heap of deadlines. */
enum deadline_kind {
    DEADLINE_DELIVERY,     /* LEASED: notice, then expiry; DELAYED: due */
    DEADLINE_SUBSCRIPTION, /* a row on disk is due, or a rate allows the next hand-out */
    DEADLINE_ATTACHMENT,   /* a kept one's grace is over */
    DEADLINE_TASK,         /* its rate allows more */
};
struct deadline {
    struct heap_node node;
    enum deadline_kind kind;
};

enum delivery_state {
    DELIVERY_NEW,
    DELIVERY_READY,
    DELIVERY_LEASED,
    DELIVERY_DELAYED,
    DELIVERY_BLOCKED, /* waits until its key is free */
};

struct lease {
    uint64_t tag;
    struct attachment *attachment;
    struct delivery *delivery; /* NULL: settled, dead or handed out anew: stale */
    size_t bytes;              /* counted in the attachment's window */
    uint64_t since_ms;         /* handed out; max_hold counts from here */
    uint64_t expires_ms;
    uint64_t
        notice_ms; /* when the worker is told that the end is near; 0: it was, or need not be */
    bool again;    /* was not fresh from a cursor: for the fair share of the window */
    bool expired;
    struct list in_attachment; /* by rising tag */
};

struct delivery {
    enum delivery_state state;
    bool has_retry; /* a row of STORE_RETRIES exists */
    bool unclaimed; /* DELAYED since a restart: a worker may still hold it */
    bool redrive;   /* came back from the dead letters */
    struct cursor *cursor;
    uint64_t seq;
    uint32_t fails, deliveries;
    uint32_t row_cursor;      /* of the due cursor's: the key of its row, with seq */
    uint64_t row_due_wall_ms; /* likewise */
    struct lease *lease; /* LEASED: the live one; else an expired one that may still ack, or NULL */
    uint64_t avoid;      /* attachment that must not have it, until avoid_until_ms; 0: none */
    uint64_t avoid_until_ms;
    uint64_t not_before_wall_ms; /* deliver_at of one that waits for its key */
    struct order_key *key;       /* of an ordered subscription's: the key's queue, or NULL */
    struct list in_key;
    struct list in_cursor; /* the cursor's outstanding, by rising seq (due: by arrival) */
    struct list in_ready;  /* the subscription's ready list, when READY */
    struct deadline timer;
};

/* A new delivery at the end of the cursor's outstanding, in no state yet: the caller places it. */
struct delivery *delivery_new(struct cursor *c, uint64_t seq);
/* Moves it along a legal edge. at_ms: when a LEASED one expires or a DELAYED one is due. */
void delivery_set_state(struct engine *e, struct delivery *d, enum delivery_state to,
                        uint64_t at_ms);
/* Its timer fired: notice or expiry of a lease, or it is due. */
void delivery_timer(struct engine *e, struct delivery *d);
/* Takes it out of every list and frees it; its lease, if any, becomes stale; the next one of its
 * key may go. For settled, dead, parked and forgotten ones. */
void delivery_free(struct engine *e, struct delivery *d);
/* Its event, from the journal or its row on disk; `own` as in event_read. */
void delivery_event(struct engine *e, const struct delivery *d, struct event *out, bool *own);

/* The ways out of LEASED (and, for a late ack or reject, out of the others). After ack and reject
 * the delivery is gone, after fail and release it may be. */
void delivery_ack(struct engine *e, struct delivery *d);
/* Back without a fail, at once or after delay_ms. */
void delivery_release(struct engine *e, struct delivery *d, uint64_t delay_ms);
/* Back without a fail at once, but not to this attachment for delay_ms. */
void delivery_elsewhere(struct engine *e, struct delivery *d, uint64_t attachment,
                        uint64_t delay_ms);
/* One fail more: DELAYED by the policy or delay_ms, or a dead letter at max_fails or when it would
 * be too old by then. */
void delivery_fail(struct engine *e, struct delivery *d, uint64_t delay_ms,
                   const struct failure *failure);
/* A dead letter now. `reason` is static: "rejected", "expired", "max_fails". */
void delivery_bury(struct engine *e, struct delivery *d, const char *reason,
                   const struct failure *failure);
/* What was told of its last failure, as far as that is on disk; lives until store_end_reads. */
struct failure delivery_last_failure(struct engine *e, const struct delivery *d);
/* Forgets it without settling it anywhere else: a seek, or the end of a task. */
void delivery_forget(struct engine *e, struct delivery *d);
/* In after_ms its age will pass the policy's max_age_ms: counted from when it was received, or due,
 * or its subscription was resumed. What an operator asked for again, by a replay or redrive, is
 * wanted however old it is. */
bool delivery_too_old(const struct engine *e, const struct delivery *d, const struct event *event,
                      uint64_t after_ms);

#endif
