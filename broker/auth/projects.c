/* The tenants' names: kept in order of name, found by number too. */
#include "broker/auth/projects.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/map.h"
#include "broker/fields/fields.h"
#include "broker/fields/put.h"

#define NEXT_KEY     "next-project"
#define RECORD_BYTES 256

static const struct project_info default_project = {.id = PROJECT_DEFAULT,
                                                    .name = PROJECT_DEFAULT_NAME};

struct projects {
    struct engine *engine;
    struct project_info **in_order; /* of name; owned, but for the default one */
    size_t count, cap;
    struct map by_id;
    uint32_t next_id;
};

static int name_compare(const struct project_info *project, struct slice name) {
    size_t len = strlen(project->name);
    int order = memcmp(project->name, name.data, len < name.len ? len : name.len);
    if (order != 0) return order;
    return len < name.len ? -1 : len > name.len ? 1 : 0;
}

/* The index of the first whose name is not below `name`. */
static size_t lower_bound(const struct projects *p, struct slice name) {
    size_t low = 0, high = p->count;
    while (low < high && name.len > 0) {
        size_t middle = low + (high - low) / 2;
        if (name_compare(p->in_order[middle], name) < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

static bool is_at(const struct projects *p, size_t at, struct slice name) {
    return at < p->count && slice_eq_str(name, p->in_order[at]->name);
}

static void add(struct projects *p, const struct project_info *project) {
    struct slice name = slice_str(project->name);
    size_t at = lower_bound(p, name);
    CHECK(!is_at(p, at, name));
    if (p->count == p->cap) {
        p->cap = p->cap == 0 ? 16 : 2 * p->cap;
        p->in_order = mem_realloc(p->in_order, p->cap * sizeof(struct project_info *));
    }
    struct project_info *copy = mem_alloc(sizeof *copy);
    *copy = *project;
    memmove(p->in_order + at + 1, p->in_order + at, (p->count - at) * sizeof(void *));
    p->in_order[at] = copy;
    p->count++;
    map_add(&p->by_id, copy->id, copy);
}

struct projects *projects_new(struct engine *e) {
    struct projects *p = mem_zalloc(sizeof *p);
    p->engine = e;
    p->next_id = PROJECT_DEFAULT + 1;
    map_init(&p->by_id);
    add(p, &default_project);
    return p;
}

void projects_free(struct projects **out) {
    struct projects *p = *out;
    if (p == NULL) return;
    for (size_t i = 0; i < p->count; i++) free(p->in_order[i]);
    free(p->in_order);
    map_free(&p->by_id);
    free(p);
    *out = NULL;
}

/* ---- what is stored ---- */

struct load {
    struct projects *projects;
    struct refusal f;
    char name[LIMIT_NAME_BYTES + 1]; /* of the project that cannot be read */
    bool failed;
};

static bool read_one(struct projects *p, struct slice name, struct slice value, struct refusal *f) {
    struct fields o = {.object = NULL};
    struct project_info read = {.id = 0};
    uint64_t id = 0;
    if (!name_ok(name) || !slice_to_cstr(name, read.name, sizeof read.name) ||
        projects_find(p, name) != NULL) {
        return refuse(f, ERR_STORE, "its name is not one of a project");
    }
    bool ok = fields_parse(value, &o, f) && field_u64(&o, "number", 1, UINT32_MAX, &id, f) &&
              field_u64(&o, "created_at_ms", 0, INT64_MAX, &read.created_at_ms, f);
    fields_free(&o);
    if (!ok) return false;
    read.id = (uint32_t)id;
    if (read.id <= PROJECT_DEFAULT || read.id >= p->next_id || projects_get(p, read.id) != NULL) {
        return refuse(f, ERR_STORE, "its number %u was never given out, or to another one",
                      read.id);
    }
    add(p, &read);
    return true;
}

static void load_one(void *ctx, struct slice key, struct slice value) {
    struct load *load = ctx;
    struct slice name = slice_from(key, sizeof PROJECT_CONFIG_PREFIX - 1);
    if (load->failed || read_one(load->projects, name, value, &load->f)) return;
    load->failed = true;
    if (name.len > LIMIT_NAME_BYTES) name.len = LIMIT_NAME_BYTES;
    snprintf(load->name, sizeof load->name, "%.*s", SLICE_ARG(name));
}

static void load_next(void *ctx, struct slice key, struct slice value) {
    struct load *load = ctx;
    struct fields o = {.object = NULL};
    uint64_t next_id = 0;
    if (load->failed || !slice_eq_str(key, NEXT_KEY)) return;
    load->failed = !fields_parse(value, &o, &load->f) || !field_required(&o, "number", &load->f) ||
                   !field_u64(&o, "number", PROJECT_DEFAULT + 1, UINT32_MAX, &next_id, &load->f);
    load->projects->next_id = (uint32_t)next_id;
    fields_free(&o);
}

int projects_load(struct projects *p, char *error, size_t error_size) {
    struct load load = {.projects = p};
    engine_config_scan(p->engine, slice_str(NEXT_KEY), load_next, &load);
    if (load.failed) {
        snprintf(error, error_size, "the stored number of the next project cannot be read: %s",
                 load.f.message);
        return ERR_STORE;
    }
    engine_config_scan(p->engine, slice_str(PROJECT_CONFIG_PREFIX), load_one, &load);
    if (!load.failed) return 0;
    snprintf(error, error_size, "the stored project \"%s\" cannot be read: %s", load.name,
             load.f.message);
    return ERR_STORE;
}

/* ---- reading ---- */

size_t projects_count(const struct projects *p) {
    return p->count;
}

const struct project_info *projects_find(const struct projects *p, struct slice name) {
    size_t at = lower_bound(p, name);
    return is_at(p, at, name) ? p->in_order[at] : NULL;
}

const struct project_info *projects_get(const struct projects *p, uint32_t id) {
    return map_get(&p->by_id, id);
}

const struct project_info *projects_next(const struct projects *p, struct slice after) {
    size_t at = lower_bound(p, after);
    if (is_at(p, at, after)) at++;
    return at < p->count ? p->in_order[at] : NULL;
}

/* ---- changes ---- */

static void put(struct projects *p, struct engine_time time, struct route route, const char *key,
                uint32_t number, uint64_t created_at_ms) {
    struct buf value;
    buf_init(&value, RECORD_BYTES);
    buf_append_byte(&value, '{');
    put_u64(&value, "number", number);
    if (created_at_ms != 0) put_u64(&value, "created_at_ms", created_at_ms);
    buf_append_byte(&value, '}');
    CHECK(!value.overflow);
    engine_step(p->engine, time,
                &(struct command){.kind = COMMAND_CONFIG_PUT,
                                  .route = route,
                                  .u.config = {.key = slice_str(key), .value = buf_slice(&value)}});
    buf_free(&value);
}

static void config_key(const char *name,
                       char out[sizeof PROJECT_CONFIG_PREFIX + LIMIT_NAME_BYTES]) {
    snprintf(out, sizeof PROJECT_CONFIG_PREFIX + LIMIT_NAME_BYTES, PROJECT_CONFIG_PREFIX "%s",
             name);
}

const struct project_info *projects_create(struct projects *p, struct engine_time time,
                                           struct route part, struct route route,
                                           struct slice name) {
    char key[sizeof PROJECT_CONFIG_PREFIX + LIMIT_NAME_BYTES];
    struct project_info made = {.id = p->next_id, .created_at_ms = time.wall_ms};
    bool fits = slice_to_cstr(name, made.name, sizeof made.name);
    CHECK(fits && name_ok(name) && p->count < LIMIT_PROJECTS);
    CHECK(p->next_id < UINT32_MAX); /* a broker that makes one a second gets there in 136 years */
    p->next_id++;
    put(p, time, part, NEXT_KEY, p->next_id, 0);
    config_key(made.name, key);
    put(p, time, route, key, made.id, made.created_at_ms);
    add(p, &made);
    return projects_get(p, made.id);
}

void projects_delete(struct projects *p, struct engine_time time, struct route route, uint32_t id) {
    char key[sizeof PROJECT_CONFIG_PREFIX + LIMIT_NAME_BYTES];
    struct project_info *project = map_remove(&p->by_id, id);
    CHECK(project != NULL && id != PROJECT_DEFAULT);
    size_t at = lower_bound(p, slice_str(project->name));
    CHECK(p->in_order[at] == project);
    p->count--;
    memmove(p->in_order + at, p->in_order + at + 1, (p->count - at) * sizeof(void *));
    config_key(project->name, key);
    engine_step(
        p->engine, time,
        &(struct command){
            .kind = COMMAND_CONFIG_DELETE, .route = route, .u.config = {.key = slice_str(key)}});
    free(project);
}
