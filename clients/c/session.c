/* The conversation on a connection.
 *
 * The happy path: greeting and HELLO; where the broker asks for a key CHALLENGE and AUTH; WELCOME;
 * then frames of the broker until the end. Failures: anything that is not a frame, or not one that
 * fits the moment, is bh_broken; a fatal ERR, or silence for three heartbeats, is bh_lost; QUIET
 * takes no more events, GOAWAY drains and comes back later. */
#include "clients/c/client.h"

void bh_session_start(struct bellhop *c) {
    struct buf *out = bh_out(c);
    c->phase = BH_GREETING;
    c->heard_ms = c->sent_ms = bh_now_ms(c);
    c->deadline_ms = c->heard_ms + LIMIT_HANDSHAKE_MS;
    c->frame_in_max = LIMIT_FRAME_BYTES_BEFORE_AUTH;
    c->barrier_rid = 0;
    c->challenged = false;
    bool ok = buf_append_str(out, FRAME_GREETING);
    ok = ok && frame_encode_hello(out, 1, c->name, BELLHOP_VERSION, c->options.heartbeat_ms,
                                  c->options.resume_ms, slice_of(c->session, c->session_len));
    bh_encoded(c, ok);
}

/* What the broker says about going on later. Nothing: what was to be claimed is lost. */
static void take_session(struct bellhop *c, const struct frame *f) {
    struct slice session = f->u.welcome.session;
    bool granted = c->options.resume_ms > 0 && f->u.welcome.resume_ms > 0 && session.len > 0 &&
                   session.len <= sizeof c->session;
    c->session_len = 0;
    if (granted) {
        memcpy(c->session, session.data, session.len);
        c->session_len = session.len;
        return;
    }
    LIST_FOR(n, next, &c->subs) bh_sub_detach(CONTAINER_OF(n, struct bellhop_sub, node), "lost");
}

