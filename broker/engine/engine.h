/* engine.h: the delivery logic of Bellhop. PURE: commands in, a turn of writes and effects out.
 *
 * No clock, no socket, no file, no randomness that is not seeded: time is passed in, what must be
 * written goes into the turn's batch, what the world must be told goes into the turn's effects.
 * The same commands at the same times give the same turns, byte for byte.
 *
 * The way of a turn:
 *   engine_step       for each command, as the callbacks of sockets decode them
 *   engine_end_turn   expires what is due, hands out events, writes positions; gives the turn away
 *   store_submit      by the caller, with turn->batch
 *   engine_durable    when the store says so; then the caller releases turn->effects in order
 *   engine_turn_done  the caller has released them; the turn's memory is reused
 * Effects of a turn are released only when its batch and all earlier ones are durable. Slices in
 * an effect point into its own turn's arena and die with engine_turn_done. A command may be
 * stepped while effects are being released: it belongs to the next turn.
 *
 * Ownership: main owns the engine from engine_open to engine_close; the engine owns subscriptions,
 * replays, attachments and deliveries; it borrows the store, which outlives it. A command is
 * borrowed until engine_step returns.
 *
 * Words: a cursor reads the journal for a subscription: the live one, and one per running replay.
 * A delivery is an event between hand-out and settlement. An attachment is a worker (or, later, an
 * endpoint) that takes deliveries of a subscription; it holds leases. States are drawn in
 * delivery.h.
 *
 * Invariants, verified by engine_check:
 *  E1 for each journal cursor: floor <= next <= end + 1; every seq below next is settled (acked,
 *     dead, parked on disk or not matching) but those of its outstanding deliveries; floor is the
 *     lowest of these, or next.
 *  E2 a journal cursor's outstanding deliveries rise strictly by seq and lie in [floor, next); each
 *     one's record is in the journal. The due cursor's each have a row on disk.
 *  E3 a delivery is LEASED exactly when it has a live lease; that lease is its attachment's, under
 *     its tag, and its timer is in the deadline heap, no later than the lease's end.
 *  E4 a delivery is DELAYED exactly when its timer is in the heap without a lease; READY exactly
 *     when it is in its subscription's ready list; BLOCKED exactly when another one of its key
 *     comes before it.
 *  E5 the counters (ready, leased, delayed, blocked, outstanding, unsettled and again of an
 *     attachment) equal a recount.
 *  E6 nothing is handed out above an attachment's window, nor while it is held or the subscription
 *     is paused.
 *  E7 no lost wake-up: a subscription that could hand something out is in the runnable list.
 *  E8 seqs are given out without gaps and never twice; received_at never falls.
 *  E9 outstanding deliveries of a subscription never exceed the configured cap, or what a restart
 *     found, when that is more: its cursors' positions were written at different times.
 *  E10 a record that retention has passed is there as long as a cursor has it outstanding.
 *  E11 a job is found by its id, once, and the counts of jobs and of their bytes equal a recount.
 *  E12 a job has ended exactly when it has a final event or is overdue; then it is in the list of
 *     those, in the order of ending, and its timer is for forgetting it, else for the end of its
 *     TTL.
 *  E13 a job's events rise strictly by seq; its state is made by the first final one, which is
 *     never dropped.
 *  E14 subscriptions are in order of project and name, each once; the counts of each project's
 *     subscriptions and jobs equal a recount; the totals of all projects add up to the whole's.
 *  E15 what a subscription hands out, counts, buries or sets aside, and what a job notes or lends
 *     to, is an event of its project (looked at where the event is read, not by engine_check).
 *
 * May call: base, storage/store.h, storage/record.h, proto/limits.h, proto/err.h, and the JSON
 * walker for filters, which is as pure. Never: anything with I/O, nor a room of the broker. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "base/event.h"
#include "proto/err.h"
#include "proto/limits.h"
#include "storage/store.h"

struct engine;

struct engine_time {
    uint64_t now_ms;  /* monotonic: all deadlines */
    uint64_t wall_ms; /* for stamps, and for due times that outlive a restart */
};

