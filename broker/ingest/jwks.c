#include "broker/ingest/jwks.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "broker/json/walk.h"

struct jwks_set {
    struct list link; /* in used or left */
    struct jwks *jwks;
    char *url;
    struct jwks_set *same; /* the next one whose URL has the same hash */
    size_t users;          /* sources */
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
    struct map by_url;      /* hash: the first set */
    struct list used, left; /* left: nobody uses them any more */
    size_t left_count, fetches;
};

struct jwks *jwks_new(const struct jwks_hooks *hooks) {
    struct jwks *j = mem_zalloc(sizeof *j);
    j->hooks = *hooks;
    map_init(&j->by_url);
    list_init(&j->used);
    list_init(&j->left);
    return j;
}

static uint64_t hash_of(const char *url) {
    return hash_bytes(0, slice_str(url));
}

static void drop_keys(struct jwks_set *set) {
    for (size_t i = 0; i < set->count; i++) verifying_key_free(&set->keys[i]);
    set->count = 0;
}

static void set_free(struct jwks_set *set) {
    struct jwks *j = set->jwks;
    uint64_t hash = hash_of(set->url);
    struct jwks_set *first = map_remove(&j->by_url, hash), **at = &first;
    while (*at != set) at = &(*at)->same;
    *at = set->same;
    if (first != NULL) map_add(&j->by_url, hash, first);
    if (set->fetching) {
        j->fetches--;
        j->hooks.cancel(j->hooks.ctx, set);
    }
    list_unlink(&set->link);
    if (set->users == 0) j->left_count--;
    drop_keys(set);
    free(set->url);
    free(set);
}

void jwks_free(struct jwks **j) {
    if (*j == NULL) return;
    LIST_FOR(n, next, &(*j)->used) {
        set_free(CONTAINER_OF(n, struct jwks_set, link));
    }
    LIST_FOR(n, next, &(*j)->left) {
        set_free(CONTAINER_OF(n, struct jwks_set, link));
    }
    map_free(&(*j)->by_url);
    free(*j);
    *j = NULL;
}

/* ---- which sets there are ---- */

static struct jwks_set *find(const struct jwks *j, const char *url) {
    struct jwks_set *set = map_get(&j->by_url, hash_of(url));
    while (set != NULL && strcmp(set->url, url) != 0) set = set->same;
    return set;
}

/* Nobody uses it yet. */
static struct jwks_set *add(struct jwks *j, const char *url) {
    struct jwks_set *set = mem_zalloc(sizeof *set);
    set->jwks = j;
    set->url = mem_strdup(url);
    set->wait_ms = JWKS_FIRST_MS;
    list_init(&set->link);
    list_push_back(&j->left, &set->link);
    j->left_count++;
    set->same = map_remove(&j->by_url, hash_of(url));
    map_add(&j->by_url, hash_of(url), set);
    return set;
}

/* Frees those that nobody uses and that a fetch could follow at once if they came back. */
static void sweep(struct jwks *j, const struct jwks_set *but, uint64_t now_ms) {
    LIST_FOR(n, next, &j->left) {
        struct jwks_set *set = CONTAINER_OF(n, struct jwks_set, link);
        bool young = set->tried && now_ms - set->tried_ms < JWKS_RETRY_MS;
        if (set != but && !set->fetching && !young) set_free(set);
    }
}

void jwks_use(struct jwks *j, const char *url) {
    struct jwks_set *set = find(j, url);
    if (set == NULL) set = add(j, url);
    if (set->users++ > 0) return;
    list_unlink(&set->link);
    list_push_back(&j->used, &set->link);
    j->left_count--;
}

void jwks_leave(struct jwks *j, const char *url, uint64_t now_ms) {
    struct jwks_set *set = find(j, url);
    if (set == NULL || set->users == 0 || --set->users > 0) return;
    list_unlink(&set->link);
    list_push_back(&j->left, &set->link);
    j->left_count++;
    sweep(j, NULL, now_ms);
}

/* ---- when they are fetched ---- */

/* Whether the number of those that were fetched in the last minute has a bound with it. */
static bool may_start(struct jwks *j, const struct jwks_set *set, uint64_t now_ms) {
    if (set->fetching || j->fetches >= JWKS_FETCHES) return false;
    if (set->tried || j->left_count < JWKS_LEFT) return true;
    sweep(j, set, now_ms);
    return j->left_count < JWKS_LEFT;
}

static void start(struct jwks *j, struct jwks_set *set, uint64_t now_ms) {
    if (!may_start(j, set, now_ms) || !j->hooks.start(j->hooks.ctx, set, set->url)) return;
    set->fetching = set->tried = true;
    set->tried_ms = now_ms;
    j->fetches++;
}

struct jwks_set *jwks_get(struct jwks *j, const char *url, uint64_t now_ms) {
    struct jwks_set *set = find(j, url);
    if (set == NULL) set = add(j, url);
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
    set->jwks->fetches--;
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
