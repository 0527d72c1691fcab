/* frame.h: the frames of the worker protocol as structs and as bytes (docs/protocol.md).
 *
 * On the wire a frame is a u32 big-endian length and then one msgpack array [op, rid, ...]. Both
 * ends use this file: the broker's sessions and libbellhop. Encoders append a whole frame, length
 * included, to a buf; when the buf refuses (overflow) nothing of the frame is left in it. The
 * decoder is owned by a connection; what it returns borrows from the bytes it was given and from
 * its own arrays until the next decode. Decoding verifies every type, range and length: a frame
 * that comes out well is well formed, whoever sent it.
 *
 * Rules of growth: fields after the known ones are ignored; unknown map keys are ignored; an
 * unknown op decodes as FRAME_UNKNOWN with its rid, so that it can be answered.
 *
 * May call: base, proto/limits.h, proto/err.h, msgpack-c (only frame_encode.c includes msgpack.h;
 * reading is ours, because msgpack-c allocates by the lengths that a peer claims). */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include "base/buf.h"
#include "base/event.h"
#include "proto/err.h"

#define FRAME_GREETING       "BHP1" /* first bytes of a client, before its first frame */
#define FRAME_GREETING_BYTES 4
#define FRAME_VERSION        1

enum frame_op {
    FRAME_UNKNOWN = 0,
    /* client to broker */
    FRAME_HELLO = 1,
    FRAME_AUTH = 2,
    FRAME_SUBSCRIBE = 3,
    FRAME_WINDOW = 4,
    FRAME_ACK = 5,
    FRAME_NACK = 6,
    FRAME_EXTEND = 7,
    FRAME_UNSUBSCRIBE = 8,
    FRAME_PUBLISH = 9,
    FRAME_REPLAY = 10,
    FRAME_REDRIVE = 11,
    FRAME_PING = 13, /* both ways */
    FRAME_PONG = 14, /* both ways */
    FRAME_DRAIN = 15,
    FRAME_CLOSE = 16,
    FRAME_WAIT = 17,
    /* broker to client */
    FRAME_WELCOME = 64,
    FRAME_OK = 65,
    FRAME_ERR = 66,
    FRAME_SUBSCRIBED = 67,
    FRAME_DELIVER = 68,
    FRAME_SETTLED = 69,
    FRAME_LEASE = 70,
    FRAME_REVOKE = 71,
    FRAME_STATE = 72, /* both ways */
    FRAME_PUBLISHED = 73,
    FRAME_DRAINED = 74,
    FRAME_QUIET = 76,
    FRAME_GOAWAY = 77,
    FRAME_ENDED = 78,
    FRAME_JOB_EVENT = 79,
    FRAME_CHALLENGE = 80,
};

/* Inclusive tag ranges. */
struct frame_range {
    uint64_t lo, hi;
};

enum frame_nack_kind {
    FRAME_NACK_RELEASE = 0,   /* not tried: ready again at once (or after delay), no fail counted */
    FRAME_NACK_FAIL = 1,      /* tried and failed: a fail, then backoff (or delay) */
    FRAME_NACK_REJECT = 2,    /* will never work: dead letter now */
    FRAME_NACK_ELSEWHERE = 3, /* not by this worker for the delay: no fail counted */
};

#define FRAME_DELAY_POLICY UINT64_MAX /* nil on the wire: the subscription's backoff decides */

/* What a worker says about a failure; each part may be empty. On the wire nil, a str (the message)
 * or [type, message, detail]. */
struct frame_failure {
    struct slice type, message, detail;
};

/* A delivery that a worker still holds from before its connection was lost. */
struct frame_claim {
    uint64_t tag, seq, flags; /* FRAME_FLAG_... of its DELIVER */
};

#define FRAME_FLAG_REPLAY      1u /* delivered by a replay */
#define FRAME_FLAG_REDELIVERED 2u /* handed out before */
#define FRAME_FLAG_REDRIVEN    4u /* came back from the dead letters */

struct frame_item { /* of DELIVER */
    uint64_t tag;
    uint32_t fails, deliveries, flags;
    struct event event;
};

