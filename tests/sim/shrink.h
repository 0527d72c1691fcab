/* shrink.h: makes a failing run short: leaves out steps as long as it fails at the same place.
 *
 * Delta debugging (Zeller and Hildebrandt 2002) over the list of step numbers; each candidate runs
 * in a forked child, since a failure is an abort. Nothing is kept between calls. The caller frees
 * `steps`. May call: sim.h, the operating system. */
#ifndef TESTS_SIM_SHRINK_H
#define TESTS_SIM_SHRINK_H

#include "tests/sim/sim.h"

#define FAILURE_BYTES 256

/* How a run ended: where it failed; empty: it did not. */
struct failure_place {
    char text[FAILURE_BYTES];
    uint32_t step; /* at which */
};

struct shrunk {
    uint32_t *steps; /* rising */
    size_t count, from;
    unsigned tries;
    bool minimal; /* no single step can be left out; else time was up */
};

/* Runs it in a child, without a word. */
struct failure_place failure_of(const struct plan *plan);
/* The plan fails at `place`. Tries for so many seconds at most. */
void shrink(const struct plan *plan, const struct failure_place *place, uint32_t seconds,
            struct shrunk *out);

#endif
