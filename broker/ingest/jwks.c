#include "broker/ingest/jwks.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/list.h"
#include "base/log.h"
#include "broker/json/walk.h"

struct jwks_set {
    struct list link;
    struct jwks *jwks;
    char *url;
    void *ctx;
    struct verifying_key *keys[JWKS_KEYS];
    size_t count;
    bool fetching, tried;
    uint64_t tried_ms;      /* when the last fetch began */
    uint64_t fetched_ms;    /* when the keys came */
    uint64_t fetched_at_ms; /* the same on the wall; 0: never */
    uint64_t wait_ms;       /* before the next try while no key is known */
    char trouble[JWKS_TROUBLE_SIZE];
};

struct jwks {
    struct jwks_hooks hooks;
    struct list sets; /* the one that was asked for last is first */
    size_t count;
};

struct jwks *jwks_new(const struct jwks_hooks *hooks) {
    struct jwks *j = mem_zalloc(sizeof *j);
    j->hooks = *hooks;
    list_init(&j->sets);
    return j;
}

static void drop_keys(struct jwks_set *set) {
    for (size_t i = 0; i < set->count; i++) verifying_key_free(&set->keys[i]);
    set->count = 0;
}

static void set_free(struct jwks_set *set) {
    struct jwks *j = set->jwks;
    if (set->fetching) j->hooks.cancel(j->hooks.ctx, set);
    list_unlink(&set->link);
    j->count--;
    drop_keys(set);
    free(set->url);
    free(set);
}

void jwks_free(struct jwks **j) {
    if (*j == NULL) return;
    LIST_FOR(n, next, &(*j)->sets) {
        set_free(CONTAINER_OF(n, struct jwks_set, link));
    }
    free(*j);
    *j = NULL;
}

static void start(struct jwks *j, struct jwks_set *set, uint64_t now_ms) {
    if (set->fetching || !j->hooks.start(j->hooks.ctx, set, set->url)) return;
    set->fetching = set->tried = true;
    set->tried_ms = now_ms;
}

static struct jwks_set *find(struct jwks *j, const char *url) {
    LIST_FOR(n, next, &j->sets) {
        struct jwks_set *set = CONTAINER_OF(n, struct jwks_set, link);
        if (strcmp(set->url, url) == 0) return set;
    }
    return NULL;
}

static struct jwks_set *add(struct jwks *j, const char *url) {
    if (j->count == JWKS_SETS) {
        struct list *last = &j->sets;
        LIST_FOR(n, next, &j->sets) last = n;
        set_free(CONTAINER_OF(last, struct jwks_set, link));
    }
    struct jwks_set *set = mem_zalloc(sizeof *set);
    set->jwks = j;
    set->url = mem_strdup(url);
    set->wait_ms = JWKS_FIRST_MS;
    list_init(&set->link);
    j->count++;
    return set;
}

struct jwks_set *jwks_get(struct jwks *j, const char *url, uint64_t now_ms) {
    struct jwks_set *set = find(j, url);
    if (set == NULL) set = add(j, url);
    list_unlink(&set->link);
    list_push_front(&j->sets, &set->link);
    uint64_t pause_ms = set->count > 0 ? JWKS_RETRY_MS : set->wait_ms;
    bool wanted = set->count == 0 || now_ms - set->fetched_ms >= JWKS_AGE_MS;
    if (wanted && (!set->tried || now_ms - set->tried_ms >= pause_ms)) start(j, set, now_ms);
    return set;
}

const struct verifying_key *const *jwks_keys(const struct jwks_set *set, size_t *count) {
    *count = set->count;
    return set->count == 0 ? NULL : (const struct verifying_key *const *)set->keys;
}

bool jwks_miss(struct jwks *j, struct jwks_set *set, uint64_t now_ms) {
    if (!set->tried || now_ms - set->tried_ms >= JWKS_RETRY_MS) start(j, set, now_ms);
    return set->fetching;
}

/* ---- reading a set ---- */

struct reading {
    struct jwk jwk; /* what was seen of the key that is being walked */
    struct verifying_key *keys[JWKS_KEYS];
    size_t count;
    bool is_set;     /* there is an array `keys` */
    const char *why; /* the last key was left out because it ... */
};

static void take_member(struct jwk *jwk, const struct json_value *v) {
    const struct {
        const char *name;
        struct slice *to;
    } members[] = {{"kty", &jwk->kty}, {"crv", &jwk->crv}, {"x", &jwk->x},     {"n", &jwk->n},
                   {"e", &jwk->e},     {"kid", &jwk->kid}, {"use", &jwk->use}, {"alg", &jwk->alg}};
    if (v->type != JSON_IS_STRING) return;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        if (!slice_eq_str(v->path[2], members[i].name)) continue;
        *members[i].to = slice_of(v->raw.data + 1, v->raw.len - 2);
    }
}

static bool take(void *ctx, const struct json_value *v) {
    struct reading *r = ctx;
    if (v->depth == 0 || !slice_eq_str(v->path[0], "keys")) return true;
    if (v->depth == 1) r->is_set = v->type == JSON_IS_ARRAY;
    if (v->depth == 3 && v->path[1].data == NULL) take_member(&r->jwk, v);
    if (v->depth != 2) return true;
    if (v->type == JSON_IS_OBJECT && r->count < JWKS_KEYS) {
        struct verifying_key *key = verifying_key_from_jwk(&r->jwk, &r->why);
        if (key != NULL) r->keys[r->count++] = key;
    }
    r->jwk = (struct jwk){.kty = {0}};
    return true;
}

static void fail(struct jwks_set *set, const char *trouble) {
    snprintf(set->trouble, sizeof set->trouble, "%s", trouble);
    set->wait_ms = set->wait_ms * 2 < JWKS_RETRY_MS ? set->wait_ms * 2 : JWKS_RETRY_MS;
    log_warn("the keys of %s could not be fetched%s: %s", set->url,
             set->count > 0 ? ", those that are known stay" : "", trouble);
}

void jwks_fetched(struct jwks_set *set, struct slice body, const char *trouble, uint64_t now_ms,
                  uint64_t wall_ms) {
    struct reading r = {.count = 0};
    set->fetching = false;
    if (trouble == NULL) {
        bool json = json_walk(body, 3, take, &r, NULL);
        if (!json) trouble = "the answer is not JSON, or longer than 64 KiB";
        else if (!r.is_set) trouble = "the answer is no key set: it has no array \"keys\"";
        else if (r.count == 0) trouble = r.why != NULL ? r.why : "there is no key in it";
    }
    if (trouble != NULL) {
        for (size_t i = 0; i < r.count; i++) verifying_key_free(&r.keys[i]);
        if (trouble == r.why) {
            char text[JWKS_TROUBLE_SIZE];
            snprintf(text, sizeof text, "no key of it can be used: the last one %s", r.why);
            fail(set, text);
        } else {
            fail(set, trouble);
        }
        return;
    }
    drop_keys(set);
    memcpy(set->keys, r.keys, sizeof r.keys);
    set->count = r.count;
    set->fetched_ms = now_ms;
    set->fetched_at_ms = wall_ms;
    set->wait_ms = JWKS_FIRST_MS;
    set->trouble[0] = '\0';
}

uint64_t jwks_fetched_at(const struct jwks_set *set) {
    return set->fetched_at_ms;
}

const char *jwks_trouble(const struct jwks_set *set) {
    return set->trouble;
}

void **jwks_set_ctx(struct jwks_set *set) {
    return &set->ctx;
}
