/* What only the LMDB store promises: its directory, its creation, crashes, full disks and maps. */
#include <fcntl.h>
#include <lmdb.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/prng.h"
#include "proto/err.h"
#include "storage/record.h"
#include "storage/store.h"

#define MIB (1 << 20)

struct fixture {
    char directory[64];
    struct lmdb_options options;
    char error[256];
    struct store *s;
    struct batch batch;
    size_t durable;
};

static void on_durable(void *ctx, struct batch *batch) {
    (void)batch;
    ((struct fixture *)ctx)->durable++;
}

/* Runs a shell command that finds the directory in $D. */
static int run(struct fixture *f, const char *command) {
    setenv("D", f->directory, 1);
    return system(command);
}

static int setup(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    char top[] = "/tmp/bellhop-test-XXXXXX";
    if (mkdtemp(top) == NULL) return -1;
    snprintf(f->directory, sizeof f->directory, "%s/data", top);
    f->options = (struct lmdb_options){f->directory, 64 * MIB, 4 * MIB};
    batch_init(&f->batch);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    if (f->s != NULL) store_close(f->s);
    batch_free(&f->batch);
    *strrchr(f->directory, '/') = '\0';
    int rc = run(f, "rm -rf \"$D\"");
    free(f);
    return rc;
}

static int try_open(struct fixture *f) {
    f->error[0] = '\0';
    int rc = lmdb_store_open(&f->s, &f->options, f->error, sizeof f->error);
    assert_int_equal(rc != 0, f->s == NULL);
    assert_int_equal(rc != 0, f->error[0] != '\0');
    if (rc != 0) return rc;
    f->s->on_durable = on_durable;
    f->s->on_durable_ctx = f;
    return 0;
}

static void open_store(struct fixture *f) {
    if (try_open(f) != 0) fail_msg("%s", f->error);
}

static void close_store(struct fixture *f) {
    store_close(f->s);
    f->s = NULL;
}

/* Opening fails and its sentence holds both words. */
static void assert_refused(struct fixture *f, const char *word, const char *other) {
    assert_int_equal(try_open(f), ERR_STORE);
    if (strstr(f->error, word) == NULL || strstr(f->error, other) == NULL) {
        fail_msg("\"%s\" and \"%s\" are not in: %s", word, other, f->error);
    }
}

static void append(struct fixture *f, uint64_t seq, size_t bytes) {
    uint8_t key[KEY_U64_BYTES];
    uint8_t *value = arena_alloc(&f->batch.arena, bytes);
    memset(value, (int)seq, bytes);
    batch_append(&f->batch, STORE_JOURNAL, key_u64(key, seq), slice_of(value, bytes));
}

static int submit(struct fixture *f) {
    int err = store_submit(f->s, &f->batch);
    batch_reset(&f->batch);
    return err;
}

static bool has(struct fixture *f, uint64_t seq) {
    uint8_t key[KEY_U64_BYTES];
    struct slice value;
    bool found = store_get(f->s, STORE_JOURNAL, key_u64(key, seq), &value);
    store_end_reads(f->s);
    return found;
}

static mode_t mode_of(struct fixture *f, const char *name) {
    char path[128];
    struct stat st;
    snprintf(path, sizeof path, "%s%s", f->directory, name);
    return stat(path, &st) == 0 ? st.st_mode & 0777 : 0;
}

static off_t data_bytes(struct fixture *f) {
    char path[128];
    struct stat st;
    snprintf(path, sizeof path, "%s/store/data.mdb", f->directory);
    return stat(path, &st) == 0 ? st.st_size : -1;
}

static void test_data_and_modes_last(void **state) {
    struct fixture *f = *state;
    open_store(f);
    append(f, 1, 100);
    assert_int_equal(submit(f), 0);
    close_store(f);
    assert_int_equal(mode_of(f, ""), 0700);
    assert_int_equal(mode_of(f, "/store"), 0700);
    assert_int_equal(mode_of(f, "/store/data.mdb"), 0600);
    assert_int_equal(mode_of(f, "/lock"), 0600);
    open_store(f);
    assert_true(has(f, 1));
    assert_false(has(f, 2));
}

static void test_a_killed_process_loses_nothing(void **state) {
    struct fixture *f = *state;
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        open_store(f);
        for (uint64_t seq = 1; seq <= 20; seq++) {
            append(f, seq, 300);
            if (submit(f) != 0) _exit(1);
        }
        (void)has(f, 1);
        append(f, 21, 300); /* never submitted */
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    open_store(f);
    assert_true(has(f, 1) && has(f, 20) && !has(f, 21));
}

