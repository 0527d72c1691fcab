#include "clients/cli/value.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proto/limits.h"

int value_u64(const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out) {
    uint64_t value;
    if (!slice_to_u64(slice_str(text), &value) || value < min || value > max) {
        if (max == UINT64_MAX) {
            cli_complain("%s: '%s' is not a whole number from %llu", option, text,
                         (unsigned long long)min);
        } else {
            cli_complain("%s: '%s' is not a whole number from %llu to %llu", option, text,
                         (unsigned long long)min, (unsigned long long)max);
        }
        return CLI_USAGE;
    }
    *out = value;
    return 0;
}

/* Digits with at most one point in between, then `unit`; strtod alone would take "inf" and "0x1".
 */
static bool parse_number(const char *text, double *out, const char **unit) {
    size_t digits = strspn(text, "0123456789");
    size_t len = digits;
    if (digits == 0) return false;
    if (text[len] == '.') {
        size_t fraction = strspn(text + len + 1, "0123456789");
        if (fraction == 0) return false;
        len += 1 + fraction;
    }
    char number[32];
    if (!slice_to_cstr(slice_of(text, len), number, sizeof(number))) return false;
    *out = strtod(number, NULL);
    *unit = text + len;
    return true;
}

static bool parse_duration(const char *text, uint64_t *out_ms) {
    static const struct {
        const char *name;
        double ms;
    } units[] = {{"ms", 1}, {"s", 1e3}, {"m", 60e3}, {"h", 3600e3}, {"d", 86400e3}};
    double number;
    const char *unit;
    if (!parse_number(text, &number, &unit)) return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(unit, units[i].name) != 0) continue;
        double ms = number * units[i].ms;
        if (ms > 1e14) return false; /* about 3000 years */
        *out_ms = (uint64_t)(ms + 0.5);
        return true;
    }
    return false;
}

int value_duration_ms(const char *option, const char *text, uint64_t *out_ms) {
    if (parse_duration(text, out_ms)) return 0;
    cli_complain("%s: '%s' is not a duration such as 500ms, 30s, 5m, 2h or 7d", option, text);
    return CLI_USAGE;
}

int value_time(const char *option, const char *text, char out[RFC3339_SIZE]) {
    uint64_t wall_ms, ago_ms;
    if (!rfc3339_parse(slice_str(text), &wall_ms)) {
        if (!parse_duration(text, &ago_ms)) {
            cli_complain(
                "%s: '%s' is neither a time such as 2026-11-21T09:00:00Z nor a duration "
                "such as 2h (so long ago)",
                option, text);
            return CLI_USAGE;
        }
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        wall_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
        wall_ms = wall_ms > ago_ms ? wall_ms - ago_ms : 0;
    }
    rfc3339_format(wall_ms, out);
    return 0;
}

int value_backoff(const char *option, const char *text, uint64_t *min_ms, uint64_t *max_ms,
                  double *factor) {
    const char *comma = strchr(text, ',');
    const char *second = comma != NULL ? strchr(comma + 1, ',') : NULL;
    char min_text[32], max_text[32];
    const char *unit;
    if (second != NULL &&
        slice_to_cstr(slice_of(text, (size_t)(comma - text)), min_text, sizeof(min_text)) &&
        slice_to_cstr(slice_of(comma + 1, (size_t)(second - comma - 1)), max_text,
                      sizeof(max_text)) &&
        parse_duration(min_text, min_ms) && parse_duration(max_text, max_ms) &&
        parse_number(second + 1, factor, &unit) && *unit == '\0' && *factor >= 1 &&
        *min_ms <= *max_ms) {
        return 0;
    }
    cli_complain(
        "%s: '%s' is not MIN,MAX,FACTOR such as 1s,10m,2 (MIN at most MAX, FACTOR at "
        "least 1)",
        option, text);
    return CLI_USAGE;
}

int value_name(const char *what, const char *text) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    size_t len = strlen(text);
    if (len >= 1 && len <= LIMIT_NAME_BYTES && strchr(letters, text[0]) != NULL) {
        size_t run = 0;
        while (text[run] != '\0' &&
               (strchr(letters, text[run]) != NULL || strchr("._-", text[run]) != NULL)) {
            run++;
        }
        if (run == len) return 0;
    }
    cli_complain(
        "'%s' is no name of a %s: 1 to 64 of A-Z a-z 0-9 . _ - with a letter or digit "
        "first",
        text, what);
    return CLI_USAGE;
}
