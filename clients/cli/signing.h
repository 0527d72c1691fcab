/* signing.h: Standard Webhooks v1: HMAC-SHA256 over "{id}.{timestamp}.{body}" by a whsec_ secret.
 *
 * A key is memory of its owner, who wipes it with signing_forget. May call: cli, base, libcrypto.
 */
#ifndef CLI_SIGNING_H
#define CLI_SIGNING_H

#include "base/slice.h"
#include "clients/cli/cli.h"

#define SIGNING_HEADER_BYTES 128 /* "webhook-signature: v1,<base64>" and its terminator */
#define SIGNING_SECRET_BYTES 64  /* a secret that is made here, and its terminator */

struct signing_secret {
    uint8_t key[64]; /* what the standard allows is 24 to 64 */
    size_t len;
};

/* "whsec_" (which may be absent) and the base64 of 24 to 64 bytes. 0, or CLI_USAGE after saying
 * what is wrong. */
int signing_parse(const char *text, struct signing_secret *out);
/* A new secret of 32 random bytes, as text. */
void signing_make(char text[SIGNING_SECRET_BYTES]);
/* Writes the header with the signature. */
void signing_header(const struct signing_secret *secret, const char *id, const char *timestamp,
                    struct slice body, char header[SIGNING_HEADER_BYTES]);
void signing_forget(struct signing_secret *secret);

#endif
