/* Random commands, crashes, clocks and late durability on the engine with a simulated disk;
 * engine_check and an oracle (random_oracle.h) after every turn. At the end of each run the faults
 * stop, one willing worker per subscription takes everything, and every event must be accounted
 * for.
 *
 * Usage: test_engine_random [seed [runs [trace]]], or BELLHOP_TEST_SEED and BELLHOP_RANDOM_RUNS in
 * the environment; a failing seed is printed and replays exactly;
 * with a third argument everything that the engine said is printed as it goes. */
#include <stdio.h>
#include <stdlib.h>

#include "base/prng.h"
#include "tests/unit/random_oracle.h"

#define RUNS_DEFAULT 400
#define MINUTE_MS    60000
#define HOUR_MS      (60 * (uint64_t)MINUTE_MS)
#define DAY_MS       (24 * HOUR_MS)
#define CLAIMS_MAX   64

/* A run's own temper: what never happens in some seeds makes the others' promises strict. */
struct temper {
    uint64_t steps, crash_one_in, turn_one_in, sync_one_in; /* crash 0: never */
    bool seeks, updates, tasks, retention, clock_steps, long_times, deletes;
};

struct run {
    struct oracle o;
    struct prng prng;
    struct temper temper;
    struct retention retention;
    uint32_t marks;
    bool trace;
};

/* Texts that a policy borrows until its command was stepped. */
struct drawn_policy {
    struct policy policy;
    uint64_t list_ms[4];
    int filter;
    enum order order;
};

static uint64_t below(struct run *r, uint64_t n) {
    return prng_below(&r->prng, n);
}

static bool one_in(struct run *r, uint64_t n) {
    return below(r, n) == 0;
}

static void show(struct run *r) {
    if (!r->trace) return;
    fprintf(stderr, "%.*s", (int)r->o.w.log.len, (const char *)r->o.w.log.data);
    buf_clear(&r->o.w.log);
}

/* Says what is asked, between what is answered. */
static void said(struct run *r, const char *what, int sub, uint64_t a, uint64_t b, uint64_t c) {
    if (!r->trace) return;
    show(r);
    fprintf(stderr, "[%llu] %u: %s sub %d: %llu %llu %llu\n",
            (unsigned long long)r->o.w.time.now_ms, r->o.last_rid, what, sub, (unsigned long long)a,
            (unsigned long long)b, (unsigned long long)c);
}

static int any_sub(struct run *r) {
    return (int)below(r, SUBS);
}

/* ---- operators ---- */

static void draw_policy(struct run *r, struct drawn_policy *d) {
    struct policy p = policy_default();
    p.lease_ms = 100 + below(r, 400);
    if (one_in(r, 2)) p.max_hold_ms = p.lease_ms + below(r, 1500);
    if (one_in(r, 4)) p.max_age_ms = 1 + below(r, one_in(r, 2) ? 3000 : HOUR_MS);
    p.max_fails = (uint32_t)below(r, 6);
    p.backoff_min_ms = below(r, 50);
    p.backoff_max_ms = 50 + below(r, one_in(r, 3) ? 3 * MINUTE_MS : 500);
    p.backoff_factor_permille = 1000 + (uint32_t)below(r, 9000);
    p.backoff_jitter_permille = (uint32_t)below(r, 1001);
    if (one_in(r, 3)) {
        p.backoff_list_count = 1 + (uint32_t)below(r, 4);
        p.backoff_list_ms = d->list_ms;
        for (uint32_t i = 0; i < p.backoff_list_count; i++) {
            d->list_ms[i] = below(r, one_in(r, 4) ? HOUR_MS : 300);
        }
    }
    if (one_in(r, 4)) p.rate_per_s = 1 + (uint32_t)below(r, one_in(r, 2) ? 20 : 2000);
    p.lag = one_in(r, 2) ? LAG_EXPIRE : LAG_BLOCK;
    d->order = one_in(r, 2) ? ORDER_NONE : 1 + (enum order)below(r, 2);
    p.ordered = d->order != ORDER_NONE;
    if (d->order == ORDER_METADATA) p.order_key = slice_str("g");
    d->filter = one_in(r, 2) ? 0 : (int)below(r, FILTERS);
    p.filter = slice_str(fact_filters[d->filter]);
    d->policy = p;
}

