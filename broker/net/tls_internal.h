/* tls_internal.h: the TLS of one stream, for the files of net/.
 *
 * Bytes in, bytes out, no sockets: a stream gives what it has read to tls_feed, takes plaintext
 * from tls_read, gives plaintext to tls_seal and writes what lies in tls_wire. Owned by its stream.
 *
 * Invariants: what was fed is borrowed until tls_keep, which copies what is left of it; tls_feed
 * comes only when nothing is left. After TLS_END or TLS_FAILED nothing is read any more; after
 * TLS_FAILED nothing is sealed, and the wire holds the last words (an alert). May call: base,
 * OpenSSL. */
#ifndef NET_TLS_INTERNAL_H
#define NET_TLS_INTERNAL_H

#include "base/buf.h"
#include "broker/net/tls.h"

struct tls;

enum tls_result {
    TLS_OK,     /* so many bytes; 0: it needs more from the peer */
    TLS_END,    /* the peer has said that it sends nothing more (close_notify) */
    TLS_FAILED, /* tls_why says why */
};

/* alpn: the one protocol that is spoken here (RFC 7301). plain: what a peer that does not speak TLS
 * is told; may be empty. Both are borrowed as long as it lives. NULL: out of memory. */
struct tls *tls_new(struct tls_server *server, const char *alpn, struct slice plain);
void tls_free(struct tls **t);

void tls_feed(struct tls *t, struct slice raw);
enum tls_result tls_read(struct tls *t, uint8_t *out, size_t size, size_t *len);
/* Something that was fed may still be read without another tls_feed. */
bool tls_has_input(const struct tls *t);
void tls_keep(struct tls *t);

/* The handshake is done. */
bool tls_is_up(const struct tls *t);
bool tls_has_failed(const struct tls *t);
/* Encrypts into the wire. False: the wire is full. */
bool tls_seal(struct tls *t, struct slice plain);
/* Puts a close_notify on the wire, once, and if there is anything to close. */
void tls_goodbye(struct tls *t);
struct buf *tls_wire(struct tls *t);
/* Lives as long as t. */
const char *tls_why(const struct tls *t);
/* The subject of the client's certificate (RFC 2253), or NULL: it has shown none. */
const char *tls_peer_name(const struct tls *t);

#endif
