/* Retention as transcripts on virtual time: what the journal and the dead letters forget, and what
 * they never do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/engine_world.h"

#define SECOND 1000
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)

static struct policy quick(enum lag_policy lag) {
    struct policy p = policy_default();
    p.lease_ms = 10 * HOUR;
    p.backoff_min_ms = p.backoff_max_ms = 8;
    p.lag = lag;
    return p;
}

static void open_with(struct world *w, enum lag_policy lag) {
    struct policy p = quick(lag);
    world_open(w);
    world_create(w, "s", NULL, &p, START_NEW);
    buf_clear(&w->log);
}

/* An event whose record has about 1 KiB. */
static void publish_1k(struct world *w, const char *type) {
    static const uint8_t body[900];
    struct event event = {.type = slice_str(type), .body = slice_of(body, sizeof body)};
    world_event(w, &event);
}

static void show_event(struct world *w, uint64_t seq) {
    struct event event;
    buf_printf(&w->log, "event %llu %s\n", (unsigned long long)seq,
               engine_event_get(w->engine, PROJECT_DEFAULT, seq, &event) ? "is there" : "is gone");
    store_end_reads(w->store);
}

static void old_events_go_and_the_newest_stays(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    world_retain(&w, HOUR, 0, 0);
    world_publish(&w, "t", "");
    world_wait(&w, 30 * MINUTE);
    world_publish(&w, "t", "");
    world_wait(&w, 30 * MINUTE);
    world_show_journal(&w);
    world_wait(&w, SECOND);
    world_show_journal(&w);
    show_event(&w, 1);
    show_event(&w, 2);
    world_wait(&w, 10 * HOUR); /* too old, but the next seq is known from it */
    world_show_journal(&w);
    world_crash(&w);
    world_publish(&w, "t", "");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1801000] published 2\n"
                 "journal: 1 to 2 trimmed 0\n"
                 "journal: 2 to 2 trimmed 1\n"
                 "event 1 is gone\n"
                 "event 2 is there\n"
                 "journal: 2 to 2 trimmed 1\n"
                 "[39602000] published 3\n");
    world_close(&w);
}

static void a_large_journal_loses_its_oldest(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    world_retain(&w, 0, 3 * KIB, 0);
    for (int i = 0; i < 10; i++) {
        publish_1k(&w, "t");
        struct engine_stats stats;
        engine_stats(w.engine, &stats);
        assert_in_range(stats.journal_bytes, 1, 3 * KIB);
    }
    buf_clear(&w.log);
    world_show_journal(&w);
    show_event(&w, 8);
    show_event(&w, 7);
    world_note(&w, "one that is larger than all: it stays until the next");
    static const uint8_t large[9 * KIB];
    struct event event = {.type = slice_str("t"), .body = slice_of(large, sizeof large)};
    world_event(&w, &event);
    world_show_journal(&w);
    publish_1k(&w, "t");
    world_wait(&w, SECOND);
    world_show_journal(&w);
    world_note(&w, "no limit any more");
    world_retain(&w, 0, 0, 0);
    for (int i = 0; i < 5; i++) publish_1k(&w, "t");
    world_wait(&w, HOUR);
    world_show_journal(&w);
    world_expect(&w,
                 "journal: 8 to 10 trimmed 7\n"
                 "event 8 is there\n"
                 "event 7 is gone\n"
                 "-- one that is larger than all: it stays until the next\n"
                 "[1000] published 11\n"
                 "journal: 10 to 11 trimmed 9\n"
                 "[1000] published 12\n"
                 "journal: 12 to 12 trimmed 11\n"
                 "-- no limit any more\n"
                 "[2000] published 13\n"
                 "[2000] published 14\n"
                 "[2000] published 15\n"
                 "[2000] published 16\n"
                 "[2000] published 17\n"
                 "journal: 12 to 17 trimmed 11\n");
    world_close(&w);
}

