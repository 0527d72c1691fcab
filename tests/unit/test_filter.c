/* Filters as tables: what a text compiles to or why it does not, and which events it matches. */
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
#include "broker/engine/filter.h"

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

static struct filter *compile(const char *json) {
    struct filter *f = NULL;
    char why[400] = "";
    if (filter_compile(slice_str(json), &f, why, sizeof why) != ERR_OK)
        fail_msg("%s: %s", json, why);
    assert_non_null(f);
    return f;
}

static void refuse(const char *json, const char *message) {
    struct filter *f = (struct filter *)(void *)&f;
    char why[400] = "";
    enum err err = filter_compile(slice_str(json), &f, why, sizeof why);
    if (err != ERR_BAD_FILTER || strcmp(why, message) != 0) {
        fail_msg("%s:\n  expected: %s\n  got:      %s", json, message, why);
    }
    assert_null(f);
}

static struct event event_of(const char *type, const char *source, const char *subject,
                             const char *metadata) {
    return (struct event){.type = slice_str(type),
                          .source = slice_str(source),
                          .subject = slice_str(subject),
                          .metadata = slice_str(metadata)};
}

static bool match(const char *json, const struct event *event) {
    struct filter *f = compile(json);
    struct filter_subject s;
    filter_subject_init(&s, event);
    bool result = filter_match(f, &s);
    assert_int_equal(filter_match(f, &s), result);
    filter_free(&f);
    return result;
}

/* ---- errors ---- */

#define A_SCALAR    "must be a string, a number, true, false or null"
#define A_CONDITION "must be a scalar, or an object with equals, in, prefix, exists or not"
#define AN_OBJECT   "must be an object such as {\"types\":[\"batch.*\"]}"
#define GLOBS       "must be a list of 1 or more globs: [\"batch.*\"]"
#define NOT_POINTER "not a JSON Pointer (RFC 6901): after ~ comes 0 (for ~) or 1 (for /)"
#define ENDPOINT    "must be a number from 0 to 7: which of an event's own endpoints"
#define NUMBERS     "must be a number of at most 256 characters that a double can hold"

