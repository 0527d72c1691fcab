/* The index against asking every filter, and filters against another way to work them out: random
 * filters are made together with the set of events that they must match. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/check.h"
#include "base/glob.h"
#include "base/prng.h"
#include "broker/engine/filter.h"

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

static struct filter *compile(struct slice json) {
    struct filter *f = NULL;
    char why[400] = "";
    if (filter_compile(json, &f, why, sizeof why) == ERR_OK) return f;
    fail_msg("%.*s: %s", SLICE_ARG(json), why);
    return NULL;
}

static struct event event_of(const char *type, const char *source, const char *subject,
                             const char *metadata) {
    return (struct event){.type = slice_str(type),
                          .source = slice_str(source),
                          .subject = slice_str(subject),
                          .metadata = slice_str(metadata)};
}

/* An owner that counts how often it was offered for the event that is asked about. */
struct owner {
    struct filter *filter;
    size_t offered;
    bool entered;
    uint64_t expected; /* the random test's: a bit per event */
};

static void on_candidate(void *ctx, void *owner) {
    size_t *total = ctx;
    ((struct owner *)owner)->offered++;
    ++*total;
}

static size_t ask(struct filter_index *x, const struct event *event) {
    size_t total = 0;
    struct filter_subject s;
    filter_subject_init(&s, event);
    filter_index_candidates(x, &s, on_candidate, &total);
    return total;
}

static bool offered(const char *json, const struct event *event) {
    struct filter_index *x = filter_index_new();
    struct owner owner = {.filter = compile(slice_str(json))};
    filter_index_add(x, owner.filter, &owner);
    size_t count = ask(x, event);
    assert_true(count <= 1);
    filter_index_remove(x, owner.filter, &owner);
    assert_int_equal(ask(x, event), 0);
    filter_index_free(&x);
    assert_null(x);
    filter_free(&owner.filter);
    return count == 1;
}

struct many {
    struct filter_index *x;
    struct owner *owners;
    size_t count;
};

/* fmt has one %zu: the number of the filter. */
static struct many many_of(size_t count, const char *before, const char *after) {
    struct many m = {filter_index_new(), mem_zalloc(count * sizeof *m.owners), count};
    for (size_t i = 0; i < count; i++) {
        char json[200];
        int len = snprintf(json, sizeof json, "%s%zu%s", before, i, after);
        m.owners[i].filter = compile(slice_of(json, (size_t)len));
        filter_index_add(m.x, m.owners[i].filter, &m.owners[i]);
    }
    return m;
}

static void many_free(struct many *m) {
    filter_index_free(&m->x);
    for (size_t i = 0; i < m->count; i++) filter_free(&m->owners[i].filter);
    free(m->owners);
}

/* ---- what a filter is entered under ---- */

#define EVENT_METADATA                                                                             \
    "{\"g\":\"x\",\"n\":1.0,\"z\":null,\"\\u0065\":\"\\u0078\",\"d\":{\"k\":1},\"a\":[1]}"

