/* How a request is answered, when all is well: admin_on_request finds the route and calls its
 * handler; a handler that reads answers at once; one that changes something steps a command and
 * leaves a struct pending, whose `done` answers when the effect comes.
 *
 * What can go wrong: no such path (404), another method (405), no room for events (503, before the
 * body came); what the handlers refuse; the engine refuses the command (its effect has the error);
 * the client is gone (the effect is still taken in, its answer goes nowhere). */
#include <stdio.h>
#include <stdlib.h>

#include "broker/admin/access.h"
#include "broker/admin/answer.h"
#include "broker/admin/events.h"
#include "broker/admin/origin.h"
#include "broker/ingest/access_log.h"
#include "broker/ingest/admission.h"

/* The largest event, every byte of it written as a six-byte escape, and a page before it. */
#define OUT_BYTES_MAX (8ULL * LIMIT_EVENT_BYTES + LIMIT_PAGE_BYTES)

#define SEGMENTS_REST SIZE_MAX /* one thing that may have slashes and colons in it */

struct route_row {
    const char *method, *path;
    size_t segments;  /* so many follow the path, after a slash each */
    const char *verb; /* and then, after a colon, this, or all of "/this"; NULL: none */
    handler_fn *handler;
    unsigned scopes; /* any of them; OPEN: no key is needed */
    enum touch touch;
};