static void test_the_place_of_what_is_wrong(void **state) {
    (void)state;
    static const struct {
        const char *json, *why;
    } rows[] = {
        {" ", "filter: not JSON: line 1, column 2: parse error: premature EOF"},
        {"{\n \"types\": x}",
         "filter: not JSON: line 2, column 11: lexical error: invalid char in json text."},
        {"{\"types\":[\"\xFF\"]}", "filter: not JSON: line 1, column 12: the text is not UTF-8"},
        {"[]", "filter: " AN_OBJECT},
        {"null", "filter: " AN_OBJECT},
        {"{\"type\":[\"a\"]}",
         "filter.type: unknown; a filter has types, sources, subject_prefix, "
         "endpoint, user_metadata, all, any and not"},
        {"{\"any\":[{},{\"all\":[{\"x\":1}]}]}",
         "filter.any[1].all[0].x: unknown; a filter has types, sources, subject_prefix, "
         "endpoint, user_metadata, all, any and not"},
        {"{\"types\":[\"a\"],\"types\":[\"b\"]}", "filter.types: given twice"},
        {"{\"types\":\"a\"}", "filter.types: " GLOBS},
        {"{\"types\":[]}", "filter.types: " GLOBS},
        {"{\"types\":{\"a\":1}}", "filter.types: " GLOBS},
        {"{\"types\":[\"a\",7]}", "filter.types[1]: must be a string of 1 to 256 bytes"},
        {"{\"types\":[\"a\",\"b\",\"\"]}", "filter.types[2]: must be a string of 1 to 256 bytes"},
        {"{\"types\":[\"a\\u0000\"]}", "filter.types[0]: must not contain U+0000"},
        {"{\"sources\":[]}", "filter.sources: must be a list of 1 or more names of sources"},
        {"{\"sources\":\"a\"}", "filter.sources: must be a list of 1 or more names of sources"},
        {"{\"sources\":[\"ok\",\"-no\"]}",
         "filter.sources[1]: not the name of a source: A-Z a-z "
         "0-9 . _ - after a letter or a digit"},
        {"{\"sources\":[null]}", "filter.sources[0]: must be a string of 1 to 64 bytes"},
        {"{\"subject_prefix\":\"\"}", "filter.subject_prefix: must be a string of 1 to 1024 bytes"},
        {"{\"subject_prefix\":3}", "filter.subject_prefix: must be a string of 1 to 1024 bytes"},
        {"{\"endpoint\":8}", "filter.endpoint: " ENDPOINT},
        {"{\"endpoint\":-1}", "filter.endpoint: " ENDPOINT},
        {"{\"endpoint\":0.5}", "filter.endpoint: " ENDPOINT},
        {"{\"endpoint\":1e400}", "filter.endpoint: " ENDPOINT},
        {"{\"endpoint\":18446744073709551616}", "filter.endpoint: " ENDPOINT},
        {"{\"endpoint\":\"0\"}", "filter.endpoint: " ENDPOINT},
        {"{\"endpoint\":null}", "filter.endpoint: " ENDPOINT},
        {"{\"endpoint\":[0]}", "filter.endpoint: " ENDPOINT},
        {"{\"not\":{\"endpoint\":{}}}", "filter.not.endpoint: " ENDPOINT},
        {"{\"endpoint\":0,\"endpoint\":0}", "filter.endpoint: given twice"},
        {"{\"user_metadata\":[]}",
         "filter.user_metadata: must be an object of names and what is asked of them"},
        {"{\"user_metadata\":{\"\":1}}",
         "filter.user_metadata: a name must not be empty; \"/\" is "
         "the member with the empty name"},
        {"{\"user_metadata\":{\"a\\u0000\":1}}",
         "filter.user_metadata.a\\u0000: must not contain U+0000"},
        {"{\"user_metadata\":{\"a\":1,\"b\":2,\"\\u0061\":3}}",
         "filter.user_metadata.a: given twice"},
        {"{\"user_metadata\":{\"/a~\":1}}", "filter.user_metadata./a~: " NOT_POINTER},
        {"{\"user_metadata\":{\"/a/~2\":1}}", "filter.user_metadata./a/~2: " NOT_POINTER},
        {"{\"user_metadata\":{\"a\":[1]}}", "filter.user_metadata.a: " A_CONDITION},
        {"{\"user_metadata\":{\"a\":{}}}", "filter.user_metadata.a: " A_CONDITION},
        {"{\"user_metadata\":{\"a\":{\"gt\":1}}}",
         "filter.user_metadata.a.gt: unknown; a condition has equals, in, prefix, exists and not"},
        {"{\"user_metadata\":{\"a\":{\"equals\":1,\"equals\":1}}}",
         "filter.user_metadata.a.equals: given twice"},
        {"{\"user_metadata\":{\"a\":{\"in\":[1],\"in\":[2]}}}",
         "filter.user_metadata.a.in: given twice"},
        {"{\"user_metadata\":{\"a\":{\"not\":{\"in\":[1]},\"not\":2}}}",
         "filter.user_metadata.a.not: given twice"},
        {"{\"user_metadata\":{\"a\":{\"equals\":{}}}}", "filter.user_metadata.a.equals: " A_SCALAR},
        {"{\"user_metadata\":{\"a\":1e400}}", "filter.user_metadata.a: " NUMBERS},
        {"{\"user_metadata\":{\"priority\":{\"in\":\"high\"}}}",
         "filter.user_metadata.priority.in: must be a list of 1 to 64 scalars"},
        {"{\"user_metadata\":{\"priority\":{\"in\":[]}}}",
         "filter.user_metadata.priority.in: must be a list of 1 to 64 scalars"},
        {"{\"user_metadata\":{\"priority\":{\"in\":[1,\"a\",[]]}}}",
         "filter.user_metadata.priority.in[2]: " A_SCALAR},
        {"{\"user_metadata\":{\"a\":{\"prefix\":\"\"}}}",
         "filter.user_metadata.a.prefix: must be a string of 1 to 16384 bytes"},
        {"{\"user_metadata\":{\"a\":{\"exists\":1}}}",
         "filter.user_metadata.a.exists: must be true or false"},
        {"{\"user_metadata\":{\"a\":{\"not\":[]}}}", "filter.user_metadata.a.not: " A_CONDITION},
        {"{\"all\":[]}", "filter.all: must be a list of 1 or more filters"},
        {"{\"any\":{}}", "filter.any: must be a list of 1 or more filters"},
        {"{\"any\":[{},1]}", "filter.any[1]: " AN_OBJECT},
        {"{\"not\":[{}]}", "filter.not: " AN_OBJECT},
    };
    for (size_t i = 0; i < COUNT(rows); i++) refuse(rows[i].json, rows[i].why);

    char why[16];
    struct filter *f;
    assert_int_equal(filter_compile(slice_str("[]"), &f, why, sizeof why), ERR_BAD_FILTER);
    assert_string_equal(why, "filter: must be");
}

/* times x piece between head and tail. */
static char *repeated(const char *head, const char *piece, size_t times, const char *tail) {
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_append_str(&b, head);
    for (size_t i = 0; i < times; i++) buf_append_str(&b, piece);
    buf_append_str(&b, tail);
    buf_append_byte(&b, '\0');
    assert_false(b.overflow);
    return (char *)b.data;
}

static void refuse_free(char *json, const char *message) {
    refuse(json, message);
    free(json);
}

static void accept_free(char *json) {
    struct filter *f = compile(json);
    filter_free(&f);
    free(json);
}

