/* The records of events: the journal's, which is the hot path, and those of an event that failed or
 * waits: retry, dead letter, due. */
#include "proto/limits.h"
#include "storage/record.h"
#include "storage/record_bytes.h"

#define EVENT_VERSION 3 /* 2: deliver_at_ms, offset; 3: seq, endpoints */
#define RETRY_VERSION 2 /* 2: a failure has three parts */
#define DEAD_VERSION  3 /* 2: both of these; 3: endpoints */
#define DUE_VERSION   2 /* 2: endpoints */

/* Everything of an event but its seq and its slices' bytes: project, four u64, lengths of eight
 * short slices and of the body. */
#define EVENT_SEQ_BYTES    8
#define EVENT_HEAD_BYTES   (4 + 4 * 8 + 8 * 2 + 4)
#define FAILURE_HEAD_BYTES (3 * 2)
#define RETRY_BYTES        (4 + 4 + 8 + FAILURE_HEAD_BYTES)
#define DEAD_BYTES         (8 + 4 + 4 + 8 + 2 + FAILURE_HEAD_BYTES + EVENT_HEAD_BYTES)
#define DUE_BYTES          (4 + 4 + 8 + 1 + FAILURE_HEAD_BYTES + EVENT_HEAD_BYTES)
#define REASON_BYTES       32 /* the longest is "max_fails" */

_Static_assert(LIMIT_EVENT_METADATA_BYTES <= UINT16_MAX, "metadata has a u16 length");
_Static_assert(LIMIT_EVENT_HEADERS_BYTES <= UINT16_MAX, "headers have a u16 length");
_Static_assert(LIMIT_EVENT_ENDPOINTS_BYTES <= UINT16_MAX, "endpoints have a u16 length");
_Static_assert(LIMIT_ERROR_DETAIL_BYTES <= UINT16_MAX, "a failure's parts have u16 lengths");
_Static_assert(LIMIT_BODY_BYTES_HIGHEST <= UINT32_MAX, "the body has a u32 length");

static size_t event_bytes(const struct event *e) {
    CHECK(e->source.len <= LIMIT_NAME_BYTES);
    CHECK(e->id.len <= LIMIT_EVENT_ID_BYTES);
    CHECK(e->type.len <= LIMIT_EVENT_TYPE_BYTES);
    CHECK(e->subject.len <= LIMIT_EVENT_SUBJECT_BYTES);
    CHECK(e->content_type.len <= LIMIT_EVENT_CONTENT_TYPE_BYTES);
    CHECK(e->metadata.len <= LIMIT_EVENT_METADATA_BYTES);
    CHECK(e->headers.len <= LIMIT_EVENT_HEADERS_BYTES);
    CHECK(e->endpoints.len <= LIMIT_EVENT_ENDPOINTS_BYTES);
    CHECK(e->body.len <= LIMIT_BODY_BYTES_HIGHEST);
    return e->source.len + e->id.len + e->type.len + e->subject.len + e->content_type.len +
           e->metadata.len + e->headers.len + e->endpoints.len + e->body.len;
}

static void write_event_head(struct writer *w, const struct event *e) {
    write_u32(w, e->project);
    write_u64(w, e->time_ms);
    write_u64(w, e->received_at_ms);
    write_u64(w, e->deliver_at_ms);
    write_u64(w, e->offset);
    write_u16(w, e->source.len);
    write_u16(w, e->id.len);
    write_u16(w, e->type.len);
    write_u16(w, e->subject.len);
    write_u16(w, e->content_type.len);
    write_u16(w, e->metadata.len);
    write_u16(w, e->headers.len);
    write_u16(w, e->endpoints.len);
    write_u32(w, (uint32_t)e->body.len);
}

static struct slice moved(struct writer *w, struct slice s) {
    struct slice copy = slice_of(w->at, s.len);
    write_slice(w, s);
    return copy;
}

