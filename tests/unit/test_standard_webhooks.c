/* What is signed, which requests pass for it, and that no other does: two published vectors of
 * Standard Webhooks, every change of a single byte, several secrets, several signatures, and time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <stdio.h>

#include "base/base64.h"
#include "broker/signature/standard_webhooks.h"

#define GOOD  "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
#define WRONG "Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
#define NOW_S 1614265330ULL

static struct standard_webhooks_request sw1(void) {
    return (struct standard_webhooks_request){
        .id = slice_str("msg_p5jXN8AQM9LWM0D4loKWxJek"),
        .timestamp = slice_str("1614265330"),
        .signature = slice_str(GOOD),
        .body = slice_str("{\"test\": 2432232314}"),
    };
}

static struct secret secret(const char *text) {
    struct secret s;
    const char *why = NULL;
    assert_int_equal(secret_parse(slice_str(text), &s, &why), ERR_OK);
    return s;
}

static struct secret sw1_secret(void) {
    return secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
}

/* As a source with these secrets does. */
static enum err verify_with(const struct secret *secrets, size_t count,
                            const struct standard_webhooks_request *r, uint64_t wall_ms,
                            const char **why) {
    struct hmac *each[LIMIT_SECRETS];
    for (size_t i = 0; i < count; i++) {
        each[i] = hmac_new_keyed(HMAC_SHA256, slice_of(secrets[i].key, secrets[i].len));
    }
    const struct standard_webhooks_keys keys = {
        .secrets = each, .secrets_count = count, .tolerance_s = STANDARD_WEBHOOKS_TOLERANCE_S};
    enum err err = standard_webhooks_verify(&keys, r, wall_ms, NULL, why);
    assert_int_equal(standard_webhooks_verify(&keys, r, wall_ms, NULL, why), err);
    for (size_t i = 0; i < count; i++) hmac_free(&each[i]);
    return err;
}

static enum err verify_at(const struct standard_webhooks_request *r, uint64_t wall_ms) {
    struct secret s = sw1_secret();
    const char *why = NULL;
    enum err err = verify_with(&s, 1, r, wall_ms, &why);
    assert_true((err == ERR_OK) == (why == NULL));
    return err;
}

static enum err verify(const struct standard_webhooks_request *r) {
    return verify_at(r, NOW_S * 1000);
}

static enum err verify_signature(const char *signature) {
    struct standard_webhooks_request r = sw1();
    r.signature = slice_str(signature);
    return verify(&r);
}