static void test_what_is_offered(void **state) {
    (void)state;
    static const struct {
        const char *filter;
        bool expected;
    } rows[] = {
        {"{}", true},
        /* Values of user_metadata: also escaped, also by a pointer of one token. */
        {"{\"user_metadata\":{\"g\":\"x\"}}", true},
        {"{\"user_metadata\":{\"g\":\"y\"}}", false},
        {"{\"user_metadata\":{\"h\":\"x\"}}", false},
        {"{\"user_metadata\":{\"n\":1}}", true},
        {"{\"user_metadata\":{\"n\":\"1\"}}", false},
        {"{\"user_metadata\":{\"z\":null}}", true},
        {"{\"user_metadata\":{\"z\":false}}", false},
        {"{\"user_metadata\":{\"e\":\"x\"}}", true},
        {"{\"user_metadata\":{\"/g\":\"x\"}}", true},
        {"{\"user_metadata\":{\"/g\":\"y\"}}", false},
        {"{\"user_metadata\":{\"g\":{\"in\":[\"w\",\"x\",\"x\"]}}}", true},
        {"{\"user_metadata\":{\"g\":{\"in\":[\"w\",\"v\"]}}}", false},
        {"{\"user_metadata\":{\"g\":{\"exists\":false,\"in\":[\"w\"]}}}", false},
        /* What names no value, or one inside another, is asked. */
        {"{\"user_metadata\":{\"g\":{\"prefix\":\"y\"}}}", true},
        {"{\"user_metadata\":{\"h\":{\"exists\":true}}}", true},
        {"{\"user_metadata\":{\"h\":{\"not\":\"x\"}}}", true},
        {"{\"user_metadata\":{\"/d/k\":2}}", true},
        {"{\"not\":{\"user_metadata\":{\"h\":\"x\"}}}", true},
        {"{\"subject_prefix\":\"jobs/\"}", true},
        {"{\"subject_prefix\":\"jobs/1\"}", true},
        {"{\"subject_prefix\":\"jobs/2\"}", false},
        {"{\"subject_prefix\":\"jobs/11\"}", false},
        {"{\"types\":[\"a.b.c\"]}", true},
        {"{\"types\":[\"a.b\"]}", false},
        {"{\"types\":[\"a.b.c.d\"]}", false},
        {"{\"types\":[\"a.*\"]}", true},
        {"{\"types\":[\"a.b.*\"]}", true},
        {"{\"types\":[\"a.b*\"]}", true},
        {"{\"types\":[\"a.x*\"]}", true}, /* under "a": the rest is filter_match's */
        {"{\"types\":[\"b.*\"]}", false},
        {"{\"types\":[\"a.b.c.*\"]}", false},
        {"{\"types\":[\"x.*.c\",\"y\"]}", false},
        {"{\"types\":[\"x.*\",\"a.*.d\"]}", true},
        {"{\"types\":[\"x.*\",\"*.x\"]}", true}, /* "*.x" begins with nothing */
        {"{\"types\":[\"x*\"]}", true},
        {"{\"sources\":[\"r\",\"s\"]}", true},
        {"{\"sources\":[\"r\",\"q\"]}", false},
        /* all: any part will do; any: each part has its own. */
        {"{\"all\":[{},{\"all\":[{\"sources\":[\"r\"]}]}]}", false},
        {"{\"any\":[{\"sources\":[\"r\"]},{\"types\":[\"b.*\"]}]}", false},
        {"{\"any\":[{\"sources\":[\"r\"]},{\"types\":[\"a.*\"]},{\"sources\":[\"s\"]}]}", true},
        {"{\"any\":[{\"sources\":[\"r\"]},{}]}", true},
        {"{\"any\":[{\"sources\":[\"r\"]},{}],\"types\":[\"b\"]}", false},
    };
    struct event e = event_of("a.b.c", "s", "jobs/1", EVENT_METADATA);
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (offered(rows[i].filter, &e) != rows[i].expected) fail_msg("%s", rows[i].filter);
    }
    e = event_of("", "", "", "");
    assert_true(offered("{\"types\":[\"*\"]}", &e));
    assert_false(offered("{\"types\":[\"a\"]}", &e));
    e = event_of(".a..b", "", "", "not JSON");
    assert_true(offered("{\"types\":[\".*\"]}", &e));
    assert_true(offered("{\"types\":[\".a..*\"]}", &e));
    assert_false(offered("{\"types\":[\"a.*\"]}", &e));
    assert_false(offered("{\"user_metadata\":{\"a\":1}}", &e));
}

