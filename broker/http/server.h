/* server.h: an HTTP/1.1 server (RFC 9110, RFC 9112) on llhttp that is stricter than llhttp.
 *
 * The server owns connections and requests. A request is handed out when its last byte is there;
 * it is answered once, at once or turns later, by its handle: a u64 that is never used again, so
 * an answer to a request whose client has gone does nothing. One request of a connection is worked
 * on at a time; pipelined ones wait in the connection's buffer, so answers are in order.
 *
 * What is refused, and how (docs/http-strictness.md has the table): every rule of strictness ends
 * in an answer with the error body of Bellhop and, where the framing can no longer be trusted, in
 * closing. Knows no events. May call: net, base, proto/limits.h, proto/err.h, llhttp. */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include "base/buf.h"
#include "broker/net/stream.h"
#include "proto/err.h"

struct http_server;

struct http_header {
    struct slice name, value; /* value without blanks around it */
};

/* Everything is borrowed until http_respond or until the client is gone, at least until the turn
 * in which the request was handed out has ended (its effects were released). */
struct http_request {
    uint64_t handle;
    struct slice method; /* "POST" */
    struct slice path;   /* "/in/gemini": as sent, before '?'; always starts with '/' */
    struct slice query;  /* after '?', may be empty */
    const struct http_header *headers;
    size_t headers_count;
    struct slice body; /* chunks joined; raw bytes, content-encoding untouched */
    const char *peer;
};

/* Why a request is not taken. */
struct http_refusal {
    enum err err;
    const char *message;    /* as http_respond_error says it */
    uint32_t retry_after_s; /* of 429 and 503; 0: 1 */
    const char *extra;      /* further headers, as in http_respond; NULL: none */
};

struct http_server_options {
    size_t body_max_bytes; /* 0: LIMIT_BODY_BYTES_DEFAULT */
    /* What bodies may take in all, as they are held: those that come and those whose request is not
     * answered yet. From three quarters on no large one is begun, and none grows when it is full:
     * 503. 0: no limit. */
    size_t body_memory_bytes;
    /* The head is there and no body byte was asked for yet (an Expect: 100-continue is still
     * unanswered). True lets the body come; otherwise the request is answered with *refusal, whose
     * texts live until the next call, and the connection is closed. May be NULL. */
    bool (*on_head)(void *ctx, const struct http_request *head, struct http_refusal *refusal);
    /* A whole request. Answer it now or later by its handle. */
    void (*on_request)(void *ctx, const struct http_request *request);
    /* The client of an unanswered request is gone; the handle is dead. May be NULL. */
    void (*on_gone)(void *ctx, uint64_t handle);
    /* The client of an unanswered request sends nothing more. It may read on, or be gone: whoever
     * makes it wait should answer now. May be NULL. */
    void (*on_half_closed)(void *ctx, uint64_t handle);
    /* A request is about to be answered with an error: by on_head, by http_respond_error or
     * http_respond_refusal, or by the server itself. Of one whose head never was whole there is
     * only `peer`; of one without its whole body, body.len is 0. For logs and counts: it answers
     * nothing. May be NULL. */
    void (*on_refused)(void *ctx, const struct http_request *request,
                       const struct http_refusal *refusal);
    void *ctx;
    /* 0 means the LIMIT_HTTP_... of the same name. */
    uint64_t head_ms;       /* from the first byte of a request to the end of its head */
    uint64_t idle_ms;       /* between requests */
    uint64_t body_grace_ms; /* after which the body must have come at ... */
    uint64_t body_bytes_per_s;
    /* Connections of one caller (net/peer.h), above which the next ones are closed at once; 0: as
     * many as come. Loopback is counted only with the second: behind a reverse proxy of this
     * machine all the world comes from there. */
    size_t connections_per_ip;
    bool loopback_counts;
    struct tls_server *tls; /* NULL: plain HTTP */
};

MUST_CHECK int http_server_open(struct loop *l, const char *address,
                                const struct http_server_options *options, struct http_server **out,
                                uint16_t *port, char *error, size_t error_size);
/* Stops accepting; idle connections close, those with a request close after their answer. */
void http_server_drain(struct http_server *s);
/* Frees; the loop has been run to its end and is not closed yet. *s becomes NULL. */
void http_server_close(struct http_server **s);
size_t http_server_connections(const struct http_server *s);
/* Connections that were refused because their caller had too many, since the start. */
uint64_t http_server_refused(const struct http_server *s);
/* What bodies hold now; *max (may be NULL) becomes body_memory_bytes, SIZE_MAX when there is none.
 */
size_t http_server_body_memory(const struct http_server *s, size_t *max);
/* Whether so much of it is used that large bodies are refused. */
bool http_server_body_memory_is_scarce(const struct http_server *s);

/* Answers. `extra` is "Name: value\r\n..." or NULL; content_type NULL means application/json. */
void http_respond(struct http_server *s, uint64_t handle, int status, const char *content_type,
                  const char *extra, struct slice body);
/* Answers with {"error":{"code":...,"message":...}}, the status of the error, and Retry-After: 1
 * when it is retryable with status 503 or 429. */
void http_respond_error(struct http_server *s, uint64_t handle, enum err err, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/* The same with all that a refusal may say. */
void http_respond_refusal(struct http_server *s, uint64_t handle,
                          const struct http_refusal *refusal);

/* The value of the first header of that name (ASCII case folded); len 0 and data NULL when there
 * is none. `count` (may be NULL) becomes the number of headers of that name. */
struct slice http_header_get(const struct http_request *r, const char *name, size_t *count);
/* The value of a query parameter, percent-decoded into out[size] with a terminator. 1: found; 0:
 * absent; -1: it does not fit, has a broken escape or a NUL. */
int http_query_get(const struct http_request *r, const char *name, char *out, size_t size);
/* The first query parameter whose name is not in the NULL-terminated list, as a slice; len 0 when
 * every one is known. */
struct slice http_query_unknown(const struct http_request *r, const char *const *known);
/* Whether a query parameter is there more than once; http_query_get reads the first. */
bool http_query_repeated(const struct http_request *r, const char *name);

#endif
