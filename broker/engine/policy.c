/* policy.c: what a subscription was told to do: bounds, defaults, and its own copy. */
#include <stdio.h>
#include <stdlib.h>

#include "broker/engine/state.h"

struct policy policy_default(void) {
    return (struct policy){
        .lease_ms = POLICY_LEASE_MS_DEFAULT,
        .max_hold_ms = POLICY_MAX_HOLD_MS_DEFAULT,
        .max_fails = POLICY_MAX_FAILS_DEFAULT,
        .backoff_min_ms = POLICY_BACKOFF_MIN_MS_DEFAULT,
        .backoff_max_ms = POLICY_BACKOFF_MAX_MS_DEFAULT,
        .backoff_factor_permille = POLICY_BACKOFF_FACTOR_PERMILLE_DEFAULT,
        .backoff_jitter_permille = POLICY_BACKOFF_JITTER_PERMILLE_DEFAULT,
    };
}

/* NULL, or what is wrong with it. */
static const char *backoff_check(const struct policy *p) {
    if (p->backoff_list_count > LIMIT_BACKOFF_STEPS) return "backoff.list_ms: at most 32 steps";
    for (uint32_t i = 0; i < p->backoff_list_count; i++) {
        if (p->backoff_list_ms[i] > LIMIT_BACKOFF_MS_MAX) {
            return "backoff.list_ms: each must be 0 to 86400000 (24 hours)";
        }
    }
    if (p->backoff_max_ms > LIMIT_BACKOFF_MS_MAX) {
        return "backoff.max_ms: must be 0 to 86400000 (24 hours)";
    }
    if (p->backoff_min_ms > p->backoff_max_ms) {
        return "backoff.min_ms: must not be above backoff.max_ms";
    }
    if (p->backoff_factor_permille < 1000 || p->backoff_factor_permille > 100000) {
        return "backoff.factor: must be 1 to 100";
    }
    if (p->backoff_jitter_permille > 1000) return "backoff.jitter: must be 0 to 1";
    return NULL;
}

static const char *bounds_check(const struct policy *p) {
    if (p->lease_ms < LIMIT_LEASE_MS_MIN || p->lease_ms > LIMIT_LEASE_MS_MAX) {
        return "lease_ms: must be 100 to 43200000 (12 hours)";
    }
    if (p->max_hold_ms < p->lease_ms) {
        return "max_hold_ms: must not be below lease_ms: a lease could never run its time";
    }
    if (p->max_hold_ms > LIMIT_HOLD_MS_MAX) return "max_hold_ms: at most 604800000 (7 days)";
    if (p->max_age_ms > LIMIT_AGE_MS_MAX) return "max_age_ms: at most 31622400000 (366 days)";
    if (p->max_fails > LIMIT_FAILS_MAX) return "max_fails: must be 0 to 1000000";
    if (p->rate_per_s > LIMIT_RATE_PER_S) return "rate: must be 0 to 1000000 per second";
    if (p->order_key.len > LIMIT_ORDER_KEY_BYTES) return "order.key: at most 128 bytes";
    if (p->order_key.len > 0 && !p->ordered) return "order.key: needs an order by key";
    if (p->order_key.len > 0 && !filter_name_ok(p->order_key)) {
        return "order.key: must be a user_metadata name or a JSON Pointer such as /job/group";
    }
    return backoff_check(p);
}

enum err policy_check(const struct policy *p, char *why, size_t size) {
    struct filter *filter;
    const char *wrong = bounds_check(p);
    if (wrong != NULL) {
        snprintf(why, size, "%s", wrong);
        return ERR_BAD_POLICY;
    }
    enum err err = filter_compile(p->filter, &filter, why, size);
    filter_free(&filter);
    return err;
}

void policy_drop(struct subscription *s) {
    filter_free(&s->filter);
    free(s->policy_memory);
    s->policy_memory = NULL;
}

void policy_set(struct subscription *s, const struct policy *policy) {
    char why[256];
    struct filter *filter;
    enum err err = filter_compile(policy->filter, &filter, why, sizeof why);
    CHECK(err == ERR_OK); /* policy_check said so, or the store's checksum did */
    uint32_t steps = policy->backoff_list_count;
    size_t list_bytes = steps * sizeof *policy->backoff_list_ms;
    uint64_t *list = mem_alloc(list_bytes + policy->order_key.len + 1);
    uint8_t *key = (uint8_t *)(list + steps);
    if (steps > 0) memcpy(list, policy->backoff_list_ms, list_bytes);
    if (policy->order_key.len > 0) memcpy(key, policy->order_key.data, policy->order_key.len);
    policy_drop(s);
    s->policy = *policy;
    s->policy.filter = filter_text(filter);
    s->policy.backoff_list_ms = list;
    s->policy.order_key = slice_of(key, policy->order_key.len);
    s->policy_memory = list;
    s->filter = filter;
    rate_set(&s->rate, policy->rate_per_s, RATE_BURST_MS * 1000);
}

bool policy_equal(const struct subscription *s, const struct policy *b) {
    const struct policy *a = &s->policy;
    char why[256];
    struct filter *filter;
    if (filter_compile(b->filter, &filter, why, sizeof why) != ERR_OK) return false;
    bool same = slice_eq(a->filter, filter_text(filter));
    filter_free(&filter);
    same = same && a->lease_ms == b->lease_ms && a->max_hold_ms == b->max_hold_ms &&
           a->max_age_ms == b->max_age_ms && a->max_fails == b->max_fails &&
           a->backoff_min_ms == b->backoff_min_ms && a->backoff_max_ms == b->backoff_max_ms &&
           a->backoff_factor_permille == b->backoff_factor_permille &&
           a->backoff_jitter_permille == b->backoff_jitter_permille &&
           a->backoff_list_count == b->backoff_list_count && a->rate_per_s == b->rate_per_s &&
           a->ordered == b->ordered && slice_eq(a->order_key, b->order_key) && a->lag == b->lag;
    for (uint32_t i = 0; same && i < a->backoff_list_count; i++) {
        same = a->backoff_list_ms[i] == b->backoff_list_ms[i];
    }
    return same;
}

uint64_t policy_backoff_ms(const struct policy *p, uint32_t fails) {
    if (p->backoff_list_count > 0) {
        uint32_t i = fails < p->backoff_list_count ? fails : p->backoff_list_count;
        return p->backoff_list_ms[i - 1];
    }
    double delay = (double)p->backoff_min_ms;
    for (uint32_t i = 1; i < fails && delay < (double)p->backoff_max_ms; i++) {
        delay = delay * p->backoff_factor_permille / 1000.0;
    }
    return delay < (double)p->backoff_max_ms ? (uint64_t)delay : p->backoff_max_ms;
}
