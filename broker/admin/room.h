/* room.h: what the files of the admin room share; nobody else includes it.
 *
 * struct admin is made by admin_open. `arena` and `out` are scratch of the request or effect that
 * is worked on and are emptied before the next one. A struct pending is made by pending_begin with
 * its first command and dies when the effect of its last one has been answered: every command of
 * the room has exactly one effect, also when the client is gone by then (an answer to a dead handle
 * does nothing). The commands of one struct pending are stepped in one callback, so that they are
 * one turn: all of them are stored, or none. */
#ifndef ADMIN_ROOM_H
#define ADMIN_ROOM_H

#include "base/arena.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "broker/admin/admin.h"
#include "broker/net/loop.h"

/* GET /v1/events with wait_ms that found nothing so far: events_wait.c. */
struct waiting {
    struct list held; /* of struct held */
    struct map by_handle;
    struct heap due;
    uint64_t seen_seq; /* every held request has looked at the journal up to here */
    bool draining;
};

struct admin {
    struct admin_options options;
    uint64_t opened_ms;
    struct list pendings;
    struct map pending_by_handle;
    struct waiting waiting;
    struct map job_waits;       /* by handle: jobs_wait.c */
    struct retention retention; /* what an operator has set, if it is on disk already or not */
    struct arena arena;
    struct buf out;
    char head_message[400];
    const struct key *key; /* of the request that is worked on; NULL: it needs none */
    uint32_t project; /* for which is spoken: of the request or effect that is worked on; or 0 */
};

/* `last` is what the path has behind the route's own: "gemini" of /v1/sources/gemini, "batches" of
 * /v1/subscriptions/batches:pause, "batches/18" of /v1/dead-letters/batches/18, "jobs/7" (as it was
 * sent, with its escapes) of /v1/jobs/jobs/7:wait; else empty. */
typedef void handler_fn(struct admin *a, const struct http_request *r, struct slice last);

struct pending;
typedef void pending_fn(struct admin *a, const struct pending *p, const struct effect *effect);

struct pending {
    struct list link;
    uint64_t handle;
    uint32_t project;
    pending_fn *done;
    enum err err;        /* of the first of its commands that was refused, but for the last one */
    const char *message; /* of that, as in its effect */
    char secret[LIMIT_SECRET_TEXT_BYTES + 1]; /* generated with the resource; else empty */
    char name[];                              /* of the resource */
};

struct engine_time admin_time(const struct admin *a);
/* An answer that several commands bring: each but the last one has the route of pending_part, the
 * last one that of pending_last. `done` gets the effect of the last one, and with it the error of
 * the first one that was refused. `secret` may be NULL. */
struct pending *pending_begin(struct admin *a, const struct http_request *r, pending_fn *done,
                              struct slice name, const char *secret);
struct route pending_part(const struct admin *a, const struct pending *p);
struct route pending_last(const struct admin *a, const struct pending *p);
/* The same with one command (its route is set here). */
void pending_step(struct admin *a, const struct http_request *r, pending_fn *done,
                  struct slice name, const char *secret, struct command *command);
/* Whether a command with this `done` is under way for the name. */
bool pending_exists(const struct admin *a, pending_fn *done, struct slice name);

/* How many commands with this `done` are under way, of all projects. */
size_t pending_count(const struct admin *a, pending_fn *done);

/* Routes of commands that need no struct pending: rid says which handler takes the effect. */
enum admin_rid { RID_PENDING, RID_PENDING_PART, RID_PUBLISH_ONE, RID_PUBLISH_BATCH };

handler_fn sources_create, sources_list, sources_show, sources_delete;
handler_fn sources_update, sources_test;
handler_fn subscriptions_create, subscriptions_list, subscriptions_show, subscriptions_delete;
handler_fn subscriptions_update, subscriptions_pause, subscriptions_resume, subscriptions_seek;
handler_fn events_publish, events_list, events_show;
handler_fn dead_letters_list, dead_letters_show, dead_letters_redrive, dead_letters_purge;
handler_fn replays_create, replays_list, replays_show, replays_cancel;
handler_fn retention_show, retention_update;
handler_fn status_show, health_show, ready_show;
handler_fn webhooks_create, webhooks_list, webhooks_show, webhooks_update, webhooks_delete;
handler_fn webhooks_rotate, webhooks_send_ping, webhooks_pause, webhooks_resume, webhooks_resend;
handler_fn webhooks_recover, webhooks_list_attempts, webhook_endpoints_list;
handler_fn webhook_keys_jwks, webhook_keys_list, webhook_keys_rotate, event_types_list;
handler_fn jobs_put, jobs_show, jobs_hold;
handler_fn keys_create, keys_list, keys_show, keys_update, keys_revoke;
handler_fn projects_post, projects_list, projects_show, projects_remove;

/* Steps a COMMAND_TASK_CREATE whose answer is the task. */
void task_step(struct admin *a, const struct http_request *r, struct command *command);

/* Reads what an operator has set and tells the engine. Non-zero: it cannot be read; logged. */
MUST_CHECK int retention_load(struct admin *a);
/* Appends its three members. */
void retention_put(struct buf *b, const struct retention *r);

/* Appends who lets the journal pass its size: blocked_by, and its project where that is not the
 * default one. */
void blocked_put(const struct admin *a, struct buf *b, const struct engine_stats *stats);
/* Appends the object "totals". */
void totals_put(struct buf *b, const struct engine_totals *totals);

void events_published(struct admin *a, const struct effect *effect);

/* The client of a request that waits for a job is gone; harmless for any other. */
void job_waits_forget(struct admin *a, uint64_t handle);
/* Its client sends nothing more: answers it now, if it is held. */
void job_waits_give_up(struct admin *a, uint64_t handle);
void job_waits_free(struct admin *a);

/* A key has ended (0: keys are asked for from now on): requests that are held by it are refused. */
void admin_on_key_ended(void *ctx, uint64_t number);
void waiting_on_key_ended(struct admin *a, uint64_t number);
void job_waits_on_key_ended(struct admin *a, uint64_t number);

#endif
