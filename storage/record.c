#include "storage/record.h"

#include "proto/limits.h"
#include "storage/record_bytes.h"

#define U64_VERSION          1
#define CONFIG_VERSION       1
#define IDS_VERSION          1
#define SUBSCRIPTION_VERSION 1
#define POSITION_VERSION     1
#define RETRY_VERSION        1
#define REPLAY_VERSION       1

#define SUBSCRIPTION_BYTES (4 + 8 + 8 + 4 + 8 + 8 + 4 + 2 + 2 + 2)
#define POSITION_BYTES     (8 + 8 + 8 + 4)
#define RETRY_BYTES        (4 + 4 + 8 + 2)
#define REPLAY_BYTES       (4 + 8 + 8 + 8 + 8 + 8)

/* Keys. */

static void put_big_endian(uint8_t *out, uint64_t n, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) out[i] = (uint8_t)(n >> 8 * (bytes - 1 - i));
}

static uint64_t get_big_endian(struct slice key, size_t at, size_t bytes) {
    CHECK(at <= key.len && key.len - at >= bytes);
    uint64_t n = 0;
    for (size_t i = 0; i < bytes; i++) n = n << 8 | key.data[at + i];
    return n;
}

struct slice key_u64(uint8_t out[KEY_U64_BYTES], uint64_t n) {
    put_big_endian(out, n, 8);
    return slice_of(out, KEY_U64_BYTES);
}

struct slice key_u32(uint8_t out[KEY_SUB_BYTES], uint32_t n) {
    put_big_endian(out, n, 4);
    return slice_of(out, KEY_SUB_BYTES);
}

struct slice key_position(uint8_t out[KEY_POSITION_BYTES], uint32_t sub, uint32_t cursor) {
    put_big_endian(out, sub, 4);
    put_big_endian(out + 4, cursor, 4);
    return slice_of(out, KEY_POSITION_BYTES);
}

struct slice key_retry(uint8_t out[KEY_RETRY_BYTES], uint32_t sub, uint32_t cursor, uint64_t seq) {
    put_big_endian(out, sub, 4);
    put_big_endian(out + 4, cursor, 4);
    put_big_endian(out + 8, seq, 8);
    return slice_of(out, KEY_RETRY_BYTES);
}

struct slice key_dead(uint8_t out[KEY_DEAD_BYTES], uint32_t sub, uint64_t seq, uint32_t cursor) {
    put_big_endian(out, sub, 4);
    put_big_endian(out + 4, seq, 8);
    put_big_endian(out + 12, cursor, 4);
    return slice_of(out, KEY_DEAD_BYTES);
}

uint64_t key_read_u64(struct slice key, size_t at) {
    return get_big_endian(key, at, 8);
}

uint32_t key_read_u32(struct slice key, size_t at) {
    return (uint32_t)get_big_endian(key, at, 4);
}

/* Numbers. */

struct slice record_u64_encode(struct arena *a, uint64_t n) {
    struct writer w = record_start(a, U64_VERSION, 8);
    write_u64(&w, n);
    return record_seal(&w);
}

bool record_u64_decode(struct slice value, uint64_t *out) {
    struct reader r = record_open(value, U64_VERSION);
    uint64_t n = read_u64(&r);
    if (!record_done(&r)) return false;
    *out = n;
    return true;
}

/* What a room keeps. */

struct slice record_config_encode(struct arena *a, struct slice bytes) {
    struct writer w = record_start(a, CONFIG_VERSION, 4 + bytes.len);
    write_u32(&w, bytes.len);
    write_slice(&w, bytes);
    return record_seal(&w);
}

bool record_config_decode(struct slice value, struct slice *bytes) {
    struct reader r = record_open(value, CONFIG_VERSION);
    *bytes = read_slice(&r, read_u32(&r));
    return record_done(&r);
}

/* Fingerprints of ids. */

struct slice record_ids_encode(struct arena *a, uint64_t received_at_ms,
                               const uint64_t *fingerprints, uint32_t count) {
    struct writer w = record_start(a, IDS_VERSION, 8 + 4 + (size_t)count * 8);
    write_u64(&w, received_at_ms);
    write_u32(&w, count);
    for (uint32_t i = 0; i < count; i++) write_u64(&w, fingerprints[i]);
    return record_seal(&w);
}

