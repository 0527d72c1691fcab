/* /v1/replays: the tasks of all subscriptions, whoever made them. */
#include <inttypes.h>
#include <stdio.h>

#include "broker/admin/access.h"
#include "broker/admin/query.h"

#define TOKEN_LETTER 'r'

static const char *const none[] = {NULL};

/* How much of its range it has read, in thousandths: not 1000 before all of it is. */
static uint32_t progress_permille(const struct task_info *t) {
    if (t->finished_at_ms != 0 && !t->cancelled) return 1000;
    if (t->next > t->to) return 1000;
    if (t->next <= t->from) return 0;
    double part = (double)(t->next - t->from) / (double)(t->to - t->from + 1) * 1000.0;
    return part < 1000.0 ? (uint32_t)part : 999;
}

static const char *state_name(const struct task_info *t) {
    if (t->cancelled) return "cancelled";
    return t->finished_at_ms == 0 ? "running" : "finished";
}

static void put_task(struct buf *b, const struct task_info *t) {
    put_u64(b, "id", t->id);
    put_text(b, "kind", slice_str(task_kind_name(t->kind)));
    put_text_unless_empty(b, "subscription", t->subscription);
    put_text(b, "state", slice_str(state_name(t)));
    put_u64(b, "from_seq", t->from);
    put_u64(b, "to_seq", t->to);
    put_u64(b, "next", t->next);
    put_permille(b, "progress", progress_permille(t));
    put_u64(b, "matched", t->matched);
    if (t->kind == TASK_REPLAY) {
        put_u64(b, "outstanding", t->outstanding);
        put_u64(b, "acked", t->acked_total);
    }
    put_u64(b, "expired", t->expired);
    put_key(b, "filter");
    buf_append_slice(b, t->filter.len == 0 ? slice_str("{}") : t->filter);
    put_u64(b, "rate", t->rate_per_s);
    put_time(b, "create_time", t->created_at_ms);
    if (t->finished_at_ms != 0) put_time(b, "finish_time", t->finished_at_ms);
}

/* ---- create ---- */

/* 0 says to the engine that no time was given. */
static bool read_time(const struct fields *o, const char *name, uint64_t *out, struct refusal *f) {
    if (!field_time(o, name, out, f)) return false;
    if (field_present(o, name) && *out == 0) *out = 1;
    return true;
}

static bool read_range(const struct fields *o, struct command *c, struct refusal *f) {
    bool seqs = field_present(o, "from_seq") || field_present(o, "to_seq");
    bool times = field_present(o, "since") || field_present(o, "until");
    if (seqs && times) {
        return refuse(f, ERR_INVALID_REQUEST,
                      "give from_seq and to_seq, or since and until, not of both");
    }
    if (!field_u64(o, "from_seq", 1, INT64_MAX, &c->u.task.from_seq, f) ||
        !field_u64(o, "to_seq", 1, INT64_MAX, &c->u.task.to_seq, f) ||
        !read_time(o, "since", &c->u.task.from_time_ms, f) ||
        !read_time(o, "until", &c->u.task.to_time_ms, f)) {
        return false;
    }
    if (!field_present(o, "from_seq") && !field_present(o, "since")) {
        return refuse(f, ERR_INVALID_REQUEST, "from_seq or since is required");
    }
    if (field_present(o, "to_seq") && c->u.task.to_seq < c->u.task.from_seq) {
        return refuse(f, ERR_INVALID_REQUEST, "to_seq must not be below from_seq");
    }
    if (field_present(o, "until") && c->u.task.to_time_ms < c->u.task.from_time_ms) {
        return refuse(f, ERR_INVALID_REQUEST, "until must not be before since");
    }
    return true;
}

static bool read_replay(const struct fields *o, struct command *c, struct refusal *f) {
    static const char *const known[] = {"subscription", "from_seq", "to_seq",  "since", "until",
                                        "filter",       "rate",     "dry_run", NULL};
    bool dry_run = false;
    uint64_t rate = 0;
    if (!fields_known(o, known, f) || !field_name(o, "subscription", &c->u.task.name, f) ||
        !read_range(o, c, f) || !field_json(o, "filter", &c->u.task.filter, f) ||
        !field_u64(o, "rate", 0, LIMIT_RATE_PER_S, &rate, f) ||
        !field_bool(o, "dry_run", &dry_run, f)) {
        return false;
    }
    /* So that the body of a replay can be tried first with dry_run added, its rate is let pass. */
    c->u.task.kind = dry_run ? TASK_COUNT : TASK_REPLAY;
    c->u.task.rate_per_s = dry_run ? 0 : (uint32_t)rate;
    return true;
}

