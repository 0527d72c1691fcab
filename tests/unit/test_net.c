/* The loop, its turns and timers, and the addresses and errors of listeners. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "broker/net/stream.h"

static void no_accept(void *ctx, struct stream *s) {
    (void)ctx;
    stream_close(s, "not expected");
}

static void expect_refused(const char *address, const char *part) {
    struct loop *l;
    struct listener *listener;
    uint16_t port;
    char error[256] = "";
    assert_int_equal(loop_open(&l), 0);
    assert_int_not_equal(
        listener_open(l, address, no_accept, NULL, &listener, &port, error, sizeof error), 0);
    assert_null(listener);
    if (strstr(error, part) == NULL) fail_msg("%s: %s", address, error);
    if (strstr(error, address) == NULL) fail_msg("%s is not named: %s", address, error);
    loop_close(&l);
}

static void test_addresses(void **state) {
    (void)state;
    expect_refused("", "has no port");
    expect_refused("localhost", "has no port");
    expect_refused("[::1]", "has no port");
    expect_refused("[::1", "has no port");
    expect_refused(":8420", "has no host");
    expect_refused("[]:8420", "has no host");
    expect_refused("::1:8420", "goes in brackets");
    expect_refused("example.com:80", "no IP address");
    expect_refused("1.2.3:80", "no IP address");
    expect_refused("[127.0.0.1]:80", "no IP address");
    expect_refused("127.0.0.1:", "port is not a number");
    expect_refused("127.0.0.1:65536", "port is not a number");
    expect_refused("127.0.0.1:-1", "port is not a number");
    expect_refused("127.0.0.1:80x", "port is not a number");
    expect_refused("192.0.2.1:0", "not an address of this machine");
}

static void test_in_use(void **state) {
    struct loop *l;
    struct listener *one, *two;
    uint16_t port, other;
    char error[256], address[32];
    (void)state;
    assert_int_equal(loop_open(&l), 0);
    assert_int_equal(
        listener_open(l, "localhost:0", no_accept, NULL, &one, &port, error, sizeof error), 0);
    assert_int_not_equal(port, 0);
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    assert_int_not_equal(
        listener_open(l, address, no_accept, NULL, &two, &other, error, sizeof error), 0);
    assert_non_null(strstr(error, "already in use"));
    assert_non_null(strstr(error, address));
    listener_close(&one);
    assert_null(one);
    listener_close(&one);
    loop_close(&l);
    assert_null(l);
}

struct turns {
    struct loop *loop;
    struct loop_task task;
    struct loop_timer *timer;
    int hooks, tasks, fires;
    uint64_t asked_ms; /* what the hook wants to be woken at */
    bool task_saw_hook;
};

static uint64_t on_turn(void *ctx, uint64_t now_ms) {
    struct turns *t = ctx;
    assert_true(now_ms == loop_now_ms(t->loop));
    t->hooks++;
    if (t->hooks == 1) loop_defer(t->loop, &t->task);
    if (t->asked_ms == 0) t->asked_ms = now_ms + 5;
    if (now_ms < t->asked_ms) return t->asked_ms;
    loop_stop(t->loop);
    return UINT64_MAX;
}

static void on_task(void *ctx) {
    struct turns *t = ctx;
    t->tasks++;
    t->task_saw_hook = t->hooks == 1;
    if (t->tasks == 1) loop_defer(t->loop, &t->task); /* runs after the next turn, not now */
}

/* The hook is called again at the time it asked for, with nothing else going on; a task runs after
 * the hook of its turn, and one that is deferred by a task makes another turn. */
static void test_turn(void **state) {
    struct turns t = {0};
    (void)state;
    assert_int_equal(loop_open(&t.loop), 0);
    loop_task_init(&t.task, on_task, &t);
    loop_set_turn(t.loop, on_turn, &t);
    loop_run(t.loop);
    assert_true(loop_now_ms(t.loop) >= t.asked_ms);
    assert_int_equal(t.tasks, 2);
    assert_true(loop_wall_ms(t.loop) > 1600000000000);
    loop_close(&t.loop);
}

static void on_fire(void *ctx) {
    struct turns *t = ctx;
    t->fires++;
    if (t->fires < 3) return;
    loop_timer_stop(&t->timer); /* from inside its own callback */
    loop_stop(t->loop);
}

static void test_timers(void **state) {
    struct turns t = {0};
    (void)state;
    assert_int_equal(loop_open(&t.loop), 0);
    t.timer = loop_timer_start(t.loop, 1, 1, on_fire, &t);
    struct loop_timer *left = loop_timer_start(t.loop, 60000, 0, on_fire, &t);
    struct loop_timer *forgotten = loop_timer_start(t.loop, 60000, 0, on_fire, &t);
    assert_non_null(forgotten);
    loop_run(t.loop);
    assert_int_equal(t.fires, 3);
    assert_null(t.timer);
    loop_timer_stop(&left); /* after loop_run: it was closed, its memory is given back here */
    assert_null(left);
    loop_timer_stop(&left);
    loop_close(&t.loop); /* frees the one that nobody stopped */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_in_use),
        cmocka_unit_test(test_turn),
        cmocka_unit_test(test_timers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
