/* job.c: registered jobs.
 *
 * The happy path: a PUT registers a job and notes the events of its subject that came just before
 * it; each event that is journaled looks its subject up, takes what the job has and is noted; the
 * row is written once per turn; at a final event, or at the end of its time, the job has ended, and
 * a while later it is forgotten.
 *
 * Failures: no room for the row or too many jobs refuse the PUT; without room for job.overdue it
 * comes JOB_RETRY_MS later. */
#include <stdlib.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/rfc3339.h"
#include "broker/engine/state.h"

#define JOB_RETRY_MS     10000
#define JOBS_PER_TURN    1024
#define OVERDUE_BYTES    (4 * MIB) /* of job.overdue events per turn, about */
#define NOTED_MAX        1024      /* of one job, durable or not */
#define LOOK_BACK_READS  256       /* events read for a PUT, other subjects' of its hash included */
#define RECOVER_SUBJECTS 4096
#define RECOVER_BYTES    (16 * MIB)
#define OVERDUE_BODY_MAX (8 * KIB) /* an id in JSON is at most six times as long */

_Static_assert((LIMIT_JOB_LOOK_BACK & (LIMIT_JOB_LOOK_BACK - 1)) == 0, "the ring is masked");
_Static_assert(6 * LIMIT_EVENT_SUBJECT_BYTES + KIB <= OVERDUE_BODY_MAX, "job.overdue fits");

/* ---- states ---- */

const char *job_state_name(enum job_state s) {
    static const char *const names[] = {"pending", "requires_action", "succeeded",
                                        "failed",  "cancelled",       "expired"};
    return names[s];
}

enum job_state job_state_of_type(struct slice type) {
    static const struct {
        const char *segment;
        enum job_state state;
    } rows[] = {
        {"succeeded", JOB_SUCCEEDED},
        {"completed", JOB_SUCCEEDED},
        {"generated", JOB_SUCCEEDED},
        {"failed", JOB_FAILED},
        {"cancelled", JOB_CANCELLED},
        {"expired", JOB_EXPIRED},
        {"requires_action", JOB_REQUIRES_ACTION},
    };
    size_t from = type.len;
    while (from > 0 && type.data[from - 1] != '.') from--;
    struct slice last = slice_from(type, from);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (slice_eq_str(last, rows[i].segment)) return rows[i].state;
    }
    return JOB_PENDING;
}

/* ---- the table ---- */

void jobs_init(struct job_table *t) {
    *t = (struct job_table){.next_number = 1};
    map_init(&t->by_id);
    heap_init(&t->timers);
    list_init(&t->dirty);
    list_init(&t->ended);
}

static void job_free(struct job *j) {
    free(j->texts);
    free(j->seqs);
    free(j->states);
    free(j);
}

void jobs_free(struct job_table *t) {
    for (size_t i = 0; i < t->by_id.cap; i++) {
        for (struct job *j = t->by_id.slots[i].value, *next; j != NULL; j = next) {
            next = j->same;
            job_free(j);
        }
    }
    map_free(&t->by_id);
    heap_free(&t->timers);
    free(t->subjects);
}

static uint64_t id_hash(uint32_t project, struct slice id) {
    return hash_bytes(project, id);
}

static struct job *find(const struct engine *e, uint32_t project, struct slice id, uint64_t hash) {
    struct job *j = map_get(&e->jobs.by_id, hash);
    while (j != NULL && (j->project->id != project || !slice_eq(j->id, id))) j = j->same;
    return j;
}

static uint64_t text_bytes(const struct job *j) {
    return j->id.len + j->endpoints.len + j->metadata.len;
}

static void count_job(struct job_table *t, const struct job *j, bool in) {
    uint64_t bytes = in ? text_bytes(j) : -text_bytes(j); /* wraps around and back */
    t->bytes += bytes;
    t->count += in ? 1 : (size_t)-1;
    j->project->jobs_count += in ? 1u : -1u;
    if (j->ended_at_ms == 0) return;
    t->ended_bytes += bytes;
    t->ended_count += in ? 1 : (size_t)-1;
}

static struct slice put_text(uint8_t **at, struct slice s) {
    struct slice copy = slice_of(*at, s.len);
    if (s.len > 0) memcpy(*at, s.data, s.len);
    *at += s.len;
    return copy;
}

