#include "tests/unit/random_oracle.h"

#include <stdio.h>
#include <stdlib.h>

const char *const fact_types[3] = {"a.x", "a.y", "b.x"};
const char *const fact_subjects[KEYS] = {"", "k1", "k2", "k3"};
const char *const fact_groups[KEYS] = {NULL, "hi", "lo", "mid"};
const char *const sub_names[SUBS] = {"s0", "s1", "s2", "s3"};

/* Each has its twin in fact_matches. */
const char *const fact_filters[FILTERS] = {
    "",
    "{\"types\":[\"a.*\"]}",
    "{\"types\":[\"b.x\"]}",
    "{\"user_metadata\":{\"g\":\"hi\"}}",
    "{\"user_metadata\":{\"n\":{\"in\":[1,2]}}}",
    "{\"any\":[{\"types\":[\"b.*\"]},{\"user_metadata\":{\"g\":{\"exists\":false}}}]}",
    "{\"not\":{\"subject_prefix\":\"k1\"}}",
    "{\"user_metadata\":{\"g\":{\"not\":{\"equals\":\"lo\"}}}}",
};

bool fact_matches(const struct fact *f, int filter) {
    switch (filter) {
    case 0: return true;
    case 1: return f->type != 2;
    case 2: return f->type == 2;
    case 3: return f->group == 1;
    case 4: return f->n == 1 || f->n == 2;
    case 5: return f->type == 2 || f->group == 0;
    case 6: return f->subject != 1;
    default: return f->group != 2;
    }
}

static int matching(const struct fact *f, uint32_t filters) {
    int n = 0;
    for (int i = 0; i < FILTERS; i++) n += (filters >> i & 1) != 0 && fact_matches(f, i);
    return n;
}

/* It matched whatever the subscription was told; or, `any`, something of it. */
static bool wanted(const struct sub *s, const struct fact *f, bool any) {
    int n = matching(f, s->filters_used);
    return any ? n > 0 : n == __builtin_popcount(s->filters_used);
}

static int key_of(const struct sub *s, const struct fact *f) {
    if (s->order == ORDER_NONE) return 0;
    return s->order == ORDER_SUBJECT ? f->subject : f->group;
}

struct worker *oracle_worker(struct oracle *o, uint64_t id) {
    CHECK(id >= 1 && id <= o->last_worker);
    return &o->workers[id];
}

struct asked *oracle_ask(struct oracle *o, struct command *c, int sub) {
    c->route.rid = ++o->last_rid;
    struct asked *a = &o->asked[o->last_rid % ASKED_MAX];
    CHECK(!a->waits);
    bool answered = c->kind != COMMAND_ACK && c->kind != COMMAND_NACK &&
                    c->kind != COMMAND_EXTEND && c->kind != COMMAND_WINDOW &&
                    c->kind != COMMAND_HOLD && c->kind != COMMAND_DETACH;
    *a = (struct asked){.waits = answered, .kind = c->kind, .sub = sub};
    return a;
}

static struct asked *answered(struct oracle *o, const struct effect *f) {
    struct asked *a = &o->asked[f->route.rid % ASKED_MAX];
    CHECK(a->waits);
    a->waits = false;
    return a;
}

void oracle_time(struct oracle *o, uint64_t ms, int64_t step_ms) {
    o->w.time.now_ms += ms;
    o->w.time.wall_ms += ms + (uint64_t)step_ms;
    o->wall_reached += ms;
    if (o->w.time.wall_ms > o->wall_reached) o->wall_reached = o->w.time.wall_ms;
}

/* ---- answers ---- */

static void on_published(struct oracle *o, const struct effect *f) {
    struct asked *a = answered(o, f);
    if (f->err != ERR_OK) return;
    CHECK(f->u.published.count == a->count);
    for (size_t i = 0; i < a->count; i++) {
        struct publish_result r = f->u.published.results[i];
        struct fact *fact = &a->facts[i];
        uint64_t known = fact->id < 0 ? 0 : o->seq_of_id[fact->id];
        CHECK(!r.duplicate || (known != 0 && r.seq == known));
        if (r.duplicate) continue;
        /* Never journaled again, but when the journal or a day have forgotten it. */
        CHECK(known == 0 || o->trims ||
              o->wall_reached - o->facts[known].published_ms >= 24 * 3600 * 1000);
        CHECK(r.seq == o->last_seq + 1 && r.seq < EVENTS_MAX); /* no gap, never twice */
        if (fact->id >= 0) o->seq_of_id[fact->id] = r.seq;
        o->last_seq = r.seq;
        o->facts[r.seq] = *fact;
        for (int s = 0; s < SUBS; s++) o->subs[s].events[r.seq].copies[LIVE] = 1;
    }
}