/* What a key must be good for to get through (access.h). */
static const struct route_row routes[] = {
    {"POST", "/v1/events", 0, NULL, events_publish, SCOPE_PUBLISH, TOUCHES_NOTHING},
    {"GET", "/v1/events", 0, NULL, events_list, SCOPE_CONSUME, TOUCHES_ALL},
    {"GET", "/v1/events", 1, NULL, events_show, SCOPE_CONSUME, TOUCHES_ALL},
    {"POST", "/v1/sources", 0, NULL, sources_create, SCOPE_MANAGE, SOURCE_IN_BODY},
    {"GET", "/v1/sources", 0, NULL, sources_list, SCOPE_MANAGE, TOUCHES_ALL},
    {"GET", "/v1/sources", 1, NULL, sources_show, SCOPE_MANAGE, SOURCE_IN_PATH},
    {"PATCH", "/v1/sources", 1, NULL, sources_update, SCOPE_MANAGE, SOURCE_IN_PATH},
    {"DELETE", "/v1/sources", 1, NULL, sources_delete, SCOPE_MANAGE, SOURCE_IN_PATH},
    {"POST", "/v1/sources", 1, "test", sources_test, SCOPE_MANAGE, SOURCE_IN_PATH},
    {"POST", "/v1/subscriptions", 0, NULL, subscriptions_create, SCOPE_MANAGE, NAME_IN_BODY},
    {"GET", "/v1/subscriptions", 0, NULL, subscriptions_list, SCOPE_CONSUME | SCOPE_MANAGE,
     TOUCHES_NOTHING},
    {"GET", "/v1/subscriptions", 1, NULL, subscriptions_show, SCOPE_CONSUME | SCOPE_MANAGE,
     SUBSCRIPTION_IN_PATH},
    {"PATCH", "/v1/subscriptions", 1, NULL, subscriptions_update, SCOPE_MANAGE,
     SUBSCRIPTION_IN_PATH},
    {"DELETE", "/v1/subscriptions", 1, NULL, subscriptions_delete, SCOPE_MANAGE,
     SUBSCRIPTION_IN_PATH},
    {"POST", "/v1/subscriptions", 1, "pause", subscriptions_pause, SCOPE_MANAGE,
     SUBSCRIPTION_IN_PATH},
    {"POST", "/v1/subscriptions", 1, "resume", subscriptions_resume, SCOPE_MANAGE,
     SUBSCRIPTION_IN_PATH},
    {"POST", "/v1/subscriptions", 1, "seek", subscriptions_seek, SCOPE_MANAGE,
     SUBSCRIPTION_IN_PATH},
    {"GET", "/v1/dead-letters", 0, NULL, dead_letters_list, SCOPE_MANAGE, SUBSCRIPTION_IN_QUERY},
    {"GET", "/v1/dead-letters", 2, NULL, dead_letters_show, SCOPE_MANAGE, SUBSCRIPTION_IN_PATH},
    {"POST", "/v1/dead-letters", 0, "redrive", dead_letters_redrive, SCOPE_MANAGE,
     SUBSCRIPTION_IN_BODY},
    {"POST", "/v1/dead-letters", 0, "purge", dead_letters_purge, SCOPE_MANAGE,
     SUBSCRIPTION_IN_BODY},
    {"POST", "/v1/replays", 0, NULL, replays_create, SCOPE_MANAGE, SUBSCRIPTION_IN_BODY},
    {"GET", "/v1/replays", 0, NULL, replays_list, SCOPE_MANAGE, TOUCHES_NOTHING},
    {"GET", "/v1/replays", 1, NULL, replays_show, SCOPE_MANAGE, TASK_IN_PATH},
    {"POST", "/v1/replays", 1, "cancel", replays_cancel, SCOPE_MANAGE, TASK_IN_PATH},
    {"GET", "/v1/retention", 0, NULL, retention_show, SCOPE_MANAGE, TOUCHES_BROKER},
    {"PATCH", "/v1/retention", 0, NULL, retention_update, SCOPE_MANAGE, TOUCHES_BROKER},
    {"GET", "/v1/status", 0, NULL, status_show, SCOPES_ALL, TOUCHES_NOTHING},
    {"GET", "/healthz", 0, NULL, health_show, OPEN, TOUCHES_NOTHING},
    {"GET", "/readyz", 0, NULL, ready_show, OPEN, TOUCHES_NOTHING},
    {"POST", "/v1/webhooks", 0, NULL, webhooks_create, SCOPE_MANAGE, TOUCHES_WEBHOOKS},
    {"GET", "/v1/webhooks", 0, NULL, webhooks_list, SCOPE_MANAGE, TOUCHES_WEBHOOKS},
    {"GET", "/v1/webhooks", 1, NULL, webhooks_show, SCOPE_MANAGE, WEBHOOK_IN_PATH},
    {"PATCH", "/v1/webhooks", 1, NULL, webhooks_update, SCOPE_MANAGE, WEBHOOK_IN_PATH},
    {"DELETE", "/v1/webhooks", 1, NULL, webhooks_delete, SCOPE_MANAGE, WEBHOOK_IN_PATH},
    {"POST", "/v1/webhooks", 1, "ping", webhooks_send_ping, SCOPE_MANAGE, WEBHOOK_IN_PATH},
    {"POST", "/v1/webhooks", 1, "rotateSigningSecret", webhooks_rotate, SCOPE_MANAGE,
     WEBHOOK_IN_PATH},
    {"POST", "/v1/webhooks", 1, "/rotate_secret", webhooks_rotate, SCOPE_MANAGE, WEBHOOK_IN_PATH},
    {"POST", "/v1/webhooks", 1, "pause", webhooks_pause, SCOPE_MANAGE, WEBHOOK_IN_PATH},
    {"POST", "/v1/webhooks", 1, "resume", webhooks_resume, SCOPE_MANAGE, WEBHOOK_IN_PATH},
    {"POST", "/v1/webhooks", 1, "resend", webhooks_resend, SCOPE_MANAGE, WEBHOOK_IN_PATH},
    {"POST", "/v1/webhooks", 1, "recover", webhooks_recover, SCOPE_MANAGE, WEBHOOK_IN_PATH},
    {"GET", "/v1/webhooks", 1, "/attempts", webhooks_list_attempts, SCOPE_MANAGE, WEBHOOK_IN_PATH},
    {"GET", "/v1/webhook-endpoints", 0, NULL, webhook_endpoints_list, SCOPE_MANAGE, TOUCHES_BROKER},
    {"GET", "/.well-known/jwks.json", 0, NULL, webhook_keys_jwks, OPEN, TOUCHES_NOTHING},
    {"GET", "/v1/webhook-keys", 0, NULL, webhook_keys_list, SCOPE_MANAGE, TOUCHES_BROKER},
    {"POST", "/v1/webhook-keys", 0, "rotate", webhook_keys_rotate, SCOPE_MANAGE, TOUCHES_BROKER},
    {"GET", "/v1/event-types", 0, NULL, event_types_list, SCOPES_ALL, TOUCHES_NOTHING},
    {"PUT", "/v1/jobs", SEGMENTS_REST, NULL, jobs_put, SCOPE_PUBLISH, TOUCHES_NOTHING},
    {"GET", "/v1/jobs", SEGMENTS_REST, NULL, jobs_show, SCOPE_CONSUME, TOUCHES_ALL},
    {"GET", "/v1/jobs", SEGMENTS_REST, "wait", jobs_hold, SCOPE_CONSUME, TOUCHES_ALL},
    {"POST", "/v1/keys", 0, NULL, keys_create, SCOPE_ADMIN, TOUCHES_NOTHING},
    {"GET", "/v1/keys", 0, NULL, keys_list, SCOPE_ADMIN, TOUCHES_NOTHING},
    {"GET", "/v1/keys", 1, NULL, keys_show, SCOPE_ADMIN, TOUCHES_NOTHING},
    {"PATCH", "/v1/keys", 1, NULL, keys_update, SCOPE_ADMIN, TOUCHES_NOTHING},
    {"DELETE", "/v1/keys", 1, NULL, keys_revoke, SCOPE_ADMIN, TOUCHES_NOTHING},
    {"POST", "/v1/projects", 0, NULL, projects_post, SCOPE_ADMIN, TOUCHES_BROKER},
    {"GET", "/v1/projects", 0, NULL, projects_list, SCOPE_ADMIN, TOUCHES_BROKER},
    {"GET", "/v1/projects", 1, NULL, projects_show, SCOPE_ADMIN, TOUCHES_BROKER},
    {"DELETE", "/v1/projects", 1, NULL, projects_remove, SCOPE_ADMIN, TOUCHES_BROKER},
};
#define ROUTES (sizeof routes / sizeof routes[0])

