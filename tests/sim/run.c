#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim.h"

uint64_t run_below(struct run *r, uint64_t n) {
    return prng_below(&r->prng, n);
}

bool run_one_in(struct run *r, uint64_t n) {
    return run_below(r, n) == 0;
}

int run_sub(struct run *r) {
    return (int)run_below(r, SUBS);
}

int run_project(struct run *r) {
    return (int)run_below(r, (uint64_t)r->o.projects);
}

void run_say(struct run *r, const char *fmt, ...) {
    va_list args;
    if (!r->plan.trace) return;
    fprintf(stderr, "%u: [%llu] ", r->step, (unsigned long long)r->o.w.time.now_ms);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}

/* ---- temper ---- */

/* Some seeds have much of one thing, some nearly none. */
static uint32_t swing(struct run *r, uint32_t weight) {
    switch (run_below(r, 6)) {
    case 0: return weight * 4;
    case 1: return (weight + 3) / 4;
    default: return weight;
    }
}

static void draw_weights(struct run *r, struct temper *t) {
    uint32_t *w = t->weights, turn = 300 / (1 + (uint32_t)run_below(r, 6));
    w[STEP_PUBLISH] = swing(r, 105);
    w[STEP_RETRY] = 8;
    w[STEP_ATTACH] = swing(r, 30);
    w[STEP_SETTLE] = swing(r, 105);
    w[STEP_WORKER] = swing(r, 20);
    w[STEP_LATE] = t->network ? swing(r, 20) : 0;
    w[STEP_LINK] = t->network ? swing(r, 10) : 0;
    w[STEP_OPERATOR] = swing(r, 30);
    w[STEP_TURN] = turn;
    w[STEP_SYNC] = turn / (1 + (uint32_t)run_below(r, 6)) + 1;
    w[STEP_CHECK] = turn / 20 + 1;
    w[STEP_TIME] = swing(r, 75);
    w[STEP_ROOM] = run_one_in(r, 3) ? 4 : 0;
    w[STEP_CRASH] = !t->crashes ? 0 : run_one_in(r, 20) ? 30 : 1 + (uint32_t)run_below(r, 5);
    w[STEP_REFUSE] = t->crashes && run_one_in(r, 3) ? 2 : 0;
    for (int i = 0; i < STEP_KINDS; i++) t->weights_sum += w[i];
}

static void draw_run(struct run *r, const struct plan *plan) {
    memset(r, 0, sizeof *r);
    r->plan = *plan;
    prng_seed(&r->prng, map_mix(plan->seed));
    r->temper = (struct temper){
        .steps = 300 + (uint32_t)run_below(r, 1800),
        .crashes = !run_one_in(r, 3),
        .network = run_one_in(r, 2),
        .seeks = run_one_in(r, 3),
        .updates = run_one_in(r, 3),
        .tasks = run_one_in(r, 2),
        .retention = run_one_in(r, 2),
        .clock_steps = run_one_in(r, 4),
        .long_times = run_one_in(r, 3),
        .deletes = run_one_in(r, 4),
        .jobs = run_one_in(r, 2),
    };
    draw_weights(r, &r->temper);
    struct engine_options *options = &r->o.w.options;
    options->seed = plan->seed;
    options->outstanding_max = 1 + (uint32_t)run_below(r, run_one_in(r, 2) ? 60 : 1000);
    options->turn_scan_events = 1 + (uint32_t)run_below(r, run_one_in(r, 2) ? 50 : 10000);
    options->turn_deliver_bytes = 300 * (1 + (uint32_t)run_below(r, 20));
    options->jobs_room = JOBS_ROOM;
    if (run_one_in(r, 2)) options->jobs_max = 1 + (uint32_t)run_below(r, 2);
    if (run_one_in(r, 2)) options->restart_grace_ms = 1 + (uint32_t)run_below(r, 3000);
    r->o.projects = 1 + (int)run_below(r, PROJECTS);
    r->o.w.quiet = !plan->trace;
    r->o.check_one_in = run_one_in(r, 3) ? 1 : 16;
    if (plan->check_every != 0) r->o.check_one_in = plan->check_every;
    if (plan->steps != 0) r->temper.steps = plan->steps;
}

/* The first ones make the subscriptions, the last one is a crash if there are any. */
uint32_t run_steps(const struct plan *plan) {
    struct run *r = mem_alloc(sizeof *r);
    draw_run(r, plan);
    uint32_t steps = SUBS + r->temper.steps + 1;
    free(r);
    return steps;
}

/* ---- steps ---- */

static void begin_step(struct run *r, uint32_t number) {
    r->step = number;
    if (r->plan.step != NULL) *r->plan.step = number;
    prng_seed(&r->prng, map_mix(r->plan.seed) + number);
}

static void check(struct run *r) {
    oracle_turn(&r->o);
    memory_store_sync(r->o.w.store, SIZE_MAX);
    oracle_check_rows(&r->o);
}

static enum step_kind draw_kind(struct run *r) {
    uint64_t at = run_below(r, r->temper.weights_sum);
    int kind = 0;
    for (; at >= r->temper.weights[kind]; kind++) at -= r->temper.weights[kind];
    return (enum step_kind)kind;
}

