/* URIs as text (RFC 3986), as strictly as an endpoint needs.
 *
 * A host is a name of letters, digits, '-', '_' and '.', an IPv4 address in any spelling that
 * inet_aton(3) takes, or an IPv6 address in brackets; nothing else, so that no two readers of the
 * same text can see different hosts. A name whose last label is a number is an address or wrong,
 * as browsers have it (WHATWG URL, "ends in a number"). */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

#include "broker/http/guard_internal.h"

#define HOST_BYTES_MAX  253 /* RFC 1035 section 2.3.4, without the root's dot */
#define LABEL_BYTES_MAX 63

static bool refuse(char *why, size_t size, const char *what) {
    snprintf(why, size, "%s", what);
    return false;
}

static bool is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

static int hex_value(uint8_t c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static bool is_letter(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_hex_number(struct slice s) {
    return s.len >= 2 && s.data[0] == '0' && (s.data[1] | 0x20) == 'x';
}

/* Up to the separator or the end; *rest begins behind it. */
static struct slice cut(struct slice s, char separator, struct slice *rest) {
    const uint8_t *at = s.len == 0 ? NULL : memchr(s.data, separator, s.len);
    size_t len = at == NULL ? s.len : (size_t)(at - s.data);
    *rest = at == NULL ? slice_of(NULL, 0) : slice_from(s, len + 1);
    return slice_of(s.data, len);
}

/* A part of an IPv4 address: decimal, 0 octal, 0x hexadecimal. */
static bool number_read(struct slice s, uint64_t *out) {
    unsigned base = 10;
    if (is_hex_number(s)) {
        base = 16;
        s = slice_from(s, 2);
    } else if (s.len > 1 && s.data[0] == '0') {
        base = 8;
        s = slice_from(s, 1);
    }
    if (s.len == 0) return false;
    *out = 0;
    for (size_t i = 0; i < s.len; i++) {
        int digit = hex_value(s.data[i]);
        if (digit < 0 || (unsigned)digit >= base) return false;
        *out = *out * base + (unsigned)digit;
        if (*out > UINT32_MAX) return false;
    }
    return true;
}

/* One to four numbers; the last one fills what is left of the four bytes. */
static bool four_read(struct slice host, struct net_address *out) {
    uint64_t address = 0, number;
    struct slice rest = host;
    memset(out, 0, sizeof *out);
    for (unsigned i = 0; i < 4; i++) {
        bool last = memchr(rest.data, '.', rest.len) == NULL;
        if (!number_read(cut(rest, '.', &rest), &number)) return false;
        if (!last) {
            if (number > UINT8_MAX || rest.len == 0) return false;
            address |= number << (24 - 8 * i);
            continue;
        }
        if (number >> (32 - 8 * i) != 0) return false;
        address |= number;
        for (int b = 0; b < 4; b++) out->bytes[b] = (uint8_t)(address >> (24 - 8 * b));
        return true;
    }
    return false;
}

static bool ends_in_number(struct slice host) {
    size_t at = host.len;
    while (at > 0 && host.data[at - 1] != '.') at--;
    struct slice label = slice_from(host, at);
    bool hex = is_hex_number(label);
    for (size_t i = hex ? 2 : 0; i < label.len; i++) {
        if (hex ? hex_value(label.data[i]) < 0 : !is_digit(label.data[i])) return false;
    }
    return label.len > 0;
}

static bool name_read(struct slice host, struct uri_parts *out, char *why, size_t size) {
    size_t label = 0;
    if (host.len > HOST_BYTES_MAX) return refuse(why, size, "the host is longer than 253 bytes");
    for (size_t i = 0; i < host.len; i++) {
        uint8_t c = host.data[i];
        if (c == '.' ? label == 0 : ++label > LABEL_BYTES_MAX) {
            return refuse(why, size,
                          "between the dots of the host there must be 1 to 63 characters");
        }
        if (c == '.') label = 0;
        else if (!is_letter(c) && !is_digit(c) && c != '-' && c != '_') {
            snprintf(why, size, "a host cannot have '%c': letters, digits, '-', '_' and '.' only",
                     c);
            return false;
        }
    }
    if (label == 0) return refuse(why, size, "the host ends with a dot: leave it out");
    if (!ends_in_number(host)) return true;
    out->is_address = true;
    if (four_read(host, &out->address)) return true;
    snprintf(why, size, "the host \"%.*s\" ends in a number but is no IPv4 address",
             SLICE_ARG(host));
    return false;
}

static bool six_read(struct slice text, struct uri_parts *out, char *why, size_t size) {
    char host[INET6_ADDRSTRLEN];
    out->is_address = out->address.six = true;
    if (slice_to_cstr(text, host, sizeof host) &&
        inet_pton(AF_INET6, host, out->address.bytes) == 1) {
        return true;
    }
    return refuse(why, size, "what is in the brackets is no IPv6 address (zones are not taken)");
}

static bool port_read(struct slice text, struct uri_parts *out, char *why, size_t size) {
    uint64_t port;
    if (text.len == 0 || text.len > 5 || text.data[0] == '0' || !slice_to_u64(text, &port) ||
        port > UINT16_MAX) {
        return refuse(why, size, "the port is not a number from 1 to 65535");
    }
    out->port = (unsigned)port;
    return true;
}

static bool authority_read(struct slice text, struct uri_parts *out, char *why, size_t size) {
    struct slice port;
    bool port_given;
    if (text.len > 0 && memchr(text.data, '@', text.len) != NULL) {
        return refuse(why, size, "a user name or password in the URI is not taken");
    }
    if (text.len > 0 && text.data[0] == '[') {
        bool closed = memchr(text.data, ']', text.len) != NULL;
        out->host = cut(slice_from(text, 1), ']', &port);
        if (!closed) return refuse(why, size, "the bracket of the host is not closed");
        if (!six_read(out->host, out, why, size)) return false;
        port_given = port.len > 0;
        if (port_given && port.data[0] != ':') {
            return refuse(why, size, "behind the bracket of the host only a port may stand");
        }
        if (port_given) port = slice_from(port, 1);
    } else {
        port_given = text.len > 0 && memchr(text.data, ':', text.len) != NULL;
        out->host = cut(text, ':', &port);
        if (out->host.len == 0) return refuse(why, size, "it has no host");
        if (!name_read(out->host, out, why, size)) return false;
    }
    return !port_given || port_read(port, out, why, size);
}

bool uri_read(struct slice uri, struct uri_parts *out, char *why, size_t size) {
    memset(out, 0, sizeof *out);
    if (uri.len == 0) return refuse(why, size, "it is empty");
    if (uri.len > LIMIT_URI_BYTES) {
        snprintf(why, size, "it is longer than %d bytes", LIMIT_URI_BYTES);
        return false;
    }
    for (size_t i = 0; i < uri.len; i++) {
        if (uri.data[i] > 0x20 && uri.data[i] <= 0x7E) continue;
        snprintf(why, size,
                 "byte %zu (0x%02X) is not printable ASCII: write it as %%%02X, and a host "
                 "in its xn-- form",
                 i + 1, uri.data[i], uri.data[i]);
        return false;
    }
    if (memchr(uri.data, '#', uri.len) != NULL) {
        return refuse(why, size, "a fragment ('#') is not taken");
    }
    if (uri.len >= 8 && slice_eq_nocase(slice_of(uri.data, 8), "https://")) {
        out->https = true;
        uri = slice_from(uri, 8);
    } else if (uri.len >= 7 && slice_eq_nocase(slice_of(uri.data, 7), "http://")) {
        uri = slice_from(uri, 7);
    } else {
        return refuse(why, size, "it does not begin with https:// or http://");
    }
    out->port = out->https ? 443 : 80;
    size_t len = 0;
    while (len < uri.len && uri.data[len] != '/' && uri.data[len] != '?') len++;
    return authority_read(slice_of(uri.data, len), out, why, size);
}

static bool is_localhost(struct slice host) {
    static const char name[] = "localhost";
    size_t len = sizeof name - 1;
    if (host.len < len || !slice_eq_nocase(slice_from(host, host.len - len), name)) return false;
    return host.len == len || host.data[host.len - len - 1] == '.';
}

/* A name is judged when its addresses are known; what can be said now is said now. */
static bool host_ok(const struct guard *g, const struct uri_parts *parts, bool *allowed, char *why,
                    size_t size) {
    static const struct net_address loopbacks[] = {
        {.bytes = {127, 0, 0, 1}, .six = false},
        {.bytes = {[15] = 1}, .six = true},
    };
    char rule[256];
    if (parts->is_address) return guard_judge(g, &parts->address, allowed, why, size);
    *allowed = g->allow_count > 0;
    if (!is_localhost(parts->host)) return true;
    if (guard_judge(g, &loopbacks[1], allowed, rule, sizeof rule)) return true;
    if (guard_judge(g, &loopbacks[0], allowed, rule, sizeof rule)) return true;
    snprintf(why, size, "the host is this machine: %s", rule);
    return false;
}

bool guard_uri_ok(const struct guard *g, struct slice uri, char *why, size_t size) {
    struct uri_parts parts;
    bool allowed;
    if (!uri_read(uri, &parts, why, size)) return false;
    if (g->https_only && !parts.https) return refuse(why, size, "only https:// is taken");
    if (!host_ok(g, &parts, &allowed, why, size)) return false;
    if (allowed || guard_port_usual(parts.port)) return true;
    snprintf(why, size, "port %u may not be used: 80, 443 and 1024 to 65535 may", parts.port);
    return false;
}

void guard_uri_origin(struct slice uri, char out[LIMIT_URI_BYTES + 8]) {
    struct uri_parts parts;
    char why[256], address[INET6_ADDRSTRLEN];
    struct slice host;
    int len;
    out[0] = '\0';
    if (!uri_read(uri, &parts, why, sizeof why)) return;
    host = parts.host;
    if (parts.is_address) {
        CHECK(inet_ntop(parts.address.six ? AF_INET6 : AF_INET, parts.address.bytes, address,
                        sizeof address) != NULL);
        host = slice_str(address);
    }
    bool six = parts.is_address && parts.address.six;
    len = snprintf(out, LIMIT_URI_BYTES + 8, "%s://%s%.*s%s:%u", parts.https ? "https" : "http",
                   six ? "[" : "", SLICE_ARG(host), six ? "]" : "", parts.port);
    CHECK(len > 0 && len < LIMIT_URI_BYTES + 8);
    for (char *c = out; *c != '\0'; c++) {
        if (*c >= 'A' && *c <= 'Z') *c = (char)(*c | 0x20);
    }
}

struct slice guard_uri_name(struct slice uri) {
    struct uri_parts parts;
    char why[256];
    if (!uri_read(uri, &parts, why, sizeof why)) return slice_of(NULL, 0);
    if (parts.is_address || is_localhost(parts.host)) return slice_of(NULL, 0);
    return parts.host;
}
