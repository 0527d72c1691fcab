/* http_world.h: a loop with an outbound client, a server that answers by the path it is asked for,
 * and a resolver that answers what a test wants. For the tests of broker/http/client.h only.
 *
 * One world per test: calls are added, world_run ends when each has its result, then the world is
 * looked at and world_close checks that nothing is left. */
#ifndef TESTS_HTTP_WORLD_H
#define TESTS_HTTP_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "broker/http/client.h"
#include "broker/net/stream.h"
#include "proto/limits.h"

#define WATCHDOG_MS 30000

struct call;
struct world;

struct world {
    struct loop *loop;
    struct listener *listener;
    struct guard *guard;
    struct http_client *client;
    struct loop_timer *watchdog;
    uint16_t port;
    unsigned calls, done;        /* made, and ended */
    unsigned accepted, requests; /* connections and requests that the server saw */
    unsigned open;               /* connections it has now */
    uint64_t unsaid;             /* bytes of a large body that nobody took */
    unsigned wait_for;           /* /with-all answers when so many requests are there */
    void *own;                   /* of the test: what its callbacks look at */
    struct list peers;
    void (*at_request)(struct world *w);
    void (*at_end)(struct world *w); /* when every call has ended; otherwise the loop stops */
    bool over;
};

struct call {
    struct world *world;
    struct http_transfer *transfer;
    void (*then)(struct call *c);
    const char *path;
    bool done;
    enum http_failure failure;
    int status;
    uint64_t duration_ms;
    size_t body_len;
    char body[2048], retry_after[128], detail[512], address[64];
};

/* One connection of the server. */
struct peer {
    struct list node; /* in world->peers */
    struct world *world;
    struct stream *stream;
    struct buf in;
    size_t head_len, length; /* of the request that comes, when its head is there */
    struct loop_timer *drip;
    const char *dripping; /* what is sent byte by byte */
    uint64_t pouring;     /* bytes of a large body still to send */
    char path[64];
    bool holds; /* its answer waits for others */
};

static inline void peer_say(struct peer *p, const char *text) {
    stream_write(p->stream, slice_str(text));
}

static inline void peer_answer(struct peer *p, const char *status, const char *extra,
                               struct slice body) {
    char head[512];
    snprintf(head, sizeof head, "HTTP/1.1 %s\r\n%sContent-Length: %zu\r\n\r\n", status, extra,
             body.len);
    peer_say(p, head);
    stream_write(p->stream, body);
}

static inline void on_drip(void *ctx) {
    struct peer *p = ctx;
    if (*p->dripping == '\0') {
        loop_timer_stop(&p->drip);
        return;
    }
    stream_write(p->stream, slice_of(p->dripping, 1));
    p->dripping++;
}

static inline void peer_drip(struct peer *p, const char *text) {
    p->dripping = text;
    p->drip = loop_timer_start(p->world->loop, 1, 1, on_drip, p);
}

/* Keeps the output full until everything was said. */
static inline void peer_pour(void *ctx) {
    static const uint8_t zeros[64 * KIB];
    struct peer *p = ctx;
    while (p->pouring > 0 && stream_queued(p->stream) <= LIMIT_WRITE_QUEUE_BYTES) {
        size_t len = p->pouring < sizeof zeros ? (size_t)p->pouring : sizeof zeros;
        stream_write(p->stream, slice_of(zeros, len));
        p->pouring -= len;
    }
}

static inline bool path_is(const struct peer *p, const char *path) {
    return strcmp(p->path, path) == 0;
}

