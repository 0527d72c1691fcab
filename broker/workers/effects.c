/* effects.c: effects of the engine become frames. */
#include "broker/workers/session.h"

/* tag_range and frame_range say the same on both sides of the wire. */
_Static_assert(sizeof(struct tag_range) == sizeof(struct frame_range), "same fields");
static const struct frame_range *ranges_of(const struct tag_range *r) {
    return (const struct frame_range *)(const void *)r;
}

static const char *message_of(const struct effect *e) {
    return e->message == NULL ? err_info((int)e->err).word : e->message;
}

static struct session_sub *entry_of(struct session *s, uint64_t attachment) {
    for (size_t i = 0; i < s->subs_count; i++) {
        if (s->subs[i].attachment == attachment) return &s->subs[i];
    }
    return NULL;
}

static void published(struct session *s, const struct effect *e) {
    struct workers *w = s->room;
    size_t count = e->u.published.count;
    for (size_t i = 0; i < count; i++) {
        w->seqs[i] = e->u.published.results[i].seq;
        w->duplicates[i] = e->u.published.results[i].duplicate;
    }
    frame_encode_published(session_out(s), e->route.rid, w->seqs, w->duplicates, count);
}

static void attached(struct session *s, const struct effect *e) {
    struct session_sub *entry = entry_of(s, e->u.attached.attachment);
    CHECK(entry != NULL && !entry->answered);
    if (e->err != ERR_OK) {
        session_error(s, entry->attach_rid, e->err, message_of(e), false);
    } else {
        struct frame f = {.op = FRAME_SUBSCRIBED, .rid = entry->attach_rid, .sub = entry->sub};
        f.u.subscribed.lease_ms = e->u.attached.lease_ms;
        f.u.subscribed.backlog = e->u.attached.backlog;
        f.u.subscribed.created = e->u.attached.created;
        f.u.subscribed.resumed = e->u.attached.resumed;
        frame_encode_subscribed(session_out(s), &f);
    }
    entry->answered = true;
    if (e->err != ERR_OK || entry->gone) session_sub_remove(s, entry);
}

/* Puts the event into the DELIVER frame that is being filled, or begins one. */
static void deliver(struct session *s, const struct effect *e) {
    uint32_t sub = e->route.rid;
    struct session_sub *entry = session_sub_find(s, sub);
    if (entry == NULL || entry->attachment != e->u.deliver.attachment) return;
    struct frame_item item = {
        .tag = e->u.deliver.tag,
        .fails = e->u.deliver.fails,
        .deliveries = e->u.deliver.deliveries,
        .flags = (e->u.deliver.replay ? FRAME_FLAG_REPLAY : 0u) |
                 (e->u.deliver.deliveries > 1 ? FRAME_FLAG_REDELIVERED : 0u) |
                 (e->u.deliver.redrive ? FRAME_FLAG_REDRIVEN : 0u),
        .event = e->u.deliver.event,
    };
    if (s->delivering &&
        (s->deliver_sub != sub || s->deliver_lease_ms != e->u.deliver.lease_ms ||
         s->out.len - s->deliver.start + item.event.body.len > LIMIT_DELIVER_BYTES)) {
        session_end_frame(s);
    }
    if (!s->delivering) {
        struct buf *out = session_out(s);
        s->deliver_sub = sub;
        s->deliver_lease_ms = e->u.deliver.lease_ms;
        s->delivering = frame_deliver_begin(&s->deliver, out, sub, s->deliver_lease_ms);
    }
    if (s->delivering) s->delivering = frame_deliver_add(&s->deliver, &item);
}

static void settled(struct session *s, const struct effect *e) {
    if (e->err != ERR_OK) {
        session_error(s, e->route.rid, e->err, message_of(e), false);
        return;
    }
    struct session_sub *entry = entry_of(s, e->u.settled.attachment);
    if (entry == NULL) return;
    frame_encode_settled(session_out(s), e->route.rid, entry->sub, ranges_of(e->u.settled.ok),
                         e->u.settled.ok_count, ranges_of(e->u.settled.already),
                         e->u.settled.already_count, ranges_of(e->u.settled.stale),
                         e->u.settled.stale_count);
}

/* A LEASE or REVOKE for one tag: put to the one that is being collected where it only follows. */
static void notice(struct session *s, struct session_notice next) {
    struct session_notice *n = &s->notice;
    if (n->op == next.op && n->sub == next.sub && n->remaining_ms == next.remaining_ms &&
        n->range.hi + 1 == next.range.lo && strcmp(n->reason, next.reason) == 0) {
        n->range.hi = next.range.hi;
        return;
    }
    session_end_frame(s);
    *n = next;
}

static void lease_soon(struct session *s, const struct effect *e) {
    const struct session_sub *entry = entry_of(s, e->u.lease_soon.attachment);
    if (entry == NULL) return;
    notice(s, (struct session_notice){
                  .op = FRAME_LEASE,
                  .sub = entry->sub,
                  .range = {e->u.lease_soon.tag, e->u.lease_soon.tag},
                  .remaining_ms = e->u.lease_soon.remaining_ms,
                  .reason = "",
              });
}

static void revoked(struct session *s, const struct effect *e) {
    const struct session_sub *entry = entry_of(s, e->u.revoked.attachment);
    if (entry == NULL) return;
    notice(s, (struct session_notice){
                  .op = FRAME_REVOKE,
                  .sub = entry->sub,
                  .range = {e->u.revoked.tag, e->u.revoked.tag},
                  .reason = e->u.revoked.reason,
              });
}

void session_effect(struct session *s, const struct effect *e) {
    struct session_sub *entry;
    session_touch(s);
    switch (e->kind) {
    case EFFECT_PUBLISHED:
        if (e->err == ERR_OK) published(s, e);
        else session_error(s, e->route.rid, e->err, message_of(e), false);
        break;
    case EFFECT_DONE:
        if (e->err == ERR_OK) frame_encode_ok(session_out(s), e->route.rid, e->u.done.id);
        else session_error(s, e->route.rid, e->err, message_of(e), false);
        break;
    case EFFECT_ATTACHED: attached(s, e); break;
    case EFFECT_DELIVER: deliver(s, e); break;
    case EFFECT_SETTLED: settled(s, e); break;
    case EFFECT_LEASE_SOON: lease_soon(s, e); break;
    case EFFECT_REVOKED: revoked(s, e); break;
    case EFFECT_ENDED:
        entry = entry_of(s, e->u.ended.attachment);
        if (entry == NULL) break;
        frame_encode_ended(session_out(s), entry->sub, e->err, slice_str(message_of(e)));
        session_sub_remove(s, entry);
        break;
    case EFFECT_JOB: break; /* the jobs' room's */
    }
}
