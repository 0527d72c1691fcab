/* What the oracle knows against what the engine has in memory and on the disk; claims; the end. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/oracle.h"

/* ---- rows ---- */

static uint64_t rows(struct oracle *o, enum store_table table, uint32_t sub) {
    uint8_t key[KEY_SUB_BYTES];
    uint64_t count = 0;
    struct store_iter it;
    store_seek(o->w.store, table, key_u32(key, sub), &it);
    for (; it.valid && key_read_u32(it.key, 0) == sub; store_next(o->w.store, &it)) count++;
    store_iter_end(o->w.store, &it);
    return count;
}

/* What a deleted subscription had is gone with it. */
static void check_owners(struct oracle *o) {
    static const enum store_table tables[] = {STORE_SUBSCRIPTIONS, STORE_POSITIONS, STORE_RETRIES,
                                              STORE_DUE, STORE_DEAD};
    struct engine *e = o->w.engine;
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++) {
        struct store_iter it;
        uint32_t id = 0;
        store_seek(o->w.store, tables[t], slice_of(NULL, 0), &it);
        for (; it.valid; store_next(o->w.store, &it)) {
            if (key_read_u32(it.key, 0) == id) continue;
            id = key_read_u32(it.key, 0);
            bool owned = sweep_has(e, id);
            for (size_t i = 0; i < e->subs_count; i++) owned |= e->subs[i]->id == id;
            CHECK(owned);
        }
        store_iter_end(o->w.store, &it);
    }
}

/* Its own project can read it, and no other. */
static void check_reader(struct oracle *o, uint64_t seq, uint32_t project) {
    struct event event;
    CHECK(project == project_ids[o->facts[seq].project]);
    for (int i = 0; i < PROJECTS && seq % 8 == 0; i++) {
        bool found = engine_event_get(o->w.engine, project_ids[i], seq, &event);
        CHECK(found == (project_ids[i] == project));
    }
}

/* Retention takes from the old end only, and what it leaves there is needed. */
static void check_journal(struct oracle *o) {
    const struct engine *e = o->w.engine;
    uint64_t next = e->trimmed_to + 1, received_ms = 0, offset = 0;
    struct store_iter it;
    store_seek(o->w.store, STORE_JOURNAL, slice_of(NULL, 0), &it);
    for (; it.valid; store_next(o->w.store, &it)) {
        struct event event;
        uint64_t seq = key_read_u64(it.key, 0);
        bool decoded = record_event_decode(seq, it.value, &event);
        CHECK(decoded && event.received_at_ms >= received_ms && event.offset >= offset); /* E8 */
        received_ms = event.received_at_ms;
        offset = event.offset + it.value.len;
        check_reader(o, seq, event.project);
        if (seq <= e->trimmed_to) CHECK(map_get(&e->stragglers, seq) != NULL);
        else CHECK(seq == next++);
    }
    CHECK(next == o->last_seq + 1);
    store_iter_end(o->w.store, &it);
}

static bool count_dead(void *ctx, const struct dead_letter *d) {
    (void)d;
    ++*(uint64_t *)ctx;
    return true;
}

/* ---- nothing is lost ---- */

static void mark_outstanding(const struct cursor *c, uint8_t *has) {
    for (const struct list *n = c->outstanding.next; n != &c->outstanding; n = n->next) {
        has[CONTAINER_OF(n, struct delivery, in_cursor)->seq] = 1;
    }
}

/* An event that its subscription is still owed is ahead of it, out, or waits on the disk. */
static void check_owed(struct oracle *o, const struct sub *known, struct subscription *s) {
    uint8_t has[EVENTS_MAX] = {0}, key[KEY_SUB_BYTES];
    struct store_iter it;
    uint64_t next = cursor_next(o->w.engine, &s->live);
    if (known->lag_expire_used || known->blind) return;
    mark_outstanding(&s->live, has);
    store_seek(o->w.store, STORE_DUE, key_u32(key, s->id), &it);
    for (; it.valid && key_read_u32(it.key, 0) == s->id; store_next(o->w.store, &it)) {
        has[key_read_u64(it.key, 12)] = 1;
    }
    store_iter_end(o->w.store, &it);
    for (uint64_t seq = 1; seq < next; seq++) {
        const struct knowledge *k = &known->events[seq];
        if (has[seq] || k->acked[LIVE] || k->dead[LIVE] || k->excused) continue;
        if (!fact_wanted(known, &o->facts[seq], false)) continue;
        fprintf(stderr, "%s: event %llu is nowhere\n", s->name, (unsigned long long)seq);
        CHECK(!"an accepted event is lost");
    }
}

