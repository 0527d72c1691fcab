#include "broker/signature/signing_key.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdlib.h>

#include "base/base64.h"

#define ED25519_BYTES           32 /* of a seed and of a public key */
#define ED25519_SIGNATURE_BYTES 64
#define RSA_BITS_DEFAULT        2048
#define RSA_BITS_MIN            2048
#define RSA_BITS_MAX            8192 /* its PEM is 6.4 KB */
#define RSA_BYTES_MAX           (RSA_BITS_MAX / 8)
#define SHA256_BYTES            32
#define SECRET_PREFIX           "whsk_"

_Static_assert(BASE64_LEN(SHA256_BYTES) - 1 == SIGNING_KID_BYTES, "one '=' is left out");

struct signing_key {
    enum signing_alg alg;
    EVP_PKEY *pkey;
    char kid[SIGNING_KID_BYTES + 1];
};

const char *signing_alg_name(enum signing_alg alg) {
    return alg == SIGNING_ED25519 ? "EdDSA" : "RS256";
}

/* Appends base64 in the alphabet for URLs, without padding (RFC 4648 section 5). */
static void append_base64url(struct buf *out, struct slice bytes) {
    char *at = (char *)buf_reserve(out, BASE64_LEN(bytes.len) + 1); /* and a terminator */
    if (at == NULL) return;
    base64_encode(bytes, at);
    for (; *at != '\0' && *at != '='; at++) {
        if (*at == '+') *at = '-';
        else if (*at == '/') *at = '_';
        out->len++;
    }
}

/* ---- the public half ---- */

static void append_number(const struct signing_key *k, const char *param, struct buf *out) {
    uint8_t bytes[RSA_BYTES_MAX];
    BIGNUM *n = NULL;
    CRYPTO_CHECK(EVP_PKEY_get_bn_param(k->pkey, param, &n) == 1);
    CHECK(BN_num_bytes(n) <= RSA_BYTES_MAX);
    append_base64url(out, slice_of(bytes, (size_t)BN_bn2bin(n, bytes)));
    BN_free(n);
}

static void append_x(const struct signing_key *k, struct buf *out) {
    uint8_t bytes[ED25519_BYTES];
    size_t len = sizeof bytes;
    CRYPTO_CHECK(EVP_PKEY_get_raw_public_key(k->pkey, bytes, &len) == 1 && len == sizeof bytes);
    append_base64url(out, slice_of(bytes, len));
}

/* The members that make the key, in the order of their names (RFC 7638 section 3.2), without the
 * brackets. */
