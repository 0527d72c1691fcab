/* What the user asks of the broker beside settling: publishing, replays, redrives.
 *
 * Each call encodes its frame at once, so that the user's bytes need not live longer, and queues
 * it. deliver_after_ms is the exception: what it means is known when the broker's clock is, so that
 * such a frame is written anew right before it leaves. */
#include <stdlib.h>

#include "clients/c/client.h"

/* A text of a message; false when it is above its limit. */
static bool text_of(const char *text, size_t max, struct slice *out) {
    *out = slice_str(text == NULL ? "" : text);
    return out->len <= max;
}

/* deliver_at_ms stays relative when it is deliver_after_ms. */
static bool event_of(const struct bellhop_message *m, struct event *e) {
    *e = (struct event){.time_ms = m->time_ms,
                        .deliver_at_ms = m->deliver_at_ms,
                        .body = slice_of(m->body, m->body_len)};
    if (m->deliver_after_ms > 0) {
        if (m->deliver_at_ms > 0 || m->deliver_after_ms > LIMIT_DELIVER_LATER_MS) return false;
        e->deliver_at_ms = m->deliver_after_ms;
    }
    return text_of(m->type, LIMIT_EVENT_TYPE_BYTES, &e->type) &&
           text_of(m->subject, LIMIT_EVENT_SUBJECT_BYTES, &e->subject) &&
           text_of(m->id, LIMIT_EVENT_ID_BYTES, &e->id) &&
           text_of(m->content_type, LIMIT_EVENT_CONTENT_TYPE_BYTES, &e->content_type) &&
           text_of(m->metadata, LIMIT_EVENT_METADATA_BYTES, &e->metadata) &&
           (m->body != NULL || m->body_len == 0);
}

/* Which messages count from now; NULL: none. The caller frees it. */
static bool *relative_of(const struct bellhop_message *messages, size_t count) {
    bool *relative = NULL;
    for (size_t i = 0; i < count; i++) {
        if (messages[i].deliver_after_ms == 0) continue;
        if (relative == NULL) relative = mem_zalloc(count * sizeof *relative);
        relative[i] = true;
    }
    return relative;
}

int bellhop_publish(struct bellhop *c, const struct bellhop_message *messages, size_t count,
                    bellhop_published *done, void *ctx) {
    if (count == 0 || count > LIMIT_PUBLISH_EVENTS || messages == NULL) return BELLHOP_EARGUMENT;
    if (c->phase == BH_STOPPED || c->leave == BH_LEAVE_STOP) return BELLHOP_ECLOSED;
    struct event *events = mem_alloc(count * sizeof *events);
    bool good = true;
    for (size_t i = 0; i < count && good; i++) good = event_of(&messages[i], &events[i]);
    struct bh_request *r = bh_request_new(c, BH_PUBLISH);
    good = good && frame_encode_publish(&r->frame, r->rid, events, count);
    free(events);
    r->relative = relative_of(messages, count);
    r->asked_at_ms = bh_clock_ms();
    r->published = done;
    r->ctx = ctx;
    return bh_request_queue(c, r, good);
}

bool bh_publish_resolve(struct bellhop *c, struct bh_request *r) {
    struct frame f;
    const char *why;
    struct buf resolved;
    if (r->relative == NULL) return true;
    if (frame_decode(c->decoder, buf_slice(&r->frame), &f, &why) != ERR_OK) return false;
    size_t count = f.u.publish.count;
    struct event *events = mem_alloc(count * sizeof *events);
    for (size_t i = 0; i < count; i++) {
        events[i] = f.u.publish.events[i];
        if (r->relative[i]) events[i].deliver_at_ms += c->clock_ms + r->asked_at_ms;
    }
    buf_init(&resolved, r->frame.max);
    bool ok = frame_encode_publish(&resolved, r->rid, events, count);
    free(events);
    buf_free(&r->frame);
    r->frame = resolved;
    return ok;
}

/* The options that replays and redrives have in common. */
static bool text_and_rate(const char *filter, uint64_t rate_per_s, struct slice *out) {
    *out = slice_str(filter == NULL ? "" : filter);
    return out->len <= LIMIT_FILTER_BYTES && rate_per_s <= LIMIT_RATE_PER_S;
}

static int start_task(struct bellhop *c, struct bh_request *r, bool encoded,
                      bellhop_task_started *done, void *ctx) {
    r->started = done;
    r->ctx = ctx;
    return bh_request_queue(c, r, encoded);
}

int bellhop_replay(struct bellhop *c, const char *subscription,
                   const struct bellhop_replay_options *o, bellhop_task_started *done, void *ctx) {
    struct frame f = {0};
    if (!bh_name_is_usable(subscription) || o == NULL) return BELLHOP_EARGUMENT;
    bool seqs = o->from_seq > 0, times = o->from_time_ms > 0;
    if (seqs == times || (!seqs && o->to_seq > 0) || (!times && o->to_time_ms > 0) ||
        !text_and_rate(o->filter, o->rate_per_s, &f.u.replay.filter)) {
        return BELLHOP_EARGUMENT;
    }
    if (c->phase == BH_STOPPED || c->leave == BH_LEAVE_STOP) return BELLHOP_ECLOSED;
    struct bh_request *r = bh_request_new(c, BH_TASK);
    f.rid = r->rid;
    f.u.replay.name = slice_str(subscription);
    f.u.replay.from_seq = o->from_seq;
    f.u.replay.to_seq = o->to_seq;
    f.u.replay.from_time_ms = o->from_time_ms;
    f.u.replay.to_time_ms = o->to_time_ms;
    f.u.replay.rate_per_s = o->rate_per_s;
    f.u.replay.dry_run = o->dry_run;
    return start_task(c, r, frame_encode_replay(&r->frame, &f), done, ctx);
}

int bellhop_redrive(struct bellhop *c, const char *subscription,
                    const struct bellhop_redrive_options *o, bellhop_task_started *done,
                    void *ctx) {
    static const struct bellhop_redrive_options all;
    struct frame f = {0};
    if (o == NULL) o = &all;
    if (!bh_name_is_usable(subscription) ||
        !text_and_rate(o->filter, o->rate_per_s, &f.u.redrive.filter)) {
        return BELLHOP_EARGUMENT;
    }
    if (c->phase == BH_STOPPED || c->leave == BH_LEAVE_STOP) return BELLHOP_ECLOSED;
    struct bh_request *r = bh_request_new(c, BH_TASK);
    f.rid = r->rid;
    f.u.redrive.name = slice_str(subscription);
    f.u.redrive.seq = o->seq;
    f.u.redrive.rate_per_s = o->rate_per_s;
    return start_task(c, r, frame_encode_redrive(&r->frame, &f), done, ctx);
}
