#include "broker/engine/delivery.h"

#include <stdlib.h>

#include "broker/engine/state.h"

static const bool legal[5][5] = {
    /* from \ to:            NEW    READY  LEASED DELAYED BLOCKED */
    [DELIVERY_NEW] = {false, true, true, true, true},
    [DELIVERY_READY] = {false, false, true, true, false},
    [DELIVERY_LEASED] = {false, true, false, true, false},
    [DELIVERY_DELAYED] = {false, true, true, false, false},
    [DELIVERY_BLOCKED] = {false, true, false, true, false},
};

struct delivery *delivery_new(struct cursor *c, uint64_t seq) {
    struct delivery *d = mem_alloc(sizeof *d);
    *d = (struct delivery){.state = DELIVERY_NEW, .cursor = c, .seq = seq};
    list_init(&d->in_ready);
    list_init(&d->in_key);
    d->timer.kind = DEADLINE_DELIVERY;
    heap_node_init(&d->timer.node);
    struct list *last = c->outstanding.prev;
    CHECK(c->id == CURSOR_DUE || last == &c->outstanding ||
          CONTAINER_OF(last, struct delivery, in_cursor)->seq < seq);
    list_push_back(&c->outstanding, &d->in_cursor);
    c->outstanding_count++;
    return d;
}

static void leave_state(struct engine *e, struct delivery *d) {
    struct subscription *s = d->cursor->sub;
    list_unlink(&d->in_ready);
    heap_remove(&e->deadlines, &d->timer.node);
    if (d->state == DELIVERY_READY) s->ready_count--;
    if (d->state == DELIVERY_LEASED) s->leased_count--;
    if (d->state == DELIVERY_DELAYED) s->delayed_count--;
    if (d->state == DELIVERY_BLOCKED) s->blocked_count--;
    d->unclaimed = false;
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
        heap_insert(&e->deadlines, &d->timer.node, at_ms);
        s->leased_count++;
        break;
    case DELIVERY_DELAYED:
        heap_insert(&e->deadlines, &d->timer.node, at_ms);
        s->delayed_count++;
        break;
    case DELIVERY_BLOCKED: s->blocked_count++; break;
    case DELIVERY_NEW: UNREACHABLE("no edge leads there");
    }
}

void delivery_free(struct engine *e, struct delivery *d) {
    struct subscription *s = d->cursor->sub;
    leave_state(e, d);
    if (d->cursor == &s->due) due_untake(s, d);
    if (d->lease != NULL) d->lease->delivery = NULL;
    if (d->key != NULL) order_leave(e, d);
    list_unlink(&d->in_cursor);
    d->cursor->outstanding_count--;
    free(d);
}

void delivery_event(struct engine *e, const struct delivery *d, struct event *out, bool *own) {
    const struct subscription *s = d->cursor->sub;
    if (d->cursor != &s->due) {
        bool found = event_read(e, d->seq, out, own);
        CHECK(found); /* retention leaves what is outstanding */
        /* A position does not say whose it is: no other's may get this out. */
        if (out->project != s->project->id) store_damaged("outstanding event", d->seq);
        return;
    }
    uint8_t key[KEY_DUE_BYTES];
    struct slice value;
    struct record_due row;
    bool found = store_get(e->store, STORE_DUE, due_key(key, d), &value);
    CHECK(found); /* only durable rows are taken, and they go with their delivery */
    due_decode(s, d->seq, value, &row);
    *out = row.event;
    if (own != NULL) *own = false;
}

static void retry_write(struct engine *e, struct delivery *d, uint64_t due_wall_ms,
                        const struct failure *failure) {
    uint8_t key[KEY_RETRY_BYTES];
    struct slice k = key_retry(key, d->cursor->sub->id, d->cursor->id, d->seq);
    struct record_retry r = {.fails = d->fails,
                             .deliveries = d->deliveries,
                             .due_wall_ms = due_wall_ms,
                             .failure = {failure->type, failure->message, failure->detail}};
    struct batch *b = turn_batch(e);
    batch_add(b, BATCH_PUT, STORE_RETRIES, arena_copy(&b->arena, k),
              record_retry_encode(&b->arena, &r));
    d->has_retry = true;
    /* The row means something only beside a position that lists the event as outstanding. */
    cursor_mark_dirty(e, d->cursor, true);
}

