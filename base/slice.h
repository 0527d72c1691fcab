/* slice.h: borrowed bytes.
 *
 * A slice points at bytes that somebody else owns; the function that hands one out says until
 * when. Bytes are not text: there is no terminator and NUL may occur. A slice of length 0 may
 * have any pointer, also NULL.
 *
 * Calls nothing but memcmp and memcpy. */
#ifndef BASE_SLICE_H
#define BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *data;
    size_t len;
};

/* printf("%.*s", SLICE_ARG(s)) for slices known to be text of less than 2 GiB. */
#define SLICE_ARG(s) (int)(s).len, (const char *)(s).data

static inline struct slice slice_of(const void *data, size_t len) {
    return (struct slice){.data = data, .len = len};
}

/* The bytes of a C string without its terminator. */
static inline struct slice slice_str(const char *text) {
    return (struct slice){.data = (const uint8_t *)text, .len = strlen(text)};
}

static inline bool slice_eq(struct slice a, struct slice b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool slice_eq_str(struct slice a, const char *text) {
    return slice_eq(a, slice_str(text));
}

/* Equal when ASCII letters are folded; other bytes must be the same. */
bool slice_eq_nocase(struct slice a, const char *text);

static inline bool slice_starts_with(struct slice s, const char *prefix) {
    size_t len = strlen(prefix);
    return s.len >= len && (len == 0 || memcmp(s.data, prefix, len) == 0);
}

/* The bytes from `from` (at most s.len) to the end. */
static inline struct slice slice_from(struct slice s, size_t from) {
    return from == 0 ? s : slice_of(s.data + from, s.len - from);
}

/* Copies into out[size] with a terminator. False (and out is empty) when it does not fit or when
 * the bytes hold a NUL, which a C string cannot carry. */
bool slice_to_cstr(struct slice s, char *out, size_t size);

/* Parses an unsigned decimal number without sign, blanks or overflow; the whole slice must be
 * digits. False leaves *out alone. */
bool slice_to_u64(struct slice s, uint64_t *out);

#endif
