/* Keys: what is stored of one, what proves it and what does not, and the table over a real engine.
 * tests/vectors/auth.json, made by an implementation that is not ours, ties the broker's side, the
 * client's and the page (docs/protocol.md, "Keys") to each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the above first. */
#include <cmocka.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "broker/auth/auth.h"
#include "clients/c/client.h"
#include "tests/unit/engine_world.h"

#define ROOM 6

struct keys {
    struct world w;
    struct auth *auth;
    uint64_t ended[8];
    size_t ended_count;
};

static void on_ended(void *ctx, uint64_t number) {
    struct keys *t = ctx;
    t->ended[t->ended_count++] = number;
}

static int open_keys(void **state) {
    struct keys *t = mem_zalloc(sizeof *t);
    char error[200];
    world_open(&t->w);
    t->w.quiet = true;
    t->auth = auth_new(t->w.engine, ROOM);
    assert_int_equal(auth_load(t->auth, error, sizeof error), 0);
    auth_watch(t->auth, on_ended, t);
    *state = t;
    return 0;
}

static int close_keys(void **state) {
    struct keys *t = *state;
    auth_free(&t->auth);
    world_close(&t->w);
    free(t);
    return 0;
}

/* Power loss and restart. */
static int reopen(struct keys *t, char *error, size_t size) {
    auth_free(&t->auth);
    world_crash(&t->w);
    t->auth = auth_new(t->w.engine, ROOM);
    auth_watch(t->auth, on_ended, t);
    return auth_load(t->auth, error, size);
}

static const struct route to_test = {.room = ROOM};

static const struct key *make(struct keys *t, unsigned scopes, char text[KEY_TEXT_BYTES + 1]) {
    struct key asked = {.project = PROJECT_DEFAULT, .scopes = scopes};
    snprintf(asked.name, sizeof asked.name, "a key");
    const struct key *k = auth_create(t->auth, t->w.time, to_test, &asked, text);
    world_turn(&t->w);
    return k;
}

static enum auth_verdict check(struct keys *t, const char *text) {
    const struct key *k = NULL;
    enum auth_verdict v = auth_check_text(t->auth, t->w.time, slice_str(text), &k);
    assert_true((k != NULL) == (v == AUTH_OK));
    return v;
}

/* The linker puts this into the place of libcrypto's, to see that it is what decides. */
int __real_CRYPTO_memcmp(const void *a, const void *b, size_t len);
int __wrap_CRYPTO_memcmp(const void *a, const void *b, size_t len);
static size_t compared_bytes;

int __wrap_CRYPTO_memcmp(const void *a, const void *b, size_t len) {
    compared_bytes += len;
    return __real_CRYPTO_memcmp(a, b, len);
}

/* ---- the vector ---- */

struct vector {
    json_t *root;
    const char *key, *id;
    uint8_t client_key[32], stored_key[32], broker_nonce[32], client_nonce[32], proof[32];
};

