/* A request becomes an event, or a refusal: nothing of it is kept anywhere. */
#include "broker/ingest/kept_headers.h"
#include "broker/ingest/room.h"
#include "broker/json/walk.h"

/* Whether an unsigned text can be an id. */
static bool usable_id(struct slice id) {
    return id.len > 0 && id.len <= LIMIT_EVENT_ID_BYTES && json_utf8_error(id) == id.len;
}

static struct slice header_id(const struct ingest_verdict *out) {
    const struct verification *v = &out->verification;
    const char *own = v->source->options.id_header;
    const char *name = own[0] != '\0' ? own : v->source->scheme->id_header;
    if (name == NULL) return slice_of(NULL, 0);
    size_t count = 0;
    struct slice id = http_header_get(v->request, name, &count);
    return count == 1 && usable_id(id) ? id : slice_of(NULL, 0);
}

/* Where the id comes from, in order: what was signed; the body, which was signed; a header or an
 * attribute that was not, and then a repeat is told by the bytes, or whoever changed the header
 * could send a webhook again; a hash. Without any signature the sender's word is all there is, and
 * without its word two webhooks of the same bytes are two. */
static struct slice take_id(struct ingest_verdict *out) {
    struct verification *v = &out->verification;
    const struct source *s = v->source;
    struct slice given = header_id(out), read = out->envelope.id;
    if (v->id.len > 0) return v->id;
    switch (s->scheme->id) {
    case ID_SIGNED:
        if (read.len > 0) return read;
        break;
    case ID_UNSIGNED:
        if (given.len == 0) given = read;
        if (given.len > 0 && s->options.trust_id_header) return given;
        /* A signed time tells apart what has the same bytes: then the hash is the better id. */
        if (v->signed_time.len > 0) break;
        out->dedupe_by_body = true;
        if (given.len > 0) return given;
        break;
    case ID_GIVEN: return read.len > 0 ? read : given;
    }
    const struct slice parts[] = {v->signed_time, v->request->body};
    verification_hash_id(v, parts, 2);
    return v->id;
}

/* Slack's url_verification: the text that proves who reads here. */
struct challenge {
    const char *type;
    struct slice text; /* raw, with its quotes */
    bool is_one;
};

static bool take_challenge(void *ctx, const struct json_value *v) {
    struct challenge *c = ctx;
    char type[64];
    if (v->depth != 1 || v->type != JSON_IS_STRING) return true;
    if (slice_eq_str(v->path[0], "challenge")) c->text = v->raw;
    if (slice_eq_str(v->path[0], "type")) {
        c->is_one =
            json_string_decode(v->raw, type, sizeof type) >= 0 && strcmp(type, c->type) == 0;
    }
    return true;
}

static void look_for_challenge(struct ingest *i, struct ingest_verdict *out) {
    const struct verification *v = &out->verification;
    struct challenge c = {.type = v->source->scheme->challenge};
    if (c.type == NULL || !json_walk(v->request->body, 1, take_challenge, &c, NULL)) return;
    if (!c.is_one || c.text.len == 0) return;
    out->challenge = true;
    buf_clear(&i->answer);
    buf_append_str(&i->answer, "{\"challenge\":");
    buf_append_slice(&i->answer, c.text);
    buf_append_str(&i->answer, "}\n");
    out->answer = buf_slice(&i->answer);
}

static struct slice content_type_of(const struct http_request *r) {
    struct slice type = http_header_get(r, "content-type", NULL);
    bool usable = type.len <= LIMIT_EVENT_CONTENT_TYPE_BYTES && json_utf8_error(type) == type.len;
    return usable ? type : slice_of(NULL, 0);
}

void ingest_look(struct ingest *i, struct source *source, const struct http_request *r,
                 uint64_t wall_ms, struct ingest_verdict *out) {
    const struct scheme *scheme = source->scheme;
    struct verification *v = &out->verification;
    v->tools = &i->tools;
    v->source = source;
    v->request = r;
    v->wall_ms = wall_ms;
    v->now_ms = loop_now_ms(i->options.loop);
    out->challenge = out->dedupe_by_body = false;
    out->err = scheme_verify(v);
    if (out->err != ERR_OK) return;
    look_for_challenge(i, out);

    envelope_read(scheme->envelope, r, &out->envelope);
    if (scheme->read_form != NULL && out->envelope.type.len == 0) {
        scheme->read_form(v, &out->envelope);
    }
    envelope_read_cloudevent(r, scheme->id != ID_SIGNED, &out->envelope);
    kept_headers_write(r, scheme->headers, &i->headers);
    out->event = (struct event){
        .time_ms = out->envelope.time_ms,
        .source = slice_str(source->name),
        .id = take_id(out),
        .type = out->envelope.type,
        .subject = out->envelope.subject,
        .content_type = content_type_of(r),
        .metadata = out->envelope.metadata,
        .headers = buf_slice(&i->headers),
        .body = r->body,
    };
}
