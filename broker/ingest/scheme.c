/* The table. To add a provider: a rule for its signature, a rule for its envelope, a row here, a
 * recipe in docs/providers.md and a row in tests/unit/test_scheme.c. */
#include "broker/ingest/scheme.h"

#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/base64.h"

#define GOOGLE_KEYS "https://generativelanguage.googleapis.com/.well-known/jwks.json"

static const struct hmac_rule github_rule = {
    .signature = "x-hub-signature-256",
    .prefix = "sha256=",
    .signed_bytes = "{body}",
};
static const struct envelope_rule github_envelope = {
    .type_header = "x-github-event",
    .type_suffix = "action",
    .subject = {"repository.full_name", "organization.login", "sender.login"},
    .subject_number = {"pull_request.number", "issue.number", "number"},
};
static const char *const github_headers[] = {"x-github-*", NULL};

static const struct hmac_rule stripe_rule = {
    .signature = "stripe-signature",
    .prefix = "v1",
    .list = LIST_PAIRS,
    .signed_bytes = "{timestamp}.{body}",
};
static const struct envelope_rule stripe_envelope = {
    .type = {"type"},
    .subject = {"data.object.id"},
    .time = "created",
    .time_seconds = true,
    .id = "id",
    .metadata = {"data.object.metadata"},
};

static const struct hmac_rule slack_rule = {
    .signature = "x-slack-signature",
    .timestamp = "x-slack-request-timestamp",
    .prefix = "v0=",
    .signed_bytes = "v0:{timestamp}:{body}",
};
static const struct envelope_rule slack_envelope = {
    .type = {"event.type", "type"},
    .subject = {"event.channel", "event.item.channel", "team_id"},
    .time = "event_time",
    .time_seconds = true,
    .id = "event_id",
};
static const char *const slack_headers[] = {"x-slack-retry-num", "x-slack-retry-reason", NULL};

static const struct hmac_rule shopify_rule = {
    .signature = "x-shopify-hmac-sha256",
    .prefix = "",
    .encoding = ENCODING_BASE64,
    .signed_bytes = "{body}",
};
static const struct envelope_rule shopify_envelope = {
    .type_header = "x-shopify-topic",
    .type_slash = '/',
    .subject = {"admin_graphql_api_id", "id"},
    .time_header = "x-shopify-triggered-at",
    .time = "updated_at",
};
static const char *const shopify_headers[] = {"x-shopify-*", NULL};

static const struct envelope_rule openai_envelope = {
    .type = {"type"},
    .subject = {"data.id"},
    .time = "created_at",
    .time_seconds = true,
    .metadata = {"data.metadata", "user_metadata"},
};

static const char *const webhook_headers[] = {"webhook-timestamp", "svix-timestamp", NULL};
static const char *const twilio_headers[] = {"i-twilio-idempotency-token", NULL};
static const struct envelope_rule twilio_envelope = {.type = {"type"}, .subject = {"id"}};

static const struct scheme table[] = {
    {.name = "standard-webhooks",
     .secrets = SECRETS_WHSEC,
     .makes_secret = true,
     .secrets_optional = true,
     .options = OPTIONS_TIME | OPTIONS_JWKS,
     .verify = scheme_verify_standard,
     .envelope = &envelope_standard,
     .headers = webhook_headers},
    {.name = "gemini",
     .secrets = SECRETS_WHSEC,
     .secrets_optional = true,
     .options = OPTIONS_TIME | OPTIONS_JWKS | OPTIONS_JWT,
     .jwks_url = GOOGLE_KEYS,
     .verify = scheme_verify_standard,
     .envelope = &envelope_standard,
     .headers = webhook_headers},
    {.name = "openai",
     .secrets = SECRETS_OPENAI,
     .options = OPTIONS_TIME,
     .verify = scheme_verify_standard,
     .envelope = &openai_envelope,
     .headers = webhook_headers},
    {.name = "github",
     .secrets = SECRETS_TEXT,
     .makes_secret = true,
     .options = OPTIONS_UNSIGNED_ID,
     .verify = scheme_verify_hmac,
     .rule = &github_rule,
     .id = ID_UNSIGNED,
     .id_header = "x-github-delivery",
     .envelope = &github_envelope,
     .headers = github_headers},
    {.name = "stripe",
     .secrets = SECRETS_TEXT,
     .options = OPTIONS_TIME,
     .verify = scheme_verify_hmac,
     .rule = &stripe_rule,
     .envelope = &stripe_envelope},
    {.name = "slack",
     .secrets = SECRETS_TEXT,
     .options = OPTIONS_TIME,
     .verify = scheme_verify_hmac,
     .rule = &slack_rule,
     .envelope = &slack_envelope,
     .headers = slack_headers,
     .challenge = "url_verification"},
    {.name = "shopify",
     .secrets = SECRETS_TEXT,
     .options = OPTIONS_UNSIGNED_ID,
     .verify = scheme_verify_hmac,
     .rule = &shopify_rule,
     .id = ID_UNSIGNED,
     .id_header = "x-shopify-webhook-id",
     .envelope = &shopify_envelope,
     .headers = shopify_headers},
    {.name = "twilio",
     .secrets = SECRETS_TEXT,
     .options = OPTIONS_URL,
     .verify = scheme_verify_twilio,
     .envelope = &twilio_envelope,
     .read_form = scheme_read_twilio,
     .headers = twilio_headers},
    {.name = "hmac",
     .secrets = SECRETS_TEXT,
     .makes_secret = true,
     .options = OPTIONS_TIME | OPTIONS_HMAC | OPTIONS_ID | OPTIONS_UNSIGNED_ID,
     .verify = scheme_verify_hmac,
     .id = ID_UNSIGNED,
     .envelope = &envelope_standard},
    {.name = "bearer",
     .secrets = SECRETS_TOKEN,
     .makes_secret = true,
     .options = OPTIONS_TOKEN | OPTIONS_ID,
     .verify = scheme_verify_bearer,
     .id = ID_GIVEN,
     .id_header = "webhook-id",
     .envelope = &envelope_standard},
    {.name = "none",
     .secrets = SECRETS_NONE,
     .secrets_optional = true,
     .options = OPTIONS_ID,
     .verify = scheme_verify_none,
     .id = ID_GIVEN,
     .id_header = "webhook-id",
     .envelope = &envelope_standard},
};

