#include "base/base64.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(struct slice in, char *out) {
    size_t i = 0;
    for (; i + 3 <= in.len; i += 3) {
        uint32_t v = (uint32_t)in.data[i] << 16 | (uint32_t)in.data[i + 1] << 8 | in.data[i + 2];
        for (int shift = 18; shift >= 0; shift -= 6) *out++ = alphabet[v >> shift & 63];
    }
    if (in.len - i == 1) {
        uint32_t v = (uint32_t)in.data[i] << 16;
        *out++ = alphabet[v >> 18];
        *out++ = alphabet[v >> 12 & 63];
        *out++ = '=';
        *out++ = '=';
    } else if (in.len - i == 2) {
        uint32_t v = (uint32_t)in.data[i] << 16 | (uint32_t)in.data[i + 1] << 8;
        *out++ = alphabet[v >> 18];
        *out++ = alphabet[v >> 12 & 63];
        *out++ = alphabet[v >> 6 & 63];
        *out++ = '=';
    }
    *out = '\0';
}

/* The value of each ASCII character, or -1. */
static const int8_t values[128] = {
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 62,
    -1, -1, -1, 63, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, -1, -1, -1, -1, -1, -1, -1, 0,
    1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
    23, 24, 25, -1, -1, -1, -1, -1, -1, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38,
    39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, -1, -1, -1, -1, -1,
};

static int value_of(uint8_t c) {
    return c < 128 ? values[c] : -1;
}

long base64_decode(struct slice in, uint8_t *out, size_t size) {
    size_t len = in.len, pads = 0, n = 0;
    while (pads < 2 && len > 0 && in.data[len - 1] == '=') {
        len--;
        pads++;
    }
    if (len % 4 == 1) return -1;
    if (pads > 0 && (len + pads) % 4 != 0) return -1;
    size_t i = 0;
    /* Whole groups at once: a signature is on the way of every webhook. */
    for (; len - i >= 4; i += 4) {
        const uint8_t *c = in.data + i;
        int a = value_of(c[0]), b = value_of(c[1]), d = value_of(c[2]), e = value_of(c[3]);
        if ((a | b | d | e) < 0 || size - n < 3) return -1;
        out[n++] = (uint8_t)(a << 2 | b >> 4);
        out[n++] = (uint8_t)(b << 4 | d >> 2);
        out[n++] = (uint8_t)(d << 6 | e);
    }
    uint32_t bits = 0;
    int have = 0;
    for (; i < len; i++) {
        int v = value_of(in.data[i]);
        if (v < 0) return -1;
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            if (n == size) return -1;
            out[n++] = (uint8_t)(bits >> have);
            bits &= (1u << have) - 1;
        }
    }
    return bits == 0 ? (long)n : -1;
}

void hex_encode(struct slice in, char *out) {
    for (size_t i = 0; i < in.len; i++) {
        *out++ = "0123456789abcdef"[in.data[i] >> 4];
        *out++ = "0123456789abcdef"[in.data[i] & 15];
    }
    *out = '\0';
}
