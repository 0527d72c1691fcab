/* What webhooks rely on, on virtual time: the schedule of attempts that fail for a day, also over
 * restarts; 10,000 events between attempts when the broker is killed; and one who works alone on
 * its subscription, for whom no restart has a grace period. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/prng.h"
#include "storage/record.h"
#include "tests/unit/engine_world.h"

#define SECOND   1000
#define HOUR     (3600 * (uint64_t)SECOND)
#define DAY      (24 * HOUR)
#define GRACE_MS (30 * SECOND)

/* Attempt n + 1 comes so long after attempt n failed, and at most a tenth later. */
static const uint64_t delays_s[] = {5,    10,   20,   40,    80,    160,   320,  640,
                                    1280, 2560, 5120, 10240, 18000, 18000, 18000};
#define ATTEMPTS (sizeof delays_s / sizeof delays_s[0] + 1) /* the next would be after 92,475 s */

static struct policy webhook_policy(void) {
    struct policy p = policy_default();
    p.backoff_min_ms = 5 * SECOND;
    p.backoff_max_ms = 5 * HOUR;
    p.backoff_factor_permille = 2000;
    p.backoff_jitter_permille = 100;
    p.max_age_ms = DAY;
    p.max_fails = 20;
    p.lag = LAG_EXPIRE;
    return p;
}

/* ---- an endpoint ---- */

struct hand_out {
    uint64_t tag, seq;
    uint32_t fails, deliveries;
};

/* The worker of the room: what it was given and has not answered. */
struct endpoint {
    struct world w;
    uint64_t attachment;
    struct hand_out *out;
    size_t count, cap;
};

static void on_effect(void *ctx, const struct effect *f) {
    struct endpoint *p = ctx;
    assert_int_equal(f->err, ERR_OK);
    assert_true(f->kind != EFFECT_REVOKED);
    if (f->kind != EFFECT_DELIVER || f->u.deliver.attachment != p->attachment) return;
    if (p->count == p->cap) {
        p->cap = p->cap == 0 ? 256 : 2 * p->cap;
        p->out = mem_realloc(p->out, p->cap * sizeof *p->out);
    }
    p->out[p->count++] = (struct hand_out){f->u.deliver.tag, f->u.deliver.event.seq,
                                           f->u.deliver.fails, f->u.deliver.deliveries};
}

static void attach_alone(struct endpoint *p) {
    struct command c = attach_command(++p->attachment, "webhook.a", 16384, 0);
    c.u.attach.window_bytes = 64 << 20;
    c.u.attach.alone = true;
    p->count = 0;
    world_run(&p->w, &c);
}

static void endpoint_open(struct endpoint *p, uint64_t seed) {
    struct policy policy = webhook_policy();
    *p = (struct endpoint){.w = {.quiet = true}};
    p->w.options.seed = seed;
    p->w.options.restart_grace_ms = GRACE_MS;
    p->w.on_effect = on_effect;
    p->w.on_effect_ctx = p;
    world_open(&p->w);
    world_create(&p->w, "webhook.a", NULL, &policy, START_NEW);
    attach_alone(p);
}

static void endpoint_close(struct endpoint *p) {
    world_close(&p->w);
    free(p->out);
}

static void answer(struct endpoint *p, enum command_kind kind, const struct hand_out *h,
                   uint64_t delay_ms) {
    struct tag_range range = {h->tag, h->tag};
    struct command c = {.kind = kind};
    c.u.settle.attachment = p->attachment;
    c.u.settle.ranges = &range;
    c.u.settle.count = 1;
    c.u.settle.kind = NACK_FAIL;
    c.u.settle.delay_ms = delay_ms;
    c.u.settle.failure.message = slice_str("503 Service Unavailable");
    world_step(&p->w, &c);
}

/* ---- the schedule ---- */

struct schedule {
    uint64_t failed_ms; /* the last time */
    uint32_t attempts;
};

/* A hand-out comes when its time has come, and then at once. */
static void check_time(const struct schedule *s, const struct hand_out *h, uint64_t now_ms) {
    assert_int_equal(h->fails, s->attempts);
    assert_true(h->deliveries > h->fails);
    if (s->attempts == 0) return;
    assert_true(s->attempts < ATTEMPTS);
    uint64_t delay_ms = delays_s[s->attempts - 1] * SECOND;
    assert_in_range(now_ms - s->failed_ms, delay_ms, delay_ms + delay_ms / 10);
}

