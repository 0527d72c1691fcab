/* Requests that wait for events. Each turn that made events durable lets every held request look at
 * what is new; the turn's share of work is bounded, and what did not get its look in this turn gets
 * it in the next, which is asked for at once. A held request ends in an answer with events, in an
 * empty one when its time is over or the broker stops, or with its client. */
#include <stdlib.h>

#include "broker/admin/access.h"
#include "broker/admin/events.h"

#define HELD_MAX       10000
#define TURN_POSITIONS 20000 /* journal positions looked at per turn, by all of them */
#define LOOK_POSITIONS 1000  /* by one of them */

struct held {
    struct list link;
    struct heap_node due;
    uint64_t handle;
    uint64_t key; /* number of the request's; 0: it had none */
    struct events_query query;
};

void waiting_init(struct waiting *w) {
    list_init(&w->held);
    map_init(&w->by_handle);
    heap_init(&w->due);
}

static void held_unlink(struct waiting *w, struct held *h) {
    list_unlink(&h->link);
    heap_remove(&w->due, &h->due);
    map_remove(&w->by_handle, h->handle);
}

static void held_free(struct waiting *w, struct held *h) {
    held_unlink(w, h);
    free(h);
}

void waiting_free(struct waiting *w) {
    LIST_FOR(n, next, &w->held) {
        held_free(w, CONTAINER_OF(n, struct held, link));
    }
    map_free(&w->by_handle);
    heap_free(&w->due);
}

bool waiting_hold(struct admin *a, uint64_t handle, const struct events_query *q) {
    struct waiting *w = &a->waiting;
    if (w->by_handle.len >= HELD_MAX) return false;
    struct held *h = mem_alloc(sizeof *h);
    h->handle = handle;
    h->key = access_key_number(a);
    h->query = *q;
    heap_node_init(&h->due);
    heap_insert(&w->due, &h->due, loop_now_ms(a->options.loop) + q->wait_ms);
    map_add(&w->by_handle, handle, h);
    list_push_back(&w->held, &h->link);
    return true;
}

void waiting_forget(struct waiting *w, uint64_t handle) {
    struct held *h = map_get(&w->by_handle, handle);
    if (h != NULL) held_free(w, h);
}

void waiting_on_key_ended(struct admin *a, uint64_t number) {
    LIST_FOR(n, next, &a->waiting.held) {
        struct held *h = CONTAINER_OF(n, struct held, link);
        if (h->key != number) continue;
        uint64_t handle = h->handle;
        held_free(&a->waiting, h);
        access_refuse_held(a, handle, number);
    }
}

/* Answers with what is in a->out and ends the wait. */
static void answer(struct admin *a, struct held *h) {
    held_unlink(&a->waiting,
                h); /* so that a client that goes at this moment is not ours any more */
    events_page_send(a, h->handle, &h->query);
    free(h);
}

static void answer_empty(struct admin *a, struct held *h) {
    uint32_t none = 0;
    events_page(a, &h->query, &none);
    answer(a, h);
}

void waiting_give_up(struct admin *a, uint64_t handle) {
    struct held *h = map_get(&a->waiting.by_handle, handle);
    if (h != NULL) answer_empty(a, h);
}

/* Lets held requests look at what is new; those that did go to the back of the queue. Returns
 * whether all of them are up to date. */
static bool look(struct admin *a, uint64_t last_seq) {
    struct waiting *w = &a->waiting;
    uint32_t budget = TURN_POSITIONS;
    bool done = true;
    size_t count = w->by_handle.len;
    for (size_t i = 0; i < count && budget > 0; i++) {
        struct held *h = CONTAINER_OF(list_first(&w->held), struct held, link);
        uint32_t share = budget < LOOK_POSITIONS ? budget : LOOK_POSITIONS, left = share;
        list_unlink(&h->link);
        list_push_back(&w->held, &h->link);
        if (h->query.next > last_seq) continue;
        size_t found = events_page(a, &h->query, &left);
        budget -= share - left;
        if (found > 0) answer(a, h);
        else if (h->query.next <= last_seq) done = false;
    }
    return done && budget > 0;
}

uint64_t admin_on_turn(struct admin *a, uint64_t now_ms) {
    struct waiting *w = &a->waiting;
    if (list_empty(&w->held)) return UINT64_MAX;
    struct engine_stats stats;
    engine_stats(a->options.engine, &stats);
    bool behind = stats.last_seq > w->seen_seq && !look(a, stats.last_seq);
    if (!behind) w->seen_seq = stats.last_seq;
    struct heap_node *first;
    while ((first = heap_min(&w->due)) != NULL && first->at_ms <= now_ms) {
        answer_empty(a, CONTAINER_OF(first, struct held, due));
    }
    if (first == NULL) return UINT64_MAX;
    return behind ? now_ms : first->at_ms;
}

void admin_drain(struct admin *a) {
    a->waiting.draining = true;
    struct list *first;
    while ((first = list_first(&a->waiting.held)) != NULL) {
        answer_empty(a, CONTAINER_OF(first, struct held, link));
    }
}