static void answer_task(struct admin *a, uint64_t handle, uint64_t id, int status) {
    struct task_info info;
    if (!engine_task_get(a->options.engine, a->project, (uint32_t)id, &info)) {
        http_respond_error(*a->options.http, handle, ERR_DELETED,
                           "the task was forgotten in the same moment");
        return;
    }
    put_task(answer_begin(a), &info);
    answer_send(a, handle, status);
}

static void task_created(struct admin *a, const struct pending *p, const struct effect *effect) {
    if (effect->err != ERR_OK) answer_effect_error(a, effect);
    else answer_task(a, p->handle, effect->u.done.id, 201);
}

void task_step(struct admin *a, const struct http_request *r, struct command *command) {
    CHECK(command->kind == COMMAND_TASK_CREATE);
    pending_step(a, r, task_created, command->u.task.name, NULL, command);
}

void replays_create(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct command command = {.kind = COMMAND_TASK_CREATE};
    struct fields o = {.object = NULL};
    struct refusal f;
    if (query_known(r, none, &f) && fields_parse(r->body, &o, &f) &&
        read_replay(&o, &command, &f)) {
        task_step(a, r, &command);
    } else {
        answer_refusal(a, r->handle, &f);
    }
    fields_free(&o);
}

/* ---- the rest ---- */

/* False after an answer: a wrong query, or no such task. */
static bool find(struct admin *a, const struct http_request *r, struct slice name,
                 struct task_info *out) {
    struct refusal f;
    uint64_t id = 0;
    if (!query_known(r, none, &f)) {
        answer_refusal(a, r->handle, &f);
        return false;
    }
    bool is_id = slice_to_u64(name, &id);
    if (is_id && id <= UINT32_MAX &&
        engine_task_get(a->options.engine, a->project, (uint32_t)id, out)) {
        return true;
    }
    answer_not_found(a, r->handle, "replay", name,
                     is_id ? "it never was, or it ended long ago and is forgotten"
                           : "a replay is named by its id, a number");
    return false;
}

void replays_show(struct admin *a, const struct http_request *r, struct slice last) {
    struct task_info info;
    if (!find(a, r, last, &info)) return;
    put_task(answer_begin(a), &info);
    answer_send(a, r->handle, 200);
}

static void task_cancelled(struct admin *a, const struct pending *p, const struct effect *effect) {
    uint64_t id = 0;
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    bool is_id = slice_to_u64(slice_str(p->name), &id);
    CHECK(is_id); /* replays_cancel wrote it */
    answer_task(a, p->handle, id, 200);
}

void replays_cancel(struct admin *a, const struct http_request *r, struct slice last) {
    struct task_info info;
    struct refusal f;
    char id[16];
    if (!find(a, r, last, &info)) return;
    if (!query_no_body(r, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    struct command command = {.kind = COMMAND_TASK_CANCEL, .u.cancel = {.id = info.id}};
    snprintf(id, sizeof id, "%" PRIu32, info.id);
    pending_step(a, r, task_cancelled, slice_str(id), NULL, &command);
}

void replays_list(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct refusal f;
    struct list_page page;
    uint64_t after = 0;
    bool ok =
        query_list_page(r, TOKEN_LETTER, &page, &f) &&
        (!page.has_after || (slice_to_u64(slice_str(page.after), &after) && after <= UINT32_MAX) ||
         refuse_token(&f));
    if (!ok) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    struct buf *b = answer_begin(a);
    put_key(b, "replays");
    buf_append_byte(b, '[');
    struct task_info info;
    bool more = engine_task_next(a->options.engine, a->project, (uint32_t)after, &info);
    for (size_t i = 0; more && i < page.size && b->len < LIMIT_PAGE_BYTES;) {
        if (access_subscription(a, info.subscription)) {
            put_comma(b);
            buf_append_byte(b, '{');
            put_task(b, &info);
            put_close(b);
            i++;
        }
        after = info.id;
        more = engine_task_next(a->options.engine, a->project, (uint32_t)after, &info);
    }
    buf_append_byte(b, ']');
    if (more) {
        snprintf(page.after, sizeof page.after, "%" PRIu64, after);
        put_token(b, TOKEN_LETTER, page.after);
    }
    answer_send(a, r->handle, 200);
}
