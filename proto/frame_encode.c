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
                        const char *client_version, uint64_t heartbeat_ms) {
    struct writer w;
    begin(&w, b, FRAME_HELLO, rid, 1);
    put_map(&w, 6);
    put_str(&w, "min");
    put_uint(&w, FRAME_VERSION);
    put_str(&w, "max");
    put_uint(&w, FRAME_VERSION);
    put_str(&w, "name");
    put_str(&w, client_name);
    put_str(&w, "version");
    put_str(&w, client_version);
    put_str(&w, "heartbeat_ms");
    put_uint(&w, heartbeat_ms);
    put_str(&w, "features");
    put_array(&w, 0);
    return end(&w);
}

bool frame_encode_auth(struct buf *b, uint32_t rid, struct slice mechanism, struct slice key_id,
                       struct slice proof) {
    struct writer w;
    begin(&w, b, FRAME_AUTH, rid, 3);
    put_text(&w, mechanism);
    put_text(&w, key_id);
    put_bin(&w, proof);
    return end(&w);
}

static void put_patterns(struct writer *w, const char *key, const struct slice *patterns,
                         size_t count) {
    if (count == 0) return;
    put_str(w, key);
    put_array(w, count);
    for (size_t i = 0; i < count; i++) put_text(w, patterns[i]);
}

static void put_start(struct writer *w, const struct frame_policy *p) {
    put_str(w, "start");
    if (p->start == FRAME_START_NEW || p->start == FRAME_START_FIRST) {
        put_str(w, p->start == FRAME_START_NEW ? "new" : "first");
        return;
    }
    put_map(w, 1);
    put_str(w, p->start == FRAME_START_SEQ ? "seq" : "time_ms");
    put_uint(w, p->start_value);
}

static void put_backoff(struct writer *w, const struct frame_policy *p) {
    bool min = p->backoff_min_ms != UINT64_MAX, max = p->backoff_max_ms != UINT64_MAX;
    bool factor = p->backoff_factor != 0;
    if (!min && !max && !factor) return;
    put_str(w, "backoff");
    put_map(w, (size_t)min + (size_t)max + (size_t)factor);
    if (min) {
        put_str(w, "min_ms");
        put_uint(w, p->backoff_min_ms);
    }
    if (max) {
        put_str(w, "max_ms");
        put_uint(w, p->backoff_max_ms);
    }
    if (factor) {
        put_str(w, "factor");
        msgpack_pack_double(&w->pk, p->backoff_factor);
    }
}

/* Only what is not the default is written. */
static void put_policy(struct writer *w, const struct frame_policy *p) {
    bool filter = p->types_count + p->sources_count > 0;
    bool lease = p->lease_ms != 0, fails = p->max_fails != UINT64_MAX;
    bool backoff = p->backoff_min_ms != UINT64_MAX || p->backoff_max_ms != UINT64_MAX ||
                   p->backoff_factor != 0;
    put_map(w, (size_t)filter + (size_t)lease + (size_t)fails + (size_t)backoff + 1);
    if (filter) {
        put_str(w, "filter");
        put_map(w, (size_t)(p->types_count > 0) + (size_t)(p->sources_count > 0));
        put_patterns(w, "types", p->types, p->types_count);
        put_patterns(w, "sources", p->sources, p->sources_count);
    }
    if (lease) {
        put_str(w, "lease_ms");
        put_uint(w, p->lease_ms);
    }
    if (fails) {
        put_str(w, "max_fails");
        put_uint(w, p->max_fails);
    }
    put_backoff(w, p);
    put_start(w, p);
}

