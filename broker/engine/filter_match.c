/* An event against clauses. What holds is worked out twice at most: first without user_metadata,
 * where each question to it is unknown; most events are decided by their type, source and subject
 * and are never parsed. Only when that leaves it open are the members noted and all is asked. */
#include <stdio.h>

#include "base/glob.h"
#include "base/hash.h"
#include "broker/engine/filter_internal.h"
#include "broker/json/members.h"

/* Ordered so that "all of" is the lowest, "any of" the highest and "not" YES minus it. */
enum holds { NO, UNKNOWN, YES };

/* ---- the event's user_metadata ---- */

/* Lines of a text that does not end with one. */
static uint32_t count_lines(struct slice text) {
    uint32_t count = text.len > 0;
    for (size_t i = 0; i < text.len; i++) count += text.data[i] == '\n';
    return count;
}

void filter_subject_init(struct filter_subject *s, const struct event *event) {
    s->event = event;
    s->endpoints = count_lines(event->endpoints);
    s->parsed = event->metadata.len == 0;
    s->overflow = false;
    s->count = 0;
}

static void note(struct filter_subject *s) {
    struct json_members members;
    struct slice name, raw;
    if (s->parsed) return;
    s->parsed = true;
    json_members_init(&members, s->event->metadata);
    while (json_members_next(&members, &name, &raw)) {
        s->overflow = s->count == FILTER_SUBJECT_MEMBERS;
        if (s->overflow) return;
        s->members[s->count++] = (struct filter_member){.name = name, .raw = raw};
    }
}

/* A name or a pointer's token, compared with names of the text as they are written there. */
struct wanted {
    struct slice text;
    bool token;
    size_t index; /* as an array's index; SIZE_MAX: it is none */
    struct slice *found;
};

static bool name_eq(const struct wanted *w, struct slice name) {
    return w->token ? filter_token_eq(w->text, name) : slice_eq(w->text, name);
}

static bool escaped_name_is(const struct wanted *w, struct slice raw) {
    struct filter_scratch scratch;
    struct slice name;
    return filter_name_read(raw, &scratch, &name) && name_eq(w, name);
}

static bool name_is(const struct wanted *w, struct slice raw) {
    bool escaped = memchr(raw.data, '\\', raw.len) != NULL;
    return escaped ? escaped_name_is(w, raw) : name_eq(w, raw);
}

static bool look_at_child(void *ctx, const struct json_value *v) {
    const struct wanted *w = ctx;
    if (v->depth == 0) return true;
    bool it = v->path[0].data == NULL ? v->index == w->index : name_is(w, v->path[0]);
    if (it) *w->found = v->raw; /* of members with the same name the last one counts */
    return true;
}

static bool find_child(struct slice parent, struct wanted *w) {
    *w->found = slice_of(NULL, 0);
    if (parent.data[0] != '{' && parent.data[0] != '[') return false;
    uint64_t index;
    bool is_index = w->token && slice_to_u64(w->text, &index) && index < SIZE_MAX &&
                    (w->text.len == 1 || w->text.data[0] != '0');
    w->index = is_index ? (size_t)index : SIZE_MAX;
    return json_walk(parent, 1, look_at_child, w, NULL) && w->found->len > 0;
}

static bool find_member(struct filter_subject *s, struct wanted *w) {
    note(s);
    /* Among those that were not noted there may be a later one of this name. */
    if (s->overflow) return find_child(s->event->metadata, w);
    for (size_t i = s->count; i-- > 0;) {
        if (!name_is(w, s->members[i].name)) continue;
        *w->found = s->members[i].raw;
        return true;
    }
    return false;
}

/* The raw value under a name or pointer. */
static bool find_value(struct filter_subject *s, struct slice name, struct slice *raw) {
    struct wanted w = {.text = name, .found = raw};
    if (name.data[0] != '/') return find_member(s, &w);
    w.token = true;
    w.text = filter_pointer_next(&name);
    if (!find_member(s, &w)) return false;
    while (name.len > 0) {
        struct slice parent = *raw;
        w.text = filter_pointer_next(&name);
        if (!find_child(parent, &w)) return false;
    }
    return true;
}

/* ---- conditions ---- */

/* `value` is NULL when the name is absent. */
static bool condition_holds(const struct filter_condition *c, const struct filter_value *value) {
    if (c->has_exists && c->exists != (value != NULL)) return false;
    if (c->has_equals && (value == NULL || !filter_value_eq(&c->equals, value))) return false;
    if (c->in_count > 0) {
        if (value == NULL) return false;
        size_t i = 0;
        while (i < c->in_count && !filter_value_eq(&c->in[i], value)) i++;
        if (i == c->in_count) return false;
    }
    if (c->prefix.len > 0) {
        if (value == NULL || value->type != FILTER_STRING || value->text.len < c->prefix.len ||
            memcmp(value->text.data, c->prefix.data, c->prefix.len) != 0) {
            return false;
        }
    }
    return c->inverse == NULL || !condition_holds(c->inverse, value);
}

static enum holds field_holds(const struct filter_field *f, struct filter_subject *s) {
    if (!s->parsed) return UNKNOWN;
    struct slice raw;
    if (!find_value(s, f->name, &raw)) return condition_holds(&f->condition, NULL) ? YES : NO;
    struct filter_scratch scratch;
    struct filter_value value;
    filter_value_read(raw, &scratch, &value);
    return condition_holds(&f->condition, &value) ? YES : NO;
}

