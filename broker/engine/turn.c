/* turn.c: the engine's life and the turn: commands in, batch and effects out.
 *
 * The happy path: engine_step opens a turn and works on the command; engine_end_turn expires what
 * is due, pumps, writes positions and gives the turn away; engine_durable moves durable_seq. A turn
 * that is never durable (the store failed) is never released: the process stops. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/engine/state.h"

int engine_open(struct engine **out, struct store *store, const struct engine_options *options,
                struct engine_time time, char *error, size_t error_size) {
    struct engine *e = mem_zalloc(sizeof *e);
    e->store = store;
    e->options = *options;
    struct engine_options *o = &e->options;
    if (o->outstanding_max == 0) o->outstanding_max = LIMIT_OUTSTANDING;
    if (o->settle_delay_ms == 0) o->settle_delay_ms = 50;
    if (o->dedupe_ids == 0) o->dedupe_ids = 1000000;
    if (o->dedupe_ms == 0) o->dedupe_ms = 24 * 3600 * 1000;
    if (o->turn_scan_events == 0) o->turn_scan_events = 8192;
    if (o->turn_deliver_bytes == 0) o->turn_deliver_bytes = 4 * MIB;
    e->time = time;
    e->room = true;
    e->next_id = 1;
    e->flush_at_ms = UINT64_MAX;
    e->lag_check_at_ms = time.now_ms + POSITION_LAG_MS;
    prng_seed(&e->prng, options->seed);
    heap_init(&e->deadlines);
    list_init(&e->dirty);
    list_init(&e->runnable);
    map_init(&e->attachments);
    map_init(&e->index);
    dedupe_init(&e->dedupe, o->dedupe_ids, o->dedupe_ms);
    int err = recover(e, error, error_size);
    store_end_reads(store);
    if (err != 0) engine_close(&e);
    *out = e;
    return err;
}

static void turn_free(struct engine_turn *t) {
    if (t == NULL) return;
    batch_free(&t->batch);
    free(t->effects);
    free(t->events->v);
    free(t->events->fingerprints);
    free(t->events);
    free(t);
}

void engine_close(struct engine **out) {
    struct engine *e = *out;
    if (e == NULL) return;
    while (e->subs_count > 0) subscription_free(e, e->subs[e->subs_count - 1]);
    for (size_t i = 0; i < e->replays_count; i++) free(e->replays[i]);
    free(e->replays);
    free(e->subs);
    for (size_t i = 0; i < e->index.cap; i++) {
        struct index_bucket *bucket = e->index.slots[i].value;
        if (bucket == NULL) continue;
        free(bucket->subs);
        free(bucket);
    }
    map_free(&e->index);
    free(e->index_any.subs);
    CHECK(e->attachments.len == 0);
    map_free(&e->attachments);
    heap_free(&e->deadlines);
    dedupe_free(&e->dedupe);
    while (e->pending != NULL) {
        struct engine_turn *t = e->pending;
        e->pending = t->next;
        turn_free(t);
    }
    turn_free(e->turn);
    turn_free(e->spare);
    free(e);
    *out = NULL;
}

struct engine_turn *turn_open(struct engine *e) {
    if (e->turn != NULL) return e->turn;
    struct engine_turn *t = e->spare;
    e->spare = NULL;
    if (t == NULL) {
        t = mem_zalloc(sizeof *t);
        t->events = mem_zalloc(sizeof *t->events);
        batch_init(&t->batch);
    }
    t->events->first_seq = e->last_seq + 1;
    return e->turn = t;
}

struct effect *turn_effect(struct engine *e, enum effect_kind kind, struct route route) {
    struct engine_turn *t = turn_open(e);
    if (t->effects_count == t->effects_cap) {
        t->effects_cap = t->effects_cap == 0 ? 64 : t->effects_cap * 2;
        t->effects = mem_realloc(t->effects, t->effects_cap * sizeof *t->effects);
    }
    struct effect *f = &t->effects[t->effects_count++];
    *f = (struct effect){.kind = kind, .route = route};
    return f;
}

struct batch *turn_batch(struct engine *e) {
    return &turn_open(e)->batch;
}

struct arena *turn_arena(struct engine *e) {
    return &turn_batch(e)->arena;
}

const char *turn_text(struct engine *e, const char *fmt, ...) {
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    size_t bytes = strlen(text) + 1;
    return memcpy(arena_alloc(turn_arena(e), bytes), text, bytes);
}

void engine_step(struct engine *e, struct engine_time time, const struct command *c) {
    CHECK(time.now_ms >= e->time.now_ms);
    e->time = time;
    switch (c->kind) {
    case COMMAND_PUBLISH: publish(e, c); break;
    case COMMAND_SUBSCRIPTION_CREATE: subscription_create(e, c); break;
    case COMMAND_SUBSCRIPTION_DELETE: subscription_delete(e, c); break;
    case COMMAND_REPLAY_CREATE: replay_create(e, c); break;
    case COMMAND_CONFIG_PUT:
        batch_put(turn_batch(e), STORE_CONFIG, c->u.config.key, c->u.config.value);
        turn_effect(e, EFFECT_DONE, c->route)->u.done.created = true;
        break;
    case COMMAND_CONFIG_DELETE:
        batch_delete(turn_batch(e), STORE_CONFIG, c->u.config.key);
        turn_effect(e, EFFECT_DONE, c->route);
        break;
    case COMMAND_ATTACH: attachment_attach(e, c); break;
    case COMMAND_WINDOW: attachment_window(e, c); break;
    case COMMAND_HOLD: attachment_hold(e, c); break;
    case COMMAND_DETACH: attachment_detach(e, c); break;
    case COMMAND_ACK:
    case COMMAND_NACK:
    case COMMAND_EXTEND: attachment_settle(e, c); break;
    }
}

static void fire_deadlines(struct engine *e) {
    for (;;) {
        struct heap_node *n = heap_min(&e->deadlines);
        if (n == NULL || n->at_ms > e->time.now_ms) return;
        struct delivery *d = CONTAINER_OF(n, struct delivery, timer);
        if (d->state == DELIVERY_LEASED) delivery_expire(e, d);
        else delivery_set_state(e, d, DELIVERY_READY, 0);
    }
}

struct engine_turn *engine_end_turn(struct engine *e, struct engine_time time) {
    CHECK(time.now_ms >= e->time.now_ms);
    e->time = time;
    fire_deadlines(e);
    if (time.now_ms >= e->lag_check_at_ms) cursors_check_lag(e);
    pump(e);
    publish_end_turn(e);
    cursors_flush(e);
    struct engine_turn *t = e->turn;
    if (t == NULL) return NULL;
    if (t->batch.len == 0 && t->effects_count == 0) return NULL; /* kept for the next */
    e->turn = NULL;
    t->next = NULL;
    if (e->pending == NULL) e->pending = t;
    else e->pending_last->next = t;
    e->pending_last = t;
    return t;
}

