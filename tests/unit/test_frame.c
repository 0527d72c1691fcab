/* The frames against tests/vectors/frames.json, whose bytes come from another encoder, and against
 * what peers may get wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>

#include "frame_again.h"
#include "proto/frame.h"
#include "proto/limits.h"

#define TOP (64u << 20)

struct vector {
    const char *name;
    uint8_t *bytes; /* owns */
    size_t len;
    const char *error;
    bool decode_only;
};

struct vectors {
    json_t *root;
    struct vector *rows;
    size_t count;
    struct frame_decoder *d;
};

static uint8_t nibble(char c) {
    return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static int open_vectors(void **state) {
    struct vectors *v = calloc(1, sizeof *v);
    json_error_t error;
    v->root = json_load_file(TESTS_DIR "/vectors/frames.json", 0, &error);
    if (v->root == NULL) return -1;
    v->count = json_array_size(v->root);
    v->rows = calloc(v->count, sizeof *v->rows);
    for (size_t i = 0; i < v->count; i++) {
        json_t *row = json_array_get(v->root, i);
        const char *hex = json_string_value(json_object_get(row, "hex"));
        struct vector *r = &v->rows[i];
        r->name = json_string_value(json_object_get(row, "name"));
        r->error = json_string_value(json_object_get(row, "error"));
        r->decode_only = json_is_true(json_object_get(row, "decode_only"));
        r->len = strlen(hex) / 2;
        r->bytes = malloc(r->len);
        for (size_t k = 0; k < r->len; k++) {
            r->bytes[k] = (uint8_t)(nibble(hex[2 * k]) << 4 | nibble(hex[2 * k + 1]));
        }
    }
    v->d = frame_decoder_new();
    *state = v;
    return 0;
}

static int close_vectors(void **state) {
    struct vectors *v = *state;
    for (size_t i = 0; i < v->count; i++) free(v->rows[i].bytes);
    free(v->rows);
    json_decref(v->root);
    frame_decoder_free(&v->d);
    free(v);
    return 0;
}

/* Decodes the row of that name, which must be well formed. */
static struct frame decoded(struct vectors *v, const char *name) {
    for (size_t i = 0; i < v->count; i++) {
        if (strcmp(v->rows[i].name, name) != 0) continue;
        struct frame f;
        const char *why = NULL;
        enum err err = frame_decode(v->d, slice_of(v->rows[i].bytes, v->rows[i].len), &f, &why);
        if (err != ERR_OK) fail_msg("%s: %s", name, why);
        return f;
    }
    fail_msg("no vector %s", name);
    return (struct frame){0};
}

static void assert_slice(struct slice s, const char *want) {
    if (!slice_eq_str(s, want)) fail_msg("\"%.*s\" is not \"%s\"", SLICE_ARG(s), want);
}

static void every_frame_decodes_and_encodes_to_the_same_bytes(void **state) {
    struct vectors *v = *state;
    size_t seen = 0;
    for (size_t i = 0; i < v->count; i++) {
        const struct vector *r = &v->rows[i];
        if (r->error != NULL || r->decode_only) continue;
        struct frame f = decoded(v, r->name);
        struct buf b;
        buf_init(&b, TOP);
        buf_append_str(&b, "before");
        assert_true(frame_again(&f, &b));
        struct slice again = slice_from(buf_slice(&b), 6);
        if (!slice_eq(again, slice_of(r->bytes, r->len))) fail_msg("%s: other bytes", r->name);
        seen |= 1u << (f.op % 32);
        buf_free(&b);
    }
    assert_true(seen != 0);
}

static void refused_frames_say_why(void **state) {
    struct vectors *v = *state;
    for (size_t i = 0; i < v->count; i++) {
        const struct vector *r = &v->rows[i];
        if (r->error == NULL) continue;
        struct frame f;
        const char *why = NULL;
        enum err err = frame_decode(v->d, slice_of(r->bytes, r->len), &f, &why);
        if (strcmp(err_info((int)err).word, r->error) != 0) {
            fail_msg("%s: %s (%s), want %s", r->name, err_info((int)err).word, why, r->error);
        }
        assert_true(strlen(why) > 0);
        if (err != ERR_BAD_FRAME) assert_int_equal(f.rid, 1); /* it can be answered */
    }
}

static void client_fields_are_where_they_belong(void **state) {
    struct vectors *v = *state;
    struct frame f = decoded(v, "hello");
    assert_int_equal(f.op, FRAME_HELLO);
    assert_int_equal(f.rid, 1);
    assert_int_equal(f.u.hello.version_min, 1);
    assert_slice(f.u.hello.client_name, "w1");
    assert_slice(f.u.hello.client_version, "0.1.0");
    assert_int_equal(f.u.hello.heartbeat_ms, 10000);
    f = decoded(v, "auth");
    assert_slice(f.u.auth.mechanism, "hmac-sha256");
    assert_slice(f.u.auth.key_id, "key_1");
    assert_int_equal(f.u.auth.proof.len, 4);
    f = decoded(v, "window");
    assert_int_equal(f.u.window.events, 0);
    assert_int_equal(f.u.window.bytes, 65536);
    f = decoded(v, "ack");
    assert_int_equal(f.sub, 1);
    assert_int_equal(f.ranges_count, 3);
    assert_int_equal(f.ranges[0].lo, 1);
    assert_int_equal(f.ranges[0].hi, 5);
    assert_int_equal(f.ranges[2].hi, 4294967300u);
    assert_false(f.u.ack.confirm);
    assert_true(decoded(v, "ack_confirm").u.ack.confirm);
    f = decoded(v, "nack_fail");
    assert_int_equal(f.u.nack.kind, FRAME_NACK_FAIL);
    assert_int_equal(f.u.nack.delay_ms, 30000);
    assert_slice(f.u.nack.error, "exit status 1");
    assert_true(decoded(v, "nack_release").u.nack.delay_ms == FRAME_DELAY_POLICY);
    f = decoded(v, "extend_confirm");
    assert_int_equal(f.u.extend.lease_ms, 43200000);
    assert_true(f.u.extend.confirm);
    f = decoded(v, "publish");
    assert_int_equal(f.u.publish.count, 2);
    const struct event *e = &f.u.publish.events[0];
    assert_slice(e->type, "job.done");
    assert_slice(e->subject, "jobs/1");
    assert_slice(e->id, "id-1");
    assert_slice(e->content_type, "application/json");
    assert_slice(e->metadata, "{\"a\":1}");
    assert_slice(e->body, "{}");
    assert_true(e->time_ms == 1700000000000);
    f = decoded(v, "replay");
    assert_int_equal(f.u.replay.from_seq, 1);
    assert_int_equal(f.u.replay.to_seq, 100);
    f = decoded(v, "replay_time");
    assert_true(f.u.replay.from_time_ms == 1700000000000);
    assert_true(f.u.replay.to_time_ms == 1700000001000);
}

static void policies_are_where_they_belong(void **state) {
    struct vectors *v = *state;
    struct frame f = decoded(v, "subscribe");
    assert_false(f.u.subscribe.create.present);
    f = decoded(v, "subscribe_create");
    const struct frame_policy *p = &f.u.subscribe.create;
    assert_int_equal(f.sub, 2);
    assert_slice(f.u.subscribe.name, "batches");
    assert_int_equal(f.u.subscribe.window_events, 64);
    assert_int_equal(f.u.subscribe.window_bytes, 16777216);
    assert_int_equal(f.u.subscribe.concurrency, 8);
    assert_true(p->present);
    assert_int_equal(p->types_count, 2);
    assert_slice(p->types[1], "job.done");
    assert_int_equal(p->sources_count, 1);
    assert_slice(p->sources[0], "gemini");
    assert_int_equal(p->lease_ms, 60000);
    assert_int_equal(p->max_fails, 5);
    assert_int_equal(p->backoff_min_ms, 1000);
    assert_int_equal(p->backoff_max_ms, 60000);
    assert_true(p->backoff_factor == 2.5);
    assert_int_equal(p->start, FRAME_START_FIRST);
    f = decoded(v, "subscribe_create_plain");
    assert_int_equal(p->start, FRAME_START_NEW);
    assert_true(p->max_fails == UINT64_MAX && p->backoff_min_ms == UINT64_MAX);
    assert_true(p->lease_ms == 0 && p->types_count == 0 && p->sources_count == 0);
    f = decoded(v, "subscribe_create_seq");
    assert_int_equal(p->start, FRAME_START_SEQ);
    assert_true(p->start_value == 12345678901u && p->max_fails == 0);
    f = decoded(v, "subscribe_create_time");
    assert_int_equal(p->start, FRAME_START_TIME);
}

static void broker_fields_are_where_they_belong(void **state) {
    struct vectors *v = *state;
    struct frame f = decoded(v, "welcome");
    assert_int_equal(f.u.welcome.version, 1);
    assert_slice(f.u.welcome.server, "bellhopd/0.1.0");
    assert_slice(f.u.welcome.session, "s-1");
    assert_slice(f.u.welcome.auth, "none");
    assert_int_equal(f.u.welcome.nonce.len, 2);
    assert_int_equal(f.u.welcome.heartbeat_ms, 10000);
    assert_int_equal(f.u.welcome.frame_max_bytes, 1114112);
    f = decoded(v, "err_retry");
    assert_int_equal(f.u.err.number, ERR_NO_ROOM);
    assert_slice(f.u.err.word, "no_room");
    assert_slice(f.u.err.message, "the store is nearly full");
    assert_int_equal(f.u.err.retry_ms, 1000);
    assert_false(f.u.err.fatal);
    assert_true(decoded(v, "err_fatal").u.err.fatal);
    f = decoded(v, "subscribed");
    assert_int_equal(f.u.subscribed.lease_ms, 30000);
    assert_int_equal(f.u.subscribed.backlog, 17);
    assert_true(f.u.subscribed.created);
    f = decoded(v, "deliver");
    assert_int_equal(f.u.deliver.lease_ms, 30000);
    assert_int_equal(f.u.deliver.count, 2);
    const struct frame_item *item = &f.u.deliver.items[1];
    assert_int_equal(item->tag, 7);
    assert_int_equal(item->fails, 1);
    assert_int_equal(item->deliveries, 2);
    assert_int_equal(item->flags, FRAME_FLAG_REDELIVERED);
    assert_int_equal(item->event.seq, 42);
    assert_true(item->event.received_at_ms == 1700000000123);
    assert_true(item->event.time_ms == 1700000000000);
    assert_slice(item->event.type, "batch.succeeded");
    assert_slice(item->event.id, "msg_1");
    assert_slice(item->event.source, "gemini");
    assert_slice(item->event.subject, "batches/abc");
    assert_slice(item->event.content_type, "application/json");
    assert_slice(item->event.metadata, "{\"k\":\"v\"}");
    assert_slice(item->event.headers, "{\"webhook-id\":\"msg_1\"}");
    assert_slice(item->event.body, "{\"a\":1}");
    f = decoded(v, "settled");
    assert_int_equal(f.ranges_count, 2);
    assert_int_equal(f.u.settled.already[0].lo, 6);
    assert_int_equal(f.u.settled.stale[0].hi, 8);
    f = decoded(v, "published");
    assert_int_equal(f.u.published.seqs[2], 40);
    assert_true(!f.u.published.duplicates[0] && f.u.published.duplicates[2]);
    f = decoded(v, "goaway");
    assert_int_equal(f.u.goaway.reconnect_ms, 1000);
    f = decoded(v, "ended");
    assert_int_equal(f.u.ended.number, ERR_DELETED);
}

static void other_ways_of_writing_mean_the_same(void **state) {
    struct vectors *v = *state;
    struct frame f = decoded(v, "hello_empty");
    assert_int_equal(f.u.hello.version_max, 1);
    f = decoded(v, "hello_more");
    assert_int_equal(f.u.hello.version_max, 3);
    assert_slice(f.u.hello.client_name, "w1");
    assert_false(decoded(v, "ack_short").u.ack.confirm);
    assert_int_equal(decoded(v, "ack_nil").ranges_count, 1);
    f = decoded(v, "nack_short");
    assert_true(f.u.nack.delay_ms == FRAME_DELAY_POLICY && f.u.nack.error.len == 0);
    assert_int_equal(decoded(v, "extend_short").u.extend.lease_ms, 0);
    assert_false(decoded(v, "subscribe_short").u.subscribe.create.present);
    assert_slice(decoded(v, "subscribe_bin_name").u.subscribe.name, "batches");
    assert_true(decoded(v, "subscribe_int_factor").u.subscribe.create.backoff_factor == 2);
    assert_slice(decoded(v, "publish_str_body").u.publish.events[0].body, "text");
    f = decoded(v, "unknown_op");
    assert_int_equal(f.op, FRAME_UNKNOWN);
    assert_int_equal(f.op_raw, 11);
    assert_int_equal(f.rid, 99);
    f = decoded(v, "wide_ints");
    assert_int_equal(f.op, FRAME_ACK);
    assert_int_equal(f.ranges[0].hi, 127);
    assert_int_equal(decoded(v, "deliver_short").u.deliver.count, 1);
    assert_int_equal(decoded(v, "err_short").u.err.number, 999);
    assert_int_equal(decoded(v, "deep_enough").op, FRAME_PING);
}

/* Every prefix of every frame: more bytes are needed, and a length that lies is refused. */
static void cut_frames_are_refused(void **state) {
    struct vectors *v = *state;
    for (size_t i = 0; i < v->count; i++) {
        const struct vector *r = &v->rows[i];
        if (r->error != NULL) continue;
        for (size_t len = 0; len < r->len; len++) {
            uint8_t *cut = malloc(len + 1); /* its own memory, so that reads past it are seen */
            size_t frame_len = 0;
            struct frame f;
            const char *why = NULL;
            memcpy(cut, r->bytes, len);
            assert_int_equal(frame_split(slice_of(cut, len), TOP, &frame_len), 0);
            if (len >= 4) {
                size_t claim = len - 4;
                assert_int_equal(frame_decode(v->d, slice_of(cut, len), &f, &why), ERR_BAD_FRAME);
                cut[0] = cut[1] = 0;
                cut[2] = (uint8_t)(claim >> 8);
                cut[3] = (uint8_t)claim;
                assert_int_equal(frame_decode(v->d, slice_of(cut, len), &f, &why), ERR_BAD_FRAME);
            }
            free(cut);
        }
    }
}

static void split_knows_lengths(void **state) {
    const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff};
    const uint8_t two[] = {0, 0, 0, 2, 1, 2, 0, 0, 0};
    size_t len = 0;
    (void)state;
    assert_int_equal(frame_split(slice_of(huge, 3), 100, &len), 0);
    assert_int_equal(frame_split(slice_of(huge, 4), 100, &len), -ERR_FRAME_TOO_BIG);
    assert_int_equal(frame_split(slice_of(two, 5), 2, &len), 0);
    assert_int_equal(frame_split(slice_of(two, 6), 1, &len), -ERR_FRAME_TOO_BIG);
    assert_int_equal(frame_split(slice_of(two, sizeof two), 2, &len), 1);
    assert_int_equal(len, 6);
}

