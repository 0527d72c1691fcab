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
        cmocka_unit_test(another_rate_forgets_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
