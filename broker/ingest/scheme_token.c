/* Schemes without a signature: a token that the sender shows, or nothing at all. */
#include <stdio.h>

#include "broker/ingest/scheme.h"

#define BEARER "bearer "

/* Compares as many bytes as were shown, whatever the token has: time tells nothing but the length
 * of what the sender knows already. */
static bool same_token(struct slice shown, const char *token) {
    size_t len = strlen(token);
    unsigned different = shown.len != len;
    for (size_t i = 0; i < shown.len; i++) {
        different |= shown.data[i] ^ (unsigned char)token[i % (len == 0 ? 1 : len)];
    }
    return different == 0;
}

static bool cut_bearer(struct slice *value) {
    struct slice head = *value;
    if (head.len < sizeof BEARER - 1) return false;
    head.len = sizeof BEARER - 1;
    if (!slice_eq_nocase(head, BEARER)) return false;
    *value = slice_from(*value, sizeof BEARER - 1);
    while (value->len > 0 && value->data[0] == ' ') *value = slice_from(*value, 1);
    return value->len > 0;
}

enum err scheme_verify_bearer(struct verification *v) {
    const struct source *s = v->source;
    bool own = s->options.token_header[0] != '\0';
    const char *name = own ? s->options.token_header : "authorization";
    struct slice shown;
    enum err err = verification_header(v, name, &shown);
    if (err != ERR_OK) return err;
    if (!own && !cut_bearer(&shown)) {
        return verification_refuse(v, ERR_SIGNATURE_MALFORMED,
                                   "the header authorization is not Bearer and a token");
    }
    size_t found = LIMIT_SECRETS;
    for (size_t i = 0; i < s->secrets_count; i++) {
        if (same_token(shown, s->secrets[i].text) && found == LIMIT_SECRETS) found = i;
    }
    if (found == LIMIT_SECRETS) {
        return verification_refuse(v, ERR_SIGNATURE_MISMATCH,
                                   "the token in %s is none of this source", name);
    }
    verification_by_secret(v, "", found);
    return ERR_OK;
}

enum err scheme_verify_none(struct verification *v) {
    snprintf(v->by, sizeof v->by, "nothing: the scheme is none");
    return ERR_OK;
}
