/* Leases as transcripts on virtual time: their length, renewal and end, late settlements, workers
 * that die, and workers that come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/engine_world.h"

#define SECOND 1000
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)

/* Leases of 4 s; a failure comes back after 8 ms, too short for jitter. */
static struct policy quick(void) {
    struct policy p = policy_default();
    p.lease_ms = 4 * SECOND;
    p.backoff_min_ms = p.backoff_max_ms = 8;
    return p;
}

static void attach_session(struct world *w, uint64_t attachment, uint64_t session, uint64_t resumes,
                           const struct claim *claims, size_t count) {
    struct command c = attach_command(attachment, "s", 10, 0);
    c.route.handle = attachment; /* each comes over a connection of its own */
    c.u.attach.session = session;
    c.u.attach.resumes = resumes;
    c.u.attach.claims = claims;
    c.u.attach.claims_count = count;
    world_run(w, &c);
}

static void a_worker_may_ask_for_a_lease_of_its_own(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    world_open_with(&w, &p);
    struct command c = attach_command(1, "s", 1, 0);
    c.u.attach.lease_ms = 99;
    world_run(&w, &c);
    c.u.attach.lease_ms = 500;
    world_run(&w, &c);
    world_publish(&w, "t", "");
    world_wait(&w, 400);
    world_extend(&w, 1, 1, 1, 0); /* its own 500 ms again */
    world_wait(&w, 499);
    world_wait(&w, 1);
    world_expect(&w,
                 "[1000] error invalid_request: lease_ms: must be 100 to 43200000 (12 hours), or 0 "
                 "for the subscription's\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1400] 1 settled ok 1-1\n"
                 "[1900] 1 revoked tag 1 expired\n");
    world_close(&w);
}

static void note_lease(void *ctx, const struct effect *e) {
    if (e->kind == EFFECT_ATTACHED) *(uint64_t *)ctx = e->u.attached.lease_ms;
}

static void a_lease_of_its_own_is_within_max_hold(void **state) {
    (void)state;
    uint64_t lease_ms = 0;
    struct world w = {.on_effect = note_lease, .on_effect_ctx = &lease_ms};
    struct policy p = quick();
    p.max_hold_ms = 5 * SECOND;
    world_open_with(&w, &p);
    struct command c = attach_command(1, "s", 1, 0);
    c.u.attach.lease_ms = 6 * SECOND;
    world_run(&w, &c);
    assert_int_equal(lease_ms, 5 * SECOND);
    world_publish(&w, "t", "");
    world_wait(&w, 4999);
    world_wait(&w, 1);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[5999] 1 lease of tag 1 ends in 1\n"
                 "[6000] 1 revoked tag 1 max_hold\n");
    world_close(&w);
}

static void the_end_of_a_lease_is_announced_once_a_quarter_before(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 1, 0);
    world_publish(&w, "t", "");
    world_wait(&w, 2999);
    world_wait(&w, 1);
    world_wait(&w, 500);
    world_extend(&w, 1, 1, 1, 0); /* a renewed lease has a new quarter */
    world_wait(&w, 2999);
    world_wait(&w, 1);
    world_note(&w, "renewed in time, nothing is said");
    world_extend(&w, 1, 1, 1, 0);
    world_wait(&w, 2000);
    world_extend(&w, 1, 1, 1, 0);
    world_wait(&w, 2000);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_wait(&w, 10000);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[4000] 1 lease of tag 1 ends in 1000\n"
                 "[4500] 1 settled ok 1-1\n"
                 "[7500] 1 lease of tag 1 ends in 1000\n"
                 "-- renewed in time, nothing is said\n"
                 "[7500] 1 settled ok 1-1\n"
                 "[9500] 1 settled ok 1-1\n"
                 "[11500] 1 settled ok 1-1\n");
    world_close(&w);
}