/* The slices may be its own. */
static void set_texts(struct job *j, struct slice id, struct slice endpoints,
                      struct slice metadata) {
    uint8_t *old = j->texts, *at = j->texts = mem_alloc(id.len + endpoints.len + metadata.len);
    j->id = put_text(&at, id);
    j->endpoints = put_text(&at, endpoints);
    j->metadata = put_text(&at, metadata);
    free(old);
}

static struct job *job_add(struct engine *e, uint64_t number, struct project *project,
                           struct slice id, struct slice endpoints, struct slice metadata) {
    struct job_table *t = &e->jobs;
    struct job *j = mem_zalloc(sizeof *j);
    j->number = number;
    j->project = project;
    j->id_hash = id_hash(project->id, id);
    set_texts(j, id, endpoints, metadata);
    heap_node_init(&j->timer);
    list_init(&j->in_dirty);
    list_init(&j->in_ended);
    j->same = map_remove(&t->by_id, j->id_hash);
    map_add(&t->by_id, j->id_hash, j);
    count_job(t, j, true);
    return j;
}

static void job_remove(struct engine *e, struct job *j) {
    struct job_table *t = &e->jobs;
    struct job *first = map_remove(&t->by_id, j->id_hash), **at = &first;
    while (*at != j) at = &(*at)->same;
    *at = j->same;
    if (first != NULL) map_add(&t->by_id, j->id_hash, first);
    count_job(t, j, false);
    heap_remove(&t->timers, &j->timer);
    list_unlink(&j->in_dirty);
    list_unlink(&j->in_ended);
    job_free(j);
}

static void forget(struct engine *e, struct job *j) {
    uint8_t key[KEY_U64_BYTES];
    batch_delete(turn_batch(e), STORE_JOBS, key_u64(key, j->number));
    job_remove(e, j);
}

static void mark_dirty(struct engine *e, struct job *j) {
    turn_open(e);
    if (list_empty(&j->in_dirty)) list_push_back(&e->jobs.dirty, &j->in_dirty);
}

/* ---- its time ---- */

static uint64_t timer_wall_ms(const struct job *j) {
    if (j->ended_at_ms == 0) return j->due_at_ms;
    return (j->ended_at_ms > j->due_at_ms ? j->ended_at_ms : j->due_at_ms) + LIMIT_JOB_KEPT_MS;
}

static void arm(struct engine *e, struct job *j) {
    heap_remove(&e->jobs.timers, &j->timer);
    heap_insert(&e->jobs.timers, &j->timer, timer_wall_ms(j));
}

/* A final one ends once more when it was overdue before. */
static void end(struct engine *e, struct job *j) {
    struct job_table *t = &e->jobs;
    uint64_t at_ms = e->time.wall_ms;
    list_unlink(&j->in_ended);
    if (!list_empty(&t->ended)) { /* a clock that was set back changes no order */
        const struct job *last = CONTAINER_OF(t->ended.prev, struct job, in_ended);
        if (last->ended_at_ms > at_ms) at_ms = last->ended_at_ms;
    }
    count_job(t, j, false);
    j->ended_at_ms = at_ms > 0 ? at_ms : 1;
    count_job(t, j, true);
    list_push_back(&t->ended, &j->in_ended);
    arm(e, j);
}

static void unend(struct engine *e, struct job *j) {
    count_job(&e->jobs, j, false);
    j->ended_at_ms = 0;
    count_job(&e->jobs, j, true);
    list_unlink(&j->in_ended);
    j->overdue = false;
    j->overdue_seq = 0;
}

/* ---- its events ---- */

/* Copies what is left of its events without the `drop` oldest of those that do not make its state;
 * may be in place. Returns how many these are. */
static size_t copy_noted(const struct job *j, size_t drop, uint64_t *seqs, uint8_t *states) {
    size_t kept = 0;
    for (size_t i = 0; i < j->count; i++) {
        bool pinned = j->seqs[i] == j->final_seq || j->seqs[i] == j->action_seq;
        if (drop > 0 && !pinned) {
            drop--;
            continue;
        }
        seqs[kept] = j->seqs[i];
        states[kept++] = j->states[i];
    }
    return kept;
}

