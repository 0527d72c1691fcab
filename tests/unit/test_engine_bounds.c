/* A turn stays short however much there is to do: what one turn reads and writes, counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/engine_world.h"

#define DELIVER_BYTES (4 * MIB)  /* the engine's default */
#define READ_BYTES    (64 * MIB) /* the default of 8192 positions, when events are large */

/* Events of type "t" with a body of so many bytes, due in_ms from now. */
static void publish_large(struct world *w, int count, size_t bytes, uint64_t in_ms) {
    static const uint8_t body[256 * KIB];
    CHECK(bytes <= sizeof body);
    for (int i = 0; i < count; i++) {
        struct event event = {.type = slice_str("t"), .body = slice_of(body, bytes)};
        if (in_ms > 0) event.deliver_at_ms = w->time.wall_ms + in_ms;
        world_event(w, &event);
    }
}

/* Ends one turn, commits it, and returns how many bytes of values it wrote. */
static size_t one_turn(struct world *w) {
    size_t bytes = 0;
    struct engine_turn *turn = engine_end_turn(w->engine, w->time);
    assert_non_null(turn);
    for (size_t i = 0; i < turn->batch.len; i++) bytes += turn->batch.ops[i].value.len;
    assert_int_equal(store_submit(w->store, &turn->batch), 0);
    engine_check(w->engine);
    store_end_reads(w->store);
    return bytes;
}

static struct subscription_info info(struct world *w) {
    struct subscription_info s;
    assert_true(engine_subscription_get(w->engine, PROJECT_DEFAULT, slice_str("s"), &s));
    store_end_reads(w->store);
    return s;
}

/* What is set aside for later, or given up as too old, is copied: that takes off the budget too. */
static void copies_of_events_count_as_bytes(void **state) {
    (void)state;
    for (int old = 0; old <= 1; old++) {
        struct world w = {.quiet = true};
        struct policy p = policy_default();
        if (old) p.max_age_ms = 1000;
        world_open(&w);
        world_create(&w, "s", NULL, &p, START_NEW);
        publish_large(&w, 200, 64 * KIB, old ? 0 : 3600000);
        w.time.now_ms += 2000;
        w.time.wall_ms += 2000;
        struct command c = attach_command(1, "s", 10, 0);
        world_step(&w, &c);
        size_t bytes = one_turn(&w);
        assert_true(bytes > DELIVER_BYTES / 2 && bytes < DELIVER_BYTES + 128 * KIB);
        world_turn(&w);
        assert_int_equal(old ? info(&w).dead : info(&w).delayed, 200);
        world_close(&w);
    }
}

static void large_events_count_as_many(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct task_info count;
    world_open(&w);
    world_create(&w, "s", "rare", NULL, START_FIRST);
    publish_large(&w, 300, 256 * KIB, 0);
    world_crash(&w);
    struct command c = attach_command(1, "s", 10, 0);
    world_step(&w, &c);
    c = (struct command){.kind = COMMAND_TASK_CREATE, .project = PROJECT_DEFAULT};
    c.u.task.kind = TASK_COUNT;
    c.u.task.name = slice_str("s");
    world_step(&w, &c);
    one_turn(&w);
    assert_in_range(info(&w).next, 200, READ_BYTES / (256 * KIB));
    assert_true(engine_task_next(w.engine, PROJECT_DEFAULT, 0, &count));
    assert_in_range(count.next, 200, READ_BYTES / (256 * KIB));
    world_turn(&w);
    assert_int_equal(info(&w).next, 301);
    world_close(&w);
}

static void tasks_share_the_slice_of_a_turn(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct task_info t;
    uint64_t looked_at = 0;
    world_open(&w);
    world_create(&w, "s", NULL, NULL, START_NEW);
    for (int i = 0; i < 5; i++) world_publish_many(&w, "t", 1000);
    for (int i = 0; i < 10; i++) {
        struct command c = {.kind = COMMAND_TASK_CREATE, .project = PROJECT_DEFAULT};
        c.u.task.kind = TASK_COUNT;
        c.u.task.name = slice_str("s");
        world_step(&w, &c);
    }
    one_turn(&w);
    for (uint32_t id = 0; engine_task_next(w.engine, PROJECT_DEFAULT, id, &t); id = t.id)
        looked_at += t.next - 1;
    assert_int_equal(looked_at, 8192);
    world_turn(&w);
    for (uint32_t id = 0; engine_task_next(w.engine, PROJECT_DEFAULT, id, &t); id = t.id) {
        assert_int_equal(t.matched, 5000);
        assert_true(t.finished_at_ms > 0);
    }
    world_close(&w);
}

