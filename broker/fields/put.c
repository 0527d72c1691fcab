#include "broker/fields/put.h"

#include <inttypes.h>
#include <math.h>

#include "base/rfc3339.h"

void put_comma(struct buf *b) {
    uint8_t last = b->len == 0 ? '{' : b->data[b->len - 1];
    if (last != '{' && last != '[') buf_append_byte(b, ',');
}

void put_key(struct buf *b, const char *name) {
    put_comma(b);
    buf_printf(b, "\"%s\":", name);
}

void put_text(struct buf *b, const char *name, struct slice value) {
    put_key(b, name);
    buf_append_json_string(b, value);
}

void put_text_unless_empty(struct buf *b, const char *name, struct slice value) {
    if (value.len > 0) put_text(b, name, value);
}

void put_u64(struct buf *b, const char *name, uint64_t value) {
    put_comma(b);
    buf_printf(b, "\"%s\":%" PRIu64, name, value);
}

void put_bool(struct buf *b, const char *name, bool value) {
    put_key(b, name);
    buf_append_str(b, value ? "true" : "false");
}

void put_real(struct buf *b, const char *name, double value, int digits) {
    put_key(b, name);
    buf_printf(b, "%.*f", digits, isfinite(value) ? value : 0.0);
}

void put_permille(struct buf *b, const char *name, uint32_t permille) {
    uint32_t rest = permille % 1000;
    put_key(b, name);
    buf_append_u64(b, permille / 1000);
    if (rest == 0) return;
    buf_append_byte(b, '.');
    for (uint32_t digit = 100; rest > 0; rest %= digit, digit /= 10) {
        buf_append_byte(b, (uint8_t)('0' + rest / digit));
    }
}

void put_time(struct buf *b, const char *name, uint64_t wall_ms) {
    char text[RFC3339_SIZE];
    rfc3339_format(wall_ms, text);
    put_text(b, name, slice_str(text));
}

void put_open(struct buf *b, const char *name) {
    put_key(b, name);
    buf_append_byte(b, '{');
}

void put_close(struct buf *b) {
    buf_append_byte(b, '}');
}
