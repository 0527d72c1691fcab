/* Encoding: msgpack-c's packer writes into the buf. The length in front of a frame is filled in
 * when the frame is whole; when the buf refuses anything the buf is cut back to where it was. */
#include <msgpack.h>

#include "base/check.h"
#include "proto/frame.h"
#include "proto/limits.h"

#define PREFIX_BYTES 4
#define RETRY_MS     1000 /* what ERR proposes for errors that may pass */

struct writer {
    msgpack_packer pk;
    struct buf *b;
    size_t start;
    bool failed;
};

static int on_write(void *data, const char *bytes, size_t len) {
    struct writer *w = data;
    if (!w->failed && !buf_append(w->b, bytes, len)) w->failed = true;
    return w->failed ? -1 : 0;
}

static void put_be32(uint8_t *at, size_t value) {
    CHECK(value <= UINT32_MAX);
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

static void put_uint(struct writer *w, uint64_t value) {
    msgpack_pack_uint64(&w->pk, value);
}

static void put_bool(struct writer *w, bool value) {
    if (value) msgpack_pack_true(&w->pk);
    else msgpack_pack_false(&w->pk);
}

static void put_text(struct writer *w, struct slice s) {
    msgpack_pack_str(&w->pk, s.len);
    msgpack_pack_str_body(&w->pk, s.data, s.len);
}

static void put_str(struct writer *w, const char *text) {
    put_text(w, slice_str(text));
}

static void put_bin(struct writer *w, struct slice s) {
    msgpack_pack_bin(&w->pk, s.len);
    msgpack_pack_bin_body(&w->pk, s.data, s.len);
}

static void put_array(struct writer *w, size_t count) {
    msgpack_pack_array(&w->pk, count);
}

static void put_map(struct writer *w, size_t pairs) {
    msgpack_pack_map(&w->pk, pairs);
}

static void put_ranges(struct writer *w, const struct frame_range *ranges, size_t count) {
    put_array(w, count * 2);
    for (size_t i = 0; i < count; i++) {
        put_uint(w, ranges[i].lo);
        put_uint(w, ranges[i].hi);
    }
}

static void put_key_uint(struct writer *w, const char *key, uint64_t value) {
    put_str(w, key);
    put_uint(w, value);
}

static void put_key_text(struct writer *w, const char *key, struct slice value) {
    put_str(w, key);
    put_text(w, value);
}

static void put_key_number(struct writer *w, const char *key, double value) {
    put_str(w, key);
    msgpack_pack_double(&w->pk, value);
}

static void put_key_bool(struct writer *w, const char *key, bool value) {
    put_str(w, key);
    put_bool(w, value);
}

/* Maps of options: only what was given is written. */
struct option {
    const char *key;
    uint64_t number; /* unless text is set; 0: not given */
    struct slice text;
    bool flag; /* write `true` */
};

static bool option_given(const struct option *o) {
    return o->number != 0 || o->text.len > 0 || o->flag;
}

static size_t options_given(const struct option *options, size_t count) {
    size_t given = 0;
    for (size_t i = 0; i < count; i++) given += option_given(&options[i]);
    return given;
}

static void put_options(struct writer *w, const struct option *options, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const struct option *o = &options[i];
        if (!option_given(o)) continue;
        if (o->flag) put_key_bool(w, o->key, true);
        else if (o->text.len > 0) put_key_text(w, o->key, o->text);
        else put_key_uint(w, o->key, o->number);
    }
}

/* Starts a frame of `fields` fields, op and rid not counted. */
static void begin(struct writer *w, struct buf *b, enum frame_op op, uint32_t rid, size_t fields) {
    static const uint8_t prefix[PREFIX_BYTES];
    w->b = b;
    w->start = b->len;
    w->failed = !buf_append(b, prefix, sizeof prefix);
    msgpack_packer_init(&w->pk, w, on_write);
    put_array(w, 2 + fields);
    put_uint(w, op);
    put_uint(w, rid);
}

static bool end(struct writer *w) {
    if (w->failed) {
        w->b->len = w->start;
        return false;
    }
    put_be32(w->b->data + w->start, w->b->len - w->start - PREFIX_BYTES);
    return true;
}

