/* Webhooks as JSON: one, a list, their attempts, and the endpoints of dynamic ones. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/admin/query.h"
#include "broker/admin/webhooks.h"

#define TOKEN_LETTER 'w'
#define NOT_FOUND    "GET /v1/webhooks lists them"

/* ---- one ---- */

/* Attempts whose next one is still to come; of an event only its newest one counts. */
#define SEEN_MAX 256
struct next_attempt {
    uint64_t now_ms, at_ms;
    uint64_t seen[SEEN_MAX];
    size_t seen_count;
};

static bool take_next_attempt(void *ctx, const struct attempt_info *attempt) {
    struct next_attempt *n = ctx;
    if (attempt->seq == 0) return true; /* a ping is sent once */
    for (size_t i = 0; i < n->seen_count; i++) {
        if (n->seen[i] == attempt->seq) return true;
    }
    bool comes = attempt->next_attempt_ms > n->now_ms;
    if (comes && (n->at_ms == 0 || attempt->next_attempt_ms < n->at_ms)) {
        n->at_ms = attempt->next_attempt_ms;
    }
    n->seen[n->seen_count++] = attempt->seq;
    return n->seen_count < SEEN_MAX;
}

static void put_time_unless_0(struct buf *b, const char *name, uint64_t wall_ms) {
    if (wall_ms != 0) put_time(b, name, wall_ms);
}

static void put_counts(struct buf *b, const struct webhook_stats *s) {
    put_u64(b, "delivered", s->delivered_total);
    put_u64(b, "failed", s->failed_total);
    put_u64(b, "internal_errors", s->internal_total);
    put_u64(b, "in_flight", s->in_flight);
}

static void put_health(struct buf *b, const struct webhook_stats *s) {
    put_time_unless_0(b, "last_success_time", s->last_success_ms);
    put_time_unless_0(b, "last_failure_time", s->last_failure_ms);
    put_time_unless_0(b, "failing_since", s->failing_since_ms);
    put_text(b, "breaker", slice_str(breaker_state_name(s->breaker)));
    put_time_unless_0(b, "next_probe_at", s->next_probe_ms);
}

static void put_stats(struct admin *a, struct buf *b, const struct webhook *w) {
    struct webhook_stats stats = {.delivered_total = 0};
    struct subscription_info sub = {.id = 0};
    struct next_attempt next = {.now_ms = loop_wall_ms(a->options.loop)};
    char name[LIMIT_NAME_BYTES + 1];
    webhook_subscription(w, name);
    webhooks_stats(a->options.webhooks, w, &stats);
    if (stats.failing_since_ms == 0) stats.failing_since_ms = w->failing_since_ms;
    (void)engine_subscription_get(a->options.engine, a->project, slice_str(name),
                                  &sub); /* or all of it is 0 */
    webhooks_attempts(a->options.webhooks, w, take_next_attempt, &next);
    put_open(b, "stats");
    put_counts(b, &stats);
    put_u64(b, "backlog", sub.backlog + sub.ready);
    put_u64(b, "delayed", sub.delayed);
    put_u64(b, "dead", sub.dead);
    put_health(b, &stats);
    put_time_unless_0(b, "next_attempt_at", next.at_ms);
    put_close(b);
}

static void put_secrets(struct buf *b, const struct webhook *w, uint64_t wall_ms) {
    size_t count = webhook_secrets_valid(w, wall_ms);
    put_key(b, "signing_secrets");
    buf_append_byte(b, '[');
    for (size_t i = 0; i < count; i++) {
        char shown[SECRET_SHOWN_BYTES];
        secret_show(w->secrets[i].text, shown);
        put_comma(b);
        buf_append_byte(b, '{');
        put_text(b, "truncated_secret", slice_str(shown));
        put_time_unless_0(b, "expire_time", w->secrets[i].expires_at_ms);
        buf_append_byte(b, '}');
    }
    buf_append_byte(b, ']');
}

static void put_headers(struct buf *b, const struct webhook *w) {
    if (w->headers_count == 0) return;
    put_open(b, "headers");
    for (size_t i = 0; i < w->headers_count; i++) {
        put_text(b, w->headers[i].name, slice_str(w->headers[i].value));
    }
    put_close(b);
}

void webhook_put(struct admin *a, struct buf *b, const struct webhook *w) {
    put_text(b, "id", slice_str(w->id));
    put_text_unless_empty(b, "name", slice_str(w->name));
    put_text(b, "uri", slice_str(w->uri));
    put_key(b, "subscribed_events");
    buf_append_byte(b, '[');
    for (size_t i = 0; i < w->types_count; i++) {
        put_comma(b);
        buf_append_json_string(b, slice_str(w->types[i]));
    }
    buf_append_byte(b, ']');
    put_text(b, "state", slice_str(webhook_state_name(w->state)));
    put_secrets(b, w, loop_wall_ms(a->options.loop));
    put_time(b, "create_time", w->created_at_ms);
    put_time(b, "update_time", w->updated_at_ms);
    put_text_unless_empty(b, "description", slice_str(w->description));
    put_headers(b, w);
    put_u64(b, "rate_per_s", w->rate_per_s);
    put_u64(b, "concurrency", w->concurrency);
    if (w->filter[0] != '\0') {
        put_key(b, "filter");
        buf_append_str(b, w->filter);
    }
    put_bool(b, "paused", w->paused);
    put_text_unless_empty(b, "disabled_reason", slice_str(w->disabled_reason));
    put_stats(a, b, w);
}

