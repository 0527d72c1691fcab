/* What bounds registered jobs in the engine: how many there are, their bytes, the events that each
 * keeps, how long it is known, and what a PUT refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "broker/engine/state.h"
#include "tests/unit/engine_world.h"

#define SECOND 1000
#define HOUR   (3600 * SECOND)

static void open_jobs(struct world *w) {
    w->options.jobs_room = 7;
    world_open(w);
}

static struct job_info job_get(struct world *w, const char *id) {
    struct job_info j;
    assert_true(engine_job_get(w->engine, PROJECT_DEFAULT, slice_str(id), &j));
    return j;
}

static void many_are_overdue_at_once(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    open_jobs(&w);
    for (int i = 0; i < 3000; i++) {
        char id[16];
        snprintf(id, sizeof id, "job%d", i);
        struct command c = {.kind = COMMAND_JOB_PUT, .project = PROJECT_DEFAULT};
        c.u.job.id = slice_str(id);
        c.u.job.ttl_ms = SECOND;
        world_step(&w, &c);
    }
    world_turn(&w);
    w.time.now_ms += SECOND;
    w.time.wall_ms += SECOND;
    struct engine_turn *turn = engine_end_turn(w.engine, w.time);
    assert_non_null(turn);
    assert_in_range(turn->events->count, 1, 1024); /* a turn stays short */
    assert_int_equal(engine_next_deadline(w.engine, w.time), w.time.now_ms);
    assert_int_equal(store_submit(w.store, &turn->batch), 0);
    world_turn(&w);
    struct engine_stats stats;
    engine_stats(w.engine, &stats);
    assert_int_equal(stats.last_seq, 3000);
    assert_int_equal(stats.totals.published, 3000);
    world_close(&w);
}

static void the_last_events_are_kept(void **state) {
    (void)state;
    struct world w = {.quiet = true};
    open_jobs(&w);
    world_job_put(&w, "j", "", "", HOUR);
    world_job_event(&w, "x.started", "j");         /* 1 */
    world_job_event(&w, "x.requires_action", "j"); /* 2 */
    world_job_event(&w, "x.running", "j");         /* 3 */
    world_job_event(&w, "x.failed", "j");          /* 4 */
    for (int i = 0; i < 100; i++) world_job_event(&w, "x.note", "j");
    for (int round = 0; round < 2; round++) {
        struct job_info j = job_get(&w, "j");
        assert_int_equal(j.state, JOB_FAILED);
        assert_int_equal(j.events_total, 104);
        assert_int_equal(j.seqs_count, LIMIT_JOB_EVENTS);
        assert_true(j.seqs[0] == 2 && j.seqs[1] == 4); /* these make the state */
        assert_true(j.seqs[2] == 104 - 61 && j.seqs[63] == 104);
        world_restart(&w);
    }
    /* What is not durable takes nobody's place. */
    memory_store_set_manual(w.store, true);
    for (int i = 0; i < 100; i++) world_job_event(&w, "x.note", "j");
    struct job_info j = job_get(&w, "j");
    assert_true(j.seqs_count == LIMIT_JOB_EVENTS && j.seqs[63] == 104 && j.events_total == 104);
    memory_store_sync(w.store, 10);
    j = job_get(&w, "j");
    assert_true(j.seqs_count == LIMIT_JOB_EVENTS && j.seqs[63] == 114 && j.events_total == 114);
    assert_true(j.seqs[0] == 2 && j.seqs[1] == 4 && j.seqs[2] == 53);
    for (int i = 0; i < 2000; i++) world_job_event(&w, "x.note", "j");
    assert_int_equal(job_get(&w, "j").state, JOB_FAILED);
    memory_store_set_manual(w.store, false);
    j = job_get(&w, "j");
    assert_true(j.seqs_count == LIMIT_JOB_EVENTS && j.seqs[63] == 2204 && j.events_total == 2204);
    world_close(&w);
}

