/* The keys and values of the store: round trips, golden bytes, and hostile ones. What older
 * versions mean is in test_record_old.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/base64.h"
#include "base/crc32c.h"
#include "base/prng.h"
#include "proto/limits.h"
#include "storage/record.h"

/* One kind of record: how an example is made and how any bytes are read. */
struct kind {
    const char *name;
    struct slice (*example)(struct arena *a); /* NULL: of an older version, only golden */
    bool (*decode)(struct arena *a, struct slice value);
    const char *golden; /* the example's bytes in hex */
};

static struct event example_event_struct(void) {
    return (struct event){.seq = 77,
                          .project = 1,
                          .time_ms = 1700000000123,
                          .received_at_ms = 1700000001456,
                          .deliver_at_ms = 1700000005000,
                          .offset = 0x1122334455,
                          .source = slice_str("gemini"),
                          .id = slice_str("msg_1"),
                          .type = slice_str("batch.succeeded"),
                          .subject = slice_str("batches/9"),
                          .content_type = slice_str("application/json"),
                          .metadata = slice_str("{\"a\":1}"),
                          .headers = slice_str("{}"),
                          .endpoints = slice_str("https://a.example/h\nhttps://b.example/"),
                          .body = slice_of("\x00\xff{}", 4)};
}

static struct slice example_event(struct arena *a) {
    struct event e = example_event_struct();
    return record_event_encode(a, &e, NULL);
}
static bool decode_event(struct arena *a, struct slice value) {
    struct event e;
    (void)a;
    return record_event_decode(77, value, &e);
}

static struct slice example_u64(struct arena *a) {
    return record_u64_encode(a, 0x0123456789abcdef);
}
static bool decode_u64(struct arena *a, struct slice value) {
    uint64_t n;
    (void)a;
    return record_u64_decode(value, &n);
}

static struct slice example_config(struct arena *a) {
    return record_config_encode(a, slice_str("{\"name\":\"gemini\"}"));
}
static bool decode_config(struct arena *a, struct slice value) {
    struct slice bytes;
    (void)a;
    return record_config_decode(value, &bytes);
}

static const uint64_t fingerprints[] = {0, 0xdeadbeefcafef00d, 3};
static struct slice example_ids(struct arena *a) {
    return record_ids_encode(a, 1700000001456, fingerprints, 3);
}
static bool decode_ids(struct arena *a, struct slice value) {
    struct record_ids ids;
    (void)a;
    return record_ids_decode(value, &ids);
}

static const uint64_t backoff_list[] = {1000, 60000, 86400000};
static struct record_subscription example_subscription_struct(void) {
    return (struct record_subscription){
        .project = 1,
        .name = slice_str("work"),
        .created_at_ms = 1700000001456,
        .filter = slice_str("{\"types\":[\"batch.*\"]}"),
        .lease_ms = 30000,
        .max_hold_ms = 43200000,
        .max_age_ms = 604800000,
        .aged_from_ms = 1700000000789,
        .max_fails = 5,
        .backoff_min_ms = 1000,
        .backoff_max_ms = 60000,
        .backoff_factor_permille = 2000,
        .backoff_jitter_permille = 250,
        .backoff_list_count = 3,
        .backoff_list_ms = backoff_list,
        .rate_per_s = 700,
        .order_key = slice_str("/job/id"),
        .flags = RECORD_SUBSCRIPTION_PAUSED | RECORD_SUBSCRIPTION_EXPIRE,
    };
}
static struct slice example_subscription(struct arena *a) {
    struct record_subscription s = example_subscription_struct();
    return record_subscription_encode(a, &s);
}
static bool decode_subscription(struct arena *a, struct slice value) {
    struct record_subscription s;
    return record_subscription_decode(a, value, &s);
}

static const uint64_t outstanding[] = {1, 2, 130, 20000, 1ULL << 40, (1ULL << 40) + 127};
static uint64_t next_outstanding(void *ctx) {
    return *(*(const uint64_t **)ctx)++;
}
static struct slice example_position(struct arena *a) {
    const uint64_t *at = outstanding;
    struct record_position p = {.next = (1ULL << 40) + 128,
                                .acked_total = 9,
                                .dead_total = 2,
                                .due_count = 3,
                                .dead_count = 1,
                                .expired_total = 4,
                                .matched = 5,
                                .outstanding_count = 6};
    return record_position_encode(a, &p, next_outstanding, &at);
}
static bool decode_position(struct arena *a, struct slice value) {
    struct record_position p;
    (void)a;
    return record_position_decode(value, &p);
}

static struct record_failure example_failure(void) {
    return (struct record_failure){
        .type = slice_str("Timeout"), .message = slice_str("boom"), .detail = slice_str("at x:1")};
}

