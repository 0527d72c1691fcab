/* hmac.h: message authentication codes (RFC 2104), piece by piece.
 *
 * A context is made once per digest and keyed anew for every use, which is a quarter of the cost of
 * making one each time; where one key has many messages, a context of its own saves the keying too,
 * a third of what is left. Owned by its maker until hmac_free, which wipes the key; nobody can ask
 * a context for its key.
 *
 * May call: base, libcrypto. */
#ifndef SIGNATURE_HMAC_H
#define SIGNATURE_HMAC_H

#include "base/check.h"
#include "base/slice.h"

enum hmac_digest { HMAC_SHA256, HMAC_SHA1, HMAC_SHA512 };
#define HMAC_DIGESTS   3
#define HMAC_BYTES_MAX 64
/* Of the digest's result. */
size_t hmac_bytes(enum hmac_digest digest);

struct hmac;
struct hmac *hmac_new(void);                           /* SHA-256; NULL: libcrypto has none */
struct hmac *hmac_new_digest(enum hmac_digest digest); /* NULL: libcrypto does not have it */
/* With this key, for hmac_again. Never NULL: hmac_new_digest has shown that the digest is there. */
struct hmac *hmac_new_keyed(enum hmac_digest digest, struct slice key);
void hmac_free(struct hmac **h);

void hmac_begin(struct hmac *h, struct slice key);
/* Begins with the key that it has, whatever was begun before. */
void hmac_again(struct hmac *h);
void hmac_add(struct hmac *h, struct slice bytes);
/* Writes hmac_bytes of the context's digest. */
void hmac_end(struct hmac *h, uint8_t out[HMAC_BYTES_MAX]);

#endif
