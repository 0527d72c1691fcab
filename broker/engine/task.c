/* task.c: an operator's jobs on a subscription: replay, count, redrive, purge.
 *
 * A replay is a second reader of the journal, run by the pump with its subscription's workers; the
 * others need no worker and go on here, a slice per turn. COUNT walks the journal; REDRIVE and
 * PURGE walk the subscription's dead letters, and what they moved is written with their own
 * progress in one batch. Two of these on one subscription take turns, each on rows that it can
 * really see: only when the rows that the last slice removed are durably gone. */
#include <stdlib.h>

#include "broker/engine/state.h"

#define COUNT_SLICE       8192 /* journal positions per turn, of all tasks together */
#define DEAD_SLICE        512  /* dead letters, likewise */
#define DEAD_BYTES        (4 * MIB)
#define TASKS_RUNNING_MAX 1000

/* What the tasks may still do in this turn; the oldest takes first. */
struct slice_left {
    uint32_t positions, rows;
    size_t bytes;
};

struct task *task_of(struct cursor *c) {
    return CONTAINER_OF(c, struct task, cursor);
}

static bool of_dead_letters(const struct task *t) {
    return t->kind == TASK_REDRIVE || t->kind == TASK_PURGE;
}

static void task_write(struct engine *e, const struct task *t, uint32_t subscription) {
    struct record_task r = {
        .project = t->project->id,
        .kind = (uint8_t)t->kind,
        .flags = t->cancelled ? RECORD_TASK_CANCELLED : 0,
        .subscription = subscription,
        .created_at_ms = t->created_at_ms,
        .finished_at_ms = t->finished_at_ms,
        .from = t->from,
        .to = t->to,
        .next = t->cursor.next,
        .matched = t->matched,
        .acked_total = t->cursor.acked_total,
        .expired = t->expired,
        .rate_per_s = t->rate.per_s,
        .filter = t->filter_text,
    };
    struct batch *b = turn_batch(e);
    uint8_t key[KEY_SUB_BYTES];
    batch_put(b, STORE_TASKS, key_u32(key, t->id), record_task_encode(&b->arena, &r));
}

void task_free(struct task *t) {
    filter_free(&t->filter);
    free((void *)(uintptr_t)t->filter_text.data);
    free(t);
}

/* Forgets the one that finished first. */
static void forget_oldest(struct engine *e) {
    size_t at = e->tasks_count;
    for (size_t i = 0; i < e->tasks_count; i++) {
        uint64_t finished_at_ms = e->tasks[i]->finished_at_ms;
        if (finished_at_ms == 0) continue;
        if (at == e->tasks_count || finished_at_ms < e->tasks[at]->finished_at_ms) at = i;
    }
    CHECK(at < e->tasks_count);
    struct task *t = e->tasks[at];
    uint8_t key[KEY_SUB_BYTES];
    batch_delete(turn_batch(e), STORE_TASKS, key_u32(key, t->id));
    task_free(t);
    e->tasks_count--;
    e->tasks_finished--;
    memmove(e->tasks + at, e->tasks + at + 1, (e->tasks_count - at) * sizeof(struct task *));
}

static struct slice slice_copy(struct slice s) {
    uint8_t *bytes = mem_alloc(s.len + 1);
    if (s.len > 0) memcpy(bytes, s.data, s.len);
    return slice_of(bytes, s.len);
}

