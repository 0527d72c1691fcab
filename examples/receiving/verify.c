/* Verifies what Bellhop sends to a webhook: OpenSSL 3, and jansson for what is JSON.
 *
 *   cc -std=c17 -o verify verify.c -lcrypto -ljansson
 *   verify static SECRETS ID TIMESTAMP SIGNATURE < body    (SECRETS: whsec_... whsec_...)
 *   verify dynamic JWKS-FILE ID TIMESTAMP SIGNATURE < body
 *   verify jwt JWKS-FILE ID AUDIENCE SIGNATURE < body
 *
 * Exit code 0: it is what the broker sent. The clock is the system's, or NOW (unix seconds) of the
 * environment, for tests. The three functions verify_... are what a receiver needs: they take the
 * headers and the bytes of the request as they came. */
#include <jansson.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TOLERANCE_S 300
#define BODY_MAX    (16 * 1024 * 1024)

struct request {
    const char *id, *timestamp, *signature; /* the three headers */
    const unsigned char *body;
    size_t body_len;
    long long now; /* unix seconds */
};

/* Base64, also the one of URLs, with or without padding. -1: it is none. */
static int decode(const char *text, size_t len, unsigned char *out, size_t size) {
    char padded[1024];
    while (len > 0 && text[len - 1] == '=') len--;
    size_t full = (len + 3) / 4 * 4, bytes = len * 3 / 4;
    if (full > sizeof padded || full / 4 * 3 > size || len % 4 == 1) return -1;
    for (size_t i = 0; i < full; i++) {
        char c = i < len ? text[i] : '=';
        padded[i] = c == '-' ? '+' : c == '_' ? '/' : c;
    }
    return EVP_DecodeBlock(out, (unsigned char *)padded, (int)full) < 0 ? -1 : (int)bytes;
}

/* "{id}.{timestamp}.{body}"; NULL: the timestamp is none, or too far away. The caller frees. */
static unsigned char *signed_bytes(const struct request *r, size_t *len) {
    char *end;
    long long at = strtoll(r->timestamp, &end, 10);
    if (strspn(r->timestamp, "0123456789") != strlen(r->timestamp) || end == r->timestamp)
        return NULL;
    if (at > r->now + TOLERANCE_S || at < r->now - TOLERANCE_S) return NULL;
    size_t head = strlen(r->id) + strlen(r->timestamp) + 2;
    unsigned char *bytes = malloc(head + r->body_len + 1);
    if (bytes == NULL) return NULL;
    snprintf((char *)bytes, head + 1, "%s.%s.", r->id, r->timestamp);
    memcpy(bytes + head, r->body, r->body_len);
    *len = head + r->body_len;
    return bytes;
}

/* The next signature of that kind ("v1,"), decoded; its length, 0 for one that is no base64, or -1
 * when there are no more. */
static int next_signature(const char **at, const char *kind, unsigned char *out, size_t size) {
    while (**at != '\0') {
        const char *entry = *at;
        size_t len = strcspn(entry, " ");
        *at = entry + len + (entry[len] == ' ');
        if (strncmp(entry, kind, strlen(kind)) != 0) continue;
        int got = decode(entry + strlen(kind), len - strlen(kind), out, size);
        return got < 0 ? 0 : got;
    }
    return -1;
}

/* secrets: those that are valid now, with blanks between: during a rotation the old and the new. */
bool verify_static(const struct request *r, const char *secrets) {
    size_t len, mac_len = 0;
    unsigned char *bytes = signed_bytes(r, &len), key[64 + 3], mac[EVP_MAX_MD_SIZE], sent[96];
    bool good = false;
    while (bytes != NULL && *secrets != '\0') {
        size_t part = strcspn(secrets, " "), skip = strncmp(secrets, "whsec_", 6) == 0 ? 6 : 0;
        int key_len = decode(secrets + skip, part - skip, key, sizeof key);
        secrets += part + (secrets[part] == ' ');
        if (key_len <= 0 || EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key, (size_t)key_len,
                                      bytes, len, mac, sizeof mac, &mac_len) == NULL) {
            continue;
        }
        const char *at = r->signature;
        for (int got; (got = next_signature(&at, "v1,", sent, sizeof sent)) >= 0;) {
            if ((size_t)got == mac_len && CRYPTO_memcmp(sent, mac, mac_len) == 0) good = true;
        }
    }
    free(bytes);
    return good;
}

static const char *text_of(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

static bool is_signed_by(EVP_PKEY *key, const EVP_MD *digest, const unsigned char *sig, int sig_len,
                         const unsigned char *bytes, size_t len) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, digest, NULL, key) == 1 &&
                EVP_DigestVerify(ctx, sig, (size_t)sig_len, bytes, len) == 1;
    EVP_MD_CTX_free(ctx);
    return good;
}

