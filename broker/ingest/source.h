/* source.h: the named ingest doors and their secrets.
 *
 * The registry is owned by the ingest room; a struct source lives until it is replaced or removed.
 * What is stored (through the engine's config, under "source/NAME") is a JSON object; this file is
 * the only one that knows its form. Secrets are kept in the clear there, because HMAC needs them;
 * the store's files are 0600. They never appear in an answer (but once, when generated), a log or
 * an error.
 *
 * May call: engine (config), json, base, OpenSSL's libcrypto. */
#ifndef INGEST_SOURCE_H
#define INGEST_SOURCE_H

#include "base/buf.h"
#include "broker/engine/engine.h"

#define SOURCE_CONFIG_PREFIX "source/"

enum source_scheme { SCHEME_STANDARD_WEBHOOKS };
/* "standard-webhooks"; NULL: no such scheme. */
const char *source_scheme_name(enum source_scheme scheme);
bool source_scheme_from_name(struct slice name, enum source_scheme *out);

struct source_secret {
    uint8_t key[64]; /* decoded */
    size_t len;
};

struct source {
    uint32_t id; /* of this run of the broker, never used twice: finds it again, or not */
    char name[LIMIT_NAME_BYTES + 1];
    enum source_scheme scheme;
    uint64_t created_at_ms;
    char secret_texts[LIMIT_SECRETS][LIMIT_SECRET_TEXT_BYTES + 1]; /* "whsec_..." as given */
    struct source_secret secrets[LIMIT_SECRETS];
    size_t secrets_count;
    uint64_t accepted_total, duplicates_total, refused_total; /* since start */
};

struct sources;
struct sources *sources_new(void);
void sources_free(struct sources **s);
/* Loads every stored source at start. Non-zero: error says which one cannot be read. */
MUST_CHECK int sources_load(struct sources *s, struct engine *e, char *error, size_t error_size);
/* Brings one source to what the store now says: added, replaced (its counters go on) or removed. */
void sources_refresh(struct sources *s, struct engine *e, struct slice name);
struct source *sources_get(struct sources *s, struct slice name);
struct source *sources_get_by_id(struct sources *s, uint32_t id);
/* In order of name: the first whose name is above `after` (empty: the first); NULL at the end. */
struct source *sources_next(struct sources *s, struct slice after);
size_t sources_count(const struct sources *s);

/* Makes the secret's key from its text: "whsec_" + base64 of 24 to 64 bytes; the prefix may be
 * absent; blanks and line ends around it are refused. ERR_INVALID_REQUEST: *why says what. */
enum err source_secret_parse(struct slice text, struct source_secret *out, const char **why);
/* A fresh "whsec_..." of 32 random bytes. */
void source_secret_generate(char out[LIMIT_SECRET_TEXT_BYTES + 1]);
/* The config value that stores it, and back: scheme, created_at_ms and secrets; the rest of *out is
 * left alone. False: it cannot be read, *why says what is wrong. */
void source_encode(const struct source *s, struct buf *out);
bool source_decode(struct slice value, struct source *out, const char **why);

#endif
