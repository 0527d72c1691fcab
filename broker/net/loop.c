/* The loop: turns, timers, signals and the end.
 *
 * One turn, as it goes well: epoll returns; the first callback of the turn reads the clocks
 * (loop_enter); sockets are read and users called; then on_prepare runs right before the loop would
 * block: the hook commits and answers, streams_flush writes, the turn is over. Deferred tasks then
 * open the next turn. Last, turn_timer is armed for what the hook asked for, or for now when there
 * is more to do, which makes the coming poll return at once.
 *
 * What can fail: opening (values); nothing later. A hook that blocks on a disk makes libuv's idea
 * of the time old, so it is read again before anything is armed. */
#include "broker/net/loop.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "broker/net/internal.h"
#include "proto/limits.h"

static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
#define SIGNALS (sizeof signals / sizeof signals[0])

struct loop_timer {
    uv_timer_t uv;
    struct loop *loop;
    struct list node; /* in loop->timers */
    loop_timer_fn *fn;
    void *ctx;
    bool closed;   /* libuv has let go */
    bool released; /* loop_timer_stop was called */
};

void loop_enter(struct loop *l) {
    if (l->in_turn) return;
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    l->in_turn = true;
    l->now_ms = uv_now(&l->uv);
    l->wall_ms = (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / 1000000;
}

static void on_turn_timer(uv_timer_t *t) {
    struct loop *l = t->data;
    l->armed_at_ms = UINT64_MAX;
    loop_enter(l);
}

/* Makes the coming poll end at at_ms at the latest. */
static void arm(struct loop *l, uint64_t at_ms) {
    uint64_t now_ms = uv_now(&l->uv);
    if (at_ms <= now_ms) at_ms = now_ms;
    if (at_ms == l->armed_at_ms) return;
    l->armed_at_ms = at_ms;
    if (at_ms == UINT64_MAX) uv_timer_stop(&l->turn_timer);
    else CHECK(uv_timer_start(&l->turn_timer, on_turn_timer, at_ms - now_ms, 0) == 0);
}

static void run_tasks(struct loop *l) {
    struct list ready;
    if (list_empty(&l->tasks)) return;
    loop_enter(l);
    /* Those that are deferred meanwhile wait for the turn that begins here. */
    list_init(&ready);
    list_insert_before(&l->tasks, &ready);
    list_unlink(&l->tasks);
    for (struct list *n = list_first(&ready); n != NULL; n = list_first(&ready)) {
        struct loop_task *t = CONTAINER_OF(n, struct loop_task, node);
        list_unlink(n);
        t->fn(t->ctx);
    }
}

static void close_handle(uv_handle_t *h) {
    if (!uv_is_closing(h)) uv_close(h, NULL);
}

static void on_timer_closed(uv_handle_t *h) {
    struct loop_timer *t = CONTAINER_OF(h, struct loop_timer, uv);
    t->closed = true;
    if (!t->released) return; /* its owner still has to call loop_timer_stop */
    list_unlink(&t->node);
    free(t);
}

/* Tells every handle to close; loop_run ends when they have. */
static void close_all(struct loop *l) {
    l->stopped = true;
    listeners_close_all(l);
    streams_close_all(l, "the server stopped");
    polls_close_all(l);
    LIST_FOR(n, next, &l->timers) {
        struct loop_timer *t = CONTAINER_OF(n, struct loop_timer, node);
        if (!uv_is_closing((uv_handle_t *)&t->uv)) uv_close((uv_handle_t *)&t->uv, on_timer_closed);
    }
    close_handle((uv_handle_t *)&l->prepare);
    close_handle((uv_handle_t *)&l->turn_timer);
    close_handle((uv_handle_t *)&l->sweep);
    for (size_t i = 0; i < SIGNALS; i++) close_handle((uv_handle_t *)&l->signals[i]);
}

static void on_prepare(uv_prepare_t *p) {
    struct loop *l = p->data;
    uint64_t wake_ms = UINT64_MAX;
    loop_enter(l);
    l->again = false;
    if (l->turn != NULL) wake_ms = l->turn(l->turn_ctx, l->now_ms);
    streams_flush(l);
    l->in_turn = false;
    l->shaken_ns = 0;
    uv_update_time(&l->uv);
    run_tasks(l);
    if (l->stopping) {
        close_all(l);
        return;
    }
    if (l->again || !list_empty(&l->tasks) || !list_empty(&l->dirty)) wake_ms = 0;
    arm(l, wake_ms);
}

static void on_sweep(uv_timer_t *t) {
    struct loop *l = t->data;
    loop_enter(l);
    listeners_retry(l);
    if (!streams_sweep(l) && !l->accept_paused) uv_timer_stop(t);
}

void loop_sweep_start(struct loop *l) {
    uint64_t every_ms = l->write_stall_ms / 4 < SWEEP_MS ? l->write_stall_ms / 4 + 1 : SWEEP_MS;
    if (l->stopped || uv_is_active((uv_handle_t *)&l->sweep)) return;
    CHECK(uv_timer_start(&l->sweep, on_sweep, every_ms, every_ms) == 0);
}

static void on_signal(uv_signal_t *s, int signum) {
    struct loop *l = s->data;
    loop_enter(l);
    if (l->on_signal != NULL) l->on_signal(l->on_signal_ctx, signum);
}

/* How many connections there may be: some descriptors are kept for the store, logs and the like. */
static size_t count_streams_max(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY) {
        return LIMIT_CONNECTIONS;
    }
    rlim_t reserve = files.rlim_cur / 4 < 64 ? files.rlim_cur / 4 : 64;
    rlim_t usable = files.rlim_cur - reserve;
    return usable < LIMIT_CONNECTIONS ? (size_t)usable : LIMIT_CONNECTIONS;
}

