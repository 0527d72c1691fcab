/* guard_internal.h: what the files of the guard know of it. Nobody else includes this.
 *
 * Addresses are bytes in network order: 4 of IPv4, 16 of IPv6. A v4-mapped IPv6 address or block is
 * kept and judged as the IPv4 it means. May call: base. */
#ifndef HTTP_GUARD_INTERNAL_H
#define HTTP_GUARD_INTERNAL_H

#include "broker/http/guard.h"

struct net_address {
    uint8_t bytes[16];
    bool six;
};

struct net_block {
    struct net_address address; /* no bit is set behind the prefix */
    unsigned prefix;
};

struct guard {
    struct net_block *allow;
    size_t allow_count;
    bool https_only;
};

/* The address alone: by the rules and what is allowed. *allowed says that a block of the allow-list
 * covers it. False: why[size] says the address and the rule. */
bool guard_judge(const struct guard *g, const struct net_address *a, bool *allowed, char *why,
                 size_t size);
bool guard_port_usual(unsigned port);

/* A URI in its parts; the slices point into it. */
struct uri_parts {
    bool https;
    struct slice host; /* without brackets */
    bool is_address;
    struct net_address address; /* if it is one, in whatever spelling */
    unsigned port;
};
/* The grammar alone. False: why[size] says what is wrong. */
bool uri_read(struct slice uri, struct uri_parts *out, char *why, size_t size);

#endif
