/* Standard Webhooks and those that follow it: the three headers under the names webhook- or svix-,
 * secrets (v1), public keys of the source or of a key set (v1a), and a JWT where the scheme takes
 * one. */
#include <stdio.h>

#include "broker/ingest/scheme.h"
#include "broker/signature/standard_webhooks.h"

/* Keys of the source, then those of its set; the order tells which one it was. */
struct keys {
    struct hmac *secrets[LIMIT_SECRETS];
    size_t secret_index[LIMIT_SECRETS]; /* in the source */
    const struct verifying_key *publics[LIMIT_SECRETS + JWKS_KEYS];
    size_t public_index[LIMIT_SECRETS];
    size_t secrets_count, publics_count, own_publics_count;
    struct jwks_set *set; /* NULL: none is configured */
    bool set_empty;
};

static void gather(struct verification *v, struct keys *k) {
    struct source *s = v->source;
    const char *url = source_jwks_url(s);
    k->secrets_count = k->publics_count = 0;
    for (size_t i = 0; i < s->secrets_count; i++) {
        struct source_secret *secret = &s->secrets[i];
        if (secret->public_key != NULL) {
            k->public_index[k->publics_count] = i;
            k->publics[k->publics_count++] = secret->public_key;
        } else {
            struct slice key = slice_of(secret->key.key, secret->key.len);
            k->secret_index[k->secrets_count] = i;
            k->secrets[k->secrets_count++] = source_secret_hmac(secret, HMAC_SHA256, key);
        }
    }
    k->own_publics_count = k->publics_count;
    k->set = url[0] == '\0' ? NULL : jwks_get(v->tools->jwks, url, v->now_ms);
    k->set_empty = false;
    if (k->set == NULL) return;
    size_t count;
    const struct verifying_key *const *fetched = jwks_keys(k->set, &count);
    k->set_empty = count == 0;
    for (size_t i = 0; i < count; i++) k->publics[k->publics_count++] = fetched[i];
}

/* The names are of one family: a sender has one. */
static enum err read_headers(struct verification *v, struct standard_webhooks_request *r) {
    static const char *const families[2][3] = {
        {STANDARD_WEBHOOKS_SIGNATURE, STANDARD_WEBHOOKS_ID, STANDARD_WEBHOOKS_TIMESTAMP},
        {"svix-signature", "svix-id", "svix-timestamp"},
    };
    const char *const *names = families[0];
    size_t count = 0;
    r->signature = http_header_get(v->request, names[0], &count);
    if (r->signature.len == 0 && http_header_get(v->request, families[1][0], NULL).len > 0) {
        names = families[1];
        r->signature = http_header_get(v->request, names[0], &count);
    }
    r->body = v->request->body;
    enum err err = verification_header(v, names[1], &r->id);
    if (err == ERR_OK) err = verification_header(v, names[2], &r->timestamp);
    return err == ERR_OK ? verification_one(v, names[0], r->signature, count) : err;
}

static bool has_v1a(struct slice header) {
    return slice_starts_with(header, "v1a,") || memmem(header.data, header.len, " v1a,", 5) != NULL;
}

/* Whether another key could still make it right: none is known, or a rotation may have come. */
static bool keys_may_come(struct verification *v, const struct keys *k,
                          const struct standard_webhooks_request *r, enum err err) {
    uint64_t timestamp_s;
    if (k->set == NULL || !has_v1a(r->signature)) return false;
    if (err == ERR_SIGNATURE_MISMATCH) {
        return k->set_empty || jwks_miss(v->tools->jwks, k->set, v->now_ms);
    }
    /* With no key at all the v1a entries were not looked at; the rest of the form was. */
    return err == ERR_SIGNATURE_MALFORMED && k->set_empty && webhook_id_ok(r->id, ".") &&
           slice_to_u64(r->timestamp, &timestamp_s);
}

static void say_signer(struct verification *v, const struct keys *k,
                       const struct standard_webhooks_signer *signer) {
    if (!signer->is_public) {
        verification_by_secret(v, "v1, ", k->secret_index[signer->index]);
    } else if (signer->index < k->own_publics_count) {
        verification_by_secret(v, "v1a, ", k->public_index[signer->index]);
    } else {
        snprintf(v->by, sizeof v->by, "v1a, a key of jwks_url");
    }
}

enum err scheme_verify_standard(struct verification *v) {
    struct standard_webhooks_request r;
    struct standard_webhooks_signer signer;
    struct keys k;
    const char *why = "";
    if ((v->source->scheme->options & OPTIONS_JWT) != 0) {
        struct slice token;
        if (http_header_get(v->request, STANDARD_WEBHOOKS_SIGNATURE, NULL).len > 0) {
            enum err err = verification_header(v, STANDARD_WEBHOOKS_SIGNATURE, &token);
            if (err != ERR_OK) return err;
            if (scheme_is_jwt(token)) return scheme_verify_jwt(v, token);
        }
    }
    enum err err = read_headers(v, &r);
    if (err != ERR_OK) return err;
    gather(v, &k);
    const struct standard_webhooks_keys keys = {
        .secrets = k.secrets,
        .secrets_count = k.secrets_count,
        .publics = k.publics,
        .publics_count = k.publics_count,
        .tolerance_s = verification_tolerance_s(v),
    };
    err = standard_webhooks_verify(&keys, &r, v->wall_ms, &signer, &why);
    if (keys_may_come(v, &k, &r, err)) return verification_no_keys(v);
    if (err != ERR_OK) return verification_refuse(v, err, "%s", why);
    say_signer(v, &k, &signer);
    v->id = r.id;
    v->signed_time = r.timestamp;
    return ERR_OK;
}
