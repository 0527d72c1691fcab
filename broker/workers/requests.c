/* requests.c: frames of a client become commands of the engine. */
#include "broker/fields/policy.h"
#include "broker/json/walk.h"
#include "broker/workers/session.h"

static struct route route_of(const struct session *s, uint32_t rid) {
    return (struct route){.room = s->room->options.room, .rid = rid, .handle = s->id};
}

/* With `create` it may become the first to use the name: then it makes a subscription. */
static bool may_create(struct session *s, const struct frame *f) {
    struct subscription_info info;
    const struct key *k = session_key(s);
    if (f->u.subscribe.create.len == 0 || k == NULL || key_may(k, SCOPE_MANAGE) ||
        engine_subscription_get(s->room->options.engine, s->project, f->u.subscribe.name, &info)) {
        return true;
    }
    session_error(s, f->rid, ERR_PERMISSION_DENIED,
                  "create: there is no such subscription, and to make it the key needs the scope "
                  "manage",
                  false);
    return false;
}

static bool subscribe_ok(struct session *s, const struct frame *f) {
    enum err err = ERR_OK;
    const char *why = "";
    if (s->room->stopping) {
        err = ERR_SHUTTING_DOWN;
        why = "the broker is stopping: connect again";
    } else if (s->draining) {
        err = ERR_INVALID_REQUEST;
        why = "the session is draining";
    } else if (slice_starts_with(f->u.subscribe.name, "webhook.")) {
        err = ERR_INVALID_REQUEST;
        why =
            "name: a subscription that begins with webhook. belongs to a webhook: use "
            "/v1/webhooks";
    } else if (session_sub_find(s, f->sub) != NULL) {
        err = ERR_ALREADY_EXISTS;
        why = "sub: the number is in use";
    } else if (s->subs_count == LIMIT_SUBSCRIPTIONS_PER_SESSION) {
        err = ERR_LIMIT_EXCEEDED;
        why = "at most 64 subscriptions on a connection";
    }
    if (err != ERR_OK) session_error(s, f->rid, err, why, false);
    return err == ERR_OK && session_may(s, f->rid, SCOPE_CONSUME, f->u.subscribe.name) &&
           may_create(s, f);
}

/* The claims as the engine wants them, in the room's arena. */
static const struct claim *claims_of(struct session *s, const struct frame *f) {
    size_t count = f->u.subscribe.claims_count;
    struct claim *claims = arena_alloc(&s->room->arena, count * sizeof *claims);
    for (size_t i = 0; i < count; i++) {
        const struct frame_claim *from = &f->u.subscribe.claims[i];
        claims[i] = (struct claim){from->tag, from->seq, (from->flags & FRAME_FLAG_REPLAY) != 0};
    }
    return claims;
}

static void attach(struct session *s, const struct frame *f, const struct policy_request *create) {
    struct session_sub *entry = session_sub_add(s);
    uint64_t concurrency = f->u.subscribe.concurrency;
    entry->sub = f->sub;
    entry->attach_rid = f->rid;
    entry->attachment = s->room->next_attachment++;
    CHECK(f->u.subscribe.name.len <= sizeof entry->name); /* the decoder's bound */
    entry->name_len = (uint8_t)f->u.subscribe.name.len;
    if (entry->name_len > 0) memcpy(entry->name, f->u.subscribe.name.data, entry->name_len);

    struct command c = {
        .kind = COMMAND_ATTACH, .project = s->project, .route = route_of(s, f->sub)};
    c.u.attach.attachment = entry->attachment;
    c.u.attach.name = f->u.subscribe.name;
    c.u.attach.window_events = f->u.subscribe.window_events;
    c.u.attach.window_bytes = f->u.subscribe.window_bytes;
    c.u.attach.concurrency =
        concurrency > LIMIT_WINDOW_EVENTS ? LIMIT_WINDOW_EVENTS : (uint32_t)concurrency;
    c.u.attach.lease_ms = f->u.subscribe.lease_ms;
    c.u.attach.session = s->resume_ms > 0 ? s->number : 0;
    c.u.attach.slot = f->sub;
    c.u.attach.resumes = s->resumes;
    c.u.attach.claims = claims_of(s, f);
    c.u.attach.claims_count = f->u.subscribe.claims_count;
    if (create != NULL) {
        c.u.attach.create = &create->policy;
        c.u.attach.start = create->start;
        c.u.attach.start_value = create->start_value;
    }
    workers_step(s->room, &c);
    if (s->held) session_hold(s, true);
}

