/* lmdb_internal.h: what the files of the LMDB store share: lmdb.c (writes and reads), lmdb_open.c
 * (the directory and its creation), lmdb_room.c (how much room is left, prefetching).
 *
 * One struct lmdb per open store, owned by whoever called lmdb_store_open until store_close, which
 * frees it, its cursors and its transactions and lets the directory go.
 *
 * Invariants: L1 no write transaction is open between two calls. L2 readers[0..readers_open) are
 * open and the others reset; only the last open one is read from, the ones before it keep slices
 * of this turn alive. L3 end_reads leaves no reader open. L4 after a failed write nothing but close
 * is called. May call: base, LMDB, the operating system. */
#ifndef STORAGE_LMDB_INTERNAL_H
#define STORAGE_LMDB_INTERNAL_H

#include <lmdb.h>

#include "storage/store.h"

/* Snapshots of one turn: one, and one more for each batch that became durable between two reads.
 * A turn has one batch; the rest is for tools that loop. LMDB has 126 reader slots. */
#define LMDB_READERS 64

/* Ranges of the map that were announced to the kernel; one per reader of the journal that lags. */
#define LMDB_WINDOWS 8

/* A cursor that is reused from turn to turn; it->impl of an open walk. */
struct lmdb_walk {
    struct lmdb *store;
    enum store_table table;
    MDB_cursor *cursor;
    struct lmdb_walk *next_idle;
};

/* Bytes of the map that were announced: [from, to). */
struct lmdb_window {
    uintptr_t from, to;
};

struct lmdb {
    struct store store; /* first: the contract's head */
    char *directory;    /* owns; for messages */
    int directory_fd, lock_fd;
    uint64_t map_bytes, headroom_bytes;
    MDB_env *env;
    MDB_dbi main, tables[STORE_TABLES];
    bool failed;

    MDB_txn *readers[LMDB_READERS];
    size_t readers_made, readers_open;
    bool snapshot_stale; /* a batch became durable since the last reader was opened */
    struct lmdb_walk *idle[STORE_TABLES];
    size_t walks_open;

    struct lmdb_window windows[LMDB_WINDOWS];
    size_t next_window;

    enum store_room room;
    uint64_t room_checked_ms;
    uint64_t room_step_bytes, bytes_since_room; /* submitted since room was looked at */
};

/* Fills l->store.error: what failed, in which store, why (an LMDB code or an errno), what to do.
 * Returns ERR_STORE. */
int lmdb_fail(struct lmdb *l, const char *what, int why);

/* Logs why the store cannot be read and aborts: a restart is recovery, a guess is data loss. */
_Noreturn void lmdb_read_failed(struct lmdb *l, const char *what, int why);

/* The snapshot of what is durable now, opened when this turn has none; until end_reads. */
MDB_txn *lmdb_snapshot(struct lmdb *l);
void lmdb_end_reads(struct store *s);
void lmdb_close(struct store *s);
extern const struct store_ops lmdb_ops;

enum store_room lmdb_room(struct store *s);
void lmdb_usage(struct store *s, struct store_usage *out);
/* Tells the kernel that the walk comes by this value of the journal and will go on from there. */
void lmdb_announce(struct lmdb *l, struct slice value);

#endif
