/* libbellhop against a scripted broker: deliveries, settlements, leases, losses, leaving. */
#include "client_world.h"

static void acks_of_one_pass_share_a_frame(void **state) {
    struct world *w = ready(state, 16, 32);
    assert_int_equal(w->broker.window_events, 32);
    assert_int_equal(w->broker.concurrency, 16);
    assert_string_equal(w->broker.create, "");
    w->ack_at_once = true;
    broker_deliver(&w->broker, 1, 10);
    UNTIL(w, w->broker.got[FRAME_ACK] > 0);
    assert_int_equal(w->broker.got[FRAME_ACK], 1);
    assert_ranges(&w->broker, FRAME_ACK, "1-10");
    assert_int_equal(w->handled, 10);
    assert_true(w->saw_body);
}

static void ranges_are_sorted_and_merged(void **state) {
    struct world *w = ready(state, 8, 8);
    const int order[] = {6, 2, 0, 1, 4}; /* tags 7 3 1 2 5 */
    broker_deliver(&w->broker, 1, 8);
    UNTIL(w, w->events_count == 8);
    for (int i = 0; i < 5; i++) bellhop_ack(w->events[order[i]]);
    UNTIL(w, w->broker.got[FRAME_ACK] > 0);
    assert_ranges(&w->broker, FRAME_ACK, "1-3 5-5 7-7");
}

static void handlers_are_bounded(void **state) {
    struct world *w = ready(state, 2, 6);
    broker_deliver(&w->broker, 1, 6);
    UNTIL(w, w->handled >= 2);
    bellhop_ack(w->events[1]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1);
    assert_int_equal(w->handled, 3);
    bellhop_ack(w->events[0]);
    bellhop_ack(w->events[2]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 2);
    assert_int_equal(w->handled, 5);
}

static void the_other_settlements(void **state) {
    struct world *w = ready(state, 8, 8);
    struct broker *b = &w->broker;
    broker_deliver(b, 1, 6);
    UNTIL(w, w->events_count == 6);
    bellhop_nack(w->events[0], 5000, &(struct bellhop_failure){.message = "exit status 3"});
    UNTIL(w, b->got[FRAME_NACK] == 1);
    assert_true(b->nack_kind == FRAME_NACK_FAIL && b->nack_delay_ms == 5000);
    assert_string_equal(b->failure_message, "exit status 3");
    assert_true(b->failure_type[0] == '\0' && b->failure_detail[0] == '\0' && !b->nack_confirm);
    assert_ranges(b, FRAME_NACK, "1-1");
    bellhop_nack(w->events[1], BELLHOP_DELAY_POLICY, NULL);
    UNTIL(w, b->got[FRAME_NACK] == 2);
    assert_true(b->nack_delay_ms == FRAME_DELAY_POLICY);
    bellhop_reject(w->events[2], NULL);
    UNTIL(w, b->got[FRAME_NACK] == 3);
    assert_int_equal(b->nack_kind, FRAME_NACK_REJECT);
    bellhop_release(w->events[4]);
    bellhop_release(w->events[3]);
    UNTIL(w, b->got[FRAME_NACK] == 4);
    assert_int_equal(b->nack_kind, FRAME_NACK_RELEASE);
    assert_ranges(b, FRAME_NACK, "4-5");
    bellhop_extend(w->events[5]);
    UNTIL(w, b->got[FRAME_EXTEND] == 1);
    assert_ranges(b, FRAME_EXTEND, "6-6");
}

static void confirmed_acks_are_answered(void **state) {
    struct world *w = ready(state, 8, 8);
    broker_deliver(&w->broker, 1, 4);
    UNTIL(w, w->events_count == 4);
    bellhop_ack_confirm(w->events[0], on_settled, w);
    bellhop_ack_confirm(w->events[1], on_settled, w);
    UNTIL(w, w->settled == 2);
    assert_true(w->error == 0 && !w->stale);
    assert_int_equal(w->broker.got[FRAME_ACK], 1);
    w->broker.stale = true;
    bellhop_ack_confirm(w->events[2], on_settled, w);
    UNTIL(w, w->settled == 3);
    assert_true(w->error == 0 && w->stale);
    w->broker.no_settled = true;
    bellhop_ack_confirm(w->events[3], on_settled, w);
    UNTIL(w, w->broker.got[FRAME_ACK] == 3);
    struct buf out = broker_buf();
    frame_encode_err(&out, w->broker.rid[FRAME_ACK], ERR_UNKNOWN_TAG, slice_str("tag 4"), false);
    broker_send(&w->broker, &out);
    UNTIL(w, w->settled == 4);
    assert_int_equal(w->error, BELLHOP_EREFUSED);
}

