/* libbellhop: waiting for the events of jobs. */
#include "client_world.h"

/* What the user of a wait was told. */
struct told {
    struct world *w;
    size_t times;
    int error;
    char state[32], type[64], subject[64], body[64], message[256];
    bool event, overdue;
    uint64_t seq;
};

static void on_waited(void *ctx, int error, const char *message, const struct bellhop_job *job) {
    struct told *t = ctx;
    woken(t->w);
    t->times++;
    t->error = error;
    assert_true((error == 0) == (job != NULL));
    snprintf(t->message, sizeof t->message, "%s", message);
    if (job == NULL) return;
    snprintf(t->state, sizeof t->state, "%s", job->state);
    t->seq = job->seq;
    t->event = job->event != NULL;
    t->overdue = job->overdue;
    if (job->event == NULL) return;
    snprintf(t->type, sizeof t->type, "%s", job->event->type);
    snprintf(t->subject, sizeof t->subject, "%s", job->event->subject);
    snprintf(t->body, sizeof t->body, "%s", (const char *)job->event->body);
}

static void ask(struct told *t, struct world *w, const struct bellhop_wait_options *options) {
    *t = (struct told){.w = w};
    assert_int_equal(bellhop_wait(w->client, "batches/7", options, on_waited, t), 0);
}

static void send_job_event(struct world *w, uint64_t seq) {
    struct buf out = broker_buf();
    w->broker.job_seq = seq;
    broker_job_event(&w->broker, w->broker.rid[FRAME_WAIT], &out);
    broker_send(&w->broker, &out);
}

static void the_event_comes_with_its_job(void **state) {
    struct world *w = *state;
    struct told t;
    static const char *const types[] = {"batch.*", "video.generated"};
    w->broker.job_seq = 42;
    ask(&t, w, NULL);
    UNTIL(w, t.times == 1);
    assert_int_equal(t.error, 0);
    assert_string_equal(t.state, "succeeded");
    assert_string_equal(t.type, "batch.succeeded");
    assert_string_equal(t.subject, "batches/7");
    assert_string_equal(t.body, "{\"n\":1}");
    assert_true(t.seq == 42 && t.event && !t.overdue);
    assert_string_equal(w->broker.job, "batches/7");
    assert_string_equal(w->broker.job_types, "");
    assert_true(w->broker.wait_ms <= 60000 && w->broker.wait_ms > 30000);
    assert_true(w->broker.wait_after_seq == 0);
    ask(&t, w,
        &(struct bellhop_wait_options){
            .types = types, .types_count = 2, .after_seq = 41, .timeout_ms = 7200000});
    UNTIL(w, t.times == 1);
    assert_string_equal(w->broker.job_types, "batch.*,video.generated,");
    assert_true(w->broker.wait_after_seq == 41);
    assert_true(w->broker.wait_ms == LIMIT_JOB_WAIT_MS_MAX); /* the rest would be asked for later */
    w->broker.job_gone = true;
    ask(&t, w, NULL);
    UNTIL(w, t.times == 1);
    assert_true(t.error == 0 && t.seq == 42 && !t.event);
}

static void nothing_in_time_is_no_error(void **state) {
    struct world *w = *state;
    struct told t;
    ask(&t, w, &(struct bellhop_wait_options){.timeout_ms = BELLHOP_WAIT_LOOK});
    UNTIL(w, t.times == 1);
    assert_true(t.error == 0 && t.seq == 0 && !t.event && w->broker.wait_ms == 0);
    assert_string_equal(t.state, "pending");
    ask(&t, w, &(struct bellhop_wait_options){.timeout_ms = 500});
    UNTIL(w, t.times == 1);
    assert_true(t.error == 0 && t.seq == 0 && w->broker.wait_ms <= 500);
    assert_int_equal(w->broker.got[FRAME_WAIT], 2);
}

static void what_the_broker_refuses_is_said(void **state) {
    struct world *w = *state;
    struct told t;
    w->broker.job_error = ERR_NOT_FOUND;
    ask(&t, w, NULL);
    UNTIL(w, t.times == 1);
    assert_int_equal(t.error, BELLHOP_EREFUSED);
    assert_string_equal(t.message, "not_found: there is no job");
}

static void a_broker_that_ends_early_is_asked_again(void **state) {
    struct world *w = *state;
    struct told t;
    ask(&t, w, NULL);
    UNTIL(w, w->broker.got[FRAME_WAIT] == 1);
    w->broker.job_seq = 43;
    UNTIL(w, t.times == 1);
    assert_int_equal(w->broker.got[FRAME_WAIT], 2);
    assert_true(t.error == 0 && t.seq == 43);
}

static void a_wait_goes_on_over_a_lost_connection(void **state) {
    struct world *w = *state;
    struct told t;
    w->broker.no_job_event = true;
    ask(&t, w, &(struct bellhop_wait_options){.after_seq = 5});
    UNTIL(w, w->broker.got[FRAME_WAIT] == 1);
    broker_hang_up(&w->broker);
    UNTIL(w, w->broker.got[FRAME_WAIT] == 2);
    assert_int_equal(t.times, 0);
    assert_true(w->broker.connections == 2 && w->broker.wait_after_seq == 5);
    send_job_event(w, 44);
    UNTIL(w, t.times == 1);
    assert_true(t.error == 0 && t.seq == 44);
}

