/* session.c: a connection from greeting to end.
 *
 * The happy path: accept, "BHP1", HELLO, WELCOME, then frames: each is decoded, turned into a
 * command by requests.c and stepped at once; effects come back in the same or a later turn and are
 * encoded by effects.c; at the end of the turn the frames go to the stream.
 *
 * What can go wrong: the peer sends what is no frame (ERR, close); it is silent (ERR, close); it
 * does not read (hand-outs are held, then the stream closes it); it goes away at any time (what it
 * had started counts a fail, or, when it may resume, stays leased for a while). An effect that
 * comes after the session has gone finds no session. */
#include "broker/workers/session.h"

#include <stdlib.h>

#include "base/hash.h"
#include "base/log.h"

#define SMALL_BUF_BYTES 1024 /* an idle session keeps no larger buffer */

uint64_t session_number(uint32_t project, struct slice token) {
    uint64_t number = hash_bytes(project - PROJECT_DEFAULT, token);
    return number == 0 ? 1 : number; /* 0 is nobody's */
}

void session_let_go(struct session *s, const char *why) {
    if (s->subs_count == 0) return;
    if (s->room->stopping && s->resume_ms > 0) return; /* claimed again after the restart */
    log_info("workers: %s: %s: %zu attached subscriptions", stream_peer(s->stream), why,
             s->subs_count);
    session_detach_all(s, s->resume_ms > 0 ? DETACH_KEEP : DETACH_LOST);
}

void session_close(struct session *s, const char *why) {
    session_flush(s);
    s->state = SESSION_CLOSING;
    /* Nothing more is said or heard: what would be handed out from here on never arrives. */
    session_let_go(s, why);
    session_waits_cancel(s);
    stream_close_after_write(s->stream, why);
}

void session_replace(struct session *s) {
    static const char why[] = "its worker has connected again";
    if (s->state == SESSION_CLOSING) return;
    s->state = SESSION_CLOSING;
    session_let_go(s, why);
    session_waits_cancel(s);
    stream_close(s->stream, why);
}

void session_goaway(struct session *s) {
    if (s->resume_ms == 0) session_detach_all(s, DETACH_RELEASE);
    s->goaway = true;
    session_goodbye(s, "the broker is stopping");
}

void session_goodbye(struct session *s, const char *why) {
    if (s->goodbye == NULL) s->goodbye = why;
    session_touch(s);
}

static void drop_if_large(struct buf *b) {
    if (b->cap > SMALL_BUF_BYTES) buf_free(b);
    else buf_clear(b);
}

void session_touch(struct session *s) {
    if (list_empty(&s->in_touched)) list_push_back(&s->room->touched, &s->in_touched);
}

void session_end_frame(struct session *s) {
    const struct session_notice *n = &s->notice;
    if (s->delivering) {
        s->delivering = false;
        frame_deliver_end(&s->deliver);
    }
    if (n->op == FRAME_LEASE) {
        frame_encode_lease(&s->out, n->sub, &n->range, 1, n->remaining_ms);
    } else if (n->op == FRAME_REVOKE) {
        frame_encode_revoke(&s->out, n->sub, &n->range, 1, n->reason);
    }
    s->notice.op = 0;
}

struct buf *session_out(struct session *s) {
    session_end_frame(s);
    return &s->out;
}

void session_flush(struct session *s) {
    session_end_frame(s);
    if (s->out.overflow) {
        /* The frames of one turn pass 64 MiB: only a worker with very many windows can do that. */
        s->state = SESSION_CLOSING;
        stream_close(s->stream, "too much output in one turn");
        return;
    }
    if (s->out.len == 0) return;
    s->sent_ms = loop_now_ms(s->room->options.loop);
    stream_write(s->stream, buf_slice(&s->out));
    drop_if_large(&s->out);
    if (!s->held && stream_queued(s->stream) > LIMIT_WRITE_QUEUE_BYTES) session_hold(s, true);
}

void session_error(struct session *s, uint32_t rid, enum err err, const char *message, bool fatal) {
    frame_encode_err(session_out(s), rid, err, slice_str(message), fatal);
    session_touch(s);
    if (!fatal) return;
    log_info("workers: %s: %s: %s", stream_peer(s->stream), err_info((int)err).word, message);
    session_close(s, message);
}

void session_hold(struct session *s, bool hold) {
    s->held = hold;
    for (size_t i = 0; i < s->subs_count; i++) {
        struct command c = {.kind = COMMAND_HOLD};
        c.u.hold.attachment = s->subs[i].attachment;
        c.u.hold.hold = hold || s->draining || s->room->stopping;
        workers_step(s->room, &c);
    }
}

struct session_sub *session_sub_find(struct session *s, uint32_t sub) {
    for (size_t i = 0; i < s->subs_count; i++) {
        if (s->subs[i].sub == sub && !s->subs[i].gone) return &s->subs[i];
    }
    return NULL;
}

