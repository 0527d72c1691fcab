/* How an event is sent, when all is well:
 *   attempt_new     copies what is sent out of the hand-out: the payload, its type, where to
 *   attempt_begin   signs it for this moment and gives it to the HTTP client
 *   on_done         a 2xx: ACK; the endpoint's window widens
 *
 * What can go wrong: the endpoint fails (NACK: a fail, retried by the subscription's backoff or
 * after what Retry-After asks for); it is gone (410: its webhook is disabled; of a dynamic one the
 * event is a dead letter); we fail (no memory, no descriptor: given back without a fail); too much
 * is under way (waits, or is given back). */
#include <inttypes.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/fields/put.h"
#include "broker/webhooks/payload.h"
#include "broker/webhooks/room.h"

#define BODY_BYTES_MAX    (8ULL * LIMIT_EVENT_BYTES) /* every byte of it an escape */
#define HEADERS_BYTES_MAX (32 * KIB)
#define JWT_LIFE_S        300
#define MESSAGE_BYTES     LIMIT_ERROR_MESSAGE_BYTES

/* ---- life ---- */

static struct attempt *attempt_make(struct webhooks *w, const char *uri) {
    struct attempt *a = mem_zalloc(sizeof *a);
    a->room = w;
    a->uri = mem_strdup(uri);
    list_init(&a->queued);
    buf_init(&a->body, BODY_BYTES_MAX);
    list_push_back(&w->attempts, &a->link);
    w->attempts_count++;
    return a;
}

/* A publisher's text becomes a header: what could end the line is left out altogether. */
static void copy_content_type(struct attempt *a, struct slice type) {
    bool fits = slice_to_cstr(type, a->content_type, sizeof a->content_type);
    for (size_t i = 0; fits && i < type.len; i++) fits = type.data[i] >= ' ' && type.data[i] < 0x7F;
    if (!fits) a->content_type[0] = '\0';
}

struct attempt *attempt_new(struct webhooks *w, const struct effect *deliver, const char *uri) {
    const struct event *event = &deliver->u.deliver.event;
    struct attempt *a = attempt_make(w, uri);
    a->attachment = deliver->u.deliver.attachment;
    a->tag = deliver->u.deliver.tag;
    a->seq = event->seq;
    a->fails = deliver->u.deliver.fails;
    a->since_ms =
        event->deliver_at_ms > event->received_at_ms ? event->deliver_at_ms : event->received_at_ms;
    a->ages = !deliver->u.deliver.replay && !deliver->u.deliver.redrive;
    bool fits = slice_to_cstr(event->type, a->type, sizeof a->type);
    if (!fits) a->type[0] = '\0'; /* a NUL in it: nobody's type */
    payload_write(event, &a->body);
    CHECK(!a->body.overflow);
    copy_content_type(a, payload_content_type(event));
    w->bytes += a->body.len;
    return a;
}

struct attempt *attempt_new_ping(struct webhooks *w, const struct webhook *webhook,
                                 struct registered *r) {
    struct attempt *a = attempt_make(w, webhook->uri);
    struct buf *b = &a->body;
    a->registered = r;
    snprintf(a->type, sizeof a->type, "webhook.ping");
    snprintf(a->content_type, sizeof a->content_type, "application/json");
    buf_append_byte(b, '{');
    put_text(b, "type", slice_str(a->type));
    put_text(b, "version", slice_str("v1"));
    put_time(b, "timestamp", loop_wall_ms(w->options.loop));
    put_open(b, "data");
    put_text(b, "id", slice_str(webhook->id));
    put_close(b);
    buf_append_byte(b, '}');
    w->bytes += b->len;
    return a;
}

void attempt_free(struct webhooks *w, struct attempt *a) {
    if (a->transfer != NULL) http_client_cancel(w->client, a->transfer);
    list_unlink(&a->link);
    list_unlink(&a->queued);
    w->attempts_count--;
    w->bytes -= a->body.len;
    buf_free(&a->body);
    free(a->uri);
    free(a);
}

bool attempts_full(const struct webhooks *w) {
    return w->bytes >= LIMIT_OUTBOUND_BYTES;
}

/* ---- settling ---- */

static void settle(struct webhooks *w, uint64_t attachment, uint64_t tag, struct command *c) {
    struct tag_range range = {tag, tag};
    if (attachment == 0) return; /* a ping */
    c->u.settle.attachment = attachment;
    c->u.settle.ranges = &range;
    c->u.settle.count = 1;
    webhooks_step(w, c, RID_NONE, 0);
}

static void ack(struct webhooks *w, const struct attempt *a) {
    struct command c = {.kind = COMMAND_ACK};
    settle(w, a->attachment, a->tag, &c);
}

static void nack(struct webhooks *w, uint64_t attachment, uint64_t tag, enum nack_kind kind,
                 uint64_t delay_ms, const struct failure *failure) {
    struct command c = {.kind = COMMAND_NACK,
                        .u.settle = {.kind = kind, .delay_ms = delay_ms, .failure = *failure}};
    settle(w, attachment, tag, &c);
}

