/* pump.c: hands out events at the end of a turn.
 *
 * Each runnable subscription in its turn gets a slice of the turn's budget: as long as a worker has
 * room it alternates between what waits to be delivered again and what is fresh, and among fresh
 * ones between the live cursor and a replay, so that neither starves the other. A subscription
 * leaves the runnable list when nothing more can be handed out (E7) and comes back by
 * subscription_wake. */
#include "broker/engine/state.h"

#define SLICE_EVENTS 256  /* hand-outs to one subscription before the next has its turn */
#define SLICE_SCAN   2048 /* journal positions looked at, likewise */

struct budget {
    uint32_t scan; /* journal positions that may still be looked at in this turn */
    size_t bytes;  /* that may still be handed out */
};

/* A walk over the journal that stays open while one cursor is read. */
struct reader {
    struct cursor *cursor; /* NULL: not open */
    struct store_iter it;
};

static void reader_close(struct engine *e, struct reader *r) {
    if (r->cursor != NULL) store_iter_end(e->store, &r->it);
    r->cursor = NULL;
}

/* The event at the cursor's next position or the first after it. False: the journal ends first. */
static bool reader_get(struct engine *e, struct reader *r, struct cursor *c, struct event *out,
                       bool *own) {
    *own = false;
    if (c->next > e->durable_seq) {
        const struct event *event = event_undurable(e, c->next, own);
        if (event == NULL) return false;
        *out = *event;
        return true;
    }
    if (r->cursor != c) {
        uint8_t key[KEY_U64_BYTES];
        reader_close(e, r);
        store_seek(e->store, STORE_JOURNAL, key_u64(key, c->next), &r->it);
        r->cursor = c;
    }
    while (r->it.valid && key_read_u64(r->it.key, 0) < c->next) store_next(e->store, &r->it);
    CHECK(r->it.valid); /* durable_seq is in the store */
    uint64_t seq = key_read_u64(r->it.key, 0);
    if (!record_event_decode(seq, r->it.value, out)) store_damaged("journal record", seq);
    return true;
}

static void hand_out(struct engine *e, struct subscription *s, struct delivery *d,
                     const struct event *event, bool own, struct budget *budget) {
    struct attachment *a = CONTAINER_OF(s->available.next, struct attachment, in_available);
    struct lease *l = lease_new(e, a, d, event->body.len);
    delivery_set_state(e, d, DELIVERY_LEASED, e->time.now_ms + s->policy.lease_ms);
    d->deliveries++;
    e->totals.delivered_total++;
    struct effect *f = turn_effect(e, EFFECT_DELIVER, a->route);
    f->u.deliver.attachment = a->id;
    f->u.deliver.tag = l->tag;
    f->u.deliver.lease_ms = s->policy.lease_ms;
    f->u.deliver.fails = d->fails;
    f->u.deliver.deliveries = d->deliveries;
    f->u.deliver.replay = d->cursor->id != CURSOR_LIVE;
    f->u.deliver.event = *event;
    if (!own) { /* the effect's slices must live as long as its own turn */
        struct arena *arena = turn_arena(e);
        struct event *v = &f->u.deliver.event;
        struct slice *parts[] = {&v->source,       &v->id,       &v->type,    &v->subject,
                                 &v->content_type, &v->metadata, &v->headers, &v->body};
        for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
            *parts[i] = arena_copy(arena, *parts[i]);
        }
    }
    size_t bytes = event->body.len + 256; /* what a small event costs beside its body */
    budget->bytes = budget->bytes > bytes ? budget->bytes - bytes : 0;
}

static void hand_out_ready(struct engine *e, struct subscription *s, struct budget *budget) {
    struct delivery *d = CONTAINER_OF(s->ready.next, struct delivery, in_ready);
    struct event event;
    bool own, found = event_read(e, d->seq, &event, &own);
    CHECK(found);
    hand_out(e, s, d, &event, own, budget);
}

static bool cursor_has_fresh(const struct engine *e, const struct cursor *c) {
    return !c->at_tail && c->next <= c->end && c->next <= e->last_seq;
}

