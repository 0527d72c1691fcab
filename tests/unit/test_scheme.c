/* Every scheme against published vectors, or against signatures that are made here with nothing of
 * the code under test; and that no other byte passes: each byte of body, id, timestamp and
 * signature is changed to every other value. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <openssl/evp.h>
#include <stdio.h>

#include "base/base64.h"
#include "broker/ingest/scheme.h"

#define NOW_S   1614265330ULL
#define KEY_SET "https://keys.example/jwks"
#define MAX     2048

struct fixture {
    struct scheme_tools tools;
    struct jwks_set *fetching;
    struct signing_key *ed25519, *rsa;
};

static bool on_start(void *ctx, struct jwks_set *set, const char *url) {
    struct fixture *f = ctx;
    assert_string_equal(url, KEY_SET);
    f->fetching = set;
    return true;
}

static void on_cancel(void *ctx, struct jwks_set *set) {
    struct fixture *f = ctx;
    assert_ptr_equal(f->fetching, set);
    f->fetching = NULL;
}

static void fetched(struct fixture *f) {
    struct buf b;
    buf_init(&b, 8192);
    buf_append_str(&b, "{\"keys\":[");
    signing_key_jwk(f->ed25519, &b);
    buf_append_byte(&b, ',');
    signing_key_jwk(f->rsa, &b);
    buf_append_str(&b, "]}");
    struct jwks_set *set = f->fetching;
    f->fetching = NULL;
    jwks_fetched(set, buf_slice(&b), NULL, 1000, 1000);
    buf_free(&b);
}

static int setup(void **state) {
    static struct fixture f;
    const struct jwks_hooks hooks = {on_start, on_cancel, &f};
    f.tools.jwks = jwks_new(&hooks);
    f.ed25519 = signing_key_generate(SIGNING_ED25519);
    f.rsa = signing_key_generate(SIGNING_RS256);
    jwks_get(f.tools.jwks, KEY_SET, 0);
    fetched(&f);
    *state = &f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    jwks_free(&f->tools.jwks);
    signing_key_free(&f->ed25519);
    signing_key_free(&f->rsa);
    return 0;
}

/* ---- a request of a provider ---- */

struct sample {
    const char *what;
    char source[MAX]; /* as it is stored */
    char body[MAX], query[256];
    struct {
        char name[64], value[MAX];
        bool is_signed;
    } headers[4];
    size_t headers_count;
    bool slow; /* public keys: fewer values are tried of each byte */
};

static void add_header(struct sample *s, const char *name, const char *value) {
    size_t i = s->headers_count++;
    snprintf(s->headers[i].name, sizeof s->headers[i].name, "%s", name);
    snprintf(s->headers[i].value, sizeof s->headers[i].value, "%s", value);
    s->headers[i].is_signed = true;
}

static enum err verify_at(struct fixture *f, const struct sample *s, uint64_t now_s,
                          struct verification *v) {
    struct source source = {.name = "src"};
    struct http_header headers[4];
    const char *why = NULL;
    if (!source_decode(slice_str(s->source), &source, &why)) fail_msg("%s: %s", s->what, why);
    for (size_t i = 0; i < s->headers_count; i++) {
        headers[i] =
            (struct http_header){slice_str(s->headers[i].name), slice_str(s->headers[i].value)};
    }
    const struct http_request r = {
        .method = slice_str("POST"),
        .headers = headers,
        .headers_count = s->headers_count,
        .query = slice_str(s->query),
        .body = slice_str(s->body),
    };
    *v = (struct verification){.tools = &f->tools,
                               .source = &source,
                               .request = &r,
                               .wall_ms = now_s * 1000,
                               .now_ms = 2000};
    enum err err = scheme_verify(v);
    source_clear(&source);
    return err;
}

static enum err verify(struct fixture *f, const struct sample *s) {
    struct verification v;
    return verify_at(f, s, NOW_S, &v);
}

static void expect(struct fixture *f, const struct sample *s, enum err want) {
    struct verification v;
    enum err got = verify_at(f, s, NOW_S, &v);
    if (got != want) {
        fail_msg("%s: %s instead of %s: %s", s->what, err_info((int)got).word,
                 err_info((int)want).word, v.why);
    }
}