bool frame_encode_subscribe(struct buf *b, uint32_t rid, uint32_t sub, struct slice name,
                            uint64_t window_events, uint64_t window_bytes, uint64_t concurrency,
                            const struct frame_policy *create) {
    struct writer w;
    bool creates = create != NULL && create->present;
    begin(&w, b, FRAME_SUBSCRIBE, rid, 5);
    put_uint(&w, sub);
    put_text(&w, name);
    put_uint(&w, window_events);
    put_uint(&w, window_bytes);
    put_map(&w, creates ? 2 : 1);
    put_str(&w, "concurrency");
    put_uint(&w, concurrency);
    if (creates) {
        put_str(&w, "create");
        put_policy(&w, create);
    }
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

bool frame_encode_nack(struct buf *b, uint32_t rid, uint32_t sub, const struct frame_range *ranges,
                       size_t count, enum frame_nack_kind kind, uint64_t delay_ms,
                       struct slice error, bool confirm) {
    struct writer w;
    begin(&w, b, FRAME_NACK, rid, 6);
    put_uint(&w, sub);
    put_ranges(&w, ranges, count);
    put_uint(&w, kind);
    if (delay_ms == FRAME_DELAY_POLICY) msgpack_pack_nil(&w.pk);
    else put_uint(&w, delay_ms);
    put_text(&w, error);
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
        put_array(&w, 7);
        put_text(&w, e->type);
        put_text(&w, e->subject);
        put_text(&w, e->id);
        put_text(&w, e->content_type);
        put_text(&w, e->metadata);
        put_uint(&w, e->time_ms);
        put_bin(&w, e->body);
    }
    return end(&w);
}

bool frame_encode_replay(struct buf *b, uint32_t rid, struct slice name, uint64_t from_seq,
                         uint64_t to_seq, uint64_t from_time_ms, uint64_t to_time_ms) {
    static const char *const keys[] = {"from_seq", "to_seq", "from_time_ms", "to_time_ms"};
    const uint64_t values[] = {from_seq, to_seq, from_time_ms, to_time_ms};
    size_t given = 0;
    struct writer w;
    for (int i = 0; i < 4; i++) given += values[i] != 0;
    begin(&w, b, FRAME_REPLAY, rid, 2);
    put_text(&w, name);
    put_map(&w, given);
    for (int i = 0; i < 4; i++) {
        if (values[i] == 0) continue;
        put_str(&w, keys[i]);
        put_uint(&w, values[i]);
    }
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
    put_map(&w, 9);
    put_str(&w, "version");
    put_uint(&w, f->u.welcome.version);
    put_str(&w, "server");
    put_text(&w, f->u.welcome.server);
    put_str(&w, "session");
    put_text(&w, f->u.welcome.session);
    put_str(&w, "auth");
    put_text(&w, f->u.welcome.auth);
    put_str(&w, "nonce");
    put_bin(&w, f->u.welcome.nonce);
    put_str(&w, "heartbeat_ms");
    put_uint(&w, f->u.welcome.heartbeat_ms);
    put_str(&w, "max_frame_bytes");
    put_uint(&w, f->u.welcome.frame_max_bytes);
    put_str(&w, "now_ms");
    put_uint(&w, f->u.welcome.now_ms);
    put_str(&w, "features");
    put_array(&w, 0);
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

bool frame_encode_subscribed(struct buf *b, uint32_t rid, uint32_t sub, uint64_t lease_ms,
                             uint64_t backlog, bool created) {
    struct writer w;
    begin(&w, b, FRAME_SUBSCRIBED, rid, 2);
    put_uint(&w, sub);
    put_map(&w, 3);
    put_str(&w, "lease_ms");
    put_uint(&w, lease_ms);
    put_str(&w, "backlog");
    put_uint(&w, backlog);
    put_str(&w, "created");
    put_bool(&w, created);
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
    const struct event *e = &item->event;
    struct writer w = {.b = d->b, .start = d->start};
    if (d->b == NULL) return false;
    msgpack_packer_init(&w.pk, &w, on_write);
    put_array(&w, 15);
    put_uint(&w, item->tag);
    put_uint(&w, e->seq);
    put_uint(&w, e->received_at_ms);
    put_uint(&w, item->fails);
    put_uint(&w, item->deliveries);
    put_uint(&w, item->flags);
    put_text(&w, e->type);
    put_text(&w, e->id);
    put_text(&w, e->source);
    put_text(&w, e->subject);
    put_uint(&w, e->time_ms);
    put_text(&w, e->content_type);
    put_text(&w, e->metadata);
    put_text(&w, e->headers);
    put_bin(&w, e->body);
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