static struct slice example_retry(struct arena *a) {
    struct record_retry t = {2, 3, 1700000001456, example_failure()};
    return record_retry_encode(a, &t);
}
static bool decode_retry(struct arena *a, struct slice value) {
    struct record_retry t;
    (void)a;
    return record_retry_decode(value, &t);
}

static struct slice example_dead(struct arena *a) {
    struct record_dead d = {1700000009999,         5, 6, slice_str("max_fails"), example_failure(),
                            example_event_struct()};
    return record_dead_encode(a, &d);
}
static bool decode_dead(struct arena *a, struct slice value) {
    struct record_dead d;
    (void)a;
    return record_dead_decode(value, &d);
}

static struct slice example_due(struct arena *a) {
    struct record_due d = {5, 6, RECORD_DUE_REDRIVE, example_failure(), example_event_struct()};
    return record_due_encode(a, &d);
}
static bool decode_due(struct arena *a, struct slice value) {
    struct record_due d;
    (void)a;
    return record_due_decode(value, &d);
}

static struct slice example_task(struct arena *a) {
    struct record_task t = {.project = 3,
                            .kind = 2,
                            .flags = RECORD_TASK_CANCELLED,
                            .subscription = 4,
                            .created_at_ms = 1700000001456,
                            .finished_at_ms = 1700000002000,
                            .from = 10,
                            .to = 20,
                            .next = 15,
                            .matched = 8,
                            .acked_total = 7,
                            .expired = 1,
                            .rate_per_s = 500,
                            .filter = slice_str("{\"sources\":[\"gemini\"]}")};
    return record_task_encode(a, &t);
}
static bool decode_task(struct arena *a, struct slice value) {
    struct record_task t;
    (void)a;
    return record_task_decode(value, &t);
}

static const uint64_t job_seqs[] = {7, 8, 1ULL << 40};
static const uint8_t job_states[] = {0, 1, 3};
static struct record_job example_job_struct(void) {
    return (struct record_job){.project = 3,
                               .id = slice_str("batches/9"),
                               .endpoints = slice_str("https://a.example/h"),
                               .metadata = slice_str("{\"a\":1}"),
                               .created_at_ms = 1700000001456,
                               .updated_at_ms = 1700000002456,
                               .due_at_ms = 1700172802456,
                               .ended_at_ms = 1700172802999,
                               .events_total = 70,
                               .flags = RECORD_JOB_OVERDUE,
                               .count = 3,
                               .seqs = job_seqs,
                               .states = job_states};
}
static struct slice example_job(struct arena *a) {
    struct record_job j = example_job_struct();
    return record_job_encode(a, &j);
}
static bool decode_job(struct arena *a, struct slice value) {
    struct record_job j;
    return record_job_decode(a, value, &j);
}

