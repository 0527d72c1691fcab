/* room.h: what the files of the webhooks room share; nobody else includes it.
 *
 *   webhooks.c    the room: opening, effects, turns, draining
 *   registered.c  registered webhooks: their subscriptions, windows, disabling
 *   dynamic.c     endpoints that events bring along: lanes, origins, queues
 *   attempt.c     one request: what is sent, what its outcome means
 *   history.c     the attempts that are kept for people
 *   endpoint.c    how much an endpoint gets (pure)
 *
 * Ownership: the room owns everything here. A struct attempt lives from the hand-out of its event
 * to its outcome; a struct registered as long as its webhook is in the registry; a struct dynamic
 * until it has been idle and room is needed. An attempt whose endpoint goes is cancelled with it.
 *
 * Invariants: an attempt is in `attempts`, and either has a transfer, or is in `waiting` (for one
 * of the LIMIT_OUTBOUND_REQUESTS), or is in the queue of a dynamic endpoint. `bytes` is the sum of
 * their bodies. endpoint.in_flight counts those that are not in a queue. */
#ifndef WEBHOOKS_ROOM_H
#define WEBHOOKS_ROOM_H

#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "base/prng.h"
#include "broker/http/client.h"
#include "broker/signature/standard_webhooks.h"
#include "broker/webhooks/endpoint.h"

/* Attachments are numbered by the rooms that make them; workers count from 1. */
#define ATTACHMENT_FIRST (1ULL << 63)
#define LEASE_MS_MIN     180000 /* an attempt may wait for its turn before it is sent */
/* A hand-out that must wait for a reason of ours comes again after this. */
#define AGAIN_MS 1000
/* The longest time that a Retry-After can ask for. */
#define RETRY_AFTER_MS_MAX (3600ULL * 1000)
#define RECENT_KEPT        8 /* successes that are remembered per webhook */
#define ORIGINS_MAX        10000

enum rid { RID_NONE, RID_REGISTRY /* handle: the attachment of the webhook */ };

struct recent { /* a success */
    uint64_t at_ms, seq, duration_ms;
    uint32_t number;
    int status;
    char type[48];
};

struct registered {
    char id[WEBHOOK_ID_BYTES + 1];
    uint32_t project;
    uint64_t attachment;
    struct endpoint endpoint;
    uint32_t window_told; /* to the engine */
    uint64_t uri_hash;
    enum webhook_state state; /* as of the last refresh */
    struct heap_node probe;   /* in webhooks.probes while its breaker is open */
    struct recent *recent;    /* RECENT_KEPT of them; NULL: no success yet */
    size_t recent_next;
    uint64_t history_next; /* number of the next failed attempt; 0: not looked up yet */
};

struct dynamic {
    char *origin; /* owned */
    struct endpoint endpoint;
    struct list queue; /* of struct attempt */
    size_t queued;
};

struct lane { /* of the k-th URIs of a project's events */
    uint64_t attachment;
    uint32_t project;
    uint32_t k; /* 0 .. LIMIT_ENDPOINTS - 1 */
};

struct attempt {
    struct list link;   /* in webhooks.attempts */
    struct list queued; /* in webhooks.waiting or dynamic.queue */
    struct http_transfer *transfer;
    struct registered *registered; /* one of these two */
    struct dynamic *dynamic;
    uint64_t attachment, tag; /* attachment 0: a ping */
    uint64_t seq, since_ms;   /* since_ms: wall time from which the event's age counts */
    uint32_t fails;           /* before this one */
    bool ages;                /* it is given up when it is too old */
    char type[LIMIT_EVENT_TYPE_BYTES + 1];
    char content_type[LIMIT_EVENT_CONTENT_TYPE_BYTES + 1];
    char *uri; /* owned */
    struct buf body;
    struct webhooks *room;
};

