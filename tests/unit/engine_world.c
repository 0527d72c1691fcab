#include "tests/unit/engine_world.h"

#include <stdio.h>
#include <stdlib.h>

/* Far more than any test needs for one moment: an engine that wants turn after turn and gets
 * nowhere fails instead of hanging. */
#define TURNS_MAX 100000

static void on_durable(void *ctx, struct batch *batch);

static void open_engine(struct world *w) {
    char error[256];
    w->store->on_durable = on_durable;
    w->store->on_durable_ctx = w;
    int err = engine_open(&w->engine, w->store, &w->options, w->time, error, sizeof error);
    if (err != 0) fprintf(stderr, "engine_open: %s\n", error);
    CHECK(err == 0);
    engine_check(w->engine);
}

uint32_t world_project(const struct world *w) {
    return w->project != 0 ? w->project : PROJECT_DEFAULT;
}

void world_open(struct world *w) {
    if (w->time.now_ms == 0) w->time = (struct engine_time){1000, 1800000000000};
    buf_init(&w->log, 64 << 20);
    int err = memory_store_open(&w->store);
    CHECK(err == 0);
    open_engine(w);
}

struct policy world_policy(void) {
    struct policy p = policy_default();
    p.lease_ms = 4000;
    p.backoff_min_ms = p.backoff_max_ms = 8;
    return p;
}

void world_open_with(struct world *w, const struct policy *policy) {
    world_open(w);
    world_create(w, "s", NULL, policy, START_NEW);
    buf_clear(&w->log);
}

void world_close(struct world *w) {
    engine_close(&w->engine);
    store_close(w->store);
    buf_free(&w->log);
}

void world_crash(struct world *w) {
    engine_close(&w->engine);
    memory_store_crash(w->store);
    open_engine(w);
}

static void line_ranges(struct buf *b, const char *name, const struct tag_range *r, size_t count) {
    for (size_t i = 0; i < count; i++) {
        buf_printf(b, " %s %llu-%llu", name, (unsigned long long)r[i].lo,
                   (unsigned long long)r[i].hi);
    }
}

static void line_project(struct buf *b, uint32_t project) {
    if (project != PROJECT_DEFAULT) buf_printf(b, " of project %u", project);
}

static void line(struct world *w, const struct effect *f) {
    struct buf *b = &w->log;
    buf_printf(b, "[%llu] ", (unsigned long long)w->time.now_ms);
    if (f->err != ERR_OK) {
        buf_printf(b, "error %s: %s\n", err_info((int)f->err).word, f->message);
        return;
    }
    switch (f->kind) {
    case EFFECT_PUBLISHED:
        buf_append_str(b, "published");
        for (size_t i = 0; i < f->u.published.count; i++) {
            buf_printf(b, " %llu%s", (unsigned long long)f->u.published.results[i].seq,
                       f->u.published.results[i].duplicate ? " duplicate" : "");
        }
        break;
    case EFFECT_DONE: buf_printf(b, "done%s", f->u.done.created ? " created" : ""); break;
    case EFFECT_ATTACHED:
        buf_printf(b, "attached %llu backlog %llu", (unsigned long long)f->u.attached.attachment,
                   (unsigned long long)f->u.attached.backlog);
        if (f->u.attached.resumed > 0) buf_printf(b, " resumed %u", f->u.attached.resumed);
        break;
    case EFFECT_DELIVER:
        buf_printf(b, "%llu < tag %llu seq %llu %.*s fails %u deliveries %u%s%s",
                   (unsigned long long)f->u.deliver.attachment,
                   (unsigned long long)f->u.deliver.tag, (unsigned long long)f->u.deliver.event.seq,
                   SLICE_ARG(f->u.deliver.event.type), f->u.deliver.fails, f->u.deliver.deliveries,
                   f->u.deliver.replay ? " replay" : "", f->u.deliver.redrive ? " redrive" : "");
        line_project(b, f->u.deliver.event.project);
        break;
    case EFFECT_SETTLED:
        buf_printf(b, "%llu settled", (unsigned long long)f->u.settled.attachment);
        line_ranges(b, "ok", f->u.settled.ok, f->u.settled.ok_count);
        line_ranges(b, "already", f->u.settled.already, f->u.settled.already_count);
        line_ranges(b, "stale", f->u.settled.stale, f->u.settled.stale_count);
        break;
    case EFFECT_REVOKED:
        buf_printf(b, "%llu revoked tag %llu %s", (unsigned long long)f->u.revoked.attachment,
                   (unsigned long long)f->u.revoked.tag, f->u.revoked.reason);
        break;
    case EFFECT_LEASE_SOON:
        buf_printf(b, "%llu lease of tag %llu ends in %llu",
                   (unsigned long long)f->u.lease_soon.attachment,
                   (unsigned long long)f->u.lease_soon.tag,
                   (unsigned long long)f->u.lease_soon.remaining_ms);
        break;
    case EFFECT_ENDED:
        buf_printf(b, "%llu ended", (unsigned long long)f->u.ended.attachment);
        break;
    case EFFECT_JOB:
        buf_printf(b, "job %.*s seq %llu", SLICE_ARG(f->u.job.id),
                   (unsigned long long)f->u.job.seq);
        line_project(b, f->u.job.project);
        break;
    }
    buf_append_byte(b, '\n');
}