/* Where an answer goes: opaque to the engine, given back in the effect. `room` says who asked
 * (the broker numbers its rooms), the rest is that room's own. */
struct route {
    uint32_t room;
    uint32_t rid;
    uint64_t handle;
};

struct engine_options {
    uint64_t seed;               /* of the jitter */
    uint32_t subscriptions_max;  /* 0: LIMIT_SUBSCRIPTIONS */
    uint32_t outstanding_max;    /* per subscription; 0: LIMIT_OUTSTANDING */
    uint32_t settle_delay_ms;    /* longest time an unconfirmed ack waits for a batch; 0: 50 */
    uint32_t dedupe_ids;         /* ids remembered for sure; 0: 1,000,000 */
    uint64_t dedupe_ms;          /* and for how long at least; 0: 24 h */
    uint32_t turn_scan_events;   /* journal entries looked at per turn; 0: 8192 */
    uint32_t turn_deliver_bytes; /* bytes handed out per turn, about; 0: 4 MiB */
    /* After a restart, what had been handed out waits so long for its workers to come back and
     * claim it; 0: not at all. */
    uint32_t restart_grace_ms;
    uint32_t jobs_room;      /* EFFECT_JOB goes there; 0: nobody wants it */
    uint32_t jobs_max;       /* jobs known at a time; 0: LIMIT_JOBS */
    uint64_t jobs_bytes_max; /* of their ids, URIs and metadata; 0: LIMIT_JOBS_BYTES */
};

/* ---- policy ---- */

enum start_kind { START_NEW, START_FIRST, START_SEQ, START_TIME };
/* What happens to a subscription that lags behind what retention would keep. */
enum lag_policy {
    LAG_BLOCK,  /* its events stay; when the journal is full of them, publishes are refused */
    LAG_EXPIRE, /* its events go; each one that matched is counted */
};

struct policy {
    struct slice filter; /* JSON text (filter.h); empty: every event */
    uint64_t lease_ms;
    uint64_t max_hold_ms; /* from hand-out; EXTEND does not pass it */
    uint64_t max_age_ms;  /* since it was received, due, or waited for a resume: then, or when its
                             next attempt would come later, a dead letter; 0: no limit */
    uint32_t max_fails;   /* 0: never by count */
    uint64_t backoff_min_ms, backoff_max_ms;
    uint32_t backoff_factor_permille;
    uint32_t backoff_jitter_permille; /* at most so much of the delay is added */
    const uint64_t *backoff_list_ms;  /* instead of min, max, factor: the last one repeats */
    uint32_t backoff_list_count;      /* 0: no list */
    uint32_t rate_per_s;              /* hand-outs; 0: no limit */
    bool ordered;                     /* one at a time per order key, in journal order */
    struct slice order_key;           /* empty: the subject; else a user_metadata name */
    enum lag_policy lag;
};

#define POLICY_LEASE_MS_DEFAULT                30000
#define POLICY_MAX_HOLD_MS_DEFAULT             (12 * 3600 * 1000)
#define POLICY_MAX_FAILS_DEFAULT               20
#define POLICY_BACKOFF_MIN_MS_DEFAULT          1000
#define POLICY_BACKOFF_MAX_MS_DEFAULT          600000
#define POLICY_BACKOFF_FACTOR_PERMILLE_DEFAULT 2000
#define POLICY_BACKOFF_JITTER_PERMILLE_DEFAULT 100

/* Every default, and no filter. */
struct policy policy_default(void);
/* ERR_OK; ERR_BAD_POLICY, or ERR_BAD_FILTER, with a text in why[size] that names the field, what is
 * wrong and what is allowed. */
