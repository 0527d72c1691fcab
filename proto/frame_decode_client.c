/* The frames of the client. Values that a broker would refuse are refused here, with an error that
 * leaves the connection open; wrong types are ERR_BAD_FRAME. */
#include <math.h>

#include "base/check.h"
#include "proto/frame_decode.h"

#define U32 UINT32_MAX
#define U64 UINT64_MAX

#define EVENT_FIELDS 7 /* of PUBLISH */

static void limit(struct fields *in, uint64_t value, uint64_t max, enum err err, const char *why) {
    if (in->err == ERR_OK && value > max) fields_fail(in, err, why);
}

static uint32_t read_sub(struct fields *in) {
    return (uint32_t)need_uint(in, U32, "sub: want an unsigned integer of 32 bits");
}

/* [A-Za-z0-9][A-Za-z0-9._-]*, at most LIMIT_NAME_BYTES. */
static bool is_name(struct slice s) {
    if (s.len == 0 || s.len > LIMIT_NAME_BYTES) return false;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.data[i];
        bool alnum = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!alnum && (i == 0 || (c != '.' && c != '_' && c != '-'))) return false;
    }
    return true;
}

static struct slice read_name(struct fields *in) {
    struct slice name = need_bytes(in, "name: want text");
    if (in->err == ERR_OK && !is_name(name)) {
        fields_fail(in, ERR_INVALID_REQUEST,
                    "name: want 1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit");
    }
    return name;
}

void decode_hello(struct frame_decoder *d, struct fields *in, struct frame *f) {
    uint32_t outer;
    struct slice key;
    (void)d;
    f->u.hello.version_min = f->u.hello.version_max = FRAME_VERSION;
    if (!fields_enter_map(in, false, &outer, "HELLO: want a map")) return;
    while (fields_key(in, &key)) {
        if (slice_eq_str(key, "min")) {
            f->u.hello.version_min = opt_uint(in, FRAME_VERSION, U64, "min: want an integer");
        } else if (slice_eq_str(key, "max")) {
            f->u.hello.version_max = opt_uint(in, FRAME_VERSION, U64, "max: want an integer");
        } else if (slice_eq_str(key, "name")) {
            f->u.hello.client_name = opt_bytes(in, "name: want text");
        } else if (slice_eq_str(key, "version")) {
            f->u.hello.client_version = opt_bytes(in, "version: want text");
        } else if (slice_eq_str(key, "heartbeat_ms")) {
            f->u.hello.heartbeat_ms = opt_uint(in, 0, U64, "heartbeat_ms: want an integer");
        } else {
            fields_skip(in);
        }
    }
    fields_leave(in, outer);
    limit(in, f->u.hello.client_name.len, LIMIT_NAME_BYTES, ERR_TOO_LARGE, "name: too long");
    limit(in, f->u.hello.client_version.len, LIMIT_NAME_BYTES, ERR_TOO_LARGE, "version: too long");
}

void decode_auth(struct frame_decoder *d, struct fields *in, struct frame *f) {
    (void)d;
    f->u.auth.mechanism = need_bytes(in, "mechanism: want text");
    f->u.auth.key_id = opt_bytes(in, "key_id: want text");
    f->u.auth.proof = opt_bytes(in, "proof: want bin");
}

/* A list of globs. */
static size_t read_patterns(struct fields *in, struct slice *out, const char *why) {
    uint32_t outer;
    size_t n = 0;
    if (!fields_enter_array(in, true, &outer, why)) return 0;
    if (in->left > LIMIT_FILTER_PATTERNS) {
        fields_fail(in, ERR_LIMIT_EXCEEDED, "filter: too many patterns");
    }
    while (in->err == ERR_OK && in->left > 0) {
        out[n] = need_bytes(in, why);
        limit(in, out[n].len, LIMIT_EVENT_TYPE_BYTES, ERR_TOO_LARGE, "filter: pattern too long");
        n++;
    }
    fields_leave(in, outer);
    return n;
}

