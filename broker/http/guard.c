/* The rules for addresses, and the allow-list.
 *
 * An address is fine when no rule names its block, or when a block of the allow-list covers it. An
 * IPv6 address that stands for an IPv4 address must be fine twice: itself, and by what it holds. */
#include "broker/http/guard.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/http/guard_internal.h"

struct rule {
    struct net_block block;
    const char *what; /* "127.0.0.1 is ..." */
};

#define FOUR(a, b, c, d, bits)                                                                     \
    { .address = {.bytes = {a, b, c, d}, .six = false}, .prefix = (bits) }
#define SIX(bits, ...)                                                                             \
    { .address = {.bytes = {__VA_ARGS__}, .six = true}, .prefix = (bits) }

/* IANA's registries of special-purpose addresses (RFC 6890 and its successors); of two rules that
 * name an address the first one speaks. */
static const struct rule rules[] = {
    {FOUR(0, 0, 0, 0, 32), "unspecified"},
    {FOUR(0, 0, 0, 0, 8), "of this network"},
    {FOUR(10, 0, 0, 0, 8), "private"},
    {FOUR(100, 64, 0, 0, 10), "shared address space"},
    {FOUR(127, 0, 0, 0, 8), "loopback"},
    {FOUR(169, 254, 0, 0, 16), "link-local"},
    {FOUR(172, 16, 0, 0, 12), "private"},
    {FOUR(192, 0, 0, 0, 24), "for protocol assignments"},
    {FOUR(192, 0, 2, 0, 24), "for documentation"},
    {FOUR(192, 88, 99, 0, 24), "a 6to4 relay"},
    {FOUR(192, 168, 0, 0, 16), "private"},
    {FOUR(198, 18, 0, 0, 15), "for benchmarks"},
    {FOUR(198, 51, 100, 0, 24), "for documentation"},
    {FOUR(203, 0, 113, 0, 24), "for documentation"},
    {FOUR(224, 0, 0, 0, 4), "multicast"},
    {FOUR(255, 255, 255, 255, 32), "broadcast"},
    {FOUR(240, 0, 0, 0, 4), "reserved"},
    {SIX(128, 0), "unspecified"},
    {SIX(128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), "loopback"},
    {SIX(96, 0), "IPv4-compatible"},
    {SIX(96, 0x00, 0x64, 0xff, 0x9b), "NAT64"},
    {SIX(48, 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01), "NAT64 of a local network"},
    {SIX(64, 0x01, 0x00), "discard-only"},
    {SIX(23, 0x20, 0x01, 0x00), "for protocol assignments"},
    {SIX(32, 0x20, 0x01, 0x0d, 0xb8), "for documentation"},
    {SIX(16, 0x20, 0x02), "6to4"},
    {SIX(20, 0x3f, 0xff), "for documentation"},
    {SIX(16, 0x5f, 0x00), "segment routing"},
    {SIX(7, 0xfc), "unique local"},
    {SIX(10, 0xfe, 0x80), "link-local"},
    {SIX(10, 0xfe, 0xc0), "site-local"},
    {SIX(8, 0xff), "multicast"},
};
/* What no registry has given out cannot be somebody's server: all of IPv6 outside of this. */
static const struct net_block global_unicast = SIX(3, 0x20);

/* IPv6 blocks whose addresses stand for the IPv4 address that begins at byte `at`. */
static const struct {
    struct net_block block;
    size_t at;
} holders[] = {
    {SIX(96, 0), 12},
    {SIX(96, 0x00, 0x64, 0xff, 0x9b), 12},
    {SIX(16, 0x20, 0x02), 2},
};

static bool covers(const struct net_block *b, const struct net_address *a) {
    size_t whole = b->prefix / 8;
    unsigned rest = b->prefix % 8;
    if (b->address.six != a->six) return false;
    if (memcmp(b->address.bytes, a->bytes, whole) != 0) return false;
    return rest == 0 || (a->bytes[whole] ^ b->address.bytes[whole]) >> (8 - rest) == 0;
}

