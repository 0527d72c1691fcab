#include "broker/webhooks/payload.h"

#include "base/base64.h"
#include "broker/fields/put.h"
#include "broker/json/walk.h"

#define JSON_TYPE   "application/json"
#define JSON_SUFFIX "+json"

/* The media type without its parameters (RFC 9110 section 8.3.1). */
static struct slice media_type(struct slice content_type) {
    const uint8_t *end =
        content_type.len == 0 ? NULL : memchr(content_type.data, ';', content_type.len);
    if (end != NULL) content_type.len = (size_t)(end - content_type.data);
    while (content_type.len > 0 && (content_type.data[content_type.len - 1] == ' ' ||
                                    content_type.data[content_type.len - 1] == '\t')) {
        content_type.len--;
    }
    return content_type;
}

static bool says_json(struct slice content_type) {
    struct slice type = media_type(content_type);
    size_t suffix = sizeof JSON_SUFFIX - 1;
    if (content_type.len == 0 || slice_eq_nocase(type, JSON_TYPE)) return true;
    return type.len > suffix && slice_eq_nocase(slice_from(type, type.len - suffix), JSON_SUFFIX);
}

static bool note_type(void *ctx, const struct json_value *v) {
    *(enum json_is *)ctx = v->type;
    return true;
}

static bool is_json(struct slice text, enum json_is *type) {
    return json_walk(text, 0, note_type, type, NULL);
}

static void put_base64(struct buf *out, const char *name, struct slice bytes) {
    size_t len = BASE64_LEN(bytes.len);
    put_key(out, name);
    buf_append_byte(out, '"');
    uint8_t *at = buf_reserve(out, len + 1); /* and its terminator, which is not counted */
    if (at == NULL) return;
    base64_encode(bytes, (char *)at);
    out->len += len;
    buf_append_byte(out, '"');
}

static void put_data(struct buf *out, const struct event *event) {
    enum json_is type;
    if (event->body.len > 0 && says_json(event->content_type) && is_json(event->body, &type)) {
        put_key(out, "data");
        buf_append_slice(out, event->body);
        return;
    }
    put_open(out, "data");
    if (event->body.len > 0) {
        put_text_unless_empty(out, "content_type", event->content_type);
        if (json_utf8_error(event->body) == event->body.len) put_text(out, "text", event->body);
        else put_base64(out, "base64", event->body);
    }
    put_close(out);
}

/* Workers publish user_metadata as bytes. */
static void put_metadata(struct buf *out, struct slice metadata) {
    enum json_is type = JSON_IS_NULL;
    if (metadata.len == 0) return;
    if (is_json(metadata, &type) && type == JSON_IS_OBJECT) {
        put_key(out, "user_metadata");
        buf_append_slice(out, metadata);
    } else {
        put_text(out, "user_metadata", metadata);
    }
}

void payload_write(const struct event *event, struct buf *out) {
    if (event->source.len > 0) {
        buf_append_slice(out, event->body);
    } else {
        buf_append_byte(out, '{');
        put_text(out, "type", event->type);
        put_text(out, "version", slice_str("v1"));
        put_time(out, "timestamp", event->time_ms != 0 ? event->time_ms : event->received_at_ms);
        put_data(out, event);
        put_metadata(out, event->metadata);
        put_close(out);
    }
    CHECK(!out->overflow); /* an escaped byte is six at most */
}

struct slice payload_content_type(const struct event *event) {
    if (event->source.len > 0 && event->content_type.len > 0) return event->content_type;
    return slice_str(JSON_TYPE);
}

/* Cuts the first line off *rest. */
static struct slice cut_line(struct slice *rest) {
    const uint8_t *end = memchr(rest->data, '\n', rest->len);
    size_t len = end == NULL ? rest->len : (size_t)(end - rest->data);
    struct slice line = slice_of(rest->data, len);
    *rest = slice_from(*rest, end == NULL ? len : len + 1);
    return line;
}

struct slice payload_endpoint(struct slice endpoints, size_t k) {
    struct slice line = slice_of(NULL, 0);
    for (size_t i = 0; i <= k; i++) {
        if (endpoints.len == 0) return slice_of(NULL, 0);
        line = cut_line(&endpoints);
    }
    return line;
}

size_t payload_endpoints_count(struct slice endpoints) {
    size_t count = 0;
    for (; endpoints.len > 0; count++) cut_line(&endpoints);
    return count;
}