static void hmac_text(const char *digest, const char *key, const char *message, bool hex,
                      char out[200]) {
    uint8_t mac[64];
    size_t len = 0;
    assert_non_null(EVP_Q_mac(NULL, "HMAC", NULL, digest, NULL, key, strlen(key),
                              (const uint8_t *)message, strlen(message), mac, sizeof mac, &len));
    if (hex) hex_encode(slice_of(mac, len), out);
    else base64_encode(slice_of(mac, len), out);
}

#define SW1_SOURCE                                                                                 \
    "{\"scheme\":\"standard-webhooks\",\"secrets\":[\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]}"
#define SW1_SIGNATURE "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
#define SW1_ID        "msg_p5jXN8AQM9LWM0D4loKWxJek"
#define SW1_BODY      "{\"test\": 2432232314}"

static struct sample sample_standard(const char *prefix, const char *source,
                                     const char *signature) {
    static const char *const parts[] = {"id", "timestamp", "signature"};
    const char *const values[] = {SW1_ID, "1614265330", signature};
    struct sample s = {.what = "standard-webhooks"};
    char name[64];
    snprintf(s.source, sizeof s.source, "%s", source);
    snprintf(s.body, sizeof s.body, SW1_BODY);
    for (size_t i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s-%s", prefix, parts[i]);
        add_header(&s, name, values[i]);
    }
    return s;
}