/* A store that counts the steps of walks. */
static struct store_ops counting;
static void (*real_next)(struct store_iter *it);
static uint64_t steps;

static void counted_next(struct store_iter *it) {
    steps++;
    real_next(it);
}

static void many_claims_cost_one_walk(void **state) {
    (void)state;
    struct world w = {.quiet = true, .options = {.restart_grace_ms = 10000}};
    struct claim claims[500];
    world_open(&w);
    world_create(&w, "s", NULL, NULL, START_NEW);
    world_attach(&w, 1, "s", 1, 0);
    for (int i = 0; i < 300; i++) world_publish_due(&w, "t", "", 1000);
    w.time.now_ms += 2000;
    w.time.wall_ms += 2000;
    world_crash(&w);
    for (uint64_t i = 0; i < 500; i++) claims[i] = (struct claim){i + 1, 1000 + i, false};
    claims[499].seq = 300;
    struct command c = attach_command(2, "s", 10, 0);
    c.u.attach.session = c.u.attach.resumes = 77;
    c.u.attach.claims = claims;
    c.u.attach.claims_count = 500;
    counting = *w.store->ops;
    real_next = counting.next;
    counting.next = counted_next;
    const struct store_ops *real = w.store->ops;
    w.store->ops = &counting;
    steps = 0;
    world_step(&w, &c);
    assert_int_equal(steps, 300);
    w.store->ops = real;
    world_turn(&w);
    assert_int_equal(info(&w).leased, 1);
    world_close(&w);
}

static uint64_t rows(struct world *w, enum store_table table) {
    uint64_t count = 0;
    struct store_iter it;
    store_seek(w->store, table, slice_of(NULL, 0), &it);
    for (; it.valid; store_next(w->store, &it)) count++;
    store_iter_end(w->store, &it);
    store_end_reads(w->store);
    return count;
}

/* Turns in which rows are deleted; each one stays small. */
static int turns_of_deletion(struct world *w, int most) {
    int turns = 0;
    while (turns < most && engine_next_deadline(w->engine, w->time) <= w->time.now_ms) {
        struct engine_turn *turn = engine_end_turn(w->engine, w->time);
        if (turn == NULL) break;
        assert_in_range(turn->batch.len, 1, 1100);
        assert_int_equal(store_submit(w->store, &turn->batch), 0);
        engine_check(w->engine);
        store_end_reads(w->store);
        turns++;
    }
    return turns;
}

static void a_large_subscription_is_deleted_in_slices(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    struct policy p = policy_default();
    p.max_fails = 0;
    world_open(&w);
    world_create(&w, "s", NULL, &p, START_NEW);
    world_attach(&w, 1, "s", 5000, 0);
    for (int i = 0; i < 4; i++) world_publish_many(&w, "t", 1000);
    for (uint64_t tag = 1; tag <= 1500; tag++) world_nack(&w, 1, tag, NACK_REJECT, 0, "");
    for (uint64_t tag = 1501; tag <= 2700; tag++) world_nack(&w, 1, tag, NACK_FAIL, 3600000, "");
    for (uint64_t tag = 2701; tag <= 3800; tag++) world_nack(&w, 1, tag, NACK_FAIL, 30000, "");
    assert_int_equal(rows(&w, STORE_DEAD), 1500);
    assert_int_equal(rows(&w, STORE_DUE), 1200);
    assert_int_equal(rows(&w, STORE_RETRIES), 1100);
    struct command c = {.kind = COMMAND_SUBSCRIPTION_DELETE, .project = PROJECT_DEFAULT};
    c.u.delete.name = slice_str("s");
    world_step(&w, &c);
    assert_int_equal(turns_of_deletion(&w, 2), 2);
    /* A restart in the middle: nothing of it is taken for damage, and the rest goes too. */
    world_crash(&w);
    assert_in_range(turns_of_deletion(&w, 100), 3, 6);
    assert_int_equal(rows(&w, STORE_DEAD) + rows(&w, STORE_DUE) + rows(&w, STORE_RETRIES), 0);
    world_create(&w, "s", NULL, NULL, START_NEW);
    assert_int_equal(info(&w).dead + info(&w).delayed, 0);
    uint64_t meta = rows(&w, STORE_META);
    world_crash(&w);
    assert_true(engine_next_deadline(w.engine, w.time) > w.time.now_ms);
    assert_int_equal(rows(&w, STORE_META), meta);
    world_close(&w);
}

