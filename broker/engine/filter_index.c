/* Buckets in one map, keyed by the hash of what an event must have (its kind is mixed in). An
 * entry, one filter of one owner, hangs in each bucket of the set of keys that was chosen for it:
 * at least one of these is a key of every event that the filter matches. Filters for which there is
 * no such set hang in `everything`.
 *
 * Hashes are not compared with the bytes behind them: two keys that share a bucket cost questions
 * to filter_match, never an event.
 *
 * The keys of an event: each top-level scalar of user_metadata; its subject's beginnings, of the
 * lengths in use; its whole type; its type up to each dot; its source; the numbers of its own
 * endpoints. Of a kind that no entry uses none is looked up, so user_metadata is not even parsed.
 *
 * A filter with an endpoint is entered under that, however many others are: most events have none,
 * and must not be held against it for their type. */
#include <stdlib.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/list.h"
#include "broker/engine/filter_internal.h"

enum kind {
    KIND_METADATA,
    KIND_SUBJECT,
    KIND_TYPE,
    KIND_TYPE_HEAD,
    KIND_SOURCE,
    KIND_ENDPOINT,
    KINDS
};

struct key {
    enum kind kind;
    uint32_t len; /* SUBJECT: of the prefix */
    uint64_t hash;
};

/* Keys of which one is an event's own whenever the clause matches. */
struct anchor {
    struct key *keys;
    size_t count;
    uint64_t cost; /* links in the buckets of the keys */
    bool rare;     /* every key is one that most events have not */
};

struct bucket {
    uint64_t hash;
    uint64_t count;
    struct list links;
};

struct link {
    struct list node;
    struct bucket *bucket;
    struct entry *entry;
    struct key key;
};

struct entry {
    const struct filter *filter;
    struct owner *owner;
    struct entry *next; /* of the same owner */
    size_t count;
    struct link links[];
};

struct owner {
    void *who;
    uint64_t epoch; /* of the event that it was last offered */
    struct entry *entries;
};

struct filter_index {
    struct map buckets; /* by hash */
    struct map owners;  /* by address */
    struct bucket everything;
    size_t links[KINDS];                             /* there are of each kind */
    uint32_t lengths[LIMIT_EVENT_SUBJECT_BYTES + 1]; /* SUBJECT links of each length */
    uint64_t epoch;
    struct arena scratch;
};

/* ---- keys ---- */

/* FNV-1a (public domain, Fowler, Noll and Vo): all beginnings of a text in one pass. */
#define FOLD_START 0xcbf29ce484222325ULL
static uint64_t fold(uint64_t h, uint8_t byte) {
    return (h ^ byte) * 0x100000001b3ULL;
}

static uint64_t fold_all(struct slice s) {
    uint64_t h = FOLD_START;
    for (size_t i = 0; i < s.len; i++) h = fold(h, s.data[i]);
    return h;
}

static uint64_t key_hash(enum kind kind, uint64_t folded) {
    return map_mix(folded + (uint64_t)kind);
}

static struct key key_of(enum kind kind, struct slice text) {
    return (struct key){kind, (uint32_t)text.len, key_hash(kind, fold_all(text))};
}

/* ---- choosing an anchor ---- */

static struct anchor anchor_new(struct filter_index *x, size_t count) {
    return (struct anchor){arena_alloc(&x->scratch, count * sizeof(struct key)), count, 0, false};
}

/* Takes `a` for *best if it is rare, or fewer hang there, or as many under fewer keys. */
static void offer_anchor(struct filter_index *x, struct anchor a, struct anchor *best) {
    a.cost = 0;
    a.rare = true;
    for (size_t i = 0; i < a.count; i++) {
        const struct bucket *b = map_get(&x->buckets, a.keys[i].hash);
        if (b != NULL) a.cost += b->count;
        a.rare &= a.keys[i].kind == KIND_ENDPOINT;
    }
    bool cheaper = a.cost < best->cost || (a.cost == best->cost && a.count < best->count);
    bool better = a.rare == best->rare ? cheaper : a.rare;
    if (best->count == 0 || better) *best = a;
}

static void offer_field(struct filter_index *x, const struct filter_field *f, struct anchor *best) {
    const struct filter_condition *c = &f->condition;
    if (!f->top) return;
    if (c->has_equals) {
        struct anchor a = anchor_new(x, 1);
        uint64_t hash = filter_value_hash(f->name_hash, &c->equals);
        a.keys[0] = (struct key){KIND_METADATA, 0, key_hash(KIND_METADATA, hash)};
        offer_anchor(x, a, best);
    }
    if (c->in_count > 0) {
        struct anchor a = anchor_new(x, c->in_count);
        for (size_t i = 0; i < c->in_count; i++) {
            uint64_t hash = filter_value_hash(f->name_hash, &c->in[i]);
            a.keys[i] = (struct key){KIND_METADATA, 0, key_hash(KIND_METADATA, hash)};
        }
        offer_anchor(x, a, best);
    }
}

