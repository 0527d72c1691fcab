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
#include "base/rate.h"
#include "broker/engine/dedupe.h"
#include "broker/engine/delivery.h"
#include "broker/engine/engine.h"
#include "broker/engine/filter.h"
#include "broker/engine/job.h"
#include "storage/record.h"

#define CURSOR_LIVE 0u
#define CURSOR_DUE  UINT32_MAX
#define TASKS_KEPT  1000 /* finished ones that are remembered */
/* A live cursor that moved this far without a settlement is written anyway, looked at this often:
 * a restart then reads at most so much again for a subscription that matches little. */
#define POSITION_LAG_EVENTS 10000
#define POSITION_LAG_MS     5000
#define IDS_TRIM_ROWS       64 /* rows of the id log removed per turn */
/* So many bytes of an event that is looked at cost as much as one more small event. */
#define SCAN_UNIT_BYTES (8 * KIB)
/* A delay from here on waits on disk, a shorter one in memory. */
#define PARK_MS 60000

/* A rate of subscriptions and replays: spread evenly, with so much tolerance. */
#define RATE_BURST_MS 50

/* Events per second over the last METER_MS or so: two windows, the older one weighted by what of it
 * is still within reach. */
struct meter {
    uint64_t window; /* number of the current window since time 0 */
    uint32_t current, previous;
};
#define METER_MS 10000
void meter_add(struct meter *m, uint64_t now_ms);
double meter_per_s(const struct meter *m, uint64_t now_ms);

/* A reader of the journal: the live one of a subscription, or a replay's; and the due one, which
 * reads the rows that wait on disk. */
struct cursor {
    uint32_t id;              /* CURSOR_LIVE, CURSOR_DUE or the task's id */
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
};

/* A tenant, as far as the engine knows one: made when it is first spoken for, and kept. */
struct project {
    uint32_t id;
    struct filter_index *index; /* of its subscriptions' filters */
    struct engine_totals totals;
    uint32_t subs_count, jobs_count;
};
/* Counts n of what for the project and, so that nobody has to add them up, for all. */
#define TOTALS_ADD(e, project, what, n) ((e)->totals.what += (n), (project)->totals.what += (n))

/* An operator's job. A replay's cursor is one of its subscription's readers; the others only use
 * its `next`. */
struct task {
    uint32_t id;
    struct project *project; /* also when its subscription was deleted */
    enum task_kind kind;
    struct cursor cursor;     /* cursor.sub is the task's subscription */
    struct filter *filter;    /* never NULL while it runs */
    struct slice filter_text; /* owned */
    struct rate rate;
    uint64_t from, to, created_at_ms, finished_at_ms; /* finished 0: running */
    bool cancelled;
    uint64_t matched, expired;
    uint32_t place_cursor;  /* REDRIVE, PURGE: with cursor.next the place in STORE_DEAD */
    struct list in_running; /* engine.tasks_running: COUNT, REDRIVE, PURGE */
    struct deadline timer;
};

struct subscription {
    uint32_t id;
    struct project *project;
    char name[LIMIT_NAME_BYTES + 1];
    uint64_t created_at_ms;
    uint64_t aged_from_ms; /* wall: its last resume that made what waited young again; 0: none */
    struct policy policy;  /* its slices and lists are in policy_memory */
    void *policy_memory;
    struct filter *filter; /* policy.filter, compiled */
    struct cursor live, due;
    struct list replays;     /* cursors of running ones */
    struct list ready;       /* deliveries, first to be handed out first */
    struct list attachments; /* all */
    struct list available;   /* those that can take an event now, next one first */
    struct list in_runnable; /* in engine.runnable */
    bool runnable;
    bool paused;
    bool alone;       /* an attachment said so: nobody comes back from before the restart */
    bool ready_next;  /* whose turn it is when both fresh and ready events wait */
    bool due_turn;    /* likewise between the ready list and what is due on disk */
    bool replay_next; /* likewise between the live cursor and a replay */
    bool scanning;    /* its last slice of journal ended without finding a match */
    uint32_t ready_count, leased_count, delayed_count, blocked_count;
    uint32_t recovered_outstanding; /* what a restart found (E9) */
    uint32_t attachments_count, replays_count;
    uint64_t dead_total, dead_count, expired_total;
    struct map keys; /* ordered: hash of a key -> struct order_key */
    struct rate rate;
    struct deadline timer;
    struct meter in, out;
    uint64_t dead_turn; /* turn that last removed rows of its dead letters */
    /* What waits on disk (due.c). */
    uint64_t due_count;             /* rows of STORE_DUE, those that are handed out included */
    uint64_t due_next_wall_ms;      /* lowest due time of a durable row that is not handed out */
    uint64_t due_undurable_wall_ms; /* lowest one of those that are not durable yet */
    uint64_t due_turn_number;       /* turn of the latest of these */
    uint64_t due_place_wall_ms;     /* place of the row that was read last */
    uint64_t due_place_seq;
    uint32_t due_place_cursor;
    struct map due_taken; /* hash of a row's key -> its delivery */
    struct list in_due_waiting;
};

