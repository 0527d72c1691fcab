/* The LMDB store: its directory, its creation, its opening.
 *
 *   DIR/lock         held by the broker that runs here; its text is that broker's process id
 *   DIR/store/       data.mdb, and lock.mdb of LMDB's readers
 *   DIR/.new-store/  a store that is being created
 *
 * Happy path: make or open DIR, lock it, create DIR/store when it is not there, open it, check its
 * format, open its tables. A store is created under another name and renamed when everything is
 * on disk, because LMDB's first two pages are written without a sync between them: a crash before
 * the first commit leaves a file that cannot be opened, and here it leaves DIR/.new-store, which
 * the next start removes.
 *
 * Failures: each one ends the opening with a sentence and undoes nothing on disk but an unfinished
 * creation. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "proto/err.h"
#include "storage/lmdb_internal.h"
#include "storage/record.h"

#define NEW_STORE ".new-store"
#define STORE     "store"

static const char format_key[] = "format";
static const char *const table_names[STORE_TABLES] = {
    [STORE_META] = "meta",
    [STORE_JOURNAL] = "journal",
    [STORE_IDS] = "ids",
    [STORE_CONFIG] = "config",
    [STORE_SUBSCRIPTIONS] = "subscriptions",
    [STORE_POSITIONS] = "positions",
    [STORE_RETRIES] = "retries",
    [STORE_DEAD] = "dead",
    [STORE_TASKS] = "replays", /* the only tasks there were when the table was made */
    [STORE_DUE] = "due",
    [STORE_JOBS] = "jobs",
};

static int say(struct lmdb *l, const char *fmt, ...) PRINTF_LIKE(2, 3);
static int say(struct lmdb *l, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(l->store.error, sizeof l->store.error, fmt, args);
    va_end(args);
    return ERR_STORE;
}

/* The path of something in the data directory; the caller frees it. */
static char *path_in(const struct lmdb *l, const char *name) {
    size_t size = strlen(l->directory) + 1 + strlen(name) + 1;
    char *path = mem_alloc(size);
    snprintf(path, size, "%s/%s", l->directory, name);
    return path;
}

