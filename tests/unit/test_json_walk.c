/* What json_walk tells of a text: which values, where, and exactly which bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "broker/json/members.h"
#include "broker/json/walk.h"

static const char *const type_names[] = {"null", "bool", "number", "string", "array", "object"};

struct seen {
    struct buf text;   /* one line per value: depth, path, index, type, raw */
    size_t stop_after; /* values; 0: never */
    size_t count;
};

static bool note(void *ctx, const struct json_value *v) {
    struct seen *s = ctx;
    buf_printf(&s->text, "%zu ", v->depth);
    for (size_t i = 0; i < v->depth; i++) {
        if (v->path[i].data == NULL) buf_append_str(&s->text, "/[]");
        else buf_printf(&s->text, "/%.*s", SLICE_ARG(v->path[i]));
    }
    buf_printf(&s->text, " #%zu %s ", v->index, type_names[v->type]);
    buf_append_slice(&s->text, v->raw);
    buf_append_byte(&s->text, '\n');
    s->count++;
    return s->stop_after == 0 || s->count < s->stop_after;
}

/* Walks a copy that ends at the end of its allocation, so that reading on is seen by ASan. */
static bool walk(struct slice text, size_t max_depth, struct seen *seen, struct json_error *error) {
    uint8_t *copy = mem_alloc(text.len + 1);
    memcpy(copy, text.data, text.len);
    uint8_t *exact = mem_realloc(copy, text.len > 0 ? text.len : 1);
    bool ok = json_walk(slice_of(exact, text.len), max_depth, note, seen, error);
    free(exact);
    return ok;
}

static void expect(const char *text, size_t max_depth, const char *lines) {
    struct seen seen = {.count = 0};
    buf_init(&seen.text, 1 << 20);
    struct json_error error = {.message = ""};
    bool ok = walk(slice_str(text), max_depth, &seen, &error);
    if (!ok) print_error("%s: %s\n", text, error.message);
    assert_true(ok);
    buf_append_byte(&seen.text, '\0');
    assert_string_equal((const char *)seen.text.data, lines);
    buf_free(&seen.text);
}

static void refuse(const char *text, size_t line, size_t column, const char *message) {
    struct seen seen = {.count = 0};
    buf_init(&seen.text, 1 << 20);
    struct json_error error = {.line = 0};
    assert_false(walk(slice_str(text), 0, &seen, &error));
    if (strstr(error.message, message) == NULL || error.line != line || error.column != column) {
        fail_msg("%s: line %zu, column %zu: %s", text, error.line, error.column, error.message);
    }
    assert_null(strchr(error.message, '\n'));
    assert_false(walk(slice_str(text), JSON_WALK_DEPTH, &seen, NULL));
    buf_free(&seen.text);
}

static void test_single_values(void **state) {
    (void)state;
    expect("null", 0, "0  #0 null null\n");
    expect(" \t\r\n true \n", 0, "0  #0 bool true\n");
    expect("false", 4, "0  #0 bool false\n");
    expect("\"\"", 0, "0  #0 string \"\"\n");
    expect("{}", 0, "0  #0 object {}\n");
    expect(" [ ] ", 4, "0  #0 array [ ]\n");
}

static void test_numbers_keep_their_bytes(void **state) {
    (void)state;
    static const char *const numbers[] = {"0",
                                          "-0",
                                          "7",
                                          "12.50",
                                          "-1e+5",
                                          "1E-2",
                                          "123456789012345678901234567890",
                                          "0.1000000000000000000000001",
                                          "1e999"};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        char text[128], lines[512];
        snprintf(lines, sizeof lines, "0  #0 number %s\n", numbers[i]);
        expect(numbers[i], 1, lines); /* ends with the text */
        snprintf(text, sizeof text, "\n%s ", numbers[i]);
        expect(text, 1, lines);
        snprintf(text, sizeof text, "[ %s,%s\t,%s]", numbers[i], numbers[i], numbers[i]);
        snprintf(lines, sizeof lines,
                 "1 /[] #0 number %s\n1 /[] #1 number %s\n1 /[] #2 number %s\n0  #0 array %s\n",
                 numbers[i], numbers[i], numbers[i], text);
        expect(text, 1, lines);
    }
}

