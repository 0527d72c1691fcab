/* Secrets as text, the stored form of a source, and the registry over a real engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <stdio.h>

#include "base/base64.h"
#include "broker/ingest/source.h"

#define KEY_24 "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

static void expect_secret(const char *text, size_t key_len) {
    struct source_secret s = {.len = 0};
    const char *why = NULL;
    assert_int_equal(source_secret_parse(slice_str(text), &s, &why), ERR_OK);
    assert_int_equal(s.len, key_len);
}

static void refuse_secret(const char *text, const char *reason) {
    struct source_secret s;
    const char *why = NULL;
    assert_int_equal(source_secret_parse(slice_str(text), &s, &why), ERR_INVALID_REQUEST);
    if (strstr(why, reason) == NULL) fail_msg("\"%s\": %s", text, why);
}

static void test_secrets(void **state) {
    (void)state;
    expect_secret("whsec_" KEY_24, 24);
    expect_secret(KEY_24, 24);
    refuse_secret("", "empty");
    refuse_secret("whsec_", "empty");
    refuse_secret("whsec_" KEY_24 "\n", "blank");
    refuse_secret(" whsec_" KEY_24, "blank");
    refuse_secret("whsec_ " KEY_24, "blank");
    refuse_secret("whsec_not-base64-but-long-enough-to-be-one", "base64");
    refuse_secret("WHSEC_" KEY_24, "base64");
    refuse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaQ=", "24 bytes"); /* 23 bytes */
    refuse_secret("password", "24 bytes");
}

static void test_the_length_of_keys(void **state) {
    (void)state;
    uint8_t key[80] = {7};
    char text[160];
    for (size_t len = 1; len <= sizeof key; len++) {
        struct source_secret s;
        const char *why = NULL;
        base64_encode(slice_of(key, len), text);
        enum err err = source_secret_parse(slice_str(text), &s, &why);
        assert_int_equal(err, len >= 24 && len <= 64 ? ERR_OK : ERR_INVALID_REQUEST);
        if (err == ERR_OK) assert_memory_equal(s.key, key, len);
    }
}

static void test_generated_secrets(void **state) {
    (void)state;
    char a[LIMIT_SECRET_TEXT_BYTES + 1], b[LIMIT_SECRET_TEXT_BYTES + 1];
    source_secret_generate(a);
    source_secret_generate(b);
    assert_string_not_equal(a, b);
    assert_true(slice_starts_with(slice_str(a), "whsec_"));
    expect_secret(a, 32);
}

static struct source example(void) {
    struct source s = {.scheme = SCHEME_STANDARD_WEBHOOKS, .created_at_ms = 1795251600123};
    s.secrets_count = LIMIT_SECRETS;
    for (size_t i = 0; i < LIMIT_SECRETS; i++) {
        const char *why = NULL;
        source_secret_generate(s.secret_texts[i]);
        assert_int_equal(source_secret_parse(slice_str(s.secret_texts[i]), &s.secrets[i], &why),
                         ERR_OK);
    }
    return s;
}

static void test_the_stored_form(void **state) {
    (void)state;
    struct source s = example(), back = {.accepted_total = 5};
    struct buf b;
    const char *why = NULL;
    buf_init(&b, 4096);
    source_encode(&s, &b);
    assert_false(b.overflow);
    assert_true(source_decode(buf_slice(&b), &back, &why));
    assert_int_equal(back.scheme, s.scheme);
    assert_int_equal(back.created_at_ms, s.created_at_ms);
    assert_int_equal(back.secrets_count, s.secrets_count);
    assert_int_equal(back.accepted_total, 5);
    for (size_t i = 0; i < s.secrets_count; i++) {
        assert_string_equal(back.secret_texts[i], s.secret_texts[i]);
        assert_memory_equal(back.secrets[i].key, s.secrets[i].key, s.secrets[i].len);
    }
    /* Cut anywhere, it is refused. */
    for (size_t len = 0; len < b.len; len++) {
        assert_false(source_decode(slice_of(b.data, len), &back, &why));
        assert_non_null(why);
    }
    buf_free(&b);
}

