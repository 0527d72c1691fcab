#include "broker/ingest/envelope.h"

#include <stdio.h>

#include "base/rfc3339.h"
#include "broker/json/walk.h"

#define NUMBER_BYTES 20

const struct envelope_rule envelope_standard = {
    .paths = {ENVELOPE_AT(TYPE, "type"), ENVELOPE_AT2(SUBJECT, "data", "id"),
              ENVELOPE_AT(TIME, "timestamp"), ENVELOPE_AT(METADATA, "user_metadata"),
              ENVELOPE_AT2(METADATA, "data", "user_metadata")},
};

/* What a path led to, as it stands in the body. */
struct found {
    struct slice raw; /* len 0: nothing */
    enum json_is type;
};

struct scan {
    const struct envelope_path *paths;
    struct found found[ENVELOPE_PATHS]; /* of each path */
};

static const struct slice none;

/* The text of a JSON string: a slice of it, or decoded into out[size] when it has escapes. Empty
 * when it is no string or longer than size - 1. */
static struct slice text_of(const struct found *v, char *out, size_t size) {
    if (v->type != JSON_IS_STRING) return none;
    struct slice inner = slice_of(v->raw.data + 1, v->raw.len - 2);
    if (memchr(inner.data, '\\', inner.len) == NULL) return inner.len < size ? inner : none;
    long len = json_string_decode(v->raw, out, size);
    return len < 0 ? none : slice_of(out, (size_t)len);
}

/* The same of a string or a number. */
static struct slice text_or_number_of(const struct found *v, char *out, size_t size) {
    if (v->type == JSON_IS_NUMBER) return v->raw.len < size ? v->raw : none;
    return text_of(v, out, size);
}

static struct slice number_of(const struct found *v, char *out, size_t size) {
    (void)out;
    return v->type == JSON_IS_NUMBER && v->raw.len < size ? v->raw : none;
}

static struct slice object_of(const struct found *v, char *out, size_t size) {
    (void)out;
    return v->type == JSON_IS_OBJECT && v->raw.len < size ? v->raw : none;
}

static uint64_t time_of(struct slice text) {
    uint64_t wall_ms = 0;
    return rfc3339_parse(text, &wall_ms) ? wall_ms : 0;
}

static uint64_t time_of_seconds(struct slice number) {
    uint64_t wall_s = 0;
    /* As far as a date has four digits for its year. */
    bool fits = slice_to_u64(number, &wall_s) && wall_s <= 253402300799ULL;
    return fits ? wall_s * 1000 : 0;
}

/* The first path of a field that makes a text. */
typedef struct slice text_fn(const struct found *v, char *out, size_t size);
static struct slice first_of(const struct scan *s, enum envelope_field field, text_fn *text,
                             char *out, size_t size) {
    for (size_t i = 0; s->paths[i].depth > 0; i++) {
        if (s->paths[i].field != field || s->found[i].raw.len == 0) continue;
        struct slice found = text(&s->found[i], out, size);
        if (found.len > 0) return found;
    }
    return none;
}

/* The last name tells most values apart. */
static bool is_at(const struct json_value *v, const struct envelope_path *path) {
    if (v->depth != path->depth) return false;
    for (size_t i = v->depth; i-- > 0;) {
        if (!slice_eq(v->path[i], path->names[i])) return false;
    }
    return true;
}

static bool take(void *ctx, const struct json_value *v) {
    struct scan *s = ctx;
    for (size_t i = 0; s->paths[i].depth > 0; i++) {
        if (is_at(v, &s->paths[i])) s->found[i] = (struct found){v->raw, v->type};
    }
    return true;
}

static void scan_body(struct scan *s, struct slice body) {
    size_t deepest = 0;
    for (size_t i = 0; s->paths[i].depth > 0; i++) {
        s->found[i].raw = none;
        if (s->paths[i].depth > deepest) deepest = s->paths[i].depth;
    }
    if (json_walk(body, deepest, take, s, NULL)) return;
    /* What was seen before the mistake does not count. */
    for (size_t i = 0; s->paths[i].depth > 0; i++) s->found[i].raw = none;
}

void envelope_clear(struct envelope *out) {
    out->type = out->subject = out->id = out->metadata = none;
    out->time_ms = 0;
}

static struct slice header_text(const struct http_request *r, const char *name, size_t max) {
    if (name == NULL) return none;
    struct slice value = http_header_get(r, name, NULL);
    return value.len > max || json_utf8_error(value) != value.len ? none : value;
}

/* first, a separator and second in out[size]; just the first when both do not fit. */
static struct slice joined(struct slice first, char separator, struct slice second, char *out,
                           size_t size) {
    if (first.len == 0 || second.len == 0 || first.len + 1 + second.len >= size) return first;
    memmove(out, first.data, first.len); /* it may stand there already */
    out[first.len] = separator;
    memcpy(out + first.len + 1, second.data, second.len);
    return slice_of(out, first.len + 1 + second.len);
}

static struct slice type_from_header(const struct envelope_rule *rule, struct slice header,
                                     char out[LIMIT_EVENT_TYPE_BYTES + 1]) {
    if (rule->type_slash == 0) return header;
    memcpy(out, header.data, header.len);
    for (size_t i = 0; i < header.len; i++) {
        if (out[i] == rule->type_slash) out[i] = '.';
    }
    return slice_of(out, header.len);
}

void envelope_read(const struct envelope_rule *rule, const struct http_request *r,
                   struct envelope *out) {
    struct scan s;
    char suffix[LIMIT_EVENT_TYPE_BYTES + 1], number[NUMBER_BYTES + 1], time[64];
    s.paths = rule->paths;
    scan_body(&s, r->body);
    out->type = first_of(&s, ENVELOPE_TYPE, text_of, out->type_text, sizeof out->type_text);
    struct slice type = header_text(r, rule->type_header, LIMIT_EVENT_TYPE_BYTES);
    if (type.len > 0) out->type = type_from_header(rule, type, out->type_text);
    out->type =
        joined(out->type, '.', first_of(&s, ENVELOPE_TYPE_SUFFIX, text_of, suffix, sizeof suffix),
               out->type_text, sizeof out->type_text);
    out->subject = first_of(&s, ENVELOPE_SUBJECT, text_or_number_of, out->subject_text,
                            sizeof out->subject_text);
    out->subject = joined(out->subject, '#',
                          first_of(&s, ENVELOPE_SUBJECT_NUMBER, number_of, number, sizeof number),
                          out->subject_text, sizeof out->subject_text);
    out->id = first_of(&s, ENVELOPE_ID, text_of, out->id_text, sizeof out->id_text);
    out->metadata =
        first_of(&s, ENVELOPE_METADATA, object_of, NULL, LIMIT_EVENT_METADATA_BYTES + 1);
    out->time_ms = time_of(header_text(r, rule->time_header, sizeof time));
    if (out->time_ms > 0) return;
    out->time_ms = time_of(first_of(&s, ENVELOPE_TIME, text_of, time, sizeof time));
    if (out->time_ms > 0) return;
    out->time_ms =
        time_of_seconds(first_of(&s, ENVELOPE_TIME_SECONDS, number_of, number, sizeof number));
}
