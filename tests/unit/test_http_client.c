/* The outbound client against a server that behaves, and one that does not. */
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_world.h"

#define LOCAL "127.0.0.0/8, ::1"

static void answers(void **state) {
    static const struct {
        const char *path;
        int status;
        const char *body, *retry_after;
    } rows[] = {
        {"/ok", 200, "fine", ""},
        {"/204", 204, "", ""},
        {"/500", 500, "it broke inside", ""},
        {"/301", 301, "", ""},
        {"/429", 429, "", "120"},
        {"/503", 503, "no", "Sun, 06 Nov 1994 08:49:37 GMT"},
        {"/999", 999, "", ""},
        {"/informs", 410, "", ""},
        {"/chunked", 200, "abcdefg", ""},
        {"/until-close!", 200, "until the end", ""},
        {"/short!", 500, "only this", ""},
        {"/half-chunk!", 200, "ab", ""},
        {"/close!", 200, "ok", ""},
        {"/drip", 200, "slowly!", ""},
    };
    struct call calls[sizeof rows / sizeof rows[0]] = {0};
    struct world w;
    (void)state;
    world_open(&w, LOCAL, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) call(&w, &calls[i], rows[i].path);
    assert_int_equal(http_client_active(w.client), sizeof rows / sizeof rows[0]);
    world_run(&w);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char address[64];
        snprintf(address, sizeof address, "127.0.0.1:%u", w.port);
        expect_answer(&calls[i], rows[i].status, rows[i].body);
        assert_string_equal(calls[i].retry_after, rows[i].retry_after);
        assert_string_equal(calls[i].address, address);
    }
    assert_int_equal(w.requests,
                     sizeof rows / sizeof rows[0]); /* nothing was followed or repeated */
    world_close(&w);
}

static void what_is_not_an_answer(void **state) {
    static const char *const paths[] = {
        "/nothing!",    "/half-head!",    "/garbage!",        "/old!",
        "/bad-length!", "/informs-only!", "/informs-forever!"};
    struct call calls[sizeof paths / sizeof paths[0]] = {0};
    struct call head = {0};
    struct world w;
    (void)state;
    world_open(&w, LOCAL, NULL);
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) call(&w, &calls[i], paths[i]);
    call(&w, &head, "/endless-head");
    world_run(&w);
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        expect_failure(&calls[i], HTTP_BROKEN, "");
        assert_true(calls[i].detail[0] != '\0');
        assert_int_equal(calls[i].status, 0);
    }
    expect_failure(&head, HTTP_BROKEN, "the head of the response is longer than 65536 bytes");
    world_close(&w);
}