static void test_every_bound(void **state) {
    (void)state;
    accept_free(repeated("{\"types\":[\"", "x", 256, "\"]}"));
    refuse_free(repeated("{\"types\":[\"", "x", 257, "\"]}"),
                "filter.types[0]: must be a string of 1 to 256 bytes");
    accept_free(repeated("{\"user_metadata\":{\"a\":{\"in\":[1", ",1", 63, "]}}}"));
    refuse_free(repeated("{\"user_metadata\":{\"a\":{\"in\":[1", ",1", 64, "]}}}"),
                "filter.user_metadata.a.in: must be a list of 1 to 64 scalars");
    accept_free(repeated("{\"user_metadata\":{\"a\":", "1", 256, "}}"));
    refuse_free(repeated("{\"user_metadata\":{\"a\":", "1", 257, "}}"),
                "filter.user_metadata.a: " NUMBERS);

    accept_free(repeated("{\"types\":[\"a\"", ",\"a\"", 511, "]}"));
    refuse_free(repeated("{\"types\":[\"a\"", ",\"a\"", 511, "],\"endpoint\":0}"),
                "filter.endpoint: more than 512 globs, names, values and conditions in one filter");
    const char *nodes = "more than 512 globs, names, values and conditions in one filter";
    char message[200];
    snprintf(message, sizeof message, "filter.types[512]: %s", nodes);
    refuse_free(repeated("{\"types\":[\"a\"", ",\"a\"", 512, "]}"), message);
    snprintf(message, sizeof message, "filter.any[512]: %s", nodes);
    refuse_free(repeated("{\"any\":[{}", ",{}", 512, "]}"), message);
    snprintf(message, sizeof message, "filter.all[256].types[0]: %s", nodes);
    refuse_free(repeated("{\"all\":[{}", ",{\"types\":[\"a\"]}", 300, "]}"), message);

    /* Counted as bytes of the text that came, and of what is stored. */
    accept_free(repeated("{}", " ", LIMIT_FILTER_BYTES - 2, ""));
    snprintf(message, sizeof message, "filter: longer than %d bytes", LIMIT_FILTER_BYTES);
    refuse_free(repeated("{}", " ", LIMIT_FILTER_BYTES - 1, ""), message);
    snprintf(message, sizeof message,
             "filter: longer than %d bytes when control characters are escaped",
             LIMIT_FILTER_BYTES);
    refuse_free(repeated("{\"user_metadata\":{\"a\":\"", "\\t", LIMIT_FILTER_BYTES / 4, "\"}}"),
                message);

    /* A long name is shown by its beginning. */
    char *name = repeated("{\"user_metadata\":{\"", "\xC3\xA9", 100, "\":[]}}");
    char *shown_name = repeated("filter.user_metadata.", "\xC3\xA9", 32, "...: " A_CONDITION);
    refuse_free(name, shown_name);
    free(shown_name);
    /* Not by half of a character. */
    name = repeated("{\"user_metadata\":{\"x", "\xC3\xA9", 100, "\":[]}}");
    shown_name = repeated("filter.user_metadata.x", "\xC3\xA9", 31, "...: " A_CONDITION);
    refuse_free(name, shown_name);
    free(shown_name);
}

static void test_depth_is_bounded_and_its_place_told(void **state) {
    (void)state;
    accept_free(repeated("", "{\"not\":", 8, "{}}}}}}}}}"));
    refuse_free(
        repeated("", "{\"not\":", 9, "{}}}}}}}}}}"),
        "filter.not.not.not.not.not.not.not.not.not: more than 8 of all, any and not within "
        "each other (line 1, column 64)");
    refuse_free(
        repeated("", "{\"any\":[", 9, "{}]}]}]}]}]}]}]}]}]}"),
        "filter.any[0].any[0].any[0].any[0].any[0].any[0].any[0].any[0].any: more than 8 of "
        "all, any and not within each other (line 1, column 72)");
    accept_free(repeated("{\"user_metadata\":{\"a\":", "{\"not\":", 8, "1}}}}}}}}}}"));
    refuse_free(
        repeated("{\"user_metadata\":\n{\"a\":", "{\"not\":", 9, "1}}}}}}}}}}}"),
        "filter.user_metadata.a.not.not.not.not.not.not.not.not.not: more than 8 of all, any "
        "and not within each other (line 2, column 69)");
    /* Beside each other they do not add up. */
    accept_free(repeated("{\"all\":[{}", ",{\"not\":{}}", 20, "]}"));
    accept_free(repeated("{\"user_metadata\":{\"a\":1", ",\"b\":{\"not\":2}", 1, "},\"not\":{}}"));
    refuse_free(repeated("", "[", 65, ""),
                "filter: not JSON: line 1, column 65: nested deeper than 64 levels");
}

/* ---- text ---- */