static uint64_t cursor_at(struct run *r, int sub) {
    const struct subscription *s = subscription_find(r->o.w.engine, slice_str(sub_names[sub]));
    return s == NULL ? 0 : cursor_next(r->o.w.engine, &s->live);
}

static void step_create(struct run *r, int sub, enum start_kind start) {
    struct drawn_policy d;
    struct command c = {.kind = COMMAND_SUBSCRIPTION_CREATE};
    draw_policy(r, &d);
    c.u.create.name = slice_str(sub_names[sub]);
    c.u.create.policy = d.policy;
    c.u.create.start = start;
    struct asked *a = oracle_ask(&r->o, &c, sub);
    a->filter = d.filter;
    a->order = d.order;
    a->expire = d.policy.lag == LAG_EXPIRE;
    world_step(&r->o.w, &c);
    const struct subscription *s = subscription_find(r->o.w.engine, slice_str(sub_names[sub]));
    CHECK(s != NULL);
    a->id = s->id;
    a->seq = cursor_at(r, sub);
    said(r, "create filter, order, at", sub, (uint64_t)d.filter, d.order, a->seq);
}

static void step_update(struct run *r, int sub, bool calm) {
    struct drawn_policy d;
    struct command c = {.kind = COMMAND_SUBSCRIPTION_UPDATE};
    const struct subscription *s = subscription_find(r->o.w.engine, slice_str(sub_names[sub]));
    if (s == NULL) return;
    draw_policy(r, &d);
    bool other_filter = !calm && one_in(r, 3), other_order = !calm && one_in(r, 3);
    c.u.update.name = slice_str(sub_names[sub]);
    struct policy *p = &c.u.update.policy;
    *p = calm ? s->policy : d.policy;
    p->rate_per_s = calm ? 0 : p->rate_per_s;
    int filter = d.filter;
    if (!other_filter) {
        p->filter = s->policy.filter;
        for (filter = FILTERS - 1; filter > 0; filter--) {
            if (slice_eq_str(p->filter, fact_filters[filter])) break;
        }
    }
    if (!other_order) {
        p->ordered = s->policy.ordered;
        p->order_key = s->policy.order_key;
    }
    struct asked *a = oracle_ask(&r->o, &c, sub);
    a->filter = filter;
    a->order = !p->ordered ? ORDER_NONE : p->order_key.len > 0 ? ORDER_METADATA : ORDER_SUBJECT;
    a->expire = p->lag == LAG_EXPIRE;
    /* What the policy borrows is the engine's own and goes while it is set. */
    char key[8], text[256];
    bool fits =
        slice_to_cstr(p->order_key, key, sizeof key) && slice_to_cstr(p->filter, text, sizeof text);
    CHECK(fits && p->backoff_list_count <= 4);
    p->order_key = slice_str(key);
    p->filter = slice_str(text);
    for (uint32_t i = 0; i < p->backoff_list_count; i++) d.list_ms[i] = p->backoff_list_ms[i];
    p->backoff_list_ms = d.list_ms;
    said(r, "update filter, order, lag", sub, (uint64_t)filter, a->order, p->lag);
    world_step(&r->o.w, &c);
}

static void step_pause(struct run *r, int sub, bool paused) {
    struct command c = {.kind = COMMAND_SUBSCRIPTION_PAUSE};
    c.u.pause.name = slice_str(sub_names[sub]);
    c.u.pause.paused = paused;
    oracle_ask(&r->o, &c, sub)->flag = paused;
    said(r, "pause", sub, paused, 0, 0);
    world_step(&r->o.w, &c);
}

