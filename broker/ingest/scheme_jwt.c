/* A JWT in place of the signature (RFC 7519): by a key of the source's set. The body is bound to it
 * by the claim body_sha256; the webhook's time and id are those of the claims. */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>

#include "base/base64.h"
#include "broker/ingest/scheme.h"
#include "broker/signature/jwt.h"
#include "broker/signature/standard_webhooks.h"

#define SHA256_BYTES 32
#define LEEWAY_S     60 /* of exp and nbf: two clocks */

bool scheme_is_jwt(struct slice header) {
    return jwt_looks_so(header);
}

/* The algorithm is the key's; a header that names another one is refused before any key is tried.
 */
static bool key_fits(const struct verifying_key *key, const struct jwt *jwt) {
    const char *kid = verifying_key_kid(key);
    if (strcmp(signing_alg_name(verifying_key_alg(key)), jwt->alg) != 0) return false;
    return jwt->kid[0] == '\0' || kid[0] == '\0' || strcmp(kid, jwt->kid) == 0;
}

static enum err check_signature(struct verification *v, const struct jwt *jwt) {
    const char *url = source_jwks_url(v->source);
    if (strcmp(jwt->alg, "RS256") != 0 && strcmp(jwt->alg, "EdDSA") != 0) {
        return verification_refuse(v, ERR_SIGNATURE_MALFORMED,
                                   "the JWT's alg is neither RS256 nor EdDSA");
    }
    size_t count;
    struct jwks_set *set = jwks_get(v->tools->jwks, url, v->now_ms);
    const struct verifying_key *const *keys = jwks_keys(set, &count);
    for (size_t i = 0; i < count; i++) {
        if (!key_fits(keys[i], jwt)) continue;
        if (verifying_key_verify(keys[i], jwt->signed_part,
                                 slice_of(jwt->signature, jwt->signature_len))) {
            return ERR_OK;
        }
    }
    if (count == 0 || jwks_miss(v->tools->jwks, set, v->now_ms)) return verification_no_keys(v);
    return verification_refuse(v, ERR_SIGNATURE_MISMATCH,
                               "the JWT was not made with a key of the source's jwks_url");
}

static enum err check_audience(struct verification *v, const struct jwt *jwt) {
    if (v->source->options.audience[0] == '\0') {
        return verification_refuse(v, ERR_SIGNATURE_MISMATCH,
                                   "the source has no audience: without one a JWT that was made "
                                   "for anybody else would pass");
    }
    if (jwt->audience_fits) return ERR_OK;
    return verification_refuse(v, ERR_SIGNATURE_MISMATCH,
                               "the JWT's aud is not the source's audience");
}

static enum err check_body(struct verification *v, const struct jwt *jwt) {
    uint8_t digest[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    struct slice body = v->request->body;
    if (jwt->body_sha256[0] == '\0') {
        if (v->source->options.jwt_unbound_body) return ERR_OK;
        return verification_refuse(v, ERR_SIGNATURE_MISMATCH,
                                   "the JWT has no body_sha256: the body could be anybody's (the "
                                   "option jwt_unbound_body takes it all the same)");
    }
    CRYPTO_CHECK(EVP_Digest(body.data == NULL ? (const void *)"" : body.data, body.len, digest,
                            NULL, EVP_sha256(), NULL) == 1);
    hex_encode(slice_of(digest, sizeof digest), hex);
    if (strlen(jwt->body_sha256) == sizeof hex - 1 &&
        CRYPTO_memcmp(hex, jwt->body_sha256, sizeof hex - 1) == 0) {
        return ERR_OK;
    }
    return verification_refuse(v, ERR_SIGNATURE_MISMATCH,
                               "the JWT's body_sha256 is not that of this body");
}

static enum err check_times(struct verification *v, const struct jwt *jwt) {
    uint64_t now_s = v->wall_ms / 1000;
    if (jwt->exp == 0 && jwt->iat == 0) {
        return verification_refuse(v, ERR_SIGNATURE_MALFORMED, "the JWT has neither exp nor iat");
    }
    if (jwt->exp != 0 && now_s > jwt->exp + LEEWAY_S) {
        return verification_refuse(v, ERR_TIMESTAMP_TOO_OLD, "the JWT's exp is over");
    }
    if (jwt->nbf > now_s + LEEWAY_S) {
        return verification_refuse(v, ERR_TIMESTAMP_IN_FUTURE, "the JWT's nbf has not come");
    }
    if (jwt->iat == 0) return ERR_OK;
    if (jwt->exp != 0 && jwt->iat <= now_s) return ERR_OK; /* exp says how old it may be */
    return verification_time(v, "the JWT's iat", jwt->iat);
}

enum err scheme_verify_jwt(struct verification *v, struct slice token) {
    struct jwt jwt;
    const char *why = "";
    if (!jwt_read(token, v->source->options.audience, &jwt, &why)) {
        return verification_refuse(v, ERR_SIGNATURE_MALFORMED, "the JWT %s", why);
    }
    enum err err = check_signature(v, &jwt);
    if (err == ERR_OK) err = check_audience(v, &jwt);
    if (err == ERR_OK) err = check_body(v, &jwt);
    if (err == ERR_OK) err = check_times(v, &jwt);
    if (err != ERR_OK) return err;
    snprintf(v->by, sizeof v->by, "JWT %s, a key of jwks_url", jwt.alg);
    v->signed_time = jwt.signed_part;
    if (webhook_id_ok(slice_str(jwt.jti), "")) {
        snprintf(v->id_text, sizeof v->id_text, "%s", jwt.jti);
        v->id = slice_str(v->id_text);
    }
    return ERR_OK;
}
