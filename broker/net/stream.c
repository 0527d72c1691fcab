/* Streams: bytes in through the loop's one read buffer, bytes out once per turn.
 *
 * Output, as it goes well: stream_write fills `out` and puts the stream on the dirty list; at the
 * end of the turn one write(2) takes everything. When the kernel takes less, the rest moves to a
 * pending write of libuv's; what is written meanwhile waits in `out` and follows. When all of it
 * has gone on_drain tells, at once or, since a flush calls no user, at the start of the next turn.
 *
 * With TLS what is read goes through tls_read into plain_buffer on its way to the user, and `out`
 * piece by piece through tls_seal into the wire of its TLS, which is written in its place.
 *
 * The end: stream_close drops everything at once. stream_close_after_write lets the output go, then
 * sends FIN and lingers: it reads and drops until the peer's FIN or LINGER_MS, because a close with
 * unread bytes is a reset, and a reset can eat our last words on their way. The sweep closes what
 * stalls. A failed read or write closes with its reason. on_close comes from libuv's close
 * callback. */
#include "broker/net/stream.h"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/net/address.h"
#include "broker/net/internal.h"
#include "broker/net/peer.h"
#include "proto/limits.h"

/* One message of any size may follow while less than this waits. Users stop producing at
 * LIMIT_WRITE_QUEUE_BYTES; one who passes even this is cut off. */
#define QUEUE_BYTES_HIGHEST (LIMIT_WRITE_QUEUE_BYTES + LIMIT_EVENT_BYTES)
/* The largest page as JSON whose every byte is an escape of six is 96 MiB. */
#define MESSAGE_BYTES_HIGHEST ((size_t)128 * MIB)
/* An empty output buffer of this size is kept: an idle stream stays below 1 KiB. */
#define OUT_KEEP_BYTES 512
/* So much plaintext is sealed before it is written. */
#define SEAL_BYTES ((size_t)256 * KIB)
/* A scan of the port is one line, not thousands. */
#define TLS_LOG_EVERY_MS 1000

struct pending_write {
    uv_write_t req;
    struct stream *stream;
    struct buf bytes; /* owns what uv_write borrows */
};

/* What the peer's TCP has acknowledged; what the kernel merely holds for it does not count. */
static uint64_t taken_bytes(struct stream *s) {
    uv_os_fd_t fd;
    int unacknowledged = 0;
    if (uv_fileno((uv_handle_t *)&s->tcp, &fd) != 0 || ioctl(fd, SIOCOUTQ, &unacknowledged) != 0) {
        unacknowledged = 0;
    }
    uint64_t waiting = s->tcp.write_queue_size + (uint64_t)unacknowledged;
    return waiting < s->handed_bytes ? s->handed_bytes - waiting : 0;
}

/* The sweep looks at it from now on. A stream that is watched keeps its deadline: one piece of
 * output that follows another is no new time. */
static void watch(struct stream *s) {
    if (!list_empty(&s->watched)) return;
    s->deadline_ms = s->loop->now_ms + s->loop->write_stall_ms;
    s->taken_bytes = taken_bytes(s);
    list_push_back(&s->loop->watched, &s->watched);
    loop_sweep_start(s->loop);
}

/* Closes with a reset: the kernel then drops what it still holds for a peer that takes nothing. */
static void abort_stream(struct stream *s, const char *why) {
    const struct linger none = {.l_onoff = 1, .l_linger = 0};
    uv_os_fd_t fd;
    if (!s->closing && uv_fileno((uv_handle_t *)&s->tcp, &fd) == 0) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    }
    stream_close(s, why);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf) {
    struct stream *s = h->data;
    (void)suggested;
    *buf = uv_buf_init((char *)s->loop->read_buffer, sizeof s->loop->read_buffer);
}

/* libuv also says EOF when a reset came together with last bytes. The reset is what counts: the
 * peer takes nothing any more. */
static int socket_error(struct stream *s) {
    uv_os_fd_t fd;
    int err = 0;
    socklen_t len = sizeof err;
    if (uv_fileno((uv_handle_t *)&s->tcp, &fd) != 0) return 0;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 ? err : 0;
}

static void make_dirty(struct stream *s) {
    if (s->pending == NULL && list_empty(&s->dirty)) list_push_back(&s->loop->dirty, &s->dirty);
}

static bool is_shaking_hands(const struct stream *s) {
    return s->tls != NULL && !tls_is_up(s->tls) && !tls_has_failed(s->tls);
}

