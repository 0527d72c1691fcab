/* When key sets are fetched, and which of their keys are taken. Time is passed in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <stdio.h>

#include "broker/ingest/jwks.h"

#define URL "https://keys.example/jwks"
#define OKP                                                                                        \
    "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4\""
#define OTHER_X                                                                                    \
    "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\""

struct world {
    struct jwks *jwks;
    struct jwks_set *fetching;
    unsigned fetches, cancels;
    bool refuses;
};

static bool on_start(void *ctx, struct jwks_set *set, const char *url) {
    struct world *w = ctx;
    (void)url;
    if (w->refuses) return false;
    w->fetching = set;
    w->fetches++;
    return true;
}

static void on_cancel(void *ctx, struct jwks_set *set) {
    struct world *w = ctx;
    if (w->fetching == set) w->fetching = NULL;
    w->cancels++;
}

static void world_open(struct world *w) {
    const struct jwks_hooks hooks = {on_start, on_cancel, w};
    *w = (struct world){.fetches = 0};
    w->jwks = jwks_new(&hooks);
}

static void answer(struct world *w, const char *body, const char *trouble, uint64_t now_ms) {
    struct jwks_set *set = w->fetching;
    assert_non_null(set);
    w->fetching = NULL;
    jwks_fetched(set, slice_str(body), trouble, now_ms, now_ms + 7);
}

static size_t known(struct world *w, uint64_t now_ms) {
    size_t count;
    jwks_keys(jwks_get(w->jwks, URL, now_ms), &count);
    return count;
}

static void test_fetched_once_and_kept(void **state) {
    (void)state;
    struct world w;
    world_open(&w);
    assert_int_equal(known(&w, 0), 0);
    assert_int_equal(w.fetches, 1);
    assert_int_equal(known(&w, 10), 0); /* one at a time */
    assert_int_equal(w.fetches, 1);
    answer(&w, "{\"keys\":[" OKP "}]}", NULL, 20);
    assert_int_equal(known(&w, 20), 1);
    assert_int_equal(known(&w, 20 + JWKS_AGE_MS - 1), 1);
    assert_int_equal(w.fetches, 1);
    assert_int_equal(known(&w, 20 + JWKS_AGE_MS), 1); /* old: fetched again, used until then */
    assert_int_equal(w.fetches, 2);
    answer(&w, "{\"keys\":[" OKP "}," OTHER_X "}]}", NULL, 30 + JWKS_AGE_MS);
    assert_int_equal(known(&w, 31 + JWKS_AGE_MS), 2);
    jwks_free(&w.jwks);
    assert_int_equal(w.cancels, 0);
}

static void test_stale_keys_stay_while_the_fetch_fails(void **state) {
    (void)state;
    struct world w;
    world_open(&w);
    known(&w, 0);
    answer(&w, "{\"keys\":[" OKP "}]}", NULL, 0);
    uint64_t now = JWKS_AGE_MS;
    for (unsigned i = 0; i < 50; i++, now += JWKS_RETRY_MS) {
        assert_int_equal(known(&w, now), 1);
        assert_int_equal(w.fetches, 2 + i);
        answer(&w, "", "it answered with status 500", now);
        assert_int_equal(known(&w, now + JWKS_RETRY_MS - 1), 1);
        assert_int_equal(w.fetches, 2 + i); /* once a minute */
    }
    const struct jwks_set *set = jwks_get(w.jwks, URL, now - 1);
    assert_string_equal(jwks_trouble(set), "it answered with status 500");
    assert_int_equal(jwks_fetched_at(set), 7);
    jwks_free(&w.jwks);
}

static void test_a_miss_fetches_once_a_minute(void **state) {
    (void)state;
    struct world w;
    world_open(&w);
    known(&w, 0);
    answer(&w, "{\"keys\":[" OKP "}]}", NULL, 0);
    /* Whatever is sent: a thousand misses a second for ten minutes. */
    for (uint64_t now = 0; now < 10 * JWKS_RETRY_MS; now += 1) {
        struct jwks_set *set = jwks_get(w.jwks, URL, now);
        bool under_way = jwks_miss(w.jwks, set, now);
        assert_true(under_way == (w.fetching != NULL));
        if (w.fetching != NULL) answer(&w, "{\"keys\":[" OKP "}]}", NULL, now);
    }
    assert_int_equal(w.fetches, 10); /* at 0 and then at each minute */
    jwks_free(&w.jwks);
}