/* A turn has just ended: no lease is over and still runs. */
static void check_leases(const struct oracle *o) {
    for (uint64_t id = 1; id <= o->last_worker; id++) {
        const struct worker *w = &o->workers[id];
        if (!w->attached || map_get(&o->w.engine->attachments, id) == NULL) continue;
        for (uint64_t tag = w->first_open; tag < w->next_tag; tag++) {
            CHECK(!w->tags[tag].live || w->tags[tag].ends_ms > o->w.engine->time.now_ms);
        }
    }
}

/* What a project is told of itself, and only of itself; the whole is their sum (E14). */
static void check_project(const struct oracle *o, int project) {
    const struct engine_totals *c = &o->counts[project];
    uint32_t subs = 0, attached = 0, running = 0;
    struct project_stats t;
    engine_project_stats(o->w.engine, project_ids[project], &t);
    CHECK(t.totals.published == c->published && t.totals.duplicates == c->duplicates);
    CHECK(t.totals.refused == c->refused && t.totals.delivered == c->delivered);
    CHECK(t.totals.acked == c->acked && t.totals.nacked == c->nacked);
    CHECK(t.totals.expired == c->expired && t.totals.dead == c->dead);
    for (int i = 0; i < SUBS; i++) {
        subs += o->slots[i].project == project && o->subs[i].exists;
    }
    for (uint64_t id = 1; id <= o->last_worker; id++) {
        const struct worker *w = &o->workers[id];
        bool there = map_get(&o->w.engine->attachments, id) != NULL;
        attached += there && o->slots[w->sub].project == project;
    }
    for (size_t i = 0; i < o->w.engine->tasks_count; i++) {
        const struct task *task = o->w.engine->tasks[i];
        if (task->finished_at_ms != 0) continue;
        CHECK(task->project == task->cursor.sub->project);
        running += task->project->id == project_ids[project];
    }
    CHECK(t.subscriptions == subs && t.attachments == attached && t.tasks_running == running);
}

static void check_counts(const struct oracle *o) {
    struct engine_stats t;
    engine_stats(o->w.engine, &t);
    for (int i = 0; i < PROJECTS; i++) check_project(o, i);
    CHECK(t.room == o->room && t.last_seq == o->last_seq);
}

/* A project's list has its own subscriptions, and each name only where it is. */
static void check_lists(struct oracle *o) {
    for (int p = 0; p < PROJECTS; p++) {
        struct subscription_info info = {.name = slice_str("")};
        uint64_t dead = 0;
        int listed = 0;
        while (engine_subscription_next(o->w.engine, project_ids[p], info.name, &info)) {
            int slot = sub_by_id(o, info.id);
            CHECK(slot >= 0 && o->slots[slot].project == p);
            CHECK(slice_eq_str(info.name, o->slots[slot].name));
            listed++;
        }
        for (int i = 0; i < SUBS; i++) {
            struct slice name = slice_str(sub_names[i]);
            bool there = oracle_find(o, project_ids[p], sub_names[i]) != NULL;
            listed -= there;
            CHECK(engine_subscription_get(o->w.engine, project_ids[p], name, &info) == there);
            bool scanned =
                engine_dead_scan(o->w.engine, project_ids[p], name, 0, 0, count_dead, &dead);
            CHECK(scanned == there);
        }
        CHECK(listed == 0);
    }
}

