/* libbellhop: failures, long leases, pausing, states, later events, tasks, a broker that stops. */
#include "client_world.h"

static void send_revoke(struct world *w, uint64_t lo, uint64_t hi, const char *reason) {
    struct buf out = broker_buf();
    frame_encode_revoke(&out, 1, &(struct frame_range){lo, hi}, 1, reason);
    broker_send(&w->broker, &out);
}

/* `len` times 'a', and then one more text. */
static const char *text_of(char *at, size_t len, const char *end) {
    memset(at, 'a', len);
    memcpy(at + len, end, strlen(end) + 1);
    return at;
}

static void failures_have_three_parts(void **state) {
    struct world *w = ready(state, 8, 8);
    struct broker *b = &w->broker;
    char type[256], message[1024], detail[4096];
    broker_deliver(b, 1, 3);
    UNTIL(w, w->events_count == 3);
    struct bellhop_failure failure = {"Timeout", "model did not answer", "at line 3\nat line 9"};
    bellhop_nack(w->events[0], BELLHOP_DELAY_POLICY, &failure);
    UNTIL(w, b->got[FRAME_NACK] == 1);
    assert_string_equal(b->failure_type, "Timeout");
    assert_string_equal(b->failure_message, "model did not answer");
    assert_string_equal(b->failure_detail, "at line 3\nat line 9");
    failure.type = text_of(type, 127, "\xc3\xa9"); /* the limit goes through a character */
    failure.message = text_of(message, 510, "\xe2\x82\xac");
    failure.detail = text_of(detail, 2045, "\xf0\x9f\x98\x80");
    bellhop_reject(w->events[1], &failure);
    UNTIL(w, b->got[FRAME_NACK] == 2);
    assert_int_equal(b->nack_kind, FRAME_NACK_REJECT);
    assert_int_equal(strlen(b->failure_type), 127);
    assert_int_equal(strlen(b->failure_message), 510);
    assert_int_equal(strlen(b->failure_detail), 2045);
    failure.type = text_of(type, 126, "\xc3\xa9"); /* fits to the byte */
    failure.message = text_of(message, 509, "\xe2\x82\xac");
    failure.detail = text_of(detail, 2044, "\xf0\x9f\x98\x80");
    bellhop_reject(w->events[2], &failure);
    UNTIL(w, b->got[FRAME_NACK] == 3);
    assert_string_equal(b->failure_type, type);
    assert_string_equal(b->failure_message, message);
    assert_string_equal(b->failure_detail, detail);
    assert_int_equal(b->broken, 0);
}

static void every_settlement_can_be_confirmed(void **state) {
    struct world *w = ready(state, 8, 8);
    struct broker *b = &w->broker;
    broker_deliver(b, 1, 5);
    UNTIL(w, w->events_count == 5);
    bellhop_elsewhere(w->events[0], BELLHOP_DELAY_POLICY);
    UNTIL(w, b->got[FRAME_NACK] == 1);
    assert_true(b->nack_kind == FRAME_NACK_ELSEWHERE && b->nack_delay_ms == FRAME_DELAY_POLICY);
    bellhop_elsewhere(w->events[1], 7000);
    UNTIL(w, b->got[FRAME_NACK] == 2);
    assert_true(b->nack_delay_ms == 7000 && !b->nack_confirm);
    struct bellhop_settlement how = {
        .kind = BELLHOP_NACK, .with_delay = true, .done = on_settled, .ctx = w};
    how.delay_ms = 2ull * LIMIT_BACKOFF_MS_MAX;
    bellhop_settle(w->events[2], &how);
    UNTIL(w, w->settled == 1);
    assert_true(b->nack_confirm && b->nack_delay_ms == LIMIT_BACKOFF_MS_MAX);
    assert_true(w->error == 0 && !w->stale);
    b->stale = true;
    how = (struct bellhop_settlement){.kind = BELLHOP_RELEASE, .done = on_settled, .ctx = w};
    bellhop_settle(w->events[3], &how);
    UNTIL(w, w->settled == 2);
    assert_true(b->nack_kind == FRAME_NACK_RELEASE && w->stale);
    assert_int_equal(b->nack_delay_ms, FRAME_DELAY_POLICY);
    how.kind = BELLHOP_ELSEWHERE;
    how.with_delay = true; /* 0: at once */
    bellhop_settle(w->events[4], &how);
    UNTIL(w, w->settled == 3);
    assert_true(b->nack_kind == FRAME_NACK_ELSEWHERE && b->nack_delay_ms == 0);
}

