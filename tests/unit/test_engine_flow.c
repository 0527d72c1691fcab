/* What is handed out when and to whom, as transcripts on virtual time: nacks and backoff, age, fair
 * shares, windows, pause, rate, why nothing moves, policies that change, and seeking. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/engine_world.h"

/* A failure comes back after 8 ms, too short for jitter. */
static struct policy quick(void) {
    struct policy p = policy_default();
    p.lease_ms = 4000;
    p.backoff_min_ms = p.backoff_max_ms = 8;
    return p;
}

static void open_with(struct world *w, const struct policy *p) {
    world_open(w);
    world_create(w, "s", NULL, p, START_NEW);
    buf_clear(&w->log);
}

/* ---- nacks ---- */

static void each_kind_of_nack_has_its_way(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    open_with(&w, &p);
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
    world_expect(&w, "?");
    world_close(&w);
}

static void a_nack_out_of_bounds_changes_nothing(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    open_with(&w, &p);
    world_attach(&w, 1, "s", 4, 0);
    world_publish(&w, "t", "");
    world_nack(&w, 1, 1, NACK_FAIL, LIMIT_BACKOFF_MS_MAX + 1, "boom");
    world_nack(&w, 1, 2, NACK_FAIL, 0, "boom");
    world_show(&w, "s");
    world_expect(&w, "?");
    world_close(&w);
}

static void elsewhere_goes_to_the_other_worker(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    open_with(&w, &p);
    world_attach(&w, 1, "s", 4, 0);
    world_publish(&w, "t", "");
    world_attach(&w, 2, "s", 4, 0);
    world_nack(&w, 1, 1, NACK_ELSEWHERE, DELAY_BY_POLICY, "not mine");
    world_note(&w, "once somebody had it, anybody may");
    world_detach(&w, 2, DETACH_RELEASE);
    world_expect(&w, "?");
    world_close(&w);
}

static void elsewhere_comes_back_when_nobody_else_is_there(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    open_with(&w, &p);
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
    world_expect(&w, "?");
    world_note(&w, "by default after 60 s; a worker that comes meanwhile has it within a second");
    world_nack(&w, 1, 3, NACK_ELSEWHERE, DELAY_BY_POLICY, "not mine");
    for (int i = 0; i < 10; i++) world_wait(&w, 1000);
    world_attach(&w, 2, "s", 4, 0);
    world_wait(&w, 1000);
    world_expect(&w, "?");
    world_close(&w);
}

static void the_parts_of_a_failure_are_kept(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    p.max_fails = 2;
    p.max_age_ms = 5000;
    open_with(&w, &p);
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
    world_expect(&w, "?");
    world_close(&w);
}

static void an_event_that_is_too_old_dies_with_its_last_failure(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    p.max_age_ms = 5000;
    open_with(&w, &p);
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
    world_expect(&w, "?");
    world_attach(&w, 1, "s", 4, 0);
    world_show_dead(&w, "s");
    world_note(&w, "one that was delayed is as old as its time");
    world_detach(&w, 1, DETACH_RELEASE);
    world_wait(&w, 4899);
    world_wait(&w, 4899);
    world_attach(&w, 1, "s", 4, 0);
    world_show_dead(&w, "s");
    world_expect(&w, "?");
    world_close(&w);
}

static void what_an_operator_asks_for_again_is_not_too_old(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    p.max_age_ms = 1000;
    open_with(&w, &p);
    world_publish(&w, "t", "");
    world_wait(&w, 2000);
    world_attach(&w, 1, "s", 4, 0);
    world_show_dead(&w, "s");
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 0, "");
    world_task(&w, TASK_REPLAY, "s", 1, 1, 0, "");
    world_nack(&w, 1, 1, NACK_FAIL, DELAY_BY_POLICY, "boom");
    world_nack(&w, 1, 2, NACK_FAIL, DELAY_BY_POLICY, "boom");
    world_wait(&w, 8);
    world_expect(&w, "?");
    world_close(&w);
}

/* ---- backoff ---- */

