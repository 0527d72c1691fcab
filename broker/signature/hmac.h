/* hmac.h: message authentication codes (RFC 2104), piece by piece.
 *
 * A context is made once per digest and keyed anew for every use, which is a quarter of the cost of
 * making one each time. Owned by its room from hmac_new to hmac_free; it keeps no key between
 * hmac_end and the next hmac_begin that anybody could ask it for.
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
void hmac_free(struct hmac **h);

void hmac_begin(struct hmac *h, struct slice key);
void hmac_add(struct hmac *h, struct slice bytes);
/* Writes hmac_bytes of the context's digest. */
void hmac_end(struct hmac *h, uint8_t out[HMAC_BYTES_MAX]);

#endif
