/* oracle.h: what must be true of an engine whatever it was told, for the simulator.
 *
 * The oracle stands between the simulator and the engine: every command, turn and crash goes
 * through it. It has two books. What is *durable* (struct sub, struct knowledge) changes when a
 * batch is on the disk, in the engine's own order, whether or not anybody was told: what a crash
 * takes away was never believed, and what it leaves must be there. What is *issued* (struct issue,
 * struct hand_out) follows the open engine, turn by turn, and starts anew after a crash: windows,
 * who has what, fails. Beside these stands what the peers saw, which may be less than either.
 *
 * An event reaches a subscription in copies: one by the live cursor (each seek back makes another),
 * one by each replay. [LIVE] and [REPLAY] below keep the two apart, as the replay flag does. A copy
 * may be handed out many times until its ack is confirmed.
 *
 * Owned by a run (sim.h), one at a time; oracle_open makes the engine and its disk, oracle_close
 * frees them. It looks into the engine (state.h) where nothing else can tell: positions, rows and
 * leases. What does not hold is a CHECK. May call: the engine, the store, tests/unit/engine_world.
 *
 * oracle.c: what is durable, life and crashes. oracle_issue.c: what is issued. oracle_job.c: jobs.
 * oracle_check.c: counts against rows, claims, and the end. */
#ifndef TESTS_SIM_ORACLE_H
#define TESTS_SIM_ORACLE_H

#include "broker/engine/state.h"
#include "tests/unit/engine_world.h"

#define PROJECTS    3
#define SUBS        4
#define EVENTS_MAX  4096
#define WORKERS_MAX 1024
#define ASKED_MAX   4096
#define REPLAYS_MAX 256
#define LIMBO_MAX   16
#define IDS         200
#define FILTERS     10
#define KEYS        4
#define FACT_TYPES  6
#define JOBS_ROOM   5
#define JOB_CONFIGS 4 /* endpoints and metadata that a job is registered with */
#define BATCH_MAX   3 /* events of one PUBLISH */

enum copy { LIVE, REPLAY };

/* An event as it was published: fact_event makes it. */
struct fact {
    uint8_t project; /* its place in project_ids; the same wherever a project is named below */
    uint8_t type, subject, group, n, pad, endpoints;
    bool bare; /* brings no metadata: group and n are 0, or what its job lent */
    bool lent_metadata, lent_endpoints;
    int id;        /* of IDS; -1: none */
    uint32_t mark; /* its body begins with it: no two are the same, but a retry's */
    uint64_t deliver_at_ms, published_ms; /* by the wall clock, which may be set */
    uint64_t ttl_ms, registered_ms;       /* FACT_OVERDUE: of its job */
};
#define FACT_FAILED  3 /* of fact_types: makes its job final */
#define FACT_ACTION  4
#define FACT_OVERDUE 5 /* the engine's own */

/* What an event's slices point at. */
struct fact_texts {
    char id[16], metadata[64], body[256];
};

/* One event on one subscription. */
struct knowledge {
    uint16_t copies[2], confirmed[2];
    bool delivered[2]; /* it reached a worker */
    bool acked[2];     /* by someone who held it, confirmed or not */
    bool dead[2];      /* it is a dead letter */
    bool died[2];      /* it was one at some time */
    bool excused;      /* nobody owes it: sought past, purged, or from before the subscription */
};

enum order { ORDER_NONE, ORDER_SUBJECT, ORDER_METADATA };

struct sub {
    uint8_t project;
    bool exists, paused;
    bool blind; /* deleted while its creation was not durable: who acked what is not known */
    uint32_t id;
    uint32_t filters_used; /* bits: the filters it has had */
    bool lag_expire_used;
    uint32_t max_fails_least;  /* of the limits it has had; 0: it had none */
    uint64_t max_age_least_ms; /* likewise */
    uint64_t aged_from_ms;     /* the resume that made everything young again */
    uint64_t aged_before_ms;   /* the same before the last batch */
    enum order order;
    bool order_changed;
    bool inexact; /* expired_total is only a bound: what expired may have gone elsewhere */
    uint64_t highest[KEYS], confirmed_highest[KEYS]; /* seq by order key */
    struct knowledge events[EVENTS_MAX];
};