static uint64_t any_time(struct run *r) {
    uint64_t back_ms = below(r, one_in(r, 2) ? 5000 : HOUR_MS);
    return r->o.w.time.wall_ms - back_ms;
}

static void step_seek(struct run *r, int sub) {
    struct command c = {.kind = COMMAND_SUBSCRIPTION_SEEK};
    c.u.seek.name = slice_str(sub_names[sub]);
    c.u.seek.start = (enum start_kind)below(r, 4);
    c.u.seek.start_value = c.u.seek.start == START_TIME ? any_time(r) : below(r, r->o.last_seq + 3);
    struct asked *a = oracle_ask(&r->o, &c, sub);
    world_step(&r->o.w, &c);
    a->seq = cursor_at(r, sub);
    said(r, "seek to", sub, a->seq, 0, 0);
}

static void step_delete(struct run *r, int sub) {
    struct command c = {.kind = COMMAND_SUBSCRIPTION_DELETE};
    c.u.delete.name = slice_str(sub_names[sub]);
    oracle_ask(&r->o, &c, sub);
    said(r, "delete", sub, 0, 0, 0);
    world_step(&r->o.w, &c);
}

static void step_task(struct run *r, int sub) {
    struct command c = {.kind = COMMAND_TASK_CREATE};
    c.u.task.kind = (enum task_kind)below(r, 4);
    c.u.task.name = slice_str(sub_names[sub]);
    int filter = one_in(r, 2) ? 0 : (int)below(r, FILTERS);
    c.u.task.filter = slice_str(fact_filters[filter]);
    if (one_in(r, 3)) c.u.task.rate_per_s = 1 + (uint32_t)below(r, 100);
    bool journal = c.u.task.kind == TASK_REPLAY || c.u.task.kind == TASK_COUNT;
    if (journal && one_in(r, 4)) c.u.task.from_time_ms = any_time(r);
    else if (one_in(r, 2)) c.u.task.from_seq = below(r, r->o.last_seq + 2);
    if (c.u.task.from_time_ms == 0 && one_in(r, 3)) {
        c.u.task.to_seq = c.u.task.from_seq + below(r, 20);
    }
    struct asked *a = oracle_ask(&r->o, &c, sub);
    a->task = c.u.task.kind;
    a->filter = filter;
    said(r, task_kind_name(c.u.task.kind), sub, c.u.task.from_seq, c.u.task.to_seq,
         c.u.task.rate_per_s);
    world_step(&r->o.w, &c);
}

static void step_cancel(struct run *r) {
    struct command c = {.kind = COMMAND_TASK_CANCEL};
    c.u.cancel.id = 1 + (uint32_t)below(r, r->o.w.engine->next_id);
    oracle_ask(&r->o, &c, 0);
    said(r, "cancel", 0, c.u.cancel.id, 0, 0);
    world_step(&r->o.w, &c);
}

static void set_retention(struct run *r, bool on) {
    struct retention *v = &r->retention;
    *v = (struct retention){0};
    if (on && one_in(r, 2)) v->max_bytes = 300 + below(r, 20000);
    if (on && one_in(r, 2)) v->max_age_ms = 100 + below(r, one_in(r, 2) ? 5000 : HOUR_MS);
    if (on && one_in(r, 2)) v->dead_max_age_ms = 100 + below(r, one_in(r, 2) ? 5000 : HOUR_MS);
    r->o.trims |= on;
    said(r, "retention", 0, v->max_bytes, v->max_age_ms, v->dead_max_age_ms);
    engine_set_retention(r->o.w.engine, v);
}

static void step_operator(struct run *r) {
    const struct temper *t = &r->temper;
    int sub = any_sub(r);
    switch (below(r, 10)) {
    case 0: step_pause(r, sub, true); break;
    case 1:
    case 2: step_pause(r, sub, false); break;
    case 3:
        if (t->seeks) step_seek(r, sub);
        break;
    case 4:
        if (t->updates) step_update(r, sub, false);
        break;
    case 5:
        if (t->retention) set_retention(r, !one_in(r, 4));
        break;
    case 6:
        if (t->deletes && one_in(r, 3)) step_delete(r, sub);
        else step_create(r, sub, one_in(r, 2) ? START_NEW : START_FIRST);
        break;
    case 7:
        if (t->tasks) step_cancel(r);
        break;
    default:
        if (t->tasks) step_task(r, sub);
    }
}

