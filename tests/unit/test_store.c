/* The contract of storage/store.h, run over both stores, and what only the simulated disk can do.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/prng.h"
#include "proto/err.h"
#include "storage/store.h"

struct fixture {
    struct store *s;
    struct batch batch;
    char directory[64];
    struct batch *durable[64]; /* what was said to be durable, in order */
    size_t durable_len;
};

static void on_durable(void *ctx, struct batch *batch) {
    struct fixture *f = ctx;
    f->durable[f->durable_len++ % 64] = batch;
}

static struct fixture *make_fixture(struct store *s) {
    struct fixture *f = calloc(1, sizeof *f);
    f->s = s;
    s->on_durable = on_durable;
    s->on_durable_ctx = f;
    batch_init(&f->batch);
    return f;
}

static int setup_memory(void **state) {
    struct store *s;
    if (memory_store_open(&s) != 0) return -1;
    *state = make_fixture(s);
    return 0;
}

static int setup_lmdb(void **state) {
    struct store *s;
    char directory[] = "/tmp/bellhop-test-XXXXXX", error[256];
    if (mkdtemp(directory) == NULL) return -1;
    struct lmdb_options options = {directory, 1 << 30, 1 << 20};
    if (lmdb_store_open(&s, &options, error, sizeof error) != 0) {
        print_error("%s\n", error);
        return -1;
    }
    struct fixture *f = make_fixture(s);
    snprintf(f->directory, sizeof f->directory, "%s", directory);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    char command[128];
    store_close(f->s);
    batch_free(&f->batch);
    snprintf(command, sizeof command, "rm -rf '%s'", f->directory);
    int rc = f->directory[0] == '\0' ? 0 : system(command);
    free(f);
    return rc;
}

static void put(struct fixture *f, const char *key, const char *value) {
    batch_put(&f->batch, STORE_CONFIG, slice_str(key), slice_str(value));
}

static void submit(struct fixture *f) {
    assert_int_equal(store_submit(f->s, &f->batch), 0);
    batch_reset(&f->batch);
}

static void assert_value(struct fixture *f, const char *key, const char *want) {
    struct slice value;
    bool found = store_get(f->s, STORE_CONFIG, slice_str(key), &value);
    assert_int_equal(found, want != NULL);
    if (found) assert_true(slice_eq_str(value, want));
}

/* Walks from `from` and compares the keys with `want`, which joins them with blanks. */
static void assert_keys(struct fixture *f, const char *from, const char *want) {
    char got[256] = "";
    struct store_iter it;
    for (store_seek(f->s, STORE_CONFIG, slice_str(from), &it); it.valid; store_next(f->s, &it)) {
        size_t len = strlen(got);
        snprintf(got + len, sizeof got - len, "%s%.*s", len == 0 ? "" : " ", SLICE_ARG(it.key));
    }
    store_iter_end(f->s, &it);
    assert_string_equal(got, want);
}

/* Runs fn in a child, which must abort. */
static void assert_aborts(void (*fn)(struct fixture *), struct fixture *f) {
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL) _exit(1);
        fn(f);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void test_put_get_delete(void **state) {
    struct fixture *f = *state;
    assert_value(f, "a", NULL);
    put(f, "a", "1");
    put(f, "b", "");
    submit(f);
    assert_value(f, "a", "1");
    assert_value(f, "b", "");
    assert_value(f, "", NULL);
    assert_value(f, "aa", NULL);
    struct slice value;
    assert_false(store_get(f->s, STORE_META, slice_str("a"), &value)); /* tables are apart */
    store_end_reads(f->s);
    put(f, "a", "another and longer value");
    batch_delete(&f->batch, STORE_CONFIG, slice_str("b"));
    batch_delete(&f->batch, STORE_CONFIG, slice_str("never there"));
    submit(f);
    assert_value(f, "a", "another and longer value");
    assert_value(f, "b", NULL);
    store_end_reads(f->s);
}