static void append_members(const struct signing_key *k, struct buf *out) {
    if (k->alg == SIGNING_ED25519) {
        buf_append_str(out, "\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"");
        append_x(k, out);
    } else {
        buf_append_str(out, "\"e\":\"");
        append_number(k, OSSL_PKEY_PARAM_RSA_E, out);
        buf_append_str(out, "\",\"kty\":\"RSA\",\"n\":\"");
        append_number(k, OSSL_PKEY_PARAM_RSA_N, out);
    }
    buf_append_byte(out, '"');
}

static void make_kid(struct signing_key *k) {
    uint8_t digest[SHA256_BYTES];
    struct buf b;
    buf_init(&b, 4 * RSA_BYTES_MAX);
    buf_append_byte(&b, '{');
    append_members(k, &b);
    buf_append_byte(&b, '}');
    CRYPTO_CHECK(!b.overflow && EVP_Digest(b.data, b.len, digest, NULL, EVP_sha256(), NULL) == 1);
    buf_clear(&b);
    append_base64url(&b, slice_of(digest, sizeof digest));
    bool fits = slice_to_cstr(buf_slice(&b), k->kid, sizeof k->kid);
    CHECK(fits && b.len == SIGNING_KID_BYTES);
    buf_free(&b);
}

void signing_key_jwk(const struct signing_key *k, struct buf *out) {
    buf_append_byte(out, '{');
    append_members(k, out);
    buf_printf(out, ",\"alg\":\"%s\",\"use\":\"sig\",\"kid\":\"%s\"}", signing_alg_name(k->alg),
               k->kid);
}

const char *signing_key_kid(const struct signing_key *k) {
    return k->kid;
}

enum signing_alg signing_key_alg(const struct signing_key *k) {
    return k->alg;
}

/* ---- making one ---- */

/* Takes pkey. */
static struct signing_key *make(enum signing_alg alg, EVP_PKEY *pkey) {
    struct signing_key *k = mem_zalloc(sizeof *k);
    k->alg = alg;
    k->pkey = pkey;
    make_kid(k);
    return k;
}

struct signing_key *signing_key_generate(enum signing_alg alg) {
    EVP_PKEY *pkey = alg == SIGNING_ED25519 ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")
                                            : EVP_RSA_gen(RSA_BITS_DEFAULT);
    CRYPTO_CHECK(pkey != NULL);
    return make(alg, pkey);
}

void signing_key_free(struct signing_key **k) {
    if (*k == NULL) return;
    EVP_PKEY_free((*k)->pkey);
    free(*k);
    *k = NULL;
}

static EVP_PKEY *parse_whsk(struct slice encoded, const char **why) {
    uint8_t bytes[2 * ED25519_BYTES], public[ED25519_BYTES];
    size_t public_len = sizeof public;
    EVP_PKEY *pkey = NULL;
    long len = base64_decode(encoded, bytes, sizeof bytes);
    if (len != ED25519_BYTES && len != 2 * ED25519_BYTES) {
        *why = "is not whsk_ and the base64 of 32 or 64 bytes";
    } else {
        pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, bytes, ED25519_BYTES);
        CRYPTO_CHECK(pkey != NULL && EVP_PKEY_get_raw_public_key(pkey, public, &public_len) == 1);
        if (len == 2 * ED25519_BYTES && memcmp(public, bytes + ED25519_BYTES, sizeof public) != 0) {
            *why = "has a public half that is not that of its seed";
            EVP_PKEY_free(pkey);
            pkey = NULL;
        }
    }
    OPENSSL_cleanse(bytes, sizeof bytes);
    return pkey;
}

/* libcrypto asks for a password: there is nobody to ask. */
static int on_password(char *out, int size, int writing, void *ctx) {
    (void)out;
    (void)size;
    (void)writing;
    *(bool *)ctx = true;
    return -1;
}

static EVP_PKEY *parse_pem(struct slice text, const char **why) {
    bool encrypted = false;
    BIO *bio = BIO_new_mem_buf(text.data, (int)text.len);
    CRYPTO_CHECK(bio != NULL);
    EVP_PKEY *pkey = PEM_read_bio_PrivateKey(bio, NULL, on_password, &encrypted);
    BIO_free(bio);
    if (pkey != NULL) return pkey;
    *why = encrypted ? "is encrypted: decrypt it with `openssl pkey`"
                     : "has no private key in it: make one with `openssl genpkey`";
    return NULL;
}

/* The two halves of an RSA key come out of the text apart: what one signs the other must verify. */
static bool halves_fit(EVP_PKEY *pkey) {
    static const uint8_t message[] = "halves";
    uint8_t signature[RSA_BYTES_MAX];
    size_t len = sizeof signature;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    CRYPTO_CHECK(ctx != NULL);
    bool fit = EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, pkey) == 1 &&
               EVP_DigestSign(ctx, signature, &len, message, sizeof message) == 1 &&
               EVP_MD_CTX_reset(ctx) == 1 &&
               EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, pkey) == 1 &&
               EVP_DigestVerify(ctx, signature, len, message, sizeof message) == 1;
    EVP_MD_CTX_free(ctx);
    return fit;
}

/* What is wrong with the key, or NULL. */
static const char *unfit(EVP_PKEY *pkey, enum signing_alg *alg) {
    *alg = SIGNING_ED25519;
    if (EVP_PKEY_is_a(pkey, "ED25519")) return NULL;
    *alg = SIGNING_RS256;
    if (!EVP_PKEY_is_a(pkey, "RSA")) return "is of another algorithm than Ed25519 and RSA";
    int bits = EVP_PKEY_get_bits(pkey);
    if (bits < RSA_BITS_MIN) return "is an RSA key of less than 2048 bits";
    if (bits > RSA_BITS_MAX) return "is an RSA key of more than 8192 bits";
    if (!halves_fit(pkey)) return "is an RSA key whose halves do not belong together";
    return NULL;
}

