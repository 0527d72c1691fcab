/* An operator's tasks as transcripts on virtual time: replay, count (a dry run), redrive, purge. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/engine_world.h"

#define ONLY_B "{\"types\":[\"b\"]}"

static struct policy quick(void) {
    struct policy p = policy_default();
    p.lease_ms = 4000;
    p.backoff_min_ms = p.backoff_max_ms = 8;
    return p;
}

/* A subscription at the end of a journal of a, b, a, b, ... */
static void open_with_events(struct world *w, int count) {
    struct policy p = quick();
    world_open(w);
    for (int i = 0; i < count; i++) world_publish(w, i % 2 == 0 ? "a" : "b", "");
    world_create(w, "s", NULL, &p, START_NEW);
    buf_clear(&w->log);
}

/* A subscription whose events 1 to count (a, b, a, ...) are all dead letters with a fail each. */
static void open_with_dead(struct world *w, int count) {
    struct policy p = quick();
    world_open(w);
    world_create(w, "s", NULL, &p, START_NEW);
    world_attach(w, 1, "s", 1000, 0);
    w->quiet = true;
    for (int i = 0; i < count; i++) world_publish(w, i % 2 == 0 ? "a" : "b", "");
    for (int i = 1; i <= count; i++) {
        world_nack(w, 1, (uint64_t)i, NACK_FAIL, 0, "boom");
        world_nack(w, 1, (uint64_t)(count + i), NACK_REJECT, 0, "no use");
    }
    w->quiet = false;
    world_detach(w, 1, DETACH_RELEASE);
    buf_clear(&w->log);
}

static uint64_t dead_count(struct world *w) {
    struct subscription_info s;
    assert_true(engine_subscription_get(w->engine, PROJECT_DEFAULT, slice_str("s"), &s));
    store_end_reads(w->store);
    return s.dead;
}

static bool count_one(void *ctx, const struct dead_letter *d) {
    (void)d;
    ++*(uint64_t *)ctx;
    return true;
}

/* The count is that of the rows there are. */
static void check_dead_count(struct world *w) {
    uint64_t rows = 0;
    assert_true(
        engine_dead_scan(w->engine, PROJECT_DEFAULT, slice_str("s"), 0, 0, count_one, &rows));
    store_end_reads(w->store);
    assert_int_equal(rows, dead_count(w));
}

/* ---- replay and count ---- */

static void a_replay_feeds_what_its_filter_wants(void **state) {
    (void)state;
    struct world w = {0};
    open_with_events(&w, 6);
    world_attach(&w, 1, "s", 10, 0);
    world_task(&w, TASK_COUNT, "s", 2, 5, 0, ONLY_B);
    world_task(&w, TASK_REPLAY, "s", 2, 5, 0, ONLY_B);
    world_show_task(&w, 2);
    world_show_task(&w, 3); /* fed, but not settled: it runs */
    world_settle(&w, COMMAND_ACK, 1, 1, 2, true);
    world_show_task(&w, 3);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] done created\n"
                 "[1000] done created\n"
                 "[1000] 1 < tag 1 seq 2 b fails 0 deliveries 1 replay\n"
                 "[1000] 1 < tag 2 seq 4 b fails 0 deliveries 1 replay\n"
                 "count 2: finished 2-5 next 6 matched 2 acked 0 expired 0\n"
                 "replay 3: running 2-5 next 6 matched 2 acked 0 expired 0\n"
                 "[1000] 1 settled ok 1-2\n"
                 "replay 3: finished 2-5 next 6 matched 2 acked 2 expired 0\n"
                 "s: floor 7 next 7 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

static void a_replay_by_time(void **state) {
    (void)state;
    struct world w = {0};
    open_with_events(&w, 2);
    uint64_t start = w.time.wall_ms;
    world_wait(&w, 1000);
    world_publish(&w, "a", "");
    world_wait(&w, 1000);
    world_publish(&w, "a", "");
    world_attach(&w, 1, "s", 10, 0);
    world_settle(&w, COMMAND_ACK, 1, 1, 2, true);
    buf_clear(&w.log);
    struct command c = {.kind = COMMAND_TASK_CREATE, .project = PROJECT_DEFAULT};
    c.u.task.kind = TASK_REPLAY;
    c.u.task.name = slice_str("s");
    c.u.task.from_time_ms = start + 1;
    c.u.task.to_time_ms = start + 2000; /* not included */
    world_run(&w, &c);
    world_show_task(&w, 2);
    c.u.task.to_time_ms = 0; /* to the end */
    world_run(&w, &c);
    world_show_task(&w, 3);
    c.u.task.from_time_ms = start + 2001; /* nothing was received then */
    world_run(&w, &c);
    world_expect(&w,
                 "[3000] done created\n"
                 "[3000] 1 < tag 3 seq 3 a fails 0 deliveries 1 replay\n"
                 "replay 2: running 3-3 next 4 matched 1 acked 0 expired 0\n"
                 "[3000] done created\n"
                 "[3000] 1 < tag 4 seq 3 a fails 0 deliveries 1 replay\n"
                 "[3000] 1 < tag 5 seq 4 a fails 0 deliveries 1 replay\n"
                 "replay 3: running 3-4 next 5 matched 2 acked 0 expired 0\n"
                 "[3000] error out_of_range: no event was received in that time: the oldest in "
                 "the journal is 1, the newest 4\n");
    world_close(&w);
}

