/* One connection: from bytes to a request and on to the next.
 *
 * As it goes well: on_data feeds the parser (an exchange is taken from the pool with the first
 * byte); the head is shown to on_head; with the last byte of the body the request is handed out.
 * Its answer comes in the same turn or later. When the turn of the answer has ended, the task gives
 * the exchange back and looks at what the client has sent meanwhile.
 *
 * What goes wrong: the parser or on_head refuses: an error answer, and the end; a deadline passes:
 * 408, and the end; the client closes in the middle: the end; it is gone with a request unanswered:
 * on_gone. A client that only shuts down its sending side still gets its answers. The memory for
 * bodies is scarce: a large one is refused by its head; it is used up: so is what would grow. */
#include <stdio.h>
#include <stdlib.h>

#include "broker/http/internal.h"

#define POOL_MAX         1024
#define REST_KEEP_BYTES  512
#define REST_BYTES       (256 * KIB) /* a paused stream may still hand over one read more */
#define REST_PAUSE_BYTES LIMIT_HTTP_HEAD_BYTES
/* While so much of earlier answers waits for the client, its next request does: a client who asks
 * and never reads holds this, one answer, and no more. */
#define OUT_PAUSE_BYTES (16 * KIB)

static void set_timed(struct conn *c, struct list *deadlines) {
    list_unlink(&c->timed);
    if (deadlines == NULL) return;
    c->since_ms = loop_now_ms(c->server->loop);
    list_push_back(deadlines, &c->timed);
}

static void set_state(struct conn *c, enum conn_state to) {
    static const bool legal[6][6] = {
        [CONN_IDLE] = {[CONN_HEAD] = true, [CONN_ENDING] = true},
        [CONN_HEAD] = {[CONN_BODY] = true, [CONN_ENDING] = true},
        [CONN_BODY] = {[CONN_BUSY] = true, [CONN_ENDING] = true},
        [CONN_BUSY] = {[CONN_ANSWERED] = true, [CONN_ENDING] = true},
        [CONN_ANSWERED] = {[CONN_IDLE] = true, [CONN_HEAD] = true, [CONN_ENDING] = true},
    };
    CHECK(legal[c->state][to]);
    c->state = to;
    switch (to) {
    case CONN_IDLE: set_timed(c, &c->server->idle); break;
    case CONN_HEAD: set_timed(c, &c->server->heads); break;
    case CONN_BODY:
        set_timed(c, &c->server->bodies);
        c->body_deadline_ms = c->since_ms + c->server->options.body_grace_ms;
        c->body_paid_bytes = 0;
        break;
    case CONN_BUSY:
    case CONN_ANSWERED:
    case CONN_ENDING: set_timed(c, NULL); break;
    }
}

static void take_exchange(struct conn *c) {
    struct http_server *s = c->server;
    struct list *n = list_first(&s->pool);
    if (n != NULL) {
        list_unlink(n);
        s->pool_count--;
        if (s->pool_count < s->pool_least) s->pool_least = s->pool_count;
        c->exchange = CONTAINER_OF(n, struct exchange, node);
        return;
    }
    c->exchange = mem_alloc(sizeof *c->exchange);
    list_init(&c->exchange->node);
    http_parser_init(&c->exchange->parser, s->options.body_max_bytes);
}

static void give_exchange(struct conn *c) {
    struct http_server *s = c->server;
    struct exchange *e = c->exchange;
    if (e == NULL) return;
    c->exchange = NULL;
    if (s->pool_count >= POOL_MAX) {
        http_parser_free(&e->parser);
        free(e);
        return;
    }
    http_parser_reset(&e->parser);
    list_push_front(&s->pool, &e->node);
    s->pool_count++;
}

/* Brings what the server counts to what this connection holds. */
static void count_memory(struct conn *c) {
    size_t holds = c->rest.len == 0 ? 0 : c->rest.cap;
    if (c->exchange != NULL && c->exchange->parser.body.len > 0) {
        holds += c->exchange->parser.body.cap;
    }
    CHECK(c->server->body_memory >= c->counted);
    c->server->body_memory += holds - c->counted;
    c->counted = holds;
}

