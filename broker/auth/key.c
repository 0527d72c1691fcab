/* One key: its rights, and its record. */
#include <stdio.h>

#include "base/base64.h"
#include "base/glob.h"
#include "broker/auth/auth.h"
#include "broker/fields/put.h"

static const struct {
    const char *name;
    unsigned bit;
} scope_names[] = {
    {"publish", SCOPE_PUBLISH},
    {"consume", SCOPE_CONSUME},
    {"manage", SCOPE_MANAGE},
    {"admin", SCOPE_ADMIN},
};
#define SCOPES (sizeof scope_names / sizeof scope_names[0])

const char *scope_name(unsigned bit) {
    for (size_t i = 0; i < SCOPES; i++) {
        if (scope_names[i].bit == bit) return scope_names[i].name;
    }
    UNREACHABLE("the bits are those of auth.h");
}

void scopes_format(unsigned scopes, const char *between, char *out, size_t size) {
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < SCOPES; i++) {
        if ((scopes & scope_names[i].bit) == 0) continue;
        len += (size_t)snprintf(out + len, size - len, "%s%s", len == 0 ? "" : between,
                                scope_names[i].name);
        CHECK(len < size);
    }
}

bool key_may(const struct key *k, unsigned any_of) {
    return (k->scopes & (any_of | SCOPE_ADMIN)) != 0;
}

static bool globs_match(const struct key_globs *globs, struct slice name) {
    for (size_t i = 0; i < globs->count; i++) {
        if (glob_match(slice_str(globs->items[i]), name)) return true;
    }
    return globs->count == 0;
}

bool key_may_subscription(const struct key *k, struct slice name) {
    return globs_match(&k->subscriptions, name);
}

bool key_may_source(const struct key *k, struct slice name) {
    return globs_match(&k->sources, name);
}

bool key_is_limited(const struct key *k) {
    return k->sources.count > 0 || k->subscriptions.count > 0;
}

bool key_is_expired(const struct key *k, uint64_t wall_ms) {
    return k->expires_at_ms != 0 && k->expires_at_ms <= wall_ms;
}

/* ---- JSON ---- */

static bool read_scopes(const struct fields *o, struct key *k, struct refusal *f) {
    const json_t *list = json_object_get(o->object, "scopes");
    size_t count = json_array_size(list); /* 0 of what is no array */
    k->scopes = 0;
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        unsigned bit = 0;
        for (size_t j = 0; j < SCOPES && text != NULL; j++) {
            if (strcmp(text, scope_names[j].name) == 0) bit = scope_names[j].bit;
        }
        if (bit == 0) {
            return refuse(f, ERR_INVALID_REQUEST,
                          "%sscopes[%zu] must be publish, consume, manage or admin", o->path, i);
        }
        k->scopes |= bit;
    }
    if (k->scopes != 0) return true;
    return refuse(f, ERR_INVALID_REQUEST,
                  "%sscopes is required: a list of publish, consume, manage or admin", o->path);
}

static bool is_name_glob(struct slice text) {
    if (text.len == 0 || text.len > LIMIT_NAME_BYTES) return false;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        bool alnum = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!alnum && c != '.' && c != '_' && c != '-' && c != '*') return false;
    }
    return true;
}

static bool read_globs(const struct fields *o, const char *name, struct key_globs *out,
                       struct refusal *f) {
    const json_t *list = json_object_get(o->object, name);
    size_t count = json_array_size(list);
    out->count = 0;
    if (list == NULL) return true;
    /* An empty list is refused: "none at all" is not what it would mean. */
    if (count == 0 || count > LIMIT_KEY_GLOBS) {
        return refuse(f, ERR_INVALID_REQUEST,
                      "%s%s must be a list of 1 to %d names or globs such as team-a.*; leave it "
                      "out for all",
                      o->path, name, LIMIT_KEY_GLOBS);
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        struct slice text = slice_of(json_string_value(item), json_string_length(item));
        if (!is_name_glob(text)) {
            return refuse(f, ERR_INVALID_REQUEST,
                          "%s%s[%zu] must be 1 to %d of A-Z a-z 0-9 . _ - and *", o->path, name, i,
                          LIMIT_NAME_BYTES);
        }
        bool fits = slice_to_cstr(text, out->items[out->count++], sizeof out->items[0]);
        CHECK(fits);
    }
    return true;
}

