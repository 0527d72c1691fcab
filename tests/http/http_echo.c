/* http_echo: broker/http with a user that only echoes; test_http.py drives it.
 *
 * Listens on 127.0.0.1 (port 0), prints "port N" and answers each request with JSON of what it saw:
 * method, path, query, number of headers, bytes of the body and their CRC32C.
 *   /ok       a short constant answer
 *   /later    the same as any, one millisecond and some turns later
 *   /never    no answer at all
 *   /counts   how many requests wait, and how many were gone before their answer
 *   /big?n=   n bytes of 'x'
 *   /refuse   on_head says 401
 * Flags, each with a number: --head-ms --idle-ms --grace-ms --rate --body-max --per-ip
 * --loopback-counts --stall-ms --write-rate --life-s. With --tls-cert FILE and --tls-key FILE it
 * speaks TLS.
 * SIGTERM drains and ends; SIGINT ends at once. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/crc32c.h"
#include "base/list.h"
#include "broker/http/server.h"
#include "broker/net/tls.h"
#include "proto/limits.h"

struct echo {
    struct loop *loop;
    struct http_server *server;
    struct loop_timer *life;
    struct list waiting; /* struct later */
    bool draining;
    size_t waiting_count, gone;
};

/* A request that is not answered at once. Owns its answer. */
struct later {
    struct list node;
    struct echo *echo;
    struct loop_timer *timer;
    uint64_t handle;
    struct buf answer;
};

static void describe(const struct http_request *r, struct buf *out) {
    buf_append_str(out, "{\"method\":");
    buf_append_json_string(out, r->method);
    buf_append_str(out, ",\"path\":");
    buf_append_json_string(out, r->path);
    buf_append_str(out, ",\"query\":");
    buf_append_json_string(out, r->query);
    buf_append_str(out, ",\"x\":");
    buf_append_json_string(out, http_header_get(r, "x-test", NULL));
    buf_printf(out, ",\"headers\":%zu,\"body\":%zu,\"crc\":%u}\n", r->headers_count, r->body.len,
               crc32c(r->body.data, r->body.len));
}

static void later_free(struct later *later) {
    loop_timer_stop(&later->timer);
    list_unlink(&later->node);
    later->echo->waiting_count--;
    buf_free(&later->answer);
    free(later);
}

static void on_later(void *ctx) {
    struct later *later = ctx;
    http_respond(later->echo->server, later->handle, 200, NULL, NULL, buf_slice(&later->answer));
    later_free(later);
}

static void respond_later(struct echo *e, const struct http_request *r) {
    struct later *later = mem_zalloc(sizeof *later);
    later->echo = e;
    later->handle = r->handle;
    list_push_back(&e->waiting, &later->node);
    e->waiting_count++;
    buf_init(&later->answer, 256 * KIB);
    describe(r, &later->answer);
    if (slice_eq_str(r->path, "/later")) {
        later->timer = loop_timer_start(e->loop, 1, 0, on_later, later);
    }
}

static void respond_now(struct echo *e, const struct http_request *r) {
    struct buf answer;
    buf_init(&answer, 256 * KIB);
    if (slice_eq_str(r->path, "/counts")) {
        buf_printf(&answer, "{\"waiting\":%zu,\"gone\":%zu,\"refused\":%" PRIu64 "}",
                   e->waiting_count, e->gone, http_server_refused(e->server));
    } else {
        describe(r, &answer);
    }
    http_respond(e->server, r->handle, 200, NULL, NULL, buf_slice(&answer));
    buf_free(&answer);
}

static void respond_big(struct echo *e, const struct http_request *r) {
    char text[16];
    uint64_t n = 0;
    if (http_query_get(r, "n", text, sizeof text) != 1 || !slice_to_u64(slice_str(text), &n) ||
        n > (uint64_t)64 * MIB) {
        http_respond_error(e->server, r->handle, ERR_INVALID_REQUEST, "n is not a number: %s",
                           text);
        return;
    }
    char *bytes = mem_alloc((size_t)n + 1);
    memset(bytes, 'x', (size_t)n);
    http_respond(e->server, r->handle, 200, "application/octet-stream", "X-Big: yes\r\n",
                 slice_of(bytes, (size_t)n));
    free(bytes);
}

static bool on_head(void *ctx, const struct http_request *head, struct http_refusal *refusal) {
    (void)ctx;
    if (!slice_eq_str(head->path, "/refuse")) return true;
    *refusal = (struct http_refusal){.err = ERR_UNAUTHENTICATED, .message = "refused by on_head"};
    return false;
}