int admin_open(struct admin **out, const struct admin_options *options) {
    struct admin *a = mem_zalloc(sizeof *a);
    a->options = *options;
    a->options.http_address = mem_strdup(options->http_address);
    a->options.workers_address = mem_strdup(options->workers_address);
    a->opened_ms = loop_now_ms(options->loop);
    list_init(&a->pendings);
    map_init(&a->pending_by_handle);
    waiting_init(&a->waiting);
    map_init(&a->job_waits);
    arena_init(&a->arena);
    buf_init(&a->out, OUT_BYTES_MAX);
    *out = a;
    auth_watch(a->options.auth, admin_on_key_ended, a);
    int err = retention_load(a);
    if (err != 0) admin_close(out);
    return err;
}

void admin_close(struct admin **out) {
    struct admin *a = *out;
    if (a == NULL) return;
    LIST_FOR(n, next, &a->pendings) {
        free(CONTAINER_OF(n, struct pending, link));
    }
    map_free(&a->pending_by_handle);
    waiting_free(&a->waiting);
    job_waits_free(a);
    arena_free(&a->arena);
    buf_free(&a->out);
    free((char *)a->options.http_address);
    free((char *)a->options.workers_address);
    free(a);
    *out = NULL;
}

/* ---- routes ---- */

/* Cuts ":verb" off the path. No name, seq or id has a colon: what follows the last one is a verb,
 * and a path without one has none. */
static struct slice cut_verb(struct slice *path) {
    const uint8_t *colon = memrchr(path->data, ':', path->len);
    if (colon == NULL) return slice_of(NULL, 0);
    struct slice verb = slice_from(*path, (size_t)(colon - path->data) + 1);
    path->len = (size_t)(colon - path->data);
    return verb;
}