static struct net_address four_of(const uint8_t *bytes) {
    struct net_address a = {.six = false};
    memcpy(a.bytes, bytes, 4);
    return a;
}

static bool is_mapped(const struct net_address *a) {
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    return a->six && memcmp(a->bytes, prefix, sizeof prefix) == 0;
}

static const char *address_text(const struct net_address *a, char out[INET6_ADDRSTRLEN]) {
    CHECK(inet_ntop(a->six ? AF_INET6 : AF_INET, a->bytes, out, INET6_ADDRSTRLEN) != NULL);
    return out;
}

/* Allowed by a block whose prefix is longer than this. */
static bool allowed_beyond(const struct guard *g, const struct net_address *a, unsigned prefix) {
    for (size_t i = 0; i < g->allow_count; i++) {
        if (g->allow[i].prefix > prefix && covers(&g->allow[i], a)) return true;
    }
    return false;
}

static bool allowed_at_all(const struct guard *g, const struct net_address *a) {
    for (size_t i = 0; i < g->allow_count; i++) {
        if (covers(&g->allow[i], a)) return true;
    }
    return false;
}

static void say(const struct net_address *outer, const struct net_address *a, const char *what,
                const struct net_block *block, char *why, size_t size) {
    char text[INET6_ADDRSTRLEN], first[INET6_ADDRSTRLEN], outer_text[INET6_ADDRSTRLEN];
    address_text(a, text);
    address_text(&block->address, first);
    if (outer == NULL) {
        snprintf(why, size, "%s is %s (%s/%u)", text, what, first, block->prefix);
    } else {
        snprintf(why, size, "%s holds %s, which is %s (%s/%u)", address_text(outer, outer_text),
                 text, what, first, block->prefix);
    }
}

/* Whether no rule names it; otherwise says the rule. */
static bool unnamed(const struct net_address *outer, const struct net_address *a, char *why,
                    size_t size) {
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (!covers(&rules[i].block, a)) continue;
        say(outer, a, rules[i].what, &rules[i].block, why, size);
        return false;
    }
    if (a->six && !covers(&global_unicast, a)) {
        say(outer, a, "outside of what is routed", &global_unicast, why, size);
        return false;
    }
    return true;
}

bool guard_judge(const struct guard *g, const struct net_address *a, bool *allowed, char *why,
                 size_t size) {
    if (is_mapped(a)) {
        struct net_address inner = four_of(a->bytes + 12);
        *allowed = allowed_at_all(g, &inner);
        return *allowed || unnamed(a, &inner, why, size);
    }
    *allowed = allowed_at_all(g, a);
    if (!*allowed && !unnamed(NULL, a, why, size)) return false;
    for (size_t i = 0; i < sizeof holders / sizeof holders[0]; i++) {
        if (!covers(&holders[i].block, a)) continue;
        /* To allow the whole block says nothing of what is inside; a part of it does. */
        if (allowed_beyond(g, a, holders[i].block.prefix)) break;
        struct net_address inner = four_of(a->bytes + holders[i].at);
        if (!allowed_at_all(g, &inner) && !unnamed(a, &inner, why, size)) return false;
    }
    return true;
}

bool guard_port_usual(unsigned port) {
    return port == 80 || port == 443 || (port >= 1024 && port <= UINT16_MAX);
}