static void what_is_sent(void **state) {
    struct call c = {0}, empty = {0}, bare = {.path = "/echo"};
    struct world w;
    char uri[128];
    (void)state;
    world_open(&w, LOCAL, NULL);
    /* Neither a proxy nor anything else of the environment is taken. */
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    call(&w, &c, "/echo");
    snprintf(uri, sizeof uri, "http://127.0.0.1:%u/echo", w.port);
    call_uri(&w, w.client, &empty, uri, slice_of(NULL, 0), 20000);
    const struct http_outbound request = {.uri = uri,
                                          .body = slice_str("x"),
                                          .timeout_ms = 20000,
                                          .response_max = 1024,
                                          .on_done = on_call_done,
                                          .ctx = &bare};
    bare.world = &w;
    w.calls++;
    assert_non_null(http_client_send(w.client, &request));
    world_run(&w);
    expect_answer(&bare, 200, bare.body);
    assert_null(strstr(bare.body, "Content-Type"));
    expect_answer(&c, 200, c.body);
    assert_int_equal(strncmp(c.body, "POST /echo HTTP/1.1\r\n", 21), 0);
    assert_non_null(strstr(c.body, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(c.body, "\r\nwebhook-id: msg_1\r\n"));
    assert_non_null(strstr(c.body, "\r\nX-Empty:\r\n"));
    assert_non_null(strstr(c.body, "\r\nUser-Agent: bellhop-test/1\r\n"));
    assert_non_null(strstr(c.body, "\r\nContent-Length: 7\r\n"));
    assert_non_null(strstr(c.body, "\r\n\r\n{\"a\":1}"));
    assert_null(strstr(c.body, "Expect"));
    assert_null(strstr(c.body, "Accept-Encoding"));
    assert_null(strstr(c.body, "urlencoded"));
    expect_answer(&empty, 200, empty.body);
    assert_non_null(strstr(empty.body, "\r\nContent-Length: 0\r\n"));
    unsetenv("http_proxy");
    unsetenv("ALL_PROXY");
    world_close(&w);
}

static void the_path_is_sent_as_it_is(void **state) {
    struct call c = {0};
    struct world w;
    char uri[128];
    (void)state;
    world_open(&w, LOCAL, NULL);
    snprintf(uri, sizeof uri, "HTTP://LocalHost:%u?q=%%2e/../x;y", w.port);
    call_uri(&w, w.client, &c, uri, slice_str("x"), 20000);
    c.path = uri;
    world_run(&w);
    expect_answer(&c, 200, "fine");
    world_close(&w);
}

static void headers_that_cannot_be_sent(void **state) {
    static const struct http_outbound_header rows[] = {
        {"X-A", "a\r\nX-B: b"}, {"X-A", "a\nb"}, {"X A", "a"}, {"X-A:", "a"}, {"", "a"},
        {"X\r\nY", "a"},        {"X-A", "\x01"},
    };
    struct call calls[sizeof rows / sizeof rows[0]] = {0};
    struct world w;
    (void)state;
    world_open(&w, LOCAL, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct http_outbound request = {.uri = "http://127.0.0.1:1/",
                                              .headers = &rows[i],
                                              .headers_count = 1,
                                              .timeout_ms = 1000,
                                              .response_max = 10,
                                              .on_done = on_call_done,
                                              .ctx = &calls[i]};
        calls[i].world = &w;
        calls[i].path = rows[i].name;
        w.calls++;
        assert_non_null(http_client_send(w.client, &request));
        assert_false(calls[i].done);
    }
    world_run(&w);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        expect_failure(&calls[i], HTTP_OURS, "cannot be sent");
    }
    assert_int_equal(w.accepted, 0);
    world_close(&w);
}

static void time_is_limited(void **state) {
    struct call silent = {0}, half = {0};
    struct world w;
    char uri[128];
    (void)state;
    world_open(&w, LOCAL, NULL);
    snprintf(uri, sizeof uri, "http://127.0.0.1:%u/silent", w.port);
    call_uri(&w, w.client, &silent, uri, slice_str("x"), 100);
    silent.path = "/silent";
    snprintf(uri, sizeof uri, "http://127.0.0.1:%u/drip-no-end", w.port);
    call_uri(&w, w.client, &half, uri, slice_str("x"), 150);
    half.path = "/drip-no-end";
    world_run(&w);
    expect_failure(&silent, HTTP_TIMEOUT, "no response came within 100 ms");
    assert_true(silent.duration_ms >= 100);
    expect_failure(&half, HTTP_TIMEOUT, "status 200 came, but the response did not end within 150");
    assert_true(half.duration_ms >= 150);
    world_close(&w);
}

/* A socket that listens and takes nobody: its queue is full. */
static void connecting_is_limited_too(void **state) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    struct call calls[8] = {0};
    struct world w;
    char uri[128];
    unsigned late = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)state;
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 0), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    world_open(&w, LOCAL, NULL);
    snprintf(uri, sizeof uri, "http://127.0.0.1:%u/", ntohs(a.sin_port));
    for (int i = 0; i < 8; i++) call_uri(&w, w.client, &calls[i], uri, slice_str("x"), 200);
    world_run(&w);
    for (int i = 0; i < 8; i++) {
        calls[i].path = "/";
        expect_failure(&calls[i], HTTP_TIMEOUT, "within 200 ms");
        if (strstr(calls[i].detail, "there was no connection") != NULL) late++;
    }
    assert_true(late > 0);
    world_close(&w);
    close(fd);
}

static void a_large_response_is_left(void **state) {
    struct call c = {0};
    struct world w;
    (void)state;
    world_open(&w, LOCAL, NULL);
    call(&w, &c, "/huge");
    world_run(&w);
    assert_int_equal(c.failure, HTTP_ANSWERED);
    assert_int_equal(c.status, 200);
    assert_int_equal(c.body_len, 1024);
    assert_true(w.unsaid > 50 * MIB);
    world_close(&w);
}