/* Spread over a fifth more, so that what waited together does not come together. */
static uint64_t spread(struct webhooks *w, uint64_t delay_ms) {
    return delay_ms + prng_below(&w->prng, delay_ms / 5 + 1);
}

void attempt_release(struct webhooks *w, struct attempt *a, uint64_t delay_ms) {
    const struct failure none = {.message = {NULL, 0}};
    nack(w, a->attachment, a->tag, NACK_RELEASE, spread(w, delay_ms), &none);
    attempt_free(w, a);
}

void deliver_release(struct webhooks *w, const struct effect *deliver, uint64_t delay_ms) {
    const struct failure none = {.message = {NULL, 0}};
    nack(w, deliver->u.deliver.attachment, deliver->u.deliver.tag, NACK_RELEASE,
         spread(w, delay_ms), &none);
}

void deliver_reject(struct webhooks *w, const struct effect *deliver, const char *why) {
    const struct failure failure = {.type = slice_str("uri"), .message = slice_str(why)};
    nack(w, deliver->u.deliver.attachment, deliver->u.deliver.tag, NACK_REJECT, 0, &failure);
}

/* ---- the outcome ---- */

/* What an endpoint that is too busy asks for; 0: it is not too busy. One that does not say how long
 * gets the shortest pause. */
static uint64_t asked_pause_ms(const struct webhooks *w, const struct http_result *res,
                               uint64_t wall_ms) {
    bool busy = res->failure == HTTP_ANSWERED && (res->status == 429 || res->status == 502 ||
                                                  res->status == 503 || res->status == 504);
    if (!busy) return 0;
    uint64_t ms = http_retry_after_ms(res->retry_after, wall_ms);
    if (ms == UINT64_MAX || ms < w->options.backoff_min_ms) ms = w->options.backoff_min_ms;
    return ms < RETRY_AFTER_MS_MAX ? ms : RETRY_AFTER_MS_MAX;
}

static void failed(struct webhooks *w, struct attempt *a, const struct http_result *res) {
    struct engine_time t = webhooks_time(w);
    struct endpoint *e = a->registered != NULL ? &a->registered->endpoint : &a->dynamic->endpoint;
    uint64_t pause_ms = asked_pause_ms(w, res, t.wall_ms);
    const struct policy policy = webhooks_base_policy(w, slice_of(NULL, 0));
    uint64_t wait_ms = policy_backoff_ms(&policy, a->fails + 1), next_ms = 0;
    bool gone = res->failure == HTTP_ANSWERED && res->status == 410;
    char message[MESSAGE_BYTES];
    if (res->failure == HTTP_ANSWERED) snprintf(message, sizeof message, "HTTP %d", res->status);
    else snprintf(message, sizeof message, "%s", res->detail);
    const struct failure failure = {.type = slice_str(history_error(res)),
                                    .message = slice_str(message)};
    endpoint_failed(e, pause_ms, t.now_ms, t.wall_ms);
    /* The backoff has a jitter of the engine's; what was asked for has one of ours. */
    uint64_t delay_ms = DELAY_BY_POLICY;
    if (pause_ms > wait_ms) {
        delay_ms = spread(w, pause_ms);
        wait_ms = delay_ms;
    }
    bool last = a->ages && t.wall_ms + wait_ms > a->since_ms + w->options.max_age_ms;
    if (a->attachment != 0 && !last) next_ms = t.wall_ms + wait_ms;
    bool reject = gone && a->dynamic != NULL;
    nack(w, a->attachment, a->tag, reject ? NACK_REJECT : NACK_FAIL, delay_ms, &failure);
    if (a->registered != NULL) history_failure(w, a->registered, a, res, t.wall_ms, next_ms);
}

static void on_done(void *ctx, const struct http_result *res) {
    struct attempt *a = ctx;
    struct webhooks *w = a->room;
    struct registered *r = a->registered;
    struct dynamic *d = a->dynamic;
    struct endpoint *e = r != NULL ? &r->endpoint : &d->endpoint;
    uint64_t wall_ms = loop_wall_ms(w->options.loop);
    bool answered = res->failure == HTTP_ANSWERED, gone = answered && res->status == 410;
    a->transfer = NULL;
    if (answered && res->status >= 200 && res->status <= 299) {
        endpoint_succeeded(e, res->duration_ms, wall_ms);
        ack(w, a);
        if (r != NULL) history_success(r, a, res, wall_ms);
        attempt_free(w, a);
    } else if (res->failure == HTTP_OURS) {
        endpoint_ended(e, true);
        attempt_release(w, a, AGAIN_MS);
    } else {
        failed(w, a, res);
        attempt_free(w, a);
    }
    if (r != NULL) registered_settled(w, r, gone);
    else dynamic_settled(w, d);
    attempts_pump(w);
}

/* ---- sending ---- */

struct headers {
    struct http_outbound_header v[5 + LIMIT_WEBHOOK_HEADERS];
    size_t count;
    char id[96], timestamp[24];
};

static void add(struct headers *h, const char *name, const char *value) {
    h->v[h->count++] = (struct http_outbound_header){name, value};
}

