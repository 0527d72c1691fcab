/* session.h: one connection of the worker protocol; for the files of workers/ only.
 *
 * GREETING --"BHP1"--> HELLO --HELLO frame--> OPEN --fatal error, CLOSE, end--> CLOSING
 *
 * Owned by the room, found by its id (the handle in routes), freed when its stream has closed. A
 * sub is the client's number for an attachment; the entry is there from SUBSCRIBE on and goes when
 * it is refused, ended, or unsubscribed and answered: an effect for an attachment that has no entry
 * is late and means nothing. Frames are collected in `out` and go to the stream once per turn. */
#ifndef WORKERS_SESSION_H
#define WORKERS_SESSION_H

#include "base/list.h"
#include "base/map.h"
#include "broker/workers/workers.h"
#include "proto/frame.h"

enum session_state { SESSION_GREETING, SESSION_HELLO, SESSION_OPEN, SESSION_CLOSING };

struct session_sub {
    uint32_t sub;
    uint32_t attach_rid; /* of the SUBSCRIBE */
    uint64_t attachment;
    bool answered; /* SUBSCRIBED was sent */
    bool gone;     /* unsubscribed before that: kept for the answer only */
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
    struct session_sub subs[LIMIT_SUBSCRIPTIONS_PER_SESSION];
    size_t subs_count;
    uint64_t opened_ms, heard_ms, sent_ms, heartbeat_ms;
    bool held;           /* its socket does not drain: nothing is handed out */
    bool draining;       /* it asked for DRAIN, or the broker stops */
    bool drain_answer;   /* DRAINED is owed */
    const char *goodbye; /* close when this turn's answers are out, for this reason; or NULL */
    uint32_t drain_rid;
};

struct workers {
    struct workers_options options;
    struct listener *listener;
    struct loop_timer *sweep;
    struct list sessions, touched;
    size_t sessions_count;
    struct map by_id;
    uint64_t next_session, next_attachment;
    struct frame_decoder *decoder; /* one for all: a frame is worked on before the next is read */
    bool ending;                   /* what closes now does so because the broker stops */
    /* Scratch for one command. */
    struct tag_range ranges[LIMIT_RANGES];
    uint64_t seqs[LIMIT_PUBLISH_EVENTS];
    bool duplicates[LIMIT_PUBLISH_EVENTS];
};

struct session *session_new(struct workers *w, struct stream *s);
/* Marks it to be looked at when the turn ends. */
void session_touch(struct session *s);
/* Answers with ERR; a fatal one also ends the session. */
void session_error(struct session *s, uint32_t rid, enum err err, const char *message, bool fatal);
/* Ends an unfinished DELIVER, so that another frame can follow. */
void session_end_deliver(struct session *s);
/* Where a frame is encoded: out, with no DELIVER open. */
struct buf *session_out(struct session *s);
/* Ends it in order: what was asked for in this turn is still answered. No frame is read after. */
void session_goodbye(struct session *s, const char *why);
/* Closes now, with what is in `out`. */
void session_close(struct session *s, const char *why);
/* Gives the frames to the stream. */
void session_flush(struct session *s);
/* Lets nothing be handed out, or again. */
void session_hold(struct session *s, bool hold);
struct session_sub *session_sub_find(struct session *s, uint32_t sub);
void session_sub_remove(struct session *s, struct session_sub *entry);
struct engine_time workers_time(const struct workers *w);
void workers_step(struct workers *w, const struct command *c);

/* requests.c: works on one decoded frame of an open session. */
void session_request(struct session *s, const struct frame *f);
/* requests.c: detaches everything. */
void session_detach_all(struct session *s, enum detach_kind how);
/* effects.c */
void session_effect(struct session *s, const struct effect *effect);

#endif