static void log_tls(struct stream *s, const char *why) {
    struct loop *l = s->loop;
    if (l->tls_logged_ms != 0 && l->now_ms - l->tls_logged_ms < TLS_LOG_EVERY_MS) {
        l->tls_unlogged++;
        return;
    }
    if (l->tls_unlogged == 0) log_info("%s is closed: %s", s->peer, why);
    else {
        log_info("%s is closed: %s; %llu more like it since the last such line", s->peer, why,
                 (unsigned long long)l->tls_unlogged);
    }
    l->tls_logged_ms = l->now_ms;
    l->tls_unlogged = 0;
}

/* The alert that says why goes out, nothing else. */
static void end_failed(struct stream *s) {
    handshake_end(s);
    s->why = tls_why(s->tls);
    log_tls(s, s->why);
    s->ending = true;
    buf_free(&s->out);
    s->sealed = 0;
    list_unlink(&s->watched); /* of the handshake: its deadline is over */
    watch(s);
    make_dirty(s);
}

static void on_handshake_done(struct stream *s) {
    handshake_end(s);
    list_unlink(&s->watched);
    if (s->pending != NULL) watch(s);
    else if (s->out.len > 0 || s->ending) make_dirty(s);
}

/* Gives the user what TLS makes of the bytes that were fed. */
static void read_tls(struct stream *s) {
    struct loop *l = s->loop;
    bool shaking = is_shaking_hands(s);
    size_t len = s->eof ? 0 : 1;
    while (len > 0 && !s->closing && (!s->ending || shaking) && !s->paused) {
        enum tls_result result = tls_read(s->tls, l->plain_buffer, sizeof l->plain_buffer, &len);
        if (shaking && tls_is_up(s->tls)) on_handshake_done(s);
        shaking = is_shaking_hands(s);
        if (tls_wire(s->tls)->len > 0) make_dirty(s); /* answers of TLS itself */
        if (result == TLS_FAILED) {
            end_failed(s);
        } else if (s->ending) {
            break; /* the handshake only went on to say the last words */
        } else if (result == TLS_END) {
            s->eof = true;
            uv_read_stop((uv_stream_t *)&s->tcp);
            s->ops->on_eof(s->ctx);
            break;
        } else if (len > 0) {
            s->ops->on_data(s->ctx, slice_of(l->plain_buffer, len));
        }
    }
    tls_keep(s->tls);
}

static void shake(struct stream *s) {
    uint64_t began_ns = uv_hrtime();
    read_tls(s);
    handshake_worked(s, uv_hrtime() - began_ns);
}

static void on_data(struct stream *s, struct slice bytes) {
    if (s->ending && !is_shaking_hands(s)) return;
    if (s->tls == NULL) {
        s->ops->on_data(s->ctx, bytes);
        return;
    }
    tls_feed(s->tls, bytes);
    if (!is_shaking_hands(s)) {
        read_tls(s);
    } else if (handshake_admit(s)) {
        shake(s);
    } else {
        tls_keep(s->tls);
        uv_read_stop((uv_stream_t *)&s->tcp);
    }
}

/* A TLS stream ends with close_notify, or anybody on the way could have cut it. */
static void on_fin(struct stream *s) {
    if (s->tls == NULL) s->ops->on_eof(s->ctx);
    else if (!tls_is_up(s->tls)) stream_close(s, "closed by the peer in the TLS handshake");
    else stream_close(s, "cut off: the peer has closed without the close_notify of TLS");
}

static void on_read(uv_stream_t *h, ssize_t nread, const uv_buf_t *buf) {
    struct stream *s = h->data;
    loop_enter(s->loop);
    if (nread == 0 || s->closing) return;
    if (nread > 0) {
        on_data(s, slice_of(buf->base, (size_t)nread));
    } else if (nread != UV_EOF) {
        stream_close(s, uv_strerror((int)nread));
    } else {
        int err = socket_error(s);
        s->eof = true;
        if (err != 0) stream_close(s, uv_strerror(-err));
        else if (s->lingering) stream_close(s, s->why);
        else if (!s->ending || is_shaking_hands(s)) on_fin(s);
    }
}

static void read_start(struct stream *s) {
    if (s->eof || s->closing || s->ops == NULL || s->shake_due) return;
    int rc = uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_read);
    CHECK(rc == 0 || rc == UV_EALREADY);
}

