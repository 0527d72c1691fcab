/* stream.h: TCP listeners and byte streams.
 *
 * A stream is owned by the loop; its user holds a pointer until on_close was called, after which
 * the pointer is dead. stream_close is asynchronous and may be called from any callback, more than
 * once; after it no callback but on_close comes.
 *
 * Output: stream_write copies into the stream's buffer; the loop writes it out once per turn,
 * after the turn hook. The buffer is bounded by LIMIT_WRITE_QUEUE_BYTES plus one message: users ask
 * stream_queued before they produce more. While output waits the peer has LIMIT_WRITE_STALL_MS, and
 * each LIMIT_WRITE_BYTES_PER_S bytes that it takes (its TCP has acknowledged them) add a second,
 * but never more than LIMIT_WRITE_STALL_MS are left: one who takes nothing, or a byte now and then,
 * is closed with a reason.
 *
 * A stream of a listener with TLS begins with a handshake, which has LIMIT_HANDSHAKE_MS from the
 * accept. The work of handshakes is bounded per turn, so that whoever is connected is not kept
 * waiting by those who want to be (handshake.c). Its user sees nothing of it: what is written
 * before it is done waits for it, on_data brings plaintext, on_eof the peer's close_notify. A
 * connection that ends without one was cut, and is closed with that reason.
 *
 * Invariants: no callback runs inside stream_write or stream_close; on_close comes exactly once.
 * May call: base, libuv. */
#ifndef NET_STREAM_H
#define NET_STREAM_H

#include "broker/net/loop.h"

struct stream;
struct listener;
struct tls_server;

struct stream_ops {
    /* Bytes arrived; they are borrowed until return. Never called while reading is paused. */
    void (*on_data)(void *ctx, struct slice bytes);
    /* The peer has sent its last byte. The stream can still be written; close it when done. */
    void (*on_eof)(void *ctx);
    /* The output has gone, after more than LIMIT_WRITE_QUEUE_BYTES waited or the kernel did not
     * take it at once. May be NULL. */
    void (*on_drain)(void *ctx);
    /* The stream is gone; why is a static or short-lived text such as "closed by peer". */
    void (*on_close)(void *ctx, const char *why);
};

/* A connection was accepted: give it a user with stream_attach in this callback, or close it. */
typedef void listener_accept_fn(void *ctx, struct stream *s);
/* Somebody waits and all connections are taken: closes one that can be spared (stream_dismiss), of
 * whatever listener. False: there is none. */
typedef bool listener_room_fn(void *ctx);

/* Listens on "host:port" (host: IPv4, [IPv6] or localhost; port 0: any free one). Non-zero: the
 * text in error says what, where and what to do. *port becomes the port in use. */
MUST_CHECK int listener_open(struct loop *l, const char *address, listener_accept_fn *fn, void *ctx,
                             struct listener **out, uint16_t *port, char *error, size_t error_size);
struct listener_tls {
    struct tls_server *server; /* outlives the listener and its streams; NULL: no TLS */
    const char *alpn;          /* the protocol's name in ALPN (RFC 7301) */
    struct slice plain;        /* what a peer that does not speak TLS is told; may be empty */
};
/* The connections that are accepted from now on speak TLS. The texts are borrowed as long as the
 * listener and its streams are there. */
void listener_set_tls(struct listener *l, const struct listener_tls *tls);
/* fn is called with the ctx of listener_open. */
void listener_set_make_room(struct listener *l, listener_room_fn *fn);
/* Stops accepting; *l becomes NULL; harmless on NULL. */
void listener_close(struct listener **l);

void stream_attach(struct stream *s, const struct stream_ops *ops, void *ctx);
/* Queues a copy of the bytes for the end of the turn; nothing after stream_close. */
void stream_write(struct stream *s, struct slice bytes);
/* Bytes that wait to be taken by the peer. */
size_t stream_queued(const struct stream *s);
/* Stops and resumes on_data (reads are not even made: the peer feels it). Idempotent. */
void stream_pause(struct stream *s);
void stream_resume(struct stream *s);
/* Closes at once; what is queued is lost. */
void stream_close(struct stream *s, const char *why);
/* The same for one that has nothing queued; over TLS it says goodbye if the kernel takes it. */
void stream_dismiss(struct stream *s, const char *why);
/* It is not closing, and nothing has come for it that was not read yet. */
bool stream_is_quiet(const struct stream *s);
/* Closes when what is queued now has been taken, or LIMIT_WRITE_STALL_MS has passed. No on_data
 * comes any more; bytes that still arrive are read and dropped, so that the peer gets our last
 * words and not a reset. */
void stream_close_after_write(struct stream *s, const char *why);
/* "127.0.0.1:50123", for logs; lives as long as the stream. */
const char *stream_peer(const struct stream *s);
/* Whom the peer is counted as, and whether it is on this machine (net/peer.h). */
uint64_t stream_peer_group(const struct stream *s);
bool stream_peer_is_loopback(const struct stream *s);
/* The subject of the certificate that the peer has shown (RFC 2253), once its handshake is done;
 * NULL: none. */
const char *stream_peer_name(const struct stream *s);
/* The rate that output which waits must be taken at; the default is LIMIT_WRITE_BYTES_PER_S. */
void streams_set_write_rate(struct loop *l, uint64_t bytes_per_s);

#endif
