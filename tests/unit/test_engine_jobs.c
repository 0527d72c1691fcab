/* Registered jobs in the engine: what their events take, what is shown and when, job.overdue,
 * looking back, limits and restarts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/engine_world.h"

#define SECOND 1000
#define HOUR   (3600 * SECOND)
#define DAY    (24ULL * HOUR)
#define URI    "https://example.com/done"

static void open_jobs(struct world *w) {
    w->options.jobs_room = 7;
    world_open(w);
}

static struct job_info job_get(struct world *w, const char *id) {
    struct job_info j;
    assert_true(engine_job_get(w->engine, PROJECT_DEFAULT, slice_str(id), &j));
    return j;
}

static struct event event_get(struct world *w, uint64_t seq) {
    struct event event;
    assert_true(engine_event_get(w->engine, PROJECT_DEFAULT, seq, &event));
    return event;
}

static bool overdue_holds(const struct event *event, const char *id) {
    char body[200];
    snprintf(body, sizeof body,
             "{\"id\":\"%s\",\"ttl_ms\":60000,\"registered_at\":\"2027-01-15T08:00:00.000Z\"}", id);
    return slice_eq_str(event->type, "job.overdue") && slice_eq_str(event->subject, id) &&
           slice_eq_str(event->content_type, "application/json") && slice_eq_str(event->body, body);
}

static void states_of_types(void **state) {
    static const struct {
        const char *type;
        enum job_state state;
    } rows[] = {
        {"batch.succeeded", JOB_SUCCEEDED},
        {"interaction.completed", JOB_SUCCEEDED},
        {"video.generated", JOB_SUCCEEDED},
        {"batch.failed", JOB_FAILED},
        {"batch.cancelled", JOB_CANCELLED},
        {"batch.expired", JOB_EXPIRED},
        {"interaction.requires_action", JOB_REQUIRES_ACTION},
        {"failed", JOB_FAILED},
        {"a.b.c.failed", JOB_FAILED},
        {"failed.", JOB_PENDING},
        {"batch.failed.again", JOB_PENDING},
        {"batch.unfailed", JOB_PENDING},
        {"batch.started", JOB_PENDING},
        {"job.overdue", JOB_PENDING},
        {"", JOB_PENDING},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(job_state_of_type(slice_str(rows[i].type)), rows[i].state);
    }
    assert_string_equal(job_state_name(JOB_PENDING), "pending");
    assert_string_equal(job_state_name(JOB_REQUIRES_ACTION), "requires_action");
    assert_string_equal(job_state_name(JOB_SUCCEEDED), "succeeded");
    assert_string_equal(job_state_name(JOB_FAILED), "failed");
    assert_string_equal(job_state_name(JOB_CANCELLED), "cancelled");
    assert_string_equal(job_state_name(JOB_EXPIRED), "expired");
    assert_false(job_state_is_final(JOB_REQUIRES_ACTION) || job_state_is_final(JOB_PENDING));
    assert_true(job_state_is_final(JOB_SUCCEEDED) && job_state_is_final(JOB_EXPIRED));
}

static void the_life_of_a_job(void **state) {
    (void)state;
    struct world w = {0};
    open_jobs(&w);
    world_job_put(&w, "batches/1", URI, "{\"a\":1}", HOUR);
    world_show_job(&w, "batches/1");
    world_job_event(&w, "batch.started", "batches/1");
    world_show_job(&w, "batches/1");
    world_job_event(&w, "batch.requires_action", "batches/1");
    world_show_job(&w, "batches/1");
    world_job_event(&w, "batch.started", "batches/2"); /* not this one's */
    world_job_event(&w, "batch.failed", "batches/1");
    world_show_job(&w, "batches/1");
    world_job_event(&w, "batch.succeeded", "batches/1"); /* too late */
    world_job_event(&w, "batch.requires_action", "batches/1");
    world_show_job(&w, "batches/1");
    world_show_job(&w, "batches/2");
    world_expect(&w,
                 "[1000] done created\n"
                 "batches/1: pending due 3600000 events 0\n"
                 "[1000] job batches/1 seq 1\n"
                 "[1000] published 1\n"
                 "batches/1: pending due 3600000 events 1 [1]\n"
                 "[1000] job batches/1 seq 2\n"
                 "[1000] published 2\n"
                 "batches/1: requires_action due 3600000 events 2 [1 2]\n"
                 "[1000] published 3\n"
                 "[1000] job batches/1 seq 4\n"
                 "[1000] published 4\n"
                 "batches/1: failed due 3600000 events 3 [1 2 4]\n"
                 "[1000] job batches/1 seq 5\n"
                 "[1000] published 5\n"
                 "[1000] job batches/1 seq 6\n"
                 "[1000] published 6\n"
                 "batches/1: failed due 3600000 events 5 [1 2 4 5 6]\n"
                 "batches/2: not there\n");
    struct job_info j = job_get(&w, "batches/1");
    assert_true(slice_eq_str(j.endpoints, URI) && slice_eq_str(j.metadata, "{\"a\":1}"));
    assert_true(j.created_at_ms == w.time.wall_ms && j.updated_at_ms == w.time.wall_ms);
    static const uint8_t states[] = {JOB_PENDING, JOB_REQUIRES_ACTION, JOB_FAILED, JOB_SUCCEEDED,
                                     JOB_REQUIRES_ACTION};
    assert_memory_equal(j.states, states, sizeof states);
    assert_int_equal(world_jobs(&w), 1);
    world_wait(&w, HOUR); /* it has ended: nothing is overdue */
    world_expect(&w, "");
    world_close(&w);
}