static void test_operations_apply_in_order(void **state) {
    struct fixture *f = *state;
    put(f, "x", "1");
    batch_delete(&f->batch, STORE_CONFIG, slice_str("x"));
    put(f, "y", "1");
    put(f, "y", "2");
    batch_delete_prefix(&f->batch, STORE_CONFIG, slice_str("z"));
    put(f, "z", "after");
    submit(f);
    assert_keys(f, "", "y z");
    assert_value(f, "y", "2");
    store_end_reads(f->s);
}

static void test_walks_follow_the_order_of_bytes(void **state) {
    struct fixture *f = *state;
    struct slice key, value;
    assert_keys(f, "", "");
    assert_false(store_last(f->s, STORE_CONFIG, &key, &value));
    const char *const keys[] = {"b", "\xff", "a", "ab", "B", "abc", "\x01"};
    for (size_t i = 0; i < 7; i++) put(f, keys[i], keys[i]);
    submit(f);
    assert_keys(f, "", "\x01 B a ab abc b \xff");
    assert_keys(f, "ab", "ab abc b \xff");
    assert_keys(f, "aba", "abc b \xff");
    assert_keys(f, "\xff", "\xff");
    assert_keys(f, "\xff\x01", "");
    assert_true(store_last(f->s, STORE_CONFIG, &key, &value));
    assert_true(slice_eq_str(key, "\xff") && slice_eq_str(value, "\xff"));
    store_end_reads(f->s);
}

static void test_several_walks_at_once(void **state) {
    struct fixture *f = *state;
    for (char c = 'a'; c <= 'e'; c++) put(f, (char[]){c, '\0'}, "v");
    submit(f);
    struct store_iter first, second;
    store_seek(f->s, STORE_CONFIG, slice_str(""), &first);
    store_seek(f->s, STORE_CONFIG, slice_str("c"), &second);
    store_next(f->s, &first);
    assert_value(f, "e", "v");
    store_next(f->s, &second);
    assert_true(slice_eq_str(first.key, "b") && slice_eq_str(second.key, "d"));
    struct slice key = second.key;
    store_iter_end(f->s, &second);
    store_next(f->s, &first);
    assert_true(slice_eq_str(first.key, "c") && slice_eq_str(key, "d"));
    store_iter_end(f->s, &first);
    store_end_reads(f->s);
}

static void test_delete_prefix(void **state) {
    struct fixture *f = *state;
    for (uint32_t i = 0; i < 6000; i++) {
        uint8_t key[8] = {0, (uint8_t)(i / 2000), (uint8_t)(i >> 8), (uint8_t)i};
        batch_put(&f->batch, STORE_RETRIES, slice_of(key, sizeof key), slice_str("some value"));
    }
    submit(f);
    batch_delete_prefix(&f->batch, STORE_RETRIES, slice_of("\x00\x01", 2));
    batch_delete_prefix(&f->batch, STORE_RETRIES, slice_of("\x07", 1));
    submit(f);
    struct store_iter it;
    size_t count = 0;
    store_seek(f->s, STORE_RETRIES, slice_of(NULL, 0), &it);
    for (; it.valid; store_next(f->s, &it), count++) assert_int_not_equal(it.key.data[1], 1);
    store_iter_end(f->s, &it);
    store_end_reads(f->s);
    assert_int_equal(count, 4000);

    put(f, "\xff\xff", "a prefix that has no successor");
    put(f, "\xff", "stays");
    batch_delete_prefix(&f->batch, STORE_CONFIG, slice_str("\xff\xff"));
    batch_delete_prefix(&f->batch, STORE_RETRIES, slice_of(NULL, 0)); /* everything */
    submit(f);
    assert_keys(f, "", "\xff");
    store_seek(f->s, STORE_RETRIES, slice_of(NULL, 0), &it);
    assert_false(it.valid);
    store_iter_end(f->s, &it);
    store_end_reads(f->s);
}

static void test_durable_is_said_once_and_in_order(void **state) {
    struct fixture *f = *state;
    struct batch second;
    batch_init(&second);
    assert_int_equal(store_submit(f->s, &f->batch), 0); /* also of an empty one */
    batch_put(&second, STORE_CONFIG, slice_str("k"), slice_str("v"));
    assert_int_equal(store_submit(f->s, &second), 0);
    assert_int_equal(f->durable_len, 2);
    assert_ptr_equal(f->durable[0], &f->batch);
    assert_ptr_equal(f->durable[1], &second);
    batch_free(&second);
}