enum err policy_check(const struct policy *p, char *why, size_t size);
/* How long a delivery waits after its fails-th failure (1 or more), before the jitter. */
uint64_t policy_backoff_ms(const struct policy *p, uint32_t fails);
/* Whether it is a name for a source or subscription. */
bool name_ok(struct slice name);
/* Whether an event may have these endpoints: none, or 1 to LIMIT_ENDPOINTS lines of 1 to
 * LIMIT_URI_BYTES. */
bool endpoints_ok(struct slice endpoints);

/* How long the journal and dead letters are kept; 0: for ever. The smaller of what was given when
 * the broker started and what an operator has set later counts: that is the caller's business. */
struct retention {
    uint64_t max_age_ms, max_bytes; /* of the journal */
    uint64_t dead_max_age_ms;
};

/* ---- commands ----
 *
 * Subscriptions, tasks and jobs belong to a project, and so does every event. Names are a project's
 * own: two projects may each have an "orders". A command speaks for one project; what another one
 * has is not there for it. What has no name, an attachment, was named when it attached. */

enum command_kind {
    COMMAND_PUBLISH,
    COMMAND_SUBSCRIPTION_CREATE,
    COMMAND_SUBSCRIPTION_UPDATE, /* another policy; order cannot change while events are out */
    COMMAND_SUBSCRIPTION_PAUSE,
    COMMAND_SUBSCRIPTION_SEEK,
    COMMAND_SUBSCRIPTION_DELETE,
    COMMAND_TASK_CREATE,
    COMMAND_TASK_CANCEL,
    COMMAND_CONFIG_PUT,
    COMMAND_CONFIG_DELETE,
    COMMAND_JOB_PUT, /* registers a job, or replaces what is registered of it */
    COMMAND_ATTACH,
    COMMAND_WINDOW,
    COMMAND_HOLD,
    COMMAND_DETACH,
    COMMAND_ACK,
    COMMAND_NACK,
    COMMAND_EXTEND,
};

struct tag_range {
    uint64_t lo, hi; /* inclusive */
};

enum nack_kind {
    NACK_RELEASE,   /* not tried: no fail */
    NACK_FAIL,      /* tried and failed: a fail, then backoff */
    NACK_REJECT,    /* will never work: dead letter now */
    NACK_ELSEWHERE, /* not tried, and not by this worker for delay_ms: no fail */
};
/* What a worker says about a failure; each part may be empty. */
struct failure {
    struct slice type, message, detail; /* at most LIMIT_ERROR_TYPE_BYTES, _MESSAGE_, _DETAIL_ */
};
enum detach_kind {
    DETACH_RELEASE, /* the worker said goodbye: everything READY, nothing counted */
    DETACH_LOST,    /* the worker is gone: what it had started counts a fail */
    DETACH_KEEP,    /* the connection is gone: its leases stay for grace_ms, then LOST */
};

/* A delivery that a worker holds from before its connection or the broker went. */
struct claim {
    uint64_t tag; /* under which it goes on; claims of one ATTACH rise by tag */
    uint64_t seq;
    bool replay; /* it came with the replay flag */
};

/* Work on a subscription that an operator starts: bounded, run in slices, shown with progress,
 * cancelled, and taken up again after a restart. */
enum task_kind {
    TASK_REPLAY,  /* feeds a range of the journal to the subscription again */
    TASK_COUNT,   /* the same as a dry run: counts what would be fed */
    TASK_REDRIVE, /* gives dead letters back to the subscription, with fails 0 */
    TASK_PURGE,   /* removes dead letters */
};

#define DELAY_BY_POLICY UINT64_MAX

