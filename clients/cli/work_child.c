/* The happy path: two pipes, uv_spawn, write the body, close stdin; pass stderr through until the
 * process ends; read what is left in the pipe, report, close the handles, free.
 *
 * What fails: a pipe or the spawn (child_start says so, nothing was begun); the write, when the
 * program ends or closes its stdin early (nobody minds). The pipe of stderr may outlive the process
 * in the hands of what that started: it is closed with the process, its end is not waited for. */
#include "clients/cli/work_child.h"

#include <errno.h>
#include <limits.h>
#include <paths.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "proto/limits.h"

#define READ_BYTES  4096
#define TAIL_BYTES  LIMIT_ERROR_DETAIL_BYTES /* kept of stderr: what a nack takes along */
#define DRAIN_BYTES (1024 * 1024)            /* a pipe holds at most this much (pipe-max-size) */

struct child {
    uv_process_t process;
    uv_pipe_t in, err;
    uv_write_t write;
    unsigned open_handles; /* freed when 0 */
    uint64_t started_ns;
    child_done *done;
    void *ctx;
    char read[READ_BYTES];
    char tail[TAIL_BYTES + 1];
    size_t tail_len;
};

static void on_closed(uv_handle_t *handle) {
    struct child *c = handle->data;
    if (--c->open_handles == 0) free(c);
}

static void close_handles(struct child *c) {
    uv_handle_t *handles[] = {(uv_handle_t *)&c->process, (uv_handle_t *)&c->in,
                              (uv_handle_t *)&c->err};
    for (size_t i = 0; i < sizeof(handles) / sizeof(handles[0]); i++) {
        if (!uv_is_closing(handles[i])) uv_close(handles[i], on_closed);
    }
}

/* Passes the bytes on and keeps the last of them. */
static void take_stderr(struct child *c, const char *data, size_t len) {
    fwrite(data, 1, len, stderr);
    if (len >= TAIL_BYTES) {
        memcpy(c->tail, data + len - TAIL_BYTES, TAIL_BYTES);
        c->tail_len = TAIL_BYTES;
        return;
    }
    size_t keep = c->tail_len + len <= TAIL_BYTES ? c->tail_len : TAIL_BYTES - len;
    memmove(c->tail, c->tail + c->tail_len - keep, keep);
    memcpy(c->tail + keep, data, len);
    c->tail_len = keep + len;
}

/* Cuts the blanks at the end of the tail, and the line that began before it when there is another.
 */
static const char *last_lines(struct child *c) {
    size_t end = c->tail_len;
    while (end > 0 && strchr("\r\n \t", c->tail[end - 1]) != NULL) end--;
    c->tail[end] = '\0';
    const char *newline = c->tail_len == TAIL_BYTES ? memchr(c->tail, '\n', end) : NULL;
    return newline != NULL ? newline + 1 : c->tail;
}

/* The last line of a text that last_lines has cut. */
static const char *last_line(const char *lines) {
    const char *start = lines + strlen(lines);
    while (start > lines && start[-1] != '\n') start--;
    return start;
}

static void on_alloc(uv_handle_t *handle, size_t hint, uv_buf_t *buf) {
    struct child *c = handle->data;
    (void)hint;
    *buf = uv_buf_init(c->read, sizeof(c->read));
}

static void on_stderr(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf) {
    struct child *c = stream->data;
    if (got > 0) take_stderr(c, buf->base, (size_t)got);
    if (got < 0) uv_read_stop(stream);
}

/* What the process wrote before it ended is in the pipe now. */
static void drain_stderr(struct child *c) {
    uv_os_fd_t fd;
    if (uv_fileno((uv_handle_t *)&c->err, &fd) != 0) return;
    for (size_t total = 0; total < DRAIN_BYTES;) {
        ssize_t got = read(fd, c->read, sizeof(c->read));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return;
        take_stderr(c, c->read, (size_t)got);
        total += (size_t)got;
    }
}