static void fail_all(struct endpoint *p, struct schedule *schedules) {
    for (size_t i = 0; i < p->count; i++) {
        struct schedule *s = &schedules[p->out[i].seq];
        check_time(s, &p->out[i], p->w.time.now_ms);
        answer(p, COMMAND_NACK, &p->out[i], DELAY_BY_POLICY);
        s->failed_ms = p->w.time.now_ms;
        s->attempts++;
    }
    p->count = 0;
    world_turn(&p->w);
}

static uint64_t wait_for_next(struct endpoint *p, uint64_t until_ms) {
    uint64_t at_ms = engine_next_deadline(p->w.engine, p->w.time);
    if (at_ms > until_ms) at_ms = until_ms;
    world_wait(&p->w, at_ms - p->w.time.now_ms);
    return p->w.time.now_ms;
}

static bool is_expired(void *ctx, const struct dead_letter *d) {
    ++*(size_t *)ctx;
    assert_true(slice_eq_str(d->reason, "expired"));
    assert_true(slice_eq_str(d->failure.message, "503 Service Unavailable"));
    assert_int_equal(d->fails, ATTEMPTS);
    /* The last attempt is within the day, and nothing waits for its end. */
    assert_in_range(d->died_at_ms - d->event.received_at_ms, 74475 * SECOND, 81923 * SECOND);
    return true;
}

static void check_all_expired(struct endpoint *p, size_t events) {
    struct subscription_info info;
    size_t dead = 0;
    assert_true(engine_dead_scan(p->w.engine, PROJECT_DEFAULT, slice_str("webhook.a"), 0, 0,
                                 is_expired, &dead));
    assert_int_equal(dead, events);
    assert_true(
        engine_subscription_get(p->w.engine, PROJECT_DEFAULT, slice_str("webhook.a"), &info));
    assert_true(info.dead == events && info.delayed == 0 && info.ready + info.leased == 0);
    store_end_reads(p->w.store);
}

static void an_event_that_always_fails(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct endpoint p;
        struct schedule schedules[4] = {0};
        endpoint_open(&p, seed);
        uint64_t end_ms = p.w.time.now_ms + DAY;
        for (int i = 0; i < 3; i++) world_publish(&p.w, "batch.succeeded", "");
        do fail_all(&p, schedules);
        while (wait_for_next(&p, end_ms) < end_ms);
        assert_int_equal(p.count, 0);
        for (int i = 1; i <= 3; i++) assert_int_equal(schedules[i].attempts, ATTEMPTS);
        check_all_expired(&p, 3);
        endpoint_close(&p);
    }
}

/* Restarts at any time, also while an attempt is under way: that one is made once more at once. */
static void the_schedule_over_restarts(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct endpoint p;
        struct schedule schedules[4] = {0};
        struct prng prng;
        endpoint_open(&p, seed);
        prng_seed(&prng, seed);
        uint64_t end_ms = p.w.time.now_ms + DAY;
        for (int i = 0; i < 3; i++) world_publish(&p.w, "batch.succeeded", "");
        do {
            if (prng_below(&prng, 3) == 0) {
                size_t out = p.count;
                world_crash(&p.w);
                attach_alone(&p);
                assert_int_equal(p.count, out);
            }
            fail_all(&p, schedules);
            if (prng_below(&prng, 3) != 0) continue;
            world_crash(&p.w);
            attach_alone(&p);
            assert_int_equal(p.count, 0); /* they go on waiting */
        } while (wait_for_next(&p, end_ms) < end_ms);
        for (int i = 1; i <= 3; i++) assert_int_equal(schedules[i].attempts, ATTEMPTS);
        check_all_expired(&p, 3);
        endpoint_close(&p);
    }
}

/* ---- 10,000 between attempts ---- */

#define MANY    10000
#define BATCH   1000
#define STEP_MS 500

struct waiting {
    uint32_t fails, deliveries;
    uint64_t due_wall_ms;
    bool came;
};

