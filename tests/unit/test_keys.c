/* The keys of dynamic webhooks over a real engine: made at the first start, found at the next,
 * rotated, published for a while longer, and taken from a file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/json/walk.h"
#include "broker/webhooks/keys.h"
#include "tests/unit/engine_world.h"

#define ROUTE    ((struct route){.room = 7})
#define DAY_MS   (24ULL * 3600 * 1000)
#define KID_SIZE (SIGNING_KID_BYTES + 1)

struct fixture {
    struct world w;
    struct keys *keys;
    struct keys_options options;
    size_t effects; /* that came to the room */
};

static void on_effect(void *ctx, const struct effect *e) {
    struct fixture *f = ctx;
    if (e->route.room != ROUTE.room) return;
    assert_int_equal(e->kind, EFFECT_DONE);
    assert_int_equal(e->err, ERR_OK);
    f->effects++;
}

static void open_keys(struct fixture *f) {
    char error[256] = "";
    f->options.engine = f->w.engine;
    f->options.route = ROUTE;
    if (keys_open(&f->keys, &f->options, f->w.time, error, sizeof error) != 0)
        fail_msg("%s", error);
    store_end_reads(f->w.store);
}

static int setup(void **state) {
    struct fixture *f = mem_zalloc(sizeof *f);
    f->w.quiet = true;
    f->w.on_effect = on_effect;
    f->w.on_effect_ctx = f;
    f->options.alg = SIGNING_ED25519; /* a fresh one takes no time */
    world_open(&f->w);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    struct fixture *f = *state;
    keys_close(&f->keys);
    world_close(&f->w);
    free(f);
    return 0;
}

/* A restart that loses what is not durable yet. */
static void restart(struct fixture *f) {
    keys_close(&f->keys);
    world_crash(&f->w);
    open_keys(f);
}

static struct key_info at(struct fixture *f, size_t i) {
    struct key_info info;
    assert_true(keys_get(f->keys, i, &info));
    return info;
}

static size_t count(const struct fixture *f) {
    struct key_info info;
    size_t n = 0;
    while (keys_get(f->keys, n, &info)) n++;
    return n;
}

static void kid_of(struct fixture *f, size_t i, char out[KID_SIZE]) {
    snprintf(out, KID_SIZE, "%s", at(f, i).kid);
}

static void rotate(struct fixture *f) {
    const char *why = NULL;
    assert_int_equal(keys_rotate(f->keys, f->w.time, &why), ERR_OK);
}

/* ---- what is published ---- */

struct published {
    char kids[KEYS_OLD_MAX + 4][KID_SIZE];
    size_t count;
};

static bool note_kid(void *ctx, const struct json_value *v) {
    struct published *p = ctx;
    if (v->depth == 3 && slice_eq_str(v->path[0], "keys") && slice_eq_str(v->path[2], "kid")) {
        assert_true(json_string_decode(v->raw, p->kids[p->count++], KID_SIZE) > 0);
    }
    if (v->depth == 3) assert_false(slice_eq_str(v->path[2], "d"));
    return true;
}

static struct published published_at(struct fixture *f, uint64_t wall_ms) {
    struct published p = {.count = 0};
    assert_true(json_walk(keys_jwks(f->keys, wall_ms), 3, note_kid, &p, NULL));
    return p;
}

/* The list and the JWKS say the same, in the same order; the active one signs. */
static void expect_list(struct fixture *f, size_t n) {
    struct published p = published_at(f, f->w.time.wall_ms);
    assert_int_equal(count(f), n);
    assert_int_equal(p.count, n);
    for (size_t i = 0; i < n; i++) {
        struct key_info info = at(f, i);
        assert_string_equal(p.kids[i], info.kid);
        assert_int_equal(info.state, i == 0 ? KEY_ACTIVE : i == 1 ? KEY_NEXT : KEY_OLD);
        assert_int_equal(info.retired_at_ms == 0, i < 2);
        assert_false(info.from_file && i > 0);
        for (size_t j = 0; j < i; j++) assert_string_not_equal(info.kid, p.kids[j]);
    }
    assert_string_equal(signing_key_kid(keys_active(f->keys)), p.kids[0]);
}

struct stored {
    size_t count;
    char *found; /* of this kid, or NULL */
    const char *kid;
};

static void note_stored(void *ctx, struct slice key, struct slice value) {
    struct stored *s = ctx;
    s->count++;
    struct slice kid = slice_from(key, strlen(KEYS_CONFIG_PREFIX));
    if (s->kid == NULL || !slice_eq_str(kid, s->kid)) return;
    s->found = mem_zalloc(value.len + 1);
    memcpy(s->found, value.data, value.len);
}