struct webhooks {
    struct webhooks_options options;
    struct guard *guard;
    struct http_client *client;
    struct hmac *hmac;
    struct keys *keys;
    struct registry *registry;
    struct prng prng;               /* spreads what comes again */
    char instance[16];              /* of this store: part of every webhook-id */
    struct registered **registered; /* by id */
    size_t registered_count, registered_cap;
    struct map by_attachment; /* struct registered */
    struct map lanes;         /* struct lane, owned, by project and place: lane_key */
    struct map lane_by_attachment;
    struct dynamic **dynamic; /* by origin */
    size_t dynamic_count, dynamic_cap;
    uint64_t next_attachment;
    struct heap probes;
    struct list attempts, waiting;
    size_t attempts_count;
    uint64_t bytes;
    uint64_t keys_at_ms;
    uint64_t pings_total;
    bool draining;
    struct buf scratch; /* headers and signatures */
};

/* ---- webhooks.c ---- */
struct engine_time webhooks_time(const struct webhooks *w);
void webhooks_step(struct webhooks *w, struct command *c, enum rid rid, uint64_t handle);
/* The policy that every subscription of the room has; its filter is `filter`. */
struct policy webhooks_base_policy(const struct webhooks *w, struct slice filter);
/* Attaches to a project's subscription, which is made with `create` unless that is NULL. */
void webhooks_attach(struct webhooks *w, uint32_t project, uint64_t attachment, const char *name,
                     const struct policy *create, uint32_t window);

/* ---- registered.c ---- */
MUST_CHECK int registered_load(struct webhooks *w, char *error, size_t size);
void registered_free_all(struct webhooks *w);
struct registered *registered_find(const struct webhooks *w, const char *id);
void registered_deliver(struct webhooks *w, struct registered *r, const struct effect *effect);
/* An attempt has ended and its endpoint knows: window, probe, and whether it is to be disabled.
 * `gone`: it answered 410. */
void registered_settled(struct webhooks *w, struct registered *r, bool gone);
void registered_hold_all(struct webhooks *w);
/* Probes whose time has come. Returns when the next one is. */
uint64_t registered_tick(struct webhooks *w, uint64_t now_ms);
void registered_ended(struct webhooks *w, uint64_t attachment);

/* ---- dynamic.c ---- */
void dynamic_load(struct webhooks *w);
void dynamic_free_all(struct webhooks *w);
/* The lane with this attachment, or NULL. */
const struct lane *dynamic_lane(const struct webhooks *w, uint64_t attachment);
void dynamic_deliver(struct webhooks *w, const struct lane *lane, const struct effect *effect);
/* An attempt has ended: what waits for the endpoint may go. */
void dynamic_settled(struct webhooks *w, struct dynamic *d);
void dynamic_hold_all(struct webhooks *w);

/* ---- attempt.c ---- */
/* For a hand-out; `event` is copied. Not begun yet. */
struct attempt *attempt_new(struct webhooks *w, const struct effect *deliver, const char *uri);
struct attempt *attempt_new_ping(struct webhooks *w, const struct webhook *webhook,
                                 struct registered *r);
/* Sends it, or lets it wait for a free transfer. Its endpoint has been told that it began. */
void attempt_begin(struct webhooks *w, struct attempt *a);
/* Settles nothing. */
void attempt_free(struct webhooks *w, struct attempt *a);
/* Gives its event back without a fail; it comes again after delay_ms. Frees. */
void attempt_release(struct webhooks *w, struct attempt *a, uint64_t delay_ms);
/* A hand-out for which there is no attempt: the same. */
void deliver_release(struct webhooks *w, const struct effect *deliver, uint64_t delay_ms);
/* A hand-out that can never work: a dead letter. */
void deliver_reject(struct webhooks *w, const struct effect *deliver, const char *why);
/* More bodies are in memory than may be. */
bool attempts_full(const struct webhooks *w);
/* Lets waiting ones begin. */
void attempts_pump(struct webhooks *w);

/* ---- history.c ---- */
void history_success(struct registered *r, const struct attempt *a, const struct http_result *res,
                     uint64_t wall_ms);
void history_failure(struct webhooks *w, struct registered *r, const struct attempt *a,
                     const struct http_result *res, uint64_t wall_ms, uint64_t next_attempt_ms);
/* "status" or the name of the failure. */
const char *history_error(const struct http_result *res);

#endif