static void extending_ends_at_max_hold_and_that_is_a_failure(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    p.max_hold_ms = 10 * SECOND;
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 1, 0);
    world_attach(&w, 2, "s", 1, 0);
    world_publish(&w, "t", "");
    for (int i = 0; i < 3; i++) {
        world_wait(&w, 2900);
        world_extend(&w, 1, 1, 1, 0);
    }
    world_wait(&w, 1299); /* 9,999 ms since the hand-out */
    world_extend(&w, 1, 1, 1, 12 * HOUR);
    world_wait(&w, 1);
    world_extend(&w, 1, 1, 1, 0);
    world_wait(&w, 8);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] attached 2 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[3900] 1 settled ok 1-1\n"
                 "[6800] 1 settled ok 1-1\n"
                 "[9700] 1 settled ok 1-1\n"
                 "[10999] 1 lease of tag 1 ends in 1\n"
                 "[10999] 1 settled ok 1-1\n"
                 "[11000] 1 revoked tag 1 max_hold\n"
                 "[11000] 1 settled stale 1-1\n"
                 "[11008] 2 < tag 1 seq 1 t fails 1 deliveries 2\n");
    world_close(&w);
}

static void extend_is_refused_out_of_bounds_and_for_unknown_tags(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 1, 0);
    world_publish(&w, "t", "");
    world_extend(&w, 1, 1, 1, 99);
    world_extend(&w, 1, 1, 1, 12 * HOUR + 1);
    world_extend(&w, 1, 0, 1, 0);
    world_extend(&w, 1, 1, 2, 0);
    world_extend(&w, 1, 2, 1, 0);
    world_extend(&w, 9, 1, 1, 0);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_extend(&w, 1, 1, 1, 0);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] error invalid_request: lease_ms: must be 100 to 43200000 (12 hours)\n"
                 "[1000] error invalid_request: lease_ms: must be 100 to 43200000 (12 hours)\n"
                 "[1000] error unknown_tag: tag 0 was never handed out here: the tags are 1 to 1\n"
                 "[1000] error unknown_tag: tag 2 was never handed out here: the tags are 1 to 1\n"
                 "[1000] error invalid_request: ranges: a range must not end before it starts\n"
                 "[1000] error not_found: the subscription is no longer attached\n"
                 "[1000] 1 settled ok 1-1\n"
                 "[1000] 1 settled already 1-1\n");
    world_close(&w);
}

static void a_late_ack_counts_unless_somebody_else_has_it(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 3, 0);
    world_publish_many(&w, "t", 3);
    world_wait(&w, 4000);
    world_note(&w, "acked or rejected late: true");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_nack(&w, 1, 2, NACK_REJECT, 0, "never");
    world_show_dead(&w, "s");
    world_note(&w, "failed late: its expiry counted already");
    world_nack(&w, 1, 3, NACK_FAIL, DELAY_BY_POLICY, "late");
    world_wait(&w, 8);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 3 seq 3 t fails 0 deliveries 1\n"
                 "[5000] 1 revoked tag 1 expired\n"
                 "[5000] 1 revoked tag 2 expired\n"
                 "[5000] 1 revoked tag 3 expired\n"
                 "-- acked or rejected late: true\n"
                 "[5000] 1 settled ok 1-1\n"
                 "dead seq 2 rejected fails 1 deliveries 1 [/never/]\n"
                 "-- failed late: its expiry counted already\n"
                 "[5008] 1 < tag 4 seq 3 t fails 1 deliveries 2\n"
                 "s: floor 3 next 4 ready 0 leased 1 delayed 0 dead 1 idle empty\n");
    world_note(&w, "somebody else has it");
    world_wait(&w, 4000);
    world_attach(&w, 2, "s", 3, 0);
    world_wait(&w, 8);
    world_settle(&w, COMMAND_ACK, 1, 4, 4, true);
    world_settle(&w, COMMAND_ACK, 2, 1, 1, true);
    world_show(&w, "s");
    world_expect(&w,
                 "-- somebody else has it\n"
                 "[9008] 1 revoked tag 4 expired\n"
                 "[9008] attached 2 backlog 0\n"
                 "[9016] 1 < tag 5 seq 3 t fails 2 deliveries 3\n"
                 "[9016] 1 settled stale 4-4\n"
                 "[9016] error unknown_tag: tag 1 was never handed out here: the tags are 1 to 0\n"
                 "s: floor 3 next 4 ready 0 leased 1 delayed 0 dead 1 idle empty\n");
    world_close(&w);
}

static void an_expired_lease_keeps_its_place_in_the_window(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 2, 0);
    world_publish_many(&w, "t", 3);
    world_extend(&w, 1, 2, 2, 10 * SECOND);
    world_wait(&w, 4000); /* tag 1 runs out */
    world_wait(&w, 100);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[1000] 1 settled ok 2-2\n"
                 "[5000] 1 revoked tag 1 expired\n"
                 "s: floor 1 next 3 ready 1 leased 1 delayed 0 dead 0 idle window\n");
    world_note(&w, "it settles: there is room again");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_expect(&w,
                 "-- it settles: there is room again\n"
                 "[5100] 1 settled ok 1-1\n"
                 "[5100] 1 < tag 3 seq 3 t fails 0 deliveries 1\n");
    world_close(&w);
}

