/* /v1/subscriptions. */
#include <stdio.h>

#include "broker/admin/fields.h"
#include "broker/admin/query.h"

#define TOKEN_LETTER 'n'
#define CREATE_HINT  "create it with POST /v1/subscriptions or check the name"

static void put_list(struct buf *b, const char *name, const struct slice *texts, size_t count) {
    if (count == 0) return;
    put_key(b, name);
    buf_append_byte(b, '[');
    for (size_t i = 0; i < count; i++) {
        put_comma(b);
        buf_append_json_string(b, texts[i]);
    }
    buf_append_byte(b, ']');
}

static void put_policy(struct buf *b, const struct policy *p) {
    put_key(b, "filter");
    buf_append_byte(b, '{');
    put_list(b, "types", p->filter.types, p->filter.types_count);
    put_list(b, "sources", p->filter.sources, p->filter.sources_count);
    buf_append_byte(b, '}');
    put_u64(b, "lease_ms", p->lease_ms);
    put_u64(b, "max_fails", p->max_fails);
    put_key(b, "backoff");
    buf_append_byte(b, '{');
    put_u64(b, "min_ms", p->backoff_min_ms);
    put_u64(b, "max_ms", p->backoff_max_ms);
    put_key(b, "factor");
    buf_printf(b, "%g", (double)p->backoff_factor_permille / 1000.0);
    buf_append_byte(b, '}');
}

static void put_subscription(struct buf *b, const struct subscription_info *s) {
    put_text(b, "name", s->name);
    put_u64(b, "id", s->id);
    put_policy(b, &s->policy);
    put_time(b, "create_time", s->created_at_ms);
    put_u64(b, "floor", s->floor);
    put_u64(b, "next", s->next);
    put_u64(b, "backlog", s->backlog);
    put_u64(b, "ready", s->ready);
    put_u64(b, "leased", s->leased);
    put_u64(b, "delayed", s->delayed);
    put_u64(b, "attachments", s->attachments);
    put_u64(b, "replays", s->replays);
    put_u64(b, "acked", s->acked_total);
    put_u64(b, "dead", s->dead_total);
    put_text(b, "why_idle", slice_str(why_idle_name(s->why_idle)));
}

/* ---- create ---- */

static bool read_filter(struct admin *a, const struct fields *o, struct filter *out,
                        struct refusal *f) {
    static const char *const known[] = {"types", "sources", NULL};
    struct fields filter;
    size_t types = 0, sources = 0;
    if (!field_object(o, "filter", "filter.", &filter, f)) return false;
    if (filter.object == NULL) return true;
    if (!fields_known(&filter, known, f) ||
        !field_texts(&filter, "types", LIMIT_FILTER_PATTERNS, LIMIT_EVENT_TYPE_BYTES, &a->arena,
                     &out->types, &types, f) ||
        !field_texts(&filter, "sources", LIMIT_FILTER_PATTERNS, LIMIT_NAME_BYTES, &a->arena,
                     &out->sources, &sources, f)) {
        return false;
    }
    for (size_t i = 0; i < sources; i++) {
        if (name_ok(out->sources[i])) continue;
        return refuse(f, ERR_INVALID_REQUEST, "filter.sources[%zu] is not the name of a source", i);
    }
    out->types_count = (uint32_t)types;
    out->sources_count = (uint32_t)sources;
    return true;
}

static bool read_backoff(const struct fields *o, struct policy *p, struct refusal *f) {
    static const char *const known[] = {"min_ms", "max_ms", "factor", NULL};
    struct fields backoff;
    double factor = (double)p->backoff_factor_permille / 1000.0;
    if (!field_object(o, "backoff", "backoff.", &backoff, f)) return false;
    if (backoff.object == NULL) return true;
    if (!fields_known(&backoff, known, f) ||
        !field_u64(&backoff, "min_ms", 0, LIMIT_BACKOFF_MS_MAX, &p->backoff_min_ms, f) ||
        !field_u64(&backoff, "max_ms", 0, LIMIT_BACKOFF_MS_MAX, &p->backoff_max_ms, f) ||
        !field_real(&backoff, "factor", 1, 100, &factor, f)) {
        return false;
    }
    p->backoff_factor_permille = (uint32_t)(factor * 1000.0 + 0.5);
    return true;
}

