/* Requests to the HTTP rooms and what they make of webhooks and jobs, behind the parser: arbitrary
 * methods, paths, queries and bodies, one after another, with a turn after each. Every request is
 * answered exactly once, with JSON and a status that the API knows; engine_check holds after each;
 * at the end the store opens again.
 *
 * The input is lines: "METHOD /path?query" begins a request, the lines up to the next one that
 * looks so are its body. "TIME n" lets n seconds pass, "WORK name" attaches a worker to that
 * subscription, which rejects what it gets: so there are dead letters to ask for. "CRASH" is a
 * power loss. A webhook's id is not known beforehand: "@" in a target is that of the first one. Nor
 * is a key: "KEY n" lets the requests from there on carry the n-th that was made (0: none; the
 * first one is carried without a word), and "~" in a target is the id of the last one.
 *
 * The server's and the client's own functions are replaced by the linker (--wrap): answers and
 * deliveries end here, and the clocks are virtual. A delivery is answered with the status that its
 * URI ends with ("http://a.example/503"), else with 200; 000 is no answer. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "broker/admin/admin.h"
#include "broker/http/client.h"
#include "broker/ingest/access_log.h"
#include "broker/json/walk.h"
#include "tests/unit/engine_world.h"

#define REQUESTS_MAX 100
#define MESSAGE_SIZE 512 /* as the server's */
#define HEADERS      4
#define KEYS_MAX     8 /* that are remembered */
#define ROUNDS_MAX   8 /* of deliveries in one turn: each outcome may hand out the next one */

enum { ROOM_NONE, ROOM_ADMIN, ROOM_INGEST, ROOM_WEBHOOKS, ROOM_JOBS, ROOM_AUTH };

struct http_transfer {
    struct list link;
    http_done_fn *on_done;
    void *ctx;
    int status;
};

static struct rooms {
    struct world w;
    struct auth *auth;
    struct projects *projects;
    struct admin *admin;
    struct ingest *ingest;
    struct webhooks *webhooks;
    struct jobs *jobs;
    struct list transfers;    /* under way */
    struct http_server *http; /* never looked into */
    uint64_t last_handle, last_worker;
    bool waits[REQUESTS_MAX + 1]; /* by handle */
    char keys[KEYS_MAX][KEY_TEXT_BYTES + 1];
    size_t keys_count, key;             /* key: of the requests; 0: none */
    const struct http_request *request; /* that is worked on, until its turn has ended */
    struct access_log *log;
} rooms;

/* ---- what the linker puts in the place of http and net ---- */

void __wrap_http_respond(struct http_server *s, uint64_t handle, int status,
                         const char *content_type, const char *extra, struct slice body);
void __wrap_http_respond_error(struct http_server *s, uint64_t handle, enum err err,
                               const char *fmt, ...) PRINTF_LIKE(4, 5);
void __wrap_http_respond_refusal(struct http_server *s, uint64_t handle,
                                 const struct http_refusal *refusal);
size_t __wrap_http_server_connections(const struct http_server *s);
size_t __wrap_http_server_body_memory(const struct http_server *s, size_t *max);
bool __wrap_http_server_body_memory_is_scarce(const struct http_server *s);
uint64_t __wrap_loop_now_ms(const struct loop *l);
uint64_t __wrap_loop_wall_ms(const struct loop *l);
uint64_t __wrap_loop_seed(void);
void __wrap_loop_again(struct loop *l);
int __wrap_http_client_open(struct loop *l, const struct http_client_options *options,
                            struct http_client **out, char *error, size_t error_size);
void __wrap_http_client_close(struct http_client **c);
struct http_transfer *__wrap_http_client_send(struct http_client *c,
                                              const struct http_outbound *request);
void __wrap_http_client_cancel(struct http_client *c, struct http_transfer *t);

static bool note_root(void *ctx, const struct json_value *v) {
    if (v->depth == 0) *(bool *)ctx = v->type == JSON_IS_OBJECT;
    return true;
}

