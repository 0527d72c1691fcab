/* ingest.h: the room behind POST /in/{source}, or /in/{project}/{source} for a project that is not
 * the default one: verify over the raw bytes, scan the envelope, publish, answer when durable. A
 * project that there is not answers as a source that there is not.
 *
 * Owned by main from ingest_open to ingest_close. It holds no state per request: the answer finds
 * its request by the handle in the route. Nothing is journaled that was not verified; nothing is
 * answered 200 that is not durable. Key sets of providers are fetched beside (jwks.h).
 *
 * May call: auth/projects.h, http (server, client), signature, json, engine, base. */
#ifndef INGEST_INGEST_H
#define INGEST_INGEST_H

#include "broker/engine/engine.h"
#include "broker/http/server.h"
#include "broker/ingest/scheme.h"
#include "broker/ingest/source.h"

struct access_log;
struct ingest;
struct http_client;
struct projects;

struct ingest_options {
    struct engine *engine;
    const struct projects *projects;
    struct loop *loop;
    struct http_server **http; /* set before the first request */
    uint32_t room;             /* for routes */
    struct access_log *log;    /* NULL: nothing is logged */
};

MUST_CHECK int ingest_open(struct ingest **out, const struct ingest_options *options, char *error,
                           size_t error_size);
void ingest_close(struct ingest **i);
/* From now on key sets are fetched with this client (borrowed), those of every source at once;
 * NULL: no more, and what is under way is cancelled. Without one, no key is ever known. */
void ingest_use_client(struct ingest *i, struct http_client *client);

/* Whether the head of a request to /in/... may go on: unknown source 404, no room 503, more than
 * the source's rate 429, before the body is read. Other methods are answered as whole requests. The
 * texts of *refusal live until the next call. */
bool ingest_on_head(struct ingest *i, const struct http_request *head,
                    struct http_refusal *refusal);
/* One is being refused, whoever says so: counts it for its source, and logs it. */
void ingest_on_refused(struct ingest *i, const struct http_request *request,
                       const struct http_refusal *refusal);
/* A request whose path starts with /in/. */
void ingest_on_request(struct ingest *i, const struct http_request *request);
/* An effect whose route has this room. */
void ingest_on_effect(struct ingest *i, const struct effect *effect);

struct sources *ingest_sources(struct ingest *i);
/* Brings one source to what the store now says, and begins to fetch its keys. */
void ingest_refresh(struct ingest *i, uint32_t project, struct slice name);
/* What its address has behind "/in/": "NAME", or "PROJECT/NAME". */
#define INGEST_PLACE_BYTES (2 * LIMIT_NAME_BYTES + 2)
void ingest_place(const struct ingest *i, const struct source *source,
                  char out[INGEST_PLACE_BYTES]);
/* The key set of a source; NULL: it has none. Borrowed until the next call of this room. */
const struct jwks_set *ingest_key_set(struct ingest *i, const struct source *source);

/* A request that was looked at: what it becomes. The slices of the event borrow from the request,
 * from this struct and from the room (headers), until the next request is looked at. */
struct ingest_verdict {
    enum err err; /* of the verification; its text is verification.why */
    struct verification verification;
    struct envelope envelope;
    struct event event;
    bool challenge;      /* it is answered with `answer` and not journaled */
    struct slice answer; /* borrowed from the room */
    bool dedupe_by_body;
};
/* Verifies and reads a request as if it had come at wall_ms, with the secrets that the source has
 * now (source_expire was called). Journals, counts and logs nothing. */
void ingest_look(struct ingest *i, struct source *source, const struct http_request *request,
                 uint64_t wall_ms, struct ingest_verdict *out);

#endif