static void test_stored_forms_of_other_versions(void **state) {
    (void)state;
    struct source s;
    const char *why = NULL;
    assert_true(source_decode(
        slice_str("{\"later\":{\"x\":[1]},\"secrets\":[\"whsec_" KEY_24 "\"],\"created_at_ms\":1,"
                  "\"scheme\":\"standard-webhooks\"}"),
        &s, &why));
    assert_int_equal(s.secrets_count, 1);
    static const char *const wrong[] = {
        "{}",
        "[]",
        "{\"scheme\":\"standard-webhooks\",\"secrets\":[]}",
        "{\"scheme\":\"standard-webhooks\",\"secrets\":[7]}",
        "{\"scheme\":\"standard-webhooks\",\"secrets\":[\"short\"]}",
        "{\"scheme\":\"of-tomorrow\",\"secrets\":[\"whsec_" KEY_24 "\"]}",
        "{\"secrets\":[\"whsec_" KEY_24 "\"]}",
        "{\"scheme\":\"standard-webhooks\",\"created_at_ms\":\"x\",\"secrets\":[\"" KEY_24 "\"]}"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        why = NULL;
        assert_false(source_decode(slice_str(wrong[i]), &s, &why));
        assert_non_null(why);
    }
}

struct fixture {
    struct store *store;
    struct engine *engine;
};

/* Runs one config command to its durable end. */
static void config(struct fixture *f, enum command_kind kind, const char *name) {
    struct engine_time time = {.now_ms = 1, .wall_ms = 1};
    struct source s = example();
    struct buf value;
    char key[128];
    buf_init(&value, 4096);
    source_encode(&s, &value);
    snprintf(key, sizeof key, SOURCE_CONFIG_PREFIX "%s", name);
    struct command c = {.kind = kind,
                        .u.config = {.key = slice_str(key), .value = buf_slice(&value)}};
    engine_step(f->engine, time, &c);
    struct engine_turn *turn = engine_end_turn(f->engine, time);
    assert_non_null(turn);
    assert_int_equal(store_submit(f->store, &turn->batch), 0);
    engine_durable(f->engine, turn);
    engine_turn_done(f->engine, turn);
    store_end_reads(f->store);
    buf_free(&value);
}

static void on_durable(void *ctx, struct batch *batch) {
    (void)ctx;
    (void)batch;
}

static void test_the_registry(void **state) {
    (void)state;
    struct fixture f = {.store = NULL};
    const struct engine_options options = {.seed = 1};
    struct engine_time time = {.now_ms = 1, .wall_ms = 1};
    char error[256] = "";
    assert_int_equal(memory_store_open(&f.store), 0);
    f.store->on_durable = on_durable;
    assert_int_equal(engine_open(&f.engine, f.store, &options, time, error, sizeof error), 0);
    static const char *const names[] = {"b", "a", "ab", "c", "abc", "B"};
    struct sources *live = sources_new();
    for (size_t i = 0; i < 6; i++) {
        config(&f, COMMAND_CONFIG_PUT, names[i]);
        sources_refresh(live, f.engine, slice_str(names[i]));
    }
    struct sources *loaded = sources_new();
    assert_int_equal(sources_load(loaded, f.engine, error, sizeof error), 0);

    struct sources *both[] = {live, loaded};
    static const char *const sorted[] = {"B", "a", "ab", "abc", "b", "c"};
    for (size_t k = 0; k < 2; k++) {
        struct slice after = slice_of(NULL, 0);
        assert_int_equal(sources_count(both[k]), 6);
        for (size_t i = 0; i < 6; i++) {
            struct source *s = sources_next(both[k], after);
            assert_non_null(s);
            assert_string_equal(s->name, sorted[i]);
            assert_ptr_equal(sources_get(both[k], slice_str(sorted[i])), s);
            assert_ptr_equal(sources_get_by_id(both[k], s->id), s);
            after = slice_str(s->name);
        }
        assert_null(sources_next(both[k], after));
        assert_null(sources_get(both[k], slice_str("")));
        assert_null(sources_get(both[k], slice_str("abcd")));
    }

    /* Replaced: the counters go on. Removed: gone, also by id; the others stay. */
    struct source *ab = sources_get(live, slice_str("ab"));
    uint32_t id = ab->id;
    ab->accepted_total = 3;
    config(&f, COMMAND_CONFIG_PUT, "ab");
    sources_refresh(live, f.engine, slice_str("ab"));
    assert_int_equal(sources_get(live, slice_str("ab"))->accepted_total, 3);
    assert_int_equal(sources_get(live, slice_str("ab"))->id, id);
    config(&f, COMMAND_CONFIG_DELETE, "ab");
    sources_refresh(live, f.engine, slice_str("ab"));
    assert_null(sources_get(live, slice_str("ab")));
    assert_null(sources_get_by_id(live, id));
    assert_non_null(sources_get(live, slice_str("abc")));
    assert_int_equal(sources_count(live), 5);

    sources_free(&live);
    sources_free(&loaded);
    engine_close(&f.engine);
    store_close(f.store);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_the_length_of_keys),
        cmocka_unit_test(test_generated_secrets),
        cmocka_unit_test(test_the_stored_form),
        cmocka_unit_test(test_stored_forms_of_other_versions),
        cmocka_unit_test(test_the_registry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
