/* The table: entries by id, and those that are stored in order of project and creation. 10,000 of
 * them are an array that moves 80 KB when one comes in the middle. */
#include "broker/webhooks/registry.h"

#include <stdio.h>
#include <stdlib.h>

struct change {
    struct change *next;
    struct webhook *webhook; /* owned; NULL: it is deleted */
};

struct entry {
    char id[WEBHOOK_ID_BYTES + 1];
    uint32_t project;
    struct webhook *stored; /* owned; NULL: its first change is not durable yet */
    struct change *first, *last;
};

struct registry {
    struct engine *engine;
    struct entry **by_id;
    size_t count, cap;
    const struct webhook **in_order;
    size_t in_order_count, in_order_cap;
};

struct registry *registry_new(struct engine *e) {
    struct registry *r = mem_zalloc(sizeof *r);
    r->engine = e;
    return r;
}

static void entry_free(struct entry *e) {
    while (e->first != NULL) {
        struct change *c = e->first;
        e->first = c->next;
        webhook_free(&c->webhook);
        free(c);
    }
    webhook_free(&e->stored);
    free(e);
}

void registry_free(struct registry **out) {
    struct registry *r = *out;
    if (r == NULL) return;
    for (size_t i = 0; i < r->count; i++) entry_free(r->by_id[i]);
    free(r->by_id);
    free(r->in_order);
    free(r);
    *out = NULL;
}

/* ---- by id ---- */

