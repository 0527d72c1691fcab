#include "base/slice.h"

static uint8_t fold(uint8_t c) {
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

bool slice_eq_nocase(struct slice a, const char *text) {
    struct slice b = slice_str(text);
    if (a.len != b.len) return false;
    for (size_t i = 0; i < a.len; i++) {
        if (a.data[i] != b.data[i] && fold(a.data[i]) != fold(b.data[i])) return false;
    }
    return true;
}

bool slice_to_cstr(struct slice s, char *out, size_t size) {
    out[0] = '\0';
    if (s.len >= size) return false;
    if (s.len == 0) return true;
    if (memchr(s.data, '\0', s.len) != NULL) return false;
    memcpy(out, s.data, s.len);
    out[s.len] = '\0';
    return true;
}

bool slice_to_u64(struct slice s, uint64_t *out) {
    uint64_t value = 0;
    if (s.len == 0) return false;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.data[i];
        if (c < '0' || c > '9') return false;
        if (value > (UINT64_MAX - (uint64_t)(c - '0')) / 10) return false;
        value = value * 10 + (uint64_t)(c - '0');
    }
    *out = value;
    return true;
}
