/* Ordered subscriptions as transcripts on virtual time: one event at a time per key, in the order
 * of the journal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/engine_world.h"

static struct policy by_subject(void) {
    struct policy p = policy_default();
    p.lease_ms = 4000;
    p.backoff_min_ms = p.backoff_max_ms = 8;
    p.ordered = true;
    return p;
}

/* Events of these types, the first letter of each being its subject ("a1": subject "a"). */
static void publish_types(struct world *w, const char *const *types, size_t count) {
    struct event events[16];
    struct command c = {.kind = COMMAND_PUBLISH, .project = PROJECT_DEFAULT};
    for (size_t i = 0; i < count; i++) {
        events[i] = (struct event){.type = slice_str(types[i]), .subject = slice_of(types[i], 1)};
    }
    c.u.publish.events = events;
    c.u.publish.count = count;
    world_run(w, &c);
}
#define PUBLISH(w, ...)                                                                            \
    publish_types((w), (const char *const[]){__VA_ARGS__},                                         \
                  sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static void one_at_a_time_per_subject_in_order(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    world_attach(&w, 2, "s", 10, 0);
    PUBLISH(&w, "a1", "a2", "b1", "a3", "b2");
    world_show(&w, "s");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, false);
    world_settle(&w, COMMAND_ACK, 1, 2, 2, false);
    world_settle(&w, COMMAND_ACK, 2, 1, 1, false);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] attached 2 backlog 0\n"
                 "[1000] published 1 2 3 4 5\n"
                 "[1000] 1 < tag 1 seq 1 a1 fails 0 deliveries 1\n"
                 "[1000] 2 < tag 1 seq 3 b1 fails 0 deliveries 1\n"
                 "s: floor 1 next 6 ready 0 leased 2 delayed 0 dead 0 idle order blocked 3\n"
                 "[1000] 1 < tag 2 seq 2 a2 fails 0 deliveries 1\n"
                 "[1000] 2 < tag 2 seq 4 a3 fails 0 deliveries 1\n"
                 "[1000] 1 < tag 3 seq 5 b2 fails 0 deliveries 1\n");
    world_close(&w);
}

static void the_key_may_be_a_name_of_user_metadata(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = by_subject();
    p.order_key = slice_str("customer");
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    const char *const metadata[] = {"{\"customer\":\"x\"}", "{\"customer\":\"y\"}",
                                    "{\"customer\":\"x\"}", "{\"other\":\"x\"}",
                                    "{\"customer\":7}",     "{\"customer\":7}"};
    for (size_t i = 0; i < sizeof metadata / sizeof metadata[0]; i++) {
        struct event event = {.type = slice_str("t"),
                              .subject = slice_str("same"),
                              .metadata = slice_str(metadata[i])};
        world_event(&w, &event);
    }
    world_show(&w, "s");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, false);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] published 2\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[1000] published 3\n"
                 "[1000] published 4\n"
                 "[1000] 1 < tag 3 seq 4 t fails 0 deliveries 1\n"
                 "[1000] published 5\n"
                 "[1000] 1 < tag 4 seq 5 t fails 0 deliveries 1\n"
                 "[1000] published 6\n"
                 "s: floor 1 next 7 ready 0 leased 4 delayed 0 dead 0 idle order blocked 2\n"
                 "[1000] 1 < tag 5 seq 3 t fails 0 deliveries 1\n");
    world_note(&w, "a pointer into it, and it is on disk");
    p.order_key = slice_str("/job/group");
    world_create(&w, "pointer", NULL, &p, START_NEW);
    world_crash(&w);
    world_attach(&w, 2, "pointer", 10, 0);
    for (int i = 0; i < 2; i++) {
        struct event event = {.type = slice_str("t"),
                              .metadata = slice_str("{\"job\":{\"group\":\"nightly\"}}")};
        world_event(&w, &event);
    }
    world_show(&w, "pointer");
    world_expect(
        &w,
        "-- a pointer into it, and it is on disk\n"
        "[1000] done created\n"
        "[1000] attached 2 backlog 0\n"
        "[1000] published 7\n"
        "[1000] 2 < tag 1 seq 7 t fails 0 deliveries 1\n"
        "[1000] published 8\n"
        "pointer: floor 7 next 9 ready 0 leased 1 delayed 0 dead 0 idle order blocked 1\n");
    world_close(&w);
}

