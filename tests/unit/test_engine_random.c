/* Random commands, crashes and time on the engine with a simulated disk; engine_check after every
 * turn, and an oracle that knows what must be true:
 *   - an event whose PUBLISH was answered is delivered to each matching subscription, or is a dead
 *     letter of it, by the end;
 *   - after an ack was confirmed the live cursor never hands that event out again;
 *   - what is delivered was published, with its own type;
 *   - an id that was answered is never journaled again.
 * Usage: test_engine_random [seed [runs]]; a failing seed is printed and replays exactly. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/prng.h"
#include "tests/unit/engine_world.h"

#define SUBS            3
#define EVENTS_MAX      4000
#define ATTACHMENTS_MAX 6
#define TAGS_MAX        20000
#define STEPS           400
#define IDS             300

static const char *const types[] = {"a.x", "a.y", "b.x"};
static const char *const filters[SUBS] = {"a.*", "*", "b.x"};

struct hand_out {
    uint64_t seq;
    bool replay;
};

struct worker {
    uint64_t id; /* 0: none */
    int sub;
    uint64_t next_tag;
    struct hand_out tags[TAGS_MAX];
};

struct oracle {
    struct world w;
    struct prng prng;
    uint64_t last_seq;       /* answered */
    int type_of[EVENTS_MAX]; /* by seq; -1 unknown */
    bool delivered[SUBS][EVENTS_MAX], confirmed[SUBS][EVENTS_MAX];
    uint64_t seq_of_id[IDS];
    int pending_type[64], pending_id[64]; /* PUBLISH commands in order, not answered yet */
    size_t pending_head, pending_count;
    struct worker workers[ATTACHMENTS_MAX];
    uint64_t next_attachment;
    bool exists[SUBS];
    uint64_t deliveries, crashes, confirmed_total;
};

static struct worker *worker_of(struct oracle *o, uint64_t id) {
    for (int i = 0; i < ATTACHMENTS_MAX; i++) {
        if (o->workers[i].id == id) return &o->workers[i];
    }
    return NULL;
}

static void on_published(struct oracle *o, const struct effect *f) {
    CHECK(o->pending_count > 0);
    int type = o->pending_type[o->pending_head], id = o->pending_id[o->pending_head];
    o->pending_head = (o->pending_head + 1) % 64;
    o->pending_count--;
    if (f->err != ERR_OK) return;
    struct publish_result r = f->u.published.results[0];
    CHECK(r.seq < EVENTS_MAX);
    if (id >= 0) {
        CHECK(o->seq_of_id[id] == 0 || (r.duplicate && r.seq == o->seq_of_id[id]));
        o->seq_of_id[id] = r.seq;
    }
    if (r.duplicate) return;
    CHECK(r.seq > o->last_seq); /* never given out twice, also after a crash */
    o->last_seq = r.seq;
    o->type_of[r.seq] = type;
}

static void on_settled(struct oracle *o, const struct effect *f) {
    struct worker *w = worker_of(o, f->u.settled.attachment);
    if (w == NULL || f->err != ERR_OK || f->route.rid != COMMAND_ACK) return;
    for (size_t i = 0; i < f->u.settled.ok_count; i++) {
        struct tag_range r = f->u.settled.ok[i];
        for (uint64_t tag = r.lo; tag <= r.hi; tag++) {
            CHECK(tag < w->next_tag);
            if (w->tags[tag].replay) continue;
            o->confirmed[w->sub][w->tags[tag].seq] = true;
            o->confirmed_total++;
        }
    }
}

static void on_effect(void *ctx, const struct effect *f) {
    struct oracle *o = ctx;
    if (f->kind == EFFECT_PUBLISHED) on_published(o, f);
    if (f->kind == EFFECT_SETTLED) on_settled(o, f);
    if (f->kind != EFFECT_DELIVER) return;
    struct worker *w = worker_of(o, f->u.deliver.attachment);
    if (w == NULL) return; /* detached in the same turn */
    uint64_t seq = f->u.deliver.event.seq;
    CHECK(f->u.deliver.tag == w->next_tag && w->next_tag < TAGS_MAX);
    w->tags[w->next_tag++] = (struct hand_out){seq, f->u.deliver.replay};
    o->deliveries++;
    CHECK(seq <= o->last_seq && slice_eq_str(f->u.deliver.event.type, types[o->type_of[seq]]));
    if (f->u.deliver.replay) return;
    CHECK(!o->confirmed[w->sub][seq]);
    o->delivered[w->sub][seq] = true;
}

static uint64_t below(struct oracle *o, uint64_t n) {
    return prng_below(&o->prng, n);
}

static const char *sub_name(int sub) {
    static const char *const names[SUBS] = {"s0", "s1", "s2"};
    return names[sub];
}

