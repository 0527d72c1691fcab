/* Requests: what waits for an answer with its rid; publishing is the one that may also wait for a
 * connection.
 *
 * The happy path of a publish: bellhop_publish encodes the frame and puts it into `waiting`; the
 * turn moves it into the connection's buffer (`in_flight`); PUBLISHED takes it out and calls back.
 * Failures: an argument, or too much waits already (told at once); the broker takes no frame of
 * that size or answers ERR (EREFUSED); the connection is lost in between, or the client stops
 * (ECLOSED). Those of the last kind go through `finished`, so that their callbacks run at a
 * calm moment. */
#include <stdlib.h>

#include "clients/c/client.h"

struct bh_request *bh_request_new(struct bellhop *c, enum bh_request_kind kind) {
    struct bh_request *r = mem_zalloc(sizeof *r);
    do {
        c->next_rid++;
    } while (c->next_rid == 0 || map_get(&c->requests, c->next_rid) != NULL);
    r->kind = kind;
    r->rid = c->next_rid;
    list_init(&r->confirms);
    buf_init(&r->frame, BH_FRAME_BYTES_MAX);
    map_add(&c->requests, r->rid, r);
    list_init(&r->node);
    list_push_back(&c->in_flight, &r->node);
    return r;
}

struct bh_request *bh_request_take(struct bellhop *c, uint32_t rid) {
    struct bh_request *r = map_remove(&c->requests, rid);
    if (r != NULL) list_unlink(&r->node);
    return r;
}

void bh_request_free(struct bh_request *r) {
    buf_free(&r->frame);
    free(r);
}

void bh_request_fail(struct bh_request *r, int error, const char *message) {
    if (r->kind == BH_SETTLE) bh_confirms_fail(&r->confirms, error);
    if (r->published != NULL) r->published(r->ctx, error, message, NULL, NULL, 0);
    bh_request_free(r);
}

void bh_request_fail_later(struct bellhop *c, struct bh_request *r, int error,
                           const char *message) {
    CHECK(bh_request_take(c, r->rid) == r);
    r->error = error;
    r->message = message;
    list_push_back(&c->finished, &r->node);
}

static void finish_list(struct bellhop *c, struct list *from) {
    LIST_FOR(n, next, from) {
        bh_request_fail_later(c, CONTAINER_OF(n, struct bh_request, node), BELLHOP_ECLOSED,
                              "the connection was lost before the answer");
    }
}

void bh_requests_lost(struct bellhop *c, bool also_waiting) {
    finish_list(c, &c->in_flight);
    if (!also_waiting) return;
    finish_list(c, &c->waiting);
    c->waiting_bytes = 0;
}

void bh_requests_finish(struct bellhop *c) {
    for (struct list *n; (n = list_first(&c->finished)) != NULL;) {
        struct bh_request *r = CONTAINER_OF(n, struct bh_request, node);
        list_unlink(n);
        bh_request_fail(r, r->error, r->message);
    }
}

/* A text of a message; false when it is above its limit. */
static bool text_of(const char *text, size_t max, struct slice *out) {
    *out = slice_str(text == NULL ? "" : text);
    return out->len <= max;
}

static bool event_of(const struct bellhop_message *m, struct event *e) {
    *e = (struct event){.time_ms = m->time_ms, .body = slice_of(m->body, m->body_len)};
    return text_of(m->type, LIMIT_EVENT_TYPE_BYTES, &e->type) &&
           text_of(m->subject, LIMIT_EVENT_SUBJECT_BYTES, &e->subject) &&
           text_of(m->id, LIMIT_EVENT_ID_BYTES, &e->id) &&
           text_of(m->content_type, LIMIT_EVENT_CONTENT_TYPE_BYTES, &e->content_type) &&
           text_of(m->metadata, LIMIT_EVENT_METADATA_BYTES, &e->metadata) &&
           (m->body != NULL || m->body_len == 0);
}

int bellhop_publish(struct bellhop *c, const struct bellhop_message *messages, size_t count,
                    bellhop_published *done, void *ctx) {
    if (count == 0 || count > LIMIT_PUBLISH_EVENTS || messages == NULL) return BELLHOP_EARGUMENT;
    if (c->phase == BH_STOPPED || c->leave == BH_LEAVE_STOP) return BELLHOP_ECLOSED;
    struct event *events = mem_alloc(count * sizeof *events);
    bool good = true;
    for (size_t i = 0; i < count && good; i++) good = event_of(&messages[i], &events[i]);
    struct bh_request *r = bh_request_new(c, BH_PUBLISH);
    good = good && frame_encode_publish(&r->frame, r->rid, events, count);
    free(events);
    int error = 0;
    if (!good) error = BELLHOP_EARGUMENT;
    else if (c->waiting_bytes + r->frame.len > BH_PUBLISH_BYTES_MAX) error = BELLHOP_EREFUSED;
    list_unlink(&r->node);
    if (error != 0) {
        map_remove(&c->requests, r->rid);
        bh_request_free(r);
        return error;
    }
    r->published = done;
    r->ctx = ctx;
    c->waiting_bytes += r->frame.len;
    list_push_back(&c->waiting, &r->node);
    return 0;
}

void bh_publish_send(struct bellhop *c) {
    struct buf *out = bh_out(c);
    while (out != NULL && c->phase == BH_READY && c->leave != BH_LEAVE_GOAWAY &&
           out->len < BH_OUT_BYTES) {
        struct list *n = list_first(&c->waiting);
        if (n == NULL) return;
        struct bh_request *r = CONTAINER_OF(n, struct bh_request, node);
        c->waiting_bytes -= r->frame.len;
        if (r->frame.len > c->frame_out_max) {
            bh_request_fail_later(c, r, BELLHOP_EREFUSED,
                                  "too_large: above the broker's limit for a frame");
            continue;
        }
        list_unlink(n);
        list_push_back(&c->in_flight, n);
        bool ok = buf_append_slice(out, buf_slice(&r->frame));
        buf_free(&r->frame);
        bh_encoded(c, ok);
        if (!ok) return;
    }
}
