/* The engine's rules as transcripts on virtual time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker/engine/state.h"
#include "tests/unit/engine_world.h"

/* A policy with a backoff short enough that jitter (at least 10 ms is needed for any) is none. */
static struct policy quick(uint32_t max_fails) {
    struct policy p = policy_default();
    p.lease_ms = 1000;
    p.max_fails = max_fails;
    p.backoff_min_ms = 8;
    p.backoff_max_ms = 9;
    return p;
}

static void published_is_delivered_and_acked(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    world_create(&w, "batches", "batch.*", NULL, START_NEW);
    world_attach(&w, 1, "batches", 2, 0);
    world_publish(&w, "batch.succeeded", "a");
    world_publish(&w, "video.generated", "b");
    world_publish(&w, "batch.failed", "c");
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 batch.succeeded fails 0 deliveries 1\n"
                 "[1000] published 2\n"
                 "[1000] published 3\n"
                 "[1000] 1 < tag 2 seq 3 batch.failed fails 0 deliveries 1\n");
    world_publish(&w, "batch.expired", "d"); /* the window is full */
    world_show(&w, "batches");
    world_settle(&w, COMMAND_ACK, 1, 1, 2, true);
    world_show(&w, "batches");
    world_expect(&w,
                 "[1000] published 4\n"
                 "batches: floor 1 next 4 ready 0 leased 2 delayed 0 dead 0 idle window\n"
                 "[1000] 1 settled ok 1-2\n"
                 "[1000] 1 < tag 3 seq 4 batch.expired fails 0 deliveries 1\n"
                 "batches: floor 4 next 5 ready 0 leased 1 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

static void the_same_id_is_journaled_once(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    world_publish(&w, "t", "same");
    world_publish(&w, "t", "same");
    world_publish(&w, "t", "");
    world_publish(&w, "t", "");
    world_crash(&w);
    world_publish(&w, "t", "same");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] published 1 duplicate\n"
                 "[1000] published 2\n"
                 "[1000] published 3\n"
                 "[1000] published 1 duplicate\n");
    /* Twice in one command, before anything is durable. */
    struct event events[2] = {{.type = slice_str("t"), .id = slice_str("x")},
                              {.type = slice_str("t"), .id = slice_str("x")}};
    struct command c = {.kind = COMMAND_PUBLISH, .project = PROJECT_DEFAULT};
    c.u.publish.events = events;
    c.u.publish.count = 2;
    world_step(&w, &c);
    world_turn(&w);
    world_expect(&w, "[1000] published 4 4 duplicate\n");
    world_close(&w);
}

static void ids_are_forgotten_by_generations(void **state) {
    (void)state;
    struct world w = {.options = {.dedupe_ids = 2}};
    world_open(&w);
    for (char id[2] = "a"; id[0] <= 'e'; id[0]++) world_publish(&w, "t", id);
    /* Generations: {a b} dropped, {c d} previous, {e} current. */
    world_publish(&w, "t", "c");
    world_publish(&w, "t", "a");
    world_expect(&w,
                 "[1000] published 1\n[1000] published 2\n[1000] published 3\n"
                 "[1000] published 4\n[1000] published 5\n"
                 "[1000] published 3 duplicate\n"
                 "[1000] published 6\n");
    world_close(&w);
}

static void a_nacked_event_comes_back_after_its_backoff(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick(3);
    world_open(&w);
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 1, 0);
    world_publish(&w, "t", "");
    world_nack(&w, 1, 1, NACK_FAIL, DELAY_BY_POLICY, "boom");
    world_wait(&w, 7);
    world_show(&w, "s");
    world_wait(&w, 1);
    world_nack(&w, 1, 2, NACK_FAIL, 50, "boom");
    world_wait(&w, 49);
    world_wait(&w, 1);
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "s: floor 1 next 2 ready 0 leased 0 delayed 1 dead 0 idle backoff\n"
                 "[1008] 1 < tag 2 seq 1 t fails 1 deliveries 2\n"
                 "[1058] 1 < tag 3 seq 1 t fails 2 deliveries 3\n");
    world_close(&w);
}

