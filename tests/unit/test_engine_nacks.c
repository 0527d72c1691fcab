/* What a nack does, as transcripts on virtual time: its kinds, what is kept of a failure, age, and
 * backoff. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/engine_world.h"

static void each_kind_of_nack_has_its_way(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 4, 0);
    world_publish_many(&w, "t", 4);
    world_note(&w, "released: again at once, or after a delay, without a fail");
    world_nack(&w, 1, 1, NACK_RELEASE, DELAY_BY_POLICY, "");
    world_nack(&w, 1, 2, NACK_RELEASE, 50, "");
    world_note(&w, "failed: by the policy, or after a delay");
    world_nack(&w, 1, 3, NACK_FAIL, DELAY_BY_POLICY, "boom");
    world_nack(&w, 1, 4, NACK_FAIL, 20, "boom");
    world_note(&w, "rejected: a dead letter");
    world_nack(&w, 1, 5, NACK_REJECT, 0, "no use");
    world_show_dead(&w, "s");
    world_wait(&w, 8);
    world_wait(&w, 12);
    world_wait(&w, 30);
    world_nack(&w, 1, 6, NACK_FAIL, 0, "boom"); /* 0 overrides the policy too */
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3 4\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 3 seq 3 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 4 seq 4 t fails 0 deliveries 1\n"
                 "-- released: again at once, or after a delay, without a fail\n"
                 "[1000] 1 < tag 5 seq 1 t fails 0 deliveries 2\n"
                 "-- failed: by the policy, or after a delay\n"
                 "-- rejected: a dead letter\n"
                 "dead seq 1 rejected fails 0 deliveries 2 [/no use/]\n"
                 "[1008] 1 < tag 6 seq 3 t fails 1 deliveries 2\n"
                 "[1020] 1 < tag 7 seq 4 t fails 1 deliveries 2\n"
                 "[1050] 1 < tag 8 seq 2 t fails 0 deliveries 2\n"
                 "[1050] 1 < tag 9 seq 3 t fails 2 deliveries 3\n");
    world_close(&w);
}

static void a_nack_out_of_bounds_changes_nothing(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 4, 0);
    world_publish(&w, "t", "");
    world_nack(&w, 1, 1, NACK_FAIL, LIMIT_BACKOFF_MS_MAX + 1, "boom");
    world_nack(&w, 1, 2, NACK_FAIL, 0, "boom");
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] error invalid_request: delay_ms: must be 0 to 86400000 (24 hours)\n"
                 "[1000] error unknown_tag: tag 2 was never handed out here: the tags are 1 to 1\n"
                 "s: floor 1 next 2 ready 0 leased 1 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

static void elsewhere_goes_to_the_other_worker(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 4, 0);
    world_publish(&w, "t", "");
    world_attach(&w, 2, "s", 4, 0);
    world_nack(&w, 1, 1, NACK_ELSEWHERE, DELAY_BY_POLICY, "not mine");
    world_note(&w, "once somebody had it, anybody may");
    world_detach(&w, 2, DETACH_RELEASE);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] attached 2 backlog 0\n"
                 "[1000] 2 < tag 1 seq 1 t fails 0 deliveries 2\n"
                 "-- once somebody had it, anybody may\n"
                 "[1000] 1 < tag 2 seq 1 t fails 0 deliveries 3\n");
    world_close(&w);
}

static void elsewhere_comes_back_when_nobody_else_is_there(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 4, 0);
    world_publish(&w, "t", "");
    world_nack(&w, 1, 1, NACK_ELSEWHERE, 2500, "not mine");
    world_show(&w, "s");
    world_publish(&w, "t", ""); /* others are not held up */
    world_settle(&w, COMMAND_ACK, 1, 2, 2, false);
    world_wait(&w, 1000);
    world_wait(&w, 1000);
    world_wait(&w, 499);
    world_wait(&w, 1);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "s: floor 1 next 2 ready 0 leased 0 delayed 1 dead 0 idle backoff\n"
                 "[1000] published 2\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[3500] 1 < tag 3 seq 1 t fails 0 deliveries 2\n");
    world_note(&w, "by default after 60 s; a worker that comes meanwhile has it within a second");
    world_nack(&w, 1, 3, NACK_ELSEWHERE, DELAY_BY_POLICY, "not mine");
    for (int i = 0; i < 10; i++) world_wait(&w, 1000);
    world_attach(&w, 2, "s", 4, 0);
    world_wait(&w, 1000);
    world_expect(&w,
                 "-- by default after 60 s; a worker that comes meanwhile has it within a second\n"
                 "[13500] attached 2 backlog 0\n"
                 "[14500] 2 < tag 1 seq 1 t fails 0 deliveries 3\n");
    world_close(&w);
}

