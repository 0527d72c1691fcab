/* The form of a stored key, under "webhook-key/KID":
 *   {"kid":"...","alg":"EdDSA","pem":"-----BEGIN PRIVATE KEY-----\n...","state":"active",
 *    "created_at_ms":1795251600000,"retired_at_ms":0} */
#include "broker/webhooks/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/fields/put.h"
#include "broker/json/walk.h"

#define VALUE_BYTES (2 * SIGNING_PEM_BYTES) /* a line end of the PEM is two characters there */
#define JWKS_BYTES  (64 * KIB)              /* 19 keys of RSA 8192 are 30 KB */

_Static_assert(sizeof KEYS_CONFIG_PREFIX - 1 + SIGNING_KID_BYTES <= LIMIT_NAME_BYTES,
               "the name of a stored key fits");

struct key {
    struct signing_key *key; /* owned */
    enum key_state state;
    uint64_t created_at_ms, retired_at_ms;
    bool from_file;
};

struct keys {
    struct keys_options options;
    struct key *list;
    size_t count, cap;
    struct buf jwks;
    uint64_t jwks_until_ms; /* wall: what it says is right until then; 0: it is not */
};

static const char *const state_names[] = {
    [KEY_ACTIVE] = "active", [KEY_NEXT] = "next", [KEY_OLD] = "old"};

#define STATES (sizeof state_names / sizeof state_names[0])

const char *key_state_name(enum key_state s) {
    CHECK((size_t)s < STATES);
    return state_names[s];
}

/* ---- the list ---- */

/* Makes room at `at` and puts the key there; takes what it owns. */
static void insert(struct keys *k, size_t at, struct key key) {
    if (k->count == k->cap) {
        k->cap = k->cap == 0 ? 8 : k->cap * 2;
        k->list = mem_realloc(k->list, k->cap * sizeof *k->list);
    }
    memmove(k->list + at + 1, k->list + at, (k->count - at) * sizeof *k->list);
    k->list[at] = key;
    k->count++;
    k->jwks_until_ms = 0;
}

static void drop(struct keys *k, size_t at) {
    signing_key_free(&k->list[at].key);
    k->count--;
    memmove(k->list + at, k->list + at + 1, (k->count - at) * sizeof *k->list);
    k->jwks_until_ms = 0;
}

/* The first in this state; k->count: there is none. */
static size_t find(const struct keys *k, enum key_state state) {
    size_t i = 0;
    while (i < k->count && k->list[i].state != state) i++;
    return i;
}

static int later_first(uint64_t a, uint64_t b) {
    return a == b ? 0 : a > b ? -1 : 1;
}

static int compare(const void *left, const void *right) {
    const struct key *a = left, *b = right;
    if (a->state != b->state) return (int)a->state - (int)b->state;
    int order = later_first(a->retired_at_ms, b->retired_at_ms);
    return order != 0 ? order : later_first(a->created_at_ms, b->created_at_ms);
}

/* ---- writing ---- */

static void config_name(const struct key *key, char out[LIMIT_NAME_BYTES + 1]) {
    snprintf(out, LIMIT_NAME_BYTES + 1, KEYS_CONFIG_PREFIX "%s", signing_key_kid(key->key));
}

static void encode(const struct key *key, struct buf *out) {
    struct buf pem;
    buf_init(&pem, SIGNING_PEM_BYTES);
    CHECK(buf_reserve(&pem, pem.max) != NULL); /* so that growing leaves no copy behind */
    signing_key_pem(key->key, &pem);
    buf_append_byte(out, '{');
    put_text(out, "kid", slice_str(signing_key_kid(key->key)));
    put_text(out, "alg", slice_str(signing_alg_name(signing_key_alg(key->key))));
    put_text(out, "pem", buf_slice(&pem));
    put_text(out, "state", slice_str(key_state_name(key->state)));
    put_u64(out, "created_at_ms", key->created_at_ms);
    put_u64(out, "retired_at_ms", key->retired_at_ms);
    put_close(out);
    CHECK(!pem.overflow && !out->overflow);
    OPENSSL_cleanse(pem.data, pem.len);
    buf_free(&pem);
}

