/* Listeners: sockets that are accepted from by hand, so that they can stop.
 *
 * As it goes well: epoll says that connections wait, up to ACCEPTS_PER_TURN are taken and given to
 * the user. When there are as many streams as may be, or the process is out of descriptors, the
 * users of the listeners are asked, for each that waits, to close one that they can spare. When
 * they have none the listeners are not even polled any more: the kernel keeps callers in its
 * backlog and nothing spins. They are polled again when a stream has closed, and, because
 * descriptors also come free elsewhere and connections become idle, at the next sweep. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/net/address.h"
#include "broker/net/internal.h"

#define ACCEPTS_PER_TURN 128 /* then those who are connected already have their say */
#define BACKLOG          4096
#define LOG_EVERY_MS     10000 /* pauses at the limit come and go with each close */

static void on_readable(uv_poll_t *p, int status, int events);

static void listeners_pause(struct loop *l, const char *reason) {
    l->accept_paused = true;
    LIST_FOR(n, next, &l->listeners) {
        struct listener *listener = CONTAINER_OF(n, struct listener, node);
        if (!listener->closing) uv_poll_stop(&listener->poll);
    }
    loop_sweep_start(l);
    if (l->accept_logged_ms != 0 && l->now_ms - l->accept_logged_ms < LOG_EVERY_MS) return;
    l->accept_logged_ms = l->now_ms;
    log_warn("no more connections are accepted until one closes: %s (%zu open, at most %zu)",
             reason, streams_open(l), l->streams_max);
}

/* True: there is room for one more. */
static bool make_room(struct loop *l) {
    bool made = false;
    LIST_FOR(n, next, &l->listeners) {
        struct listener *listener = CONTAINER_OF(n, struct listener, node);
        if (made || listener->closing || listener->make_room == NULL) continue;
        made = listener->make_room(listener->ctx);
    }
    if (!made) return false;
    l->room_made++;
    if (l->room_logged_ms != 0 && l->now_ms - l->room_logged_ms < LOG_EVERY_MS) return true;
    l->room_logged_ms = l->now_ms;
    log_warn(
        "all connections are taken (%zu open, at most %zu): those that were idle longest are "
        "closed for new ones, %llu since the start",
        streams_open(l), l->streams_max, (unsigned long long)l->room_made);
    return true;
}

void listeners_resume(struct loop *l) {
    if (streams_open(l) < l->streams_max) listeners_retry(l);
}

void listeners_retry(struct loop *l) {
    if (!l->accept_paused || l->stopped) return;
    l->accept_paused = false;
    LIST_FOR(n, next, &l->listeners) {
        struct listener *listener = CONTAINER_OF(n, struct listener, node);
        if (listener->closing) continue;
        CHECK(uv_poll_start(&listener->poll, UV_READABLE, on_readable) == 0);
    }
}

static bool somebody_waits(const struct listener *listener) {
    struct pollfd backlog = {.fd = listener->fd, .events = POLLIN};
    return poll(&backlog, 1, 0) == 1;
}

static void on_readable(uv_poll_t *p, int status, int events) {
    struct listener *listener = CONTAINER_OF(p, struct listener, poll);
    struct loop *l = listener->loop;
    (void)status; /* an error of the socket shows in accept */
    (void)events;
    loop_enter(l);
    for (int i = 0; i < ACCEPTS_PER_TURN && !listener->closing; i++) {
        /* They wait better in the kernel's backlog than with us. */
        if (listener->tls.server != NULL && handshakes_crowded(l)) return;
        if (streams_open(l) >= l->streams_max) {
            if (!somebody_waits(listener)) return;
            if (!make_room(l)) {
                listeners_pause(l, "the limit is reached");
                return;
            }
        }
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN) return;
            /* A caller who has gone again, or an error of its network (accept(2)). */
            if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO) continue;
            /* Out of descriptors it says so even when nobody waits. */
            const char *reason = strerror(errno);
            bool full = errno == EMFILE || errno == ENFILE;
            if (full && !somebody_waits(listener)) return;
            if (full && make_room(l)) continue;
            listeners_pause(l, reason);
            return;
        }
        struct stream *s = stream_open(l, fd, &listener->tls);
        if (s != NULL) listener->fn(listener->ctx, s);
    }
}

