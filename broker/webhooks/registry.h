/* registry.h: the registered (static) webhooks as they are stored, each of one project.
 *
 * A webhook is one entry of the engine's config ("webhook/ID", a JSON object whose form only
 * webhook.c knows) and one subscription of its project, named "webhook.ID", that carries its
 * position and its delivery policy. Both are written in one turn. Ids are random: no two webhooks
 * share one, whatever their projects. Who asks for one says the project and finds only its own.
 *
 * struct webhook is immutable once it is in the table: a change makes a copy, changes that, steps
 * the commands that store it and enters it as pending (registry_put); when they are durable,
 * registry_refresh shows it. So what is read is durable, and a change begins from the latest
 * version (registry_latest). The table is owned by the webhooks room; a struct webhook that is
 * handed out lives until the next refresh of its id.
 *
 * Changes of one webhook become durable in the order in which they were stepped, and each has one
 * effect: whoever gets it calls registry_refresh once, which takes the oldest change over.
 *
 * Secrets are kept in the clear, because HMAC needs them; the store's files are 0600.
 *
 * May call: engine.h (config), signature/secret.h, fields, base. */
#ifndef WEBHOOKS_REGISTRY_H
#define WEBHOOKS_REGISTRY_H

#include "base/buf.h"
#include "broker/engine/engine.h"
#include "broker/fields/fields.h"
#include "broker/signature/secret.h"

#define WEBHOOK_CONFIG_PREFIX       "webhook/"
#define WEBHOOK_SUBSCRIPTION_PREFIX "webhook." /* names that only this room makes */
#define WEBHOOK_ID_BYTES            36         /* of a-z0-9 */

enum webhook_state {
    WEBHOOK_ENABLED,
    WEBHOOK_DISABLED, /* by PATCH */
    WEBHOOK_DISABLED_DUE_TO_FAILED_DELIVERIES,
};
/* As on the wire: "enabled" ... */
const char *webhook_state_name(enum webhook_state s);
/* Upper and lower case. */
bool webhook_state_from_name(struct slice name, enum webhook_state *out);

struct webhook_secret {
    char text[LIMIT_SECRET_TEXT_BYTES + 1];
    struct secret secret;
    uint64_t expires_at_ms; /* wall; 0: it does not */
};
struct webhook_header {
    char *name, *value; /* owned */
};

struct webhook {
    char id[WEBHOOK_ID_BYTES + 1];
    uint32_t project;               /* never changes */
    char *name, *description, *uri; /* owned; "" when not given */
    char *filter;                   /* owned; JSON text (filters.md) beside the types; "": none */
    char **types;                   /* owned; globs: subscribed_events */
    size_t types_count;
    struct webhook_header *headers; /* owned */
    size_t headers_count;
    enum webhook_state state;
    bool paused;
    uint32_t rate_per_s;  /* 0: no limit */
    uint32_t concurrency; /* 1 .. LIMIT_WEBHOOK_CONCURRENCY */
    uint64_t created_at_ms, updated_at_ms;
    uint64_t disabled_at_ms;   /* 0: it is enabled */
    uint64_t failing_since_ms; /* first failure since the last success, once it counts; 0: none */
    char *disabled_reason;     /* owned; "": none */
    struct webhook_secret secrets[LIMIT_WEBHOOK_SECRETS]; /* newest first */
    size_t secrets_count;
};
#define WEBHOOK_CONCURRENCY_DEFAULT 8
#define WEBHOOK_OVERLAP_MS          (24ULL * 3600 * 1000) /* of an old secret after a rotation */

struct webhook *webhook_new(void); /* of the default project; zeroed, texts "" */
struct webhook *webhook_copy(const struct webhook *w);
void webhook_free(struct webhook **w); /* wipes; harmless on NULL */
void webhook_set_text(char **field, struct slice text);
/* Replace all; what is given is copied and must not be theirs. */
void webhook_set_types(struct webhook *w, const struct slice *types, size_t count);
void webhook_set_headers(struct webhook *w, const struct text_member *headers, size_t count);
void webhook_make_id(char out[WEBHOOK_ID_BYTES + 1]); /* random */
/* Puts a fresh secret in front and returns its text; those before it expire at once, or 24 h from
 * wall_ms unless they do so earlier. Those that have expired already are dropped, and the oldest
 * one when there is no place for another. */
const char *webhook_rotate(struct webhook *w, uint64_t wall_ms, bool at_once);
/* How many of its secrets have not expired: the first ones. */
size_t webhook_secrets_valid(const struct webhook *w, uint64_t wall_ms);
/* Its subscription's name. */
void webhook_subscription(const struct webhook *w, char out[LIMIT_NAME_BYTES + 1]);
/* The stored form, appended to a buffer with a maximum of WEBHOOK_STORED_BYTES. The caller wipes
 * it. */
void webhook_encode(const struct webhook *w, struct buf *out);
/* The webhook of a stored form, the caller's; NULL: f->message says what is wrong with it. Members
 * of later versions are passed over. */
struct webhook *webhook_decode(struct slice id, struct slice value, struct refusal *f);
/* What its texts take in the stored form; the API refuses more than WEBHOOK_BYTES_MAX. */
size_t webhook_bytes(const struct webhook *w);
#define WEBHOOK_BYTES_MAX    (16 * KIB)
#define WEBHOOK_STORED_BYTES (6 * WEBHOOK_BYTES_MAX + 16 * KIB) /* every byte as an escape */

struct registry;
struct registry *registry_new(struct engine *e);
void registry_free(struct registry **r);
/* Every stored one. Non-zero: error says which one cannot be read. */
MUST_CHECK int registry_load(struct registry *r, char *error, size_t error_size);
/* Steps CONFIG_PUT (its effect goes to `route`) and enters w, which becomes the registry's, as
 * pending. */
void registry_put(struct registry *r, struct engine_time time, struct route route,
                  struct webhook *w);
/* Steps CONFIG_DELETE. */
void registry_delete(struct registry *r, struct engine_time time, struct route route,
                     const char *id);
/* An effect of these is there: shows what is stored now. Harmless for an id without a change. */
void registry_refresh(struct registry *r, const char *id);
/* As it is stored; NULL: the project has none. */
const struct webhook *registry_get(const struct registry *r, uint32_t project, struct slice id);
/* As it will be when what is under way is durable; NULL: deleted, or going to be. */
const struct webhook *registry_latest(const struct registry *r, uint32_t project, struct slice id);
/* The project's in order of creation, then id: the first after this place, where there need not be
 * one (any more); after 0 and "", the first. */
const struct webhook *registry_after(const struct registry *r, uint32_t project,
                                     uint64_t created_at_ms, struct slice id);
/* All of them, of whatever project, as they are stored: the one at this place, from 0; NULL at the
 * end. */
const struct webhook *registry_at(const struct registry *r, size_t at);
/* Of one project, or of all; with those that are not durable yet. */
size_t registry_count(const struct registry *r, uint32_t project);
size_t registry_count_all(const struct registry *r);

#endif
