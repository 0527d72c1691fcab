/* Workers and the network between them and the broker: late, doubled, forged, deaf, hanging,
 * vanishing, coming back. */
#include <stdio.h>

#include "tests/sim/sim.h"

#define LOOK_BACK 64 /* how many of the latest workers a step looks at */

/* ---- which worker ---- */

enum which { WHICH_SETTLES, WHICH_ACTIVE, WHICH_HEARS, WHICH_DEAF, WHICH_HANGS, WHICH_GONE };

static bool is_of(const struct worker *w, enum which which) {
    switch (which) {
    case WHICH_SETTLES: return w->state == WORKER_ACTIVE && !w->hangs && w->next_tag > 1;
    case WHICH_ACTIVE: return w->state == WORKER_ACTIVE;
    case WHICH_HEARS: return w->state == WORKER_ACTIVE && !w->deaf;
    case WHICH_DEAF: return w->attached && w->deaf;
    case WHICH_HANGS: return w->state == WORKER_ACTIVE && w->hangs;
    case WHICH_GONE: return w->state == WORKER_KEPT || w->state == WORKER_ORPHAN;
    }
    UNREACHABLE("every kind was worked on above");
}

/* The one of them with the lowest hash, or 0: the pick is the same when another one never was. */
static uint64_t worker_of(struct run *r, enum which which) {
    uint64_t salt = prng_next(&r->prng), lowest = UINT64_MAX, found = 0;
    uint64_t last = r->o.last_worker, from = last > LOOK_BACK ? last - LOOK_BACK : 0;
    for (uint64_t id = from + 1; id <= last; id++) {
        const struct worker *w = &r->o.workers[id];
        if (!is_of(w, which)) continue;
        uint64_t score = map_mix(salt ^ w->born);
        if (score >= lowest) continue;
        lowest = score;
        found = id;
    }
    return found;
}

/* ---- coming ---- */

static uint64_t new_worker(struct run *r, int sub) {
    struct oracle *o = &r->o;
    CHECK(o->last_worker + 1 < WORKERS_MAX);
    struct worker *w = &o->workers[++o->last_worker];
    *w = (struct worker){.state = WORKER_ACTIVE,
                         .sub = sub,
                         .born = r->step,
                         .next_tag = 1,
                         .first_open = 1,
                         .hangs = run_one_in(r, 12)};
    return o->last_worker;
}

/* What it holds, with something forgotten and something made up, or taken from another one. */
static size_t draw_claims(struct run *r, const struct worker *w, struct claim *out) {
    size_t count = 0;
    for (uint64_t tag = 1; tag < w->next_tag && count < CLAIMS_MAX; tag++) {
        const struct hand_out *h = &w->tags[tag];
        if (h->held != HELD ? h->seq == 0 || !run_one_in(r, 20) : run_one_in(r, 10)) continue;
        out[count++] = (struct claim){tag, h->seq, h->replay != run_one_in(r, 20)};
    }
    uint64_t other = run_one_in(r, 4) ? worker_of(r, WHICH_ACTIVE) : 0, tag = w->next_tag;
    for (uint64_t t = 1; other != 0 && t < r->o.workers[other].next_tag; t++) {
        const struct hand_out *h = &r->o.workers[other].tags[t];
        if (h->held != HELD || count >= CLAIMS_MAX) continue;
        out[count++] = (struct claim){tag++, h->seq, h->replay};
    }
    if (count < CLAIMS_MAX && run_one_in(r, 3)) {
        out[count++] = (struct claim){tag, run_below(r, r->o.last_seq + 2), run_one_in(r, 2)};
    }
    return count;
}

/* Some make their subscription while they come. */
static void ask_to_create(struct run *r, struct command *c, struct asked *a,
                          struct drawn_policy *d) {
    bool may = run_one_in(r, 2) && r->step < STEP_END;
    operator_policy(r, d);
    if (!may || oracle_sub(&r->o, a->sub) != NULL) return;
    c->u.attach.create = &d->policy;
    c->u.attach.start = run_one_in(r, 2) ? START_NEW : START_FIRST;
    a->filter = d->filter;
    a->order = d->order;
    a->expire = d->policy.lag == LAG_EXPIRE;
    a->max_fails = d->policy.max_fails;
    a->max_age_ms = d->policy.max_age_ms;
    a->id = r->o.w.engine->next_id;
    a->seq =
        c->u.attach.start == START_NEW ? r->o.w.engine->last_seq + 1 : oldest_seq(r->o.w.engine);
}

