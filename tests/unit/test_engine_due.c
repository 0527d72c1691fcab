/* Events that wait for their time, as transcripts on virtual time: deliver_at, and long backoffs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/engine_world.h"

#define SECOND 1000
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24ULL * HOUR)

static struct policy quick(void) {
    struct policy p = policy_default();
    p.lease_ms = 4 * SECOND;
    p.backoff_min_ms = p.backoff_max_ms = 8;
    return p;
}

static void open_with(struct world *w, const struct policy *p) {
    world_open(w);
    world_create(w, "s", NULL, p, START_NEW);
    world_attach(w, 1, "s", 10, 0);
    buf_clear(&w->log);
}

static uint32_t outstanding(struct world *w) {
    struct subscription_info s;
    assert_true(engine_subscription_get(w->engine, PROJECT_DEFAULT, slice_str("s"), &s));
    store_end_reads(w->store);
    return s.ready + s.leased + s.blocked;
}

static void not_before_its_time_and_then_at_once(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, NULL);
    world_publish_due(&w, "later", "", 5 * SECOND);
    world_publish_due(&w, "now", "", 0);
    world_show(&w, "s"); /* what waits for its time does not hold the floor */
    world_wait(&w, 4999);
    world_wait(&w, 1);
    world_settle(&w, COMMAND_ACK, 1, 1, 2, true);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] published 2\n"
                 "[1000] 1 < tag 1 seq 2 now fails 0 deliveries 1\n"
                 "s: floor 2 next 3 ready 0 leased 1 delayed 1 dead 0 idle backoff\n"
                 "[6000] 1 < tag 2 seq 1 later fails 0 deliveries 1\n"
                 "[6000] 1 settled ok 1-2\n"
                 "s: floor 3 next 3 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_note(&w, "a time that is over means at once, and is not kept");
    struct event event = {.type = slice_str("past"), .deliver_at_ms = w.time.wall_ms - 1};
    world_event(&w, &event);
    assert_true(engine_event_get(w.engine, PROJECT_DEFAULT, 3, &event));
    assert_int_equal(event.deliver_at_ms, 0);
    store_end_reads(w.store);
    world_expect(&w,
                 "-- a time that is over means at once, and is not kept\n"
                 "[6000] published 3\n"
                 "[6000] 1 < tag 3 seq 3 past fails 0 deliveries 1\n");
    world_close(&w);
}

static void in_order_of_their_times(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, NULL);
    world_publish_due(&w, "third", "", 3000);
    world_publish_due(&w, "first", "", 1000);
    world_publish_due(&w, "second", "", 2000);
    world_wait(&w, 1000);
    world_publish_due(&w, "soon", "", 1); /* below what waits already */
    world_wait(&w, 1);
    world_wait(&w, 3000);
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] published 2\n"
                 "[1000] published 3\n"
                 "[2000] 1 < tag 1 seq 2 first fails 0 deliveries 1\n"
                 "[2000] published 4\n"
                 "[2001] 1 < tag 2 seq 4 soon fails 0 deliveries 1\n"
                 "[5001] 1 < tag 3 seq 3 second fails 0 deliveries 1\n"
                 "[5001] 1 < tag 4 seq 1 third fails 0 deliveries 1\n");
    world_close(&w);
}

static void a_time_beyond_30_days_is_refused(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, NULL);
    world_publish_due(&w, "t", "", 30 * DAY);
    world_publish_due(&w, "t", "", 30 * DAY + 1);
    world_wait(&w, 30 * DAY - 1);
    world_wait(&w, 1);
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] error invalid_request: deliver_at: at most 30 days ahead\n"
                 "[2592001000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n");
    world_close(&w);
}

