/* claim.c: a worker comes back and says what it still holds.
 *
 * Its connection was lost, or the broker was started again. In the first case the deliveries are
 * leased to attachments of the session that it names; in the second they wait, unclaimed, for the
 * grace period after the start. Either way a granted claim is a new lease under the worker's own
 * tag. What the old session held and nobody claims never reached the worker, or was settled by it
 * without the broker hearing of it: it goes back without a fail. */
#include "base/hash.h"
#include "broker/engine/state.h"

struct claims {
    const struct claim *v;
    size_t count, granted;
    struct map by_event;
};

/* The highest bit of a seq that no broker gave out is lost: who finds an entry compares it whole.
 */
static uint64_t event_key(uint64_t seq, bool replay) {
    return seq * 2 + replay;
}

/* One that is READY, since the grace is over or it came back, is nobody's: its worker may as well
 * go on with it. */
static bool grantable(const struct delivery *d, uint64_t session) {
    if (d->state == DELIVERY_READY) return true;
    if (d->state == DELIVERY_DELAYED) return d->unclaimed;
    return d->state == DELIVERY_LEASED && session != 0 && d->lease->attachment->session == session;
}

static void grant(struct engine *e, struct attachment *a, struct delivery *d, uint64_t tag) {
    struct event event;
    uint64_t since_ms = e->time.now_ms;
    delivery_event(e, d, &event, NULL);
    if (d->state == DELIVERY_LEASED) {
        since_ms = d->lease->since_ms;
        lease_free(e, d->lease);
        delivery_set_state(e, d, DELIVERY_READY, 0);
    } else {
        d->deliveries++; /* its hand-out before the restart was never written; or this is one */
    }
    lease_new(e, a, d, tag, event.body.len, since_ms, d->fails > 0);
}

static void claim_delivery(struct engine *e, struct attachment *a, struct delivery *d, bool replay,
                           uint64_t session, struct claims *claims) {
    const struct claim *c = map_get(&claims->by_event, event_key(d->seq, replay));
    if (c == NULL || c->seq != d->seq || c->replay != replay || !grantable(d, session)) return;
    map_remove(&claims->by_event, event_key(d->seq, replay));
    claims->granted++;
    grant(e, a, d, c->tag);
}

static void claim_from(struct engine *e, struct attachment *a, struct cursor *c, uint64_t session,
                       struct claims *claims) {
    LIST_FOR(n, next, &c->outstanding) {
        struct delivery *d = CONTAINER_OF(n, struct delivery, in_cursor);
        uint32_t from = c->id == CURSOR_DUE ? d->row_cursor : c->id;
        claim_delivery(e, a, d, from != CURSOR_LIVE, session, claims);
    }
}

static void claim_row(struct engine *e, struct attachment *a, const struct store_iter *it,
                      struct claims *claims) {
    uint64_t seq = key_read_u64(it->key, 12);
    bool replay = key_read_u32(it->key, 20) != CURSOR_LIVE;
    const struct claim *c = map_get(&claims->by_event, event_key(seq, replay));
    struct event event;
    if (c == NULL || c->seq != seq || c->replay != replay) return;
    struct delivery *d = due_take_row(e, a->sub, it, &event);
    if (d == NULL) return;
    if (!order_enter(e, d, &event)) { /* another one of its key goes first */
        delivery_set_state(e, d, DELIVERY_BLOCKED, 0);
        return;
    }
    map_remove(&claims->by_event, event_key(seq, replay));
    claims->granted++;
    grant(e, a, d, c->tag);
}

/* After a restart: rows of events that were due and out. They are read only for this, in one walk
 * for all claims: what was out was due, and what was due before it was out or settled. */
static void claim_rows(struct engine *e, struct attachment *a, struct claims *claims) {
    uint32_t cap = e->options.outstanding_max;
    uint8_t key[KEY_SUB_BYTES];
    struct store_iter it;
    if (e->time.now_ms >= e->grace_until_ms) return;
    store_seek(e->store, STORE_DUE, key_u32(key, a->sub->id), &it);
    for (uint32_t looked = 0; it.valid && looked < cap; looked++, store_next(e->store, &it)) {
        if (claims->by_event.len == 0 || subscription_outstanding(a->sub) >= cap) break;
        if (key_read_u32(it.key, 0) != a->sub->id) break;
        if (key_read_u64(it.key, 4) > e->time.wall_ms) break;
        claim_row(e, a, &it, claims);
    }
    store_iter_end(e->store, &it);
}

/* A session keeps its name when it is resumed, so the old one's are those of another connection. It
 * may have been here more than once: what it held elsewhere is claimed, or ends, by itself. */
static void end_old_session(struct engine *e, struct attachment *a, uint64_t session) {
    LIST_FOR(n, next, &a->sub->attachments) {
        struct attachment *old = CONTAINER_OF(n, struct attachment, in_sub);
        bool same = old->route.room == a->route.room && old->route.handle == a->route.handle;
        if (old->session != session || old->slot != a->slot || same) continue;
        attachment_end(e, old, DETACH_RELEASE);
    }
}

uint32_t claims_take(struct engine *e, struct attachment *a, const struct command *c) {
    uint64_t session = c->u.attach.resumes;
    struct claims claims = {.v = c->u.attach.claims, .count = c->u.attach.claims_count};
    map_init(&claims.by_event);
    for (size_t i = 0; i < claims.count; i++) {
        const struct claim *claim = &claims.v[i];
        uint64_t key = event_key(claim->seq, claim->replay);
        CHECK(claim->tag >= a->next_tag);      /* the decoder's rule */
        if (claim->tag >= INT64_MAX) continue; /* no broker gave that out */
        a->next_tag = claim->tag + 1;
        if (map_get(&claims.by_event, key) == NULL) {
            map_add(&claims.by_event, key, (void *)(uintptr_t)claim);
        }
    }
    if (claims.count > 0) {
        claim_from(e, a, &a->sub->live, session, &claims);
        claim_from(e, a, &a->sub->due, session, &claims);
        LIST_FOR(n, next, &a->sub->replays) {
            claim_from(e, a, CONTAINER_OF(n, struct cursor, in_sub), session, &claims);
        }
        claim_rows(e, a, &claims);
    }
    map_free(&claims.by_event);
    if (session != 0) end_old_session(e, a, session);
    return (uint32_t)claims.granted;
}

void claims_refuse(struct engine *e, const struct attachment *a, const struct command *c) {
    for (size_t i = 0; i < c->u.attach.claims_count; i++) {
        uint64_t tag = c->u.attach.claims[i].tag;
        if (map_get(&a->by_tag, tag) != NULL) continue;
        struct effect *f = turn_effect(e, EFFECT_REVOKED, a->route);
        f->u.revoked.attachment = a->id;
        f->u.revoked.tag = tag;
        f->u.revoked.reason = "lost";
    }
}
