/* value.h: numbers, durations, sizes and times as people type them.
 *
 * Pure but for value_time, which reads the wall clock for "2h ago" and complaints on stderr. Each
 * function takes the name of the option for its complaint and returns 0 or CLI_USAGE.
 *
 * May call: cli, base, proto/limits.h. */
#ifndef CLI_VALUE_H
#define CLI_VALUE_H

#include <stdint.h>

#include "base/rfc3339.h"
#include "clients/cli/cli.h"
#include "proto/limits.h"

int value_u64(const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out);
/* 500ms, 30s, 5m, 2h, 7d, or 0; a fraction is allowed: 1.5s. */
int value_duration_ms(const char *option, const char *text, uint64_t *out_ms);
/* 4096, 64k, 100m, 10g, 2t (times 1024 each); a fraction is allowed: 1.5g. */
int value_bytes(const char *option, const char *text, uint64_t *out_bytes);
/* A number with or without a fraction, from min to max. */
int value_fraction(const char *option, const char *text, double min, double max, double *out);
/* An RFC 3339 time, or a duration that means "so long ago"; written as RFC 3339 in UTC. */
int value_time(const char *option, const char *text, char out[RFC3339_SIZE]);

/* The pauses after fails: MIN..MAX with xFACTOR or without, MIN,MAX,FACTOR, or a list of them. */
struct value_backoff {
    size_t steps; /* of the list; 0: min, max and factor say it */
    uint64_t list_ms[LIMIT_BACKOFF_STEPS];
    uint64_t min_ms, max_ms;
    double factor; /* 0: not said */
};
int value_backoff(const char *option, const char *text, struct value_backoff *out);
/* A name of a source or subscription, so that a typing error never becomes a path. */
int value_name(const char *what, const char *text);

#endif
