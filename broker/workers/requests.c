/* requests.c: frames of a client become commands of the engine. */
#include <openssl/rand.h>
#include <stdio.h>

#include "base/base64.h"
#include "broker/json/walk.h"
#include "broker/workers/session.h"

static struct route route_of(const struct session *s, uint32_t rid) {
    return (struct route){.room = s->room->options.room, .rid = rid, .handle = s->id};
}

static void hello(struct session *s, const struct frame *f) {
    if (s->state == SESSION_OPEN) {
        session_error(s, f->rid, ERR_OUT_OF_ORDER, "HELLO was sent already", true);
        return;
    }
    if (f->u.hello.version_min > FRAME_VERSION || f->u.hello.version_max < FRAME_VERSION) {
        session_error(s, f->rid, ERR_BAD_VERSION, "this broker speaks version 1 only", true);
        return;
    }
    uint64_t heartbeat_ms = f->u.hello.heartbeat_ms;
    if (heartbeat_ms == 0) heartbeat_ms = LIMIT_HEARTBEAT_MS_DEFAULT;
    if (heartbeat_ms < LIMIT_HEARTBEAT_MS_MIN) heartbeat_ms = LIMIT_HEARTBEAT_MS_MIN;
    if (heartbeat_ms > LIMIT_HEARTBEAT_MS_MAX) heartbeat_ms = LIMIT_HEARTBEAT_MS_MAX;
    s->heartbeat_ms = heartbeat_ms;
    s->state = SESSION_OPEN;

    uint8_t nonce[16];
    char session[32];
    int random_ok = RAND_bytes(nonce, sizeof nonce);
    CHECK(random_ok == 1);
    snprintf(session, sizeof session, "%llu", (unsigned long long)s->id);
    struct frame welcome = {.op = FRAME_WELCOME};
    welcome.u.welcome.version = FRAME_VERSION;
    welcome.u.welcome.server = slice_str("bellhop " BELLHOP_VERSION);
    welcome.u.welcome.session = slice_str(session);
    welcome.u.welcome.auth = slice_str("none");
    welcome.u.welcome.nonce = slice_of(nonce, sizeof nonce);
    welcome.u.welcome.heartbeat_ms = heartbeat_ms;
    welcome.u.welcome.frame_max_bytes = s->room->options.frame_max_bytes;
    welcome.u.welcome.now_ms = loop_wall_ms(s->room->options.loop);
    frame_encode_welcome(session_out(s), f->rid, &welcome);
}

static bool window_ok(struct session *s, uint32_t rid, uint64_t events, uint64_t bytes) {
    if (events <= LIMIT_WINDOW_EVENTS && bytes <= LIMIT_WINDOW_BYTES) return true;
    session_error(s, rid, ERR_LIMIT_EXCEEDED, "window: at most 16384 events and 67108864 bytes",
                  false);
    return false;
}

/* The policy of SUBSCRIBE's `create`, defaults filled in. */
static struct policy policy_of(const struct frame_policy *f) {
    struct policy p = policy_default();
    p.filter =
        (struct filter){f->types, f->sources, (uint32_t)f->types_count, (uint32_t)f->sources_count};
    if (f->lease_ms != 0) p.lease_ms = f->lease_ms;
    if (f->max_fails != UINT64_MAX) {
        p.max_fails = f->max_fails > UINT32_MAX ? UINT32_MAX : (uint32_t)f->max_fails;
    }
    if (f->backoff_min_ms != UINT64_MAX) p.backoff_min_ms = f->backoff_min_ms;
    if (f->backoff_max_ms != UINT64_MAX) p.backoff_max_ms = f->backoff_max_ms;
    /* Out of range or not a number becomes 0 permille, which policy_check refuses by name. */
    if (f->backoff_factor != 0) {
        bool sane = f->backoff_factor >= 1 && f->backoff_factor <= 100;
        p.backoff_factor_permille = sane ? (uint32_t)(f->backoff_factor * 1000 + 0.5) : 0;
    }
    return p;
}

static enum start_kind start_of(const struct frame_policy *f) {
    switch (f->start) {
    case FRAME_START_NEW: return START_NEW;
    case FRAME_START_FIRST: return START_FIRST;
    case FRAME_START_SEQ: return START_SEQ;
    case FRAME_START_TIME: return START_TIME;
    }
    UNREACHABLE("the decoder knows four");
}

