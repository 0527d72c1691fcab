/* What the open engine hands out, and what comes of it: windows, leases, fails, keys and rates,
 * seen in each turn as it ends and before it is durable. */
#include <stdlib.h>

#include "tests/sim/oracle.h"

struct issues *issues_by_id(struct oracle *o, uint32_t id) {
    for (int i = 0; i < SUBS; i++) {
        if (o->issues[i].id == id) return &o->issues[i];
    }
    return NULL;
}

/* Those of the subscription that has the slot now. */
static struct issues *issues_of(struct oracle *o, int slot, const struct subscription *s) {
    struct issues *is = &o->issues[slot];
    if (is->id == s->id) return is;
    if (o->forgotten_id[slot] == 0) o->forgotten_id[slot] = is->id;
    memset(is, 0, sizeof *is);
    is->id = s->id;
    return is;
}

static struct engine_totals *counts_of(struct oracle *o, const struct worker *w) {
    return &o->counts[o->slots[w->sub].project];
}

static struct attachment *attachment_now(const struct oracle *o, const struct worker *w) {
    return map_get(&o->w.engine->attachments, (uint64_t)(w - o->workers));
}

struct hand_out *worker_tag(struct worker *w, uint64_t tag) {
    if (tag >= w->cap) {
        size_t cap = w->cap == 0 ? 64 : w->cap;
        while (cap <= tag) cap *= 2;
        w->tags = mem_realloc(w->tags, cap * sizeof *w->tags);
        memset(w->tags + w->cap, 0, (cap - w->cap) * sizeof *w->tags);
        w->cap = cap;
    }
    if (tag >= w->next_tag) w->next_tag = tag + 1;
    return &w->tags[tag];
}

/* ---- what a worker has ---- */

static void open_tag(struct worker *w, struct hand_out *h, uint32_t bytes) {
    h->open = h->live = true;
    h->bytes = bytes;
    w->open_count++;
    w->open_bytes += bytes;
}

static void close_tag(struct worker *w, struct hand_out *h) {
    CHECK(h->open && w->open_count > 0);
    h->open = h->live = false;
    w->open_count--;
    w->open_bytes -= h->bytes;
    while (w->first_open < w->next_tag && !w->tags[w->first_open].open) w->first_open++;
}

/* From now on, but no longer than max_hold allows. */
static void lease_for(const struct oracle *o, const struct policy *p, struct hand_out *h,
                      uint64_t lease_ms) {
    uint64_t now_ms = o->w.time.now_ms, last_ms = h->since_ms + p->max_hold_ms;
    h->ends_ms = now_ms + lease_ms < last_ms ? now_ms + lease_ms : last_ms;
}

/* One of the oldest `concurrency` that are open: only these can fail by themselves. */
static bool started(const struct worker *w, uint64_t tag) {
    if (w->concurrency == 0) return true;
    uint32_t before = 0;
    for (uint64_t t = w->first_open; t < tag && before < w->concurrency; t++) {
        before += w->tags[t].open;
    }
    return before < w->concurrency;
}

static struct issue *issue_of(struct issues *is, const struct hand_out *h) {
    return &is->events[h->seq][h->replay ? REPLAY : LIVE];
}

/* The hand-out ended without a fail. */
static void not_failed(struct oracle *o, const struct worker *w, const struct hand_out *h) {
    struct issues *is = issues_by_id(o, w->sub_id);
    if (is == NULL || is->blind) return;
    struct issue *i = issue_of(is, h);
    CHECK(i->fails_max > 0);
    i->fails_max--;
}

void issue_worker_ended(struct oracle *o, struct worker *w, enum detach_kind how) {
    uint32_t open = 0;
    for (uint64_t tag = w->first_open; tag < w->next_tag; tag++) {
        struct hand_out *h = &w->tags[tag];
        if (!h->open) continue;
        bool fails = how == DETACH_LOST && (w->concurrency == 0 || open < w->concurrency);
        open++;
        if (h->live && !fails) not_failed(o, w, h);
        h->open = h->live = false;
    }
    w->open_count = w->open_bytes = 0;
    w->first_open = w->next_tag;
    w->attached = w->kept = false;
}

/* ---- turns ---- */

