/* client_world.h: a libbellhop client under test, the fake broker that it talks to, and what its
 * user saw. setup and teardown own all of it; UNTIL runs the loop that both live on. */
#ifndef TESTS_CLIENT_WORLD_H
#define TESTS_CLIENT_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bellhop.h"
#include "fake_broker.h"
#include "proto/limits.h"

#define GUARD_MS 20000 /* a condition that does not come about within this is a failure */
#define KEPT     64

struct world {
    uv_loop_t loop;
    uv_timer_t guard;
    bool late;
    struct broker broker;
    struct bellhop *client;
    struct bellhop_sub *sub;
    /* what the client's user saw */
    struct bellhop_event *events[KEPT];
    size_t events_count, handled, revoked, ended, settled, published, soon, stated, started;
    char reason[16]; /* of the last on_revoked */
    uint64_t remaining_ms, id, ready;
    int error; /* of the last callback that had one */
    bool stale, ack_at_once, close_at_once, saw_body;
    uint64_t seq;
    size_t connected, disconnected, stopped, refused, away, quiet;
    char state[256];
};

/* The client calls its user right before the loop blocks: a test that waits for that must not. */
static inline struct world *woken(void *ctx) {
    struct world *w = ctx;
    uv_stop(&w->loop);
    return w;
}

static inline void on_state(void *ctx, const char *state) {
    struct world *w = woken(ctx);
    snprintf(w->state, sizeof w->state, "%s", state);
    w->connected += strcmp(state, "connected") == 0;
    w->disconnected += strncmp(state, "disconnected", 12) == 0;
    w->stopped += strncmp(state, "stopped", 7) == 0;
    w->refused += strncmp(state, "refused", 7) == 0;
    w->away += strncmp(state, "going away", 10) == 0;
    w->quiet += strncmp(state, "quiet", 5) == 0;
}

static inline void on_event(void *ctx, struct bellhop_event *event) {
    struct world *w = woken(ctx);
    const struct bellhop_info *info = bellhop_event_info(event);
    w->handled++;
    w->saw_body = strcmp(info->body, "{\"n\":1}") == 0 && info->body_len == 7 &&
                  strcmp(info->type, "job.done") == 0 && strcmp(info->subject, "jobs/1") == 0 &&
                  info->attempt == 1 && info->seq > 100;
    if (w->close_at_once) {
        bellhop_close(&w->client);
    } else if (w->ack_at_once) {
        bellhop_ack(event);
    } else {
        assert_true(w->events_count < KEPT);
        w->events[w->events_count++] = event;
    }
}

static inline void on_revoked(void *ctx, struct bellhop_event *event, const char *reason) {
    struct world *w = woken(ctx);
    (void)event;
    w->revoked++;
    snprintf(w->reason, sizeof w->reason, "%s", reason);
}

static inline void on_lease_soon(void *ctx, struct bellhop_event *event, uint64_t remaining_ms) {
    struct world *w = woken(ctx);
    (void)event;
    w->soon++;
    w->remaining_ms = remaining_ms;
}

static inline void on_stated(void *ctx, int error, const struct bellhop_state *state) {
    struct world *w = woken(ctx);
    w->stated++;
    w->error = error;
    assert_true((error == 0) == (state != NULL));
    if (state == NULL) return;
    w->ready = state->ready;
    assert_true(state->oldest_ms == 5300 && state->out_per_s == 2.5);
    assert_string_equal(state->why_idle, "backoff");
}

static inline void on_started(void *ctx, int error, const char *message, uint64_t id) {
    struct world *w = woken(ctx);
    w->started++;
    w->error = error;
    w->id = id;
    assert_non_null(message);
}

static inline void on_ended(void *ctx, int error, const char *message) {
    struct world *w = woken(ctx);
    assert_true(strlen(message) > 0);
    w->ended++;
    w->error = error;
}

static inline void on_settled(void *ctx, int error, bool stale) {
    struct world *w = woken(ctx);
    w->settled++;
    w->error = error;
    w->stale = stale;
}

static inline void on_published(void *ctx, int error, const char *message, const uint64_t *seqs,
                                const bool *duplicates, size_t count) {
    struct world *w = woken(ctx);
    assert_true((error == 0) == (count > 0) && message != NULL);
    w->published++;
    w->error = error;
    if (count > 0) w->seq = duplicates[0] ? 0 : seqs[count - 1];
}

static inline void on_guard(uv_timer_t *timer) {
    ((struct world *)timer->data)->late = true;
}

/* Runs the loop until the condition holds. */
#define UNTIL(w, condition)                                                                        \
    do {                                                                                           \
        while (!(condition) && !(w)->late) uv_run(&(w)->loop, UV_RUN_ONCE);                        \
        if (!(condition)) fail_msg("never: %s (%s)", #condition, (w)->state);                      \
    } while (0)

static inline void connect_resuming(struct world *w, uint64_t resume_ms) {
    char url[64];
    const struct bellhop_options options = {
        .loop = &w->loop, .name = "tester", .resume_ms = resume_ms, .on_state = on_state, .ctx = w};
    snprintf(url, sizeof url, "bellhop://key@127.0.0.1:%d", w->broker.port);
    assert_int_equal(bellhop_open(&w->client, url, &options), 0);
}

static inline struct bellhop_sub_options sub_options(struct world *w, uint32_t concurrency,
                                                     uint32_t window) {
    return (struct bellhop_sub_options){.handler = on_event,
                                        .on_revoked = on_revoked,
                                        .on_lease_soon = on_lease_soon,
                                        .on_ended = on_ended,
                                        .ctx = w,
                                        .concurrency = concurrency,
                                        .window = window};
}

static inline void subscribe(struct world *w, uint32_t concurrency, uint32_t window) {
    const struct bellhop_sub_options options = sub_options(w, concurrency, window);
    w->sub = bellhop_subscribe(w->client, "batches", &options);
    assert_non_null(w->sub);
}

static inline int setup(void **state) {
    struct world *w = calloc(1, sizeof *w);
    if (uv_loop_init(&w->loop) != 0) return -1;
    uv_timer_init(&w->loop, &w->guard);
    w->guard.data = w;
    uv_timer_start(&w->guard, on_guard, GUARD_MS, 0);
    broker_open(&w->broker, &w->loop);
    connect_resuming(w, 0);
    *state = w;
    return 0;
}

static inline int teardown(void **state) {
    struct world *w = *state;
    size_t broken = w->broker.broken;
    bellhop_close(&w->client);
    broker_close(&w->broker);
    uv_close((uv_handle_t *)&w->guard, NULL);
    while (uv_run(&w->loop, UV_RUN_DEFAULT) != 0) continue; /* a callback may have stopped it */
    int busy = uv_loop_close(&w->loop);
    free(w);
    return busy != 0 || broken != 0 ? -1 : 0;
}

/* A client with one subscription, connected. */
static inline struct world *ready(void **state, uint32_t concurrency, uint32_t window) {
    struct world *w = *state;
    subscribe(w, concurrency, window);
    UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 1);
    assert_string_equal(w->broker.hello_name, "tester");
    assert_string_equal(w->broker.sub_name, "batches");
    return w;
}

static inline void assert_ranges(const struct broker *b, int op, const char *want) {
    char text[256] = "";
    size_t at = 0;
    for (size_t i = 0; i < b->ranges_count[op]; i++) {
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%d-%d", i == 0 ? "" : " ",
                               (int)b->ranges[op][i].lo, (int)b->ranges[op][i].hi);
    }
    assert_string_equal(text, want);
}

#endif
