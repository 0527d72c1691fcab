/* fake_broker.h: the other end of libbellhop for tests: a scripted peer on a loopback socket, on
 * the same loop as the client under test. It answers as a broker would unless a test switches an
 * answer off, counts what it gets, and writes what the test tells it to. */
#ifndef TESTS_FAKE_BROKER_H
#define TESTS_FAKE_BROKER_H

#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

#include "base/buf.h"
#include "base/check.h"
#include "proto/frame.h"

#define BROKER_TOP    (96u << 20)
#define BROKER_RANGES 16
#define BROKER_CLAIMS 16

struct broker {
    uv_loop_t *loop;
    uv_tcp_t server;
    int port;
    uv_tcp_t *peer; /* the present connection, or NULL */
    struct buf in;
    struct frame_decoder *decoder;
    size_t connections, broken; /* broken: frames that did not decode, or above frame_max */
    size_t frame_max;           /* that it says to take */
    bool greeted;
    bool no_welcome, no_subscribed, no_published, no_settled, no_drained, no_close, no_pong,
        no_state, no_job_event;
    uint64_t heartbeat_ms, lease_ms;
    uint64_t now_ms, resume_ms; /* of WELCOME; 0: no resume */
    size_t granted;             /* so many claims, the first ones; the others are lost */
    bool no_revoke;             /* what was lost is not said */
    const char *auth, *session;
    uint64_t version;
    /* What came: per op, and the parts that tests look at. */
    size_t got[256];
    uint32_t rid[256]; /* of the last frame of each op */
    struct frame_range ranges[256][BROKER_RANGES];
    size_t ranges_count[256];
    enum frame_nack_kind nack_kind;
    uint64_t nack_delay_ms;
    bool nack_confirm;
    char failure_type[256], failure_message[1024], failure_detail[4096];
    char hello_name[64], hello_resume[64], sub_name[65], create[64], text[64];
    uint64_t hello_resume_ms, window_events, concurrency, sub_lease_ms, extend_lease_ms;
    struct frame_claim claims[BROKER_CLAIMS];
    size_t claims_count;
    uint64_t deliver_at_ms;       /* of the last event published to it */
    struct frame replay, redrive; /* their numbers; their filter is in text */
    bool watch;
    uint64_t ready;              /* that it answers in STATE */
    uint64_t seq;                /* of the last event published to it */
    bool stale;                  /* confirmed acks come out stale */
    char job[64], job_types[64]; /* of WAIT; types with a comma after each */
    uint64_t wait_ms, wait_after_seq;
    uint64_t job_seq; /* that it answers to WAIT; 0: nothing came */
    bool job_gone;    /* without the event */
    enum err job_error;
};

static inline void broker_on_written(uv_write_t *req, int status) {
    (void)status;
    free(req->data);
    free(req);
}

static inline void broker_write(struct broker *b, const void *data, size_t len) {
    CHECK(b->peer != NULL);
    uv_write_t *req = mem_zalloc(sizeof *req);
    req->data = mem_alloc(len);
    memcpy(req->data, data, len);
    uv_buf_t bytes = uv_buf_init(req->data, (unsigned)len);
    CHECK(uv_write(req, (uv_stream_t *)b->peer, &bytes, 1, broker_on_written) == 0);
}

/* Writes the frames that `frames` holds and frees it. */
static inline void broker_send(struct broker *b, struct buf *frames) {
    CHECK(!frames->overflow);
    if (b->peer != NULL) broker_write(b, frames->data, frames->len);
    buf_free(frames);
}

static inline struct buf broker_buf(void) {
    struct buf out;
    buf_init(&out, BROKER_TOP);
    return out;
}

static inline void broker_on_closed(uv_handle_t *handle) {
    free(handle);
}

static inline void broker_hang_up(struct broker *b) {
    if (b->peer != NULL) uv_close((uv_handle_t *)b->peer, broker_on_closed);
    b->peer = NULL;
    buf_clear(&b->in);
}