static size_t durable_count(const struct engine *e, const struct job *j) {
    size_t n = j->count;
    while (n > 0 && j->seqs[n - 1] > e->durable_seq) n--;
    return n;
}

static void resize_noted(struct job *j, size_t cap) {
    j->cap = cap;
    j->seqs = mem_realloc(j->seqs, cap * sizeof *j->seqs);
    j->states = mem_realloc(j->states, cap * sizeof *j->states);
}

/* Only what is durable is shown: it stays until so many that came later are durable too. */
static void prune_noted(struct job *j, size_t durable) {
    if (durable > LIMIT_JOB_EVENTS) {
        j->count = copy_noted(j, durable - LIMIT_JOB_EVENTS, j->seqs, j->states);
    }
    if (j->count >= NOTED_MAX) j->count = copy_noted(j, 1, j->seqs, j->states);
    if (j->count <= LIMIT_JOB_EVENTS && j->cap > 2 * LIMIT_JOB_EVENTS) {
        resize_noted(j, LIMIT_JOB_EVENTS);
    }
}

static void keep_event(struct job *j, uint64_t seq, enum job_state state) {
    if (j->count == j->cap) resize_noted(j, j->cap == 0 ? 4 : 2 * j->cap);
    j->seqs[j->count] = seq;
    j->states[j->count++] = (uint8_t)state;
    if (state == JOB_REQUIRES_ACTION && j->action_seq == 0) j->action_seq = seq;
    if (job_state_is_final(state) && j->final_seq == 0) {
        j->final_seq = seq;
        j->final_state = state;
    }
}

static void note(struct engine *e, struct job *j, uint64_t seq, enum job_state state) {
    bool was_final = j->final_seq != 0;
    prune_noted(j, durable_count(e, j));
    keep_event(j, seq, state);
    j->events_total++;
    if (!was_final && j->final_seq != 0) end(e, j);
    mark_dirty(e, j);
}

static void remember_subject(struct job_table *t, uint64_t seq, uint64_t hash) {
    if (t->subjects == NULL) {
        if (hash == 0) return;
        t->subjects = mem_zalloc(LIMIT_JOB_LOOK_BACK * sizeof *t->subjects);
    }
    uint32_t low = (uint32_t)hash;
    t->subjects[seq & (LIMIT_JOB_LOOK_BACK - 1)] = hash == 0 ? 0 : low == 0 ? 1 : low;
}

struct job *job_lend(struct engine *e, struct event *event) {
    uint64_t hash = event->subject.len == 0 ? 0 : id_hash(event->project, event->subject);
    remember_subject(&e->jobs, event->seq, hash);
    if (e->jobs.count == 0 || event->subject.len == 0) return NULL;
    struct job *j = find(e, event->project, event->subject, hash);
    if (j == NULL) return NULL;
    if (event->endpoints.len == 0) event->endpoints = j->endpoints;
    if (event->metadata.len == 0) event->metadata = j->metadata;
    return j;
}

void job_note(struct engine *e, struct job *j, const struct event *stored) {
    note(e, j, stored->seq, job_state_of_type(stored->type));
    if (e->options.jobs_room == 0) return;
    struct effect *f = turn_effect(e, EFFECT_JOB, (struct route){.room = e->options.jobs_room});
    f->u.job.project = stored->project;
    f->u.job.id = stored->subject;
    f->u.job.seq = stored->seq;
}

/* The last events of its subject before it was put: a job may be registered a moment too late. */
static void look_back(struct engine *e, struct job *j) {
    const struct job_table *t = &e->jobs;
    uint64_t seqs[LIMIT_JOB_EVENTS], seq = e->last_seq;
    enum job_state states[LIMIT_JOB_EVENTS];
    uint32_t low = (uint32_t)j->id_hash == 0 ? 1 : (uint32_t)j->id_hash;
    size_t found = 0;
    int reads = 0;
    if (t->subjects == NULL) return;
    for (size_t i = 0; i < LIMIT_JOB_LOOK_BACK && seq > e->trimmed_to; i++, seq--) {
        if (t->subjects[seq & (LIMIT_JOB_LOOK_BACK - 1)] != low) continue;
        if (++reads > LOOK_BACK_READS || found == LIMIT_JOB_EVENTS) break;
        struct event event;
        if (!event_read(e, seq, &event, NULL) || event.project != j->project->id) continue;
        if (!slice_eq(event.subject, j->id)) continue;
        states[found] = job_state_of_type(event.type);
        seqs[found++] = seq;
    }
    while (found-- > 0) note(e, j, seqs[found], states[found]);
}

