/* Waiting for the events of jobs: on an engine with a virtual clock, whose EFFECT_JOB goes to the
 * room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "broker/jobs/jobs.h"
#include "tests/unit/engine_world.h"

#define SECOND 1000
#define HOUR   (3600 * SECOND)

struct hall {
    struct world w;
    struct jobs *jobs;
    uint64_t answers;
    /* What whoever is answered does then. */
    uint64_t cancels; /* this wait; 0: none */
    bool asks_again;
    uint64_t asked_again;
};

static void on_effect(void *ctx, const struct effect *e) {
    struct hall *h = ctx;
    if (e->kind == EFFECT_JOB) jobs_on_effect(h->jobs, e);
}

static void hall_open(struct hall *h) {
    h->w.options.jobs_room = 3;
    h->w.on_effect = on_effect;
    h->w.on_effect_ctx = h;
    world_open(&h->w);
    h->jobs = jobs_open(h->w.engine);
    h->w.quiet = true;
}

static void hall_close(struct hall *h) {
    jobs_close(&h->jobs);
    assert_null(h->jobs);
    jobs_close(&h->jobs);
    world_close(&h->w);
}

static uint64_t ask(struct hall *h, const char *job, const char *type, uint64_t after_seq,
                    uint64_t wait_ms);

static void on_answer(void *ctx, uint64_t wait, enum job_answer answer, uint64_t seq) {
    static const char *const names[] = {"event", "nothing", "unknown", "refused"};
    struct hall *h = ctx;
    h->answers++;
    buf_printf(&h->w.log, "wait %llu: %s %llu\n", (unsigned long long)wait, names[answer],
               (unsigned long long)seq);
    if (h->cancels != 0) jobs_cancel(h->jobs, h->cancels);
    if (h->asks_again) {
        h->asks_again = false;
        h->asked_again = ask(h, "j", NULL, 0, 0);
    }
}

/* type NULL: none. Writes what was answered at once. */
static uint64_t ask(struct hall *h, const char *job, const char *type, uint64_t after_seq,
                    uint64_t wait_ms) {
    static const char *const names[] = {"event", "nothing", "unknown", "refused"};
    struct slice types[2] = {slice_str("no.such"), slice_str(type == NULL ? "" : type)};
    struct job_question q = {.project = PROJECT_DEFAULT,
                             .id = slice_str(job),
                             .types = types,
                             .types_count = type == NULL ? 0 : 2,
                             .after_seq = after_seq,
                             .until_ms = h->w.time.now_ms + wait_ms,
                             .fn = on_answer,
                             .ctx = h};
    enum job_answer answer = JOB_REFUSED;
    uint64_t seq = 77, wait = jobs_wait(h->jobs, &q, &answer, &seq);
    store_end_reads(h->w.store);
    if (wait == 0) {
        buf_printf(&h->w.log, "at once: %s %llu\n", names[answer], (unsigned long long)seq);
    }
    return wait;
}

static void wait_ms(struct hall *h, uint64_t ms) {
    world_wait(&h->w, ms);
    jobs_on_turn(h->jobs, h->w.time.now_ms);
}

static void what_is_there_is_answered_at_once(void **state) {
    (void)state;
    struct hall h = {0};
    hall_open(&h);
    assert_int_equal(ask(&h, "j", NULL, 0, HOUR), 0);
    world_job_put(&h.w, "j", "", "", HOUR);
    world_job_event(&h.w, "x.started", "j");
    world_job_event(&h.w, "x.requires_action", "j");
    world_job_event(&h.w, "y.done", "j");
    world_job_event(&h.w, "x.succeeded", "j");
    world_job_event(&h.w, "x.failed", "j");
    ask(&h, "j", NULL, 0, HOUR);
    ask(&h, "j", NULL, 2, HOUR);
    ask(&h, "j", NULL, 4, HOUR);
    ask(&h, "j", "x.*", 0, HOUR);
    ask(&h, "j", "y.*", 0, HOUR);
    ask(&h, "j", "*", 4, HOUR);
    assert_int_equal(jobs_waiting(h.jobs), 0);
    world_expect(&h.w,
                 "at once: unknown 0\n"
                 "at once: event 2\n"
                 "at once: event 4\n"
                 "at once: event 5\n"
                 "at once: event 1\n"
                 "at once: event 3\n"
                 "at once: event 5\n");
    ask(&h, "j", "z.*", 0, HOUR);
    ask(&h, "j", NULL, 5, HOUR);
    assert_int_equal(jobs_waiting(h.jobs), 2);
    world_expect(&h.w, "");
    hall_close(&h); /* with waits that are held */
}