bool frame_encode_hello(struct buf *b, uint32_t rid, const char *client_name,
                        const char *client_version, uint64_t heartbeat_ms, uint64_t resume_ms,
                        struct slice resume) {
    const struct option options[] = {{.key = "resume_ms", .number = resume_ms},
                                     {.key = "resume", .text = resume}};
    size_t count = sizeof options / sizeof options[0];
    struct writer w;
    begin(&w, b, FRAME_HELLO, rid, 1);
    put_map(&w, 6 + options_given(options, count));
    put_key_uint(&w, "min", FRAME_VERSION);
    put_key_uint(&w, "max", FRAME_VERSION);
    put_key_text(&w, "name", slice_str(client_name));
    put_key_text(&w, "version", slice_str(client_version));
    put_key_uint(&w, "heartbeat_ms", heartbeat_ms);
    put_str(&w, "features");
    put_array(&w, 0);
    put_options(&w, options, count);
    return end(&w);
}

bool frame_encode_auth(struct buf *b, const struct frame *f) {
    struct writer w;
    begin(&w, b, FRAME_AUTH, f->rid, 4);
    put_text(&w, f->u.auth.mechanism);
    put_text(&w, f->u.auth.key_id);
    put_bin(&w, f->u.auth.proof);
    put_bin(&w, f->u.auth.nonce);
    return end(&w);
}

static void put_claims(struct writer *w, const struct frame_claim *claims, size_t count) {
    put_str(w, "claims");
    put_array(w, count * 3);
    for (size_t i = 0; i < count; i++) {
        put_uint(w, claims[i].tag);
        put_uint(w, claims[i].seq);
        put_uint(w, claims[i].flags);
    }
}

bool frame_encode_subscribe(struct buf *b, const struct frame *f) {
    const struct option options[] = {{.key = "lease_ms", .number = f->u.subscribe.lease_ms},
                                     {.key = "create", .text = f->u.subscribe.create}};
    size_t count = sizeof options / sizeof options[0];
    bool claims = f->u.subscribe.claims_count > 0;
    struct writer w;
    begin(&w, b, FRAME_SUBSCRIBE, f->rid, 5);
    put_uint(&w, f->sub);
    put_text(&w, f->u.subscribe.name);
    put_uint(&w, f->u.subscribe.window_events);
    put_uint(&w, f->u.subscribe.window_bytes);
    put_map(&w, 1 + options_given(options, count) + (size_t)claims);
    put_key_uint(&w, "concurrency", f->u.subscribe.concurrency);
    put_options(&w, options, count);
    if (claims) put_claims(&w, f->u.subscribe.claims, f->u.subscribe.claims_count);
    return end(&w);
}

bool frame_encode_window(struct buf *b, uint32_t rid, uint32_t sub, uint64_t events,
                         uint64_t bytes) {
    struct writer w;
    begin(&w, b, FRAME_WINDOW, rid, 3);
    put_uint(&w, sub);
    put_uint(&w, events);
    put_uint(&w, bytes);
    return end(&w);
}

bool frame_encode_ack(struct buf *b, uint32_t rid, uint32_t sub, const struct frame_range *ranges,
                      size_t count, bool confirm) {
    struct writer w;
    begin(&w, b, FRAME_ACK, rid, 3);
    put_uint(&w, sub);
    put_ranges(&w, ranges, count);
    put_bool(&w, confirm);
    return end(&w);
}

static void put_failure(struct writer *w, const struct frame_failure *failure) {
    bool message = failure != NULL && failure->message.len > 0;
    bool more = failure != NULL && failure->type.len + failure->detail.len > 0;
    if (more) {
        put_array(w, 3);
        put_text(w, failure->type);
        put_text(w, failure->message);
        put_text(w, failure->detail);
    } else if (message) {
        put_text(w, failure->message);
    } else {
        msgpack_pack_nil(&w->pk);
    }
}

bool frame_encode_nack(struct buf *b, uint32_t rid, uint32_t sub, const struct frame_range *ranges,
                       size_t count, enum frame_nack_kind kind, uint64_t delay_ms,
                       const struct frame_failure *failure, bool confirm) {
    struct writer w;
    begin(&w, b, FRAME_NACK, rid, 6);
    put_uint(&w, sub);
    put_ranges(&w, ranges, count);
    put_uint(&w, kind);
    if (delay_ms == FRAME_DELAY_POLICY) msgpack_pack_nil(&w.pk);
    else put_uint(&w, delay_ms);
    put_failure(&w, failure);
    put_bool(&w, confirm);
    return end(&w);
}

