/* pump.c: hands out events at the end of a turn.
 *
 * Each runnable subscription in its turn gets a slice of the turn's budget. As long as a worker has
 * room it alternates between what comes again (the ready list, and what is due on disk) and what is
 * fresh (the live cursor, and replays), so that neither starves the other; and while both wait,
 * neither takes more than half of a worker's window, so that a burst of slow failures cannot fill
 * it either. A subscription leaves the runnable list when nothing more can be handed out (E7) and
 * comes back by subscription_wake, or by its timer. */
#include "broker/engine/state.h"

#define SLICE_EVENTS  256  /* hand-outs to one subscription before the next has its turn */
#define SLICE_SCAN    2048 /* journal positions looked at, likewise */
#define WORKERS_LOOK  32   /* workers looked at for one that may take an event */
#define AVOID_LOOK_MS 1000 /* how often an event that one worker gave up looks for another */

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

/* The event at the cursor's next position or the first after it. False: the journal ends first.
 * What retention has passed is gone, even when its record can still be seen: its removal may be
 * under way. */
static bool reader_get(struct engine *e, struct reader *r, struct cursor *c, struct event *out,
                       bool *own) {
    *own = false;
    if (c->next > e->durable_seq) {
        const struct event *event = event_undurable(e, c->next, own);
        if (event == NULL) return false;
        *out = *event;
        return true;
    }
    uint64_t from = c->next > e->trimmed_to ? c->next : e->trimmed_to + 1;
    if (r->cursor != c) {
        uint8_t key[KEY_U64_BYTES];
        reader_close(e, r);
        store_seek(e->store, STORE_JOURNAL, key_u64(key, from), &r->it);
        r->cursor = c;
    }
    while (r->it.valid && key_read_u64(r->it.key, 0) < from) store_next(e->store, &r->it);
    CHECK(r->it.valid); /* the newest durable record is never removed */
    uint64_t seq = key_read_u64(r->it.key, 0);
    event_decode(seq, r->it.value, out);
    return true;
}

/* An effect's slices must live as long as its own turn. */
static void own_event(struct engine *e, struct event *v) {
    struct arena *arena = turn_arena(e);
    struct slice *parts[] = {&v->source,  &v->id,           &v->type,
                             &v->subject, &v->content_type, &v->metadata,
                             &v->headers, &v->endpoints,    &v->body};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        *parts[i] = arena_copy(arena, *parts[i]);
    }
}

/* Whatever is copied into the turn's batch or effects is taken off its budget. */
static void spend(struct budget *budget, const struct event *event) {
    size_t bytes = event->body.len + 256; /* what a small event costs beside its body */
    budget->bytes = budget->bytes > bytes ? budget->bytes - bytes : 0;
}

static void hand_out(struct engine *e, struct attachment *a, struct delivery *d,
                     const struct event *event, bool own, bool again, struct budget *budget) {
    struct subscription *s = a->sub;
    struct lease *l = lease_new(e, a, d, a->next_tag++, event->body.len, e->time.now_ms, again);
    uint32_t from = d->cursor == &s->due ? d->row_cursor : d->cursor->id;
    d->deliveries++;
    TOTALS_ADD(e, s->project, delivered, 1);
    rate_take(&s->rate, e->time.now_ms);
    struct effect *f = turn_effect(e, EFFECT_DELIVER, a->route);
    f->u.deliver.attachment = a->id;
    f->u.deliver.tag = l->tag;
    f->u.deliver.lease_ms = attachment_lease_ms(a);
    f->u.deliver.fails = d->fails;
    f->u.deliver.deliveries = d->deliveries;
    f->u.deliver.replay = from != CURSOR_LIVE;
    f->u.deliver.redrive = d->redrive;
    f->u.deliver.event = *event;
    if (!own) own_event(e, &f->u.deliver.event);
    spend(budget, event);
}

/* ---- which worker ---- */

/* The worker whose turn it is. `other_waits`: both kinds of work wait, so each may have half of a
 * window. `avoid`: not this one. */
static struct attachment *pick_worker(const struct subscription *s, bool again, bool other_waits,
                                      uint64_t avoid) {
    int looked = 0;
    for (struct list *n = s->available.next; n != &s->available && looked < WORKERS_LOOK;
         n = n->next, looked++) {
        struct attachment *a = CONTAINER_OF(n, struct attachment, in_available);
        uint32_t has = again ? a->again_count : a->unsettled_count - a->again_count;
        if (a->id == avoid) continue;
        if (other_waits && has >= (a->window_events + 1) / 2) continue;
        return a;
    }
    return NULL;
}

/* ---- what comes again ---- */

enum step {
    STEP_DONE,    /* something was handed out, or moved on */
    STEP_NO_WORK, /* nothing of this kind */
    STEP_NO_ROOM, /* no worker may take one of this kind */
};

static bool given_up_as_old(struct engine *e, struct delivery *d, const struct event *event,
                            struct budget *budget) {
    if (!delivery_too_old(e, d, event, 0)) return false;
    struct failure last = delivery_last_failure(e, d);
    delivery_bury(e, d, "expired", &last);
    spend(budget, event);
    return true;
}