static void events_take_what_they_do_not_bring(void **state) {
    (void)state;
    struct world w = {0};
    open_jobs(&w);
    world_job_put(&w, "j", URI "\nhttp://b/", "{\"a\":1}", HOUR);
    world_job_put(&w, "bare", "", "", HOUR);
    world_job_event(&w, "x", "j");
    struct event own = {.type = slice_str("x"),
                        .subject = slice_str("j"),
                        .source = slice_str("gemini"),
                        .endpoints = slice_str("http://own/"),
                        .metadata = slice_str("{}")};
    world_event(&w, &own);
    world_job_event(&w, "x", "bare");
    world_job_event(&w, "x", "other");
    world_job_event(&w, "x", "");
    struct event got = event_get(&w, 1);
    assert_true(slice_eq_str(got.endpoints, URI "\nhttp://b/"));
    assert_true(slice_eq_str(got.metadata, "{\"a\":1}"));
    got = event_get(&w, 2);
    assert_true(slice_eq_str(got.endpoints, "http://own/") && slice_eq_str(got.metadata, "{}"));
    for (uint64_t seq = 3; seq <= 5; seq++) {
        got = event_get(&w, seq);
        assert_true(got.endpoints.len == 0 && got.metadata.len == 0);
    }
    world_note(&w, "another config counts from now on, and the journal keeps what it had");
    world_job_put(&w, "j", "http://new/", "", HOUR);
    world_job_event(&w, "x", "j");
    got = event_get(&w, 6);
    assert_true(slice_eq_str(got.endpoints, "http://new/") && got.metadata.len == 0);
    world_restart(&w);
    got = event_get(&w, 1);
    assert_true(slice_eq_str(got.endpoints, URI "\nhttp://b/"));
    world_job_event(&w, "x", "j");
    got = event_get(&w, 7);
    assert_true(slice_eq_str(got.endpoints, "http://new/"));
    world_close(&w);
}

/* What a filter sees is what the event took. */
static void subscriptions_see_what_was_taken(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = policy_default();
    p.filter = slice_str("{\"user_metadata\":{\"team\":\"a\"}}");
    open_jobs(&w);
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 10, 0);
    world_job_put(&w, "j", "", "{\"team\":\"a\"}", HOUR);
    buf_clear(&w.log);
    world_job_event(&w, "x", "j");
    world_expect(&w,
                 "[1000] job j seq 1\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 x fails 0 deliveries 1\n");
    world_close(&w);
}

static void a_duplicate_notes_nothing(void **state) {
    (void)state;
    struct world w = {0};
    open_jobs(&w);
    world_job_put(&w, "j", "", "", HOUR);
    struct event event = {
        .type = slice_str("x"), .subject = slice_str("j"), .id = slice_str("msg_1")};
    world_event(&w, &event);
    world_event(&w, &event);
    world_show_job(&w, "j");
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] job j seq 1\n"
                 "[1000] published 1\n"
                 "[1000] published 1 duplicate\n"
                 "j: pending due 3600000 events 1 [1]\n");
    world_close(&w);
}