/* Takes the filter over. */
static struct task *task_add(struct engine *e, struct subscription *s, uint32_t id,
                             const struct record_task *r, struct filter *filter) {
    struct task *t = mem_zalloc(sizeof *t);
    t->id = id;
    t->project = project_get(e, r->project);
    t->kind = (enum task_kind)r->kind;
    t->filter = filter;
    t->filter_text = slice_copy(r->filter);
    rate_set(&t->rate, r->rate_per_s, RATE_BURST_MS * 1000);
    t->from = r->from;
    t->to = r->to;
    t->created_at_ms = r->created_at_ms;
    t->finished_at_ms = r->finished_at_ms;
    t->cancelled = (r->flags & RECORD_TASK_CANCELLED) != 0;
    t->matched = r->matched;
    t->expired = r->expired;
    t->timer.kind = DEADLINE_TASK;
    heap_node_init(&t->timer.node);
    list_init(&t->in_running);
    cursor_init(&t->cursor, s, id, r->next, r->to);
    t->cursor.acked_total = r->acked_total;
    if (e->tasks_count == e->tasks_cap) {
        e->tasks_cap = e->tasks_cap == 0 ? 16 : e->tasks_cap * 2;
        e->tasks = mem_realloc(e->tasks, e->tasks_cap * sizeof(struct task *));
    }
    CHECK(e->tasks_count == 0 || e->tasks[e->tasks_count - 1]->id < id);
    e->tasks[e->tasks_count++] = t;
    if (t->finished_at_ms != 0) {
        e->tasks_finished++;
    } else if (t->kind == TASK_REPLAY) {
        list_push_back(&s->replays, &t->cursor.in_sub);
        s->replays_count++;
    } else {
        list_push_back(&e->tasks_running, &t->in_running);
    }
    return t;
}

bool task_recover(struct engine *e, struct subscription *s, uint32_t id,
                  const struct record_task *r) {
    char why[256];
    struct filter *filter = NULL;
    struct record_task fixed = *r;
    if (r->kind > TASK_PURGE || r->from == 0 || r->to == UINT64_MAX) return false;
    if (r->project == 0 || (s != NULL && s->project->id != r->project)) return false;
    if (e->tasks_count > 0 && e->tasks[e->tasks_count - 1]->id >= id) return false;
    if (r->finished_at_ms == 0) {
        if (s == NULL || filter_compile(r->filter, &filter, why, sizeof why) != ERR_OK) {
            return false;
        }
    }
    if (fixed.next == 0) fixed.next = r->finished_at_ms != 0 ? r->to + 1 : r->from;
    task_add(e, s, id, &fixed, filter);
    return true;
}

static enum err journal_range(struct engine *e, const struct command *c, struct record_task *r,
                              const char **message) {
    uint64_t from = c->u.task.from_seq, to = c->u.task.to_seq, oldest = oldest_seq(e);
    if (c->u.task.from_time_ms != 0) from = seq_at_time(e, c->u.task.from_time_ms);
    if (c->u.task.to_time_ms != 0) to = seq_at_time(e, c->u.task.to_time_ms) - 1;
    else if (to == 0) to = e->last_seq;
    if (from == 0) from = oldest;
    if (from <= to && from >= oldest && to <= e->last_seq) {
        r->from = from;
        r->to = to;
        return ERR_OK;
    }
    bool by_time = c->u.task.from_time_ms != 0 || c->u.task.to_time_ms != 0;
    if (e->last_seq == 0) {
        *message = "the journal is empty: there is nothing to replay";
    } else if (by_time && from > to) {
        *message = turn_text(e,
                             "no event was received in that time: the oldest in the journal is "
                             "%llu, the newest %llu",
                             (unsigned long long)oldest, (unsigned long long)e->last_seq);
    } else {
        *message = turn_text(e,
                             "no such range of events, %llu to %llu: the oldest in the journal is "
                             "%llu, the newest %llu",
                             (unsigned long long)from, (unsigned long long)to,
                             (unsigned long long)oldest, (unsigned long long)e->last_seq);
    }
    return ERR_OUT_OF_RANGE;
}

/* The first dead letter of a seq from `from` on. The event is borrowed until store_end_reads. */
static bool dead_from(struct engine *e, const struct subscription *s, uint64_t from,
                      struct event *out) {
    uint8_t key[KEY_DEAD_BYTES];
    struct store_iter it;
    struct record_dead r;
    store_seek(e->store, STORE_DEAD, key_dead(key, s->id, from, 0), &it);
    bool found = it.valid && key_read_u32(it.key, 0) == s->id;
    if (found) {
        dead_decode(s, it.key, it.value, &r);
    }
    store_iter_end(e->store, &it);
    if (found) *out = r.event;
    return found;
}

/* The seq from which on dead letters are of events that were received at wall_ms or later. Those of
 * events that the journal has no more are asked themselves: they rise by time as by seq (E8). It is
 * that of a letter: what lies between two of them and dies meanwhile may be older. */
