/* The room: it attaches to its subscriptions when it opens, turns hand-outs into attempts, and
 * outcomes into settlements (attempt.c).
 *
 * What can go wrong: a stored webhook or key cannot be read (the broker does not start); a
 * subscription is deleted (its attempts are cancelled); a hand-out comes while the broker stops (it
 * is given back). */
#include "broker/webhooks/webhooks.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "broker/engine/filter.h"
#include "broker/fields/put.h"
#include "broker/webhooks/room.h"

#define INSTANCE_KEY   "webhooks/instance"
#define INSTANCE_CHARS 10
#define SCRATCH_BYTES  (64 * KIB)

struct engine_time webhooks_time(const struct webhooks *w) {
    return (struct engine_time){loop_now_ms(w->options.loop), loop_wall_ms(w->options.loop)};
}

void webhooks_step(struct webhooks *w, struct command *c, enum rid rid, uint64_t handle) {
    c->route = (struct route){.room = w->options.room, .rid = rid, .handle = handle};
    engine_step(w->options.engine, webhooks_time(w), c);
    loop_again(w->options.loop);
}

/* ---- policy ---- */

struct policy webhooks_base_policy(const struct webhooks *w, struct slice filter) {
    struct policy p = policy_default();
    uint64_t lease_ms = 8 * w->options.timeout_ms;
    p.filter = filter;
    p.lease_ms = lease_ms > LEASE_MS_MIN ? lease_ms : LEASE_MS_MIN;
    p.max_age_ms = w->options.max_age_ms;
    p.backoff_min_ms = w->options.backoff_min_ms;
    p.backoff_max_ms = w->options.backoff_max_ms;
    p.lag = LAG_EXPIRE; /* a dead endpoint must not stop the journal */
    return p;
}

static void put_types(struct buf *b, const struct webhook *webhook) {
    for (size_t i = 0; i < webhook->types_count; i++) {
        if (strcmp(webhook->types[i], "*") == 0) return;
    }
    put_key(b, "types");
    buf_append_byte(b, '[');
    for (size_t i = 0; i < webhook->types_count; i++) {
        put_comma(b);
        buf_append_json_string(b, slice_str(webhook->types[i]));
    }
    buf_append_byte(b, ']');
}

bool webhooks_policy(const struct webhooks *w, const struct webhook *webhook, struct buf *filter,
                     struct policy *out, char *why, size_t size) {
    struct filter *compiled;
    buf_clear(filter);
    buf_append_byte(filter, '{');
    put_types(filter, webhook);
    if (webhook->filter[0] != '\0') {
        put_key(filter, "all");
        buf_printf(filter, "[%s]", webhook->filter);
    }
    put_key(filter, "not");
    buf_append_str(filter, "{\"endpoint\":0}}");
    if (filter->overflow) {
        snprintf(why, size, "filter: longer than %d bytes", LIMIT_FILTER_BYTES);
        return false;
    }
    if (filter_compile(buf_slice(filter), &compiled, why, size) != ERR_OK) return false;
    /* In the form in which the engine keeps it, so that the same filters are the same text. */
    buf_clear(filter);
    buf_append_slice(filter, filter_text(compiled));
    filter_free(&compiled);
    CHECK(!filter->overflow);
    *out = webhooks_base_policy(w, buf_slice(filter));
    out->rate_per_s = webhook->rate_per_s;
    return policy_check(out, why, size) == ERR_OK;
}

/* ---- opening ---- */

void webhooks_attach(struct webhooks *w, uint32_t project, uint64_t attachment, const char *name,
                     const struct policy *create, uint32_t window) {
    struct command c = {
        .kind = COMMAND_ATTACH,
        .project = project,
        .u.attach =
            {
                .attachment = attachment,
                .name = slice_str(name),
                .create = create,
                .start = START_NEW,
                .window_events = window,
                .window_bytes = LIMIT_WINDOW_BYTES,
                .alone = true,
            },
    };
    webhooks_step(w, &c, RID_NONE, attachment);
}

static void take_instance(void *ctx, struct slice key, struct slice value) {
    struct webhooks *w = ctx;
    (void)key;
    if (!slice_to_cstr(value, w->instance, sizeof w->instance)) w->instance[0] = '\0';
}

/* A journal that is made anew begins with seq 1 again: receivers must not take its events for those
 * of the old one. */
