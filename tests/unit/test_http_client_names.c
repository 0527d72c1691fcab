/* Names and the guard: what a resolver may answer, change, or never say.
 *
 * getaddrinfo is replaced by a function of this program: the dynamic linker finds it before the C
 * library's, for libcurl too. Names that end in .test are answered from the script below. */
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <pthread.h>

#include "http_world.h"

/* The C library's own. */
typedef int getaddrinfo_fn(const char *node, const char *service, const struct addrinfo *hints,
                           struct addrinfo **out);

struct script {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const char *answers[8]; /* of rebind.test, one after the other: addresses with blanks between */
    unsigned answered;
    bool released;          /* hang*.test may return */
    unsigned hanging, most; /* threads in it now, and at most */
    unsigned left;          /* threads that have come out again */
};
static struct script script = {
    PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, {0}, 0, false, 0, 0, 0};

static int answer(getaddrinfo_fn *real, const char *addresses, const char *service,
                  const struct addrinfo *hints, struct addrinfo **out) {
    struct addrinfo literal = *hints, **end = out;
    literal.ai_flags = AI_NUMERICHOST;
    literal.ai_family = AF_UNSPEC;
    *out = NULL;
    while (*addresses != '\0') {
        char one[64];
        size_t len = strcspn(addresses, " ");
        CHECK(slice_to_cstr(slice_of(addresses, len), one, sizeof one));
        CHECK(real(one, service, &literal, end) == 0);
        while (*end != NULL) end = &(*end)->ai_next;
        addresses += len + (addresses[len] == ' ');
    }
    return *out == NULL ? EAI_NONAME : 0;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **out) {
    getaddrinfo_fn *real;
    void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");
    memcpy(&real, &symbol, sizeof real);
    if (strstr(node, ".test") == NULL) return real(node, service, hints, out);
    if (strncmp(node, "gone", 4) == 0) return EAI_NONAME;
    if (strncmp(node, "fine", 4) == 0) return answer(real, "127.0.0.1", service, hints, out);
    pthread_mutex_lock(&script.lock);
    const char *addresses = "127.0.0.1";
    if (strncmp(node, "hang", 4) == 0) {
        if (++script.hanging > script.most) script.most = script.hanging;
        pthread_cond_broadcast(&script.changed);
        while (!script.released) pthread_cond_wait(&script.changed, &script.lock);
        script.hanging--;
        script.left++;
        pthread_cond_broadcast(&script.changed);
    } else {
        addresses = script.answers[script.answered];
        CHECK(addresses != NULL);
        script.answered++;
    }
    pthread_mutex_unlock(&script.lock);
    return answer(real, addresses, service, hints, out);
}

/* Replaced like getaddrinfo: a machine that has no thread left. */
static bool no_threads;

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                   void *arg) {
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    void *symbol = dlsym(RTLD_NEXT, "pthread_create");
    memcpy(&real, &symbol, sizeof real);
    return no_threads ? EAGAIN : real(thread, attributes, start, arg);
}

static void script_reset(void) {
    memset(script.answers, 0, sizeof script.answers);
    script.answered = script.hanging = script.most = script.left = 0;
    script.released = false;
}

/* Until so many threads hang. */
static void script_wait(unsigned threads) {
    pthread_mutex_lock(&script.lock);
    while (script.hanging < threads) pthread_cond_wait(&script.changed, &script.lock);
    pthread_mutex_unlock(&script.lock);
}

/* Lets the threads go and waits until all of them have. */
static void script_release(void) {
    pthread_mutex_lock(&script.lock);
    script.released = true;
    pthread_cond_broadcast(&script.changed);
    while (script.hanging > 0) pthread_cond_wait(&script.changed, &script.lock);
    pthread_mutex_unlock(&script.lock);
}

/* Who checks the name first and connects later sees two different answers. Here the second one is
 * judged, because nothing else is connected to. */
