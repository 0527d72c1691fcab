/* state.h: the engine's insides, for the files of engine/ only.
 *
 * Everything here is owned by the engine and dies with it or, for a subscription's parts, with the
 * subscription. The invariants are numbered in engine.h. */
#ifndef ENGINE_STATE_H
#define ENGINE_STATE_H

#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "base/prng.h"
#include "broker/engine/dedupe.h"
#include "broker/engine/delivery.h"
#include "broker/engine/engine.h"
#include "storage/record.h"

#define CURSOR_LIVE  0u
#define REPLAYS_KEPT 1000 /* finished ones that are remembered */
/* A live cursor that moved this far without a settlement is written anyway, looked at this often:
 * a restart then reads at most so much again for a subscription that matches little. */
#define POSITION_LAG_EVENTS 10000
#define POSITION_LAG_MS     5000
#define IDS_TRIM_ROWS       64 /* rows of the id log removed per turn */

/* A reader of the journal: the live one of a subscription, or a replay. */
struct cursor {
    uint32_t id;              /* CURSOR_LIVE, or the replay's id */
    struct subscription *sub; /* NULL: a finished replay whose subscription was deleted */
    bool at_tail;  /* live only: next is last_seq + 1, whatever that grows to (cursor_next) */
    uint64_t next; /* journal position to read from, unless at_tail */
    uint64_t end;  /* last position of a replay; UINT64_MAX for the live one */
    uint64_t written_next;   /* next as the store has it */
    struct list outstanding; /* deliveries by rising seq */
    uint32_t outstanding_count;
    uint64_t acked_total;
    bool dirty;  /* in engine.dirty */
    bool urgent; /* must be in this turn's batch */
    struct list in_dirty;
    struct list in_sub; /* replays: in subscription.replays while running */
    /* Replays only. */
    uint64_t from, created_at_ms, finished_at_ms;
};

struct subscription {
    uint32_t id;
    char name[LIMIT_NAME_BYTES + 1];
    uint64_t created_at_ms;
    struct policy policy; /* its filter's arrays and bytes are in policy_memory */
    void *policy_memory;
    struct cursor live;
    struct list replays;     /* running ones */
    struct list ready;       /* deliveries, first to be handed out first */
    struct list attachments; /* all */
    struct list available;   /* those that can take an event now, next one first */
    struct list in_runnable; /* in engine.runnable */
    bool runnable;
    bool ready_next;  /* whose turn it is when both fresh and ready events wait */
    bool replay_next; /* likewise between the live cursor and a replay */
    bool scanning;    /* its last slice of journal ended without finding a match */
    uint32_t ready_count, leased_count, delayed_count;
    uint32_t attachments_count, replays_count;
    uint64_t dead_total;
};

struct attachment {
    uint64_t id;
    struct route route;
    struct subscription *sub;
    uint64_t window_events, window_bytes;
    uint32_t concurrency;
    bool held;
    uint64_t next_tag;
    struct list leases; /* by rising tag: every unsettled hand-out, expired ones too */
    struct map by_tag;
    uint32_t unsettled_count;
    uint64_t unsettled_bytes;
    struct list in_sub;
    struct list in_available;
};

/* Events that a turn brings, readable before they are durable. */
struct turn_events {
    uint64_t first_seq;
    size_t count, cap;
    struct event *v; /* slices point into the turn's arena */
    uint64_t *fingerprints;
};

/* Which subscriptions an event may concern: by the first segment of their type globs. */
struct index_bucket {
    struct subscription **subs;
    size_t count, cap;
};

struct engine {
    struct store *store;
    struct engine_options options;
    struct engine_time time; /* of the command or turn that is being worked on */
    struct prng prng;
    bool room;

    uint64_t last_seq;    /* given out */
    uint64_t durable_seq; /* readable from the store */
    uint64_t last_received_ms;
    uint32_t next_id; /* of subscriptions and replays */

    struct engine_turn *turn;                   /* open, or NULL */
    struct engine_turn *pending, *pending_last; /* given away, not durable, oldest first */
    struct engine_turn *spare;                  /* one done turn, to be used again */

    struct heap deadlines; /* timers of deliveries */
    struct list dirty;     /* cursors whose position must be written */
    uint64_t flush_at_ms;  /* when at the latest; UINT64_MAX: nothing dirty */
    bool urgent;           /* some cursor of dirty is urgent */
    uint64_t lag_check_at_ms;
    struct list runnable; /* subscriptions that may hand something out */

    struct subscription **subs; /* by name */
    size_t subs_count, subs_cap;
    struct map attachments;  /* by id */
    struct cursor **replays; /* by rising id, running and finished */
    size_t replays_count, replays_cap, replays_finished;
    struct map index;              /* hash of a first segment -> struct index_bucket */
    struct index_bucket index_any; /* globs without a literal first segment, and no filter */

    struct dedupe dedupe;
    uint64_t ids_trimmed_to; /* rows of the id log below this are gone or going */

