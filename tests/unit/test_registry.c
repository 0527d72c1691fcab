/* Registered webhooks: one as it is stored and rotated, and the table over a real engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/webhooks/registry.h"
#include "tests/unit/engine_world.h"

#define HOUR_MS 3600000ULL
#define SECRET  "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define ID      "k0h9q38f6ejj1g9j7cgcdsauadmbewegl79f"

/* ---- one ---- */

static struct webhook *example(void) {
    static const struct slice types[] = {{(const uint8_t *)"batch.*", 7},
                                         {(const uint8_t *)"video.generated", 15}};
    static const struct text_member headers[] = {
        {"X-Team", {(const uint8_t *)"a \"b\"", 5}},
        {"Authorization", {(const uint8_t *)"Bearer x", 8}}};
    struct webhook *w = webhook_new();
    webhook_make_id(w->id);
    webhook_set_text(&w->name, slice_str("My \xc3\xa4 \x01 webhook"));
    webhook_set_text(&w->description, slice_str("for \"tests\""));
    webhook_set_text(&w->uri, slice_str("https://example.com/cb?a=b"));
    webhook_set_text(&w->filter, slice_str("{\"user_metadata\":{\"a\":\"\\\"\"}}"));
    webhook_set_text(&w->disabled_reason, slice_str("410 Gone"));
    webhook_set_types(w, types, 2);
    webhook_set_headers(w, headers, 2);
    w->project = 7;
    w->state = WEBHOOK_DISABLED_DUE_TO_FAILED_DELIVERIES;
    w->paused = true;
    w->rate_per_s = 5;
    w->concurrency = 64;
    w->created_at_ms = 1795251600000;
    w->updated_at_ms = 1795251600001;
    w->disabled_at_ms = 1795251600002;
    w->failing_since_ms = 1795251600003;
    webhook_rotate(w, w->created_at_ms, true);
    webhook_rotate(w, w->created_at_ms, false);
    return w;
}

static void expect_same(const struct webhook *a, const struct webhook *b) {
    assert_string_equal(a->id, b->id);
    assert_int_equal(a->project, b->project);
    assert_string_equal(a->name, b->name);
    assert_string_equal(a->description, b->description);
    assert_string_equal(a->uri, b->uri);
    assert_string_equal(a->filter, b->filter);
    assert_string_equal(a->disabled_reason, b->disabled_reason);
    assert_int_equal(a->types_count, b->types_count);
    for (size_t i = 0; i < a->types_count; i++) assert_string_equal(a->types[i], b->types[i]);
    assert_int_equal(a->headers_count, b->headers_count);
    for (size_t i = 0; i < a->headers_count; i++) {
        assert_string_equal(a->headers[i].name, b->headers[i].name);
        assert_string_equal(a->headers[i].value, b->headers[i].value);
    }
    assert_int_equal(a->state, b->state);
    assert_int_equal(a->paused, b->paused);
    assert_int_equal(a->rate_per_s, b->rate_per_s);
    assert_int_equal(a->concurrency, b->concurrency);
    assert_int_equal(a->created_at_ms, b->created_at_ms);
    assert_int_equal(a->updated_at_ms, b->updated_at_ms);
    assert_int_equal(a->disabled_at_ms, b->disabled_at_ms);
    assert_int_equal(a->failing_since_ms, b->failing_since_ms);
    assert_int_equal(a->secrets_count, b->secrets_count);
    for (size_t i = 0; i < a->secrets_count; i++) {
        assert_string_equal(a->secrets[i].text, b->secrets[i].text);
        assert_int_equal(a->secrets[i].expires_at_ms, b->secrets[i].expires_at_ms);
        assert_int_equal(a->secrets[i].secret.len, b->secrets[i].secret.len);
        assert_memory_equal(a->secrets[i].secret.key, b->secrets[i].secret.key,
                            a->secrets[i].secret.len);
    }
}

