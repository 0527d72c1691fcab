/* events.h: what the files of /v1/events share: an event as JSON, a page of the journal, and the
 * requests that wait for one.
 *
 * struct waiting is part of struct admin; a held request is owned by it from waiting_hold until it
 * is answered or its client is gone. May call: room.h, json, base. */
#ifndef ADMIN_EVENTS_H
#define ADMIN_EVENTS_H

#include "broker/admin/answer.h"

/* Appends the event as a JSON object. */
void event_put(struct buf *b, const struct event *e);
/* How many bytes it will be, about. */
size_t event_size(const struct event *e);

/* What GET /v1/events asks for; a copy that needs nothing of the request. */
struct events_query {
    uint32_t project;
    uint64_t next; /* the first seq that was not looked at */
    uint64_t since_ms;
    size_t page_size;
    uint64_t wait_ms;
    bool wait; /* wait_ms was given: there is always a token */
    bool has_type, has_source, has_subject;
    char type[LIMIT_EVENT_TYPE_BYTES + 1];
    char source[LIMIT_NAME_BYTES + 1];
    char subject[LIMIT_EVENT_SUBJECT_BYTES + 1];
};

/* Looks at up to `*scan` positions from q->next, which are taken off it (engine_events_scan),
 * writes the matching events as an answer to a->out and moves q->next on. Returns how many events
 * there are. */
size_t events_page(struct admin *a, struct events_query *q, uint32_t *scan);
/* Sends what events_page wrote. */
void events_page_send(struct admin *a, uint64_t handle, const struct events_query *q);

void waiting_init(struct waiting *w);
void waiting_free(struct waiting *w);
/* Keeps a copy of the query until an event comes or its time is over. False: too many are held, or
 * the broker is stopping. */
bool waiting_hold(struct admin *a, uint64_t handle, const struct events_query *q);
void waiting_forget(struct waiting *w, uint64_t handle);
/* Its client sends nothing more: answers it now, if it is held. */
void waiting_give_up(struct admin *a, uint64_t handle);

#endif
