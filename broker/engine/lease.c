/* lease.c: hand-outs to a worker: their time, and how they are settled. */
#include <stdlib.h>

#include "broker/engine/state.h"

#define NOTICE_MIN_MS 1000  /* a shorter lease gets no notice of its end */
#define ELSEWHERE_MS  60000 /* how long a worker is avoided when it does not say */

bool lease_started(const struct lease *l) {
    const struct attachment *a = l->attachment;
    if (a->concurrency == 0 || a->unsettled_count <= a->concurrency) return true;
    const struct list *n = a->leases.next;
    for (uint32_t i = 0; i < a->concurrency && n != &a->leases; i++, n = n->next) {
        if (n == &l->in_attachment) return true;
    }
    return false;
}

/* Sets when it ends, within max_hold, and when to tell. Returns when its timer is due first. */
static uint64_t lease_time(struct engine *e, struct lease *l, uint64_t lease_ms) {
    const struct policy *p = &l->delivery->cursor->sub->policy;
    uint64_t now_ms = e->time.now_ms, last_ms = l->since_ms + p->max_hold_ms;
    l->expires_ms = now_ms + lease_ms < last_ms ? now_ms + lease_ms : last_ms;
    if (l->expires_ms < now_ms) l->expires_ms = now_ms; /* held too long, and not yet told so */
    uint64_t left_ms = l->expires_ms - now_ms;
    l->notice_ms = left_ms >= NOTICE_MIN_MS ? l->expires_ms - left_ms / 4 : 0;
    return l->notice_ms != 0 ? l->notice_ms : l->expires_ms;
}

struct lease *lease_new(struct engine *e, struct attachment *a, struct delivery *d, uint64_t tag,
                        size_t bytes, uint64_t since_ms, bool again) {
    struct lease *l = mem_alloc(sizeof *l);
    *l = (struct lease){.tag = tag,
                        .attachment = a,
                        .delivery = d,
                        .bytes = bytes,
                        .since_ms = since_ms,
                        .again = again};
    if (d->lease != NULL) d->lease->delivery = NULL; /* a late ack of the old one comes too late */
    d->lease = l;
    d->avoid = 0;
    struct list *at = &a->leases; /* a claimed tag may belong before others */
    while (at->prev != &a->leases &&
           CONTAINER_OF(at->prev, struct lease, in_attachment)->tag > tag) {
        at = at->prev;
    }
    list_insert_before(at, &l->in_attachment);
    map_add(&a->by_tag, l->tag, l);
    a->unsettled_count++;
    a->unsettled_bytes += bytes;
    a->again_count += l->again;
    list_unlink(&a->in_available); /* to the end of the queue, if it can take more */
    attachment_refresh(e, a);
    delivery_set_state(e, d, DELIVERY_LEASED, lease_time(e, l, attachment_lease_ms(a)));
    return l;
}

void lease_free(struct engine *e, struct lease *l) {
    struct attachment *a = l->attachment;
    if (l->delivery != NULL) l->delivery->lease = NULL;
    list_unlink(&l->in_attachment);
    map_remove(&a->by_tag, l->tag);
    a->unsettled_count--;
    a->unsettled_bytes -= l->bytes;
    a->again_count -= l->again;
    free(l);
    attachment_refresh(e, a);
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

static void extend(struct engine *e, struct lease *l, uint64_t lease_ms) {
    struct heap_node *timer = &l->delivery->timer.node;
    if (lease_ms == 0) lease_ms = attachment_lease_ms(l->attachment);
    heap_remove(&e->deadlines, timer);
    heap_insert(&e->deadlines, timer, lease_time(e, l, lease_ms));
}

/* One lease of a settling command. An expired one whose event is still waiting may be acked or
 * rejected late; failing it again would count the same failure twice. */
static enum outcome settle_one(struct engine *e, const struct command *c, struct lease *l) {
    struct delivery *d = l->delivery;
    bool expired = l->expired;
    if (c->kind == COMMAND_EXTEND) {
        if (d == NULL || expired) return OUTCOME_STALE;
        extend(e, l, c->u.settle.lease_ms);
        return OUTCOME_OK;
    }
    uint64_t attachment = l->attachment->id;
    lease_free(e, l);
    if (d == NULL) return OUTCOME_STALE;
    if (c->kind == COMMAND_ACK) {
        delivery_ack(e, d);
        return OUTCOME_OK;
    }
    TOTALS_ADD(e, d->cursor->sub->project, nacked, 1);
    uint64_t delay_ms = c->u.settle.delay_ms;
    const struct failure *failure = &c->u.settle.failure;
    if (c->u.settle.kind == NACK_REJECT) {
        delivery_bury(e, d, "rejected", failure);
        return OUTCOME_OK;
    }
    if (expired) return OUTCOME_STALE;
    bool by_policy = delay_ms == DELAY_BY_POLICY;
    switch (c->u.settle.kind) {
    case NACK_FAIL: delivery_fail(e, d, delay_ms, failure); break;
    case NACK_RELEASE: delivery_release(e, d, by_policy ? 0 : delay_ms); break;
    case NACK_ELSEWHERE:
        delivery_elsewhere(e, d, attachment, by_policy ? ELSEWHERE_MS : delay_ms);
        break;
    case NACK_REJECT: UNREACHABLE("was worked on above");
    }
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
    struct lease *first = map_get(&a->by_tag, r.lo);
    struct list *n = first != NULL ? &first->in_attachment : a->leases.next, *next;
    for (; n != &a->leases; n = next) {
        struct lease *l = CONTAINER_OF(n, struct lease, in_attachment);
        uint64_t tag = l->tag;
        next = n->next; /* settling frees it */
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
