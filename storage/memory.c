/* The simulated disk: the store's contract in memory, under a test's control.
 *
 * Each table is a skip list: sorted, cheap to append to, to walk and to delete from at its front.
 * Levels come from a seeded generator, so that a run is reproducible. What a batch removes or
 * replaces while the turn reads goes to the graveyard until end_reads, as slices may point at it.
 *
 * In manual mode a submitted batch is held (borrowed, as the contract has it) until
 * memory_store_sync applies it; its checksum is taken at submit and compared then, so that whoever
 * touches a batch before it is durable is found out. */
#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "base/list.h"
#include "base/prng.h"
#include "proto/err.h"
#include "storage/store.h"

#define LEVELS 16 /* each level has a quarter of the one below: enough for billions of keys */

/* Allocated with its key and value behind the links. */
struct node {
    struct slice key, value;
    struct node *next_grave;
    int levels;
    struct node *next[];
};

struct table {
    struct node *head[LEVELS];
};

struct walk {
    struct list link; /* in memory.walks */
    struct memory *store;
    struct node *node;
};

struct held {
    struct batch *batch;
    uint32_t crc;
};

struct memory {
    struct store store; /* first: the contract's head */
    struct table tables[STORE_TABLES];
    struct prng prng;
    uint64_t bytes;
    struct list walks;
    struct node *graves;
    bool reading; /* slices were handed out since the last end_reads */
    bool manual, failed;
    size_t fail_in; /* submits until one fails; 0: never */
    struct held *held;
    size_t held_len, held_cap;
    enum store_room room;
};

static struct memory *memory_of(struct store *s) {
    return CONTAINER_OF(s, struct memory, store);
}

/* Tables. */

static int compare(struct slice a, struct slice b) {
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len == 0 ? 0 : memcmp(a.data, b.data, len);
    if (order != 0) return order;
    return a.len < b.len ? -1 : a.len > b.len;
}

/* The first node with a key >= key. links[level] becomes the link that leads to it there. */
static struct node *find(struct table *t, struct slice key, struct node **links[LEVELS]) {
    struct node **next = t->head;
    for (int level = LEVELS - 1; level >= 0; level--) {
        while (next[level] != NULL && compare(next[level]->key, key) < 0) {
            next = next[level]->next;
        }
        if (links != NULL) links[level] = &next[level];
    }
    return next[0];
}

static void bury(struct memory *m, struct node *n) {
    m->bytes -= n->key.len + n->value.len;
    if (!m->reading) {
        free(n);
        return;
    }
    n->next_grave = m->graves;
    m->graves = n;
}

static void unlink_node(struct memory *m, struct node *n, struct node **links[LEVELS]) {
    for (int level = 0; level < n->levels; level++) *links[level] = n->next[level];
    bury(m, n);
}

static void put(struct memory *m, struct table *t, const struct batch_op *op) {
    struct node **links[LEVELS];
    struct node *old = find(t, op->key, links);
    CHECK(op->kind == BATCH_PUT || old == NULL); /* appended keys are the greatest */
    if (old != NULL && slice_eq(old->key, op->key)) unlink_node(m, old, links);

    int levels = 1;
    while (levels < LEVELS && prng_below(&m->prng, 4) == 0) levels++;
    size_t head_bytes = sizeof(struct node) + (size_t)levels * sizeof(struct node *);
    struct node *n = mem_alloc(head_bytes + op->key.len + op->value.len);
    uint8_t *bytes = (uint8_t *)n + head_bytes;
    *n = (struct node){.key = slice_of(bytes, op->key.len),
                       .value = slice_of(bytes + op->key.len, op->value.len),
                       .levels = levels};
    memcpy(bytes, op->key.data, op->key.len);
    if (op->value.len > 0) memcpy(bytes + op->key.len, op->value.data, op->value.len);
    for (int level = 0; level < levels; level++) {
        n->next[level] = *links[level];
        *links[level] = n;
    }
    m->bytes += op->key.len + op->value.len;
}

