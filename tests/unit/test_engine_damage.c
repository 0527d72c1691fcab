/* A store that does not fit together is an error at the start that names the place: each row that
 * the engine reads then is damaged, misplaced or taken away once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "proto/limits.h"
#include "storage/record.h"
#include "tests/unit/engine_world.h"

#define KEY_BYTES_MAX 64
#define NOBODY        77

static void no_turn(void *ctx, struct batch *batch) {
    (void)ctx;
    (void)batch;
}

/* A key of the store, copied: the nth of its table. */
struct row {
    uint8_t key[KEY_BYTES_MAX];
    size_t key_len;
    struct slice value; /* in the world's arena */
};

struct broken {
    struct world w;
    struct arena arena;
};

static struct row row_at(struct broken *b, enum store_table table, int nth) {
    struct row row;
    struct store_iter it;
    store_seek(b->w.store, table, slice_of(NULL, 0), &it);
    for (int i = 0; i < nth && it.valid; i++) store_next(b->w.store, &it);
    assert_true(it.valid && it.key.len <= KEY_BYTES_MAX);
    memcpy(row.key, it.key.data, it.key.len);
    row.key_len = it.key.len;
    row.value = arena_copy(&b->arena, it.value);
    store_iter_end(b->w.store, &it);
    store_end_reads(b->w.store);
    return row;
}

/* Writes one operation behind the engine's back. */
static void write_row(struct broken *b, enum batch_kind kind, enum store_table table,
                      const uint8_t *key, size_t key_len, struct slice value) {
    struct batch batch;
    batch_init(&batch);
    b->w.store->on_durable = no_turn;
    if (kind == BATCH_DELETE) batch_delete(&batch, table, slice_of(key, key_len));
    else batch_put(&batch, table, slice_of(key, key_len), value);
    assert_int_equal(store_submit(b->w.store, &batch), 0);
    batch_free(&batch);
}

static void put_row(struct broken *b, enum store_table table, const struct row *row,
                    struct slice value) {
    write_row(b, BATCH_PUT, table, row->key, row->key_len, value);
}

static void drop_row(struct broken *b, enum store_table table, const struct row *row) {
    write_row(b, BATCH_DELETE, table, row->key, row->key_len, slice_of(NULL, 0));
}

/* Its last byte is another one: the checksum says so. */
static void flip_row(struct broken *b, enum store_table table, int nth) {
    struct row row = row_at(b, table, nth);
    assert_true(row.value.len > 0);
    ((uint8_t *)row.value.data)[row.value.len - 1] ^= 1;
    put_row(b, table, &row, row.value);
}

/* Something of everything: an event that failed, one that is out, one that came and is acked, a
 * replay that runs, a journal whose start was trimmed. */
static void make(struct broken *b) {
    struct policy p = policy_default();
    *b = (struct broken){.w = {.quiet = true}};
    arena_init(&b->arena);
    world_open(&b->w);
    p.lag = LAG_EXPIRE;
    p.max_fails = 5;
    p.backoff_min_ms = p.backoff_max_ms = 30000;
    world_create(&b->w, "s", NULL, &p, START_FIRST);
    for (int i = 0; i < 4; i++) {
        char id[8];
        snprintf(id, sizeof id, "id%d", i);
        world_publish(&b->w, "t", id);
        b->w.time.wall_ms += 1000;
    }
    world_attach(&b->w, 1, "s", 3, 0);
    world_settle(&b->w, COMMAND_ACK, 1, 3, 3, true);
    world_nack(&b->w, 1, 2, NACK_FAIL, DELAY_BY_POLICY, "no");
    world_task(&b->w, TASK_REPLAY, "s", 2, 4, 1, "");
    world_job_put(&b->w, "a", "", "", 1000000);
    world_job_put(&b->w, "b", "", "", 1000000);
    world_retain(&b->w, 3500, 0, 0); /* the first event goes: its record stays, it is out */
    engine_flush(b->w.engine);
    world_turn(&b->w);
    engine_close(&b->w.engine);
}

static void drop(struct broken *b) {
    arena_free(&b->arena);
    buf_free(&b->w.log);
    store_close(b->w.store);
}