/* ---- registering ---- */

static enum err put_check(const struct engine *e, const struct command *c, const char **why) {
    if (!e->room) {
        *why = "the store is nearly full: nothing was taken, try again later";
        return ERR_NO_ROOM;
    }
    if (c->u.job.id.len == 0) {
        *why = "the id of a job must not be empty";
        return ERR_INVALID_REQUEST;
    }
    if (c->u.job.id.len > LIMIT_EVENT_SUBJECT_BYTES) {
        *why = "the id of a job: at most 1024 bytes";
        return ERR_TOO_LARGE;
    }
    if (c->u.job.endpoints.len > LIMIT_EVENT_ENDPOINTS_BYTES) {
        *why = "webhook_config.uris: at most 8 of at most 2048 bytes";
        return ERR_TOO_LARGE;
    }
    if (!endpoints_ok(c->u.job.endpoints)) { /* they become those of events */
        *why = "webhook_config.uris: at most 8 URIs of 1 to 2048 bytes";
        return ERR_INVALID_REQUEST;
    }
    if (c->u.job.metadata.len > LIMIT_EVENT_METADATA_BYTES) {
        *why = "user_metadata: at most 16384 bytes";
        return ERR_TOO_LARGE;
    }
    if (c->u.job.ttl_ms == 0 || c->u.job.ttl_ms > LIMIT_JOB_TTL_MS_MAX) {
        *why = "ttl_ms: 1 to 2592000000 (30 days)";
        return ERR_INVALID_REQUEST;
    }
    return ERR_OK;
}

/* Forgets what ended first until the job (`old`, or a new one) with its new texts fits; nothing
 * when that would not be enough. */
static enum err make_room(struct engine *e, const struct job *old, const struct command *c,
                          const char **why) {
    struct job_table *t = &e->jobs;
    const struct engine_options *o = &e->options;
    uint64_t old_bytes = old == NULL ? 0 : text_bytes(old), ended_bytes = t->ended_bytes;
    uint64_t more = c->u.job.id.len + c->u.job.endpoints.len + c->u.job.metadata.len;
    if (old != NULL && old->ended_at_ms != 0) ended_bytes -= old_bytes;
    if (t->bytes - old_bytes - ended_bytes + more > o->jobs_bytes_max) {
        *why = turn_text(e,
                         "this job and the registered ones that have not ended, of all projects, "
                         "take more than %llu bytes: nothing was taken, try again when some have "
                         "ended",
                         (unsigned long long)o->jobs_bytes_max);
        return ERR_LIMIT_EXCEEDED;
    }
    if (old == NULL && t->count - t->ended_count >= o->jobs_max) {
        *why = turn_text(e,
                         "%u jobs are registered that have not ended, of all projects, and there "
                         "may be no more: nothing was taken, try again when some have",
                         o->jobs_max);
        return ERR_LIMIT_EXCEEDED;
    }
    LIST_FOR(n, next, &t->ended) {
        struct job *j = CONTAINER_OF(n, struct job, in_ended);
        bool fits = old != NULL || t->count < o->jobs_max;
        if (fits && t->bytes - old_bytes + more <= o->jobs_bytes_max) break;
        if (j != old) forget(e, j);
    }
    return ERR_OK;
}

static void put(struct engine *e, struct job *old, const struct command *c) {
    struct job *j = old;
    if (old == NULL) {
        j = job_add(e, e->jobs.next_number++, project_get(e, c->project), c->u.job.id,
                    c->u.job.endpoints, c->u.job.metadata);
        j->created_at_ms = e->time.wall_ms;
        turn_open(e);
        j->created_turn = e->turn_number;
    } else {
        count_job(&e->jobs, j, false);
        set_texts(j, j->id, c->u.job.endpoints, c->u.job.metadata);
        count_job(&e->jobs, j, true);
    }
    j->updated_at_ms = e->time.wall_ms;
    j->due_at_ms = e->time.wall_ms + c->u.job.ttl_ms;
    if (j->overdue && j->final_seq == 0) unend(e, j);
    if (old == NULL) look_back(e, j);
    arm(e, j);
    mark_dirty(e, j);
}