bool frame_encode_extend(struct buf *b, uint32_t rid, uint32_t sub,
                         const struct frame_range *ranges, size_t count, uint64_t lease_ms,
                         bool confirm) {
    struct writer w;
    begin(&w, b, FRAME_EXTEND, rid, 4);
    put_uint(&w, sub);
    put_ranges(&w, ranges, count);
    put_uint(&w, lease_ms);
    put_bool(&w, confirm);
    return end(&w);
}

bool frame_encode_unsubscribe(struct buf *b, uint32_t rid, uint32_t sub) {
    struct writer w;
    begin(&w, b, FRAME_UNSUBSCRIBE, rid, 1);
    put_uint(&w, sub);
    return end(&w);
}

bool frame_encode_publish(struct buf *b, uint32_t rid, const struct event *events, size_t count) {
    struct writer w;
    begin(&w, b, FRAME_PUBLISH, rid, 1);
    put_array(&w, count);
    for (size_t i = 0; i < count && !w.failed; i++) {
        const struct event *e = &events[i];
        put_array(&w, 8);
        put_text(&w, e->type);
        put_text(&w, e->subject);
        put_text(&w, e->id);
        put_text(&w, e->content_type);
        put_text(&w, e->metadata);
        put_uint(&w, e->time_ms);
        put_uint(&w, e->deliver_at_ms);
        put_bin(&w, e->body);
    }
    return end(&w);
}

bool frame_encode_replay(struct buf *b, const struct frame *f) {
    const struct option options[] = {{.key = "from_seq", .number = f->u.replay.from_seq},
                                     {.key = "to_seq", .number = f->u.replay.to_seq},
                                     {.key = "from_time_ms", .number = f->u.replay.from_time_ms},
                                     {.key = "to_time_ms", .number = f->u.replay.to_time_ms},
                                     {.key = "filter", .text = f->u.replay.filter},
                                     {.key = "rate", .number = f->u.replay.rate_per_s},
                                     {.key = "dry_run", .flag = f->u.replay.dry_run}};
    size_t count = sizeof options / sizeof options[0];
    struct writer w;
    begin(&w, b, FRAME_REPLAY, f->rid, 2);
    put_text(&w, f->u.replay.name);
    put_map(&w, options_given(options, count));
    put_options(&w, options, count);
    return end(&w);
}

bool frame_encode_redrive(struct buf *b, const struct frame *f) {
    const struct option options[] = {{.key = "seq", .number = f->u.redrive.seq},
                                     {.key = "filter", .text = f->u.redrive.filter},
                                     {.key = "rate", .number = f->u.redrive.rate_per_s}};
    size_t count = sizeof options / sizeof options[0];
    struct writer w;
    begin(&w, b, FRAME_REDRIVE, f->rid, 2);
    put_text(&w, f->u.redrive.name);
    put_map(&w, options_given(options, count));
    put_options(&w, options, count);
    return end(&w);
}

bool frame_encode_state_request(struct buf *b, uint32_t rid, uint32_t sub, bool watch) {
    struct writer w;
    begin(&w, b, FRAME_STATE, rid, 2);
    put_uint(&w, sub);
    put_bool(&w, watch);
    return end(&w);
}

bool frame_encode_wait(struct buf *b, const struct frame *f) {
    size_t types = f->u.wait.types_count;
    struct writer w;
    begin(&w, b, FRAME_WAIT, f->rid, 2);
    put_text(&w, f->u.wait.id);
    put_map(&w, 1 + (size_t)(types > 0) + (size_t)(f->u.wait.after_seq > 0));
    put_key_uint(&w, "timeout_ms", f->u.wait.timeout_ms);
    if (f->u.wait.after_seq > 0) put_key_uint(&w, "after_seq", f->u.wait.after_seq);
    if (types > 0) {
        put_str(&w, "types");
        put_array(&w, types);
    }
    for (size_t i = 0; i < types; i++) put_text(&w, f->u.wait.types[i]);
    return end(&w);
}

bool frame_encode_plain(struct buf *b, enum frame_op op, uint32_t rid) {
    struct writer w;
    CHECK(op == FRAME_PING || op == FRAME_PONG || op == FRAME_DRAIN || op == FRAME_CLOSE ||
          op == FRAME_DRAINED);
    begin(&w, b, op, rid, 0);
    return end(&w);
}

