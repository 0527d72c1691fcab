#include "broker/engine/state.h"

bool endpoints_ok(struct slice endpoints) {
    if (endpoints.len == 0) return true;
    for (size_t lines = 1;; lines++) {
        const uint8_t *end = memchr(endpoints.data, '\n', endpoints.len);
        size_t len = end == NULL ? endpoints.len : (size_t)(end - endpoints.data);
        if (len == 0 || len > LIMIT_URI_BYTES || lines > LIMIT_ENDPOINTS) return false;
        if (end == NULL) return true;
        endpoints = slice_from(endpoints, len + 1);
    }
}

static enum err event_check(const struct engine *e, const struct event *v, const char **why) {
    const struct {
        size_t len, max;
        const char *why;
    } parts[] = {
        {v->id.len, LIMIT_EVENT_ID_BYTES, "id: at most 256 bytes"},
        {v->type.len, LIMIT_EVENT_TYPE_BYTES, "type: at most 256 bytes"},
        {v->subject.len, LIMIT_EVENT_SUBJECT_BYTES, "subject: at most 1024 bytes"},
        {v->source.len, LIMIT_NAME_BYTES, "source: at most 64 bytes"},
        {v->content_type.len, LIMIT_EVENT_CONTENT_TYPE_BYTES, "content_type: at most 256 bytes"},
        {v->metadata.len, LIMIT_EVENT_METADATA_BYTES, "user_metadata: at most 16384 bytes"},
        {v->headers.len, LIMIT_EVENT_HEADERS_BYTES, "headers: at most 8192 bytes"},
        {v->endpoints.len, LIMIT_EVENT_ENDPOINTS_BYTES, "webhook_config.uris: at most 16392 bytes"},
        {v->body.len, LIMIT_BODY_BYTES_HIGHEST, "body: at most 16777216 bytes"},
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i].len <= parts[i].max) continue;
        *why = parts[i].why;
        return ERR_TOO_LARGE;
    }
    if (!endpoints_ok(v->endpoints)) {
        *why = "webhook_config.uris: at most 8 URIs of 1 to 2048 bytes";
        return ERR_INVALID_REQUEST;
    }
    if (v->deliver_at_ms > e->time.wall_ms + LIMIT_DELIVER_LATER_MS) {
        *why = "deliver_at: at most 30 days ahead";
        return ERR_INVALID_REQUEST;
    }
    return ERR_OK;
}

/* How a repeat is told. */
struct repeats {
    uint64_t dedupe_ms, dedupe_events;
    bool by_body;
};

struct same_event {
    struct engine *e;
    const struct event *event;
    const struct repeats *repeats;
};

/* The fingerprint was a hit: is it really the same source and id, or body? */
static bool same_event(void *ctx, uint64_t seq) {
    struct same_event *s = ctx;
    const struct repeats *how = s->repeats;
    struct event stored;
    if (!event_read(s->e, seq, &stored, NULL) || stored.project != s->event->project ||
        !slice_eq(stored.source, s->event->source)) {
        return false;
    }
    uint64_t age_ms = s->e->last_received_ms - stored.received_at_ms;
    if (how->dedupe_ms != 0 && age_ms >= how->dedupe_ms) return false;
    if (how->dedupe_events != 0 && s->e->last_seq - seq >= how->dedupe_events) return false;
    return how->by_body ? slice_eq(stored.body, s->event->body) : slice_eq(stored.id, s->event->id);
}

static uint64_t fingerprint_of(const struct event *event, const struct repeats *repeats) {
    struct event named = *event;
    if (repeats->by_body) named.id = event->body;
    return named.id.len == 0 && !repeats->by_body ? 0 : dedupe_fingerprint(&named);
}

static struct event *turn_events_add(struct turn_events *t, uint64_t fingerprint) {
    if (t->count == t->cap) {
        t->cap = t->cap == 0 ? 256 : t->cap * 2;
        t->v = mem_realloc(t->v, t->cap * sizeof *t->v);
        t->fingerprints = mem_realloc(t->fingerprints, t->cap * sizeof *t->fingerprints);
    }
    t->fingerprints[t->count] = fingerprint;
    return &t->v[t->count++];
}

/* Journals one event in the open turn, or finds that it is there already. */
static struct publish_result journal(struct engine *e, const struct event *incoming,
                                     struct project *project, const struct repeats *repeats) {
    struct event event = *incoming;
    event.project = project->id;
    uint64_t fingerprint = fingerprint_of(&event, repeats);
    if (fingerprint != 0) {
        struct same_event same = {e, &event, repeats};
        uint64_t seq = dedupe_find(&e->dedupe, fingerprint, same_event, &same);
        if (seq != 0) {
            TOTALS_ADD(e, project, duplicates, 1);
            return (struct publish_result){.seq = seq, .duplicate = true};
        }
    }
    struct engine_turn *t = turn_open(e);
    struct batch *b = &t->batch;
    event.seq = ++e->last_seq;
    event.received_at_ms = e->last_received_ms;
    event.offset = e->journal_end;
    if (event.deliver_at_ms <= e->time.wall_ms) event.deliver_at_ms = 0;
    struct job *job = job_lend(e, &event);
    struct event *stored = turn_events_add(t->events, fingerprint);
    uint8_t key[KEY_U64_BYTES];
    struct slice value = record_event_encode(&b->arena, &event, stored);
    batch_add(b, BATCH_APPEND, STORE_JOURNAL, arena_copy(&b->arena, key_u64(key, event.seq)),
              value);
    e->journal_end += value.len;
    if (fingerprint != 0) {
        dedupe_add(&e->dedupe, fingerprint, event.seq, event.received_at_ms);
    }
    TOTALS_ADD(e, project, published, 1);
    if (job != NULL) job_note(e, job, stored);
    subscriptions_offer(e, project, stored);
    return (struct publish_result){.seq = event.seq};
}