struct attachment {
    uint64_t id;
    struct route route;
    struct subscription *sub;
    uint64_t window_events, window_bytes;
    uint32_t concurrency;
    uint64_t lease_ms; /* 0: the policy's */
    uint64_t session;
    uint64_t slot;
    bool held;
    bool kept; /* its connection is gone, its leases stay until the timer fires */
    uint64_t next_tag;
    struct list leases; /* by rising tag: every unsettled hand-out, expired ones too */
    struct map by_tag;
    uint32_t unsettled_count, again_count;
    uint64_t unsettled_bytes;
    struct list in_sub;
    struct list in_available;
    struct deadline timer;
};

/* Events that a turn brings, readable before they are durable. */
struct turn_events {
    uint64_t first_seq;
    size_t count, cap;
    struct event *v; /* slices point into the turn's arena */
    uint64_t *fingerprints;
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
    uint64_t turn_number;   /* of the open turn, or of the next one that opens */
    uint64_t turns_durable; /* number of the newest durable turn */

    struct heap deadlines;  /* of struct deadline */
    struct map rows_by_key; /* rows that turns changed which are not durable (turn.c) */
    struct list rows;       /* the same, oldest change first */
    struct list dirty;      /* cursors whose position must be written */
    uint64_t flush_at_ms;   /* when at the latest; UINT64_MAX: nothing dirty */
    bool urgent;            /* some cursor of dirty is urgent */
    uint64_t lag_check_at_ms;
    uint64_t opened_wall_ms;
    uint64_t clock_offset_ms; /* of the wall clock from the monotonic one; wraps around */
    uint64_t grace_until_ms;  /* until then what was out before the restart waits for its workers */
    struct list runnable;     /* subscriptions that may hand something out */
    struct list due_waiting;  /* subscriptions with rows that are not durable yet */

    struct map projects; /* by id */
    struct engine_totals totals;
    struct subscription **subs; /* by project and name */
    size_t subs_count, subs_cap;
    struct map attachments; /* by id */
    struct task **tasks;    /* by rising id, running and finished */
    size_t tasks_count, tasks_cap, tasks_finished;
    struct list tasks_running; /* COUNT, REDRIVE and PURGE; a replay runs with its subscription */

    struct dedupe dedupe;
    uint64_t ids_trimmed_to; /* rows of the id log below this are gone or going */

    /* retention.c */
    struct retention retention;
    uint64_t trimmed_to;    /* events up to here are gone, but those that something outstanding
                               still needs */
    struct map stragglers;  /* a seq up to there that is still needed -> how many cursors have it
                               outstanding */
    uint64_t journal_start; /* offset of the first record above trimmed_to */
    uint64_t journal_end;   /* offset after the last record */
    uint64_t retention_at_ms;
    uint64_t dead_place_at_ms;             /* when the next slice of dead letters is looked at */
    uint8_t dead_place[KEY_DEAD_BYTES];    /* where it begins */
    char blocked_by[LIMIT_NAME_BYTES + 1]; /* a subscription; empty: none */
    uint32_t blocked_by_project;

