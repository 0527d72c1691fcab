/* Settlements: noted by the user's calls, written once per pass of the loop as few frames of
 * merged ranges.
 *
 * The happy path: settled -> (ACK or NACK is written) unsure -> (a PING that left BH_UNSURE_MS
 * later was answered, so the broker has it on disk) freed. One that is to be confirmed goes from
 * settled into the confirms of its request, until SETTLED.
 * Failures: a lost connection puts all of them back into settled; they are claimed like events that
 * handlers have, and written again when the claim is granted: then the first time had not arrived.
 * Without resume there is no unsure, and what was not confirmed is BELLHOP_ECLOSED. */
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

static struct bh_settlement *settlement_of(struct list *node) {
    return CONTAINER_OF(node, struct bh_settlement, node);
}

static enum frame_nack_kind nack_kind(enum bellhop_settlement_kind kind) {
    switch (kind) {
    case BELLHOP_NACK: return FRAME_NACK_FAIL;
    case BELLHOP_REJECT: return FRAME_NACK_REJECT;
    case BELLHOP_ELSEWHERE: return FRAME_NACK_ELSEWHERE;
    default: return FRAME_NACK_RELEASE;
    }
}

static struct frame_failure failure_of(const struct bh_settlement *x) {
    const char *at = (const char *)(x + 1);
    return (struct frame_failure){
        .type = slice_of(at, x->type_len),
        .message = slice_of(at + x->type_len, x->message_len),
        .detail = slice_of(at + x->type_len + x->message_len, x->detail_len),
    };
}

/* It was written, without being asked to be confirmed. */
static void written(struct bellhop_sub *s, struct bh_settlement *x) {
    struct bellhop *c = s->client;
    list_unlink(&x->node);
    x->sent = true;
    x->sent_at_ms = bh_now_ms(c);
    if (c->session_len == 0) {
        free(x);
        return;
    }
    list_push_back(&s->unsure, &x->node);
    s->unsure_count++;
    if (s->unsure_count <= LIMIT_WINDOW_EVENTS) return;
    struct list *oldest = list_first(&s->unsure); /* a broker that answers no PING */
    list_unlink(oldest);
    free(settlement_of(oldest));
    s->unsure_count--;
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
                                   FRAME_DELAY_POLICY, NULL, false);
    }
    free(ranges);
    t->len = 0;
    bh_encoded(c, ok);
}

/* Acks that want an answer: as many requests as it takes. */
static void send_confirmed_acks(struct bellhop_sub *s) {
    struct bellhop *c = s->client;
    struct bh_request *r = NULL;
    struct frame_range ranges[LIMIT_RANGES];
    struct bh_tags tags = {0};
    LIST_FOR(n, next, &s->settled) {
        struct bh_settlement *x = settlement_of(n);
        if (x->done == NULL || x->kind != BELLHOP_ACK) continue;
        if (r == NULL) r = bh_request_new(c, BH_SETTLE);
        r->sub = s;
        x->sent = true;
        list_unlink(n);
        list_push_back(&r->confirms, n);
        bh_tags_add(&tags, x->tag);
        if (tags.len < LIMIT_RANGES) continue;
        size_t count = bh_tags_ranges(&tags, ranges);
        bh_encoded(c, frame_encode_ack(bh_out(c), r->rid, s->id, ranges, count, true));
        tags.len = 0;
        r = NULL;
    }
    if (r != NULL) {
        size_t count = bh_tags_ranges(&tags, ranges);
        bh_encoded(c, frame_encode_ack(bh_out(c), r->rid, s->id, ranges, count, true));
    }
    free(tags.items);
}

/* One that has a frame of its own. */
static void send_nack(struct bellhop_sub *s, struct bh_settlement *x) {
    struct bellhop *c = s->client;
    struct frame_range range = {x->tag, x->tag};
    struct frame_failure failure = failure_of(x);
    struct bh_request *r = x->done == NULL ? NULL : bh_request_new(c, BH_SETTLE);
    uint32_t rid = r == NULL ? 0 : r->rid;
    bh_encoded(c, frame_encode_nack(bh_out(c), rid, s->id, &range, 1, nack_kind(x->kind),
                                    x->delay_ms, &failure, r != NULL));
    if (r == NULL) {
        written(s, x);
        return;
    }
    r->sub = s;
    x->sent = true;
    list_unlink(&x->node);
    list_push_back(&r->confirms, &x->node);
}