/* ---- publishing ---- */

struct texts {
    char id[16], metadata[64], body[256];
};

static uint64_t any_deliver_at(struct run *r) {
    uint64_t wall_ms = r->o.w.time.wall_ms;
    switch (below(r, r->temper.long_times ? 8 : 5)) {
    case 0:
    case 1: return wall_ms + below(r, 500);
    case 2: return wall_ms - below(r, 500);
    case 3:
    case 4: return wall_ms + below(r, 5000);
    case 5:
    case 6: return wall_ms + below(r, 2 * HOUR_MS);
    default: return wall_ms + below(r, 31 * DAY_MS); /* some are refused */
    }
}

static void draw_event(struct run *r, struct fact *f, struct event *event, struct texts *t) {
    *f = (struct fact){.type = (uint8_t)below(r, 3),
                       .subject = (uint8_t)below(r, KEYS),
                       .group = (uint8_t)below(r, KEYS),
                       .n = (uint8_t)below(r, 4),
                       .id = one_in(r, 3) ? (int)below(r, IDS) : -1,
                       .mark = ++r->marks,
                       .published_ms = r->o.wall_reached};
    if (one_in(r, 6)) f->deliver_at_ms = any_deliver_at(r);
    snprintf(t->id, sizeof t->id, "id%d", f->id);
    if (f->group != 0) {
        snprintf(t->metadata, sizeof t->metadata, "{\"g\":\"%s\",\"n\":%u}", fact_groups[f->group],
                 f->n);
    } else {
        snprintf(t->metadata, sizeof t->metadata, "{\"n\":%u}", f->n);
    }
    int len = snprintf(t->body, sizeof t->body, "%u.", f->mark);
    size_t pad = below(r, one_in(r, 4) ? 200 : 10);
    memset(t->body + len, 'x', pad);
    *event = (struct event){.type = slice_str(fact_types[f->type]),
                            .subject = slice_str(fact_subjects[f->subject]),
                            .id = slice_str(f->id >= 0 ? t->id : ""),
                            .metadata = slice_str(t->metadata),
                            .body = slice_of(t->body, (size_t)len + pad),
                            .deliver_at_ms = f->deliver_at_ms};
}

static void step_publish(struct run *r) {
    struct event events[BATCH_MAX];
    struct texts texts[BATCH_MAX];
    struct command c = {.kind = COMMAND_PUBLISH};
    struct asked *a = oracle_ask(&r->o, &c, 0);
    a->count = one_in(r, 3) ? 1 + below(r, BATCH_MAX) : 1;
    for (size_t i = 0; i < a->count; i++) draw_event(r, &a->facts[i], &events[i], &texts[i]);
    c.u.publish.events = events;
    c.u.publish.count = a->count;
    c.u.publish.project = PROJECT_DEFAULT;
    said(r, "publish count, deliver_at", 0, a->count, a->facts[0].deliver_at_ms, 0);
    world_step(&r->o.w, &c);
}

/* ---- workers ---- */

static uint64_t new_worker(struct run *r, int sub) {
    struct oracle *o = &r->o;
    CHECK(o->last_worker + 1 < WORKERS_MAX);
    struct worker *w = &o->workers[++o->last_worker];
    *w = (struct worker){.state = WORKER_ACTIVE, .sub = sub, .next_tag = 1};
    return o->last_worker;
}

/* A worker in this state, or 0. */
static uint64_t worker_in(struct run *r, enum worker_state state) {
    uint64_t last = r->o.last_worker;
    for (int i = 0; i < 20 && last > 0; i++) {
        uint64_t near = last > 30 && one_in(r, 2) ? last - 30 : 0;
        uint64_t id = near + 1 + below(r, last - near);
        if (r->o.workers[id].state == state) return id;
    }
    return 0;
}

