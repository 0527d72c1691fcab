/* loop.h: the event loop, its clocks and the turn.
 *
 * One loop per broker, owned by main from loop_open to loop_close; everything that is attached to
 * it (listeners, streams, timers, polls) is closed before. A turn is one pass of the loop:
 * callbacks of sockets run, then the turn hook, right before the loop would block: that is where
 * the broker commits what the callbacks brought and lets the answers out; then every stream that
 * has output writes it with one system call. Whatever happens in between sees one time.
 *
 * Knows bytes and times, no events, no HTTP. The only user of uv.h in the broker with its siblings
 * in net/. May call: base, libuv. */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include "base/check.h"
#include "base/list.h"
#include "base/slice.h"

struct loop;

/* The end of a turn. Returns the monotonic time (ms) at which it wants to run again even if
 * nothing arrives; a time that is not in the future means at once; UINT64_MAX means never. */
typedef uint64_t loop_turn_fn(void *ctx, uint64_t now_ms);
/* SIGTERM, SIGINT or SIGHUP arrived. */
typedef void loop_signal_fn(void *ctx, int signum);

MUST_CHECK int loop_open(struct loop **out);
void loop_set_turn(struct loop *l, loop_turn_fn *fn, void *ctx);
void loop_set_signals(struct loop *l, loop_signal_fn *fn, void *ctx);
/* Runs until loop_stop was called and every handle is closed. */
void loop_run(struct loop *l);
/* Asks loop_run to return after this turn: closes listeners, streams, timers and polls that are
 * left. */
void loop_stop(struct loop *l);
/* Frees; *l becomes NULL. Not from inside a callback. */
void loop_close(struct loop **l);

/* 64 bits from the system's random source, as a seed for jitter. */
uint64_t loop_seed(void);
/* Monotonic milliseconds; the same for everything within a turn. */
uint64_t loop_now_ms(const struct loop *l);
/* Wall time in milliseconds since 1970, read when the turn began: for stamps, never for timers. */
uint64_t loop_wall_ms(const struct loop *l);

/* Another turn follows this one at once, even if nothing arrives. */
void loop_again(struct loop *l);
/* Output that waits for a peer which takes none of it for this long closes the stream; the default
 * is LIMIT_WRITE_STALL_MS. */
void loop_set_write_stall(struct loop *l, uint64_t ms);

/* Work for the start of the next turn: it runs after this turn's hook has run and its output was
 * written, so what was borrowed until the end of the turn may be freed or used again. A task that
 * hands out new work calls loop_again. The memory is the caller's; it lies there untouched until
 * the task has begun to run or was cancelled. Tasks that are left when the loop stops never run. */
struct loop_task {
    struct list node; /* in the loop's list while deferred */
    void (*fn)(void *ctx);
    void *ctx;
};
void loop_task_init(struct loop_task *t, void (*fn)(void *ctx), void *ctx);
/* Idempotent until it runs. */
void loop_defer(struct loop *l, struct loop_task *t);
/* Harmless when it is not deferred. */
void loop_task_cancel(struct loop_task *t);

/* A repeating or single timer. Owned by whoever started it; memory is the loop's after
 * loop_timer_stop, which sets *t to NULL and is harmless on NULL. */
struct loop_timer;
typedef void loop_timer_fn(void *ctx);
struct loop_timer *loop_timer_start(struct loop *l, uint64_t after_ms, uint64_t repeat_ms,
                                    loop_timer_fn *fn, void *ctx);
/* Makes it fire once, so long from now; UINT64_MAX: not until it is set again. */
void loop_timer_set(struct loop_timer *t, uint64_t after_ms);
void loop_timer_stop(struct loop_timer **t);

#endif