struct command {
    enum command_kind kind;
    uint32_t project; /* whose; 0 only in what names nothing: CONFIG_..., and after an ATTACH */
    struct route route;
    union {
        struct {
            const struct event
                *events;  /* seq, project and received_at_ms are the engine's to set */
            size_t count; /* 1 .. LIMIT_PUBLISH_EVENTS */
            /* A repeat of what is older, or lies so many events back in the journal, is none; 0: as
             * long as it is known. */
            uint64_t dedupe_ms, dedupe_events;
            /* A repeat is told by source and body instead of source and id: nothing vouches for
             * the id. */
            bool dedupe_by_body;
        } publish;
        struct {
            struct slice name;
            struct policy policy;
            enum start_kind start;
            uint64_t start_value; /* seq, or wall ms */
        } create;
        struct {
            struct slice name;
            struct policy policy;
        } update;
        struct {
            struct slice name;
            bool paused;
            bool ages; /* resume: max_age_ms counts the time of the pause too; else what waited is
                          as old as if it had come now */
        } pause;
        struct {
            struct slice name;
            enum start_kind start; /* START_NEW: skip everything */
            uint64_t start_value;
        } seek;
        struct {
            struct slice name;
        } delete;
        struct {
            enum task_kind kind;
            struct slice name;
            struct slice filter;               /* JSON text; empty: every event */
            uint32_t rate_per_s;               /* 0: no limit; REPLAY and REDRIVE */
            uint64_t from_seq, to_seq;         /* 0: not given */
            uint64_t from_time_ms, to_time_ms; /* 0: not given; exclusive with the seqs; to_time_ms
                                                  only REPLAY and COUNT. REDRIVE and PURGE: of
                                                  events received since */
        } task;
        struct {
            uint32_t id;
        } cancel;
        struct {
            struct slice key, value; /* what a room keeps; the key says whose it is */
        } config;
        struct {
            struct slice id;        /* 1 .. LIMIT_EVENT_SUBJECT_BYTES: the subject of its events */
            struct slice endpoints; /* as in struct event */
            struct slice metadata;  /* JSON object or empty: for events that bring none */
            uint64_t ttl_ms;        /* from now; without a final event until then: job.overdue */
        } job;
        struct {
            uint64_t attachment; /* chosen by the room, never used twice */
            struct slice name;
            const struct policy *create; /* create it so when it does not exist; NULL: do not */
            enum start_kind start;
            uint64_t start_value;
            uint64_t window_events, window_bytes;
            uint32_t concurrency; /* 0: everything handed out counts as started */
            uint64_t lease_ms;    /* for this worker; 0: the subscription's */
            uint64_t session;     /* whose it is: what a resuming worker must know; 0: nobody's */
            uint64_t slot;        /* the worker's own number for it, the same when it comes back */
            uint64_t resumes;     /* the session that the claims come from; 0: there are none */
            const struct claim *claims;
            size_t claims_count;
            /* Nobody else works on this subscription: what was out before a restart is ready at
             * once, for all, instead of waiting for its worker. */
            bool alone;
        } attach; /* route goes into every effect of this attachment */
        struct {
            uint64_t attachment, events, bytes;
        } window;
        struct {
            uint64_t attachment;
            bool hold; /* hand out nothing while set: the worker's socket does not drain */
        } hold;
        struct {
            uint64_t attachment;
            enum detach_kind how;
            uint32_t grace_ms; /* KEEP */
        } detach;
        struct {
            uint64_t attachment;
            const struct tag_range *ranges;
            size_t count;
            bool confirm;           /* ask for EFFECT_SETTLED once durable */
            enum nack_kind kind;    /* NACK */
            uint64_t delay_ms;      /* NACK, or DELAY_BY_POLICY */
            struct failure failure; /* NACK */
            uint64_t lease_ms;      /* EXTEND, from now; 0: the subscription's */
        } settle;                   /* ACK, NACK, EXTEND */
    } u;
};

/* ---- effects ---- */