static uint64_t dead_at_time(struct engine *e, const struct subscription *s, uint64_t wall_ms) {
    uint64_t lo = 1, end = seq_at_time(e, wall_ms), hi = end;
    struct event event;
    if (hi > oldest_seq(e)) return hi;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        bool before = dead_from(e, s, mid, &event) && event.seq < hi;
        if (before && event.received_at_ms < wall_ms) lo = event.seq + 1;
        else hi = mid;
    }
    return dead_from(e, s, lo, &event) && event.seq < end ? event.seq : end;
}

static enum err dead_range(struct engine *e, const struct command *c, struct record_task *r,
                           const struct subscription *s, const char **message) {
    uint64_t from = c->u.task.from_seq, to = c->u.task.to_seq;
    struct event event;
    r->from = from == 0 ? 1 : from;
    r->to = to == 0 ? (e->last_seq == 0 ? 1 : e->last_seq) : to;
    if (c->u.task.from_time_ms != 0) r->from = dead_at_time(e, s, c->u.task.from_time_ms);
    if (from == 0 || from != to) return ERR_OK;
    if (dead_from(e, s, from, &event) && event.seq == from) return ERR_OK;
    *message =
        turn_text(e, "\"%s\" has no dead letter with seq %llu", s->name, (unsigned long long)from);
    return ERR_NOT_FOUND;
}

static enum err task_check(struct engine *e, const struct command *c, struct record_task *r,
                           struct subscription *s, struct filter **filter, const char **message) {
    char why[256];
    if (s == NULL) {
        *message = no_such_subscription(e, c->u.task.name);
        return ERR_NOT_FOUND;
    }
    if (e->tasks_count - e->tasks_finished >= TASKS_RUNNING_MAX) {
        *message =
            "1000 replays and other tasks run already, of all projects: wait, or cancel some";
        return ERR_LIMIT_EXCEEDED;
    }
    if (c->u.task.rate_per_s > LIMIT_RATE_PER_S) {
        *message = "rate: must be 0 to 1000000 per second";
        return ERR_INVALID_REQUEST;
    }
    bool dead = r->kind == TASK_REDRIVE || r->kind == TASK_PURGE;
    if (dead && c->u.task.to_time_ms != 0) {
        *message = "dead letters go from a time on, not until one: give the last seq, or a filter";
        return ERR_INVALID_REQUEST;
    }
    enum err err = dead ? dead_range(e, c, r, s, message) : journal_range(e, c, r, message);
    if (err != ERR_OK) return err;
    err = filter_compile(c->u.task.filter, filter, why, sizeof why);
    if (err != ERR_OK) *message = turn_text(e, "%s", why);
    return err;
}

void task_create(struct engine *e, const struct command *c) {
    struct subscription *s = subscription_find(e, c->project, c->u.task.name);
    struct record_task r = {.project = c->project,
                            .kind = (uint8_t)c->u.task.kind,
                            .created_at_ms = e->time.wall_ms,
                            .rate_per_s = c->u.task.rate_per_s};
    struct filter *filter = NULL;
    const char *message = NULL;
    enum err err = task_check(e, c, &r, s, &filter, &message);
    uint32_t id = 0;
    if (err == ERR_OK) {
        id = e->next_id++;
        r.filter = filter_text(filter);
        r.next = r.from;
        struct task *t = task_add(e, s, id, &r, filter);
        struct batch *b = turn_batch(e);
        batch_put(b, STORE_META, slice_str("next_id"), record_u64_encode(&b->arena, e->next_id));
        task_write(e, t, s->id);
        if (t->kind == TASK_REPLAY) subscription_wake(e, s);
    }
    struct effect *f = turn_effect(e, EFFECT_DONE, c->route);
    f->err = err;
    f->message = message;
    f->u.done.id = id;
    f->u.done.created = true;
}

void task_finish(struct engine *e, struct task *t) {
    struct subscription *s = t->cursor.sub;
    t->finished_at_ms = e->time.wall_ms;
    e->tasks_finished++;
    if (t->kind == TASK_REPLAY) {
        uint8_t key[KEY_POSITION_BYTES];
        LIST_FOR(n, next, &t->cursor.outstanding) { /* only when its subscription is deleted */
            delivery_forget(e, CONTAINER_OF(n, struct delivery, in_cursor));
        }
        batch_delete(turn_batch(e), STORE_POSITIONS, key_position(key, s->id, t->id));
        cursor_unmark(&t->cursor);
        list_unlink(&t->cursor.in_sub);
        s->replays_count--;
    }
    list_unlink(&t->in_running);
    heap_remove(&e->deadlines, &t->timer.node);
    filter_free(&t->filter);
    task_write(e, t, s->id);
    if (e->tasks_finished > TASKS_KEPT) forget_oldest(e);
}