static void on_durable(void *ctx, struct batch *batch) {
    struct world *w = ctx;
    struct engine_turn *turn = CONTAINER_OF(batch, struct engine_turn, batch);
    engine_durable(w->engine, turn);
    for (size_t i = 0; i < turn->effects_count; i++) {
        const struct effect *f = &turn->effects[i];
        if (!w->quiet) line(w, f);
        if (f->kind == EFFECT_PUBLISHED && f->err == ERR_OK) {
            w->last_seq = f->u.published.results[f->u.published.count - 1].seq;
        }
        if (w->on_effect != NULL) w->on_effect(w->on_effect_ctx, f);
    }
    if (w->on_batch != NULL) w->on_batch(w->on_effect_ctx, batch);
    engine_turn_done(w->engine, turn);
}

void world_step(struct world *w, const struct command *c) {
    engine_step(w->engine, w->time, c);
}

void world_turn(struct world *w) {
    int turns = 0;
    do {
        CHECK(++turns <= TURNS_MAX);
        struct engine_turn *turn = engine_end_turn(w->engine, w->time);
        if (turn != NULL) {
            int err = store_submit(w->store, &turn->batch);
            CHECK(err == 0);
        }
        engine_check(w->engine);
        store_end_reads(w->store);
    } while (engine_next_deadline(w->engine, w->time) <= w->time.now_ms);
}

void world_wait(struct world *w, uint64_t ms) {
    w->time.now_ms += ms;
    w->time.wall_ms += ms;
    world_turn(w);
}

void world_expect(struct world *w, const char *expected) {
    buf_append_byte(&w->log, '\0');
    if (strcmp((const char *)w->log.data, expected) != 0) {
        fprintf(stderr, "--- expected\n%s--- got\n%s---\n", expected, (const char *)w->log.data);
        abort();
    }
    buf_clear(&w->log);
}

void world_run(struct world *w, const struct command *c) {
    world_step(w, c);
    world_turn(w);
}

void world_publish(struct world *w, const char *type, const char *id) {
    struct event event = {.type = slice_str(type), .id = slice_str(id), .body = slice_str("{}")};
    world_event(w, &event);
}

void world_event(struct world *w, const struct event *event) {
    struct command c = {.kind = COMMAND_PUBLISH, .project = world_project(w)};
    c.u.publish.events = event;
    c.u.publish.count = 1;
    world_run(w, &c);
}

void world_create(struct world *w, const char *name, const char *type, const struct policy *policy,
                  enum start_kind start) {
    char filter[256];
    struct command c = {.kind = COMMAND_SUBSCRIPTION_CREATE, .project = world_project(w)};
    c.u.create.name = slice_str(name);
    c.u.create.policy = policy == NULL ? policy_default() : *policy;
    if (type != NULL) {
        snprintf(filter, sizeof filter, "{\"types\":[\"%s\"]}", type);
        c.u.create.policy.filter = slice_str(filter);
    }
    c.u.create.start = start;
    world_run(w, &c);
}

void world_attach(struct world *w, uint64_t attachment, const char *name, uint64_t window,
                  uint32_t concurrency) {
    struct command c = {.kind = COMMAND_ATTACH, .project = world_project(w)};
    c.u.attach.attachment = attachment;
    c.u.attach.name = slice_str(name);
    c.u.attach.window_events = window;
    c.u.attach.window_bytes = 1 << 20;
    c.u.attach.concurrency = concurrency;
    world_run(w, &c);
}

void world_detach(struct world *w, uint64_t attachment, enum detach_kind how) {
    struct command c = {.kind = COMMAND_DETACH};
    c.u.detach.attachment = attachment;
    c.u.detach.how = how;
    world_run(w, &c);
}

void world_window(struct world *w, uint64_t attachment, uint64_t events) {
    struct command c = {.kind = COMMAND_WINDOW};
    c.u.window.attachment = attachment;
    c.u.window.events = events;
    c.u.window.bytes = 1 << 20;
    world_run(w, &c);
}

void world_settle(struct world *w, enum command_kind kind, uint64_t attachment, uint64_t lo,
                  uint64_t hi, bool confirm) {
    struct tag_range range = {lo, hi};
    struct command c = {.kind = kind};
    c.u.settle.attachment = attachment;
    c.u.settle.ranges = &range;
    c.u.settle.count = 1;
    c.u.settle.confirm = confirm;
    world_run(w, &c);
}

