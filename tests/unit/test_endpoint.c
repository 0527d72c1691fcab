/* endpoint.c: windows and the breaker. Time is passed in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "broker/webhooks/endpoint.h"

#define FIRST_MS 30000
#define MAX_MS   600000
#define WALL     1000000

static struct endpoint fresh(uint32_t window_max) {
    struct endpoint e;
    endpoint_init(&e, window_max, FIRST_MS, MAX_MS);
    return e;
}

static void succeed(struct endpoint *e, uint64_t now_ms) {
    endpoint_began(e);
    endpoint_succeeded(e, 20, WALL + now_ms);
}

static void fails(struct endpoint *e, uint64_t pause_ms, uint64_t now_ms) {
    endpoint_began(e);
    endpoint_failed(e, pause_ms, now_ms, WALL + now_ms);
}

static void test_a_window_grows_with_success_up_to_its_bound(void **state) {
    (void)state;
    struct endpoint e = fresh(5);
    assert_int_equal(endpoint_window(&e), 2);
    for (int i = 0; i < 10; i++) succeed(&e, 0);
    assert_int_equal(endpoint_window(&e), 5);
    assert_int_equal(e.in_flight, 0);
    struct endpoint narrow = fresh(1);
    assert_int_equal(endpoint_window(&narrow), 1);
    succeed(&narrow, 0);
    assert_int_equal(endpoint_window(&narrow), 1);
}

static void test_a_failure_halves_it_and_one_is_left(void **state) {
    (void)state;
    struct endpoint e = fresh(8);
    for (int i = 0; i < 10; i++) succeed(&e, 0);
    static const uint32_t windows[] = {4, 2, 1, 1};
    for (size_t i = 0; i < 4; i++) {
        fails(&e, 0, 0);
        assert_int_equal(endpoint_window(&e), windows[i]);
    }
}

static void test_five_failures_in_a_row_open_the_breaker(void **state) {
    (void)state;
    struct endpoint e = fresh(8);
    for (int i = 0; i < 4; i++) fails(&e, 0, 100);
    succeed(&e, 150);
    for (int i = 0; i < 4; i++) fails(&e, 0, 200);
    assert_int_equal(e.breaker, BREAKER_CLOSED);
    fails(&e, 0, 300);
    assert_int_equal(e.breaker, BREAKER_OPEN);
    assert_int_equal(endpoint_window(&e), 0);
    assert_false(endpoint_tick(&e, 300 + FIRST_MS - 1));
    assert_true(endpoint_tick(&e, 300 + FIRST_MS));
    assert_int_equal(e.breaker, BREAKER_PROBING);
    assert_int_equal(endpoint_window(&e), 1);
    assert_false(endpoint_tick(&e, 300 + FIRST_MS));
}

static void test_the_time_between_probes_doubles_up_to_its_bound(void **state) {
    (void)state;
    struct endpoint e = fresh(8);
    uint64_t now_ms = 0;
    for (int i = 0; i < ENDPOINT_FAILURES; i++) fails(&e, 0, now_ms);
    static const uint64_t waits_ms[] = {30000, 60000, 120000, 240000, 480000, 600000, 600000};
    for (size_t i = 0; i < sizeof waits_ms / sizeof waits_ms[0]; i++) {
        assert_int_equal(e.probe_at_ms - now_ms, waits_ms[i]);
        now_ms = e.probe_at_ms;
        assert_true(endpoint_tick(&e, now_ms));
        fails(&e, 0, now_ms);
        assert_int_equal(e.breaker, BREAKER_OPEN);
    }
}

static void test_a_probe_that_succeeds_closes_it(void **state) {
    (void)state;
    struct endpoint e = fresh(8);
    for (int i = 0; i < ENDPOINT_FAILURES; i++) fails(&e, 0, 0);
    assert_int_equal(e.failing_since_ms, WALL);
    assert_true(endpoint_tick(&e, FIRST_MS));
    succeed(&e, FIRST_MS);
    assert_int_equal(e.breaker, BREAKER_CLOSED);
    assert_int_equal(e.failing_since_ms, 0);
    assert_int_equal(endpoint_window(&e), 2);
    for (int i = 0; i < ENDPOINT_FAILURES; i++) fails(&e, 0, FIRST_MS);
    assert_int_equal(e.probe_at_ms, FIRST_MS + FIRST_MS); /* not the doubled time */
}

