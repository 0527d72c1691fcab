/* sweep.c: the rows of deleted subscriptions.
 *
 * A subscription can leave a million delayed events and dead letters behind. Its deletion only says
 * so (a row of STORE_META, in the same batch); the rows go afterwards, a slice per turn, and the
 * note with the last of them, so a restart goes on. Ids are never used again, so nobody else can
 * meet these rows; recovery passes over them.
 *
 * A slice is read from the store, so it must wait until what the last turns wrote and removed can
 * be seen. */
#include <stdio.h>
#include <stdlib.h>

#include "broker/engine/state.h"

#define SWEEP_SLICE 1024 /* rows per turn */
#define NOTE        "deleted/"
#define NOTE_BYTES  (sizeof NOTE - 1 + 10)

static const enum store_table tables[] = {STORE_RETRIES, STORE_DUE, STORE_DEAD};

static struct slice note_key(char out[NOTE_BYTES + 1], uint32_t subscription) {
    snprintf(out, NOTE_BYTES + 1, NOTE "%010u", subscription);
    return slice_str(out);
}

static void remember(struct engine *e, uint32_t subscription) {
    if (e->swept_count == e->swept_cap) {
        e->swept_cap = e->swept_cap == 0 ? 8 : e->swept_cap * 2;
        e->swept = mem_realloc(e->swept, e->swept_cap * sizeof *e->swept);
    }
    e->swept[e->swept_count++] = subscription;
}

void sweep_add(struct engine *e, uint32_t subscription) {
    char key[NOTE_BYTES + 1];
    struct batch *b = turn_batch(e);
    batch_put(b, STORE_META, note_key(key, subscription),
              record_u64_encode(&b->arena, subscription));
    remember(e, subscription);
    e->sweep_turn = e->turn_number;
}

bool sweep_recover(struct engine *e) {
    struct store_iter it;
    bool ok = true;
    store_seek(e->store, STORE_META, slice_str(NOTE), &it);
    for (; ok && it.valid && slice_starts_with(it.key, NOTE); store_next(e->store, &it)) {
        uint64_t id;
        ok = record_u64_decode(it.value, &id) && id <= UINT32_MAX;
        if (ok) remember(e, (uint32_t)id);
    }
    store_iter_end(e->store, &it);
    return ok;
}

bool sweep_has(const struct engine *e, uint32_t subscription) {
    for (size_t i = 0; i < e->swept_count; i++) {
        if (e->swept[i] == subscription) return true;
    }
    return false;
}

static uint32_t sweep_table(struct engine *e, enum store_table table, uint32_t subscription,
                            uint32_t rows) {
    uint8_t key[KEY_SUB_BYTES];
    struct store_iter it;
    store_seek(e->store, table, key_u32(key, subscription), &it);
    for (; rows > 0 && it.valid && key_read_u32(it.key, 0) == subscription; rows--) {
        batch_delete(turn_batch(e), table, it.key);
        store_next(e->store, &it);
    }
    store_iter_end(e->store, &it);
    return rows;
}

bool sweep_wants_turn(const struct engine *e) {
    return e->swept_count > 0 && e->sweep_turn <= e->turns_durable;
}

void sweep_run(struct engine *e) {
    uint32_t rows = SWEEP_SLICE;
    char key[NOTE_BYTES + 1];
    if (!sweep_wants_turn(e)) return;
    uint32_t subscription = e->swept[0];
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        rows = sweep_table(e, tables[i], subscription, rows);
    }
    turn_open(e);
    e->sweep_turn = e->turn_number;
    if (rows == 0) return; /* there may be more */
    batch_delete(turn_batch(e), STORE_META, note_key(key, subscription));
    e->swept_count--;
    memmove(e->swept, e->swept + 1, e->swept_count * sizeof *e->swept);
}
