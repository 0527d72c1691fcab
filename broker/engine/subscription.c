#include "broker/engine/state.h"

#include <stdlib.h>

bool name_ok(struct slice name) {
    if (name.len == 0 || name.len > LIMIT_NAME_BYTES) return false;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        bool alnum = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!alnum && (i == 0 || (c != '.' && c != '_' && c != '-'))) return false;
    }
    return true;
}

/* ---- the table by name ---- */

static int name_compare(struct slice a, struct slice b) {
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len == 0 ? 0 : memcmp(a.data, b.data, len);
    if (order != 0) return order;
    return a.len < b.len ? -1 : a.len > b.len;
}

static int compare(const struct subscription *s, uint32_t project, struct slice name) {
    if (s->project->id != project) return s->project->id < project ? -1 : 1;
    return name_compare(slice_str(s->name), name);
}

/* The place of the first subscription that does not come before `name`. */
static size_t lower_bound(const struct engine *e, uint32_t project, struct slice name) {
    size_t lo = 0, hi = e->subs_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (compare(e->subs[mid], project, name) < 0) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

struct subscription *subscription_find(const struct engine *e, uint32_t project,
                                       struct slice name) {
    size_t i = lower_bound(e, project, name);
    if (i == e->subs_count || compare(e->subs[i], project, name) != 0) return NULL;
    return e->subs[i];
}

size_t subscription_above(const struct engine *e, uint32_t project, struct slice name) {
    size_t i = lower_bound(e, project, name);
    return i < e->subs_count && compare(e->subs[i], project, name) == 0 ? i + 1 : i;
}

bool subscription_wants(const struct subscription *s, struct filter_subject *subject) {
    return subject->event->project == s->project->id && filter_match(s->filter, subject);
}

/* ---- offering ---- */

struct offer {
    struct engine *e;
    struct filter_subject *subject;
};

static void offer(void *ctx, void *owner) {
    struct offer *o = ctx;
    struct subscription *s = owner;
    if (!subscription_wants(s, o->subject)) return;
    meter_add(&s->in, o->e->time.now_ms);
    if (!s->live.at_tail) return;
    s->live.at_tail = false;
    s->live.next = o->subject->event->seq;
    subscription_wake(o->e, s);
}

void subscriptions_offer(struct engine *e, const struct project *project,
                         const struct event *event) {
    struct filter_subject subject;
    struct offer o = {e, &subject};
    filter_subject_init(&subject, event);
    filter_index_candidates(project->index, &subject, offer, &o);
}

/* ---- waking ---- */

uint32_t subscription_outstanding(const struct subscription *s) {
    return s->ready_count + s->leased_count + s->delayed_count + s->blocked_count;
}

void subscription_wake(struct engine *e, struct subscription *s) {
    if (s->runnable || s->paused || list_empty(&s->available)) return;
    s->runnable = true;
    list_push_back(&e->runnable, &s->in_runnable);
}

static uint64_t sooner(uint64_t a_ms, uint64_t b_ms) {
    return a_ms < b_ms ? a_ms : b_ms;
}

/* Times that have come need no timer: then it is awake, or waits for something else. */
void subscription_arm(struct engine *e, struct subscription *s) {
    uint64_t at_ms = UINT64_MAX, now_ms = e->time.now_ms;
    uint64_t due_ms = due_next_ms(e, s);
    if (due_ms > now_ms) at_ms = due_ms;
    uint64_t rate_ms = rate_next_ms(&s->rate);
    if (rate_ms > now_ms) at_ms = sooner(at_ms, rate_ms);
    for (const struct list *n = s->replays.next; n != &s->replays; n = n->next) {
        rate_ms = rate_next_ms(&task_of(CONTAINER_OF(n, struct cursor, in_sub))->rate);
        if (rate_ms > now_ms) at_ms = sooner(at_ms, rate_ms);
    }
    heap_remove(&e->deadlines, &s->timer.node);
    if (at_ms != UINT64_MAX) heap_insert(&e->deadlines, &s->timer.node, at_ms);
}

/* ---- life ---- */

struct subscription *subscription_add(struct engine *e, uint32_t id, uint32_t project,
                                      struct slice name, const struct policy *policy,
                                      uint64_t created_at_ms) {
    struct subscription *s = mem_zalloc(sizeof *s);
    s->id = id;
    s->project = project_get(e, project);
    s->created_at_ms = created_at_ms;
    bool fits = slice_to_cstr(name, s->name, sizeof s->name);
    CHECK(fits);
    policy_set(s, policy);
    cursor_init(&s->live, s, CURSOR_LIVE, 1, UINT64_MAX);
    cursor_init(&s->due, s, CURSOR_DUE, 1, UINT64_MAX);
    s->due_next_wall_ms = s->due_undurable_wall_ms = UINT64_MAX;
    map_init(&s->keys);
    map_init(&s->due_taken);
    s->timer.kind = DEADLINE_SUBSCRIPTION;
    heap_node_init(&s->timer.node);
    list_init(&s->in_due_waiting);
    list_init(&s->replays);
    list_init(&s->ready);
    list_init(&s->attachments);
    list_init(&s->available);
    list_init(&s->in_runnable);
    if (e->subs_count == e->subs_cap) {
        e->subs_cap = e->subs_cap == 0 ? 16 : e->subs_cap * 2;
        e->subs = mem_realloc(e->subs, e->subs_cap * sizeof(struct subscription *));
    }
    size_t at = lower_bound(e, project, name);
    memmove(e->subs + at + 1, e->subs + at, (e->subs_count - at) * sizeof(struct subscription *));
    e->subs[at] = s;
    e->subs_count++;
    s->project->subs_count++;
    filter_index_add(s->project->index, s->filter, s);
    return s;
}

/* Retention may have left records of these for this cursor alone. */
static void cursor_drop(struct engine *e, struct cursor *c) {
    LIST_FOR(n, next, &c->outstanding) {
        struct delivery *d = CONTAINER_OF(n, struct delivery, in_cursor);
        uint64_t seq = d->seq;
        delivery_free(e, d);
        if (c->id != CURSOR_DUE) retention_release(e, seq);
    }
    cursor_unmark(c);
}

void subscription_free(struct engine *e, struct subscription *s) {
    cursor_drop(e, &s->live);
    cursor_drop(e, &s->due);
    LIST_FOR(n, next, &s->replays) {
        cursor_drop(e, CONTAINER_OF(n, struct cursor, in_sub));
        list_unlink(n);
    }
    LIST_FOR(n, next, &s->attachments) {
        attachment_free(e, CONTAINER_OF(n, struct attachment, in_sub));
    }
    for (size_t i = 0; i < e->tasks_count; i++) {
        if (e->tasks[i]->cursor.sub == s) e->tasks[i]->cursor.sub = NULL;
    }
    list_unlink(&s->in_runnable);
    list_unlink(&s->in_due_waiting);
    heap_remove(&e->deadlines, &s->timer.node);
    filter_index_remove(s->project->index, s->filter, s);
    s->project->subs_count--;
    size_t at = lower_bound(e, s->project->id, slice_str(s->name));
    CHECK(e->subs[at] == s);
    e->subs_count--;
    memmove(e->subs + at, e->subs + at + 1, (e->subs_count - at) * sizeof(struct subscription *));
    CHECK(s->keys.len == 0);
    map_free(&s->keys);
    map_free(&s->due_taken);
    policy_drop(s);
    free(s);
}

static enum err position_find(struct engine *e, enum start_kind start, uint64_t value,
                              uint64_t *out, const char **message) {
    switch (start) {
    case START_NEW: *out = e->last_seq + 1; break;
    case START_FIRST: *out = oldest_seq(e); break;
    case START_SEQ:
        if (value < oldest_seq(e) || value > e->last_seq + 1) {
            *message = e->last_seq == 0
                           ? "the journal is empty: its first seq will be 1"
                           : turn_text(e,
                                       "seq %llu is outside the journal: the oldest is %llu, the "
                                       "newest %llu",
                                       (unsigned long long)value, (unsigned long long)oldest_seq(e),
                                       (unsigned long long)e->last_seq);
            return ERR_OUT_OF_RANGE;
        }
        *out = value;
        break;
    case START_TIME: *out = seq_at_time(e, value); break;
    }
    return ERR_OK;
}

static enum err start_position(struct engine *e, struct subscription *s, enum start_kind start,
                               uint64_t value, const char **message) {
    struct cursor *c = &s->live;
    uint64_t next;
    enum err err = position_find(e, start, value, &next, message);
    if (err != ERR_OK) return err;
    c->next = next;
    c->at_tail = c->next == e->last_seq + 1;
    c->written_next = c->next;
    return ERR_OK;
}

static void subscription_write(struct engine *e, struct subscription *s) {
    const struct policy *p = &s->policy;
    struct record_subscription r = {
        .project = s->project->id,
        .name = slice_str(s->name),
        .created_at_ms = s->created_at_ms,
        .filter = p->filter,
        .lease_ms = p->lease_ms,
        .max_hold_ms = p->max_hold_ms,
        .max_age_ms = p->max_age_ms,
        .aged_from_ms = s->aged_from_ms,
        .max_fails = p->max_fails,
        .backoff_min_ms = p->backoff_min_ms,
        .backoff_max_ms = p->backoff_max_ms,
        .backoff_factor_permille = p->backoff_factor_permille,
        .backoff_jitter_permille = p->backoff_jitter_permille,
        .backoff_list_count = p->backoff_list_count,
        .backoff_list_ms = p->backoff_list_ms,
        .rate_per_s = p->rate_per_s,
        .order_key = p->order_key,
        .flags = (uint8_t)((s->paused ? RECORD_SUBSCRIPTION_PAUSED : 0) |
                           (p->ordered ? RECORD_SUBSCRIPTION_ORDERED : 0) |
                           (p->lag == LAG_EXPIRE ? RECORD_SUBSCRIPTION_EXPIRE : 0)),
    };
    struct batch *b = turn_batch(e);
    uint8_t key[KEY_SUB_BYTES];
    batch_put(b, STORE_SUBSCRIPTIONS, key_u32(key, s->id),
              record_subscription_encode(&b->arena, &r));
    batch_put(b, STORE_META, slice_str("next_id"), record_u64_encode(&b->arena, e->next_id));
    cursor_mark_dirty(e, &s->live, true);
}

const char *no_such_subscription(struct engine *e, struct slice name) {
    return turn_text(e, "there is no subscription \"%.*s\": create it, or check the name",
                     SLICE_ARG(name));
}

bool engine_subscriptions_full(const struct engine *e) {
    return e->subs_count >= e->options.subscriptions_max;
}

enum err subscription_ensure(struct engine *e, const struct wanted_subscription *wanted,
                             struct subscription **out, bool *created, const char **message) {
    const struct policy *create = wanted->create;
    struct slice name = wanted->name;
    *created = false;
    *out = subscription_find(e, wanted->project, name);
    if (*out != NULL) {
        if (create == NULL || policy_equal(*out, create)) return ERR_OK;
        *message = turn_text(e,
                             "subscription \"%.*s\" exists with another policy: update it, or ask "
                             "for the policy it has",
                             SLICE_ARG(name));
        return ERR_POLICY_MISMATCH;
    }
    if (create == NULL) {
        *message = no_such_subscription(e, name);
        return ERR_NOT_FOUND;
    }
    if (!name_ok(name)) {
        *message = "name: 1 to 64 of A-Z a-z 0-9 . _ - with a letter or digit first";
        return ERR_INVALID_REQUEST;
    }
    char why[256];
    enum err err = policy_check(create, why, sizeof why);
    if (err != ERR_OK) {
        *message = turn_text(e, "%s", why);
        return err;
    }
    if (engine_subscriptions_full(e) && !wanted->unbounded) {
        *message = turn_text(e,
                             "there are %u subscriptions, those of all projects and of webhooks: "
                             "delete one that nobody needs",
                             e->options.subscriptions_max);
        return ERR_LIMIT_EXCEEDED;
    }
    struct subscription *s =
        subscription_add(e, e->next_id, wanted->project, name, create, e->time.wall_ms);
    err = start_position(e, s, wanted->start, wanted->start_value, message);
    if (err != ERR_OK) {
        subscription_free(e, s);
        return err;
    }
    e->next_id++;
    subscription_write(e, s);
    *out = s;
    *created = true;
    return ERR_OK;
}

void subscription_create(struct engine *e, const struct command *c) {
    struct subscription *s;
    const char *message = NULL;
    bool created;
    const struct wanted_subscription wanted = {
        .project = c->project,
        .name = c->u.create.name,
        .create = &c->u.create.policy,
        .start = c->u.create.start,
        .start_value = c->u.create.start_value,
    };
    enum err err = subscription_ensure(e, &wanted, &s, &created, &message);
    struct effect *f = turn_effect(e, EFFECT_DONE, c->route);
    f->err = err;
    f->message = message;
    f->u.done.created = created;
    f->u.done.id = err == ERR_OK ? s->id : 0;
}

/* The answer to a command that names a subscription. */
static void done(struct engine *e, const struct command *c, enum err err, const char *message,
                 const struct subscription *s) {
    struct effect *f = turn_effect(e, EFFECT_DONE, c->route);
    f->err = err;
    f->message = message;
    f->u.done.id = err == ERR_OK && s != NULL ? s->id : 0;
}

/* Answers when it is not there. */
static struct subscription *find_or_answer(struct engine *e, const struct command *c,
                                           struct slice name) {
    struct subscription *s = subscription_find(e, c->project, name);
    if (s == NULL) done(e, c, ERR_NOT_FOUND, no_such_subscription(e, name), NULL);
    return s;
}

static bool order_differs(const struct policy *a, const struct policy *b) {
    return a->ordered != b->ordered || !slice_eq(a->order_key, b->order_key);
}

void subscription_update(struct engine *e, const struct command *c) {
    const struct policy *policy = &c->u.update.policy;
    struct subscription *s = find_or_answer(e, c, c->u.update.name);
    char why[256];
    if (s == NULL) return;
    enum err err = policy_check(policy, why, sizeof why);
    if (err != ERR_OK) {
        done(e, c, err, turn_text(e, "%s", why), NULL);
        return;
    }
    if (order_differs(&s->policy, policy) && subscription_outstanding(s) > 0) {
        done(e, c, ERR_POLICY_MISMATCH,
             turn_text(e,
                       "order: %u events of \"%s\" are out or wait to be delivered again: pause "
                       "it and let them settle first",
                       subscription_outstanding(s), s->name),
             NULL);
        return;
    }
    filter_index_remove(s->project->index, s->filter, s);
    policy_set(s, policy);
    filter_index_add(s->project->index, s->filter, s);
    subscription_write(e, s);
    subscription_wake(e, s);
    done(e, c, ERR_OK, NULL, s);
}

void subscription_pause(struct engine *e, const struct command *c) {
    struct subscription *s = find_or_answer(e, c, c->u.pause.name);
    if (s == NULL) return;
    bool resumed = s->paused && !c->u.pause.paused;
    if (resumed && !c->u.pause.ages) s->aged_from_ms = e->time.wall_ms;
    s->paused = c->u.pause.paused;
    if (s->paused) {
        list_unlink(&s->in_runnable);
        s->runnable = false;
    } else {
        subscription_wake(e, s);
    }
    subscription_write(e, s);
    done(e, c, ERR_OK, NULL, s);
}

/* What was out of the live cursor is forgotten: it is below or above the new position, and comes
 * again or not by that alone. */
void subscription_seek(struct engine *e, const struct command *c) {
    struct subscription *s = find_or_answer(e, c, c->u.seek.name);
    const char *message = NULL;
    uint64_t next;
    if (s == NULL) return;
    enum err err = position_find(e, c->u.seek.start, c->u.seek.start_value, &next, &message);
    if (err != ERR_OK) {
        done(e, c, err, message, NULL);
        return;
    }
    LIST_FOR(n, after, &s->live.outstanding) {
        struct delivery *d = CONTAINER_OF(n, struct delivery, in_cursor);
        if (d->state == DELIVERY_LEASED) {
            struct lease *l = d->lease;
            struct effect *f = turn_effect(e, EFFECT_REVOKED, l->attachment->route);
            f->u.revoked.attachment = l->attachment->id;
            f->u.revoked.tag = l->tag;
            f->u.revoked.reason = "seek";
        }
        delivery_forget(e, d);
    }
    s->live.next = next;
    s->live.at_tail = next == e->last_seq + 1;
    cursor_mark_dirty(e, &s->live, true);
    subscription_wake(e, s);
    done(e, c, ERR_OK, NULL, s);
}

void subscription_delete(struct engine *e, const struct command *c) {
    struct subscription *s = find_or_answer(e, c, c->u.delete.name);
    if (s == NULL) return;
    tasks_end(e, s);
    LIST_FOR(n, next, &s->attachments) {
        struct attachment *a = CONTAINER_OF(n, struct attachment, in_sub);
        struct effect *f = turn_effect(e, EFFECT_ENDED, a->route);
        f->err = ERR_DELETED;
        f->message = "the subscription was deleted";
        f->u.ended.attachment = a->id;
    }
    uint8_t key[KEY_SUB_BYTES];
    struct slice id = key_u32(key, s->id);
    sweep_add(e, s->id);
    subscription_free(e, s);
    struct batch *b = turn_batch(e);
    batch_delete(b, STORE_SUBSCRIPTIONS, id);
    batch_delete_prefix(b, STORE_POSITIONS, id);
    done(e, c, ERR_OK, NULL, NULL);
}
