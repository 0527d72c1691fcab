#include "broker/workers/workers.h"

#include <stdlib.h>

#include "base/log.h"
#include "broker/workers/session.h"

#define SWEEP_MS     1000 /* heartbeats, handshakes and what is watched are looked at this often */
#define RECONNECT_MS 1000 /* after GOAWAY: about what a restart takes */

static const char stopping_text[] = "the broker is stopping";

static void on_accept(void *ctx, struct stream *stream) {
    session_new(ctx, stream);
}

static void sweep_session(struct session *s, uint64_t now_ms) {
    if (s->state == SESSION_CLOSING) return;
    if (s->state != SESSION_OPEN) {
        if (now_ms - s->opened_ms >= LIMIT_HANDSHAKE_MS) {
            session_error(s, 0, ERR_TIMEOUT, "no HELLO and AUTH within 5 seconds", true);
        }
        return;
    }
    session_check_expiry(s);
    if (s->state != SESSION_OPEN) return;
    if (now_ms - s->heard_ms >= 3 * s->heartbeat_ms) {
        session_error(s, 0, ERR_TIMEOUT, "no sign of life for three heartbeats", true);
    } else if (now_ms - s->sent_ms >= s->heartbeat_ms) {
        frame_encode_plain(session_out(s), FRAME_PING, 0);
        session_touch(s);
    }
    if (s->state == SESSION_OPEN && s->goodbye == NULL) session_state_watch(s);
}

/* The process stood still itself: what its peers said meanwhile is not read yet. */
static void forgive_silence(struct session *s, uint64_t stood_ms, uint64_t now_ms) {
    s->heard_ms = s->heard_ms + stood_ms < now_ms ? s->heard_ms + stood_ms : now_ms;
    s->opened_ms = s->opened_ms + stood_ms < now_ms ? s->opened_ms + stood_ms : now_ms;
}

static void on_sweep(void *ctx) {
    struct workers *w = ctx;
    uint64_t now_ms = loop_now_ms(w->options.loop);
    uint64_t late_ms = now_ms - w->swept_ms > SWEEP_MS ? now_ms - w->swept_ms - SWEEP_MS : 0;
    w->swept_ms = now_ms;
    LIST_FOR(n, next, &w->sessions) {
        struct session *s = CONTAINER_OF(n, struct session, in_room);
        if (late_ms >= SWEEP_MS) forgive_silence(s, late_ms, now_ms);
        sweep_session(s, now_ms);
    }
}

static void on_key_ended(void *ctx, uint64_t number) {
    struct workers *w = ctx;
    LIST_FOR(n, next, &w->sessions) {
        struct session *s = CONTAINER_OF(n, struct session, in_room);
        if (s->state != SESSION_OPEN || s->key != number) continue;
        s->resume_ms = 0; /* nobody comes back for what it holds */
        session_error(
            s, 0, ERR_UNAUTHENTICATED,
            number == 0 ? "this broker asks for a key from now on" : "the key was revoked", true);
    }
}

static void use_tls(struct workers *w) {
    if (w->options.tls == NULL) return;
    struct slice message = slice_str("this port speaks TLS: connect with bellhops://");
    bool ok = frame_encode_err(&w->plain, 0, ERR_INVALID_REQUEST, message, true);
    CHECK(ok);
    listener_set_tls(w->listener,
                     &(struct listener_tls){w->options.tls, "bellhop/1", buf_slice(&w->plain)});
}

int workers_open(struct workers **out, const struct workers_options *options, const char *address,
                 uint16_t *port, char *error, size_t error_size) {
    struct workers *w = mem_zalloc(sizeof *w);
    w->options = *options;
    w->next_session = w->next_attachment = 1;
    list_init(&w->sessions);
    list_init(&w->touched);
    map_init(&w->by_id);
    map_init(&w->by_number);
    arena_init(&w->arena);
    buf_init(&w->plain, 1 * KIB);
    w->decoder = frame_decoder_new();
    auth_watch(options->auth, on_key_ended, w);
    int err =
        listener_open(options->loop, address, on_accept, w, &w->listener, port, error, error_size);
    if (err != 0) {
        workers_close(&w);
        return err;
    }
    use_tls(w);
    w->swept_ms = loop_now_ms(options->loop);
    w->sweep = loop_timer_start(options->loop, SWEEP_MS, SWEEP_MS, on_sweep, w);
    *out = w;
    return 0;
}