/* How many segments there are, "a/b" being two; 0 when one of them is empty. */
static size_t count_segments(struct slice s) {
    size_t count = 1;
    if (s.len == 0 || s.data[0] == '/' || s.data[s.len - 1] == '/') return 0;
    for (size_t i = 1; i < s.len; i++) {
        if (s.data[i] != '/') continue;
        if (s.data[i - 1] == '/') return 0;
        count++;
    }
    return count;
}

static bool cut_end(struct slice *s, const char *end) {
    size_t len = strlen(end);
    if (s->len < len || memcmp(s->data + s->len - len, end, len) != 0) return false;
    s->len -= len;
    return true;
}

/* Of what may hold colons itself only these are verbs; others are a part of it. */
static bool cut_rest_verb(const struct route_row *row, struct slice *path) {
    bool wait = cut_end(path, ":wait");
    return row->verb == NULL ? !wait : wait && strcmp(row->verb, "wait") == 0;
}

static bool cut_row_verb(const struct route_row *row, struct slice *path) {
    if (row->segments == SEGMENTS_REST) return cut_rest_verb(row, path);
    if (row->verb != NULL && row->verb[0] == '/') return cut_end(path, row->verb);
    struct slice verb = cut_verb(path);
    return row->verb == NULL ? verb.data == NULL : slice_eq_str(verb, row->verb);
}

static bool path_matches(const struct route_row *row, struct slice path, struct slice *last) {
    size_t len = strlen(row->path);
    *last = slice_of(NULL, 0);
    if (!cut_row_verb(row, &path) || !slice_starts_with(path, row->path)) return false;
    if (row->segments == 0) return path.len == len;
    if (path.len < len + 2 || path.data[len] != '/') return false;
    *last = slice_from(path, len + 1);
    return row->segments == SEGMENTS_REST || count_segments(*last) == row->segments;
}

/* Clients of the Gemini API say v1 or v1beta, as old as they are. */
static struct slice path_of(struct admin *a, const struct http_request *r) {
    static const char beta[] = "/v1beta/webhooks", v1[] = "/v1";
    const size_t version = sizeof "/v1beta" - 1;
    if (!slice_starts_with(r->path, beta)) return r->path;
    size_t len = r->path.len - version + sizeof v1 - 1;
    char *path = arena_alloc(&a->arena, len);
    memcpy(path, v1, sizeof v1 - 1);
    memcpy(path + sizeof v1 - 1, r->path.data + version, r->path.len - version);
    return slice_of(path, len);
}

/* HEAD is GET whose body the server leaves out (RFC 9110 section 9.3.2). */
static bool method_matches(const struct route_row *row, struct slice method) {
    if (slice_eq_str(method, "HEAD")) method = slice_str("GET");
    return slice_eq_str(method, row->method);
}

/* The route, or NULL; allow[size] becomes the methods of the path, empty when there is no such
 * path. *last may be in the arena. */
static const struct route_row *find_route(struct admin *a, const struct http_request *r,
                                          struct slice *last, char *allow, size_t size) {
    struct slice path = path_of(a, r);
    size_t len = 0;
    allow[0] = '\0';
    for (size_t i = 0; i < ROUTES; i++) {
        if (!path_matches(&routes[i], path, last)) continue;
        if (method_matches(&routes[i], r->method)) return &routes[i];
        bool get = strcmp(routes[i].method, "GET") == 0;
        len += (size_t)snprintf(allow + len, size - len, "%s%s", len == 0 ? "" : ", ",
                                get ? "GET, HEAD" : routes[i].method);
        CHECK(len < size);
    }
    return NULL;
}

static const char no_such_path[] =
    "there is no such path: there are /in/SOURCE, /healthz, /readyz and, under /v1/, events, "
    "sources, subscriptions, dead-letters, replays, retention, status, webhooks, "
    "webhook-endpoints, webhook-keys, event-types, jobs, keys and projects; "
    "a path does not end with a slash";

