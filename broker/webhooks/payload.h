/* payload.h: what an endpoint is sent for an event. PURE.
 *
 * The body of an event that was ingested (it has a source) goes out as it came in, byte for byte,
 * with its content type. One that was published here goes out in the thin envelope of the Gemini
 * API:
 *
 *   {"type":"batch.succeeded","version":"v1","timestamp":"2026-01-22T12:00:00.000Z",
 *    "data":{...},"user_metadata":{...}}
 *
 * timestamp is the event's time, or when it was received. data is its body: {} when there is none;
 * JSON, byte for byte, when its content type says so (application/json, or a name that ends in
 * +json) or says nothing, and it is JSON; else {"content_type":..,"text":".."}, or "base64" instead
 * of "text" when it is not UTF-8, without content_type when there is none. user_metadata is left
 * out when there is none; what is not a JSON object there is a string.
 *
 * May call: fields/put.h, json, base, base/event.h. */
#ifndef WEBHOOKS_PAYLOAD_H
#define WEBHOOKS_PAYLOAD_H

#include "base/buf.h"
#include "base/event.h"

/* Appends the body to out (made with a maximum that is enough: LIMIT_EVENT_BYTES * 8). */
void payload_write(const struct event *event, struct buf *out);
/* The content type that goes with it: of an ingested event its own, if it has one; else
 * application/json. */
struct slice payload_content_type(const struct event *event);
/* The k-th (from 0) of an event's endpoints; len 0: it has fewer. */
struct slice payload_endpoint(struct slice endpoints, size_t k);
size_t payload_endpoints_count(struct slice endpoints);

#endif
