/* What the bytes of older versions mean: every value here but the longest was written by a broker
 * that knew nothing newer. test_record.c shows that the damaged ones among them are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/crc32c.h"
#include "proto/limits.h"
#include "storage/record.h"

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

static struct slice from_hex(struct arena *a, const char *hex) {
    size_t len = strlen(hex) / 2;
    uint8_t *bytes = arena_alloc(a, len);
    for (size_t i = 0; i < len; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        bytes[i] = (uint8_t)byte;
    }
    return slice_of(bytes, len);
}

static void assert_text(struct slice got, const char *want) {
    if (!slice_eq_str(got, want)) {
        fail_msg("got \"%.*s\", want \"%s\"", SLICE_ARG(got), want);
    }
}

/* Of version 1 or 2. */
static void assert_event(const struct event *e, uint64_t seq, int version) {
    assert_true(e->seq == seq && e->project == 1);
    assert_true(e->time_ms == 1700000000123 && e->received_at_ms == 1700000001456);
    assert_true(e->deliver_at_ms == (version == 1 ? 0 : 1700000005000));
    assert_true(e->offset == (version == 1 ? 0 : 0x1122334455));
    assert_text(e->source, "gemini");
    assert_text(e->id, "msg_1");
    assert_text(e->type, "batch.succeeded");
    assert_text(e->subject, "batches/9");
    assert_text(e->content_type, "application/json");
    assert_text(e->metadata, "{\"a\":1}");
    assert_text(e->headers, "{}");
    assert_true(e->endpoints.len == 0);
    assert_true(slice_eq(e->body, slice_of("\x00\xff{}", 4)));
}

static void test_event(void **state) {
    struct event e = {.deliver_at_ms = 1, .offset = 1}, again;
    struct slice value =
        from_hex(*state,
                 "c9094b3f01010000007b68e5cf8b010000b06de5cf8b010000060005000f000900100007000200"
                 "0400000067656d696e696d73675f3162617463682e737563636565646564626174636865732f39"
                 "6170706c69636174696f6e2f6a736f6e7b2261223a317d7b7d00ff7b7d");
    assert_true(record_event_decode(77, value, &e));
    assert_event(&e, 77, 1);
    value = record_event_encode(*state, &e, NULL); /* as a dead letter's copy of it is */
    assert_int_equal(value.data[4], 3);
    assert_true(record_event_decode(77, value, &again));
    assert_event(&again, 77, 1);
    assert_true(record_event_decode(
        3,
        from_hex(*state,
                 "98c1cf470100000000000000000000000000000000000000000000000000000000000000000"
                 "0000100000078"),
        &e));
    assert_text(e.body, "x");
}

static void test_dead_letter(void **state) {
    struct record_dead d;
    assert_true(record_dead_decode(
        from_hex(*state,
                 "d5dd07b2010f8fe5cf8b01000005000000060000004d0000000000000009000400010000007b"
                 "68e5cf8b010000b06de5cf8b010000060005000f000900100007000200040000006d61785f66"
                 "61696c73626f6f6d67656d696e696d73675f3162617463682e73756363656564656462617463"
                 "6865732f396170706c69636174696f6e2f6a736f6e7b2261223a317d7b7d00ff7b7d"),
        &d));
    assert_true(d.died_at_ms == 1700000009999 && d.fails == 5 && d.deliveries == 6);
    assert_text(d.reason, "max_fails");
    assert_text(d.failure.type, "");
    assert_text(d.failure.message, "boom");
    assert_text(d.failure.detail, "");
    assert_event(&d.event, 77, 1);
}

/* ---- version 2, and 1 of what came with it ---- */

#define EVENT_HEAD_2                                                                               \
    "010000007b68e5cf8b010000b06de5cf8b010000887be5cf8b0100005544332211000000060005000f0009001000" \
    "07000200"                                                                                     \
    "04000000"
#define EVENT_TEXTS                                                                                \
    "67656d696e696d73675f3162617463682e737563636565646564626174636865732f396170706c69636174696f6e" \
    "2f6a736f6e7b2261223a317d7b7d00ff7b7d"
#define FAILURE_HEAD  "070004000600"
#define FAILURE_TEXTS "54696d656f7574626f6f6d617420783a31"

static void assert_failure(const struct record_failure *f) {
    assert_text(f->type, "Timeout");
    assert_text(f->message, "boom");
    assert_text(f->detail, "at x:1");
}

