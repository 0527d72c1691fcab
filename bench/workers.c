/* workers: load over the worker protocol on loopback, one thread, one epoll.
 *
 *   workers publish --port N [--connections 64] [--pipeline 16] [--batch 1] [--bytes 300]
 *                   [--seconds 3 | --count N] [--type T] [--subject S] [--metadata JSON]
 *                   [--deliver-after-ms N] [--ids 1]
 *   workers consume --port N [--connections 8] [--window 64] [--bytes 1024] [--count N]
 *                   [--confirm 1] [--fill 0] [--name bench] [--create '{"start":"first"}']
 *
 * publish: every connection keeps so many PUBLISH frames in flight, for so long or until so many
 * events are answered; ids gives each event an id of its own. consume: fills the journal first
 * (unless fill is 0), then so many workers take and ack `count` events; the clock runs from the
 * first subscribe to the moment when the last event was delivered and its ack was sent. One line of
 * JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "bench/wire.h"
#include "proto/limits.h"

#define WARM_UP_NS 300000000ull
#define ID_CHARS   32

struct load {
    struct wire wire;   /* first: the pool knows the load by it */
    struct event event; /* what is published */
    char (*ids)[ID_CHARS];
    uint64_t run; /* makes the ids of one run differ from another's */
    uint64_t deliver_after_ms;
    uint32_t pipeline, batch; /* frames in flight; events per PUBLISH */
    uint64_t want, sent, got; /* want 0: until the time is over */
    uint64_t window;
    const char *name, *create;
    bool consuming, confirm;
};

static uint64_t wall_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void publish(struct load *l, struct bench_conn *c) {
    static struct event events[LIMIT_PUBLISH_EVENTS];
    uint64_t count = l->batch;
    if (l->want > 0 && count > l->want - l->sent) count = l->want - l->sent;
    if (count == 0) return;
    uint64_t due_ms = l->deliver_after_ms > 0 ? wall_ms() + l->deliver_after_ms : 0;
    for (uint64_t i = 0; i < count; i++) {
        events[i] = l->event;
        events[i].deliver_at_ms = due_ms;
        if (l->ids == NULL) continue;
        int len = snprintf(l->ids[i], ID_CHARS, "%016llx%012llx", (unsigned long long)l->run,
                           (unsigned long long)(l->sent + i));
        events[i].id = slice_of(l->ids[i], (size_t)len);
    }
    l->sent += count;
    CHECK(frame_encode_publish(&c->out, 1, events, count));
    pool_request(c);
}

static void on_welcome(struct load *l, struct bench_conn *c) {
    if (!l->consuming) {
        for (uint32_t i = 0; i < l->pipeline; i++) publish(l, c);
        return;
    }
    struct frame f = {.rid = 2, .sub = 1};
    f.u.subscribe.name = slice_str(l->name);
    f.u.subscribe.window_events = l->window;
    f.u.subscribe.window_bytes = LIMIT_WINDOW_BYTES;
    f.u.subscribe.create = slice_str(l->create);
    CHECK(frame_encode_subscribe(&c->out, &f));
}

static void on_deliver(struct pool *p, struct load *l, struct bench_conn *c,
                       const struct frame *f) {
    static struct wire_tags tags;
    tags.count = 0;
    for (size_t i = 0; i < f->u.deliver.count; i++)
        CHECK(wire_tags_add(&tags, f->u.deliver.items[i].tag));
    CHECK(
        frame_encode_ack(&c->out, l->confirm ? 3 : 0, f->sub, tags.ranges, tags.count, l->confirm));
    l->got += f->u.deliver.count;
    p->done += f->u.deliver.count;
    if (l->got >= l->want) p->stopping = true;
}

static void on_published(struct pool *p, struct load *l, struct bench_conn *c,
                         const struct frame *f) {
    size_t count = f->u.published.count;
    pool_answer(p, c, true);
    if (p->measuring) p->done += count - 1; /* the answer counted as one */
    l->got += count;
    if (l->want > 0 && l->got >= l->want) p->stopping = true;
    publish(l, c);
}

static void on_frame(struct pool *p, struct bench_conn *c, const struct frame *f) {
    struct load *l = p->ctx;
    switch (f->op) {
    case FRAME_WELCOME: on_welcome(l, c); break;
    case FRAME_PUBLISHED: on_published(p, l, c, f); break;
    case FRAME_DELIVER: on_deliver(p, l, c, f); break;
    case FRAME_SUBSCRIBED:
    case FRAME_LEASE:
    case FRAME_SETTLED: break;
    default: fprintf(stderr, "workers: unexpected op %d\n", f->op); exit(1);
    }
}