static void on_created(struct oracle *o, const struct asked *a) {
    struct sub *s = &o->subs[a->sub];
    memset(s, 0, sizeof *s);
    s->exists = true;
    s->id = a->id;
    s->filters_used = 1u << a->filter;
    s->lag_expire_used = a->expire;
    s->order = a->order;
    for (uint64_t seq = 1; seq < EVENTS_MAX; seq++) {
        s->events[seq].copies[LIVE] = seq >= a->seq && seq <= o->last_seq;
        s->events[seq].excused = seq < a->seq;
    }
}

static void on_updated(struct oracle *o, const struct asked *a) {
    struct sub *s = &o->subs[a->sub];
    if ((s->filters_used & 1u << a->filter) == 0) s->inexact = true;
    s->filters_used |= 1u << a->filter;
    s->lag_expire_used |= a->expire;
    s->order_changed |= s->order != a->order;
    s->order = a->order;
}

static void on_sought(struct oracle *o, const struct asked *a) {
    struct sub *s = &o->subs[a->sub];
    s->inexact = true;
    memset(s->highest, 0, sizeof s->highest);
    memset(s->confirmed_highest, 0, sizeof s->confirmed_highest);
    for (uint64_t seq = 1; seq <= o->last_seq; seq++) {
        struct knowledge *k = &s->events[seq];
        k->excused = seq < a->seq;
        if (seq < a->seq) continue;
        k->copies[LIVE]++;
        k->acked[LIVE] = k->delivered[LIVE] = false;
    }
}

static void on_task(struct oracle *o, const struct asked *a, uint64_t id) {
    struct task_info t;
    bool found = engine_task_get(o->w.engine, (uint32_t)id, &t);
    CHECK(found && t.kind == a->task);
    if (t.kind != TASK_REPLAY) return;
    CHECK(t.from >= 1 && t.from <= t.to && t.to <= o->last_seq);
    for (uint64_t seq = t.from; seq <= t.to; seq++) {
        o->subs[a->sub].events[seq].copies[REPLAY]++;
    }
    if (o->replays_count == REPLAYS_MAX) return;
    o->replays[o->replays_count++] = (struct replay_asked){(uint32_t)id, a->sub, a->filter};
}

static void on_deleted(struct oracle *o, const struct asked *a) {
    o->subs[a->sub].exists = false;
    size_t kept = 0;
    for (size_t i = 0; i < o->replays_count; i++) {
        if (o->replays[i].sub != a->sub) o->replays[kept++] = o->replays[i];
    }
    o->replays_count = kept;
}

static void on_done(struct oracle *o, const struct effect *f) {
    const struct asked *a = answered(o, f);
    if (f->err != ERR_OK) return;
    switch (a->kind) {
    case COMMAND_SUBSCRIPTION_CREATE:
        if (f->u.done.created) on_created(o, a);
        break;
    case COMMAND_SUBSCRIPTION_UPDATE: on_updated(o, a); break;
    case COMMAND_SUBSCRIPTION_PAUSE: o->subs[a->sub].paused = a->flag; break;
    case COMMAND_SUBSCRIPTION_SEEK: on_sought(o, a); break;
    case COMMAND_SUBSCRIPTION_DELETE: on_deleted(o, a); break;
    case COMMAND_TASK_CREATE: on_task(o, a, f->u.done.id); break;
    default: break;
    }
}

