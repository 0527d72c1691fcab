/* engine_world.h: an engine on a simulated disk with a virtual clock, and a transcript.
 *
 * Each call steps one command and ends the turn; every effect becomes a line of the transcript,
 * and every turn ends with engine_check. Tests compare the transcript with what they expect: a
 * change of behaviour is a diff that a person can read. */
#ifndef TESTS_ENGINE_WORLD_H
#define TESTS_ENGINE_WORLD_H

#include "base/buf.h"
#include "broker/engine/engine.h"

struct world {
    struct store *store;
    struct engine *engine;
    struct engine_options options;
    struct engine_time time;
    struct buf log;
    uint32_t project;  /* that the commands and reads below speak for; 0: the default one */
    bool quiet;        /* write no transcript */
    uint64_t last_seq; /* of the last PUBLISHED */
    void (*on_effect)(void *ctx, const struct effect *e); /* also told, or NULL */
    void *on_effect_ctx;
    /* After the effects of a batch that became durable, with the same context; or NULL. */
    void (*on_batch)(void *ctx, const struct batch *batch);
};

void world_open(struct world *w);
uint32_t world_project(const struct world *w);
/* A policy whose failures come back after 8 ms, too short for jitter; leases last 4 s. */
struct policy world_policy(void);
/* Opens with the subscription "s" on every event from now on; the transcript is empty. */
void world_open_with(struct world *w, const struct policy *policy);
void world_close(struct world *w);
/* Power loss and restart: what was not durable is gone. */
void world_crash(struct world *w);
/* Steps a command; nothing is committed until world_turn. */
void world_step(struct world *w, const struct command *c);
/* Ends turns until nothing is due; that it comes to an end is CHECKed. */
void world_turn(struct world *w);
/* Lets time pass in one jump, then ends a turn. */
void world_wait(struct world *w, uint64_t ms);
/* Compares the transcript since the last call with `expected` and empties it. */
void world_expect(struct world *w, const char *expected);

/* Commands with a turn each. */
void world_run(struct world *w, const struct command *c);
void world_event(struct world *w, const struct event *event);
void world_publish(struct world *w, const char *type, const char *id);
void world_create(struct world *w, const char *name, const char *type, const struct policy *policy,
                  enum start_kind start);
void world_attach(struct world *w, uint64_t attachment, const char *name, uint64_t window,
                  uint32_t concurrency);
void world_detach(struct world *w, uint64_t attachment, enum detach_kind how);
void world_window(struct world *w, uint64_t attachment, uint64_t events);
void world_settle(struct world *w, enum command_kind kind, uint64_t attachment, uint64_t lo,
                  uint64_t hi, bool confirm);
void world_nack(struct world *w, uint64_t attachment, uint64_t tag, enum nack_kind kind,
                uint64_t delay_ms, const char *error);
/* from, to, rate 0 and filter "": not given. */
void world_task(struct world *w, enum task_kind kind, const char *name, uint64_t from, uint64_t to,
                uint32_t rate_per_s, const char *filter);
/* Writes "sub: floor F next N ready R leased L delayed D dead X idle W" into the transcript, and
 * blocked and expired when there are any. */
void world_show(struct world *w, const char *name);
void world_show_task(struct world *w, uint32_t id);

/* ---- more commands, and what to say of the state ---- */

/* A line of the test's own in the transcript. */
void world_note(struct world *w, const char *text);
/* An ATTACH of the default project to fill in further and to give to world_run. */
struct command attach_command(uint64_t attachment, const char *name, uint64_t window,
                              uint32_t concurrency);
/* A PUBLISH of `count` events of this type in one command. */
void world_publish_many(struct world *w, const char *type, int count);
/* An event with a subject that is due in_ms from now; 0: at once. */
void world_publish_due(struct world *w, const char *type, const char *subject, uint64_t in_ms);
/* DETACH_KEEP for grace_ms. */
void world_keep(struct world *w, uint64_t attachment, uint32_t grace_ms);
/* lease_ms 0: the worker's own. */
void world_extend(struct world *w, uint64_t attachment, uint64_t lo, uint64_t hi,
                  uint64_t lease_ms);
void world_pause(struct world *w, const char *name, bool paused);
void world_update(struct world *w, const char *name, const struct policy *policy);
void world_seek(struct world *w, const char *name, enum start_kind start, uint64_t value);
void world_delete(struct world *w, const char *name);
void world_cancel(struct world *w, uint32_t task);
void world_retain(struct world *w, uint64_t max_age_ms, uint64_t max_bytes,
                  uint64_t dead_max_age_ms);
/* A clean restart: every position is written first. */
void world_restart(struct world *w);
/* Writes a line for each dead letter: "dead seq N reason fails F deliveries D [replay N]
 * [type/message/detail]". */
void world_show_dead(struct world *w, const char *name);
/* endpoints and metadata "": none. */
void world_job_put(struct world *w, const char *id, const char *endpoints, const char *metadata,
                   uint64_t ttl_ms);
/* An event with the job's id as subject. */
void world_job_event(struct world *w, const char *type, const char *job);
/* Writes "ID: STATE [overdue] due MS events TOTAL [SEQ SEQ ...]", MS from now, or "ID: not there".
 */
void world_show_job(struct world *w, const char *id);
/* How many are registered. */
uint32_t world_jobs(const struct world *w);
/* Writes "journal: A to B trimmed N" and "blocked by X" when it is. */
void world_show_journal(struct world *w);

#endif
