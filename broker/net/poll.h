/* poll.h: readiness of descriptors that somebody else reads and writes: a library with sockets of
 * its own.
 *
 * A poll is owned by whoever started it, until loop_poll_stop; the descriptor stays theirs and must
 * be open until then. What is wanted is set by loop_poll_want; fn is called from the loop with what
 * is ready, as often as it stays ready, and may call everything here, also stop its own poll.
 * loop_stop ends every poll: fn is called no more, loop_poll_stop is still owed.
 *
 * Knows descriptors, no bytes. May call: base, libuv. */
#ifndef NET_POLL_H
#define NET_POLL_H

#include "broker/net/loop.h"

struct loop_poll;

enum {
    POLL_READ = 1,
    POLL_WRITE = 2,
};

/* `ready` is of the bits above; 0: the descriptor has an error or a hang-up. Nothing is waited for
 * any more then, until loop_poll_want is called again. */
typedef void loop_poll_fn(void *ctx, int fd, unsigned ready);

/* A poll of fd that wants nothing yet; the descriptor becomes non-blocking. NULL: the kernel has no
 * room for one more (epoll_ctl(2)), or fd cannot be polled. */
struct loop_poll *loop_poll_start(struct loop *l, int fd, loop_poll_fn *fn, void *ctx) MUST_CHECK;
/* Waits for these bits from now on; 0: for nothing. No system call when it does so already. */
void loop_poll_want(struct loop_poll *p, unsigned bits);
/* What it waits for. */
unsigned loop_poll_wanted(const struct loop_poll *p);
/* Ends it; *p becomes NULL, the descriptor may be closed. Harmless on NULL. */
void loop_poll_stop(struct loop_poll **p);

#endif
