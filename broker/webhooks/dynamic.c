/* Endpoints that events bring along.
 *
 * The k-th URI of an event is delivered by the subscription "webhook.dynamic.K" of its project, a
 * lane, so that each URI of an event has its own fails, backoff and dead letter. A lane is made
 * when the first event that needs it is about to be published. All URIs of one origin (scheme,
 * host, port) are one endpoint with one window and one breaker, over all lanes of all projects.
 *
 * A lane is shared by every origin, so none may fill its window: a few hand-outs wait here for
 * their origin's window, the others are given back and come again later; those of an origin whose
 * breaker is open come again when it may be probed, from disk. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/auth/projects.h"
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

static void lane_name(uint32_t k, char out[LIMIT_NAME_BYTES + 1]) {
    snprintf(out, LIMIT_NAME_BYTES + 1, WEBHOOK_SUBSCRIPTION_PREFIX "dynamic.%" PRIu32, k);
}

static uint64_t lane_key(uint32_t project, uint32_t k) {
    return (uint64_t)project * LIMIT_ENDPOINTS + k;
}

static void lane_make(struct webhooks *w, uint32_t project, uint32_t k) {
    char name[LIMIT_NAME_BYTES + 1], filter[32];
    lane_name(k, name);
    snprintf(filter, sizeof filter, "{\"endpoint\":%" PRIu32 "}", k);
    struct policy policy = webhooks_base_policy(w, slice_str(filter));
    struct subscription_info info;
    bool there = engine_subscription_get(w->options.engine, project, slice_str(name), &info);
    if (there) { /* the options may be others than when it was made */
        struct command c = {.kind = COMMAND_SUBSCRIPTION_UPDATE,
                            .project = project,
                            .u.update = {.name = slice_str(name), .policy = policy}};
        webhooks_step(w, &c, RID_NONE, 0);
    }
    struct lane *lane = mem_alloc(sizeof *lane);
    *lane = (struct lane){.attachment = w->next_attachment++, .project = project, .k = k};
    map_add(&w->lanes, lane_key(project, k), lane);
    map_add(&w->lane_by_attachment, lane->attachment, lane);
    webhooks_attach(w, project, lane->attachment, name, &policy, LANE_WINDOW);
}

static void load_project(struct webhooks *w, uint32_t project) {
    for (uint32_t k = 0; k < LIMIT_ENDPOINTS; k++) {
        char name[LIMIT_NAME_BYTES + 1];
        struct subscription_info info;
        lane_name(k, name);
        if (!engine_subscription_get(w->options.engine, project, slice_str(name), &info)) continue;
        lane_make(w, project, k);
    }
}

void dynamic_load(struct webhooks *w) {
    const struct project_info *p = projects_next(w->options.projects, slice_str(""));
    for (; p != NULL; p = projects_next(w->options.projects, slice_str(p->name))) {
        load_project(w, p->id);
    }
}

void webhooks_expect_endpoints(struct webhooks *w, uint32_t project, struct slice endpoints) {
    size_t count = payload_endpoints_count(endpoints);
    CHECK(count <= LIMIT_ENDPOINTS);
    for (uint32_t k = 0; k < count; k++) {
        if (map_get(&w->lanes, lane_key(project, k)) == NULL) lane_make(w, project, k);
    }
}

const struct lane *dynamic_lane(const struct webhooks *w, uint64_t attachment) {
    return map_get(&w->lane_by_attachment, attachment);
}

/* Ends what is under way or waits for a lane, and settles none of it. */
static void lane_cut(struct webhooks *w, const struct lane *lane) {
    for (size_t i = 0; i < w->dynamic_count; i++) {
        struct dynamic *d = w->dynamic[i];
        LIST_FOR(n, next, &d->queue) {
            struct attempt *a = CONTAINER_OF(n, struct attempt, queued);
            if (a->attachment != lane->attachment) continue;
            attempt_free(w, a);
            d->queued--;
        }
    }
    LIST_FOR(n, next, &w->attempts) {
        struct attempt *a = CONTAINER_OF(n, struct attempt, link);
        if (a->attachment != lane->attachment) continue;
        endpoint_ended(&a->dynamic->endpoint, false);
        attempt_free(w, a);
    }
}

void webhooks_forget_project(struct webhooks *w, uint32_t project) {
    CHECK(project != PROJECT_DEFAULT);
    for (uint32_t k = 0; k < LIMIT_ENDPOINTS; k++) {
        struct lane *lane = map_remove(&w->lanes, lane_key(project, k));
        char name[LIMIT_NAME_BYTES + 1];
        if (lane == NULL) continue;
        lane_name(k, name);
        struct command c = {.kind = COMMAND_SUBSCRIPTION_DELETE,
                            .project = project,
                            .u.delete = {.name = slice_str(name)}};
        webhooks_step(w, &c, RID_NONE, 0);
        lane_cut(w, lane);
        map_remove(&w->lane_by_attachment, lane->attachment);
        free(lane);
    }
    /* Others may have waited for the places of what was cut. */
    for (size_t i = 0; i < w->dynamic_count; i++) dynamic_settled(w, w->dynamic[i]);
    attempts_pump(w);
}

void dynamic_hold_all(struct webhooks *w) {
    for (size_t i = 0; i < w->lanes.cap; i++) {
        const struct lane *lane = w->lanes.slots[i].value;
        if (lane == NULL) continue;
        struct command c = {
            .kind = COMMAND_HOLD,
            .u.hold = {.attachment = lane->attachment, .hold = true},
        };
        webhooks_step(w, &c, RID_NONE, 0);
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

/* Forgets one that nothing is under way to: one that nothing is known against, else any, which will
 * be found to be down again: who names many of those must not keep out everybody else's. */
static bool make_room(struct webhooks *w) {
    if (w->dynamic_count < ORIGINS_MAX) return true;
    size_t from = prng_below(&w->prng, w->dynamic_count), found = SIZE_MAX;
    for (size_t n = 0; n < w->dynamic_count; n++) {
        size_t i = (from + n) % w->dynamic_count;
        const struct dynamic *d = w->dynamic[i];
        bool closed = d->endpoint.breaker == BREAKER_CLOSED;
        if (d->endpoint.in_flight > 0 || d->queued > 0) continue;
        if (closed || found == SIZE_MAX) found = i;
        if (closed) break;
    }
    if (found == SIZE_MAX) return false;
    struct dynamic *d = w->dynamic[found];
    w->dynamic_count--;
    memmove(w->dynamic + found, w->dynamic + found + 1,
            (w->dynamic_count - found) * sizeof(struct dynamic *));
    origin_free(d);
    return true;
}

/* The endpoint of an origin; NULL: too many others are busy. */
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
    for (size_t i = 0; i < w->lanes.cap; i++) free(w->lanes.slots[i].value);
    map_free(&w->lanes);
    map_free(&w->lane_by_attachment);
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

void dynamic_deliver(struct webhooks *w, const struct lane *lane, const struct effect *effect) {
    struct slice text = payload_endpoint(effect->u.deliver.event.endpoints, lane->k);
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
    CHECK(!list_empty(&d->queue) || d->queued == 0);
}