static void a_prefetched_event_that_expires_counts_nothing(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 2, 1);
    world_publish_many(&w, "t", 2);
    world_wait(&w, 4000);
    world_attach(&w, 2, "s", 2, 1);
    world_wait(&w, 8);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[5000] 1 revoked tag 1 expired\n"
                 "[5000] 1 revoked tag 2 expired\n"
                 "[5000] attached 2 backlog 0\n"
                 "[5000] 2 < tag 1 seq 2 t fails 0 deliveries 2\n"
                 "[5008] 2 < tag 2 seq 1 t fails 1 deliveries 2\n");
    world_close(&w);
}

/* Job-long work: leases of 30 s, renewed every 20 s for two hours. */
static void work_two_hours(struct world *w, uint64_t attachment, uint64_t tag) {
    w->quiet = true;
    for (uint64_t ms = 0; ms < 2 * HOUR; ms += 20 * SECOND) {
        world_wait(w, 20 * SECOND);
        world_extend(w, attachment, tag, tag, 0);
    }
    w->quiet = false;
}

static void a_job_of_two_hours_is_delivered_once(void **state) {
    (void)state;
    struct world w = {0};
    world_open_with(&w, NULL);
    world_attach(&w, 1, "s", 1, 1);
    world_attach(&w, 2, "s", 1, 1);
    world_publish(&w, "render", "");
    work_two_hours(&w, 1, 1);
    world_show(&w, "s");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_show(&w, "s");
    struct engine_stats stats;
    engine_stats(w.engine, &stats);
    assert_int_equal(stats.totals.delivered, 1);
    assert_int_equal(stats.totals.expired, 0);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] attached 2 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 render fails 0 deliveries 1\n"
                 "s: floor 1 next 2 ready 0 leased 1 delayed 0 dead 0 idle empty\n"
                 "[7201000] 1 settled ok 1-1\n"
                 "s: floor 2 next 2 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

