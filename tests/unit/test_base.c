/* The small parts of base/ and their edges. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/base64.h"
#include "base/buf.h"
#include "base/crc32c.h"
#include "base/glob.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "base/prng.h"
#include "base/rfc3339.h"

/* Runs fn in a child, which must abort. */
static void assert_aborts(void (*fn)(void)) {
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL) _exit(1);
        fn();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void test_slice(void **state) {
    char text[4];
    uint64_t n = 7;
    (void)state;
    assert_true(slice_eq(slice_of(NULL, 0), slice_str("")));
    assert_false(slice_eq(slice_str("a"), slice_str("b")));
    assert_true(slice_eq_nocase(slice_str("X-aBc[\xC3\x89"), "x-AbC[\xC3\x89"));
    assert_false(slice_eq_nocase(slice_str("["), "{")); /* only letters fold */
    assert_false(slice_eq_nocase(slice_str("\xC3\x89"), "\xC3\xA9"));
    assert_true(slice_starts_with(slice_of(NULL, 0), ""));
    assert_true(slice_starts_with(slice_str("abc"), "ab"));
    assert_false(slice_starts_with(slice_str("a"), "ab"));
    assert_int_equal(slice_from(slice_of(NULL, 0), 0).len, 0);
    assert_true(slice_eq_str(slice_from(slice_str("abc"), 2), "c"));
    assert_int_equal(slice_from(slice_str("abc"), 3).len, 0);
    assert_true(slice_to_cstr(slice_str("abc"), text, sizeof text));
    assert_string_equal(text, "abc");
    assert_false(slice_to_cstr(slice_str("abcd"), text, sizeof text));
    assert_string_equal(text, "");
    assert_false(slice_to_cstr(slice_of("a\0b", 3), text, sizeof text));
    assert_true(slice_to_cstr(slice_of(NULL, 0), text, sizeof text));
    assert_true(slice_to_u64(slice_str("18446744073709551615"), &n) && n == UINT64_MAX);
    assert_true(slice_to_u64(slice_str("007"), &n) && n == 7);
    const char *const bad[] = {
        "", "18446744073709551616", "99999999999999999999", "+1", "-1", " 1", "1 ", "1x", "0x1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(slice_to_u64(slice_str(bad[i]), &n));
    }
    assert_int_equal(n, 7);
}

static void test_buf(void **state) {
    struct buf b;
    (void)state;
    buf_init(&b, 10);
    assert_true(buf_append(&b, NULL, 0));
    assert_true(buf_append_str(&b, "hello"));
    assert_false(buf_append_str(&b, "world!"));
    assert_true(b.overflow && slice_eq_str(buf_slice(&b), "hello"));
    assert_true(buf_printf(&b, "%s%d", "worl", 1)); /* to the last byte */
    assert_false(buf_append_byte(&b, 'x'));
    assert_false(buf_printf(&b, "x"));
    assert_true(slice_eq_str(buf_slice(&b), "helloworl1"));
    assert_null(buf_reserve(&b, 1));
    assert_non_null(buf_reserve(&b, 0));
    buf_consume(&b, 5);
    assert_true(slice_eq_str(buf_slice(&b), "worl1"));
    buf_consume(&b, 0);
    buf_consume(&b, 5);
    assert_int_equal(b.len, 0);
    buf_clear(&b);
    assert_false(b.overflow);
    buf_free(&b);
    assert_true(b.data == NULL && b.max == 10);
    assert_true(buf_append_str(&b, "again"));
    buf_free(&b);

    buf_init(&b, 1 << 20); /* growth keeps what is there */
    for (int i = 0; i < 100000; i++) {
        size_t cap = buf_cap_after(&b, 1);
        assert_true(buf_append_byte(&b, (uint8_t)(i * 7)));
        assert_int_equal(b.cap, cap); /* as it was told before */
    }
    assert_int_equal(buf_cap_after(&b, b.max - b.len), b.max);
    for (int i = 0; i < 100000; i++) assert_int_equal(b.data[i], (uint8_t)(i * 7));
    assert_true(b.cap <= b.max);
    buf_free(&b);
    buf_init(&b, 0);
    assert_false(buf_append_byte(&b, 1));
    assert_true(buf_printf(&b, "%s", ""));
    buf_free(&b);
}

