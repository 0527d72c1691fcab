/* turn.c: the turn that is open, and reading events whether durable or not. What every file of the
 * engine stands on; it decides nothing. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "broker/engine/state.h"

void turn_free(struct engine_turn *t) {
    if (t == NULL) return;
    batch_free(&t->batch);
    free(t->effects);
    free(t->events->v);
    free(t->events->fingerprints);
    free(t->events);
    free(t);
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

void event_decode(uint64_t seq, struct slice value, struct event *out) {
    bool whole = record_event_decode(seq, value, out) && out->project != 0;
    if (!whole) store_damaged("journal record", seq);
}

void dead_decode(const struct subscription *s, struct slice key, struct slice value,
                 struct record_dead *out) {
    uint64_t seq = key_read_u64(key, 4);
    bool whole = record_dead_decode(value, out) && out->event.seq == seq &&
                 (s == NULL || out->event.project == s->project->id);
    if (!whole) store_damaged("dead letter", seq);
}

void due_decode(const struct subscription *s, uint64_t seq, struct slice value,
                struct record_due *out) {
    bool whole = record_due_decode(value, out) && out->event.seq == seq &&
                 out->event.project == s->project->id;
    if (!whole) store_damaged("delayed event", seq);
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
    event_decode(seq, value, out);
    return true;
}

/* A row that a turn changed which is not durable: the store cannot tell of it yet. */
struct row_change {
    uint64_t hash, turn_number;
    bool there;
    struct list in_rows;
};

static uint64_t row_hash(enum store_table table, struct slice key) {
    return hash_bytes((uint64_t)table, key);
}

void row_changed(struct engine *e, enum store_table table, struct slice key, bool there) {
    uint64_t hash = row_hash(table, key);
    struct row_change *r = map_get(&e->rows_by_key, hash);
    if (r == NULL) {
        r = mem_alloc(sizeof *r);
        map_add(&e->rows_by_key, hash, r);
    } else {
        list_unlink(&r->in_rows);
    }
    *r = (struct row_change){.hash = hash, .turn_number = e->turn_number, .there = there};
    list_push_back(&e->rows, &r->in_rows);
}

bool row_there(struct engine *e, enum store_table table, struct slice key) {
    const struct row_change *r = map_get(&e->rows_by_key, row_hash(table, key));
    struct slice value;
    return r != NULL ? r->there : store_get(e->store, table, key, &value);
}

bool row_changing(const struct engine *e, enum store_table table, struct slice key) {
    return map_get(&e->rows_by_key, row_hash(table, key)) != NULL;
}

void rows_settled(struct engine *e, bool all) {
    for (struct list *n = list_first(&e->rows); n != NULL; n = list_first(&e->rows)) {
        struct row_change *r = CONTAINER_OF(n, struct row_change, in_rows);
        if (!all && r->turn_number > e->turns_durable) return;
        list_unlink(n);
        map_remove(&e->rows_by_key, r->hash);
        free(r);
    }
}

_Noreturn void store_damaged(const char *what, uint64_t n) {
    char text[160];
    snprintf(
        text, sizeof text,
        "%s %llu fails its checksum, is from a newer version or not where it belongs: the store "
        "is damaged, restore it from a copy",
        what, (unsigned long long)n);
    check_failed(__FILE__, __LINE__, text);
}
