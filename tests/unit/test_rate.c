/* base/rate.h, against a count: in any span of time no more than the burst and what the rate
 * allows, and never less than that when somebody asks all the time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/prng.h"
#include "base/rate.h"

static bool take(struct rate *r, uint64_t now_ms) {
    if (rate_next_ms(r) > now_ms) return false;
    rate_take(r, now_ms);
    return true;
}

static uint64_t take_all(struct rate *r, uint64_t now_ms) {
    uint64_t n = 0;
    while (take(r, now_ms)) n++;
    return n;
}

static void no_rate_is_no_limit(void **state) {
    (void)state;
    struct rate r = {0};
    for (int i = 0; i < 1000; i++) assert_true(take(&r, 5));
    assert_int_equal(rate_next_ms(&r), 0);
}

static void a_burst_at_once_then_the_rate(void **state) {
    static const struct {
        uint32_t per_s;
        uint64_t burst;
    } rows[] = {{1, 1},  {1, 5},       {2, 1}, {10, 10},
                {10, 3}, {1000, 1000}, {3, 7}, {1000000, 1000000}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct rate r = {0};
        uint64_t now_ms = 1000000;
        rate_set(&r, rows[i].per_s, rate_burst_us(rows[i].per_s, rows[i].burst));
        assert_int_equal(take_all(&r, now_ms), rows[i].burst);
        /* The next one is there when it says so, and not before. */
        uint64_t next_ms = rate_next_ms(&r);
        assert_true(next_ms > now_ms && next_ms <= now_ms + 1000 / rows[i].per_s + 1);
        if (next_ms > now_ms + 1) assert_false(take(&r, next_ms - 1));
        assert_true(take(&r, next_ms));
        /* After long enough the whole burst is, and no more. */
        now_ms += 1000000ULL + rows[i].burst * 1000 / rows[i].per_s;
        assert_int_equal(take_all(&r, now_ms), rows[i].burst);
    }
}

static void over_time_it_is_the_rate(void **state) {
    (void)state;
    struct prng p;
    prng_seed(&p, 7);
    for (int round = 0; round < 50; round++) {
        uint32_t per_s = 1 + (uint32_t)prng_below(&p, 500);
        uint64_t burst = 1 + prng_below(&p, 2 * per_s), taken = 0, now_ms = 50000,
                 start_ms = now_ms;
        struct rate r = {0};
        rate_set(&r, per_s, rate_burst_us(per_s, burst));
        for (int i = 0; i < 3000; i++) {
            taken += take_all(&r, now_ms);
            uint64_t most = burst + (now_ms - start_ms) * per_s / 1000;
            assert_true(taken <=
                        most + 1 + most / 1000); /* the time of one is whole microseconds */
            if (r.burst_us >= 12000) assert_true(taken + 1 >= (now_ms - start_ms) * per_s / 1000);
            now_ms += 1 + prng_below(&p, 10); /* who asks later than the burst lasts loses some */
        }
    }
}

/* Whoever asks as often as its clock moves gets the rate, however small the burst. */
static void no_burst_is_below_one_of_the_clock(void **state) {
    (void)state;
    static const uint32_t rates[] = {1, 999, 1000, 2000, 50000, 1000000};
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        struct rate r = {0};
        uint64_t taken = 0;
        rate_set(&r, rates[i], rate_burst_us(rates[i], 1));
        for (uint64_t now_ms = 5000; now_ms < 7000; now_ms++) taken += take_all(&r, now_ms);
        assert_in_range(taken, 2 * rates[i], 2 * rates[i] + rates[i] / 500 + 1);
    }
}

/* A debt at one rate is none at another: the longest wait is that for the next one. */
static void another_rate_does_not_wait_for_the_one_before(void **state) {
    (void)state;
    static const struct {
        uint32_t per_s;
        uint64_t burst;
    } after[] = {{1, 1}, {1, 1000000}, {1000, 1}, {1000, 1000}, {1000000, 1000000}};
    for (size_t i = 0; i < sizeof after / sizeof after[0]; i++) {
        for (int off = 0; off < 2; off++) {
            struct rate r = {0};
            rate_set(&r, 1, rate_burst_us(1, 100000));
            assert_int_equal(take_all(&r, 1000), 100000);
            if (off == 1) rate_set(&r, 0, 0);
            rate_forgive(&r, 1500);
            rate_set(&r, after[i].per_s, rate_burst_us(after[i].per_s, after[i].burst));
            rate_forgive(&r, 2000);
            uint64_t next_ms = rate_next_ms(&r);
            assert_true(next_ms <= 2000 + 1000 / after[i].per_s + 1);
            if (after[i].burst <= 100000) assert_true(next_ms > 2000); /* and no token is new */
        }
    }
}

static void another_rate_forgets_nothing(void **state) {
    (void)state;
    struct rate r = {0};
    rate_set(&r, 1, rate_burst_us(1, 10));
    assert_int_equal(take_all(&r, 1000), 10);
    rate_set(&r, 1, rate_burst_us(1, 10));
    assert_int_equal(take_all(&r, 1000), 0);
    rate_set(&r, 1, rate_burst_us(1, 12));
    assert_int_equal(take_all(&r, 1000), 2);
    rate_set(&r, 0, 0);
    assert_true(take(&r, 1000));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_rate_is_no_limit),
        cmocka_unit_test(a_burst_at_once_then_the_rate),
        cmocka_unit_test(over_time_it_is_the_rate),
        cmocka_unit_test(no_burst_is_below_one_of_the_clock),
        cmocka_unit_test(another_rate_does_not_wait_for_the_one_before),
        cmocka_unit_test(another_rate_forgets_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