static bool has_body(const struct http_request *head) {
    struct slice length = http_header_get(head, "content-length", NULL);
    return http_header_get(head, "transfer-encoding", NULL).len > 0 ||
           (length.len > 0 && !slice_eq_str(length, "0"));
}

/* The scopes that let a request pass; what there is not under /v1 is as secret as what there is. */
static unsigned scopes_of(const struct route_row *row, const struct http_request *r) {
    if (row != NULL) return row->scopes;
    return slice_starts_with(r->path, "/v1") ? SCOPES_ALL : OPEN;
}

bool admin_on_head(struct admin *a, const struct http_request *head, struct http_refusal *refusal) {
    char allow[64];
    struct slice last;
    struct refusal f;
    if (!has_body(head)) return true;
    const struct route_row *row = find_route(a, head, &last, allow, sizeof allow);
    arena_reset(&a->arena);
    if (!access_enter(a, head, scopes_of(row, head), &f)) {
        snprintf(a->head_message, sizeof a->head_message, "%s", f.message);
        *refusal = (struct http_refusal){.err = f.err, .message = a->head_message};
        return false;
    }
    uint32_t project = a->project;
    access_leave(a); /* the key may be gone when the body has come: it is asked for again */
    if (row == NULL && allow[0] == '\0') {
        *refusal = (struct http_refusal){.err = ERR_NOT_FOUND, .message = no_such_path};
        return false;
    }
    return row == NULL || row->handler != events_publish ||
           admission_open(a->options.engine, project, a->head_message, refusal);
}

void admin_on_refused(struct admin *a, const struct http_request *r,
                      const struct http_refusal *refusal) {
    struct access_log *log = a->options.log;
    if (!access_log_takes_refusal(log, loop_now_ms(a->options.loop))) return;
    const struct access_request line = {
        .method = r->method,
        .path = r->path,
        .remote = slice_str(r->peer),
        .key = access_key_named(a, r),
    };
    /* A message of a handler may quote the body; those that are made before, and those about the
     * key, do not. */
    bool of_key = refusal->err == ERR_UNAUTHENTICATED || refusal->err == ERR_PERMISSION_DENIED;
    bool quiet = (r->handle != 0 && !of_key) || refusal->err == ERR_NOT_FOUND;
    access_log_request_refused(log, &line, refusal->err, quiet ? NULL : refusal->message);
}

static void answer_not_allowed(struct admin *a, const struct http_request *r, const char *allow) {
    char extra[80], message[160];
    snprintf(extra, sizeof extra, "Allow: %s\r\n", allow);
    snprintf(message, sizeof message, "this path takes %s, not %.*s", allow,
             r->method.len > 32 ? 32 : (int)r->method.len, (const char *)r->method.data);
    http_respond_refusal(
        *a->options.http, r->handle,
        &(struct http_refusal){.err = ERR_METHOD_NOT_ALLOWED, .message = message, .extra = extra});
}

/* NULL: no web page of somebody else may be behind it. */
static const char *cross_origin(const struct admin *a, const struct http_request *r,
                                const struct route_row *row) {
    const struct origin_door door = {
        .tls = a->options.http_tls,
        .keys = auth_required(a->options.auth),
        .local = a->options.http_local,
    };
    return origin_refusal(r, &door, scopes_of(row, r) == OPEN);
}

void admin_on_request(struct admin *a, const struct http_request *r) {
    char allow[64];
    struct slice last;
    struct refusal f;
    const struct route_row *row = find_route(a, r, &last, allow, sizeof allow);
    const char *page = cross_origin(a, r, row);
    if (page != NULL) {
        http_respond_error(*a->options.http, r->handle, ERR_PERMISSION_DENIED, "%s", page);
    } else if (!access_enter(a, r, scopes_of(row, r), &f) ||
               (row != NULL && !access_touch(a, r, row->touch, last, &f))) {
        answer_refusal(a, r->handle, &f);
    } else if (row == NULL && allow[0] != '\0') {
        answer_not_allowed(a, r, allow);
    } else if (row == NULL) {
        http_respond_error(*a->options.http, r->handle, ERR_NOT_FOUND, "%s", no_such_path);
    } else {
        row->handler(a, r, last);
    }
    access_leave(a);
    arena_reset(&a->arena);
}