static void test_the_stored_form(void **state) {
    (void)state;
    struct webhook *w = example(), *copy = webhook_copy(w);
    struct refusal f;
    struct buf b;
    buf_init(&b, WEBHOOK_STORED_BYTES);
    webhook_encode(w, &b);
    struct webhook *back = webhook_decode(slice_str(w->id), buf_slice(&b), &f);
    if (back == NULL) fail_msg("%s", f.message);
    expect_same(w, back);
    expect_same(w, copy);
    webhook_free(&copy);
    webhook_free(&back);
    for (size_t len = 0; len < b.len; len++) { /* cut anywhere, it is refused */
        assert_null(webhook_decode(slice_str(w->id), slice_of(b.data, len), &f));
        assert_int_not_equal(f.message[0], '\0');
    }
    buf_free(&b);
    webhook_free(&w);
    assert_null(w);
    webhook_free(&w);
}

static void test_the_largest(void **state) {
    (void)state;
    struct webhook *w = example();
    static char text[WEBHOOK_BYTES_MAX];
    struct refusal f;
    struct buf b;
    memset(text, 1, sizeof text); /* every byte is written as an escape */
    webhook_set_types(w, &(struct slice){(const uint8_t *)"*", 1}, 1);
    webhook_set_headers(w, NULL, 0);
    webhook_set_text(&w->uri, slice_str("https://a"));
    webhook_set_text(&w->name, slice_of(text, sizeof text - 1024));
    webhook_set_text(&w->disabled_reason, slice_of(text, 1024));
    while (w->secrets_count < LIMIT_WEBHOOK_SECRETS) webhook_rotate(w, 1, false);
    assert_in_range(webhook_bytes(w), WEBHOOK_BYTES_MAX - 1024, WEBHOOK_BYTES_MAX);
    buf_init(&b, WEBHOOK_STORED_BYTES);
    webhook_encode(w, &b); /* which CHECKs that it fits */
    struct webhook *back = webhook_decode(slice_str(w->id), buf_slice(&b), &f);
    assert_non_null(back);
    expect_same(w, back);
    webhook_free(&back);
    webhook_free(&w);
    buf_free(&b);
}

static void refuse_stored(const char *id, const char *value, const char *reason) {
    struct refusal f;
    assert_null(webhook_decode(slice_str(id), slice_str(value), &f));
    if (strstr(f.message, reason) == NULL) fail_msg("%s: %s", value, f.message);
}

static void test_stored_forms_of_other_versions(void **state) {
    (void)state;
    struct refusal f;
    struct webhook *w = webhook_decode(
        slice_str(ID),
        slice_str("{\"later\":{\"x\":[1]},\"uri\":\"http://a\",\"types\":[\"*\"],"
                  "\"state\":\"enabled\",\"secrets\":[{\"secret\":\"" SECRET "\",\"new\":1}]}"),
        &f);
    assert_non_null(w);
    assert_int_equal(w->concurrency, WEBHOOK_CONCURRENCY_DEFAULT);
    assert_int_equal(w->project, PROJECT_DEFAULT);
    assert_string_equal(w->name, "");
    webhook_free(&w);
#define REST "\"types\":[\"*\"],\"state\":\"enabled\",\"secrets\":[{\"secret\":\"" SECRET "\"}]"
    refuse_stored(ID, "[]", "object");
    refuse_stored(ID, "{" REST "}", "no uri");
    refuse_stored(ID, "{\"uri\":\"http://a\",\"concurrency\":0," REST "}", "concurrency");
    refuse_stored(ID, "{\"uri\":\"http://a\",\"concurrency\":65," REST "}", "concurrency");
    refuse_stored(ID, "{\"uri\":7," REST "}", "uri");
    refuse_stored(ID, "{\"uri\":\"http://a\",\"project\":0," REST "}", "project");
    refuse_stored(ID, "{\"uri\":\"http://a\",\"project\":4294967295," REST "}", "project");
    refuse_stored(ID,
                  "{\"uri\":\"http://a\",\"types\":[\"*\"],\"state\":\"asleep\","
                  "\"secrets\":[{\"secret\":\"" SECRET "\"}]}",
                  "state");
    refuse_stored(ID, "{\"uri\":\"http://a\",\"types\":[\"*\"],\"state\":\"enabled\"}", "secret");
    refuse_stored(ID,
                  "{\"uri\":\"http://a\",\"types\":[\"*\"],\"state\":\"enabled\","
                  "\"secrets\":[{\"secret\":\"whsec_short\"}]}",
                  "secrets[0]");
    refuse_stored("short", "{\"uri\":\"http://a\"," REST "}", "id");
    refuse_stored("K0h9q38f6ejj1g9j7cgcdsauadmbewegl79f", "{\"uri\":\"http://a\"," REST "}", "id");
}