static void overdue_once(void **state) {
    (void)state;
    struct world w = {0};
    open_jobs(&w);
    world_job_put(&w, "j", URI, "{\"a\":1}", 60 * SECOND);
    world_wait(&w, 59999);
    world_expect(&w, "[1000] done created\n");
    assert_int_equal(engine_next_deadline(w.engine, w.time), w.time.now_ms + 1);
    world_wait(&w, 1);
    world_show_job(&w, "j");
    struct event got = event_get(&w, 1);
    assert_true(overdue_holds(&got, "j"));
    assert_true(slice_eq_str(got.endpoints, URI) && slice_eq_str(got.metadata, "{\"a\":1}"));
    assert_int_equal(got.time_ms, w.time.wall_ms);
    world_wait(&w, DAY);
    world_restart(&w);
    world_wait(&w, DAY);
    world_expect(&w,
                 "[61000] job j seq 1\n"
                 "j: pending overdue due 0 events 1 [1]\n");
    world_note(&w, "the final event comes after all");
    world_job_event(&w, "x.succeeded", "j");
    world_show_job(&w, "j");
    world_note(&w, "another one gets more time");
    world_job_put(&w, "k", "", "", SECOND);
    world_wait(&w, SECOND);
    world_job_put(&w, "k", "", "", SECOND);
    world_show_job(&w, "k");
    world_wait(&w, SECOND);
    world_wait(&w, SECOND);
    world_show_job(&w, "k");
    world_expect(&w,
                 "-- the final event comes after all\n"
                 "[172861000] job j seq 2\n"
                 "[172861000] published 2\n"
                 "j: succeeded overdue due -172800000 events 2 [1 2]\n"
                 "-- another one gets more time\n"
                 "[172861000] done created\n"
                 "[172862000] job k seq 3\n"
                 "[172862000] done\n"
                 "k: pending due 1000 events 1 [3]\n"
                 "[172863000] job k seq 4\n"
                 "k: pending overdue due -1000 events 2 [3 4]\n");
    world_close(&w);
}

/* The wall clock counts: it was set, or the machine slept. */
static void overdue_goes_by_the_wall_clock(void **state) {
    (void)state;
    struct world w = {0};
    open_jobs(&w);
    world_job_put(&w, "j", "", "", HOUR);
    w.time.wall_ms -= DAY;
    world_wait(&w, HOUR);
    world_expect(&w, "[1000] done created\n");
    w.time.wall_ms += DAY;
    world_turn(&w);
    world_expect(&w, "[3601000] job j seq 1\n");
    world_job_put(&w, "down", "", "", HOUR);
    w.time.wall_ms += DAY; /* while the broker was down */
    world_restart(&w);
    world_turn(&w);
    world_expect(&w,
                 "[3601000] done created\n"
                 "[3601000] job down seq 2\n");
    world_close(&w);
}

static void a_crash_before_it_is_durable(void **state) {
    (void)state;
    struct world w = {0};
    open_jobs(&w);
    world_job_put(&w, "j", "", "", HOUR);
    memory_store_set_manual(w.store, true);
    world_job_put(&w, "k", "", "", HOUR);
    world_job_event(&w, "x.failed", "j");
    world_show_job(&w, "j"); /* neither is shown before */
    world_show_job(&w, "k");
    world_wait(&w, HOUR);
    world_show_job(&w, "j");
    world_crash(&w);
    memory_store_set_manual(w.store, false);
    world_show_job(&w, "j");
    world_show_job(&w, "k");
    world_turn(&w); /* now it is overdue: its event is gone */
    world_show_job(&w, "j");
    world_expect(&w,
                 "[1000] done created\n"
                 "j: pending due 3600000 events 0\n"
                 "k: not there\n"
                 "j: pending due 0 events 0\n"
                 "j: pending due 0 events 0\n"
                 "k: not there\n"
                 "[3601000] job j seq 1\n"
                 "j: pending overdue due 0 events 1 [1]\n");
    world_close(&w);
}

