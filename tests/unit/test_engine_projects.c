/* Projects: the same names in each, and nothing of one is there for another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/engine/dedupe.h"
#include "tests/unit/engine_world.h"

#define A        PROJECT_DEFAULT
#define B        2u
#define C        UINT32_MAX /* a project's number says nothing about how many there are */
#define HOUR     3600000
#define NOBODY   77u /* a project that nobody has spoken for */
#define SESSION  5
#define WINDOW   20
#define SECRET   "only-of-b" /* a name that A must never be told */
#define ID_BYTES 8

static const uint32_t projects[] = {A, B, C};

/* Runs what follows for one project. */
static void speak(struct world *w, uint32_t project) {
    char text[32];
    w->project = project;
    snprintf(text, sizeof text, "as %u", project == C ? 3 : project);
    world_note(w, text);
}

/* An event with a source, an id and a body, as three of two providers. */
static void take_in(struct world *w, const char *id, const char *body, bool by_body) {
    const struct event event = {.source = slice_str("gemini"),
                                .id = slice_str(id),
                                .type = slice_str("t"),
                                .body = slice_str(body)};
    struct command c = {.kind = COMMAND_PUBLISH, .project = world_project(w)};
    c.u.publish.events = &event;
    c.u.publish.count = 1;
    c.u.publish.dedupe_by_body = by_body;
    world_run(w, &c);
}

/* ---- events ---- */

static void an_event_reaches_its_own_project(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    for (uint64_t i = 0; i < 3; i++) {
        speak(&w, projects[i]);
        world_create(&w, "s", NULL, NULL, START_FIRST);
        world_attach(&w, i + 1, "s", WINDOW, 0);
    }
    for (int i = 0; i < 3; i++) {
        speak(&w, projects[i]);
        world_publish(&w, "t", "");
    }
    world_expect(&w,
                 "-- as 1\n[1000] done created\n[1000] attached 1 backlog 0\n"
                 "-- as 2\n[1000] done created\n[1000] attached 2 backlog 0\n"
                 "-- as 3\n[1000] done created\n[1000] attached 3 backlog 0\n"
                 "-- as 1\n[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 t fails 0 deliveries 1\n"
                 "-- as 2\n[1000] published 2\n"
                 "[1000] 2 < tag 1 seq 2 t fails 0 deliveries 1 of project 2\n"
                 "-- as 3\n[1000] published 3\n"
                 "[1000] 3 < tag 1 seq 3 t fails 0 deliveries 1 of project 4294967295\n");
    world_close(&w);
}

/* Not by the index, which has each event's own project only, but by reading the journal: from its
 * start, by a replay, by a count, and after a restart. */
static void a_reader_of_the_journal_passes_what_is_others(void **state) {
    (void)state;
    struct policy p = world_policy();
    struct world w = {0};
    world_open(&w);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3; i++) {
            w.project = projects[i];
            world_publish(&w, "t", "");
        }
    }
    buf_clear(&w.log);
    speak(&w, B); /* its events are 2, 5 and 8 */
    world_create(&w, "s", NULL, &p, START_FIRST);
    world_attach(&w, 1, "s", 2, 0);
    world_show(&w, "s");
    world_restart(&w);
    world_note(&w, "restart");
    world_attach(&w, 2, "s", WINDOW, 0);
    world_settle(&w, COMMAND_ACK, 2, 1, 3, true);
    world_show(&w, "s");
    world_task(&w, TASK_COUNT, "s", 1, 9, 0, "");
    world_show_task(&w, 2);
    world_task(&w, TASK_REPLAY, "s", 1, 7, 0, "");
    world_settle(&w, COMMAND_ACK, 2, 4, 5, true);
    world_show_task(&w, 3);
    world_expect(&w,
                 "-- as 2\n[1000] done created\n[1000] attached 1 backlog 9\n"
                 "[1000] 1 < tag 1 seq 2 t fails 0 deliveries 1 of project 2\n"
                 "[1000] 1 < tag 2 seq 5 t fails 0 deliveries 1 of project 2\n"
                 "s: floor 2 next 6 ready 0 leased 2 delayed 0 dead 0 idle window\n"
                 "-- restart\n[1000] attached 2 backlog 4\n"
                 "[1000] 2 < tag 1 seq 2 t fails 0 deliveries 1 of project 2\n"
                 "[1000] 2 < tag 2 seq 8 t fails 0 deliveries 1 of project 2\n"
                 "[1000] 2 < tag 3 seq 5 t fails 0 deliveries 1 of project 2\n"
                 "[1000] 2 settled ok 1-3\n"
                 "s: floor 10 next 10 ready 0 leased 0 delayed 0 dead 0 idle empty\n"
                 "[1000] done created\n"
                 "count 2: finished 1-9 next 10 matched 3 acked 0 expired 0\n"
                 "[1000] done created\n"
                 "[1000] 2 < tag 4 seq 2 t fails 0 deliveries 1 replay of project 2\n"
                 "[1000] 2 < tag 5 seq 5 t fails 0 deliveries 1 replay of project 2\n"
                 "[1000] 2 settled ok 4-5\n"
                 "replay 3: finished 1-7 next 8 matched 2 acked 2 expired 0\n");
    world_close(&w);
}