static void an_answer_that_changes(void **state) {
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *checked;
    struct call c = {0};
    struct world w;
    char why[256];
    (void)state;
    script_reset();
    script.answers[0] = "93.184.216.34";
    script.answers[1] = "127.0.0.1";
    world_open(&w, "", NULL);
    assert_int_equal(getaddrinfo("rebind.test", "80", &hints, &checked), 0);
    assert_true(guard_address_ok(w.guard, checked->ai_addr, why, sizeof why));
    freeaddrinfo(checked);
    assert_true(guard_uri_ok(w.guard, slice_str("http://rebind.test/"), why, sizeof why));
    call_host(&w, w.client, &c, "rebind.test", "/ok");
    world_run(&w);
    expect_failure(&c, HTTP_FORBIDDEN, "127.0.0.1 is loopback (127.0.0.0/8)");
    assert_int_equal(script.answered, 2);
    assert_int_equal(w.accepted, 0);
    world_close(&w);
}

/* The same name, reached once, then asked for again by a client that knows nothing of it. */
static struct http_client *second_client;

static void ask_again(struct call *c) {
    c->then = NULL;
    assert_int_equal(c->status, 200);
    second_client = client_with(c->world, NULL);
    call_host(c->world, second_client, c, "rebind.test", "/ok");
}

static void an_answer_that_turns_bad(void **state) {
    struct call c = {.then = ask_again};
    struct world w;
    (void)state;
    script_reset();
    script.answers[0] = "127.0.0.2";
    script.answers[1] = "127.0.0.1";
    world_open(&w, "127.0.0.2", NULL);
    call_host(&w, w.client, &c, "rebind.test", "/ok");
    world_run(&w);
    expect_failure(&c, HTTP_FORBIDDEN, "127.0.0.1 is loopback");
    assert_int_equal(w.accepted, 1);
    http_client_close(&second_client);
    world_close(&w);
}

