/* broker.h: the rooms put together, and the turn that drives them.
 *
 * The only place that knows everyone: it opens store, engine and rooms, gives each request to its
 * room and each effect to the room that asked, and ends every turn: engine, batch, commit, effects.
 * Owned by main. May call: everything in broker/, storage. */
#ifndef BROKER_BROKER_H
#define BROKER_BROKER_H

#include "broker/config.h"

/* Runs a broker until SIGTERM or SIGINT; or (make_key) makes a key in its store and returns. The
 * exit code: 0 after a clean stop, 1 when it could not start (what, where and what to do was
 * printed). A storage error exits with 1 from within, at once: nothing may be answered after it. */
int broker_run(const struct config *config);

#endif
