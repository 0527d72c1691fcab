#include "proto/frame_decode.h"

#include <stdlib.h>

#include "base/check.h"

#define PREFIX_BYTES 4

typedef void decode_fn(struct frame_decoder *d, struct fields *in, struct frame *f);

static void decode_plain(struct frame_decoder *d, struct fields *in, struct frame *f) {
    (void)d;
    (void)in;
    (void)f;
}

struct frame_decoder *frame_decoder_new(void) {
    return mem_zalloc(sizeof(struct frame_decoder));
}

void frame_decoder_free(struct frame_decoder **d) {
    if (*d == NULL) return;
    for (int i = 0; i < FRAME_RANGE_LISTS; i++) free((*d)->ranges[i].items);
    free((*d)->events);
    free((*d)->items);
    free((*d)->seqs);
    free((*d)->duplicates);
    free((*d)->claims);
    free(*d);
    *d = NULL;
}

void frame_grow(void **array, size_t *cap, size_t used, size_t element_bytes) {
    if (used < *cap) return;
    *cap = *cap == 0 ? 16 : *cap * 2;
    *array = mem_realloc(*array, *cap * element_bytes);
}

void frame_read_ranges(struct frame_decoder *d, struct fields *in, int list, bool optional,
                       size_t max, const struct frame_range **ranges, size_t *count) {
    uint32_t outer;
    size_t n = 0;
    *ranges = NULL;
    *count = 0;
    if (!fields_enter_array(in, optional, &outer, "ranges: want an array")) return;
    if (in->left % 2 != 0) fields_fail(in, ERR_BAD_FRAME, "ranges: want pairs");
    if (in->left / 2 > max) fields_fail(in, ERR_LIMIT_EXCEEDED, "ranges: too many");
    while (in->err == ERR_OK && in->left > 0) {
        void *items = d->ranges[list].items;
        frame_grow(&items, &d->ranges[list].cap, n, sizeof(struct frame_range));
        d->ranges[list].items = items;
        struct frame_range *r = &d->ranges[list].items[n++];
        r->lo = need_uint(in, UINT64_MAX, "ranges: want unsigned integers");
        r->hi = need_uint(in, UINT64_MAX, "ranges: want unsigned integers");
        if (r->lo > r->hi) fields_fail(in, ERR_INVALID_REQUEST, "ranges: lo is above hi");
    }
    fields_leave(in, outer);
    *ranges = d->ranges[list].items;
    *count = n;
}

static decode_fn *decoder_of(uint64_t op) {
    static decode_fn *const client[] = {
        [FRAME_HELLO] = decode_hello,
        [FRAME_AUTH] = decode_auth,
        [FRAME_SUBSCRIBE] = decode_subscribe,
        [FRAME_WINDOW] = decode_window,
        [FRAME_ACK] = decode_ack,
        [FRAME_NACK] = decode_nack,
        [FRAME_EXTEND] = decode_extend,
        [FRAME_UNSUBSCRIBE] = decode_unsubscribe,
        [FRAME_PUBLISH] = decode_publish,
        [FRAME_REPLAY] = decode_replay,
        [FRAME_REDRIVE] = decode_redrive,
        [FRAME_PING] = decode_plain,
        [FRAME_PONG] = decode_plain,
        [FRAME_DRAIN] = decode_plain,
        [FRAME_CLOSE] = decode_plain,
        [FRAME_WAIT] = decode_wait,
    };
    static decode_fn *const broker[] = {
        [FRAME_WELCOME - FRAME_WELCOME] = decode_welcome,
        [FRAME_OK - FRAME_WELCOME] = decode_ok,
        [FRAME_ERR - FRAME_WELCOME] = decode_err,
        [FRAME_SUBSCRIBED - FRAME_WELCOME] = decode_subscribed,
        [FRAME_DELIVER - FRAME_WELCOME] = decode_deliver,
        [FRAME_SETTLED - FRAME_WELCOME] = decode_settled,
        [FRAME_LEASE - FRAME_WELCOME] = decode_lease,
        [FRAME_REVOKE - FRAME_WELCOME] = decode_revoke,
        [FRAME_STATE - FRAME_WELCOME] = decode_state,
        [FRAME_PUBLISHED - FRAME_WELCOME] = decode_published,
        [FRAME_DRAINED - FRAME_WELCOME] = decode_plain,
        [FRAME_QUIET - FRAME_WELCOME] = decode_quiet,
        [FRAME_GOAWAY - FRAME_WELCOME] = decode_goaway,
        [FRAME_ENDED - FRAME_WELCOME] = decode_ended,
        [FRAME_JOB_EVENT - FRAME_WELCOME] = decode_job_event,
        [FRAME_CHALLENGE - FRAME_WELCOME] = decode_challenge,
    };
    if (op < sizeof client / sizeof client[0]) return client[op];
    if (op < FRAME_WELCOME) return NULL;
    op -= FRAME_WELCOME;
    return op < sizeof broker / sizeof broker[0] ? broker[op] : NULL;
}

static uint32_t prefix_of(struct slice in) {
    const uint8_t *p = in.data;
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

int frame_split(struct slice in, size_t max_bytes, size_t *frame_len) {
    if (in.len < PREFIX_BYTES) return 0;
    size_t len = prefix_of(in);
    if (len > max_bytes) return -ERR_FRAME_TOO_BIG;
    if (in.len - PREFIX_BYTES < len) return 0;
    *frame_len = PREFIX_BYTES + len;
    return 1;
}

static enum err bad_frame(const char **why, const char *text) {
    *why = text;
    return ERR_BAD_FRAME;
}

enum err frame_decode(struct frame_decoder *d, struct slice frame, struct frame *f,
                      const char **why) {
    *f = (struct frame){0};
    if (frame.len < PREFIX_BYTES || prefix_of(frame) != frame.len - PREFIX_BYTES) {
        return bad_frame(why, "the length is not that of the frame");
    }
    struct slice body = slice_from(frame, PREFIX_BYTES);
    frame_read_start(body, &f->op_raw, &f->rid);
    if (!frame_read_check(body, why)) return ERR_BAD_FRAME;

    struct fields in = {.at = body.data, .end = body.data + body.len, .left = 1};
    uint32_t outer;
    if (!fields_enter_array(&in, false, &outer, "want an array")) return bad_frame(why, in.why);
    uint64_t op = need_uint(&in, UINT64_MAX, "op: want an unsigned integer");
    uint64_t rid = need_uint(&in, UINT32_MAX, "rid: want an unsigned integer of 32 bits");
    if (in.err == ERR_OK) {
        f->op_raw = op;
        f->rid = (uint32_t)rid;
        decode_fn *decode = decoder_of(op);
        f->op = decode == NULL ? FRAME_UNKNOWN : (int)op;
        if (decode != NULL) decode(d, &in, f);
    }
    *why = in.err == ERR_OK ? "" : in.why;
    return in.err;
}
