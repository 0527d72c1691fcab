/* record_bytes.h: how the record files write and read bytes. Internal to storage/record*.c.
 *
 * A writer fills memory of exactly the computed size; a reader takes fields off a value and turns
 * bad for good when one would pass the end, so that a decoder asks once, at its end. Both borrow
 * the memory. Invariant: at <= end. May call: base. */
#ifndef STORAGE_RECORD_BYTES_H
#define STORAGE_RECORD_BYTES_H

#include <endian.h>

#include "base/arena.h"
#include "base/check.h"
#include "base/crc32c.h"

#define RECORD_CRC_BYTES  4
#define RECORD_SEAL_BYTES (RECORD_CRC_BYTES + 1) /* CRC and version */

struct writer {
    uint8_t *start, *at, *end;
};

struct reader {
    const uint8_t *at, *end;
    bool bad;
    uint8_t version; /* of the record, 1 to the newest */
};

static inline void write_bytes(struct writer *w, const void *bytes, size_t len) {
    CHECK((size_t)(w->end - w->at) >= len);
    if (len > 0) memcpy(w->at, bytes, len);
    w->at += len;
}

static inline void write_slice(struct writer *w, struct slice s) {
    write_bytes(w, s.data, s.len);
}

/* The low `bytes` bytes of n, little-endian; n has no more than those. */
static inline void write_number(struct writer *w, uint64_t n, size_t bytes) {
    uint64_t little = htole64(n);
    write_bytes(w, &little, bytes);
}

static inline void write_u8(struct writer *w, uint8_t n) {
    write_number(w, n, 1);
}
static inline void write_u16(struct writer *w, size_t n) {
    CHECK(n <= UINT16_MAX);
    write_number(w, n, 2);
}
static inline void write_u32(struct writer *w, uint32_t n) {
    write_number(w, n, 4);
}
static inline void write_u64(struct writer *w, uint64_t n) {
    write_number(w, n, 8);
}

/* A writer over body_bytes of fields behind the seal, whose CRC record_seal fills in. */
static inline struct writer record_start(struct arena *a, uint8_t version, size_t body_bytes) {
    size_t len = RECORD_SEAL_BYTES + body_bytes;
    uint8_t *bytes = arena_alloc(a, len);
    bytes[RECORD_CRC_BYTES] = version;
    return (struct writer){.start = bytes, .at = bytes + RECORD_SEAL_BYTES, .end = bytes + len};
}

/* Seals what was written and returns it. */
static inline struct slice record_seal(struct writer *w) {
    size_t len = (size_t)(w->at - w->start);
    uint32_t crc = htole32(crc32c(w->start + RECORD_CRC_BYTES, len - RECORD_CRC_BYTES));
    memcpy(w->start, &crc, RECORD_CRC_BYTES);
    return slice_of(w->start, len);
}

static inline uint64_t read_number(struct reader *r, size_t bytes) {
    uint64_t n = 0;
    if (r->bad || (size_t)(r->end - r->at) < bytes) {
        r->bad = true;
        return 0;
    }
    memcpy(&n, r->at, bytes);
    r->at += bytes;
    return le64toh(n);
}

static inline uint8_t read_u8(struct reader *r) {
    return (uint8_t)read_number(r, 1);
}
static inline uint16_t read_u16(struct reader *r) {
    return (uint16_t)read_number(r, 2);
}
static inline uint32_t read_u32(struct reader *r) {
    return (uint32_t)read_number(r, 4);
}
static inline uint64_t read_u64(struct reader *r) {
    return read_number(r, 8);
}

/* The next len bytes, borrowed from the value. */
static inline struct slice read_slice(struct reader *r, size_t len) {
    if (r->bad || (size_t)(r->end - r->at) < len) {
        r->bad = true;
        return slice_of(NULL, 0);
    }
    struct slice s = slice_of(r->at, len);
    r->at += len;
    return s;
}

/* A reader over the fields of a value; bad from the start when the seal is broken or the version
 * is none of 1 to `newest`. */
static inline struct reader record_open(struct slice value, uint8_t newest) {
    struct reader r = {.bad = true};
    if (value.len < RECORD_SEAL_BYTES) return r;
    r = (struct reader){.at = value.data, .end = value.data + value.len};
    uint32_t crc = read_u32(&r);
    r.version = *r.at;
    r.bad = crc != crc32c(r.at, (size_t)(r.end - r.at)) || r.version == 0 || r.version > newest;
    r.at++;
    return r;
}

/* Whether every field was there and nothing is left over. */
static inline bool record_done(const struct reader *r) {
    return !r->bad && r->at == r->end;
}

#endif
