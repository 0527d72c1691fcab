/* retention.c: what the journal and the dead letters forget.
 *
 * The journal is trimmed from its old end, by age and by size, in slices of TRIM_SLICE events per
 * turn. The trim point passes an event when it is too old or the journal too large, and never:
 *   - the newest durable event: the next seq is known from it;
 *   - an event that a subscription with lag "block" has still to read and wants.
 * What it passes is removed, but a record that some cursor has outstanding stays until that is
 * settled (retention_release): an acked hole, a dead letter or an event that waits on disk holds
 * nothing, a leased one only itself. A subscription with lag "expire" is moved past what went, and
 * what it would have wanted is counted.
 *
 * With a size limit, a blocking subscription ends in refused publishes, which name it.
 *
 * Dead letters go by age only: a walk over all of them, a slice at a time. */
#include <stdio.h>

#include "broker/engine/state.h"

#define TRIM_SLICE     4096
#define LOOK_MS        1000
#define SKIP_SCAN      8192       /* events read ahead for blocking subscriptions, per look */
#define EXPIRE_MATCHES 200000     /* filters asked per slice for subscriptions that lag */
#define READ_BYTES     (64 * MIB) /* records looked at per slice */
#define DEAD_SLICE     1024
#define DEAD_LOOK_MS   1000
#define DEAD_REST_MS   60000 /* between two walks */

uint64_t oldest_seq(const struct engine *e) {
    return e->trimmed_to + 1;
}

/* ---- who still needs an event ---- */

void retention_hold(struct engine *e, uint64_t seq) {
    if (seq > e->trimmed_to) return;
    uintptr_t holders = (uintptr_t)map_remove(&e->stragglers, seq);
    map_add(&e->stragglers, seq, (void *)(holders + 1));
}

void retention_release(struct engine *e, uint64_t seq) {
    uint8_t key[KEY_U64_BYTES];
    if (seq > e->trimmed_to) return;
    uintptr_t holders = (uintptr_t)map_remove(&e->stragglers, seq);
    CHECK(holders > 0);
    if (holders > 1) map_add(&e->stragglers, seq, (void *)(holders - 1));
    else batch_delete(turn_batch(e), STORE_JOURNAL, key_u64(key, seq));
}

/* A slice of the journal that is looked at. */
struct slice_trim {
    uint64_t first;
    uint32_t holders[TRIM_SLICE]; /* by seq from first: cursors that have it outstanding */
    uint32_t lagging;             /* subscriptions that the slice may move */
};

static void note_outstanding(struct slice_trim *t, const struct cursor *c) {
    for (const struct list *n = c->outstanding.next; n != &c->outstanding; n = n->next) {
        uint64_t seq = CONTAINER_OF(n, struct delivery, in_cursor)->seq;
        if (seq >= t->first + TRIM_SLICE) return;
        if (seq < t->first) continue;
        t->holders[seq - t->first]++;
    }
}

static void note_needed(const struct engine *e, struct slice_trim *t) {
    memset(t->holders, 0, sizeof t->holders);
    t->lagging = 0;
    for (size_t i = 0; i < e->subs_count; i++) {
        const struct subscription *s = e->subs[i];
        if (cursor_next(e, &s->live) < t->first + TRIM_SLICE) t->lagging++;
        note_outstanding(t, &s->live);
        for (const struct list *n = s->replays.next; n != &s->replays; n = n->next) {
            note_outstanding(t, CONTAINER_OF(n, struct cursor, in_sub));
        }
    }
}

/* ---- who is in the way ---- */

/* The lowest position that a blocking subscription has still to read. Reading ahead over what it
 * does not want keeps one without workers from blocking for nothing; *who is NULL when that has not
 * come to an end, or when there is none. */
static uint64_t block_limit(struct engine *e, uint64_t wanted_from, struct subscription **who) {
    uint64_t limit = UINT64_MAX;
    uint32_t scan = SKIP_SCAN;
    *who = NULL;
    for (size_t i = 0; i < e->subs_count; i++) {
        struct subscription *s = e->subs[i];
        uint64_t next = cursor_next(e, &s->live);
        if (s->policy.lag != LAG_BLOCK || next >= limit || s->live.at_tail) continue;
        if (next < wanted_from + TRIM_SLICE) {
            cursor_skip(e, &s->live, &scan);
            if (cursor_next(e, &s->live) != next) cursor_mark_dirty(e, &s->live, true);
            next = cursor_next(e, &s->live);
        }
        if (next < limit) {
            limit = next;
            *who = scan > 0 ? s : NULL;
        }
    }
    return limit;
}

/* ---- trimming ---- */

static bool goes(const struct engine *e, const struct event *event) {
    const struct retention *r = &e->retention;
    bool old = r->max_age_ms != 0 && event->received_at_ms + r->max_age_ms < e->time.wall_ms;
    bool large = r->max_bytes != 0 && e->journal_end - event->offset > r->max_bytes;
    return old || large;
}

/* Moves subscriptions that do not hold the journal past an event that goes. */
static void expire_from(struct engine *e, const struct event *event) {
    struct filter_subject subject;
    filter_subject_init(&subject, event);
    for (size_t i = 0; i < e->subs_count; i++) {
        struct subscription *s = e->subs[i];
        struct cursor *c = &s->live;
        if (s->policy.lag != LAG_EXPIRE || c->at_tail || c->next > event->seq) continue;
        if (subscription_wants(s, &subject)) s->expired_total++;
        c->next = event->seq + 1;
        if (c->next == e->last_seq + 1) c->at_tail = true;
        cursor_mark_dirty(e, c, true);
    }
}

