/* inject.c: a preloaded library that makes one file or memory call of a process fail.
 *
 * As it goes well: every call on a file below FAULT_DIRECTORY (or every allocation) that the chosen
 * error fits is counted; call number FAULT_AT fails instead of being made, and a line in
 * FAULT_REPORT says which one it was: "fired 17 pwrite data/store/data.mdb EIO". Everything else
 * goes to the kernel unchanged.
 *
 *   FAULT_AT         which of the counted calls fails, from 1; 0 or absent: none
 *   FAULT_ONWARD     1: that one and every later one
 *   FAULT_ERROR      EIO, ENOSPC, ENOMEM, or SHORT: half of the bytes are read or written
 *   FAULT_CALLS      names of calls with commas between them; absent: every one that fits
 *   FAULT_SYNC_MS    a slow disk: fdatasync and fsync take so much longer
 *
 * After a failed sync every further sync or write of these files is reported as "after ...": there
 * must be none, because a second sync that succeeds proves nothing.
 *
 * Kernel calls are made with syscall(2), so that nothing here depends on the order of loading; the
 * allocator's are glibc's own. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FILES_MAX 4096
#define PATH_SIZE 512

/* What may go wrong with a call. */
enum { IO = 1, NOSPC = 2, NOMEM = 4, SHORT = 8 };

static struct {
    bool ready;
    long at;
    bool onward;
    int error, kind; /* errno, and which of the bits above it is */
    const char *error_name, *calls, *directory, *report;
    long sync_ms;
} plan;

static atomic_long counted;
static atomic_bool sync_failed;
static bool below[FILES_MAX]; /* descriptors of files below the directory */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

__attribute__((constructor)) static void read_plan(void) {
    static const struct {
        const char *name;
        int error, kind;
    } errors[] = {{"EIO", EIO, IO},
                  {"ENOSPC", ENOSPC, NOSPC},
                  {"ENOMEM", ENOMEM, NOMEM},
                  {"SHORT", 0, SHORT}};
    const char *at = getenv("FAULT_AT"), *sync_ms = getenv("FAULT_SYNC_MS");
    const char *error = getenv("FAULT_ERROR");
    plan.at = at == NULL ? 0 : strtol(at, NULL, 10);
    plan.onward = getenv("FAULT_ONWARD") != NULL;
    plan.sync_ms = sync_ms == NULL ? 0 : strtol(sync_ms, NULL, 10);
    plan.calls = getenv("FAULT_CALLS");
    plan.directory = getenv("FAULT_DIRECTORY");
    plan.report = getenv("FAULT_REPORT");
    for (size_t i = 0; error != NULL && i < sizeof errors / sizeof errors[0]; i++) {
        if (strcmp(errors[i].name, error) != 0) continue;
        plan.error_name = errors[i].name;
        plan.error = errors[i].error;
        plan.kind = errors[i].kind;
    }
    plan.ready = true;
}

/* A line of the report, without memory of its own: an allocation may be what failed. */
static void report(const char *word, long n, const char *call, const char *path) {
    char line[PATH_SIZE + 128];
    if (plan.report == NULL) return;
    int len = snprintf(line, sizeof line, "%s %ld %s %s %s\n", word, n, call, path,
                       plan.error_name == NULL ? "-" : plan.error_name);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, plan.report, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0) return;
    (void)!syscall(SYS_write, fd, line, (size_t)len);
    syscall(SYS_close, fd);
}

static bool listed(const char *call) {
    size_t len = strlen(call);
    if (plan.calls == NULL) return strcmp(call, "malloc") != 0;
    for (const char *at = plan.calls; (at = strstr(at, call)) != NULL; at += len) {
        bool begins = at == plan.calls || at[-1] == ',';
        if (begins && (at[len] == '\0' || at[len] == ',')) return true;
    }
    return false;
}

/* Whether this call is the one to fail. errno is set then (not for SHORT). */
static bool fails(const char *call, int fits, const char *path) {
    if (!plan.ready || plan.at == 0 || (fits & plan.kind) == 0 || !listed(call)) return false;
    long n = atomic_fetch_add(&counted, 1) + 1;
    if (n != plan.at && !(plan.onward && n > plan.at)) return false;
    report("fired", n, call, path);
    if (plan.error != 0) errno = plan.error;
    return true;
}

