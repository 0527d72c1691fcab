/* All keys: found by the number of their id, listed in order of creation. */
#include "broker/auth/auth.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/map.h"
#include "broker/signature/hmac.h"

#define KEY_PREFIX   "bh_"
#define SECRET_BYTES 32
#define DAY_MS       (24ULL * 3600 * 1000)

static const char id_digits[] = "abcdefghijklmnopqrstuvwxyz0123456789";
#define ID_BASE (sizeof id_digits - 1)

_Static_assert(sizeof KEY_PREFIX - 1 + KEY_ID_BYTES + 1 + BASE64_LEN(SECRET_BYTES) - 1 ==
                   KEY_TEXT_BYTES,
               "one '=' is left out");

struct auth {
    struct engine *engine;
    uint32_t room;
    struct hmac *hmac;
    bool required;
    struct map by_number;
    struct key **in_order; /* of creation; owned */
    size_t count, cap;
    struct {
        auth_ended_fn *fn;
        void *ctx;
    } watchers[AUTH_WATCHERS];
    size_t watchers_count;
};

struct auth *auth_new(struct engine *e, uint32_t room) {
    struct auth *a = mem_zalloc(sizeof *a);
    a->engine = e;
    a->room = room;
    a->hmac = hmac_new();
    CRYPTO_CHECK(a->hmac != NULL);
    map_init(&a->by_number);
    return a;
}

void auth_free(struct auth **out) {
    struct auth *a = *out;
    if (a == NULL) return;
    for (size_t i = 0; i < a->count; i++) free(a->in_order[i]);
    free(a->in_order);
    map_free(&a->by_number);
    hmac_free(&a->hmac);
    free(a);
    *out = NULL;
}

/* ---- the table ---- */

/* What an id says in base 36, and 1: 36^12 is below 2^63. 0: it is no id. */
static uint64_t number_of(struct slice id) {
    uint64_t n = 0;
    if (id.len != KEY_ID_BYTES) return 0;
    for (size_t i = 0; i < id.len; i++) {
        const char *digit = id.data[i] == '\0' ? NULL : strchr(id_digits, id.data[i]);
        if (digit == NULL) return 0;
        n = n * ID_BASE + (uint64_t)(digit - id_digits);
    }
    return n + 1;
}

static void add(struct auth *a, struct key *k) {
    if (a->count == a->cap) {
        a->cap = a->cap == 0 ? 16 : 2 * a->cap;
        a->in_order = mem_realloc(a->in_order, a->cap * sizeof(struct key *));
    }
    k->place = a->count;
    a->in_order[a->count++] = k;
    map_add(&a->by_number, k->number, k);
}

static int compare_created(const void *left, const void *right) {
    const struct key *l = *(struct key *const *)left, *r = *(struct key *const *)right;
    if (l->created_at_ms != r->created_at_ms) return l->created_at_ms < r->created_at_ms ? -1 : 1;
    return memcmp(l->id, r->id, KEY_ID_BYTES);
}

struct load {
    struct auth *auth;
    char *error;
    size_t error_size;
    bool failed;
};

static void load_one(void *ctx, struct slice config_key, struct slice value) {
    struct load *load = ctx;
    struct slice id = slice_from(config_key, sizeof KEY_CONFIG_PREFIX - 1);
    struct refusal f;
    if (load->failed) return;
    struct key *k = mem_zalloc(sizeof *k);
    load->failed = !key_decode(id, value, k, &f);
    if (!load->failed) {
        k->number = number_of(id);
        load->failed = k->number == 0 && !refuse(&f, ERR_STORE, "its id is not one of a key");
    }
    if (!load->failed) {
        add(load->auth, k);
        return;
    }
    snprintf(load->error, load->error_size, "the stored key \"%.*s\" cannot be read: %s",
             SLICE_ARG(id), f.message);
    free(k);
}

int auth_load(struct auth *a, char *error, size_t error_size) {
    struct load load = {.auth = a, .error = error, .error_size = error_size};
    engine_config_scan(a->engine, slice_str(KEY_CONFIG_PREFIX), load_one, &load);
    if (a->count > 0) qsort(a->in_order, a->count, sizeof(struct key *), compare_created);
    for (size_t i = 0; i < a->count; i++) a->in_order[i]->place = i;
    a->required = a->count > 0;
    return load.failed ? ERR_STORE : 0;
}

bool auth_required(const struct auth *a) {
    return a->required;
}

size_t auth_count(const struct auth *a) {
    return a->count;
}

const struct key *auth_find(const struct auth *a, uint64_t number) {
    return map_get(&a->by_number, number);
}

const struct key *auth_find_id(const struct auth *a, struct slice id) {
    uint64_t number = number_of(id);
    return number == 0 ? NULL : auth_find(a, number);
}

const struct key *auth_next(const struct auth *a, uint64_t number) {
    const struct key *k = number == 0 ? NULL : auth_find(a, number);
    size_t at = k == NULL ? 0 : k->place + 1;
    CHECK(number == 0 || k != NULL);
    return at < a->count ? a->in_order[at] : NULL;
}

