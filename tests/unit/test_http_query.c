/* Headers and query parameters of a request. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "broker/http/server.h"

static struct http_request with_query(const char *query) {
    return (struct http_request){.query = slice_str(query)};
}

static void expect(const char *query, const char *name, int rc, const char *value) {
    char out[16];
    struct http_request r = with_query(query);
    assert_int_equal(http_query_get(&r, name, out, sizeof out), rc);
    assert_string_equal(out, value);
}

static void test_get(void **state) {
    (void)state;
    expect("", "a", 0, "");
    expect("a=1&b=2", "b", 1, "2");
    expect("a=1&a=2", "a", 1, "1");
    expect("a", "a", 1, "");
    expect("a=", "a", 1, "");
    expect("=x&&a=1", "a", 1, "1");
    expect("aa=1", "a", 0, "");
    expect("a=b=c", "a", 1, "b=c");
    expect("a=b+c%20d", "a", 1, "b c d");
    expect("%61=1", "a", 1, "1");
    expect("a=%C3%A4", "a", 1, "\xC3\xA4");
}

static void test_get_refuses(void **state) {
    (void)state;
    expect("a=%", "a", -1, "");
    expect("a=%4", "a", -1, "");
    expect("a=%4g", "a", -1, "");
    expect("a=x%00y", "a", -1, "");
    expect("a=0123456789abcde", "a", 1, "0123456789abcde");
    expect("a=0123456789abcdef", "a", -1, "");
    expect("a%00=1", "a", 0, "");
}

static void test_unknown(void **state) {
    static const char *const known[] = {"page_size", "page_token", NULL};
    (void)state;
    struct http_request r = with_query("page_size=1&page_token=x");
    assert_int_equal(http_query_unknown(&r, known).len, 0);
    r = with_query("");
    assert_int_equal(http_query_unknown(&r, known).len, 0);
    r = with_query("page_size=1&pagesize=2&other=3");
    assert_true(slice_eq_str(http_query_unknown(&r, known), "pagesize"));
    r = with_query("page%5Fsize=1");
    assert_int_equal(http_query_unknown(&r, known).len, 0);
}

static void test_repeated(void **state) {
    (void)state;
    struct http_request r = with_query("a=1&b=2&&b=2&aa=1");
    assert_false(http_query_repeated(&r, "a"));
    assert_true(http_query_repeated(&r, "b"));
    assert_false(http_query_repeated(&r, "c"));
    r = with_query("a=1&%61");
    assert_true(http_query_repeated(&r, "a"));
}

static void test_headers(void **state) {
    const struct http_header headers[] = {
        {slice_str("Host"), slice_str("a")},
        {slice_str("X-Two"), slice_str("1")},
        {slice_str("x-two"), slice_str("2")},
        {slice_str("X-Empty"), slice_str("")},
    };
    const struct http_request r = {.headers = headers, .headers_count = 4};
    size_t count;
    (void)state;
    assert_true(slice_eq_str(http_header_get(&r, "HOST", NULL), "a"));
    assert_true(slice_eq_str(http_header_get(&r, "x-TWO", &count), "1"));
    assert_int_equal(count, 2);
    assert_non_null(http_header_get(&r, "x-empty", &count).data);
    assert_int_equal(count, 1);
    assert_null(http_header_get(&r, "x-none", &count).data);
    assert_int_equal(count, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get),     cmocka_unit_test(test_get_refuses),
        cmocka_unit_test(test_unknown), cmocka_unit_test(test_repeated),
        cmocka_unit_test(test_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
