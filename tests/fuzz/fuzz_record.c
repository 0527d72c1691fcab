/* Decodes arbitrary bytes as every record. The first byte of the input picks the decoder (low
 * bits) and, by its high bit, whether the CRC is put right first, so that the fields behind it are
 * reached. What decodes is encoded again: to the same bytes when they are of the newest version
 * (there is one way to write a record), and in any case to bytes that mean the same. Only what is
 * within the limits, as encoders CHECK them and decoders do not. */
#include <endian.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "proto/limits.h"
#include "storage/record.h"

#define FIX_CRC    0x80
#define CRC_BYTES  4
#define VERSION_AT 4
#define SEQ_AT     5

/* Decodes value and encodes what it means; an empty slice: it does not decode, or is not within the
 * limits. */
typedef struct slice again_fn(struct arena *a, struct slice value);

static const struct slice nothing;

static bool event_fits(const struct event *e) {
    return e->source.len <= LIMIT_NAME_BYTES && e->id.len <= LIMIT_EVENT_ID_BYTES &&
           e->type.len <= LIMIT_EVENT_TYPE_BYTES && e->subject.len <= LIMIT_EVENT_SUBJECT_BYTES &&
           e->content_type.len <= LIMIT_EVENT_CONTENT_TYPE_BYTES &&
           e->metadata.len <= LIMIT_EVENT_METADATA_BYTES &&
           e->headers.len <= LIMIT_EVENT_HEADERS_BYTES &&
           e->endpoints.len <= LIMIT_EVENT_ENDPOINTS_BYTES &&
           e->body.len <= LIMIT_BODY_BYTES_HIGHEST;
}

static bool failure_fits(const struct record_failure *f) {
    return f->type.len <= LIMIT_ERROR_TYPE_BYTES && f->message.len <= LIMIT_ERROR_MESSAGE_BYTES &&
           f->detail.len <= LIMIT_ERROR_DETAIL_BYTES;
}

/* Of the seq that the newest version repeats. */
static struct slice event(struct arena *a, struct slice value) {
    struct event e;
    uint64_t seq = 1;
    if (value.len >= SEQ_AT + 8) {
        memcpy(&seq, value.data + SEQ_AT, 8);
        seq = le64toh(seq);
    }
    if (!record_event_decode(seq, value, &e)) return nothing;
    struct event other;
    bool old = value.data[VERSION_AT] < 3;
    CHECK(record_event_decode(seq + 1, value, &other) == old);
    return event_fits(&e) ? record_event_encode(a, &e, NULL) : nothing;
}

static struct slice dead(struct arena *a, struct slice value) {
    struct record_dead r;
    if (!record_dead_decode(value, &r)) return nothing;
    bool fits =
        event_fits(&r.event) && failure_fits(&r.failure) && r.reason.len <= strlen("max_fails");
    return fits ? record_dead_encode(a, &r) : nothing;
}

static struct slice due(struct arena *a, struct slice value) {
    struct record_due r;
    if (!record_due_decode(value, &r)) return nothing;
    return event_fits(&r.event) && failure_fits(&r.failure) ? record_due_encode(a, &r) : nothing;
}

static struct slice retry(struct arena *a, struct slice value) {
    struct record_retry r;
    if (!record_retry_decode(value, &r)) return nothing;
    return failure_fits(&r.failure) ? record_retry_encode(a, &r) : nothing;
}

static uint64_t next_seq(void *ctx) {
    uint64_t seq;
    CHECK(record_position_next(ctx, &seq));
    return seq;
}

static struct slice position(struct arena *a, struct slice value) {
    struct record_position p;
    if (!record_position_decode(value, &p)) return nothing;
    struct record_position copy = p;
    struct slice encoded = record_position_encode(a, &copy, next_seq, &p);
    CHECK(!record_position_next(&p, &(uint64_t){0}));
    return encoded;
}

static struct slice ids(struct arena *a, struct slice value) {
    struct record_ids r;
    if (!record_ids_decode(value, &r)) return nothing;
    uint64_t *fingerprints = arena_alloc(a, (size_t)r.count * sizeof *fingerprints);
    for (uint32_t i = 0; i < r.count; i++) fingerprints[i] = record_ids_at(&r, i);
    return record_ids_encode(a, r.received_at_ms, fingerprints, r.count);
}

static struct slice subscription(struct arena *a, struct slice value) {
    struct record_subscription r;
    if (!record_subscription_decode(a, value, &r)) return nothing;
    bool fits = r.name.len <= LIMIT_NAME_BYTES && r.order_key.len <= LIMIT_ORDER_KEY_BYTES;
    return fits ? record_subscription_encode(a, &r) : nothing;
}

static struct slice task(struct arena *a, struct slice value) {
    struct record_task r;
    if (!record_task_decode(value, &r)) return nothing;
    return r.filter.len <= LIMIT_FILTER_BYTES ? record_task_encode(a, &r) : nothing;
}

static struct slice number(struct arena *a, struct slice value) {
    uint64_t n;
    return record_u64_decode(value, &n) ? record_u64_encode(a, n) : nothing;
}

static struct slice config(struct arena *a, struct slice value) {
    struct slice bytes;
    return record_config_decode(value, &bytes) ? record_config_encode(a, bytes) : nothing;
}

static struct slice job(struct arena *a, struct slice value) {
    struct record_job r;
    if (!record_job_decode(a, value, &r)) return nothing;
    bool fits = r.id.len <= LIMIT_EVENT_SUBJECT_BYTES &&
                r.endpoints.len <= LIMIT_EVENT_ENDPOINTS_BYTES &&
                r.metadata.len <= LIMIT_EVENT_METADATA_BYTES;
    return fits ? record_job_encode(a, &r) : nothing;
}

/* The seeds in the corpus count on the order. */
static again_fn *const records[] = {event, dead,   position, ids, subscription, retry,
                                    task,  number, config,   due, job};
#define RECORDS (sizeof records / sizeof records[0])

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena arena;
    if (size == 0) return 0;
    /* Of exactly the size, so that a read beyond it is seen. */
    size_t len = size - 1;
    uint8_t *bytes = mem_alloc(len);
    memcpy(bytes, data + 1, len);
    if ((data[0] & FIX_CRC) != 0 && len > CRC_BYTES) {
        uint32_t crc = crc32c(bytes + CRC_BYTES, len - CRC_BYTES);
        for (int i = 0; i < CRC_BYTES; i++) bytes[i] = (uint8_t)(crc >> 8 * i);
    }
    arena_init(&arena);
    again_fn *again = records[(data[0] & ~FIX_CRC) % RECORDS];
    struct slice encoded = again(&arena, slice_of(bytes, len));
    if (encoded.len > 0) {
        bool newest = encoded.data[VERSION_AT] == bytes[VERSION_AT];
        CHECK(!newest || slice_eq(encoded, slice_of(bytes, len)));
        CHECK(slice_eq(again(&arena, encoded), encoded));
    }
    arena_free(&arena);
    free(bytes);
    return 0;
}