struct session_sub *session_sub_add(struct session *s) {
    CHECK(s->subs_count < LIMIT_SUBSCRIPTIONS_PER_SESSION);
    if (s->subs_count == s->subs_cap) {
        s->subs_cap = s->subs_cap == 0 ? 1 : 2 * s->subs_cap;
        s->subs = mem_realloc(s->subs, s->subs_cap * sizeof *s->subs);
    }
    struct session_sub *entry = &s->subs[s->subs_count++];
    *entry = (struct session_sub){0};
    return entry;
}

void session_sub_remove(struct session *s, struct session_sub *entry) {
    *entry = s->subs[--s->subs_count];
}

/* ---- the stream's callbacks ---- */

static void on_frame(struct session *s, struct slice bytes) {
    struct frame f;
    const char *why = "";
    enum err err = frame_decode(s->room->decoder, bytes, &f, &why);
    if (err != ERR_OK) {
        session_error(s, f.rid, err, why, err == ERR_BAD_FRAME || s->state != SESSION_OPEN);
        return;
    }
    if (s->state == SESSION_OPEN) session_request(s, &f);
    else session_login(s, &f);
}

/* Takes whole frames off the front. Returns the bytes used. */
static size_t take_frames(struct session *s, struct slice in) {
    size_t used = 0;
    if (s->state == SESSION_GREETING) {
        if (in.len < FRAME_GREETING_BYTES) return 0;
        if (memcmp(in.data, FRAME_GREETING, FRAME_GREETING_BYTES) != 0) {
            session_error(s, 0, ERR_BAD_VERSION,
                          "this is the worker port: a client begins with BHP1", true);
            return in.len;
        }
        s->state = SESSION_HELLO;
        used = FRAME_GREETING_BYTES;
    }
    while (s->state != SESSION_CLOSING && s->goodbye == NULL) {
        size_t max = s->state == SESSION_OPEN ? s->room->options.frame_max_bytes
                                              : LIMIT_FRAME_BYTES_BEFORE_AUTH;
        size_t len;
        int got = frame_split(slice_from(in, used), max, &len);
        if (got == 0) return used;
        if (got < 0) {
            session_error(s, 0, ERR_FRAME_TOO_BIG, "the frame's length passes the limit", true);
            break;
        }
        on_frame(s, slice_of(in.data + used, len));
        used += len;
    }
    return in.len;
}

static void on_data(void *ctx, struct slice bytes) {
    struct session *s = ctx;
    s->heard_ms = loop_now_ms(s->room->options.loop);
    if (s->in.len == 0) {
        size_t used = take_frames(s, bytes);
        if (used < bytes.len) buf_append_slice(&s->in, slice_from(bytes, used));
        return;
    }
    /* The maximum is a frame and one read more: take_frames keeps it from being reached. */
    bool fits = buf_append_slice(&s->in, bytes);
    CHECK(fits);
    size_t used = take_frames(s, buf_slice(&s->in));
    buf_consume(&s->in, used);
    if (s->in.len == 0) drop_if_large(&s->in);
}

static void on_eof(void *ctx) {
    struct session *s = ctx;
    session_goodbye(s, "closed by the worker");
}

static void on_drain(void *ctx) {
    struct session *s = ctx;
    if (s->held && s->state == SESSION_OPEN) session_hold(s, false);
}

static void on_close(void *ctx, const char *why) {
    struct session *s = ctx;
    struct workers *w = s->room;
    session_let_go(s, why);
    session_waits_cancel(s);
    list_unlink(&s->in_room);
    list_unlink(&s->in_touched);
    map_remove(&w->by_id, s->id);
    if (s->token[0] != '\0') map_remove(&w->by_number, s->number);
    w->sessions_count--;
    free(s->subs);
    buf_free(&s->in);
    buf_free(&s->out);
    free(s);
}

static const struct stream_ops session_ops = {
    .on_data = on_data,
    .on_eof = on_eof,
    .on_drain = on_drain,
    .on_close = on_close,
};

struct session *session_new(struct workers *w, struct stream *stream) {
    struct session *s = mem_zalloc(sizeof *s);
    s->room = w;
    s->stream = stream;
    s->id = w->next_session++;
    s->state = SESSION_GREETING;
    s->opened_ms = s->heard_ms = s->sent_ms = loop_now_ms(w->options.loop);
    buf_init(&s->in, w->options.frame_max_bytes + 1 * MIB);
    buf_init(&s->out, LIMIT_SESSION_OUT_BYTES);
    list_init(&s->in_touched);
    list_init(&s->waits);
    list_push_back(&w->sessions, &s->in_room);
    map_add(&w->by_id, s->id, s);
    w->sessions_count++;
    stream_attach(stream, &session_ops, s);
    return s;
}
