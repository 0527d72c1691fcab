/* Creating and changing a webhook. Everything is looked at before anything is stepped; then its
 * subscription and its entry in the registry are written in one turn. */
#include <stdio.h>

#include "broker/admin/webhooks.h"
#include "broker/engine/filter.h"

#define WHY_SIZE 256

static const char *const create_names[] = {
    "name",   "uri",        "subscribed_events", "description", "headers",
    "filter", "rate_per_s", "concurrency",       NULL,
};
static const char *const update_names[] = {
    "name",   "uri",        "subscribed_events", "description", "headers",
    "filter", "rate_per_s", "concurrency",       "state",       NULL,
};

/* ---- the fields ---- */

static bool read_text(const struct fields *o, const char *name, char **out, struct refusal *f) {
    struct slice text = slice_of(NULL, 0);
    if (!field_text(o, name, &text, f)) return false;
    if (text.len > LIMIT_WEBHOOK_TEXT_BYTES) {
        return refuse(f, ERR_INVALID_REQUEST, "%s must have at most %d bytes", name,
                      LIMIT_WEBHOOK_TEXT_BYTES);
    }
    if (field_present(o, name)) webhook_set_text(out, text);
    return true;
}

static bool read_uri(struct admin *a, const struct fields *o, struct webhook *w,
                     struct refusal *f) {
    struct slice uri = slice_of(NULL, 0);
    char why[WHY_SIZE];
    if (!field_present(o, "uri")) return true;
    if (!field_text(o, "uri", &uri, f)) return false;
    if (!guard_uri_ok(webhooks_guard(a->options.webhooks), uri, why, sizeof why)) {
        return refuse_value(f, uri, "uri", why);
    }
    webhook_set_text(&w->uri, uri);
    return true;
}

static bool read_types(struct admin *a, const struct fields *o, struct webhook *w,
                       struct refusal *f) {
    const struct slice *types = NULL;
    size_t count = 0;
    if (!field_present(o, "subscribed_events")) return true;
    /* Texts of any length: one that is too long, or empty, is refused as no type. */
    if (!field_texts(o, "subscribed_events", LIMIT_WEBHOOK_TYPES, SIZE_MAX, &a->arena, &types,
                     &count, f)) {
        return false;
    }
    if (count == 0) {
        return refuse(f, ERR_INVALID_REQUEST,
                      "subscribed_events must hold 1 to %d event types; \"*\" is every one",
                      LIMIT_WEBHOOK_TYPES);
    }
    for (size_t i = 0; i < count; i++) {
        char parameter[40];
        if (type_glob_ok(types[i])) continue;
        snprintf(parameter, sizeof parameter, "subscribed_events[%zu]", i);
        return refuse_value(f, types[i], parameter, type_glob_rule);
    }
    webhook_set_types(w, types, count);
    return true;
}

/* What the broker or HTTP itself says; the rest of a request is the caller's to add to. */
static bool is_reserved(const char *name) {
    static const char *const names[] = {
        "host", "content-length", "transfer-encoding", "connection", "content-type",
        "te",   "trailer",        "upgrade",           "expect",     "user-agent"};
    static const char *const prefixes[] = {"webhook-", "proxy-"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (slice_eq_nocase(slice_str(name), names[i])) return true;
    }
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        size_t len = strlen(prefixes[i]);
        if (strlen(name) >= len && slice_eq_nocase(slice_of(name, len), prefixes[i])) return true;
    }
    return false;
}

