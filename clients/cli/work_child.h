/* work_child.h: one program run for one event: the body on its stdin, the tail of its stderr kept.
 *
 * A child is made by child_start, calls `done` exactly once when its process has ended, and then
 * frees itself; nobody may use it after that. The child leads a process group of its own, so that a
 * Ctrl-C at the terminal is the worker's to act on, and child_kill reaches what it started.
 *
 * stdin and stderr are pipes, not sockets: programs that open /dev/stdin or /dev/stderr work. A
 * program that does not read its stdin is no error.
 *
 * May call: base, libuv. */
#ifndef CLI_WORK_CHILD_H
#define CLI_WORK_CHILD_H

#include <stdint.h>
#include <uv.h>

#include "base/slice.h"

struct child;

struct child_exit {
    int64_t status;         /* when signal is 0 */
    int signal;             /* that ended it, or 0 */
    const char *last_line;  /* of its stderr, without the line end; "" when it said nothing */
    const char *last_lines; /* the end of its stderr, whole lines where they fit; likewise */
    uint64_t duration_ms;
};

/* `end` borrows until return. The body is not used any more. */
typedef void child_done(void *ctx, const struct child_exit *end);

/* Starts program[0] (looked up in PATH) with the environment `env`; both end with NULL and are
 * only used during the call. `body` is borrowed until `done`. 0, or a libuv error and no `done`. */
int child_start(struct child **out, uv_loop_t *loop, char **program, char **env, struct slice body,
                child_done *done, void *ctx);
/* Whether `program` can be started, found in PATH as child_start finds it: 0, or a libuv error.
 * What only its start can show is not seen. */
int child_check(const char *program);
/* Sends the signal to the child's process group. */
void child_kill(struct child *c, int signal);

#endif
