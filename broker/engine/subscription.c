#include "broker/engine/state.h"

#include <stdlib.h>

#include "base/glob.h"
#include "base/hash.h"

struct policy policy_default(void) {
    return (struct policy){
        .lease_ms = POLICY_LEASE_MS_DEFAULT,
        .max_fails = POLICY_MAX_FAILS_DEFAULT,
        .backoff_min_ms = POLICY_BACKOFF_MIN_MS_DEFAULT,
        .backoff_max_ms = POLICY_BACKOFF_MAX_MS_DEFAULT,
        .backoff_factor_permille = POLICY_BACKOFF_FACTOR_PERMILLE_DEFAULT,
    };
}

static enum err bad(const char **why, const char *text) {
    *why = text;
    return ERR_INVALID_REQUEST;
}

enum err policy_check(const struct policy *p, const char **why) {
    const struct filter *f = &p->filter;
    if (f->types_count > LIMIT_FILTER_PATTERNS || f->sources_count > LIMIT_FILTER_PATTERNS) {
        return bad(why, "filter: at most 64 types and 64 sources");
    }
    for (uint32_t i = 0; i < f->types_count; i++) {
        if (f->types[i].len == 0 || f->types[i].len > LIMIT_EVENT_TYPE_BYTES) {
            return bad(why, "filter.types: a type glob has 1 to 256 bytes");
        }
    }
    for (uint32_t i = 0; i < f->sources_count; i++) {
        if (!name_ok(f->sources[i])) return bad(why, "filter.sources: not the name of a source");
    }
    if (p->lease_ms < LIMIT_LEASE_MS_MIN || p->lease_ms > LIMIT_LEASE_MS_MAX) {
        return bad(why, "lease_ms: must be 100 to 43200000 (12 hours)");
    }
    if (p->max_fails > LIMIT_FAILS_MAX) return bad(why, "max_fails: must be 0 to 1000000");
    if (p->backoff_max_ms > LIMIT_BACKOFF_MS_MAX) {
        return bad(why, "backoff.max_ms: must be 0 to 86400000 (24 hours)");
    }
    if (p->backoff_min_ms > p->backoff_max_ms) {
        return bad(why, "backoff.min_ms: must not be above backoff.max_ms");
    }
    if (p->backoff_factor_permille < 1000 || p->backoff_factor_permille > 100000) {
        return bad(why, "backoff.factor: must be 1 to 100");
    }
    return ERR_OK;
}

bool name_ok(struct slice name) {
    if (name.len == 0 || name.len > LIMIT_NAME_BYTES) return false;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        bool alnum = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!alnum && (i == 0 || (c != '.' && c != '_' && c != '-'))) return false;
    }
    return true;
}

static bool patterns_equal(const struct slice *a, uint32_t a_count, const struct slice *b,
                           uint32_t b_count) {
    if (a_count != b_count) return false;
    for (uint32_t i = 0; i < a_count; i++) {
        if (!slice_eq(a[i], b[i])) return false;
    }
    return true;
}

static bool policy_equal(const struct policy *a, const struct policy *b) {
    return a->lease_ms == b->lease_ms && a->max_fails == b->max_fails &&
           a->backoff_min_ms == b->backoff_min_ms && a->backoff_max_ms == b->backoff_max_ms &&
           a->backoff_factor_permille == b->backoff_factor_permille &&
           patterns_equal(a->filter.types, a->filter.types_count, b->filter.types,
                          b->filter.types_count) &&
           patterns_equal(a->filter.sources, a->filter.sources_count, b->filter.sources,
                          b->filter.sources_count);
}

bool filter_match(const struct filter *f, const struct event *event) {
    bool type_ok = f->types_count == 0, source_ok = f->sources_count == 0;
    for (uint32_t i = 0; i < f->types_count && !type_ok; i++) {
        type_ok = glob_match(f->types[i], event->type);
    }
    for (uint32_t i = 0; i < f->sources_count && !source_ok; i++) {
        source_ok = slice_eq(f->sources[i], event->source);
    }
    return type_ok && source_ok;
}

/* ---- the table by name ---- */