static void the_parts_of_a_failure_are_kept(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    p.max_fails = 2;
    p.max_age_ms = 5000;
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 4, 0);
    world_publish_many(&w, "t", 3);
    struct tag_range all = {1, 3};
    struct command c = {.kind = COMMAND_NACK};
    c.u.settle.attachment = 1;
    c.u.settle.ranges = &all;
    c.u.settle.count = 1;
    c.u.settle.kind = NACK_FAIL;
    c.u.settle.delay_ms = 1000;
    c.u.settle.failure =
        (struct failure){slice_str("Timeout"), slice_str("no answer"), slice_str("at line 7")};
    world_run(&w, &c);
    world_wait(&w, 1000);
    buf_clear(&w.log);
    world_note(&w, "the last one counts; an expiry says so itself");
    world_nack(&w, 1, 4, NACK_FAIL, DELAY_BY_POLICY, "second");
    world_nack(&w, 1, 5, NACK_REJECT, DELAY_BY_POLICY, "");
    world_wait(&w, 4000);
    world_show_dead(&w, "s");
    world_expect(&w,
                 "-- the last one counts; an expiry says so itself\n"
                 "[6000] 1 revoked tag 6 expired\n"
                 "dead seq 1 max_fails fails 2 deliveries 2 [/second/]\n"
                 "dead seq 2 rejected fails 1 deliveries 2 [//]\n"
                 "dead seq 3 max_fails fails 2 deliveries 2 [/lease expired/]\n");
    world_close(&w);
}

static void an_event_that_is_too_old_dies_with_its_last_failure(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    p.max_age_ms = 5000;
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 4, 0);
    world_publish(&w, "failed", "");
    world_publish(&w, "late", "");
    world_nack(&w, 1, 1, NACK_FAIL, 5001, "was down");
    world_wait(&w, 4500);
    world_settle(&w, COMMAND_ACK, 1, 2, 2, true);
    world_detach(&w, 1, DETACH_RELEASE);
    world_publish(&w, "young", "");
    world_publish_due(&w, "due", "", 400);
    world_wait(&w, 501);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 failed fails 0 deliveries 1\n"
                 "[1000] published 2\n"
                 "[1000] 1 < tag 2 seq 2 late fails 0 deliveries 1\n"
                 "[5500] 1 revoked tag 2 expired\n"
                 "[5500] 1 settled ok 2-2\n"
                 "[5500] published 3\n"
                 "[5500] published 4\n");
    world_attach(&w, 1, "s", 4, 0);
    world_show_dead(&w, "s");
    world_note(&w, "one that was delayed is as old as its time");
    world_detach(&w, 1, DETACH_RELEASE);
    world_wait(&w, 4899);
    world_attach(&w, 1, "s", 4, 0);
    world_show_dead(&w, "s");
    world_expect(&w,
                 "[6001] attached 1 backlog 2\n"
                 "[6001] 1 < tag 1 seq 3 young fails 0 deliveries 1\n"
                 "[6001] 1 < tag 2 seq 4 due fails 0 deliveries 1\n"
                 "dead seq 1 expired fails 1 deliveries 1 [/was down/]\n"
                 "-- one that was delayed is as old as its time\n"
                 "[10900] attached 1 backlog 0\n"
                 "[10900] 1 < tag 1 seq 4 due fails 0 deliveries 2\n"
                 "dead seq 1 expired fails 1 deliveries 1 [/was down/]\n"
                 "dead seq 3 expired fails 0 deliveries 1 [//]\n");
    world_close(&w);
}

static void what_an_operator_asks_for_again_is_not_too_old(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    p.max_age_ms = 1000;
    world_open_with(&w, &p);
    world_publish(&w, "t", "");
    world_wait(&w, 2000);
    world_attach(&w, 1, "s", 4, 0);
    world_show_dead(&w, "s");
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 0, "");
    world_task(&w, TASK_REPLAY, "s", 1, 1, 0, "");
    world_nack(&w, 1, 1, NACK_FAIL, DELAY_BY_POLICY, "boom");
    world_nack(&w, 1, 2, NACK_FAIL, DELAY_BY_POLICY, "boom");
    world_wait(&w, 8);
    world_expect(&w,
                 "[1000] published 1\n"
                 "[3000] attached 1 backlog 1\n"
                 "dead seq 1 expired fails 0 deliveries 0 [//]\n"
                 "[3000] done created\n"
                 "[3000] 1 < tag 1 seq 1 t fails 0 deliveries 1 redrive\n"
                 "[3000] done created\n"
                 "[3000] 1 < tag 2 seq 1 t fails 0 deliveries 1 replay\n"
                 "[3008] 1 < tag 3 seq 1 t fails 1 deliveries 2 replay\n"
                 "[3008] 1 < tag 4 seq 1 t fails 1 deliveries 2 redrive\n");
    world_close(&w);
}