static void events_without_a_key_are_not_ordered(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    world_publish_many(&w, "t", 3);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[1000] 1 < tag 3 seq 3 t fails 0 deliveries 1\n");
    world_close(&w);
}

static void whatever_holds_an_event_back_holds_its_key_only(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    PUBLISH(&w, "a1", "a2", "b1", "b2", "c1");
    world_note(&w, "a failure's backoff");
    world_nack(&w, 1, 1, NACK_FAIL, DELAY_BY_POLICY, "boom");
    world_note(&w, "a release, at once and later");
    world_nack(&w, 1, 2, NACK_RELEASE, 0, "");
    world_nack(&w, 1, 3, NACK_RELEASE, 20, "");
    world_show(&w, "s");
    PUBLISH(&w, "c2", "d1");
    world_wait(&w, 8);
    world_wait(&w, 12);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3 4 5\n"
                 "[1000] 1 < tag 1 seq 1 a1 fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 3 b1 fails 0 deliveries 1\n"
                 "[1000] 1 < tag 3 seq 5 c1 fails 0 deliveries 1\n"
                 "-- a failure's backoff\n"
                 "-- a release, at once and later\n"
                 "[1000] 1 < tag 4 seq 3 b1 fails 0 deliveries 2\n"
                 "s: floor 1 next 6 ready 0 leased 1 delayed 2 dead 0 idle order blocked 2\n"
                 "[1000] published 6 7\n"
                 "[1000] 1 < tag 5 seq 7 d1 fails 0 deliveries 1\n"
                 "[1008] 1 < tag 6 seq 1 a1 fails 1 deliveries 2\n"
                 "[1020] 1 < tag 7 seq 5 c1 fails 0 deliveries 2\n");
    world_note(&w, "a lease that runs out");
    world_settle(&w, COMMAND_ACK, 1, 4, 4, false);
    world_wait(&w, 4000);
    world_wait(&w, 8);
    world_show(&w, "s");
    world_expect(&w,
                 "-- a lease that runs out\n"
                 "[1020] 1 < tag 8 seq 4 b2 fails 0 deliveries 1\n"
                 "[5020] 1 revoked tag 5 expired\n"
                 "[5020] 1 revoked tag 6 expired\n"
                 "[5020] 1 revoked tag 7 expired\n"
                 "[5020] 1 revoked tag 8 expired\n"
                 "[5028] 1 < tag 9 seq 7 d1 fails 1 deliveries 2\n"
                 "[5028] 1 < tag 10 seq 1 a1 fails 2 deliveries 3\n"
                 "[5028] 1 < tag 11 seq 5 c1 fails 1 deliveries 3\n"
                 "[5028] 1 < tag 12 seq 4 b2 fails 1 deliveries 2\n"
                 "s: floor 1 next 8 ready 0 leased 4 delayed 0 dead 0 idle order blocked 2\n");
    world_close(&w);
}

static void a_long_backoff_keeps_its_place(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    PUBLISH(&w, "a1", "a2", "b1");
    world_nack(&w, 1, 1, NACK_FAIL, 3600 * 1000, "boom"); /* others wait on disk for so long */
    world_settle(&w, COMMAND_ACK, 1, 2, 2, false);
    world_show(&w, "s");
    world_wait(&w, 3600 * 1000);
    world_settle(&w, COMMAND_ACK, 1, 3, 3, false);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3\n"
                 "[1000] 1 < tag 1 seq 1 a1 fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 3 b1 fails 0 deliveries 1\n"
                 "s: floor 1 next 4 ready 0 leased 0 delayed 1 dead 0 idle order blocked 1\n"
                 "[3601000] 1 < tag 3 seq 1 a1 fails 1 deliveries 2\n"
                 "[3601000] 1 < tag 4 seq 2 a2 fails 0 deliveries 1\n");
    world_close(&w);
}