static void the_first_event_answers_once(void **state) {
    (void)state;
    struct hall h = {0};
    hall_open(&h);
    world_job_put(&h.w, "j", "", "", HOUR);
    world_job_put(&h.w, "k", "", "", HOUR);
    assert_int_equal(ask(&h, "j", NULL, 0, HOUR), 1);
    assert_int_equal(ask(&h, "j", "*.started", 0, HOUR), 2);
    assert_int_equal(ask(&h, "j", NULL, 2, HOUR), 3); /* above it */
    assert_int_equal(ask(&h, "k", NULL, 0, HOUR), 4);
    world_job_event(&h.w, "x.started", "j");
    world_expect(&h.w, "wait 2: event 1\n");
    world_job_event(&h.w, "x.requires_action", "j");
    world_expect(&h.w, "wait 1: event 2\n");
    world_job_event(&h.w, "x.failed", "j");
    world_job_event(&h.w, "x.failed", "j");
    world_expect(&h.w, "wait 3: event 3\n");
    assert_int_equal(jobs_waiting(h.jobs), 1);
    jobs_cancel(h.jobs, 1);
    jobs_cancel(h.jobs, 99);
    jobs_cancel(h.jobs, 4);
    jobs_cancel(h.jobs, 4);
    world_job_event(&h.w, "x.failed", "k");
    assert_int_equal(jobs_waiting(h.jobs), 0);
    assert_int_equal(jobs_on_turn(h.jobs, h.w.time.now_ms + 2 * HOUR), UINT64_MAX);
    world_expect(&h.w, "");
    hall_close(&h);
}

/* An event counts when it is durable, not before. */
static void only_what_is_durable(void **state) {
    (void)state;
    struct hall h = {0};
    hall_open(&h);
    world_job_put(&h.w, "j", "", "", HOUR);
    memory_store_set_manual(h.w.store, true);
    world_job_event(&h.w, "x.failed", "j");
    assert_int_equal(ask(&h, "j", NULL, 0, HOUR), 1);
    world_job_put(&h.w, "k", "", "", HOUR);
    assert_int_equal(ask(&h, "k", NULL, 0, HOUR), 0);
    world_expect(&h.w, "at once: unknown 0\n");
    memory_store_sync(h.w.store, SIZE_MAX);
    world_expect(&h.w, "wait 1: event 1\n");
    hall_close(&h);
}

static void time_is_over(void **state) {
    (void)state;
    struct hall h = {0};
    hall_open(&h);
    world_job_put(&h.w, "j", "", "", HOUR);
    ask(&h, "j", NULL, 0, 2 * SECOND);
    ask(&h, "j", NULL, 0, SECOND);
    ask(&h, "j", NULL, 0, 0);
    world_expect(&h.w, ""); /* never from inside */
    assert_int_equal(jobs_on_turn(h.jobs, 1000), 1000 + SECOND);
    world_expect(&h.w, "wait 3: nothing 0\n");
    wait_ms(&h, 999);
    world_expect(&h.w, "");
    wait_ms(&h, 1);
    world_expect(&h.w, "wait 2: nothing 0\n");
    world_job_event(&h.w, "x.failed", "j");
    wait_ms(&h, HOUR);
    world_expect(&h.w, "wait 1: event 1\n");
    hall_close(&h);
}