static void assert_json(struct slice text, const char *want) {
    struct buf b;
    buf_init(&b, 1000);
    assert_true(buf_append_json_string(&b, text));
    assert_true(slice_eq_str(buf_slice(&b), want));
    buf_free(&b);
}

static void test_json_strings(void **state) {
    struct buf b;
    (void)state;
    assert_json(slice_of(NULL, 0), "\"\"");
    assert_json(slice_str("a\"b\\c/\n\t\x01\x7f"), "\"a\\\"b\\\\c/\\n\\u0009\\u0001\x7f\"");
    assert_json(slice_of("\0", 1), "\"\\u0000\"");
    assert_json(slice_str("\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"),
                "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"");
#define BAD "\xEF\xBF\xBD"
    assert_json(slice_str("\xC3"), "\"" BAD "\"");                         /* cut off */
    assert_json(slice_str("\xC0\x80"), "\"" BAD BAD "\"");                 /* overlong */
    assert_json(slice_str("\xE0\x9F\xBF"), "\"" BAD BAD BAD "\"");         /* overlong */
    assert_json(slice_str("\xED\xA0\x80"), "\"" BAD BAD BAD "\"");         /* surrogate */
    assert_json(slice_str("\xF4\x90\x80\x80"), "\"" BAD BAD BAD BAD "\""); /* above U+10FFFF */
    assert_json(slice_str("\xE2\x82x\xFF"), "\"" BAD BAD "x" BAD "\"");
    for (size_t max = 0; max < 9; max++) { /* no half of a string */
        buf_init(&b, max);
        bool fits = buf_append_json_string(&b, slice_str("ab\ncd"));
        assert_int_equal(fits, max >= 8);
        assert_int_equal(b.len, fits ? 8 : 0);
        assert_int_equal(b.overflow, !fits);
        buf_free(&b);
    }
}

static void test_arena(void **state) {
    struct arena a;
    (void)state;
    arena_init(&a);
    arena_reset(&a);
    uint8_t *pieces[2000];
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < 2000; i++) {
            pieces[i] = arena_alloc(&a, i);
            assert_int_equal((uintptr_t)pieces[i] % 8, 0);
            memset(pieces[i], (int)i, i);
        }
        memset(arena_alloc(&a, 1 << 20), 1, 1 << 20);
        assert_true(a.used_bytes >= 2000 * 1999 / 2 + (1 << 20));
        for (size_t i = 1; i < 2000; i++) {
            assert_int_equal(pieces[i][0], (uint8_t)i);
            assert_int_equal(pieces[i][i - 1], (uint8_t)i);
        }
        uint8_t *first = pieces[1];
        arena_reset(&a);
        assert_int_equal(a.used_bytes, 0);
        assert_ptr_equal(arena_alloc(&a, 1), first); /* the first chunk was kept */
        arena_reset(&a);
    }
    struct slice s = slice_str("copied"), copy = arena_copy(&a, s);
    assert_true(slice_eq(copy, s) && copy.data != s.data);
    assert_int_equal(arena_copy(&a, slice_of(NULL, 0)).len, 0);
    arena_free(&a);
    memset(arena_alloc(&a, 1 << 20), 1, 1 << 20);
    arena_reset(&a); /* a chunk for one large request is not kept */
    assert_null(a.first);
    arena_free(&a);
}

static void arena_of_everything(void) {
    struct arena a;
    arena_init(&a);
    (void)arena_alloc(&a, SIZE_MAX - 3);
}

struct element {
    struct list link;
    int n;
};

static void test_list(void **state) {
    struct list head;
    struct element e[5];
    (void)state;
    list_init(&head);
    assert_true(list_empty(&head) && list_first(&head) == NULL);
    for (int i = 0; i < 5; i++) {
        e[i].n = i;
        list_init(&e[i].link);
        list_unlink(&e[i].link); /* harmless outside */
    }
    list_push_back(&head, &e[1].link);
    list_push_back(&head, &e[3].link);
    list_push_front(&head, &e[0].link);
    list_insert_before(&e[3].link, &e[2].link);
    list_push_back(&head, &e[4].link);
    int want = 0;
    LIST_FOR(n, next_n, &head) {
        struct element *at = CONTAINER_OF(n, struct element, link);
        assert_int_equal(at->n, want++);
        if (at->n % 2 == 0) list_unlink(n);
    }
    assert_int_equal(want, 5);
    assert_ptr_equal(list_first(&head), &e[1].link);
    assert_true(head.prev == &e[3].link && e[1].link.next == &e[3].link);
    list_unlink(&e[1].link);
    list_unlink(&e[1].link);
    list_unlink(&e[3].link);
    assert_true(list_empty(&head));
}

