/* poison: how long fresh events wait for a worker while a burst of others fails again and again.
 *
 *   poison --port N [--rate 500] [--seconds 10] [--burst 10000] [--workers 2] [--window 100]
 *          [--service-us 0] [--create POLICY]
 *
 * One subscription. Fresh events are published at a steady rate, whatever the broker does (open
 * loop); a worker acks each one after the service time, and nacks every poison event after the
 * same time. First so many seconds without a burst; then the burst is published as fast as the
 * broker takes it, and so many seconds follow. An event's latency is from the moment when it should
 * have been published to its DELIVER, and belongs to the phase and second of that moment. The
 * service time is one of waiting: a worker serves its whole window at once. One line of JSON. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/wire.h"
#include "proto/limits.h"

#define BODY_BYTES   300
#define SECOND_NS    1000000000ull
#define WARM_UP_NS   SECOND_NS
#define SECONDS_MAX  300
#define WORKERS_MAX  16
#define WINDOW_MAX   1024
#define BURST_FRAME  500
#define BURST_MAX    12000            /* what a connection's buffer takes at once */
#define LINGER_NS    (20 * SECOND_NS) /* longest wait at the end for what is late */
#define PUBLISHER    0                /* connections: fresh events, the burst, then the workers */
#define BURSTER      1
#define FIRST_WORKER 2

struct held {
    uint64_t tag, due_ns;
    bool poison;
};

struct worker {
    struct held held[WINDOW_MAX]; /* a ring, by rising due time: the service time is the same */
    uint32_t head, count;
};

struct phase {
    struct bench_latency all, seconds[SECONDS_MAX];
    uint64_t began_ns, sent, came, max_ns;
};

struct poison {
    struct wire wire; /* first: the pool knows the load by it */
    struct pool pool;
    struct worker workers[WORKERS_MAX];
    struct phase calm, burst;
    const char *create;
    uint64_t window, service_ns, nacks, poison_seen;
    uint32_t worker_count, ready;
};

/* The body carries the moment when the event was due to be published. */
static void publish_fresh(struct poison *t, uint64_t due_ns) {
    static uint8_t body[BODY_BYTES];
    memcpy(body, &due_ns, sizeof due_ns);
    struct event e = {.type = slice_str("fresh"), .body = slice_of(body, sizeof body)};
    struct bench_conn *c = &t->pool.conns[PUBLISHER];
    CHECK(frame_encode_publish(&c->out, 1, &e, 1));
    pool_flush(&t->pool, c);
}

static void publish_burst(struct poison *t, uint64_t count) {
    static uint8_t body[BODY_BYTES];
    static struct event events[BURST_FRAME];
    for (uint32_t i = 0; i < BURST_FRAME; i++)
        events[i] =
            (struct event){.type = slice_str("poison"), .body = slice_of(body, sizeof body)};
    struct bench_conn *c = &t->pool.conns[BURSTER];
    for (uint64_t sent = 0; sent < count;) {
        uint64_t n = count - sent < BURST_FRAME ? count - sent : BURST_FRAME;
        CHECK(frame_encode_publish(&c->out, 1, events, n));
        sent += n;
    }
    pool_flush(&t->pool, c);
}

static void note_latency(struct poison *t, uint64_t due_ns, uint64_t now_ns) {
    struct phase *ph = &t->calm;
    if (t->burst.began_ns != 0 && due_ns >= t->burst.began_ns) ph = &t->burst;
    if (ph->began_ns == 0 || due_ns < ph->began_ns) return; /* of the warm-up */
    uint64_t took = now_ns - due_ns, second = (due_ns - ph->began_ns) / SECOND_NS;
    bench_latency_add(&ph->all, took);
    if (second < SECONDS_MAX) bench_latency_add(&ph->seconds[second], took);
    if (took > ph->max_ns) ph->max_ns = took;
    ph->came++;
}

static void on_deliver(struct poison *t, struct bench_conn *c, const struct frame *f) {
    struct worker *w = &t->workers[c->index - FIRST_WORKER];
    uint64_t now = bench_now_ns();
    for (size_t i = 0; i < f->u.deliver.count; i++) {
        const struct frame_item *item = &f->u.deliver.items[i];
        bool poison = slice_eq_str(item->event.type, "poison");
        CHECK(w->count < WINDOW_MAX);
        w->held[(w->head + w->count++) % WINDOW_MAX] =
            (struct held){item->tag, now + t->service_ns, poison};
        if (poison) {
            if (item->deliveries == 1) t->poison_seen++;
            continue;
        }
        uint64_t due_ns = 0;
        CHECK(item->event.body.len == BODY_BYTES);
        memcpy(&due_ns, item->event.body.data, sizeof due_ns);
        note_latency(t, due_ns, now);
    }
}

static void send_settled(struct poison *t, struct bench_conn *c, const struct wire_tags *tags,
                         bool poison) {
    if (tags->count == 0) return;
    struct frame_failure failure = {.type = slice_str("Poison"), .message = slice_str("always")};
    if (poison)
        CHECK(frame_encode_nack(&c->out, 0, 1, tags->ranges, tags->count, FRAME_NACK_FAIL,
                                FRAME_DELAY_POLICY, &failure, false));
    else CHECK(frame_encode_ack(&c->out, 0, 1, tags->ranges, tags->count, false));
    pool_flush(&t->pool, c);
}

