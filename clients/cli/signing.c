#include "clients/cli/signing.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>

#include "base/base64.h"
#include "base/buf.h"
#include "clients/cli/input.h"

#define SECRET_PREFIX    "whsec_"
#define SECRET_BYTES_MIN 24 /* of the key: what the standard allows */
#define SIGNATURE_BYTES  32 /* SHA-256 */

int signing_parse(const char *text, struct signing_secret *out) {
    struct slice encoded = slice_str(text);
    if (slice_starts_with(encoded, SECRET_PREFIX)) {
        encoded = slice_from(encoded, sizeof(SECRET_PREFIX) - 1);
    }
    long len = base64_decode(encoded, out->key, sizeof(out->key));
    if (len < SECRET_BYTES_MIN) {
        cli_complain("the secret is not " SECRET_PREFIX " and the base64 of %d to %zu bytes",
                     SECRET_BYTES_MIN, sizeof(out->key));
        return CLI_USAGE;
    }
    out->len = (size_t)len;
    return 0;
}

void signing_make(char text[SIGNING_SECRET_BYTES]) {
    uint8_t key[32];
    char encoded[BASE64_LEN(sizeof(key)) + 1];
    CHECK(RAND_bytes(key, sizeof(key)) == 1);
    base64_encode(slice_of(key, sizeof(key)), encoded);
    snprintf(text, SIGNING_SECRET_BYTES, SECRET_PREFIX "%s", encoded);
    OPENSSL_cleanse(key, sizeof(key));
    OPENSSL_cleanse(encoded, sizeof(encoded));
}

void signing_header(const struct signing_secret *secret, const char *id, const char *timestamp,
                    struct slice body, char header[SIGNING_HEADER_BYTES]) {
    struct buf text;
    uint8_t mac[SIGNATURE_BYTES];
    size_t mac_len = 0;
    char encoded[BASE64_LEN(SIGNATURE_BYTES) + 1];
    buf_init(&text, 8 * (size_t)INPUT_BYTES); /* an escaped byte is six at most */
    buf_printf(&text, "%s.%s.", id, timestamp);
    buf_append_slice(&text, body);
    CHECK(!text.overflow);
    CHECK(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, secret->key, secret->len, text.data,
                    text.len, mac, sizeof(mac), &mac_len) != NULL);
    CHECK(mac_len == sizeof(mac));
    base64_encode(slice_of(mac, mac_len), encoded);
    snprintf(header, SIGNING_HEADER_BYTES, "webhook-signature: v1,%s", encoded);
    buf_free(&text);
}

void signing_forget(struct signing_secret *secret) {
    OPENSSL_cleanse(secret, sizeof(*secret));
}
