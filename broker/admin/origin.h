/* origin.h: whether a web page in somebody's browser may be behind a request.
 *
 * As long as there is no key, being on this machine is all that it takes, and a browser is: any
 * page that it shows can send requests to 127.0.0.1. Two things tell: Origin, which browsers write
 * into every request of a page that can change something (RFC 6454 section 7), and Host. A page
 * whose name was made to point here after it was loaded (DNS rebinding) has the right Origin, but
 * its own name in Host. Pure. May call: base, http/server.h. */
#ifndef ADMIN_ORIGIN_H
#define ADMIN_ORIGIN_H

#include "broker/http/server.h"

/* The port that a request has come through. */
struct origin_door {
    bool tls;
    bool keys;  /* a key is asked for */
    bool local; /* it is open to this machine only */
};

/* NULL: no page of somebody else has sent it; otherwise a sentence for the answer (static). Paths
 * that need no key (`open`) are answered whatever Host is. */
const char *origin_refusal(const struct http_request *r, const struct origin_door *door, bool open);

#endif
