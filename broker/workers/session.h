/* session.h: one connection of the worker protocol; for the files of workers/ only.
 *
 * GREETING --"BHP1"--> HELLO --HELLO frame--> OPEN --fatal error, CLOSE, end, GOAWAY--> CLOSING
 * and, where the broker has keys, HELLO --HELLO frame--> AUTH --AUTH frame--> OPEN. Before OPEN a
 * session has nothing, and names nothing: a token in HELLO is looked at only then.
 *
 * Owned by the room, found by its id (the handle in routes), freed when its stream has closed. A
 * sub is the client's number for an attachment; the entry is there from SUBSCRIBE on and goes when
 * it is refused, ended, or unsubscribed and answered: an effect for an attachment that has no entry
 * is late and means nothing. Frames are collected in `out` and go to the stream once per turn.
 *
 * The token of WELCOME is the session's secret name; the engine knows its 64-bit hash. A session
 * that asked for resume_ms leaves its leases standing when its connection is lost; the next one
 * names the token in HELLO and claims them. */
#ifndef WORKERS_SESSION_H
#define WORKERS_SESSION_H

#include "base/arena.h"
#include "base/list.h"
#include "base/map.h"
#include "broker/auth/auth.h"
#include "broker/workers/workers.h"
#include "proto/frame.h"

#define SESSION_TOKEN_BYTES 16 /* of randomness; on the wire as hex */

enum session_state { SESSION_GREETING, SESSION_HELLO, SESSION_AUTH, SESSION_OPEN, SESSION_CLOSING };

/* What a STATE frame says. */
struct sub_state {
    uint64_t ready, leased, delayed, blocked, dead, backlog, oldest_ms;
    double in_per_s, out_per_s;
    bool paused;
    enum why_idle why_idle;
};

struct session_sub {
    uint32_t sub;
    uint32_t attach_rid; /* of the SUBSCRIBE */
    uint64_t attachment;
    uint8_t name_len;
    char name[LIMIT_NAME_BYTES]; /* of the subscription, for STATE */
    bool answered;               /* SUBSCRIBED was sent */
    bool gone;                   /* unsubscribed before that: kept for the answer only */
    bool watched;                /* STATE asked to hear of changes */
    struct sub_state told;       /* watched: what the last STATE said */
};

/* A LEASE or REVOKE that grows while tags follow each other. */
struct session_notice {
    int op; /* FRAME_LEASE or FRAME_REVOKE; 0: there is none */
    uint32_t sub;
    struct frame_range range;
    uint64_t remaining_ms; /* LEASE */
    const char *reason;    /* REVOKE: static */
};

struct session {
    struct workers *room;
    struct stream *stream;
    uint64_t id;
    enum session_state state;
    struct list in_room;
    struct list in_touched; /* in room.touched: has output or something to look at this turn */
    struct buf in;          /* a frame that has not come whole */
    struct buf out;         /* frames of this turn */
    struct frame_deliver deliver; /* an unfinished DELIVER at the end of out */
    bool delivering;
    uint32_t deliver_sub;
    uint64_t deliver_lease_ms;
    struct session_notice notice;
    struct session_sub *subs;
    size_t subs_count, subs_cap; /* at most LIMIT_SUBSCRIPTIONS_PER_SESSION */
    struct list waits;           /* struct session_wait (waits.c) */
    size_t waits_count;          /* at most LIMIT_WAITS_PER_SESSION */
    uint64_t opened_ms, heard_ms, sent_ms, heartbeat_ms;
    uint64_t key;                               /* number of its key; 0: it came in without one */
    uint32_t project;                           /* of its key; from WELCOME on */
    uint8_t nonce[KEY_NONCE_BYTES];             /* of CHALLENGE */
    char resume[LIMIT_SESSION_TOKEN_BYTES + 1]; /* of HELLO, until WELCOME */
    char token[2 * SESSION_TOKEN_BYTES + 1];    /* "" before WELCOME */
    uint64_t number;     /* of the token: the engine's name for the session */
    uint64_t resumes;    /* the number of the session that this one goes on; or 0 */
    uint32_t resume_ms;  /* how long its leases outlive its connection; 0: not at all */
    bool held;           /* its socket does not drain: nothing is handed out */
    bool draining;       /* it asked for DRAIN */
    bool drain_answer;   /* DRAINED is owed */
    bool goaway;         /* the goodbye is the broker's: GOAWAY is its last frame */
    const char *goodbye; /* close when this turn's answers are out, for this reason; or NULL */
    uint32_t drain_rid;
};