static void test_vectors(void **state) {
    (void)state;
    struct standard_webhooks_request r = sw1();
    assert_int_equal(verify(&r), ERR_OK);

    struct secret s = secret("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
    struct standard_webhooks_request sw2 = {
        .id = slice_str("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"),
        .timestamp = slice_str("1649367553"),
        .signature = slice_str("v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="),
        .body = slice_str("{\"email\":\"test@example.com\",\"username\":\"test_user\"}"),
    };
    const char *why = NULL;
    assert_int_equal(verify_with(&s, 1, &sw2, 1649367553000, &why), ERR_OK);
    s = sw1_secret();
    assert_int_equal(verify_with(&s, 1, &sw2, 1649367553000, &why), ERR_SIGNATURE_MISMATCH);
}

static void test_the_prefix_of_a_secret_is_optional(void **state) {
    (void)state;
    struct secret s = secret("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    struct standard_webhooks_request r = sw1();
    const char *why = NULL;
    assert_int_equal(verify_with(&s, 1, &r, NOW_S * 1000, &why), ERR_OK);
}

static void test_entries(void **state) {
    (void)state;
    assert_int_equal(verify_signature("v1," WRONG), ERR_SIGNATURE_MISMATCH);
    assert_int_equal(verify_signature("v1," WRONG " v2," WRONG), ERR_SIGNATURE_MISMATCH);
    assert_int_equal(verify_signature("v1," WRONG " v2," WRONG " " GOOD), ERR_OK);
    assert_int_equal(verify_signature(GOOD " v1," WRONG), ERR_OK);
    assert_int_equal(verify_signature("v1a,AAAA v1,nonsense! " GOOD), ERR_OK);
    assert_int_equal(verify_signature("v1  " GOOD " "), ERR_OK);
    /* Without its padding it is the same signature. */
    assert_int_equal(verify_signature("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE"), ERR_OK);
    static const char *const malformed[] = {
        "v1,",
        "v1",
        "v1,g0hM9",
        " ",
        ",",
        "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "V1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "xv1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "v1,g0hM9SsE-OTPJTGt_tmIKtSyZlE3uFJELVlNIOLJ1OE=",  /* the URL alphabet */
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OEA",  /* 33 bytes */
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OEAA", /* and nonsense behind */
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=,x",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OF=", /* trailing bits that are not 0 */
    };
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
        assert_int_equal(verify_signature(malformed[i]), ERR_SIGNATURE_MALFORMED);
    }
}

static void test_only_so_many_entries_are_looked_at(void **state) {
    (void)state;
    char header[4096] = "";
    size_t len = 0;
    for (size_t i = 0; i < LIMIT_SIGNATURES - 1; i++) {
        len += (size_t)snprintf(header + len, sizeof header - len, "v1," WRONG " ");
    }
    snprintf(header + len, sizeof header - len, GOOD);
    assert_int_equal(verify_signature(header), ERR_OK);
    snprintf(header + len, sizeof header - len, "v1," WRONG " " GOOD);
    assert_int_equal(verify_signature(header), ERR_SIGNATURE_MISMATCH);
}

static void test_any_secret_will_do(void **state) {
    (void)state;
    struct secret secrets[LIMIT_SECRETS];
    struct standard_webhooks_request r = sw1();
    const char *why = NULL;
    for (size_t i = 0; i < LIMIT_SECRETS; i++) {
        secrets[i] = secret("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
        secrets[i].key[0] = (uint8_t)i;
    }
    assert_int_equal(verify_with(secrets, LIMIT_SECRETS, &r, NOW_S * 1000, &why),
                     ERR_SIGNATURE_MISMATCH);
    for (size_t i = 0; i < LIMIT_SECRETS; i++) {
        struct secret kept = secrets[i];
        secrets[i] = sw1_secret();
        assert_int_equal(verify_with(secrets, LIMIT_SECRETS, &r, NOW_S * 1000, &why), ERR_OK);
        secrets[i] = kept;
    }
}

/* Changes each byte of a part in turn; the request must be refused every time. */
static void tamper(struct slice *part, const struct standard_webhooks_request *r) {
    uint8_t copy[128];
    struct slice whole = *part;
    assert_true(whole.len > 0 && whole.len <= sizeof copy);
    for (size_t i = 0; i < whole.len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            memcpy(copy, whole.data, whole.len);
            copy[i] ^= (uint8_t)(1u << bit);
            *part = slice_of(copy, whole.len);
            if (verify(r) == ERR_OK) fail_msg("byte %zu, bit %u: accepted", i, bit);
        }
    }
    for (size_t len = 0; len < whole.len; len++) {
        *part = slice_of(whole.data, len);
        bool padding_only = len + 1 == whole.len && whole.data[len] == '=';
        assert_int_equal(verify(r) == ERR_OK, padding_only);
    }
    *part = whole;
}

static void test_every_byte_counts(void **state) {
    (void)state;
    struct standard_webhooks_request r = sw1();
    tamper(&r.id, &r);
    tamper(&r.timestamp, &r);
    tamper(&r.signature, &r);
    tamper(&r.body, &r);
    assert_int_equal(verify(&r), ERR_OK);
    r.body = slice_str("{\"test\": 2432232314}\n");
    assert_int_equal(verify(&r), ERR_SIGNATURE_MISMATCH);
    r.body = slice_of(NULL, 0);
    assert_int_equal(verify(&r), ERR_SIGNATURE_MISMATCH);
}

static void test_missing_headers_are_named(void **state) {
    (void)state;
    struct secret s = sw1_secret();
    static const char *const names[] = {"webhook-id", "webhook-timestamp", "webhook-signature"};
    for (size_t i = 0; i < 3; i++) {
        struct standard_webhooks_request r = sw1();
        struct slice *parts[] = {&r.id, &r.timestamp, &r.signature};
        const char *why = NULL;
        *parts[i] = slice_of(NULL, 0);
        assert_int_equal(verify_with(&s, 1, &r, NOW_S * 1000, &why), ERR_SIGNATURE_MISSING);
        assert_non_null(strstr(why, names[i]));
    }
}

static void test_malformed_timestamps(void **state) {
    (void)state;
    static const char *const wrong[] = {"abc",
                                        "",
                                        "1614265330.0",
                                        "-1614265330",
                                        "+1614265330",
                                        " 1614265330",
                                        "1614265330 ",
                                        "1614265330s",
                                        "0x60379a32",
                                        "1e9",
                                        "99999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct standard_webhooks_request r = sw1();
        r.timestamp = slice_str(wrong[i]);
        assert_int_equal(verify(&r),
                         wrong[i][0] == '\0' ? ERR_SIGNATURE_MISSING : ERR_SIGNATURE_MALFORMED);
    }
    struct standard_webhooks_request r = sw1();
    r.timestamp = slice_str("18446744073709551615"); /* fits; it is just not what was signed */
    assert_int_equal(verify(&r), ERR_SIGNATURE_MISMATCH);
}

static void test_malformed_ids(void **state) {
    (void)state;
    struct standard_webhooks_request r = sw1();
    char id[LIMIT_EVENT_ID_BYTES + 2];
    memset(id, 'a', sizeof id);
    r.id = slice_of(id, LIMIT_EVENT_ID_BYTES);
    assert_int_equal(verify(&r), ERR_SIGNATURE_MISMATCH);
    r.id = slice_of(id, LIMIT_EVENT_ID_BYTES + 1);
    assert_int_equal(verify(&r), ERR_SIGNATURE_MALFORMED);
    static const char bad[] = {'.', '\t', '\n', 0x7F, 0x01, '\0'};
    for (size_t i = 0; i < sizeof bad; i++) {
        id[3] = bad[i];
        r.id = slice_of(id, 8);
        assert_int_equal(verify(&r), ERR_SIGNATURE_MALFORMED);
    }
    /* The same signed bytes, cut differently: `msg.1614265330` must not become the id. */
    r = sw1();
    r.id = slice_str("msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330");
    r.body = slice_str("");
    assert_int_equal(verify(&r), ERR_SIGNATURE_MALFORMED);
}

static void test_the_tolerance(void **state) {
    (void)state;
    struct standard_webhooks_request r = sw1();
    assert_int_equal(verify_at(&r, (NOW_S + 300) * 1000), ERR_OK);
    assert_int_equal(verify_at(&r, (NOW_S + 300) * 1000 + 999), ERR_OK);
    assert_int_equal(verify_at(&r, (NOW_S + 301) * 1000), ERR_TIMESTAMP_TOO_OLD);
    assert_int_equal(verify_at(&r, (NOW_S - 300) * 1000), ERR_OK);
    assert_int_equal(verify_at(&r, (NOW_S - 301) * 1000), ERR_TIMESTAMP_IN_FUTURE);
    assert_int_equal(verify_at(&r, UINT64_MAX), ERR_TIMESTAMP_TOO_OLD);
    assert_int_equal(verify_at(&r, 0), ERR_TIMESTAMP_IN_FUTURE);
}

/* Who holds no secret learns nothing of the broker's clock. */
static void test_time_is_told_to_signers_only(void **state) {
    (void)state;
    struct standard_webhooks_request r = sw1();
    r.signature = slice_str("v1," WRONG);
    assert_int_equal(verify_at(&r, 0), ERR_SIGNATURE_MISMATCH);
    assert_int_equal(verify_at(&r, (NOW_S + 301) * 1000), ERR_SIGNATURE_MISMATCH);
}

static void test_signing(void **state) {
    struct standard_webhooks_request r = sw1();
    struct secret mine = sw1_secret(), other = secret("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
    const char *why = NULL;
    struct buf b;
    buf_init(&b, 256);
    standard_webhooks_sign(*state, &mine, r.id, r.timestamp, r.body, &b);
    assert_true(slice_eq_str(buf_slice(&b), GOOD));

    /* In the middle of a rotation: each of the two receivers finds its entry. */
    buf_append_byte(&b, ' ');
    standard_webhooks_sign(*state, &other, r.id, r.timestamp, r.body, &b);
    r.signature = buf_slice(&b);
    assert_int_equal(verify_with(&mine, 1, &r, NOW_S * 1000, &why), ERR_OK);
    assert_int_equal(verify_with(&other, 1, &r, NOW_S * 1000, &why), ERR_OK);
    mine.key[0] ^= 1;
    assert_int_equal(verify_with(&mine, 1, &r, NOW_S * 1000, &why), ERR_SIGNATURE_MISMATCH);

    /* An empty body can be signed. */
    r.body = slice_of(NULL, 0);
    buf_clear(&b);
    standard_webhooks_sign(*state, &other, r.id, r.timestamp, r.body, &b);
    r.signature = buf_slice(&b);
    assert_int_equal(verify_with(&other, 1, &r, NOW_S * 1000, &why), ERR_OK);
    buf_free(&b);
}

static void expect_mac(struct hmac *h, const char *message, const char *want) {
    uint8_t mac[HMAC_BYTES_MAX];
    char hex[2 * HMAC_BYTES_MAX + 1];
    hmac_add(h, slice_str(message));
    hmac_end(h, mac);
    hex_encode(slice_of(mac, 32), hex);
    assert_string_equal(hex, want);
}

/* A context that has its key makes the code of each message whatever was begun and not ended. RFC
 * 4231, cases 1, 2 and 6. */
static void test_contexts_keep_their_keys(void **state) {
    (void)state;
    static const char hi[] = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
                      jefe[] = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
                      large[] = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
    uint8_t first_key[20], large_key[131];
    memset(first_key, 0x0b, sizeof first_key);
    memset(large_key, 0xaa, sizeof large_key);
    struct hmac *a = hmac_new_keyed(HMAC_SHA256, slice_of(first_key, sizeof first_key));
    struct hmac *b = hmac_new_keyed(HMAC_SHA256, slice_str("Jefe"));
    struct hmac *c = hmac_new_keyed(HMAC_SHA256, slice_of(large_key, sizeof large_key));
    memset(first_key, 0, sizeof first_key); /* it is not borrowed */
    for (int i = 0; i < 3; i++) {
        hmac_again(a);
        hmac_again(b);
        expect_mac(a, "Hi There", hi);
        expect_mac(b, "what do ya want for nothing?", jefe);
        hmac_again(c);
        expect_mac(c, "Test Using Larger Than Block-Size Key - Hash Key First", large);
        hmac_again(a);
        hmac_add(a, slice_str("not ended"));
    }
    hmac_begin(a, slice_str("Jefe"));
    hmac_again(a);
    expect_mac(a, "what do ya want for nothing?", jefe);
    hmac_free(&a);
    hmac_free(&b);
    hmac_free(&c);
}

static int setup(void **state) {
    *state = hmac_new();
    return *state == NULL ? -1 : 0;
}

static int teardown(void **state) {
    struct hmac *h = *state;
    hmac_free(&h);
    return h == NULL ? 0 : -1;
}

/* The key pair and the signature that Svix's server is tested with. */
#define V1A_PUBLIC "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
#define V1A_GOOD                                                                                   \
    "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="

static enum err verify_public(const struct verifying_key *const *publics, size_t count,
                              const struct standard_webhooks_request *r) {
    const struct standard_webhooks_keys keys = {
        .publics = publics, .publics_count = count, .tolerance_s = 300};
    const char *why = NULL;
    struct standard_webhooks_signer signer = {.index = 7};
    enum err err = standard_webhooks_verify(&keys, r, NOW_S * 1000, &signer, &why);
    if (err == ERR_OK) assert_true(signer.is_public && signer.index == count - 1);
    return err;
}

static void test_public_keys(void **state) {
    (void)state;
    const char *why = NULL;
    struct verifying_key *right = verifying_key_parse(slice_str(V1A_PUBLIC), &why);
    struct verifying_key *other =
        verifying_key_parse(slice_str("whpk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), &why);
    assert_non_null(right);
    assert_non_null(other);
    const struct verifying_key *const both[] = {other, right};
    struct standard_webhooks_request r = sw1();
    r.signature = slice_str(V1A_GOOD);
    assert_int_equal(verify_public(both + 1, 1, &r), ERR_OK);
    assert_int_equal(verify_public(both, 2, &r), ERR_OK); /* each is tried */
    assert_int_equal(verify_public(both, 1, &r), ERR_SIGNATURE_MISMATCH);
    r.body = slice_str("{\"test\": 2432232315}");
    assert_int_equal(verify_public(both, 2, &r), ERR_SIGNATURE_MISMATCH);
    r = sw1(); /* a v1 entry is nothing to a public key */
    assert_int_equal(verify_public(both, 2, &r), ERR_SIGNATURE_MALFORMED);
    static const char *const bad[] = {"whpk_", "whpk_AAAA",
                                      "whsec_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqf",
                                      "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4A"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        why = NULL;
        assert_null(verifying_key_parse(slice_str(bad[i]), &why));
        assert_non_null(why);
    }
    verifying_key_free(&right);
    verifying_key_free(&other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_public_keys),
        cmocka_unit_test(test_the_prefix_of_a_secret_is_optional),
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_only_so_many_entries_are_looked_at),
        cmocka_unit_test(test_any_secret_will_do),
        cmocka_unit_test(test_every_byte_counts),
        cmocka_unit_test(test_missing_headers_are_named),
        cmocka_unit_test(test_malformed_timestamps),
        cmocka_unit_test(test_malformed_ids),
        cmocka_unit_test(test_the_tolerance),
        cmocka_unit_test(test_time_is_told_to_signers_only),
        cmocka_unit_test(test_signing),
        cmocka_unit_test(test_contexts_keep_their_keys),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