static void test_one_broker_per_directory(void **state) {
    struct fixture *f = *state, second;
    char pid[16];
    open_store(f);
    second = *f;
    snprintf(pid, sizeof pid, "id %d:", (int)getpid());
    assert_refused(&second, pid, f->directory);
    close_store(f);
    open_store(f);
}

static void test_an_unfinished_creation_is_removed(void **state) {
    struct fixture *f = *state;
    assert_int_equal(run(f, "mkdir -p \"$D/.new-store\""), 0);
    assert_int_equal(run(f, "echo torn > \"$D/.new-store/data.mdb\""), 0);
    assert_int_equal(run(f, "touch \"$D/.new-store/lock.mdb\""), 0);
    open_store(f);
    assert_int_equal(mode_of(f, "/.new-store"), 0);
    close_store(f);
    assert_int_equal(run(f, "mkdir -p \"$D/.new-store/not-ours\""), 0);
    assert_refused(f, ".new-store", "not empty");
}

static const char *const table_names[] = {
    "config", "dead",      "due",     "ids",     "jobs",          "journal",
    "meta",   "positions", "replays", "retries", "subscriptions",
};
#define TABLE_NAMES (sizeof table_names / sizeof table_names[0])

/* Removes a table as if the store were of a broker that did not know it, past the store's back.
 * Asserts before that the tables are those of table_names: the names are on people's disks. */
