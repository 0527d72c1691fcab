/* attachment.c: workers on a subscription: window, leases, settlements. */
#include <stdlib.h>

#include "broker/engine/state.h"

bool attachment_can_take(const struct attachment *a) {
    return !a->held && a->unsettled_count < a->window_events &&
           a->unsettled_bytes < a->window_bytes;
}

void attachment_refresh(struct engine *e, struct attachment *a) {
    bool listed = !list_empty(&a->in_available);
    bool can = attachment_can_take(a);
    if (can && !listed) {
        list_push_back(&a->sub->available, &a->in_available);
        subscription_wake(e, a->sub);
    } else if (!can && listed) {
        list_unlink(&a->in_available);
    }
}

bool lease_started(const struct lease *l) {
    const struct attachment *a = l->attachment;
    if (a->concurrency == 0 || a->unsettled_count <= a->concurrency) return true;
    const struct list *n = a->leases.next;
    for (uint32_t i = 0; i < a->concurrency && n != &a->leases; i++, n = n->next) {
        if (n == &l->in_attachment) return true;
    }
    return false;
}

struct lease *lease_new(struct engine *e, struct attachment *a, struct delivery *d, size_t bytes) {
    CHECK(attachment_can_take(a));
    struct lease *l = mem_alloc(sizeof *l);
    *l = (struct lease){.tag = a->next_tag++, .attachment = a, .delivery = d, .bytes = bytes};
    if (d->lease != NULL) d->lease->delivery = NULL; /* a late ack of the old one comes too late */
    d->lease = l;
    list_push_back(&a->leases, &l->in_attachment);
    map_add(&a->by_tag, l->tag, l);
    a->unsettled_count++;
    a->unsettled_bytes += bytes;
    list_unlink(&a->in_available); /* to the end of the queue, if it can take more */
    attachment_refresh(e, a);
    return l;
}

void lease_free(struct engine *e, struct lease *l) {
    struct attachment *a = l->attachment;
    if (l->delivery != NULL) l->delivery->lease = NULL;
    list_unlink(&l->in_attachment);
    map_remove(&a->by_tag, l->tag);
    a->unsettled_count--;
    a->unsettled_bytes -= l->bytes;
    free(l);
    attachment_refresh(e, a);
}

void attachment_free(struct engine *e, struct attachment *a) {
    a->held = true; /* so that freeing its leases does not make it available */
    attachment_refresh(e, a);
    LIST_FOR(n, next, &a->leases) {
        lease_free(e, CONTAINER_OF(n, struct lease, in_attachment));
    }
    list_unlink(&a->in_sub);
    a->sub->attachments_count--;
    map_free(&a->by_tag);
    map_remove(&e->attachments, a->id);
    free(a);
}

void attachment_attach(struct engine *e, const struct command *c) {
    struct subscription *s = NULL;
    const char *message = NULL;
    bool created = false;
    enum err err = subscription_ensure(e, c->u.attach.name, c->u.attach.create, c->u.attach.start,
                                       c->u.attach.start_value, &s, &created, &message);
    uint64_t backlog = 0;
    if (err == ERR_OK) {
        struct attachment *a = mem_zalloc(sizeof *a);
        a->id = c->u.attach.attachment;
        a->route = c->route;
        a->sub = s;
        a->window_events = c->u.attach.window_events;
        a->window_bytes = c->u.attach.window_bytes;
        a->concurrency = c->u.attach.concurrency;
        a->next_tag = 1;
        list_init(&a->leases);
        list_init(&a->in_available);
        map_init(&a->by_tag);
        map_add(&e->attachments, a->id, a);
        list_push_back(&s->attachments, &a->in_sub);
        s->attachments_count++;
        backlog = e->last_seq + 1 - cursor_next(e, &s->live);
        attachment_refresh(e, a);
    }
    struct effect *f = turn_effect(e, EFFECT_ATTACHED, c->route);
    f->err = err;
    f->message = message;
    f->u.attached.attachment = c->u.attach.attachment;
    f->u.attached.lease_ms = err == ERR_OK ? s->policy.lease_ms : 0;
    f->u.attached.backlog = backlog;
    f->u.attached.created = created;
}

