#include "base/rfc3339.h"

#include <stdio.h>

/* Days since 1970-01-01 of a proleptic Gregorian date, and back: Howard Hinnant, "chrono-compatible
 * low-level date algorithms", days_from_civil and civil_from_days. */
static int64_t days_from_civil(int64_t y, int64_t m, int64_t d) {
    y -= m <= 2;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t yoe = y - era * 400;
    int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
    int64_t doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + doe - 719468;
}

void rfc3339_format(uint64_t wall_ms, char out[RFC3339_SIZE]) {
    int64_t days = (int64_t)(wall_ms / 86400000) + 719468;
    uint64_t ms = wall_ms % 86400000;
    int64_t era = days / 146097;
    int64_t doe = days - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    int64_t d = doy - (153 * mp + 2) / 5 + 1;
    int64_t m = mp < 10 ? mp + 3 : mp - 9;
    int64_t y = yoe + era * 400 + (m <= 2);
    if (y > 9999) y = 9999;
    /* The remainders change nothing; they show the compiler that the text fits. */
    snprintf(out, RFC3339_SIZE, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", (unsigned)y % 10000u,
             (unsigned)m % 100u, (unsigned)d % 100u, (unsigned)(ms / 3600000) % 100u,
             (unsigned)(ms / 60000 % 60), (unsigned)(ms / 1000 % 60), (unsigned)(ms % 1000));
}

/* Reads exactly n digits at *at; false when there are fewer. */
static bool digits(struct slice s, size_t *at, int n, int64_t *out) {
    int64_t value = 0;
    if (s.len - *at < (size_t)n) return false;
    for (int i = 0; i < n; i++) {
        uint8_t c = s.data[*at + (size_t)i];
        if (c < '0' || c > '9') return false;
        value = value * 10 + (c - '0');
    }
    *at += (size_t)n;
    *out = value;
    return true;
}

static bool one(struct slice s, size_t *at, const char *any) {
    if (*at >= s.len || strchr(any, s.data[*at]) == NULL || s.data[*at] == '\0') return false;
    (*at)++;
    return true;
}

static int64_t month_days(int64_t y, int64_t m) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    return m == 2 && leap ? 29 : days[m - 1];
}

bool rfc3339_parse(struct slice s, uint64_t *wall_ms) {
    int64_t y, mo, d, h, mi, sec, ms = 0, off_h = 0, off_m = 0;
    size_t at = 0;
    if (!digits(s, &at, 4, &y) || !one(s, &at, "-") || !digits(s, &at, 2, &mo) ||
        !one(s, &at, "-") || !digits(s, &at, 2, &d) || !one(s, &at, "Tt ") ||
        !digits(s, &at, 2, &h) || !one(s, &at, ":") || !digits(s, &at, 2, &mi) ||
        !one(s, &at, ":") || !digits(s, &at, 2, &sec)) {
        return false;
    }
    if (mo < 1 || mo > 12 || d < 1 || d > month_days(y, mo) || h > 23 || mi > 59 || sec > 59) {
        return false;
    }
    if (one(s, &at, ".")) {
        int64_t digit, scale = 100;
        size_t first = at;
        while (digits(s, &at, 1, &digit)) {
            ms += digit * scale;
            scale /= 10;
        }
        if (at == first) return false;
    }
    if (!one(s, &at, "Zz")) {
        if (at >= s.len) return false;
        int64_t sign = s.data[at] == '-' ? -1 : 1;
        if (!one(s, &at, "+-") || !digits(s, &at, 2, &off_h) || !one(s, &at, ":") ||
            !digits(s, &at, 2, &off_m) || off_h > 23 || off_m > 59) {
            return false;
        }
        off_h *= sign;
        off_m *= sign;
    }
    if (at != s.len) return false;
    int64_t seconds = days_from_civil(y, mo, d) * 86400 + h * 3600 + mi * 60 + sec;
    seconds -= off_h * 3600 + off_m * 60;
    if (seconds < 0) return false;
    *wall_ms = (uint64_t)seconds * 1000 + (uint64_t)ms;
    return true;
}