static void do_step(struct run *r) {
    switch (draw_kind(r)) {
    case STEP_PUBLISH: producer_publish(r); break;
    case STEP_RETRY: producer_retry(r); break;
    case STEP_ATTACH: worker_step_attach(r); break;
    case STEP_SETTLE: worker_step_settle(r); break;
    case STEP_LATE: worker_step_late(r); break;
    case STEP_WORKER: worker_step_other(r); break;
    case STEP_LINK: worker_step_link(r); break;
    case STEP_OPERATOR: operator_step(r); break;
    case STEP_TURN: oracle_turn(&r->o); break;
    case STEP_SYNC: memory_store_sync(r->o.w.store, 1 + run_below(r, 3)); break;
    case STEP_ROOM: fault_room(r); break;
    case STEP_TIME: fault_time(r); break;
    case STEP_CHECK: check(r); break;
    case STEP_CRASH: fault_crash(r, false); break;
    case STEP_REFUSE: fault_refuse(r); break;
    case STEP_KINDS: UNREACHABLE("the weights add up");
    }
}

static void step(struct run *r, uint32_t number) {
    begin_step(r, number);
    if (number <= SUBS) operator_create(r, (int)number - 1, START_FIRST);
    else if (number <= SUBS + r->temper.steps) do_step(r);
    else if (r->temper.crashes) fault_crash(r, false);
}

/* ---- the end ---- */

/* Turns until nothing is due at this moment; time does not pass. */
static void turns(struct run *r) {
    int count = 0;
    do {
        CHECK(++count < 100000);
        oracle_turn(&r->o);
    } while (engine_next_deadline(r->o.w.engine, r->o.w.time) <= r->o.w.time.now_ms);
}

static bool all_settled(struct run *r) {
    struct engine_stats stats;
    engine_stats(r->o.w.engine, &stats);
    if (stats.tasks_running > 0 || !oracle_jobs_ended(&r->o)) return false;
    for (int s = 0; s < SUBS; s++) {
        const struct slot *slot = &r->o.slots[s];
        struct subscription_info info;
        bool there = engine_subscription_get(r->o.w.engine, project_ids[slot->project],
                                             slice_str(slot->name), &info);
        if (!there) continue;
        if (info.floor != r->o.last_seq + 1 || info.why_idle != IDLE_EMPTY) return false;
        if (info.ready + info.leased + info.delayed + info.blocked > 0) return false;
    }
    return true;
}

/* Faults have stopped; one willing worker comes to each subscription. */
static void calm(struct run *r) {
    struct oracle *o = &r->o;
    begin_step(r, STEP_END);
    memory_store_set_manual(o->w.store, false);
    memory_store_set_room(o->w.store, STORE_ROOM_OK);
    operator_retain(r, false);
    for (uint64_t id = 1; id <= o->last_worker; id++) {
        if (o->workers[id].attached) worker_detach(r, id, (enum detach_kind)run_below(r, 3));
    }
    for (int s = 0; s < SUBS; s++) {
        begin_step(r, STEP_END + 1 + (uint32_t)s);
        operator_pause(r, s, false);
        operator_calm(r, s);
        worker_window(r, worker_attach(r, s, 0), 50);
        o->workers[o->last_worker].hangs = false;
    }
}

/* A clean stop: nothing comes again. */
static void check_restart(struct run *r) {
    struct oracle *o = &r->o;
    uint64_t before = o->deliveries;
    engine_flush(o->w.engine);
    turns(r);
    fault_crash(r, true);
    for (int s = 0; s < SUBS; s++) {
        begin_step(r, STEP_END + 100 + (uint32_t)s);
        worker_attach(r, s, 0);
    }
    turns(r);
    oracle_time(o, o->w.options.restart_grace_ms + 1, 0);
    turns(r);
    CHECK(o->deliveries == before);
    oracle_check_end(o);
}

static void liveness(struct run *r) {
    struct oracle *o = &r->o;
    calm(r);
    for (int round = 0;; round++) {
        CHECK(round < 20000);
        turns(r);
        worker_ack_all(r);
        turns(r);
        store_end_reads(o->w.store);
        if (all_settled(r)) break;
        uint64_t at_ms = engine_next_deadline(o->w.engine, o->w.time);
        CHECK(at_ms != UINT64_MAX); /* something waits for a time that never comes */
        oracle_time(o, at_ms - o->w.time.now_ms, 0);
    }
    store_end_reads(o->w.store);
    oracle_check_end(o);
    check_restart(r);
}

void run_seed(struct run *r, const struct plan *plan) {
    draw_run(r, plan);
    oracle_open(&r->o);
    memory_store_set_manual(r->o.w.store, true);
    if (plan->only != NULL) {
        for (size_t i = 0; i < plan->only_count; i++) step(r, plan->only[i]);
    } else {
        uint32_t last = SUBS + r->temper.steps + 1;
        for (uint32_t number = 1; number <= last; number++) step(r, number);
    }
    liveness(r);
    oracle_close(&r->o);
}
