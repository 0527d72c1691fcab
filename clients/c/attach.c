/* Attaching: SUBSCRIBE with the claims, SUBSCRIBED, the window, STATE.
 *
 * The happy path after a lost connection: SUBSCRIBE claims what handlers have and what was settled
 * but perhaps not heard; SUBSCRIBED says that so many claims were granted, REVOKE names the others;
 * once both make up all of them, settlements are said again and leases renewed. Not before: a
 * settlement of a claim that was not granted would spoil the frame that it shares.
 * Failures: a refusal (bh_sub_ended), a broker that is about to stop (bh_lost: later again). */
#include <stdlib.h>

#include "clients/c/client.h"

/* A SUBSCRIBE without its claims is smaller. */
#define SUBSCRIBE_BYTES (LIMIT_POLICY_BYTES + 4 * KIB)

struct claims {
    struct frame_claim *items;
    size_t len;
    size_t bytes_left; /* of the frame */
};

/* Bytes of an unsigned integer in msgpack. */
static size_t uint_bytes(uint64_t n) {
    if (n < 0x80) return 1;
    if (n <= UINT8_MAX) return 2;
    if (n <= UINT16_MAX) return 3;
    return n <= UINT32_MAX ? 5 : 9;
}

/* False: the frame is full. */
static bool claim(struct claims *claims, uint64_t tag, uint64_t seq, uint32_t flags) {
    size_t bytes = uint_bytes(tag) + uint_bytes(seq) + uint_bytes(flags);
    if (claims->len == LIMIT_WINDOW_EVENTS || claims->bytes_left < bytes) return false;
    claims->bytes_left -= bytes;
    claims->items[claims->len++] = (struct frame_claim){tag, seq, flags};
    return true;
}

static int by_tag(const void *a, const void *b) {
    const struct frame_claim *x = a, *y = b;
    return x->tag < y->tag ? -1 : x->tag > y->tag;
}

static void claim_events(struct claims *claims, struct list *events) {
    LIST_FOR(n, next, events) {
        struct bellhop_event *e = CONTAINER_OF(n, struct bellhop_event, node);
        if (!e->attached || claim(claims, e->tag, e->info.seq, e->flags)) continue;
        bh_event_orphan(e, "lost");
    }
}

/* What handlers have goes first, then the settlements, the latest first: the earlier ones are the
 * likeliest to have arrived. */
static struct claims make_claims(struct bellhop_sub *s) {
    struct claims claims = {0};
    size_t max = s->client->frame_out_max;
    claims.bytes_left = max > SUBSCRIBE_BYTES ? max - SUBSCRIBE_BYTES : 0;
    claims.items = mem_alloc(LIMIT_WINDOW_EVENTS * sizeof *claims.items);
    claim_events(&claims, &s->taken);
    for (struct list *n = s->settled.prev, *before; n != &s->settled; n = before) {
        struct bh_settlement *x = CONTAINER_OF(n, struct bh_settlement, node);
        before = n->prev;
        if (!claim(&claims, x->tag, x->seq, x->flags)) bh_settle_lost(s, x);
    }
    qsort(claims.items, claims.len, sizeof *claims.items, by_tag);
    return claims;
}

/* Events that the broker may have out here. */
static uint64_t window_wanted(const struct bellhop_sub *s) {
    return bh_sub_is_shut(s) ? 0 : s->options.window;
}

bool bh_sub_wants(const struct bellhop_sub *s) {
    const struct bellhop *c = s->client;
    if (s->state != BH_SUB_IDLE || c->phase != BH_READY || c->quiet || c->drain_sent) return false;
    /* Also when stopping: what handlers have can be settled only so. */
    return c->leave == BH_STAY || (c->leave == BH_LEAVE_STOP && s->running > 0) ||
           (c->leave == BH_LEAVE_STOP && s->settled.next != &s->settled);
}

void bh_sub_ask(struct bellhop_sub *s) {
    struct bellhop *c = s->client;
    struct bh_request *r = bh_request_new(c, BH_SUBSCRIBE);
    struct claims claims = {0};
    struct frame f = {.rid = r->rid, .sub = s->id};
    if (!list_empty(&s->taken) || !list_empty(&s->settled)) claims = make_claims(s);
    r->sub = s;
    s->state = BH_SUB_ASKED;
    s->claims = claims.len;
    s->claims_granted = s->claims_lost = 0;
    s->tag_last = claims.len == 0 ? 0 : claims.items[claims.len - 1].tag;
    s->window_told = window_wanted(s);
    s->watched = false;
    f.u.subscribe.name = slice_str(s->name);
    f.u.subscribe.window_events = s->window_told;
    f.u.subscribe.window_bytes = s->options.window_bytes;
    f.u.subscribe.concurrency = s->options.concurrency;
    f.u.subscribe.lease_ms = s->options.lease_ms;
    f.u.subscribe.create = slice_str(s->options.create == NULL ? "" : s->options.create);
    f.u.subscribe.claims = claims.items;
    f.u.subscribe.claims_count = claims.len;
    bh_encoded(c, frame_encode_subscribe(bh_out(c), &f));
    free(claims.items);
}