/* jwks: what /.well-known/jwks.json holds. v1a names no key: each is tried. */
bool verify_dynamic(const struct request *r, const json_t *jwks) {
    size_t len, i;
    unsigned char *bytes = signed_bytes(r, &len), sig[96], x[48];
    bool good = false;
    json_t *jwk;
    json_array_foreach(json_object_get(jwks, "keys"), i, jwk) {
        const char *text = text_of(jwk, "x"), *at = r->signature;
        if (bytes == NULL || strcmp(text_of(jwk, "crv"), "Ed25519") != 0) continue;
        if (decode(text, strlen(text), x, sizeof x) != 32) continue;
        EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, x, 32);
        for (int got; key != NULL && (got = next_signature(&at, "v1a,", sig, sizeof sig)) >= 0;) {
            if (got == 64 && is_signed_by(key, NULL, sig, got, bytes, len)) good = true;
        }
        EVP_PKEY_free(key);
    }
    free(bytes);
    return good;
}

static EVP_PKEY *rsa_key(const json_t *jwk) {
    unsigned char n[1024], e[16];
    const char *n_text = text_of(jwk, "n"), *e_text = text_of(jwk, "e");
    int n_len = decode(n_text, strlen(n_text), n, sizeof n);
    int e_len = decode(e_text, strlen(e_text), e, sizeof e);
    EVP_PKEY *key = NULL;
    if (n_len <= 0 || e_len <= 0) return NULL;
    BIGNUM *modulus = BN_bin2bn(n, n_len, NULL), *exponent = BN_bin2bn(e, e_len, NULL);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, modulus);
    OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, exponent);
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    if (EVP_PKEY_fromdata_init(ctx) == 1) EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    EVP_PKEY_CTX_free(ctx);
    BN_free(modulus);
    BN_free(exponent);
    return key;
}

/* One part of a token as JSON; NULL: it is none. */
static json_t *part_of(const char *text, size_t len) {
    unsigned char bytes[2048];
    int got = decode(text, len, bytes, sizeof bytes);
    return got < 0 ? NULL : json_loadb((char *)bytes, (size_t)got, 0, NULL);
}

static bool claims_hold(const struct request *r, const json_t *claims, const char *audience) {
    unsigned char digest[32];
    char hex[65];
    long long iat = json_integer_value(json_object_get(claims, "iat"));
    long long exp = json_integer_value(json_object_get(claims, "exp"));
    const char *hash = text_of(claims, "body_sha256");
    EVP_Q_digest(NULL, "SHA256", NULL, r->body, r->body_len, digest, NULL);
    for (size_t i = 0; i < sizeof digest; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return strcmp(text_of(claims, "aud"), audience) == 0 &&
           strcmp(text_of(claims, "jti"), r->id) == 0 && iat - TOLERANCE_S <= r->now &&
           r->now <= exp && strlen(hash) == 64 && CRYPTO_memcmp(hash, hex, 64) == 0;
}

/* The JWT mode: webhook-signature is a token that is bound to the body by its hash. */
bool verify_jwt(const struct request *r, const json_t *jwks, const char *audience) {
    unsigned char sig[1024];
    const char *token = r->signature, *dot = strchr(token, '.');
    const char *last = dot == NULL ? NULL : strchr(dot + 1, '.');
    if (last == NULL) return false;
    json_t *head = part_of(token, (size_t)(dot - token));
    json_t *claims = part_of(dot + 1, (size_t)(last - dot - 1)), *jwk;
    int sig_len = decode(last + 1, strlen(last + 1), sig, sizeof sig);
    bool good = false;
    size_t i;
    json_array_foreach(json_object_get(jwks, "keys"), i, jwk) {
        if (strcmp(text_of(jwk, "kid"), text_of(head, "kid")) != 0) continue;
        if (strcmp(text_of(head, "alg"), "RS256") != 0 || sig_len <= 0) continue;
        EVP_PKEY *key = rsa_key(jwk);
        good = key != NULL && is_signed_by(key, EVP_sha256(), sig, sig_len,
                                           (const unsigned char *)token, (size_t)(last - token));
        EVP_PKEY_free(key);
        if (good) break;
    }
    good = good && claims_hold(r, claims, audience);
    json_decref(head);
    json_decref(claims);
    return good;
}

int main(int argc, char **argv) {
    static unsigned char body[BODY_MAX];
    const char *now = getenv("NOW");
    if (argc != 6) {
        fprintf(stderr,
                "usage: verify static|dynamic|jwt KEY ID TIMESTAMP|AUDIENCE SIGNATURE < body\n");
        return 64;
    }
    struct request r = {.id = argv[3], .timestamp = argv[4], .signature = argv[5], .body = body};
    r.body_len = fread(body, 1, sizeof body, stdin);
    r.now = now == NULL ? (long long)time(NULL) : strtoll(now, NULL, 10);
    bool good;
    if (strcmp(argv[1], "static") == 0) {
        good = verify_static(&r, argv[2]);
    } else {
        json_t *jwks = json_load_file(argv[2], 0, NULL);
        bool jwt = strcmp(argv[1], "jwt") == 0;
        good = jwks != NULL && (jwt ? verify_jwt(&r, jwks, argv[4]) : verify_dynamic(&r, jwks));
        json_decref(jwks);
    }
    puts(good ? "verified" : "NOT verified");
    return good ? 0 : 1;
}