bool key_read_rights(const struct fields *o, struct key *k, struct refusal *f) {
    if (!read_scopes(o, k, f) || !read_globs(o, "sources", &k->sources, f) ||
        !read_globs(o, "subscriptions", &k->subscriptions, f)) {
        return false;
    }
    if ((k->scopes & SCOPE_ADMIN) == 0 || !key_is_limited(k)) return true;
    return refuse(f, ERR_INVALID_REQUEST,
                  "a key with the scope admin can make other keys: it cannot be limited to sources "
                  "or subscriptions");
}

static void put_globs(struct buf *b, const char *name, const struct key_globs *globs) {
    if (globs->count == 0) return;
    put_key(b, name);
    buf_append_byte(b, '[');
    for (size_t i = 0; i < globs->count; i++) {
        put_comma(b);
        buf_append_json_string(b, slice_str(globs->items[i]));
    }
    buf_append_byte(b, ']');
}

void key_put_rights(struct buf *b, const struct key *k) {
    put_key(b, "scopes");
    buf_append_byte(b, '[');
    for (size_t i = 0; i < SCOPES; i++) {
        if ((k->scopes & scope_names[i].bit) == 0) continue;
        put_comma(b);
        buf_append_json_string(b, slice_str(scope_names[i].name));
    }
    buf_append_byte(b, ']');
    put_globs(b, "sources", &k->sources);
    put_globs(b, "subscriptions", &k->subscriptions);
}

void key_encode(const struct key *k, struct buf *out) {
    char stored[2 * KEY_STORED_BYTES + 1];
    hex_encode(slice_of(k->stored_key, sizeof k->stored_key), stored);
    buf_append_byte(out, '{');
    put_text(out, "name", slice_str(k->name));
    put_u64(out, "project", k->project);
    key_put_rights(out, k);
    put_u64(out, "created_at_ms", k->created_at_ms);
    put_u64(out, "expires_at_ms", k->expires_at_ms);
    put_u64(out, "used_day", k->used_day);
    put_text(out, "stored_key", slice_str(stored));
    buf_append_byte(out, '}');
}

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_stored(struct slice hex, uint8_t out[KEY_STORED_BYTES]) {
    if (hex.len != 2 * (size_t)KEY_STORED_BYTES) return false;
    for (size_t i = 0; i < KEY_STORED_BYTES; i++) {
        int high = hex_digit(hex.data[2 * i]), low = hex_digit(hex.data[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

bool key_decode(struct slice id, struct slice value, struct key *out, struct refusal *f) {
    struct fields o = {.object = NULL};
    struct slice name = slice_of(NULL, 0), stored = slice_of(NULL, 0);
    uint64_t project = 0;
    *out = (struct key){.number = 0};
    bool ok =
        fields_parse(value, &o, f) && field_text(&o, "name", &name, f) &&
        field_u64(&o, "project", 1, UINT32_MAX, &project, f) && key_read_rights(&o, out, f) &&
        field_u64(&o, "created_at_ms", 0, INT64_MAX, &out->created_at_ms, f) &&
        field_u64(&o, "expires_at_ms", 0, INT64_MAX, &out->expires_at_ms, f) &&
        field_u64(&o, "used_day", 0, INT64_MAX, &out->used_day, f) &&
        field_text(&o, "stored_key", &stored, f) &&
        ((slice_to_cstr(id, out->id, sizeof out->id) && id.len == KEY_ID_BYTES) ||
         refuse(f, ERR_STORE, "its id is not one of a key")) &&
        (slice_to_cstr(name, out->name, sizeof out->name) ||
         refuse(f, ERR_STORE, "its name is too long")) &&
        (read_stored(stored, out->stored_key) || refuse(f, ERR_STORE, "stored_key is not hex")) &&
        (project != 0 || refuse(f, ERR_STORE, "project is missing"));
    out->project = (uint32_t)project;
    fields_free(&o);
    return ok;
}