bool bh_sub_is_on(const struct bellhop_sub *s) {
    return s->state == BH_SUB_ON && s->claims == 0;
}

void bh_sub_claims_answered(struct bellhop_sub *s) {
    struct list *lists[] = {&s->taken, &s->to_tell};
    if (s->state != BH_SUB_ON || s->claims == 0 || s->claims > s->claims_granted + s->claims_lost) {
        return;
    }
    s->claims = 0;
    bh_sub_extend_afresh(s);
    for (int i = 0; i < 2; i++) { /* a granted claim has a new lease, whatever was before */
        LIST_FOR(n, next, lists[i]) {
            struct bellhop_event *e = CONTAINER_OF(n, struct bellhop_event, node);
            if (e->attached) e->revoked = e->tell = false;
        }
    }
}

const char *bh_sub_attached(struct bellhop_sub *s, const struct frame *f) {
    if (f->u.subscribed.resumed > s->claims) return "more claims granted than made";
    if (s->state == BH_SUB_ASKED) s->state = BH_SUB_ON;
    s->lease_ms = f->u.subscribed.lease_ms;
    s->claims_granted = f->u.subscribed.resumed;
    bh_sub_claims_answered(s);
    return NULL;
}

void bh_sub_write(struct bellhop_sub *s) {
    struct bellhop *c = s->client;
    if (s->state != BH_SUB_ON || bh_out(c) == NULL) return;
    /* DRAIN has closed all windows already. */
    if (c->leave == BH_STAY && !c->quiet && s->window_told != window_wanted(s)) {
        s->window_told = window_wanted(s);
        bh_encoded(
            c, frame_encode_window(bh_out(c), 0, s->id, s->window_told, s->options.window_bytes));
    }
    if (s->options.on_changed != NULL && !s->watched) {
        struct bh_request *r = bh_request_new(c, BH_STATE);
        r->sub = s;
        r->watch = s->watched = true;
        r->stated = s->options.on_changed;
        r->ctx = s->options.ctx;
        bh_encoded(c, frame_encode_state_request(bh_out(c), r->rid, s->id, true));
    }
    for (struct list *n; (n = list_first(&s->asks)) != NULL;) {
        struct bh_request *r = CONTAINER_OF(n, struct bh_request, node);
        list_unlink(n);
        list_push_back(&c->in_flight, n);
        bh_encoded(c, frame_encode_state_request(bh_out(c), r->rid, s->id, false));
    }
}

void bellhop_sub_pause(struct bellhop_sub *s) {
    s->paused = true;
}

void bellhop_sub_resume(struct bellhop_sub *s) {
    s->paused = false;
}

int bellhop_sub_state(struct bellhop_sub *s, bellhop_sub_stated *done, void *ctx) {
    struct bellhop *c = s->client;
    if (done == NULL) return BELLHOP_EARGUMENT;
    if (c->phase == BH_STOPPED || s->state == BH_SUB_ENDED) return BELLHOP_ECLOSED;
    struct bh_request *r = bh_request_new(c, BH_STATE);
    r->sub = s;
    r->stated = done;
    r->ctx = ctx;
    list_unlink(&r->node);
    list_push_back(&s->asks, &r->node);
    return 0;
}

void bh_sub_stated(struct bellhop *c, struct bellhop_sub *s, const struct frame *f) {
    char why_idle[64];
    struct slice why = f->u.state.why_idle;
    struct bellhop_sub_options *o = &s->options;
    struct bh_request *r = f->rid == 0 ? NULL : bh_request_take(c, f->rid);
    snprintf(why_idle, sizeof why_idle, "%.*s", SLICE_ARG(why));
    struct bellhop_state state = {.ready = f->u.state.ready,
                                  .leased = f->u.state.leased,
                                  .delayed = f->u.state.delayed,
                                  .blocked = f->u.state.blocked,
                                  .dead = f->u.state.dead,
                                  .backlog = f->u.state.backlog,
                                  .oldest_ms = f->u.state.oldest_ms,
                                  .in_per_s = f->u.state.in_per_s,
                                  .out_per_s = f->u.state.out_per_s,
                                  .paused = f->u.state.paused,
                                  .why_idle = why_idle};
    if (f->rid == 0) {
        if (o->on_changed != NULL && s->state != BH_SUB_ENDED) o->on_changed(o->ctx, 0, &state);
    } else if (r != NULL && r->kind == BH_STATE && r->sub == s) {
        r->stated(r->ctx, 0, &state);
        bh_request_free(r);
    } else {
        if (r != NULL) bh_request_fail(r, BELLHOP_EPROTOCOL, "another answer was due");
        if (c->conn != NULL) bh_broken(c, "STATE that nobody asked for");
    }
}
