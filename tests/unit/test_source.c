/* The stored form of a source, and the registry over a real engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <stdio.h>

#include "broker/ingest/scheme.h"

#define KEY_24 "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

static struct source example(void) {
    struct source s = {.scheme = scheme_default(), .created_at_ms = 1795251600123};
    for (size_t i = 0; i < LIMIT_SECRETS; i++) {
        const char *why = NULL;
        char text[LIMIT_SECRET_TEXT_BYTES + 1];
        secret_generate(text);
        assert_true(source_add_secret(&s, slice_str(text), i % 2 == 0 ? 0 : 1000 * i, &why));
    }
    s.options.tolerance_s = 600;
    snprintf(s.options.jwks_url, sizeof s.options.jwks_url, "https://keys.example/\"jwks\"");
    return s;
}

static void test_the_stored_form(void **state) {
    (void)state;
    struct source s = example(), back = {.accepted_total = 5};
    struct buf b;
    const char *why = NULL;
    buf_init(&b, SOURCE_STORED_BYTES);
    source_encode(&s, &b);
    assert_false(b.overflow);
    assert_true(source_decode(buf_slice(&b), &back, &why));
    assert_ptr_equal(back.scheme, s.scheme);
    assert_int_equal(back.created_at_ms, s.created_at_ms);
    assert_int_equal(back.secrets_count, s.secrets_count);
    assert_int_equal(back.accepted_total, 5);
    for (size_t i = 0; i < s.secrets_count; i++) {
        assert_string_equal(back.secrets[i].text, s.secrets[i].text);
        assert_int_equal(back.secrets[i].expires_at_ms, s.secrets[i].expires_at_ms);
        assert_memory_equal(back.secrets[i].key.key, s.secrets[i].key.key, s.secrets[i].key.len);
    }
    assert_memory_equal(&back.options, &s.options, sizeof s.options);
    source_clear(&back);
    /* Cut anywhere, it is refused. */
    for (size_t len = 0; len < b.len; len++) {
        assert_false(source_decode(slice_of(b.data, len), &back, &why));
        assert_non_null(why);
    }
    buf_free(&b);
    source_clear(&s);
}