/* ---- backoff ---- */

static void backoff_grows_by_its_factor_to_its_highest(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    p.backoff_min_ms = 100;
    p.backoff_max_ms = 1000;
    p.backoff_factor_permille = 3000;
    p.backoff_jitter_permille = 0;
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 1, 0);
    world_publish(&w, "t", "");
    const uint64_t waits[] = {100, 300, 900, 1000, 1000};
    for (uint64_t i = 0; i < 5; i++) {
        world_nack(&w, 1, i + 1, NACK_FAIL, DELAY_BY_POLICY, "boom");
        world_wait(&w, waits[i] - 1);
        world_wait(&w, 1);
    }
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1100] 1 < tag 2 seq 1 t fails 1 deliveries 2\n"
                 "[1400] 1 < tag 3 seq 1 t fails 2 deliveries 3\n"
                 "[2300] 1 < tag 4 seq 1 t fails 3 deliveries 4\n"
                 "[3300] 1 < tag 5 seq 1 t fails 4 deliveries 5\n"
                 "[4300] 1 < tag 6 seq 1 t fails 5 deliveries 6\n");
    world_close(&w);
}

static void backoff_by_a_list_repeats_its_last_step(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    const uint64_t list[] = {5, 50, 7};
    p.backoff_list_ms = list;
    p.backoff_list_count = 3;
    p.backoff_jitter_permille = 0;
    world_open_with(&w, &p);
    world_crash(&w); /* the list is on disk */
    world_attach(&w, 1, "s", 1, 0);
    world_publish(&w, "t", "");
    const uint64_t waits[] = {5, 50, 7, 7};
    for (uint64_t i = 0; i < 4; i++) {
        world_nack(&w, 1, i + 1, NACK_FAIL, DELAY_BY_POLICY, "boom");
        world_wait(&w, waits[i] - 1);
        world_wait(&w, 1);
    }
    world_note(&w, "an expired lease waits by the same list");
    world_wait(&w, 4000);
    world_attach(&w, 2, "s", 1, 0);
    world_wait(&w, 6);
    world_wait(&w, 1);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1005] 1 < tag 2 seq 1 t fails 1 deliveries 2\n"
                 "[1055] 1 < tag 3 seq 1 t fails 2 deliveries 3\n"
                 "[1062] 1 < tag 4 seq 1 t fails 3 deliveries 4\n"
                 "[1069] 1 < tag 5 seq 1 t fails 4 deliveries 5\n"
                 "-- an expired lease waits by the same list\n"
                 "[5069] 1 revoked tag 5 expired\n"
                 "[5069] attached 2 backlog 0\n"
                 "[5076] 2 < tag 1 seq 1 t fails 5 deliveries 6\n");
    world_close(&w);
}

static void jitter_only_adds_and_stays_in_its_bounds(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct policy p = world_policy();
    p.backoff_min_ms = p.backoff_max_ms = 1000;
    p.backoff_jitter_permille = 100;
    p.max_fails = 0;
    world_open(&w);
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 1, 0);
    world_publish(&w, "t", "");
    uint64_t lowest = UINT64_MAX, highest = 0;
    for (uint64_t i = 1; i <= 200; i++) {
        world_nack(&w, 1, i, NACK_FAIL, DELAY_BY_POLICY, "boom");
        uint64_t waited = 0;
        while (engine_attachment_unsettled(w.engine, 1) == 0) {
            uint64_t at = engine_next_deadline(w.engine, w.time);
            assert_true(at > w.time.now_ms);
            waited += at - w.time.now_ms;
            world_wait(&w, at - w.time.now_ms);
        }
        if (waited < lowest) lowest = waited;
        if (waited > highest) highest = waited;
    }
    assert_in_range(lowest, 1000, 1010);
    assert_in_range(highest, 1090, 1100);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_of_nack_has_its_way),
        cmocka_unit_test(a_nack_out_of_bounds_changes_nothing),
        cmocka_unit_test(elsewhere_goes_to_the_other_worker),
        cmocka_unit_test(elsewhere_comes_back_when_nobody_else_is_there),
        cmocka_unit_test(the_parts_of_a_failure_are_kept),
        cmocka_unit_test(an_event_that_is_too_old_dies_with_its_last_failure),
        cmocka_unit_test(what_an_operator_asks_for_again_is_not_too_old),
        cmocka_unit_test(backoff_grows_by_its_factor_to_its_highest),
        cmocka_unit_test(backoff_by_a_list_repeats_its_last_step),
        cmocka_unit_test(jitter_only_adds_and_stays_in_its_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
