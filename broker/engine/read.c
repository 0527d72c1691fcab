/* read.c: answers to people. Nothing here changes anything. */
#include "broker/engine/state.h"

/* ---- meters ---- */

static void meter_turn(struct meter *m, uint64_t now_ms) {
    uint64_t window = now_ms / METER_MS;
    if (window == m->window) return;
    m->previous = window == m->window + 1 ? m->current : 0;
    m->current = 0;
    m->window = window;
}

void meter_add(struct meter *m, uint64_t now_ms) {
    meter_turn(m, now_ms);
    m->current++;
}

double meter_per_s(const struct meter *m, uint64_t now_ms) {
    struct meter at = *m;
    meter_turn(&at, now_ms);
    double into = (double)(now_ms % METER_MS) / METER_MS;
    return (at.current + at.previous * (1 - into)) / (METER_MS / 1000.0);
}

/* ---- the whole ---- */

void engine_stats(const struct engine *e, struct engine_stats *out) {
    *out = (struct engine_stats){.totals = e->totals, .trimmed_total = e->trimmed_total};
    out->first_seq = e->durable_seq == 0 ? 0 : oldest_seq(e);
    out->last_seq = e->durable_seq;
    out->journal_bytes = e->journal_end - e->journal_start;
    out->subscriptions = (uint32_t)e->subs_count;
    out->attachments = (uint32_t)e->attachments.len;
    out->tasks_running = (uint32_t)(e->tasks_count - e->tasks_finished);
    out->room = e->room;
    out->blocked_by = slice_str(e->blocked_by);
    out->blocked_by_project = e->blocked_by_project;
    out->retention = e->retention;
}

const char *why_idle_name(enum why_idle w) {
    static const char *const names[] = {
        [IDLE_BUSY] = "busy",         [IDLE_EMPTY] = "empty",     [IDLE_NO_WORKERS] = "no_workers",
        [IDLE_WINDOW] = "window",     [IDLE_BACKOFF] = "backoff", [IDLE_CAP] = "cap",
        [IDLE_SCANNING] = "scanning", [IDLE_PAUSED] = "paused",   [IDLE_RATE] = "rate",
        [IDLE_ORDER] = "order",
    };
    return names[w];
}

/* ---- subscriptions ---- */

static uint64_t delayed(const struct subscription *s) {
    CHECK(s->due_count >= s->due.outstanding_count);
    return s->delayed_count + s->due_count - s->due.outstanding_count;
}

static bool rate_holds(const struct engine *e, const struct subscription *s) {
    return rate_next_ms(&s->rate) > e->time.now_ms;
}

/* Nothing is ready and nothing can be read: what is it that waits? */
static enum why_idle why_no_work(const struct engine *e, const struct subscription *s) {
    if (subscription_outstanding(s) >= e->options.outstanding_max) return IDLE_CAP;
    if (s->blocked_count > 0) return IDLE_ORDER;
    if (delayed(s) > 0) return IDLE_BACKOFF;
    for (const struct list *n = s->replays.next; n != &s->replays; n = n->next) {
        const struct cursor *c = CONTAINER_OF(n, struct cursor, in_sub);
        if (c->next <= c->end && c->next <= e->last_seq) return IDLE_RATE; /* only its rate does */
    }
    return IDLE_EMPTY;
}

static enum why_idle why_idle(const struct engine *e, const struct subscription *s) {
    bool at_cap = subscription_outstanding(s) >= e->options.outstanding_max;
    bool work = s->ready_count > 0 || subscription_has_fresh(e, s) || (due_waits(e, s) && !at_cap);
    if (s->paused) return IDLE_PAUSED;
    if (!work) return why_no_work(e, s);
    if (s->attachments_count == 0) return IDLE_NO_WORKERS;
    if (list_empty(&s->available)) return IDLE_WINDOW;
    if (rate_holds(e, s)) return IDLE_RATE;
    return s->scanning ? IDLE_SCANNING : IDLE_BUSY;
}

