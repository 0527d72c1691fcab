/* workers.h: the room of the worker protocol (docs/protocol.md): sessions over TCP.
 *
 * Owned by main from workers_open to workers_close; sessions are owned by the room and die with
 * their stream. A session decodes frames into commands and turns effects into frames; it decides
 * nothing about deliveries.
 *
 * May call: auth (keys), jobs (waits), net, proto, fields (a policy as JSON), engine, base,
 * libcrypto (random).
 */
#ifndef WORKERS_WORKERS_H
#define WORKERS_WORKERS_H

#include "broker/engine/engine.h"
#include "broker/net/stream.h"

struct auth;
struct jobs;
struct workers;

struct workers_options {
    struct engine *engine;
    struct jobs *jobs; /* borrowed, as auth; both outlive the room */
    struct auth *auth;
    struct loop *loop;
    uint32_t room; /* for routes */
    size_t frame_max_bytes;
    struct tls_server *tls; /* NULL: plain TCP */
};

MUST_CHECK int workers_open(struct workers **out, const struct workers_options *options,
                            const char *address, uint16_t *port, char *error, size_t error_size);
/* Stops accepting and handing out, and tells every session QUIET with drain_ms. Each gets GOAWAY
 * and closes when all it held is settled (at once when it may resume: its leases are left for it)
 * or, at the latest, when workers_end is called. */
void workers_drain(struct workers *w, uint64_t drain_ms);
/* Before the last turn: nobody holds anything any more but who may resume, and workers_on_turn
 * tells the rest GOAWAY and closes them. */
void workers_end(struct workers *w);
/* Frees; the loop has run to its end. *w becomes NULL. */
void workers_close(struct workers **w);

/* An effect whose route has this room. */
void workers_on_effect(struct workers *w, const struct effect *effect);
/* Once per turn, after its effects: frames that were collected go out, windows of sockets that do
 * not drain are held. */
void workers_on_turn(struct workers *w);
/* Connected sessions. */
size_t workers_sessions(const struct workers *w);

#endif
