/* Waits for jobs. A wait is found by its number and by its job, and stands in a heap by its end.
 *
 * Whoever is answered may ask and cancel from inside: a wait is out of every table before its
 * function is called, and those that are next are in a list of their own. */
#include "broker/jobs/jobs.h"

#include <stdlib.h>

#include "base/glob.h"
#include "base/hash.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"

/* A job that is waited for. */
struct awaited {
    uint64_t id_hash; /* of project and id */
    uint32_t project;
    struct awaited *same; /* the next one whose id has this hash */
    struct list waits;
    size_t id_len;
    uint8_t id[];
};

struct wait {
    uint64_t number;
    struct awaited *job;
    job_answer_fn *fn;
    void *ctx;
    uint64_t after_seq;
    struct heap_node timer;
    struct list in_list; /* of its job; or those that are about to be answered */
    uint32_t types_count;
    struct slice types[]; /* and their bytes */
};

struct jobs {
    struct engine *engine;
    bool draining;
    uint64_t last_number;
    struct map awaited; /* by the hash of project and id */
    struct map waits;   /* by number */
    struct heap timers;
};

struct jobs *jobs_open(struct engine *e) {
    struct jobs *j = mem_zalloc(sizeof *j);
    j->engine = e;
    map_init(&j->awaited);
    map_init(&j->waits);
    heap_init(&j->timers);
    return j;
}

/* ---- the tables ---- */

static struct awaited *awaited_find(const struct jobs *j, uint32_t project, struct slice id) {
    struct awaited *a = map_get(&j->awaited, hash_bytes(project, id));
    while (a != NULL && (a->project != project || !slice_eq(slice_of(a->id, a->id_len), id))) {
        a = a->same;
    }
    return a;
}

static struct awaited *awaited_ensure(struct jobs *j, uint32_t project, struct slice id) {
    uint64_t hash = hash_bytes(project, id);
    struct awaited *a = awaited_find(j, project, id);
    if (a != NULL) return a;
    a = mem_alloc(sizeof *a + id.len);
    a->id_hash = hash;
    a->project = project;
    a->id_len = id.len;
    if (id.len > 0) memcpy(a->id, id.data, id.len);
    list_init(&a->waits);
    a->same = map_remove(&j->awaited, hash);
    map_add(&j->awaited, hash, a);
    return a;
}

static void awaited_free(struct jobs *j, struct awaited *a) {
    struct awaited *first = map_remove(&j->awaited, a->id_hash), **at = &first;
    while (*at != a) at = &(*at)->same;
    *at = a->same;
    if (first != NULL) map_add(&j->awaited, a->id_hash, first);
    free(a);
}

static struct wait *wait_new(struct jobs *j, const struct job_question *q) {
    size_t bytes = q->types_count * sizeof(struct slice), head = sizeof(struct wait) + bytes;
    for (size_t i = 0; i < q->types_count; i++) bytes += q->types[i].len;
    struct wait *w = mem_alloc(sizeof *w + bytes);
    uint8_t *at = (uint8_t *)w + head;
    *w = (struct wait){.number = ++j->last_number,
                       .fn = q->fn,
                       .ctx = q->ctx,
                       .after_seq = q->after_seq,
                       .types_count = (uint32_t)q->types_count};
    for (size_t i = 0; i < q->types_count; i++) {
        if (q->types[i].len > 0) memcpy(at, q->types[i].data, q->types[i].len);
        w->types[i] = slice_of(at, q->types[i].len);
        at += q->types[i].len;
    }
    return w;
}

/* Takes it out of every table but the list in which it stands. */
static void wait_untable(struct jobs *j, struct wait *w) {
    map_remove(&j->waits, w->number);
    heap_remove(&j->timers, &w->timer);
}

static void leave_job(struct jobs *j, struct wait *w) {
    struct awaited *a = w->job;
    list_unlink(&w->in_list);
    w->job = NULL;
    if (a != NULL && list_empty(&a->waits)) awaited_free(j, a);
}

static void answer(struct jobs *j, struct wait *w, enum job_answer what, uint64_t seq) {
    job_answer_fn *fn = w->fn;
    void *ctx = w->ctx;
    uint64_t number = w->number;
    leave_job(j, w);
    wait_untable(j, w);
    free(w);
    fn(ctx, number, what, seq);
}

/* ---- asking ---- */

static bool state_wanted(enum job_state state) {
    return state == JOB_REQUIRES_ACTION || job_state_is_final(state);
}

