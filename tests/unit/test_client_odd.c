/* libbellhop against peers that are not what they should be, against every cut of what a good one
 * says, and on its own loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bellhop.h"
#include "fake_broker.h"
#include "proto/limits.h"

#define GUARD_MS 20000

struct world {
    uv_loop_t loop;
    uv_timer_t guard, tick;
    bool late, ticked;
    struct broker broker;
    struct bellhop *client;
    size_t handled, connected, disconnected, stopped, refused;
    char state[256];
};

static void on_state(void *ctx, const char *state) {
    struct world *w = ctx;
    uv_stop(&w->loop);
    snprintf(w->state, sizeof w->state, "%s", state);
    w->connected += strcmp(state, "connected") == 0;
    w->disconnected += strncmp(state, "disconnected", 12) == 0;
    w->stopped += strncmp(state, "stopped", 7) == 0;
    w->refused += strncmp(state, "refused", 7) == 0;
}

static void on_event(void *ctx, struct bellhop_event *event) {
    struct world *w = ctx;
    uv_stop(&w->loop);
    w->handled++;
    bellhop_ack(event);
}

static void on_guard(uv_timer_t *timer) {
    ((struct world *)timer->data)->late = true;
}

#define UNTIL(w, condition)                                                                        \
    do {                                                                                           \
        while (!(condition) && !(w)->late) uv_run(&(w)->loop, UV_RUN_ONCE);                        \
        if (!(condition)) fail_msg("never: %s (%s)", #condition, (w)->state);                      \
    } while (0)

static void open_client(struct world *w) {
    const struct bellhop_sub_options sub = {
        .handler = on_event, .ctx = w, .concurrency = 4, .window = 4};
    const struct bellhop_options options = {.loop = &w->loop, .on_state = on_state, .ctx = w};
    char url[64];
    snprintf(url, sizeof url, "bellhop://localhost:%d/", w->broker.port);
    w->connected = w->disconnected = w->stopped = w->refused = 0;
    w->broker.got[FRAME_HELLO] = w->broker.got[FRAME_SUBSCRIBE] = 0;
    assert_int_equal(bellhop_open(&w->client, url, &options), 0);
    assert_non_null(bellhop_subscribe(w->client, "batches", &sub));
}

static int setup(void **state) {
    struct world *w = calloc(1, sizeof *w);
    if (uv_loop_init(&w->loop) != 0) return -1;
    uv_timer_init(&w->loop, &w->guard);
    uv_timer_init(&w->loop, &w->tick);
    w->guard.data = w->tick.data = w;
    uv_timer_start(&w->guard, on_guard, GUARD_MS, 0);
    broker_open(&w->broker, &w->loop);
    *state = w;
    return 0;
}

static int teardown(void **state) {
    struct world *w = *state;
    size_t broken = w->broker.broken;
    bellhop_close(&w->client);
    broker_close(&w->broker);
    uv_close((uv_handle_t *)&w->guard, NULL);
    uv_close((uv_handle_t *)&w->tick, NULL);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    int busy = uv_loop_close(&w->loop);
    free(w);
    return busy != 0 || broken != 0 ? -1 : 0;
}

/* Before WELCOME: the client must see that this is no broker, and not try again. */
static void refuses_greeting(struct world *w, const void *bytes, size_t len) {
    w->broker.no_welcome = true;
    open_client(w);
    UNTIL(w, w->broker.got[FRAME_HELLO] == 1);
    broker_write(&w->broker, bytes, len);
    UNTIL(w, w->stopped == 1);
    assert_non_null(strstr(bellhop_error(w->client), "not a Bellhop broker"));
    assert_int_equal(w->handled, 0);
    bellhop_close(&w->client);
}

static void peers_of_another_kind(void **state) {
    struct world *w = *state;
    const char http[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff};
    const uint8_t above[] = {0, 0, 0x10, 1}; /* 4 KiB + 1 */
    const uint8_t empty[] = {0, 0, 0, 0};
    const uint8_t ping[] = {0, 0, 0, 3, 0x92, 13, 0};
    const uint8_t welcome_text[] = {0, 0, 0, 5, 0x93, 64, 1, 0xa1, 'x'};
    refuses_greeting(w, http, sizeof http - 1);
    refuses_greeting(w, huge, sizeof huge);
    refuses_greeting(w, above, sizeof above);
    refuses_greeting(w, empty, sizeof empty);
    refuses_greeting(w, ping, sizeof ping);
    refuses_greeting(w, welcome_text, sizeof welcome_text);
}

