/* Bytes as a life of the engine: every kind of command with small arguments, for one of three
 * projects that have the same names, turns, a disk that is late, refuses or loses power, clocks
 * that jump. engine_check holds after each operation, every command that has an answer gets it
 * once, the store can always be opened again. At the end the faults stop, workers ack what they
 * get, and all that is left must settle; a clean restart then finds everything as it was.
 *
 * The first bytes choose the engine's bounds, each of the rest an operation or an argument; a text
 * that ends has arguments 0. What must be true of single events is the simulator's business
 * (tests/sim).
 */
#include <stdio.h>
#include <stdlib.h>

#include "storage/record.h"
#include "tests/unit/engine_world.h"

#define OPERATIONS_MAX 400
#define ANSWERS_MAX    4096 /* rids */
#define ROUNDS_MAX     20000
#define MINUTE_MS      60000
#define HOUR_MS        (60 * (uint64_t)MINUTE_MS)
#define NAMES          4 /* the last one is never created: nobody may have it */
#define SUBS           3
#define PROJECTS       3
#define JOBS_ROOM      5
#define WORKERS_MAX    (OPERATIONS_MAX + PROJECTS * SUBS + 1)
#define LIST_STEPS     4
#define CLAIMS_MAX     4

static const uint32_t projects[PROJECTS] = {PROJECT_DEFAULT, 2, UINT32_MAX};
static const char *const names[NAMES] = {"a", "b", "c", "-"};
static const char *const types[] = {"job.done", "job.failed", "x", ""};
static const char *const subjects[] = {"", "k1", "k2", "k3"};
static const char *const ids[] = {"", "", "1", "2", "3", "4", "5", "6"};
static const char *const metadata[] = {"", "{\"g\":\"u\",\"n\":1}", "{\"g\":2}", "{}"};
static const char *const endpoints[] = {"", "u", "u\nv", "u\n"}; /* the last one is refused */
static const char *const filters[] = {
    "",
    "",
    "{\"types\":[\"job.*\"]}",
    "{\"user_metadata\":{\"n\":1}}",
    "{\"not\":{\"types\":[\"x\"]}}",
    "{\"types\":[]",
    "{\"endpoint\":1}",
    "{\"types\":[\"job.*\"],\"not\":{\"endpoint\":0}}",
};

struct fuzz {
    struct world w;
    struct slice rest;
    uint64_t last_attachment;
    uint32_t project_of[WORKERS_MAX]; /* by attachment */
    uint32_t last_rid;
    bool waits[ANSWERS_MAX]; /* by rid */
    bool ack_at_once;        /* what is handed out is acked while the turn's effects are released */
    struct retention retention;
};

static uint8_t take(struct fuzz *f) {
    if (f->rest.len == 0) return 0;
    uint8_t byte = f->rest.data[0];
    f->rest = slice_from(f->rest, 1);
    return byte;
}

static uint64_t below(struct fuzz *f, uint64_t n) {
    return take(f) % n;
}

#define PICK(f, texts) slice_str((texts)[below((f), sizeof(texts) / sizeof(texts)[0])])

/* Short and long times, 0 among them. */
static uint64_t any_ms(struct fuzz *f) {
    static const uint64_t units[] = {1, 10, 1000, MINUTE_MS, HOUR_MS};
    uint8_t byte = take(f);
    return (byte / 5) * units[byte % 5];
}

/* ---- the world's answers ---- */

static bool has_answer(const struct command *c) {
    switch (c->kind) {
    case COMMAND_WINDOW:
    case COMMAND_HOLD:
    case COMMAND_DETACH: return false;
    case COMMAND_ACK:
    case COMMAND_NACK:
    case COMMAND_EXTEND: return c->u.settle.confirm; /* also refused without it */
    default: return true;
    }
}

static void step(struct fuzz *f, struct command *c) {
    if (has_answer(c) && f->last_rid + 1 < ANSWERS_MAX) {
        c->route.rid = ++f->last_rid;
        f->waits[c->route.rid] = true;
    }
    world_step(&f->w, c);
}

static void settle(struct fuzz *f, enum command_kind kind, uint64_t attachment, uint64_t tag) {
    struct tag_range range = {tag, tag};
    struct command c = {.kind = kind};
    c.u.settle.attachment = attachment;
    c.u.settle.ranges = &range;
    c.u.settle.count = 1;
    c.u.settle.confirm = true;
    step(f, &c);
}

