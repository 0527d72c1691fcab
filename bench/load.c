/* load: HTTP and Redis load on loopback, one thread, one epoll.
 *
 *   load http  --port N --secret whsec_... [--path /in/bench] [--connections N] [--seconds N]
 *   load redis --port N [--connections N] [--seconds N] [--pipeline N] [--bytes 300]
 *   load redis-consume --port N [--connections 8] [--count N] [--bytes 1024] [--batch 64]
 *
 * http: keep-alive connections with one request outstanding each. Every request has a webhook-id
 * of its own and a right signature; the signatures are made before the clock starts, so that what
 * is measured is the server and not our HMAC. redis: XADD of so many bytes. redis-consume: fills a
 * stream, then reads it with XREADGROUP COUNT batch and XACK. One line of JSON with the figures. */
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/base64.h"
#include "bench/bench.h"

#define SIGNATURE_CHARS 44
#define ID_CHARS        24 /* 16 digits of the run, 8 of the request */
#define REQUESTS_PER_S                                                                             \
    220000 /* signatures made per second of the run: more than any server took                     \
            */
#define WARM_UP_NS 300000000ull

/* 220 bytes, in the form of the Gemini API's batch.succeeded. */
static const char BODY[] =
    "{\"type\":\"batch.succeeded\",\"version\":\"v1\",\"timestamp\":\"2026-01-22T12:00:00Z\","
    "\"data\":{\"id\":\"batch_0123456789abcdef\",\"output_file_uri\":\"gs://bucket/out/"
    "result.jsonl\"},"
    "\"user_metadata\":{\"team\":\"a\",\"customer\":\"c-0042\",\"k\":1}}";
_Static_assert(sizeof BODY - 1 >= 215 && sizeof BODY - 1 <= 225, "the body is about 220 bytes");

struct http_load {
    struct buf request; /* one whole request; id and signature are set per use */
    size_t id_at, signature_at;
    char (*signatures)[SIGNATURE_CHARS];
    char run[17];
    uint64_t next, count;
};

static void write_id(const struct http_load *h, uint64_t n, char out[ID_CHARS]) {
    memcpy(out, h->run, 16);
    for (int i = ID_CHARS - 1; i >= 16; i--, n >>= 4) out[i] = "0123456789abcdef"[n & 15];
}

static void make_signatures(struct http_load *h, const char *secret, uint64_t now_s) {
    uint8_t key[128];
    struct slice text = slice_str(secret);
    if (slice_starts_with(text, "whsec_")) text = slice_from(text, 6);
    long key_len = base64_decode(text, key, sizeof key);
    if (key_len < 0) {
        fprintf(stderr, "load: --secret is not base64\n");
        exit(2);
    }
    char message[ID_CHARS + 32 + sizeof BODY];
    int head = snprintf(message, sizeof message, "%*s.%llu.%s", ID_CHARS, "",
                        (unsigned long long)now_s, BODY);
    h->signatures = mem_alloc(h->count * SIGNATURE_CHARS);
    for (uint64_t n = 0; n < h->count; n++) {
        uint8_t mac[32];
        unsigned mac_len = 0;
        char encoded[SIGNATURE_CHARS + 1];
        write_id(h, n, message);
        HMAC(EVP_sha256(), key, (int)key_len, (uint8_t *)message, (size_t)head, mac, &mac_len);
        EVP_EncodeBlock((uint8_t *)encoded, mac, 32);
        memcpy(h->signatures[n], encoded, SIGNATURE_CHARS);
    }
}

static void http_send(struct pool *p, struct bench_conn *c) {
    struct http_load *h = p->ctx;
    if (h->next == h->count) {
        p->stopping = true;
        return;
    }
    write_id(h, h->next, (char *)h->request.data + h->id_at);
    memcpy(h->request.data + h->signature_at, h->signatures[h->next], SIGNATURE_CHARS);
    h->next++;
    (void)buf_append_slice(&c->out, buf_slice(&h->request));
    pool_request(c);
}