static void a_replay_keeps_to_its_rate(void **state) {
    (void)state;
    struct world w = {0};
    open_with_events(&w, 4);
    world_attach(&w, 1, "s", 10, 0);
    world_task(&w, TASK_REPLAY, "s", 1, 4, 5, "");
    world_show(&w, "s");
    for (int ms = 0; ms < 300; ms += 50) world_wait(&w, 50);
    world_publish(&w, "live", ""); /* is not held up */
    world_show_task(&w, 2);
    for (int ms = 0; ms < 300; ms += 50) world_wait(&w, 50);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] done created\n"
                 "[1000] 1 < tag 1 seq 1 a fails 0 deliveries 1 replay\n"
                 "s: floor 5 next 5 ready 0 leased 1 delayed 0 dead 0 idle rate\n"
                 "[1150] 1 < tag 2 seq 2 b fails 0 deliveries 1 replay\n"
                 "[1300] published 5\n"
                 "[1300] 1 < tag 3 seq 5 live fails 0 deliveries 1\n"
                 "replay 2: running 1-4 next 3 matched 2 acked 0 expired 0\n"
                 "[1350] 1 < tag 4 seq 3 a fails 0 deliveries 1 replay\n"
                 "[1550] 1 < tag 5 seq 4 b fails 0 deliveries 1 replay\n");
    world_close(&w);
}

static void a_rate_counts_what_is_fed_not_what_is_passed_over(void **state) {
    (void)state;
    struct world w = {0};
    open_with_events(&w, 6);
    world_attach(&w, 1, "s", 10, 0);
    world_task(&w, TASK_REPLAY, "s", 1, 6, 10, ONLY_B);
    world_wait(&w, 50);
    world_wait(&w, 100);
    world_settle(&w, COMMAND_ACK, 1, 1, 3, false);
    world_show_task(&w, 2);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] done created\n"
                 "[1000] 1 < tag 1 seq 2 b fails 0 deliveries 1 replay\n"
                 "[1050] 1 < tag 2 seq 4 b fails 0 deliveries 1 replay\n"
                 "[1150] 1 < tag 3 seq 6 b fails 0 deliveries 1 replay\n"
                 "replay 2: finished 1-6 next 7 matched 3 acked 3 expired 0\n");
    world_close(&w);
}

static void a_replay_and_live_events_take_turns(void **state) {
    (void)state;
    struct world w = {0};
    open_with_events(&w, 4);
    world_task(&w, TASK_REPLAY, "s", 1, 4, 0, "");
    world_publish_many(&w, "live", 4);
    world_attach(&w, 1, "s", 6, 0);
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] published 5 6 7 8\n"
                 "[1000] attached 1 backlog 4\n"
                 "[1000] 1 < tag 1 seq 5 live fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 1 a fails 0 deliveries 1 replay\n"
                 "[1000] 1 < tag 3 seq 6 live fails 0 deliveries 1\n"
                 "[1000] 1 < tag 4 seq 2 b fails 0 deliveries 1 replay\n"
                 "[1000] 1 < tag 5 seq 7 live fails 0 deliveries 1\n"
                 "[1000] 1 < tag 6 seq 3 a fails 0 deliveries 1 replay\n");
    world_close(&w);
}