void replay_check_finished(struct engine *e, struct cursor *c) {
    struct task *t = task_of(c);
    if (t->finished_at_ms == 0 && c->next > c->end && c->outstanding_count == 0) task_finish(e, t);
}

void tasks_end(struct engine *e, const struct subscription *s) {
    for (size_t i = e->tasks_count; i > 0;
         i--) { /* from the end: finishing may forget an old one */
        struct task *t = e->tasks[i - 1];
        if (t->cursor.sub != s || t->finished_at_ms != 0) continue;
        t->cancelled = true;
        task_finish(e, t);
        if (i > e->tasks_count) i = e->tasks_count;
    }
}

static struct task *task_find(const struct engine *e, uint32_t project, uint32_t id) {
    for (size_t i = e->tasks_count; i > 0; i--) {
        struct task *t = e->tasks[i - 1];
        if (t->id == id) return t->project->id == project ? t : NULL;
    }
    return NULL;
}

void task_cancel(struct engine *e, const struct command *c) {
    struct task *t = task_find(e, c->project, c->u.cancel.id);
    enum err err = ERR_OK;
    const char *message = NULL;
    if (t == NULL) {
        err = ERR_NOT_FOUND;
        message = turn_text(e, "there is no replay or other task %u", c->u.cancel.id);
    } else if (t->finished_at_ms != 0 || t->cancelled) {
        err = ERR_NOT_RUNNING;
        message = turn_text(e, "%s %u does not run any more: it was %s", task_kind_name(t->kind),
                            t->id, t->cancelled ? "cancelled" : "finished");
    } else {
        t->cancelled = true;
        t->cursor.end = t->cursor.next - 1;
        task_write(e, t, t->cursor.sub->id);
        if (t->kind == TASK_REPLAY) replay_check_finished(e, &t->cursor);
        else task_finish(e, t);
    }
    struct effect *f = turn_effect(e, EFFECT_DONE, c->route);
    f->err = err;
    f->message = message;
    f->u.done.id = c->u.cancel.id;
}

/* ---- COUNT ---- */

static void count_run(struct engine *e, struct task *t, struct slice_left *left) {
    struct cursor *c = &t->cursor;
    uint8_t key[KEY_U64_BYTES];
    struct store_iter it;
    uint64_t first = c->next > e->trimmed_to ? c->next : e->trimmed_to + 1;
    store_seek(e->store, STORE_JOURNAL, key_u64(key, first), &it);
    while (c->next <= c->end && c->next <= e->durable_seq && left->positions > 0) {
        struct event event;
        struct filter_subject subject;
        CHECK(it.valid); /* the newest durable record is never removed */
        uint64_t seq = key_read_u64(it.key, 0);
        if (seq > c->end) {
            t->expired += c->end + 1 - c->next;
            c->next = c->end + 1;
            break;
        }
        event_decode(seq, it.value, &event);
        scan_take(&left->positions, &event);
        filter_subject_init(&subject, &event);
        t->expired += seq - c->next;
        if (event.deliver_at_ms <= e->time.wall_ms && subscription_wants(c->sub, &subject) &&
            filter_match(t->filter, &subject)) {
            t->matched++;
        }
        c->next = seq + 1;
        store_next(e->store, &it);
    }
    store_iter_end(e->store, &it);
    if (c->next > c->end) task_finish(e, t);
}

/* ---- REDRIVE, PURGE ---- */

static bool dead_wanted(const struct task *t, const struct record_dead *r) {
    struct filter_subject subject;
    if (r->died_at_ms > t->created_at_ms) return false;
    filter_subject_init(&subject, &r->event);
    return filter_match(t->filter, &subject);
}

