/* A subscription's policy as JSON: what is read, what is shown, and what is refused with its place.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <stdio.h>

#include "broker/fields/policy.h"
#include "broker/fields/put.h"

#define DEFAULTS                                                                                   \
    "\"lease_ms\":30000,\"max_hold_ms\":43200000,\"max_age_ms\":0,\"max_fails\":20,"               \
    "\"backoff\":{\"min_ms\":1000,\"max_ms\":600000,\"factor\":2,\"jitter\":0.1},"                 \
    "\"rate\":0,\"order\":\"none\",\"lag\":\"block\""

struct world {
    struct arena arena;
    struct buf out;
};

static int make(void **state) {
    static struct world w;
    arena_init(&w.arena);
    buf_init(&w.out, 64 * KIB);
    *state = &w;
    return 0;
}

static int drop(void **state) {
    struct world *w = *state;
    arena_free(&w->arena);
    buf_free(&w->out);
    return 0;
}

static struct policy_request read_ok(struct world *w, const char *json) {
    struct policy_request r;
    struct refusal f;
    if (!policy_read_text(slice_str(json), &w->arena, &r, &f)) fail_msg("%s: %s", json, f.message);
    return r;
}

/* The policy's members in braces. */
static const char *shown(struct world *w, const struct policy *p) {
    buf_clear(&w->out);
    buf_append_byte(&w->out, '{');
    policy_put(&w->out, p);
    put_close(&w->out);
    buf_append_byte(&w->out, '\0');
    assert_false(w->out.overflow);
    return (const char *)w->out.data;
}

static void expect_shown(struct world *w, const char *json, const char *want) {
    struct policy_request r = read_ok(w, json);
    assert_string_equal(shown(w, &r.policy), want);
}

static void test_defaults(void **state) {
    expect_shown(*state, "", "{\"filter\":{}," DEFAULTS "}");
    expect_shown(*state, "{}", "{\"filter\":{}," DEFAULTS "}");
    expect_shown(*state, " { } ", "{\"filter\":{}," DEFAULTS "}");
    expect_shown(*state, "{" DEFAULTS "}", "{\"filter\":{}," DEFAULTS "}");
}

static void test_every_field_comes_back(void **state) {
    static const char *const texts[] = {
        "{\"filter\":{\"types\":[\"batch.*\"],\"user_metadata\":{\"tier\":0.1}},\"lease_ms\":100,"
        "\"max_hold_ms\":604800000,\"max_age_ms\":31622400000,\"max_fails\":0,"
        "\"backoff\":{\"list_ms\":[0,1000,86400000],\"jitter\":1},"
        "\"rate\":1000000,\"order\":\"key\",\"lag\":\"expire\"}",
        "{\"filter\":{},\"lease_ms\":43200000,\"max_hold_ms\":43200000,\"max_age_ms\":1,"
        "\"max_fails\":1000000,"
        "\"backoff\":{\"min_ms\":0,\"max_ms\":0,\"factor\":1.505,\"jitter\":0},"
        "\"rate\":1,\"order\":{\"key\":\"user_metadata.customer\"},\"lag\":\"block\"}",
        "{\"filter\":{},\"lease_ms\":100,\"max_hold_ms\":100,\"max_age_ms\":0,\"max_fails\":3,"
        "\"backoff\":{\"min_ms\":5,\"max_ms\":86400000,\"factor\":100,\"jitter\":0.001},"
        "\"rate\":0,\"order\":{\"key\":\"user_metadata./job/\\\"kind\\\"\"},\"lag\":\"block\"}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        expect_shown(*state, texts[i], texts[i]);
    }
}

