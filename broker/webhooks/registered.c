/* Registered webhooks: the room's side of each one's subscription.
 *
 * The engine hands out as many events as the endpoint's window says; a hand-out becomes an attempt
 * at once. When the breaker opens the window is 0 and everything waits in the journal; when its
 * time has come it is 1, and whatever comes next is the probe.
 *
 * What an endpoint does wrong for long enough disables its webhook: the webhook, its subscription
 * (paused) and an event `webhook.disabled` for operators are written in one turn. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/log.h"
#include "broker/fields/put.h"
#include "broker/webhooks/room.h"

#define WINDOW_BYTES (16ULL * MIB) /* of one endpoint's bodies; one event always fits */

/* ---- the table ---- */

static size_t lower_bound(const struct webhooks *w, const char *id) {
    size_t lo = 0, hi = w->registered_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(w->registered[mid]->id, id) < 0) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

struct registered *registered_find(const struct webhooks *w, const char *id) {
    size_t i = lower_bound(w, id);
    if (i == w->registered_count || strcmp(w->registered[i]->id, id) != 0) return NULL;
    return w->registered[i];
}

static uint64_t uri_hash(const struct webhook *webhook) {
    return hash_bytes(0, slice_str(webhook->uri));
}

/* ---- windows ---- */

static void tell_window(struct webhooks *w, struct registered *r) {
    uint32_t window = endpoint_window(&r->endpoint);
    if (window == r->window_told) return;
    r->window_told = window;
    struct command c = {
        .kind = COMMAND_WINDOW,
        .u.window = {.attachment = r->attachment, .events = window, .bytes = WINDOW_BYTES},
    };
    webhooks_step(w, &c, RID_NONE, 0);
}

static void arm_probe(struct webhooks *w, struct registered *r) {
    heap_remove(&w->probes, &r->probe);
    if (r->endpoint.breaker == BREAKER_OPEN) {
        heap_insert(&w->probes, &r->probe, r->endpoint.probe_at_ms);
    }
}

uint64_t registered_tick(struct webhooks *w, uint64_t now_ms) {
    struct heap_node *n;
    while ((n = heap_min(&w->probes)) != NULL && n->at_ms <= now_ms) {
        struct registered *r = CONTAINER_OF(n, struct registered, probe);
        heap_remove(&w->probes, n);
        if (endpoint_tick(&r->endpoint, now_ms)) tell_window(w, r);
    }
    return n == NULL ? UINT64_MAX : n->at_ms;
}

/* ---- coming and going ---- */

static void probe_times(const struct webhooks *w, uint64_t *first_ms, uint64_t *max_ms) {
    *first_ms = 6 * w->options.backoff_min_ms;
    *max_ms = 20 * *first_ms;
}

static struct registered *registered_add(struct webhooks *w, const struct webhook *webhook) {
    struct registered *r = mem_zalloc(sizeof *r);
    uint64_t first_ms, max_ms;
    snprintf(r->id, sizeof r->id, "%s", webhook->id);
    r->project = webhook->project;
    r->attachment = w->next_attachment++;
    probe_times(w, &first_ms, &max_ms);
    endpoint_init(&r->endpoint, webhook->concurrency, first_ms, max_ms);
    r->endpoint.failing_since_ms = webhook->failing_since_ms;
    r->uri_hash = uri_hash(webhook);
    r->state = webhook->state;
    heap_node_init(&r->probe);
    if (w->registered_count == w->registered_cap) {
        w->registered_cap = w->registered_cap == 0 ? 16 : w->registered_cap * 2;
        w->registered = mem_realloc(w->registered, w->registered_cap * sizeof(struct registered *));
    }
    size_t at = lower_bound(w, r->id);
    memmove(w->registered + at + 1, w->registered + at,
            (w->registered_count - at) * sizeof(struct registered *));
    w->registered[at] = r;
    w->registered_count++;
    map_add(&w->by_attachment, r->attachment, r);

    char name[LIMIT_NAME_BYTES + 1];
    webhook_subscription(webhook, name);
    r->window_told = endpoint_window(&r->endpoint);
    webhooks_attach(w, r->project, r->attachment, name, NULL, r->window_told);
    return r;
}

static void registered_free(struct registered *r) {
    free(r->recent);
    free(r);
}

static void registered_remove(struct webhooks *w, struct registered *r) {
    LIST_FOR(n, next, &w->attempts) {
        struct attempt *a = CONTAINER_OF(n, struct attempt, link);
        if (a->registered == r) attempt_free(w, a);
    }
    heap_remove(&w->probes, &r->probe);
    map_remove(&w->by_attachment, r->attachment);
    size_t at = lower_bound(w, r->id);
    w->registered_count--;
    memmove(w->registered + at, w->registered + at + 1,
            (w->registered_count - at) * sizeof(struct registered *));
    registered_free(r);
}

