/* verifying_key.h: public keys that others sign for: Ed25519 (Standard Webhooks v1a, EdDSA) and RSA
 * (RS256), from a text or from a JSON Web Key.
 *
 * What a key may be used for is fixed when it is made, by its type alone (RFC 8725 section 3.1): a
 * message never chooses the algorithm. Immutable; owned by whoever made it until
 * verifying_key_free. May call: base, signing_key.h (the names of algorithms), libcrypto. */
#ifndef SIGNATURE_VERIFYING_KEY_H
#define SIGNATURE_VERIFYING_KEY_H

#include "broker/signature/signing_key.h"

struct verifying_key;

#define VERIFYING_KEY_PREFIX    "whpk_"
#define VERIFYING_KID_BYTES     256
#define VERIFYING_SIGNATURE_MAX 1024 /* of an RSA key of 8192 bits */

/* The members of a JSON Web Key (RFC 7517) that matter here, as they stand in it without quotes;
 * absent: len 0. */
struct jwk {
    struct slice kty, crv, x, n, e, kid, use, alg;
};

/* "whpk_" + base64 of 32 bytes. NULL: *why (static) says what is wrong, as the end of a sentence
 * that began with what the text is. */
struct verifying_key *verifying_key_parse(struct slice text, const char **why);
/* kty OKP with crv Ed25519, or kty RSA of 2048 to 8192 bits; `use`, if there, is "sig", and `alg`,
 * if there, is the one of the type. NULL: *why as above. */
struct verifying_key *verifying_key_from_jwk(const struct jwk *jwk, const char **why);
void verifying_key_free(struct verifying_key **k);

enum signing_alg verifying_key_alg(const struct verifying_key *k);
const char *verifying_key_kid(const struct verifying_key *k); /* "": it has none */
/* Whether the signature is the key's over these bytes, by the key's own algorithm. */
bool verifying_key_verify(const struct verifying_key *k, struct slice message,
                          struct slice signature);

/* base64url without padding (RFC 4648 section 5, RFC 7515 section 2), strictly. Returns the bytes
 * written to out[size], or -1. */
long base64url_decode(struct slice text, uint8_t *out, size_t size);

#endif
