/* scheme.h: how the webhooks of a provider are verified and read: one small entry per provider in
 * one table (scheme.c).
 *
 * Entries are constant data. Those whose signature is an HMAC over headers and body say so as a
 * struct hmac_rule; the others bring a function. In every one of them form comes first, then the
 * signature over the raw bytes, then the clock: who holds no secret learns nothing of the clock
 * (standard_webhooks.c says why). Nothing is compared but in constant time, and no text holds a
 * secret or an expected signature.
 *
 * May call: source.h, envelope.h, jwks.h, signature, http/server.h, json, base, libcrypto. */
#ifndef INGEST_SCHEME_H
#define INGEST_SCHEME_H

#include "broker/ingest/envelope.h"
#include "broker/ingest/jwks.h"
#include "broker/ingest/kept_headers.h"
#include "broker/ingest/source.h"
#include "broker/signature/hmac.h"

#define SCHEME_TOLERANCE_S 300 /* both ways */

enum scheme_secrets {
    SECRETS_WHSEC,  /* whsec_ and base64; also whpk_ of a public key */
    SECRETS_OPENAI, /* whsec_ and base64; without the prefix its very bytes */
    SECRETS_TEXT,   /* their very bytes */
    SECRETS_TOKEN,  /* the same, of 16 bytes and more: the operator chose it */
    SECRETS_NONE,
};

enum signature_list {
    LIST_SINGLE, /* prefix and signature */
    LIST_PAIRS,  /* Stripe: t=TIME,v1=SIGNATURE,...; `prefix` is "v1" */
};

enum signature_encoding { ENCODING_HEX, ENCODING_BASE64 };

/* An HMAC in a header. */
struct hmac_rule {
    const char *signature; /* names of headers; NULL: none */
    const char *id, *timestamp;
    const char *prefix; /* of the signature */
    enum signature_list list;
    enum hmac_digest digest;
    enum signature_encoding encoding;
    const char *signed_bytes; /* {id}, {timestamp}, {body}, and what stands between them */
};

struct verification;
typedef enum err scheme_verify_fn(struct verification *v);
typedef void scheme_envelope_fn(const struct verification *v, struct envelope *out);

/* Where an event gets its id, and what tells a repeat. */
enum scheme_id {
    ID_SIGNED,   /* from what was verified: header or body; without one, a hash */
    ID_UNSIGNED, /* a header that nothing signs; a repeat is told by its bytes */
    ID_GIVEN,    /* nothing is signed: a header or ce-id, if it is there */
};

struct scheme {
    const char *name;
    enum scheme_secrets secrets;
    bool makes_secret;     /* one is made when none is given */
    bool secrets_optional; /* its keys can be fetched instead */
    unsigned options;      /* enum option_group */
    const char *jwks_url;  /* when the source says none; NULL: none */
    scheme_verify_fn *verify;
    const struct hmac_rule *rule; /* of scheme_verify_hmac; NULL: the source's options say it */
    enum scheme_id id;
    const char *id_header; /* of ID_UNSIGNED and ID_GIVEN; NULL: none */
    const struct envelope_rule *envelope;
    scheme_envelope_fn *read_form;     /* instead, for bodies that are no JSON; NULL: nothing */
    const struct kept_header *headers; /* beside those that always are; NULL: none */
    const char *challenge; /* type of body that is answered and not journaled; NULL: none */
};

/* NULL: there is none of that name. */
const struct scheme *scheme_find(struct slice name);
/* In the order of the table; NULL at the end. */
const struct scheme *scheme_at(size_t i);
/* "standard-webhooks", which a source has that says none. */
const struct scheme *scheme_default(void);

/* What verifying needs and a room has once. */
struct scheme_tools {
    struct jwks *jwks;
};

#define WHY_BYTES 256

struct verification {
    const struct scheme_tools *tools;
    struct source *source;
    const struct http_request *request;
    uint64_t wall_ms, now_ms;
    /* The result. */
    char why[WHY_BYTES];      /* what is wrong */
    struct slice id;          /* that was signed; empty: none */
    struct slice signed_time; /* as it was signed; empty: none */
    char id_text[LIMIT_EVENT_ID_BYTES + 1];
    char by[64]; /* what verified it: "v1, secrets[0]" */
};

/* Verifies by the source's scheme. ERR_OK, or an error that says what is wrong in v->why. */
enum err scheme_verify(struct verification *v);

/* ---- for the schemes themselves ---- */

enum err verification_refuse(struct verification *v, enum err err, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
/* The value of a header that must be there, once: else the refusal. */
enum err verification_header(struct verification *v, const char *name, struct slice *out);
/* The same of one that http_header_get has found. */
enum err verification_one(struct verification *v, const char *name, struct slice value,
                          size_t count);
/* Seconds since 1970 within the source's tolerance; `what` names it. */
enum err verification_time(struct verification *v, const char *what, uint64_t timestamp_s);
uint64_t verification_tolerance_s(const struct verification *v);
/* An id for what has none: a hash over the source and these parts, into v->id_text and v->id. */
void verification_hash_id(struct verification *v, const struct slice *parts, size_t count);
/* A secret verified it: `how` and its place into v->by. */
void verification_by_secret(struct verification *v, const char *how, size_t secret);
/* The refusal while no key is known. */
enum err verification_no_keys(struct verification *v);

scheme_verify_fn scheme_verify_standard, scheme_verify_hmac, scheme_verify_twilio;
scheme_verify_fn scheme_verify_bearer, scheme_verify_none;
scheme_envelope_fn scheme_read_twilio;

/* The rule that the options of an `hmac` source make; borrows from them. */
struct hmac_rule scheme_rule_of(const struct source_options *o);
/* Whether it is a template of signed bytes. False: *why (static) says what is wrong. */
bool scheme_template_ok(const char *text, const char **why);
/* Its piece {id}, {timestamp} or {body} is there. */
bool scheme_template_has(const char *text, const char *piece);

/* A JWT by one of the fetched keys; the header holds nothing else. scheme_jwt.c. */
bool scheme_is_jwt(struct slice header);
enum err scheme_verify_jwt(struct verification *v, struct slice token);

#endif
