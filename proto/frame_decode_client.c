/* The frames of the client. Values that a broker would refuse are refused here, with an error that
 * leaves the connection open; wrong types are ERR_BAD_FRAME. */
#include "base/check.h"
#include "proto/frame_decode.h"

#define U32 UINT32_MAX
#define U64 UINT64_MAX

#define EVENT_FIELDS 8 /* of PUBLISH */
#define CLAIM_FIELDS 3

/* The texts below say these numbers. */
_Static_assert(LIMIT_FILTER_BYTES == 32 * KIB && LIMIT_POLICY_BYTES == 48 * KIB, "KiB");
_Static_assert(LIMIT_WINDOW_EVENTS == 16384 && LIMIT_WINDOW_BYTES == 64 * MIB, "window");
_Static_assert(LIMIT_JOB_WAIT_TYPES == 16 && LIMIT_JOB_WAIT_MS_MAX == 600000, "waits");
_Static_assert(LIMIT_SESSION_TOKEN_BYTES == 64 && LIMIT_RATE_PER_S == 1000000, "token, rate");

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
        } else if (slice_eq_str(key, "resume_ms")) {
            f->u.hello.resume_ms = opt_uint(in, 0, U64, "resume_ms: want an integer");
        } else if (slice_eq_str(key, "resume")) {
            f->u.hello.resume = opt_bytes(in, "resume: want text");
        } else {
            fields_skip(in);
        }
    }
    fields_leave(in, outer);
    limit(in, f->u.hello.client_name.len, LIMIT_NAME_BYTES, ERR_TOO_LARGE, "name: too long");
    limit(in, f->u.hello.client_version.len, LIMIT_NAME_BYTES, ERR_TOO_LARGE, "version: too long");
    limit(in, f->u.hello.resume.len, LIMIT_SESSION_TOKEN_BYTES, ERR_TOO_LARGE,
          "resume: above 64 bytes");
}

void decode_auth(struct frame_decoder *d, struct fields *in, struct frame *f) {
    (void)d;
    f->u.auth.mechanism = need_bytes(in, "mechanism: want text");
    f->u.auth.key_id = opt_bytes(in, "key_id: want text");
    f->u.auth.proof = opt_bytes(in, "proof: want bin");
    f->u.auth.nonce = opt_bytes(in, "nonce: want bin");
}

static void check_window(struct fields *in, uint64_t events, uint64_t bytes) {
    limit(in, events, LIMIT_WINDOW_EVENTS, ERR_WINDOW_TOO_LARGE, "window: more than 16384 events");
    limit(in, bytes, LIMIT_WINDOW_BYTES, ERR_WINDOW_TOO_LARGE, "window: more than 64 MiB");
}

/* 0 or nil: the subscription's. */
static uint64_t read_lease_ms(struct fields *in) {
    uint64_t lease_ms = opt_uint(in, 0, U64, "lease_ms: want an integer");
    if (lease_ms != 0 && (lease_ms < LIMIT_LEASE_MS_MIN || lease_ms > LIMIT_LEASE_MS_MAX)) {
        fields_fail(in, ERR_INVALID_REQUEST, "lease_ms: want 100 to 43200000 (12 h)");
    }
    return lease_ms;
}

/* [tag, seq, flags, ...] */
static void read_claims(struct frame_decoder *d, struct fields *in, struct frame *f) {
    static const char *const want = "claims: want an array of tag, seq, flags";
    uint32_t outer;
    size_t n = 0;
    uint64_t tag = 0; /* of the one before: tags begin at 1 */
    if (!fields_enter_array(in, true, &outer, want)) return;
    if (in->left % CLAIM_FIELDS != 0) fields_fail(in, ERR_BAD_FRAME, want);
    limit(in, in->left / CLAIM_FIELDS, LIMIT_WINDOW_EVENTS, ERR_LIMIT_EXCEEDED,
          "claims: more than 16384");
    while (in->err == ERR_OK && in->left > 0) {
        void *claims = d->claims;
        frame_grow(&claims, &d->claims_cap, n, sizeof(struct frame_claim));
        d->claims = claims;
        struct frame_claim *c = &d->claims[n++];
        c->tag = need_uint(in, U64, want);
        c->seq = need_uint(in, U64, want);
        c->flags = need_uint(in, U64, want);
        if (c->tag <= tag)
            fields_fail(in, ERR_INVALID_REQUEST, "claims: tags must rise, from 1 on");
        tag = c->tag;
    }
    fields_leave(in, outer);
    f->u.subscribe.claims = d->claims;
    f->u.subscribe.claims_count = n;
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
        } else if (slice_eq_str(key, "lease_ms")) {
            f->u.subscribe.lease_ms = read_lease_ms(in);
        } else if (slice_eq_str(key, "create")) {
            f->u.subscribe.create = opt_bytes(in, "create: want the policy as JSON text");
        } else if (slice_eq_str(key, "claims")) {
            read_claims(d, in, f);
        } else {
            fields_skip(in);
        }
    }
    fields_leave(in, outer);
    limit(in, f->u.subscribe.create.len, LIMIT_POLICY_BYTES, ERR_TOO_LARGE, "create: above 48 KiB");
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