static void on_settled(struct oracle *o, const struct effect *f) {
    struct worker *w = oracle_worker(o, f->u.settled.attachment);
    const struct asked *a = &o->asked[f->route.rid % ASKED_MAX];
    struct sub *s = &o->subs[w->sub];
    if (f->err != ERR_OK || a->kind != COMMAND_ACK || !s->exists) return;
    for (size_t i = 0; i < f->u.settled.ok_count; i++) {
        struct tag_range r = f->u.settled.ok[i];
        for (uint64_t tag = r.lo; tag <= r.hi; tag++) {
            CHECK(tag < w->next_tag);
            const struct hand_out *h = &w->tags[tag];
            struct knowledge *k = &s->events[h->seq];
            enum copy copy = h->replay ? REPLAY : LIVE;
            CHECK(++k->confirmed[copy] <= k->copies[copy]);
            k->acked[copy] = true;
            o->confirmed_total++;
            int key = key_of(s, &o->facts[h->seq]);
            if (copy == LIVE && h->seq > s->confirmed_highest[key]) {
                s->confirmed_highest[key] = h->seq;
            }
        }
    }
}

static void check_event(const struct oracle *o, const struct event *event) {
    char mark[32];
    CHECK(event->seq >= 1 && event->seq <= o->last_seq); /* published, and answered before */
    const struct fact *fact = &o->facts[event->seq];
    int len = snprintf(mark, sizeof mark, "%u.", fact->mark);
    CHECK(event->body.len >= (size_t)len && slice_starts_with(event->body, mark));
    CHECK(slice_eq_str(event->type, fact_types[fact->type]));
    CHECK(slice_eq_str(event->subject, fact_subjects[fact->subject]));
}

static struct hand_out *tag_add(struct worker *w, uint64_t tag) {
    if (tag >= w->cap) {
        size_t cap = w->cap == 0 ? 64 : w->cap;
        while (cap <= tag) cap *= 2;
        w->tags = mem_realloc(w->tags, cap * sizeof *w->tags);
        memset(w->tags + w->cap, 0, (cap - w->cap) * sizeof *w->tags);
        w->cap = cap;
    }
    w->next_tag = tag + 1;
    return &w->tags[tag];
}

static void on_deliver(struct oracle *o, const struct effect *f) {
    const struct event *event = &f->u.deliver.event;
    struct worker *w = oracle_worker(o, f->u.deliver.attachment);
    struct sub *s = &o->subs[w->sub];
    enum copy copy = f->u.deliver.replay ? REPLAY : LIVE;
    check_event(o, event);
    const struct fact *fact = &o->facts[event->seq];
    CHECK(s->exists && !s->paused);
    CHECK(f->u.deliver.tag == w->next_tag);
    CHECK(wanted(s, fact, true));
    CHECK(fact->deliver_at_ms <= o->wall_reached);
    CHECK(f->u.deliver.deliveries > f->u.deliver.fails);
    struct knowledge *k = &s->events[event->seq];
    CHECK(k->confirmed[copy] < k->copies[copy]);
    k->delivered[copy] = true;
    o->deliveries++;
    *tag_add(w, f->u.deliver.tag) = (struct hand_out){event->seq, f->u.deliver.replay, HELD};
    int key = key_of(s, fact);
    if (key == 0 || copy == REPLAY || f->u.deliver.redrive || s->order_changed) return;
    CHECK(event->seq >= s->highest[key]);
    s->highest[key] = event->seq;
}

static void on_effect(void *ctx, const struct effect *f) {
    struct oracle *o = ctx;
    switch (f->kind) {
    case EFFECT_PUBLISHED: on_published(o, f); break;
    case EFFECT_DONE: on_done(o, f); break;
    case EFFECT_SETTLED: on_settled(o, f); break;
    case EFFECT_DELIVER: on_deliver(o, f); break;
    case EFFECT_ATTACHED: {
        struct asked *a = answered(o, f);
        struct worker *w = oracle_worker(o, f->u.attached.attachment);
        CHECK(f->err != ERR_OK || f->u.attached.resumed == a->granted);
        if (f->err != ERR_OK) w->state = WORKER_GONE;
        if (w->state == WORKER_COMING) w->state = WORKER_ACTIVE;
        break;
    }
    case EFFECT_REVOKED: {
        struct worker *w = oracle_worker(o, f->u.revoked.attachment);
        CHECK(f->u.revoked.tag < w->next_tag);
        enum held *held = &w->tags[f->u.revoked.tag].held;
        if (*held != HELD_REFUSED) *held = HELD_LOST;
        break;
    }
    case EFFECT_ENDED: oracle_worker(o, f->u.ended.attachment)->state = WORKER_GONE; break;
    case EFFECT_LEASE_SOON: break;
    }
}

