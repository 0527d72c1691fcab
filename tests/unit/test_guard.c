/* The guard: which addresses, which URIs, and what it says of those that it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

#include "broker/http/guard.h"

#define COUNT(rows) (sizeof(rows) / sizeof(rows)[0])

static struct guard *guard_with(const char *allow, bool https_only) {
    struct guard *g;
    char error[256] = "";
    const struct guard_options options = {.allow = allow, .https_only = https_only};
    if (guard_open(&g, &options, error, sizeof error) != 0) fail_msg("%s: %s", allow, error);
    return g;
}

static struct sockaddr_storage address_of(const char *text, unsigned port) {
    struct sockaddr_storage a;
    struct sockaddr_in *four = (void *)&a;
    struct sockaddr_in6 *six = (void *)&a;
    memset(&a, 0, sizeof a);
    if (strchr(text, ':') == NULL) {
        four->sin_family = AF_INET;
        four->sin_port = htons((uint16_t)port);
        assert_int_equal(inet_pton(AF_INET, text, &four->sin_addr), 1);
    } else {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons((uint16_t)port);
        assert_int_equal(inet_pton(AF_INET6, text, &six->sin6_addr), 1);
    }
    return a;
}

/* `rule` is what stands behind the address; NULL: it may be reached. */
static void expect_address(const struct guard *g, const char *text, unsigned port,
                           const char *rule) {
    struct sockaddr_storage a = address_of(text, port);
    char why[256] = "";
    bool ok = guard_address_ok(g, (const struct sockaddr *)&a, why, sizeof why);
    if (ok != (rule == NULL)) fail_msg("%s port %u: %s", text, port, ok ? "may be reached" : why);
    if (rule != NULL && strstr(why, rule) == NULL) fail_msg("%s: %s, not %s", text, why, rule);
}

struct address_row {
    const char *address, *rule;
};

/* Each block by its first and last address, and by the neighbours that are free. */
static const struct address_row fours[] = {
    {"0.0.0.0", "0.0.0.0 is unspecified (0.0.0.0/32)"},
    {"0.0.0.1", "0.0.0.1 is of this network (0.0.0.0/8)"},
    {"0.255.255.255", "(0.0.0.0/8)"},
    {"1.0.0.0", NULL},
    {"9.255.255.255", NULL},
    {"10.0.0.0", "10.0.0.0 is private (10.0.0.0/8)"},
    {"10.1.2.3", "10.1.2.3 is private (10.0.0.0/8)"},
    {"10.255.255.255", "(10.0.0.0/8)"},
    {"11.0.0.0", NULL},
    {"100.63.255.255", NULL},
    {"100.64.0.0", "100.64.0.0 is shared address space (100.64.0.0/10)"},
    {"100.127.255.255", "(100.64.0.0/10)"},
    {"100.128.0.0", NULL},
    {"126.255.255.255", NULL},
    {"127.0.0.0", "(127.0.0.0/8)"},
    {"127.0.0.1", "127.0.0.1 is loopback (127.0.0.0/8)"},
    {"127.255.255.255", "(127.0.0.0/8)"},
    {"128.0.0.0", NULL},
    {"169.253.255.255", NULL},
    {"169.254.0.0", "(169.254.0.0/16)"},
    {"169.254.169.254", "169.254.169.254 is link-local (169.254.0.0/16)"},
    {"169.254.255.255", "(169.254.0.0/16)"},
    {"169.255.0.0", NULL},
    {"172.15.255.255", NULL},
    {"172.16.0.0", "172.16.0.0 is private (172.16.0.0/12)"},
    {"172.31.255.255", "(172.16.0.0/12)"},
    {"172.32.0.0", NULL},
    {"191.255.255.255", NULL},
    {"192.0.0.0", "for protocol assignments (192.0.0.0/24)"},
    {"192.0.0.255", "(192.0.0.0/24)"},
    {"192.0.1.0", NULL},
    {"192.0.2.0", "for documentation (192.0.2.0/24)"},
    {"192.0.2.255", "(192.0.2.0/24)"},
    {"192.0.3.0", NULL},
    {"192.88.98.255", NULL},
    {"192.88.99.0", "a 6to4 relay (192.88.99.0/24)"},
    {"192.88.99.255", "(192.88.99.0/24)"},
    {"192.88.100.0", NULL},
    {"192.167.255.255", NULL},
    {"192.168.0.0", "private (192.168.0.0/16)"},
    {"192.168.255.255", "(192.168.0.0/16)"},
    {"192.169.0.0", NULL},
    {"198.17.255.255", NULL},
    {"198.18.0.0", "for benchmarks (198.18.0.0/15)"},
    {"198.19.255.255", "(198.18.0.0/15)"},
    {"198.20.0.0", NULL},
    {"198.51.99.255", NULL},
    {"198.51.100.0", "for documentation (198.51.100.0/24)"},
    {"198.51.100.255", "(198.51.100.0/24)"},
    {"198.51.101.0", NULL},
    {"203.0.112.255", NULL},
    {"203.0.113.0", "for documentation (203.0.113.0/24)"},
    {"203.0.113.255", "(203.0.113.0/24)"},
    {"203.0.114.0", NULL},
    {"223.255.255.255", NULL},
    {"224.0.0.0", "multicast (224.0.0.0/4)"},
    {"239.255.255.255", "(224.0.0.0/4)"},
    {"240.0.0.0", "reserved (240.0.0.0/4)"},
    {"255.255.255.254", "(240.0.0.0/4)"},
    {"255.255.255.255", "255.255.255.255 is broadcast (255.255.255.255/32)"},
    {"8.8.8.8", NULL},
};

