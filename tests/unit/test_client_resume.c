/* libbellhop over a lost connection: what handlers have is claimed, what was settled is said. */
#include "client_world.h"
#include "clients/c/client.h"

/* A client with one subscription at a broker that grants resume; `count` events were delivered. */
static struct world *resuming(void **state, uint32_t concurrency, size_t count) {
    struct world *w = *state;
    w->broker.resume_ms = 5000;
    ready(state, concurrency, 8);
    broker_deliver(&w->broker, 1, count);
    UNTIL(w, w->events_count == (count < concurrency ? count : concurrency));
    return w;
}

/* The connection ends; the next one stays without its WELCOME. */
static void cut(struct world *w) {
    size_t hellos = w->broker.got[FRAME_HELLO];
    w->broker.no_welcome = true;
    w->broker.session = "s2";
    broker_hang_up(&w->broker);
    UNTIL(w, w->broker.got[FRAME_HELLO] == hellos + 1);
}

/* WELCOME of the connection that cut left behind; waits for the SUBSCRIBE. */
static void mend(struct world *w) {
    struct buf out = broker_buf();
    size_t asked = w->broker.got[FRAME_SUBSCRIBE];
    broker_welcome(&w->broker, &out, w->broker.rid[FRAME_HELLO]);
    w->broker.no_welcome = false;
    broker_send(&w->broker, &out);
    UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == asked + 1);
}

/* Until the client has read everything that was sent to it, and its answers are here. */
static void round_trip(struct world *w) {
    size_t pongs = w->broker.got[FRAME_PONG];
    struct buf out = broker_buf();
    frame_encode_plain(&out, FRAME_PING, 9);
    broker_send(&w->broker, &out);
    UNTIL(w, w->broker.got[FRAME_PONG] == pongs + 1);
}

static void assert_claims(const struct broker *b, const char *want) {
    char text[256] = "";
    size_t at = 0;
    for (size_t i = 0; i < b->claims_count; i++) {
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%d:%d", i == 0 ? "" : " ",
                               (int)b->claims[i].tag, (int)b->claims[i].seq);
    }
    assert_string_equal(text, want);
}

static void claims_that_are_granted_go_on(void **state) {
    struct world *w = resuming(state, 2, 4);
    assert_int_equal(w->broker.hello_resume_ms, 5000);
    assert_string_equal(w->broker.hello_resume, "");
    cut(w);
    assert_string_equal(w->broker.hello_resume, "s1");
    mend(w);
    assert_claims(&w->broker, "1:101 2:102"); /* not those that no handler had */
    bellhop_ack(w->events[0]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1);
    assert_ranges(&w->broker, FRAME_ACK, "1-1");
    broker_deliver(&w->broker, 3, 1);
    UNTIL(w, w->handled == 3);
    assert_int_equal(w->revoked, 0);
    cut(w);
    assert_string_equal(w->broker.hello_resume, "s2");
    mend(w);
    UNTIL(w, w->broker.claims_count == 3); /* the ack may not have been heard */
    assert_claims(&w->broker, "1:101 2:102 3:103");
    UNTIL(w, w->broker.got[FRAME_ACK] == 2);
    broker_deliver(&w->broker, 3, 1); /* a tag that is still ours */
    UNTIL(w, w->disconnected == 3);
    assert_non_null(strstr(w->state, "not new"));
}

static void claims_that_are_lost_are_told(void **state) {
    struct world *w = resuming(state, 2, 2);
    cut(w);
    w->broker.granted = 1;
    mend(w);
    UNTIL(w, w->revoked == 1);
    assert_string_equal(w->reason, "lost");
    bellhop_ack_confirm(w->events[1], on_settled, w);
    UNTIL(w, w->settled == 1);
    assert_true(w->error == 0 && w->stale);
    bellhop_ack_confirm(w->events[0], on_settled, w);
    UNTIL(w, w->settled == 2);
    assert_true(w->error == 0 && !w->stale);
    assert_int_equal(w->broker.got[FRAME_ACK], 1);
    assert_ranges(&w->broker, FRAME_ACK, "1-1");
}