/* A copy of an event as it is handed out. */
struct issue {
    uint16_t fails_max;         /* hand-outs that can have ended as a fail */
    uint16_t fails_durable;     /* what a row says */
    uint16_t fails, deliveries; /* at its last hand-out */
    uint16_t life;              /* of that: nothing of it outlives a crash */
    uint16_t settled_life;      /* in which it was acked; 0: never */
    uint16_t settled_seeks;     /* how many seeks there were before that */
    uint16_t worker;            /* who got it last, */
    uint32_t tag;               /* as what */
};

/* What a subscription hands out; of one id, and gone with it. */
struct issues {
    uint32_t id;
    bool blind;       /* its deletion was undone by a crash: what it had failed is not known */
    uint32_t seeks;   /* that were asked for: several live copies, if any */
    uint32_t replays; /* that were asked for: several copies, if more than one */
    uint16_t key_worker[KEYS];
    uint32_t key_tag[KEYS]; /* who has the key */
    uint32_t rate_per_s;
    uint64_t rate_since_ms, rate_count; /* hand-outs since a moment */
    struct issue events[EVENTS_MAX][2];
};

/* A job; the keys' subjects are their ids. */
struct known_job {
    bool exists, overdue;
    int config;
    uint64_t created_ms, updated_ms, due_ms;
    uint64_t ended_ms; /* when it was final or overdue; 0: neither */
    uint64_t final_seq, action_seq, total;
    uint8_t noted[EVENTS_MAX / 8]; /* a bit for each seq */
};
/* Its place among the known ones; key 0 is no job's. */
#define JOBS                 (PROJECTS * KEYS)
#define JOB_OF(project, key) ((project)*KEYS + (key))
#define JOB_KEY(job)         ((job) % KEYS)
#define JOB_PROJECT(job)     ((job) / KEYS)

enum worker_state {
    WORKER_NONE,
    WORKER_COMING, /* it has made claims and does not know yet what was granted */
    WORKER_ACTIVE,
    WORKER_KEPT,   /* its connection is gone */
    WORKER_ORPHAN, /* the broker crashed */
    WORKER_GONE,
};

enum held {
    HELD_NOT, /* not yet, or no longer */
    HELD,
    HELD_LOST,    /* revoked; a late ack may still be honoured */
    HELD_REFUSED, /* a claim that was not granted, perhaps made up: the tag means nothing */
};

struct hand_out {
    uint64_t seq;
    uint32_t bytes;
    bool replay, redrive;
    bool open;                  /* counts in the window: not settled */
    bool live;                  /* its lease runs */
    uint64_t since_ms, ends_ms; /* its lease, if nobody extends it */
    enum held held;             /* as the worker sees it */
};

/* An attachment; its id is its place in the table, and stands for its connection. */
struct worker {
    enum worker_state state;
    int sub;
    uint32_t sub_id;
    uint32_t born; /* the step that made it: picks stay the same when other steps are left out */
    uint64_t session;
    bool deaf;  /* nothing arrives there any more: the connection is dead, the broker thinks not */
    bool hangs; /* settles nothing */
    bool attached, kept, hold; /* as the engine must see it */
    uint64_t window_events, window_bytes, open_count, open_bytes;
    uint32_t concurrency;
    uint64_t next_tag, first_open; /* below first_open nothing is open */
    size_t cap;
    struct hand_out *tags; /* by tag */
};

