/* Retry-After: seconds, or one of the three dates of HTTP (RFC 9110 sections 5.6.7 and 10.2.3). */
#include <time.h>

#include "broker/http/client.h"

static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

/* A date in its parts; `rest` is what was not read yet, and a part that is not there ends it. */
struct date_reader {
    struct slice rest;
    bool ok;
};

static void expect(struct date_reader *r, const char *text) {
    r->ok = r->ok && slice_starts_with(r->rest, text);
    if (r->ok) r->rest = slice_from(r->rest, strlen(text));
}

static unsigned number(struct date_reader *r, size_t digits) {
    uint64_t value = 0;
    r->ok = r->ok && r->rest.len >= digits && slice_to_u64(slice_of(r->rest.data, digits), &value);
    if (r->ok) r->rest = slice_from(r->rest, digits);
    return (unsigned)value;
}

static unsigned month(struct date_reader *r) {
    for (unsigned i = 0; r->ok && i < 12; i++) {
        if (!slice_starts_with(r->rest, months[i])) continue;
        r->rest = slice_from(r->rest, 3);
        return i + 1;
    }
    r->ok = false;
    return 0;
}

/* The name of a day, short or long: which one is not looked at, the date says it. */
static void day_name(struct date_reader *r) {
    size_t len = 0;
    while (len < r->rest.len && (r->rest.data[len] | 0x20) >= 'a' &&
           (r->rest.data[len] | 0x20) <= 'z') {
        len++;
    }
    r->ok = r->ok && len >= 3;
    if (r->ok) r->rest = slice_from(r->rest, len);
}

static void time_of_day(struct date_reader *r, struct tm *t) {
    t->tm_hour = (int)number(r, 2);
    expect(r, ":");
    t->tm_min = (int)number(r, 2);
    expect(r, ":");
    t->tm_sec = (int)number(r, 2);
}

/* "06 Nov 1994 08:49:37 GMT", or with '-' and two digits of the year. */
static void after_comma(struct date_reader *r, struct tm *t, uint64_t wall_ms) {
    expect(r, " ");
    t->tm_mday = (int)number(r, 2);
    bool dashes = r->ok && slice_starts_with(r->rest, "-");
    expect(r, dashes ? "-" : " ");
    t->tm_mon = (int)month(r) - 1;
    expect(r, dashes ? "-" : " ");
    t->tm_year = (int)number(r, dashes ? 2 : 4) - (dashes ? 0 : 1900);
    if (dashes) {
        /* The year that is at most 50 years ahead (RFC 9110 section 5.6.7). */
        struct tm now;
        time_t seconds = (time_t)(wall_ms / 1000);
        CHECK(gmtime_r(&seconds, &now) != NULL);
        t->tm_year += now.tm_year / 100 * 100;
        if (t->tm_year > now.tm_year + 50) t->tm_year -= 100;
        else if (t->tm_year <= now.tm_year - 50) t->tm_year += 100;
    }
    expect(r, " ");
    time_of_day(r, t);
    expect(r, " GMT");
}

/* " Nov  6 08:49:37 1994" */
static void as_asctime(struct date_reader *r, struct tm *t) {
    expect(r, " ");
    t->tm_mon = (int)month(r) - 1;
    expect(r, " ");
    if (r->ok && slice_starts_with(r->rest, " ")) {
        expect(r, " ");
        t->tm_mday = (int)number(r, 1);
    } else {
        t->tm_mday = (int)number(r, 2);
    }
    expect(r, " ");
    time_of_day(r, t);
    expect(r, " ");
    t->tm_year = (int)number(r, 4) - 1900;
}

uint64_t http_retry_after_ms(struct slice value, uint64_t wall_ms) {
    uint64_t seconds;
    size_t digits = 0;
    while (digits < value.len && value.data[digits] >= '0' && value.data[digits] <= '9') digits++;
    if (digits > 0 && digits == value.len) {
        /* More than fits is as long as can be said. */
        if (!slice_to_u64(value, &seconds) || seconds >= UINT64_MAX / 1000) return UINT64_MAX - 1;
        return seconds * 1000;
    }
    struct date_reader r = {.rest = value, .ok = true};
    struct tm t = {0};
    day_name(&r);
    if (r.ok && slice_starts_with(r.rest, ",")) {
        expect(&r, ",");
        after_comma(&r, &t, wall_ms);
    } else {
        as_asctime(&r, &t);
    }
    if (!r.ok || r.rest.len != 0) return UINT64_MAX;
    if (t.tm_mday < 1 || t.tm_mday > 31 || t.tm_hour > 23 || t.tm_min > 59 || t.tm_sec > 60) {
        return UINT64_MAX;
    }
    time_t at = timegm(&t);
    if (at < 0 || (uint64_t)at * 1000 <= wall_ms) return 0;
    return (uint64_t)at * 1000 - wall_ms;
}