uint64_t worker_attach(struct run *r, int sub, uint64_t old) {
    struct claim claims[CLAIMS_MAX];
    struct drawn_policy d;
    struct oracle *o = &r->o;
    struct command c = oracle_command(o, COMMAND_ATTACH, sub);
    uint64_t id = new_worker(r, sub);
    c.u.attach.attachment = id;
    c.u.attach.name = slice_str(o->slots[sub].name);
    c.u.attach.window_events = run_below(r, 20);
    c.u.attach.window_bytes = run_one_in(r, 4) ? 20 : 1 << 20;
    c.u.attach.concurrency = (uint32_t)run_below(r, 4);
    if (run_one_in(r, 3)) c.u.attach.lease_ms = 100 + run_below(r, 5000);
    c.u.attach.alone = run_one_in(r, 8);
    c.route.handle = id;
    c.u.attach.session = id;
    if (old != 0) { /* a session keeps its name when it is resumed */
        c.u.attach.session = o->workers[old].session;
        c.u.attach.resumes = run_one_in(r, 10) ? old + 1 : c.u.attach.session;
        c.u.attach.claims = claims;
        c.u.attach.claims_count = draw_claims(r, &o->workers[old], claims);
        o->workers[old].state = WORKER_GONE;
        o->workers[id].state = WORKER_COMING;
    }
    o->workers[id].session = c.u.attach.session;
    struct asked *a = oracle_ask(o, &c, sub);
    ask_to_create(r, &c, a, &d);
    run_say(r, "worker %llu comes to %s: window %llu and %llu bytes, concurrency %u%s%s",
            (unsigned long long)id, o->slots[sub].label,
            (unsigned long long)c.u.attach.window_events,
            (unsigned long long)c.u.attach.window_bytes, c.u.attach.concurrency,
            c.u.attach.alone ? ", alone" : "", c.u.attach.create != NULL ? ", and makes it" : "");
    if (old != 0) {
        run_say(r, "  it was %llu in session %llu, resumes %llu, with %zu claims",
                (unsigned long long)old, (unsigned long long)c.u.attach.session,
                (unsigned long long)c.u.attach.resumes, c.u.attach.claims_count);
    }
    oracle_attach(o, &c, a);
    return id;
}

void worker_step_attach(struct run *r) {
    static const enum which kinds[] = {WHICH_GONE, WHICH_GONE, WHICH_ACTIVE};
    enum which which = kinds[run_below(r, 3)];
    size_t active = 0;
    /* The end of the run needs some, too. */
    if (r->o.last_worker + 4 * SUBS >= WORKERS_MAX) return;
    for (uint64_t i = 1; i <= r->o.last_worker; i++) {
        active += r->o.workers[i].state == WORKER_ACTIVE;
    }
    uint64_t old = run_one_in(r, 2) ? worker_of(r, which) : 0;
    if (old == 0 && active > 8) return;
    /* Some come back to another subscription than they left. */
    int sub = run_sub(r);
    worker_attach(r, old != 0 && !run_one_in(r, 10) ? r->o.workers[old].sub : sub, old);
}

/* ---- settling ---- */

static uint64_t any_delay(struct run *r) {
    switch (run_below(r, 6)) {
    case 0:
    case 1: return DELAY_BY_POLICY;
    case 2:
    case 3: return run_below(r, 300);
    case 4: /* on both sides of what is parked */
        return MINUTE_MS - 10 + run_below(r, 20 * MINUTE_MS);
    default: return r->temper.long_times ? run_below(r, DAY_MS + HOUR_MS) : 0;
    }
}