static void what_was_settled_in_between_is_said(void **state) {
    struct world *w = resuming(state, 8, 6);
    struct broker *b = &w->broker;
    cut(w);
    const struct bellhop_failure failure = {.type = "Timeout", .message = "no answer"};
    bellhop_ack(w->events[1]);
    bellhop_ack(w->events[0]);
    bellhop_nack(w->events[2], 5000, &failure);
    mend(w);
    assert_claims(b, "1:101 2:102 3:103 4:104 5:105 6:106");
    UNTIL(w, b->got[FRAME_ACK] == 1 && b->got[FRAME_NACK] == 1);
    assert_ranges(b, FRAME_ACK, "1-2");
    assert_ranges(b, FRAME_NACK, "3-3");
    assert_string_equal(b->failure_type, "Timeout");
    assert_true(b->nack_kind == FRAME_NACK_FAIL && b->nack_delay_ms == 5000);
    cut(w);
    bellhop_ack_confirm(w->events[3], on_settled, w);
    bellhop_settle(w->events[4], &(struct bellhop_settlement){
                                     .kind = BELLHOP_REJECT, .done = on_settled, .ctx = w});
    UNTIL(w, w->disconnected == 2);
    assert_int_equal(w->settled, 0);
    mend(w);
    UNTIL(w, w->settled == 2);
    assert_true(w->error == 0 && !w->stale);
    assert_int_equal(w->revoked, 0);
}

/* One tag that the broker does not know would spoil the frame for the others. */
static void settlements_wait_for_the_last_claim(void **state) {
    struct world *w = resuming(state, 4, 3);
    cut(w);
    bellhop_ack(w->events[0]);
    bellhop_ack(w->events[1]);
    bellhop_ack_confirm(w->events[2], on_settled, w);
    w->broker.granted = 1;
    w->broker.no_revoke = true;
    mend(w);
    round_trip(w);
    assert_int_equal(w->broker.got[FRAME_ACK], 0);
    struct buf out = broker_buf();
    frame_encode_revoke(&out, 1, &(struct frame_range){2, 3}, 1, "lost");
    broker_send(&w->broker, &out);
    UNTIL(w, w->settled == 1 && w->broker.got[FRAME_ACK] == 1);
    assert_ranges(&w->broker, FRAME_ACK, "1-1");
    assert_true(w->error == 0 && w->stale); /* it was never said */
    assert_int_equal(w->revoked, 0);        /* no handler has them */
}

static void what_was_perhaps_not_heard_is_said_again(void **state) {
    struct world *w = resuming(state, 4, 3);
    w->broker.no_settled = w->broker.no_pong = true;
    bellhop_ack(w->events[0]);
    bellhop_ack_confirm(w->events[1], on_settled, w);
    UNTIL(w, w->broker.got[FRAME_ACK] == 2);
    cut(w);
    mend(w);
    assert_claims(&w->broker, "1:101 2:102 3:103");
    UNTIL(w, w->broker.got[FRAME_ACK] == 4);
    cut(w);
    w->broker.granted = 0; /* both had been heard */
    mend(w);
    assert_claims(&w->broker, "1:101 2:102 3:103");
    UNTIL(w, w->settled == 1 && w->revoked == 1);
    assert_int_equal(w->error, BELLHOP_ECLOSED);
    round_trip(w);
    assert_int_equal(w->broker.got[FRAME_ACK], 4);
}

static void what_was_heard_is_forgotten(void **state) {
    struct world *w = resuming(state, 4, 2);
    bellhop_ack(w->events[0]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1 && w->broker.got[FRAME_PING] == 1);
    round_trip(w);
    cut(w);
    mend(w);
    assert_claims(&w->broker, "2:102");
}

/* A broker that answers no PING: what may have to be claimed is bounded, here and in the frame. */
static void there_are_only_so_many_claims(void **state) {
    struct world *w = *state;
    const size_t batch = LIMIT_WINDOW_EVENTS - 1;
    w->broker.resume_ms = 5000;
    w->broker.no_pong = true;
    ready(state, LIMIT_WINDOW_EVENTS, LIMIT_WINDOW_EVENTS);
    broker_deliver(&w->broker, 1, 1);
    UNTIL(w, w->events_count == 1);
    w->ack_at_once = true;
    broker_deliver(&w->broker, 2, batch);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1);
    broker_deliver(&w->broker, 2 + batch, batch);
    UNTIL(w, w->broker.got[FRAME_ACK] == 2);
    cut(w);
    mend(w);
    assert_int_equal(w->broker.claims_count, LIMIT_WINDOW_EVENTS);
    assert_int_equal(w->broker.claims[0].tag, 1); /* the handler's goes before the settled */
    assert_int_equal(w->broker.claims[1].tag, 2 * batch + 2 - (LIMIT_WINDOW_EVENTS - 1));
    UNTIL(w, w->broker.got[FRAME_ACK] == 3);
    cut(w);
    w->broker.frame_max = 64u << 10;
    mend(w);
    assert_in_range(w->broker.claims_count, 1000, LIMIT_WINDOW_EVENTS / 2);
    assert_int_equal(w->broker.claims[0].tag, 1);
    UNTIL(w, w->broker.got[FRAME_ACK] == 4);
}

