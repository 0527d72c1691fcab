/* sim.h: a run of the simulator: a seed becomes a list of steps, each of which does one thing to an
 * engine on a simulated disk: operators, producers, workers, the network, time, turns and faults.
 *
 * Every step draws from a generator of its own, seeded with the run's seed and the step's number,
 * and picks what it works on so that the pick stays the same when something else is not there. So
 * any steps can be left out and the rest still do what they did: this is what shrinking needs
 * (shrink.c), and why `--seed S --only 3,17,40` replays a failure.
 *
 * A run owns its oracle, which owns the engine; one run at a time, run_seed begins and ends it.
 * What does not hold is a CHECK: the process aborts, so sim.c runs seeds in a child of its own.
 *
 * run.c: the way of a run. operators.c, producers.c, workers.c, faults.c: what a step does.
 * May call: the oracle, the engine, the simulated disk. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "base/prng.h"
#include "tests/sim/oracle.h"

#define MINUTE_MS   60000
#define HOUR_MS     (60 * (uint64_t)MINUTE_MS)
#define DAY_MS      (24 * HOUR_MS)
#define CLAIMS_MAX  64
#define LETTERS_MAX 32
#define RANGES_MAX  3
/* Steps of the end have numbers above all others: they are never left out. */
#define STEP_END 1000000u

enum step_kind {
    STEP_PUBLISH,
    STEP_RETRY, /* a producer that does not know sends again */
    STEP_ATTACH,
    STEP_SETTLE,
    STEP_LATE,   /* a settlement that was on its way arrives, perhaps once more */
    STEP_WORKER, /* window, hold, goodbye */
    STEP_LINK,   /* connections and workers that hang, vanish, are given up */
    STEP_OPERATOR,
    STEP_TURN,
    STEP_SYNC, /* some batches become durable */
    STEP_ROOM, /* the disk is full, or not any more */
    STEP_TIME,
    STEP_CHECK, /* everything becomes durable and is counted */
    STEP_CRASH,
    STEP_REFUSE, /* a commit is refused */
    STEP_KINDS,
};

/* A run's own temper: what never happens in some seeds makes the others' promises strict. */
struct temper {
    uint32_t steps;
    uint32_t weights[STEP_KINDS], weights_sum;
    bool seeks, updates, tasks, retention, clock_steps, long_times, deletes, jobs;
    bool network; /* connections die silently, settlements are late, twice, forged */
    bool crashes;
};

/* A settlement on its way. */
struct letter {
    struct command c;
    struct tag_range ranges[RANGES_MAX];
};

/* What is to be run. */
struct plan {
    uint64_t seed;
    uint32_t steps;       /* 0: the seed's own number */
    uint32_t check_every; /* engine_check after so many turns; 0: the seed's own choice */
    const uint32_t *only; /* rising step numbers; NULL: all */
    size_t only_count;
    bool trace;     /* print what was asked, answered and done */
    uint32_t *step; /* where the run tells at which step it is */
};

struct run {
    struct oracle o;
    struct plan plan;
    struct temper temper;
    struct prng prng;
    uint32_t step; /* number of the step that is being done */
    struct retention retention;
    struct letter letters[LETTERS_MAX];
    size_t letters_count;
};

/* ---- run.c ---- */
/* Runs the plan, to the end or to the abort. */
void run_seed(struct run *r, const struct plan *plan);
/* How many steps the plan has when none is left out. */
uint32_t run_steps(const struct plan *plan);
uint64_t run_below(struct run *r, uint64_t n);
bool run_one_in(struct run *r, uint64_t n);
int run_sub(struct run *r);
int run_project(struct run *r);
/* A line of the trace. */
void run_say(struct run *r, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* ---- operators.c ---- */
void operator_create(struct run *r, int sub, enum start_kind start);
/* Without an opinion of its own: only the rate goes away. */
void operator_calm(struct run *r, int sub);
void operator_pause(struct run *r, int sub, bool paused);
void operator_retain(struct run *r, bool on);
void operator_step(struct run *r);
/* A policy, and what the oracle must know of it. Its texts live as long as `d`. */
struct drawn_policy {
    struct policy policy;
    uint64_t list_ms[4];
    int filter;
    enum order order;
};
void operator_policy(struct run *r, struct drawn_policy *d);

/* ---- producers.c ---- */
void producer_publish(struct run *r);
void producer_retry(struct run *r);
/* The tables are full: a run with very many steps goes on without new events, and without new jobs,
 * each of which may come to one. */
bool producer_full(const struct run *r);

/* ---- workers.c ---- */
/* A worker on the subscription; `old`: it was that one before, or 0. Returns its id. */
uint64_t worker_attach(struct run *r, int sub, uint64_t old);
void worker_window(struct run *r, uint64_t id, uint64_t events);
void worker_detach(struct run *r, uint64_t id, enum detach_kind how);
/* Every worker that holds something acks all of it. */
void worker_ack_all(struct run *r);
void worker_step_attach(struct run *r);
void worker_step_settle(struct run *r);
void worker_step_late(struct run *r);
void worker_step_other(struct run *r);
void worker_step_link(struct run *r);

/* ---- faults.c ---- */
void fault_crash(struct run *r, bool clean);
void fault_refuse(struct run *r);
void fault_room(struct run *r);
void fault_time(struct run *r);

#endif
