#include "tests/sim/oracle.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/rfc3339.h"

#define DAY_MS (24 * 3600 * 1000)

const char *const fact_types[FACT_TYPES] = {
    "a.x", "a.y", "b.x", "a.failed", "b.requires_action", "job.overdue"};
const char *const fact_subjects[KEYS] = {"", "k1", "k2", "k3"};
const char *const fact_groups[KEYS] = {NULL, "hi", "lo", "mid"};
const char *const fact_endpoints[3] = {"", "https://a.example/",
                                       "https://a.example/\nhttps://b.example/h"};
const char *const sub_names[SUBS] = {"s0", "s1", "s2", "s3"};
const uint32_t project_ids[PROJECTS] = {PROJECT_DEFAULT, 2, UINT32_MAX};

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
    "{\"endpoint\":1}",
    "{\"types\":[\"a.*\"],\"not\":{\"endpoint\":0}}",
};

bool fact_matches(const struct fact *f, int filter) {
    switch (filter) {
    case 0: return true;
    case 1: return fact_types[f->type][0] == 'a';
    case 2: return f->type == 2;
    case 3: return f->group == 1;
    case 4: return f->n == 1 || f->n == 2;
    case 5: return fact_types[f->type][0] == 'b' || f->group == 0;
    case 6: return f->subject != 1;
    case 7: return f->group != 2;
    case 8: return f->endpoints >= 2;
    default: return fact_types[f->type][0] == 'a' && f->endpoints == 0;
    }
}

bool fact_wanted(const struct sub *s, const struct fact *f, bool any) {
    if (f->project != s->project) return false;
    for (int i = 0; i < FILTERS; i++) {
        if ((s->filters_used >> i & 1) == 0) continue;
        if (fact_matches(f, i) == any) return any;
    }
    return !any;
}

/* Without printf: it is made for every delivery. */
static size_t put_number(char *out, uint64_t n) {
    char digits[20];
    size_t count = 0, at = 0;
    do digits[count++] = (char)('0' + n % 10);
    while ((n /= 10) != 0);
    while (count > 0) out[at++] = digits[--count];
    return at;
}

static size_t put_text(char *out, const char *text) {
    size_t len = strlen(text);
    memcpy(out, text, len);
    return len;
}

static struct event overdue_event(const struct fact *f, struct fact_texts *t) {
    char registered[RFC3339_SIZE];
    rfc3339_format(f->registered_ms, registered);
    snprintf(t->body, sizeof t->body, "{\"id\":\"%s\",\"ttl_ms\":%llu,\"registered_at\":\"%s\"}",
             fact_subjects[f->subject], (unsigned long long)f->ttl_ms, registered);
    return (struct event){.type = slice_str(fact_types[f->type]),
                          .subject = slice_str(fact_subjects[f->subject]),
                          .body = slice_str(t->body)};
}

static struct event plain_event(const struct fact *f, struct fact_texts *t) {
    size_t id_len = 0, body_len = put_number(t->body, f->mark);
    if (f->id >= 0) {
        id_len = put_text(t->id, "id");
        id_len += put_number(t->id + id_len, (uint64_t)f->id);
    }
    t->body[body_len++] = '.';
    memset(t->body + body_len, 'x', f->pad);
    return (struct event){.type = slice_str(fact_types[f->type]),
                          .subject = slice_str(fact_subjects[f->subject]),
                          .id = slice_of(t->id, id_len),
                          .body = slice_of(t->body, body_len + f->pad),
                          .deliver_at_ms = f->deliver_at_ms};
}

static struct slice fact_metadata(const struct fact *f, struct fact_texts *t) {
    size_t metadata_len;
    if (f->bare && !f->lent_metadata) return slice_of(NULL, 0);
    if (f->group != 0) {
        metadata_len = put_text(t->metadata, "{\"g\":\"");
        metadata_len += put_text(t->metadata + metadata_len, fact_groups[f->group]);
        metadata_len += put_text(t->metadata + metadata_len, "\",\"n\":");
    } else {
        metadata_len = put_text(t->metadata, "{\"n\":");
    }
    metadata_len += put_number(t->metadata + metadata_len, f->n);
    metadata_len += put_text(t->metadata + metadata_len, "}");
    return slice_of(t->metadata, metadata_len);
}