void oracle_check_rows(struct oracle *o) {
    struct engine *e = o->w.engine;
    CHECK(e->pending == NULL && o->waiting == 0); /* every question has had its answer */
    engine_check(e);
    for (size_t i = 0; i < e->subs_count; i++) {
        struct subscription *s = e->subs[i];
        struct subscription_info info;
        uint64_t dead = 0, due = rows(o, STORE_DUE, s->id);
        uint32_t project = s->project->id;
        bool found = engine_subscription_get(e, project, slice_str(s->name), &info);
        found = found && engine_dead_scan(e, project, slice_str(s->name), 0, 0, count_dead, &dead);
        CHECK(found && info.id == s->id);
        if (info.dead != dead || s->due_count != due) {
            fprintf(stderr, "%s: %llu dead, rows %llu; %llu due, rows %llu\n", s->name,
                    (unsigned long long)info.dead, (unsigned long long)dead,
                    (unsigned long long)s->due_count, (unsigned long long)due);
        }
        CHECK(info.dead == dead && s->due_count == due);
        CHECK(info.delayed == s->delayed_count + due - s->due.outstanding_count);
        int slot = sub_by_id(o, s->id);
        CHECK(slot >= 0 && oracle_sub(o, slot) == s);
        check_owed(o, &o->subs[slot], s);
    }
    check_owners(o);
    check_lists(o);
    check_leases(o);
    oracle_check_jobs(o);
    if (o->check_one_in == 1 || o->turns % 4 == 0) check_journal(o);
    check_counts(o);
    store_end_reads(o->w.store);
}

/* ---- claims ---- */

/* What a claim can be granted from. */
struct candidate {
    bool in_memory, on_disk;
    struct worker *old; /* who has it, as old_tag; or NULL */
    uint64_t old_tag;
};

static void look_in(struct oracle *o, const struct cursor *c, const struct claim *claim,
                    uint64_t session, struct candidate *out) {
    for (const struct list *n = c->outstanding.next; n != &c->outstanding; n = n->next) {
        const struct delivery *d = CONTAINER_OF(n, struct delivery, in_cursor);
        uint32_t from = c->id == CURSOR_DUE ? d->row_cursor : c->id;
        if (d->seq != claim->seq || (from != CURSOR_LIVE) != claim->replay) continue;
        bool leased =
            d->state == DELIVERY_LEASED && session != 0 && d->lease->attachment->session == session;
        if (leased && !out->in_memory) {
            out->old = oracle_worker(o, d->lease->attachment->id);
            out->old_tag = d->lease->tag;
        }
        out->in_memory |= leased || d->state == DELIVERY_READY;
        out->in_memory |= d->state == DELIVERY_DELAYED && d->unclaimed;
    }
}

static struct candidate candidate_for(struct oracle *o, struct subscription *s,
                                      const struct claim *claim, uint64_t session) {
    struct candidate out = {false, false, NULL, 0};
    look_in(o, &s->live, claim, session, &out);
    look_in(o, &s->due, claim, session, &out);
    LIST_FOR(n, next, &s->replays) {
        look_in(o, CONTAINER_OF(n, struct cursor, in_sub), claim, session, &out);
    }
    uint8_t key[KEY_SUB_BYTES];
    struct store_iter it;
    store_seek(o->w.store, STORE_DUE, key_u32(key, s->id), &it);
    for (; it.valid && key_read_u32(it.key, 0) == s->id; store_next(o->w.store, &it)) {
        out.on_disk |= key_read_u64(it.key, 12) == claim->seq &&
                       (key_read_u32(it.key, 20) != CURSOR_LIVE) == claim->replay;
    }
    store_iter_end(o->w.store, &it);
    return out;
}

static bool claimed_before(const struct command *c, size_t i) {
    const struct claim *claims = c->u.attach.claims;
    for (size_t j = 0; j < i; j++) {
        if (claims[j].seq == claims[i].seq && claims[j].replay == claims[i].replay) return true;
    }
    return false;
}

