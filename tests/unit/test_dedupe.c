/* How a repeat is told: by id or by body, within a source's own window; and what an id costs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>

#include "broker/engine/dedupe.h"
#include "engine_world.h"

static void publish(struct world *w, const char *id, const char *body, uint64_t dedupe_ms,
                    bool by_body) {
    const struct event event = {
        .source = slice_str("s"), .id = slice_str(id), .body = slice_str(body)};
    const struct command c = {
        .kind = COMMAND_PUBLISH,
        .project = PROJECT_DEFAULT,
        .u.publish = {
            .events = &event, .count = 1, .dedupe_ms = dedupe_ms, .dedupe_by_body = by_body}};
    world_run(w, &c);
}

static void by_body(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    publish(&w, "a", "1", 0, true);
    publish(&w, "b", "1", 0, true); /* another id, the same bytes */
    publish(&w, "", "1", 0, true);  /* none */
    publish(&w, "a", "2", 0, true); /* the same id, other bytes */
    publish(&w, "", "", 0, true);
    publish(&w, "x", "", 0, true);
    world_crash(&w);
    publish(&w, "c", "1", 0, true);
    world_expect(&w,
                 "[1000] published 1\n[1000] published 1 duplicate\n"
                 "[1000] published 1 duplicate\n[1000] published 2\n[1000] published 3\n"
                 "[1000] published 3 duplicate\n[1000] published 1 duplicate\n");
    world_close(&w);
}

static void a_window_of_its_own(void **state) {
    (void)state;
    struct world w = {0};
    world_open(&w);
    publish(&w, "a", "1", 500, false);
    world_wait(&w, 499);
    publish(&w, "a", "1", 500, false);
    world_wait(&w, 1);
    publish(&w, "a", "1", 500, false); /* the first is too old; this one begins anew */
    publish(&w, "a", "1", 500, false);
    world_wait(&w, 100);
    publish(&w, "a", "1", 0, false); /* the oldest that is known */
    world_expect(&w,
                 "[1000] published 1\n[1499] published 1 duplicate\n[1500] published 2\n"
                 "[1500] published 2 duplicate\n[1600] published 1 duplicate\n");
    world_close(&w);
}

/* Two generations of a table that doubles at three quarters: 8 bytes a slot. */
static void an_id_costs_at_most_24_bytes(void **state) {
    (void)state;
    struct dedupe d;
    dedupe_init(&d, 1 << 20, UINT64_MAX);
    for (uint64_t i = 1; i <= 3 << 20; i++) {
        dedupe_add(&d, i * 0x9e3779b97f4a7c15ULL, i, 1);
        size_t bytes = 8 * (d.current.cap + d.previous.cap), ids = d.current.len + d.previous.len;
        if (ids > 10000) assert_true(bytes <= 24 * ids);
    }
    dedupe_free(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_body),
        cmocka_unit_test(a_window_of_its_own),
        cmocka_unit_test(an_id_costs_at_most_24_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