static void a_large_body_is_sent(void **state) {
    struct call echo = {0}, early = {0};
    struct world w;
    char uri[128];
    size_t len = 16 * MIB;
    uint8_t *body = mem_alloc(len);
    (void)state;
    memset(body, 'x', len);
    world_open(&w, LOCAL, NULL);
    snprintf(uri, sizeof uri, "http://127.0.0.1:%u/ok", w.port);
    call_uri(&w, w.client, &echo, uri, slice_of(body, len), 20000);
    echo.path = "/ok";
    snprintf(uri, sizeof uri, "http://127.0.0.1:%u/early", w.port);
    call_uri(&w, w.client, &early, uri, slice_of(body, len), 20000);
    early.path = "/early";
    world_run(&w);
    expect_answer(&echo, 200, "fine");
    expect_answer(&early, 413, "too much");
    world_close(&w);
    free(body);
}

static void nobody_listens(void **state) {
    struct call c = {0};
    struct world w;
    (void)state;
    world_open(&w, LOCAL, NULL);
    listener_close(&w.listener);
    call(&w, &c, "/ok");
    world_run(&w);
    expect_failure(&c, HTTP_CONNECT, "Connection refused");
    assert_string_equal(c.address, "");
    world_close(&w);
}

/* The address is anybody's, the port is not. */
static void forbidden_ports(void **state) {
    static const char *const uris[] = {"http://93.184.216.34:25/", "https://93.184.216.34:22/",
                                       "http://[2606:2800:220::1]:6/"};
    struct call calls[3] = {0};
    struct world w;
    (void)state;
    world_open(&w, "", NULL);
    for (int i = 0; i < 3; i++) {
        calls[i].path = uris[i];
        call_uri(&w, w.client, &calls[i], uris[i], slice_str("x"), 20000);
    }
    world_run(&w);
    for (int i = 0; i < 3; i++) expect_failure(&calls[i], HTTP_FORBIDDEN, "may not be used");
    world_close(&w);
}

static void forbidden(void **state) {
    static const char *const hosts[] = {"127.0.0.1", "localhost", "a.localhost",       "[::1]",
                                        "0.0.0.0",   "127.1",     "[::ffff:127.0.0.1]"};
    struct call calls[sizeof hosts / sizeof hosts[0]] = {0};
    struct world w;
    (void)state;
    world_open(&w, "", NULL);
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        call_host(&w, w.client, &calls[i], hosts[i], "/ok");
        calls[i].path = hosts[i];
    }
    world_run(&w);
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        expect_failure(&calls[i], HTTP_FORBIDDEN, i == 4 ? "0.0.0.0 is unspecified" : "loopback");
        assert_string_equal(calls[i].address, "");
    }
    expect_failure(&calls[0], HTTP_FORBIDDEN, "127.0.0.1 is loopback (127.0.0.0/8)");
    assert_int_equal(w.accepted, 0);
    world_close(&w);
}

/* localhost has two addresses: the one that is allowed is taken. */
static void one_address_is_allowed(void **state) {
    struct call c = {0};
    struct world w;
    (void)state;
    world_open(&w, "127.0.0.1", NULL);
    call_host(&w, w.client, &c, "localhost", "/ok");
    world_run(&w);
    expect_answer(&c, 200, "fine");
    world_close(&w);
}

static void again(struct call *c) {
    if (c->world->calls < 50) call(c->world, c, "/ok");
}

static void connections_are_reused(void **state) {
    struct call c = {.then = again};
    struct world w;
    (void)state;
    world_open(&w, LOCAL, NULL);
    call(&w, &c, "/ok");
    world_run(&w);
    expect_answer(&c, 200, "fine");
    assert_int_equal(w.requests, 50);
    assert_int_equal(w.accepted, 1);
    world_close(&w);
}

static void after_close(struct call *c) {
    if (c->world->calls < 20) call(c->world, c, c->world->calls % 2 == 0 ? "/ok" : "/close!");
}

static void connections_that_the_server_closes(void **state) {
    struct call c = {.then = after_close};
    struct world w;
    (void)state;
    world_open(&w, LOCAL, NULL);
    call(&w, &c, "/close!");
    world_run(&w);
    assert_int_equal(c.failure, HTTP_ANSWERED);
    assert_int_equal(w.requests, 20);
    assert_int_equal(w.accepted, 11);
    world_close(&w);
}

