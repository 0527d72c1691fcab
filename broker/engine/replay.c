#include "broker/engine/state.h"

#include <stdlib.h>

static void replay_write(struct engine *e, const struct cursor *c, uint32_t subscription) {
    struct record_replay r = {
        .subscription = subscription,
        .created_at_ms = c->created_at_ms,
        .finished_at_ms = c->finished_at_ms,
        .from = c->from,
        .to = c->end,
        .delivered_total = c->acked_total,
    };
    struct batch *b = turn_batch(e);
    uint8_t key[KEY_SUB_BYTES];
    batch_put(b, STORE_REPLAYS, key_u32(key, c->id), record_replay_encode(&b->arena, &r));
}

/* Forgets the oldest finished replay. */
static void forget_oldest(struct engine *e) {
    for (size_t i = 0; i < e->replays_count; i++) {
        struct cursor *c = e->replays[i];
        if (c->finished_at_ms == 0) continue;
        uint8_t key[KEY_SUB_BYTES];
        batch_delete(turn_batch(e), STORE_REPLAYS, key_u32(key, c->id));
        free(c);
        e->replays_count--;
        e->replays_finished--;
        memmove(e->replays + i, e->replays + i + 1,
                (e->replays_count - i) * sizeof(struct cursor *));
        return;
    }
}

struct cursor *replay_add(struct engine *e, struct subscription *s, uint32_t id,
                          const struct record_replay *r) {
    struct cursor *c = mem_alloc(sizeof *c);
    cursor_init(c, s, id, r->from, r->to);
    c->from = r->from;
    c->created_at_ms = r->created_at_ms;
    c->finished_at_ms = r->finished_at_ms;
    c->acked_total = r->delivered_total;
    if (e->replays_count == e->replays_cap) {
        e->replays_cap = e->replays_cap == 0 ? 16 : e->replays_cap * 2;
        e->replays = mem_realloc(e->replays, e->replays_cap * sizeof(struct cursor *));
    }
    CHECK(e->replays_count == 0 || e->replays[e->replays_count - 1]->id < id);
    e->replays[e->replays_count++] = c;
    if (r->finished_at_ms != 0) {
        c->next = r->to + 1;
        e->replays_finished++;
    } else {
        list_push_back(&s->replays, &c->in_sub);
        s->replays_count++;
    }
    return c;
}

static enum err replay_range(struct engine *e, const struct command *c, struct record_replay *r,
                             const char **message) {
    uint64_t from = c->u.replay.from_seq, to = c->u.replay.to_seq;
    if (c->u.replay.from_time_ms != 0) from = seq_at_time(e, c->u.replay.from_time_ms);
    if (c->u.replay.to_time_ms != 0) to = seq_at_time(e, c->u.replay.to_time_ms) - 1;
    else if (to == 0) to = e->last_seq;
    if (from == 0) from = 1;
    if (from > to || to > e->last_seq) {
        *message =
            e->last_seq == 0
                ? "the journal is empty: there is nothing to replay"
                : turn_text(e, "no event lies from %llu to %llu: the journal holds 1 to %llu",
                            (unsigned long long)from, (unsigned long long)to,
                            (unsigned long long)e->last_seq);
        return ERR_OUT_OF_RANGE;
    }
    r->from = from;
    r->to = to;
    return ERR_OK;
}

void replay_create(struct engine *e, const struct command *c) {
    struct subscription *s = subscription_find(e, c->u.replay.name);
    struct record_replay r = {.created_at_ms = e->time.wall_ms};
    const char *message = NULL;
    enum err err = ERR_NOT_FOUND;
    if (s == NULL) {
        message = turn_text(e, "there is no subscription \"%.*s\": create it, or check the name",
                            SLICE_ARG(c->u.replay.name));
    } else {
        err = replay_range(e, c, &r, &message);
    }
    uint32_t id = 0;
    if (err == ERR_OK) {
        id = e->next_id++;
        struct cursor *cursor = replay_add(e, s, id, &r);
        struct batch *b = turn_batch(e);
        batch_put(b, STORE_META, slice_str("next_id"), record_u64_encode(&b->arena, e->next_id));
        replay_write(e, cursor, s->id);
        subscription_wake(e, s);
    }
    struct effect *f = turn_effect(e, EFFECT_DONE, c->route);
    f->err = err;
    f->message = message;
    f->u.done.id = id;
    f->u.done.created = true;
}

void replay_finish(struct engine *e, struct cursor *c) {
    c->finished_at_ms = e->time.wall_ms;
    e->replays_finished++;
    replay_write(e, c, c->sub->id);
    uint8_t key[KEY_POSITION_BYTES];
    batch_delete(turn_batch(e), STORE_POSITIONS, key_position(key, c->sub->id, c->id));
    cursor_unmark(c);
    LIST_FOR(n, next, &c->outstanding) { /* only when its subscription is deleted */
        delivery_free(e, CONTAINER_OF(n, struct delivery, in_cursor));
    }
    list_unlink(&c->in_sub);
    c->sub->replays_count--;
    if (e->replays_finished > REPLAYS_KEPT) forget_oldest(e);
}

void replay_check_finished(struct engine *e, struct cursor *c) {
    if (c->next > c->end && c->outstanding_count == 0) replay_finish(e, c);
}