/* Hand-outs since a moment: never more than the rate allows, and a burst. */
static void check_rate(struct oracle *o, struct issues *is, uint32_t per_s) {
    if (is->rate_per_s != per_s) {
        is->rate_per_s = per_s;
        is->rate_since_ms = o->w.time.now_ms;
        is->rate_count = 0;
    }
    uint64_t ms = o->w.time.now_ms - is->rate_since_ms + RATE_BURST_MS;
    is->rate_count++;
    CHECK(per_s == 0 || is->rate_count <= ms * per_s / 1000 + 2);
}

static bool still_has(const struct oracle *o, uint16_t worker, uint64_t tag) {
    if (worker == 0) return false;
    const struct worker *w = &o->workers[worker];
    return w->attached && w->tags[tag].live && attachment_now(o, w) != NULL;
}

static int key_now(const struct policy *p, const struct event *event) {
    if (!p->ordered) return 0;
    for (int i = 1; i < KEYS; i++) {
        char text[24] = "{\"g\":\"";
        size_t at = strlen(text), len = strlen(fact_groups[i]);
        memcpy(text + at, fact_groups[i], len);
        memcpy(text + at + len, "\"", 2);
        if (p->order_key.len == 0 ? slice_eq_str(event->subject, fact_subjects[i])
                                  : slice_starts_with(event->metadata, text)) {
            return i;
        }
    }
    return 0;
}

/* One lease per key, whatever it came from. */
static void take_key(struct oracle *o, struct issues *is, const struct policy *p,
                     const struct event *event, const struct worker *w, uint64_t tag) {
    int key = key_now(p, event);
    if (key == 0) return;
    CHECK(!still_has(o, is->key_worker[key], is->key_tag[key]));
    is->key_worker[key] = (uint16_t)(w - o->workers);
    is->key_tag[key] = (uint32_t)tag;
}

/* What is handed out is not too old, but when an operator asked for it again. */
static void check_age(const struct oracle *o, const struct subscription *s,
                      const struct effect *f) {
    const struct event *event = &f->u.deliver.event;
    uint64_t since_ms = event->received_at_ms, wall_ms = o->w.time.wall_ms;
    if (f->u.deliver.replay || f->u.deliver.redrive || s->policy.max_age_ms == 0) return;
    if (event->deliver_at_ms > since_ms) since_ms = event->deliver_at_ms;
    if (s->aged_from_ms > since_ms) since_ms = s->aged_from_ms;
    CHECK(wall_ms <= since_ms + s->policy.max_age_ms);
}

static void handed_out(struct oracle *o, const struct effect *f) {
    const struct event *event = &f->u.deliver.event;
    uint32_t fails = f->u.deliver.fails, deliveries = f->u.deliver.deliveries;
    struct worker *w = oracle_worker(o, f->u.deliver.attachment);
    const struct attachment *at = attachment_now(o, w);
    CHECK(at != NULL && w->attached && !w->kept && !w->hold && !at->sub->paused);
    CHECK(w->open_count < w->window_events && w->open_bytes < w->window_bytes);
    CHECK(f->u.deliver.tag == w->next_tag && event->seq < EVENTS_MAX);
    CHECK(event->project == project_ids[o->slots[w->sub].project]);
    check_age(o, at->sub, f);
    enum copy copy = f->u.deliver.replay ? REPLAY : LIVE;
    struct issues *is = issues_of(o, w->sub, at->sub);
    struct issue *i = &is->events[event->seq][copy];
    CHECK(deliveries > fails && (fails <= i->fails_max || is->blind));
    bool alone = copy == LIVE ? is->seeks == 0 : is->replays <= 1;
    if (alone && !is->blind) { /* there is one copy */
        CHECK(i->settled_life != o->life);
        CHECK(fails >= i->fails_durable);
        CHECK(!still_has(o, i->worker, i->tag));
        if (i->life == o->life && !f->u.deliver.redrive) {
            CHECK(fails >= i->fails && deliveries > i->deliveries);
        }
    }
    take_key(o, is, &at->sub->policy, event, w, f->u.deliver.tag);
    check_rate(o, is, at->sub->policy.rate_per_s);
    struct hand_out *h = worker_tag(w, f->u.deliver.tag);
    *h = (struct hand_out){
        .seq = event->seq, .replay = f->u.deliver.replay, .redrive = f->u.deliver.redrive};
    h->since_ms = o->w.time.now_ms;
    lease_for(o, &at->sub->policy, h, f->u.deliver.lease_ms);
    open_tag(w, h, (uint32_t)event->body.len);
    i->fails_max++;
    i->fails = (uint16_t)fails;
    i->deliveries = (uint16_t)deliveries;
    i->life = o->life;
    i->worker = (uint16_t)(w - o->workers);
    i->tag = (uint32_t)f->u.deliver.tag;
    counts_of(o, w)->delivered++;
}

