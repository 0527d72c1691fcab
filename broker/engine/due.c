/* due.c: events that wait for their time on disk.
 *
 * Published with deliver_at, failed with a long backoff, or redriven: such an event is a row of
 * STORE_DUE with a copy of the event, keyed by its due time, and costs no memory until it is due.
 * Then it is taken into memory as a delivery of the subscription's due cursor; its row stays until
 * it is settled (or moves to another time), so a restart finds it again without any position.
 *
 * Rows are read in order of their key from the place that was read last. A row that is written goes
 * above the place, and rows of a turn that is not durable cannot be seen yet: nothing at or above
 * the lowest of these is read, so the place never passes one of them.
 *
 * The count of rows is kept in the live cursor's position, in the same batch as each change. */
#include "base/hash.h"
#include "broker/engine/state.h"

struct slice due_key(uint8_t out[KEY_DUE_BYTES], const struct delivery *d) {
    return key_due(out, d->cursor->sub->id, d->row_due_wall_ms, d->seq, d->row_cursor);
}

static void put(struct engine *e, struct slice key, const struct record_due *row) {
    struct batch *b = turn_batch(e);
    batch_add(b, BATCH_PUT, STORE_DUE, arena_copy(&b->arena, key),
              record_due_encode(&b->arena, row));
}

void due_write(struct engine *e, struct subscription *s, uint64_t due_wall_ms, uint32_t cursor,
               const struct record_due *row) {
    uint8_t key[KEY_DUE_BYTES];
    struct slice k;
    /* The clock was set back since. What was read above its time now is taken or gone: it is passed
     * again, and nothing that is written has to wait until the clock is there again. */
    if (s->due_place_wall_ms > e->time.wall_ms) {
        s->due_place_wall_ms = e->time.wall_ms;
        s->due_place_seq = s->due_place_cursor = 0;
    }
    if (due_wall_ms <= s->due_place_wall_ms) due_wall_ms = s->due_place_wall_ms + 1;
    /* The same event twice in one millisecond: sought back to and delayed again. */
    for (;; due_wall_ms++) {
        k = key_due(key, s->id, due_wall_ms, row->event.seq, cursor);
        bool used = row_there(e, STORE_DUE, k) || map_get(&s->due_taken, hash_bytes(0, k)) != NULL;
        if (!used) break;
    }
    turn_open(e);
    put(e, k, row);
    row_changed(e, STORE_DUE, k, true);
    s->due_count++;
    if (due_wall_ms < s->due_undurable_wall_ms) s->due_undurable_wall_ms = due_wall_ms;
    s->due_turn_number = e->turn_number;
    if (list_empty(&s->in_due_waiting)) list_push_back(&e->due_waiting, &s->in_due_waiting);
    cursor_mark_dirty(e, &s->live, true);
}

static struct record_due row_of(const struct delivery *d, const struct failure *failure,
                                const struct event *event) {
    return (struct record_due){
        .fails = d->fails,
        .deliveries = d->deliveries,
        .flags = d->redrive ? RECORD_DUE_REDRIVE : 0,
        .failure = {failure->type, failure->message, failure->detail},
        .event = *event,
    };
}

void due_park(struct engine *e, struct delivery *d, uint64_t due_wall_ms,
              const struct failure *failure) {
    struct subscription *s = d->cursor->sub;
    struct event event;
    delivery_event(e, d, &event, NULL);
    struct record_due row = row_of(d, failure, &event);
    due_write(e, s, due_wall_ms, d->cursor == &s->due ? d->row_cursor : d->cursor->id, &row);
    delivery_forget(e, d);
}

void due_rewrite(struct engine *e, struct delivery *d, const struct failure *failure) {
    uint8_t key[KEY_DUE_BYTES];
    struct event event;
    delivery_event(e, d, &event, NULL);
    struct record_due row = row_of(d, failure, &event);
    put(e, due_key(key, d), &row);
}

void due_delete(struct engine *e, struct delivery *d) {
    struct subscription *s = d->cursor->sub;
    uint8_t key[KEY_DUE_BYTES];
    batch_delete(turn_batch(e), STORE_DUE, due_key(key, d));
    row_changed(e, STORE_DUE, due_key(key, d), false);
    CHECK(s->due_count > 0);
    s->due_count--;
    cursor_mark_dirty(e, &s->live, true);
}

