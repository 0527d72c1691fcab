/* What TLS reads before OpenSSL does: the gate (tls.c), and the choice of a protocol and a
 * certificate (tls_server.c).
 *
 * The input is what a peer sends. However it is cut into pieces, it must end the same: refused for
 * the same reason, or waiting for more. The gate must stop a message before OpenSSL has to keep it,
 * and a whole flight before it passes its maximum. Random bytes of our own answers change nothing
 * of that. */
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/net/tls_internal.h"
#include "proto/limits.h"

#define PLAIN     "this port speaks TLS"
#define WHY_BYTES 200

/* A certificate for *.example, signed with its own key. */
static X509 *make_certificate(EVP_PKEY *key) {
    X509 *x = X509_new();
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 24L * 3600);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_NAME *name = X509_get_subject_name(x);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)"*.example", -1, -1, 0);
    X509_set_issuer_name(x, name);
    X509_set_pubkey(x, key);
    CHECK(X509_sign(x, key, EVP_sha256()) > 0);
    return x;
}

static struct tls_server *open_server(void) {
    char dir[] = "/tmp/bellhop-fuzz-XXXXXX", cert[64], both[160], pem[64], error[256];
    struct tls_server *server;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = make_certificate(key);
    CHECK(mkdtemp(dir) != NULL);
    snprintf(cert, sizeof cert, "%s/a.pem", dir);
    snprintf(pem, sizeof pem, "%s/a.key", dir);
    FILE *file = fopen(cert, "we");
    CHECK(file != NULL && PEM_write_X509(file, x) == 1);
    fclose(file);
    file = fopen(pem, "we");
    CHECK(file != NULL && PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1);
    fclose(file);
    snprintf(both, sizeof both, "%s,%s", cert, cert);
    char keys[160];
    snprintf(keys, sizeof keys, "%s,%s", pem, pem);
    const struct tls_options options = {.certs = both, .keys = keys};
    CHECK(tls_server_open(&server, &options, error, sizeof error) == 0);
    unlink(cert);
    unlink(pem);
    rmdir(dir);
    X509_free(x);
    EVP_PKEY_free(key);
    return server;
}

/* Feeds it in pieces whose sizes `cut` tells; why it has failed, or "". */
static void play(struct tls_server *server, struct slice in, size_t cut, char why[WHY_BYTES]) {
    static uint8_t plain[16 * KIB];
    struct tls *t = tls_new(server, "http/1.1", slice_str(PLAIN));
    enum tls_result result = TLS_OK;
    CHECK(t != NULL);
    while (in.len > 0 && result == TLS_OK) {
        size_t len = in.len < cut ? in.len : cut, got = 1;
        tls_feed(t, slice_of(in.data, len));
        in = slice_from(in, len);
        while (result == TLS_OK && got > 0) result = tls_read(t, plain, sizeof plain, &got);
        tls_keep(t);
        CHECK(!tls_is_up(t)); /* nobody has answered our key share */
    }
    CHECK(tls_has_failed(t) == (result == TLS_FAILED));
    snprintf(why, WHY_BYTES, "%s", result == TLS_FAILED ? tls_why(t) : "");
    CHECK(result != TLS_FAILED || why[0] != '\0');
    tls_free(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct tls_server *server;
    char whole[WHY_BYTES], cut[WHY_BYTES];
    if (server == NULL) server = open_server();
    if (size < 2) return 0;
    struct slice in = slice_of(data + 1, size - 1);
    play(server, in, SIZE_MAX, whole);
    play(server, in, (size_t)data[0] + 1, cut);
    /* What comes behind the limit of the whole is judged when it comes, so pieces may say first
     * what was wrong before it. */
    if (in.len <= LIMIT_TLS_HANDSHAKE_BYTES) CHECK((whole[0] == '\0') == (cut[0] == '\0'));
    CHECK(in.len <= LIMIT_TLS_HANDSHAKE_BYTES || whole[0] != '\0');
    return 0;
}