/* What the disk says of those that wait, whatever the engine has in memory. */
static void read_rows(struct endpoint *p, struct waiting *waiting, size_t *in_memory,
                      size_t *on_disk) {
    struct store_iter it;
    store_seek(p->w.store, STORE_RETRIES, slice_of(NULL, 0), &it);
    for (; it.valid; store_next(p->w.store, &it), ++*in_memory) {
        struct record_retry r;
        assert_true(record_retry_decode(it.value, &r));
        waiting[key_read_u64(it.key, 8)] =
            (struct waiting){r.fails, r.deliveries, r.due_wall_ms, false};
    }
    store_iter_end(p->w.store, &it);
    store_seek(p->w.store, STORE_DUE, slice_of(NULL, 0), &it);
    for (; it.valid; store_next(p->w.store, &it), ++*on_disk) {
        struct record_due r;
        assert_true(record_due_decode(it.value, &r));
        waiting[key_read_u64(it.key, 12)] =
            (struct waiting){r.fails, r.deliveries, key_read_u64(it.key, 4), false};
    }
    store_iter_end(p->w.store, &it);
    store_end_reads(p->w.store);
}

/* Event seq has failed 1 + seq % 9 times, the last time just now. */
static void fail_many(struct endpoint *p) {
    for (int i = 0; i < MANY / BATCH; i++) world_publish_many(&p->w, "batch.succeeded", BATCH);
    while (p->count > 0) {
        size_t count = p->count;
        struct hand_out *out = p->out;
        p->out = NULL;
        p->count = p->cap = 0;
        for (size_t i = 0; i < count; i++) {
            bool last = out[i].fails == out[i].seq % 9;
            answer(p, COMMAND_NACK, &out[i], last ? DELAY_BY_POLICY : 0);
        }
        free(out);
        world_turn(&p->w);
    }
}

static void ten_thousand_between_attempts_and_a_crash(void **state) {
    (void)state;
    struct endpoint p;
    struct waiting *waiting = mem_zalloc((MANY + 1) * sizeof *waiting);
    size_t in_memory = 0, on_disk = 0, came = 0;
    endpoint_open(&p, 7);
    fail_many(&p);
    read_rows(&p, waiting, &in_memory, &on_disk);
    assert_int_equal(in_memory + on_disk, MANY);
    assert_true(in_memory > MANY / 4 && on_disk > MANY / 4);
    for (uint64_t seq = 1; seq <= MANY; seq++) {
        uint64_t delay_ms = delays_s[seq % 9] * SECOND;
        assert_int_equal(waiting[seq].fails, 1 + seq % 9);
        assert_int_equal(waiting[seq].deliveries, waiting[seq].fails);
        assert_in_range(waiting[seq].due_wall_ms - p.w.time.wall_ms, delay_ms,
                        delay_ms + delay_ms / 10);
    }
    world_wait(&p.w, 2 * SECOND);
    world_crash(&p.w);
    attach_alone(&p);
    assert_int_equal(p.count, 0); /* none was out: none comes twice */
    for (int steps = 0; came < MANY; steps++) {
        assert_true(steps < 1500 * SECOND / STEP_MS);
        world_wait(&p.w, STEP_MS);
        for (size_t i = 0; i < p.count; i++) {
            const struct hand_out *h = &p.out[i];
            struct waiting *was = &waiting[h->seq];
            assert_false(was->came);
            was->came = true;
            assert_true(h->fails == was->fails && h->deliveries == was->deliveries + 1);
            assert_in_range(p.w.time.wall_ms - was->due_wall_ms, 0, STEP_MS - 1);
            answer(&p, COMMAND_ACK, h, 0);
        }
        came += p.count;
        p.count = 0;
        world_turn(&p.w);
    }
    assert_int_equal(came, MANY);
    free(waiting);
    endpoint_close(&p);
}

/* ---- alone ---- */

/* Out are 1, which came from the disk, 2, and a replay's 3; 3 itself failed and comes again in 20
 * s, 4 in 2 minutes, which it waits for on disk. Then the broker is started again. */
static void restart_with_some_out(struct world *w) {
    struct policy p = world_policy();
    p.lease_ms = p.max_hold_ms = HOUR;
    *w = (struct world){.options.restart_grace_ms = GRACE_MS};
    world_open_with(w, &p);
    world_attach(w, 1, "s", 100, 0);
    world_publish_due(w, "from disk", "", SECOND);
    world_wait(w, SECOND);
    for (int i = 0; i < 3; i++) world_publish(w, "t", "");
    world_nack(w, 1, 3, NACK_FAIL, 20 * SECOND, "boom");
    world_nack(w, 1, 4, NACK_FAIL, 120 * SECOND, "boom");
    world_task(w, TASK_REPLAY, "s", 2, 3, 0, "");
    world_settle(w, COMMAND_ACK, 1, 5, 5, true);
    world_restart(w);
    buf_clear(&w->log);
}