static void step_publish(struct oracle *o) {
    if (o->pending_count == 64) return;
    int type = (int)below(o, 3), id = below(o, 2) == 0 ? (int)below(o, IDS) : -1;
    char text[16];
    snprintf(text, sizeof text, "id%d", id);
    size_t at = (o->pending_head + o->pending_count++) % 64;
    o->pending_type[at] = type;
    /* The same id stands for the same event: its type is the id's. */
    if (id >= 0) type = o->pending_type[at] = id % 3;
    o->pending_id[at] = id;
    struct event event = {.type = slice_str(types[type]),
                          .id = slice_str(id >= 0 ? text : ""),
                          .body = slice_of(text, below(o, 16))};
    struct command c = {.kind = COMMAND_PUBLISH};
    c.u.publish.events = &event;
    c.u.publish.count = 1;
    c.u.publish.project = PROJECT_DEFAULT;
    world_step(&o->w, &c);
}

static void step_attach(struct oracle *o) {
    struct worker *w = worker_of(o, 0);
    if (w == NULL) return;
    w->id = ++o->next_attachment;
    w->sub = (int)below(o, SUBS);
    w->next_tag = 1;
    if (!o->exists[w->sub]) {
        w->id = 0;
        return;
    }
    struct command c = {.kind = COMMAND_ATTACH};
    c.u.attach.attachment = w->id;
    c.u.attach.name = slice_str(sub_name(w->sub));
    c.u.attach.window_events = below(o, 20);
    c.u.attach.window_bytes = below(o, 4) == 0 ? 20 : 1 << 20;
    c.u.attach.concurrency = (uint32_t)below(o, 4);
    world_step(&o->w, &c);
}

static void step_settle(struct oracle *o) {
    struct worker *w = &o->workers[below(o, ATTACHMENTS_MAX)];
    if (w->id == 0 || w->next_tag == 1) return;
    struct tag_range r;
    r.lo = 1 + below(o, w->next_tag - 1);
    r.hi = below(o, 3) == 0 ? r.lo + below(o, w->next_tag - r.lo) : r.lo;
    static const enum command_kind kinds[] = {COMMAND_ACK, COMMAND_ACK, COMMAND_NACK,
                                              COMMAND_EXTEND};
    struct command c = {.kind = kinds[below(o, 4)]};
    c.route.rid = c.kind;
    c.u.settle.attachment = w->id;
    c.u.settle.ranges = &r;
    c.u.settle.count = 1;
    c.u.settle.confirm = below(o, 2) == 0;
    c.u.settle.kind = (enum nack_kind)below(o, 3);
    c.u.settle.delay_ms = below(o, 2) == 0 ? DELAY_BY_POLICY : below(o, 300);
    c.u.settle.error = slice_str("random");
    world_step(&o->w, &c);
}

static void step_other(struct oracle *o) {
    struct worker *w = &o->workers[below(o, ATTACHMENTS_MAX)];
    struct command c = {0};
    switch (below(o, 4)) {
    case 0:
        if (w->id == 0) return;
        c.kind = COMMAND_WINDOW;
        c.u.window.attachment = w->id;
        c.u.window.events = below(o, 30);
        c.u.window.bytes = 1 << 20;
        break;
    case 1:
        if (w->id == 0) return;
        c.kind = COMMAND_DETACH;
        c.u.detach.attachment = w->id;
        c.u.detach.how = below(o, 2) == 0 ? DETACH_LOST : DETACH_RELEASE;
        w->id = 0;
        break;
    case 2:
        if (w->id == 0) return;
        c.kind = COMMAND_HOLD;
        c.u.hold.attachment = w->id;
        c.u.hold.hold = below(o, 2) == 0;
        break;
    default:
        c.kind = COMMAND_REPLAY_CREATE;
        c.u.replay.name = slice_str(sub_name((int)below(o, SUBS)));
        c.u.replay.from_seq = below(o, o->last_seq + 2);
        break;
    }
    world_step(&o->w, &c);
}

static void crash(struct oracle *o) {
    for (int i = 0; i < ATTACHMENTS_MAX; i++) o->workers[i].id = 0;
    o->pending_count = 0; /* never answered: the outcome is unknown */
    o->crashes++;
    world_crash(&o->w);
    struct engine_stats stats;
    engine_stats(o->w.engine, &stats);
    CHECK(stats.last_seq >= o->last_seq); /* nothing that was answered is missing */
    for (uint64_t seq = o->last_seq + 1; seq <= stats.last_seq; seq++) {
        struct event event;
        bool found = engine_event_get(o->w.engine, seq, &event);
        CHECK(found);
        for (int t = 0; t < 3; t++) {
            if (slice_eq_str(event.type, types[t])) o->type_of[seq] = t;
        }
    }
    o->last_seq = stats.last_seq;
    store_end_reads(o->w.store);
}

/* One turn; the disk may hold it and later ones back. */
static void end_turn(struct oracle *o) {
    struct engine_turn *turn = engine_end_turn(o->w.engine, o->w.time);
    if (turn != NULL) {
        int err = store_submit(o->w.store, &turn->batch);
        CHECK(err == 0);
    }
    engine_check(o->w.engine);
    store_end_reads(o->w.store);
    if (below(o, 3) == 0) memory_store_sync(o->w.store, 1 + below(o, 3));
}