struct event fact_event(const struct fact *f, struct fact_texts *t) {
    struct event event = f->type == FACT_OVERDUE ? overdue_event(f, t) : plain_event(f, t);
    event.metadata = fact_metadata(f, t);
    event.endpoints = slice_str(fact_endpoints[f->endpoints]);
    return event;
}

static int key_of(const struct sub *s, const struct fact *f) {
    if (s->order == ORDER_NONE) return 0;
    return s->order == ORDER_SUBJECT ? f->subject : f->group;
}

int sub_by_id(const struct oracle *o, uint32_t id) {
    for (int i = 0; i < SUBS; i++) {
        if (o->subs[i].exists && o->subs[i].id == id) return i;
    }
    return -1;
}

int project_place(uint32_t id) {
    for (int i = 0; i < PROJECTS; i++) {
        if (project_ids[i] == id) return i;
    }
    return -1;
}

/* Not by subscription_find, which is on trial too. */
struct subscription *oracle_find(const struct oracle *o, uint32_t project, const char *name) {
    const struct engine *e = o->w.engine;
    for (size_t i = 0; i < e->subs_count; i++) {
        struct subscription *s = e->subs[i];
        if (s->project->id == project && strcmp(s->name, name) == 0) return s;
    }
    return NULL;
}

struct subscription *oracle_sub(const struct oracle *o, int slot) {
    return oracle_find(o, project_ids[o->slots[slot].project], o->slots[slot].name);
}

struct worker *oracle_worker(struct oracle *o, uint64_t id) {
    CHECK(id >= 1 && id <= o->last_worker);
    return &o->workers[id];
}

/* ---- asking ---- */

struct command oracle_command(const struct oracle *o, enum command_kind kind, int sub) {
    return (struct command){.kind = kind, .project = project_ids[o->slots[sub].project]};
}

struct asked *oracle_ask(struct oracle *o, struct command *c, int sub) {
    c->route.rid = ++o->last_rid;
    struct asked *a = &o->asked[o->last_rid % ASKED_MAX];
    CHECK(!a->waits);
    bool settles = c->kind == COMMAND_ACK || c->kind == COMMAND_NACK || c->kind == COMMAND_EXTEND;
    bool answered = !settles && c->kind != COMMAND_WINDOW && c->kind != COMMAND_HOLD &&
                    c->kind != COMMAND_DETACH;
    *a = (struct asked){
        .waits = answered, .kind = c->kind, .project = project_place(c->project), .sub = sub};
    o->waiting += answered;
    return a;
}

void oracle_step(struct oracle *o, const struct command *c) {
    o->engine_steps++;
    world_step(&o->w, c);
}

static struct asked *answered(struct oracle *o, const struct effect *f) {
    struct asked *a = &o->asked[f->route.rid % ASKED_MAX];
    CHECK(a->waits);
    a->waits = false;
    o->waiting--;
    return a;
}

void oracle_time(struct oracle *o, uint64_t ms, int64_t step_ms) {
    o->w.time.now_ms += ms;
    o->w.time.wall_ms += ms + (uint64_t)step_ms;
    o->wall_reached += ms;
    if (o->w.time.wall_ms > o->wall_reached) o->wall_reached = o->w.time.wall_ms;
}

/* ---- answers ---- */

/* The producer does not know: it may send them again. */
static void to_limbo(struct oracle *o, const struct asked *a) {
    for (size_t i = 0; i < a->count; i++) {
        size_t at = o->limbo_count < LIMBO_MAX ? o->limbo_count++ : a->facts[i].mark % LIMBO_MAX;
        o->limbo[at] = a->facts[i];
        o->lost++;
    }
}

static void on_journaled(struct oracle *o, uint64_t seq, const struct fact *fact) {
    CHECK(seq == o->last_seq + 1 && seq < EVENTS_MAX); /* no gap, never twice */
    o->last_seq = seq;
    o->facts[seq] = *fact;
    for (int s = 0; s < SUBS; s++) {
        o->subs[s].events[seq].copies[LIVE] = o->subs[s].project == fact->project;
    }
}