static void many_go_in_slices(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    open_with(&w, LAG_EXPIRE);
    for (int i = 0; i < 20; i++) world_publish_many(&w, "t", 1000);
    world_wait(&w, 2 * HOUR);
    struct retention r = {.max_age_ms = HOUR};
    engine_set_retention(w.engine, &r);
    struct engine_turn *turn = engine_end_turn(w.engine, w.time);
    int err = store_submit(w.store, &turn->batch);
    assert_int_equal(err, 0);
    struct engine_stats stats;
    engine_stats(w.engine, &stats);
    assert_in_range(stats.trimmed_total, 1, 10000); /* a turn stays short */
    world_turn(&w);
    world_show_journal(&w);
    world_show(&w, "s");
    world_expect(&w,
                 "journal: 20000 to 20000 trimmed 19999\n"
                 "s: floor 20000 next 20000 ready 0 leased 0 delayed 0 dead 0 idle no_workers "
                 "expired 19999\n");
    world_close(&w);
}

/* ---- block ---- */

static void a_blocking_subscription_stops_publishes_until_it_catches_up(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, LAG_BLOCK);
    world_retain(&w, 0, 3 * KIB, 0);
    for (int i = 0; i < 4; i++) publish_1k(&w, "t");
    world_show_journal(&w);
    publish_1k(&w, "t");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] published 2\n"
                 "[1000] published 3\n"
                 "[1000] published 4\n"
                 "journal: 1 to 4 trimmed 0 blocked by s\n"
                 "[1000] error blocked: the journal has its full size and subscription \"s\" still "
                 "needs its oldest events: nothing was taken; let it catch up, seek it forward, or "
                 "set its lag to expire\n");
    world_note(&w, "what is out does not block, what is unread does");
    world_attach(&w, 1, "s", 1, 0);
    world_wait(&w, SECOND);
    world_show_journal(&w);
    publish_1k(&w, "t");
    show_event(&w, 1); /* leased: its record stays */
    world_expect(&w,
                 "-- what is out does not block, what is unread does\n"
                 "[1000] attached 1 backlog 4\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "journal: 2 to 4 trimmed 1\n"
                 "[2000] published 5\n"
                 "event 1 is there\n");
    world_note(&w, "settled");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    show_event(&w, 1);
    world_wait(&w, SECOND);
    world_show_journal(&w);
    publish_1k(&w, "t");
    world_show(&w, "s");
    world_expect(&w,
                 "-- settled\n"
                 "[2000] 1 settled ok 1-1\n"
                 "[2000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "event 1 is gone\n"
                 "journal: 3 to 5 trimmed 2\n"
                 "[3000] published 6\n"
                 "s: floor 2 next 3 ready 0 leased 1 delayed 0 dead 0 idle window\n");
    world_close(&w);
}

static void a_block_ends_in_other_ways_too(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, LAG_BLOCK);
    world_retain(&w, 0, 2 * KIB, 0);
    for (int i = 0; i < 3; i++) publish_1k(&w, "t");
    buf_clear(&w.log);
    world_show_journal(&w);
    world_note(&w, "a seek");
    world_seek(&w, "s", START_NEW, 0);
    world_wait(&w, SECOND);
    for (int i = 0; i < 3; i++) publish_1k(&w, "t");
    world_show_journal(&w);
    world_note(&w, "another policy");
    struct policy p = quick(LAG_EXPIRE);
    world_update(&w, "s", &p);
    world_wait(&w, SECOND);
    world_show_journal(&w);
    world_show(&w, "s");
    p = quick(LAG_BLOCK);
    world_update(&w, "s", &p);
    for (int i = 0; i < 2; i++) publish_1k(&w, "t");
    world_show_journal(&w);
    world_note(&w, "its deletion");
    world_delete(&w, "s");
    world_wait(&w, SECOND);
    publish_1k(&w, "t");
    world_show_journal(&w);
    world_expect(&w,
                 "journal: 1 to 3 trimmed 0 blocked by s\n"
                 "-- a seek\n"
                 "[1000] done\n"
                 "[2000] published 4\n"
                 "[2000] published 5\n"
                 "[2000] published 6\n"
                 "journal: 4 to 6 trimmed 3 blocked by s\n"
                 "-- another policy\n"
                 "[2000] done\n"
                 "journal: 5 to 6 trimmed 4\n"
                 "s: floor 5 next 5 ready 0 leased 0 delayed 0 dead 0 idle no_workers expired 1\n"
                 "[3000] done\n"
                 "[3000] published 7\n"
                 "[3000] error blocked: the journal has its full size and subscription \"s\" still "
                 "needs its oldest events: nothing was taken; let it catch up, seek it forward, or "
                 "set its lag to expire\n"
                 "journal: 5 to 7 trimmed 4 blocked by s\n"
                 "-- its deletion\n"
                 "[3000] done\n"
                 "[4000] published 8\n"
                 "journal: 7 to 8 trimmed 6\n");
    world_close(&w);
}