/* The answers that are a text and no more; those that end in "!" close the connection after it. */
static const struct {
    const char *path, *text;
} world_answers[] = {
    {"/301", "HTTP/1.1 301 Moved Permanently\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n"},
    {"/204", "HTTP/1.1 204 No Content\r\n\r\n"},
    {"/429", "HTTP/1.1 429 Too Many Requests\r\nretry-after: 120\r\nContent-Length: 0\r\n\r\n"},
    {"/503",
     "HTTP/1.1 503 Service Unavailable\r\n"
     "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2\r\n\r\nno"},
    {"/999", "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"},
    {"/informs",
     "HTTP/1.1 100 Continue\r\n\r\n"
     "HTTP/1.1 103 Early Hints\r\nRetry-After: 7\r\n\r\n"
     "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"},
    {"/informs-only!", "HTTP/1.1 100 Continue\r\n\r\n"},
    {"/chunked",
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
     "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"},
    {"/until-close!", "HTTP/1.1 200 OK\r\n\r\nuntil the end"},
    {"/short!", "HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nonly this"},
    {"/half-chunk!", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"},
    {"/half-head!", "HTTP/1.1 200 OK\r\nContent-Len"},
    {"/nothing!", ""},
    {"/garbage!", "\x16\x03\x01 this is no HTTP\r\n\r\n"},
    {"/old!", "<html>HTTP/0.9 had no head</html>"},
    {"/bad-length!", "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nx"},
    {"/close!", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"},
};

static inline void peer_answer_held(struct world *w) {
    LIST_FOR(n, next, &w->peers) {
        struct peer *p = CONTAINER_OF(n, struct peer, node);
        if (!p->holds) continue;
        p->holds = false;
        peer_answer(p, "200 OK", "", slice_str("held"));
    }
}

static inline void peer_request(struct peer *p, struct slice head, struct slice body) {
    for (size_t i = 0; i < sizeof world_answers / sizeof world_answers[0]; i++) {
        if (!path_is(p, world_answers[i].path)) continue;
        peer_say(p, world_answers[i].text);
        if (strchr(p->path, '!') != NULL) stream_close_after_write(p->stream, "as asked");
        return;
    }
    if (path_is(p, "/echo")) {
        struct buf all;
        buf_init(&all, 4096);
        CHECK(buf_append_slice(&all, head) && buf_append_slice(&all, body));
        peer_answer(p, "200 OK", "", buf_slice(&all));
        buf_free(&all);
    } else if (path_is(p, "/500")) {
        peer_answer(p, "500 Internal Server Error", "", slice_str("it broke inside"));
    } else if (path_is(p, "/drip")) {
        peer_drip(p, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nslowly!");
    } else if (path_is(p, "/drip-no-end")) {
        peer_say(p, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nand then");
    } else if (path_is(p, "/huge")) {
        peer_say(p, "HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n");
        p->pouring = 104857600;
        peer_pour(p);
    } else if (path_is(p, "/endless-head")) {
        peer_say(p, "HTTP/1.1 200 OK\r\n");
        for (int i = 0; i < 3000; i++) peer_say(p, "X-Filler: 0123456789 0123456789\r\n");
    } else if (path_is(p, "/informs-forever!")) {
        for (int i = 0; i < 4000; i++) peer_say(p, "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n");
        stream_close_after_write(p->stream, "as asked");
    } else if (path_is(p, "/with-all")) {
        p->holds = true;
        if (p->world->requests == p->world->wait_for) peer_answer_held(p->world);
    } else if (!path_is(p, "/silent")) {
        peer_answer(p, "200 OK", "", slice_str("fine"));
    }
}

/* The length of the whole request once its head is there; 0 before. */
static inline size_t peer_length(struct peer *p) {
    static const char name[] = "Content-Length: ";
    const char *at, *end = memmem(p->in.data, p->in.len, "\r\n\r\n", 4);
    uint64_t value = 0;
    if (end == NULL) return 0;
    p->head_len = (size_t)(end - (const char *)p->in.data) + 4;
    at = memmem(p->in.data, p->head_len, name, sizeof name - 1);
    if (at != NULL) {
        at += sizeof name - 1;
        CHECK(slice_to_u64(slice_of(at, strcspn(at, "\r")), &value));
    }
    return p->head_len + (size_t)value;
}

static inline void on_peer_data(void *ctx, struct slice bytes) {
    struct peer *p = ctx;
    struct world *w = p->world;
    CHECK(buf_append_slice(&p->in, bytes));
    if (p->length == 0) p->length = peer_length(p);
    if (p->length == 0) return;
    const char *all = (const char *)p->in.data;
    if (strncmp(all, "POST /early ", 12) == 0) {
        w->requests++;
        peer_answer(p, "413 Content Too Large", "", slice_str("too much"));
        stream_close_after_write(p->stream, "too much");
        return;
    }
    if (p->in.len < p->length) return;
    CHECK(p->in.len == p->length); /* nobody pipelines */
    w->requests++;
    if (strncmp(all, "POST ", 5) != 0) fail_msg("not a POST: %.40s", all);
    snprintf(p->path, sizeof p->path, "%.*s", (int)strcspn(all + 5, " "), all + 5);
    struct buf request = p->in;
    buf_init(&p->in, 32 * MIB);
    p->length = 0;
    peer_request(p, slice_of(request.data, p->head_len),
                 slice_from(buf_slice(&request), p->head_len));
    buf_free(&request);
    if (w->at_request != NULL) w->at_request(w);
}

static inline void on_peer_eof(void *ctx) {
    stream_close(((struct peer *)ctx)->stream, "eof");
}

static inline void on_peer_close(void *ctx, const char *why) {
    struct peer *p = ctx;
    (void)why;
    p->world->open--;
    p->world->unsaid += p->pouring;
    loop_timer_stop(&p->drip);
    list_unlink(&p->node);
    buf_free(&p->in);
    free(p);
}

static inline void on_peer(void *ctx, struct stream *s) {
    static const struct stream_ops ops = {on_peer_data, on_peer_eof, peer_pour, on_peer_close};
    struct world *w = ctx;
    struct peer *p = mem_zalloc(sizeof *p);
    p->world = w;
    p->stream = s;
    buf_init(&p->in, 32 * MIB);
    list_push_back(&w->peers, &p->node);
    w->accepted++;
    w->open++;
    stream_attach(s, &ops, p);
}

static inline void on_watchdog(void *ctx) {
    struct world *w = ctx;
    fail_msg("%u of %u calls have ended, then nothing more happened", w->done, w->calls);
}

static inline uint64_t on_world_turn(void *ctx, uint64_t now_ms) {
    struct world *w = ctx;
    (void)now_ms;
    if (w->over || w->done < w->calls) return UINT64_MAX;
    w->over = true;
    if (w->at_end != NULL) w->at_end(w);
    else loop_stop(w->loop);
    return UINT64_MAX;
}

/* A second client of the same world, or the first. */
static inline struct http_client *client_with(struct world *w, const char *ca_file) {
    struct http_client *client;
    char error[256] = "";
    const struct http_client_options options = {
        .guard = w->guard, .ca_file = ca_file, .user_agent = "bellhop-test/1"};
    if (http_client_open(w->loop, &options, &client, error, sizeof error) != 0) {
        fail_msg("%s", error);
    }
    return client;
}

static inline void world_open(struct world *w, const char *allow, const char *ca_file) {
    char error[256] = "";
    const struct guard_options guard = {.allow = allow};
    memset(w, 0, sizeof *w);
    list_init(&w->peers);
    assert_int_equal(loop_open(&w->loop), 0);
    assert_int_equal(guard_open(&w->guard, &guard, error, sizeof error), 0);
    assert_int_equal(listener_open(w->loop, "0.0.0.0:0", on_peer, w, &w->listener, &w->port, error,
                                   sizeof error),
                     0);
    loop_set_turn(w->loop, on_world_turn, w);
    w->client = client_with(w, ca_file);
    w->watchdog = loop_timer_start(w->loop, WATCHDOG_MS, 0, on_watchdog, w);
}

/* Some transfers may be left when as many have ended as `calls` says. */
static inline void world_run_open(struct world *w) {
    loop_run(w->loop);
    assert_int_equal(w->done, w->calls);
}

static inline void world_run(struct world *w) {
    world_run_open(w);
    if (w->client != NULL) assert_int_equal(http_client_active(w->client), 0);
}

static inline void world_close(struct world *w) {
    http_client_close(&w->client);
    loop_timer_stop(&w->watchdog);
    listener_close(&w->listener);
    loop_close(&w->loop);
    guard_free(&w->guard);
}

static inline void copy(char *out, size_t size, struct slice s) {
    snprintf(out, size, "%.*s", SLICE_ARG(s));
}

static inline void on_call_done(void *ctx, const struct http_result *r) {
    struct call *c = ctx;
    assert_false(c->done);
    c->done = true;
    c->transfer = NULL;
    c->world->done++;
    c->failure = r->failure;
    c->status = r->status;
    c->duration_ms = r->duration_ms;
    c->body_len = r->body.len;
    copy(c->body, sizeof c->body, r->body);
    copy(c->retry_after, sizeof c->retry_after, r->retry_after);
    snprintf(c->detail, sizeof c->detail, "%s", r->detail);
    snprintf(c->address, sizeof c->address, "%s", r->address);
    if (c->then != NULL) c->then(c);
}

/* The full form; `uri` with its host. */
static inline void call_uri(struct world *w, struct http_client *client, struct call *c,
                            const char *uri, struct slice body, uint64_t timeout_ms) {
    static const struct http_outbound_header headers[] = {
        {"Content-Type", "application/json"}, {"webhook-id", "msg_1"}, {"X-Empty", ""}};
    const struct http_outbound request = {
        .uri = uri,
        .body = body,
        .headers = headers,
        .headers_count = 3,
        .timeout_ms = timeout_ms,
        .response_max = 1024,
        .on_done = on_call_done,
        .ctx = c,
    };
    c->world = w;
    c->done = false;
    w->calls++;
    c->transfer = http_client_send(client, &request);
    assert_non_null(c->transfer);
    assert_false(c->done);
}

/* http://HOST:PORT/path of the world's own server. */
static inline void call_host(struct world *w, struct http_client *client, struct call *c,
                             const char *host, const char *path) {
    char uri[256];
    snprintf(uri, sizeof uri, "http://%s:%u%s", host, w->port, path);
    c->path = path;
    call_uri(w, client, c, uri, slice_str("{\"a\":1}"), 20000);
}

static inline void call(struct world *w, struct call *c, const char *path) {
    call_host(w, w->client, c, "127.0.0.1", path);
}

static inline void expect_answer(const struct call *c, int status, const char *body) {
    if (c->failure != HTTP_ANSWERED || c->status != status || strcmp(c->body, body) != 0) {
        fail_msg("%s: %s, status %d, body \"%s\", detail \"%s\"", c->path,
                 http_failure_name(c->failure), c->status, c->body, c->detail);
    }
    assert_string_equal(c->detail, "");
}

static inline void expect_failure(const struct call *c, enum http_failure failure,
                                  const char *says) {
    if (c->failure != failure || strstr(c->detail, says) == NULL) {
        fail_msg("%s: %s (%d), detail \"%s\"; wanted %s, \"%s\"", c->path,
                 http_failure_name(c->failure), c->status, c->detail, http_failure_name(failure),
                 says);
    }
}

#endif