/* A position that is older than the trim point could ask for a record that is gone: all that are to
 * be written go into this batch. */
static void trim_write(struct engine *e) {
    struct batch *b = turn_batch(e);
    LIST_FOR(n, next, &e->dirty) {
        cursor_mark_dirty(e, CONTAINER_OF(n, struct cursor, in_dirty), true);
    }
    batch_put(b, STORE_META, slice_str("trimmed_to"), record_u64_encode(&b->arena, e->trimmed_to));
}

/* Trims one slice. True: it was a whole one, there may be more. */
static bool trim(struct engine *e, uint64_t limit) {
    struct slice_trim t = {.first = e->trimmed_to + 1};
    uint8_t key[KEY_U64_BYTES];
    struct store_iter it;
    uint64_t before = e->trimmed_to, asked = 0, bytes = 0;
    note_needed(e, &t);
    store_seek(e->store, STORE_JOURNAL, key_u64(key, t.first), &it);
    for (; it.valid && asked < EXPIRE_MATCHES && bytes < READ_BYTES; store_next(e->store, &it)) {
        struct event event;
        uint64_t seq = key_read_u64(it.key, 0);
        event_decode(seq, it.value, &event);
        e->journal_start = event.offset;
        if (seq >= t.first + TRIM_SLICE || seq >= limit || seq >= e->durable_seq) break;
        if (!goes(e, &event)) break;
        if (t.lagging > 0) expire_from(e, &event);
        asked += t.lagging + 1;
        bytes += it.value.len;
        uintptr_t holders = t.holders[seq - t.first];
        if (holders > 0) map_add(&e->stragglers, seq, (void *)holders);
        else batch_delete(turn_batch(e), STORE_JOURNAL, it.key);
        e->trimmed_total++;
        e->trimmed_to = seq;
    }
    store_iter_end(e->store, &it);
    if (e->trimmed_to == before) return false;
    trim_write(e);
    return e->trimmed_to + 1 == t.first + TRIM_SLICE || asked >= EXPIRE_MATCHES ||
           bytes >= READ_BYTES;
}

static bool too_large(const struct engine *e) {
    return e->retention.max_bytes != 0 &&
           e->journal_end - e->journal_start > e->retention.max_bytes;
}

static void trim_journal(struct engine *e) {
    struct subscription *who;
    uint64_t limit = block_limit(e, e->trimmed_to + 1, &who);
    bool more = who == NULL && limit <= e->trimmed_to + TRIM_SLICE;
    more |= trim(e, limit);
    bool blocked = !more && too_large(e) && who != NULL && limit <= e->trimmed_to + 1;
    snprintf(e->blocked_by, sizeof e->blocked_by, "%s", blocked ? who->name : "");
    e->blocked_by_project = blocked ? who->project->id : 0;
    e->retention_at_ms = more ? e->time.now_ms : e->time.now_ms + LOOK_MS;
}

/* ---- dead letters ---- */

static struct subscription *by_id(const struct engine *e, uint32_t id) {
    for (size_t i = 0; i < e->subs_count; i++) {
        if (e->subs[i]->id == id) return e->subs[i];
    }
    return NULL;
}

static void trim_dead(struct engine *e) {
    struct store_iter it;
    struct subscription *s = NULL;
    bool may = false;
    size_t bytes = 0;
    int rows = 0;
    store_seek(e->store, STORE_DEAD, slice_of(e->dead_place, KEY_DEAD_BYTES), &it);
    for (; it.valid && rows < DEAD_SLICE && bytes < READ_BYTES; store_next(e->store, &it), rows++) {
        struct record_dead r;
        bytes += it.value.len;
        uint32_t id = key_read_u32(it.key, 0);
        if (s == NULL || s->id != id) {
            s = by_id(e, id);
            /* Rows that a task has removed must be gone for good before others are counted. */
            may = s != NULL && s->dead_turn <= e->turns_durable;
        }
        dead_decode(s, it.key, it.value, &r);
        if (!may || r.died_at_ms + e->retention.dead_max_age_ms >= e->time.wall_ms) continue;
        if (row_changing(e, STORE_DEAD, it.key)) continue; /* it died again in this moment */
        dead_remove(e, s, it.key);
    }
    if (it.valid) memcpy(e->dead_place, it.key.data, KEY_DEAD_BYTES);
    else memset(e->dead_place, 0, KEY_DEAD_BYTES);
    e->dead_place_at_ms = e->time.now_ms + (it.valid ? DEAD_LOOK_MS : DEAD_REST_MS);
    store_iter_end(e->store, &it);
}

void retention_run(struct engine *e) {
    const struct retention *r = &e->retention;
    bool journal = r->max_age_ms != 0 || r->max_bytes != 0;
    bool now = e->time.now_ms >= e->retention_at_ms || (too_large(e) && e->blocked_by[0] == 0);
    if (journal && now) trim_journal(e);
    if (r->dead_max_age_ms != 0 && e->time.now_ms >= e->dead_place_at_ms) trim_dead(e);
}

uint64_t retention_next_ms(const struct engine *e) {
    const struct retention *r = &e->retention;
    uint64_t at_ms = UINT64_MAX;
    if (r->max_age_ms != 0 || r->max_bytes != 0) at_ms = e->retention_at_ms;
    if (r->dead_max_age_ms != 0 && e->dead_place_at_ms < at_ms) at_ms = e->dead_place_at_ms;
    return at_ms;
}