bool frame_encode_welcome(struct buf *b, uint32_t rid, const struct frame *f) {
    struct writer w;
    begin(&w, b, FRAME_WELCOME, rid, 1);
    put_map(&w, 10);
    put_key_uint(&w, "version", f->u.welcome.version);
    put_key_text(&w, "server", f->u.welcome.server);
    put_key_text(&w, "session", f->u.welcome.session);
    put_key_text(&w, "auth", f->u.welcome.auth);
    put_str(&w, "nonce");
    put_bin(&w, f->u.welcome.nonce);
    put_key_uint(&w, "heartbeat_ms", f->u.welcome.heartbeat_ms);
    put_key_uint(&w, "max_frame_bytes", f->u.welcome.frame_max_bytes);
    put_key_uint(&w, "now_ms", f->u.welcome.now_ms);
    put_key_uint(&w, "resume_ms", f->u.welcome.resume_ms);
    put_str(&w, "features");
    put_array(&w, 0);
    return end(&w);
}

bool frame_encode_challenge(struct buf *b, uint32_t rid, struct slice mechanism,
                            struct slice nonce) {
    struct writer w;
    begin(&w, b, FRAME_CHALLENGE, rid, 2);
    put_text(&w, mechanism);
    put_bin(&w, nonce);
    return end(&w);
}

bool frame_encode_ok(struct buf *b, uint32_t rid, uint64_t value) {
    struct writer w;
    begin(&w, b, FRAME_OK, rid, 1);
    put_uint(&w, value);
    return end(&w);
}

bool frame_encode_err(struct buf *b, uint32_t rid, enum err err, struct slice message, bool fatal) {
    struct err_info info = err_info((int)err);
    struct writer w;
    begin(&w, b, FRAME_ERR, rid, 5);
    put_uint(&w, (uint64_t)err);
    put_str(&w, info.word);
    put_text(&w, message);
    put_uint(&w, info.retryable ? RETRY_MS : 0);
    put_bool(&w, fatal);
    return end(&w);
}

bool frame_encode_subscribed(struct buf *b, const struct frame *f) {
    struct writer w;
    begin(&w, b, FRAME_SUBSCRIBED, f->rid, 2);
    put_uint(&w, f->sub);
    put_map(&w, 4);
    put_key_uint(&w, "lease_ms", f->u.subscribed.lease_ms);
    put_key_uint(&w, "backlog", f->u.subscribed.backlog);
    put_key_bool(&w, "created", f->u.subscribed.created);
    put_key_uint(&w, "resumed", f->u.subscribed.resumed);
    return end(&w);
}

bool frame_encode_settled(struct buf *b, uint32_t rid, uint32_t sub, const struct frame_range *ok,
                          size_t ok_count, const struct frame_range *already, size_t already_count,
                          const struct frame_range *stale, size_t stale_count) {
    struct writer w;
    begin(&w, b, FRAME_SETTLED, rid, 4);
    put_uint(&w, sub);
    put_ranges(&w, ok, ok_count);
    put_ranges(&w, already, already_count);
    put_ranges(&w, stale, stale_count);
    return end(&w);
}

bool frame_encode_lease(struct buf *b, uint32_t sub, const struct frame_range *ranges, size_t count,
                        uint64_t remaining_ms) {
    struct writer w;
    begin(&w, b, FRAME_LEASE, 0, 3);
    put_uint(&w, sub);
    put_ranges(&w, ranges, count);
    put_uint(&w, remaining_ms);
    return end(&w);
}

bool frame_encode_state(struct buf *b, const struct frame *f) {
    struct writer w;
    begin(&w, b, FRAME_STATE, f->rid, 2);
    put_uint(&w, f->sub);
    put_map(&w, 11);
    put_key_uint(&w, "ready", f->u.state.ready);
    put_key_uint(&w, "leased", f->u.state.leased);
    put_key_uint(&w, "delayed", f->u.state.delayed);
    put_key_uint(&w, "blocked", f->u.state.blocked);
    put_key_uint(&w, "dead", f->u.state.dead);
    put_key_uint(&w, "backlog", f->u.state.backlog);
    put_key_uint(&w, "oldest_ms", f->u.state.oldest_ms);
    put_key_number(&w, "in_per_s", f->u.state.in_per_s);
    put_key_number(&w, "out_per_s", f->u.state.out_per_s);
    put_key_bool(&w, "paused", f->u.state.paused);
    put_key_text(&w, "why_idle", f->u.state.why_idle);
    return end(&w);
}