void admin_on_gone(struct admin *a, uint64_t handle) {
    waiting_forget(&a->waiting, handle);
    job_waits_forget(a, handle);
}

void admin_on_half_closed(struct admin *a, uint64_t handle) {
    waiting_give_up(a, handle);
    job_waits_give_up(a, handle);
}

/* ---- commands under way ---- */

struct engine_time admin_time(const struct admin *a) {
    return (struct engine_time){.now_ms = loop_now_ms(a->options.loop),
                                .wall_ms = loop_wall_ms(a->options.loop)};
}

struct pending *pending_begin(struct admin *a, const struct http_request *r, pending_fn *done,
                              struct slice name, const char *secret) {
    struct pending *p = mem_zalloc(sizeof *p + name.len + 1);
    p->handle = r->handle;
    p->project = a->project;
    p->done = done;
    bool fits = slice_to_cstr(name, p->name, name.len + 1);
    CHECK(fits); /* it was checked */
    if (secret != NULL) snprintf(p->secret, sizeof p->secret, "%s", secret);
    list_push_back(&a->pendings, &p->link);
    map_add(&a->pending_by_handle, p->handle, p);
    return p;
}

static struct route route_of(const struct admin *a, enum admin_rid rid, const struct pending *p) {
    return (struct route){.room = a->options.room, .rid = rid, .handle = p->handle};
}

struct route pending_part(const struct admin *a, const struct pending *p) {
    return route_of(a, RID_PENDING_PART, p);
}

struct route pending_last(const struct admin *a, const struct pending *p) {
    return route_of(a, RID_PENDING, p);
}

void pending_step(struct admin *a, const struct http_request *r, pending_fn *done,
                  struct slice name, const char *secret, struct command *command) {
    const struct pending *p = pending_begin(a, r, done, name, secret);
    command->project = p->project;
    command->route = pending_last(a, p);
    engine_step(a->options.engine, admin_time(a), command);
}

bool pending_exists(const struct admin *a, pending_fn *done, struct slice name) {
    LIST_FOR(n, next, &a->pendings) {
        const struct pending *p = CONTAINER_OF(n, struct pending, link);
        if (p->done != done || p->project != a->project) continue;
        if (slice_eq_str(name, p->name)) return true;
    }
    return false;
}

size_t pending_count(const struct admin *a, pending_fn *done) {
    size_t count = 0;
    LIST_FOR(n, next, &a->pendings) {
        count += CONTAINER_OF(n, struct pending, link)->done == done;
    }
    return count;
}

static void part_done(struct admin *a, const struct effect *effect) {
    struct pending *p = map_get(&a->pending_by_handle, effect->route.handle);
    CHECK(p != NULL);
    if (p->err != ERR_OK || effect->err == ERR_OK) return;
    p->err = effect->err;
    p->message = effect->message;
}

static void all_done(struct admin *a, const struct effect *effect) {
    struct pending *p = map_remove(&a->pending_by_handle, effect->route.handle);
    struct effect whole = *effect;
    CHECK(p != NULL);
    list_unlink(&p->link);
    if (p->err != ERR_OK) {
        whole.err = p->err;
        whole.message = p->message;
    }
    a->project = p->project;
    p->done(a, p, &whole);
    access_leave(a);
    explicit_bzero(p->secret, sizeof p->secret);
    free(p);
}

void admin_on_effect(struct admin *a, const struct effect *effect) {
    switch ((enum admin_rid)effect->route.rid) {
    case RID_PENDING: all_done(a, effect); return;
    case RID_PENDING_PART: part_done(a, effect); return;
    case RID_PUBLISH_ONE:
    case RID_PUBLISH_BATCH: events_published(a, effect); return;
    }
    UNREACHABLE("every command of this room has one of these");
}
