/* bellhop.h: libbellhop, the C client of the Bellhop webhook event broker.
 *
 * A client is one connection that keeps itself alive: it connects, subscribes, publishes, renews
 * leases while handlers run, answers heartbeats, and connects again with a growing, jittered pause
 * when the connection is lost. It runs on a libuv loop: its own (bellhop_run, for a program whose
 * main just blocks) or the caller's (pass the loop to bellhop_open). Everything happens on the
 * thread that runs the loop; only bellhop_stop may be called from a signal handler or another
 * thread.
 *
 * Ownership: the caller owns the client from bellhop_open to bellhop_close, subscriptions and
 * events belong to the client. An event is valid from its handler until it is settled or the
 * client is closed.
 *
 * When the connection is lost, events that no handler has yet are dropped (the broker hands them
 * out anew) and those that a handler has become orphans: on_revoked tells, settling them does
 * nothing. Subscriptions are made again by themselves.
 *
 * A program that gives its own loop should ignore SIGPIPE; bellhop_run does that by itself.
 *
 *   struct bellhop *c = NULL;
 *   if (bellhop_open(&c, "bellhop://127.0.0.1:8421", NULL) != 0) ...
 *   bellhop_subscribe(c, "batches", &(struct bellhop_sub_options){.handler = on_event});
 *   return bellhop_run(c);
 *
 * Errors are negative numbers: -E of errno for the connection, BELLHOP_E... for what the broker
 * said; bellhop_strerror names them. */
#ifndef BELLHOP_H
#define BELLHOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

struct uv_loop_s;
struct bellhop;
struct bellhop_sub;
struct bellhop_event;

/* What an event says. Texts are NUL-terminated; body_len counts the body's bytes. */
struct bellhop_info {
    uint64_t seq, time_ms, received_at_ms;
    const char *id, *type, *source, *subject, *content_type;
    const char *metadata; /* user_metadata as JSON text, or "" */
    const char *headers;  /* kept request headers as JSON text, or "" */
    const void *body;
    size_t body_len;
    uint32_t attempt;    /* fails so far + 1 */
    uint32_t deliveries; /* hand-outs, this one included */
    bool replay;         /* delivered by a replay */
};

/* An event arrived. Settle it here or later: exactly one of ack, nack, reject, release. */
typedef void bellhop_handler(void *ctx, struct bellhop_event *event);

struct bellhop_options {
    struct uv_loop_s *loop; /* the caller's loop; NULL: a loop of its own, for bellhop_run */
    const char *name;       /* shown to operators; NULL: the program's name */
    uint64_t heartbeat_ms;  /* 0: the broker's default */
    /* State changes, for logs: "connected", "disconnected: why", "refused: why",
     * "going away: why", and last "stopped" or "stopped: why". May be NULL. */
    void (*on_state)(void *ctx, const char *state);
    void *ctx;
};

/* Policy for a subscription that may have to be created; zero means the broker's default. */
struct bellhop_policy {
    const char *const *types; /* globs such as "batch.*", types_count of them */
    const char *const *sources;
    size_t types_count, sources_count;
    uint64_t lease_ms;
    uint64_t max_fails;
    uint64_t backoff_min_ms, backoff_max_ms;
    double backoff_factor;
    const char *start;  /* NULL or "new", "first" */
    uint64_t start_seq; /* instead of start, when not 0 */
};

struct bellhop_sub_options {
    bellhop_handler *handler; /* required */
    /* An event that the handler has ran out of its lease, or its connection or subscription is
     * gone: somebody else may get it. It must still be settled, which is then harmless (a late ack
     * may even count). May be NULL. */
    void (*on_revoked)(void *ctx, struct bellhop_event *event);
    /* The subscription cannot be used (deleted, unknown, other policy): no event will come. The
     * client stays up. NULL: the client stops with that error. */
    void (*on_ended)(void *ctx, int error, const char *message);
    void *ctx;
    uint32_t concurrency; /* handlers that run at once; 0: 1 */
    uint32_t window;      /* events held here, prefetched ones included; 0: 2 x concurrency */
    size_t window_bytes;  /* 0: 16 MiB */
    const struct bellhop_policy *create; /* create it so when it does not exist; NULL: do not */
};