/* Replays of one subscription follow each other, oldest first. */
static struct cursor *fresh_replay(const struct engine *e, const struct subscription *s) {
    for (const struct list *n = s->replays.next; n != &s->replays; n = n->next) {
        struct cursor *c = CONTAINER_OF(n, struct cursor, in_sub);
        if (cursor_has_fresh(e, c)) return c;
    }
    return NULL;
}

static bool at_cap(const struct engine *e, const struct subscription *s) {
    return s->ready_count + s->leased_count + s->delayed_count >= e->options.outstanding_max;
}

bool subscription_has_fresh(const struct engine *e, const struct subscription *s) {
    return !at_cap(e, s) && (cursor_has_fresh(e, &s->live) || fresh_replay(e, s) != NULL);
}

/* The cursor to read from: live and replay in turn, when both have something. */
static struct cursor *pick_cursor(const struct engine *e, struct subscription *s) {
    struct cursor *replay = fresh_replay(e, s);
    struct cursor *live = cursor_has_fresh(e, &s->live) ? &s->live : NULL;
    if (replay == NULL || live == NULL) return replay != NULL ? replay : live;
    s->replay_next = !s->replay_next;
    return s->replay_next ? live : replay;
}

static void cursor_advance(struct engine *e, struct cursor *c, uint64_t past) {
    c->next = past + 1;
    if (c->id == CURSOR_LIVE) {
        if (c->next == e->last_seq + 1) c->at_tail = true;
        return;
    }
    replay_check_finished(e, c); /* its last positions may hold no match */
}

/* Reads on until a matching event was handed out or the slice is used up. */
static void hand_out_fresh(struct engine *e, struct subscription *s, struct reader *r,
                           struct cursor *c, uint32_t *scan, struct budget *budget) {
    while (*scan > 0 && budget->scan > 0 && cursor_has_fresh(e, c)) {
        struct event event;
        bool own;
        (*scan)--;
        budget->scan--;
        if (!reader_get(e, r, c, &event, &own)) UNREACHABLE("has_fresh said so");
        bool match = event.seq <= c->end && filter_match(&s->policy.filter, &event);
        if (match) {
            struct delivery *d = delivery_new(c, event.seq);
            /* The position is written when something of it is settled; until then a restart
             * finds the event again by reading from the written next. */
            hand_out(e, s, d, &event, own, budget);
        }
        uint64_t past = event.seq <= c->end ? event.seq : c->end;
        bool ends = c->id != CURSOR_LIVE && past >= c->end;
        if (ends && r->cursor == c) reader_close(e, r);
        cursor_advance(e, c, past); /* may free a replay's cursor */
        if (match || ends) break;
    }
}

/* True: nothing more can be handed out for now. */
static bool pump_subscription(struct engine *e, struct subscription *s, struct budget *budget) {
    struct reader reader = {.cursor = NULL};
    uint32_t events = SLICE_EVENTS, scan = SLICE_SCAN;
    bool blocked = false;
    while (events > 0 && scan > 0 && budget->scan > 0 && budget->bytes > 0) {
        bool ready = !list_empty(&s->ready), fresh = subscription_has_fresh(e, s);
        if (list_empty(&s->available) || (!ready && !fresh)) {
            blocked = true;
            break;
        }
        events--;
        if (ready && (s->ready_next || !fresh)) {
            s->ready_next = false;
            budget->scan--;
            hand_out_ready(e, s, budget);
        } else {
            s->ready_next = true;
            hand_out_fresh(e, s, &reader, pick_cursor(e, s), &scan, budget);
        }
    }
    reader_close(e, &reader);
    s->scanning = !blocked && list_empty(&s->ready);
    return blocked;
}

void pump(struct engine *e) {
    struct budget budget = {e->options.turn_scan_events, e->options.turn_deliver_bytes};
    while (!list_empty(&e->runnable) && budget.scan > 0 && budget.bytes > 0) {
        struct list *n = list_first(&e->runnable);
        struct subscription *s = CONTAINER_OF(n, struct subscription, in_runnable);
        list_unlink(n);
        s->runnable = false;
        if (!pump_subscription(e, s, &budget)) subscription_wake(e, s);
    }
}