/* ---- clauses ---- */

static bool one_is(const struct slice *names, size_t count, struct slice name) {
    for (size_t i = 0; i < count; i++) {
        if (slice_eq(names[i], name)) return true;
    }
    return false;
}

static bool one_matches(const struct slice *globs, size_t count, struct slice type) {
    for (size_t i = 0; i < count; i++) {
        if (glob_match(globs[i], type)) return true;
    }
    return false;
}

static bool begins_with(struct slice s, struct slice prefix) {
    return s.len >= prefix.len && (prefix.len == 0 || memcmp(s.data, prefix.data, prefix.len) == 0);
}

static enum holds clause_holds(const struct filter_clause *k, struct filter_subject *s) {
    const struct event *e = s->event;
    if (k->types_count > 0 && !one_matches(k->types, k->types_count, e->type)) return NO;
    if (k->sources_count > 0 && !one_is(k->sources, k->sources_count, e->source)) return NO;
    if (!begins_with(e->subject, k->subject_prefix)) return NO;
    if (k->has_endpoint && k->endpoint >= s->endpoints) return NO;

    enum holds result = YES;
    for (size_t i = 0; i < k->fields_count && result != NO; i++) {
        enum holds h = field_holds(&k->fields[i], s);
        if (h < result) result = h;
    }
    for (size_t i = 0; i < k->all_count && result != NO; i++) {
        enum holds h = clause_holds(&k->all[i], s);
        if (h < result) result = h;
    }
    if (k->any_count > 0 && result != NO) {
        enum holds best = NO;
        for (size_t i = 0; i < k->any_count && best != YES; i++) {
            enum holds h = clause_holds(&k->any[i], s);
            if (h > best) best = h;
        }
        if (best < result) result = best;
    }
    if (k->inverse != NULL && result != NO) {
        enum holds h = (enum holds)(YES - clause_holds(k->inverse, s));
        if (h < result) result = h;
    }
    return result;
}

bool filter_match(const struct filter *f, struct filter_subject *subject) {
    enum holds result = clause_holds(&f->root, subject);
    if (result == UNKNOWN) {
        note(subject);
        result = clause_holds(&f->root, subject);
        CHECK(result != UNKNOWN);
    }
    return result == YES;
}

/* ---- hashes and keys ---- */

/* False: no filter can name its value. */
static bool member_hash(struct filter_member *m) {
    if (m->raw.data[0] == '{' || m->raw.data[0] == '[') return false;
    if (m->hashed) return true;
    struct filter_scratch scratch;
    struct slice name;
    struct filter_value value;
    if (!filter_name_read(m->name, &scratch, &name)) return false;
    uint64_t name_hash = filter_name_hash(name);
    filter_value_read(m->raw, &scratch, &value); /* the name is hashed: its bytes are free again */
    if (value.type == FILTER_OTHER) return false;
    m->hash = filter_value_hash(name_hash, &value);
    m->hashed = true;
    return true;
}

void filter_subject_hashes(struct filter_subject *s, filter_hash_fn *fn, void *ctx) {
    struct json_members members;
    struct filter_member m = {.hashed = false};
    note(s);
    for (size_t i = 0; i < s->count; i++) {
        if (member_hash(&s->members[i])) fn(ctx, s->members[i].hash);
    }
    if (!s->overflow) return;
    json_members_init(&members, s->event->metadata);
    for (size_t i = 0; json_members_next(&members, &m.name, &m.raw); i++, m.hashed = false) {
        if (i >= FILTER_SUBJECT_MEMBERS && member_hash(&m)) fn(ctx, m.hash);
    }
}

bool filter_subject_value(struct filter_subject *subject, struct slice name, uint8_t *scratch,
                          size_t scratch_size, struct slice *out) {
    CHECK(scratch_size >= FILTER_VALUE_BYTES_MIN);
    struct slice raw;
    if (!find_value(subject, name, &raw)) return false;
    if (raw.data[0] == '{' || raw.data[0] == '[') return false;
    struct filter_scratch text;
    struct filter_value v;
    filter_value_read(raw, &text, &v);
    if (v.type == FILTER_STRING && v.text.len <= scratch_size) {
        bool borrowed = memchr(raw.data, '\\', raw.len) == NULL;
        if (!borrowed) memcpy(scratch, v.text.data, v.text.len);
        *out = borrowed ? v.text : slice_of(scratch, v.text.len);
        return true;
    }
    /* Numbers by their value; long strings, and what cannot be compared, by a hash. */
    uint64_t bits = v.magnitude;
    if (v.type == FILTER_NUMBER && !v.whole) memcpy(&bits, &v.real, sizeof bits);
    if (v.type == FILTER_STRING) bits = hash_bytes(0, v.text);
    if (v.type == FILTER_OTHER) bits = hash_bytes(0, raw);
    int len = snprintf((char *)scratch, scratch_size, "\xFF%d%d%d.%016llx", (int)v.type, v.whole,
                       v.negative, (unsigned long long)bits);
    *out = slice_of(scratch, (size_t)len);
    return true;
}