static void for_one_who_is_alone_there_is_no_grace(void **state) {
    (void)state;
    struct world w;
    restart_with_some_out(&w);
    world_note(&w, "others wait for those who may come back");
    world_attach(&w, 1, "s", 100, 0);
    world_show(&w, "s");
    world_wait(&w, 20 * SECOND);
    world_wait(&w, GRACE_MS - 20 * SECOND - 1);
    world_wait(&w, 1);
    world_expect(&w,
                 "-- others wait for those who may come back\n"
                 "[2000] attached 1 backlog 0\n"
                 "s: floor 2 next 5 ready 0 leased 0 delayed 5 dead 0 idle backoff\n"
                 "[22000] 1 < tag 1 seq 3 t fails 1 deliveries 2\n"
                 "[32000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[32000] 1 < tag 3 seq 1 from disk fails 0 deliveries 1\n"
                 "[32000] 1 < tag 4 seq 3 t fails 0 deliveries 1 replay\n");
    world_close(&w);

    restart_with_some_out(&w);
    struct command c = attach_command(1, "s", 100, 0);
    c.u.attach.alone = true;
    world_run(&w, &c);
    world_show(&w, "s");
    world_note(&w, "what has its time keeps it");
    world_wait(&w, 19999);
    world_wait(&w, 1);
    world_wait(&w, 99999);
    world_wait(&w, 1);
    world_expect(&w,
                 "[2000] attached 1 backlog 0\n"
                 "[2000] 1 < tag 1 seq 1 from disk fails 0 deliveries 1\n"
                 "[2000] 1 < tag 2 seq 2 t fails 0 deliveries 1\n"
                 "[2000] 1 < tag 3 seq 3 t fails 0 deliveries 1 replay\n"
                 "s: floor 2 next 5 ready 0 leased 3 delayed 2 dead 0 idle backoff\n"
                 "-- what has its time keeps it\n"
                 "[22000] 1 < tag 4 seq 3 t fails 1 deliveries 2\n"
                 "[122000] 1 < tag 5 seq 4 t fails 1 deliveries 2\n");
    world_close(&w);
}

/* Whoever is there gets what the other one's word has freed; and it goes one by one per key. */
static void alone_with_an_order_and_a_full_window(void **state) {
    (void)state;
    struct world w = {.options.restart_grace_ms = GRACE_MS};
    struct policy p = world_policy();
    p.ordered = true;
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 100, 0);
    world_publish_due(&w, "first", "k", 0);
    world_publish_due(&w, "second", "k", 0);
    world_publish_due(&w, "other", "m", 0);
    world_restart(&w);
    world_attach(&w, 1, "s", 100, 0);
    buf_clear(&w.log);
    struct command c = attach_command(2, "s", 0, 0);
    c.u.attach.alone = true;
    world_run(&w, &c);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true);
    world_expect(&w,
                 "[1000] attached 2 backlog 0\n"
                 "[1000] 1 < tag 1 seq 1 first fails 0 deliveries 1\n"
                 "[1000] 1 < tag 2 seq 3 other fails 0 deliveries 1\n"
                 "[1000] 1 settled ok 1-1\n"
                 "[1000] 1 < tag 3 seq 2 second fails 0 deliveries 1\n");
    world_close(&w);
}

/* Nothing is in memory whose state could wake anybody. */
static void alone_frees_what_is_on_disk_for_others(void **state) {
    (void)state;
    struct world w = {.options.restart_grace_ms = GRACE_MS};
    struct policy p = world_policy();
    world_open_with(&w, &p);
    world_attach(&w, 1, "s", 100, 0);
    world_publish_due(&w, "t", "", SECOND);
    world_wait(&w, SECOND);
    world_restart(&w);
    world_attach(&w, 1, "s", 100, 0);
    buf_clear(&w.log);
    struct command c = attach_command(2, "s", 0, 0);
    c.u.attach.alone = true;
    world_run(&w, &c);
    world_expect(&w,
                 "[2000] attached 2 backlog 0\n"
                 "[2000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n");
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_that_always_fails),
        cmocka_unit_test(the_schedule_over_restarts),
        cmocka_unit_test(ten_thousand_between_attempts_and_a_crash),
        cmocka_unit_test(for_one_who_is_alone_there_is_no_grace),
        cmocka_unit_test(alone_with_an_order_and_a_full_window),
        cmocka_unit_test(alone_frees_what_is_on_disk_for_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