/* The server closes a connection while it is idle; the next request must not notice. */
static void drop_idle(struct call *c) {
    if (c->world->calls == 3) return;
    LIST_FOR(n, next, &c->world->peers) {
        stream_close(CONTAINER_OF(n, struct peer, node)->stream, "idle too long");
    }
    call(c->world, c, "/ok");
}

static void idle_connections_that_die(void **state) {
    struct call c = {.then = drop_idle};
    struct world w;
    (void)state;
    world_open(&w, LOCAL, NULL);
    call(&w, &c, "/ok");
    world_run(&w);
    expect_answer(&c, 200, "fine");
    assert_int_equal(w.accepted, 3);
    world_close(&w);
}

#define MANY 500

static void many_at_once(void **state) {
    struct call *calls = mem_zalloc(MANY * sizeof *calls);
    struct world w;
    (void)state;
    world_open(&w, LOCAL, NULL);
    w.wait_for = MANY;
    for (int i = 0; i < MANY; i++) call_host(&w, w.client, &calls[i], "localhost", "/with-all");
    assert_int_equal(http_client_active(w.client), MANY);
    world_run(&w);
    for (int i = 0; i < MANY; i++) expect_answer(&calls[i], 200, "held");
    assert_int_equal(w.accepted, MANY);
    world_close(&w);
    free(calls);
}

static void cancel_at_request(struct world *w) {
    struct call *c = w->requests == 2 ? (struct call *)w->own : NULL;
    if (c == NULL) return;
    for (int i = 0; i < 3; i++) {
        http_client_cancel(w->client, c[i].transfer);
        w->done++;
    }
}

/* Before libcurl has seen it, while the request waits for its answer. */
static void cancelled(void **state) {
    struct call calls[4] = {0};
    struct world w;
    (void)state;
    world_open(&w, LOCAL, NULL);
    call(&w, &calls[3], "/ok");
    http_client_cancel(w.client, calls[3].transfer);
    w.done++;
    assert_int_equal(http_client_active(w.client), 0);
    w.at_request = cancel_at_request;
    w.own = calls;
    for (int i = 0; i < 3; i++) call(&w, &calls[i], "/silent");
    world_run(&w);
    for (int i = 0; i < 4; i++) assert_false(calls[i].done);
    world_close(&w);
}

static void cancel_the_others(struct call *c) {
    struct call *others = c->world->own;
    for (int i = 0; i < 3; i++) {
        if (others[i].done || others[i].transfer == NULL) continue;
        http_client_cancel(c->world->client, others[i].transfer);
        others[i].transfer = NULL;
        c->world->done++;
    }
}

/* All three answers are there at the same time: whoever is told first cancels the others. */
static void cancelled_by_another(void **state) {
    struct call calls[3] = {0};
    unsigned told = 0;
    struct world w;
    (void)state;
    world_open(&w, LOCAL, NULL);
    w.wait_for = 3;
    w.own = calls;
    for (int i = 0; i < 3; i++) {
        calls[i].then = cancel_the_others;
        call(&w, &calls[i], "/with-all");
    }
    world_run(&w);
    for (int i = 0; i < 3; i++) told += calls[i].done;
    assert_int_equal(told, 1);
    world_close(&w);
}

static void close_at_request(struct world *w) {
    if (w->requests < 5) return;
    w->done = w->calls;
    http_client_close(&w->client);
    assert_null(w->client);
}

static void closed_under_way(void **state) {
    struct call calls[8] = {0};
    struct world w;
    (void)state;
    world_open(&w, LOCAL, NULL);
    w.at_request = close_at_request;
    for (int i = 0; i < 8; i++) call(&w, &calls[i], "/silent");
    world_run(&w);
    for (int i = 0; i < 8; i++) assert_false(calls[i].done);
    world_close(&w);
}

static void stop_at_request(struct world *w) {
    if (w->requests < 5) return;
    w->done = w->calls;
}

/* The loop has ended, and the client is closed after it. */
static void closed_after_the_loop(void **state) {
    struct call calls[8] = {0};
    struct world w;
    (void)state;
    world_open(&w, LOCAL, NULL);
    w.at_request = stop_at_request;
    for (int i = 0; i < 8; i++) call(&w, &calls[i], "/silent");
    world_run_open(&w);
    assert_int_equal(http_client_active(w.client), 8);
    world_close(&w);
    for (int i = 0; i < 8; i++) assert_false(calls[i].done);
}

