#include "broker/ingest/envelope.h"

#include "base/rfc3339.h"
#include "broker/json/walk.h"

struct scan {
    struct envelope *out;
    struct slice top_metadata, data_metadata;
};

/* The text of a raw JSON string: a slice of it, or decoded into out[size] when it has escapes.
 * Empty when it is no string or longer than size - 1. */
static struct slice text_of(const struct json_value *v, char *out, size_t size) {
    const struct slice none = slice_of(NULL, 0);
    if (v->type != JSON_IS_STRING) return none;
    struct slice inner = slice_of(v->raw.data + 1, v->raw.len - 2);
    if (memchr(inner.data, '\\', inner.len) == NULL) return inner.len < size ? inner : none;
    long len = json_string_decode(v->raw, out, size);
    return len < 0 ? none : slice_of(out, (size_t)len);
}

static void take_time(struct envelope *out, const struct json_value *v) {
    char text[64];
    out->time_ms = 0;
    rfc3339_parse(text_of(v, text, sizeof text), &out->time_ms);
}

static struct slice metadata_of(const struct json_value *v) {
    bool usable = v->type == JSON_IS_OBJECT && v->raw.len <= LIMIT_EVENT_METADATA_BYTES;
    return usable ? v->raw : slice_of(NULL, 0);
}

static void take_data(struct scan *s, const struct json_value *v) {
    struct envelope *out = s->out;
    if (slice_eq_str(v->path[1], "user_metadata")) {
        s->data_metadata = metadata_of(v);
    } else if (slice_eq_str(v->path[1], "id")) {
        bool number = v->type == JSON_IS_NUMBER && v->raw.len <= LIMIT_EVENT_SUBJECT_BYTES;
        out->subject = number ? v->raw : text_of(v, out->subject_text, sizeof out->subject_text);
    }
}

static bool take(void *ctx, const struct json_value *v) {
    struct scan *s = ctx;
    struct envelope *out = s->out;
    if (v->depth == 2 && slice_eq_str(v->path[0], "data")) {
        take_data(s, v);
    } else if (v->depth == 1) {
        if (slice_eq_str(v->path[0], "type")) {
            out->type = text_of(v, out->type_text, sizeof out->type_text);
        } else if (slice_eq_str(v->path[0], "timestamp")) {
            take_time(out, v);
        } else if (slice_eq_str(v->path[0], "user_metadata")) {
            s->top_metadata = metadata_of(v);
        }
    }
    return true;
}

static void forget(struct envelope *e) {
    e->type = e->subject = e->metadata = slice_of(NULL, 0);
    e->time_ms = 0;
}

void envelope_read(struct slice body, struct envelope *out) {
    struct scan s = {.out = out};
    forget(out);
    if (json_walk(body, 2, take, &s, NULL)) {
        out->metadata = s.top_metadata.len > 0 ? s.top_metadata : s.data_metadata;
    } else {
        forget(out);
    }
}