/* The answer that made a key says it once. */
static void note_key(struct slice body) {
    static const char mark[] = "\"key\":\"bh_";
    const uint8_t *at = memmem(body.data, body.len, mark, sizeof mark - 1);
    if (at == NULL || rooms.keys_count == KEYS_MAX) return;
    at += sizeof "\"key\":\"" - 1;
    CHECK(at + KEY_TEXT_BYTES <= body.data + body.len);
    memcpy(rooms.keys[rooms.keys_count++], at, KEY_TEXT_BYTES);
    if (rooms.keys_count == 1) rooms.key = 1;
}

void __wrap_http_respond(struct http_server *s, uint64_t handle, int status,
                         const char *content_type, const char *extra, struct slice body) {
    bool object = false;
    (void)s;
    CHECK(handle <= REQUESTS_MAX && rooms.waits[handle]);
    rooms.waits[handle] = false;
    CHECK(status >= 200 && status <= 599 && content_type == NULL);
    CHECK(extra == NULL || strstr(extra, "\r\n") == extra + strlen(extra) - 2);
    CHECK(json_utf8_error(body) == body.len);
    CHECK(json_walk(body, 0, note_root, &object, NULL) && object);
    if (status == 201) note_key(body);
}

/* As the server, which tells of it before it answers. */
void __wrap_http_respond_refusal(struct http_server *s, uint64_t handle,
                                 const struct http_refusal *refusal) {
    struct buf body;
    CHECK(refusal->err != ERR_OK && refusal->message[0] != '\0');
    const struct http_request *r = rooms.request;
    if (r != NULL && slice_starts_with(r->path, "/in/")) {
        ingest_on_refused(rooms.ingest, r, refusal);
    } else if (r != NULL) {
        admin_on_refused(rooms.admin, r, refusal);
    }
    buf_init(&body, 64 * KIB);
    CHECK(buf_append_str(&body, "{\"message\":"));
    CHECK(buf_append_json_string(&body, slice_str(refusal->message)));
    CHECK(buf_append_str(&body, "}\n"));
    __wrap_http_respond(s, handle, err_info((int)refusal->err).status, NULL, refusal->extra,
                        buf_slice(&body));
    buf_free(&body);
}

void __wrap_http_respond_error(struct http_server *s, uint64_t handle, enum err err,
                               const char *fmt, ...) {
    char message[MESSAGE_SIZE];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    __wrap_http_respond_refusal(s, handle, &(struct http_refusal){.err = err, .message = message});
}

size_t __wrap_http_server_connections(const struct http_server *s) {
    (void)s;
    return 1;
}

size_t __wrap_http_server_body_memory(const struct http_server *s, size_t *max) {
    (void)s;
    *max = 2;
    return 1;
}

bool __wrap_http_server_body_memory_is_scarce(const struct http_server *s) {
    (void)s;
    return rooms.last_handle % 2 == 0;
}

uint64_t __wrap_loop_now_ms(const struct loop *l) {
    (void)l;
    return rooms.w.time.now_ms;
}

uint64_t __wrap_loop_wall_ms(const struct loop *l) {
    (void)l;
    return rooms.w.time.wall_ms;
}

uint64_t __wrap_loop_seed(void) {
    return 1;
}

void __wrap_loop_again(struct loop *l) {
    (void)l;
}

int __wrap_http_client_open(struct loop *l, const struct http_client_options *options,
                            struct http_client **out, char *error, size_t error_size) {
    (void)l;
    (void)error;
    (void)error_size;
    CHECK(options->guard != NULL);
    *out = (struct http_client *)&rooms; /* never looked into */
    return 0;
}

void __wrap_http_client_close(struct http_client **c) {
    CHECK(list_empty(&rooms.transfers)); /* every attempt was cancelled */
    *c = NULL;
}

static int status_of(struct slice uri) {
    uint64_t status;
    if (uri.len < 4 || uri.data[uri.len - 4] != '/') return 200;
    if (!slice_to_u64(slice_from(uri, uri.len - 3), &status)) return 200;
    return status == 0 || status >= 100 ? (int)status : 200;
}

