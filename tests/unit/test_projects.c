/* The table of projects over a real engine: what is stored comes back, a number never does, and
 * what cannot be is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/auth/projects.h"
#include "tests/unit/engine_world.h"

#define ROOM 6

struct table {
    struct world w;
    struct projects *projects;
    size_t parts, answers; /* effects of the two routes */
};

static const struct route to_part = {.room = ROOM, .rid = 1}, to_test = {.room = ROOM, .rid = 2};

static void on_effect(void *ctx, const struct effect *e) {
    struct table *t = ctx;
    if (e->route.room != ROOM) return;
    assert_int_equal(e->err, ERR_OK);
    if (e->route.rid == 1) t->parts++;
    else t->answers++;
}

static int open_table(void **state) {
    struct table *t = mem_zalloc(sizeof *t);
    char error[300];
    world_open(&t->w);
    t->w.quiet = true;
    t->w.on_effect = on_effect;
    t->w.on_effect_ctx = t;
    t->projects = projects_new(t->w.engine);
    assert_int_equal(projects_load(t->projects, error, sizeof error), 0);
    *state = t;
    return 0;
}

static int close_table(void **state) {
    struct table *t = *state;
    projects_free(&t->projects);
    world_close(&t->w);
    free(t);
    return 0;
}

/* Power loss and restart. */
static int reopen(struct table *t, char *error, size_t size) {
    projects_free(&t->projects);
    world_crash(&t->w);
    t->projects = projects_new(t->w.engine);
    return projects_load(t->projects, error, size);
}

static void reopen_well(struct table *t) {
    char error[300] = "";
    if (reopen(t, error, sizeof error) != 0) fail_msg("%s", error);
}

static uint32_t step_create(struct table *t, const char *name) {
    const struct project_info *made =
        projects_create(t->projects, t->w.time, to_part, to_test, slice_str(name));
    assert_string_equal(made->name, name);
    return made->id;
}

static uint32_t create(struct table *t, const char *name) {
    uint32_t id = step_create(t, name);
    world_turn(&t->w);
    return id;
}

static void step_delete(struct table *t, uint32_t id) {
    projects_delete(t->projects, t->w.time, to_test, id);
}

/* "b:3 default:1 ", in order of name. */
static void assert_listed(const struct table *t, const char *expected) {
    char text[400] = "";
    size_t len = 0, count = 0;
    const struct project_info *p = projects_next(t->projects, slice_of(NULL, 0));
    for (; p != NULL; p = projects_next(t->projects, slice_str(p->name)), count++) {
        len += (size_t)snprintf(text + len, sizeof text - len, "%s:%u ", p->name, p->id);
        assert_ptr_equal(projects_find(t->projects, slice_str(p->name)), p);
        assert_ptr_equal(projects_get(t->projects, p->id), p);
    }
    assert_string_equal(text, expected);
    assert_int_equal(count, projects_count(t->projects));
}

static void the_default_one_is_always_there(void **state) {
    struct table *t = *state;
    assert_listed(t, "default:1 ");
    assert_int_equal(projects_get(t->projects, PROJECT_DEFAULT)->created_at_ms, 0);
    assert_null(projects_find(t->projects, slice_str("Default")));
    assert_null(projects_find(t->projects, slice_str("")));
    assert_null(projects_find(t->projects, slice_str("defaul")));
    assert_null(projects_get(t->projects, 0));
    assert_null(projects_get(t->projects, 2));
    assert_null(projects_next(t->projects, slice_str("default")));
}

static void they_are_listed_by_name_and_come_back(void **state) {
    struct table *t = *state;
    const char *const all = "a:3 a.b:5 b:2 default:1 z:4 ";
    create(t, "b");
    create(t, "a");
    create(t, "z");
    create(t, "a.b");
    assert_listed(t, all);
    assert_int_equal(t->answers, 4);
    assert_int_equal(t->parts, 4);
    uint64_t created = projects_find(t->projects, slice_str("z"))->created_at_ms;
    assert_int_equal(created, t->w.time.wall_ms);
    /* A place between two goes on at the next, whether it is there or not. */
    assert_string_equal(projects_next(t->projects, slice_str("a.a"))->name, "a.b");
    assert_string_equal(projects_next(t->projects, slice_str("a"))->name, "a.b");
    reopen_well(t);
    assert_listed(t, all);
    assert_int_equal(projects_find(t->projects, slice_str("z"))->created_at_ms, created);
}