void webhooks_show(struct admin *a, const struct http_request *r, struct slice last) {
    const struct webhook *w =
        registry_get(webhooks_registry(a->options.webhooks), a->project, last);
    if (w == NULL) {
        answer_not_found(a, r->handle, "webhook", last, NOT_FOUND);
        return;
    }
    webhook_put(a, answer_begin(a), w);
    answer_send(a, r->handle, 200);
}

const struct webhook *webhook_find(struct admin *a, const struct http_request *r, struct slice id) {
    const struct webhook *w =
        registry_latest(webhooks_registry(a->options.webhooks), a->project, id);
    if (w == NULL) answer_not_found(a, r->handle, "webhook", id, NOT_FOUND);
    return w;
}

/* ---- list ---- */

struct place {
    uint64_t created_at_ms;
    char id[TOKEN_SIZE];
};

/* The place of a token: "1795251600000-k0h9q3..."; false: it is none. */
static bool read_place(const char *text, struct place *out) {
    const char *dash = strchr(text, '-');
    if (dash == NULL || strlen(dash + 1) >= sizeof out->id) return false;
    snprintf(out->id, sizeof out->id, "%s", dash + 1);
    return slice_to_u64(slice_of(text, (size_t)(dash - text)), &out->created_at_ms);
}

/* More than the largest page is the largest page, and 0 is no wish, as with Gemini. */
static bool read_page_size(const struct http_request *r, size_t *out, struct refusal *f) {
    char text[32];
    uint64_t size = 0;
    int found = http_query_get(r, "page_size", text, sizeof text);
    if (found < 0 || (found == 1 && !slice_to_u64(slice_str(text), &size))) {
        return refuse_value(f, slice_str(text), "page_size", "it must be a whole number");
    }
    if (size == 0) size = LIMIT_PAGE_SIZE_DEFAULT;
    *out = size < LIMIT_PAGE_SIZE ? (size_t)size : LIMIT_PAGE_SIZE;
    return true;
}

void webhooks_list(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    const struct registry *registry = webhooks_registry(a->options.webhooks);
    const struct webhook *w = NULL, *shown = NULL;
    struct refusal f;
    struct place place = {.created_at_ms = 0};
    char token[TOKEN_SIZE];
    size_t size = 0;
    bool has_token = false;
    if (!read_page_size(r, &size, &f) || !query_token(r, TOKEN_LETTER, token, &has_token, &f) ||
        (has_token && !read_place(token, &place) && !refuse_token(&f))) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    w = registry_after(registry, a->project, place.created_at_ms, slice_str(place.id));
    struct buf *b = answer_begin(a);
    put_key(b, "webhooks");
    buf_append_byte(b, '[');
    for (size_t i = 0; w != NULL && i < size && b->len < LIMIT_PAGE_BYTES; i++) {
        put_comma(b);
        buf_append_byte(b, '{');
        webhook_put(a, b, w);
        put_close(b);
        shown = w;
        w = registry_after(registry, a->project, w->created_at_ms, slice_str(w->id));
    }
    buf_append_byte(b, ']');
    if (w != NULL && shown != NULL) {
        snprintf(token, sizeof token, "%" PRIu64 "-%s", shown->created_at_ms, shown->id);
        put_token(b, TOKEN_LETTER, token);
    }
    answer_send(a, r->handle, 200);
}

/* ---- attempts ---- */

static bool put_attempt(void *ctx, const struct attempt_info *attempt) {
    struct buf *b = ctx;
    put_comma(b);
    buf_append_byte(b, '{');
    put_time(b, "time", attempt->at_ms);
    if (attempt->seq == 0) put_bool(b, "ping", true);
    else put_u64(b, "seq", attempt->seq);
    put_text(b, "type", attempt->type);
    put_u64(b, "attempt", attempt->number);
    put_bool(b, "ok", attempt->ok);
    if (attempt->status != 0) put_u64(b, "status", (uint64_t)attempt->status);
    put_text_unless_empty(b, "error", attempt->error);
    put_text_unless_empty(b, "detail", attempt->detail);
    put_text_unless_empty(b, "response", attempt->response);
    put_u64(b, "duration_ms", attempt->duration_ms);
    put_time_unless_0(b, "next_attempt_at", attempt->next_attempt_ms);
    buf_append_byte(b, '}');
    return b->len < LIMIT_PAGE_BYTES;
}

void webhooks_list_attempts(struct admin *a, const struct http_request *r, struct slice last) {
    const struct webhook *w =
        registry_get(webhooks_registry(a->options.webhooks), a->project, last);
    if (w == NULL) {
        answer_not_found(a, r->handle, "webhook", last, NOT_FOUND);
        return;
    }
    struct buf *b = answer_begin(a);
    put_key(b, "attempts");
    buf_append_byte(b, '[');
    webhooks_attempts(a->options.webhooks, w, put_attempt, b);
    buf_append_byte(b, ']');
    answer_send(a, r->handle, 200);
}

/* ---- endpoints of dynamic webhooks ---- */

void webhook_endpoints_list(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    if (!query_none(a, r)) return;
    struct buf *b = answer_begin(a);
    struct dynamic_info info;
    put_key(b, "endpoints");
    buf_append_byte(b, '[');
    bool more = webhooks_dynamic_next(a->options.webhooks, "", &info);
    while (more && b->len < LIMIT_PAGE_BYTES) {
        put_comma(b);
        buf_append_byte(b, '{');
        put_text(b, "origin", slice_str(info.origin));
        put_counts(b, &info.stats);
        put_health(b, &info.stats);
        put_close(b);
        more = webhooks_dynamic_next(a->options.webhooks, info.origin, &info);
    }
    buf_append_byte(b, ']');
    if (more) put_bool(b, "truncated", true);
    answer_send(a, r->handle, 200);
}