void world_nack(struct world *w, uint64_t attachment, uint64_t tag, enum nack_kind kind,
                uint64_t delay_ms, const char *error) {
    struct tag_range range = {tag, tag};
    struct command c = {.kind = COMMAND_NACK};
    c.u.settle.attachment = attachment;
    c.u.settle.ranges = &range;
    c.u.settle.count = 1;
    c.u.settle.kind = kind;
    c.u.settle.delay_ms = delay_ms;
    c.u.settle.failure.message = slice_str(error);
    world_run(w, &c);
}

void world_task(struct world *w, enum task_kind kind, const char *name, uint64_t from, uint64_t to,
                uint32_t rate_per_s, const char *filter) {
    struct command c = {.kind = COMMAND_TASK_CREATE, .project = world_project(w)};
    c.u.task.kind = kind;
    c.u.task.name = slice_str(name);
    c.u.task.from_seq = from;
    c.u.task.to_seq = to;
    c.u.task.rate_per_s = rate_per_s;
    c.u.task.filter = slice_str(filter);
    world_run(w, &c);
}

void world_show(struct world *w, const char *name) {
    struct subscription_info s;
    bool found = engine_subscription_get(w->engine, world_project(w), slice_str(name), &s);
    CHECK(found);
    buf_printf(
        &w->log, "%s: floor %llu next %llu ready %u leased %u delayed %llu dead %llu idle %s", name,
        (unsigned long long)s.floor, (unsigned long long)s.next, s.ready, s.leased,
        (unsigned long long)s.delayed, (unsigned long long)s.dead, why_idle_name(s.why_idle));
    if (s.blocked > 0) buf_printf(&w->log, " blocked %u", s.blocked);
    if (s.expired_total > 0) {
        buf_printf(&w->log, " expired %llu", (unsigned long long)s.expired_total);
    }
    buf_append_byte(&w->log, '\n');
    store_end_reads(w->store);
}

void world_show_task(struct world *w, uint32_t id) {
    struct task_info t;
    bool found = engine_task_get(w->engine, world_project(w), id, &t);
    CHECK(found);
    buf_printf(&w->log, "%s %u: %s %llu-%llu next %llu matched %llu acked %llu expired %llu\n",
               task_kind_name(t.kind), id,
               t.finished_at_ms == 0 ? "running"
               : t.cancelled         ? "cancelled"
                                     : "finished",
               (unsigned long long)t.from, (unsigned long long)t.to, (unsigned long long)t.next,
               (unsigned long long)t.matched, (unsigned long long)t.acked_total,
               (unsigned long long)t.expired);
}

void world_note(struct world *w, const char *text) {
    buf_printf(&w->log, "-- %s\n", text);
}

struct command attach_command(uint64_t attachment, const char *name, uint64_t window,
                              uint32_t concurrency) {
    struct command c = {.kind = COMMAND_ATTACH, .project = PROJECT_DEFAULT};
    c.u.attach.attachment = attachment;
    c.u.attach.name = slice_str(name);
    c.u.attach.window_events = window;
    c.u.attach.window_bytes = 1 << 20;
    c.u.attach.concurrency = concurrency;
    return c;
}

void world_publish_many(struct world *w, const char *type, int count) {
    struct event events[LIMIT_PUBLISH_EVENTS];
    struct command c = {.kind = COMMAND_PUBLISH, .project = world_project(w)};
    for (int i = 0; i < count; i++) {
        events[i] = (struct event){.type = slice_str(type), .body = slice_str("{}")};
    }
    c.u.publish.events = events;
    c.u.publish.count = (size_t)count;
    world_run(w, &c);
}

void world_publish_due(struct world *w, const char *type, const char *subject, uint64_t in_ms) {
    struct event event = {
        .type = slice_str(type), .subject = slice_str(subject), .body = slice_str("{}")};
    if (in_ms > 0) event.deliver_at_ms = w->time.wall_ms + in_ms;
    world_event(w, &event);
}

void world_keep(struct world *w, uint64_t attachment, uint32_t grace_ms) {
    struct command c = {.kind = COMMAND_DETACH};
    c.u.detach.attachment = attachment;
    c.u.detach.how = DETACH_KEEP;
    c.u.detach.grace_ms = grace_ms;
    world_run(w, &c);
}

void world_extend(struct world *w, uint64_t attachment, uint64_t lo, uint64_t hi,
                  uint64_t lease_ms) {
    struct tag_range range = {lo, hi};
    struct command c = {.kind = COMMAND_EXTEND};
    c.u.settle.attachment = attachment;
    c.u.settle.ranges = &range;
    c.u.settle.count = 1;
    c.u.settle.confirm = true;
    c.u.settle.lease_ms = lease_ms;
    world_run(w, &c);
}