static void broken_frames_keep_their_rid(void **state) {
    struct vectors *v = *state;
    const uint8_t frame[] = {0, 0, 0, 4, 0x93, 0x05, 0x2a, 0xc1};
    struct frame f;
    const char *why = NULL;
    assert_int_equal(frame_decode(v->d, slice_of(frame, sizeof frame), &f, &why), ERR_BAD_FRAME);
    assert_int_equal(f.op_raw, FRAME_ACK);
    assert_int_equal(f.rid, 42);
}

/* For every maximum below what a frame needs, the buf is as it was. */
static void full_bufs_stay_as_they_were(void **state) {
    struct vectors *v = *state;
    for (size_t i = 0; i < v->count; i++) {
        const struct vector *r = &v->rows[i];
        if (r->error != NULL || r->decode_only) continue;
        struct frame f = decoded(v, r->name);
        for (size_t max = 3; max < 3 + r->len; max++) {
            struct buf b;
            buf_init(&b, max);
            buf_append_str(&b, "abc");
            assert_false(frame_again(&f, &b));
            assert_slice(buf_slice(&b), "abc");
            buf_free(&b);
        }
    }
}

static void large_bodies_go_there_and_back(void **state) {
    struct vectors *v = *state;
    size_t len = 1u << 20;
    uint8_t *body = malloc(len);
    struct frame_item item = {.tag = UINT64_MAX, .event = {.seq = UINT64_MAX - 1}};
    struct frame_deliver d;
    struct frame f;
    struct buf b;
    const char *why = NULL;
    memset(body, 0xc1, len);
    item.event.body = slice_of(body, len);
    buf_init(&b, TOP);
    assert_true(frame_deliver_begin(&d, &b, UINT32_MAX, 1));
    for (int i = 0; i < 20; i++) assert_true(frame_deliver_add(&d, &item));
    frame_deliver_end(&d);
    assert_int_equal(frame_decode(v->d, buf_slice(&b), &f, &why), ERR_OK);
    assert_int_equal(f.u.deliver.count, 20);
    assert_true(f.u.deliver.items[19].tag == UINT64_MAX);
    assert_true(slice_eq(f.u.deliver.items[19].event.body, item.event.body));
    buf_free(&b);
    free(body);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_frame_decodes_and_encodes_to_the_same_bytes),
        cmocka_unit_test(refused_frames_say_why),
        cmocka_unit_test(client_fields_are_where_they_belong),
        cmocka_unit_test(policies_are_where_they_belong),
        cmocka_unit_test(broker_fields_are_where_they_belong),
        cmocka_unit_test(other_ways_of_writing_mean_the_same),
        cmocka_unit_test(cut_frames_are_refused),
        cmocka_unit_test(split_knows_lengths),
        cmocka_unit_test(broken_frames_keep_their_rid),
        cmocka_unit_test(full_bufs_stay_as_they_were),
        cmocka_unit_test(large_bodies_go_there_and_back),
    };
    return cmocka_run_group_tests(tests, open_vectors, close_vectors);
}