static void leases_are_renewed(void **state) {
    struct world *w = *state;
    w->broker.lease_ms = 120;
    ready(state, 1, 4);
    broker_deliver(&w->broker, 1, 3);
    UNTIL(w, w->broker.got[FRAME_EXTEND] >= 3);
    assert_ranges(&w->broker, FRAME_EXTEND, "1-3"); /* the queued ones too */
    w->ack_at_once = true;
    bellhop_ack(w->events[0]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1);
    assert_ranges(&w->broker, FRAME_ACK, "1-3");
}

static void revoked_events_are_told(void **state) {
    struct world *w = *state;
    w->broker.lease_ms = 120;
    ready(state, 1, 4);
    broker_deliver(&w->broker, 1, 3);
    UNTIL(w, w->handled == 1);
    struct buf out = broker_buf();
    frame_encode_revoke(&out, 1, &(struct frame_range){1, 2}, 1, "expired");
    broker_send(&w->broker, &out);
    UNTIL(w, w->broker.got[FRAME_NACK] == 1);
    assert_int_equal(w->revoked, 1);
    assert_string_equal(w->reason, "expired");
    assert_int_equal(w->broker.nack_kind, FRAME_NACK_RELEASE); /* 2 was not with the handler */
    assert_ranges(&w->broker, FRAME_NACK, "2-2");
    w->broker.got[FRAME_EXTEND] = 0;
    UNTIL(w, w->broker.got[FRAME_EXTEND] > 0);
    assert_ranges(&w->broker, FRAME_EXTEND, "3-3");
    bellhop_ack(w->events[0]); /* late, and still said */
    UNTIL(w, w->broker.got[FRAME_ACK] == 1);
    assert_ranges(&w->broker, FRAME_ACK, "1-1");
    UNTIL(w, w->handled == 2);
}

static void a_lost_connection_orphans(void **state) {
    struct world *w = ready(state, 2, 4);
    const struct bellhop_message message = {.type = "a", .body = "b", .body_len = 1};
    broker_deliver(&w->broker, 1, 4);
    UNTIL(w, w->handled == 2);
    w->broker.no_published = true;
    assert_int_equal(bellhop_publish(w->client, &message, 1, on_published, w), 0);
    w->broker.no_settled = true;
    bellhop_ack_confirm(w->events[1], on_settled, w);
    UNTIL(w, w->broker.got[FRAME_PUBLISH] == 1 && w->broker.got[FRAME_ACK] == 1);
    broker_hang_up(&w->broker);
    UNTIL(w, w->disconnected == 1 && w->published == 1 && w->settled == 1);
    assert_int_equal(w->error, BELLHOP_ECLOSED);
    w->broker.no_published = false;
    assert_int_equal(bellhop_publish(w->client, &message, 1, on_published, w), 0);
    UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 2 && w->published == 2);
    assert_int_equal(w->error, 0);
    assert_int_equal(w->seq, 1);
    assert_int_equal(w->revoked, 2); /* event 2 was settled: 1 and 3 */
    assert_string_equal(w->reason, "lost");
    assert_int_equal(w->broker.claims_count, 0); /* it grants no resume */
    bellhop_ack(w->events[0]);                   /* harmless */
    bellhop_ack_confirm(w->events[2], on_settled, w);
    UNTIL(w, w->settled == 2);
    assert_int_equal(w->error, BELLHOP_ECLOSED);
    broker_deliver(&w->broker, 1, 1); /* tags begin anew */
    UNTIL(w, w->handled == 4);
    bellhop_ack(w->events[3]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 2);
    assert_ranges(&w->broker, FRAME_ACK, "1-1");
}