/* Whatever else they ask, filters with an endpoint are offered only events that have it. */
static void test_endpoints_are_what_is_rare(void **state) {
    (void)state;
    static const struct {
        const char *filter;
        bool without, with;
    } rows[] = {
        {"{\"endpoint\":0}", false, true},
        {"{\"endpoint\":1}", false, true},
        {"{\"endpoint\":2}", false, false},
        {"{\"types\":[\"t\"],\"endpoint\":0}", false, true},
        {"{\"types\":[\"u\"],\"endpoint\":0}", false, true}, /* the rest is filter_match's */
        {"{\"types\":[\"t\"],\"sources\":[\"s\"],\"all\":[{\"endpoint\":0}]}", false, true},
        {"{\"types\":[\"t\"],\"any\":[{\"endpoint\":0},{\"endpoint\":2}]}", false, true},
        {"{\"any\":[{\"endpoint\":2},{\"types\":[\"u\"]}]}", false, false},
        {"{\"any\":[{\"endpoint\":2},{\"types\":[\"t\"]}]}", true, true},
        {"{\"not\":{\"endpoint\":0}}", true, true},
        {"{\"types\":[\"t\"],\"not\":{\"endpoint\":0}}", true, true},
        {"{\"types\":[\"u\"],\"not\":{\"endpoint\":0}}", false, false},
    };
    struct event without = event_of("t", "s", "", ""), with = without;
    with.endpoints = slice_str("https://a.example/\nhttps://b.example/");
    for (size_t i = 0; i < COUNT(rows); i++) {
        bool ok = offered(rows[i].filter, &without) == rows[i].without &&
                  offered(rows[i].filter, &with) == rows[i].with;
        if (!ok) fail_msg("%s", rows[i].filter);
    }
    /* However many others are there, and however few elsewhere. */
    struct many m = many_of(1000, "{\"endpoint\":0,\"types\":[\"t", "\"]}");
    struct owner one = {.filter = compile(slice_str("{\"endpoint\":0,\"types\":[\"t\"]}"))};
    filter_index_add(m.x, one.filter, &one);
    assert_int_equal(ask(m.x, &without), 0);
    assert_int_equal(ask(m.x, &with), 1001);
    many_free(&m);
    filter_free(&one.filter);
}

static void test_members_beyond_those_noted_are_looked_up(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 16);
    for (size_t i = 0; i < FILTER_SUBJECT_MEMBERS + 10; i++) {
        buf_printf(&b, "%c\"m%zu\":%zu", i == 0 ? '{' : ',', i, i);
    }
    buf_append_str(&b, "}");
    buf_append_byte(&b, '\0');
    struct event e = event_of("", "", "", (const char *)b.data);
    assert_true(offered("{\"user_metadata\":{\"m0\":0}}", &e));
    assert_true(offered("{\"user_metadata\":{\"m64\":64}}", &e));
    assert_true(offered("{\"user_metadata\":{\"m73\":73}}", &e));
    assert_false(offered("{\"user_metadata\":{\"m73\":72}}", &e));
    buf_free(&b);
}

static void test_user_metadata_is_not_parsed_for_nobody(void **state) {
    (void)state;
    struct filter_index *x = filter_index_new();
    struct owner owner = {.filter = compile(slice_str("{\"types\":[\"a.*\"]}"))};
    filter_index_add(x, owner.filter, &owner);
    struct event e = event_of("a.b", "", "", "{\"a\":1}");
    struct filter_subject s;
    filter_subject_init(&s, &e);
    size_t total = 0;
    filter_index_candidates(x, &s, on_candidate, &total);
    assert_int_equal(total, 1);
    assert_false(s.parsed);
    /* Nor for one who is gone. */
    struct owner gone = {.filter = compile(slice_str("{\"user_metadata\":{\"a\":2}}"))};
    filter_index_add(x, gone.filter, &gone);
    filter_index_remove(x, gone.filter, &gone);
    filter_index_candidates(x, &s, on_candidate, &total);
    assert_int_equal(total, 2);
    assert_false(s.parsed);
    filter_index_free(&x);
    filter_free(&gone.filter);
    filter_free(&owner.filter);
}

/* ---- many ---- */

static void test_ten_thousand_that_do_not_match_are_not_asked(void **state) {
    (void)state;
    static const struct {
        const char *before, *after;
    } rows[] = {
        {"{\"user_metadata\":{\"priority\":\"high\",\"job_group\":\"g", "\"},\"types\":[\"b.*\"]}"},
        {"{\"user_metadata\":{\"all\":\"the same\",\"job_group\":\"g", "\"}}"},
        {"{\"user_metadata\":{\"priority\":{\"in\":[\"high\",\"low\"]}},\"types\":[\"t", ".*\"]}"},
        {"{\"types\":[\"b.*\"],\"sources\":[\"s\"],\"subject_prefix\":\"jobs/", "/\"}"},
        {"{\"any\":[{\"sources\":[\"n", "\"]},{\"types\":[\"x\"]}]}"},
        {"{\"endpoint\":1,\"types\":[\"b.*\"],\"sources\":[\"s", "\",\"s\"]}"},
        {"{\"types\":[\"c.*\",\"d", ".*\"],\"not\":{\"endpoint\":0}}"}, /* a webhook's */
    };
    struct event none = event_of("b.x", "s", "jobs/none",
                                 "{\"priority\":\"high\",\"job_group\":\"none\",\"more\":[1],"
                                 "\"all\":\"the same\"}");
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct many m = many_of(10000, rows[i].before, rows[i].after);
        /* The first one cannot know which of its parts the others share. */
        size_t asked = ask(m.x, &none);
        if (asked > 2) fail_msg("%s: %zu are asked", rows[i].before, asked);
        many_free(&m);
    }
    struct many m = many_of(10000, rows[0].before, rows[0].after);
    struct event one = event_of("b.x", "s", "", "{\"priority\":\"high\",\"job_group\":\"g4711\"}");
    assert_int_equal(ask(m.x, &one), 1);
    assert_int_equal(m.owners[4711].offered, 1);
    many_free(&m);
}

