/* log.h: one line per event on stderr, as logfmt (`time=... level=... msg=... key=value`) or as
 * JSON (RFC 8259), one object a line.
 *
 * Never a secret, a signature or a body. Texts may come from a peer: whatever they hold, they make
 * no second line, no second field and no sequence that a terminal would obey; long ones are cut.
 *
 * Writing never waits and never ends the process: what cannot be written now is kept, up to a
 * bound; then lines are dropped and counted, and a line says how many when there is room again.
 *
 * Level, format and what waits to be written are the only state of the process that is not passed
 * around. Not for the engine, which reports by effects. May call: base. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/check.h"
#include "base/slice.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_LOGFMT, LOG_JSON };

void log_set_level(enum log_level level);
void log_set_format(enum log_format format);
/* The level named "error", "warn", "info" or "debug", or -1. */
int log_level_from_name(const char *name);
/* The format named "logfmt" or "json", or -1. */
int log_format_from_name(const char *name);

/* Writes a line when `level` is enabled. */
void log_write(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

struct log_field {
    const char *key; /* ours: a-z and _ */
    bool is_number;
    uint64_t number;
    struct slice text;
};

/* A line with fields, at LOG_INFO; it is written with the next log_flush or log_write, so that many
 * of them cost one system call. */
void log_fields(const char *msg, const struct log_field *fields, size_t count);
/* Writes what waits; at the end of each turn. */
void log_flush(void);

#endif