static void a_late_ack_frees_the_key_and_so_does_a_dead_letter(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = by_subject();
    p.max_fails = 2;
    p.max_age_ms = 60000;
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 3, 0);
    PUBLISH(&w, "a1", "a2", "a3", "a4", "a5");
    world_wait(&w, 4000);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, false);
    world_nack(&w, 1, 2, NACK_REJECT, 0, "no use");
    world_nack(&w, 1, 3, NACK_FAIL, 0, "boom");
    world_nack(&w, 1, 4, NACK_FAIL, 0, "boom");
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3 4 5\n"
                 "[1000] 1 < tag 1 seq 1 a1 fails 0 deliveries 1\n"
                 "[5000] 1 revoked tag 1 expired\n"
                 "[5000] 1 < tag 2 seq 2 a2 fails 0 deliveries 1\n"
                 "[5000] 1 < tag 3 seq 3 a3 fails 0 deliveries 1\n"
                 "[5000] 1 < tag 4 seq 3 a3 fails 1 deliveries 2\n"
                 "[5000] 1 < tag 5 seq 4 a4 fails 0 deliveries 1\n");
    world_note(&w, "the age of the next ones is looked at when their turn comes");
    world_wait(&w, 2000);
    world_nack(&w, 1, 5, NACK_RELEASE, 60000, "");
    world_wait(&w, 60000);
    world_show_dead(&w, "s");
    world_show(&w, "s");
    world_expect(&w,
                 "-- the age of the next ones is looked at when their turn comes\n"
                 "dead seq 2 rejected fails 0 deliveries 1 [/no use/]\n"
                 "dead seq 3 max_fails fails 2 deliveries 2 [/boom/]\n"
                 "dead seq 4 expired fails 0 deliveries 1 [//]\n"
                 "dead seq 5 expired fails 0 deliveries 0 [//]\n"
                 "s: floor 6 next 6 ready 0 leased 0 delayed 0 dead 4 idle empty\n");
    world_close(&w);
}

static void elsewhere_keeps_the_order(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    PUBLISH(&w, "a1", "a2", "b1");
    world_nack(&w, 1, 1, NACK_ELSEWHERE, 5000, "not mine");
    world_show(&w, "s");
    world_attach(&w, 2, "s", 1, 0);
    world_wait(&w, 1000);
    world_settle(&w, COMMAND_ACK, 2, 1, 1, false);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3\n"
                 "[1000] 1 < tag 1 seq 1 a1 fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 3 b1 fails 0 deliveries 1\n"
                 "s: floor 1 next 4 ready 0 leased 1 delayed 1 dead 0 idle order blocked 1\n"
                 "[1000] attached 2 backlog 0\n"
                 "[2000] 2 < tag 1 seq 1 a1 fails 0 deliveries 2\n"
                 "[2000] 1 < tag 3 seq 2 a2 fails 0 deliveries 1\n");
    world_close(&w);
}

static void a_lost_worker_gives_its_keys_back(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 1);
    PUBLISH(&w, "a1", "b1", "a2", "b2");
    world_attach(&w, 2, "s", 10, 1);
    world_detach(&w, 1, DETACH_LOST);
    world_wait(&w, 8);
    world_settle(&w, COMMAND_ACK, 2, 1, 1, false);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3 4\n"
                 "[1000] 1 < tag 1 seq 1 a1 fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 2 b1 fails 0 deliveries 1\n"
                 "[1000] attached 2 backlog 0\n"
                 "[1000] 2 < tag 1 seq 2 b1 fails 0 deliveries 2\n"
                 "[1008] 2 < tag 2 seq 1 a1 fails 1 deliveries 2\n"
                 "[1008] 2 < tag 3 seq 4 b2 fails 0 deliveries 1\n");
    world_close(&w);
}

