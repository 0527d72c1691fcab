/* /v1/subscriptions. What changes one is a command; its answer is the subscription as it is then.
 */
#include "broker/admin/access.h"
#include "broker/admin/query.h"
#include "broker/fields/policy.h"

#define TOKEN_LETTER 'n'
#define CREATE_HINT  "create it with POST /v1/subscriptions or check the name"

static const char *const none[] = {NULL};

static void put_subscription(struct buf *b, const struct subscription_info *s) {
    put_text(b, "name", s->name);
    put_u64(b, "id", s->id);
    policy_put(b, &s->policy);
    put_time(b, "create_time", s->created_at_ms);
    put_bool(b, "paused", s->paused);
    put_u64(b, "floor", s->floor);
    put_u64(b, "next", s->next);
    put_u64(b, "backlog", s->backlog);
    put_u64(b, "ready", s->ready);
    put_u64(b, "leased", s->leased);
    put_u64(b, "delayed", s->delayed);
    put_u64(b, "blocked", s->blocked);
    put_u64(b, "attachments", s->attachments);
    put_u64(b, "replays", s->tasks);
    put_u64(b, "dead", s->dead);
    put_u64(b, "oldest_ms", s->oldest_ms);
    put_real(b, "in_per_s", s->in_per_s, 1);
    put_real(b, "out_per_s", s->out_per_s, 1);
    put_u64(b, "acked", s->acked_total);
    put_u64(b, "dead_total", s->dead_total);
    put_u64(b, "expired", s->expired_total);
    put_text(b, "why_idle", slice_str(why_idle_name(s->why_idle)));
}

/* Answers with the subscription that a command has made or changed. */
static void answer_subscription(struct admin *a, const struct pending *p,
                                const struct effect *effect, int status) {
    struct subscription_info info;
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    /* A delete that came in the same turn has already taken it away. */
    if (!engine_subscription_get(a->options.engine, a->project, slice_str(p->name), &info)) {
        http_respond_error(*a->options.http, p->handle, ERR_DELETED,
                           "the subscription was deleted in the same moment");
        return;
    }
    put_subscription(answer_begin(a), &info);
    answer_send(a, p->handle, status);
}

/* ---- create ---- */

/* A subscription of a webhook is only read here: it is changed with its webhook. */
static bool is_ours(struct slice name, struct refusal *f) {
    if (!slice_starts_with(name, WEBHOOK_SUBSCRIPTION_PREFIX)) return true;
    return refuse(f, ERR_INVALID_REQUEST,
                  "subscription \"%.*s\" belongs to a webhook: use /v1/webhooks", SLICE_ARG(name));
}

static bool read_subscription(struct admin *a, const struct fields *o, struct command *c,
                              struct refusal *f) {
    static const char *const more[] = {"name", "start", NULL};
    c->u.create.policy = policy_default();
    c->u.create.start = START_NEW;
    return fields_known_in(o, policy_field_names, more, f) &&
           field_name(o, "name", &c->u.create.name, f) && is_ours(c->u.create.name, f) &&
           policy_read_fields(o, &a->arena, &c->u.create.policy, f) &&
           policy_read_start(o, "start", &c->u.create.start, &c->u.create.start_value, f);
}

static void subscription_created(struct admin *a, const struct pending *p,
                                 const struct effect *effect) {
    answer_subscription(a, p, effect, effect->u.done.created ? 201 : 200);
}

void subscriptions_create(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct command command = {.kind = COMMAND_SUBSCRIPTION_CREATE};
    struct fields o = {.object = NULL};
    struct refusal f;
    if (query_known(r, none, &f) && fields_parse(r->body, &o, &f) &&
        read_subscription(a, &o, &command, &f)) {
        pending_step(a, r, subscription_created, command.u.create.name, NULL, &command);
    } else {
        answer_refusal(a, r->handle, &f);
    }
    fields_free(&o);
}

/* ---- change ---- */

/* False after an answer: a wrong query, or no such subscription. */
static bool find(struct admin *a, const struct http_request *r, struct slice name,
                 struct subscription_info *out) {
    struct refusal f;
    if (!query_known(r, none, &f)) {
        answer_refusal(a, r->handle, &f);
        return false;
    }
    if (engine_subscription_get(a->options.engine, a->project, name, out)) return true;
    answer_not_found(a, r->handle, "subscription", name, CREATE_HINT);
    return false;
}

/* The same for a change: also false when it belongs to a webhook. */
static bool find_to_change(struct admin *a, const struct http_request *r, struct slice name,
                           struct subscription_info *out) {
    struct refusal f;
    if (!find(a, r, name, out)) return false;
    if (is_ours(name, &f)) return true;
    answer_refusal(a, r->handle, &f);
    return false;
}

static void subscription_changed(struct admin *a, const struct pending *p,
                                 const struct effect *effect) {
    answer_subscription(a, p, effect, 200);
}

