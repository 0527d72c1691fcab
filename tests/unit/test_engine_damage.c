/* A store that does not fit together is an error at the start that names the place: each row that
 * the engine reads then is damaged, misplaced or taken away once. What it reads later, dead letters
 * and what waits on disk, ends the process with the same sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* ---- projects ---- */

static void a_row_of_no_project_or_of_another(void **state) {
    (void)state;
    static const struct {
        enum store_table table;
        int nth;
        uint32_t project;
        const char *what;
    } rows[] = {
        {STORE_SUBSCRIPTIONS, 0, 0, "subscription 1"},
        {STORE_TASKS, 0, 0, "task 2"},
        {STORE_TASKS, 0, 2, "task 2"}, /* its subscription is the default project's */
        {STORE_JOBS, 1, 0, "the row of job 2"},
        {STORE_JOURNAL, 1, 0, "journal record 2"},
        {STORE_JOURNAL, 3, 0, "journal record 4"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct broken b;
        make(&b);
        struct row row = row_at(&b, rows[i].table, rows[i].nth);
        struct record_subscription s;
        struct record_task t;
        struct record_job j;
        struct event e;
        struct slice value = slice_of(NULL, 0);
        uint64_t seq;
        switch (rows[i].table) {
        case STORE_SUBSCRIPTIONS:
            assert_true(record_subscription_decode(&b.arena, row.value, &s));
            s.project = rows[i].project;
            value = record_subscription_encode(&b.arena, &s);
            break;
        case STORE_TASKS:
            assert_true(record_task_decode(row.value, &t));
            t.project = rows[i].project;
            value = record_task_encode(&b.arena, &t);
            break;
        case STORE_JOBS:
            assert_true(record_job_decode(&b.arena, row.value, &j));
            j.project = rows[i].project;
            value = record_job_encode(&b.arena, &j);
            break;
        default:
            seq = key_read_u64(slice_of(row.key, row.key_len), 0);
            assert_true(record_event_decode(seq, row.value, &e));
            e.project = rows[i].project;
            value = record_event_encode(&b.arena, &e, NULL);
        }
        put_row(&b, rows[i].table, &row, value);
        expect_refused(&b, rows[i].what);
        drop(&b);
    }
}

/* Each name once in a project; in another one it is another thing. */
static void two_subscriptions_of_one_name(void **state) {
    (void)state;
    for (uint32_t project = 1; project <= 2; project++) {
        struct broken b;
        uint8_t key[KEY_SUB_BYTES];
        struct record_subscription s;
        char error[256] = "";
        make(&b);
        struct row row = row_at(&b, STORE_SUBSCRIPTIONS, 0);
        assert_true(record_subscription_decode(&b.arena, row.value, &s));
        s.project = project;
        key_u32(key, NOBODY);
        write_row(&b, BATCH_PUT, STORE_SUBSCRIPTIONS, key, sizeof key,
                  record_subscription_encode(&b.arena, &s));
        if (project == PROJECT_DEFAULT) {
            expect_refused(&b, "subscription 77");
        } else {
            int err =
                engine_open(&b.w.engine, b.w.store, &b.w.options, b.w.time, error, sizeof error);
            assert_int_equal(err, 0);
            engine_check(b.w.engine);
            engine_close(&b.w.engine);
        }
        drop(&b);
    }
}

/* ---- what is read later ---- */

typedef void act_fn(struct world *w);

/* In a child; its last words must say so. */
static void expect_end(struct broken *b, act_fn *act, const char *what) {
    char text[4096];
    int status, output = memfd_create("words", 0);
    assert_true(output >= 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(output, STDERR_FILENO);
        signal(SIGABRT, SIG_DFL); /* cmocka has its own */
        act(&b->w);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    ssize_t got = pread(output, text, sizeof text - 1, 0);
    assert_true(got >= 0);
    text[got] = 0;
    close(output);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT) fail_msg("%s: it went on", what);
    if (strstr(text, what) == NULL) fail_msg("\"%s\" does not say \"%s\"", text, what);
    assert_non_null(strstr(text, "restore it from a copy"));
}

/* The default project has the dead letter and the delayed event, and an event that is out; project
 * 2 has a subscription of the same name, and an event of its own. */
static void make_waiting(struct broken *b) {
    struct policy p = world_policy();
    *b = (struct broken){.w = {.quiet = true}};
    arena_init(&b->arena);
    world_open(&b->w);
    b->w.project = 2;
    world_create(&b->w, "s", NULL, &p, START_NEW);
    world_publish(&b->w, "t", "");
    b->w.project = PROJECT_DEFAULT;
    world_create(&b->w, "s", NULL, &p, START_NEW);
    world_attach(&b->w, 1, "s", 2, 0);
    for (int i = 0; i < 4; i++) world_publish(&b->w, "t", ""); /* 2 to 5 */
    world_nack(&b->w, 1, 1, NACK_REJECT, 0, "no");
    world_nack(&b->w, 1, 2, NACK_FAIL, 3600000, "later");
    world_restart(&b->w);
}

static void act_scan(struct world *w) {
    world_show_dead(w, "s");
}
static void act_redrive(struct world *w) {
    world_task(w, TASK_REDRIVE, "s", 0, 0, 0, "");
}
static void act_purge(struct world *w) {
    world_task(w, TASK_PURGE, "s", 0, 0, 0, "{\"types\":[\"none\"]}");
}
static void act_ask_for_one(struct world *w) {
    world_task(w, TASK_PURGE, "s", 2, 2, 0, "");
}
static void act_trim(struct world *w) {
    world_retain(w, 0, 0, 1);
    world_wait(w, 1000);
}
static void act_deliver(struct world *w) {
    world_attach(w, 7, "s", 20, 0);
    world_wait(w, 2 * 3600000);
}
static void act_claim(struct world *w) {
    static const struct claim claims[] = {{1, 1, false}, {2, 4, false}};
    struct command c = attach_command(7, "s", 20, 0);
    c.u.attach.session = c.u.attach.resumes = 5;
    c.u.attach.claims = claims;
    c.u.attach.claims_count = 2;
    world_run(w, &c);
}

/* Whole, but of another seq than its key says, or of another project than its subscription. */
static void a_dead_letter_that_is_not_its_keys(void **state) {
    (void)state;
    static act_fn *const acts[] = {act_scan, act_redrive, act_purge, act_ask_for_one, act_trim};
    for (int which = 0; which < 2; which++) {
        struct broken b;
        struct record_dead dead;
        make_waiting(&b);
        struct row row = row_at(&b, STORE_DEAD, 0);
        assert_true(record_dead_decode(row.value, &dead) && dead.event.seq == 2);
        if (which == 0) dead.event.seq = 3;
        else dead.event.project = 2;
        put_row(&b, STORE_DEAD, &row, record_dead_encode(&b.arena, &dead));
        world_crash(&b.w);
        for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++) {
            expect_end(&b, acts[i], "dead letter 2 ");
        }
        engine_close(&b.w.engine);
        drop(&b);
    }
}