static void a_long_handler_keeps_its_leases(void **state) {
    struct world *w = *state;
    struct bellhop_sub_options o = sub_options(w, 1, 4);
    w->broker.lease_ms = 60;
    o.lease_ms = 7200000; /* asked for; the fake grants a shorter one */
    assert_non_null(bellhop_subscribe(w->client, "batches", &o));
    UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 1);
    assert_int_equal(w->broker.sub_lease_ms, 7200000);
    broker_deliver(&w->broker, 1, 3);
    UNTIL(w, w->broker.got[FRAME_EXTEND] >= 60); /* twenty leases long */
    assert_ranges(&w->broker, FRAME_EXTEND, "1-3");
    assert_int_equal(w->broker.extend_lease_ms, 7200000);
    assert_int_equal(w->handled, 1);
    bellhop_ack(w->events[0]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1 && w->handled == 2);
    w->broker.got[FRAME_EXTEND] = 0;
    UNTIL(w, w->broker.got[FRAME_EXTEND] == 2);
    assert_ranges(&w->broker, FRAME_EXTEND, "2-3"); /* not what was settled */
}

static void leases_that_end_soon_are_told(void **state) {
    struct world *w = *state;
    w->broker.lease_ms = 3600000; /* a third of it is later than the guard */
    ready(state, 1, 4);
    broker_deliver(&w->broker, 1, 2);
    UNTIL(w, w->handled == 1);
    struct buf out = broker_buf();
    frame_encode_lease(&out, 1, &(struct frame_range){1, 2}, 1, 700);
    broker_send(&w->broker, &out);
    UNTIL(w, w->soon == 1 && w->broker.got[FRAME_EXTEND] == 1);
    assert_int_equal(w->remaining_ms, 700);
    assert_ranges(&w->broker, FRAME_EXTEND, "1-2"); /* long before a third of it */
    send_revoke(w, 1, 1, "max_hold");
    UNTIL(w, w->revoked == 1);
    assert_string_equal(w->reason, "max_hold");
    out = broker_buf();
    frame_encode_lease(&out, 1, &(struct frame_range){1, 1}, 1, 700);
    frame_encode_plain(&out, FRAME_PING, 9);
    broker_send(&w->broker, &out);
    UNTIL(w, w->broker.got[FRAME_PONG] == 1);
    assert_int_equal(w->soon, 1); /* what is revoked ends no more */
    bellhop_ack(w->events[0]);
    UNTIL(w, w->handled == 2 && w->broker.got[FRAME_ACK] == 1);
}

static void seeking_makes_tags_meaningless(void **state) {
    struct world *w = ready(state, 2, 4);
    broker_deliver(&w->broker, 1, 4);
    UNTIL(w, w->handled == 2);
    send_revoke(w, 1, 4, "seek");
    UNTIL(w, w->revoked == 2);
    assert_string_equal(w->reason, "seek");
    bellhop_ack(w->events[0]);
    bellhop_ack_confirm(w->events[1], on_settled, w);
    UNTIL(w, w->settled == 1);
    assert_true(w->error == 0 && w->stale);
    broker_deliver(&w->broker, 5, 1);
    UNTIL(w, w->handled == 3);
    bellhop_ack(w->events[2]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1);
    assert_ranges(&w->broker, FRAME_ACK, "5-5");
    assert_int_equal(w->broker.got[FRAME_NACK], 0);
}

static void pausing_gives_back_and_resuming_takes_again(void **state) {
    struct world *w = *state;
    subscribe(w, 1, 4);
    bellhop_sub_pause(w->sub);
    UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 1);
    assert_int_equal(w->broker.window_events, 0);
    bellhop_sub_resume(w->sub);
    UNTIL(w, w->broker.got[FRAME_WINDOW] == 1);
    assert_int_equal(w->broker.window_events, 4);
    broker_deliver(&w->broker, 1, 4);
    UNTIL(w, w->handled == 1);
    bellhop_sub_pause(w->sub);
    UNTIL(w, w->broker.got[FRAME_WINDOW] == 2 && w->broker.got[FRAME_NACK] == 1);
    assert_int_equal(w->broker.window_events, 0);
    assert_int_equal(w->broker.nack_kind, FRAME_NACK_RELEASE);
    assert_ranges(&w->broker, FRAME_NACK, "2-4");
    broker_deliver(&w->broker, 5, 1); /* crossed on the wire */
    UNTIL(w, w->broker.got[FRAME_NACK] == 2);
    bellhop_ack(w->events[0]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1);
    assert_int_equal(w->handled, 1);
    bellhop_sub_resume(w->sub);
    UNTIL(w, w->broker.got[FRAME_WINDOW] == 3);
    broker_deliver(&w->broker, 6, 1);
    UNTIL(w, w->handled == 2);
}

