#include "broker/engine/state.h"

void cursor_init(struct cursor *c, struct subscription *s, uint32_t id, uint64_t next,
                 uint64_t end) {
    *c = (struct cursor){.id = id, .sub = s, .next = next, .end = end, .written_next = next};
    list_init(&c->outstanding);
    list_init(&c->in_dirty);
    list_init(&c->in_sub);
}

uint64_t cursor_next(const struct engine *e, const struct cursor *c) {
    return c->at_tail ? e->last_seq + 1 : c->next;
}

uint64_t cursor_floor(const struct engine *e, const struct cursor *c) {
    if (list_empty(&c->outstanding)) return cursor_next(e, c);
    return CONTAINER_OF(c->outstanding.next, struct delivery, in_cursor)->seq;
}

void cursor_mark_dirty(struct engine *e, struct cursor *c, bool urgent) {
    if (urgent) {
        c->urgent = true;
        e->urgent = true;
    }
    if (c->dirty) return;
    c->dirty = true;
    list_push_back(&e->dirty, &c->in_dirty);
    if (e->flush_at_ms == UINT64_MAX) {
        e->flush_at_ms = e->time.now_ms + e->options.settle_delay_ms;
    }
}

void cursor_unmark(struct cursor *c) {
    c->dirty = c->urgent = false;
    list_unlink(&c->in_dirty);
}

static uint64_t next_outstanding(void *ctx) {
    struct list **at = ctx;
    *at = (*at)->next;
    return CONTAINER_OF(*at, struct delivery, in_cursor)->seq;
}

static void position_write(struct engine *e, struct cursor *c) {
    const struct subscription *s = c->sub;
    struct record_position r = {
        .next = cursor_next(e, c),
        .acked_total = c->acked_total,
        .outstanding_count = c->outstanding_count,
    };
    if (c->id == CURSOR_LIVE) {
        r.dead_total = s->dead_total;
        r.due_count = s->due_count;
        r.dead_count = s->dead_count;
        r.expired_total = s->expired_total;
    } else {
        r.matched = task_of(c)->matched;
        r.expired_total = task_of(c)->expired;
    }
    struct list *at = &c->outstanding;
    struct batch *b = turn_batch(e);
    uint8_t key[KEY_POSITION_BYTES];
    batch_add(b, BATCH_PUT, STORE_POSITIONS, arena_copy(&b->arena, key_position(key, s->id, c->id)),
              record_position_encode(&b->arena, &r, next_outstanding, &at));
    c->written_next = r.next;
}

/* Urgent positions belong to this very batch (a confirmed ack, a dead letter); the others wait for
 * settle_delay_ms, so that a stream of acks costs one write of the position per 50 ms. */
void cursors_flush(struct engine *e) {
    bool all = e->time.now_ms >= e->flush_at_ms;
    if (!all && !e->urgent) return;
    LIST_FOR(n, next, &e->dirty) {
        struct cursor *c = CONTAINER_OF(n, struct cursor, in_dirty);
        if (!all && !c->urgent) continue;
        position_write(e, c);
        cursor_unmark(c);
    }
    e->urgent = false;
    if (list_empty(&e->dirty)) e->flush_at_ms = UINT64_MAX;
}

void cursors_check_lag(struct engine *e) {
    e->lag_check_at_ms = e->time.now_ms + POSITION_LAG_MS;
    for (size_t i = 0; i < e->subs_count; i++) {
        struct cursor *c = &e->subs[i]->live;
        if (cursor_next(e, c) - c->written_next >= POSITION_LAG_EVENTS) {
            cursor_mark_dirty(e, c, false);
        }
    }
}

void engine_flush(struct engine *e) {
    for (size_t i = 0; i < e->subs_count; i++) {
        struct subscription *s = e->subs[i];
        if (cursor_next(e, &s->live) != s->live.written_next) cursor_mark_dirty(e, &s->live, true);
    }
    LIST_FOR(n, next, &e->dirty) {
        cursor_mark_dirty(e, CONTAINER_OF(n, struct cursor, in_dirty), true);
    }
}