static void overdue_is_shown_when_it_is_durable(void **state) {
    (void)state;
    struct world w = {0};
    open_jobs(&w);
    world_job_put(&w, "j", "", "", HOUR);
    memory_store_set_manual(w.store, true);
    world_wait(&w, HOUR);
    world_show_job(&w, "j");
    memory_store_set_manual(w.store, false);
    world_show_job(&w, "j");
    world_expect(&w,
                 "[1000] done created\n"
                 "j: pending due 0 events 0\n"
                 "[3601000] job j seq 1\n"
                 "j: pending overdue due 0 events 1 [1]\n");
    world_close(&w);
}

static void overdue_waits_for_room(void **state) {
    (void)state;
    struct world w = {0};
    open_jobs(&w);
    world_job_put(&w, "j", "", "", SECOND);
    engine_set_room(w.engine, false);
    world_job_put(&w, "k", "", "", SECOND);
    world_wait(&w, SECOND);
    assert_int_equal(engine_next_deadline(w.engine, w.time), w.time.now_ms + 10 * SECOND);
    engine_set_room(w.engine, true);
    world_wait(&w, 9999);
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] error no_room: the store is nearly full: nothing was taken, try again "
                 "later\n");
    world_wait(&w, 1);
    world_expect(&w, "[12000] job j seq 1\n");
    world_close(&w);
}

static void overdue_waits_for_a_blocked_journal(void **state) {
    (void)state;
    struct world w = {0};
    open_jobs(&w);
    world_create(&w, "s", NULL, NULL, START_NEW);
    world_job_put(&w, "j", "", "", 60 * SECOND);
    world_publish(&w, "x", "");
    world_publish(&w, "x", "");
    world_retain(&w, 0, 1, 0);
    world_wait(&w, SECOND);
    world_show_journal(&w);
    world_wait(&w, 59 * SECOND);
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] done created\n"
                 "[1000] published 1\n"
                 "[1000] published 2\n"
                 "journal: 1 to 2 trimmed 0 blocked by s\n");
    world_retain(&w, 0, 0, 0);
    world_wait(&w, 10 * SECOND);
    world_expect(&w, "[71000] job j seq 3\n");
    world_close(&w);
}

static void a_put_looks_back(void **state) {
    (void)state;
    struct world w = {0};
    open_jobs(&w);
    world_job_event(&w, "x.started", "j");
    world_job_event(&w, "x.failed", "k");
    world_job_event(&w, "x.succeeded", "j");
    world_job_put(&w, "j", "", "", HOUR);
    world_show_job(&w, "j");
    world_job_put(&w, "j", "", "", HOUR); /* once */
    world_show_job(&w, "j");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] published 2\n"
                 "[1000] published 3\n"
                 "[1000] done created\n"
                 "j: succeeded due 3600000 events 2 [1 3]\n"
                 "[1000] done\n"
                 "j: succeeded due 3600000 events 2 [1 3]\n");
    world_note(&w, "also after a restart, and in the same turn");
    world_restart(&w);
    world_job_put(&w, "k", "", "", HOUR);
    world_show_job(&w, "k");
    struct event event = {.type = slice_str("x.cancelled"), .subject = slice_str("l")};
    struct command publish = {.kind = COMMAND_PUBLISH, .project = PROJECT_DEFAULT},
                   put = {.kind = COMMAND_JOB_PUT, .project = PROJECT_DEFAULT};
    publish.u.publish.events = &event;
    publish.u.publish.count = 1;
    put.u.job.id = slice_str("l");
    put.u.job.ttl_ms = HOUR;
    world_step(&w, &publish);
    world_run(&w, &put);
    world_show_job(&w, "l");
    world_expect(&w,
                 "-- also after a restart, and in the same turn\n"
                 "[1000] done created\n"
                 "k: failed due 3600000 events 1 [2]\n"
                 "[1000] published 4\n"
                 "[1000] done created\n"
                 "l: cancelled due 3600000 events 1 [4]\n");
    world_close(&w);
}

static void put_quietly(struct world *w, const char *id) {
    w->quiet = true;
    world_job_put(w, id, "", "", HOUR);
    w->quiet = false;
}

