/* ingest.h: the room behind POST /in/{source}: verify over the raw bytes, scan the envelope,
 * publish, answer when durable.
 *
 * Owned by main from ingest_open to ingest_close. It holds no state per request: the answer finds
 * its request by the handle in the route. Nothing is journaled that was not verified; nothing is
 * answered 200 that is not durable.
 *
 * May call: http, json, engine, base, libcrypto. */
#ifndef INGEST_INGEST_H
#define INGEST_INGEST_H

#include "broker/engine/engine.h"
#include "broker/http/server.h"
#include "broker/ingest/source.h"

struct ingest;

struct ingest_options {
    struct engine *engine;
    struct loop *loop;
    struct http_server **http; /* set before the first request */
    uint32_t room;             /* for routes */
};

MUST_CHECK int ingest_open(struct ingest **out, const struct ingest_options *options, char *error,
                           size_t error_size);
void ingest_close(struct ingest **i);

/* Whether the head of a request to /in/... may go on: unknown source 404, no room 503, before the
 * body is read. Other methods are answered as whole requests, because 405 needs an Allow header.
 * *message lives until the next call. */
enum err ingest_on_head(struct ingest *i, const struct http_request *head, const char **message);
/* A request whose path starts with /in/. */
void ingest_on_request(struct ingest *i, const struct http_request *request);
/* An effect whose route has this room. */
void ingest_on_effect(struct ingest *i, const struct effect *effect);

struct sources *ingest_sources(struct ingest *i);

#endif
