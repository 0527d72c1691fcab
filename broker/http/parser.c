#include "broker/http/parser.h"

/* Memory that a parser keeps between requests. */
#define HEAD_KEEP_BYTES (2 * KIB)
#define BODY_KEEP_BYTES (8 * KIB)

_Static_assert(LIMIT_HTTP_HEAD_BYTES <= UINT16_MAX, "places of headers are 16 bits");

static int on_headers_complete(llhttp_t *ll) {
    struct http_parser *p = ll->data;
    p->head_seen = true;
    /* "close" wins also over the keep-alive of HTTP/1.0 (RFC 9112 section 9.3). */
    p->keep_alive = llhttp_should_keep_alive(ll) != 0 && (ll->flags & F_CONNECTION_CLOSE) == 0;
    p->llhttp_chunked = (ll->flags & F_CHUNKED) != 0;
    p->llhttp_length = ll->content_length;
    /* Upgrade is ignored (RFC 9110 section 7.8 allows it): the body is read as if it were not
     * there. CONNECT does not come this far. */
    ll->upgrade = 0;
    return 0;
}

/* Appends to the body. False: there is no room. */
static bool take_body(struct http_parser *p, struct slice bytes) {
    if (bytes.len == 0) return true;
    size_t cap = buf_cap_after(&p->body, bytes.len);
    p->no_room = cap > p->body.cap && cap > p->body_room;
    return !p->no_room && buf_append_slice(&p->body, bytes);
}

static int on_body(llhttp_t *ll, const char *at, size_t len) {
    return take_body(ll->data, slice_of(at, len)) ? 0 : -1;
}

static int on_message_complete(llhttp_t *ll) {
    struct http_parser *p = ll->data;
    p->end_seen = true;
    return 0;
}

