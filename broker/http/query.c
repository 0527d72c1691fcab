/* Reading a request: headers by name, query parameters by name. */
#include "broker/http/server.h"

struct slice http_header_get(const struct http_request *r, const char *name, size_t *count) {
    struct slice first = {0};
    size_t found = 0, len = strlen(name);
    for (size_t i = 0; i < r->headers_count; i++) {
        struct slice each = r->headers[i].name;
        /* Most senders write names as we do. */
        if (each.len != len) continue;
        if (memcmp(each.data, name, len) != 0 && !slice_eq_nocase(each, name)) continue;
        if (found++ == 0) first = r->headers[i].value;
    }
    if (count != NULL) *count = found;
    return first;
}

/* Cuts the next "name=value" off the query; empty ones ("a&&b") are passed over. */
static bool next_pair(struct slice *query, struct slice *name, struct slice *value) {
    while (query->len > 0) {
        const uint8_t *amp = memchr(query->data, '&', query->len);
        size_t len = amp == NULL ? query->len : (size_t)(amp - query->data);
        struct slice pair = slice_of(query->data, len);
        *query = slice_from(*query, amp == NULL ? len : len + 1);
        if (pair.len == 0) continue;
        const uint8_t *eq = memchr(pair.data, '=', pair.len);
        size_t name_len = eq == NULL ? pair.len : (size_t)(eq - pair.data);
        *name = slice_of(pair.data, name_len);
        *value = eq == NULL ? slice_from(pair, pair.len) : slice_from(pair, name_len + 1);
        return true;
    }
    return false;
}

static int hex_value(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The next byte of percent-encoded text, '+' being a blank; -1: a broken escape or a NUL. */
static int next_decoded(struct slice *in) {
    uint8_t c = in->data[0];
    if (c != '%') {
        *in = slice_from(*in, 1);
        return c == '+' ? ' ' : c == '\0' ? -1 : c;
    }
    if (in->len < 3) return -1;
    int high = hex_value(in->data[1]), low = hex_value(in->data[2]);
    if (high < 0 || low < 0 || (high | low) == 0) return -1;
    *in = slice_from(*in, 3);
    return high * 16 + low;
}

static bool decode(struct slice in, char *out, size_t size) {
    size_t len = 0;
    while (in.len > 0) {
        int byte = next_decoded(&in);
        if (byte < 0 || len + 1 >= size) return false;
        out[len++] = (char)byte;
    }
    if (len >= size) return false;
    out[len] = '\0';
    return true;
}

/* Whether encoded text, once decoded, is this name. */
static bool name_is(struct slice encoded, const char *name) {
    size_t len = strlen(name), at = 0;
    while (encoded.len > 0) {
        int byte = next_decoded(&encoded);
        if (byte < 0 || at == len || byte != (uint8_t)name[at]) return false;
        at++;
    }
    return at == len;
}

int http_query_get(const struct http_request *r, const char *name, char *out, size_t size) {
    struct slice query = r->query, found, value;
    CHECK(size > 0);
    out[0] = '\0';
    while (next_pair(&query, &found, &value)) {
        if (!name_is(found, name)) continue;
        if (decode(value, out, size)) return 1;
        out[0] = '\0';
        return -1;
    }
    return 0;
}

bool http_query_repeated(const struct http_request *r, const char *name) {
    struct slice query = r->query, found, value;
    size_t count = 0;
    while (next_pair(&query, &found, &value)) count += name_is(found, name);
    return count > 1;
}

struct slice http_query_unknown(const struct http_request *r, const char *const *known) {
    struct slice query = r->query, name, value;
    while (next_pair(&query, &name, &value)) {
        bool is_known = false;
        for (const char *const *k = known; *k != NULL && !is_known; k++) {
            is_known = name_is(name, *k);
        }
        if (!is_known) return name;
    }
    return slice_of(NULL, 0);
}
