/* The frames of the broker. Types are checked; sizes are the broker's business, so that a newer
 * one may raise a limit without breaking its clients. */
#include "base/check.h"
#include "proto/frame_decode.h"

#define U32 UINT32_MAX
#define U64 UINT64_MAX

#define ITEM_FIELDS 15 /* of DELIVER */

static uint32_t read_sub(struct fields *in) {
    return (uint32_t)need_uint(in, U32, "sub: want an unsigned integer of 32 bits");
}

void decode_welcome(struct frame_decoder *d, struct fields *in, struct frame *f) {
    uint32_t outer;
    struct slice key;
    (void)d;
    if (!fields_enter_map(in, false, &outer, "WELCOME: want a map")) return;
    while (fields_key(in, &key)) {
        uint64_t *number = NULL;
        struct slice *text = NULL;
        if (slice_eq_str(key, "version")) number = &f->u.welcome.version;
        else if (slice_eq_str(key, "server")) text = &f->u.welcome.server;
        else if (slice_eq_str(key, "session")) text = &f->u.welcome.session;
        else if (slice_eq_str(key, "auth")) text = &f->u.welcome.auth;
        else if (slice_eq_str(key, "nonce")) text = &f->u.welcome.nonce;
        else if (slice_eq_str(key, "heartbeat_ms")) number = &f->u.welcome.heartbeat_ms;
        else if (slice_eq_str(key, "max_frame_bytes")) number = &f->u.welcome.frame_max_bytes;
        else if (slice_eq_str(key, "now_ms")) number = &f->u.welcome.now_ms;
        else if (slice_eq_str(key, "resume_ms")) number = &f->u.welcome.resume_ms;
        if (number != NULL) *number = opt_uint(in, 0, U64, "WELCOME: want an integer");
        else if (text != NULL) *text = opt_bytes(in, "WELCOME: want text");
        else fields_skip(in);
    }
    fields_leave(in, outer);
}

void decode_challenge(struct frame_decoder *d, struct fields *in, struct frame *f) {
    (void)d;
    f->u.challenge.mechanism = need_bytes(in, "mechanism: want text");
    f->u.challenge.nonce = need_bytes(in, "nonce: want bin");
}

void decode_ok(struct frame_decoder *d, struct fields *in, struct frame *f) {
    (void)d;
    f->u.ok.value = opt_uint(in, 0, U64, "value: want an integer");
}

void decode_err(struct frame_decoder *d, struct fields *in, struct frame *f) {
    (void)d;
    f->u.err.number = (int)need_uint(in, INT32_MAX, "number: want an integer");
    f->u.err.word = opt_bytes(in, "word: want text");
    f->u.err.message = opt_bytes(in, "message: want text");
    f->u.err.retry_ms = opt_uint(in, 0, U64, "retry_ms: want an integer");
    f->u.err.fatal = opt_bool(in, false, "fatal: want true or false");
}

void decode_subscribed(struct frame_decoder *d, struct fields *in, struct frame *f) {
    uint32_t outer;
    struct slice key;
    (void)d;
    f->sub = read_sub(in);
    if (!fields_enter_map(in, false, &outer, "SUBSCRIBED: want a map")) return;
    while (fields_key(in, &key)) {
        if (slice_eq_str(key, "lease_ms")) {
            f->u.subscribed.lease_ms = opt_uint(in, 0, U64, "lease_ms: want an integer");
        } else if (slice_eq_str(key, "backlog")) {
            f->u.subscribed.backlog = opt_uint(in, 0, U64, "backlog: want an integer");
        } else if (slice_eq_str(key, "created")) {
            f->u.subscribed.created = opt_bool(in, false, "created: want true or false");
        } else if (slice_eq_str(key, "resumed")) {
            f->u.subscribed.resumed = opt_uint(in, 0, U64, "resumed: want an integer");
        } else {
            fields_skip(in);
        }
    }
    fields_leave(in, outer);
}