static void on_effect(void *ctx, const struct effect *e) {
    struct fuzz *f = ctx;
    CHECK(e->err == ERR_OK || e->message != NULL);
    switch (e->kind) {
    case EFFECT_PUBLISHED:
    case EFFECT_DONE:
    case EFFECT_ATTACHED:
    case EFFECT_SETTLED:
        if (e->route.rid == 0) return; /* refused though nobody asked; or one rid too many */
        CHECK(f->waits[e->route.rid]);
        f->waits[e->route.rid] = false;
        return;
    case EFFECT_DELIVER:
        CHECK(e->u.deliver.event.project == f->project_of[e->u.deliver.attachment]);
        if (f->ack_at_once) {
            settle(f, COMMAND_ACK, e->u.deliver.attachment, e->u.deliver.tag);
        }
        return;
    case EFFECT_JOB: {
        struct event event;
        struct job_info job;
        CHECK(engine_event_get(f->w.engine, e->u.job.project, e->u.job.seq, &event));
        CHECK(slice_eq(event.subject, e->u.job.id) && e->route.room == JOBS_ROOM);
        /* It may have been forgotten since; its events are its project's. */
        if (!engine_job_get(f->w.engine, e->u.job.project, e->u.job.id, &job)) return;
        for (size_t i = 0; i < job.seqs_count; i++) {
            if (!engine_event_get(f->w.engine, e->u.job.project, job.seqs[i], &event)) continue;
            CHECK(slice_eq(event.subject, job.id));
        }
        return;
    }
    default: return;
    }
}

/* ---- commands ---- */

static struct policy any_policy(struct fuzz *f, uint64_t list_ms[LIST_STEPS]) {
    struct policy p = policy_default();
    uint8_t bits = take(f);
    p.filter = PICK(f, filters);
    if (bits & 1) p.lease_ms = 90 + any_ms(f);
    if (bits & 2) p.max_hold_ms = p.lease_ms + any_ms(f);
    if (bits & 4) p.max_age_ms = any_ms(f);
    if (bits & 8) p.max_fails = (uint32_t)below(f, 4);
    if (bits & 16) p.backoff_min_ms = any_ms(f);
    if (bits & 32) {
        p.backoff_list_count = 1 + (uint32_t)below(f, LIST_STEPS);
        p.backoff_list_ms = list_ms;
        for (uint32_t i = 0; i < p.backoff_list_count; i++) list_ms[i] = any_ms(f);
    }
    if (bits & 64) p.rate_per_s = (uint32_t)any_ms(f);
    if (bits & 128) {
        uint8_t more = take(f);
        p.ordered = (more & 3) != 0;
        if ((more & 3) == 2) p.order_key = slice_str("g");
        p.lag = more & 4 ? LAG_EXPIRE : LAG_BLOCK;
    }
    return p;
}

static uint64_t any_place(struct fuzz *f, enum start_kind start) {
    if (start == START_TIME) return f->w.time.wall_ms - any_ms(f);
    return below(f, f->w.last_seq < 255 ? f->w.last_seq + 3 : 255);
}

static void op_publish(struct fuzz *f) {
    struct event events[3];
    struct command c = {.kind = COMMAND_PUBLISH, .project = f->w.project};
    static const uint8_t body[64];
    c.u.publish.count = 1 + below(f, 3);
    c.u.publish.events = events;
    for (size_t i = 0; i < c.u.publish.count; i++) {
        events[i] = (struct event){.type = PICK(f, types),
                                   .subject = PICK(f, subjects),
                                   .id = PICK(f, ids),
                                   .metadata = PICK(f, metadata),
                                   .body = slice_of(body, below(f, sizeof body))};
        uint8_t due = take(f);
        if (due & 1) events[i].deliver_at_ms = f->w.time.wall_ms + any_ms(f);
        events[i].endpoints = slice_str(endpoints[due >> 2 & 3]);
        if (due & 2) events[i].deliver_at_ms += 30 * 24 * HOUR_MS - 8 * HOUR_MS;
    }
    step(f, &c);
}