static void a_backlog_that_does_not_match_does_not_block(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick(LAG_BLOCK);
    world_open(&w);
    world_retain(&w, 0, 3 * KIB, 0);
    publish_1k(&w, "other");
    world_create(&w, "s", "mine", &p, START_FIRST); /* no worker ever comes */
    for (int i = 0; i < 10; i++) publish_1k(&w, "other");
    buf_clear(&w.log);
    world_show_journal(&w);
    world_show(&w, "s");
    world_note(&w, "one that it wants: that blocks, and those before it do not");
    publish_1k(&w, "mine");
    for (int i = 0; i < 3; i++) publish_1k(&w, "other");
    world_show_journal(&w);
    world_show(&w, "s");
    publish_1k(&w, "other");
    world_expect(&w,
                 "journal: 9 to 11 trimmed 8\n"
                 "s: floor 12 next 12 ready 0 leased 0 delayed 0 dead 0 idle empty\n"
                 "-- one that it wants: that blocks, and those before it do not\n"
                 "[1000] published 12\n"
                 "[1000] published 13\n"
                 "[1000] published 14\n"
                 "[1000] published 15\n"
                 "journal: 12 to 15 trimmed 11 blocked by s\n"
                 "s: floor 12 next 12 ready 0 leased 0 delayed 0 dead 0 idle no_workers\n"
                 "[1000] error blocked: the journal has its full size and subscription \"s\" still "
                 "needs its oldest events: nothing was taken; let it catch up, seek it forward, or "
                 "set its lag to expire\n");
    world_close(&w);
}

static void by_age_a_blocking_subscription_keeps_but_does_not_refuse(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, LAG_BLOCK);
    world_retain(&w, HOUR, 0, 0);
    publish_1k(&w, "t");
    world_wait(&w, 2 * HOUR);
    publish_1k(&w, "t");
    world_wait(&w, SECOND);
    world_show_journal(&w);
    world_attach(&w, 1, "s", 10, 0);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_wait(&w, SECOND);
    world_show_journal(&w);
    world_expect(&w,
                 "[1000] published 1\n"
                 "[7201000] published 2\n"
                 "journal: 1 to 2 trimmed 0\n"
                 "[7202000] attached 1 backlog 2\n"
                 "[7202000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[7202000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[7202000] 1 settled ok 1-1\n"
                 "journal: 2 to 2 trimmed 1\n");
    world_close(&w);
}

static void the_slowest_one_is_named(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick(LAG_BLOCK);
    world_open(&w);
    world_create(&w, "quick", NULL, &p, START_NEW);
    world_create(&w, "slow", NULL, &p, START_NEW);
    world_attach(&w, 1, "quick", 100, 0);
    world_retain(&w, 0, 2 * KIB, 0);
    for (int i = 0; i < 4; i++) publish_1k(&w, "t");
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] done created\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] published 2\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[1000] published 3\n"
                 "[1000] 1 < tag 3 seq 3 t fails 0 deliveries 1\n"
                 "[1000] error blocked: the journal has its full size and subscription \"slow\" "
                 "still needs its oldest events: nothing was taken; let it catch up, seek it "
                 "forward, or set its lag to expire\n");
    world_close(&w);
}

/* ---- expire ---- */