static bool read_start(const struct fields *o, struct command *c, struct refusal *f) {
    static const char *const known[] = {"seq", "time", NULL};
    struct fields start = {.object = json_object_get(o->object, "start"), .path = "start."};
    const char *word = json_string_value(start.object);
    c->u.create.start = START_NEW;
    if (start.object == NULL || (word != NULL && strcmp(word, "new") == 0)) return true;
    if (word != NULL && strcmp(word, "first") == 0) {
        c->u.create.start = START_FIRST;
        return true;
    }
    if (json_is_object(start.object)) {
        bool seq = field_present(&start, "seq"), time = field_present(&start, "time");
        if (!fields_known(&start, known, f) ||
            !field_u64(&start, "seq", 1, INT64_MAX, &c->u.create.start_value, f) ||
            !field_time(&start, "time", &c->u.create.start_value, f)) {
            return false;
        }
        c->u.create.start = seq ? START_SEQ : START_TIME;
        if (seq != time) return true;
    }
    return refuse(f, ERR_INVALID_REQUEST,
                  "start must be \"new\", \"first\", {\"seq\":17} or "
                  "{\"time\":\"2026-11-21T09:00:00Z\"}");
}

static bool read_subscription(struct admin *a, const struct fields *o, struct command *c,
                              struct refusal *f) {
    static const char *const known[] = {"name",    "filter", "lease_ms", "max_fails",
                                        "backoff", "start",  NULL};
    struct policy *p = &c->u.create.policy;
    const char *why = NULL;
    *p = policy_default();
    uint64_t max_fails = p->max_fails;
    if (!fields_known(o, known, f) || !field_name(o, "name", &c->u.create.name, f) ||
        !read_filter(a, o, &p->filter, f) ||
        !field_u64(o, "lease_ms", LIMIT_LEASE_MS_MIN, LIMIT_LEASE_MS_MAX, &p->lease_ms, f) ||
        !field_u64(o, "max_fails", 0, LIMIT_FAILS_MAX, &max_fails, f) || !read_backoff(o, p, f) ||
        !read_start(o, c, f)) {
        return false;
    }
    p->max_fails = (uint32_t)max_fails;
    return policy_check(p, &why) == ERR_OK || refuse(f, ERR_INVALID_REQUEST, "%s", why);
}

static void subscription_created(struct admin *a, const struct pending *p,
                                 const struct effect *effect) {
    struct subscription_info info;
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    /* A delete that came in the same turn has already taken it away. */
    if (!engine_subscription_get(a->options.engine, slice_str(p->name), &info)) {
        http_respond_error(*a->options.http, p->handle, ERR_DELETED,
                           "the subscription was created and deleted at once");
        return;
    }
    put_subscription(answer_begin(a), &info);
    answer_send(a, p->handle, effect->u.done.created ? 201 : 200);
}

void subscriptions_create(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    static const char *const none[] = {NULL};
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

/* ---- the rest ---- */

static bool find(struct admin *a, const struct http_request *r, struct slice name,
                 struct subscription_info *out) {
    static const char *const none[] = {NULL};
    struct refusal f;
    if (!query_known(r, none, &f)) {
        answer_refusal(a, r->handle, &f);
        return false;
    }
    if (engine_subscription_get(a->options.engine, name, out)) return true;
    answer_not_found(a, r->handle, "subscription", name, CREATE_HINT);
    return false;
}

void subscriptions_show(struct admin *a, const struct http_request *r, struct slice last) {
    struct subscription_info info;
    if (!find(a, r, last, &info)) return;
    put_subscription(answer_begin(a), &info);
    answer_send(a, r->handle, 200);
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
    if (!find(a, r, last, &info)) return;
    struct command command = {.kind = COMMAND_SUBSCRIPTION_DELETE, .u.delete = {.name = last}};
    pending_step(a, r, subscription_deleted, last, NULL, &command);
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
    bool more = engine_subscription_next(a->options.engine, slice_str(page.after), &info);
    for (size_t i = 0; more && i < page.size; i++) {
        put_comma(b);
        buf_append_byte(b, '{');
        put_subscription(b, &info);
        buf_append_byte(b, '}');
        bool fits = slice_to_cstr(info.name, shown, sizeof shown);
        CHECK(fits);
        more = engine_subscription_next(a->options.engine, slice_str(shown), &info);
    }
    buf_append_byte(b, ']');
    if (more) put_token(b, TOKEN_LETTER, shown);
    answer_send(a, r->handle, 200);
}
