/* waits.c: WAIT, a question for the event of a job (broker/jobs/jobs.h), and its answer JOB_EVENT.
 */
#include <stdio.h>
#include <stdlib.h>

#include "broker/jobs/jobs.h"
#include "broker/json/walk.h"
#include "broker/workers/session.h"

/* One that is held by the jobs' room. Owned by the session's list until its answer. */
struct session_wait {
    struct list node;
    struct session *session;
    uint64_t number; /* of the jobs' room */
    uint32_t rid;
    size_t id_len;
    uint8_t id[]; /* of the job */
};

static void unknown_job(struct session *s, uint32_t rid, struct slice id) {
    char text[LIMIT_EVENT_SUBJECT_BYTES + 128];
    snprintf(text, sizeof text,
             "there is no job %.*s: register it with PUT /v1/jobs/ID before it starts",
             SLICE_ARG(id));
    session_error(s, rid, ERR_NOT_FOUND, text, false);
}

static void answer_wait(struct session *s, uint32_t rid, struct slice id, enum job_answer answer,
                        uint64_t seq) {
    struct engine *engine = s->room->options.engine;
    struct frame f = {.op = FRAME_JOB_EVENT, .rid = rid};
    struct frame_item item = {0};
    struct job_info job;
    if (answer == JOB_REFUSED) {
        session_error(s, rid, ERR_LIMIT_EXCEEDED,
                      "the broker holds as many waits as it can: try again later", false);
        return;
    }
    if (answer == JOB_UNKNOWN || !engine_job_get(engine, s->project, id, &job)) {
        unknown_job(s, rid, id);
        return;
    }
    f.u.job_event.state = slice_str(job_state_name(job.state));
    f.u.job_event.overdue = job.overdue;
    if (answer == JOB_EVENT) {
        f.u.job_event.seq = seq;
        if (engine_event_get(engine, s->project, seq, &item.event)) f.u.job_event.item = &item;
    }
    frame_encode_job_event(session_out(s), &f);
    session_touch(s);
}

static void wait_free(struct session_wait *wait) {
    list_unlink(&wait->node);
    wait->session->waits_count--;
    free(wait);
}

static void on_answer(void *ctx, uint64_t number, enum job_answer answer, uint64_t seq) {
    struct session_wait *wait = ctx;
    CHECK(wait->number == number);
    struct session *s = wait->session;
    answer_wait(s, wait->rid, slice_of(wait->id, wait->id_len), answer, seq);
    wait_free(wait);
    session_flush(s); /* this room's turn may be over: times run out in that of the jobs */
}

/* A job's events are those of the journal. */
static bool may_wait(struct session *s, uint32_t rid) {
    const struct key *k = session_key(s);
    if (!session_may(s, rid, SCOPE_CONSUME, slice_of(NULL, 0))) return false;
    if (k == NULL || !key_is_limited(k)) return true;
    session_error(s, rid, ERR_PERMISSION_DENIED,
                  "the key is limited to some subscriptions or sources: WAIT needs one that is not",
                  false);
    return false;
}

void session_wait_request(struct session *s, const struct frame *f) {
    struct slice id = f->u.wait.id;
    struct session_wait *wait;
    enum job_answer answer = JOB_NOTHING;
    uint64_t seq = 0;
    if (f->rid == 0) {
        session_error(s, 0, ERR_INVALID_REQUEST, "WAIT needs a rid: its answer carries it", false);
        return;
    }
    if (!may_wait(s, f->rid)) return;
    if (json_utf8_error(id) != id.len) {
        session_error(s, f->rid, ERR_INVALID_REQUEST, "job: its id must be UTF-8", false);
        return;
    }
    if (s->waits_count == LIMIT_WAITS_PER_SESSION) {
        session_error(s, f->rid, ERR_LIMIT_EXCEEDED, "at most 1024 waits at a time on a connection",
                      false);
        return;
    }
    wait = mem_zalloc(sizeof *wait + id.len);
    wait->session = s;
    wait->rid = f->rid;
    wait->id_len = id.len;
    memcpy(wait->id, id.data, id.len);
    struct job_question question = {
        .project = s->project,
        .id = id,
        .types = f->u.wait.types,
        .types_count = f->u.wait.types_count,
        .after_seq = f->u.wait.after_seq,
        .until_ms = loop_now_ms(s->room->options.loop) + f->u.wait.timeout_ms,
        .fn = on_answer,
        .ctx = wait,
    };
    wait->number = jobs_wait(s->room->options.jobs, &question, &answer, &seq);
    if (wait->number == 0) {
        free(wait);
        answer_wait(s, f->rid, id, answer, seq);
        return;
    }
    list_init(&wait->node);
    list_push_back(&s->waits, &wait->node);
    s->waits_count++;
}

void session_waits_cancel(struct session *s) {
    LIST_FOR(n, next, &s->waits) {
        struct session_wait *wait = CONTAINER_OF(n, struct session_wait, node);
        jobs_cancel(s->room->options.jobs, wait->number);
        wait_free(wait);
    }
}
