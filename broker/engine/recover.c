/* recover.c: takes up where the store ended.
 *
 * The same way after a clean stop and after a crash: what was outstanding waits for its workers for
 * the grace period and is READY then or, with a retry row that is not due, DELAYED; what was handed
 * out after the last written position is found again by reading the journal from its `next`; what
 * waits on disk is read from there when it is due. Whatever does not fit together is an error
 * that names the place, never a guess. */
#include <stdio.h>
#include <stdlib.h>

#include "broker/engine/state.h"

struct recovery {
    struct engine *e;
    struct map subs; /* id -> subscription */
    char *error;
    size_t error_size;
};

static int damaged(struct recovery *r, const char *what, uint64_t n) {
    snprintf(
        r->error, r->error_size,
        "%s %llu does not decode or does not fit the rest: the store is damaged or from a newer "
        "version; restore it from a copy",
        what, (unsigned long long)n);
    return ERR_STORE;
}

static int recover_journal_start(struct recovery *r) {
    struct engine *e = r->e;
    uint8_t key[KEY_U64_BYTES];
    struct store_iter it;
    struct event event;
    int err = 0;
    store_seek(e->store, STORE_JOURNAL, key_u64(key, e->trimmed_to + 1), &it);
    if (it.valid) {
        uint64_t seq = key_read_u64(it.key, 0);
        bool whole = record_event_decode(seq, it.value, &event) && event.project != 0;
        if (whole) e->journal_start = event.offset;
        else err = damaged(r, "journal record", seq);
    }
    store_iter_end(e->store, &it);
    return err;
}

static int recover_journal(struct recovery *r) {
    struct engine *e = r->e;
    struct slice key, value;
    struct event event;
    if (store_last(e->store, STORE_JOURNAL, &key, &value)) {
        uint64_t seq = key_read_u64(key, 0);
        bool whole = record_event_decode(seq, value, &event) && event.project != 0;
        if (!whole) return damaged(r, "journal record", seq);
        e->last_seq = e->durable_seq = seq;
        e->last_received_ms = event.received_at_ms;
        e->journal_end = event.offset + value.len;
    }
    if (store_get(e->store, STORE_META, slice_str("trimmed_to"), &value)) {
        if (!record_u64_decode(value, &e->trimmed_to)) return damaged(r, "the trim point", 0);
    }
    int err = recover_journal_start(r);
    if (err != 0) return err;
    uint64_t next_id;
    if (store_get(e->store, STORE_META, slice_str("next_id"), &value)) {
        if (!record_u64_decode(value, &next_id)) return damaged(r, "the id counter", 0);
        e->next_id = (uint32_t)next_id;
    }
    return 0;
}

static int recover_ids(struct recovery *r) {
    struct engine *e = r->e;
    struct store_iter it;
    int err = 0;
    store_seek(e->store, STORE_IDS, slice_of(NULL, 0), &it);
    for (; it.valid && err == 0; store_next(e->store, &it)) {
        uint64_t first = key_read_u64(it.key, 0);
        struct record_ids ids;
        if (!record_ids_decode(it.value, &ids)) err = damaged(r, "id log row", first);
        for (uint32_t i = 0; err == 0 && i < ids.count; i++) {
            uint64_t fingerprint = record_ids_at(&ids, i);
            if (fingerprint != 0) {
                dedupe_add(&e->dedupe, fingerprint, first + i, ids.received_at_ms);
            }
        }
    }
    store_iter_end(e->store, &it);
    return err;
}