void stream_shake(struct stream *s) {
    shake(s);
    if (!s->paused) read_start(s);
}

static void on_closed(uv_handle_t *h) {
    struct stream *s = h->data;
    struct loop *l = s->loop;
    loop_enter(l);
    list_unlink(&s->node);
    l->streams_count--;
    l->closing_count--;
    if (s->ops != NULL) s->ops->on_close(s->ctx, s->why);
    CHECK(s->pending == NULL);
    buf_free(&s->out);
    tls_free(&s->tls);
    free(s);
    listeners_resume(l);
}

/* The output is out: says goodbye when that was asked for. */
static void on_flushed(struct stream *s) {
    if (!s->ending || s->lingering || s->closing) return;
    uv_os_fd_t fd;
    if (s->eof || uv_fileno((uv_handle_t *)&s->tcp, &fd) != 0 || shutdown(fd, SHUT_WR) != 0) {
        stream_close(s, s->why);
        return;
    }
    s->lingering = true;
    watch(s);
    s->deadline_ms = s->loop->now_ms + LINGER_MS;
    read_start(s);
}

static void tell_drained(struct stream *s) {
    s->drain_due = false;
    if (!s->ending && !s->closing && s->ops->on_drain != NULL) s->ops->on_drain(s->ctx);
}

static void on_drained_task(void *ctx) {
    struct stream *s = ctx;
    loop_again(s->loop); /* for what the user does now */
    tell_drained(s);
}

static void on_written(uv_write_t *req, int status) {
    struct pending_write *w = CONTAINER_OF(req, struct pending_write, req);
    struct stream *s = w->stream;
    loop_enter(s->loop);
    s->pending = NULL;
    buf_free(&w->bytes);
    free(w);
    if (s->closing) return;
    if (status != 0) {
        stream_close(s, uv_strerror(status));
        return;
    }
    if (s->out.len > 0 || (s->tls != NULL && (s->ending || tls_wire(s->tls)->len > 0))) {
        make_dirty(s);
        return;
    }
    if (is_shaking_hands(s)) return; /* its deadline goes on */
    list_unlink(&s->watched);
    on_flushed(s);
    tell_drained(s);
}

/* Hands from[at..] to libuv, which writes it when the peer has room. */
static void write_rest(struct stream *s, struct buf *from, size_t at) {
    struct pending_write *w = mem_alloc(sizeof *w);
    w->stream = s;
    w->bytes = *from;
    buf_init(from, w->bytes.max);
    s->pending = w;
    s->drain_due = true;
    /* 128 MiB at most, so it fits the unsigned int of uv_buf_t. */
    uv_buf_t rest = uv_buf_init((char *)w->bytes.data + at, (unsigned)(w->bytes.len - at));
    int rc = uv_write(&w->req, (uv_stream_t *)&s->tcp, &rest, 1, on_written);
    if (rc != 0) {
        s->pending = NULL;
        buf_free(&w->bytes);
        free(w);
        stream_close(s, uv_strerror(rc));
        return;
    }
    watch(s);
}

/* Moves a piece of `out` into the wire, and close_notify after the last one when the stream ends.
 */
static bool seal(struct stream *s) {
    size_t len = s->out.len - s->sealed < SEAL_BYTES ? s->out.len - s->sealed : SEAL_BYTES;
    if (len > 0 && !tls_seal(s->tls, slice_of(s->out.data + s->sealed, len))) return false;
    s->sealed += len;
    if (s->sealed == s->out.len) {
        buf_free(&s->out);
        s->sealed = 0;
        if (s->ending) tls_goodbye(s->tls);
    } else if (s->sealed > s->out.len / 2) {
        buf_consume(&s->out, s->sealed);
        s->sealed = 0;
    }
    return true;
}

/* Writes the buffer out. False: the rest of it waits, or the stream was closed. */
static bool write_out(struct stream *s, struct buf *b) {
    if (b->len == 0) return true;
    uv_buf_t all = uv_buf_init((char *)b->data, (unsigned)b->len);
    int written = uv_try_write((uv_stream_t *)&s->tcp, &all, 1);
    if (written == UV_EAGAIN) written = 0;
    if (written < 0) {
        stream_close(s, uv_strerror(written));
        return false;
    }
    s->handed_bytes += b->len;
    if ((size_t)written < b->len) {
        write_rest(s, b, (size_t)written);
        return false;
    }
    if (b->cap > OUT_KEEP_BYTES) buf_free(b);
    else buf_clear(b);
    return true;
}

