/* log.h: one line per event on stderr, in logfmt: `time=... level=... msg="..."`.
 *
 * Never a secret, a signature or a body. The level is the only state of the process that is not
 * passed around; it is set once in main. Not for the engine, which reports by effects. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/check.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level);
/* The level named "error", "warn", "info" or "debug", or -1. */
int log_level_from_name(const char *name);
/* Writes a line when `level` is enabled. The text is quoted; line ends in it are escaped. */
void log_write(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

#endif