static void a_broker_may_refuse_to_resume(void **state) {
    struct world *w = resuming(state, 2, 2);
    cut(w);
    bellhop_ack_confirm(w->events[1], on_settled, w);
    w->broker.resume_ms = 0;
    mend(w);
    UNTIL(w, w->revoked == 1 && w->settled == 1);
    assert_string_equal(w->reason, "lost");
    assert_int_equal(w->error, BELLHOP_ECLOSED);
    assert_claims(&w->broker, "");
    broker_deliver(&w->broker, 1, 1); /* tags begin anew */
    UNTIL(w, w->handled == 3);
    bellhop_ack(w->events[0]);
    bellhop_ack(w->events[2]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1);
    assert_ranges(&w->broker, FRAME_ACK, "1-1");
}

static void resuming_may_be_switched_off(void **state) {
    struct world *w = *state;
    bellhop_close(&w->client);
    connect_resuming(w, BELLHOP_RESUME_OFF);
    resuming(state, 2, 2);
    assert_int_equal(w->broker.hello_resume_ms, 0);
    cut(w);
    UNTIL(w, w->revoked == 2);
    mend(w);
    assert_string_equal(w->broker.hello_resume, "");
    assert_claims(&w->broker, "");
}

static void a_late_worker_may_claim_too(void **state) {
    struct world *w = *state;
    w->broker.lease_ms = 120;
    resuming(state, 1, 1);
    struct buf out = broker_buf();
    frame_encode_revoke(&out, 1, &(struct frame_range){1, 1}, 1, "expired");
    broker_send(&w->broker, &out);
    UNTIL(w, w->revoked == 1);
    round_trip(w);
    w->broker.got[FRAME_EXTEND] = 0;
    cut(w);
    mend(w);
    assert_claims(&w->broker, "1:101");
    UNTIL(w, w->broker.got[FRAME_EXTEND] == 2); /* it is ours again */
    assert_ranges(&w->broker, FRAME_EXTEND, "1-1");
    assert_int_equal(w->revoked, 1);
}

/* A broker that starts waits 10 s for claims; who has none may take its time. */
static void with_claims_the_pauses_stay_short(void **state) {
    struct world *w = resuming(state, 1, 1);
    w->client->attempts = 20;
    broker_hang_up(&w->broker);
    UNTIL(w, w->disconnected == 1);
    assert_in_range(w->client->deadline_ms - uv_now(&w->loop), 1, 2000);
    UNTIL(w, w->broker.claims_count == 1);
    broker_hang_up(&w->broker);
    UNTIL(w, w->disconnected == 2);
    bellhop_ack(w->events[0]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1 && w->broker.got[FRAME_PING] == 1);
    round_trip(w); /* heard: nothing is left to claim */
    w->client->attempts = 20;
    broker_hang_up(&w->broker);
    UNTIL(w, w->disconnected == 3);
    assert_in_range(w->client->deadline_ms - uv_now(&w->loop), 14000, 30000);
}

static void goaway_during_a_long_handler(void **state) {
    struct world *w = resuming(state, 1, 2);
    struct buf out = broker_buf();
    frame_encode_goaway(&out, "upgrade", 20);
    broker_send(&w->broker, &out);
    UNTIL(w, w->broker.got[FRAME_DRAIN] == 1 && w->broker.got[FRAME_NACK] == 1);
    assert_ranges(&w->broker, FRAME_NACK, "2-2");
    cut(w); /* the broker waits no longer */
    assert_string_equal(w->broker.hello_resume, "s1");
    mend(w);
    assert_claims(&w->broker, "1:101");
    bellhop_ack(w->events[0]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1);
    assert_int_equal(w->broker.got[FRAME_CLOSE], 0);
    assert_int_equal(w->revoked, 0);
}

static void after_a_goodbye_there_is_nothing_to_resume(void **state) {
    struct world *w = resuming(state, 1, 1);
    bellhop_ack(w->events[0]);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1);
    struct buf out = broker_buf();
    frame_encode_goaway(&out, "upgrade", 1);
    broker_send(&w->broker, &out);
    UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 2);
    assert_int_equal(w->broker.got[FRAME_CLOSE], 1);
    assert_string_equal(w->broker.hello_resume, "");
    assert_claims(&w->broker, "");
}

