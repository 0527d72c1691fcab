/* The order of the checks decides what a stranger can learn. Form comes first: it depends on the
 * request alone. Then the signature, and only then the clock: who holds no secret is told
 * "mismatch" whatever the timestamp says, and learns neither the broker's time nor whether an id
 * was seen. It also means that "too old" is always true of the sender that signed it. The price, an
 * HMAC over a body for nothing, is bounded by the largest body and is below that of receiving it.
 */
#include "broker/ingest/standard_webhooks.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdlib.h>

#include "base/base64.h"
#include "broker/json/walk.h"

#define MAC_BYTES 32

struct hmac {
    EVP_MAC *mac;
    EVP_MAC_CTX *ctx;
};

struct hmac *hmac_new(void) {
    struct hmac *h = mem_zalloc(sizeof *h);
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string("digest", digest, 0),
                           OSSL_PARAM_construct_end()};
    h->mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    if (h->mac != NULL) h->ctx = EVP_MAC_CTX_new(h->mac);
    if (h->ctx == NULL || EVP_MAC_CTX_set_params(h->ctx, params) != 1) hmac_free(&h);
    return h;
}

void hmac_free(struct hmac **h) {
    if (*h == NULL) return;
    EVP_MAC_CTX_free((*h)->ctx);
    EVP_MAC_free((*h)->mac);
    free(*h);
    *h = NULL;
}

static void sign(struct hmac *h, const struct source_secret *secret,
                 const struct standard_webhooks_request *r, uint8_t out[MAC_BYTES]) {
    const uint8_t dot = '.';
    size_t len = 0;
    int ok = EVP_MAC_init(h->ctx, secret->key, secret->len, NULL);
    ok &= EVP_MAC_update(h->ctx, r->id.data, r->id.len);
    ok &= EVP_MAC_update(h->ctx, &dot, 1);
    ok &= EVP_MAC_update(h->ctx, r->timestamp.data, r->timestamp.len);
    ok &= EVP_MAC_update(h->ctx, &dot, 1);
    if (r->body.len > 0) ok &= EVP_MAC_update(h->ctx, r->body.data, r->body.len);
    ok &= EVP_MAC_final(h->ctx, out, &len, MAC_BYTES);
    CHECK(ok == 1 && len == MAC_BYTES);
}

static enum err refuse(const char **why, enum err err, const char *text) {
    *why = text;
    return err;
}

/* A '.' would make `{id}.{timestamp}` ambiguous: part of the id could pass for the time. */
static bool id_ok(struct slice id) {
    if (id.len > LIMIT_EVENT_ID_BYTES) return false;
    for (size_t i = 0; i < id.len; i++) {
        if (id.data[i] == '.' || id.data[i] < 0x20 || id.data[i] == 0x7F) return false;
    }
    return json_utf8_error(id) == id.len; /* it is told to workers as text */
}

static enum err check_form(const struct standard_webhooks_request *r, const char **why,
                           uint64_t *timestamp_s) {
    if (r->id.len == 0) {
        return refuse(why, ERR_SIGNATURE_MISSING, "the header webhook-id is missing");
    }
    if (r->timestamp.len == 0) {
        return refuse(why, ERR_SIGNATURE_MISSING, "the header webhook-timestamp is missing");
    }
    if (r->signature.len == 0) {
        return refuse(why, ERR_SIGNATURE_MISSING, "the header webhook-signature is missing");
    }
    if (!id_ok(r->id)) {
        return refuse(why, ERR_SIGNATURE_MALFORMED,
                      "webhook-id holds a '.', a control character, more than 256 bytes, or is not "
                      "UTF-8");
    }
    if (!slice_to_u64(r->timestamp, timestamp_s)) {
        return refuse(why, ERR_SIGNATURE_MALFORMED,
                      "webhook-timestamp is not a whole number of seconds since 1970");
    }
    return ERR_OK;
}

/* Decodes the first LIMIT_SIGNATURES v1 entries that can be one; returns how many there are.
 * Entries of other versions are skipped. *v1 becomes the number of v1 entries, good or bad. */
static size_t read_entries(struct slice header, uint8_t out[LIMIT_SIGNATURES][MAC_BYTES],
                           size_t *v1) {
    size_t count = 0;
    *v1 = 0;
    while (header.len > 0 && *v1 < LIMIT_SIGNATURES) {
        const uint8_t *blank = memchr(header.data, ' ', header.len);
        size_t len = blank == NULL ? header.len : (size_t)(blank - header.data);
        struct slice entry = slice_of(header.data, len);
        header = slice_from(header, blank == NULL ? len : len + 1);
        if (!slice_starts_with(entry, "v1,")) continue;
        (*v1)++;
        /* A byte more than a MAC, so that a longer signature is not taken for a whole one. */
        uint8_t decoded[MAC_BYTES + 1];
        if (base64_decode(slice_from(entry, 3), decoded, sizeof decoded) != MAC_BYTES) continue;
        memcpy(out[count++], decoded, MAC_BYTES);
    }
    return count;
}

enum err standard_webhooks_verify(struct hmac *h, const struct source_secret *secrets,
                                  size_t secrets_count, const struct standard_webhooks_request *r,
                                  uint64_t wall_ms, const char **why) {
    uint64_t timestamp_s = 0, now_s = wall_ms / 1000;
    uint8_t entries[LIMIT_SIGNATURES][MAC_BYTES], expected[MAC_BYTES];
    CHECK(secrets_count > 0);

    enum err err = check_form(r, why, &timestamp_s);
    if (err != ERR_OK) return err;
    size_t v1 = 0, count = read_entries(r->signature, entries, &v1);
    if (count == 0) {
        return refuse(why, ERR_SIGNATURE_MALFORMED,
                      v1 == 0 ? "webhook-signature has no v1 entry"
                              : "no v1 entry of webhook-signature is the base64 of 32 bytes");
    }

    bool match = false;
    for (size_t i = 0; i < secrets_count && !match; i++) {
        sign(h, &secrets[i], r, expected);
        for (size_t j = 0; j < count; j++) {
            match |= CRYPTO_memcmp(expected, entries[j], MAC_BYTES) == 0;
        }
    }
    OPENSSL_cleanse(expected, sizeof expected);
    if (!match) {
        return refuse(why, ERR_SIGNATURE_MISMATCH,
                      "no signature was made with a secret of this source over these bytes");
    }
    if (timestamp_s < now_s && now_s - timestamp_s > STANDARD_WEBHOOKS_TOLERANCE_S) {
        return refuse(why, ERR_TIMESTAMP_TOO_OLD,
                      "webhook-timestamp is more than 300 s ago: sign every attempt afresh");
    }
    if (timestamp_s > now_s && timestamp_s - now_s > STANDARD_WEBHOOKS_TOLERANCE_S) {
        return refuse(why, ERR_TIMESTAMP_IN_FUTURE,
                      "webhook-timestamp is more than 300 s ahead: compare the clocks");
    }
    return ERR_OK;
}
