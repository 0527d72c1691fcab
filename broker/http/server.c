/* The server: its listener, its deadlines and its end. */
#include "broker/http/server.h"

#include <stdlib.h>

#include "base/log.h"
#include "broker/http/internal.h"

/* Deadlines are looked at this often, or in a quarter of the shortest when that is less. */
#define SWEEP_MS             250
#define REFUSED_LOG_EVERY_MS 1000
/* Who has just come, or was just answered, is about to ask: its place is not given away yet. */
#define SPARE_AFTER_MS 1000
/* Of so many it is asked whether more has come: the others wait until that has been read. */
#define SPARE_LOOKS 64

/* Those in front have waited longest: stops at the first that may go on. */
static void expire_in_order(struct list *deadlines, uint64_t now_ms) {
    LIST_FOR(n, next, deadlines) {
        if (!conn_expire(CONTAINER_OF(n, struct conn, timed), now_ms)) return;
    }
}

/* The deadline of a body moves with its bytes, so there is no order. */
static void expire_all(struct list *deadlines, uint64_t now_ms) {
    LIST_FOR(n, next, deadlines) {
        conn_expire(CONTAINER_OF(n, struct conn, timed), now_ms);
    }
}

/* Frees what the pool has above `keep`. */
static void trim_pool(struct http_server *s, size_t keep) {
    while (s->pool_count > keep) {
        struct list *n = list_first(&s->pool);
        struct exchange *e = CONTAINER_OF(n, struct exchange, node);
        list_unlink(n);
        s->pool_count--;
        http_parser_free(&e->parser);
        free(e);
    }
    s->pool_least = s->pool_count;
}

static void on_sweep(void *ctx) {
    struct http_server *s = ctx;
    uint64_t now_ms = loop_now_ms(s->loop);
    expire_in_order(&s->idle, now_ms);
    expire_in_order(&s->heads, now_ms);
    expire_all(&s->bodies, now_ms);
    /* Half of what nobody needed since the last time: a burst is forgotten within seconds. */
    trim_pool(s, s->conns_count == 0 ? 0 : s->pool_count - (s->pool_least + 1) / 2);
    if (s->conns_count == 0) loop_timer_stop(&s->sweep);
}

static void refuse_caller(struct http_server *s, struct stream *stream) {
    uint64_t now_ms = loop_now_ms(s->loop);
    s->refused++;
    if (s->refused_logged == 0 || now_ms - s->refused_logged_ms >= REFUSED_LOG_EVERY_MS) {
        log_warn(
            "http: %s has %zu connections already and gets no more; %llu refused since the "
            "last such line",
            stream_peer(stream), s->options.connections_per_ip,
            (unsigned long long)(s->refused - s->refused_logged));
        s->refused_logged = s->refused;
        s->refused_logged_ms = now_ms;
    }
    stream_close(stream, "its address has too many connections");
}

/* Gives up the connection that is idle longest, unless a request of it has just come. */
static bool make_room(void *ctx) {
    struct http_server *s = ctx;
    size_t looks = 0;
    LIST_FOR(n, next, &s->idle) {
        struct conn *c = CONTAINER_OF(n, struct conn, timed);
        bool spare = loop_now_ms(s->loop) - c->since_ms >= SPARE_AFTER_MS;
        if (!spare || looks++ == SPARE_LOOKS) return false;
        if (!stream_is_quiet(c->stream)) continue;
        conn_give_up(c);
        return true;
    }
    return false;
}

static void on_accept(void *ctx, struct stream *stream) {
    struct http_server *s = ctx;
    const struct http_server_options *o = &s->options;
    struct caller *caller = NULL;
    if (o->connections_per_ip > 0 && (o->loopback_counts || !stream_peer_is_loopback(stream))) {
        caller = callers_enter(&s->callers, stream_peer_group(stream), o->connections_per_ip);
        if (caller == NULL) {
            refuse_caller(s, stream);
            return;
        }
    }
    if (s->sweep == NULL) {
        uint64_t every_ms = SWEEP_MS;
        if (o->head_ms / 4 < every_ms) every_ms = o->head_ms / 4 + 1;
        if (o->idle_ms / 4 < every_ms) every_ms = o->idle_ms / 4 + 1;
        if (o->body_grace_ms / 4 < every_ms) every_ms = o->body_grace_ms / 4 + 1;
        s->sweep = loop_timer_start(s->loop, every_ms, every_ms, on_sweep, s);
    }
    conn_accept(s, stream, caller);
}