static void who_is_answered_may_ask_and_cancel(void **state) {
    (void)state;
    struct hall h = {0};
    hall_open(&h);
    world_job_put(&h.w, "j", "", "", HOUR);
    for (int i = 0; i < 4; i++) ask(&h, "j", "*", 0, HOUR);
    h.cancels = 3;
    world_job_event(&h.w, "x", "j");
    world_expect(&h.w, "wait 1: event 1\nwait 2: event 1\nwait 4: event 1\n");
    for (int i = 0; i < 3; i++) ask(&h, "j", NULL, 0, SECOND);
    h.cancels = 6;
    h.asks_again = true; /* with a time that is over: it has its turn, but not this one */
    wait_ms(&h, SECOND);
    assert_int_equal(h.asked_again, 8);
    world_expect(&h.w, "wait 5: nothing 0\nwait 7: nothing 0\n");
    wait_ms(&h, 0);
    world_expect(&h.w, "wait 8: nothing 0\n");
    assert_int_equal(jobs_waiting(h.jobs), 0);
    hall_close(&h);
}

static void draining(void **state) {
    (void)state;
    struct hall h = {0};
    hall_open(&h);
    world_job_put(&h.w, "j", "", "", HOUR);
    ask(&h, "j", NULL, 0, 2 * SECOND);
    ask(&h, "j", NULL, 0, SECOND);
    h.asks_again = true;
    jobs_drain(h.jobs);
    world_job_event(&h.w, "x.failed", "j");
    ask(&h, "j", NULL, 0, HOUR);
    ask(&h, "j", NULL, 1, HOUR);
    assert_int_equal(jobs_waiting(h.jobs), 0);
    world_expect(&h.w,
                 "wait 2: nothing 0\n"
                 "at once: nothing 0\n"
                 "wait 1: nothing 0\n"
                 "at once: event 1\n"
                 "at once: nothing 0\n");
    hall_close(&h);
}

/* A final event makes its job final for as long as the job is known. */
static void an_event_that_retention_took(void **state) {
    (void)state;
    struct hall h = {0};
    hall_open(&h);
    world_job_put(&h.w, "j", "", "", HOUR);
    world_job_event(&h.w, "x.failed", "j");
    world_job_event(&h.w, "other", "k");
    world_retain(&h.w, 0, 1, 0);
    world_wait(&h.w, 2 * SECOND);
    struct event event;
    assert_false(engine_event_get(h.w.engine, PROJECT_DEFAULT, 1, &event));
    ask(&h, "j", NULL, 0, HOUR);
    assert_int_equal(ask(&h, "j", "*", 0, HOUR), 1); /* its type is not known any more */
    world_expect(&h.w, "at once: event 1\n");
    hall_close(&h);
}

static void as_many_as_there_may_be(void **state) {
    (void)state;
    struct hall h = {0};
    hall_open(&h);
    for (int i = 0; i < 100; i++) {
        char id[32];
        snprintf(id, sizeof id, "job%d", i);
        world_job_put(&h.w, id, "", "", HOUR);
    }
    for (uint64_t i = 0; i < LIMIT_JOB_WAITS; i++) {
        char id[32];
        snprintf(id, sizeof id, "job%d", (int)(i % 100));
        assert_int_equal(ask(&h, id, "batch.*", 0, HOUR + i), i + 1);
    }
    world_expect(&h.w, "");
    ask(&h, "job1", NULL, 0, HOUR);
    world_expect(&h.w, "at once: refused 0\n");
    world_job_event(&h.w, "batch.failed", "job7");
    assert_int_equal(h.answers, LIMIT_JOB_WAITS / 100);
    assert_int_equal(jobs_waiting(h.jobs), LIMIT_JOB_WAITS / 100 * 99);
    wait_ms(&h, 2 * HOUR);
    assert_int_equal(h.answers, LIMIT_JOB_WAITS);
    hall_close(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_there_is_answered_at_once),
        cmocka_unit_test(the_first_event_answers_once),
        cmocka_unit_test(only_what_is_durable),
        cmocka_unit_test(time_is_over),
        cmocka_unit_test(who_is_answered_may_ask_and_cancel),
        cmocka_unit_test(draining),
        cmocka_unit_test(an_event_that_retention_took),
        cmocka_unit_test(as_many_as_there_may_be),
    };
    return cmocka_run_group_tests_name("jobs", tests, NULL, NULL);
}