static inline void broker_welcome(struct broker *b, struct buf *out, uint32_t rid) {
    struct frame f = {0};
    f.u.welcome.version = b->version;
    f.u.welcome.server = slice_str("fake/1");
    f.u.welcome.session = slice_str(b->session);
    f.u.welcome.now_ms = b->now_ms;
    f.u.welcome.resume_ms = b->resume_ms;
    f.u.welcome.auth = slice_str(b->auth);
    f.u.welcome.heartbeat_ms = b->heartbeat_ms;
    f.u.welcome.frame_max_bytes = b->frame_max;
    CHECK(frame_encode_welcome(out, rid, &f));
}

static inline void broker_deliver_into(struct buf *out, uint32_t sub, uint64_t lease_ms,
                                       uint64_t first_tag, size_t count) {
    struct frame_deliver d;
    CHECK(frame_deliver_begin(&d, out, sub, lease_ms));
    for (size_t i = 0; i < count; i++) {
        struct frame_item item = {.tag = first_tag + i, .deliveries = 1};
        item.event = (struct event){.seq = 100 + first_tag + i,
                                    .type = slice_str("job.done"),
                                    .subject = slice_str("jobs/1"),
                                    .body = slice_str("{\"n\":1}")};
        CHECK(frame_deliver_add(&d, &item));
    }
    frame_deliver_end(&d);
}

static inline void broker_deliver(struct broker *b, uint64_t first_tag, size_t count) {
    struct buf out = broker_buf();
    broker_deliver_into(&out, 1, b->lease_ms, first_tag, count);
    broker_send(b, &out);
}

static inline void broker_note(struct broker *b, const struct frame *f) {
    size_t op = (size_t)f->op_raw & 0xff;
    b->got[op]++;
    b->rid[op] = f->rid;
    b->ranges_count[op] = f->ranges_count;
    for (size_t i = 0; i < f->ranges_count && i < BROKER_RANGES; i++) {
        b->ranges[op][i] = f->ranges[i];
    }
    if (f->op == FRAME_NACK) {
        b->nack_kind = f->u.nack.kind;
        b->nack_delay_ms = f->u.nack.delay_ms;
        b->nack_confirm = f->u.nack.confirm;
        slice_to_cstr(f->u.nack.failure.type, b->failure_type, sizeof b->failure_type);
        slice_to_cstr(f->u.nack.failure.message, b->failure_message, sizeof b->failure_message);
        slice_to_cstr(f->u.nack.failure.detail, b->failure_detail, sizeof b->failure_detail);
    } else if (f->op == FRAME_HELLO) {
        slice_to_cstr(f->u.hello.client_name, b->hello_name, sizeof b->hello_name);
        slice_to_cstr(f->u.hello.resume, b->hello_resume, sizeof b->hello_resume);
        b->hello_resume_ms = f->u.hello.resume_ms;
    } else if (f->op == FRAME_SUBSCRIBE) {
        slice_to_cstr(f->u.subscribe.name, b->sub_name, sizeof b->sub_name);
        b->window_events = f->u.subscribe.window_events;
        b->concurrency = f->u.subscribe.concurrency;
        b->sub_lease_ms = f->u.subscribe.lease_ms;
        slice_to_cstr(f->u.subscribe.create, b->create, sizeof b->create);
        b->claims_count = f->u.subscribe.claims_count;
        for (size_t i = 0; i < b->claims_count && i < BROKER_CLAIMS; i++) {
            b->claims[i] = f->u.subscribe.claims[i];
        }
    } else if (f->op == FRAME_WINDOW) {
        b->window_events = f->u.window.events;
    } else if (f->op == FRAME_EXTEND) {
        b->extend_lease_ms = f->u.extend.lease_ms;
    } else if (f->op == FRAME_STATE) {
        b->watch = f->u.state.watch;
    } else if (f->op == FRAME_WAIT) {
        size_t at = 0;
        slice_to_cstr(f->u.wait.id, b->job, sizeof b->job);
        for (size_t i = 0; i < f->u.wait.types_count && at < sizeof b->job_types; i++) {
            at += (size_t)snprintf(b->job_types + at, sizeof b->job_types - at, "%.*s,",
                                   SLICE_ARG(f->u.wait.types[i]));
        }
        b->wait_ms = f->u.wait.timeout_ms;
        b->wait_after_seq = f->u.wait.after_seq;
    } else if (f->op == FRAME_REPLAY) {
        b->replay = *f;
        slice_to_cstr(f->u.replay.filter, b->text, sizeof b->text);
    } else if (f->op == FRAME_REDRIVE) {
        b->redrive = *f;
        slice_to_cstr(f->u.redrive.filter, b->text, sizeof b->text);
    }
}