static const llhttp_settings_t settings = {
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

void http_parser_init(struct http_parser *p, size_t body_max_bytes) {
    memset(p, 0, sizeof *p);
    p->body_max_bytes = body_max_bytes;
    p->body_room = SIZE_MAX;
    buf_init(&p->head, LIMIT_HTTP_HEAD_BYTES);
    buf_init(&p->body, body_max_bytes);
}

void http_parser_free(struct http_parser *p) {
    buf_free(&p->head);
    buf_free(&p->body);
}

static void empty(struct buf *b, size_t keep_bytes) {
    if (b->cap > keep_bytes) buf_free(b);
    else buf_clear(b);
}

void http_parser_reset(struct http_parser *p) {
    empty(&p->head, HEAD_KEEP_BYTES);
    empty(&p->body, BODY_KEEP_BYTES);
    p->state = PARSE_HEAD;
    p->line_at = 0;
    p->headers_count = 0;
    p->hosts = p->lengths = p->encodings = 0;
    p->encoding_is_chunked = p->expects_continue = false;
    p->length = 0;
    p->head_seen = p->end_seen = p->keep_alive = p->llhttp_chunked = p->no_room = false;
    p->llhttp_length = 0;
    p->request = (struct http_request){0};
    p->err = ERR_OK;
    p->message = NULL;
}

bool http_parser_wants_continue(const struct http_parser *p) {
    bool body_comes = p->state == PARSE_BODY_CHUNKED || p->length > 0;
    return p->expects_continue && p->line.minor_1 && body_comes;
}

static enum http_step refuse(struct http_parser *p, enum err err, const char *message) {
    p->state = PARSE_END;
    p->err = err;
    p->message = message;
    return STEP_REFUSED;
}

static struct slice in_head(const struct http_parser *p, uint16_t at, uint16_t len) {
    return slice_of(p->head.data + at, len);
}

/* The headers that decide about framing, as each line comes by. */
static enum http_step note_header(struct http_parser *p, struct slice name, struct slice value) {
    switch (name.len) {
    case 4:
        if (!slice_eq_nocase(name, "host")) break;
        if (++p->hosts > 1) return refuse(p, ERR_BAD_HTTP, "there is more than one Host header");
        if (!strict_host(value)) return refuse(p, ERR_BAD_HTTP, "the Host header is malformed");
        break;
    case 6:
        if (!slice_eq_nocase(name, "expect")) break;
        if (slice_eq_nocase(value, "100-continue")) p->expects_continue = true;
        break;
    case 14:
        if (!slice_eq_nocase(name, "content-length")) break;
        if (++p->lengths > 1) {
            return refuse(p, ERR_BAD_HTTP, "there is more than one Content-Length header");
        }
        if (!slice_to_u64(value, &p->length)) {
            return refuse(p, ERR_BAD_HTTP, "Content-Length is not a decimal number");
        }
        break;
    case 17:
        if (!slice_eq_nocase(name, "transfer-encoding")) break;
        if (++p->encodings > 1) {
            return refuse(p, ERR_BAD_HTTP, "there is more than one Transfer-Encoding header");
        }
        p->encoding_is_chunked = slice_eq_nocase(value, "chunked");
        break;
    default: break;
    }
    return STEP_MORE;
}

/* What can only be said when every header is known. */
static enum http_step check_headers(struct http_parser *p) {
    bool http_1_1 = p->line.minor_1;
    if (http_1_1 && p->hosts == 0) return refuse(p, ERR_BAD_HTTP, "the Host header is missing");
    if (p->encodings > 0) {
        if (p->lengths > 0) {
            return refuse(p, ERR_BAD_HTTP,
                          "Content-Length and Transfer-Encoding exclude each other");
        }
        if (!http_1_1) return refuse(p, ERR_BAD_HTTP, "HTTP/1.0 has no Transfer-Encoding");
        if (!p->encoding_is_chunked) {
            return refuse(p, ERR_UNSUPPORTED_OP, "Transfer-Encoding is not exactly \"chunked\"");
        }
        struct slice method = in_head(p, 0, p->line.method_len);
        if (slice_eq_str(method, "GET") || slice_eq_str(method, "HEAD")) {
            return refuse(p, ERR_BAD_HTTP, "a chunked body on GET or HEAD: use Content-Length");
        }
    }
    return STEP_MORE;
}

/* The second reader: llhttp must find the same request in the same bytes. */
static enum http_step compare_with_llhttp(struct http_parser *p) {
    llhttp_init(&p->llhttp, HTTP_REQUEST, &settings);
    p->llhttp.data = p;
    enum llhttp_errno rc = llhttp_execute(&p->llhttp, (const char *)p->head.data, p->head.len);
    if (rc != HPE_OK) {
        const char *reason = llhttp_get_error_reason(&p->llhttp);
        return refuse(p, ERR_BAD_HTTP, reason != NULL ? reason : "the request is malformed");
    }
    bool chunked = p->encodings > 0;
    bool ended = !chunked && p->length == 0;
    const char *method = llhttp_method_name((llhttp_method_t)p->llhttp.method);
    if (!p->head_seen || p->llhttp_chunked != chunked || p->llhttp_length != p->length ||
        p->end_seen != ended || !slice_eq_str(in_head(p, 0, p->line.method_len), method)) {
        return refuse(p, ERR_BAD_HTTP, "the framing of the request is ambiguous");
    }
    return STEP_MORE;
}

static void take_request(struct http_parser *p) {
    for (size_t i = 0; i < p->headers_count; i++) {
        const struct http_header_place *at = &p->places[i];
        p->headers[i].name = in_head(p, at->name_at, at->name_len);
        p->headers[i].value = in_head(p, at->value_at, at->value_len);
    }
    p->request = (struct http_request){
        .method = in_head(p, 0, p->line.method_len),
        .path =
            p->line.path_len == 0 ? slice_str("/") : in_head(p, p->line.path_at, p->line.path_len),
        .query = in_head(p, p->line.query_at, p->line.query_len),
        .headers = p->headers,
        .headers_count = p->headers_count,
    };
}

static enum http_step finish_head(struct http_parser *p) {
    if (check_headers(p) == STEP_REFUSED) return STEP_REFUSED;
    if (p->length > p->body_max_bytes) {
        take_request(p); /* the log says whose it was */
        return refuse(p, ERR_TOO_LARGE, "the body is larger than this server takes");
    }
    if (compare_with_llhttp(p) == STEP_REFUSED) return STEP_REFUSED;
    take_request(p);
    p->state = p->encodings > 0 ? PARSE_BODY_CHUNKED : PARSE_BODY_LENGTH;
    chunk_init(&p->chunks, p->body_max_bytes);
    return STEP_HEAD;
}

static enum http_step request_line(struct http_parser *p, struct slice line) {
    struct strict_request r;
    const char *why = NULL;
    enum err err = strict_request_line(line, &r, &why);
    if (err != ERR_OK) return refuse(p, err, why);
    p->line =
        (struct http_request_place){.method_len = (uint16_t)r.method.len, .minor_1 = r.minor_1};
    if (r.path_given) {
        p->line.path_at = (uint16_t)(r.path.data - p->head.data);
        p->line.path_len = (uint16_t)r.path.len;
    }
    if (r.query.len > 0) {
        p->line.query_at = (uint16_t)(r.query.data - p->head.data);
        p->line.query_len = (uint16_t)r.query.len;
    }
    return STEP_MORE;
}

static enum http_step header_line(struct http_parser *p, struct slice line) {
    struct slice name, value;
    const char *why = NULL;
    if (p->headers_count == LIMIT_HTTP_HEADERS) {
        return refuse(p, ERR_HEAD_TOO_LARGE, "there are more than 100 headers");
    }
    enum err err = strict_header_line(line, &name, &value, &why);
    if (err != ERR_OK) return refuse(p, err, why);
    p->places[p->headers_count++] = (struct http_header_place){
        .name_at = (uint16_t)(name.data - p->head.data),
        .name_len = (uint16_t)name.len,
        .value_at = (uint16_t)(value.data - p->head.data),
        .value_len = (uint16_t)value.len,
    };
    return note_header(p, name, value);
}

/* Looks at the unfinished line, of which the bytes from `fresh` on are new. */
static enum http_step look_at_line(struct http_parser *p, size_t fresh, bool has_lf) {
    struct slice line = slice_of(p->head.data + p->line_at, p->head.len - p->line_at);
    size_t from = fresh > p->line_at ? fresh - p->line_at : 0;
    if (from > 0 && line.data[from - 1] == '\r') from--;
    const uint8_t *cr = memchr(line.data + from, '\r', line.len - from);
    size_t cr_at = cr == NULL ? line.len : (size_t)(cr - line.data);
    if (cr != NULL && cr_at + 1 < line.len && line.data[cr_at + 1] != '\n') {
        return refuse(p, ERR_BAD_HTTP, "a CR without LF stands in the head");
    }
    if (!has_lf) return STEP_MORE;
    if (cr == NULL) return refuse(p, ERR_BAD_HTTP, "an LF without CR stands in the head");

    bool first = p->line_at == 0;
    p->line_at = p->head.len;
    line.len = cr_at;
    if (first) {
        if (request_line(p, line) == STEP_REFUSED) return STEP_REFUSED;
        return STEP_MORE;
    }
    return line.len == 0 ? finish_head(p) : header_line(p, line);
}

static enum http_step feed_head(struct http_parser *p, struct slice in, size_t *used) {
    while (*used < in.len) {
        size_t room = LIMIT_HTTP_HEAD_BYTES - p->head.len;
        struct slice rest = slice_from(in, *used);
        if (rest.len > room) rest.len = room;
        if (p->head.len == 0 && !strict_is_token_byte(rest.data[0])) {
            /* Said at once: what speaks TLS to this port never sends a line. */
            return refuse(p, ERR_BAD_HTTP, "this is not a request of HTTP/1.1");
        }
        const uint8_t *lf = memchr(rest.data, '\n', rest.len);
        size_t fresh = p->head.len;
        if (lf != NULL) rest.len = (size_t)(lf - rest.data) + 1;
        CHECK(buf_append_slice(&p->head, rest));
        *used += rest.len;
        enum http_step step = look_at_line(p, fresh, lf != NULL);
        if (step != STEP_MORE) return step;
        if (p->head.len == LIMIT_HTTP_HEAD_BYTES) {
            return refuse(p, ERR_HEAD_TOO_LARGE, "the head is larger than 16 KiB");
        }
    }
    return STEP_MORE;
}

static enum http_step finish(struct http_parser *p) {
    p->state = PARSE_END;
    p->request.body = buf_slice(&p->body);
    return STEP_REQUEST;
}

static enum http_step refuse_room(struct http_parser *p) {
    return refuse(p, ERR_OVERLOADED, HTTP_NO_BODY_ROOM);
}

static enum http_step feed_length(struct http_parser *p, struct slice in, size_t *used) {
    uint64_t missing = p->length - p->body.len;
    if (in.len > missing) in.len = (size_t)missing;
    if (!take_body(p, in)) return refuse_room(p);
    *used = in.len;
    return p->body.len == p->length ? finish(p) : STEP_MORE;
}

/* The next run of bytes by our own reader, then what of it is no extension by llhttp, which would
 * refuse some that RFC 9112 allows. llhttp also gets the bytes before a fault of ours: if it has
 * found one there, that came first, however the bytes were split. */
static enum http_step feed_chunk_run(struct http_parser *p, struct slice in, size_t *used) {
    const char *why = NULL;
    bool was_extension = p->chunks.state == CHUNK_EXTENSION;
    enum err err = chunk_feed(&p->chunks, in, used, &why);
    bool is_extension = p->chunks.state == CHUNK_EXTENSION;
    struct slice seen = slice_of(in.data, *used);
    if (was_extension) seen = is_extension ? slice_of(in.data, 0) : slice_from(seen, seen.len - 1);
    else if (is_extension) seen.len--; /* its ';' */
    enum llhttp_errno rc = llhttp_execute(&p->llhttp, (const char *)seen.data, seen.len);
    if (p->no_room) return refuse_room(p);
    if (rc != HPE_OK) {
        const char *reason = llhttp_get_error_reason(&p->llhttp);
        return refuse(p, ERR_BAD_HTTP, reason != NULL ? reason : "the body is malformed");
    }
    if (err != ERR_OK) return refuse(p, err, why);
    bool ended = p->chunks.state == CHUNK_END;
    if (ended != p->end_seen || (ended && p->body.len != p->chunks.total)) {
        return refuse(p, ERR_BAD_HTTP, "the framing of the body is ambiguous");
    }
    return ended ? finish(p) : STEP_MORE;
}

static enum http_step feed_chunked(struct http_parser *p, struct slice in, size_t *used) {
    enum http_step step = STEP_MORE;
    while (step == STEP_MORE && *used < in.len) {
        size_t run;
        step = feed_chunk_run(p, slice_from(in, *used), &run);
        *used += run;
    }
    return step;
}

enum http_step http_parser_feed(struct http_parser *p, struct slice in, size_t *used) {
    *used = 0;
    switch (p->state) {
    case PARSE_HEAD: return feed_head(p, in, used);
    case PARSE_BODY_LENGTH: return feed_length(p, in, used);
    case PARSE_BODY_CHUNKED: return feed_chunked(p, in, used);
    case PARSE_END: break;
    }
    UNREACHABLE("a parser at its end is reset before it is fed");
}
