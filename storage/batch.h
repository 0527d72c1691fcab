/* batch.h: the writes of one turn, applied to the store all or not at all.
 *
 * Owned by the turn that fills it; keys and values live in its arena until batch_reset. The store
 * borrows it from submit until it says that it is durable. Operations apply in the order in which
 * they were added. May call: base/arena. */
#ifndef STORAGE_BATCH_H
#define STORAGE_BATCH_H

#include "base/arena.h"

/* The tables of the store; keys are described in record.h. The order is on disk: only append. */
enum store_table {
    STORE_META,          /* text -> number: format version, id counter */
    STORE_JOURNAL,       /* seq -> event */
    STORE_IDS,           /* first seq of a turn -> fingerprints of its events' ids */
    STORE_CONFIG,        /* kind, name -> what a room keeps there (sources) */
    STORE_SUBSCRIPTIONS, /* subscription id -> name and policy */
    STORE_POSITIONS,     /* subscription id, cursor id -> how far it is */
    STORE_RETRIES,       /* subscription id, cursor id, seq -> fails, due time, last error */
    STORE_DEAD,          /* subscription id, seq, cursor id -> dead letter with its event */
    STORE_TASKS,         /* task id -> replay, count, redrive or purge: range and state */
    STORE_DUE,           /* subscription id, due time, seq, cursor id -> event that waits for it */
    STORE_JOBS,          /* number of a job -> its id, webhook_config, time to live and events */
    STORE_TABLES
};

enum batch_kind {
    BATCH_PUT,           /* set key to value */
    BATCH_APPEND,        /* set key to value; key is greater than every key of the table */
    BATCH_DELETE,        /* remove key; harmless when absent */
    BATCH_DELETE_PREFIX, /* remove every key that starts with key */
};

struct batch_op {
    enum store_table table;
    enum batch_kind kind;
    struct slice key, value;
};

struct batch {
    struct arena arena;
    struct batch_op *ops;
    size_t len, cap;
};

void batch_init(struct batch *b);
void batch_free(struct batch *b);
/* Empties it and keeps memory for a usual turn. */
void batch_reset(struct batch *b);

/* Adds an operation; key and value are copied into the arena. */
void batch_put(struct batch *b, enum store_table table, struct slice key, struct slice value);
void batch_append(struct batch *b, enum store_table table, struct slice key, struct slice value);
void batch_delete(struct batch *b, enum store_table table, struct slice key);
void batch_delete_prefix(struct batch *b, enum store_table table, struct slice key);

/* Adds a PUT or APPEND whose key and value were made in b->arena by the caller (record.h does). */
void batch_add(struct batch *b, enum batch_kind kind, enum store_table table, struct slice key,
               struct slice value);

#endif