/* What it holds, with something forgotten and something made up. */
static size_t draw_claims(struct run *r, const struct worker *w, struct claim *out) {
    size_t count = 0;
    for (uint64_t tag = 1; tag < w->next_tag && count < CLAIMS_MAX; tag++) {
        const struct hand_out *h = &w->tags[tag];
        if (h->held != HELD ? !one_in(r, 20) : one_in(r, 10)) continue;
        out[count++] = (struct claim){tag, h->seq, h->replay != one_in(r, 20)};
    }
    if (count < CLAIMS_MAX && one_in(r, 3)) {
        out[count++] = (struct claim){w->next_tag, below(r, r->o.last_seq + 2), one_in(r, 2)};
    }
    return count;
}

static uint64_t attach(struct run *r, int sub, uint64_t old) {
    struct claim claims[CLAIMS_MAX];
    struct command c = {.kind = COMMAND_ATTACH};
    uint64_t id = new_worker(r, sub);
    c.u.attach.attachment = id;
    c.u.attach.name = slice_str(sub_names[sub]);
    c.u.attach.window_events = below(r, 20);
    c.u.attach.window_bytes = one_in(r, 4) ? 20 : 1 << 20;
    c.u.attach.concurrency = (uint32_t)below(r, 4);
    if (one_in(r, 3)) c.u.attach.lease_ms = 100 + below(r, 5000);
    c.route.handle = id;
    c.u.attach.session = id;
    if (old != 0) { /* a session keeps its name when it is resumed */
        c.u.attach.session = r->o.workers[old].session;
        c.u.attach.resumes = one_in(r, 10) ? old + 1 : c.u.attach.session;
        c.u.attach.claims = claims;
        c.u.attach.claims_count = draw_claims(r, &r->o.workers[old], claims);
        r->o.workers[old].state = WORKER_GONE;
        r->o.workers[id].state = WORKER_COMING;
    }
    r->o.workers[id].session = c.u.attach.session;
    struct asked *a = oracle_ask(&r->o, &c, sub);
    said(r, "attach worker, for, claims", sub, id, old, c.u.attach.claims_count);
    oracle_attach(&r->o, &c, a);
    return id;
}

static void step_attach(struct run *r) {
    static const enum worker_state states[] = {WORKER_KEPT, WORKER_ORPHAN, WORKER_ACTIVE};
    size_t active = 0;
    for (uint64_t i = 1; i <= r->o.last_worker; i++) {
        active += r->o.workers[i].state == WORKER_ACTIVE;
    }
    uint64_t old = one_in(r, 2) ? worker_in(r, states[below(r, 3)]) : 0;
    if (old == 0 && active > 8) return;
    /* Some come back to another subscription than they left. */
    int sub = old != 0 && !one_in(r, 10) ? r->o.workers[old].sub : any_sub(r);
    attach(r, sub, old);
}

static uint64_t any_delay(struct run *r) {
    switch (below(r, 6)) {
    case 0:
    case 1: return DELAY_BY_POLICY;
    case 2:
    case 3: return below(r, 300);
    case 4: return MINUTE_MS - 10 + below(r, 20 * MINUTE_MS); /* on both sides of what is parked */
    default: return r->temper.long_times ? below(r, DAY_MS) : 0;
    }
}

/* What the worker has said about these tags. */
static void note_settled(struct run *r, struct worker *w, const struct command *c) {
    const struct tag_range *range = c->u.settle.ranges;
    if (c->kind == COMMAND_EXTEND) return;
    for (uint64_t tag = range->lo; tag <= range->hi; tag++) {
        struct hand_out *h = &w->tags[tag];
        if (h->held == HELD_REFUSED) continue;
        if (c->kind == COMMAND_ACK && !c->u.settle.confirm) {
            r->o.subs[w->sub].events[h->seq].acked[h->replay ? REPLAY : LIVE] = true;
        }
        h->held = HELD_NOT;
    }
}

