/* Arbitrary headers and body through the verifier, beside a second way to the same answer: HMAC in
 * one call, encoded, compared as text. What the verifier accepts must be signed by that account, of
 * good form and within the tolerance; what it calls a mismatch must not be signed.
 *
 * Input: a byte of flags, then id, timestamp, signature and body, separated by line ends (the body
 * may hold more of them). A flag puts the right signature into the header, so that the accepting
 * paths are walked too. */
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "broker/signature/signing_key.h"
#include "broker/signature/standard_webhooks.h"

#define MAC_BYTES     32
#define MAC_TEXT_SIZE (BASE64_LEN(MAC_BYTES) + 1)
#define NOW_S         1614265330ULL

enum { FLAG_SIGN = 1, FLAG_SECOND_SECRET = 2, FLAG_NOW = 4 };

static struct slice cut_line(struct slice *rest) {
    const uint8_t *end = rest->len == 0 ? NULL : memchr(rest->data, '\n', rest->len);
    size_t len = end == NULL ? rest->len : (size_t)(end - rest->data);
    struct slice line = slice_of(rest->data, len);
    *rest = slice_from(*rest, end == NULL ? len : len + 1);
    return line;
}

static void sign(const struct secret *secret, const struct standard_webhooks_request *r,
                 char out[MAC_TEXT_SIZE]) {
    uint8_t mac[MAC_BYTES];
    unsigned len = 0;
    struct buf b;
    buf_init(&b, 1 << 24);
    buf_append_slice(&b, r->id);
    buf_append_byte(&b, '.');
    buf_append_slice(&b, r->timestamp);
    buf_append_byte(&b, '.');
    buf_append_slice(&b, r->body);
    CHECK(HMAC(EVP_sha256(), secret->key, (int)secret->len, b.data, b.len, mac, &len) != NULL);
    CHECK(len == MAC_BYTES);
    base64_encode(slice_of(mac, len), out);
    buf_free(&b);
}

/* Whether the header has the text as a v1 entry among the first LIMIT_SIGNATURES of them, padded
 * or not. */
static bool has_entry(struct slice header, const char *mac) {
    size_t v1 = 0;
    for (size_t i = 0, start = 0; i <= header.len; i++) {
        if (i < header.len && header.data[i] != ' ') continue;
        struct slice entry = slice_of(header.data + start, i - start);
        start = i + 1;
        if (entry.len < 3 || memcmp(entry.data, "v1,", 3) != 0) continue;
        if (v1++ == LIMIT_SIGNATURES) return false;
        struct slice text = slice_from(entry, 3);
        if (text.len == MAC_TEXT_SIZE - 2 && memcmp(text.data, mac, text.len) == 0) return true;
        if (slice_eq_str(text, mac)) return true;
    }
    return false;
}

/* Puts the right signature behind what the header says; out is freed by the caller. */
static void append_signature(struct buf *out, struct slice header, const char *mac) {
    buf_init(out, 1 << 24);
    buf_append_slice(out, header);
    if (header.len > 0) buf_append_byte(out, ' ');
    buf_printf(out, "v1,%s", mac);
}

static void judge(enum err err, bool is_signed, const struct standard_webhooks_request *r) {
    uint64_t timestamp_s = 0;
    bool number = slice_to_u64(r->timestamp, &timestamp_s);
    uint64_t apart = timestamp_s > NOW_S ? timestamp_s - NOW_S : NOW_S - timestamp_s;
    switch (err) {
    case ERR_OK:
        CHECK(is_signed && number && apart <= STANDARD_WEBHOOKS_TOLERANCE_S);
        CHECK(r->id.len > 0 && r->id.len <= LIMIT_EVENT_ID_BYTES);
        CHECK(memchr(r->id.data, '.', r->id.len) == NULL);
        break;
    case ERR_TIMESTAMP_TOO_OLD: CHECK(is_signed && number && timestamp_s < NOW_S - 300); break;
    case ERR_TIMESTAMP_IN_FUTURE: CHECK(is_signed && number && timestamp_s > NOW_S + 300); break;
    case ERR_SIGNATURE_MISMATCH: CHECK(!is_signed); break;
    case ERR_SIGNATURE_MISSING:
        CHECK(r->id.len == 0 || r->timestamp.len == 0 || r->signature.len == 0);
        break;
    case ERR_SIGNATURE_MALFORMED: break;
    default: UNREACHABLE("no other error is documented");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *why = NULL;
    struct secret secrets[2];
    char mac[2][MAC_TEXT_SIZE];
    if (size == 0) return 0;
    CHECK(secret_parse(slice_str("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), &secrets[0], &why) ==
          ERR_OK);
    CHECK(secret_parse(slice_str("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"), &secrets[1], &why) ==
          ERR_OK);
    uint8_t flags = data[0];
    struct slice rest = slice_of(data + 1, size - 1);
    struct standard_webhooks_request r;
    r.id = cut_line(&rest);
    r.timestamp = cut_line(&rest);
    r.signature = cut_line(&rest);
    r.body = rest;
    if (flags & FLAG_NOW) r.timestamp = slice_str("1614265330");
    sign(&secrets[0], &r, mac[0]);
    sign(&secrets[1], &r, mac[1]);
    struct buf header;
    append_signature(&header, r.signature, mac[flags & FLAG_SECOND_SECRET ? 1 : 0]);
    if (flags & FLAG_SIGN) r.signature = buf_slice(&header);

    struct hmac *each[2];
    for (int i = 0; i < 2; i++) {
        each[i] = hmac_new_keyed(HMAC_SHA256, slice_of(secrets[i].key, secrets[i].len));
    }
    bool is_signed = has_entry(r.signature, mac[0]) || has_entry(r.signature, mac[1]);
    const struct standard_webhooks_keys keys = {
        .secrets = each, .secrets_count = 2, .tolerance_s = STANDARD_WEBHOOKS_TOLERANCE_S};
    judge(standard_webhooks_verify(&keys, &r, NOW_S * 1000, NULL, &why), is_signed, &r);
    for (int i = 0; i < 2; i++) hmac_free(&each[i]);
    buf_free(&header);

    /* Arbitrary text as a secret, and as a private key. */
    struct secret parsed;
    if (secret_parse(slice_of(data, size), &parsed, &why) == ERR_OK) {
        CHECK(parsed.len >= 24 && parsed.len <= sizeof parsed.key);
    }
    struct signing_key *key = signing_key_parse(slice_of(data, size), &why);
    if (key != NULL) CHECK(strlen(signing_key_kid(key)) == SIGNING_KID_BYTES);
    signing_key_free(&key);
    return 0;
}
