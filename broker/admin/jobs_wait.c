/* GET /v1/jobs/{id}:wait: a request that is answered when the job has an event of a type, when its
 * time is over, or when the broker stops. What is held of it is a struct job_wait; the rest is the
 * jobs room's. It ends with its answer, or with its client. */
#include <stdio.h>
#include <stdlib.h>

#include "broker/admin/access.h"
#include "broker/admin/events.h"
#include "broker/admin/jobs.h"
#include "broker/admin/query.h"
#include "broker/admin/webhooks.h"

#define TYPES_SIZE (LIMIT_JOB_WAIT_TYPES * (LIMIT_EVENT_TYPE_BYTES + 1))

/* Owned by the map of the room, under the request's handle. */
struct job_wait {
    struct admin *admin;
    uint64_t handle, wait;
    uint64_t key; /* number of the request's; 0: it had none */
    uint32_t project;
    size_t id_len;
    uint8_t id[];
};

void job_waits_forget(struct admin *a, uint64_t handle) {
    struct job_wait *w = map_remove(&a->job_waits, handle);
    if (w == NULL) return;
    jobs_cancel(a->options.jobs, w->wait);
    free(w);
}

void job_waits_free(struct admin *a) {
    for (size_t i = 0; i < a->job_waits.cap; i++) free(a->job_waits.slots[i].value);
    map_free(&a->job_waits);
}

void job_waits_on_key_ended(struct admin *a, uint64_t number) {
    for (size_t i = 0; i < a->job_waits.cap;) {
        struct job_wait *w = a->job_waits.slots[i].value;
        if (w == NULL || w->key != number) {
            i++;
            continue;
        }
        /* Taking it out may move another one into its place: this one is looked at again. */
        uint64_t handle = w->handle;
        job_waits_forget(a, handle);
        access_refuse_held(a, handle, number);
    }
}

/* ---- the question ---- */

/* "60s", "500ms", "10m", or seconds without a unit. */
static bool read_timeout(const struct http_request *r, uint64_t *out, struct refusal *f) {
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"", 1000}};
    char text[32];
    bool found = false;
    uint64_t n = 0;
    *out = LIMIT_JOB_WAIT_MS_DEFAULT;
    if (!query_text(r, "timeout", text, sizeof text, &found, f)) return false;
    if (!found) return true;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        size_t len = strlen(text), unit = strlen(units[i].unit);
        if (len < unit || strcmp(text + len - unit, units[i].unit) != 0) continue;
        if (!slice_to_u64(slice_of(text, len - unit), &n) ||
            n > LIMIT_JOB_WAIT_MS_MAX / units[i].ms) {
            break;
        }
        *out = n * units[i].ms;
        return true;
    }
    return refuse(f, ERR_INVALID_REQUEST,
                  "the query parameter timeout must be a time like 60s, 500ms or 10m, at most 10m");
}

static bool add_type(struct job_question *q, struct slice *types, struct slice type,
                     struct refusal *f) {
    if (!type_glob_ok(type)) {
        bool whole = type.len <= 64;
        if (!whole) type.len = 64;
        return refuse(f, ERR_INVALID_REQUEST,
                      "the query parameter types: \"%.*s%s\" is not an event type: %s",
                      SLICE_ARG(type), whole ? "" : "...", type_glob_rule);
    }
    if (q->types_count == LIMIT_JOB_WAIT_TYPES) {
        return refuse(f, ERR_INVALID_REQUEST, "the query parameter types has more than %d types",
                      LIMIT_JOB_WAIT_TYPES);
    }
    types[q->types_count++] = type;
    return true;
}

/* Comma-separated globs; text and array are in the arena. */
static bool read_types(struct admin *a, const struct http_request *r, struct job_question *q,
                       struct refusal *f) {
    char *text = arena_alloc(&a->arena, TYPES_SIZE);
    struct slice *types = arena_alloc(&a->arena, LIMIT_JOB_WAIT_TYPES * sizeof *types);
    bool found = false;
    if (!query_text(r, "types", text, TYPES_SIZE, &found, f)) return false;
    if (!found || text[0] == '\0') return true;
    q->types = types;
    for (const char *at = text; at != NULL;) {
        const char *comma = strchr(at, ',');
        size_t len = comma == NULL ? strlen(at) : (size_t)(comma - at);
        if (!add_type(q, types, slice_of(at, len), f)) return false;
        at = comma == NULL ? NULL : comma + 1;
    }
    return true;
}

static bool read_question(struct admin *a, const struct http_request *r, struct slice last,
                          struct job_question *q, struct refusal *f) {
    static const char *const known[] = {"timeout", "types", "after_seq", NULL};
    uint64_t timeout_ms = 0;
    if (!query_known(r, known, f) || !job_id_read(a, last, &q->id, f) ||
        !read_timeout(r, &timeout_ms, f) || !read_types(a, r, q, f) ||
        !query_u64(r, "after_seq", 0, INT64_MAX, &q->after_seq, NULL, f)) {
        return false;
    }
    q->until_ms = loop_now_ms(a->options.loop) + timeout_ms;
    return true;
}

/* ---- the answer ---- */

static void answer(struct admin *a, uint64_t handle, struct slice id, enum job_answer how,
                   uint64_t seq) {
    struct job_info job;
    struct event event;
    if (how == JOB_REFUSED) {
        http_respond_error(*a->options.http, handle, ERR_OVERLOADED,
                           "%d requests wait for jobs already: ask again later", LIMIT_JOB_WAITS);
        return;
    }
    if (how == JOB_UNKNOWN || !engine_job_get(a->options.engine, a->project, id, &job)) {
        job_answer_unknown(a, handle, id);
        return;
    }
    struct buf *b = answer_begin(a);
    put_job(a, b, &job);
    if (how == JOB_EVENT && engine_event_get(a->options.engine, a->project, seq, &event)) {
        put_key(b, "event");
        event_put(b, &event);
    }
    answer_send(a, handle, 200);
}

static void on_answer(void *ctx, uint64_t wait, enum job_answer how, uint64_t seq) {
    struct job_wait *w = ctx;
    CHECK(w->wait == wait);
    struct admin *a = w->admin;
    /* So that a client that goes at this moment is not ours any more. */
    map_remove(&a->job_waits, w->handle);
    a->project = w->project;
    answer(a, w->handle, slice_of(w->id, w->id_len), how, seq);
    access_leave(a);
    free(w);
}

void job_waits_give_up(struct admin *a, uint64_t handle) {
    struct job_wait *w = map_get(&a->job_waits, handle);
    if (w == NULL) return;
    jobs_cancel(a->options.jobs, w->wait);
    on_answer(w, w->wait, JOB_NOTHING, 0);
}

void jobs_hold(struct admin *a, const struct http_request *r, struct slice last) {
    struct job_question q = {.project = a->project, .fn = on_answer};
    struct refusal f;
    enum job_answer how = JOB_NOTHING;
    uint64_t seq = 0;
    if (!read_question(a, r, last, &q, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    struct job_wait *w = mem_alloc(sizeof *w + q.id.len);
    w->admin = a;
    w->handle = r->handle;
    w->key = access_key_number(a);
    w->project = a->project;
    w->id_len = q.id.len;
    memcpy(w->id, q.id.data, q.id.len);
    q.ctx = w;
    w->wait = jobs_wait(a->options.jobs, &q, &how, &seq);
    if (w->wait != 0) {
        map_add(&a->job_waits, w->handle, w);
        return;
    }
    free(w);
    answer(a, r->handle, q.id, how, seq);
}