void bh_settle_send(struct bellhop_sub *s) {
    if (bh_out(s->client) == NULL || !bh_sub_is_on(s)) return;
    send_confirmed_acks(s);
    LIST_FOR(n, next, &s->settled) {
        struct bh_settlement *x = settlement_of(n);
        bool bare = x->done == NULL && x->delay_ms == FRAME_DELAY_POLICY &&
                    x->type_len + x->message_len + x->detail_len == 0;
        if (x->kind == BELLHOP_ACK) bh_tags_add(&s->acks, x->tag);
        else if (x->kind == BELLHOP_RELEASE && bare) bh_tags_add(&s->releases, x->tag);
        else {
            send_nack(s, x);
            continue;
        }
        written(s, x);
    }
    send_tags(s, &s->acks, true);
    send_tags(s, &s->releases, false);
}

static void move_all(struct list *from, struct list *to) {
    for (struct list *n; (n = list_first(from)) != NULL;) {
        list_unlink(n);
        list_push_back(to, n);
    }
}

void bh_settle_again(struct bellhop *c) {
    LIST_FOR(n, next, &c->in_flight) {
        struct bh_request *r = CONTAINER_OF(n, struct bh_request, node);
        if (r->kind != BH_SETTLE || r->sub->state == BH_SUB_ENDED) continue;
        move_all(&r->confirms, &r->sub->settled);
        CHECK(bh_request_take(c, r->rid) == r);
        bh_request_free(r);
    }
    LIST_FOR(m, next_m, &c->subs) {
        struct bellhop_sub *s = CONTAINER_OF(m, struct bellhop_sub, node);
        move_all(&s->unsure, &s->settled);
        s->unsure_count = 0;
    }
    c->barrier_rid = 0;
}

/* Tells its owner with the next turn, and frees it. */
static void finish_later(struct bellhop *c, struct bh_settlement *x, int error, bool stale) {
    list_unlink(&x->node);
    if (x->done == NULL) {
        free(x);
        return;
    }
    struct bh_request *r = bh_request_new(c, BH_SETTLE);
    r->stale = stale;
    list_push_back(&r->confirms, &x->node);
    bh_request_fail_later(c, r, error, "its connection is gone");
}

void bh_settle_lost(struct bellhop_sub *s, struct bh_settlement *x) {
    /* What was never said has not happened; of the rest nobody knows. */
    finish_later(s->client, x, x->sent ? BELLHOP_ECLOSED : 0, !x->sent);
}

void bh_settle_forget(struct bellhop_sub *s) {
    s->acks.len = s->releases.len = 0;
    move_all(&s->unsure, &s->settled);
    s->unsure_count = 0;
    LIST_FOR(n, next, &s->settled) {
        finish_later(s->client, settlement_of(n), BELLHOP_ECLOSED, false);
    }
}

size_t bh_settle_drop(struct bellhop_sub *s, const struct frame_range *ranges, size_t count) {
    size_t dropped = 0;
    LIST_FOR(n, next, &s->settled) {
        struct bh_settlement *x = settlement_of(n);
        if (!bh_ranges_have(ranges, count, x->tag)) continue;
        dropped++;
        bh_settle_lost(s, x);
    }
    return dropped;
}

void bh_settled(struct bh_request *r, const struct frame *f) {
    for (struct list *n; (n = list_first(&r->confirms)) != NULL;) {
        struct bh_settlement *x = settlement_of(n);
        bool stale = bh_ranges_have(f->u.settled.stale, f->u.settled.stale_count, x->tag);
        list_unlink(n);
        x->done(x->ctx, 0, stale);
        free(x);
    }
    bh_request_free(r);
}

void bh_confirms_fail(struct list *confirms, int error, bool stale) {
    for (struct list *n; (n = list_first(confirms)) != NULL;) {
        struct bh_settlement *x = settlement_of(n);
        list_unlink(n);
        x->done(x->ctx, error, stale);
        free(x);
    }
}

uint64_t bh_barrier_at(const struct bellhop *c) {
    uint64_t at_ms = BH_NEVER;
    if (c->barrier_rid != 0) return at_ms;
    LIST_FOR(n, next, (struct list *)(uintptr_t)&c->subs) {
        struct list *oldest = list_first(&CONTAINER_OF(n, struct bellhop_sub, node)->unsure);
        if (oldest == NULL) continue;
        uint64_t due_ms = settlement_of(oldest)->sent_at_ms + BH_UNSURE_MS;
        if (due_ms < at_ms) at_ms = due_ms;
    }
    return at_ms;
}

void bh_barrier_due(struct bellhop *c, uint64_t now_ms) {
    if (c->phase != BH_READY || now_ms < bh_barrier_at(c)) return;
    c->barrier_rid = bh_rid_next(c);
    c->barrier_ms = now_ms - BH_UNSURE_MS;
    bh_encoded(c, frame_encode_plain(bh_out(c), FRAME_PING, c->barrier_rid));
}