static size_t stored_count(struct fixture *f) {
    struct stored s = {.count = 0};
    engine_config_scan(f->w.engine, slice_str(KEYS_CONFIG_PREFIX), note_stored, &s);
    store_end_reads(f->w.store);
    return s.count;
}

/* ---- the tests ---- */

static void test_the_first_start_makes_two(void **state) {
    struct fixture *f = *state;
    char active[KID_SIZE], next[KID_SIZE];
    open_keys(f);
    expect_list(f, 2);
    assert_int_equal(at(f, 0).created_at_ms, f->w.time.wall_ms);
    assert_int_equal(signing_key_alg(keys_active(f->keys)), SIGNING_ED25519);
    assert_int_equal(stored_count(f), 0); /* the engine's first turn writes them */
    world_turn(&f->w);
    assert_int_equal(stored_count(f), 2);
    assert_int_equal(f->effects, 2);
    kid_of(f, 0, active);
    kid_of(f, 1, next);

    /* A restart finds them and writes nothing. */
    f->w.time.wall_ms += 5;
    restart(f);
    expect_list(f, 2);
    assert_string_equal(at(f, 0).kid, active);
    assert_string_equal(at(f, 1).kid, next);
    assert_int_equal(at(f, 0).created_at_ms, f->w.time.wall_ms - 5);
    world_turn(&f->w);
    assert_int_equal(f->effects, 2);
    assert_int_equal(keys_on_turn(f->keys, f->w.time), UINT64_MAX);
}

static void test_a_crash_before_the_first_turn(void **state) {
    struct fixture *f = *state;
    open_keys(f);
    restart(f);
    expect_list(f, 2);
    world_turn(&f->w);
    assert_int_equal(stored_count(f), 2);
}

static void test_what_is_stored(void **state) {
    struct fixture *f = *state;
    open_keys(f);
    world_turn(&f->w);
    struct stored s = {.kid = at(f, 0).kid};
    engine_config_scan(f->w.engine, slice_str(KEYS_CONFIG_PREFIX), note_stored, &s);
    store_end_reads(f->w.store);
    assert_non_null(s.found);
    char expected[256];
    snprintf(expected, sizeof expected,
             "{\"kid\":\"%s\",\"alg\":\"EdDSA\",\"pem\":\"-----BEGIN PRIVATE KEY-----\\n", s.kid);
    assert_true(slice_starts_with(slice_str(s.found), expected));
    assert_non_null(strstr(s.found,
                           "\\n\",\"state\":\"active\",\"created_at_ms\":1800000000000,"
                           "\"retired_at_ms\":0}"));
    free(s.found);
}

static void test_rotation(void **state) {
    struct fixture *f = *state;
    char first[KID_SIZE], second[KID_SIZE], third[KID_SIZE];
    open_keys(f);
    world_turn(&f->w);
    kid_of(f, 0, first);
    kid_of(f, 1, second);
    world_wait(&f->w, 1000);
    rotate(f);
    expect_list(f, 3); /* at once, before it is durable */
    assert_string_equal(at(f, 0).kid, second);
    assert_string_equal(at(f, 2).kid, first);
    assert_int_equal(at(f, 2).retired_at_ms, f->w.time.wall_ms);
    kid_of(f, 1, third);

    /* The power fails first: as if nothing had been. What signed meanwhile is still published. */
    restart(f);
    expect_list(f, 2);
    assert_string_equal(at(f, 0).kid, first);
    assert_string_equal(at(f, 1).kid, second);

    rotate(f);
    world_turn(&f->w);
    kid_of(f, 1, third);
    restart(f);
    expect_list(f, 3);
    assert_string_equal(at(f, 0).kid, second);
    assert_string_equal(at(f, 1).kid, third);
    assert_string_equal(at(f, 2).kid, first);
    assert_int_equal(stored_count(f), 3);

    world_wait(&f->w, 1000);
    rotate(f);
    world_turn(&f->w);
    restart(f);
    expect_list(f, 4); /* the one that was rotated out last comes first */
    assert_string_equal(at(f, 0).kid, third);
    assert_string_equal(at(f, 2).kid, second);
    assert_string_equal(at(f, 3).kid, first);
}