static void test_slices_outlive_a_write_of_the_same_turn(void **state) {
    struct fixture *f = *state;
    struct slice old[5], key, value;
    put(f, "a", "0");
    put(f, "z", "goes");
    submit(f);
    assert_true(store_last(f->s, STORE_CONFIG, &key, &value));
    for (int i = 0; i < 5; i++) {
        assert_true(store_get(f->s, STORE_CONFIG, slice_str("a"), &old[i]));
        put(f, "a", (char[]){(char)('1' + i), '\0'});
        batch_delete(&f->batch, STORE_CONFIG, slice_str("z"));
        submit(f);
    }
    assert_value(f, "a", "5");
    assert_value(f, "z", NULL);
    assert_keys(f, "", "a");
    for (int i = 0; i < 5; i++) assert_true(slice_eq_str(old[i], (char[]){(char)('0' + i), '\0'}));
    assert_true(slice_eq_str(key, "z") && slice_eq_str(value, "goes"));
    store_end_reads(f->s);
    assert_value(f, "a", "5");
    store_end_reads(f->s);
}

static void test_values_of_every_size(void **state) {
    struct fixture *f = *state;
    static const size_t sizes[] = {0, 1, 500, 2000, 4096, 70000, 16 << 20};
    uint8_t *bytes = malloc(16 << 20);
    for (size_t i = 0; i < 16 << 20; i++) bytes[i] = (uint8_t)(i * 31 >> 3);
    for (uint8_t i = 0; i < 7; i++) {
        batch_append(&f->batch, STORE_JOURNAL, slice_of(&i, 1), slice_of(bytes, sizes[i]));
    }
    submit(f);
    struct store_iter it;
    size_t i = 0;
    store_seek(f->s, STORE_JOURNAL, slice_of(NULL, 0), &it);
    for (; it.valid; store_next(f->s, &it), i++) {
        assert_true(slice_eq(it.value, slice_of(bytes, sizes[i])));
    }
    store_iter_end(f->s, &it);
    store_end_reads(f->s);
    assert_int_equal(i, 7);
    free(bytes);
}

static void test_usage_and_room(void **state) {
    struct fixture *f = *state;
    struct store_usage before, after;
    char big[5000] = {0};
    store_usage(f->s, &before);
    batch_put(&f->batch, STORE_CONFIG, slice_str("big"), slice_of(big, sizeof big));
    submit(f);
    store_usage(f->s, &after);
    assert_true(after.bytes_used >= before.bytes_used + sizeof big);
    assert_true(after.bytes_max == before.bytes_max && after.bytes_max > after.bytes_used);
    assert_true(after.disk_free > 0);
    assert_int_equal(store_room(f->s), STORE_ROOM_OK);
}

static void submit_in_walk(struct fixture *f) {
    struct store_iter it;
    store_seek(f->s, STORE_CONFIG, slice_str(""), &it);
    (void)!store_submit(f->s, &f->batch);
}
static void end_reads_in_walk(struct fixture *f) {
    struct store_iter it;
    store_seek(f->s, STORE_CONFIG, slice_str(""), &it);
    store_end_reads(f->s);
}
static void append_out_of_order(struct fixture *f) {
    batch_append(&f->batch, STORE_CONFIG, slice_str("b"), slice_str(""));
    batch_append(&f->batch, STORE_CONFIG, slice_str("a"), slice_str(""));
    (void)!store_submit(f->s, &f->batch);
}
static void empty_key(struct fixture *f) {
    put(f, "", "v");
}

static void test_misuse_aborts(void **state) {
    struct fixture *f = *state;
    assert_aborts(submit_in_walk, f);
    assert_aborts(end_reads_in_walk, f);
    assert_aborts(append_out_of_order, f);
    assert_aborts(empty_key, f);
}