static void on_published(struct oracle *o, const struct effect *f, bool arrives) {
    struct asked *a = answered(o, f);
    CHECK(f->err == a->err);
    if (!arrives || a->lost) to_limbo(o, a);
    if (f->err != ERR_OK) return;
    CHECK(f->u.published.count == a->count);
    for (size_t i = 0; i < a->count; i++) {
        struct publish_result r = f->u.published.results[i];
        struct fact *fact = &a->facts[i];
        uint64_t *ids = o->seq_of_id[fact->project];
        uint64_t known = fact->id < 0 ? 0 : ids[fact->id];
        CHECK(!r.duplicate || (known != 0 && r.seq == known));
        if (r.duplicate) continue;
        /* Never journaled again, but when the journal or a day have forgotten it. */
        CHECK(known == 0 || o->trims || o->wall_reached - o->facts[known].published_ms >= DAY_MS);
        if (fact->id >= 0) ids[fact->id] = r.seq;
        on_journaled(o, r.seq, fact);
    }
}

static bool of_project(const struct oracle *o, const struct sub *s, uint64_t seq) {
    return o->facts[seq].project == s->project;
}

static void on_created(struct oracle *o, const struct asked *a) {
    struct sub *s = &o->subs[a->sub];
    CHECK(!s->exists);
    memset(s, 0, sizeof *s);
    s->project = (uint8_t)o->slots[a->sub].project;
    s->exists = true;
    s->id = a->id;
    s->filters_used = 1u << a->filter;
    s->lag_expire_used = a->expire;
    s->max_fails_least = a->max_fails;
    s->max_age_least_ms = a->max_age_ms;
    s->order = a->order;
    for (uint64_t seq = 1; seq < a->seq; seq++) s->events[seq].excused = true;
    for (uint64_t seq = a->seq; seq <= o->last_seq; seq++) {
        s->events[seq].copies[LIVE] = of_project(o, s, seq);
    }
    /* The engine has gone on meanwhile. */
    uint32_t forgotten = o->forgotten_id[a->sub];
    s->blind = forgotten != 0 && s->id >= forgotten && issues_by_id(o, s->id) == NULL;
    for (uint64_t seq = 1; seq <= o->w.engine->last_seq; seq++) {
        s->events[seq].acked[LIVE] = issue_acked(o, s->id, seq, LIVE, 0);
        s->events[seq].acked[REPLAY] = issue_acked(o, s->id, seq, REPLAY, 0);
    }
}

static void on_updated(struct oracle *o, const struct asked *a) {
    struct sub *s = &o->subs[a->sub];
    if ((s->filters_used & 1u << a->filter) == 0) s->inexact = true;
    s->filters_used |= 1u << a->filter;
    s->lag_expire_used |= a->expire;
    bool lower = s->max_fails_least == 0 || a->max_fails < s->max_fails_least;
    if (a->max_fails != 0 && lower) s->max_fails_least = a->max_fails;
    bool younger = s->max_age_least_ms == 0 || a->max_age_ms < s->max_age_least_ms;
    if (a->max_age_ms != 0 && younger) s->max_age_least_ms = a->max_age_ms;
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
        k->copies[LIVE] += of_project(o, s, seq);
        k->delivered[LIVE] = false;
        k->acked[LIVE] = issue_acked(o, s->id, seq, LIVE, a->seeks);
    }
}

static void on_paused(struct oracle *o, const struct asked *a) {
    struct sub *s = &o->subs[a->sub];
    if (s->paused && !a->flag && a->wall_ms != 0) s->aged_from_ms = a->wall_ms;
    s->paused = a->flag;
}

static bool check_since(void *ctx, const struct dead_letter *d) {
    CHECK(d->event.received_at_ms >= *(const uint64_t *)ctx);
    return true;
}