static int open_directory(struct lmdb *l) {
    if (mkdir(l->directory, 0700) != 0 && errno != EEXIST) {
        return lmdb_fail(l, "cannot create the data directory", errno);
    }
    l->directory_fd = open(l->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (l->directory_fd < 0 && errno == ENOTDIR) {
        return say(l, "%.100s is not a directory: remove it or choose another data directory",
                   l->directory);
    }
    if (l->directory_fd < 0) return lmdb_fail(l, "cannot open the data directory", errno);
    return 0;
}

/* Puts the names DIR and DIR/store on disk. At every start, because the broker that made them may
 * have been killed before it came to this. */
static int sync_names(struct lmdb *l) {
    int rc = fsync(l->directory_fd) == 0 ? 0 : errno;
    int parent = openat(l->directory_fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (rc == 0 && parent < 0 && errno != EACCES) rc = errno;
    if (rc == 0 && parent >= 0 && fsync(parent) != 0) rc = errno;
    if (parent >= 0) close(parent);
    return rc == 0 ? 0 : lmdb_fail(l, "cannot sync the data directory", rc);
}

/* flock goes with the process, however it ends; the file stays. */
static int lock_directory(struct lmdb *l) {
    char pid[16] = "";
    l->lock_fd = openat(l->directory_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (l->lock_fd < 0) return lmdb_fail(l, "cannot open the file \"lock\"", errno);
    if (flock(l->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) return lmdb_fail(l, "cannot lock the data directory", errno);
        ssize_t n = pread(l->lock_fd, pid, sizeof pid - 1, 0);
        pid[n > 0 ? n : 0] = '\0';
        return say(l,
                   "%.100s is in use by the broker with process id %d: stop that one, or choose "
                   "another data directory for this one",
                   l->directory, (int)strtol(pid, NULL, 10));
    }
    /* Of one width, so that it needs no new block: a broker must start on a full disk. */
    int len = snprintf(pid, sizeof pid, "%-10d\n", (int)getpid());
    if (pwrite(l->lock_fd, pid, (size_t)len, 0) != len) {
        log_warn("cannot write the process id to %s/lock", l->directory);
    }
    return 0;
}

static int remove_unfinished(struct lmdb *l) {
    int fd = openat(l->directory_fd, NEW_STORE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return 0;
    if (fd < 0) return lmdb_fail(l, "cannot open the unfinished \".new-store\"", errno);
    unlinkat(fd, "data.mdb", 0);
    unlinkat(fd, "lock.mdb", 0);
    close(fd);
    if (unlinkat(l->directory_fd, NEW_STORE, AT_REMOVEDIR) == 0) return 0;
    return lmdb_fail(l, "cannot remove the unfinished \".new-store\"", errno);
}

static void on_lmdb_assert(MDB_env *env, const char *message) {
    struct lmdb *l = mdb_env_get_userctx(env);
    log_error("the store in %s is damaged: restore a backup (LMDB: %s)", l->directory, message);
}

/* Opens the files in DIR/name. NOTLS: a turn may hold several snapshots in one thread. */
static int open_env(struct lmdb *l, const char *name) {
    int rc = mdb_env_create(&l->env);
    if (rc != 0) return lmdb_fail(l, "cannot set up the store", rc);
    CHECK(mdb_env_set_mapsize(l->env, l->map_bytes) == 0);
    CHECK(mdb_env_set_maxdbs(l->env, STORE_TABLES) == 0);
    CHECK(mdb_env_set_userctx(l->env, l) == 0);
    CHECK(mdb_env_set_assert(l->env, on_lmdb_assert) == 0);
    char *path = path_in(l, name);
    rc = mdb_env_open(l->env, path, MDB_NOTLS, 0600);
    free(path);
    return rc == 0 ? 0 : lmdb_fail(l, "cannot open the store", rc);
}

static void close_env(struct lmdb *l) {
    mdb_env_close(l->env);
    l->env = NULL;
}

/* Opens every table; one that is not there is made: an older broker had fewer of them. */
static int open_tables(struct lmdb *l, MDB_txn *txn) {
    int rc = mdb_dbi_open(txn, NULL, 0, &l->main);
    for (int i = 0; i < STORE_TABLES && rc == 0; i++) {
        rc = mdb_dbi_open(txn, table_names[i], MDB_CREATE, &l->tables[i]);
    }
    return rc;
}

static int write_format(struct lmdb *l, MDB_txn *txn) {
    struct arena arena;
    arena_init(&arena);
    struct slice value = record_u64_encode(&arena, STORE_FORMAT);
    MDB_val k = {.mv_size = strlen(format_key), .mv_data = (void *)format_key};
    MDB_val v = {.mv_size = value.len, .mv_data = (void *)value.data};
    int rc = mdb_put(txn, l->tables[STORE_META], &k, &v, 0);
    arena_free(&arena);
    return rc;
}

static int fill_new_store(struct lmdb *l) {
    MDB_txn *txn;
    int rc = mdb_txn_begin(l->env, NULL, 0, &txn);
    if (rc != 0) return rc;
    rc = open_tables(l, txn);
    if (rc == 0) rc = write_format(l, txn);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    rc = mdb_txn_commit(txn);
    return rc == 0 ? mdb_env_sync(l->env, 1) : rc;
}

static int sync_new_store(struct lmdb *l) {
    int fd = openat(l->directory_fd, NEW_STORE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return errno;
    int rc = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return rc;
}

static int create(struct lmdb *l) {
    if (mkdirat(l->directory_fd, NEW_STORE, 0700) != 0) {
        return lmdb_fail(l, "cannot create the store", errno);
    }
    int err = open_env(l, NEW_STORE);
    if (err != 0) return err;
    int rc = fill_new_store(l);
    close_env(l);
    if (rc == 0) rc = sync_new_store(l);
    if (rc == 0 && renameat(l->directory_fd, NEW_STORE, l->directory_fd, STORE) != 0) {
        rc = errno;
    }
    return rc == 0 ? 0 : lmdb_fail(l, "cannot create the store", rc);
}

static int create_when_absent(struct lmdb *l) {
    struct stat st;
    if (fstatat(l->directory_fd, STORE, &st, 0) != 0) {
        if (errno != ENOENT) return lmdb_fail(l, "cannot look at the store", errno);
        int err = create(l);
        if (err != 0) {
            char error[sizeof l->store.error];
            memcpy(error, l->store.error, sizeof error);
            if (l->env != NULL) close_env(l);
            (void)remove_unfinished(l); /* what matters is why the creation failed */
            memcpy(l->store.error, error, sizeof error);
        }
        return err;
    }
    /* LMDB would put a new, empty file in its place. */
    int rc = fstatat(l->directory_fd, STORE "/data.mdb", &st, 0);
    if (rc != 0 && errno != ENOENT && errno != ENOTDIR)
        return lmdb_fail(l, "cannot look at the store's data", errno);
    if (rc != 0 || st.st_size == 0) {
        return say(
            l,
            "%.100s/store has no data in data.mdb: restore a backup, or remove the directory "
            "\"store\" to start with an empty one",
            l->directory);
    }
    return 0;
}

static int check_format(struct lmdb *l, MDB_txn *txn) {
    MDB_dbi meta;
    MDB_val k = {.mv_size = strlen(format_key), .mv_data = (void *)format_key}, v;
    uint64_t format;
    int rc = mdb_dbi_open(txn, table_names[STORE_META], 0, &meta);
    if (rc == 0) rc = mdb_get(txn, meta, &k, &v);
    if (rc == MDB_NOTFOUND) {
        return say(l, "%.100s/store was not made by Bellhop: choose another data directory",
                   l->directory);
    }
    if (rc != 0) return lmdb_fail(l, "cannot read the store's format", rc);
    if (!record_u64_decode(slice_of(v.mv_data, v.mv_size), &format)) {
        return lmdb_fail(l, "cannot read the store's format", MDB_CORRUPTED);
    }
    if (format != STORE_FORMAT) {
        return say(
            l,
            "%.100s/store has format %llu and this broker knows format %d: start the version "
            "of Bellhop that wrote it",
            l->directory, (unsigned long long)format, STORE_FORMAT);
    }
    return 0;
}

static int open_store(struct lmdb *l) {
    MDB_envinfo info;
    MDB_txn *txn;
    int dead, err = open_env(l, STORE);
    if (err != 0) return err;
    mdb_env_info(l->env, &info); /* LMDB widens a map that is smaller than the data */
    if (info.me_mapsize > l->map_bytes) {
        return say(l, "the store in %.100s has %llu bytes: raise its maximum size above that",
                   l->directory, (unsigned long long)info.me_mapsize);
    }
    int rc = mdb_reader_check(l->env, &dead);
    if (rc != 0) return lmdb_fail(l, "cannot check the store's readers", rc);
    rc = mdb_txn_begin(l->env, NULL, 0, &txn);
    if (rc != 0) return lmdb_fail(l, "cannot begin to write to the store", rc);
    err = check_format(l, txn);
    if (err == 0) {
        rc = open_tables(l, txn);
        if (rc == 0) rc = mdb_txn_commit(txn); /* writes only when a table was made */
        else mdb_txn_abort(txn);
        return rc == 0 ? 0 : lmdb_fail(l, "cannot open the store's tables", rc);
    }
    mdb_txn_abort(txn);
    return err;
}

int lmdb_store_open(struct store **out, const struct lmdb_options *options, char *error,
                    size_t error_size) {
    struct lmdb *l = mem_alloc(sizeof *l);
    *l = (struct lmdb){.store = {.ops = &lmdb_ops},
                       .directory = mem_strdup(options->directory),
                       .directory_fd = -1,
                       .lock_fd = -1,
                       .map_bytes = options->map_bytes,
                       .headroom_bytes = options->headroom_bytes,
                       .room_step_bytes = 4 << 20};
    if (l->room_step_bytes > l->headroom_bytes / 8) l->room_step_bytes = l->headroom_bytes / 8;
    *out = NULL;
    int err = open_directory(l);
    if (err == 0) err = lock_directory(l);
    if (err == 0) err = remove_unfinished(l);
    if (err == 0) err = create_when_absent(l);
    if (err == 0) err = sync_names(l);
    if (err == 0) err = open_store(l);
    if (err == 0) {
        *out = &l->store;
        return 0;
    }
    snprintf(error, error_size, "%s", l->store.error);
    lmdb_close(&l->store);
    return err;
}