void registered_free_all(struct webhooks *w) {
    for (size_t i = 0; i < w->registered_count; i++) {
        heap_remove(&w->probes, &w->registered[i]->probe);
        registered_free(w->registered[i]);
    }
    free(w->registered);
    w->registered = NULL;
    w->registered_count = w->registered_cap = 0;
}

/* The options may be others than when it was made. */
static void bring_policy(struct webhooks *w, const struct webhook *webhook) {
    char name[LIMIT_NAME_BYTES + 1], why[256];
    struct buf filter;
    struct policy wanted;
    struct subscription_info info;
    webhook_subscription(webhook, name);
    buf_init(&filter, 2 * LIMIT_FILTER_BYTES);
    if (engine_subscription_get(w->options.engine, webhook->project, slice_str(name), &info) &&
        webhooks_policy(w, webhook, &filter, &wanted, why, sizeof why)) {
        const struct policy *has = &info.policy;
        bool same = has->max_age_ms == wanted.max_age_ms && has->lease_ms == wanted.lease_ms &&
                    has->backoff_min_ms == wanted.backoff_min_ms &&
                    has->backoff_max_ms == wanted.backoff_max_ms &&
                    slice_eq(has->filter, wanted.filter);
        struct command c = {.kind = COMMAND_SUBSCRIPTION_UPDATE,
                            .project = webhook->project,
                            .u.update = {.name = slice_str(name), .policy = wanted}};
        if (!same) webhooks_step(w, &c, RID_NONE, 0);
    }
    buf_free(&filter);
}

int registered_load(struct webhooks *w, char *error, size_t size) {
    int err = registry_load(w->registry, error, size);
    if (err != 0) return err;
    const struct webhook *webhook;
    for (size_t i = 0; (webhook = registry_at(w->registry, i)) != NULL; i++) {
        bring_policy(w, webhook);
        registered_add(w, webhook);
    }
    return 0;
}

void registered_ended(struct webhooks *w, uint64_t attachment) {
    struct registered *r = map_get(&w->by_attachment, attachment);
    if (r != NULL) registered_remove(w, r);
}

void webhooks_refresh(struct webhooks *w, uint32_t project, const char *id) {
    const struct webhook *webhook = registry_get(w->registry, project, slice_str(id));
    struct registered *r = registered_find(w, id);
    if (webhook == NULL) {
        if (r != NULL) registered_remove(w, r);
        return;
    }
    if (r == NULL) {
        registered_add(w, webhook);
        return;
    }
    bool enabled_again = r->state != WEBHOOK_ENABLED && webhook->state == WEBHOOK_ENABLED;
    r->endpoint.window_max = webhook->concurrency;
    if (r->endpoint.window > webhook->concurrency) r->endpoint.window = webhook->concurrency;
    if (enabled_again || r->uri_hash != uri_hash(webhook)) endpoint_reset(&r->endpoint);
    r->uri_hash = uri_hash(webhook);
    r->state = webhook->state;
    arm_probe(w, r);
    if (!w->draining) tell_window(w, r);
}

void registered_hold_all(struct webhooks *w) {
    for (size_t i = 0; i < w->registered_count; i++) {
        struct command c = {
            .kind = COMMAND_HOLD,
            .u.hold = {.attachment = w->registered[i]->attachment, .hold = true},
        };
        webhooks_step(w, &c, RID_NONE, 0);
    }
}

/* ---- disabling ---- */

static void publish_disabled(struct webhooks *w, const struct webhook *webhook) {
    struct buf body;
    buf_init(&body, 64 * KIB);
    buf_append_byte(&body, '{');
    put_text(&body, "id", slice_str(webhook->id));
    put_text_unless_empty(&body, "name", slice_str(webhook->name));
    put_text(&body, "uri", slice_str(webhook->uri));
    put_text(&body, "reason", slice_str(webhook->disabled_reason));
    if (webhook->failing_since_ms != 0) put_time(&body, "failing_since", webhook->failing_since_ms);
    buf_append_byte(&body, '}');
    CHECK(!body.overflow);
    const struct event event = {
        .type = slice_str("webhook.disabled"),
        .subject = slice_str(webhook->id),
        .content_type = slice_str("application/json"),
        .time_ms = webhook->disabled_at_ms,
        .body = buf_slice(&body),
    };
    struct command c = {
        .kind = COMMAND_PUBLISH,
        .project = webhook->project,
        .u.publish = {.events = &event, .count = 1},
    };
    webhooks_step(w, &c, RID_NONE, 0);
    buf_free(&body);
}

