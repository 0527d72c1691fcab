#include "broker/webhooks/endpoint.h"

void endpoint_init(struct endpoint *e, uint32_t window_max, uint64_t probe_first_ms,
                   uint64_t probe_max_ms) {
    *e = (struct endpoint){
        .window_max = window_max,
        .probe_first_ms = probe_first_ms,
        .probe_max_ms = probe_max_ms,
    };
    endpoint_reset(e);
}

void endpoint_reset(struct endpoint *e) {
    e->window = e->window_max < ENDPOINT_WINDOW_FIRST ? e->window_max : ENDPOINT_WINDOW_FIRST;
    e->breaker = BREAKER_CLOSED;
    e->failures_in_a_row = 0;
    e->probe_wait_ms = e->probe_first_ms;
    e->probe_at_ms = 0;
    e->failing_since_ms = 0;
}

uint32_t endpoint_window(const struct endpoint *e) {
    switch (e->breaker) {
    case BREAKER_CLOSED: return e->window;
    case BREAKER_OPEN: return 0;
    case BREAKER_PROBING: return 1;
    }
    UNREACHABLE("every state has its case");
}

bool endpoint_tick(struct endpoint *e, uint64_t now_ms) {
    if (e->breaker != BREAKER_OPEN || now_ms < e->probe_at_ms) return false;
    e->breaker = BREAKER_PROBING;
    return true;
}

void endpoint_began(struct endpoint *e) {
    e->in_flight++;
}

void endpoint_ended(struct endpoint *e, bool internal) {
    CHECK(e->in_flight > 0);
    e->in_flight--;
    if (internal) e->internal_total++;
}

/* One more per success is twice as many per round trip. What began before the breaker opened and
 * succeeds now is as good as a probe. */
void endpoint_succeeded(struct endpoint *e, uint64_t duration_ms, uint64_t wall_ms) {
    endpoint_ended(e, false);
    e->delivered_total++;
    e->last_success_ms = wall_ms;
    e->latency_ms = e->latency_ms == 0 ? duration_ms : (e->latency_ms * 7 + duration_ms) / 8;
    e->failures_in_a_row = 0;
    e->failing_since_ms = 0;
    e->breaker = BREAKER_CLOSED;
    e->probe_wait_ms = e->probe_first_ms;
    if (e->window < e->window_max) e->window++;
}

static void open_breaker(struct endpoint *e, uint64_t wait_ms, uint64_t now_ms) {
    e->breaker = BREAKER_OPEN;
    e->probe_at_ms = now_ms + wait_ms;
}

static void open_longer(struct endpoint *e, uint64_t now_ms) {
    uint64_t twice_ms = e->probe_wait_ms * 2;
    open_breaker(e, e->probe_wait_ms, now_ms);
    e->probe_wait_ms = twice_ms < e->probe_max_ms ? twice_ms : e->probe_max_ms;
}

void endpoint_failed(struct endpoint *e, uint64_t pause_ms, uint64_t now_ms, uint64_t wall_ms) {
    endpoint_ended(e, false);
    e->failed_total++;
    e->failures_in_a_row++;
    e->last_failure_ms = wall_ms;
    if (e->failing_since_ms == 0) e->failing_since_ms = wall_ms;
    e->window = e->window > 1 ? e->window / 2 : 1;
    bool many = e->breaker == BREAKER_CLOSED && e->failures_in_a_row >= ENDPOINT_FAILURES;
    if (pause_ms > 0) open_breaker(e, pause_ms, now_ms);
    else if (many || e->breaker == BREAKER_PROBING) open_longer(e, now_ms);
}

void endpoint_stats(const struct endpoint *e, uint64_t now_ms, uint64_t wall_ms,
                    struct webhook_stats *out) {
    *out = (struct webhook_stats){
        .delivered_total = e->delivered_total,
        .failed_total = e->failed_total,
        .internal_total = e->internal_total,
        .last_success_ms = e->last_success_ms,
        .last_failure_ms = e->last_failure_ms,
        .failing_since_ms = e->failing_since_ms,
        .failures_in_a_row = e->failures_in_a_row,
        .in_flight = e->in_flight,
        .window = endpoint_window(e),
        .breaker = e->breaker,
    };
    if (e->breaker != BREAKER_OPEN) return;
    out->next_probe_ms = wall_ms + (e->probe_at_ms > now_ms ? e->probe_at_ms - now_ms : 0);
}

const char *breaker_state_name(enum breaker_state s) {
    switch (s) {
    case BREAKER_CLOSED: return "closed";
    case BREAKER_OPEN: return "open";
    case BREAKER_PROBING: return "probing";
    }
    UNREACHABLE("every state has its name");
}