static const struct kind kinds[] = {
    {"event", example_event, decode_event,
     "95bdfe84034d00000000000000010000007b68e5cf8b010000b06de5cf8b010000887be5cf8b0100005544"
     "332211000000060005000f00090010000700020026000400000067656d696e696d73675f3162617463682e"
     "737563636565646564626174636865732f396170706c69636174696f6e2f6a736f6e7b2261223a317d7b7d"
     "68747470733a2f2f612e6578616d706c652f680a68747470733a2f2f622e6578616d706c652f00ff7b7d"},
    {"u64", example_u64, decode_u64, "42d443a601efcdab8967452301"},
    {"config", example_config, decode_config,
     "45db900a01110000007b226e616d65223a2267656d696e69227d"},
    {"ids", example_ids, decode_ids,
     "aeda7cf501b06de5cf8b0100000300000000000000000000000df0fecaefbeadde0300000000000000"},
    {"subscription", example_subscription, decode_subscription,
     "6c2d59c10301000000b06de5cf8b0100003075000000000000002e93020000000000840c2400000000156b"
     "e5cf8b01000005000000e80300000000000060ea000000000000d0070000fa000000bc0200000503040007"
     "0015000000776f726b2f6a6f622f69647b227479706573223a5b2262617463682e2a225d7de80300000000"
     "000060ea000000000000005c260500000000"},
    {"position", example_position, decode_position,
     "75eda122028000000000010000090000000000000002000000000000000300000000000000010000000000"
     "00000400000000000000050000000000000006000000010180019e9b01e0e3feffff1f7f"},
    {"retry", example_retry, decode_retry,
     "28fcd504020200000003000000b06de5cf8b01000007000400060054696d656f7574626f6f6d617420783a"
     "31"},
    {"dead", example_dead, decode_dead,
     "70ed532c030f8fe5cf8b01000005000000060000004d000000000000000900070004000600010000007b68"
     "e5cf8b010000b06de5cf8b010000887be5cf8b0100005544332211000000060005000f0009001000070002"
     "002600040000006d61785f6661696c7354696d656f7574626f6f6d617420783a3167656d696e696d73675f"
     "3162617463682e737563636565646564626174636865732f396170706c69636174696f6e2f6a736f6e7b22"
     "61223a317d7b7d68747470733a2f2f612e6578616d706c652f680a68747470733a2f2f622e6578616d706c"
     "652f00ff7b7d"},
    {"due", example_due, decode_due,
     "3e7d681c0205000000060000004d0000000000000001070004000600010000007b68e5cf8b010000b06de5"
     "cf8b010000887be5cf8b0100005544332211000000060005000f0009001000070002002600040000005469"
     "6d656f7574626f6f6d617420783a3167656d696e696d73675f3162617463682e7375636365656465646261"
     "74636865732f396170706c69636174696f6e2f6a736f6e7b2261223a317d7b7d68747470733a2f2f612e65"
     "78616d706c652f680a68747470733a2f2f622e6578616d706c652f00ff7b7d"},
    {"task", example_task, decode_task,
     "7c6485fd0303000000020104000000b06de5cf8b010000d06fe5cf8b0100000a0000000000000014000000"
     "000000000f00000000000000080000000000000007000000000000000100000000000000f4010000160000"
     "007b22736f7572636573223a5b2267656d696e69225d7d"},
    {"job", example_job, decode_job,
     "3815dbfa0203000000b06de5cf8b0100009871e5cf8b010000982932da8b010000b72b32da8b0100004600"
     "000000000000010900130007000300626174636865732f3968747470733a2f2f612e6578616d706c652f68"
     "7b2261223a317d070000000000000000080000000000000001000000000001000003"},
    {"event of version 1", NULL, decode_event,
     "c9094b3f01010000007b68e5cf8b010000b06de5cf8b010000060005000f00090010000700020004000000"
     "67656d696e696d73675f3162617463682e737563636565646564626174636865732f396170706c69636174"
     "696f6e2f6a736f6e7b2261223a317d7b7d00ff7b7d"},
    {"subscription of version 1", NULL, decode_subscription,
     "143614380101000000b06de5cf8b010000307500000000000005000000e803000000000000580200000000"
     "0000d0070000040002000100776f726b070062617463682e2a0000060067656d696e69"},
    {"position of version 1", NULL, decode_position,
     "0b03a3980180000000000100000900000000000000020000000000000006000000010180019e9b01e0e3fe"
     "ffff1f7f"},
    {"retry of version 1", NULL, decode_retry,
     "625706bb010200000003000000b06de5cf8b010000090074696d6564206f7574"},
    {"dead of version 1", NULL, decode_dead,
     "d5dd07b2010f8fe5cf8b01000005000000060000004d0000000000000009000400010000007b68e5cf8b01"
     "0000b06de5cf8b010000060005000f000900100007000200040000006d61785f6661696c73626f6f6d6765"
     "6d696e696d73675f3162617463682e737563636565646564626174636865732f396170706c69636174696f"
     "6e2f6a736f6e7b2261223a317d7b7d00ff7b7d"},
    {"replay of version 1", NULL, decode_task,
     "04133b180104000000b06de5cf8b01000000000000000000000a0000000000000014000000000000000700"
     "000000000000"},
    {"event of version 2", NULL, decode_event,
     "435f82b002010000007b68e5cf8b010000b06de5cf8b010000887be5cf8b01000055443322110000000600"
     "05000f0009001000070002000400000067656d696e696d73675f3162617463682e73756363656564656462"
     "6174636865732f396170706c69636174696f6e2f6a736f6e7b2261223a317d7b7d00ff7b7d"},
    {"subscription of version 2", NULL, decode_subscription,
     "baf0c7c30201000000b06de5cf8b0100003075000000000000002e93020000000000840c24000000000500"
     "0000e80300000000000060ea000000000000d0070000fa000000bc02000005030400070015000000776f72"
     "6b2f6a6f622f69647b227479706573223a5b2262617463682e2a225d7de80300000000000060ea00000000"
     "0000005c260500000000"},
    {"dead of version 2", NULL, decode_dead,
     "7861df15020f8fe5cf8b01000005000000060000004d000000000000000900070004000600010000007b68"
     "e5cf8b010000b06de5cf8b010000887be5cf8b0100005544332211000000060005000f0009001000070002"
     "00040000006d61785f6661696c7354696d656f7574626f6f6d617420783a3167656d696e696d73675f3162"
     "617463682e737563636565646564626174636865732f396170706c69636174696f6e2f6a736f6e7b226122"
     "3a317d7b7d00ff7b7d"},
    {"task of version 2", NULL, decode_task,
     "66a0572802020104000000b06de5cf8b010000d06fe5cf8b0100000a000000000000001400000000000000"
     "0f00000000000000080000000000000007000000000000000100000000000000f4010000160000007b2273"
     "6f7572636573223a5b2267656d696e69225d7d"},
    {"job of version 1", NULL, decode_job,
     "49779e0001b06de5cf8b0100009871e5cf8b010000982932da8b010000b72b32da8b010000460000000000"
     "0000010900130007000300626174636865732f3968747470733a2f2f612e6578616d706c652f687b226122"
     "3a317d070000000000000000080000000000000001000000000001000003"},
    {"due of version 1", NULL, decode_due,
     "110c175d0105000000060000004d0000000000000001070004000600010000007b68e5cf8b010000b06de5"
     "cf8b010000887be5cf8b0100005544332211000000060005000f0009001000070002000400000054696d65"
     "6f7574626f6f6d617420783a3167656d696e696d73675f3162617463682e73756363656564656462617463"
     "6865732f396170706c69636174696f6e2f6a736f6e7b2261223a317d7b7d00ff7b7d"},
};
#define SUBSCRIPTION_LIST_COUNT_AT (5 + 77) /* behind the flags */

