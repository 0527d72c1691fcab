/* admin.h: the room of the JSON API (docs/http-api.md): /v1/..., /v1beta/webhooks, /healthz and
 * /.well-known/jwks.json.
 *
 * Owned by main from admin_open to admin_close. Reads are answered at once from the engine; what
 * changes something becomes a command whose effect brings the answer: the room keeps what it must
 * say then in a table by the request's handle. Held requests (wait_ms) are looked at once per turn;
 * those that wait for a job are the jobs room's until it answers them, and admin_close comes after
 * its last answer.
 *
 * May call: auth (keys, projects), ingest (its sources), workers (counts), webhooks, jobs, http,
 * fields, json, engine and its filters, base. */
#ifndef ADMIN_ADMIN_H
#define ADMIN_ADMIN_H

#include "broker/auth/auth.h"
#include "broker/auth/projects.h"
#include "broker/ingest/ingest.h"
#include "broker/jobs/jobs.h"
#include "broker/webhooks/webhooks.h"

struct admin;

struct admin_options {
    struct engine *engine;
    struct auth *auth;
    struct projects *projects;
    struct store *store; /* for store_usage only */
    struct loop *loop;
    struct http_server **http;
    struct ingest *ingest;
    struct webhooks *webhooks;
    struct jobs *jobs;
    uint32_t room;
    const char *http_address; /* "127.0.0.1:8420", as bound */
    bool http_tls;
    bool http_local;             /* http_address is reached from this machine only */
    const char *workers_address; /* as bound */
    uint16_t workers_port;
    bool workers_tls;
    size_t (*workers_count)(void *ctx); /* connected sessions */
    void *workers_ctx;
    struct access_log *log;     /* NULL: nothing is logged */
    size_t body_max_bytes;      /* of one event */
    struct retention retention; /* what the broker was started with */
};

/* Non-zero (ERR_STORE): a stored setting cannot be read; the log says which. *out is NULL then. */
MUST_CHECK int admin_open(struct admin **out, const struct admin_options *options);
void admin_close(struct admin **a);

/* Whether the body of a request may be sent: no key, unknown path, or an event that could not be
 * taken. Whatever has no body, and other methods, is answered as a whole request. The texts of
 * *refusal live until the next call. */
bool admin_on_head(struct admin *a, const struct http_request *head, struct http_refusal *refusal);
/* One is being refused, by whomever: logs it. */
void admin_on_refused(struct admin *a, const struct http_request *request,
                      const struct http_refusal *refusal);
/* Any request whose path does not start with /in/. */
void admin_on_request(struct admin *a, const struct http_request *request);
void admin_on_gone(struct admin *a, uint64_t handle);
/* Who waits and sends nothing more is answered now. */
void admin_on_half_closed(struct admin *a, uint64_t handle);
void admin_on_effect(struct admin *a, const struct effect *effect);
/* Once per turn, after its effects: answers held requests whose events are there or whose time is
 * over. Returns when it must be called again at the latest (monotonic ms; UINT64_MAX: no need). */
uint64_t admin_on_turn(struct admin *a, uint64_t now_ms);
/* The broker is stopping: answers every held request now and holds no more. Those that wait for a
 * job are answered by jobs_drain. */
void admin_drain(struct admin *a);

#endif