/* It did not say whose it is: any key may have it. */
static void test_event_2(void **state) {
    struct slice value = from_hex(*state, "435f82b002" EVENT_HEAD_2 EVENT_TEXTS);
    struct event e = {.endpoints = slice_str("x")}, again;
    assert_true(record_event_decode(77, value, &e));
    assert_event(&e, 77, 2);
    assert_true(record_event_decode(78, value, &again));
    assert_event(&again, 78, 2);
    value = record_event_encode(*state, &e, NULL);
    assert_int_equal(value.data[4], 3);
    assert_true(record_event_decode(77, value, &again));
    assert_event(&again, 77, 2);
    assert_false(record_event_decode(78, value, &again));
}

static void test_dead_letter_2(void **state) {
    static const struct {
        const char *seal, *reason_len, *reason, *read;
    } cases[] = {
        {"7861df1502", "0900", "6d61785f6661696c73", "max_fails"},
        {"398e082c02", "0700", "6d61785f616765", "expired"}, /* it was called max_age */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char hex[512];
        struct record_dead d;
        snprintf(hex, sizeof hex,
                 "%s0f8fe5cf8b01000005000000060000004d00000000000000%s" FAILURE_HEAD EVENT_HEAD_2
                 "%s" FAILURE_TEXTS EVENT_TEXTS,
                 cases[i].seal, cases[i].reason_len, cases[i].reason);
        assert_true(record_dead_decode(from_hex(*state, hex), &d));
        assert_true(d.died_at_ms == 1700000009999 && d.fails == 5 && d.deliveries == 6);
        assert_text(d.reason, cases[i].read);
        assert_failure(&d.failure);
        assert_event(&d.event, 77, 2);
        assert_true(record_dead_decode(record_dead_encode(*state, &d), &d));
        assert_text(d.reason, cases[i].read);
    }
    /* The newest version says what was meant, whatever that is. */
    struct record_dead now = {.reason = slice_str("max_age")};
    assert_true(record_dead_decode(record_dead_encode(*state, &now), &now));
    assert_text(now.reason, "max_age");
}

static void test_due_1(void **state) {
    struct record_due d;
    assert_true(record_due_decode(
        from_hex(*state, "110c175d0105000000060000004d0000000000000001" FAILURE_HEAD EVENT_HEAD_2
                             FAILURE_TEXTS EVENT_TEXTS),
        &d));
    assert_true(d.fails == 5 && d.deliveries == 6 && d.flags == RECORD_DUE_REDRIVE);
    assert_failure(&d.failure);
    assert_event(&d.event, 77, 2);
}

static void test_subscription_2(void **state) {
    struct record_subscription s = {.aged_from_ms = 1};
    assert_true(record_subscription_decode(
        *state,
        from_hex(*state,
                 "baf0c7c30201000000b06de5cf8b0100003075000000000000002e93020000000000840c24000000"
                 "000500"
                 "0000e80300000000000060ea000000000000d0070000fa000000bc02000005030400070015000000"
                 "776f72"
                 "6b2f6a6f622f69647b227479706573223a5b2262617463682e2a225d7de80300000000000060ea00"
                 "000000"
                 "0000005c260500000000"),
        &s));
    assert_true(s.aged_from_ms == 0);
    assert_true(s.max_age_ms == 604800000 && s.max_fails == 5 && s.max_hold_ms == 43200000);
    assert_true(s.backoff_min_ms == 1000 && s.rate_per_s == 700 && s.backoff_list_count == 3);
    assert_true(s.backoff_list_ms[2] == 86400000);
    assert_int_equal(s.flags, RECORD_SUBSCRIPTION_PAUSED | RECORD_SUBSCRIPTION_EXPIRE);
    assert_text(s.name, "work");
    assert_text(s.order_key, "/job/id");
    assert_text(s.filter, "{\"types\":[\"batch.*\"]}");
}

static void test_task_2(void **state) {
    struct record_task t;
    struct slice value =
        from_hex(*state,
                 "66a0572802020104000000b06de5cf8b010000d06fe5cf8b0100000a000000000000001400000000"
                 "0000000f00000000000000080000000000000007000000000000000100000000000000f401000016"
                 "0000007b22736f7572636573223a5b2267656d696e69225d7d");
    for (int i = 0; i < 2; i++) { /* once more as it is written now */
        assert_true(record_task_decode(value, &t));
        assert_int_equal(t.project, PROJECT_DEFAULT); /* there was no other */
        assert_true(t.kind == 2 && t.flags == RECORD_TASK_CANCELLED && t.subscription == 4);
        assert_true(t.created_at_ms == 1700000001456 && t.finished_at_ms == 1700000002000);
        assert_true(t.from == 10 && t.to == 20 && t.next == 15);
        assert_true(t.matched == 8 && t.acked_total == 7 && t.expired == 1);
        assert_int_equal(t.rate_per_s, 500);
        assert_text(t.filter, "{\"sources\":[\"gemini\"]}");
        value = record_task_encode(*state, &t);
        assert_int_equal(value.data[4], 3);
    }
}

