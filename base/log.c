#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/rfc3339.h"
#include "base/utf8.h"

#define TEXT_BYTES  1024        /* of a line made with log_write */
#define VALUE_BYTES 512         /* shown of a field, escapes included */
#define WAIT_BYTES  (64 * 1024) /* of lines that wait to be written */
#define LINE_BYTES                                                                                 \
    (16 * 1024) /* the text with every byte an escape of six, and ten such fields                  \
                 */
#define STDERR STDERR_FILENO

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char *const format_names[] = {"logfmt", "json"};

static struct {
    enum log_level level;
    enum log_format format;
    struct buf line, waiting;
    uint64_t dropped; /* lines that nobody has been told of */
    uint64_t telling; /* of them, told in a line that waits */
    uint64_t stamped_s;
    char stamp[RFC3339_SIZE]; /* of that second */
} logger = {.level = LOG_INFO, .line = {.max = LINE_BYTES}, .waiting = {.max = WAIT_BYTES}};

void log_set_level(enum log_level level) {
    logger.level = level;
}

void log_set_format(enum log_format format) {
    logger.format = format;
}

static int index_of(const char *const *names, int count, const char *name) {
    for (int i = 0; i < count; i++) {
        if (strcmp(name, names[i]) == 0) return i;
    }
    return -1;
}

int log_level_from_name(const char *name) {
    return index_of(level_names, 4, name);
}

int log_format_from_name(const char *name) {
    return index_of(format_names, 2, name);
}

/* ---- values ---- */

/* Printable ASCII that means nothing within quotes, and what of it logfmt needs no quotes for. */
enum { QUOTED = 1, BARE = 2 };
static const uint8_t plain[256] = {
    [' '] = QUOTED, ['!'] = QUOTED | BARE,         ['#' ... '<'] = QUOTED | BARE,
    ['='] = QUOTED, ['>' ... '['] = QUOTED | BARE, [']' ... '~'] = QUOTED | BARE,
};

static uint32_t code_point(const uint8_t *s, size_t len) {
    uint32_t c = len == 2 ? s[0] & 0x1FU : len == 3 ? s[0] & 0x0FU : s[0] & 0x07U;
    for (size_t i = 1; i < len; i++) c = c << 6 | (s[i] & 0x3FU);
    return c;
}

/* What a terminal obeys (C1 controls), what ends a line for some readers, and what changes the
 * order or the look of what stands around it. */
