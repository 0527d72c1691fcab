/* source.h: the named ingest doors: their schemes, secrets and options. A source is a project's:
 * two projects may each have a "github", with secrets of their own.
 *
 * The registry is owned by the ingest room; a struct source lives until it is replaced or removed.
 * What is stored (through the engine's config, under "source/NAME" for the default project and
 * "source/NUMBER/NAME" for another) is a JSON object; source_config.c is the only file that knows
 * its form. Secrets are kept in the clear there, because HMAC needs them;
 * the store's files are 0600. They never appear in an answer (but once, when generated), a log or
 * an error. Secrets whose time is over leave the struct when it is next looked at.
 *
 * May call: engine (config), http/guard.h (texts of URIs), signature, json, base, libcrypto. */
#ifndef INGEST_SOURCE_H
#define INGEST_SOURCE_H

#include "base/buf.h"
#include "base/rate.h"
#include "broker/engine/engine.h"
#include "broker/signature/hmac.h"
#include "broker/signature/secret.h"
#include "broker/signature/verifying_key.h"

#define SOURCE_CONFIG_PREFIX "source/"
/* Of "source/NUMBER/NAME" and its end. */
#define SOURCE_KEY_BYTES (sizeof SOURCE_CONFIG_PREFIX + 11 + LIMIT_NAME_BYTES)

#define SOURCE_HEADER_BYTES   64
#define SOURCE_PREFIX_BYTES   32
#define SOURCE_TEMPLATE_BYTES 128
#define SOURCE_AUDIENCE_BYTES 256
#define SOURCE_WORD_BYTES     16 /* the name of an algorithm or an encoding */
#define SOURCE_TOLERANCE_S    (7 * 24 * 3600)
/* Of the longest JSON text that source_encode makes: two URIs, the other texts and the secrets,
 * each byte of them an escape of six. */
#define SOURCE_STORED_BYTES (64 * KIB)

struct scheme;

/* What beside secrets an operator can say of a source. Empty, 0 or false: the scheme's default. */
struct source_options {
    uint64_t tolerance_s, dedupe_ms, dedupe_events;
    uint64_t rate_per_s, rate_burst; /* of what was verified; burst 0: what comes in a second */
    bool jwks_allow_http, jwt_unbound_body, trust_id_header;
    char jwks_url[LIMIT_URI_BYTES + 1], public_url[LIMIT_URI_BYTES + 1];
    char audience[SOURCE_AUDIENCE_BYTES + 1];
    char token_header[SOURCE_HEADER_BYTES + 1];
    char signature_header[SOURCE_HEADER_BYTES + 1], signature_prefix[SOURCE_PREFIX_BYTES + 1];
    char id_header[SOURCE_HEADER_BYTES + 1], timestamp_header[SOURCE_HEADER_BYTES + 1];
    char algorithm[SOURCE_WORD_BYTES + 1], encoding[SOURCE_WORD_BYTES + 1];
    char signed_bytes[SOURCE_TEMPLATE_BYTES + 1]; /* "{id}.{timestamp}.{body}" */
};

enum option_kind { OPTION_TEXT, OPTION_NUMBER, OPTION_BOOL };
/* Which schemes take an option: one bit of struct scheme's `options`. */
enum option_group {
    OPTIONS_ALL = 1,
    OPTIONS_TIME = 2,
    OPTIONS_JWKS = 4,
    OPTIONS_JWT = 8,
    OPTIONS_URL = 16,
    OPTIONS_HMAC = 32,
    OPTIONS_TOKEN = 64,
    OPTIONS_ID = 128,          /* an id header may be named */
    OPTIONS_UNSIGNED_ID = 256, /* its id may be trusted though nothing signs it */
};
struct source_option {
    const char *name;
    enum option_kind kind;
    enum option_group group;
    size_t offset;     /* in struct source_options */
    uint64_t min, max; /* of a number; of the bytes of a text */
};
extern const struct source_option source_option_table[];
extern const size_t source_option_count;
/* Where the option's value is. */
void *source_option_at(struct source_options *o, const struct source_option *option);
const void *source_option_in(const struct source_options *o, const struct source_option *option);

struct source_secret {
    char text[LIMIT_SECRET_TEXT_BYTES + 1]; /* as given */
    struct secret key;                      /* of schemes whose secrets are whsec_ */
    struct verifying_key *public_key;       /* owned; NULL: it is a secret */
    struct hmac *hmac;                      /* owned; NULL: not needed yet */
    uint64_t expires_at_ms;                 /* 0: never */
};

struct source {
    uint32_t id; /* of this run of the broker, never used twice: finds it again, or not */
    uint32_t project;
    char name[LIMIT_NAME_BYTES + 1];
    const struct scheme *scheme;
    uint64_t created_at_ms;
    struct source_secret secrets[LIMIT_SECRETS];
    size_t secrets_count;
    bool had_secrets; /* it has none only because their time is over */
    struct source_options options;
    struct rate rate;
    uint64_t accepted_total, duplicates_total, refused_total; /* since start */
};

/* Gives back what it owns and wipes it all. */
void source_clear(struct source *s);
/* Adds one by the rules of the source's scheme. False: *why (static) says what is wrong with it, as
 * the end of a sentence that began with its place. */
bool source_add_secret(struct source *s, struct slice text, uint64_t expires_at_ms,
                       const char **why);
/* Whether all of it goes together: options that the scheme takes, those that it needs, a secret if
 * it needs one. False: why[size] says what is wrong. */
bool source_check(const struct source *s, char *why, size_t size);
/* Drops the secrets whose time is over. */
void source_expire(struct source *s, uint64_t wall_ms);
/* The context for hmac_again; borrowed. A scheme gives the same digest and key with every call. */
struct hmac *source_secret_hmac(struct source_secret *secret, enum hmac_digest digest,
                                struct slice key);
/* "whsec_...MnM=", or "..." of one that is too short to show its end. */
void source_show_secret(const struct source_secret *secret, char out[SECRET_SHOWN_BYTES]);
/* Where its keys are fetched from; "": nowhere. */
const char *source_jwks_url(const struct source *s);

struct sources;
struct sources *sources_new(void);
void sources_free(struct sources **s);
/* Loads every stored source at start. Non-zero: error says which one cannot be read. */
MUST_CHECK int sources_load(struct sources *s, struct engine *e, char *error, size_t error_size);
/* Brings one source to what the store now says: added, replaced (its counters and its rate go on)
 * or removed. */
void sources_refresh(struct sources *s, struct engine *e, uint32_t project, struct slice name,
                     uint64_t now_ms);
struct source *sources_get(struct sources *s, uint32_t project, struct slice name);
struct source *sources_get_by_id(struct sources *s, uint32_t id);
/* The project's, in order of name: the first whose name is above `after` (empty: the first); NULL
 * at the end. */
struct source *sources_next(struct sources *s, uint32_t project, struct slice after);
/* All of them, of whatever project: the one at this place, from 0; NULL at the end. */
struct source *sources_at(struct sources *s, size_t at);
size_t sources_count(const struct sources *s, uint32_t project);
size_t sources_count_all(const struct sources *s);

/* Under which it is stored. */
void source_config_key(uint32_t project, struct slice name, char out[SOURCE_KEY_BYTES]);

/* The config value that stores it, and back: scheme, created_at_ms, secrets and options; the rest
 * of *out is left alone, what it owned before is not given back. False: it cannot be read, *why
 * says what is wrong and *out owns nothing. */
void source_encode(const struct source *s, struct buf *out);
bool source_decode(struct slice value, struct source *out, const char **why);

#endif
