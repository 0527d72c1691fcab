/* kept_headers.h: which headers of a webhook are kept with its event.
 *
 * Those that its scheme names, and of every scheme user-agent, the ce- headers, traceparent and
 * tracestate. Never one that lets somebody in: authorization, cookies, signatures and MACs stay out
 * whatever a list says. May call: http/server.h, json, base. */
#ifndef INGEST_KEPT_HEADERS_H
#define INGEST_KEPT_HEADERS_H

#include "base/buf.h"
#include "broker/http/server.h"

/* A name in lower case, or what names begin with; NULL at the end of a list. */
struct kept_header {
    const char *name;
    size_t len;
    bool begins;
};
#define KEPT_NAME(text)                                                                            \
    { .name = (text), .len = sizeof(text) - 1 }
#define KEPT_BEGINNING(text)                                                                       \
    { .name = (text), .len = sizeof(text) - 1, .begins = true }

/* Writes a JSON object of names in lower case into *out, whatever that held, at most
 * LIMIT_EVENT_HEADERS_BYTES of it: what does not fit is left out. Nothing when there is none. `own`
 * is NULL or a list. Of a repeated header the first is kept. */
void kept_headers_write(const struct http_request *r, const struct kept_header *own,
                        struct buf *out);

#endif