static void test_those_who_left_do_not_weigh(void **state) {
    (void)state;
    struct many m = many_of(100, "{\"sources\":[\"s\"],\"not\":{\"subject_prefix\":\"", "\"}}");
    for (size_t i = 0; i < m.count; i++) filter_index_remove(m.x, m.owners[i].filter, &m.owners[i]);
    struct owner one = {.filter = compile(slice_str("{\"types\":[\"t\"]}"))};
    struct owner two = {.filter = compile(slice_str("{\"types\":[\"t\"],\"sources\":[\"s\"]}"))};
    filter_index_add(m.x, one.filter, &one);
    filter_index_add(m.x, two.filter, &two);
    /* Nobody else is under the source any more, so that is where the second one is. */
    struct event e = event_of("t", "r", "", "");
    assert_int_equal(ask(m.x, &e), 1);
    assert_int_equal(one.offered, 1);
    e = event_of("t", "s", "", "");
    assert_int_equal(ask(m.x, &e), 2);
    many_free(&m);
    filter_free(&one.filter);
    filter_free(&two.filter);
}

static void test_a_type_is_no_source(void **state) {
    (void)state;
    struct filter_index *x = filter_index_new();
    struct owner one = {.filter = compile(slice_str("{\"types\":[\"t\"]}"))};
    struct owner two = {.filter = compile(slice_str("{\"sources\":[\"s\"]}"))};
    filter_index_add(x, one.filter, &one);
    filter_index_add(x, two.filter, &two);
    struct event e = event_of("s", "t", "", "");
    assert_int_equal(ask(x, &e), 0);
    e = event_of("t", "s", "", "");
    assert_int_equal(ask(x, &e), 2);
    filter_index_free(&x);
    filter_free(&one.filter);
    filter_free(&two.filter);
}

static void test_an_owner_is_offered_once(void **state) {
    (void)state;
    struct filter_index *x = filter_index_new();
    struct owner o = {0}, other = {0};
    struct filter *wide = compile(slice_str("{\"types\":[\"a.*\",\"a.b.*\",\"a.b\",\"a.b.c\"]}"));
    struct filter *all = compile(slice_str("{}"));
    filter_index_add(x, wide, &o);
    filter_index_add(x, all, &o);
    filter_index_add(x, all, &other);
    struct event e = event_of("a.b.c", "", "", "");
    assert_int_equal(ask(x, &e), 2);
    assert_int_equal(ask(x, &e), 2);
    assert_int_equal(o.offered, 2);

    filter_index_remove(x, all, &o);
    assert_int_equal(ask(x, &e), 2);
    filter_index_remove(x, wide, &o);
    assert_int_equal(ask(x, &e), 1);
    assert_int_equal(other.offered, 4);
    assert_int_equal(o.offered, 3);
    filter_index_remove(x, all, &other);
    assert_int_equal(ask(x, &e), 0);
    filter_index_free(&x);
    filter_index_free(&x);
    filter_free(&wide);
    filter_free(&all);
}

/* ---- random ---- */

#define EVENTS  48 /* of one round: a bit each */
#define FILTERS 120
#define ROUNDS  40