static void a_restart_keeps_the_order(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    PUBLISH(&w, "a1", "b1", "a2", "b2", "a3", "c1");
    world_nack(&w, 1, 1, NACK_FAIL, 1000, "boom");
    world_settle(&w, COMMAND_ACK, 1, 2, 2, true);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3 4 5 6\n"
                 "[1000] 1 < tag 1 seq 1 a1 fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 2 b1 fails 0 deliveries 1\n"
                 "[1000] 1 < tag 3 seq 6 c1 fails 0 deliveries 1\n"
                 "[1000] 1 settled ok 2-2\n"
                 "[1000] 1 < tag 4 seq 4 b2 fails 0 deliveries 1\n"
                 "s: floor 1 next 7 ready 0 leased 2 delayed 1 dead 0 idle order blocked 2\n");
    world_crash(&w);
    world_show(&w, "s");
    world_attach(&w, 1, "s", 10, 0);
    PUBLISH(&w, "a4", "c2");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, false);
    world_wait(&w, 1000);
    world_settle(&w, COMMAND_ACK, 1, 3, 3, false);
    world_settle(&w, COMMAND_ACK, 1, 4, 4, false);
    world_expect(&w,
                 "s: floor 1 next 7 ready 2 leased 0 delayed 1 dead 0 idle no_workers blocked 2\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] 1 < tag 1 seq 4 b2 fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 6 c1 fails 0 deliveries 1\n"
                 "[1000] published 7 8\n"
                 "[2000] 1 < tag 3 seq 1 a1 fails 1 deliveries 2\n"
                 "[2000] 1 < tag 4 seq 3 a2 fails 0 deliveries 1\n"
                 "[2000] 1 < tag 5 seq 5 a3 fails 0 deliveries 1\n");
    world_close(&w);
}

static void after_a_restart_a_claimed_event_holds_its_key(void **state) {
    (void)state;
    struct world w = {.options = {.restart_grace_ms = 10000}};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    PUBLISH(&w, "a1", "a2", "b1");
    world_wait(&w, 50);
    world_crash(&w);
    buf_clear(&w.log);
    struct claim claims[] = {{1, 1, false}, {2, 2, false}}; /* 2 was never handed out */
    struct command c = attach_command(2, "s", 10, 0);
    c.u.attach.session = c.u.attach.resumes = 77;
    c.u.attach.claims = claims;
    c.u.attach.claims_count = 2;
    world_run(&w, &c);
    world_show(&w, "s");
    world_settle(&w, COMMAND_ACK, 2, 1, 1, false);
    world_settle(&w, COMMAND_ACK, 2, 3, 3, false);
    world_wait(&w, 10000);
    world_expect(&w,
                 "[1050] attached 2 backlog 0 resumed 1\n"
                 "[1050] 2 revoked tag 2 lost\n"
                 "s: floor 1 next 4 ready 0 leased 1 delayed 1 dead 0 idle order blocked 1\n"
                 "[1050] 2 < tag 3 seq 2 a2 fails 0 deliveries 1\n"
                 "[11050] 2 < tag 4 seq 3 b1 fails 0 deliveries 1\n");
    world_close(&w);
}