static void read_filter(struct frame_decoder *d, struct fields *in, struct frame_policy *p) {
    uint32_t outer;
    struct slice key;
    if (!fields_enter_map(in, true, &outer, "filter: want a map")) return;
    while (fields_key(in, &key)) {
        if (slice_eq_str(key, "types")) {
            p->types_count = read_patterns(in, d->types, "types: want an array of texts");
        } else if (slice_eq_str(key, "sources")) {
            p->sources_count = read_patterns(in, d->sources, "sources: want an array of texts");
        } else {
            fields_skip(in);
        }
    }
    fields_leave(in, outer);
}

static void read_backoff(struct fields *in, struct frame_policy *p) {
    uint32_t outer;
    struct slice key;
    if (!fields_enter_map(in, true, &outer, "backoff: want a map")) return;
    while (fields_key(in, &key)) {
        if (slice_eq_str(key, "min_ms")) {
            p->backoff_min_ms = opt_uint(in, U64, U64, "min_ms: want an integer");
        } else if (slice_eq_str(key, "max_ms")) {
            p->backoff_max_ms = opt_uint(in, U64, U64, "max_ms: want an integer");
        } else if (slice_eq_str(key, "factor")) {
            p->backoff_factor = opt_number(in, 0, "factor: want a number");
            if (in->err == ERR_OK && p->backoff_factor != 0 &&
                !(isfinite(p->backoff_factor) && p->backoff_factor >= 1)) {
                fields_fail(in, ERR_INVALID_REQUEST, "factor: want 1 or more");
            }
        } else {
            fields_skip(in);
        }
    }
    fields_leave(in, outer);
}

static bool is_map(const struct fields *in) {
    uint8_t b = in->at < in->end ? in->at[0] : 0;
    return (b & 0xf0u) == 0x80u || b == 0xde || b == 0xdf;
}

/* "new", "first", {seq: n} or {time_ms: t}. */
static void read_start(struct fields *in, struct frame_policy *p) {
    static const char *const want = "start: want \"new\", \"first\", {seq} or {time_ms}";
    uint32_t outer;
    struct slice key;
    bool found = false;
    if (!is_map(in)) {
        struct slice word = opt_bytes(in, want);
        if (in->err != ERR_OK) return;
        if (slice_eq_str(word, "first")) p->start = FRAME_START_FIRST;
        else if (word.len == 0 || slice_eq_str(word, "new")) p->start = FRAME_START_NEW;
        else fields_fail(in, ERR_INVALID_REQUEST, want);
        return;
    }
    if (!fields_enter_map(in, false, &outer, want)) return;
    while (fields_key(in, &key)) {
        bool seq = slice_eq_str(key, "seq");
        if (!found && (seq || slice_eq_str(key, "time_ms"))) {
            p->start = seq ? FRAME_START_SEQ : FRAME_START_TIME;
            p->start_value = need_uint(in, U64, want);
            found = true;
        } else {
            fields_skip(in);
        }
    }
    fields_leave(in, outer);
    if (!found) fields_fail(in, ERR_INVALID_REQUEST, want);
}

static void check_policy(struct fields *in, const struct frame_policy *p) {
    if (p->lease_ms != 0 &&
        (p->lease_ms < LIMIT_LEASE_MS_MIN || p->lease_ms > LIMIT_LEASE_MS_MAX)) {
        fields_fail(in, ERR_INVALID_REQUEST, "lease_ms: want 100 to 43200000 (12 h)");
    }
    if (p->max_fails != U64) {
        limit(in, p->max_fails, LIMIT_FAILS_MAX, ERR_INVALID_REQUEST, "max_fails: too high");
    }
    if (p->backoff_min_ms != U64) {
        limit(in, p->backoff_min_ms, LIMIT_BACKOFF_MS_MAX, ERR_INVALID_REQUEST,
              "backoff.min_ms: above 24 h");
    }
    if (p->backoff_max_ms != U64) {
        limit(in, p->backoff_max_ms, LIMIT_BACKOFF_MS_MAX, ERR_INVALID_REQUEST,
              "backoff.max_ms: above 24 h");
        if (p->backoff_min_ms != U64) {
            limit(in, p->backoff_min_ms, p->backoff_max_ms, ERR_INVALID_REQUEST,
                  "backoff.min_ms: above max_ms");
        }
    }
}