static void brokers_that_do_not_want_us(void **state) {
    struct world *w = *state;
    w->broker.auth = "hmac-sha256";
    open_client(w);
    UNTIL(w, w->stopped == 1);
    assert_non_null(strstr(bellhop_error(w->client), "hmac-sha256"));
    bellhop_close(&w->client);
    w->broker.auth = "none";
    w->broker.version = 2;
    open_client(w);
    UNTIL(w, w->stopped == 1);
    assert_non_null(strstr(bellhop_error(w->client), "version 2"));
    bellhop_close(&w->client);
    w->broker.version = FRAME_VERSION;
    const enum err errs[] = {ERR_BAD_VERSION, ERR_UNAUTHENTICATED};
    w->broker.no_welcome = true;
    for (int i = 0; i < 2; i++) {
        struct buf out = broker_buf();
        open_client(w);
        UNTIL(w, w->broker.got[FRAME_HELLO] == 1);
        frame_encode_err(&out, 1, errs[i], slice_str("no"), true);
        broker_send(&w->broker, &out);
        UNTIL(w, w->stopped == 1);
        assert_non_null(strstr(bellhop_error(w->client), err_info((int)errs[i]).word));
        bellhop_close(&w->client);
    }
    open_client(w); /* one that is starting or stopping is waited for */
    UNTIL(w, w->broker.got[FRAME_HELLO] == 1);
    struct buf out = broker_buf();
    frame_encode_err(&out, 1, ERR_SHUTTING_DOWN, slice_str("not now"), true);
    w->broker.no_welcome = false;
    broker_send(&w->broker, &out);
    UNTIL(w, w->connected == 1 && w->disconnected == 1);
}

/* After WELCOME: the connection is given up and made again. */
static void gives_up(struct world *w, struct buf *bytes, const char *why) {
    open_client(w);
    UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 1);
    broker_send(&w->broker, bytes);
    UNTIL(w, w->disconnected == 1);
    if (strstr(w->state, why) == NULL) fail_msg("%s is not about %s", w->state, why);
    assert_int_equal(w->stopped, 0);
    bellhop_close(&w->client);
}

static void brokers_that_go_astray(void **state) {
    struct world *w = *state;
    struct buf out = broker_buf();
    const uint64_t seq = 1;
    const bool duplicate = false;
    broker_deliver_into(&out, 1, 30000, 1, 5);
    gives_up(w, &out, "above the window");
    out = broker_buf();
    broker_deliver_into(&out, 1, 30000, 1, 2);
    broker_deliver_into(&out, 1, 30000, 2, 1);
    gives_up(w, &out, "a tag that is not new");
    out = broker_buf();
    broker_deliver_into(&out, 9, 30000, 1, 1);
    gives_up(w, &out, "never asked for");
    out = broker_buf();
    broker_welcome(&w->broker, &out, 1);
    gives_up(w, &out, "second WELCOME");
    out = broker_buf();
    frame_encode_published(&out, 2, &seq, &duplicate, 1);
    gives_up(w, &out, "PUBLISHED");
    out = broker_buf();
    frame_encode_settled(&out, 99, 1, NULL, 0, NULL, 0, NULL, 0);
    gives_up(w, &out, "SETTLED");
    out = broker_buf();
    frame_encode_subscribed(&out, &(struct frame){.rid = 99, .sub = 1});
    gives_up(w, &out, "SUBSCRIBED");
    out = broker_buf();
    broker_state(&w->broker, 99, 1, &out);
    gives_up(w, &out, "STATE");
    out = broker_buf();
    broker_state(&w->broker, 0, 9, &out);
    gives_up(w, &out, "never asked for");
    out = broker_buf();
    frame_encode_err(&out, 0, ERR_BAD_FRAME, slice_str("sub"), true);
    gives_up(w, &out, "bad_frame: sub");
    out = broker_buf();
    buf_append_str(&out, "\x7f\xff\xff\xff");
    gives_up(w, &out, "above the limit");
    out = broker_buf();
    buf_append(&out, "\0\0\0\4\x93\x0d\0\xc1", 8);
    gives_up(w, &out, "type");
    w->broker.no_subscribed = true;
    out = broker_buf();
    broker_deliver_into(&out, 1, 30000, 1, 1);
    gives_up(w, &out, "before SUBSCRIBED");
    assert_int_equal(w->handled, 0);
}

