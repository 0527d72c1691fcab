/* answer.h: refusals with their place, and answers written field by field into a struct buf.
 *
 * A put_ function appends `"name":value` with a comma where one is due; the buffer must be inside
 * an object. The caller owns every buffer. May call: room.h, http, base. */
#ifndef ADMIN_ANSWER_H
#define ADMIN_ANSWER_H

#include "broker/admin/room.h"

/* Why a request is refused. */
struct refusal {
    enum err err;
    char message[400];
};

/* Fills in *f and returns false, so that a check reads `return refuse(f, ...)`. */
bool refuse(struct refusal *f, enum err err, const char *fmt, ...) PRINTF_LIKE(3, 4);
void answer_refusal(struct admin *a, uint64_t handle, const struct refusal *f);
/* 404 for a resource that is asked for by name: `kind` is "source", `create` how to make one. */
void answer_not_found(struct admin *a, uint64_t handle, const char *kind, struct slice name,
                      const char *create);
/* The error of an effect. */
void answer_effect_error(struct admin *a, const struct effect *effect);

/* Begins an answer in a->out with '{'. */
struct buf *answer_begin(struct admin *a);
/* Ends it with '}' and sends it. */
void answer_send(struct admin *a, uint64_t handle, int status);

/* A comma, unless the object or array has just been opened. */
void put_comma(struct buf *b);
void put_key(struct buf *b, const char *name);
void put_text(struct buf *b, const char *name, struct slice value);
void put_text_unless_empty(struct buf *b, const char *name, struct slice value);
void put_u64(struct buf *b, const char *name, uint64_t value);
void put_bool(struct buf *b, const char *name, bool value);
void put_time(struct buf *b, const char *name, uint64_t wall_ms);

#endif