/* What plain HTTP gets where TLS is spoken. */
#define PLAIN_BODY                                                                                 \
    "{\"error\":{\"code\":\"invalid_request\","                                                    \
    "\"message\":\"this port speaks TLS: use https://\"}}"
static const char plain_head[] =
    "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n";

static void use_tls(struct http_server *s) {
    if (s->options.tls == NULL) return;
    buf_printf(&s->plain, "%scontent-length: %zu\r\n\r\n%s", plain_head, sizeof PLAIN_BODY - 1,
               PLAIN_BODY);
    listener_set_tls(s->listener,
                     &(struct listener_tls){s->options.tls, "http/1.1", buf_slice(&s->plain)});
}

static void set_defaults(struct http_server_options *o) {
    if (o->body_max_bytes == 0) o->body_max_bytes = LIMIT_BODY_BYTES_DEFAULT;
    if (o->body_memory_bytes == 0) o->body_memory_bytes = SIZE_MAX;
    if (o->head_ms == 0) o->head_ms = LIMIT_HTTP_HEAD_MS;
    if (o->idle_ms == 0) o->idle_ms = LIMIT_HTTP_IDLE_MS;
    if (o->body_grace_ms == 0) o->body_grace_ms = LIMIT_HTTP_BODY_GRACE_MS;
    if (o->body_bytes_per_s == 0) o->body_bytes_per_s = LIMIT_HTTP_BODY_BYTES_PER_S;
}

int http_server_open(struct loop *l, const char *address, const struct http_server_options *options,
                     struct http_server **out, uint16_t *port, char *error, size_t error_size) {
    struct http_server *s = mem_zalloc(sizeof *s);
    CHECK(options->on_request != NULL && options->body_max_bytes <= LIMIT_BODY_BYTES_HIGHEST);
    s->loop = l;
    s->options = *options;
    set_defaults(&s->options);
    list_init(&s->conns);
    list_init(&s->idle);
    list_init(&s->heads);
    list_init(&s->bodies);
    list_init(&s->pool);
    map_init(&s->handles);
    callers_init(&s->callers, loop_seed());
    buf_init(&s->scratch, 64 * KIB);
    buf_init(&s->plain, 1 * KIB);
    s->next_handle = 1;
    *out = NULL;
    if (listener_open(l, address, on_accept, s, &s->listener, port, error, error_size) != 0) {
        http_server_close(&s);
        return -1;
    }
    listener_set_make_room(s->listener, make_room);
    use_tls(s);
    *out = s;
    return 0;
}

void http_server_drain(struct http_server *s) {
    s->draining = true;
    listener_close(&s->listener);
    LIST_FOR(n, next, &s->conns) {
        conn_drain(CONTAINER_OF(n, struct conn, node));
    }
}

void http_server_close(struct http_server **server) {
    struct http_server *s = *server;
    if (s == NULL) return;
    listener_close(&s->listener);
    loop_timer_stop(&s->sweep);
    LIST_FOR(n, next, &s->conns) {
        conn_free(CONTAINER_OF(n, struct conn, node));
    }
    CHECK(s->body_memory == 0);
    trim_pool(s, 0);
    map_free(&s->handles);
    callers_free(&s->callers);
    buf_free(&s->scratch);
    buf_free(&s->plain);
    free(s);
    *server = NULL;
}

size_t http_server_connections(const struct http_server *s) {
    return s->conns_count;
}

uint64_t http_server_refused(const struct http_server *s) {
    return s->refused;
}

size_t http_server_body_memory(const struct http_server *s, size_t *max) {
    if (max != NULL) *max = s->options.body_memory_bytes;
    return s->body_memory;
}

bool http_server_body_memory_is_scarce(const struct http_server *s) {
    return s->body_memory > s->options.body_memory_bytes / 4 * 3;
}