struct workers {
    struct workers_options options;
    struct listener *listener;
    struct loop_timer *sweep;
    uint64_t swept_ms;
    struct list sessions, touched;
    size_t sessions_count;
    struct map by_id, by_number; /* sessions; by_number has those that got WELCOME */
    uint64_t next_session, next_attachment;
    struct frame_decoder *decoder; /* one for all: a frame is worked on before the next is read */
    struct buf plain;              /* what a peer without TLS is told when TLS is spoken here */
    bool stopping;                 /* the broker is: nothing is handed out, nobody comes in */
    /* Scratch for one command. */
    struct arena arena;
    struct tag_range ranges[LIMIT_RANGES];
    uint64_t seqs[LIMIT_PUBLISH_EVENTS];
    bool duplicates[LIMIT_PUBLISH_EVENTS];
};

struct session *session_new(struct workers *w, struct stream *s);
/* Marks it to be looked at when the turn ends. */
void session_touch(struct session *s);
/* Answers with ERR; a fatal one also ends the session. */
void session_error(struct session *s, uint32_t rid, enum err err, const char *message, bool fatal);
/* Ends what is being collected (DELIVER, LEASE, REVOKE), so that another frame can follow. */
void session_end_frame(struct session *s);
/* Where a frame is encoded: out, with nothing being collected. */
struct buf *session_out(struct session *s);
/* The engine's number of a project's token; never 0. */
uint64_t session_number(uint32_t project, struct slice token);
/* Ends it in order: what was asked for in this turn is still answered. No frame is read after. */
void session_goodbye(struct session *s, const char *why);
/* The same on the broker's behalf, with GOAWAY at the end. */
void session_goaway(struct session *s);
/* Closes now, with what is in `out`. */
void session_close(struct session *s, const char *why);
/* Its worker has a new connection: this one ends, and its leases wait to be claimed. */
void session_replace(struct session *s);
/* Gives up its attachments as one whose connection has ended; more than once does no harm. */
void session_let_go(struct session *s, const char *why);
/* Gives the frames to the stream. */
void session_flush(struct session *s);
/* Lets nothing be handed out, or again. */
void session_hold(struct session *s, bool hold);
struct session_sub *session_sub_find(struct session *s, uint32_t sub);
/* A new entry, zeroed. Pointers to other entries die. */
struct session_sub *session_sub_add(struct session *s);
void session_sub_remove(struct session *s, struct session_sub *entry);
struct engine_time workers_time(const struct workers *w);
void workers_step(struct workers *w, const struct command *c);

/* login.c: HELLO and AUTH of a session that is not open yet. */
void session_login(struct session *s, const struct frame *f);
/* login.c: its key; NULL: it needs none. The key of an open session is there. */
const struct key *session_key(const struct session *s);
/* login.c: whether its key has the scope and, unless name is empty, may touch that subscription;
 * false: refused. */
bool session_may(struct session *s, uint32_t rid, unsigned scope, struct slice name);
/* login.c: ends it when its key has expired. */
void session_check_expiry(struct session *s);
/* requests.c: works on one decoded frame of an open session. */
void session_request(struct session *s, const struct frame *f);
/* requests.c: detaches everything. */
void session_detach_all(struct session *s, enum detach_kind how);
/* effects.c */
void session_effect(struct session *s, const struct effect *effect);
/* waits.c: answers WAIT, now or later. */
void session_wait_request(struct session *s, const struct frame *f);
/* waits.c: the session ends: what it waits for is not answered. */
void session_waits_cancel(struct session *s);
/* state.c: answers STATE. */
void session_state_request(struct session *s, const struct frame *f, struct session_sub *entry);
/* state.c: tells what has changed in what it watches. */
void session_state_watch(struct session *s);

#endif
