/* workers: load over the worker protocol on loopback, one thread, one epoll.
 *
 *   workers publish --port N [--connections 64] [--pipeline 16] [--bytes 300] [--seconds N]
 *   workers consume --port N [--connections 8] [--window 64] [--bytes 1024] [--count N] [--confirm
 * 1]
 *
 * publish: every connection keeps so many PUBLISH frames of one event each in flight. consume:
 * fills the journal, then so many workers take and ack it all; the clock runs from the first
 * subscribe to the moment when the last event was delivered and its ack was sent. One line of JSON.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "proto/frame.h"
#include "proto/limits.h"

#define FRAME_MAX  (16u * 1024 * 1024)
#define WARM_UP_NS 300000000ull
#define NAME       "bench"

struct load {
    struct frame_decoder *decoder;
    struct event event; /* what is published */
    uint32_t pipeline;
    uint32_t batch; /* events per PUBLISH */
    uint64_t want, got;
    uint64_t window;
    bool consuming, confirm;
    uint32_t ready; /* connections that have their WELCOME */
};

static void publish(struct load *l, struct bench_conn *c) {
    struct event events[64];
    for (uint32_t i = 0; i < l->batch; i++) events[i] = l->event;
    CHECK(frame_encode_publish(&c->out, 1, events, l->batch));
    pool_request(c);
}

static void on_welcome(struct load *l, struct bench_conn *c) {
    l->ready++;
    if (!l->consuming) {
        for (uint32_t i = 0; i < l->pipeline; i++) publish(l, c);
        return;
    }
    struct frame_policy create = {.present = true,
                                  .max_fails = UINT64_MAX,
                                  .backoff_min_ms = UINT64_MAX,
                                  .backoff_max_ms = UINT64_MAX,
                                  .start = FRAME_START_FIRST};
    CHECK(frame_encode_subscribe(&c->out, 2, 1, slice_str(NAME), l->window, LIMIT_WINDOW_BYTES, 0,
                                 &create));
}

static void on_deliver(struct pool *p, struct load *l, struct bench_conn *c,
                       const struct frame *f) {
    struct frame_range ranges[1024];
    size_t count = 0;
    for (size_t i = 0; i < f->u.deliver.count; i++) {
        uint64_t tag = f->u.deliver.items[i].tag;
        if (count > 0 && ranges[count - 1].hi + 1 == tag) {
            ranges[count - 1].hi = tag;
            continue;
        }
        CHECK(count < 1024);
        ranges[count++] = (struct frame_range){tag, tag};
    }
    CHECK(frame_encode_ack(&c->out, l->confirm ? 3 : 0, f->sub, ranges, count, l->confirm));
    l->got += f->u.deliver.count;
    p->done += f->u.deliver.count;
    if (l->got >= l->want) p->stopping = true;
}

static void on_frame(struct pool *p, struct bench_conn *c, const struct frame *f) {
    struct load *l = p->ctx;
    switch (f->op) {
    case FRAME_WELCOME: on_welcome(l, c); break;
    case FRAME_PUBLISHED:
        pool_answer(p, c, true);
        l->got += f->u.published.count;
        if (l->want == 0) publish(l, c);
        else if (l->got + (uint64_t)c->in_flight * l->batch * p->count < l->want + l->batch)
            publish(l, c);
        if (l->want > 0 && l->got >= l->want) p->stopping = true;
        break;
    case FRAME_DELIVER: on_deliver(p, l, c, f); break;
    case FRAME_PING: CHECK(frame_encode_plain(&c->out, FRAME_PONG, f->rid)); break;
    case FRAME_SUBSCRIBED:
    case FRAME_SETTLED: break;
    case FRAME_ERR:
        fprintf(stderr, "workers: the broker says %.*s: %.*s\n", SLICE_ARG(f->u.err.word),
                SLICE_ARG(f->u.err.message));
        exit(1);
    default: fprintf(stderr, "workers: unexpected op %d\n", f->op); exit(1);
    }
}