static void delete_key(struct memory *m, struct table *t, struct slice key) {
    struct node **links[LEVELS];
    struct node *n = find(t, key, links);
    if (n != NULL && slice_eq(n->key, key)) unlink_node(m, n, links);
}

static bool has_prefix(struct slice key, struct slice prefix) {
    return key.len >= prefix.len && slice_eq(slice_of(key.data, prefix.len), prefix);
}

static void delete_prefix(struct memory *m, struct table *t, struct slice prefix) {
    struct node **links[LEVELS];
    find(t, prefix, links);
    for (struct node *n = *links[0]; n != NULL && has_prefix(n->key, prefix); n = *links[0]) {
        unlink_node(m, n, links);
    }
}

/* Writes. */

static uint32_t checksum(const struct batch *b) {
    uint32_t crc = 0;
    for (size_t i = 0; i < b->len; i++) {
        const struct batch_op *op = &b->ops[i];
        uint32_t parts[] = {crc, op->table, op->kind, crc32c(op->key.data, op->key.len),
                            crc32c(op->value.data, op->value.len)};
        crc = crc32c(parts, sizeof parts);
    }
    return crc;
}

static void make_durable(struct memory *m, struct batch *batch) {
    CHECK(list_empty(&m->walks));
    for (size_t i = 0; i < batch->len; i++) {
        const struct batch_op *op = &batch->ops[i];
        struct table *t = &m->tables[op->table];
        switch (op->kind) {
        case BATCH_PUT:
        case BATCH_APPEND: put(m, t, op); break;
        case BATCH_DELETE: delete_key(m, t, op->key); break;
        case BATCH_DELETE_PREFIX: delete_prefix(m, t, op->key); break;
        }
    }
    m->store.on_durable(m->store.on_durable_ctx, batch);
}

static int memory_submit(struct store *s, struct batch *batch) {
    struct memory *m = memory_of(s);
    CHECK(!m->failed && list_empty(&m->walks) && s->on_durable != NULL);
    if (m->fail_in > 0 && --m->fail_in == 0) {
        m->failed = true;
        snprintf(
            s->error, sizeof s->error,
            "cannot commit to the simulated disk: the test said so: start again after a crash");
        return ERR_STORE;
    }
    if (!m->manual) {
        make_durable(m, batch);
        return 0;
    }
    if (m->held_len == m->held_cap) {
        m->held_cap = m->held_cap == 0 ? 16 : m->held_cap * 2;
        m->held = mem_realloc(m->held, m->held_cap * sizeof *m->held);
    }
    m->held[m->held_len++] = (struct held){.batch = batch, .crc = checksum(batch)};
    return 0;
}

size_t memory_store_sync(struct store *s, size_t n) {
    struct memory *m = memory_of(s);
    CHECK(!m->failed);
    size_t done = 0;
    for (; done < n && m->held_len > 0; done++) {
        struct held first = m->held[0];
        /* Out of the queue first: on_durable may submit the next one. */
        memmove(m->held, m->held + 1, --m->held_len * sizeof *m->held);
        CHECK(first.crc == checksum(first.batch)); /* it was lent to us */
        make_durable(m, first.batch);
    }
    return done;
}

void memory_store_set_manual(struct store *s, bool manual) {
    struct memory *m = memory_of(s);
    m->manual = manual;
    if (!manual) memory_store_sync(s, SIZE_MAX); /* later batches must not overtake these */
}

void memory_store_fail_submit(struct store *s, size_t n) {
    memory_of(s)->fail_in = n;
}

void memory_store_set_room(struct store *s, enum store_room room) {
    memory_of(s)->room = room;
}

/* Reads. */

static void free_graves(struct memory *m) {
    for (struct node *n = m->graves, *next; n != NULL; n = next) {
        next = n->next_grave;
        free(n);
    }
    m->graves = NULL;
    m->reading = false;
}