static void a_delayed_event_that_is_not_its_keys(void **state) {
    (void)state;
    for (int which = 0; which < 2; which++) {
        struct broken b;
        struct record_due due;
        make_waiting(&b);
        struct row row = row_at(&b, STORE_DUE, 0);
        assert_true(record_due_decode(row.value, &due) && due.event.seq == 3);
        if (which == 0) due.event.seq = 2;
        else due.event.project = 2;
        put_row(&b, STORE_DUE, &row, record_due_encode(&b.arena, &due));
        world_crash(&b.w);
        expect_end(&b, act_deliver, "delayed event 3 ");
        engine_close(&b.w.engine);
        drop(&b);
    }
}

static uint64_t one_seq(void *ctx) {
    return *(uint64_t *)ctx;
}

/* A position in the place of another subscription's, which has other events out. */
static void a_position_of_another_project(void **state) {
    (void)state;
    static act_fn *const acts[] = {act_deliver, act_claim};
    for (int i = 0; i < 2; i++) {
        struct broken b;
        uint64_t out = 1;
        struct record_position p = {.next = 6, .due_count = 1, .outstanding_count = 1};
        make_waiting(&b);
        b.w.options.restart_grace_ms = 1000;
        struct row row = row_at(&b, STORE_POSITIONS, 1);
        put_row(&b, STORE_POSITIONS, &row,
                record_position_encode(&b.arena, &p, one_seq, &out)); /* 1 is project 2's */
        world_crash(&b.w);
        expect_end(&b, acts[i], "outstanding event 1 ");
        engine_close(&b.w.engine);
        drop(&b);
    }
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
        cmocka_unit_test(a_row_of_no_project_or_of_another),
        cmocka_unit_test(two_subscriptions_of_one_name),
        cmocka_unit_test(a_dead_letter_that_is_not_its_keys),
        cmocka_unit_test(a_delayed_event_that_is_not_its_keys),
        cmocka_unit_test(a_position_of_another_project),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
