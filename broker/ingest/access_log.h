/* access_log.h: a line of the log for each webhook (source, remote, id, verdict, why), and for each
 * other request that was refused.
 *
 * Never a secret, a signature, a query or a body: the lines hold the names that are here and
 * nothing else of a request. What is refused is somebody else's choice, so a flood of it makes
 * ACCESS_LINES_PER_S lines a second and a count; lines of what was accepted are written together,
 * at the end of the turn.
 *
 * Owned by main from access_log_new to access_log_free. A NULL log is one that has no lines. May
 * call: base, proto/err.h. */
#ifndef INGEST_ACCESS_LOG_H
#define INGEST_ACCESS_LOG_H

#include "base/slice.h"
#include "proto/err.h"

#define ACCESS_LINES_PER_S 20
#define ACCESS_ID_BYTES    64  /* shown of an id */
#define ACCESS_PLACE_BYTES 129 /* shown of what stands behind "/in/": "PROJECT/NAME" */

/* What gets a line; refusals are counted where they happen in any case. */
enum access_what { ACCESS_REFUSED, ACCESS_ALL, ACCESS_NONE };

struct access_log;
struct access_log *access_log_new(enum access_what what);
void access_log_free(struct access_log **l);

struct access_webhook {
    struct slice source, remote; /* remote: "203.0.113.7:50123" */
    struct slice id;             /* as verified, or as claimed; may be empty */
    size_t bytes;                /* of the body; 0: it was not looked at */
};

bool access_log_wants_accepted(const struct access_log *l);
/* `verdict`: "accepted", "duplicate" or "challenge"; seq 0: it has none. */
void access_log_accepted(struct access_log *l, const struct access_webhook *w, const char *verdict,
                         uint64_t seq);

/* Whether a refusal at this time has a line; one that has none is counted. */
bool access_log_takes_refusal(struct access_log *l, uint64_t now_ms);
/* After access_log_takes_refusal has said yes. `why` holds nothing of the request. */
void access_log_webhook_refused(struct access_log *l, const struct access_webhook *w, enum err err,
                                const char *why);
struct access_request {
    struct slice method, path; /* empty: the head was never whole */
    struct slice remote;
    struct slice key; /* the id of the key that it names; empty: none that is known */
};
/* The same; `why` NULL: the code alone. */
void access_log_request_refused(struct access_log *l, const struct access_request *r, enum err err,
                                const char *why);

/* At the end of a turn: tells how many refusals had no line once their second is over, and writes
 * what waits. Returns when it wants to be called again (monotonic ms; UINT64_MAX: no need). */
uint64_t access_log_on_turn(struct access_log *l, uint64_t now_ms);

#endif