static void op_create(struct fuzz *f) {
    uint64_t list_ms[LIST_STEPS];
    struct command c = {.kind = COMMAND_SUBSCRIPTION_CREATE, .project = f->w.project};
    c.u.create.name = PICK(f, names);
    c.u.create.policy = any_policy(f, list_ms);
    c.u.create.start = (enum start_kind)below(f, 4);
    c.u.create.start_value = any_place(f, c.u.create.start);
    step(f, &c);
}

static void op_update(struct fuzz *f) {
    uint64_t list_ms[LIST_STEPS];
    struct command c = {.kind = COMMAND_SUBSCRIPTION_UPDATE, .project = f->w.project};
    c.u.update.name = PICK(f, names);
    c.u.update.policy = any_policy(f, list_ms);
    step(f, &c);
}

static void op_pause(struct fuzz *f) {
    struct command c = {.kind = COMMAND_SUBSCRIPTION_PAUSE, .project = f->w.project};
    c.u.pause.name = PICK(f, names);
    uint8_t bits = take(f);
    c.u.pause.paused = bits & 1;
    c.u.pause.ages = bits & 2;
    step(f, &c);
}

static void op_seek(struct fuzz *f) {
    struct command c = {.kind = COMMAND_SUBSCRIPTION_SEEK, .project = f->w.project};
    c.u.seek.name = PICK(f, names);
    c.u.seek.start = (enum start_kind)below(f, 4);
    c.u.seek.start_value = any_place(f, c.u.seek.start);
    step(f, &c);
}

static void op_delete(struct fuzz *f) {
    struct command c = {.kind = COMMAND_SUBSCRIPTION_DELETE, .project = f->w.project};
    c.u.delete.name = PICK(f, names);
    step(f, &c);
}

static void op_task(struct fuzz *f) {
    struct command c = {.kind = COMMAND_TASK_CREATE, .project = f->w.project};
    uint8_t bits = take(f);
    c.u.task.kind = (enum task_kind)(bits & 3);
    c.u.task.name = PICK(f, names);
    c.u.task.filter = PICK(f, filters);
    if (bits & 4) c.u.task.rate_per_s = (uint32_t)take(f);
    if (bits & 8) {
        c.u.task.from_time_ms = any_place(f, START_TIME);
        if (bits & 16) c.u.task.to_time_ms = any_place(f, START_TIME);
    } else if (bits & 16) {
        c.u.task.from_seq = any_place(f, START_SEQ);
        c.u.task.to_seq = bits & 32 ? any_place(f, START_SEQ) : c.u.task.from_seq;
    }
    step(f, &c);
}

static void op_cancel(struct fuzz *f) {
    struct command c = {.kind = COMMAND_TASK_CANCEL, .project = f->w.project};
    c.u.cancel.id = take(f);
    step(f, &c);
}

static void op_config(struct fuzz *f) {
    static const char *const keys[] = {"source/a", "source/b", "retention"};
    struct command c = {.kind = below(f, 2) ? COMMAND_CONFIG_PUT : COMMAND_CONFIG_DELETE};
    c.u.config.key = PICK(f, keys);
    c.u.config.value = PICK(f, metadata);
    step(f, &c);
}

/* Mostly one that there is, or was. */
static uint64_t any_attachment(struct fuzz *f) {
    uint64_t back = below(f, 8);
    return f->last_attachment > back ? f->last_attachment - back : 0;
}

static void op_attach(struct fuzz *f) {
    uint64_t list_ms[LIST_STEPS];
    struct claim claims[CLAIMS_MAX];
    struct policy policy;
    struct command c = {.kind = COMMAND_ATTACH, .project = f->w.project};
    uint8_t bits = take(f);
    c.u.attach.attachment = c.route.handle = ++f->last_attachment;
    f->project_of[f->last_attachment] = f->w.project;
    c.u.attach.name = PICK(f, names);
    c.u.attach.window_events = below(f, 12);
    c.u.attach.window_bytes = bits & 1 ? 40 : 1 << 20;
    c.u.attach.concurrency = (uint32_t)below(f, 4);
    if (bits & 2) c.u.attach.lease_ms = any_ms(f);
    if (bits & 4) {
        policy = any_policy(f, list_ms);
        c.u.attach.create = &policy;
        c.u.attach.start = (enum start_kind)below(f, 4);
        c.u.attach.start_value = any_place(f, c.u.attach.start);
    }
    c.u.attach.alone = bits & 32;
    if (bits & 8) c.u.attach.session = 1 + below(f, 3);
    if (bits & 16) {
        c.u.attach.resumes = 1 + below(f, 3);
        c.u.attach.claims = claims;
        c.u.attach.claims_count = below(f, CLAIMS_MAX + 1);
        uint64_t tag = 0;
        for (size_t i = 0; i < c.u.attach.claims_count; i++) {
            tag += 1 + below(f, 4);
            claims[i] = (struct claim){tag, any_place(f, START_SEQ), below(f, 8) == 7};
        }
    }
    step(f, &c);
}

