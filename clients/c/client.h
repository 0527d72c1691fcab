/* client.h: what the files of libbellhop share; bellhop.h is what its users see.
 *
 * One struct bellhop is one client. Everything runs on the loop's thread. Callbacks of libuv and
 * calls of the user only record what happened (an event is queued, a settlement noted, a deadline
 * passed); bh_turn, which runs right before the loop blocks, acts: it calls handlers, writes
 * frames and arms the one timer. So settlements of one pass of the loop share a frame, and no user
 * code runs in the middle of a change.
 *
 * Memory: bellhop_open allocates the client; it is freed when bellhop_close was called and the last
 * handle, connection and resolver has had its closing callback (`pending` counts them). Any user
 * callback may call bellhop_close: after one, look at `phase` before touching anything.
 *
 * Invariants: 1. conn is set exactly in the phases CONNECTING to LEAVING. 2. An event is in exactly
 * one list of its sub. 3. sub->held has exactly the attached events of the sub. 4. running counts
 * the events that the handler has. 5. requests has every request that was not answered yet. 6. A
 * settlement is in settled (to be written), unsure (written; claimed again when the connection is
 * lost) or the confirms of a request (written, to be answered). 7. Without a connection queue and
 * unsure are empty.
 *
 * May call: base, proto, libuv; tls.c OpenSSL. */
#ifndef BELLHOP_CLIENT_H
#define BELLHOP_CLIENT_H

#include <uv.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "base/prng.h"
#include "clients/c/bellhop.h"
#include "proto/frame.h"
#include "proto/limits.h"

enum {
    BH_ADDRESSES = 8,          /* of one host name that are tried */
    BH_TEXT_BYTES = 512,       /* an error with its words */
    BH_CONNECT_MS = 10000,     /* resolving, or connecting to one address */
    BH_STOP_MS = 10000,        /* handlers that run may take this long to settle */
    BH_GOODBYE_MS = 1000,      /* from CLOSE to the broker's end of stream */
    BH_PAUSE_MIN_MS = 100,     /* before connecting again */
    BH_PAUSE_MAX_MS = 30000,   /* the same */
    BH_PAUSE_CLAIMS_MS = 2000, /* the same with claims: a broker that starts waits 10 s for them */
    BH_PERIOD_MIN_MS = 20,     /* a broker may not make us ping or extend more often */
    BH_ASKED_PAUSE_MAX_MS = 300000, /* that a broker may ask for */
    BH_STEADY_MS = 5000,            /* a connection this old starts the pauses afresh */
    BH_RESUME_MS = 5000,            /* asked for when the user does not say */
    BH_WAIT_AGAIN_MS = 1000,        /* a wait that ended early is asked again after that */
    BH_WAIT_GRACE_MS = 5000,        /* over a wait's time, for a connection to come */
    BH_UNSURE_MS = 100,     /* what the broker has is on disk 50 ms later, and the way there */
    BH_OUT_BYTES = 1 * MIB, /* publishes wait while so much is unsent */
    BH_OUT_BYTES_MAX = 128 * MIB,    /* a peer that takes nothing: the end */
    BH_PUBLISH_BYTES_MAX = 64 * MIB, /* frames that wait for a connection */
    BH_FRAME_BYTES_MAX = LIMIT_EVENT_BYTES + LIMIT_DELIVER_BYTES + LIMIT_FRAME_OVERHEAD_BYTES,
};

#define BH_NEVER UINT64_MAX

enum bh_phase {
    BH_WAITING,    /* for deadline_ms, then it connects */
    BH_RESOLVING,  /* the host's name */
    BH_CONNECTING, /* to one of the addresses */
    BH_GREETING,   /* HELLO is out, WELCOME is not there */
    BH_READY,
    BH_LEAVING, /* CLOSE is out; the broker will end the stream */
    BH_STOPPED, /* for good */
};

enum bh_leave { BH_STAY, BH_LEAVE_GOAWAY, BH_LEAVE_STOP };

struct bh_tls;
struct bh_trust;

struct bh_url {
    char host[256];
    uint16_t port;
    bool tls;
    char key[LIMIT_KEY_TEXT_BYTES]; /* "": there is none */
};

/* One TCP connection. Owned by libuv from bh_connection_open to its closing callback. */
struct bh_conn {
    struct bellhop *client;
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    struct buf in, out, sending;
    struct bh_tls *tls; /* NULL: plain TCP */
    uint8_t *raw;       /* what is read with TLS */
    bool writing, dropped;
    bool failed; /* nothing may be said any more */
};

