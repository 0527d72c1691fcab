/* Producers: they publish, and publish again what they had no answer for. */
#include "tests/sim/sim.h"

static uint64_t any_deliver_at(struct run *r) {
    uint64_t wall_ms = r->o.w.time.wall_ms;
    switch (run_below(r, r->temper.long_times ? 8 : 5)) {
    case 0:
    case 1: return wall_ms + run_below(r, 500);
    case 2: return wall_ms - run_below(r, 500);
    case 3:
    case 4: return wall_ms + run_below(r, 5000);
    case 5:
    case 6: return wall_ms + run_below(r, 2 * HOUR_MS);
    default: return wall_ms + run_below(r, 31 * DAY_MS); /* some are refused */
    }
}

static struct fact draw_fact(struct run *r, uint8_t project, uint32_t nth) {
    struct fact f = {.project = project,
                     .type = (uint8_t)run_below(r, 3),
                     .subject = (uint8_t)run_below(r, KEYS),
                     .group = (uint8_t)run_below(r, KEYS),
                     .n = (uint8_t)run_below(r, 4),
                     .id = run_one_in(r, 3) ? (int)run_below(r, IDS) : -1,
                     .mark = r->step * BATCH_MAX + nth};
    if (run_one_in(r, 4)) f.endpoints = (uint8_t)(1 + run_below(r, 2));
    if (run_one_in(r, 5)) f.type = run_one_in(r, 2) ? FACT_FAILED : FACT_ACTION;
    f.bare = run_one_in(r, 4);
    f.pad = (uint8_t)run_below(r, run_one_in(r, 4) ? 200 : 10);
    if (run_one_in(r, 6)) f.deliver_at_ms = any_deliver_at(r);
    return f;
}

static void send_events(struct run *r, const struct fact *facts, size_t count, const char *how) {
    struct event events[BATCH_MAX];
    struct fact_texts texts[BATCH_MAX];
    struct command c = {.kind = COMMAND_PUBLISH, .project = project_ids[facts[0].project]};
    struct oracle *o = &r->o;
    CHECK(count > 0);
    struct asked *a = oracle_ask(o, &c, -1);
    a->count = count;
    a->lost = r->temper.network && run_one_in(r, 12);
    for (size_t i = 0; i < count; i++) {
        a->facts[i] = facts[i];
        struct fact *f = &a->facts[i];
        f->published_ms = o->w.time.wall_ms;
        /* What its job lent the last time is not its own. */
        if (f->lent_endpoints) f->endpoints = 0;
        if (f->bare) f->group = f->n = 0;
        f->lent_endpoints = f->lent_metadata = false;
        events[i] = fact_event(f, &texts[i]);
    }
    c.u.publish.events = events;
    c.u.publish.count = count;
    run_say(r, "%s %zu events of %d, the first with mark %u, id %d, %zu bytes, deliver_at %llu%s",
            how, count, facts[0].project + 1, facts[0].mark, facts[0].id, events[0].body.len,
            (unsigned long long)facts[0].deliver_at_ms, a->lost ? "; the answer will be lost" : "");
    oracle_publish(o, &c, a);
}

bool producer_full(const struct run *r) {
    return r->o.w.engine->last_seq + BATCH_MAX + KEYS >= EVENTS_MAX;
}

void producer_publish(struct run *r) {
    struct fact facts[BATCH_MAX];
    size_t count = run_one_in(r, 3) ? 1 + run_below(r, BATCH_MAX) : 1;
    uint8_t project = (uint8_t)run_project(r);
    if (producer_full(r)) return;
    for (size_t i = 0; i < count; i++) facts[i] = draw_fact(r, project, (uint32_t)i);
    send_events(r, facts, count, "publish");
}

/* One without an id would come twice, which is what its producer asks for by sending it again. */
void producer_retry(struct run *r) {
    struct oracle *o = &r->o;
    if (o->limbo_count == 0 || producer_full(r)) return;
    size_t at = run_below(r, o->limbo_count);
    struct fact f = o->limbo[at];
    if (!run_one_in(r, 3)) o->limbo[at] = o->limbo[--o->limbo_count];
    send_events(r, &f, 1, "publish again");
}