static void read_hex(const json_t *root, const char *name, uint8_t out[32]) {
    const char *hex = json_string_value(json_object_get(root, name));
    assert_int_equal(strlen(hex), 64);
    for (size_t i = 0; i < 32; i++) {
        char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        out[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
}

static struct vector read_vector(void) {
    struct vector v = {.root = json_load_file(TESTS_DIR "/vectors/auth.json", 0, NULL)};
    assert_non_null(v.root);
    v.key = json_string_value(json_object_get(v.root, "key"));
    v.id = json_string_value(json_object_get(v.root, "id"));
    read_hex(v.root, "client_key", v.client_key);
    read_hex(v.root, "stored_key", v.stored_key);
    read_hex(v.root, "broker_nonce", v.broker_nonce);
    read_hex(v.root, "client_nonce", v.client_nonce);
    read_hex(v.root, "proof", v.proof);
    return v;
}

/* Stores the vector's key as the engine's config and reads it from there. */
static void store_vector(struct keys *t, const struct vector *v) {
    char key[64], value[400], stored[65], error[200];
    hex_encode(slice_of(v->stored_key, 32), stored);
    snprintf(key, sizeof key, KEY_CONFIG_PREFIX "%s", v->id);
    snprintf(value, sizeof value,
             "{\"name\":\"v\",\"project\":1,\"scopes\":[\"consume\"],\"created_at_ms\":5,"
             "\"stored_key\":\"%s\"}",
             stored);
    struct command c = {.kind = COMMAND_CONFIG_PUT,
                        .route = to_test,
                        .u.config = {slice_str(key), slice_str(value)}};
    world_run(&t->w, &c);
    if (reopen(t, error, sizeof error) != 0) fail_msg("%s", error);
}

static struct auth_proof proof_of(const struct vector *v) {
    return (struct auth_proof){slice_str(v->id), slice_of(v->broker_nonce, 32),
                               slice_of(v->client_nonce, 32), slice_of(v->proof, 32)};
}

static enum auth_verdict prove(struct keys *t, const struct auth_proof *p) {
    const struct key *k = NULL;
    return auth_check_proof(t->auth, t->w.time, p, &k);
}

static void both_sides_agree_with_the_vector(void **state) {
    struct keys *t = *state;
    struct vector v = read_vector();
    uint8_t proof[32];
    assert_true(
        bh_auth_prove(v.key, slice_of(v.broker_nonce, 32), slice_of(v.client_nonce, 32), proof));
    assert_memory_equal(proof, v.proof, 32);
    assert_false(
        bh_auth_prove(v.key, slice_of(v.broker_nonce, 31), slice_of(v.client_nonce, 32), proof));
    store_vector(t, &v);
    assert_true(auth_required(t->auth));
    assert_int_equal(check(t, v.key), AUTH_OK);
    struct auth_proof p = proof_of(&v);
    assert_int_equal(prove(t, &p), AUTH_OK);
    json_decref(v.root);
}

/* One bit of anything. */
static void another_proof_is_none(void **state) {
    struct keys *t = *state;
    struct vector v = read_vector();
    uint8_t *const parts[] = {v.proof, v.client_nonce, v.broker_nonce};
    store_vector(t, &v);
    struct auth_proof p = proof_of(&v);
    for (size_t part = 0; part < 3; part++) {
        for (size_t bit = 0; bit < 256; bit++) {
            parts[part][bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(prove(t, &p), AUTH_UNKNOWN);
            parts[part][bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    assert_int_equal(prove(t, &p), AUTH_OK);
    /* The right bytes, cut at another place between the nonces; ids that are none, or another's. */
    struct auth_proof odd = p;
    odd.client_nonce.len = 31;
    assert_int_equal(prove(t, &odd), AUTH_UNKNOWN);
    odd = p;
    odd.proof.len = 0;
    assert_int_equal(prove(t, &odd), AUTH_UNKNOWN);
    const char *const ids[] = {"", "0a1b2c3d4e5g", "0A1b2c3d4e5f", "0a1b2c3d4e5", "0a1b2c3d4e5ff"};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        odd = p;
        odd.key_id = slice_str(ids[i]);
        assert_int_equal(prove(t, &odd), AUTH_UNKNOWN);
    }
    json_decref(v.root);
}

/* Whoever has read the store has StoredKey, and not what hashes to it. */
static void what_is_stored_does_not_log_in(void **state) {
    struct keys *t = *state;
    struct vector v = read_vector();
    uint8_t mask[32], tries[4][32];
    char hex[65], text[KEY_TEXT_BYTES + 1], b64[64];
    size_t len = 0;
    store_vector(t, &v);
    char message[11 + 64];
    memcpy(message, "hmac-sha256", 11);
    memcpy(message + 11, v.broker_nonce, 32);
    memcpy(message + 43, v.client_nonce, 32);
    assert_non_null(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, v.stored_key, 32,
                              (const unsigned char *)message, sizeof message, mask, 32, &len));
    memcpy(tries[0], v.stored_key, 32);
    memcpy(tries[1], mask, 32);
    for (size_t i = 0; i < 32; i++) tries[2][i] = mask[i] ^ v.stored_key[i];
    memset(tries[3], 0, 32);
    for (size_t i = 0; i < 4; i++) {
        struct auth_proof p = proof_of(&v);
        p.proof = slice_of(tries[i], 32);
        assert_int_equal(prove(t, &p), AUTH_UNKNOWN);
    }
    /* A test that the tries are made as the proof is: with ClientKey it would be the proof. */
    for (size_t i = 0; i < 32; i++) assert_int_equal(mask[i] ^ v.client_key[i], v.proof[i]);
    hex_encode(slice_of(v.stored_key, 32), hex);
    assert_int_equal(check(t, hex), AUTH_UNKNOWN);
    base64_encode(slice_of(v.stored_key, 32), b64);
    snprintf(text, sizeof text, "bh_%s_%.43s", v.id, b64);
    assert_int_equal(check(t, text), AUTH_UNKNOWN);
    json_decref(v.root);
}

/* ---- texts ---- */

static void a_key_is_made_and_known_by_its_text(void **state) {
    struct keys *t = *state;
    char text[KEY_TEXT_BYTES + 1], other[KEY_TEXT_BYTES + 1];
    assert_false(auth_required(t->auth));
    const struct key *k = make(t, SCOPE_ADMIN, text);
    uint64_t number = k->number;
    assert_true(auth_required(t->auth));
    assert_int_equal(t->ended_count, 1); /* who came without a key goes */
    assert_int_equal(t->ended[0], 0);
    assert_int_equal(strlen(text), KEY_TEXT_BYTES);
    assert_memory_equal(text, "bh_", 3);
    assert_memory_equal(text + 3, k->id, KEY_ID_BYTES);
    assert_int_equal(strspn(text + 16,
                            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                            "0123456789-_"),
                     43);
    assert_int_equal(k->project, PROJECT_DEFAULT);
    assert_int_equal(check(t, text), AUTH_OK);
    make(t, SCOPE_PUBLISH, other);
    assert_string_not_equal(text, other);
    assert_int_equal(t->ended_count, 1);
    for (size_t i = 0; i < KEY_TEXT_BYTES; i++) { /* any other character is another key */
        char changed[KEY_TEXT_BYTES + 1];
        memcpy(changed, text, sizeof changed);
        changed[i] = changed[i] == 'x' ? 'y' : 'x';
        assert_int_equal(check(t, changed), AUTH_UNKNOWN);
    }
    memcpy(other + 3, text + 3, KEY_ID_BYTES); /* one's id with another's secret */
    assert_int_equal(check(t, other), AUTH_UNKNOWN);
    assert_int_equal(check(t, ""), AUTH_UNKNOWN);
    assert_int_equal(check(t, "bh_"), AUTH_UNKNOWN);
    /* The same after a restart. */
    char error[200];
    assert_int_equal(reopen(t, error, sizeof error), 0);
    assert_int_equal(auth_count(t->auth), 2);
    assert_int_equal(check(t, text), AUTH_OK);
    assert_non_null(auth_find(t->auth, number));
}

static void the_text_is_not_stored(void **state) {
    struct keys *t = *state;
    char text[KEY_TEXT_BYTES + 1];
    struct buf b;
    const struct key *k = make(t, SCOPE_CONSUME, text);
    buf_init(&b, KEY_RECORD_BYTES);
    key_encode(k, &b);
    buf_append_byte(&b, '\0');
    assert_null(strstr((char *)b.data, text + 16));
    buf_free(&b);
}

static void keys_expire(void **state) {
    struct keys *t = *state;
    char text[KEY_TEXT_BYTES + 1];
    const struct key *k = make(t, SCOPE_ADMIN, text);
    uint64_t number = k->number;
    assert_int_equal(auth_operators(t->auth, t->w.time.wall_ms), 1);
    auth_update(t->auth, t->w.time, to_test, number, "renamed", t->w.time.wall_ms + 1000);
    world_turn(&t->w);
    assert_string_equal(auth_find(t->auth, number)->name, "renamed");
    assert_int_equal(check(t, text), AUTH_OK);
    world_wait(&t->w, 1000);
    assert_int_equal(check(t, text), AUTH_EXPIRED);
    assert_int_equal(auth_operators(t->auth, t->w.time.wall_ms), 0);
    text[KEY_TEXT_BYTES - 2] ^= 1; /* who does not have it hears nothing of it */
    assert_int_equal(check(t, text), AUTH_UNKNOWN);
}

static void revoked_keys_are_gone_and_stay_gone(void **state) {
    struct keys *t = *state;
    char text[KEY_TEXT_BYTES + 1], other[KEY_TEXT_BYTES + 1], error[200];
    uint64_t number = make(t, SCOPE_ADMIN, text)->number;
    make(t, SCOPE_CONSUME, other);
    /* It was used in this very turn: what notes that must not bring it back. */
    assert_int_equal(check(t, text), AUTH_OK);
    auth_revoke(t->auth, t->w.time, to_test, number);
    assert_int_equal(check(t, text), AUTH_UNKNOWN);
    assert_int_equal(t->ended_count, 2);
    assert_int_equal(t->ended[1], number);
    world_turn(&t->w);
    assert_int_equal(reopen(t, error, sizeof error), 0);
    assert_int_equal(check(t, text), AUTH_UNKNOWN);
    assert_int_equal(check(t, other), AUTH_OK);
    assert_int_equal(auth_count(t->auth), 1);
    auth_revoke(t->auth, t->w.time, to_test, auth_next(t->auth, 0)->number);
    assert_int_equal(auth_count(t->auth), 0);
    assert_true(auth_required(t->auth)); /* it does not fall open */
    assert_int_equal(check(t, other), AUTH_UNKNOWN);
}

static void the_day_of_use_is_kept(void **state) {
    struct keys *t = *state;
    char text[KEY_TEXT_BYTES + 1], error[200];
    uint64_t number = make(t, SCOPE_ADMIN, text)->number;
    assert_int_equal(auth_find(t->auth, number)->used_day, 0);
    assert_int_equal(check(t, text), AUTH_OK);
    uint64_t day = t->w.time.wall_ms / (24 * 3600 * 1000);
    assert_int_equal(auth_find(t->auth, number)->used_day, day);
    world_turn(&t->w);
    assert_int_equal(reopen(t, error, sizeof error), 0);
    assert_int_equal(auth_find(t->auth, number)->used_day, day);
}

static void keys_are_listed_as_they_were_made(void **state) {
    struct keys *t = *state;
    char text[KEY_TEXT_BYTES + 1], error[200];
    uint64_t numbers[20];
    for (size_t i = 0; i < 20; i++) {
        numbers[i] = make(t, SCOPE_ADMIN, text)->number;
        world_wait(&t->w, 1);
    }
    auth_revoke(t->auth, t->w.time, to_test, numbers[7]);
    world_turn(&t->w);
    for (int round = 0; round < 2; round++) {
        uint64_t at = 0;
        for (size_t i = 0; i < 20; i++) {
            if (i == 7) continue;
            const struct key *k = auth_next(t->auth, at);
            assert_non_null(k);
            assert_int_equal(k->number, numbers[i]);
            at = k->number;
        }
        assert_null(auth_next(t->auth, at));
        assert_int_equal(reopen(t, error, sizeof error), 0);
    }
}

/* Right, wrong or unknown: the same comparison, in constant time, over all of it. */
/* Who is asked is a matter of the key's project; who may make any key, of the default one's. */
static void keys_have_a_project(void **state) {
    struct keys *t = *state;
    char text[KEY_TEXT_BYTES + 1], error[200];
    struct key asked = {.project = 7, .scopes = SCOPE_ADMIN, .name = "of another project"};
    make(t, SCOPE_ADMIN, text);
    make(t, SCOPE_PUBLISH, text);
    for (int i = 0; i < 3; i++) {
        assert_non_null(auth_create(t->auth, t->w.time, to_test, &asked, text));
        world_turn(&t->w);
    }
    for (int i = 0; i < 2; i++) {
        const struct key *k = NULL;
        assert_int_equal(auth_operators(t->auth, t->w.time.wall_ms), 1);
        assert_int_equal(auth_count_of(t->auth, 7), 3);
        assert_int_equal(auth_count_of(t->auth, PROJECT_DEFAULT), 2);
        assert_int_equal(auth_count_of(t->auth, 8), 0);
        assert_int_equal(auth_check_text(t->auth, t->w.time, slice_str(text), &k), AUTH_OK);
        assert_int_equal(k->project, 7);
        assert_false(auth_is_operator(k, t->w.time.wall_ms));
        assert_int_equal(reopen(t, error, sizeof error), 0);
    }
}

static void what_is_compared(void **state) {
    struct keys *t = *state;
    struct vector v = read_vector();
    char text[KEY_TEXT_BYTES + 1];
    store_vector(t, &v);
    snprintf(text, sizeof text, "%s", v.key);
    for (int i = 0; i < 3; i++) {
        compared_bytes = 0;
        if (i == 1) text[KEY_TEXT_BYTES - 1] = text[KEY_TEXT_BYTES - 1] == 'A' ? 'B' : 'A';
        if (i == 2) text[3] = 'z';
        assert_int_equal(check(t, text), i == 0 ? AUTH_OK : AUTH_UNKNOWN);
        assert_int_equal(compared_bytes, KEY_STORED_BYTES);
    }
    struct auth_proof p = proof_of(&v);
    for (int i = 0; i < 3; i++) {
        compared_bytes = 0;
        if (i == 1) v.proof[31] ^= 1;
        if (i == 2) p.key_id = slice_str("zzzzzzzzzzzz");
        assert_int_equal(prove(t, &p), i == 0 ? AUTH_OK : AUTH_UNKNOWN);
        assert_int_equal(compared_bytes, KEY_STORED_BYTES);
    }
    json_decref(v.root);
}

/* ---- rights ---- */

static bool read_rights(const char *json, struct key *k, struct refusal *f) {
    struct fields o;
    *k = (struct key){.number = 0};
    bool parsed = fields_parse(slice_str(json), &o, f);
    assert_true(parsed);
    bool ok = key_read_rights(&o, k, f);
    fields_free(&o);
    return ok;
}

static void scopes_and_globs(void **state) {
    struct key k;
    struct refusal f;
    (void)state;
    assert_true(
        read_rights("{\"scopes\":[\"consume\"],\"subscriptions\":[\"team-a.*\",\"one\"],"
                    "\"sources\":[\"g*\"]}",
                    &k, &f));
    assert_true(key_may(&k, SCOPE_CONSUME));
    assert_true(key_may(&k, SCOPE_CONSUME | SCOPE_MANAGE));
    assert_false(key_may(&k, SCOPE_PUBLISH));
    assert_false(key_may(&k, SCOPE_MANAGE));
    assert_false(key_may(&k, SCOPE_ADMIN));
    assert_true(key_is_limited(&k));
    assert_true(key_may_subscription(&k, slice_str("team-a.x")));
    assert_true(key_may_subscription(&k, slice_str("one")));
    assert_false(key_may_subscription(&k, slice_str("ones")));
    assert_false(key_may_subscription(&k, slice_str("team-b.x")));
    assert_false(key_may_subscription(&k, slice_str("")));
    assert_true(key_may_source(&k, slice_str("gemini")));
    assert_false(key_may_source(&k, slice_str("stripe")));
    assert_true(read_rights("{\"scopes\":[\"admin\"]}", &k, &f));
    assert_true(key_may(&k, SCOPE_PUBLISH));
    assert_false(key_is_limited(&k));
    assert_true(key_may_subscription(&k, slice_str("any")));
}

static void rights_that_cannot_be(void **state) {
    static const struct {
        const char *json, *why;
    } bad[] = {
        {"{}", "scopes is required"},
        {"{\"scopes\":[]}", "scopes is required"},
        {"{\"scopes\":\"admin\"}", "scopes is required"},
        {"{\"scopes\":[\"Admin\"]}", "scopes[0] must be"},
        {"{\"scopes\":[\"admin\",5]}", "scopes[1] must be"},
        {"{\"scopes\":[\"consume\"],\"subscriptions\":[]}", "subscriptions must be a list"},
        {"{\"scopes\":[\"consume\"],\"subscriptions\":\"a\"}", "subscriptions must be a list"},
        {"{\"scopes\":[\"consume\"],\"sources\":[\"a\",\"\"]}", "sources[1] must be"},
        {"{\"scopes\":[\"consume\"],\"sources\":[\"a b\"]}", "sources[0] must be"},
        {"{\"scopes\":[\"consume\"],\"sources\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\","
         "\"9\"]}",
         "list of 1 to 8"},
        {"{\"scopes\":[\"admin\"],\"sources\":[\"a\"]}", "cannot be limited"},
    };
    struct key k;
    struct refusal f;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (read_rights(bad[i].json, &k, &f)) fail_msg("taken: %s", bad[i].json);
        if (strstr(f.message, bad[i].why) == NULL) fail_msg("%s: %s", bad[i].json, f.message);
    }
}

static void a_damaged_record_is_named(void **state) {
    struct keys *t = *state;
    static const char *const values[] = {"{",
                                         "{\"name\":\"x\",\"project\":1,\"scopes\":[\"admin\"],"
                                         "\"stored_key\":\"00\"}"};
    for (size_t i = 0; i < 2; i++) {
        char error[200];
        struct command c = {
            .kind = COMMAND_CONFIG_PUT,
            .route = to_test,
            .u.config = {slice_str(KEY_CONFIG_PREFIX "0a1b2c3d4e5f"), slice_str(values[i])}};
        world_run(&t->w, &c);
        assert_int_equal(reopen(t, error, sizeof error), ERR_STORE);
        assert_non_null(strstr(error, "0a1b2c3d4e5f"));
    }
}

int main(void) {
#define KEYS_TEST(name) cmocka_unit_test_setup_teardown(name, open_keys, close_keys)
    const struct CMUnitTest tests[] = {
        KEYS_TEST(both_sides_agree_with_the_vector),
        KEYS_TEST(another_proof_is_none),
        KEYS_TEST(what_is_stored_does_not_log_in),
        KEYS_TEST(a_key_is_made_and_known_by_its_text),
        KEYS_TEST(the_text_is_not_stored),
        KEYS_TEST(keys_expire),
        KEYS_TEST(revoked_keys_are_gone_and_stay_gone),
        KEYS_TEST(the_day_of_use_is_kept),
        KEYS_TEST(keys_are_listed_as_they_were_made),
        KEYS_TEST(keys_have_a_project),
        KEYS_TEST(what_is_compared),
        cmocka_unit_test(scopes_and_globs),
        cmocka_unit_test(rights_that_cannot_be),
        KEYS_TEST(a_damaged_record_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