/* JSON texts of values; equal is a class: two texts of one class are the same value. */
static const struct {
    const char *json;
    int equal;
    const char *text; /* of a string */
} values[] = {
    {"\"v\"", 0, "v"}, {"\"\\u0076\"", 0, "v"}, {"\"vw\"", 1, "vw"}, {"\"\"", 2, ""},
    {"1", 3, NULL},    {"1.0", 3, NULL},        {"-1", 4, NULL},     {"0.5", 5, NULL},
    {"true", 6, NULL}, {"false", 7, NULL},      {"null", 8, NULL},   {"\"1\"", 9, "1"},
};
#define VALUES COUNT(values)
#define ABSENT VALUES /* and beyond: an array, which equals nothing */
#define ARRAY  (VALUES + 1)

static const char *const types[] = {"", "a", "a.b", "a.b.c", "a.bc", "b.c", ".a", "a..b", "ab"};
static const char *const globs[] = {"*",  "a",  "a.b",  "a.*", "a.b*",  "a.b.*", "b.*", "*.c", ".*",
                                    "a*", "ab", "a..*", "x.y", "a.*.c", "a.b.c", "*b*", "a.bc"};
static const char *const sources[] = {"", "s1", "s2", "s3"};
static const char *const subjects[] = {"", "j", "j/1", "j/12", "j/2", "k/1"};
static const char *const endpoints[] = {"", "", "", "u", "u\nv", "u\nv\nw"};
static const char *const prefixes[] = {"j", "j/", "j/1", "j/12", "k", "x/very/long/one"};
/* The names of filters and where events have them: p and q on top, k in o. */
static const char *const names[] = {"p", "/q", "/o/k"};

struct sample {
    size_t value[COUNT(names)]; /* index of values, ABSENT or ARRAY */
    char metadata[200];
    struct event event;
};

#define PICK(p, table) ((table)[prng_below((p), COUNT(table))])

static const char *value_json(size_t value) {
    return value == ARRAY ? "[\"v\"]" : values[value].json;
}

static void make_event(struct prng *p, struct sample *s) {
    struct buf b;
    buf_init(&b, sizeof s->metadata - 1);
    for (size_t n = 0; n < COUNT(names); n++) s->value[n] = prng_below(p, VALUES + 2);
    buf_append_str(&b, "{\"other\":7");
    if (s->value[0] != ABSENT) buf_printf(&b, ",\"p\":%s", value_json(s->value[0]));
    if (s->value[1] != ABSENT) buf_printf(&b, ", \"\\u0071\" : %s", value_json(s->value[1]));
    if (s->value[2] != ABSENT) buf_printf(&b, ",\"o\":{\"k\":%s}", value_json(s->value[2]));
    buf_append_str(&b, "}");
    assert_false(b.overflow);
    memcpy(s->metadata, b.data, b.len);
    s->metadata[b.len] = '\0';
    buf_free(&b);
    s->event = event_of(PICK(p, types), PICK(p, sources), PICK(p, subjects), s->metadata);
    s->event.endpoints = slice_str(PICK(p, endpoints));
}

struct maker {
    struct prng *p;
    struct buf *json;
    const struct sample *samples;
};

static bool same(size_t a, size_t b) {
    return a < VALUES && b < VALUES && values[a].equal == values[b].equal;
}

static bool has_prefix(size_t value, const char *prefix) {
    return value < VALUES && values[value].text != NULL &&
           strncmp(values[value].text, prefix, strlen(prefix)) == 0;
}

/* A condition on names[n]; returns the events for which it holds. */
static uint64_t make_condition(struct maker *m, size_t n, unsigned depth) {
    static const char *const beginnings[] = {"v", "vw", "1"};
    bool exists = prng_below(m->p, 2) == 0;
    size_t a = prng_below(m->p, VALUES), b = prng_below(m->p, VALUES);
    const char *beginning = PICK(m->p, beginnings);
    unsigned kind = (unsigned)prng_below(m->p, depth > 2 ? 4 : 5);
    uint64_t inverse = 0, bits = 0;
    switch (kind) {
    case 0:
        buf_printf(m->json, exists ? "%s" : "{\"equals\":%s}", value_json(a));
        b = a;
        break;
    case 1: buf_printf(m->json, "{\"in\":[%s,%s]}", value_json(a), value_json(b)); break;
    case 2: buf_printf(m->json, "{\"prefix\":\"%s\"}", beginning); break;
    case 3: buf_printf(m->json, "{\"exists\":%s}", exists ? "true" : "false"); break;
    case 4:
        buf_append_str(m->json, "{\"not\":");
        inverse = make_condition(m, n, depth + 1);
        buf_append_str(m->json, "}");
        break;
    }
    for (size_t i = 0; i < EVENTS; i++) {
        size_t value = m->samples[i].value[n];
        bool holds = (inverse >> i & 1) == 0;
        if (kind <= 1) holds = same(value, a) || same(value, b);
        if (kind == 2) holds = has_prefix(value, beginning);
        if (kind == 3) holds = exists == (value != ABSENT);
        if (holds) bits |= 1ULL << i;
    }
    return bits;
}

