#include "clients/cli/value.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

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

struct unit {
    const char *name;
    double size;
};

/* A number and one of the units; at most 1e14, which doubles hold exactly. */
static bool parse_units(const char *text, const struct unit *units, size_t count, uint64_t *out) {
    double number;
    const char *name;
    if (!parse_number(text, &number, &name)) return false;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(name, units[i].name) != 0) continue;
        number *= units[i].size;
        if (number > 1e14) return false;
        *out = (uint64_t)(number + 0.5);
        return true;
    }
    return false;
}

static bool parse_duration(const char *text, uint64_t *out_ms) {
    static const struct unit units[] = {
        {"ms", 1}, {"s", 1e3}, {"m", 60e3}, {"h", 3600e3}, {"d", 86400e3}};
    if (strcmp(text, "0") == 0) {
        *out_ms = 0;
        return true;
    }
    return parse_units(text, units, sizeof(units) / sizeof(units[0]), out_ms);
}

int value_duration_ms(const char *option, const char *text, uint64_t *out_ms) {
    if (parse_duration(text, out_ms)) return 0;
    cli_complain("%s: '%s' is not a duration such as 500ms, 30s, 5m, 2h or 7d", option, text);
    return CLI_USAGE;
}

int value_bytes(const char *option, const char *text, uint64_t *out_bytes) {
    static const struct unit units[] = {{"", 1},
                                        {"k", 1024},
                                        {"K", 1024},
                                        {"m", 1048576},
                                        {"M", 1048576},
                                        {"g", 1073741824},
                                        {"G", 1073741824},
                                        {"t", 1099511627776.0},
                                        {"T", 1099511627776.0}};
    if (parse_units(text, units, sizeof(units) / sizeof(units[0]), out_bytes)) return 0;
    cli_complain("%s: '%s' is not a size such as 4096, 64k, 100m or 10g", option, text);
    return CLI_USAGE;
}

int value_fraction(const char *option, const char *text, double min, double max, double *out) {
    const char *rest;
    if (parse_number(text, out, &rest) && *rest == '\0' && *out >= min && *out <= max) return 0;
    cli_complain("%s: '%s' is not a number from %g to %g", option, text, min, max);
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

/* MIN..MAX or MIN..MAXxFACTOR. */
static bool parse_range(const char *text, struct value_backoff *out) {
    char min[32], max[32];
    const char *dots = strstr(text, ".."), *rest;
    const char *times = dots != NULL ? strchr(dots, 'x') : NULL;
    if (dots == NULL) return false;
    size_t max_len = times != NULL ? (size_t)(times - dots - 2) : strlen(dots + 2);
    if (!slice_to_cstr(slice_of(text, (size_t)(dots - text)), min, sizeof(min)) ||
        !slice_to_cstr(slice_of(dots + 2, max_len), max, sizeof(max)) ||
        !parse_duration(min, &out->min_ms) || !parse_duration(max, &out->max_ms)) {
        return false;
    }
    if (times != NULL &&
        (!parse_number(times + 1, &out->factor, &rest) || *rest != '\0' || out->factor < 1)) {
        return false;
    }
    return out->min_ms <= out->max_ms;
}

/* The last part of three is a number without a unit: then it is MIN,MAX,FACTOR. */
static bool parse_steps(const char *text, struct value_backoff *out) {
    while (out->steps < LIMIT_BACKOFF_STEPS) {
        char step[32];
        const char *comma = strchr(text, ','), *rest;
        size_t len = comma != NULL ? (size_t)(comma - text) : strlen(text);
        if (!slice_to_cstr(slice_of(text, len), step, sizeof(step))) return false;
        if (out->steps == 2 && comma == NULL && parse_number(step, &out->factor, &rest) &&
            *rest == '\0') {
            out->min_ms = out->list_ms[0];
            out->max_ms = out->list_ms[1];
            out->steps = 0;
            return out->factor >= 1 && out->min_ms <= out->max_ms;
        }
        if (!parse_duration(step, &out->list_ms[out->steps++])) return false;
        if (comma == NULL) return true;
        text = comma + 1;
    }
    return false;
}

int value_backoff(const char *option, const char *text, struct value_backoff *out) {
    *out = (struct value_backoff){0};
    if (strstr(text, "..") != NULL ? parse_range(text, out) : parse_steps(text, out)) return 0;
    cli_complain(
        "%s: '%s' is neither MIN..MAX such as 1s..10m or 1s..10mx2 (MIN at most MAX, FACTOR at "
        "least 1) nor a list of up to %d durations such as 1s,5s,1m",
        option, text, LIMIT_BACKOFF_STEPS);
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