/* It is its own project's, and there for nobody else. */
static struct task_info find_task(struct oracle *o, const struct asked *a, uint32_t id) {
    struct task_info t, out = {.id = 0};
    for (int i = 0; i < PROJECTS; i++) {
        bool found = engine_task_get(o->w.engine, project_ids[i], id, &t);
        CHECK(found == (i == a->project));
        if (found) out = t;
    }
    CHECK(out.kind == a->task); /* its subscription may be deleted already */
    CHECK(out.subscription.len == 0 || slice_eq_str(out.subscription, o->slots[a->sub].name));
    return out;
}

static void on_task(struct oracle *o, const struct asked *a, uint64_t id) {
    struct sub *s = &o->subs[a->sub];
    struct task_info t = find_task(o, a, (uint32_t)id);
    if (a->wall_ms != 0 && (t.kind == TASK_REDRIVE || t.kind == TASK_PURGE)) {
        uint64_t since_ms = a->wall_ms;
        engine_dead_scan(o->w.engine, project_ids[a->project], t.subscription, t.from - 1,
                         UINT32_MAX, check_since, &since_ms);
    }
    if (t.kind != TASK_REPLAY) return;
    CHECK(t.from >= 1 && t.from <= t.to && t.to <= o->last_seq);
    for (uint64_t seq = t.from; seq <= t.to; seq++) {
        s->events[seq].copies[REPLAY] += of_project(o, s, seq);
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
    CHECK(!a->err_known || f->err == a->err);
    if (a->kind == COMMAND_JOB_PUT) CHECK(f->u.done.created == (f->err == ERR_OK && a->flag));
    if (f->err != ERR_OK) return;
    switch (a->kind) {
    case COMMAND_SUBSCRIPTION_CREATE:
        if (f->u.done.created) on_created(o, a);
        break;
    case COMMAND_SUBSCRIPTION_UPDATE: on_updated(o, a); break;
    case COMMAND_SUBSCRIPTION_PAUSE: on_paused(o, a); break;
    case COMMAND_SUBSCRIPTION_SEEK: on_sought(o, a); break;
    case COMMAND_SUBSCRIPTION_DELETE: on_deleted(o, a); break;
    case COMMAND_TASK_CREATE: on_task(o, a, f->u.done.id); break;
    case COMMAND_CONFIG_PUT: o->config = a->seq; break;
    case COMMAND_CONFIG_DELETE: o->config = 0; break;
    default: break;
    }
}

static uint64_t tags_of(const struct tag_range *r, size_t count) {
    uint64_t n = 0;
    for (size_t i = 0; i < count; i++) n += r[i].hi - r[i].lo + 1;
    return n;
}

static void on_settled(struct oracle *o, const struct effect *f) {
    struct worker *w = oracle_worker(o, f->u.settled.attachment);
    const struct asked *a = answered(o, f);
    struct sub *s = &o->subs[w->sub];
    CHECK(f->err == a->err);
    if (f->err != ERR_OK) return;
    CHECK(tags_of(f->u.settled.ok, f->u.settled.ok_count) == a->outcomes[0]);
    CHECK(tags_of(f->u.settled.already, f->u.settled.already_count) == a->outcomes[1]);
    CHECK(tags_of(f->u.settled.stale, f->u.settled.stale_count) == a->outcomes[2]);
    if (a->kind != COMMAND_ACK || !s->exists) return;
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
            if (copy == LIVE && !h->redrive && h->seq > s->confirmed_highest[key]) {
                s->confirmed_highest[key] = h->seq;
            }
        }
    }
}

static void check_event(const struct oracle *o, const struct event *event) {
    struct fact_texts t;
    CHECK(event->seq >= 1 && event->seq <= o->last_seq); /* published, and durable before */
    struct event was = fact_event(&o->facts[event->seq], &t);
    CHECK(event->project == project_ids[o->facts[event->seq].project]);
    CHECK(slice_eq(event->body, was.body) && slice_eq(event->metadata, was.metadata));
    CHECK(slice_eq(event->type, was.type) && slice_eq(event->subject, was.subject));
    CHECK(slice_eq(event->id, was.id) && slice_eq(event->endpoints, was.endpoints));
    CHECK(event->deliver_at_ms == 0 || event->deliver_at_ms == was.deliver_at_ms);
}