static void with_the_worker_killed_a_job_is_delivered_once_more(void **state) {
    (void)state;
    struct world w = {0};
    world_open_with(&w, NULL);
    world_attach(&w, 1, "s", 1, 1);
    world_publish(&w, "render", "");
    work_two_hours(&w, 1, 1);
    world_detach(&w, 1, DETACH_LOST);
    world_attach(&w, 2, "s", 1, 1);
    world_wait(&w, 1100); /* a second, and at most a tenth of it */
    work_two_hours(&w, 2, 1);
    world_settle(&w, COMMAND_ACK, 2, 1, 1, true);
    world_show(&w, "s");
    struct engine_stats stats;
    engine_stats(w.engine, &stats);
    assert_int_equal(stats.totals.delivered, 2);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 render fails 0 deliveries 1\n"
                 "[7201000] attached 2 backlog 0\n"
                 "[7202100] 2 < tag 1 seq 1 render fails 1 deliveries 2\n"
                 "[14402100] 2 settled ok 1-1\n"
                 "s: floor 2 next 2 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

struct fails {
    uint32_t of[101], hand_outs;
};

static void note_fails(void *ctx, const struct effect *e) {
    struct fails *f = ctx;
    if (e->kind != EFFECT_DELIVER) return;
    f->of[e->u.deliver.event.seq] = e->u.deliver.fails;
    f->hand_outs++;
}

/* The worker prefetches 100 events and crashes on the first of them, each time anew. */
static void crashing_on_one_event_leaves_the_other_99_without_fails(void **state) {
    (void)state;
    struct fails fails = {{0}, 0};
    struct world w = {.on_effect = note_fails, .on_effect_ctx = &fails};
    struct policy p = policy_default();
    p.backoff_min_ms = p.backoff_max_ms = 0;
    world_open_with(&w, &p);
    world_publish_many(&w, "t", 100);
    buf_clear(&w.log);
    w.quiet = true;
    for (uint64_t crash = 1; crash <= 20; crash++) {
        world_attach(&w, crash, "s", 100, 1);
        assert_int_equal(fails.of[1], crash - 1);
        world_detach(&w, crash, DETACH_LOST);
    }
    world_attach(&w, 21, "s", 100, 1);
    for (int seq = 2; seq <= 100; seq++) assert_int_equal(fails.of[seq], 0);
    assert_int_equal(fails.hand_outs, 20 * 100 + 99);
    world_show(&w, "s");
    world_show_dead(&w, "s");
    world_settle(&w, COMMAND_ACK, 21, 1, 99, true);
    world_show(&w, "s");
    world_expect(&w,
                 "s: floor 2 next 101 ready 0 leased 99 delayed 0 dead 1 idle empty\n"
                 "dead seq 1 max_fails fails 20 deliveries 20 [/the worker was lost/]\n"
                 "s: floor 101 next 101 ready 0 leased 0 delayed 0 dead 1 idle empty\n");
    world_close(&w);
}

/* ---- coming back ---- */

static void a_worker_that_resumes_goes_on_under_its_tags(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    world_open_with(&w, &p);
    attach_session(&w, 1, 77, 0, NULL, 0);
    world_publish_many(&w, "t", 4);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_keep(&w, 1, 3000);
    world_publish(&w, "t", "");
    world_show(&w, "s"); /* nothing is handed out meanwhile */
    world_wait(&w, 2000);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3 4\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 3 seq 3 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 4 seq 4 t fails 0 deliveries 1\n"
                 "[1000] 1 settled ok 1-1\n"
                 "[1000] published 5\n"
                 "s: floor 2 next 5 ready 0 leased 3 delayed 0 dead 0 idle window\n");
    /* It still works on seq 2 and 4; seq 3 never reached it; it acked 1 and heard nothing. */
    struct claim claims[] = {{1, 1, false}, {2, 2, false}, {4, 4, false}};
    attach_session(&w, 2, 77, 77, claims, 3);
    world_expect(&w,
                 "[3000] attached 2 backlog 1 resumed 2\n"
                 "[3000] 2 revoked tag 1 lost\n"
                 "[3000] 2 < tag 5 seq 3 t fails 0 deliveries 2\n"
                 "[3000] 2 < tag 6 seq 5 t fails 0 deliveries 1\n");
    world_note(&w, "the leases are new: 4 s from now");
    world_wait(&w, 3999);
    world_settle(&w, COMMAND_ACK, 2, 2, 6, true);
    world_show(&w, "s");
    world_expect(&w,
                 "-- the leases are new: 4 s from now\n"
                 "[6999] 2 lease of tag 2 ends in 1\n"
                 "[6999] 2 lease of tag 4 ends in 1\n"
                 "[6999] 2 lease of tag 5 ends in 1\n"
                 "[6999] 2 lease of tag 6 ends in 1\n"
                 "[6999] 2 settled ok 2-2 ok 4-6 already 3-3\n"
                 "s: floor 6 next 6 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

static void after_the_grace_what_it_held_is_lost(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    world_open_with(&w, &p);
    attach_session(&w, 1, 77, 0, NULL, 0);
    world_publish_many(&w, "t", 2);
    world_keep(&w, 1, 3000);
    world_wait(&w, 2999);
    world_show(&w, "s");
    world_wait(&w, 1);
    world_show(&w, "s");
    struct claim claims[] = {{1, 1, false}, {2, 2, false}};
    attach_session(&w, 2, 77, 77, claims, 2);
    world_wait(&w, 8);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "s: floor 1 next 3 ready 0 leased 2 delayed 0 dead 0 idle empty\n"
                 "[4000] 1 lease of tag 1 ends in 1000\n"
                 "[4000] 1 lease of tag 2 ends in 1000\n"
                 "s: floor 1 next 3 ready 0 leased 0 delayed 2 dead 0 idle backoff\n"
                 "[4000] attached 2 backlog 0\n"
                 "[4000] 2 revoked tag 1 lost\n"
                 "[4000] 2 revoked tag 2 lost\n"
                 "[4008] 2 < tag 3 seq 1 t fails 1 deliveries 2\n"
                 "[4008] 2 < tag 4 seq 2 t fails 1 deliveries 2\n");
    world_close(&w);
}

static void a_kept_lease_lasts_no_longer_than_its_time(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    world_open_with(&w, &p);
    attach_session(&w, 1, 77, 0, NULL, 0);
    world_publish(&w, "t", "");
    world_keep(&w, 1, 60000);
    world_attach(&w, 2, "s", 1, 0);
    world_wait(&w, 4000);
    world_wait(&w, 8);
    struct claim claims[] = {{1, 1, false}};
    attach_session(&w, 3, 77, 77, claims, 1);
    world_settle(&w, COMMAND_ACK, 2, 1, 1, true);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] attached 2 backlog 0\n"
                 "[5000] 1 revoked tag 1 expired\n"
                 "[5008] 2 < tag 1 seq 1 t fails 1 deliveries 2\n"
                 "[5008] attached 3 backlog 0\n"
                 "[5008] 3 revoked tag 1 lost\n"
                 "[5008] 2 settled ok 1-1\n"
                 "s: floor 2 next 2 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

static void a_claim_of_what_is_not_its_own_is_refused(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    world_open_with(&w, &p);
    attach_session(&w, 1, 77, 0, NULL, 0);
    world_publish_many(&w, "t", 2);
    attach_session(&w, 2, 90, 0, NULL, 0); /* another session */
    buf_clear(&w.log);
    world_publish_many(&w, "t", 2);
    world_expect(&w,
                 "[1000] published 3 4\n"
                 "[1000] 1 < tag 3 seq 3 t fails 0 deliveries 1\n"
                 "[1000] 2 < tag 1 seq 4 t fails 0 deliveries 1\n");
    /* seq 4 is session 90's; 9 never was; 1 is claimed twice; 2 did not come by a replay. */
    struct claim claims[] = {
        {1, 1, false}, {2, 2, true}, {4, 4, false}, {7, 9, false}, {8, 1, false}};
    attach_session(&w, 3, 77, 77, claims, 5);
    world_show(&w, "s");
    world_note(&w, "without a session nothing is granted");
    struct claim one[] = {{1, 4, false}};
    attach_session(&w, 4, 79, 0, one, 1);
    world_expect(&w,
                 "[1000] attached 3 backlog 0 resumed 1\n"
                 "[1000] 3 revoked tag 2 lost\n"
                 "[1000] 3 revoked tag 4 lost\n"
                 "[1000] 3 revoked tag 7 lost\n"
                 "[1000] 3 revoked tag 8 lost\n"
                 "[1000] 2 < tag 2 seq 2 t fails 0 deliveries 2\n"
                 "[1000] 3 < tag 9 seq 3 t fails 0 deliveries 2\n"
                 "s: floor 1 next 5 ready 0 leased 4 delayed 0 dead 0 idle empty\n"
                 "-- without a session nothing is granted\n"
                 "[1000] attached 4 backlog 0\n"
                 "[1000] 4 revoked tag 1 lost\n");
    world_close(&w);
}

static void after_a_restart_workers_claim_what_they_hold(void **state) {
    (void)state;
    struct world w = {.options = {.restart_grace_ms = 10000}};
    struct policy p = quick();
    world_open_with(&w, &p);
    attach_session(&w, 1, 77, 0, NULL, 0);
    world_publish_many(&w, "t", 3);
    world_nack(&w, 1, 3, NACK_FAIL, 100, "later");
    world_wait(&w, 50); /* the position that lists them is written */
    buf_clear(&w.log);
    world_crash(&w);
    world_attach(&w, 2, "s", 10, 0); /* somebody else gets nothing of it */
    world_publish(&w, "t", "");
    struct claim claims[] = {{2, 2, false}, {3, 3, false}};
    attach_session(&w, 3, 77, 77, claims, 2);
    world_show(&w, "s");
    world_expect(&w,
                 "[1050] attached 2 backlog 0\n"
                 "[1050] published 4\n"
                 "[1050] 2 < tag 1 seq 4 t fails 0 deliveries 1\n"
                 "[1050] attached 3 backlog 0 resumed 1\n"
                 "[1050] 3 revoked tag 3 lost\n"
                 "s: floor 1 next 5 ready 0 leased 2 delayed 2 dead 0 idle backoff\n");
    world_wait(&w, 100);
    world_settle(&w, COMMAND_ACK, 3, 2, 2, true);
    world_wait(&w, 9899);
    world_note(&w, "the grace is over: seq 1 was nobody's");
    world_settle(&w, COMMAND_ACK, 2, 1, 2, true);
    world_wait(&w, 1);
    world_expect(&w,
                 "[1150] 2 < tag 2 seq 3 t fails 1 deliveries 2\n"
                 "[1150] 3 settled ok 2-2\n"
                 "[11049] 2 revoked tag 1 expired\n"
                 "[11049] 2 revoked tag 2 expired\n"
                 "-- the grace is over: seq 1 was nobody's\n"
                 "[11049] 2 settled ok 1-2\n"
                 "[11050] 3 < tag 4 seq 1 t fails 0 deliveries 1\n");
    world_close(&w);
}

static void what_was_due_on_disk_can_be_claimed_too(void **state) {
    (void)state;
    struct world w = {.options = {.restart_grace_ms = 10000}};
    struct policy p = quick();
    world_open_with(&w, &p);
    attach_session(&w, 1, 77, 0, NULL, 0);
    for (int i = 0; i < 3; i++) world_publish_due(&w, "later", "", 1000);
    world_wait(&w, 1000);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] published 2\n"
                 "[1000] published 3\n"
                 "[2000] 1 < tag 1 seq 1 later fails 0 deliveries 1\n"
                 "[2000] 1 < tag 2 seq 2 later fails 0 deliveries 1\n"
                 "[2000] 1 < tag 3 seq 3 later fails 0 deliveries 1\n"
                 "[2000] 1 settled ok 1-1\n");
    world_crash(&w);
    world_attach(&w, 2, "s", 10, 0);
    world_show(&w, "s");
    struct claim claims[] = {{1, 1, false}, {2, 2, false}};
    attach_session(&w, 3, 77, 77, claims, 2);
    world_show(&w, "s");
    world_settle(&w, COMMAND_ACK, 3, 2, 2, true);
    world_note(&w, "the grace is over");
    world_wait(&w, 10000);
    world_show(&w, "s");
    world_expect(&w,
                 "[2000] attached 2 backlog 0\n"
                 "s: floor 4 next 4 ready 0 leased 0 delayed 2 dead 0 idle backoff\n"
                 "[2000] attached 3 backlog 0 resumed 1\n"
                 "[2000] 3 revoked tag 1 lost\n"
                 "s: floor 4 next 4 ready 0 leased 1 delayed 1 dead 0 idle backoff\n"
                 "[2000] 3 settled ok 2-2\n"
                 "-- the grace is over\n"
                 "[12000] 2 < tag 1 seq 3 later fails 0 deliveries 1\n"
                 "s: floor 4 next 4 ready 0 leased 1 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

static void a_resumed_hold_is_as_long_as_it_was(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    p.max_hold_ms = 5000;
    world_open_with(&w, &p);
    attach_session(&w, 1, 77, 0, NULL, 0);
    world_publish(&w, "t", "");
    world_wait(&w, 2900);
    world_keep(&w, 1, 3000);
    struct claim claims[] = {{1, 1, false}};
    attach_session(&w, 2, 77, 77, claims, 1);
    world_wait(&w, 2099);
    world_wait(&w, 1);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[3900] attached 2 backlog 0 resumed 1\n"
                 "[5999] 2 lease of tag 1 ends in 1\n"
                 "[6000] 2 revoked tag 1 max_hold\n");
    world_close(&w);
}

