#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "broker/engine/filter_internal.h"

/* What separates hashes of one kind of thing from another's. */
enum seed { SEED_NAME = 0x6e616d65, SEED_VALUE = 0x76616c75 };

#define TWO_POW_64 18446744073709551616.0

/* An integer as it is written, if its magnitude fits in 64 bits. */
static bool read_whole(struct slice digits, bool negative, struct filter_value *out) {
    uint64_t n;
    if (!slice_to_u64(digits, &n)) return false;
    out->whole = true;
    out->negative = negative && n != 0;
    out->magnitude = n;
    return true;
}

/* False: too long, or beyond what a double can say. */
static bool read_number(struct slice raw, struct filter_value *out) {
    out->text = raw;
    bool negative = raw.data[0] == '-';
    if (read_whole(slice_from(raw, negative ? 1 : 0), negative, out)) return true;
    char text[FILTER_NUMBER_BYTES + 1];
    if (!slice_to_cstr(raw, text, sizeof text)) return false;
    double d = strtod(text, NULL);
    double magnitude = d < 0 ? -d : d;
    if (magnitude - magnitude != 0) return false; /* infinite */
    out->whole = magnitude < TWO_POW_64 && (double)(uint64_t)magnitude == magnitude;
    out->negative = d < 0;
    if (out->whole) out->magnitude = (uint64_t)magnitude;
    else out->real = d;
    return true;
}

/* The text of a JSON string, which is given with its quotes. */
static bool read_string(struct slice raw, struct filter_scratch *scratch, struct slice *out) {
    *out = slice_of(raw.data + 1, raw.len - 2);
    if (memchr(raw.data, '\\', raw.len) == NULL) return true;
    long len = json_string_decode(raw, scratch->bytes, sizeof scratch->bytes);
    if (len < 0) return false; /* U+0000, or longer than any legal user_metadata */
    *out = slice_of(scratch->bytes, (size_t)len);
    return true;
}

void filter_value_read(struct slice raw, struct filter_scratch *scratch, struct filter_value *out) {
    *out = (struct filter_value){.type = FILTER_OTHER};
    CHECK(raw.len > 0);
    switch (raw.data[0]) {
    case 'n': out->type = FILTER_NULL; break;
    case 'f': out->type = FILTER_FALSE; break;
    case 't': out->type = FILTER_TRUE; break;
    case '{':
    case '[': break;
    case '"':
        if (read_string(raw, scratch, &out->text)) out->type = FILTER_STRING;
        break;
    default:
        if (read_number(raw, out)) out->type = FILTER_NUMBER;
        break;
    }
}

bool filter_value_eq(const struct filter_value *a, const struct filter_value *b) {
    if (a->type != b->type) return false;
    switch (a->type) {
    case FILTER_NULL:
    case FILTER_FALSE:
    case FILTER_TRUE: return true;
    case FILTER_STRING: return slice_eq(a->text, b->text);
    case FILTER_NUMBER:
        if (a->whole != b->whole) return false;
        if (!a->whole) return a->real == b->real;
        return a->negative == b->negative && a->magnitude == b->magnitude;
    case FILTER_OTHER: return false;
    }
    UNREACHABLE("all types of values are above");
}

uint64_t filter_value_hash(uint64_t name_hash, const struct filter_value *v) {
    uint64_t seed = map_mix(name_hash ^ SEED_VALUE) + (uint64_t)v->type;
    uint64_t bits = v->magnitude;
    switch (v->type) {
    case FILTER_NULL:
    case FILTER_FALSE:
    case FILTER_TRUE: return map_mix(seed);
    case FILTER_STRING: return hash_bytes(seed, v->text);
    case FILTER_NUMBER:
        if (!v->whole) memcpy(&bits, &v->real, sizeof bits);
        return map_mix(map_mix(seed ^ bits) + (v->whole ? 2 : 0) + (v->negative ? 1 : 0));
    case FILTER_OTHER: break;
    }
    UNREACHABLE("what equals nothing has no hash");
}

uint64_t filter_name_hash(struct slice name) {
    return hash_bytes(SEED_NAME, name);
}

bool filter_name_read(struct slice raw, struct filter_scratch *scratch, struct slice *out) {
    /* The walker gives names without the quotes that stand around them in the text. */
    return read_string(slice_of(raw.data - 1, raw.len + 2), scratch, out);
}

struct slice filter_pointer_next(struct slice *pointer) {
    struct slice rest = slice_from(*pointer, 1);
    const uint8_t *slash = rest.len == 0 ? NULL : memchr(rest.data, '/', rest.len);
    size_t len = slash == NULL ? rest.len : (size_t)(slash - rest.data);
    *pointer = slice_from(rest, len);
    return slice_of(rest.data, len);
}

bool filter_token_eq(struct slice token, struct slice name) {
    size_t t = 0, n = 0;
    for (; t < token.len && n < name.len; n++) {
        uint8_t c = token.data[t++];
        if (c == '~' && t < token.len) c = token.data[t++] == '0' ? '~' : '/';
        if (c != name.data[n]) return false;
    }
    return t == token.len && n == name.len;
}

bool filter_name_ok(struct slice name) {
    if (name.len == 0) return false;
    if (name.data[0] != '/') return true;
    for (size_t i = 0; i < name.len; i++) {
        if (name.data[i] != '~') continue;
        if (i + 1 == name.len || (name.data[i + 1] != '0' && name.data[i + 1] != '1')) return false;
    }
    return true;
}
