/* CloudEvents 1.0 over HTTP. In binary mode the attributes are headers and the body is the data; in
 * structured mode the body is one JSON object of attributes with the data inside. */
#include <stdio.h>

#include "base/rfc3339.h"
#include "broker/ingest/envelope.h"
#include "broker/json/walk.h"

#define STRUCTURED "application/cloudevents+json"

static const struct envelope_rule structured = {
    .paths = {ENVELOPE_AT(TYPE, "type"), ENVELOPE_AT(SUBJECT, "subject"), ENVELOPE_AT(TIME, "time"),
              ENVELOPE_AT(ID, "id")},
};

struct attributes {
    struct slice type, subject, source, id;
    uint64_t time_ms;
};

/* An attribute's value; a sender percent-encodes what a header cannot carry, and since one that
 * does not is as common, it is taken as it stands. */
static struct slice attribute(const struct http_request *r, const char *name, size_t max) {
    size_t count = 0;
    struct slice value = http_header_get(r, name, &count);
    bool usable = count == 1 && value.len <= max && json_utf8_error(value) == value.len;
    return usable ? value : slice_of(NULL, 0);
}

static bool take_source(void *ctx, const struct json_value *v) {
    struct slice *source = ctx;
    if (v->depth == 1 && v->type == JSON_IS_STRING && slice_eq_str(v->path[0], "source")) {
        *source = slice_of(v->raw.data + 1, v->raw.len - 2);
    }
    return true;
}

static bool is_structured(const struct http_request *r) {
    struct slice type = http_header_get(r, "content-type", NULL);
    const size_t len = sizeof STRUCTURED - 1;
    if (type.len < len) return false;
    bool ends = type.len == len || type.data[len] == ';' || type.data[len] == ' ';
    type.len = len;
    return ends && slice_eq_nocase(type, STRUCTURED);
}

static void take_id(struct slice source, struct slice id, struct envelope *out) {
    if (id.len == 0) return;
    int len = source.len == 0 ? 0
                              : snprintf(out->id_text, sizeof out->id_text, "%.*s#%.*s",
                                         SLICE_ARG(source), SLICE_ARG(id));
    /* One that does not fit is left to whoever makes ids from the bytes. */
    out->id = source.len == 0                     ? id
              : (size_t)len < sizeof out->id_text ? slice_of(out->id_text, (size_t)len)
                                                  : slice_of(NULL, 0);
}

static void read_binary(const struct http_request *r, bool id_too, struct envelope *out) {
    struct slice type = attribute(r, "ce-type", LIMIT_EVENT_TYPE_BYTES);
    struct slice subject = attribute(r, "ce-subject", LIMIT_EVENT_SUBJECT_BYTES);
    uint64_t time_ms = 0;
    if (type.len > 0) out->type = type;
    if (subject.len > 0) out->subject = subject;
    if (rfc3339_parse(attribute(r, "ce-time", 64), &time_ms)) out->time_ms = time_ms;
    if (!id_too) return;
    take_id(attribute(r, "ce-source", LIMIT_EVENT_ID_BYTES),
            attribute(r, "ce-id", LIMIT_EVENT_ID_BYTES), out);
}

static void read_structured(const struct http_request *r, struct envelope *out) {
    struct envelope found;
    struct slice source = slice_of(NULL, 0);
    envelope_read(&structured, r, &found);
    if (!json_walk(r->body, 1, take_source, &source, NULL)) return;
    /* Texts that stand in `found` die with it. */
    if (found.type.len > 0) {
        memcpy(out->type_text, found.type.data, found.type.len);
        out->type = slice_of(out->type_text, found.type.len);
    }
    if (found.subject.len > 0) {
        memcpy(out->subject_text, found.subject.data, found.subject.len);
        out->subject = slice_of(out->subject_text, found.subject.len);
    }
    if (found.time_ms != 0) out->time_ms = found.time_ms;
    if (found.id.len > 0) {
        char id[LIMIT_EVENT_ID_BYTES + 1];
        memcpy(id, found.id.data, found.id.len);
        struct slice copy = slice_of(id, found.id.len);
        take_id(source, copy, out);
        if (out->id.data == (const uint8_t *)id) {
            memcpy(out->id_text, id, copy.len);
            out->id.data = (const uint8_t *)out->id_text;
        }
    }
}

void envelope_read_cloudevent(const struct http_request *r, bool id_header_too,
                              struct envelope *out) {
    if (http_header_get(r, "ce-specversion", NULL).len > 0) read_binary(r, id_header_too, out);
    else if (is_structured(r)) read_structured(r, out);
}