/* ---- what was written ---- */

/* By what was answered: the engine may have deleted it in a turn that is not durable yet. */
static int sub_by_id(const struct oracle *o, uint32_t id) {
    for (int i = 0; i < SUBS; i++) {
        if (o->subs[i].exists && o->subs[i].id == id) return i;
    }
    return -1;
}

static bool moved_to_due(const struct batch *batch, struct slice dead) {
    for (size_t i = 0; i < batch->len; i++) {
        const struct batch_op *op = &batch->ops[i];
        if (op->table != STORE_DUE || op->kind != BATCH_PUT) continue;
        if (key_read_u32(op->key, 0) == key_read_u32(dead, 0) &&
            key_read_u64(op->key, 12) == key_read_u64(dead, 4) &&
            key_read_u32(op->key, 20) == key_read_u32(dead, 12)) {
            return true;
        }
    }
    return false;
}

/* Dead letters come and go by what is written: a removed one was redriven, or is nobody's debt. */
static void on_batch(void *ctx, const struct batch *batch) {
    struct oracle *o = ctx;
    for (size_t i = 0; i < batch->len; i++) {
        const struct batch_op *op = &batch->ops[i];
        if (op->table != STORE_DEAD || op->kind == BATCH_DELETE_PREFIX) continue;
        uint32_t id = key_read_u32(op->key, 0);
        uint64_t seq = key_read_u64(op->key, 4);
        int sub = sub_by_id(o, id);
        if (sub < 0) continue;
        struct knowledge *k = &o->subs[sub].events[seq];
        enum copy copy = key_read_u32(op->key, 12) == CURSOR_LIVE ? LIVE : REPLAY;
        k->dead[copy] = op->kind == BATCH_PUT;
        if (op->kind == BATCH_PUT) {
            k->died[copy] = true;
            o->subs[sub].inexact = true; /* the dead may be purged, and come to nothing */
        } else if (copy == LIVE && !moved_to_due(batch, op->key)) {
            k->excused = true;
        }
    }
}

/* ---- checks at any time ---- */

/* One lease per key, whatever it came from. */
static void check_order(struct engine *e, struct subscription *s) {
    struct {
        struct cursor *c;
    } cursors[2 + 64];
    size_t cursors_count = 0, count = 0;
    char seen[256][40];
    if (!s->policy.ordered) return;
    cursors[cursors_count++].c = &s->live;
    cursors[cursors_count++].c = &s->due;
    LIST_FOR(n, next, &s->replays) {
        if (cursors_count == 66) break;
        cursors[cursors_count++].c = CONTAINER_OF(n, struct cursor, in_sub);
    }
    for (size_t i = 0; i < cursors_count; i++) {
        LIST_FOR(n, next, &cursors[i].c->outstanding) {
            struct delivery *d = CONTAINER_OF(n, struct delivery, in_cursor);
            struct event event;
            char key[40] = "";
            if (d->state != DELIVERY_LEASED) continue;
            delivery_event(e, d, &event, NULL);
            if (s->policy.order_key.len == 0) {
                bool fits = slice_to_cstr(event.subject, key, sizeof key);
                CHECK(fits);
            } else {
                for (int g = 1; g < KEYS; g++) {
                    char text[40];
                    snprintf(text, sizeof text, "{\"g\":\"%s\"", fact_groups[g]);
                    if (slice_starts_with(event.metadata, text)) {
                        snprintf(key, sizeof key, "%s", fact_groups[g]);
                    }
                }
            }
            if (key[0] == 0) continue;
            for (size_t j = 0; j < count; j++) CHECK(strcmp(seen[j], key) != 0);
            CHECK(count < 256);
            memcpy(seen[count++], key, sizeof key);
        }
    }
}