static int name_compare(struct slice a, struct slice b) {
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len == 0 ? 0 : memcmp(a.data, b.data, len);
    if (order != 0) return order;
    return a.len < b.len ? -1 : a.len > b.len;
}

/* The place of the first subscription whose name is not below `name`. */
static size_t lower_bound(const struct engine *e, struct slice name) {
    size_t lo = 0, hi = e->subs_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (name_compare(slice_str(e->subs[mid]->name), name) < 0) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

struct subscription *subscription_find(const struct engine *e, struct slice name) {
    size_t i = lower_bound(e, name);
    if (i == e->subs_count || !slice_eq_str(name, e->subs[i]->name)) return NULL;
    return e->subs[i];
}

size_t subscription_above(const struct engine *e, struct slice name) {
    size_t i = lower_bound(e, name);
    return i < e->subs_count && slice_eq_str(name, e->subs[i]->name) ? i + 1 : i;
}

/* ---- the index by first segment ---- */

/* The literal first segment of a glob, up to its dot or end; false when a star is in it. A type
 * can match such a glob only if its own first segment is the same. */
static bool literal_segment(struct slice glob, struct slice *segment) {
    size_t n = 0;
    while (n < glob.len && glob.data[n] != '.') {
        if (glob.data[n] == '*') return false;
        n++;
    }
    *segment = slice_of(glob.data, n);
    return true;
}

static struct index_bucket *bucket_of(struct engine *e, struct slice segment, bool make) {
    uint64_t key = hash_bytes(0, segment);
    struct index_bucket *bucket = map_get(&e->index, key);
    if (bucket == NULL && make) {
        bucket = mem_zalloc(sizeof *bucket);
        map_add(&e->index, key, bucket);
    }
    return bucket;
}

static void bucket_add(struct index_bucket *b, struct subscription *s) {
    if (b->count > 0 && b->subs[b->count - 1] == s) return;
    if (b->count == b->cap) {
        b->cap = b->cap == 0 ? 4 : b->cap * 2;
        b->subs = mem_realloc(b->subs, b->cap * sizeof(struct subscription *));
    }
    b->subs[b->count++] = s;
}

static void bucket_remove(struct index_bucket *b, const struct subscription *s) {
    size_t kept = 0;
    for (size_t i = 0; i < b->count; i++) {
        if (b->subs[i] != s) b->subs[kept++] = b->subs[i];
    }
    b->count = kept;
}

static void index_change(struct engine *e, struct subscription *s, bool add) {
    const struct filter *f = &s->policy.filter;
    for (uint32_t i = 0; i < (f->types_count == 0 ? 1 : f->types_count); i++) {
        struct slice segment;
        struct index_bucket *b = &e->index_any;
        if (f->types_count > 0 && literal_segment(f->types[i], &segment)) {
            b = bucket_of(e, segment, true);
        }
        if (add) bucket_add(b, s);
        else bucket_remove(b, s);
    }
}

static void offer_bucket(struct engine *e, const struct index_bucket *b,
                         const struct event *event) {
    for (size_t i = 0; b != NULL && i < b->count; i++) {
        struct subscription *s = b->subs[i];
        if (!s->live.at_tail || !filter_match(&s->policy.filter, event)) continue;
        s->live.at_tail = false;
        s->live.next = event->seq;
        subscription_wake(e, s);
    }
}

void subscriptions_offer(struct engine *e, const struct event *event) {
    struct slice segment = event->type;
    for (size_t n = 0; n < segment.len; n++) {
        if (segment.data[n] == '.') segment.len = n;
    }
    offer_bucket(e, bucket_of(e, segment, false), event);
    offer_bucket(e, &e->index_any, event);
}

void subscription_wake(struct engine *e, struct subscription *s) {
    if (s->runnable || list_empty(&s->available)) return;
    s->runnable = true;
    list_push_back(&e->runnable, &s->in_runnable);
}

/* ---- life ---- */

/* Copies the filter into one block that the subscription owns. */
static void policy_copy(struct subscription *s, const struct policy *policy) {
    const struct filter *f = &policy->filter;
    size_t count = f->types_count + f->sources_count, bytes = count * sizeof(struct slice);
    for (uint32_t i = 0; i < f->types_count; i++) bytes += f->types[i].len;
    for (uint32_t i = 0; i < f->sources_count; i++) bytes += f->sources[i].len;
    struct slice *patterns = mem_alloc(bytes);
    uint8_t *at = (uint8_t *)(patterns + count);
    for (size_t i = 0; i < count; i++) {
        struct slice from = i < f->types_count ? f->types[i] : f->sources[i - f->types_count];
        memcpy(at, from.data, from.len);
        patterns[i] = slice_of(at, from.len);
        at += from.len;
    }
    s->policy = *policy;
    s->policy.filter.types = patterns;
    s->policy.filter.sources = patterns + f->types_count;
    s->policy_memory = patterns;
}

struct subscription *subscription_add(struct engine *e, uint32_t id, struct slice name,
                                      const struct policy *policy, uint64_t created_at_ms) {
    struct subscription *s = mem_zalloc(sizeof *s);
    s->id = id;
    s->created_at_ms = created_at_ms;
    bool fits = slice_to_cstr(name, s->name, sizeof s->name);
    CHECK(fits);
    policy_copy(s, policy);
    cursor_init(&s->live, s, CURSOR_LIVE, 1, UINT64_MAX);
    list_init(&s->replays);
    list_init(&s->ready);
    list_init(&s->attachments);
    list_init(&s->available);
    list_init(&s->in_runnable);
    if (e->subs_count == e->subs_cap) {
        e->subs_cap = e->subs_cap == 0 ? 16 : e->subs_cap * 2;
        e->subs = mem_realloc(e->subs, e->subs_cap * sizeof(struct subscription *));
    }
    size_t at = lower_bound(e, name);
    memmove(e->subs + at + 1, e->subs + at, (e->subs_count - at) * sizeof(struct subscription *));
    e->subs[at] = s;
    e->subs_count++;
    index_change(e, s, true);
    return s;
}

static void cursor_drop(struct engine *e, struct cursor *c) {
    LIST_FOR(n, next, &c->outstanding) {
        delivery_free(e, CONTAINER_OF(n, struct delivery, in_cursor));
    }
    cursor_unmark(c);
}

void subscription_free(struct engine *e, struct subscription *s) {
    cursor_drop(e, &s->live);
    LIST_FOR(n, next, &s->replays) {
        struct cursor *c = CONTAINER_OF(n, struct cursor, in_sub);
        cursor_drop(e, c);
        list_unlink(n);
        c->sub = NULL;
    }
    LIST_FOR(n, next, &s->attachments) {
        attachment_free(e, CONTAINER_OF(n, struct attachment, in_sub));
    }
    for (size_t i = 0; i < e->replays_count; i++) {
        if (e->replays[i]->sub == s) e->replays[i]->sub = NULL;
    }
    list_unlink(&s->in_runnable);
    index_change(e, s, false);
    size_t at = lower_bound(e, slice_str(s->name));
    CHECK(e->subs[at] == s);
    e->subs_count--;
    memmove(e->subs + at, e->subs + at + 1, (e->subs_count - at) * sizeof(struct subscription *));
    free(s->policy_memory);
    free(s);
}

static enum err start_position(struct engine *e, struct subscription *s, enum start_kind start,
                               uint64_t value, const char **message) {
    struct cursor *c = &s->live;
    c->at_tail = false;
    switch (start) {
    case START_NEW: c->next = e->last_seq + 1; break;
    case START_FIRST: c->next = 1; break;
    case START_SEQ:
        if (value == 0 || value > e->last_seq + 1) {
            *message = turn_text(e, "start.seq: %llu is outside the journal, which holds 1 to %llu",
                                 (unsigned long long)value, (unsigned long long)e->last_seq);
            return ERR_OUT_OF_RANGE;
        }
        c->next = value;
        break;
    case START_TIME: c->next = seq_at_time(e, value); break;
    }
    c->at_tail = c->next == e->last_seq + 1;
    c->written_next = c->next;
    return ERR_OK;
}

static void subscription_write(struct engine *e, struct subscription *s) {
    const struct policy *p = &s->policy;
    struct record_subscription r = {
        .project = PROJECT_DEFAULT,
        .name = slice_str(s->name),
        .created_at_ms = s->created_at_ms,
        .lease_ms = p->lease_ms,
        .max_fails = p->max_fails,
        .backoff_min_ms = p->backoff_min_ms,
        .backoff_max_ms = p->backoff_max_ms,
        .backoff_factor_permille = p->backoff_factor_permille,
        .types = p->filter.types,
        .types_count = p->filter.types_count,
        .sources = p->filter.sources,
        .sources_count = p->filter.sources_count,
    };
    struct batch *b = turn_batch(e);
    uint8_t key[KEY_SUB_BYTES];
    batch_put(b, STORE_SUBSCRIPTIONS, key_u32(key, s->id),
              record_subscription_encode(&b->arena, &r));
    batch_put(b, STORE_META, slice_str("next_id"), record_u64_encode(&b->arena, e->next_id));
    cursor_mark_dirty(e, &s->live, true);
}

enum err subscription_ensure(struct engine *e, struct slice name, const struct policy *create,
                             enum start_kind start, uint64_t start_value, struct subscription **out,
                             bool *created, const char **message) {
    *created = false;
    *out = subscription_find(e, name);
    if (*out != NULL) {
        if (create == NULL || policy_equal(&(*out)->policy, create)) return ERR_OK;
        *message = turn_text(e,
                             "subscription \"%.*s\" exists with another policy: delete it first, "
                             "or ask for the policy it has",
                             SLICE_ARG(name));
        return ERR_POLICY_MISMATCH;
    }
    if (create == NULL) {
        *message = turn_text(e, "there is no subscription \"%.*s\": create it, or check the name",
                             SLICE_ARG(name));
        return ERR_NOT_FOUND;
    }
    if (!name_ok(name)) {
        *message = "name: 1 to 64 of A-Z a-z 0-9 . _ - with a letter or digit first";
        return ERR_INVALID_REQUEST;
    }
    enum err err = policy_check(create, message);
    if (err != ERR_OK) return err;
    struct subscription *s = subscription_add(e, e->next_id, name, create, e->time.wall_ms);
    err = start_position(e, s, start, start_value, message);
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
    enum err err = subscription_ensure(e, c->u.create.name, &c->u.create.policy, c->u.create.start,
                                       c->u.create.start_value, &s, &created, &message);
    struct effect *f = turn_effect(e, EFFECT_DONE, c->route);
    f->err = err;
    f->message = message;
    f->u.done.created = created;
    f->u.done.id = err == ERR_OK ? s->id : 0;
}

void subscription_delete(struct engine *e, const struct command *c) {
    struct subscription *s = subscription_find(e, c->u.delete.name);
    if (s == NULL) {
        const char *message =
            turn_text(e, "there is no subscription \"%.*s\"", SLICE_ARG(c->u.delete.name));
        struct effect *f = turn_effect(e, EFFECT_DONE, c->route);
        f->err = ERR_NOT_FOUND;
        f->message = message;
        return;
    }
    uint8_t key[KEY_SUB_BYTES];
    struct slice id = key_u32(key, s->id);
    struct batch *b = turn_batch(e);
    batch_delete(b, STORE_SUBSCRIPTIONS, id);
    batch_delete_prefix(b, STORE_POSITIONS, id);
    batch_delete_prefix(b, STORE_RETRIES, id);
    batch_delete_prefix(b, STORE_DEAD, id);
    LIST_FOR(n, next, &s->replays) {
        replay_finish(e, CONTAINER_OF(n, struct cursor, in_sub));
    }
    LIST_FOR(n, next, &s->attachments) {
        struct attachment *a = CONTAINER_OF(n, struct attachment, in_sub);
        struct effect *f = turn_effect(e, EFFECT_ENDED, a->route);
        f->err = ERR_DELETED;
        f->message = "the subscription was deleted";
        f->u.ended.attachment = a->id;
    }
    subscription_free(e, s);
    turn_effect(e, EFFECT_DONE, c->route);
}
