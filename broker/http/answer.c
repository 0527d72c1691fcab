/* Answers: one head built in the server's scratch buffer, one body, both copied to the stream. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "broker/http/internal.h"

#define MESSAGE_SIZE 512
#define EXTRA_SIZE   256

static const char *status_line(int status) {
    switch (status) {
    case 200: return "HTTP/1.1 200 OK\r\nDate: ";
    case 201: return "HTTP/1.1 201 Created\r\nDate: ";
    case 202: return "HTTP/1.1 202 Accepted\r\nDate: ";
    case 204: return "HTTP/1.1 204 No Content\r\nDate: ";
    case 304: return "HTTP/1.1 304 Not Modified\r\nDate: ";
    case 400: return "HTTP/1.1 400 Bad Request\r\nDate: ";
    case 401: return "HTTP/1.1 401 Unauthorized\r\nDate: ";
    case 403: return "HTTP/1.1 403 Forbidden\r\nDate: ";
    case 404: return "HTTP/1.1 404 Not Found\r\nDate: ";
    case 405: return "HTTP/1.1 405 Method Not Allowed\r\nDate: ";
    case 408: return "HTTP/1.1 408 Request Timeout\r\nDate: ";
    case 409: return "HTTP/1.1 409 Conflict\r\nDate: ";
    case 410: return "HTTP/1.1 410 Gone\r\nDate: ";
    case 412: return "HTTP/1.1 412 Precondition Failed\r\nDate: ";
    case 413: return "HTTP/1.1 413 Content Too Large\r\nDate: ";
    case 415: return "HTTP/1.1 415 Unsupported Media Type\r\nDate: ";
    case 422: return "HTTP/1.1 422 Unprocessable Content\r\nDate: ";
    case 429: return "HTTP/1.1 429 Too Many Requests\r\nDate: ";
    case 431: return "HTTP/1.1 431 Request Header Fields Too Large\r\nDate: ";
    case 500: return "HTTP/1.1 500 Internal Server Error\r\nDate: ";
    case 501: return "HTTP/1.1 501 Not Implemented\r\nDate: ";
    case 503: return "HTTP/1.1 503 Service Unavailable\r\nDate: ";
    case 505: return "HTTP/1.1 505 HTTP Version Not Supported\r\nDate: ";
    default: return NULL;
    }
}

/* IMF-fixdate (RFC 9110 section 5.6.7), made once per second. strftime's names follow the locale,
 * these do not. */
static const char *date_now(struct http_server *s) {
    static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    uint64_t now_s = loop_wall_ms(s->loop) / 1000;
    struct tm t;
    if (now_s == s->date_s) return s->date;
    time_t seconds = (time_t)now_s;
    CHECK(gmtime_r(&seconds, &t) != NULL);
    snprintf(s->date, sizeof s->date, "%s, %02u %s %04u %02u:%02u:%02u GMT", days[t.tm_wday % 7],
             (unsigned)t.tm_mday % 100, months[t.tm_mon % 12], (unsigned)(t.tm_year + 1900) % 10000,
             (unsigned)t.tm_hour % 100, (unsigned)t.tm_min % 100, (unsigned)t.tm_sec % 100);
    s->date_s = now_s;
    return s->date;
}

