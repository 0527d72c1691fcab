/* POST /v1/events: one event, or {"events":[...]}. The body is walked, not parsed into a tree,
 * because the event's body is the text of `data` exactly as it was sent. Everything is read before
 * anything is stepped: all or none are taken. */
#include <stdio.h>

#include "base/rfc3339.h"
#include "broker/admin/events.h"
#include "broker/admin/query.h"
#include "broker/admin/webhooks.h"
#include "broker/json/walk.h"

#define SHOWN_BYTES 64 /* of a name that somebody else chose */

enum field {
    FIELD_TYPE,
    FIELD_SUBJECT,
    FIELD_ID,
    FIELD_TIME,
    FIELD_DATA,
    FIELD_METADATA,
    FIELD_DELIVER_AT,
    FIELD_DELIVER_AFTER,
    FIELD_WEBHOOK_CONFIG,
    FIELDS
};

static const char *const field_names[FIELDS] = {
    "type",           "subject",       "id",         "time",
    "data",           "user_metadata", "deliver_at", "deliver_after_ms",
    "webhook_config",
};

struct draft {
    struct event event;
    struct slice config_metadata; /* user_metadata of webhook_config */
    bool seen[FIELDS];
};

struct publish {
    struct admin *admin;
    uint64_t wall_ms;       /* now, for deliver_after_ms */
    struct refusal refusal; /* err 0: nothing is wrong so far */
    struct draft top;       /* the one event whose fields stand at the top */
    struct draft item;      /* the element of `events` that is being read */
    bool has_top, is_batch;
    struct event *events; /* of a batch; in the arena */
    size_t count, cap;
};

/* Where a field is, for messages: "type" or "events[3].type". */
struct place {
    char text[48];
};

static struct place place_of(const struct publish *p, const struct draft *d, const char *field) {
    struct place place;
    if (d == &p->top) snprintf(place.text, sizeof place.text, "%s", field);
    else snprintf(place.text, sizeof place.text, "events[%zu].%s", p->count, field);
    return place;
}

static bool wrong(struct publish *p, const struct draft *d, enum field field, const char *what) {
    struct place place = place_of(p, d, field_names[field]);
    return refuse(&p->refusal, ERR_INVALID_REQUEST, "%s %s", place.text, what);
}

/* A string of min to max bytes; a slice of the request, or decoded in the arena. */
static bool take_text(struct publish *p, struct draft *d, enum field field,
                      const struct json_value *v, size_t min, size_t max, struct slice *out) {
    if (v->type != JSON_IS_STRING) return wrong(p, d, field, "must be a string");
    struct slice inner = slice_of(v->raw.data + 1, v->raw.len - 2);
    if (memchr(inner.data, '\\', inner.len) != NULL) {
        char *text =
            arena_alloc(&p->admin->arena, inner.len + 1); /* never longer than its escapes */
        long len = json_string_decode(v->raw, text, inner.len + 1);
        if (len < 0) return wrong(p, d, field, "must not hold the character U+0000");
        inner = slice_of(text, (size_t)len);
    }
    if (inner.len < min) return wrong(p, d, field, "must not be empty");
    if (inner.len > max) {
        struct place place = place_of(p, d, field_names[field]);
        return refuse(&p->refusal, ERR_INVALID_REQUEST, "%s must have at most %zu bytes",
                      place.text, max);
    }
    *out = inner;
    return true;
}

static bool take_time(struct publish *p, struct draft *d, enum field field,
                      const struct json_value *v, uint64_t *out) {
    struct slice text = slice_of(NULL, 0);
    if (!take_text(p, d, field, v, 0, 64, &text)) return false;
    if (rfc3339_parse(text, out)) return true;
    return wrong(p, d, field, "must be a time like \"2026-11-21T09:00:00Z\" (RFC 3339)");
}

static bool take_deliver_at(struct publish *p, struct draft *d, const struct json_value *v) {
    uint64_t *out = &d->event.deliver_at_ms;
    if (!take_time(p, d, FIELD_DELIVER_AT, v, out)) return false;
    if (*out <= p->wall_ms + LIMIT_DELIVER_LATER_MS) return true;
    return wrong(p, d, FIELD_DELIVER_AT, "must be at most 30 days ahead");
}

static bool take_deliver_after(struct publish *p, struct draft *d, const struct json_value *v) {
    uint64_t ms;
    if (v->type != JSON_IS_NUMBER || !slice_to_u64(v->raw, &ms) || ms > LIMIT_DELIVER_LATER_MS) {
        return wrong(p, d, FIELD_DELIVER_AFTER,
                     "must be a whole number from 0 to 2592000000 (30 days)");
    }
    d->event.deliver_at_ms = ms == 0 ? 0 : p->wall_ms + ms;
    return true;
}

