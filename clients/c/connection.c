/* Name, address, socket.
 *
 * The happy path: bh_connection_open resolves the host (numbers need no resolver), connects to its
 * addresses one after the other, and hands the first one that answers to the session. Bytes that
 * arrive go to bh_session_read; frames that were appended to `out` leave with bh_connection_flush,
 * one write at a time.
 * With bellhops:// a handshake comes first, what arrives goes through clients/c/tls.h into `in`,
 * and what leaves from `out` into the wire of the TLS, which is written in its place. Failures: the
 * name is unknown, no address answers, a phase takes too long (the turn looks at deadline_ms), the
 * peer ends or resets, a write fails: all end in bh_lost, which drops the connection; its memory
 * goes with libuv's closing callback. */
#include <stdlib.h>

#include "clients/c/client.h"
#include "clients/c/tls.h"

struct resolving {
    uv_getaddrinfo_t req;
    struct bellhop *client;
};

#define READ_BYTES (64 * KIB)

static void connect_next(struct bellhop *c);

static void on_closed(uv_handle_t *handle) {
    struct bh_conn *conn = CONTAINER_OF(handle, struct bh_conn, tcp);
    struct bellhop *c = conn->client;
    buf_free(&conn->in);
    buf_free(&conn->out);
    buf_free(&conn->sending);
    bh_tls_free(&conn->tls);
    free(conn->raw);
    free(conn);
    bh_unpend(c);
}

/* As far as the socket takes it at once. */
static void say_goodbye(struct bh_conn *conn) {
    if (conn->tls == NULL || conn->writing || conn->failed) return;
    struct buf *wire = bh_tls_wire(conn->tls);
    bh_tls_goodbye(conn->tls);
    if (wire->len == 0) return;
    uv_buf_t bytes = uv_buf_init((char *)wire->data, (unsigned)wire->len);
    (void)uv_try_write((uv_stream_t *)&conn->tcp, &bytes, 1);
}

void bh_connection_drop(struct bellhop *c) {
    struct bh_conn *conn = c->conn;
    if (conn == NULL) return;
    c->conn = NULL;
    conn->dropped = true;
    say_goodbye(conn);
    uv_close((uv_handle_t *)&conn->tcp, on_closed);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
    struct bh_conn *conn = CONTAINER_OF(handle, struct bh_conn, tcp);
    (void)suggested;
    if (conn->tls != NULL) {
        if (conn->raw == NULL) conn->raw = mem_alloc(READ_BYTES);
        *out = uv_buf_init((char *)conn->raw, READ_BYTES);
        return;
    }
    uint8_t *at = buf_reserve(&conn->in, READ_BYTES);
    *out = uv_buf_init((char *)at, at == NULL ? 0 : READ_BYTES);
}

/* False: the connection is lost. */
static bool read_tls(struct bellhop *c, struct bh_conn *conn, struct slice raw) {
    bool was_up = bh_tls_is_up(conn->tls);
    enum bh_tls_result result = bh_tls_read(conn->tls, raw, &conn->in);
    if (result == BH_TLS_FAILED) {
        bh_connection_flush(c); /* its alert */
        conn->failed = true;
        if (conn == c->conn) bh_lost(c, "%s", bh_tls_why(conn->tls));
        return false;
    }
    if (!was_up && bh_tls_is_up(conn->tls)) bh_session_start(c);
    if (conn->in.len > 0) bh_session_read(c, conn);
    if (conn->dropped) return false;
    if (result == BH_TLS_END) {
        bh_lost(c, "the broker closed the connection");
        return false;
    }
    bh_connection_flush(c);
    return true;
}

static void on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *bytes) {
    struct bh_conn *conn = CONTAINER_OF(stream, struct bh_conn, tcp);
    struct bellhop *c = conn->client;
    if (conn->dropped || nread == 0) return;
    if (nread == UV_EOF) {
        bool cut = conn->tls != NULL && bh_tls_is_up(conn->tls);
        conn->failed = true;
        bh_lost(c, "%s",
                cut ? "the connection was cut off: it ended without the close_notify of TLS"
                    : "the broker closed the connection");
    } else if (nread < 0) {
        bh_lost(c, "reading: %s", uv_strerror((int)nread));
    } else if (conn->tls != NULL) {
        c->heard_ms = bh_now_ms(c);
        read_tls(c, conn, slice_of(bytes->base, (size_t)nread));
    } else {
        conn->in.len += (size_t)nread;
        c->heard_ms = bh_now_ms(c);
        bh_session_read(c, conn);
    }
}

static void on_connect(uv_connect_t *req, int status) {
    struct bh_conn *conn = CONTAINER_OF(req, struct bh_conn, connect);
    struct bellhop *c = conn->client;
    if (conn->dropped) return;
    if (status == 0) {
        uv_tcp_nodelay(&conn->tcp, 1);
        status = uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read);
    }
    if (status == 0) {
        if (conn->tls == NULL) bh_session_start(c);
        else read_tls(c, conn, slice_of(NULL, 0)); /* says hello */
        return;
    }
    bh_connection_drop(c);
    if (c->address_next < c->addresses_count) connect_next(c);
    else bh_lost(c, "connecting to %s port %u: %s", c->url.host, c->url.port, uv_strerror(status));
}

