/* What is handed out when and to whom, as transcripts on virtual time: fair shares, windows, pause,
 * rate, why nothing moves, policies that change, and seeking. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/engine_world.h"

/* ---- fairness ---- */

static void what_comes_again_takes_half_of_a_window_while_fresh_waits(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 4, 0);
    world_publish_many(&w, "old", 4);
    for (uint64_t tag = 1; tag <= 4; tag++) world_nack(&w, 1, tag, NACK_RELEASE, 8, "");
    world_window(&w, 1, 0);
    world_publish_many(&w, "fresh", 6);
    world_wait(&w, 8);
    buf_clear(&w.log);
    world_window(&w, 1, 4);
    world_expect(&w,
                 "[1008] 1 < tag 5 seq 1 old fails 0 deliveries 2\n"
                 "[1008] 1 < tag 6 seq 5 fresh fails 0 deliveries 1\n"
                 "[1008] 1 < tag 7 seq 2 old fails 0 deliveries 2\n"
                 "[1008] 1 < tag 8 seq 6 fresh fails 0 deliveries 1\n");
    world_note(&w, "one kind is slow: it gets no more than its half");
    world_settle(&w, COMMAND_ACK, 1, 6, 6, false);
    world_settle(&w, COMMAND_ACK, 1, 8, 8, false);
    world_expect(&w,
                 "-- one kind is slow: it gets no more than its half\n"
                 "[1008] 1 < tag 9 seq 7 fresh fails 0 deliveries 1\n"
                 "[1008] 1 < tag 10 seq 8 fresh fails 0 deliveries 1\n");
    world_note(&w, "so it is the other way round");
    world_settle(&w, COMMAND_ACK, 1, 5, 5, false);
    world_settle(&w, COMMAND_ACK, 1, 7, 7, false);
    world_expect(&w,
                 "-- so it is the other way round\n"
                 "[1008] 1 < tag 11 seq 3 old fails 0 deliveries 2\n"
                 "[1008] 1 < tag 12 seq 4 old fails 0 deliveries 2\n");
    world_note(&w, "alone, either takes all of the window");
    world_settle(&w, COMMAND_ACK, 1, 11, 12, false);
    world_expect(&w,
                 "-- alone, either takes all of the window\n"
                 "[1008] 1 < tag 13 seq 9 fresh fails 0 deliveries 1\n"
                 "[1008] 1 < tag 14 seq 10 fresh fails 0 deliveries 1\n");
    world_close(&w);
}

/* A worker with a window of 20 that takes 10 ms for what it has: it fails poison, acks the rest. */
struct burst {
    uint64_t poison, fresh; /* hand-outs */
    uint64_t tags[64];
    bool is_poison[64];
    size_t count;
};

static void note_burst(void *ctx, const struct effect *e) {
    struct burst *b = ctx;
    if (e->kind != EFFECT_DELIVER) return;
    bool poison = slice_eq_str(e->u.deliver.event.type, "poison");
    b->poison += poison;
    b->fresh += !poison;
    b->tags[b->count] = e->u.deliver.tag;
    b->is_poison[b->count++] = poison;
}

static void work_one_round(struct world *w, struct burst *b) {
    struct burst now = *b;
    b->count = 0;
    w->time.now_ms += 10;
    w->time.wall_ms += 10;
    for (size_t i = 0; i < now.count; i++) {
        struct tag_range r = {now.tags[i], now.tags[i]};
        struct command c = {.kind = now.is_poison[i] ? COMMAND_NACK : COMMAND_ACK};
        c.u.settle.attachment = 1;
        c.u.settle.ranges = &r;
        c.u.settle.count = 1;
        c.u.settle.kind = NACK_FAIL;
        c.u.settle.delay_ms = DELAY_BY_POLICY;
        world_step(w, &c);
    }
    world_turn(w);
}

static int rounds_for_fresh(struct world *w, struct burst *b, uint64_t fresh) {
    int rounds = 0;
    for (; b->fresh < fresh; rounds++) work_one_round(w, b);
    return rounds;
}