static struct policy policy_of(const struct record_subscription *r) {
    struct policy p = policy_default();
    p.filter = r->filter;
    p.lease_ms = r->lease_ms;
    if (r->max_hold_ms != 0) { /* else a record of version 1: the defaults count */
        p.max_hold_ms = r->max_hold_ms;
        p.backoff_jitter_permille = r->backoff_jitter_permille;
    }
    p.max_age_ms = r->max_age_ms;
    p.max_fails = r->max_fails;
    p.backoff_min_ms = r->backoff_min_ms;
    p.backoff_max_ms = r->backoff_max_ms;
    p.backoff_factor_permille = r->backoff_factor_permille;
    p.backoff_list_ms = r->backoff_list_ms;
    p.backoff_list_count = r->backoff_list_count;
    p.rate_per_s = r->rate_per_s;
    p.ordered = (r->flags & RECORD_SUBSCRIPTION_ORDERED) != 0;
    p.order_key = r->order_key;
    p.lag = (r->flags & RECORD_SUBSCRIPTION_EXPIRE) != 0 ? LAG_EXPIRE : LAG_BLOCK;
    return p;
}

static int recover_subscriptions(struct recovery *r) {
    struct engine *e = r->e;
    struct arena arena;
    struct store_iter it;
    char why[256];
    int err = 0;
    arena_init(&arena);
    store_seek(e->store, STORE_SUBSCRIPTIONS, slice_of(NULL, 0), &it);
    for (; it.valid && err == 0; store_next(e->store, &it)) {
        uint32_t id = key_read_u32(it.key, 0);
        struct record_subscription s;
        if (!record_subscription_decode(&arena, it.value, &s) || !name_ok(s.name) ||
            s.project == 0 || subscription_find(e, s.project, s.name) != NULL) {
            err = damaged(r, "subscription", id);
            break;
        }
        struct policy p = policy_of(&s);
        if (policy_check(&p, why, sizeof why) != ERR_OK) {
            err = damaged(r, "subscription", id);
            break;
        }
        struct subscription *sub = subscription_add(e, id, s.project, s.name, &p, s.created_at_ms);
        sub->paused = (s.flags & RECORD_SUBSCRIPTION_PAUSED) != 0;
        sub->aged_from_ms = s.aged_from_ms;
        map_add(&r->subs, id, sub);
    }
    store_iter_end(e->store, &it);
    arena_free(&arena);
    return err;
}

static int recover_tasks(struct recovery *r) {
    struct engine *e = r->e;
    struct store_iter it;
    int err = 0;
    store_seek(e->store, STORE_TASKS, slice_of(NULL, 0), &it);
    for (; it.valid && err == 0; store_next(e->store, &it)) {
        uint32_t id = key_read_u32(it.key, 0);
        struct record_task task;
        if (!record_task_decode(it.value, &task) ||
            !task_recover(e, map_get(&r->subs, task.subscription), id, &task)) {
            err = damaged(r, "task", id);
        }
    }
    store_iter_end(e->store, &it);
    return err;
}

static struct cursor *find_cursor(struct recovery *r, uint32_t sub, uint32_t id) {
    struct subscription *s = map_get(&r->subs, sub);
    if (s == NULL) return NULL;
    if (id == CURSOR_LIVE) return &s->live;
    LIST_FOR(n, next, &s->replays) {
        struct cursor *c = CONTAINER_OF(n, struct cursor, in_sub);
        if (c->id == id) return c;
    }
    return NULL;
}

static bool recover_position(struct engine *e, struct cursor *c, struct slice value) {
    struct record_position p;
    if (!record_position_decode(value, &p) || p.next == 0 || p.next > e->last_seq + 1) return false;
    c->next = c->written_next = p.next;
    c->acked_total = p.acked_total;
    if (c->id == CURSOR_LIVE) {
        struct subscription *s = c->sub;
        s->dead_total = p.dead_total;
        s->dead_count = p.dead_count;
        s->due_count = p.due_count;
        s->expired_total = p.expired_total;
    } else {
        task_of(c)->matched = p.matched;
        task_of(c)->expired = p.expired_total;
    }
    uint64_t seq;
    while (record_position_next(&p, &seq)) {
        struct list *last = c->outstanding.prev;
        bool rises =
            last == &c->outstanding || CONTAINER_OF(last, struct delivery, in_cursor)->seq < seq;
        if (!rises || seq >= p.next) return false;
        delivery_new(c, seq); /* DELAYED by its retry row, or READY in the end */
        retention_hold(e, seq);
    }
    return true;
}

