/* How old an event is, as transcripts on virtual time: what is given up as too old and when, what
 * makes it young again, and dead letters of events since a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/engine_world.h"

#define SECOND 1000
#define HOUR   (3600 * (uint64_t)SECOND)

/* "s" on every event, which is too old after ten seconds; a worker with this window. */
static void open_with_age(struct world *w, uint64_t window) {
    struct policy p = world_policy();
    p.max_age_ms = 10 * SECOND;
    world_open_with(w, &p);
    world_attach(w, 1, "s", window, 0);
    buf_clear(&w->log);
}

static void resume(struct world *w, bool ages) {
    struct command c = {.kind = COMMAND_SUBSCRIPTION_PAUSE, .project = PROJECT_DEFAULT};
    c.u.pause.name = slice_str("s");
    c.u.pause.ages = ages;
    world_run(w, &c);
}

static void since(struct world *w, enum task_kind kind, uint64_t wall_ms) {
    struct command c = {.kind = COMMAND_TASK_CREATE, .project = PROJECT_DEFAULT};
    c.u.task.kind = kind;
    c.u.task.name = slice_str("s");
    c.u.task.from_time_ms = wall_ms;
    world_run(w, &c);
}

/* ---- a failure whose next attempt would come too late ---- */

static void what_would_be_too_old_by_then_is_given_up_at_once(void **state) {
    (void)state;
    struct world w = {0};
    open_with_age(&w, 8);
    world_publish(&w, "to the ms", "");
    world_publish(&w, "too late", "");
    world_wait(&w, 3 * SECOND);
    world_nack(&w, 1, 1, NACK_FAIL, 7 * SECOND, "was down");
    world_nack(&w, 1, 2, NACK_FAIL, 7 * SECOND + 1, "was down");
    world_show_dead(&w, "s");
    world_show(&w, "s");
    world_wait(&w, 7 * SECOND);
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 to the ms fails 0 deliveries 1\n"
                 "[1000] published 2\n"
                 "[1000] 1 < tag 2 seq 2 too late fails 0 deliveries 1\n"
                 "[4000] 1 lease of tag 1 ends in 1000\n"
                 "[4000] 1 lease of tag 2 ends in 1000\n"
                 "dead seq 2 expired fails 1 deliveries 1 [/was down/]\n"
                 "s: floor 1 next 3 ready 0 leased 0 delayed 1 dead 1 idle backoff\n"
                 "[11000] 1 < tag 3 seq 1 to the ms fails 1 deliveries 2\n");
    world_note(&w, "by the policy's own delay, a lost worker, a lease that runs out");
    world_nack(&w, 1, 3, NACK_FAIL, DELAY_BY_POLICY, "still down");
    world_publish(&w, "lost", "");
    world_wait(&w, 9995);
    world_publish(&w, "young", "");
    world_detach(&w, 1, DETACH_LOST);
    world_show_dead(&w, "s");
    world_expect(&w,
                 "-- by the policy's own delay, a lost worker, a lease that runs out\n"
                 "[11000] published 3\n"
                 "[11000] 1 < tag 4 seq 3 lost fails 0 deliveries 1\n"
                 "[20995] 1 revoked tag 4 expired\n"
                 "[20995] published 4\n"
                 "[20995] 1 < tag 5 seq 4 young fails 0 deliveries 1\n"
                 "dead seq 1 expired fails 2 deliveries 2 [/still down/]\n"
                 "dead seq 2 expired fails 1 deliveries 1 [/was down/]\n"
                 "dead seq 3 expired fails 1 deliveries 1 [/lease expired/]\n");
    world_close(&w);
}

/* Its last attempt may fail by number, too: that comes first. */
static void max_fails_is_the_first_reason(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    p.max_age_ms = 10 * SECOND;
    p.max_fails = 1;
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 8, 0);
    world_publish(&w, "t", "");
    buf_clear(&w.log);
    world_nack(&w, 1, 1, NACK_FAIL, HOUR, "boom");
    world_show_dead(&w, "s");
    world_expect(&w, "dead seq 1 max_fails fails 1 deliveries 1 [/boom/]\n");
    world_close(&w);
}

static void one_that_was_delayed_is_as_old_as_its_time(void **state) {
    (void)state;
    struct world w = {0};
    open_with_age(&w, 8);
    world_publish_due(&w, "due", "", 30 * SECOND);
    world_wait(&w, 30 * SECOND);
    world_nack(&w, 1, 1, NACK_FAIL, 10 * SECOND, "not yet");
    world_wait(&w, 10 * SECOND);
    world_nack(&w, 1, 2, NACK_FAIL, 1, "too late");
    world_show_dead(&w, "s");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[31000] 1 < tag 1 seq 1 due fails 0 deliveries 1\n"
                 "[41000] 1 < tag 2 seq 1 due fails 1 deliveries 2\n"
                 "dead seq 1 expired fails 2 deliveries 2 [/too late/]\n");
    world_close(&w);
}

