/* auth.c: answering the broker's CHALLENGE (docs/protocol.md, "Keys").
 *
 * The key stays here: what is sent is ClientKey XOR HMAC-SHA256(StoredKey, mechanism and both
 * nonces), which is good for this challenge only. */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "clients/c/client.h"

#define MECHANISM    "hmac-sha256"
#define NONCE_BYTES  32
#define DIGEST_BYTES 32
#define KEY_PREFIX   "bh_"

static bool mac(struct slice key, struct slice message, uint8_t out[DIGEST_BYTES]) {
    size_t len = 0;
    const unsigned char *done = EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key.data, key.len,
                                          message.data, message.len, out, DIGEST_BYTES, &len);
    return done != NULL && len == DIGEST_BYTES;
}

/* What stands between "bh_" and the next "_"; empty: it is no key. */
static struct slice id_of(const char *key) {
    if (strncmp(key, KEY_PREFIX, sizeof KEY_PREFIX - 1) != 0) return slice_of(NULL, 0);
    const char *id = key + sizeof KEY_PREFIX - 1, *end = strchr(id, '_');
    return slice_of(id, end == NULL ? 0 : (size_t)(end - id));
}

bool bh_auth_prove(const char *key, struct slice broker_nonce, struct slice client_nonce,
                   uint8_t proof[DIGEST_BYTES]) {
    const size_t name = sizeof MECHANISM - 1;
    uint8_t client_key[DIGEST_BYTES], stored_key[DIGEST_BYTES];
    uint8_t message[sizeof MECHANISM - 1 + 2 * NONCE_BYTES];
    if (broker_nonce.len != NONCE_BYTES || client_nonce.len != NONCE_BYTES) return false;
    memcpy(message, MECHANISM, name);
    memcpy(message + name, broker_nonce.data, NONCE_BYTES);
    memcpy(message + name + NONCE_BYTES, client_nonce.data, NONCE_BYTES);
    bool ok = mac(slice_str(key), slice_str("Client Key"), client_key) &&
              EVP_Digest(client_key, DIGEST_BYTES, stored_key, NULL, EVP_sha256(), NULL) == 1 &&
              mac(slice_of(stored_key, DIGEST_BYTES), slice_of(message, sizeof message), proof);
    for (size_t i = 0; i < DIGEST_BYTES && ok; i++) proof[i] ^= client_key[i];
    OPENSSL_cleanse(client_key, sizeof client_key);
    OPENSSL_cleanse(stored_key, sizeof stored_key);
    return ok;
}

void bh_auth_challenged(struct bellhop *c, const struct frame *f) {
    uint8_t nonce[NONCE_BYTES], proof[DIGEST_BYTES];
    struct slice id = id_of(c->url.key);
    struct frame answer = {.op = FRAME_AUTH, .rid = 1};
    if (c->phase != BH_GREETING || c->challenged) {
        bh_broken(c, "a CHALLENGE that nothing led to");
        return;
    }
    if (!slice_eq_str(f->u.challenge.mechanism, MECHANISM) ||
        f->u.challenge.nonce.len != NONCE_BYTES) {
        bh_finish(c, BELLHOP_EREFUSED,
                  "the broker wants authentication (%.*s), which this client does not know",
                  SLICE_ARG(f->u.challenge.mechanism));
        return;
    }
    if (id.len == 0) {
        bh_finish(c, BELLHOP_EREFUSED, "%s",
                  c->url.key[0] == '\0'
                      ? "the broker asks for a key: put it into the URL, bellhop://KEY@host"
                      : "the key in the URL is not one: it should look like bh_ID_SECRET");
        return;
    }
    if (RAND_bytes(nonce, sizeof nonce) != 1 ||
        !bh_auth_prove(c->url.key, f->u.challenge.nonce, slice_of(nonce, sizeof nonce), proof)) {
        bh_finish(c, BELLHOP_EREFUSED, "libcrypto has no HMAC-SHA256 or no random bytes");
        return;
    }
    c->challenged = true;
    answer.u.auth.mechanism = slice_str(MECHANISM);
    answer.u.auth.key_id = id;
    answer.u.auth.proof = slice_of(proof, sizeof proof);
    answer.u.auth.nonce = slice_of(nonce, sizeof nonce);
    bh_encoded(c, frame_encode_auth(bh_out(c), &answer));
}