static bool print_dead(void *ctx, const struct dead_letter *d) {
    struct world *w = ctx;
    buf_printf(&w->log, "dead seq %llu %.*s fails %u error %.*s type %.*s\n",
               (unsigned long long)d->event.seq, SLICE_ARG(d->reason), d->fails,
               SLICE_ARG(d->failure.message), SLICE_ARG(d->event.type));
    return true;
}

static void poison_becomes_a_dead_letter(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick(2);
    world_open(&w);
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 1, 0);
    world_publish(&w, "poison", "");
    world_publish(&w, "reject", "");
    world_nack(&w, 1, 1, NACK_FAIL, DELAY_BY_POLICY, "first");
    world_nack(&w, 1, 2, NACK_REJECT, 0, "no use");
    world_wait(&w, 8);
    world_nack(&w, 1, 3, NACK_FAIL, DELAY_BY_POLICY, "second");
    world_crash(&w);
    world_show(&w, "s");
    engine_dead_scan(w.engine, PROJECT_DEFAULT, slice_str("s"), 0, 0, print_dead, &w);
    store_end_reads(w.store);
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 poison fails 0 deliveries 1\n"
                 "[1000] published 2\n"
                 "[1000] 1 < tag 2 seq 2 reject fails 0 deliveries 1\n"
                 "[1008] 1 < tag 3 seq 1 poison fails 1 deliveries 2\n"
                 "s: floor 3 next 3 ready 0 leased 0 delayed 0 dead 2 idle empty\n"
                 "dead seq 1 max_fails fails 2 error second type poison\n"
                 "dead seq 2 rejected fails 0 error no use type reject\n");
    world_close(&w);
}

static void a_lost_worker_counts_only_what_it_had_started(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick(20);
    world_open(&w);
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 3, 1);
    for (int i = 0; i < 3; i++) world_publish(&w, "t", "");
    world_attach(&w, 2, "s", 3, 1);
    world_detach(&w, 1, DETACH_LOST);
    world_wait(&w, 8);
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] published 2\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[1000] published 3\n"
                 "[1000] 1 < tag 3 seq 3 t fails 0 deliveries 1\n"
                 "[1000] attached 2 backlog 0\n"
                 "[1000] 2 < tag 1 seq 2 t fails 0 deliveries 2\n"
                 "[1000] 2 < tag 2 seq 3 t fails 0 deliveries 2\n"
                 "[1008] 2 < tag 3 seq 1 t fails 1 deliveries 2\n");
    world_detach(&w, 2, DETACH_RELEASE); /* a goodbye counts nothing */
    world_show(&w, "s");
    world_expect(&w, "s: floor 1 next 4 ready 3 leased 0 delayed 0 dead 0 idle no_workers\n");
    world_close(&w);
}

