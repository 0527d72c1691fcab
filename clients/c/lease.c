/* Leases: renewed at a third of their time for everything that is held here, prefetched or with a
 * handler, for as long as it is held.
 *
 * Failures: REVOKE. `expired` and `max_hold`: what no handler has is given back, for it keeps its
 * place in the window until then; what a handler has is told, and its settlement is still said.
 * `lost` and `seek`: the tags mean nothing any more; handlers are told. */
#include <stdlib.h>

#include "clients/c/client.h"

static struct bellhop_event *event_of(struct list *node) {
    return CONTAINER_OF(node, struct bellhop_event, node);
}

bool bh_ranges_have(const struct frame_range *ranges, size_t count, uint64_t tag) {
    for (size_t i = 0; i < count; i++) {
        if (tag >= ranges[i].lo && tag <= ranges[i].hi) return true;
    }
    return false;
}

static const char *reason_of(struct slice text) {
    static const char *const known[] = {"expired", "max_hold", "lost", "seek"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (slice_eq_str(text, known[i])) return known[i];
    }
    return known[0];
}

/* The handler has it: on_revoked is due. */
static void tell_revoked(struct bellhop_event *e, const char *reason) {
    if (e->revoked) return;
    e->revoked = e->tell = true;
    e->reason = reason;
    e->soon_ms = 0;
    list_unlink(&e->node);
    list_push_back(&e->sub->to_tell, &e->node);
}

void bh_event_orphan(struct bellhop_event *e, const char *reason) {
    if (e->attached) CHECK(map_remove(&e->sub->held, e->tag) == e);
    e->attached = false;
    tell_revoked(e, reason);
}

static void revoke_queued(struct bellhop_sub *s, const struct frame *f, bool gone) {
    LIST_FOR(n, next, &s->queue) {
        struct bellhop_event *e = event_of(n);
        if (!bh_ranges_have(f->ranges, f->ranges_count, e->tag)) continue;
        if (!gone) bh_tags_add(&s->releases, e->tag);
        CHECK(map_remove(&s->held, e->tag) == e);
        list_unlink(n);
        free(e);
    }
}

/* How many events of the list the frame was about. */
static size_t revoke_taken(struct list *events, const struct frame *f, const char *reason,
                           bool gone) {
    struct list hit;
    size_t count = 0;
    list_init(&hit); /* to_tell may be the list that is walked */
    LIST_FOR(n, next, events) {
        if (!event_of(n)->attached ||
            !bh_ranges_have(f->ranges, f->ranges_count, event_of(n)->tag)) {
            continue;
        }
        list_unlink(n);
        list_push_back(&hit, n);
        count++;
    }
    for (struct list *n; (n = list_first(&hit)) != NULL;) {
        struct bellhop_event *e = event_of(n);
        list_unlink(n);
        list_push_back(&e->sub->to_tell, n);
        e->lost = gone;
        if (gone) bh_event_orphan(e, reason);
        else tell_revoked(e, reason);
    }
    return count;
}

void bh_sub_revoke(struct bellhop_sub *s, const struct frame *f) {
    const char *reason = reason_of(f->u.revoke.reason);
    bool lost = strcmp(reason, "lost") == 0, gone = lost || strcmp(reason, "seek") == 0;
    revoke_queued(s, f, gone);
    size_t hit = revoke_taken(&s->to_tell, f, reason, gone);
    hit += revoke_taken(&s->taken, f, reason, gone);
    if (gone) hit += bh_settle_drop(s, f->ranges, f->ranges_count);
    if (!lost) return;
    s->claims_lost += hit;
    bh_sub_claims_answered(s);
}

void bh_sub_lease_soon(struct bellhop_sub *s, const struct frame *f) {
    uint64_t soonest_ms = s->extended_at_ms + BH_PERIOD_MIN_MS;
    uint64_t remaining_ms = f->u.lease.remaining_ms;
    if (s->extend_at_ms > soonest_ms) s->extend_at_ms = soonest_ms;
    LIST_FOR(n, next, &s->taken) {
        struct bellhop_event *e = event_of(n);
        if (!e->attached || e->revoked || !bh_ranges_have(f->ranges, f->ranges_count, e->tag)) {
            continue;
        }
        e->soon_ms = remaining_ms == 0 ? 1 : remaining_ms;
        list_unlink(n);
        list_push_back(&s->to_tell, n);
    }
}

void bh_sub_tell(struct bellhop_sub *s) {
    const struct bellhop_sub_options *o = &s->options;
    for (struct list *n; (n = list_first(&s->to_tell)) != NULL;) {
        struct bellhop_event *e = event_of(n);
        uint64_t soon_ms = e->soon_ms;
        bool revoked = e->tell;
        e->tell = false;
        e->soon_ms = 0;
        list_unlink(n);
        list_push_back(&s->taken, n);
        if (s->client->phase == BH_STOPPED) continue;
        if (revoked && o->on_revoked != NULL) o->on_revoked(o->ctx, e, e->reason);
        else if (soon_ms > 0 && o->on_lease_soon != NULL) o->on_lease_soon(o->ctx, e, soon_ms);
    }
}

/* A lease is renewed when a third of it has gone. */
static uint64_t period_ms(const struct bellhop_sub *s) {
    return s->lease_ms / 3 < BH_PERIOD_MIN_MS ? BH_PERIOD_MIN_MS : s->lease_ms / 3;
}

void bh_sub_extend_afresh(struct bellhop_sub *s) {
    s->extended_at_ms = bh_now_ms(s->client);
    s->extend_at_ms = s->extended_at_ms + period_ms(s);
}

uint64_t bh_sub_extend_at(const struct bellhop_sub *s) {
    return bh_sub_is_on(s) && s->lease_ms > 0 && s->held.len > 0 ? s->extend_at_ms : BH_NEVER;
}

static void extend(struct bellhop_sub *s, struct bh_tags *tags) {
    struct bellhop *c = s->client;
    if (tags->len == 0 || bh_out(c) == NULL || !bh_sub_is_on(s)) return;
    struct frame_range *ranges = mem_alloc(tags->len * sizeof *ranges);
    size_t count = bh_tags_ranges(tags, ranges);
    bool ok = true;
    for (size_t at = 0; at < count && ok; at += LIMIT_RANGES) {
        size_t n = count - at < LIMIT_RANGES ? count - at : LIMIT_RANGES;
        ok = frame_encode_extend(bh_out(c), 0, s->id, ranges + at, n, s->options.lease_ms, false);
    }
    free(ranges);
    bh_encoded(c, ok);
}

void bh_sub_extend_due(struct bellhop_sub *s, uint64_t now_ms) {
    struct list *lists[] = {&s->queue, &s->taken, &s->to_tell};
    struct bh_tags tags = {0};
    if (now_ms < bh_sub_extend_at(s)) return;
    bh_sub_extend_afresh(s);
    for (int i = 0; i < 3; i++) {
        LIST_FOR(n, next, lists[i]) {
            const struct bellhop_event *e = event_of(n);
            if (e->attached && !e->revoked) bh_tags_add(&tags, e->tag);
        }
    }
    extend(s, &tags);
    free(tags.items);
}

void bellhop_extend(struct bellhop_event *e) {
    uint64_t tag = e->tag;
    struct bh_tags one = {.items = &tag, .len = 1, .cap = 1};
    if (e->attached && !e->revoked) extend(e->sub, &one);
}