/* Retention counts as expired what the subscription would have wanted. */
static void what_expires_is_counted_by_its_project(void **state) {
    (void)state;
    struct policy p = policy_default();
    struct world w = {.quiet = true};
    p.lag = LAG_EXPIRE;
    world_open(&w);
    for (int i = 0; i < 2; i++) {
        w.project = projects[i];
        world_create(&w, "s", NULL, &p, START_FIRST);
    }
    for (int i = 0; i < 9; i++) {
        w.project = i % 3 == 0 ? B : A;
        world_publish(&w, "t", "");
    }
    world_wait(&w, 5000);
    w.project = C;
    world_publish(&w, "t", ""); /* the newest stays */
    world_retain(&w, 1000, 0, 0);
    w.project = A;
    world_show(&w, "s");
    w.project = B;
    world_show(&w, "s");
    world_expect(&w,
                 "s: floor 10 next 10 ready 0 leased 0 delayed 0 dead 0 idle no_workers expired 6\n"
                 "s: floor 10 next 10 ready 0 leased 0 delayed 0 dead 0 idle no_workers expired "
                 "3\n");
    world_close(&w);
}

static void the_same_id_is_new_in_another_project(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) {
            speak(&w, projects[i]);
            take_in(&w, "m1", "1", false);
            take_in(&w, "", "the body", true);
        }
        world_crash(&w);
    }
    world_expect(&w,
                 "-- as 1\n[1000] published 1\n[1000] published 2\n"
                 "-- as 2\n[1000] published 3\n[1000] published 4\n"
                 "-- as 3\n[1000] published 5\n[1000] published 6\n"
                 "-- as 1\n[1000] published 1 duplicate\n[1000] published 2 duplicate\n"
                 "-- as 2\n[1000] published 3 duplicate\n[1000] published 4 duplicate\n"
                 "-- as 3\n[1000] published 5 duplicate\n[1000] published 6 duplicate\n");
    world_close(&w);
}

struct tagged {
    uint32_t tag, project;
};

static int by_tag(const void *a, const void *b) {
    const struct tagged *x = a, *y = b;
    if (x->tag != y->tag) return x->tag < y->tag ? -1 : 1;
    return x->project < y->project ? -1 : x->project > y->project;
}

/* The table of ids keeps 32 bits of a fingerprint: two of so many projects share them. */
static void ids_whose_fingerprints_meet_are_told_apart(void **state) {
    (void)state;
    enum { MANY = 400000 };
    struct tagged *v = malloc(MANY * sizeof *v);
    assert_non_null(v);
    for (uint32_t i = 0; i < MANY; i++) {
        struct event event = {
            .project = i + 1, .source = slice_str("gemini"), .id = slice_str("m1")};
        v[i] = (struct tagged){(uint32_t)(dedupe_fingerprint(&event) >> 32), i + 1};
    }
    qsort(v, MANY, sizeof *v, by_tag);
    size_t met = 1;
    while (met < MANY && v[met].tag != v[met - 1].tag) met++;
    assert_true(met < MANY);
    struct world w = {0};
    world_open(&w);
    w.project = v[met - 1].project;
    take_in(&w, "m1", "1", false);
    w.project = v[met].project;
    take_in(&w, "m1", "1", false);
    take_in(&w, "m1", "1", false);
    world_expect(&w, "[1000] published 1\n[1000] published 2\n[1000] published 2 duplicate\n");
    world_close(&w);
    free(v);
}