enum effect_kind {
    EFFECT_PUBLISHED,  /* all of a PUBLISH is durable, or nothing of it was taken (err) */
    EFFECT_DONE,       /* any other command of an operator is durable, or refused */
    EFFECT_ATTACHED,   /* ATTACH worked (err 0) or not */
    EFFECT_DELIVER,    /* an event for an attachment */
    EFFECT_SETTLED,    /* a confirmed ACK, NACK or EXTEND; or a refused one, confirmed or not */
    EFFECT_LEASE_SOON, /* a quarter of a lease is left */
    EFFECT_REVOKED,    /* a lease ran out, or a claim was not granted */
    EFFECT_ENDED,      /* the attachment's subscription was deleted: the attachment is gone */
    EFFECT_JOB,        /* an event of a registered job is durable (route.room: jobs_room) */
};

struct publish_result {
    uint64_t seq;
    bool duplicate; /* seq is that of the first */
};

struct effect {
    enum effect_kind kind;
    enum err err;
    struct route route;
    const char *message; /* with err: static or arena text */
    union {
        struct {
            const struct publish_result *results;
            size_t count;
        } published;
        struct {
            uint64_t id;  /* task id, subscription id; else 0 */
            bool created; /* false: it existed already, exactly so */
        } done;
        struct {
            uint64_t attachment, lease_ms, backlog;
            uint32_t resumed; /* claims that were granted; for each other one comes a REVOKED */
            bool created;
        } attached;
        struct {
            uint64_t attachment, tag, lease_ms;
            uint32_t fails, deliveries; /* deliveries counts this one */
            bool replay, redrive;
            struct event event;
        } deliver;
        struct {
            uint64_t attachment;
            const struct tag_range *ok, *already, *stale;
            size_t ok_count, already_count, stale_count;
        } settled;
        struct {
            uint64_t attachment, tag, remaining_ms;
        } lease_soon;
        struct {
            uint64_t attachment, tag;
            const char *reason; /* static: "expired", "max_hold", "lost", "seek" */
        } revoked;
        struct {
            uint64_t attachment;
        } ended;
        struct {
            uint32_t project;
            struct slice id;
            uint64_t seq;
        } job;
    } u;
};

/* One turn's result. The caller reads it and hands it back; it never looks inside the batch. */
struct engine_turn {
    struct batch batch;
    struct effect *effects;
    size_t effects_count;
    size_t effects_cap;         /* the engine's */
    struct engine_turn *next;   /* the caller's, while it waits for durability */
    struct turn_events *events; /* the engine's: events of this turn, readable before durable */
};

/* ---- life ---- */

/* Reads the store and takes up where it ended: everything that was leased is READY again. Non-zero:
 * error[error_size] says what is wrong with the store. */
MUST_CHECK int engine_open(struct engine **out, struct store *store,
                           const struct engine_options *options, struct engine_time time,
                           char *error, size_t error_size);
/* Frees; open turns are forgotten; *e becomes NULL. */
void engine_close(struct engine **e);

/* Takes a command in. Its answer, where it has one, is an effect of this turn. */
void engine_step(struct engine *e, struct engine_time time, const struct command *c);
/* Ends the turn. NULL: nothing happened, nothing to submit. */
struct engine_turn *engine_end_turn(struct engine *e, struct engine_time time);
/* The oldest submitted turn is durable: its events can now be read. */
void engine_durable(struct engine *e, struct engine_turn *turn);
void engine_turn_done(struct engine *e, struct engine_turn *turn);
/* When the next turn is needed if nothing arrives (monotonic ms): now_ms or earlier means at once,
 * UINT64_MAX never. */
uint64_t engine_next_deadline(const struct engine *e, struct engine_time time);
/* Makes the next turn write every position that has moved: for a clean stop. */
void engine_flush(struct engine *e);
/* Tells the engine whether the store has room for new events. */
void engine_set_room(struct engine *e, bool room);
/* Sets what is kept. Takes effect with the next turns, in slices. */
void engine_set_retention(struct engine *e, const struct retention *r);
/* Verifies the invariants by CHECK; walks everything. */
void engine_check(const struct engine *e);