static void it_survives_restarts(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    open_with(&w, &p);
    world_publish_due(&w, "t", "", 10 * SECOND);
    world_publish_due(&w, "t", "", 20 * SECOND);
    world_crash(&w);
    world_show(&w, "s");
    world_attach(&w, 1, "s", 10, 0);
    world_wait(&w, 9999);
    world_wait(&w, 1);
    world_note(&w, "handed out, not settled: again after the restart; settled: not again");
    world_crash(&w);
    world_attach(&w, 1, "s", 10, 0);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_crash(&w);
    world_show(&w, "s");
    world_note(&w, "due while the broker was down");
    w.time.now_ms += HOUR;
    w.time.wall_ms += HOUR;
    world_attach(&w, 1, "s", 10, 0);
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] published 2\n"
                 "s: floor 3 next 3 ready 0 leased 0 delayed 2 dead 0 idle backoff\n"
                 "[1000] attached 1 backlog 0\n"
                 "[11000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "-- handed out, not settled: again after the restart; settled: not again\n"
                 "[11000] attached 1 backlog 0\n"
                 "[11000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[11000] 1 settled ok 1-1\n"
                 "s: floor 3 next 3 ready 0 leased 0 delayed 1 dead 0 idle backoff\n"
                 "-- due while the broker was down\n"
                 "[3611000] attached 1 backlog 0\n"
                 "[3611000] 1 < tag 1 seq 2 t fails 0 deliveries 1\n");
    world_close(&w);
}

static void before_a_worker_comes_it_waits_in_the_journal(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, NULL);
    world_detach(&w, 1, DETACH_RELEASE);
    world_publish_due(&w, "t", "", 1000);
    world_publish_due(&w, "t", "", 5000);
    world_wait(&w, 1000);
    world_show(&w, "s");
    world_attach(&w, 1, "s", 10, 0);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] published 2\n"
                 "s: floor 1 next 1 ready 0 leased 0 delayed 0 dead 0 idle no_workers\n"
                 "[2000] attached 1 backlog 2\n"
                 "[2000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "s: floor 1 next 3 ready 0 leased 1 delayed 1 dead 0 idle backoff\n");
    world_close(&w);
}

struct seen {
    uint32_t count, times[5001];
};

static void note_seen(void *ctx, const struct effect *e) {
    struct seen *s = ctx;
    if (e->kind != EFFECT_DELIVER) return;
    s->count++;
    s->times[e->u.deliver.event.seq]++;
}