static void settle(struct run *r, uint64_t id, struct command *c, struct tag_range range) {
    struct worker *w = oracle_worker(&r->o, id);
    c->u.settle.attachment = id;
    c->u.settle.ranges = &range;
    c->u.settle.count = 1;
    oracle_ask(&r->o, c, w->sub);
    note_settled(r, w, c);
    said(r,
         c->kind == COMMAND_ACK    ? "ack"
         : c->kind == COMMAND_NACK ? "nack"
                                   : "extend",
         w->sub, id, range.lo, range.hi);
    world_step(&r->o.w, c);
}

static void step_settle(struct run *r) {
    static const enum command_kind kinds[] = {COMMAND_ACK, COMMAND_ACK, COMMAND_NACK,
                                              COMMAND_EXTEND};
    uint64_t id = worker_in(r, WORKER_ACTIVE);
    if (id == 0 || r->o.workers[id].next_tag == 1) return;
    uint64_t next_tag = r->o.workers[id].next_tag;
    struct tag_range range;
    range.lo =
        next_tag > 10 && !one_in(r, 4) ? next_tag - 1 - below(r, 10) : 1 + below(r, next_tag - 1);
    range.hi = one_in(r, 3) ? range.lo + below(r, next_tag - range.lo) : range.lo;
    struct command c = {.kind = kinds[below(r, 4)]};
    c.u.settle.confirm = !one_in(r, 4);
    if (c.kind == COMMAND_EXTEND) {
        if (one_in(r, 2)) c.u.settle.lease_ms = 50 + below(r, 5000); /* some are refused */
    } else {
        c.u.settle.kind = (enum nack_kind)below(r, 4);
        c.u.settle.delay_ms = any_delay(r);
        c.u.settle.failure = (struct failure){.type = slice_str("Random"),
                                              .message = slice_str(one_in(r, 2) ? "again" : ""),
                                              .detail = slice_str("at random")};
    }
    settle(r, id, &c, range);
}

static void detach(struct run *r, uint64_t id, enum detach_kind how) {
    struct command c = {.kind = COMMAND_DETACH};
    struct worker *w = oracle_worker(&r->o, id);
    c.u.detach.attachment = id;
    c.u.detach.how = how;
    c.u.detach.grace_ms = (uint32_t)below(r, 2000);
    oracle_ask(&r->o, &c, w->sub);
    said(r, "detach", w->sub, id, c.u.detach.how, c.u.detach.grace_ms);
    w->state = how == DETACH_KEEP ? WORKER_KEPT : WORKER_GONE;
    world_step(&r->o.w, &c);
}

static void step_worker(struct run *r) {
    uint64_t id = worker_in(r, WORKER_ACTIVE);
    struct command c = {0};
    if (id == 0) return;
    switch (below(r, 3)) {
    case 0:
        c.kind = COMMAND_WINDOW;
        c.u.window.attachment = id;
        c.u.window.events = below(r, 30);
        c.u.window.bytes = 1 << 20;
        break;
    case 1:
        c.kind = COMMAND_HOLD;
        c.u.hold.attachment = id;
        c.u.hold.hold = one_in(r, 2);
        break;
    default: detach(r, id, (enum detach_kind)below(r, 3)); return;
    }
    oracle_ask(&r->o, &c, 0);
    said(r, "window or hold of worker", r->o.workers[id].sub, id, c.kind, c.u.window.events);
    world_step(&r->o.w, &c);
}

/* ---- the run ---- */

static void crash(struct run *r) {
    said(r, "crash", 0, 0, 0, 0);
    oracle_crash(&r->o);
    engine_set_retention(r->o.w.engine, &r->retention);
}

