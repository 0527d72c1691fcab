#include <string.h>

#include "clients/c/client.h"

#define SCHEME       "bellhop://"
#define SCHEME_TLS   "bellhops://"
#define PORT_DEFAULT 8421

static bool parse_port(const char *text, size_t len, uint16_t *port) {
    uint64_t value;
    if (!slice_to_u64(slice_of(text, len), &value) || value == 0 || value > UINT16_MAX)
        return false;
    *port = (uint16_t)value;
    return true;
}

bool bh_url_parse(struct bh_url *u, const char *text) {
    u->tls = strncmp(text, SCHEME_TLS, strlen(SCHEME_TLS)) == 0;
    if (!u->tls && strncmp(text, SCHEME, strlen(SCHEME)) != 0) return false;
    const char *host = text + strlen(u->tls ? SCHEME_TLS : SCHEME), *at = strrchr(host, '@');
    u->key[0] = '\0';
    if (at != NULL) { /* a key only matters to a broker that asks for one */
        if (!slice_to_cstr(slice_of(host, (size_t)(at - host)), u->key, sizeof u->key)) {
            return false;
        }
        host = at + 1;
    }
    size_t len = strlen(host);
    if (len > 0 && host[len - 1] == '/') len--;

    const char *rest; /* what follows the host */
    size_t host_len;
    if (host[0] == '[') {
        const char *bracket = memchr(host, ']', len);
        if (bracket == NULL) return false;
        host++;
        host_len = (size_t)(bracket - host);
        len -= 2;
        rest = bracket + 1;
    } else {
        const char *colon = memchr(host, ':', len);
        host_len = colon == NULL ? len : (size_t)(colon - host);
        rest = host + host_len;
    }
    size_t rest_len = len - host_len;
    if (host_len == 0 || !slice_to_cstr(slice_of(host, host_len), u->host, sizeof u->host)) {
        return false;
    }
    if (strpbrk(u->host, "/?# ") != NULL) return false;
    u->port = PORT_DEFAULT;
    if (rest_len == 0) return true;
    return rest[0] == ':' && parse_port(rest + 1, rest_len - 1, &u->port);
}