/* What the worker has said about these tags, as it sees it. */
static void note_settled(struct worker *w, const struct command *c) {
    if (c->kind == COMMAND_EXTEND) return;
    for (size_t i = 0; i < c->u.settle.count; i++) {
        const struct tag_range *range = &c->u.settle.ranges[i];
        for (uint64_t tag = range->lo; tag <= range->hi && tag < w->next_tag; tag++) {
            if (w->tags[tag].held != HELD_REFUSED) w->tags[tag].held = HELD_NOT;
        }
    }
}

static const char *settle_name(const struct command *c) {
    static const char *const nacks[] = {"release", "fail", "reject", "give elsewhere"};
    if (c->kind == COMMAND_NACK) return nacks[c->u.settle.kind];
    return c->kind == COMMAND_ACK ? "ack" : "extend";
}

static void send(struct run *r, struct command *c) {
    const struct worker *w = oracle_worker(&r->o, c->u.settle.attachment);
    for (size_t i = 0; i < c->u.settle.count; i++) {
        run_say(
            r, "worker %llu of %s: %s %llu to %llu%s", (unsigned long long)c->u.settle.attachment,
            r->o.slots[w->sub].label, settle_name(c), (unsigned long long)c->u.settle.ranges[i].lo,
            (unsigned long long)c->u.settle.ranges[i].hi, c->u.settle.confirm ? ", and tell" : "");
    }
    oracle_settle(&r->o, c);
}

static struct tag_range any_range(struct run *r, const struct worker *w) {
    uint64_t next = w->next_tag;
    struct tag_range range;
    range.lo =
        next > 10 && !run_one_in(r, 4) ? next - 1 - run_below(r, 10) : 1 + run_below(r, next - 1);
    range.hi = run_one_in(r, 3) ? range.lo + run_below(r, next - range.lo) : range.lo;
    if (!r->temper.network || !run_one_in(r, 30)) return range;
    switch (run_below(r, 3)) { /* forged */
    case 0: range.hi = next + run_below(r, 3); break;
    case 1: range.lo = 0; break;
    default: range.hi = range.lo - 1; break;
    }
    return range;
}

static void draw_settle(struct run *r, uint64_t id, struct letter *out) {
    static const enum command_kind kinds[] = {COMMAND_ACK, COMMAND_ACK, COMMAND_NACK,
                                              COMMAND_EXTEND};
    struct command *c = &out->c;
    *c = (struct command){.kind = kinds[run_below(r, 4)]};
    c->u.settle.attachment = id;
    c->u.settle.ranges = out->ranges;
    c->u.settle.count = run_one_in(r, 5) ? 1 + run_below(r, RANGES_MAX) : 1;
    for (size_t i = 0; i < c->u.settle.count; i++) {
        out->ranges[i] = any_range(r, &r->o.workers[id]);
    }
    c->u.settle.confirm = !run_one_in(r, 4);
    if (c->kind == COMMAND_EXTEND) {
        if (run_one_in(r, 2)) c->u.settle.lease_ms = 50 + run_below(r, 5000); /* some are refused */
        return;
    }
    c->u.settle.kind = (enum nack_kind)run_below(r, 4);
    c->u.settle.delay_ms = any_delay(r);
    c->u.settle.failure = (struct failure){.type = slice_str("Random"),
                                           .message = slice_str(run_one_in(r, 2) ? "again" : ""),
                                           .detail = slice_str("at random")};
}

void worker_step_settle(struct run *r) {
    uint64_t id = worker_of(r, WHICH_SETTLES);
    struct letter letter;
    if (id == 0) return;
    draw_settle(r, id, &letter);
    note_settled(&r->o.workers[id], &letter.c);
    bool late = r->temper.network && run_one_in(r, 4);
    if (!late || r->letters_count == LETTERS_MAX) {
        send(r, &letter.c);
        return;
    }
    r->letters[r->letters_count++] = letter;
    run_say(r, "worker %llu: a settlement is on its way", (unsigned long long)id);
}

/* Out of order, and some come twice; its connection, or the broker, may not be what it was. */
void worker_step_late(struct run *r) {
    if (r->letters_count == 0) return;
    size_t at = run_below(r, r->letters_count);
    struct letter letter = r->letters[at];
    letter.c.u.settle.ranges = letter.ranges;
    if (!run_one_in(r, 3)) r->letters[at] = r->letters[--r->letters_count];
    send(r, &letter.c);
}