static void remove_table(struct fixture *f, const char *name) {
    char path[128];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi names, table;
    MDB_cursor *cursor;
    MDB_val key;
    snprintf(path, sizeof path, "%s/store", f->directory);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 4), 0);
    assert_int_equal(mdb_env_open(env, path, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &names), 0);
    assert_int_equal(mdb_cursor_open(txn, names, &cursor), 0);
    for (size_t i = 0; i < TABLE_NAMES; i++) {
        assert_int_equal(mdb_cursor_get(cursor, &key, NULL, MDB_NEXT), 0);
        assert_true(slice_eq_str(slice_of(key.mv_data, key.mv_size), table_names[i]));
    }
    assert_int_equal(mdb_cursor_get(cursor, &key, NULL, MDB_NEXT), MDB_NOTFOUND);
    mdb_cursor_close(cursor);
    assert_int_equal(mdb_dbi_open(txn, name, 0, &table), 0);
    assert_int_equal(mdb_drop(txn, table, 1), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void test_an_older_store_gets_the_new_table(void **state) {
    struct fixture *f = *state;
    struct slice value;
    open_store(f);
    append(f, 1, 100);
    batch_put(&f->batch, STORE_TASKS, slice_str("k"), slice_str("replay"));
    assert_int_equal(submit(f), 0);
    close_store(f);
    remove_table(f, "jobs");

    open_store(f);
    assert_true(has(f, 1));
    assert_true(store_get(f->s, STORE_TASKS, slice_str("k"), &value));
    assert_true(slice_eq_str(value, "replay"));
    assert_false(store_get(f->s, STORE_JOBS, slice_str("k"), &value));
    store_end_reads(f->s);
    batch_put(&f->batch, STORE_JOBS, slice_str("k"), slice_str("later"));
    assert_int_equal(submit(f), 0);
    close_store(f);
    open_store(f);
    assert_true(store_get(f->s, STORE_JOBS, slice_str("k"), &value));
    assert_true(slice_eq_str(value, "later"));
    store_end_reads(f->s);
    close_store(f);
    remove_table(f, "jobs"); /* and it is where a new store has it */
    open_store(f);
}

/* Writes `value` as the format of the store, or removes it. */
static void set_format(struct fixture *f, struct slice value) {
    struct slice key = slice_str("format");
    open_store(f);
    if (value.len == 0) batch_delete(&f->batch, STORE_META, key);
    else batch_put(&f->batch, STORE_META, key, value);
    assert_int_equal(submit(f), 0);
    close_store(f);
}

static void test_other_formats_are_refused(void **state) {
    struct fixture *f = *state;
    struct arena arena;
    arena_init(&arena);
    set_format(f, record_u64_encode(&arena, STORE_FORMAT + 1));
    assert_refused(f, "format 2", "knows format 1");
    assert_int_equal(run(f, "rm -r \"$D\""), 0);
    set_format(f, slice_str("nonsense"));
    assert_refused(f, "format", "damaged");
    assert_int_equal(run(f, "rm -r \"$D\""), 0);
    set_format(f, slice_of(NULL, 0));
    assert_refused(f, "not made by Bellhop", f->directory);
    arena_free(&arena);
}

static void test_unusable_directories(void **state) {
    struct fixture *f = *state;
    assert_int_equal(run(f, "touch \"$D\""), 0);
    assert_refused(f, f->directory, "not a directory");
    assert_int_equal(run(f, "rm \"$D\""), 0);
    f->options.directory = "/nowhere/at/all";
    assert_refused(f, "/nowhere/at/all", "No such file");
    f->options.directory = f->directory;
    open_store(f);
    close_store(f);
    assert_int_equal(run(f, "echo junk > \"$D/store/data.mdb\""), 0);
    assert_refused(f, f->directory, "restore a backup");
    assert_int_equal(run(f, ": > \"$D/store/data.mdb\""), 0);
    assert_refused(f, "no data", "restore a backup");
    assert_int_equal(run(f, "rm -r \"$D/store\"; touch \"$D/store\""), 0);
    assert_refused(f, "no data", "store");
}

static void test_missing_rights(void **state) {
    struct fixture *f = *state;
    bool root = geteuid() == 0;
    assert_int_equal(run(f, "mkdir -m 0555 \"$D\"; chmod 0777 \"$D/..\""), 0);
    if (root) assert_int_equal(seteuid(65534), 0);
    assert_refused(f, "Permission denied", f->directory);
    if (root) assert_int_equal(seteuid(0), 0);
}

static void limit_files(rlim_t bytes) {
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* A file size limit stands for the full disk: the same calls fail. */
static void test_a_full_disk_at_creation(void **state) {
    struct fixture *f = *state;
    signal(SIGXFSZ, SIG_IGN);
    limit_files(8192);
    int rc = try_open(f);
    limit_files(RLIM_INFINITY);
    assert_int_equal(rc, ERR_STORE);
    assert_non_null(strstr(f->error, "File too large"));
    assert_int_equal(mode_of(f, "/store"), 0);
    assert_int_equal(mode_of(f, "/.new-store"), 0);
    open_store(f);
}

static void test_a_failed_commit_leaves_what_was(void **state) {
    struct fixture *f = *state;
    signal(SIGXFSZ, SIG_IGN);
    open_store(f);
    append(f, 1, 3000);
    assert_int_equal(submit(f), 0);
    limit_files((rlim_t)data_bytes(f));
    append(f, 2, 300000);
    int rc = submit(f);
    limit_files(RLIM_INFINITY);
    assert_int_equal(rc, ERR_STORE);
    assert_int_equal(f->durable, 1);
    assert_non_null(strstr(f->s->error, "commit"));
    assert_non_null(strstr(f->s->error, f->directory));
    close_store(f);
    open_store(f);
    assert_true(has(f, 1) && !has(f, 2));
    append(f, 2, 300000);
    assert_int_equal(submit(f), 0);
}

static void test_a_full_map_says_so(void **state) {
    struct fixture *f = *state;
    open_store(f);
    for (uint64_t seq = 1; seq <= 5; seq++) append(f, seq, 14 * MIB);
    assert_int_equal(submit(f), ERR_STORE);
    assert_non_null(strstr(f->s->error, "MDB_MAP_FULL"));
    assert_non_null(strstr(f->s->error, "raise"));
    close_store(f);
    open_store(f);
    for (uint64_t seq = 1; seq <= 3; seq++) append(f, seq, 14 * MIB);
    assert_int_equal(submit(f), 0);
    close_store(f);
    f->options.map_bytes = 16 * MIB;
    assert_refused(f, "maximum size", f->directory);
}

/* Fill until room is low, then make room from the oldest end, many times over: room goes low before
 * anything fails, deletes always fit, and room comes back. */
static void test_room_goes_and_comes_back(void **state) {
    struct fixture *f = *state;
    struct prng p;
    uint64_t first = 1, next = 1, first_turnover_bytes = 0;
    prng_seed(&p, 5);
    f->options.headroom_bytes = 8 * MIB;
    open_store(f);
    for (int turnover = 0; turnover < 12; turnover++) {
        while (store_room(f->s) == STORE_ROOM_OK) {
            size_t most = prng_below(&p, 20) == 0 ? 65536 : 1500;
            for (int i = 0; i < 64; i++) append(f, next++, 200 + prng_below(&p, most));
            assert_int_equal(submit(f), 0);
        }
        struct store_usage usage;
        store_usage(f->s, &usage);
        if (turnover == 0) first_turnover_bytes = usage.bytes_used;
        assert_true(usage.bytes_used > 40 * MIB || turnover > 0);
        assert_true(usage.bytes_used > first_turnover_bytes / 2);
        while (store_room(f->s) == STORE_ROOM_LOW) {
            assert_true(first < next);
            for (int i = 0; i < 50 && first < next; i++) {
                uint8_t key[KEY_U64_BYTES];
                batch_delete(&f->batch, STORE_JOURNAL, key_u64(key, first++));
            }
            assert_int_equal(submit(f), 0);
        }
    }
    store_end_reads(f->s);
}

static void test_a_small_disk_is_low(void **state) {
    struct fixture *f = *state;
    f->options.headroom_bytes = 1ULL << 62;
    open_store(f);
    assert_int_equal(store_room(f->s), STORE_ROOM_LOW);
    append(f, 1, 100);
    assert_int_equal(submit(f), 0); /* settling still works */
    assert_int_equal(store_room(f->s), STORE_ROOM_LOW);
}

/* A snapshot that outlived its turn would keep every old page: the file would grow with each. */
static void test_no_snapshot_outlives_a_turn(void **state) {
    struct fixture *f = *state;
    char big[3000] = {0};
    open_store(f);
    for (int turn = 0; turn < 3000; turn++) {
        struct slice value;
        struct store_iter it;
        big[0] = (char)turn;
        (void)store_room(f->s);
        (void)store_get(f->s, STORE_CONFIG, slice_str("k"), &value);
        batch_put(&f->batch, STORE_CONFIG, slice_str("k"), slice_of(big, sizeof big));
        assert_int_equal(submit(f), 0);
        store_seek(f->s, STORE_CONFIG, slice_str(""), &it);
        assert_int_equal(it.value.data[0], (uint8_t)turn);
        store_iter_end(f->s, &it);
        store_end_reads(f->s);
    }
    assert_true(data_bytes(f) < MIB);
}

/* Fills the pages that hold the journal with zeroes, then reads: it must stop, not guess. */
static void test_damaged_pages_abort(void **state) {
    struct fixture *f = *state;
    int status, out[2];
    char path[128], said[512] = "";
    open_store(f);
    for (uint64_t seq = 1; seq <= 100; seq++) append(f, seq, 500);
    assert_int_equal(submit(f), 0);
    snprintf(path, sizeof path, "%s/store/data.mdb", f->directory);
    int fd = open(path, O_RDWR);
    off_t size = data_bytes(f);
    uint8_t page[4096], zeroes[4096] = {0};
    for (off_t at = 2 * 4096; at < size; at += 4096) {
        assert_int_equal(pread(fd, page, sizeof page, at), sizeof page);
        if (memmem(page, sizeof page, "\x07\x07\x07\x07\x07\x07", 6) == NULL) continue;
        assert_int_equal(pwrite(fd, zeroes, sizeof zeroes, at), sizeof zeroes);
    }
    close(fd);
    assert_int_equal(pipe(out), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out[1], STDERR_FILENO);
        (void)has(f, 7);
        _exit(0);
    }
    close(out[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(read(out[0], said, sizeof said - 1) > 0);
    close(out[0]);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(said, "level=error"));
    assert_non_null(strstr(said, "restore a backup"));
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_data_and_modes_last),
        TEST(test_a_killed_process_loses_nothing),
        TEST(test_one_broker_per_directory),
        TEST(test_an_unfinished_creation_is_removed),
        TEST(test_an_older_store_gets_the_new_table),
        TEST(test_other_formats_are_refused),
        TEST(test_unusable_directories),
        TEST(test_missing_rights),
        TEST(test_a_full_disk_at_creation),
        TEST(test_a_failed_commit_leaves_what_was),
        TEST(test_a_full_map_says_so),
        TEST(test_room_goes_and_comes_back),
        TEST(test_a_small_disk_is_low),
        TEST(test_no_snapshot_outlives_a_turn),
        TEST(test_damaged_pages_abort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
