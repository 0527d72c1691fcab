/* What is done with a webhook beside changing what it is. */
#include <inttypes.h>
#include <stdio.h>

#include "broker/admin/webhooks.h"
#include "broker/engine/filter.h"

/* ---- delete ---- */

static void webhook_deleted(struct admin *a, const struct pending *p, const struct effect *effect) {
    registry_refresh(webhooks_registry(a->options.webhooks), p->name);
    webhooks_refresh(a->options.webhooks, p->project, p->name);
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    answer_begin(a);
    answer_send(a, p->handle, 200);
}

void webhooks_delete(struct admin *a, const struct http_request *r, struct slice last) {
    const struct webhook *w = webhook_find(a, r, last);
    char name[LIMIT_NAME_BYTES + 1];
    if (w == NULL) return;
    webhook_subscription(w, name);
    const struct pending *p = pending_begin(a, r, webhook_deleted, slice_str(w->id), NULL);
    struct command command = {
        .kind = COMMAND_SUBSCRIPTION_DELETE,
        .project = p->project,
        .route = pending_part(a, p),
        .u.delete = {.name = slice_str(name)},
    };
    engine_step(a->options.engine, admin_time(a), &command);
    webhooks_forget(a->options.webhooks, p->name);
    registry_delete(webhooks_registry(a->options.webhooks), admin_time(a), pending_last(a, p),
                    p->name);
}

/* ---- ping ---- */

