#include "proto/frame_read.h"

#include <math.h>

#include "base/check.h"

enum kind {
    KIND_UINT,
    KIND_NEGATIVE,
    KIND_NIL,
    KIND_BOOL,
    KIND_FLOAT,
    KIND_BYTES,
    KIND_ARRAY,
    KIND_MAP
};

struct head {
    enum kind kind;
    uint64_t value; /* the number, the bool, the float's bits, a length or a count */
    uint32_t bytes; /* of the header itself; the float's and the number's bytes are part of it */
    uint32_t float_bytes;
};

static uint64_t big_endian(const uint8_t *at, size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++) value = value << 8 | at[i];
    return value;
}

/* The types 0xc0 to 0xdf. False: truncated, ext or not a type. */
static bool head_of_type(const uint8_t *at, size_t have, struct head *h) {
    static const struct {
        uint8_t kind, bytes; /* bytes that follow the type byte in the header */
    } types[32] = {
        [0x00] = {KIND_NIL, 0},      [0x02] = {KIND_BOOL, 0},     [0x03] = {KIND_BOOL, 0},
        [0x04] = {KIND_BYTES, 1},    [0x05] = {KIND_BYTES, 2},    [0x06] = {KIND_BYTES, 4},
        [0x0a] = {KIND_FLOAT, 4},    [0x0b] = {KIND_FLOAT, 8},    [0x0c] = {KIND_UINT, 1},
        [0x0d] = {KIND_UINT, 2},     [0x0e] = {KIND_UINT, 4},     [0x0f] = {KIND_UINT, 8},
        [0x10] = {KIND_NEGATIVE, 1}, [0x11] = {KIND_NEGATIVE, 2}, [0x12] = {KIND_NEGATIVE, 4},
        [0x13] = {KIND_NEGATIVE, 8}, [0x19] = {KIND_BYTES, 1},    [0x1a] = {KIND_BYTES, 2},
        [0x1b] = {KIND_BYTES, 4},    [0x1c] = {KIND_ARRAY, 2},    [0x1d] = {KIND_ARRAY, 4},
        [0x1e] = {KIND_MAP, 2},      [0x1f] = {KIND_MAP, 4},
    };
    unsigned type = at[0] & 0x1fu;
    bool unused = type == 0x01,
         ext = (type >= 0x07 && type <= 0x09) || (type >= 0x14 && type <= 0x18);
    size_t bytes = types[type].bytes;
    if (unused || ext || have < 1 + bytes) return false;
    h->kind = (enum kind)types[type].kind;
    h->bytes = (uint32_t)(1 + bytes);
    h->value = big_endian(at + 1, bytes);
    if (h->kind == KIND_BOOL) h->value = type & 1u;
    if (h->kind == KIND_FLOAT) h->float_bytes = (uint32_t)bytes;
    if (h->kind == KIND_NEGATIVE) {
        /* A signed type may also hold a number that is not negative. */
        bool negative = (at[1] & 0x80u) != 0;
        if (!negative) h->kind = KIND_UINT;
    }
    return true;
}

/* Reads the header at `at`, which has at least one byte before `end`. */
static inline bool head_read(const uint8_t *at, const uint8_t *end, struct head *h) {
    uint8_t b = at[0];
    h->bytes = 1;
    if (b < 0x80) {
        h->kind = KIND_UINT;
        h->value = b;
    } else if (b < 0x90) {
        h->kind = KIND_MAP;
        h->value = b & 0x0fu;
    } else if (b < 0xa0) {
        h->kind = KIND_ARRAY;
        h->value = b & 0x0fu;
    } else if (b < 0xc0) {
        h->kind = KIND_BYTES;
        h->value = b & 0x1fu;
    } else if (b >= 0xe0) {
        h->kind = KIND_NEGATIVE;
        h->value = 0;
    } else {
        return head_of_type(at, (size_t)(end - at), h);
    }
    return true;
}

bool frame_read_check(struct slice body, const char **why) {
    const uint8_t *at = body.data, *end = at + body.len;
    uint64_t left[FRAME_DEPTH_MAX]; /* values still to come, per level */
    size_t depth = 0;
    struct head h;
    do {
        *why = "the frame ends in the middle of a value";
        if (at == end) return false;
        *why = "a value is truncated or of a type that frames do not use";
        if (!head_read(at, end, &h)) return false;
        at += h.bytes;
        size_t have = (size_t)(end - at);
        uint64_t values = 0;
        *why = "a length passes the end of the frame";
        if (h.kind == KIND_BYTES) {
            if (h.value > have) return false;
            at += h.value;
        } else if (h.kind == KIND_ARRAY || h.kind == KIND_MAP) {
            values = h.kind == KIND_MAP ? h.value * 2 : h.value;
            if (values > have) return false; /* each value is a byte at least */
            *why = "nested too deep";
            if (depth == FRAME_DEPTH_MAX) return false;
        }
        if (values > 0) {
            left[depth++] = values;
            continue;
        }
        while (depth > 0 && --left[depth - 1] == 0) depth--;
    } while (depth > 0);
    *why = "bytes after the end of the array";
    return at == end;
}

void frame_read_start(struct slice body, uint64_t *op, uint32_t *rid) {
    const uint8_t *at = body.data, *end = at + body.len;
    struct head h;
    *op = 0;
    *rid = 0;
    if (at == end || !head_read(at, end, &h) || h.kind != KIND_ARRAY || h.value < 2) return;
    at += h.bytes;
    if (at == end || !head_read(at, end, &h) || h.kind != KIND_UINT) return;
    *op = h.value;
    at += h.bytes;
    if (at == end || !head_read(at, end, &h) || h.kind != KIND_UINT) return;
    if (h.value <= UINT32_MAX) *rid = (uint32_t)h.value;
}