/* ---- reading ----
 * Local, synchronous, for answers to people; what is read is borrowed until store_end_reads.
 * Whoever reads for a project finds what is that project's, and nothing else. */

struct engine_totals { /* since start */
    uint64_t published, duplicates, refused;
    uint64_t delivered, acked, nacked, expired, dead;
};
struct engine_stats {
    uint64_t first_seq, last_seq; /* of the durable journal; last 0: empty */
    uint64_t journal_bytes;       /* of the records from first to last */
    struct engine_totals totals;  /* of all projects */
    uint64_t trimmed_total;       /* events that retention removed */
    uint32_t subscriptions, attachments, tasks_running;
    bool room;
    struct slice blocked_by; /* the subscription that lets the journal pass its size; or empty */
    uint32_t blocked_by_project;
    struct retention retention;
};
void engine_stats(const struct engine *e, struct engine_stats *out);

struct project_stats {
    struct engine_totals totals;
    uint32_t subscriptions, attachments, tasks_running, jobs;
};
/* All 0 for a project that the engine has not heard of. */
void engine_project_stats(const struct engine *e, uint32_t project, struct project_stats *out);

/* Why a subscription hands nothing out just now. */
enum why_idle {
    IDLE_BUSY,       /* it does: work is waiting and can be handed out */
    IDLE_EMPTY,      /* nothing is waiting */
    IDLE_NO_WORKERS, /* something waits and nobody is attached */
    IDLE_WINDOW,     /* every window is full or paused */
    IDLE_BACKOFF,    /* all that is left is delayed */
    IDLE_CAP,        /* too many unsettled events */
    IDLE_SCANNING,   /* looking for a match in the journal */
    IDLE_PAUSED,     /* an operator paused it */
    IDLE_RATE,       /* its rate limit holds it back */
    IDLE_ORDER,      /* all that waits, waits for an earlier event of its key */
};
const char *why_idle_name(enum why_idle w);

struct subscription_info {
    struct slice name;
    uint32_t id;
    uint64_t created_at_ms;
    struct policy policy;
    bool paused;
    uint64_t floor, next; /* of the live cursor */
    uint64_t backlog;     /* journal positions from next to the end, matching or not */
    uint32_t ready, leased, attachments, tasks;
    uint64_t delayed;   /* waiting for their time, in memory or on disk */
    uint32_t blocked;   /* waiting for an earlier event of their key */
    uint64_t dead;      /* dead letters there are */
    uint64_t oldest_ms; /* age of the oldest event that is not settled, or not looked at; 0: none */
    double in_per_s, out_per_s; /* events that matched, and acks, over the last ten seconds */
    uint64_t acked_total, dead_total, expired_total; /* over its life; expired by retention */
    enum why_idle why_idle;
};
/* No other one can be made now; that some are of other projects is no secret, how many is. */
bool engine_subscriptions_full(const struct engine *e);
/* False: no such subscription. */
bool engine_subscription_get(struct engine *e, uint32_t project, struct slice name,
                             struct subscription_info *out);
/* The project's subscription with the lowest name above `after` (empty: the first). */
bool engine_subscription_next(struct engine *e, uint32_t project, struct slice after,
                              struct subscription_info *out);
/* The project's subscriptions that are furthest behind, worst first, at most `max`: by journal
 * positions from their floor to the end. Returns how many there are; those that are behind by
 * nothing are left out. */
size_t engine_subscriptions_behind(struct engine *e, uint32_t project,
                                   struct subscription_info *out, size_t max);

struct task_info {
    uint32_t id;
    enum task_kind kind;
    struct slice subscription; /* empty: deleted since */
    struct slice filter;
    uint32_t rate_per_s;
    uint64_t created_at_ms, finished_at_ms; /* finished 0: running */
    bool cancelled;
    uint64_t from, to, next; /* seqs; next: how far it has read */
    uint64_t matched;        /* events fed, counted, redriven or purged */
    uint64_t acked_total;    /* REPLAY */
    uint64_t expired;        /* REPLAY: gone from the journal before it came to them */
    uint32_t outstanding;    /* REPLAY */
};
bool engine_task_get(const struct engine *e, uint32_t project, uint32_t id, struct task_info *out);
bool engine_task_next(const struct engine *e, uint32_t project, uint32_t after,
                      struct task_info *out);