/* The engine replaces its policy by the one of the command, which must not point into the old. */
static struct policy copy_policy(struct arena *arena, const struct policy *from) {
    struct policy p = *from;
    p.filter = arena_copy(arena, from->filter);
    p.order_key = arena_copy(arena, from->order_key);
    if (from->backoff_list_count > 0) {
        size_t bytes = from->backoff_list_count * sizeof *from->backoff_list_ms;
        uint64_t *list = arena_alloc(arena, bytes);
        memcpy(list, from->backoff_list_ms, bytes);
        p.backoff_list_ms = list;
    }
    return p;
}

void subscriptions_update(struct admin *a, const struct http_request *r, struct slice last) {
    struct subscription_info info;
    struct fields o = {.object = NULL};
    struct refusal f;
    if (!find_to_change(a, r, last, &info)) return;
    struct command command = {.kind = COMMAND_SUBSCRIPTION_UPDATE, .u.update = {.name = last}};
    command.u.update.policy = copy_policy(&a->arena, &info.policy);
    if (fields_parse(r->body, &o, &f) && fields_known(&o, policy_field_names, &f) &&
        policy_read_fields(&o, &a->arena, &command.u.update.policy, &f)) {
        pending_step(a, r, subscription_changed, last, NULL, &command);
    } else {
        answer_refusal(a, r->handle, &f);
    }
    fields_free(&o);
}

static void set_paused(struct admin *a, const struct http_request *r, struct slice name,
                       bool paused) {
    struct subscription_info info;
    struct refusal f;
    if (!find_to_change(a, r, name, &info)) return;
    if (!query_no_body(r, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    struct command command = {.kind = COMMAND_SUBSCRIPTION_PAUSE,
                              .u.pause = {.name = name, .paused = paused}};
    pending_step(a, r, subscription_changed, name, NULL, &command);
}

void subscriptions_pause(struct admin *a, const struct http_request *r, struct slice last) {
    set_paused(a, r, last, true);
}

void subscriptions_resume(struct admin *a, const struct http_request *r, struct slice last) {
    set_paused(a, r, last, false);
}

void subscriptions_seek(struct admin *a, const struct http_request *r, struct slice last) {
    static const char *const known[] = {"to", NULL};
    struct subscription_info info;
    struct fields o = {.object = NULL};
    struct refusal f;
    if (!find_to_change(a, r, last, &info)) return;
    struct command command = {.kind = COMMAND_SUBSCRIPTION_SEEK, .u.seek = {.name = last}};
    if (fields_parse(r->body, &o, &f) && fields_known(&o, known, &f) &&
        field_required(&o, "to", &f) &&
        policy_read_start(&o, "to", &command.u.seek.start, &command.u.seek.start_value, &f)) {
        pending_step(a, r, subscription_changed, last, NULL, &command);
    } else {
        answer_refusal(a, r->handle, &f);
    }
    fields_free(&o);
}

static void subscription_deleted(struct admin *a, const struct pending *p,
                                 const struct effect *effect) {
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    answer_begin(a);
    answer_send(a, p->handle, 200);
}

void subscriptions_delete(struct admin *a, const struct http_request *r, struct slice last) {
    struct subscription_info info;
    if (!find_to_change(a, r, last, &info)) return;
    struct command command = {.kind = COMMAND_SUBSCRIPTION_DELETE, .u.delete = {.name = last}};
    pending_step(a, r, subscription_deleted, last, NULL, &command);
}

/* ---- show ---- */

void subscriptions_show(struct admin *a, const struct http_request *r, struct slice last) {
    struct subscription_info info;
    if (!find(a, r, last, &info)) return;
    put_subscription(answer_begin(a), &info);
    answer_send(a, r->handle, 200);
}

void subscriptions_list(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct refusal f;
    struct list_page page;
    if (!query_list_page(r, TOKEN_LETTER, &page, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    struct buf *b = answer_begin(a);
    put_key(b, "subscriptions");
    buf_append_byte(b, '[');
    struct subscription_info info;
    char shown[LIMIT_NAME_BYTES + 1] = "";
    bool more =
        engine_subscription_next(a->options.engine, a->project, slice_str(page.after), &info);
    for (size_t i = 0; more && i < page.size && b->len < LIMIT_PAGE_BYTES;) {
        if (access_subscription(a, info.name)) {
            put_comma(b);
            buf_append_byte(b, '{');
            put_subscription(b, &info);
            put_close(b);
            i++;
        }
        bool fits = slice_to_cstr(info.name, shown, sizeof shown);
        CHECK(fits);
        more = engine_subscription_next(a->options.engine, a->project, slice_str(shown), &info);
    }
    buf_append_byte(b, ']');
    if (more) put_token(b, TOKEN_LETTER, shown);
    answer_send(a, r->handle, 200);
}