/* Writes the slices of e; *stored becomes e with slices that point at the copies. */
static void write_event_slices(struct writer *w, const struct event *e, struct event *stored) {
    struct event copy = *e;
    copy.source = moved(w, e->source);
    copy.id = moved(w, e->id);
    copy.type = moved(w, e->type);
    copy.subject = moved(w, e->subject);
    copy.content_type = moved(w, e->content_type);
    copy.metadata = moved(w, e->metadata);
    copy.headers = moved(w, e->headers);
    copy.endpoints = moved(w, e->endpoints);
    copy.body = moved(w, e->body);
    if (stored != NULL) *stored = copy;
}

/* The head leaves the lengths in the slices, whose bytes read_event_slices then takes. `layout` is
 * the version of the journal's event that has this head. */
static void read_event_head(struct reader *r, struct event *e, uint8_t layout) {
    e->project = read_u32(r);
    e->time_ms = read_u64(r);
    e->received_at_ms = read_u64(r);
    if (layout >= 2) {
        e->deliver_at_ms = read_u64(r);
        e->offset = read_u64(r);
    }
    e->source.len = read_u16(r);
    e->id.len = read_u16(r);
    e->type.len = read_u16(r);
    e->subject.len = read_u16(r);
    e->content_type.len = read_u16(r);
    e->metadata.len = read_u16(r);
    e->headers.len = read_u16(r);
    if (layout >= 3) e->endpoints.len = read_u16(r);
    e->body.len = read_u32(r);
}

static void read_event_slices(struct reader *r, struct event *e) {
    e->source = read_slice(r, e->source.len);
    e->id = read_slice(r, e->id.len);
    e->type = read_slice(r, e->type.len);
    e->subject = read_slice(r, e->subject.len);
    e->content_type = read_slice(r, e->content_type.len);
    e->metadata = read_slice(r, e->metadata.len);
    e->headers = read_slice(r, e->headers.len);
    e->endpoints = read_slice(r, e->endpoints.len);
    e->body = read_slice(r, e->body.len);
}

struct slice record_event_encode(struct arena *a, const struct event *e, struct event *stored) {
    struct writer w =
        record_start(a, EVENT_VERSION, EVENT_SEQ_BYTES + EVENT_HEAD_BYTES + event_bytes(e));
    write_u64(&w, e->seq);
    write_event_head(&w, e);
    write_event_slices(&w, e, stored);
    return record_seal(&w);
}

bool record_event_decode(uint64_t seq, struct slice value, struct event *out) {
    struct reader r = record_open(value, EVENT_VERSION);
    struct event e = {.seq = seq};
    if (r.version >= 3 && read_u64(&r) != seq) return false; /* whole, but another key's */
    read_event_head(&r, &e, r.version);
    read_event_slices(&r, &e);
    if (!record_done(&r)) return false;
    *out = e;
    return true;
}

/* Failures. */

static size_t failure_bytes(const struct record_failure *f) {
    CHECK(f->type.len <= LIMIT_ERROR_TYPE_BYTES);
    CHECK(f->message.len <= LIMIT_ERROR_MESSAGE_BYTES);
    CHECK(f->detail.len <= LIMIT_ERROR_DETAIL_BYTES);
    return f->type.len + f->message.len + f->detail.len;
}

static void write_failure_head(struct writer *w, const struct record_failure *f) {
    write_u16(w, f->type.len);
    write_u16(w, f->message.len);
    write_u16(w, f->detail.len);
}

static void write_failure_slices(struct writer *w, const struct record_failure *f) {
    write_slice(w, f->type);
    write_slice(w, f->message);
    write_slice(w, f->detail);
}

/* Leaves the lengths in the slices, as read_event_head does. One text is what version 1 had: the
 * message, or the detail when it is too long for a message. */
static void read_failure_head(struct reader *r, struct record_failure *f, bool one_text) {
    if (one_text) {
        size_t len = read_u16(r);
        *(len <= LIMIT_ERROR_MESSAGE_BYTES ? &f->message.len : &f->detail.len) = len;
        return;
    }
    f->type.len = read_u16(r);
    f->message.len = read_u16(r);
    f->detail.len = read_u16(r);
}