static inline void broker_published(struct broker *b, const struct frame *f, struct buf *out) {
    uint64_t seqs[16];
    bool duplicates[16] = {false};
    CHECK(f->u.publish.count <= 16);
    for (size_t i = 0; i < f->u.publish.count; i++) {
        seqs[i] = ++b->seq;
        b->deliver_at_ms = f->u.publish.events[i].deliver_at_ms;
    }
    CHECK(frame_encode_published(out, f->rid, seqs, duplicates, f->u.publish.count));
}

/* SUBSCRIBED, and REVOKE for the claims that are not granted. */
static inline void broker_subscribed(struct broker *b, const struct frame *f, struct buf *out) {
    struct frame answer = {.rid = f->rid, .sub = f->sub};
    size_t count = f->u.subscribe.claims_count;
    size_t granted = b->granted < count ? b->granted : count;
    answer.u.subscribed.lease_ms = b->lease_ms;
    answer.u.subscribed.resumed = granted;
    CHECK(frame_encode_subscribed(out, &answer));
    for (size_t i = granted; i < count && !b->no_revoke; i++) {
        uint64_t tag = f->u.subscribe.claims[i].tag;
        CHECK(frame_encode_revoke(out, f->sub, &(struct frame_range){tag, tag}, 1, "lost"));
    }
}

static inline void broker_state(struct broker *b, uint32_t rid, uint32_t sub, struct buf *out) {
    struct frame f = {.rid = rid, .sub = sub};
    f.u.state.ready = b->ready;
    f.u.state.oldest_ms = 5300;
    f.u.state.out_per_s = 2.5;
    f.u.state.why_idle = slice_str("backoff");
    CHECK(frame_encode_state(out, &f));
}

static inline void broker_job_event(struct broker *b, uint32_t rid, struct buf *out) {
    struct frame f = {.rid = rid};
    struct frame_item item = {0};
    if (b->job_error != ERR_OK) {
        CHECK(frame_encode_err(out, rid, b->job_error, slice_str("there is no job"), false));
        return;
    }
    f.u.job_event.state = slice_str(b->job_seq > 0 ? "succeeded" : "pending");
    f.u.job_event.seq = b->job_seq;
    item.event = (struct event){.seq = b->job_seq,
                                .type = slice_str("batch.succeeded"),
                                .subject = slice_str(b->job),
                                .body = slice_str("{\"n\":1}")};
    if (b->job_seq > 0 && !b->job_gone) f.u.job_event.item = &item;
    CHECK(frame_encode_job_event(out, &f));
}

static inline void broker_answer(struct broker *b, const struct frame *f) {
    struct buf out = broker_buf();
    bool stale = b->stale;
    if (f->op == FRAME_HELLO && !b->no_welcome) {
        broker_welcome(b, &out, f->rid);
    } else if (f->op == FRAME_SUBSCRIBE && !b->no_subscribed) {
        broker_subscribed(b, f, &out);
    } else if (f->op == FRAME_PUBLISH && !b->no_published) {
        broker_published(b, f, &out);
    } else if (((f->op == FRAME_ACK && f->u.ack.confirm) ||
                (f->op == FRAME_NACK && f->u.nack.confirm)) &&
               !b->no_settled) {
        CHECK(frame_encode_settled(&out, f->rid, f->sub, f->ranges, stale ? 0 : f->ranges_count,
                                   NULL, 0, f->ranges, stale ? f->ranges_count : 0));
    } else if (f->op == FRAME_STATE && !b->no_state) {
        broker_state(b, f->rid, f->sub, &out);
    } else if (f->op == FRAME_WAIT && !b->no_job_event) {
        broker_job_event(b, f->rid, &out);
    } else if (f->op == FRAME_REPLAY || f->op == FRAME_REDRIVE) {
        CHECK(frame_encode_ok(&out, f->rid, 7));
    } else if (f->op == FRAME_DRAIN && !b->no_drained) {
        CHECK(frame_encode_plain(&out, FRAME_DRAINED, f->rid));
    } else if (f->op == FRAME_PING && !b->no_pong) {
        CHECK(frame_encode_plain(&out, FRAME_PONG, f->rid));
    } else if (f->op == FRAME_CLOSE && !b->no_close) {
        broker_hang_up(b);
    }
    if (out.len > 0) broker_send(b, &out);
    else buf_free(&out);
}