/* Whom the next commands speak for. */
static void op_project(struct fuzz *f) {
    f->w.project = projects[below(f, PROJECTS)];
}

static void op_job(struct fuzz *f) {
    struct command c = {.kind = COMMAND_JOB_PUT, .project = f->w.project};
    c.u.job.id = PICK(f, subjects);
    c.u.job.endpoints = PICK(f, endpoints);
    c.u.job.metadata = PICK(f, metadata);
    c.u.job.ttl_ms = any_ms(f);
    step(f, &c);
}

static void op_window(struct fuzz *f) {
    struct command c = {.kind = COMMAND_WINDOW};
    c.u.window.attachment = any_attachment(f);
    c.u.window.events = below(f, 20);
    c.u.window.bytes = below(f, 2) ? 1 << 20 : 30;
    step(f, &c);
}

static void op_hold(struct fuzz *f) {
    struct command c = {.kind = COMMAND_HOLD};
    c.u.hold.attachment = any_attachment(f);
    c.u.hold.hold = below(f, 2) == 1;
    step(f, &c);
}

static void op_detach(struct fuzz *f) {
    struct command c = {.kind = COMMAND_DETACH};
    c.u.detach.attachment = any_attachment(f);
    c.u.detach.how = (enum detach_kind)below(f, 3);
    c.u.detach.grace_ms = (uint32_t)any_ms(f);
    step(f, &c);
}

static void op_settle(struct fuzz *f) {
    static const enum command_kind kinds[] = {COMMAND_ACK, COMMAND_NACK, COMMAND_EXTEND};
    struct tag_range ranges[2];
    uint8_t bits = take(f);
    struct command c = {.kind = kinds[bits % 3]};
    c.u.settle.attachment = any_attachment(f);
    c.u.settle.confirm = (bits & 4) != 0;
    c.u.settle.ranges = ranges;
    c.u.settle.count = bits & 8 ? 2 : 1;
    for (size_t i = 0; i < c.u.settle.count; i++) {
        ranges[i].lo = below(f, 16);
        ranges[i].hi = ranges[i].lo + below(f, 4);
        if (bits & 16) ranges[i].hi = take(f); /* also backwards */
    }
    c.u.settle.kind = (enum nack_kind)(bits >> 6);
    c.u.settle.delay_ms = bits & 32 ? any_ms(f) : DELAY_BY_POLICY;
    c.u.settle.failure.message = slice_str("again");
    if (c.kind == COMMAND_EXTEND) c.u.settle.lease_ms = any_ms(f);
    step(f, &c);
}

/* ---- the world ---- */

static void crash(struct fuzz *f) {
    world_crash(&f->w);
    engine_set_retention(f->w.engine, &f->retention);
    memset(f->waits, 0, sizeof f->waits); /* their clients are gone too */
}

static void turn(struct fuzz *f) {
    struct engine_turn *t = engine_end_turn(f->w.engine, f->w.time);
    if (t != NULL && store_submit(f->w.store, &t->batch) != 0) {
        crash(f); /* the broker says why and exits */
        return;
    }
    engine_check(f->w.engine);
    store_end_reads(f->w.store);
}

static void op_retention(struct fuzz *f) {
    uint8_t bits = take(f);
    f->retention = (struct retention){0};
    if (bits & 1) f->retention.max_bytes = 100 + 16 * (uint64_t)take(f);
    if (bits & 2) f->retention.max_age_ms = 1 + any_ms(f);
    if (bits & 4) f->retention.dead_max_age_ms = 1 + any_ms(f);
    engine_set_retention(f->w.engine, &f->retention);
}

static void op_time(struct fuzz *f) {
    uint64_t ms = any_ms(f);
    f->w.time.now_ms += ms;
    f->w.time.wall_ms += ms;
}

static void op_clock(struct fuzz *f) {
    uint64_t ms = any_ms(f);
    if (below(f, 2)) f->w.time.wall_ms += ms;
    else f->w.time.wall_ms -= ms;
}

