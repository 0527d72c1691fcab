/* What an endpoint is sent: the body as it came in, or the thin envelope around what was published
 * here, whatever its bytes are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <stdio.h>

#include "broker/json/walk.h"
#include "broker/webhooks/payload.h"
#include "proto/limits.h"

#define HEAD                                                                                       \
    "{\"type\":\"batch.succeeded\",\"version\":\"v1\",\"timestamp\":\"2026-01-22T12:00:00.000Z\""
#define NOW_MS 1769083200000ULL

static struct event published(const char *content_type, const char *body) {
    return (struct event){
        .received_at_ms = NOW_MS,
        .type = slice_str("batch.succeeded"),
        .content_type = slice_str(content_type),
        .body = slice_str(body),
    };
}

static bool note_object(void *ctx, const struct json_value *v) {
    *(bool *)ctx = v->type == JSON_IS_OBJECT;
    return true;
}

static bool is_object(struct slice text) {
    bool object = false;
    return json_walk(text, 0, note_object, &object, NULL) && object;
}

static void expect(const struct event *event, const char *text) {
    struct buf b;
    buf_init(&b, LIMIT_EVENT_BYTES * 8);
    payload_write(event, &b);
    if (!slice_eq_str(buf_slice(&b), text)) {
        fail_msg("expected %s\ngot      %.*s", text, SLICE_ARG(buf_slice(&b)));
    }
    if (event->source.len == 0) assert_true(is_object(buf_slice(&b)));
    buf_free(&b);
}

static void expect_data(const char *content_type, const char *body, const char *data) {
    struct event event = published(content_type, body);
    char text[1024];
    int len = snprintf(text, sizeof text, HEAD ",\"data\":%s}", data);
    assert_true(len > 0 && (size_t)len < sizeof text);
    expect(&event, text);
}

static void test_json_goes_in_as_it_is(void **state) {
    (void)state;
    static const char body[] = "{ \"id\" : \"batch_1\",\n\"n\":1.50, \"u\":\"\\u00e9\" }\n";
    static const char *const json[] = {"application/json",
                                       "Application/JSON",
                                       "application/json; charset=utf-8",
                                       "application/json ;charset=utf-8",
                                       "application/problem+json",
                                       "application/x+JSON; v=1",
                                       ""};
    for (size_t i = 0; i < sizeof json / sizeof json[0]; i++) expect_data(json[i], body, body);
    expect_data("application/json", "[1]", "[1]");
    expect_data("application/json", "\"text\"", "\"text\"");
    expect_data("application/json", "", "{}");
    expect_data("text/plain", "", "{}");
    expect_data("", "", "{}");
}

static void test_what_is_not_json_is_text(void **state) {
    (void)state;
    static const char *const other[] = {"text/plain",
                                        "application/jsonx",
                                        "json",
                                        "+json",
                                        "application/json5",
                                        "text/plain; x=application/json",
                                        "application/json-seq"};
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        char data[256];
        snprintf(data, sizeof data, "{\"content_type\":\"%s\",\"text\":\"{}\"}", other[i]);
        expect_data(other[i], "{}", data);
    }
    /* It says that it is JSON, and is not. */
    static const char *const broken[] = {"{", "{}}", "nul", " ", "{\"a\":1},"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        struct buf b;
        buf_init(&b, 256);
        buf_append_str(&b, "{\"content_type\":\"application/json\",\"text\":");
        buf_append_json_string(&b, slice_str(broken[i]));
        buf_append(&b, "}", 2);
        expect_data("application/json", broken[i], (const char *)b.data);
        buf_free(&b);
    }
    expect_data("", "hello", "{\"text\":\"hello\"}");
    expect_data(
        "text/plain", "a \"b\"\\\n\r\t\x01\x7F\xC3\xA9",
        "{\"content_type\":\"text/plain\",\"text\":\"a \\\"b\\\"\\\\\\n\\u000d\\u0009\\u0001\x7F"
        "\xC3\xA9\"}");
}

static void test_what_is_not_text_is_base64(void **state) {
    (void)state;
    expect_data("application/octet-stream", "\xFF\xFE",
                "{\"content_type\":\"application/octet-stream\",\"base64\":\"//4=\"}");
    expect_data("", "abc\xC3", "{\"base64\":\"YWJjww==\"}");
    expect_data("application/json", "\"\xFF\"",
                "{\"content_type\":\"application/json\",\"base64\":\"Iv8i\"}");
    /* A zero is text to JSON. */
    struct event event = published("text/plain", "");
    event.body = slice_of("a\0b", 3);
    expect(&event, HEAD ",\"data\":{\"content_type\":\"text/plain\",\"text\":\"a\\u0000b\"}}");
}

static void test_deep_json_is_text(void **state) {
    (void)state;
    struct event event = published("application/json", "");
    uint8_t body[2 * (JSON_NESTING_MAX + 1)];
    memset(body, '[', sizeof body / 2);
    memset(body + sizeof body / 2, ']', sizeof body / 2);
    event.body = slice_of(body, sizeof body);
    struct buf b;
    buf_init(&b, 4096);
    payload_write(&event, &b);
    assert_true(is_object(buf_slice(&b)));
    assert_non_null(memmem(b.data, b.len, "\"text\":\"[[", 10));
    buf_free(&b);
}

