/* check.c: engine_check, the numbered invariants of engine.h as code. */
#include "broker/engine/state.h"

struct recount {
    uint32_t ready, leased, delayed, blocked;
    uint64_t stragglers;
};

static void check_delivery(const struct engine *e, const struct subscription *s,
                           const struct delivery *d, struct recount *n) {
    bool timed = heap_contains(&d->timer.node);
    bool listed = !list_empty(&d->in_ready);
    bool live_lease = d->lease != NULL && !d->lease->expired;
    if (timed) CHECK(e->deadlines.nodes[d->timer.node.index] == &d->timer.node);
    if (d->lease != NULL) {
        CHECK(d->lease->delivery == d && d->lease->attachment->sub == s); /* E3 */
        CHECK(map_get(&d->lease->attachment->by_tag, d->lease->tag) == d->lease);
    }
    CHECK(!d->unclaimed || (d->state == DELIVERY_DELAYED && !s->alone));
    switch (d->state) {
    case DELIVERY_READY:
        n->ready++;
        CHECK(listed && !timed && !live_lease); /* E4 */
        break;
    case DELIVERY_LEASED:
        n->leased++;
        CHECK(!listed && timed && live_lease); /* E3 */
        CHECK(d->timer.node.at_ms <= d->lease->expires_ms);
        break;
    case DELIVERY_DELAYED:
        n->delayed++;
        CHECK(!listed && timed && !live_lease); /* E4 */
        break;
    case DELIVERY_BLOCKED:
        n->blocked++;
        CHECK(!listed && !timed && !live_lease && d->key != NULL); /* E4 */
        break;
    case DELIVERY_NEW: UNREACHABLE("a new delivery is placed at once");
    }
    if (d->key != NULL) CHECK((d->state == DELIVERY_BLOCKED) == !order_first(d)); /* E4 */
}

static void check_cursor(const struct engine *e, const struct subscription *s,
                         const struct cursor *c, struct recount *n) {
    uint64_t next = cursor_next(e, c), last = 0;
    uint32_t count = 0;
    CHECK(next >= 1 && next <= e->last_seq + 1); /* E1 */
    CHECK(c->end == UINT64_MAX || next <= c->end + 1);
    CHECK(c->id == CURSOR_DUE || cursor_floor(e, c) <= next);
    CHECK(!c->at_tail || c->id == CURSOR_LIVE);
    for (const struct list *i = c->outstanding.next; i != &c->outstanding; i = i->next) {
        const struct delivery *d = CONTAINER_OF(i, struct delivery, in_cursor);
        CHECK(d->cursor == c);
        if (c->id != CURSOR_DUE && d->seq <= e->trimmed_to) {
            CHECK(map_get(&e->stragglers, d->seq) != NULL); /* E10 */
            n->stragglers++;
        }
        CHECK(c->id == CURSOR_DUE || (d->seq > last && d->seq < next)); /* E2 */
        last = d->seq;
        count++;
        check_delivery(e, s, d, n);
    }
    CHECK(count == c->outstanding_count); /* E5 */
    CHECK(!c->urgent || c->dirty);
}

static void check_attachment(const struct attachment *a) {
    uint32_t count = 0, again = 0;
    uint64_t bytes = 0, last = 0;
    for (const struct list *i = a->leases.next; i != &a->leases; i = i->next) {
        const struct lease *l = CONTAINER_OF(i, struct lease, in_attachment);
        CHECK(l->attachment == a && l->tag > last && l->tag < a->next_tag);
        CHECK(l->delivery == NULL || l->delivery->lease == l);
        last = l->tag;
        count++;
        bytes += l->bytes;
        again += l->again;
    }
    CHECK(count == a->unsettled_count && count == a->by_tag.len); /* E5 */
    CHECK(bytes == a->unsettled_bytes && again == a->again_count);
    CHECK(!a->kept || a->held);
    CHECK(attachment_can_take(a) == !list_empty(&a->in_available));
}

