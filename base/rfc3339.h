/* rfc3339.h: wall times as text (RFC 3339), in milliseconds since 1970-01-01T00:00:00Z.
 *
 * Pure: nobody's clock is read here. */
#ifndef BASE_RFC3339_H
#define BASE_RFC3339_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

#define RFC3339_SIZE 32 /* "2026-11-21T02:48:13.123Z" and its terminator, rounded up */

/* Writes UTC with milliseconds. */
void rfc3339_format(uint64_t wall_ms, char out[RFC3339_SIZE]);
/* Parses a date-time with `Z` or a numeric offset and any number of fraction digits (finer than
 * milliseconds is cut off). Dates before 1970 and leap seconds (:60) are refused. False leaves
 * *wall_ms alone. */
bool rfc3339_parse(struct slice text, uint64_t *wall_ms);

#endif