static void test_heap(void **state) {
    enum { COUNT = 500 };
    struct heap h;
    static struct heap_node nodes[COUNT];
    struct prng p;
    (void)state;
    prng_seed(&p, 1);
    heap_init(&h);
    assert_null(heap_min(&h));
    for (int i = 0; i < COUNT; i++) heap_node_init(&nodes[i]);
    heap_remove(&h, &nodes[0]); /* harmless outside */
    for (int round = 0; round < 20000; round++) {
        struct heap_node *n = &nodes[prng_below(&p, COUNT)];
        if (heap_contains(n)) heap_remove(&h, n);
        else heap_insert(&h, n, prng_below(&p, 50));
        if (round % 64 == 0) heap_check(&h);
        size_t inside = 0;
        if (round % 997 != 0) continue;
        for (int i = 0; i < COUNT; i++) {
            inside += heap_contains(&nodes[i]);
            if (heap_contains(&nodes[i])) assert_true(nodes[i].at_ms >= heap_min(&h)->at_ms);
        }
        assert_int_equal(inside, h.len);
    }
    uint64_t at_ms = 0, order = 0;
    for (struct heap_node *n; (n = heap_min(&h)) != NULL; heap_remove(&h, n)) {
        assert_true(n->at_ms > at_ms || (n->at_ms == at_ms && n->order >= order));
        at_ms = n->at_ms;
        order = n->order;
    }
    heap_insert(&h, &nodes[0], UINT64_MAX);
    assert_ptr_equal(heap_min(&h), &nodes[0]);
    heap_free(&h);
}

/* Against an array, with keys that crowd a small table and wrap around its end. */
static void test_map(void **state) {
    enum { KEYS = 300 };
    struct map m;
    struct prng p;
    void *want[KEYS] = {NULL};
    static char values[KEYS];
    size_t count = 0;
    (void)state;
    map_init(&m);
    prng_seed(&p, 2);
    assert_null(map_get(&m, 0));
    assert_null(map_remove(&m, 0));
    for (int round = 0; round < 50000; round++) {
        uint64_t limit = round % 5000 < 2500 ? KEYS : 10; /* grows, then empties */
        uint64_t key = prng_below(&p, KEYS);
        if (want[key] == NULL && prng_below(&p, KEYS) < limit) {
            want[key] = &values[key];
            map_add(&m, key, want[key]);
            count++;
        } else {
            assert_ptr_equal(map_remove(&m, key), want[key]);
            count -= want[key] != NULL;
            want[key] = NULL;
        }
        assert_int_equal(m.len, count);
        assert_true(m.cap == 0 || m.len <= m.cap / 4 * 3);
        if (round % 100 != 0) continue;
        for (uint64_t i = 0; i < KEYS; i++) assert_ptr_equal(map_get(&m, i), want[i]);
    }
    map_free(&m);
    assert_null(map_get(&m, 1));
}

static void add_twice(void) {
    struct map m;
    map_init(&m);
    map_add(&m, UINT64_MAX, &m);
    map_add(&m, UINT64_MAX, &m);
}

static void insert_twice(void) {
    struct heap h;
    struct heap_node n;
    heap_init(&h);
    heap_node_init(&n);
    heap_insert(&h, &n, 1);
    heap_insert(&h, &n, 1);
}

static void consume_too_much(void) {
    struct buf b;
    buf_init(&b, 10);
    buf_append_str(&b, "ab");
    buf_consume(&b, 3);
}

static void bound_of_zero(void) {
    struct prng p;
    prng_seed(&p, 1);
    (void)prng_below(&p, 0);
}

static void test_misuse_aborts(void **state) {
    (void)state;
    assert_aborts(add_twice);
    assert_aborts(insert_twice);
    assert_aborts(consume_too_much);
    assert_aborts(bound_of_zero);
    assert_aborts(arena_of_everything);
}