static void test_old_ones_go(void **state) {
    struct fixture *f = *state;
    char second[KID_SIZE];
    open_keys(f);
    world_turn(&f->w);
    rotate(f);
    world_turn(&f->w);
    kid_of(f, 0, second);
    world_wait(&f->w, DAY_MS);
    rotate(f);
    world_turn(&f->w);
    expect_list(f, 4);
    uint64_t until = keys_on_turn(f->keys, f->w.time);
    assert_int_equal(until, f->w.time.now_ms + KEYS_OLD_MS - DAY_MS);

    /* A millisecond before its time, then at it: the JWKS is right even before the turn. */
    f->w.time.now_ms = until - 1;
    f->w.time.wall_ms += KEYS_OLD_MS - DAY_MS - 1;
    assert_int_equal(keys_on_turn(f->keys, f->w.time), until);
    expect_list(f, 4);
    f->w.time.now_ms++;
    f->w.time.wall_ms++;
    assert_int_equal(published_at(f, f->w.time.wall_ms).count, 3);
    assert_int_equal(keys_on_turn(f->keys, f->w.time), until + DAY_MS);
    expect_list(f, 3);
    assert_string_equal(at(f, 2).kid, second);
    world_turn(&f->w);
    assert_int_equal(stored_count(f), 3);

    /* Its time may come while the broker is down. */
    f->w.time.now_ms += DAY_MS;
    f->w.time.wall_ms += DAY_MS;
    restart(f);
    expect_list(f, 2);
    world_turn(&f->w);
    assert_int_equal(stored_count(f), 2);
}

static void test_old_ones_are_bounded(void **state) {
    struct fixture *f = *state;
    open_keys(f);
    world_turn(&f->w);
    for (size_t i = 1; i <= KEYS_OLD_MAX + 3; i++) {
        char out[KID_SIZE];
        kid_of(f, 0, out);
        world_wait(&f->w, 1000);
        rotate(f);
        world_turn(&f->w);
        expect_list(f, 2 + (i < KEYS_OLD_MAX ? i : KEYS_OLD_MAX));
        assert_string_equal(at(f, 2).kid, out); /* the one that goes is not the latest */
    }
    assert_int_equal(stored_count(f), 2 + KEYS_OLD_MAX);
    restart(f);
    expect_list(f, 2 + KEYS_OLD_MAX);
}

static void test_another_algorithm(void **state) {
    struct fixture *f = *state;
    char active[KID_SIZE], next[KID_SIZE];
    open_keys(f);
    world_turn(&f->w);
    kid_of(f, 0, active);
    kid_of(f, 1, next);
    f->options.alg = SIGNING_RS256;
    restart(f);
    expect_list(f, 4); /* the former two stay published */
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(at(f, i).alg, i < 2 ? SIGNING_RS256 : SIGNING_ED25519);
    }
    world_turn(&f->w);
    restart(f);
    expect_list(f, 4);
}

/* ---- a key file ---- */