    struct job_table jobs;

    /* sweep.c: deleted subscriptions whose rows are not gone, oldest first. */
    uint32_t *swept;
    size_t swept_count, swept_cap;
    uint64_t sweep_turn; /* that last removed rows, or added one */

    uint64_t trimmed_total;
};

/* ---- turn.c ---- */
struct engine_turn *turn_open(struct engine *e); /* the open turn, begun if need be */
void turn_free(struct engine_turn *t);           /* harmless on NULL */
struct effect *turn_effect(struct engine *e, enum effect_kind kind, struct route route);
struct arena *turn_arena(struct engine *e);
struct batch *turn_batch(struct engine *e);
/* A text in the turn's arena, for effect messages. */
const char *turn_text(struct engine *e, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* What stands under a key of the store, whole and in its place; else the process stops with the
 * reason. A dead letter or a delayed event is of its subscription's project (`s` NULL: of a deleted
 * one, any), an event of some. */
void event_decode(uint64_t seq, struct slice value, struct event *out);
void dead_decode(const struct subscription *s, struct slice key, struct slice value,
                 struct record_dead *out);
void due_decode(const struct subscription *s, uint64_t seq, struct slice value,
                struct record_due *out);
/* Any event up to last_seq, durable or not. The slices live until store_end_reads or, for one that
 * is not durable, as long as its turn. `own` (may be NULL) tells whether it is the open turn's. */
bool event_read(struct engine *e, uint64_t seq, struct event *out, bool *own);
/* The events of the open or a pending turn, if seq is not durable. */
const struct event *event_undurable(const struct engine *e, uint64_t seq, bool *own);
/* Notes that a row is written or removed in the open turn, until that is durable. */
void row_changed(struct engine *e, enum store_table table, struct slice key, bool there);
/* Whether there is such a row, by the store and what was noted since. */
bool row_there(struct engine *e, enum store_table table, struct slice key);
/* Such a row was written or removed by a turn that is not durable: the store shows what was before
 * that, or nothing. */
bool row_changing(const struct engine *e, enum store_table table, struct slice key);
/* Forgets what was noted of durable turns; `all`: of every turn. */
void rows_settled(struct engine *e, bool all);
/* The store holds something that cannot be: stops the process with the reason. */
_Noreturn void store_damaged(const char *what, uint64_t n);

/* ---- policy.c ---- */
/* Copies a checked policy into s: slices and lists into memory of its own, the filter compiled. */
void policy_set(struct subscription *s, const struct policy *policy);
void policy_drop(struct subscription *s);
bool policy_equal(const struct subscription *s, const struct policy *policy);

/* ---- project.c ---- */
/* Makes it when it is not known yet. */
struct project *project_get(struct engine *e, uint32_t id);
/* NULL: nobody has spoken for it. */
struct project *project_find(const struct engine *e, uint32_t id);
void projects_drop(struct engine *e);

/* ---- subscription.c ---- */
struct subscription *subscription_find(const struct engine *e, uint32_t project, struct slice name);
/* The place in engine.subs of the project's first whose name is above `name`, or of what comes
 * after its last. */
size_t subscription_above(const struct engine *e, uint32_t project, struct slice name);
/* It is of its project, and its filter wants it. */
bool subscription_wants(const struct subscription *s, struct filter_subject *subject);
/* Adds it to the engine's tables; policy is copied. Writes nothing. */
struct subscription *subscription_add(struct engine *e, uint32_t id, uint32_t project,
                                      struct slice name, const struct policy *policy,
                                      uint64_t created_at_ms);
/* What ATTACH and CREATE ask for. */
struct wanted_subscription {
    uint32_t project;
    struct slice name;
    const struct policy *create; /* NULL: it must be there */
    enum start_kind start;
    uint64_t start_value;
    bool unbounded; /* there may be one too many */
};
/* Finds it or makes it. */
enum err subscription_ensure(struct engine *e, const struct wanted_subscription *wanted,
                             struct subscription **out, bool *created, const char **message);