/* A command that waits for its answer. */
struct asked {
    bool waits;
    bool lost; /* its answer does not arrive */
    enum command_kind kind;
    enum err err; /* what must be answered, of what the oracle knows beforehand: err_known */
    bool err_known;
    int project;
    int sub;                      /* -1: none, or nobody's */
    struct fact facts[BATCH_MAX]; /* PUBLISH */
    size_t count;
    uint64_t seq;       /* CREATE, SEEK: where the cursor is after it; CONFIG_PUT: the value */
    uint64_t wall_ms;   /* PAUSE: from when on everything is young; TASK_CREATE: since; or 0 */
    uint32_t seeks;     /* SEEK: which one it is */
    uint32_t id;        /* CREATE: the subscription's */
    int filter;         /* CREATE, UPDATE, TASK_CREATE */
    bool expire;        /* CREATE, UPDATE */
    uint32_t max_fails; /* CREATE, UPDATE */
    uint64_t max_age_ms;
    enum order order;
    bool flag; /* PAUSE: paused */
    enum task_kind task;
    uint32_t granted;     /* ATTACH */
    uint64_t outcomes[3]; /* settlements: how many tags are ok, already, stale */
};

struct replay_asked {
    uint32_t id;
    int sub, filter;
};

/* A subscription that there may be. The same names are in each project, as far as they go. */
struct slot {
    int project;
    const char *name;
    char label[16]; /* for people */
};

struct oracle {
    struct world w;
    int projects; /* that are used: the first ones */
    struct slot slots[SUBS];
    uint64_t last_seq;     /* durable */
    uint64_t wall_reached; /* the latest time that any clock of the engine's can have come to */
    struct fact facts[EVENTS_MAX];
    uint64_t seq_of_id[PROJECTS][IDS];
    bool trims; /* retention was on: the journal forgets ids */
    uint16_t life;
    bool room;             /* as the engine was told last */
    uint64_t answers_left; /* effects that still leave the broker; then it is dead */
    uint32_t check_one_in; /* engine_check after so many turns; 0: only at the end */
    struct sub subs[SUBS];
    struct issues issues[SUBS];
    uint32_t forgotten_id[SUBS]; /* the first in this life whose issues another id has replaced */
    struct engine_totals counts[PROJECTS]; /* since the engine was opened */
    struct worker workers[WORKERS_MAX];    /* from 1 */
    uint64_t last_worker;
    struct asked asked[ASKED_MAX]; /* by rid */
    uint32_t last_rid, waiting;
    struct replay_asked replays[REPLAYS_MAX];
    size_t replays_count;
    struct fact limbo[LIMBO_MAX]; /* published, and the producer does not know whether */
    size_t limbo_count;
    uint64_t config, config_asked;                   /* a value that an operator keeps; 0: none */
    struct known_job jobs[JOBS], durable_jobs[JOBS]; /* as the engine has them; on the disk */
    struct job_page *job_pages; /* of turns that are not durable, the oldest first */
    uint32_t job_notes;         /* events of jobs in the open turn */
    /* For the summary. */
    uint64_t engine_steps, turns, deliveries, crashes, confirmed_total, resumed, refused, lost;
    uint64_t digest; /* of everything that was said */
};

extern const char *const fact_types[FACT_TYPES], *const fact_subjects[KEYS],
                                                     *const fact_groups[KEYS];
extern const char *const fact_filters[FILTERS];
extern const char *const fact_endpoints[3]; /* so many lines */
extern const char *const sub_names[SUBS];
extern const uint32_t project_ids[PROJECTS];

/* ---- oracle.c ---- */

/* A new engine on a new disk; options in o->w are kept. */
void oracle_open(struct oracle *o);
void oracle_close(struct oracle *o);
/* Sets the command's rid, under which `asked` is remembered until it is answered. */
struct asked *oracle_ask(struct oracle *o, struct command *c, int sub);
/* A command on the subscription of this slot, in its project. */
struct command oracle_command(const struct oracle *o, enum command_kind kind, int sub);
/* The project's number, or -1: none of the simulator's. */
int project_place(uint32_t id);
/* The engine's subscription of that name, by a walk over all; NULL: there is none. */
struct subscription *oracle_find(const struct oracle *o, uint32_t project, const char *name);
struct subscription *oracle_sub(const struct oracle *o, int slot);
/* Gives it to the engine. */
void oracle_step(struct oracle *o, const struct command *c);
/* Lets time pass; the wall clock also jumps by step_ms. */
void oracle_time(struct oracle *o, uint64_t ms, int64_t step_ms);
/* Power loss and restart. The oldest `durable` of the held batches are on the disk, and the first
 * `answers` of their effects have left; the rest did not happen. */
