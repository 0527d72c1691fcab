/* The LMDB store: writes and reads.
 *
 * Happy path: submit opens the one write transaction, applies the batch, commits (data synced, then
 * the meta page written through) and says that it is durable. Reads open a snapshot at their first
 * use and end_reads gives it back, so no snapshot outlives a turn and LMDB can reuse pages.
 *
 * Failures: a refused or failed write (no room, I/O error) aborts the transaction, says why, and
 * the process stops; a failed sync is never tried again, because the kernel may have dropped the
 * pages. A failed read is logged and aborts. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "proto/err.h"
#include "storage/lmdb_internal.h"

static struct lmdb *lmdb_of(struct store *s) {
    struct lmdb *l = CONTAINER_OF(s, struct lmdb, store);
    CHECK(!l->failed);
    return l;
}

static const char *advice(int why) {
    switch (why) {
    case MDB_MAP_FULL: return "raise the store's maximum size";
    case ENOSPC:
    case EDQUOT: return "free some disk space and start the broker again";
    case EIO:
        return "check the disk and the kernel's log; the data up to the last commit is intact";
    case EACCES:
    case EPERM: return "give the broker's user the right to read and write it";
    case EROFS: return "remount the file system writable or choose another data directory";
    case ENOENT: return "create the directory that it is to be in";
    case ENOMEM: return "lift the limit on address space (ulimit -v) or lower the maximum size";
    case MDB_INVALID:
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_VERSION_MISMATCH: return "it is damaged: restore a backup";
    default: return "look into the kernel's log, then start the broker again";
    }
}

int lmdb_fail(struct lmdb *l, const char *what, int why) {
    snprintf(l->store.error, sizeof l->store.error, "%s (%.80s): %s: %s", what, l->directory,
             mdb_strerror(why), advice(why));
    return ERR_STORE;
}

_Noreturn void lmdb_read_failed(struct lmdb *l, const char *what, int why) {
    log_error("%s (%s): %s: %s", what, l->directory, mdb_strerror(why), advice(why));
    abort();
}

static MDB_val val_of(struct slice s) {
    return (MDB_val){.mv_size = s.len, .mv_data = (void *)s.data};
}

static struct slice slice_of_val(MDB_val v) {
    return slice_of(v.mv_data, v.mv_size);
}

/* Writes. */

/* Looks for the first key with the prefix anew after each delete, which is simpler to trust than a
 * cursor that stands on a deleted entry. */