/* How many outstanding events of it retention has passed. */
static uint64_t check_subscription(const struct engine *e, const struct subscription *s) {
    struct recount n = {0};
    check_cursor(e, s, &s->live, &n);
    check_cursor(e, s, &s->due, &n);
    CHECK(s->due.outstanding_count <= s->due_count);
    for (const struct list *i = s->replays.next; i != &s->replays; i = i->next) {
        check_cursor(e, s, CONTAINER_OF(i, struct cursor, in_sub), &n);
    }
    CHECK(n.ready == s->ready_count && n.leased == s->leased_count); /* E5 */
    CHECK(n.delayed == s->delayed_count && n.blocked == s->blocked_count);
    uint32_t outstanding = subscription_outstanding(s), cap = e->options.outstanding_max;
    CHECK(outstanding <= cap || outstanding <= s->recovered_outstanding); /* E9 */
    uint32_t attachments = 0;
    for (const struct list *i = s->attachments.next; i != &s->attachments; i = i->next) {
        const struct attachment *a = CONTAINER_OF(i, struct attachment, in_sub);
        CHECK(a->sub == s && map_get(&e->attachments, a->id) == a);
        check_attachment(a);
        attachments++;
    }
    CHECK(attachments == s->attachments_count);
    /* A timer that is due but did not fit into the turn wakes it in the next one. */
    const struct heap_node *first = heap_min(&e->deadlines);
    bool late = first != NULL && first->at_ms <= e->time.now_ms;
    /* The wall clock moved a little: its timer comes a little late for a row on disk. */
    late |= heap_contains(&s->timer.node) && list_empty(&s->ready) && !subscription_has_fresh(e, s);
    bool could = !late && !list_empty(&s->available) && subscription_has_work(e, s);
    CHECK(!could || s->runnable);      /* E7 */
    CHECK(!s->paused || !s->runnable); /* E6 */
    return n.stragglers;
}

static uint64_t stragglers_held(const struct engine *e) {
    uint64_t sum = 0;
    for (size_t i = 0; i < e->stragglers.cap; i++) {
        sum += (uintptr_t)e->stragglers.slots[i].value;
    }
    return sum;
}

/* E14: by project and name, each once. */
static void check_place(const struct engine *e, size_t i) {
    const struct subscription *s = e->subs[i], *before = i == 0 ? NULL : e->subs[i - 1];
    CHECK(project_find(e, s->project->id) == s->project);
    CHECK(subscription_find(e, s->project->id, slice_str(s->name)) == s);
    if (before == NULL) return;
    CHECK(before->project->id <= s->project->id);
    CHECK(before->project != s->project || strcmp(before->name, s->name) < 0);
}

static void add_totals(struct engine_totals *sum, const struct engine_totals *t) {
    sum->published += t->published;
    sum->duplicates += t->duplicates;
    sum->refused += t->refused;
    sum->delivered += t->delivered;
    sum->acked += t->acked;
    sum->nacked += t->nacked;
    sum->expired += t->expired;
    sum->dead += t->dead;
}

static void check_projects(const struct engine *e) {
    struct engine_totals sum = {.published = 0};
    size_t known = 0;
    for (size_t i = 0; i < e->projects.cap; i++) { /* E14 */
        const struct project *p = e->projects.slots[i].value;
        if (p == NULL) continue;
        uint32_t subs = 0;
        for (size_t s = 0; s < e->subs_count; s++) subs += e->subs[s]->project == p;
        CHECK(p->id != 0 && p->id == e->projects.slots[i].key);
        CHECK(subs == p->subs_count && jobs_of(e, p) == p->jobs_count);
        add_totals(&sum, &p->totals);
        known++;
    }
    CHECK(known == e->projects.len);
    CHECK(memcmp(&sum, &e->totals, sizeof sum) == 0);
}

void engine_check(const struct engine *e) {
    heap_check(&e->deadlines);
    CHECK(e->durable_seq <= e->last_seq);
    uint64_t undurable = e->turn == NULL ? 0 : e->turn->events->count; /* E8 */
    for (const struct engine_turn *t = e->pending; t != NULL; t = t->next) {
        undurable += t->events->count;
    }
    CHECK(e->durable_seq + undurable == e->last_seq);
    size_t timed = 0;
    uint64_t stragglers = 0;
    for (size_t i = 0; i < e->subs_count; i++) {
        stragglers += check_subscription(e, e->subs[i]);
        timed += e->subs[i]->leased_count + e->subs[i]->delayed_count;
        check_place(e, i);
    }
    CHECK(timed <= e->deadlines.len); /* and timers of subscriptions, attachments and tasks */
    CHECK(stragglers == stragglers_held(e)); /* E10 */
    CHECK(list_empty(&e->dirty) || e->flush_at_ms != UINT64_MAX);
    check_projects(e);
    jobs_check(e);
}