/* The same with all that TLS has to say. */
static bool write_tls(struct stream *s) {
    do {
        if (tls_is_up(s->tls) && !tls_has_failed(s->tls) && !seal(s)) {
            abort_stream(s, "too much output waits for the peer");
            return false;
        }
        if (!write_out(s, tls_wire(s->tls))) return false;
    } while (s->out.len > 0 && tls_is_up(s->tls));
    if (!is_shaking_hands(s)) return true;
    if (s->ending && s->out.len == 0) stream_close(s, s->why); /* nothing waits for its end */
    return false;
}

static void flush(struct stream *s) {
    if (s->tls != NULL ? !write_tls(s) : !write_out(s, &s->out)) return;
    list_unlink(&s->watched);
    on_flushed(s);
    if (s->drain_due && !s->closing) loop_defer(s->loop, &s->drained);
}

void streams_flush(struct loop *l) {
    for (struct list *n = list_first(&l->dirty); n != NULL; n = list_first(&l->dirty)) {
        struct stream *s = CONTAINER_OF(n, struct stream, dirty);
        list_unlink(n);
        flush(s);
    }
}

/* Moves the deadline by what was taken since the last time. Less than a millisecond's worth is not
 * paid yet, so that nothing is lost by rounding. */
static void pay(struct stream *s) {
    struct loop *l = s->loop;
    uint64_t rate = l->write_bytes_per_s != 0 ? l->write_bytes_per_s : LIMIT_WRITE_BYTES_PER_S;
    uint64_t taken = taken_bytes(s);
    uint64_t earned_ms = (taken - s->taken_bytes) * 1000 / rate;
    if (taken <= s->taken_bytes || earned_ms == 0) return;
    uint64_t latest_ms = l->now_ms + l->write_stall_ms;
    s->taken_bytes = taken;
    s->deadline_ms += earned_ms;
    if (s->deadline_ms > latest_ms) s->deadline_ms = latest_ms;
}

bool streams_sweep(struct loop *l) {
    LIST_FOR(n, next, &l->watched) {
        struct stream *s = CONTAINER_OF(n, struct stream, watched);
        bool shaking = is_shaking_hands(s);
        if (!s->lingering && !shaking) pay(s);
        if (l->now_ms < s->deadline_ms) continue;
        if (s->lingering) stream_close(s, s->why);
        else if (shaking) {
            static const char why[] = "TLS handshake: not done within 5 seconds";
            log_tls(s, why);
            abort_stream(s, why);
        } else abort_stream(s, "the peer does not take its output");
    }
    return !list_empty(&l->watched);
}

void streams_close_all(struct loop *l, const char *why) {
    LIST_FOR(n, next, &l->streams) {
        stream_close(CONTAINER_OF(n, struct stream, node), why);
    }
}

static void on_refused(uv_handle_t *h) {
    free(CONTAINER_OF(h, struct stream, tcp));
}

/* Reads on in what TLS has already, then from the socket. */
static void on_resumed(void *ctx) {
    struct stream *s = ctx;
    loop_again(s->loop); /* for what the user does now */
    if (s->paused || s->closing || s->ending) return;
    read_tls(s);
    if (!s->paused) read_start(s);
}

void stream_give_up_handshake(struct stream *s) {
    static const char why[] = "TLS handshake: given up, because too many wait for their end";
    log_tls(s, why);
    abort_stream(s, why);
}

static bool start_tls(struct stream *s, const struct listener_tls *tls) {
    if (tls->server == NULL) return true;
    s->tls = tls_new(tls->server, tls->alpn, tls->plain);
    if (s->tls == NULL) return false;
    handshake_begin(s);
    list_push_back(&s->loop->watched, &s->watched);
    s->deadline_ms = s->loop->now_ms + LIMIT_HANDSHAKE_MS;
    loop_sweep_start(s->loop);
    return true;
}

