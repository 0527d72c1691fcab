/* engine.c: the engine's life, and the way of a turn: commands in, batch and effects out.
 *
 * The happy path: engine_step works on a command in the open turn; engine_end_turn expires what is
 * due, pumps, writes positions and gives the turn away; engine_durable moves durable_seq. A turn
 * that is never durable (the store failed) is never released: the process stops. */
#include <stdlib.h>

#include "broker/engine/state.h"

int engine_open(struct engine **out, struct store *store, const struct engine_options *options,
                struct engine_time time, char *error, size_t error_size) {
    struct engine *e = mem_zalloc(sizeof *e);
    e->store = store;
    e->options = *options;
    struct engine_options *o = &e->options;
    if (o->subscriptions_max == 0) o->subscriptions_max = LIMIT_SUBSCRIPTIONS;
    if (o->outstanding_max == 0) o->outstanding_max = LIMIT_OUTSTANDING;
    if (o->settle_delay_ms == 0) o->settle_delay_ms = 50;
    if (o->dedupe_ids == 0) o->dedupe_ids = 1000000;
    if (o->dedupe_ms == 0) o->dedupe_ms = 24 * 3600 * 1000;
    if (o->turn_scan_events == 0) o->turn_scan_events = 8192;
    if (o->turn_deliver_bytes == 0) o->turn_deliver_bytes = 4 * MIB;
    if (o->jobs_max == 0) o->jobs_max = LIMIT_JOBS;
    if (o->jobs_bytes_max == 0) o->jobs_bytes_max = LIMIT_JOBS_BYTES;
    e->time = time;
    e->room = true;
    e->next_id = 1;
    e->turn_number = 1;
    e->opened_wall_ms = time.wall_ms;
    e->clock_offset_ms = time.wall_ms - time.now_ms;
    e->grace_until_ms = time.now_ms + o->restart_grace_ms;
    e->retention_at_ms = e->dead_place_at_ms = time.now_ms;
    e->flush_at_ms = UINT64_MAX;
    e->lag_check_at_ms = time.now_ms + POSITION_LAG_MS;
    prng_seed(&e->prng, options->seed);
    heap_init(&e->deadlines);
    map_init(&e->rows_by_key);
    map_init(&e->stragglers);
    list_init(&e->rows);
    list_init(&e->dirty);
    list_init(&e->runnable);
    list_init(&e->due_waiting);
    list_init(&e->tasks_running);
    map_init(&e->attachments);
    jobs_init(&e->jobs);
    map_init(&e->projects);
    dedupe_init(&e->dedupe, o->dedupe_ids, o->dedupe_ms);
    int err = recover(e, error, error_size);
    store_end_reads(store);
    if (err != 0) engine_close(&e);
    *out = e;
    return err;
}

void engine_close(struct engine **out) {
    struct engine *e = *out;
    if (e == NULL) return;
    while (e->subs_count > 0) subscription_free(e, e->subs[e->subs_count - 1]);
    for (size_t i = 0; i < e->tasks_count; i++) task_free(e->tasks[i]);
    free(e->tasks);
    free(e->subs);
    projects_drop(e);
    CHECK(e->attachments.len == 0);
    map_free(&e->attachments);
    jobs_free(&e->jobs);
    heap_free(&e->deadlines);
    rows_settled(e, true);
    map_free(&e->rows_by_key);
    map_free(&e->stragglers);
    free(e->swept);
    dedupe_free(&e->dedupe);
    while (e->pending != NULL) {
        struct engine_turn *t = e->pending;
        e->pending = t->next;
        turn_free(t);
    }
    turn_free(e->turn);
    turn_free(e->spare);
    free(e);
    *out = NULL;
}

void engine_step(struct engine *e, struct engine_time time, const struct command *c) {
    CHECK(time.now_ms >= e->time.now_ms);
    e->time = time;
    switch (c->kind) {
    case COMMAND_PUBLISH: publish(e, c); break;
    case COMMAND_SUBSCRIPTION_CREATE: subscription_create(e, c); break;
    case COMMAND_SUBSCRIPTION_UPDATE: subscription_update(e, c); break;
    case COMMAND_SUBSCRIPTION_PAUSE: subscription_pause(e, c); break;
    case COMMAND_SUBSCRIPTION_SEEK: subscription_seek(e, c); break;
    case COMMAND_SUBSCRIPTION_DELETE: subscription_delete(e, c); break;
    case COMMAND_TASK_CREATE: task_create(e, c); break;
    case COMMAND_TASK_CANCEL: task_cancel(e, c); break;
    case COMMAND_CONFIG_PUT:
        batch_put(turn_batch(e), STORE_CONFIG, c->u.config.key,
                  record_config_encode(turn_arena(e), c->u.config.value));
        turn_effect(e, EFFECT_DONE, c->route)->u.done.created = true;
        break;
    case COMMAND_CONFIG_DELETE:
        batch_delete(turn_batch(e), STORE_CONFIG, c->u.config.key);
        turn_effect(e, EFFECT_DONE, c->route);
        break;
    case COMMAND_JOB_PUT: job_put(e, c); break;
    case COMMAND_ATTACH: attachment_attach(e, c); break;
    case COMMAND_WINDOW: attachment_window(e, c); break;
    case COMMAND_HOLD: attachment_hold(e, c); break;
    case COMMAND_DETACH: attachment_detach(e, c); break;
    case COMMAND_ACK:
    case COMMAND_NACK:
    case COMMAND_EXTEND: attachment_settle(e, c); break;
    }
}