bool fields_fail(struct fields *f, enum err err, const char *why) {
    if (f->err == ERR_OK) {
        f->err = err;
        f->why = why;
    }
    return false;
}

/* The head of the next field, consumed; the bytes after a KIND_BYTES head are not. False: nothing
 * is left, or it is nil, or there was an error before. */
static bool next(struct fields *f, struct head *h) {
    if (f->err != ERR_OK || f->left == 0) return false;
    CHECK(f->at < f->end && head_read(f->at, f->end, h)); /* frame_read_check saw it */
    f->at += h->bytes;
    f->left--;
    return h->kind != KIND_NIL;
}

static uint64_t uint_of(struct fields *f, const struct head *h, uint64_t max, const char *why) {
    if (h->kind == KIND_UINT && h->value <= max) return h->value;
    fields_fail(f, ERR_BAD_FRAME, why);
    return 0;
}

uint64_t need_uint(struct fields *f, uint64_t max, const char *why) {
    struct head h;
    if (next(f, &h)) return uint_of(f, &h, max, why);
    fields_fail(f, ERR_BAD_FRAME, why);
    return 0;
}

uint64_t opt_uint(struct fields *f, uint64_t missing, uint64_t max, const char *why) {
    struct head h;
    return next(f, &h) ? uint_of(f, &h, max, why) : missing;
}

bool opt_bool(struct fields *f, bool missing, const char *why) {
    struct head h;
    if (!next(f, &h)) return missing;
    if (h.kind == KIND_BOOL) return h.value != 0;
    return fields_fail(f, ERR_BAD_FRAME, why);
}

double opt_number(struct fields *f, double missing, const char *why) {
    struct head h;
    if (!next(f, &h)) return missing;
    if (h.kind == KIND_UINT) return (double)h.value;
    if (h.kind != KIND_FLOAT) {
        fields_fail(f, ERR_BAD_FRAME, why);
        return 0;
    }
    double value;
    if (h.float_bytes == 8) {
        memcpy(&value, &h.value, sizeof value);
    } else {
        uint32_t bits = (uint32_t)h.value;
        float narrow;
        memcpy(&narrow, &bits, sizeof narrow);
        value = narrow;
    }
    if (isfinite(value)) return value;
    fields_fail(f, ERR_BAD_FRAME, why);
    return 0;
}

static struct slice bytes_of(struct fields *f, const struct head *h, const char *why) {
    if (h->kind != KIND_BYTES) {
        fields_fail(f, ERR_BAD_FRAME, why);
        return (struct slice){0};
    }
    struct slice s = slice_of(f->at, h->value);
    f->at += h->value;
    return s;
}

struct slice need_bytes(struct fields *f, const char *why) {
    struct head h;
    if (next(f, &h)) return bytes_of(f, &h, why);
    fields_fail(f, ERR_BAD_FRAME, why);
    return (struct slice){0};
}

struct slice opt_bytes(struct fields *f, const char *why) {
    struct head h;
    return next(f, &h) ? bytes_of(f, &h, why) : (struct slice){0};
}

void fields_skip(struct fields *f) {
    struct head h;
    if (f->err != ERR_OK || f->left == 0) return;
    f->left--;
    for (uint64_t values = 1; values > 0; values--) {
        CHECK(f->at < f->end && head_read(f->at, f->end, &h));
        f->at += h.bytes;
        if (h.kind == KIND_BYTES) f->at += h.value;
        else if (h.kind == KIND_ARRAY) values += h.value;
        else if (h.kind == KIND_MAP) values += h.value * 2;
    }
}

static bool next_is(const struct fields *f, enum kind kind) {
    struct head h;
    if (f->err != ERR_OK || f->left == 0) return false;
    CHECK(f->at < f->end && head_read(f->at, f->end, &h));
    return h.kind == kind;
}

bool fields_is_array(const struct fields *f) {
    return next_is(f, KIND_ARRAY);
}

bool fields_is_map(const struct fields *f) {
    return next_is(f, KIND_MAP);
}

static bool enter(struct fields *f, enum kind kind, bool optional, uint32_t *outer,
                  const char *why) {
    struct head h;
    if (!next(f, &h)) return optional ? false : fields_fail(f, ERR_BAD_FRAME, why);
    if (h.kind != kind) return fields_fail(f, ERR_BAD_FRAME, why);
    *outer = f->left;
    f->left = (uint32_t)(kind == KIND_MAP ? h.value * 2 : h.value); /* both fit: frame_read_check */
    return true;
}

bool fields_enter_array(struct fields *f, bool optional, uint32_t *outer, const char *why) {
    return enter(f, KIND_ARRAY, optional, outer, why);
}

bool fields_enter_map(struct fields *f, bool optional, uint32_t *outer, const char *why) {
    return enter(f, KIND_MAP, optional, outer, why);
}

void fields_leave(struct fields *f, uint32_t outer) {
    while (f->err == ERR_OK && f->left > 0) fields_skip(f);
    f->left = outer;
}

bool fields_key(struct fields *f, struct slice *key) {
    if (f->err != ERR_OK || f->left == 0) return false;
    struct head h;
    CHECK(f->at < f->end && head_read(f->at, f->end, &h));
    if (h.kind == KIND_BYTES) {
        *key = need_bytes(f, "a map's key");
    } else {
        *key = (struct slice){0};
        fields_skip(f);
    }
    return true;
}
