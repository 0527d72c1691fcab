/* The order of the checks decides what a stranger can learn. Form comes first: it depends on the
 * request alone. Then the signature, and only then the clock: who holds no secret is told
 * "mismatch" whatever the timestamp says, and learns neither the broker's time nor whether an id
 * was seen. It also means that "too old" is always true of the sender that signed it. The price, an
 * HMAC over a body for nothing, is bounded by the largest body and is below that of receiving it.
 */
#include "broker/signature/standard_webhooks.h"

#include <openssl/crypto.h>

#include "base/base64.h"
#include "broker/json/walk.h"

#define MAC_BYTES     32
#define ED25519_BYTES 64 /* of a signature */
#define V1            "v1,"
#define V1A           "v1a,"

/* With the key that was begun. */
static void mac(struct hmac *h, struct slice id, struct slice timestamp, struct slice body,
                uint8_t out[HMAC_BYTES_MAX]) {
    const struct slice dot = slice_of(".", 1);
    hmac_add(h, id);
    hmac_add(h, dot);
    hmac_add(h, timestamp);
    hmac_add(h, dot);
    hmac_add(h, body);
    hmac_end(h, out);
}

void standard_webhooks_sign(struct hmac *h, const struct secret *secret, struct slice id,
                            struct slice timestamp, struct slice body, struct buf *out) {
    uint8_t bytes[HMAC_BYTES_MAX];
    char text[BASE64_LEN(MAC_BYTES) + 1];
    CHECK(id.len > 0 && timestamp.len > 0);
    hmac_begin(h, slice_of(secret->key, secret->len));
    mac(h, id, timestamp, body, bytes);
    base64_encode(slice_of(bytes, MAC_BYTES), text);
    buf_append_str(out, V1);
    buf_append_str(out, text);
}

static enum err refuse(const char **why, enum err err, const char *text) {
    *why = text;
    return err;
}