static void test_who_asks_for_time_gets_it_at_once(void **state) {
    (void)state;
    struct endpoint e = fresh(8);
    fails(&e, 7000, 100);
    assert_int_equal(e.breaker, BREAKER_OPEN);
    assert_int_equal(e.probe_at_ms, 7100);
    assert_true(endpoint_tick(&e, 7100));
    fails(&e, 9000, 7100); /* the probe too */
    assert_int_equal(e.probe_at_ms, 16100);
}

static void test_our_own_fault_is_not_the_endpoints(void **state) {
    (void)state;
    struct endpoint e = fresh(8);
    for (int i = 0; i < 20; i++) {
        endpoint_began(&e);
        endpoint_ended(&e, true);
    }
    assert_int_equal(e.breaker, BREAKER_CLOSED);
    assert_int_equal(endpoint_window(&e), 2);
    struct webhook_stats stats;
    endpoint_stats(&e, 0, WALL, &stats);
    assert_int_equal(stats.internal_total, 20);
    assert_int_equal(stats.failed_total, 0);
    assert_int_equal(stats.in_flight, 0);
}

static void test_a_probe_that_says_nothing_is_followed_by_another(void **state) {
    (void)state;
    struct endpoint e = fresh(8);
    for (int i = 0; i < ENDPOINT_FAILURES; i++) fails(&e, 0, 0);
    assert_true(endpoint_tick(&e, FIRST_MS));
    endpoint_began(&e);
    endpoint_ended(&e, true);
    assert_int_equal(endpoint_window(&e), 1);
}

static void test_what_people_see(void **state) {
    (void)state;
    struct endpoint e = fresh(8);
    struct webhook_stats stats;
    succeed(&e, 10);
    for (int i = 0; i < ENDPOINT_FAILURES; i++) fails(&e, 0, 100);
    endpoint_stats(&e, 200, WALL + 200, &stats);
    assert_int_equal(stats.delivered_total, 1);
    assert_int_equal(stats.failed_total, ENDPOINT_FAILURES);
    assert_int_equal(stats.last_success_ms, WALL + 10);
    assert_int_equal(stats.last_failure_ms, WALL + 100);
    assert_int_equal(stats.failing_since_ms, WALL + 100);
    assert_int_equal(stats.failures_in_a_row, ENDPOINT_FAILURES);
    assert_int_equal(stats.window, 0);
    assert_string_equal(breaker_state_name(stats.breaker), "open");
    assert_int_equal(stats.next_probe_ms, WALL + 100 + FIRST_MS);
}

static void test_reset_forgets_all_but_the_totals(void **state) {
    (void)state;
    struct endpoint e = fresh(8);
    for (int i = 0; i < 9; i++) fails(&e, 0, 0);
    endpoint_reset(&e);
    assert_int_equal(e.breaker, BREAKER_CLOSED);
    assert_int_equal(endpoint_window(&e), 2);
    assert_int_equal(e.failures_in_a_row, 0);
    assert_int_equal(e.failed_total, 9);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_window_grows_with_success_up_to_its_bound),
        cmocka_unit_test(test_a_failure_halves_it_and_one_is_left),
        cmocka_unit_test(test_five_failures_in_a_row_open_the_breaker),
        cmocka_unit_test(test_the_time_between_probes_doubles_up_to_its_bound),
        cmocka_unit_test(test_a_probe_that_succeeds_closes_it),
        cmocka_unit_test(test_who_asks_for_time_gets_it_at_once),
        cmocka_unit_test(test_our_own_fault_is_not_the_endpoints),
        cmocka_unit_test(test_a_probe_that_says_nothing_is_followed_by_another),
        cmocka_unit_test(test_what_people_see),
        cmocka_unit_test(test_reset_forgets_all_but_the_totals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