/* ---- which files ---- */

static void path_at(int directory_fd, const char *name, char *out, size_t size) {
    char link[64];
    size_t len = 0;
    if (name[0] != '/') {
        if (directory_fd == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", directory_fd);
        ssize_t n = readlink(link, out, size - 2);
        len = n < 0 ? 0 : (size_t)n;
        out[len++] = '/';
    }
    snprintf(out + len, size - len, "%s", name);
}

static bool is_below(const char *path) {
    size_t len = plan.directory == NULL ? 0 : strlen(plan.directory);
    return len > 0 && strncmp(path, plan.directory, len) == 0 &&
           (path[len] == '\0' || path[len] == '/');
}

static bool watched(int fd) {
    return fd >= 0 && fd < FILES_MAX && below[fd];
}

static const char *path_of(int fd, char out[PATH_SIZE]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, PATH_SIZE - 1);
    out[n < 0 ? 0 : n] = '\0';
    return out;
}

static bool fd_fails(int fd, const char *call, int fits) {
    char path[PATH_SIZE];
    if (plan.at == 0 || !watched(fd)) return false;
    path_of(fd, path);
    if (atomic_load(&sync_failed) && (fits & NOSPC)) report("after", 0, call, path);
    return fails(call, fits, path);
}

static bool name_fails(int directory_fd, const char *name, const char *call, int fits) {
    char path[PATH_SIZE];
    if (plan.directory == NULL) return false;
    path_at(directory_fd, name, path, sizeof path);
    return is_below(path) && fails(call, fits, path);
}

/* ---- calls with names ---- */

static int open_at(int directory_fd, const char *name, int flags, mode_t mode) {
    int fits = IO | NOMEM | ((flags & O_CREAT) ? NOSPC : 0);
    if (name_fails(directory_fd, name, "open", fits)) return -1;
    int fd = (int)syscall(SYS_openat, directory_fd, name, flags, mode);
    if (fd >= 0 && fd < FILES_MAX && plan.directory != NULL) {
        char path[PATH_SIZE];
        path_at(directory_fd, name, path, sizeof path);
        below[fd] = is_below(path);
    }
    return fd;
}

static mode_t mode_of(int flags, va_list args) {
    return (flags & (O_CREAT | O_TMPFILE)) ? va_arg(args, mode_t) : 0;
}

int open(const char *name, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return open_at(AT_FDCWD, name, flags, mode);
}

int openat(int directory_fd, const char *name, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return open_at(directory_fd, name, flags, mode);
}

int close(int fd) {
    if (fd >= 0 && fd < FILES_MAX) below[fd] = false;
    return (int)syscall(SYS_close, fd);
}

int mkdirat(int directory_fd, const char *name, mode_t mode) {
    if (name_fails(directory_fd, name, "mkdir", IO | NOSPC | NOMEM)) return -1;
    return (int)syscall(SYS_mkdirat, directory_fd, name, mode);
}

int mkdir(const char *name, mode_t mode) {
    return mkdirat(AT_FDCWD, name, mode);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    if (name_fails(from_fd, from, "rename", IO | NOSPC | NOMEM)) return -1;
    return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, 0);
}

