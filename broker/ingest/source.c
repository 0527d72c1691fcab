/* The registry. */
#include "broker/ingest/source.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/map.h"

struct sources {
    struct source **in_order; /* of project and name */
    size_t count, cap;
    struct map by_id;
    uint32_t next_id;
};

struct sources *sources_new(void) {
    struct sources *s = mem_zalloc(sizeof *s);
    map_init(&s->by_id);
    s->next_id = 1;
    return s;
}

static void source_free(struct source *source) {
    source_clear(source);
    free(source);
}

void sources_free(struct sources **s) {
    if (*s == NULL) return;
    for (size_t i = 0; i < (*s)->count; i++) source_free((*s)->in_order[i]);
    map_free(&(*s)->by_id);
    free((*s)->in_order);
    free(*s);
    *s = NULL;
}

static int compare(const struct source *source, uint32_t project, struct slice name) {
    if (source->project != project) return source->project < project ? -1 : 1;
    if (name.len == 0) return 1;
    size_t len = strlen(source->name);
    int order = memcmp(source->name, name.data, len < name.len ? len : name.len);
    if (order != 0) return order;
    return len < name.len ? -1 : len > name.len ? 1 : 0;
}

/* The index of the project's first source whose name is not below `name`, or of what comes after
 * the project's. */
