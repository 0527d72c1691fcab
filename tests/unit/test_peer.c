/* Whom a peer counts as. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "broker/net/address.h"
#include "broker/net/peer.h"

static struct sockaddr_storage at(const char *host) {
    struct sockaddr_storage a;
    char text[64], error[128];
    snprintf(text, sizeof text, "%s:80", host);
    assert_int_equal(address_parse(text, &a, error, sizeof error), 0);
    return a;
}

static bool same(const char *one, const char *two) {
    struct sockaddr_storage a = at(one), b = at(two);
    return peer_group(&a) == peer_group(&b);
}

static void test_groups(void **state) {
    (void)state;
    assert_true(same("192.0.2.1", "192.0.2.1"));
    assert_false(same("192.0.2.1", "192.0.2.2"));
    assert_false(same("192.0.2.1", "193.0.2.1"));
    assert_true(same("192.0.2.1", "[::ffff:192.0.2.1]"));
    assert_false(same("[::ffff:192.0.2.1]", "[::ffff:192.0.2.2]"));
    assert_true(same("[2001:db8:1:2::1]", "[2001:db8:1:2:ffff:ffff:ffff:ffff]"));
    assert_false(same("[2001:db8:1:2::1]", "[2001:db8:1:3::1]"));
    assert_false(same("[2001:db8::1]", "[3001:db8::1]"));
    struct sockaddr_storage none = {.ss_family = AF_UNIX};
    assert_true(peer_group(&none) == 0);
    assert_false(peer_is_loopback(&none));
}

static bool loopback(const char *host) {
    struct sockaddr_storage a = at(host);
    return peer_is_loopback(&a);
}

static void test_loopback(void **state) {
    (void)state;
    assert_true(loopback("127.0.0.1"));
    assert_true(loopback("127.255.0.9"));
    assert_true(loopback("[::1]"));
    assert_true(loopback("[::ffff:127.0.0.1]"));
    assert_false(loopback("128.0.0.1"));
    assert_false(loopback("10.0.0.127"));
    assert_false(loopback("[::2]"));
    assert_false(loopback("[::ffff:10.0.0.1]"));
    assert_false(loopback("[2001:db8::1]"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_loopback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
