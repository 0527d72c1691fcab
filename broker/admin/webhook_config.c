/* The webhook_config of an event or a job: which URIs get its events. */
#include <stdio.h>

#include "broker/admin/webhooks.h"

#define PATH_SIZE 64

static bool is_repeated(const struct slice *uris, size_t i) {
    for (size_t k = 0; k < i; k++) {
        if (slice_eq(uris[k], uris[i])) return true;
    }
    return false;
}

/* One URI per line. */
static struct slice join(struct arena *arena, const struct slice *uris, size_t count) {
    size_t len = 0, at = 0;
    for (size_t i = 0; i < count; i++) len += uris[i].len + 1;
    uint8_t *lines = arena_alloc(arena, len);
    for (size_t i = 0; i < count; i++) {
        memcpy(lines + at, uris[i].data, uris[i].len);
        at += uris[i].len;
        lines[at++] = '\n';
    }
    return slice_of(lines, len - 1);
}

static bool read_uris(struct admin *a, const struct fields *o, bool required, struct slice *out,
                      struct refusal *f) {
    const struct slice *uris = NULL;
    size_t count = 0;
    if (required && !field_required(o, "uris", f)) return false;
    if (!field_texts(o, "uris", LIMIT_ENDPOINTS, LIMIT_URI_BYTES, &a->arena, &uris, &count, f)) {
        return false;
    }
    if (count == 0) {
        if (!field_present(o, "uris")) return true;
        return refuse(f, ERR_INVALID_REQUEST, "%suris must hold 1 to %d URIs", o->path,
                      LIMIT_ENDPOINTS);
    }
    for (size_t i = 0; i < count; i++) {
        char parameter[PATH_SIZE + 16], why[256];
        snprintf(parameter, sizeof parameter, "%suris[%zu]", o->path, i);
        if (!guard_uri_ok(webhooks_guard(a->options.webhooks), uris[i], why, sizeof why)) {
            return refuse_value(f, uris[i], parameter, why);
        }
        if (is_repeated(uris, i)) return refuse_value(f, uris[i], parameter, "it is there twice");
    }
    *out = join(&a->arena, uris, count);
    return true;
}

static bool read_metadata(const struct fields *o, struct slice *out, struct refusal *f) {
    struct fields inside;
    if (!field_object(o, "user_metadata", "", &inside, f) ||
        !field_json(o, "user_metadata", out, f)) {
        return false;
    }
    if (out->len <= LIMIT_EVENT_METADATA_BYTES) return true;
    return refuse(f, ERR_INVALID_REQUEST, "%suser_metadata must have at most %d bytes of JSON",
                  o->path, LIMIT_EVENT_METADATA_BYTES);
}

bool webhook_config_read(struct admin *a, struct slice text, const char *place, bool uris_required,
                         struct webhook_config *out, struct refusal *f) {
    static const char *const known[] = {"uris", "user_metadata", NULL};
    struct fields o = {.object = NULL};
    char path[PATH_SIZE];
    *out = (struct webhook_config){.endpoints = slice_of(NULL, 0)};
    if (text.len == 0 || text.data[0] != '{') {
        return refuse(f, ERR_INVALID_REQUEST, "%s must be an object", place);
    }
    snprintf(path, sizeof path, "%s.", place);
    bool ok = fields_parse(text, &o, f);
    o.path = path;
    ok = ok && parameters_known(&o, known, f) &&
         read_uris(a, &o, uris_required, &out->endpoints, f) &&
         read_metadata(&o, &out->metadata, f);
    fields_free(&o);
    return ok;
}

void webhook_config_put(struct buf *b, struct slice endpoints, struct slice metadata) {
    if (endpoints.len == 0) return;
    put_open(b, "webhook_config");
    put_key(b, "uris");
    buf_append_byte(b, '[');
    while (endpoints.len > 0) {
        const uint8_t *end = memchr(endpoints.data, '\n', endpoints.len);
        size_t len = end == NULL ? endpoints.len : (size_t)(end - endpoints.data);
        put_comma(b);
        buf_append_json_string(b, slice_of(endpoints.data, len));
        endpoints = slice_from(endpoints, end == NULL ? len : len + 1);
    }
    buf_append_byte(b, ']');
    if (metadata.len > 0) {
        put_key(b, "user_metadata");
        buf_append_slice(b, metadata);
    }
    put_close(b);
}
