/* The keys of dynamic webhooks: their public halves for everybody, and their list and rotation for
 * operators. */
#include "broker/admin/query.h"

#define JWKS_HEADERS "Cache-Control: public, max-age=600\r\n"

/* A rotation's commands are the webhooks room's. This one is stepped behind them, so that its
 * effect says that they are durable; there is never such an entry. */
#define BARRIER "webhook-keys-written"

static const char *const none[] = {NULL};

void webhook_keys_jwks(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct keys *keys = webhooks_keys(a->options.webhooks);
    http_respond(*a->options.http, r->handle, 200, NULL, JWKS_HEADERS,
                 keys_jwks(keys, loop_wall_ms(a->options.loop)));
}

static void answer_keys(struct admin *a, uint64_t handle) {
    static const char *const states[] = {
        [KEY_ACTIVE] = "active", [KEY_NEXT] = "next", [KEY_OLD] = "old"};
    const struct keys *keys = webhooks_keys(a->options.webhooks);
    struct key_info key;
    struct buf *b = answer_begin(a);
    put_key(b, "keys");
    buf_append_byte(b, '[');
    for (size_t i = 0; keys_get(keys, i, &key); i++) {
        put_comma(b);
        buf_append_byte(b, '{');
        put_text(b, "kid", slice_str(key.kid));
        put_text(b, "alg", slice_str(key.alg == SIGNING_ED25519 ? "EdDSA" : "RS256"));
        put_text(b, "state", slice_str(states[key.state]));
        if (key.created_at_ms != 0) put_time(b, "create_time", key.created_at_ms);
        if (key.retired_at_ms != 0) put_time(b, "retire_time", key.retired_at_ms);
        put_bool(b, "from_file", key.from_file);
        buf_append_byte(b, '}');
    }
    buf_append_byte(b, ']');
    answer_send(a, handle, 200);
}

void webhook_keys_list(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct refusal f;
    if (query_known(r, none, &f)) answer_keys(a, r->handle);
    else answer_refusal(a, r->handle, &f);
}

static void keys_written(struct admin *a, const struct pending *p, const struct effect *effect) {
    if (effect->err != ERR_OK) answer_effect_error(a, effect);
    else answer_keys(a, p->handle);
}

void webhook_keys_rotate(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct command barrier = {.kind = COMMAND_CONFIG_DELETE,
                              .u.config = {.key = slice_str(BARRIER)}};
    struct refusal f;
    const char *why = NULL;
    if (!query_known(r, none, &f) || !query_no_body(r, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    enum err err = keys_rotate(webhooks_keys(a->options.webhooks), admin_time(a), &why);
    if (err != ERR_OK) {
        http_respond_error(*a->options.http, r->handle, err, "%s", why);
        return;
    }
    pending_step(a, r, keys_written, slice_str("keys"), NULL, &barrier);
}