void webhooks_send_ping(struct admin *a, const struct http_request *r, struct slice last) {
    const struct webhook *w = webhook_find(a, r, last);
    struct refusal f;
    if (w == NULL) return;
    if (!parameters_none(r, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    webhooks_ping(a->options.webhooks, w);
    answer_begin(a);
    answer_send(a, r->handle, 200);
}

/* ---- rotate ---- */

static void webhook_rotated(struct admin *a, const struct pending *p, const struct effect *effect) {
    if (webhook_changed(a, p, effect) == NULL) return;
    put_text(answer_begin(a), "secret", slice_str(p->secret));
    answer_send(a, p->handle, 200);
}

static bool read_behavior(const struct fields *o, bool *at_once, struct refusal *f) {
    static const char after_h24[] = "revoke_previous_secrets_after_h24";
    static const char immediately[] = "revoke_previous_secrets_immediately";
    struct slice behavior = slice_str(after_h24);
    if (!field_text(o, "revocation_behavior", &behavior, f)) return false;
    *at_once = slice_eq_nocase(behavior, immediately);
    if (*at_once || slice_eq_nocase(behavior, after_h24)) return true;
    return refuse_value(f, behavior, "revocation_behavior",
                        "it can be revoke_previous_secrets_after_h24 or "
                        "revoke_previous_secrets_immediately");
}

static bool read_rotation(struct admin *a, const struct http_request *r, const struct webhook *old,
                          bool *at_once, struct refusal *f) {
    static const char *const known[] = {"revocation_behavior", NULL};
    struct fields o = {.object = NULL};
    *at_once = false;
    bool ok = r->body.len == 0 || (fields_parse(r->body, &o, f) && parameters_known(&o, known, f) &&
                                   read_behavior(&o, at_once, f));
    fields_free(&o);
    if (!ok) return false;
    size_t valid = webhook_secrets_valid(old, loop_wall_ms(a->options.loop));
    if (*at_once || valid < LIMIT_WEBHOOK_SECRETS) return true;
    return refuse(f, ERR_LIMIT_EXCEEDED,
                  "it has %d secrets that have not expired: wait until one has, or rotate with "
                  "revoke_previous_secrets_immediately",
                  LIMIT_WEBHOOK_SECRETS);
}

void webhooks_rotate(struct admin *a, const struct http_request *r, struct slice last) {
    const struct webhook *old = webhook_find(a, r, last);
    struct refusal f;
    bool at_once;
    if (old == NULL) return;
    if (!read_rotation(a, r, old, &at_once, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    struct webhook *w = webhook_copy(old);
    w->updated_at_ms = loop_wall_ms(a->options.loop);
    const char *secret = webhook_rotate(w, w->updated_at_ms, at_once);
    const struct pending *p = pending_begin(a, r, webhook_rotated, slice_str(w->id), secret);
    registry_put(webhooks_registry(a->options.webhooks), admin_time(a), pending_last(a, p), w);
}

/* ---- resend and recover ---- */

static void answer_task_id(struct admin *a, const struct pending *p, const struct effect *effect,
                           const char *name) {
    char id[24];
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    snprintf(id, sizeof id, "%" PRIu64, effect->u.done.id);
    put_text(answer_begin(a), name, slice_str(id));
    answer_send(a, p->handle, 200);
}

static void task_resends(struct admin *a, const struct pending *p, const struct effect *effect) {
    answer_task_id(a, p, effect, "replay_id");
}

static void task_recovers(struct admin *a, const struct pending *p, const struct effect *effect) {
    answer_task_id(a, p, effect, "redrive_id");
}

static bool read_seq(const struct http_request *r, uint64_t *out, struct refusal *f) {
    static const char *const known[] = {"seq", NULL};
    struct fields o = {.object = NULL};
    bool ok = fields_parse(r->body, &o, f) && parameters_known(&o, known, f) &&
              field_required(&o, "seq", f) && field_u64(&o, "seq", 1, INT64_MAX, out, f);
    fields_free(&o);
    return ok;
}

/* A replay leaves out what the filter does not want: that would look as if it had been sent. */
static bool is_wanted(struct admin *a, const struct webhook *w, struct slice subscription,
                      uint64_t seq, struct refusal *f) {
    struct subscription_info info;
    struct event event;
    struct filter_subject subject;
    struct filter *filter = NULL;
    char why[64];
    if (!engine_event_get(a->options.engine, a->project, seq, &event)) {
        return refuse(f, ERR_NOT_FOUND, "the journal has no event with seq %" PRIu64, seq);
    }
    if (!engine_subscription_get(a->options.engine, a->project, subscription, &info)) {
        return refuse(f, ERR_NOT_FOUND, "there is no webhook \"%s\" any more", w->id);
    }
    if (filter_compile(info.policy.filter, &filter, why, sizeof why) != ERR_OK) return true;
    filter_subject_init(&subject, &event);
    bool wanted = filter_match(filter, &subject);
    filter_free(&filter);
    return wanted ||
           refuse(f, ERR_INVALID_REQUEST,
                  "event %" PRIu64
                  " is not one that this webhook gets: its subscribed_events and "
                  "its filter do not match it, or the event has a webhook_config of its own",
                  seq);
}

void webhooks_resend(struct admin *a, const struct http_request *r, struct slice last) {
    const struct webhook *w = webhook_find(a, r, last);
    char name[LIMIT_NAME_BYTES + 1];
    struct command command = {.kind = COMMAND_TASK_CREATE, .u.task = {.kind = TASK_REPLAY}};
    struct refusal f;
    if (w == NULL) return;
    webhook_subscription(w, name);
    command.u.task.name = slice_str(name);
    if (!read_seq(r, &command.u.task.from_seq, &f) ||
        !is_wanted(a, w, command.u.task.name, command.u.task.from_seq, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    command.u.task.to_seq = command.u.task.from_seq;
    pending_step(a, r, task_resends, last, NULL, &command);
}

static bool read_since(const struct http_request *r, uint64_t *out, struct refusal *f) {
    static const char *const known[] = {"since", NULL};
    struct fields o = {.object = NULL};
    bool ok = fields_parse(r->body, &o, f) && parameters_known(&o, known, f) &&
              field_required(&o, "since", f) && field_time(&o, "since", out, f);
    fields_free(&o);
    if (ok && *out == 0) *out = 1; /* 0 would say that no time was given */
    return ok;
}

void webhooks_recover(struct admin *a, const struct http_request *r, struct slice last) {
    const struct webhook *w = webhook_find(a, r, last);
    char name[LIMIT_NAME_BYTES + 1];
    struct command command = {.kind = COMMAND_TASK_CREATE, .u.task = {.kind = TASK_REDRIVE}};
    struct refusal f;
    if (w == NULL) return;
    webhook_subscription(w, name);
    command.u.task.name = slice_str(name);
    if (!read_since(r, &command.u.task.from_time_ms, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    pending_step(a, r, task_recovers, last, NULL, &command);
}
