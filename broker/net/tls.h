/* tls.h: TLS 1.2 and 1.3 for connections that are accepted (RFC 8446, RFC 5246).
 *
 * A struct tls_server holds certificates, keys and whom it takes client certificates from. It is
 * owned by whoever opened it and outlives every listener that has it and every stream of these.
 * Streams of such a listener look to their users as any other: on_data brings plaintext, and
 * stream_write takes it. The files of net/ drive one struct tls per stream (tls_internal.h).
 *
 * Invariants: a reload is all or nothing, and changes no connection that is there. No session
 * tickets and no resumption: every connection is verified against what is configured now, and no
 * key of one connection opens another. May call: base, OpenSSL (net/ is its only user for TLS in
 * the broker). */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "base/check.h"

struct tls_server;

struct tls_options {
    /* Files, separated by commas, as many of the one as of the other: PEM chains (own certificate
     * first) and their private keys without a pass phrase. A client that names a host (SNI,
     * RFC 6066) gets the first certificate that is for this name, others the first of all. */
    const char *certs, *keys;
    const char *client_ca; /* PEM of the authorities of client certificates; "" or NULL: none */
    bool client_optional;  /* a client may come without; one that is not good is refused anyway */
};

/* Borrows the options' texts only until it returns. Non-zero: the text in error says what, where
 * and what to do. */
MUST_CHECK int tls_server_open(struct tls_server **out, const struct tls_options *options,
                               char *error, size_t error_size);
/* Reads every file again, for the connections that come from now on. Non-zero: nothing has changed,
 * and error says why. */
MUST_CHECK int tls_server_reload(struct tls_server *s, char *error, size_t error_size);
/* Frees; *s becomes NULL; harmless on NULL. */
void tls_server_close(struct tls_server **s);

#endif
