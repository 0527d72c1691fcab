/* What envelope_read finds in a body, and what it leaves empty; which headers are kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>

#include "base/buf.h"
#include "broker/ingest/envelope.h"
#include "broker/ingest/kept_headers.h"

/* NULL stands for an empty field. */
static void expect_slice(struct slice got, const char *want) {
    if (want == NULL) want = "";
    if (!slice_eq_str(got, want)) fail_msg("\"%.*s\" instead of \"%s\"", SLICE_ARG(got), want);
}

static void read_body(struct slice body, struct envelope *out) {
    const struct http_request r = {.body = body};
    envelope_read(&envelope_standard, &r, out);
}

static void expect(const char *body, const char *type, const char *subject, const char *metadata,
                   uint64_t time_ms) {
    struct envelope e;
    read_body(slice_str(body), &e);
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
    read_body(sized(&b, "{\"type\":\"", LIMIT_EVENT_TYPE_BYTES, "\"}"), &e);
    assert_int_equal(e.type.len, LIMIT_EVENT_TYPE_BYTES);
    read_body(sized(&b, "{\"type\":\"", LIMIT_EVENT_TYPE_BYTES + 1, "\"}"), &e);
    assert_int_equal(e.type.len, 0);
    read_body(sized(&b, "{\"type\":\"\\n", LIMIT_EVENT_TYPE_BYTES - 1, "\"}"), &e);
    assert_int_equal(e.type.len, LIMIT_EVENT_TYPE_BYTES);
    read_body(sized(&b, "{\"type\":\"\\n", LIMIT_EVENT_TYPE_BYTES, "\"}"), &e);
    assert_int_equal(e.type.len, 0);
    const char *before = "{\"type\":\"kept\",\"data\":{\"id\":\"";
    read_body(sized(&b, before, LIMIT_EVENT_SUBJECT_BYTES, "\"}}"), &e);
    assert_int_equal(e.subject.len, LIMIT_EVENT_SUBJECT_BYTES);
    read_body(sized(&b, before, LIMIT_EVENT_SUBJECT_BYTES + 1, "\"}}"), &e);
    assert_int_equal(e.subject.len, 0);
    expect_slice(e.type, "kept");
    before = "{\"user_metadata\":{\"a\":\"";
    read_body(sized(&b, before, LIMIT_EVENT_METADATA_BYTES - 8, "\"}}"), &e);
    assert_int_equal(e.metadata.len, LIMIT_EVENT_METADATA_BYTES);
    read_body(sized(&b, before, LIMIT_EVENT_METADATA_BYTES - 7, "\"}}"), &e);
    assert_int_equal(e.metadata.len, 0);
    buf_free(&b);
}

/* ---- rules of providers ---- */

static const struct envelope_rule rule = {
    .type_header = "x-type",
    .type_slash = '/',
    .time_header = "x-time",
    .paths = {ENVELOPE_AT2(TYPE, "event", "type"), ENVELOPE_AT(TYPE, "type"),
              ENVELOPE_AT(TYPE_SUFFIX, "action"), ENVELOPE_AT3(SUBJECT, "a", "b", "id"),
              ENVELOPE_AT(SUBJECT, "name"), ENVELOPE_AT(SUBJECT_NUMBER, "number"),
              ENVELOPE_AT2(SUBJECT_NUMBER, "issue", "number"), ENVELOPE_AT(TIME_SECONDS, "created"),
              ENVELOPE_AT(ID, "id"), ENVELOPE_AT2(METADATA, "a", "meta"),
              ENVELOPE_AT(METADATA, "meta")},
};

static struct envelope read_by_rule(const char *body, const char *type, const char *time) {
    const struct http_header headers[] = {{slice_str("X-Type"), slice_str(type)},
                                          {slice_str("X-Time"), slice_str(time)}};
    const struct http_request r = {.headers = headers, .headers_count = 2, .body = slice_str(body)};
    static struct envelope e; /* its texts outlive this call */
    envelope_read(&rule, &r, &e);
    return e;
}