/* Age of the event at the floor, or the first after it: it is not settled, or not looked at. */
static uint64_t floor_age_ms(struct engine *e, const struct subscription *s) {
    uint64_t floor = cursor_floor(e, &s->live);
    uint8_t key[KEY_U64_BYTES];
    struct store_iter it;
    struct event event;
    if (floor > e->durable_seq) return 0;
    store_seek(e->store, STORE_JOURNAL, key_u64(key, floor), &it);
    bool found = it.valid;
    if (found) event_decode(key_read_u64(it.key, 0), it.value, &event);
    store_iter_end(e->store, &it);
    if (!found || event.received_at_ms > e->time.wall_ms) return 0;
    return e->time.wall_ms - event.received_at_ms;
}

/* What waits on disk for a time that was asked for is old only from that time on. */
static uint64_t oldest_ms(struct engine *e, const struct subscription *s) {
    uint64_t age_ms = floor_age_ms(e, s), due_ms = 0;
    if (s->due_next_wall_ms < e->time.wall_ms) due_ms = e->time.wall_ms - s->due_next_wall_ms;
    return due_ms > age_ms ? due_ms : age_ms;
}

static void subscription_info(struct engine *e, const struct subscription *s,
                              struct subscription_info *out) {
    uint64_t next = cursor_next(e, &s->live), now_ms = e->time.now_ms;
    uint32_t tasks = s->replays_count;
    for (const struct list *n = e->tasks_running.next; n != &e->tasks_running; n = n->next) {
        tasks += CONTAINER_OF(n, struct task, in_running)->cursor.sub == s;
    }
    *out = (struct subscription_info){
        .name = slice_str(s->name),
        .id = s->id,
        .created_at_ms = s->created_at_ms,
        .policy = s->policy,
        .paused = s->paused,
        .floor = cursor_floor(e, &s->live),
        .next = next,
        .backlog = e->last_seq + 1 - next,
        .ready = s->ready_count,
        .leased = s->leased_count,
        .attachments = s->attachments_count,
        .tasks = tasks,
        .delayed = delayed(s),
        .blocked = s->blocked_count,
        .dead = s->dead_count,
        .oldest_ms = oldest_ms(e, s),
        .in_per_s = meter_per_s(&s->in, now_ms),
        .out_per_s = meter_per_s(&s->out, now_ms),
        .acked_total = s->live.acked_total,
        .dead_total = s->dead_total,
        .expired_total = s->expired_total,
        .why_idle = why_idle(e, s),
    };
}

bool engine_subscription_get(struct engine *e, uint32_t project, struct slice name,
                             struct subscription_info *out) {
    const struct subscription *s = subscription_find(e, project, name);
    if (s == NULL) return false;
    subscription_info(e, s, out);
    return true;
}

bool engine_subscription_next(struct engine *e, uint32_t project, struct slice after,
                              struct subscription_info *out) {
    size_t i = subscription_above(e, project, after);
    if (i == e->subs_count || e->subs[i]->project->id != project) return false;
    subscription_info(e, e->subs[i], out);
    return true;
}

static uint64_t behind(const struct engine *e, const struct subscription *s) {
    return e->last_seq + 1 - cursor_floor(e, &s->live);
}

size_t engine_subscriptions_behind(struct engine *e, uint32_t project,
                                   struct subscription_info *out, size_t max) {
    const struct subscription *worst[16];
    size_t count = 0;
    CHECK(max <= sizeof worst / sizeof worst[0]);
    for (size_t i = 0; i < e->subs_count; i++) {
        const struct subscription *s = e->subs[i];
        if (s->project->id != project || behind(e, s) == 0) continue;
        size_t at = count < max ? count++ : count;
        while (at > 0 && behind(e, worst[at - 1]) < behind(e, s)) {
            if (at < count) worst[at] = worst[at - 1];
            at--;
        }
        if (at < count) worst[at] = s;
    }
    for (size_t i = 0; i < count; i++) subscription_info(e, worst[i], &out[i]);
    return count;
}

/* ---- tasks ---- */

const char *task_kind_name(enum task_kind k) {
    static const char *const names[] = {"replay", "count", "redrive", "purge"};
    return names[k];
}

static void task_info(const struct task *t, struct task_info *out) {
    const struct subscription *s = t->cursor.sub;
    *out = (struct task_info){
        .id = t->id,
        .kind = t->kind,
        .subscription = s == NULL ? slice_of(NULL, 0) : slice_str(s->name),
        .filter = t->filter_text,
        .rate_per_s = t->rate.per_s,
        .created_at_ms = t->created_at_ms,
        .finished_at_ms = t->finished_at_ms,
        .cancelled = t->cancelled,
        .from = t->from,
        .to = t->to,
        .next = t->cursor.next,
        .matched = t->matched,
        .acked_total = t->cursor.acked_total,
        .expired = t->expired,
        .outstanding = t->cursor.outstanding_count,
    };
}