/* Takes it out of memory and its rows off the disk: the cursor's position will say so. */
static void finish(struct engine *e, struct delivery *d, bool urgent) {
    struct cursor *c = d->cursor;
    struct subscription *s = c->sub;
    uint64_t seq = d->seq;
    if (c == &s->due) {
        due_delete(e, d);
        delivery_free(e, d);
        subscription_wake(e, s);
        return;
    }
    if (d->has_retry) {
        uint8_t key[KEY_RETRY_BYTES];
        batch_delete(turn_batch(e), STORE_RETRIES, key_retry(key, s->id, c->id, seq));
        urgent = true;
    }
    delivery_free(e, d);
    /* When the record itself goes, no older position may ask for it again. */
    if (seq <= e->trimmed_to) urgent = true;
    cursor_mark_dirty(e, c, urgent);
    retention_release(e, seq);
    subscription_wake(e, s);
    if (c->id != CURSOR_LIVE) replay_check_finished(e, c);
}

/* Whose totals a delivery counts in: what waited on disk counts as the live cursor's. */
static struct cursor *counted(const struct delivery *d) {
    struct subscription *s = d->cursor->sub;
    return d->cursor == &s->due ? &s->live : d->cursor;
}

void delivery_ack(struct engine *e, struct delivery *d) {
    counted(d)->acked_total++;
    TOTALS_ADD(e, d->cursor->sub->project, acked, 1);
    meter_add(&d->cursor->sub->out, e->time.now_ms);
    finish(e, d, false);
}

void delivery_forget(struct engine *e, struct delivery *d) {
    finish(e, d, true);
}

/* An ordered one stays in memory, since it holds its key; so does one whose lease has run out with
 * a worker that may still ack it. */
static void delay(struct engine *e, struct delivery *d, uint64_t delay_ms,
                  const struct failure *failure) {
    struct subscription *s = d->cursor->sub;
    bool on_disk = d->cursor == &s->due, may_park = !s->policy.ordered && d->lease == NULL;
    if (may_park && (delay_ms >= PARK_MS || (on_disk && delay_ms > 0))) {
        due_park(e, d, e->time.wall_ms + delay_ms, failure);
        return;
    }
    if (on_disk) due_rewrite(e, d, failure);
    else retry_write(e, d, e->time.wall_ms + delay_ms, failure);
    if (delay_ms == 0) delivery_set_state(e, d, DELIVERY_READY, 0);
    else delivery_set_state(e, d, DELIVERY_DELAYED, e->time.now_ms + delay_ms);
}

struct failure delivery_last_failure(struct engine *e, const struct delivery *d) {
    const struct subscription *s = d->cursor->sub;
    struct record_failure f = {{NULL, 0}, {NULL, 0}, {NULL, 0}};
    struct slice value;
    if (d->cursor == &s->due) {
        uint8_t key[KEY_DUE_BYTES];
        struct record_due row;
        bool found = store_get(e->store, STORE_DUE, due_key(key, d), &value);
        if (found && record_due_decode(value, &row)) f = row.failure;
    } else if (d->has_retry) {
        uint8_t key[KEY_RETRY_BYTES];
        struct slice k = key_retry(key, s->id, d->cursor->id, d->seq);
        struct record_retry row;
        bool found = store_get(e->store, STORE_RETRIES, k, &value);
        if (found && record_retry_decode(value, &row)) f = row.failure;
    }
    return (struct failure){f.type, f.message, f.detail};
}

void delivery_release(struct engine *e, struct delivery *d, uint64_t delay_ms) {
    struct failure last = delivery_last_failure(e, d);
    if (delay_ms == 0) delivery_set_state(e, d, DELIVERY_READY, 0);
    else delay(e, d, delay_ms, &last);
}

void delivery_elsewhere(struct engine *e, struct delivery *d, uint64_t attachment,
                        uint64_t delay_ms) {
    d->avoid = attachment;
    d->avoid_until_ms = e->time.now_ms + delay_ms;
    delivery_set_state(e, d, DELIVERY_READY, 0);
}

void delivery_bury(struct engine *e, struct delivery *d, const char *reason,
                   const struct failure *failure) {
    struct subscription *s = d->cursor->sub;
    struct record_dead r = {.died_at_ms = e->time.wall_ms,
                            .fails = d->fails,
                            .deliveries = d->deliveries,
                            .reason = slice_str(reason),
                            .failure = {failure->type, failure->message, failure->detail}};
    uint32_t cursor = d->cursor == &s->due ? d->row_cursor : d->cursor->id;
    uint8_t key[KEY_DEAD_BYTES];
    struct slice k = key_dead(key, s->id, d->seq, cursor);
    delivery_event(e, d, &r.event, NULL);
    /* The same event may have died before, been sought back and died again: one dead letter. */
    if (!row_there(e, STORE_DEAD, k)) s->dead_count++;
    row_changed(e, STORE_DEAD, k, true);
    struct batch *b = turn_batch(e);
    batch_add(b, BATCH_PUT, STORE_DEAD, arena_copy(&b->arena, k),
              record_dead_encode(&b->arena, &r));
    s->dead_total++;
    TOTALS_ADD(e, s->project, dead, 1);
    /* The dead letter and the settlement are one transaction; the counts are in the position. */
    cursor_mark_dirty(e, &s->live, true);
    finish(e, d, true);
}