static void a_replay_is_ordered_with_what_is_out(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    PUBLISH(&w, "a1", "b1", "a2");
    world_settle(&w, COMMAND_ACK, 1, 1, 2, false);
    world_task(&w, TASK_REPLAY, "s", 1, 3, 0, "");
    PUBLISH(&w, "a3");
    world_show(&w, "s");
    for (uint64_t tag = 3; tag <= 7; tag++) world_settle(&w, COMMAND_ACK, 1, tag, tag, false);
    world_show_task(&w, 2);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3\n"
                 "[1000] 1 < tag 1 seq 1 a1 fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 2 b1 fails 0 deliveries 1\n"
                 "[1000] 1 < tag 3 seq 3 a2 fails 0 deliveries 1\n"
                 "[1000] done created\n"
                 "[1000] 1 < tag 4 seq 2 b1 fails 0 deliveries 1 replay\n"
                 "[1000] published 4\n"
                 "s: floor 3 next 5 ready 0 leased 2 delayed 0 dead 0 idle order blocked 3\n"
                 "[1000] 1 < tag 5 seq 1 a1 fails 0 deliveries 1 replay\n"
                 "[1000] 1 < tag 6 seq 3 a2 fails 0 deliveries 1 replay\n"
                 "[1000] 1 < tag 7 seq 4 a3 fails 0 deliveries 1\n"
                 "replay 2: finished 1-3 next 4 matched 3 acked 3 expired 0\n"
                 "s: floor 5 next 5 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

/* The replayed a1 has its key and waits when the broker stops; the live a2 waits for it. */
static void a_restart_keeps_one_at_a_time_beside_a_replay(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    PUBLISH(&w, "a1");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_task(&w, TASK_REPLAY, "s", 1, 1, 0, "");
    world_nack(&w, 1, 2, NACK_FAIL, 1000, "boom");
    PUBLISH(&w, "a2");
    world_show(&w, "s");
    world_restart(&w);
    world_attach(&w, 1, "s", 10, 0);
    world_wait(&w, 1000);
    world_show(&w, "s");
    world_settle(&w, COMMAND_ACK, 1, 1, 1, false);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 a1 fails 0 deliveries 1\n"
                 "[1000] 1 settled ok 1-1\n"
                 "[1000] done created\n"
                 "[1000] 1 < tag 2 seq 1 a1 fails 0 deliveries 1 replay\n"
                 "[1000] published 2\n"
                 "s: floor 2 next 3 ready 0 leased 0 delayed 1 dead 0 idle order blocked 1\n"
                 "[1000] attached 1 backlog 0\n"
                 "[1000] 1 < tag 1 seq 2 a2 fails 0 deliveries 1\n"
                 "s: floor 2 next 3 ready 0 leased 1 delayed 0 dead 0 idle order blocked 1\n"
                 "[2000] 1 < tag 2 seq 1 a1 fails 1 deliveries 2 replay\n"
                 "s: floor 3 next 3 ready 0 leased 1 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

static void a_redriven_event_goes_alone_too(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    PUBLISH(&w, "a1", "a2", "a3");
    world_nack(&w, 1, 1, NACK_REJECT, 0, "no use");
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 0, "");
    world_show(&w, "s");
    world_settle(&w, COMMAND_ACK, 1, 2, 2, false);
    world_settle(&w, COMMAND_ACK, 1, 3, 3, false);
    world_nack(&w, 1, 4, NACK_FAIL, DELAY_BY_POLICY, "boom");
    PUBLISH(&w, "a4");
    world_wait(&w, 8);
    world_settle(&w, COMMAND_ACK, 1, 5, 5, false);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3\n"
                 "[1000] 1 < tag 1 seq 1 a1 fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 2 a2 fails 0 deliveries 1\n"
                 "[1000] done created\n"
                 "s: floor 2 next 4 ready 0 leased 1 delayed 0 dead 0 idle order blocked 2\n"
                 "[1000] 1 < tag 3 seq 3 a3 fails 0 deliveries 1\n"
                 "[1000] 1 < tag 4 seq 1 a1 fails 0 deliveries 2 redrive\n"
                 "[1000] published 4\n"
                 "[1008] 1 < tag 5 seq 1 a1 fails 1 deliveries 3 redrive\n"
                 "[1008] 1 < tag 6 seq 4 a4 fails 0 deliveries 1\n"
                 "s: floor 4 next 5 ready 0 leased 1 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

/* The redriven a1 was out and a2 waited; after the restart a2 is first, so the claim is refused. */
static void after_a_restart_a_claim_does_not_break_the_order(void **state) {
    (void)state;
    struct world w = {.options = {.restart_grace_ms = 10000}};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    world_wait(&w, 10000);
    PUBLISH(&w, "a1");
    world_nack(&w, 1, 1, NACK_REJECT, 0, "no use");
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 0, "");
    PUBLISH(&w, "a2");
    world_wait(&w, 50);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[11000] published 1\n"
                 "[11000] 1 < tag 1 seq 1 a1 fails 0 deliveries 1\n"
                 "[11000] done created\n"
                 "[11000] 1 < tag 2 seq 1 a1 fails 0 deliveries 2 redrive\n"
                 "[11000] published 2\n");
    world_crash(&w);
    struct claim claims[] = {{2, 1, false}};
    struct command c = attach_command(2, "s", 10, 0);
    c.u.attach.session = c.u.attach.resumes = 77;
    c.u.attach.claims = claims;
    c.u.attach.claims_count = 1;
    world_run(&w, &c);
    world_show(&w, "s");
    world_wait(&w, 10000);
    world_show(&w, "s");
    world_expect(&w,
                 "[11050] attached 2 backlog 0\n"
                 "[11050] 2 revoked tag 2 lost\n"
                 "s: floor 2 next 3 ready 0 leased 0 delayed 1 dead 0 idle order blocked 1\n"
                 "[21050] 2 < tag 3 seq 2 a2 fails 0 deliveries 1\n"
                 "s: floor 2 next 3 ready 0 leased 1 delayed 0 dead 0 idle order blocked 1\n");
    world_close(&w);
}

