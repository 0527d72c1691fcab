/* record.h: the keys and values of the store as bytes. Pure.
 *
 * Keys are big-endian, so that byte order is number order. Every value is sealed: u32 CRC32C
 * (little-endian) of everything that follows, then u8 record version, then fields, numbers
 * little-endian. The layouts are drawn in docs/storage.md.
 *
 * Encoders write into an arena and return slices of it. Decoders borrow: the slices in the result
 * point into the value. Every decoder verifies the CRC first and never reads outside the value;
 * false means that the value is damaged or from a newer version.
 *
 * To change a layout: raise its version constant, keep decoding the old one, add a test with the
 * old bytes, and write it down in docs/storage.md. STORE_FORMAT changes only when a broker that
 * does not know the new layout must refuse the store. */
#ifndef STORAGE_RECORD_H
#define STORAGE_RECORD_H

#include "base/arena.h"
#include "base/event.h"

#define STORE_FORMAT 1 /* of the whole store, in STORE_META under "format" */

/* Keys. out must have the named size; the slice returned points at it. */
#define KEY_U64_BYTES      8
#define KEY_SUB_BYTES      4
#define KEY_POSITION_BYTES 8  /* subscription, cursor */
#define KEY_RETRY_BYTES    16 /* subscription, cursor, seq */
#define KEY_DEAD_BYTES     16 /* subscription, seq, cursor */
#define KEY_DUE_BYTES      24 /* subscription, due wall ms, seq, cursor */
struct slice key_u64(uint8_t out[KEY_U64_BYTES], uint64_t n);
struct slice key_u32(uint8_t out[KEY_SUB_BYTES], uint32_t n);
struct slice key_position(uint8_t out[KEY_POSITION_BYTES], uint32_t sub, uint32_t cursor);
struct slice key_retry(uint8_t out[KEY_RETRY_BYTES], uint32_t sub, uint32_t cursor, uint64_t seq);
struct slice key_dead(uint8_t out[KEY_DEAD_BYTES], uint32_t sub, uint64_t seq, uint32_t cursor);
struct slice key_due(uint8_t out[KEY_DUE_BYTES], uint32_t sub, uint64_t due_wall_ms, uint64_t seq,
                     uint32_t cursor);
/* The number at byte offset `at` of a key that has it (CHECKed: keys are ours). */
uint64_t key_read_u64(struct slice key, size_t at);
uint32_t key_read_u32(struct slice key, size_t at);

/* STORE_JOURNAL. The key is the seq; the value repeats it, so that a page in the wrong place is
 * noticed: decoding refuses a record that is not of this seq. `stored` (may be NULL) becomes the
 * same event with slices that point into the encoded value. Version 2 added deliver_at_ms and
 * offset, version 3 the seq and endpoints: what older ones wrote has 0 and none. */
struct slice record_event_encode(struct arena *a, const struct event *e, struct event *stored);
bool record_event_decode(uint64_t seq, struct slice value, struct event *out);

/* STORE_META and single numbers elsewhere. */
struct slice record_u64_encode(struct arena *a, uint64_t n);
bool record_u64_decode(struct slice value, uint64_t *out);

/* STORE_CONFIG: the bytes that a room keeps, as they are. */
struct slice record_config_encode(struct arena *a, struct slice bytes);
bool record_config_decode(struct slice value, struct slice *bytes);

/* STORE_IDS: the fingerprints of the ids of `count` events with consecutive seqs; 0: no id. */
struct record_ids {
    uint64_t received_at_ms;
    uint32_t count;
    const uint8_t *fingerprints; /* count x u64, read with record_ids_at */
};
struct slice record_ids_encode(struct arena *a, uint64_t received_at_ms,
                               const uint64_t *fingerprints, uint32_t count);
bool record_ids_decode(struct slice value, struct record_ids *out);
uint64_t record_ids_at(const struct record_ids *ids, uint32_t i);

/* STORE_SUBSCRIPTIONS. Texts are kept as given. Version 1 had lists of types and sources, which
 * are decoded as the filter text they mean (made in the arena), and none of the fields from
 * max_hold_ms on but max_fails and backoff: those are decoded as 0. Version 3 added aged_from_ms.
 */
struct record_subscription {
    uint32_t project;
    struct slice name;
    uint64_t created_at_ms;
    struct slice filter; /* JSON text; empty: every event */
    uint64_t lease_ms;
    uint64_t max_hold_ms;  /* 0: an old record, the default counts */
    uint64_t max_age_ms;   /* 0: no limit */
    uint64_t aged_from_ms; /* nothing is older than from then: the last resume; 0: never resumed */
    uint32_t max_fails;    /* 0: never a dead letter by count */
    uint64_t backoff_min_ms, backoff_max_ms;
    uint32_t backoff_factor_permille; /* 2000: doubles */
    uint32_t backoff_jitter_permille;
    uint32_t backoff_list_count;     /* at most LIMIT_BACKOFF_STEPS */
    const uint64_t *backoff_list_ms; /* decode: in the arena */
    uint32_t rate_per_s;
    struct slice order_key;
    uint8_t flags; /* RECORD_SUBSCRIPTION_... */
};
#define RECORD_SUBSCRIPTION_PAUSED  1u
#define RECORD_SUBSCRIPTION_ORDERED 2u
#define RECORD_SUBSCRIPTION_EXPIRE  4u /* retention does not wait for it */
struct slice record_subscription_encode(struct arena *a, const struct record_subscription *r);
/* Slices point into the value or the arena. */
bool record_subscription_decode(struct arena *a, struct slice value,
                                struct record_subscription *out);