static void a_cancelled_replay_feeds_nothing_more(void **state) {
    (void)state;
    struct world w = {0};
    open_with_events(&w, 5);
    world_attach(&w, 1, "s", 2, 0);
    world_task(&w, TASK_REPLAY, "s", 0, 0, 0, "");
    world_cancel(&w, 2);
    world_cancel(&w, 2);
    world_cancel(&w, 9);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true); /* what is out is settled */
    world_show_task(&w, 2);
    world_restart(&w);
    world_show_task(&w, 2);
    world_attach(&w, 1, "s", 2, 0);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_show_task(&w, 2);
    world_cancel(&w, 2);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] done created\n"
                 "[1000] 1 < tag 1 seq 1 a fails 0 deliveries 1 replay\n"
                 "[1000] 1 < tag 2 seq 2 b fails 0 deliveries 1 replay\n"
                 "[1000] done\n"
                 "[1000] error not_running: replay 2 does not run any more: it was cancelled\n"
                 "[1000] error not_found: there is no replay or other task 9\n"
                 "[1000] 1 settled ok 1-1\n"
                 "replay 2: running 1-5 next 3 matched 2 acked 1 expired 0\n"
                 "replay 2: running 1-5 next 3 matched 2 acked 1 expired 0\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] 1 < tag 1 seq 2 b fails 0 deliveries 1 replay\n"
                 "[1000] 1 settled ok 1-1\n"
                 "replay 2: cancelled 1-5 next 3 matched 2 acked 2 expired 0\n"
                 "[1000] error not_running: replay 2 does not run any more: it was cancelled\n");
    world_close(&w);
}

static void a_replay_goes_on_after_a_restart(void **state) {
    (void)state;
    struct world w = {0};
    open_with_events(&w, 5);
    world_attach(&w, 1, "s", 2, 0);
    world_task(&w, TASK_REPLAY, "s", 1, 5, 0, "");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_nack(&w, 1, 2, NACK_FAIL, 1000, "boom");
    world_show_task(&w, 2);
    world_crash(&w);
    world_show_task(&w, 2);
    world_attach(&w, 1, "s", 10, 0);
    world_settle(&w, COMMAND_ACK, 1, 1, 3, true);
    world_wait(&w, 1000);
    world_settle(&w, COMMAND_ACK, 1, 4, 4, true);
    world_show_task(&w, 2);
    world_crash(&w);
    world_show_task(&w, 2);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] done created\n"
                 "[1000] 1 < tag 1 seq 1 a fails 0 deliveries 1 replay\n"
                 "[1000] 1 < tag 2 seq 2 b fails 0 deliveries 1 replay\n"
                 "[1000] 1 settled ok 1-1\n"
                 "[1000] 1 < tag 3 seq 3 a fails 0 deliveries 1 replay\n"
                 "[1000] 1 < tag 4 seq 4 b fails 0 deliveries 1 replay\n"
                 "replay 2: running 1-5 next 5 matched 4 acked 1 expired 0\n"
                 "replay 2: running 1-5 next 5 matched 4 acked 1 expired 0\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] 1 < tag 1 seq 3 a fails 0 deliveries 1 replay\n"
                 "[1000] 1 < tag 2 seq 5 a fails 0 deliveries 1 replay\n"
                 "[1000] 1 < tag 3 seq 4 b fails 0 deliveries 1 replay\n"
                 "[1000] 1 settled ok 1-3\n"
                 "[2000] 1 < tag 4 seq 2 b fails 1 deliveries 2 replay\n"
                 "[2000] 1 settled ok 4-4\n"
                 "replay 2: finished 1-5 next 6 matched 5 acked 5 expired 0\n"
                 "replay 2: finished 1-5 next 6 matched 5 acked 5 expired 0\n");
    world_close(&w);
}

static void ranges_outside_the_journal_name_the_oldest(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    world_create(&w, "s", NULL, NULL, START_NEW);
    world_task(&w, TASK_REPLAY, "s", 0, 0, 0, "");
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] error out_of_range: the journal is empty: there is nothing to replay\n");
    for (int i = 0; i < 4; i++) world_publish(&w, "a", "");
    world_attach(&w, 1, "s", 10, 0);
    world_settle(&w, COMMAND_ACK, 1, 1, 4, true);
    world_wait(&w, 5000);
    world_publish(&w, "a", "");
    world_retain(&w, 1000, 0, 0);
    buf_clear(&w.log);
    world_show_journal(&w);
    world_task(&w, TASK_REPLAY, "s", 4, 5, 0, "");
    world_task(&w, TASK_REPLAY, "s", 5, 6, 0, "");
    world_task(&w, TASK_COUNT, "s", 1, 0, 0, "");
    world_task(&w, TASK_REPLAY, "s", 5, 5, 0, "");
    world_expect(&w,
                 "journal: 5 to 5 trimmed 4\n"
                 "[6000] error out_of_range: no such range of events, 4 to 5: the oldest in the "
                 "journal is 5, the newest 5\n"
                 "[6000] error out_of_range: no such range of events, 5 to 6: the oldest in the "
                 "journal is 5, the newest 5\n"
                 "[6000] error out_of_range: no such range of events, 1 to 5: the oldest in the "
                 "journal is 5, the newest 5\n"
                 "[6000] done created\n"
                 "[6000] 1 < tag 6 seq 5 a fails 0 deliveries 1 replay\n");
    world_close(&w);
}