/* What one of its two buffers may hold when the other one holds `other`. */
static size_t memory_room(const struct conn *c, size_t other) {
    const struct http_server *s = c->server;
    size_t taken = s->body_memory - c->counted + other, max = s->options.body_memory_bytes;
    return taken < max ? max - taken : 0;
}

/* The last answer is written: what the exchange holds goes when the turn has ended. */
static void end(struct conn *c, const char *why) {
    set_state(c, CONN_ENDING);
    stream_close_after_write(c->stream, why);
    loop_defer(c->server->loop, &c->task);
}

static void refuse_as(struct conn *c, const struct http_refusal *refusal) {
    c->keep_alive = false;
    answer_write_error(c, refusal, true);
    end(c, refusal->message);
}

static void refuse(struct conn *c, enum err err, const char *message) {
    refuse_as(c, &(struct http_refusal){.err = err, .message = message});
}

/* While memory is scarce it is for those who need little, and can say so. */
static bool is_too_large_now(const struct conn *c) {
    const struct http_parser *p = &c->exchange->parser;
    return (p->state == PARSE_BODY_CHUNKED || p->length > LIMIT_HTTP_SMALL_BODY_BYTES) &&
           http_server_body_memory_is_scarce(c->server);
}

/* From here on the request can be shown to others, and its body is what comes. */
static void take_head(struct conn *c) {
    struct http_parser *p = &c->exchange->parser;
    bool fits = slice_to_cstr(slice_str(stream_peer(c->stream)), c->exchange->peer,
                              sizeof c->exchange->peer);
    CHECK(fits);
    p->request.peer = c->exchange->peer;
    p->request.handle = 0;
    c->keep_alive = p->keep_alive;
    c->http_1_0 = !p->line.minor_1;
    c->head_only = slice_eq_str(p->request.method, "HEAD");
    set_state(c, CONN_BODY);
}

/* The head is there. False: it was refused. */
static bool look_at_head(struct conn *c, bool body_arrives) {
    const struct http_server_options *o = &c->server->options;
    struct http_parser *p = &c->exchange->parser;
    struct http_refusal refusal = {.err = ERR_OK};
    take_head(c);
    if (o->on_head != NULL && !o->on_head(o->ctx, &p->request, &refusal)) {
        refuse_as(c, &refusal);
        return false;
    }
    if (is_too_large_now(c)) {
        refuse(c, ERR_OVERLOADED, HTTP_NO_BODY_ROOM);
        return false;
    }
    if (!body_arrives && http_parser_wants_continue(p)) {
        stream_write(c->stream, slice_str("HTTP/1.1 100 Continue\r\n\r\n"));
    }
    return true;
}

static void hand_out(struct conn *c) {
    struct http_server *s = c->server;
    struct http_request *r = &c->exchange->parser.request;
    set_state(c, CONN_BUSY);
    c->handle = r->handle = s->next_handle++;
    map_add(&s->handles, c->handle, c);
    loop_again(s->loop);
    s->options.on_request(s->options.ctx, r);
}

/* Feeds the parser until it wants more or the connection is busy or ends. Returns the bytes that
 * were taken. */
static size_t feed(struct conn *c, struct slice in) {
    size_t taken = 0;
    if (c->exchange == NULL) take_exchange(c);
    if (c->state != CONN_HEAD && c->state != CONN_BODY) {
        set_state(c, CONN_HEAD);
        c->http_1_0 = c->head_only = false;
    }
    c->exchange->parser.body_room = memory_room(c, c->rest.len == 0 ? 0 : c->rest.cap);
    for (;;) {
        size_t used;
        struct http_parser *p = &c->exchange->parser;
        enum http_step step = http_parser_feed(p, slice_from(in, taken), &used);
        taken += used;
        switch (step) {
        case STEP_MORE: return taken;
        case STEP_HEAD:
            if (!look_at_head(c, taken < in.len)) return in.len;
            break;
        case STEP_REQUEST: hand_out(c); return taken;
        case STEP_REFUSED:
            if (c->state == CONN_HEAD && p->request.method.len > 0) take_head(c);
            refuse(c, p->err, p->message);
            return in.len;
        }
    }
}

