/* The registry. */
#include "broker/ingest/source.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/map.h"

struct sources {
    struct source **by_name; /* in order of name */
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
    for (size_t i = 0; i < (*s)->count; i++) source_free((*s)->by_name[i]);
    map_free(&(*s)->by_id);
    free((*s)->by_name);
    free(*s);
    *s = NULL;
}

static int name_compare(const struct source *source, struct slice name) {
    size_t len = strlen(source->name);
    int order = memcmp(source->name, name.data, len < name.len ? len : name.len);
    if (order != 0) return order;
    return len < name.len ? -1 : len > name.len ? 1 : 0;
}

/* The index of the first source whose name is not below `name`. */
static size_t lower_bound(const struct sources *s, struct slice name) {
    size_t low = 0, high = s->count;
    while (low < high && name.len > 0) {
        size_t middle = low + (high - low) / 2;
        if (name_compare(s->by_name[middle], name) < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

struct source *sources_get(struct sources *s, struct slice name) {
    size_t at = lower_bound(s, name);
    if (at == s->count || !slice_eq_str(name, s->by_name[at]->name)) return NULL;
    return s->by_name[at];
}

struct source *sources_get_by_id(struct sources *s, uint32_t id) {
    return map_get(&s->by_id, id);
}

struct source *sources_next(struct sources *s, struct slice after) {
    size_t at = lower_bound(s, after);
    if (at < s->count && slice_eq_str(after, s->by_name[at]->name)) at++;
    return at < s->count ? s->by_name[at] : NULL;
}

size_t sources_count(const struct sources *s) {
    return s->count;
}

/* Adds the source, whose name is new; takes it. */
static void add(struct sources *s, struct source *source) {
    if (s->count == s->cap) {
        s->cap = s->cap == 0 ? 8 : s->cap * 2;
        s->by_name = mem_realloc(s->by_name, s->cap * sizeof(struct source *));
    }
    size_t at = lower_bound(s, slice_str(source->name));
    memmove(s->by_name + at + 1, s->by_name + at, (s->count - at) * sizeof(struct source *));
    s->by_name[at] = source;
    s->count++;
    source->id = s->next_id++;
    map_add(&s->by_id, source->id, source);
}

static void drop(struct sources *s, struct slice name) {
    size_t at = lower_bound(s, name);
    if (at == s->count || !slice_eq_str(name, s->by_name[at]->name)) return;
    map_remove(&s->by_id, s->by_name[at]->id);
    source_free(s->by_name[at]);
    s->count--;
    memmove(s->by_name + at, s->by_name + at + 1, (s->count - at) * sizeof(struct source *));
}

/* Adds or replaces the source that the config entry describes. */
static bool put(struct sources *s, struct slice name, struct slice value, const char **why) {
    struct source read = {.id = 0};
    *why = "the name is not one of a source";
    if (!name_ok(name) || !slice_to_cstr(name, read.name, sizeof read.name)) return false;
    if (!source_decode(value, &read, why)) return false;
    struct source *source = sources_get(s, name);
    if (source == NULL) {
        source = mem_alloc(sizeof *source);
        *source = read;
        add(s, source);
    } else {
        read.id = source->id;
        read.accepted_total = source->accepted_total;
        read.duplicates_total = source->duplicates_total;
        read.refused_total = source->refused_total;
        source_clear(source);
        *source = read;
    }
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
    struct slice name = slice_from(key, sizeof SOURCE_CONFIG_PREFIX - 1);
    const char *why;
    if (load->failed || put(load->sources, name, value, &why)) return;
    load->failed = true;
    snprintf(load->error, load->error_size, "the stored source \"%.*s\" cannot be read: %s",
             SLICE_ARG(name), why);
}

int sources_load(struct sources *s, struct engine *e, char *error, size_t error_size) {
    struct load load = {.sources = s, .error = error, .error_size = error_size};
    engine_config_scan(e, slice_str(SOURCE_CONFIG_PREFIX), load_one, &load);
    return load.failed ? ERR_STORE : 0;
}

struct refresh {
    struct sources *sources;
    struct slice key;
    bool found;
};

static void refresh_one(void *ctx, struct slice key, struct slice value) {
    struct refresh *r = ctx;
    if (!slice_eq(key, r->key)) return; /* a longer name that begins alike */
    const char *why;
    r->found = put(r->sources, slice_from(key, sizeof SOURCE_CONFIG_PREFIX - 1), value, &why);
    CHECK(r->found); /* what is stored was encoded here */
}

void sources_refresh(struct sources *s, struct engine *e, struct slice name) {
    char key[sizeof SOURCE_CONFIG_PREFIX + LIMIT_NAME_BYTES];
    int len = snprintf(key, sizeof key, SOURCE_CONFIG_PREFIX "%.*s", SLICE_ARG(name));
    CHECK(len > 0 && (size_t)len < sizeof key);
    struct refresh r = {.sources = s, .key = slice_str(key)};
    engine_config_scan(e, r.key, refresh_one, &r);
    if (!r.found) drop(s, name);
}