static void test_job_1(void **state) {
    struct record_job j;
    struct slice value = from_hex(
        *state,
        "49779e0001b06de5cf8b0100009871e5cf8b010000982932da8b010000b72b32da8b01000046000000"
        "00000000010900130007000300626174636865732f3968747470733a2f2f612e6578616d706c652f68"
        "7b2261223a317d070000000000000000080000000000000001000000000001000003");
    for (int i = 0; i < 2; i++) {
        assert_true(record_job_decode(*state, value, &j));
        assert_int_equal(j.project, PROJECT_DEFAULT);
        assert_text(j.id, "batches/9");
        assert_text(j.endpoints, "https://a.example/h");
        assert_text(j.metadata, "{\"a\":1}");
        assert_true(j.created_at_ms == 1700000001456 && j.updated_at_ms == 1700000002456);
        assert_true(j.due_at_ms == 1700172802456 && j.ended_at_ms == 1700172802999);
        assert_true(j.events_total == 70 && j.flags == RECORD_JOB_OVERDUE && j.count == 3);
        assert_true(j.seqs[0] == 7 && j.seqs[1] == 8 && j.seqs[2] == 1ULL << 40);
        assert_true(j.states[0] == 0 && j.states[1] == 1 && j.states[2] == 3);
        value = record_job_encode(*state, &j);
        assert_int_equal(value.data[4], 2);
    }
}

/* ---- version 1 ---- */

/* A retry as version 1 wrote it with an error text of `len` times 'e'. */
static struct slice retry_with_error(struct arena *a, const char *head, size_t len) {
    struct slice start = from_hex(a, head);
    uint8_t *bytes = arena_alloc(a, start.len + len);
    memcpy(bytes, start.data, start.len);
    memset(bytes + start.len, 'e', len);
    return slice_of(bytes, start.len + len);
}

static void test_retry(void **state) {
    struct record_retry t;
    assert_true(record_retry_decode(
        from_hex(*state, "625706bb010200000003000000b06de5cf8b010000090074696d6564206f7574"), &t));
    assert_true(t.fails == 2 && t.deliveries == 3 && t.due_wall_ms == 1700000001456);
    assert_text(t.failure.message, "timed out");
    assert_true(t.failure.type.len == 0 && t.failure.detail.len == 0);
    assert_true(record_retry_decode(
        from_hex(*state, "66cf9b49010200000003000000b06de5cf8b0100000000"), &t));
    assert_true(t.failure.message.len == 0 && t.failure.detail.len == 0);

    /* The longest message, and a text that is only short enough for the detail. */
    assert_int_equal(LIMIT_ERROR_MESSAGE_BYTES, 512);
    assert_true(record_retry_decode(
        retry_with_error(*state, "d1fb79fd010200000003000000b06de5cf8b0100000002", 512), &t));
    assert_true(t.failure.message.len == 512 && t.failure.detail.len == 0);
    assert_true(record_retry_decode(
        retry_with_error(*state, "c84d4e15010200000003000000b06de5cf8b0100000102", 513), &t));
    assert_true(t.failure.message.len == 0 && t.failure.detail.len == 513);
    assert_int_equal(t.failure.detail.data[512], 'e');
    assert_true(record_retry_decode(record_retry_encode(*state, &t), &t));
    assert_int_equal(t.failure.detail.len, 513);
}

static void test_position(void **state) {
    struct record_position p;
    uint64_t seq, sum = 0;
    assert_true(record_position_decode(
        from_hex(*state,
                 "6de28cdd01e8030000000000000900000000000000020000000000000003000000010180"
                 "01"),
        &p));
    assert_true(p.next == 1000 && p.acked_total == 9 && p.dead_total == 2);
    assert_true(p.dead_count == 2); /* nothing could take a dead letter away */
    assert_true(p.due_count == 0 && p.expired_total == 0 && p.matched == 0);
    assert_int_equal(p.outstanding_count, 3);
    while (record_position_next(&p, &seq)) sum += seq;
    assert_int_equal(sum, 1 + 2 + 130);
}

static void test_replay(void **state) {
    struct record_task t;
    assert_true(record_task_decode(
        from_hex(*state,
                 "277560160104000000b06de5cf8b010000d06fe5cf8b0100000a00000000000000140000"
                 "00000000000700000000000000"),
        &t));
    assert_true(t.project == PROJECT_DEFAULT && t.kind == 0 && t.flags == 0);
    assert_int_equal(t.subscription, 4);
    assert_true(t.created_at_ms == 1700000001456 && t.finished_at_ms == 1700000002000);
    assert_true(t.from == 10 && t.to == 20 && t.next == 0);
    assert_true(t.acked_total == 7 && t.matched == 7); /* it had no count of its own */
    assert_true(t.expired == 0 && t.rate_per_s == 0 && t.filter.len == 0);
}