static int delete_prefix(MDB_txn *txn, MDB_dbi dbi, struct slice prefix) {
    if (prefix.len == 0) return mdb_drop(txn, dbi, 0);
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, dbi, &cursor);
    if (rc != 0) return rc;
    for (;;) {
        MDB_val key = val_of(prefix), value;
        rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
        if (rc != 0) break;
        if (key.mv_size < prefix.len || memcmp(key.mv_data, prefix.data, prefix.len) != 0) break;
        rc = mdb_cursor_del(cursor, 0);
        if (rc != 0) break;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int apply(struct lmdb *l, MDB_txn *txn, const struct batch_op *op) {
    MDB_dbi dbi = l->tables[op->table];
    MDB_val key = val_of(op->key), value = val_of(op->value);
    int rc = 0;
    switch (op->kind) {
    case BATCH_PUT: return mdb_put(txn, dbi, &key, &value, 0);
    case BATCH_APPEND:
        rc = mdb_put(txn, dbi, &key, &value, MDB_APPEND);
        CHECK(rc != MDB_KEYEXIST);
        return rc;
    case BATCH_DELETE: rc = mdb_del(txn, dbi, &key, NULL); return rc == MDB_NOTFOUND ? 0 : rc;
    case BATCH_DELETE_PREFIX: return delete_prefix(txn, dbi, op->key);
    }
    UNREACHABLE("every kind of operation has its case");
}

static int write_batch(struct lmdb *l, const struct batch *batch) {
    MDB_txn *txn;
    int rc = mdb_txn_begin(l->env, NULL, 0, &txn);
    if (rc != 0) return lmdb_fail(l, "cannot begin to write to the store", rc);
    for (size_t i = 0; i < batch->len; i++) {
        rc = apply(l, txn, &batch->ops[i]);
        if (rc != 0) {
            mdb_txn_abort(txn);
            return lmdb_fail(l, "cannot write to the store", rc);
        }
        l->bytes_since_room += batch->ops[i].key.len + batch->ops[i].value.len;
    }
    rc = mdb_txn_commit(txn);
    return rc == 0 ? 0 : lmdb_fail(l, "cannot commit to the store", rc);
}

static int lmdb_submit(struct store *s, struct batch *batch) {
    struct lmdb *l = lmdb_of(s);
    CHECK(l->walks_open == 0 && s->on_durable != NULL);
    if (batch->len > 0) {
        int err = write_batch(l, batch);
        l->failed = err != 0;
        if (l->failed) return err;
        l->snapshot_stale = true;
    }
    s->on_durable(s->on_durable_ctx, batch);
    return 0;
}

/* Reads. */

MDB_txn *lmdb_snapshot(struct lmdb *l) {
    if (l->readers_open > 0 && !l->snapshot_stale) return l->readers[l->readers_open - 1];
    CHECK(l->readers_open < LMDB_READERS);
    int rc;
    if (l->readers_open < l->readers_made) {
        rc = mdb_txn_renew(l->readers[l->readers_open]);
    } else {
        rc = mdb_txn_begin(l->env, NULL, MDB_RDONLY, &l->readers[l->readers_open]);
        if (rc == 0) l->readers_made++;
    }
    if (rc != 0) lmdb_read_failed(l, "cannot begin to read the store", rc);
    l->snapshot_stale = false;
    return l->readers[l->readers_open++];
}

void lmdb_end_reads(struct store *s) {
    struct lmdb *l = lmdb_of(s);
    CHECK(l->walks_open == 0);
    while (l->readers_open > 0) mdb_txn_reset(l->readers[--l->readers_open]);
}

static bool lmdb_get(struct store *s, enum store_table table, struct slice key,
                     struct slice *value) {
    struct lmdb *l = lmdb_of(s);
    if (key.len == 0) return false; /* LMDB has no empty keys and calls them an error */
    MDB_val k = val_of(key), v;
    int rc = mdb_get(lmdb_snapshot(l), l->tables[table], &k, &v);
    if (rc == MDB_NOTFOUND) return false;
    if (rc != 0) lmdb_read_failed(l, "cannot read the store", rc);
    *value = slice_of_val(v);
    return true;
}

static struct lmdb_walk *walk_open(struct lmdb *l, enum store_table table) {
    MDB_txn *txn = lmdb_snapshot(l);
    struct lmdb_walk *w = l->idle[table];
    int rc;
    if (w != NULL) {
        l->idle[table] = w->next_idle;
        rc = mdb_cursor_renew(txn, w->cursor);
    } else {
        w = mem_alloc(sizeof *w);
        *w = (struct lmdb_walk){.store = l, .table = table};
        rc = mdb_cursor_open(txn, l->tables[table], &w->cursor);
    }
    if (rc != 0) lmdb_read_failed(l, "cannot begin a walk over the store", rc);
    l->walks_open++;
    return w;
}

static void walk_close(struct lmdb_walk *w) {
    CHECK(w->store->walks_open > 0);
    w->store->walks_open--;
    w->next_idle = w->store->idle[w->table];
    w->store->idle[w->table] = w;
}

/* Moves the cursor; false when there is nothing there. */
static bool walk_move(struct lmdb_walk *w, MDB_cursor_op op, struct slice *key,
                      struct slice *value) {
    MDB_val k = val_of(*key), v;
    int rc = mdb_cursor_get(w->cursor, &k, &v, op);
    if (rc == MDB_NOTFOUND) return false;
    if (rc != 0) lmdb_read_failed(w->store, "cannot walk over the store", rc);
    *key = slice_of_val(k);
    *value = slice_of_val(v);
    if (w->table == STORE_JOURNAL && op != MDB_LAST) lmdb_announce(w->store, *value);
    return true;
}

static void lmdb_seek(struct store *s, enum store_table table, struct slice key,
                      struct store_iter *it) {
    struct lmdb_walk *w = walk_open(lmdb_of(s), table);
    *it = (struct store_iter){.key = key, .impl = w};
    it->valid = walk_move(w, key.len == 0 ? MDB_FIRST : MDB_SET_RANGE, &it->key, &it->value);
}

static void lmdb_next(struct store_iter *it) {
    CHECK(it->valid && it->impl != NULL);
    it->valid = walk_move(it->impl, MDB_NEXT, &it->key, &it->value);
}

static void lmdb_iter_end(struct store_iter *it) {
    CHECK(it->impl != NULL);
    walk_close(it->impl);
    it->impl = NULL;
    it->valid = false;
}

static bool lmdb_last(struct store *s, enum store_table table, struct slice *key,
                      struct slice *value) {
    struct lmdb_walk *w = walk_open(lmdb_of(s), table);
    bool found = walk_move(w, MDB_LAST, key, value);
    walk_close(w);
    return found;
}

void lmdb_close(struct store *s) {
    struct lmdb *l = CONTAINER_OF(s, struct lmdb, store);
    CHECK(l->walks_open == 0);
    for (int table = 0; table < STORE_TABLES; table++) {
        for (struct lmdb_walk *w = l->idle[table], *next; w != NULL; w = next) {
            next = w->next_idle;
            mdb_cursor_close(w->cursor);
            free(w);
        }
    }
    for (size_t i = 0; i < l->readers_made; i++) mdb_txn_abort(l->readers[i]);
    if (l->env != NULL) mdb_env_close(l->env);
    if (l->lock_fd >= 0) close(l->lock_fd); /* lets the directory go */
    if (l->directory_fd >= 0) close(l->directory_fd);
    free(l->directory);
    free(l);
}

const struct store_ops lmdb_ops = {
    .submit = lmdb_submit,
    .get = lmdb_get,
    .seek = lmdb_seek,
    .next = lmdb_next,
    .last = lmdb_last,
    .iter_end = lmdb_iter_end,
    .end_reads = lmdb_end_reads,
    .room = lmdb_room,
    .usage = lmdb_usage,
    .close = lmdb_close,
};