bool guard_address_ok(const struct guard *g, const struct sockaddr *address, char *why,
                      size_t size) {
    struct net_address a = {.six = address->sa_family == AF_INET6};
    unsigned port;
    bool allowed;
    if (address->sa_family == AF_INET) {
        struct sockaddr_in four;
        memcpy(&four, address, sizeof four);
        memcpy(a.bytes, &four.sin_addr, 4);
        port = ntohs(four.sin_port);
    } else if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 six;
        memcpy(&six, address, sizeof six);
        memcpy(a.bytes, &six.sin6_addr, 16);
        port = ntohs(six.sin6_port);
    } else {
        snprintf(why, size, "an address of family %d is neither IPv4 nor IPv6", address->sa_family);
        return false;
    }
    if (!guard_judge(g, &a, &allowed, why, size)) return false;
    if (allowed || guard_port_usual(port)) return true;
    snprintf(why, size, "port %u may not be used: 80, 443 and 1024 to 65535 may", port);
    return false;
}

/* Makes of "10.0.0.0/8" a block. */
static bool block_read(struct slice text, struct net_block *out, char *error, size_t size) {
    static const char how[] = "write blocks such as 10.0.0.0/8, 192.168.7.9 or fd00::/8";
    char host[INET6_ADDRSTRLEN], first[INET6_ADDRSTRLEN];
    const uint8_t *slash = text.len == 0 ? NULL : memchr(text.data, '/', text.len);
    size_t host_len = slash == NULL ? text.len : (size_t)(slash - text.data);
    uint64_t prefix;
    memset(out, 0, sizeof *out);
    if (!slice_to_cstr(slice_of(text.data, host_len), host, sizeof host)) host[0] = '\0';
    out->address.six = strchr(host, ':') != NULL;
    if (inet_pton(out->address.six ? AF_INET6 : AF_INET, host, out->address.bytes) != 1) {
        snprintf(error, size, "\"%.*s\" is no block of addresses: %s",
                 text.len > 100 ? 100 : (int)text.len, (const char *)text.data, how);
        return false;
    }
    unsigned highest = out->address.six ? 128 : 32;
    prefix = highest;
    if (slash != NULL && (!slice_to_u64(slice_from(text, host_len + 1), &prefix) ||
                          prefix > highest || text.len - host_len > 4)) {
        snprintf(error, size, "\"%.*s\": the number behind the slash is not 0 to %u: %s",
                 text.len > 100 ? 100 : (int)text.len, (const char *)text.data, highest, how);
        return false;
    }
    out->prefix = (unsigned)prefix;
    struct net_block cut = *out;
    for (size_t bit = prefix; bit < highest; bit++) {
        cut.address.bytes[bit / 8] &= (uint8_t) ~(0x80U >> bit % 8);
    }
    if (memcmp(&cut.address, &out->address, sizeof cut.address) != 0) {
        snprintf(error, size, "\"%.*s\" is not the first address of its block: write %s/%u",
                 SLICE_ARG(text), address_text(&cut.address, first), out->prefix);
        return false;
    }
    if (is_mapped(&out->address) && out->prefix >= 96) {
        out->address = four_of(out->address.bytes + 12);
        out->prefix -= 96;
    }
    return true;
}

static bool is_separator(uint8_t c) {
    return c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

int guard_open(struct guard **out, const struct guard_options *options, char *error,
               size_t error_size) {
    struct slice rest = slice_str(options->allow == NULL ? "" : options->allow);
    struct guard *g = mem_zalloc(sizeof *g);
    *out = NULL;
    g->https_only = options->https_only;
    while (rest.len > 0) {
        size_t len = 0;
        if (is_separator(rest.data[0])) {
            rest = slice_from(rest, 1);
            continue;
        }
        while (len < rest.len && !is_separator(rest.data[len])) len++;
        g->allow = mem_realloc(g->allow, (g->allow_count + 1) * sizeof *g->allow);
        if (!block_read(slice_of(rest.data, len), &g->allow[g->allow_count], error, error_size)) {
            guard_free(&g);
            return -1;
        }
        g->allow_count++;
        rest = slice_from(rest, len);
    }
    *out = g;
    return 0;
}

bool guard_https_only(const struct guard *g) {
    return g->https_only;
}

void guard_free(struct guard **g) {
    if (*g == NULL) return;
    free((*g)->allow);
    free(*g);
    *g = NULL;
}