#define KINDS (sizeof kinds / sizeof kinds[0])

static int setup(void **state) {
    static struct arena arena;
    arena_init(&arena);
    *state = &arena;
    return 0;
}

static int teardown(void **state) {
    arena_free(*state);
    return 0;
}

/* The example, or the golden bytes of an older version. */
static struct slice made(const struct kind *k, struct arena *a) {
    if (k->example != NULL) return k->example(a);
    size_t len = strlen(k->golden) / 2;
    uint8_t *bytes = arena_alloc(a, len);
    for (size_t i = 0; i < len; i++) {
        unsigned byte;
        assert_int_equal(sscanf(k->golden + 2 * i, "%2x", &byte), 1);
        bytes[i] = (uint8_t)byte;
    }
    return slice_of(bytes, len);
}

/* A change here is a change of what is on people's disks: read record.h first. */
static void test_golden_bytes(void **state) {
    for (size_t i = 0; i < KINDS; i++) {
        char hex[1024];
        struct slice value = made(&kinds[i], *state);
        assert_true(value.len * 2 < sizeof hex);
        hex_encode(value, hex);
        if (strcmp(hex, kinds[i].golden) != 0) print_error("%s: %s\n", kinds[i].name, hex);
        assert_string_equal(hex, kinds[i].golden);
        assert_true(kinds[i].decode(*state, value));
    }
}

/* A copy of exactly the bytes, so that AddressSanitizer sees every read beyond them. */
static bool decodes(const struct kind *k, struct arena *a, struct slice value) {
    uint8_t *exact = malloc(value.len == 0 ? 1 : value.len);
    if (value.len > 0) memcpy(exact, value.data, value.len);
    bool ok = k->decode(a, slice_of(exact, value.len));
    free(exact);
    return ok;
}

static void test_every_damage_is_refused(void **state) {
    for (size_t i = 0; i < KINDS; i++) {
        struct slice value = made(&kinds[i], *state);
        uint8_t *bytes = (uint8_t *)value.data;
        for (size_t len = 0; len < value.len; len++) {
            assert_false(decodes(&kinds[i], *state, slice_of(bytes, len)));
        }
        for (size_t at = 0; at < value.len; at++) {
            for (int flip = 1; flip < 256; flip++) {
                bytes[at] ^= (uint8_t)flip;
                assert_false(decodes(&kinds[i], *state, value));
                bytes[at] ^= (uint8_t)flip;
            }
        }
        struct slice longer = arena_copy(*state, slice_of(bytes, value.len));
        uint8_t *more = malloc(longer.len + 1);
        memcpy(more, longer.data, longer.len);
        more[longer.len] = 0;
        assert_false(decodes(&kinds[i], *state, slice_of(more, longer.len + 1)));
        free(more);
    }
}

static void reseal(uint8_t *bytes, size_t len) {
    uint32_t crc = crc32c(bytes + 4, len - 4);
    for (int i = 0; i < 4; i++) bytes[i] = (uint8_t)(crc >> 8 * i);
}

/* Bytes that pass the CRC may decode or not, but are never read outside; a value that lost or
 * gained a byte, or is of another version, never decodes. */
static void test_sealed_nonsense(void **state) {
    struct prng p;
    prng_seed(&p, 3);
    for (size_t i = 0; i < KINDS; i++) {
        struct slice value = made(&kinds[i], *state);
        uint8_t *bytes = malloc(value.len + 1);
        for (int round = 0; round < 3000; round++) {
            memcpy(bytes, value.data, value.len);
            for (uint64_t n = 1 + prng_below(&p, 3); n > 0; n--) {
                bytes[5 + prng_below(&p, value.len - 5)] = (uint8_t)prng_next(&p);
            }
            reseal(bytes, value.len);
            (void)decodes(&kinds[i], *state, slice_of(bytes, value.len));
        }
        for (size_t len = 5; len <= value.len + 1; len++) {
            memcpy(bytes, value.data, value.len);
            bytes[value.len] = 0;
            reseal(bytes, len);
            assert_int_equal(decodes(&kinds[i], *state, slice_of(bytes, len)), len == value.len);
        }
        const uint8_t versions[] = {0, 4, 255, (uint8_t)(value.data[4] + 1)};
        for (size_t n = 0; n < sizeof versions - (kinds[i].example == NULL); n++) {
            bytes[4] = versions[n];
            reseal(bytes, value.len);
            assert_false(decodes(&kinds[i], *state, slice_of(bytes, value.len)));
        }
        free(bytes);
    }
}

