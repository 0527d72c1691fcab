/* webhooks.h: what the files of /v1/webhooks, /v1/jobs and webhook_config share.
 *
 * The API of webhooks is that of Gemini's WebhookService: its error texts say parameters where the
 * rest of this API says fields, and unknown query parameters are passed over. May call: room.h,
 * answer.h, webhooks, fields, base. */
#ifndef ADMIN_WEBHOOKS_H
#define ADMIN_WEBHOOKS_H

#include "broker/admin/answer.h"

/* Every field is in the list. One that differs only by its case or underscores is told. */
bool parameters_known(const struct fields *o, const char *const *known, struct refusal *f);
/* There is nothing to say: the body is empty, or an object without fields. */
bool parameters_none(const struct http_request *r, struct refusal *f);
/* "The value 'x' is not supported for 'state': why". Of the value its beginning is shown. */
bool refuse_value(struct refusal *f, struct slice value, const char *parameter, const char *why);
/* A glob over event types: dotted segments, none of them empty, of A-Z a-z 0-9 _ - and stars. */
bool type_glob_ok(struct slice glob);
extern const char type_glob_rule[];

/* Appends a webhook's members. */
void webhook_put(struct admin *a, struct buf *b, const struct webhook *w);
/* The webhook of a path, as a change would find it; NULL after an answer. */
const struct webhook *webhook_find(struct admin *a, const struct http_request *r, struct slice id);
/* An effect of a change is there: shows it. NULL after an answer: it was refused or deleted. */
const struct webhook *webhook_changed(struct admin *a, const struct pending *p,
                                      const struct effect *effect);
/* Whether its subscription hands nothing out. */
bool webhook_stopped(const struct webhook *w);

/* ---- webhook_config (admin/webhook_config.c) ---- */

struct webhook_config {
    struct slice endpoints; /* as in struct event; in the arena */
    struct slice metadata;  /* of its user_metadata, a part of the text; empty: none */
};
/* Reads the JSON text of a webhook_config; `place` is its name in messages. `uris` is required, or
 * may be left out. */
bool webhook_config_read(struct admin *a, struct slice text, const char *place, bool uris_required,
                         struct webhook_config *out, struct refusal *f);
/* Appends "webhook_config":{"uris":[...],"user_metadata":{...}}; nothing without endpoints. */
void webhook_config_put(struct buf *b, struct slice endpoints, struct slice metadata);

#endif