/* What has come behind a request cannot be kept. The answer to that request is the connection's
 * last one or, when it was given already, this is the next. */
static void refuse_rest(struct conn *c) {
    if (c->state == CONN_BUSY) {
        c->keep_alive = false;
        buf_free(&c->rest);
        stream_pause(c->stream);
    } else {
        c->http_1_0 = c->head_only = false;
        refuse(c, ERR_OVERLOADED, HTTP_NO_BODY_ROOM);
    }
}

static void keep_rest(struct conn *c, struct slice bytes) {
    size_t body = c->exchange->parser.body.len == 0 ? 0 : c->exchange->parser.body.cap;
    buf_consume(&c->rest, c->rest_at);
    c->rest_at = 0;
    size_t cap = buf_cap_after(&c->rest, bytes.len);
    if (cap > c->rest.cap && cap > memory_room(c, body)) {
        refuse_rest(c);
        return;
    }
    /* Reading is paused at the 16th KiB and one read brings at most 64. */
    CHECK(buf_append_slice(&c->rest, bytes));
    if (c->rest.len >= REST_PAUSE_BYTES) stream_pause(c->stream);
}

static void on_data(void *ctx, struct slice bytes) {
    struct conn *c = ctx;
    if (c->state == CONN_ENDING) return;
    if (c->state != CONN_BUSY && c->state != CONN_ANSWERED) {
        bytes = slice_from(bytes, feed(c, bytes));
    }
    if (bytes.len > 0 && c->state != CONN_ENDING) keep_rest(c, bytes);
    count_memory(c);
}

/* The turn of the answer has ended: on to what has arrived meanwhile. */
static void next_request(struct conn *c) {
    if (stream_queued(c->stream) > OUT_PAUSE_BYTES) {
        /* The turn's output was flushed, so the kernel did not take it at once: on_drain comes. */
        stream_pause(c->stream);
        return;
    }
    http_parser_reset(&c->exchange->parser);
    if (c->rest.len > 0) {
        struct slice rest = slice_from(buf_slice(&c->rest), c->rest_at);
        c->rest_at += feed(c, rest);
    } else {
        give_exchange(c);
        set_state(c, CONN_IDLE);
    }
    if (c->rest_at == c->rest.len) {
        c->rest_at = 0;
        if (c->rest.cap > REST_KEEP_BYTES) buf_free(&c->rest);
        else buf_clear(&c->rest);
    }
    if (c->state == CONN_ENDING) return;
    if (c->rest.len - c->rest_at < REST_PAUSE_BYTES) stream_resume(c->stream);
    bool partial = c->state == CONN_HEAD || c->state == CONN_BODY;
    if (c->state == CONN_IDLE && (c->eof || c->server->draining)) end(c, "done");
    else if (partial && c->eof) end(c, "closed in the middle of a request");
}

static void on_turn_ended(void *ctx) {
    struct conn *c = ctx;
    if (c->stream == NULL) {
        conn_free(c);
        return;
    }
    if (c->state == CONN_ENDING) {
        give_exchange(c);
        buf_free(&c->rest);
        c->rest_at = 0;
    } else if (c->state == CONN_ANSWERED) {
        next_request(c);
    }
    count_memory(c);
}

static void on_eof(void *ctx) {
    struct conn *c = ctx;
    c->eof = true;
    if (c->state == CONN_IDLE) end(c, "closed by the peer");
    else if (c->state == CONN_HEAD || c->state == CONN_BODY) {
        end(c, "closed by the peer in the middle of a request");
    } else if (c->state == CONN_BUSY && c->server->options.on_half_closed != NULL) {
        c->server->options.on_half_closed(c->server->options.ctx, c->handle);
    }
}

