/* What operators do: subscriptions, tasks, retention, config. */
#include <stdio.h>

#include "tests/sim/sim.h"

void operator_policy(struct run *r, struct drawn_policy *d) {
    struct policy p = policy_default();
    p.lease_ms = 100 + run_below(r, 400);
    if (run_one_in(r, 2)) p.max_hold_ms = p.lease_ms + run_below(r, 1500);
    if (run_one_in(r, 4)) p.max_age_ms = 1 + run_below(r, run_one_in(r, 2) ? 3000 : HOUR_MS);
    p.max_fails = (uint32_t)run_below(r, 6);
    p.backoff_min_ms = run_below(r, 50);
    p.backoff_max_ms = 50 + run_below(r, run_one_in(r, 3) ? 3 * MINUTE_MS : 500);
    p.backoff_factor_permille = 1000 + (uint32_t)run_below(r, 9000);
    p.backoff_jitter_permille = (uint32_t)run_below(r, 1001);
    if (run_one_in(r, 3)) {
        p.backoff_list_count = 1 + (uint32_t)run_below(r, 4);
        p.backoff_list_ms = d->list_ms;
        for (uint32_t i = 0; i < p.backoff_list_count; i++) {
            d->list_ms[i] = run_below(r, run_one_in(r, 4) ? HOUR_MS : 300);
        }
    }
    if (run_one_in(r, 4)) p.rate_per_s = 1 + (uint32_t)run_below(r, run_one_in(r, 2) ? 20 : 2000);
    p.lag = run_one_in(r, 2) ? LAG_EXPIRE : LAG_BLOCK;
    d->order = run_one_in(r, 2) ? ORDER_NONE : 1 + (enum order)run_below(r, 2);
    p.ordered = d->order != ORDER_NONE;
    if (d->order == ORDER_METADATA) p.order_key = slice_str("g");
    d->filter = run_one_in(r, 2) ? 0 : (int)run_below(r, FILTERS);
    p.filter = slice_str(fact_filters[d->filter]);
    d->policy = p;
}

static uint64_t cursor_at(struct run *r, int sub) {
    const struct subscription *s = oracle_sub(&r->o, sub);
    return s == NULL ? 0 : cursor_next(r->o.w.engine, &s->live);
}

void operator_create(struct run *r, int sub, enum start_kind start) {
    struct drawn_policy d;
    struct command c = oracle_command(&r->o, COMMAND_SUBSCRIPTION_CREATE, sub);
    operator_policy(r, &d);
    c.u.create.name = slice_str(r->o.slots[sub].name);
    c.u.create.policy = d.policy;
    c.u.create.start = start;
    struct asked *a = oracle_ask(&r->o, &c, sub);
    a->filter = d.filter;
    a->order = d.order;
    a->expire = d.policy.lag == LAG_EXPIRE;
    a->max_fails = d.policy.max_fails;
    a->max_age_ms = d.policy.max_age_ms;
    oracle_step(&r->o, &c);
    const struct subscription *s = oracle_sub(&r->o, sub);
    CHECK(s != NULL);
    a->id = s->id;
    a->seq = cursor_at(r, sub);
    run_say(r, "create %s at %llu: order %d, lag %s, lease %llu, max_fails %u, filter %s",
            r->o.slots[sub].label, (unsigned long long)a->seq, d.order,
            a->expire ? "expire" : "block", (unsigned long long)d.policy.lease_ms, a->max_fails,
            fact_filters[d.filter]);
}

/* What the policy borrows of the engine's own goes while it is set. */
struct kept_texts {
    char key[8], filter[256];
    uint64_t list_ms[4];
};

static void keep_texts(struct policy *p, struct kept_texts *t) {
    bool fits = slice_to_cstr(p->order_key, t->key, sizeof t->key) &&
                slice_to_cstr(p->filter, t->filter, sizeof t->filter);
    CHECK(fits && p->backoff_list_count <= 4);
    p->order_key = slice_str(t->key);
    p->filter = slice_str(t->filter);
    for (uint32_t i = 0; i < p->backoff_list_count; i++) t->list_ms[i] = p->backoff_list_ms[i];
    p->backoff_list_ms = t->list_ms;
}

