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
 * When the connection is lost or the broker restarts, the client goes on where it was: the events
 * that handlers have are claimed again, and what was settled in between is said then. An event that
 * the broker gives to somebody else is told by on_revoked; settling it does nothing. Events that no
 * handler has yet are dropped: the broker hands them out anew, and no failure is counted.
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
    bool redriven;       /* came back from the dead letters */
};

/* An event arrived. Settle it here or later, exactly once: bellhop_settle or a short form of it. */
typedef void bellhop_handler(void *ctx, struct bellhop_event *event);

#define BELLHOP_RESUME_OFF UINT64_MAX

struct bellhop_options {
    struct uv_loop_s *loop; /* the caller's loop; NULL: a loop of its own, for bellhop_run */
    const char *name;       /* shown to operators; NULL: the program's name */
    uint64_t heartbeat_ms;  /* 0: the broker's default */
    /* How long the broker keeps what handlers have for this client when the connection is lost (at
     * most 10 minutes, and no longer than the leases last). 0: 5000. BELLHOP_RESUME_OFF, or a
     * broker that does not grant it: what handlers have is lost with the connection. */
    uint64_t resume_ms;
    /* Of bellhops://. Whom to trust: a PEM file of authorities; NULL: the system's. What to show to
     * a broker that wants to see a certificate: a PEM chain and its private key (NULL: it is in the
     * same file) without a pass phrase; NULL: nothing. Read when the client first connects; one
     * that cannot be used stops it with BELLHOP_EARGUMENT. */
    const char *ca_file, *cert_file, *key_file;
    /* State changes, for logs: "connected", "disconnected: why", "refused: why", "quiet: why" (the
     * broker is about to stop), "going away: why", and last "stopped" or "stopped: why". May be
     * NULL. */
    void (*on_state)(void *ctx, const char *state);
    void *ctx;
};

/* What a subscription is like at the broker. The counts are its own, not this worker's. */
struct bellhop_state {
    uint64_t ready, leased, delayed; /* events to hand out, with workers, waiting for their time */
    uint64_t blocked;                /* waiting for an earlier event of their key */
    uint64_t dead;                   /* dead letters */
    uint64_t backlog;                /* journal positions that it has not looked at */
    uint64_t oldest_ms;              /* age of the oldest event that is not settled */
    double in_per_s, out_per_s;      /* over the last ten seconds */
    bool paused;                     /* by an operator */
    const char *why_idle;            /* "busy", "empty", "window", "backoff", ... */
};
/* Result of bellhop_sub_state, or a change: error 0 and the state (valid until it returns), or an
 * error and NULL. */
typedef void bellhop_sub_stated(void *ctx, int error, const struct bellhop_state *state);

struct bellhop_sub_options {
    bellhop_handler *handler; /* required */
    /* An event that the handler has is somebody else's or may become it. `reason`: "expired" or
     * "max_hold" (its lease ran out), "lost" (it could not be claimed after the connection was
     * lost), "seek" (an operator moved the position), "ended" (the subscription is gone). It must
     * still be settled, which is then harmless (a late ack may even count). Rarely told twice for
     * an event. May be NULL. */
    void (*on_revoked)(void *ctx, struct bellhop_event *event, const char *reason);
    /* The lease of an event that the handler has ends in remaining_ms: either this loop was blocked
     * for long, or max_hold is near and nothing can renew it. For information: the client renews
     * by itself. May be NULL. */
    void (*on_lease_soon)(void *ctx, struct bellhop_event *event, uint64_t remaining_ms);
    /* The subscription cannot be used (deleted, unknown, other policy): no event will come. The
     * client stays up. NULL: the client stops with that error. */
    void (*on_ended)(void *ctx, int error, const char *message);
    /* Called with its state while that changes, at most once a second. NULL: not asked for. */
    bellhop_sub_stated *on_changed;
    void *ctx;
    uint32_t concurrency; /* handlers that run at once; 0: 1 */
    uint32_t window;      /* events held here, prefetched ones included; 0: 2 x concurrency */
    size_t window_bytes;  /* 0: 16 MiB */
    uint64_t lease_ms;    /* of this worker's events, 100 ms to 12 h; 0: the subscription's */
    /* Create it so when it does not exist: JSON text, what POST /v1/subscriptions takes without
     * "name"; "{}" is all defaults. At most 32 KiB; it is copied. NULL: do not create. */
    const char *create;
};