/* ---- names ---- */

static void each_command_on_a_name(struct world *w, const char *name) {
    struct policy p = world_policy();
    struct command attach = attach_command(99, name, WINDOW, 0);
    attach.project = world_project(w);
    world_update(w, name, &p);
    world_pause(w, name, true);
    world_seek(w, name, START_FIRST, 0);
    for (int kind = TASK_REPLAY; kind <= TASK_PURGE; kind++) {
        world_task(w, (enum task_kind)kind, name, 0, 0, 0, "");
    }
    world_run(w, &attach);
    world_delete(w, name);
}

/* The answers to a name, and what may have been changed by asking. */
static void what_is_anothers_is_answered_as_what_never_was(void **state) {
    (void)state;
    struct world w = {0};
    struct buf as_another;
    world_open(&w);
    w.project = B;
    world_create(&w, SECRET, NULL, NULL, START_FIRST);
    world_publish(&w, "t", "");
    world_task(&w, TASK_REPLAY, SECRET, 1, 1, 0, "");
    world_job_put(&w, SECRET, "", "", HOUR);
    world_attach(&w, 1, SECRET, WINDOW, 0);
    buf_clear(&w.log);

    buf_init(&as_another, 1 << 16);
    const uint32_t askers[] = {A, C, NOBODY};
    for (int i = 0; i < 3; i++) {
        w.project = askers[i];
        each_command_on_a_name(&w, SECRET);
        world_cancel(&w, 2); /* B's replay */
        world_show_job(&w, SECRET);
    }
    buf_append_slice(&as_another, buf_slice(&w.log));
    buf_clear(&w.log);
    /* The same where nobody has anything, with a name that is as long. */
    struct world empty = {.time = w.time};
    world_open(&empty);
    for (int i = 0; i < 3; i++) {
        empty.project = askers[i];
        each_command_on_a_name(&empty, SECRET);
        world_cancel(&empty, 2);
        world_show_job(&empty, SECRET);
    }
    assert_true(slice_eq(buf_slice(&as_another), buf_slice(&empty.log)));
    buf_free(&as_another);
    world_close(&empty);

    w.project = B;
    world_show(&w, SECRET); /* not paused, not sought, its worker is there */
    world_show_task(&w, 2);
    world_expect(&w, SECRET
                 ": floor 1 next 2 ready 0 leased 2 delayed 0 dead 0 idle empty\n"
                 "replay 2: running 1-1 next 2 matched 1 acked 0 expired 0\n");
    world_close(&w);
}

static void the_same_names_are_three_things(void **state) {
    (void)state;
    struct policy p = world_policy();
    struct world w = {0};
    world_open(&w);
    for (uint32_t i = 0; i < 3; i++) {
        speak(&w, projects[i]);
        p.max_fails = i + 1;
        world_create(&w, "s", NULL, &p, START_NEW); /* another policy is no mismatch */
        world_create(&w, "s", NULL, &p, START_NEW);
    }
    speak(&w, B);
    world_pause(&w, "s", true);
    speak(&w, A);
    world_delete(&w, "s");
    world_restart(&w);
    struct subscription_info s;
    assert_false(engine_subscription_get(w.engine, A, slice_str("s"), &s));
    assert_true(engine_subscription_get(w.engine, B, slice_str("s"), &s));
    assert_true(s.paused && s.policy.max_fails == 2 && s.id == 2);
    assert_true(engine_subscription_get(w.engine, C, slice_str("s"), &s));
    assert_true(!s.paused && s.policy.max_fails == 3 && s.id == 3);
    store_end_reads(w.store);
    world_expect(&w,
                 "-- as 1\n[1000] done created\n[1000] done\n"
                 "-- as 2\n[1000] done created\n[1000] done\n"
                 "-- as 3\n[1000] done created\n[1000] done\n"
                 "-- as 2\n[1000] done\n-- as 1\n[1000] done\n");
    world_close(&w);
}

/* ---- what is read ---- */

static bool note_seq(void *ctx, const struct event *event) {
    buf_printf(ctx, " %llu", (unsigned long long)event->seq);
    return true;
}