static void update(struct run *r, int sub, bool calm) {
    struct drawn_policy d;
    struct kept_texts texts;
    struct command c = oracle_command(&r->o, COMMAND_SUBSCRIPTION_UPDATE, sub);
    const struct subscription *s = oracle_sub(&r->o, sub);
    operator_policy(r, &d);
    if (s == NULL) return;
    bool other_filter = !calm && run_one_in(r, 3), other_order = !calm && run_one_in(r, 3);
    c.u.update.name = slice_str(r->o.slots[sub].name);
    struct policy *p = &c.u.update.policy;
    *p = calm ? s->policy : d.policy;
    p->rate_per_s = calm ? 0 : p->rate_per_s;
    int filter = d.filter;
    if (!other_filter) {
        p->filter = s->policy.filter;
        for (filter = FILTERS - 1; filter > 0; filter--) {
            if (slice_eq_str(p->filter, fact_filters[filter])) break;
        }
    }
    if (!other_order) {
        p->ordered = s->policy.ordered;
        p->order_key = s->policy.order_key;
    }
    struct asked *a = oracle_ask(&r->o, &c, sub);
    a->filter = filter;
    a->order = !p->ordered ? ORDER_NONE : p->order_key.len > 0 ? ORDER_METADATA : ORDER_SUBJECT;
    a->expire = p->lag == LAG_EXPIRE;
    a->max_fails = p->max_fails;
    a->max_age_ms = p->max_age_ms;
    keep_texts(p, &texts);
    run_say(r, "update %s: order %d, lag %s, max_fails %u, rate %u, filter %s",
            r->o.slots[sub].label, a->order, a->expire ? "expire" : "block", p->max_fails,
            p->rate_per_s, texts.filter);
    oracle_step(&r->o, &c);
}

void operator_calm(struct run *r, int sub) {
    update(r, sub, true);
}

void operator_pause(struct run *r, int sub, bool paused) {
    struct command c = oracle_command(&r->o, COMMAND_SUBSCRIPTION_PAUSE, sub);
    c.u.pause.name = slice_str(r->o.slots[sub].name);
    c.u.pause.paused = paused;
    c.u.pause.ages = run_one_in(r, 2);
    struct asked *a = oracle_ask(&r->o, &c, sub);
    a->flag = paused;
    a->wall_ms = c.u.pause.ages ? 0 : r->o.w.time.wall_ms;
    run_say(r, "%s %s%s", paused ? "pause" : "unpause", r->o.slots[sub].label,
            c.u.pause.ages ? ", which ages" : "");
    oracle_step(&r->o, &c);
}

static uint64_t any_time(struct run *r) {
    uint64_t back_ms = run_below(r, run_one_in(r, 2) ? 5000 : HOUR_MS);
    return r->o.w.time.wall_ms - back_ms;
}

static void seek(struct run *r, int sub) {
    struct command c = oracle_command(&r->o, COMMAND_SUBSCRIPTION_SEEK, sub);
    c.u.seek.name = slice_str(r->o.slots[sub].name);
    c.u.seek.start = (enum start_kind)run_below(r, 4);
    c.u.seek.start_value =
        c.u.seek.start == START_TIME ? any_time(r) : run_below(r, r->o.last_seq + 3);
    struct asked *a = oracle_ask(&r->o, &c, sub);
    oracle_seek(&r->o, &c, a);
    a->seq = cursor_at(r, sub);
    run_say(r, "seek %s, which is at %llu then", r->o.slots[sub].label, (unsigned long long)a->seq);
}

