/* Keys that sign for everybody: published vectors of v1a and of thumbprints, JWTs verified with
 * nothing but the served JSON Web Key, both text forms, and the keys that are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "base/base64.h"
#include "broker/json/walk.h"
#include "broker/signature/signing_key.h"

#define SEED "6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc="
#define WHOLE                                                                                      \
    "6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
#define X    "1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4"
#define KID  "rEltOPXl-8jZfn0NbO5yMzHDi5e-WdjzkrFUUcp6oIE"
#define ID   "msg_p5jXN8AQM9LWM0D4loKWxJek"
#define TIME "1614265330"
#define BODY "{\"test\": 2432232314}"
#define SIGNED                                                                                     \
    "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="

static struct signing_key *parse(const char *text) {
    const char *why = NULL;
    struct signing_key *k = signing_key_parse(slice_str(text), &why);
    if (k == NULL) fail_msg("\"%s\" %s", text, why);
    return k;
}

static void refuse(struct slice text, const char *reason) {
    const char *why = NULL;
    assert_null(signing_key_parse(text, &why));
    assert_non_null(why);
    if (strstr(why, reason) == NULL) fail_msg("\"%.*s\" %s", SLICE_ARG(text), why);
    assert_int_equal(ERR_peek_error(), 0); /* nothing is left for the next TLS call to find */
}

static void expect_v1a(const struct signing_key *k, const char *signature) {
    struct buf b;
    buf_init(&b, 1024);
    signing_key_v1a(k, slice_str(ID), slice_str(TIME), slice_str(BODY), &b);
    assert_true(slice_eq_str(buf_slice(&b), signature));
    buf_free(&b);
}

static void test_the_vector_of_v1a(void **state) {
    (void)state;
    static const char *const texts[] = {"whsk_" WHOLE, "whsk_" SEED, " \r\nwhsk_" WHOLE "\n"};
    for (size_t i = 0; i < 3; i++) {
        struct signing_key *k = parse(texts[i]);
        assert_int_equal(signing_key_alg(k), SIGNING_ED25519);
        assert_string_equal(signing_key_kid(k), KID);
        expect_v1a(k, SIGNED);
        signing_key_free(&k);
        assert_null(k);
    }
}

static void test_the_public_form_of_ed25519(void **state) {
    (void)state;
    struct signing_key *k = parse("whsk_" WHOLE);
    struct buf b;
    buf_init(&b, 1024);
    signing_key_jwk(k, &b);
    assert_true(slice_eq_str(buf_slice(&b),
                             "{\"crv\":\"Ed25519\",\"kty\":\"OKP\",\"x\":\"" X
                             "\",\"alg\":\"EdDSA\",\"use\":\"sig\",\"kid\":\"" KID "\"}"));
    buf_free(&b);
    signing_key_free(&k);
    /* RFC 8037, appendix A: the seed of A.1, the thumbprint of A.3. */
    k = parse("whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=");
    assert_string_equal(signing_key_kid(k), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    signing_key_free(&k);
}

/* ---- what a receiver does ---- */

/* base64url without padding; returns the bytes. */
static size_t decode_url(struct slice text, uint8_t *out, size_t size) {
    char copy[4096];
    assert_true(text.len < sizeof copy);
    for (size_t i = 0; i < text.len; i++) {
        char c = (char)text.data[i];
        assert_true(c != '+' && c != '/' && c != '=');
        copy[i] = (char)(c == '-' ? '+' : c == '_' ? '/' : c);
    }
    long len = base64_decode(slice_of(copy, text.len), out, size);
    assert_true(len >= 0);
    return (size_t)len;
}

struct member {
    const char *name;
    char value[2048];
};

static bool note(void *ctx, const struct json_value *v) {
    struct member *m = ctx;
    if (v->depth != 1 || !slice_eq_str(v->path[0], m->name)) return true;
    assert_true(json_string_decode(v->raw, m->value, sizeof m->value) >= 0);
    return false;
}

/* The text of a member of a JSON object; "" when it is not there. */
static struct member member_of(struct slice object, const char *name) {
    struct member m = {.name = name, .value = ""};
    assert_true(json_walk(object, 1, note, &m, NULL));
    return m;
}

static BIGNUM *number_of(struct slice jwk, const char *name) {
    uint8_t bytes[2048];
    struct member m = member_of(jwk, name);
    size_t len = decode_url(slice_str(m.value), bytes, sizeof bytes);
    assert_true(len > 0 && bytes[0] != 0); /* as few bytes as it takes (RFC 7518) */
    return BN_bin2bn(bytes, (int)len, NULL);
}

static EVP_PKEY *public_rsa(struct slice jwk) {
    BIGNUM *n = number_of(jwk, "n"), *e = number_of(jwk, "e");
    OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
    assert_int_equal(OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n), 1);
    assert_int_equal(OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, e), 1);
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(bld);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    EVP_PKEY *pkey = NULL;
    assert_int_equal(EVP_PKEY_fromdata_init(ctx), 1);
    assert_int_equal(EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params), 1);
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(bld);
    BN_free(n);
    BN_free(e);
    return pkey;
}