void subscription_create(struct engine *e, const struct command *c);
void subscription_update(struct engine *e, const struct command *c);
void subscription_pause(struct engine *e, const struct command *c);
void subscription_seek(struct engine *e, const struct command *c);
void subscription_delete(struct engine *e, const struct command *c);
void subscription_free(struct engine *e, struct subscription *s);
/* Makes every subscription that is at the tail and wants the event read on from it. */
void subscriptions_offer(struct engine *e, const struct project *project,
                         const struct event *event);
/* Puts it into the runnable list: call whenever it may have become able to hand out. */
void subscription_wake(struct engine *e, struct subscription *s);
/* Sets its timer to the next time at which it could hand out without anything happening. */
void subscription_arm(struct engine *e, struct subscription *s);
uint32_t subscription_outstanding(const struct subscription *s);
const char *no_such_subscription(struct engine *e, struct slice name);

/* ---- order.c ---- */
/* Enters an ordered subscription's delivery into its key's queue. True: the key is free, it may go
 * at once (or it has no key). */
bool order_enter(struct engine *e, struct delivery *d, const struct event *event);
/* Takes it out; the next one of its key becomes READY, or DELAYED until its time. */
void order_leave(struct engine *e, struct delivery *d);
/* It has its key. */
bool order_first(const struct delivery *d);

/* ---- due.c ---- */
/* Writes the event into STORE_DUE for the subscription and counts it. `cursor` is where it was
 * read first. */
void due_write(struct engine *e, struct subscription *s, uint64_t due_wall_ms, uint32_t cursor,
               const struct record_due *row);
/* Moves a delivery to disk until its time; it is freed. */
void due_park(struct engine *e, struct delivery *d, uint64_t due_wall_ms,
              const struct failure *failure);
/* Rewrites the row of a delivery that failed and is READY again at once. */
void due_rewrite(struct engine *e, struct delivery *d, const struct failure *failure);
/* Deletes the row of a delivery that is settled. */
void due_delete(struct engine *e, struct delivery *d);
/* A durable row is due and may be read. */
bool due_waits(const struct engine *e, const struct subscription *s);
/* When the next one may be read, monotonic ms, now or later; UINT64_MAX: there is none. What was
 * due when the broker started may be out: it waits for its worker for the grace period, unless its
 * subscription has one that is alone there. */
uint64_t due_next_ms(const struct engine *e, const struct subscription *s);
/* Reads on to the first row that is due and not handed out: a NEW delivery of the due cursor, with
 * its event. NULL: there was none. */
struct delivery *due_take(struct engine *e, struct subscription *s, struct event *event);
/* The row at which the walk is, as a NEW delivery with its event; NULL: it is handed out, or
 * changing. */
struct delivery *due_take_row(struct engine *e, struct subscription *s, const struct store_iter *it,
                              struct event *event);
/* The delivery of a row is about to be freed. */
void due_untake(struct subscription *s, const struct delivery *d);
/* Rows of turns that became durable can be read. */
void due_durable(struct engine *e);
/* After a restart: where the rows begin. */
void due_recover(struct engine *e, struct subscription *s);
struct slice due_key(uint8_t out[KEY_DUE_BYTES], const struct delivery *d);

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

/* ---- task.c ---- */
void task_create(struct engine *e, const struct command *c);
void task_cancel(struct engine *e, const struct command *c);
struct task *task_of(struct cursor *c); /* of a replay's cursor */
/* Ends a replay when it has read its range and nothing is outstanding. */
void replay_check_finished(struct engine *e, struct cursor *c);
/* Ends a task of any kind; a replay's outstanding deliveries are forgotten. */
void task_finish(struct engine *e, struct task *t);
MUST_CHECK bool task_recover(struct engine *e, struct subscription *s, uint32_t id,
                             const struct record_task *r);
void task_free(struct task *t);
/* Removes a dead letter and counts. Not while dead_turn is a turn that is not durable: a row whose
 * removal is under way can still be seen. */
void dead_remove(struct engine *e, struct subscription *s, struct slice key);
/* The subscription is going: ends what runs on it. */
void tasks_end(struct engine *e, const struct subscription *s);
/* Runs a slice of COUNT, REDRIVE and PURGE. */
void tasks_run(struct engine *e);
/* One of them can go on at once. */
bool tasks_want_turn(const struct engine *e);

