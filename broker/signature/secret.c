#include "broker/signature/secret.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>

#include "base/base64.h"

#define SECRET_PREFIX        "whsec_"
#define SECRET_BYTES_MIN     24 /* Standard Webhooks' bounds */
#define SECRET_BYTES_DEFAULT 32
#define SHOWN_CHARS          4 /* the last ones */

_Static_assert(sizeof SECRET_PREFIX - 1 + BASE64_LEN(sizeof((struct secret *)0)->key) <=
                   LIMIT_SECRET_TEXT_BYTES,
               "the text of the longest secret fits");
_Static_assert(sizeof SECRET_PREFIX - 1 + sizeof "..." - 1 + SHOWN_CHARS < SECRET_SHOWN_BYTES,
               "what is shown of one fits");

static enum err refuse(const char **why, const char *text) {
    *why = text;
    return ERR_INVALID_REQUEST;
}

enum err secret_parse(struct slice text, struct secret *out, const char **why) {
    struct slice encoded = text;
    if (slice_starts_with(text, SECRET_PREFIX)) {
        encoded = slice_from(text, sizeof SECRET_PREFIX - 1);
    }
    if (encoded.len == 0) return refuse(why, "is empty: give whsec_ and the base64 of the key");
    if (text.len > LIMIT_SECRET_TEXT_BYTES) return refuse(why, "is longer than 128 characters");
    for (size_t i = 0; i < encoded.len; i++) {
        if (encoded.data[i] <= ' ') return refuse(why, "holds a blank or a line end");
    }
    long len = base64_decode(encoded, out->key, sizeof out->key);
    if (len < 0 && encoded.len > BASE64_LEN(sizeof out->key)) {
        return refuse(why, "has more than 64 bytes of key");
    }
    if (len < 0) return refuse(why, "is not base64 after whsec_");
    if (len < SECRET_BYTES_MIN) return refuse(why, "has less than 24 bytes of key");
    out->len = (size_t)len;
    return ERR_OK;
}

void secret_generate(char out[LIMIT_SECRET_TEXT_BYTES + 1]) {
    uint8_t key[SECRET_BYTES_DEFAULT];
    CRYPTO_CHECK(RAND_bytes(key, sizeof key) == 1);
    memcpy(out, SECRET_PREFIX, sizeof SECRET_PREFIX - 1);
    base64_encode(slice_of(key, sizeof key), out + sizeof SECRET_PREFIX - 1);
    OPENSSL_cleanse(key, sizeof key);
}

void secret_show(const char *text, char out[SECRET_SHOWN_BYTES]) {
    size_t len = strlen(text);
    bool prefix = slice_starts_with(slice_str(text), SECRET_PREFIX);
    CHECK(len > SHOWN_CHARS); /* it was parsed, or generated */
    snprintf(out, SECRET_SHOWN_BYTES, "%s...%s", prefix ? SECRET_PREFIX : "",
             text + len - SHOWN_CHARS);
}