/* Hand-outs since a moment: never more than the rate allows, and a burst. */
static void check_rate(struct oracle *o, const struct engine_turn *turn) {
    uint64_t now_ms = o->w.time.now_ms;
    for (int i = 0; i < SUBS; i++) {
        struct sub *s = &o->subs[i];
        struct subscription *is = subscription_find(o->w.engine, slice_str(sub_names[i]));
        if (is == NULL) continue;
        if (is->id != s->rate_id || is->policy.rate_per_s != s->rate_per_s) {
            s->rate_id = is->id;
            s->rate_per_s = is->policy.rate_per_s;
            s->rate_since_ms = now_ms;
            s->rate_count = 0;
        }
        for (size_t j = 0; turn != NULL && j < turn->effects_count; j++) {
            const struct effect *f = &turn->effects[j];
            if (f->kind != EFFECT_DELIVER) continue;
            const struct worker *w = oracle_worker(o, f->u.deliver.attachment);
            s->rate_count += w->sub == i;
        }
        uint64_t ms = now_ms - s->rate_since_ms + RATE_BURST_MS;
        CHECK(s->rate_per_s == 0 || s->rate_count <= ms * s->rate_per_s / 1000 + 2);
    }
}

void oracle_turn(struct oracle *o) {
    struct engine *e = o->w.engine;
    struct engine_turn *turn = engine_end_turn(e, o->w.time);
    check_rate(o, turn);
    if (turn != NULL) {
        int err = store_submit(o->w.store, &turn->batch);
        CHECK(err == 0);
    }
    engine_check(e);
    for (size_t i = 0; i < e->subs_count; i++) check_order(e, e->subs[i]);
    store_end_reads(o->w.store);
}

static uint64_t rows(struct oracle *o, enum store_table table, uint32_t sub) {
    uint8_t key[KEY_SUB_BYTES];
    uint64_t count = 0;
    struct store_iter it;
    store_seek(o->w.store, table, key_u32(key, sub), &it);
    for (; it.valid && key_read_u32(it.key, 0) == sub; store_next(o->w.store, &it)) count++;
    store_iter_end(o->w.store, &it);
    return count;
}

/* What a deleted subscription had is gone with it. */
static void check_owners(struct oracle *o) {
    static const enum store_table tables[] = {STORE_SUBSCRIPTIONS, STORE_POSITIONS, STORE_RETRIES,
                                              STORE_DUE, STORE_DEAD};
    struct engine *e = o->w.engine;
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++) {
        struct store_iter it;
        store_seek(o->w.store, tables[t], slice_of(NULL, 0), &it);
        for (; it.valid; store_next(o->w.store, &it)) {
            bool owned = false;
            for (size_t i = 0; i < e->subs_count; i++) {
                owned |= e->subs[i]->id == key_read_u32(it.key, 0);
            }
            CHECK(owned || sweep_has(e, key_read_u32(it.key, 0)));
        }
        store_iter_end(o->w.store, &it);
    }
}

static bool count_dead(void *ctx, const struct dead_letter *d) {
    (void)d;
    ++*(uint64_t *)ctx;
    return true;
}

void oracle_check_rows(struct oracle *o) {
    struct engine *e = o->w.engine;
    CHECK(e->pending == NULL);
    for (size_t i = 0; i < e->subs_count; i++) {
        struct subscription *s = e->subs[i];
        struct subscription_info info;
        uint64_t dead = 0, due = rows(o, STORE_DUE, s->id);
        bool found = engine_subscription_get(e, slice_str(s->name), &info);
        found = found && engine_dead_scan(e, slice_str(s->name), 0, 0, count_dead, &dead);
        CHECK(found);
        if (info.dead != dead || s->due_count != due) {
            fprintf(stderr, "%s: %llu dead, rows %llu; %llu due, rows %llu\n", s->name,
                    (unsigned long long)info.dead, (unsigned long long)dead,
                    (unsigned long long)s->due_count, (unsigned long long)due);
        }
        CHECK(info.dead == dead && s->due_count == due);
        CHECK(info.delayed == s->delayed_count + due - s->due.outstanding_count);
    }
    check_owners(o);
    store_end_reads(o->w.store);
}

/* ---- claims ---- */