/* ---- retention.c ---- */
void retention_run(struct engine *e);
/* When it wants a turn, monotonic ms. */
uint64_t retention_next_ms(const struct engine *e);
/* A cursor has the event outstanding: recovery says so for each, the trim finds out by itself. */
void retention_hold(struct engine *e, uint64_t seq);
/* The event is no longer outstanding somewhere: if retention has passed it, its record goes as
 * soon as nobody has it. */
void retention_release(struct engine *e, uint64_t seq);
/* The range that can still be read, for messages and bounds. */
uint64_t oldest_seq(const struct engine *e);

/* ---- publish.c ---- */
void publish(struct engine *e, const struct command *c);
/* Journals an event of the broker's own, when there is room for it; returns its seq. */
uint64_t publish_own(struct engine *e, const struct event *event);
/* Writes the id log of the open turn and trims old rows. */
void publish_end_turn(struct engine *e);
uint64_t seq_at_time(struct engine *e, uint64_t wall_ms);

/* ---- attachment.c ---- */
void attachment_attach(struct engine *e, const struct command *c);
void attachment_window(struct engine *e, const struct command *c);
void attachment_hold(struct engine *e, const struct command *c);
void attachment_detach(struct engine *e, const struct command *c);
/* Gives back what it holds and frees it. */
void attachment_end(struct engine *e, struct attachment *a, enum detach_kind how);
/* Forgets it and what it holds; deliveries must have been dealt with. */
void attachment_free(struct engine *e, struct attachment *a);
/* Brings its place in the available list to what its window says. */
void attachment_refresh(struct engine *e, struct attachment *a);
bool attachment_can_take(const struct attachment *a);
uint64_t attachment_lease_ms(const struct attachment *a);

/* ---- lease.c ---- */
/* A new lease under this tag. The delivery becomes LEASED. `again`: it was not fresh. */
struct lease *lease_new(struct engine *e, struct attachment *a, struct delivery *d, uint64_t tag,
                        size_t bytes, uint64_t since_ms, bool again);
void lease_free(struct engine *e, struct lease *l);
/* Whether it counts as started: one of the oldest `concurrency` unsettled ones. */
bool lease_started(const struct lease *l);
void attachment_settle(struct engine *e, const struct command *c);

/* ---- claim.c ---- */
/* Gives a new attachment what its worker still holds, ends the old session's attachments on the
 * same subscription, and says for each claim that it was not granted. Returns how many were. */
uint32_t claims_take(struct engine *e, struct attachment *a, const struct command *c);
void claims_refuse(struct engine *e, const struct attachment *a, const struct command *c);

/* ---- pump.c ---- */
/* Hands out what can be handed out, within the turn's budget. */
void pump(struct engine *e);
/* Something more could be read for this subscription (not only looked for). */
bool subscription_has_fresh(const struct engine *e, const struct subscription *s);
/* It has something to hand out and nothing but a worker's window could prevent it. */
bool subscription_has_work(const struct engine *e, const struct subscription *s);
/* Takes an event that was looked at off a budget of journal positions. It was read whole, for its
 * checksum: a large one counts as many. */
void scan_take(uint32_t *scan, const struct event *event);
/* Reads past events that do not match, without handing out; takes what it looked at off *scan. */
void cursor_skip(struct engine *e, struct cursor *c, uint32_t *scan);

/* ---- sweep.c ---- */
/* The subscription is deleted: its rows go in slices, also over a restart. */
void sweep_add(struct engine *e, uint32_t subscription);
/* What a restart finds of that. */
MUST_CHECK bool sweep_recover(struct engine *e);
bool sweep_has(const struct engine *e, uint32_t subscription);
/* Removes a slice. */
void sweep_run(struct engine *e);
bool sweep_wants_turn(const struct engine *e);

/* ---- recover.c ---- */
MUST_CHECK int recover(struct engine *e, char *error, size_t error_size);

#endif