static void jobs_are_forgotten(void **state) {
    (void)state;
    struct world w = {0};
    open_jobs(&w);
    world_job_put(&w, "final", "", "", HOUR);
    world_job_put(&w, "overdue", "", "", HOUR);
    world_job_put(&w, "late", "", "", HOUR);
    world_job_event(&w, "x.failed", "final");
    world_wait(&w, HOUR);
    world_wait(&w, HOUR);
    world_job_event(&w, "x.failed", "late");
    buf_clear(&w.log);
    world_wait(&w, LIMIT_JOB_KEPT_MS - HOUR - 1);
    assert_int_equal(world_jobs(&w), 3);
    world_wait(&w, 1); /* seven days after their TTL, also of the one that ended before */
    world_show_job(&w, "final");
    world_show_job(&w, "overdue");
    world_show_job(&w, "late");
    world_restart(&w);
    assert_int_equal(world_jobs(&w), 1);
    world_wait(&w, HOUR - 1);
    assert_int_equal(world_jobs(&w), 1);
    world_wait(&w, 1); /* seven days after its last event */
    assert_int_equal(world_jobs(&w), 0);
    world_expect(&w,
                 "final: not there\n"
                 "overdue: not there\n"
                 "late: failed overdue due -604800000 events 2 [3 4]\n");
    struct store_iter it;
    store_seek(w.store, STORE_JOBS, slice_of(NULL, 0), &it);
    assert_false(it.valid);
    store_iter_end(w.store, &it);
    store_end_reads(w.store);
    assert_int_equal(engine_next_deadline(w.engine, w.time), UINT64_MAX);
    world_close(&w);
}

static void too_many_jobs(void **state) {
    (void)state;
    struct world w = {0};
    w.options.jobs_max = 3;
    open_jobs(&w);
    world_job_put(&w, "a", "", "", HOUR);
    world_job_put(&w, "b", "", "", HOUR);
    world_job_put(&w, "c", "", "", HOUR);
    world_job_put(&w, "d", "", "", HOUR);
    world_job_put(&w, "a", "", "", HOUR); /* that one is there */
    world_note(&w, "what ended first goes");
    world_job_event(&w, "x.failed", "b");
    world_wait(&w, 1);
    world_job_event(&w, "x.failed", "a");
    world_restart(&w);
    world_job_put(&w, "d", "", "", HOUR);
    world_show_job(&w, "b");
    world_show_job(&w, "a");
    world_job_put(&w, "e", "", "", HOUR);
    world_show_job(&w, "a");
    world_job_put(&w, "f", "", "", HOUR);
    world_expect(&w,
                 "[1000] done created\n"
                 "[1000] done created\n"
                 "[1000] done created\n"
                 "[1000] error limit_exceeded: 3 jobs are registered that have not ended, of all "
                 "projects, and there may be no more: nothing was taken, try again when some "
                 "have\n"
                 "[1000] done\n"
                 "-- what ended first goes\n"
                 "[1000] job b seq 1\n"
                 "[1000] published 1\n"
                 "[1001] job a seq 2\n"
                 "[1001] published 2\n"
                 "[1001] done created\n"
                 "b: not there\n"
                 "a: failed due 3599999 events 1 [2]\n"
                 "[1001] done created\n"
                 "a: not there\n"
                 "[1001] error limit_exceeded: 3 jobs are registered that have not ended, of all "
                 "projects, and there may be no more: nothing was taken, try again when some "
                 "have\n");
    world_restart(&w);
    assert_int_equal(world_jobs(&w), 3);
    world_close(&w);
}