static void delete (struct run *r, int sub) {
    struct command c = oracle_command(&r->o, COMMAND_SUBSCRIPTION_DELETE, sub);
    c.u.delete.name = slice_str(r->o.slots[sub].name);
    oracle_ask(&r->o, &c, sub);
    run_say(r, "delete %s", r->o.slots[sub].label);
    oracle_step(&r->o, &c);
}

static void task(struct run *r, int sub) {
    struct command c = oracle_command(&r->o, COMMAND_TASK_CREATE, sub);
    c.u.task.kind = (enum task_kind)run_below(r, 4);
    c.u.task.name = slice_str(r->o.slots[sub].name);
    int filter = run_one_in(r, 2) ? 0 : (int)run_below(r, FILTERS);
    c.u.task.filter = slice_str(fact_filters[filter]);
    if (run_one_in(r, 3)) c.u.task.rate_per_s = 1 + (uint32_t)run_below(r, 100);
    if (run_one_in(r, 4)) c.u.task.from_time_ms = any_time(r);
    else if (run_one_in(r, 2)) c.u.task.from_seq = run_below(r, r->o.last_seq + 2);
    if (c.u.task.from_time_ms == 0 && run_one_in(r, 3)) {
        c.u.task.to_seq = c.u.task.from_seq + run_below(r, 20);
    }
    struct asked *a = oracle_ask(&r->o, &c, sub);
    a->task = c.u.task.kind;
    a->wall_ms = c.u.task.from_time_ms;
    a->filter = filter;
    if (c.u.task.kind == TASK_REPLAY) issue_replay(&r->o, sub);
    run_say(r, "%s %s from %llu to %llu, since %llu, rate %u, filter %s",
            task_kind_name(c.u.task.kind), r->o.slots[sub].label,
            (unsigned long long)c.u.task.from_seq, (unsigned long long)c.u.task.to_seq,
            (unsigned long long)c.u.task.from_time_ms, c.u.task.rate_per_s, fact_filters[filter]);
    oracle_step(&r->o, &c);
}

/* Another project's is not there. */
static enum err cancel_err(const struct engine *e, const struct command *c) {
    for (size_t i = 0; i < e->tasks_count; i++) {
        const struct task *t = e->tasks[i];
        if (t->id != c->u.cancel.id || t->project->id != c->project) continue;
        return t->finished_at_ms != 0 || t->cancelled ? ERR_NOT_RUNNING : ERR_OK;
    }
    return ERR_NOT_FOUND;
}

static void cancel(struct run *r) {
    int project = run_project(r);
    struct command c = {.kind = COMMAND_TASK_CANCEL, .project = project_ids[project]};
    c.u.cancel.id = 1 + (uint32_t)run_below(r, r->o.w.engine->next_id);
    struct asked *a = oracle_ask(&r->o, &c, -1);
    a->err = cancel_err(r->o.w.engine, &c);
    a->err_known = true;
    run_say(r, "cancel task %u, as %d", c.u.cancel.id, project + 1);
    oracle_step(&r->o, &c);
}

static void config(struct run *r) {
    char text[24];
    bool put = !run_one_in(r, 4);
    struct command c = {.kind = put ? COMMAND_CONFIG_PUT : COMMAND_CONFIG_DELETE};
    snprintf(text, sizeof text, "%u", r->step);
    c.u.config.key = slice_str("sim/value");
    c.u.config.value = slice_str(text);
    oracle_ask(&r->o, &c, -1)->seq = r->step;
    run_say(r, "config %s %s", put ? "put" : "delete", text);
    oracle_step(&r->o, &c);
}

static void job(struct run *r) {
    int project = run_project(r);
    struct command c = {.kind = COMMAND_JOB_PUT, .project = project_ids[project]};
    int k = 1 + (int)run_below(r, KEYS - 1), config = (int)run_below(r, JOB_CONFIGS);
    uint64_t ttl_ms = 1 + run_below(r, run_one_in(r, 2) ? 2000 : 30000);
    if (r->temper.long_times && run_one_in(r, 3)) ttl_ms = 1 + run_below(r, 30 * DAY_MS);
    if (producer_full(r)) return;
    struct asked *a = oracle_ask(&r->o, &c, -1);
    c.u.job.ttl_ms = ttl_ms;
    run_say(r, "job %s of %d with config %d for %llu ms", fact_subjects[k], project + 1, config,
            (unsigned long long)ttl_ms);
    oracle_job_put(&r->o, &c, a, JOB_OF(project, k), config);
}

