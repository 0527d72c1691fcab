#include "storage/record.h"

#include "proto/limits.h"
#include "storage/record_bytes.h"

#define U64_VERSION      1
#define CONFIG_VERSION   1
#define IDS_VERSION      1
#define POSITION_VERSION 2 /* 2: due_count, dead_count, expired_total, matched */
#define TASK_VERSION     3 /* 2: not only replays; 3: project */

#define POSITION_BYTES (7 * 8 + 4)
#define TASK_BYTES     (4 + 2 + 4 + 8 * 8 + 4 + 4)

/* Keys. */

static void put_big_endian(uint8_t *out, uint64_t n, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) out[i] = (uint8_t)(n >> 8 * (bytes - 1 - i));
}

static uint64_t get_big_endian(struct slice key, size_t at, size_t bytes) {
    if (at > key.len || key.len - at < bytes) {
        check_failed(__FILE__, __LINE__,
                     "a key is shorter than it was written: the store is damaged, restore it from "
                     "a copy");
    }
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

struct slice key_due(uint8_t out[KEY_DUE_BYTES], uint32_t sub, uint64_t due_wall_ms, uint64_t seq,
                     uint32_t cursor) {
    put_big_endian(out, sub, 4);
    put_big_endian(out + 4, due_wall_ms, 8);
    put_big_endian(out + 12, seq, 8);
    put_big_endian(out + 20, cursor, 4);
    return slice_of(out, KEY_DUE_BYTES);
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
    write_u64(&w, p->due_count);
    write_u64(&w, p->dead_count);
    write_u64(&w, p->expired_total);
    write_u64(&w, p->matched);
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
    if (r.version >= 2) {
        p.due_count = read_u64(&r);
        p.dead_count = read_u64(&r);
        p.expired_total = read_u64(&r);
        p.matched = read_u64(&r);
    } else {
        p.dead_count = p.dead_total; /* a dead letter could not leave its table */
    }
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

/* Tasks. */

struct slice record_task_encode(struct arena *a, const struct record_task *t) {
    CHECK(t->filter.len <= LIMIT_FILTER_BYTES);
    struct writer w = record_start(a, TASK_VERSION, TASK_BYTES + t->filter.len);
    write_u32(&w, t->project);
    write_u8(&w, t->kind);
    write_u8(&w, t->flags);
    write_u32(&w, t->subscription);
    write_u64(&w, t->created_at_ms);
    write_u64(&w, t->finished_at_ms);
    write_u64(&w, t->from);
    write_u64(&w, t->to);
    write_u64(&w, t->next);
    write_u64(&w, t->matched);
    write_u64(&w, t->acked_total);
    write_u64(&w, t->expired);
    write_u32(&w, t->rate_per_s);
    write_u32(&w, (uint32_t)t->filter.len);
    write_slice(&w, t->filter);
    return record_seal(&w);
}

/* Version 1 did not count what a replay fed: at least what was acked of it. */
static struct record_task read_replay(struct reader *r) {
    struct record_task t = {.project = PROJECT_DEFAULT, .subscription = read_u32(r)};
    t.created_at_ms = read_u64(r);
    t.finished_at_ms = read_u64(r);
    t.from = read_u64(r);
    t.to = read_u64(r);
    t.matched = t.acked_total = read_u64(r);
    return t;
}

static struct record_task read_task(struct reader *r) {
    struct record_task t = {.project = r->version < 3 ? PROJECT_DEFAULT : read_u32(r)};
    t.kind = read_u8(r);
    t.flags = read_u8(r);
    t.subscription = read_u32(r);
    t.created_at_ms = read_u64(r);
    t.finished_at_ms = read_u64(r);
    t.from = read_u64(r);
    t.to = read_u64(r);
    t.next = read_u64(r);
    t.matched = read_u64(r);
    t.acked_total = read_u64(r);
    t.expired = read_u64(r);
    t.rate_per_s = read_u32(r);
    t.filter.len = read_u32(r);
    t.filter = read_slice(r, t.filter.len);
    return t;
}

bool record_task_decode(struct slice value, struct record_task *out) {
    struct reader r = record_open(value, TASK_VERSION);
    struct record_task t = r.version == 1 ? read_replay(&r) : read_task(&r);
    if (!record_done(&r)) return false;
    *out = t;
    return true;
}
