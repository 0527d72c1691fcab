/* Endpoints that events bring along.
 *
 * The k-th URI of an event is delivered by the subscription "webhook.dynamic.K", a lane, so that
 * each URI of an event has its own fails, backoff and dead letter. A lane is made when the first
 * event that needs it is about to be published. All URIs of one origin (scheme, host, port) are one
 * endpoint with one window and one breaker, over all lanes.
 *
 * A lane is shared by every origin, so none may fill its window: a few hand-outs wait here for
 * their origin's window, the others are given back and come again later; those of an origin whose
 * breaker is open come again when it may be probed, from disk. */
#include <stdio.h>
#include <stdlib.h>

#include "broker/webhooks/payload.h"
#include "broker/webhooks/room.h"

#define LANE_WINDOW    1024
#define ORIGIN_WINDOW  16
#define QUEUE_HEALTHY  256 /* waiting hand-outs of an origin whose last attempt succeeded */
#define AGAIN_MS_MIN   100
#define PARKED_BACKOFF 12 /* an origin that is down is asked for after so many first backoffs */

_Static_assert(QUEUE_HEALTHY + ORIGIN_WINDOW < LANE_WINDOW / 2,
               "one origin leaves room for others");

/* ---- lanes ---- */

static void lane_name(size_t k, char out[LIMIT_NAME_BYTES + 1]) {
    snprintf(out, LIMIT_NAME_BYTES + 1, WEBHOOK_SUBSCRIPTION_PREFIX "dynamic.%zu", k);
}

static void lane_make(struct webhooks *w, size_t k) {
    char name[LIMIT_NAME_BYTES + 1], filter[32];
    lane_name(k, name);
    snprintf(filter, sizeof filter, "{\"endpoint\":%zu}", k);
    struct policy policy = webhooks_base_policy(w, slice_str(filter));
    struct subscription_info info;
    bool there = engine_subscription_get(w->options.engine, slice_str(name), &info);
    if (there) { /* the options may be others than when it was made */
        struct command c = {.kind = COMMAND_SUBSCRIPTION_UPDATE,
                            .u.update = {.name = slice_str(name), .policy = policy}};
        webhooks_step(w, &c, RID_NONE, 0);
    }
    w->lanes[k].attachment = w->next_attachment++;
    webhooks_attach(w, w->lanes[k].attachment, name, &policy, LANE_WINDOW);
}

void dynamic_load(struct webhooks *w) {
    for (size_t k = 0; k < LIMIT_ENDPOINTS; k++) {
        char name[LIMIT_NAME_BYTES + 1];
        struct subscription_info info;
        lane_name(k, name);
        if (engine_subscription_get(w->options.engine, slice_str(name), &info)) lane_make(w, k);
    }
}

void webhooks_expect_endpoints(struct webhooks *w, struct slice endpoints) {
    size_t count = payload_endpoints_count(endpoints);
    CHECK(count <= LIMIT_ENDPOINTS);
    for (size_t k = 0; k < count; k++) {
        if (w->lanes[k].attachment == 0) lane_make(w, k);
    }
}

size_t dynamic_lane(const struct webhooks *w, uint64_t attachment) {
    size_t k = 0;
    while (k < LIMIT_ENDPOINTS && w->lanes[k].attachment != attachment) k++;
    return k;
}

void dynamic_hold_all(struct webhooks *w) {
    for (size_t k = 0; k < LIMIT_ENDPOINTS; k++) {
        struct command c = {
            .kind = COMMAND_HOLD,
            .u.hold = {.attachment = w->lanes[k].attachment, .hold = true},
        };
        if (w->lanes[k].attachment != 0) webhooks_step(w, &c, RID_NONE, 0);
    }
    for (size_t i = 0; i < w->dynamic_count; i++) {
        struct dynamic *d = w->dynamic[i];
        while (!list_empty(&d->queue)) {
            struct attempt *a = CONTAINER_OF(list_first(&d->queue), struct attempt, queued);
            attempt_release(w, a, AGAIN_MS);
        }
        d->queued = 0;
    }
}

/* ---- origins ---- */

static size_t lower_bound(const struct webhooks *w, const char *origin) {
    size_t lo = 0, hi = w->dynamic_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(w->dynamic[mid]->origin, origin) < 0) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static void origin_free(struct dynamic *d) {
    free(d->origin);
    free(d);
}

/* Forgets one that nothing is known against and nothing is under way to. */
static bool make_room(struct webhooks *w) {
    if (w->dynamic_count < ORIGINS_MAX) return true;
    size_t from = prng_below(&w->prng, w->dynamic_count);
    for (size_t n = 0; n < w->dynamic_count; n++) {
        size_t i = (from + n) % w->dynamic_count;
        struct dynamic *d = w->dynamic[i];
        if (d->endpoint.in_flight > 0 || d->queued > 0) continue;
        if (d->endpoint.breaker != BREAKER_CLOSED) continue;
        w->dynamic_count--;
        memmove(w->dynamic + i, w->dynamic + i + 1,
                (w->dynamic_count - i) * sizeof(struct dynamic *));
        origin_free(d);
        return true;
    }
    return false;
}

