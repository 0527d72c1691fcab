/* read.c: answers to people. Nothing here changes anything. */
#include "broker/engine/state.h"

void engine_stats(const struct engine *e, struct engine_stats *out) {
    *out = e->totals;
    out->first_seq = e->durable_seq == 0 ? 0 : 1;
    out->last_seq = e->durable_seq;
    out->subscriptions = (uint32_t)e->subs_count;
    out->attachments = (uint32_t)e->attachments.len;
    out->replays_running = (uint32_t)(e->replays_count - e->replays_finished);
    out->room = e->room;
}

const char *why_idle_name(enum why_idle w) {
    static const char *const names[] = {
        [IDLE_BUSY] = "busy",         [IDLE_EMPTY] = "empty",     [IDLE_NO_WORKERS] = "no_workers",
        [IDLE_WINDOW] = "window",     [IDLE_BACKOFF] = "backoff", [IDLE_CAP] = "cap",
        [IDLE_SCANNING] = "scanning",
    };
    return names[w];
}

static enum why_idle why_idle(const struct engine *e, const struct subscription *s) {
    uint32_t outstanding = s->ready_count + s->leased_count + s->delayed_count;
    bool fresh = subscription_has_fresh(e, s);
    if (s->ready_count == 0 && !fresh) {
        if (outstanding >= e->options.outstanding_max) return IDLE_CAP;
        return s->delayed_count > 0 ? IDLE_BACKOFF : IDLE_EMPTY;
    }
    if (s->attachments_count == 0) return IDLE_NO_WORKERS;
    if (list_empty(&s->available)) return IDLE_WINDOW;
    return s->scanning ? IDLE_SCANNING : IDLE_BUSY;
}

static void subscription_info(const struct engine *e, const struct subscription *s,
                              struct subscription_info *out) {
    uint64_t next = cursor_next(e, &s->live);
    *out = (struct subscription_info){
        .name = slice_str(s->name),
        .id = s->id,
        .created_at_ms = s->created_at_ms,
        .policy = s->policy,
        .floor = cursor_floor(e, &s->live),
        .next = next,
        .backlog = e->last_seq + 1 - next,
        .ready = s->ready_count,
        .leased = s->leased_count,
        .delayed = s->delayed_count,
        .attachments = s->attachments_count,
        .replays = s->replays_count,
        .acked_total = s->live.acked_total,
        .dead_total = s->dead_total,
        .why_idle = why_idle(e, s),
    };
}

bool engine_subscription_get(const struct engine *e, struct slice name,
                             struct subscription_info *out) {
    const struct subscription *s = subscription_find(e, name);
    if (s == NULL) return false;
    subscription_info(e, s, out);
    return true;
}

bool engine_subscription_next(const struct engine *e, struct slice after,
                              struct subscription_info *out) {
    size_t i = subscription_above(e, after);
    if (i == e->subs_count) return false;
    subscription_info(e, e->subs[i], out);
    return true;
}

static void replay_info(const struct cursor *c, struct replay_info *out) {
    *out = (struct replay_info){
        .id = c->id,
        .subscription = c->sub == NULL ? slice_of(NULL, 0) : slice_str(c->sub->name),
        .created_at_ms = c->created_at_ms,
        .finished_at_ms = c->finished_at_ms,
        .from = c->from,
        .to = c->end,
        .next = c->next,
        .acked_total = c->acked_total,
        .outstanding = c->outstanding_count,
    };
}

bool engine_replay_next(const struct engine *e, uint32_t after, struct replay_info *out) {
    size_t lo = 0, hi = e->replays_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (e->replays[mid]->id <= after) lo = mid + 1;
        else hi = mid;
    }
    if (lo == e->replays_count) return false;
    replay_info(e->replays[lo], out);
    return true;
}

bool engine_replay_get(const struct engine *e, uint32_t id, struct replay_info *out) {
    return id > 0 && engine_replay_next(e, id - 1, out) && out->id == id;
}

uint32_t engine_attachment_unsettled(const struct engine *e, uint64_t attachment) {
    const struct attachment *a = map_get(&e->attachments, attachment);
    return a == NULL ? 0 : a->unsettled_count;
}

bool engine_event_get(struct engine *e, uint64_t seq, struct event *out) {
    return seq >= 1 && seq <= e->durable_seq && event_read(e, seq, out, NULL);
}

uint64_t engine_events_scan(struct engine *e, uint64_t from, uint64_t scan_max, engine_event_fn *fn,
                            void *ctx) {
    uint8_t key[KEY_U64_BYTES];
    struct store_iter it;
    bool more = true;
    store_seek(e->store, STORE_JOURNAL, key_u64(key, from), &it);
    while (it.valid && more && scan_max > 0) {
        struct event event;
        uint64_t seq = key_read_u64(it.key, 0);
        if (!record_event_decode(seq, it.value, &event)) store_damaged("journal record", seq);
        more = fn(ctx, &event);
        from = seq + 1;
        scan_max--;
        store_next(e->store, &it);
    }
    store_iter_end(e->store, &it);
    return from;
}

uint64_t engine_seq_at_time(struct engine *e, uint64_t wall_ms) {
    uint64_t seq = seq_at_time(e, wall_ms);
    return seq <= e->durable_seq ? seq : e->durable_seq + 1;
}

bool engine_dead_scan(struct engine *e, struct slice subscription, uint64_t after_seq,
                      uint32_t after_cursor, engine_dead_fn *fn, void *ctx) {
    const struct subscription *s = subscription_find(e, subscription);
    if (s == NULL) return false;
    uint8_t key[KEY_DEAD_BYTES];
    struct slice from = key_dead(key, s->id, after_seq, after_cursor);
    struct store_iter it;
    store_seek(e->store, STORE_DEAD, from, &it);
    if (it.valid && slice_eq(it.key, from)) store_next(e->store, &it);
    for (; it.valid && key_read_u32(it.key, 0) == s->id; store_next(e->store, &it)) {
        struct record_dead r;
        if (!record_dead_decode(it.value, &r)) {
            store_damaged("dead letter", key_read_u64(it.key, 4));
        }
        struct dead_letter dead = {
            .cursor = key_read_u32(it.key, 12),
            .died_at_ms = r.died_at_ms,
            .fails = r.fails,
            .deliveries = r.deliveries,
            .reason = r.reason,
            .error = r.error,
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
