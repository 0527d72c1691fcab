/* What envelope_read finds in a body, and what it leaves empty. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>

#include "base/buf.h"
#include "broker/ingest/envelope.h"

/* NULL stands for an empty field. */
static void expect_slice(struct slice got, const char *want) {
    if (want == NULL) want = "";
    if (!slice_eq_str(got, want)) fail_msg("\"%.*s\" instead of \"%s\"", SLICE_ARG(got), want);
}

static void expect(const char *body, const char *type, const char *subject, const char *metadata,
                   uint64_t time_ms) {
    struct envelope e;
    envelope_read(slice_str(body), &e);
    expect_slice(e.type, type);
    expect_slice(e.subject, subject);
    expect_slice(e.metadata, metadata);
    assert_int_equal(e.time_ms, time_ms);
}

static void test_a_webhook(void **state) {
    (void)state;
    expect(
        "{\"type\":\"batch.succeeded\",\"version\":\"v1\",\"timestamp\":\"2026-01-22T12:00:00Z\","
        "\"data\":{\"id\":\"batch_123456\",\"output_file_uri\":\"gs://b/r.jsonl\"}}",
        "batch.succeeded", "batch_123456", NULL, 1769083200000);
    expect("{\"user_metadata\":{ \"team\": [1, 2.50] },\"data\":{\"id\":17}}", NULL, "17",
           "{ \"team\": [1, 2.50] }", 0);
}

static void test_numbers_as_subject_keep_their_digits(void **state) {
    (void)state;
    expect("{\"data\":{\"id\":12345678901234567890123}}", NULL, "12345678901234567890123", NULL, 0);
    expect("{\"data\":{\"id\": -1.50e3 }}", NULL, "-1.50e3", NULL, 0);
}

static void test_metadata_of_the_top_level_wins(void **state) {
    (void)state;
    expect("{\"data\":{\"user_metadata\":{\"a\":1}}}", NULL, NULL, "{\"a\":1}", 0);
    expect("{\"data\":{\"user_metadata\":{\"a\":1}},\"user_metadata\":{}}", NULL, NULL, "{}", 0);
    expect("{\"user_metadata\":{\"b\":2},\"data\":{\"user_metadata\":{\"a\":1}}}", NULL, NULL,
           "{\"b\":2}", 0);
    expect("{\"user_metadata\":\"text\",\"data\":{\"user_metadata\":{\"a\":1}}}", NULL, NULL,
           "{\"a\":1}", 0);
    expect("{\"user_metadata\":[1],\"data\":{\"user_metadata\":null}}", NULL, NULL, NULL, 0);
}

static void test_escapes_are_undone(void **state) {
    (void)state;
    expect(
        "{\"type\":\"a\\u002eb\\\"\",\"data\":{\"id\":\"\\u00e9\\/\"},"
        "\"timestamp\":\"2026-01-22T12:00:00\\u005a\"}",
        "a.b\"", "\xC3\xA9/", NULL, 1769083200000);
    expect("{\"type\":\"nul \\u0000\",\"data\":{\"id\":\"x\"}}", NULL, "x", NULL, 0);
}

static void test_other_types_are_empty(void **state) {
    (void)state;
    expect("{\"type\":7,\"timestamp\":1769083200,\"data\":{\"id\":{\"a\":1}}}", NULL, NULL, NULL,
           0);
    expect("{\"type\":null,\"timestamp\":\"yesterday\",\"data\":{\"id\":true}}", NULL, NULL, NULL,
           0);
    expect("{\"type\":\"x\",\"data\":[{\"id\":\"no\"}]}", "x", NULL, NULL, 0);
    expect("{\"type\":\"x\",\"data\":\"id\"}", "x", NULL, NULL, 0);
    expect("{\"nested\":{\"type\":\"x\",\"id\":\"y\",\"user_metadata\":{}}}", NULL, NULL, NULL, 0);
}