/* A broker that is about to stop answers that nothing came; the wait stays until the next one. */
static void a_quiet_broker_is_not_asked(void **state) {
    struct world *w = *state;
    struct told first, second;
    struct buf out = broker_buf();
    w->broker.no_job_event = true;
    ask(&first, w, NULL);
    UNTIL(w, w->broker.got[FRAME_WAIT] == 1);
    frame_encode_quiet(&out, "the broker is stopping", 1000);
    broker_send(&w->broker, &out);
    send_job_event(w, 0);
    UNTIL(w, w->quiet == 1);
    ask(&second, w, NULL);
    out = broker_buf();
    frame_encode_goaway(&out, "the broker is stopping", 50);
    broker_send(&w->broker, &out);
    UNTIL(w, w->disconnected == 1);
    w->broker.no_job_event = false;
    w->broker.job_seq = 45;
    UNTIL(w, first.times == 1 && second.times == 1);
    assert_true(w->broker.connections == 2 && w->broker.got[FRAME_WAIT] == 3);
    assert_true(first.error == 0 && first.seq == 45 && second.seq == 45);
}

static void stopping_ends_every_wait(void **state) {
    struct world *w = *state;
    struct told held, queued;
    w->broker.no_job_event = true;
    ask(&held, w, NULL);
    UNTIL(w, w->broker.got[FRAME_WAIT] == 1);
    bellhop_stop(w->client);
    UNTIL(w, w->broker.got[FRAME_DRAIN] == 1);
    queued = (struct told){.w = w};
    assert_int_equal(bellhop_wait(w->client, "j", NULL, on_waited, &queued), BELLHOP_ECLOSED);
    UNTIL(w, w->stopped == 1);
    assert_true(held.times == 1 && held.error == BELLHOP_ECLOSED && queued.times == 0);
}

static void closing_ends_every_wait(void **state) {
    struct world *w = *state;
    struct told t;
    w->broker.no_job_event = true;
    ask(&t, w, NULL);
    UNTIL(w, w->broker.got[FRAME_WAIT] == 1);
    bellhop_close(&w->client);
    assert_true(t.times == 1 && t.error == BELLHOP_ECLOSED);
}

static void unusable_waits_are_refused(void **state) {
    struct world *w = *state;
    struct told t = {.w = w};
    char long_id[LIMIT_EVENT_SUBJECT_BYTES + 2], long_type[LIMIT_EVENT_TYPE_BYTES + 2];
    const char *types[LIMIT_JOB_WAIT_TYPES + 1];
    struct bellhop_wait_options o = {.types = types, .types_count = LIMIT_JOB_WAIT_TYPES + 1};
    memset(long_id, 'j', sizeof long_id);
    long_id[sizeof long_id - 1] = '\0';
    memset(long_type, 't', sizeof long_type);
    long_type[sizeof long_type - 1] = '\0';
    for (size_t i = 0; i <= LIMIT_JOB_WAIT_TYPES; i++) types[i] = "a.*";
    assert_int_equal(bellhop_wait(w->client, NULL, NULL, on_waited, &t), BELLHOP_EARGUMENT);
    assert_int_equal(bellhop_wait(w->client, "", NULL, on_waited, &t), BELLHOP_EARGUMENT);
    assert_int_equal(bellhop_wait(w->client, long_id, NULL, on_waited, &t), BELLHOP_EARGUMENT);
    assert_int_equal(bellhop_wait(w->client, "j", NULL, NULL, &t), BELLHOP_EARGUMENT);
    assert_int_equal(bellhop_wait(w->client, "j", &o, on_waited, &t), BELLHOP_EARGUMENT);
    o.types_count = 2;
    types[1] = "";
    assert_int_equal(bellhop_wait(w->client, "j", &o, on_waited, &t), BELLHOP_EARGUMENT);
    types[1] = long_type;
    assert_int_equal(bellhop_wait(w->client, "j", &o, on_waited, &t), BELLHOP_EARGUMENT);
    assert_int_equal(t.times, 0);
}

static void an_answer_to_nothing_breaks_the_protocol(void **state) {
    struct world *w = *state;
    subscribe(w, 1, 1);
    UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 1);
    w->broker.rid[FRAME_WAIT] = 999;
    send_job_event(w, 1);
    UNTIL(w, w->disconnected == 1);
    assert_non_null(strstr(w->state, "JOB_EVENT without a WAIT"));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(the_event_comes_with_its_job),
        CASE(nothing_in_time_is_no_error),
        CASE(what_the_broker_refuses_is_said),
        CASE(a_broker_that_ends_early_is_asked_again),
        CASE(a_wait_goes_on_over_a_lost_connection),
        CASE(a_quiet_broker_is_not_asked),
        CASE(stopping_ends_every_wait),
        CASE(closing_ends_every_wait),
        CASE(unusable_waits_are_refused),
        CASE(an_answer_to_nothing_breaks_the_protocol),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