bool auth_is_operator(const struct key *k, uint64_t wall_ms) {
    return k->project == PROJECT_DEFAULT && (k->scopes & SCOPE_ADMIN) != 0 &&
           !key_is_expired(k, wall_ms);
}

size_t auth_operators(const struct auth *a, uint64_t wall_ms) {
    size_t count = 0;
    for (size_t i = 0; i < a->count; i++) count += auth_is_operator(a->in_order[i], wall_ms);
    return count;
}

size_t auth_count_of(const struct auth *a, uint32_t project) {
    size_t count = 0;
    for (size_t i = 0; i < a->count; i++) count += a->in_order[i]->project == project;
    return count;
}

void auth_watch(struct auth *a, auth_ended_fn *fn, void *ctx) {
    CHECK(a->watchers_count < AUTH_WATCHERS);
    a->watchers[a->watchers_count].fn = fn;
    a->watchers[a->watchers_count++].ctx = ctx;
}

static void ended(struct auth *a, uint64_t number) {
    for (size_t i = 0; i < a->watchers_count; i++) a->watchers[i].fn(a->watchers[i].ctx, number);
}

/* ---- storing ---- */

static void step(struct auth *a, struct engine_time time, struct route route,
                 enum command_kind kind, const struct key *k) {
    char config_key[sizeof KEY_CONFIG_PREFIX + KEY_ID_BYTES];
    struct buf value;
    snprintf(config_key, sizeof config_key, KEY_CONFIG_PREFIX "%s", k->id);
    buf_init(&value, KEY_RECORD_BYTES);
    if (kind == COMMAND_CONFIG_PUT) key_encode(k, &value);
    CHECK(!value.overflow);
    struct command command = {
        .kind = kind,
        .route = route,
        .u.config = {.key = slice_str(config_key), .value = buf_slice(&value)},
    };
    engine_step(a->engine, time, &command);
    buf_free(&value);
}

/* A write per key and day, so that an operator sees which keys nobody uses. */
static void note_use(struct auth *a, struct engine_time time, struct key *k) {
    uint64_t day = time.wall_ms / DAY_MS;
    if (k->used_day >= day) return;
    k->used_day = day;
    step(a, time, (struct route){.room = a->room}, COMMAND_CONFIG_PUT, k);
}

/* ---- checking ---- */

const char *auth_verdict_text(enum auth_verdict v) {
    switch (v) {
    case AUTH_OK: return "the key is good";
    case AUTH_MISSING:
        return "this broker asks for a key: send Authorization: Bearer KEY, or x-goog-api-key: KEY";
    case AUTH_AMBIGUOUS: return "there is more than one key: send one, in one header";
    case AUTH_UNKNOWN: return "the key is not known here: it is mistyped, or it was revoked";
    case AUTH_EXPIRED: return "the key has expired: ask for a new one";
    }
    UNREACHABLE("there are five");
}

static void mac(struct auth *a, struct slice key, struct slice text, struct slice more,
                struct slice still_more, uint8_t out[KEY_STORED_BYTES]) {
    uint8_t full[HMAC_BYTES_MAX];
    hmac_begin(a->hmac, key);
    hmac_add(a->hmac, text);
    hmac_add(a->hmac, more);
    hmac_add(a->hmac, still_more);
    hmac_end(a->hmac, full);
    memcpy(out, full, KEY_STORED_BYTES);
    OPENSSL_cleanse(full, sizeof full);
}

/* SHA-256(ClientKey). */
static void stored_of(const uint8_t client_key[KEY_STORED_BYTES], uint8_t out[KEY_STORED_BYTES]) {
    int ok = EVP_Digest(client_key, KEY_STORED_BYTES, out, NULL, EVP_sha256(), NULL);
    CHECK(ok == 1);
}

static void stored_of_text(struct auth *a, struct slice text, uint8_t out[KEY_STORED_BYTES]) {
    uint8_t client_key[KEY_STORED_BYTES];
    struct slice none = slice_of(NULL, 0);
    mac(a, text, slice_str("Client Key"), none, none, client_key);
    stored_of(client_key, out);
    OPENSSL_cleanse(client_key, sizeof client_key);
}

static enum auth_verdict judge(struct auth *a, struct engine_time time, struct key *k, bool equal,
                               const struct key **out) {
    if (k == NULL || !equal) return AUTH_UNKNOWN;
    if (key_is_expired(k, time.wall_ms)) return AUTH_EXPIRED;
    note_use(a, time, k);
    *out = k;
    return AUTH_OK;
}

/* The key of an id, or NULL and a StoredKey that fits nothing, so that an id which is not there
 * takes the same way as a wrong secret. */
static struct key *look_up(struct auth *a, struct slice id, uint8_t stored[KEY_STORED_BYTES]) {
    uint64_t number = number_of(id);
    struct key *k = number == 0 ? NULL : map_get(&a->by_number, number);
    if (k == NULL) memset(stored, 0, KEY_STORED_BYTES);
    else memcpy(stored, k->stored_key, KEY_STORED_BYTES);
    return k;
}