static void test_rules(void **state) {
    (void)state;
    struct envelope e = read_by_rule(
        "{\"type\":\"outer\",\"event\":{\"type\":\"in\\tner\"},\"action\":\"do\\tne\","
        "\"a\":{\"b\":{\"id\":17},\"meta\":{\"k\":1}},\"name\":\"n\",\"number\":-5,"
        "\"issue\":{\"number\":6},\"created\":1769083200,\"id\":\"i\\u0064\"}",
        "", "");
    expect_slice(e.type, "in\tner.do\tne");
    expect_slice(e.subject, "17#-5");
    expect_slice(e.id, "id");
    expect_slice(e.metadata, "{\"k\":1}");
    assert_int_equal(e.time_ms, 1769083200000);
    /* A header goes before the body; also when that is no JSON. */
    e = read_by_rule("{\"type\":\"outer\",\"action\":\"x\",\"created\":5}", "orders/create/now",
                     "2026-01-22T12:00:00Z");
    expect_slice(e.type, "orders.create.now.x");
    assert_int_equal(e.time_ms, 1769083200000);
    e = read_by_rule("{\"type\":\"outer\",", "orders/create", "");
    expect_slice(e.type, "orders.create");
    expect_slice(e.subject, NULL);
    /* The second of a list where the first is of another type; a suffix alone is nothing. */
    e = read_by_rule(
        "{\"type\":\"outer\",\"event\":{\"type\":[]},\"a\":{\"b\":{\"id\":{}}},\"name\":"
        "\"n\",\"meta\":{},\"issue\":{\"number\":\"x\"},\"created\":\"5\"}",
        "\xff", "then");
    expect_slice(e.type, "outer");
    expect_slice(e.subject, "n");
    expect_slice(e.metadata, "{}");
    assert_int_equal(e.time_ms, 0);
    e = read_by_rule("{\"action\":\"x\",\"number\":1,\"created\":99999999999999}", "", "");
    expect_slice(e.type, NULL);
    expect_slice(e.subject, NULL);
    assert_int_equal(e.time_ms, 0);
}

/* Two texts that need decoding do not take each other's place. */
static void test_escapes_in_a_list(void **state) {
    (void)state;
    struct envelope e = read_by_rule(
        "{\"event\":{\"type\":\"fir\\u0073t\"},\"type\":\"sec\\u006fnd\","
        "\"a\":{\"b\":{\"id\":\"\\u0061\"}},\"name\":\"\\u0062\"}",
        "", "");
    expect_slice(e.type, "first");
    expect_slice(e.subject, "a");
}

static void test_cloudevents(void **state) {
    (void)state;
    struct http_header headers[] = {
        {slice_str("ce-specversion"), slice_str("1.0")}, {slice_str("ce-type"), slice_str("t")},
        {slice_str("ce-source"), slice_str("/s")},       {slice_str("ce-id"), slice_str("1")},
        {slice_str("ce-time"), slice_str("never")},      {slice_str("ce-subject"), slice_str("")}};
    struct http_request r = {.headers = headers, .headers_count = 6, .body = slice_str("{}")};
    struct envelope e;
    envelope_clear(&e);
    e.subject = slice_str("kept");
    e.time_ms = 7;
    envelope_read_cloudevent(&r, true, &e);
    expect_slice(e.type, "t");
    expect_slice(e.id, "/s#1");
    expect_slice(e.subject, "kept");
    assert_int_equal(e.time_ms, 7);
    /* An id that nothing signs does not replace one that is signed. */
    e.id = slice_str("signed");
    envelope_read_cloudevent(&r, false, &e);
    expect_slice(e.id, "signed");
    headers[0].name = slice_str("ce-spec");
    envelope_clear(&e);
    envelope_read_cloudevent(&r, true, &e);
    expect_slice(e.type, NULL);
    /* An id that does not fit with its source is left to the caller. */
    headers[0].name = slice_str("CE-SpecVersion");
    char source[LIMIT_EVENT_ID_BYTES + 1];
    memset(source, 's', sizeof source - 1);
    source[sizeof source - 1] = '\0';
    headers[2].value = slice_str(source);
    envelope_read_cloudevent(&r, true, &e);
    expect_slice(e.id, NULL);
}