static void revoked(struct oracle *o, const struct effect *f) {
    struct worker *w = oracle_worker(o, f->u.revoked.attachment);
    uint64_t tag = f->u.revoked.tag;
    CHECK(tag < w->next_tag);
    struct hand_out *h = &w->tags[tag];
    if (strcmp(f->u.revoked.reason, "lost") == 0) return; /* a claim that was not granted */
    if (strcmp(f->u.revoked.reason, "seek") == 0) {
        CHECK(!h->live);
        return;
    }
    CHECK(h->live && o->w.time.now_ms >= h->ends_ms);
    counts_of(o, w)->expired++;
    if (!started(w, tag)) not_failed(o, w, h);
    h->live = false;
}

static void lease_soon(struct oracle *o, const struct effect *f) {
    const struct worker *w = oracle_worker(o, f->u.lease_soon.attachment);
    const struct hand_out *h = &w->tags[f->u.lease_soon.tag];
    CHECK(f->u.lease_soon.tag < w->next_tag && h->live);
    CHECK(o->w.time.now_ms + f->u.lease_soon.remaining_ms == h->ends_ms);
}

static void published(struct oracle *o, const struct effect *f) {
    struct engine_totals *counts = &o->counts[o->asked[f->route.rid % ASKED_MAX].project];
    if (f->err != ERR_OK) return;
    for (size_t i = 0; i < f->u.published.count; i++) {
        if (f->u.published.results[i].duplicate) counts->duplicates++;
        else counts->published++;
    }
}

static struct engine_turn *end_turn(struct oracle *o) {
    struct engine *e = o->w.engine;
    o->room = store_room(o->w.store) == STORE_ROOM_OK;
    engine_set_room(e, o->room);
    struct engine_turn *turn = engine_end_turn(e, o->w.time);
    o->engine_steps++;
    o->turns++;
    job_turn(o, turn);
    if (turn == NULL) return NULL;
    for (size_t i = 0; i < turn->effects_count; i++) {
        const struct effect *f = &turn->effects[i];
        switch (f->kind) {
        case EFFECT_DELIVER: handed_out(o, f); break;
        case EFFECT_REVOKED: revoked(o, f); break;
        case EFFECT_PUBLISHED: published(o, f); break;
        case EFFECT_LEASE_SOON: lease_soon(o, f); break;
        case EFFECT_ENDED:
            issue_worker_ended(o, oracle_worker(o, f->u.ended.attachment), DETACH_LOST);
            break;
        default: break;
        }
    }
    return turn;
}

void oracle_turn(struct oracle *o) {
    struct engine_turn *turn = end_turn(o);
    if (turn != NULL) {
        int err = store_submit(o->w.store, &turn->batch);
        CHECK(err == 0);
    }
    if (o->check_one_in != 0 && o->turns % o->check_one_in == 0) engine_check(o->w.engine);
    store_end_reads(o->w.store);
}

void oracle_refuse(struct oracle *o, bool there) {
    struct engine_turn *turn = end_turn(o);
    if (turn == NULL) {
        oracle_crash(o, 0, 0);
        return;
    }
    if (!there) memory_store_fail_submit(o->w.store, 1);
    int err = store_submit(o->w.store, &turn->batch);
    CHECK((err != 0) == !there);
    store_end_reads(o->w.store);
    oracle_crash(o, there ? SIZE_MAX : 0, 0);
}

/* ---- what is asked ---- */

