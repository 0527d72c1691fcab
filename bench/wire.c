#include "bench/wire.h"

#include <stdio.h>
#include <stdlib.h>

#define FRAME_MAX (16u * 1024 * 1024)

void wire_open(struct wire *w, struct pool *p) {
    w->decoder = frame_decoder_new();
    p->ctx = w;
    p->on_data = wire_on_data;
}

void wire_close(struct wire *w) {
    frame_decoder_free(&w->decoder);
}

static void take_frame(struct pool *p, struct bench_conn *c, const struct frame *f) {
    struct wire *w = p->ctx;
    switch (f->op) {
    case FRAME_PING: CHECK(frame_encode_plain(&c->out, FRAME_PONG, f->rid)); break;
    case FRAME_ERR:
        fprintf(stderr, "%s: the broker says %.*s: %.*s\n", w->program, SLICE_ARG(f->u.err.word),
                SLICE_ARG(f->u.err.message));
        exit(1);
    default: w->on_frame(p, c, f);
    }
}

void wire_on_data(struct pool *p, struct bench_conn *c) {
    struct wire *w = p->ctx;
    size_t at = 0, len = 0;
    while (frame_split(slice_from(buf_slice(&c->in), at), FRAME_MAX, &len) == 1) {
        struct frame f;
        const char *why = "";
        if (frame_decode(w->decoder, slice_of(c->in.data + at, len), &f, &why) != ERR_OK) {
            fprintf(stderr, "%s: a frame that is none: %s\n", w->program, why);
            exit(1);
        }
        take_frame(p, c, &f);
        at += len;
    }
    buf_consume(&c->in, at);
}

void wire_greet(struct pool *p) {
    for (uint32_t i = 0; i < p->count; i++) {
        struct bench_conn *c = &p->conns[i];
        (void)buf_append_str(&c->out, FRAME_GREETING);
        CHECK(frame_encode_hello(&c->out, 1, "bench", BELLHOP_VERSION, 0, 0, slice_str("")));
        pool_flush(p, c);
    }
}

bool wire_tags_add(struct wire_tags *t, uint64_t tag) {
    if (t->count > 0 && t->ranges[t->count - 1].hi + 1 == tag) {
        t->ranges[t->count - 1].hi = tag;
        return true;
    }
    if (t->count == 1024) return false;
    t->ranges[t->count++] = (struct frame_range){tag, tag};
    return true;
}