void job_put(struct engine *e, const struct command *c) {
    const char *message = NULL;
    struct job *old = NULL;
    enum err err = put_check(e, c, &message);
    if (err == ERR_OK) {
        old = find(e, c->project, c->u.job.id, id_hash(c->project, c->u.job.id));
        err = make_room(e, old, c, &message);
    }
    if (err == ERR_OK) put(e, old, c);
    struct effect *f = turn_effect(e, EFFECT_DONE, c->route);
    f->err = err;
    f->message = message;
    f->u.done.created = err == ERR_OK && old == NULL;
}

/* ---- turns ---- */

/* Returns about how many bytes that were. */
static size_t publish_overdue(struct engine *e, struct job *j) {
    struct buf body;
    char registered[RFC3339_SIZE];
    rfc3339_format(j->updated_at_ms, registered);
    buf_init(&body, OVERDUE_BODY_MAX);
    buf_append_str(&body, "{\"id\":");
    buf_append_json_string(&body, j->id);
    buf_printf(&body, ",\"ttl_ms\":%llu,\"registered_at\":\"%s\"}",
               (unsigned long long)(j->due_at_ms - j->updated_at_ms), registered);
    CHECK(!body.overflow);
    struct event event = {
        .project = j->project->id,
        .time_ms = j->due_at_ms,
        .type = slice_str("job.overdue"),
        .subject = j->id,
        .content_type = slice_str("application/json"),
        .body = buf_slice(&body),
    };
    size_t bytes = text_bytes(j) + body.len;
    j->overdue = true;
    end(e, j);
    j->overdue_seq = publish_own(e, &event);
    buf_free(&body);
    return bytes;
}

void jobs_run(struct engine *e) {
    struct job_table *t = &e->jobs;
    size_t bytes = 0;
    if (t->count == 0 || e->time.now_ms < t->retry_at_ms) return;
    for (int i = 0; i < JOBS_PER_TURN && bytes < OVERDUE_BYTES; i++) {
        struct heap_node *n = heap_min(&t->timers);
        if (n == NULL || n->at_ms > e->time.wall_ms) return;
        struct job *j = CONTAINER_OF(n, struct job, timer);
        if (j->ended_at_ms != 0) {
            forget(e, j);
        } else if (!e->room || e->blocked_by[0] != 0) {
            t->retry_at_ms = e->time.now_ms + JOB_RETRY_MS;
            return;
        } else {
            bytes += publish_overdue(e, j);
        }
    }
}

uint64_t jobs_next_ms(const struct engine *e, struct engine_time time) {
    const struct heap_node *n = heap_min(&e->jobs.timers);
    if (n == NULL) return UINT64_MAX;
    uint64_t at_ms = time.now_ms;
    if (n->at_ms > time.wall_ms) at_ms += n->at_ms - time.wall_ms;
    return at_ms > e->jobs.retry_at_ms ? at_ms : e->jobs.retry_at_ms;
}

void jobs_end_turn(struct engine *e) {
    LIST_FOR(n, next, &e->jobs.dirty) {
        struct job *j = CONTAINER_OF(n, struct job, in_dirty);
        struct arena *a = turn_arena(e);
        uint8_t key[KEY_U64_BYTES];
        size_t drop = j->count > LIMIT_JOB_EVENTS ? j->count - LIMIT_JOB_EVENTS : 0;
        uint64_t *seqs = arena_alloc(a, j->count * sizeof *seqs);
        uint8_t *states = arena_alloc(a, j->count);
        struct record_job row = {
            .project = j->project->id,
            .id = j->id,
            .endpoints = j->endpoints,
            .metadata = j->metadata,
            .created_at_ms = j->created_at_ms,
            .updated_at_ms = j->updated_at_ms,
            .due_at_ms = j->due_at_ms,
            .ended_at_ms = j->ended_at_ms,
            .events_total = j->events_total,
            .flags = j->overdue ? RECORD_JOB_OVERDUE : 0,
            .count = (uint32_t)copy_noted(j, drop, seqs, states),
            .seqs = seqs,
            .states = states,
        };
        batch_add(turn_batch(e), BATCH_PUT, STORE_JOBS, arena_copy(a, key_u64(key, j->number)),
                  record_job_encode(a, &row));
        list_unlink(n);
    }
}