void oracle_publish(struct oracle *o, struct command *c, struct asked *a) {
    if (!o->room) a->err = ERR_NO_ROOM;
    else if (o->w.engine->blocked_by[0] != 0) a->err = ERR_BLOCKED;
    for (size_t i = 0; i < a->count && a->err == ERR_OK; i++) {
        bool far = a->facts[i].deliver_at_ms > o->w.time.wall_ms + LIMIT_DELIVER_LATER_MS;
        if (far) a->err = ERR_INVALID_REQUEST;
    }
    if (a->err != ERR_OK) o->counts[a->project].refused += a->count;
    oracle_step(o, c);
    if (a->err == ERR_OK) job_published(o, a);
}

static enum err settle_err(const struct worker *w, const struct command *c) {
    uint64_t lease_ms = c->u.settle.lease_ms, delay_ms = c->u.settle.delay_ms;
    if (c->kind == COMMAND_EXTEND && lease_ms != 0 && lease_ms < LIMIT_LEASE_MS_MIN) {
        return ERR_INVALID_REQUEST;
    }
    if (c->kind == COMMAND_NACK && delay_ms != DELAY_BY_POLICY && delay_ms > LIMIT_BACKOFF_MS_MAX) {
        return ERR_INVALID_REQUEST;
    }
    for (size_t i = 0; i < c->u.settle.count; i++) {
        struct tag_range r = c->u.settle.ranges[i];
        if (r.lo > r.hi) return ERR_INVALID_REQUEST;
        if (r.lo == 0 || r.hi >= w->next_tag) return ERR_UNKNOWN_TAG;
    }
    return ERR_OK;
}

enum outcome { OUTCOME_OK, OUTCOME_ALREADY, OUTCOME_STALE };

static enum outcome settle_tag(struct oracle *o, struct worker *w, const struct attachment *at,
                               const struct command *c, uint64_t tag) {
    struct hand_out *h = &w->tags[tag];
    if (!h->open) return OUTCOME_ALREADY;
    const struct lease *l = map_get(&at->by_tag, tag);
    CHECK(l != NULL);
    const struct delivery *d = l->delivery;
    CHECK(d == NULL || (d->seq == h->seq && l->expired == !h->live));
    bool expired = l->expired;
    if (c->kind == COMMAND_EXTEND) {
        if (d == NULL || expired) return OUTCOME_STALE;
        uint64_t lease_ms = c->u.settle.lease_ms;
        lease_for(o, &at->sub->policy, h, lease_ms != 0 ? lease_ms : attachment_lease_ms(at));
        return OUTCOME_OK;
    }
    struct issue *i = issue_of(&o->issues[w->sub], h);
    int sub = sub_by_id(o, at->sub->id);
    close_tag(w, h);
    if (d == NULL) return OUTCOME_STALE;
    if (c->kind == COMMAND_ACK) {
        i->settled_life = o->life;
        i->settled_seeks = (uint16_t)o->issues[w->sub].seeks;
        counts_of(o, w)->acked++;
        if (sub >= 0) o->subs[sub].events[h->seq].acked[h->replay ? REPLAY : LIVE] = true;
        return OUTCOME_OK;
    }
    counts_of(o, w)->nacked++;
    if (c->u.settle.kind == NACK_REJECT) return OUTCOME_OK;
    if (expired) return OUTCOME_STALE;
    if (c->u.settle.kind != NACK_FAIL) not_failed(o, w, h);
    return OUTCOME_OK;
}

void oracle_settle(struct oracle *o, struct command *c) {
    struct worker *w = oracle_worker(o, c->u.settle.attachment);
    const struct attachment *at = attachment_now(o, w);
    struct asked *a = oracle_ask(o, c, w->sub);
    a->err = at == NULL ? ERR_NOT_FOUND : settle_err(w, c);
    for (size_t i = 0; i < c->u.settle.count && a->err == ERR_OK; i++) {
        struct tag_range r = c->u.settle.ranges[i];
        for (uint64_t tag = r.lo; tag <= r.hi; tag++) {
            a->outcomes[settle_tag(o, w, at, c, tag)]++;
        }
    }
    a->waits = c->u.settle.confirm || a->err != ERR_OK;
    o->waiting += a->waits;
    oracle_step(o, c);
    CHECK(at == NULL || at->by_tag.len == w->open_count);
}