/* nil, the message, or [type, message, detail]. */
static void read_failure(struct fields *in, struct frame_failure *failure) {
    static const char *const want = "error: want text or [type, message, detail]";
    uint32_t outer;
    if (!fields_is_array(in)) {
        failure->message = opt_bytes(in, want);
    } else if (fields_enter_array(in, false, &outer, want)) {
        failure->type = opt_bytes(in, "error: want text as type");
        failure->message = opt_bytes(in, "error: want text as message");
        failure->detail = opt_bytes(in, "error: want text as detail");
        fields_leave(in, outer);
    }
    limit(in, failure->type.len, LIMIT_ERROR_TYPE_BYTES, ERR_TOO_LARGE,
          "error: type above 128 bytes");
    limit(in, failure->message.len, LIMIT_ERROR_MESSAGE_BYTES, ERR_TOO_LARGE,
          "error: message above 512 bytes");
    limit(in, failure->detail.len, LIMIT_ERROR_DETAIL_BYTES, ERR_TOO_LARGE,
          "error: detail above 2 KiB");
}

void decode_nack(struct frame_decoder *d, struct fields *in, struct frame *f) {
    read_sub_and_ranges(d, in, f);
    uint64_t kind = need_uint(in, U64, "kind: want an integer");
    limit(in, kind, FRAME_NACK_ELSEWHERE, ERR_INVALID_REQUEST, "kind: want 0, 1, 2 or 3");
    f->u.nack.kind = (enum frame_nack_kind)(kind & 3);
    f->u.nack.delay_ms = opt_uint(in, FRAME_DELAY_POLICY, U64 - 1, "delay_ms: want an integer");
    if (f->u.nack.delay_ms != FRAME_DELAY_POLICY) {
        limit(in, f->u.nack.delay_ms, LIMIT_BACKOFF_MS_MAX, ERR_INVALID_REQUEST,
              "delay_ms: above 24 h");
    }
    read_failure(in, &f->u.nack.failure);
    f->u.nack.confirm = read_confirm(in);
}

