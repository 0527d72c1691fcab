/* What the engine answers to people: lists, places in the journal, limits that are told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/engine_world.h"

/* ---- subscriptions ---- */

static void subscriptions_are_listed_by_name(void **state) {
    (void)state;
    static const char *const expected[] = {"a", "ab", "b", "z.1"};
    struct world w = {.quiet = true};
    struct subscription_info s = {.name = slice_of(NULL, 0)};
    world_open(&w);
    world_create(&w, "b", NULL, NULL, START_NEW);
    world_create(&w, "z.1", NULL, NULL, START_NEW);
    world_create(&w, "ab", NULL, NULL, START_NEW);
    world_create(&w, "a", NULL, NULL, START_NEW);
    for (size_t i = 0; i < 4; i++) {
        assert_true(engine_subscription_next(w.engine, PROJECT_DEFAULT, s.name, &s));
        assert_true(slice_eq_str(s.name, expected[i]));
    }
    assert_false(engine_subscription_next(w.engine, PROJECT_DEFAULT, s.name, &s));
    /* From a name that is not there it goes on with the next. */
    assert_true(engine_subscription_next(w.engine, PROJECT_DEFAULT, slice_str("aa"), &s));
    assert_true(slice_eq_str(s.name, "ab"));
    store_end_reads(w.store);
    world_close(&w);
}

static void settle_all_but(struct world *w, uint64_t attachment, const char *name, uint64_t left) {
    uint64_t count = w->last_seq - left;
    world_attach(w, attachment, name, w->last_seq, 0);
    if (count > 0) world_settle(w, COMMAND_ACK, attachment, 1, count, true);
}

static void those_furthest_behind_come_first(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint64_t behind;
    } subs[] = {{"a", 2}, {"b", 5}, {"c", 0}, {"d", 3}, {"e", 4}};
    struct world w = {.quiet = true};
    struct subscription_info worst[5];
    world_open(&w);
    for (size_t i = 0; i < 5; i++) world_create(&w, subs[i].name, NULL, NULL, START_NEW);
    assert_int_equal(engine_subscriptions_behind(w.engine, PROJECT_DEFAULT, worst, 5), 0);
    world_publish_many(&w, "t", 6);
    for (size_t i = 0; i < 5; i++) settle_all_but(&w, i + 1, subs[i].name, subs[i].behind);

    assert_int_equal(engine_subscriptions_behind(w.engine, PROJECT_DEFAULT, worst, 5), 4);
    static const char all[] = "beda";
    for (size_t i = 0; i < 4; i++) assert_int_equal(worst[i].name.data[0], all[i]);
    assert_int_equal(engine_subscriptions_behind(w.engine, PROJECT_DEFAULT, worst, 2), 2);
    for (size_t i = 0; i < 2; i++) assert_int_equal(worst[i].name.data[0], all[i]);
    store_end_reads(w.store);
    world_close(&w);
}

/* ---- the journal ---- */

/* One event per second, the first at `start_ms`. */
static uint64_t publish_by_the_second(struct world *w, int count) {
    uint64_t start_ms = w->time.wall_ms;
    for (int i = 0; i < count; i++) {
        world_publish(w, "t", "");
        w->time.now_ms += 1000;
        w->time.wall_ms += 1000;
    }
    return start_ms;
}

static void a_time_is_a_place_in_the_journal(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    world_open(&w);
    assert_int_equal(engine_seq_at_time(w.engine, w.time.wall_ms), 1);
    uint64_t start_ms = publish_by_the_second(&w, 10);
    assert_int_equal(engine_seq_at_time(w.engine, 0), 1);
    assert_int_equal(engine_seq_at_time(w.engine, start_ms), 1);
    assert_int_equal(engine_seq_at_time(w.engine, start_ms + 1), 2);
    assert_int_equal(engine_seq_at_time(w.engine, start_ms + 7000), 8);
    assert_int_equal(engine_seq_at_time(w.engine, start_ms + 9001), 11);
    store_end_reads(w.store);
    world_close(&w);
}

struct listed {
    uint64_t seqs[16];
    size_t count, stop_at;
};

static bool list_event(void *ctx, const struct event *event) {
    struct listed *l = ctx;
    l->seqs[l->count++] = event->seq;
    return l->count != l->stop_at;
}