struct stream *stream_open(struct loop *l, int fd, const struct listener_tls *tls) {
    struct sockaddr_storage peer = {0};
    socklen_t peer_len = sizeof peer;
    int on = 1;
    /* Not mem_alloc: without memory a connection is refused and the broker goes on. */
    struct stream *s = calloc(1, sizeof *s);
    if (s == NULL || uv_tcp_init(&l->uv, &s->tcp) != 0) {
        free(s);
        close(fd);
        return NULL;
    }
    s->loop = l;
    list_init(&s->dirty);
    list_init(&s->watched);
    list_init(&s->shaking);
    if (uv_tcp_open(&s->tcp, fd) != 0) {
        close(fd);
        uv_close((uv_handle_t *)&s->tcp, on_refused);
        return NULL;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    getpeername(fd, (struct sockaddr *)&peer, &peer_len);
    address_format(&peer, s->peer, sizeof s->peer);
    s->peer_group = peer_group(&peer);
    s->peer_is_loopback = peer_is_loopback(&peer);
    if (!start_tls(s, tls)) {
        uv_close((uv_handle_t *)&s->tcp, on_refused);
        return NULL;
    }
    s->tcp.data = s;
    list_push_back(&l->streams, &s->node);
    loop_task_init(&s->drained, on_drained_task, s);
    loop_task_init(&s->resumed, on_resumed, s);
    buf_init(&s->out, MESSAGE_BYTES_HIGHEST);
    l->streams_count++;
    return s;
}

void stream_attach(struct stream *s, const struct stream_ops *ops, void *ctx) {
    s->ops = ops;
    s->ctx = ctx;
    if (!s->paused) read_start(s);
}

void stream_write(struct stream *s, struct slice bytes) {
    if (s->closing || s->ending || bytes.len == 0) return;
    if (stream_queued(s) > QUEUE_BYTES_HIGHEST || !buf_append_slice(&s->out, bytes)) {
        abort_stream(s, "too much output waits for the peer");
        return;
    }
    if (stream_queued(s) > LIMIT_WRITE_QUEUE_BYTES) s->drain_due = true;
    make_dirty(s);
}

size_t stream_queued(const struct stream *s) {
    size_t wire = s->tls == NULL ? 0 : tls_wire(s->tls)->len;
    return s->out.len - s->sealed + wire + s->tcp.write_queue_size;
}

void stream_pause(struct stream *s) {
    if (s->paused || s->ending) return;
    s->paused = true;
    if (!s->closing) uv_read_stop((uv_stream_t *)&s->tcp);
}

void stream_resume(struct stream *s) {
    if (!s->paused) return;
    s->paused = false;
    if (s->shake_due) return;
    if (s->tls != NULL && !s->closing && tls_has_input(s->tls)) loop_defer(s->loop, &s->resumed);
    else read_start(s);
}

void stream_close(struct stream *s, const char *why) {
    if (s->closing) return;
    s->closing = true;
    s->why = why;
    s->loop->closing_count++;
    if (s->tls != NULL) handshake_end(s);
    list_unlink(&s->dirty);
    list_unlink(&s->watched);
    loop_task_cancel(&s->drained);
    loop_task_cancel(&s->resumed);
    uv_close((uv_handle_t *)&s->tcp, on_closed);
}

void stream_dismiss(struct stream *s, const char *why) {
    if (s->tls != NULL && !s->closing && !s->ending && stream_queued(s) == 0) {
        tls_goodbye(s->tls);
        const struct buf *wire = tls_wire(s->tls);
        uv_buf_t all = uv_buf_init((char *)wire->data, (unsigned)wire->len);
        if (wire->len > 0) (void)uv_try_write((uv_stream_t *)&s->tcp, &all, 1);
    }
    stream_close(s, why);
}

bool stream_is_quiet(const struct stream *s) {
    uv_os_fd_t fd;
    int unread = 0;
    return !s->closing && uv_fileno((const uv_handle_t *)&s->tcp, &fd) == 0 &&
           ioctl(fd, FIONREAD, &unread) == 0 && unread == 0;
}

void stream_close_after_write(struct stream *s, const char *why) {
    if (s->closing || s->ending) return;
    s->ending = true;
    s->paused = false;
    s->why = why;
    watch(s);
    if (stream_queued(s) == 0) {
        /* Nothing to wait for, but no callback may run in here: the flush says goodbye. */
        make_dirty(s);
    }
    read_start(s);
}

const char *stream_peer(const struct stream *s) {
    return s->peer;
}

uint64_t stream_peer_group(const struct stream *s) {
    return s->peer_group;
}

bool stream_peer_is_loopback(const struct stream *s) {
    return s->peer_is_loopback;
}

const char *stream_peer_name(const struct stream *s) {
    return s->tls == NULL ? NULL : tls_peer_name(s->tls);
}

void streams_set_write_rate(struct loop *l, uint64_t bytes_per_s) {
    l->write_bytes_per_s = bytes_per_s;
}