static void on_request(void *ctx, const struct http_request *r) {
    struct echo *e = ctx;
    if (slice_eq_str(r->path, "/ok")) {
        http_respond(e->server, r->handle, 200, NULL, NULL, slice_str("{\"seq\":12345678}\n"));
    } else if (slice_eq_str(r->path, "/big")) {
        respond_big(e, r);
    } else if (slice_eq_str(r->path, "/later") || slice_eq_str(r->path, "/never")) {
        respond_later(e, r);
    } else {
        respond_now(e, r);
    }
}

static void on_gone(void *ctx, uint64_t handle) {
    struct echo *e = ctx;
    LIST_FOR(n, next, &e->waiting) {
        struct later *later = CONTAINER_OF(n, struct later, node);
        if (later->handle != handle) continue;
        e->gone++;
        later_free(later);
    }
}

static uint64_t on_turn(void *ctx, uint64_t now_ms) {
    struct echo *e = ctx;
    (void)now_ms;
    if (e->draining && http_server_connections(e->server) == 0) loop_stop(e->loop);
    return UINT64_MAX;
}

static void on_signal(void *ctx, int signum) {
    struct echo *e = ctx;
    if (signum == SIGINT) {
        loop_stop(e->loop);
        return;
    }
    if (!e->draining) http_server_drain(e->server);
    e->draining = true;
}

static void on_life_over(void *ctx) {
    loop_stop(((struct echo *)ctx)->loop);
}

/* NULL: it is not there. */
static const char *text_flag(int argc, char **argv, const char *name) {
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], name) == 0) return argv[i + 1];
    }
    return NULL;
}

static uint64_t flag(int argc, char **argv, const char *name, uint64_t otherwise) {
    const char *text = text_flag(argc, argv, name);
    uint64_t value;
    return text != NULL && slice_to_u64(slice_str(text), &value) ? value : otherwise;
}

/* NULL without the flags; what is wrong with their files ends it. */
static struct tls_server *open_tls(int argc, char **argv) {
    const struct tls_options options = {.certs = text_flag(argc, argv, "--tls-cert"),
                                        .keys = text_flag(argc, argv, "--tls-key")};
    struct tls_server *tls;
    char error[256];
    if (options.certs == NULL || options.keys == NULL) return NULL;
    if (tls_server_open(&tls, &options, error, sizeof error) == 0) return tls;
    fprintf(stderr, "%s\n", error);
    exit(1);
}

int main(int argc, char **argv) {
    struct echo e = {0};
    char error[256];
    uint16_t port;
    struct tls_server *tls = open_tls(argc, argv);
    const struct http_server_options options = {
        .body_max_bytes = (size_t)flag(argc, argv, "--body-max", 0),
        .on_head = on_head,
        .on_request = on_request,
        .on_gone = on_gone,
        .ctx = &e,
        .head_ms = flag(argc, argv, "--head-ms", 0),
        .idle_ms = flag(argc, argv, "--idle-ms", 0),
        .body_grace_ms = flag(argc, argv, "--grace-ms", 0),
        .body_bytes_per_s = flag(argc, argv, "--rate", 0),
        .connections_per_ip = (size_t)flag(argc, argv, "--per-ip", 0),
        .loopback_counts = flag(argc, argv, "--loopback-counts", 0) != 0,
        .tls = tls,
    };
    list_init(&e.waiting);
    if (loop_open(&e.loop) != 0) return 1;
    loop_set_turn(e.loop, on_turn, &e);
    loop_set_signals(e.loop, on_signal, &e);
    loop_set_write_stall(e.loop, flag(argc, argv, "--stall-ms", LIMIT_WRITE_STALL_MS));
    streams_set_write_rate(e.loop, flag(argc, argv, "--write-rate", 0));
    if (http_server_open(e.loop, "127.0.0.1:0", &options, &e.server, &port, error, sizeof error)) {
        fprintf(stderr, "%s\n", error);
        loop_close(&e.loop);
        return 1;
    }
    e.life =
        loop_timer_start(e.loop, flag(argc, argv, "--life-s", 300) * 1000, 0, on_life_over, &e);
    printf("port %u\n", port);
    fflush(stdout);
    loop_run(e.loop);
    loop_timer_stop(&e.life);
    http_server_close(&e.server);
    loop_close(&e.loop);
    tls_server_close(&tls);
    CHECK(e.waiting_count == 0); /* every one was answered, or reported as gone */
    return 0;
}
