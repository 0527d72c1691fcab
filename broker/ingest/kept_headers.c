#include "broker/ingest/kept_headers.h"

#include "proto/limits.h"

#define NAME_BYTES 64 /* a longer name is not kept */

static const char *const always[] = {"user-agent", "ce-*", "traceparent", "tracestate", NULL};
/* No name that holds one of these is kept. */
static const char *const never[] = {"authorization", "cookie",  "signature", "hmac",
                                    "secret",        "api-key", "password"};

static bool in_list(const char *name, const char *const *list) {
    for (; list != NULL && *list != NULL; list++) {
        size_t len = strlen(*list);
        bool beginning = (*list)[len - 1] == '*';
        if (beginning ? strncmp(name, *list, len - 1) == 0 : strcmp(name, *list) == 0) return true;
    }
    return false;
}

static bool is_kept(const char *name, const char *const *own) {
    if (!in_list(name, always) && !in_list(name, own)) return false;
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
        if (strstr(name, never[i]) != NULL) return false;
    }
    return true;
}

static bool lower_name(struct slice name, char out[NAME_BYTES + 1]) {
    if (!slice_to_cstr(name, out, NAME_BYTES + 1)) return false;
    for (char *c = out; *c != '\0'; c++) {
        if (*c >= 'A' && *c <= 'Z') *c = (char)(*c + 'a' - 'A');
    }
    return true;
}

static bool seen_before(const struct http_request *r, size_t i, const char *name) {
    for (size_t k = 0; k < i; k++) {
        if (slice_eq_nocase(r->headers[k].name, name)) return true;
    }
    return false;
}

void kept_headers_write(const struct http_request *r, const char *const *own, struct buf *out) {
    char name[NAME_BYTES + 1];
    buf_clear(out);
    for (size_t i = 0; i < r->headers_count; i++) {
        const struct http_header *h = &r->headers[i];
        if (!lower_name(h->name, name) || !is_kept(name, own) || seen_before(r, i, name)) continue;
        /* Its text as JSON is at most six times as long. */
        size_t before = out->len,
               longest = 6 * (h->name.len + h->value.len) + sizeof "{\"\":\"\",}";
        if (before + longest > LIMIT_EVENT_HEADERS_BYTES) continue;
        buf_append_byte(out, before == 0 ? '{' : ',');
        buf_append_json_string(out, slice_str(name));
        buf_append_byte(out, ':');
        buf_append_json_string(out, h->value);
    }
    if (out->len > 0) buf_append_byte(out, '}');
    CHECK(!out->overflow && out->len <= LIMIT_EVENT_HEADERS_BYTES);
}
