/* Endpoints of an event's own: bounds, who is asked for them, and that they go along wherever the
 * event waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/engine_world.h"

#define URIS "https://a.example/h\nhttps://b.example/"
#define HOUR (3600 * (uint64_t)1000)

/* size bytes of lines of `line` bytes each. */
static struct slice lines(char *out, size_t count, size_t line) {
    memset(out, 'u', count * (line + 1));
    for (size_t i = 1; i < count; i++) out[i * (line + 1) - 1] = '\n';
    return slice_of(out, count * (line + 1) - 1);
}

static void endpoints_are_bounded(void **state) {
    (void)state;
    static char text[LIMIT_EVENT_ENDPOINTS_BYTES + LIMIT_URI_BYTES + 2];
    struct world w = {0};
    struct policy p = world_policy();
    world_open_with(&w, &p);
    static const char *const wrong[] = {"\n", "a\n", "\na", "a\n\nb", "1\n2\n3\n4\n5\n6\n7\n8\n9"};
    struct event event = {.type = slice_str("t")};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(endpoints_ok(slice_str(wrong[i])));
        event.endpoints = slice_str(wrong[i]);
        world_event(&w, &event);
    }
    assert_true(endpoints_ok(slice_of(NULL, 0)));
    assert_true(endpoints_ok(lines(text, 1, 1)));
    assert_true(endpoints_ok(lines(text, LIMIT_ENDPOINTS, LIMIT_URI_BYTES)));
    assert_false(endpoints_ok(lines(text, 1, LIMIT_URI_BYTES + 1)));
    event.endpoints = lines(text, LIMIT_ENDPOINTS + 1, LIMIT_URI_BYTES);
    world_event(&w, &event);
    event.endpoints = lines(text, LIMIT_ENDPOINTS, LIMIT_URI_BYTES);
    world_event(&w, &event);
#define REFUSED                                                                                    \
    "[1000] error invalid_request: webhook_config.uris: at most 8 URIs of 1 to 2048 bytes\n"
    world_expect(&w, REFUSED REFUSED REFUSED REFUSED REFUSED
                 "[1000] error too_large: webhook_config.uris: at most 16392 bytes\n"
                 "[1000] published 1\n");
    world_close(&w);
}

static void create(struct world *w, const char *name, const char *filter) {
    struct policy p = world_policy();
    p.filter = slice_str(filter);
    world_create(w, name, NULL, &p, START_NEW);
}

/* As webhooks ask for them. */
static void each_goes_where_it_is_wanted(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    create(&w, "static", "{\"types\":[\"batch.*\"],\"not\":{\"endpoint\":0}}");
    create(&w, "first", "{\"endpoint\":0}");
    create(&w, "second", "{\"endpoint\":1}");
    create(&w, "third", "{\"endpoint\":2}");
    world_attach(&w, 1, "static", 8, 0);
    world_attach(&w, 2, "first", 8, 0);
    world_attach(&w, 3, "second", 8, 0);
    world_attach(&w, 4, "third", 8, 0);
    buf_clear(&w.log);
    world_publish(&w, "batch.done", "");
    struct event event = {.type = slice_str("batch.done"), .endpoints = slice_str(URIS)};
    world_event(&w, &event);
    event.endpoints = slice_str("https://a.example/");
    world_event(&w, &event);
    world_show(&w, "static");
    world_show(&w, "third");
    world_expect(&w,
                 "[1000] published 1\n"
                 "[1000] 1 < tag 1 seq 1 batch.done fails 0 deliveries 1\n"
                 "[1000] published 2\n"
                 "[1000] 2 < tag 1 seq 2 batch.done fails 0 deliveries 1\n"
                 "[1000] 3 < tag 1 seq 2 batch.done fails 0 deliveries 1\n"
                 "[1000] published 3\n"
                 "[1000] 2 < tag 2 seq 3 batch.done fails 0 deliveries 1\n"
                 "static: floor 1 next 4 ready 0 leased 1 delayed 0 dead 0 idle empty\n"
                 "third: floor 4 next 4 ready 0 leased 0 delayed 0 dead 0 idle empty\n");
    world_close(&w);
}

static void check_endpoints(void *ctx, const struct effect *f) {
    if (f->kind != EFFECT_DELIVER) return;
    assert_true(slice_eq_str(f->u.deliver.event.endpoints, URIS));
    ++*(int *)ctx;
}

static bool check_dead(void *ctx, const struct dead_letter *d) {
    assert_true(slice_eq_str(d->event.endpoints, URIS));
    ++*(int *)ctx;
    return true;
}

static void they_go_along(void **state) {
    (void)state;
    struct policy p = world_policy();
    int delivered = 0, dead = 0;
    struct world w = {.on_effect = check_endpoints, .on_effect_ctx = &delivered};
    world_open_with(&w, &p);
    struct event event = {
        .type = slice_str("t"), .endpoints = slice_str(URIS), .body = slice_str("{}")};
    world_attach(&w, 1, "s", 8, 0);
    world_event(&w, &event); /* from its own turn */
    assert_int_equal(delivered, 1);
    world_restart(&w);
    world_attach(&w, 1, "s", 8, 0); /* from the journal */
    assert_int_equal(delivered, 2);
    world_nack(&w, 1, 1, NACK_FAIL, HOUR, "boom");
    world_wait(&w, HOUR); /* from where it waited on disk */
    assert_int_equal(delivered, 3);
    world_nack(&w, 1, 2, NACK_REJECT, 0, "no use");
    assert_true(
        engine_dead_scan(w.engine, PROJECT_DEFAULT, slice_str("s"), 0, 0, check_dead, &dead));
    store_end_reads(w.store);
    assert_int_equal(dead, 1);
    world_task(&w, TASK_REDRIVE, "s", 0, 0, 0, "");
    world_wait(&w, 1);
    assert_int_equal(delivered, 4);
    world_task(&w, TASK_REPLAY, "s", 1, 1, 0, "");
    assert_int_equal(delivered, 5);
    assert_true(engine_event_get(w.engine, PROJECT_DEFAULT, 1, &event));
    assert_true(slice_eq_str(event.endpoints, URIS));
    store_end_reads(w.store);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(endpoints_are_bounded),
        cmocka_unit_test(each_goes_where_it_is_wanted),
        cmocka_unit_test(they_go_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