/* ---- a restart ---- */

static bool recover_job(struct engine *e, uint64_t number, const struct record_job *r) {
    bool fits = r->id.len > 0 && r->id.len <= LIMIT_EVENT_SUBJECT_BYTES &&
                r->endpoints.len <= LIMIT_EVENT_ENDPOINTS_BYTES &&
                r->metadata.len <= LIMIT_EVENT_METADATA_BYTES && r->updated_at_ms < r->due_at_ms;
    if (!fits || r->project == 0) return false;
    if (find(e, r->project, r->id, id_hash(r->project, r->id)) != NULL) return false;
    if (r->count > 0 && r->seqs[r->count - 1] > e->last_seq) return false;
    struct job *j =
        job_add(e, number, project_get(e, r->project), r->id, r->endpoints, r->metadata);
    j->created_at_ms = r->created_at_ms;
    j->updated_at_ms = r->updated_at_ms;
    j->due_at_ms = r->due_at_ms;
    j->events_total = r->events_total;
    j->overdue = (r->flags & RECORD_JOB_OVERDUE) != 0;
    for (uint32_t i = 0; i < r->count; i++) {
        if (r->states[i] > JOB_EXPIRED) return false;
        keep_event(j, r->seqs[i], (enum job_state)r->states[i]);
    }
    count_job(&e->jobs, j, false);
    j->ended_at_ms = r->ended_at_ms;
    count_job(&e->jobs, j, true);
    arm(e, j);
    e->jobs.next_number = number + 1;
    return (j->overdue || j->final_seq != 0) == (j->ended_at_ms != 0);
}

static int ended_earlier(const void *a, const void *b) {
    const struct job *x = *(const struct job *const *)a, *y = *(const struct job *const *)b;
    if (x->ended_at_ms != y->ended_at_ms) return x->ended_at_ms < y->ended_at_ms ? -1 : 1;
    return x->number < y->number ? -1 : 1;
}

static void recover_ended(struct job_table *t) {
    struct job **ended = mem_alloc(t->count * sizeof *ended);
    size_t n = 0;
    for (size_t i = 0; i < t->timers.len; i++) {
        struct job *j = CONTAINER_OF(t->timers.nodes[i], struct job, timer);
        if (j->ended_at_ms != 0) ended[n++] = j;
    }
    if (n > 0) qsort(ended, n, sizeof *ended, ended_earlier);
    for (size_t i = 0; i < n; i++) list_push_back(&t->ended, &ended[i]->in_ended);
    free(ended);
}

/* One that does not decode is left to whoever needs it. */
static void recover_subjects(struct engine *e) {
    size_t bytes = 0;
    uint64_t seq = e->last_seq;
    for (int i = 0; i < RECOVER_SUBJECTS && bytes < RECOVER_BYTES && seq > e->trimmed_to; i++) {
        uint8_t key[KEY_U64_BYTES];
        struct slice value;
        struct event event;
        if (!store_get(e->store, STORE_JOURNAL, key_u64(key, seq), &value)) return;
        bytes += value.len;
        if (record_event_decode(seq, value, &event) && event.subject.len > 0) {
            remember_subject(&e->jobs, seq, id_hash(event.project, event.subject));
        }
        seq--;
    }
}

bool jobs_recover(struct engine *e, uint64_t *number) {
    struct arena arena;
    struct store_iter it;
    bool ok = true;
    arena_init(&arena);
    store_seek(e->store, STORE_JOBS, slice_of(NULL, 0), &it);
    for (; it.valid && ok; store_next(e->store, &it)) {
        struct record_job row;
        *number = key_read_u64(it.key, 0);
        arena_reset(&arena);
        ok = record_job_decode(&arena, it.value, &row) && recover_job(e, *number, &row);
    }
    store_iter_end(e->store, &it);
    arena_free(&arena);
    if (ok) recover_ended(&e->jobs);
    if (ok) recover_subjects(e);
    return ok;
}