/* The endpoint of an origin; NULL: too many others are down or busy. */
static struct dynamic *origin_get(struct webhooks *w, const char *origin) {
    size_t at = lower_bound(w, origin);
    if (at < w->dynamic_count && strcmp(w->dynamic[at]->origin, origin) == 0) {
        return w->dynamic[at];
    }
    if (!make_room(w)) return NULL;
    struct dynamic *d = mem_zalloc(sizeof *d);
    uint64_t first_ms = 6 * w->options.backoff_min_ms;
    d->origin = mem_strdup(origin);
    list_init(&d->queue);
    endpoint_init(&d->endpoint, ORIGIN_WINDOW, first_ms, 20 * first_ms);
    if (w->dynamic_count == w->dynamic_cap) {
        w->dynamic_cap = w->dynamic_cap == 0 ? 16 : w->dynamic_cap * 2;
        w->dynamic = mem_realloc(w->dynamic, w->dynamic_cap * sizeof(struct dynamic *));
    }
    at = lower_bound(w, origin); /* room was made */
    memmove(w->dynamic + at + 1, w->dynamic + at,
            (w->dynamic_count - at) * sizeof(struct dynamic *));
    w->dynamic[at] = d;
    w->dynamic_count++;
    return d;
}

void dynamic_free_all(struct webhooks *w) {
    for (size_t i = 0; i < w->dynamic_count; i++) origin_free(w->dynamic[i]);
    free(w->dynamic);
    w->dynamic = NULL;
    w->dynamic_count = w->dynamic_cap = 0;
}

bool webhooks_dynamic_next(const struct webhooks *w, const char *after, struct dynamic_info *out) {
    struct engine_time t = webhooks_time(w);
    size_t i = lower_bound(w, after);
    if (i < w->dynamic_count && strcmp(w->dynamic[i]->origin, after) == 0) i++;
    if (i == w->dynamic_count) return false;
    out->origin = w->dynamic[i]->origin;
    endpoint_stats(&w->dynamic[i]->endpoint, t.now_ms, t.wall_ms, &out->stats);
    return true;
}

/* ---- delivering ---- */

static bool may_begin(const struct dynamic *d) {
    return d->endpoint.in_flight < endpoint_window(&d->endpoint);
}

static size_t queue_max(const struct dynamic *d) {
    const struct endpoint *e = &d->endpoint;
    bool healthy = e->last_success_ms != 0 && e->failures_in_a_row == 0;
    if (e->breaker != BREAKER_CLOSED) return 0;
    return healthy ? QUEUE_HEALTHY : endpoint_window(e);
}

/* After what time a hand-out that finds no place comes again: of an origin that is down not before
 * it may be probed; else when what waits before it has probably gone. */
static uint64_t again_ms(const struct webhooks *w, const struct dynamic *d) {
    const struct endpoint *e = &d->endpoint;
    uint64_t now_ms = loop_now_ms(w->options.loop);
    if (e->breaker != BREAKER_CLOSED) {
        uint64_t down_ms = PARKED_BACKOFF * w->options.backoff_min_ms;
        uint64_t probe_ms = e->probe_at_ms > now_ms ? e->probe_at_ms - now_ms : 0;
        return probe_ms > down_ms ? probe_ms : down_ms;
    }
    uint64_t wait_ms = d->queued * e->latency_ms / endpoint_window(e);
    if (e->last_success_ms == 0) return AGAIN_MS;
    return wait_ms < AGAIN_MS_MIN ? AGAIN_MS_MIN : wait_ms;
}

static void begin(struct webhooks *w, struct dynamic *d, struct attempt *a) {
    endpoint_began(&d->endpoint);
    attempt_begin(w, a);
}

void dynamic_deliver(struct webhooks *w, size_t lane, const struct effect *effect) {
    struct slice text = payload_endpoint(effect->u.deliver.event.endpoints, lane);
    char uri[LIMIT_URI_BYTES + 1], origin[LIMIT_URI_BYTES + 8], why[256];
    /* It was checked when it was taken in, perhaps under other rules. */
    if (!guard_uri_ok(w->guard, text, why, sizeof why) || !slice_to_cstr(text, uri, sizeof uri)) {
        deliver_reject(w, effect, why);
        return;
    }
    guard_uri_origin(text, origin);
    struct dynamic *d = attempts_full(w) ? NULL : origin_get(w, origin);
    if (d == NULL) {
        deliver_release(w, effect, AGAIN_MS);
        return;
    }
    endpoint_tick(&d->endpoint, loop_now_ms(w->options.loop));
    bool now = list_empty(&d->queue) && may_begin(d);
    if (!now && d->queued >= queue_max(d)) {
        deliver_release(w, effect, again_ms(w, d));
        return;
    }
    struct attempt *a = attempt_new(w, effect, uri);
    a->dynamic = d;
    if (now) {
        begin(w, d, a);
    } else {
        list_push_back(&d->queue, &a->queued);
        d->queued++;
    }
}

void dynamic_settled(struct webhooks *w, struct dynamic *d) {
    bool down = d->endpoint.breaker != BREAKER_CLOSED;
    while (!list_empty(&d->queue) && (down || may_begin(d))) {
        struct attempt *a = CONTAINER_OF(list_first(&d->queue), struct attempt, queued);
        list_unlink(&a->queued);
        d->queued--;
        if (down) attempt_release(w, a, again_ms(w, d));
        else begin(w, d, a);
    }
}