static struct sample sample_github(void) {
    struct sample s = {
        .what = "github",
        .source = "{\"scheme\":\"github\",\"secrets\":[\"It's a Secret to Everybody\"]}",
        .body = "Hello, World!"};
    add_header(&s, "X-Hub-Signature-256",
               "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
    return s;
}

static struct sample sample_stripe(void) {
    struct sample s = {.what = "stripe",
                       .source = "{\"scheme\":\"stripe\",\"secrets\":[\"whsec_stripe_test\"]}",
                       .body = "{\n  \"id\": \"evt_1\",\n  \"object\": \"event\"\n}\n"};
    char message[MAX + 32], mac[200], header[300];
    snprintf(message, sizeof message, "%llu.%s", NOW_S, s.body);
    hmac_text("SHA256", "whsec_stripe_test", message, true, mac);
    snprintf(header, sizeof header, "t=%llu,v1=%s", NOW_S, mac);
    add_header(&s, "Stripe-Signature", header);
    return s;
}

static struct sample sample_slack(void) {
    struct sample s = {
        .what = "slack",
        .source = "{\"scheme\":\"slack\",\"secrets\":[\"8f742231b10e8888abcd99yyyzzz85a5\"]}",
        .body = "token=x&command=%2Fweather&text=94070"};
    char message[MAX + 32], mac[200], header[300], time[24];
    snprintf(time, sizeof time, "%llu", NOW_S);
    snprintf(message, sizeof message, "v0:%s:%s", time, s.body);
    hmac_text("SHA256", "8f742231b10e8888abcd99yyyzzz85a5", message, true, mac);
    snprintf(header, sizeof header, "v0=%s", mac);
    add_header(&s, "X-Slack-Signature", header);
    add_header(&s, "X-Slack-Request-Timestamp", time);
    return s;
}

static struct sample sample_shopify(void) {
    struct sample s = {.what = "shopify",
                       .source = "{\"scheme\":\"shopify\",\"secrets\":[\"hush\"]}",
                       .body = "{\"id\":1}"};
    add_header(&s, "X-Shopify-Hmac-Sha256", "VnKUjZsLuN5iZWjn5EntcBVCF9kMN43LglzCE1/GSeY=");
    return s;
}

#define TWILIO_SOURCE                                                                              \
    "{\"scheme\":\"twilio\",\"secrets\":[\"12345\"],\"options\":{\"public_url\":"                  \
    "\"https://mycompany.com/myapp.php\"}}"

static struct sample sample_twilio(void) {
    struct sample s = {.what = "twilio",
                       .source = TWILIO_SOURCE,
                       .query = "foo=1&bar=2",
                       .body =
                           "Digits=1234&To=%2B18005551212&From=%2B14158675309"
                           "&Caller=%2B14158675309&CallSid=CA1234567890ABCDE"};
    add_header(&s, "X-Twilio-Signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    return s;
}

static struct sample sample_twilio_json(void) {
    struct sample s = {.what = "twilio JSON", .source = TWILIO_SOURCE, .body = "{\"a\":1}"};
    uint8_t digest[32];
    char hex[65], url[400], mac[200];
    assert_int_equal(EVP_Digest(s.body, strlen(s.body), digest, NULL, EVP_sha256(), NULL), 1);
    hex_encode(slice_of(digest, 32), hex);
    snprintf(s.query, sizeof s.query, "bodySHA256=%s", hex);
    snprintf(url, sizeof url, "https://mycompany.com/myapp.php?%s", s.query);
    hmac_text("SHA1", "12345", url, false, mac);
    add_header(&s, "X-Twilio-Signature", mac);
    return s;
}

static struct sample sample_hmac(const char *digest, const char *algorithm, bool hex) {
    struct sample s = {.what = "hmac", .body = "5 and more"};
    char message[MAX + 32], mac[200], header[300];
    snprintf(s.source, sizeof s.source,
             "{\"scheme\":\"hmac\",\"secrets\":[\"own secret\"],\"options\":{\"signature_header\":"
             "\"x-sig\",\"signature_prefix\":\"%s\",\"algorithm\":\"%s\",\"encoding\":\"%s\","
             "\"signed_bytes\":\"v2/{id}/{timestamp}{body}\",\"id_header\":\"x-id\","
             "\"timestamp_header\":\"x-time\"}}",
             hex ? "mac=" : "", algorithm, hex ? "hex" : "base64");
    snprintf(message, sizeof message, "v2/id-7/%llu%s", NOW_S, s.body);
    hmac_text(digest, "own secret", message, hex, mac);
    snprintf(header, sizeof header, "%s%s", hex ? "mac=" : "", mac);
    add_header(&s, "X-Sig", header);
    add_header(&s, "X-Id", "id-7");
    snprintf(header, sizeof header, "%llu", NOW_S);
    add_header(&s, "X-Time", header);
    return s;
}

static struct sample sample_bearer(void) {
    struct sample s = {
        .what = "bearer",
        .source = "{\"scheme\":\"bearer\",\"secrets\":[\"sixteen-and-more-letters\"]}"};
    add_header(&s, "Authorization", "Bearer sixteen-and-more-letters");
    return s;
}

static struct sample sample_gemini(struct fixture *f) {
    struct sample s = {.what = "gemini v1a", .slow = true};
    struct buf signature;
    buf_init(&signature, 256);
    signing_key_v1a(f->ed25519, slice_str(SW1_ID), slice_str("1614265330"), slice_str(SW1_BODY),
                    &signature);
    buf_append_byte(&signature, 0);
    struct sample made = sample_standard(
        "webhook",
        "{\"scheme\":\"gemini\",\"secrets\":[],\"options\":{\"jwks_url\":\"" KEY_SET "\"}}",
        (const char *)signature.data);
    buf_free(&signature);
    made.what = s.what;
    made.slow = true;
    return made;
}

#define JWT_SOURCE                                                                                 \
    "{\"scheme\":\"gemini\",\"secrets\":[],\"options\":{\"jwks_url\":\"" KEY_SET                   \
    "\",\"audience\":\"us\"}}"

/* `more` is put behind the claims that it needs. */
static struct sample sample_jwt(struct fixture *f, const char *aud, const char *more) {
    struct sample s = {
        .what = "gemini JWT", .source = JWT_SOURCE, .body = "{\"a\":1}", .slow = true};
    uint8_t digest[32];
    char hex[65], claims[512];
    struct buf token;
    assert_int_equal(EVP_Digest(s.body, strlen(s.body), digest, NULL, EVP_sha256(), NULL), 1);
    hex_encode(slice_of(digest, 32), hex);
    snprintf(claims, sizeof claims, "{\"aud\":%s,\"iat\":%llu,\"jti\":\"msg_1\"%s%s%s}", aud, NOW_S,
             more == NULL ? ",\"body_sha256\":\"" : "", more == NULL ? hex : more,
             more == NULL ? "\"" : "");
    buf_init(&token, MAX);
    signing_key_jwt(f->rsa, slice_str(claims), &token);
    buf_append_byte(&token, 0);
    add_header(&s, "Webhook-Signature", (const char *)token.data);
    buf_free(&token);
    return s;
}

#define V1A_SOURCE                                                                                 \
    "{\"scheme\":\"standard-webhooks\",\"secrets\":[\"whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqf"       \
    "ZTInDBbOir4=\"]}"
#define V1A_SIGNATURE                                                                              \
    "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
#define OPENAI_SOURCE                                                                              \
    "{\"scheme\":\"openai\",\"secrets\":[\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]}"
#define GEMINI_STATIC                                                                              \
    "{\"scheme\":\"gemini\",\"secrets\":[\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"],"             \
    "\"options\":{\"jwks_url\":\"" KEY_SET "\"}}"

static size_t all_samples(struct fixture *f, struct sample out[20]) {
    size_t n = 0;
    out[n++] = sample_standard("webhook", SW1_SOURCE, SW1_SIGNATURE);
    out[n++] = sample_standard("svix", SW1_SOURCE, SW1_SIGNATURE);
    out[n++] = sample_standard("Webhook", OPENAI_SOURCE, SW1_SIGNATURE);
    out[n++] = sample_standard("webhook", GEMINI_STATIC, SW1_SIGNATURE);
    out[n] = sample_standard("webhook", V1A_SOURCE, V1A_SIGNATURE);
    out[n++].slow = true;
    out[n++] = sample_gemini(f);
    out[n++] = sample_jwt(f, "\"us\"", NULL);
    out[n++] = sample_github();
    out[n++] = sample_stripe();
    out[n++] = sample_slack();
    out[n++] = sample_shopify();
    out[n++] = sample_twilio();
    out[n++] = sample_twilio_json();
    out[n++] = sample_hmac("SHA256", "sha256", true);
    out[n++] = sample_hmac("SHA1", "sha1", false);
    out[n++] = sample_hmac("SHA512", "sha512", true);
    out[n++] = sample_bearer();
    return n;
}

static void test_what_providers_send_is_accepted(void **state) {
    struct sample samples[20];
    size_t count = all_samples(*state, samples);
    for (size_t i = 0; i < count; i++) expect(*state, &samples[i], ERR_OK);
}

/* ---- every byte counts ---- */

/* Two spellings of one thing: a hex digit of either case, in a signature, a hash or an escape; and
 * the word Bearer. A body of a form is signed by its meaning. */
static bool same_meaning(const struct sample *s, char *text, size_t at, char was, char is) {
    if (was == '=' && is == ' ' && text[at + 1] == '\0')
        return true; /* padding; the list goes on */
    if ((was ^ is) != 0x20) return false;
    if (strcmp(s->what, "bearer") == 0) return at < 6;
    if (strcmp(s->what, "twilio") == 0) return at > 1 && text[at - 2] == '%';
    return ((was | 0x20) >= 'a' && (was | 0x20) <= 'f') && strstr(text, "=") != NULL &&
           (strcmp(s->what, "github") == 0 || strcmp(s->what, "stripe") == 0 ||
            strcmp(s->what, "slack") == 0 || strcmp(s->what, "hmac") == 0 ||
            strcmp(s->what, "twilio JSON") == 0);
}

static void change_every_byte(struct fixture *f, struct sample *s, char *text) {
    size_t len = strlen(text);
    for (size_t at = 0; at < len; at++) {
        char was = text[at];
        for (int value = 1; value < 256; value++) {
            if (s->slow && ((value ^ (unsigned char)was) & ((value ^ (unsigned char)was) - 1)) != 0)
                continue; /* one bit only */
            if ((char)value == was || same_meaning(s, text, at, was, (char)value)) continue;
            text[at] = (char)value;
            if (verify(f, s) == ERR_OK) {
                fail_msg("%s: byte %zu of \"%s\" was %02x", s->what, at, text, (unsigned char)was);
            }
        }
        text[at] = was;
    }
    expect(f, s, ERR_OK);
}

static void test_every_byte_counts(void **state) {
    struct sample samples[20];
    size_t count = all_samples(*state, samples);
    for (size_t i = 0; i < count; i++) {
        struct sample *s = &samples[i];
        for (size_t k = 0; k < s->headers_count; k++) {
            if (s->headers[k].is_signed) change_every_byte(*state, s, s->headers[k].value);
        }
        if (strcmp(s->what, "bearer") != 0) change_every_byte(*state, s, s->body);
        if (strcmp(s->what, "twilio JSON") != 0) change_every_byte(*state, s, s->query);
    }
}

static void test_every_header_is_needed(void **state) {
    struct sample samples[20];
    size_t count = all_samples(*state, samples);
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < samples[i].headers_count; k++) {
            struct sample s = samples[i];
            s.headers[k].value[0] = '\0';
            expect(*state, &s, ERR_SIGNATURE_MISSING);
            snprintf(s.headers[k].name, sizeof s.headers[k].name, "x-other");
            expect(*state, &s, ERR_SIGNATURE_MISSING);
        }
    }
}

