#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/rfc3339.h"

#define LOG_LINE_MAX 1024

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static enum log_level level_now = LOG_INFO;

void log_set_level(enum log_level level) {
    level_now = level;
}

int log_level_from_name(const char *name) {
    for (int i = 0; i <= LOG_DEBUG; i++) {
        if (strcmp(name, level_names[i]) == 0) return i;
    }
    return -1;
}

void log_write(enum log_level level, const char *fmt, ...) {
    if (level > level_now) return;
    char text[LOG_LINE_MAX], when[RFC3339_SIZE];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    for (char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20) *c = ' ';
        if (*c == '"') *c = '\'';
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    rfc3339_format((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000, when);
    fprintf(stderr, "time=%s level=%s msg=\"%s\"\n", when, level_names[level], text);
}
