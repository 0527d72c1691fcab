/* Requests: what waits for an answer with its rid. Some may also wait for a connection.
 *
 * The happy path: a request is made in `in_flight` (or queued in `waiting`, and moved by the turn
 * that has a connection); its answer takes it out and calls back.
 * Failures: the broker answers ERR (EREFUSED) or takes no frame of that size; the connection is
 * lost in between, or the client stops (ECLOSED). Those of the last kind go through `finished`, so
 * that their callbacks run at a calm moment. */
#include <stdlib.h>

#include "clients/c/client.h"

uint64_t bh_clock_ms(void) {
    return uv_hrtime() / 1000000;
}

uint32_t bh_rid_next(struct bellhop *c) {
    do {
        c->next_rid++;
    } while (c->next_rid == 0 || c->next_rid == c->barrier_rid ||
             map_get(&c->requests, c->next_rid) != NULL);
    return c->next_rid;
}

struct bh_request *bh_request_new(struct bellhop *c, enum bh_request_kind kind) {
    struct bh_request *r = mem_zalloc(sizeof *r);
    r->kind = kind;
    r->rid = bh_rid_next(c);
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
    free(r->relative);
    free(r->wait);
    free(r);
}

void bh_request_fail(struct bh_request *r, int error, const char *message) {
    if (r->kind == BH_SETTLE) bh_confirms_fail(&r->confirms, error, r->stale);
    if (r->published != NULL) r->published(r->ctx, error, message, NULL, NULL, 0);
    if (r->started != NULL) r->started(r->ctx, error, message, 0);
    if (r->waited != NULL) r->waited(r->ctx, error, message, NULL);
    /* What is watched is asked for again on the next connection. */
    if (r->stated != NULL && !(r->watch && error == BELLHOP_ECLOSED)) {
        r->stated(r->ctx, error, NULL);
    }
    bh_request_free(r);
}

void bh_request_fail_later(struct bellhop *c, struct bh_request *r, int error,
                           const char *message) {
    CHECK(bh_request_take(c, r->rid) == r);
    r->error = error;
    r->message = message;
    list_push_back(&c->finished, &r->node);
}

void bh_requests_fail_later(struct bellhop *c, struct list *requests) {
    LIST_FOR(n, next, requests) {
        bh_request_fail_later(c, CONTAINER_OF(n, struct bh_request, node), BELLHOP_ECLOSED,
                              "the connection was lost before the answer");
    }
}

void bh_requests_lost(struct bellhop *c, bool also_waiting) {
    bh_requests_fail_later(c, &c->in_flight);
    bh_waits_lost(c, also_waiting);
    if (!also_waiting) return;
    bh_requests_fail_later(c, &c->waiting);
    LIST_FOR(n, next, &c->subs) {
        bh_requests_fail_later(c, &CONTAINER_OF(n, struct bellhop_sub, node)->asks);
    }
    c->waiting_bytes = 0;
}

void bh_requests_finish(struct bellhop *c) {
    for (struct list *n; (n = list_first(&c->finished)) != NULL;) {
        struct bh_request *r = CONTAINER_OF(n, struct bh_request, node);
        list_unlink(n);
        bh_request_fail(r, r->error, r->message);
    }
}

int bh_request_queue(struct bellhop *c, struct bh_request *r, bool encoded) {
    int error = 0;
    if (!encoded) error = BELLHOP_EARGUMENT;
    else if (c->waiting_bytes + r->frame.len > BH_PUBLISH_BYTES_MAX) error = BELLHOP_EREFUSED;
    list_unlink(&r->node);
    if (error != 0) {
        map_remove(&c->requests, r->rid);
        bh_request_free(r);
        return error;
    }
    c->waiting_bytes += r->frame.len;
    list_push_back(&c->waiting, &r->node);
    return 0;
}

void bh_requests_send(struct bellhop *c) {
    struct buf *out = bh_out(c);
    while (out != NULL && c->phase == BH_READY && c->leave != BH_LEAVE_GOAWAY &&
           out->len < BH_OUT_BYTES) {
        struct list *n = list_first(&c->waiting);
        if (n == NULL) return;
        struct bh_request *r = CONTAINER_OF(n, struct bh_request, node);
        c->waiting_bytes -= r->frame.len;
        if (!bh_publish_resolve(c, r) || r->frame.len > c->frame_out_max) {
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
