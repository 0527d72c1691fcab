#include "broker/admin/query.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/rfc3339.h"

#define SHOWN_BYTES 64

/* Of two values one would be passed over in silence. */
static bool none_repeated(const struct http_request *r, const char *const *known,
                          struct refusal *f) {
    for (size_t i = 0; known[i] != NULL; i++) {
        if (!http_query_repeated(r, known[i])) continue;
        return refuse(f, ERR_INVALID_REQUEST, "the query parameter %s is given twice", known[i]);
    }
    return true;
}

bool query_known(const struct http_request *r, const char *const *known, struct refusal *f) {
    struct slice unknown = http_query_unknown(r, known);
    if (unknown.len == 0) return none_repeated(r, known, f);
    char list[200] = "";
    for (size_t i = 0, len = 0; known[i] != NULL && len < sizeof list; i++) {
        len += (size_t)snprintf(list + len, sizeof list - len, "%s%s",
                                i == 0 ? ": there are " : ", ", known[i]);
    }
    if (unknown.len > SHOWN_BYTES) unknown.len = SHOWN_BYTES;
    return refuse(f, ERR_PARAMETER_UNKNOWN, "unknown query parameter \"%.*s\"%s",
                  SLICE_ARG(unknown), list);
}

bool query_none(struct admin *a, const struct http_request *r) {
    static const char *const none[] = {NULL};
    struct refusal f;
    if (query_known(r, none, &f)) return true;
    answer_refusal(a, r->handle, &f);
    return false;
}

bool query_no_body(const struct http_request *r, struct refusal *f) {
    static const char *const none[] = {NULL};
    struct fields o;
    if (r->body.len == 0) return true;
    bool ok = fields_parse(r->body, &o, f) && fields_known(&o, none, f);
    fields_free(&o);
    return ok;
}

bool query_text(const struct http_request *r, const char *name, char *out, size_t size, bool *found,
                struct refusal *f) {
    int result = http_query_get(r, name, out, size);
    if (found != NULL) *found = result == 1;
    if (result >= 0) return true;
    return refuse(f, ERR_INVALID_REQUEST,
                  "the query parameter %s is longer than %zu bytes or wrongly encoded", name,
                  size - 1);
}

bool query_u64(const struct http_request *r, const char *name, uint64_t min, uint64_t max,
               uint64_t *out, bool *found, struct refusal *f) {
    char text[32];
    bool here = false;
    uint64_t n = 0;
    if (!query_text(r, name, text, sizeof text, &here, f)) return false;
    if (found != NULL) *found = here;
    if (!here) return true;
    if (!slice_to_u64(slice_str(text), &n) || n < min || n > max) {
        return refuse(f, ERR_INVALID_REQUEST,
                      "the query parameter %s must be a whole number from %" PRIu64 " to %" PRIu64,
                      name, min, max);
    }
    *out = n;
    return true;
}

bool query_time(const struct http_request *r, const char *name, uint64_t *out, bool *found,
                struct refusal *f) {
    char text[64];
    if (!query_text(r, name, text, sizeof text, found, f)) return false;
    if (!*found || rfc3339_parse(slice_str(text), out)) return true;
    return refuse(f, ERR_INVALID_REQUEST,
                  "the query parameter %s must be a time like 2026-11-21T09:00:00Z (RFC 3339; a + "
                  "is written %%2B)",
                  name);
}

bool query_page_size(const struct http_request *r, size_t *out, struct refusal *f) {
    uint64_t size = LIMIT_PAGE_SIZE_DEFAULT;
    bool ok = query_u64(r, "page_size", 1, LIMIT_PAGE_SIZE, &size, NULL, f);
    *out = (size_t)size;
    return ok;
}

bool refuse_token(struct refusal *f) {
    return refuse(f, ERR_INVALID_REQUEST,
                  "page_token is not a next_page_token of this list: pass it on as it came");
}

bool query_token(const struct http_request *r, char letter, char out[TOKEN_SIZE], bool *found,
                 struct refusal *f) {
    char token[TOKEN_SIZE];
    out[0] = '\0';
    int result = http_query_get(r, "page_token", token, sizeof token);
    *found = result == 1;
    if (result == 0) return true;
    if (result < 0 || token[0] != letter || token[1] != '1' || token[2] != '-') {
        return refuse_token(f);
    }
    memcpy(out, token + 3, strlen(token + 3) + 1);
    return true;
}

void put_token(struct buf *b, char letter, const char *place) {
    char token[TOKEN_SIZE];
    int len = snprintf(token, sizeof token, "%c1-%s", letter, place);
    CHECK(len > 0 && (size_t)len < sizeof token);
    put_text(b, "next_page_token", slice_str(token));
}

bool query_list_page(const struct http_request *r, char letter, struct list_page *out,
                     struct refusal *f) {
    static const char *const known[] = {"page_size", "page_token", NULL};
    return query_known(r, known, f) && query_page_size(r, &out->size, f) &&
           query_token(r, letter, out->after, &out->has_after, f);
}