static void test_the_canonical_text(void **state) {
    (void)state;
    static const struct {
        const char *json, *text;
    } rows[] = {
        {"", "{}"},
        {" { } ", "{}"},
        {"{\"user_metadata\":{}}", "{}"},
        {"{\"endpoint\": 7.0}", "{\"endpoint\":7}"},
        {"{\"endpoint\":-0}", "{\"endpoint\":0}"},
        {"{\"not\":{}, \"any\":[{}],\"all\":[ {} ], \"user_metadata\":{\"a\":1},\"endpoint\":3,"
         "\"subject_prefix\":\"s\",\"sources\":[\"q\",\"p\"],\"types\":[\"b\" ,\"a\"]}",
         "{\"types\":[\"b\",\"a\"],\"sources\":[\"q\",\"p\"],\"subject_prefix\":\"s\","
         "\"endpoint\":3,\"user_metadata\":{\"a\":1},\"all\":[{}],\"any\":[{}],\"not\":{}}"},
        {"{\"user_metadata\":{\"b\":{\"not\":{\"equals\":null},\"exists\":true,\"prefix\":\"x\","
         "\"in\":[1, 1.0,true],\"equals\":\"y\"},\"aa\":false,\"a\":{\"equals\":\"z\"}}}",
         "{\"user_metadata\":{\"a\":{\"equals\":\"z\"},\"aa\":false,\"b\":{\"equals\":\"y\","
         "\"in\":[1,1.0,true],\"prefix\":\"x\",\"exists\":true,\"not\":{\"equals\":null}}}}"},
        {"{\"user_metadata\":{\"\\u00e9\\/\":{\"not\":\"\\u0041\\n\\u0001\\\"\"}}}",
         "{\"user_metadata\":{\"\xC3\xA9/\":{\"not\":\"A\\n\\u0001\\\"\"}}}"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct filter *f = compile(rows[i].json);
        struct slice text = filter_text(f);
        if (!slice_eq_str(text, rows[i].text)) fail_msg("%.*s", SLICE_ARG(text));
        struct filter *again = compile(rows[i].text);
        assert_true(slice_eq(filter_text(again), text));
        filter_free(&again);
        filter_free(&f);
        assert_null(f);
        filter_free(&f);
    }
}

/* ---- matching ---- */

static void test_types_sources_and_subject(void **state) {
    (void)state;
    static const struct {
        const char *filter, *type, *source, *subject;
        bool expected;
    } rows[] = {
        {"", "", "", "", true},
        {"{}", "batch.done", "gemini", "batches/1", true},
        {"{\"types\":[\"batch.*\"]}", "batch.done", "", "", true},
        {"{\"types\":[\"batch.*\"]}", "batch", "", "", false},
        {"{\"types\":[\"video\",\"batch.*\"]}", "batch.item.done", "", "", true},
        {"{\"types\":[\"video\",\"batch.*\"]}", "video.done", "", "", false},
        {"{\"types\":[\"*\"]}", "", "", "", true},
        {"{\"types\":[\"*.done\"]}", "a.b.done", "", "", true},
        {"{\"sources\":[\"a\",\"gemini\"]}", "", "gemini", "", true},
        {"{\"sources\":[\"a\",\"gemini\"]}", "", "gemin", "", false},
        {"{\"sources\":[\"a\"]}", "", "", "", false},
        {"{\"subject_prefix\":\"batches/\"}", "", "", "batches/1", true},
        {"{\"subject_prefix\":\"batches/\"}", "", "", "batches/", true},
        {"{\"subject_prefix\":\"batches/\"}", "", "", "batches", false},
        {"{\"subject_prefix\":\"batches/\"}", "", "", "", false},
        {"{\"types\":[\"t\"],\"sources\":[\"s\"],\"subject_prefix\":\"x\"}", "t", "s", "xy", true},
        {"{\"types\":[\"t\"],\"sources\":[\"s\"],\"subject_prefix\":\"x\"}", "t", "s", "y", false},
        {"{\"types\":[\"t\"],\"sources\":[\"s\"],\"subject_prefix\":\"x\"}", "t", "r", "x", false},
        {"{\"all\":[{\"types\":[\"a*\"]},{\"types\":[\"*b\"]}]}", "axb", "", "", true},
        {"{\"all\":[{\"types\":[\"a*\"]},{\"types\":[\"*b\"]}]}", "ax", "", "", false},
        {"{\"any\":[{\"types\":[\"a\"]},{\"sources\":[\"s\"]}]}", "b", "s", "", true},
        {"{\"any\":[{\"types\":[\"a\"]},{\"sources\":[\"s\"]}]}", "b", "r", "", false},
        {"{\"not\":{\"types\":[\"a.*\"]}}", "b", "", "", true},
        {"{\"not\":{\"types\":[\"a.*\"]}}", "a.b", "", "", false},
        {"{\"not\":{}}", "a", "", "", false},
        {"{\"types\":[\"a.*\"],\"not\":{\"types\":[\"a.b\"]}}", "a.c", "", "", true},
        {"{\"types\":[\"a.*\"],\"not\":{\"types\":[\"a.b\"]}}", "a.b", "", "", false},
        {"{\"types\":[\"a\"],\"any\":[{}],\"all\":[{}]}", "b", "", "", false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct event e = event_of(rows[i].type, rows[i].source, rows[i].subject, "");
        if (match(rows[i].filter, &e) == rows[i].expected) continue;
        fail_msg("%s: %s %s %s", rows[i].filter, rows[i].type, rows[i].source, rows[i].subject);
    }
}

static void test_endpoints(void **state) {
    (void)state;
    static const struct {
        const char *filter, *endpoints;
        bool expected;
    } rows[] = {
        {"{\"endpoint\":0}", "", false},
        {"{\"endpoint\":0}", "https://a.example/", true},
        {"{\"endpoint\":0}", "https://a.example/\nhttps://b.example/", true},
        {"{\"endpoint\":1}", "https://a.example/", false},
        {"{\"endpoint\":1}", "https://a.example/\nhttps://b.example/", true},
        {"{\"endpoint\":2}", "https://a.example/\nhttps://b.example/", false},
        {"{\"endpoint\":7}", "1\n2\n3\n4\n5\n6\n7", false},
        {"{\"endpoint\":7}", "1\n2\n3\n4\n5\n6\n7\n8", true},
        {"{\"not\":{\"endpoint\":0}}", "", true},
        {"{\"not\":{\"endpoint\":0}}", "x", false},
        {"{\"types\":[\"t\"],\"not\":{\"endpoint\":0}}", "", true},
        {"{\"types\":[\"u\"],\"not\":{\"endpoint\":0}}", "", false},
        {"{\"types\":[\"u\"],\"endpoint\":0}", "x", false},
        {"{\"any\":[{\"endpoint\":1},{\"types\":[\"t\"]}]}", "", true},
        {"{\"endpoint\":0,\"user_metadata\":{\"a\":1}}", "x", true},
        {"{\"endpoint\":0,\"user_metadata\":{\"a\":2}}", "x", false},
        {"{\"endpoint\":1,\"user_metadata\":{\"a\":1}}", "x", false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct event e = event_of("t", "", "", "{\"a\":1}");
        e.endpoints = slice_str(rows[i].endpoints);
        if (match(rows[i].filter, &e) == rows[i].expected) continue;
        fail_msg("%s: %s", rows[i].filter, rows[i].endpoints);
    }
}

/* Rows of a condition on "a" and the user_metadata that it is asked of. */
struct metadata_row {
    const char *condition, *metadata;
    bool expected;
};

static void expect_rows(const char *name, const struct metadata_row *rows, size_t count) {
    for (size_t i = 0; i < count; i++) {
        char json[1000];
        snprintf(json, sizeof json, "{\"user_metadata\":{\"%s\":%s}}", name, rows[i].condition);
        struct event e = event_of("t", "s", "x", rows[i].metadata);
        if (match(json, &e) != rows[i].expected) fail_msg("%s: %s", json, rows[i].metadata);
        snprintf(json, sizeof json, "{\"not\":{\"user_metadata\":{\"%s\":%s}}}", name,
                 rows[i].condition);
        if (match(json, &e) == rows[i].expected) fail_msg("%s: %s", json, rows[i].metadata);
        snprintf(json, sizeof json, "{\"user_metadata\":{\"%s\":{\"not\":%s}}}", name,
                 rows[i].condition);
        if (match(json, &e) == rows[i].expected) fail_msg("%s: %s", json, rows[i].metadata);
    }
}

static void test_conditions(void **state) {
    (void)state;
    static const struct metadata_row rows[] = {
        {"\"x\"", "{\"a\":\"x\"}", true},
        {"\"x\"", "{ \"b\" : [ 1 ], \"a\" : \"x\" }", true},
        {"\"x\"", "{\"a\":\"xy\"}", false},
        {"\"x\"", "{\"b\":\"x\"}", false},
        {"\"x\"", "{\"A\":\"x\"}", false},
        {"\"x\"", "", false},
        {"\"x\"", "{}", false},
        {"\"\"", "{\"a\":\"\"}", true},
        {"\"\"", "{}", false},
        {"\"1\"", "{\"a\":1}", false},
        {"1", "{\"a\":\"1\"}", false},
        {"true", "{\"a\":true}", true},
        {"true", "{\"a\":false}", false},
        {"true", "{\"a\":1}", false},
        {"false", "{\"a\":false}", true},
        {"null", "{\"a\":null}", true},
        {"null", "{}", false},
        {"null", "{\"a\":0}", false},
        {"{\"equals\":\"x\"}", "{\"a\":\"x\"}", true},
        {"{\"equals\":\"x\"}", "{\"a\":[\"x\"]}", false},
        {"{\"in\":[\"x\",7,null]}", "{\"a\":7}", true},
        {"{\"in\":[\"x\",7,null]}", "{\"a\":null}", true},
        {"{\"in\":[\"x\",7,null]}", "{\"a\":8}", false},
        {"{\"in\":[\"x\",7,null]}", "{}", false},
        {"{\"in\":[\"x\"]}", "{\"a\":{\"x\":\"x\"}}", false},
        {"{\"prefix\":\"eu-\"}", "{\"a\":\"eu-west\"}", true},
        {"{\"prefix\":\"eu-\"}", "{\"a\":\"eu-\"}", true},
        {"{\"prefix\":\"eu-\"}", "{\"a\":\"eu\"}", false},
        {"{\"prefix\":\"eu-\"}", "{\"a\":[\"eu-west\"]}", false},
        {"{\"prefix\":\"1\"}", "{\"a\":12}", false},
        {"{\"prefix\":\"x\"}", "{}", false},
        {"{\"exists\":true}", "{\"a\":null}", true},
        {"{\"exists\":true}", "{\"a\":{}}", true},
        {"{\"exists\":true}", "{\"a\":[]}", true},
        {"{\"exists\":true}", "{\"b\":1}", false},
        {"{\"exists\":false}", "{\"b\":1}", true},
        {"{\"exists\":false}", "", true},
        {"{\"exists\":false}", "{\"a\":1}", false},
        {"{\"not\":{\"equals\":\"x\"}}", "{}", true},
        {"{\"not\":{\"equals\":\"x\"}}", "{\"a\":[\"x\"]}", true},
        {"{\"prefix\":\"eu-\",\"not\":{\"in\":[\"eu-west\"]}}", "{\"a\":\"eu-east\"}", true},
        {"{\"prefix\":\"eu-\",\"not\":{\"in\":[\"eu-west\"]}}", "{\"a\":\"eu-west\"}", false},
        {"{\"exists\":true,\"not\":\"x\"}", "{\"a\":\"y\"}", true},
        {"{\"exists\":true,\"not\":\"x\"}", "{}", false},
        /* Escapes in the event, and of names that occur twice the last one. */
        {"\"x/\\u00e9\"", "{\"a\":\"\\u0078\\/\xC3\xA9\"}", true},
        {"\"x\"", "{\"\\u0061\":\"x\"}", true},
        {"\"x\"", "{\"\\u0061b\":\"x\"}", false},
        {"{\"prefix\":\"x\\n\"}", "{\"a\":\"\\u0078\\ny\"}", true},
        {"\"x\"", "{\"a\":\"y\",\"a\":\"x\"}", true},
        {"\"x\"", "{\"a\":\"x\",\"a\":\"y\"}", false},
        /* What is no object is as if it were empty; U+0000 equals nothing. */
        {"\"x\"", "[\"x\"]", false},
        {"\"x\"", "\"x\"", false},
        {"{\"prefix\":\"x\"}", "{\"a\":\"x\\u0000\"}", false},
        {"{\"exists\":true}", "{\"a\":\"x\\u0000\"}", true},
    };
    expect_rows("a", rows, COUNT(rows));
    /* The same by a pointer of one token. */
    expect_rows("/a", rows, COUNT(rows));
}

/* The example of docs/filters.md; each change of the event breaks another part of it. */
static void test_the_example(void **state) {
    (void)state;
    static const char filter[] =
        "{\"types\":[\"batch.*\",\"video.generated\"],\"sources\":[\"gemini\"],"
        "\"subject_prefix\":\"batches/\",\"user_metadata\":{\"/job/kind\":\"train\","
        "\"job_group\":\"nightly-eval\",\"owner\":{\"exists\":true},"
        "\"priority\":{\"in\":[\"high\",\"urgent\"]},\"region\":{\"prefix\":\"eu-\"},"
        "\"tier\":{\"not\":{\"equals\":\"free\"}}}}";
    static const char good[] =
        "{\"job_group\":\"nightly-eval\",\"priority\":\"urgent\",\"region\":\"eu-west\","
        "\"owner\":{\"team\":7},\"job\":{\"kind\":\"train\"}}";
    static const struct {
        const char *from, *to; /* a piece of the metadata above */
    } changes[] = {
        {"nightly-eval", "weekly-eval"},
        {"urgent", "low"},
        {"eu-west", "us-west"},
        {"owner", "0wner"},
        {"train", "evict"},
        {"\"owner\"", "\"tier\":\"free\",\"owner\""},
    };
    struct filter *f = compile(filter);
    assert_true(slice_eq_str(filter_text(f), filter));
    filter_free(&f);
    struct event e = event_of("batch.done", "gemini", "batches/1", good);
    assert_true(match(filter, &e));
    for (size_t i = 0; i < COUNT(changes); i++) {
        char bad[400];
        const char *at = strstr(good, changes[i].from);
        assert_non_null(at);
        snprintf(bad, sizeof bad, "%.*s%s%s", (int)(at - good), good, changes[i].to,
                 at + strlen(changes[i].from));
        e = event_of("batch.done", "gemini", "batches/1", bad);
        if (match(filter, &e)) fail_msg("%s", bad);
    }
    e = event_of("video.done", "gemini", "batches/1", good);
    assert_false(match(filter, &e));
    e = event_of("batch.done", "openai", "batches/1", good);
    assert_false(match(filter, &e));
    e = event_of("batch.done", "gemini", "batch/1", good);
    assert_false(match(filter, &e));
}

static void test_pointers(void **state) {
    (void)state;
    static const struct {
        const char *name, *metadata;
        bool expected;
    } rows[] = {
        {"/job/kind", "{\"job\":{\"kind\":1}}", true},
        {"/job/kind", "{\"job\":{\"kind\":2}}", false},
        {"/job/kind", "{\"job\":{\"x\":{\"kind\":1}}}", false},
        {"/job/kind", "{\"kind\":1}", false},
        {"/job/kind", "{\"job\":1}", false},
        {"/job/kind", "{\"job\":\"{\\\"kind\\\":1}\"}", false},
        {"/job/kind", "{\"job\":{\"\\u006bind\":1}}", true},
        {"/job/kind", "{\"job\":{\"kind\":1,\"kind\":2}}", false},
        {"/job/kind", "{\"job/kind\":1}", false},
        {"/job~1kind", "{\"job/kind\":1}", true},
        {"job/kind", "{\"job/kind\":1}", true},
        {"/~1x", "{\"/x\":1}", true},
        {"/~01", "{\"~1\":1}", true},
        {"/~01", "{\"/\":1}", false},
        {"/", "{\"\":1}", true},
        {"//", "{\"\":{\"\":1}}", true},
        {"/a/", "{\"a\":{\"\":1}}", true},
        {"/a", "{\"a~\":1}", false},
        {"/a~0", "{\"a\":1}", false},
        {"/a/b/c/d/e/f", "{\"a\":{\"b\":{\"c\":{\"d\":{\"e\":{\"f\":1}}}}}}", true},
        {"/a/0", "{\"a\":[1,2]}", true},
        {"/a/1", "{\"a\":[1,2]}", false},
        {"/a/1/b", "{\"a\":[0,{\"b\":1}]}", true},
        {"/a/00", "{\"a\":[1]}", false},
        {"/a/-", "{\"a\":[1]}", false},
        {"/a/9", "{\"a\":[1]}", false},
        {"/a/0", "{\"a\":{\"0\":1}}", true},
        {"/a/99999999999999999999", "{\"a\":[1]}", false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct metadata_row row = {"1", rows[i].metadata, rows[i].expected};
        expect_rows(rows[i].name, &row, 1);
    }
    assert_true(filter_name_ok(slice_str("a~b")));
    assert_true(filter_name_ok(slice_str("/a~0~1")));
    assert_false(filter_name_ok(slice_str("")));
    assert_false(filter_name_ok(slice_str("/a~")));
    assert_false(filter_name_ok(slice_str("/~b")));
}

/* Beyond the members that a subject notes, the text is read. */
static void test_more_members_than_are_noted(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 16);
    for (size_t i = 0; i < FILTER_SUBJECT_MEMBERS + 10; i++) {
        buf_printf(&b, "%c\"m%zu\":%zu", i == 0 ? '{' : ',', i, i);
    }
    buf_append_str(&b, ",\"deep\":{\"er\":5},\"m3\":\"again\"}");
    buf_append_byte(&b, '\0');
    struct event e = event_of("", "", "", (const char *)b.data);
    assert_true(match("{\"user_metadata\":{\"m0\":0}}", &e));
    assert_true(match("{\"user_metadata\":{\"m63\":63,\"m64\":64,\"m73\":73}}", &e));
    assert_false(match("{\"user_metadata\":{\"m64\":63}}", &e));
    assert_true(match("{\"user_metadata\":{\"m74\":{\"exists\":false}}}", &e));
    assert_true(match("{\"user_metadata\":{\"/deep/er\":5}}", &e));
    assert_true(match("{\"user_metadata\":{\"m3\":\"again\"}}", &e));
    assert_false(match("{\"user_metadata\":{\"m3\":3}}", &e));
    /* All of it counts for nothing when its end is not JSON. */
    b.data[b.len - 2] = ']';
    assert_false(match("{\"user_metadata\":{\"m0\":0}}", &e));
    assert_false(match("{\"user_metadata\":{\"m64\":64}}", &e));
    buf_free(&b);
}

static void test_user_metadata_is_parsed_only_if_it_must_be(void **state) {
    (void)state;
    static const struct {
        const char *filter;
        bool parsed;
    } rows[] = {
        {"{\"types\":[\"other\"],\"user_metadata\":{\"a\":1}}", false},
        {"{\"user_metadata\":{\"a\":1},\"all\":[{\"types\":[\"other\"]}]}", false},
        {"{\"all\":[{\"user_metadata\":{\"a\":1}},{\"sources\":[\"other\"]}]}", false},
        {"{\"any\":[{\"user_metadata\":{\"a\":1}},{\"types\":[\"t\"]}]}", false},
        {"{\"user_metadata\":{\"a\":1},\"not\":{\"subject_prefix\":\"x\"}}", false},
        {"{\"not\":{\"any\":[{\"user_metadata\":{\"a\":1}},{}]}}", false},
        {"{\"types\":[\"t\"]}", false},
        {"{\"types\":[\"t\"],\"user_metadata\":{\"a\":1}}", true},
        {"{\"any\":[{\"user_metadata\":{\"a\":1}},{\"types\":[\"other\"]}]}", true},
    };
    struct event e = event_of("t", "s", "x", "{\"a\":1}");
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct filter *f = compile(rows[i].filter);
        struct filter_subject s;
        filter_subject_init(&s, &e);
        filter_match(f, &s);
        if (s.parsed != rows[i].parsed) fail_msg("%s", rows[i].filter);
        filter_free(&f);
    }
}

/* ---- values ---- */

/* Compares as a filter, as an order key and as the index does. */
static void expect_equal(const char *a, const char *b, bool equal) {
    char json[800], left[800], right[800];
    snprintf(json, sizeof json, "{\"user_metadata\":{\"a\":%s}}", a);
    snprintf(left, sizeof left, "{\"a\":%s}", a);
    snprintf(right, sizeof right, "{\"a\":%s}", b);
    struct event el = event_of("", "", "", left), er = event_of("", "", "", right);
    if (match(json, &er) != equal) fail_msg("filter: %s %s", a, b);

    struct filter_subject sl, sr;
    filter_subject_init(&sl, &el);
    filter_subject_init(&sr, &er);
    uint8_t scratch_l[FILTER_VALUE_BYTES_MIN], scratch_r[FILTER_VALUE_BYTES_MIN];
    struct slice vl, vr, name = slice_str("a");
    assert_true(filter_subject_value(&sl, name, scratch_l, sizeof scratch_l, &vl));
    assert_true(filter_subject_value(&sr, name, scratch_r, sizeof scratch_r, &vr));
    if (slice_eq(vl, vr) != equal) fail_msg("key: %s %s", a, b);
}

#define LONG "0123456789012345678901234567890123456789"

static void test_scalars_compare_by_value(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        bool equal;
    } rows[] = {
        {"1", "1", true},
        {"1", "1.0", true},
        {"1", "10e-1", true},
        {"1", "1.5", false},
        {"1", "-1", false},
        {"0", "-0", true},
        {"-0.0", "0", true},
        {"1.5", "15E-1", true},
        {"0", "0.5", false},
        {"-0.5", "0", false},
        {"0.1", "0.10000000000000001", true},
        {"-2.5", "2.5", false},
        {"9007199254740993", "9007199254740992", false},
        {"9223372036854775807", "9223372036854775806", false},
        {"-9223372036854775808", "-9223372036854775807", false},
        {"18446744073709551615", "18446744073709551614", false},
        {"18446744073709551615", "18446744073709551616", false},
        {"18446744073709551616", "18446744073709551617", true}, /* the same double */
        {"1000000000000000000", "1e18", true},
        {"1e300", "10e299", true},
        {"1e-400", "0", true},
        {"1", "true", false},
        {"0", "false", false},
        {"0", "null", false},
        {"\"null\"", "null", false},
        {"\"1\"", "1", false},
        {"\"\"", "null", false},
        {"\"a\"", "\"\\u0061\"", true},
        {"\"\\ud83d\\ude00\"", "\"\xF0\x9F\x98\x80\"", true},
        {"\"" LONG "\"", "\"" LONG "\"", true},
        {"\"" LONG "\"", "\"\\u0030123456789012345678901234567890123456789\"", true},
        {"\"" LONG "\"", "\"" LONG "0\"", false},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        expect_equal(rows[i].a, rows[i].b, rows[i].equal);
        expect_equal(rows[i].b, rows[i].a, rows[i].equal);
    }
}

static void test_the_value_under_a_name(void **state) {
    (void)state;
    static const struct {
        const char *name, *value; /* NULL: there is none */
    } rows[] = {
        {"s", "text"}, {"e", "a\nb"}, {"/o/k", "deep"}, {"/l/1", "two"},
        {"o", NULL},   {"l", NULL},   {"none", NULL},   {"/o/none", NULL},
    };
    struct event e =
        event_of("", "", "",
                 "{\"s\":\"text\",\"e\":\"a\\nb\",\"o\":{\"k\":\"deep\"},\"l\":[1,\"two\"],"
                 "\"huge\":1e999,\"nul\":\"\\u0000\"}");
    struct filter_subject s;
    filter_subject_init(&s, &e);
    uint8_t scratch[64];
    struct slice out;
    for (size_t i = 0; i < COUNT(rows); i++) {
        bool found =
            filter_subject_value(&s, slice_str(rows[i].name), scratch, sizeof scratch, &out);
        assert_int_equal(found, rows[i].value != NULL);
        if (found && !slice_eq_str(out, rows[i].value)) fail_msg("%s", rows[i].name);
    }
    /* What cannot be compared is a key of its own all the same. */
    assert_true(filter_subject_value(&s, slice_str("huge"), scratch, sizeof scratch, &out));
    assert_int_equal(out.data[0], 0xFF);
    assert_true(filter_subject_value(&s, slice_str("nul"), scratch, sizeof scratch, &out));
    assert_int_equal(out.data[0], 0xFF);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_place_of_what_is_wrong),
        cmocka_unit_test(test_every_bound),
        cmocka_unit_test(test_depth_is_bounded_and_its_place_told),
        cmocka_unit_test(test_the_canonical_text),
        cmocka_unit_test(test_types_sources_and_subject),
        cmocka_unit_test(test_endpoints),
        cmocka_unit_test(test_conditions),
        cmocka_unit_test(test_the_example),
        cmocka_unit_test(test_pointers),
        cmocka_unit_test(test_more_members_than_are_noted),
        cmocka_unit_test(test_user_metadata_is_parsed_only_if_it_must_be),
        cmocka_unit_test(test_scalars_compare_by_value),
        cmocka_unit_test(test_the_value_under_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