static void test_ids(void **state) {
    (void)state;
    char a[WEBHOOK_ID_BYTES + 1], b[WEBHOOK_ID_BYTES + 1];
    char name[LIMIT_NAME_BYTES + 1];
    struct webhook *w = example();
    webhook_make_id(a);
    webhook_make_id(b);
    assert_string_not_equal(a, b);
    assert_int_equal(strlen(a), WEBHOOK_ID_BYTES);
    assert_int_equal(strspn(a, "abcdefghijklmnopqrstuvwxyz0123456789"), WEBHOOK_ID_BYTES);
    webhook_subscription(w, name);
    assert_true(name_ok(slice_str(name)));
    assert_true(slice_starts_with(slice_str(name), "webhook."));
    assert_string_equal(name + 8, w->id);
    webhook_free(&w);
}

static void test_rotation(void **state) {
    (void)state;
    struct webhook *w = webhook_new();
    const uint64_t now_ms = 1795251600000;
    char first[LIMIT_SECRET_TEXT_BYTES + 1];
    snprintf(first, sizeof first, "%s", webhook_rotate(w, now_ms, true));
    assert_int_equal(w->secrets_count, 1);
    assert_int_equal(w->secrets[0].expires_at_ms, 0);

    const char *second = webhook_rotate(w, now_ms, false);
    assert_string_equal(w->secrets[0].text, second);
    assert_string_not_equal(second, first);
    assert_string_equal(w->secrets[1].text, first);
    assert_int_equal(w->secrets[1].expires_at_ms, now_ms + 24 * HOUR_MS);

    /* The first keeps its earlier end; at that moment it is over. */
    webhook_rotate(w, now_ms + HOUR_MS, false);
    assert_int_equal(w->secrets_count, 3);
    assert_int_equal(w->secrets[2].expires_at_ms, now_ms + 24 * HOUR_MS);
    assert_int_equal(w->secrets[1].expires_at_ms, now_ms + 25 * HOUR_MS);
    assert_int_equal(webhook_secrets_valid(w, now_ms + 24 * HOUR_MS - 1), 3);
    assert_int_equal(webhook_secrets_valid(w, now_ms + 24 * HOUR_MS), 2);
    assert_int_equal(webhook_secrets_valid(w, now_ms + 25 * HOUR_MS), 1);

    /* What has expired is dropped; at once drops the rest too. */
    webhook_rotate(w, now_ms + 24 * HOUR_MS, false);
    assert_int_equal(w->secrets_count, 3);
    webhook_rotate(w, now_ms + 24 * HOUR_MS, true);
    assert_int_equal(w->secrets_count, 1);
    assert_int_equal(w->secrets[1].secret.len, 0);

    for (size_t i = 0; i < 2 * LIMIT_WEBHOOK_SECRETS; i++) webhook_rotate(w, now_ms, false);
    assert_int_equal(w->secrets_count, LIMIT_WEBHOOK_SECRETS);
    webhook_free(&w);
}

static void test_states(void **state) {
    (void)state;
    enum webhook_state s;
    assert_true(webhook_state_from_name(slice_str("ENABLED"), &s));
    assert_int_equal(s, WEBHOOK_ENABLED);
    assert_true(webhook_state_from_name(slice_str("Disabled"), &s));
    assert_int_equal(s, WEBHOOK_DISABLED);
    assert_true(webhook_state_from_name(slice_str("disabled_due_to_failed_DELIVERIES"), &s));
    assert_int_equal(s, WEBHOOK_DISABLED_DUE_TO_FAILED_DELIVERIES);
    assert_string_equal(webhook_state_name(s), "disabled_due_to_failed_deliveries");
    assert_false(webhook_state_from_name(slice_str("enable"), &s));
    assert_false(webhook_state_from_name(slice_str(""), &s));
}

