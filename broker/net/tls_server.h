/* tls_server.h: what tls_server.c and tls.c share. Nobody else includes this.
 *
 * Invariant: there is always a first context. May call: base, OpenSSL. */
#ifndef NET_TLS_SERVER_H
#define NET_TLS_SERVER_H

#include <openssl/ssl.h>

#include "broker/net/tls_internal.h"
#include "proto/limits.h"

#define FILE_BYTES 4096

struct tls_server {
    struct tls_options options; /* its texts are the three below */
    char *certs, *keys, *client_ca;
    SSL_CTX *contexts[LIMIT_TLS_CERTIFICATES]; /* one for each certificate */
    size_t count;
    BIO_METHOD *bio; /* reads what was fed, writes into the wire */
};

/* The method of the BIOs of struct tls; the caller frees it after the last of them. */
BIO_METHOD *tls_bio_method(void);
const char *tls_alpn(const struct tls *t);

#endif