/* ---- reading and checking ---- */

bool engine_job_get(struct engine *e, uint32_t project, struct slice id, struct job_info *out) {
    struct job *j = find(e, project, id, id_hash(project, id));
    if (j == NULL || j->created_turn > e->turns_durable) return false;
    prune_noted(j, durable_count(e, j));
    size_t durable = durable_count(e, j);
    enum job_state state = JOB_PENDING;
    if (j->action_seq != 0 && j->action_seq <= e->durable_seq) state = JOB_REQUIRES_ACTION;
    if (j->final_seq != 0 && j->final_seq <= e->durable_seq) state = j->final_state;
    *out = (struct job_info){
        .id = j->id,
        .endpoints = j->endpoints,
        .metadata = j->metadata,
        .created_at_ms = j->created_at_ms,
        .updated_at_ms = j->updated_at_ms,
        .due_at_ms = j->due_at_ms,
        .state = state,
        .overdue = j->overdue && j->overdue_seq <= e->durable_seq,
        .events_total = j->events_total - (j->count - durable),
        .seqs = j->seqs,
        .states = j->states,
        .seqs_count = durable,
    };
    return true;
}

static void check_job(const struct engine *e, const struct job *j) {
    const struct job_table *t = &e->jobs;
    CHECK(find(e, j->project->id, j->id, j->id_hash) == j); /* E11 */
    CHECK(id_hash(j->project->id, j->id) == j->id_hash);
    CHECK(heap_contains(&j->timer) && t->timers.nodes[j->timer.index] == &j->timer);
    CHECK(j->timer.at_ms == timer_wall_ms(j)); /* E12 */
    CHECK((j->ended_at_ms != 0) == (j->overdue || j->final_seq != 0));
    CHECK((j->ended_at_ms != 0) == !list_empty(&j->in_ended));
    CHECK(list_empty(&j->in_dirty) || e->turn != NULL);
    uint64_t last = 0, final_seq = 0, action_seq = 0;
    for (size_t i = 0; i < j->count; i++) { /* E13 */
        enum job_state state = (enum job_state)j->states[i];
        CHECK(j->seqs[i] > last && j->seqs[i] <= e->last_seq);
        last = j->seqs[i];
        if (final_seq == 0 && job_state_is_final(state)) final_seq = last;
        if (action_seq == 0 && state == JOB_REQUIRES_ACTION) action_seq = last;
    }
    CHECK(final_seq == j->final_seq && action_seq == j->action_seq);
    CHECK(j->events_total >= j->count && j->count <= NOTED_MAX);
}

uint32_t jobs_of(const struct engine *e, const struct project *project) {
    const struct heap *timers = &e->jobs.timers;
    uint32_t count = 0;
    for (size_t i = 0; i < timers->len; i++) {
        count += CONTAINER_OF(timers->nodes[i], struct job, timer)->project == project;
    }
    return count;
}

void jobs_check(const struct engine *e) {
    const struct job_table *t = &e->jobs;
    uint64_t bytes = 0, ended_bytes = 0, last_ms = 0;
    size_t count = 0, ended = 0;
    heap_check(&t->timers);
    for (size_t i = 0; i < t->by_id.cap; i++) {
        for (const struct job *j = t->by_id.slots[i].value; j != NULL; j = j->same) {
            check_job(e, j);
            count++;
            bytes += text_bytes(j);
            ended += j->ended_at_ms != 0;
            if (j->ended_at_ms != 0) ended_bytes += text_bytes(j);
        }
    }
    CHECK(count == t->count && count == t->timers.len); /* E11 */
    CHECK(bytes == t->bytes && ended_bytes == t->ended_bytes && ended == t->ended_count);
    for (const struct list *n = t->ended.next; n != &t->ended; n = n->next) { /* E12 */
        const struct job *j = CONTAINER_OF(n, struct job, in_ended);
        CHECK(j->ended_at_ms >= last_ms && ended > 0);
        last_ms = j->ended_at_ms;
        ended--;
    }
    CHECK(ended == 0);
}