static void test_without_keys_it_tries_sooner(void **state) {
    (void)state;
    struct world w;
    world_open(&w);
    unsigned fetches = 0;
    uint64_t last = 0, gap = 0;
    for (uint64_t now = 0; now < 10 * JWKS_RETRY_MS; now += 100) {
        assert_int_equal(known(&w, now), 0);
        if (w.fetches == fetches) continue;
        if (fetches > 0) {
            assert_true(now - last >= gap); /* longer and longer */
            assert_true(now - last <= JWKS_RETRY_MS);
            gap = now - last;
        }
        fetches = w.fetches;
        last = now;
        answer(&w, "", "connect: refused", now);
    }
    assert_true(fetches > 10 && fetches < 20);
    assert_int_equal(gap, JWKS_RETRY_MS);
    jwks_free(&w.jwks);
}

static void test_which_keys_are_taken(void **state) {
    (void)state;
    static const struct {
        const char *body;
        size_t count;
    } rows[] = {
        {"{\"keys\":[" OKP "}]}", 1},
        {"{\"keys\":[" OKP ",\"alg\":\"EdDSA\",\"use\":\"sig\",\"kid\":\"k\"}]}", 1},
        {"{\"keys\":[" OKP ",\"use\":\"enc\"}]}", 0},
        {"{\"keys\":[" OKP ",\"alg\":\"HS256\"}]}", 0},
        {"{\"keys\":[" OKP ",\"alg\":\"RS256\"}]}", 0},
        {"{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\",\"alg\":\"HS256\"}," OKP "}]}", 1},
        {"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}," OKP "}]}", 1},
        {"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}]}", 0},
        {"{\"keys\":[{},[],1,null," OKP "}]}", 1},
        {"{\"keys\":[[" OKP "}]]}", 0},
        {"{\"keys\":{\"a\":" OKP "}}}", 0},
        {"{\"keys\":[]}", 0},
        {"{\"Keys\":[" OKP "}]}", 0},
        {"[" OKP "}]", 0},
        {"{\"keys\":[" OKP "}", 0},
        {"<html>", 0},
        {"", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct world w;
        world_open(&w);
        known(&w, 0);
        answer(&w, rows[i].body, NULL, 0);
        const struct jwks_set *set = jwks_get(w.jwks, URL, 1);
        size_t count;
        jwks_keys(set, &count);
        if (count != rows[i].count) fail_msg("%s: %zu keys", rows[i].body, count);
        assert_true((count > 0) == (jwks_trouble(set)[0] == '\0'));
        jwks_free(&w.jwks);
    }
}

static void test_bounds(void **state) {
    (void)state;
    struct world w;
    struct buf b;
    world_open(&w);
    buf_init(&b, 1 << 20);
    buf_append_str(&b, "{\"keys\":[");
    for (int i = 0; i < 3 * JWKS_KEYS; i++) buf_printf(&b, "%s" OKP "}", i > 0 ? "," : "");
    buf_append_str(&b, "]}");
    buf_append_byte(&b, 0);
    known(&w, 0);
    answer(&w, (const char *)b.data, NULL, 0);
    assert_int_equal(known(&w, 0), JWKS_KEYS);
    buf_free(&b);
    jwks_free(&w.jwks);
    /* Nobody can fetch now: it is asked again. */
    world_open(&w);
    w.refuses = true;
    known(&w, 0);
    w.refuses = false;
    known(&w, 0);
    assert_int_equal(w.fetches, 1);
    jwks_free(&w.jwks);
}

static const char *url_of(int i) {
    static char url[64];
    snprintf(url, sizeof url, URL "?%d", i);
    return url;
}

/* Whoever makes sources, deletes them and asks for many others: for one URL there is one fetch a
 * minute. */
static void test_one_fetch_a_minute_whoever_uses_it(void **state) {
    (void)state;
    struct world w;
    world_open(&w);
    jwks_use(w.jwks, URL);
    jwks_use(w.jwks, URL);
    known(&w, 0);
    answer(&w, "{\"keys\":[" OKP "}]}", NULL, 0);
    for (uint64_t now = 1; now < JWKS_RETRY_MS; now += 100) {
        jwks_leave(w.jwks, URL, now);
        jwks_leave(w.jwks, URL, now);
        jwks_leave(w.jwks, URL, now); /* one too many is none */
        assert_int_equal(known(&w, now), 1);
        jwks_use(w.jwks, URL);
        jwks_use(w.jwks, URL);
    }
    assert_int_equal(w.fetches, 1);
    /* As long as one is left it stays. */
    jwks_leave(w.jwks, URL, 2 * JWKS_RETRY_MS);
    jwks_use(w.jwks, url_of(0));
    jwks_leave(w.jwks, url_of(0), 3 * JWKS_RETRY_MS);
    assert_int_equal(known(&w, 3 * JWKS_RETRY_MS), 1);
    assert_int_equal(w.fetches, 1);
    /* Then it goes. */
    jwks_leave(w.jwks, URL, 3 * JWKS_RETRY_MS);
    assert_int_equal(known(&w, 3 * JWKS_RETRY_MS), 0);
    assert_int_equal(w.fetches, 2);
    jwks_free(&w.jwks);
    assert_int_equal(w.cancels, 1);
}

/* What is used keeps its keys, however many others there are. */
static void test_nobody_pushes_out_others(void **state) {
    (void)state;
    struct world w;
    world_open(&w);
    jwks_use(w.jwks, URL);
    known(&w, 0);
    answer(&w, "{\"keys\":[" OKP "}]}", NULL, 0);
    for (int i = 0; i < 4 * JWKS_LEFT; i++) {
        jwks_use(w.jwks, url_of(i));
        jwks_get(w.jwks, url_of(i), 1);
        if (w.fetching != NULL) answer(&w, "{\"keys\":[" OTHER_X "}]}", NULL, 1);
    }
    assert_int_equal(w.fetches, 1 + 4 * JWKS_LEFT);
    assert_int_equal(known(&w, 2), 1);
    assert_int_equal(w.fetches, 1 + 4 * JWKS_LEFT);
    jwks_free(&w.jwks);
    assert_int_equal(w.cancels, 0);
}

/* New URLs all the time: so many fetches in a minute, and no more; and so many at a time. */
static void test_how_many_fetches(void **state) {
    (void)state;
    struct world w;
    world_open(&w);
    int i = 0;
    for (uint64_t now = 0; now < 10 * JWKS_RETRY_MS; now += 20, i++) {
        jwks_use(w.jwks, url_of(i));
        jwks_get(w.jwks, url_of(i), now);
        if (w.fetching != NULL) answer(&w, "{\"keys\":[" OKP "}]}", NULL, now);
        jwks_leave(w.jwks, url_of(i), now);
    }
    assert_in_range(w.fetches, 10 * JWKS_LEFT - 10, 10 * JWKS_LEFT + 10);
    jwks_free(&w.jwks);
    world_open(&w);
    for (i = 0; i < 2 * JWKS_FETCHES; i++) {
        jwks_use(w.jwks, url_of(i));
        jwks_get(w.jwks, url_of(i), 0);
    }
    assert_int_equal(w.fetches, JWKS_FETCHES);
    answer(&w, "", "no", 1);
    jwks_get(w.jwks, url_of(JWKS_FETCHES), 1);
    assert_int_equal(w.fetches, JWKS_FETCHES + 1);
    jwks_free(&w.jwks);
    assert_int_equal(w.cancels, JWKS_FETCHES);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_fetch_a_minute_whoever_uses_it),
        cmocka_unit_test(test_nobody_pushes_out_others),
        cmocka_unit_test(test_how_many_fetches),
        cmocka_unit_test(test_fetched_once_and_kept),
        cmocka_unit_test(test_stale_keys_stay_while_the_fetch_fails),
        cmocka_unit_test(test_a_miss_fetches_once_a_minute),
        cmocka_unit_test(test_without_keys_it_tries_sooner),
        cmocka_unit_test(test_which_keys_are_taken),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