static void test_setting_a_part_of_itself(void **state) {
    (void)state;
    struct webhook *w = example();
    webhook_set_text(&w->uri, slice_of(w->uri + 8, 7));
    assert_string_equal(w->uri, "example");
    webhook_free(&w);
}

/* ---- the table ---- */

#define ROUTE ((struct route){.room = 9})
#define MINE  7

static int setup(void **state) {
    struct world *w = mem_zalloc(sizeof *w);
    w->quiet = true;
    world_open(w);
    *state = w;
    return 0;
}

static int teardown(void **state) {
    struct world *w = *state;
    world_close(w);
    free(w);
    return 0;
}

static struct webhook *named(const char *id, uint64_t created_at_ms, const char *name) {
    struct webhook *w = example();
    w->project = MINE;
    snprintf(w->id, sizeof w->id, "%s", id);
    w->created_at_ms = created_at_ms;
    webhook_set_text(&w->name, slice_str(name));
    return w;
}

static const char *shown(const struct registry *r, const char *id) {
    const struct webhook *w = registry_get(r, MINE, slice_str(id));
    return w == NULL ? NULL : w->name;
}

static const char *latest(const struct registry *r, const char *id) {
    const struct webhook *w = registry_latest(r, MINE, slice_str(id));
    return w == NULL ? NULL : w->name;
}

static const struct webhook *first(const struct registry *r) {
    return registry_after(r, MINE, 0, slice_str(""));
}

static void expect_loaded(struct world *w, const struct registry *live) {
    struct registry *loaded = registry_new(w->engine);
    char error[200] = "";
    if (registry_load(loaded, error, sizeof error) != 0) fail_msg("%s", error);
    const struct webhook *a;
    size_t count = 0;
    assert_int_equal(registry_count_all(live), registry_count_all(loaded));
    for (; (a = registry_at(live, count)) != NULL; count++) {
        const struct webhook *b = registry_at(loaded, count);
        assert_non_null(b);
        expect_same(a, b);
    }
    assert_null(registry_at(loaded, count));
    registry_free(&loaded);
    store_end_reads(w->store);
}

static void test_changes_show_when_they_are_durable(void **state) {
    struct world *w = *state;
    struct registry *r = registry_new(w->engine);
    registry_put(r, w->time, ROUTE, named(ID, 1, "one"));
    assert_null(shown(r, ID));
    assert_string_equal(latest(r, ID), "one");
    assert_int_equal(registry_count(r, MINE), 1);
    assert_int_equal(registry_count(r, MINE + 1), 0);
    assert_null(first(r));
    registry_put(r, w->time, ROUTE, named(ID, 1, "two"));
    assert_string_equal(latest(r, ID), "two");
    world_turn(w);
    registry_refresh(r, ID);
    assert_string_equal(shown(r, ID), "one");
    registry_refresh(r, ID);
    assert_string_equal(shown(r, ID), "two");
    expect_loaded(w, r);

    /* A refresh without a change does nothing. */
    registry_refresh(r, ID);
    registry_refresh(r, "there is none");
    assert_string_equal(shown(r, ID), "two");

    registry_put(r, w->time, ROUTE, named(ID, 1, "three"));
    registry_delete(r, w->time, ROUTE, ID);
    assert_string_equal(shown(r, ID), "two");
    assert_null(latest(r, ID));
    world_turn(w);
    registry_refresh(r, ID);
    assert_string_equal(shown(r, ID), "three");
    assert_null(latest(r, ID));
    registry_refresh(r, ID);
    assert_null(shown(r, ID));
    assert_int_equal(registry_count(r, MINE), 0);
    expect_loaded(w, r);
    registry_put(r, w->time, ROUTE, named(ID, 1, "lost")); /* freed with the table */
    registry_free(&r);
}