void oracle_detach(struct oracle *o, struct command *c) {
    struct worker *w = oracle_worker(o, c->u.detach.attachment);
    enum detach_kind how = c->u.detach.how;
    bool there = attachment_now(o, w) != NULL;
    oracle_ask(o, c, w->sub);
    if (there && how == DETACH_KEEP && w->open_count > 0) w->kept = true;
    else if (there) issue_worker_ended(o, w, how == DETACH_KEEP ? DETACH_RELEASE : how);
    oracle_step(o, c);
    CHECK((attachment_now(o, w) != NULL) == (there && w->kept));
}

/* ---- coming and going ---- */

void issue_attached(struct oracle *o, struct worker *w, const struct command *c,
                    const struct attachment *at) {
    w->attached = at != NULL;
    if (at == NULL) return;
    w->sub_id = at->sub->id;
    issues_of(o, w->sub, at->sub);
    w->window_events = c->u.attach.window_events;
    w->window_bytes = c->u.attach.window_bytes;
    w->concurrency = c->u.attach.concurrency;
}

void issue_granted(struct oracle *o, struct worker *w, const struct lease *l, struct worker *old,
                   uint64_t old_tag) {
    struct hand_out *h = &w->tags[l->tag];
    struct issues *is = &o->issues[w->sub];
    struct issue *i = issue_of(is, h);
    struct event event;
    if (old != NULL) {
        not_failed(o, old, &old->tags[old_tag]);
        close_tag(old, &old->tags[old_tag]);
    }
    delivery_event(o->w.engine, l->delivery, &event, NULL);
    take_key(o, is, &l->attachment->sub->policy, &event, w, l->tag);
    open_tag(w, h, (uint32_t)l->bytes);
    h->redrive = l->delivery->redrive;
    h->since_ms = l->since_ms;
    h->ends_ms = l->expires_ms;
    i->fails_max++;
    i->worker = (uint16_t)(w - o->workers);
    i->tag = (uint32_t)l->tag;
}

/* What was out of the live cursor is forgotten at once: the workers are told when the turn ends. */
static void forget_sought(struct oracle *o, uint32_t sub_id) {
    for (uint64_t id = 1; id <= o->last_worker; id++) {
        struct worker *w = &o->workers[id];
        const struct attachment *at = attachment_now(o, w);
        if (at == NULL || w->sub_id != sub_id) continue;
        for (uint64_t tag = w->first_open; tag < w->next_tag; tag++) {
            struct hand_out *h = &w->tags[tag];
            if (!h->live) continue;
            const struct lease *l = map_get(&at->by_tag, tag);
            CHECK(l != NULL);
            if (l->delivery != NULL) continue;
            not_failed(o, w, h);
            h->live = false;
        }
    }
}

void oracle_seek(struct oracle *o, struct command *c, struct asked *a) {
    struct subscription *s = oracle_sub(o, a->sub);
    if (s != NULL) a->seeks = ++issues_of(o, a->sub, s)->seeks;
    oracle_step(o, c);
    if (s != NULL) forget_sought(o, s->id);
}

bool issue_acked(struct oracle *o, uint32_t sub_id, uint64_t seq, enum copy copy, uint32_t seeks) {
    const struct issues *is = issues_by_id(o, sub_id);
    if (is == NULL) return false;
    const struct issue *i = &is->events[seq][copy];
    return i->settled_life == o->life && i->settled_seeks >= seeks;
}

void issue_replay(struct oracle *o, int sub) {
    const struct subscription *s = oracle_sub(o, sub);
    if (s != NULL) issues_of(o, sub, s)->replays++;
}

void issue_crash(struct oracle *o) {
    for (uint64_t id = 1; id <= o->last_worker; id++) {
        struct worker *w = &o->workers[id];
        if (!w->attached) continue;
        /* One that ended by itself was lost, and its fails are counted. */
        bool lost = attachment_now(o, w) == NULL;
        issue_worker_ended(o, w, lost ? DETACH_LOST : DETACH_RELEASE);
    }
    for (int i = 0; i < SUBS; i++) {
        struct issues *is = &o->issues[i];
        o->forgotten_id[i] = 0;
        is->rate_per_s = UINT32_MAX; /* the broker starts it anew */
        if (o->subs[i].exists && o->subs[i].id == is->id) continue;
        *is = (struct issues){.id = o->subs[i].exists ? o->subs[i].id : 0, .blind = true};
    }
}