void workers_drain(struct workers *w, uint64_t drain_ms) {
    listener_close(&w->listener);
    w->stopping = true;
    LIST_FOR(n, next, &w->sessions) {
        struct session *s = CONTAINER_OF(n, struct session, in_room);
        if (s->state == SESSION_CLOSING) continue;
        if (s->state != SESSION_OPEN) {
            session_error(s, 0, ERR_SHUTTING_DOWN, stopping_text, true);
            continue;
        }
        session_hold(s, s->held);
        frame_encode_quiet(session_out(s), stopping_text, drain_ms);
        session_touch(s);
    }
}

void workers_end(struct workers *w) {
    w->stopping = true;
    listener_close(&w->listener);
    loop_timer_stop(&w->sweep);
    LIST_FOR(n, next, &w->sessions) {
        struct session *s = CONTAINER_OF(n, struct session, in_room);
        if (s->state == SESSION_OPEN && s->goodbye == NULL) session_goaway(s);
        else session_let_go(s, stopping_text);
    }
}

void workers_close(struct workers **out) {
    struct workers *w = *out;
    if (w == NULL) return;
    CHECK(w->sessions_count == 0);
    frame_decoder_free(&w->decoder);
    map_free(&w->by_id);
    map_free(&w->by_number);
    arena_free(&w->arena);
    buf_free(&w->plain);
    free(w);
    *out = NULL;
}

struct engine_time workers_time(const struct workers *w) {
    return (struct engine_time){loop_now_ms(w->options.loop), loop_wall_ms(w->options.loop)};
}

void workers_step(struct workers *w, const struct command *c) {
    engine_step(w->options.engine, workers_time(w), c);
}

void workers_on_effect(struct workers *w, const struct effect *effect) {
    struct session *s = map_get(&w->by_id, effect->route.handle);
    if (s == NULL || s->state != SESSION_OPEN) return; /* its client has gone */
    session_effect(s, effect);
}

/* Nothing that the session holds waits for its word. */
static bool is_settled(const struct session *s) {
    for (size_t i = 0; i < s->subs_count; i++) {
        uint64_t attachment = s->subs[i].attachment;
        if (engine_attachment_unsettled(s->room->options.engine, attachment) > 0) return false;
    }
    return true;
}

/* DRAIN is answered when the last delivery was settled. */
static void answer_drain(struct session *s) {
    if (!s->drain_answer || !is_settled(s)) return;
    s->drain_answer = false;
    frame_encode_plain(session_out(s), FRAME_DRAINED, s->drain_rid);
}

/* A session that may resume has nothing to wait for: it takes its leases along. */
static bool may_leave(const struct session *s) {
    return s->resume_ms > 0 || is_settled(s);
}

static void end_session_turn(struct session *s) {
    if (s->state == SESSION_OPEN) {
        answer_drain(s);
        if (s->room->stopping && s->goodbye == NULL && may_leave(s)) session_goaway(s);
    }
    if (s->state == SESSION_CLOSING || s->goodbye == NULL) {
        session_flush(s);
        return;
    }
    if (s->goaway) frame_encode_goaway(session_out(s), stopping_text, RECONNECT_MS);
    session_close(s, s->goodbye);
}

void workers_on_turn(struct workers *w) {
    struct list *n;
    while ((n = list_first(&w->touched)) != NULL) {
        struct session *s = CONTAINER_OF(n, struct session, in_touched);
        end_session_turn(s);
        list_unlink(n);
    }
}

size_t workers_sessions(const struct workers *w) {
    return w->sessions_count;
}