static void test_random_bytes_are_refused(void **state) {
    struct prng p;
    uint8_t bytes[200];
    prng_seed(&p, 4);
    for (int round = 0; round < 20000; round++) {
        size_t len = prng_below(&p, sizeof bytes);
        for (size_t i = 0; i < len; i++) bytes[i] = (uint8_t)prng_next(&p);
        if (len > 4) bytes[4] = (uint8_t)(1 + prng_below(&p, 3));
        for (size_t i = 0; i < KINDS; i++) {
            assert_false(decodes(&kinds[i], *state, slice_of(bytes, len)));
        }
    }
}

static void assert_event(const struct event *got, const struct event *want) {
    assert_true(got->seq == want->seq && got->project == want->project);
    assert_true(got->time_ms == want->time_ms && got->received_at_ms == want->received_at_ms);
    assert_true(got->deliver_at_ms == want->deliver_at_ms && got->offset == want->offset);
    assert_true(slice_eq(got->source, want->source) && slice_eq(got->id, want->id));
    assert_true(slice_eq(got->type, want->type) && slice_eq(got->subject, want->subject));
    assert_true(slice_eq(got->content_type, want->content_type));
    assert_true(slice_eq(got->metadata, want->metadata) && slice_eq(got->headers, want->headers));
    assert_true(slice_eq(got->endpoints, want->endpoints) && slice_eq(got->body, want->body));
}

static bool inside(struct slice s, struct slice value) {
    return s.data >= value.data && s.data + s.len <= value.data + value.len;
}

static void test_event_round_trip(void **state) {
    struct event e = example_event_struct(), stored, got;
    struct slice value = record_event_encode(*state, &e, &stored);
    assert_true(record_event_decode(77, value, &got));
    assert_event(&got, &e);
    assert_event(&stored, &e);
    assert_true(inside(stored.source, value) && inside(stored.body, value));
    assert_true(inside(got.id, value) && inside(got.endpoints, value));
    assert_true(inside(stored.endpoints, value));

    struct event empty = {.seq = 5};
    value = record_event_encode(*state, &empty, &stored);
    assert_int_equal(value.len, 69);
    assert_true(record_event_decode(5, value, &got));
    assert_event(&got, &empty);

    uint8_t *body = malloc(16 << 20);
    memset(body, 'b', 16 << 20);
    e.body = slice_of(body, 16 << 20);
    e.metadata = slice_of(body, 16 << 10);
    e.headers = slice_of(body + 1, 8 << 10);
    e.endpoints = slice_of(body + 2, LIMIT_EVENT_ENDPOINTS_BYTES);
    value = record_event_encode(*state, &e, NULL);
    assert_true(record_event_decode(77, value, &got));
    assert_event(&got, &e);
    free(body);
}

/* A page that is whole but stands where another one should. */
static void test_an_event_of_another_seq_is_refused(void **state) {
    struct event e = {.seq = 0x0102030405060708}, got;
    struct slice value = record_event_encode(*state, &e, NULL);
    assert_true(record_event_decode(e.seq, value, &got));
    for (int bit = 0; bit < 64; bit++) {
        assert_false(record_event_decode(e.seq ^ 1ULL << bit, value, &got));
    }
}

static void assert_failure(const struct record_failure *got) {
    struct record_failure want = example_failure();
    assert_true(slice_eq(got->type, want.type) && slice_eq(got->message, want.message));
    assert_true(slice_eq(got->detail, want.detail));
}

static void test_dead_round_trip(void **state) {
    struct record_dead got;
    struct event e = example_event_struct();
    assert_true(record_dead_decode(example_dead(*state), &got));
    assert_event(&got.event, &e);
    assert_true(got.died_at_ms == 1700000009999 && got.fails == 5 && got.deliveries == 6);
    assert_true(slice_eq_str(got.reason, "max_fails"));
    assert_failure(&got.failure);
}

static void test_due_round_trip(void **state) {
    struct record_due got, none = {.event = {.seq = 9}};
    struct event e = example_event_struct();
    assert_true(record_due_decode(example_due(*state), &got));
    assert_event(&got.event, &e);
    assert_true(got.fails == 5 && got.deliveries == 6 && got.flags == RECORD_DUE_REDRIVE);
    assert_failure(&got.failure);
    assert_true(record_due_decode(record_due_encode(*state, &none), &got));
    assert_event(&got.event, &none.event);
    assert_true(got.flags == 0 && got.failure.detail.len == 0);
}

