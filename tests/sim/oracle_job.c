/* What is registered of jobs. The model follows the open engine, command by command; what is
 * durable is what it was at the end of the turn whose batch is the last on the disk, so each turn
 * leaves a copy behind. */
#include <stdlib.h>

#include "tests/sim/oracle.h"

static const struct {
    uint8_t endpoints; /* of fact_endpoints */
    uint8_t group, n;  /* group 0: no metadata */
} configs[JOB_CONFIGS] = {{0, 0, 0}, {2, 1, 1}, {1, 0, 0}, {0, 2, 3}};

/* How the model was when a turn ended. */
struct job_page {
    struct job_page *next;
    uint32_t notes, seen; /* events of jobs, and EFFECT_JOBs of them */
    struct known_job jobs[JOBS];
    struct fact overdue[JOBS]; /* that this turn published, by its job; mark 0: none */
    uint64_t overdue_seq[JOBS];
};

static struct engine *engine_of(struct oracle *o) {
    return o->w.engine;
}

/* Key 0 is no job's. */
#define EACH_JOB(k)                                                                                \
    for (int k = 0; k < JOBS; k++)                                                                 \
        if (JOB_KEY(k) != 0)

static int job_of(uint32_t project, struct slice subject) {
    int p = project_place(project);
    CHECK(p >= 0);
    for (int k = 1; k < KEYS; k++) {
        if (slice_eq_str(subject, fact_subjects[k])) return JOB_OF(p, k);
    }
    return 0;
}

static struct slice id_of(int k) {
    return slice_str(fact_subjects[JOB_KEY(k)]);
}

static bool noted(const struct known_job *j, uint64_t seq) {
    return (j->noted[seq / 8] >> seq % 8 & 1) != 0;
}

static struct slice config_metadata(int config, struct fact_texts *t) {
    struct fact f = {.id = -1, .group = configs[config].group, .n = configs[config].n};
    if (f.group == 0) return slice_of(NULL, 0);
    return fact_event(&f, t).metadata;
}

static struct slice config_endpoints(int config) {
    return slice_str(fact_endpoints[configs[config].endpoints]);
}

/* ---- the model ---- */