static void what_cannot_be_asked_for_is_refused(void **state) {
    (void)state;
    struct world w = {0};
    open_with_events(&w, 1);
    world_task(&w, TASK_REPLAY, "s", 0, 0, 0, "{\"types\":[]");
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 0, "{\"nothing\":1}");
    world_task(&w, TASK_REPLAY, "nothing", 0, 0, 0, "");
    world_task(&w, TASK_REPLAY, "s", 0, 0, LIMIT_RATE_PER_S + 1, "");
    world_task(&w, TASK_REDRIVE, "s", 1, 1, 0, "");
    world_task(&w, TASK_PURGE, "s", 1, 1, 0, "");
    world_expect(
        &w,
        "[1000] error bad_filter: filter: not JSON: line 1, column 12: parse error: premature EOF\n"
        "[1000] error bad_filter: filter.nothing: unknown; a filter has types, sources, "
        "subject_prefix, endpoint, user_metadata, all, any and not\n"
        "[1000] error not_found: there is no subscription \"nothing\": create it, or check the "
        "name\n"
        "[1000] error invalid_request: rate: must be 0 to 1000000 per second\n"
        "[1000] error not_found: \"s\" has no dead letter with seq 1\n"
        "[1000] error not_found: \"s\" has no dead letter with seq 1\n");
    world_close(&w);
}

static void a_deletion_ends_what_runs(void **state) {
    (void)state;
    struct world w = {0};
    open_with_events(&w, 3);
    world_attach(&w, 1, "s", 1, 0);
    world_task(&w, TASK_REPLAY, "s", 1, 3, 0, "");
    world_task(&w, TASK_REPLAY, "s", 1, 3, 1, "");
    world_delete(&w, "s");
    world_show_task(&w, 2);
    world_show_task(&w, 3);
    world_crash(&w);
    world_show_task(&w, 2);
    world_cancel(&w, 3);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] done created\n"
                 "[1000] 1 < tag 1 seq 1 a fails 0 deliveries 1 replay\n"
                 "[1000] done created\n"
                 "[1000] error deleted: the subscription was deleted\n"
                 "[1000] done\n"
                 "replay 2: cancelled 1-3 next 2 matched 1 acked 0 expired 0\n"
                 "replay 3: cancelled 1-3 next 1 matched 0 acked 0 expired 0\n"
                 "replay 2: cancelled 1-3 next 2 matched 1 acked 0 expired 0\n"
                 "[1000] error not_running: replay 3 does not run any more: it was cancelled\n");
    world_close(&w);
}

static void a_long_count_runs_in_slices_and_over_a_restart(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct policy p = quick();
    world_open(&w);
    for (int i = 0; i < 20; i++) world_publish_many(&w, "a", 1000);
    world_create(&w, "s", NULL, &p, START_NEW);
    struct command c = {.kind = COMMAND_TASK_CREATE, .project = PROJECT_DEFAULT};
    c.u.task.kind = TASK_COUNT;
    c.u.task.name = slice_str("s");
    world_step(&w, &c);
    struct engine_turn *turn = engine_end_turn(w.engine, w.time);
    int err = store_submit(w.store, &turn->batch);
    assert_int_equal(err, 0);
    store_end_reads(w.store);
    struct task_info t;
    assert_true(engine_task_get(w.engine, PROJECT_DEFAULT, 2, &t));
    assert_int_equal(t.finished_at_ms, 0); /* there is more to do */
    assert_in_range(t.matched, 1, 19999);
    world_crash(&w); /* it counts anew, or goes on: the result is the same */
    world_turn(&w);
    world_show_task(&w, 2);
    world_expect(&w, "count 2: finished 1-20000 next 20001 matched 20000 acked 0 expired 0\n");
    world_close(&w);
}

/* ---- redrive and purge ---- */