#define SCHEMES (sizeof table / sizeof table[0])

const struct scheme *scheme_at(size_t i) {
    return i < SCHEMES ? &table[i] : NULL;
}

const struct scheme *scheme_default(void) {
    return &table[0];
}

const struct scheme *scheme_find(struct slice name) {
    for (size_t i = 0; i < SCHEMES; i++) {
        if (slice_eq_str(name, table[i].name)) return &table[i];
    }
    return NULL;
}

/* ---- what verifications have in common ---- */

enum err verification_refuse(struct verification *v, enum err err, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(v->why, sizeof v->why, fmt, args);
    va_end(args);
    return err;
}

/* Which of two headers of one name was signed nobody can say. */
enum err verification_header(struct verification *v, const char *name, struct slice *out) {
    size_t count = 0;
    *out = http_header_get(v->request, name, &count);
    if (count > 1) {
        return verification_refuse(v, ERR_SIGNATURE_MALFORMED,
                                   "the header %s is there more than once", name);
    }
    if (out->len > 0) return ERR_OK;
    return verification_refuse(v, ERR_SIGNATURE_MISSING, "the header %s is missing", name);
}

uint64_t verification_tolerance_s(const struct verification *v) {
    uint64_t own = v->source->options.tolerance_s;
    return own == 0 ? SCHEME_TOLERANCE_S : own;
}

enum err verification_time(struct verification *v, const char *what, uint64_t timestamp_s) {
    uint64_t now_s = v->wall_ms / 1000, tolerance_s = verification_tolerance_s(v);
    if (timestamp_s < now_s && now_s - timestamp_s > tolerance_s) {
        return verification_refuse(v, ERR_TIMESTAMP_TOO_OLD,
                                   "%s is more than %llu s ago: sign every attempt afresh", what,
                                   (unsigned long long)tolerance_s);
    }
    if (timestamp_s > now_s && timestamp_s - now_s > tolerance_s) {
        return verification_refuse(v, ERR_TIMESTAMP_IN_FUTURE,
                                   "%s is more than %llu s ahead: compare the clocks", what,
                                   (unsigned long long)tolerance_s);
    }
    return ERR_OK;
}

void verification_hash_id(struct verification *v, const struct slice *parts, size_t count) {
    uint8_t digest[32];
    char hex[2 * sizeof digest + 1];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    CRYPTO_CHECK(ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1);
    CRYPTO_CHECK(EVP_DigestUpdate(ctx, v->source->name, strlen(v->source->name) + 1) == 1);
    for (size_t i = 0; i < count; i++) {
        uint64_t len = parts[i].len; /* so that no two lists of parts are the same bytes */
        CRYPTO_CHECK(EVP_DigestUpdate(ctx, &len, sizeof len) == 1);
        if (len > 0) CRYPTO_CHECK(EVP_DigestUpdate(ctx, parts[i].data, parts[i].len) == 1);
    }
    CRYPTO_CHECK(EVP_DigestFinal_ex(ctx, digest, NULL) == 1);
    EVP_MD_CTX_free(ctx);
    hex_encode(slice_of(digest, sizeof digest / 2), hex);
    snprintf(v->id_text, sizeof v->id_text, "sha256:%s", hex);
    v->id = slice_str(v->id_text);
}

enum err verification_no_keys(struct verification *v) {
    return verification_refuse(v, ERR_KEYS_UNAVAILABLE,
                               "the sender's public keys are being fetched: send it again later");
}

enum err scheme_verify(struct verification *v) {
    const struct source *s = v->source;
    v->why[0] = v->by[0] = '\0';
    v->id = v->signed_time = slice_of(NULL, 0);
    if (s->had_secrets && s->secrets_count == 0 && source_jwks_url(s)[0] == '\0') {
        return verification_refuse(v, ERR_SIGNATURE_MISMATCH,
                                   "every secret of this source has expired: give it a new one");
    }
    return s->scheme->verify(v);
}
