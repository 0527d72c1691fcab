/* libcurl's multi interface on the loop: its sockets as polls, its deadlines as one timer.
 *
 * A socket stays polled for reading when libcurl has lost interest in it, which it does after each
 * answer and regains with the next request: that would be four system calls for each request. When
 * an idle connection then becomes readable (its peer has closed it) the poll is stopped; libcurl
 * finds out when it wants to use the connection. Sockets of libcurl's resolver threads are not ours
 * to know the end of, so their polls end at once.
 *
 * What can fail: a socket and its poll (results of the transfer). All that libcurl's calls here can
 * fail with is memory, which ends the broker as everywhere. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/http/client_internal.h"

static struct http_socket *socket_find(const struct http_client *c, curl_socket_t fd) {
    return fd >= 0 && (size_t)fd < c->sockets_cap ? c->sockets[fd] : NULL;
}

static void on_ready(void *ctx, int fd, unsigned ready) {
    struct http_socket *s = ctx;
    struct http_client *c = s->client;
    int bits = 0, running;
    if (s->wanted == 0) {
        loop_poll_want(s->poll, 0);
        return;
    }
    /* None of them, for an error: libcurl then looks itself, and reads what came before it. */
    if (ready & POLL_READ) bits |= CURL_CSELECT_IN;
    if (ready & POLL_WRITE) bits |= CURL_CSELECT_OUT;
    CHECK(curl_multi_socket_action(c->multi, fd, bits, &running) == CURLM_OK);
    s = socket_find(c, fd);
    if (s != NULL && s->wanted != 0) loop_poll_want(s->poll, s->wanted);
    client_settle(c);
}

static void socket_remove(struct http_client *c, curl_socket_t fd) {
    struct http_socket *s = socket_find(c, fd);
    if (s == NULL) return;
    c->sockets[fd] = NULL;
    loop_poll_stop(&s->poll);
    free(s);
}

static struct http_socket *socket_add(struct http_client *c, curl_socket_t fd, bool foreign) {
    struct loop_poll *poll;
    struct http_socket *s = mem_zalloc(sizeof *s);
    socket_remove(c, fd); /* should libcurl have closed one behind our back */
    poll = loop_poll_start(c->loop, fd, on_ready, s);
    if (poll == NULL) {
        free(s);
        return NULL;
    }
    s->client = c;
    s->poll = poll;
    s->foreign = foreign;
    if ((size_t)fd >= c->sockets_cap) {
        size_t cap = c->sockets_cap == 0 ? 64 : c->sockets_cap;
        while (cap <= (size_t)fd) cap *= 2;
        c->sockets = mem_realloc(c->sockets, cap * sizeof *c->sockets);
        memset(c->sockets + c->sockets_cap, 0, (cap - c->sockets_cap) * sizeof *c->sockets);
        c->sockets_cap = cap;
    }
    c->sockets[fd] = s;
    return s;
}

/* CURLMOPT_SOCKETFUNCTION: what libcurl wants to know of a socket from now on. */
static int on_interest(CURL *easy, curl_socket_t fd, int what, void *ctx, void *unused) {
    struct http_client *c = ctx;
    struct http_socket *s = socket_find(c, fd);
    (void)unused;
    if (what == CURL_POLL_REMOVE) {
        if (s == NULL) return 0;
        s->wanted = 0;
        if (s->foreign) socket_remove(c, fd);
        else loop_poll_want(s->poll, loop_poll_wanted(s->poll) & POLL_READ);
        return 0;
    }
    if (s == NULL && !c->closing) s = socket_add(c, fd, true);
    if (s == NULL) {
        struct http_transfer *t;
        CHECK(curl_easy_getinfo(easy, CURLINFO_PRIVATE, &t) == CURLE_OK);
        transfer_fail_ours(t, "no room to wait for one more descriptor");
        return 0;
    }
    s->wanted = (what & CURL_POLL_IN ? POLL_READ : 0) | (what & CURL_POLL_OUT ? POLL_WRITE : 0);
    loop_poll_want(s->poll, s->wanted);
    return 0;
}

/* What was due is done; whatever became of it is told. */
static void on_due(void *ctx) {
    struct http_client *c = ctx;
    int running;
    CHECK(curl_multi_socket_action(c->multi, CURL_SOCKET_TIMEOUT, 0, &running) == CURLM_OK);
    /* As a task it runs between two turns, and what was told may be work for the next. */
    if (client_settle(c)) loop_again(c->loop);
}

/* CURLMOPT_TIMERFUNCTION */
static int on_deadline(CURLM *multi, long after_ms, void *ctx) {
    struct http_client *c = ctx;
    (void)multi;
    if (c->closing) return 0;
    loop_timer_set(c->timer, after_ms <= 0 ? UINT64_MAX : (uint64_t)after_ms);
    if (after_ms == 0) loop_defer(c->loop, &c->drive);
    return 0;
}

bool sockets_open(struct http_client *c) {
    loop_task_init(&c->drive, on_due, c);
    c->timer = loop_timer_start(c->loop, 0, 0, on_due, c);
    loop_timer_set(c->timer, UINT64_MAX);
    return curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_interest) == CURLM_OK &&
           curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c) == CURLM_OK &&
           curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_deadline) == CURLM_OK &&
           curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c) == CURLM_OK;
}

void sockets_close(struct http_client *c) {
    loop_task_cancel(&c->drive);
    loop_timer_stop(&c->timer);
    for (size_t fd = 0; fd < c->sockets_cap; fd++) socket_remove(c, (curl_socket_t)fd);
    free(c->sockets);
}

/* A descriptor that is lacking is our trouble; an address family that is lacking is a reason why
 * that address cannot be reached. */
static bool is_ours(int code) {
    return code == EMFILE || code == ENFILE || code == ENOMEM || code == ENOBUFS;
}

curl_socket_t on_open_socket(void *transfer, curlsocktype purpose, struct curl_sockaddr *address) {
    struct http_transfer *t = transfer;
    struct http_client *c = t->client;
    char why[WHY_SIZE];
    (void)purpose;
    names_leave(t);
    if (!guard_address_ok(c->guard, &address->addr, why, sizeof why)) {
        if (!t->ours) snprintf(t->why, sizeof t->why, "%s", why);
        t->refused++;
        return CURL_SOCKET_BAD;
    }
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
                    address->protocol);
    if (fd < 0) {
        if (is_ours(errno)) transfer_fail_ours(t, "no socket: %s", strerror(errno));
        return CURL_SOCKET_BAD;
    }
    if (socket_add(c, fd, false) == NULL) {
        transfer_fail_ours(t, "no room to wait for one more descriptor");
        close(fd);
        return CURL_SOCKET_BAD;
    }
    t->opened++;
    return fd;
}

int on_close_socket(void *client, curl_socket_t fd) {
    socket_remove(client, fd);
    close(fd);
    return 0;
}