static bool note_dead(void *ctx, const struct dead_letter *d) {
    buf_printf(ctx, " %llu", (unsigned long long)d->event.seq);
    return true;
}

/* Everything that a project is shown. */
static void show_all(struct world *w, uint32_t project) {
    struct buf *b = &w->log;
    struct engine *e = w->engine;
    struct subscription_info s = {.name = slice_str("")}, worst[4];
    struct task_info t = {.id = 0};
    struct project_stats stats;
    struct job_info j;
    buf_append_str(b, "events");
    uint32_t scan = UINT32_MAX;
    uint64_t next = engine_events_scan(e, project, 1, &scan, note_seq, b);
    buf_printf(b, " next %llu got", (unsigned long long)next);
    for (uint64_t seq = 0; seq <= next; seq++) {
        struct event event;
        if (engine_event_get(e, project, seq, &event)) buf_printf(b, " %u", (unsigned)seq);
    }
    while (engine_subscription_next(e, project, s.name, &s)) {
        buf_printf(b, "\n%.*s id %u tasks %u acked %llu dead", SLICE_ARG(s.name), s.id, s.tasks,
                   (unsigned long long)s.acked_total);
        assert_true(engine_dead_scan(e, project, s.name, 0, 0, note_dead, b));
    }
    buf_printf(b, "\nbehind %zu", engine_subscriptions_behind(e, project, worst, 4));
    while (engine_task_next(e, project, t.id, &t)) {
        buf_printf(b, "\n%s %u on \"%.*s\" matched %llu", task_kind_name(t.kind), t.id,
                   SLICE_ARG(t.subscription), (unsigned long long)t.matched);
    }
    if (engine_job_get(e, project, slice_str("j"), &j)) {
        buf_printf(b, "\njob %.*s events %llu first %llu", SLICE_ARG(j.metadata),
                   (unsigned long long)j.events_total, (unsigned long long)j.seqs[0]);
    }
    engine_project_stats(e, project, &stats);
    buf_printf(b, "\nhas %u %u %u\n", stats.subscriptions, stats.tasks_running, stats.jobs);
    store_end_reads(w->store);
}

/* A and B have all of it, under the same names; C has a little. */
static void make_some_of_everything(struct world *w) {
    struct policy p = world_policy();
    w->quiet = true;
    world_open(w);
    for (uint64_t i = 0; i < 2; i++) {
        w->project = projects[i];
        world_create(w, "s", NULL, &p, START_FIRST);
        world_create(w, "t", "none", NULL, START_FIRST);
        world_job_put(w, "j", "", i == 0 ? "{\"of\":\"a\"}" : "{\"of\":\"b\"}", HOUR);
        world_attach(w, i + 1, "s", WINDOW, 0);
    }
    for (int round = 0; round < 3; round++) { /* A has 1, 3 and 5, B the others */
        for (int i = 0; i < 2; i++) {
            w->project = projects[i];
            world_job_event(w, "x", "j");
        }
    }
    world_settle(w, COMMAND_ACK, 1, 1, 1, true);
    world_nack(w, 1, 2, NACK_REJECT, 0, "a");
    world_nack(w, 2, 1, NACK_REJECT, 0, "b");
    world_nack(w, 2, 3, NACK_REJECT, 0, "b");
    w->project = A;
    world_task(w, TASK_COUNT, "s", 1, 6, 0, "");
    w->project = B;
    world_task(w, TASK_COUNT, "t", 1, 6, 0, "");
    world_task(w, TASK_COUNT, "s", 3, 6, 0, "");
    w->project = C;
    world_create(w, "s", NULL, NULL, START_NEW);
}