#define SUBSCRIPTION_HEAD                                                                          \
    "01000000b06de5cf8b010000307500000000000005000000e8030000000000005802000000000000d0070000"

static void test_subscription(void **state) {
    static const struct {
        const char *seal, *lists, *filter;
    } cases[] = {
        /* types "batch.*" and one with everything that JSON escapes; sources "gemini", "x" */
        {"609f00c001",
         "040002000200776f726b070062617463682e2a0b006122625c630a1f2f7fc3a9060067656d696e69010078",
         "{\"types\":[\"batch.*\",\"a\\\"b\\\\c\\n\\u001f/\x7f\xc3\xa9\"],"
         "\"sources\":[\"gemini\",\"x\"]}"},
        {"033dac8701", "040002000000776f726b070062617463682e2a0b006122625c630a1f2f7fc3a9",
         "{\"types\":[\"batch.*\",\"a\\\"b\\\\c\\n\\u001f/\x7f\xc3\xa9\"]}"},
        {"abcc4b6d01", "040000000200776f726b060067656d696e69010078",
         "{\"sources\":[\"gemini\",\"x\"]}"},
        {"5286d3a301", "040000000000776f726b", ""},
        /* a ff * c3: bytes that no JSON text can carry; the filter may only become wider */
        {"f98c508d01", "040001000000776f726b040061ff2ac3", "{\"types\":[\"a***\"]}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char hex[512];
        struct record_subscription s, again;
        snprintf(hex, sizeof hex, "%s" SUBSCRIPTION_HEAD "%s", cases[i].seal, cases[i].lists);
        assert_true(record_subscription_decode(*state, from_hex(*state, hex), &s));
        assert_text(s.filter, cases[i].filter);
        assert_text(s.name, "work");
        assert_true(s.project == 1 && s.created_at_ms == 1700000001456 && s.lease_ms == 30000);
        assert_true(s.max_fails == 5 && s.backoff_min_ms == 1000 && s.backoff_max_ms == 600);
        assert_true(s.backoff_factor_permille == 2000 && s.backoff_jitter_permille == 0);
        assert_true(s.max_hold_ms == 0 && s.max_age_ms == 0 && s.rate_per_s == 0);
        assert_true(s.backoff_list_count == 0 && s.order_key.len == 0 && s.flags == 0);
        struct slice value = record_subscription_encode(*state, &s);
        assert_int_equal(value.data[4], 3);
        assert_true(record_subscription_decode(*state, value, &again));
        assert_true(slice_eq(again.filter, s.filter));
    }
}

/* The most that the lists could hold, each byte of it one that takes six in JSON. */
static void test_the_longest_lists(void **state) {
    enum { TYPES = 64, TYPE_BYTES = 256, HEAD = 5 + 54 };
    static uint8_t bytes[HEAD + TYPES * (2 + TYPE_BYTES)];
    struct record_subscription s;
    struct slice head = from_hex(*state, "0000000001" SUBSCRIPTION_HEAD "040040000000776f726b");
    assert_int_equal(head.len, HEAD);
    memcpy(bytes, head.data, head.len);
    for (size_t i = 0; i < TYPES; i++) {
        uint8_t *at = bytes + HEAD + i * (2 + TYPE_BYTES);
        at[1] = TYPE_BYTES >> 8;
        memset(at + 2, 1, TYPE_BYTES);
    }
    uint32_t crc = crc32c(bytes + 4, sizeof bytes - 4);
    for (int i = 0; i < 4; i++) bytes[i] = (uint8_t)(crc >> 8 * i);
    assert_true(record_subscription_decode(*state, slice_of(bytes, sizeof bytes), &s));
    assert_int_equal(s.filter.len, strlen("{\"types\":[]}") + TYPES * (2 + 6 * TYPE_BYTES + 1) - 1);
    assert_true(record_subscription_decode(*state, record_subscription_encode(*state, &s), &s));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event),
        cmocka_unit_test(test_dead_letter),
        cmocka_unit_test(test_event_2),
        cmocka_unit_test(test_dead_letter_2),
        cmocka_unit_test(test_due_1),
        cmocka_unit_test(test_subscription_2),
        cmocka_unit_test(test_task_2),
        cmocka_unit_test(test_job_1),
        cmocka_unit_test(test_retry),
        cmocka_unit_test(test_position),
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_subscription),
        cmocka_unit_test(test_the_longest_lists),
    };
    return cmocka_run_group_tests_name("record_old", tests, setup, teardown);
}