static void publish_fillers(struct world *w, int count) {
    w->quiet = true;
    for (; count > 0; count -= 1000) world_publish_many(w, "filler", count < 1000 ? count : 1000);
    w->quiet = false;
}

static void it_looks_back_only_so_far(void **state) {
    (void)state;
    struct world w = {0};
    open_jobs(&w);
    world_job_event(&w, "x.failed", "j");
    publish_fillers(&w, LIMIT_JOB_LOOK_BACK - 1);
    put_quietly(&w, "j");
    world_job_event(&w, "x.failed", "k");
    publish_fillers(&w, LIMIT_JOB_LOOK_BACK); /* their slot is taken by one without a subject */
    put_quietly(&w, "k");
    buf_clear(&w.log);
    world_show_job(&w, "j");
    world_show_job(&w, "k");
    world_expect(&w,
                 "j: failed due 3600000 events 1 [1]\n"
                 "k: pending due 3600000 events 0\n");
    /* A restart reads the last 4096. */
    world_job_event(&w, "x.failed", "l");
    world_job_event(&w, "x.failed", "m");
    publish_fillers(&w, 4095);
    world_restart(&w);
    put_quietly(&w, "l");
    put_quietly(&w, "m");
    buf_clear(&w.log);
    world_show_job(&w, "l");
    world_show_job(&w, "m");
    world_expect(&w,
                 "l: pending due 3600000 events 0\n"
                 "m: failed due 3600000 events 1 [131075]\n");
    /* What retention has taken is not found. */
    world_job_event(&w, "x.failed", "n");
    publish_fillers(&w, 1);
    world_retain(&w, 0, 1, 0);
    world_wait(&w, 2 * SECOND);
    put_quietly(&w, "n");
    buf_clear(&w.log);
    world_show_job(&w, "n");
    world_expect(&w, "n: pending due 3600000 events 0\n");
    world_close(&w);
}

/* A row each, written again only when something changed. */
static void rows_follow(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    open_jobs(&w);
    world_job_put(&w, "a", URI, "{}", HOUR);
    world_job_put(&w, "b", "", "", HOUR);
    world_job_event(&w, "x.failed", "b");
    world_crash(&w); /* nothing was flushed */
    assert_int_equal(world_jobs(&w), 2);
    struct job_info j = job_get(&w, "a");
    assert_true(slice_eq_str(j.endpoints, URI) && slice_eq_str(j.metadata, "{}"));
    assert_true(j.state == JOB_PENDING && j.due_at_ms == w.time.wall_ms + HOUR);
    j = job_get(&w, "b");
    assert_true(j.state == JOB_FAILED && j.events_total == 1 && j.seqs_count == 1);
    world_job_put(&w, "c", "", "", HOUR); /* gets a row of its own */
    world_crash(&w);
    assert_int_equal(world_jobs(&w), 3);
    assert_null(engine_end_turn(w.engine, w.time));
    world_close(&w);
}

static void nobody_wants_the_effects(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    world_job_put(&w, "j", "", "", HOUR);
    world_job_event(&w, "x", "j");
    world_show_job(&w, "j");
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] published 1\n"
                 "j: pending due 3600000 events 1 [1]\n");
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states_of_types),
        cmocka_unit_test(the_life_of_a_job),
        cmocka_unit_test(events_take_what_they_do_not_bring),
        cmocka_unit_test(subscriptions_see_what_was_taken),
        cmocka_unit_test(a_duplicate_notes_nothing),
        cmocka_unit_test(overdue_once),
        cmocka_unit_test(overdue_goes_by_the_wall_clock),
        cmocka_unit_test(a_crash_before_it_is_durable),
        cmocka_unit_test(overdue_is_shown_when_it_is_durable),
        cmocka_unit_test(overdue_waits_for_room),
        cmocka_unit_test(overdue_waits_for_a_blocked_journal),
        cmocka_unit_test(a_put_looks_back),
        cmocka_unit_test(it_looks_back_only_so_far),
        cmocka_unit_test(rows_follow),
        cmocka_unit_test(nobody_wants_the_effects),
    };
    return cmocka_run_group_tests_name("engine jobs", tests, NULL, NULL);
}