static void a_poison_burst_does_not_stop_fresh_events(void **state) {
    (void)state;
    struct burst b = {0};
    struct world w = {.quiet = true, .on_effect = note_burst, .on_effect_ctx = &b};
    struct policy p = world_policy();
    p.max_fails = 0;
    world_open(&w);
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 20, 0);
    world_publish_many(&w, "fresh", 1000);
    int alone = rounds_for_fresh(&w, &b, 1000);
    for (int i = 0; i < 10; i++) world_publish_many(&w, "poison", 1000);
    struct subscription_info s = {.backlog = 1}; /* until all of it has failed, and comes again */
    while (s.backlog > 0) {
        work_one_round(&w, &b);
        assert_true(engine_subscription_get(w.engine, PROJECT_DEFAULT, slice_str("s"), &s));
        store_end_reads(w.store);
    }
    world_publish_many(&w, "fresh", 1000);
    int beside = rounds_for_fresh(&w, &b, 2000);
    assert_in_range(beside, alone, 2 * alone + 2); /* they have half of the window for sure */
    world_close(&w);
}

static void workers_take_turns(void **state) {
    (void)state;
    struct world w = {0};
    world_open_with(&w, NULL);
    for (uint64_t i = 1; i <= 3; i++) world_attach(&w, i, "s", i == 2 ? 1 : 3, 0);
    world_publish_many(&w, "t", 7);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] attached 2 backlog 0\n"
                 "[1000] attached 3 backlog 0\n"
                 "[1000] published 1 2 3 4 5 6 7\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] 2 < tag 1 seq 2 t fails 0 deliveries 1\n"
                 "[1000] 3 < tag 1 seq 3 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 4 t fails 0 deliveries 1\n"
                 "[1000] 3 < tag 2 seq 5 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 3 seq 6 t fails 0 deliveries 1\n"
                 "[1000] 3 < tag 3 seq 7 t fails 0 deliveries 1\n");
    world_close(&w);
}

static void a_window_counts_bytes_and_one_event_may_pass_it(void **state) {
    (void)state;
    static uint8_t bytes[3000];
    struct world w = {0};
    world_open_with(&w, NULL);
    struct command c = attach_command(1, "s", 10, 0);
    c.u.attach.window_bytes = 1000;
    world_run(&w, &c);
    struct event event = {.type = slice_str("t"), .body = slice_of(bytes, 600)};
    for (int i = 0; i < 3; i++) world_event(&w, &event); /* 600, 1200: full */
    event.body.len = sizeof bytes;
    world_event(&w, &event);
    world_show(&w, "s");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, false); /* 600 are out: one more */
    world_settle(&w, COMMAND_ACK, 1, 2, 3, false); /* larger than the window, alone */
    world_publish(&w, "t", "");
    world_show(&w, "s");
    world_settle(&w, COMMAND_ACK, 1, 4, 4, false);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] published 2\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[1000] published 3\n"
                 "[1000] published 4\n"
                 "s: floor 1 next 3 ready 0 leased 2 delayed 0 dead 0 idle window\n"
                 "[1000] 1 < tag 3 seq 3 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 4 seq 4 t fails 0 deliveries 1\n"
                 "[1000] published 5\n"
                 "s: floor 4 next 5 ready 0 leased 1 delayed 0 dead 0 idle window\n"
                 "[1000] 1 < tag 5 seq 5 t fails 0 deliveries 1\n");
    world_close(&w);
}

static void a_worker_whose_socket_does_not_drain_is_held(void **state) {
    (void)state;
    struct world w = {0};
    world_open_with(&w, NULL);
    world_attach(&w, 1, "s", 10, 0);
    struct command c = {.kind = COMMAND_HOLD};
    c.u.hold.attachment = 1;
    c.u.hold.hold = true;
    world_run(&w, &c);
    world_publish(&w, "t", "");
    world_show(&w, "s");
    c.u.hold.hold = false;
    world_run(&w, &c);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "s: floor 1 next 1 ready 0 leased 0 delayed 0 dead 0 idle window\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n");
    world_close(&w);
}

/* ---- pause, rate, why ---- */