static void test_a_repeated_header_is_refused(void **state) {
    struct sample samples[20];
    size_t count = all_samples(*state, samples);
    for (size_t i = 0; i < count; i++) {
        size_t own = samples[i].headers_count;
        for (size_t k = 0; k < own && own < 4; k++) {
            struct sample s = samples[i];
            s.headers[s.headers_count++] = s.headers[k];
            expect(*state, &s, ERR_SIGNATURE_MALFORMED);
        }
    }
}

/* ---- the clock ---- */

static void test_the_signed_time_counts_both_ways(void **state) {
    struct sample samples[] = {sample_standard("webhook", SW1_SOURCE, SW1_SIGNATURE),
                               sample_gemini(*state),
                               sample_jwt(*state, "\"us\"", NULL),
                               sample_stripe(),
                               sample_slack(),
                               sample_hmac("SHA256", "sha256", true)};
    struct verification v;
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) {
        assert_int_equal(verify_at(*state, &samples[i], NOW_S + 300, &v), ERR_OK);
        assert_int_equal(verify_at(*state, &samples[i], NOW_S - 300, &v), ERR_OK);
        assert_int_equal(verify_at(*state, &samples[i], NOW_S + 301, &v), ERR_TIMESTAMP_TOO_OLD);
        assert_int_equal(verify_at(*state, &samples[i], NOW_S - 301, &v), ERR_TIMESTAMP_IN_FUTURE);
        /* Who did not sign is not told the time. */
        samples[i].headers[0].value[8] ^= 1;
        assert_int_not_equal(verify_at(*state, &samples[i], NOW_S + 301, &v),
                             ERR_TIMESTAMP_TOO_OLD);
    }
    struct sample wide = sample_stripe();
    snprintf(wide.source, sizeof wide.source,
             "{\"scheme\":\"stripe\",\"secrets\":[\"whsec_stripe_test\"],\"options\":"
             "{\"tolerance_s\":1000}}");
    assert_int_equal(verify_at(*state, &wide, NOW_S + 1000, &v), ERR_OK);
    assert_int_equal(verify_at(*state, &wide, NOW_S + 1001, &v), ERR_TIMESTAMP_TOO_OLD);
}