static void test_retry_round_trip(void **state) {
    struct record_retry got, most;
    char text[LIMIT_ERROR_DETAIL_BYTES];
    assert_true(record_retry_decode(example_retry(*state), &got));
    assert_true(got.fails == 2 && got.deliveries == 3 && got.due_wall_ms == 1700000001456);
    assert_failure(&got.failure);
    memset(text, 'x', sizeof text);
    most = (struct record_retry){.failure = {slice_of(text, LIMIT_ERROR_TYPE_BYTES),
                                             slice_of(text, LIMIT_ERROR_MESSAGE_BYTES),
                                             slice_of(text, LIMIT_ERROR_DETAIL_BYTES)}};
    assert_true(record_retry_decode(record_retry_encode(*state, &most), &got));
    assert_int_equal(got.failure.type.len, LIMIT_ERROR_TYPE_BYTES);
    assert_int_equal(got.failure.message.len, LIMIT_ERROR_MESSAGE_BYTES);
    assert_int_equal(got.failure.detail.len, LIMIT_ERROR_DETAIL_BYTES);
}

/* Whether encoding a retry with this failure, in a child, aborts. */
static bool aborts(struct arena *a, struct record_failure failure) {
    struct record_retry t = {.failure = failure};
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL) _exit(1);
        record_retry_encode(a, &t);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void test_a_failure_above_its_limits_aborts(void **state) {
    static const char text[LIMIT_ERROR_DETAIL_BYTES + 1];
    struct slice type = slice_of(text, LIMIT_ERROR_TYPE_BYTES + 1),
                 message = slice_of(text, LIMIT_ERROR_MESSAGE_BYTES + 1),
                 detail = slice_of(text, LIMIT_ERROR_DETAIL_BYTES + 1);
    assert_true(aborts(*state, (struct record_failure){.type = type}));
    assert_true(aborts(*state, (struct record_failure){.message = message}));
    assert_true(aborts(*state, (struct record_failure){.detail = detail}));
    assert_false(aborts(*state, example_failure()));
}

static void test_small_round_trips(void **state) {
    uint64_t n;
    struct record_ids ids;
    struct record_task task;
    assert_true(record_u64_decode(example_u64(*state), &n));
    assert_true(n == 0x0123456789abcdef);
    assert_true(record_ids_decode(example_ids(*state), &ids));
    assert_true(ids.received_at_ms == 1700000001456 && ids.count == 3);
    for (uint32_t i = 0; i < 3; i++) assert_true(record_ids_at(&ids, i) == fingerprints[i]);
    assert_true(record_ids_decode(record_ids_encode(*state, 1, NULL, 0), &ids));
    assert_int_equal(ids.count, 0);
    assert_true(record_task_decode(example_task(*state), &task));
    assert_true(task.project == 3 && task.kind == 2 && task.flags == RECORD_TASK_CANCELLED);
    assert_int_equal(task.subscription, 4);
    assert_true(task.created_at_ms == 1700000001456 && task.finished_at_ms == 1700000002000);
    assert_true(task.from == 10 && task.to == 20 && task.next == 15);
    assert_true(task.matched == 8 && task.acked_total == 7 && task.expired == 1);
    assert_true(task.rate_per_s == 500);
    assert_true(slice_eq_str(task.filter, "{\"sources\":[\"gemini\"]}"));
}

static void test_job_round_trip(void **state) {
    struct record_job want = example_job_struct(), got, least = {.id = slice_str("j")};
    assert_true(record_job_decode(*state, example_job(*state), &got));
    assert_true(slice_eq(got.id, want.id) && slice_eq(got.endpoints, want.endpoints));
    assert_true(slice_eq(got.metadata, want.metadata) && got.flags == RECORD_JOB_OVERDUE);
    assert_true(got.created_at_ms == want.created_at_ms && got.updated_at_ms == want.updated_at_ms);
    assert_true(got.due_at_ms == want.due_at_ms && got.ended_at_ms == want.ended_at_ms);
    assert_true(got.project == 3 && got.events_total == 70 && got.count == 3);
    assert_memory_equal(got.seqs, job_seqs, sizeof job_seqs);
    assert_memory_equal(got.states, job_states, sizeof job_states);
    assert_true(record_job_decode(*state, record_job_encode(*state, &least), &got));
    assert_true(slice_eq_str(got.id, "j") && got.count == 0 && got.endpoints.len == 0);

    static uint8_t text[LIMIT_EVENT_ENDPOINTS_BYTES], states[LIMIT_JOB_EVENTS];
    uint64_t seqs[LIMIT_JOB_EVENTS];
    for (uint64_t i = 0; i < LIMIT_JOB_EVENTS; i++) seqs[i] = i + 1;
    struct record_job most = {.id = slice_of(text, LIMIT_EVENT_SUBJECT_BYTES),
                              .endpoints = slice_of(text, LIMIT_EVENT_ENDPOINTS_BYTES),
                              .metadata = slice_of(text, LIMIT_EVENT_METADATA_BYTES),
                              .count = LIMIT_JOB_EVENTS,
                              .seqs = seqs,
                              .states = states};
    assert_true(record_job_decode(*state, record_job_encode(*state, &most), &got));
    assert_memory_equal(got.seqs, seqs, sizeof seqs);
    assert_true(got.endpoints.len == LIMIT_EVENT_ENDPOINTS_BYTES);
    seqs[10] = seqs[9]; /* they rise strictly, from 1 */
    assert_false(record_job_decode(*state, record_job_encode(*state, &most), &got));
    most.count = 1;
    seqs[0] = 0;
    assert_false(record_job_decode(*state, record_job_encode(*state, &most), &got));
}

