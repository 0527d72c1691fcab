/* random_oracle.h: what must be true of an engine whatever it was told, for test_engine_random.
 *
 * The oracle knows what was published, what each subscription was told, and what was answered. It
 * changes what it knows when the answer is released, never when the command is given: then it sees
 * everything in the engine's own order, and what a crash takes away was never believed.
 *
 * An event reaches a subscription in copies: one by the live cursor (each seek back makes another),
 * one by each replay. [LIVE] and [REPLAY] below keep the two apart, as the replay flag does. A copy
 * may be handed out many times until its ack is confirmed.
 *
 * It looks into the engine (state.h) where nothing else can tell: positions, rows and leases. */
#ifndef TESTS_RANDOM_ORACLE_H
#define TESTS_RANDOM_ORACLE_H

#include "broker/engine/state.h"
#include "tests/unit/engine_world.h"

#define SUBS        4
#define EVENTS_MAX  4096
#define WORKERS_MAX 1024
#define ASKED_MAX   4096
#define REPLAYS_MAX 256
#define IDS         200
#define FILTERS     8
#define KEYS        4
#define BATCH_MAX   3 /* events of one PUBLISH */

enum copy { LIVE, REPLAY };

/* An event as it was published. */
struct fact {
    uint8_t type, subject, group, n;
    int id;        /* of IDS; -1: none */
    uint32_t mark; /* its body begins with it: no two are the same */
    uint64_t deliver_at_ms, published_ms;
};

/* One event on one subscription. */
struct knowledge {
    uint16_t copies[2], confirmed[2];
    bool delivered[2];
    bool acked[2]; /* a worker that held it acked it, confirmed or not */
    bool dead[2];  /* it is a dead letter */
    bool died[2];  /* it was one at some time */
    bool excused;  /* nobody owes it: sought past, purged, or from before the subscription */
};

enum order { ORDER_NONE, ORDER_SUBJECT, ORDER_METADATA };

struct sub {
    bool exists, paused;
    uint32_t id;
    uint32_t filters_used; /* bits: the filters it has had */
    bool lag_expire_used;
    enum order order;
    bool order_changed;
    bool inexact; /* expired_total is only a bound: what expired may have gone elsewhere */
    uint64_t highest[KEYS], confirmed_highest[KEYS]; /* seq by order key */
    /* For its rate: hand-outs since a moment. */
    uint32_t rate_per_s, rate_id;
    uint64_t rate_since_ms, rate_count;
    struct knowledge events[EVENTS_MAX];
};

enum worker_state {
    WORKER_NONE,
    WORKER_COMING, /* it has made claims and does not know yet what was granted */
    WORKER_ACTIVE,
    WORKER_KEPT,   /* its connection is gone */
    WORKER_ORPHAN, /* the broker crashed */
    WORKER_GONE,
};

enum held {
    HELD_NOT,
    HELD,
    HELD_LOST,    /* revoked; a late ack may still be honoured */
    HELD_REFUSED, /* a claim that was not granted, perhaps made up: the tag means nothing */
};

struct hand_out {
    uint64_t seq;
    bool replay;
    enum held held; /* as the worker sees it */
};

/* An attachment; its id is its place in the table, and stands for its connection. */
struct worker {
    enum worker_state state;
    int sub;
    uint64_t session;
    uint64_t next_tag;
    size_t cap;
    struct hand_out *tags; /* by tag */
};

/* A command that waits for its answer. */
struct asked {
    bool waits;
    enum command_kind kind;
    int sub;
    struct fact facts[BATCH_MAX]; /* PUBLISH */
    size_t count;
    uint64_t seq; /* CREATE, SEEK: where the cursor is after it */
    uint32_t id;  /* CREATE: the subscription's */
    int filter;   /* CREATE, UPDATE, TASK_CREATE */
    bool expire;  /* CREATE, UPDATE */
    enum order order;
    bool flag; /* PAUSE: paused */
    enum task_kind task;
    uint32_t granted; /* ATTACH */
};

struct replay_asked {
    uint32_t id;
    int sub, filter;
};

struct oracle {
    struct world w;
    uint64_t last_seq;     /* answered */
    uint64_t wall_reached; /* the latest time that any clock of the engine's can have come to */
    struct fact facts[EVENTS_MAX];
    uint64_t seq_of_id[IDS];
    bool trims; /* retention was on: the journal forgets ids */
    bool crashed;
    struct sub subs[SUBS];
    struct worker workers[WORKERS_MAX]; /* from 1 */
    uint64_t last_worker;
    struct asked asked[ASKED_MAX]; /* by rid */
    uint32_t last_rid;
    struct replay_asked replays[REPLAYS_MAX];
    size_t replays_count;
    uint64_t deliveries, crashes, confirmed_total, resumed, refused; /* for the summary */
};

extern const char *const fact_types[3], *const fact_subjects[KEYS], *const fact_groups[KEYS];
extern const char *const fact_filters[FILTERS];
extern const char *const sub_names[SUBS];

/* A new engine on a new disk; options in o->w are kept. */
void oracle_open(struct oracle *o);
void oracle_close(struct oracle *o);
/* The command's rid, under which `asked` is remembered until it is answered. */
struct asked *oracle_ask(struct oracle *o, struct command *c, int sub);
/* Lets time pass; the wall clock also jumps by step_ms. */
void oracle_time(struct oracle *o, uint64_t ms, int64_t step_ms);
/* One turn with every check that holds at any time. The disk holds it back in manual mode. */
void oracle_turn(struct oracle *o);
/* Everything is durable and nothing open: counts are held against the store's rows. */
void oracle_check_rows(struct oracle *o);
/* Power loss and restart: workers are orphans, what was not answered did not happen. */
void oracle_crash(struct oracle *o);
/* Steps an ATTACH with claims and checks what was granted. */
void oracle_attach(struct oracle *o, struct command *c, struct asked *a);
/* Nothing is outstanding any more: each event must be accounted for. */
void oracle_check_end(struct oracle *o);
struct worker *oracle_worker(struct oracle *o, uint64_t id);
bool fact_matches(const struct fact *f, int filter);

#endif
