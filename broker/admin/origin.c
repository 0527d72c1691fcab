#include "broker/admin/origin.h"

#include <arpa/inet.h>
#include <netinet/in.h>

static struct slice cut_port(struct slice host) {
    for (size_t i = host.len; i > 0; i--) {
        if (host.data[i - 1] == ':') return slice_of(host.data, i - 1);
        if (host.data[i - 1] == ']') break;
    }
    return host;
}

static bool ends_with_nocase(struct slice text, const char *end) {
    size_t len = strlen(end);
    return text.len >= len && slice_eq_nocase(slice_from(text, text.len - len), end);
}

/* Nobody can make it point elsewhere: an address, or a name that browsers never look up (RFC 6761
 * section 6.3). Empty: no browser. */
static bool is_fixed(struct slice host) {
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    struct slice name = cut_port(host);
    if (host.len == 0 || slice_eq_nocase(name, "localhost")) return true;
    if (ends_with_nocase(name, ".localhost")) return true;
    bool six = name.len >= 2 && name.data[0] == '[' && name.data[name.len - 1] == ']';
    if (six) name = slice_of(name.data + 1, name.len - 2);
    return slice_to_cstr(name, text, sizeof text) &&
           inet_pton(six ? AF_INET6 : AF_INET, text, &address) == 1;
}

/* The page must come from where the request went: the same host and port, as text, since both are
 * the browser's. Its scheme is that of the connection, but for https where a proxy has ended TLS.
 * Behind one the two texts are the same too, unless they have no port: then it is 443 in Origin and
 * 80 in Host, perhaps two servers, and a key has to tell that the page is the owner's. */
static bool is_same_origin(const struct http_request *r, struct slice origin,
                           const struct origin_door *door) {
    static const char http[] = "http://", https[] = "https://";
    struct slice host = http_header_get(r, "host", NULL);
    if (slice_starts_with(origin, https)) {
        return slice_eq(slice_from(origin, sizeof https - 1), host) &&
               (door->tls || door->keys || cut_port(host).len < host.len);
    }
    return !door->tls && slice_starts_with(origin, http) &&
           slice_eq(slice_from(origin, sizeof http - 1), host);
}

const char *origin_refusal(const struct http_request *r, const struct origin_door *door,
                           bool open) {
    size_t origins = 0;
    struct slice origin = http_header_get(r, "origin", &origins);
    if (origins > 1 || (origins == 1 && !is_same_origin(r, origin, door))) {
        return "Origin: a web page of another origin may not use this API";
    }
    if (!open && !door->keys && door->local && !is_fixed(http_header_get(r, "host", NULL))) {
        return "Host: as long as there is no key, this API is asked by an address or as localhost: "
               "by another name it could be a web page that asks";
    }
    return NULL;
}