static void test_values_reach_the_engine(void **state) {
    struct policy p = read_ok(*state,
                              "{\"backoff\":{\"list_ms\":[7,9],\"jitter\":0.25},"
                              "\"order\":{\"key\":\"user_metadata.a.b\"},\"rate\":5,"
                              "\"lag\":\"expire\",\"max_age_ms\":60000}")
                          .policy;
    assert_int_equal(p.backoff_list_count, 2);
    assert_int_equal(p.backoff_list_ms[0], 7);
    assert_int_equal(p.backoff_list_ms[1], 9);
    assert_int_equal(p.backoff_jitter_permille, 250);
    assert_true(p.ordered && slice_eq_str(p.order_key, "a.b"));
    assert_int_equal(p.rate_per_s, 5);
    assert_int_equal(p.lag, LAG_EXPIRE);
    assert_int_equal(p.max_age_ms, 60000);
    p = read_ok(*state, "{\"order\":\"key\"}").policy;
    assert_true(p.ordered && p.order_key.len == 0);
}

/* The filter is the sender's text: numbers as they were written, a name found whatever escapes it
 * has, and a field of that name elsewhere is not taken for it. */
static void test_filter_is_taken_as_it_was_sent(void **state) {
    struct policy p = read_ok(*state,
                              "{\"order\":{\"key\":\"user_metadata.filter\"},\n"
                              " \"f\\u0069lter\" : { \"user_metadata\" : {\"n\": 1.10} } }")
                          .policy;
    assert_true(slice_eq_str(p.filter, "{ \"user_metadata\" : {\"n\": 1.10} }"));
}

static void test_start(void **state) {
    struct policy_request r = read_ok(*state, "{}");
    assert_true(r.start == START_NEW && r.start_value == 0);
    r = read_ok(*state, "{\"start\":\"new\"}");
    assert_true(r.start == START_NEW && r.start_value == 0);
    r = read_ok(*state, "{\"start\":\"first\"}");
    assert_true(r.start == START_FIRST);
    r = read_ok(*state, "{\"start\":{\"seq\":17}}");
    assert_true(r.start == START_SEQ && r.start_value == 17);
    r = read_ok(*state, "{\"start\":{\"time\":\"1970-01-01T00:00:02.5Z\"}}");
    assert_true(r.start == START_TIME && r.start_value == 2500);
    r = read_ok(*state, "{\"start\":{\"time_ms\":2500}}");
    assert_true(r.start == START_TIME && r.start_value == 2500);
}

/* ---- PATCH ---- */

static struct policy changed(struct world *w, const struct policy *from, const char *json) {
    struct policy p = *from;
    struct fields o;
    struct refusal f;
    assert_true(fields_parse(slice_str(json), &o, &f));
    if (!policy_read_fields(&o, &w->arena, &p, &f)) fail_msg("%s: %s", json, f.message);
    fields_free(&o);
    return p;
}

static void test_absent_fields_stay(void **state) {
    struct world *w = *state;
    struct policy old = read_ok(w,
                                "{\"filter\":{\"types\":[\"a\"]},\"lease_ms\":500,\"rate\":9,"
                                "\"backoff\":{\"min_ms\":1,\"max_ms\":2,\"jitter\":0},"
                                "\"order\":{\"key\":\"user_metadata.k\"},\"lag\":\"expire\"}")
                            .policy;
    struct policy p = changed(w, &old, "{\"max_fails\":7}");
    char was[512];
    snprintf(was, sizeof was, "%s", shown(w, &old));
    assert_string_not_equal(shown(w, &p), was);
    p.max_fails = old.max_fails;
    assert_string_equal(shown(w, &p), was);
    p = changed(w, &old, "{}");
    assert_string_equal(shown(w, &p), was);
}

static void test_filter_backoff_and_order_change_as_a_whole(void **state) {
    struct world *w = *state;
    struct policy old = read_ok(w,
                                "{\"filter\":{\"types\":[\"a\"]},"
                                "\"backoff\":{\"min_ms\":1,\"max_ms\":2,\"jitter\":0},"
                                "\"order\":{\"key\":\"user_metadata.k\"}}")
                            .policy;
    struct policy p = changed(w, &old, "{\"filter\":{\"sources\":[\"s\"]}}");
    assert_true(slice_eq_str(p.filter, "{\"sources\":[\"s\"]}"));
    p = changed(w, &old, "{\"backoff\":{\"max_ms\":5000}}");
    assert_int_equal(p.backoff_min_ms, POLICY_BACKOFF_MIN_MS_DEFAULT);
    assert_int_equal(p.backoff_max_ms, 5000);
    assert_int_equal(p.backoff_jitter_permille, POLICY_BACKOFF_JITTER_PERMILLE_DEFAULT);
    struct policy list = changed(w, &old, "{\"backoff\":{\"list_ms\":[3]}}");
    assert_int_equal(list.backoff_list_count, 1);
    p = changed(w, &list, "{\"backoff\":{}}");
    assert_int_equal(p.backoff_list_count, 0);
    assert_int_equal(p.backoff_max_ms, POLICY_BACKOFF_MAX_MS_DEFAULT);
    p = changed(w, &old, "{\"order\":\"key\"}");
    assert_true(p.ordered && p.order_key.len == 0);
    p = changed(w, &old, "{\"order\":\"none\"}");
    assert_true(!p.ordered && p.order_key.len == 0);
}