static void subscribe(struct session *s, const struct frame *f) {
    if (!window_ok(s, f->rid, f->u.subscribe.window_events, f->u.subscribe.window_bytes)) return;
    if (s->draining) {
        session_error(s, f->rid, ERR_INVALID_REQUEST, "the session is draining", false);
        return;
    }
    if (session_sub_find(s, f->sub) != NULL) {
        session_error(s, f->rid, ERR_ALREADY_EXISTS, "sub: the number is in use", false);
        return;
    }
    if (s->subs_count == LIMIT_SUBSCRIPTIONS_PER_SESSION) {
        session_error(s, f->rid, ERR_LIMIT_EXCEEDED, "at most 64 subscriptions on a connection",
                      false);
        return;
    }
    uint64_t attachment = s->room->next_attachment++;
    s->subs[s->subs_count++] =
        (struct session_sub){.sub = f->sub, .attach_rid = f->rid, .attachment = attachment};
    const struct frame_policy *create = &f->u.subscribe.create;
    struct policy policy;
    struct command c = {.kind = COMMAND_ATTACH, .route = route_of(s, f->sub)};
    c.u.attach.attachment = attachment;
    c.u.attach.name = f->u.subscribe.name;
    c.u.attach.window_events = f->u.subscribe.window_events;
    c.u.attach.window_bytes = f->u.subscribe.window_bytes;
    c.u.attach.concurrency = f->u.subscribe.concurrency > LIMIT_WINDOW_EVENTS
                                 ? LIMIT_WINDOW_EVENTS
                                 : (uint32_t)f->u.subscribe.concurrency;
    if (create->present) {
        policy = policy_of(create);
        c.u.attach.create = &policy;
        c.u.attach.start = start_of(create);
        c.u.attach.start_value = create->start_value;
    }
    workers_step(s->room, &c);
    if (s->held) session_hold(s, true);
}

static void window(struct session *s, const struct frame *f, struct session_sub *entry) {
    if (!window_ok(s, f->rid, f->u.window.events, f->u.window.bytes)) return;
    struct command c = {.kind = COMMAND_WINDOW};
    c.u.window.attachment = entry->attachment;
    c.u.window.events = f->u.window.events;
    c.u.window.bytes = f->u.window.bytes;
    workers_step(s->room, &c);
    if (f->rid != 0) frame_encode_ok(session_out(s), f->rid, 0);
}

static void settle(struct session *s, const struct frame *f, const struct session_sub *entry) {
    struct command c = {.route = route_of(s, f->rid)};
    c.u.settle.attachment = entry->attachment;
    CHECK(f->ranges_count <= LIMIT_RANGES); /* the decoder's bound */
    for (size_t i = 0; i < f->ranges_count; i++) {
        s->room->ranges[i] = (struct tag_range){f->ranges[i].lo, f->ranges[i].hi};
    }
    c.u.settle.ranges = s->room->ranges;
    c.u.settle.count = f->ranges_count;
    if (f->op == FRAME_ACK) {
        c.kind = COMMAND_ACK;
        c.u.settle.confirm = f->u.ack.confirm;
    } else if (f->op == FRAME_EXTEND) {
        c.kind = COMMAND_EXTEND;
        c.u.settle.confirm = f->u.extend.confirm;
        c.u.settle.lease_ms = f->u.extend.lease_ms;
    } else {
        c.kind = COMMAND_NACK;
        c.u.settle.confirm = f->u.nack.confirm;
        c.u.settle.kind = f->u.nack.kind == FRAME_NACK_RELEASE ? NACK_RELEASE
                          : f->u.nack.kind == FRAME_NACK_FAIL  ? NACK_FAIL
                                                               : NACK_REJECT;
        c.u.settle.delay_ms =
            f->u.nack.delay_ms == FRAME_DELAY_POLICY ? DELAY_BY_POLICY : f->u.nack.delay_ms;
        c.u.settle.error = f->u.nack.error;
    }
    workers_step(s->room, &c);
}

static void unsubscribe(struct session *s, const struct frame *f, struct session_sub *entry) {
    struct command c = {.kind = COMMAND_DETACH};
    c.u.detach.attachment = entry->attachment;
    c.u.detach.how = DETACH_RELEASE;
    workers_step(s->room, &c);
    if (entry->answered) session_sub_remove(s, entry);
    else entry->gone = true;
    frame_encode_ok(session_out(s), f->rid, 0);
}

static bool is_object(void *ctx, const struct json_value *value) {
    if (value->depth == 0) *(bool *)ctx = value->type == JSON_IS_OBJECT;
    return true;
}