static void what_an_expiring_subscription_loses_is_counted(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick(LAG_EXPIRE);
    world_open(&w);
    world_create(&w, "s", "mine", &p, START_NEW);
    world_retain(&w, 0, 3 * KIB, 0);
    for (int i = 0; i < 6; i++) publish_1k(&w, i % 2 == 0 ? "mine" : "other");
    buf_clear(&w.log);
    world_show_journal(&w);
    world_show(&w, "s");
    world_crash(&w);
    world_show(&w, "s");
    world_attach(&w, 1, "s", 10, 0);
    world_expect(&w,
                 "journal: 4 to 6 trimmed 3\n"
                 "s: floor 4 next 4 ready 0 leased 0 delayed 0 dead 0 idle no_workers expired 2\n"
                 "s: floor 4 next 4 ready 0 leased 0 delayed 0 dead 0 idle no_workers expired 2\n"
                 "[1000] attached 1 backlog 3\n"
                 "[1000] 1 < tag 1 seq 5 mine fails 0 deliveries 1\n");
    world_close(&w);
}

static void an_acked_hole_is_not_held(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, LAG_BLOCK);
    world_attach(&w, 1, "s", 10, 0);
    for (int i = 0; i < 6; i++) publish_1k(&w, "t");
    world_settle(&w, COMMAND_ACK, 1, 2, 3, true);
    world_nack(&w, 1, 4, NACK_REJECT, 0, "no use");
    world_nack(&w, 1, 5, NACK_FAIL, 5 * SECOND, "boom");
    buf_clear(&w.log);
    world_retain(&w, 0, 1 * KIB, 0);
    world_show_journal(&w);
    for (uint64_t seq = 1; seq <= 6; seq++) show_event(&w, seq);
    world_expect(&w,
                 "journal: 6 to 6 trimmed 5\n"
                 "event 1 is there\n"
                 "event 2 is gone\n"
                 "event 3 is gone\n"
                 "event 4 is gone\n"
                 "event 5 is there\n"
                 "event 6 is there\n");
    world_note(&w, "over a restart, and each goes when it is settled");
    world_crash(&w);
    world_retain(&w, 0, 1 * KIB, 0);
    world_show(&w, "s");
    world_attach(&w, 1, "s", 10, 0);
    world_settle(&w, COMMAND_ACK, 1, 1, 2, false); /* not confirmed: on disk with its record */
    show_event(&w, 1);
    world_crash(&w);
    world_retain(&w, 0, 1 * KIB, 0);
    world_show(&w, "s");
    world_attach(&w, 1, "s", 10, 0);
    world_wait(&w, 5 * SECOND);
    world_nack(&w, 1, 1, NACK_REJECT, 0, "no use");
    show_event(&w, 5);
    world_show_dead(&w, "s");
    world_show(&w, "s");
    world_expect(&w,
                 "-- over a restart, and each goes when it is settled\n"
                 "s: floor 1 next 7 ready 2 leased 0 delayed 1 dead 1 idle no_workers\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 6 t fails 0 deliveries 1\n"
                 "event 1 is gone\n"
                 "s: floor 5 next 7 ready 0 leased 0 delayed 1 dead 1 idle backoff\n"
                 "[1000] attached 1 backlog 0\n"
                 "[6000] 1 < tag 1 seq 5 t fails 1 deliveries 2\n"
                 "event 5 is gone\n"
                 "dead seq 4 rejected fails 0 deliveries 1 [/no use/]\n"
                 "dead seq 5 rejected fails 1 deliveries 2 [/no use/]\n"
                 "s: floor 7 next 7 ready 0 leased 0 delayed 0 dead 2 idle empty\n");
    world_close(&w);
}

static void a_record_stays_for_the_last_who_has_it(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick(LAG_EXPIRE);
    open_with(&w, LAG_EXPIRE);
    world_create(&w, "t", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 1, 0);
    world_attach(&w, 2, "t", 1, 0);
    publish_1k(&w, "t");
    world_task(&w, TASK_REPLAY, "s", 1, 1, 0, "");
    world_window(&w, 1, 2);
    publish_1k(&w, "t");
    world_retain(&w, 0, 1 * KIB, 0);
    world_show_journal(&w);
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] attached 2 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] 2 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] done created\n"
                 "[1000] 1 < tag 2 seq 1 t fails 0 deliveries 1 replay\n"
                 "[1000] published 2\n"
                 "journal: 2 to 2 trimmed 1\n");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    show_event(&w, 1);
    world_delete(&w, "t");
    show_event(&w, 1);
    world_settle(&w, COMMAND_ACK, 1, 2, 2, true);
    show_event(&w, 1);
    world_expect(&w,
                 "[1000] 1 settled ok 1-1\n"
                 "[1000] 1 < tag 3 seq 2 t fails 0 deliveries 1\n"
                 "event 1 is there\n"
                 "[1000] error deleted: the subscription was deleted\n"
                 "[1000] done\n"
                 "event 1 is there\n"
                 "[1000] 1 settled ok 2-2\n"
                 "event 1 is gone\n");
    world_close(&w);
}

