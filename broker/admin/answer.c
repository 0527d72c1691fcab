#include "broker/admin/answer.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/rfc3339.h"

/* What the scratch buffer may keep between two answers; a larger one was for a large page. */
#define KEEP_BYTES (256 * KIB)

bool refuse(struct refusal *f, enum err err, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(f->message, sizeof f->message, fmt, args);
    va_end(args);
    f->err = err;
    return false;
}

void answer_refusal(struct admin *a, uint64_t handle, const struct refusal *f) {
    http_respond_error(*a->options.http, handle, f->err, "%s", f->message);
}

void answer_not_found(struct admin *a, uint64_t handle, const char *kind, struct slice name,
                      const char *create) {
    bool whole = name.len <= LIMIT_NAME_BYTES;
    if (!whole) name.len = LIMIT_NAME_BYTES;
    http_respond_error(*a->options.http, handle, ERR_NOT_FOUND, "there is no %s \"%.*s%s\": %s",
                       kind, SLICE_ARG(name), whole ? "" : "...", create);
}

void answer_effect_error(struct admin *a, const struct effect *effect) {
    http_respond_error(*a->options.http, effect->route.handle, effect->err, "%s",
                       effect->message == NULL ? "it was refused" : effect->message);
}

struct buf *answer_begin(struct admin *a) {
    buf_clear(&a->out);
    buf_append_byte(&a->out, '{');
    return &a->out;
}

void answer_send(struct admin *a, uint64_t handle, int status) {
    buf_append_str(&a->out, "}\n");
    CHECK(!a->out.overflow);
    http_respond(*a->options.http, handle, status, NULL, NULL, buf_slice(&a->out));
    if (a->out.cap > KEEP_BYTES) buf_free(&a->out);
}

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

void put_time(struct buf *b, const char *name, uint64_t wall_ms) {
    char text[RFC3339_SIZE];
    rfc3339_format(wall_ms, text);
    put_text(b, name, slice_str(text));
}