static void a_paused_subscription_keeps_its_queue_also_over_a_restart(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 2, 0);
    world_publish_many(&w, "t", 4);
    world_pause(&w, "s", true);
    world_pause(&w, "nothing", true);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true); /* what is out can be settled */
    world_nack(&w, 1, 2, NACK_FAIL, DELAY_BY_POLICY, "boom");
    world_wait(&w, 8);
    world_show(&w, "s");
    world_crash(&w);
    world_attach(&w, 1, "s", 2, 0);
    world_publish(&w, "t", "");
    world_wait(&w, 100);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3 4\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[1000] done\n"
                 "[1000] error not_found: there is no subscription \"nothing\": create it, or "
                 "check the name\n"
                 "[1000] 1 settled ok 1-1\n"
                 "s: floor 2 next 3 ready 1 leased 0 delayed 0 dead 0 idle paused\n"
                 "[1008] attached 1 backlog 2\n"
                 "[1008] published 5\n"
                 "s: floor 2 next 3 ready 1 leased 0 delayed 0 dead 0 idle paused\n");
    world_pause(&w, "s", false);
    world_crash(&w);
    world_attach(&w, 1, "s", 1, 0);
    world_expect(&w,
                 "[1108] done\n"
                 "[1108] 1 < tag 1 seq 2 t fails 1 deliveries 2\n"
                 "[1108] 1 < tag 2 seq 3 t fails 0 deliveries 1\n"
                 "[1108] attached 1 backlog 2\n"
                 "[1108] 1 < tag 1 seq 2 t fails 1 deliveries 2\n");
    world_close(&w);
}

static void a_rate_limit_spreads_hand_outs_evenly(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    p.rate_per_s = 10;
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 100, 0);
    world_publish_many(&w, "t", 4);
    world_show(&w, "s");
    for (int ms = 0; ms < 500; ms += 10) world_wait(&w, 10);
    world_nack(&w, 1, 4, NACK_RELEASE, DELAY_BY_POLICY, ""); /* what comes again counts too */
    world_nack(&w, 1, 3, NACK_RELEASE, DELAY_BY_POLICY, "");
    world_wait(&w, 49);
    world_wait(&w, 1);
    world_wait(&w, 100);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3 4\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "s: floor 1 next 2 ready 0 leased 1 delayed 0 dead 0 idle rate\n"
                 "[1050] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[1150] 1 < tag 3 seq 3 t fails 0 deliveries 1\n"
                 "[1250] 1 < tag 4 seq 4 t fails 0 deliveries 1\n"
                 "[1500] 1 < tag 5 seq 4 t fails 0 deliveries 2\n"
                 "[1550] 1 < tag 6 seq 3 t fails 0 deliveries 2\n");
    world_close(&w);
}

static void a_rate_limit_holds_over_a_long_time(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct policy p = world_policy();
    p.rate_per_s = 300;
    world_open(&w);
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 10000, 0);
    for (int i = 0; i < 4; i++) world_publish_many(&w, "t", 1000);
    uint64_t end = w.time.now_ms + 10000;
    while (w.time.now_ms < end) {
        uint64_t at = engine_next_deadline(w.engine, w.time);
        world_wait(&w, at < end ? at - w.time.now_ms : end - w.time.now_ms);
        world_settle(&w, COMMAND_ACK, 1, 1, 1, false);
    }
    struct engine_stats stats;
    engine_stats(w.engine, &stats);
    assert_in_range(stats.totals.delivered, 3000, 3000 + 300 / 20 + 1); /* and 50 ms ahead */
    world_close(&w);
}