/* Many with the same time, at a cap far below their number: each comes once. */
static void many_with_the_same_time_come_once_each(void **state) {
    (void)state;
    struct seen seen = {0};
    struct world w = {.quiet = true,
                      .on_effect = note_seen,
                      .on_effect_ctx = &seen,
                      .options = {.outstanding_max = 100}};
    open_with(&w, NULL);
    world_window(&w, 1, 1000);
    struct event events[1000];
    for (int i = 0; i < 1000; i++) {
        events[i] = (struct event){.type = slice_str("t"),
                                   .deliver_at_ms = w.time.wall_ms + (i < 900 ? 1000 : 1001)};
    }
    struct command c = {.kind = COMMAND_PUBLISH, .project = PROJECT_DEFAULT};
    c.u.publish.events = events;
    c.u.publish.count = 1000;
    for (int i = 0; i < 5; i++) world_run(&w, &c);
    assert_int_equal(outstanding(&w), 0);
    world_show(&w, "s");
    world_wait(&w, 1000);
    assert_int_equal(seen.count, 100);
    for (uint64_t tag = 1; tag < 2000; tag += 100) {
        world_settle(&w, COMMAND_ACK, 1, tag, tag + 99, true);
    }
    assert_int_equal(seen.count, 2100);
    world_show(&w, "s");
    world_crash(&w); /* 2000 are acked; the 100 that are out come again */
    world_show(&w, "s");
    world_wait(&w, 1);
    world_attach(&w, 2, "s", 1000, 0);
    for (uint64_t tag = 1; tag < 3000; tag += 100) {
        world_settle(&w, COMMAND_ACK, 2, tag, tag + 99, true);
    }
    world_show(&w, "s");
    world_expect(&w,
                 "s: floor 5001 next 5001 ready 0 leased 0 delayed 5000 dead 0 idle backoff\n"
                 "s: floor 5001 next 5001 ready 0 leased 100 delayed 2900 dead 0 idle cap\n"
                 "s: floor 5001 next 5001 ready 0 leased 0 delayed 3000 dead 0 idle no_workers\n"
                 "s: floor 5001 next 5001 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    assert_int_equal(seen.count, 5000 + 100);
    for (int i = 1; i <= 5000; i++) assert_in_range(seen.times[i], 1, 2);
    world_close(&w);
}

static void an_ordered_one_waits_with_its_key(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    p.ordered = true;
    open_with(&w, &p);
    world_publish_due(&w, "a1", "a", 5000);
    world_publish_due(&w, "a2", "a", 0);
    world_publish_due(&w, "a3", "a", 9000);
    world_publish_due(&w, "b1", "b", 0);
    world_show(&w, "s");
    world_crash(&w);
    world_show(&w, "s");
    world_attach(&w, 1, "s", 10, 0);
    world_wait(&w, 3000);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, false);
    world_wait(&w, 1999);
    world_wait(&w, 1);
    world_settle(&w, COMMAND_ACK, 1, 2, 2, false);
    world_settle(&w, COMMAND_ACK, 1, 3, 3, false);
    world_show(&w, "s");
    world_wait(&w, 4000);
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] published 2\n"
                 "[1000] published 3\n"
                 "[1000] published 4\n"
                 "[1000] 1 < tag 1 seq 4 b1 fails 0 deliveries 1\n"
                 "s: floor 1 next 5 ready 0 leased 1 delayed 1 dead 0 idle order blocked 2\n"
                 "s: floor 1 next 4 ready 0 leased 0 delayed 1 dead 0 idle no_workers blocked 2\n"
                 "[1000] attached 1 backlog 1\n"
                 "[1000] 1 < tag 1 seq 4 b1 fails 0 deliveries 1\n"
                 "[4000] 1 lease of tag 1 ends in 1000\n"
                 "[6000] 1 < tag 2 seq 1 a1 fails 0 deliveries 1\n"
                 "[6000] 1 < tag 3 seq 2 a2 fails 0 deliveries 1\n"
                 "s: floor 3 next 5 ready 0 leased 0 delayed 1 dead 0 idle backoff\n"
                 "[10000] 1 < tag 4 seq 3 a3 fails 0 deliveries 1\n");
    world_close(&w);
}

static void a_long_backoff_waits_on_disk_with_its_fails(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    p.max_fails = 3;
    open_with(&w, &p);
    world_publish_many(&w, "t", 2);
    world_nack(&w, 1, 1, NACK_FAIL, MINUTE - 1, "short");
    world_nack(&w, 1, 2, NACK_FAIL, MINUTE, "long");
    world_show(&w, "s"); /* the floor passes the one on disk */
    world_expect(&w,
                 "[1000] published 1 2\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "s: floor 1 next 3 ready 0 leased 0 delayed 2 dead 0 idle backoff\n");
    world_crash(&w);
    world_attach(&w, 1, "s", 10, 0);
    world_show(&w, "s");
    world_wait(&w, MINUTE - 1);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_wait(&w, 1);
    world_show(&w, "s");
    world_note(&w, "it fails again, for a short while: on disk too");
    world_nack(&w, 1, 2, NACK_FAIL, DELAY_BY_POLICY, "again");
    world_crash(&w);
    world_attach(&w, 1, "s", 10, 0);
    world_wait(&w, 8);
    world_note(&w, "a release forgets nothing; the third failure is the last");
    world_nack(&w, 1, 1, NACK_RELEASE, HOUR, "");
    world_wait(&w, HOUR);
    world_nack(&w, 1, 2, NACK_FAIL, 0, "third");
    world_show_dead(&w, "s");
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "s: floor 1 next 3 ready 0 leased 0 delayed 2 dead 0 idle backoff\n"
                 "[60999] 1 < tag 1 seq 1 t fails 1 deliveries 2\n"
                 "[60999] 1 settled ok 1-1\n"
                 "[61000] 1 < tag 2 seq 2 t fails 1 deliveries 2\n"
                 "s: floor 3 next 3 ready 0 leased 1 delayed 0 dead 0 idle empty\n"
                 "-- it fails again, for a short while: on disk too\n"
                 "[61000] attached 1 backlog 0\n"
                 "[61008] 1 < tag 1 seq 2 t fails 2 deliveries 3\n"
                 "-- a release forgets nothing; the third failure is the last\n"
                 "[3661008] 1 < tag 2 seq 2 t fails 2 deliveries 4\n"
                 "dead seq 2 max_fails fails 3 deliveries 4 [/third/]\n"
                 "s: floor 3 next 3 ready 0 leased 0 delayed 0 dead 1 idle empty\n");
    world_close(&w);
}