static void test_subscription_round_trip(void **state) {
    struct record_subscription want = example_subscription_struct(), got,
                               none = {.name = slice_str("n")};
    assert_true(record_subscription_decode(*state, example_subscription(*state), &got));
    assert_true(got.project == 1 && slice_eq(got.name, want.name));
    assert_true(got.created_at_ms == want.created_at_ms && slice_eq(got.filter, want.filter));
    assert_true(got.lease_ms == 30000 && got.max_hold_ms == 43200000);
    assert_true(got.max_age_ms == 604800000 && got.max_fails == 5);
    assert_true(got.aged_from_ms == 1700000000789);
    assert_true(got.backoff_min_ms == 1000 && got.backoff_max_ms == 60000);
    assert_true(got.backoff_factor_permille == 2000 && got.backoff_jitter_permille == 250);
    assert_int_equal(got.backoff_list_count, 3);
    assert_memory_equal(got.backoff_list_ms, backoff_list, sizeof backoff_list);
    assert_true(got.rate_per_s == 700 && slice_eq(got.order_key, want.order_key));
    assert_int_equal(got.flags, want.flags);
    assert_true(
        record_subscription_decode(*state, record_subscription_encode(*state, &none), &got));
    assert_true(got.backoff_list_count == 0 && got.backoff_list_ms == NULL);
    assert_true(got.filter.len == 0 && got.order_key.len == 0 && got.flags == 0);

    uint64_t list[LIMIT_BACKOFF_STEPS + 1] = {0};
    none.backoff_list_ms = list;
    none.backoff_list_count = LIMIT_BACKOFF_STEPS;
    struct slice value = record_subscription_encode(*state, &none);
    assert_true(record_subscription_decode(*state, value, &got));
    assert_int_equal(got.backoff_list_count, LIMIT_BACKOFF_STEPS);
    uint8_t *longer = arena_alloc(*state, value.len + 8); /* as long as it says, but too long */
    memcpy(longer, value.data, value.len);
    memset(longer + value.len, 0, 8);
    longer[SUBSCRIPTION_LIST_COUNT_AT]++;
    reseal(longer, value.len + 8);
    assert_false(record_subscription_decode(*state, slice_of(longer, value.len + 8), &got));
}

struct rising {
    struct prng prng;
    uint64_t seq, gap_max;
};
static uint64_t next_rising(void *ctx) {
    struct rising *r = ctx;
    return r->seq += 1 + prng_below(&r->prng, r->gap_max);
}

static void test_position_round_trips(void **state) {
    struct record_position got;
    uint64_t seq;
    assert_true(record_position_decode(example_position(*state), &got));
    assert_true(got.acked_total == 9 && got.dead_total == 2 && got.next == (1ULL << 40) + 128);
    assert_true(got.due_count == 3 && got.dead_count == 1);
    assert_true(got.expired_total == 4 && got.matched == 5);
    for (int i = 0; i < 6; i++) {
        assert_true(record_position_next(&got, &seq));
        assert_true(seq == outstanding[i]);
    }
    assert_false(record_position_next(&got, &seq));

    for (unsigned bits = 0; bits < 63; bits++) {
        for (uint32_t count = 0; count < 200; count += 37) {
            uint64_t gap_max = (1ULL << bits) / (count + 1) + 1;
            struct rising a = {.gap_max = gap_max}, b;
            prng_seed(&a.prng, bits);
            b = a;
            struct record_position p = {.next = UINT64_MAX, .outstanding_count = count};
            struct slice value = record_position_encode(*state, &p, next_rising, &a);
            assert_true(record_position_decode(value, &got));
            for (uint32_t i = 0; i < count; i++) {
                assert_true(record_position_next(&got, &seq));
                assert_true(seq == next_rising(&b));
            }
            assert_false(record_position_next(&got, &seq));
        }
        arena_reset(*state);
    }
}

static uint64_t odd(void *ctx) {
    return *(uint64_t *)ctx += 2;
}