static void states_are_asked_for_and_watched(void **state) {
    struct world *w = *state;
    struct bellhop_sub_options o = sub_options(w, 1, 4);
    struct buf out = broker_buf();
    w->broker.ready = 17;
    w->broker.no_subscribed = true;
    struct bellhop_sub *s = bellhop_subscribe(w->client, "batches", &o);
    assert_int_equal(bellhop_sub_state(s, NULL, NULL), BELLHOP_EARGUMENT);
    assert_int_equal(bellhop_sub_state(s, on_stated, w), 0); /* waits until it is attached */
    UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 1);
    w->broker.no_subscribed = false;
    broker_hang_up(&w->broker);
    UNTIL(w, w->stated == 1);
    assert_int_equal(w->broker.got[FRAME_STATE], 1);
    assert_true(!w->broker.watch && w->error == 0 && w->ready == 17);
    o.on_changed = on_stated;
    s = bellhop_subscribe(w->client, "other", &o);
    UNTIL(w, w->stated == 2);
    assert_true(w->broker.watch);
    w->broker.ready = 18;
    broker_state(&w->broker, 0, 2, &out);
    broker_send(&w->broker, &out);
    UNTIL(w, w->stated == 3);
    assert_int_equal(w->ready, 18);
    broker_hang_up(&w->broker);
    UNTIL(w, w->stated == 4);
    assert_int_equal(w->broker.got[FRAME_STATE], 3);
    w->broker.no_state = true;
    broker_hang_up(&w->broker);
    UNTIL(w, w->broker.got[FRAME_STATE] == 4);
    w->broker.no_state = false;
    broker_hang_up(&w->broker);
    UNTIL(w, w->stated == 5);
    assert_int_equal(w->error, 0); /* watched again; nothing is said about the loss */
    w->broker.no_state = true;
    assert_int_equal(bellhop_sub_state(s, on_stated, w), 0);
    bellhop_close(&w->client);
    assert_int_equal(w->stated, 6);
    assert_int_equal(w->error, BELLHOP_ECLOSED);
}

#define DAY_MS 86400000ull

static void later_is_by_the_brokers_clock(void **state) {
    struct world *w = *state;
    const uint64_t now_ms = 4000000000000ull, after_ms = 60000;
    struct bellhop_message message = {.type = "a", .body = "b", .body_len = 1};
    w->broker.now_ms = now_ms;
    message.deliver_after_ms = after_ms;
    assert_int_equal(bellhop_publish(w->client, &message, 1, on_published, w), 0);
    UNTIL(w, w->published == 1); /* asked for before the broker's clock was known */
    assert_in_range(w->broker.deliver_at_ms, now_ms + after_ms - GUARD_MS, now_ms + after_ms);
    assert_int_equal(bellhop_publish(w->client, &message, 1, on_published, w), 0);
    UNTIL(w, w->published == 2);
    assert_in_range(w->broker.deliver_at_ms, now_ms + after_ms, now_ms + after_ms + GUARD_MS);
    struct bellhop_message both[2] = {message, {.type = "c", .deliver_at_ms = 12345}};
    assert_int_equal(bellhop_publish(w->client, both, 2, on_published, w), 0);
    UNTIL(w, w->published == 3);
    assert_int_equal(w->broker.deliver_at_ms, 12345); /* of the last: as it was said */
    assert_int_equal(w->error, 0);
    message.deliver_at_ms = 1;
    assert_int_equal(bellhop_publish(w->client, &message, 1, NULL, NULL), BELLHOP_EARGUMENT);
    message.deliver_at_ms = 0;
    message.deliver_after_ms = 30 * DAY_MS + 1;
    assert_int_equal(bellhop_publish(w->client, &message, 1, NULL, NULL), BELLHOP_EARGUMENT);
}

