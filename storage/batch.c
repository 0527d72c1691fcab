#include "storage/batch.h"

#include <stdlib.h>

#include "base/check.h"

#define BATCH_KEY_BYTES_MAX 511  /* what LMDB is built with, and it takes no empty key */
#define BATCH_KEEP_OPS      4096 /* a usual turn and its settlements: 160 KiB of operations */

void batch_init(struct batch *b) {
    *b = (struct batch){0};
    arena_init(&b->arena);
}

void batch_free(struct batch *b) {
    arena_free(&b->arena);
    free(b->ops);
    batch_init(b);
}

void batch_reset(struct batch *b) {
    arena_reset(&b->arena);
    b->len = 0;
    if (b->cap <= BATCH_KEEP_OPS) return;
    free(b->ops);
    b->ops = NULL;
    b->cap = 0;
}

static void add(struct batch *b, struct batch_op op) {
    CHECK(op.table < STORE_TABLES);
    CHECK(op.key.len <= BATCH_KEY_BYTES_MAX);
    CHECK(op.key.len > 0 || op.kind == BATCH_DELETE_PREFIX);
    if (b->len == b->cap) {
        b->cap = b->cap == 0 ? 64 : b->cap * 2;
        b->ops = mem_realloc(b->ops, b->cap * sizeof *b->ops);
    }
    b->ops[b->len++] = op;
}

void batch_add(struct batch *b, enum batch_kind kind, enum store_table table, struct slice key,
               struct slice value) {
    CHECK(kind == BATCH_PUT || kind == BATCH_APPEND);
    add(b, (struct batch_op){.table = table, .kind = kind, .key = key, .value = value});
}

void batch_put(struct batch *b, enum store_table table, struct slice key, struct slice value) {
    batch_add(b, BATCH_PUT, table, arena_copy(&b->arena, key), arena_copy(&b->arena, value));
}

void batch_append(struct batch *b, enum store_table table, struct slice key, struct slice value) {
    batch_add(b, BATCH_APPEND, table, arena_copy(&b->arena, key), arena_copy(&b->arena, value));
}

void batch_delete(struct batch *b, enum store_table table, struct slice key) {
    add(b,
        (struct batch_op){.table = table, .kind = BATCH_DELETE, .key = arena_copy(&b->arena, key)});
}

void batch_delete_prefix(struct batch *b, enum store_table table, struct slice key) {
    add(b, (struct batch_op){
               .table = table, .kind = BATCH_DELETE_PREFIX, .key = arena_copy(&b->arena, key)});
}