enum bh_request_kind { BH_SUBSCRIBE, BH_PUBLISH, BH_SETTLE, BH_DRAIN, BH_STATE, BH_TASK, BH_WAIT };

/* Something that an answer with its rid will end. */
struct bh_request {
    struct list
        node; /* in waiting, in_flight, waits or finished of the client, or in asks of a sub */
    enum bh_request_kind kind;
    uint32_t rid;
    int error;               /* in finished: what its owner will hear */
    const char *message;     /* static */
    bool stale;              /* the same, of a SETTLE */
    struct bellhop_sub *sub; /* SUBSCRIBE, SETTLE, STATE */
    struct list confirms;    /* SETTLE: struct bh_settlement */
    struct buf frame;        /* PUBLISH, TASK: until it is sent */
    uint64_t asked_at_ms;    /* PUBLISH, by bh_clock_ms */
    bool *relative;       /* PUBLISH: whose deliver_at_ms counts from asked_at_ms; NULL: none's */
    bool watch;           /* STATE */
    struct bh_wait *wait; /* WAIT; owned */
    bool asked;           /* the same: on this connection */
    bellhop_published *published;
    bellhop_sub_stated *stated;
    bellhop_task_started *started;
    bellhop_waited *waited;
    void *ctx;
};

/* What the user said about an event. The failure's three texts follow the struct. */
struct bh_settlement {
    struct list node;
    uint64_t tag, seq, sent_at_ms;
    uint32_t flags; /* of its DELIVER */
    enum bellhop_settlement_kind kind;
    bool sent;         /* ever: the broker may know */
    uint64_t delay_ms; /* or FRAME_DELAY_POLICY */
    size_t type_len, message_len, detail_len;
    bellhop_settled *done;
    void *ctx;
};

struct bh_tags {
    uint64_t *items;
    size_t len, cap;
};

enum bh_sub_state { BH_SUB_IDLE, BH_SUB_ASKED, BH_SUB_ON, BH_SUB_ENDED };

struct bellhop_sub {
    struct list node;
    struct bellhop *client;
    char name[LIMIT_NAME_BYTES + 1];
    uint32_t id; /* `sub` on the wire */
    enum bh_sub_state state;
    struct bellhop_sub_options options; /* its create is owned */
    bool paused, watched;
    uint64_t window_told; /* events, on this attachment */
    uint64_t lease_ms, extend_at_ms, extended_at_ms;
    uint64_t tag_last; /* highest that was claimed or delivered on this attachment */
    size_t claims, claims_granted, claims_lost;
    struct map held;     /* tag -> event */
    struct list queue;   /* prefetched: the handler does not have them yet */
    struct list taken;   /* the handler has them */
    struct list to_tell; /* the handler has them, and something about them was not told yet */
    size_t running;      /* events in taken and to_tell */
    struct bh_tags acks, releases; /* to be written; the releases are of the queue */
    struct list settled, unsure;   /* struct bh_settlement */
    size_t unsure_count;
    struct list asks; /* struct bh_request: STATEs that wait until the sub is attached */
};

struct bellhop_event {
    struct list node;
    struct bellhop_sub *sub;
    uint64_t tag;
    uint32_t flags;     /* of its DELIVER */
    bool attached;      /* its tag means something to the broker, or will when it was claimed */
    bool lost;          /* the broker has said that it is not ours */
    bool revoked, tell; /* its lease ran out; on_revoked is due */
    const char *reason; /* of on_revoked; static */
    uint64_t soon_ms;   /* not 0: on_lease_soon is due */
    struct bellhop_info info; /* its texts follow the struct */
};

struct bellhop {
    uv_loop_t *loop;
    bool owns_loop, looping, closing;
    struct bh_url url;
    char name[LIMIT_NAME_BYTES + 1];
    struct bellhop_options options;
    int result; /* of bellhop_run */
    char text[BH_TEXT_BYTES];

    enum bh_phase phase;
    enum bh_leave leave;
    bool welcomed;   /* ever */
    bool challenged; /* on this connection, and answered */
    bool stop_asked, drain_sent, drained;
    bool quiet;           /* the broker is about to stop: it hands out nothing */
    bool choked;          /* out is full */
    uint64_t deadline_ms; /* of the phase */
    uint64_t leave_at_ms; /* when leaving may not take longer */
    uint64_t ready_at_ms, reconnect_ms;
    unsigned attempts;
    struct prng prng;
    char session[LIMIT_SESSION_TOKEN_BYTES]; /* the one to go on; session_len is 0: there is none */
    size_t session_len;
    uint64_t clock_ms;    /* the broker's wall time when bh_clock_ms is 0, modulo 2^64 */
    uint32_t barrier_rid; /* of a PING whose PONG says that the broker has what was sent before */
    uint64_t barrier_ms;  /* settlements sent until then are covered by it */

