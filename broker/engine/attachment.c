/* attachment.c: workers on a subscription: coming, window, going. */
#include <stdlib.h>

#include "broker/engine/state.h"

bool attachment_can_take(const struct attachment *a) {
    return !a->held && a->unsettled_count < a->window_events &&
           a->unsettled_bytes < a->window_bytes;
}

uint64_t attachment_lease_ms(const struct attachment *a) {
    const struct policy *p = &a->sub->policy;
    if (a->lease_ms == 0) return p->lease_ms;
    return a->lease_ms < p->max_hold_ms ? a->lease_ms : p->max_hold_ms;
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

void attachment_free(struct engine *e, struct attachment *a) {
    a->held = true; /* so that freeing its leases does not make it available */
    attachment_refresh(e, a);
    LIST_FOR(n, next, &a->leases) {
        lease_free(e, CONTAINER_OF(n, struct lease, in_attachment));
    }
    heap_remove(&e->deadlines, &a->timer.node);
    list_unlink(&a->in_sub);
    a->sub->attachments_count--;
    map_free(&a->by_tag);
    map_remove(&e->attachments, a->id);
    free(a);
}

static struct attachment *attachment_new(struct engine *e, struct subscription *s,
                                         const struct command *c) {
    struct attachment *a = mem_zalloc(sizeof *a);
    a->id = c->u.attach.attachment;
    a->route = c->route;
    a->sub = s;
    a->window_events = c->u.attach.window_events;
    a->window_bytes = c->u.attach.window_bytes;
    a->concurrency = c->u.attach.concurrency;
    a->lease_ms = c->u.attach.lease_ms;
    a->session = c->u.attach.session;
    a->slot = c->u.attach.slot;
    a->next_tag = 1;
    a->timer.kind = DEADLINE_ATTACHMENT;
    heap_node_init(&a->timer.node);
    list_init(&a->leases);
    list_init(&a->in_available);
    map_init(&a->by_tag);
    map_add(&e->attachments, a->id, a);
    list_push_back(&s->attachments, &a->in_sub);
    s->attachments_count++;
    return a;
}

static enum err attach_check(struct engine *e, const struct command *c, struct subscription **s,
                             bool *created, const char **message) {
    uint64_t lease_ms = c->u.attach.lease_ms;
    if (lease_ms != 0 && (lease_ms < LIMIT_LEASE_MS_MIN || lease_ms > LIMIT_LEASE_MS_MAX)) {
        *message = "lease_ms: must be 100 to 43200000 (12 hours), or 0 for the subscription's";
        return ERR_INVALID_REQUEST;
    }
    const struct wanted_subscription wanted = {
        .project = c->project,
        .name = c->u.attach.name,
        .create = c->u.attach.create,
        .start = c->u.attach.start,
        .start_value = c->u.attach.start_value,
        /* A few of the broker's own: without one, what it is for would be lost. */
        .unbounded = c->u.attach.alone,
    };
    return subscription_ensure(e, &wanted, s, created, message);
}

/* Nobody else works there who could come back: what was out before the restart waits no longer, be
 * it in memory or (due.c) on disk. What has a time to wait for goes on waiting. */
static void end_grace(struct engine *e, struct cursor *c) {
    LIST_FOR(n, next, &c->outstanding) {
        struct delivery *d = CONTAINER_OF(n, struct delivery, in_cursor);
        if (d->unclaimed) delivery_set_state(e, d, DELIVERY_READY, 0);
    }
}

static void work_alone(struct engine *e, struct subscription *s) {
    if (s->alone) return;
    s->alone = true;
    end_grace(e, &s->live);
    LIST_FOR(n, next, &s->replays) end_grace(e, CONTAINER_OF(n, struct cursor, in_sub));
    subscription_wake(e, s);
}

void attachment_attach(struct engine *e, const struct command *c) {
    struct subscription *s = NULL;
    struct attachment *a = NULL;
    const char *message = NULL;
    bool created = false;
    enum err err = attach_check(e, c, &s, &created, &message);
    uint64_t backlog = 0;
    uint32_t resumed = 0;
    if (err == ERR_OK) {
        backlog = e->last_seq + 1 - cursor_next(e, &s->live);
        a = attachment_new(e, s, c);
        resumed = claims_take(e, a, c);
        if (c->u.attach.alone) work_alone(e, s);
        attachment_refresh(e, a);
    }
    struct effect *f = turn_effect(e, EFFECT_ATTACHED, c->route);
    f->err = err;
    f->message = message;
    f->u.attached.attachment = c->u.attach.attachment;
    f->u.attached.lease_ms = err == ERR_OK ? attachment_lease_ms(a) : 0;
    f->u.attached.backlog = backlog;
    f->u.attached.resumed = resumed;
    f->u.attached.created = created;
    if (err == ERR_OK) claims_refuse(e, a, c);
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
    a->held = c->u.hold.hold || a->kept;
    attachment_refresh(e, a);
}

void attachment_end(struct engine *e, struct attachment *a, enum detach_kind how) {
    static const struct failure lost = {.message = {(const uint8_t *)"the worker was lost", 19}};
    a->held = true;
    attachment_refresh(e, a);
    uint32_t started = how == DETACH_RELEASE ? 0
                       : a->concurrency == 0 ? UINT32_MAX
                                             : a->concurrency;
    LIST_FOR(n, next, &a->leases) {
        struct lease *l = CONTAINER_OF(n, struct lease, in_attachment);
        struct delivery *d = l->expired ? NULL : l->delivery;
        bool was_started = started > 0;
        if (started > 0) started--;
        lease_free(e, l);
        if (d == NULL) continue;
        if (was_started) delivery_fail(e, d, DELAY_BY_POLICY, &lost);
        else delivery_release(e, d, 0);
    }
    attachment_free(e, a);
}

/* The connection is gone, but its worker may come back: nothing is handed out meanwhile, leases go
 * on running out in their own time. */
static void keep(struct engine *e, struct attachment *a, uint32_t grace_ms) {
    a->held = a->kept = true;
    attachment_refresh(e, a);
    heap_remove(&e->deadlines, &a->timer.node);
    heap_insert(&e->deadlines, &a->timer.node, e->time.now_ms + grace_ms);
}

void attachment_detach(struct engine *e, const struct command *c) {
    struct attachment *a = map_get(&e->attachments, c->u.detach.attachment);
    if (a == NULL) return;
    if (c->u.detach.how != DETACH_KEEP) attachment_end(e, a, c->u.detach.how);
    else if (list_empty(&a->leases)) attachment_end(e, a, DETACH_RELEASE);
    else keep(e, a, c->u.detach.grace_ms);
}