/* ---- forms of headers ---- */

static void test_malformed_headers(void **state) {
    static const char *const stripe[] = {"t=,v1=00",
                                         "t,v1=,v0=",
                                         "t,v1=,",
                                         "v1=00",
                                         "t=1614265330",
                                         "t=1614265330,v1=",
                                         "t=1614265330,t=1614265330,v1=00"};
    for (size_t i = 0; i < sizeof stripe / sizeof stripe[0]; i++) {
        struct sample s = sample_stripe();
        s.what = stripe[i];
        snprintf(s.headers[0].value, sizeof s.headers[0].value, "%s", stripe[i]);
        expect(*state, &s, ERR_SIGNATURE_MALFORMED);
    }
    /* What stands before or behind a signature is no part of it. */
    struct sample right = sample_github();
    static const char *const github[] = {"x%s", " sha256=%s", "%s0", "%.70s", "sha256=sha256=%s"};
    for (size_t i = 0; i < sizeof github / sizeof github[0]; i++) {
        struct sample s = right;
        char value[200];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(value, sizeof value, github[i], right.headers[0].value);
#pragma GCC diagnostic pop
        snprintf(s.headers[0].value, sizeof s.headers[0].value, "%s", value);
        expect(*state, &s, ERR_SIGNATURE_MALFORMED);
    }
}