/* What a change leaves must fit together as well. */
static void test_a_change_is_held_against_what_stays(void **state) {
    struct world *w = *state;
    struct policy p = read_ok(w, "{\"lease_ms\":1000,\"max_hold_ms\":2000}").policy;
    struct fields o;
    struct refusal f;
    assert_true(fields_parse(slice_str("{\"lease_ms\":2001}"), &o, &f));
    assert_false(policy_read_fields(&o, &w->arena, &p, &f));
    assert_int_equal(f.err, ERR_BAD_POLICY);
    fields_free(&o);
}

/* ---- what is refused ---- */

static void test_refusals(void **state) {
    static const struct {
        const char *json;
        enum err err;
        const char *place;
    } rows[] = {
        /* not a policy at all */
        {"{", ERR_INVALID_REQUEST, "line 1, column"},
        {"{\n \"rate\":1,\n}", ERR_INVALID_REQUEST, "line 3, column"},
        {"[]", ERR_INVALID_REQUEST, "must be a JSON object"},
        {"{\"rate\":1,\"rate\":1}", ERR_INVALID_REQUEST, "line 1"},
        {"{\"leese_ms\":1}", ERR_PARAMETER_UNKNOWN, "\"leese_ms\""},
        {"{\"name\":\"a\"}", ERR_PARAMETER_UNKNOWN, "\"name\""},
        {"{\"backoff\":{\"min\":1}}", ERR_PARAMETER_UNKNOWN, "\"backoff.min\""},
        {"{\"order\":{\"by\":1}}", ERR_PARAMETER_UNKNOWN, "\"order.by\""},
        {"{\"start\":{\"sek\":1}}", ERR_PARAMETER_UNKNOWN, "\"start.sek\""},
        /* another type */
        {"{\"lease_ms\":\"5s\"}", ERR_INVALID_REQUEST, "lease_ms must"},
        {"{\"lease_ms\":1000.5}", ERR_INVALID_REQUEST, "lease_ms must"},
        {"{\"lease_ms\":null}", ERR_INVALID_REQUEST, "lease_ms must"},
        {"{\"max_hold_ms\":[]}", ERR_INVALID_REQUEST, "max_hold_ms must"},
        {"{\"max_age_ms\":true}", ERR_INVALID_REQUEST, "max_age_ms must"},
        {"{\"max_fails\":{}}", ERR_INVALID_REQUEST, "max_fails must"},
        {"{\"rate\":\"1\"}", ERR_INVALID_REQUEST, "rate must"},
        {"{\"backoff\":5}", ERR_INVALID_REQUEST, "backoff must be an object"},
        {"{\"backoff\":{\"factor\":\"2\"}}", ERR_INVALID_REQUEST, "backoff.factor must"},
        {"{\"backoff\":{\"list_ms\":5}}", ERR_INVALID_REQUEST, "backoff.list_ms must"},
        {"{\"backoff\":{\"list_ms\":[1,\"2\"]}}", ERR_INVALID_REQUEST, "backoff.list_ms[1]"},
        {"{\"order\":5}", ERR_INVALID_REQUEST, "order must"},
        {"{\"order\":\"keys\"}", ERR_INVALID_REQUEST, "order must"},
        {"{\"order\":{}}", ERR_INVALID_REQUEST, "order.key is required"},
        {"{\"order\":{\"key\":1}}", ERR_INVALID_REQUEST, "order.key must"},
        {"{\"lag\":\"wait\"}", ERR_INVALID_REQUEST, "lag must"},
        {"{\"lag\":1}", ERR_INVALID_REQUEST, "lag must"},
        {"{\"start\":\"last\"}", ERR_INVALID_REQUEST, "start must"},
        {"{\"start\":5}", ERR_INVALID_REQUEST, "start must"},
        {"{\"start\":{}}", ERR_INVALID_REQUEST, "start must"},
        {"{\"start\":{\"seq\":0}}", ERR_INVALID_REQUEST, "start.seq must"},
        {"{\"start\":{\"time\":\"noon\"}}", ERR_INVALID_REQUEST, "start.time must"},
        {"{\"start\":{\"time_ms\":-1}}", ERR_INVALID_REQUEST, "start.time_ms must"},
        {"{\"start\":{\"seq\":1,\"time_ms\":1}}", ERR_INVALID_REQUEST, "start must"},
        /* out of bounds */
        {"{\"lease_ms\":99}", ERR_BAD_POLICY, "lease_ms must"},
        {"{\"lease_ms\":43200001}", ERR_BAD_POLICY, "lease_ms must"},
        {"{\"lease_ms\":-1}", ERR_BAD_POLICY, "lease_ms must"},
        {"{\"max_hold_ms\":604800001}", ERR_BAD_POLICY, "max_hold_ms must"},
        {"{\"max_age_ms\":31622400001}", ERR_BAD_POLICY, "max_age_ms must"},
        {"{\"max_fails\":1000001}", ERR_BAD_POLICY, "max_fails must"},
        {"{\"max_fails\":4294967296}", ERR_BAD_POLICY, "max_fails must"},
        {"{\"rate\":1000001}", ERR_BAD_POLICY, "rate must"},
        {"{\"backoff\":{\"min_ms\":-1}}", ERR_BAD_POLICY, "backoff.min_ms must"},
        {"{\"backoff\":{\"max_ms\":86400001}}", ERR_BAD_POLICY, "backoff.max_ms must"},
        {"{\"backoff\":{\"factor\":0.999}}", ERR_BAD_POLICY, "backoff.factor must"},
        {"{\"backoff\":{\"factor\":101}}", ERR_BAD_POLICY, "backoff.factor must"},
        {"{\"backoff\":{\"jitter\":1.001}}", ERR_BAD_POLICY, "backoff.jitter must"},
        {"{\"backoff\":{\"list_ms\":[]}}", ERR_BAD_POLICY, "backoff.list_ms must have 1 to 32"},
        {"{\"backoff\":{\"list_ms\":[1,86400001]}}", ERR_BAD_POLICY, "backoff.list_ms[1]"},
        {"{\"backoff\":{\"list_ms\":[-1]}}", ERR_BAD_POLICY, "backoff.list_ms[0]"},
        {"{\"order\":{\"key\":\"customer\"}}", ERR_BAD_POLICY, "order.key must"},
        {"{\"order\":{\"key\":\"user_metadata.\"}}", ERR_BAD_POLICY, "order.key must"},
        /* contradictions */
        {"{\"max_hold_ms\":29999}", ERR_BAD_POLICY, "max_hold_ms"},
        {"{\"lease_ms\":2000,\"max_hold_ms\":1999}", ERR_BAD_POLICY, "max_hold_ms"},
        {"{\"backoff\":{\"min_ms\":10,\"max_ms\":9}}", ERR_BAD_POLICY, "backoff"},
        {"{\"backoff\":{\"list_ms\":[1],\"factor\":2}}", ERR_BAD_POLICY, "list_ms and factor"},
        {"{\"backoff\":{\"list_ms\":[1],\"min_ms\":2}}", ERR_BAD_POLICY, "list_ms and min_ms"},
        {"{\"backoff\":{\"list_ms\":[1],\"max_ms\":2}}", ERR_BAD_POLICY, "list_ms and max_ms"},
        /* filters */
        {"{\"filter\":[]}", ERR_BAD_FILTER, "filter"},
        {"{\"filter\":null}", ERR_BAD_FILTER, "filter"},
        {"{\"filter\":{\"typ\":[\"a\"]}}", ERR_BAD_FILTER, "typ"},
        {"{\"filter\":{\"types\":\"a\"}}", ERR_BAD_FILTER, "filter.types"},
        {"{\"filter\":{\"types\":[\"a\",\"b\",5]}}", ERR_BAD_FILTER, "filter.types[2]"},
    };
    struct world *w = *state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct policy_request r;
        struct refusal f = {.err = ERR_OK};
        if (policy_read_text(slice_str(rows[i].json), &w->arena, &r, &f)) {
            fail_msg("%s was taken", rows[i].json);
        }
        if (f.err != rows[i].err || strstr(f.message, rows[i].place) == NULL) {
            fail_msg("%s: %s: %s", rows[i].json, err_info((int)f.err).word, f.message);
        }
    }
}

