/* room.h: what the files of the admin room share; nobody else includes it.
 *
 * struct admin is made by admin_open. `arena` and `out` are scratch of the request or effect that
 * is worked on and are emptied before the next one. A struct pending is made by pending_step with
 * its command and dies when its effect has been answered: every command of the room has exactly one
 * effect, also when the client is gone by then (an answer to a dead handle does nothing). */
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
    struct retention retention; /* what an operator has set, if it is on disk already or not */
    struct arena arena;
    struct buf out;
    char head_message[256];
};

/* `last` is what the path has behind the route's own: "gemini" of /v1/sources/gemini, "batches" of
 * /v1/subscriptions/batches:pause, "batches/18" of /v1/dead-letters/batches/18; else empty. */
typedef void handler_fn(struct admin *a, const struct http_request *r, struct slice last);

struct pending;
typedef void pending_fn(struct admin *a, const struct pending *p, const struct effect *effect);

struct pending {
    struct list link;
    uint64_t handle;
    pending_fn *done;
    char name[LIMIT_NAME_BYTES + 1];          /* of the resource */
    char secret[LIMIT_SECRET_TEXT_BYTES + 1]; /* generated with a source; else empty */
};

struct engine_time admin_time(const struct admin *a);
/* Steps the command (its route is set here) and calls `done` with its effect. `secret` may be
 * NULL. */
void pending_step(struct admin *a, const struct http_request *r, pending_fn *done,
                  struct slice name, const char *secret, struct command *command);
/* Whether a command with this `done` is under way for the name. */
bool pending_exists(const struct admin *a, pending_fn *done, struct slice name);

/* Routes of commands that need no struct pending: rid says which handler takes the effect. */
enum admin_rid { RID_PENDING, RID_PUBLISH_ONE, RID_PUBLISH_BATCH };

handler_fn sources_create, sources_list, sources_show, sources_delete;
handler_fn subscriptions_create, subscriptions_list, subscriptions_show, subscriptions_delete;
handler_fn subscriptions_update, subscriptions_pause, subscriptions_resume, subscriptions_seek;
handler_fn events_publish, events_list, events_show;
handler_fn dead_letters_list, dead_letters_show, dead_letters_redrive, dead_letters_purge;
handler_fn replays_create, replays_list, replays_show, replays_cancel;
handler_fn retention_show, retention_update;
handler_fn status_show, health_show;

/* Steps a COMMAND_TASK_CREATE whose answer is the task. */
void task_step(struct admin *a, const struct http_request *r, struct command *command);

/* Reads what an operator has set and tells the engine. Non-zero: it cannot be read; logged. */
MUST_CHECK int retention_load(struct admin *a);
/* Appends its three members. */
void retention_put(struct buf *b, const struct retention *r);

void events_published(struct admin *a, const struct effect *effect);

#endif