void attachment_window(struct engine *e, const struct command *c) {
    struct attachment *a = map_get(&e->attachments, c->u.window.attachment);
    if (a == NULL) return; /* its subscription was deleted: EFFECT_ENDED is on its way */
    a->window_events = c->u.window.events;
    a->window_bytes = c->u.window.bytes;
    attachment_refresh(e, a);
}

void attachment_hold(struct engine *e, const struct command *c) {
    struct attachment *a = map_get(&e->attachments, c->u.hold.attachment);
    if (a == NULL) return;
    a->held = c->u.hold.hold;
    attachment_refresh(e, a);
}

void attachment_detach(struct engine *e, const struct command *c) {
    struct attachment *a = map_get(&e->attachments, c->u.detach.attachment);
    if (a == NULL) return;
    a->held = true;
    attachment_refresh(e, a);
    uint32_t started = c->u.detach.how == DETACH_RELEASE ? 0
                       : a->concurrency == 0             ? UINT32_MAX
                                                         : a->concurrency;
    LIST_FOR(n, next, &a->leases) {
        struct lease *l = CONTAINER_OF(n, struct lease, in_attachment);
        struct delivery *d = l->expired ? NULL : l->delivery;
        bool was_started = started > 0;
        if (started > 0) started--;
        lease_free(e, l);
        if (d == NULL) continue;
        if (was_started) delivery_fail(e, d, DELAY_BY_POLICY, slice_str("the worker was lost"));
        else delivery_release(e, d, 0);
    }
    attachment_free(e, a);
}

/* ---- settling ---- */

enum outcome { OUTCOME_OK, OUTCOME_ALREADY, OUTCOME_STALE };

/* Runs of tags with the same outcome, collected for the answer of a confirmed settlement. */
struct outcomes {
    struct engine *e;
    bool wanted; /* nobody asked: collect nothing */
    struct tag_range *runs[3];
    size_t count[3], cap[3];
};

static void outcome_add(struct outcomes *o, enum outcome kind, uint64_t lo, uint64_t hi) {
    if (!o->wanted) return;
    size_t n = o->count[kind];
    if (n > 0 && o->runs[kind][n - 1].hi + 1 == lo) {
        o->runs[kind][n - 1].hi = hi;
        return;
    }
    if (n == o->cap[kind]) {
        size_t cap = n == 0 ? 8 : n * 2;
        struct tag_range *runs = arena_alloc(turn_arena(o->e), cap * sizeof *runs);
        if (n > 0) memcpy(runs, o->runs[kind], n * sizeof *runs);
        o->runs[kind] = runs;
        o->cap[kind] = cap;
    }
    o->runs[kind][o->count[kind]++] = (struct tag_range){lo, hi};
}

static void extend(struct engine *e, struct delivery *d, uint64_t lease_ms) {
    if (lease_ms == 0) lease_ms = d->cursor->sub->policy.lease_ms;
    heap_remove(&e->deadlines, &d->timer);
    heap_insert(&e->deadlines, &d->timer, e->time.now_ms + lease_ms);
}

/* One lease of a settling command. An expired one whose event is still waiting may be acked or
 * rejected late; failing it again would count the same failure twice. */
static enum outcome settle_one(struct engine *e, const struct command *c, struct lease *l) {
    struct delivery *d = l->delivery;
    bool expired = l->expired;
    if (c->kind == COMMAND_EXTEND) {
        if (d == NULL || expired) return OUTCOME_STALE;
        extend(e, d, c->u.settle.lease_ms);
        return OUTCOME_OK;
    }
    lease_free(e, l);
    if (d == NULL) return OUTCOME_STALE;
    if (c->kind == COMMAND_ACK) {
        delivery_ack(e, d);
        return OUTCOME_OK;
    }
    e->totals.nacked_total++;
    uint64_t delay_ms = c->u.settle.delay_ms;
    if (c->u.settle.kind == NACK_REJECT) {
        delivery_reject(e, d, c->u.settle.error);
        return OUTCOME_OK;
    }
    if (expired) return OUTCOME_STALE;
    if (c->u.settle.kind == NACK_FAIL) delivery_fail(e, d, delay_ms, c->u.settle.error);
    else delivery_release(e, d, delay_ms == DELAY_BY_POLICY ? 0 : delay_ms);
    return OUTCOME_OK;
}

/* A range from the lowest tag up: walks what the attachment holds, oldest first, so that a range
 * as wide as a tag can be costs no more than the window. */