/* Retention takes what nobody needs, wherever it lies: an event that is out stays. */
static void a_time_among_events_that_retention_took(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct policy p = policy_default();
    struct listed l = {.count = 0};
    struct event event;
    world_open(&w);
    p.lag = LAG_EXPIRE;
    p.lease_ms = p.max_hold_ms = 3600000;
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 2, 0);
    uint64_t start_ms = publish_by_the_second(&w, 10);
    world_settle(&w, COMMAND_ACK, 1, 1, 1, true); /* so 2 and 3 are out */
    world_retain(&w, 3500, 0, 0);
    uint32_t scan = 16;
    engine_events_scan(w.engine, PROJECT_DEFAULT, 1, &scan, list_event, &l);
    assert_int_equal(scan, 11);
    static const uint64_t left[] = {2, 3, 8, 9, 10};
    assert_int_equal(l.count, 5);
    assert_memory_equal(l.seqs, left, sizeof left);
    assert_false(engine_event_get(w.engine, PROJECT_DEFAULT, 5, &event));
    assert_true(engine_event_get(w.engine, PROJECT_DEFAULT, 2, &event)); /* still out */
    assert_int_equal(engine_seq_at_time(w.engine, start_ms + 7001), 9);
    assert_int_equal(engine_seq_at_time(w.engine, start_ms), 8);
    store_end_reads(w.store);
    world_close(&w);
}

static void a_scan_goes_on_where_it_ended(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct listed l = {.stop_at = 2};
    world_open(&w);
    publish_by_the_second(&w, 5);
    uint32_t scan = 16, one = 1;
    uint64_t next = engine_events_scan(w.engine, PROJECT_DEFAULT, 1, &scan, list_event, &l);
    assert_int_equal(next, 3);
    next = engine_events_scan(w.engine, PROJECT_DEFAULT, next, &one, list_event, &l);
    assert_int_equal(next, 4);
    next = engine_events_scan(w.engine, PROJECT_DEFAULT, next, &scan, list_event, &l);
    assert_int_equal(next, 6);
    assert_int_equal(scan, 12);
    assert_int_equal(l.count, 5);
    for (size_t i = 0; i < 5; i++) assert_int_equal(l.seqs[i], i + 1);
    assert_int_equal(engine_events_scan(w.engine, PROJECT_DEFAULT, next, &scan, list_event, &l), 6);
    store_end_reads(w.store);
    world_close(&w);
}

/* ---- configuration ---- */

static void note_config(void *ctx, struct slice key, struct slice value) {
    struct buf *b = ctx;
    buf_printf(b, "%.*s=%.*s;", SLICE_ARG(key), SLICE_ARG(value));
}

static void put_config(struct world *w, const char *key, const char *value) {
    struct command c = {.kind = COMMAND_CONFIG_PUT};
    c.u.config.key = slice_str(key);
    c.u.config.value = slice_str(value);
    world_run(w, &c);
}

static void rooms_find_their_own_configuration(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct buf b;
    buf_init(&b, 1024);
    world_open(&w);
    put_config(&w, "source/b", "2");
    put_config(&w, "source/a", "1");
    put_config(&w, "source", "0");
    put_config(&w, "sourcf", "3");
    world_crash(&w);
    engine_config_scan(w.engine, slice_str("source/"), note_config, &b);
    buf_append_byte(&b, '\0');
    assert_string_equal((const char *)b.data, "source/a=1;source/b=2;");
    struct command c = {.kind = COMMAND_CONFIG_DELETE};
    c.u.config.key = slice_str("source/a");
    world_run(&w, &c);
    buf_clear(&b);
    engine_config_scan(w.engine, slice_str("source"), note_config, &b);
    buf_append_byte(&b, '\0');
    assert_string_equal((const char *)b.data, "source=0;source/b=2;");
    store_end_reads(w.store);
    buf_free(&b);
    world_close(&w);
}

/* ---- what is refused, and why ---- */