static void goaway_finishes_and_comes_back(void **state) {
    struct world *w = ready(state, 1, 4);
    broker_deliver(&w->broker, 1, 3);
    UNTIL(w, w->handled == 1);
    w->broker.no_drained = true;
    struct buf out = broker_buf();
    frame_encode_goaway(&out, "upgrade", 400);
    broker_send(&w->broker, &out);
    UNTIL(w, w->broker.got[FRAME_DRAIN] == 1 && w->broker.got[FRAME_NACK] == 1);
    assert_int_equal(w->away, 1);
    assert_ranges(&w->broker, FRAME_NACK, "2-3");
    bellhop_ack(w->events[0]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1);
    out = broker_buf();
    frame_encode_plain(&out, FRAME_DRAINED, w->broker.rid[FRAME_DRAIN]);
    broker_send(&w->broker, &out);
    UNTIL(w, w->disconnected == 1);
    assert_int_equal(w->broker.got[FRAME_CLOSE], 1);
    uint64_t left_at_ms = uv_now(&w->loop);
    UNTIL(w, w->broker.connections == 2);
    assert_true(uv_now(&w->loop) - left_at_ms >= 400);
    UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 2);
    assert_int_equal(w->handled, 1);
}

static void stop_waits_for_handlers(void **state) {
    struct world *w = ready(state, 1, 4);
    const struct bellhop_message message = {.type = "a"};
    broker_deliver(&w->broker, 1, 3);
    UNTIL(w, w->handled == 1);
    w->broker.no_drained = true;
    assert_int_equal(bellhop_publish(w->client, &message, 1, on_published, w), 0);
    bellhop_stop(w->client);
    UNTIL(w, w->broker.got[FRAME_DRAIN] == 1 && w->published == 1);
    assert_ranges(&w->broker, FRAME_NACK, "2-3");
    struct buf out = broker_buf(); /* too early: the handler has not settled */
    frame_encode_plain(&out, FRAME_DRAINED, w->broker.rid[FRAME_DRAIN]);
    broker_send(&w->broker, &out);
    broker_deliver(&w->broker, 4, 1); /* was on its way: given back */
    UNTIL(w, w->broker.got[FRAME_NACK] == 2);
    assert_int_equal(w->handled, 1);
    assert_int_equal(w->broker.got[FRAME_CLOSE], 0);
    bellhop_ack(w->events[0]);
    UNTIL(w, w->stopped == 1);
    assert_int_equal(w->broker.got[FRAME_ACK], 1);
    assert_string_equal(w->state, "stopped");
    assert_int_equal(w->broker.got[FRAME_CLOSE], 1);
    assert_int_equal(w->disconnected, 0);
    assert_int_equal(bellhop_publish(w->client, &message, 1, on_published, w), BELLHOP_ECLOSED);
}

static void stop_without_a_connection_is_quick(void **state) {
    struct world *w = *state;
    const struct bellhop_message message = {.type = "a"};
    w->broker.no_welcome = true;
    assert_int_equal(bellhop_publish(w->client, &message, 1, on_published, w), 0);
    UNTIL(w, w->broker.got[FRAME_HELLO] == 1);
    bellhop_stop(w->client);
    UNTIL(w, w->stopped == 1);
    assert_int_equal(w->published, 1);
    assert_int_equal(w->error, BELLHOP_ECLOSED);
}

static void publishes_wait_for_a_connection(void **state) {
    struct world *w = *state;
    const struct bellhop_message message = {.type = "a"};
    w->broker.no_welcome = true;
    assert_int_equal(bellhop_publish(w->client, &message, 1, on_published, w), 0);
    UNTIL(w, w->broker.got[FRAME_HELLO] == 1);
    broker_hang_up(&w->broker);
    w->broker.no_welcome = false;
    UNTIL(w, w->published == 1);
    assert_int_equal(w->error, 0);
    assert_int_equal(w->broker.got[FRAME_PUBLISH], 1);
    assert_int_equal(w->disconnected, 1);
}

static void subscriptions_may_end(void **state) {
    struct world *w = ready(state, 1, 4);
    broker_deliver(&w->broker, 1, 2);
    UNTIL(w, w->handled == 1);
    bellhop_ack_confirm(w->events[0], on_settled, w);
    struct buf out = broker_buf();
    frame_encode_ended(&out, 1, ERR_DELETED, slice_str("by an operator"));
    w->broker.no_settled = true;
    broker_send(&w->broker, &out);
    UNTIL(w, w->ended == 1);
    assert_int_equal(w->error, BELLHOP_EREFUSED);
    broker_deliver(&w->broker, 3, 1); /* crossed on the wire: ignored */
    broker_hang_up(&w->broker);
    UNTIL(w, w->connected == 2 && w->settled == 1);
    assert_int_equal(w->error, BELLHOP_ECLOSED);
    assert_int_equal(w->broker.got[FRAME_SUBSCRIBE], 1);
}