/* What a claim can be granted from. */
struct candidate {
    bool in_memory, on_disk;
};

static void look_in(const struct cursor *c, const struct claim *claim, uint64_t session,
                    struct candidate *out) {
    for (const struct list *n = c->outstanding.next; n != &c->outstanding; n = n->next) {
        const struct delivery *d = CONTAINER_OF(n, struct delivery, in_cursor);
        uint32_t from = c->id == CURSOR_DUE ? d->row_cursor : c->id;
        if (d->seq != claim->seq || (from != CURSOR_LIVE) != claim->replay) continue;
        out->in_memory |= d->state == DELIVERY_READY;
        out->in_memory |= d->state == DELIVERY_DELAYED && d->unclaimed;
        out->in_memory |=
            d->state == DELIVERY_LEASED && session != 0 && d->lease->attachment->session == session;
    }
}

static struct candidate candidate_for(struct oracle *o, struct subscription *s,
                                      const struct claim *claim, uint64_t session) {
    struct candidate out = {false, false};
    look_in(&s->live, claim, session, &out);
    look_in(&s->due, claim, session, &out);
    LIST_FOR(n, next, &s->replays) {
        look_in(CONTAINER_OF(n, struct cursor, in_sub), claim, session, &out);
    }
    uint8_t key[KEY_SUB_BYTES];
    struct store_iter it;
    store_seek(o->w.store, STORE_DUE, key_u32(key, s->id), &it);
    for (; it.valid && key_read_u32(it.key, 0) == s->id; store_next(o->w.store, &it)) {
        out.on_disk |= key_read_u64(it.key, 12) == claim->seq &&
                       (key_read_u32(it.key, 20) != CURSOR_LIVE) == claim->replay;
    }
    store_iter_end(o->w.store, &it);
    return out;
}

static bool claimed_before(const struct command *c, size_t i) {
    const struct claim *claims = c->u.attach.claims;
    for (size_t j = 0; j < i; j++) {
        if (claims[j].seq == claims[i].seq && claims[j].replay == claims[i].replay) return true;
    }
    return false;
}

void oracle_attach(struct oracle *o, struct command *c, struct asked *a) {
    struct engine *e = o->w.engine;
    struct subscription *s = subscription_find(e, c->u.attach.name);
    struct worker *w = oracle_worker(o, c->u.attach.attachment);
    size_t count = c->u.attach.claims_count;
    struct candidate *can = mem_zalloc((count + 1) * sizeof *can);
    bool grace = e->time.now_ms < e->grace_until_ms;
    for (size_t i = 0; i < count && s != NULL; i++) {
        can[i] = candidate_for(o, s, &c->u.attach.claims[i], c->u.attach.resumes);
    }
    world_step(&o->w, c);
    const struct attachment *at = map_get(&e->attachments, w - o->workers);
    CHECK((at != NULL) == (s != NULL));
    for (size_t i = 0; i < count && at != NULL; i++) {
        const struct claim *claim = &c->u.attach.claims[i];
        const struct lease *l = map_get(&at->by_tag, claim->tag);
        struct hand_out *h = tag_add(w, claim->tag);
        *h = (struct hand_out){claim->seq, claim->replay, l != NULL ? HELD : HELD_REFUSED};
        if (l == NULL) {
            CHECK(!can[i].in_memory || claimed_before(c, i));
            o->refused++;
            continue;
        }
        CHECK(can[i].in_memory || (can[i].on_disk && grace));
        CHECK(l->delivery != NULL && l->delivery->seq == claim->seq && !claimed_before(c, i));
        a->granted++;
        o->resumed++;
    }
    free(can);
}

/* ---- life ---- */

static void open_hooks(struct oracle *o) {
    o->w.on_effect = on_effect;
    o->w.on_effect_ctx = o;
    o->w.on_batch = on_batch;
}

void oracle_open(struct oracle *o) {
    open_hooks(o);
    world_open(&o->w);
    o->wall_reached = o->w.time.wall_ms;
}

void oracle_close(struct oracle *o) {
    world_close(&o->w);
    for (uint64_t i = 1; i <= o->last_worker; i++) free(o->workers[i].tags);
}

