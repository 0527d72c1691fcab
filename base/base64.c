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

static int value_of(uint8_t c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+') return 62;
    if (c == '/') return 63;
    return -1;
}

long base64_decode(struct slice in, uint8_t *out, size_t size) {
    size_t len = in.len, pads = 0, n = 0;
    while (pads < 2 && len > 0 && in.data[len - 1] == '=') {
        len--;
        pads++;
    }
    if (len % 4 == 1) return -1;
    if (pads > 0 && (len + pads) % 4 != 0) return -1;
    uint32_t bits = 0;
    int have = 0;
    for (size_t i = 0; i < len; i++) {
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