void dead_remove(struct engine *e, struct subscription *s, struct slice key) {
    batch_delete(turn_batch(e), STORE_DEAD, key);
    row_changed(e, STORE_DEAD, key, false);
    if (s->dead_count > 0) s->dead_count--;
    s->dead_turn = e->turn_number;
    cursor_mark_dirty(e, &s->live, true);
}

static void dead_move(struct engine *e, struct task *t, struct slice key,
                      const struct record_dead *r) {
    struct subscription *s = t->cursor.sub;
    if (t->kind == TASK_REDRIVE) {
        struct record_due row = {.deliveries = r->deliveries,
                                 .flags = RECORD_DUE_REDRIVE,
                                 .failure = r->failure,
                                 .event = r->event};
        due_write(e, s, e->time.wall_ms, t->place_cursor, &row);
        rate_take(&t->rate, e->time.now_ms);
    }
    dead_remove(e, s, key);
    t->matched++;
}

static bool rate_holds(struct engine *e, struct task *t) {
    uint64_t next_ms = rate_next_ms(&t->rate);
    if (t->kind != TASK_REDRIVE || next_ms <= e->time.now_ms) return false;
    heap_remove(&e->deadlines, &t->timer.node);
    heap_insert(&e->deadlines, &t->timer.node, next_ms);
    return true;
}

static void dead_run(struct engine *e, struct task *t, struct slice_left *left) {
    struct cursor *c = &t->cursor;
    uint64_t before = t->matched;
    bool end = false;
    uint8_t key[KEY_DEAD_BYTES];
    struct store_iter it;
    store_seek(e->store, STORE_DEAD, key_dead(key, c->sub->id, c->next, t->place_cursor), &it);
    for (; left->rows > 0 && left->bytes > 0 && !rate_holds(e, t); left->rows--) {
        struct record_dead r;
        end =
            !it.valid || key_read_u32(it.key, 0) != c->sub->id || key_read_u64(it.key, 4) > c->end;
        if (end) break;
        c->next = key_read_u64(it.key, 4);
        t->place_cursor = key_read_u32(it.key, 12);
        dead_decode(c->sub, it.key, it.value, &r);
        /* What died again in this moment has taken the row's place, and is not of this task. */
        bool changing = row_changing(e, STORE_DEAD, it.key);
        if (!changing && dead_wanted(t, &r)) dead_move(e, t, it.key, &r);
        left->bytes -= it.value.len < left->bytes ? it.value.len : left->bytes;
        t->place_cursor++; /* on: the next row is above this one */
        if (t->place_cursor == 0) c->next++;
        store_next(e->store, &it);
    }
    store_iter_end(e->store, &it);
    if (end) {
        c->next = c->end + 1;
        task_finish(e, t);
    } else if (t->matched != before) {
        task_write(e, t, c->sub->id);
    }
}

/* The oldest of a subscription's goes first; rows that were removed must be gone for good. */
static bool dead_may_run(const struct engine *e, const struct task *t) {
    if (t->cursor.sub->dead_turn > e->turns_durable) return false;
    for (const struct list *n = e->tasks_running.next; n != &t->in_running; n = n->next) {
        const struct task *other = CONTAINER_OF(n, struct task, in_running);
        if (of_dead_letters(other) && other->cursor.sub == t->cursor.sub) return false;
    }
    return rate_next_ms(&t->rate) <= e->time.now_ms || t->kind != TASK_REDRIVE;
}

static bool may_run(const struct engine *e, const struct task *t) {
    return of_dead_letters(t) ? dead_may_run(e, t) : t->cursor.next <= e->durable_seq;
}

void tasks_run(struct engine *e) {
    struct slice_left left = {COUNT_SLICE, DEAD_SLICE, DEAD_BYTES};
    LIST_FOR(n, next, &e->tasks_running) {
        struct task *t = CONTAINER_OF(n, struct task, in_running);
        if (!may_run(e, t)) continue;
        if (of_dead_letters(t)) dead_run(e, t, &left);
        else count_run(e, t, &left);
    }
}

bool tasks_want_turn(const struct engine *e) {
    for (const struct list *n = e->tasks_running.next; n != &e->tasks_running; n = n->next) {
        if (may_run(e, CONTAINER_OF(n, struct task, in_running))) return true;
    }
    return false;
}