static int recover_positions(struct recovery *r) {
    struct engine *e = r->e;
    struct store_iter it;
    int err = 0;
    store_seek(e->store, STORE_POSITIONS, slice_of(NULL, 0), &it);
    for (; it.valid && err == 0; store_next(e->store, &it)) {
        uint32_t sub = key_read_u32(it.key, 0);
        struct cursor *c = find_cursor(r, sub, key_read_u32(it.key, 4));
        if (c == NULL || !recover_position(e, c, it.value)) {
            err = damaged(r, "the position of subscription", sub);
        }
    }
    store_iter_end(e->store, &it);
    for (size_t i = 0; i < e->subs_count; i++) {
        struct cursor *c = &e->subs[i]->live;
        c->at_tail = c->next == e->last_seq + 1;
    }
    return err;
}

/* What failed before keeps its count, and its due time by the wall clock. */
static bool recover_retry(struct engine *e, struct delivery *d, struct slice value) {
    struct record_retry row;
    if (!record_retry_decode(value, &row)) return false;
    d->fails = row.fails;
    d->deliveries = row.deliveries;
    d->has_retry = true;
    if (row.due_wall_ms <= e->time.wall_ms) return true;
    uint64_t wait_ms = row.due_wall_ms - e->time.wall_ms;
    /* A wall clock that was set back must not turn minutes into years. */
    if (wait_ms > LIMIT_BACKOFF_MS_MAX + LIMIT_BACKOFF_MS_MAX / 10) {
        wait_ms = LIMIT_BACKOFF_MS_MAX;
    }
    if (d->cursor->sub->policy.ordered) { /* whether it has its key is seen later */
        d->not_before_wall_ms = e->time.wall_ms + wait_ms;
    } else {
        delivery_set_state(e, d, DELIVERY_DELAYED, e->time.now_ms + wait_ms);
    }
    return true;
}

static int recover_retries(struct recovery *r) {
    struct engine *e = r->e;
    struct cursor *c = NULL;
    struct list *at = NULL; /* rows and outstanding both rise by seq: one walk serves */
    struct store_iter it;
    int err = 0;
    store_seek(e->store, STORE_RETRIES, slice_of(NULL, 0), &it);
    for (; it.valid && err == 0; store_next(e->store, &it)) {
        uint32_t sub = key_read_u32(it.key, 0), cursor = key_read_u32(it.key, 4);
        uint64_t seq = key_read_u64(it.key, 8);
        if (sweep_has(e, sub)) continue;
        if (c == NULL || c->sub->id != sub || c->id != cursor) {
            c = find_cursor(r, sub, cursor);
            at = c == NULL ? NULL : c->outstanding.next;
        }
        struct delivery *d = NULL;
        for (; c != NULL && at != &c->outstanding; at = at->next) {
            d = CONTAINER_OF(at, struct delivery, in_cursor);
            if (d->seq >= seq) break;
        }
        if (d == NULL || d->seq != seq || !recover_retry(e, d, it.value)) {
            err = damaged(r, "the retry row of event", seq);
        }
    }
    store_iter_end(e->store, &it);
    return err;
}

/* What no retry row holds back was out, or waited to be: it waits for its worker for the grace
 * period. An ordered subscription's go into the queues of their keys, in order of seq. */