static void a_seek_lets_go_of_what_was_out(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, LAG_BLOCK);
    world_attach(&w, 1, "s", 1, 0);
    for (int i = 0; i < 3; i++) publish_1k(&w, "t");
    buf_clear(&w.log);
    world_retain(&w, 0, 1 * KIB, 0);
    show_event(&w, 1);
    world_seek(&w, "s", START_NEW, 0);
    show_event(&w, 1);
    world_wait(&w, SECOND);
    world_show_journal(&w);
    world_seek(&w, "s", START_SEQ, 2);
    world_expect(
        &w,
        "event 1 is there\n"
        "[1000] 1 revoked tag 1 seek\n"
        "[1000] done\n"
        "event 1 is gone\n"
        "journal: 3 to 3 trimmed 2\n"
        "[2000] error out_of_range: seq 2 is outside the journal: the oldest is 3, the newest 3\n");
    world_close(&w);
}

/* ---- dead letters, replays, restarts ---- */

static void dead_letters_go_by_their_age(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, LAG_BLOCK);
    world_attach(&w, 1, "s", 10, 0);
    world_publish_many(&w, "t", 3);
    world_retain(&w, 0, 0, HOUR);
    world_nack(&w, 1, 1, NACK_REJECT, 0, "first");
    world_wait(&w, 30 * MINUTE);
    world_nack(&w, 1, 2, NACK_REJECT, 0, "second");
    buf_clear(&w.log);
    world_wait(&w, 30 * MINUTE);
    world_wait(&w, MINUTE);
    world_show_dead(&w, "s");
    world_show(&w, "s");
    world_wait(&w, 31 * MINUTE);
    world_show_dead(&w, "s");
    world_show(&w, "s");
    world_crash(&w);
    world_show(&w, "s");
    world_expect(&w,
                 "dead seq 2 rejected fails 0 deliveries 1 [/second/]\n"
                 "s: floor 3 next 4 ready 0 leased 1 delayed 0 dead 1 idle empty\n"
                 "s: floor 3 next 4 ready 0 leased 1 delayed 0 dead 0 idle empty\n"
                 "s: floor 3 next 4 ready 1 leased 0 delayed 0 dead 0 idle no_workers\n");
    world_close(&w);
}

static void a_dead_letter_outlives_the_journal(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, LAG_BLOCK);
    world_attach(&w, 1, "s", 10, 0);
    for (int i = 0; i < 2; i++) publish_1k(&w, "t");
    world_nack(&w, 1, 1, NACK_REJECT, 0, "no use");
    world_settle(&w, COMMAND_ACK, 1, 2, 2, true);
    publish_1k(&w, "t");
    buf_clear(&w.log);
    world_retain(&w, 0, 1 * KIB, 0);
    show_event(&w, 1);
    world_show_dead(&w, "s");
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 0, "");
    world_expect(&w,
                 "event 1 is gone\n"
                 "dead seq 1 rejected fails 0 deliveries 1 [/no use/]\n"
                 "[1000] done created\n"
                 "[1000] 1 < tag 4 seq 1 t fails 0 deliveries 2 redrive\n");
    world_close(&w);
}