static void everyone_is_shown_what_is_theirs_also_after_a_restart(void **state) {
    (void)state;
    struct world w = {0};
    make_some_of_everything(&w);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++) {
            speak(&w, projects[i]);
            show_all(&w, projects[i]);
        }
        show_all(&w, NOBODY);
        world_expect(&w,
                     "-- as 1\nevents 1 3 5 next 7 got 1 3 5\n"
                     "s id 1 tasks 0 acked 1 dead 3\nt id 2 tasks 0 acked 0 dead\n"
                     "behind 1\ncount 5 on \"s\" matched 3\n"
                     "job {\"of\":\"a\"} events 3 first 1\nhas 2 0 1\n"
                     "-- as 2\nevents 2 4 6 next 7 got 2 4 6\n"
                     "s id 3 tasks 0 acked 0 dead 2 6\nt id 4 tasks 0 acked 0 dead\n"
                     "behind 1\ncount 6 on \"t\" matched 0\ncount 7 on \"s\" matched 2\n"
                     "job {\"of\":\"b\"} events 3 first 2\nhas 2 0 1\n"
                     "-- as 3\nevents next 7 got\ns id 8 tasks 0 acked 0 dead\n"
                     "behind 0\nhas 1 0 0\n"
                     "events next 7 got\nbehind 0\nhas 0 0 0\n");
        world_restart(&w);
    }
    world_close(&w);
}

/* A task outlives its subscription, and stays its project's. */
static void a_task_of_a_deleted_subscription(void **state) {
    (void)state;
    struct world w = {0};
    struct task_info t;
    make_some_of_everything(&w);
    w.project = B;
    world_delete(&w, "t");
    for (int round = 0; round < 2; round++) {
        assert_true(engine_task_get(w.engine, B, 6, &t) && t.subscription.len == 0);
        assert_false(engine_task_get(w.engine, A, 6, &t)); /* which still has a "t" */
        assert_true(engine_task_next(w.engine, A, 0, &t) && t.id == 5);
        assert_false(engine_task_next(w.engine, A, 5, &t));
        world_restart(&w);
    }
    world_close(&w);
}

/* ---- dead letters ---- */

static uint64_t dead_of(struct world *w, uint32_t project) {
    struct subscription_info s;
    assert_true(engine_subscription_get(w->engine, project, slice_str("s"), &s));
    store_end_reads(w->store);
    return s.dead;
}

static void dead_letters_are_purged_and_redriven_for_one_project(void **state) {
    (void)state;
    struct world w = {0};
    make_some_of_everything(&w);
    w.project = A;
    world_task(&w, TASK_PURGE, "s", 0, 0, 0, "");
    assert_true(dead_of(&w, A) == 0 && dead_of(&w, B) == 2);
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 0, "");
    assert_true(dead_of(&w, B) == 2);
    w.project = B;
    w.quiet = false;
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 0, "");
    world_wait(&w, 1);
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] 2 < tag 4 seq 2 x fails 0 deliveries 2 redrive of project 2\n"
                 "[1000] 2 < tag 5 seq 6 x fails 0 deliveries 2 redrive of project 2\n");
    assert_int_equal(dead_of(&w, B), 0);
    world_close(&w);
}

/* ---- claims ---- */

static void come(struct world *w, uint64_t attachment, uint64_t resumes, const struct claim *claims,
                 size_t count) {
    struct command c = attach_command(attachment, "s", WINDOW, 0);
    c.project = world_project(w);
    c.route.handle = attachment;
    c.u.attach.session = SESSION;
    c.u.attach.resumes = resumes;
    c.u.attach.claims = claims;
    c.u.attach.claims_count = count;
    world_run(w, &c);
}

/* B's worker knows A's session and what it holds: neither is there for it, nor does it end it. */
static void a_session_of_another_project_claims_nothing(void **state) {
    (void)state;
    static const struct claim claims[] = {{1, 1, false}, {2, 2, false}};
    struct world w = {.options = {.restart_grace_ms = 1000}};
    struct policy p = world_policy();
    world_open(&w);
    for (int i = 0; i < 2; i++) {
        w.project = projects[i];
        world_create(&w, "s", NULL, &p, START_NEW);
    }
    w.project = A;
    come(&w, 1, 0, NULL, 0);
    world_publish(&w, "t", "");
    world_publish(&w, "t", "");
    buf_clear(&w.log);
    speak(&w, B);
    come(&w, 2, SESSION, claims, 2);
    world_note(&w, "the same over a restart");
    world_restart(&w);
    come(&w, 3, SESSION, claims, 2);
    speak(&w, A);
    come(&w, 4, SESSION, claims, 2);
    world_settle(&w, COMMAND_ACK, 4, 1, 2, true);
    world_expect(&w,
                 "-- as 2\n[1000] attached 2 backlog 0\n[1000] 2 revoked tag 1 lost\n"
                 "[1000] 2 revoked tag 2 lost\n-- the same over a restart\n"
                 "[1000] attached 3 backlog 0\n[1000] 3 revoked tag 1 lost\n"
                 "[1000] 3 revoked tag 2 lost\n"
                 "-- as 1\n[1000] attached 4 backlog 0 resumed 2\n[1000] 4 settled ok 1-2\n");
    world_close(&w);
}