/* bellhop_stop right when the connection is back: the handler's settlement is still said. */
static void stopping_claims_what_handlers_have(void **state) {
    struct world *w = resuming(state, 1, 1);
    cut(w);
    struct buf out = broker_buf();
    broker_welcome(&w->broker, &out, w->broker.rid[FRAME_HELLO]);
    broker_send(&w->broker, &out);
    bellhop_stop(w->client); /* both are there in the same pass of the loop */
    UNTIL(w, w->broker.got[FRAME_DRAIN] == 1);
    assert_int_equal(w->broker.window_events, 0);
    assert_claims(&w->broker, "1:101");
    assert_int_equal(w->stopped, 0);
    bellhop_ack(w->events[0]);
    UNTIL(w, w->stopped == 1);
    assert_int_equal(w->broker.got[FRAME_ACK], 1);
    assert_int_equal(w->broker.got[FRAME_CLOSE], 1);
}

/* Nothing is held any more and DRAINED is there, but a settlement waits for the last claim. */
static void stopping_says_what_was_settled(void **state) {
    struct world *w = resuming(state, 2, 2);
    cut(w);
    bellhop_ack(w->events[0]);
    bellhop_ack(w->events[1]);
    w->broker.granted = 1;
    w->broker.no_revoke = true;
    mend(w);
    bellhop_stop(w->client);
    UNTIL(w, w->broker.got[FRAME_DRAIN] == 1);
    round_trip(w);
    assert_int_equal(w->broker.got[FRAME_CLOSE], 0);
    struct buf out = broker_buf();
    frame_encode_revoke(&out, 1, &(struct frame_range){2, 2}, 1, "lost");
    broker_send(&w->broker, &out);
    UNTIL(w, w->stopped == 1);
    assert_ranges(&w->broker, FRAME_ACK, "1-1");
}

static void stopping_without_a_connection_forgets(void **state) {
    struct world *w = resuming(state, 2, 2);
    cut(w);
    bellhop_ack_confirm(w->events[0], on_settled, w);
    bellhop_stop(w->client);
    UNTIL(w, w->stopped == 1 && w->settled == 1);
    assert_int_equal(w->error, BELLHOP_ECLOSED);
    bellhop_ack(w->events[1]);
}

static void a_subscription_that_is_gone(void **state) {
    struct world *w = resuming(state, 2, 2);
    cut(w);
    bellhop_ack_confirm(w->events[0], on_settled, w);
    w->broker.no_subscribed = true;
    mend(w);
    struct buf out = broker_buf();
    frame_encode_err(&out, w->broker.rid[FRAME_SUBSCRIBE], ERR_NOT_FOUND, slice_str("no batches"),
                     false);
    broker_send(&w->broker, &out);
    UNTIL(w, w->ended == 1 && w->settled == 1 && w->revoked == 1);
    assert_string_equal(w->reason, "ended");
    assert_int_equal(w->error, BELLHOP_ECLOSED);
}

static void more_is_granted_than_was_claimed(void **state) {
    struct world *w = resuming(state, 1, 1);
    cut(w);
    w->broker.no_subscribed = true;
    mend(w);
    struct frame f = {.rid = w->broker.rid[FRAME_SUBSCRIBE], .sub = 1};
    f.u.subscribed.resumed = 2;
    struct buf out = broker_buf();
    frame_encode_subscribed(&out, &f);
    broker_send(&w->broker, &out);
    UNTIL(w, w->disconnected == 2);
    assert_non_null(strstr(w->state, "more claims"));
}

int main(void) {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(claims_that_are_granted_go_on),
        CASE(claims_that_are_lost_are_told),
        CASE(what_was_settled_in_between_is_said),
        CASE(settlements_wait_for_the_last_claim),
        CASE(what_was_perhaps_not_heard_is_said_again),
        CASE(what_was_heard_is_forgotten),
        CASE(there_are_only_so_many_claims),
        CASE(a_broker_may_refuse_to_resume),
        CASE(resuming_may_be_switched_off),
        CASE(a_late_worker_may_claim_too),
        CASE(with_claims_the_pauses_stay_short),
        CASE(goaway_during_a_long_handler),
        CASE(after_a_goodbye_there_is_nothing_to_resume),
        CASE(stopping_claims_what_handlers_have),
        CASE(stopping_says_what_was_settled),
        CASE(stopping_without_a_connection_forgets),
        CASE(a_subscription_that_is_gone),
        CASE(more_is_granted_than_was_claimed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