/* libuv's own way out of exhausted memory is an abort without a word. */
static void *zalloc_array(size_t count, size_t bytes) {
    CHECK(bytes == 0 || count <= SIZE_MAX / bytes);
    return mem_zalloc(count * bytes);
}

int loop_open(struct loop **out) {
    CHECK(uv_replace_allocator(mem_alloc, mem_realloc, zalloc_array, free) == 0);
    struct loop *l = mem_alloc(sizeof *l);
    memset(l, 0, offsetof(struct loop, read_buffer));
    if (uv_loop_init(&l->uv) != 0) {
        free(l);
        *out = NULL;
        return -1;
    }
    struct list *lists[] = {&l->tasks,     &l->dirty,  &l->watched, &l->streams,   &l->shaking,
                            &l->listeners, &l->timers, &l->polls,   &l->shakes_due};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) list_init(lists[i]);
    loop_task_init(&l->shakes, handshakes_work, l);
    l->armed_at_ms = UINT64_MAX;
    l->write_stall_ms = LIMIT_WRITE_STALL_MS;
    l->streams_max = count_streams_max();
    l->prepare.data = l->turn_timer.data = l->sweep.data = l;
    CHECK(uv_prepare_init(&l->uv, &l->prepare) == 0);
    CHECK(uv_prepare_start(&l->prepare, on_prepare) == 0);
    CHECK(uv_timer_init(&l->uv, &l->turn_timer) == 0);
    CHECK(uv_timer_init(&l->uv, &l->sweep) == 0);
    for (size_t i = 0; i < SIGNALS; i++) {
        CHECK(uv_signal_init(&l->uv, &l->signals[i]) == 0);
        l->signals[i].data = l;
    }
    /* A peer that closes is an error of the write, not the end of the process. */
    signal(SIGPIPE, SIG_IGN);
    loop_enter(l);
    l->in_turn = false;
    *out = l;
    return 0;
}

void loop_set_turn(struct loop *l, loop_turn_fn *fn, void *ctx) {
    l->turn = fn;
    l->turn_ctx = ctx;
}

void loop_set_signals(struct loop *l, loop_signal_fn *fn, void *ctx) {
    l->on_signal = fn;
    l->on_signal_ctx = ctx;
    for (size_t i = 0; i < SIGNALS; i++) {
        CHECK(uv_signal_start(&l->signals[i], on_signal, signals[i]) == 0);
    }
}

void loop_run(struct loop *l) {
    CHECK(uv_run(&l->uv, UV_RUN_DEFAULT) == 0);
}

void loop_stop(struct loop *l) {
    l->stopping = true;
    l->again = true;
    if (!l->in_turn && !l->stopped) arm(l, 0);
}

void loop_close(struct loop **l) {
    if (*l == NULL) return;
    if (!(*l)->stopped) close_all(*l);
    CHECK(uv_run(&(*l)->uv, UV_RUN_DEFAULT) == 0);
    LIST_FOR(n, next, &(*l)->timers) {
        free(CONTAINER_OF(n, struct loop_timer, node));
    }
    listeners_free(*l);
    polls_free(*l);
    CHECK(uv_loop_close(&(*l)->uv) == 0);
    free(*l);
    *l = NULL;
}

uint64_t loop_seed(void) {
    uint64_t seed;
    CHECK(uv_random(NULL, NULL, &seed, sizeof seed, 0, NULL) == 0);
    return seed;
}

uint64_t loop_now_ms(const struct loop *l) {
    return l->now_ms;
}

uint64_t loop_wall_ms(const struct loop *l) {
    return l->wall_ms;
}

void loop_again(struct loop *l) {
    l->again = true;
}

void loop_set_write_stall(struct loop *l, uint64_t ms) {
    l->write_stall_ms = ms;
}

void loop_task_init(struct loop_task *t, void (*fn)(void *ctx), void *ctx) {
    list_init(&t->node);
    t->fn = fn;
    t->ctx = ctx;
}

void loop_defer(struct loop *l, struct loop_task *t) {
    if (list_empty(&t->node)) list_push_back(&l->tasks, &t->node);
}

void loop_task_cancel(struct loop_task *t) {
    list_unlink(&t->node);
}

static void on_timer(uv_timer_t *h) {
    struct loop_timer *t = CONTAINER_OF(h, struct loop_timer, uv);
    loop_enter(t->loop);
    t->fn(t->ctx);
}

struct loop_timer *loop_timer_start(struct loop *l, uint64_t after_ms, uint64_t repeat_ms,
                                    loop_timer_fn *fn, void *ctx) {
    struct loop_timer *t = mem_zalloc(sizeof *t);
    CHECK(!l->stopped);
    t->loop = l;
    t->fn = fn;
    t->ctx = ctx;
    list_push_back(&l->timers, &t->node);
    CHECK(uv_timer_init(&l->uv, &t->uv) == 0);
    CHECK(uv_timer_start(&t->uv, on_timer, after_ms, repeat_ms) == 0);
    return t;
}

void loop_timer_set(struct loop_timer *t, uint64_t after_ms) {
    if (uv_is_closing((uv_handle_t *)&t->uv)) return;
    if (after_ms == UINT64_MAX) uv_timer_stop(&t->uv);
    else CHECK(uv_timer_start(&t->uv, on_timer, after_ms, 0) == 0);
}

void loop_timer_stop(struct loop_timer **timer) {
    struct loop_timer *t = *timer;
    if (t == NULL) return;
    *timer = NULL;
    t->released = true;
    if (t->closed) {
        list_unlink(&t->node);
        free(t);
    } else if (!uv_is_closing((uv_handle_t *)&t->uv)) {
        uv_close((uv_handle_t *)&t->uv, on_timer_closed);
    }
}