struct http_transfer *__wrap_http_client_send(struct http_client *c,
                                              const struct http_outbound *request) {
    struct http_transfer *t = mem_alloc(sizeof *t);
    (void)c;
    CHECK(strlen(request->uri) <= LIMIT_URI_BYTES && request->body.len > 0);
    for (size_t i = 0; i < request->headers_count; i++) {
        const struct http_outbound_header *h = &request->headers[i];
        CHECK(h->name[0] != '\0' && strpbrk(h->name, " :\r\n") == NULL);
        CHECK(strpbrk(h->value, "\r\n") == NULL);
    }
    t->on_done = request->on_done;
    t->ctx = request->ctx;
    t->status = status_of(slice_str(request->uri));
    list_push_back(&rooms.transfers, &t->link);
    return t;
}

void __wrap_http_client_cancel(struct http_client *c, struct http_transfer *t) {
    (void)c;
    list_unlink(&t->link);
    free(t);
}

static void finish_transfers(void) {
    struct list *first;
    size_t count = 0;
    while ((first = list_first(&rooms.transfers)) != NULL && count++ < REQUESTS_MAX) {
        struct http_transfer *t = CONTAINER_OF(first, struct http_transfer, link);
        struct http_result result = {
            .failure = t->status == 0 ? HTTP_TIMEOUT : HTTP_ANSWERED,
            .status = t->status,
            .duration_ms = 1,
            .body = slice_str("no \xff good"),
            .retry_after = slice_str(t->status == 503 ? "7" : ""),
            .detail = t->status == 0 ? "no answer" : "",
        };
        list_unlink(&t->link);
        t->on_done(t->ctx, &result);
        free(t);
    }
}

/* ---- the broker around the rooms ---- */

static size_t no_workers(void *ctx) {
    (void)ctx;
    return 0;
}

static void on_effect(void *ctx, const struct effect *e) {
    (void)ctx;
    if (e->route.room == ROOM_ADMIN) admin_on_effect(rooms.admin, e);
    if (e->route.room == ROOM_INGEST) ingest_on_effect(rooms.ingest, e);
    if (e->route.room == ROOM_WEBHOOKS) webhooks_on_effect(rooms.webhooks, e);
    if (e->route.room == ROOM_JOBS) jobs_on_effect(rooms.jobs, e);
    if (e->kind != EFFECT_DELIVER || e->route.room == ROOM_WEBHOOKS) return;
    struct tag_range range = {e->u.deliver.tag, e->u.deliver.tag};
    struct command c = {.kind = COMMAND_NACK};
    c.u.settle.attachment = e->u.deliver.attachment;
    c.u.settle.ranges = &range;
    c.u.settle.count = 1;
    c.u.settle.kind = NACK_REJECT;
    c.u.settle.failure.message = e->u.deliver.event.type;
    world_step(&rooms.w, &c);
}

static void open_rooms(void) {
    struct rooms *r = &rooms;
    char error[256];
    r->auth = auth_new(r->w.engine, ROOM_AUTH);
    CHECK(auth_load(r->auth, error, sizeof error) == 0);
    r->projects = projects_new(r->w.engine);
    CHECK(projects_load(r->projects, error, sizeof error) == 0);
    struct ingest_options ingest = {
        .engine = r->w.engine,
        .projects = r->projects,
        .http = &r->http,
        .room = ROOM_INGEST,
        .log = r->log,
    };
    int err = ingest_open(&r->ingest, &ingest, error, sizeof error);
    CHECK(err == 0);
    struct webhooks_options webhooks = {
        .engine = r->w.engine,
        .projects = r->projects,
        .room = ROOM_WEBHOOKS,
        .allow = "127.0.0.0/8",
        .ca_file = "",
        .key_file = "",
        .audience = "",
        .timeout_ms = 15000,
        .max_age_ms = 24 * 3600 * 1000,
        .backoff_min_ms = 5000,
        .backoff_max_ms = 5 * 3600 * 1000,
        .disable_after_ms = 5 * 24 * 3600 * 1000,
    };
    err = webhooks_open(&r->webhooks, &webhooks, error, sizeof error);
    CHECK(err == 0);
    r->jobs = jobs_open(r->w.engine);
    struct admin_options admin = {
        .engine = r->w.engine,
        .auth = r->auth,
        .projects = r->projects,
        .store = r->w.store,
        .http = &r->http,
        .ingest = r->ingest,
        .webhooks = r->webhooks,
        .jobs = r->jobs,
        .room = ROOM_ADMIN,
        .log = r->log,
        .http_address = "127.0.0.1:1",
        .workers_address = "127.0.0.1:2",
        .workers_count = no_workers,
        .body_max_bytes = LIMIT_BODY_BYTES_DEFAULT,
    };
    err = admin_open(&r->admin, &admin);
    CHECK(err == 0);
}