/* A token of RFC 9110, section 5.6.2. */
static bool is_token(const char *name) {
    for (const char *c = name; *c != '\0'; c++) {
        bool alnum =
            (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9');
        if (!alnum && strchr("!#$%&'*+-.^_`|~", *c) == NULL) return false;
    }
    return name[0] != '\0';
}

/* Printable ASCII without blanks around it. */
static bool is_header_value(struct slice value) {
    for (size_t i = 0; i < value.len; i++) {
        if (value.data[i] < ' ' || value.data[i] > '~') return false;
    }
    return value.len > 0 && value.data[0] != ' ' && value.data[value.len - 1] != ' ';
}

static const char *header_fault(const struct text_member *headers, size_t i) {
    const char *name = headers[i].name;
    if (!is_token(name)) return "is not the name of a header (RFC 9110: letters, digits and -)";
    if (strlen(name) > LIMIT_WEBHOOK_TEXT_BYTES) return "is longer than 1024 bytes";
    if (is_reserved(name)) return "is a header that the broker sets itself";
    for (size_t k = 0; k < i; k++) {
        if (slice_eq_nocase(slice_str(name), headers[k].name)) return "is there twice";
    }
    if (headers[i].value.len > LIMIT_WEBHOOK_TEXT_BYTES) return "has a value above 1024 bytes";
    if (is_header_value(headers[i].value)) return NULL;
    return "must have a value of printable ASCII without blanks around it";
}

static bool read_headers(struct admin *a, const struct fields *o, struct webhook *w,
                         struct refusal *f) {
    const struct text_member *headers = NULL;
    size_t count = 0;
    if (!field_present(o, "headers")) return true;
    if (!field_text_members(o, "headers", LIMIT_WEBHOOK_HEADERS, &a->arena, &headers, &count, f)) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const char *fault = header_fault(headers, i);
        if (fault == NULL) continue;
        return refuse(f, ERR_INVALID_REQUEST, "headers: '%.64s' %s", headers[i].name, fault);
    }
    webhook_set_headers(w, headers, count);
    return true;
}

/* Kept in the one form that answers show it in; none when it wants everything. */
static bool read_filter(const struct fields *o, struct webhook *w, struct refusal *f) {
    struct slice text = slice_of(NULL, 0);
    struct filter *filter = NULL;
    char why[WHY_SIZE];
    if (!field_present(o, "filter")) return true;
    if (!field_json(o, "filter", &text, f)) return false;
    enum err err = filter_compile(text, &filter, why, sizeof why);
    if (err != ERR_OK) return refuse(f, err, "%s", why);
    struct slice form = filter_text(filter);
    webhook_set_text(&w->filter, slice_eq_str(form, "{}") ? slice_of(NULL, 0) : form);
    filter_free(&filter);
    return true;
}

static bool read_number(const struct fields *o, const char *name, uint32_t min, uint32_t max,
                        uint32_t *out, struct refusal *f) {
    uint64_t n = *out;
    if (!field_u64(o, name, min, max, &n, f)) return false;
    *out = (uint32_t)n;
    return true;
}

static bool read_state(const struct fields *o, struct webhook *w, uint64_t wall_ms,
                       struct refusal *f) {
    struct slice name = slice_of(NULL, 0);
    enum webhook_state state;
    if (!field_present(o, "state")) return true;
    if (!field_text(o, "state", &name, f)) return false;
    if (!webhook_state_from_name(name, &state) ||
        state == WEBHOOK_DISABLED_DUE_TO_FAILED_DELIVERIES) {
        return refuse_value(f, name, "state", "it can be set to enabled or disabled");
    }
    if (state == w->state) return true;
    w->state = state;
    w->disabled_at_ms = state == WEBHOOK_ENABLED ? 0 : wall_ms;
    w->failing_since_ms = 0;
    webhook_set_text(&w->disabled_reason, slice_of(NULL, 0));
    return true;
}

static bool read_webhook(struct admin *a, const struct fields *o, struct webhook *w,
                         struct refusal *f) {
    bool ok = read_text(o, "name", &w->name, f) &&
              read_text(o, "description", &w->description, f) && read_uri(a, o, w, f) &&
              read_types(a, o, w, f) && read_headers(a, o, w, f) && read_filter(o, w, f) &&
              read_number(o, "rate_per_s", 0, LIMIT_RATE_PER_S, &w->rate_per_s, f) &&
              read_number(o, "concurrency", 1, LIMIT_WEBHOOK_CONCURRENCY, &w->concurrency, f);
    if (!ok) return false;
    size_t bytes = webhook_bytes(w);
    if (bytes <= WEBHOOK_BYTES_MAX) return true;
    return refuse(f, ERR_INVALID_REQUEST,
                  "the webhook is too large: its texts, event types, headers and filter together "
                  "have %zu bytes, at most %d are kept",
                  bytes, WEBHOOK_BYTES_MAX);
}