static void every_reason_for_idleness_is_named(void **state) {
    (void)state;
    struct world w = {.options = {.outstanding_max = 3, .turn_scan_events = 10}};
    struct policy p = world_policy();
    p.rate_per_s = 10;
    world_open_with(&w, &p);
    world_show(&w, "s"); /* empty */
    world_publish_many(&w, "t", 6);
    world_show(&w, "s"); /* no_workers */
    world_attach(&w, 1, "s", 1, 0);
    world_show(&w, "s"); /* window */
    world_window(&w, 1, 9);
    world_show(&w, "s"); /* rate */
    world_pause(&w, "s", true);
    world_show(&w, "s"); /* paused */
    world_pause(&w, "s", false);
    p.rate_per_s = 0;
    world_update(&w, "s", &p);
    world_show(&w, "s"); /* cap */
    world_settle(&w, COMMAND_ACK, 1, 1, 3, false);
    world_settle(&w, COMMAND_ACK, 1, 4, 5, false);
    world_nack(&w, 1, 6, NACK_FAIL, 5000, "boom");
    world_show(&w, "s"); /* backoff */
    world_expect(&w,
                 "s: floor 1 next 1 ready 0 leased 0 delayed 0 dead 0 idle empty\n"
                 "[1000] published 1 2 3 4 5 6\n"
                 "s: floor 1 next 1 ready 0 leased 0 delayed 0 dead 0 idle no_workers\n"
                 "[1000] attached 1 backlog 6\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "s: floor 1 next 2 ready 0 leased 1 delayed 0 dead 0 idle window\n"
                 "s: floor 1 next 2 ready 0 leased 1 delayed 0 dead 0 idle rate\n"
                 "[1000] done\n"
                 "s: floor 1 next 2 ready 0 leased 1 delayed 0 dead 0 idle paused\n"
                 "[1000] done\n"
                 "[1000] done\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 3 seq 3 t fails 0 deliveries 1\n"
                 "s: floor 1 next 4 ready 0 leased 3 delayed 0 dead 0 idle cap\n"
                 "[1000] 1 < tag 4 seq 4 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 5 seq 5 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 6 seq 6 t fails 0 deliveries 1\n"
                 "s: floor 6 next 7 ready 0 leased 0 delayed 1 dead 0 idle backoff\n");
    world_note(&w, "an ordered one");
    p.ordered = true;
    world_create(&w, "o", NULL, &p, START_NEW);
    world_attach(&w, 2, "o", 9, 0);
    world_publish_due(&w, "t", "k", 0);
    world_publish_due(&w, "t", "k", 0);
    world_show(&w, "o"); /* order */
    world_expect(&w,
                 "-- an ordered one\n"
                 "[1000] done created\n"
                 "[1000] attached 2 backlog 0\n"
                 "[1000] published 7\n"
                 "[1000] 1 < tag 7 seq 7 t fails 0 deliveries 1\n"
                 "[1000] 2 < tag 1 seq 7 t fails 0 deliveries 1\n"
                 "[1000] published 8\n"
                 "[1000] 1 < tag 8 seq 8 t fails 0 deliveries 1\n"
                 "o: floor 7 next 9 ready 0 leased 1 delayed 0 dead 0 idle order blocked 1\n");
    world_close(&w);
}

/* A turn looks at so much of the journal and no more: in between, it says that it is looking. */
static void what_comes_again_and_what_was_delayed_take_turns(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 4, 0);
    world_publish_many(&w, "again", 2);
    for (int i = 0; i < 2; i++) world_publish_due(&w, "due", "", 1000);
    for (uint64_t tag = 1; tag <= 2; tag++) world_nack(&w, 1, tag, NACK_RELEASE, 1000, "");
    world_window(&w, 1, 0);
    world_wait(&w, 1000);
    buf_clear(&w.log);
    world_window(&w, 1, 4);
    world_expect(&w,
                 "[2000] 1 < tag 3 seq 3 due fails 0 deliveries 1\n"
                 "[2000] 1 < tag 4 seq 1 again fails 0 deliveries 2\n"
                 "[2000] 1 < tag 5 seq 4 due fails 0 deliveries 1\n"
                 "[2000] 1 < tag 6 seq 2 again fails 0 deliveries 2\n");
    world_close(&w);
}