static void challenge(struct world *w, const char *mechanism, size_t nonce_bytes) {
    static const uint8_t nonce[64];
    struct buf out = broker_buf();
    UNTIL(w, w->broker.got[FRAME_HELLO] > 0);
    CHECK(frame_encode_challenge(&out, 1, slice_str(mechanism), slice_of(nonce, nonce_bytes)));
    broker_send(&w->broker, &out);
}

static void challenges_that_cannot_be_answered(void **state) {
    struct world *w = *state;
    const struct {
        const char *mechanism;
        size_t nonce_bytes;
    } odd[] = {{"hmac-sha256", 32}, {"plain", 32}, {"hmac-sha256", 31}};
    w->broker.no_welcome = true;
    for (int i = 0; i < 3; i++) { /* without a key; then what is not known */
        w->stopped = 0;
        w->broker.got[FRAME_HELLO] = 0;
        open_client(w);
        challenge(w, odd[i].mechanism, odd[i].nonce_bytes);
        UNTIL(w, w->stopped == 1);
        const char *why = bellhop_error(w->client);
        assert_non_null(strstr(why, i == 0 ? "bellhop://KEY@host" : "does not know"));
        assert_int_equal(w->broker.got[FRAME_AUTH], 0);
        bellhop_close(&w->client);
    }
}

static void what_is_not_known_is_passed_over(void **state) {
    struct world *w = *state;
    const uint8_t newer[] = {0, 0, 0, 4, 0x93, 90, 0, 0x80};
    open_client(w);
    UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 1);
    broker_write(&w->broker, newer, sizeof newer);
    struct buf out = broker_buf();
    frame_encode_err(&out, 0, ERR_UNKNOWN_TAG, slice_str("tag 7"), false);
    broker_send(&w->broker, &out);
    broker_deliver(&w->broker, 1, 1);
    UNTIL(w, w->broker.got[FRAME_ACK] == 1);
    assert_int_equal(w->refused, 1);
    assert_int_equal(w->disconnected, 0);
}

/* What a broker says to a client that subscribes, whose rid is 2. */
static struct buf conversation(struct world *w) {
    struct buf out = broker_buf();
    broker_welcome(&w->broker, &out, 1);
    frame_encode_subscribed(&out, &(struct frame){.rid = 2, .sub = 1});
    broker_deliver_into(&out, 1, 30000, 1, 2);
    return out;
}

static void connections_that_end_anywhere(void **state) {
    struct world *w = *state;
    struct buf all = conversation(w), first = broker_buf();
    broker_welcome(&w->broker, &first, 1);
    w->broker.no_welcome = w->broker.no_subscribed = true;
    for (size_t len = 0; len < all.len; len++) {
        open_client(w);
        UNTIL(w, w->broker.got[FRAME_HELLO] == 1);
        if (len > first.len) {
            broker_write(&w->broker, all.data, first.len);
            UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 1);
            broker_write(&w->broker, all.data + first.len, len - first.len);
        } else if (len > 0) {
            broker_write(&w->broker, all.data, len);
        }
        broker_hang_up(&w->broker);
        UNTIL(w, w->disconnected == 1);
        assert_int_equal(w->stopped, 0);
        bellhop_close(&w->client);
    }
    assert_int_equal(w->handled, 0);
    buf_free(&all);
    buf_free(&first);
}

static void on_tick(uv_timer_t *timer) {
    struct world *w = timer->data;
    w->ticked = true;
    uv_stop(&w->loop); /* it may come right before the loop blocks */
}

static void bytes_that_come_one_by_one(void **state) {
    struct world *w = *state;
    struct buf all = conversation(w);
    w->broker.no_welcome = w->broker.no_subscribed = true;
    open_client(w);
    UNTIL(w, w->broker.got[FRAME_HELLO] == 1);
    for (size_t i = 0; i < all.len; i++) {
        broker_write(&w->broker, all.data + i, 1);
        w->ticked = false; /* until the loop has gone round and the byte has been read */
        uv_timer_start(&w->tick, on_tick, 1, 0);
        UNTIL(w, w->ticked);
        if (w->connected == 1) UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 1);
    }
    UNTIL(w, w->broker.got[FRAME_ACK] == 1);
    assert_int_equal(w->handled, 2);
    assert_int_equal(w->disconnected, 0);
    buf_free(&all);
}