static bool verifies(EVP_PKEY *pkey, const EVP_MD *md, struct slice message,
                     struct slice signature) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestVerifyInit(ctx, NULL, md, NULL, pkey), 1);
    int ok = EVP_DigestVerify(ctx, signature.data, signature.len, message.data, message.len);
    EVP_MD_CTX_free(ctx);
    return ok == 1;
}

/* Verifies a compact JWT; its claims, decoded, are appended to out. */
static bool jwt_verifies(EVP_PKEY *pkey, struct slice jwt, const char *kid, struct buf *out) {
    uint8_t bytes[4096];
    const uint8_t *first = memchr(jwt.data, '.', jwt.len);
    assert_non_null(first);
    struct slice header = slice_of(jwt.data, (size_t)(first - jwt.data));
    struct slice rest = slice_from(jwt, header.len + 1);
    const uint8_t *second = memchr(rest.data, '.', rest.len);
    assert_non_null(second);
    struct slice claims = slice_of(rest.data, (size_t)(second - rest.data));
    struct slice signature = slice_from(rest, claims.len + 1);

    struct slice text = slice_of(bytes, decode_url(header, bytes, sizeof bytes));
    assert_string_equal(member_of(text, "alg").value, "RS256");
    assert_string_equal(member_of(text, "typ").value, "JWT");
    assert_string_equal(member_of(text, "kid").value, kid);
    buf_append(out, bytes, decode_url(claims, bytes, sizeof bytes));
    struct slice message = slice_of(jwt.data, header.len + 1 + claims.len);
    size_t len = decode_url(signature, bytes, sizeof bytes);
    return verifies(pkey, EVP_sha256(), message, slice_of(bytes, len));
}

static void check_jwt(const struct signing_key *k) {
    static const char claims[] = "{\"iss\":\"bellhop\",\"aud\":\"https://a.example/?x=\xC3\xA9\"}";
    struct buf jwk, jwt, seen;
    buf_init(&jwk, 8192);
    buf_init(&jwt, 8192);
    buf_init(&seen, 8192);
    signing_key_jwk(k, &jwk);
    struct slice object = buf_slice(&jwk);
    assert_string_equal(member_of(object, "kty").value, "RSA");
    assert_string_equal(member_of(object, "alg").value, "RS256");
    assert_string_equal(member_of(object, "use").value, "sig");
    assert_string_equal(member_of(object, "kid").value, signing_key_kid(k));
    assert_string_equal(member_of(object, "d").value, ""); /* nothing private */

    buf_append_str(&jwt, "before");
    signing_key_jwt(k, slice_str(claims), &jwt);
    EVP_PKEY *pkey = public_rsa(object);
    struct slice token = slice_from(buf_slice(&jwt), 6);
    assert_true(jwt_verifies(pkey, token, signing_key_kid(k), &seen));
    assert_true(slice_eq_str(buf_slice(&seen), claims));
    /* Another character of the claims: no longer what was signed. */
    uint8_t *dot = memchr(jwt.data, '.', jwt.len);
    dot[4] = dot[4] == 'a' ? 'b' : 'a';
    assert_false(jwt_verifies(pkey, token, signing_key_kid(k), &seen));
    EVP_PKEY_free(pkey);
    buf_free(&jwk);
    buf_free(&jwt);
    buf_free(&seen);
}

static void test_a_jwt_is_verified_with_the_served_key(void **state) {
    (void)state;
    struct signing_key *k = signing_key_generate(SIGNING_RS256);
    assert_int_equal(signing_key_alg(k), SIGNING_RS256);
    check_jwt(k);
    signing_key_free(&k);
}

/* The published thumbprint of RFC 7638 belongs to a key whose private half nobody has: here the kid
 * must agree with the members, put together anew as section 3.1 says. */