static void a_subscription_that_looks_for_a_match_says_so(void **state) {
    (void)state;
    struct world w = {.quiet = true, .options = {.turn_scan_events = 10}};
    world_open(&w);
    world_publish_many(&w, "other", 25);
    world_create(&w, "s", "mine", NULL, START_FIRST);
    struct command c = attach_command(1, "s", 1, 0);
    world_step(&w, &c);
    struct engine_turn *turn = engine_end_turn(w.engine, w.time);
    int err = store_submit(w.store, &turn->batch);
    assert_int_equal(err, 0);
    world_show(&w, "s");
    world_turn(&w);
    world_show(&w, "s");
    world_expect(&w,
                 "s: floor 11 next 11 ready 0 leased 0 delayed 0 dead 0 idle scanning\n"
                 "s: floor 26 next 26 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

static void show_counters(struct world *w, const char *name) {
    struct subscription_info s;
    assert_true(engine_subscription_get(w->engine, PROJECT_DEFAULT, slice_str(name), &s));
    store_end_reads(w->store);
    buf_printf(&w->log, "%s: oldest %llu in %.2f out %.2f acked %llu dead %llu backlog %llu\n",
               name, (unsigned long long)s.oldest_ms, s.in_per_s, s.out_per_s,
               (unsigned long long)s.acked_total, (unsigned long long)s.dead_total,
               (unsigned long long)s.backlog);
}

static void ages_and_rates_are_told(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    world_open(&w);
    world_create(&w, "s", "t", NULL, START_NEW);
    world_wait(&w, 9000); /* a window of the meters begins */
    show_counters(&w, "s");
    world_attach(&w, 1, "s", 8, 0);
    world_publish_many(&w, "t", 10);
    world_publish_many(&w, "other", 5);
    world_wait(&w, 4000);
    show_counters(&w, "s");
    world_publish_many(&w, "t", 2);
    world_settle(&w, COMMAND_ACK, 1, 1, 5, true);
    world_settle(&w, COMMAND_ACK, 1, 7, 8, true);
    world_nack(&w, 1, 6, NACK_REJECT, 0, "no use");
    world_wait(&w, 1000);
    show_counters(&w, "s"); /* 12 in, 7 out in ten seconds; the oldest is the ninth */
    world_wait(&w, 10000);
    show_counters(&w, "s"); /* the window before counts by what of it is within ten seconds */
    world_wait(&w, 10000);
    show_counters(&w, "s");
    world_settle(&w, COMMAND_ACK, 1, 9, 12, true);
    world_restart(&w);
    show_counters(&w, "s");
    world_expect(&w,
                 "s: oldest 0 in 0.00 out 0.00 acked 0 dead 0 backlog 0\n"
                 "s: oldest 4000 in 1.00 out 0.00 acked 0 dead 0 backlog 7\n"
                 "s: oldest 5000 in 1.20 out 0.70 acked 7 dead 1 backlog 0\n"
                 "s: oldest 15000 in 0.60 out 0.35 acked 7 dead 1 backlog 0\n"
                 "s: oldest 25000 in 0.00 out 0.00 acked 7 dead 1 backlog 0\n"
                 "s: oldest 0 in 0.00 out 0.00 acked 11 dead 1 backlog 0\n");
    world_close(&w);
}

/* ---- policies that change, seeking ---- */

static void an_updated_policy_counts_from_then_on(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 2, 0);
    world_publish(&w, "a", "");
    p.lease_ms = 500;
    p.filter = slice_str("{\"types\":[\"b\"]}");
    world_update(&w, "s", &p);
    world_update(&w, "nothing", &p);
    world_publish(&w, "a", ""); /* not wanted any more */
    world_publish(&w, "b", "");
    world_wait(&w, 500); /* the new lease is short, the old one goes on */
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 a fails 0 deliveries 1\n"
                 "[1000] done\n"
                 "[1000] error not_found: there is no subscription \"nothing\": create it, or "
                 "check the name\n"
                 "[1000] published 2\n"
                 "[1000] published 3\n"
                 "[1000] 1 < tag 2 seq 3 b fails 0 deliveries 1\n"
                 "[1500] 1 revoked tag 2 expired\n"
                 "s: floor 1 next 4 ready 0 leased 1 delayed 1 dead 0 idle backoff\n");
    world_note(&w, "what cannot be is refused");
    p.max_hold_ms = 499;
    world_update(&w, "s", &p);
    p = world_policy();
    p.filter = slice_str("{\"types\":[\"b\"");
    world_update(&w, "s", &p);
    p = world_policy();
    p.ordered = true;
    world_update(&w, "s", &p); /* events are out */
    world_settle(&w, COMMAND_ACK, 1, 1, 2, true);
    world_update(&w, "s", &p);
    world_crash(&w);
    world_attach(&w, 1, "s", 2, 0);
    world_publish_due(&w, "x", "k", 0);
    world_publish_due(&w, "x", "k", 0);
    world_show(&w, "s");
    world_expect(
        &w,
        "-- what cannot be is refused\n"
        "[1500] error bad_policy: max_hold_ms: must not be below lease_ms: a lease could never run "
        "its time\n"
        "[1500] error bad_filter: filter: not JSON: line 1, column 14: parse error: premature EOF\n"
        "[1500] error policy_mismatch: order: 2 events of \"s\" are out or wait to be delivered "
        "again: pause it and let them settle first\n"
        "[1500] 1 settled ok 1-2\n"
        "[1500] done\n"
        "[1500] attached 1 backlog 0\n"
        "[1500] published 4\n"
        "[1500] 1 < tag 1 seq 4 x fails 0 deliveries 1\n"
        "[1500] published 5\n"
        "s: floor 4 next 6 ready 0 leased 1 delayed 0 dead 0 idle order blocked 1\n");
    world_close(&w);
}