static void an_expired_lease_can_be_acked_late_unless_handed_out_anew(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick(20);
    world_open(&w);
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 1, 0);
    world_publish(&w, "t", "");
    world_wait(&w, 999);
    world_settle(&w, COMMAND_EXTEND, 1, 1, 1, true); /* renewed: 1999 + 1000 */
    world_wait(&w, 999);
    world_wait(&w, 1);  /* runs out */
    world_wait(&w, 20); /* due again, but the worker's window still holds the expired one */
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1999] 1 lease of tag 1 ends in 1\n"
                 "[1999] 1 settled ok 1-1\n"
                 "[2998] 1 lease of tag 1 ends in 1\n"
                 "[2999] 1 revoked tag 1 expired\n"
                 "[3019] 1 settled ok 1-1\n"
                 "s: floor 2 next 2 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_publish(&w, "t", "");
    world_wait(&w, 1000);
    world_attach(&w, 2, "s", 1, 0);
    world_wait(&w, 8);
    world_settle(&w, COMMAND_ACK, 1, 2, 2, true);
    world_settle(&w, COMMAND_ACK, 1, 1, 2, true);
    world_settle(&w, COMMAND_ACK, 1, 3, 3, true);
    world_settle(&w, COMMAND_ACK, 2, 1, 1, true);
    world_expect(&w,
                 "[3019] published 2\n"
                 "[3019] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[4019] 1 revoked tag 2 expired\n"
                 "[4019] attached 2 backlog 0\n"
                 "[4027] 2 < tag 1 seq 2 t fails 1 deliveries 2\n"
                 "[4027] 1 settled stale 2-2\n"
                 "[4027] 1 settled already 1-2\n"
                 "[4027] error unknown_tag: tag 3 was never handed out here: the tags are 1 to 2\n"
                 "[4027] 2 settled ok 1-1\n");
    world_close(&w);
}

static void a_restart_keeps_what_was_confirmed(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick(20);
    world_open(&w);
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 10, 0);
    for (int i = 0; i < 5; i++) world_publish(&w, "t", "");
    world_settle(&w, COMMAND_ACK, 1, 2, 2, true);   /* confirmed */
    world_nack(&w, 1, 3, NACK_FAIL, 5000, "later"); /* durable with its turn */
    world_settle(&w, COMMAND_ACK, 1, 4, 4, false);  /* waits up to 50 ms for a batch */
    buf_clear(&w.log);
    world_crash(&w);
    world_show(&w, "s");
    world_attach(&w, 2, "s", 10, 0);
    world_wait(&w, 5000);
    world_expect(&w,
                 "s: floor 1 next 6 ready 3 leased 0 delayed 1 dead 0 idle no_workers\n"
                 "[1000] attached 2 backlog 0\n"
                 "[1000] 2 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] 2 < tag 2 seq 4 t fails 0 deliveries 1\n"
                 "[1000] 2 < tag 3 seq 5 t fails 0 deliveries 1\n"
                 "[6000] 2 revoked tag 1 expired\n"
                 "[6000] 2 revoked tag 2 expired\n"
                 "[6000] 2 revoked tag 3 expired\n"
                 "[6000] 2 < tag 4 seq 3 t fails 1 deliveries 2\n");
    world_settle(&w, COMMAND_ACK, 2, 1, 4, false);
    world_wait(&w, 50); /* now it is on disk without anyone asking */
    buf_clear(&w.log);
    world_crash(&w);
    world_show(&w, "s");
    world_expect(&w, "s: floor 6 next 6 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

static void nothing_is_said_before_it_is_durable(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    memory_store_set_manual(w.store, true);
    world_create(&w, "s", NULL, NULL, START_FIRST);
    world_attach(&w, 1, "s", 10, 0);
    world_publish(&w, "t", "id");
    world_publish(&w, "t", "id");
    world_expect(&w, "");
    memory_store_sync(w.store, 2);
    world_expect(&w, "[1000] done created\n[1000] attached 1 backlog 0\n");
    memory_store_sync(w.store, 10);
    world_turn(&w);
    memory_store_sync(w.store, 10);
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] published 1 duplicate\n");
    world_publish(&w, "lost", "");
    world_crash(&w);
    world_publish(&w, "t", "");
    memory_store_sync(w.store, 10);
    world_expect(&w, "[1000] published 2\n");
    world_close(&w);
}

