/* Secrets as text: what is one, fresh ones, and what is shown of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>

#include "base/base64.h"
#include "broker/signature/secret.h"

#define KEY_24 "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

static void expect_secret(const char *text, size_t key_len) {
    struct secret s = {.len = 0};
    const char *why = NULL;
    assert_int_equal(secret_parse(slice_str(text), &s, &why), ERR_OK);
    assert_int_equal(s.len, key_len);
}

static void refuse_secret(const char *text, const char *reason) {
    struct secret s;
    const char *why = NULL;
    assert_int_equal(secret_parse(slice_str(text), &s, &why), ERR_INVALID_REQUEST);
    if (strstr(why, reason) == NULL) fail_msg("\"%s\": %s", text, why);
}

static void test_which_texts_are_secrets(void **state) {
    (void)state;
    expect_secret("whsec_" KEY_24, 24);
    expect_secret(KEY_24, 24);
    refuse_secret("", "empty");
    refuse_secret("whsec_", "empty");
    refuse_secret("whsec_" KEY_24 "\n", "blank");
    refuse_secret(" whsec_" KEY_24, "blank");
    refuse_secret("whsec_ " KEY_24, "blank");
    refuse_secret("whsec_not-base64-but-long-enough-to-be-one", "base64");
    refuse_secret("WHSEC_" KEY_24, "base64");
    refuse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaQ=", "24 bytes"); /* 23 bytes */
    refuse_secret("password", "24 bytes");
}

static void test_the_length_of_keys(void **state) {
    (void)state;
    uint8_t key[80] = {7};
    char text[160];
    for (size_t len = 1; len <= sizeof key; len++) {
        struct secret s;
        const char *why = NULL;
        base64_encode(slice_of(key, len), text);
        enum err err = secret_parse(slice_str(text), &s, &why);
        assert_int_equal(err, len >= 24 && len <= 64 ? ERR_OK : ERR_INVALID_REQUEST);
        if (err == ERR_OK) assert_memory_equal(s.key, key, len);
    }
}

static void test_generated_secrets(void **state) {
    (void)state;
    char a[LIMIT_SECRET_TEXT_BYTES + 1], b[LIMIT_SECRET_TEXT_BYTES + 1];
    secret_generate(a);
    secret_generate(b);
    assert_string_not_equal(a, b);
    assert_true(slice_starts_with(slice_str(a), "whsec_"));
    expect_secret(a, 32);
}

static void expect_shown(const char *text, const char *shown) {
    char out[SECRET_SHOWN_BYTES];
    secret_show(text, out);
    assert_string_equal(out, shown);
}

static void test_what_is_shown(void **state) {
    (void)state;
    expect_shown("whsec_NnZ2aTU5MzdqOXY2bXFwZjgzb2R2cXM1Y3B6cTlyMnM=", "whsec_...MnM=");
    expect_shown(KEY_24, "...LaSw");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_which_texts_are_secrets),
        cmocka_unit_test(test_the_length_of_keys),
        cmocka_unit_test(test_generated_secrets),
        cmocka_unit_test(test_what_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
