/* jwt.h: reads a compact JWT (RFC 7515, RFC 7519) that somebody sent; verifies nothing.
 *
 * A struct jwt is plain memory; its slice borrows from the token. May call: verifying_key.h (its
 * base64url), json, base. */
#ifndef SIGNATURE_JWT_H
#define SIGNATURE_JWT_H

#include "base/check.h"
#include "base/slice.h"
#include "broker/signature/verifying_key.h"

#define JWT_ID_BYTES   256
#define JWT_PART_BYTES (16 * 1024) /* of a decoded part */

struct jwt {
    struct slice signed_part; /* header, dot, claims: as they were sent */
    uint8_t signature[VERIFYING_SIGNATURE_MAX];
    size_t signature_len;
    char alg[16], kid[VERIFYING_KID_BYTES + 1];
    char jti[JWT_ID_BYTES + 1], body_sha256[65];
    uint64_t exp, nbf, iat; /* seconds; 0: not there */
    bool audience_fits;     /* aud is there and names the one that was asked for */
};

/* Whether it has the form of one: three parts of base64url with dots between. */
bool jwt_looks_so(struct slice token);
/* False: *why (static) says what is wrong, as the end of a sentence that began with the token. A
 * header with `crit` is refused: what it names is not understood (RFC 7515 section 4.1.11). */
bool jwt_read(struct slice token, const char *audience, struct jwt *out, const char **why);

#endif
