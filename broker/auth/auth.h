/* auth.h: keys: who may speak to this broker, and what for.
 *
 * The text of a key is "bh_", an id of 12 of a-z 0-9 (not secret: operators name a key by it), "_"
 * and the base64url of 32 random bytes. It is shown once, when the key is made; what is kept
 * follows SCRAM (RFC 5802 section 3):
 *     ClientKey = HMAC-SHA256(text, "Client Key")       StoredKey = SHA-256(ClientKey), stored
 * HTTP sends the text (over TLS) and the broker computes StoredKey from it. The worker protocol
 * sends ClientKey XOR HMAC-SHA256(StoredKey, nonces), from which the broker, who has StoredKey,
 * gets ClientKey back: the text does not travel, an answer to one challenge is none to another, and
 * whoever reads the store has nothing that logs in. SCRAM's salt and slow hash are left out: they
 * make guessing a password dear, and 256 random bits cannot be guessed at any price.
 *
 * struct auth is owned by main from auth_new to auth_free and comes before the rooms that ask it.
 * Changes are in force at once, here, and stepped as commands of the engine: what they answer
 * leaves when the command is durable. A struct key is borrowed until the next change or the end of
 * the turn; what lives longer keeps its number and asks auth_find again.
 *
 * Texts and StoredKeys are in no log, and in no answer but the text in the one that made the key.
 * May call: engine, signature (HMAC), fields, json, base, libcrypto. */
#ifndef AUTH_AUTH_H
#define AUTH_AUTH_H

#include "base/buf.h"
#include "broker/engine/engine.h"
#include "broker/fields/fields.h"

struct auth;

#define KEY_CONFIG_PREFIX "key/" /* of the stored keys */
#define KEY_ID_BYTES      12
#define KEY_TEXT_BYTES    59
#define KEY_STORED_BYTES  32
#define KEY_NONCE_BYTES   32 /* of each side */
#define KEY_MECHANISM     "hmac-sha256"

/* Scopes: bits; admin stands for all of them. */
#define SCOPE_PUBLISH 1u
#define SCOPE_CONSUME 2u
#define SCOPE_MANAGE  4u
#define SCOPE_ADMIN   8u
#define SCOPES_ALL    15u

/* Names that a key is limited to; none: it is not limited. */
struct key_globs {
    size_t count;
    char items[LIMIT_KEY_GLOBS][LIMIT_NAME_BYTES + 1];
};

struct key {
    uint64_t number; /* what its id says in base 36; never 0, never used again */
    size_t place;    /* in the table */
    char id[KEY_ID_BYTES + 1];
    char name[LIMIT_KEY_NAME_BYTES + 1]; /* for people */
    uint32_t project;
    unsigned scopes;
    struct key_globs sources, subscriptions;
    uint64_t created_at_ms, expires_at_ms; /* wall; 0: it does not expire */
    uint64_t used_day;                     /* the last one, in days since 1970; 0: never */
    uint8_t stored_key[KEY_STORED_BYTES];
};

/* ---- key.c: one key ---- */

/* "publish" ...; the bit must be one of SCOPE_... */
const char *scope_name(unsigned bit);
/* "publish or admin": every scope of the set. */
void scopes_format(unsigned scopes, const char *between, char *out, size_t size);
#define SCOPES_TEXT_BYTES 64
/* Reads "scopes", "sources" and "subscriptions" of an object into the key, with their rules. */
bool key_read_rights(const struct fields *o, struct key *k, struct refusal *f);
bool key_may(const struct key *k, unsigned any_of);
bool key_may_subscription(const struct key *k, struct slice name);
bool key_may_source(const struct key *k, struct slice name);
/* Limited to some names: it may not see what belongs to all of them, such as the journal. */
bool key_is_limited(const struct key *k);
bool key_is_expired(const struct key *k, uint64_t wall_ms);
/* Appends the members scopes, sources and subscriptions. */
void key_put_rights(struct buf *b, const struct key *k);

/* The record in the store, in JSON. */
#define KEY_RECORD_BYTES (8 * KIB)
void key_encode(const struct key *k, struct buf *out);
/* False: f says what is wrong with it. */
bool key_decode(struct slice id, struct slice value, struct key *out, struct refusal *f);

/* ---- auth.c: all of them ---- */

/* Effects of what it stores on its own (the day of last use) go to `room`, which ignores them. */
struct auth *auth_new(struct engine *e, uint32_t room);
/* Reads what is stored. Non-zero (ERR_STORE): error[size] names the key that cannot be read. */
MUST_CHECK int auth_load(struct auth *a, char *error, size_t error_size);
void auth_free(struct auth **a);

/* Whether a key is asked for: from the first one on, and then until the process ends, also when
 * the last one was revoked: a broker does not fall open while it runs. */
bool auth_required(const struct auth *a);
size_t auth_count(const struct auth *a);
/* The key with this number; NULL: there is none (any more). */
const struct key *auth_find(const struct auth *a, uint64_t number);
const struct key *auth_find_id(const struct auth *a, struct slice id);
/* In order of creation: the one after `number`, or (0) the first; NULL: there is none. */
const struct key *auth_next(const struct auth *a, uint64_t number);
/* A key of the default project that has the scope admin and has not expired: it can make any
 * other. */
bool auth_is_operator(const struct key *k, uint64_t wall_ms);
/* How many of these there are. */
size_t auth_operators(const struct auth *a, uint64_t wall_ms);
/* How many keys the project has, expired ones too. */
size_t auth_count_of(const struct auth *a, uint32_t project);

/* A key has ended, or (0) keys are asked for from now on: close what came in by it, or by none. */
typedef void auth_ended_fn(void *ctx, uint64_t number);
#define AUTH_WATCHERS 2
void auth_watch(struct auth *a, auth_ended_fn *fn, void *ctx);

enum auth_verdict { AUTH_OK, AUTH_MISSING, AUTH_AMBIGUOUS, AUTH_UNKNOWN, AUTH_EXPIRED };
/* What a client is told; says nothing of the keys that there are. */
const char *auth_verdict_text(enum auth_verdict v);
/* AUTH_OK: *out is the key. That a key has expired is told only to who has it. */
enum auth_verdict auth_check_text(struct auth *a, struct engine_time time, struct slice text,
                                  const struct key **out);
struct auth_proof {
    struct slice key_id;
    struct slice broker_nonce, client_nonce; /* KEY_NONCE_BYTES each */
    struct slice proof;
};
enum auth_verdict auth_check_proof(struct auth *a, struct engine_time time,
                                   const struct auth_proof *proof, const struct key **out);

/* Makes a key: name, project, scopes, globs and expires_at_ms are those of `asked`. Its text goes
 * to text[], which the caller wipes. NULL: there are LIMIT_KEYS. */
const struct key *auth_create(struct auth *a, struct engine_time time, struct route route,
                              const struct key *asked, char text[KEY_TEXT_BYTES + 1]);
/* Changes name and expires_at_ms. */
void auth_update(struct auth *a, struct engine_time time, struct route route, uint64_t number,
                 const char *name, uint64_t expires_at_ms);
/* It is gone at once, and the watchers hear of it. */
void auth_revoke(struct auth *a, struct engine_time time, struct route route, uint64_t number);

#endif