struct frame {
    int op; /* enum frame_op; FRAME_UNKNOWN: op_raw says which */
    uint64_t op_raw;
    uint32_t rid;
    uint32_t
        sub; /* SUBSCRIBE .. EXTEND, UNSUBSCRIBE, DELIVER, SETTLED, LEASE, REVOKE, STATE, ENDED */
    const struct frame_range *ranges; /* ACK, NACK, EXTEND, LEASE, REVOKE; SETTLED: the ok ones */
    size_t ranges_count;
    union {
        struct {
            uint64_t version_min, version_max;
            struct slice client_name, client_version;
            uint64_t heartbeat_ms; /* proposed; 0: broker's default */
            uint64_t resume_ms;    /* keep leases so long when the connection is lost; 0: do not */
            struct slice resume; /* the session (of its WELCOME) that this one goes on; or empty */
        } hello;
        struct {
            struct slice mechanism, key_id, proof;
            struct slice nonce; /* the client's */
        } auth;
        struct {
            struct slice name;
            uint64_t window_events, window_bytes;
            uint64_t concurrency; /* handlers that run at once; 0: as many as the window */
            uint64_t lease_ms;    /* for this worker; 0: the subscription's */
            struct slice create;  /* policy as JSON text, to create it by; empty: do not */
            const struct frame_claim *claims; /* by rising tag */
            size_t claims_count;
        } subscribe;
        struct {
            uint64_t events, bytes;
        } window;
        struct {
            bool confirm;
        } ack;
        struct {
            enum frame_nack_kind kind;
            uint64_t delay_ms; /* or FRAME_DELAY_POLICY */
            struct frame_failure failure;
            bool confirm;
        } nack;
        struct {
            uint64_t lease_ms; /* from now; 0: the subscription's */
            bool confirm;
        } extend;
        struct {
            const struct event *events; /* seq, source, received_at_ms, headers are not carried */
            size_t count;
        } publish;
        struct {
            struct slice name;
            uint64_t from_seq, to_seq;         /* 0: not given */
            uint64_t from_time_ms, to_time_ms; /* 0: not given */
            struct slice filter;               /* JSON text, or empty */
            uint64_t rate_per_s;               /* 0: no limit */
            bool dry_run;                      /* count only */
        } replay;
        struct {
            struct slice name;
            uint64_t seq;        /* that one; 0: all that match */
            struct slice filter; /* JSON text, or empty */
            uint64_t rate_per_s; /* 0: no limit */
        } redrive;
        struct {
            struct slice id;           /* the job's */
            const struct slice *types; /* globs; none: whatever is final or requires_action */
            size_t types_count;
            uint64_t after_seq; /* only events above it */
            uint64_t timeout_ms;
        } wait;
        struct {
            bool watch;  /* request: also tell when it changes */
            bool answer; /* decoded from one; else it is a request */
            uint64_t ready, leased, delayed, blocked, dead, backlog, oldest_ms;
            double in_per_s, out_per_s;
            bool paused;
            struct slice why_idle;
        } state;
        struct {
            uint64_t version;
            struct slice server, session, nonce, auth; /* auth: "none", or by what it was */
            uint64_t heartbeat_ms, frame_max_bytes, now_ms;
            uint64_t resume_ms; /* granted */
        } welcome;
        struct {
            uint64_t value; /* id of the replay or redrive; 0 where there is nothing to say */
        } ok;
        struct {
            int number; /* enum err, or a newer broker's */
            struct slice word, message;
            uint64_t retry_ms; /* 0: do not retry the same */
            bool fatal;        /* the connection closes */
        } err;
        struct {
            uint64_t lease_ms, backlog; /* backlog: journal positions not read yet */
            uint64_t resumed;           /* claims that were granted; the others come in REVOKE */
            bool created;
        } subscribed;
        struct {
            uint64_t lease_ms;
            const struct frame_item *items;
            size_t count;
        } deliver;
        struct {
            const struct frame_range *already, *stale;
            size_t already_count, stale_count;
        } settled;
        struct {
            uint64_t remaining_ms;
        } lease;
        struct {
            struct slice reason;
        } revoke;
        struct {
            const uint64_t *seqs;
            const bool *duplicates;
            size_t count;
        } published;
        struct {
            struct slice reason;
            uint64_t deadline_ms; /* from now: then GOAWAY comes */
        } quiet;
        struct {
            struct slice reason;
            uint64_t reconnect_ms;
        } goaway;
        struct {
            int number;
            struct slice message;
        } ended;
        struct {
            struct slice mechanism, nonce; /* the broker's */
        } challenge;
        struct {
            struct slice state; /* of the job: "pending" ... */
            bool overdue;
            uint64_t seq; /* of the event; 0: none came within the time */
            /* Its delivery's fields are 0. NULL: none came, or it is gone from the journal. */
            const struct frame_item *item;
        } job_event;
    } u;
};

/* Owns the arrays that a decoded frame borrows. They are good until its next decode, so one decoder
 * may serve all connections of a thread. */
struct frame_decoder;
struct frame_decoder *frame_decoder_new(void);
void frame_decoder_free(struct frame_decoder **d);

/* Looks at the first bytes of a stream (after the greeting). 1: a whole frame is there, *frame_len
 * bytes with its prefix; 0: more bytes are needed; ERR_FRAME_TOO_BIG as a negative number: the
 * prefix claims more than max_bytes. */
int frame_split(struct slice in, size_t max_bytes, size_t *frame_len);