/* Whether two stores have the same entries in every table. */
static void assert_same(struct store *a, struct store *b) {
    for (int table = STORE_JOURNAL; table < STORE_TABLES; table++) {
        struct store_iter x, y;
        struct slice xk, xv, yk, yv;
        bool any = store_last(a, (enum store_table)table, &xk, &xv);
        assert_int_equal(any, store_last(b, (enum store_table)table, &yk, &yv));
        if (any) assert_true(slice_eq(xk, yk) && slice_eq(xv, yv));
        store_seek(a, (enum store_table)table, slice_of(NULL, 0), &x);
        store_seek(b, (enum store_table)table, slice_of(NULL, 0), &y);
        for (; x.valid && y.valid; store_next(a, &x), store_next(b, &y)) {
            assert_true(slice_eq(x.key, y.key) && slice_eq(x.value, y.value));
        }
        assert_int_equal(x.valid, y.valid);
        store_iter_end(a, &x);
        store_iter_end(b, &y);
    }
    store_end_reads(a);
    store_end_reads(b);
}

static void add_random(struct batch *b, struct prng *p) {
    static uint8_t bytes[12000];
    uint8_t key[3];
    size_t key_len = 1 + prng_below(p, 3);
    for (size_t i = 0; i < key_len; i++) key[i] = (uint8_t)(prng_below(p, 12) * 23);
    enum store_table table = (enum store_table)(STORE_JOURNAL + prng_below(p, 3));
    memset(bytes, (int)prng_below(p, 256), sizeof bytes);
    struct slice k = slice_of(key, key_len);
    size_t value_len = prng_below(p, prng_below(p, 8) == 0 ? sizeof bytes : 400);
    switch (prng_below(p, 10)) {
    case 0:
    case 1:
    case 2: batch_delete(b, table, k); break;
    case 3: batch_delete_prefix(b, table, k); break;
    default: batch_put(b, table, k, slice_of(bytes, value_len));
    }
}

/* The two implementations must agree on any history. */
static void test_both_agree(void **state) {
    struct fixture *f = *state, *other;
    struct prng p;
    assert_int_equal(setup_memory((void **)&other), 0);
    prng_seed(&p, 7);
    for (int turn = 0; turn < 300; turn++) {
        for (uint64_t n = prng_below(&p, 60); n > 0; n--) add_random(&f->batch, &p);
        assert_int_equal(store_submit(other->s, &f->batch), 0);
        submit(f);
        assert_same(f->s, other->s);
    }
    teardown((void **)&other);
}

static void test_manual_holds_until_sync(void **state) {
    struct fixture *f = *state;
    struct batch b[3];
    memory_store_set_manual(f->s, true);
    for (int i = 0; i < 3; i++) {
        batch_init(&b[i]);
        batch_put(&b[i], STORE_CONFIG, slice_str("k"), slice_str((char[]){(char)('0' + i), 0}));
        assert_int_equal(store_submit(f->s, &b[i]), 0);
    }
    assert_value(f, "k", NULL);
    assert_int_equal(memory_store_sync(f->s, 2), 2);
    assert_value(f, "k", "1");
    assert_int_equal(f->durable_len, 2);
    assert_ptr_equal(f->durable[1], &b[1]);
    memory_store_crash(f->s);
    assert_int_equal(memory_store_sync(f->s, 9), 0);
    assert_value(f, "k", "1");
    assert_int_equal(f->durable_len, 2);

    assert_int_equal(store_submit(f->s, &b[2]), 0);
    memory_store_set_manual(f->s, false); /* what is held goes first */
    assert_value(f, "k", "2");
    assert_int_equal(f->durable_len, 3);
    for (int i = 0; i < 3; i++) batch_free(&b[i]);
    store_end_reads(f->s);
}

static void touch_while_held(struct fixture *f) {
    memory_store_set_manual(f->s, true);
    put(f, "k", "v");
    (void)!store_submit(f->s, &f->batch);
    put(f, "l", "v");
    memory_store_sync(f->s, 1);
}

static void submit_again_after_failure(struct fixture *f) {
    (void)!store_submit(f->s, &f->batch);
}