/* STORE_POSITIONS: everything below `next` is settled but the outstanding seqs, which rise
 * strictly and are below `next`. They are stored as gaps, one or two bytes each. */
struct record_position {
    uint64_t next;
    uint64_t acked_total, dead_total;
    /* Of a subscription's live cursor; 0 in version 1: rows of STORE_DUE, rows of STORE_DEAD
     * (version 1: dead_total), matching events that retention took away. Of a replay's: events
     * fed (matched) and expired. */
    uint64_t due_count, dead_count, expired_total, matched;
    uint32_t outstanding_count;
    struct slice outstanding; /* decode: read with record_position_next */
    uint64_t taken;           /* decode: what record_position_next gave last; 0 at first */
};
/* `seqs` yields the outstanding seqs in rising order: called outstanding_count times. */
typedef uint64_t record_seq_fn(void *ctx);
struct slice record_position_encode(struct arena *a, const struct record_position *r,
                                    record_seq_fn *seqs, void *ctx);
bool record_position_decode(struct slice value, struct record_position *out);
/* Takes the next outstanding seq off r; false when there is none left. */
bool record_position_next(struct record_position *r, uint64_t *seq);

/* What a worker said about a failure. Each part may be empty; the limits are those of limits.h. */
struct record_failure {
    struct slice type, message, detail;
};

/* STORE_RETRIES: what must outlive a restart of an event that failed. Version 1 had one error text,
 * which is decoded as the message; the same goes for STORE_DEAD. */
struct record_retry {
    uint32_t fails, deliveries;
    uint64_t due_wall_ms;          /* not before; 0: at once */
    struct record_failure failure; /* the last one */
};
struct slice record_retry_encode(struct arena *a, const struct record_retry *r);
bool record_retry_decode(struct slice value, struct record_retry *out);

/* STORE_DEAD: a copy of the event, so that the journal is not held by it. Before version 3 there
 * were no endpoints, and "expired" was "max_age", as what it is decoded: "expired". */
struct record_dead {
    uint64_t died_at_ms;
    uint32_t fails, deliveries;
    struct slice reason;           /* "max_fails", "expired" or "rejected" */
    struct record_failure failure; /* the last one */
    struct event event;            /* seq included */
};
struct slice record_dead_encode(struct arena *a, const struct record_dead *r);
bool record_dead_decode(struct slice value, struct record_dead *out);

/* STORE_DUE: an event that waits for its time on disk: published with deliver_at, failed with a
 * long backoff, or redriven. It holds a copy of the event, so that the journal is not held by it.
 * The key has the subscription, the due time, the seq and the cursor it came from. Version 2 added
 * the event's endpoints. */
struct record_due {
    uint32_t fails, deliveries;
    uint8_t flags; /* RECORD_DUE_... */
    struct record_failure failure;
    struct event event; /* seq included */
};
#define RECORD_DUE_REDRIVE 1u
struct slice record_due_encode(struct arena *a, const struct record_due *r);
bool record_due_decode(struct slice value, struct record_due *out);

/* STORE_TASKS: a bounded job of an operator over [from, to] of the journal, or over the dead
 * letters of a subscription. Version 1 had replays only; version 3 added the project, which was the
 * default one before. */
struct record_task {
    uint32_t project;
    uint8_t kind;  /* enum task_kind of the engine; version 1: 0 */
    uint8_t flags; /* RECORD_TASK_CANCELLED */
    uint32_t subscription;
    uint64_t created_at_ms, finished_at_ms; /* finished 0: running */
    uint64_t from, to;
    uint64_t next; /* how far COUNT, REDRIVE and PURGE are; a replay's is in its position */
    uint64_t matched, acked_total, expired; /* a replay's when it is finished, the others' always */
    uint32_t rate_per_s;
    struct slice filter; /* JSON text; empty: every event */
};
#define RECORD_TASK_CANCELLED 1u
struct slice record_task_encode(struct arena *a, const struct record_task *r);
bool record_task_decode(struct slice value, struct record_task *out);

/* STORE_JOBS: a job that a client has registered. The key is a number of its own. Version 2 added
 * the project, which was the default one before. */
struct record_job {
    uint32_t project;
    struct slice id, endpoints, metadata;             /* as in struct event; the id is a subject */
    uint64_t created_at_ms, updated_at_ms, due_at_ms; /* first put, last put, end of its TTL */
    uint64_t ended_at_ms;                             /* final or overdue since; 0: it is neither */
    uint64_t events_total;
    uint8_t flags;         /* RECORD_JOB_... */
    uint32_t count;        /* at most LIMIT_JOB_EVENTS */
    const uint64_t *seqs;  /* of its last events, rising strictly */
    const uint8_t *states; /* enum job_state of the engine that each of them makes */
};
#define RECORD_JOB_OVERDUE 1u
struct slice record_job_encode(struct arena *a, const struct record_job *r);
/* seqs and states are in the arena. */
bool record_job_decode(struct arena *a, struct slice value, struct record_job *out);

#endif