static void several_answers(void **state) {
    static const struct {
        const char *answers, *forbidden; /* NULL: it is reached */
    } rows[] = {
        {"127.0.0.1 10.0.0.1 127.0.0.2", NULL},
        {"127.0.0.2 127.0.0.1", NULL},
        {"::1 fe80::1 127.0.0.1 169.254.169.254", "(169.254.0.0/16)"},
        {"::ffff:127.0.0.1", "holds 127.0.0.1, which is loopback"},
        {"64:ff9b::7f00:1", "NAT64"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct call c = {0};
        struct world w;
        script_reset();
        script.answers[0] = rows[i].answers;
        world_open(&w, "127.0.0.2", NULL);
        call_host(&w, w.client, &c, "rebind.test", "/ok");
        world_run(&w);
        if (rows[i].forbidden == NULL) {
            expect_answer(&c, 200, "fine");
            assert_int_equal(strncmp(c.address, "127.0.0.2:", 10), 0);
        } else {
            expect_failure(&c, HTTP_FORBIDDEN, rows[i].forbidden);
            assert_int_equal(w.accepted, 0);
        }
        world_close(&w);
    }
}

static void a_name_without_address(void **state) {
    struct call c = {0};
    struct world w;
    (void)state;
    script_reset();
    world_open(&w, "", NULL);
    call_host(&w, w.client, &c, "gone.test", "/ok");
    world_run(&w);
    expect_failure(&c, HTTP_DNS, "gone.test");
    world_close(&w);
}

static void no_thread_for_a_lookup(void **state) {
    struct call c = {0};
    struct world w;
    (void)state;
    script_reset();
    world_open(&w, "127.0.0.0/8", NULL);
    no_threads = true;
    call_host(&w, w.client, &c, "fine.test", "/ok");
    world_run(&w);
    no_threads = false;
    expect_failure(&c, HTTP_OURS, "thread");
    world_close(&w);
}

/* The loop goes on, and neither the timeout nor the close waits for the thread. */
static void a_resolver_that_hangs(void **state) {
    struct call slow = {.path = "hang"}, fine = {0}, left = {0};
    struct world w;
    (void)state;
    script_reset();
    world_open(&w, "127.0.0.0/8", NULL);
    call_uri(&w, w.client, &slow, "http://hang.test:8080/", slice_str("x"), 200);
    call_host(&w, w.client, &fine, "fine.test", "/ok");
    call_uri(&w, w.client, &left, "http://hang2.test:8080/", slice_str("x"), 20000);
    w.calls--; /* the last one is under way when the world is closed */
    world_run_open(&w);
    expect_answer(&fine, 200, "fine");
    expect_failure(&slow, HTTP_TIMEOUT, "the name was not resolved within 200 ms");
    assert_false(left.done);
    world_close(&w);
    script_wait(2);
    script_release();
}

#define LOOKUPS 300 /* more than may be under way */

static struct {
    struct call calls[LOOKUPS];
    struct call known, unknown;
} flood;

static void known_is_through(struct call *c) {
    expect_answer(c, 200, "ok");
    assert_false(flood.unknown.done);
    script_release();
}

/* A name that works is asked again for a new connection while the lookups are taken. */
static void start_flood(struct call *c) {
    struct world *w = c->world;
    char uri[64];
    assert_int_equal(c->status, 200);
    for (int i = 0; i < LOOKUPS; i++) {
        snprintf(uri, sizeof uri, "http://hang%d.test:%u/ok", i, w->port);
        flood.calls[i].path = "hang";
        call_uri(w, w->client, &flood.calls[i], uri, slice_str("x"), 20000);
    }
    snprintf(uri, sizeof uri, "http://fine2.test:%u/ok", w->port);
    call_uri(w, w->client, &flood.unknown, uri, slice_str("x"), 20000);
    flood.unknown.path = "unknown";
    flood.known.then = known_is_through;
    call_host(w, w->client, &flood.known, "fine.test", "/close!");
}

static void lookups_are_bounded(void **state) {
    struct call first = {.then = start_flood};
    struct world w;
    (void)state;
    memset(&flood, 0, sizeof flood);
    script_reset();
    world_open(&w, "127.0.0.0/8", NULL);
    call_host(&w, w.client, &first, "fine.test", "/close!");
    world_run(&w);
    for (int i = 0; i < LOOKUPS; i++) expect_answer(&flood.calls[i], 200, "fine");
    expect_answer(&flood.unknown, 200, "fine");
    assert_true(script.most > 0 && script.most <= 256);
    assert_int_equal(script.left, LOOKUPS);
    world_close(&w);
}

/* Those that wait for a lookup wait within their time; those that are cancelled wait no more. */
static void waiting_is_limited(void **state) {
    struct world w;
    (void)state;
    memset(&flood, 0, sizeof flood);
    script_reset();
    world_open(&w, "127.0.0.0/8", NULL);
    for (int i = 0; i < LOOKUPS; i++) {
        char uri[64];
        snprintf(uri, sizeof uri, "http://hang%d.test:%u/ok", i, w.port);
        flood.calls[i].path = "hang";
        call_uri(&w, w.client, &flood.calls[i], uri, slice_str("x"), i < 256 ? 20000 : 200);
        if (i < 256) w.calls--;
    }
    http_client_cancel(w.client, flood.calls[LOOKUPS - 1].transfer);
    w.calls--;
    world_run_open(&w);
    for (int i = 256; i < LOOKUPS - 1; i++) {
        expect_failure(&flood.calls[i], HTTP_OURS, "no name lookup came free within 200 ms");
    }
    assert_false(flood.calls[LOOKUPS - 1].done);
    assert_int_equal(http_client_active(w.client), 256);
    world_close(&w);
    script_release();
    assert_true(script.most <= 256);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_that_changes), cmocka_unit_test(an_answer_that_turns_bad),
        cmocka_unit_test(several_answers),        cmocka_unit_test(a_name_without_address),
        cmocka_unit_test(no_thread_for_a_lookup), cmocka_unit_test(a_resolver_that_hangs),
        cmocka_unit_test(lookups_are_bounded),    cmocka_unit_test(waiting_is_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