/* Names with a dot are one name. */
static void test_names_are_whole(void **state) {
    (void)state;
    expect("{\"data.id\":1,\"data\":{\"idx\":2,\"i\":3},\"typ\":\"x\",\"typed\":\"y\"}", NULL, NULL,
           NULL, 0);
    expect("{\"\":\"x\",\"id\":\"y\",\"data\":{\"\":{\"id\":1}}}", NULL, NULL, NULL, 0);
}

/* ---- kept headers ---- */

static void expect_kept(const struct http_header *headers, size_t count, const char *want) {
    static const struct kept_header own[] = {
        KEPT_NAME("x-one"), KEPT_BEGINNING("x-all-"), {.name = NULL}};
    const struct http_request r = {.headers = headers, .headers_count = count};
    struct buf b;
    buf_init(&b, LIMIT_EVENT_HEADERS_BYTES);
    kept_headers_write(&r, own, &b);
    expect_slice(buf_slice(&b), want);
    buf_free(&b);
}

static void test_kept_headers(void **state) {
    (void)state;
    const struct http_header headers[] = {
        {slice_str("X-One"), slice_str("1")},
        {slice_str("x-one"), slice_str("of two the first")},
        {slice_str("X-Ones"), slice_str("no")},
        {slice_str("x-on"), slice_str("no")},
        {slice_str("X-ALL-"), slice_str("")},
        {slice_str("x-All-Z_9"), slice_str("a\\b")},
        {slice_str("x-all-2"), slice_str("W/\"7\"")},
        {slice_str("x-all-3"), slice_str("a\tb")},
        {slice_str("x-all-4"), slice_str("\xC3\xA9 \xFF")},
        {slice_str("x-all"), slice_str("no")},
        {slice_str("x-all-my-Secrets"), slice_str("no")},
        {slice_str("x-all-Signature-256"), slice_str("no")},
        {slice_str("Cookie"), slice_str("no")},
        {slice_str("CE-Type"), slice_str("t")},
        {slice_str("TraceParent"), slice_str("00-1")},
        {slice_str(""), slice_str("no")},
        {slice_str("x-all-a name of more than sixty-four bytes, which is one too many."),
         slice_str("no")},
    };
    expect_kept(headers, sizeof headers / sizeof headers[0],
                "{\"x-one\":\"1\",\"x-all-\":\"\","
                "\"x-all-z_9\":\"a\\\\b\",\"x-all-2\":\"W/\\\"7\\\"\","
                "\"x-all-3\":\"a\\u0009b\",\"x-all-4\":\"\xC3\xA9 \xEF\xBF\xBD\","
                "\"ce-type\":\"t\",\"traceparent\":\"00-1\"}");
    expect_kept(headers + 2, 2, "");
    expect_kept(NULL, 0, "");
}

static void test_kept_headers_end_at_their_limit(void **state) {
    (void)state;
    static char value[LIMIT_EVENT_HEADERS_BYTES];
    memset(value, 'v', sizeof value);
    const struct http_header headers[] = {
        {slice_str("x-all-1"), slice_of(value, sizeof value / 6)}, /* might be six times as long */
        {slice_str("x-all-2"), slice_of(value, sizeof value / 12)},
        {slice_str("x-one"), slice_str("short")}};
    struct buf want;
    buf_init(&want, LIMIT_EVENT_HEADERS_BYTES);
    buf_append_str(&want, "{\"x-all-2\":\"");
    buf_append(&want, value, sizeof value / 12);
    buf_append_str(&want, "\",\"x-one\":\"short\"}");
    buf_append_byte(&want, '\0');
    expect_kept(headers, 3, (const char *)want.data);
    buf_free(&want);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_webhook),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_names_are_whole),
        cmocka_unit_test(test_kept_headers),
        cmocka_unit_test(test_kept_headers_end_at_their_limit),
        cmocka_unit_test(test_escapes_in_a_list),
        cmocka_unit_test(test_cloudevents),
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
