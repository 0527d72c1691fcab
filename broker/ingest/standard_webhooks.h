/* standard_webhooks.h: the signature scheme of Standard Webhooks 1.0, symmetric part (v1).
 *
 * HMAC-SHA256 over `{id}.{timestamp}.{body}` with the raw bytes of the body, keyed with any of the
 * source's secrets; webhook-signature holds space-separated entries `v1,<base64>`.
 *
 * struct hmac is owned by the ingest room from hmac_new to hmac_free; verifying itself keeps no
 * state and allocates nothing. No message ever holds a secret or a signature.
 *
 * May call: source.h, base, OpenSSL's libcrypto. */
#ifndef INGEST_STANDARD_WEBHOOKS_H
#define INGEST_STANDARD_WEBHOOKS_H

#include "broker/ingest/source.h"

#define STANDARD_WEBHOOKS_ID        "webhook-id"
#define STANDARD_WEBHOOKS_TIMESTAMP "webhook-timestamp"
#define STANDARD_WEBHOOKS_SIGNATURE "webhook-signature"

#define STANDARD_WEBHOOKS_TOLERANCE_S 300 /* both ways */

/* A MAC context that is made once and keyed anew for every use: a quarter of the cost of making
 * one each time. */
struct hmac;
struct hmac *hmac_new(void); /* NULL: libcrypto has no HMAC-SHA256 */
void hmac_free(struct hmac **h);

/* What a request claims; borrowed. Absent headers have len 0. */
struct standard_webhooks_request {
    struct slice id, timestamp, signature;
    struct slice body;
};

/* ERR_OK: the request was signed with one of the secrets, within the tolerance of wall_ms. Else
 * SIGNATURE_MISSING, SIGNATURE_MALFORMED, SIGNATURE_MISMATCH, TIMESTAMP_TOO_OLD or
 * TIMESTAMP_IN_FUTURE, and *why is a static text that says what. */
enum err standard_webhooks_verify(struct hmac *h, const struct source_secret *secrets,
                                  size_t secrets_count, const struct standard_webhooks_request *r,
                                  uint64_t wall_ms, const char **why);

#endif
