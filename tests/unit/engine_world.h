/* engine_world.h: an engine on a simulated disk with a virtual clock, and a transcript.
 *
 * Each call steps one command and ends the turn; every effect becomes a line of the transcript,
 * and every turn ends with engine_check. Tests compare the transcript with what they expect: a
 * change of behaviour is a diff that a person can read. */
#ifndef TESTS_ENGINE_WORLD_H
#define TESTS_ENGINE_WORLD_H

#include "base/buf.h"
#include "broker/engine/engine.h"

struct world {
    struct store *store;
    struct engine *engine;
    struct engine_options options;
    struct engine_time time;
    struct buf log;
    bool quiet;                                           /* write no transcript */
    uint64_t last_seq;                                    /* of the last PUBLISHED */
    void (*on_effect)(void *ctx, const struct effect *e); /* also told, or NULL */
    void *on_effect_ctx;
};

void world_open(struct world *w);
void world_close(struct world *w);
/* Power loss and restart: what was not durable is gone. */
void world_crash(struct world *w);
/* Steps a command; nothing is committed until world_turn. */
void world_step(struct world *w, const struct command *c);
/* Ends turns until nothing is due. */
void world_turn(struct world *w);
/* Lets time pass in one jump, then ends a turn. */
void world_wait(struct world *w, uint64_t ms);
/* Compares the transcript since the last call with `expected` and empties it. */
void world_expect(struct world *w, const char *expected);

/* Commands with a turn each. */
void world_publish(struct world *w, const char *type, const char *id);
void world_create(struct world *w, const char *name, const char *type, const struct policy *policy,
                  enum start_kind start);
void world_attach(struct world *w, uint64_t attachment, const char *name, uint64_t window,
                  uint32_t concurrency);
void world_detach(struct world *w, uint64_t attachment, enum detach_kind how);
void world_window(struct world *w, uint64_t attachment, uint64_t events);
void world_settle(struct world *w, enum command_kind kind, uint64_t attachment, uint64_t lo,
                  uint64_t hi, bool confirm);
void world_nack(struct world *w, uint64_t attachment, uint64_t tag, enum nack_kind kind,
                uint64_t delay_ms, const char *error);
void world_replay(struct world *w, const char *name, uint64_t from, uint64_t to);
/* Writes "sub: floor F next N ready R leased L delayed D dead X idle W" into the transcript. */
void world_show(struct world *w, const char *name);

#endif