static void an_event_that_is_too_large_is_not_taken(void **state) {
    (void)state;
    static uint8_t large[LIMIT_EVENT_HEADERS_BYTES + LIMIT_EVENT_METADATA_BYTES];
    struct world w = {.quiet = false};
    memset(large, 'x', sizeof large);
    world_open(&w);
    struct event event = {.id = slice_of(large, LIMIT_EVENT_ID_BYTES + 1)};
    world_event(&w, &event);
    event = (struct event){.type = slice_of(large, LIMIT_EVENT_TYPE_BYTES + 1)};
    world_event(&w, &event);
    event = (struct event){.subject = slice_of(large, LIMIT_EVENT_SUBJECT_BYTES + 1)};
    world_event(&w, &event);
    event = (struct event){.metadata = slice_of(large, LIMIT_EVENT_METADATA_BYTES + 1)};
    world_event(&w, &event);
    event = (struct event){.headers = slice_of(large, LIMIT_EVENT_HEADERS_BYTES + 1)};
    world_event(&w, &event);
    event = (struct event){.type = slice_of(large, LIMIT_EVENT_TYPE_BYTES),
                           .id = slice_of(large, LIMIT_EVENT_ID_BYTES)};
    world_event(&w, &event);
    world_expect(&w,
                 "[1000] error too_large: id: at most 256 bytes\n"
                 "[1000] error too_large: type: at most 256 bytes\n"
                 "[1000] error too_large: subject: at most 1024 bytes\n"
                 "[1000] error too_large: user_metadata: at most 16384 bytes\n"
                 "[1000] error too_large: headers: at most 8192 bytes\n"
                 "[1000] published 1\n");
    world_close(&w);
}

/* One of a batch is enough: nothing of it is taken. */
static void a_batch_is_refused_as_a_whole(void **state) {
    (void)state;
    static const uint8_t large[LIMIT_EVENT_ID_BYTES + 1];
    struct event events[2] = {{.type = slice_str("t")}, {.id = slice_of(large, sizeof large)}};
    struct world w = {.quiet = false};
    struct command c = {.kind = COMMAND_PUBLISH, .project = PROJECT_DEFAULT};
    struct engine_stats stats;
    c.u.publish.events = events;
    c.u.publish.count = 2;
    world_open(&w);
    world_run(&w, &c);
    world_expect(&w, "[1000] error too_large: id: at most 256 bytes\n");
    engine_stats(w.engine, &stats);
    assert_int_equal(stats.last_seq, 0);
    assert_int_equal(stats.totals.refused, 2);
    world_close(&w);
}

static void expect_bad(const struct policy *p, const char *what) {
    char why[256] = "";
    assert_int_equal(policy_check(p, why, sizeof why), ERR_BAD_POLICY);
    if (strncmp(why, what, strlen(what)) != 0) fail_msg("\"%s\" is not of %s", why, what);
}

/* The rooms look at each field; this is the engine's own word, for a policy of any origin. */
static void a_policy_has_bounds(void **state) {
    (void)state;
    const uint64_t steps[LIMIT_BACKOFF_STEPS + 1] = {LIMIT_BACKOFF_MS_MAX + 1};
    char why[256];
    struct policy p = policy_default();
    assert_int_equal(policy_check(&p, why, sizeof why), ERR_OK);
    p.backoff_list_ms = steps;
    p.backoff_list_count = 1;
    expect_bad(&p, "backoff.list_ms");
    p.backoff_list_count = LIMIT_BACKOFF_STEPS + 1;
    expect_bad(&p, "backoff.list_ms");
    p = policy_default();
    p.backoff_max_ms = LIMIT_BACKOFF_MS_MAX + 1;
    expect_bad(&p, "backoff.max_ms");
    p = policy_default();
    p.backoff_factor_permille = 999;
    expect_bad(&p, "backoff.factor");
    p = policy_default();
    p.backoff_jitter_permille = 1001;
    expect_bad(&p, "backoff.jitter");
    p = policy_default();
    p.order_key = slice_str("k");
    expect_bad(&p, "order.key");
    p.ordered = true;
    assert_int_equal(policy_check(&p, why, sizeof why), ERR_OK);
    p.order_key = slice_str("/a~2");
    expect_bad(&p, "order.key");
}

/* Two lists that differ in one step are two policies. */
static void a_subscription_is_created_again_only_as_it_is(void **state) {
    (void)state;
    uint64_t steps[2] = {5, 6};
    struct world w = {.quiet = false};
    struct policy p = policy_default();
    p.backoff_list_ms = steps;
    p.backoff_list_count = 2;
    world_open(&w);
    world_create(&w, "s", NULL, &p, START_NEW);
    world_create(&w, "s", NULL, &p, START_NEW);
    steps[1] = 7;
    world_create(&w, "s", NULL, &p, START_NEW);
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] done\n"
                 "[1000] error policy_mismatch: subscription \"s\" exists with another policy: "
                 "update it, or ask for the policy it has\n");
    world_close(&w);
}

