/* value.h: numbers, durations and times as people type them.
 *
 * Pure but for value_time, which reads the wall clock for "2h ago" and complaints on stderr. Each
 * function takes the name of the option for its complaint and returns 0 or CLI_USAGE.
 *
 * May call: cli, base. */
#ifndef CLI_VALUE_H
#define CLI_VALUE_H

#include <stdint.h>

#include "base/rfc3339.h"
#include "clients/cli/cli.h"

int value_u64(const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out);
/* 500ms, 30s, 5m, 2h, 7d; a fraction is allowed: 1.5s. */
int value_duration_ms(const char *option, const char *text, uint64_t *out_ms);
/* An RFC 3339 time, or a duration that means "so long ago"; written as RFC 3339 in UTC. */
int value_time(const char *option, const char *text, char out[RFC3339_SIZE]);
/* MIN,MAX,FACTOR such as 1s,10m,2. */
int value_backoff(const char *option, const char *text, uint64_t *min_ms, uint64_t *max_ms,
                  double *factor);
/* A name of a source or subscription, so that a typing error never becomes a path. */
int value_name(const char *what, const char *text);

#endif