void answer_write(struct conn *c, int status, const char *content_type, const char *extra,
                  struct slice body, bool last) {
    struct buf *head = &c->server->scratch;
    const char *line = status_line(status);
    bool bodiless = status == 204 || status == 304; /* RFC 9110 sections 15.3.5 and 15.4.5 */
    CHECK(status >= 200 && status <= 599);
    buf_clear(head);
    if (line != NULL) buf_append_str(head, line);
    else buf_printf(head, "HTTP/1.1 %d Status\r\nDate: ", status);
    buf_append_str(head, date_now(c->server));
    if (!bodiless) {
        /* What a sender has put into a journal is no page, whatever it looks like. */
        buf_append_str(head, "\r\nX-Content-Type-Options: nosniff\r\nContent-Type: ");
        buf_append_str(head, content_type == NULL ? "application/json" : content_type);
        buf_append_str(head, "\r\nContent-Length: ");
        buf_append_u64(head, body.len);
    }
    if (last) buf_append_str(head, "\r\nConnection: close\r\n");
    else if (c->http_1_0) buf_append_str(head, "\r\nConnection: keep-alive\r\n");
    else buf_append_str(head, "\r\n");
    if (extra != NULL) buf_append_str(head, extra);
    buf_append_str(head, "\r\n");
    CHECK(!head->overflow); /* types and extra headers are ours, not a peer's */
    stream_write(c->stream, buf_slice(head));
    if (!bodiless && !c->head_only) stream_write(c->stream, body);
}

/* Of the bytes of a request that is not whole nobody may read. */
static void tell_refused(const struct conn *c, const struct http_refusal *refusal) {
    const struct http_server_options *o = &c->server->options;
    struct http_request unknown = {.peer = stream_peer(c->stream)};
    bool known = c->state == CONN_BODY || c->state == CONN_BUSY;
    if (o->on_refused == NULL) return;
    o->on_refused(o->ctx, known ? &c->exchange->parser.request : &unknown, refusal);
}

void answer_write_error(struct conn *c, const struct http_refusal *refusal, bool last) {
    struct err_info info = err_info((int)refusal->err);
    char extra[EXTRA_SIZE] = "";
    struct buf body;
    size_t len = 0;
    tell_refused(c, refusal);
    if (info.retryable && (info.status == 503 || info.status == 429)) {
        uint32_t after_s = refusal->retry_after_s == 0 ? 1 : refusal->retry_after_s;
        len += (size_t)snprintf(extra, sizeof extra, "Retry-After: %" PRIu32 "\r\n", after_s);
    }
    if (refusal->err == ERR_UNAUTHENTICATED) { /* RFC 9110 section 15.5.2 */
        len += (size_t)snprintf(extra + len, sizeof extra - len, "WWW-Authenticate: Bearer\r\n");
    }
    if (refusal->extra != NULL) {
        len += (size_t)snprintf(extra + len, sizeof extra - len, "%s", refusal->extra);
    }
    CHECK(len < sizeof extra); /* all of it is ours */
    buf_init(&body, 8 * KIB);  /* a message of 512 bytes whose every byte is escaped by six */
    buf_append_str(&body, "{\"error\":{\"code\":\"");
    buf_append_str(&body, info.word);
    buf_append_str(&body, "\",\"message\":");
    buf_append_json_string(&body, slice_str(refusal->message));
    buf_append_str(&body, "}}\n");
    answer_write(c, info.status, NULL, extra, buf_slice(&body), last);
    buf_free(&body);
}

/* The connection that waits for this answer, or NULL. */
static struct conn *waiting(struct http_server *s, uint64_t handle) {
    return map_get(&s->handles, handle);
}

static bool is_last(const struct conn *c) {
    bool more = c->rest.len > c->rest_at;
    return !c->keep_alive || (c->server->draining && !more) || (c->eof && !more);
}

void http_respond(struct http_server *s, uint64_t handle, int status, const char *content_type,
                  const char *extra, struct slice body) {
    struct conn *c = waiting(s, handle);
    if (c == NULL) return;
    bool last = is_last(c);
    answer_write(c, status, content_type, extra, body, last);
    conn_answered(c, last);
}

void http_respond_refusal(struct http_server *s, uint64_t handle,
                          const struct http_refusal *refusal) {
    struct conn *c = waiting(s, handle);
    if (c == NULL) return;
    bool last = is_last(c);
    answer_write_error(c, refusal, last);
    conn_answered(c, last);
}

void http_respond_error(struct http_server *s, uint64_t handle, enum err err, const char *fmt,
                        ...) {
    char message[MESSAGE_SIZE];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    http_respond_refusal(s, handle, &(struct http_refusal){.err = err, .message = message});
}
