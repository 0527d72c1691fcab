/* Polls of descriptors that are not the loop's own, and timers that are set again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/net/poll.h"

#define WATCHDOG_MS 20000

struct fixture {
    struct loop *loop;
    struct loop_timer *watchdog;
    struct loop_poll *poll;
    int ends[2];
    unsigned calls, seen; /* readiness of the last call */
    void (*then)(struct fixture *f);
};

static void on_late(void *ctx) {
    (void)ctx;
    fail_msg("nothing happened");
}

static void on_ready(void *ctx, int fd, unsigned ready) {
    struct fixture *f = ctx;
    assert_int_equal(fd, f->ends[0]);
    f->calls++;
    f->seen = ready;
    f->then(f);
}

static void open_fixture(struct fixture *f, void (*then)(struct fixture *f)) {
    memset(f, 0, sizeof *f);
    f->then = then;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, f->ends), 0);
    assert_int_equal(loop_open(&f->loop), 0);
    f->watchdog = loop_timer_start(f->loop, WATCHDOG_MS, 0, on_late, f);
    f->poll = loop_poll_start(f->loop, f->ends[0], on_ready, f);
    assert_non_null(f->poll);
    assert_int_equal(loop_poll_wanted(f->poll), 0);
}

static void close_fixture(struct fixture *f) {
    loop_poll_stop(&f->poll);
    assert_null(f->poll);
    loop_poll_stop(&f->poll);
    loop_timer_stop(&f->watchdog);
    loop_close(&f->loop);
    close(f->ends[0]);
    if (f->ends[1] >= 0) close(f->ends[1]);
}

/* Writable, then only readable when there is something, then nothing. */
static void step(struct fixture *f) {
    char byte;
    if (f->calls == 1) {
        assert_int_equal(f->seen, POLL_WRITE);
        loop_poll_want(f->poll, POLL_READ);
        assert_int_equal(write(f->ends[1], "ab", 2), 2);
    } else if (f->calls == 2) {
        assert_int_equal(f->seen, POLL_READ);
        assert_int_equal(read(f->ends[0], &byte, 1), 1);
    } else if (f->calls == 3) { /* as long as it stays so */
        loop_poll_want(f->poll, POLL_READ | POLL_WRITE);
    } else {
        assert_int_equal(f->calls, 4);
        assert_int_equal(f->seen, POLL_READ | POLL_WRITE);
        loop_poll_want(f->poll, 0);
        assert_int_equal(loop_poll_wanted(f->poll), 0);
        loop_stop(f->loop);
    }
}

static void readiness(void **state) {
    struct fixture f;
    (void)state;
    open_fixture(&f, step);
    loop_poll_want(f.poll, POLL_WRITE);
    loop_run(f.loop);
    assert_int_equal(f.calls, 4);
    close_fixture(&f);
}

static void stop_itself(struct fixture *f) {
    loop_poll_stop(&f->poll);
    loop_stop(f->loop);
}

static void stopped_in_its_callback(void **state) {
    struct fixture f;
    (void)state;
    open_fixture(&f, stop_itself);
    loop_poll_want(f.poll, POLL_WRITE);
    loop_run(f.loop);
    assert_int_equal(f.calls, 1);
    close_fixture(&f);
}

static void see_error(struct fixture *f) {
    assert_int_equal(f->seen, 0);
    assert_int_equal(loop_poll_wanted(f->poll), 0);
    loop_stop(f->loop);
}

/* The reading end of a pipe is gone: its other end has an error. */
static void an_error(void **state) {
    struct fixture f;
    int pipes[2];
    (void)state;
    open_fixture(&f, see_error);
    loop_poll_stop(&f.poll);
    assert_int_equal(pipe(pipes), 0);
    close(f.ends[0]);
    f.ends[0] = pipes[1];
    f.poll = loop_poll_start(f.loop, pipes[1], on_ready, &f);
    assert_non_null(f.poll);
    close(pipes[0]);
    loop_poll_want(f.poll, POLL_WRITE);
    loop_run(f.loop);
    assert_int_equal(f.calls, 1);
    close_fixture(&f);
}

static void what_cannot_be_polled(void **state) {
    struct fixture f;
    (void)state;
    open_fixture(&f, step);
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0);
    assert_null(loop_poll_start(f.loop, file, on_ready, &f));
    close(file);
    assert_null(loop_poll_start(f.loop, -1, on_ready, &f));
    close_fixture(&f);
}

struct ticks {
    struct loop *loop;
    struct loop_timer *timer, *other;
    int fires;
};

static void on_tick(void *ctx) {
    struct ticks *t = ctx;
    if (++t->fires == 3) loop_stop(t->loop);
    else loop_timer_set(t->timer, (uint64_t)t->fires);
}

static void on_never(void *ctx) {
    (void)ctx;
    fail_msg("a timer that was switched off has fired");
}

/* Set again from its own callback; switched off; and harmless once the loop has ended. */
static void timers_that_are_set_again(void **state) {
    struct ticks t = {0};
    (void)state;
    assert_int_equal(loop_open(&t.loop), 0);
    t.other = loop_timer_start(t.loop, 0, 0, on_never, &t);
    loop_timer_set(t.other, UINT64_MAX);
    t.timer = loop_timer_start(t.loop, WATCHDOG_MS, 0, on_tick, &t);
    loop_timer_set(t.timer, 0);
    loop_run(t.loop);
    assert_int_equal(t.fires, 3);
    loop_timer_set(t.timer, 1);
    loop_timer_stop(&t.timer);
    loop_timer_stop(&t.other);
    loop_close(&t.loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readiness),
        cmocka_unit_test(stopped_in_its_callback),
        cmocka_unit_test(an_error),
        cmocka_unit_test(what_cannot_be_polled),
        cmocka_unit_test(timers_that_are_set_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