    uv_async_t async;
    uv_prepare_t prepare;
    uv_timer_t timer;
    size_t pending; /* closing callbacks that have to come before the client may be freed */

    struct sockaddr_storage addresses[BH_ADDRESSES];
    size_t addresses_count, address_next;
    struct bh_trust *trust; /* made with the first connection of bellhops:// */
    struct bh_conn *conn;
    struct frame_decoder *decoder;
    uint64_t heartbeat_ms, heard_ms, sent_ms;
    size_t frame_in_max, frame_out_max;

    struct list subs;
    uint32_t next_sub, next_rid;
    struct map requests; /* rid -> struct bh_request */
    struct list waiting, in_flight, finished, waits;
    size_t waiting_bytes;
};

/* url.c. False: not bellhop[s]://[key@]host[:port]. */
bool bh_url_parse(struct bh_url *u, const char *text);

/* auth.c */
void bh_auth_challenged(struct bellhop *c, const struct frame *f);
/* What AUTH proves the key with; nonces of 32 bytes. False: they are not, or libcrypto cannot. */
bool bh_auth_prove(const char *key, struct slice broker_nonce, struct slice client_nonce,
                   uint8_t proof[32]);

/* client.c */
uint64_t bh_now_ms(const struct bellhop *c);
void bh_say(struct bellhop *c, const char *fmt, ...) PRINTF_LIKE(2, 3); /* on_state */
/* Stops for good: error is what bellhop_run returns, the words what bellhop_error says. */
void bh_finish(struct bellhop *c, int error, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The connection is lost, or could not be made: everything that hung on it is settled, and the
 * client waits to connect again (or ends, when it was to stop). */
void bh_lost(struct bellhop *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The peer does not speak the protocol. */
void bh_broken(struct bellhop *c, const char *why);
/* A closing callback came: the client may be free to go. The client may be gone after it. */
void bh_unpend(struct bellhop *c);

/* connection.c */
void bh_connection_open(struct bellhop *c);
void bh_connection_drop(struct bellhop *c);
void bh_connection_flush(struct bellhop *c);
/* Where frames go; NULL while there is no connection. */
struct buf *bh_out(struct bellhop *c);
/* Notes an encoder's result: false means that the peer has taken nothing for long, and the next
 * turn gives the connection up. */
void bh_encoded(struct bellhop *c, bool ok);

/* session.c */
void bh_session_start(struct bellhop *c);
void bh_session_read(struct bellhop *c, struct bh_conn *conn);
void bh_session_beat(struct bellhop *c, uint64_t now_ms);
uint64_t bh_session_beat_at(const struct bellhop *c);

/* request.c */
struct bh_request *bh_request_new(struct bellhop *c, enum bh_request_kind kind);
/* A rid that nothing uses. */
uint32_t bh_rid_next(struct bellhop *c);
/* Takes the request with that rid out; the caller owns it. NULL: there is none. */
struct bh_request *bh_request_take(struct bellhop *c, uint32_t rid);
/* Tells a request's owner about its failure and frees it. */
void bh_request_fail(struct bh_request *r, int error, const char *message);
void bh_request_free(struct bh_request *r);
/* Takes a request out; its owner hears of the failure in bh_requests_finish. */
void bh_request_fail_later(struct bellhop *c, struct bh_request *r, int error, const char *message);
/* The same with every request of a list, and BELLHOP_ECLOSED. */
void bh_requests_fail_later(struct bellhop *c, struct list *requests);
/* Everything unanswered fails with BELLHOP_ECLOSED, later, in bh_requests_finish; what still waits
 * to be sent only when `also_waiting`. */
void bh_requests_lost(struct bellhop *c, bool also_waiting);
void bh_requests_finish(struct bellhop *c);
/* Moves what waits for a connection into its buffer. */
void bh_requests_send(struct bellhop *c);
/* Queues a request that was encoded, or frees it. 0, or what the user's call returns. */
int bh_request_queue(struct bellhop *c, struct bh_request *r, bool encoded);
/* A clock that only goes forward, also while the loop is not run. */
uint64_t bh_clock_ms(void);

/* publish.c: what is relative to the asking becomes the broker's wall time. False: the frame cannot
 * be made. */
bool bh_publish_resolve(struct bellhop *c, struct bh_request *r);

/* wait.c */
/* Sends what is due and gives up what was never sent within its time. */
void bh_waits_send(struct bellhop *c);
/* When bh_waits_send is due; BH_NEVER: it is not. */
uint64_t bh_waits_at(struct bellhop *c);
/* The connection is lost: they are asked again, or (for_good) fail later. */
void bh_waits_lost(struct bellhop *c, bool for_good);
/* JOB_EVENT; takes the request. */
void bh_waited(struct bellhop *c, struct bh_request *r, const struct frame *f);

/* sub.c */
/* A copy of what came; sub NULL: it is nobody's to settle. free() frees it. */
struct bellhop_event *bh_event_new(struct bellhop_sub *s, const struct frame_item *item);
bool bh_name_is_usable(const char *name);
void bh_sub_ended(struct bellhop_sub *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Takes the items of a DELIVER. Not NULL: what the peer did wrong. */
const char *bh_sub_deliver(struct bellhop_sub *s, const struct frame *f);
/* The attachment is gone: what was queued is dropped. What the handler has and what it settled is
 * kept, to be claimed (reason NULL), or becomes an orphan for that reason. */
void bh_sub_detach(struct bellhop_sub *s, const char *reason);
void bh_sub_pump(struct bellhop_sub *s);
/* The handler could take another event right now. */
bool bh_sub_can_pump(const struct bellhop_sub *s);
/* It takes no events: what it does not have yet is to be given back. */
bool bh_sub_is_shut(const struct bellhop_sub *s);
void bh_sub_release_queue(struct bellhop_sub *s);
void bh_sub_free(struct bellhop_sub *s);
struct bellhop_sub *bh_sub_find(struct bellhop *c, uint32_t id);

/* attach.c: SUBSCRIBE and claims, the window, STATE. */
void bh_sub_ask(struct bellhop_sub *s);
/* It is to be asked for now. */
bool bh_sub_wants(const struct bellhop_sub *s);
/* SUBSCRIBED. Not NULL: what the peer did wrong. */
const char *bh_sub_attached(struct bellhop_sub *s, const struct frame *f);
/* It is attached and knows about every claim: what was settled may be said. */
bool bh_sub_is_on(const struct bellhop_sub *s);
/* Some claims were answered: when that were all, those that stayed go on. */
void bh_sub_claims_answered(struct bellhop_sub *s);
/* Writes WINDOW and STATE where they are due. */
void bh_sub_write(struct bellhop_sub *s);
void bh_sub_stated(struct bellhop *c, struct bellhop_sub *s, const struct frame *f);

/* lease.c: renewing, LEASE and REVOKE. */
void bh_sub_revoke(struct bellhop_sub *s, const struct frame *f);
void bh_sub_lease_soon(struct bellhop_sub *s, const struct frame *f);
/* Calls on_revoked and on_lease_soon where they are due. */
void bh_sub_tell(struct bellhop_sub *s);
/* When leases are to be renewed; BH_NEVER: there are none. */
uint64_t bh_sub_extend_at(const struct bellhop_sub *s);
void bh_sub_extend_due(struct bellhop_sub *s, uint64_t now_ms);
void bh_sub_extend_afresh(struct bellhop_sub *s);
/* The event is not ours any more. */
void bh_event_orphan(struct bellhop_event *e, const char *reason);
bool bh_ranges_have(const struct frame_range *ranges, size_t count, uint64_t tag);

/* settle.c */
void bh_tags_add(struct bh_tags *t, uint64_t tag);
/* Sorts and merges; out has room for t->len ranges. Returns how many there are. */
size_t bh_tags_ranges(struct bh_tags *t, struct frame_range *out);
/* Writes the ACK and NACK frames of what was settled. */
void bh_settle_send(struct bellhop_sub *s);
/* The connection is lost: what was written may not have arrived, and is to be written again. */
void bh_settle_again(struct bellhop *c);
/* Nobody can be told any more. */
void bh_settle_forget(struct bellhop_sub *s);
/* The broker says that these tags mean nothing. How many of them were still to be written. */
size_t bh_settle_drop(struct bellhop_sub *s, const struct frame_range *ranges, size_t count);
/* Gives up one settlement that could not be claimed. */
void bh_settle_lost(struct bellhop_sub *s, struct bh_settlement *x);
void bh_settled(struct bh_request *r, const struct frame *f);
void bh_confirms_fail(struct list *confirms, int error, bool stale);
/* The PING that tells when settlements need not be remembered: when it is due, sending it, and its
 * PONG. */
uint64_t bh_barrier_at(const struct bellhop *c);
void bh_barrier_due(struct bellhop *c, uint64_t now_ms);
void bh_barrier_passed(struct bellhop *c);

#endif
