/* internal.h: what the files of http/ know of a server and its connections. Nobody else includes
 * this.
 *
 * A connection goes round like this (conn.c is the only one that moves it):
 *
 *     IDLE -> HEAD -> BODY -> BUSY -> ANSWERED -> IDLE, or HEAD again when bytes wait
 *                                  (any) -> ENDING -> gone
 *
 * IDLE      no byte of a request is here; no exchange either, so it costs little
 * HEAD      some bytes of a head are; deadline from the first
 * BODY      the head is whole, the body is not; deadline by rate, and never further away than an
 *           idle connection's
 * BUSY      the request was handed out and waits for its answer; it has a handle
 * ANSWERED  what the request borrows must live until the turn has ended: until the task runs
 * ENDING    our last answer is on its way; what still arrives is dropped
 *
 * Owned by the server from accept to the task after on_close. Invariants: `rest` is empty unless
 * BUSY or ANSWERED; a connection has an exchange unless IDLE; it is in the map of handles exactly
 * while BUSY; it is in the list of its state's deadline, or in none; between callbacks it has
 * counted what its body and `rest` hold, and when it is freed nothing. */
#ifndef HTTP_INTERNAL_H
#define HTTP_INTERNAL_H

#include "base/list.h"
#include "base/map.h"
#include "broker/http/callers.h"
#include "broker/http/parser.h"

enum conn_state { CONN_IDLE, CONN_HEAD, CONN_BODY, CONN_BUSY, CONN_ANSWERED, CONN_ENDING };

/* What one request needs while it is under way; pooled, so that nothing is allocated per request
 * in the steady state and idle connections hold none. */
struct exchange {
    struct list node; /* in the server's pool */
    struct http_parser parser;
    char peer[64]; /* the stream may be gone before the turn has ended */
};

struct conn {
    struct http_server *server;
    struct stream *stream; /* NULL when it is gone */
    struct list node;      /* in server->conns */
    struct list timed;     /* in one of the server's lists of deadlines */
    struct loop_task task; /* what is to be done when the turn has ended */
    struct exchange *exchange;
    struct buf rest;   /* bytes that came behind the request that is being worked on */
    size_t rest_at;    /* of these, how many were taken */
    size_t counted;    /* its part of server->body_memory */
    uint64_t since_ms; /* when the state with the deadline began */
    uint64_t body_deadline_ms;
    uint64_t body_paid_bytes; /* so many have moved body_deadline_ms */
    struct caller *caller;    /* NULL: not counted */
    uint64_t handle;          /* of the request while BUSY */
    enum conn_state state;
    bool eof;        /* the peer sends nothing more */
    bool keep_alive; /* by the request's word */
    bool http_1_0;
    bool head_only; /* the request's method is HEAD */
};

struct http_server {
    struct loop *loop;
    struct listener *listener;
    struct http_server_options options;
    struct list conns;
    size_t conns_count;
    struct list idle, heads, bodies; /* idle and heads in the order of their deadlines */
    struct loop_timer *sweep;        /* runs while there are connections */
    struct list pool;
    size_t pool_count, pool_least; /* least since the last sweep: so many were not needed */
    struct map handles;            /* of BUSY connections */
    struct callers callers;
    size_t body_memory;               /* the sum of what the connections have counted */
    uint64_t refused, refused_logged; /* callers with too many connections; of these, told */
    uint64_t refused_logged_ms;
    uint64_t next_handle;
    struct buf scratch; /* for the head of an answer */
    struct buf plain;   /* what plain HTTP is told when TLS is spoken here */
    char date[32];      /* "Sun, 06 Nov 1994 08:49:37 GMT" of the second below */
    uint64_t date_s;
    bool draining;
};

/* `caller` is left when the connection is freed; may be NULL. */
void conn_accept(struct http_server *s, struct stream *stream, struct caller *caller);
/* Answers 408 when its deadline has passed. False: not yet. */
bool conn_expire(struct conn *c, uint64_t now_ms);
/* The server is draining: closes when nothing is under way. */
void conn_drain(struct conn *c);
/* It is idle, and its place is needed: closes at once. */
void conn_give_up(struct conn *c);
/* Frees what is left of a connection; its stream is gone. */
void conn_free(struct conn *c);
/* The answer to the request was written: moves on. `last`: the answer said so. */
void conn_answered(struct conn *c, bool last);

/* Writes an answer; `last` says in it that the connection closes. */
void answer_write(struct conn *c, int status, const char *content_type, const char *extra,
                  struct slice body, bool last);
void answer_write_error(struct conn *c, const struct http_refusal *refusal, bool last);

#endif