static bool is_blank(uint8_t c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct signing_key *signing_key_parse(struct slice text, const char **why) {
    enum signing_alg alg = SIGNING_ED25519;
    while (text.len > 0 && is_blank(text.data[0])) text = slice_from(text, 1);
    while (text.len > 0 && is_blank(text.data[text.len - 1])) text.len--;
    if (text.len > SIGNING_PEM_BYTES) {
        *why = "is longer than 8192 bytes";
        return NULL;
    }
    EVP_PKEY *pkey = slice_starts_with(text, SECRET_PREFIX)
                         ? parse_whsk(slice_from(text, sizeof SECRET_PREFIX - 1), why)
                         : parse_pem(text, why);
    const char *wrong = pkey == NULL ? *why : unfit(pkey, &alg);
    ERR_clear_error(); /* what is left there would be taken for an error of the next TLS call */
    if (wrong == NULL) return make(alg, pkey);
    *why = wrong;
    EVP_PKEY_free(pkey);
    return NULL;
}

void signing_key_pem(const struct signing_key *k, struct buf *out) {
    char *text = NULL;
    BIO *bio = BIO_new(BIO_s_mem()); /* wipes its memory when it is freed */
    CRYPTO_CHECK(bio != NULL);
    CRYPTO_CHECK(PEM_write_bio_PKCS8PrivateKey(bio, k->pkey, NULL, NULL, 0, NULL, NULL) == 1);
    long len = BIO_get_mem_data(bio, &text);
    CRYPTO_CHECK(len > 0 && len <= SIGNING_PEM_BYTES);
    buf_append(out, text, (size_t)len);
    BIO_free(bio);
}

/* ---- signing ---- */

/* Ed25519 reads its message twice (RFC 8032): libcrypto wants it in one piece. */
void signing_key_v1a(const struct signing_key *k, struct slice id, struct slice timestamp,
                     struct slice body, struct buf *out) {
    uint8_t signature[ED25519_SIGNATURE_BYTES];
    char encoded[BASE64_LEN(ED25519_SIGNATURE_BYTES) + 1];
    size_t len = sizeof signature;
    struct buf message;
    CHECK(k->alg == SIGNING_ED25519 && id.len > 0 && timestamp.len > 0);
    buf_init(&message, id.len + timestamp.len + body.len + sizeof "..");
    CHECK(buf_reserve(&message, message.max) != NULL);
    buf_append_slice(&message, id);
    buf_append_byte(&message, '.');
    buf_append_slice(&message, timestamp);
    buf_append_byte(&message, '.');
    buf_append_slice(&message, body);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    CRYPTO_CHECK(ctx != NULL && !message.overflow);
    CRYPTO_CHECK(EVP_DigestSignInit(ctx, NULL, NULL, NULL, k->pkey) == 1);
    CRYPTO_CHECK(EVP_DigestSign(ctx, signature, &len, message.data, message.len) == 1);
    CHECK(len == sizeof signature);
    EVP_MD_CTX_free(ctx);
    buf_free(&message);
    base64_encode(slice_of(signature, sizeof signature), encoded);
    buf_append_str(out, "v1a,");
    buf_append_str(out, encoded);
}

void signing_key_jwt(const struct signing_key *k, struct slice claims, struct buf *out) {
    uint8_t signature[RSA_BYTES_MAX];
    char header[128];
    size_t len = sizeof signature, start = out->len;
    CHECK(k->alg == SIGNING_RS256);
    snprintf(header, sizeof header, "{\"alg\":\"RS256\",\"typ\":\"JWT\",\"kid\":\"%s\"}", k->kid);
    append_base64url(out, slice_str(header));
    buf_append_byte(out, '.');
    append_base64url(out, claims);
    if (out->overflow) return;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    CRYPTO_CHECK(ctx != NULL);
    CRYPTO_CHECK(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, k->pkey) == 1);
    CRYPTO_CHECK(EVP_DigestSign(ctx, signature, &len, out->data + start, out->len - start) == 1);
    EVP_MD_CTX_free(ctx);
    buf_append_byte(out, '.');
    append_base64url(out, slice_of(signature, len));
}