static void step(struct keys *k, struct engine_time time, enum command_kind kind,
                 const struct key *key, struct slice value) {
    char name[LIMIT_NAME_BYTES + 1];
    config_name(key, name);
    struct command command = {.kind = kind,
                              .route = k->options.route,
                              .u.config = {.key = slice_str(name), .value = value}};
    engine_step(k->options.engine, time, &command);
}

static void store(struct keys *k, struct engine_time time, const struct key *key) {
    struct buf value;
    CHECK(!key->from_file);
    buf_init(&value, VALUE_BYTES);
    CHECK(buf_reserve(&value, value.max) != NULL);
    encode(key, &value);
    step(k, time, COMMAND_CONFIG_PUT, key, buf_slice(&value));
    OPENSSL_cleanse(value.data, value.len);
    buf_free(&value);
    k->jwks_until_ms = 0;
}

/* Removes it from the list and from the store. */
static void forget(struct keys *k, struct engine_time time, size_t at) {
    step(k, time, COMMAND_CONFIG_DELETE, &k->list[at], slice_of(NULL, 0));
    drop(k, at);
}

static void set_state(struct keys *k, struct engine_time time, struct key *key,
                      enum key_state state) {
    key->state = state;
    key->retired_at_ms = state == KEY_OLD ? time.wall_ms : 0;
    store(k, time, key);
}

static void generate(struct keys *k, struct engine_time time, size_t at, enum key_state state) {
    insert(k, at,
           (struct key){.key = signing_key_generate(k->options.alg),
                        .state = state,
                        .created_at_ms = time.wall_ms});
    store(k, time, &k->list[at]);
}

static uint64_t ends_at_ms(const struct key *key) {
    return key->state == KEY_OLD ? key->retired_at_ms + KEYS_OLD_MS : UINT64_MAX;
}

/* Of a sorted list, the old ones whose time is over and those that are too many. */
static void forget_old(struct keys *k, struct engine_time time) {
    for (size_t i = k->count; i-- > 2;) {
        if (ends_at_ms(&k->list[i]) <= time.wall_ms || i >= 2 + KEYS_OLD_MAX) forget(k, time, i);
    }
}

/* ---- reading ---- */

struct decode {
    struct key *out;
    char *pem; /* SIGNING_PEM_BYTES + 1 */
    long pem_len;
    bool has_state;
    const char *why; /* NULL: nothing is wrong so far */
};

static bool take_state(struct decode *d, struct slice raw) {
    char text[16];
    long len = json_string_decode(raw, text, sizeof text);
    for (size_t i = 0; len >= 0 && i < STATES; i++) {
        if (!slice_eq_str(slice_of(text, (size_t)len), state_names[i])) continue;
        d->out->state = (enum key_state)i;
        d->has_state = true;
        return true;
    }
    d->why = "this version does not know its state";
    return false;
}

/* Fields of later versions are passed over; kid and alg follow from the key itself. */
static bool take_field(void *ctx, const struct json_value *v) {
    struct decode *d = ctx;
    if (v->depth != 1) return true;
    if (slice_eq_str(v->path[0], "pem")) {
        d->pem_len = json_string_decode(v->raw, d->pem, SIGNING_PEM_BYTES + 1);
        if (d->pem_len < 0) d->why = "pem is no text";
    } else if (slice_eq_str(v->path[0], "state")) {
        take_state(d, v->raw);
    } else if (slice_eq_str(v->path[0], "created_at_ms")) {
        if (!slice_to_u64(v->raw, &d->out->created_at_ms)) d->why = "created_at_ms is no number";
    } else if (slice_eq_str(v->path[0], "retired_at_ms")) {
        if (!slice_to_u64(v->raw, &d->out->retired_at_ms)) d->why = "retired_at_ms is no number";
    }
    return d->why == NULL;
}

/* False: it cannot be used, *why says what is wrong. */
static bool decode(struct slice kid, struct slice value, struct key *out, const char **why) {
    char pem[SIGNING_PEM_BYTES + 1];
    struct decode d = {.out = out, .pem = pem, .pem_len = -1};
    if (!json_walk(value, 1, take_field, &d, NULL)) d.why = "it is not JSON";
    else if (d.why == NULL && d.pem_len < 0) d.why = "it has no pem";
    else if (d.why == NULL && !d.has_state) d.why = "it has no state";
    else if (d.why == NULL) out->key = signing_key_parse(slice_of(pem, (size_t)d.pem_len), &d.why);
    OPENSSL_cleanse(pem, sizeof pem);
    if (out->key != NULL && !slice_eq_str(kid, signing_key_kid(out->key))) {
        d.why = "the key is not the one that its name says";
        signing_key_free(&out->key);
    }
    *why = d.why;
    return out->key != NULL;
}