static void write_file(char path[64], const char *text) {
    snprintf(path, 64, "/tmp/bellhop-test-keys-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

#define FILE_KEY "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbc=\n"
#define FILE_KID "rEltOPXl-8jZfn0NbO5yMzHDi5e-WdjzkrFUUcp6oIE"

static void test_a_key_file(void **state) {
    struct fixture *f = *state;
    char path[64], active[KID_SIZE], next[KID_SIZE];
    const char *why = NULL;
    open_keys(f);
    world_turn(&f->w);
    kid_of(f, 0, active);
    kid_of(f, 1, next);

    write_file(path, FILE_KEY);
    f->options.file = path;
    for (int i = 0; i < 2; i++) {
        restart(f);
        expect_list(f, 3);
        assert_string_equal(at(f, 0).kid, FILE_KID);
        assert_true(at(f, 0).from_file);
        assert_string_equal(at(f, 1).kid, next);
        assert_string_equal(at(f, 2).kid, active);
        assert_int_equal(keys_rotate(f->keys, f->w.time, &why), ERR_INVALID_REQUEST);
        assert_non_null(strstr(why, "file"));
        expect_list(f, 3);
        world_turn(&f->w);
        assert_int_equal(stored_count(f), 2); /* not that of the file */
    }

    /* No longer given: the one that has been published as the next one signs. */
    f->options.file = "";
    restart(f);
    expect_list(f, 3);
    assert_string_equal(at(f, 0).kid, next);
    assert_string_equal(at(f, 2).kid, active);
    world_turn(&f->w);
    assert_int_equal(stored_count(f), 3);
    unlink(path);
}

static void put_config(struct fixture *f, const char *name, const char *value) {
    struct command c = {.kind = COMMAND_CONFIG_PUT,
                        .u.config = {.key = slice_str(name), .value = slice_str(value)}};
    world_run(&f->w, &c);
}

/* The file has the key that the store has, too. */
static void test_a_key_file_of_a_stored_key(void **state) {
    struct fixture *f = *state;
    char path[64];
    struct buf value, pem;
    const char *why = NULL;
    struct signing_key *k = signing_key_parse(slice_str(FILE_KEY), &why);
    buf_init(&pem, SIGNING_PEM_BYTES);
    buf_init(&value, 2 * SIGNING_PEM_BYTES);
    signing_key_pem(k, &pem);
    buf_append_str(&value, "{\"later\":[1],\"state\":\"active\",\"pem\":");
    buf_append_json_string(&value, buf_slice(&pem));
    buf_append(&value, "}", 2);
    put_config(f, KEYS_CONFIG_PREFIX FILE_KID, (const char *)value.data);
    open_keys(f);
    expect_list(f, 2);
    assert_string_equal(at(f, 0).kid, FILE_KID);
    assert_false(at(f, 0).from_file);
    world_turn(&f->w);

    write_file(path, FILE_KEY);
    f->options.file = path;
    restart(f);
    expect_list(f, 2);
    assert_string_equal(at(f, 0).kid, FILE_KID);
    assert_true(at(f, 0).from_file);
    world_turn(&f->w);
    assert_int_equal(stored_count(f), 1);
    unlink(path);
    signing_key_free(&k);
    buf_free(&pem);
    buf_free(&value);
}

static void refuse_open(struct fixture *f, int err, const char *reason) {
    char error[512] = "";
    f->options.engine = f->w.engine;
    f->options.route = ROUTE;
    assert_int_equal(keys_open(&f->keys, &f->options, f->w.time, error, sizeof error), err);
    store_end_reads(f->w.store);
    assert_null(f->keys);
    if (strstr(error, reason) == NULL) fail_msg("\"%s\" is not in: %s", reason, error);
    assert_null(strstr(error, "6Xb/"));                   /* nothing of the key */
    assert_null(engine_end_turn(f->w.engine, f->w.time)); /* nothing written */
}

static void refuse_file(struct fixture *f, const char *text, const char *reason) {
    char path[64];
    write_file(path, text);
    f->options.file = path;
    refuse_open(f, ERR_INVALID_REQUEST, path);
    refuse_open(f, ERR_INVALID_REQUEST, reason);
    unlink(path);
}

static void test_refused_files(void **state) {
    struct fixture *f = *state;
    f->options.file = "/tmp/bellhop-no-such-file";
    refuse_open(f, ERR_INVALID_REQUEST, "No such file");
    f->options.file = "/tmp";
    refuse_open(f, ERR_INVALID_REQUEST, "Is a directory");
    refuse_file(f, "", "no private key");
    refuse_file(f, "whsk_6Xb/\n", "32 or 64 bytes");
    char long_text[SIGNING_PEM_BYTES + 2];
    memset(long_text, 'a', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    refuse_file(f, long_text, "longer than");
    f->options.alg = SIGNING_RS256;
    refuse_file(f, FILE_KEY, "--webhook-signature");
}

static void test_stored_keys_that_cannot_be_used(void **state) {
    struct fixture *f = *state;
    static const char *const wrong[][2] = {
        {"", "not JSON"},
        {"{}", "no pem"},
        {"{\"pem\":7,\"state\":\"next\"}", "no text"},
        {"{\"pem\":\"x\",\"state\":\"next\"}", "no private key"},
        {"{\"pem\":\"x\"}", "no state"},
        {"{\"pem\":\"x\",\"state\":\"of-tomorrow\"}", "state"},
        {"{\"pem\":\"x\",\"state\":7}", "state"},
        {"{\"pem\":\"x\",\"state\":\"old\",\"created_at_ms\":\"\"}", "created_at_ms"},
        {"{\"pem\":\"x\",\"state\":\"old\",\"retired_at_ms\":-1}", "retired_at_ms"},
        {"{\"pem\":\"whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=\",\"state\":\"old\"}",
         "not the one that its name says"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        put_config(f, KEYS_CONFIG_PREFIX FILE_KID, wrong[i][0]);
        refuse_open(f, ERR_STORE, wrong[i][1]);
        refuse_open(f, ERR_STORE, FILE_KID);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_first_start_makes_two, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_crash_before_the_first_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_stored, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rotation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_ones_go, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_ones_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_algorithm, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_key_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_key_file_of_a_stored_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stored_keys_that_cannot_be_used, setup, teardown),
    };
    log_set_level(LOG_WARN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