/* The length of the answer at the front, or 0 while it is not all there. */
static size_t http_answer(struct slice in, bool *ok) {
    const uint8_t *end = memmem(in.data, in.len, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    size_t head = (size_t)(end - in.data) + 4, body = 0;
    const char *names[] = {"Content-Length: ", "content-length: "};
    for (int i = 0; i < 2; i++) {
        const uint8_t *at = memmem(in.data, head, names[i], 16);
        if (at == NULL) continue;
        for (at += 16; *at >= '0' && *at <= '9'; at++) body = body * 10 + (size_t)(*at - '0');
    }
    if (in.len < head + body) return 0;
    *ok = in.len > 12 && memcmp(in.data + 9, "200", 3) == 0;
    return head + body;
}

static void http_on_data(struct pool *p, struct bench_conn *c) {
    bool ok = false;
    size_t len;
    while ((len = http_answer(buf_slice(&c->in), &ok)) > 0) {
        if (!ok && p->failed == 0) fprintf(stderr, "load: %.*s\n", (int)len, (char *)c->in.data);
        buf_consume(&c->in, len);
        pool_answer(p, c, ok);
        http_send(p, c);
    }
}

static void http_prepare(struct http_load *h, int argc, char **argv, uint64_t seconds) {
    uint64_t now_s = (uint64_t)time(NULL), random = 0;
    RAND_bytes((uint8_t *)&random, sizeof random);
    snprintf(h->run, sizeof h->run, "%016llx", (unsigned long long)random);
    h->count = (seconds + 1) * REQUESTS_PER_S;
    make_signatures(h, bench_option(argc, argv, "secret", "whsec_"), now_s);
    buf_init(&h->request, 4096);
    (void)buf_printf(&h->request, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nwebhook-id: ",
                     bench_option(argc, argv, "path", "/in/bench"));
    h->id_at = h->request.len;
    (void)buf_printf(&h->request, "%*s\r\nwebhook-timestamp: %llu\r\nwebhook-signature: v1,",
                     ID_CHARS, "", (unsigned long long)now_s);
    h->signature_at = h->request.len;
    (void)buf_printf(&h->request,
                     "%*s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                     SIGNATURE_CHARS, "", sizeof BODY - 1, BODY);
    CHECK(!h->request.overflow);
}

/* ---- Redis ---- */

struct redis_load {
    struct buf request; /* one XADD */
    uint32_t pipeline, batch;
    uint64_t want, got; /* of redis-consume */
    struct buf acks;
};

/* The length of a whole RESP value at the front, or 0. on_id is called for each stream entry's id:
 * the first element of an array at depth 4 of an XREADGROUP answer. */
static size_t resp_value(struct slice in, struct buf *ids, uint32_t *ids_count) {
    uint64_t left[8] = {1};
    uint64_t index[8] = {0};
    int depth = 0;
    size_t at = 0;
    while (depth >= 0) {
        if (left[depth] == 0) {
            depth--;
            continue;
        }
        const uint8_t *end = memmem(in.data + at, in.len - at, "\r\n", 2);
        if (end == NULL) return 0;
        size_t line_end = (size_t)(end - in.data);
        bool negative = in.data[at + 1] == '-';
        uint64_t n = 0;
        (void)slice_to_u64(slice_of(in.data + at + 1, line_end - at - 1), &n);
        uint8_t kind = in.data[at];
        at = line_end + 2;
        left[depth]--;
        uint64_t place = index[depth]++;
        if (kind == '*' && !negative) {
            CHECK(depth < 7);
            left[++depth] = n;
            index[depth] = 0;
        } else if (kind == '$' && !negative) {
            if (in.len < at + n + 2) return 0;
            if (ids != NULL && depth == 4 && place == 0) {
                (void)buf_printf(ids, "$%llu\r\n%.*s\r\n", (unsigned long long)n, (int)n,
                                 (const char *)in.data + at);
                (*ids_count)++;
            }
            at += n + 2;
        }
    }
    return at;
}

static void redis_on_data(struct pool *p, struct bench_conn *c) {
    struct redis_load *r = p->ctx;
    size_t len;
    while (c->in.len > 0 && (len = resp_value(buf_slice(&c->in), NULL, NULL)) > 0) {
        bool ok = c->in.data[0] == '$';
        buf_consume(&c->in, len);
        pool_answer(p, c, ok);
        (void)buf_append_slice(&c->out, buf_slice(&r->request));
        pool_request(c);
    }
}

static void redis_xadd(struct buf *b, uint64_t bytes) {
    char *payload = mem_zalloc(bytes + 1);
    memset(payload, 'x', bytes);
    (void)buf_printf(b, "*5\r\n$4\r\nXADD\r\n$5\r\nbench\r\n$1\r\n*\r\n$1\r\nf\r\n$%llu\r\n%s\r\n",
                     (unsigned long long)bytes, payload);
    free(payload);
}

static void redis_read_more(struct redis_load *r, struct bench_conn *c) {
    char name[16], batch[16];
    snprintf(name, sizeof name, "c%u", c->index);
    snprintf(batch, sizeof batch, "%u", r->batch);
    (void)buf_printf(
        &c->out,
        "*9\r\n$10\r\nXREADGROUP\r\n$5\r\nGROUP\r\n$1\r\ng\r\n$%zu\r\n%s\r\n$5\r\nCOUNT"
        "\r\n$%zu\r\n%s\r\n$7\r\nSTREAMS\r\n$5\r\nbench\r\n$1\r\n>\r\n",
        strlen(name), name, strlen(batch), batch);
    pool_request(c);
}

static void consume_on_data(struct pool *p, struct bench_conn *c) {
    struct redis_load *r = p->ctx;
    uint32_t ids = 0;
    size_t len;
    buf_clear(&r->acks);
    while (c->in.len > 0 && (len = resp_value(buf_slice(&c->in), &r->acks, &ids)) > 0) {
        bool entries = c->in.data[0] == '*';
        buf_consume(&c->in, len);
        if (!entries || ids == 0) {
            buf_clear(&r->acks);
            continue; /* the answer of an XACK, or a list that was not whole yet */
        }
        p->measuring = true;
        p->done += ids - 1;
        pool_answer(p, c, true);
        r->got += ids;
        (void)buf_printf(&c->out, "*%u\r\n$4\r\nXACK\r\n$5\r\nbench\r\n$1\r\ng\r\n", ids + 3);
        (void)buf_append_slice(&c->out, buf_slice(&r->acks));
        buf_clear(&r->acks);
        ids = 0;
        if (r->got < r->want) redis_read_more(r, c);
        else p->stopping = true;
    }
}

/* Fills the stream, then reads and acks it all; the time of the second part. */
static uint64_t redis_consume(struct pool *p, struct redis_load *r, uint16_t port) {
    struct pool fill = {.on_data = redis_on_data, .ctx = r, .measuring = true};
    pool_open(&fill, port, 16);
    for (uint32_t i = 0; i < fill.count; i++) {
        struct bench_conn *c = &fill.conns[i];
        for (uint32_t k = 0; k < 32; k++, pool_request(c))
            (void)buf_append_slice(&c->out, buf_slice(&r->request));
        pool_flush(&fill, c);
    }
    while (fill.done < r->want) pool_run(&fill, bench_now_ns() + 10000000u);
    pool_close(&fill);
    uint64_t began = bench_now_ns();
    for (uint32_t i = 0; i < p->count; i++) {
        redis_read_more(r, &p->conns[i]);
        pool_flush(p, &p->conns[i]);
    }
    pool_run(p, began + 60000000000ull);
    return bench_now_ns() - began;
}

/* The clock runs after a warm-up, in which connections and files become warm. */
static uint64_t run_for(struct pool *p, uint64_t seconds) {
    pool_run(p, bench_now_ns() + WARM_UP_NS);
    p->measuring = true;
    uint64_t began = bench_now_ns();
    pool_run(p, began + seconds * 1000000000u);
    return bench_now_ns() - began;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    uint16_t port = (uint16_t)bench_number(argc, argv, "port", 0);
    uint32_t connections = (uint32_t)bench_number(argc, argv, "connections", 16);
    uint32_t pipeline = (uint32_t)bench_number(argc, argv, "pipeline", 1);
    uint64_t seconds = bench_number(argc, argv, "seconds", 3), took = 0;
    static struct pool p;
    struct http_load h = {0};
    struct redis_load r = {.pipeline = pipeline};
    if (port == 0 || pipeline == 0 || pipeline > 64) {
        fprintf(stderr, "load: load http|redis|redis-consume --port N ...\n");
        return 2;
    }
    buf_init(&r.request, 1024 * 1024);
    buf_init(&r.acks, 1024 * 1024);
    redis_xadd(&r.request, bench_number(argc, argv, "bytes", 300));
    if (strcmp(mode, "http") == 0) {
        http_prepare(&h, argc, argv, seconds);
        p.on_data = http_on_data;
        p.ctx = &h;
        pool_open(&p, port, connections);
        for (uint32_t i = 0; i < p.count; i++) {
            http_send(&p, &p.conns[i]);
            pool_flush(&p, &p.conns[i]);
        }
        took = run_for(&p, seconds);
    } else if (strcmp(mode, "redis") == 0) {
        p.on_data = redis_on_data;
        p.ctx = &r;
        pool_open(&p, port, connections);
        for (uint32_t i = 0; i < p.count; i++) {
            for (uint32_t k = 0; k < pipeline; k++, pool_request(&p.conns[i]))
                (void)buf_append_slice(&p.conns[i].out, buf_slice(&r.request));
            pool_flush(&p, &p.conns[i]);
        }
        took = run_for(&p, seconds);
    } else if (strcmp(mode, "redis-consume") == 0) {
        r.want = bench_number(argc, argv, "count", 200000);
        r.batch = (uint32_t)bench_number(argc, argv, "batch", 64);
        p.on_data = consume_on_data;
        p.ctx = &r;
        pool_open(&p, port, connections);
        took = redis_consume(&p, &r, port);
    } else {
        fprintf(stderr, "load: no mode \"%s\"\n", mode);
        return 2;
    }
    pool_report(&p, mode, pipeline, took);
    pool_close(&p);
    buf_free(&r.request);
    buf_free(&r.acks);
    buf_free(&h.request);
    free(h.signatures);
    return 0;
}