static enum step hand_out_ready(struct engine *e, struct subscription *s, bool other_waits,
                                struct budget *budget) {
    struct list *n = list_first(&s->ready);
    if (n == NULL) return STEP_NO_WORK;
    struct delivery *d = CONTAINER_OF(n, struct delivery, in_ready);
    uint64_t avoid = e->time.now_ms < d->avoid_until_ms ? d->avoid : 0;
    struct attachment *a = pick_worker(s, true, other_waits, avoid);
    if (a == NULL && avoid != 0 && pick_worker(s, true, other_waits, 0) != NULL) {
        /* Only the worker that gave it up has room: look again soon. */
        uint64_t at_ms = e->time.now_ms + AVOID_LOOK_MS;
        delivery_set_state(e, d, DELIVERY_DELAYED,
                           at_ms < d->avoid_until_ms ? at_ms : d->avoid_until_ms);
        return STEP_DONE;
    }
    if (a == NULL) return STEP_NO_ROOM;
    struct event event;
    bool own;
    delivery_event(e, d, &event, &own);
    if (!given_up_as_old(e, d, &event, budget)) hand_out(e, a, d, &event, own, true, budget);
    return STEP_DONE;
}

static enum step hand_out_due(struct engine *e, struct subscription *s, bool other_waits,
                              struct budget *budget) {
    if (!due_waits(e, s) || subscription_outstanding(s) >= e->options.outstanding_max) {
        return STEP_NO_WORK;
    }
    struct attachment *a = pick_worker(s, true, other_waits, 0);
    if (a == NULL) return STEP_NO_ROOM;
    struct event event;
    struct delivery *d = due_take(e, s, &event);
    if (d == NULL) return STEP_DONE; /* the rows were claimed: none of them waits any more */
    if (given_up_as_old(e, d, &event, budget)) return STEP_DONE;
    if (order_enter(e, d, &event)) hand_out(e, a, d, &event, false, true, budget);
    else delivery_set_state(e, d, DELIVERY_BLOCKED, 0);
    return STEP_DONE;
}

static enum step hand_out_again(struct engine *e, struct subscription *s, bool other_waits,
                                struct budget *budget) {
    budget->scan--;
    s->due_turn = !s->due_turn;
    enum step step = s->due_turn ? hand_out_due(e, s, other_waits, budget)
                                 : hand_out_ready(e, s, other_waits, budget);
    if (step == STEP_DONE) return step;
    enum step second = s->due_turn ? hand_out_ready(e, s, other_waits, budget)
                                   : hand_out_due(e, s, other_waits, budget);
    return second == STEP_NO_WORK ? step : second;
}

/* ---- what is fresh ---- */

static bool cursor_has_fresh(const struct engine *e, const struct cursor *c) {
    return !c->at_tail && c->next <= c->end && c->next <= e->last_seq;
}

static bool replay_may_go(const struct engine *e, struct cursor *c) {
    return cursor_has_fresh(e, c) && rate_next_ms(&task_of(c)->rate) <= e->time.now_ms;
}

/* Replays of one subscription follow each other, oldest first. */
static struct cursor *fresh_replay(const struct engine *e, const struct subscription *s) {
    for (const struct list *n = s->replays.next; n != &s->replays; n = n->next) {
        struct cursor *c = CONTAINER_OF(n, struct cursor, in_sub);
        if (replay_may_go(e, c)) return c;
    }
    return NULL;
}

static bool at_cap(const struct engine *e, const struct subscription *s) {
    return subscription_outstanding(s) >= e->options.outstanding_max;
}

bool subscription_has_fresh(const struct engine *e, const struct subscription *s) {
    return !at_cap(e, s) && (cursor_has_fresh(e, &s->live) || fresh_replay(e, s) != NULL);
}

static bool has_again(const struct engine *e, const struct subscription *s) {
    return !list_empty(&s->ready) || (due_waits(e, s) && !at_cap(e, s));
}

