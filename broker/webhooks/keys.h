/* keys.h: the keys that sign dynamic webhooks, and their public half for everybody.
 *
 * Two keys are published from the first start: the active one signs, the next one is only shown, so
 * that every receiver's cache has it when a rotation makes it the active one. A key that was
 * rotated out stays published for KEYS_OLD_MS, longer than any retry of what it signed is under
 * way, or until KEYS_OLD_MAX others were rotated out after it. Kept in the engine's config
 * ("webhook-key/KID"); the store's files are 0600. A key given by file is the active one and is not
 * stored: when the file changes, its former key is no longer published. When the file is no longer
 * given, the next one becomes active.
 *
 * Invariants: the first of the list is the active one, the second the next one, both of the
 * algorithm that is asked for; the others are old, the one that was rotated out last first.
 *
 * Owned by the webhooks room from keys_open to keys_close. Writing goes through engine commands
 * whose effects come back to the room. May call: signature, engine.h (config), fields, base. */
#ifndef WEBHOOKS_KEYS_H
#define WEBHOOKS_KEYS_H

#include "broker/engine/engine.h"
#include "broker/signature/signing_key.h"

#define KEYS_CONFIG_PREFIX "webhook-key/"
#define KEYS_OLD_MS        (7ULL * 24 * 3600 * 1000)
#define KEYS_OLD_MAX       16

struct keys;

struct keys_options {
    struct engine *engine;
    struct route route;   /* of its commands: their effects need no more than to be taken */
    enum signing_alg alg; /* that signs; keys of the other one become old */
    const char *file;     /* path of the active key (signing_key_parse); NULL or "": its own */
};
/* Loads what is stored and makes what is missing; that is durable with the engine's first turn.
 * Non-zero: error[size] says which key or file cannot be used, and nothing was written. */
MUST_CHECK int keys_open(struct keys **out, const struct keys_options *options,
                         struct engine_time time, char *error, size_t error_size);
void keys_close(struct keys **k);
/* The one that signs. */
const struct signing_key *keys_active(const struct keys *k);
/* {"keys":[...]}: active, next, then old ones that are still published at wall_ms. Owned by the
 * room, until the next call. */
struct slice keys_jwks(struct keys *k, uint64_t wall_ms);
/* next becomes active, a fresh one next, active old. ERR_INVALID_REQUEST (*why): the active key
 * comes from a file. The step of its commands is part of this turn; keys_active changes at once:
 * what signs from now on has been published and durable as the next one. */
enum err keys_rotate(struct keys *k, struct engine_time time, const char **why);
/* Removes old ones whose time is over. When it wants to be called again, monotonic ms. */
uint64_t keys_on_turn(struct keys *k, struct engine_time time);

enum key_state { KEY_ACTIVE, KEY_NEXT, KEY_OLD };
const char *key_state_name(enum key_state s); /* "active", "next", "old" */
struct key_info {
    const char *kid;
    enum signing_alg alg;
    enum key_state state;
    uint64_t created_at_ms, retired_at_ms; /* retired: since when it is old; 0: it is not */
    bool from_file;
};
/* The i-th in the order of the JWKS; false at the end. */
bool keys_get(const struct keys *k, size_t i, struct key_info *out);

#endif