static void read_policy(struct frame_decoder *d, struct fields *in, struct frame_policy *p) {
    uint32_t outer;
    struct slice key;
    if (!fields_enter_map(in, true, &outer, "create: want a map")) return;
    *p = (struct frame_policy){.present = true,
                               .max_fails = U64,
                               .backoff_min_ms = U64,
                               .backoff_max_ms = U64,
                               .start = FRAME_START_NEW};
    while (fields_key(in, &key)) {
        if (slice_eq_str(key, "filter")) read_filter(d, in, p);
        else if (slice_eq_str(key, "lease_ms"))
            p->lease_ms = opt_uint(in, 0, U64, "lease_ms: want an integer");
        else if (slice_eq_str(key, "max_fails"))
            p->max_fails = opt_uint(in, U64, U64, "max_fails: want an integer");
        else if (slice_eq_str(key, "backoff")) read_backoff(in, p);
        else if (slice_eq_str(key, "start")) read_start(in, p);
        else fields_skip(in);
    }
    fields_leave(in, outer);
    p->types = d->types;
    p->sources = d->sources;
    if (in->err == ERR_OK) check_policy(in, p);
}

static void check_window(struct fields *in, uint64_t events, uint64_t bytes) {
    limit(in, events, LIMIT_WINDOW_EVENTS, ERR_LIMIT_EXCEEDED, "window: more than 16384 events");
    limit(in, bytes, LIMIT_WINDOW_BYTES, ERR_LIMIT_EXCEEDED, "window: more than 64 MiB");
}

void decode_subscribe(struct frame_decoder *d, struct fields *in, struct frame *f) {
    uint32_t outer;
    struct slice key;
    f->sub = read_sub(in);
    f->u.subscribe.name = read_name(in);
    f->u.subscribe.window_events = need_uint(in, U64, "window_events: want an integer");
    f->u.subscribe.window_bytes = need_uint(in, U64, "window_bytes: want an integer");
    check_window(in, f->u.subscribe.window_events, f->u.subscribe.window_bytes);
    if (!fields_enter_map(in, true, &outer, "options: want a map")) return;
    while (fields_key(in, &key)) {
        if (slice_eq_str(key, "concurrency")) {
            f->u.subscribe.concurrency = opt_uint(in, 0, U64, "concurrency: want an integer");
        } else if (slice_eq_str(key, "create")) {
            read_policy(d, in, &f->u.subscribe.create);
        } else {
            fields_skip(in);
        }
    }
    fields_leave(in, outer);
}

void decode_window(struct frame_decoder *d, struct fields *in, struct frame *f) {
    (void)d;
    f->sub = read_sub(in);
    f->u.window.events = need_uint(in, U64, "events: want an integer");
    f->u.window.bytes = need_uint(in, U64, "bytes: want an integer");
    check_window(in, f->u.window.events, f->u.window.bytes);
}

static void read_sub_and_ranges(struct frame_decoder *d, struct fields *in, struct frame *f) {
    f->sub = read_sub(in);
    frame_read_ranges(d, in, 0, false, LIMIT_RANGES, &f->ranges, &f->ranges_count);
}

static bool read_confirm(struct fields *in) {
    return opt_bool(in, false, "confirm: want true or false");
}

void decode_ack(struct frame_decoder *d, struct fields *in, struct frame *f) {
    read_sub_and_ranges(d, in, f);
    f->u.ack.confirm = read_confirm(in);
}

void decode_nack(struct frame_decoder *d, struct fields *in, struct frame *f) {
    read_sub_and_ranges(d, in, f);
    uint64_t kind = need_uint(in, U64, "kind: want an integer");
    limit(in, kind, FRAME_NACK_REJECT, ERR_INVALID_REQUEST, "kind: want 0, 1 or 2");
    f->u.nack.kind = (enum frame_nack_kind)(kind & 3);
    f->u.nack.delay_ms = opt_uint(in, FRAME_DELAY_POLICY, U64 - 1, "delay_ms: want an integer");
    if (f->u.nack.delay_ms != FRAME_DELAY_POLICY) {
        limit(in, f->u.nack.delay_ms, LIMIT_BACKOFF_MS_MAX, ERR_INVALID_REQUEST,
              "delay_ms: above 24 h");
    }
    f->u.nack.error = opt_bytes(in, "error: want text");
    limit(in, f->u.nack.error.len, LIMIT_ERROR_BYTES, ERR_TOO_LARGE, "error: above 2 KiB");
    f->u.nack.confirm = read_confirm(in);
}