static bool take_metadata(struct publish *p, struct draft *d, const struct json_value *v) {
    if (v->type != JSON_IS_OBJECT) return wrong(p, d, FIELD_METADATA, "must be an object");
    if (v->raw.len > LIMIT_EVENT_METADATA_BYTES) {
        return wrong(p, d, FIELD_METADATA, "must have at most 16384 bytes of JSON");
    }
    d->event.metadata = v->raw;
    return true;
}

static bool take_config(struct publish *p, struct draft *d, const struct json_value *v) {
    struct place place = place_of(p, d, field_names[FIELD_WEBHOOK_CONFIG]);
    struct webhook_config config;
    if (!webhook_config_read(p->admin, v->raw, place.text, true, &config, &p->refusal)) {
        return false;
    }
    d->event.endpoints = config.endpoints;
    d->config_metadata = config.metadata;
    return true;
}

static bool take_field(struct publish *p, struct draft *d, struct slice key,
                       const struct json_value *v) {
    size_t i = 0;
    while (i < FIELDS && !slice_eq_str(key, field_names[i])) i++;
    if (i == FIELDS) {
        if (key.len > SHOWN_BYTES) key.len = SHOWN_BYTES;
        struct place place = place_of(p, d, "");
        return refuse(&p->refusal, ERR_PARAMETER_UNKNOWN,
                      "unknown field \"%s%.*s\": an event has type, subject, id, time, data, "
                      "user_metadata, deliver_at, deliver_after_ms, webhook_config",
                      place.text, SLICE_ARG(key));
    }
    if (d->seen[i]) return wrong(p, d, (enum field)i, "is there more than once");
    d->seen[i] = true;
    struct event *e = &d->event;
    switch ((enum field)i) {
    case FIELD_TYPE: return take_text(p, d, FIELD_TYPE, v, 1, LIMIT_EVENT_TYPE_BYTES, &e->type);
    case FIELD_SUBJECT:
        return take_text(p, d, FIELD_SUBJECT, v, 0, LIMIT_EVENT_SUBJECT_BYTES, &e->subject);
    case FIELD_ID: return take_text(p, d, FIELD_ID, v, 1, LIMIT_EVENT_ID_BYTES, &e->id);
    case FIELD_TIME: return take_time(p, d, FIELD_TIME, v, &e->time_ms);
    case FIELD_METADATA: return take_metadata(p, d, v);
    case FIELD_DATA:
        e->body = v->raw;
        e->content_type = slice_str("application/json");
        return true;
    case FIELD_DELIVER_AT: return take_deliver_at(p, d, v);
    case FIELD_DELIVER_AFTER: return take_deliver_after(p, d, v);
    case FIELD_WEBHOOK_CONFIG: return take_config(p, d, v);
    case FIELDS: break;
    }
    UNREACHABLE("every field has its case");
}

static bool finish(struct publish *p, struct draft *d) {
    if (!d->seen[FIELD_TYPE]) return wrong(p, d, FIELD_TYPE, "is required");
    if (d->seen[FIELD_DELIVER_AT] && d->seen[FIELD_DELIVER_AFTER]) {
        return wrong(p, d, FIELD_DELIVER_AT, "and deliver_after_ms exclude each other: give one");
    }
    if (d->config_metadata.len == 0) return true;
    if (d->seen[FIELD_METADATA]) {
        return wrong(p, d, FIELD_METADATA,
                     "and webhook_config.user_metadata exclude each other: give one");
    }
    d->event.metadata = d->config_metadata;
    return true;
}

/* An element of `events` is complete. */
static bool take_item(struct publish *p, const struct json_value *v) {
    if (v->type != JSON_IS_OBJECT) {
        return refuse(&p->refusal, ERR_INVALID_REQUEST, "events[%zu] must be an object", p->count);
    }
    if (p->count == LIMIT_PUBLISH_EVENTS) {
        return refuse(&p->refusal, ERR_INVALID_REQUEST, "events must have at most %d elements",
                      LIMIT_PUBLISH_EVENTS);
    }
    if (!finish(p, &p->item)) return false;
    if (p->count == p->cap) {
        size_t cap = p->cap == 0 ? 16 : p->cap * 2;
        struct event *events = arena_alloc(&p->admin->arena, cap * sizeof *events);
        if (p->count > 0) memcpy(events, p->events, p->count * sizeof *events);
        p->events = events;
        p->cap = cap;
    }
    p->events[p->count++] = p->item.event;
    p->item = (struct draft){.event = {.seq = 0}};
    return true;
}