static void stamp(struct engine *e) {
    if (e->time.wall_ms > e->last_received_ms) e->last_received_ms = e->time.wall_ms;
}

uint64_t publish_own(struct engine *e, const struct event *event) {
    CHECK(e->room && event->id.len == 0);
    stamp(e);
    const struct repeats repeats = {.dedupe_ms = 0};
    return journal(e, event, project_get(e, event->project), &repeats).seq;
}

/* Whose subscription it is that lags is told to its own project. */
static const char *blocked_text(struct engine *e, const struct project *project) {
    if (e->blocked_by_project != project->id) {
        return "the journal has its full size and a subscription of another project still needs "
               "its oldest events: nothing was taken, try again later";
    }
    return turn_text(e,
                     "the journal has its full size and subscription \"%s\" still needs its oldest "
                     "events: nothing was taken; let it catch up, seek it forward, or set its lag "
                     "to expire",
                     e->blocked_by);
}

void publish(struct engine *e, const struct command *c) {
    size_t count = c->u.publish.count;
    struct project *project = project_get(e, c->project);
    CHECK(count >= 1 && count <= LIMIT_PUBLISH_EVENTS);
    enum err err = ERR_OK;
    const char *message = NULL;
    if (!e->room) {
        err = ERR_NO_ROOM;
        message = "the store is nearly full: nothing was taken, try again later";
    } else if (e->blocked_by[0] != 0) {
        err = ERR_BLOCKED;
        message = blocked_text(e, project);
    }
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        err = event_check(e, &c->u.publish.events[i], &message);
    }
    struct publish_result *results = NULL;
    if (err == ERR_OK) {
        stamp(e);
        results = arena_alloc(turn_arena(e), count * sizeof *results);
        const struct repeats repeats = {c->u.publish.dedupe_ms, c->u.publish.dedupe_events,
                                        c->u.publish.dedupe_by_body};
        for (size_t i = 0; i < count; i++) {
            results[i] = journal(e, &c->u.publish.events[i], project, &repeats);
        }
    } else {
        TOTALS_ADD(e, project, refused, count);
    }
    struct effect *f = turn_effect(e, EFFECT_PUBLISHED, c->route);
    f->err = err;
    f->message = message;
    f->u.published.results = results;
    f->u.published.count = err == ERR_OK ? count : 0;
}

/* Rows of the id log that the table has forgotten go in slices: their keys are first seqs. */
static void ids_trim(struct engine *e) {
    uint64_t keep = dedupe_oldest_seq(&e->dedupe);
    if (e->ids_trimmed_to >= keep) return;
    uint8_t key[KEY_U64_BYTES];
    struct store_iter it;
    int rows = 0;
    store_seek(e->store, STORE_IDS, key_u64(key, e->ids_trimmed_to), &it);
    while (it.valid && rows < IDS_TRIM_ROWS) {
        uint64_t first = key_read_u64(it.key, 0);
        struct record_ids ids;
        if (!record_ids_decode(it.value, &ids)) store_damaged("id log row", first);
        if (first + ids.count > keep) break;
        batch_delete(turn_batch(e), STORE_IDS, it.key);
        e->ids_trimmed_to = first + ids.count;
        rows++;
        store_next(e->store, &it);
    }
    if (rows < IDS_TRIM_ROWS) e->ids_trimmed_to = keep;
    store_iter_end(e->store, &it);
}

void publish_end_turn(struct engine *e) {
    struct engine_turn *t = e->turn;
    if (t == NULL || t->events->count == 0) return;
    bool any = false;
    for (size_t i = 0; i < t->events->count && !any; i++) any = t->events->fingerprints[i] != 0;
    if (!any) return;
    struct batch *b = &t->batch;
    uint8_t key[KEY_U64_BYTES];
    batch_add(b, BATCH_APPEND, STORE_IDS, arena_copy(&b->arena, key_u64(key, t->events->first_seq)),
              record_ids_encode(&b->arena, e->last_received_ms, t->events->fingerprints,
                                (uint32_t)t->events->count));
    ids_trim(e);
}

/* When an event was received, or the next one after it: retention leaves gaps. */
static uint64_t received_at(struct engine *e, uint64_t seq) {
    struct event event;
    if (event_read(e, seq, &event, NULL)) return event.received_at_ms;
    uint8_t key[KEY_U64_BYTES];
    struct store_iter it;
    store_seek(e->store, STORE_JOURNAL, key_u64(key, seq), &it);
    CHECK(it.valid); /* the newest durable record is never removed */
    seq = key_read_u64(it.key, 0);
    event_decode(seq, it.value, &event);
    store_iter_end(e->store, &it);
    return event.received_at_ms;
}

uint64_t seq_at_time(struct engine *e, uint64_t wall_ms) {
    uint64_t lo = oldest_seq(e), hi = e->last_seq + 1;
    while (lo < hi) { /* received_at never falls along seq (E8) */
        uint64_t mid = lo + (hi - lo) / 2;
        if (received_at(e, mid) < wall_ms) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}
