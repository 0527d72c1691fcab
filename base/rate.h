/* rate.h: so many per second, by the generic cell rate algorithm (ITU-T I.371): one time, no queue.
 *
 * `next_us` is when the next one is due by the rate; it may go so much earlier as `burst_us` says.
 * Owned by whoever embeds it; all zero is no limit. Calls nothing. */
#ifndef BASE_RATE_H
#define BASE_RATE_H

#include <stdint.h>

struct rate {
    uint32_t per_s; /* 0: no limit */
    uint64_t burst_us;
    uint64_t next_us; /* theoretical arrival time of the next */
};

/* How much earlier than due lets `burst` of them go at once; per_s is at least 1. The clock of who
 * asks has milliseconds: what is due within one goes at once too, or a part of the rate is lost. */
static inline uint64_t rate_burst_us(uint32_t per_s, uint64_t burst) {
    uint64_t us = burst <= 1 ? 0 : (burst - 1) * (1000000 / per_s);
    return us < 999 ? 999 : us;
}

/* What was taken stays taken. */
static inline void rate_set(struct rate *r, uint32_t per_s, uint64_t burst_us) {
    *r = (struct rate){.per_s = per_s, .burst_us = burst_us, .next_us = r->next_us};
}

/* Another rate was set: at worst nothing is left of its burst, however long the one before would
 * have made the next one wait. */
static inline void rate_forgive(struct rate *r, uint64_t now_ms) {
    if (r->per_s == 0) return;
    uint64_t latest_us = now_ms * 1000 + r->burst_us + 1000000 / r->per_s;
    if (r->next_us > latest_us) r->next_us = latest_us;
}

/* When the next one may go; in the past or now: at once. */
static inline uint64_t rate_next_ms(const struct rate *r) {
    if (r->per_s == 0 || r->next_us <= r->burst_us) return 0;
    return (r->next_us - r->burst_us + 999) / 1000;
}

static inline void rate_take(struct rate *r, uint64_t now_ms) {
    if (r->per_s == 0) return;
    if (r->next_us < now_ms * 1000) r->next_us = now_ms * 1000;
    r->next_us += 1000000 / r->per_s;
}

#endif
