/* http.h: requests to the broker at BELLHOP_URL, one at a time.
 *
 * Owned by main from http_open to http_close; keeps one connection open between requests. Every
 * request has a time limit: 5 s to connect, 30 s in all unless it says otherwise. Redirects are not
 * followed. A reply belongs to the caller of http_send, who frees it with buf_free(&reply.body).
 *
 * May call: cli, json_text, base, libcurl (its only user). */
#ifndef CLI_HTTP_H
#define CLI_HTTP_H

#include "base/buf.h"
#include "clients/cli/cli.h"

#define HTTP_TIMEOUT_MS 30000

struct http_request {
    const char *method;
    const char *path;           /* with its query; begins with "/" */
    const struct slice *body;   /* NULL: none */
    const char *const *headers; /* "name: value", ends with NULL; NULL: JSON */
    uint64_t timeout_ms;        /* 0: HTTP_TIMEOUT_MS */
};

struct http_reply {
    long status;
    struct buf body;
};

/* `url` is http:// or https:// with a host; `key` (may be NULL) is sent as a bearer; `tls` says
 * whom to trust and what to show, borrowed as long as it is open. 0, or CLI_USAGE after saying what
 * is wrong with the URL. */
int http_open(struct http **out, const char *url, const char *key, const struct cli_tls *tls);
void http_close(struct http **h);
/* The base of every request, without a slash at the end. */
const char *http_url(const struct http *h);
/* The host of the URL as it stands there ("[::1]" for IPv6). */
const char *http_host(const struct http *h);

/* Sends and waits. 0 when an HTTP answer came, whatever its status; else CLI_UNAVAILABLE, or
 * CLI_INPUT for a file of certificates that cannot be used, and http_complain says why. Frees
 * nothing that `reply` held before. */
int http_try(struct http *h, const struct http_request *request, struct http_reply *reply);
void http_complain(const struct http *h);
/* Prints the message and code of an error answer; returns CLI_REFUSED. */
int http_refused(const struct http_reply *reply);

/* The common case: sends, and anything but a 2xx is said on stderr and becomes the exit code. On
 * 0 the caller frees reply->body; on an error it is already empty. */
int http_send(struct http *h, const struct http_request *request, struct http_reply *reply);
int http_get(struct http *h, const char *path, struct http_reply *reply);

/* Appends text with every byte that is not A-Z a-z 0-9 - . _ ~ percent-encoded. */
void http_escape(struct buf *b, const char *text);
/* Appends "?key=value", or "&key=value" when there is a query already. NULL: nothing. */
void http_query(struct buf *path, const char *key, const char *value);

#endif