    struct engine_stats totals; /* only the *_total fields */
};

/* ---- turn.c ---- */
struct engine_turn *turn_open(struct engine *e); /* the open turn, begun if need be */
void turn_free(struct engine_turn *t);           /* harmless on NULL */
struct effect *turn_effect(struct engine *e, enum effect_kind kind, struct route route);
struct arena *turn_arena(struct engine *e);
struct batch *turn_batch(struct engine *e);
/* A text in the turn's arena, for effect messages. */
const char *turn_text(struct engine *e, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Any event up to last_seq, durable or not. The slices live until store_end_reads or, for one that
 * is not durable, as long as its turn. `own` (may be NULL) tells whether it is the open turn's. */
bool event_read(struct engine *e, uint64_t seq, struct event *out, bool *own);
/* The events of the open or a pending turn, if seq is not durable. */
const struct event *event_undurable(const struct engine *e, uint64_t seq, bool *own);
/* The store holds something that cannot be: stops the process with the reason. */
_Noreturn void store_damaged(const char *what, uint64_t n);

/* ---- subscription.c ---- */
struct subscription *subscription_find(const struct engine *e, struct slice name);
/* The place in engine.subs of the first whose name is above `name`. */
size_t subscription_above(const struct engine *e, struct slice name);
/* Adds it to the engine's tables; policy is copied. Writes nothing. */
struct subscription *subscription_add(struct engine *e, uint32_t id, struct slice name,
                                      const struct policy *policy, uint64_t created_at_ms);
/* Finds it or makes it (create non-NULL) as ATTACH and CREATE ask. */
enum err subscription_ensure(struct engine *e, struct slice name, const struct policy *create,
                             enum start_kind start, uint64_t start_value, struct subscription **out,
                             bool *created, const char **message);
void subscription_create(struct engine *e, const struct command *c);
void subscription_delete(struct engine *e, const struct command *c);
void subscription_free(struct engine *e, struct subscription *s);
bool filter_match(const struct filter *f, const struct event *event);
/* Makes every subscription that is at the tail and wants the event read on from it. */
void subscriptions_offer(struct engine *e, const struct event *event);
/* Puts it into the runnable list: call whenever it may have become able to hand out. */
void subscription_wake(struct engine *e, struct subscription *s);

/* ---- cursor.c ---- */
void cursor_init(struct cursor *c, struct subscription *s, uint32_t id, uint64_t next,
                 uint64_t end);
uint64_t cursor_next(const struct engine *e, const struct cursor *c);
/* The lowest seq that is not settled: that of the first outstanding one, or next. */
uint64_t cursor_floor(const struct engine *e, const struct cursor *c);
void cursor_mark_dirty(struct engine *e, struct cursor *c, bool urgent);
void cursor_unmark(struct cursor *c);
/* Writes the positions that must be in this batch. */
void cursors_flush(struct engine *e);
/* Marks live cursors that ran far ahead of their written position. */
void cursors_check_lag(struct engine *e);

/* ---- replay.c ---- */
void replay_create(struct engine *e, const struct command *c);
/* Ends it when it has read its range and nothing is outstanding. */
void replay_check_finished(struct engine *e, struct cursor *c);
void replay_finish(struct engine *e, struct cursor *c);
struct cursor *replay_add(struct engine *e, struct subscription *s, uint32_t id,
                          const struct record_replay *r);

/* ---- publish.c ---- */
void publish(struct engine *e, const struct command *c);
/* Writes the id log of the open turn and trims old rows. */
void publish_end_turn(struct engine *e);
uint64_t seq_at_time(struct engine *e, uint64_t wall_ms);

/* ---- attachment.c ---- */
void attachment_attach(struct engine *e, const struct command *c);
void attachment_window(struct engine *e, const struct command *c);
void attachment_hold(struct engine *e, const struct command *c);
void attachment_detach(struct engine *e, const struct command *c);
void attachment_settle(struct engine *e, const struct command *c);
/* Forgets it and what it holds; deliveries must have been dealt with. */
void attachment_free(struct engine *e, struct attachment *a);
/* Brings its place in the available list to what its window says. */
void attachment_refresh(struct engine *e, struct attachment *a);
bool attachment_can_take(const struct attachment *a);
/* Whether the lease counts as started: one of the oldest `concurrency` unsettled ones. */
bool lease_started(const struct lease *l);
struct lease *lease_new(struct engine *e, struct attachment *a, struct delivery *d, size_t bytes);
void lease_free(struct engine *e, struct lease *l);

/* ---- pump.c ---- */
/* Hands out what can be handed out, within the turn's budget. */
void pump(struct engine *e);
/* Something more could be read for this subscription (not only looked for). */
bool subscription_has_fresh(const struct engine *e, const struct subscription *s);

/* ---- recover.c ---- */
MUST_CHECK int recover(struct engine *e, char *error, size_t error_size);

#endif