static void close_rooms(void) {
    admin_close(&rooms.admin);
    jobs_close(&rooms.jobs);
    webhooks_close(&rooms.webhooks);
    ingest_close(&rooms.ingest);
    projects_free(&rooms.projects);
    auth_free(&rooms.auth);
}

static void turn(void) {
    uint64_t now_ms = rooms.w.time.now_ms;
    world_turn(&rooms.w);
    for (int i = 0; i < ROUNDS_MAX && !list_empty(&rooms.transfers); i++) {
        finish_transfers();
        world_turn(&rooms.w);
    }
    admin_on_turn(rooms.admin, now_ms);
    jobs_on_turn(rooms.jobs, now_ms);
    webhooks_on_turn(rooms.webhooks, now_ms);
    world_turn(&rooms.w);
    store_end_reads(rooms.w.store);
}

static void crash(void) {
    close_rooms();
    world_crash(&rooms.w);
    memset(rooms.waits, 0, sizeof rooms.waits); /* their clients are gone too */
    open_rooms();
}

/* ---- the input ---- */

static struct slice cut_line(struct slice *rest) {
    const uint8_t *end = rest->len == 0 ? NULL : memchr(rest->data, '\n', rest->len);
    size_t len = end == NULL ? rest->len : (size_t)(end - rest->data);
    struct slice line = slice_of(rest->data, len);
    *rest = slice_from(*rest, end == NULL ? len : len + 1);
    return line;
}

/* Capital letters up to a blank, or nothing. */
static struct slice verb_of(struct slice line) {
    size_t len = 0;
    while (len < line.len && line.data[len] >= 'A' && line.data[len] <= 'Z') len++;
    bool ends = len > 0 && (len == line.len || line.data[len] == ' ');
    return slice_of(line.data, ends ? len : 0);
}

static struct slice cut_body(struct slice *rest) {
    struct slice body = slice_of(rest->data, 0);
    while (rest->len > 0) {
        struct slice ahead = *rest;
        if (verb_of(cut_line(&ahead)).len > 0) return body;
        body.len += rest->len - ahead.len;
        *rest = ahead;
    }
    return body;
}

static bool on_head(const struct http_request *r, struct http_refusal *refusal) {
    bool hook = slice_starts_with(r->path, "/in/");
    return hook ? ingest_on_head(rooms.ingest, r, refusal) : admin_on_head(rooms.admin, r, refusal);
}