static bool is_hidden(uint32_t c) {
    return (c >= 0x80 && c <= 0x9F) || c == 0x061C || (c >= 0x200B && c <= 0x200F) ||
           (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF;
}

/* The next character, escaped where it must be; returns its bytes. */
static size_t put_character(struct buf *b, const uint8_t *s, size_t len) {
    if (*s == '"' || *s == '\\') {
        buf_append_byte(b, '\\');
        buf_append_byte(b, *s);
        return 1;
    }
    if (*s == '\n') {
        buf_append_str(b, "\\n");
        return 1;
    }
    if (*s < 0x20 || *s == 0x7F) {
        buf_printf(b, "\\u%04x", *s);
        return 1;
    }
    size_t n = utf8_sequence(s, len);
    if (n == 0) {
        buf_append_str(b, "\xEF\xBF\xBD"); /* U+FFFD */
        return 1;
    }
    uint32_t c = code_point(s, n);
    if (is_hidden(c)) buf_printf(b, "\\u%04x", (unsigned)c);
    else buf_append(b, s, n);
    return n;
}

static void put_quoted(struct buf *b, struct slice text, size_t most) {
    size_t end = b->len + 1 + most;
    buf_append_byte(b, '"');
    for (size_t i = 0; i < text.len;) {
        if (b->len >= end) {
            buf_append_str(b, "...");
            break;
        }
        size_t run = i;
        while (run < text.len && run - i < end - b->len && plain[text.data[run]] != 0) run++;
        if (run == i) run += put_character(b, text.data + i, text.len - i);
        else buf_append(b, text.data + i, run - i);
        i = run;
    }
    buf_append_byte(b, '"');
}

/* Whether logfmt needs no quotes around it. */
static bool is_bare(struct slice text, size_t most) {
    size_t i = 0;
    while (i < text.len && (plain[text.data[i]] & BARE) != 0) i++;
    return i == text.len && i > 0 && i <= most;
}

static void put_key(struct buf *b, const char *key) {
    bool json = logger.format == LOG_JSON, first = b->len == 0;
    if (json) buf_append_str(b, first ? "{\"" : ",\"");
    else if (!first) buf_append_byte(b, ' ');
    buf_append_str(b, key);
    buf_append_str(b, json ? "\":" : "=");
}

static void put_text(struct buf *b, const char *key, struct slice text, size_t most) {
    put_key(b, key);
    if (logger.format == LOG_LOGFMT && is_bare(text, most)) buf_append_slice(b, text);
    else put_quoted(b, text, most);
}

/* ---- lines ---- */

/* Most lines of a busy broker are of the second of the line before. */
static struct slice stamp(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if ((uint64_t)now.tv_sec != logger.stamped_s) {
        rfc3339_format((uint64_t)now.tv_sec * 1000, logger.stamp);
        logger.stamped_s = (uint64_t)now.tv_sec;
    }
    size_t len = strlen(logger.stamp);
    char *millis = logger.stamp + len - sizeof "000Z" + 1;
    unsigned ms = (unsigned)(now.tv_nsec / 1000000);
    millis[0] = (char)('0' + ms / 100);
    millis[1] = (char)('0' + ms / 10 % 10);
    millis[2] = (char)('0' + ms % 10);
    return slice_of(logger.stamp, len);
}

static struct buf *line_begin(enum log_level level, struct slice msg) {
    struct buf *b = &logger.line;
    buf_clear(b);
    put_text(b, "time", stamp(), TEXT_BYTES);
    put_text(b, "level", slice_str(level_names[level]), TEXT_BYTES);
    put_text(b, "msg", msg, TEXT_BYTES);
    return b;
}

static bool line_end(struct buf *b) {
    buf_append_str(b, logger.format == LOG_JSON ? "}\n" : "\n");
    CHECK(!b->overflow);
    return buf_append_slice(&logger.waiting, buf_slice(b));
}

/* Room has come back: says first how many lines have not been written. */
static void tell_dropped(void) {
    if (logger.dropped == 0 || logger.telling > 0 || logger.waiting.len > 0) return;
    struct buf *b = line_begin(LOG_WARN, slice_str("lines of the log could not be written"));
    put_key(b, "count");
    buf_append_u64(b, logger.dropped);
    logger.telling = logger.dropped;
    bool fits = line_end(b);
    CHECK(fits); /* nothing waited */
}

static void line_finish(struct buf *b) {
    if (line_end(b)) return;
    buf_clear(b);
    logger.waiting.overflow = false;
    logger.dropped++;
}

void log_write(enum log_level level, const char *fmt, ...) {
    char text[TEXT_BYTES];
    va_list args;
    if (level > logger.level) return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    tell_dropped();
    line_finish(line_begin(level, slice_str(text)));
    log_flush();
}

void log_fields(const char *msg, const struct log_field *fields, size_t count) {
    if (LOG_INFO > logger.level) return;
    tell_dropped();
    struct buf *b = line_begin(LOG_INFO, slice_str(msg));
    for (size_t i = 0; i < count; i++) {
        if (fields[i].is_number) {
            put_key(b, fields[i].key);
            buf_append_u64(b, fields[i].number);
        } else {
            put_text(b, fields[i].key, fields[i].text, VALUE_BYTES);
        }
    }
    line_finish(b);
    if (logger.waiting.len > WAIT_BYTES / 2) log_flush();
}

/* ---- writing ---- */

/* Whole lines of at most PIPE_BUF bytes, if there are any: a pipe that can be written takes so much
 * at once, whoever else writes to it. */
static size_t piece_of(struct slice s) {
    if (s.len <= PIPE_BUF) return s.len;
    const uint8_t *end = memrchr(s.data, '\n', PIPE_BUF);
    return end == NULL ? PIPE_BUF : (size_t)(end - s.data) + 1;
}

/* As write(2) to a descriptor that does not block. stderr is shared with others, who did not ask
 * for O_NONBLOCK: so a socket is told for this call, and of a pipe or a terminal it is asked first
 * whether it takes something. */
static ssize_t write_now(mode_t kind, struct slice s) {
    struct pollfd p = {.fd = STDERR, .events = POLLOUT};
    if (S_ISSOCK(kind)) return send(STDERR, s.data, s.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (S_ISREG(kind)) return write(STDERR, s.data, s.len);
    int ready = poll(&p, 1, 0);
    if (ready == 0) errno = EAGAIN;
    if (ready != 1) return -1; /* a signal ends it too, and then nobody knows */
    return write(STDERR, s.data, piece_of(s));
}

/* Nobody will read it. */
static void drop_waiting(size_t from) {
    uint64_t lines = 0;
    for (size_t i = from; i < logger.waiting.len; i++) lines += logger.waiting.data[i] == '\n';
    logger.dropped += logger.telling > 0 ? lines - 1 : lines; /* but the line that tells of them */
    logger.telling = 0;
    buf_clear(&logger.waiting);
}

void log_flush(void) {
    struct buf *b = &logger.waiting;
    struct stat file;
    ssize_t n = 0;
    size_t at = 0;
    if (b->len == 0) return;
    mode_t kind = fstat(STDERR, &file) == 0 ? file.st_mode : 0;
    do {
        n = write_now(kind, slice_from(buf_slice(b), at));
        if (n > 0) at += (size_t)n;
    } while ((n > 0 && at < b->len) || (n < 0 && errno == EINTR));
    if (at > 0) {
        logger.dropped -= logger.telling;
        logger.telling = 0;
    }
    if (at == b->len) buf_clear(b);
    else if (errno == EAGAIN || errno == EWOULDBLOCK) buf_consume(b, at);
    else drop_waiting(at);
}