static void replays_and_redrives_are_started(void **state) {
    struct world *w = *state;
    struct broker *b = &w->broker;
    struct bellhop_replay_options o = {
        .from_seq = 5, .to_seq = 9, .filter = "{\"types\":[\"a\"]}", .rate_per_s = 50};
    o.dry_run = true;
    assert_int_equal(bellhop_replay(w->client, "batches", &o, on_started, w), 0);
    UNTIL(w, w->started == 1);
    assert_true(w->error == 0 && w->id == 7);
    assert_true(b->replay.u.replay.from_seq == 5 && b->replay.u.replay.to_seq == 9 &&
                b->replay.u.replay.rate_per_s == 50 && b->replay.u.replay.dry_run);
    assert_string_equal(b->text, "{\"types\":[\"a\"]}");
    o = (struct bellhop_replay_options){.from_time_ms = 1000, .to_time_ms = 2000};
    assert_int_equal(bellhop_replay(w->client, "batches", &o, on_started, w), 0);
    UNTIL(w, w->started == 2);
    assert_true(b->replay.u.replay.from_time_ms == 1000 && b->replay.u.replay.to_time_ms == 2000);
    o.from_seq = 1;
    assert_int_equal(bellhop_replay(w->client, "a", &o, on_started, w), BELLHOP_EARGUMENT);
    o.from_time_ms = 0;
    assert_int_equal(bellhop_replay(w->client, "a", &o, on_started, w), BELLHOP_EARGUMENT);
    o = (struct bellhop_replay_options){0};
    assert_int_equal(bellhop_replay(w->client, "a", &o, on_started, w), BELLHOP_EARGUMENT);
    struct bellhop_redrive_options r = {.seq = 17, .rate_per_s = 3};
    assert_int_equal(bellhop_redrive(w->client, "batches", &r, on_started, w), 0);
    UNTIL(w, w->started == 3);
    assert_true(b->redrive.u.redrive.seq == 17 && b->redrive.u.redrive.rate_per_s == 3);
    assert_int_equal(bellhop_redrive(w->client, "batches", NULL, on_started, w), 0);
    UNTIL(w, w->started == 4);
    assert_int_equal(b->redrive.u.redrive.seq, 0);
    assert_int_equal(bellhop_redrive(w->client, "", NULL, on_started, w), BELLHOP_EARGUMENT);
    assert_int_equal(bellhop_redrive(w->client, "batches", NULL, on_started, w), 0);
    bellhop_close(&w->client);
    assert_int_equal(w->started, 5);
    assert_int_equal(w->error, BELLHOP_ECLOSED);
}

static void a_broker_that_goes_quiet(void **state) {
    struct world *w = ready(state, 1, 4);
    struct buf out = broker_buf();
    broker_deliver(&w->broker, 1, 3);
    UNTIL(w, w->handled == 1);
    frame_encode_quiet(&out, "restart", 20000);
    broker_send(&w->broker, &out);
    UNTIL(w, w->broker.got[FRAME_NACK] == 1);
    assert_int_equal(w->quiet, 1);
    assert_string_equal(w->state, "quiet: restart");
    assert_ranges(&w->broker, FRAME_NACK, "2-3");
    bellhop_ack(w->events[0]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1);
    broker_deliver(&w->broker, 4, 1); /* crossed on the wire */
    UNTIL(w, w->broker.got[FRAME_NACK] == 2);
    assert_int_equal(w->handled, 1);
    assert_int_equal(w->disconnected, 0);
    assert_int_equal(w->broker.got[FRAME_DRAIN], 0);
    out = broker_buf();
    frame_encode_goaway(&out, "restart", 20);
    broker_send(&w->broker, &out);
    UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 2);
    assert_int_equal(w->away, 1);
    broker_deliver(&w->broker, 1, 1);
    UNTIL(w, w->handled == 2);
}

static void flags_of_a_delivery(void **state) {
    struct world *w = ready(state, 4, 4);
    const uint32_t flags[] = {0, FRAME_FLAG_REPLAY, FRAME_FLAG_REDRIVEN};
    struct buf out = broker_buf();
    struct frame_deliver d;
    assert_true(frame_deliver_begin(&d, &out, 1, 30000));
    for (size_t i = 0; i < 3; i++) {
        struct frame_item item = {.tag = i + 1, .deliveries = 1, .flags = flags[i]};
        item.event = (struct event){.seq = 101 + i};
        assert_true(frame_deliver_add(&d, &item));
    }
    frame_deliver_end(&d);
    broker_send(&w->broker, &out);
    UNTIL(w, w->events_count == 3);
    for (size_t i = 0; i < 3; i++) {
        const struct bellhop_info *info = bellhop_event_info(w->events[i]);
        assert_true(info->replay == (i == 1) && info->redriven == (i == 2));
    }
}

int main(void) {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(failures_have_three_parts),
        CASE(every_settlement_can_be_confirmed),
        CASE(a_long_handler_keeps_its_leases),
        CASE(leases_that_end_soon_are_told),
        CASE(seeking_makes_tags_meaningless),
        CASE(pausing_gives_back_and_resuming_takes_again),
        CASE(states_are_asked_for_and_watched),
        CASE(later_is_by_the_brokers_clock),
        CASE(replays_and_redrives_are_started),
        CASE(a_broker_that_goes_quiet),
        CASE(flags_of_a_delivery),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
