/* frame_decode.h: what the files of the decoder share; nobody else includes this.
 *
 * A decoder owns arrays that grow with what was really read (never with a count that a peer
 * claims) and are used again by the next frame. Each decode_* function reads the fields after op
 * and rid of one frame into f and notes errors in the fields. */
#ifndef PROTO_FRAME_DECODE_H
#define PROTO_FRAME_DECODE_H

#include "proto/frame.h"
#include "proto/frame_read.h"
#include "proto/limits.h"

enum { FRAME_RANGE_LISTS = 3 }; /* SETTLED has three */

struct frame_decoder {
    struct {
        struct frame_range *items;
        size_t cap;
    } ranges[FRAME_RANGE_LISTS];
    struct event *events;
    size_t events_cap;
    struct frame_item *items;
    size_t items_cap;
    uint64_t *seqs;
    size_t seqs_cap;
    bool *duplicates; /* as many as seqs */
    size_t duplicates_cap;
    struct frame_claim *claims;
    size_t claims_cap;
    struct slice types[LIMIT_JOB_WAIT_TYPES];
};

/* Makes room for element `used` of an array that holds *cap elements. */
void frame_grow(void **array, size_t *cap, size_t used, size_t element_bytes);

/* The next field as ranges, at most `max` pairs (LIMIT_EXCEEDED above), into list number `list`. */
void frame_read_ranges(struct frame_decoder *d, struct fields *in, int list, bool optional,
                       size_t max, const struct frame_range **ranges, size_t *count);

void decode_hello(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_auth(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_subscribe(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_window(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_ack(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_nack(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_extend(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_unsubscribe(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_publish(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_replay(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_redrive(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_wait(struct frame_decoder *d, struct fields *in, struct frame *f);

void decode_welcome(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_ok(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_err(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_subscribed(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_deliver(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_settled(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_lease(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_state(struct frame_decoder *d, struct fields *in, struct frame *f); /* both ways */
void decode_revoke(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_published(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_quiet(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_goaway(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_ended(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_job_event(struct frame_decoder *d, struct fields *in, struct frame *f);
void decode_challenge(struct frame_decoder *d, struct fields *in, struct frame *f);

#endif