static void test_base64(void **state) {
    /* RFC 4648 section 10. */
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    char text[64];
    uint8_t bytes[64];
    (void)state;
    for (size_t i = 0; i < 7; i++) {
        size_t len = strlen(pairs[i][0]);
        base64_encode(slice_str(pairs[i][0]), text);
        assert_string_equal(text, pairs[i][1]);
        assert_int_equal(BASE64_LEN(len), strlen(text));
        assert_int_equal(base64_decode(slice_str(text), bytes, len), len); /* exactly the room */
        assert_memory_equal(bytes, pairs[i][0], len);
        if (len > 0) assert_int_equal(base64_decode(slice_str(text), bytes, len - 1), -1);
        *strchrnul(text, '=') = '\0'; /* padding may be absent */
        assert_int_equal(base64_decode(slice_str(text), bytes, len), len);
    }
    static const char *const bad[] = {"=",     "==",     "===",   "====",     "Z",    "Zg=",
                                      "Zg===", "Zm8==",  "Zm9v=", "Zh==",     "Zm9=", "Zg=\n",
                                      "Z g=",  "Zm9v\n", "-_-_",  "Zg==Zg==", "Z===", "\xC3\xA9=="};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(base64_decode(slice_str(bad[i]), bytes, sizeof bytes), -1);
    }
    assert_int_equal(base64_decode(slice_of("Zg\0=", 4), bytes, sizeof bytes), -1);
    uint8_t all[48];
    for (int start = 0; start < 256; start++) {
        for (size_t i = 0; i < sizeof all; i++) all[i] = (uint8_t)((size_t)start + i * 5);
        char long_text[BASE64_LEN(sizeof all) + 1];
        base64_encode(slice_of(all, sizeof all), long_text);
        assert_int_equal(base64_decode(slice_str(long_text), bytes, sizeof bytes), sizeof all);
        assert_memory_equal(bytes, all, sizeof all);
    }
    hex_encode(slice_of("\x00\x9f\xff", 3), text);
    assert_string_equal(text, "009fff");
    hex_encode(slice_of(NULL, 0), text);
    assert_string_equal(text, "");
}

static void test_rfc3339(void **state) {
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01T00:00:00.001Z", 1},
        {"2000-02-29T12:34:56Z", 951827696000},
        {"2024-02-29t23:59:59.5z", 1709251199500},
        {"2024-03-01 00:00:00.123456789Z", 1709251200123},
        {"2024-03-01T02:30:00+02:30", 1709251200000},
        {"2024-02-29T19:00:00-05:00", 1709251200000},
        {"1969-12-31T23:00:00-01:00", 0},
        {"9999-12-31T23:59:59.999Z", 253402300799999},
    };
    static const char *const bad[] = {
        "",
        "1970-01-01T00:00:00",
        "1969-12-31T23:59:59Z",
        "0000-01-01T00:00:00Z",
        "1970-01-01T00:30:00+01:00",
        "2023-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2024-00-10T00:00:00Z",
        "2024-13-10T00:00:00Z",
        "2024-04-31T00:00:00Z",
        "2024-01-00T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:60:00Z",
        "2016-12-31T23:59:60Z",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00+0100",
        "2024-01-01T00:00:00+24:00",
        "2024-01-01T00:00:00+01:60",
        "2024-01-01T00:00:00ZZ",
        "2024-1-01T00:00:00Z",
        "+024-01-01T00:00:00Z",
        "2024-01-01T00:00:00+",
    };
    uint64_t ms;
    char text[RFC3339_SIZE];
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(rfc3339_parse(slice_str(good[i].text), &ms));
        assert_true(ms == good[i].ms);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ms = 42;
        assert_false(rfc3339_parse(slice_str(bad[i]), &ms));
        assert_int_equal(ms, 42);
    }
    assert_false(rfc3339_parse(slice_of("2024-01-01\0"
                                        "00:00:00Z",
                                        20),
                               &ms));
    rfc3339_format(951827696007, text);
    assert_string_equal(text, "2000-02-29T12:34:56.007Z");
    rfc3339_format(UINT64_MAX, text); /* nonsense, but text of the right shape */
    assert_int_equal(strlen(text), 24);
    struct prng p;
    prng_seed(&p, 3);
    for (int i = 0; i < 20000; i++) {
        uint64_t want = prng_below(&p, 253402300800000);
        rfc3339_format(want, text);
        assert_true(rfc3339_parse(slice_str(text), &ms) && ms == want);
    }
}