static void its_last_failure_waits_with_it(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    p.max_age_ms = 2 * HOUR;
    open_with(&w, &p);
    world_publish(&w, "t", "");
    world_nack(&w, 1, 1, NACK_FAIL, HOUR, "was down");
    world_wait(&w, HOUR);
    world_nack(&w, 1, 2, NACK_RELEASE, 2 * HOUR, "");
    world_wait(&w, 2 * HOUR);
    world_show_dead(&w, "s");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[3601000] 1 < tag 2 seq 1 t fails 1 deliveries 2\n"
                 "dead seq 1 expired fails 1 deliveries 2 [/was down/]\n");
    world_close(&w);
}

static void a_late_ack_finds_an_expired_one_that_backs_off_long(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    p.backoff_min_ms = p.backoff_max_ms = 5 * MINUTE;
    p.backoff_jitter_permille = 0;
    open_with(&w, &p);
    world_publish(&w, "t", "");
    world_wait(&w, 4000);
    world_show(&w, "s");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[5000] 1 revoked tag 1 expired\n"
                 "s: floor 1 next 2 ready 0 leased 0 delayed 1 dead 0 idle backoff\n"
                 "[5000] 1 settled ok 1-1\n"
                 "s: floor 2 next 2 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

static void the_copy_outlives_the_journal(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    open_with(&w, &p);
    world_publish_due(&w, "later", "", 10 * DAY);
    world_publish(&w, "failed", "");
    world_nack(&w, 1, 1, NACK_FAIL, 20 * HOUR, "was down");
    world_publish(&w, "last", "");
    world_settle(&w, COMMAND_ACK, 1, 2, 2, true);
    world_retain(&w, HOUR, 0, 0);
    world_wait(&w, 2 * HOUR);
    world_show_journal(&w);
    struct event event;
    assert_false(engine_event_get(w.engine, PROJECT_DEFAULT, 1, &event));
    assert_false(engine_event_get(w.engine, PROJECT_DEFAULT, 2, &event));
    world_crash(&w);
    world_attach(&w, 1, "s", 10, 0);
    world_wait(&w, DAY);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_wait(&w, 10 * DAY);
    world_nack(&w, 1, 2, NACK_REJECT, 0, "no use"); /* a dead letter from a copy */
    world_show_dead(&w, "s");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] published 2\n"
                 "[1000] 1 < tag 1 seq 2 failed fails 0 deliveries 1\n"
                 "[1000] published 3\n"
                 "[1000] 1 < tag 2 seq 3 last fails 0 deliveries 1\n"
                 "[1000] 1 settled ok 2-2\n"
                 "journal: 3 to 3 trimmed 2\n"
                 "[7201000] attached 1 backlog 0\n"
                 "[93601000] 1 < tag 1 seq 2 failed fails 1 deliveries 2\n"
                 "[93601000] 1 settled ok 1-1\n"
                 "[957601000] 1 < tag 2 seq 1 later fails 0 deliveries 1\n"
                 "dead seq 1 rejected fails 0 deliveries 1 [/no use/]\n");
    world_close(&w);
}