/* Result of a publish: error 0 and a seq per event, or an error and a message. */
typedef void bellhop_published(void *ctx, int error, const char *message, const uint64_t *seqs,
                               const bool *duplicates, size_t count);
/* Result of a confirmed settlement: 0 when it is on disk; `stale` when the event was no longer
 * this worker's. */
typedef void bellhop_settled(void *ctx, int error, bool stale);

struct bellhop_message {
    const char *type, *subject, *id, *content_type, *metadata; /* NULL: empty */
    uint64_t time_ms;                                          /* 0: now */
    const void *body;
    size_t body_len;
};

#define BELLHOP_EURL                                                                               \
    (-10001)                       /* the URL is not bellhop://[key@]host[:port]; bellhops://      \
                                      (TLS) is not there yet */
#define BELLHOP_EREFUSED  (-10002) /* the broker refused; bellhop_error has its words */
#define BELLHOP_EPROTOCOL (-10003) /* the peer does not speak the protocol */
#define BELLHOP_ECLOSED                                                                            \
    (-10004) /* the connection was lost before the answer: it may or may not                       \
                have happened; publish with an id to repeat safely */
#define BELLHOP_EARGUMENT (-10005)

/* Makes a client; it connects once the loop runs. 0, BELLHOP_EURL or BELLHOP_EARGUMENT. */
int bellhop_open(struct bellhop **out, const char *url, const struct bellhop_options *options);
/* Adds a subscription, before or while the loop runs. NULL: an argument is unusable. */
struct bellhop_sub *bellhop_subscribe(struct bellhop *c, const char *name,
                                      const struct bellhop_sub_options *options);
/* Publishes up to 1024 events; the bytes are copied. The callback comes once. Waits for the
 * connection when there is none. Non-zero, and no callback comes: BELLHOP_EARGUMENT; EREFUSED: 64
 * MiB wait already; ECLOSED: the client has stopped. done may be NULL. */
int bellhop_publish(struct bellhop *c, const struct bellhop_message *messages, size_t count,
                    bellhop_published *done, void *ctx);

/* Runs the client's own loop until bellhop_stop or a fatal error; 0 or that error. Fatal is what
 * connecting again cannot mend: another protocol, a refused client, a subscription that ended
 * without an on_ended. A broker that is away is waited for. */
int bellhop_run(struct bellhop *c);
/* Stops: takes no more events, gives back those that no handler has, lets the handlers that run
 * settle and publishes be answered (at most 10 s), says goodbye; then the own loop ends, and on a
 * caller's loop on_state says "stopped". Safe in a signal handler and from any thread. */
void bellhop_stop(struct bellhop *c);
/* Frees; *c becomes NULL. Does not wait for handlers (bellhop_stop does): what was settled is sent
 * as far as the socket takes it, unanswered publishes get BELLHOP_ECLOSED before this returns. With
 * a loop of its own: not from a callback. With a caller's loop: from anywhere on its thread; the
 * memory goes when the loop has run the closing callbacks. */
void bellhop_close(struct bellhop **c);
const char *bellhop_error(const struct bellhop *c); /* words for the last error */
const char *bellhop_strerror(int error);

/* What the event says; valid until it is settled. */
const struct bellhop_info *bellhop_event_info(const struct bellhop_event *e);
/* Settle: done; failed (try again by the policy, or after delay_ms); never again (dead letter);
 * not tried (ready for others at once). `e` is gone after each. error may be NULL. */
void bellhop_ack(struct bellhop_event *e);
void bellhop_ack_confirm(struct bellhop_event *e, bellhop_settled *done, void *ctx);
#define BELLHOP_DELAY_POLICY UINT64_MAX
void bellhop_nack(struct bellhop_event *e, uint64_t delay_ms, const char *error);
void bellhop_reject(struct bellhop_event *e, const char *error);
void bellhop_release(struct bellhop_event *e);
/* Renews the lease now. Not needed while the loop runs: the client renews what is held at a third
 * of the lease; a handler that blocks the loop for longer than that should be a thread or a
 * process. */
void bellhop_extend(struct bellhop_event *e);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
