#include "broker/engine/delivery.h"

#include <stdlib.h>

#include "broker/engine/state.h"

static const bool legal[4][4] = {
    /* from \ to:            NEW    READY  LEASED DELAYED */
    [DELIVERY_NEW] = {false, true, true, true},
    [DELIVERY_READY] = {false, false, true, false},
    [DELIVERY_LEASED] = {false, true, false, true},
    [DELIVERY_DELAYED] = {false, true, false, false},
};

struct delivery *delivery_new(struct cursor *c, uint64_t seq) {
    struct delivery *d = mem_alloc(sizeof *d);
    *d = (struct delivery){.state = DELIVERY_NEW, .cursor = c, .seq = seq};
    list_init(&d->in_ready);
    heap_node_init(&d->timer);
    struct list *last = c->outstanding.prev;
    CHECK(last == &c->outstanding || CONTAINER_OF(last, struct delivery, in_cursor)->seq < seq);
    list_push_back(&c->outstanding, &d->in_cursor);
    c->outstanding_count++;
    return d;
}

static void leave_state(struct engine *e, struct delivery *d) {
    struct subscription *s = d->cursor->sub;
    list_unlink(&d->in_ready);
    heap_remove(&e->deadlines, &d->timer);
    if (d->state == DELIVERY_READY) s->ready_count--;
    if (d->state == DELIVERY_LEASED) s->leased_count--;
    if (d->state == DELIVERY_DELAYED) s->delayed_count--;
}

void delivery_set_state(struct engine *e, struct delivery *d, enum delivery_state to,
                        uint64_t at_ms) {
    CHECK(legal[d->state][to]);
    struct subscription *s = d->cursor->sub;
    leave_state(e, d);
    d->state = to;
    switch (to) {
    case DELIVERY_READY:
        list_push_back(&s->ready, &d->in_ready);
        s->ready_count++;
        subscription_wake(e, s);
        break;
    case DELIVERY_LEASED:
        heap_insert(&e->deadlines, &d->timer, at_ms);
        s->leased_count++;
        break;
    case DELIVERY_DELAYED:
        heap_insert(&e->deadlines, &d->timer, at_ms);
        s->delayed_count++;
        break;
    case DELIVERY_NEW: UNREACHABLE("no edge leads there");
    }
}

void delivery_free(struct engine *e, struct delivery *d) {
    leave_state(e, d);
    if (d->lease != NULL) d->lease->delivery = NULL;
    list_unlink(&d->in_cursor);
    d->cursor->outstanding_count--;
    free(d);
}

static void retry_write(struct engine *e, struct delivery *d, uint64_t due_wall_ms,
                        struct slice error) {
    uint8_t key[KEY_RETRY_BYTES];
    struct slice k = key_retry(key, d->cursor->sub->id, d->cursor->id, d->seq);
    struct record_retry r = {
        .fails = d->fails, .deliveries = d->deliveries, .due_wall_ms = due_wall_ms, .error = error};
    struct batch *b = turn_batch(e);
    batch_add(b, BATCH_PUT, STORE_RETRIES, arena_copy(&b->arena, k),
              record_retry_encode(&b->arena, &r));
    d->has_retry = true;
    /* The row means something only beside a position that lists the event as outstanding. */
    cursor_mark_dirty(e, d->cursor, true);
}

/* Settled, one way or the other: the cursor's position will say so. */
static void finish(struct engine *e, struct delivery *d, bool urgent) {
    struct cursor *c = d->cursor;
    if (d->has_retry) {
        uint8_t key[KEY_RETRY_BYTES];
        batch_delete(turn_batch(e), STORE_RETRIES, key_retry(key, c->sub->id, c->id, d->seq));
        urgent = true;
    }
    delivery_free(e, d);
    cursor_mark_dirty(e, c, urgent);
    subscription_wake(e, c->sub);
    if (c->id != CURSOR_LIVE) replay_check_finished(e, c);
}

void delivery_ack(struct engine *e, struct delivery *d) {
    d->cursor->acked_total++;
    e->totals.acked_total++;
    finish(e, d, false);
}

static void delay(struct engine *e, struct delivery *d, uint64_t delay_ms, struct slice error) {
    retry_write(e, d, e->time.wall_ms + delay_ms, error);
    if (delay_ms == 0) delivery_set_state(e, d, DELIVERY_READY, 0);
    else delivery_set_state(e, d, DELIVERY_DELAYED, e->time.now_ms + delay_ms);
}

void delivery_release(struct engine *e, struct delivery *d, uint64_t delay_ms) {
    if (delay_ms == 0) delivery_set_state(e, d, DELIVERY_READY, 0);
    else delay(e, d, delay_ms, slice_of(NULL, 0));
}

static void bury(struct engine *e, struct delivery *d, const char *reason, struct slice error) {
    struct subscription *s = d->cursor->sub;
    struct record_dead r = {.died_at_ms = e->time.wall_ms,
                            .fails = d->fails,
                            .deliveries = d->deliveries,
                            .reason = slice_str(reason),
                            .error = error};
    bool found = event_read(e, d->seq, &r.event, NULL);
    CHECK(found);
    uint8_t key[KEY_DEAD_BYTES];
    struct batch *b = turn_batch(e);
    batch_add(b, BATCH_PUT, STORE_DEAD,
              arena_copy(&b->arena, key_dead(key, s->id, d->seq, d->cursor->id)),
              record_dead_encode(&b->arena, &r));
    s->dead_total++;
    e->totals.dead_total++;
    /* The dead letter and the settlement are one transaction. */
    finish(e, d, true);
    cursor_mark_dirty(e, &s->live, true); /* dead_total is written there */
}

/* min * factor ^ (fails - 1), at most max, plus up to a tenth: never earlier than the policy says,
 * and a burst that failed together does not come back together. */
static uint64_t backoff_ms(struct engine *e, const struct policy *p, uint32_t fails) {
    double delay = (double)p->backoff_min_ms;
    for (uint32_t i = 1; i < fails && delay < (double)p->backoff_max_ms; i++) {
        delay = delay * p->backoff_factor_permille / 1000.0;
    }
    uint64_t ms = delay < (double)p->backoff_max_ms ? (uint64_t)delay : p->backoff_max_ms;
    return ms + (ms >= 10 ? prng_below(&e->prng, ms / 10 + 1) : 0);
}

void delivery_fail(struct engine *e, struct delivery *d, uint64_t delay_ms, struct slice error) {
    const struct policy *p = &d->cursor->sub->policy;
    d->fails++;
    if (p->max_fails != 0 && d->fails >= p->max_fails) {
        bury(e, d, "max_fails", error);
        return;
    }
    if (delay_ms == DELAY_BY_POLICY) delay_ms = backoff_ms(e, p, d->fails);
    delay(e, d, delay_ms, error);
}

void delivery_reject(struct engine *e, struct delivery *d, struct slice error) {
    bury(e, d, "rejected", error);
}

void delivery_expire(struct engine *e, struct delivery *d) {
    struct lease *l = d->lease;
    l->expired = true;
    e->totals.expired_total++;
    struct effect *f = turn_effect(e, EFFECT_REVOKED, l->attachment->route);
    f->u.revoked.attachment = l->attachment->id;
    f->u.revoked.tag = l->tag;
    if (lease_started(l)) delivery_fail(e, d, DELAY_BY_POLICY, slice_str("lease expired"));
    else delivery_release(e, d, 0);
}