static void on_exit_process(uv_process_t *process, int64_t status, int signal) {
    struct child *c = process->data;
    drain_stderr(c);
    const char *lines = last_lines(c);
    struct child_exit end = {
        .status = status,
        .signal = signal,
        .last_line = last_line(lines),
        .last_lines = lines,
        .duration_ms = (uv_hrtime() - c->started_ns) / 1000000,
    };
    close_handles(c); /* from here on the body is not touched */
    c->done(c->ctx, &end);
}

static void on_written(uv_write_t *write, int status) {
    struct child *c = write->data;
    (void)status; /* EPIPE: the program did not want it */
    if (!uv_is_closing((uv_handle_t *)&c->in)) uv_close((uv_handle_t *)&c->in, on_closed);
}

static int spawn(struct child *c, uv_loop_t *loop, char **program, char **env, int child_in,
                 int child_err) {
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_INHERIT_FD, .data.fd = child_in},
        {.flags = UV_INHERIT_FD, .data.fd = STDOUT_FILENO},
        {.flags = UV_INHERIT_FD, .data.fd = child_err},
    };
    uv_process_options_t options = {
        .exit_cb = on_exit_process,
        .file = program[0],
        .args = program,
        .env = env,
        .flags = UV_PROCESS_DETACHED,
        .stdio_count = 3,
        .stdio = stdio,
    };
    return uv_spawn(loop, &c->process, &options);
}

static int check_file(const char *path) {
    struct stat info;
    if (stat(path, &info) != 0) return uv_translate_sys_error(errno);
    if (!S_ISREG(info.st_mode)) return UV_EACCES;
    return access(path, X_OK) == 0 ? 0 : uv_translate_sys_error(errno);
}

int child_check(const char *program) {
    const char *at = getenv("PATH");
    char path[PATH_MAX];
    int error = UV_ENOENT;
    if (strchr(program, '/') != NULL) return check_file(program);
    if (at == NULL) at = _PATH_DEFPATH;
    for (;;) {
        size_t len = strcspn(at, ":");
        int size =
            snprintf(path, sizeof path, "%.*s%s%s", (int)len, at, len > 0 ? "/" : "", program);
        int found = size < (int)sizeof path ? check_file(path) : UV_ENAMETOOLONG;
        if (found == 0) return 0;
        if (found == UV_EACCES) error = found;
        if (at[len] == '\0') return error;
        at += len + 1;
    }
}

int child_start(struct child **out, uv_loop_t *loop, char **program, char **env, struct slice body,
                child_done *done, void *ctx) {
    uv_file in[2] = {-1, -1}, err[2] = {-1, -1};
    int error = uv_pipe(in, 0, UV_NONBLOCK_PIPE);
    if (error != 0) return error;
    error = uv_pipe(err, UV_NONBLOCK_PIPE, 0);
    if (error != 0) {
        close(in[0]);
        close(in[1]);
        return error;
    }
    struct child *c = mem_zalloc(sizeof(*c));
    c->done = done;
    c->ctx = ctx;
    c->started_ns = uv_hrtime();
    c->open_handles = 3;
    CHECK(uv_pipe_init(loop, &c->in, 0) == 0);
    CHECK(uv_pipe_init(loop, &c->err, 0) == 0);
    CHECK(uv_pipe_open(&c->in, in[1]) == 0);
    CHECK(uv_pipe_open(&c->err, err[0]) == 0);
    c->in.data = c->err.data = c->write.data = c;
    error = spawn(c, loop, program, env, in[0], err[1]);
    c->process.data = c;
    close(in[0]);
    close(err[1]);
    if (error != 0) {
        close_handles(c);
        return error;
    }
    CHECK(uv_read_start((uv_stream_t *)&c->err, on_alloc, on_stderr) == 0);
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)body.data, (unsigned)body.len);
    if (body.len == 0 || uv_write(&c->write, (uv_stream_t *)&c->in, &buf, 1, on_written) != 0) {
        uv_close((uv_handle_t *)&c->in, on_closed);
    }
    *out = c;
    return 0;
}

void child_kill(struct child *c, int signal) {
    kill(-uv_process_get_pid(&c->process), signal);
}