struct load {
    struct keys *keys;
    char *error;
    size_t error_size;
    bool failed;
};

static void load_one(void *ctx, struct slice name, struct slice value) {
    struct load *load = ctx;
    struct key key = {.key = NULL};
    const char *why;
    if (load->failed) return;
    struct slice kid = slice_from(name, sizeof KEYS_CONFIG_PREFIX - 1);
    if (decode(kid, value, &key, &why)) {
        insert(load->keys, load->keys->count, key);
        return;
    }
    load->failed = true;
    snprintf(load->error, load->error_size, "the stored webhook key %.*s cannot be used: %s",
             SLICE_ARG(kid), why);
}

/* Reads at most size bytes. Returns how many, or -1 (errno). */
static ssize_t read_file(const char *path, char *out, size_t size) {
    size_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    for (ssize_t n = 1; n > 0 && len < size;) {
        n = read(fd, out + len, size - len);
        if (n < 0 && errno == EINTR) n = 1;
        else if (n < 0) {
            int err = errno;
            close(fd);
            errno = err;
            return -1;
        } else len += (size_t)n;
    }
    close(fd);
    return (ssize_t)len;
}

/* The key of the file; NULL: error says what is wrong with it. */
static struct signing_key *load_file(const struct keys_options *options, char *error,
                                     size_t error_size) {
    char text[SIGNING_PEM_BYTES + 1]; /* one more: a longer file is seen as such */
    const char *why = NULL;
    ssize_t len = read_file(options->file, text, sizeof text);
    if (len < 0) {
        snprintf(error, error_size, "the webhook key file \"%s\" cannot be read: %s", options->file,
                 strerror(errno));
        return NULL;
    }
    struct signing_key *key = signing_key_parse(slice_of(text, (size_t)len), &why);
    OPENSSL_cleanse(text, sizeof text);
    if (key == NULL) {
        snprintf(error, error_size, "the webhook key file \"%s\" %s", options->file, why);
    } else if (signing_key_alg(key) != options->alg) {
        snprintf(error, error_size,
                 "the webhook key file \"%s\" has a key for %s, but webhooks are to be signed with "
                 "%s (--webhook-signature v1a takes Ed25519, jwt takes RSA)",
                 options->file, signing_alg_name(signing_key_alg(key)),
                 signing_alg_name(options->alg));
        signing_key_free(&key);
    }
    return key;
}

/* ---- life ---- */

/* Takes the file's key: it comes before a stored active one. The same key may have been stored by
 * an earlier run: the one of the file stands for both. */
static void enter_file(struct keys *k, struct engine_time time, struct signing_key *file) {
    for (size_t i = k->count; i-- > 0;) {
        const char *kid = signing_key_kid(k->list[i].key);
        if (strcmp(kid, signing_key_kid(file)) == 0) forget(k, time, i);
    }
    insert(k, 0,
           (struct key){
               .key = file, .state = KEY_ACTIVE, .created_at_ms = time.wall_ms, .from_file = true});
}

/* Brings what there is to one active and one next key of the algorithm that is asked for: the first
 * that fits; the others become old. */
static void arrange(struct keys *k, struct engine_time time) {
    size_t seen[STATES] = {0};
    for (size_t i = 0; i < k->count; i++) {
        struct key *key = &k->list[i];
        bool fits = signing_key_alg(key->key) == k->options.alg && seen[key->state]++ == 0;
        if (key->state != KEY_OLD && !fits) set_state(k, time, key, KEY_OLD);
    }
    size_t next = find(k, KEY_NEXT);
    if (find(k, KEY_ACTIVE) == k->count) {
        if (next < k->count) set_state(k, time, &k->list[next], KEY_ACTIVE);
        else generate(k, time, k->count, KEY_ACTIVE);
    }
    if (find(k, KEY_NEXT) == k->count) generate(k, time, k->count, KEY_NEXT);
    qsort(k->list, k->count, sizeof *k->list, compare);
    forget_old(k, time);
}