static uint64_t run_publish(struct pool *p, struct load *l, uint16_t port, uint32_t connections,
                            uint64_t seconds, uint64_t deadline_ns) {
    wire_open(&l->wire, p);
    pool_open(p, port, connections);
    p->measuring = l->want > 0;
    uint64_t began = bench_now_ns();
    wire_greet(p);
    if (l->want > 0) {
        pool_run(p, began + deadline_ns);
        if (l->got < l->want) p->failed = l->want - l->got;
        return bench_now_ns() - began;
    }
    pool_run(p, began + WARM_UP_NS);
    p->measuring = true;
    began = bench_now_ns();
    pool_run(p, began + seconds * 1000000000u);
    return bench_now_ns() - began;
}

static void fill(const struct load *l, uint16_t port, uint64_t deadline_ns) {
    struct load filling = *l;
    static struct pool p;
    filling.consuming = false;
    filling.batch = 64;
    filling.pipeline = 4;
    (void)run_publish(&p, &filling, port, 4, 0, deadline_ns);
    pool_close(&p);
    wire_close(&filling.wire);
}

static uint64_t run_consume(struct pool *p, struct load *l, uint16_t port, uint32_t connections,
                            uint64_t deadline_ns) {
    wire_open(&l->wire, p);
    pool_open(p, port, connections);
    uint64_t began = bench_now_ns();
    wire_greet(p);
    pool_run(p, began + deadline_ns);
    uint64_t took = bench_now_ns() - began;
    if (l->got < l->want) p->failed = l->want - l->got;
    for (uint32_t i = 0; i < p->count; i++) {
        /* What else was handed out was not tried: it goes back without a fail. */
        CHECK(frame_encode_plain(&p->conns[i].out, FRAME_CLOSE, 0));
        pool_flush(p, &p->conns[i]);
    }
    return took;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    static struct pool p;
    uint16_t port = (uint16_t)bench_number(argc, argv, "port", 0);
    bool consume = strcmp(mode, "consume") == 0;
    uint32_t connections = (uint32_t)bench_number(argc, argv, "connections", consume ? 8 : 64);
    uint64_t bytes = bench_number(argc, argv, "bytes", consume ? 1024 : 300);
    uint64_t deadline_ns = bench_number(argc, argv, "deadline", 60) * 1000000000u;
    struct load l = {.wire = {.program = "workers", .on_frame = on_frame}, .consuming = consume};
    l.pipeline = (uint32_t)bench_number(argc, argv, "pipeline", 16);
    l.batch = (uint32_t)bench_number(argc, argv, "batch", 1);
    l.window = bench_number(argc, argv, "window", 64);
    l.confirm = bench_number(argc, argv, "confirm", 0) != 0;
    l.want = bench_number(argc, argv, "count", consume ? 200000 : 0);
    l.deliver_after_ms = bench_number(argc, argv, "deliver-after-ms", 0);
    l.name = bench_option(argc, argv, "name", "bench");
    l.create = bench_option(argc, argv, "create", "{\"start\":\"first\"}");
    if (port == 0 || l.pipeline == 0 || l.pipeline > 64 || l.batch == 0 ||
        l.batch > LIMIT_PUBLISH_EVENTS || (!consume && strcmp(mode, "publish") != 0)) {
        fprintf(stderr, "workers: workers publish|consume --port N ...\n");
        return 2;
    }
    uint8_t *body = mem_zalloc(bytes + 1);
    memset(body, 'x', bytes);
    l.event = (struct event){.type = slice_str(bench_option(argc, argv, "type", "bench.event")),
                             .subject = slice_str(bench_option(argc, argv, "subject", "")),
                             .metadata = slice_str(bench_option(argc, argv, "metadata", "")),
                             .body = slice_of(body, bytes)};
    if (bench_number(argc, argv, "ids", 0) != 0) l.ids = mem_alloc(l.batch * sizeof *l.ids);
    l.run = bench_now_ns();
    if (consume && bench_number(argc, argv, "fill", 1) != 0) fill(&l, port, deadline_ns);
    uint64_t took = consume ? run_consume(&p, &l, port, connections, deadline_ns)
                            : run_publish(&p, &l, port, connections,
                                          bench_number(argc, argv, "seconds", 3), deadline_ns);
    pool_report(&p, mode, consume ? (uint32_t)l.window : l.pipeline, took);
    pool_close(&p);
    wire_close(&l.wire);
    free(l.ids);
    free(body);
    return p.failed == 0 ? 0 : 1;
}