static void backoff_grows_by_its_factor_to_its_highest(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    p.backoff_min_ms = 100;
    p.backoff_max_ms = 1000;
    p.backoff_factor_permille = 3000;
    p.backoff_jitter_permille = 0;
    open_with(&w, &p);
    world_attach(&w, 1, "s", 1, 0);
    world_publish(&w, "t", "");
    const uint64_t waits[] = {100, 300, 900, 1000, 1000};
    for (uint64_t i = 0; i < 5; i++) {
        world_nack(&w, 1, i + 1, NACK_FAIL, DELAY_BY_POLICY, "boom");
        world_wait(&w, waits[i] - 1);
        world_wait(&w, 1);
    }
    world_expect(&w, "?");
    world_close(&w);
}

static void backoff_by_a_list_repeats_its_last_step(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    const uint64_t list[] = {5, 50, 7};
    p.backoff_list_ms = list;
    p.backoff_list_count = 3;
    p.backoff_jitter_permille = 0;
    open_with(&w, &p);
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
    world_expect(&w, "?");
    world_close(&w);
}

static void jitter_only_adds_and_stays_in_its_bounds(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct policy p = quick();
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

/* ---- fairness ---- */

static void what_comes_again_takes_half_of_a_window_while_fresh_waits(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    open_with(&w, &p);
    world_attach(&w, 1, "s", 4, 0);
    world_publish_many(&w, "old", 4);
    for (uint64_t tag = 1; tag <= 4; tag++) world_nack(&w, 1, tag, NACK_RELEASE, 8, "");
    world_window(&w, 1, 0);
    world_publish_many(&w, "fresh", 4);
    world_wait(&w, 8);
    buf_clear(&w.log);
    world_window(&w, 1, 4);
    world_expect(&w, "?");
    world_note(&w, "its own half is free: what was acked is followed by the same kind");
    world_settle(&w, COMMAND_ACK, 1, 5, 6, false);
    world_expect(&w, "?");
    world_note(&w, "alone, either takes all of the window");
    world_settle(&w, COMMAND_ACK, 1, 7, 8, false);
    world_settle(&w, COMMAND_ACK, 1, 9, 12, false);
    world_publish_many(&w, "fresh", 4);
    world_expect(&w, "?");
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
    struct policy p = quick();
    p.max_fails = 0;
    world_open(&w);
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 20, 0);
    world_publish_many(&w, "fresh", 1000);
    int alone = rounds_for_fresh(&w, &b, 1000);
    for (int i = 0; i < 2; i++) world_publish_many(&w, "poison", 1000);
    struct subscription_info s = {.backlog = 1}; /* until all of it has failed, and comes again */
    while (s.backlog > 0) {
        work_one_round(&w, &b);
        assert_true(engine_subscription_get(w.engine, slice_str("s"), &s));
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
    open_with(&w, NULL);
    for (uint64_t i = 1; i <= 3; i++) world_attach(&w, i, "s", i == 2 ? 1 : 3, 0);
    world_publish_many(&w, "t", 7);
    world_expect(&w, "?");
    world_close(&w);
}

static void a_window_counts_bytes_and_one_event_may_pass_it(void **state) {
    (void)state;
    static uint8_t bytes[3000];
    struct world w = {0};
    open_with(&w, NULL);
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
    world_expect(&w, "?");
    world_close(&w);
}

static void a_worker_whose_socket_does_not_drain_is_held(void **state) {
    (void)state;
    struct world w = {0};
    open_with(&w, NULL);
    world_attach(&w, 1, "s", 10, 0);
    struct command c = {.kind = COMMAND_HOLD};
    c.u.hold.attachment = 1;
    c.u.hold.hold = true;
    world_run(&w, &c);
    world_publish(&w, "t", "");
    world_show(&w, "s");
    c.u.hold.hold = false;
    world_run(&w, &c);
    world_expect(&w, "?");
    world_close(&w);
}

/* ---- pause, rate, why ---- */

static void a_paused_subscription_keeps_its_queue_also_over_a_restart(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    open_with(&w, &p);
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
    world_expect(&w, "?");
    world_pause(&w, "s", false);
    world_crash(&w);
    world_attach(&w, 1, "s", 1, 0);
    world_expect(&w, "?");
    world_close(&w);
}

static void a_rate_limit_spreads_hand_outs_evenly(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    p.rate_per_s = 10;
    open_with(&w, &p);
    world_attach(&w, 1, "s", 100, 0);
    world_publish_many(&w, "t", 4);
    world_show(&w, "s");
    for (int ms = 0; ms < 500; ms += 10) world_wait(&w, 10);
    world_nack(&w, 1, 4, NACK_RELEASE, DELAY_BY_POLICY, ""); /* what comes again counts too */
    world_nack(&w, 1, 3, NACK_RELEASE, DELAY_BY_POLICY, "");
    world_wait(&w, 49);
    world_wait(&w, 1);
    world_wait(&w, 100);
    world_expect(&w, "?");
    world_close(&w);
}

static void a_rate_limit_holds_over_a_long_time(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct policy p = quick();
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
    assert_in_range(stats.delivered_total, 3000, 3000 + 300 / 20 + 1); /* and 50 ms ahead */
    world_close(&w);
}

static void every_reason_for_idleness_is_named(void **state) {
    (void)state;
    struct world w = {.options = {.outstanding_max = 3, .turn_scan_events = 10}};
    struct policy p = quick();
    p.rate_per_s = 10;
    open_with(&w, &p);
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
    world_expect(&w, "?");
    world_note(&w, "an ordered one");
    p.ordered = true;
    world_create(&w, "o", NULL, &p, START_NEW);
    world_attach(&w, 2, "o", 9, 0);
    world_publish_due(&w, "t", "k", 0);
    world_publish_due(&w, "t", "k", 0);
    world_show(&w, "o"); /* order */
    world_expect(&w, "?");
    world_close(&w);
}

/* A turn looks at so much of the journal and no more: in between, it says that it is looking. */
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
    world_expect(&w, "?");
    world_close(&w);
}