int keys_open(struct keys **out, const struct keys_options *options, struct engine_time time,
              char *error, size_t error_size) {
    struct keys *k = mem_zalloc(sizeof *k);
    struct load load = {.keys = k, .error = error, .error_size = error_size};
    struct signing_key *file = NULL;
    bool from_file = options->file != NULL && options->file[0] != '\0';
    *out = NULL;
    k->options = *options;
    k->options.file = NULL; /* borrowed until return */
    buf_init(&k->jwks, JWKS_BYTES);
    engine_config_scan(options->engine, slice_str(KEYS_CONFIG_PREFIX), load_one, &load);
    if (!load.failed && from_file) {
        file = load_file(options, error, error_size);
        load.failed = file == NULL;
    }
    if (load.failed) {
        keys_close(&k);
        return from_file && file == NULL ? ERR_INVALID_REQUEST : ERR_STORE;
    }
    if (file != NULL) enter_file(k, time, file);
    arrange(k, time);
    *out = k;
    return 0;
}

void keys_close(struct keys **k) {
    if (*k == NULL) return;
    for (size_t i = 0; i < (*k)->count; i++) signing_key_free(&(*k)->list[i].key);
    free((*k)->list);
    buf_free(&(*k)->jwks);
    free(*k);
    *k = NULL;
}

const struct signing_key *keys_active(const struct keys *k) {
    CHECK(k->count >= 2 && k->list[0].state == KEY_ACTIVE);
    return k->list[0].key;
}

struct slice keys_jwks(struct keys *k, uint64_t wall_ms) {
    if (wall_ms < k->jwks_until_ms) return buf_slice(&k->jwks);
    k->jwks_until_ms = UINT64_MAX;
    buf_clear(&k->jwks);
    buf_append_str(&k->jwks, "{\"keys\":[");
    for (size_t i = 0; i < k->count; i++) {
        uint64_t end_ms = ends_at_ms(&k->list[i]);
        if (end_ms <= wall_ms) continue;
        if (end_ms < k->jwks_until_ms) k->jwks_until_ms = end_ms;
        put_comma(&k->jwks);
        signing_key_jwk(k->list[i].key, &k->jwks);
    }
    buf_append_str(&k->jwks, "]}");
    CHECK(!k->jwks.overflow);
    return buf_slice(&k->jwks);
}

enum err keys_rotate(struct keys *k, struct engine_time time, const char **why) {
    CHECK(k->count >= 2 && k->list[0].state == KEY_ACTIVE && k->list[1].state == KEY_NEXT);
    if (k->list[0].from_file) {
        *why = "the active key comes from a file: put another key there and restart the broker";
        return ERR_INVALID_REQUEST;
    }
    set_state(k, time, &k->list[0], KEY_OLD);
    set_state(k, time, &k->list[1], KEY_ACTIVE);
    struct key old = k->list[0];
    k->list[0] = k->list[1];
    k->list[1] = old;
    generate(k, time, 1, KEY_NEXT);
    forget_old(k, time);
    log_info("webhook keys were rotated: %s signs, %s is next", signing_key_kid(k->list[0].key),
             signing_key_kid(k->list[1].key));
    return ERR_OK;
}

uint64_t keys_on_turn(struct keys *k, struct engine_time time) {
    uint64_t end_ms = UINT64_MAX;
    forget_old(k, time);
    for (size_t i = 0; i < k->count; i++) {
        if (ends_at_ms(&k->list[i]) < end_ms) end_ms = ends_at_ms(&k->list[i]);
    }
    return end_ms == UINT64_MAX ? UINT64_MAX : time.now_ms + (end_ms - time.wall_ms);
}

bool keys_get(const struct keys *k, size_t i, struct key_info *out) {
    if (i >= k->count) return false;
    const struct key *key = &k->list[i];
    *out = (struct key_info){
        .kid = signing_key_kid(key->key),
        .alg = signing_key_alg(key->key),
        .state = key->state,
        .created_at_ms = key->created_at_ms,
        .retired_at_ms = key->retired_at_ms,
        .from_file = key->from_file,
    };
    return true;
}