/* Those of the session that the engine has no more ended in this way. */
static void end_session(struct oracle *o, uint64_t session, enum detach_kind how) {
    for (uint64_t id = 1; id <= o->last_worker && session != 0; id++) {
        struct worker *old = &o->workers[id];
        if (!old->attached || old->session != session) continue;
        if (map_get(&o->w.engine->attachments, id) == NULL) issue_worker_ended(o, old, how);
    }
}

/* A session's older attachments to a subscription end when a new one takes it up. */
static void check_one_of_session(const struct command *c, const struct attachment *at) {
    for (const struct list *n = at->sub->attachments.next; n != &at->sub->attachments;
         n = n->next) {
        const struct attachment *other = CONTAINER_OF(n, struct attachment, in_sub);
        CHECK(other == at || other->session != c->u.attach.resumes || other->session == 0);
    }
}

void oracle_attach(struct oracle *o, struct command *c, struct asked *a) {
    struct engine *e = o->w.engine;
    struct worker *w = oracle_worker(o, c->u.attach.attachment);
    struct subscription *s = oracle_sub(o, w->sub);
    size_t count = c->u.attach.claims_count;
    struct candidate *can = mem_zalloc((count + 1) * sizeof *can);
    bool grace = e->time.now_ms < e->grace_until_ms;
    bool there = s != NULL || c->u.attach.create != NULL;
    for (size_t i = 0; i < count && s != NULL; i++) {
        can[i] = candidate_for(o, s, &c->u.attach.claims[i], c->u.attach.resumes);
    }
    a->err = there ? ERR_OK : ERR_NOT_FOUND;
    end_session(o, c->u.attach.resumes, DETACH_LOST); /* by itself, when its grace was over */
    oracle_step(o, c);
    const struct attachment *at = map_get(&e->attachments, c->u.attach.attachment);
    CHECK((at != NULL) == there);
    CHECK(at == NULL || at->sub == oracle_sub(o, w->sub));
    issue_attached(o, w, c, at);
    CHECK(at == NULL || !c->u.attach.alone || at->sub->alone);
    for (size_t i = 0; i < count && at != NULL; i++) {
        const struct claim *claim = &c->u.attach.claims[i];
        const struct lease *l = map_get(&at->by_tag, claim->tag);
        struct hand_out *h = worker_tag(w, claim->tag);
        *h = (struct hand_out){
            .seq = claim->seq, .replay = claim->replay, .held = l != NULL ? HELD : HELD_REFUSED};
        if (l == NULL) {
            CHECK(!can[i].in_memory || claimed_before(c, i));
            o->refused++;
            continue;
        }
        CHECK(can[i].in_memory || (can[i].on_disk && grace));
        CHECK(l->delivery != NULL && l->delivery->seq == claim->seq && !claimed_before(c, i));
        issue_granted(o, w, l, can[i].old, can[i].old_tag);
        a->granted++;
        o->resumed++;
    }
    if (at != NULL) {
        end_session(o, c->u.attach.resumes, DETACH_RELEASE);
        check_one_of_session(c, at);
    }
    store_end_reads(o->w.store);
    free(can);
}

/* ---- the end ---- */

static void check_sub_end(struct oracle *o, int sub) {
    const struct sub *s = &o->subs[sub];
    const struct slot *slot = &o->slots[sub];
    struct subscription_info info;
    bool found = engine_subscription_get(o->w.engine, project_ids[slot->project],
                                         slice_str(slot->name), &info);
    CHECK(found == s->exists);
    if (!found) return;
    CHECK(info.floor == o->last_seq + 1 && info.next == o->last_seq + 1 && info.tasks == 0);
    CHECK(info.ready + info.leased + info.delayed + info.blocked == 0);
    CHECK(info.why_idle == IDLE_EMPTY);
    uint64_t missing = 0;
    for (uint64_t seq = 1; seq <= o->last_seq; seq++) {
        const struct knowledge *k = &s->events[seq];
        if (!fact_wanted(s, &o->facts[seq], false) || k->excused) continue;
        if (k->acked[LIVE] || k->dead[LIVE] || s->blind) continue;
        if (!s->lag_expire_used) {
            fprintf(stderr, "%s: event %llu is missing\n", slot->label, (unsigned long long)seq);
        }
        CHECK(s->lag_expire_used); /* nothing else loses an event */
        missing++;
    }
    bool exact = !s->inexact && !s->blind;
    bool holds = missing <= info.expired_total && (!exact || missing == info.expired_total);
    if (!holds) {
        fprintf(stderr, "%s: %llu are missing, %llu expired\n", slot->label,
                (unsigned long long)missing, (unsigned long long)info.expired_total);
    }
    CHECK(holds);
}