static uint64_t later(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

static void job_ends(struct oracle *o, struct known_job *j) {
    uint64_t at_ms = o->w.time.wall_ms;
    EACH_JOB(k) { /* of whatever project: they end in one order */
        const struct known_job *other = &o->jobs[k];
        if (other != j && other->exists) at_ms = later(at_ms, other->ended_ms);
    }
    j->ended_ms = later(at_ms, 1);
}

static void job_notes(struct oracle *o, struct known_job *j, uint64_t seq, struct slice type) {
    bool final = slice_eq_str(type, fact_types[FACT_FAILED]);
    j->total++;
    j->noted[seq / 8] |= (uint8_t)(1u << seq % 8);
    if (slice_eq_str(type, fact_types[FACT_ACTION]) && j->action_seq == 0) j->action_seq = seq;
    if (!final || j->final_seq != 0) return;
    j->final_seq = seq;
    job_ends(o, j);
}

static enum job_state state_of(const struct known_job *j) {
    if (j->final_seq != 0) return JOB_FAILED;
    return j->action_seq != 0 ? JOB_REQUIRES_ACTION : JOB_PENDING;
}

/* The last ones, and the two that make the state. */
static size_t kept(const struct known_job *j, uint64_t seqs[LIMIT_JOB_EVENTS]) {
    size_t pinned = (j->final_seq != 0) + (j->action_seq != 0), others = 0, n = 0;
    uint64_t from = EVENTS_MAX;
    while (from > 1) {
        uint64_t seq = from - 1;
        bool other = noted(j, seq) && seq != j->final_seq && seq != j->action_seq;
        if (other && others == LIMIT_JOB_EVENTS - pinned) break;
        others += other;
        from--;
    }
    for (uint64_t seq = 1; seq < EVENTS_MAX; seq++) {
        bool pin = seq == j->final_seq || seq == j->action_seq;
        if (noted(j, seq) && (seq >= from || pin)) seqs[n++] = seq;
    }
    CHECK(n <= LIMIT_JOB_EVENTS);
    return n;
}

static uint64_t forget_at(const struct known_job *j) {
    return later(j->ended_ms, j->due_ms) + LIMIT_JOB_KEPT_MS;
}

static bool engine_has(struct oracle *o, int k) {
    const struct job_table *t = &engine_of(o)->jobs;
    for (size_t i = 0; i < t->timers.len; i++) {
        const struct job *j = CONTAINER_OF(t->timers.nodes[i], struct job, timer);
        if (j->project->id != project_ids[JOB_PROJECT(k)]) continue;
        if (slice_eq(j->id, id_of(k))) return true;
    }
    return false;
}

/* ---- asking ---- */

/* What ended first has gone, and only that. */
static void check_evicted(struct oracle *o, int put) {
    EACH_JOB(k) {
        struct known_job *j = &o->jobs[k];
        if (!j->exists || k == put || engine_has(o, k)) continue;
        CHECK(j->ended_ms != 0);
        j->exists = false;
        EACH_JOB(i) {
            const struct known_job *other = &o->jobs[i];
            if (!other->exists || other->ended_ms == 0 || i == put) continue;
            CHECK(other->ended_ms >= j->ended_ms);
        }
    }
}

static void look_back(struct oracle *o, int k) {
    struct engine *e = engine_of(o);
    uint64_t seqs[LIMIT_JOB_EVENTS];
    size_t n = 0;
    struct event event;
    for (uint64_t seq = e->last_seq; seq > e->trimmed_to && n < LIMIT_JOB_EVENTS; seq--) {
        bool there = event_read(e, seq, &event, NULL);
        CHECK(there);
        if (event.project != project_ids[JOB_PROJECT(k)]) continue;
        if (slice_eq(event.subject, id_of(k))) seqs[n++] = seq;
    }
    while (n-- > 0) {
        bool there = event_read(e, seqs[n], &event, NULL);
        CHECK(there);
        job_notes(o, &o->jobs[k], seqs[n], event.type);
    }
}

void oracle_job_put(struct oracle *o, struct command *c, struct asked *a, int k, int config) {
    struct known_job *j = &o->jobs[k];
    struct fact_texts texts;
    uint32_t running = 0;
    EACH_JOB(i) running += o->jobs[i].exists && o->jobs[i].ended_ms == 0;
    if (!o->room) a->err = ERR_NO_ROOM;
    else if (!j->exists && running >= engine_of(o)->options.jobs_max) a->err = ERR_LIMIT_EXCEEDED;
    c->u.job.id = id_of(k);
    c->u.job.endpoints = config_endpoints(config);
    c->u.job.metadata = config_metadata(config, &texts);
    a->err_known = true;
    a->flag = !j->exists;
    oracle_step(o, c);
    if (a->err != ERR_OK) return;
    check_evicted(o, k);
    if (!j->exists) {
        *j = (struct known_job){.exists = true, .created_ms = o->w.time.wall_ms};
        look_back(o, k);
    }
    j->config = config;
    j->updated_ms = o->w.time.wall_ms;
    j->due_ms = o->w.time.wall_ms + c->u.job.ttl_ms;
    if (j->overdue && j->final_seq == 0) {
        j->overdue = false;
        j->ended_ms = 0;
    }
}

static void lend(struct fact *f, int config) {
    if (f->endpoints == 0) {
        f->endpoints = configs[config].endpoints;
        f->lent_endpoints = true;
    }
    if (!f->bare || configs[config].group == 0) return;
    f->lent_metadata = true;
    f->group = configs[config].group;
    f->n = configs[config].n;
}

void job_published(struct oracle *o, struct asked *a) {
    const struct engine_turn *t = engine_of(o)->turn;
    const struct effect *f = &t->effects[t->effects_count - 1];
    CHECK(f->kind == EFFECT_PUBLISHED);
    for (size_t i = 0; i < f->u.published.count; i++) {
        if (f->u.published.results[i].duplicate) continue;
        uint64_t seq = f->u.published.results[i].seq;
        struct fact *fact = &a->facts[i];
        struct known_job *j = &o->jobs[JOB_OF(fact->project, fact->subject)];
        CHECK(seq < EVENTS_MAX);
        if (fact->subject == 0 || !j->exists) continue;
        lend(fact, j->config);
        job_notes(o, j, seq, slice_str(fact_types[fact->type]));
        o->job_notes++;
    }
}

/* ---- turns ---- */

static void note_overdue(struct oracle *o, struct job_page *page, const struct event *event) {
    int k = job_of(event->project, event->subject);
    struct known_job *j = &o->jobs[k];
    CHECK(JOB_KEY(k) != 0 && j->exists && j->ended_ms == 0); /* neither final nor overdue: once */
    CHECK(o->w.time.wall_ms >= j->due_ms && o->room);
    CHECK(event->seq < EVENTS_MAX && page->overdue_seq[k] == 0);
    struct fact *f = &page->overdue[k];
    *f = (struct fact){.project = (uint8_t)JOB_PROJECT(k),
                       .type = FACT_OVERDUE,
                       .subject = (uint8_t)JOB_KEY(k),
                       .id = -1,
                       .bare = true,
                       .mark = 1,
                       .ttl_ms = j->due_ms - j->updated_ms,
                       .registered_ms = j->updated_ms,
                       .published_ms = o->w.time.wall_ms};
    lend(f, j->config);
    page->overdue_seq[k] = event->seq;
    j->overdue = true;
    job_ends(o, j);
    job_notes(o, j, event->seq, event->type);
    o->job_notes++;
    o->counts[JOB_PROJECT(k)].published++;
}

/* What is due has happened, but when there was no room for it. */
static void check_in_time(struct oracle *o) {
    const struct engine *e = engine_of(o);
    uint64_t wall_ms = o->w.time.wall_ms;
    EACH_JOB(k) {
        struct known_job *j = &o->jobs[k];
        if (!j->exists) continue;
        if (!engine_has(o, k)) {
            CHECK(j->ended_ms != 0 && wall_ms >= forget_at(j));
            j->exists = false;
        }
        if (o->w.time.now_ms < e->jobs.retry_at_ms) continue;
        CHECK(j->ended_ms != 0 || wall_ms < j->due_ms);
        CHECK(!j->exists || j->ended_ms == 0 || wall_ms < forget_at(j));
    }
}

void job_turn(struct oracle *o, const struct engine_turn *turn) {
    struct job_page *page = NULL;
    if (turn != NULL) {
        page = mem_zalloc(sizeof *page);
        for (size_t i = 0; i < turn->events->count; i++) {
            const struct event *event = &turn->events->v[i];
            if (slice_eq_str(event->type, fact_types[FACT_OVERDUE])) note_overdue(o, page, event);
        }
    }
    check_in_time(o);
    if (page == NULL) return;
    page->notes = o->job_notes;
    o->job_notes = 0;
    memcpy(page->jobs, o->jobs, sizeof page->jobs);
    struct job_page **last = &o->job_pages;
    while (*last != NULL) last = &(*last)->next;
    *last = page;
}

const struct fact *job_effect(struct oracle *o, const struct effect *f) {
    struct job_page *page = o->job_pages;
    int k = job_of(f->u.job.project, f->u.job.id);
    CHECK(f->route.room == JOBS_ROOM && page != NULL && JOB_KEY(k) != 0);
    CHECK(f->u.job.seq < EVENTS_MAX && noted(&page->jobs[k], f->u.job.seq));
    CHECK(f->u.job.seq <= engine_of(o)->durable_seq);
    page->seen++;
    return page->overdue_seq[k] == f->u.job.seq ? &page->overdue[k] : NULL;
}

/* ---- what is durable ---- */

static void check_row(const struct known_job *j, const struct record_job *r) {
    uint64_t seqs[LIMIT_JOB_EVENTS];
    size_t n = kept(j, seqs);
    struct fact_texts texts;
    CHECK(j->exists && r->created_at_ms == j->created_ms && r->updated_at_ms == j->updated_ms);
    CHECK(r->due_at_ms == j->due_ms && r->ended_at_ms == j->ended_ms);
    CHECK(r->events_total == j->total && r->flags == (j->overdue ? RECORD_JOB_OVERDUE : 0));
    CHECK(slice_eq(r->endpoints, config_endpoints(j->config)));
    CHECK(slice_eq(r->metadata, config_metadata(j->config, &texts)));
    CHECK(r->count == n && (n == 0 || memcmp(r->seqs, seqs, n * sizeof *seqs) == 0));
}

void job_batch(struct oracle *o, const struct batch *batch) {
    struct job_page *page = o->job_pages;
    struct arena arena;
    CHECK(page != NULL && page->seen == page->notes); /* one EFFECT_JOB for each */
    arena_init(&arena);
    for (size_t i = 0; i < batch->len; i++) {
        const struct batch_op *op = &batch->ops[i];
        struct record_job r;
        if (op->table != STORE_JOBS || op->kind != BATCH_PUT) continue;
        bool decoded = record_job_decode(&arena, op->value, &r);
        CHECK(decoded);
        check_row(&page->jobs[job_of(r.project, r.id)], &r);
    }
    arena_free(&arena);
    memcpy(o->durable_jobs, page->jobs, sizeof page->jobs);
    o->job_pages = page->next;
    free(page);
}

void job_crash(struct oracle *o) {
    while (o->job_pages != NULL) {
        struct job_page *page = o->job_pages;
        o->job_pages = page->next;
        free(page);
    }
    o->job_notes = 0;
    memcpy(o->jobs, o->durable_jobs, sizeof o->jobs);
}

void oracle_check_jobs(struct oracle *o) {
    uint32_t of_project[PROJECTS] = {0}, there = 0;
    EACH_JOB(k) {
        const struct known_job *j = &o->jobs[k];
        struct job_info info;
        struct fact_texts texts;
        uint64_t seqs[LIMIT_JOB_EVENTS];
        size_t n = kept(j, seqs);
        uint32_t project = project_ids[JOB_PROJECT(k)];
        bool found = engine_job_get(engine_of(o), project, id_of(k), &info);
        CHECK(found == j->exists);
        of_project[JOB_PROJECT(k)] += found;
        there += found;
        if (!found) continue;
        CHECK(info.state == state_of(j) && info.overdue == j->overdue);
        CHECK(info.created_at_ms == j->created_ms && info.updated_at_ms == j->updated_ms);
        CHECK(info.due_at_ms == j->due_ms && info.events_total == j->total);
        CHECK(slice_eq(info.endpoints, config_endpoints(j->config)));
        CHECK(slice_eq(info.metadata, config_metadata(j->config, &texts)));
        CHECK(info.seqs_count == n);
        CHECK(n == 0 || memcmp(info.seqs, seqs, n * sizeof *seqs) == 0);
    }
    for (int p = 0; p < PROJECTS; p++) {
        struct project_stats stats;
        engine_project_stats(engine_of(o), project_ids[p], &stats);
        CHECK(stats.jobs == of_project[p]);
    }
    struct store_iter it;
    store_seek(o->w.store, STORE_JOBS, slice_of(NULL, 0), &it);
    for (; it.valid; store_next(o->w.store, &it)) there--;
    store_iter_end(o->w.store, &it);
    CHECK(there == 0); /* a row each */
}

bool oracle_jobs_ended(const struct oracle *o) {
    EACH_JOB(k) {
        if (o->jobs[k].exists && o->jobs[k].ended_ms == 0) return false;
    }
    return true;
}