static void recover_outstanding(struct engine *e, struct cursor *c) {
    const struct policy *p = &c->sub->policy;
    LIST_FOR(n, next, &c->outstanding) {
        struct delivery *d = CONTAINER_OF(n, struct delivery, in_cursor);
        struct event event;
        if (p->ordered) {
            delivery_event(e, d, &event, NULL);
            if (event.deliver_at_ms > d->not_before_wall_ms) {
                d->not_before_wall_ms = event.deliver_at_ms;
            }
            if (!order_enter(e, d, &event)) {
                delivery_set_state(e, d, DELIVERY_BLOCKED, 0);
            } else if (d->not_before_wall_ms > e->time.wall_ms) {
                uint64_t wait_ms = d->not_before_wall_ms - e->time.wall_ms;
                delivery_set_state(e, d, DELIVERY_DELAYED, e->time.now_ms + wait_ms);
                d->not_before_wall_ms = event.deliver_at_ms; /* a backoff goes by its timer */
            }
        }
        if (d->state != DELIVERY_NEW) continue;
        if (e->grace_until_ms > e->time.now_ms) {
            delivery_set_state(e, d, DELIVERY_DELAYED, e->grace_until_ms);
            d->unclaimed = true;
        } else {
            delivery_set_state(e, d, DELIVERY_READY, 0);
        }
    }
}

/* Every outstanding event must be in the journal. */
static int recover_check(struct recovery *r, const struct cursor *c) {
    struct engine *e = r->e;
    for (const struct list *n = c->outstanding.next; n != &c->outstanding; n = n->next) {
        uint64_t seq = CONTAINER_OF(n, struct delivery, in_cursor)->seq;
        uint8_t key[KEY_U64_BYTES];
        struct slice value;
        if (seq > e->trimmed_to) return 0; /* rising: the rest is above the trim point too */
        if (!store_get(e->store, STORE_JOURNAL, key_u64(key, seq), &value)) {
            return damaged(r, "the record of outstanding event", seq);
        }
    }
    return 0;
}

static int recover_cursor(struct recovery *r, struct cursor *c) {
    int err = recover_check(r, c);
    if (err == 0) recover_outstanding(r->e, c);
    return err;
}

static int recover_jobs(struct recovery *r) {
    uint64_t number = 0;
    return jobs_recover(r->e, &number) ? 0 : damaged(r, "the row of job", number);
}

int recover(struct engine *e, char *error, size_t error_size) {
    struct recovery r = {.e = e, .error = error, .error_size = error_size};
    map_init(&r.subs);
    int err = recover_journal(&r);
    if (err == 0 && !sweep_recover(e)) err = damaged(&r, "the list of deleted subscriptions", 0);
    if (err == 0) err = recover_ids(&r);
    if (err == 0) err = recover_jobs(&r);
    if (err == 0) err = recover_subscriptions(&r);
    if (err == 0) err = recover_tasks(&r);
    if (err == 0) err = recover_positions(&r);
    if (err == 0) err = recover_retries(&r);
    map_free(&r.subs);
    for (size_t i = 0; i < e->subs_count && err == 0; i++) {
        struct subscription *s = e->subs[i];
        err = recover_cursor(&r, &s->live);
        due_recover(e, s);
        subscription_arm(e, s);
    }
    for (size_t i = 0; i < e->tasks_count && err == 0; i++) {
        struct task *t = e->tasks[i];
        if (t->finished_at_ms != 0 || t->kind != TASK_REPLAY) continue;
        err = recover_cursor(&r, &t->cursor);
        if (t->cancelled) t->cursor.end = t->cursor.next - 1;
    }
    if (err != 0) return err;
    /* A replay whose last settlement was on disk before its end could be written. */
    for (size_t i = e->tasks_count; i > 0; i--) {
        struct task *t = e->tasks[i - 1];
        if (t->finished_at_ms != 0 || t->kind != TASK_REPLAY) continue;
        replay_check_finished(e, &t->cursor);
        if (i > e->tasks_count) i = e->tasks_count;
    }
    for (size_t i = 0; i < e->subs_count; i++) {
        e->subs[i]->recovered_outstanding = subscription_outstanding(e->subs[i]);
    }
    return 0;
}