void decode_extend(struct frame_decoder *d, struct fields *in, struct frame *f) {
    read_sub_and_ranges(d, in, f);
    f->u.extend.lease_ms = opt_uint(in, 0, U64, "lease_ms: want an integer");
    uint64_t lease_ms = f->u.extend.lease_ms;
    if (lease_ms != 0 && (lease_ms < LIMIT_LEASE_MS_MIN || lease_ms > LIMIT_LEASE_MS_MAX)) {
        fields_fail(in, ERR_INVALID_REQUEST, "lease_ms: want 100 to 43200000 (12 h)");
    }
    f->u.extend.confirm = read_confirm(in);
}

void decode_unsubscribe(struct frame_decoder *d, struct fields *in, struct frame *f) {
    (void)d;
    f->sub = read_sub(in);
}

static void read_published_event(struct fields *in, struct event *e) {
    uint32_t outer;
    *e = (struct event){0};
    if (!fields_enter_array(in, false, &outer, "event: want an array")) return;
    if (in->left < EVENT_FIELDS) fields_fail(in, ERR_BAD_FRAME, "event: want seven fields");
    e->type = opt_bytes(in, "type: want text");
    e->subject = opt_bytes(in, "subject: want text");
    e->id = opt_bytes(in, "id: want text");
    e->content_type = opt_bytes(in, "content_type: want text");
    e->metadata = opt_bytes(in, "metadata: want JSON text");
    e->time_ms = opt_uint(in, 0, U64, "time_ms: want an integer");
    e->body = opt_bytes(in, "body: want bin");
    fields_leave(in, outer);
    limit(in, e->type.len, LIMIT_EVENT_TYPE_BYTES, ERR_TOO_LARGE, "type: above 256 bytes");
    limit(in, e->subject.len, LIMIT_EVENT_SUBJECT_BYTES, ERR_TOO_LARGE, "subject: above 1 KiB");
    limit(in, e->id.len, LIMIT_EVENT_ID_BYTES, ERR_TOO_LARGE, "id: above 256 bytes");
    limit(in, e->content_type.len, LIMIT_EVENT_CONTENT_TYPE_BYTES, ERR_TOO_LARGE,
          "content_type: above 256 bytes");
    limit(in, e->metadata.len, LIMIT_EVENT_METADATA_BYTES, ERR_TOO_LARGE, "metadata: above 16 KiB");
}

void decode_publish(struct frame_decoder *d, struct fields *in, struct frame *f) {
    uint32_t outer;
    size_t n = 0;
    if (!fields_enter_array(in, false, &outer, "events: want an array")) return;
    limit(in, in->left, LIMIT_PUBLISH_EVENTS, ERR_LIMIT_EXCEEDED, "events: more than 1024");
    if (in->left == 0) fields_fail(in, ERR_INVALID_REQUEST, "events: none");
    while (in->err == ERR_OK && in->left > 0) {
        void *events = d->events;
        frame_grow(&events, &d->events_cap, n, sizeof(struct event));
        d->events = events;
        read_published_event(in, &d->events[n++]);
    }
    fields_leave(in, outer);
    f->u.publish.events = d->events;
    f->u.publish.count = n;
}

void decode_replay(struct frame_decoder *d, struct fields *in, struct frame *f) {
    uint32_t outer;
    struct slice key;
    (void)d;
    f->u.replay.name = read_name(in);
    if (!fields_enter_map(in, true, &outer, "REPLAY: want a map")) return;
    while (fields_key(in, &key)) {
        uint64_t *out = NULL;
        if (slice_eq_str(key, "from_seq")) out = &f->u.replay.from_seq;
        else if (slice_eq_str(key, "to_seq")) out = &f->u.replay.to_seq;
        else if (slice_eq_str(key, "from_time_ms")) out = &f->u.replay.from_time_ms;
        else if (slice_eq_str(key, "to_time_ms")) out = &f->u.replay.to_time_ms;
        if (out == NULL) fields_skip(in);
        else *out = opt_uint(in, 0, U64, "REPLAY: want integers");
    }
    fields_leave(in, outer);
}