int rename(const char *from, const char *to) {
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int unlinkat(int directory_fd, const char *name, int flags) {
    if (name_fails(directory_fd, name, "unlink", IO | NOMEM)) return -1;
    return (int)syscall(SYS_unlinkat, directory_fd, name, flags);
}

int fstatat(int directory_fd, const char *name, struct stat *out, int flags) {
    if (name_fails(directory_fd, name, "fstatat", IO | NOMEM)) return -1;
    return (int)syscall(SYS_newfstatat, directory_fd, name, out, flags);
}

/* ---- calls on open files ---- */

/* How many of len bytes a call is let do; -1: it fails. */
static ssize_t let(int fd, const char *call, int fits, size_t len) {
    if (!fd_fails(fd, call, fits)) return (ssize_t)len;
    return plan.kind == SHORT ? (ssize_t)(len / 2) : -1;
}

ssize_t read(int fd, void *to, size_t len) {
    ssize_t n = let(fd, "read", IO | SHORT, len);
    return n < 0 ? -1 : syscall(SYS_read, fd, to, (size_t)n);
}

ssize_t pread(int fd, void *to, size_t len, off_t at) {
    ssize_t n = let(fd, "pread", IO | SHORT, len);
    return n < 0 ? -1 : syscall(SYS_pread64, fd, to, (size_t)n, at);
}

ssize_t write(int fd, const void *from, size_t len) {
    ssize_t n = let(fd, "write", IO | NOSPC | SHORT, len);
    return n < 0 ? -1 : syscall(SYS_write, fd, from, (size_t)n);
}

ssize_t pwrite(int fd, const void *from, size_t len, off_t at) {
    ssize_t n = let(fd, "pwrite", IO | NOSPC | SHORT, len);
    return n < 0 ? -1 : syscall(SYS_pwrite64, fd, from, (size_t)n, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!fd_fails(fd, "writev", IO | NOSPC | SHORT)) {
        return syscall(SYS_writev, fd, parts, count);
    }
    if (plan.kind != SHORT) return -1;
    return syscall(SYS_write, fd, parts[0].iov_base, parts[0].iov_len / 2);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    if (!fd_fails(fd, "pwritev", IO | NOSPC | SHORT)) {
        return syscall(SYS_pwritev, fd, parts, count, (long)at, 0L);
    }
    if (plan.kind != SHORT) return -1;
    return syscall(SYS_pwrite64, fd, parts[0].iov_base, parts[0].iov_len / 2, at);
}

int ftruncate(int fd, off_t size) {
    if (fd_fails(fd, "ftruncate", IO | NOSPC)) return -1;
    return (int)syscall(SYS_ftruncate, fd, size);
}

static int sync_file(int fd, const char *call, long number) {
    if (fd_fails(fd, call, IO | NOSPC)) {
        atomic_store(&sync_failed, true);
        return -1;
    }
    if (plan.sync_ms > 0 && watched(fd)) {
        struct timespec time = {plan.sync_ms / 1000, plan.sync_ms % 1000 * 1000000};
        clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
    }
    return (int)syscall(number, fd);
}

int fdatasync(int fd) {
    return sync_file(fd, "fdatasync", SYS_fdatasync);
}

int fsync(int fd) {
    return sync_file(fd, "fsync", SYS_fsync);
}

int fcntl(int fd, int command, ...) {
    va_list args;
    va_start(args, command);
    long argument = va_arg(args, long);
    va_end(args);
    if (fd_fails(fd, "fcntl", IO | NOMEM)) return -1;
    return (int)syscall(SYS_fcntl, fd, command, argument);
}

int flock(int fd, int operation) {
    if (fd_fails(fd, "flock", IO | NOMEM)) return -1;
    return (int)syscall(SYS_flock, fd, operation);
}

int fstatvfs(int fd, struct statvfs *out) {
    static int (*next)(int, struct statvfs *);
    if (next == NULL) *(void **)&next = dlsym(RTLD_NEXT, "fstatvfs");
    if (fd_fails(fd, "fstatvfs", IO | NOMEM)) return -1;
    return next(fd, out);
}

void *mmap(void *at, size_t len, int protection, int flags, int fd, off_t offset) {
    if (fd_fails(fd, "mmap", IO | NOMEM)) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, len, protection, flags, fd, offset);
}

/* ---- memory ---- */

void *malloc(size_t size) {
    return fails("malloc", NOMEM, "-") ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    return fails("malloc", NOMEM, "-") ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    return fails("malloc", NOMEM, "-") ? NULL : __libc_realloc(old, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    if (fails("malloc", NOMEM, "-")) return ENOMEM;
    *out = __libc_memalign(alignment, size);
    return *out == NULL ? ENOMEM : 0;
}