static void expect_refused(struct broken *b, const char *what) {
    char error[256] = "";
    int err = engine_open(&b->w.engine, b->w.store, &b->w.options, b->w.time, error, sizeof error);
    if (err != ERR_STORE) fail_msg("%s: opened", what);
    assert_null(b->w.engine);
    if (strstr(error, what) == NULL) fail_msg("\"%s\" does not say \"%s\"", error, what);
    assert_non_null(strstr(error, "restore it from a copy"));
}

static void a_whole_store_opens(void **state) {
    (void)state;
    struct broken b;
    make(&b);
    char error[256] = "";
    int err = engine_open(&b.w.engine, b.w.store, &b.w.options, b.w.time, error, sizeof error);
    assert_string_equal(error, "");
    assert_int_equal(err, 0);
    engine_check(b.w.engine);
    engine_close(&b.w.engine);
    drop(&b);
}

static void each_damaged_row_is_named(void **state) {
    (void)state;
    static const struct {
        enum store_table table;
        int nth;
        const char *what;
    } rows[] = {
        {STORE_JOURNAL, 1, "journal record 2"}, /* the first that was not trimmed */
        {STORE_JOURNAL, 3, "journal record 4"},
        {STORE_IDS, 0, "id log row 1"},
        {STORE_SUBSCRIPTIONS, 0, "subscription 1"},
        {STORE_TASKS, 0, "task 2"},
        {STORE_POSITIONS, 0, "the position of subscription 1"},
        {STORE_POSITIONS, 1, "the position of subscription 1"},
        {STORE_RETRIES, 0, "the retry row of event 2"},
        {STORE_JOBS, 0, "the row of job 1"},
        {STORE_JOBS, 1, "the row of job 2"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct broken b;
        make(&b);
        flip_row(&b, rows[i].table, rows[i].nth);
        expect_refused(&b, rows[i].what);
        drop(&b);
    }
}

static void counters_are_named(void **state) {
    (void)state;
    static const char *const names[][2] = {
        {"trimmed_to", "the trim point"},
        {"next_id", "the id counter"},
    };
    for (size_t i = 0; i < 2; i++) {
        struct broken b;
        make(&b);
        write_row(&b, BATCH_PUT, STORE_META, (const uint8_t *)names[i][0], strlen(names[i][0]),
                  slice_str("12345678"));
        expect_refused(&b, names[i][1]);
        drop(&b);
    }
}

/* Rows that are whole and mean nothing where they stand. */

static void a_position_of_nobody(void **state) {
    (void)state;
    struct broken b;
    make(&b);
    struct row row = row_at(&b, STORE_POSITIONS, 0);
    uint8_t key[KEY_POSITION_BYTES];
    key_position(key, NOBODY, 0);
    write_row(&b, BATCH_PUT, STORE_POSITIONS, key, sizeof key, row.value);
    expect_refused(&b, "the position of subscription 77");
    drop(&b);
}

static void a_position_beyond_the_journal(void **state) {
    (void)state;
    struct broken b;
    make(&b);
    struct row row = row_at(&b, STORE_POSITIONS, 0);
    struct record_position p = {.next = 6};
    put_row(&b, STORE_POSITIONS, &row, record_position_encode(&b.arena, &p, NULL, NULL));
    expect_refused(&b, "the position of subscription 1");
    drop(&b);
}

static void a_retry_row_of_a_settled_event(void **state) {
    (void)state;
    struct broken b;
    make(&b);
    struct row row = row_at(&b, STORE_RETRIES, 0);
    uint8_t key[KEY_RETRY_BYTES];
    key_retry(key, 1, 0, 3);
    write_row(&b, BATCH_PUT, STORE_RETRIES, key, sizeof key, row.value);
    expect_refused(&b, "the retry row of event 3");
    drop(&b);
}

static void a_running_task_of_nobody(void **state) {
    (void)state;
    struct broken b;
    make(&b);
    struct row row = row_at(&b, STORE_TASKS, 0);
    struct record_task task;
    assert_true(record_task_decode(row.value, &task));
    task.subscription = NOBODY;
    put_row(&b, STORE_TASKS, &row, record_task_encode(&b.arena, &task));
    expect_refused(&b, "task 2");
    drop(&b);
}

static void a_task_of_no_known_kind_or_range(void **state) {
    (void)state;
    for (int kind = 0; kind <= 1; kind++) {
        struct broken b;
        make(&b);
        struct row row = row_at(&b, STORE_TASKS, 0);
        struct record_task task;
        assert_true(record_task_decode(row.value, &task));
        if (kind == 1) task.kind = TASK_PURGE + 1;
        else task.from = 0;
        put_row(&b, STORE_TASKS, &row, record_task_encode(&b.arena, &task));
        expect_refused(&b, "task 2");
        drop(&b);
    }
}

/* Written by something that does not know the bounds. */
static void a_subscription_out_of_bounds(void **state) {
    (void)state;
    for (int which = 0; which <= 1; which++) {
        struct broken b;
        make(&b);
        struct row row = row_at(&b, STORE_SUBSCRIPTIONS, 0);
        struct record_subscription s;
        assert_true(record_subscription_decode(&b.arena, row.value, &s));
        if (which == 0) s.lease_ms = LIMIT_LEASE_MS_MAX + 1;
        else s.name = slice_str("a/b");
        put_row(&b, STORE_SUBSCRIPTIONS, &row, record_subscription_encode(&b.arena, &s));
        expect_refused(&b, "subscription 1");
        drop(&b);
    }
}

static void a_job_that_cannot_be(void **state) {
    (void)state;
    static const uint64_t seqs[] = {4, 5};
    static const uint8_t states[] = {JOB_FAILED, JOB_EXPIRED + 1};
    for (int which = 0; which <= 6; which++) {
        struct broken b;
        make(&b);
        struct row row = row_at(&b, STORE_JOBS, 1);
        struct record_job j;
        assert_true(record_job_decode(&b.arena, row.value, &j));
        j.seqs = seqs;
        j.states = states;
        switch (which) {
        case 0: j.id = slice_str("a"); break; /* the other one's */
        case 1: j.id = slice_str(""); break;
        case 2: j.ended_at_ms = 1; break; /* without an end */
        case 3: j.count = 1; break;       /* without a time of its end */
        case 4: j.flags = RECORD_JOB_OVERDUE; break;
        case 5: j.count = 2, j.ended_at_ms = 1; break; /* beyond the journal */
        default: j.due_at_ms = j.updated_at_ms; break;
        }
        put_row(&b, STORE_JOBS, &row, record_job_encode(&b.arena, &j));
        expect_refused(&b, "the row of job 2");
        drop(&b);
    }
    struct broken b;
    make(&b);
    struct row row = row_at(&b, STORE_JOBS, 1);
    struct record_job j;
    assert_true(record_job_decode(&b.arena, row.value, &j));
    j.seqs = (const uint64_t[]){3};
    j.states = (const uint8_t[]){JOB_EXPIRED + 1};
    j.count = 1;
    put_row(&b, STORE_JOBS, &row, record_job_encode(&b.arena, &j));
    expect_refused(&b, "the row of job 2");
    drop(&b);
}

/* Each is whole, but one stands where the other should. */
static void a_record_in_the_wrong_place(void **state) {
    (void)state;
    struct broken b;
    make(&b);
    struct row second = row_at(&b, STORE_JOURNAL, 1), last = row_at(&b, STORE_JOURNAL, 3);
    put_row(&b, STORE_JOURNAL, &last, second.value);
    expect_refused(&b, "journal record 4");
    drop(&b);
}

static void the_record_of_an_event_that_is_out_is_gone(void **state) {
    (void)state;
    struct broken b;
    make(&b);
    struct row row = row_at(&b, STORE_JOURNAL, 0);
    assert_int_equal(key_read_u64(slice_of(row.key, row.key_len), 0), 1);
    drop_row(&b, STORE_JOURNAL, &row);
    expect_refused(&b, "the record of outstanding event 1");
    drop(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_store_opens),
        cmocka_unit_test(each_damaged_row_is_named),
        cmocka_unit_test(counters_are_named),
        cmocka_unit_test(a_position_of_nobody),
        cmocka_unit_test(a_position_beyond_the_journal),
        cmocka_unit_test(a_retry_row_of_a_settled_event),
        cmocka_unit_test(a_running_task_of_nobody),
        cmocka_unit_test(a_task_of_no_known_kind_or_range),
        cmocka_unit_test(a_subscription_out_of_bounds),
        cmocka_unit_test(a_job_that_cannot_be),
        cmocka_unit_test(a_record_in_the_wrong_place),
        cmocka_unit_test(the_record_of_an_event_that_is_out_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