static void pass_time(struct run *r) {
    uint64_t ms = below(r, 200);
    int64_t step_ms = 0;
    if (one_in(r, 40)) ms = below(r, 5 * MINUTE_MS);
    if (r->temper.long_times && one_in(r, 150)) ms = below(r, 3 * DAY_MS);
    if (r->temper.clock_steps && one_in(r, 40)) {
        uint64_t most_ms = one_in(r, 2) ? 2000 : one_in(r, 2) ? HOUR_MS : 2 * DAY_MS;
        step_ms = (int64_t)below(r, 2 * most_ms) - (int64_t)most_ms;
    }
    said(r, "time, and clock back or forth", 0, ms, step_ms < 0 ? (uint64_t)-step_ms : 0,
         step_ms > 0 ? (uint64_t)step_ms : 0);
    oracle_time(&r->o, ms, step_ms);
}

static void turn(struct run *r) {
    oracle_turn(&r->o);
    if (one_in(r, 20)) {
        memory_store_sync(r->o.w.store, SIZE_MAX);
        oracle_check_rows(&r->o);
    } else if (one_in(r, r->temper.sync_one_in)) {
        memory_store_sync(r->o.w.store, 1 + below(r, 3));
    }
    show(r);
}

/* Turns until nothing is due at this moment; time does not pass. */
static void turns(struct run *r) {
    int count = 0;
    do {
        CHECK(++count < 100000);
        oracle_turn(&r->o);
    } while (engine_next_deadline(r->o.w.engine, r->o.w.time) <= r->o.w.time.now_ms);
    show(r);
}

static void ack_everything(struct run *r) {
    for (uint64_t id = 1; id <= r->o.last_worker; id++) {
        struct worker *w = &r->o.workers[id];
        bool holds = false;
        if (w->state != WORKER_ACTIVE) continue;
        for (uint64_t tag = 1; tag < w->next_tag; tag++) {
            holds |= w->tags[tag].held == HELD || w->tags[tag].held == HELD_LOST;
        }
        if (!holds) continue;
        struct command c = {.kind = COMMAND_ACK};
        c.u.settle.confirm = true;
        settle(r, id, &c, (struct tag_range){1, w->next_tag - 1});
    }
}

static bool all_settled(struct run *r) {
    struct engine_stats stats;
    engine_stats(r->o.w.engine, &stats);
    if (stats.tasks_running > 0) return false;
    for (int s = 0; s < SUBS; s++) {
        struct subscription_info info;
        if (!engine_subscription_get(r->o.w.engine, slice_str(sub_names[s]), &info)) continue;
        if (info.floor != r->o.last_seq + 1 || info.why_idle != IDLE_EMPTY) return false;
        if (info.ready + info.leased + info.delayed + info.blocked > 0) return false;
    }
    return true;
}

/* No more faults: everything must settle. */
static void liveness(struct run *r) {
    struct oracle *o = &r->o;
    memory_store_set_manual(o->w.store, false);
    if (r->temper.crash_one_in != 0) crash(r);
    set_retention(r, false);
    for (uint64_t id = 1; id <= o->last_worker; id++) {
        if (o->workers[id].state == WORKER_ACTIVE) detach(r, id, (enum detach_kind)below(r, 3));
    }
    for (int s = 0; s < SUBS; s++) {
        step_pause(r, s, false);
        step_update(r, s, true);
        struct command c = {.kind = COMMAND_WINDOW};
        c.u.window.attachment = attach(r, s, 0);
        c.u.window.events = 50;
        c.u.window.bytes = 1 << 20;
        oracle_ask(o, &c, s);
        world_step(&o->w, &c);
    }
    for (int round = 0;; round++) {
        CHECK(round < 20000);
        turns(r);
        ack_everything(r);
        turns(r);
        store_end_reads(o->w.store);
        if (all_settled(r)) break;
        uint64_t at_ms = engine_next_deadline(o->w.engine, o->w.time);
        CHECK(at_ms != UINT64_MAX); /* something waits for a time that never comes */
        oracle_time(o, at_ms - o->w.time.now_ms, 0);
    }
    store_end_reads(o->w.store);
    oracle_check_end(o);
    /* A clean stop: nothing comes again. */
    uint64_t before = o->deliveries;
    engine_flush(o->w.engine);
    turns(r);
    crash(r);
    for (int s = 0; s < SUBS; s++) attach(r, s, 0);
    turns(r);
    oracle_time(o, o->w.options.restart_grace_ms + 1, 0);
    turns(r);
    CHECK(o->deliveries == before);
    oracle_check_end(o);
}

