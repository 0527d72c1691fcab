/* parser.h: bytes in, requests out; no sockets.
 *
 * Two readers look at every request and must agree: our own (strict.c line by line, chunk.c for
 * chunked bodies), which holds the grammar that RFC 9112 allows and nothing else, and llhttp, whose
 * idea of the framing (length, chunks, keep-alive) is compared with ours. A request that one of
 * them refuses is refused. The result does not depend on how the bytes were split into pieces.
 *
 * Owned by its user from http_parser_init to http_parser_free; `request` borrows from it until
 * http_parser_reset. Memory: the head as it comes, at most LIMIT_HTTP_HEAD_BYTES, and the body as
 * it comes, at most body_max_bytes; a length that was only announced allocates nothing big. A body
 * that would take more memory than body_room says is refused: ERR_OVERLOADED.
 *
 * After STEP_REFUSED the framing cannot be trusted: answer and close. The only includer of
 * llhttp.h. May call: base, proto/limits.h, proto/err.h, llhttp. */
#ifndef HTTP_PARSER_H
#define HTTP_PARSER_H

#include <llhttp.h>

#include "broker/http/chunk.h"
#include "broker/http/server.h"
#include "broker/http/strict.h"
#include "proto/limits.h"

enum http_step {
    STEP_MORE,    /* every byte was taken; more are needed */
    STEP_HEAD,    /* the head is there: look at it, then feed again, also with no bytes */
    STEP_REQUEST, /* the request is whole; reset before the next */
    STEP_REFUSED, /* see err and message; nothing more can be fed */
};

enum http_parser_state {
    PARSE_HEAD,
    PARSE_BODY_LENGTH,
    PARSE_BODY_CHUNKED,
    PARSE_END,
};

/* Where a name and its value lie in the head, which moves while it grows. */
struct http_header_place {
    uint16_t name_at, name_len, value_at, value_len;
};

struct http_request_place {
    uint16_t method_len;        /* at 0 */
    uint16_t path_at, path_len; /* len 0: "/" */
    uint16_t query_at, query_len;
    bool minor_1; /* HTTP/1.1, otherwise HTTP/1.0 */
};

struct http_parser {
    enum http_parser_state state;
    struct buf head, body;
    size_t line_at; /* where the unfinished line begins in head */
    size_t body_max_bytes;
    size_t body_room; /* the user's to change at any time: what body.cap may grow to */
    struct http_request_place line;
    struct http_header_place places[LIMIT_HTTP_HEADERS];
    struct http_header headers[LIMIT_HTTP_HEADERS];
    size_t headers_count;
    /* What the headers say. */
    unsigned hosts, lengths, encodings;
    bool encoding_is_chunked, expects_continue;
    uint64_t length; /* of the body by Content-Length */
    struct chunk_scan chunks;
    /* What llhttp says. */
    llhttp_t llhttp;
    bool head_seen, end_seen, keep_alive, llhttp_chunked, no_room;
    uint64_t llhttp_length;
    /* The result; handle and peer are the user's to fill in. */
    struct http_request request;
    enum err err;
    const char *message; /* static */
};

#define HTTP_NO_BODY_ROOM                                                                          \
    "the memory for bodies is used up for now: nothing was taken, send it again later"

void http_parser_init(struct http_parser *p, size_t body_max_bytes);
void http_parser_free(struct http_parser *p);
/* Ready for the next request; memory above a small size is given back. */
void http_parser_reset(struct http_parser *p);
/* Takes bytes up to the next step; *used becomes how many. */
enum http_step http_parser_feed(struct http_parser *p, struct slice in, size_t *used);
/* The head is there and the client waits for 100 (Continue) before it sends the body. */
bool http_parser_wants_continue(const struct http_parser *p);

#endif