static bool take_top(struct publish *p, const struct json_value *v) {
    bool events = slice_eq_str(v->path[0], "events");
    if (events && p->is_batch) {
        return refuse(&p->refusal, ERR_INVALID_REQUEST, "events is there more than once");
    }
    if (events && v->type != JSON_IS_ARRAY) {
        return refuse(&p->refusal, ERR_INVALID_REQUEST, "events must be an array");
    }
    if (events) p->is_batch = true;
    else p->has_top = true;
    if (p->is_batch && p->has_top) {
        return refuse(&p->refusal, ERR_INVALID_REQUEST,
                      "send the fields of one event, or events and nothing beside it");
    }
    return events || take_field(p, &p->top, v->path[0], v);
}

/* Children come before their parents: the fields of an element, the element, then `events`. */
static bool take(void *ctx, const struct json_value *v) {
    struct publish *p = ctx;
    bool element = v->depth >= 2 && v->path[1].data == NULL && slice_eq_str(v->path[0], "events");
    if (v->depth == 3) {
        bool field = element && v->path[2].data != NULL && !p->has_top && !p->is_batch;
        return !field || take_field(p, &p->item, v->path[2], v);
    }
    if (v->depth == 2) return !element || p->has_top || p->is_batch || take_item(p, v);
    if (v->depth == 1) return v->path[0].data == NULL || take_top(p, v);
    if (v->type == JSON_IS_OBJECT) return true;
    return refuse(&p->refusal, ERR_INVALID_REQUEST,
                  "the body must be a JSON object: an event, or {\"events\":[...]}");
}

static bool read_body(struct publish *p, struct slice body) {
    struct json_error error;
    if (body.len == 0) {
        return refuse(&p->refusal, ERR_INVALID_REQUEST,
                      "the body is empty: it must be an event, or {\"events\":[...]}");
    }
    bool json = json_walk(body, 3, take, p, &error);
    if (p->refusal.err != ERR_OK) return false;
    if (!json) {
        return refuse(&p->refusal, ERR_INVALID_REQUEST,
                      "the body is not valid JSON: line %zu, column %zu: %s", error.line,
                      error.column, error.message);
    }
    if (!p->is_batch) return finish(p, &p->top);
    if (p->count > 0) return true;
    return refuse(&p->refusal, ERR_INVALID_REQUEST, "events must not be empty");
}

void events_publish(struct admin *a, const struct http_request *r, struct slice last) {
    static const char *const none[] = {NULL};
    (void)last;
    struct publish p = {.admin = a, .wall_ms = loop_wall_ms(a->options.loop)};
    if (!query_known(r, none, &p.refusal) || !read_body(&p, r->body)) {
        answer_refusal(a, r->handle, &p.refusal);
        return;
    }
    struct command command = {
        .kind = COMMAND_PUBLISH,
        .project = a->project,
        .route = {.room = a->options.room,
                  .rid = p.is_batch ? RID_PUBLISH_BATCH : RID_PUBLISH_ONE,
                  .handle = r->handle},
        .u.publish = {.events = p.is_batch ? p.events : &p.top.event,
                      .count = p.is_batch ? p.count : 1},
    };
    for (size_t i = 0; i < command.u.publish.count; i++) {
        struct slice endpoints = command.u.publish.events[i].endpoints;
        if (endpoints.len == 0) continue;
        webhooks_expect_endpoints(a->options.webhooks, a->project, endpoints);
    }
    engine_step(a->options.engine, admin_time(a), &command);
}

static void put_result(struct buf *b, const struct publish_result *result) {
    put_u64(b, "seq", result->seq);
    if (result->duplicate) put_bool(b, "duplicate", true);
}

void events_published(struct admin *a, const struct effect *effect) {
    CHECK(effect->kind == EFFECT_PUBLISHED);
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    struct buf *b = answer_begin(a);
    if (effect->route.rid == RID_PUBLISH_ONE) {
        CHECK(effect->u.published.count == 1);
        put_result(b, effect->u.published.results);
    } else {
        put_key(b, "events");
        buf_append_byte(b, '[');
        for (size_t i = 0; i < effect->u.published.count; i++) {
            put_comma(b);
            buf_append_byte(b, '{');
            put_result(b, &effect->u.published.results[i]);
            buf_append_byte(b, '}');
        }
        buf_append_byte(b, ']');
    }
    answer_send(a, effect->route.handle, 200);
}
