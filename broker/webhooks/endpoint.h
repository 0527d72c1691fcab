/* endpoint.h: how much one endpoint gets at a time, and when a dead one is asked again. PURE.
 *
 * An endpoint is registered (one webhook) or dynamic (all URIs of one origin). It starts with a
 * small window, which a success widens and a failure narrows, so that an endpoint that is slow or
 * dead never holds more than a few connections. After ENDPOINT_FAILURES failures in a row, or when
 * it asks for time, its breaker opens: nothing is sent until the next probe, which is one event;
 * the time between probes doubles. What waits meanwhile waits on disk.
 *
 *   CLOSED --failures, Retry-After--> OPEN --its time--> PROBING --success--> CLOSED
 *                                      ^-----failure--------'
 *
 * Plain memory of its owner; time is passed in (monotonic ms). May call: base. */
#ifndef WEBHOOKS_ENDPOINT_H
#define WEBHOOKS_ENDPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "broker/webhooks/webhooks.h"

#define ENDPOINT_WINDOW_FIRST 2
#define ENDPOINT_FAILURES     5 /* in a row open the breaker */

struct endpoint {
    uint32_t window, window_max;
    uint32_t in_flight;
    enum breaker_state breaker;
    uint32_t failures_in_a_row;
    uint64_t probe_first_ms, probe_max_ms; /* between probes: doubles from first to max */
    uint64_t probe_wait_ms;                /* after the next failure of a probe */
    uint64_t probe_at_ms;                  /* OPEN: monotonic */
    uint64_t latency_ms;                   /* smoothed, of successes */
    /* For people; wall times, 0: none. */
    uint64_t delivered_total, failed_total, internal_total;
    uint64_t last_success_ms, last_failure_ms, failing_since_ms;
};

void endpoint_init(struct endpoint *e, uint32_t window_max, uint64_t probe_first_ms,
                   uint64_t probe_max_ms);
/* As new, but for its totals: it was changed, or enabled again. */
void endpoint_reset(struct endpoint *e);
/* How many events it may have under way now. */
uint32_t endpoint_window(const struct endpoint *e);
/* OPEN and its time has come: PROBING. True: its window has changed. */
bool endpoint_tick(struct endpoint *e, uint64_t now_ms);

void endpoint_began(struct endpoint *e);
void endpoint_succeeded(struct endpoint *e, uint64_t duration_ms, uint64_t wall_ms);
/* `pause_ms`: it asked for so much time; 0: it did not. */
void endpoint_failed(struct endpoint *e, uint64_t pause_ms, uint64_t now_ms, uint64_t wall_ms);
/* It ended and says nothing about the endpoint: our own fault, or cut short. */
void endpoint_ended(struct endpoint *e, bool internal);
void endpoint_stats(const struct endpoint *e, uint64_t now_ms, uint64_t wall_ms,
                    struct webhook_stats *out);

#endif