static bool read_policy(struct admin *a, const struct webhook *w, struct buf *filter,
                        struct policy *out, struct refusal *f) {
    char why[WHY_SIZE];
    if (!webhooks_policy(a->options.webhooks, w, filter, out, why, sizeof why)) {
        return refuse(f, ERR_BAD_FILTER, "%s", why);
    }
    enum err err = policy_check(out, why, sizeof why);
    return err == ERR_OK || refuse(f, err, "%s", why);
}

/* ---- effects ---- */

const struct webhook *webhook_changed(struct admin *a, const struct pending *p,
                                      const struct effect *effect) {
    struct registry *registry = webhooks_registry(a->options.webhooks);
    registry_refresh(registry, p->name);
    webhooks_refresh(a->options.webhooks, p->project, p->name);
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return NULL;
    }
    const struct webhook *w = registry_get(registry, p->project, slice_str(p->name));
    if (w == NULL) {
        http_respond_error(*a->options.http, p->handle, ERR_DELETED,
                           "the webhook was deleted in the same moment");
    }
    return w;
}

static void webhook_written(struct admin *a, const struct pending *p, const struct effect *effect) {
    const struct webhook *w = webhook_changed(a, p, effect);
    if (w == NULL) return;
    struct buf *b = answer_begin(a);
    webhook_put(a, b, w);
    put_text_unless_empty(b, "new_signing_secret", slice_str(p->secret));
    answer_send(a, p->handle, 200);
}

static void step_part(struct admin *a, const struct pending *p, struct command *command) {
    command->project = p->project;
    command->route = pending_part(a, p);
    engine_step(a->options.engine, admin_time(a), command);
}

bool webhook_stopped(const struct webhook *w) {
    return w->paused || w->state != WEBHOOK_ENABLED;
}

/* Takes w. */
static void step_create(struct admin *a, const struct http_request *r, struct webhook *w,
                        const struct policy *policy) {
    char name[LIMIT_NAME_BYTES + 1];
    webhook_subscription(w, name);
    const struct pending *p =
        pending_begin(a, r, webhook_written, slice_str(w->id), w->secrets[0].text);
    struct command create = {
        .kind = COMMAND_SUBSCRIPTION_CREATE,
        .u.create = {.name = slice_str(name), .policy = *policy, .start = START_NEW},
    };
    step_part(a, p, &create);
    registry_put(webhooks_registry(a->options.webhooks), admin_time(a), pending_last(a, p), w);
}

/* Takes w; `ages` as in COMMAND_SUBSCRIPTION_PAUSE. */
static void step_update(struct admin *a, const struct http_request *r, struct webhook *w,
                        const struct policy *policy, bool was_stopped, bool ages) {
    char name[LIMIT_NAME_BYTES + 1];
    webhook_subscription(w, name);
    const struct pending *p = pending_begin(a, r, webhook_written, slice_str(w->id), NULL);
    if (policy != NULL) {
        struct command update = {
            .kind = COMMAND_SUBSCRIPTION_UPDATE,
            .u.update = {.name = slice_str(name), .policy = *policy},
        };
        step_part(a, p, &update);
    }
    if (webhook_stopped(w) != was_stopped) {
        struct command pause = {
            .kind = COMMAND_SUBSCRIPTION_PAUSE,
            .u.pause = {.name = slice_str(name), .paused = !was_stopped, .ages = ages},
        };
        step_part(a, p, &pause);
    }
    registry_put(webhooks_registry(a->options.webhooks), admin_time(a), pending_last(a, p), w);
}

/* ---- create ---- */