static bool count_event(void *ctx, const struct event *event) {
    (void)event;
    ++*(int *)ctx;
    return true;
}

/* Whoever asks reads past what is another's too, and all of it for its checksum. */
static void a_list_of_large_events_ends_early(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    int others = 0, own = 0;
    world_open(&w);
    w.project = 7;
    for (int i = 0; i < 8; i++) publish_large(&w, 1, 256 * KIB, 0);
    w.project = PROJECT_DEFAULT;
    uint32_t scan = 100;
    uint64_t next = engine_events_scan(w.engine, PROJECT_DEFAULT, 1, &scan, count_event, &own);
    assert_int_equal(next, 5); /* each counts as 33 */
    assert_int_equal(scan, 0);
    scan = 100;
    next = engine_events_scan(w.engine, 7, next, &scan, count_event, &others);
    assert_int_equal(next, 9);
    assert_int_equal(own, 0);
    assert_int_equal(others, 4);
    store_end_reads(w.store);
    world_close(&w);
}

/* Of all projects, however they are made; what is there is found, and what is deleted makes room.
 * The broker's own lane comes all the same: what events bring along is lost without it. */
static void subscriptions_have_a_bound(void **state) {
    (void)state;
    struct world w = {.options = {.subscriptions_max = 3}};
    const struct policy policy = world_policy();
    world_open(&w);
    world_create(&w, "a", NULL, NULL, START_NEW);
    w.project = 7;
    world_create(&w, "a", NULL, &policy, START_NEW);
    assert_false(engine_subscriptions_full(w.engine));
    world_create(&w, "b", NULL, NULL, START_NEW);
    assert_true(engine_subscriptions_full(w.engine));
    world_create(&w, "c", NULL, NULL, START_NEW);
    world_create(&w, "a", NULL, &policy, START_NEW);
    struct command c = attach_command(1, "c", 10, 0);
    c.u.attach.create = &policy;
    world_run(&w, &c);
    c.u.attach.alone = true;
    c.u.attach.attachment = 2;
    world_run(&w, &c);
    world_restart(&w); /* one too many is no reason not to start */
    world_delete(&w, "a");
    world_create(&w, "d", NULL, NULL, START_NEW);
    world_delete(&w, "b");
    world_create(&w, "d", NULL, NULL, START_NEW);
    world_expect(
        &w,
        "[1000] done created\n"
        "[1000] done created\n"
        "[1000] done created\n"
        "[1000] error limit_exceeded: there are 3 subscriptions, those of all projects and of "
        "webhooks: delete one that nobody needs\n"
        "[1000] done\n"
        "[1000] error limit_exceeded: there are 3 subscriptions, those of all projects and of "
        "webhooks: delete one that nobody needs\n"
        "[1000] attached 2 backlog 0\n"
        "[1000] done\n"
        "[1000] error limit_exceeded: there are 3 subscriptions, those of all projects and of "
        "webhooks: delete one that nobody needs\n"
        "[1000] done\n"
        "[1000] done created\n");
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_of_large_events_ends_early),
        cmocka_unit_test(subscriptions_have_a_bound),
        cmocka_unit_test(copies_of_events_count_as_bytes),
        cmocka_unit_test(large_events_count_as_many),
        cmocka_unit_test(tasks_share_the_slice_of_a_turn),
        cmocka_unit_test(many_claims_cost_one_walk),
        cmocka_unit_test(a_large_subscription_is_deleted_in_slices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