/* Into place n of the decoder's items. */
static void read_item(struct frame_decoder *d, struct fields *in, size_t n) {
    void *items = d->items;
    frame_grow(&items, &d->items_cap, n, sizeof(struct frame_item));
    d->items = items;
    struct frame_item *item = &d->items[n];
    struct event *e = &item->event;
    uint32_t outer;
    *item = (struct frame_item){0};
    if (!fields_enter_array(in, false, &outer, "item: want an array")) return;
    if (in->left < ITEM_FIELDS) fields_fail(in, ERR_BAD_FRAME, "item: want fifteen fields");
    item->tag = need_uint(in, U64, "tag: want an integer");
    e->seq = need_uint(in, U64, "seq: want an integer");
    e->received_at_ms = opt_uint(in, 0, U64, "received_at_ms: want an integer");
    item->fails = (uint32_t)opt_uint(in, 0, U32, "fails: want an integer");
    item->deliveries = (uint32_t)opt_uint(in, 0, U32, "deliveries: want an integer");
    item->flags = (uint32_t)opt_uint(in, 0, U32, "flags: want an integer");
    e->type = opt_bytes(in, "type: want text");
    e->id = opt_bytes(in, "id: want text");
    e->source = opt_bytes(in, "source: want text");
    e->subject = opt_bytes(in, "subject: want text");
    e->time_ms = opt_uint(in, 0, U64, "time_ms: want an integer");
    e->content_type = opt_bytes(in, "content_type: want text");
    e->metadata = opt_bytes(in, "metadata: want JSON text");
    e->headers = opt_bytes(in, "headers: want JSON text");
    e->body = opt_bytes(in, "body: want bin");
    fields_leave(in, outer);
}

void decode_deliver(struct frame_decoder *d, struct fields *in, struct frame *f) {
    uint32_t outer;
    size_t n = 0;
    f->sub = read_sub(in);
    f->u.deliver.lease_ms = need_uint(in, U64, "lease_ms: want an integer");
    if (!fields_enter_array(in, false, &outer, "items: want an array")) return;
    while (in->err == ERR_OK && in->left > 0) read_item(d, in, n++);
    fields_leave(in, outer);
    f->u.deliver.items = d->items;
    f->u.deliver.count = n;
}

void decode_settled(struct frame_decoder *d, struct fields *in, struct frame *f) {
    f->sub = read_sub(in);
    frame_read_ranges(d, in, 0, true, SIZE_MAX, &f->ranges, &f->ranges_count);
    frame_read_ranges(d, in, 1, true, SIZE_MAX, &f->u.settled.already, &f->u.settled.already_count);
    frame_read_ranges(d, in, 2, true, SIZE_MAX, &f->u.settled.stale, &f->u.settled.stale_count);
}

void decode_lease(struct frame_decoder *d, struct fields *in, struct frame *f) {
    f->sub = read_sub(in);
    frame_read_ranges(d, in, 0, false, SIZE_MAX, &f->ranges, &f->ranges_count);
    f->u.lease.remaining_ms = need_uint(in, U64, "remaining_ms: want an integer");
}

/* The request and its answer have one op: what follows sub tells them apart. */
void decode_state(struct frame_decoder *d, struct fields *in, struct frame *f) {
    uint32_t outer;
    struct slice key;
    (void)d;
    f->sub = read_sub(in);
    if (!fields_is_map(in)) {
        f->u.state.watch = opt_bool(in, false, "watch: want true or false");
        return;
    }
    f->u.state.answer = true;
    if (!fields_enter_map(in, false, &outer, "STATE: want a map")) return;
    while (fields_key(in, &key)) {
        uint64_t *count = NULL;
        double *rate = NULL;
        if (slice_eq_str(key, "ready")) count = &f->u.state.ready;
        else if (slice_eq_str(key, "leased")) count = &f->u.state.leased;
        else if (slice_eq_str(key, "delayed")) count = &f->u.state.delayed;
        else if (slice_eq_str(key, "blocked")) count = &f->u.state.blocked;
        else if (slice_eq_str(key, "dead")) count = &f->u.state.dead;
        else if (slice_eq_str(key, "backlog")) count = &f->u.state.backlog;
        else if (slice_eq_str(key, "oldest_ms")) count = &f->u.state.oldest_ms;
        else if (slice_eq_str(key, "in_per_s")) rate = &f->u.state.in_per_s;
        else if (slice_eq_str(key, "out_per_s")) rate = &f->u.state.out_per_s;
        if (count != NULL) *count = opt_uint(in, 0, U64, "STATE: want an integer");
        else if (rate != NULL) *rate = opt_number(in, 0, "STATE: want a number");
        else if (slice_eq_str(key, "paused"))
            f->u.state.paused = opt_bool(in, false, "paused: want true or false");
        else if (slice_eq_str(key, "why_idle"))
            f->u.state.why_idle = opt_bytes(in, "why_idle: want text");
        else fields_skip(in);
    }
    fields_leave(in, outer);
}

