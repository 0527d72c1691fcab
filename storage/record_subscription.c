/* The record of a subscription, and the filter text that one of version 1 means. */
#include "base/buf.h"
#include "base/utf8.h"
#include "proto/limits.h"
#include "storage/record.h"
#include "storage/record_bytes.h"

/* 2: filter text instead of lists, the whole policy; 3: aged_from_ms. */
#define SUBSCRIPTION_VERSION 3
#define SUBSCRIPTION_BYTES   (4 + 5 * 8 + 4 + 2 * 8 + 3 * 4 + 2 + 2 * 2 + 4)

_Static_assert(LIMIT_BACKOFF_STEPS <= UINT8_MAX, "the backoff list has a u8 count");
_Static_assert(LIMIT_NAME_BYTES <= UINT16_MAX, "the name has a u16 length");
_Static_assert(LIMIT_ORDER_KEY_BYTES <= UINT16_MAX, "the order key has a u16 length");

struct slice record_subscription_encode(struct arena *a, const struct record_subscription *s) {
    CHECK(s->name.len <= LIMIT_NAME_BYTES);
    CHECK(s->order_key.len <= LIMIT_ORDER_KEY_BYTES);
    CHECK(s->backoff_list_count <= LIMIT_BACKOFF_STEPS);
    /* Not LIMIT_FILTER_BYTES: the lists of version 1 may mean a longer text. */
    CHECK(s->filter.len <= UINT32_MAX);
    struct writer w = record_start(a, SUBSCRIPTION_VERSION,
                                   SUBSCRIPTION_BYTES + s->name.len + s->order_key.len +
                                       s->filter.len + (size_t)s->backoff_list_count * 8);
    write_u32(&w, s->project);
    write_u64(&w, s->created_at_ms);
    write_u64(&w, s->lease_ms);
    write_u64(&w, s->max_hold_ms);
    write_u64(&w, s->max_age_ms);
    write_u64(&w, s->aged_from_ms);
    write_u32(&w, s->max_fails);
    write_u64(&w, s->backoff_min_ms);
    write_u64(&w, s->backoff_max_ms);
    write_u32(&w, s->backoff_factor_permille);
    write_u32(&w, s->backoff_jitter_permille);
    write_u32(&w, s->rate_per_s);
    write_u8(&w, s->flags);
    write_u8(&w, (uint8_t)s->backoff_list_count);
    write_u16(&w, s->name.len);
    write_u16(&w, s->order_key.len);
    write_u32(&w, (uint32_t)s->filter.len);
    write_slice(&w, s->name);
    write_slice(&w, s->order_key);
    write_slice(&w, s->filter);
    for (uint32_t i = 0; i < s->backoff_list_count; i++) write_u64(&w, s->backoff_list_ms[i]);
    return record_seal(&w);
}

/* A list that is too long or cut off turns r bad and allocates nothing. */
static const uint64_t *read_backoff_list(struct reader *r, struct arena *a, uint32_t count) {
    struct slice bytes = read_slice(r, (size_t)count * 8);
    if (count > LIMIT_BACKOFF_STEPS) r->bad = true;
    if (r->bad || count == 0) return NULL;
    struct reader each = {.at = bytes.data, .end = bytes.data + bytes.len};
    uint64_t *list = arena_alloc(a, count * sizeof *list);
    for (uint32_t i = 0; i < count; i++) list[i] = read_u64(&each);
    return list;
}

static void read_subscription(struct reader *r, struct arena *a, struct record_subscription *s) {
    s->project = read_u32(r);
    s->created_at_ms = read_u64(r);
    s->lease_ms = read_u64(r);
    s->max_hold_ms = read_u64(r);
    s->max_age_ms = read_u64(r);
    if (r->version >= 3) s->aged_from_ms = read_u64(r);
    s->max_fails = read_u32(r);
    s->backoff_min_ms = read_u64(r);
    s->backoff_max_ms = read_u64(r);
    s->backoff_factor_permille = read_u32(r);
    s->backoff_jitter_permille = read_u32(r);
    s->rate_per_s = read_u32(r);
    s->flags = read_u8(r);
    s->backoff_list_count = read_u8(r);
    s->name.len = read_u16(r);
    s->order_key.len = read_u16(r);
    s->filter.len = read_u32(r);
    s->name = read_slice(r, s->name.len);
    s->order_key = read_slice(r, s->order_key.len);
    s->filter = read_slice(r, s->filter.len);
    s->backoff_list_ms = read_backoff_list(r, a, s->backoff_list_count);
}

/* Version 1. */

/* Appends a pattern as a JSON string. A byte that no JSON text can carry becomes a star: the filter
 * then wants what it wanted and perhaps more, and no event is missed. */
static void append_pattern(struct buf *json, struct slice pattern, struct arena *a) {
    struct slice copy = arena_copy(a, pattern);
    uint8_t *bytes = (uint8_t *)copy.data;
    for (size_t i = 0, n; i < copy.len; i += n == 0 ? 1 : n) {
        n = utf8_sequence(bytes + i, copy.len - i);
        if (n == 0) bytes[i] = '*';
    }
    buf_append_json_string(json, copy);
}

/* Takes `count` patterns off r as the member `name`; none: no member. */
static void read_patterns(struct reader *r, const char *name, uint32_t count, struct buf *json,
                          struct arena *a) {
    for (uint32_t i = 0; i < count && !r->bad; i++) {
        struct slice pattern = read_slice(r, read_u16(r));
        if (i > 0) buf_append_byte(json, ',');
        else buf_printf(json, "%s\"%s\":[", json->len == 0 ? "{" : ",", name);
        append_pattern(json, pattern, a);
    }
    if (count > 0) buf_append_byte(json, ']');
}

static void read_subscription_v1(struct reader *r, struct arena *a, struct record_subscription *s) {
    s->project = read_u32(r);
    s->created_at_ms = read_u64(r);
    s->lease_ms = read_u64(r);
    s->max_fails = read_u32(r);
    s->backoff_min_ms = read_u64(r);
    s->backoff_max_ms = read_u64(r);
    s->backoff_factor_permille = read_u32(r);
    s->name.len = read_u16(r);
    uint32_t types = read_u16(r), sources = read_u16(r);
    s->name = read_slice(r, s->name.len);
    /* A pattern of n bytes has 2 + n here and at most 6n + 3 as JSON; 64 hold the rest. */
    struct buf json;
    buf_init(&json, 64 + 6 * (size_t)(r->end - r->at));
    read_patterns(r, "types", types, &json, a);
    read_patterns(r, "sources", sources, &json, a);
    if (json.len > 0) buf_append_byte(&json, '}');
    CHECK(!json.overflow);
    if (!r->bad) s->filter = arena_copy(a, buf_slice(&json));
    buf_free(&json);
}

bool record_subscription_decode(struct arena *a, struct slice value,
                                struct record_subscription *out) {
    struct reader r = record_open(value, SUBSCRIPTION_VERSION);
    struct record_subscription s = {0};
    if (r.version == 1) read_subscription_v1(&r, a, &s);
    else read_subscription(&r, a, &s);
    if (!record_done(&r)) return false;
    *out = s;
    return true;
}