static void test_the_thumbprint_of_rsa(void **state) {
    (void)state;
    struct signing_key *k = signing_key_generate(SIGNING_RS256);
    struct buf jwk, text;
    uint8_t digest[32], kid[33];
    buf_init(&jwk, 4096);
    buf_init(&text, 4096);
    signing_key_jwk(k, &jwk);
    buf_printf(&text, "{\"e\":\"%s\",\"kty\":\"RSA\",\"n\":\"%s\"}",
               member_of(buf_slice(&jwk), "e").value, member_of(buf_slice(&jwk), "n").value);
    assert_int_equal(EVP_Digest(text.data, text.len, digest, NULL, EVP_sha256(), NULL), 1);
    assert_int_equal(decode_url(slice_str(signing_key_kid(k)), kid, sizeof kid), 32);
    assert_memory_equal(kid, digest, 32);
    assert_string_equal(member_of(buf_slice(&jwk), "e").value, "AQAB");
    buf_free(&jwk);
    buf_free(&text);
    signing_key_free(&k);
}

static void test_fresh_ed25519(void **state) {
    (void)state;
    struct signing_key *a = signing_key_generate(SIGNING_ED25519);
    struct signing_key *b = signing_key_generate(SIGNING_ED25519);
    assert_string_not_equal(signing_key_kid(a), signing_key_kid(b));
    struct buf jwk, entry;
    uint8_t x[33], signature[65];
    buf_init(&jwk, 1024);
    buf_init(&entry, 1024);
    signing_key_jwk(a, &jwk);
    struct member m = member_of(buf_slice(&jwk), "x");
    assert_int_equal(decode_url(slice_str(m.value), x, sizeof x), 32);
    EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, x, 32);
    signing_key_v1a(a, slice_str("i"), slice_str("1"), slice_of(NULL, 0), &entry);
    assert_true(slice_starts_with(buf_slice(&entry), "v1a,"));
    assert_int_equal(base64_decode(slice_from(buf_slice(&entry), 4), signature, sizeof signature),
                     64);
    assert_true(verifies(pkey, NULL, slice_str("i.1."), slice_of(signature, 64)));
    assert_false(verifies(pkey, NULL, slice_str("i.2."), slice_of(signature, 64)));
    EVP_PKEY_free(pkey);
    buf_free(&jwk);
    buf_free(&entry);
    signing_key_free(&a);
    signing_key_free(&b);
    signing_key_free(&b);
}

/* ---- text ---- */

static void test_pem_there_and_back(void **state) {
    (void)state;
    for (int alg = SIGNING_ED25519; alg <= SIGNING_RS256; alg++) {
        struct signing_key *k = signing_key_generate((enum signing_alg)alg);
        const char *why = NULL;
        struct buf pem;
        buf_init(&pem, SIGNING_PEM_BYTES);
        signing_key_pem(k, &pem);
        assert_false(pem.overflow);
        assert_true(slice_starts_with(buf_slice(&pem), "-----BEGIN PRIVATE KEY-----\n"));
        struct signing_key *back = signing_key_parse(buf_slice(&pem), &why);
        assert_non_null(back);
        assert_int_equal(signing_key_alg(back), alg);
        assert_string_equal(signing_key_kid(back), signing_key_kid(k));
        /* Cut anywhere before its last line, it is refused. */
        for (size_t len = 0; len + 26 < pem.len; len += 7) {
            refuse(slice_of(pem.data, len), "no private key");
        }
        signing_key_free(&k);
        signing_key_free(&back);
        buf_free(&pem);
    }
}

typedef int write_fn(BIO *bio, EVP_PKEY *pkey);

/* A PEM that libcrypto writes; frees pkey, the caller frees out. */
static void written(EVP_PKEY *pkey, write_fn *fn, struct buf *out) {
    char *text = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    assert_non_null(pkey);
    assert_int_equal(fn(bio, pkey), 1);
    long len = BIO_get_mem_data(bio, &text);
    buf_init(out, 64 * 1024);
    buf_append(out, text, (size_t)len);
    BIO_free(bio);
    EVP_PKEY_free(pkey);
}

static int write_plain(BIO *bio, EVP_PKEY *pkey) {
    return PEM_write_bio_PKCS8PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL);
}
static int write_traditional(BIO *bio, EVP_PKEY *pkey) {
    return PEM_write_bio_PrivateKey_traditional(bio, pkey, NULL, NULL, 0, NULL, NULL);
}
static int write_encrypted(BIO *bio, EVP_PKEY *pkey) {
    return PEM_write_bio_PKCS8PrivateKey(bio, pkey, EVP_aes_256_cbc(), "secret", 6, NULL, NULL);
}
static int write_traditional_encrypted(BIO *bio, EVP_PKEY *pkey) {
    return PEM_write_bio_PrivateKey_traditional(bio, pkey, EVP_aes_256_cbc(),
                                                (const unsigned char *)"secret", 6, NULL, NULL);
}
static int write_public(BIO *bio, EVP_PKEY *pkey) {
    return PEM_write_bio_PUBKEY(bio, pkey);
}