enum auth_verdict auth_check_text(struct auth *a, struct engine_time time, struct slice text,
                                  const struct key **out) {
    uint8_t expected[KEY_STORED_BYTES], got[KEY_STORED_BYTES];
    const size_t prefix = sizeof KEY_PREFIX - 1;
    *out = NULL;
    if (text.len != KEY_TEXT_BYTES || !slice_starts_with(text, KEY_PREFIX) ||
        text.data[prefix + KEY_ID_BYTES] != '_') {
        return AUTH_UNKNOWN;
    }
    struct key *k = look_up(a, slice_of(text.data + prefix, KEY_ID_BYTES), expected);
    stored_of_text(a, text, got);
    bool equal = CRYPTO_memcmp(got, expected, sizeof got) == 0;
    return judge(a, time, k, equal, out);
}

enum auth_verdict auth_check_proof(struct auth *a, struct engine_time time,
                                   const struct auth_proof *proof, const struct key **out) {
    uint8_t expected[KEY_STORED_BYTES], client_key[KEY_STORED_BYTES], got[KEY_STORED_BYTES];
    *out = NULL;
    CHECK(proof->broker_nonce.len == KEY_NONCE_BYTES); /* ours */
    /* Of one length each, so that no other pair of nonces makes the same message. */
    if (proof->proof.len != KEY_STORED_BYTES || proof->client_nonce.len != KEY_NONCE_BYTES) {
        return AUTH_UNKNOWN;
    }
    struct key *k = look_up(a, proof->key_id, expected);
    mac(a, slice_of(expected, sizeof expected), slice_str(KEY_MECHANISM), proof->broker_nonce,
        proof->client_nonce, client_key);
    for (size_t i = 0; i < sizeof client_key; i++) client_key[i] ^= proof->proof.data[i];
    stored_of(client_key, got);
    bool equal = CRYPTO_memcmp(got, expected, sizeof got) == 0;
    OPENSSL_cleanse(client_key, sizeof client_key);
    return judge(a, time, k, equal, out);
}

/* ---- changes ---- */

static void make_id(char out[KEY_ID_BYTES + 1]) {
    const uint8_t fair =
        256 - 256 % ID_BASE; /* bytes from here on would favour the first letters */
    for (size_t i = 0; i < KEY_ID_BYTES;) {
        uint8_t byte;
        CRYPTO_CHECK(RAND_bytes(&byte, 1) == 1);
        if (byte < fair) out[i++] = id_digits[byte % ID_BASE];
    }
    out[KEY_ID_BYTES] = '\0';
}

static void make_text(const char *id, char out[KEY_TEXT_BYTES + 1]) {
    uint8_t secret[SECRET_BYTES];
    char encoded[BASE64_LEN(SECRET_BYTES) + 1];
    CRYPTO_CHECK(RAND_bytes(secret, sizeof secret) == 1);
    base64_encode(slice_of(secret, sizeof secret), encoded);
    for (char *at = encoded; *at != '\0'; at++) { /* RFC 4648 section 5 */
        if (*at == '+') *at = '-';
        else if (*at == '/') *at = '_';
        else if (*at == '=') *at = '\0';
    }
    int len = snprintf(out, KEY_TEXT_BYTES + 1, KEY_PREFIX "%s_%s", id, encoded);
    CHECK(len == KEY_TEXT_BYTES);
    OPENSSL_cleanse(secret, sizeof secret);
    OPENSSL_cleanse(encoded, sizeof encoded);
}

const struct key *auth_create(struct auth *a, struct engine_time time, struct route route,
                              const struct key *asked, char text[KEY_TEXT_BYTES + 1]) {
    if (a->count == LIMIT_KEYS) return NULL;
    CHECK(asked->project != 0);
    struct key *k = mem_alloc(sizeof *k);
    *k = *asked;
    do {
        make_id(k->id);
        k->number = number_of(slice_str(k->id));
    } while (auth_find(a, k->number) != NULL);
    k->created_at_ms = time.wall_ms;
    k->used_day = 0;
    make_text(k->id, text);
    stored_of_text(a, slice_str(text), k->stored_key);
    add(a, k);
    step(a, time, route, COMMAND_CONFIG_PUT, k);
    bool first = !a->required;
    a->required = true;
    if (first) ended(a, 0);
    return k;
}

void auth_update(struct auth *a, struct engine_time time, struct route route, uint64_t number,
                 const char *name, uint64_t expires_at_ms) {
    struct key *k = map_get(&a->by_number, number);
    CHECK(k != NULL);
    snprintf(k->name, sizeof k->name, "%s", name);
    k->expires_at_ms = expires_at_ms;
    step(a, time, route, COMMAND_CONFIG_PUT, k);
}

void auth_revoke(struct auth *a, struct engine_time time, struct route route, uint64_t number) {
    struct key *k = map_remove(&a->by_number, number);
    CHECK(k != NULL && a->in_order[k->place] == k);
    a->count--;
    for (size_t i = k->place; i < a->count; i++) {
        a->in_order[i] = a->in_order[i + 1];
        a->in_order[i]->place = i;
    }
    step(a, time, route, COMMAND_CONFIG_DELETE, k);
    free(k);
    ended(a, number);
}