/* Result of a publish: error 0 and a seq per event, or an error and a message. */
typedef void bellhop_published(void *ctx, int error, const char *message, const uint64_t *seqs,
                               const bool *duplicates, size_t count);
/* Result of a confirmed settlement: 0 when it is on disk; `stale` when the event was no longer
 * this worker's. */
typedef void bellhop_settled(void *ctx, int error, bool stale);
/* Result of a replay or redrive: error 0 and its id (of GET /v1/replays/{id}), or an error and a
 * message. */
typedef void bellhop_task_started(void *ctx, int error, const char *message, uint64_t id);

/* A job and the event of it that was waited for. */
struct bellhop_job {
    const char *state;                /* "pending", "requires_action", "succeeded", "failed", ... */
    bool overdue;                     /* its time to live was over without a final event */
    uint64_t seq;                     /* of the event; 0: none came within the time */
    const struct bellhop_info *event; /* NULL: none came, or it is gone from the journal */
};
/* Result of a wait: error 0 and the job (valid until it returns), or an error, a message and NULL.
 */
typedef void bellhop_waited(void *ctx, int error, const char *message,
                            const struct bellhop_job *job);

#define BELLHOP_WAIT_LOOK UINT64_MAX

struct bellhop_wait_options {
    const char *const *types; /* globs; none: any event that ends the job or asks for action */
    size_t types_count;       /* at most 16 */
    uint64_t after_seq;       /* only events above it */
    uint64_t timeout_ms;      /* 0: 60 s. BELLHOP_WAIT_LOOK: only what is there already */
};

struct bellhop_message {
    const char *type, *subject, *id, *content_type, *metadata; /* NULL: empty */
    uint64_t time_ms;                                          /* 0: now */
    /* Not delivered before: wall time in milliseconds, or so long after this call by the broker's
     * clock. At most 30 days ahead, at most one of the two; 0: at once. */
    uint64_t deliver_at_ms, deliver_after_ms;
    const void *body;
    size_t body_len;
};

/* What a range of the journal is fed to a subscription by; zero: not given. From and to are either
 * both seqs or both times; one `from` is required. */
struct bellhop_replay_options {
    uint64_t from_seq, to_seq;
    uint64_t from_time_ms, to_time_ms;
    const char *filter;  /* JSON text, beside the subscription's own; NULL: none */
    uint64_t rate_per_s; /* 0: no limit */
    bool dry_run;        /* count only */
};

/* Which dead letters go back to their subscription. */
struct bellhop_redrive_options {
    uint64_t seq;        /* this one; 0: all that match */
    const char *filter;  /* JSON text; NULL: all */
    uint64_t rate_per_s; /* 0: no limit */
};

#define BELLHOP_EURL      (-10001) /* the URL is not bellhop://[key@]host[:port] or bellhops://... */
#define BELLHOP_EREFUSED  (-10002) /* the broker refused; bellhop_error has its words */
#define BELLHOP_EPROTOCOL (-10003) /* the peer does not speak the protocol */
#define BELLHOP_ECLOSED                                                                            \
    (-10004) /* the connection was lost before the answer: it may or may not                       \
                have happened; publish with an id to repeat safely */
#define BELLHOP_EARGUMENT (-10005)

/* Makes a client; it connects once the loop runs. The key in the URL is for a broker that asks for
 * one; it is proved, not sent. 0, BELLHOP_EURL or BELLHOP_EARGUMENT. */
int bellhop_open(struct bellhop **out, const char *url, const struct bellhop_options *options);
/* Adds a subscription, before or while the loop runs. NULL: an argument is unusable. */
struct bellhop_sub *bellhop_subscribe(struct bellhop *c, const char *name,
                                      const struct bellhop_sub_options *options);
/* Publishes up to 1024 events; the bytes are copied. The callback comes once. Waits for the
 * connection when there is none. Non-zero, and no callback comes: BELLHOP_EARGUMENT; EREFUSED: 64
 * MiB wait already; ECLOSED: the client has stopped. done may be NULL. */
int bellhop_publish(struct bellhop *c, const struct bellhop_message *messages, size_t count,
                    bellhop_published *done, void *ctx);
/* Starts a replay, or a redrive of dead letters, of a subscription. options of a redrive may be
 * NULL: all of them. Waiting, results and done as bellhop_publish. */
int bellhop_replay(struct bellhop *c, const char *subscription,
                   const struct bellhop_replay_options *options, bellhop_task_started *done,
                   void *ctx);