/* ---- tasks ---- */

#define TASKS_MAX 1000 /* that run; and as many finished ones are remembered */

static void so_many_tasks_run_and_no_more(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct engine_stats stats;
    world_open(&w);
    world_create(&w, "s", NULL, NULL, START_NEW);
    world_publish(&w, "t", "");
    for (int i = 0; i < TASKS_MAX; i++) world_task(&w, TASK_REPLAY, "s", 1, 1, 0, "");
    w.quiet = false;
    world_task(&w, TASK_REPLAY, "s", 1, 1, 0, "");
    world_expect(&w,
                 "[1000] error limit_exceeded: 1000 replays and other tasks run already, of all "
                 "projects: wait, or cancel some\n");
    world_cancel(&w, 2);
    world_task(&w, TASK_REPLAY, "s", 1, 1, 0, "");
    world_expect(&w, "[1000] done\n[1000] done created\n");
    engine_stats(w.engine, &stats);
    assert_int_equal(stats.tasks_running, TASKS_MAX);
    world_close(&w);
}

static void the_oldest_finished_task_is_forgotten(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct task_info t = {.id = 0};
    world_open(&w);
    world_create(&w, "s", NULL, NULL, START_NEW);
    world_publish(&w, "t", "");
    world_task(&w, TASK_REPLAY, "s", 1, 1, 0, ""); /* nobody takes it: task 2 runs on */
    for (int i = 0; i < TASKS_MAX + 2; i++) world_task(&w, TASK_COUNT, "s", 1, 1, 0, "");
    for (int round = 0; round < 2; round++) { /* once more after a restart */
        size_t count = 0;
        for (t.id = 0; engine_task_next(w.engine, PROJECT_DEFAULT, t.id, &t); count++) {
            assert_true(t.finished_at_ms != 0 || t.id == 2);
        }
        assert_int_equal(count, TASKS_MAX + 1);
        assert_true(engine_task_get(w.engine, PROJECT_DEFAULT, 2, &t) && t.finished_at_ms == 0);
        assert_false(engine_task_get(w.engine, PROJECT_DEFAULT, 3, &t));
        assert_false(engine_task_get(w.engine, PROJECT_DEFAULT, 4, &t));
        assert_true(engine_task_get(w.engine, PROJECT_DEFAULT, 5, &t));
        world_restart(&w);
    }
    world_close(&w);
}

/* A count whose first events retention takes before they are looked at counts what is there. */
static void a_count_goes_on_behind_what_was_trimmed(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct task_info t;
    struct policy p = policy_default();
    world_open(&w);
    p.lag = LAG_EXPIRE;
    p.lease_ms = p.max_hold_ms = 3600000;
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 3, 0);
    publish_by_the_second(&w, 10);
    world_settle(&w, COMMAND_ACK, 1, 1, 2, true); /* 3 is out: its record stays */
    struct command c = {.kind = COMMAND_TASK_CREATE, .project = PROJECT_DEFAULT};
    c.u.task.kind = TASK_COUNT;
    c.u.task.name = slice_str("s");
    world_step(&w, &c); /* from 1 to 10 */
    world_retain(&w, 3500, 0, 0);
    assert_true(engine_task_get(w.engine, PROJECT_DEFAULT, 2, &t));
    assert_true(t.finished_at_ms != 0);
    assert_int_equal(t.matched, 3); /* 8 to 10 */
    store_end_reads(w.store);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(subscriptions_are_listed_by_name),
        cmocka_unit_test(those_furthest_behind_come_first),
        cmocka_unit_test(a_time_is_a_place_in_the_journal),
        cmocka_unit_test(a_time_among_events_that_retention_took),
        cmocka_unit_test(a_scan_goes_on_where_it_ended),
        cmocka_unit_test(rooms_find_their_own_configuration),
        cmocka_unit_test(an_event_that_is_too_large_is_not_taken),
        cmocka_unit_test(a_batch_is_refused_as_a_whole),
        cmocka_unit_test(a_policy_has_bounds),
        cmocka_unit_test(a_subscription_is_created_again_only_as_it_is),
        cmocka_unit_test(so_many_tasks_run_and_no_more),
        cmocka_unit_test(the_oldest_finished_task_is_forgotten),
        cmocka_unit_test(a_count_goes_on_behind_what_was_trimmed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