static void urls(void **state) {
    struct bellhop *c = NULL;
    const char *const bad[] = {"",
                               "bellhop:/h",
                               "http://h",
                               "bellhops:h",
                               "bellhop://",
                               "bellhop://key@",
                               "bellhop://h:",
                               "bellhop://h:0",
                               "bellhop://h:65536",
                               "bellhop://h:1x",
                               "bellhop://[::1",
                               "bellhop://[]:1",
                               "bellhop://[::1]x",
                               "bellhop://h/path",
                               "bellhop://:8421",
                               "bellhop://h h"};
    const char *const good[] = {"bellhop://h",     "bellhop://h:8421/",      "bellhop://key@h",
                                "bellhop://[::1]", "bellhop://k:s@[::1]:99", "bellhop://127.0.0.1",
                                "bellhops://h",    "bellhops://k@h:1"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (bellhop_open(&c, bad[i], NULL) != BELLHOP_EURL) fail_msg("taken: %s", bad[i]);
        assert_null(c);
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (bellhop_open(&c, good[i], NULL) != 0) fail_msg("refused: %s", good[i]);
        bellhop_close(&c);
    }
    assert_int_equal(bellhop_open(&c, NULL, NULL), BELLHOP_EARGUMENT);
    assert_non_null(strstr(bellhop_strerror(BELLHOP_EURL), "bellhops://"));
}

static void subscriptions_that_cannot_be(void **state) {
    struct world *w = *state;
    struct bellhop_sub_options o = {.ctx = w};
    open_client(w);
    assert_null(bellhop_subscribe(w->client, "a", &o)); /* no handler */
    o.handler = on_event;
    assert_null(bellhop_subscribe(w->client, "", &o));
    o.window = LIMIT_WINDOW_EVENTS + 1;
    assert_null(bellhop_subscribe(w->client, "a", &o));
    o.window = 1;
    o.lease_ms = LIMIT_LEASE_MS_MIN - 1;
    assert_null(bellhop_subscribe(w->client, "a", &o));
    o.lease_ms = 600000;
    char *create = malloc(LIMIT_POLICY_BYTES + 2);
    memset(create, ' ', LIMIT_POLICY_BYTES + 1);
    create[LIMIT_POLICY_BYTES + 1] = '\0';
    o.create = create;
    assert_null(bellhop_subscribe(w->client, "a", &o));
    snprintf(create, LIMIT_POLICY_BYTES, "{\"lease_ms\":5000}");
    assert_non_null(bellhop_subscribe(w->client, "a", &o));
    free(create); /* it was copied */
    UNTIL(w, w->broker.got[FRAME_SUBSCRIBE] == 2);
    assert_string_equal(w->broker.create, "{\"lease_ms\":5000}");
    assert_int_equal(w->broker.sub_lease_ms, 600000);
}

static void on_state_atomic(void *ctx, const char *state) {
    if (strncmp(state, "disconnected", 12) == 0) uv_sem_post(ctx);
}

static void stop_after_failing(void *arg) {
    void **both = arg;
    uv_sem_wait(both[1]);
    bellhop_stop(both[0]);
}

/* A loop of its own, nobody listens, and another thread stops it. */
static void its_own_loop(void **state) {
    struct bellhop *c;
    uv_sem_t failed;
    uv_thread_t thread;
    (void)state;
    assert_int_equal(uv_sem_init(&failed, 0), 0);
    const struct bellhop_options options = {.on_state = on_state_atomic, .ctx = &failed};
    assert_int_equal(bellhop_open(&c, "bellhop://127.0.0.1:1", &options), 0);
    void *both[] = {c, &failed};
    assert_int_equal(uv_thread_create(&thread, stop_after_failing, both), 0);
    assert_int_equal(bellhop_run(c), 0);
    uv_thread_join(&thread);
    bellhop_close(&c);
    assert_null(c);
    uv_sem_destroy(&failed);
}

int main(void) {
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(peers_of_another_kind),
        CASE(brokers_that_do_not_want_us),
        CASE(brokers_that_go_astray),
        CASE(challenges_that_cannot_be_answered),
        CASE(what_is_not_known_is_passed_over),
        CASE(connections_that_end_anywhere),
        CASE(bytes_that_come_one_by_one),
        cmocka_unit_test(urls),
        CASE(subscriptions_that_cannot_be),
        cmocka_unit_test(its_own_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