static void draw_run(struct run *r, uint64_t seed, bool trace) {
    memset(r, 0, sizeof *r);
    prng_seed(&r->prng, seed);
    r->trace = trace;
    r->temper = (struct temper){
        .steps = 100 + below(r, 700),
        .crash_one_in = one_in(r, 3) ? 0 : 20 + below(r, 200),
        .turn_one_in = 1 + below(r, 6),
        .sync_one_in = 1 + below(r, 6),
        .seeks = one_in(r, 3),
        .updates = one_in(r, 3),
        .tasks = one_in(r, 2),
        .retention = one_in(r, 2),
        .clock_steps = one_in(r, 4),
        .long_times = one_in(r, 3),
        .deletes = one_in(r, 4),
    };
    struct engine_options *options = &r->o.w.options;
    options->seed = seed;
    options->outstanding_max = 1 + (uint32_t)below(r, one_in(r, 2) ? 60 : 1000);
    options->turn_scan_events = 1 + (uint32_t)below(r, one_in(r, 2) ? 50 : 10000);
    options->turn_deliver_bytes = 300 * (1 + (uint32_t)below(r, 20));
    if (one_in(r, 2)) options->restart_grace_ms = 1 + (uint32_t)below(r, 3000);
    r->o.w.quiet = !trace;
}

static void run(struct run *r, uint64_t seed, bool trace) {
    draw_run(r, seed, trace);
    oracle_open(&r->o);
    memory_store_set_manual(r->o.w.store, true);
    for (int s = 0; s < SUBS; s++) step_create(r, s, START_FIRST);
    const struct temper *t = &r->temper;
    for (uint64_t i = 0; i < t->steps; i++) {
        uint64_t what = below(r, 20);
        if (what < 7) step_publish(r);
        else if (what < 9) step_attach(r);
        else if (what < 16) step_settle(r);
        else if (what < 18) step_worker(r);
        else step_operator(r);
        if (one_in(r, t->turn_one_in)) turn(r);
        if (one_in(r, 4)) pass_time(r);
        if (t->crash_one_in != 0 && one_in(r, t->crash_one_in)) crash(r);
    }
    liveness(r);
    oracle_close(&r->o);
}

static uint64_t from_environment(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

int main(int argc, char **argv) {
    uint64_t seed = from_environment("BELLHOP_TEST_SEED", 1);
    uint64_t runs = from_environment("BELLHOP_RANDOM_RUNS", RUNS_DEFAULT);
    if (argc > 1) {
        seed = strtoull(argv[1], NULL, 10);
        runs = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    }
    uint64_t deliveries = 0, crashes = 0, confirmed = 0, resumed = 0;
    struct run *r = mem_zalloc(sizeof *r);
    for (uint64_t i = 0; i < runs; i++) {
        /* Said before the run: what aborts is replayed by this number. */
        fprintf(stderr, "\rseed %llu ", (unsigned long long)(seed + i));
        run(r, seed + i, argc > 3);
        deliveries += r->o.deliveries;
        crashes += r->o.crashes;
        confirmed += r->o.confirmed_total;
        resumed += r->o.resumed;
    }
    fprintf(stderr,
            "\r%llu seeds, %llu deliveries, %llu crashes, %llu confirmed acks, %llu claims "
            "granted: all hold\n",
            (unsigned long long)runs, (unsigned long long)deliveries, (unsigned long long)crashes,
            (unsigned long long)confirmed, (unsigned long long)resumed);
    free(r);
    return 0;
}
