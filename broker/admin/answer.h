/* answer.h: how a request is answered: a refusal, or an object written into a->out with put.h.
 *
 * May call: room.h, fields, http, base. */
#ifndef ADMIN_ANSWER_H
#define ADMIN_ANSWER_H

#include "broker/admin/room.h"
#include "broker/fields/fields.h"
#include "broker/fields/put.h"

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

#endif