/* The policy of `create`, in the room's arena. False: refused. */
static bool read_create(struct session *s, const struct frame *f, struct policy_request *out) {
    struct refusal refusal;
    if (f->u.subscribe.create.len == 0) return true;
    if (policy_read_text(f->u.subscribe.create, &s->room->arena, out, &refusal)) return true;
    session_error(s, f->rid, refusal.err, refusal.message, false);
    return false;
}

static void subscribe(struct session *s, const struct frame *f) {
    struct policy_request create;
    if (!subscribe_ok(s, f)) return;
    if (read_create(s, f, &create)) {
        attach(s, f, f->u.subscribe.create.len > 0 ? &create : NULL);
    }
    arena_reset(&s->room->arena);
}

static void window(struct session *s, const struct frame *f, struct session_sub *entry) {
    struct command c = {.kind = COMMAND_WINDOW};
    c.u.window.attachment = entry->attachment;
    c.u.window.events = f->u.window.events;
    c.u.window.bytes = f->u.window.bytes;
    workers_step(s->room, &c);
    if (f->rid != 0) frame_encode_ok(session_out(s), f->rid, 0);
}

static enum nack_kind nack_kind_of(enum frame_nack_kind kind) {
    switch (kind) {
    case FRAME_NACK_RELEASE: return NACK_RELEASE;
    case FRAME_NACK_FAIL: return NACK_FAIL;
    case FRAME_NACK_REJECT: return NACK_REJECT;
    case FRAME_NACK_ELSEWHERE: return NACK_ELSEWHERE;
    }
    UNREACHABLE("the decoder knows four");
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
        c.u.settle.kind = nack_kind_of(f->u.nack.kind);
        c.u.settle.delay_ms =
            f->u.nack.delay_ms == FRAME_DELAY_POLICY ? DELAY_BY_POLICY : f->u.nack.delay_ms;
        c.u.settle.failure = (struct failure){
            f->u.nack.failure.type,
            f->u.nack.failure.message,
            f->u.nack.failure.detail,
        };
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

/* DELIVER carries these as str: a worker whose msgpack refuses other bytes could take neither this
 * event nor what stands beside it in the frame. */
static const char *refuse_text(const struct event *e) {
    if (json_utf8_error(e->type) != e->type.len) return "type: must be UTF-8";
    if (json_utf8_error(e->subject) != e->subject.len) return "subject: must be UTF-8";
    if (json_utf8_error(e->id) != e->id.len) return "id: must be UTF-8";
    if (json_utf8_error(e->content_type) != e->content_type.len) {
        return "content_type: must be UTF-8";
    }
    return NULL;
}

/* Why an event cannot be published; NULL: it can. */
static const char *refuse_event(const struct event *e, uint64_t wall_ms) {
    bool object = false;
    const char *text = refuse_text(e);
    if (text != NULL) return text;
    if (e->deliver_at_ms > wall_ms && e->deliver_at_ms - wall_ms > LIMIT_DELIVER_LATER_MS) {
        return "deliver_at_ms: at most 30 days ahead";
    }
    if (e->metadata.len == 0) return NULL;
    if (json_walk(e->metadata, 0, is_object, &object, NULL) && object) return NULL;
    return "metadata: must be a JSON object or empty";
}

static void publish(struct session *s, const struct frame *f) {
    uint64_t wall_ms = loop_wall_ms(s->room->options.loop);
    if (!session_may(s, f->rid, SCOPE_PUBLISH, slice_of(NULL, 0))) return;
    const char *why = f->u.publish.count == 0 ? "PUBLISH holds no event" : NULL;
    for (size_t i = 0; i < f->u.publish.count && why == NULL; i++) {
        why = refuse_event(&f->u.publish.events[i], wall_ms);
    }
    if (why != NULL) {
        session_error(s, f->rid, ERR_INVALID_REQUEST, why, false);
        return;
    }
    struct command c = {
        .kind = COMMAND_PUBLISH, .project = s->project, .route = route_of(s, f->rid)};
    c.u.publish.events = f->u.publish.events;
    c.u.publish.count = f->u.publish.count;
    workers_step(s->room, &c);
}

static void replay(struct session *s, const struct frame *f) {
    if (!session_may(s, f->rid, SCOPE_MANAGE, f->u.replay.name)) return;
    bool by_seq = f->u.replay.from_seq != 0 || f->u.replay.to_seq != 0;
    bool by_time = f->u.replay.from_time_ms != 0 || f->u.replay.to_time_ms != 0;
    if (by_seq == by_time || (f->u.replay.from_seq == 0 && f->u.replay.from_time_ms == 0)) {
        session_error(s, f->rid, ERR_INVALID_REQUEST,
                      "REPLAY needs from_seq or from_time_ms, and seqs and times do not mix",
                      false);
        return;
    }
    struct command c = {
        .kind = COMMAND_TASK_CREATE, .project = s->project, .route = route_of(s, f->rid)};
    c.u.task.kind = f->u.replay.dry_run ? TASK_COUNT : TASK_REPLAY;
    c.u.task.name = f->u.replay.name;
    c.u.task.filter = f->u.replay.filter;
    if (!f->u.replay.dry_run) c.u.task.rate_per_s = (uint32_t)f->u.replay.rate_per_s;
    c.u.task.from_seq = f->u.replay.from_seq;
    c.u.task.to_seq = f->u.replay.to_seq;
    c.u.task.from_time_ms = f->u.replay.from_time_ms;
    c.u.task.to_time_ms = f->u.replay.to_time_ms;
    workers_step(s->room, &c);
}

static void redrive(struct session *s, const struct frame *f) {
    if (!session_may(s, f->rid, SCOPE_MANAGE, f->u.redrive.name)) return;
    struct command c = {
        .kind = COMMAND_TASK_CREATE, .project = s->project, .route = route_of(s, f->rid)};
    c.u.task.kind = TASK_REDRIVE;
    c.u.task.name = f->u.redrive.name;
    c.u.task.filter = f->u.redrive.filter;
    c.u.task.rate_per_s = (uint32_t)f->u.redrive.rate_per_s;
    c.u.task.from_seq = c.u.task.to_seq = f->u.redrive.seq;
    workers_step(s->room, &c);
}

void session_detach_all(struct session *s, enum detach_kind how) {
    size_t kept = 0;
    for (size_t i = 0; i < s->subs_count; i++) {
        struct command c = {.kind = COMMAND_DETACH};
        c.u.detach.attachment = s->subs[i].attachment;
        c.u.detach.how = how;
        c.u.detach.grace_ms = s->resume_ms;
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
    case FRAME_STATE:
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
    case FRAME_HELLO:
        session_error(s, f->rid, ERR_OUT_OF_ORDER, "HELLO was sent already", true);
        break;
    case FRAME_AUTH: frame_encode_ok(session_out(s), f->rid, 0); break; /* it is in already */
    case FRAME_SUBSCRIBE: subscribe(s, f); break;
    case FRAME_WINDOW: window(s, f, entry); break;
    case FRAME_ACK:
    case FRAME_NACK:
    case FRAME_EXTEND: settle(s, f, entry); break;
    case FRAME_UNSUBSCRIBE: unsubscribe(s, f, entry); break;
    case FRAME_PUBLISH: publish(s, f); break;
    case FRAME_REPLAY: replay(s, f); break;
    case FRAME_REDRIVE: redrive(s, f); break;
    case FRAME_STATE: session_state_request(s, f, entry); break;
    case FRAME_WAIT: session_wait_request(s, f); break;
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