static void on_data(struct pool *p, struct bench_conn *c) {
    struct load *l = p->ctx;
    size_t at = 0, len = 0;
    while (frame_split(slice_from(buf_slice(&c->in), at), FRAME_MAX, &len) == 1) {
        struct frame f;
        const char *why = "";
        if (frame_decode(l->decoder, slice_of(c->in.data + at, len), &f, &why) != 0) {
            fprintf(stderr, "workers: a frame that is none: %s\n", why);
            exit(1);
        }
        on_frame(p, c, &f);
        at += len;
    }
    buf_consume(&c->in, at);
}

static void greet(struct pool *p) {
    for (uint32_t i = 0; i < p->count; i++) {
        struct bench_conn *c = &p->conns[i];
        (void)buf_append_str(&c->out, FRAME_GREETING);
        CHECK(frame_encode_hello(&c->out, 1, "bench", BELLHOP_VERSION, 0));
        pool_flush(p, c);
    }
}

static uint64_t run_publish(struct pool *p, struct load *l, uint16_t port, uint32_t connections,
                            uint64_t seconds) {
    p->ctx = l;
    pool_open(p, port, connections);
    greet(p);
    pool_run(p, bench_now_ns() + WARM_UP_NS);
    p->measuring = true;
    uint64_t began = bench_now_ns();
    pool_run(p, began + seconds * 1000000000u);
    return bench_now_ns() - began;
}

static uint64_t run_consume(struct pool *p, struct load *l, uint16_t port, uint32_t connections) {
    struct load fill = *l;
    static struct pool filling;
    filling.on_data = on_data;
    filling.ctx = &fill;
    fill.consuming = false;
    fill.batch = 64;
    fill.pipeline = 4;
    pool_open(&filling, port, 4);
    greet(&filling);
    pool_run(&filling, bench_now_ns() + 60000000000ull);
    pool_close(&filling);
    l->want = fill.got;
    p->ctx = l;
    pool_open(p, port, connections);
    uint64_t began = bench_now_ns();
    greet(p);
    pool_run(p, began + 60000000000ull);
    uint64_t took = bench_now_ns() - began;
    for (uint32_t i = 0; i < p->count; i++) pool_flush(p, &p->conns[i]);
    if (l->got < l->want) p->failed = l->want - l->got;
    return took;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    static struct pool p;
    uint16_t port = (uint16_t)bench_number(argc, argv, "port", 0);
    bool consume = strcmp(mode, "consume") == 0;
    uint32_t connections = (uint32_t)bench_number(argc, argv, "connections", consume ? 8 : 64);
    uint64_t bytes = bench_number(argc, argv, "bytes", consume ? 1024 : 300);
    struct load l = {.batch = 1, .consuming = consume};
    l.pipeline = (uint32_t)bench_number(argc, argv, "pipeline", 16);
    l.window = bench_number(argc, argv, "window", 64);
    l.confirm = bench_number(argc, argv, "confirm", 0) != 0;
    l.want = consume ? bench_number(argc, argv, "count", 200000) : 0;
    if (port == 0 || l.pipeline == 0 || l.pipeline > 64 ||
        (!consume && strcmp(mode, "publish") != 0)) {
        fprintf(stderr, "workers: workers publish|consume --port N ...\n");
        return 2;
    }
    uint8_t *body = mem_zalloc(bytes + 1);
    memset(body, 'x', bytes);
    l.event = (struct event){.type = slice_str("bench.event"), .body = slice_of(body, bytes)};
    l.decoder = frame_decoder_new();
    p.on_data = on_data;
    uint64_t took =
        consume ? run_consume(&p, &l, port, connections)
                : run_publish(&p, &l, port, connections, bench_number(argc, argv, "seconds", 3));
    pool_report(&p, mode, consume ? (uint32_t)l.window : l.pipeline, took);
    pool_close(&p);
    frame_decoder_free(&l.decoder);
    free(body);
    return p.failed == 0 ? 0 : 1;
}