void decode_revoke(struct frame_decoder *d, struct fields *in, struct frame *f) {
    f->sub = read_sub(in);
    frame_read_ranges(d, in, 0, false, SIZE_MAX, &f->ranges, &f->ranges_count);
    f->u.revoke.reason = opt_bytes(in, "reason: want text");
}

void decode_published(struct frame_decoder *d, struct fields *in, struct frame *f) {
    uint32_t outer;
    size_t n = 0;
    if (!fields_enter_array(in, false, &outer, "seqs: want an array")) return;
    while (in->err == ERR_OK && in->left > 0) {
        void *seqs = d->seqs, *duplicates = d->duplicates;
        frame_grow(&seqs, &d->seqs_cap, n, sizeof(uint64_t));
        d->seqs = seqs;
        frame_grow(&duplicates, &d->duplicates_cap, n, sizeof(bool));
        d->duplicates = duplicates;
        d->seqs[n] = need_uint(in, U64, "seqs: want integers");
        d->duplicates[n++] = false;
    }
    fields_leave(in, outer);
    f->u.published.seqs = d->seqs;
    f->u.published.duplicates = d->duplicates;
    f->u.published.count = n;
    if (!fields_enter_array(in, true, &outer, "duplicates: want an array")) return;
    while (in->err == ERR_OK && in->left > 0) {
        uint64_t index = need_uint(in, U64, "duplicates: want integers");
        if (in->err == ERR_OK && index >= n) {
            fields_fail(in, ERR_BAD_FRAME, "duplicates: an index without a seq");
        }
        if (in->err == ERR_OK) d->duplicates[index] = true;
    }
    fields_leave(in, outer);
}

void decode_quiet(struct frame_decoder *d, struct fields *in, struct frame *f) {
    (void)d;
    f->u.quiet.reason = opt_bytes(in, "reason: want text");
    f->u.quiet.deadline_ms = opt_uint(in, 0, U64, "deadline_ms: want an integer");
}

void decode_goaway(struct frame_decoder *d, struct fields *in, struct frame *f) {
    (void)d;
    f->u.goaway.reason = opt_bytes(in, "reason: want text");
    f->u.goaway.reconnect_ms = opt_uint(in, 0, U64, "reconnect_ms: want an integer");
}

void decode_ended(struct frame_decoder *d, struct fields *in, struct frame *f) {
    (void)d;
    f->sub = read_sub(in);
    f->u.ended.number = (int)need_uint(in, INT32_MAX, "number: want an integer");
    f->u.ended.message = opt_bytes(in, "message: want text");
}

void decode_job_event(struct frame_decoder *d, struct fields *in, struct frame *f) {
    uint32_t outer;
    struct slice key;
    if (!fields_enter_map(in, false, &outer, "JOB_EVENT: want a map")) return;
    while (fields_key(in, &key)) {
        if (slice_eq_str(key, "state")) {
            f->u.job_event.state = opt_bytes(in, "state: want text");
        } else if (slice_eq_str(key, "overdue")) {
            f->u.job_event.overdue = opt_bool(in, false, "overdue: want true or false");
        } else if (slice_eq_str(key, "seq")) {
            f->u.job_event.seq = opt_uint(in, 0, U64, "seq: want an integer");
        } else {
            fields_skip(in);
        }
    }
    fields_leave(in, outer);
    if (!fields_is_array(in)) {
        fields_skip(in);
        return;
    }
    read_item(d, in, 0);
    f->u.job_event.item = &d->items[0];
}