void worker_ack_all(struct run *r) {
    for (uint64_t id = 1; id <= r->o.last_worker; id++) {
        struct worker *w = &r->o.workers[id];
        struct tag_range range = {1, w->next_tag - 1};
        bool holds = false;
        if (w->state != WORKER_ACTIVE) continue;
        for (uint64_t tag = w->first_open; tag < w->next_tag && !holds; tag++) {
            holds = w->tags[tag].held == HELD || w->tags[tag].held == HELD_LOST;
        }
        if (!holds) continue;
        struct command c = {.kind = COMMAND_ACK};
        c.u.settle.attachment = id;
        c.u.settle.ranges = &range;
        c.u.settle.count = 1;
        c.u.settle.confirm = true;
        note_settled(w, &c);
        send(r, &c);
    }
}

/* ---- the rest ---- */

void worker_window(struct run *r, uint64_t id, uint64_t events) {
    struct command c = {.kind = COMMAND_WINDOW};
    struct worker *w = oracle_worker(&r->o, id);
    c.u.window.attachment = id;
    c.u.window.events = w->window_events = events;
    c.u.window.bytes = w->window_bytes = 1 << 20;
    oracle_ask(&r->o, &c, w->sub);
    run_say(r, "worker %llu: window %llu", (unsigned long long)id, (unsigned long long)events);
    oracle_step(&r->o, &c);
}

static void hold(struct run *r, uint64_t id, bool on) {
    struct command c = {.kind = COMMAND_HOLD};
    struct worker *w = oracle_worker(&r->o, id);
    c.u.hold.attachment = id;
    c.u.hold.hold = w->hold = on;
    oracle_ask(&r->o, &c, w->sub);
    run_say(r, "worker %llu: %s", (unsigned long long)id, on ? "hold" : "go on");
    oracle_step(&r->o, &c);
}

void worker_detach(struct run *r, uint64_t id, enum detach_kind how) {
    static const char *const words[] = {"says goodbye", "is lost", "is kept for a while"};
    struct command c = {.kind = COMMAND_DETACH};
    struct worker *w = oracle_worker(&r->o, id);
    c.u.detach.attachment = id;
    c.u.detach.how = how;
    c.u.detach.grace_ms = (uint32_t)run_below(r, 2000);
    run_say(r, "worker %llu %s", (unsigned long long)id, words[how]);
    w->state = how == DETACH_KEEP ? WORKER_KEPT : WORKER_GONE;
    oracle_detach(&r->o, &c);
}

void worker_step_other(struct run *r) {
    uint64_t id = worker_of(r, WHICH_HEARS);
    if (id == 0) return;
    switch (run_below(r, 3)) {
    case 0: worker_window(r, id, run_below(r, 30)); break;
    case 1: hold(r, id, run_one_in(r, 2)); break;
    default: worker_detach(r, id, (enum detach_kind)run_below(r, 3));
    }
}

void worker_step_link(struct run *r) {
    uint64_t id;
    switch (run_below(r, 4)) {
    case 0:
    case 1: /* what is sent to it is lost from now on, and the broker does not know */
        id = worker_of(r, WHICH_HEARS);
        if (id == 0) return;
        r->o.workers[id].deaf = true;
        run_say(r, "worker %llu hears nothing any more", (unsigned long long)id);
        break;
    case 2: /* the broker gives it up */
        id = worker_of(r, WHICH_DEAF);
        if (id != 0) worker_detach(r, id, run_one_in(r, 3) ? DETACH_LOST : DETACH_KEEP);
        break;
    default:
        id = worker_of(r, run_one_in(r, 2) ? WHICH_HANGS : WHICH_ACTIVE);
        if (id == 0) return;
        r->o.workers[id].hangs = !r->o.workers[id].hangs;
        run_say(r, "worker %llu %s", (unsigned long long)id,
                r->o.workers[id].hangs ? "hangs" : "works again");
    }
}