static void what_waits_for_its_key_counts_for_the_cap(void **state) {
    (void)state;
    struct world w = {.options = {.outstanding_max = 4}};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    PUBLISH(&w, "a1", "a2", "a3", "a4", "b1");
    world_show(&w, "s"); /* until the cap of unsettled ones */
    world_settle(&w, COMMAND_ACK, 1, 1, 1, false);
    world_show(&w, "s");
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1 2 3 4 5\n"
                 "[1000] 1 < tag 1 seq 1 a1 fails 0 deliveries 1\n"
                 "s: floor 1 next 5 ready 0 leased 1 delayed 0 dead 0 idle cap blocked 3\n"
                 "[1000] 1 < tag 2 seq 2 a2 fails 0 deliveries 1\n"
                 "[1000] 1 < tag 3 seq 5 b1 fails 0 deliveries 1\n"
                 "s: floor 2 next 6 ready 0 leased 2 delayed 0 dead 0 idle cap blocked 2\n");
    world_close(&w);
}

/* deliver_at is a lower bound by the clock of the wall, also for what waits in memory. */
static void a_clock_set_back_brings_nothing_early(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    world_publish_due(&w, "later", "k", 60000);
    w.time.wall_ms -= 5000;
    world_turn(&w);
    world_wait(&w, 60000);
    world_show(&w, "s");
    world_wait(&w, 4999);
    world_wait(&w, 1);
    world_expect(&w,
                 "[1000] attached 1 backlog 0\n"
                 "[1000] published 1\n"
                 "s: floor 1 next 2 ready 0 leased 0 delayed 1 dead 0 idle backoff\n"
                 "[66000] 1 < tag 1 seq 1 later fails 0 deliveries 1\n");
    world_close(&w);
}

/* A backoff goes by its timer, also after a restart: a clock that is wrong makes it no longer. */
static void a_clock_set_back_makes_no_backoff_longer(void **state) {
    (void)state;
    struct world w = {0};
    struct policy p = by_subject();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 10, 0);
    PUBLISH(&w, "k1");
    world_nack(&w, 1, 1, NACK_FAIL, 30000, "later");
    world_crash(&w);
    world_attach(&w, 1, "s", 10, 0);
    buf_clear(&w.log);
    w.time.wall_ms -= 3600000;
    world_turn(&w);
    world_wait(&w, 29999);
    world_wait(&w, 1);
    world_expect(&w, "[31000] 1 < tag 1 seq 1 k1 fails 1 deliveries 2\n");
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_at_a_time_per_subject_in_order),
        cmocka_unit_test(the_key_may_be_a_name_of_user_metadata),
        cmocka_unit_test(events_without_a_key_are_not_ordered),
        cmocka_unit_test(whatever_holds_an_event_back_holds_its_key_only),
        cmocka_unit_test(a_long_backoff_keeps_its_place),
        cmocka_unit_test(a_late_ack_frees_the_key_and_so_does_a_dead_letter),
        cmocka_unit_test(elsewhere_keeps_the_order),
        cmocka_unit_test(a_lost_worker_gives_its_keys_back),
        cmocka_unit_test(a_restart_keeps_the_order),
        cmocka_unit_test(after_a_restart_a_claimed_event_holds_its_key),
        cmocka_unit_test(a_replay_is_ordered_with_what_is_out),
        cmocka_unit_test(a_restart_keeps_one_at_a_time_beside_a_replay),
        cmocka_unit_test(a_redriven_event_goes_alone_too),
        cmocka_unit_test(after_a_restart_a_claim_does_not_break_the_order),
        cmocka_unit_test(what_waits_for_its_key_counts_for_the_cap),
        cmocka_unit_test(a_clock_set_back_brings_nothing_early),
        cmocka_unit_test(a_clock_set_back_makes_no_backoff_longer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
