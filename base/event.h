/* event.h: the event, Bellhop's central word: one immutable record of the journal.
 *
 * A struct event only borrows: every slice points at bytes that the producer of the struct owns
 * (a request's buffer, a batch's arena, the store's map); whoever hands one out says until when.
 * Text slices are UTF-8 by convention but are carried as the bytes they were. Calls nothing. */
#ifndef BASE_EVENT_H
#define BASE_EVENT_H

#include "base/slice.h"

#define PROJECT_DEFAULT 1u /* the project that is always there; 0 is none */

struct event {
    uint64_t seq;            /* place in the journal; 0 before it has one */
    uint32_t project;        /* tenant */
    uint64_t time_ms;        /* when it happened, by the sender's word; 0: not said */
    uint64_t received_at_ms; /* when the broker took it in; never falls along seq */
    uint64_t deliver_at_ms;  /* not before; 0: at once */
    uint64_t offset;         /* bytes of all journal records before its own: the journal's size */
    struct slice source;     /* ingest door it came through; empty: published by a client */
    struct slice id;         /* the sender's id (webhook-id); empty: none, never deduplicated */
    struct slice type;       /* dotted name such as batch.succeeded; may be empty */
    struct slice subject;    /* what it is about: a job or object id; may be empty */
    struct slice content_type;
    struct slice metadata; /* user_metadata as JSON text; empty: none */
    struct slice headers;  /* selected request headers as JSON text; empty: none */
    /* URIs that get this event instead of the registered webhooks (a dynamic webhook_config), one
     * per line without a last newline; empty: none */
    struct slice endpoints;
    struct slice body; /* the raw bytes as received */
};

#endif
