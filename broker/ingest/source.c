/* The form of a stored source, under "source/NAME":
 *   {"scheme":"standard-webhooks","created_at_ms":1795251600000,"secrets":["whsec_..."]} */
#include "broker/ingest/source.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/map.h"
#include "broker/json/walk.h"

struct sources {
    struct source **by_name; /* in order of name */
    size_t count, cap;
    struct map by_id;
    uint32_t next_id;
};

static const char *const scheme_names[] = {
    [SCHEME_STANDARD_WEBHOOKS] = "standard-webhooks",
};

#define SCHEMES (sizeof scheme_names / sizeof scheme_names[0])

const char *source_scheme_name(enum source_scheme scheme) {
    return (size_t)scheme < SCHEMES ? scheme_names[scheme] : NULL;
}

bool source_scheme_from_name(struct slice name, enum source_scheme *out) {
    for (size_t i = 0; i < SCHEMES; i++) {
        if (slice_eq_str(name, scheme_names[i])) {
            *out = (enum source_scheme)i;
            return true;
        }
    }
    return false;
}

struct sources *sources_new(void) {
    struct sources *s = mem_zalloc(sizeof *s);
    map_init(&s->by_id);
    s->next_id = 1;
    return s;
}

/* Frees a source and leaves no secret behind in memory. */
static void source_free(struct source *source) {
    OPENSSL_cleanse(source, sizeof *source);
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
        *source = read;
    }
    OPENSSL_cleanse(&read, sizeof read);
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

void source_encode(const struct source *s, struct buf *out) {
    buf_printf(out, "{\"scheme\":\"%s\",\"created_at_ms\":%" PRIu64 ",\"secrets\":[",
               source_scheme_name(s->scheme), s->created_at_ms);
    for (size_t i = 0; i < s->secrets_count; i++) {
        if (i > 0) buf_append_byte(out, ',');
        buf_append_json_string(out, slice_str(s->secret_texts[i]));
    }
    buf_append_str(out, "]}");
}

struct decode {
    struct source *out;
    bool has_scheme;
    const char *why; /* NULL: nothing is wrong so far */
};

static bool take_secret(struct decode *d, struct slice raw) {
    struct source *s = d->out;
    if (s->secrets_count == LIMIT_SECRETS) {
        d->why = "it has too many secrets";
        return false;
    }
    char *text = s->secret_texts[s->secrets_count];
    long len = json_string_decode(raw, text, LIMIT_SECRET_TEXT_BYTES + 1);
    if (len < 0 || source_secret_parse(slice_of(text, (size_t)len), &s->secrets[s->secrets_count],
                                       &d->why) != ERR_OK) {
        if (d->why == NULL) d->why = "a secret is not a text";
        return false;
    }
    s->secrets_count++;
    return true;
}

/* Fields of later versions are passed over. */
static bool take_field(void *ctx, const struct json_value *v) {
    struct decode *d = ctx;
    if (v->depth == 2 && slice_eq_str(v->path[0], "secrets")) return take_secret(d, v->raw);
    if (v->depth != 1) return true;
    if (slice_eq_str(v->path[0], "created_at_ms")) {
        if (!slice_to_u64(v->raw, &d->out->created_at_ms)) d->why = "created_at_ms is no number";
    } else if (slice_eq_str(v->path[0], "scheme")) {
        char name[32];
        long len = json_string_decode(v->raw, name, sizeof name);
        d->has_scheme =
            len >= 0 && source_scheme_from_name(slice_of(name, (size_t)len), &d->out->scheme);
        if (!d->has_scheme) d->why = "this version does not know its scheme";
    }
    return d->why == NULL;
}

bool source_decode(struct slice value, struct source *out, const char **why) {
    struct decode d = {.out = out};
    out->secrets_count = 0;
    bool json = json_walk(value, 2, take_field, &d, NULL);
    if (!json) d.why = "it is not JSON";
    else if (d.why == NULL && !d.has_scheme) d.why = "it has no scheme";
    else if (d.why == NULL && out->secrets_count == 0) d.why = "it has no secret";
    *why = d.why;
    return d.why == NULL;
}