static void seeking_forward_and_back(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = world_policy();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 2, 0);
    world_publish_many(&w, "t", 5);
    world_nack(&w, 1, 1, NACK_FAIL, 1000, "boom");
    buf_clear(&w.log);
    world_note(&w, "forward: what is out is revoked, what waits is forgotten");
    world_seek(&w, "s", START_SEQ, 5);
    world_show(&w, "s");
    world_settle(&w, COMMAND_ACK, 1, 2, 3, true); /* means nothing any more */
    world_show(&w, "s");
    world_expect(&w,
                 "-- forward: what is out is revoked, what waits is forgotten\n"
                 "[1000] 1 revoked tag 2 seek\n"
                 "[1000] 1 revoked tag 3 seek\n"
                 "[1000] done\n"
                 "s: floor 5 next 5 ready 0 leased 0 delayed 0 dead 0 idle window\n"
                 "[1000] 1 settled stale 2-3\n"
                 "[1000] 1 < tag 4 seq 5 t fails 0 deliveries 1\n"
                 "s: floor 5 next 6 ready 0 leased 1 delayed 0 dead 0 idle empty\n");
    world_note(&w, "back: it comes again, as if for the first time");
    world_wait(&w, 1000);
    world_seek(&w, "s", START_SEQ, 1);
    world_crash(&w);
    world_show(&w, "s");
    world_attach(&w, 1, "s", 1, 0);
    world_expect(&w,
                 "-- back: it comes again, as if for the first time\n"
                 "[2000] 1 revoked tag 4 seek\n"
                 "[2000] done\n"
                 "[2000] 1 < tag 5 seq 1 t fails 0 deliveries 1\n"
                 "s: floor 1 next 2 ready 1 leased 0 delayed 0 dead 0 idle no_workers\n"
                 "[2000] attached 1 backlog 4\n"
                 "[2000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n");
    world_note(&w, "to the end, to the beginning, to a time, and out of the journal");
    world_seek(&w, "s", START_NEW, 0);
    world_show(&w, "s");
    world_seek(&w, "s", START_FIRST, 0);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, false); /* there is room in its window again */
    world_wait(&w, 500);
    world_seek(&w, "s", START_TIME, w.time.wall_ms);
    world_show(&w, "s");
    world_settle(&w, COMMAND_ACK, 1, 2, 2, false);
    world_seek(&w, "s", START_TIME, w.time.wall_ms - 1500);
    world_seek(&w, "s", START_SEQ, 6);
    world_seek(&w, "s", START_SEQ, 7);
    world_seek(&w, "s", START_SEQ, 0);
    world_seek(&w, "nothing", START_NEW, 0);
    world_expect(
        &w,
        "-- to the end, to the beginning, to a time, and out of the journal\n"
        "[2000] 1 revoked tag 1 seek\n"
        "[2000] done\n"
        "s: floor 6 next 6 ready 0 leased 0 delayed 0 dead 0 idle empty\n"
        "[2000] done\n"
        "[2000] 1 < tag 2 seq 1 t fails 0 deliveries 1\n"
        "[2500] 1 revoked tag 2 seek\n"
        "[2500] done\n"
        "s: floor 6 next 6 ready 0 leased 0 delayed 0 dead 0 idle empty\n"
        "[2500] done\n"
        "[2500] 1 < tag 3 seq 1 t fails 0 deliveries 1\n"
        "[2500] 1 revoked tag 3 seek\n"
        "[2500] done\n"
        "[2500] error out_of_range: seq 7 is outside the journal: the oldest is 1, the newest 5\n"
        "[2500] error out_of_range: seq 0 is outside the journal: the oldest is 1, the newest 5\n"
        "[2500] error not_found: there is no subscription \"nothing\": create it, or check the "
        "name\n");
    world_close(&w);
}

