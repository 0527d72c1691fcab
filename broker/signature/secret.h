/* secret.h: a Standard Webhooks secret: "whsec_" and the base64 of its key.
 *
 * A struct secret is plain memory of its owner, who wipes it. Texts of secrets appear in no log, no
 * error and no answer but the one that made them. May call: base, libcrypto. */
#ifndef SIGNATURE_SECRET_H
#define SIGNATURE_SECRET_H

#include "base/check.h"
#include "base/slice.h"
#include "proto/err.h"
#include "proto/limits.h"

struct secret {
    uint8_t key[64]; /* decoded */
    size_t len;
};

/* "whsec_" + base64 of 24 to 64 bytes; the prefix may be absent; blanks and line ends around it are
 * refused. ERR_INVALID_REQUEST: *why (static) says what. */
enum err secret_parse(struct slice text, struct secret *out, const char **why);
/* A fresh "whsec_..." of 32 random bytes. */
void secret_generate(char out[LIMIT_SECRET_TEXT_BYTES + 1]);
/* "whsec_...MnM=": the prefix if it has one, three dots and its last four characters: enough to
 * tell two apart. */
#define SECRET_SHOWN_BYTES 16
void secret_show(const char *text, char out[SECRET_SHOWN_BYTES]);

#endif