int bellhop_redrive(struct bellhop *c, const char *subscription,
                    const struct bellhop_redrive_options *options, bellhop_task_started *done,
                    void *ctx);

/* Waits for an event of a job that is registered (PUT /v1/jobs/ID), instead of asking again and
 * again: done is called once, as soon as there is such an event (at once when there is one
 * already), or when the time is over. It goes on over lost connections and restarts of the broker.
 * options may be NULL. The errors of done: BELLHOP_EREFUSED (no such job, or more than 1024 waits
 * on a connection); BELLHOP_ECLOSED: no broker answered within the time, or the client has stopped.
 * Non-zero, and done is not called: BELLHOP_EARGUMENT, or BELLHOP_ECLOSED: the client has stopped.
 */
int bellhop_wait(struct bellhop *c, const char *job, const struct bellhop_wait_options *options,
                 bellhop_waited *done, void *ctx);

/* Takes no more events into this client, and gives back those that no handler has; other workers
 * get them. bellhop_sub_resume takes events again. Neither is the pause of the whole subscription,
 * which is an operator's. */
void bellhop_sub_pause(struct bellhop_sub *s);
void bellhop_sub_resume(struct bellhop_sub *s);
/* Asks the broker for the subscription's state; the callback comes once. Waits until the
 * subscription is attached. BELLHOP_EARGUMENT: done is NULL; BELLHOP_ECLOSED: the client has
 * stopped, or the subscription has ended. */
int bellhop_sub_state(struct bellhop_sub *s, bellhop_sub_stated *done, void *ctx);

/* Runs the client's own loop until bellhop_stop or a fatal error; 0 or that error. Fatal is what
 * connecting again cannot mend: another protocol, a refused client, a subscription that ended
 * without an on_ended. A broker that is away is waited for. */
int bellhop_run(struct bellhop *c);
/* Stops: takes no more events, gives back those that no handler has, lets the handlers that run
 * settle and publishes be answered (at most 10 s), says goodbye; then the own loop ends, and on a
 * caller's loop on_state says "stopped". Without a connection it stops at once. Safe in a signal
 * handler and from any thread. */
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

/* Why it failed, kept with the event and its dead letter. Each part may be NULL; it is cut at the
 * end of a UTF-8 character when it is longer than 128, 512 and 2048 bytes. */
struct bellhop_failure {
    const char *type;    /* a word to group by: "Timeout" */
    const char *message; /* one line */
    const char *detail;  /* more: a stack trace, the last output */
};

enum bellhop_settlement_kind {
    BELLHOP_ACK,      /* done */
    BELLHOP_NACK,     /* tried and failed: a fail is counted, then the backoff */
    BELLHOP_REJECT,   /* will never work: a dead letter now */
    BELLHOP_RELEASE,  /* not tried: ready for anybody at once, no fail */
    BELLHOP_ELSEWHERE /* not here for a while (60 s), while another worker can take it; no fail */
};

struct bellhop_settlement {
    enum bellhop_settlement_kind kind;
    bool with_delay;                       /* NACK, RELEASE, ELSEWHERE: */
    uint64_t delay_ms;                     /* instead of what the policy says; at most 24 h */
    const struct bellhop_failure *failure; /* not with ACK; copied; may be NULL */
    bellhop_settled *done;                 /* told when it is on disk; NULL: not told */
    void *ctx;
};

/* Settles; `e` is gone after it. Without a connection it waits until there is one; with `done` it
 * is then BELLHOP_ECLOSED when nobody can say any more whether it was taken. */
void bellhop_settle(struct bellhop_event *e, const struct bellhop_settlement *settlement);

/* The same in short; failure may be NULL. */
#define BELLHOP_DELAY_POLICY UINT64_MAX
void bellhop_ack(struct bellhop_event *e);
void bellhop_ack_confirm(struct bellhop_event *e, bellhop_settled *done, void *ctx);
void bellhop_nack(struct bellhop_event *e, uint64_t delay_ms,
                  const struct bellhop_failure *failure);
void bellhop_reject(struct bellhop_event *e, const struct bellhop_failure *failure);
void bellhop_release(struct bellhop_event *e);
void bellhop_elsewhere(struct bellhop_event *e, uint64_t delay_ms);
/* Renews the lease now. Not needed while the loop runs: the client renews what is held at a third
 * of the lease, for as long as the subscription's max_hold allows; a handler that blocks the loop
 * for longer than that should be a thread or a process. */
void bellhop_extend(struct bellhop_event *e);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
