/* store.h: the contract between the delivery engine and whatever keeps its data.
 *
 * A store is ordered tables of byte keys (compared as unsigned bytes, shorter first) and values.
 * Writes: submit a batch, be told when it is durable; batches become durable in the order of
 * submission, each all or not at all. LMDB (lmdb.c) says so before store_submit returns; the
 * simulated disk (memory.c) says so when the test lets it. Reads are local and synchronous and see
 * what is durable.
 *
 * Owned by whoever opened it (main, or a test) until store_close. Everything that a read hands out
 * is borrowed until store_end_reads, which ends the turn's reading: no reader outlives a turn.
 *
 * Invariants: S1 a batch that was said to be durable survives kill -9 and power loss. S2 no batch
 * is seen in part. S3 after an error from store_submit the store is not used again but closed: a
 * failed fsync is never retried.
 *
 * Implementations may call base and the operating system; they know nothing of events. */
#ifndef STORAGE_STORE_H
#define STORAGE_STORE_H

#include "base/check.h"
#include "storage/batch.h"

struct store;

/* A walk over a table in key order. key and value are those of the current entry while valid. */
struct store_iter {
    struct slice key, value;
    bool valid;
    void *impl;
};

enum store_room {
    STORE_ROOM_OK,
    STORE_ROOM_LOW, /* only what frees or settles may still be written */
};

struct store_usage {
    uint64_t bytes_used; /* of the map: pages that hold data */
    uint64_t bytes_max;  /* the map */
    uint64_t disk_free;  /* of the file system, for us */
};

/* Called once per batch, in order of submission. */
typedef void store_durable_fn(void *ctx, struct batch *batch);

struct store_ops {
    int (*submit)(struct store *s, struct batch *batch);
    bool (*get)(struct store *s, enum store_table table, struct slice key, struct slice *value);
    void (*seek)(struct store *s, enum store_table table, struct slice key, struct store_iter *it);
    void (*next)(struct store_iter *it);
    bool (*last)(struct store *s, enum store_table table, struct slice *key, struct slice *value);
    void (*iter_end)(struct store_iter *it);
    void (*end_reads)(struct store *s);
    enum store_room (*room)(struct store *s);
    void (*usage)(struct store *s, struct store_usage *out);
    void (*close)(struct store *s);
};

/* The head of every implementation's struct. */
struct store {
    const struct store_ops *ops;
    store_durable_fn *on_durable; /* set by the owner before the first submit */
    void *on_durable_ctx;
    char error[256]; /* why the last call failed: says what, where and what to do */
};

/* Gives the batch to the store, which borrows it until on_durable was called with it. Non-zero
 * (ERR_STORE): it will never be durable, s->error says why, the process must stop. */
static inline MUST_CHECK int store_submit(struct store *s, struct batch *batch) {
    return s->ops->submit(s, batch);
}
/* The value of key. A read error is fatal inside (the reason is logged): it never guesses. */
static inline bool store_get(struct store *s, enum store_table table, struct slice key,
                             struct slice *value) {
    return s->ops->get(s, table, key, value);
}
/* Starts a walk at the first entry whose key is >= key; it->valid tells whether there is one. */
static inline void store_seek(struct store *s, enum store_table table, struct slice key,
                              struct store_iter *it) {
    s->ops->seek(s, table, key, it);
}
/* To the next entry; the iterator must be valid. */
static inline void store_next(struct store *s, struct store_iter *it) {
    s->ops->next(it);
}
/* Ends a walk, valid or not. Slices that it handed out live on until store_end_reads. */
static inline void store_iter_end(struct store *s, struct store_iter *it) {
    s->ops->iter_end(it);
}
/* The entry with the greatest key. */
static inline bool store_last(struct store *s, enum store_table table, struct slice *key,
                              struct slice *value) {
    return s->ops->last(s, table, key, value);
}
/* Ends the turn's reads. No walk may be open. */
static inline void store_end_reads(struct store *s) {
    s->ops->end_reads(s);
}
/* Whether new events may be taken in: keeps a headroom so that acks and deletes always fit. Cheap
 * enough for every turn. */
static inline enum store_room store_room(struct store *s) {
    return s->ops->room(s);
}
static inline void store_usage(struct store *s, struct store_usage *out) {
    s->ops->usage(s, out);
}
static inline void store_close(struct store *s) {
    s->ops->close(s);
}

/* Options of the LMDB store. */
struct lmdb_options {
    const char *directory;   /* data directory; created with mode 0700 when absent */
    uint64_t map_bytes;      /* fixed size of the map: an upper bound of the store, not allocated */
    uint64_t headroom_bytes; /* kept free in the map and on the disk for acks and deletes */
};
#define LMDB_MAP_BYTES_DEFAULT      (256ULL << 30)
#define LMDB_HEADROOM_BYTES_DEFAULT (64ULL << 20)

/* Opens or creates the store in a directory and locks the directory against a second broker.
 * Non-zero: *out is NULL and error[error_size] says what, where and what to do. */
MUST_CHECK int lmdb_store_open(struct store **out, const struct lmdb_options *options, char *error,
                               size_t error_size);

/* The simulated disk (memory.c), for the simulator and unit tests. */
MUST_CHECK int memory_store_open(struct store **out);
/* Holds submitted batches back until memory_store_sync, instead of making them durable at once. */
void memory_store_set_manual(struct store *s, bool manual);
/* Makes the oldest n held batches durable. Returns how many there were. */
size_t memory_store_sync(struct store *s, size_t n);
/* Power loss: forgets the held batches without a word to anyone. Their memory is the caller's. */
void memory_store_crash(struct store *s);
/* The n-th submit from now fails (1: the next); 0: none. */
void memory_store_fail_submit(struct store *s, size_t n);
void memory_store_set_room(struct store *s, enum store_room room);

#endif
