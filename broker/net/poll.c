/* Polls: uv_poll_t with the life of the loop's other handles.
 *
 * What can fail: starting (a value), and the descriptor, which is told as readiness 0: its owner
 * finds the error when it reads. libuv stops a poll that saw an error. */
#include "broker/net/poll.h"

#include <stdlib.h>

#include "broker/net/internal.h"

_Static_assert(POLL_READ == (int)UV_READABLE && POLL_WRITE == (int)UV_WRITABLE,
               "passed on as bits");

struct loop_poll {
    uv_poll_t uv;
    struct loop *loop;
    struct list node; /* in loop->polls */
    loop_poll_fn *fn;
    void *ctx;
    int fd;
    unsigned wanted;
    bool closed;   /* libuv has let go */
    bool released; /* loop_poll_stop was called */
};

static void on_ready(uv_poll_t *h, int status, int events) {
    struct loop_poll *p = CONTAINER_OF(h, struct loop_poll, uv);
    loop_enter(p->loop);
    if (status < 0) {
        p->wanted = 0;
        events = 0;
    }
    p->fn(p->ctx, p->fd, (unsigned)events & (POLL_READ | POLL_WRITE));
}

struct loop_poll *loop_poll_start(struct loop *l, int fd, loop_poll_fn *fn, void *ctx) {
    struct loop_poll *p = mem_zalloc(sizeof *p);
    CHECK(!l->stopped);
    if (uv_poll_init(&l->uv, &p->uv, fd) != 0) {
        free(p);
        return NULL;
    }
    p->loop = l;
    p->fn = fn;
    p->ctx = ctx;
    p->fd = fd;
    list_push_back(&l->polls, &p->node);
    return p;
}

void loop_poll_want(struct loop_poll *p, unsigned bits) {
    if (bits == p->wanted || uv_is_closing((uv_handle_t *)&p->uv)) return;
    p->wanted = bits;
    if (bits == 0) uv_poll_stop(&p->uv);
    else CHECK(uv_poll_start(&p->uv, (int)bits, on_ready) == 0);
}

unsigned loop_poll_wanted(const struct loop_poll *p) {
    return p->wanted;
}

static void on_poll_closed(uv_handle_t *h) {
    struct loop_poll *p = CONTAINER_OF(h, struct loop_poll, uv);
    p->closed = true;
    if (!p->released) return; /* its owner still has to call loop_poll_stop */
    list_unlink(&p->node);
    free(p);
}

void loop_poll_stop(struct loop_poll **poll) {
    struct loop_poll *p = *poll;
    if (p == NULL) return;
    *poll = NULL;
    p->released = true;
    if (p->closed) {
        list_unlink(&p->node);
        free(p);
    } else if (!uv_is_closing((uv_handle_t *)&p->uv)) {
        uv_close((uv_handle_t *)&p->uv, on_poll_closed);
    }
}

void polls_close_all(struct loop *l) {
    LIST_FOR(n, next, &l->polls) {
        struct loop_poll *p = CONTAINER_OF(n, struct loop_poll, node);
        if (!uv_is_closing((uv_handle_t *)&p->uv)) uv_close((uv_handle_t *)&p->uv, on_poll_closed);
    }
}

void polls_free(struct loop *l) {
    LIST_FOR(n, next, &l->polls) {
        free(CONTAINER_OF(n, struct loop_poll, node));
    }
}