static void test_stripe_takes_any_of_several(void **state) {
    struct sample s = sample_stripe();
    char value[sizeof s.headers[0].value];
    int len = snprintf(value, sizeof value, "%.13sv0=00,v1=%064d,%s", s.headers[0].value, 0,
                       s.headers[0].value + 13);
    assert_in_range(len, 1, sizeof value - 1);
    memcpy(s.headers[0].value, value, sizeof value);
    expect(*state, &s, ERR_OK);
}

static void test_twilio_needs_its_parameters(void **state) {
    struct sample s = sample_twilio();
    snprintf(s.body, sizeof s.body, "{\"not\":\"a form\"}");
    expect(*state, &s, ERR_SIGNATURE_MALFORMED);
    s = sample_twilio();
    /* The order of parameters does not matter, a repeated one counts once. */
    snprintf(s.body, sizeof s.body,
             "To=%%2B18005551212&Digits=1234&Caller=%%2B14158675309&From=%%2B14158675309"
             "&CallSid=CA1234567890ABCDE&Digits=1234");
    expect(*state, &s, ERR_OK);
    struct verification v, w;
    assert_int_equal(verify_at(*state, &s, NOW_S, &v), ERR_OK);
    struct sample first = sample_twilio();
    assert_int_equal(verify_at(*state, &first, NOW_S, &w), ERR_OK);
    assert_string_equal(v.id_text, w.id_text); /* one webhook, however it is written */
    assert_int_equal(strncmp(v.id_text, "sha256:", 7), 0);
}

/* ---- JWT ---- */

static void put_token(struct sample *s, const char *head, const char *claims, const char *key) {
    char parts[2][512], signed_part[MAX / 2 + 8], mac[200], token[MAX];
    const char *const texts[] = {head, claims};
    for (int i = 0; i < 2; i++) base64_encode(slice_str(texts[i]), parts[i]);
    snprintf(signed_part, sizeof signed_part, "%s.%s", parts[0], parts[1]);
    for (char *c = signed_part; *c != '\0'; c++) *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
    size_t kept = 0;
    for (char *c = signed_part; *c != '\0'; c++) {
        if (*c != '=') signed_part[kept++] = *c;
    }
    signed_part[kept] = '\0';
    hmac_text("SHA256", key, signed_part, false, mac);
    for (char *c = mac; *c != '\0'; c++) *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
    mac[43] = '\0';
    snprintf(token, sizeof token, "%s.%s", signed_part, mac);
    snprintf(s->headers[0].value, sizeof s->headers[0].value, "%s", token);
}

static void test_a_jwt_never_chooses_its_algorithm(void **state) {
    struct fixture *f = *state;
    struct sample s = sample_jwt(f, "\"us\"", NULL);
    struct buf public;
    buf_init(&public, MAX);
    signing_key_jwk(f->rsa, &public);
    buf_append_byte(&public, 0);
    static const char *const heads[] = {"{\"alg\":\"none\"}", "{\"alg\":\"HS256\"}",
                                        "{\"alg\":\"hs256\",\"kid\":\"x\"}", "{\"typ\":\"JWT\"}",
                                        "{\"alg\":\"RS512\"}"};
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        s.what = heads[i];
        put_token(&s, heads[i], "{\"aud\":\"us\",\"iat\":1614265330}", (const char *)public.data);
        expect(f, &s, ERR_SIGNATURE_MALFORMED);
    }
    /* The right word, made with the public key as a secret: no key verifies that. */
    static const char *const others[] = {"{\"alg\":\"RS256\"}", "{\"alg\":\"EdDSA\"}",
                                         "{\"alg\":\"RS256\",\"jku\":\"https://evil.example/\"}"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        s.what = others[i];
        put_token(&s, others[i], "{\"aud\":\"us\",\"iat\":1614265330}", (const char *)public.data);
        expect(f, &s, ERR_SIGNATURE_MISMATCH);
    }
    s.what = "crit";
    put_token(&s, "{\"alg\":\"RS256\",\"crit\":[\"b64\"]}", "{}", "k");
    expect(f, &s, ERR_SIGNATURE_MALFORMED);
    buf_free(&public);
}

