/* signing_key.h: private keys that sign for everybody to verify: Ed25519 (Standard Webhooks v1a)
 * and RSA (RS256, as JWT).
 *
 * Owned by whoever made it until signing_key_free. Its text form (PKCS#8 PEM) is a secret; its
 * public form is a JSON Web Key (RFC 7517, RFC 8037) whose kid is its thumbprint (RFC 7638).
 * May call: base, libcrypto. */
#ifndef SIGNATURE_SIGNING_KEY_H
#define SIGNATURE_SIGNING_KEY_H

#include "base/buf.h"
#include "base/check.h"
#include "base/slice.h"

enum signing_alg { SIGNING_ED25519, SIGNING_RS256 };
/* As in a JSON Web Key: "EdDSA", "RS256". */
const char *signing_alg_name(enum signing_alg alg);

struct signing_key;

#define SIGNING_KID_BYTES 43 /* base64url of SHA-256 */
#define SIGNING_PEM_BYTES (8 * 1024)

/* A fresh one; RSA has 2048 bits, which takes a tenth of a second or a few. */
struct signing_key *signing_key_generate(enum signing_alg alg);
/* From PEM (PKCS#8, or the older form of RSA), or "whsk_" + base64 of 32 (seed) or 64 (seed and
 * public) bytes; blanks and line ends around it do not matter. NULL: *why (static) says what is
 * wrong (no key in it, encrypted, an algorithm that is not wanted, an RSA key below 2048 or above
 * 8192 bits, halves that do not belong together), as the end of a sentence that began with what
 * the text is. */
struct signing_key *signing_key_parse(struct slice text, const char **why);
void signing_key_free(struct signing_key **k); /* wipes; harmless on NULL */
enum signing_alg signing_key_alg(const struct signing_key *k);
const char *signing_key_kid(const struct signing_key *k); /* SIGNING_KID_BYTES characters */
/* Appends the PEM, at most SIGNING_PEM_BYTES. The caller wipes it; with that much reserved before,
 * it is in no other place. */
void signing_key_pem(const struct signing_key *k, struct buf *out);
/* Appends the public key as a JSON object: kty, crv and x, or n and e; alg, use "sig", kid. */
void signing_key_jwk(const struct signing_key *k, struct buf *out);

/* Ed25519: appends "v1a,<base64>" over `{id}.{timestamp}.{body}`. */
void signing_key_v1a(const struct signing_key *k, struct slice id, struct slice timestamp,
                     struct slice body, struct buf *out);
/* RS256: appends the compact JWT (RFC 7515, RFC 7519) with header {alg,typ,kid} and the claims,
 * which are the text of a JSON object. */
void signing_key_jwt(const struct signing_key *k, struct slice claims, struct buf *out);

#endif