static bool type_wanted(const struct slice *types, size_t count, struct slice type) {
    for (size_t i = 0; i < count; i++) {
        if (glob_match(types[i], type)) return true;
    }
    return count == 0 && state_wanted(job_state_of_type(type));
}

/* The first event that is there already; 0: none. What a final event makes of the job is known even
 * when retention has taken the event. */
static uint64_t first_of(struct jobs *j, const struct job_info *info,
                         const struct job_question *q) {
    for (size_t i = 0; i < info->seqs_count; i++) {
        struct event event;
        uint64_t seq = info->seqs[i];
        if (seq <= q->after_seq) continue;
        if (q->types_count == 0) {
            if (state_wanted((enum job_state)info->states[i])) return seq;
        } else if (engine_event_get(j->engine, q->project, seq, &event) &&
                   type_wanted(q->types, q->types_count, event.type)) {
            return seq;
        }
    }
    return 0;
}

uint64_t jobs_wait(struct jobs *j, const struct job_question *q, enum job_answer *out,
                   uint64_t *seq) {
    struct job_info info;
    CHECK(q->types_count <= LIMIT_JOB_WAIT_TYPES && q->fn != NULL);
    *seq = 0;
    if (!engine_job_get(j->engine, q->project, q->id, &info)) {
        *out = JOB_UNKNOWN;
        return 0;
    }
    *seq = first_of(j, &info, q);
    *out = *seq != 0 ? JOB_EVENT : j->draining ? JOB_NOTHING : JOB_REFUSED;
    if (*seq != 0 || j->draining || j->waits.len >= LIMIT_JOB_WAITS) return 0;
    struct wait *w = wait_new(j, q);
    w->job = awaited_ensure(j, q->project, q->id);
    list_init(&w->in_list);
    list_push_back(&w->job->waits, &w->in_list);
    map_add(&j->waits, w->number, w);
    heap_node_init(&w->timer);
    heap_insert(&j->timers, &w->timer, q->until_ms);
    return w->number;
}

void jobs_cancel(struct jobs *j, uint64_t wait) {
    struct wait *w = map_get(&j->waits, wait);
    if (w == NULL) return;
    leave_job(j, w);
    wait_untable(j, w);
    free(w);
}

/* ---- answering ---- */

void jobs_on_effect(struct jobs *j, const struct effect *effect) {
    CHECK(effect->kind == EFFECT_JOB);
    struct slice id = effect->u.job.id;
    uint64_t seq = effect->u.job.seq;
    uint32_t project = effect->u.job.project;
    struct awaited *a = awaited_find(j, project, id);
    struct event event;
    /* Retention never takes an event in the turn that brought it. */
    if (a == NULL || !engine_event_get(j->engine, project, seq, &event)) return;
    struct list now;
    list_init(&now);
    LIST_FOR(n, next, &a->waits) {
        struct wait *w = CONTAINER_OF(n, struct wait, in_list);
        if (seq <= w->after_seq || !type_wanted(w->types, w->types_count, event.type)) continue;
        list_unlink(n);
        list_push_back(&now, n);
        w->job = NULL;
    }
    if (list_empty(&a->waits)) awaited_free(j, a);
    for (struct list *n = list_first(&now); n != NULL; n = list_first(&now)) {
        answer(j, CONTAINER_OF(n, struct wait, in_list), JOB_EVENT, seq);
    }
}

uint64_t jobs_on_turn(struct jobs *j, uint64_t now_ms) {
    uint64_t last = j->last_number; /* who asks again while being answered has its turn later */
    for (;;) {
        struct heap_node *n = heap_min(&j->timers);
        if (n == NULL) return UINT64_MAX;
        struct wait *w = CONTAINER_OF(n, struct wait, timer);
        if (n->at_ms > now_ms || w->number > last) return n->at_ms;
        answer(j, w, JOB_NOTHING, 0);
    }
}

void jobs_drain(struct jobs *j) {
    j->draining = true;
    for (struct heap_node *n = heap_min(&j->timers); n != NULL; n = heap_min(&j->timers)) {
        answer(j, CONTAINER_OF(n, struct wait, timer), JOB_NOTHING, 0);
    }
}

size_t jobs_waiting(const struct jobs *j) {
    return j->waits.len;
}

void jobs_close(struct jobs **out) {
    struct jobs *j = *out;
    if (j == NULL) return;
    for (struct heap_node *n = heap_min(&j->timers); n != NULL; n = heap_min(&j->timers)) {
        jobs_cancel(j, CONTAINER_OF(n, struct wait, timer)->number);
    }
    map_free(&j->awaited);
    map_free(&j->waits);
    heap_free(&j->timers);
    free(j);
    *out = NULL;
}