static void op_disk(struct fuzz *f) {
    uint8_t what = take(f);
    switch (what % 5) {
    case 0: memory_store_sync(f->w.store, 1 + what / 5 % 3); break;
    case 1: memory_store_sync(f->w.store, SIZE_MAX); break;
    case 2: memory_store_set_manual(f->w.store, what & 64); break;
    case 3: engine_set_room(f->w.engine, what & 64); break;
    default: memory_store_fail_submit(f->w.store, 1 + what / 5 % 3);
    }
}

/* Bytes from here on: what came later than the seeds. */
#define LATER_FROM 248

static void operation(struct fuzz *f) {
    static void (*const later[])(struct fuzz *) = {op_project, op_job};
    /* The more often one stands here, the more often it is drawn. The seeds count on the order. */
    static void (*const operations[])(struct fuzz *) = {
        turn,      turn,      turn,      op_publish, op_publish, op_publish,   op_settle, op_settle,
        op_settle, op_settle, op_attach, op_attach,  op_time,    op_time,      op_disk,   op_disk,
        op_create, op_update, op_pause,  op_seek,    op_delete,  op_task,      op_task,   op_cancel,
        op_config, op_window, op_hold,   op_detach,  op_clock,   op_retention, crash,
    };
    uint8_t byte = take(f);
    if (byte >= LATER_FROM) later[(byte - LATER_FROM) % 2](f);
    else operations[byte % (sizeof operations / sizeof operations[0])](f);
    engine_check(f->w.engine);
}

/* ---- the end ---- */

/* The i-th of all that there may be. */
static bool subscription_at(struct fuzz *f, int i, struct subscription_info *s) {
    return engine_subscription_get(f->w.engine, projects[i / SUBS], slice_str(names[i % SUBS]), s);
}

static bool all_settled(struct fuzz *f) {
    struct engine_stats stats;
    engine_stats(f->w.engine, &stats);
    for (int i = 0; i < PROJECTS * SUBS; i++) {
        struct subscription_info s;
        if (!subscription_at(f, i, &s)) continue;
        if (s.floor != stats.last_seq + 1 || s.why_idle != IDLE_EMPTY) return false;
        if (s.ready + s.leased + s.delayed + s.blocked > 0) return false;
    }
    return stats.tasks_running == 0;
}

static void settle_everything(struct fuzz *f) {
    struct world *w = &f->w;
    memory_store_fail_submit(w->store, 0);
    memory_store_set_manual(w->store, false);
    memory_store_sync(w->store, SIZE_MAX);
    engine_set_room(w->engine, true);
    f->retention = (struct retention){0};
    engine_set_retention(w->engine, &f->retention);
    for (uint64_t i = 1; i <= f->last_attachment; i++) world_detach(w, i, DETACH_RELEASE);
    f->ack_at_once = true;
    for (int i = 0; i < PROJECTS * SUBS; i++) {
        w->project = projects[i / SUBS];
        world_pause(w, names[i % SUBS], false);
        f->project_of[++f->last_attachment] = w->project;
        world_attach(w, f->last_attachment, names[i % SUBS], 8, 0);
    }
    for (int round = 0;; round++) {
        CHECK(round < ROUNDS_MAX);
        world_turn(w);
        if (all_settled(f)) break;
        uint64_t at_ms = engine_next_deadline(w->engine, w->time);
        CHECK(at_ms != UINT64_MAX); /* something waits for a time that never comes */
        if (at_ms <= w->time.now_ms) continue;
        w->time.wall_ms += at_ms - w->time.now_ms;
        w->time.now_ms = at_ms;
    }
    store_end_reads(w->store);
    for (uint32_t i = 0; i < ANSWERS_MAX; i++) CHECK(!f->waits[i]);
}

/* Rows of what is settled or deleted are gone. */
static void check_rows(struct fuzz *f) {
    static const enum store_table empty[] = {STORE_RETRIES, STORE_DUE};
    struct store_iter it;
    for (int i = 0; i < 2; i++) {
        store_seek(f->w.store, empty[i], slice_of(NULL, 0), &it);
        CHECK(!it.valid);
        store_iter_end(f->w.store, &it);
    }
    store_seek(f->w.store, STORE_DEAD, slice_of(NULL, 0), &it);
    for (; it.valid; store_next(f->w.store, &it)) {
        bool known = false;
        for (int i = 0; i < PROJECTS * SUBS; i++) {
            struct subscription_info s;
            known |= subscription_at(f, i, &s) && s.id == key_read_u32(it.key, 0);
        }
        CHECK(known);
    }
    store_iter_end(f->w.store, &it);
    store_end_reads(f->w.store);
}

