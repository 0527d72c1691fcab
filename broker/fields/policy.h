/* policy.h: a subscription's policy as JSON, in and out: the one form that HTTP, the worker
 * protocol's SUBSCRIBE and the CLI share (docs/http-api.md, "Subscriptions").
 *
 * Reading names the place of what is wrong. Calls: base, engine.h's types, jansson by fields.h. */
#ifndef FIELDS_POLICY_H
#define FIELDS_POLICY_H

#include "base/arena.h"
#include "base/buf.h"
#include "broker/engine/engine.h"
#include "broker/fields/fields.h"

struct policy_request {
    struct policy policy; /* slices and lists are in the arena */
    enum start_kind start;
    uint64_t start_value; /* seq, or wall ms */
};

/* Reads the policy fields of an object over *out, which holds the defaults (policy_default) or what
 * a PATCH starts from. Other members of the object are the caller's to check (fields_known). */
bool policy_read_fields(const struct fields *o, struct arena *a, struct policy *out,
                        struct refusal *f);
/* Reads `start`, or `to` of a seek: "new", "first", {"seq":n}, {"time":"..."} or {"time_ms":n}. */
bool policy_read_start(const struct fields *o, const char *name, enum start_kind *start,
                       uint64_t *value, struct refusal *f);
/* A whole JSON text as SUBSCRIBE's `create` carries it: policy fields and start, nothing else. An
 * empty text or {} is every default. */
bool policy_read_text(struct slice json, struct arena *a, struct policy_request *out,
                      struct refusal *f);
/* Names of the policy's fields, for fields_known; ends with NULL. */
extern const char *const policy_field_names[];
/* Appends the policy's members ("filter":{...},"lease_ms":...) to an object that is being written.
 */
void policy_put(struct buf *b, const struct policy *p);

#endif
