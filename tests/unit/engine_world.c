#include "tests/unit/engine_world.h"

#include <stdio.h>
#include <stdlib.h>

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

void world_open(struct world *w) {
    if (w->time.now_ms == 0) w->time = (struct engine_time){1000, 1800000000000};
    buf_init(&w->log, 64 << 20);
    int err = memory_store_open(&w->store);
    CHECK(err == 0);
    open_engine(w);
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
        break;
    case EFFECT_DELIVER:
        buf_printf(b, "%llu < tag %llu seq %llu %.*s fails %u deliveries %u%s",
                   (unsigned long long)f->u.deliver.attachment,
                   (unsigned long long)f->u.deliver.tag, (unsigned long long)f->u.deliver.event.seq,
                   SLICE_ARG(f->u.deliver.event.type), f->u.deliver.fails, f->u.deliver.deliveries,
                   f->u.deliver.replay ? " replay" : "");
        break;
    case EFFECT_SETTLED:
        buf_printf(b, "%llu settled", (unsigned long long)f->u.settled.attachment);
        line_ranges(b, "ok", f->u.settled.ok, f->u.settled.ok_count);
        line_ranges(b, "already", f->u.settled.already, f->u.settled.already_count);
        line_ranges(b, "stale", f->u.settled.stale, f->u.settled.stale_count);
        break;
    case EFFECT_REVOKED:
        buf_printf(b, "%llu revoked tag %llu", (unsigned long long)f->u.revoked.attachment,
                   (unsigned long long)f->u.revoked.tag);
        break;
    case EFFECT_ENDED:
        buf_printf(b, "%llu ended", (unsigned long long)f->u.ended.attachment);
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
    engine_turn_done(w->engine, turn);
}

void world_step(struct world *w, const struct command *c) {
    engine_step(w->engine, w->time, c);
}

void world_turn(struct world *w) {
    do {
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

static void run(struct world *w, const struct command *c) {
    world_step(w, c);
    world_turn(w);
}

void world_publish(struct world *w, const char *type, const char *id) {
    struct event event = {.project = PROJECT_DEFAULT,
                          .type = slice_str(type),
                          .id = slice_str(id),
                          .body = slice_str("{}")};
    struct command c = {.kind = COMMAND_PUBLISH};
    c.u.publish.events = &event;
    c.u.publish.count = 1;
    c.u.publish.project = PROJECT_DEFAULT;
    run(w, &c);
}

void world_create(struct world *w, const char *name, const char *type, const struct policy *policy,
                  enum start_kind start) {
    struct slice types[1] = {slice_str(type == NULL ? "" : type)};
    struct command c = {.kind = COMMAND_SUBSCRIPTION_CREATE};
    c.u.create.name = slice_str(name);
    c.u.create.policy = policy == NULL ? policy_default() : *policy;
    if (type != NULL) {
        c.u.create.policy.filter.types = types;
        c.u.create.policy.filter.types_count = 1;
    }
    c.u.create.start = start;
    run(w, &c);
}

void world_attach(struct world *w, uint64_t attachment, const char *name, uint64_t window,
                  uint32_t concurrency) {
    struct command c = {.kind = COMMAND_ATTACH};
    c.u.attach.attachment = attachment;
    c.u.attach.name = slice_str(name);
    c.u.attach.window_events = window;
    c.u.attach.window_bytes = 1 << 20;
    c.u.attach.concurrency = concurrency;
    run(w, &c);
}

void world_detach(struct world *w, uint64_t attachment, enum detach_kind how) {
    struct command c = {.kind = COMMAND_DETACH};
    c.u.detach.attachment = attachment;
    c.u.detach.how = how;
    run(w, &c);
}

void world_window(struct world *w, uint64_t attachment, uint64_t events) {
    struct command c = {.kind = COMMAND_WINDOW};
    c.u.window.attachment = attachment;
    c.u.window.events = events;
    c.u.window.bytes = 1 << 20;
    run(w, &c);
}

void world_settle(struct world *w, enum command_kind kind, uint64_t attachment, uint64_t lo,
                  uint64_t hi, bool confirm) {
    struct tag_range range = {lo, hi};
    struct command c = {.kind = kind};
    c.u.settle.attachment = attachment;
    c.u.settle.ranges = &range;
    c.u.settle.count = 1;
    c.u.settle.confirm = confirm;
    run(w, &c);
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
    c.u.settle.error = slice_str(error);
    run(w, &c);
}

void world_replay(struct world *w, const char *name, uint64_t from, uint64_t to) {
    struct command c = {.kind = COMMAND_REPLAY_CREATE};
    c.u.replay.name = slice_str(name);
    c.u.replay.from_seq = from;
    c.u.replay.to_seq = to;
    run(w, &c);
}

void world_show(struct world *w, const char *name) {
    struct subscription_info s;
    bool found = engine_subscription_get(w->engine, slice_str(name), &s);
    CHECK(found);
    buf_printf(&w->log,
               "%s: floor %llu next %llu ready %u leased %u delayed %u dead %llu idle %s\n", name,
               (unsigned long long)s.floor, (unsigned long long)s.next, s.ready, s.leased,
               s.delayed, (unsigned long long)s.dead_total, why_idle_name(s.why_idle));
}