static void a_replay_says_what_was_gone_before_it_came_there(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    struct policy p = quick(LAG_EXPIRE);
    for (int i = 0; i < 6; i++) publish_1k(&w, "t");
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 1, 0);
    buf_clear(&w.log);
    world_task(&w, TASK_REPLAY, "s", 1, 5, 0, "");
    world_retain(&w, 0, 3 * KIB, 0);
    world_show_journal(&w);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_show_task(&w, 2);
    world_task(&w, TASK_REPLAY, "s", 1, 5, 0, "");
    world_note(&w, "all of the rest is gone");
    for (int i = 0; i < 6; i++) publish_1k(&w, "t");
    world_window(&w, 1, 100);
    world_show_task(&w, 2);
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1 replay\n"
                 "journal: 4 to 6 trimmed 3\n"
                 "[1000] 1 settled ok 1-1\n"
                 "[1000] 1 < tag 2 seq 4 t fails 0 deliveries 1 replay\n"
                 "replay 2: running 1-5 next 5 matched 2 acked 1 expired 2\n"
                 "[1000] error out_of_range: no such range of events, 1 to 5: the oldest in the "
                 "journal is 4, the newest 6\n"
                 "-- all of the rest is gone\n"
                 "[1000] published 7\n"
                 "[1000] published 8\n"
                 "[1000] published 9\n"
                 "[1000] published 10\n"
                 "[1000] published 11\n"
                 "[1000] published 12\n"
                 "[1000] 1 < tag 3 seq 10 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 4 seq 11 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 5 seq 12 t fails 0 deliveries 1\n"
                 "replay 2: running 1-5 next 6 matched 2 acked 1 expired 3\n");
    world_close(&w);
}

static void a_restart_after_trimming_goes_on_where_it_was(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, LAG_BLOCK);
    world_create(&w, "never", "nothing", NULL, START_NEW);
    world_attach(&w, 1, "s", 10, 0);
    for (int i = 0; i < 6; i++) publish_1k(&w, "t");
    world_settle(&w, COMMAND_ACK, 1, 1, 6, true);
    world_retain(&w, 0, 1 * KIB, 0);
    buf_clear(&w.log);
    for (int i = 0; i < 2; i++) {
        world_crash(&w);
        world_show_journal(&w);
        world_show(&w, "s");
        world_retain(&w, 0, 1 * KIB, 0);
        world_attach(&w, 2, "never", 10, 0);
        world_show(&w, "never");
        publish_1k(&w, "t"); /* no seq is given out twice */
    }
    world_create(&w, "first", NULL, NULL, START_FIRST);
    world_show(&w, "first");
    world_create(&w, "seq", NULL, NULL, START_SEQ);
    world_expect(
        &w,
        "journal: 6 to 6 trimmed 0\n"
        "s: floor 7 next 7 ready 0 leased 0 delayed 0 dead 0 idle empty\n"
        "[1000] attached 2 backlog 0\n"
        "never: floor 7 next 7 ready 0 leased 0 delayed 0 dead 0 idle empty\n"
        "[1000] published 7\n"
        "journal: 6 to 7 trimmed 0\n"
        "s: floor 7 next 7 ready 0 leased 0 delayed 0 dead 0 idle no_workers\n"
        "[1000] attached 2 backlog 0\n"
        "never: floor 8 next 8 ready 0 leased 0 delayed 0 dead 0 idle empty\n"
        "[1000] published 8\n"
        "[1000] done created\n"
        "first: floor 7 next 7 ready 0 leased 0 delayed 0 dead 0 idle no_workers\n"
        "[1000] error out_of_range: seq 0 is outside the journal: the oldest is 7, the newest 8\n");
    world_close(&w);
}

static void an_id_is_forgotten_with_its_event(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    world_retain(&w, HOUR, 0, 0);
    world_publish(&w, "t", "same");
    world_publish(&w, "t", "other");
    world_wait(&w, 2 * HOUR);
    world_show_journal(&w);
    world_publish(&w, "t", "other");
    world_publish(&w, "t", "same");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] published 2\n"
                 "journal: 2 to 2 trimmed 1\n"
                 "[7201000] published 2 duplicate\n"
                 "[7201000] published 3\n");
    world_close(&w);
}