static void what_was_asked_for_again_is_never_too_late(void **state) {
    (void)state;
    struct world w = {0};
    open_with_age(&w, 8);
    world_publish(&w, "t", "");
    world_nack(&w, 1, 1, NACK_REJECT, 0, "no use");
    world_wait(&w, HOUR);
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 0, "");
    world_task(&w, TASK_REPLAY, "s", 1, 1, 0, "");
    buf_clear(&w.log);
    world_nack(&w, 1, 2, NACK_FAIL, HOUR, "again");
    world_nack(&w, 1, 3, NACK_FAIL, HOUR, "again");
    world_show_dead(&w, "s");
    world_show(&w, "s");
    world_wait(&w, HOUR);
    world_expect(&w,
                 "s: floor 2 next 2 ready 0 leased 0 delayed 2 dead 0 idle backoff\n"
                 "[7201000] 1 < tag 4 seq 1 t fails 1 deliveries 3 redrive\n"
                 "[7201000] 1 < tag 5 seq 1 t fails 1 deliveries 2 replay\n");
    world_close(&w);
}

/* ---- pause and resume ---- */

static void a_resume_makes_what_waited_young_again(void **state) {
    (void)state;
    struct world w = {0};
    open_with_age(&w, 1);
    world_publish(&w, "out", "");
    world_publish(&w, "waits", "");
    world_pause(&w, "s", true);
    world_note(&w, "paused: a failure is not given up, it may be young again");
    world_wait(&w, 3 * SECOND);
    world_nack(&w, 1, 1, NACK_FAIL, HOUR, "boom");
    world_show_dead(&w, "s");
    world_wait(&w, HOUR);
    resume(&w, false);
    world_note(&w, "as old as if it had come now: until then, also over a restart");
    world_wait(&w, 3 * SECOND);
    world_nack(&w, 1, 2, NACK_FAIL, 7 * SECOND, "boom");
    world_restart(&w);
    world_attach(&w, 1, "s", 2, 0);
    world_wait(&w, 7 * SECOND);
    world_nack(&w, 1, 1, NACK_FAIL, 1, "boom");
    world_nack(&w, 1, 2, NACK_FAIL, 1, "boom");
    world_show_dead(&w, "s");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 out fails 0 deliveries 1\n"
                 "[1000] published 2\n"
                 "[1000] done\n"
                 "-- paused: a failure is not given up, it may be young again\n"
                 "[4000] 1 lease of tag 1 ends in 1000\n"
                 "[3604000] done\n"
                 "[3604000] 1 < tag 2 seq 2 waits fails 0 deliveries 1\n"
                 "-- as old as if it had come now: until then, also over a restart\n"
                 "[3607000] 1 lease of tag 2 ends in 1000\n"
                 "[3607000] 1 < tag 3 seq 1 out fails 1 deliveries 2\n"
                 "[3607000] attached 1 backlog 0\n"
                 "[3607000] 1 < tag 1 seq 1 out fails 1 deliveries 2\n"
                 "[3614000] 1 revoked tag 1 expired\n"
                 "[3614000] 1 < tag 2 seq 2 waits fails 1 deliveries 2\n"
                 "dead seq 1 expired fails 2 deliveries 2 [/lease expired/]\n"
                 "dead seq 2 expired fails 2 deliveries 2 [/boom/]\n");
    world_close(&w);
}

static void a_resume_that_ages_counts_the_pause(void **state) {
    (void)state;
    struct world w = {0};
    open_with_age(&w, 8);
    world_pause(&w, "s", true);
    world_publish(&w, "old", "");
    world_wait(&w, 10 * SECOND);
    world_publish(&w, "young", "");
    world_wait(&w, 1);
    resume(&w, true);
    world_show_dead(&w, "s");
    world_expect(&w,
                 "[1000] done\n"
                 "[1000] published 1\n"
                 "[11000] published 2\n"
                 "[11001] done\n"
                 "[11001] 1 < tag 1 seq 2 young fails 0 deliveries 1\n"
                 "dead seq 1 expired fails 0 deliveries 0 [//]\n");
    world_note(&w, "nor does a resume of one that was not paused make anything young");
    resume(&w, false);
    world_wait(&w, 3 * SECOND);
    world_nack(&w, 1, 1, NACK_FAIL, 7 * SECOND, "boom");
    world_show_dead(&w, "s");
    world_expect(&w,
                 "-- nor does a resume of one that was not paused make anything young\n"
                 "[11001] done\n"
                 "[14001] 1 lease of tag 1 ends in 1000\n"
                 "dead seq 1 expired fails 0 deliveries 0 [//]\n"
                 "dead seq 2 expired fails 1 deliveries 1 [/boom/]\n");
    world_close(&w);
}

/* ---- dead letters since a time ---- */

/* Events 1 to 8, an hour apart, dead at once; the journal forgets after `keep`. */
static void open_with_dead(struct world *w, uint64_t keep_ms) {
    struct policy p = world_policy();
    world_open_with(w, &p);
    world_attach(w, 1, "s", 8, 0);
    for (uint64_t tag = 1; tag <= 8; tag++) {
        world_publish(w, "t", "");
        world_nack(w, 1, tag, NACK_REJECT, 0, "no use");
        if (tag < 8) world_wait(w, HOUR);
    }
    world_retain(w, keep_ms, 0, 0);
    world_detach(w, 1, DETACH_RELEASE);
    buf_clear(&w->log);
}