bool subscription_has_work(const struct engine *e, const struct subscription *s) {
    return !s->paused && rate_next_ms(&s->rate) <= e->time.now_ms &&
           (has_again(e, s) || subscription_has_fresh(e, s));
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

static bool cursor_wants(struct cursor *c, const struct event *event) {
    struct filter_subject subject;
    filter_subject_init(&subject, event);
    return subscription_wants(c->sub, &subject) &&
           (c->id == CURSOR_LIVE || filter_match(task_of(c)->filter, &subject));
}

/* Its time has not come. A replay leaves it out: the live cursor has it, or will. */
static void set_aside(struct engine *e, struct cursor *c, const struct event *event) {
    struct subscription *s = c->sub;
    if (c->id != CURSOR_LIVE) return;
    if (!s->policy.ordered) {
        due_write(e, s, event->deliver_at_ms, CURSOR_LIVE, &(struct record_due){.event = *event});
        return;
    }
    struct delivery *d = delivery_new(c, event->seq);
    d->not_before_wall_ms = event->deliver_at_ms;
    uint64_t wait_ms = event->deliver_at_ms - e->time.wall_ms;
    if (!order_enter(e, d, event)) delivery_set_state(e, d, DELIVERY_BLOCKED, 0);
    else delivery_set_state(e, d, DELIVERY_DELAYED, e->time.now_ms + wait_ms);
    cursor_mark_dirty(e, c, true);
}

/* A match that was read: to the worker, or wherever it must wait. True: to the worker. */
static bool place(struct engine *e, struct cursor *c, struct attachment *a,
                  const struct event *event, bool own, struct budget *budget) {
    if (event->deliver_at_ms > e->time.wall_ms) {
        set_aside(e, c, event);
        spend(budget, event);
        return false;
    }
    struct delivery *d = delivery_new(c, event->seq);
    if (c->id != CURSOR_LIVE) {
        task_of(c)->matched++;
        rate_take(&task_of(c)->rate, e->time.now_ms);
    }
    if (given_up_as_old(e, d, event, budget)) return false;
    bool free_key = order_enter(e, d, event);
    if (free_key) hand_out(e, a, d, event, own, false, budget);
    else delivery_set_state(e, d, DELIVERY_BLOCKED, 0);
    /* A restart then knows that it is out, and leaves it to its worker for the grace period. */
    cursor_mark_dirty(e, c, false);
    return free_key;
}

void scan_take(uint32_t *scan, const struct event *event) {
    size_t cost = 1 + event->body.len / SCAN_UNIT_BYTES;
    *scan -= cost < *scan ? (uint32_t)cost : *scan;
}

/* Reads on until a matching event was handed out or the slice is used up. */
static void hand_out_fresh(struct engine *e, struct attachment *a, struct reader *r,
                           struct cursor *c, uint32_t *scan, struct budget *budget) {
    while (*scan > 0 && budget->scan > 0 && budget->bytes > 0 && cursor_has_fresh(e, c) &&
           !at_cap(e, c->sub)) {
        struct event event;
        bool own, replay = c->id != CURSOR_LIVE;
        if (!reader_get(e, r, c, &event, &own)) UNREACHABLE("has_fresh said so");
        scan_take(scan, &event);
        scan_take(&budget->scan, &event);
        uint64_t past = event.seq <= c->end ? event.seq : c->end;
        if (replay)
            task_of(c)->expired += event.seq <= c->end ? past - c->next : past + 1 - c->next;
        bool ends = replay && past >= c->end;
        bool match = event.seq <= c->end && cursor_wants(c, &event);
        bool handed = match && place(e, c, a, &event, own, budget);
        if (ends && r->cursor == c) reader_close(e, r);
        cursor_advance(e, c, past); /* may end a replay */
        if (handed || ends || (replay && match)) break;
    }
}

void cursor_skip(struct engine *e, struct cursor *c, uint32_t *scan) {
    struct reader reader = {.cursor = NULL};
    while (*scan > 0 && cursor_has_fresh(e, c)) {
        struct event event;
        bool own;
        if (!reader_get(e, &reader, c, &event, &own)) UNREACHABLE("has_fresh said so");
        if (cursor_wants(c, &event)) break;
        scan_take(scan, &event);
        cursor_advance(e, c, event.seq);
    }
    reader_close(e, &reader);
}

/* ---- the turn ---- */

static enum step hand_out_next_fresh(struct engine *e, struct subscription *s, bool other_waits,
                                     struct reader *r, uint32_t *scan, struct budget *budget) {
    if (!subscription_has_fresh(e, s)) return STEP_NO_WORK;
    struct attachment *a = pick_worker(s, false, other_waits, 0);
    if (a == NULL) return STEP_NO_ROOM;
    hand_out_fresh(e, a, r, pick_cursor(e, s), scan, budget);
    return STEP_DONE;
}

/* Hands out one event, or finds that nobody may take one. */
static enum step pump_one(struct engine *e, struct subscription *s, struct reader *r,
                          uint32_t *scan, struct budget *budget) {
    bool again = has_again(e, s), fresh = subscription_has_fresh(e, s);
    enum step step = STEP_NO_WORK;
    s->ready_next = !s->ready_next;
    bool again_first = again && (s->ready_next || !fresh);
    if (again_first) step = hand_out_again(e, s, fresh, budget);
    if (step != STEP_DONE) step = hand_out_next_fresh(e, s, again, r, scan, budget);
    if (step != STEP_DONE && again && !again_first) step = hand_out_again(e, s, fresh, budget);
    return step;
}

/* True: nothing more can be handed out for now. */
static bool pump_subscription(struct engine *e, struct subscription *s, struct budget *budget) {
    struct reader reader = {.cursor = NULL};
    uint32_t events = SLICE_EVENTS, scan = SLICE_SCAN;
    bool blocked = false;
    while (!blocked && events > 0 && scan > 0 && budget->scan > 0 && budget->bytes > 0) {
        blocked = list_empty(&s->available) || !subscription_has_work(e, s);
        if (blocked) break;
        events--;
        blocked = pump_one(e, s, &reader, &scan, budget) != STEP_DONE;
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
        subscription_arm(e, s);
    }
}