static void test_position_is_small(void **state) {
    uint64_t seq = 1000000001;
    struct record_position p = {.next = 1000200002, .outstanding_count = 100000};
    size_t before = ((struct arena *)*state)->used_bytes;
    struct slice value = record_position_encode(*state, &p, odd, &seq);
    assert_true(value.len < 100000 + 80);
    assert_true(((struct arena *)*state)->used_bytes - before < 110000);
}

/* Gaps must be at least one, in their shortest form, and stay below `next`. */
static void test_position_gaps_are_strict(void **state) {
    static const struct {
        uint32_t count;
        uint64_t next;
        const char *gaps;
        size_t len;
        bool ok;
    } cases[] = {
        {1, 100, "\x01", 1, true},
        {1, 100, "\x63", 1, true},
        {1, 100, "\x64", 1, false}, /* == next */
        {1, 100, "\x00", 1, false}, /* no seq 0 */
        {2, 100, "\x05\x00", 2, false},
        {1, 300, "\x80\x02", 2, true},
        {1, 300, "\x81\x00", 2, false}, /* longer than needed */
        {1, 300, "\x80", 1, false},
        {2, 300, "\x01", 1, false},
        {1, 300, "\x01\x01", 2, false},
        {0, 0, "", 0, true},
        {1, UINT64_MAX, "\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10, true},
        {1, UINT64_MAX, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10, false},
        {1, UINT64_MAX, "\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x81\x00", 11, false},
        {2, UINT64_MAX, "\xfd\xff\xff\xff\xff\xff\xff\xff\xff\x01\x7f", 11, false}, /* wraps */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (uint8_t version = 1; version <= 2; version++) {
            size_t count_at = version == 1 ? 29 : 61, len = count_at + 4 + cases[i].len;
            uint8_t bytes[96] = {0, 0, 0, 0, version};
            struct record_position got;
            for (int at = 0; at < 8; at++) bytes[5 + at] = (uint8_t)(cases[i].next >> 8 * at);
            bytes[count_at] = (uint8_t)cases[i].count;
            memcpy(bytes + count_at + 4, cases[i].gaps, cases[i].len);
            reseal(bytes, len);
            assert_int_equal(record_position_decode(slice_of(bytes, len), &got), cases[i].ok);
        }
    }
}

static void test_keys(void **state) {
    uint8_t a[KEY_DUE_BYTES], b[KEY_DUE_BYTES];
    char hex[64];
    (void)state;
    hex_encode(key_u64(a, 0x0102030405060708), hex);
    assert_string_equal(hex, "0102030405060708");
    hex_encode(key_u32(a, 0x01020304), hex);
    assert_string_equal(hex, "01020304");
    hex_encode(key_position(a, 1, 0xfffffffe), hex);
    assert_string_equal(hex, "00000001fffffffe");
    hex_encode(key_retry(a, 1, 2, 3), hex);
    assert_string_equal(hex, "00000001000000020000000000000003");
    struct slice key = key_dead(a, 0xa0000001, 1ULL << 63, 3);
    hex_encode(key, hex);
    assert_string_equal(hex, "a0000001800000000000000000000003");
    assert_int_equal(key_read_u32(key, 0), 0xa0000001);
    assert_true(key_read_u64(key, 4) == 1ULL << 63);
    assert_int_equal(key_read_u32(key, 12), 3);
    key = key_due(a, 0xa0000001, 0x0102030405060708, 1ULL << 63, 3);
    hex_encode(key, hex);
    assert_string_equal(hex, "a00000010102030405060708800000000000000000000003");
    assert_int_equal(key.len, KEY_DUE_BYTES);
    struct prng p; /* byte order is number order */
    prng_seed(&p, 1);
    for (int i = 0; i < 1000; i++) {
        uint64_t x = prng_next(&p) >> prng_below(&p, 64), y = prng_next(&p) >> prng_below(&p, 64);
        int order = memcmp(key_u64(a, x).data, key_u64(b, y).data, 8);
        assert_int_equal(order < 0, x < y);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_bytes),
        cmocka_unit_test(test_every_damage_is_refused),
        cmocka_unit_test(test_sealed_nonsense),
        cmocka_unit_test(test_random_bytes_are_refused),
        cmocka_unit_test(test_event_round_trip),
        cmocka_unit_test(test_an_event_of_another_seq_is_refused),
        cmocka_unit_test(test_dead_round_trip),
        cmocka_unit_test(test_due_round_trip),
        cmocka_unit_test(test_retry_round_trip),
        cmocka_unit_test(test_a_failure_above_its_limits_aborts),
        cmocka_unit_test(test_small_round_trips),
        cmocka_unit_test(test_job_round_trip),
        cmocka_unit_test(test_subscription_round_trip),
        cmocka_unit_test(test_position_round_trips),
        cmocka_unit_test(test_position_is_small),
        cmocka_unit_test(test_position_gaps_are_strict),
        cmocka_unit_test(test_keys),
    };
    return cmocka_run_group_tests_name("record", tests, setup, teardown);
}