static void find_instance(struct webhooks *w) {
    static const char alphabet[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    engine_config_scan(w->options.engine, slice_str(INSTANCE_KEY), take_instance, w);
    if (w->instance[0] != '\0') return;
    for (size_t i = 0; i < INSTANCE_CHARS; i++) {
        w->instance[i] = alphabet[prng_below(&w->prng, sizeof alphabet - 1)];
    }
    struct command c = {
        .kind = COMMAND_CONFIG_PUT,
        .u.config = {.key = slice_str(INSTANCE_KEY), .value = slice_str(w->instance)},
    };
    webhooks_step(w, &c, RID_NONE, 0);
}

static int open_outside(struct webhooks *w, char *error, size_t size) {
    const struct webhooks_options *o = &w->options;
    const struct guard_options guard_options = {.allow = o->allow, .https_only = o->https_only};
    int err = guard_open(&w->guard, &guard_options, error, size);
    if (err != 0) return err;
    const struct http_client_options client_options = {
        .guard = w->guard,
        .ca_file = o->ca_file,
        .user_agent = "Bellhop/" BELLHOP_VERSION,
    };
    return http_client_open(o->loop, &client_options, &w->client, error, size);
}

static int open_inside(struct webhooks *w, char *error, size_t size) {
    w->hmac = hmac_new();
    if (w->hmac == NULL) {
        snprintf(error, size, "libcrypto has no HMAC-SHA256: is its configuration broken?");
        return ERR_INTERNAL;
    }
    const struct keys_options keys_options = {
        .engine = w->options.engine,
        .route = {.room = w->options.room, .rid = RID_NONE},
        .alg = w->options.alg,
        .file = w->options.key_file,
    };
    int err = keys_open(&w->keys, &keys_options, webhooks_time(w), error, size);
    if (err != 0) return err;
    find_instance(w);
    err = registered_load(w, error, size);
    if (err == 0) dynamic_load(w);
    return err;
}

int webhooks_open(struct webhooks **out, const struct webhooks_options *options, char *error,
                  size_t error_size) {
    struct webhooks *w = mem_zalloc(sizeof *w);
    w->options = *options;
    prng_seed(&w->prng, loop_seed());
    map_init(&w->by_attachment);
    map_init(&w->lanes);
    map_init(&w->lane_by_attachment);
    heap_init(&w->probes);
    list_init(&w->attempts);
    list_init(&w->waiting);
    buf_init(&w->scratch, SCRATCH_BYTES);
    w->next_attachment = ATTACHMENT_FIRST;
    w->registry = registry_new(options->engine);
    int err = open_outside(w, error, error_size);
    if (err == 0) err = open_inside(w, error, error_size);
    if (err != 0) webhooks_close(&w);
    *out = w;
    return err;
}

void webhooks_close(struct webhooks **out) {
    struct webhooks *w = *out;
    if (w == NULL) return;
    LIST_FOR(n, next, &w->attempts) {
        attempt_free(w, CONTAINER_OF(n, struct attempt, link));
    }
    registered_free_all(w);
    dynamic_free_all(w);
    if (w->client != NULL) http_client_close(&w->client);
    guard_free(&w->guard);
    if (w->keys != NULL) keys_close(&w->keys);
    hmac_free(&w->hmac);
    registry_free(&w->registry);
    map_free(&w->by_attachment);
    heap_free(&w->probes);
    buf_free(&w->scratch);
    free(w);
    *out = NULL;
}

/* ---- effects ---- */

static void on_deliver(struct webhooks *w, const struct effect *effect) {
    struct registered *r = map_get(&w->by_attachment, effect->u.deliver.attachment);
    const struct lane *lane = dynamic_lane(w, effect->u.deliver.attachment);
    if (w->draining) deliver_release(w, effect, 0);
    else if (r != NULL) registered_deliver(w, r, effect);
    else if (lane != NULL) dynamic_deliver(w, lane, effect);
    /* Else its webhook is going: its subscription was deleted, or will be in this turn. */
}

static void on_registry(struct webhooks *w, const struct effect *effect) {
    const struct registered *r = map_get(&w->by_attachment, effect->route.handle);
    if (r == NULL) return;
    char id[WEBHOOK_ID_BYTES + 1];
    snprintf(id, sizeof id, "%s", r->id);
    registry_refresh(w->registry, id);
    webhooks_refresh(w, r->project, id);
}

void webhooks_on_effect(struct webhooks *w, const struct effect *effect) {
    switch (effect->kind) {
    case EFFECT_DELIVER: on_deliver(w, effect); break;
    case EFFECT_ENDED: registered_ended(w, effect->u.ended.attachment); break;
    case EFFECT_DONE:
        if (effect->route.rid == RID_REGISTRY) on_registry(w, effect);
        break;
    case EFFECT_ATTACHED:
        if (effect->err != ERR_OK) log_error("a webhook cannot attach: %s", effect->message);
        break;
    case EFFECT_PUBLISHED:
        if (effect->err != ERR_OK) log_warn("an event was not published: %s", effect->message);
        break;
    case EFFECT_SETTLED:    /* refused: its webhook is gone */
    case EFFECT_LEASE_SOON: /* an attempt is shorter than its lease */
    case EFFECT_REVOKED:    /* its outcome will settle nothing */
    case EFFECT_JOB: break;
    }
}

uint64_t webhooks_on_turn(struct webhooks *w, uint64_t now_ms) {
    if (now_ms >= w->keys_at_ms) w->keys_at_ms = keys_on_turn(w->keys, webhooks_time(w));
    uint64_t probe_ms = registered_tick(w, now_ms);
    return probe_ms < w->keys_at_ms ? probe_ms : w->keys_at_ms;
}

void webhooks_drain(struct webhooks *w) {
    w->draining = true;
    registered_hold_all(w);
    dynamic_hold_all(w);
}

size_t webhooks_busy(const struct webhooks *w) {
    return w->attempts_count;
}

struct registry *webhooks_registry(struct webhooks *w) {
    return w->registry;
}

struct keys *webhooks_keys(struct webhooks *w) {
    return w->keys;
}

const struct guard *webhooks_guard(const struct webhooks *w) {
    return w->guard;
}

struct http_client *webhooks_client(struct webhooks *w) {
    return w->client;
}