static size_t lower_bound(const struct registry *r, const char *id) {
    size_t low = 0, high = r->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memcmp(r->by_id[middle]->id, id, WEBHOOK_ID_BYTES) < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

static struct entry *find(const struct registry *r, struct slice id) {
    if (id.len != WEBHOOK_ID_BYTES) return NULL;
    size_t at = lower_bound(r, (const char *)id.data);
    if (at == r->count || memcmp(r->by_id[at]->id, id.data, id.len) != 0) return NULL;
    return r->by_id[at];
}

static struct entry *find_in(const struct registry *r, uint32_t project, struct slice id) {
    struct entry *e = find(r, id);
    return e == NULL || e->project != project ? NULL : e;
}

static struct entry *entry_of(struct registry *r, uint32_t project, const char *id) {
    struct entry *e = find(r, slice_str(id));
    if (e != NULL) {
        CHECK(e->project == project);
        return e;
    }
    if (r->count == r->cap) {
        r->cap = r->cap == 0 ? 16 : r->cap * 2;
        r->by_id = mem_realloc(r->by_id, r->cap * sizeof(struct entry *));
    }
    size_t at = lower_bound(r, id);
    memmove(r->by_id + at + 1, r->by_id + at, (r->count - at) * sizeof(struct entry *));
    r->count++;
    e = r->by_id[at] = mem_zalloc(sizeof *e);
    memcpy(e->id, id, WEBHOOK_ID_BYTES);
    e->project = project;
    return e;
}

static void entry_drop(struct registry *r, struct entry *e) {
    size_t at = lower_bound(r, e->id);
    CHECK(r->by_id[at] == e);
    r->count--;
    memmove(r->by_id + at, r->by_id + at + 1, (r->count - at) * sizeof(struct entry *));
    entry_free(e);
}

/* ---- in order of creation ---- */

static int order_compare(const struct webhook *w, uint32_t project, uint64_t created_at_ms,
                         struct slice id) {
    if (w->project != project) return w->project < project ? -1 : 1;
    if (w->created_at_ms != created_at_ms) return w->created_at_ms < created_at_ms ? -1 : 1;
    size_t len = id.len < WEBHOOK_ID_BYTES ? id.len : WEBHOOK_ID_BYTES;
    int order = len == 0 ? 0 : memcmp(w->id, id.data, len);
    if (order != 0) return order;
    return id.len < WEBHOOK_ID_BYTES ? 1 : id.len > WEBHOOK_ID_BYTES ? -1 : 0;
}

/* The place of the first that does not come before this one. */
static size_t order_bound(const struct registry *r, uint32_t project, uint64_t created_at_ms,
                          struct slice id) {
    size_t low = 0, high = r->in_order_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (order_compare(r->in_order[middle], project, created_at_ms, id) < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

static void order_add(struct registry *r, const struct webhook *w) {
    if (r->in_order_count == r->in_order_cap) {
        r->in_order_cap = r->in_order_cap == 0 ? 16 : r->in_order_cap * 2;
        r->in_order = mem_realloc(r->in_order, r->in_order_cap * sizeof(struct webhook *));
    }
    size_t at = order_bound(r, w->project, w->created_at_ms, slice_str(w->id));
    memmove(r->in_order + at + 1, r->in_order + at,
            (r->in_order_count - at) * sizeof(struct webhook *));
    r->in_order[at] = w;
    r->in_order_count++;
}

static void order_drop(struct registry *r, const struct webhook *w) {
    size_t at = order_bound(r, w->project, w->created_at_ms, slice_str(w->id));
    CHECK(at < r->in_order_count && r->in_order[at] == w);
    r->in_order_count--;
    memmove(r->in_order + at, r->in_order + at + 1,
            (r->in_order_count - at) * sizeof(struct webhook *));
}

/* Shows w, which becomes the entry's, in the place of what was stored; NULL: shows nothing. */
static void show(struct registry *r, struct entry *e, struct webhook *w) {
    if (e->stored != NULL) order_drop(r, e->stored);
    webhook_free(&e->stored);
    e->stored = w;
    if (w != NULL) order_add(r, w);
}

/* ---- from the store ---- */

struct load {
    struct registry *registry;
    char *error;
    size_t error_size;
    bool failed;
};

static void load_one(void *ctx, struct slice key, struct slice value) {
    struct load *load = ctx;
    struct slice id = slice_from(key, sizeof WEBHOOK_CONFIG_PREFIX - 1);
    struct refusal f;
    if (load->failed) return;
    struct webhook *w = webhook_decode(id, value, &f);
    if (w != NULL) {
        show(load->registry, entry_of(load->registry, w->project, w->id), w);
        return;
    }
    load->failed = true;
    snprintf(load->error, load->error_size, "the stored webhook \"%.*s\" cannot be read: %s",
             SLICE_ARG(id), f.message);
}

int registry_load(struct registry *r, char *error, size_t error_size) {
    struct load load = {.registry = r, .error = error, .error_size = error_size};
    engine_config_scan(r->engine, slice_str(WEBHOOK_CONFIG_PREFIX), load_one, &load);
    return load.failed ? ERR_STORE : 0;
}

/* ---- changes ---- */

static void change_add(struct entry *e, struct webhook *w) {
    struct change *c = mem_zalloc(sizeof *c);
    c->webhook = w;
    if (e->last == NULL) e->first = c;
    else e->last->next = c;
    e->last = c;
}

static void step(struct registry *r, struct engine_time time, struct route route,
                 enum command_kind kind, const char *id, struct slice value) {
    char key[sizeof WEBHOOK_CONFIG_PREFIX + WEBHOOK_ID_BYTES];
    snprintf(key, sizeof key, WEBHOOK_CONFIG_PREFIX "%s", id);
    struct command command = {
        .kind = kind,
        .route = route,
        .u.config = {.key = slice_str(key), .value = value},
    };
    engine_step(r->engine, time, &command);
}

void registry_put(struct registry *r, struct engine_time time, struct route route,
                  struct webhook *w) {
    struct buf value;
    buf_init(&value, WEBHOOK_STORED_BYTES);
    webhook_encode(w, &value);
    change_add(entry_of(r, w->project, w->id), w);
    step(r, time, route, COMMAND_CONFIG_PUT, w->id, buf_slice(&value));
    explicit_bzero(value.data, value.len);
    buf_free(&value);
}

void registry_delete(struct registry *r, struct engine_time time, struct route route,
                     const char *id) {
    struct entry *e = find(r, slice_str(id));
    CHECK(e != NULL);
    change_add(e, NULL);
    step(r, time, route, COMMAND_CONFIG_DELETE, id, slice_of(NULL, 0));
}

void registry_refresh(struct registry *r, const char *id) {
    struct entry *e = find(r, slice_str(id));
    if (e == NULL || e->first == NULL) return;
    struct change *c = e->first;
    e->first = c->next;
    if (e->first == NULL) e->last = NULL;
    show(r, e, c->webhook);
    free(c);
    if (e->stored == NULL && e->first == NULL) entry_drop(r, e);
}

/* ---- reading ---- */

const struct webhook *registry_get(const struct registry *r, uint32_t project, struct slice id) {
    const struct entry *e = find_in(r, project, id);
    return e == NULL ? NULL : e->stored;
}

const struct webhook *registry_latest(const struct registry *r, uint32_t project, struct slice id) {
    const struct entry *e = find_in(r, project, id);
    if (e == NULL) return NULL;
    return e->last == NULL ? e->stored : e->last->webhook;
}

const struct webhook *registry_after(const struct registry *r, uint32_t project,
                                     uint64_t created_at_ms, struct slice id) {
    size_t at = order_bound(r, project, created_at_ms, id);
    if (at == r->in_order_count) return NULL;
    if (order_compare(r->in_order[at], project, created_at_ms, id) == 0) at++;
    const struct webhook *w = registry_at(r, at);
    return w == NULL || w->project != project ? NULL : w;
}

const struct webhook *registry_at(const struct registry *r, size_t at) {
    return at < r->in_order_count ? r->in_order[at] : NULL;
}

size_t registry_count(const struct registry *r, uint32_t project) {
    size_t count = 0;
    for (size_t i = 0; i < r->count; i++) count += r->by_id[i]->project == project;
    return count;
}

size_t registry_count_all(const struct registry *r) {
    return r->count;
}