/* Decodes one whole frame (with its prefix). 0: *why is "". Else *why is a static text that says
 * which field; f->rid and f->op_raw are set when they could be read, else 0. ERR_BAD_FRAME is the
 * one that is fatal. A client's frame may also be ERR_INVALID_REQUEST, ERR_TOO_LARGE,
 * ERR_LIMIT_EXCEEDED or ERR_WINDOW_TOO_LARGE: well formed, but with a value that no broker takes;
 * what the broker sends is only held to its types. Not looked at: whether metadata, policies and
 * filters are JSON, whether tags and names exist, deliver_at_ms, resume_ms. After an error nothing
 * else of f may be used.
 * Decoded events have project 0. */
enum err frame_decode(struct frame_decoder *d, struct slice frame, struct frame *f,
                      const char **why);

/* Encoders: one per frame, in the order of the ops. False: the buf is full, nothing was added. */
bool frame_encode_hello(struct buf *b, uint32_t rid, const char *client_name,
                        const char *client_version, uint64_t heartbeat_ms, uint64_t resume_ms,
                        struct slice resume);
bool frame_encode_auth(struct buf *b, const struct frame *f);      /* rid, u.auth */
bool frame_encode_subscribe(struct buf *b, const struct frame *f); /* rid, sub, u.subscribe */
bool frame_encode_window(struct buf *b, uint32_t rid, uint32_t sub, uint64_t events,
                         uint64_t bytes);
bool frame_encode_ack(struct buf *b, uint32_t rid, uint32_t sub, const struct frame_range *ranges,
                      size_t count, bool confirm);
/* failure: NULL says nothing. */
bool frame_encode_nack(struct buf *b, uint32_t rid, uint32_t sub, const struct frame_range *ranges,
                       size_t count, enum frame_nack_kind kind, uint64_t delay_ms,
                       const struct frame_failure *failure, bool confirm);
bool frame_encode_extend(struct buf *b, uint32_t rid, uint32_t sub,
                         const struct frame_range *ranges, size_t count, uint64_t lease_ms,
                         bool confirm);
bool frame_encode_unsubscribe(struct buf *b, uint32_t rid, uint32_t sub);
bool frame_encode_publish(struct buf *b, uint32_t rid, const struct event *events, size_t count);
bool frame_encode_replay(struct buf *b, const struct frame *f);  /* rid, u.replay */
bool frame_encode_redrive(struct buf *b, const struct frame *f); /* rid, u.redrive */
bool frame_encode_state_request(struct buf *b, uint32_t rid, uint32_t sub, bool watch);
bool frame_encode_wait(struct buf *b, const struct frame *f); /* rid, u.wait */
/* PING, PONG, DRAIN, CLOSE, DRAINED: frames of nothing but op and rid. */
bool frame_encode_plain(struct buf *b, enum frame_op op, uint32_t rid);
bool frame_encode_welcome(struct buf *b, uint32_t rid, const struct frame *f);
bool frame_encode_challenge(struct buf *b, uint32_t rid, struct slice mechanism,
                            struct slice nonce);
bool frame_encode_ok(struct buf *b, uint32_t rid, uint64_t value);
bool frame_encode_err(struct buf *b, uint32_t rid, enum err err, struct slice message, bool fatal);
bool frame_encode_subscribed(struct buf *b, const struct frame *f); /* rid, sub, u.subscribed */
bool frame_encode_settled(struct buf *b, uint32_t rid, uint32_t sub, const struct frame_range *ok,
                          size_t ok_count, const struct frame_range *already, size_t already_count,
                          const struct frame_range *stale, size_t stale_count);
bool frame_encode_lease(struct buf *b, uint32_t sub, const struct frame_range *ranges, size_t count,
                        uint64_t remaining_ms);
bool frame_encode_state(struct buf *b, const struct frame *f); /* rid, sub, u.state */
bool frame_encode_quiet(struct buf *b, const char *reason, uint64_t deadline_ms);
bool frame_encode_revoke(struct buf *b, uint32_t sub, const struct frame_range *ranges,
                         size_t count, const char *reason);
bool frame_encode_published(struct buf *b, uint32_t rid, const uint64_t *seqs,
                            const bool *duplicates, size_t count);
bool frame_encode_goaway(struct buf *b, const char *reason, uint64_t reconnect_ms);
bool frame_encode_ended(struct buf *b, uint32_t sub, enum err err, struct slice message);
bool frame_encode_job_event(struct buf *b, const struct frame *f); /* rid, u.job_event */

/* DELIVER is built piece by piece: begin, one or more items, end. The frame is in the buf only
 * when end has returned; an item that the buf refuses takes the whole frame out again. */
struct frame_deliver {
    struct buf *b;
    size_t start, count_at; /* offsets of the frame and of its item count */
    uint32_t count;
}; /* After a refusal b is NULL: adding to it is false, ending it does nothing. */
bool frame_deliver_begin(struct frame_deliver *d, struct buf *b, uint32_t sub, uint64_t lease_ms);
bool frame_deliver_add(struct frame_deliver *d, const struct frame_item *item);
void frame_deliver_end(struct frame_deliver *d);

#endif