static void a_redriven_event_begins_anew(void **state) {
    (void)state;
    struct world w = {0};
    open_with_dead(&w, 3);
    world_show_dead(&w, "s");
    world_attach(&w, 2, "s", 10, 0);
    world_note(&w, "one");
    world_task(&w, TASK_REDRIVE, "s", 2, 2, 0, "");
    world_show_task(&w, 2);
    world_nack(&w, 2, 1, NACK_FAIL, DELAY_BY_POLICY, "again");
    world_wait(&w, 8); /* still with its mark */
    world_show(&w, "s");
    world_expect(&w,
                 "dead seq 1 rejected fails 1 deliveries 2 [/no use/]\n"
                 "dead seq 2 rejected fails 1 deliveries 2 [/no use/]\n"
                 "dead seq 3 rejected fails 1 deliveries 2 [/no use/]\n"
                 "[1000] attached 2 backlog 0\n"
                 "-- one\n"
                 "[1000] done created\n"
                 "[1000] 2 < tag 1 seq 2 b fails 0 deliveries 3 redrive\n"
                 "redrive 2: finished 2-2 next 3 matched 1 acked 0 expired 0\n"
                 "[1008] 2 < tag 2 seq 2 b fails 1 deliveries 4 redrive\n"
                 "s: floor 4 next 4 ready 0 leased 1 delayed 0 dead 2 idle empty\n");
    world_note(&w, "it dies again: there it is, once");
    world_nack(&w, 2, 2, NACK_REJECT, 0, "no use");
    world_show_dead(&w, "s");
    world_show(&w, "s");
    world_expect(&w,
                 "-- it dies again: there it is, once\n"
                 "dead seq 1 rejected fails 1 deliveries 2 [/no use/]\n"
                 "dead seq 2 rejected fails 1 deliveries 4 [/no use/]\n"
                 "dead seq 3 rejected fails 1 deliveries 2 [/no use/]\n"
                 "s: floor 4 next 4 ready 0 leased 0 delayed 0 dead 3 idle empty\n");
    world_note(&w, "by a filter, then all");
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 0, ONLY_B);
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 0, "");
    world_wait(&w, 1);
    world_settle(&w, COMMAND_ACK, 2, 3, 5, true);
    world_show_dead(&w, "s");
    world_show(&w, "s");
    world_expect(&w,
                 "-- by a filter, then all\n"
                 "[1008] done created\n"
                 "[1008] done created\n"
                 "[1009] 2 < tag 3 seq 1 a fails 0 deliveries 3 redrive\n"
                 "[1009] 2 < tag 4 seq 2 b fails 0 deliveries 5 redrive\n"
                 "[1009] 2 < tag 5 seq 3 a fails 0 deliveries 3 redrive\n"
                 "[1009] 2 settled ok 3-5\n"
                 "s: floor 4 next 4 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    check_dead_count(&w);
    world_close(&w);
}

static void a_redrive_keeps_to_its_rate_and_takes_no_later_deaths(void **state) {
    (void)state;
    struct world w = {0};
    open_with_dead(&w, 4);
    world_wait(&w, 1000);
    world_attach(&w, 2, "s", 10, 0);
    world_publish(&w, "a", ""); /* within the range, and it dies when the redrive runs */
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 10, "");
    world_wait(&w, 49);
    world_nack(&w, 2, 1, NACK_REJECT, 0, "later");
    world_show_task(&w, 2);
    for (int i = 0; i < 7; i++) world_wait(&w, 50);
    world_show_task(&w, 2);
    world_show_dead(&w, "s");
    check_dead_count(&w);
    world_expect(&w,
                 "[2000] attached 2 backlog 0\n"
                 "[2000] published 5\n"
                 "[2000] 2 < tag 1 seq 5 a fails 0 deliveries 1\n"
                 "[2000] done created\n"
                 "[2000] 2 < tag 2 seq 1 a fails 0 deliveries 3 redrive\n"
                 "redrive 2: running 1-5 next 1 matched 1 acked 0 expired 0\n"
                 "[2099] 2 < tag 3 seq 2 b fails 0 deliveries 3 redrive\n"
                 "[2199] 2 < tag 4 seq 3 a fails 0 deliveries 3 redrive\n"
                 "[2299] 2 < tag 5 seq 4 b fails 0 deliveries 3 redrive\n"
                 "redrive 2: finished 1-5 next 6 matched 4 acked 0 expired 0\n"
                 "dead seq 5 rejected fails 0 deliveries 1 [/later/]\n");
    world_close(&w);
}