static void refuse_written(EVP_PKEY *pkey, write_fn *fn, const char *reason) {
    struct buf b;
    written(pkey, fn, &b);
    refuse(buf_slice(&b), reason);
    buf_free(&b);
}

static EVP_PKEY *ed25519(void) {
    return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
}

/* A key that claims another one's n: what it signs, its public half does not verify. */
static EVP_PKEY *mixed_rsa(EVP_PKEY *a, EVP_PKEY *b) {
    static const char *const names[] = {
        OSSL_PKEY_PARAM_RSA_N,         OSSL_PKEY_PARAM_RSA_E,
        OSSL_PKEY_PARAM_RSA_D,         OSSL_PKEY_PARAM_RSA_FACTOR1,
        OSSL_PKEY_PARAM_RSA_FACTOR2,   OSSL_PKEY_PARAM_RSA_EXPONENT1,
        OSSL_PKEY_PARAM_RSA_EXPONENT2, OSSL_PKEY_PARAM_RSA_COEFFICIENT1,
    };
    enum { NUMBERS = sizeof names / sizeof names[0] };
    BIGNUM *numbers[NUMBERS] = {NULL};
    OSSL_PARAM_BLD *bld = OSSL_PARAM_BLD_new();
    for (size_t i = 0; i < NUMBERS; i++) {
        assert_int_equal(EVP_PKEY_get_bn_param(i == 0 ? a : b, names[i], &numbers[i]), 1);
        assert_int_equal(OSSL_PARAM_BLD_push_BN(bld, names[i], numbers[i]), 1);
    }
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(bld);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    EVP_PKEY *pkey = NULL;
    assert_int_equal(EVP_PKEY_fromdata_init(ctx), 1);
    assert_int_equal(EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_KEYPAIR, params), 1);
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(bld);
    for (size_t i = 0; i < NUMBERS; i++) BN_free(numbers[i]);
    EVP_PKEY_free(a);
    EVP_PKEY_free(b);
    return pkey;
}

static void test_refused_keys(void **state) {
    (void)state;
    refuse(slice_str(""), "no private key");
    refuse(slice_str("hello"), "no private key");
    refuse(slice_str("whsk_"), "32 or 64 bytes");
    refuse(slice_str("whsk_AAAA"), "32 or 64 bytes");
    refuse(slice_str("whsk_not base64"), "32 or 64 bytes");
    refuse(slice_str("whsk_" WHOLE "AAAA"), "32 or 64 bytes");
    refuse(slice_str("whsec_" SEED), "no private key");
    refuse(slice_str("whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ"
                     "6p9lMicMFs6Kvw=="),
           "not that of its seed");
    char long_text[SIGNING_PEM_BYTES + 1];
    memset(long_text, 'a', sizeof long_text);
    refuse(slice_of(long_text, sizeof long_text), "longer than 8192");
    refuse_written(ed25519(), write_public, "no private key");
    refuse_written(ed25519(), write_encrypted, "encrypted");
    refuse_written(EVP_RSA_gen(2048), write_traditional_encrypted, "encrypted");
    refuse_written(EVP_EC_gen("P-256"), write_plain, "another algorithm");
    refuse_written(EVP_RSA_gen(1024), write_plain, "less than 2048 bits");
    refuse_written(mixed_rsa(EVP_RSA_gen(2048), EVP_RSA_gen(2048)), write_plain,
                   "do not belong together");
}

static void test_the_older_form_of_rsa(void **state) {
    (void)state;
    struct buf b;
    const char *why = NULL;
    written(EVP_RSA_gen(3072), write_traditional, &b);
    assert_true(slice_starts_with(buf_slice(&b), "-----BEGIN RSA PRIVATE KEY-----\n"));
    struct signing_key *k = signing_key_parse(buf_slice(&b), &why);
    assert_non_null(k);
    check_jwt(k);
    signing_key_free(&k);
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_vector_of_v1a),
        cmocka_unit_test(test_the_public_form_of_ed25519),
        cmocka_unit_test(test_a_jwt_is_verified_with_the_served_key),
        cmocka_unit_test(test_the_thumbprint_of_rsa),
        cmocka_unit_test(test_fresh_ed25519),
        cmocka_unit_test(test_pem_there_and_back),
        cmocka_unit_test(test_refused_keys),
        cmocka_unit_test(test_the_older_form_of_rsa),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