/* Tries addresses until one is on its way. */
static void connect_next(struct bellhop *c) {
    int status = UV_EADDRNOTAVAIL;
    while (c->address_next < c->addresses_count) {
        const struct sockaddr *address = (const struct sockaddr *)&c->addresses[c->address_next++];
        struct bh_conn *conn = mem_zalloc(sizeof *conn);
        conn->client = c;
        buf_init(&conn->in, (size_t)2 * BH_FRAME_BYTES_MAX);
        buf_init(&conn->out, BH_OUT_BYTES_MAX);
        buf_init(&conn->sending, BH_OUT_BYTES_MAX);
        if (c->trust != NULL) conn->tls = bh_tls_new(c->trust, c->url.host);
        CHECK(uv_tcp_init(c->loop, &conn->tcp) == 0);
        c->pending++;
        c->conn = conn;
        c->phase = BH_CONNECTING;
        c->deadline_ms = bh_now_ms(c) + BH_CONNECT_MS;
        status = uv_tcp_connect(&conn->connect, &conn->tcp, address, on_connect);
        if (status == 0) return;
        bh_connection_drop(c);
    }
    bh_lost(c, "connecting to %s port %u: %s", c->url.host, c->url.port, uv_strerror(status));
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list) {
    struct resolving *r = CONTAINER_OF(req, struct resolving, req);
    struct bellhop *c = r->client;
    /* When an earlier resolver that was given up answers first, its addresses are as good. */
    bool wanted = c->phase == BH_RESOLVING && !c->closing;
    free(r);
    if (wanted && status == 0) {
        for (struct addrinfo *a = list; a != NULL && c->addresses_count < BH_ADDRESSES;
             a = a->ai_next) {
            memcpy(&c->addresses[c->addresses_count++], a->ai_addr, a->ai_addrlen);
        }
        connect_next(c);
    } else if (wanted) {
        bh_lost(c, "looking up %s: %s", c->url.host, uv_strerror(status));
    }
    uv_freeaddrinfo(list);
    bh_unpend(c);
}

void bh_connection_open(struct bellhop *c) {
    char error[BH_TEXT_BYTES];
    c->addresses_count = c->address_next = 0;
    if (c->url.tls && c->trust == NULL) {
        c->trust = bh_trust_new(&c->options, error, sizeof error);
        if (c->trust == NULL) {
            bh_finish(c, BELLHOP_EARGUMENT, "%s", error);
            return;
        }
    }
    if (uv_ip4_addr(c->url.host, c->url.port, (struct sockaddr_in *)&c->addresses[0]) == 0 ||
        uv_ip6_addr(c->url.host, c->url.port, (struct sockaddr_in6 *)&c->addresses[0]) == 0) {
        c->addresses_count = 1;
        connect_next(c);
        return;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
    struct resolving *r = mem_zalloc(sizeof *r);
    char port[8];
    snprintf(port, sizeof port, "%u", c->url.port);
    r->client = c;
    int status = uv_getaddrinfo(c->loop, &r->req, on_resolved, c->url.host, port, &hints);
    if (status != 0) {
        free(r);
        bh_lost(c, "looking up %s: %s", c->url.host, uv_strerror(status));
        return;
    }
    c->pending++;
    c->phase = BH_RESOLVING;
    c->deadline_ms = bh_now_ms(c) + BH_CONNECT_MS;
}

struct buf *bh_out(struct bellhop *c) {
    return c->conn == NULL ? NULL : &c->conn->out;
}

void bh_encoded(struct bellhop *c, bool ok) {
    if (!ok) c->choked = true;
}

static void on_written(uv_write_t *req, int status) {
    struct bh_conn *conn = CONTAINER_OF(req, struct bh_conn, write);
    conn->writing = false;
    if (conn->dropped) return;
    if (status < 0) {
        bh_lost(conn->client, "writing: %s", uv_strerror(status));
        return;
    }
    if (conn->sending.cap > 4 * BH_OUT_BYTES) buf_free(&conn->sending);
    else buf_clear(&conn->sending);
}

void bh_connection_flush(struct bellhop *c) {
    struct bh_conn *conn = c->conn;
    if (conn == NULL || conn->writing) return;
    struct buf *from = &conn->out;
    if (conn->tls != NULL) {
        from = bh_tls_wire(conn->tls);
        if (conn->out.len > 0 && bh_tls_is_up(conn->tls)) {
            if (!bh_tls_seal(conn->tls, buf_slice(&conn->out))) {
                bh_lost(c, "TLS: what is to be written cannot be encrypted");
                return;
            }
            buf_clear(&conn->out);
        }
    }
    if (from->len == 0) return;
    struct buf full = *from;
    *from = conn->sending;
    conn->sending = full;
    conn->writing = true;
    c->sent_ms = bh_now_ms(c);
    uv_buf_t bytes = uv_buf_init((char *)conn->sending.data, (unsigned)conn->sending.len);
    int status = uv_write(&conn->write, (uv_stream_t *)&conn->tcp, &bytes, 1, on_written);
    if (status != 0) {
        conn->writing = false;
        bh_lost(c, "writing: %s", uv_strerror(status));
    }
}