void oracle_crash(struct oracle *o, size_t durable, uint64_t answers);
struct worker *oracle_worker(struct oracle *o, uint64_t id);
struct event fact_event(const struct fact *f, struct fact_texts *t);
bool fact_matches(const struct fact *f, int filter);
/* It matched whatever the subscription was told; or, `any`, something of it. */
bool fact_wanted(const struct sub *s, const struct fact *f, bool any);
/* The slot of a subscription id, by what is durable; -1: it is nobody's. */
int sub_by_id(const struct oracle *o, uint32_t id);

/* ---- oracle_issue.c ---- */

/* One turn with every check that holds at any time. The disk holds it back in manual mode. */
void oracle_turn(struct oracle *o);
/* One turn whose commit is refused, which stops the broker; it is on the disk all the same, or not.
 * Then a restart. */
void oracle_refuse(struct oracle *o, bool there);
/* A publish, seek, settlement or detach: what must come of it is known beforehand. */
void oracle_publish(struct oracle *o, struct command *c, struct asked *a);
void oracle_seek(struct oracle *o, struct command *c, struct asked *a);
void oracle_settle(struct oracle *o, struct command *c);
void oracle_detach(struct oracle *o, struct command *c);
/* The worker and its claims have entered the engine, or not (at NULL). */
void issue_attached(struct oracle *o, struct worker *w, const struct command *c,
                    const struct attachment *at);
/* A claim was granted to w as `tag`, from what old had as old_tag (NULL: from nobody). */
void issue_granted(struct oracle *o, struct worker *w, const struct lease *l, struct worker *old,
                   uint64_t old_tag);
/* It has gone from the engine; what it held was given back, or lost. */
void issue_worker_ended(struct oracle *o, struct worker *w, enum detach_kind how);
/* The engine is about to be closed without a word. */
void issue_crash(struct oracle *o);
/* The subscription in this slot was asked to replay. */
void issue_replay(struct oracle *o, int sub);
/* Someone acked this copy in this life, after so many seeks; maybe before that was durable. */
bool issue_acked(struct oracle *o, uint32_t sub_id, uint64_t seq, enum copy copy, uint32_t seeks);
/* What a subscription of this id hands out; NULL: nothing yet. */
struct issues *issues_by_id(struct oracle *o, uint32_t id);
/* The entry of a tag, made when it is new. */
struct hand_out *worker_tag(struct worker *w, uint64_t tag);

/* ---- oracle_job.c ---- */

/* Steps a JOB_PUT of this job's project and subject. */
void oracle_job_put(struct oracle *o, struct command *c, struct asked *a, int job, int config);
/* Its events have entered the engine: they are noted, and took what their jobs have. */
void job_published(struct oracle *o, struct asked *a);
/* A turn has ended; NULL: without anything to write. */
void job_turn(struct oracle *o, const struct engine_turn *turn);
/* EFFECT_JOB. Returns the fact when it is a job.overdue; else NULL. */
const struct fact *job_effect(struct oracle *o, const struct effect *f);
/* The oldest turn that was not durable is. */
void job_batch(struct oracle *o, const struct batch *batch);
void job_crash(struct oracle *o);
/* Everything is durable: jobs are shown as they are, with a row each. */
void oracle_check_jobs(struct oracle *o);
bool oracle_jobs_ended(const struct oracle *o);

/* ---- oracle_check.c ---- */

/* Everything is durable and nothing open: counts are held against the store's rows, and every event
 * that was accepted must be somewhere. */
void oracle_check_rows(struct oracle *o);
/* Steps an ATTACH with claims and checks what was granted. */
void oracle_attach(struct oracle *o, struct command *c, struct asked *a);
/* Nothing is outstanding any more: each event must be accounted for, and nothing kept. */
void oracle_check_end(struct oracle *o);

#endif