static void test_metadata_and_time(void **state) {
    (void)state;
    struct event event = published("application/json", "{\"id\":\"b\"}");
    event.metadata = slice_str("{ \"tenant\": 7 }");
    expect(&event, HEAD ",\"data\":{\"id\":\"b\"},\"user_metadata\":{ \"tenant\": 7 }}");
    static const char *const strange[][2] = {
        {"[1]", "\"[1]\""}, {"x\"", "\"x\\\"\""}, {"{", "\"{\""}, {"\xFF", "\"\xEF\xBF\xBD\""}};
    for (size_t i = 0; i < 4; i++) {
        char text[256];
        event.metadata = slice_str(strange[i][0]);
        snprintf(text, sizeof text, HEAD ",\"data\":{\"id\":\"b\"},\"user_metadata\":%s}",
                 strange[i][1]);
        expect(&event, text);
    }
    event.metadata = slice_of(NULL, 0);
    event.type = slice_of(NULL, 0);
    event.time_ms = NOW_MS - 1;
    expect(&event,
           "{\"type\":\"\",\"version\":\"v1\",\"timestamp\":\"2026-01-22T11:59:59.999Z\","
           "\"data\":{\"id\":\"b\"}}");
}

static void test_what_was_ingested_goes_out_as_it_came(void **state) {
    (void)state;
    struct event event = published("application/xml", "<a/>\n");
    event.source = slice_str("shop");
    event.metadata = slice_str("{\"a\":1}");
    expect(&event, "<a/>\n");
    assert_true(slice_eq_str(payload_content_type(&event), "application/xml"));
    event.content_type = slice_of(NULL, 0);
    assert_true(slice_eq_str(payload_content_type(&event), "application/json"));
    event.body = slice_of(NULL, 0);
    expect(&event, "");
    struct event here = published("application/xml", "<a/>");
    assert_true(slice_eq_str(payload_content_type(&here), "application/json"));
}

static void test_it_appends(void **state) {
    (void)state;
    struct event event = published("", "1");
    struct buf b;
    buf_init(&b, 1024);
    buf_append_str(&b, "before");
    payload_write(&event, &b);
    assert_true(slice_eq_str(buf_slice(&b), "before" HEAD ",\"data\":1}"));
    buf_free(&b);
}

/* The longest that an event can become fits into what the header says. */
static void test_the_largest(void **state) {
    (void)state;
    struct buf body, metadata, out;
    buf_init(&body, LIMIT_BODY_BYTES_HIGHEST);
    buf_init(&metadata, LIMIT_EVENT_METADATA_BYTES);
    buf_init(&out, (size_t)LIMIT_EVENT_BYTES * 8);
    memset(buf_reserve(&body, body.max), 1, body.max);
    memset(buf_reserve(&metadata, metadata.max), 1, metadata.max);
    struct event event = published("text/plain", "");
    event.body = slice_of(body.data, body.max);
    event.metadata = slice_of(metadata.data, metadata.max);
    payload_write(&event, &out);
    assert_true(out.len > 6 * (body.max + metadata.max));
    buf_free(&body);
    buf_free(&metadata);
    buf_free(&out);
}

static void test_endpoints(void **state) {
    (void)state;
    struct slice none = slice_of(NULL, 0), one = slice_str("https://a.example/x");
    assert_int_equal(payload_endpoints_count(none), 0);
    assert_int_equal(payload_endpoint(none, 0).len, 0);
    assert_int_equal(payload_endpoints_count(one), 1);
    assert_true(slice_eq(payload_endpoint(one, 0), one));
    assert_int_equal(payload_endpoint(one, 1).len, 0);
    struct slice three = slice_str("https://a.example\nhttp://b.example:8080/?q=1\nhttps://c");
    assert_int_equal(payload_endpoints_count(three), 3);
    assert_true(slice_eq_str(payload_endpoint(three, 0), "https://a.example"));
    assert_true(slice_eq_str(payload_endpoint(three, 1), "http://b.example:8080/?q=1"));
    assert_true(slice_eq_str(payload_endpoint(three, 2), "https://c"));
    assert_int_equal(payload_endpoint(three, 3).len, 0);
    assert_int_equal(payload_endpoint(three, 7).len, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_goes_in_as_it_is),
        cmocka_unit_test(test_what_is_not_json_is_text),
        cmocka_unit_test(test_what_is_not_text_is_base64),
        cmocka_unit_test(test_deep_json_is_text),
        cmocka_unit_test(test_metadata_and_time),
        cmocka_unit_test(test_what_was_ingested_goes_out_as_it_came),
        cmocka_unit_test(test_it_appends),
        cmocka_unit_test(test_the_largest),
        cmocka_unit_test(test_endpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