static void on_deliver(struct oracle *o, const struct effect *f, bool arrives) {
    const struct event *event = &f->u.deliver.event;
    struct worker *w = oracle_worker(o, f->u.deliver.attachment);
    struct sub *s = &o->subs[w->sub];
    enum copy copy = f->u.deliver.replay ? REPLAY : LIVE;
    check_event(o, event);
    const struct fact *fact = &o->facts[event->seq];
    struct knowledge *k = &s->events[event->seq];
    CHECK(s->exists && !s->paused);
    CHECK(fact->project == s->project); /* nothing crosses */
    CHECK(fact_wanted(s, fact, true));
    CHECK(fact->deliver_at_ms <= o->wall_reached);
    CHECK(k->confirmed[copy] < k->copies[copy]);
    CHECK(!k->dead[copy] || k->copies[copy] > 1); /* a redrive takes the letter first */
    if (arrives) {
        k->delivered[copy] = true;
        o->deliveries++;
        if (w->tags[f->u.deliver.tag].held == HELD_NOT) w->tags[f->u.deliver.tag].held = HELD;
    }
    int key = key_of(s, fact);
    if (key == 0 || copy == REPLAY || f->u.deliver.redrive || s->order_changed) return;
    CHECK(event->seq >= s->highest[key]);
    s->highest[key] = event->seq;
}

/* It may have been made by this very ATTACH. */
static void on_attached(struct oracle *o, const struct effect *f, bool arrives) {
    struct asked *a = answered(o, f);
    struct worker *w = oracle_worker(o, f->u.attached.attachment);
    CHECK(f->err == a->err);
    CHECK(f->err != ERR_OK || f->u.attached.resumed == a->granted);
    if (f->err == ERR_OK && f->u.attached.created) on_created(o, a);
    if (!arrives) return;
    if (f->err != ERR_OK) w->state = WORKER_GONE;
    if (w->state == WORKER_COMING) w->state = WORKER_ACTIVE;
}

static void note(struct oracle *o, const struct effect *f) {
    uint64_t v = (uint64_t)f->kind << 32 | (uint32_t)f->err;
    switch (f->kind) {
    case EFFECT_PUBLISHED:
        if (f->err == ERR_OK) v ^= f->u.published.results[0].seq << 8;
        break;
    case EFFECT_DELIVER:
        v ^= f->u.deliver.tag << 48 ^ f->u.deliver.event.seq << 8 ^ f->u.deliver.attachment << 24;
        break;
    default: break;
    }
    o->digest = map_mix(o->digest ^ v ^ o->w.time.now_ms << 16);
}

/* The trace is printed as it comes: what aborts has said everything. */
static void show(struct world *w, bool arrives) {
    if (w->quiet) return;
    fprintf(stderr, "%s%.*s", arrives ? "" : "(unheard) ", (int)w->log.len,
            (const char *)w->log.data);
    buf_clear(&w->log);
}

static void on_effect(void *ctx, const struct effect *f) {
    struct oracle *o = ctx;
    bool arrives = o->answers_left > 0;
    if (arrives && o->answers_left != UINT64_MAX) o->answers_left--;
    show(&o->w, arrives);
    note(o, f);
    switch (f->kind) {
    case EFFECT_PUBLISHED: on_published(o, f, arrives); break;
    case EFFECT_DONE: on_done(o, f); break;
    case EFFECT_SETTLED: on_settled(o, f); break;
    case EFFECT_DELIVER:
        on_deliver(o, f, arrives && !oracle_worker(o, f->u.deliver.attachment)->deaf);
        break;
    case EFFECT_ATTACHED:
        on_attached(o, f, arrives && !oracle_worker(o, f->u.attached.attachment)->deaf);
        break;
    case EFFECT_REVOKED: {
        struct worker *w = oracle_worker(o, f->u.revoked.attachment);
        CHECK(f->u.revoked.tag < w->next_tag);
        enum held *held = &w->tags[f->u.revoked.tag].held;
        if (arrives && !w->deaf && *held == HELD) *held = HELD_LOST;
        break;
    }
    case EFFECT_ENDED: {
        struct worker *w = oracle_worker(o, f->u.ended.attachment);
        if (arrives && !w->deaf) w->state = WORKER_GONE;
        break;
    }
    case EFFECT_LEASE_SOON: break;
    case EFFECT_JOB: {
        const struct fact *fact = job_effect(o, f);
        if (fact != NULL) on_journaled(o, f->u.job.seq, fact);
        break;
    }
    }
}