/* ---- policies that change, seeking ---- */

static void an_updated_policy_counts_from_then_on(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    open_with(&w, &p);
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
    world_expect(&w, "?");
    world_note(&w, "what cannot be is refused");
    p.max_hold_ms = 499;
    world_update(&w, "s", &p);
    p = quick();
    p.filter = slice_str("{\"types\":[\"b\"");
    world_update(&w, "s", &p);
    p = quick();
    p.ordered = true;
    world_update(&w, "s", &p); /* events are out */
    world_settle(&w, COMMAND_ACK, 1, 1, 2, true);
    world_update(&w, "s", &p);
    world_crash(&w);
    world_attach(&w, 1, "s", 2, 0);
    world_publish_due(&w, "x", "k", 0);
    world_publish_due(&w, "x", "k", 0);
    world_show(&w, "s");
    world_expect(&w, "?");
    world_close(&w);
}

static void seeking_forward_and_back(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    open_with(&w, &p);
    world_attach(&w, 1, "s", 2, 0);
    world_publish_many(&w, "t", 5);
    world_nack(&w, 1, 1, NACK_FAIL, 1000, "boom");
    buf_clear(&w.log);
    world_note(&w, "forward: what is out is revoked, what waits is forgotten");
    world_seek(&w, "s", START_SEQ, 5);
    world_show(&w, "s");
    world_settle(&w, COMMAND_ACK, 1, 2, 3, true); /* means nothing any more */
    world_show(&w, "s");
    world_expect(&w, "?");
    world_note(&w, "back: it comes again, as if for the first time");
    world_wait(&w, 1000);
    world_seek(&w, "s", START_SEQ, 1);
    world_crash(&w);
    world_show(&w, "s");
    world_attach(&w, 1, "s", 1, 0);
    world_expect(&w, "?");
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
    world_expect(&w, "?");
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
        cmocka_unit_test(what_comes_again_takes_half_of_a_window_while_fresh_waits),
        cmocka_unit_test(a_poison_burst_does_not_stop_fresh_events),
        cmocka_unit_test(workers_take_turns),
        cmocka_unit_test(a_window_counts_bytes_and_one_event_may_pass_it),
        cmocka_unit_test(a_worker_whose_socket_does_not_drain_is_held),
        cmocka_unit_test(a_paused_subscription_keeps_its_queue_also_over_a_restart),
        cmocka_unit_test(a_rate_limit_spreads_hand_outs_evenly),
        cmocka_unit_test(a_rate_limit_holds_over_a_long_time),
        cmocka_unit_test(every_reason_for_idleness_is_named),
        cmocka_unit_test(a_subscription_that_looks_for_a_match_says_so),
        cmocka_unit_test(an_updated_policy_counts_from_then_on),
        cmocka_unit_test(seeking_forward_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