static inline void broker_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
    struct broker *b = handle->data;
    (void)suggested;
    *out = uv_buf_init((char *)buf_reserve(&b->in, 65536), 65536);
}

static inline void broker_on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *bytes) {
    struct broker *b = stream->data;
    (void)bytes;
    if (b->peer != (uv_tcp_t *)stream) return;
    if (nread < 0) {
        broker_hang_up(b);
        return;
    }
    b->in.len += (size_t)nread;
    if (!b->greeted && b->in.len >= FRAME_GREETING_BYTES) {
        CHECK(memcmp(b->in.data, FRAME_GREETING, FRAME_GREETING_BYTES) == 0);
        buf_consume(&b->in, FRAME_GREETING_BYTES);
        b->greeted = true;
    }
    size_t len;
    while (b->greeted && b->peer != NULL && frame_split(buf_slice(&b->in), BROKER_TOP, &len) == 1) {
        struct frame f;
        const char *why;
        if (frame_decode(b->decoder, slice_of(b->in.data, len), &f, &why) != ERR_OK) {
            fprintf(stderr, "the client sent: %s\n", why);
            b->broken++;
        } else {
            b->broken += len > b->frame_max + 4;
            broker_note(b, &f);
            broker_answer(b, &f);
        }
        if (b->peer != NULL) buf_consume(&b->in, len);
    }
}

static inline void broker_on_connection(uv_stream_t *server, int status) {
    struct broker *b = server->data;
    CHECK(status == 0);
    broker_hang_up(b);
    b->peer = mem_zalloc(sizeof *b->peer);
    CHECK(uv_tcp_init(b->loop, b->peer) == 0);
    b->peer->data = b;
    CHECK(uv_accept(server, (uv_stream_t *)b->peer) == 0);
    uv_tcp_nodelay(b->peer, 1);
    b->connections++;
    b->greeted = false;
    CHECK(uv_read_start((uv_stream_t *)b->peer, broker_on_alloc, broker_on_read) == 0);
}

static inline void broker_open(struct broker *b, uv_loop_t *loop) {
    struct sockaddr_in address;
    int size = sizeof address;
    *b = (struct broker){.loop = loop,
                         .heartbeat_ms = 10000,
                         .lease_ms = 30000,
                         .granted = SIZE_MAX,
                         .frame_max = 1 << 20,
                         .auth = "none",
                         .session = "s1",
                         .version = FRAME_VERSION};
    b->decoder = frame_decoder_new();
    buf_init(&b->in, BROKER_TOP);
    CHECK(uv_ip4_addr("127.0.0.1", 0, &address) == 0);
    CHECK(uv_tcp_init(loop, &b->server) == 0);
    b->server.data = b;
    CHECK(uv_tcp_bind(&b->server, (const struct sockaddr *)&address, 0) == 0);
    CHECK(uv_listen((uv_stream_t *)&b->server, 16, broker_on_connection) == 0);
    CHECK(uv_tcp_getsockname(&b->server, (struct sockaddr *)&address, &size) == 0);
    b->port = ntohs(address.sin_port);
}

/* The memory of the broker must live until the loop has run the closing callbacks. */
static inline void broker_close(struct broker *b) {
    broker_hang_up(b);
    uv_close((uv_handle_t *)&b->server, NULL);
    frame_decoder_free(&b->decoder);
    buf_free(&b->in);
}

#endif
