#include "broker/signature/verifying_key.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <stdlib.h>

#include "base/base64.h"

#define BASE64URL_BYTES (24 * 1024) /* of a text: what a head can hold */
#define ED25519_BYTES   32
#define RSA_BITS_MIN    2048
#define RSA_BITS_MAX    8192
#define RSA_BYTES_MAX   (RSA_BITS_MAX / 8)
#define RSA_E_BYTES_MAX 4 /* 65537 has three; a larger one only makes verifying slow */

_Static_assert(RSA_BYTES_MAX <= VERIFYING_SIGNATURE_MAX, "a signature is as long as its modulus");

struct verifying_key {
    enum signing_alg alg;
    EVP_PKEY *pkey;
    char kid[VERIFYING_KID_BYTES + 1];
};

long base64url_decode(struct slice text, uint8_t *out, size_t size) {
    uint8_t standard[BASE64URL_BYTES];
    if (text.len > sizeof standard) return -1;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c == '+' || c == '/' || c == '=') return -1;
        standard[i] = c == '-' ? '+' : c == '_' ? '/' : c;
    }
    return base64_decode(slice_of(standard, text.len), out, size);
}

static struct verifying_key *refuse(const char **why, const char *text) {
    *why = text;
    ERR_clear_error(); /* what is left there would be taken for an error of the next TLS call */
    return NULL;
}

static struct verifying_key *make(enum signing_alg alg, EVP_PKEY *pkey) {
    struct verifying_key *k = mem_zalloc(sizeof *k);
    k->alg = alg;
    k->pkey = pkey;
    return k;
}

void verifying_key_free(struct verifying_key **k) {
    if (*k == NULL) return;
    EVP_PKEY_free((*k)->pkey);
    free(*k);
    *k = NULL;
}

enum signing_alg verifying_key_alg(const struct verifying_key *k) {
    return k->alg;
}

const char *verifying_key_kid(const struct verifying_key *k) {
    return k->kid;
}

static struct verifying_key *make_ed25519(const uint8_t bytes[ED25519_BYTES], const char **why) {
    EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, bytes, ED25519_BYTES);
    return pkey == NULL ? refuse(why, "is no Ed25519 key") : make(SIGNING_ED25519, pkey);
}

struct verifying_key *verifying_key_parse(struct slice text, const char **why) {
    uint8_t bytes[ED25519_BYTES + 1];
    if (!slice_starts_with(text, VERIFYING_KEY_PREFIX) ||
        base64_decode(slice_from(text, sizeof VERIFYING_KEY_PREFIX - 1), bytes, sizeof bytes) !=
            ED25519_BYTES) {
        return refuse(why, "is not whpk_ and the base64 of the 32 bytes of a public key");
    }
    return make_ed25519(bytes, why);
}

static EVP_PKEY *make_rsa_pkey(const BIGNUM *n, const BIGNUM *e) {
    EVP_PKEY *pkey = NULL;
    OSSL_PARAM *params = NULL;
    OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    if (bld != NULL && ctx != NULL && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n) == 1 &&
        OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, e) == 1 &&
        (params = OSSL_PARAM_BLD_to_param(bld)) != NULL && EVP_PKEY_fromdata_init(ctx) == 1 &&
        EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1) {
        pkey = NULL;
    }
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(bld);
    EVP_PKEY_CTX_free(ctx);
    return pkey;
}

static struct verifying_key *make_rsa(const struct jwk *jwk, const char **why) {
    uint8_t n_bytes[RSA_BYTES_MAX + 1], e_bytes[RSA_E_BYTES_MAX];
    long n_len = base64url_decode(jwk->n, n_bytes, sizeof n_bytes);
    long e_len = base64url_decode(jwk->e, e_bytes, sizeof e_bytes);
    if (n_len <= 0 || e_len <= 0) return refuse(why, "has no usable n and e");
    BIGNUM *n = BN_bin2bn(n_bytes, (int)n_len, NULL), *e = BN_bin2bn(e_bytes, (int)e_len, NULL);
    CRYPTO_CHECK(n != NULL && e != NULL);
    int bits = BN_num_bits(n);
    bool fit = bits >= RSA_BITS_MIN && bits <= RSA_BITS_MAX && BN_is_odd(n) && BN_is_odd(e) &&
               !BN_is_one(e);
    EVP_PKEY *pkey = fit ? make_rsa_pkey(n, e) : NULL;
    BN_free(n);
    BN_free(e);
    if (pkey == NULL) return refuse(why, "is no RSA key of 2048 to 8192 bits");
    return make(SIGNING_RS256, pkey);
}

struct verifying_key *verifying_key_from_jwk(const struct jwk *jwk, const char **why) {
    struct verifying_key *k = NULL;
    if (jwk->use.len > 0 && !slice_eq_str(jwk->use, "sig")) {
        return refuse(why, "is not for signatures");
    }
    if (slice_eq_str(jwk->kty, "OKP") && slice_eq_str(jwk->crv, "Ed25519")) {
        uint8_t bytes[ED25519_BYTES + 1];
        if (base64url_decode(jwk->x, bytes, sizeof bytes) != ED25519_BYTES) {
            return refuse(why, "has no x of 32 bytes");
        }
        k = make_ed25519(bytes, why);
    } else if (slice_eq_str(jwk->kty, "RSA")) {
        k = make_rsa(jwk, why);
    } else {
        return refuse(why, "is of another type than OKP with Ed25519 and RSA");
    }
    if (k == NULL) return NULL;
    if ((jwk->alg.len > 0 && !slice_eq_str(jwk->alg, signing_alg_name(k->alg))) ||
        !slice_to_cstr(jwk->kid, k->kid, sizeof k->kid)) {
        verifying_key_free(&k);
        return refuse(why, "is for another algorithm than that of its type, or has an endless kid");
    }
    return k;
}

bool verifying_key_verify(const struct verifying_key *k, struct slice message,
                          struct slice signature) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    CRYPTO_CHECK(ctx != NULL);
    const EVP_MD *digest = k->alg == SIGNING_RS256 ? EVP_sha256() : NULL;
    bool right =
        EVP_DigestVerifyInit(ctx, NULL, digest, NULL, k->pkey) == 1 &&
        EVP_DigestVerify(ctx, signature.data, signature.len, message.data, message.len) == 1;
    EVP_MD_CTX_free(ctx);
    if (!right) ERR_clear_error();
    return right;
}