static bool glob(const char *pattern, const char *text) {
    return glob_match(slice_str(pattern), slice_str(text));
}

static void test_glob(void **state) {
    (void)state;
    assert_true(glob("", "") && glob("*", "") && glob("**", "") && glob("*", "any.thing"));
    assert_false(glob("", "a"));
    assert_false(glob("a", ""));
    assert_true(glob("batch.*", "batch.succeeded") && glob("batch.*", "batch.item.done"));
    assert_true(glob("batch.*", "batch."));
    assert_false(glob("batch.*", "batch"));
    assert_false(glob("batch.*", "xbatch.done"));
    assert_true(glob("*.done", "a.b.done") && glob("*.done", ".done"));
    assert_false(glob("*.done", "done"));
    assert_true(glob("a*b*c", "abbbc") && glob("a*b*c", "abcbc") && glob("*ab", "aab"));
    assert_false(glob("a*b*c", "acb"));
    assert_true(glob("a**b", "ab"));
    assert_false(glob("ab*", "a"));
    assert_false(glob("Batch", "batch"));
    assert_false(glob("a?c", "abc")); /* only the star is special */
    assert_true(glob("[a].?", "[a].?"));
    assert_true(glob_match(slice_of("*\0", 2), slice_of("a\0", 2)));
    char text[4001], pattern[200];
    memset(text, 'a', 4000);
    text[4000] = '\0';
    for (size_t i = 0; i < 198; i += 2) memcpy(pattern + i, "a*", 2);
    memcpy(pattern + 198, "b", 2);
    assert_false(glob(pattern, text)); /* would not end if it were exponential */
}

static void test_crc32c(void **state) {
    uint8_t bytes[300];
    (void)state;
    assert_int_equal(crc32c("123456789", 9), 0xE3069283);
    assert_int_equal(crc32c(NULL, 0), 0);
    memset(bytes, 0, 32);
    assert_int_equal(crc32c(bytes, 32), 0x8A9136AA); /* RFC 3720 B.4 */
    memset(bytes, 0xFF, 32);
    assert_int_equal(crc32c(bytes, 32), 0x62A8AB43);
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 37);
    for (size_t at = 0; at < 9; at++) { /* every alignment and length, against the definition */
        for (size_t len = 0; len < 64; len++) {
            uint32_t crc = 0xFFFFFFFF;
            for (size_t i = 0; i < len; i++) {
                crc ^= bytes[at + i];
                for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78 : 0);
            }
            assert_int_equal(crc32c(bytes + at, len), crc ^ 0xFFFFFFFF);
        }
    }
}

static void test_prng(void **state) {
    struct prng a, b;
    uint64_t seen[10] = {0};
    (void)state;
    prng_seed(&a, 0);
    assert_true(a.s[0] == 0xE220A8397B1DCDAF); /* splitmix64's first number for 0 */
    assert_true(prng_next(&a) == 0x99EC5F36CB75F2B4);
    prng_seed(&a, 9);
    prng_seed(&b, 9);
    for (int i = 0; i < 10000; i++) {
        assert_true(prng_next(&a) == prng_next(&b));
        uint64_t n = prng_below(&a, 10);
        assert_true(n < 10);
        (void)prng_below(&b, 10);
        seen[n]++;
    }
    for (int i = 0; i < 10; i++) assert_true(seen[i] > 800 && seen[i] < 1200);
    assert_int_equal(prng_below(&a, 1), 0);
    prng_seed(&b, 10);
    assert_true(prng_next(&a) != prng_next(&b));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slice),        cmocka_unit_test(test_buf),
        cmocka_unit_test(test_json_strings), cmocka_unit_test(test_arena),
        cmocka_unit_test(test_list),         cmocka_unit_test(test_heap),
        cmocka_unit_test(test_map),          cmocka_unit_test(test_misuse_aborts),
        cmocka_unit_test(test_base64),       cmocka_unit_test(test_rfc3339),
        cmocka_unit_test(test_glob),         cmocka_unit_test(test_crc32c),
        cmocka_unit_test(test_prng),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
