/* webhooks.h: the room that delivers events to HTTP endpoints.
 *
 * A registered webhook is a subscription of the engine that this room attaches to, with a window
 * of as many events as it may have under way at that endpoint: each hand-out is one attempt, its
 * outcome an ACK or a NACK. Endpoints that a webhook_config named get their events through the
 * subscriptions "webhook.dynamic.0" to "webhook.dynamic.7" of the event's project, one for each
 * place in its list of URIs; there the room keeps endpoints apart by origin. What an event may
 * reach is its project's; windows and breakers are an origin's, whoever sends to it: they protect
 * the receiver. Retries, their times and dead letters are the engine's (docs/operations.md,
 * webhooks); the room decides how much an endpoint gets at a time, when a dead one is probed, and
 * when it is disabled.
 *
 * Owned by main from webhooks_open to webhooks_close. Its state beside the engine's is soft (what
 * is under way, breakers, counters), but for failed attempts, which are kept in the engine's
 * config.
 *
 * May call: auth/projects.h, http/client.h and guard.h, signature, engine.h, fields, json,
 * net/loop.h, base. */
#ifndef WEBHOOKS_WEBHOOKS_H
#define WEBHOOKS_WEBHOOKS_H

#include "broker/http/guard.h"
#include "broker/net/loop.h"
#include "broker/webhooks/keys.h"
#include "broker/webhooks/registry.h"

struct projects;
struct webhooks;

struct webhooks_options {
    struct engine *engine;
    const struct projects *projects; /* whose endpoints may wait in the store; used when it opens */
    struct loop *loop;
    uint32_t room;     /* for routes */
    const char *allow; /* guard_options */
    bool https_only;
    const char *ca_file;  /* or "" */
    const char *key_file; /* or "" */
    enum signing_alg alg; /* of dynamic signatures */
    const char *audience; /* `aud` of a JWT; "": the URI that it is sent to */
    uint64_t timeout_ms;  /* of one attempt */
    uint64_t max_age_ms;  /* after which an event is a dead letter, `expired` */
    uint64_t backoff_min_ms, backoff_max_ms;
    uint64_t disable_after_ms; /* of nothing but failure; 0: never */
};
MUST_CHECK int webhooks_open(struct webhooks **out, const struct webhooks_options *options,
                             char *error, size_t error_size);
void webhooks_close(struct webhooks **w);
void webhooks_on_effect(struct webhooks *w, const struct effect *effect);
/* Once per turn, after its effects. Returns when it must be called again at the latest (monotonic
 * ms; UINT64_MAX: no need). */
uint64_t webhooks_on_turn(struct webhooks *w, uint64_t now_ms);
/* The broker is stopping: nothing new is begun; what is under way may end. */
void webhooks_drain(struct webhooks *w);
size_t webhooks_busy(const struct webhooks *w); /* attempts under way */

/* ---- for the API ---- */

struct registry *webhooks_registry(struct webhooks *w);
struct keys *webhooks_keys(struct webhooks *w);
const struct guard *webhooks_guard(const struct webhooks *w);
/* For others that fetch something: behind the same guard. Lives as long as the room. */
struct http_client *webhooks_client(struct webhooks *w);
/* The policy of its subscription; its filter's text is written into `filter` (borrowed by the
 * result). False: the filter is wrong, why[size] says what and where. */
bool webhooks_policy(const struct webhooks *w, const struct webhook *webhook, struct buf *filter,
                     struct policy *out, char *why, size_t size);
/* What is stored of it has changed, or it is gone (call after registry_refresh). */
void webhooks_refresh(struct webhooks *w, uint32_t project, const char *id);
/* Sends one "webhook.ping" now, whatever its state; its outcome is seen in the attempts. */
void webhooks_ping(struct webhooks *w, const struct webhook *webhook);
/* An event of the project with endpoints is about to be published: makes the subscriptions for so
 * many, in this turn, before the PUBLISH or JOB_PUT. */
void webhooks_expect_endpoints(struct webhooks *w, uint32_t project, struct slice endpoints);
/* The project is being deleted in this turn; it has no registered webhooks any more. Deletes the
 * subscriptions of its endpoints with all that waits there, and ends what is under way. */
void webhooks_forget_project(struct webhooks *w, uint32_t project);

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_PROBING };
const char *breaker_state_name(enum breaker_state s); /* "closed", "open", "probing" */
struct webhook_stats {                                /* totals: since start */
    uint64_t delivered_total, failed_total;           /* attempts that the endpoint answered so */
    uint64_t internal_total;                          /* that failed here: memory, descriptors */
    uint64_t last_success_ms, last_failure_ms, failing_since_ms; /* wall; 0: none */
    uint32_t failures_in_a_row, in_flight, window;
    enum breaker_state breaker;
    uint64_t next_probe_ms; /* wall; 0: none */
};
void webhooks_stats(const struct webhooks *w, const struct webhook *webhook,
                    struct webhook_stats *out);

/* One attempt, newest first. Failed ones of the last LIMIT_WEBHOOK_ATTEMPTS_KEPT are kept over a
 * restart, the latest successes are not. */
struct attempt_info {
    uint64_t at_ms; /* wall */
    uint64_t seq;   /* 0: a ping */
    struct slice type;
    uint32_t number; /* 1: the first for this event */
    bool ok;
    int status;            /* 0: no answer */
    struct slice error;    /* http_failure_name, or "status"; empty when ok */
    struct slice detail;   /* in words */
    struct slice response; /* its first bytes */
    uint64_t duration_ms;
    uint64_t next_attempt_ms; /* wall; 0: none is planned */
};
typedef bool attempt_fn(void *ctx, const struct attempt_info *attempt);
void webhooks_attempts(struct webhooks *w, const struct webhook *webhook, attempt_fn *fn,
                       void *ctx);
/* Its attempts are deleted with it: steps CONFIG_DELETE for each. */
void webhooks_forget(struct webhooks *w, const char *id);

/* Endpoints of dynamic webhooks that are known now, in order of origin. */
struct dynamic_info {
    const char *origin;
    struct webhook_stats stats;
};
bool webhooks_dynamic_next(const struct webhooks *w, const char *after, struct dynamic_info *out);

#endif