static void test_the_claims_of_a_jwt(void **state) {
    struct fixture *f = *state;
    static const struct {
        const char *aud, *more;
        enum err want;
    } rows[] = {
        {"[\"them\",\"us\"]", NULL, ERR_OK},
        {"\"them\"", NULL, ERR_SIGNATURE_MISMATCH},
        {"[]", NULL, ERR_SIGNATURE_MISMATCH},
        {"\"us\"", "", ERR_SIGNATURE_MISMATCH}, /* nothing binds the body */
        {"\"us\"", ",\"body_sha256\":\"00\"", ERR_SIGNATURE_MISMATCH},
        {"\"us\"", ",\"body_sha256\":17", ERR_SIGNATURE_MALFORMED},
        {"\"us\"", ",\"exp\":\"x\"", ERR_SIGNATURE_MALFORMED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct sample s = sample_jwt(f, rows[i].aud, rows[i].more);
        s.what = rows[i].more == NULL ? rows[i].aud : rows[i].more;
        expect(f, &s, rows[i].want);
    }
    struct sample s = sample_jwt(f, "\"us\"", ",\"exp\":1614265000");
    snprintf(s.source, sizeof s.source,
             "{\"scheme\":\"gemini\",\"secrets\":[],\"options\":{\"jwks_url\":\"" KEY_SET
             "\",\"audience\":\"us\",\"jwt_unbound_body\":true}}");
    expect(f, &s, ERR_TIMESTAMP_TOO_OLD);
    s.what = "no audience";
    snprintf(s.source, sizeof s.source,
             "{\"scheme\":\"gemini\",\"secrets\":[],\"options\":{\"jwks_url\":\"" KEY_SET "\"}}");
    expect(f, &s, ERR_SIGNATURE_MISMATCH);
    struct verification v;
    s = sample_jwt(f, "\"us\"", NULL);
    assert_int_equal(verify_at(f, &s, NOW_S, &v), ERR_OK);
    assert_true(slice_eq_str(v.id, "msg_1"));
}

/* ---- templates, secrets ---- */

static void test_templates(void **state) {
    (void)state;
    static const char *const good[] = {"{body}", "{timestamp}{body}", "{id}.{timestamp}.{body}",
                                       "v0:{timestamp}:{body}:x"};
    static const char *const bad[] = {
        "",      "{timestamp}", "{id}{body}", "{timestamp}{id}.{body}", "{Body}", "{body}{body}",
        "{body", "}{body}",     "{}{body}",   "{id}.{id}.{body}"};
    const char *why = NULL;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (!scheme_template_ok(good[i], &why)) fail_msg("%s %s", good[i], why);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (scheme_template_ok(bad[i], &why)) fail_msg("%s is taken", bad[i]);
    }
}

static void test_an_id_holds_no_separator(void **state) {
    struct sample s = sample_hmac("SHA256", "sha256", true);
    snprintf(s.headers[1].value, sizeof s.headers[1].value, "id/7");
    expect(*state, &s, ERR_SIGNATURE_MALFORMED);
}

static void test_any_secret_will_do(void **state) {
    struct sample s = sample_github();
    snprintf(s.source, sizeof s.source,
             "{\"scheme\":\"github\",\"secrets\":[\"other\",\"It's a Secret to Everybody\"]}");
    struct verification v;
    assert_int_equal(verify_at(*state, &s, NOW_S, &v), ERR_OK);
    assert_string_equal(v.by, "secrets[1]");
    snprintf(s.source, sizeof s.source, "{\"scheme\":\"github\",\"secrets\":[\"other\"]}");
    expect(*state, &s, ERR_SIGNATURE_MISMATCH);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_providers_send_is_accepted),
        cmocka_unit_test(test_every_byte_counts),
        cmocka_unit_test(test_every_header_is_needed),
        cmocka_unit_test(test_a_repeated_header_is_refused),
        cmocka_unit_test(test_the_signed_time_counts_both_ways),
        cmocka_unit_test(test_malformed_headers),
        cmocka_unit_test(test_stripe_takes_any_of_several),
        cmocka_unit_test(test_twilio_needs_its_parameters),
        cmocka_unit_test(test_a_jwt_never_chooses_its_algorithm),
        cmocka_unit_test(test_the_claims_of_a_jwt),
        cmocka_unit_test(test_templates),
        cmocka_unit_test(test_an_id_holds_no_separator),
        cmocka_unit_test(test_any_secret_will_do),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