static void a_redrive_goes_on_after_a_restart(void **state) {
    (void)state;
    struct world w = {0};
    open_with_dead(&w, 4);
    world_attach(&w, 2, "s", 10, 0);
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 10, "");
    world_wait(&w, 50);
    world_show_task(&w, 2);
    world_crash(&w);
    world_show_task(&w, 2);
    world_attach(&w, 3, "s", 10, 0);
    world_wait(&w, 50);
    world_wait(&w, 100);
    world_show_task(&w, 2);
    world_show(&w, "s");
    check_dead_count(&w);
    world_expect(&w,
                 "[1000] attached 2 backlog 0\n"
                 "[1000] done created\n"
                 "[1000] 2 < tag 1 seq 1 a fails 0 deliveries 3 redrive\n"
                 "[1050] 2 < tag 2 seq 2 b fails 0 deliveries 3 redrive\n"
                 "redrive 2: running 1-4 next 2 matched 2 acked 0 expired 0\n"
                 "redrive 2: running 1-4 next 2 matched 2 acked 0 expired 0\n"
                 "[1050] attached 3 backlog 0\n"
                 "[1050] 3 < tag 1 seq 1 a fails 0 deliveries 3 redrive\n"
                 "[1050] 3 < tag 2 seq 2 b fails 0 deliveries 3 redrive\n"
                 "[1050] 3 < tag 3 seq 3 a fails 0 deliveries 3 redrive\n"
                 "[1100] 3 < tag 4 seq 4 b fails 0 deliveries 3 redrive\n"
                 "redrive 2: finished 1-4 next 5 matched 4 acked 0 expired 0\n"
                 "s: floor 5 next 5 ready 0 leased 4 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

static void a_cancelled_redrive_leaves_the_rest(void **state) {
    (void)state;
    struct world w = {0};
    open_with_dead(&w, 3);
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 10, "");
    world_cancel(&w, 2);
    world_wait(&w, 1000);
    world_show_task(&w, 2);
    world_show_dead(&w, "s");
    world_show(&w, "s"); /* without a worker too it is with the subscription again */
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] done\n"
                 "redrive 2: cancelled 1-3 next 1 matched 1 acked 0 expired 0\n"
                 "dead seq 2 rejected fails 1 deliveries 2 [/no use/]\n"
                 "dead seq 3 rejected fails 1 deliveries 2 [/no use/]\n"
                 "s: floor 4 next 4 ready 0 leased 0 delayed 1 dead 2 idle no_workers\n");
    world_close(&w);
}

static void a_purge_removes_for_good(void **state) {
    (void)state;
    struct world w = {0};
    open_with_dead(&w, 4);
    world_task(&w, TASK_PURGE, "s", 1, 1, 0, "");
    world_task(&w, TASK_PURGE, "s", 0, 0, 0, ONLY_B);
    world_show_task(&w, 2);
    world_show_task(&w, 3);
    world_crash(&w);
    world_show_dead(&w, "s");
    world_show(&w, "s");
    check_dead_count(&w);
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] done created\n"
                 "purge 2: finished 1-1 next 2 matched 1 acked 0 expired 0\n"
                 "purge 3: finished 1-4 next 5 matched 2 acked 0 expired 0\n"
                 "dead seq 3 rejected fails 1 deliveries 2 [/no use/]\n"
                 "s: floor 5 next 5 ready 0 leased 0 delayed 0 dead 1 idle empty\n");
    world_close(&w);
}

static void two_tasks_on_one_subscription_follow_each_other(void **state) {
    (void)state;
    struct world w = {0};
    open_with_dead(&w, 4);
    struct command redrive = {.kind = COMMAND_TASK_CREATE, .project = PROJECT_DEFAULT};
    redrive.u.task.kind = TASK_REDRIVE;
    redrive.u.task.name = slice_str("s");
    redrive.u.task.filter = slice_str(ONLY_B);
    redrive.u.task.rate_per_s = 10;
    struct command purge = redrive;
    purge.u.task.kind = TASK_PURGE;
    purge.u.task.filter = slice_str("");
    world_step(&w, &redrive);
    world_step(&w, &purge);
    world_turn(&w);
    world_show_task(&w, 2);
    world_show_task(&w, 3);
    check_dead_count(&w);
    world_wait(&w, 50);
    world_show_task(&w, 2);
    world_show_task(&w, 3);
    world_wait(&w, 100);
    world_show_task(&w, 2);
    world_show_task(&w, 3);
    world_show(&w, "s");
    check_dead_count(&w);
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] done created\n"
                 "redrive 2: running 1-4 next 2 matched 1 acked 0 expired 0\n"
                 "purge 3: running 1-4 next 1 matched 0 acked 0 expired 0\n"
                 "redrive 2: running 1-4 next 4 matched 2 acked 0 expired 0\n"
                 "purge 3: running 1-4 next 1 matched 0 acked 0 expired 0\n"
                 "redrive 2: finished 1-4 next 5 matched 2 acked 0 expired 0\n"
                 "purge 3: finished 1-4 next 5 matched 2 acked 0 expired 0\n"
                 "s: floor 5 next 5 ready 0 leased 0 delayed 2 dead 0 idle no_workers\n");
    world_close(&w);
}

