/* record.c: a preload library that writes down what a broker does to its disk and says on its
 * sockets, in one order.
 *
 *   POWER_ROOT  only files below this directory are recorded (the data directory lies in it)
 *   POWER_LOG   the log, appended to; not below POWER_ROOT
 *
 * Every call that can change what is on disk, and every read and write of a socket, is done and
 * then recorded, under one lock, so that the log's order is the order in which things happened,
 * whichever thread did them. Recording after the call means: what a SIGKILL catches between the
 * two is not in the log, and nobody can have been told of it either. A failed call changed nothing
 * and is left out. What the checker (disk.py) has no model for is recorded as ODD and fails there:
 * a broker that begins to use another call must not slip through.
 *
 * A record: struct record, then name_len bytes, then data_len bytes. Host byte order. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind {
    KIND_START = 1, /* a process begins; object: its id */
    KIND_WRITE,     /* object, at, data; through: it is on disk when it returns */
    KIND_TRUNCATE,  /* object, at: the new size */
    KIND_SYNC,      /* object: a file or a directory */
    KIND_CREATE,    /* directory, name, object: a new file */
    KIND_MKDIR,     /* directory, name, object */
    KIND_RENAME,    /* directory, name, object; at: the new directory; data: the new name */
    KIND_UNLINK,    /* directory, name */
    KIND_SEND,      /* object: a socket; data */
    KIND_RECEIVE,   /* object: a socket; data */
    KIND_ODD,       /* name: a call that the checker knows nothing about */
    KIND_SHARED,    /* object, name: a file was mapped for shared writing */
};

struct record {
    uint32_t kind, name_len;
    uint64_t data_len, object, directory, at, through;
};

#define LOG_FD 700 /* out of the way of what the broker counts on */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char root[4096];
static size_t root_len;

/* The next definition of a function after ours. */
#define REAL(name)                                                                                 \
    static __typeof__(name) *real;                                                                 \
    if (real == NULL) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static void die(const char *what) {
    fprintf(stderr, "record: %s: %s\n", what, strerror(errno));
    _exit(70);
}

static void write_out(const void *bytes, size_t len) {
    REAL(write);
    for (const char *at = bytes; len > 0;) {
        ssize_t n = real(log_fd, at, len);
        if (n <= 0) die("cannot write the log");
        at += n;
        len -= (size_t)n;
    }
}

/* One write for head, name and data where they fit, so that a kill leaves whole records. */
static void record(struct record r, const char *name, const void *data) {
    static char bytes[1 << 20];
    int saved = errno;
    r.name_len = name == NULL ? 0 : (uint32_t)strlen(name);
    size_t head = sizeof r + r.name_len, len = head + r.data_len;
    char *out = len <= sizeof bytes ? bytes : malloc(len);
    if (out == NULL) die("no memory");
    memcpy(out, &r, sizeof r);
    if (r.name_len > 0) memcpy(out + sizeof r, name, r.name_len);
    if (r.data_len > 0) memcpy(out + head, data, r.data_len);
    write_out(out, len);
    if (out != bytes) free(out);
    errno = saved;
}

__attribute__((constructor)) static void start(void) {
    const char *log = getenv("POWER_LOG"), *below = getenv("POWER_ROOT");
    REAL(open);
    if (log == NULL || below == NULL) return;
    if (realpath(below, root) == NULL) die("POWER_ROOT");
    root_len = strlen(root);
    int fd = real(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) die("POWER_LOG");
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, LOG_FD);
    if (log_fd < 0) die("POWER_LOG");
    close(fd);
    record((struct record){.kind = KIND_START, .object = (uint64_t)getpid()}, NULL, NULL);
}

/* ---- whose is it ---- */

/* Whether fd is a file or directory below the root. As socket_of, asked before the lock is taken: a
 * signal handler that writes to a pipe may interrupt whoever holds it. */
static bool ours(int fd) {
    char link[32], path[4096 + 16];
    int saved = errno;
    if (log_fd < 0 || fd < 0) return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = saved;
    return n >= (ssize_t)root_len && memcmp(path, root, root_len) == 0 &&
           (n == (ssize_t)root_len || path[root_len] == '/');
}