/* Sought back to, it dies again in the very turn that removes its first dead letter. */
static void dying_again_while_the_first_letter_goes_leaves_the_second(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, LAG_BLOCK);
    world_retain(&w, 0, 0, 30 * SECOND);
    world_attach(&w, 1, "s", 10, 0);
    world_publish(&w, "t", "");
    world_nack(&w, 1, 1, NACK_REJECT, 0, "first");
    world_seek(&w, "s", START_SEQ, 1);
    buf_clear(&w.log);
    w.time.now_ms += 60 * SECOND; /* between two walks over the dead letters */
    w.time.wall_ms += 60 * SECOND;
    world_nack(&w, 1, 2, NACK_REJECT, 0, "second");
    world_show(&w, "s");
    world_show_dead(&w, "s");
    world_note(&w, "it goes in its own time");
    world_wait(&w, 60 * SECOND);
    world_show(&w, "s");
    world_show_dead(&w, "s");
    world_expect(&w,
                 "s: floor 2 next 2 ready 0 leased 0 delayed 0 dead 1 idle empty\n"
                 "dead seq 1 rejected fails 0 deliveries 1 [/second/]\n"
                 "-- it goes in its own time\n"
                 "s: floor 2 next 2 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

/* After a crash many are behind that want none of it: reading ahead for all of them takes more than
 * one slice, and meanwhile nobody is to blame. */
static void many_that_want_nothing_do_not_block(void **state) {
    static const char *const names[] = {"s0", "s1", "s2", "s3"};
    (void)state;
    struct world w = {.quiet = true};
    world_open(&w);
    for (int i = 0; i < 4; i++) world_create(&w, names[i], "rare", NULL, START_NEW);
    for (int i = 0; i < 9; i++) world_publish_many(&w, "t", 1000);
    world_crash(&w);
    w.quiet = false;
    world_retain(&w, 0, 100000, 0);
    world_show_journal(&w);
    world_publish(&w, "t", "");
    world_expect(&w,
                 "journal: 7613 to 9000 trimmed 7612\n"
                 "[1000] published 9001\n");
    world_close(&w);
}

static void a_count_says_what_was_gone_before_it_came_there(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct task_info t;
    world_open(&w);
    world_create(&w, "s", NULL, NULL, START_NEW);
    for (int i = 0; i < 20; i++) world_publish_many(&w, "t", 1000);
    world_delete(&w, "s"); /* its backlog holds nothing, but the count needs one */
    world_create(&w, "s", NULL, NULL, START_NEW);
    for (int i = 0; i < 2; i++) { /* the second has its turn when the first is through */
        struct command c = {.kind = COMMAND_TASK_CREATE, .project = PROJECT_DEFAULT};
        c.u.task.kind = TASK_COUNT;
        c.u.task.name = slice_str("s");
        world_step(&w, &c);
    }
    struct retention r = {.max_bytes = 1000};
    engine_set_retention(w.engine, &r);
    world_turn(&w);
    assert_true(engine_task_next(w.engine, PROJECT_DEFAULT, 0, &t));
    assert_true(engine_task_next(w.engine, PROJECT_DEFAULT, t.id, &t));
    assert_true(t.finished_at_ms != 0 && t.expired > 0 && t.matched > 0);
    assert_int_equal(t.matched + t.expired, 20000);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_events_go_and_the_newest_stays),
        cmocka_unit_test(a_large_journal_loses_its_oldest),
        cmocka_unit_test(many_go_in_slices),
        cmocka_unit_test(a_blocking_subscription_stops_publishes_until_it_catches_up),
        cmocka_unit_test(a_block_ends_in_other_ways_too),
        cmocka_unit_test(a_backlog_that_does_not_match_does_not_block),
        cmocka_unit_test(many_that_want_nothing_do_not_block),
        cmocka_unit_test(a_count_says_what_was_gone_before_it_came_there),
        cmocka_unit_test(by_age_a_blocking_subscription_keeps_but_does_not_refuse),
        cmocka_unit_test(the_slowest_one_is_named),
        cmocka_unit_test(what_an_expiring_subscription_loses_is_counted),
        cmocka_unit_test(an_acked_hole_is_not_held),
        cmocka_unit_test(a_record_stays_for_the_last_who_has_it),
        cmocka_unit_test(a_seek_lets_go_of_what_was_out),
        cmocka_unit_test(dead_letters_go_by_their_age),
        cmocka_unit_test(dying_again_while_the_first_letter_goes_leaves_the_second),
        cmocka_unit_test(a_dead_letter_outlives_the_journal),
        cmocka_unit_test(a_replay_says_what_was_gone_before_it_came_there),
        cmocka_unit_test(a_restart_after_trimming_goes_on_where_it_was),
        cmocka_unit_test(an_id_is_forgotten_with_its_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