/* Settles what has been served; the moment when the next one will have been. */
static uint64_t settle(struct poison *t) {
    static struct wire_tags good, bad;
    uint64_t next_ns = UINT64_MAX, now = bench_now_ns();
    for (uint32_t i = 0; i < t->worker_count; i++) {
        struct worker *w = &t->workers[i];
        good.count = bad.count = 0;
        while (w->count > 0 && w->held[w->head].due_ns <= now) {
            const struct held *h = &w->held[w->head];
            CHECK(wire_tags_add(h->poison ? &bad : &good, h->tag));
            if (h->poison) t->nacks++;
            w->head = (w->head + 1) % WINDOW_MAX;
            w->count--;
        }
        struct bench_conn *c = &t->pool.conns[FIRST_WORKER + i];
        send_settled(t, c, &good, false);
        send_settled(t, c, &bad, true);
        if (w->count > 0 && w->held[w->head].due_ns < next_ns) next_ns = w->held[w->head].due_ns;
    }
    return next_ns;
}

static void on_frame(struct pool *p, struct bench_conn *c, const struct frame *f) {
    struct poison *t = p->ctx;
    switch (f->op) {
    case FRAME_WELCOME:
        if (c->index < FIRST_WORKER) break;
        struct frame s = {.rid = 2, .sub = 1};
        s.u.subscribe.name = slice_str("poison");
        s.u.subscribe.window_events = t->window;
        s.u.subscribe.window_bytes = LIMIT_WINDOW_BYTES;
        s.u.subscribe.create = slice_str(t->create);
        CHECK(frame_encode_subscribe(&c->out, &s));
        break;
    case FRAME_SUBSCRIBED:
        if (++t->ready == t->worker_count) p->stopping = true;
        break;
    case FRAME_DELIVER: on_deliver(t, c, f); break;
    case FRAME_PUBLISHED:
    case FRAME_LEASE: break;
    default: fprintf(stderr, "poison: unexpected op %d\n", f->op); exit(1);
    }
}

/* Runs the sockets until the time, or until something can be settled. With no service time that
 * is as soon as anything came: a turn of the loop at a time. */
static void run_until(struct poison *t, uint64_t until_ns) {
    while (bench_now_ns() < until_ns) {
        uint64_t next_ns = settle(t);
        pool_turn(&t->pool, next_ns < until_ns ? next_ns : until_ns);
    }
    (void)settle(t);
}

/* Publishes at the rate for so long. */
static void run_rate(struct poison *t, struct phase *ph, uint64_t rate, uint64_t took_ns) {
    uint64_t began = bench_now_ns();
    if (ph != NULL) ph->began_ns = began;
    for (uint64_t n = 0; n * SECOND_NS / rate < took_ns; n++) {
        uint64_t due_ns = began + n * SECOND_NS / rate;
        run_until(t, due_ns);
        publish_fresh(t, due_ns);
        if (ph != NULL) ph->sent++;
    }
    run_until(t, began + took_ns);
}

/* The medians of its seconds too: a median over all of them does not see a short stop. */
static void print_phase(const char *name, const struct phase *ph, uint64_t seconds) {
    printf(
        "\"%s\":{\"sent\":%llu,\"came\":%llu,\"p50_us\":%.0f,\"p99_us\":%.0f,\"max_us\":%.0f,"
        "\"seconds_p50_us\":[",
        name, (unsigned long long)ph->sent, (unsigned long long)ph->came,
        bench_latency_us(&ph->all, 0.5), bench_latency_us(&ph->all, 0.99),
        (double)ph->max_ns / 1000);
    for (uint64_t i = 0; i < seconds; i++)
        printf("%s%.0f", i > 0 ? "," : "", bench_latency_us(&ph->seconds[i], 0.5));
    printf("]},");
}

int main(int argc, char **argv) {
    static struct poison t = {.wire = {.program = "poison", .on_frame = on_frame}};
    uint16_t port = (uint16_t)bench_number(argc, argv, "port", 0);
    uint64_t rate = bench_number(argc, argv, "rate", 500);
    uint64_t seconds = bench_number(argc, argv, "seconds", 10);
    uint64_t burst = bench_number(argc, argv, "burst", 10000);
    t.worker_count = (uint32_t)bench_number(argc, argv, "workers", 2);
    t.window = bench_number(argc, argv, "window", 100);
    t.service_ns = bench_number(argc, argv, "service-us", 0) * 1000;
    t.create = bench_option(argc, argv, "create", "{\"max_fails\":0}");
    if (port == 0 || rate == 0 || seconds == 0 || seconds > SECONDS_MAX || t.worker_count == 0 ||
        t.worker_count > WORKERS_MAX || t.window == 0 || t.window > WINDOW_MAX ||
        burst > BURST_MAX) {
        fprintf(stderr, "poison: poison --port N ...\n");
        return 2;
    }
    wire_open(&t.wire, &t.pool);
    pool_open(&t.pool, port, FIRST_WORKER + t.worker_count);
    wire_greet(&t.pool);
    pool_run(&t.pool, bench_now_ns() + LINGER_NS);
    CHECK(t.ready == t.worker_count);
    t.pool.stopping = false;
    run_rate(&t, NULL, rate, WARM_UP_NS);
    run_rate(&t, &t.calm, rate, seconds * SECOND_NS);
    publish_burst(&t, burst);
    run_rate(&t, &t.burst, rate, seconds * SECOND_NS);
    uint64_t end = bench_now_ns() + LINGER_NS;
    while (bench_now_ns() < end && t.calm.came + t.burst.came < t.calm.sent + t.burst.sent)
        run_until(&t, bench_now_ns() + SECOND_NS / 100);
    printf("{\"what\":\"poison\",");
    print_phase("calm", &t.calm, seconds);
    print_phase("burst", &t.burst, seconds);
    printf("\"poison_first\":%llu,\"nacks\":%llu}\n", (unsigned long long)t.poison_seen,
           (unsigned long long)t.nacks);
    pool_close(&t.pool);
    wire_close(&t.wire);
    return t.calm.came + t.burst.came < t.calm.sent + t.burst.sent ? 1 : 0;
}