static void disable(struct webhooks *w, const struct registered *r, const char *reason) {
    const struct webhook *latest = registry_latest(w->registry, r->project, slice_str(r->id));
    if (latest == NULL || latest->state != WEBHOOK_ENABLED) return;
    struct webhook *webhook = webhook_copy(latest);
    char name[LIMIT_NAME_BYTES + 1];
    webhook->state = WEBHOOK_DISABLED_DUE_TO_FAILED_DELIVERIES;
    webhook->disabled_at_ms = webhook->updated_at_ms = loop_wall_ms(w->options.loop);
    webhook->failing_since_ms = r->endpoint.failing_since_ms;
    webhook_set_text(&webhook->disabled_reason, slice_str(reason));
    webhook_subscription(webhook, name);
    struct command c = {.kind = COMMAND_SUBSCRIPTION_PAUSE,
                        .project = webhook->project,
                        .u.pause = {.name = slice_str(name), .paused = true}};
    log_warn("webhook %s is disabled: %s", webhook->id, reason);
    publish_disabled(w, webhook);
    webhooks_step(w, &c, RID_NONE, 0);
    const struct route route = {w->options.room, RID_REGISTRY, r->attachment};
    registry_put(w->registry, webhooks_time(w), route, webhook);
}

/* Since when it fails outlives a restart, once the breaker has opened: five days are longer than
 * many a broker runs. */
static void note_failing(struct webhooks *w, const struct registered *r) {
    const struct webhook *latest = registry_latest(w->registry, r->project, slice_str(r->id));
    const struct endpoint *e = &r->endpoint;
    if (latest == NULL || latest->state != WEBHOOK_ENABLED) return;
    bool noted = latest->failing_since_ms != 0;
    bool failing = e->failing_since_ms != 0;
    if (noted == failing || (failing && e->breaker != BREAKER_OPEN)) return;
    struct webhook *webhook = webhook_copy(latest);
    webhook->failing_since_ms = e->failing_since_ms;
    const struct route route = {w->options.room, RID_REGISTRY, r->attachment};
    registry_put(w->registry, webhooks_time(w), route, webhook);
}

static void disable_after(struct webhooks *w, const struct registered *r) {
    uint64_t wall_ms = loop_wall_ms(w->options.loop), since_ms = r->endpoint.failing_since_ms;
    uint64_t after_ms = w->options.disable_after_ms;
    if (after_ms == 0 || since_ms == 0 || wall_ms < since_ms || wall_ms - since_ms < after_ms) {
        return;
    }
    char reason[96];
    snprintf(reason, sizeof reason, "nothing but failures for %" PRIu64 " hours",
             after_ms / 3600000);
    disable(w, r, after_ms < 3600000 ? "nothing but failures for too long" : reason);
}

void registered_settled(struct webhooks *w, struct registered *r, bool gone) {
    if (gone) disable(w, r, "the endpoint answered 410 Gone");
    else disable_after(w, r);
    note_failing(w, r);
    arm_probe(w, r);
    if (!w->draining) tell_window(w, r);
}

/* ---- delivering ---- */

void registered_deliver(struct webhooks *w, struct registered *r, const struct effect *effect) {
    const struct webhook *webhook = registry_get(w->registry, r->project, slice_str(r->id));
    if (webhook == NULL || attempts_full(w)) {
        deliver_release(w, effect, AGAIN_MS);
        return;
    }
    struct attempt *a = attempt_new(w, effect, webhook->uri);
    a->registered = r;
    endpoint_began(&r->endpoint);
    attempt_begin(w, a);
}

void webhooks_ping(struct webhooks *w, const struct webhook *webhook) {
    struct registered *r = registered_find(w, webhook->id);
    if (r == NULL || attempts_full(w)) return;
    struct attempt *a = attempt_new_ping(w, webhook, r);
    endpoint_began(&r->endpoint);
    attempt_begin(w, a);
}

void webhooks_stats(const struct webhooks *w, const struct webhook *webhook,
                    struct webhook_stats *out) {
    struct engine_time t = webhooks_time(w);
    const struct registered *r = registered_find(w, webhook->id);
    *out = (struct webhook_stats){.failing_since_ms = webhook->failing_since_ms};
    if (r != NULL) endpoint_stats(&r->endpoint, t.now_ms, t.wall_ms, out);
}