/* ---- what was written ---- */

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

/* A dead letter of this age, which was too old or would have been at its next attempt. */
static void check_expired(const struct sub *s, const struct record_dead *r, enum copy copy) {
    uint64_t since_ms = r->event.received_at_ms, at_ms = r->died_at_ms;
    CHECK(copy == LIVE && s->max_age_least_ms != 0);
    if (r->event.deliver_at_ms > since_ms) since_ms = r->event.deliver_at_ms;
    if (s->aged_before_ms > since_ms) since_ms = s->aged_before_ms;
    if (r->fails > 0) at_ms += 2 * LIMIT_BACKOFF_MS_MAX; /* with all of its jitter */
    CHECK(at_ms > since_ms + s->max_age_least_ms);
}

/* Dead letters come and go by what is written: a removed one was redriven, or is nobody's debt. */
static void dead_written(struct oracle *o, const struct batch *batch, const struct batch_op *op) {
    uint64_t seq = key_read_u64(op->key, 4);
    int sub = sub_by_id(o, key_read_u32(op->key, 0));
    struct record_dead r;
    if (op->kind == BATCH_PUT) {
        bool decoded = record_dead_decode(op->value, &r);
        CHECK(decoded && r.event.project == project_ids[o->facts[seq].project]);
        o->counts[o->facts[seq].project].dead++;
    }
    if (sub < 0) return; /* the engine may have deleted it in a turn that is not durable yet */
    struct sub *s = &o->subs[sub];
    struct knowledge *k = &s->events[seq];
    enum copy copy = key_read_u32(op->key, 12) == CURSOR_LIVE ? LIVE : REPLAY;
    k->dead[copy] = op->kind == BATCH_PUT;
    if (op->kind != BATCH_PUT) {
        bool moved = moved_to_due(batch, op->key);
        if (copy == LIVE && !moved) k->excused = true;
        return;
    }
    CHECK(o->facts[seq].project == s->project);
    k->died[copy] = true;
    s->inexact = true; /* the dead may be purged, and come to nothing */
    struct fact_texts t;
    struct event was = fact_event(&o->facts[seq], &t);
    CHECK(slice_eq(r.event.body, was.body) && r.event.seq == seq);
    CHECK(slice_eq(r.event.endpoints, was.endpoints));
    if (slice_eq_str(r.reason, "expired")) check_expired(s, &r, copy);
    if (!slice_eq_str(r.reason, "max_fails")) return;
    CHECK(s->max_fails_least != 0 && r.fails >= s->max_fails_least && r.fails <= r.deliveries);
    struct issues *is = issues_by_id(o, s->id);
    CHECK(is == NULL || is->blind || r.fails <= is->events[seq][copy].fails_max);
}

static void fails_written(struct oracle *o, const struct batch_op *op) {
    struct issues *is = issues_by_id(o, key_read_u32(op->key, 0));
    bool retry = op->table == STORE_RETRIES;
    struct record_retry r;
    struct record_due d;
    bool decoded = retry ? record_retry_decode(op->value, &r) : record_due_decode(op->value, &d);
    CHECK(decoded);
    if (is == NULL) return;
    uint64_t seq = key_read_u64(op->key, retry ? 8 : 12);
    uint32_t cursor = key_read_u32(op->key, retry ? 4 : 20);
    struct issue *i = &is->events[seq][cursor == CURSOR_LIVE ? LIVE : REPLAY];
    uint32_t fails = retry ? r.fails : d.fails;
    CHECK(is->blind || fails <= i->fails_max);
    i->fails_durable = (uint16_t)fails;
}