static uint64_t dead_left(struct world *w) {
    struct subscription_info s;
    bool found = engine_subscription_get(w->engine, PROJECT_DEFAULT, slice_str("s"), &s);
    assert_true(found);
    store_end_reads(w->store);
    return s.dead;
}

/* Whether the journal still has the events or not: a dead letter knows when its own came. */
static void a_redrive_since_a_time(void **state) {
    (void)state;
    static const struct {
        uint64_t keep_ms;
        int64_t after_first_ms; /* since */
        uint64_t moved;
    } rows[] = {
        {0, -1, 8},
        {0, 0, 8},
        {0, 1, 7},
        {0, 3 * (int64_t)HOUR, 5},
        {0, 3 * (int64_t)HOUR + 1, 4},
        {0, 7 * (int64_t)HOUR, 1},
        {0, 7 * (int64_t)HOUR + 1, 0},
        {3 * HOUR, -1, 8}, /* the journal has 5 to 8 */
        {3 * HOUR, 0, 8},
        {3 * HOUR, 1, 7},
        {3 * HOUR, 2 * (int64_t)HOUR, 6},
        {3 * HOUR, 3 * (int64_t)HOUR, 5},
        {3 * HOUR, 3 * (int64_t)HOUR + 1, 4},
        {3 * HOUR, 4 * (int64_t)HOUR, 4},
        {3 * HOUR, 5 * (int64_t)HOUR, 3},
        {3 * HOUR, 100 * (int64_t)HOUR, 0},
    };
    for (size_t i = 0; i < 2 * sizeof rows / sizeof rows[0]; i++) {
        struct world w = {0};
        const int64_t after_ms = rows[i / 2].after_first_ms;
        open_with_dead(&w, rows[i / 2].keep_ms);
        uint64_t first_ms = w.time.wall_ms - 7 * HOUR;
        since(&w, i % 2 == 0 ? TASK_REDRIVE : TASK_PURGE, first_ms + (uint64_t)after_ms);
        if (8 - dead_left(&w) != rows[i / 2].moved) {
            fail_msg("row %zu, task %zu: %llu are left", i / 2, i % 2,
                     (unsigned long long)dead_left(&w));
        }
        world_close(&w);
    }
}

/* What it was asked for stays, also over a restart between two slices. */
static void a_redrive_since_a_time_over_a_restart(void **state) {
    (void)state;
    struct world w = {0};
    open_with_dead(&w, 3 * HOUR);
    struct command c = {.kind = COMMAND_TASK_CREATE, .project = PROJECT_DEFAULT};
    c.u.task.kind = TASK_REDRIVE;
    c.u.task.name = slice_str("s");
    c.u.task.from_time_ms = w.time.wall_ms - 5 * HOUR;
    c.u.task.rate_per_s = 1;
    world_run(&w, &c);
    world_show_task(&w, 2);
    world_crash(&w);
    for (int i = 0; i < 10; i++) world_wait(&w, SECOND);
    world_show_task(&w, 2);
    world_show_dead(&w, "s");
    world_expect(&w,
                 "[25201000] done created\n"
                 "redrive 2: running 3-8 next 3 matched 1 acked 0 expired 0\n"
                 "redrive 2: finished 3-8 next 9 matched 6 acked 0 expired 0\n"
                 "dead seq 1 rejected fails 0 deliveries 1 [/no use/]\n"
                 "dead seq 2 rejected fails 0 deliveries 1 [/no use/]\n");
    world_close(&w);
}

static void dead_letters_until_a_time_are_refused(void **state) {
    (void)state;
    struct world w = {0};
    open_with_dead(&w, 0);
    struct command c = {.kind = COMMAND_TASK_CREATE, .project = PROJECT_DEFAULT};
    c.u.task.name = slice_str("s");
    c.u.task.to_time_ms = w.time.wall_ms;
    c.u.task.kind = TASK_REDRIVE;
    world_run(&w, &c);
    c.u.task.kind = TASK_PURGE;
    world_run(&w, &c);
    assert_int_equal(dead_left(&w), 8);
    world_expect(&w,
                 "[25201000] error invalid_request: dead letters go from a time on, not until "
                 "one: give the last seq, or a filter\n"
                 "[25201000] error invalid_request: dead letters go from a time on, not until "
                 "one: give the last seq, or a filter\n");
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_would_be_too_old_by_then_is_given_up_at_once),
        cmocka_unit_test(max_fails_is_the_first_reason),
        cmocka_unit_test(one_that_was_delayed_is_as_old_as_its_time),
        cmocka_unit_test(what_was_asked_for_again_is_never_too_late),
        cmocka_unit_test(a_resume_makes_what_waited_young_again),
        cmocka_unit_test(a_resume_that_ages_counts_the_pause),
        cmocka_unit_test(a_redrive_since_a_time),
        cmocka_unit_test(a_redrive_since_a_time_over_a_restart),
        cmocka_unit_test(dead_letters_until_a_time_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