/* Asks for a subscription that is there, but not in this project: whatever it is, there is no such
 * thing. */
static void stranger(struct run *r, int sub) {
    static const enum command_kind kinds[] = {
        COMMAND_SUBSCRIPTION_UPDATE, COMMAND_SUBSCRIPTION_PAUSE, COMMAND_SUBSCRIPTION_SEEK,
        COMMAND_SUBSCRIPTION_DELETE, COMMAND_TASK_CREATE,
    };
    struct slice name = slice_str(r->o.slots[sub].name);
    uint32_t project = project_ids[run_below(r, PROJECTS)];
    struct command c = {.kind = kinds[run_below(r, 5)], .project = project};
    if (oracle_find(&r->o, project, r->o.slots[sub].name) != NULL) return;
    switch (c.kind) {
    case COMMAND_SUBSCRIPTION_UPDATE:
        c.u.update.name = name;
        c.u.update.policy = policy_default();
        break;
    case COMMAND_SUBSCRIPTION_PAUSE:
        c.u.pause.name = name;
        c.u.pause.paused = true;
        break;
    case COMMAND_SUBSCRIPTION_SEEK: c.u.seek.name = name; break;
    case COMMAND_SUBSCRIPTION_DELETE: c.u.delete.name = name; break;
    default: c.u.task.name = name; break;
    }
    struct asked *a = oracle_ask(&r->o, &c, -1);
    a->err = ERR_NOT_FOUND;
    a->err_known = true;
    run_say(r, "a stranger names %s", r->o.slots[sub].label);
    oracle_step(&r->o, &c);
}

void operator_retain(struct run *r, bool on) {
    struct retention *v = &r->retention;
    *v = (struct retention){0};
    if (on && run_one_in(r, 2)) v->max_bytes = 300 + run_below(r, 20000);
    if (on && run_one_in(r, 2)) {
        v->max_age_ms = 100 + run_below(r, run_one_in(r, 2) ? 5000 : HOUR_MS);
    }
    if (on && run_one_in(r, 2)) {
        v->dead_max_age_ms = 100 + run_below(r, run_one_in(r, 2) ? 5000 : HOUR_MS);
    }
    r->o.trims |= on;
    run_say(r, "retain %llu bytes, %llu ms, dead letters %llu ms", (unsigned long long)v->max_bytes,
            (unsigned long long)v->max_age_ms, (unsigned long long)v->dead_max_age_ms);
    engine_set_retention(r->o.w.engine, v);
}

void operator_step(struct run *r) {
    const struct temper *t = &r->temper;
    int sub = run_sub(r);
    if (t->jobs && run_one_in(r, 4)) {
        job(r);
        return;
    }
    switch (run_below(r, 12)) {
    case 0: operator_pause(r, sub, true); break;
    case 1:
    case 2: operator_pause(r, sub, false); break;
    case 3:
        if (t->seeks) seek(r, sub);
        break;
    case 4:
        if (t->updates) update(r, sub, false);
        break;
    case 5:
        if (t->retention) operator_retain(r, !run_one_in(r, 4));
        break;
    case 6:
        if (t->deletes && run_one_in(r, 3)) delete (r, sub);
        else operator_create(r, sub, run_one_in(r, 2) ? START_NEW : START_FIRST);
        break;
    case 7:
        if (t->tasks) cancel(r);
        break;
    case 8: config(r); break;
    case 9: stranger(r, sub); break;
    default:
        if (t->tasks) task(r, sub);
    }
}
