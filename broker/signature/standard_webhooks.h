/* standard_webhooks.h: the signature scheme of Standard Webhooks 1.0: verifying what comes in (v1
 * and v1a) and signing what goes out (v1).
 *
 * Over `{id}.{timestamp}.{body}` with the raw bytes of the body: v1 is HMAC-SHA256 keyed with any
 * of the receiver's secrets, v1a is Ed25519 by any of the sender's keys. webhook-signature holds
 * space-separated entries `v1,<base64>` and `v1a,<base64>`.
 *
 * Verifying keeps no state. No message ever holds a secret or a signature.
 *
 * May call: hmac.h, secret.h, verifying_key.h, json, base, OpenSSL's libcrypto. */
#ifndef SIGNATURE_STANDARD_WEBHOOKS_H
#define SIGNATURE_STANDARD_WEBHOOKS_H

#include "base/buf.h"
#include "broker/signature/hmac.h"
#include "broker/signature/secret.h"
#include "broker/signature/verifying_key.h"

#define STANDARD_WEBHOOKS_ID        "webhook-id"
#define STANDARD_WEBHOOKS_TIMESTAMP "webhook-timestamp"
#define STANDARD_WEBHOOKS_SIGNATURE "webhook-signature"

#define STANDARD_WEBHOOKS_TOLERANCE_S 300 /* both ways */

/* Who may have signed; borrowed. Neither of them may be NULL where its count is not 0. */
struct standard_webhooks_keys {
    struct hmac *const *secrets; /* v1: contexts of SHA-256 that have their keys */
    size_t secrets_count;
    const struct verifying_key *const
        *publics; /* v1a; those of another algorithm are passed over */
    size_t publics_count;
    uint64_t tolerance_s;
};

/* What a request claims; borrowed. Absent headers have len 0. */
struct standard_webhooks_request {
    struct slice id, timestamp, signature;
    struct slice body;
};

/* Which key it was. */
struct standard_webhooks_signer {
    bool is_public; /* of `publics`, else of `secrets` */
    size_t index;
};

/* ERR_OK: the request was signed with one of the keys, within the tolerance of wall_ms; *signer
 * (may be NULL) says which. Else SIGNATURE_MISSING, SIGNATURE_MALFORMED, SIGNATURE_MISMATCH,
 * TIMESTAMP_TOO_OLD or TIMESTAMP_IN_FUTURE, and *why is a static text that says what. */
enum err standard_webhooks_verify(const struct standard_webhooks_keys *keys,
                                  const struct standard_webhooks_request *r, uint64_t wall_ms,
                                  struct standard_webhooks_signer *signer, const char **why);
/* Whether it can be the id of a webhook: UTF-8 of 1 to LIMIT_EVENT_ID_BYTES without a control
 * character and without one of `separators`, which would make the signed bytes ambiguous. */
bool webhook_id_ok(struct slice id, const char *separators);

/* Appends "v1,<base64>": one entry of webhook-signature. The id has no '.', the timestamp is a
 * decimal number of seconds; the caller puts a blank between entries. */
void standard_webhooks_sign(struct hmac *h, const struct secret *secret, struct slice id,
                            struct slice timestamp, struct slice body, struct buf *out);

#endif
