#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/utf8.h"

#define BUF_FIRST_BYTES 256

void buf_init(struct buf *b, size_t max) {
    *b = (struct buf){.max = max};
}

void buf_free(struct buf *b) {
    free(b->data);
    buf_init(b, b->max);
}

void buf_clear(struct buf *b) {
    b->len = 0;
    b->overflow = false;
}

size_t buf_cap_after(const struct buf *b, size_t len) {
    size_t need = b->len + len, cap = b->cap == 0 ? BUF_FIRST_BYTES : b->cap;
    while (cap < need) cap *= 2;
    return cap > b->max ? b->max : cap;
}

uint8_t *buf_reserve(struct buf *b, size_t len) {
    CHECK(b->len <= b->cap);
    if (len > b->max - b->len) {
        b->overflow = true;
        return NULL;
    }
    if (b->len + len > b->cap || b->data == NULL) {
        size_t cap = buf_cap_after(b, len);
        /* One byte more than it says, for the terminator that vsnprintf insists on. */
        b->data = mem_realloc(b->data, cap + 1);
        b->cap = cap;
    }
    return b->data + b->len;
}

bool buf_append(struct buf *b, const void *data, size_t len) {
    if (len == 0) return true;
    uint8_t *at = buf_reserve(b, len);
    if (at == NULL) return false;
    memcpy(at, data, len);
    b->len += len;
    return true;
}

bool buf_append_slice(struct buf *b, struct slice s) {
    return buf_append(b, s.data, s.len);
}

bool buf_append_str(struct buf *b, const char *text) {
    return buf_append(b, text, strlen(text));
}

bool buf_append_byte(struct buf *b, uint8_t byte) {
    return buf_append(b, &byte, 1);
}

bool buf_append_u64(struct buf *b, uint64_t n) {
    char digits[20]; /* of 2^64 - 1 */
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    return buf_append(b, digits + at, sizeof digits - at);
}

bool buf_printf(struct buf *b, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int need = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    CHECK(need >= 0);
    uint8_t *at = buf_reserve(b, (size_t)need);
    if (at == NULL) return false;
    va_start(args, fmt);
    vsnprintf((char *)at, (size_t)need + 1, fmt, args);
    va_end(args);
    b->len += (size_t)need;
    return true;
}

void buf_consume(struct buf *b, size_t n) {
    CHECK(n <= b->len);
    if (n == 0) return;
    b->len -= n;
    if (b->len > 0) memmove(b->data, b->data + n, b->len);
}

/* It stands for itself in a JSON string, alone. */
static bool is_plain(uint8_t c) {
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

bool buf_append_json_string(struct buf *b, struct slice text) {
    size_t start = b->len;
    buf_append_byte(b, '"');
    for (size_t i = 0; i < text.len;) {
        size_t run = i;
        while (run < text.len && is_plain(text.data[run])) run++;
        buf_append(b, text.data + i, run - i);
        i = run;
        if (i == text.len) break;
        uint8_t c = text.data[i];
        if (c == '"' || c == '\\') {
            buf_append_byte(b, '\\');
            buf_append_byte(b, c);
            i++;
        } else if (c == '\n') {
            buf_append_str(b, "\\n");
            i++;
        } else if (c < 0x20) {
            buf_printf(b, "\\u%04x", c);
            i++;
        } else {
            size_t n = utf8_sequence(text.data + i, text.len - i);
            if (n == 0) {
                buf_append_str(b, "\xEF\xBF\xBD");
                i++;
            } else {
                buf_append(b, text.data + i, n);
                i += n;
            }
        }
    }
    buf_append_byte(b, '"');
    if (b->overflow) b->len = start; /* no half of a string */
    return !b->overflow;
}