static void read_failure_slices(struct reader *r, struct record_failure *f) {
    f->type = read_slice(r, f->type.len);
    f->message = read_slice(r, f->message.len);
    f->detail = read_slice(r, f->detail.len);
}

/* Retries. */

struct slice record_retry_encode(struct arena *a, const struct record_retry *t) {
    struct writer w = record_start(a, RETRY_VERSION, RETRY_BYTES + failure_bytes(&t->failure));
    write_u32(&w, t->fails);
    write_u32(&w, t->deliveries);
    write_u64(&w, t->due_wall_ms);
    write_failure_head(&w, &t->failure);
    write_failure_slices(&w, &t->failure);
    return record_seal(&w);
}

bool record_retry_decode(struct slice value, struct record_retry *out) {
    struct reader r = record_open(value, RETRY_VERSION);
    struct record_retry t = {.fails = read_u32(&r)};
    t.deliveries = read_u32(&r);
    t.due_wall_ms = read_u64(&r);
    read_failure_head(&r, &t.failure, r.version == 1);
    read_failure_slices(&r, &t.failure);
    if (!record_done(&r)) return false;
    *out = t;
    return true;
}

/* Dead letters. */

struct slice record_dead_encode(struct arena *a, const struct record_dead *d) {
    CHECK(d->reason.len <= REASON_BYTES);
    struct writer w = record_start(
        a, DEAD_VERSION,
        DEAD_BYTES + d->reason.len + failure_bytes(&d->failure) + event_bytes(&d->event));
    write_u64(&w, d->died_at_ms);
    write_u32(&w, d->fails);
    write_u32(&w, d->deliveries);
    write_u64(&w, d->event.seq);
    write_u16(&w, d->reason.len);
    write_failure_head(&w, &d->failure);
    write_event_head(&w, &d->event);
    write_slice(&w, d->reason);
    write_failure_slices(&w, &d->failure);
    write_event_slices(&w, &d->event, NULL);
    return record_seal(&w);
}

bool record_dead_decode(struct slice value, struct record_dead *out) {
    struct reader r = record_open(value, DEAD_VERSION);
    struct record_dead d = {.died_at_ms = read_u64(&r)};
    d.fails = read_u32(&r);
    d.deliveries = read_u32(&r);
    d.event.seq = read_u64(&r);
    d.reason.len = read_u16(&r);
    read_failure_head(&r, &d.failure, r.version == 1);
    read_event_head(&r, &d.event, r.version); /* its versions go with the event's */
    d.reason = read_slice(&r, d.reason.len);
    read_failure_slices(&r, &d.failure);
    read_event_slices(&r, &d.event);
    if (!record_done(&r)) return false;
    /* What older brokers called it. */
    if (r.version < 3 && slice_eq_str(d.reason, "max_age")) d.reason = slice_str("expired");
    *out = d;
    return true;
}

/* Events that wait for their time. */

struct slice record_due_encode(struct arena *a, const struct record_due *d) {
    struct writer w = record_start(a, DUE_VERSION,
                                   DUE_BYTES + failure_bytes(&d->failure) + event_bytes(&d->event));
    write_u32(&w, d->fails);
    write_u32(&w, d->deliveries);
    write_u64(&w, d->event.seq);
    write_u8(&w, d->flags);
    write_failure_head(&w, &d->failure);
    write_event_head(&w, &d->event);
    write_failure_slices(&w, &d->failure);
    write_event_slices(&w, &d->event, NULL);
    return record_seal(&w);
}

bool record_due_decode(struct slice value, struct record_due *out) {
    struct reader r = record_open(value, DUE_VERSION);
    struct record_due d = {.fails = read_u32(&r)};
    d.deliveries = read_u32(&r);
    d.event.seq = read_u64(&r);
    d.flags = read_u8(&r);
    read_failure_head(&r, &d.failure, false);
    read_event_head(&r, &d.event, r.version == 1 ? 2 : 3);
    read_failure_slices(&r, &d.failure);
    read_event_slices(&r, &d.event);
    if (!record_done(&r)) return false;
    *out = d;
    return true;
}