static void take_clock(struct bellhop *c, uint64_t broker_ms) {
    uv_timeval64_t wall;
    if (broker_ms == 0 && uv_gettimeofday(&wall) == 0) {
        broker_ms = (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_usec / 1000;
    }
    c->clock_ms = broker_ms - bh_clock_ms();
}

static void on_welcome(struct bellhop *c, const struct frame *f) {
    struct slice auth = f->u.welcome.auth;
    if (c->phase != BH_GREETING) {
        bh_broken(c, "a second WELCOME");
        return;
    }
    if (f->u.welcome.version != FRAME_VERSION) {
        bh_finish(c, BELLHOP_EPROTOCOL, "the broker speaks version %llu of the protocol",
                  (unsigned long long)f->u.welcome.version);
        return;
    }
    if (auth.len > 0 && !slice_eq_str(auth, "none") && !c->challenged) {
        bh_finish(c, BELLHOP_EREFUSED,
                  "the broker wants authentication (%.*s), which this client "
                  "does not know",
                  SLICE_ARG(auth));
        return;
    }
    uint64_t heartbeat_ms = f->u.welcome.heartbeat_ms, frame_max = f->u.welcome.frame_max_bytes;
    c->heartbeat_ms = heartbeat_ms == 0 ? LIMIT_HEARTBEAT_MS_DEFAULT : heartbeat_ms;
    if (c->heartbeat_ms < BH_PERIOD_MIN_MS) c->heartbeat_ms = BH_PERIOD_MIN_MS;
    if (c->heartbeat_ms > LIMIT_HEARTBEAT_MS_MAX) c->heartbeat_ms = LIMIT_HEARTBEAT_MS_MAX;
    c->frame_out_max = BH_FRAME_BYTES_MAX;
    if (frame_max > 0 && frame_max < c->frame_out_max) c->frame_out_max = (size_t)frame_max;
    c->frame_in_max = BH_FRAME_BYTES_MAX;
    take_session(c, f);
    take_clock(c, f->u.welcome.now_ms);
    c->phase = BH_READY;
    c->welcomed = true;
    c->ready_at_ms = bh_now_ms(c);
    bh_say(c, "connected");
}

static bool may_pass(int number) {
    return number == ERR_SHUTTING_DOWN || number == ERR_NO_ROOM || number == ERR_OVERLOADED;
}

/* An ERR that answers a request. */
static void request_refused(struct bellhop *c, struct bh_request *r, const struct frame *f,
                            const char *text) {
    if (r->kind == BH_DRAIN) c->drained = true;
    if (r->kind != BH_SUBSCRIBE) {
        bh_request_fail(r, BELLHOP_EREFUSED, text);
        return;
    }
    struct bellhop_sub *s = r->sub;
    bh_request_free(r);
    if (may_pass(f->u.err.number) && !f->u.err.fatal) {
        c->reconnect_ms = f->u.err.retry_ms;
        bh_lost(c, "subscription %s: %s", s->name, text);
    } else {
        bh_sub_ended(s, "%s", text);
    }
}

static void on_err(struct bellhop *c, const struct frame *f) {
    char text[BH_TEXT_BYTES];
    int number = f->u.err.number;
    snprintf(text, sizeof text, "%.*s: %.*s", SLICE_ARG(f->u.err.word),
             SLICE_ARG(f->u.err.message));
    if (c->phase == BH_GREETING) {
        c->reconnect_ms = f->u.err.retry_ms;
        if (number == ERR_UNAUTHENTICATED || number == ERR_BAD_VERSION ||
            number == ERR_INVALID_REQUEST) {
            bh_finish(c, BELLHOP_EREFUSED, "%s", text);
        } else {
            bh_lost(c, "%s", text);
        }
        return;
    }
    struct bh_request *r = f->rid == 0 ? NULL : bh_request_take(c, f->rid);
    if (r != NULL) request_refused(c, r, f, text);
    else bh_say(c, "refused: %s", text);
    if (!f->u.err.fatal || c->conn == NULL) return;
    if (number == ERR_UNAUTHENTICATED) bh_finish(c, BELLHOP_EREFUSED, "%s", text);
    else bh_lost(c, "%s", text);
}

static void on_goaway(struct bellhop *c, const struct frame *f) {
    c->reconnect_ms = f->u.goaway.reconnect_ms;
    if (c->leave == BH_STAY) c->leave = BH_LEAVE_GOAWAY;
    bh_say(c, "going away: %.*s", SLICE_ARG(f->u.goaway.reason));
}

static void on_quiet(struct bellhop *c, const struct frame *f) {
    c->quiet = true;
    bh_say(c, "quiet: %.*s", SLICE_ARG(f->u.quiet.reason));
}

static void on_published(struct bellhop *c, const struct frame *f) {
    struct bh_request *r = bh_request_take(c, f->rid);
    if (r == NULL || r->kind != BH_PUBLISH) {
        if (r != NULL) bh_request_fail(r, BELLHOP_EPROTOCOL, "another answer was due");
        if (c->conn != NULL) bh_broken(c, "PUBLISHED without a PUBLISH");
        return;
    }
    if (r->published != NULL) {
        r->published(r->ctx, 0, "", f->u.published.seqs, f->u.published.duplicates,
                     f->u.published.count);
    }
    bh_request_free(r);
}

static void on_settled(struct bellhop *c, const struct frame *f) {
    struct bh_request *r = bh_request_take(c, f->rid);
    if (r != NULL && r->kind == BH_SETTLE) {
        bh_settled(r, f);
        return;
    }
    if (r != NULL) bh_request_fail(r, BELLHOP_EPROTOCOL, "another answer was due");
    if (c->conn != NULL) bh_broken(c, "SETTLED without a settlement");
}

static void on_subscribed(struct bellhop *c, const struct frame *f) {
    struct bh_request *r = bh_request_take(c, f->rid);
    struct bellhop_sub *s = r != NULL && r->kind == BH_SUBSCRIBE ? r->sub : NULL;
    if (s == NULL || s->id != f->sub) {
        if (r != NULL) bh_request_fail(r, BELLHOP_EPROTOCOL, "another answer was due");
        if (c->conn != NULL) bh_broken(c, "SUBSCRIBED without a SUBSCRIBE");
        return;
    }
    bh_request_free(r);
    const char *wrong = bh_sub_attached(s, f);
    if (wrong != NULL) bh_broken(c, wrong);
}

/* The answer to a replay or redrive. */
static void on_ok(struct bellhop *c, const struct frame *f) {
    struct bh_request *r = bh_request_take(c, f->rid);
    if (r == NULL) return;
    if (r->kind != BH_TASK) {
        bh_request_fail(r, BELLHOP_EPROTOCOL, "another answer was due");
        if (c->conn != NULL) bh_broken(c, "OK to what has another answer");
        return;
    }
    if (r->started != NULL) r->started(r->ctx, 0, "", f->u.ok.value);
    bh_request_free(r);
}

static void on_job_event(struct bellhop *c, const struct frame *f) {
    struct bh_request *r = bh_request_take(c, f->rid);
    if (r != NULL && r->kind == BH_WAIT) {
        bh_waited(c, r, f);
        return;
    }
    if (r != NULL) bh_request_fail(r, BELLHOP_EPROTOCOL, "another answer was due");
    if (c->conn != NULL) bh_broken(c, "JOB_EVENT without a WAIT");
}

/* Frames that name an attachment. */
static void on_sub_frame(struct bellhop *c, const struct frame *f) {
    struct bellhop_sub *s = bh_sub_find(c, f->sub);
    if (s == NULL) {
        bh_broken(c, "a frame for an attachment that was never asked for");
    } else if (f->op == FRAME_DELIVER) {
        const char *wrong = bh_sub_deliver(s, f);
        if (wrong != NULL) bh_broken(c, wrong);
    } else if (f->op == FRAME_REVOKE) {
        bh_sub_revoke(s, f);
    } else if (f->op == FRAME_LEASE) {
        bh_sub_lease_soon(s, f);
    } else if (f->op == FRAME_STATE) {
        bh_sub_stated(c, s, f);
    } else {
        bh_sub_ended(s, "%s: %.*s", err_info(f->u.ended.number).word,
                     SLICE_ARG(f->u.ended.message));
    }
}

static void on_frame(struct bellhop *c, const struct frame *f) {
    if (c->phase == BH_GREETING && f->op != FRAME_WELCOME && f->op != FRAME_CHALLENGE &&
        f->op != FRAME_ERR) {
        bh_broken(c, "the first frame is not WELCOME");
        return;
    }
    switch (f->op) {
    case FRAME_WELCOME: on_welcome(c, f); break;
    case FRAME_CHALLENGE: bh_auth_challenged(c, f); break;
    case FRAME_ERR: on_err(c, f); break;
    case FRAME_SUBSCRIBED: on_subscribed(c, f); break;
    case FRAME_DELIVER:
    case FRAME_LEASE:
    case FRAME_REVOKE:
    case FRAME_STATE:
    case FRAME_ENDED: on_sub_frame(c, f); break;
    case FRAME_OK: on_ok(c, f); break;
    case FRAME_JOB_EVENT: on_job_event(c, f); break;
    case FRAME_SETTLED: on_settled(c, f); break;
    case FRAME_PUBLISHED: on_published(c, f); break;
    case FRAME_PING: bh_encoded(c, frame_encode_plain(bh_out(c), FRAME_PONG, f->rid)); break;
    case FRAME_PONG:
        if (f->rid != 0 && f->rid == c->barrier_rid) bh_barrier_passed(c);
        break;
    case FRAME_QUIET: on_quiet(c, f); break;
    case FRAME_GOAWAY: on_goaway(c, f); break;
    case FRAME_DRAINED: {
        struct bh_request *r = bh_request_take(c, f->rid);
        if (r != NULL && r->kind == BH_DRAIN) c->drained = true;
        if (r != NULL) bh_request_fail(r, BELLHOP_EPROTOCOL, "another answer was due");
        break;
    }
    default: break; /* what a newer broker may add */
    }
}

void bh_session_read(struct bellhop *c, struct bh_conn *conn) {
    size_t at = 0, len = 0;
    while (c->conn == conn) {
        struct slice rest = slice_from(buf_slice(&conn->in), at);
        int whole = frame_split(rest, c->frame_in_max, &len);
        if (whole == 0) break;
        if (whole < 0) {
            bh_broken(c, "a frame above the limit");
            return;
        }
        struct frame f;
        const char *why;
        if (frame_decode(c->decoder, slice_of(rest.data, len), &f, &why) != ERR_OK) {
            bh_broken(c, why);
            return;
        }
        at += len;
        on_frame(c, &f);
    }
    if (c->conn != conn) return; /* dropped: the closing callback frees its buffers */
    buf_consume(&conn->in, at);
    if (conn->in.len == 0 && conn->in.cap > 4 * BH_OUT_BYTES) buf_free(&conn->in);
}

uint64_t bh_session_beat_at(const struct bellhop *c) {
    uint64_t ping_ms = c->sent_ms + c->heartbeat_ms, dead_ms = c->heard_ms + 3 * c->heartbeat_ms;
    return ping_ms < dead_ms ? ping_ms : dead_ms;
}

void bh_session_beat(struct bellhop *c, uint64_t now_ms) {
    if (now_ms >= c->heard_ms + 3 * c->heartbeat_ms) {
        bh_lost(c, "the broker has been silent for %llu ms",
                (unsigned long long)(now_ms - c->heard_ms));
    } else if (now_ms >= c->sent_ms + c->heartbeat_ms) {
        c->sent_ms = now_ms;
        bh_encoded(c, frame_encode_plain(bh_out(c), FRAME_PING, 0));
    }
}