static const struct address_row sixes[] = {
    {"::", ":: is unspecified (::/128)"},
    {"::1", "::1 is loopback (::1/128)"},
    {"::2", "IPv4-compatible (::/96)"},
    {"::8.8.8.8", "::8.8.8.8 is IPv4-compatible (::/96)"},
    {"::ffff:8.8.8.8", NULL},
    {"::ffff:10.1.2.3", "::ffff:10.1.2.3 holds 10.1.2.3, which is private (10.0.0.0/8)"},
    {"::ffff:127.0.0.1", "127.0.0.1, which is loopback (127.0.0.0/8)"},
    {"::ffff:0.0.0.0", "0.0.0.0, which is unspecified"},
    {"::ffff:169.254.169.254", "(169.254.0.0/16)"},
    {"::ffff:255.255.255.255", "broadcast"},
    {"::fffe:808:808", "outside of what is routed (2000::/3)"},
    {"::ffff:0:808:808", "outside of what is routed (2000::/3)"},
    {"64:ff9a:ffff::", "outside of what is routed"},
    {"64:ff9b::8.8.8.8", "NAT64 (64:ff9b::/96)"},
    {"64:ff9b::10.0.0.1", "NAT64 (64:ff9b::/96)"},
    {"64:ff9b:0:0:0:1::", "outside of what is routed"},
    {"64:ff9b:1::", "NAT64 of a local network (64:ff9b:1::/48)"},
    {"64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "(64:ff9b:1::/48)"},
    {"100::1", "discard-only (100::/64)"},
    {"100:0:0:1::", "outside of what is routed"},
    {"1fff:ffff::", "outside of what is routed"},
    {"2001::1", "for protocol assignments (2001::/23)"},
    {"2001:1ff:ffff::", "(2001::/23)"},
    {"2001:200::", NULL},
    {"2001:db7:ffff::", NULL},
    {"2001:db8::1", "for documentation (2001:db8::/32)"},
    {"2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "(2001:db8::/32)"},
    {"2001:db9::", NULL},
    {"2001:4860:4860::8888", NULL},
    {"2001:ffff::", NULL},
    {"2002::", "6to4 (2002::/16)"},
    {"2002:808:808::1", "2002:808:808::1 is 6to4 (2002::/16)"},
    {"2002:7f00:1::", "6to4 (2002::/16)"},
    {"2003::", NULL},
    {"2606:4700:4700::1111", NULL},
    {"3ffe:ffff::", NULL},
    {"3fff::", "for documentation (3fff::/20)"},
    {"3fff:fff:ffff::", "(3fff::/20)"},
    {"3fff:1000::", NULL},
    {"4000::", "outside of what is routed (2000::/3)"},
    {"5f00::1", "segment routing (5f00::/16)"},
    {"fbff:ffff::", "outside of what is routed"},
    {"fc00::", "unique local (fc00::/7)"},
    {"fd12:3456:789a::1", "unique local (fc00::/7)"},
    {"fe00::", "outside of what is routed"},
    {"fe80::1", "link-local (fe80::/10)"},
    {"febf:ffff::", "link-local (fe80::/10)"},
    {"fec0::1", "site-local (fec0::/10)"},
    {"feff:ffff::", "site-local (fec0::/10)"},
    {"ff00::", "multicast (ff00::/8)"},
    {"ff02::1", "multicast (ff00::/8)"},
    {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast (ff00::/8)"},
};

static void every_block_by_its_ends(void **state) {
    (void)state;
    struct guard *g = guard_with("", false);
    for (size_t i = 0; i < COUNT(fours); i++) {
        expect_address(g, fours[i].address, 443, fours[i].rule);
        /* What is said of an IPv4 address is said of its v4-mapped form. */
        char mapped[64];
        snprintf(mapped, sizeof mapped, "::ffff:%s", fours[i].address);
        struct sockaddr_storage a = address_of(mapped, 443);
        char why[256];
        assert_int_equal(guard_address_ok(g, (const struct sockaddr *)&a, why, sizeof why),
                         fours[i].rule == NULL);
    }
    for (size_t i = 0; i < COUNT(sixes); i++) {
        expect_address(g, sixes[i].address, 443, sixes[i].rule);
    }
    struct sockaddr_un local = {.sun_family = AF_UNIX, .sun_path = "/run/docker.sock"};
    char why[256];
    assert_false(guard_address_ok(g, (const struct sockaddr *)&local, why, sizeof why));
    assert_non_null(strstr(why, "neither IPv4 nor IPv6"));
    guard_free(&g);
    assert_null(g);
    guard_free(&g);
}

static void ports(void **state) {
    static const unsigned good[] = {80, 443, 1024, 8080, 8443, 65535};
    static const unsigned bad[] = {0, 1, 22, 25, 79, 81, 442, 444, 1023};
    (void)state;
    struct guard *g = guard_with("192.0.2.0/24", false);
    for (size_t i = 0; i < COUNT(good); i++) expect_address(g, "8.8.8.8", good[i], NULL);
    for (size_t i = 0; i < COUNT(bad); i++) {
        char rule[32];
        snprintf(rule, sizeof rule, "port %u may not be used", bad[i]);
        expect_address(g, "8.8.8.8", bad[i], rule);
        expect_address(g, "2606:4700::1", bad[i], rule);
        expect_address(g, "192.0.2.7", bad[i], NULL);
        expect_address(g, "::ffff:192.0.2.7", bad[i], NULL);
    }
    guard_free(&g);
}

static void what_is_allowed(void **state) {
    (void)state;
    struct guard *g = guard_with("127.0.0.1,10.0.0.0/9 \t::1,, fd00:1::/32\n16.0.0.0/5", false);
    expect_address(g, "127.0.0.1", 22, NULL);
    expect_address(g, "127.0.0.2", 443, "loopback");
    expect_address(g, "::ffff:127.0.0.1", 443, NULL);
    expect_address(g, "10.127.255.255", 443, NULL);
    expect_address(g, "10.128.0.0", 443, "private");
    expect_address(g, "::1", 443, NULL);
    expect_address(g, "fd00:1:ffff::", 443, NULL);
    expect_address(g, "fd00:2::", 443, "unique local");
    expect_address(g, "23.255.255.255", 22, NULL);
    expect_address(g, "24.0.0.0", 22, "port 22");
    guard_free(&g);
    g = guard_with("0.0.0.0/0", false);
    expect_address(g, "127.0.0.1", 443, NULL);
    expect_address(g, "255.255.255.255", 443, NULL);
    expect_address(g, "::ffff:10.0.0.1", 443, NULL);
    expect_address(g, "::1", 443, "loopback");
    guard_free(&g);
    g = guard_with("::/0", false);
    expect_address(g, "fe80::1", 443, NULL);
    expect_address(g, "127.0.0.1", 443, "loopback");
    expect_address(g, "::ffff:127.0.0.1", 443, "loopback");
    guard_free(&g);
    g = guard_with("::ffff:10.0.0.0/104", false);
    expect_address(g, "10.1.2.3", 443, NULL);
    expect_address(g, "11.0.0.1", 22, "port 22");
    guard_free(&g);
}

static void what_is_inside_an_allowed_address(void **state) {
    (void)state;
    struct guard *g = guard_with("64:ff9b::/96, 2002::/16 ::/96", false);
    expect_address(g, "64:ff9b::8.8.8.8", 443, NULL);
    expect_address(g, "64:ff9b::a01:203", 443,
                   "64:ff9b::a01:203 holds 10.1.2.3, which is private (10.0.0.0/8)");
    expect_address(g, "64:ff9b::7f00:1", 443, "127.0.0.1, which is loopback");
    expect_address(g, "2002:808:808::", 443, NULL);
    expect_address(g, "2002:7f00:1::", 443, "127.0.0.1, which is loopback");
    expect_address(g, "2002:c0a8:101::9", 443, "192.168.1.1, which is private");
    expect_address(g, "::8.8.8.8", 443, NULL);
    expect_address(g, "::10.1.2.3", 443, "10.1.2.3, which is private");
    guard_free(&g);
    g = guard_with("64:ff9b::a00:0/104 2002:7f00::/24", false);
    expect_address(g, "64:ff9b::a01:203", 443, NULL);
    expect_address(g, "64:ff9b::b01:203", 443, "NAT64");
    expect_address(g, "2002:7f00:1::", 443, NULL);
    guard_free(&g);
    g = guard_with("64:ff9b::/96, 10.0.0.0/8", false);
    expect_address(g, "64:ff9b::a01:203", 443, NULL);
    expect_address(g, "64:ff9b::7f00:1", 443, "loopback");
    guard_free(&g);
}

static void allow_lists_that_cannot_be_read(void **state) {
    static const struct {
        const char *allow, *says;
    } rows[] = {
        {"10.0.0.0/33", "not 0 to 32"},
        {"fd00::/129", "not 0 to 128"},
        {"10.0.0.0/", "not 0 to 32"},
        {"10.0.0.0/-1", "not 0 to 32"},
        {"10.0.0.0/8x", "not 0 to 32"},
        {"10.0.0.0/0008", "not 0 to 32"},
        {"10.0.0.0/8/8", "not 0 to 32"},
        {"10.1.2.3/8", "write 10.0.0.0/8"},
        {"fd00::1/8", "write fd00::/8"},
        {"10.0.0/8", "is no block"},
        {"127.1", "is no block"},
        {"localhost", "is no block"},
        {"/8", "is no block"},
        {"[::1]/128", "is no block"},
        {"fe80::1%eth0", "is no block"},
        {"0x7f000001", "is no block"},
        {"10.0.0.0;fd00::", "is no block"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct guard *g = NULL;
        char allow[128], error[256] = "";
        snprintf(allow, sizeof allow, "192.168.0.0/16, %s ,::1", rows[i].allow);
        const struct guard_options options = {.allow = allow};
        assert_int_not_equal(guard_open(&g, &options, error, sizeof error), 0);
        assert_null(g);
        if (strstr(error, rows[i].says) == NULL) fail_msg("%s: %s", rows[i].allow, error);
        if (strchr(rows[i].allow, ' ') == NULL && strstr(error, rows[i].allow) == NULL) {
            fail_msg("%s is not named: %s", rows[i].allow, error);
        }
    }
    struct guard *g = guard_with(NULL, false);
    expect_address(g, "127.0.0.1", 443, "loopback");
    guard_free(&g);
    g = guard_with(" , \t,", false);
    guard_free(&g);
}

struct uri_row {
    const char *uri;
    const char *says;   /* NULL: it is fine */
    const char *origin; /* of one that is fine */
};

static const struct uri_row uris[] = {
    {"https://example.com", NULL, "https://example.com:443"},
    {"http://example.com", NULL, "http://example.com:80"},
    {"HTTPS://Example.COM/Path?Query=1", NULL, "https://example.com:443"},
    {"https://example.com:8443/hook", NULL, "https://example.com:8443"},
    {"https://example.com:443/", NULL, "https://example.com:443"},
    {"https://example.com?a=b", NULL, "https://example.com:443"},
    {"https://example.com?a=b@c:d/e", NULL, "https://example.com:443"},
    {"https://example.com/@user:pass", NULL, "https://example.com:443"},
    {"https://a-b_c.d1.example/x%20y", NULL, "https://a-b_c.d1.example:443"},
    {"https://xn--bcher-kva.example/", NULL, "https://xn--bcher-kva.example:443"},
    {"https://intranet/", NULL, "https://intranet:443"},
    {"https://8.8.8.8/", NULL, "https://8.8.8.8:443"},
    {"https://0x08080808/", NULL, "https://8.8.8.8:443"},
    {"https://134744072/", NULL, "https://8.8.8.8:443"},
    {"https://010.8.2056/", NULL, "https://8.8.8.8:443"},
    {"https://[2001:4860:0:0::8888]:8443/", NULL, "https://[2001:4860::8888]:8443"},
    {"https://[::ffff:8.8.8.8]/", NULL, "https://[::ffff:8.8.8.8]:443"},
    {"https://1password.example/", NULL, "https://1password.example:443"},
    {"https://3com.0xzz/", NULL, "https://3com.0xzz:443"},
    /* Text that is no endpoint. */
    {"", "it is empty", NULL},
    {"example.com", "does not begin with https://", NULL},
    {"//example.com/", "does not begin with https://", NULL},
    {"https:example.com", "does not begin with https://", NULL},
    {"https:/example.com", "does not begin with https://", NULL},
    {"https:///example.com", "it has no host", NULL},
    {"https:\\\\example.com", "does not begin with https://", NULL},
    {"ftp://example.com", "does not begin with https://", NULL},
    {"file:///etc/passwd", "does not begin with https://", NULL},
    {"gopher://example.com:70/_x", "does not begin with https://", NULL},
    {"javascript:alert(1)", "does not begin with https://", NULL},
    {"httpss://example.com", "does not begin with https://", NULL},
    {"https://", "it has no host", NULL},
    {"https:///", "it has no host", NULL},
    {"https://?x", "it has no host", NULL},
    {"https://:443/", "it has no host", NULL},
    {"https://user@example.com/", "user name", NULL},
    {"https://user:pass@example.com/", "user name", NULL},
    {"https://example.com:80@127.0.0.1/", "user name", NULL},
    {"https://@example.com/", "user name", NULL},
    {"https://example.com/#part", "fragment", NULL},
    {"https://example.com#@127.0.0.1/", "fragment", NULL},
    {"https://example.com\\@127.0.0.1/", "user name", NULL},
    {"https://example.com\\.evil/", "cannot have '\\'", NULL},
    {"https://exa mple.com/", "byte 12 (0x20)", NULL},
    {"https://example.com/a b", "byte 22 (0x20)", NULL},
    {" https://example.com/", "byte 1 (0x20)", NULL},
    {"https://example.com/\r\nX: y", "byte 21 (0x0D)", NULL},
    {"https://example.com/\t", "(0x09)", NULL},
    {"https://example.com/\x7f", "(0x7F)", NULL},
    {"https://b\xc3\xbc"
     "cher.example/",
     "byte 10 (0xC3) is not printable ASCII", NULL},
    {"https://example.com/\xe2\x82\xac", "(0xE2)", NULL},
    {"https://127.0.0.1\xe3\x80\x82x/", "not printable ASCII", NULL},
    {"https://exam%70le.com/", "cannot have '%'", NULL},
    {"https://%31%32%37.0.0.1/", "cannot have '%'", NULL},
    {"https://127.0.0.1%00.example.com/", "cannot have '%'", NULL},
    {"https://exa$mple.com/", "cannot have '$'", NULL},
    {"https://a,b/", "cannot have ','", NULL},
    {"https://*.example.com/", "cannot have '*'", NULL},
    {"https://.example.com/", "1 to 63 characters", NULL},
    {"https://example..com/", "1 to 63 characters", NULL},
    {"https://example.com./", "ends with a dot", NULL},
    {"https://127.0.0.1./", "ends with a dot", NULL},
    {"https://localhost./", "ends with a dot", NULL},
    {"https://.", "1 to 63 characters", NULL},
    {"https://example.com:/", "the port is not a number", NULL},
    {"https://example.com:0/", "the port is not a number", NULL},
    {"https://example.com:65536/", "the port is not a number", NULL},
    {"https://example.com:123456/", "the port is not a number", NULL},
    {"https://example.com:0443/", "the port is not a number", NULL},
    {"https://example.com:+443/", "the port is not a number", NULL},
    {"https://example.com:443:443/", "the port is not a number", NULL},
    {"https://example.com:https/", "the port is not a number", NULL},
    {"https://example.com:22/", "port 22 may not be used", NULL},
    {"https://8.8.8.8:25/", "port 25 may not be used", NULL},
    /* Addresses, plain and odd. */
    {"https://127.0.0.1/", "127.0.0.1 is loopback (127.0.0.0/8)", NULL},
    {"https://10.1.2.3/", "10.1.2.3 is private (10.0.0.0/8)", NULL},
    {"http://169.254.169.254/latest/meta-data", "link-local (169.254.0.0/16)", NULL},
    {"https://0/", "0.0.0.0 is unspecified", NULL},
    {"https://0.0.0.0/", "0.0.0.0 is unspecified", NULL},
    {"https://127.1/", "127.0.0.1 is loopback", NULL},
    {"https://127.0.1/", "127.0.0.1 is loopback", NULL},
    {"https://127.65535/", "127.0.255.255 is loopback", NULL},
    {"https://0x7f000001/", "127.0.0.1 is loopback", NULL},
    {"https://0X7F.1/", "127.0.0.1 is loopback", NULL},
    {"https://0x7f.0x0.0x0.0x1/", "127.0.0.1 is loopback", NULL},
    {"https://2130706433/", "127.0.0.1 is loopback", NULL},
    {"https://017700000001/", "127.0.0.1 is loopback", NULL},
    {"https://0177.0.0.1/", "127.0.0.1 is loopback", NULL},
    {"https://0300.0250.1/", "192.168.0.1 is private", NULL},
    {"https://192.168.257/", "192.168.1.1 is private", NULL},
    {"https://4294967295/", "255.255.255.255 is broadcast", NULL},
    {"https://4294967296/", "no IPv4 address", NULL},
    {"https://0x100000000/", "no IPv4 address", NULL},
    {"https://256.0.0.1/", "no IPv4 address", NULL},
    {"https://127.0.0.256/", "no IPv4 address", NULL},
    {"https://127.0.65536/", "no IPv4 address", NULL},
    {"https://127.16777216/", "no IPv4 address", NULL},
    {"https://127.0.0.0.1/", "no IPv4 address", NULL},
    {"https://127.0.0.08/", "no IPv4 address", NULL},
    {"https://0x/", "no IPv4 address", NULL},
    {"https://1.2.3.0x/", "no IPv4 address", NULL},
    {"https://example.1/", "no IPv4 address", NULL},
    {"https://127.0.0.1.0x7f/", "no IPv4 address", NULL},
    {"https://99999999999999999999/", "no IPv4 address", NULL},
    {"https://[::1]/", "::1 is loopback (::1/128)", NULL},
    {"https://[::]/", ":: is unspecified", NULL},
    {"https://[0:0:0:0:0:0:0:1]:8080/", "::1 is loopback", NULL},
    {"https://[::ffff:127.0.0.1]/", "127.0.0.1, which is loopback", NULL},
    {"https://[::ffff:7f00:1]/", "127.0.0.1, which is loopback", NULL},
    {"https://[::127.0.0.1]/", "IPv4-compatible (::/96)", NULL},
    {"https://[64:ff9b::a00:1]/", "NAT64", NULL},
    {"https://[2002:a00:1::]/", "6to4", NULL},
    {"https://[fe80::1]/", "link-local", NULL},
    {"https://[fe80::1%25eth0]/", "no IPv6 address", NULL},
    {"https://[fe80::1%eth0]/", "no IPv6 address", NULL},
    {"https://[v1.x]/", "no IPv6 address", NULL},
    {"https://[]/", "no IPv6 address", NULL},
    {"https://[127.0.0.1]/", "no IPv6 address", NULL},
    {"https://[::1/", "not closed", NULL},
    {"https://[2606::1]8443/", "only a port", NULL},
    {"https://[2606::1]:/", "the port is not a number", NULL},
    {"https://[2606::1].example.com/", "only a port", NULL},
    {"https://::1/", "it has no host", NULL},
    {"https://2606::1/", "the port is not a number", NULL},
    {"https://localhost/", "this machine: 127.0.0.1 is loopback", NULL},
    {"http://LOCALHOST:8080/", "this machine", NULL},
    {"https://api.localhost/", "this machine", NULL},
    {"https://notlocalhost/", NULL, "https://notlocalhost:443"},
    {"https://localhost.example.com/", NULL, "https://localhost.example.com:443"},
};

static void expect_uri(const struct guard *g, struct slice uri, const char *says) {
    char why[512] = "";
    bool ok = guard_uri_ok(g, uri, why, sizeof why);
    if (ok != (says == NULL)) fail_msg("%.*s: %s", SLICE_ARG(uri), ok ? "is fine" : why);
    if (says != NULL && strstr(why, says) == NULL) {
        fail_msg("%.*s: %s, not %s", SLICE_ARG(uri), why, says);
    }
}

static void every_uri(void **state) {
    char origin[LIMIT_URI_BYTES + 8];
    (void)state;
    struct guard *g = guard_with("", false);
    for (size_t i = 0; i < COUNT(uris); i++) {
        expect_uri(g, slice_str(uris[i].uri), uris[i].says);
        if (uris[i].says != NULL) continue;
        guard_uri_origin(slice_str(uris[i].uri), origin);
        assert_string_equal(origin, uris[i].origin);
    }
    expect_uri(g, slice_of("https://example.com/\0x", 22), "byte 21 (0x00)");
    expect_uri(g, slice_of(NULL, 0), "it is empty");
    guard_uri_origin(slice_str("nonsense"), origin);
    assert_string_equal(origin, "");
    guard_free(&g);
}

static void lengths(void **state) {
    char text[LIMIT_URI_BYTES + 16], origin[LIMIT_URI_BYTES + 8];
    (void)state;
    struct guard *g = guard_with("", false);
    memset(text, 'a', sizeof text);
    memcpy(text, "https://example.com/", 20);
    expect_uri(g, slice_of(text, LIMIT_URI_BYTES), NULL);
    guard_uri_origin(slice_of(text, LIMIT_URI_BYTES), origin);
    assert_string_equal(origin, "https://example.com:443");
    expect_uri(g, slice_of(text, LIMIT_URI_BYTES + 1), "longer than 2048 bytes");
    memset(text, 'a', sizeof text);
    memcpy(text, "https://", 8);
    expect_uri(g, slice_of(text, 8 + 63), NULL);
    expect_uri(g, slice_of(text, 8 + 64), "1 to 63 characters");
    for (size_t i = 8 + 62; i < sizeof text; i += 63) text[i] = '.';
    expect_uri(g, slice_of(text, 8 + 253), NULL);
    expect_uri(g, slice_of(text, 8 + 254), "longer than 253 bytes");
    guard_free(&g);
}

static void uris_with_options(void **state) {
    (void)state;
    struct guard *g = guard_with("", true);
    expect_uri(g, slice_str("https://example.com/"), NULL);
    expect_uri(g, slice_str("http://example.com/"), "only https:// is taken");
    expect_uri(g, slice_str("HTTP://example.com/"), "only https:// is taken");
    guard_free(&g);
    g = guard_with("127.0.0.0/8", false);
    expect_uri(g, slice_str("http://127.0.0.1:22/"), NULL);
    expect_uri(g, slice_str("http://127.1:22/"), NULL);
    expect_uri(g, slice_str("http://localhost:22/"), NULL);
    expect_uri(g, slice_str("http://a.localhost/"), NULL);
    expect_uri(g, slice_str("http://[::ffff:127.9.9.9]/"), NULL);
    expect_uri(g, slice_str("http://[::1]/"), "::1 is loopback");
    expect_uri(g, slice_str("http://8.8.8.8:22/"), "port 22");
    /* Its address may be an allowed one. */
    expect_uri(g, slice_str("http://example.com:22/"), NULL);
    guard_free(&g);
    g = guard_with("::1", false);
    expect_uri(g, slice_str("http://localhost/"), NULL);
    expect_uri(g, slice_str("http://127.0.0.1/"), "loopback");
    guard_free(&g);
}

static void names(void **state) {
    static const struct {
        const char *uri, *name;
    } rows[] = {
        {"https://Example.com:8443/a", "Example.com"},
        {"https://8.8.8.8/", ""},
        {"https://0x7f.1/", ""},
        {"https://[2606::1]/", ""},
        {"https://localhost/", ""},
        {"https://a.localhost/", ""},
        {"nonsense", ""},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_true(slice_eq_str(guard_uri_name(slice_str(rows[i].uri)), rows[i].name));
    }
}

/* What does not fit is cut, not written elsewhere. */
static void small_buffers(void **state) {
    char why[8];
    (void)state;
    struct guard *g = guard_with("", false);
    assert_false(guard_uri_ok(g, slice_str("https://127.0.0.1/"), why, sizeof why));
    assert_string_equal(why, "127.0.0");
    guard_free(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_block_by_its_ends),
        cmocka_unit_test(ports),
        cmocka_unit_test(what_is_allowed),
        cmocka_unit_test(what_is_inside_an_allowed_address),
        cmocka_unit_test(allow_lists_that_cannot_be_read),
        cmocka_unit_test(every_uri),
        cmocka_unit_test(lengths),
        cmocka_unit_test(uris_with_options),
        cmocka_unit_test(names),
        cmocka_unit_test(small_buffers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