static void on_batch(void *ctx, const struct batch *batch) {
    struct oracle *o = ctx;
    for (size_t i = 0; i < batch->len; i++) {
        const struct batch_op *op = &batch->ops[i];
        if (op->kind == BATCH_DELETE_PREFIX) continue;
        if (op->table == STORE_DEAD) dead_written(o, batch, op);
        if (op->kind != BATCH_PUT) continue;
        if (op->table == STORE_RETRIES || op->table == STORE_DUE) fails_written(o, op);
    }
    job_batch(o, batch);
    /* In one batch it may have expired before the resume. */
    for (int i = 0; i < SUBS; i++) o->subs[i].aged_before_ms = o->subs[i].aged_from_ms;
}

/* ---- life ---- */

static void make_slots(struct oracle *o) {
    for (int i = 0; i < SUBS; i++) {
        struct slot *slot = &o->slots[i];
        slot->project = i % o->projects;
        slot->name = sub_names[i / o->projects];
        o->subs[i].project = (uint8_t)slot->project;
        snprintf(slot->label, sizeof slot->label, "%s of %d", slot->name, slot->project + 1);
    }
}

void oracle_open(struct oracle *o) {
    make_slots(o);
    o->w.on_effect = on_effect;
    o->w.on_effect_ctx = o;
    o->w.on_batch = on_batch;
    o->life = 1;
    o->room = true;
    o->answers_left = UINT64_MAX;
    world_open(&o->w);
    o->wall_reached = o->w.time.wall_ms;
}

void oracle_close(struct oracle *o) {
    job_crash(o);
    world_close(&o->w);
    for (uint64_t i = 1; i <= o->last_worker; i++) free(o->workers[i].tags);
}

/* What the peers see of it: their connections are gone, their questions without an answer. */
static void peers_crash(struct oracle *o) {
    for (uint64_t i = 1; i <= o->last_worker; i++) {
        struct worker *w = &o->workers[i];
        w->attached = w->kept = w->hold = false;
        if (w->state == WORKER_NONE || w->state == WORKER_GONE) continue;
        w->state = WORKER_ORPHAN;
    }
    uint32_t from = o->last_rid > ASKED_MAX ? o->last_rid - ASKED_MAX : 0;
    for (uint32_t rid = from + 1; rid <= o->last_rid && o->waiting > 0; rid++) {
        struct asked *a = &o->asked[rid % ASKED_MAX];
        if (!a->waits) continue;
        if (a->kind == COMMAND_PUBLISH) to_limbo(o, a);
        a->waits = false;
        o->waiting--;
    }
    CHECK(o->waiting == 0);
}

static void check_config(void *ctx, struct slice key, struct slice value) {
    struct oracle *o = ctx;
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)o->config);
    CHECK(slice_eq_str(key, "sim/value") && o->config != 0 && slice_eq_str(value, text));
    o->config_asked++;
}

static void check_survived(struct oracle *o) {
    CHECK(o->w.engine->last_seq == o->last_seq); /* what is durable is there, and no more */
    for (int i = 0; i < SUBS; i++) {
        const struct subscription *s = oracle_sub(o, i);
        CHECK((s != NULL) == o->subs[i].exists);
        CHECK(s == NULL || (s->paused == o->subs[i].paused && s->id == o->subs[i].id));
        CHECK(s == NULL || s->aged_from_ms == o->subs[i].aged_from_ms);
    }
    o->config_asked = 0;
    engine_config_scan(o->w.engine, slice_str("sim/"), check_config, o);
    CHECK(o->config_asked == (o->config != 0));
    oracle_check_jobs(o);
    if (o->check_one_in == 1 || o->crashes % 4 == 0) oracle_check_rows(o);
}

void oracle_crash(struct oracle *o, size_t durable, uint64_t answers) {
    o->answers_left = answers;
    if (durable > 0) memory_store_sync(o->w.store, durable);
    o->answers_left = UINT64_MAX;
    issue_crash(o);
    job_crash(o);
    peers_crash(o);
    for (int i = 0; i < SUBS; i++) {
        struct sub *s = &o->subs[i];
        s->inexact = true;
        memcpy(s->highest, s->confirmed_highest, sizeof s->highest);
    }
    o->crashes++;
    o->life++;
    o->room = true;
    memset(o->counts, 0, sizeof o->counts);
    memory_store_set_room(o->w.store, STORE_ROOM_OK);
    world_crash(&o->w);
    check_survived(o);
}
