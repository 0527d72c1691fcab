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
    .paths = {ENVELOPE_AT(TYPE_SUFFIX, "action"), ENVELOPE_AT2(SUBJECT, "repository", "full_name"),
              ENVELOPE_AT2(SUBJECT, "organization", "login"),
              ENVELOPE_AT2(SUBJECT, "sender", "login"),
              ENVELOPE_AT2(SUBJECT_NUMBER, "pull_request", "number"),
              ENVELOPE_AT2(SUBJECT_NUMBER, "issue", "number"),
              ENVELOPE_AT(SUBJECT_NUMBER, "number")},
};
static const struct kept_header github_headers[] = {KEPT_BEGINNING("x-github-"), {.name = NULL}};

static const struct hmac_rule stripe_rule = {
    .signature = "stripe-signature",
    .prefix = "v1",
    .list = LIST_PAIRS,
    .signed_bytes = "{timestamp}.{body}",
};
static const struct envelope_rule stripe_envelope = {
    .paths = {ENVELOPE_AT(TYPE, "type"), ENVELOPE_AT3(SUBJECT, "data", "object", "id"),
              ENVELOPE_AT(TIME_SECONDS, "created"), ENVELOPE_AT(ID, "id"),
              ENVELOPE_AT3(METADATA, "data", "object", "metadata")},
};

static const struct hmac_rule slack_rule = {
    .signature = "x-slack-signature",
    .timestamp = "x-slack-request-timestamp",
    .prefix = "v0=",
    .signed_bytes = "v0:{timestamp}:{body}",
};
static const struct envelope_rule slack_envelope = {
    .paths = {ENVELOPE_AT2(TYPE, "event", "type"), ENVELOPE_AT(TYPE, "type"),
              ENVELOPE_AT2(SUBJECT, "event", "channel"),
              ENVELOPE_AT3(SUBJECT, "event", "item", "channel"), ENVELOPE_AT(SUBJECT, "team_id"),
              ENVELOPE_AT(TIME_SECONDS, "event_time"), ENVELOPE_AT(ID, "event_id")},
};
static const struct kept_header slack_headers[] = {
    KEPT_NAME("x-slack-retry-num"), KEPT_NAME("x-slack-retry-reason"), {.name = NULL}};

static const struct hmac_rule shopify_rule = {
    .signature = "x-shopify-hmac-sha256",
    .prefix = "",
    .encoding = ENCODING_BASE64,
    .signed_bytes = "{body}",
};
static const struct envelope_rule shopify_envelope = {
    .type_header = "x-shopify-topic",
    .type_slash = '/',
    .time_header = "x-shopify-triggered-at",
    .paths = {ENVELOPE_AT(SUBJECT, "admin_graphql_api_id"), ENVELOPE_AT(SUBJECT, "id"),
              ENVELOPE_AT(TIME, "updated_at")},
};
static const struct kept_header shopify_headers[] = {KEPT_BEGINNING("x-shopify-"), {.name = NULL}};

static const struct envelope_rule openai_envelope = {
    .paths = {ENVELOPE_AT(TYPE, "type"), ENVELOPE_AT2(SUBJECT, "data", "id"),
              ENVELOPE_AT(TIME_SECONDS, "created_at"), ENVELOPE_AT2(METADATA, "data", "metadata"),
              ENVELOPE_AT(METADATA, "user_metadata")},
};

static const struct kept_header webhook_headers[] = {
    KEPT_NAME("webhook-timestamp"), KEPT_NAME("svix-timestamp"), {.name = NULL}};
static const struct kept_header twilio_headers[] = {KEPT_NAME("i-twilio-idempotency-token"),
                                                    {.name = NULL}};
static const struct envelope_rule twilio_envelope = {
    .paths = {ENVELOPE_AT(TYPE, "type"), ENVELOPE_AT(SUBJECT, "id")},
};

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

enum err verification_header(struct verification *v, const char *name, struct slice *out) {
    size_t count = 0;
    *out = http_header_get(v->request, name, &count);
    return verification_one(v, name, *out, count);
}

/* Which of two headers of one name was signed nobody can say. */
enum err verification_one(struct verification *v, const char *name, struct slice value,
                          size_t count) {
    if (count > 1) {
        return verification_refuse(v, ERR_SIGNATURE_MALFORMED,
                                   "the header %s is there more than once", name);
    }
    if (value.len > 0) return ERR_OK;
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

/* Said of every webhook: no printf. */
void verification_by_secret(struct verification *v, const char *how, size_t secret) {
    char place[] = "secrets[0]";
    size_t len = strlen(how);
    _Static_assert(LIMIT_SECRETS <= 10, "one digit is enough");
    CHECK(secret < LIMIT_SECRETS && len + sizeof place <= sizeof v->by);
    place[sizeof "secrets[" - 1] = (char)('0' + secret);
    memcpy(v->by, how, len);
    memcpy(v->by + len, place, sizeof place);
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
