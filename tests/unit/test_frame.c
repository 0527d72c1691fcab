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
        buf_free(&b);
    }
}

static void every_op_has_a_vector(void **state) {
    static const int ops[] = {
        FRAME_HELLO,     FRAME_AUTH,      FRAME_SUBSCRIBE,   FRAME_WINDOW,     FRAME_ACK,
        FRAME_NACK,      FRAME_EXTEND,    FRAME_UNSUBSCRIBE, FRAME_PUBLISH,    FRAME_REPLAY,
        FRAME_REDRIVE,   FRAME_PING,      FRAME_PONG,        FRAME_DRAIN,      FRAME_CLOSE,
        FRAME_WELCOME,   FRAME_OK,        FRAME_ERR,         FRAME_SUBSCRIBED, FRAME_DELIVER,
        FRAME_SETTLED,   FRAME_LEASE,     FRAME_REVOKE,      FRAME_STATE,      FRAME_PUBLISHED,
        FRAME_DRAINED,   FRAME_QUIET,     FRAME_GOAWAY,      FRAME_ENDED,      FRAME_WAIT,
        FRAME_JOB_EVENT, FRAME_CHALLENGE,
    };
    struct vectors *v = *state;
    for (size_t k = 0; k < sizeof ops / sizeof ops[0]; k++) {
        bool seen = false;
        for (size_t i = 0; i < v->count && !seen; i++) {
            const struct vector *r = &v->rows[i];
            seen = r->error == NULL && !r->decode_only && decoded(v, r->name).op == ops[k];
        }
        if (!seen) fail_msg("op %d has no vector", ops[k]);
    }
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

/* What is too large or out of its range is named, so that the sender knows what to shorten. */
static void refusals_name_the_part(void **state) {
    static const struct {
        const char *vector, *part;
    } cases[] = {
        {"error_type_129", "error: type"},
        {"error_message_513", "error: message"},
        {"error_text_513", "error: message"},
        {"error_detail_2049", "error: detail"},
        {"create_49153", "create"},
        {"replay_filter_32769", "filter"},
        {"redrive_filter_32769", "filter"},
        {"redrive_rate_above", "rate"},
        {"hello_resume_65", "resume"},
        {"claims_equal", "claims: tags must rise"},
        {"worker_lease_99", "lease_ms"},
        {"bad_create_map", "create: want the policy as JSON text"},
        {"wait_job_1025", "job"},
        {"wait_types_17", "types: more than 16"},
        {"wait_type_empty", "types: one of them is empty"},
        {"wait_timeout_above", "timeout_ms"},
        {"bad_wait_array", "WAIT: want a map"},
        {"bad_failure_part", "error: want text as message"},
    };
    struct vectors *v = *state;
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        const char *why = "no such vector";
        for (size_t i = 0; i < v->count; i++) {
            const struct vector *r = &v->rows[i];
            struct frame f;
            if (strcmp(r->name, cases[k].vector) != 0) continue;
            assert_int_not_equal(frame_decode(v->d, slice_of(r->bytes, r->len), &f, &why), ERR_OK);
        }
        if (!slice_starts_with(slice_str(why), cases[k].part)) {
            fail_msg("%s: %s", cases[k].vector, why);
        }
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
    assert_true(f.u.hello.resume_ms == 0 && f.u.hello.resume.len == 0);
    f = decoded(v, "hello_resume");
    assert_int_equal(f.u.hello.resume_ms, 600000);
    assert_slice(f.u.hello.resume, "s-0123456789abcdef0123456789abcdef");
    f = decoded(v, "auth");
    assert_slice(f.u.auth.mechanism, "hmac-sha256");
    assert_slice(f.u.auth.key_id, "0a1b2c3d4e5f");
    assert_int_equal(f.u.auth.proof.len, 32);
    assert_int_equal(f.u.auth.nonce.len, 32);
    f = decoded(v, "auth_short");
    assert_int_equal(f.u.auth.key_id.len + f.u.auth.proof.len + f.u.auth.nonce.len, 0);
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
    assert_true(e->deliver_at_ms == 0);
    f = decoded(v, "publish_later");
    assert_true(f.u.publish.events[0].deliver_at_ms == 1700003600000);
    assert_true(f.u.publish.events[0].time_ms == 0);
    assert_true(f.u.publish.events[1].deliver_at_ms == (1ull << 53) - 1);
    f = decoded(v, "state_request");
    assert_true(f.sub == 1 && !f.u.state.watch && !f.u.state.answer);
    f = decoded(v, "state_watch");
    assert_true(f.rid == 24 && f.sub == UINT32_MAX && f.u.state.watch && !f.u.state.answer);
}

static void nacks_say_what_failed(void **state) {
    struct vectors *v = *state;
    struct frame f = decoded(v, "nack_release");
    const struct frame_failure *failure = &f.u.nack.failure;
    assert_int_equal(f.u.nack.kind, FRAME_NACK_RELEASE);
    assert_true(f.u.nack.delay_ms == FRAME_DELAY_POLICY);
    assert_true(failure->type.len + failure->message.len + failure->detail.len == 0);
    f = decoded(v, "nack_fail");
    assert_int_equal(f.u.nack.kind, FRAME_NACK_FAIL);
    assert_int_equal(f.u.nack.delay_ms, 30000);
    assert_slice(failure->message, "exit status 1");
    assert_true(failure->type.len + failure->detail.len == 0);
    f = decoded(v, "nack_typed");
    assert_int_equal(f.u.nack.delay_ms, 0);
    assert_slice(failure->type, "Timeout");
    assert_slice(failure->message, "no answer");
    assert_int_equal(failure->detail.len, 30 * strlen("after 30 s\n"));
    assert_true(f.u.nack.confirm);
    f = decoded(v, "nack_elsewhere");
    assert_int_equal(f.u.nack.kind, FRAME_NACK_ELSEWHERE);
    assert_int_equal(f.u.nack.delay_ms, 86400000);
    f = decoded(v, "nack_failure_short");
    assert_slice(failure->type, "Timeout");
    assert_true(failure->message.len + failure->detail.len == 0 && !f.u.nack.confirm);
    f = decoded(v, "nack_failure_nils");
    assert_slice(failure->message, "m");
    assert_true(failure->type.len + failure->detail.len == 0 && f.u.nack.confirm);
    f = decoded(v, "nack_failure_full");
    assert_true(failure->type.len == 128 && failure->message.len == 512 &&
                failure->detail.len == 2048);
    f = decoded(v, "nack_empty_text");
    assert_int_equal(failure->message.len, 0);
}

static void replays_and_redrives_are_where_they_belong(void **state) {
    struct vectors *v = *state;
    struct frame f = decoded(v, "replay");
    assert_slice(f.u.replay.name, "batches");
    assert_int_equal(f.u.replay.from_seq, 1);
    assert_int_equal(f.u.replay.to_seq, 100);
    assert_true(f.u.replay.filter.len == 0 && f.u.replay.rate_per_s == 0 && !f.u.replay.dry_run);
    f = decoded(v, "replay_time");
    assert_true(f.u.replay.from_time_ms == 1700000000000);
    assert_true(f.u.replay.to_time_ms == 1700000001000);
    f = decoded(v, "replay_all");
    assert_slice(f.u.replay.filter, "{\"types\":[\"batch.*\"]}");
    assert_int_equal(f.u.replay.rate_per_s, 50);
    assert_true(f.u.replay.dry_run);
    f = decoded(v, "replay_nils");
    assert_true(f.u.replay.from_seq == 1 && f.u.replay.to_seq == 0 && !f.u.replay.dry_run);
    f = decoded(v, "redrive");
    assert_slice(f.u.redrive.name, "batches");
    assert_true(f.u.redrive.seq == 0 && f.u.redrive.filter.len == 0);
    f = decoded(v, "redrive_one");
    assert_true(f.u.redrive.seq == 12345678901u);
    f = decoded(v, "redrive_some");
    assert_slice(f.u.redrive.filter, "{\"types\":[\"batch.*\"]}");
    assert_int_equal(f.u.redrive.rate_per_s, 1000000);
    f = decoded(v, "redrive_nils");
    assert_true(f.u.redrive.seq == 0 && f.u.redrive.rate_per_s == 0);
}

static void waits_are_where_they_belong(void **state) {
    struct vectors *v = *state;
    struct frame f = decoded(v, "wait");
    assert_slice(f.u.wait.id, "batches/abc");
    assert_true(f.rid == 25 && f.u.wait.timeout_ms == 60000);
    assert_true(f.u.wait.types_count == 0 && f.u.wait.after_seq == 0);
    f = decoded(v, "wait_types");
    assert_true(f.u.wait.types_count == 3 && f.u.wait.after_seq == 12345678901u);
    assert_slice(f.u.wait.types[0], "batch.*");
    assert_slice(f.u.wait.types[2], "video.generated");
    assert_int_equal(decoded(v, "wait_not").u.wait.timeout_ms, 0);
    f = decoded(v, "wait_nils");
    assert_true(f.u.wait.timeout_ms == LIMIT_JOB_WAIT_MS_DEFAULT && f.u.wait.types_count == 0);
    f = decoded(v, "job_event");
    assert_slice(f.u.job_event.state, "succeeded");
    assert_true(f.u.job_event.seq == 42 && !f.u.job_event.overdue);
    assert_non_null(f.u.job_event.item);
    assert_slice(f.u.job_event.item->event.subject, "batches/abc");
    assert_slice(f.u.job_event.item->event.body, "{\"a\":1}");
    f = decoded(v, "job_event_gone");
    assert_true(f.u.job_event.overdue && f.u.job_event.seq == 12345678901u);
    assert_null(f.u.job_event.item);
    f = decoded(v, "job_event_nothing");
    assert_true(f.u.job_event.seq == 0 && f.u.job_event.item == NULL);
    assert_slice(f.u.job_event.state, "pending");
}

static void subscriptions_are_where_they_belong(void **state) {
    struct vectors *v = *state;
    struct frame f = decoded(v, "subscribe");
    assert_true(f.u.subscribe.lease_ms == 0 && f.u.subscribe.create.len == 0);
    assert_int_equal(f.u.subscribe.claims_count, 0);
    f = decoded(v, "subscribe_create");
    assert_int_equal(f.sub, 2);
    assert_slice(f.u.subscribe.name, "batches");
    assert_int_equal(f.u.subscribe.window_events, 64);
    assert_int_equal(f.u.subscribe.window_bytes, 16777216);
    assert_int_equal(f.u.subscribe.concurrency, 8);
    assert_int_equal(f.u.subscribe.lease_ms, 60000);
    assert_true(slice_starts_with(f.u.subscribe.create, "{\"filter\": {\"types\""));
    f = decoded(v, "subscribe_create_plain");
    assert_slice(f.u.subscribe.create, "{}");
    f = decoded(v, "subscribe_claims");
    const struct frame_claim *claims = f.u.subscribe.claims;
    assert_int_equal(f.u.subscribe.claims_count, 3);
    assert_true(claims[0].tag == 1 && claims[0].seq == 42 && claims[0].flags == 0);
    assert_true(claims[1].tag == 7 && claims[1].flags == FRAME_FLAG_REDELIVERED);
    assert_true(claims[2].tag == 4294967296u && claims[2].seq == 12345678901u &&
                claims[2].flags == 7);
    f = decoded(v, "subscribe_all");
    assert_true(f.u.subscribe.claims_count == 1 && f.u.subscribe.lease_ms == 43200000);
    f = decoded(v, "subscribe_nils");
    assert_true(f.u.subscribe.create.len == 0 && f.u.subscribe.claims_count == 0);
    f = decoded(v, "subscribe_bin_create");
    assert_slice(f.u.subscribe.create, "{}");
}

/* As many claims as a window holds are taken, one more is not. */
static void claims_are_as_many_as_a_window(void **state) {
    struct vectors *v = *state;
    static struct frame_claim claims[LIMIT_WINDOW_EVENTS + 1];
    for (size_t i = 0; i <= LIMIT_WINDOW_EVENTS; i++) {
        claims[i] = (struct frame_claim){.tag = i + 1, .seq = 100000 + i, .flags = i % 8};
    }
    for (size_t count = LIMIT_WINDOW_EVENTS; count <= LIMIT_WINDOW_EVENTS + 1; count++) {
        struct frame f = {.op = FRAME_SUBSCRIBE, .rid = 5, .sub = 1}, again;
        const char *why = NULL;
        struct buf b;
        f.u.subscribe.name = slice_str("batches");
        f.u.subscribe.claims = claims;
        f.u.subscribe.claims_count = count;
        buf_init(&b, TOP);
        assert_true(frame_encode_subscribe(&b, &f));
        enum err err = frame_decode(v->d, buf_slice(&b), &again, &why);
        assert_int_equal(again.rid, 5);
        if (count > LIMIT_WINDOW_EVENTS) {
            assert_int_equal(err, ERR_LIMIT_EXCEEDED);
        } else {
            assert_int_equal(err, ERR_OK);
            assert_int_equal(again.u.subscribe.claims_count, count);
            assert_memory_equal(again.u.subscribe.claims, claims, count * sizeof claims[0]);
        }
        buf_free(&b);
    }
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
    assert_int_equal(f.u.welcome.resume_ms, 60000);
    f = decoded(v, "challenge");
    assert_slice(f.u.challenge.mechanism, "hmac-sha256");
    assert_int_equal(f.u.challenge.nonce.len, 32);
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
    assert_int_equal(f.u.subscribed.resumed, 2);
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
    f = decoded(v, "lease");
    assert_true(f.sub == 1 && f.ranges_count == 2 && f.ranges[1].hi == 9);
    assert_int_equal(f.u.lease.remaining_ms, 7500);
    f = decoded(v, "quiet");
    assert_slice(f.u.quiet.reason, "the broker is stopping");
    assert_int_equal(f.u.quiet.deadline_ms, 20000);
    f = decoded(v, "goaway");
    assert_int_equal(f.u.goaway.reconnect_ms, 1000);
    f = decoded(v, "ended");
    assert_int_equal(f.u.ended.number, ERR_DELETED);
}

static void states_are_where_they_belong(void **state) {
    struct vectors *v = *state;
    struct frame f = decoded(v, "state");
    assert_true(f.rid == 23 && f.sub == 1 && f.u.state.answer && !f.u.state.watch);
    assert_true(f.u.state.ready == 3 && f.u.state.leased == 16 && f.u.state.delayed == 2);
    assert_true(f.u.state.blocked == 1 && f.u.state.dead == 4 && f.u.state.backlog == 5000000);
    assert_true(f.u.state.oldest_ms == 86400000 && !f.u.state.paused);
    assert_true(f.u.state.in_per_s == 12.5 && f.u.state.out_per_s == 0);
    assert_slice(f.u.state.why_idle, "busy");
    f = decoded(v, "state_changed");
    assert_true(f.rid == 0 && f.u.state.paused);
    f = decoded(v, "state_short_answer");
    assert_true(f.u.state.answer && f.u.state.in_per_s == 2 && f.u.state.why_idle.len == 0);
    assert_true(decoded(v, "state_float_32").u.state.in_per_s == 1.5);
    f = decoded(v, "state_short");
    assert_true(!f.u.state.answer && !f.u.state.watch);
    assert_false(decoded(v, "state_nil").u.state.answer);
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
    assert_true(f.u.nack.delay_ms == FRAME_DELAY_POLICY && f.u.nack.failure.message.len == 0);
    assert_int_equal(decoded(v, "extend_short").u.extend.lease_ms, 0);
    assert_int_equal(decoded(v, "subscribe_short").u.subscribe.create.len, 0);
    assert_true(decoded(v, "hello_resume_above").u.hello.resume_ms == (1ull << 53) - 1);
    assert_int_equal(decoded(v, "quiet_short").u.quiet.deadline_ms, 0);
    assert_false(decoded(v, "subscribed_short").u.subscribed.created);
    assert_slice(decoded(v, "subscribe_bin_name").u.subscribe.name, "batches");
    assert_slice(decoded(v, "publish_str_body").u.publish.events[0].body, "text");
    f = decoded(v, "unknown_op");
    assert_int_equal(f.op, FRAME_UNKNOWN);
    assert_int_equal(f.op_raw, 12);
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
        cmocka_unit_test(every_op_has_a_vector),
        cmocka_unit_test(refused_frames_say_why),
        cmocka_unit_test(refusals_name_the_part),
        cmocka_unit_test(client_fields_are_where_they_belong),
        cmocka_unit_test(nacks_say_what_failed),
        cmocka_unit_test(replays_and_redrives_are_where_they_belong),
        cmocka_unit_test(subscriptions_are_where_they_belong),
        cmocka_unit_test(waits_are_where_they_belong),
        cmocka_unit_test(claims_are_as_many_as_a_window),
        cmocka_unit_test(broker_fields_are_where_they_belong),
        cmocka_unit_test(states_are_where_they_belong),
        cmocka_unit_test(other_ways_of_writing_mean_the_same),
        cmocka_unit_test(cut_frames_are_refused),
        cmocka_unit_test(split_knows_lengths),
        cmocka_unit_test(broken_frames_keep_their_rid),
        cmocka_unit_test(full_bufs_stay_as_they_were),
        cmocka_unit_test(large_bodies_go_there_and_back),
    };
    return cmocka_run_group_tests(tests, open_vectors, close_vectors);
}
