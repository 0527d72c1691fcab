/* Streams: bytes in through the loop's one read buffer, bytes out once per turn.
 *
 * Output, as it goes well: stream_write fills `out` and puts the stream on the dirty list; at the
 * end of the turn one write(2) takes everything. When the kernel takes less, the rest moves to a
 * pending write of libuv's; what is written meanwhile waits in `out` and follows. When all of it
 * has gone on_drain tells, at once or, since a flush calls no user, at the start of the next turn.
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

static void on_read(uv_stream_t *h, ssize_t nread, const uv_buf_t *buf) {
    struct stream *s = h->data;
    loop_enter(s->loop);
    if (nread == 0 || s->closing) return;
    if (nread > 0) {
        if (!s->ending) s->ops->on_data(s->ctx, slice_of(buf->base, (size_t)nread));
    } else if (nread != UV_EOF) {
        stream_close(s, uv_strerror((int)nread));
    } else {
        int err = socket_error(s);
        s->eof = true;
        if (err != 0) stream_close(s, uv_strerror(-err));
        else if (s->lingering) stream_close(s, s->why);
        else if (!s->ending) s->ops->on_eof(s->ctx);
    }
}

static void read_start(struct stream *s) {
    if (s->eof || s->closing || s->ops == NULL) return;
    int rc = uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_read);
    CHECK(rc == 0 || rc == UV_EALREADY);
}

static void on_closed(uv_handle_t *h) {
    struct stream *s = h->data;
    struct loop *l = s->loop;
    loop_enter(l);
    list_unlink(&s->node);
    l->streams_count--;
    if (s->ops != NULL) s->ops->on_close(s->ctx, s->why);
    CHECK(s->pending == NULL);
    buf_free(&s->out);
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
    if (s->out.len > 0) {
        list_push_back(&s->loop->dirty, &s->dirty);
        return;
    }
    list_unlink(&s->watched);
    on_flushed(s);
    tell_drained(s);
}

/* Hands out[from..] to libuv, which writes it when the peer has room. */
static void write_rest(struct stream *s, size_t from) {
    struct pending_write *w = mem_alloc(sizeof *w);
    w->stream = s;
    w->bytes = s->out;
    buf_init(&s->out, MESSAGE_BYTES_HIGHEST);
    s->pending = w;
    s->drain_due = true;
    /* 128 MiB at most, so it fits the unsigned int of uv_buf_t. */
    uv_buf_t rest = uv_buf_init((char *)w->bytes.data + from, (unsigned)(w->bytes.len - from));
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

static void flush(struct stream *s) {
    uv_buf_t all = uv_buf_init((char *)s->out.data, (unsigned)s->out.len);
    int written = uv_try_write((uv_stream_t *)&s->tcp, &all, 1);
    if (written == UV_EAGAIN) written = 0;
    if (written < 0) {
        stream_close(s, uv_strerror(written));
        return;
    }
    s->handed_bytes += s->out.len;
    if ((size_t)written < s->out.len) {
        write_rest(s, (size_t)written);
        return;
    }
    if (s->out.cap > OUT_KEEP_BYTES) buf_free(&s->out);
    else buf_clear(&s->out);
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

/* Closes with a reset: the kernel then drops what it still holds for a peer that takes nothing. */
static void abort_stream(struct stream *s, const char *why) {
    const struct linger none = {.l_onoff = 1, .l_linger = 0};
    uv_os_fd_t fd;
    if (!s->closing && uv_fileno((uv_handle_t *)&s->tcp, &fd) == 0) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    }
    stream_close(s, why);
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
        if (!s->lingering) pay(s);
        if (l->now_ms < s->deadline_ms) continue;
        if (s->lingering) stream_close(s, s->why);
        else abort_stream(s, "the peer does not take its output");
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

struct stream *stream_open(struct loop *l, int fd) {
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
    s->tcp.data = s;
    s->loop = l;
    list_push_back(&l->streams, &s->node);
    list_init(&s->dirty);
    list_init(&s->watched);
    loop_task_init(&s->drained, on_drained_task, s);
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
    if (s->pending == NULL && list_empty(&s->dirty)) list_push_back(&s->loop->dirty, &s->dirty);
}

size_t stream_queued(const struct stream *s) {
    return s->out.len + s->tcp.write_queue_size;
}

void stream_pause(struct stream *s) {
    if (s->paused || s->ending) return;
    s->paused = true;
    if (!s->closing) uv_read_stop((uv_stream_t *)&s->tcp);
}

void stream_resume(struct stream *s) {
    if (!s->paused) return;
    s->paused = false;
    read_start(s);
}

void stream_close(struct stream *s, const char *why) {
    if (s->closing) return;
    s->closing = true;
    s->why = why;
    list_unlink(&s->dirty);
    list_unlink(&s->watched);
    loop_task_cancel(&s->drained);
    uv_close((uv_handle_t *)&s->tcp, on_closed);
}

void stream_close_after_write(struct stream *s, const char *why) {
    if (s->closing || s->ending) return;
    s->ending = true;
    s->paused = false;
    s->why = why;
    watch(s);
    if (stream_queued(s) == 0) {
        /* Nothing to wait for, but no callback may run in here: the flush says goodbye. */
        if (list_empty(&s->dirty)) list_push_back(&s->loop->dirty, &s->dirty);
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

void streams_set_write_rate(struct loop *l, uint64_t bytes_per_s) {
    l->write_bytes_per_s = bytes_per_s;
}

struct loop *stream_loop(const struct stream *s) {
    return s->loop;
}

size_t loop_streams(const struct loop *l) {
    return l->streams_count;
}
