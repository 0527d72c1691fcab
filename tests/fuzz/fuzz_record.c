/* Decodes arbitrary bytes as every record. The first byte of the input picks the decoder (low
 * bits) and, by its high bit, whether the CRC is put right first, so that the fields behind it are
 * reached. What decodes must encode to a value that decodes again. */
#include <stdlib.h>

#include "base/check.h"
#include "base/crc32c.h"
#include "storage/record.h"

#define DECODERS  9
#define FIX_CRC   0x80
#define CRC_BYTES 4

static void touch(struct slice s) {
    if (s.len > 0) CHECK(s.data[0] + s.data[s.len - 1] < 511);
}

static void touch_event(const struct event *e) {
    struct slice all[] = {e->source,       e->id,       e->type,    e->subject,
                          e->content_type, e->metadata, e->headers, e->body};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) touch(all[i]);
}

static uint64_t next_seq(void *ctx) {
    uint64_t seq;
    CHECK(record_position_next(ctx, &seq));
    return seq;
}

static void position(struct arena *a, struct slice value) {
    struct record_position p, again;
    if (!record_position_decode(value, &p)) return;
    struct record_position copy = p;
    struct slice encoded = record_position_encode(a, &copy, next_seq, &p);
    CHECK(slice_eq(encoded, value)); /* there is one way to write it */
    CHECK(record_position_decode(encoded, &again));
    CHECK(!record_position_next(&p, &(uint64_t){0}));
}

static void ids(struct slice value) {
    struct record_ids r;
    uint64_t sum = 0;
    if (!record_ids_decode(value, &r)) return;
    for (uint32_t i = 0; i < r.count; i++) sum ^= record_ids_at(&r, i);
    touch(slice_of(&sum, sizeof sum));
}

static void subscription(struct arena *a, struct slice value) {
    struct record_subscription r;
    if (!record_subscription_decode(a, value, &r)) return;
    touch(r.name);
    for (uint32_t i = 0; i < r.types_count; i++) touch(r.types[i]);
    for (uint32_t i = 0; i < r.sources_count; i++) touch(r.sources[i]);
}

static void decode(struct arena *a, unsigned which, struct slice value) {
    struct event event;
    struct record_dead dead;
    struct record_retry retry;
    struct record_replay replay;
    struct slice bytes;
    uint64_t n;
    switch (which) {
    case 0:
        if (record_event_decode(1, value, &event)) touch_event(&event);
        break;
    case 1:
        if (record_dead_decode(value, &dead)) {
            touch(dead.reason);
            touch(dead.error);
            touch_event(&dead.event);
        }
        break;
    case 2: position(a, value); break;
    case 3: ids(value); break;
    case 4: subscription(a, value); break;
    case 5:
        if (record_retry_decode(value, &retry)) touch(retry.error);
        break;
    case 6:
        if (record_replay_decode(value, &replay)) {
            CHECK(slice_eq(record_replay_encode(a, &replay), value));
        }
        break;
    case 7:
        if (record_u64_decode(value, &n)) CHECK(slice_eq(record_u64_encode(a, n), value));
        break;
    case 8:
        if (record_config_decode(value, &bytes)) {
            CHECK(slice_eq(record_config_encode(a, bytes), value));
        }
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena arena;
    if (size == 0) return 0;
    /* Of exactly the size, so that a read beyond it is seen. */
    size_t len = size - 1;
    uint8_t *value = mem_alloc(len);
    memcpy(value, data + 1, len);
    if ((data[0] & FIX_CRC) != 0 && len > CRC_BYTES) {
        uint32_t crc = crc32c(value + CRC_BYTES, len - CRC_BYTES);
        for (int i = 0; i < CRC_BYTES; i++) value[i] = (uint8_t)(crc >> 8 * i);
    }
    arena_init(&arena);
    decode(&arena, data[0] % DECODERS, slice_of(value, len));
    arena_free(&arena);
    free(value);
    return 0;
}
