/* bench.h: what the load generators share: a clock, latencies, and connections on epoll.
 *
 * A struct pool owns its connections and their buffers from pool_open to pool_close. One thread,
 * one epoll; a generator gives two callbacks: what to send first, and what to do with the bytes
 * that came. Errors of the network end the program with a message: a benchmark that lost a
 * connection has nothing to report. May call: base, the operating system. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "base/buf.h"

#define BENCH_BUCKETS 2400

uint64_t bench_now_ns(void);

/* Latencies in buckets that are 1 to 2 % wide. */
struct bench_latency {
    uint64_t counts[BENCH_BUCKETS];
    uint64_t total;
};
void bench_latency_add(struct bench_latency *l, uint64_t ns);
/* The latency in microseconds below which `part` (0 to 1) of all lie. */
double bench_latency_us(const struct bench_latency *l, double part);

struct bench_conn {
    int fd;
    uint32_t index;
    struct buf in, out;      /* what came and was not consumed; what the socket did not take yet */
    uint64_t started_ns[64]; /* of the requests in flight, a ring */
    uint32_t head, in_flight;
    void *user;
};

struct pool {
    int epoll_fd;
    struct bench_conn *conns;
    uint32_t count;
    /* Bytes arrived in c->in. Consumes what it can; may append to c->out. */
    void (*on_data)(struct pool *p, struct bench_conn *c);
    void *ctx;
    struct bench_latency latency;
    uint64_t done, failed;
    bool measuring; /* latencies and counts are kept */
    bool stopping;
};

/* Connects `count` sockets to 127.0.0.1:port. */
void pool_open(struct pool *p, uint16_t port, uint32_t count);
void pool_close(struct pool *p);
/* Sends what is in c->out. */
void pool_flush(struct pool *p, struct bench_conn *c);
/* Waits for the sockets until the time at most, and serves those that are ready. */
void pool_turn(struct pool *p, uint64_t until_ns);
/* Runs the loop until the time or until p->stopping. */
void pool_run(struct pool *p, uint64_t until_ns);
/* Notes that a request leaves now, and that the oldest was answered. */
void pool_request(struct bench_conn *c);
void pool_answer(struct pool *p, struct bench_conn *c, bool ok);

/* One line of JSON with the figures. */
void pool_report(const struct pool *p, const char *what, uint32_t pipeline, uint64_t took_ns);

/* The value of --name among the arguments, or `fallback`; a number that is none ends the program.
 */
const char *bench_option(int argc, char **argv, const char *name, const char *fallback);
uint64_t bench_number(int argc, char **argv, const char *name, uint64_t fallback);

#endif