void decode_extend(struct frame_decoder *d, struct fields *in, struct frame *f) {
    read_sub_and_ranges(d, in, f);
    f->u.extend.lease_ms = read_lease_ms(in);
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
    if (in->left < EVENT_FIELDS) fields_fail(in, ERR_BAD_FRAME, "event: want eight fields");
    e->type = opt_bytes(in, "type: want text");
    e->subject = opt_bytes(in, "subject: want text");
    e->id = opt_bytes(in, "id: want text");
    e->content_type = opt_bytes(in, "content_type: want text");
    e->metadata = opt_bytes(in, "metadata: want JSON text");
    e->time_ms = opt_uint(in, 0, U64, "time_ms: want an integer");
    e->deliver_at_ms = opt_uint(in, 0, U64, "deliver_at_ms: want an integer");
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

static struct slice read_filter(struct fields *in) {
    struct slice filter = opt_bytes(in, "filter: want JSON text");
    limit(in, filter.len, LIMIT_FILTER_BYTES, ERR_TOO_LARGE, "filter: above 32 KiB");
    return filter;
}

static uint64_t read_rate(struct fields *in) {
    uint64_t rate_per_s = opt_uint(in, 0, U64, "rate: want an integer");
    limit(in, rate_per_s, LIMIT_RATE_PER_S, ERR_INVALID_REQUEST, "rate: above 1000000");
    return rate_per_s;
}

void decode_replay(struct frame_decoder *d, struct fields *in, struct frame *f) {
    uint32_t outer;
    struct slice key;
    (void)d;
    f->u.replay.name = read_name(in);
    if (!fields_enter_map(in, false, &outer, "REPLAY: want a map")) return;
    while (fields_key(in, &key)) {
        uint64_t *out = NULL;
        if (slice_eq_str(key, "from_seq")) out = &f->u.replay.from_seq;
        else if (slice_eq_str(key, "to_seq")) out = &f->u.replay.to_seq;
        else if (slice_eq_str(key, "from_time_ms")) out = &f->u.replay.from_time_ms;
        else if (slice_eq_str(key, "to_time_ms")) out = &f->u.replay.to_time_ms;
        if (out != NULL) *out = opt_uint(in, 0, U64, "REPLAY: want integers");
        else if (slice_eq_str(key, "filter")) f->u.replay.filter = read_filter(in);
        else if (slice_eq_str(key, "rate")) f->u.replay.rate_per_s = read_rate(in);
        else if (slice_eq_str(key, "dry_run"))
            f->u.replay.dry_run = opt_bool(in, false, "dry_run: want true or false");
        else fields_skip(in);
    }
    fields_leave(in, outer);
}

/* The map must be there, so that a frame cut short cannot mean "all dead letters". */
void decode_redrive(struct frame_decoder *d, struct fields *in, struct frame *f) {
    uint32_t outer;
    struct slice key;
    (void)d;
    f->u.redrive.name = read_name(in);
    if (!fields_enter_map(in, false, &outer, "REDRIVE: want a map")) return;
    while (fields_key(in, &key)) {
        if (slice_eq_str(key, "seq"))
            f->u.redrive.seq = opt_uint(in, 0, U64, "seq: want an integer");
        else if (slice_eq_str(key, "filter")) f->u.redrive.filter = read_filter(in);
        else if (slice_eq_str(key, "rate")) f->u.redrive.rate_per_s = read_rate(in);
        else fields_skip(in);
    }
    fields_leave(in, outer);
}

static void read_wait_types(struct frame_decoder *d, struct fields *in, struct frame *f) {
    uint32_t outer;
    size_t n = 0;
    if (!fields_enter_array(in, true, &outer, "types: want an array")) return;
    limit(in, in->left, LIMIT_JOB_WAIT_TYPES, ERR_LIMIT_EXCEEDED, "types: more than 16");
    while (in->err == ERR_OK && in->left > 0) {
        struct slice type = need_bytes(in, "types: want texts");
        limit(in, type.len, LIMIT_EVENT_TYPE_BYTES, ERR_TOO_LARGE, "types: above 256 bytes");
        if (in->err == ERR_OK && type.len == 0) {
            fields_fail(in, ERR_INVALID_REQUEST, "types: one of them is empty");
        }
        if (in->err == ERR_OK) d->types[n++] = type;
    }
    fields_leave(in, outer);
    f->u.wait.types = d->types;
    f->u.wait.types_count = n;
}

void decode_wait(struct frame_decoder *d, struct fields *in, struct frame *f) {
    uint32_t outer;
    struct slice key;
    f->u.wait.id = need_bytes(in, "job: want text");
    f->u.wait.timeout_ms = LIMIT_JOB_WAIT_MS_DEFAULT;
    limit(in, f->u.wait.id.len, LIMIT_EVENT_SUBJECT_BYTES, ERR_TOO_LARGE, "job: above 1 KiB");
    if (in->err == ERR_OK && f->u.wait.id.len == 0) {
        fields_fail(in, ERR_INVALID_REQUEST, "job: its id is empty");
    }
    if (!fields_enter_map(in, true, &outer, "WAIT: want a map")) return;
    while (fields_key(in, &key)) {
        if (slice_eq_str(key, "types")) {
            read_wait_types(d, in, f);
        } else if (slice_eq_str(key, "after_seq")) {
            f->u.wait.after_seq = opt_uint(in, 0, U64, "after_seq: want an integer");
        } else if (slice_eq_str(key, "timeout_ms")) {
            f->u.wait.timeout_ms =
                opt_uint(in, LIMIT_JOB_WAIT_MS_DEFAULT, U64, "timeout_ms: want an integer");
        } else {
            fields_skip(in);
        }
    }
    fields_leave(in, outer);
    limit(in, f->u.wait.timeout_ms, LIMIT_JOB_WAIT_MS_MAX, ERR_INVALID_REQUEST,
          "timeout_ms: above 600000 (10 min)");
}