static void on_drain(void *ctx) {
    struct conn *c = ctx;
    if (c->state == CONN_ANSWERED) loop_defer(c->server->loop, &c->task);
}

static void on_close(void *ctx, const char *why) {
    struct conn *c = ctx;
    struct http_server *s = c->server;
    (void)why;
    c->stream = NULL;
    list_unlink(&c->timed);
    if (c->state == CONN_BUSY) {
        CHECK(map_remove(&s->handles, c->handle) == c);
        if (s->options.on_gone != NULL) s->options.on_gone(s->options.ctx, c->handle);
    }
    /* The request may be in use until the turn has ended. */
    loop_defer(s->loop, &c->task);
}

void conn_accept(struct http_server *s, struct stream *stream, struct caller *caller) {
    static const struct stream_ops ops = {
        .on_data = on_data, .on_eof = on_eof, .on_drain = on_drain, .on_close = on_close};
    struct conn *c = mem_zalloc(sizeof *c);
    c->server = s;
    c->stream = stream;
    c->caller = caller;
    c->state = CONN_IDLE;
    list_init(&c->timed);
    list_push_back(&s->conns, &c->node);
    s->conns_count++;
    loop_task_init(&c->task, on_turn_ended, c);
    buf_init(&c->rest, REST_BYTES);
    set_timed(c, &s->idle);
    stream_attach(stream, &ops, c);
}

void conn_free(struct conn *c) {
    CHECK(c->stream == NULL);
    loop_task_cancel(&c->task);
    give_exchange(c);
    buf_free(&c->rest);
    count_memory(c);
    CHECK(c->counted == 0);
    list_unlink(&c->timed);
    list_unlink(&c->node);
    callers_leave(&c->server->callers, c->caller);
    c->server->conns_count--;
    free(c);
}

void conn_answered(struct conn *c, bool last) {
    CHECK(map_remove(&c->server->handles, c->handle) == c);
    if (last) {
        end(c, "answered, and closed as agreed");
        return;
    }
    set_state(c, CONN_ANSWERED);
    loop_defer(c->server->loop, &c->task);
}

/* Each byte of the body moves its deadline by what the rate allows for it, but never further away
 * than idle_ms: who sends much at once and then nothing has not bought an hour. */
static void pay_body(struct conn *c, uint64_t now_ms) {
    const struct http_server_options *o = &c->server->options;
    uint64_t bytes = c->exchange->parser.body.len;
    uint64_t earned_ms = (bytes - c->body_paid_bytes) * 1000 / o->body_bytes_per_s;
    uint64_t most_ms = o->idle_ms > o->body_grace_ms ? o->idle_ms : o->body_grace_ms;
    if (earned_ms == 0) return;
    c->body_paid_bytes = bytes;
    c->body_deadline_ms += earned_ms;
    if (c->body_deadline_ms > now_ms + most_ms) c->body_deadline_ms = now_ms + most_ms;
}

bool conn_expire(struct conn *c, uint64_t now_ms) {
    const struct http_server_options *o = &c->server->options;
    uint64_t waited_ms = now_ms - c->since_ms;
    switch (c->state) {
    case CONN_IDLE:
        if (waited_ms < o->idle_ms) return false;
        end(c, "idle for too long");
        return true;
    case CONN_HEAD:
        if (waited_ms < o->head_ms) return false;
        refuse(c, ERR_TIMEOUT, "the head of the request did not arrive in time");
        return true;
    case CONN_BODY:
        pay_body(c, now_ms);
        if (now_ms < c->body_deadline_ms) return false;
        refuse(c, ERR_TIMEOUT, "the body of the request arrives too slowly");
        return true;
    case CONN_BUSY:
    case CONN_ANSWERED:
    case CONN_ENDING: break;
    }
    UNREACHABLE("these states have no deadline");
}

void conn_give_up(struct conn *c) {
    set_state(c, CONN_ENDING);
    stream_dismiss(c->stream, "idle, and its place was needed");
}

void conn_drain(struct conn *c) {
    if (c->stream != NULL && c->state == CONN_IDLE) end(c, "the server is stopping");
}