static void test_strings_and_keys_keep_their_escapes(void **state) {
    (void)state;
    expect("[\"a\\\"b\",\"\\\\\",\"\\u00e9\\n\",\"\xC3\xA9\",\",:\"]", 1,
           "1 /[] #0 string \"a\\\"b\"\n1 /[] #1 string \"\\\\\"\n"
           "1 /[] #2 string \"\\u00e9\\n\"\n1 /[] #3 string \"\xC3\xA9\"\n"
           "1 /[] #4 string \",:\"\n"
           "0  #0 array [\"a\\\"b\",\"\\\\\",\"\\u00e9\\n\",\"\xC3\xA9\",\",:\"]\n");
    expect("{\"a\\u0062\" : 1 , \"\":2}", 1,
           "1 /a\\u0062 #0 number 1\n1 / #1 number 2\n"
           "0  #0 object {\"a\\u0062\" : 1 , \"\":2}\n");
}

static void test_paths_order_and_depth(void **state) {
    (void)state;
    const char *text =
        "{\"type\":\"x\",\"data\":{\"id\":[1,{\"deep\":[2,3]}],\"n\": null},\"z\":[]}";
    expect(text, 1,
           "1 /type #0 string \"x\"\n"
           "1 /data #1 object {\"id\":[1,{\"deep\":[2,3]}],\"n\": null}\n"
           "1 /z #2 array []\n"
           "0  #0 object {\"type\":\"x\",\"data\":{\"id\":[1,{\"deep\":[2,3]}],\"n\": null},"
           "\"z\":[]}\n");
    expect("{\"a\":{\"b\":[{\"c\":{\"d\":5}},6]},\"e\":7}", 4,
           "4 /a/b/[]/c #0 object {\"d\":5}\n"
           "3 /a/b/[] #0 object {\"c\":{\"d\":5}}\n"
           "3 /a/b/[] #1 number 6\n"
           "2 /a/b #0 array [{\"c\":{\"d\":5}},6]\n"
           "1 /a #0 object {\"b\":[{\"c\":{\"d\":5}},6]}\n"
           "1 /e #1 number 7\n"
           "0  #0 object {\"a\":{\"b\":[{\"c\":{\"d\":5}},6]},\"e\":7}\n");
    /* A key of one object is not left behind for the elements of the next array. */
    expect("[{\"k\":1},[2]]", 2,
           "2 /[]/k #0 number 1\n1 /[] #0 object {\"k\":1}\n2 /[]/[] #0 number 2\n"
           "1 /[] #1 array [2]\n0  #0 array [{\"k\":1},[2]]\n");
    expect("[[[[[[1]]]]],2]", 1,
           "1 /[] #0 array [[[[[1]]]]]\n1 /[] #1 number 2\n"
           "0  #0 array [[[[[[1]]]]],2]\n");
}

static void test_the_visitor_stops(void **state) {
    (void)state;
    struct seen seen = {.stop_after = 2};
    buf_init(&seen.text, 1 << 20);
    assert_true(walk(slice_str("[1,2,3,oops"), 1, &seen, NULL));
    assert_int_equal(seen.count, 2);
    buf_free(&seen.text);
}

static void test_what_is_not_json(void **state) {
    (void)state;
    refuse("", 1, 1, "premature EOF");
    refuse("   ", 1, 4, "premature EOF");
    refuse("{", 1, 2, "premature EOF");
    refuse("[1", 1, 3, "premature EOF");
    refuse("\"abc", 1, 5, "premature EOF");
    refuse("[1] x", 1, 5, "");
    refuse("1 2", 1, 4, "trailing garbage");
    refuse("[1,\v2]", 1, 4, "control character");
    refuse("{}\f", 1, 3, "control character");
    refuse("{}{}", 1, 3, "trailing garbage");
    refuse("{}\n \"abc", 2, 2, "after the end");
    refuse("1 \"", 1, 3, "");
    refuse("[1,]", 1, 4, "");
    refuse("[,1]", 1, 2, "");
    refuse("{\"a\":1,}", 1, 8, "");
    refuse("{\"a\" 1}", 1, 6, "");
    refuse("{a:1}", 1, 2, "");
    refuse("{'a':1}", 1, 2, "");
    refuse("[01]", 1, 3, "");
    refuse("[+1]", 1, 2, "");
    refuse("[.5]", 1, 2, "");
    refuse("[1.]", 1, 3, "");
    refuse("[nul]", 1, 4, "");
    refuse("NaN", 1, 1, "");
    refuse("// no\n1", 1, 1, "");
    refuse("/* no */1", 1, 1, "");
    refuse("\"a\tb\"", 1, 2, "");
    refuse("\"\\x\"", 1, 2, "");
    refuse("\"\\u12g4\"", 1, 5, "");
    refuse("\xEF\xBB\xBF{}", 1, 1, "");
    refuse("{\n  \"a\": 1,\n  \"\xC3\xA9\": x\n}", 3, 8, "");
}

