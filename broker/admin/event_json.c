#include "base/base64.h"
#include "broker/admin/events.h"
#include "broker/admin/webhooks.h"
#include "broker/json/walk.h"

static bool note_type(void *ctx, const struct json_value *v) {
    *(enum json_is *)ctx = v->type;
    return true;
}

static bool is_json(struct slice text, enum json_is *type) {
    return text.len > 0 && json_walk(text, 0, note_type, type, NULL);
}

static void put_body(struct buf *b, struct slice body) {
    enum json_is type;
    if (body.len == 0) return;
    if (is_json(body, &type)) {
        put_key(b, "body");
        buf_append_slice(b, body);
    } else if (json_utf8_error(body) == body.len) {
        put_text(b, "body_text", body);
    } else {
        put_key(b, "body_base64");
        buf_append_byte(b, '"');
        size_t len = BASE64_LEN(body.len);
        uint8_t *at = buf_reserve(b, len + 1); /* and its terminator, which is not counted */
        CHECK(at != NULL);
        base64_encode(body, (char *)at);
        b->len += len;
        buf_append_byte(b, '"');
    }
}

/* Workers publish user_metadata as bytes: what is not a JSON object is shown as a string. */
static void put_metadata(struct buf *b, struct slice metadata) {
    enum json_is type = JSON_IS_NULL;
    if (metadata.len == 0) return;
    if (is_json(metadata, &type) && type == JSON_IS_OBJECT) {
        put_key(b, "user_metadata");
        buf_append_slice(b, metadata);
    } else {
        put_text(b, "user_metadata", metadata);
    }
}

void event_put(struct buf *b, const struct event *e) {
    buf_append_byte(b, '{');
    put_u64(b, "seq", e->seq);
    put_text_unless_empty(b, "id", e->id);
    put_text_unless_empty(b, "type", e->type);
    put_text_unless_empty(b, "source", e->source);
    put_text_unless_empty(b, "subject", e->subject);
    if (e->time_ms != 0) put_time(b, "time", e->time_ms);
    put_time(b, "received_at", e->received_at_ms);
    if (e->deliver_at_ms != 0) put_time(b, "deliver_at", e->deliver_at_ms);
    put_text_unless_empty(b, "content_type", e->content_type);
    put_metadata(b, e->metadata);
    if (e->headers.len > 0) {
        put_key(b, "headers");
        buf_append_slice(b, e->headers);
    }
    webhook_config_put(b, e->endpoints, slice_of(NULL, 0));
    put_body(b, e->body);
    buf_append_byte(b, '}');
}

size_t event_size(const struct event *e) {
    return 256 + e->id.len + e->type.len + e->source.len + e->subject.len + e->content_type.len +
           e->metadata.len + e->headers.len + e->endpoints.len + e->body.len;
}