static void test_the_last_of_two_counts(void **state) {
    (void)state;
    expect("{\"type\":\"a\",\"type\":\"b\",\"data\":{\"id\":\"1\",\"id\":2}}", "b", "2", NULL, 0);
    expect("{\"timestamp\":\"2026-01-22T12:00:00Z\",\"timestamp\":7}", NULL, NULL, NULL, 0);
}

static void test_what_is_no_object_is_empty(void **state) {
    (void)state;
    static const char *const bodies[] = {
        "",  "plain text", "17", "\"type\"", "null", "[{\"type\":\"x\",\"data\":{\"id\":\"y\"}}]",
        "{", "<xml/>"};
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        expect(bodies[i], NULL, NULL, NULL, 0);
    }
    /* What was found before the fault is not kept. */
    expect(
        "{\"type\":\"a\",\"timestamp\":\"2026-01-22T12:00:00Z\",\"data\":{\"id\":\"1\"},"
        "\"user_metadata\":{}",
        NULL, NULL, NULL, 0);
    expect("{\"type\":\"a\"} trailing", NULL, NULL, NULL, 0);
    expect("{\"type\":\"\xFF\"}", NULL, NULL, NULL, 0);
}

/* A body whose one field has a value of `len` bytes between the given texts. */
static struct slice sized(struct buf *b, const char *before, size_t len, const char *after) {
    buf_clear(b);
    buf_append_str(b, before);
    for (size_t i = 0; i < len; i++) buf_append_byte(b, 'x');
    buf_append_str(b, after);
    return buf_slice(b);
}

static void test_fields_that_are_too_long_are_empty(void **state) {
    (void)state;
    struct buf b;
    struct envelope e;
    buf_init(&b, 1 << 20);
    envelope_read(sized(&b, "{\"type\":\"", LIMIT_EVENT_TYPE_BYTES, "\"}"), &e);
    assert_int_equal(e.type.len, LIMIT_EVENT_TYPE_BYTES);
    envelope_read(sized(&b, "{\"type\":\"", LIMIT_EVENT_TYPE_BYTES + 1, "\"}"), &e);
    assert_int_equal(e.type.len, 0);
    envelope_read(sized(&b, "{\"type\":\"\\n", LIMIT_EVENT_TYPE_BYTES - 1, "\"}"), &e);
    assert_int_equal(e.type.len, LIMIT_EVENT_TYPE_BYTES);
    envelope_read(sized(&b, "{\"type\":\"\\n", LIMIT_EVENT_TYPE_BYTES, "\"}"), &e);
    assert_int_equal(e.type.len, 0);
    const char *before = "{\"type\":\"kept\",\"data\":{\"id\":\"";
    envelope_read(sized(&b, before, LIMIT_EVENT_SUBJECT_BYTES, "\"}}"), &e);
    assert_int_equal(e.subject.len, LIMIT_EVENT_SUBJECT_BYTES);
    envelope_read(sized(&b, before, LIMIT_EVENT_SUBJECT_BYTES + 1, "\"}}"), &e);
    assert_int_equal(e.subject.len, 0);
    expect_slice(e.type, "kept");
    before = "{\"user_metadata\":{\"a\":\"";
    envelope_read(sized(&b, before, LIMIT_EVENT_METADATA_BYTES - 8, "\"}}"), &e);
    assert_int_equal(e.metadata.len, LIMIT_EVENT_METADATA_BYTES);
    envelope_read(sized(&b, before, LIMIT_EVENT_METADATA_BYTES - 7, "\"}}"), &e);
    assert_int_equal(e.metadata.len, 0);
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_webhook),
        cmocka_unit_test(test_numbers_as_subject_keep_their_digits),
        cmocka_unit_test(test_metadata_of_the_top_level_wins),
        cmocka_unit_test(test_escapes_are_undone),
        cmocka_unit_test(test_other_types_are_empty),
        cmocka_unit_test(test_the_last_of_two_counts),
        cmocka_unit_test(test_what_is_no_object_is_empty),
        cmocka_unit_test(test_fields_that_are_too_long_are_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