static void a_replay_leaves_out_what_is_not_due(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, NULL);
    world_publish_due(&w, "later", "", 5000);
    world_publish(&w, "now", "");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, false);
    world_task(&w, TASK_COUNT, "s", 1, 2, 0, "");
    world_task(&w, TASK_REPLAY, "s", 1, 2, 0, "");
    world_settle(&w, COMMAND_ACK, 1, 2, 2, false);
    world_show_task(&w, 2);
    world_show_task(&w, 3);
    world_show(&w, "s"); /* it waits once */
    world_wait(&w, 5000);
    world_settle(&w, COMMAND_ACK, 1, 3, 3, false);
    world_note(&w, "its time has come: now it is replayed");
    world_task(&w, TASK_REPLAY, "s", 1, 1, 0, "");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] published 2\n"
                 "[1000] 1 < tag 1 seq 2 now fails 0 deliveries 1\n"
                 "[1000] done created\n"
                 "[1000] done created\n"
                 "[1000] 1 < tag 2 seq 2 now fails 0 deliveries 1 replay\n"
                 "count 2: finished 1-2 next 3 matched 1 acked 0 expired 0\n"
                 "replay 3: finished 1-2 next 3 matched 1 acked 1 expired 0\n"
                 "s: floor 3 next 3 ready 0 leased 0 delayed 1 dead 0 idle backoff\n"
                 "[6000] 1 < tag 3 seq 1 later fails 0 deliveries 1\n"
                 "-- its time has come: now it is replayed\n"
                 "[6000] done created\n"
                 "[6000] 1 < tag 4 seq 1 later fails 0 deliveries 1 replay\n");
    world_close(&w);
}

static void a_replayed_event_on_disk_is_still_a_replay(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    open_with(&w, &p);
    world_publish(&w, "t", "");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, false);
    world_task(&w, TASK_REPLAY, "s", 1, 1, 0, "");
    world_nack(&w, 1, 2, NACK_FAIL, HOUR, "boom");
    world_show_task(&w, 2); /* it has fed all it had to */
    world_restart(&w);
    world_attach(&w, 1, "s", 10, 0);
    world_wait(&w, HOUR);
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] done created\n"
                 "[1000] 1 < tag 2 seq 1 t fails 0 deliveries 1 replay\n"
                 "replay 2: finished 1-1 next 2 matched 1 acked 0 expired 0\n"
                 "[1000] attached 1 backlog 0\n"
                 "[3601000] 1 < tag 1 seq 1 t fails 1 deliveries 2 replay\n");
    world_close(&w);
}