bool engine_task_next(const struct engine *e, uint32_t project, uint32_t after,
                      struct task_info *out) {
    size_t lo = 0, hi = e->tasks_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (e->tasks[mid]->id <= after) lo = mid + 1;
        else hi = mid;
    }
    while (lo < e->tasks_count && e->tasks[lo]->project->id != project) lo++;
    if (lo == e->tasks_count) return false;
    task_info(e->tasks[lo], out);
    return true;
}

bool engine_task_get(const struct engine *e, uint32_t project, uint32_t id, struct task_info *out) {
    return id > 0 && engine_task_next(e, project, id - 1, out) && out->id == id;
}

/* ---- the journal and the dead letters ---- */

uint32_t engine_attachment_unsettled(const struct engine *e, uint64_t attachment) {
    const struct attachment *a = map_get(&e->attachments, attachment);
    return a == NULL ? 0 : a->unsettled_count;
}

bool engine_event_get(struct engine *e, uint32_t project, uint64_t seq, struct event *out) {
    return seq >= 1 && seq <= e->durable_seq && event_read(e, seq, out, NULL) &&
           out->project == project;
}

uint64_t engine_events_scan(struct engine *e, uint32_t project, uint64_t from, uint32_t *scan,
                            engine_event_fn *fn, void *ctx) {
    uint8_t key[KEY_U64_BYTES];
    struct store_iter it;
    bool more = true;
    store_seek(e->store, STORE_JOURNAL, key_u64(key, from), &it);
    while (it.valid && more && *scan > 0) {
        struct event event;
        uint64_t seq = key_read_u64(it.key, 0);
        event_decode(seq, it.value, &event);
        scan_take(scan, &event);
        more = event.project != project || fn(ctx, &event);
        from = seq + 1;
        store_next(e->store, &it);
    }
    store_iter_end(e->store, &it);
    return from;
}

uint64_t engine_seq_at_time(struct engine *e, uint64_t wall_ms) {
    uint64_t seq = seq_at_time(e, wall_ms);
    return seq <= e->durable_seq ? seq : e->durable_seq + 1;
}

bool engine_dead_scan(struct engine *e, uint32_t project, struct slice subscription,
                      uint64_t after_seq, uint32_t after_cursor, engine_dead_fn *fn, void *ctx) {
    const struct subscription *s = subscription_find(e, project, subscription);
    if (s == NULL) return false;
    uint8_t key[KEY_DEAD_BYTES];
    struct slice from = key_dead(key, s->id, after_seq, after_cursor);
    struct store_iter it;
    store_seek(e->store, STORE_DEAD, from, &it);
    if (it.valid && slice_eq(it.key, from)) store_next(e->store, &it);
    for (; it.valid && key_read_u32(it.key, 0) == s->id; store_next(e->store, &it)) {
        struct record_dead r;
        dead_decode(s, it.key, it.value, &r);
        struct dead_letter dead = {
            .cursor = key_read_u32(it.key, 12),
            .died_at_ms = r.died_at_ms,
            .fails = r.fails,
            .deliveries = r.deliveries,
            .reason = r.reason,
            .failure = {r.failure.type, r.failure.message, r.failure.detail},
            .event = r.event,
        };
        if (!fn(ctx, &dead)) break;
    }
    store_iter_end(e->store, &it);
    return true;
}

void engine_config_scan(struct engine *e, struct slice prefix, engine_config_fn *fn, void *ctx) {
    struct store_iter it;
    store_seek(e->store, STORE_CONFIG, prefix, &it);
    for (; it.valid && it.key.len >= prefix.len; store_next(e->store, &it)) {
        struct slice bytes;
        if (!slice_eq(slice_of(it.key.data, prefix.len), prefix)) break;
        if (!record_config_decode(it.value, &bytes)) store_damaged("a configuration entry", 0);
        fn(ctx, it.key, bytes);
    }
    store_iter_end(e->store, &it);
}