/* The disk is slow: what a task has removed can still be seen, and must be counted once. */
static void dead_letters_are_counted_exactly_while_turns_wait(void **state) {
    (void)state;
    struct world w = {0};
    open_with_dead(&w, 4);
    memory_store_set_manual(w.store, true);
    world_task(&w, TASK_PURGE, "s", 0, 0, 0, ONLY_B);
    world_task(&w, TASK_PURGE, "s", 0, 0, 0, ONLY_B);
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 0, ONLY_B);
    assert_int_equal(dead_count(&w), 2);
    for (int i = 0; i < 20; i++) {
        memory_store_sync(w.store, 1);
        world_turn(&w);
    }
    memory_store_sync(w.store, 100);
    memory_store_set_manual(w.store, false);
    world_show_task(&w, 2);
    world_show_task(&w, 3);
    world_show_task(&w, 4);
    check_dead_count(&w);
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] done created\n"
                 "[1000] done created\n"
                 "purge 2: finished 1-4 next 5 matched 2 acked 0 expired 0\n"
                 "purge 3: finished 1-4 next 5 matched 0 acked 0 expired 0\n"
                 "redrive 4: finished 1-4 next 5 matched 0 acked 0 expired 0\n");
    world_note(&w, "one that was sought back and dies again is one dead letter");
    world_seek(&w, "s", START_SEQ, 3);
    world_attach(&w, 2, "s", 10, 0);
    world_nack(&w, 2, 1, NACK_REJECT, 0, "once more");
    world_show_dead(&w, "s");
    check_dead_count(&w);
    world_expect(&w,
                 "-- one that was sought back and dies again is one dead letter\n"
                 "[1000] done\n"
                 "[1000] attached 2 backlog 2\n"
                 "[1000] 2 < tag 1 seq 3 a fails 0 deliveries 1\n"
                 "[1000] 2 < tag 2 seq 4 b fails 0 deliveries 1\n"
                 "dead seq 1 rejected fails 1 deliveries 2 [/no use/]\n"
                 "dead seq 3 rejected fails 0 deliveries 1 [/once more/]\n");
    world_close(&w);
}

/* One is being removed, another one that is there dies once more: each row is known by itself. */
static void dying_again_while_another_is_removed_counts_nothing(void **state) {
    (void)state;
    struct world w = {0};
    open_with_dead(&w, 4);
    world_seek(&w, "s", START_SEQ, 3);
    world_attach(&w, 2, "s", 10, 0);
    memory_store_set_manual(w.store, true);
    world_task(&w, TASK_PURGE, "s", 1, 1, 0, "");
    world_nack(&w, 2, 1, NACK_REJECT, 0, "once more");
    memory_store_sync(w.store, 100);
    memory_store_set_manual(w.store, false);
    check_dead_count(&w);
    world_show_dead(&w, "s");
    world_expect(&w,
                 "[1000] done\n"
                 "[1000] attached 2 backlog 2\n"
                 "[1000] 2 < tag 1 seq 3 a fails 0 deliveries 1\n"
                 "[1000] 2 < tag 2 seq 4 b fails 0 deliveries 1\n"
                 "[1000] done created\n"
                 "dead seq 2 rejected fails 1 deliveries 2 [/no use/]\n"
                 "dead seq 3 rejected fails 0 deliveries 1 [/once more/]\n"
                 "dead seq 4 rejected fails 1 deliveries 2 [/no use/]\n");
    world_close(&w);
}