static void request(struct slice verb, struct slice target, struct slice body) {
    /* Of exactly the size, so that a read beyond it is seen. */
    uint8_t *bytes = mem_alloc(body.len + 1);
    if (body.len > 0) memcpy(bytes, body.data, body.len);
    const uint8_t *mark = target.len == 0 ? NULL : memchr(target.data, '?', target.len);
    size_t path_len = mark == NULL ? target.len : (size_t)(mark - target.data);
    struct http_header headers[HEADERS] = {
        {slice_str("host"), slice_str("127.0.0.1:1")},
        {slice_str("content-length"), slice_str(body.len > 0 ? "1" : "0")},
        {slice_str("webhook-id"), body},
        {slice_str("x-goog-api-key"), slice_str(rooms.key > 0 ? rooms.keys[rooms.key - 1] : "")},
    };
    struct http_request r = {
        .handle = ++rooms.last_handle,
        .method = verb,
        .path = slice_of(target.data, path_len),
        .query = slice_from(target, mark == NULL ? target.len : path_len + 1),
        .headers = headers,
        .headers_count = rooms.key > 0 ? HEADERS : HEADERS - 1,
        .body = slice_of(bytes, body.len),
        .peer = "127.0.0.1:3",
    };
    struct http_refusal refusal;
    rooms.waits[r.handle] = true;
    rooms.request = &r;
    if (!on_head(&r, &refusal)) {
        __wrap_http_respond_refusal(rooms.http, r.handle, &refusal);
    } else if (slice_starts_with(r.path, "/in/")) {
        ingest_on_request(rooms.ingest, &r);
    } else {
        admin_on_request(rooms.admin, &r);
    }
    turn();
    access_log_on_turn(rooms.log, rooms.w.time.now_ms);
    rooms.request = NULL;
    free(bytes);
}

/* The target with the id of a webhook in the place of each "@". */
static struct slice with_id(struct slice target, struct buf *out) {
    const struct webhook *w = registry_at(webhooks_registry(rooms.webhooks), 0);
    for (size_t i = 0; i < target.len; i++) {
        if (target.data[i] == '@' && w != NULL) buf_append_str(out, w->id);
        else if (target.data[i] == '~' && rooms.keys_count > 0)
            buf_append(out, rooms.keys[rooms.keys_count - 1] + 3, KEY_ID_BYTES);
        else buf_append_byte(out, target.data[i]);
    }
    return out->overflow ? target : buf_slice(out);
}

static void act(struct slice verb, struct slice argument, struct slice body) {
    char name[LIMIT_NAME_BYTES + 1];
    uint64_t n = 0;
    if (slice_eq_str(verb, "TIME")) {
        if (!slice_to_u64(argument, &n)) n = 1;
        rooms.w.time.now_ms += n % 1000000000 * 1000;
        rooms.w.time.wall_ms += n % 1000000000 * 1000;
        turn();
    } else if (slice_eq_str(verb, "WORK")) {
        if (!slice_to_cstr(argument, name, sizeof name)) return;
        world_attach(&rooms.w, ++rooms.last_worker, name, 4, 0);
        turn();
    } else if (slice_eq_str(verb, "KEY")) {
        if (slice_to_u64(argument, &n)) rooms.key = n <= rooms.keys_count ? (size_t)n : 0;
    } else if (slice_eq_str(verb, "CRASH")) {
        crash();
    } else if (argument.len > 0 && argument.data[0] == '/' && rooms.last_handle < REQUESTS_MAX) {
        struct buf target;
        buf_init(&target, LIMIT_HTTP_TARGET_BYTES);
        request(verb, with_id(argument, &target), body); /* the parser lets nothing else through */
        buf_free(&target);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    log_set_level(LOG_ERROR);
    memset(&rooms, 0, sizeof rooms);
    rooms.w.quiet = true;
    rooms.w.on_effect = on_effect;
    rooms.w.options.jobs_room = ROOM_JOBS;
    list_init(&rooms.transfers);
    world_open(&rooms.w);
    rooms.log = access_log_new(ACCESS_ALL);
    open_rooms();
    struct slice rest = slice_of(data, size);
    while (rest.len > 0) {
        struct slice line = cut_line(&rest);
        struct slice verb = verb_of(line);
        struct slice argument = slice_from(line, verb.len < line.len ? verb.len + 1 : line.len);
        act(verb, argument, cut_body(&rest));
    }
    jobs_drain(rooms.jobs);
    admin_drain(rooms.admin);
    webhooks_drain(rooms.webhooks);
    turn();
    for (size_t i = 0; i <= REQUESTS_MAX; i++) CHECK(!rooms.waits[i]);
    crash();
    close_rooms();
    access_log_free(&rooms.log);
    world_close(&rooms.w);
    return 0;
}