static void a_number_is_never_used_again(void **state) {
    struct table *t = *state;
    assert_int_equal(create(t, "a"), 2);
    step_delete(t, 2);
    assert_null(projects_get(t->projects, 2));
    world_turn(&t->w);
    assert_listed(t, "default:1 ");
    reopen_well(t);
    assert_int_equal(create(t, "a"), 3);
    step_delete(t, 3);
    /* In one turn: gone, and made anew under the same name. */
    assert_int_equal(step_create(t, "a"), 4);
    world_turn(&t->w);
    reopen_well(t);
    assert_listed(t, "a:4 default:1 ");
    assert_int_equal(create(t, "b"), 5);
}

/* What was not durable is gone, whole. */
static void what_was_not_durable_is_gone(void **state) {
    struct table *t = *state;
    create(t, "a");
    step_create(t, "b");
    step_delete(t, 2);
    reopen_well(t);
    assert_listed(t, "a:2 default:1 ");
    assert_int_equal(create(t, "c"), 3); /* nobody has heard of b's number */
}

static void put(struct table *t, const char *key, const char *value) {
    struct command c = {.kind = COMMAND_CONFIG_PUT,
                        .route = to_test,
                        .u.config = {slice_str(key), slice_str(value)}};
    world_run(&t->w, &c);
}

static void what_cannot_be_is_named(void **state) {
    static const struct {
        const char *key, *value, *why;
    } bad[] = {
        {"project/x", "{", "\"x\" cannot be read"},
        {"project/x", "{}", "number 0 was never given out"},
        {"project/x", "{\"number\":1}", "number 1 was never given out"},
        {"project/x", "{\"number\":3}", "number 3 was never given out"},
        {"project/x", "{\"number\":2}", "number 2 was never given out, or to another one"},
        {"project/x", "{\"number\":4294967296}", "number must be"},
        {"project/x", "{\"number\":\"2\"}", "number must be"},
        {"project/a b", "{\"number\":2}", "its name is not one of a project"},
        {"project/", "{\"number\":2}", "its name is not one of a project"},
        {"project/default", "{\"number\":2}", "its name is not one of a project"},
        {"next-project", "{\"number\":1}", "number of the next project"},
        {"next-project", "{}", "number of the next project"},
        {"next-project", "", "number of the next project"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        void *made = NULL;
        char error[300] = "";
        open_table(&made);
        struct table *t = made;
        create(t, "a"); /* 2: the next one is 3 */
        put(t, bad[i].key, bad[i].value);
        assert_int_equal(reopen(t, error, sizeof error), ERR_STORE);
        if (strstr(error, bad[i].why) == NULL) fail_msg("%s: %s", bad[i].value, error);
        close_table(&made);
    }
}

/* Numbers that were given out are not forgotten together with the counter. */
static void a_missing_counter_is_damage(void **state) {
    struct table *t = *state;
    char error[300] = "";
    create(t, "a");
    struct command c = {.kind = COMMAND_CONFIG_DELETE,
                        .route = to_test,
                        .u.config = {.key = slice_str("next-project")}};
    world_run(&t->w, &c);
    assert_int_equal(reopen(t, error, sizeof error), ERR_STORE);
    assert_non_null(strstr(error, "\"a\" cannot be read"));
}

int main(void) {
#define TABLE_TEST(name) cmocka_unit_test_setup_teardown(name, open_table, close_table)
    const struct CMUnitTest tests[] = {
        TABLE_TEST(the_default_one_is_always_there),
        TABLE_TEST(they_are_listed_by_name_and_come_back),
        TABLE_TEST(a_number_is_never_used_again),
        TABLE_TEST(what_was_not_durable_is_gone),
        cmocka_unit_test(what_cannot_be_is_named),
        TABLE_TEST(a_missing_counter_is_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