static void a_replay_that_is_out_is_claimed_as_a_replay(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    world_open_with(&w, &p);
    world_publish(&w, "t", "");
    attach_session(&w, 1, 77, 0, NULL, 0);
    world_task(&w, TASK_REPLAY, "s", 1, 1, 0, "");
    world_keep(&w, 1, 3000);
    struct claim claims[] = {{1, 1, false}, {2, 1, true}};
    attach_session(&w, 2, 77, 77, claims, 2);
    world_settle(&w, COMMAND_ACK, 2, 2, 2, true);
    world_show_task(&w, 2);
    world_settle(&w, COMMAND_ACK, 2, 1, 1, true);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] attached 1 backlog 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] done created\n"
                 "[1000] 1 < tag 2 seq 1 t fails 0 deliveries 1 replay\n"
                 "[1000] attached 2 backlog 0 resumed 2\n"
                 "[1000] 2 settled ok 2-2\n"
                 "replay 2: finished 1-1 next 2 matched 1 acked 1 expired 0\n"
                 "[1000] 2 settled ok 1-1\n"
                 "s: floor 2 next 2 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

/* Settled a moment before, over the connection that was: its row is still on disk. */
static void what_was_settled_in_the_same_moment_cannot_be_claimed(void **state) {
    (void)state;
    struct world w = {.options = {.restart_grace_ms = 10000}};
    world_open_with(&w, NULL);
    world_publish_due(&w, "later", "", 1000);
    world_crash(&w);
    attach_session(&w, 1, 77, 0, NULL, 0);
    world_wait(&w, 1000);
    struct tag_range range = {1, 1};
    struct command c = {.kind = COMMAND_ACK};
    c.u.settle.attachment = 1;
    c.u.settle.ranges = &range;
    c.u.settle.count = 1;
    world_step(&w, &c);
    struct claim claims[] = {{1, 1, false}};
    attach_session(&w, 2, 77, 77, claims, 1);
    world_show(&w, "s");
    world_settle(&w, COMMAND_ACK, 2, 1, 1, true);
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] attached 1 backlog 1\n"
                 "[2000] 1 < tag 1 seq 1 later fails 0 deliveries 1\n"
                 "[2000] attached 2 backlog 0\n"
                 "[2000] 2 revoked tag 1 lost\n"
                 "s: floor 2 next 2 ready 0 leased 0 delayed 0 dead 0 idle empty\n"
                 "[2000] 2 settled already 1-1\n");
    world_close(&w);
}