bool record_ids_decode(struct slice value, struct record_ids *out) {
    struct reader r = record_open(value, IDS_VERSION);
    struct record_ids ids = {.received_at_ms = read_u64(&r)};
    ids.count = read_u32(&r);
    ids.fingerprints = read_slice(&r, (size_t)ids.count * 8).data;
    if (!record_done(&r)) return false;
    *out = ids;
    return true;
}

uint64_t record_ids_at(const struct record_ids *ids, uint32_t i) {
    CHECK(i < ids->count);
    const uint8_t *at = ids->fingerprints + (size_t)i * 8;
    struct reader r = {.at = at, .end = at + 8};
    return read_u64(&r);
}

/* Subscriptions. */

static size_t list_bytes(const struct slice *list, uint32_t count) {
    CHECK(count <= LIMIT_FILTER_PATTERNS);
    size_t bytes = 0;
    for (uint32_t i = 0; i < count; i++) bytes += 2 + list[i].len;
    return bytes;
}

static void write_list(struct writer *w, const struct slice *list, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        write_u16(w, list[i].len);
        write_slice(w, list[i]);
    }
}

/* Each entry takes two bytes at least, so the array is no larger than the value allows. */
static const struct slice *read_list(struct reader *r, struct arena *a, uint32_t count) {
    if (count == 0 || r->bad || (size_t)(r->end - r->at) < (size_t)count * 2) {
        r->bad = r->bad || count > 0;
        return NULL;
    }
    struct slice *list = arena_alloc(a, count * sizeof *list);
    for (uint32_t i = 0; i < count; i++) list[i] = read_slice(r, read_u16(r));
    return list;
}

struct slice record_subscription_encode(struct arena *a, const struct record_subscription *s) {
    CHECK(s->name.len <= LIMIT_NAME_BYTES);
    struct writer w =
        record_start(a, SUBSCRIPTION_VERSION,
                     SUBSCRIPTION_BYTES + s->name.len + list_bytes(s->types, s->types_count) +
                         list_bytes(s->sources, s->sources_count));
    write_u32(&w, s->project);
    write_u64(&w, s->created_at_ms);
    write_u64(&w, s->lease_ms);
    write_u32(&w, s->max_fails);
    write_u64(&w, s->backoff_min_ms);
    write_u64(&w, s->backoff_max_ms);
    write_u32(&w, s->backoff_factor_permille);
    write_u16(&w, s->name.len);
    write_u16(&w, s->types_count);
    write_u16(&w, s->sources_count);
    write_slice(&w, s->name);
    write_list(&w, s->types, s->types_count);
    write_list(&w, s->sources, s->sources_count);
    return record_seal(&w);
}

bool record_subscription_decode(struct arena *a, struct slice value,
                                struct record_subscription *out) {
    struct reader r = record_open(value, SUBSCRIPTION_VERSION);
    struct record_subscription s = {.project = read_u32(&r)};
    s.created_at_ms = read_u64(&r);
    s.lease_ms = read_u64(&r);
    s.max_fails = read_u32(&r);
    s.backoff_min_ms = read_u64(&r);
    s.backoff_max_ms = read_u64(&r);
    s.backoff_factor_permille = read_u32(&r);
    s.name.len = read_u16(&r);
    s.types_count = read_u16(&r);
    s.sources_count = read_u16(&r);
    s.name = read_slice(&r, s.name.len);
    s.types = read_list(&r, a, s.types_count);
    s.sources = read_list(&r, a, s.sources_count);
    if (!record_done(&r)) return false;
    *out = s;
    return true;
}

/* Positions: each outstanding seq is the distance to the one before it (the first to 0), seven bits
 * a byte, low bits first, the high bit set on all but the last byte. */

#define GAP_BYTES_MAX 10 /* 64 bits, seven at a time */

/* An upper bound of what the gaps behind the first take: each has one byte, and one more for every
 * seven bits by which it is larger, which at most span >> 7k of them are. */
static size_t gaps_bytes_max(uint64_t count, uint64_t span) {
    uint64_t bytes = count;
    for (uint64_t at_least = span >> 7; at_least > 0; at_least >>= 7) {
        bytes += at_least < count ? at_least : count;
    }
    return (size_t)bytes;
}

static void write_gap(struct writer *w, uint64_t gap) {
    for (; gap >= 0x80; gap >>= 7) write_number(w, (gap & 0x7F) | 0x80, 1);
    write_number(w, gap, 1);
}