static void describe_project(struct fuzz *f, uint32_t project, struct buf *out) {
    struct project_stats stats;
    struct task_info t = {.id = 0};
    engine_project_stats(f->w.engine, project, &stats);
    buf_printf(out, "; project %u has %u and %u jobs", project, stats.subscriptions, stats.jobs);
    while (engine_task_next(f->w.engine, project, t.id, &t)) {
        buf_printf(out, "; task %u %s next %llu matched %llu cancelled %d", t.id,
                   task_kind_name(t.kind), (unsigned long long)t.next,
                   (unsigned long long)t.matched, t.cancelled);
    }
    for (size_t i = 1; i < sizeof subjects / sizeof subjects[0]; i++) {
        struct job_info j;
        if (!engine_job_get(f->w.engine, project, slice_str(subjects[i]), &j)) continue;
        buf_printf(out, "; job %s %s due %llu events %llu of %zu from %llu", subjects[i],
                   job_state_name(j.state), (unsigned long long)j.due_at_ms,
                   (unsigned long long)j.events_total, j.seqs_count,
                   (unsigned long long)(j.seqs_count == 0 ? 0 : j.seqs[0]));
        buf_append_slice(out, j.endpoints);
        buf_append_slice(out, j.metadata);
    }
}

/* Everything that stays as it is when nobody is attached. */
static void describe(struct fuzz *f, struct buf *out) {
    struct engine_stats stats;
    engine_stats(f->w.engine, &stats);
    buf_printf(out, "%llu to %llu", (unsigned long long)stats.first_seq,
               (unsigned long long)stats.last_seq);
    for (int i = 0; i < PROJECTS * SUBS; i++) {
        struct subscription_info s;
        if (!subscription_at(f, i, &s)) continue;
        buf_printf(out,
                   "; %s %u floor %llu next %llu dead %llu lease %llu list %u rate %u order %d",
                   names[i % SUBS], s.id, (unsigned long long)s.floor, (unsigned long long)s.next,
                   (unsigned long long)s.dead, (unsigned long long)s.policy.lease_ms,
                   s.policy.backoff_list_count, s.policy.rate_per_s, s.policy.ordered);
        buf_append_slice(out, s.policy.filter);
        buf_append_slice(out, s.policy.order_key);
    }
    for (int i = 0; i < PROJECTS; i++) describe_project(f, projects[i], out);
    store_end_reads(f->w.store);
}

static void restart(struct fuzz *f) {
    struct buf before, after;
    buf_init(&before, 1 << 20);
    buf_init(&after, 1 << 20);
    engine_flush(f->w.engine);
    world_turn(&f->w);
    describe(f, &before);
    crash(f);
    describe(f, &after);
    CHECK(!before.overflow && slice_eq(buf_slice(&before), buf_slice(&after)));
    buf_free(&before);
    buf_free(&after);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct fuzz f;
    memset(&f, 0, sizeof f);
    f.rest = slice_of(data, size);
    f.w.quiet = true;
    f.w.on_effect = on_effect;
    f.w.on_effect_ctx = &f;
    f.w.project = PROJECT_DEFAULT;
    f.w.options.jobs_room = JOBS_ROOM;
    f.w.options.seed = take(&f);
    f.w.options.outstanding_max = 1 + (uint32_t)take(&f);
    f.w.options.turn_scan_events = 1 + (uint32_t)take(&f);
    f.w.options.turn_deliver_bytes = 1 + 16 * (uint32_t)take(&f);
    f.w.options.restart_grace_ms = (uint32_t)any_ms(&f);
    f.w.options.dedupe_ids = 1 + (uint32_t)take(&f);
    world_open(&f.w);
    memory_store_set_manual(f.w.store, true);
    for (int i = 0; i < OPERATIONS_MAX && f.rest.len > 0; i++) operation(&f);
    settle_everything(&f);
    check_rows(&f);
    restart(&f);
    world_close(&f.w);
    return 0;
}