static bool read_new(struct admin *a, const struct http_request *r, struct webhook *w,
                     struct buf *filter, struct policy *policy, struct refusal *f) {
    struct fields o = {.object = NULL};
    bool ok = fields_parse(r->body, &o, f) && parameters_known(&o, create_names, f) &&
              field_required(&o, "uri", f) && field_required(&o, "subscribed_events", f) &&
              read_webhook(a, &o, w, f) && read_policy(a, w, filter, policy, f);
    fields_free(&o);
    if (!ok) return false;
    if (registry_count_all(webhooks_registry(a->options.webhooks)) >= LIMIT_WEBHOOKS) {
        return refuse(f, ERR_LIMIT_EXCEEDED,
                      "there are %d webhooks, those of all projects: delete one that nobody needs",
                      LIMIT_WEBHOOKS);
    }
    /* Here, not in the effect: it is written in one turn with its subscription. */
    if (!engine_subscriptions_full(a->options.engine)) return true;
    return refuse(
        f, ERR_LIMIT_EXCEEDED,
        "there are as many subscriptions, those of all projects and of webhooks, as there "
        "may be: delete one that nobody needs");
}

void webhooks_create(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct webhook *w = webhook_new();
    struct policy policy;
    struct refusal f;
    struct buf filter;
    buf_init(&filter, 2 * LIMIT_FILTER_BYTES);
    webhook_make_id(w->id);
    w->project = a->project;
    w->created_at_ms = w->updated_at_ms = loop_wall_ms(a->options.loop);
    w->concurrency = WEBHOOK_CONCURRENCY_DEFAULT;
    webhook_rotate(w, w->created_at_ms, true);
    if (read_new(a, r, w, &filter, &policy, &f)) {
        step_create(a, r, w, &policy);
    } else {
        answer_refusal(a, r->handle, &f);
        webhook_free(&w);
    }
    buf_free(&filter);
}

/* ---- change ---- */

static bool read_change(struct admin *a, const struct fields *o, struct webhook *w,
                        struct buf *filter, struct policy *policy, struct refusal *f) {
    return read_state(o, w, w->updated_at_ms, f) && read_webhook(a, o, w, f) &&
           read_policy(a, w, filter, policy, f);
}

static void update(struct admin *a, const struct http_request *r, const struct webhook *old,
                   const struct fields *o) {
    struct webhook *w = webhook_copy(old);
    struct policy policy;
    struct refusal f;
    struct buf filter;
    buf_init(&filter, 2 * LIMIT_FILTER_BYTES);
    w->updated_at_ms = loop_wall_ms(a->options.loop);
    if (read_change(a, o, w, &filter, &policy, &f)) {
        /* What waited for one that was disabled is as old as it is; a pause keeps it young. */
        step_update(a, r, w, &policy, webhook_stopped(old), true);
    } else {
        answer_refusal(a, r->handle, &f);
        webhook_free(&w);
    }
    buf_free(&filter);
}

void webhooks_update(struct admin *a, const struct http_request *r, struct slice last) {
    const struct webhook *old = webhook_find(a, r, last);
    struct fields o = {.object = NULL};
    struct refusal f;
    if (old == NULL) return;
    if (!fields_parse(r->body, &o, &f) || !parameters_known(&o, update_names, &f)) {
        answer_refusal(a, r->handle, &f);
    } else if (json_object_size(o.object) == 0) {
        webhooks_show(a, r, last);
    } else {
        update(a, r, old, &o);
    }
    fields_free(&o);
}

/* ---- pause and resume ---- */

static void set_paused(struct admin *a, const struct http_request *r, struct slice id,
                       bool paused) {
    const struct webhook *old = webhook_find(a, r, id);
    struct refusal f;
    if (old == NULL) return;
    if (!parameters_none(r, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    struct webhook *w = webhook_copy(old);
    w->paused = paused;
    w->updated_at_ms = loop_wall_ms(a->options.loop);
    step_update(a, r, w, NULL, webhook_stopped(old), false);
}

void webhooks_pause(struct admin *a, const struct http_request *r, struct slice last) {
    set_paused(a, r, last, true);
}

void webhooks_resume(struct admin *a, const struct http_request *r, struct slice last) {
    set_paused(a, r, last, false);
}