static void test_utf8_is_verified(void **state) {
    (void)state;
    refuse("\"\xC3\"", 1, 2, "UTF-8");
    refuse("\"ab\xFF\"", 1, 4, "UTF-8");
    refuse("\"\xC0\xAF\"", 1, 2, "UTF-8");          /* overlong */
    refuse("[\n\"\xED\xA0\x80\"]", 2, 2, "UTF-8");  /* a surrogate */
    refuse("\"\xF4\x90\x80\x80\"", 1, 2, "UTF-8");  /* beyond U+10FFFF */
    refuse("\"12345678\xE2\x82\"", 1, 10, "UTF-8"); /* cut off */
    expect("\"\xF4\x8F\xBF\xBF\"", 0, "0  #0 string \"\xF4\x8F\xBF\xBF\"\n");
    assert_int_equal(json_utf8_error(slice_str("1234567812345678\xE2\x82\xAC")), 19);
    assert_int_equal(json_utf8_error(slice_str("1234567812345678\xE2\x82")), 16);
    assert_int_equal(json_utf8_error(slice_of(NULL, 0)), 0);
}

static void test_a_nul_is_not_json(void **state) {
    (void)state;
    struct seen seen = {.count = 0};
    buf_init(&seen.text, 1 << 20);
    assert_false(walk(slice_of("[\0]", 3), 1, &seen, NULL));
    assert_false(walk(slice_of("\"\0\"", 3), 1, &seen, NULL));
    assert_false(walk(slice_of("1\0", 2), 1, &seen, NULL));
    buf_free(&seen.text);
}

static void test_nesting_is_bounded(void **state) {
    (void)state;
    char text[2 * JSON_NESTING_MAX + 8];
    for (size_t depth = JSON_NESTING_MAX; depth <= JSON_NESTING_MAX + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        struct seen seen = {.count = 0};
        buf_init(&seen.text, 1 << 20);
        struct json_error error;
        bool ok = walk(slice_of(text, 2 * depth), 0, &seen, &error);
        assert_int_equal(ok, depth == JSON_NESTING_MAX);
        if (!ok) {
            assert_non_null(strstr(error.message, "64"));
            assert_int_equal(error.column, JSON_NESTING_MAX + 1);
        }
        buf_free(&seen.text);
    }
}

/* Long texts leave the walk's own scratch memory behind: many escapes, long strings. */
static void test_long_texts(void **state) {
    (void)state;
    struct buf text;
    buf_init(&text, 1 << 20);
    buf_append_str(&text, "[\"");
    for (size_t i = 0; i < 20000; i++) buf_append_str(&text, "\\u00e9");
    buf_append_str(&text, "\",");
    for (size_t i = 0; i < 20000; i++) buf_append_str(&text, "[[0],");
    text.len--;
    struct seen seen = {.count = 0};
    buf_init(&seen.text, 1 << 20);
    struct json_error error;
    assert_false(walk(buf_slice(&text), 1, &seen, &error));
    assert_int_equal(seen.count, 1);
    buf_free(&seen.text);
    buf_free(&text);
}

static void expect_decoded(const char *raw, const char *decoded) {
    char out[32];
    long len = json_string_decode(slice_str(raw), out, sizeof out);
    assert_int_equal(len, strlen(decoded));
    assert_string_equal(out, decoded);
}