static void a_paused_subscription_keeps_what_is_due(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, NULL);
    world_publish_due(&w, "t", "", 1000);
    world_pause(&w, "s", true);
    world_wait(&w, 2000);
    world_show(&w, "s");
    world_pause(&w, "s", false);
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] done\n"
                 "s: floor 2 next 2 ready 0 leased 0 delayed 1 dead 0 idle paused\n"
                 "[3000] done\n"
                 "[3000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n");
    world_note(&w, "a seek leaves it, a deletion takes it along");
    world_publish_due(&w, "t", "", 1000);
    world_seek(&w, "s", START_NEW, 0);
    world_show(&w, "s");
    world_wait(&w, 1000);
    world_publish_due(&w, "t", "", 1000);
    world_delete(&w, "s");
    world_create(&w, "s", NULL, NULL, START_NEW);
    world_attach(&w, 2, "s", 10, 0);
    world_wait(&w, 1000);
    world_show(&w, "s");
    world_expect(&w,
                 "-- a seek leaves it, a deletion takes it along\n"
                 "[3000] published 2\n"
                 "[3000] done\n"
                 "s: floor 3 next 3 ready 0 leased 1 delayed 1 dead 0 idle backoff\n"
                 "[4000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[4000] published 3\n"
                 "[4000] error deleted: the subscription was deleted\n"
                 "[4000] done\n"
                 "[4000] done created\n"
                 "[4000] attached 2 backlog 0\n"
                 "s: floor 4 next 4 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

/* What was read while the clock was ahead must not hold back what is written once it is right. */
static void a_clock_that_was_ahead_delays_nothing(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, NULL);
    w.time.wall_ms += HOUR;
    world_publish_due(&w, "ahead", "", 1000);
    world_publish_due(&w, "ahead", "", 1000);
    world_wait(&w, 1000);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    w.time.wall_ms -= HOUR;
    world_turn(&w);
    world_publish_due(&w, "right", "", 2000);
    world_wait(&w, 1999);
    world_wait(&w, 1);
    world_settle(&w, COMMAND_ACK, 1, 2, 3, true);
    world_wait(&w, HOUR); /* what was read before is not read again */
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] published 2\n"
                 "[2000] 1 < tag 1 seq 1 ahead fails 0 deliveries 1\n"
                 "[2000] 1 < tag 2 seq 2 ahead fails 0 deliveries 1\n"
                 "[2000] 1 settled ok 1-1\n"
                 "[2000] published 3\n"
                 "[4000] 1 < tag 3 seq 3 right fails 0 deliveries 1\n"
                 "[4000] 1 settled ok 2-3\n"
                 "s: floor 4 next 4 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

/* The rows that seem to wait are all out: they must not keep half of a window from what is fresh.
 */
static void what_was_claimed_leaves_the_window_to_what_is_fresh(void **state) {
    (void)state;
    struct world w = {.options = {.restart_grace_ms = 1000}};
    struct claim claim = {1, 1, false};
    world_open(&w);
    world_create(&w, "s", NULL, NULL, START_FIRST);
    world_attach(&w, 1, "s", 2, 0);
    world_publish_due(&w, "later", "", 1000);
    world_wait(&w, 1000);
    world_crash(&w);
    struct command c = attach_command(2, "s", 2, 0);
    c.u.attach.claims = &claim;
    c.u.attach.claims_count = 1;
    world_run(&w, &c);
    w.time.now_ms += 1000; /* the grace is over, and in the same turn */
    w.time.wall_ms += 1000;
    world_publish(&w, "fresh", "");
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[2000] 1 < tag 1 seq 1 later fails 0 deliveries 1\n"
                 "[2000] attached 2 backlog 0 resumed 1\n"
                 "[3000] published 2\n"
                 "[3000] 2 < tag 2 seq 2 fresh fails 0 deliveries 1\n");
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(not_before_its_time_and_then_at_once),
        cmocka_unit_test(in_order_of_their_times),
        cmocka_unit_test(a_time_beyond_30_days_is_refused),
        cmocka_unit_test(it_survives_restarts),
        cmocka_unit_test(before_a_worker_comes_it_waits_in_the_journal),
        cmocka_unit_test(many_with_the_same_time_come_once_each),
        cmocka_unit_test(an_ordered_one_waits_with_its_key),
        cmocka_unit_test(a_long_backoff_waits_on_disk_with_its_fails),
        cmocka_unit_test(its_last_failure_waits_with_it),
        cmocka_unit_test(a_late_ack_finds_an_expired_one_that_backs_off_long),
        cmocka_unit_test(the_copy_outlives_the_journal),
        cmocka_unit_test(a_replay_leaves_out_what_is_not_due),
        cmocka_unit_test(a_replayed_event_on_disk_is_still_a_replay),
        cmocka_unit_test(a_paused_subscription_keeps_what_is_due),
        cmocka_unit_test(a_clock_that_was_ahead_delays_nothing),
        cmocka_unit_test(what_was_claimed_leaves_the_window_to_what_is_fresh),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
