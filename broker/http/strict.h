/* strict.h: the grammar of a request's head, line by line (RFC 9112 sections 2 to 5).
 *
 * llhttp leaves much of it open: bare LF, folded lines, empty names, any version, any number of
 * Hosts. These functions do not. Pure: they look at one line without its CRLF and point into it;
 * nothing is owned. `why` becomes a static sentence when the result is not ERR_OK.
 *
 * May call: base, proto/err.h, proto/limits.h. */
#ifndef HTTP_STRICT_H
#define HTTP_STRICT_H

#include "base/check.h"
#include "base/slice.h"
#include "proto/err.h"

struct strict_request {
    struct slice method;
    bool path_given;   /* false: an absolute target without a path, which means "/" */
    struct slice path; /* begins with '/' when it was given */
    struct slice query;
    bool minor_1; /* HTTP/1.1, otherwise HTTP/1.0 */
};

MUST_CHECK enum err strict_request_line(struct slice line, struct strict_request *out,
                                        const char **why);
MUST_CHECK enum err strict_header_line(struct slice line, struct slice *name, struct slice *value,
                                       const char **why);
/* Nothing at all, or a name, an IPv4 address or [IPv6], and perhaps a port (RFC 9112 section 3.2):
 * no path, no user, no blank, no list. */
bool strict_host(struct slice value);

/* A byte of a token (RFC 9110 section 5.6.2), and of a field value (section 5.5). */
bool strict_is_token_byte(uint8_t c);
bool strict_is_value_byte(uint8_t c);

#endif