const char *task_kind_name(enum task_kind k); /* "replay", "count", "redrive", "purge" */

/* Deliveries of an attachment that are not settled yet; 0 when there is no such attachment. */
uint32_t engine_attachment_unsettled(const struct engine *e, uint64_t attachment);

/* The event, if it is durable, still in the journal and the project's. */
bool engine_event_get(struct engine *e, uint32_t project, uint64_t seq, struct event *out);
/* Calls fn for the project's durable events with seq >= from, rising, until it returns false or
 * `*scan` is used up: each event that was looked at, of whatever project, is taken off it, a large
 * one as several. Returns the seq after the last one looked at. */
typedef bool engine_event_fn(void *ctx, const struct event *event);
uint64_t engine_events_scan(struct engine *e, uint32_t project, uint64_t from, uint32_t *scan,
                            engine_event_fn *fn, void *ctx);
/* The first durable seq that was received at or after wall_ms; last_seq + 1 when there is none. */
uint64_t engine_seq_at_time(struct engine *e, uint64_t wall_ms);

struct dead_letter {
    uint32_t cursor; /* 0: live; else the replay's id */
    uint64_t died_at_ms;
    uint32_t fails, deliveries;
    struct slice reason;    /* "max_fails", "expired" (older than max_age_ms), "rejected" */
    struct failure failure; /* the last one */
    struct event event;
};
/* Calls fn for the dead letters of a subscription with (seq, cursor) > (after_seq, after_cursor),
 * rising, until it returns false. False: no such subscription. */
typedef bool engine_dead_fn(void *ctx, const struct dead_letter *dead);
bool engine_dead_scan(struct engine *e, uint32_t project, struct slice subscription,
                      uint64_t after_seq, uint32_t after_cursor, engine_dead_fn *fn, void *ctx);

enum job_state {
    JOB_PENDING,
    JOB_REQUIRES_ACTION,
    JOB_SUCCEEDED, /* this and the rest are final */
    JOB_FAILED,
    JOB_CANCELLED,
    JOB_EXPIRED,
};
const char *job_state_name(enum job_state s); /* "pending" ... */
/* What an event type makes of a job, by its last segment: succeeded, completed, generated; failed;
 * cancelled; expired; requires_action; anything else: PENDING, which changes nothing. */
enum job_state job_state_of_type(struct slice type);
static inline bool job_state_is_final(enum job_state s) {
    return s >= JOB_SUCCEEDED;
}

struct job_info {
    struct slice id, endpoints, metadata;
    uint64_t created_at_ms, updated_at_ms; /* first put, last put */
    uint64_t due_at_ms;                    /* wall time of its TTL */
    enum job_state state;                  /* by its durable events; a final one stays */
    bool overdue;                          /* job.overdue was published */
    uint64_t events_total;
    /* The last ones, rising, durable, at most LIMIT_JOB_EVENTS, and always the first final and the
     * first requires_action one; some may be gone from the journal. */
    const uint64_t *seqs;
    const uint8_t *states; /* enum job_state that each of them makes */
    size_t seqs_count;
};
/* False: no such job is registered, or not durable yet. What a later PUT changed is shown before
 * it is durable. Borrowed until the next command. */
bool engine_job_get(struct engine *e, uint32_t project, struct slice id, struct job_info *out);

/* Calls fn for every config entry whose key starts with prefix, in key order. */
typedef void engine_config_fn(void *ctx, struct slice key, struct slice value);
void engine_config_scan(struct engine *e, struct slice prefix, engine_config_fn *fn, void *ctx);

#endif