static void refused_subscriptions(void **state) {
    struct world *w = *state;
    w->broker.no_subscribed = true;
    ready(state, 1, 1);
    struct buf out = broker_buf();
    frame_encode_err(&out, w->broker.rid[FRAME_SUBSCRIBE], ERR_SHUTTING_DOWN, slice_str("later"),
                     false);
    broker_send(&w->broker, &out);
    UNTIL(w, w->disconnected == 1 && w->broker.got[FRAME_SUBSCRIBE] == 2);
    assert_int_equal(w->ended, 0);
    out = broker_buf();
    frame_encode_err(&out, w->broker.rid[FRAME_SUBSCRIBE], ERR_NOT_FOUND, slice_str("no batches"),
                     false);
    broker_send(&w->broker, &out);
    UNTIL(w, w->ended == 1);
    assert_int_equal(w->error, BELLHOP_EREFUSED);
    const struct bellhop_sub_options alone = {.handler = on_event, .ctx = w};
    assert_non_null(bellhop_subscribe(w->client, "other", &alone));
    UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 3);
    out = broker_buf();
    frame_encode_err(&out, w->broker.rid[FRAME_SUBSCRIBE], ERR_NOT_FOUND, slice_str("no other"),
                     false);
    broker_send(&w->broker, &out);
    UNTIL(w, w->stopped == 1); /* nobody else would hear of it */
    assert_non_null(strstr(bellhop_error(w->client), "no other"));
}

static void heartbeats_go_both_ways(void **state) {
    struct world *w = *state;
    w->broker.heartbeat_ms = 40;
    ready(state, 1, 1);
    UNTIL(w, w->broker.got[FRAME_PING] >= 5); /* longer than a silence may be */
    assert_int_equal(w->disconnected, 0);
    struct buf out = broker_buf();
    frame_encode_plain(&out, FRAME_PING, 77);
    broker_send(&w->broker, &out);
    UNTIL(w, w->broker.got[FRAME_PONG] == 1);
    assert_int_equal(w->broker.rid[FRAME_PONG], 77);
    w->broker.no_pong = true;
    UNTIL(w, w->disconnected == 1);
    assert_non_null(strstr(w->state, "silent"));
}

static void publishes_are_bounded(void **state) {
    struct world *w = *state;
    size_t len = 8u << 20, accepted = 0;
    void *body = calloc(1, len);
    struct bellhop_message message = {.type = "a", .body = body, .body_len = len};
    int error = 0;
    while ((error = bellhop_publish(w->client, &message, 1, on_published, w)) == 0) accepted++;
    assert_int_equal(error, BELLHOP_EREFUSED);
    assert_int_equal(accepted, 7); /* 64 MiB, each a little above 8 */
    UNTIL(w, w->published == accepted);
    assert_int_equal(w->error, BELLHOP_EREFUSED); /* the broker takes 1 MiB */
    message.body_len = 100;
    assert_int_equal(bellhop_publish(w->client, &message, 1, on_published, w), 0);
    UNTIL(w, w->published == accepted + 1);
    assert_int_equal(w->error, 0);
    message.body = NULL;
    assert_int_equal(bellhop_publish(w->client, &message, 1, NULL, NULL), BELLHOP_EARGUMENT);
    assert_int_equal(bellhop_publish(w->client, &message, 0, NULL, NULL), BELLHOP_EARGUMENT);
    free(body);
}

static void the_client_may_be_closed_in_a_handler(void **state) {
    struct world *w = ready(state, 4, 8);
    w->close_at_once = true;
    broker_deliver(&w->broker, 1, 4);
    UNTIL(w, w->broker.got[FRAME_CLOSE] == 1);
    assert_int_equal(w->handled, 1);
    assert_null(w->client);
}

int main(void) {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(acks_of_one_pass_share_a_frame),
        CASE(ranges_are_sorted_and_merged),
        CASE(handlers_are_bounded),
        CASE(the_other_settlements),
        CASE(confirmed_acks_are_answered),
        CASE(leases_are_renewed),
        CASE(revoked_events_are_told),
        CASE(a_lost_connection_orphans),
        CASE(goaway_finishes_and_comes_back),
        CASE(stop_waits_for_handlers),
        CASE(stop_without_a_connection_is_quick),
        CASE(publishes_wait_for_a_connection),
        CASE(subscriptions_may_end),
        CASE(refused_subscriptions),
        CASE(heartbeats_go_both_ways),
        CASE(publishes_are_bounded),
        CASE(the_client_may_be_closed_in_a_handler),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
