#include "broker/ingest/envelope.h"

#include <stdio.h>

#include "base/rfc3339.h"
#include "broker/json/walk.h"

#define NUMBER_BYTES 20

const struct envelope_rule envelope_standard = {
    .type = {"type"},
    .subject = {"data.id"},
    .time = "timestamp",
    .metadata = {"user_metadata", "data.user_metadata"},
};

/* What a path led to, as it stands in the body. */
struct found {
    struct slice raw; /* len 0: nothing */
    enum json_is type;
};

struct scan {
    const struct envelope_rule *rule;
    /* For each path of a list, in its order. */
    struct found type[ENVELOPE_PATHS], subject[ENVELOPE_PATHS], number[ENVELOPE_PATHS];
    struct found metadata[ENVELOPE_PATHS];
    struct found suffix, id, time;
};

static const struct slice none;

/* The text of a JSON string: a slice of it, or decoded into out[size] when it has escapes. Empty
 * when it is no string or longer than size - 1. */
static struct slice text_of(const struct found *v, char *out, size_t size) {
    if (v->raw.len == 0 || v->type != JSON_IS_STRING) return none;
    struct slice inner = slice_of(v->raw.data + 1, v->raw.len - 2);
    if (memchr(inner.data, '\\', inner.len) == NULL) return inner.len < size ? inner : none;
    long len = json_string_decode(v->raw, out, size);
    return len < 0 ? none : slice_of(out, (size_t)len);
}

/* The same of a string or a number. */
static struct slice text_or_number_of(const struct found *v, char *out, size_t size) {
    if (v->raw.len > 0 && v->type == JSON_IS_NUMBER) return v->raw.len < size ? v->raw : none;
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

static uint64_t time_of(const struct found *v, bool seconds) {
    char text[64];
    uint64_t wall_ms = 0, number = 0;
    if (seconds) {
        /* As far as a date has four digits for its year. */
        bool fits = slice_to_u64(v->raw, &number) && number <= 253402300799ULL;
        return fits ? number * 1000 : 0;
    }
    return rfc3339_parse(text_of(v, text, sizeof text), &wall_ms) ? wall_ms : 0;
}

/* The first of a list that makes a text. */
typedef struct slice text_fn(const struct found *v, char *out, size_t size);
static struct slice first_of(const struct found list[ENVELOPE_PATHS], text_fn *text, char *out,
                             size_t size) {
    for (size_t i = 0; i < ENVELOPE_PATHS; i++) {
        struct slice s = text(&list[i], out, size);
        if (s.len > 0) return s;
    }
    return none;
}

/* Whether the value is what a dotted path leads to. */
static bool is_at(const struct json_value *v, const char *path) {
    if (path == NULL) return false;
    for (size_t i = 0; i < v->depth; i++) {
        struct slice key = v->path[i];
        if (key.data == NULL || strncmp(path, (const char *)key.data, key.len) != 0) return false;
        path += key.len;
        if (*path != (i + 1 < v->depth ? '.' : '\0')) return false;
        path++;
    }
    return v->depth > 0;
}

/* The place of the value in a list of paths, or -1. */
static int place_in(const struct json_value *v, const char *const paths[ENVELOPE_PATHS]) {
    for (int i = 0; i < ENVELOPE_PATHS && paths[i] != NULL; i++) {
        if (is_at(v, paths[i])) return i;
    }
    return -1;
}

static bool take(void *ctx, const struct json_value *v) {
    struct scan *s = ctx;
    const struct envelope_rule *rule = s->rule;
    const struct found found = {v->raw, v->type};
    int at;
    if ((at = place_in(v, rule->type)) >= 0) s->type[at] = found;
    if ((at = place_in(v, rule->subject)) >= 0) s->subject[at] = found;
    if ((at = place_in(v, rule->subject_number)) >= 0) s->number[at] = found;
    if ((at = place_in(v, rule->metadata)) >= 0) s->metadata[at] = found;
    if (is_at(v, rule->type_suffix)) s->suffix = found;
    if (is_at(v, rule->time)) s->time = found;
    if (is_at(v, rule->id)) s->id = found;
    return true;
}

static size_t depth_of(const char *path) {
    size_t depth = path == NULL ? 0 : 1;
    for (; path != NULL && *path != '\0'; path++) depth += *path == '.';
    return depth;
}

static size_t deepest(const struct envelope_rule *rule) {
    const char *const *const lists[] = {rule->type, rule->subject, rule->subject_number,
                                        rule->metadata};
    const char *const singles[] = {rule->type_suffix, rule->time, rule->id};
    size_t max = 1;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        for (size_t k = 0; k < ENVELOPE_PATHS; k++) {
            if (depth_of(lists[i][k]) > max) max = depth_of(lists[i][k]);
        }
    }
    for (size_t i = 0; i < sizeof singles / sizeof singles[0]; i++) {
        if (depth_of(singles[i]) > max) max = depth_of(singles[i]);
    }
    return max;
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
    struct scan s = {.rule = rule};
    char suffix[LIMIT_EVENT_TYPE_BYTES + 1], number[NUMBER_BYTES + 1];
    envelope_clear(out);
    /* Of a body that is not JSON what was seen before the mistake does not count. */
    if (!json_walk(r->body, deepest(rule), take, &s, NULL)) s = (struct scan){.rule = rule};
    out->type = first_of(s.type, text_of, out->type_text, sizeof out->type_text);
    struct slice type = header_text(r, rule->type_header, LIMIT_EVENT_TYPE_BYTES);
    if (type.len > 0) out->type = type_from_header(rule, type, out->type_text);
    out->type = joined(out->type, '.', text_of(&s.suffix, suffix, sizeof suffix), out->type_text,
                       sizeof out->type_text);
    out->subject =
        first_of(s.subject, text_or_number_of, out->subject_text, sizeof out->subject_text);
    out->subject = joined(out->subject, '#', first_of(s.number, number_of, number, sizeof number),
                          out->subject_text, sizeof out->subject_text);
    out->id = text_of(&s.id, out->id_text, sizeof out->id_text);
    out->metadata = first_of(s.metadata, object_of, NULL, LIMIT_EVENT_METADATA_BYTES + 1);
    out->time_ms = time_of(&s.time, rule->time_seconds);
    uint64_t time_ms = 0;
    if (rfc3339_parse(header_text(r, rule->time_header, 64), &time_ms)) out->time_ms = time_ms;
}