static uint64_t make_types(struct maker *m) {
    const char *one = PICK(m->p, globs), *two = PICK(m->p, globs);
    uint64_t bits = 0;
    buf_printf(m->json, "\"types\":[\"%s\",\"%s\"]", one, two);
    for (size_t i = 0; i < EVENTS; i++) {
        struct slice type = m->samples[i].event.type;
        bool holds = glob_match(slice_str(one), type) || glob_match(slice_str(two), type);
        if (holds) bits |= 1ULL << i;
    }
    return bits;
}

static uint64_t make_sources(struct maker *m) {
    const char *source = sources[1 + prng_below(m->p, COUNT(sources) - 1)];
    uint64_t bits = 0;
    buf_printf(m->json, "\"sources\":[\"%s\",\"%s\"]", source, source);
    for (size_t i = 0; i < EVENTS; i++) {
        if (slice_eq_str(m->samples[i].event.source, source)) bits |= 1ULL << i;
    }
    return bits;
}

static uint64_t make_subject(struct maker *m) {
    const char *prefix = PICK(m->p, prefixes);
    uint64_t bits = 0;
    buf_printf(m->json, "\"subject_prefix\":\"%s\"", prefix);
    for (size_t i = 0; i < EVENTS; i++) {
        if (slice_starts_with(m->samples[i].event.subject, prefix)) bits |= 1ULL << i;
    }
    return bits;
}

static uint64_t make_endpoint(struct maker *m) {
    size_t endpoint = prng_below(m->p, 4);
    uint64_t bits = 0;
    buf_printf(m->json, "\"endpoint\":%zu", endpoint);
    for (size_t i = 0; i < EVENTS; i++) {
        size_t len = m->samples[i].event.endpoints.len; /* a byte each, and one between them */
        if (len > 2 * endpoint) bits |= 1ULL << i;
    }
    return bits;
}

static uint64_t make_metadata(struct maker *m) {
    uint64_t bits = UINT64_MAX;
    bool first = true;
    buf_append_str(m->json, "\"user_metadata\":{");
    for (size_t n = 0; n < COUNT(names); n++) {
        if (prng_below(m->p, 2) == 0) continue;
        buf_printf(m->json, "%s\"%s\":", first ? "" : ",", names[n]);
        bits &= make_condition(m, n, 0);
        first = false;
    }
    buf_append_str(m->json, "}");
    return bits;
}

/* Writes a filter; returns the events that it matches. */
static uint64_t make_filter(struct maker *m, unsigned depth) {
    uint64_t bits = (1ULL << EVENTS) - 1;
    const char *comma = "";
    buf_append_str(m->json, "{");
    for (unsigned part = 0; part < 8; part++) {
        bool deep = part >= 5;
        if (prng_below(m->p, deep ? 4 + depth * 2 : 3) != 0 || (deep && depth == 4)) continue;
        buf_append_str(m->json, comma);
        comma = ",";
        uint64_t left, right;
        switch (part) {
        case 0: bits &= make_types(m); break;
        case 1: bits &= make_sources(m); break;
        case 2: bits &= make_subject(m); break;
        case 3: bits &= make_metadata(m); break;
        case 4: bits &= make_endpoint(m); break;
        case 7:
            buf_append_str(m->json, "\"not\":");
            bits &= ~make_filter(m, depth + 1);
            break;
        default:
            buf_append_str(m->json, part == 5 ? "\"all\":[" : "\"any\":[");
            left = make_filter(m, depth + 1);
            buf_append_str(m->json, ",");
            right = make_filter(m, depth + 1);
            buf_append_str(m->json, "]");
            bits &= part == 5 ? left & right : left | right;
        }
    }
    buf_append_str(m->json, "}");
    return bits;
}