void world_pause(struct world *w, const char *name, bool paused) {
    struct command c = {.kind = COMMAND_SUBSCRIPTION_PAUSE, .project = world_project(w)};
    c.u.pause.name = slice_str(name);
    c.u.pause.paused = paused;
    world_run(w, &c);
}

void world_update(struct world *w, const char *name, const struct policy *policy) {
    struct command c = {.kind = COMMAND_SUBSCRIPTION_UPDATE, .project = world_project(w)};
    c.u.update.name = slice_str(name);
    c.u.update.policy = *policy;
    world_run(w, &c);
}

void world_seek(struct world *w, const char *name, enum start_kind start, uint64_t value) {
    struct command c = {.kind = COMMAND_SUBSCRIPTION_SEEK, .project = world_project(w)};
    c.u.seek.name = slice_str(name);
    c.u.seek.start = start;
    c.u.seek.start_value = value;
    world_run(w, &c);
}

void world_delete(struct world *w, const char *name) {
    struct command c = {.kind = COMMAND_SUBSCRIPTION_DELETE, .project = world_project(w)};
    c.u.delete.name = slice_str(name);
    world_run(w, &c);
}

void world_cancel(struct world *w, uint32_t task) {
    struct command c = {.kind = COMMAND_TASK_CANCEL, .project = world_project(w)};
    c.u.cancel.id = task;
    world_run(w, &c);
}

void world_retain(struct world *w, uint64_t max_age_ms, uint64_t max_bytes,
                  uint64_t dead_max_age_ms) {
    struct retention r = {max_age_ms, max_bytes, dead_max_age_ms};
    engine_set_retention(w->engine, &r);
    world_turn(w);
}

void world_restart(struct world *w) {
    engine_flush(w->engine);
    world_turn(w);
    world_crash(w);
}

static bool show_dead(void *ctx, const struct dead_letter *d) {
    struct world *w = ctx;
    buf_printf(&w->log, "dead seq %llu %.*s fails %u deliveries %u",
               (unsigned long long)d->event.seq, SLICE_ARG(d->reason), d->fails, d->deliveries);
    if (d->cursor != 0) buf_printf(&w->log, " replay %u", d->cursor);
    buf_printf(&w->log, " [%.*s/%.*s/%.*s]\n", SLICE_ARG(d->failure.type),
               SLICE_ARG(d->failure.message), SLICE_ARG(d->failure.detail));
    return true;
}

void world_show_dead(struct world *w, const char *name) {
    bool found = engine_dead_scan(w->engine, world_project(w), slice_str(name), 0, 0, show_dead, w);
    CHECK(found);
    store_end_reads(w->store);
}

void world_job_put(struct world *w, const char *id, const char *endpoints, const char *metadata,
                   uint64_t ttl_ms) {
    struct command c = {.kind = COMMAND_JOB_PUT, .project = world_project(w)};
    c.u.job.id = slice_str(id);
    c.u.job.endpoints = slice_str(endpoints);
    c.u.job.metadata = slice_str(metadata);
    c.u.job.ttl_ms = ttl_ms;
    world_run(w, &c);
}

void world_job_event(struct world *w, const char *type, const char *job) {
    world_publish_due(w, type, job, 0);
}

uint32_t world_jobs(const struct world *w) {
    struct project_stats stats;
    engine_project_stats(w->engine, world_project(w), &stats);
    return stats.jobs;
}

void world_show_job(struct world *w, const char *id) {
    struct job_info j;
    if (!engine_job_get(w->engine, world_project(w), slice_str(id), &j)) {
        buf_printf(&w->log, "%s: not there\n", id);
        return;
    }
    buf_printf(&w->log, "%.*s: %s%s due %lld events %llu", SLICE_ARG(j.id), job_state_name(j.state),
               j.overdue ? " overdue" : "", (long long)(j.due_at_ms - w->time.wall_ms),
               (unsigned long long)j.events_total);
    for (size_t i = 0; i < j.seqs_count; i++) {
        buf_printf(&w->log, "%s%llu", i == 0 ? " [" : " ", (unsigned long long)j.seqs[i]);
    }
    buf_printf(&w->log, "%s\n", j.seqs_count == 0 ? "" : "]");
}

void world_show_journal(struct world *w) {
    struct engine_stats s;
    engine_stats(w->engine, &s);
    buf_printf(&w->log, "journal: %llu to %llu trimmed %llu", (unsigned long long)s.first_seq,
               (unsigned long long)s.last_seq, (unsigned long long)s.trimmed_total);
    if (s.blocked_by.len > 0) buf_printf(&w->log, " blocked by %.*s", SLICE_ARG(s.blocked_by));
    buf_append_byte(&w->log, '\n');
}
