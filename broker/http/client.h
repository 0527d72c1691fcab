/* client.h: outbound HTTP/1.1 and HTTP/2 requests on libcurl's multi interface inside the loop.
 *
 * The client owns connections and transfers. A request is sent with http_client_send and ends in
 * exactly one on_done, never from inside the send; http_client_cancel ends it without one. Names
 * are resolved off the loop (libcurl's resolver threads); every address is judged by the guard at
 * the moment it is connected to; TLS is verified; redirects are not followed; no proxy is taken
 * from the environment; cookies and credentials are not kept. Connections are reused. At most 256
 * names are looked up at a time; requests for names that were not reached lately wait for that.
 *
 * Knows no events. The only user of libcurl in the broker. May call: net, guard.h, base,
 * proto/limits.h, libcurl. */
#ifndef HTTP_CLIENT_H
#define HTTP_CLIENT_H

#include "broker/http/guard.h"
#include "broker/net/loop.h"

struct http_client;
struct http_transfer;

struct http_client_options {
    struct guard *guard;    /* borrowed */
    const char *ca_file;    /* PEM file of further authorities; NULL or "": the system's only */
    const char *user_agent; /* borrowed */
    size_t connections_max; /* idle ones that are kept; 0: 1024 */
};
/* Non-zero: error[size] says what is wrong (a CA file that cannot be read). */
MUST_CHECK int http_client_open(struct loop *l, const struct http_client_options *options,
                                struct http_client **out, char *error, size_t error_size);
/* Cancels what is under way, closes every connection and frees; the loop is not closed yet. Not
 * from an on_done. */
void http_client_close(struct http_client **c);
size_t http_client_active(const struct http_client *c); /* transfers under way */

/* What became of a request. */
enum http_failure {
    HTTP_ANSWERED,  /* status says the rest */
    HTTP_DNS,       /* the name has no address, or no resolver answered */
    HTTP_FORBIDDEN, /* the guard refused every address: detail names one and the rule */
    HTTP_CONNECT,   /* refused or unreachable */
    HTTP_TLS,       /* handshake or certificate */
    HTTP_TIMEOUT,   /* the total time was over, whatever had happened until then */
    HTTP_BROKEN,    /* closed or not HTTP before a whole head had come */
    HTTP_OURS,      /* not the receiver's fault: memory, descriptors, threads */
};
/* "answered", "dns", "forbidden_address", "connect", "tls", "timeout", "broken", "internal" */
const char *http_failure_name(enum http_failure f);

/* Slices live until on_done returns. */
struct http_result {
    enum http_failure failure;
    int status;               /* ANSWERED: 100 .. 999 as sent */
    uint64_t duration_ms;     /* from the send to the end */
    struct slice body;        /* its first bytes, at most response_max */
    struct slice retry_after; /* value of that header when it is no 2xx; empty: none */
    const char *detail;       /* failure in words, for people; "" when ANSWERED */
    char address[64];         /* "203.0.113.9:443" that was connected to; "" */
};
typedef void http_done_fn(void *ctx, const struct http_result *result);

struct http_outbound_header {
    const char *name; /* without colon */
    const char *value;
};

/* Everything but `body` is copied; `body` stays the caller's, untouched, until on_done or
 * http_client_cancel. */
struct http_outbound {
    const char *uri; /* guard_uri_ok */
    bool get;        /* GET, without a body; else POST */
    struct slice body;
    const struct http_outbound_header *headers; /* also content-type */
    size_t headers_count;
    uint64_t timeout_ms; /* name lookup, connection, TLS, request and response together */
    size_t response_max; /* bytes kept of the body; at most LIMIT_RESPONSE_BYTES are read, then the
                            rest is left and the connection closed: the status stands */
    http_done_fn *on_done;
    void *ctx;
};
/* POSTs it. When a connection that was kept turns out to be closed, the request goes out again on a
 * new one: a receiver may see it twice. Headers that could change the message (a line end in a
 * value) end as HTTP_OURS. */
struct http_transfer *http_client_send(struct http_client *c, const struct http_outbound *request);
/* Ends it without on_done; not from its own. */
void http_client_cancel(struct http_client *c, struct http_transfer *t);

/* Retry-After (RFC 9110 section 10.2.3): seconds or an HTTP date, as milliseconds from wall_ms;
 * UINT64_MAX when it says neither. */
uint64_t http_retry_after_ms(struct slice value, uint64_t wall_ms);

#endif