static void settle_range(struct engine *e, const struct command *c, struct attachment *a,
                         struct tag_range r, struct outcomes *o) {
    uint64_t at = r.lo;
    if (r.lo == r.hi) { /* the common case, without a walk */
        struct lease *l = map_get(&a->by_tag, r.lo);
        outcome_add(o, l == NULL ? OUTCOME_ALREADY : settle_one(e, c, l), r.lo, r.hi);
        return;
    }
    LIST_FOR(n, next, &a->leases) {
        struct lease *l = CONTAINER_OF(n, struct lease, in_attachment);
        uint64_t tag = l->tag;
        if (tag < r.lo) continue;
        if (tag > r.hi) break;
        if (tag > at) outcome_add(o, OUTCOME_ALREADY, at, tag - 1);
        outcome_add(o, settle_one(e, c, l), tag, tag);
        at = tag + 1;
    }
    if (at <= r.hi) outcome_add(o, OUTCOME_ALREADY, at, r.hi);
}

static enum err ranges_check(struct engine *e, const struct attachment *a, const struct command *c,
                             const char **message) {
    if (a == NULL) {
        *message = "the subscription is no longer attached";
        return ERR_NOT_FOUND;
    }
    if (c->kind == COMMAND_EXTEND && c->u.settle.lease_ms != 0 &&
        (c->u.settle.lease_ms < LIMIT_LEASE_MS_MIN || c->u.settle.lease_ms > LIMIT_LEASE_MS_MAX)) {
        *message = "lease_ms: must be 100 to 43200000 (12 hours)";
        return ERR_INVALID_REQUEST;
    }
    if (c->kind == COMMAND_NACK && c->u.settle.delay_ms != DELAY_BY_POLICY &&
        c->u.settle.delay_ms > LIMIT_BACKOFF_MS_MAX) {
        *message = "delay_ms: must be 0 to 86400000 (24 hours)";
        return ERR_INVALID_REQUEST;
    }
    for (size_t i = 0; i < c->u.settle.count; i++) {
        struct tag_range r = c->u.settle.ranges[i];
        if (r.lo > r.hi) {
            *message = "ranges: a range must not end before it starts";
            return ERR_INVALID_REQUEST;
        }
        if (r.lo == 0 || r.hi >= a->next_tag) {
            *message = turn_text(e, "tag %llu was never handed out here: the tags are 1 to %llu",
                                 (unsigned long long)(r.lo == 0 ? 0 : r.hi),
                                 (unsigned long long)(a->next_tag - 1));
            return ERR_UNKNOWN_TAG;
        }
    }
    return ERR_OK;
}

/* A confirmed answer waits for the positions: they ride in this turn's batch. */
static void settle_in_this_batch(struct engine *e, struct subscription *s) {
    if (s->live.dirty) cursor_mark_dirty(e, &s->live, true);
    LIST_FOR(n, next, &s->replays) {
        struct cursor *c = CONTAINER_OF(n, struct cursor, in_sub);
        if (c->dirty) cursor_mark_dirty(e, c, true);
    }
}

void attachment_settle(struct engine *e, const struct command *c) {
    struct attachment *a = map_get(&e->attachments, c->u.settle.attachment);
    const char *message = NULL;
    enum err err = ranges_check(e, a, c, &message);
    struct outcomes o = {.e = e, .wanted = c->u.settle.confirm};
    for (size_t i = 0; i < c->u.settle.count && err == ERR_OK; i++) {
        settle_range(e, c, a, c->u.settle.ranges[i], &o);
    }
    if (err == ERR_OK && !c->u.settle.confirm) return;
    if (err == ERR_OK) settle_in_this_batch(e, a->sub);
    struct effect *f = turn_effect(e, EFFECT_SETTLED, c->route);
    f->err = err;
    f->message = message;
    f->u.settled.attachment = c->u.settle.attachment;
    f->u.settled.ok = o.runs[OUTCOME_OK];
    f->u.settled.ok_count = o.count[OUTCOME_OK];
    f->u.settled.already = o.runs[OUTCOME_ALREADY];
    f->u.settled.already_count = o.count[OUTCOME_ALREADY];
    f->u.settled.stale = o.runs[OUTCOME_STALE];
    f->u.settled.stale_count = o.count[OUTCOME_STALE];
}
