/* guard.h: which addresses an outbound request may be sent to (SSRF). PURE.
 *
 * A URI that somebody else wrote must not reach what only this machine or network can. Every
 * address is judged when it is connected to, so that no answer of a resolver can change between
 * check and use; a URI is judged as a text first, so that what can never work is refused when it is
 * given. The blocks are those of RFC 6890 and of its neighbours: docs/operations.md lists them.
 *
 * Owner: whoever opened it (the webhooks room), until guard_free. May call: base, net/address.h. */
#ifndef HTTP_GUARD_H
#define HTTP_GUARD_H

#include <sys/socket.h>

#include "base/check.h"
#include "base/slice.h"
#include "proto/err.h"
#include "proto/limits.h"

struct guard;

struct guard_options {
    const char *allow; /* CIDR blocks that may be reached although a rule forbids them, separated by
                          commas or blanks; "" or NULL: none */
    bool https_only;
};
/* Non-zero: `allow` cannot be read; error[size] names the block. */
MUST_CHECK int guard_open(struct guard **out, const struct guard_options *options, char *error,
                          size_t error_size);
void guard_free(struct guard **g);
bool guard_https_only(const struct guard *g);

/* Whether this address and port may be connected to. A v4-mapped address is judged as the IPv4
 * address that it is; IPv4-compatible, 6to4 and NAT64 addresses (RFC 4291, 3056, 6052) by their own
 * block and by the address inside: to allow their whole block does not allow what is inside, to
 * allow a part of it does. False: why[size] says the address and the rule: "127.0.0.1 is loopback
 * (127.0.0.0/8)". Ports: 80, 443 and 1024 to 65535; an allowed address may have any port. */
bool guard_address_ok(const struct guard *g, const struct sockaddr *address, char *why,
                      size_t size);
/* Whether a URI can be an endpoint: http or https (https_only), at most LIMIT_URI_BYTES, a host, no
 * user info, no fragment, no blank, control character or byte above 0x7E, a port by the rule above,
 * and, when the host is a literal address (also in the odd spellings that resolvers take: 127.1,
 * 0x7f.1, 2130706433) or localhost, an address that may be reached. A name may have any port when
 * there is an allow-list, and is judged when its addresses are known. False: why[size] says what is
 * wrong with it, as the end of a sentence that began with the URI. */
bool guard_uri_ok(const struct guard *g, struct slice uri, char *why, size_t size);
/* "https://host:port" of a URI that is ok, lower case, with its default port written out; addresses
 * in their usual spelling. "" of a text that is no URI. */
void guard_uri_origin(struct slice uri, char out[LIMIT_URI_BYTES + 8]);
/* Its host, when a resolver must be asked for it; len 0: an address, localhost, or no URI. */
struct slice guard_uri_name(struct slice uri);

#endif