static void a_replay_never_moves_the_live_position(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    for (int i = 0; i < 4; i++) world_publish(&w, i % 2 == 0 ? "a" : "b", "");
    world_create(&w, "s", "a", NULL, START_NEW);
    world_task(&w, TASK_REPLAY, "s", 1, 3, 0, "");
    world_task(&w, TASK_REPLAY, "s", 9, 0, 0, "");
    world_attach(&w, 1, "s", 1, 0);
    world_show(&w, "s");
    buf_append_str(&w.log, "-- restart\n");
    world_crash(&w);
    world_attach(&w, 1, "s", 1, 0);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_publish(&w, "a", "");
    world_settle(&w, COMMAND_ACK, 1, 2, 2, true);
    world_settle(&w, COMMAND_ACK, 1, 3, 3, true);
    struct task_info r;
    assert_true(engine_task_get(w.engine, PROJECT_DEFAULT, 2, &r));
    assert_true(r.finished_at_ms != 0);
    assert_int_equal(r.acked_total, 2);
    world_expect(&w,
                 "[1000] published 1\n[1000] published 2\n[1000] published 3\n"
                 "[1000] published 4\n"
                 "[1000] done created\n"
                 "[1000] done created\n"
                 "[1000] error out_of_range: no such range of events, 9 to 4: the oldest in the "
                 "journal is 1, the newest 4\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] 1 < tag 1 seq 1 a fails 0 deliveries 1 replay\n"
                 "s: floor 5 next 5 ready 0 leased 1 delayed 0 dead 0 idle window\n"
                 "-- restart\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] 1 < tag 1 seq 1 a fails 0 deliveries 1 replay\n"
                 "[1000] 1 settled ok 1-1\n"
                 "[1000] 1 < tag 2 seq 3 a fails 0 deliveries 1 replay\n"
                 "[1000] published 5\n"
                 "[1000] 1 settled ok 2-2\n"
                 "[1000] 1 < tag 3 seq 5 a fails 0 deliveries 1\n"
                 "[1000] 1 settled ok 3-3\n");
    world_close(&w);
}

static void workers_share_and_a_full_store_refuses_only_new_events(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    world_create(&w, "s", NULL, NULL, START_NEW);
    world_attach(&w, 1, "s", 2, 0);
    world_attach(&w, 2, "s", 2, 0);
    buf_clear(&w.log);
    for (int i = 0; i < 4; i++) world_publish(&w, "t", "");
    engine_set_room(w.engine, false);
    world_publish(&w, "t", "");
    world_settle(&w, COMMAND_ACK, 1, 1, 2, true);
    world_window(&w, 2, 0);
    world_expect(&w,
                 "[1000] published 1\n[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] published 2\n[1000] 2 < tag 1 seq 2 t fails 0 deliveries 1\n"
                 "[1000] published 3\n[1000] 1 < tag 2 seq 3 t fails 0 deliveries 1\n"
                 "[1000] published 4\n[1000] 2 < tag 2 seq 4 t fails 0 deliveries 1\n"
                 "[1000] error no_room: the store is nearly full: nothing was taken, try again "
                 "later\n"
                 "[1000] 1 settled ok 1-2\n");
    world_close(&w);
}

static void policies_are_compared_and_deletion_ends_workers(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = quick(2);
    world_open(&w);
    world_create(&w, "s", "a.*", &p, START_NEW);
    world_create(&w, "s", "a.*", &p, START_FIRST);
    world_create(&w, "s", "b.*", &p, START_NEW);
    world_create(&w, "-", NULL, &p, START_NEW);
    p.lease_ms = 1;
    world_create(&w, "t", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 2, 0);
    world_publish(&w, "a.x", "");
    world_nack(&w, 1, 1, NACK_FAIL, 1000, "x");
    struct command c = {.kind = COMMAND_SUBSCRIPTION_DELETE, .project = PROJECT_DEFAULT};
    c.u.delete.name = slice_str("s");
    world_step(&w, &c);
    world_turn(&w);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_attach(&w, 2, "s", 1, 0);
    world_crash(&w);
    world_create(&w, "s", NULL, NULL, START_FIRST);
    world_show(&w, "s");
    world_expect(
        &w,
        "[1000] done created\n"
        "[1000] done\n"
        "[1000] error policy_mismatch: subscription \"s\" exists with another policy: update it, "
        "or "
        "ask for the policy it has\n"
        "[1000] error invalid_request: name: 1 to 64 of A-Z a-z 0-9 . _ - with a letter or digit "
        "first\n"
        "[1000] error bad_policy: lease_ms: must be 100 to 43200000 (12 hours)\n"
        "[1000] attached 1 backlog 0\n"
        "[1000] published 1\n"
        "[1000] 1 < tag 1 seq 1 a.x fails 0 deliveries 1\n"
        "[1000] error deleted: the subscription was deleted\n"
        "[1000] done\n"
        "[1000] error not_found: the subscription is no longer attached\n"
        "[1000] error not_found: there is no subscription \"s\": create it, or check the name\n"
        "[1000] done created\n"
        "s: floor 1 next 1 ready 0 leased 0 delayed 0 dead 0 idle no_workers\n");
    world_close(&w);
}