/* One worker may be on a subscription twice; each comes back by itself. */
static void two_of_one_session_come_back_one_after_the_other(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick();
    struct claim claims[2][2] = {{{1, 1, false}, {2, 3, false}}, {{1, 2, false}, {2, 4, false}}};
    world_open_with(&w, &p);
    for (uint64_t i = 1; i <= 2; i++) {
        struct command c = attach_command(i, "s", 2, 0);
        c.route.handle = 1;
        c.u.attach.session = 77;
        c.u.attach.slot = i;
        world_run(&w, &c);
    }
    world_publish_many(&w, "t", 4);
    for (uint64_t i = 1; i <= 2; i++) world_keep(&w, i, 3000);
    buf_clear(&w.log);
    for (uint64_t i = 1; i <= 2; i++) {
        struct command c = attach_command(2 + i, "s", 4, 0);
        c.route.handle = 2;
        c.u.attach.session = c.u.attach.resumes = 77;
        c.u.attach.slot = i;
        c.u.attach.claims = claims[i - 1];
        c.u.attach.claims_count = 2;
        world_run(&w, &c);
        world_show(&w, "s");
    }
    world_expect(&w,
                 "[1000] attached 3 backlog 0 resumed 2\n"
                 "s: floor 1 next 5 ready 0 leased 4 delayed 0 dead 0 idle empty\n"
                 "[1000] attached 4 backlog 0 resumed 2\n"
                 "s: floor 1 next 5 ready 0 leased 4 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_worker_may_ask_for_a_lease_of_its_own),
        cmocka_unit_test(a_lease_of_its_own_is_within_max_hold),
        cmocka_unit_test(the_end_of_a_lease_is_announced_once_a_quarter_before),
        cmocka_unit_test(extending_ends_at_max_hold_and_that_is_a_failure),
        cmocka_unit_test(extend_is_refused_out_of_bounds_and_for_unknown_tags),
        cmocka_unit_test(a_late_ack_counts_unless_somebody_else_has_it),
        cmocka_unit_test(an_expired_lease_keeps_its_place_in_the_window),
        cmocka_unit_test(a_prefetched_event_that_expires_counts_nothing),
        cmocka_unit_test(a_job_of_two_hours_is_delivered_once),
        cmocka_unit_test(with_the_worker_killed_a_job_is_delivered_once_more),
        cmocka_unit_test(crashing_on_one_event_leaves_the_other_99_without_fails),
        cmocka_unit_test(a_worker_that_resumes_goes_on_under_its_tags),
        cmocka_unit_test(after_the_grace_what_it_held_is_lost),
        cmocka_unit_test(a_kept_lease_lasts_no_longer_than_its_time),
        cmocka_unit_test(a_claim_of_what_is_not_its_own_is_refused),
        cmocka_unit_test(after_a_restart_workers_claim_what_they_hold),
        cmocka_unit_test(what_was_due_on_disk_can_be_claimed_too),
        cmocka_unit_test(what_was_settled_in_the_same_moment_cannot_be_claimed),
        cmocka_unit_test(two_of_one_session_come_back_one_after_the_other),
        cmocka_unit_test(a_resumed_hold_is_as_long_as_it_was),
        cmocka_unit_test(a_replay_that_is_out_is_claimed_as_a_replay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