/* The key of a glob: its whole text if it has no star, else what stands before the last dot before
 * the first star. False: nothing does. */
static bool glob_key(struct slice glob, struct key *out) {
    const uint8_t *star = memchr(glob.data, '*', glob.len);
    if (star == NULL) {
        *out = key_of(KIND_TYPE, glob);
        return true;
    }
    for (size_t at = (size_t)(star - glob.data); at-- > 0;) {
        if (glob.data[at] != '.') continue;
        *out = key_of(KIND_TYPE_HEAD, slice_of(glob.data, at));
        return true;
    }
    return false;
}

static void offer_types(struct filter_index *x, const struct filter_clause *k,
                        struct anchor *best) {
    if (k->types_count == 0) return;
    struct anchor a = anchor_new(x, k->types_count);
    for (size_t i = 0; i < k->types_count; i++) {
        if (!glob_key(k->types[i], &a.keys[i])) return; /* an event may match by this one alone */
    }
    offer_anchor(x, a, best);
}

static void offer_clause(struct filter_index *x, const struct filter_clause *k,
                         struct anchor *best);

/* One of the filters must match: each brings the best of its own. */
static void offer_any(struct filter_index *x, const struct filter_clause *k, struct anchor *best) {
    if (k->any_count == 0) return;
    struct anchor *each = arena_alloc(&x->scratch, k->any_count * sizeof *each);
    size_t count = 0;
    for (size_t i = 0; i < k->any_count; i++) {
        each[i] = (struct anchor){0};
        offer_clause(x, &k->any[i], &each[i]);
        if (each[i].count == 0) return;
        count += each[i].count;
    }
    struct anchor a = anchor_new(x, count);
    a.count = 0;
    for (size_t i = 0; i < k->any_count; i++) {
        memcpy(&a.keys[a.count], each[i].keys, each[i].count * sizeof *a.keys);
        a.count += each[i].count;
    }
    offer_anchor(x, a, best);
}

/* best->count stays 0 when the clause has no anchor. */
static void offer_clause(struct filter_index *x, const struct filter_clause *k,
                         struct anchor *best) {
    if (k->has_endpoint) {
        struct anchor a = anchor_new(x, 1);
        a.keys[0] = (struct key){KIND_ENDPOINT, 0, key_hash(KIND_ENDPOINT, k->endpoint)};
        offer_anchor(x, a, best);
    }
    for (size_t i = 0; i < k->fields_count; i++) offer_field(x, &k->fields[i], best);
    if (k->subject_prefix.len > 0) {
        struct anchor a = anchor_new(x, 1);
        a.keys[0] = key_of(KIND_SUBJECT, k->subject_prefix);
        offer_anchor(x, a, best);
    }
    offer_types(x, k, best);
    if (k->sources_count > 0) {
        struct anchor a = anchor_new(x, k->sources_count);
        for (size_t i = 0; i < a.count; i++) a.keys[i] = key_of(KIND_SOURCE, k->sources[i]);
        offer_anchor(x, a, best);
    }
    for (size_t i = 0; i < k->all_count; i++) offer_clause(x, &k->all[i], best);
    offer_any(x, k, best);
}

/* ---- adding and removing ---- */

struct filter_index *filter_index_new(void) {
    struct filter_index *x = mem_zalloc(sizeof *x);
    map_init(&x->buckets);
    map_init(&x->owners);
    list_init(&x->everything.links);
    arena_init(&x->scratch);
    return x;
}

void filter_index_free(struct filter_index **x) {
    if (*x == NULL) return;
    for (size_t i = 0; i < (*x)->owners.cap; i++) {
        struct owner *o = (*x)->owners.slots[i].value;
        for (struct entry *e = o == NULL ? NULL : o->entries, *next; e != NULL; e = next) {
            next = e->next;
            free(e);
        }
        free(o);
    }
    for (size_t i = 0; i < (*x)->buckets.cap; i++) free((*x)->buckets.slots[i].value);
    map_free(&(*x)->owners);
    map_free(&(*x)->buckets);
    arena_free(&(*x)->scratch);
    free(*x);
    *x = NULL;
}

static struct bucket *bucket_at(struct filter_index *x, uint64_t hash) {
    struct bucket *b = map_get(&x->buckets, hash);
    if (b == NULL) {
        b = mem_zalloc(sizeof *b);
        b->hash = hash;
        list_init(&b->links);
        map_add(&x->buckets, hash, b);
    }
    return b;
}

static void hang(struct bucket *b, struct link *l) {
    l->bucket = b;
    b->count++;
    list_push_back(&b->links, &l->node);
}

