#include "broker/json/walk.h"

struct writer {
    char *out;
    size_t len, size;
};

/* False: no room for it and the terminator. */
static bool put(struct writer *w, const void *bytes, size_t len) {
    if (len >= w->size - w->len) return false;
    memcpy(w->out + w->len, bytes, len);
    w->len += len;
    return true;
}

static bool put_code_point(struct writer *w, uint32_t c) {
    uint8_t b[4];
    if (c < 0x80) {
        b[0] = (uint8_t)c;
        return put(w, b, 1);
    }
    if (c < 0x800) {
        b[0] = (uint8_t)(0xC0 | c >> 6);
        b[1] = (uint8_t)(0x80 | (c & 0x3F));
        return put(w, b, 2);
    }
    if (c < 0x10000) {
        b[0] = (uint8_t)(0xE0 | c >> 12);
        b[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
        b[2] = (uint8_t)(0x80 | (c & 0x3F));
        return put(w, b, 3);
    }
    b[0] = (uint8_t)(0xF0 | c >> 18);
    b[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
    b[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
    b[3] = (uint8_t)(0x80 | (c & 0x3F));
    return put(w, b, 4);
}

/* The number of four hex digits at in[at..], or -1. */
static long hex4(struct slice in, size_t at) {
    if (in.len < 4 || at > in.len - 4) return -1;
    long n = 0;
    for (size_t i = at; i < at + 4; i++) {
        uint8_t c = in.data[i];
        if (c >= '0' && c <= '9') n = n * 16 + (c - '0');
        else if (c >= 'a' && c <= 'f') n = n * 16 + (c - 'a' + 10);
        else if (c >= 'A' && c <= 'F') n = n * 16 + (c - 'A' + 10);
        else return -1;
    }
    return n;
}

/* Decodes the \u escape whose digits begin at in[at]; a pair of surrogates is one character.
 * Returns how many bytes of `in` it took from there, or 0: not valid, NUL, or no room. */
static size_t put_unicode(struct writer *w, struct slice in, size_t at) {
    long c = hex4(in, at);
    size_t taken = 4;
    if (c <= 0) return 0;
    if (c >= 0xD800 && c <= 0xDBFF && in.len - at >= 10 && in.data[at + 4] == '\\' &&
        in.data[at + 5] == 'u') {
        long low = hex4(in, at + 6);
        if (low >= 0xDC00 && low <= 0xDFFF) {
            c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
            taken = 10;
        }
    }
    if (c >= 0xD800 && c <= 0xDFFF) c = 0xFFFD;
    return put_code_point(w, (uint32_t)c) ? taken : 0;
}

/* Decodes the escape whose letter is in[at]; returns as put_unicode does. */
static size_t put_escape(struct writer *w, struct slice in, size_t at) {
    static const char letters[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
    if (at >= in.len) return 0;
    if (in.data[at] == 'u') {
        size_t taken = put_unicode(w, in, at + 1);
        return taken == 0 ? 0 : taken + 1;
    }
    const char *letter = in.data[at] == '\0' ? NULL : strchr(letters, in.data[at]);
    return letter != NULL && put(w, bytes + (letter - letters), 1) ? 1 : 0;
}

long json_string_decode(struct slice raw, char *out, size_t size) {
    if (size == 0) return -1;
    out[0] = '\0';
    if (raw.len < 2 || raw.data[0] != '"' || raw.data[raw.len - 1] != '"') return -1;
    struct slice in = slice_of(raw.data + 1, raw.len - 2);
    struct writer w = {.out = out, .size = size};
    for (size_t i = 0; i < in.len;) {
        const uint8_t *escape = memchr(in.data + i, '\\', in.len - i);
        size_t plain = (escape == NULL ? in.len : (size_t)(escape - in.data)) - i;
        size_t taken = plain;
        if (plain > 0) {
            if (memchr(in.data + i, '\0', plain) != NULL || !put(&w, in.data + i, plain)) return -1;
        } else {
            taken = put_escape(&w, in, i + 1);
            if (taken == 0) return -1;
            taken++;
        }
        i += taken;
    }
    out[w.len] = '\0';
    return (long)w.len;
}
