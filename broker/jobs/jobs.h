/* jobs.h: who waits for the events of a job (docs/http-api.md, GET /v1/jobs/{id}:wait).
 *
 * Jobs themselves are the engine's (COMMAND_JOB_PUT, engine_job_get). This room holds waits: a
 * question "tell me when an event of one of these types comes", which is answered at once when
 * the event is there and else by EFFECT_JOB, when the time is over, or when the broker drains. Its
 * askers are the HTTP API and sessions of workers; it knows neither.
 *
 * Owned by main from jobs_open to jobs_close. A wait is owned by the room from jobs_wait until its
 * answer or jobs_cancel. Time is passed in. May call: engine.h, base. */
#ifndef JOBS_JOBS_H
#define JOBS_JOBS_H

#include "broker/engine/engine.h"

struct jobs;

struct jobs *jobs_open(struct engine *e);
void jobs_close(struct jobs **j); /* forgets every wait */

enum job_answer {
    JOB_EVENT,   /* seq is the first event of these types; retention may have taken it since */
    JOB_NOTHING, /* time is over, or the broker is stopping */
    JOB_UNKNOWN, /* no such job is registered */
    JOB_REFUSED, /* LIMIT_JOB_WAITS are held already */
};
/* Once per wait, never from inside jobs_wait. It may ask and cancel. */
typedef void job_answer_fn(void *ctx, uint64_t wait, enum job_answer answer, uint64_t seq);

struct job_question {
    uint32_t project; /* whose job it is */
    struct slice id;
    const struct slice
        *types;         /* globs, copied; none: every type that is final or requires_action */
    size_t types_count; /* at most LIMIT_JOB_WAIT_TYPES */
    uint64_t after_seq; /* only events above it */
    uint64_t until_ms;  /* monotonic */
    job_answer_fn *fn;
    void *ctx;
};
/* Answered at once: *answer and *seq are set and the result is 0. Otherwise the number of the wait,
 * which is never used again, and fn is called once. */
uint64_t jobs_wait(struct jobs *j, const struct job_question *q, enum job_answer *answer,
                   uint64_t *seq);
/* Harmless when it was answered. */
void jobs_cancel(struct jobs *j, uint64_t wait);

/* EFFECT_JOB. */
void jobs_on_effect(struct jobs *j, const struct effect *effect);
/* Once per turn: answers those whose time is over. Returns when it must be called again at the
 * latest (monotonic ms; UINT64_MAX: no need). */
uint64_t jobs_on_turn(struct jobs *j, uint64_t now_ms);
/* The broker is stopping: answers every wait now and holds no more. */
void jobs_drain(struct jobs *j);
size_t jobs_waiting(const struct jobs *j);

#endif
