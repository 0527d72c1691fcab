#include "broker/http/strict.h"

#include "proto/limits.h"

#define T 1 /* token */
#define V 2 /* field value: visible, blank, tab, obs-text */
#define G 4 /* target: visible, but not '#' */
#define H 8 /* host: a name or an IPv4 address */

/* What a byte may be part of. */
static const uint8_t kinds[256] = {
    ['\t'] = V,
    [' '] = V,
    ['!'] = T | V | G | H,
    ['"'] = V | G,
    ['#'] = T | V,
    ['$' ... '\''] = T | V | G | H,
    ['(' ... ')'] = V | G | H,
    ['*' ... '+'] = T | V | G | H,
    [','] = V | G,
    ['-' ... '.'] = T | V | G | H,
    ['/'] = V | G,
    ['0' ... '9'] = T | V | G | H,
    [':'] = V | G,
    [';'] = V | G | H,
    ['<'] = V | G,
    ['='] = V | G | H,
    ['>' ... '@'] = V | G,
    ['A' ... 'Z'] = T | V | G | H,
    ['['] = V | G,
    ['\\'] = V | G,
    [']'] = V | G,
    ['^'] = T | V | G,
    ['_'] = T | V | G | H,
    ['`'] = T | V | G,
    ['a' ... 'z'] = T | V | G | H,
    ['{'] = V | G,
    ['|'] = T | V | G,
    ['}'] = V | G,
    ['~'] = T | V | G | H,
    [0x80 ... 0xFF] = V,
};

bool strict_is_token_byte(uint8_t c) {
    return (kinds[c] & T) != 0;
}

bool strict_is_value_byte(uint8_t c) {
    return (kinds[c] & V) != 0;
}

static bool is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

static size_t run_of(struct slice s, uint8_t kind) {
    size_t n = 0;
    while (n < s.len && (kinds[s.data[n]] & kind) != 0) n++;
    return n;
}

/* The bytes of "[...]" at the beginning, 0 when it is none. What is inside is only looked at as far
 * as that nothing ends it early: an address of IPv6, perhaps with a zone. */
static size_t bracketed_len(struct slice s) {
    size_t n = 1;
    while (n < s.len && ((kinds[s.data[n]] & H) != 0 || s.data[n] == ':')) n++;
    return n > 1 && n < s.len && s.data[n] == ']' ? n + 1 : 0;
}

bool strict_host(struct slice value) {
    if (value.len == 0) return true;
    size_t at = value.data[0] == '[' ? bracketed_len(value) : run_of(value, H);
    if (at == 0) return false;
    if (at == value.len) return true;
    if (value.data[at++] != ':' || value.len - at > 5) return false;
    while (at < value.len && is_digit(value.data[at])) at++;
    return at == value.len;
}

static enum err refuse(enum err err, const char *text, const char **why) {
    *why = text;
    return err;
}

static bool method_is_known(struct slice m) {
    static const char *const known[] = {"POST", "GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (slice_eq_str(m, known[i])) return true;
    }
    return false;
}

/* "HTTP/1.1" and the like; a version of HTTP that is not ours is told from no HTTP at all. */
static enum err parse_version(struct slice v, bool *minor_1, const char **why) {
    if (slice_eq_str(v, "HTTP/1.1") || slice_eq_str(v, "HTTP/1.0")) {
        *minor_1 = v.data[7] == '1';
        return ERR_OK;
    }
    if (v.len == 8 && slice_starts_with(v, "HTTP/") && is_digit(v.data[5]) && v.data[6] == '.' &&
        is_digit(v.data[7])) {
        return refuse(ERR_BAD_VERSION, "only HTTP/1.1 and HTTP/1.0 are spoken here", why);
    }
    return refuse(ERR_BAD_HTTP, "the request line does not end in a blank and HTTP/1.1", why);
}

/* Origin form (/path?query) or absolute form with http: (RFC 9112 section 3.2). */
static enum err parse_target(struct slice target, struct strict_request *out, const char **why) {
    if (target.len > LIMIT_HTTP_TARGET_BYTES) {
        return refuse(ERR_HEAD_TOO_LARGE, "the request target is longer than 8 KiB", why);
    }
    if (slice_starts_with(target, "http://")) {
        struct slice rest = slice_from(target, strlen("http://"));
        size_t host_len = 0;
        while (host_len < rest.len && rest.data[host_len] != '/' && rest.data[host_len] != '?') {
            host_len++;
        }
        if (host_len == 0) return refuse(ERR_BAD_HTTP, "the request target has no host", why);
        if (!strict_host(slice_of(rest.data, host_len))) {
            return refuse(ERR_BAD_HTTP, "the host in the request target is malformed", why);
        }
        target = slice_from(rest, host_len);
    } else if (target.data[0] != '/') {
        return refuse(ERR_BAD_HTTP, "the request target is neither a path nor an http:// address",
                      why);
    }
    const uint8_t *mark = target.len == 0 ? NULL : memchr(target.data, '?', target.len);
    size_t path_len = mark == NULL ? target.len : (size_t)(mark - target.data);
    out->path_given = path_len > 0;
    out->path = slice_of(target.data, path_len);
    out->query = mark == NULL ? slice_of(NULL, 0) : slice_from(target, path_len + 1);
    return ERR_OK;
}

enum err strict_request_line(struct slice line, struct strict_request *out, const char **why) {
    if (line.len == 0) {
        return refuse(ERR_BAD_HTTP, "an empty line stands before the request line", why);
    }
    size_t at = run_of(line, T);
    out->method = slice_of(line.data, at);
    if (at == 0 || at == line.len || line.data[at] != ' ') {
        return refuse(ERR_BAD_HTTP, "the request line does not begin with a method and one blank",
                      why);
    }
    struct slice rest = slice_from(line, at + 1);
    size_t target_len = run_of(rest, G);
    if (target_len == 0 || target_len == rest.len || rest.data[target_len] != ' ') {
        return refuse(ERR_BAD_HTTP,
                      "the request target is empty, or has a byte that must be percent-encoded",
                      why);
    }
    enum err err = parse_version(slice_from(rest, target_len + 1), &out->minor_1, why);
    if (err != ERR_OK) return err;
    if (!method_is_known(out->method)) {
        return refuse(ERR_UNSUPPORTED_OP,
                      "the method is none of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS", why);
    }
    return parse_target(slice_of(rest.data, target_len), out, why);
}

enum err strict_header_line(struct slice line, struct slice *name, struct slice *value,
                            const char **why) {
    size_t at = run_of(line, T);
    *name = slice_of(line.data, at);
    if (at == 0 || at == line.len || line.data[at] != ':') {
        bool blank = at < line.len && (line.data[at] == ' ' || line.data[at] == '\t');
        if (blank && at == 0) {
            return refuse(ERR_BAD_HTTP, "a header line is folded, or begins with a blank", why);
        }
        return refuse(ERR_BAD_HTTP,
                      blank ? "a blank stands between a header name and its colon"
                            : "a header name is empty, not a token, or has no colon",
                      why);
    }
    struct slice v = slice_from(line, at + 1);
    if (run_of(v, V) != v.len) {
        return refuse(ERR_BAD_HTTP, "a header value has a control character", why);
    }
    while (v.len > 0 && (v.data[0] == ' ' || v.data[0] == '\t')) v = slice_from(v, 1);
    while (v.len > 0 && (v.data[v.len - 1] == ' ' || v.data[v.len - 1] == '\t')) v.len--;
    *value = v;
    return ERR_OK;
}