/* What is left over is due at once in the next turn: a turn stays short even when 100,000 leases
 * run out together. */
#define DEADLINES_PER_TURN 8192
#define CLOCK_STEP_MS      1000 /* a smaller move of the wall clock makes a row late by so much */

static void fire(struct engine *e, struct deadline *t) {
    switch (t->kind) {
    case DEADLINE_DELIVERY: delivery_timer(e, CONTAINER_OF(t, struct delivery, timer)); break;
    case DEADLINE_ATTACHMENT:
        attachment_end(e, CONTAINER_OF(t, struct attachment, timer), DETACH_LOST);
        break;
    case DEADLINE_SUBSCRIPTION:
        heap_remove(&e->deadlines, &t->node);
        subscription_wake(e, CONTAINER_OF(t, struct subscription, timer));
        break;
    case DEADLINE_TASK: heap_remove(&e->deadlines, &t->node); break; /* tasks_run comes next */
    }
}

static void fire_deadlines(struct engine *e) {
    for (int fired = 0; fired < DEADLINES_PER_TURN; fired++) {
        struct heap_node *n = heap_min(&e->deadlines);
        if (n == NULL || n->at_ms > e->time.now_ms) return;
        fire(e, CONTAINER_OF(n, struct deadline, node));
    }
}

/* Due times on disk are of the wall clock, timers are not: when it was set, or the machine slept,
 * they are set anew. */
static void notice_clock(struct engine *e) {
    uint64_t offset_ms = e->time.wall_ms - e->time.now_ms;
    int64_t moved_ms = (int64_t)(offset_ms - e->clock_offset_ms);
    if (moved_ms > -CLOCK_STEP_MS && moved_ms < CLOCK_STEP_MS) return;
    e->clock_offset_ms = offset_ms;
    for (size_t i = 0; i < e->subs_count; i++) {
        subscription_wake(e, e->subs[i]);
        subscription_arm(e, e->subs[i]);
    }
}

struct engine_turn *engine_end_turn(struct engine *e, struct engine_time time) {
    CHECK(time.now_ms >= e->time.now_ms);
    e->time = time;
    notice_clock(e);
    fire_deadlines(e);
    if (time.now_ms >= e->lag_check_at_ms) cursors_check_lag(e);
    retention_run(e);
    jobs_run(e);
    tasks_run(e);
    sweep_run(e);
    pump(e);
    publish_end_turn(e);
    jobs_end_turn(e);
    cursors_flush(e);
    struct engine_turn *t = e->turn;
    if (t == NULL) return NULL;
    if (t->batch.len == 0 && t->effects_count == 0) {
        batch_reset(&t->batch); /* kept for the next turn, without the scratch of this one */
        return NULL;
    }
    e->turn = NULL;
    e->turn_number++;
    t->next = NULL;
    if (e->pending == NULL) e->pending = t;
    else e->pending_last->next = t;
    e->pending_last = t;
    return t;
}

void engine_durable(struct engine *e, struct engine_turn *t) {
    CHECK(e->pending == t);
    e->pending = t->next;
    t->next = NULL;
    e->turns_durable++;
    if (t->events->count > 0) {
        CHECK(t->events->first_seq == e->durable_seq + 1);
        e->durable_seq += t->events->count;
    }
    rows_settled(e, false);
    due_durable(e);
}

void engine_turn_done(struct engine *e, struct engine_turn *t) {
    batch_reset(&t->batch);
    t->effects_count = 0;
    t->events->count = 0;
    if (e->spare == NULL) e->spare = t;
    else turn_free(t);
}

uint64_t engine_next_deadline(const struct engine *e, struct engine_time time) {
    if (e->turn != NULL && (e->turn->batch.len > 0 || e->turn->effects_count > 0)) {
        return time.now_ms;
    }
    if (!list_empty(&e->runnable) || tasks_want_turn(e) || sweep_wants_turn(e)) return time.now_ms;
    uint64_t at_ms = e->flush_at_ms, retention_ms = retention_next_ms(e);
    if (retention_ms < at_ms) at_ms = retention_ms;
    uint64_t jobs_ms = jobs_next_ms(e, time);
    if (jobs_ms < at_ms) at_ms = jobs_ms;
    const struct heap_node *n = heap_min(&e->deadlines);
    if (n != NULL && n->at_ms < at_ms) at_ms = n->at_ms;
    return at_ms;
}

void engine_set_room(struct engine *e, bool room) {
    e->room = room;
}

void engine_set_retention(struct engine *e, const struct retention *r) {
    e->retention = *r;
    e->retention_at_ms = e->dead_place_at_ms = e->time.now_ms;
    if (r->max_bytes == 0) e->blocked_by[0] = 0;
}