static bool memory_get(struct store *s, enum store_table table, struct slice key,
                       struct slice *value) {
    struct memory *m = memory_of(s);
    CHECK(!m->failed && table < STORE_TABLES);
    struct node *n = find(&m->tables[table], key, NULL);
    if (n == NULL || !slice_eq(n->key, key)) return false;
    m->reading = true;
    *value = n->value;
    return true;
}

static void show(struct store_iter *it) {
    struct node *n = ((struct walk *)it->impl)->node;
    it->valid = n != NULL;
    it->key = n == NULL ? slice_of(NULL, 0) : n->key;
    it->value = n == NULL ? slice_of(NULL, 0) : n->value;
}

static void memory_seek(struct store *s, enum store_table table, struct slice key,
                        struct store_iter *it) {
    struct memory *m = memory_of(s);
    CHECK(!m->failed && table < STORE_TABLES);
    struct walk *w = mem_alloc(sizeof *w);
    *w = (struct walk){.store = m, .node = find(&m->tables[table], key, NULL)};
    list_push_back(&m->walks, &w->link);
    m->reading = true;
    it->impl = w;
    show(it);
}

static void memory_next(struct store_iter *it) {
    CHECK(it->valid && it->impl != NULL);
    struct walk *w = it->impl;
    w->node = w->node->next[0];
    show(it);
}

static void memory_iter_end(struct store_iter *it) {
    CHECK(it->impl != NULL);
    struct walk *w = it->impl;
    list_unlink(&w->link);
    free(w);
    it->impl = NULL;
    it->valid = false;
}

static bool memory_last(struct store *s, enum store_table table, struct slice *key,
                        struct slice *value) {
    struct memory *m = memory_of(s);
    CHECK(!m->failed && table < STORE_TABLES);
    struct node **next = m->tables[table].head, *n = NULL;
    for (int level = LEVELS - 1; level >= 0; level--) {
        for (; next[level] != NULL; next = n->next) n = next[level];
    }
    if (n == NULL) return false;
    m->reading = true;
    *key = n->key;
    *value = n->value;
    return true;
}

static void memory_end_reads(struct store *s) {
    struct memory *m = memory_of(s);
    CHECK(list_empty(&m->walks));
    free_graves(m);
}

static enum store_room memory_room(struct store *s) {
    return memory_of(s)->room;
}

static void memory_usage(struct store *s, struct store_usage *out) {
    struct memory *m = memory_of(s);
    uint64_t max = 1ULL << 40;
    *out = (struct store_usage){.bytes_used = m->bytes,
                                .bytes_max = max,
                                .disk_free = m->room == STORE_ROOM_LOW ? 0 : max - m->bytes};
}

/* Life and death. */

void memory_store_crash(struct store *s) {
    struct memory *m = memory_of(s);
    m->held_len = 0;
    m->failed = false;
    m->fail_in = 0;
    /* The process that was reading is gone. */
    LIST_FOR(n, next_n, &m->walks) free(CONTAINER_OF(n, struct walk, link));
    list_init(&m->walks);
    free_graves(m);
}

static void memory_close(struct store *s) {
    struct memory *m = memory_of(s);
    CHECK(list_empty(&m->walks));
    free_graves(m);
    for (int i = 0; i < STORE_TABLES; i++) {
        for (struct node *n = m->tables[i].head[0], *next; n != NULL; n = next) {
            next = n->next[0];
            free(n);
        }
    }
    free(m->held);
    free(m);
}

static const struct store_ops memory_ops = {
    .submit = memory_submit,
    .get = memory_get,
    .seek = memory_seek,
    .next = memory_next,
    .last = memory_last,
    .iter_end = memory_iter_end,
    .end_reads = memory_end_reads,
    .room = memory_room,
    .usage = memory_usage,
    .close = memory_close,
};

int memory_store_open(struct store **out) {
    struct memory *m = mem_zalloc(sizeof *m);
    m->store.ops = &memory_ops;
    list_init(&m->walks);
    prng_seed(&m->prng, 1);
    *out = &m->store;
    return 0;
}