static uint64_t inode_of(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

/* The inode of a connected socket, or 0. */
static uint64_t socket_of(int fd) {
    struct stat st;
    int saved = errno;
    bool is = log_fd >= 0 && fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
    errno = saved;
    return is ? (uint64_t)st.st_ino : 0;
}

/* Where a name stands: the directory's inode and the last part of the path. */
struct place {
    bool ours;
    uint64_t directory;
    char name[256];
};

static struct place place_of(int at, const char *path) {
    struct place p = {.ours = false};
    char directory[4096] = ".";
    REAL(openat);
    if (log_fd < 0) return p;
    int saved = errno;
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    const char *slash = memrchr(path, '/', len);
    const char *name = slash == NULL ? path : slash + 1;
    size_t name_len = len - (size_t)(name - path);
    if (slash != NULL) {
        snprintf(directory, sizeof directory, "%.*s", (int)(slash == path ? 1 : slash - path),
                 path);
    }
    int fd = real(at, directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && ours(fd) && name_len < sizeof p.name) {
        p.ours = true;
        p.directory = inode_of(fd);
        memcpy(p.name, name, name_len);
    }
    if (fd >= 0) close(fd);
    errno = saved;
    return p;
}

static uint64_t inode_at(int at, const char *path) {
    struct stat st;
    int saved = errno;
    uint64_t inode = fstatat(at, path, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_ino : 0;
    errno = saved;
    return inode;
}

static bool recorded(int fd) {
    return socket_of(fd) != 0 || ours(fd);
}

static void odd(bool is_ours, const char *call) {
    if (!is_ours) return;
    record((struct record){.kind = KIND_ODD}, call, NULL);
}

/* ---- opening ---- */

static int opened(int at, const char *path, int flags, mode_t mode) {
    REAL(openat);
    if (log_fd < 0) return real(at, path, flags, mode);
    pthread_mutex_lock(&lock);
    bool is_new = (flags & O_CREAT) != 0 && inode_at(at, path) == 0;
    int fd = real(at, path, flags, mode);
    if (fd >= 0 && ours(fd)) {
        if (is_new) {
            struct place p = place_of(at, path);
            record(
                (struct record){
                    .kind = KIND_CREATE, .directory = p.directory, .object = inode_of(fd)},
                p.name, NULL);
        }
        odd((flags & O_TMPFILE) == O_TMPFILE, "open with O_TMPFILE");
        if ((flags & O_TRUNC) != 0 && !is_new) {
            record((struct record){.kind = KIND_TRUNCATE, .object = inode_of(fd)}, NULL, NULL);
        }
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

static mode_t mode_of(int flags, va_list args) {
    return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;
}

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...) {                                                   \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        mode_t mode = mode_of(flags, args);                                                        \
        va_end(args);                                                                              \
        return opened(AT_FDCWD, path, flags, mode);                                                \
    }
#define OPENAT(name)                                                                               \
    int name(int at, const char *path, int flags, ...) {                                           \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        mode_t mode = mode_of(flags, args);                                                        \
        va_end(args);                                                                              \
        return opened(at, path, flags, mode);                                                      \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

/* What fortified callers use when there is no mode. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __open_2(const char *path, int flags) {
    return opened(AT_FDCWD, path, flags, 0);
}
int __open64_2(const char *path, int flags) {
    return opened(AT_FDCWD, path, flags, 0);
}
int creat(const char *path, mode_t mode) {
    return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

/* ---- bytes ---- */

static size_t gather_len(const struct iovec *v, int count) {
    size_t len = 0;
    for (int i = 0; i < count; i++) len += v[i].iov_len;
    return len;
}

/* Records n bytes out of (or into) a vector, which is flattened first when it has parts. */
static void record_bytes(struct record r, const struct iovec *v, int count, size_t n) {
    r.data_len = n;
    if (count == 1 || n <= v[0].iov_len) {
        record(r, NULL, v[0].iov_base);
        return;
    }
    size_t done = 0;
    char *all = malloc(gather_len(v, count));
    if (all == NULL) die("no memory");
    for (int i = 0; i < count; i++) {
        memcpy(all + done, v[i].iov_base, v[i].iov_len);
        done += v[i].iov_len;
    }
    record(r, NULL, all);
    free(all);
}

/* A write has been done: n is its result, at its offset, -1 for the file's own position. */
static void written(int fd, const struct iovec *v, int count, ssize_t n, off_t at) {
    uint64_t socket = n > 0 ? socket_of(fd) : 0;
    if (socket != 0) {
        record_bytes((struct record){.kind = KIND_SEND, .object = socket}, v, count, (size_t)n);
    } else if (n > 0 && ours(fd)) {
        int saved = errno;
        if (at < 0) at = lseek(fd, 0, SEEK_CUR) - n;
        bool through = (fcntl(fd, F_GETFL) & (O_DSYNC | O_SYNC)) != 0;
        errno = saved;
        record_bytes(
            (struct record){
                .kind = KIND_WRITE, .object = inode_of(fd), .at = (uint64_t)at, .through = through},
            v, count, (size_t)n);
    }
}

ssize_t write(int fd, const void *bytes, size_t len) {
    REAL(write);
    if (!recorded(fd)) return real(fd, bytes, len);
    pthread_mutex_lock(&lock);
    ssize_t n = real(fd, bytes, len);
    written(fd, &(struct iovec){.iov_base = (void *)bytes, .iov_len = len}, 1, n, -1);
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t writev(int fd, const struct iovec *v, int count) {
    REAL(writev);
    if (!recorded(fd)) return real(fd, v, count);
    pthread_mutex_lock(&lock);
    ssize_t n = real(fd, v, count);
    written(fd, v, count, n, -1);
    pthread_mutex_unlock(&lock);
    return n;
}

#define PWRITE(name, offset)                                                                       \
    ssize_t name(int fd, const void *bytes, size_t len, offset at) {                               \
        REAL(name);                                                                                \
        if (!recorded(fd)) return real(fd, bytes, len, at);                                        \
        pthread_mutex_lock(&lock);                                                                 \
        ssize_t n = real(fd, bytes, len, at);                                                      \
        written(fd, &(struct iovec){.iov_base = (void *)bytes, .iov_len = len}, 1, n, at);         \
        pthread_mutex_unlock(&lock);                                                               \
        return n;                                                                                  \
    }
#define PWRITEV(name, offset)                                                                      \
    ssize_t name(int fd, const struct iovec *v, int count, offset at) {                            \
        REAL(name);                                                                                \
        if (!recorded(fd)) return real(fd, v, count, at);                                          \
        pthread_mutex_lock(&lock);                                                                 \
        ssize_t n = real(fd, v, count, at);                                                        \
        written(fd, v, count, n, at);                                                              \
        pthread_mutex_unlock(&lock);                                                               \
        return n;                                                                                  \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

ssize_t send(int fd, const void *bytes, size_t len, int flags) {
    REAL(send);
    pthread_mutex_lock(&lock);
    ssize_t n = real(fd, bytes, len, flags);
    written(fd, &(struct iovec){.iov_base = (void *)bytes, .iov_len = len}, 1, n, -1);
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t sendto(int fd, const void *bytes, size_t len, int flags, const struct sockaddr *to,
               socklen_t to_len) {
    REAL(sendto);
    pthread_mutex_lock(&lock);
    ssize_t n = real(fd, bytes, len, flags, to, to_len);
    written(fd, &(struct iovec){.iov_base = (void *)bytes, .iov_len = len}, 1, n, -1);
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags) {
    REAL(sendmsg);
    pthread_mutex_lock(&lock);
    ssize_t n = real(fd, m, flags);
    written(fd, m->msg_iov, (int)m->msg_iovlen, n, -1);
    pthread_mutex_unlock(&lock);
    return n;
}

/* Reads may block, so the lock is for the record only. */
static ssize_t received(int fd, const struct iovec *v, int count, ssize_t n) {
    uint64_t socket = n > 0 ? socket_of(fd) : 0;
    if (socket == 0) return n;
    pthread_mutex_lock(&lock);
    record_bytes((struct record){.kind = KIND_RECEIVE, .object = socket}, v, count, (size_t)n);
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t read(int fd, void *bytes, size_t len) {
    REAL(read);
    ssize_t n = real(fd, bytes, len);
    return received(fd, &(struct iovec){.iov_base = bytes, .iov_len = len}, 1, n);
}

ssize_t readv(int fd, const struct iovec *v, int count) {
    REAL(readv);
    return received(fd, v, count, real(fd, v, count));
}

ssize_t recv(int fd, void *bytes, size_t len, int flags) {
    REAL(recv);
    ssize_t n = real(fd, bytes, len, flags);
    if ((flags & MSG_PEEK) != 0) return n;
    return received(fd, &(struct iovec){.iov_base = bytes, .iov_len = len}, 1, n);
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags) {
    REAL(recvmsg);
    return received(fd, m->msg_iov, (int)m->msg_iovlen, real(fd, m, flags));
}

/* ---- syncs and sizes ---- */

static int synced(int fd, int rc) {
    if (rc == 0 && ours(fd)) {
        record((struct record){.kind = KIND_SYNC, .object = inode_of(fd)}, NULL, NULL);
    }
    return rc;
}

static int resized(int fd, int rc, off_t size) {
    if (rc == 0 && ours(fd)) {
        record((struct record){.kind = KIND_TRUNCATE, .object = inode_of(fd), .at = (uint64_t)size},
               NULL, NULL);
    }
    return rc;
}

/* A call on a file or a name, done and then recorded by `then`, which may use rc. */
#define RECORDED(name, parameters, arguments, then)                                                \
    int name parameters {                                                                          \
        REAL(name);                                                                                \
        if (log_fd < 0) return real arguments;                                                     \
        pthread_mutex_lock(&lock);                                                                 \
        int rc = real arguments;                                                                   \
        then;                                                                                      \
        pthread_mutex_unlock(&lock);                                                               \
        return rc;                                                                                 \
    }

RECORDED(fsync, (int fd), (fd), synced(fd, rc))
RECORDED(fdatasync, (int fd), (fd), synced(fd, rc))
RECORDED(ftruncate, (int fd, off_t size), (fd, size), resized(fd, rc, size))
RECORDED(ftruncate64, (int fd, off64_t size), (fd, size), resized(fd, rc, size))

/* ---- names ---- */

static void made_directory(int at, const char *path, int rc) {
    struct place p = place_of(at, path);
    if (rc != 0 || !p.ours) return;
    record(
        (struct record){.kind = KIND_MKDIR, .directory = p.directory, .object = inode_at(at, path)},
        p.name, NULL);
}

static void unlinked(int at, const char *path, int rc) {
    struct place p = place_of(at, path);
    if (rc != 0 || !p.ours) return;
    record((struct record){.kind = KIND_UNLINK, .directory = p.directory}, p.name, NULL);
}

static void renamed(int from_at, const char *from, int to_at, const char *to, int rc) {
    struct place old = place_of(from_at, from), new = place_of(to_at, to);
    if (rc != 0 || (!old.ours && !new.ours)) return;
    odd(!old.ours || !new.ours, "a rename into or out of the root");
    record((struct record){.kind = KIND_RENAME,
                           .directory = old.directory,
                           .at = new.directory,
                           .object = inode_at(to_at, to),
                           .data_len = strlen(new.name)},
           old.name, new.name);
}

RECORDED(mkdir, (const char *path, mode_t mode), (path, mode), made_directory(AT_FDCWD, path, rc))
RECORDED(mkdirat, (int at, const char *path, mode_t mode), (at, path, mode),
         made_directory(at, path, rc))
RECORDED(unlink, (const char *path), (path), unlinked(AT_FDCWD, path, rc))
RECORDED(rmdir, (const char *path), (path), unlinked(AT_FDCWD, path, rc))
RECORDED(unlinkat, (int at, const char *path, int flags), (at, path, flags), unlinked(at, path, rc))
RECORDED(rename, (const char *from, const char *to), (from, to),
         renamed(AT_FDCWD, from, AT_FDCWD, to, rc))
RECORDED(renameat, (int from_at, const char *from, int to_at, const char *to),
         (from_at, from, to_at, to), renamed(from_at, from, to_at, to, rc))

/* ---- what there is no model for ---- */

RECORDED(renameat2, (int from_at, const char *from, int to_at, const char *to, unsigned int flags),
         (from_at, from, to_at, to, flags), odd(place_of(to_at, to).ours, "renameat2"))
RECORDED(link, (const char *from, const char *to), (from, to),
         odd(place_of(AT_FDCWD, to).ours, "link"))
RECORDED(linkat, (int from_at, const char *from, int to_at, const char *to, int flags),
         (from_at, from, to_at, to, flags), odd(place_of(to_at, to).ours, "linkat"))
RECORDED(symlink, (const char *target, const char *path), (target, path),
         odd(place_of(AT_FDCWD, path).ours, "symlink"))
RECORDED(truncate, (const char *path, off_t size), (path, size),
         odd(place_of(AT_FDCWD, path).ours, "truncate"))
RECORDED(fallocate, (int fd, int mode, off_t at, off_t len), (fd, mode, at, len),
         odd(ours(fd), "fallocate"))
RECORDED(posix_fallocate, (int fd, off_t at, off_t len), (fd, at, len),
         odd(ours(fd), "posix_fallocate"))
RECORDED(sync_file_range, (int fd, off64_t at, off64_t len, unsigned int flags),
         (fd, at, len, flags), odd(ours(fd), "sync_file_range"))
RECORDED(syncfs, (int fd), (fd), odd(ours(fd), "syncfs"))
RECORDED(msync, (void *memory, size_t len, int flags), (memory, len, flags), odd(true, "msync"))

/* Stores through a shared map are not seen by anyone: the checker says for which file they may be.
 */
#define MMAP(name, offset)                                                                         \
    void *name(void *wanted, size_t len, int protection, int flags, int fd, offset at) {           \
        REAL(name);                                                                                \
        void *memory = real(wanted, len, protection, flags, fd, at);                               \
        bool writes = (protection & PROT_WRITE) != 0 && (flags & MAP_SHARED) != 0;                 \
        if (log_fd >= 0 && memory != MAP_FAILED && writes && ours(fd)) {                           \
            pthread_mutex_lock(&lock);                                                             \
            record((struct record){.kind = KIND_SHARED, .object = inode_of(fd)}, NULL, NULL);      \
            pthread_mutex_unlock(&lock);                                                           \
        }                                                                                          \
        return memory;                                                                             \
    }
MMAP(mmap, off_t)
MMAP(mmap64, off64_t)
