/* Crashes, a disk that refuses or is full, and clocks. */
#include "tests/sim/sim.h"

static size_t held_batches(const struct run *r) {
    size_t n = 0;
    for (const struct engine_turn *t = r->o.w.engine->pending; t != NULL; t = t->next) n++;
    return n;
}

static void restarted(struct run *r) {
    engine_set_retention(r->o.w.engine, &r->retention);
}

void fault_crash(struct run *r, bool clean) {
    size_t durable = clean ? 0 : run_below(r, held_batches(r) + 1);
    uint64_t answers = clean || run_one_in(r, 2) ? 0 : run_below(r, 12);
    run_say(r, "crash: %zu of %zu batches are on the disk, %llu answers had left", durable,
            held_batches(r), (unsigned long long)answers);
    oracle_crash(&r->o, durable, answers);
    restarted(r);
}

void fault_refuse(struct run *r) {
    bool there = run_one_in(r, 2);
    run_say(r, "a commit is refused and is %son the disk: crash", there ? "" : "not ");
    oracle_refuse(&r->o, there);
    restarted(r);
}

void fault_room(struct run *r) {
    bool low = run_one_in(r, 2);
    memory_store_set_room(r->o.w.store, low ? STORE_ROOM_LOW : STORE_ROOM_OK);
    run_say(r, "the disk %s", low ? "is full" : "has room");
}

void fault_time(struct run *r) {
    uint64_t ms = run_below(r, 200);
    int64_t step_ms = 0;
    if (run_one_in(r, 40)) ms = run_below(r, 5 * MINUTE_MS);
    if (r->temper.long_times && run_one_in(r, 150)) ms = run_below(r, 3 * DAY_MS);
    if (r->temper.clock_steps && run_one_in(r, 40)) {
        uint64_t most_ms = run_one_in(r, 2) ? 2000 : run_one_in(r, 2) ? HOUR_MS : 2 * DAY_MS;
        step_ms = (int64_t)run_below(r, 2 * most_ms) - (int64_t)most_ms;
        if (run_one_in(r, 2)) ms = 0; /* the machine slept: only the wall clock went on */
    }
    run_say(r, "%llu ms pass, the wall clock steps by %lld", (unsigned long long)ms,
            (long long)step_ms);
    oracle_time(&r->o, ms, step_ms);
}