static void too_many_bytes(void **state) {
    (void)state;
    char text[101];
    struct world w = {0};
    memset(text, 'x', 100);
    text[100] = 0;
    w.options.jobs_bytes_max = 250;
    open_jobs(&w);
    world_job_put(&w, "a", text, "", HOUR);
    world_job_put(&w, "b", text, "", HOUR);
    world_job_put(&w, "c", text, "", HOUR);
    world_job_put(&w, "a", text, text, HOUR);
    world_job_event(&w, "x.failed", "a");
    world_note(&w, "an ended one makes room for itself and for another");
    world_job_put(&w, "a", text, text + 60, HOUR);
    world_job_put(&w, "b", text, text + 60, HOUR);
    world_show_job(&w, "a");
    world_job_put(&w, "c", "", "", HOUR);
    world_show_job(&w, "c");
    world_expect(
        &w,
        "[1000] done created\n"
        "[1000] done created\n"
        "[1000] error limit_exceeded: this job and the registered ones that have not ended, "
        "of all projects, take more than 250 bytes: nothing was taken, try again when some "
        "have ended\n"
        "[1000] error limit_exceeded: this job and the registered ones that have not ended, "
        "of all projects, take more than 250 bytes: nothing was taken, try again when some "
        "have ended\n"
        "[1000] job a seq 1\n"
        "[1000] published 1\n"
        "-- an ended one makes room for itself and for another\n"
        "[1000] done\n"
        "[1000] done\n"
        "a: not there\n"
        "[1000] done created\n"
        "c: pending due 3600000 events 0\n");
    world_close(&w);
}

/* The one that is put is not what goes, though it ended first. */
static void an_ended_job_grows(void **state) {
    (void)state;
    char text[201];
    struct world w = {0};
    memset(text, 'x', 200);
    text[200] = 0;
    w.options.jobs_bytes_max = 250;
    open_jobs(&w);
    world_job_put(&w, "a", text + 100, "", HOUR);
    world_job_put(&w, "b", text + 100, "", HOUR);
    world_job_event(&w, "x.failed", "a");
    world_job_event(&w, "x.failed", "b");
    buf_clear(&w.log);
    world_job_put(&w, "a", text, "", HOUR);
    world_show_job(&w, "a");
    world_show_job(&w, "b");
    world_expect(&w,
                 "[1000] done\n"
                 "a: failed due 3600000 events 1 [1]\n"
                 "b: not there\n");
    world_close(&w);
}

/* Ids of one hash: each mixes its first word into the second, which takes the difference back. */
static void colliding_ids(uint64_t words[3][2], struct slice ids[3]) {
    uint64_t start = map_mix(16 * 0x9e3779b97f4a7c15ULL), first = 0;
    for (uint64_t i = 0; i < 3; i++) {
        words[i][0] = i;
        uint64_t mixed = map_mix(start ^ words[i][0]);
        if (i == 0) first = mixed;
        words[i][1] = first ^ mixed;
        ids[i] = slice_of(words[i], 16);
        assert_true(hash_bytes(0, ids[i]) == hash_bytes(0, ids[0]));
    }
}

static void put_id(struct world *w, struct slice id, const char *endpoints) {
    struct command c = {.kind = COMMAND_JOB_PUT, .project = PROJECT_DEFAULT};
    c.u.job.id = id;
    c.u.job.endpoints = slice_str(endpoints);
    c.u.job.ttl_ms = HOUR;
    world_run(w, &c);
}

static void ids_of_one_hash(void **state) {
    (void)state;
    static const char *const uris[] = {"http://0/", "http://1/", "http://2/"};
    uint64_t words[3][2];
    struct slice ids[3];
    struct world w = {.quiet = true};
    struct job_info j;
    struct event event = {.type = slice_str("x.failed")};
    colliding_ids(words, ids);
    w.options.jobs_max = 2;
    open_jobs(&w);
    event.subject = ids[2];
    world_event(&w, &event);
    put_id(&w, ids[0], uris[0]); /* looks back at another one's event */
    put_id(&w, ids[1], uris[1]);
    for (int i = 0; i < 2; i++) {
        assert_true(engine_job_get(w.engine, PROJECT_DEFAULT, ids[i], &j));
        assert_true(slice_eq_str(j.endpoints, uris[i]) && j.state == JOB_PENDING);
    }
    assert_false(engine_job_get(w.engine, PROJECT_DEFAULT, ids[2], &j));
    event.subject = ids[0];
    world_event(&w, &event);
    put_id(&w, ids[2], uris[2]); /* in the place of the first, which has ended */
    world_restart(&w);
    assert_false(engine_job_get(w.engine, PROJECT_DEFAULT, ids[0], &j));
    for (int i = 1; i < 3; i++) {
        assert_true(engine_job_get(w.engine, PROJECT_DEFAULT, ids[i], &j));
        assert_true(slice_eq_str(j.endpoints, uris[i]) && j.events_total == (uint64_t)i - 1);
    }
    world_close(&w);
}