static void check_replay_end(struct oracle *o, const struct replay_asked *r) {
    struct task_info t;
    const struct sub *s = &o->subs[r->sub];
    if (!engine_task_get(o->w.engine, project_ids[s->project], r->id, &t)) {
        return; /* so many came after it */
    }
    CHECK(t.finished_at_ms != 0);
    if (t.cancelled || t.expired > 0) return;
    for (uint64_t seq = t.from; seq <= t.to; seq++) {
        const struct fact *fact = &o->facts[seq];
        const struct knowledge *k = &s->events[seq];
        if (!fact_wanted(s, fact, false) || !fact_matches(fact, r->filter)) continue;
        if (fact->deliver_at_ms != 0) continue; /* its time may not have come */
        CHECK(k->delivered[REPLAY] || k->acked[REPLAY] || k->died[REPLAY]);
    }
}

/* Nothing is kept that nobody needs: memory follows what is out, and nothing is out. */
static void check_memory(const struct oracle *o) {
    const struct engine *e = o->w.engine;
    size_t attached = 0, timers = 0;
    for (uint64_t id = 1; id <= o->last_worker; id++) {
        attached += map_get(&e->attachments, id) != NULL;
    }
    CHECK(e->attachments.len == attached);
    CHECK(e->rows_by_key.len == 0 && list_empty(&e->rows) && list_empty(&e->due_waiting));
    CHECK(e->stragglers.len == 0 && e->swept_count == 0);
    CHECK(list_empty(&e->tasks_running) && list_empty(&e->runnable) && e->pending == NULL);
    CHECK(e->tasks_count == e->tasks_finished && e->tasks_finished <= TASKS_KEPT);
    for (size_t i = 0; i < e->subs_count; i++) {
        const struct subscription *s = e->subs[i];
        CHECK(s->keys.len == 0 && s->due_taken.len == 0 && list_empty(&s->replays));
        CHECK(s->live.outstanding_count == 0 && s->due.outstanding_count == 0);
        timers += heap_contains(&s->timer.node);
        for (const struct list *n = s->attachments.next; n != &s->attachments; n = n->next) {
            const struct attachment *a = CONTAINER_OF(n, struct attachment, in_sub);
            /* A kept one has stale leases until its grace is over. */
            CHECK(a->kept || (a->unsettled_bytes == 0 && a->by_tag.len == 0));
            timers += heap_contains(&a->timer.node);
        }
    }
    CHECK(e->deadlines.len == timers);
    CHECK(e->turn == NULL || e->turn->batch.arena.used_bytes == 0);
    CHECK(e->spare == NULL || e->spare->batch.arena.used_bytes == 0);
}

void oracle_check_end(struct oracle *o) {
    struct engine *e = o->w.engine;
    struct engine_stats stats;
    for (int s = 0; s < SUBS; s++) check_sub_end(o, s);
    for (size_t i = 0; i < o->replays_count; i++) check_replay_end(o, &o->replays[i]);
    engine_stats(e, &stats);
    CHECK(stats.tasks_running == 0 && stats.last_seq == o->last_seq);
    CHECK(e->swept_count == 0 && e->stragglers.len == 0);
    /* Nobody has anything out: retention has left nothing behind. */
    struct store_iter it;
    store_seek(o->w.store, STORE_JOURNAL, slice_of(NULL, 0), &it);
    CHECK(!it.valid || key_read_u64(it.key, 0) > e->trimmed_to);
    store_iter_end(o->w.store, &it);
    check_memory(o);
    oracle_check_rows(o);
}