/* A '.' would make `{id}.{timestamp}` ambiguous: part of the id could pass for the time. */
bool webhook_id_ok(struct slice id, const char *separators) {
    if (id.len == 0 || id.len > LIMIT_EVENT_ID_BYTES) return false;
    for (size_t i = 0; i < id.len; i++) {
        if (id.data[i] < 0x20 || id.data[i] == 0x7F) return false;
    }
    for (; *separators != '\0'; separators++) {
        if (memchr(id.data, *separators, id.len) != NULL) return false;
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
    if (!webhook_id_ok(r->id, ".")) {
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

/* The entries of a version that keys are there for. */
struct entries {
    uint8_t v1[LIMIT_SIGNATURES][MAC_BYTES], v1a[LIMIT_SIGNATURES][ED25519_BYTES];
    size_t v1_count, v1a_count;
    size_t seen; /* good or bad */
};

/* Decodes one entry to exactly `bytes` of them. */
static void read_entry(struct slice encoded, uint8_t *out, size_t bytes, size_t *count) {
    /* A byte more, so that a longer signature is not taken for a whole one. */
    uint8_t decoded[ED25519_BYTES + 1];
    if (base64_decode(encoded, decoded, bytes + 1) != (long)bytes) return;
    memcpy(out, decoded, bytes);
    (*count)++;
}

/* Of the first LIMIT_SIGNATURES entries that there can be a key for, those that can be signatures.
 * Entries of other versions are skipped. */
static void read_entries(struct slice header, const struct standard_webhooks_keys *keys,
                         struct entries *out) {
    out->v1_count = out->v1a_count = out->seen = 0;
    while (header.len > 0 && out->seen < LIMIT_SIGNATURES) {
        const uint8_t *blank = memchr(header.data, ' ', header.len);
        size_t len = blank == NULL ? header.len : (size_t)(blank - header.data);
        struct slice entry = slice_of(header.data, len);
        header = slice_from(header, blank == NULL ? len : len + 1);
        if (keys->secrets_count > 0 && slice_starts_with(entry, V1)) {
            out->seen++;
            read_entry(slice_from(entry, sizeof V1 - 1), out->v1[out->v1_count], MAC_BYTES,
                       &out->v1_count);
        } else if (keys->publics_count > 0 && slice_starts_with(entry, V1A)) {
            out->seen++;
            read_entry(slice_from(entry, sizeof V1A - 1), out->v1a[out->v1a_count], ED25519_BYTES,
                       &out->v1a_count);
        }
    }
}

static enum err refuse_entries(const struct standard_webhooks_keys *keys,
                               const struct entries *entries, const char **why) {
    const char *text = "no v1 or v1a entry of webhook-signature is the base64 of a signature";
    if (keys->publics_count == 0) {
        text = entries->seen == 0 ? "webhook-signature has no v1 entry"
                                  : "no v1 entry of webhook-signature is the base64 of 32 bytes";
    } else if (keys->secrets_count == 0) {
        text = entries->seen == 0 ? "webhook-signature has no v1a entry"
                                  : "no v1a entry of webhook-signature is the base64 of 64 bytes";
    } else if (entries->seen == 0) {
        text = "webhook-signature has neither a v1 nor a v1a entry";
    }
    return refuse(why, ERR_SIGNATURE_MALFORMED, text);
}

static bool match_secrets(const struct standard_webhooks_keys *keys,
                          const struct standard_webhooks_request *r, const struct entries *entries,
                          struct standard_webhooks_signer *signer) {
    uint8_t expected[HMAC_BYTES_MAX];
    bool match = false;
    if (entries->v1_count == 0) return false;
    for (size_t i = 0; i < keys->secrets_count && !match; i++) {
        hmac_again(keys->secrets[i]);
        mac(keys->secrets[i], r->id, r->timestamp, r->body, expected);
        for (size_t j = 0; j < entries->v1_count; j++) {
            match |= CRYPTO_memcmp(expected, entries->v1[j], MAC_BYTES) == 0;
        }
        *signer = (struct standard_webhooks_signer){.index = i};
    }
    OPENSSL_cleanse(expected, sizeof expected);
    return match;
}

/* Ed25519 reads its message twice (RFC 8032): libcrypto wants it in one piece. */
static bool match_publics(const struct standard_webhooks_keys *keys,
                          const struct standard_webhooks_request *r, const struct entries *entries,
                          struct standard_webhooks_signer *signer) {
    struct buf message;
    bool match = false;
    if (entries->v1a_count == 0) return false;
    buf_init(&message, r->id.len + r->timestamp.len + r->body.len + sizeof "..");
    CHECK(buf_reserve(&message, message.max) != NULL);
    buf_append_slice(&message, r->id);
    buf_append_byte(&message, '.');
    buf_append_slice(&message, r->timestamp);
    buf_append_byte(&message, '.');
    buf_append_slice(&message, r->body);
    for (size_t i = 0; i < keys->publics_count && !match; i++) {
        if (verifying_key_alg(keys->publics[i]) != SIGNING_ED25519) continue;
        for (size_t j = 0; j < entries->v1a_count && !match; j++) {
            match = verifying_key_verify(keys->publics[i], buf_slice(&message),
                                         slice_of(entries->v1a[j], ED25519_BYTES));
        }
        *signer = (struct standard_webhooks_signer){.is_public = true, .index = i};
    }
    buf_free(&message);
    return match;
}

static enum err check_time(uint64_t timestamp_s, uint64_t now_s, uint64_t tolerance_s,
                           const char **why) {
    if (timestamp_s < now_s && now_s - timestamp_s > tolerance_s) {
        return refuse(why, ERR_TIMESTAMP_TOO_OLD,
                      tolerance_s == STANDARD_WEBHOOKS_TOLERANCE_S
                          ? "webhook-timestamp is more than 300 s ago: sign every attempt afresh"
                          : "webhook-timestamp is further back than the source's tolerance_s: "
                            "sign every attempt afresh");
    }
    if (timestamp_s > now_s && timestamp_s - now_s > tolerance_s) {
        return refuse(why, ERR_TIMESTAMP_IN_FUTURE,
                      tolerance_s == STANDARD_WEBHOOKS_TOLERANCE_S
                          ? "webhook-timestamp is more than 300 s ahead: compare the clocks"
                          : "webhook-timestamp is further ahead than the source's tolerance_s: "
                            "compare the clocks");
    }
    return ERR_OK;
}

enum err standard_webhooks_verify(const struct standard_webhooks_keys *keys,
                                  const struct standard_webhooks_request *r, uint64_t wall_ms,
                                  struct standard_webhooks_signer *signer, const char **why) {
    uint64_t timestamp_s = 0;
    struct standard_webhooks_signer found = {.index = 0};
    struct entries entries;

    enum err err = check_form(r, why, &timestamp_s);
    if (err != ERR_OK) return err;
    read_entries(r->signature, keys, &entries);
    if (entries.v1_count + entries.v1a_count == 0) return refuse_entries(keys, &entries, why);
    if (!match_secrets(keys, r, &entries, &found) && !match_publics(keys, r, &entries, &found)) {
        return refuse(why, ERR_SIGNATURE_MISMATCH,
                      keys->publics_count == 0
                          ? "no signature was made with a secret of this source over these bytes"
                          : "no signature was made with a key of this source over these bytes");
    }
    if (signer != NULL) *signer = found;
    return check_time(timestamp_s, wall_ms / 1000, keys->tolerance_s, why);
}