static void test_the_order(void **state) {
    struct world *w = *state;
    struct registry *r = registry_new(w->engine);
    static const struct {
        const char *letter;
        uint64_t created_at_ms;
    } made[] = {{"m", 5}, {"z", 1}, {"a", 9}, {"b", 5}, {"y", 5}, {"c", 2}};
    static const char order[] = "zcbmya";
    char id[WEBHOOK_ID_BYTES + 1] = ID;
    for (size_t i = 0; i < 6; i++) {
        id[0] = made[i].letter[0];
        registry_put(r, w->time, ROUTE, named(id, made[i].created_at_ms, made[i].letter));
        world_turn(w);
        registry_refresh(r, id);
    }
    const struct webhook *at = NULL;
    for (size_t i = 0; i < 6; i++) {
        at = at == NULL ? first(r) : registry_after(r, MINE, at->created_at_ms, slice_str(at->id));
        assert_non_null(at);
        assert_int_equal(at->id[0], order[i]);
    }
    assert_null(registry_after(r, MINE, at->created_at_ms, slice_str(at->id)));
    expect_loaded(w, r);

    /* After a place where there is none any more. */
    id[0] = 'b';
    registry_delete(r, w->time, ROUTE, id);
    world_turn(w);
    registry_refresh(r, id);
    assert_int_equal(registry_after(r, MINE, 5, slice_str(id))->id[0], 'm');
    assert_int_equal(registry_after(r, MINE, 5, slice_str(""))->id[0], 'm');
    assert_int_equal(registry_after(r, MINE, 5, slice_str("zz"))->id[0], 'a');
    assert_null(registry_after(r, MINE, 9, slice_str("zz")));
    registry_free(&r);
}

/* Who asks for another project finds nothing, at whatever place; an order that was made for one
 * project does not run on into the next. */
static void test_projects(void **state) {
    struct world *w = *state;
    struct registry *r = registry_new(w->engine);
    char id[WEBHOOK_ID_BYTES + 1] = ID;
    for (uint32_t i = 0; i < 6; i++) {
        id[0] = (char)('a' + i);
        struct webhook *made = named(id, 10 - i, "x");
        made->project = 1 + i % 3;
        registry_put(r, w->time, ROUTE, made);
        world_turn(w);
        registry_refresh(r, id);
    }
    assert_int_equal(registry_count_all(r), 6);
    for (uint32_t project = 1; project <= 3; project++) {
        const struct webhook *late = registry_after(r, project, 0, slice_str(""));
        const struct webhook *early =
            registry_after(r, project, late->created_at_ms, slice_str(late->id));
        assert_int_equal(registry_count(r, project), 2);
        assert_int_equal(late->id[0], 'a' + 2 + project);
        assert_int_equal(early->id[0], 'a' + project - 1);
        assert_null(registry_after(r, project, early->created_at_ms, slice_str(early->id)));
        for (uint32_t other = 0; other <= 4; other++) {
            bool mine = other == project;
            assert_ptr_equal(registry_get(r, other, slice_str(late->id)), mine ? late : NULL);
            assert_ptr_equal(registry_latest(r, other, slice_str(late->id)), mine ? late : NULL);
        }
    }
    assert_null(registry_after(r, 0, 0, slice_str("")));
    assert_null(registry_after(r, 4, 0, slice_str("")));
    expect_loaded(w, r);
    registry_free(&r);
}

static void test_a_stored_one_that_cannot_be_read(void **state) {
    struct world *w = *state;
    char error[200] = "";
    struct command c = {
        .kind = COMMAND_CONFIG_PUT,
        .u.config = {.key = slice_str(WEBHOOK_CONFIG_PREFIX ID), .value = slice_str("{}")}};
    world_run(w, &c);
    struct registry *r = registry_new(w->engine);
    assert_int_equal(registry_load(r, error, sizeof error), ERR_STORE);
    assert_non_null(strstr(error, ID));
    registry_free(&r);
    store_end_reads(w->store);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_stored_form),
        cmocka_unit_test(test_the_largest),
        cmocka_unit_test(test_stored_forms_of_other_versions),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_setting_a_part_of_itself),
        cmocka_unit_test_setup_teardown(test_changes_show_when_they_are_durable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_projects, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_stored_one_that_cannot_be_read, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
