/* job.h: the jobs that clients have registered, and what the engine's other files call for them.
 *
 * A job is an id with endpoints, metadata and a time to live; the events whose subject is the id
 * take the first two and are noted in it. All jobs are in memory, each with a row of STORE_JOBS
 * that is written again in a turn that changed it. Due times are of the wall clock and so is the
 * heap of them: it needs nothing when the clock is set.
 *
 * Owned by the engine. For the files of engine/ only; the invariants are E11 to E13 of engine.h. */
#ifndef ENGINE_JOB_H
#define ENGINE_JOB_H

#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "broker/engine/engine.h"

struct job {
    uint64_t number; /* the key of its row */
    struct project *project;
    uint64_t id_hash; /* of project and id: the key of engine.jobs.by_id */
    struct job *same; /* the next one whose id has this hash */
    uint8_t *texts;   /* the bytes of these three */
    struct slice id, endpoints, metadata;
    uint64_t created_at_ms, updated_at_ms, due_at_ms; /* wall */
    uint64_t ended_at_ms; /* when it was final or overdue, by the wall clock; 0: neither */
    uint64_t created_turn;
    uint64_t events_total;
    /* The events that were noted last, by rising seq: at most LIMIT_JOB_EVENTS durable ones, and
     * those that are not durable. The two that make the state stay whatever comes after them. */
    uint64_t *seqs;
    uint8_t *states; /* enum job_state that each of them makes */
    size_t count, cap;
    uint64_t final_seq, action_seq; /* the first final and requires_action one; 0: none */
    enum job_state final_state;
    bool overdue;
    uint64_t overdue_seq;   /* of job.overdue in this life of the broker */
    struct heap_node timer; /* by wall time: due, or to be forgotten */
    struct list in_dirty;   /* its row must be written */
    struct list in_ended;
};

struct job_table {
    struct map by_id;
    size_t count, ended_count;
    uint64_t bytes, ended_bytes; /* of texts; of those that have ended */
    uint64_t next_number;
    struct heap timers;
    struct list dirty;
    struct list ended;    /* the one that ended first is the first */
    uint64_t retry_at_ms; /* no job is looked at before: there was no room for its event */
    /* 32 bits of the hash of project and subject of each of the last LIMIT_JOB_LOOK_BACK events, by
     * seq; 0: none, or not known. NULL until there is one. */
    uint32_t *subjects;
};

void jobs_init(struct job_table *t);
void jobs_free(struct job_table *t);
/* Reads the rows and the subjects of the last events. False: row *number does not decode or does
 * not fit the rest. */
MUST_CHECK bool jobs_recover(struct engine *e, uint64_t *number);

void job_put(struct engine *e, const struct command *c);
/* The event is about to be journaled as event->seq: gives it what its job has and it brings not.
 * NULL: it is no job's. */
struct job *job_lend(struct engine *e, struct event *event);
/* `stored` is in the journal: notes it in its job. */
void job_note(struct engine *e, struct job *j, const struct event *stored);
/* Publishes job.overdue for those whose time is over, and forgets old ones. */
void jobs_run(struct engine *e);
/* Writes the rows that changed. */
void jobs_end_turn(struct engine *e);
/* When jobs_run is needed, monotonic ms. */
uint64_t jobs_next_ms(const struct engine *e, struct engine_time time);
/* E11 to E13. */
void jobs_check(const struct engine *e);
/* A recount of the project's. */
uint32_t jobs_of(const struct engine *e, const struct project *project);

#endif