static void count_key(struct filter_index *x, struct key key, bool more) {
    x->links[key.kind] += more ? 1 : (size_t)-1;
    if (key.kind == KIND_SUBJECT) x->lengths[key.len] += more ? 1 : (uint32_t)-1;
}

void filter_index_add(struct filter_index *x, const struct filter *f, void *owner) {
    struct anchor best = {0};
    offer_clause(x, &f->root, &best);

    size_t count = best.count > 0 ? best.count : 1;
    struct entry *e = mem_zalloc(sizeof *e + count * sizeof e->links[0]);
    e->filter = f;
    e->count = count;
    for (size_t i = 0; i < count; i++) {
        e->links[i].entry = e;
        if (best.count == 0) {
            hang(&x->everything, &e->links[i]);
        } else {
            e->links[i].key = best.keys[i];
            count_key(x, best.keys[i], true);
            hang(bucket_at(x, best.keys[i].hash), &e->links[i]);
        }
    }
    struct owner *o = map_get(&x->owners, (uintptr_t)owner);
    if (o == NULL) {
        o = mem_zalloc(sizeof *o);
        o->who = owner;
        map_add(&x->owners, (uintptr_t)owner, o);
    }
    e->owner = o;
    e->next = o->entries;
    o->entries = e;
    arena_reset(&x->scratch);
}

void filter_index_remove(struct filter_index *x, const struct filter *f, void *owner) {
    struct owner *o = map_get(&x->owners, (uintptr_t)owner);
    CHECK(o != NULL);
    struct entry **at = &o->entries;
    while (*at != NULL && (*at)->filter != f) at = &(*at)->next;
    struct entry *e = *at;
    CHECK(e != NULL);
    *at = e->next;
    for (size_t i = 0; i < e->count; i++) {
        struct bucket *b = e->links[i].bucket;
        list_unlink(&e->links[i].node);
        b->count--;
        if (b == &x->everything) continue;
        count_key(x, e->links[i].key, false);
        if (b->count > 0) continue;
        map_remove(&x->buckets, b->hash);
        free(b);
    }
    free(e);
    if (o->entries != NULL) return;
    map_remove(&x->owners, (uintptr_t)owner);
    free(o);
}

/* ---- asking ---- */

struct asking {
    struct filter_index *x;
    filter_index_fn *fn;
    void *ctx;
};

static void offer_bucket(struct asking *a, struct bucket *b) {
    LIST_FOR(node, next, &b->links) {
        struct owner *o = CONTAINER_OF(node, struct link, node)->entry->owner;
        if (o->epoch == a->x->epoch) continue;
        o->epoch = a->x->epoch;
        a->fn(a->ctx, o->who);
    }
}

static void look_up(struct asking *a, enum kind kind, uint64_t folded) {
    struct bucket *b = map_get(&a->x->buckets, key_hash(kind, folded));
    if (b != NULL) offer_bucket(a, b);
}

static void on_member(void *ctx, uint64_t hash) {
    look_up(ctx, KIND_METADATA, hash);
}

static void look_up_subject(struct asking *a, struct slice subject) {
    uint64_t h = FOLD_START;
    for (size_t i = 0; i < subject.len && i < LIMIT_EVENT_SUBJECT_BYTES; i++) {
        h = fold(h, subject.data[i]);
        if (a->x->lengths[i + 1] > 0) look_up(a, KIND_SUBJECT, h);
    }
}

static void look_up_type(struct asking *a, struct slice type) {
    uint64_t h = FOLD_START;
    for (size_t i = 0; i < type.len; i++) {
        if (type.data[i] == '.' && a->x->links[KIND_TYPE_HEAD] > 0) look_up(a, KIND_TYPE_HEAD, h);
        h = fold(h, type.data[i]);
    }
    if (a->x->links[KIND_TYPE] > 0) look_up(a, KIND_TYPE, h);
}

void filter_index_candidates(struct filter_index *x, struct filter_subject *subject,
                             filter_index_fn *fn, void *ctx) {
    struct asking a = {x, fn, ctx};
    const struct event *e = subject->event;
    x->epoch++;
    offer_bucket(&a, &x->everything);
    for (uint32_t i = 0; i < subject->endpoints && x->links[KIND_ENDPOINT] > 0; i++) {
        look_up(&a, KIND_ENDPOINT, i);
    }
    if (x->links[KIND_SOURCE] > 0) look_up(&a, KIND_SOURCE, fold_all(e->source));
    if (x->links[KIND_TYPE] + x->links[KIND_TYPE_HEAD] > 0) look_up_type(&a, e->type);
    if (x->links[KIND_SUBJECT] > 0) look_up_subject(&a, e->subject);
    if (x->links[KIND_METADATA] > 0) filter_subject_hashes(subject, on_member, &a);
}