/* A listening socket, or -1 with a sentence in error. */
static int open_socket(const struct sockaddr_storage *a, const char *address, char *error,
                       size_t error_size) {
    int on = 1;
    int fd = socket(a->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) goto failed;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) goto failed;
    if (bind(fd, (const struct sockaddr *)a, address_len(a)) != 0) goto failed;
    if (listen(fd, BACKLOG) != 0) goto failed;
    return fd;

failed:
    if (errno == EADDRINUSE) {
        snprintf(error, error_size,
                 "%s is already in use: choose another address or stop the other process", address);
    } else if (errno == EACCES) {
        snprintf(error, error_size,
                 "%s may not be listened on by this user: choose a port above 1023", address);
    } else if (errno == EADDRNOTAVAIL) {
        snprintf(error, error_size,
                 "%s is not an address of this machine: choose one that is, or 0.0.0.0 for all",
                 address);
    } else {
        snprintf(error, error_size, "cannot listen on %s: %s", address, strerror(errno));
    }
    if (fd >= 0) close(fd);
    return -1;
}

int listener_open(struct loop *l, const char *address, listener_accept_fn *fn, void *ctx,
                  struct listener **out, uint16_t *port, char *error, size_t error_size) {
    struct sockaddr_storage a;
    socklen_t len = sizeof a;
    *out = NULL;
    if (address_parse(address, &a, error, error_size) != 0) return -1;
    int fd = open_socket(&a, address, error, error_size);
    if (fd < 0) return -1;
    CHECK(getsockname(fd, (struct sockaddr *)&a, &len) == 0);
    *port = (uint16_t)address_port(&a);

    struct listener *listener = mem_zalloc(sizeof *listener);
    int rc = uv_poll_init(&l->uv, &listener->poll, fd);
    if (rc != 0) {
        snprintf(error, error_size, "cannot wait for connections on %s: %s", address,
                 uv_strerror(rc));
        close(fd);
        free(listener);
        return -1;
    }
    listener->loop = l;
    listener->fn = fn;
    listener->ctx = ctx;
    listener->fd = fd;
    list_push_back(&l->listeners, &listener->node);
    if (!l->accept_paused) {
        CHECK(uv_poll_start(&listener->poll, UV_READABLE, on_readable) == 0);
    }
    *out = listener;
    return 0;
}

void listener_set_make_room(struct listener *l, listener_room_fn *fn) {
    l->make_room = fn;
}

void listener_set_tls(struct listener *l, const struct listener_tls *tls) {
    l->tls = *tls;
}

static void on_listener_closed(uv_handle_t *h) {
    struct listener *listener = CONTAINER_OF(h, struct listener, poll);
    listener->closed = true;
    if (!listener->released) return; /* its owner still has to call listener_close */
    list_unlink(&listener->node);
    free(listener);
}

static void shut(struct listener *listener) {
    if (listener->closing) return;
    listener->closing = true;
    uv_close((uv_handle_t *)&listener->poll, on_listener_closed);
    close(listener->fd); /* after uv_close has taken it out of epoll */
}

void listener_close(struct listener **l) {
    struct listener *listener = *l;
    if (listener == NULL) return;
    *l = NULL;
    listener->released = true;
    if (listener->closed) {
        list_unlink(&listener->node);
        free(listener);
    } else {
        shut(listener);
    }
}

void listeners_close_all(struct loop *l) {
    LIST_FOR(n, next, &l->listeners) {
        shut(CONTAINER_OF(n, struct listener, node));
    }
}

void listeners_free(struct loop *l) {
    LIST_FOR(n, next, &l->listeners) {
        free(CONTAINER_OF(n, struct listener, node));
    }
}