/* Only the shortest form of a gap in [1, 2^64) is taken. */
static uint64_t read_gap(struct reader *r) {
    uint64_t gap = 0;
    for (unsigned shift = 0; shift < 7 * GAP_BYTES_MAX; shift += 7) {
        uint64_t byte = read_number(r, 1), bits = byte & 0x7F;
        if (r->bad || (shift == 63 && bits > 1)) break;
        gap |= bits << shift;
        if ((byte & 0x80) == 0) {
            r->bad = bits == 0;
            return gap;
        }
    }
    r->bad = true;
    return 0;
}

struct slice record_position_encode(struct arena *a, const struct record_position *p,
                                    record_seq_fn *seqs, void *ctx) {
    uint32_t count = p->outstanding_count;
    uint64_t seq = count > 0 ? seqs(ctx) : 0;
    size_t bytes = POSITION_BYTES;
    if (count > 0) {
        CHECK(seq > 0 && seq < p->next);
        bytes += GAP_BYTES_MAX + gaps_bytes_max(count - 1, p->next - seq);
    }
    struct writer w = record_start(a, POSITION_VERSION, bytes);
    write_u64(&w, p->next);
    write_u64(&w, p->acked_total);
    write_u64(&w, p->dead_total);
    write_u32(&w, count);
    if (count > 0) write_gap(&w, seq);
    for (uint32_t i = 1; i < count; i++) {
        uint64_t following = seqs(ctx);
        CHECK(following > seq && following < p->next);
        write_gap(&w, following - seq);
        seq = following;
    }
    return record_seal(&w);
}

bool record_position_decode(struct slice value, struct record_position *out) {
    struct reader r = record_open(value, POSITION_VERSION);
    struct record_position p = {.next = read_u64(&r)};
    p.acked_total = read_u64(&r);
    p.dead_total = read_u64(&r);
    p.outstanding_count = read_u32(&r);
    if (r.bad) return false;
    p.outstanding = slice_of(r.at, (size_t)(r.end - r.at));
    uint64_t seq = 0;
    for (uint32_t i = 0; i < p.outstanding_count && !r.bad; i++) {
        uint64_t gap = read_gap(&r);
        if (seq >= p.next || gap >= p.next - seq) return false;
        seq += gap;
    }
    if (!record_done(&r)) return false;
    *out = p;
    return true;
}

bool record_position_next(struct record_position *p, uint64_t *seq) {
    if (p->outstanding_count == 0) return false;
    struct reader r = {.at = p->outstanding.data, .end = p->outstanding.data + p->outstanding.len};
    p->taken += read_gap(&r);
    CHECK(!r.bad);
    p->outstanding = slice_of(r.at, (size_t)(r.end - r.at));
    p->outstanding_count--;
    *seq = p->taken;
    return true;
}

/* Retries. */

struct slice record_retry_encode(struct arena *a, const struct record_retry *t) {
    CHECK(t->error.len <= LIMIT_ERROR_BYTES);
    struct writer w = record_start(a, RETRY_VERSION, RETRY_BYTES + t->error.len);
    write_u32(&w, t->fails);
    write_u32(&w, t->deliveries);
    write_u64(&w, t->due_wall_ms);
    write_u16(&w, t->error.len);
    write_slice(&w, t->error);
    return record_seal(&w);
}

bool record_retry_decode(struct slice value, struct record_retry *out) {
    struct reader r = record_open(value, RETRY_VERSION);
    struct record_retry t = {.fails = read_u32(&r)};
    t.deliveries = read_u32(&r);
    t.due_wall_ms = read_u64(&r);
    t.error.len = read_u16(&r);
    t.error = read_slice(&r, t.error.len);
    if (!record_done(&r)) return false;
    *out = t;
    return true;
}

/* Replays. */

struct slice record_replay_encode(struct arena *a, const struct record_replay *p) {
    struct writer w = record_start(a, REPLAY_VERSION, REPLAY_BYTES);
    write_u32(&w, p->subscription);
    write_u64(&w, p->created_at_ms);
    write_u64(&w, p->finished_at_ms);
    write_u64(&w, p->from);
    write_u64(&w, p->to);
    write_u64(&w, p->delivered_total);
    return record_seal(&w);
}

bool record_replay_decode(struct slice value, struct record_replay *out) {
    struct reader r = record_open(value, REPLAY_VERSION);
    struct record_replay p = {.subscription = read_u32(&r)};
    p.created_at_ms = read_u64(&r);
    p.finished_at_ms = read_u64(&r);
    p.from = read_u64(&r);
    p.to = read_u64(&r);
    p.delivered_total = read_u64(&r);
    if (!record_done(&r)) return false;
    *out = p;
    return true;
}
