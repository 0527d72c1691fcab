#include "broker/ingest/kept_headers.h"

#include "proto/limits.h"

#define NAME_BYTES 64 /* a longer name is not kept */

static const struct kept_header always[] = {KEPT_NAME("user-agent"),
                                            KEPT_BEGINNING("ce-"),
                                            KEPT_NAME("traceparent"),
                                            KEPT_NAME("tracestate"),
                                            {.name = NULL}};
/* No name that holds one of these is kept. */
static const char *const never[] = {"authorization", "cookie",  "signature", "hmac",
                                    "secret",        "api-key", "password"};

static char lower(uint8_t c) {
    return (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

static bool in_list(struct slice name, const struct kept_header *list) {
    if (name.len == 0) return false;
    char first = lower(name.data[0]);
    for (; list != NULL && list->name != NULL; list++) {
        if (first != list->name[0]) continue;
        if (list->begins ? name.len < list->len : name.len != list->len) continue;
        size_t same = 1;
        while (same < list->len && lower(name.data[same]) == list->name[same]) same++;
        if (same == list->len) return true;
    }
    return false;
}

static bool lower_name(struct slice name, char out[NAME_BYTES + 1]) {
    if (!slice_to_cstr(name, out, NAME_BYTES + 1)) return false;
    for (size_t i = 0; i < name.len; i++) out[i] = lower(name.data[i]);
    return true;
}

static bool is_never(const char *name) {
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
        if (strstr(name, never[i]) != NULL) return true;
    }
    return false;
}

static bool seen_before(const struct http_request *r, size_t i, const char *name) {
    for (size_t k = 0; k < i; k++) {
        if (r->headers[k].name.len == r->headers[i].name.len &&
            slice_eq_nocase(r->headers[k].name, name)) {
            return true;
        }
    }
    return false;
}

/* Nearly every text stands in JSON as it is. */
static void append_text(struct buf *out, struct slice text) {
    size_t plain = 0;
    while (plain < text.len && text.data[plain] >= ' ' && text.data[plain] < 0x7F &&
           text.data[plain] != '"' && text.data[plain] != '\\') {
        plain++;
    }
    if (plain < text.len) {
        buf_append_json_string(out, text);
        return;
    }
    buf_append_byte(out, '"');
    buf_append_slice(out, text);
    buf_append_byte(out, '"');
}

void kept_headers_write(const struct http_request *r, const struct kept_header *own,
                        struct buf *out) {
    char name[NAME_BYTES + 1];
    buf_clear(out);
    for (size_t i = 0; i < r->headers_count; i++) {
        const struct http_header *h = &r->headers[i];
        if (!in_list(h->name, always) && !in_list(h->name, own)) continue;
        if (!lower_name(h->name, name) || is_never(name) || seen_before(r, i, name)) continue;
        /* Its text as JSON is at most six times as long. */
        size_t before = out->len,
               longest = 6 * (h->name.len + h->value.len) + sizeof "{\"\":\"\",}";
        if (before + longest > LIMIT_EVENT_HEADERS_BYTES) continue;
        buf_append_byte(out, before == 0 ? '{' : ',');
        append_text(out, slice_str(name));
        buf_append_byte(out, ':');
        append_text(out, h->value);
    }
    if (out->len > 0) buf_append_byte(out, '}');
    CHECK(!out->overflow && out->len <= LIMIT_EVENT_HEADERS_BYTES);
}