/* The live position is older than the replay's: what was acked since is out again beside it. */
static void a_restart_may_find_more_than_the_cap(void **state) {
    (void)state;
    struct world w = {.options = {.outstanding_max = 4}};
    struct policy p = world_policy();
    world_open_with(&w, &p);
    world_publish_many(&w, "x", 4);
    world_attach(&w, 1, "s", 20, 0);
    world_wait(&w, 50);
    world_settle(&w, COMMAND_ACK, 1, 1, 4, false);
    world_task(&w, TASK_REPLAY, "s", 1, 4, 0, "");
    world_nack(&w, 1, 5, NACK_FAIL, 8, "");
    buf_clear(&w.log);
    world_crash(&w);
    world_show(&w, "s");
    world_attach(&w, 2, "s", 20, 0);
    world_publish(&w, "x", "");
    world_note(&w, "nothing fresh until there are fewer than the cap");
    world_settle(&w, COMMAND_ACK, 2, 1, 4, true);
    world_settle(&w, COMMAND_ACK, 2, 5, 5, true);
    world_expect(&w,
                 "s: floor 1 next 5 ready 7 leased 0 delayed 1 dead 0 idle no_workers\n"
                 "[1050] attached 2 backlog 0\n"
                 "[1050] 2 < tag 1 seq 1 x fails 0 deliveries 1\n"
                 "[1050] 2 < tag 2 seq 2 x fails 0 deliveries 1\n"
                 "[1050] 2 < tag 3 seq 3 x fails 0 deliveries 1\n"
                 "[1050] 2 < tag 4 seq 4 x fails 0 deliveries 1\n"
                 "[1050] 2 < tag 5 seq 2 x fails 0 deliveries 1 replay\n"
                 "[1050] 2 < tag 6 seq 3 x fails 0 deliveries 1 replay\n"
                 "[1050] 2 < tag 7 seq 4 x fails 0 deliveries 1 replay\n"
                 "[1050] published 5\n"
                 "-- nothing fresh until there are fewer than the cap\n"
                 "[1050] 2 settled ok 1-4\n"
                 "[1050] 2 settled ok 5-5\n"
                 "[1050] 2 < tag 8 seq 5 x fails 0 deliveries 1\n");
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_again_takes_half_of_a_window_while_fresh_waits),
        cmocka_unit_test(what_comes_again_and_what_was_delayed_take_turns),
        cmocka_unit_test(a_poison_burst_does_not_stop_fresh_events),
        cmocka_unit_test(workers_take_turns),
        cmocka_unit_test(a_window_counts_bytes_and_one_event_may_pass_it),
        cmocka_unit_test(a_worker_whose_socket_does_not_drain_is_held),
        cmocka_unit_test(a_paused_subscription_keeps_its_queue_also_over_a_restart),
        cmocka_unit_test(a_rate_limit_spreads_hand_outs_evenly),
        cmocka_unit_test(a_rate_limit_holds_over_a_long_time),
        cmocka_unit_test(every_reason_for_idleness_is_named),
        cmocka_unit_test(a_subscription_that_looks_for_a_match_says_so),
        cmocka_unit_test(ages_and_rates_are_told),
        cmocka_unit_test(an_updated_policy_counts_from_then_on),
        cmocka_unit_test(seeking_forward_and_back),
        cmocka_unit_test(a_restart_may_find_more_than_the_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