void oracle_crash(struct oracle *o) {
    for (uint64_t i = 1; i <= o->last_worker; i++) {
        enum worker_state *state = &o->workers[i].state;
        if (*state == WORKER_NONE || *state == WORKER_GONE) continue;
        *state = WORKER_ORPHAN;
    }
    for (size_t i = 0; i < ASKED_MAX; i++) o->asked[i].waits = false;
    for (int i = 0; i < SUBS; i++) {
        struct sub *s = &o->subs[i];
        s->inexact = true;
        s->rate_id = 0;
        memcpy(s->highest, s->confirmed_highest, sizeof s->highest);
    }
    o->crashes++;
    o->crashed = true;
    world_crash(&o->w);
    CHECK(o->w.engine->last_seq == o->last_seq); /* what was answered is there, and no more */
    for (int i = 0; i < SUBS; i++) {
        const struct subscription *s = subscription_find(o->w.engine, slice_str(sub_names[i]));
        CHECK((s != NULL) == o->subs[i].exists);
        CHECK(s == NULL || s->paused == o->subs[i].paused);
    }
    oracle_check_rows(o);
}

/* ---- the end ---- */

static void check_sub_end(struct oracle *o, int sub) {
    const struct sub *s = &o->subs[sub];
    struct subscription_info info;
    bool found = engine_subscription_get(o->w.engine, slice_str(sub_names[sub]), &info);
    CHECK(found == s->exists);
    if (!found) return;
    CHECK(info.floor == o->last_seq + 1 && info.next == o->last_seq + 1 && info.tasks == 0);
    CHECK(info.ready + info.leased + info.delayed + info.blocked == 0);
    CHECK(info.why_idle == IDLE_EMPTY);
    uint64_t missing = 0;
    for (uint64_t seq = 1; seq <= o->last_seq; seq++) {
        const struct knowledge *k = &s->events[seq];
        if (!wanted(s, &o->facts[seq], false) || k->excused) continue;
        if (k->acked[LIVE] || k->dead[LIVE]) continue;
        if (!s->lag_expire_used) {
            fprintf(stderr, "%s: event %llu is missing\n", sub_names[sub], (unsigned long long)seq);
        }
        CHECK(s->lag_expire_used); /* nothing else loses an event */
        missing++;
    }
    bool holds = missing <= info.expired_total && (s->inexact || missing == info.expired_total);
    if (!holds) {
        fprintf(stderr, "%s: %llu are missing, %llu expired\n", sub_names[sub],
                (unsigned long long)missing, (unsigned long long)info.expired_total);
    }
    CHECK(holds);
}

static void check_replay_end(struct oracle *o, const struct replay_asked *r) {
    struct task_info t;
    const struct sub *s = &o->subs[r->sub];
    if (!engine_task_get(o->w.engine, r->id, &t)) return; /* so many came after it */
    CHECK(t.finished_at_ms != 0);
    if (t.cancelled || t.expired > 0) return;
    for (uint64_t seq = t.from; seq <= t.to; seq++) {
        const struct fact *fact = &o->facts[seq];
        if (!wanted(s, fact, false) || !fact_matches(fact, r->filter)) continue;
        if (fact->deliver_at_ms != 0) continue; /* its time may not have come */
        CHECK(s->events[seq].delivered[REPLAY] || s->events[seq].died[REPLAY]);
    }
}

void oracle_check_end(struct oracle *o) {
    struct engine *e = o->w.engine;
    struct engine_stats stats;
    for (int s = 0; s < SUBS; s++) check_sub_end(o, s);
    for (size_t i = 0; i < o->replays_count; i++) check_replay_end(o, &o->replays[i]);
    engine_stats(e, &stats);
    CHECK(stats.tasks_running == 0 && stats.last_seq == o->last_seq);
    CHECK(e->swept_count == 0 && e->stragglers.len == 0);
    /* Nobody has anything out: retention has left nothing behind. */
    struct store_iter it;
    store_seek(o->w.store, STORE_JOURNAL, slice_of(NULL, 0), &it);
    CHECK(!it.valid || key_read_u64(it.key, 0) > e->trimmed_to);
    store_iter_end(o->w.store, &it);
    oracle_check_rows(o);
}