static size_t lower_bound(const struct sources *s, uint32_t project, struct slice name) {
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(s->in_order[middle], project, name) < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

static bool is_at(const struct sources *s, size_t at, uint32_t project, struct slice name) {
    return at < s->count && s->in_order[at]->project == project &&
           slice_eq_str(name, s->in_order[at]->name);
}

struct source *sources_get(struct sources *s, uint32_t project, struct slice name) {
    size_t at = lower_bound(s, project, name);
    return is_at(s, at, project, name) ? s->in_order[at] : NULL;
}

struct source *sources_get_by_id(struct sources *s, uint32_t id) {
    return map_get(&s->by_id, id);
}

struct source *sources_next(struct sources *s, uint32_t project, struct slice after) {
    size_t at = lower_bound(s, project, after);
    if (is_at(s, at, project, after)) at++;
    return at < s->count && s->in_order[at]->project == project ? s->in_order[at] : NULL;
}

struct source *sources_at(struct sources *s, size_t at) {
    return at < s->count ? s->in_order[at] : NULL;
}

size_t sources_count(const struct sources *s, uint32_t project) {
    struct slice first = slice_of(NULL, 0);
    CHECK(project < UINT32_MAX);
    return lower_bound(s, project + 1, first) - lower_bound(s, project, first);
}

size_t sources_count_all(const struct sources *s) {
    return s->count;
}

/* Adds the source, whose name is new; takes it. */
static void add(struct sources *s, struct source *source) {
    if (s->count == s->cap) {
        s->cap = s->cap == 0 ? 8 : s->cap * 2;
        s->in_order = mem_realloc(s->in_order, s->cap * sizeof(struct source *));
    }
    size_t at = lower_bound(s, source->project, slice_str(source->name));
    memmove(s->in_order + at + 1, s->in_order + at, (s->count - at) * sizeof(struct source *));
    s->in_order[at] = source;
    s->count++;
    source->id = s->next_id++;
    map_add(&s->by_id, source->id, source);
}

static void drop(struct sources *s, uint32_t project, struct slice name) {
    size_t at = lower_bound(s, project, name);
    if (!is_at(s, at, project, name)) return;
    map_remove(&s->by_id, s->in_order[at]->id);
    source_free(s->in_order[at]);
    s->count--;
    memmove(s->in_order + at, s->in_order + at + 1, (s->count - at) * sizeof(struct source *));
}

/* ---- where it is stored ---- */

void source_config_key(uint32_t project, struct slice name, char out[SOURCE_KEY_BYTES]) {
    char number[12] = "";
    CHECK(name.len <= LIMIT_NAME_BYTES && project != 0);
    if (project != PROJECT_DEFAULT) snprintf(number, sizeof number, "%" PRIu32 "/", project);
    snprintf(out, SOURCE_KEY_BYTES, SOURCE_CONFIG_PREFIX "%s%.*s", number, SLICE_ARG(name));
}

/* No name has a '/'. False: nothing that source_config_key made. */
static bool read_key(struct slice key, uint32_t *project, struct slice *name) {
    char again[SOURCE_KEY_BYTES];
    struct slice rest = slice_from(key, sizeof SOURCE_CONFIG_PREFIX - 1);
    const uint8_t *slash = rest.len == 0 ? NULL : memchr(rest.data, '/', rest.len);
    size_t number_len = slash == NULL ? 0 : (size_t)(slash - rest.data);
    uint64_t number = PROJECT_DEFAULT;
    *name = slash == NULL ? rest : slice_from(rest, number_len + 1);
    if (slash != NULL && !slice_to_u64(slice_of(rest.data, number_len), &number)) return false;
    if (number == 0 || number >= UINT32_MAX || !name_ok(*name)) return false;
    *project = (uint32_t)number;
    source_config_key(*project, *name, again);
    return slice_eq_str(key, again);
}

/* Its options say how many; what came already counts on. */
static void set_rate(struct source *source, uint64_t now_ms) {
    uint32_t per_s = (uint32_t)source->options.rate_per_s;
    uint64_t burst = source->options.rate_burst;
    if (burst == 0) burst = per_s;
    rate_set(&source->rate, per_s, per_s == 0 ? 0 : rate_burst_us(per_s, burst));
    rate_forgive(&source->rate, now_ms);
}

/* Adds or replaces the source that the config entry describes. */
static bool put(struct sources *s, struct slice key, struct slice value, uint64_t now_ms,
                const char **why) {
    struct source read = {.id = 0};
    struct slice name;
    *why = "the name is not one of a source";
    if (!read_key(key, &read.project, &name)) return false;
    bool fits = slice_to_cstr(name, read.name, sizeof read.name);
    CHECK(fits); /* name_ok */
    if (!source_decode(value, &read, why)) return false;
    struct source *source = sources_get(s, read.project, name);
    if (source == NULL) {
        source = mem_alloc(sizeof *source);
        *source = read;
        add(s, source);
    } else {
        read.id = source->id;
        read.accepted_total = source->accepted_total;
        read.duplicates_total = source->duplicates_total;
        read.refused_total = source->refused_total;
        read.rate = source->rate;
        source_clear(source);
        *source = read;
    }
    set_rate(source, now_ms);
    OPENSSL_cleanse(&read, sizeof read); /* what it owned is the registry's now */
    return true;
}

struct load {
    struct sources *sources;
    char *error;
    size_t error_size;
    bool failed;
};

static void load_one(void *ctx, struct slice key, struct slice value) {
    struct load *load = ctx;
    const char *why;
    if (load->failed || put(load->sources, key, value, 0, &why)) return;
    load->failed = true;
    key = slice_from(key, sizeof SOURCE_CONFIG_PREFIX - 1);
    snprintf(load->error, load->error_size, "the stored source \"%.*s\" cannot be read: %s",
             SLICE_ARG(key), why);
}

int sources_load(struct sources *s, struct engine *e, char *error, size_t error_size) {
    struct load load = {.sources = s, .error = error, .error_size = error_size};
    engine_config_scan(e, slice_str(SOURCE_CONFIG_PREFIX), load_one, &load);
    return load.failed ? ERR_STORE : 0;
}

struct refresh {
    struct sources *sources;
    struct slice key;
    uint64_t now_ms;
    bool found;
};

static void refresh_one(void *ctx, struct slice key, struct slice value) {
    struct refresh *r = ctx;
    if (!slice_eq(key, r->key)) return; /* a longer name that begins alike */
    const char *why;
    r->found = put(r->sources, key, value, r->now_ms, &why);
    CHECK(r->found); /* what is stored was encoded here */
}

void sources_refresh(struct sources *s, struct engine *e, uint32_t project, struct slice name,
                     uint64_t now_ms) {
    char key[SOURCE_KEY_BYTES];
    source_config_key(project, name, key);
    struct refresh r = {.sources = s, .key = slice_str(key), .now_ms = now_ms};
    engine_config_scan(e, r.key, refresh_one, &r);
    if (!r.found) drop(s, project, name);
}