static void no_descriptors(void **state) {
    struct call c = {0};
    struct world w;
    struct rlimit old, none;
    (void)state;
    world_open(&w, LOCAL, NULL);
    call(&w, &c, "/ok");
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    int next = dup(0);
    close(next);
    none.rlim_cur = (rlim_t)next;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    world_run(&w);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    expect_failure(&c, HTTP_OURS, "Too many open files");
    world_close(&w);
}

static void retry_after(void **state) {
    const uint64_t wall_ms = 1700000000500; /* Tue, 14 Nov 2023 22:13:20.5 GMT */
    static const struct {
        const char *text;
        uint64_t ms;
    } rows[] = {
        {"0", 0},
        {"120", 120000},
        {"00030", 30000},
        {"18446744073709551", UINT64_MAX - 1},
        {"99999999999999999999999", UINT64_MAX - 1},
        {"Tue, 14 Nov 2023 22:13:30 GMT", 9500},
        {"Tue, 14 Nov 2023 22:13:20 GMT", 0},
        {"Sun, 06 Nov 1994 08:49:37 GMT", 0},
        {"Tuesday, 14-Nov-23 22:14:20 GMT", 59500},
        {"Tuesday, 14-Nov-72 22:13:20 GMT", 1546387199500}, /* 49 years on */
        {"Sunday, 06-Nov-94 08:49:37 GMT", 0},
        {"Tue Nov 14 22:13:30 2023", 9500},
        {"Sat Nov  4 22:13:30 2023", 0},
        {"Mon Dec  4 22:13:20 2023", 1727999500},
        {"Fri, 29 Feb 2024 00:00:00 GMT", 9164799500},
        {"", UINT64_MAX},
        {"-1", UINT64_MAX},
        {"+1", UINT64_MAX},
        {"1.5", UINT64_MAX},
        {"1 ", UINT64_MAX},
        {"soon", UINT64_MAX},
        {"Tue, 14 Nov 2023 22:13:30", UINT64_MAX},
        {"Tue, 14 Nov 2023 22:13:30 GMT ", UINT64_MAX},
        {"Tue, 14 Nov 2023 22:13:30 CET", UINT64_MAX},
        {"Tue, 14 Nov 2023 24:13:30 GMT", UINT64_MAX},
        {"Tue, 00 Nov 2023 22:13:30 GMT", UINT64_MAX},
        {"Tue, 32 Nov 2023 22:13:30 GMT", UINT64_MAX},
        {"Tue, 14 Nop 2023 22:13:30 GMT", UINT64_MAX},
        {"Tue, 14 Nov 23 22:13:30 GMT", UINT64_MAX},
        {"Tue,14 Nov 2023 22:13:30 GMT", UINT64_MAX},
        {", 14 Nov 2023 22:13:30 GMT", UINT64_MAX},
        {"Tue Nov 14 22:13:30 2023 GMT", UINT64_MAX},
        {"2023-11-14T22:13:30Z", UINT64_MAX},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t ms = http_retry_after_ms(slice_str(rows[i].text), wall_ms);
        if (ms != rows[i].ms) {
            fail_msg("%s: %llu, not %llu", rows[i].text, (unsigned long long)ms,
                     (unsigned long long)rows[i].ms);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers),
        cmocka_unit_test(what_is_not_an_answer),
        cmocka_unit_test(what_is_sent),
        cmocka_unit_test(the_path_is_sent_as_it_is),
        cmocka_unit_test(headers_that_cannot_be_sent),
        cmocka_unit_test(time_is_limited),
        cmocka_unit_test(connecting_is_limited_too),
        cmocka_unit_test(a_large_response_is_left),
        cmocka_unit_test(a_large_body_is_sent),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(forbidden),
        cmocka_unit_test(forbidden_ports),
        cmocka_unit_test(one_address_is_allowed),
        cmocka_unit_test(connections_are_reused),
        cmocka_unit_test(connections_that_the_server_closes),
        cmocka_unit_test(idle_connections_that_die),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(cancelled),
        cmocka_unit_test(cancelled_by_another),
        cmocka_unit_test(closed_under_way),
        cmocka_unit_test(closed_after_the_loop),
        cmocka_unit_test(no_descriptors),
        cmocka_unit_test(retry_after),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
