/* POST /v1/sources/{name}:test: a saved request is looked at as if it had come in, and nothing of
 * it is kept. */
#include <stdio.h>

#include "base/base64.h"
#include "broker/admin/query.h"

/* What the request to be looked at is put together from; slices borrow from the fields. */
struct saved {
    struct http_request request;
    uint64_t wall_ms;
};

static bool read_headers(struct admin *a, const struct fields *o, struct http_request *out,
                         struct refusal *f) {
    const struct text_member *members = NULL;
    size_t count = 0;
    if (!field_text_members(o, "headers", LIMIT_HTTP_HEADERS, &a->arena, &members, &count, f)) {
        return false;
    }
    struct http_header *headers = arena_alloc(&a->arena, (count + 1) * sizeof *headers);
    for (size_t i = 0; i < count; i++) {
        headers[i] = (struct http_header){slice_str(members[i].name), members[i].value};
    }
    out->headers = headers;
    out->headers_count = count;
    return true;
}

static bool read_body(struct admin *a, const struct fields *o, struct slice *out,
                      struct refusal *f) {
    struct slice text = slice_of(NULL, 0);
    if (!field_text(o, "body", out, f) || !field_text(o, "body_base64", &text, f)) return false;
    if (!field_present(o, "body_base64")) return true;
    if (field_present(o, "body")) {
        return refuse(f, ERR_INVALID_REQUEST, "give body or body_base64");
    }
    uint8_t *bytes = arena_alloc(&a->arena, text.len + 1);
    long len = base64_decode(text, bytes, text.len + 1);
    if (len < 0) return refuse(f, ERR_INVALID_REQUEST, "body_base64 is not base64");
    *out = slice_of(bytes, (size_t)len);
    return true;
}

static bool read_saved(struct admin *a, const struct fields *o, struct saved *out,
                       struct refusal *f) {
    static const char *const known[] = {"headers", "body", "body_base64", "query",
                                        "method",  "time", NULL};
    struct slice method = slice_str("POST");
    out->wall_ms = loop_wall_ms(a->options.loop);
    out->request.body = slice_str("");
    if (!fields_known(o, known, f) || !field_text(o, "method", &method, f) ||
        !field_text(o, "query", &out->request.query, f) ||
        !field_time(o, "time", &out->wall_ms, f) || !read_headers(a, o, &out->request, f) ||
        !read_body(a, o, &out->request.body, f)) {
        return false;
    }
    if (slice_eq_str(method, "POST")) return true;
    return refuse(f, ERR_INVALID_REQUEST, "method must be \"POST\": a webhook is nothing else");
}

static void put_event(struct buf *b, const struct event *e) {
    put_open(b, "event");
    put_text_unless_empty(b, "id", e->id);
    put_text_unless_empty(b, "type", e->type);
    put_text_unless_empty(b, "subject", e->subject);
    if (e->time_ms != 0) put_time(b, "time", e->time_ms);
    put_text_unless_empty(b, "content_type", e->content_type);
    if (e->metadata.len > 0) {
        put_key(b, "user_metadata");
        buf_append_slice(b, e->metadata);
    }
    if (e->headers.len > 0) {
        put_key(b, "headers");
        buf_append_slice(b, e->headers);
    }
    put_close(b);
}

static void put_verdict(struct buf *b, const struct ingest_verdict *verdict) {
    put_bool(b, "verified", verdict->err == ERR_OK);
    if (verdict->err != ERR_OK) {
        put_open(b, "error");
        put_text(b, "code", slice_str(err_info((int)verdict->err).word));
        put_text(b, "message", slice_str(verdict->verification.why));
        put_close(b);
        return;
    }
    put_text(b, "by", slice_str(verdict->verification.by));
    if (verdict->challenge) {
        put_bool(b, "challenge", true);
        return;
    }
    bool by_id = !verdict->dedupe_by_body && verdict->event.id.len > 0;
    put_text(b, "repeats_told_by",
             slice_str(verdict->dedupe_by_body ? "body"
                       : by_id                 ? "id"
                                               : "nothing"));
    put_event(b, &verdict->event);
}

void sources_test(struct admin *a, const struct http_request *r, struct slice last) {
    static const char *const none[] = {NULL};
    struct fields o = {.object = NULL};
    struct saved saved = {.request = {.path = slice_str("/"), .method = slice_str("POST")}};
    struct refusal f;
    struct source *s = sources_get(ingest_sources(a->options.ingest), a->project, last);
    if (s == NULL) {
        answer_not_found(a, r->handle, "source", last,
                         "create it with POST /v1/sources or check the name");
    } else if (!query_known(r, none, &f) || !fields_parse(r->body, &o, &f) ||
               !read_saved(a, &o, &saved, &f)) {
        answer_refusal(a, r->handle, &f);
    } else {
        struct ingest_verdict verdict;
        source_expire(s, loop_wall_ms(a->options.loop));
        ingest_look(a->options.ingest, s, &saved.request, saved.wall_ms, &verdict);
        put_verdict(answer_begin(a), &verdict);
        answer_send(a, r->handle, 200);
    }
    fields_free(&o);
}