static void publish(struct session *s, const struct frame *f) {
    for (size_t i = 0; i < f->u.publish.count; i++) {
        struct slice metadata = f->u.publish.events[i].metadata;
        bool object = false;
        if (metadata.len == 0) continue;
        if (json_walk(metadata, 0, is_object, &object, NULL) && object) continue;
        session_error(s, f->rid, ERR_INVALID_REQUEST, "metadata: must be a JSON object or empty",
                      false);
        return;
    }
    if (f->u.publish.count == 0) {
        session_error(s, f->rid, ERR_INVALID_REQUEST, "PUBLISH holds no event", false);
        return;
    }
    struct command c = {.kind = COMMAND_PUBLISH, .route = route_of(s, f->rid)};
    c.u.publish.events = f->u.publish.events;
    c.u.publish.count = f->u.publish.count;
    c.u.publish.project = PROJECT_DEFAULT;
    workers_step(s->room, &c);
}

static void replay(struct session *s, const struct frame *f) {
    bool by_seq = f->u.replay.from_seq != 0 || f->u.replay.to_seq != 0;
    bool by_time = f->u.replay.from_time_ms != 0 || f->u.replay.to_time_ms != 0;
    if (by_seq == by_time || (f->u.replay.from_seq == 0 && f->u.replay.from_time_ms == 0)) {
        session_error(s, f->rid, ERR_INVALID_REQUEST,
                      "REPLAY needs from_seq or from_time_ms, and seqs and times do not mix",
                      false);
        return;
    }
    struct command c = {.kind = COMMAND_REPLAY_CREATE, .route = route_of(s, f->rid)};
    c.u.replay.name = f->u.replay.name;
    c.u.replay.from_seq = f->u.replay.from_seq;
    c.u.replay.to_seq = f->u.replay.to_seq;
    c.u.replay.from_time_ms = f->u.replay.from_time_ms;
    c.u.replay.to_time_ms = f->u.replay.to_time_ms;
    workers_step(s->room, &c);
}

void session_detach_all(struct session *s, enum detach_kind how) {
    size_t kept = 0;
    for (size_t i = 0; i < s->subs_count; i++) {
        struct command c = {.kind = COMMAND_DETACH};
        c.u.detach.attachment = s->subs[i].attachment;
        c.u.detach.how = how;
        workers_step(s->room, &c);
        if (s->subs[i].answered) continue;
        s->subs[i].gone = true; /* its SUBSCRIBED is on its way in this turn */
        s->subs[kept++] = s->subs[i];
    }
    s->subs_count = kept;
}

void session_request(struct session *s, const struct frame *f) {
    struct session_sub *entry = NULL;
    session_touch(s);
    switch (f->op) {
    case FRAME_WINDOW:
    case FRAME_ACK:
    case FRAME_NACK:
    case FRAME_EXTEND:
    case FRAME_UNSUBSCRIBE:
        entry = session_sub_find(s, f->sub);
        if (entry == NULL) {
            session_error(s, f->rid, ERR_NOT_FOUND, "sub: nothing is subscribed by that number",
                          false);
            return;
        }
        break;
    default: break;
    }
    switch (f->op) {
    case FRAME_HELLO: hello(s, f); break;
    case FRAME_AUTH: frame_encode_ok(session_out(s), f->rid, 0); break; /* auth is "none" */
    case FRAME_SUBSCRIBE: subscribe(s, f); break;
    case FRAME_WINDOW: window(s, f, entry); break;
    case FRAME_ACK:
    case FRAME_NACK:
    case FRAME_EXTEND: settle(s, f, entry); break;
    case FRAME_UNSUBSCRIBE: unsubscribe(s, f, entry); break;
    case FRAME_PUBLISH: publish(s, f); break;
    case FRAME_REPLAY: replay(s, f); break;
    case FRAME_PING: frame_encode_plain(session_out(s), FRAME_PONG, f->rid); break;
    case FRAME_PONG: break;
    case FRAME_DRAIN:
        s->draining = s->drain_answer = true;
        s->drain_rid = f->rid;
        session_hold(s, s->held);
        break;
    case FRAME_CLOSE:
        session_detach_all(s, DETACH_RELEASE);
        session_goodbye(s, "goodbye");
        break;
    default:
        session_error(s, f->rid, ERR_UNSUPPORTED_OP, "this broker does not know that op", false);
        break;
    }
}