/* ---- jobs ---- */

static void a_job_lends_to_its_own_projects_events(void **state) {
    (void)state;
    struct world w = {.options = {.jobs_room = 1}};
    struct event event;
    world_open(&w);
    w.project = A;
    world_publish_due(&w, "x", "j", 0); /* before any job */
    w.project = B;
    world_publish_due(&w, "x", "j", 0);
    world_job_put(&w, "j", "https://b.example/", "{\"of\":\"b\"}", HOUR);
    w.project = A;
    world_job_put(&w, "j", "https://a.example/", "{\"of\":\"a\"}", 2 * HOUR);
    for (int i = 0; i < 3; i++) {
        w.project = projects[i];
        world_job_event(&w, "x.failed", "j"); /* 3, 4 and, of no job, 5 */
    }
    static const char *const of[] = {"", "{\"of\":\"a\"}", "{\"of\":\"b\"}", ""};
    for (int i = 1; i <= 3; i++) {
        assert_true(engine_event_get(w.engine, projects[i - 1], (uint64_t)(i + 2), &event));
        assert_true(slice_eq_str(event.metadata, of[i]));
        assert_true((event.endpoints.len == 0) == (i == 3));
        store_end_reads(w.store);
    }
    for (int i = 0; i < 2; i++) {
        w.project = projects[i];
        world_show_job(&w, "j"); /* with the one from before it, and not the other's */
    }
    world_expect(&w,
                 "[1000] published 1\n[1000] published 2\n[1000] done created\n"
                 "[1000] done created\n"
                 "[1000] job j seq 3\n[1000] published 3\n"
                 "[1000] job j seq 4 of project 2\n[1000] published 4\n[1000] published 5\n"
                 "j: failed due 7200000 events 2 [1 3]\n"
                 "j: failed due 3600000 events 2 [2 4]\n");
    world_close(&w);
}

static void overdue_is_said_in_the_jobs_project(void **state) {
    (void)state;
    struct world w = {.options = {.jobs_room = 1}};
    world_open(&w);
    for (uint64_t i = 0; i < 2; i++) {
        w.project = projects[i];
        world_create(&w, "s", NULL, NULL, START_NEW);
        world_attach(&w, i + 1, "s", WINDOW, 0);
    }
    w.project = B;
    world_job_put(&w, "j", "", "", HOUR);
    world_restart(&w);
    buf_clear(&w.log);
    for (uint64_t i = 0; i < 2; i++) {
        w.project = projects[i];
        world_attach(&w, i + 3, "s", WINDOW, 0);
    }
    world_wait(&w, HOUR);
    world_expect(&w,
                 "[1000] attached 3 backlog 0\n[1000] attached 4 backlog 0\n"
                 "[3601000] job j seq 1 of project 2\n"
                 "[3601000] 4 < tag 1 seq 1 job.overdue fails 0 deliveries 1 of project 2\n");
    world_close(&w);
}

/* ---- what the broker has in common ---- */

/* A subscription blocks the journal: its own project is told which, another one is not. */
static void who_blocks_is_told_to_its_own_project(void **state) {
    (void)state;
    struct engine_stats stats;
    struct world w = {.quiet = true};
    world_open(&w);
    w.project = B;
    world_create(&w, SECRET, NULL, NULL, START_FIRST);
    for (int i = 0; i < 4; i++) world_publish_many(&w, "t", 100);
    world_retain(&w, 0, 1000, 0);
    w.quiet = false;
    world_publish(&w, "t", "");
    w.project = A;
    world_publish(&w, "t", "");
    world_expect(&w,
                 "[1000] error blocked: the journal has its full size and subscription \"" SECRET
                 "\" still needs its oldest events: nothing was taken; let it catch up, seek it "
                 "forward, or set its lag to expire\n"
                 "[1000] error blocked: the journal has its full size and a subscription of "
                 "another project still needs its oldest events: nothing was taken, try again "
                 "later\n");
    engine_stats(w.engine, &stats);
    assert_true(slice_eq_str(stats.blocked_by, SECRET) && stats.blocked_by_project == B);
    world_close(&w);
}