static void test_failures_and_room_are_scripted(void **state) {
    struct fixture *f = *state;
    assert_aborts(touch_while_held, f);
    memory_store_fail_submit(f->s, 2);
    put(f, "k", "1");
    submit(f);
    put(f, "k", "2");
    assert_int_equal(store_submit(f->s, &f->batch), ERR_STORE);
    assert_int_equal(f->durable_len, 1);
    assert_true(strlen(f->s->error) > 20);
    assert_aborts(submit_again_after_failure, f);
    memory_store_crash(f->s); /* a new process */
    assert_value(f, "k", "1");
    store_end_reads(f->s);
    submit(f);
    assert_value(f, "k", "2");
    store_end_reads(f->s);
    memory_store_set_room(f->s, STORE_ROOM_LOW);
    assert_int_equal(store_room(f->s), STORE_ROOM_LOW);
    memory_store_set_room(f->s, STORE_ROOM_OK);
    assert_int_equal(store_room(f->s), STORE_ROOM_OK);
}

static void test_crash_ends_the_reads_of_the_dead(void **state) {
    struct fixture *f = *state;
    put(f, "k", "1");
    submit(f);
    struct store_iter it;
    store_seek(f->s, STORE_CONFIG, slice_str(""), &it);
    memory_store_crash(f->s);
    put(f, "k", "2");
    submit(f);
    assert_value(f, "k", "2");
    store_end_reads(f->s);
}

/* Appends at the end and deletes at the front must stay cheap: this would not end if they were
 * quadratic. */
static void test_many_keys(void **state) {
    struct fixture *f = *state;
    uint8_t key[8] = {0};
    for (uint32_t i = 0; i < 300000; i++) {
        for (int at = 0; at < 4; at++) key[4 + at] = (uint8_t)(i >> 8 * (3 - at));
        batch_append(&f->batch, STORE_JOURNAL, slice_of(key, 8), slice_str("value"));
        if (i % 1000 == 999) submit(f);
    }
    for (uint32_t i = 0; i < 299999; i++) {
        for (int at = 0; at < 4; at++) key[4 + at] = (uint8_t)(i >> 8 * (3 - at));
        batch_delete(&f->batch, STORE_JOURNAL, slice_of(key, 8));
        if (i % 1000 == 999) submit(f);
    }
    submit(f);
    struct slice last, value;
    struct store_iter it;
    assert_true(store_last(f->s, STORE_JOURNAL, &last, &value));
    store_seek(f->s, STORE_JOURNAL, slice_of(NULL, 0), &it);
    assert_true(it.valid && slice_eq(it.key, last));
    store_iter_end(f->s, &it);
    store_end_reads(f->s);
}

#define OVER_MEMORY(test) cmocka_unit_test_setup_teardown(test, setup_memory, teardown)
#define OVER_LMDB(test)   cmocka_unit_test_setup_teardown(test, setup_lmdb, teardown)
#define CONTRACT(over)                                                                             \
    over(test_put_get_delete), over(test_operations_apply_in_order),                               \
        over(test_walks_follow_the_order_of_bytes), over(test_several_walks_at_once),              \
        over(test_delete_prefix), over(test_durable_is_said_once_and_in_order),                    \
        over(test_slices_outlive_a_write_of_the_same_turn), over(test_values_of_every_size),       \
        over(test_usage_and_room), over(test_misuse_aborts)

int main(void) {
    const struct CMUnitTest memory[] = {
        CONTRACT(OVER_MEMORY),
        OVER_MEMORY(test_manual_holds_until_sync),
        OVER_MEMORY(test_failures_and_room_are_scripted),
        OVER_MEMORY(test_crash_ends_the_reads_of_the_dead),
        OVER_MEMORY(test_many_keys),
    };
    const struct CMUnitTest lmdb[] = {CONTRACT(OVER_LMDB), OVER_LMDB(test_both_agree)};
    int failed = cmocka_run_group_tests_name("memory", memory, NULL, NULL);
    return failed + cmocka_run_group_tests_name("lmdb", lmdb, NULL, NULL);
}