/* Appends `count` times `piece` between `before` and `after`. */
static struct slice repeated(struct buf *b, const char *before, const char *piece, size_t count,
                             const char *after) {
    buf_clear(b);
    buf_append_str(b, before);
    for (size_t i = 0; i < count; i++) buf_append_str(b, piece);
    buf_append_str(b, after);
    assert_false(b->overflow);
    return buf_slice(b);
}

/* A filter of `depth` things within each other. */
static void nested(struct buf *b, const char *open, const char *inner, const char *close,
                   size_t depth) {
    buf_clear(b);
    buf_append_str(b, "{\"filter\":");
    for (size_t i = 0; i < depth; i++) buf_append_str(b, open);
    buf_append_str(b, inner);
    for (size_t i = 0; i < depth; i++) buf_append_str(b, close);
    buf_append_byte(b, '}');
    assert_false(b->overflow);
}

static void expect_text(struct world *w, struct slice json, enum err err) {
    struct policy_request r;
    struct refusal f = {.err = ERR_OK};
    bool ok = policy_read_text(json, &w->arena, &r, &f);
    if (ok != (err == ERR_OK) || f.err != err) fail_msg("%.80s: %s", json.data, f.message);
}

static void test_limits(void **state) {
    struct world *w = *state;
    struct buf *b = &w->out;
    expect_text(w, repeated(b, "{\"backoff\":{\"list_ms\":[1", ",1", 31, "]}}"), ERR_OK);
    expect_text(w, repeated(b, "{\"backoff\":{\"list_ms\":[1", ",1", 32, "]}}"), ERR_BAD_POLICY);
    expect_text(w, repeated(b, "{\"order\":{\"key\":\"user_metadata.", "k", 128, "\"}}"), ERR_OK);
    expect_text(w, repeated(b, "{\"order\":{\"key\":\"user_metadata.", "k", 129, "\"}}"),
                ERR_BAD_POLICY);
    expect_text(w, repeated(b, "{\"filter\":{\"subject_prefix\":\"", "s", 17 * KIB, "\"}}"),
                ERR_BAD_FILTER);
    nested(b, "{\"not\":", "{}", "}", 8);
    expect_text(w, buf_slice(b), ERR_OK);
    nested(b, "{\"not\":", "{}", "}", 9);
    expect_text(w, buf_slice(b), ERR_BAD_FILTER);
    nested(b, "[", "", "]", 100); /* more than json_walk takes */
    expect_text(w, buf_slice(b), ERR_INVALID_REQUEST);
    nested(b, "[", "", "]", 5000); /* more than jansson takes */
    expect_text(w, buf_slice(b), ERR_INVALID_REQUEST);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_every_field_comes_back),
        cmocka_unit_test(test_values_reach_the_engine),
        cmocka_unit_test(test_filter_is_taken_as_it_was_sent),
        cmocka_unit_test(test_start),
        cmocka_unit_test(test_absent_fields_stay),
        cmocka_unit_test(test_filter_backoff_and_order_change_as_a_whole),
        cmocka_unit_test(test_a_change_is_held_against_what_stays),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, make, drop);
}