bool frame_encode_quiet(struct buf *b, const char *reason, uint64_t deadline_ms) {
    struct writer w;
    begin(&w, b, FRAME_QUIET, 0, 2);
    put_str(&w, reason);
    put_uint(&w, deadline_ms);
    return end(&w);
}

bool frame_encode_revoke(struct buf *b, uint32_t sub, const struct frame_range *ranges,
                         size_t count, const char *reason) {
    struct writer w;
    begin(&w, b, FRAME_REVOKE, 0, 3);
    put_uint(&w, sub);
    put_ranges(&w, ranges, count);
    put_str(&w, reason);
    return end(&w);
}

bool frame_encode_published(struct buf *b, uint32_t rid, const uint64_t *seqs,
                            const bool *duplicates, size_t count) {
    struct writer w;
    size_t repeated = 0;
    begin(&w, b, FRAME_PUBLISHED, rid, 2);
    put_array(&w, count);
    for (size_t i = 0; i < count; i++) {
        put_uint(&w, seqs[i]);
        repeated += duplicates[i];
    }
    put_array(&w, repeated);
    for (size_t i = 0; i < count; i++) {
        if (duplicates[i]) put_uint(&w, i);
    }
    return end(&w);
}

bool frame_encode_goaway(struct buf *b, const char *reason, uint64_t reconnect_ms) {
    struct writer w;
    begin(&w, b, FRAME_GOAWAY, 0, 2);
    put_str(&w, reason);
    put_uint(&w, reconnect_ms);
    return end(&w);
}

bool frame_encode_ended(struct buf *b, uint32_t sub, enum err err, struct slice message) {
    struct writer w;
    begin(&w, b, FRAME_ENDED, 0, 3);
    put_uint(&w, sub);
    put_uint(&w, (uint64_t)err);
    put_text(&w, message);
    return end(&w);
}

static void put_item(struct writer *w, const struct frame_item *item) {
    const struct event *e = &item->event;
    put_array(w, 15);
    put_uint(w, item->tag);
    put_uint(w, e->seq);
    put_uint(w, e->received_at_ms);
    put_uint(w, item->fails);
    put_uint(w, item->deliveries);
    put_uint(w, item->flags);
    put_text(w, e->type);
    put_text(w, e->id);
    put_text(w, e->source);
    put_text(w, e->subject);
    put_uint(w, e->time_ms);
    put_text(w, e->content_type);
    put_text(w, e->metadata);
    put_text(w, e->headers);
    put_bin(w, e->body);
}

bool frame_encode_job_event(struct buf *b, const struct frame *f) {
    const struct frame_item *item = f->u.job_event.item;
    bool seq = f->u.job_event.seq > 0;
    struct writer w;
    begin(&w, b, FRAME_JOB_EVENT, f->rid, item != NULL ? 2 : 1);
    put_map(&w, 2 + (size_t)seq);
    put_key_text(&w, "state", f->u.job_event.state);
    put_key_bool(&w, "overdue", f->u.job_event.overdue);
    if (seq) put_key_uint(&w, "seq", f->u.job_event.seq);
    if (item != NULL) put_item(&w, item);
    return end(&w);
}

bool frame_deliver_begin(struct frame_deliver *d, struct buf *b, uint32_t sub, uint64_t lease_ms) {
    /* array 32, however few the items will be: the count has a fixed place to be filled in. */
    static const uint8_t items[5] = {0xdd};
    struct writer w;
    begin(&w, b, FRAME_DELIVER, 0, 3);
    put_uint(&w, sub);
    put_uint(&w, lease_ms);
    on_write(&w, (const char *)items, sizeof items);
    *d = (struct frame_deliver){.b = b, .start = w.start, .count_at = b->len - 4};
    if (end(&w)) return true;
    d->b = NULL;
    return false;
}

bool frame_deliver_add(struct frame_deliver *d, const struct frame_item *item) {
    struct writer w = {.b = d->b, .start = d->start};
    if (d->b == NULL) return false;
    msgpack_packer_init(&w.pk, &w, on_write);
    put_item(&w, item);
    if (w.failed) {
        d->b->len = d->start;
        d->b = NULL;
        return false;
    }
    d->count++;
    return true;
}

void frame_deliver_end(struct frame_deliver *d) {
    if (d->b == NULL) return;
    put_be32(d->b->data + d->count_at, d->count);
    put_be32(d->b->data + d->start, d->b->len - d->start - PREFIX_BYTES);
    d->b = NULL;
}
