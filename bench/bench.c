#include "bench/bench.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define IN_MAX  (4 * 1024 * 1024)
#define OUT_MAX (4 * 1024 * 1024)

_Noreturn static void die(const char *what) {
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

uint64_t bench_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* 64 linear steps per power of two, from 64 ns on: a bucket is 1 to 2 % wide. */
static uint32_t bucket_of(uint64_t ns) {
    if (ns < 64) return 0;
    uint32_t exponent = 63u - (uint32_t)__builtin_clzll(ns);
    uint32_t step = (uint32_t)((ns >> (exponent - 6)) & 63);
    uint32_t bucket = (exponent - 6) * 64 + step;
    return bucket < BENCH_BUCKETS ? bucket : BENCH_BUCKETS - 1;
}

void bench_latency_add(struct bench_latency *l, uint64_t ns) {
    l->counts[bucket_of(ns)]++;
    l->total++;
}

double bench_latency_us(const struct bench_latency *l, double part) {
    uint64_t want = (uint64_t)(part * (double)l->total), seen = 0;
    for (uint32_t b = 0; b < BENCH_BUCKETS; b++) {
        seen += l->counts[b];
        if (seen > want) {
            uint64_t low = (64ull + b % 64) << (b / 64);
            return (double)low / 1000.0;
        }
    }
    return 0;
}

void pool_open(struct pool *p, uint16_t port, uint32_t count) {
    p->count = count;
    p->conns = mem_zalloc(count * sizeof *p->conns);
    p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (p->epoll_fd < 0) die("epoll_create1");
    for (uint32_t i = 0; i < count; i++) {
        struct bench_conn *c = &p->conns[i];
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        c->index = i;
        buf_init(&c->in, IN_MAX);
        buf_init(&c->out, OUT_MAX);
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (c->fd < 0) die("socket");
        if (connect(c->fd, (struct sockaddr *)&to, sizeof to) != 0) die("connect");
        int on = 1;
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, c->fd, &e) != 0) die("epoll_ctl");
    }
}

void pool_close(struct pool *p) {
    for (uint32_t i = 0; i < p->count; i++) {
        close(p->conns[i].fd);
        buf_free(&p->conns[i].in);
        buf_free(&p->conns[i].out);
    }
    close(p->epoll_fd);
    free(p->conns);
    p->conns = NULL;
}

static void watch(struct pool *p, struct bench_conn *c, bool writing) {
    struct epoll_event e = {.events = EPOLLIN | (writing ? EPOLLOUT : 0u), .data.ptr = c};
    if (epoll_ctl(p->epoll_fd, EPOLL_CTL_MOD, c->fd, &e) != 0) die("epoll_ctl");
}

void pool_flush(struct pool *p, struct bench_conn *c) {
    CHECK(!c->out.overflow);
    if (c->out.len == 0) return;
    ssize_t n = send(c->fd, c->out.data, c->out.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR) die("send");
    bool short_write = n < (ssize_t)c->out.len;
    if (n > 0) buf_consume(&c->out, (size_t)n);
    if (short_write) watch(p, c, true);
}

static void readable(struct pool *p, struct bench_conn *c) {
    size_t room = 256 * 1024;
    uint8_t *at = buf_reserve(&c->in, room);
    CHECK(at != NULL);
    ssize_t n = recv(c->fd, at, room, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n < 0) die("recv");
    if (n == 0) {
        fprintf(stderr, "bench: the server closed connection %u\n", c->index);
        exit(1);
    }
    c->in.len += (size_t)n;
    p->on_data(p, c);
    pool_flush(p, c);
}

void pool_turn(struct pool *p, uint64_t until_ns) {
    struct epoll_event events[256];
    uint64_t now = bench_now_ns();
    uint64_t left_ns = until_ns > now ? until_ns - now : 0;
    /* In nanoseconds: a loop that keeps a rate would else be up to a millisecond late. */
    struct timespec timeout = {.tv_sec = (time_t)(left_ns / 1000000000u),
                               .tv_nsec = (long)(left_ns % 1000000000u)};
    int n = epoll_pwait2(p->epoll_fd, events, 256, &timeout, NULL);
    if (n < 0 && errno != EINTR) die("epoll_pwait2");
    for (int i = 0; i < n && !p->stopping; i++) {
        struct bench_conn *c = events[i].data.ptr;
        if (events[i].events & EPOLLOUT) {
            watch(p, c, false);
            pool_flush(p, c);
        }
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(p, c);
    }
}

void pool_run(struct pool *p, uint64_t until_ns) {
    while (!p->stopping && bench_now_ns() < until_ns) pool_turn(p, until_ns);
}

void pool_request(struct bench_conn *c) {
    CHECK(c->in_flight < 64);
    c->started_ns[(c->head + c->in_flight) % 64] = bench_now_ns();
    c->in_flight++;
}

void pool_answer(struct pool *p, struct bench_conn *c, bool ok) {
    CHECK(c->in_flight > 0);
    uint64_t took = bench_now_ns() - c->started_ns[c->head];
    c->head = (c->head + 1) % 64;
    c->in_flight--;
    if (!p->measuring) return;
    bench_latency_add(&p->latency, took);
    p->done++;
    if (!ok) p->failed++;
}

void pool_report(const struct pool *p, const char *what, uint32_t pipeline, uint64_t took_ns) {
    double seconds = (double)took_ns / 1e9;
    printf(
        "{\"what\":\"%s\",\"connections\":%u,\"pipeline\":%u,\"seconds\":%.3f,\"count\":%llu,"
        "\"per_s\":%.0f,\"p50_us\":%.0f,\"p99_us\":%.0f,\"failed\":%llu}\n",
        what, p->count, pipeline, seconds, (unsigned long long)p->done, (double)p->done / seconds,
        bench_latency_us(&p->latency, 0.5), bench_latency_us(&p->latency, 0.99),
        (unsigned long long)p->failed);
}

const char *bench_option(int argc, char **argv, const char *name, const char *fallback) {
    for (int i = 1; i + 1 < argc; i++) {
        if (strncmp(argv[i], "--", 2) == 0 && strcmp(argv[i] + 2, name) == 0) return argv[i + 1];
    }
    return fallback;
}

uint64_t bench_number(int argc, char **argv, const char *name, uint64_t fallback) {
    const char *text = bench_option(argc, argv, name, NULL);
    uint64_t value = fallback;
    if (text != NULL && !slice_to_u64(slice_str(text), &value)) {
        fprintf(stderr, "bench: --%s wants a number, not \"%s\"\n", name, text);
        exit(2);
    }
    return value;
}