/* Asks about every event: what matches was offered, nobody twice, nobody who is not entered. */
static void verify(struct filter_index *x, struct owner *owners, const struct sample *samples) {
    for (size_t i = 0; i < EVENTS; i++) {
        for (size_t k = 0; k < FILTERS; k++) owners[k].offered = 0;
        ask(x, &samples[i].event);
        struct filter_subject s;
        filter_subject_init(&s, &samples[i].event);
        for (size_t k = 0; k < FILTERS; k++) {
            bool expected = (owners[k].expected >> i & 1) != 0;
            bool matches = filter_match(owners[k].filter, &s);
            bool ok = matches == expected && owners[k].offered <= (owners[k].entered ? 1 : 0) &&
                      (!expected || !owners[k].entered || owners[k].offered == 1);
            if (ok) continue;
            fail_msg("%.*s\nevent %.*s %.*s %.*s %s: expected %d, matches %d, offered %zu",
                     SLICE_ARG(filter_text(owners[k].filter)), SLICE_ARG(samples[i].event.type),
                     SLICE_ARG(samples[i].event.source), SLICE_ARG(samples[i].event.subject),
                     samples[i].metadata, expected, matches, owners[k].offered);
        }
    }
}

static void play_round(struct prng *p, size_t *matched) {
    struct sample *samples = mem_zalloc(EVENTS * sizeof *samples);
    struct owner *owners = mem_zalloc(FILTERS * sizeof *owners);
    struct filter_index *x = filter_index_new();
    for (size_t i = 0; i < EVENTS; i++) make_event(p, &samples[i]);
    struct buf json;
    buf_init(&json, LIMIT_FILTER_BYTES);
    for (size_t k = 0; k < FILTERS; k++) {
        struct maker m = {p, &json, samples};
        buf_clear(&json);
        owners[k].expected = make_filter(&m, 0);
        owners[k].filter = compile(buf_slice(&json));
        owners[k].entered = true;
        filter_index_add(x, owners[k].filter, &owners[k]);
        for (size_t i = 0; i < EVENTS; i++) *matched += owners[k].expected >> i & 1;
    }
    buf_free(&json);
    verify(x, owners, samples);
    for (size_t turn = 0; turn < 2; turn++) {
        for (size_t k = 0; k < FILTERS; k++) {
            if (prng_below(p, 2) == 0) continue;
            if (owners[k].entered) filter_index_remove(x, owners[k].filter, &owners[k]);
            else filter_index_add(x, owners[k].filter, &owners[k]);
            owners[k].entered = !owners[k].entered;
        }
        verify(x, owners, samples);
    }
    for (size_t k = 0; k < FILTERS; k++) {
        if (owners[k].entered) filter_index_remove(x, owners[k].filter, &owners[k]);
        filter_free(&owners[k].filter);
    }
    for (size_t i = 0; i < EVENTS; i++) assert_int_equal(ask(x, &samples[i].event), 0);
    filter_index_free(&x);
    free(owners);
    free(samples);
}

static void test_random_filters_match_and_are_offered(void **state) {
    (void)state;
    struct prng p;
    prng_seed(&p, 20261121);
    size_t matched = 0;
    for (size_t round = 0; round < ROUNDS; round++) play_round(&p, &matched);
    /* Neither nearly all nor nearly nothing, or it would prove little. */
    size_t all = (size_t)ROUNDS * FILTERS * EVENTS;
    assert_true(matched > all / 20 && matched < all / 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_offered),
        cmocka_unit_test(test_endpoints_are_what_is_rare),
        cmocka_unit_test(test_members_beyond_those_noted_are_looked_up),
        cmocka_unit_test(test_user_metadata_is_not_parsed_for_nobody),
        cmocka_unit_test(test_ten_thousand_that_do_not_match_are_not_asked),
        cmocka_unit_test(test_those_who_left_do_not_weigh),
        cmocka_unit_test(test_a_type_is_no_source),
        cmocka_unit_test(test_an_owner_is_offered_once),
        cmocka_unit_test(test_random_filters_match_and_are_offered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