void bh_barrier_passed(struct bellhop *c) {
    c->barrier_rid = 0;
    LIST_FOR(m, next_m, &c->subs) {
        struct bellhop_sub *s = CONTAINER_OF(m, struct bellhop_sub, node);
        for (struct list *n; (n = list_first(&s->unsure)) != NULL;) {
            if (settlement_of(n)->sent_at_ms > c->barrier_ms) break;
            list_unlink(n);
            free(settlement_of(n));
            s->unsure_count--;
        }
    }
}

/* How many of the text's bytes fit, without a piece of a character at the end. */
static size_t fitting(const char *text, size_t max) {
    size_t len = text == NULL ? 0 : strlen(text);
    if (len <= max) return len;
    len = max;
    /* Before the character that the cut goes through: it has at most 3 bytes after its first. */
    for (int i = 0; i < 3 && len > 0 && ((uint8_t)text[len] & 0xc0u) == 0x80; i++) len--;
    return len;
}

static struct bh_settlement *settlement_new(const struct bellhop_event *e,
                                            const struct bellhop_settlement *from) {
    static const struct bellhop_failure none;
    const struct bellhop_failure *f = from->failure;
    if (f == NULL || from->kind == BELLHOP_ACK) f = &none;
    size_t type_len = fitting(f->type, LIMIT_ERROR_TYPE_BYTES);
    size_t message_len = fitting(f->message, LIMIT_ERROR_MESSAGE_BYTES);
    size_t detail_len = fitting(f->detail, LIMIT_ERROR_DETAIL_BYTES);
    struct bh_settlement *x = mem_alloc(sizeof *x + type_len + message_len + detail_len);
    *x = (struct bh_settlement){.tag = e->tag,
                                .seq = e->info.seq,
                                .flags = e->flags,
                                .kind = from->kind,
                                .delay_ms = FRAME_DELAY_POLICY,
                                .type_len = type_len,
                                .message_len = message_len,
                                .detail_len = detail_len,
                                .done = from->done,
                                .ctx = from->ctx};
    if (from->with_delay && from->kind != BELLHOP_ACK && from->kind != BELLHOP_REJECT) {
        x->delay_ms = from->delay_ms;
        if (x->delay_ms > LIMIT_BACKOFF_MS_MAX) x->delay_ms = LIMIT_BACKOFF_MS_MAX;
    }
    char *at = (char *)(x + 1);
    if (type_len > 0) memcpy(at, f->type, type_len);
    if (message_len > 0) memcpy(at + type_len, f->message, message_len);
    if (detail_len > 0) memcpy(at + type_len + message_len, f->detail, detail_len);
    list_init(&x->node);
    return x;
}

void bellhop_settle(struct bellhop_event *e, const struct bellhop_settlement *settlement) {
    struct bellhop_sub *s = e->sub;
    struct bh_settlement *x = settlement_new(e, settlement);
    CHECK(s->running > 0);
    s->running--;
    if (e->attached) {
        CHECK(map_remove(&s->held, e->tag) == e);
        list_push_back(&s->settled, &x->node);
    } else {
        /* An orphan: nobody can confirm it. */
        finish_later(s->client, x, e->lost ? 0 : BELLHOP_ECLOSED, e->lost);
    }
    list_unlink(&e->node);
    free(e);
}

void bellhop_ack(struct bellhop_event *e) {
    bellhop_settle(e, &(struct bellhop_settlement){.kind = BELLHOP_ACK});
}

void bellhop_ack_confirm(struct bellhop_event *e, bellhop_settled *done, void *ctx) {
    bellhop_settle(e, &(struct bellhop_settlement){.kind = BELLHOP_ACK, .done = done, .ctx = ctx});
}

void bellhop_nack(struct bellhop_event *e, uint64_t delay_ms,
                  const struct bellhop_failure *failure) {
    bellhop_settle(e, &(struct bellhop_settlement){.kind = BELLHOP_NACK,
                                                   .with_delay = delay_ms != BELLHOP_DELAY_POLICY,
                                                   .delay_ms = delay_ms,
                                                   .failure = failure});
}

void bellhop_reject(struct bellhop_event *e, const struct bellhop_failure *failure) {
    bellhop_settle(e, &(struct bellhop_settlement){.kind = BELLHOP_REJECT, .failure = failure});
}

void bellhop_release(struct bellhop_event *e) {
    bellhop_settle(e, &(struct bellhop_settlement){.kind = BELLHOP_RELEASE});
}

void bellhop_elsewhere(struct bellhop_event *e, uint64_t delay_ms) {
    bellhop_settle(e, &(struct bellhop_settlement){.kind = BELLHOP_ELSEWHERE,
                                                   .with_delay = delay_ms != BELLHOP_DELAY_POLICY,
                                                   .delay_ms = delay_ms});
}
