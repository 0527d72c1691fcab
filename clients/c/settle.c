/* Settlements: noted by the user's calls, written once per pass of the loop as few frames of
 * merged ranges. */
#include <stdlib.h>

#include "clients/c/client.h"

void bh_tags_add(struct bh_tags *t, uint64_t tag) {
    if (t->len == t->cap) {
        t->cap = t->cap == 0 ? 16 : t->cap * 2;
        t->items = mem_realloc(t->items, t->cap * sizeof *t->items);
    }
    t->items[t->len++] = tag;
}

static int by_value(const void *a, const void *b) {
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

size_t bh_tags_ranges(struct bh_tags *t, struct frame_range *out) {
    size_t n = 0;
    if (t->len == 0) return 0;
    qsort(t->items, t->len, sizeof *t->items, by_value);
    for (size_t i = 0; i < t->len; i++) {
        uint64_t tag = t->items[i];
        if (n > 0 && tag <= out[n - 1].hi + 1) out[n - 1].hi = tag;
        else out[n++] = (struct frame_range){tag, tag};
    }
    return n;
}

/* Writes the tags as frames of at most LIMIT_RANGES ranges and empties the list. */
static void send_tags(struct bellhop_sub *s, struct bh_tags *t, bool ack) {
    struct bellhop *c = s->client;
    if (t->len == 0) return;
    struct frame_range *ranges = mem_alloc(t->len * sizeof *ranges);
    size_t count = bh_tags_ranges(t, ranges);
    bool ok = true;
    for (size_t at = 0; at < count && ok; at += LIMIT_RANGES) {
        size_t n = count - at < LIMIT_RANGES ? count - at : LIMIT_RANGES;
        if (ack) ok = frame_encode_ack(bh_out(c), 0, s->id, ranges + at, n, false);
        else
            ok = frame_encode_nack(bh_out(c), 0, s->id, ranges + at, n, FRAME_NACK_RELEASE,
                                   FRAME_DELAY_POLICY, (struct slice){0}, false);
    }
    free(ranges);
    t->len = 0;
    bh_encoded(c, ok);
}

/* Acks that want an answer: as many requests as it takes. */
static void send_confirms(struct bellhop_sub *s) {
    struct bellhop *c = s->client;
    while (bh_out(c) != NULL && !list_empty(&s->confirms)) {
        struct bh_request *r = bh_request_new(c, BH_SETTLE);
        struct frame_range ranges[LIMIT_RANGES];
        struct bh_tags tags = {0};
        for (struct list *n; tags.len < LIMIT_RANGES && (n = list_first(&s->confirms)) != NULL;) {
            list_unlink(n);
            list_push_back(&r->confirms, n);
            bh_tags_add(&tags, CONTAINER_OF(n, struct bh_confirm, node)->tag);
        }
        size_t count = bh_tags_ranges(&tags, ranges);
        free(tags.items);
        bh_encoded(c, frame_encode_ack(bh_out(c), r->rid, s->id, ranges, count, true));
    }
}

void bh_settle_send(struct bellhop_sub *s) {
    if (bh_out(s->client) != NULL) send_tags(s, &s->acks, true);
    if (bh_out(s->client) != NULL) send_tags(s, &s->releases, false);
    send_confirms(s);
}

void bh_settle_forget(struct bellhop_sub *s) {
    s->acks.len = s->releases.len = 0;
    if (list_empty(&s->confirms)) return;
    struct bh_request *r = bh_request_new(s->client, BH_SETTLE);
    LIST_FOR(n, next, &s->confirms) {
        list_unlink(n);
        list_push_back(&r->confirms, n);
    }
    bh_request_fail_later(s->client, r, BELLHOP_ECLOSED, "the connection was lost");
}

static bool within(const struct frame_range *ranges, size_t count, uint64_t tag) {
    for (size_t i = 0; i < count; i++) {
        if (tag >= ranges[i].lo && tag <= ranges[i].hi) return true;
    }
    return false;
}

void bh_settled(struct bh_request *r, const struct frame *f) {
    for (struct list *n; (n = list_first(&r->confirms)) != NULL;) {
        struct bh_confirm *confirm = CONTAINER_OF(n, struct bh_confirm, node);
        bool stale = within(f->u.settled.stale, f->u.settled.stale_count, confirm->tag);
        list_unlink(n);
        confirm->done(confirm->ctx, 0, stale);
        free(confirm);
    }
    bh_request_free(r);
}

void bh_confirms_fail(struct list *confirms, int error) {
    for (struct list *n; (n = list_first(confirms)) != NULL;) {
        struct bh_confirm *confirm = CONTAINER_OF(n, struct bh_confirm, node);
        list_unlink(n);
        confirm->done(confirm->ctx, error, false);
        free(confirm);
    }
}

/* Takes the event from the handler and frees it. True: the broker has to be told about its tag. */
static bool settle(struct bellhop_event *e) {
    struct bellhop_sub *s = e->sub;
    bool attached = e->attached;
    CHECK(s->running > 0);
    s->running--;
    if (attached) CHECK(map_remove(&s->held, e->tag) == e);
    list_unlink(&e->node);
    free(e);
    return attached;
}

void bellhop_ack(struct bellhop_event *e) {
    struct bellhop_sub *s = e->sub;
    uint64_t tag = e->tag;
    if (settle(e)) bh_tags_add(&s->acks, tag);
}

void bellhop_release(struct bellhop_event *e) {
    struct bellhop_sub *s = e->sub;
    uint64_t tag = e->tag;
    if (settle(e)) bh_tags_add(&s->releases, tag);
}

void bellhop_ack_confirm(struct bellhop_event *e, bellhop_settled *done, void *ctx) {
    struct bellhop_sub *s = e->sub;
    if (done == NULL) {
        bellhop_ack(e);
        return;
    }
    struct bh_confirm *confirm = mem_zalloc(sizeof *confirm);
    *confirm = (struct bh_confirm){.tag = e->tag, .done = done, .ctx = ctx};
    list_init(&confirm->node);
    if (settle(e)) {
        list_push_back(&s->confirms, &confirm->node);
        return;
    }
    /* An orphan: nobody can confirm it. The callback comes with the next turn. */
    struct bh_request *r = bh_request_new(s->client, BH_SETTLE);
    list_push_back(&r->confirms, &confirm->node);
    bh_request_fail_later(s->client, r, BELLHOP_ECLOSED, "its connection is gone");
}

static void send_nack(struct bellhop_event *e, enum frame_nack_kind kind, uint64_t delay_ms,
                      const char *error) {
    struct bellhop_sub *s = e->sub;
    struct frame_range range = {e->tag, e->tag};
    struct slice text = slice_str(error == NULL ? "" : error);
    if (text.len > LIMIT_ERROR_BYTES) text.len = LIMIT_ERROR_BYTES;
    if (delay_ms != FRAME_DELAY_POLICY && delay_ms > LIMIT_BACKOFF_MS_MAX) {
        delay_ms = LIMIT_BACKOFF_MS_MAX;
    }
    if (!settle(e) || bh_out(s->client) == NULL) return;
    bh_encoded(s->client, frame_encode_nack(bh_out(s->client), 0, s->id, &range, 1, kind, delay_ms,
                                            text, false));
}

void bellhop_nack(struct bellhop_event *e, uint64_t delay_ms, const char *error) {
    send_nack(e, FRAME_NACK_FAIL, delay_ms, error);
}

void bellhop_reject(struct bellhop_event *e, const char *error) {
    send_nack(e, FRAME_NACK_REJECT, FRAME_DELAY_POLICY, error);
}