void engine_durable(struct engine *e, struct engine_turn *t) {
    CHECK(e->pending == t);
    e->pending = t->next;
    t->next = NULL;
    if (t->events->count == 0) return;
    CHECK(t->events->first_seq == e->durable_seq + 1);
    e->durable_seq += t->events->count;
}

void engine_turn_done(struct engine *e, struct engine_turn *t) {
    batch_reset(&t->batch);
    t->effects_count = 0;
    t->events->count = 0;
    if (e->spare == NULL) e->spare = t;
    else turn_free(t);
}

uint64_t engine_next_deadline(const struct engine *e, struct engine_time time) {
    if (e->turn != NULL && (e->turn->batch.len > 0 || e->turn->effects_count > 0)) {
        return time.now_ms;
    }
    if (!list_empty(&e->runnable)) return time.now_ms;
    uint64_t at_ms = e->flush_at_ms;
    const struct heap_node *n = heap_min(&e->deadlines);
    if (n != NULL && n->at_ms < at_ms) at_ms = n->at_ms;
    return at_ms;
}

void engine_set_room(struct engine *e, bool room) {
    e->room = room;
}

const struct event *event_undurable(const struct engine *e, uint64_t seq, bool *own) {
    const struct engine_turn *t = e->pending;
    for (; t != NULL; t = t->next) {
        if (seq - t->events->first_seq < t->events->count) break;
    }
    if (t == NULL) t = e->turn;
    if (own != NULL) *own = t == e->turn;
    if (t == NULL || seq < t->events->first_seq) return NULL;
    size_t i = (size_t)(seq - t->events->first_seq);
    return i < t->events->count ? &t->events->v[i] : NULL;
}

bool event_read(struct engine *e, uint64_t seq, struct event *out, bool *own) {
    if (own != NULL) *own = false;
    if (seq > e->durable_seq) {
        const struct event *event = event_undurable(e, seq, own);
        if (event == NULL) return false;
        *out = *event;
        return true;
    }
    uint8_t key[KEY_U64_BYTES];
    struct slice value;
    if (!store_get(e->store, STORE_JOURNAL, key_u64(key, seq), &value)) return false;
    if (!record_event_decode(seq, value, out)) store_damaged("journal record", seq);
    return true;
}

_Noreturn void store_damaged(const char *what, uint64_t n) {
    char text[160];
    snprintf(text, sizeof text,
             "%s %llu fails its checksum or is from a newer version: the store is damaged, restore "
             "it from a copy",
             what, (unsigned long long)n);
    check_failed(__FILE__, __LINE__, text);
}