static void the_cap_of_unsettled_events_stops_reading(void **state) {
    (void)state;
    struct world w = {.options = {.outstanding_max = 3}};
    struct policy p = quick(0);
    p.backoff_min_ms = p.backoff_max_ms = 9;
    world_open(&w);
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 100, 0);
    for (int i = 0; i < 5; i++) world_publish(&w, "t", "");
    for (uint64_t tag = 1; tag <= 3; tag++) world_nack(&w, 1, tag, NACK_FAIL, 1000, "x");
    buf_clear(&w.log);
    world_show(&w, "s");
    world_wait(&w, 1000);
    world_settle(&w, COMMAND_ACK, 1, 4, 6, false);
    world_show(&w, "s");
    world_expect(&w,
                 "s: floor 1 next 4 ready 0 leased 0 delayed 3 dead 0 idle cap\n"
                 "[2000] 1 < tag 4 seq 1 t fails 1 deliveries 2\n"
                 "[2000] 1 < tag 5 seq 2 t fails 1 deliveries 2\n"
                 "[2000] 1 < tag 6 seq 3 t fails 1 deliveries 2\n"
                 "[2000] 1 < tag 7 seq 4 t fails 0 deliveries 1\n"
                 "[2000] 1 < tag 8 seq 5 t fails 0 deliveries 1\n"
                 "s: floor 4 next 6 ready 0 leased 2 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

/* A worker that settles the same tag for ever, and asks for no answer, makes no turn to give away:
 * the turn that stays open must not grow. */
static void settling_again_and_again_costs_no_memory(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    world_create(&w, "s", NULL, NULL, START_NEW);
    world_attach(&w, 1, "s", 1, 0);
    world_publish(&w, "t", "");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    for (int i = 0; i < 1000; i++) world_settle(&w, COMMAND_ACK, 1, 1, 1, false);
    assert_true(w.engine->turn == NULL || w.engine->turn->batch.arena.used_bytes == 0);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_is_delivered_and_acked),
        cmocka_unit_test(the_same_id_is_journaled_once),
        cmocka_unit_test(ids_are_forgotten_by_generations),
        cmocka_unit_test(a_nacked_event_comes_back_after_its_backoff),
        cmocka_unit_test(poison_becomes_a_dead_letter),
        cmocka_unit_test(a_lost_worker_counts_only_what_it_had_started),
        cmocka_unit_test(an_expired_lease_can_be_acked_late_unless_handed_out_anew),
        cmocka_unit_test(a_restart_keeps_what_was_confirmed),
        cmocka_unit_test(nothing_is_said_before_it_is_durable),
        cmocka_unit_test(a_replay_never_moves_the_live_position),
        cmocka_unit_test(workers_share_and_a_full_store_refuses_only_new_events),
        cmocka_unit_test(policies_are_compared_and_deletion_ends_workers),
        cmocka_unit_test(the_cap_of_unsettled_events_stops_reading),
        cmocka_unit_test(settling_again_and_again_costs_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