static uint64_t due_next_wall_ms(const struct subscription *s) {
    return s->due_next_wall_ms < s->due_undurable_wall_ms ? s->due_next_wall_ms
                                                          : s->due_undurable_wall_ms;
}

uint64_t due_next_ms(const struct engine *e, const struct subscription *s) {
    uint64_t due_wall_ms = due_next_wall_ms(s), now_ms = e->time.now_ms, at_ms = now_ms;
    if (due_wall_ms == UINT64_MAX) return UINT64_MAX;
    if (due_wall_ms > e->time.wall_ms) at_ms += due_wall_ms - e->time.wall_ms;
    bool may_be_out = due_wall_ms <= e->opened_wall_ms && !s->alone;
    return may_be_out && at_ms < e->grace_until_ms ? e->grace_until_ms : at_ms;
}

bool due_waits(const struct engine *e, const struct subscription *s) {
    return s->due_next_wall_ms < s->due_undurable_wall_ms && due_next_ms(e, s) <= e->time.now_ms;
}

void due_untake(struct subscription *s, const struct delivery *d) {
    uint8_t key[KEY_DUE_BYTES];
    void *taken = map_remove(&s->due_taken, hash_bytes(0, due_key(key, d)));
    CHECK(taken == d);
}

struct delivery *due_take_row(struct engine *e, struct subscription *s, const struct store_iter *it,
                              struct event *event) {
    uint64_t seq = key_read_u64(it->key, 12), hash = hash_bytes(0, it->key);
    struct record_due row;
    if (map_get(&s->due_taken, hash) != NULL || row_changing(e, STORE_DUE, it->key)) return NULL;
    due_decode(s, seq, it->value, &row);
    struct delivery *d = delivery_new(&s->due, seq);
    d->row_due_wall_ms = key_read_u64(it->key, 4);
    d->row_cursor = key_read_u32(it->key, 20);
    d->fails = row.fails;
    d->deliveries = row.deliveries;
    d->redrive = (row.flags & RECORD_DUE_REDRIVE) != 0;
    map_add(&s->due_taken, hash, d);
    *event = row.event;
    return d;
}

static bool of_subscription(const struct store_iter *it, const struct subscription *s) {
    return it->valid && key_read_u32(it->key, 0) == s->id;
}

static void next_is(struct subscription *s, const struct store_iter *it) {
    s->due_next_wall_ms = of_subscription(it, s) ? key_read_u64(it->key, 4) : UINT64_MAX;
}

struct delivery *due_take(struct engine *e, struct subscription *s, struct event *event) {
    uint8_t key[KEY_DUE_BYTES];
    struct store_iter it;
    struct delivery *d = NULL;
    struct slice place =
        key_due(key, s->id, s->due_place_wall_ms, s->due_place_seq, s->due_place_cursor);
    store_seek(e->store, STORE_DUE, place, &it);
    if (it.valid && slice_eq(it.key, place)) store_next(e->store, &it);
    next_is(s, &it);
    while (d == NULL && due_waits(e, s)) {
        s->due_place_wall_ms = key_read_u64(it.key, 4);
        s->due_place_seq = key_read_u64(it.key, 12);
        s->due_place_cursor = key_read_u32(it.key, 20);
        d = due_take_row(e, s, &it, event);
        store_next(e->store, &it);
        next_is(s, &it);
    }
    store_iter_end(e->store, &it);
    return d;
}

void due_durable(struct engine *e) {
    LIST_FOR(n, next, &e->due_waiting) {
        struct subscription *s = CONTAINER_OF(n, struct subscription, in_due_waiting);
        if (s->due_turn_number > e->turns_durable) continue;
        s->due_next_wall_ms = due_next_wall_ms(s);
        s->due_undurable_wall_ms = UINT64_MAX;
        list_unlink(n);
        subscription_wake(e, s);
        subscription_arm(e, s);
    }
}

void due_recover(struct engine *e, struct subscription *s) {
    uint8_t key[KEY_SUB_BYTES];
    struct store_iter it;
    store_seek(e->store, STORE_DUE, key_u32(key, s->id), &it);
    next_is(s, &it);
    store_iter_end(e->store, &it);
}
