/* tls.h: the TLS of one connection of libbellhop (bellhops://), for connection.c.
 *
 * Bytes in, bytes out, no sockets. A struct bh_trust holds whom a client trusts and the certificate
 * it shows; it is made once, owned by the client, and outlives its connections. A struct bh_tls is
 * owned by its connection.
 *
 * Invariant: nothing of a peer is given to the session before its certificate is verified and is
 * for the host that was asked for. May call: base, OpenSSL (its only user for TLS in the client).
 */
#ifndef BELLHOP_TLS_H
#define BELLHOP_TLS_H

#include "base/buf.h"
#include "clients/c/bellhop.h"

struct bh_tls;
struct bh_trust;

/* NULL: the sentence in error says what is wrong with the files. */
struct bh_trust *bh_trust_new(const struct bellhop_options *o, char *error, size_t size);
void bh_trust_free(struct bh_trust **t);

/* host: a name, or an IP address without brackets. */
struct bh_tls *bh_tls_new(struct bh_trust *trust, const char *host);
void bh_tls_free(struct bh_tls **t);

enum bh_tls_result { BH_TLS_OK, BH_TLS_END /* close_notify */, BH_TLS_FAILED };

/* Takes all of raw, which may be empty (then it says hello), and appends plaintext to in. After
 * BH_TLS_END and BH_TLS_FAILED it is not called any more. */
enum bh_tls_result bh_tls_read(struct bh_tls *t, struct slice raw, struct buf *in);
bool bh_tls_is_up(const struct bh_tls *t);
/* Encrypts into the wire. False: it is full. */
bool bh_tls_seal(struct bh_tls *t, struct slice plain);
void bh_tls_goodbye(struct bh_tls *t);
/* What is to be written to the socket. */
struct buf *bh_tls_wire(struct bh_tls *t);
/* Why it failed; lives as long as t. */
const char *bh_tls_why(const struct bh_tls *t);

#endif