/* Everything as long as it may be, of bytes that JSON writes as six. */
static void test_the_longest_stored_form(void **state) {
    (void)state;
    struct source s = {.scheme = scheme_find(slice_str("hmac"))};
    const char *why = NULL;
    char text[LIMIT_SECRET_TEXT_BYTES + 1];
    struct buf b;
    memset(text, '"', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (size_t i = 0; i < LIMIT_SECRETS; i++) {
        assert_true(source_add_secret(&s, slice_str(text), UINT64_MAX, &why));
    }
    for (size_t i = 0; i < source_option_count; i++) {
        const struct source_option *option = &source_option_table[i];
        void *at = source_option_at(&s.options, option);
        if (option->kind == OPTION_TEXT) memset(at, 1, option->max);
        if (option->kind == OPTION_NUMBER) *(uint64_t *)at = UINT64_MAX;
        if (option->kind == OPTION_BOOL) *(bool *)at = true;
    }
    buf_init(&b, SOURCE_STORED_BYTES);
    source_encode(&s, &b);
    assert_false(b.overflow);
    buf_free(&b);
    source_clear(&s);
}

static void test_secrets_expire(void **state) {
    (void)state;
    struct source s = example();
    char second[LIMIT_SECRET_TEXT_BYTES + 1];
    memcpy(second, s.secrets[2].text, sizeof second);
    source_expire(&s, 999);
    assert_int_equal(s.secrets_count, 8);
    source_expire(&s, 1000); /* the one that expires at 1000 */
    assert_int_equal(s.secrets_count, 7);
    assert_string_equal(s.secrets[1].text, second);
    source_expire(&s, 1000000);
    assert_int_equal(s.secrets_count, 4);
    assert_true(s.had_secrets);
    source_clear(&s);
}

static void test_what_goes_together(void **state) {
    (void)state;
    static const struct {
        const char *json, *word; /* word NULL: it is good */
    } rows[] = {
        {"{\"scheme\":\"github\",\"secrets\":[\"s3\"]}", NULL},
        {"{\"scheme\":\"none\",\"secrets\":[]}", NULL},
        {"{\"scheme\":\"gemini\",\"secrets\":[]}", NULL},
        {"{\"scheme\":\"standard-webhooks\",\"secrets\":[\"whpk_"
         "1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=\"]}",
         NULL},
        {"{\"scheme\":\"none\",\"secrets\":[\"x\"]}", "not wanted"},
        {"{\"scheme\":\"github\",\"secrets\":[]}", "together"},
        {"{\"scheme\":\"github\",\"secrets\":[\"\"]}", "empty"},
        {"{\"scheme\":\"github\",\"secrets\":[\"s3\\n\"]}", "line end"},
        {"{\"scheme\":\"github\",\"secrets\":[\" s3\"]}", "blank"},
        {"{\"scheme\":\"bearer\",\"secrets\":[\"fifteen-letters\"]}", "shorter"},
        {"{\"scheme\":\"github\",\"secrets\":[\"s3\"],\"options\":{\"tolerance_s\":5}}",
         "together"},
        {"{\"scheme\":\"twilio\",\"secrets\":[\"s3\"]}", "together"},
        {"{\"scheme\":\"hmac\",\"secrets\":[\"s3\"]}", "together"},
        {"{\"scheme\":\"hmac\",\"secrets\":[\"s3\"],\"options\":{\"signature_header\":\"x-s\"}}",
         NULL},
        {"{\"scheme\":\"none\",\"secrets\":[],\"options\":{\"id_header\":\"x-id\"}}", NULL},
        {"{\"scheme\":\"none\",\"secrets\":[],\"options\":{\"id_header\":\"Authorization\"}}",
         "together"},
        {"{\"scheme\":\"none\",\"secrets\":[],\"options\":{\"id_header\":\"cookie\"}}", "together"},
        {"{\"scheme\":\"bearer\",\"secrets\":[\"sixteen-letters-x\"],\"options\":{"
         "\"token_header\":\"x-token\",\"id_header\":\"X-Token\"}}",
         "together"},
        {"{\"scheme\":\"hmac\",\"secrets\":[\"s3\"],\"options\":{\"signature_header\":\"x-s\","
         "\"id_header\":\"x-s\"}}",
         "together"},
        {"{\"scheme\":\"gemini\",\"secrets\":[],\"options\":{\"jwks_url\":\"http://a/\"}}",
         "together"},
        {"{\"scheme\":\"gemini\",\"secrets\":[],\"options\":{\"jwks_url\":\"http://a/\","
         "\"jwks_allow_http\":true}}",
         NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct source s = {.id = 0};
        const char *why = "";
        bool good = source_decode(slice_str(rows[i].json), &s, &why);
        if (good != (rows[i].word == NULL)) fail_msg("%s: %s", rows[i].json, why);
        if (!good && strstr(why, rows[i].word) == NULL) fail_msg("%s: %s", rows[i].json, why);
        if (good) source_clear(&s);
    }
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
    assert_int_equal(s.secrets[0].expires_at_ms, 0);
    source_clear(&s);
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

/* Runs one config command to its durable end; `place` is "NAME" or "NUMBER/NAME". */
static void config(struct fixture *f, enum command_kind kind, const char *place) {
    struct engine_time time = {.now_ms = 1, .wall_ms = 1};
    struct source s = example();
    struct buf value;
    char key[128];
    buf_init(&value, SOURCE_STORED_BYTES);
    source_encode(&s, &value);
    source_clear(&s);
    snprintf(key, sizeof key, SOURCE_CONFIG_PREFIX "%s", place);
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

static void fixture_open(struct fixture *f) {
    const struct engine_options options = {.seed = 1};
    struct engine_time time = {.now_ms = 1, .wall_ms = 1};
    char error[256] = "";
    assert_int_equal(memory_store_open(&f->store), 0);
    f->store->on_durable = on_durable;
    assert_int_equal(engine_open(&f->engine, f->store, &options, time, error, sizeof error), 0);
}

static void fixture_close(struct fixture *f) {
    engine_close(&f->engine);
    store_close(f->store);
}

static struct source *get(struct sources *s, const char *name) {
    return sources_get(s, PROJECT_DEFAULT, slice_str(name));
}

static void test_the_registry(void **state) {
    (void)state;
    struct fixture f;
    char error[256] = "";
    fixture_open(&f);
    static const char *const names[] = {"b", "a", "ab", "c", "abc", "B"};
    struct sources *live = sources_new();
    for (size_t i = 0; i < 6; i++) {
        config(&f, COMMAND_CONFIG_PUT, names[i]);
        sources_refresh(live, f.engine, PROJECT_DEFAULT, slice_str(names[i]), 0);
    }
    struct sources *loaded = sources_new();
    assert_int_equal(sources_load(loaded, f.engine, error, sizeof error), 0);

    struct sources *both[] = {live, loaded};
    static const char *const sorted[] = {"B", "a", "ab", "abc", "b", "c"};
    for (size_t k = 0; k < 2; k++) {
        struct slice after = slice_of(NULL, 0);
        assert_int_equal(sources_count(both[k], PROJECT_DEFAULT), 6);
        for (size_t i = 0; i < 6; i++) {
            struct source *s = sources_next(both[k], PROJECT_DEFAULT, after);
            assert_non_null(s);
            assert_string_equal(s->name, sorted[i]);
            assert_ptr_equal(get(both[k], sorted[i]), s);
            assert_ptr_equal(sources_at(both[k], i), s);
            assert_ptr_equal(sources_get_by_id(both[k], s->id), s);
            after = slice_str(s->name);
        }
        assert_null(sources_next(both[k], PROJECT_DEFAULT, after));
        assert_null(get(both[k], ""));
        assert_null(get(both[k], "abcd"));
    }

    /* Replaced: the counters go on. Removed: gone, also by id; the others stay. */
    struct source *ab = get(live, "ab");
    uint32_t id = ab->id;
    ab->accepted_total = 3;
    config(&f, COMMAND_CONFIG_PUT, "ab");
    sources_refresh(live, f.engine, PROJECT_DEFAULT, slice_str("ab"), 0);
    assert_int_equal(get(live, "ab")->accepted_total, 3);
    assert_int_equal(get(live, "ab")->id, id);
    config(&f, COMMAND_CONFIG_DELETE, "ab");
    sources_refresh(live, f.engine, PROJECT_DEFAULT, slice_str("ab"), 0);
    assert_null(get(live, "ab"));
    assert_null(sources_get_by_id(live, id));
    assert_non_null(get(live, "abc"));
    assert_int_equal(sources_count(live, PROJECT_DEFAULT), 5);

    sources_free(&live);
    sources_free(&loaded);
    fixture_close(&f);
}

/* What is one project's is not there for another, also where a name looks like a project's number,
 * or begins with the other one. */
static void test_projects(void **state) {
    (void)state;
    struct fixture f;
    char error[256] = "";
    fixture_open(&f);
    static const struct {
        uint32_t project;
        const char *name, *place;
    } made[] = {{1, "2", "2"},   {1, "a", "a"},     {2, "a", "2/a"},  {2, "2", "2/2"},
                {3, "b", "3/b"}, {20, "a", "20/a"}, {3, "ab", "3/ab"}};
    const size_t count = sizeof made / sizeof made[0];
    struct sources *live = sources_new(), *loaded = sources_new();
    for (size_t i = 0; i < count; i++) {
        char key[SOURCE_KEY_BYTES];
        source_config_key(made[i].project, slice_str(made[i].name), key);
        assert_string_equal(key + sizeof SOURCE_CONFIG_PREFIX - 1, made[i].place);
        config(&f, COMMAND_CONFIG_PUT, made[i].place);
        sources_refresh(live, f.engine, made[i].project, slice_str(made[i].name), 0);
    }
    assert_int_equal(sources_load(loaded, f.engine, error, sizeof error), 0);
    struct sources *both[] = {live, loaded};
    for (size_t k = 0; k < 2; k++) {
        assert_null(sources_at(both[k], count));
        for (size_t i = 0; i < count; i++) {
            struct slice name = slice_str(made[i].name);
            const struct source *s = sources_get(both[k], made[i].project, name);
            assert_non_null(s);
            assert_int_equal(s->project, made[i].project);
            assert_string_equal(s->name, made[i].name);
        }
        static const size_t counts[] = {0, 2, 2, 2, 0};
        for (uint32_t project = 0; project < 5; project++) {
            assert_int_equal(sources_count(both[k], project), counts[project]);
        }
        assert_string_equal(sources_next(both[k], 2, slice_str(""))->name, "2");
        assert_string_equal(sources_next(both[k], 2, slice_str("2"))->name, "a");
        assert_null(sources_next(both[k], 2, slice_str("a")));
        assert_null(sources_next(both[k], 4, slice_str("")));
        assert_null(sources_get(both[k], 1, slice_str("b")));
        assert_null(sources_get(both[k], 2, slice_str("b")));
        assert_null(sources_get(both[k], 1, slice_str("2/a")));
        assert_null(sources_get(both[k], 20, slice_str("2")));
    }
    /* One goes; its namesakes stay. */
    uint32_t id = sources_get(live, 2, slice_str("a"))->id;
    config(&f, COMMAND_CONFIG_DELETE, "2/a");
    sources_refresh(live, f.engine, 2, slice_str("a"), 0);
    assert_null(sources_get(live, 2, slice_str("a")));
    assert_null(sources_get_by_id(live, id));
    assert_non_null(sources_get(live, 1, slice_str("a")));
    assert_non_null(sources_get(live, 20, slice_str("a")));
    sources_free(&live);
    sources_free(&loaded);
    fixture_close(&f);
}

static void test_stored_places_that_are_none(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "1/a", "0/a",   "02/a",         "/a",           "2/",
        "x/a", "2/a/b", "4294967295/a", "4294967297/a", "99999999999999999999/a"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct fixture f;
        char error[256] = "";
        fixture_open(&f);
        config(&f, COMMAND_CONFIG_PUT, wrong[i]);
        struct sources *s = sources_new();
        assert_int_equal(sources_load(s, f.engine, error, sizeof error), ERR_STORE);
        if (strstr(error, wrong[i]) == NULL) fail_msg("%s: %s", wrong[i], error);
        sources_free(&s);
        fixture_close(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_stored_form),
        cmocka_unit_test(test_the_longest_stored_form),
        cmocka_unit_test(test_secrets_expire),
        cmocka_unit_test(test_what_goes_together),
        cmocka_unit_test(test_stored_forms_of_other_versions),
        cmocka_unit_test(test_the_registry),
        cmocka_unit_test(test_projects),
        cmocka_unit_test(test_stored_places_that_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
