/* wire.h: the worker protocol for load generators, on top of bench.h.
 *
 * A pool whose on_data is wire_on_data is given whole decoded frames; PING is answered here, and
 * what the broker refuses ends the program: a benchmark with refused requests has nothing to
 * report. The struct wire is the pool's ctx and outlives it; its decoder is made by wire_open and
 * freed by wire_close. May call: base, proto, bench.h. */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include "bench/bench.h"
#include "proto/frame.h"

struct wire {
    struct frame_decoder *decoder;
    const char *program; /* in messages */
    /* A frame that is neither PING nor ERR; borrowed until return. May append to c->out. */
    void (*on_frame)(struct pool *p, struct bench_conn *c, const struct frame *f);
};

void wire_open(struct wire *w, struct pool *p);
void wire_close(struct wire *w);
void wire_on_data(struct pool *p, struct bench_conn *c);
/* Sends greeting and HELLO on every connection of the pool. */
void wire_greet(struct pool *p);

/* Tags in rising order as ranges, in the form that frames carry. */
struct wire_tags {
    struct frame_range ranges[1024];
    size_t count;
};
/* False: there is no room for it. */
bool wire_tags_add(struct wire_tags *t, uint64_t tag);

#endif
