/* buf.h: a growing byte buffer that is made with its maximum.
 *
 * Owned by whoever called buf_init; freed by buf_free. Pointers into it die at the next append.
 * Invariants: len <= cap <= max. An append that would pass the maximum changes nothing but sets
 * `overflow`, which stays set until buf_clear: a writer may append many pieces and look once.
 *
 * May call: base/check. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/check.h"
#include "base/slice.h"

struct buf {
    uint8_t *data;
    size_t len;
    size_t cap;
    size_t max;    /* bytes it may ever hold */
    bool overflow; /* an append was refused since the last clear */
};

/* An empty buffer that allocates nothing yet. */
void buf_init(struct buf *b, size_t max);
/* Gives the memory back; the buffer is empty and usable again with the same maximum. */
void buf_free(struct buf *b);
/* Empties it and keeps the memory. */
void buf_clear(struct buf *b);

/* Appends. False: it would pass the maximum, nothing was appended and `overflow` is set. */
bool buf_append(struct buf *b, const void *data, size_t len);
bool buf_append_slice(struct buf *b, struct slice s);
bool buf_append_str(struct buf *b, const char *text);
bool buf_append_byte(struct buf *b, uint8_t byte);
/* Appends the decimal digits of n. */
bool buf_append_u64(struct buf *b, uint64_t n);
bool buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Room for `len` more bytes at the end, to be filled by the caller and then counted by adding to
 * b->len. NULL: it would pass the maximum (overflow is set). */
uint8_t *buf_reserve(struct buf *b, size_t len);
/* What `cap` is after a buf_reserve of so many bytes, which must not pass the maximum. */
size_t buf_cap_after(const struct buf *b, size_t len);

/* Drops the first n bytes (n <= len) and moves the rest to the front. */
void buf_consume(struct buf *b, size_t n);

static inline struct slice buf_slice(const struct buf *b) {
    return slice_of(b->data, b->len);
}

/* Appends text as a JSON string with its quotes (RFC 8259 section 7). Bytes that are not valid
 * UTF-8 become U+FFFD, so that the result is always valid JSON. */
bool buf_append_json_string(struct buf *b, struct slice text);

#endif