/* No number of another project's. */
static void limits_are_told_without_others_counts(void **state) {
    (void)state;
    struct world w = {.quiet = true, .options = {.jobs_max = 3, .jobs_bytes_max = 100}};
    world_open(&w);
    w.project = B;
    world_job_put(&w, "b1", "", "", HOUR);
    world_job_put(&w, "b2", "", "", HOUR);
    w.project = A;
    w.quiet = false;
    char large[100];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = 0;
    world_job_put(&w, "a1", large, "", HOUR);
    world_job_put(&w, "a1", "", "", HOUR);
    world_job_put(&w, "a2", "", "", HOUR);
    world_expect(&w,
                 "[1000] error limit_exceeded: this job and the registered ones that have not "
                 "ended, of all projects, take more than 100 bytes: nothing was taken, try again "
                 "when some have ended\n"
                 "[1000] done created\n"
                 "[1000] error limit_exceeded: 3 jobs are registered that have not ended, of all "
                 "projects, and there may be no more: nothing was taken, try again when some "
                 "have\n");
    world_close(&w);
}

static void totals_are_a_projects_own(void **state) {
    (void)state;
    struct world w = {0};
    struct project_stats a, b;
    struct engine_stats all;
    struct policy p = world_policy();
    p.lease_ms = 1000;
    make_some_of_everything(&w);
    w.project = B;
    take_in(&w, "m1", "1", false);
    take_in(&w, "m1", "1", false);
    world_update(&w, "s", &p);
    engine_set_room(w.engine, false);
    world_publish_many(&w, "t", 3);
    engine_set_room(w.engine, true);
    world_wait(&w, 4000); /* what was out has expired, and comes again */
    engine_project_stats(w.engine, A, &a);
    engine_project_stats(w.engine, B, &b);
    engine_stats(w.engine, &all);
    assert_true(a.totals.published == 3 && b.totals.published == 4);
    assert_true(a.totals.duplicates == 0 && b.totals.duplicates == 1);
    assert_true(a.totals.refused == 0 && b.totals.refused == 3);
    assert_true(a.totals.acked == 1 && b.totals.acked == 0);
    assert_true(a.totals.nacked == 1 && b.totals.nacked == 2);
    assert_true(a.totals.dead == 1 && b.totals.dead == 2);
    assert_true(a.totals.expired == 1 && b.totals.expired > 1);
    assert_true(a.totals.delivered == 3 && b.totals.delivered >= 4);
    assert_true(a.attachments == 1 && b.attachments == 1 && all.attachments == 2);
    assert_int_equal(all.totals.published, 7);
    assert_int_equal(all.totals.delivered, a.totals.delivered + b.totals.delivered);
    world_restart(&w); /* they are since the start */
    engine_project_stats(w.engine, B, &b);
    assert_true(b.totals.published == 0 && b.totals.expired == 0 && b.subscriptions == 2);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_reaches_its_own_project),
        cmocka_unit_test(a_reader_of_the_journal_passes_what_is_others),
        cmocka_unit_test(what_expires_is_counted_by_its_project),
        cmocka_unit_test(the_same_id_is_new_in_another_project),
        cmocka_unit_test(ids_whose_fingerprints_meet_are_told_apart),
        cmocka_unit_test(what_is_anothers_is_answered_as_what_never_was),
        cmocka_unit_test(the_same_names_are_three_things),
        cmocka_unit_test(everyone_is_shown_what_is_theirs_also_after_a_restart),
        cmocka_unit_test(a_task_of_a_deleted_subscription),
        cmocka_unit_test(dead_letters_are_purged_and_redriven_for_one_project),
        cmocka_unit_test(a_session_of_another_project_claims_nothing),
        cmocka_unit_test(a_job_lends_to_its_own_projects_events),
        cmocka_unit_test(overdue_is_said_in_the_jobs_project),
        cmocka_unit_test(who_blocks_is_told_to_its_own_project),
        cmocka_unit_test(limits_are_told_without_others_counts),
        cmocka_unit_test(totals_are_a_projects_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