/* Every secret that has not expired signs: during a rotation a receiver may know either. */
static void sign_static(struct webhooks *w, const struct attempt *a, const struct headers *h,
                        const struct webhook *webhook, uint64_t wall_ms) {
    for (size_t i = 0; i < webhook->secrets_count; i++) {
        const struct webhook_secret *s = &webhook->secrets[i];
        if (s->expires_at_ms != 0 && s->expires_at_ms <= wall_ms) continue;
        if (w->scratch.len > 0) buf_append_byte(&w->scratch, ' ');
        standard_webhooks_sign(w->hmac, &s->secret, slice_str(h->id), slice_str(h->timestamp),
                               buf_slice(&a->body), &w->scratch);
    }
}

static void hash_hex(struct slice bytes, char out[2 * SHA256_DIGEST_LENGTH + 1]) {
    uint8_t hash[SHA256_DIGEST_LENGTH];
    SHA256(bytes.data, bytes.len, hash);
    for (size_t i = 0; i < sizeof hash; i++) snprintf(out + 2 * i, 3, "%02x", hash[i]);
}

static void sign_dynamic(struct webhooks *w, const struct attempt *a, const struct headers *h,
                         uint64_t wall_ms) {
    const struct signing_key *key = keys_active(w->keys);
    if (signing_key_alg(key) == SIGNING_ED25519) {
        signing_key_v1a(key, slice_str(h->id), slice_str(h->timestamp), buf_slice(&a->body),
                        &w->scratch);
        return;
    }
    struct buf claims;
    char hash[2 * SHA256_DIGEST_LENGTH + 1];
    const char *audience = w->options.audience;
    hash_hex(buf_slice(&a->body), hash);
    buf_init(&claims, LIMIT_URI_BYTES * 6 + KIB);
    buf_append_byte(&claims, '{');
    put_text(&claims, "iss", slice_str("bellhop"));
    put_text(&claims, "aud", slice_str(audience[0] == '\0' ? a->uri : audience));
    put_u64(&claims, "iat", wall_ms / 1000);
    put_u64(&claims, "exp", wall_ms / 1000 + JWT_LIFE_S);
    put_text(&claims, "jti", slice_str(h->id));
    put_text(&claims, "body_sha256", slice_str(hash));
    buf_append_byte(&claims, '}');
    signing_key_jwt(key, buf_slice(&claims), &w->scratch);
    buf_free(&claims);
}

static void send_now(struct webhooks *w, struct attempt *a) {
    const struct registered *r = a->registered;
    const struct webhook *webhook =
        r == NULL ? NULL : registry_get(w->registry, r->project, slice_str(r->id));
    uint64_t wall_ms = loop_wall_ms(w->options.loop);
    struct headers h = {.count = 0};
    snprintf(h.id, sizeof h.id, "msg_%s_%" PRIu64, w->instance, a->seq);
    if (a->attachment == 0) {
        snprintf(h.id, sizeof h.id, "ping_%s_%" PRIu64 "_%" PRIu64, w->instance, wall_ms,
                 w->pings_total++);
    }
    snprintf(h.timestamp, sizeof h.timestamp, "%" PRIu64, wall_ms / 1000);
    buf_clear(&w->scratch);
    if (a->dynamic != NULL) {
        sign_dynamic(w, a, &h, wall_ms);
    } else {
        CHECK(webhook != NULL); /* its attempts go with it */
        sign_static(w, a, &h, webhook, wall_ms);
    }
    buf_append_byte(&w->scratch, '\0');
    CHECK(!w->scratch.overflow);
    if (a->content_type[0] != '\0') add(&h, "content-type", a->content_type);
    add(&h, STANDARD_WEBHOOKS_ID, h.id);
    add(&h, STANDARD_WEBHOOKS_TIMESTAMP, h.timestamp);
    add(&h, STANDARD_WEBHOOKS_SIGNATURE, (const char *)w->scratch.data);
    for (size_t i = 0; webhook != NULL && i < webhook->headers_count; i++) {
        add(&h, webhook->headers[i].name, webhook->headers[i].value);
    }
    const struct http_outbound request = {
        .uri = a->uri,
        .body = buf_slice(&a->body),
        .headers = h.v,
        .headers_count = h.count,
        .timeout_ms = w->options.timeout_ms,
        .response_max = LIMIT_WEBHOOK_RESPONSE_KEPT,
        .on_done = on_done,
        .ctx = a,
    };
    a->transfer = http_client_send(w->client, &request);
}

void attempt_begin(struct webhooks *w, struct attempt *a) {
    if (http_client_active(w->client) < LIMIT_OUTBOUND_REQUESTS) send_now(w, a);
    else list_push_back(&w->waiting, &a->queued);
}

void attempts_pump(struct webhooks *w) {
    while (!list_empty(&w->waiting) && http_client_active(w->client) < LIMIT_OUTBOUND_REQUESTS) {
        struct attempt *a = CONTAINER_OF(list_first(&w->waiting), struct attempt, queued);
        list_unlink(&a->queued);
        send_now(w, a);
    }
}
