#include "broker/admin/answer.h"

/* What the scratch buffer may keep between two answers; a larger one was for a large page. */
#define KEEP_BYTES (256 * KIB)

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