static void a_dead_letter_of_a_replay_is_its_own(void **state) {
    (void)state;
    struct world w = {0};
    open_with_dead(&w, 1);
    world_attach(&w, 2, "s", 10, 0);
    world_task(&w, TASK_REPLAY, "s", 1, 1, 0, "");
    world_nack(&w, 2, 1, NACK_REJECT, 0, "again");
    world_show_task(&w, 2);
    world_show_dead(&w, "s");
    world_note(&w, "redriven, each says where it came from");
    world_task(&w, TASK_REDRIVE, "s", 1, 1, 0, "");
    world_settle(&w, COMMAND_ACK, 2, 2, 3, true);
    world_show(&w, "s");
    check_dead_count(&w);
    world_expect(&w,
                 "[1000] attached 2 backlog 0\n"
                 "[1000] done created\n"
                 "[1000] 2 < tag 1 seq 1 a fails 0 deliveries 1 replay\n"
                 "replay 2: finished 1-1 next 2 matched 1 acked 0 expired 0\n"
                 "dead seq 1 rejected fails 1 deliveries 2 [/no use/]\n"
                 "dead seq 1 rejected fails 0 deliveries 1 replay 2 [/again/]\n"
                 "-- redriven, each says where it came from\n"
                 "[1000] done created\n"
                 "[1000] 2 < tag 2 seq 1 a fails 0 deliveries 3 redrive\n"
                 "[1000] 2 < tag 3 seq 1 a fails 0 deliveries 2 replay redrive\n"
                 "[1000] 2 settled ok 2-3\n"
                 "s: floor 2 next 2 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

static void many_dead_letters_are_moved_in_slices(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    world_open(&w);
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 3000, 0);
    w.quiet = true;
    for (int i = 0; i < 3; i++) world_publish_many(&w, i % 2 == 0 ? "a" : "b", 1000);
    struct tag_range all = {1, 3000};
    struct command c = {.kind = COMMAND_NACK};
    c.u.settle.attachment = 1;
    c.u.settle.ranges = &all;
    c.u.settle.count = 1;
    c.u.settle.kind = NACK_REJECT;
    world_run(&w, &c);
    assert_int_equal(dead_count(&w), 3000);
    world_task(&w, TASK_PURGE, "s", 0, 0, 0, ONLY_B);
    assert_int_equal(dead_count(&w), 2000);
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 0, "");
    check_dead_count(&w);
    w.quiet = false;
    world_show_task(&w, 2);
    world_show_task(&w, 3);
    world_show(&w, "s");
    world_crash(&w);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] attached 1 backlog 0\n"
                 "purge 2: finished 1-3000 next 3001 matched 1000 acked 0 expired 0\n"
                 "redrive 3: finished 1-3000 next 3001 matched 2000 acked 0 expired 0\n"
                 "s: floor 3001 next 3001 ready 0 leased 2000 delayed 0 dead 0 idle empty\n"
                 "s: floor 3001 next 3001 ready 0 leased 0 delayed 2000 dead 0 idle no_workers\n");
    world_close(&w);
}

static void of_finished_tasks_those_that_ended_last_are_remembered(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct task_info t;
    world_open(&w);
    world_create(&w, "s", NULL, NULL, START_NEW);
    world_publish(&w, "t", "");
    world_task(&w, TASK_REPLAY, "s", 0, 0, 0, ""); /* task 2: nobody works on it */
    for (int i = 0; i < 1000; i++) world_task(&w, TASK_COUNT, "s", 0, 0, 0, "");
    world_wait(&w, 1);
    world_cancel(&w, 2);
    assert_true(engine_task_get(w.engine, PROJECT_DEFAULT, 2, &t) && t.cancelled &&
                t.finished_at_ms != 0);
    assert_false(engine_task_get(w.engine, PROJECT_DEFAULT, 3, &t));
    assert_true(engine_task_get(w.engine, PROJECT_DEFAULT, 4, &t));
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_replay_feeds_what_its_filter_wants),
        cmocka_unit_test(a_replay_by_time),
        cmocka_unit_test(a_replay_keeps_to_its_rate),
        cmocka_unit_test(a_rate_counts_what_is_fed_not_what_is_passed_over),
        cmocka_unit_test(a_replay_and_live_events_take_turns),
        cmocka_unit_test(a_cancelled_replay_feeds_nothing_more),
        cmocka_unit_test(a_replay_goes_on_after_a_restart),
        cmocka_unit_test(ranges_outside_the_journal_name_the_oldest),
        cmocka_unit_test(what_cannot_be_asked_for_is_refused),
        cmocka_unit_test(a_deletion_ends_what_runs),
        cmocka_unit_test(a_long_count_runs_in_slices_and_over_a_restart),
        cmocka_unit_test(a_redriven_event_begins_anew),
        cmocka_unit_test(a_redrive_keeps_to_its_rate_and_takes_no_later_deaths),
        cmocka_unit_test(a_redrive_goes_on_after_a_restart),
        cmocka_unit_test(a_cancelled_redrive_leaves_the_rest),
        cmocka_unit_test(a_purge_removes_for_good),
        cmocka_unit_test(two_tasks_on_one_subscription_follow_each_other),
        cmocka_unit_test(dead_letters_are_counted_exactly_while_turns_wait),
        cmocka_unit_test(dying_again_while_another_is_removed_counts_nothing),
        cmocka_unit_test(a_dead_letter_of_a_replay_is_its_own),
        cmocka_unit_test(many_dead_letters_are_moved_in_slices),
        cmocka_unit_test(of_finished_tasks_those_that_ended_last_are_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
