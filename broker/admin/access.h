/* access.h: whether a request has a key, and whether the key is good for what is asked.
 *
 * Two questions, in this order: access_enter, when the head is there and again with the whole
 * request, finds the key and holds its scopes against those of the route; access_touch holds the
 * names that the request speaks of against those that the key is limited to. Without keys both say
 * yes. What belongs to all names at once (the journal of a project) is not for a limited key; a
 * list shows it only its own. What belongs to the whole broker is for keys of the default project.
 *
 * For the files of admin/ only. May call: room.h, auth, fields, http, webhooks, engine. */
#ifndef ADMIN_ACCESS_H
#define ADMIN_ACCESS_H

#include "broker/admin/room.h"
#include "broker/fields/fields.h"

#define OPEN 0u /* of a route: no key is needed */

/* Where a request says what it is about. */
enum touch {
    TOUCHES_NOTHING, /* nothing that a key is limited by, or a list that its handler narrows */
    TOUCHES_ALL,     /* what belongs to all sources and subscriptions */
    SUBSCRIPTION_IN_PATH,
    SUBSCRIPTION_IN_QUERY, /* "subscription" */
    SUBSCRIPTION_IN_BODY,  /* the same */
    NAME_IN_BODY,          /* a subscription's "name" */
    SOURCE_IN_PATH,
    SOURCE_IN_BODY,   /* its "name" */
    WEBHOOK_IN_PATH,  /* its id: its subscription is webhook.ID */
    TOUCHES_WEBHOOKS, /* any of them */
    TASK_IN_PATH,     /* a replay of a subscription */
    TOUCHES_BROKER,   /* what belongs to all projects: for the operator's keys, without limits */
};

/* Sets a->key and a->project. False: refused; ERR_UNAUTHENTICATED or ERR_PERMISSION_DENIED. */
bool access_enter(struct admin *a, const struct http_request *r, unsigned scopes,
                  struct refusal *f);
/* `last` is what the handler gets. A request that does not say a name passes: its handler refuses
 * it. */
bool access_touch(struct admin *a, const struct http_request *r, enum touch touch,
                  struct slice last, struct refusal *f);

/* The request has been worked on: nothing is done for its key or project from here on. */
void access_leave(struct admin *a);

/* The id of the key that a request names, whether it has that key or not; empty: none that there
 * is. */
struct slice access_key_named(const struct admin *a, const struct http_request *r);

/* The request that is worked on is the operator's: it needs no key, or has one of the default
 * project. */
bool access_is_operator(const struct admin *a);
/* And it may see what belongs to the whole broker: with manage or admin, and without limits. */
bool access_sees_broker(const struct admin *a);
/* Of the request that is worked on: for lists. */
bool access_subscription(const struct admin *a, struct slice name);
/* The number of its key, for what outlives it; 0: it needs none. */
uint64_t access_key_number(const struct admin *a);

/* Answers a held request whose key has ended (0: that came without one). */
void access_refuse_held(struct admin *a, uint64_t handle, uint64_t number);

#endif