static void what_a_put_refuses(void **state) {
    (void)state;
    static char id[LIMIT_EVENT_SUBJECT_BYTES + 2], uris[LIMIT_EVENT_ENDPOINTS_BYTES + 2],
        metadata[LIMIT_EVENT_METADATA_BYTES + 2];
    struct world w = {0};
    memset(id, 'i', sizeof id - 1);
    memset(uris, 'u', sizeof uris - 1);
    /* From its third byte on: as many URIs as there may be, as long as they may be. */
    for (int i = 1; i < LIMIT_ENDPOINTS; i++) uris[1 + i * (LIMIT_URI_BYTES + 1)] = '\n';
    memset(metadata, 'm', sizeof metadata - 1);
    open_jobs(&w);
    world_job_put(&w, "", "", "", 1);
    world_job_put(&w, id, "", "", 1);
    world_job_put(&w, "j", uris, "", 1);
    world_job_put(&w, "j", uris + 1, "", 1); /* the first one is too long */
    world_job_put(&w, "j", "u\n", "", 1);
    world_job_put(&w, "j", "", metadata, 1);
    world_job_put(&w, "j", "", "", 0);
    world_job_put(&w, "j", "", "", LIMIT_JOB_TTL_MS_MAX + 1);
    assert_int_equal(world_jobs(&w), 0);
    world_job_put(&w, id + 1, uris + 2, metadata + 1, LIMIT_JOB_TTL_MS_MAX);
    world_restart(&w);
    struct job_info j = job_get(&w, id + 1);
    assert_true(slice_eq_str(j.endpoints, uris + 2) && slice_eq_str(j.metadata, metadata + 1));
    world_expect(&w,
                 "[1000] error invalid_request: the id of a job must not be empty\n"
                 "[1000] error too_large: the id of a job: at most 1024 bytes\n"
                 "[1000] error too_large: webhook_config.uris: at most 8 of at most 2048 bytes\n"
                 "[1000] error invalid_request: webhook_config.uris: at most 8 URIs of 1 to 2048 "
                 "bytes\n"
                 "[1000] error invalid_request: webhook_config.uris: at most 8 URIs of 1 to 2048 "
                 "bytes\n"
                 "[1000] error too_large: user_metadata: at most 16384 bytes\n"
                 "[1000] error invalid_request: ttl_ms: 1 to 2592000000 (30 days)\n"
                 "[1000] error invalid_request: ttl_ms: 1 to 2592000000 (30 days)\n"
                 "[1000] done created\n");
    buf_clear(&w.log);
    world_wait(&w, LIMIT_JOB_TTL_MS_MAX); /* the longest id also fits into job.overdue */
    assert_true(job_get(&w, id + 1).overdue);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_are_overdue_at_once), cmocka_unit_test(the_last_events_are_kept),
        cmocka_unit_test(jobs_are_forgotten),       cmocka_unit_test(too_many_jobs),
        cmocka_unit_test(too_many_bytes),           cmocka_unit_test(an_ended_job_grows),
        cmocka_unit_test(ids_of_one_hash),          cmocka_unit_test(what_a_put_refuses),
    };
    return cmocka_run_group_tests_name("engine jobs bounds", tests, NULL, NULL);
}
