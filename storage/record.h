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
struct slice key_u64(uint8_t out[KEY_U64_BYTES], uint64_t n);
struct slice key_u32(uint8_t out[KEY_SUB_BYTES], uint32_t n);
struct slice key_position(uint8_t out[KEY_POSITION_BYTES], uint32_t sub, uint32_t cursor);
struct slice key_retry(uint8_t out[KEY_RETRY_BYTES], uint32_t sub, uint32_t cursor, uint64_t seq);
struct slice key_dead(uint8_t out[KEY_DEAD_BYTES], uint32_t sub, uint64_t seq, uint32_t cursor);
/* The number at byte offset `at` of a key that has it (CHECKed: keys are ours). */
uint64_t key_read_u64(struct slice key, size_t at);
uint32_t key_read_u32(struct slice key, size_t at);

/* STORE_JOURNAL. The key is the seq, which the value does not repeat. `stored` (may be NULL)
 * becomes the same event with slices that point into the encoded value. */
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

/* STORE_SUBSCRIPTIONS. Patterns are kept as given; absent lists have count 0. */
struct record_subscription {
    uint32_t project;
    struct slice name;
    uint64_t created_at_ms;
    uint64_t lease_ms;
    uint32_t max_fails; /* 0: never a dead letter by count */
    uint64_t backoff_min_ms, backoff_max_ms;
    uint32_t backoff_factor_permille; /* 2000: doubles */
    uint32_t types_count, sources_count;
    const struct slice *types, *sources; /* decode: arrays in the arena */
};
struct slice record_subscription_encode(struct arena *a, const struct record_subscription *r);
/* Arrays of slices are made in the arena; the slices point into the value. */
bool record_subscription_decode(struct arena *a, struct slice value,
                                struct record_subscription *out);

/* STORE_POSITIONS: everything below `next` is settled but the outstanding seqs, which rise
 * strictly and are below `next`. They are stored as gaps, one or two bytes each. */
struct record_position {
    uint64_t next;
    uint64_t acked_total, dead_total;
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

/* STORE_RETRIES: what must outlive a restart of an event that failed. */
struct record_retry {
    uint32_t fails, deliveries;
    uint64_t due_wall_ms; /* not before; 0: at once */
    struct slice error;   /* last error text */
};
struct slice record_retry_encode(struct arena *a, const struct record_retry *r);
bool record_retry_decode(struct slice value, struct record_retry *out);

/* STORE_DEAD: a copy of the event, so that the journal is not held by it. */
struct record_dead {
    uint64_t died_at_ms;
    uint32_t fails, deliveries;
    struct slice reason; /* "max_fails" or "rejected" */
    struct slice error;  /* last error text */
    struct event event;  /* seq included */
};
struct slice record_dead_encode(struct arena *a, const struct record_dead *r);
bool record_dead_decode(struct slice value, struct record_dead *out);

/* STORE_REPLAYS: a bounded job over [from, to]. Its progress is its cursor's position. */
struct record_replay {
    uint32_t subscription;
    uint64_t created_at_ms, finished_at_ms; /* finished 0: running */
    uint64_t from, to;
    uint64_t delivered_total; /* acked, kept when it is finished and its position is gone */
};
struct slice record_replay_encode(struct arena *a, const struct record_replay *r);
bool record_replay_decode(struct slice value, struct record_replay *out);

#endif