static bool count_dead(void *ctx, const struct dead_letter *d) {
    bool *dead = ctx;
    if (d->cursor == 0) dead[d->event.seq] = true;
    return true;
}

static bool all_settled(struct oracle *o) {
    for (int s = 0; s < SUBS; s++) {
        struct subscription_info info;
        bool found = engine_subscription_get(o->w.engine, slice_str(sub_name(s)), &info);
        CHECK(found);
        if (info.floor != o->last_seq + 1 || info.replays > 0) return false;
        if (info.ready + info.leased + info.delayed > 0) return false;
    }
    return true;
}

/* No more faults: one willing worker per subscription; everything must settle. */
static void liveness(struct oracle *o) {
    memory_store_set_manual(o->w.store, false);
    crash(o);
    for (int s = 0; s < SUBS; s++) {
        struct worker *w = &o->workers[s];
        w->id = ++o->next_attachment;
        w->sub = s;
        w->next_tag = 1;
        world_attach(&o->w, w->id, sub_name(s), 50, 0);
    }
    for (int round = 0; round < 2000 && !all_settled(o); round++) {
        for (int s = 0; s < SUBS; s++) {
            struct worker *w = &o->workers[s];
            if (w->next_tag == 1) continue;
            world_settle(&o->w, COMMAND_ACK, w->id, 1, w->next_tag - 1, false);
        }
        world_wait(&o->w, 100);
    }
    for (int s = 0; s < SUBS; s++) {
        struct subscription_info info;
        bool dead[EVENTS_MAX] = {false};
        bool found = engine_subscription_get(o->w.engine, slice_str(sub_name(s)), &info);
        CHECK(found);
        CHECK(info.floor == o->last_seq + 1 && info.ready + info.leased + info.delayed == 0);
        CHECK(info.why_idle == IDLE_EMPTY && info.replays == 0);
        engine_dead_scan(o->w.engine, slice_str(sub_name(s)), 0, 0, count_dead, dead);
        store_end_reads(o->w.store);
        for (uint64_t seq = 1; seq <= o->last_seq; seq++) {
            bool wants = filters[s][0] == '*' || types[o->type_of[seq]][0] == filters[s][0];
            CHECK(wants || !o->delivered[s][seq]);
            CHECK(!wants || o->delivered[s][seq] || dead[seq]);
        }
    }
}

static void run(uint64_t seed, struct oracle *o) {
    memset(o, 0, sizeof *o);
    prng_seed(&o->prng, seed);
    o->w.quiet = true;
    o->w.on_effect = on_effect;
    o->w.on_effect_ctx = o;
    o->w.options.outstanding_max = 1 + (uint32_t)below(o, 60);
    o->w.options.turn_scan_events = 1 + (uint32_t)below(o, 50);
    o->w.options.turn_deliver_bytes = 300 * (1 + (uint32_t)below(o, 20));
    world_open(&o->w);
    struct policy p = policy_default();
    p.lease_ms = 100 + below(o, 400);
    p.max_fails = (uint32_t)below(o, 6);
    p.backoff_min_ms = below(o, 50);
    p.backoff_max_ms = 50 + below(o, 500);
    for (int s = 0; s < SUBS; s++) {
        world_create(&o->w, sub_name(s), filters[s], &p, START_FIRST);
        o->exists[s] = true;
    }
    memory_store_set_manual(o->w.store, true);
    uint64_t crash_one_in = 20 + below(o, 200), turn_one_in = 1 + below(o, 6);
    for (int i = 0; i < STEPS; i++) {
        uint64_t what = below(o, 20);
        if (what < 8) step_publish(o);
        else if (what < 10) step_attach(o);
        else if (what < 17) step_settle(o);
        else step_other(o);
        if (below(o, turn_one_in) == 0) end_turn(o);
        if (below(o, 4) == 0) {
            uint64_t ms = below(o, 200);
            o->w.time.now_ms += ms;
            o->w.time.wall_ms += ms;
        }
        if (below(o, crash_one_in) == 0) crash(o);
    }
    liveness(o);
    world_close(&o->w);
}

int main(int argc, char **argv) {
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t runs = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : 60;
    uint64_t deliveries = 0, crashes = 0, confirmed = 0;
    struct oracle *o = mem_zalloc(sizeof *o);
    for (uint64_t i = 0; i < runs; i++) {
        /* Said before the run: what aborts is replayed by this number. */
        fprintf(stderr, "\rseed %llu ", (unsigned long long)(seed + i));
        run(seed + i, o);
        deliveries += o->deliveries;
        crashes += o->crashes;
        confirmed += o->confirmed_total;
    }
    fprintf(stderr, "\r%llu seeds, %llu deliveries, %llu crashes, %llu confirmed acks: all hold\n",
            (unsigned long long)runs, (unsigned long long)deliveries, (unsigned long long)crashes,
            (unsigned long long)confirmed);
    free(o);
    return 0;
}
