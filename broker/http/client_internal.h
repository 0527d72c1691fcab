/* client_internal.h: what the files of the outbound client know of it. Nobody else includes this.
 *
 *     http_client_send -> WAITING -> RUNNING -> ENDED -> on_done -> POOLED
 *                     \____________/   (or cancel, from each of the three) ->/
 *
 * WAITING  for its turn to look a name up (client_names.c); libcurl does not know it yet
 * RUNNING  libcurl has it
 * ENDED    it could not even begin: on_done comes from the next safe point
 * POOLED   its easy handle and its memory wait for the next request
 *
 * A safe point is where no call of libcurl is under way: the callbacks of the loop, after they
 * have told libcurl what happened. on_done is called there and nowhere else, so it may send and
 * cancel. libcurl's own callbacks take notes and touch polls and the timer, nothing else.
 *
 * Owned by the client; a transfer belongs to exactly one of its lists. */
#ifndef HTTP_CLIENT_INTERNAL_H
#define HTTP_CLIENT_INTERNAL_H

#include <curl/curl.h>

#include "base/buf.h"
#include "broker/http/client.h"
#include "broker/net/poll.h"
#include "proto/limits.h"

#define WHY_SIZE 320

enum transfer_state { TRANSFER_POOLED, TRANSFER_WAITING, TRANSFER_RUNNING, TRANSFER_ENDED };

struct http_transfer {
    struct http_client *client;
    struct list node; /* in the list of its state */
    enum transfer_state state;
    bool looking; /* counts as a name lookup under way */
    CURL *easy;
    http_done_fn *on_done;
    void *ctx;
    uint64_t started_ms, timeout_ms;
    uint64_t name_hash; /* 0: its host needs no resolver */
    /* The request: header lines as libcurl wants them. */
    struct curl_slist *lines;
    char *text;
    size_t lines_cap, text_cap;
    /* The response. */
    struct buf body;
    size_t head_bytes, body_bytes; /* read, also those that were not kept */
    bool head_done;                /* the head of the last response is whole */
    /* What became of it on our side. */
    unsigned opened, refused; /* sockets made; addresses that the guard refused */
    bool ours;                /* we failed: `why` says at what */
    char why[WHY_SIZE];       /* of the guard or of us */
    char error[CURL_ERROR_SIZE];
};

/* A socket that libcurl has. */
struct http_socket {
    struct http_client *client;
    struct loop_poll *poll;
    unsigned wanted; /* by libcurl; the poll may still wait for more */
    bool foreign;    /* made by libcurl itself, for its resolver's threads */
};

/* When a name was last connected to; see client_names.c. */
struct known_name {
    uint64_t hash, until_ms;
};
#define KNOWN_NAMES 4096

struct http_client {
    struct loop *loop;
    struct guard *guard;
    CURLM *multi;
    char *ca_file; /* NULL: none of our own */
    const char *user_agent;
    struct loop_timer *timer;
    struct loop_task drive; /* libcurl wants to be called at once */
    struct list waiting, running, ended, pool;
    size_t active, pool_count;
    struct http_socket **sockets; /* by descriptor */
    size_t sockets_cap;
    size_t lookups;                 /* transfers with `looking` */
    struct loop_timer *names_timer; /* for the deadlines of those that wait; NULL: none */
    uint64_t names_due_ms;          /* what it is set to; UINT64_MAX: NULL */
    struct known_name *known;       /* KNOWN_NAMES of them */
    bool inside;                    /* on_done is being called: no safe point within one */
    bool closing;
};

/* client.c */
void transfer_move(struct http_transfer *t, enum transfer_state to);
/* Gives it to libcurl with so much time left. */
void transfer_run(struct http_transfer *t, uint64_t timeout_ms);
/* Notes a failure of our own, the first one counts; and ends what libcurl does not have. */
void transfer_fail_ours(struct http_transfer *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The safe point. True: a user was told of something. */
bool client_settle(struct http_client *c);

/* client_socket.c: the multi interface on polls and a timer. */
bool sockets_open(struct http_client *c);
void sockets_close(struct http_client *c);
/* For CURLOPT_OPENSOCKETFUNCTION (of a transfer) and CURLOPT_CLOSESOCKETFUNCTION (of a client). */
curl_socket_t on_open_socket(void *transfer, curlsocktype purpose, struct curl_sockaddr *address);
int on_close_socket(void *client, curl_socket_t fd);

/* client_names.c */
/* Whether it may go to libcurl now; otherwise it waits. */
bool names_enter(struct http_transfer *t, struct slice uri);
/* It has its addresses or needs none any more; harmless otherwise. */
void names_leave(struct http_transfer *t);
/* It was connected to, or its name had no address. */
void names_learn(struct http_transfer *t, bool good);
/* Lets the next ones go; ends those that waited too long. */
void names_admit(struct http_client *c);

/* client_result.c: fills in everything; `code` is what libcurl said of a RUNNING transfer. */
void result_make(struct http_transfer *t, CURLcode code, struct http_result *out);

#endif