static void test_string_decode(void **state) {
    (void)state;
    expect_decoded("\"\"", "");
    expect_decoded("\"plain\"", "plain");
    expect_decoded("\"a\\\"\\\\\\/\\b\\f\\n\\r\\tz\"", "a\"\\/\b\f\n\r\tz");
    expect_decoded("\"\\u0041\\u00e9\\u20AC\"", "A\xC3\xA9\xE2\x82\xAC");
    expect_decoded("\"\\ud83d\\ude00!\"", "\xF0\x9F\x98\x80!");
    expect_decoded("\"\\ud83dx\"", "\xEF\xBF\xBDx");
    expect_decoded("\"\\ud83d\\u0041\"",
                   "\xEF\xBF\xBD"
                   "A");
    expect_decoded("\"\\ude00\"", "\xEF\xBF\xBD");
    static const char *const wrong[] = {
        "",        "\"",        "x",           "\"x",         "123",      "\"\\\"",
        "\"\\x\"", "\"\\u12\"", "\"\\u0000\"", "\"\\u12g4\"", "{\"a\":1}"};
    char out[8];
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(json_string_decode(slice_str(wrong[i]), out, sizeof out), -1);
    }
    assert_int_equal(json_string_decode(slice_of("\"a\0b\"", 5), out, sizeof out), -1);
    /* It fits with its terminator or not at all. */
    assert_int_equal(json_string_decode(slice_str("\"1234567\""), out, sizeof out), 7);
    assert_int_equal(json_string_decode(slice_str("\"12345678\""), out, sizeof out), -1);
    assert_int_equal(json_string_decode(slice_str("\"123456\\u00e9\""), out, sizeof out), -1);
    assert_int_equal(json_string_decode(slice_str("\"\""), out, 0), -1);
}

static void test_members_without_a_walk(void **state) {
    (void)state;
    static const struct {
        const char *text, *members;
    } cases[] = {
        {"{}", ""},
        {" { } ", ""},
        {"[1,2]", ""},
        {"7", ""},
        {"", ""},
        {"{\"a\":1,\"b\":\"x\"}", "a=1;b=\"x\";"},
        {"\t{ \"a\" : true ,\r\n\"\" : null } ", "a=true;=null;"},
        {"{\"q\\\"}\":\"\\\\\",\"b\":-1.5e3}", "q\\\"}=\"\\\\\";b=-1.5e3;"},
        {"{\"o\":{\"x\":[\"}\",{}]},\"l\":[1,{\"y\":2}],\"z\":0}",
         "o={\"x\":[\"}\",{}]};l=[1,{\"y\":2}];z=0;"},
        /* No JSON: nothing is read behind the end. */
        {"{\"a\":1", "a=1;"},
        {"{\"a\":", ""},
        {"{\"a\"", ""},
        {"{\"a", ""},
        {"{\"a\\", ""},
        {"{\"a\":[1", ""},
        {"{\"a\":\"", ""},
        {"{", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct json_members m;
        struct slice name, value;
        char got[200] = "";
        size_t len = strlen(cases[i].text);
        uint8_t *exact = mem_alloc(len + 1); /* the sanitizer sees a read behind it */
        memcpy(exact, cases[i].text, len);
        exact = mem_realloc(exact, len > 0 ? len : 1);
        json_members_init(&m, slice_of(exact, len));
        while (json_members_next(&m, &name, &value)) {
            size_t at = strlen(got);
            snprintf(got + at, sizeof got - at, "%.*s=%.*s;", SLICE_ARG(name), SLICE_ARG(value));
        }
        assert_string_equal(got, cases[i].members);
        free(exact);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single_values),
        cmocka_unit_test(test_numbers_keep_their_bytes),
        cmocka_unit_test(test_strings_and_keys_keep_their_escapes),
        cmocka_unit_test(test_paths_order_and_depth),
        cmocka_unit_test(test_the_visitor_stops),
        cmocka_unit_test(test_what_is_not_json),
        cmocka_unit_test(test_utf8_is_verified),
        cmocka_unit_test(test_a_nul_is_not_json),
        cmocka_unit_test(test_nesting_is_bounded),
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test(test_string_decode),
        cmocka_unit_test(test_members_without_a_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
