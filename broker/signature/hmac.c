#include "broker/signature/hmac.h"

#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdlib.h>

struct hmac {
    enum hmac_digest digest;
    EVP_MAC *mac;
    EVP_MAC_CTX *ctx;
};

static const struct {
    const char *name;
    size_t bytes;
} digests[HMAC_DIGESTS] = {
    [HMAC_SHA256] = {"SHA256", 32},
    [HMAC_SHA1] = {"SHA1", 20},
    [HMAC_SHA512] = {"SHA512", 64},
};

size_t hmac_bytes(enum hmac_digest digest) {
    return digests[digest].bytes;
}

struct hmac *hmac_new_digest(enum hmac_digest digest) {
    struct hmac *h = mem_zalloc(sizeof *h);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string("digest", (char *)digests[digest].name, 0),
        OSSL_PARAM_construct_end()};
    h->digest = digest;
    h->mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    if (h->mac != NULL) h->ctx = EVP_MAC_CTX_new(h->mac);
    if (h->ctx == NULL || EVP_MAC_CTX_set_params(h->ctx, params) != 1) hmac_free(&h);
    return h;
}

struct hmac *hmac_new(void) {
    return hmac_new_digest(HMAC_SHA256);
}

struct hmac *hmac_new_keyed(enum hmac_digest digest, struct slice key) {
    struct hmac *h = hmac_new_digest(digest);
    CRYPTO_CHECK(h != NULL);
    hmac_begin(h, key);
    return h;
}

void hmac_free(struct hmac **h) {
    if (*h == NULL) return;
    EVP_MAC_CTX_free((*h)->ctx);
    EVP_MAC_free((*h)->mac);
    free(*h);
    *h = NULL;
}

void hmac_begin(struct hmac *h, struct slice key) {
    CRYPTO_CHECK(EVP_MAC_init(h->ctx, key.data, key.len, NULL) == 1);
}

/* Of libcrypto 3.0.3 and later: those before do not begin anew without a key. */
void hmac_again(struct hmac *h) {
    CRYPTO_CHECK(EVP_MAC_init(h->ctx, NULL, 0, NULL) == 1);
}

void hmac_add(struct hmac *h, struct slice bytes) {
    if (bytes.len > 0) CRYPTO_CHECK(EVP_MAC_update(h->ctx, bytes.data, bytes.len) == 1);
}

void hmac_end(struct hmac *h, uint8_t out[HMAC_BYTES_MAX]) {
    size_t len = 0;
    CRYPTO_CHECK(EVP_MAC_final(h->ctx, out, &len, HMAC_BYTES_MAX) == 1 &&
                 len == hmac_bytes(h->digest));
}