/* Never earlier than the policy says; the jitter keeps a burst that failed together from coming
 * back together. */
static uint64_t backoff_ms(struct engine *e, const struct policy *p, uint32_t fails) {
    uint64_t ms = policy_backoff_ms(p, fails);
    uint64_t jitter = ms * p->backoff_jitter_permille / 1000;
    return ms + (jitter > 0 ? prng_below(&e->prng, jitter + 1) : 0);
}

/* Its next attempt would never be made. While its subscription is paused that is open: a resume
 * makes it young again. */
static bool too_late(struct engine *e, const struct delivery *d, uint64_t delay_ms) {
    const struct subscription *s = d->cursor->sub;
    struct event event;
    if (s->policy.max_age_ms == 0 || s->paused) return false;
    delivery_event(e, d, &event, NULL);
    return delivery_too_old(e, d, &event, delay_ms);
}

void delivery_fail(struct engine *e, struct delivery *d, uint64_t delay_ms,
                   const struct failure *failure) {
    const struct policy *p = &d->cursor->sub->policy;
    d->fails++;
    if (p->max_fails != 0 && d->fails >= p->max_fails) {
        delivery_bury(e, d, "max_fails", failure);
        return;
    }
    if (delay_ms == DELAY_BY_POLICY) delay_ms = backoff_ms(e, p, d->fails);
    if (too_late(e, d, delay_ms)) delivery_bury(e, d, "expired", failure);
    else delay(e, d, delay_ms, failure);
}

static void expire(struct engine *e, struct delivery *d) {
    struct lease *l = d->lease;
    uint64_t max_hold_ms = d->cursor->sub->policy.max_hold_ms;
    const char *reason = l->expires_ms - l->since_ms >= max_hold_ms ? "max_hold" : "expired";
    struct failure failure = {.message = slice_str("lease expired")};
    if (strcmp(reason, "max_hold") == 0) failure.message = slice_str("held for max_hold_ms");
    bool started = lease_started(l);
    l->expired = true;
    TOTALS_ADD(e, d->cursor->sub->project, expired, 1);
    struct effect *f = turn_effect(e, EFFECT_REVOKED, l->attachment->route);
    f->u.revoked.attachment = l->attachment->id;
    f->u.revoked.tag = l->tag;
    f->u.revoked.reason = reason;
    if (started) delivery_fail(e, d, DELAY_BY_POLICY, &failure);
    else delivery_release(e, d, 0);
}

void delivery_timer(struct engine *e, struct delivery *d) {
    struct lease *l = d->lease;
    if (d->state == DELIVERY_DELAYED && d->not_before_wall_ms > e->time.wall_ms) {
        /* The clock was set back meanwhile. */
        uint64_t wait_ms = d->not_before_wall_ms - e->time.wall_ms;
        heap_remove(&e->deadlines, &d->timer.node);
        heap_insert(&e->deadlines, &d->timer.node, e->time.now_ms + wait_ms);
        return;
    }
    if (d->state == DELIVERY_DELAYED) {
        delivery_set_state(e, d, DELIVERY_READY, 0);
        return;
    }
    CHECK(d->state == DELIVERY_LEASED);
    if (e->time.now_ms >= l->expires_ms) {
        expire(e, d);
        return;
    }
    struct effect *f = turn_effect(e, EFFECT_LEASE_SOON, l->attachment->route);
    f->u.lease_soon.attachment = l->attachment->id;
    f->u.lease_soon.tag = l->tag;
    f->u.lease_soon.remaining_ms = l->expires_ms - e->time.now_ms;
    l->notice_ms = 0;
    heap_remove(&e->deadlines, &d->timer.node);
    heap_insert(&e->deadlines, &d->timer.node, l->expires_ms);
}

bool delivery_too_old(const struct engine *e, const struct delivery *d, const struct event *event,
                      uint64_t after_ms) {
    const struct subscription *s = d->cursor->sub;
    uint32_t from = d->cursor == &s->due ? d->row_cursor : d->cursor->id;
    uint64_t since_ms = event->received_at_ms, at_ms = e->time.wall_ms + after_ms;
    if (d->redrive || from != CURSOR_LIVE) return false;
    if (event->deliver_at_ms > since_ms) since_ms = event->deliver_at_ms;
    if (s->aged_from_ms > since_ms) since_ms = s->aged_from_ms;
    return s->policy.max_age_ms != 0 && at_ms > since_ms && at_ms - since_ms > s->policy.max_age_ms;
}
