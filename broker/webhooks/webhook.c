/* One webhook: its life, its secrets, and the form in which it is stored:
 *
 *   {"created_at_ms":1795251600000,"updated_at_ms":..,"uri":"https://..","types":["batch.*"],
 *    "state":"enabled","paused":false,"rate_per_s":0,"concurrency":8,
 *    "secrets":[{"secret":"whsec_..","expires_at_ms":0}], ...}
 *
 * with project (its number, unless it is the default one), name, description, filter (its text, as
 * a string), headers, disabled_at_ms, failing_since_ms and disabled_reason where there are any. */
#include <openssl/rand.h>
#include <stdlib.h>

#include "broker/fields/put.h"
#include "broker/webhooks/registry.h"

static const char *const state_names[] = {
    [WEBHOOK_ENABLED] = "enabled",
    [WEBHOOK_DISABLED] = "disabled",
    [WEBHOOK_DISABLED_DUE_TO_FAILED_DELIVERIES] = "disabled_due_to_failed_deliveries",
};
#define STATES (sizeof state_names / sizeof state_names[0])

const char *webhook_state_name(enum webhook_state s) {
    CHECK((size_t)s < STATES);
    return state_names[s];
}

bool webhook_state_from_name(struct slice name, enum webhook_state *out) {
    for (size_t i = 0; i < STATES; i++) {
        if (!slice_eq_nocase(name, state_names[i])) continue;
        *out = (enum webhook_state)i;
        return true;
    }
    return false;
}

/* ---- life ---- */

static char *text_of(struct slice text) {
    char *copy = mem_alloc(text.len + 1);
    if (text.len > 0) memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    return copy;
}

void webhook_set_text(char **field, struct slice text) {
    char *copy = text_of(text); /* which may be a part of what it replaces */
    free(*field);
    *field = copy;
}

struct webhook *webhook_new(void) {
    struct webhook *w = mem_zalloc(sizeof *w);
    char **const texts[] = {&w->name, &w->description, &w->uri, &w->filter, &w->disabled_reason};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) *texts[i] = mem_strdup("");
    w->project = PROJECT_DEFAULT;
    return w;
}

struct webhook *webhook_copy(const struct webhook *w) {
    struct webhook *copy = mem_alloc(sizeof *copy);
    *copy = *w;
    copy->name = mem_strdup(w->name);
    copy->description = mem_strdup(w->description);
    copy->uri = mem_strdup(w->uri);
    copy->filter = mem_strdup(w->filter);
    copy->disabled_reason = mem_strdup(w->disabled_reason);
    copy->types = NULL;
    copy->headers = NULL;
    if (w->types_count > 0) copy->types = mem_alloc(w->types_count * sizeof *copy->types);
    if (w->headers_count > 0) copy->headers = mem_alloc(w->headers_count * sizeof *copy->headers);
    for (size_t i = 0; i < w->types_count; i++) copy->types[i] = mem_strdup(w->types[i]);
    for (size_t i = 0; i < w->headers_count; i++) {
        copy->headers[i].name = mem_strdup(w->headers[i].name);
        copy->headers[i].value = mem_strdup(w->headers[i].value);
    }
    return copy;
}

void webhook_set_types(struct webhook *w, const struct slice *types, size_t count) {
    for (size_t i = 0; i < w->types_count; i++) free(w->types[i]);
    free(w->types);
    w->types = count == 0 ? NULL : mem_alloc(count * sizeof *w->types);
    w->types_count = count;
    for (size_t i = 0; i < count; i++) w->types[i] = text_of(types[i]);
}

void webhook_set_headers(struct webhook *w, const struct text_member *headers, size_t count) {
    for (size_t i = 0; i < w->headers_count; i++) {
        free(w->headers[i].name);
        explicit_bzero(w->headers[i].value, strlen(w->headers[i].value));
        free(w->headers[i].value);
    }
    free(w->headers);
    w->headers = count == 0 ? NULL : mem_alloc(count * sizeof *w->headers);
    w->headers_count = count;
    for (size_t i = 0; i < count; i++) {
        w->headers[i].name = mem_strdup(headers[i].name);
        w->headers[i].value = text_of(headers[i].value);
    }
}

void webhook_free(struct webhook **out) {
    struct webhook *w = *out;
    if (w == NULL) return;
    webhook_set_types(w, NULL, 0);
    webhook_set_headers(w, NULL, 0);
    free(w->name);
    free(w->description);
    free(w->uri);
    free(w->filter);
    free(w->disabled_reason);
    explicit_bzero(w->secrets, sizeof w->secrets);
    free(w);
    *out = NULL;
}

/* ---- id and secrets ---- */

void webhook_make_id(char out[WEBHOOK_ID_BYTES + 1]) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    const uint8_t fair = 256 / 36 * 36; /* bytes below this fall on every letter equally often */
    size_t len = 0;
    while (len < WEBHOOK_ID_BYTES) {
        uint8_t bytes[WEBHOOK_ID_BYTES];
        CRYPTO_CHECK(RAND_bytes(bytes, sizeof bytes) == 1);
        for (size_t i = 0; i < sizeof bytes && len < WEBHOOK_ID_BYTES; i++) {
            if (bytes[i] < fair) out[len++] = letters[bytes[i] % 36];
        }
    }
    out[len] = '\0';
}

size_t webhook_secrets_valid(const struct webhook *w, uint64_t wall_ms) {
    size_t count = 0;
    while (count < w->secrets_count &&
           (w->secrets[count].expires_at_ms == 0 || w->secrets[count].expires_at_ms > wall_ms)) {
        count++;
    }
    return count;
}

const char *webhook_rotate(struct webhook *w, uint64_t wall_ms, bool at_once) {
    const char *why = NULL;
    size_t kept = at_once ? 0 : webhook_secrets_valid(w, wall_ms);
    if (kept == LIMIT_WEBHOOK_SECRETS) kept--;
    memmove(&w->secrets[1], &w->secrets[0], kept * sizeof w->secrets[0]);
    for (size_t i = 1; i <= kept; i++) {
        uint64_t *expires_at_ms = &w->secrets[i].expires_at_ms;
        uint64_t end_ms = wall_ms + WEBHOOK_OVERLAP_MS;
        if (*expires_at_ms == 0 || *expires_at_ms > end_ms) *expires_at_ms = end_ms;
    }
    w->secrets_count = kept + 1;
    explicit_bzero(&w->secrets[w->secrets_count],
                   (LIMIT_WEBHOOK_SECRETS - w->secrets_count) * sizeof w->secrets[0]);
    struct webhook_secret *fresh = &w->secrets[0];
    secret_generate(fresh->text);
    CHECK(secret_parse(slice_str(fresh->text), &fresh->secret, &why) == ERR_OK);
    fresh->expires_at_ms = 0;
    return fresh->text;
}

void webhook_subscription(const struct webhook *w, char out[LIMIT_NAME_BYTES + 1]) {
    _Static_assert(sizeof WEBHOOK_SUBSCRIPTION_PREFIX + WEBHOOK_ID_BYTES <= LIMIT_NAME_BYTES,
                   "it is the name of a subscription");
    const size_t prefix = sizeof WEBHOOK_SUBSCRIPTION_PREFIX - 1;
    memcpy(out, WEBHOOK_SUBSCRIPTION_PREFIX, prefix);
    memcpy(out + prefix, w->id, sizeof w->id);
}

/* ---- the stored form ---- */

size_t webhook_bytes(const struct webhook *w) {
    size_t bytes = strlen(w->name) + strlen(w->description) + strlen(w->uri) + strlen(w->filter);
    for (size_t i = 0; i < w->types_count; i++) bytes += strlen(w->types[i]);
    for (size_t i = 0; i < w->headers_count; i++) {
        bytes += strlen(w->headers[i].name) + strlen(w->headers[i].value);
    }
    return bytes;
}

static void put_text_of(struct buf *out, const char *name, const char *text) {
    put_text_unless_empty(out, name, slice_str(text));
}

static void put_u64_unless_0(struct buf *out, const char *name, uint64_t value) {
    if (value != 0) put_u64(out, name, value);
}

void webhook_encode(const struct webhook *w, struct buf *out) {
    buf_append_byte(out, '{');
    put_u64(out, "created_at_ms", w->created_at_ms);
    put_u64(out, "updated_at_ms", w->updated_at_ms);
    if (w->project != PROJECT_DEFAULT) put_u64(out, "project", w->project);
    put_text_of(out, "name", w->name);
    put_text_of(out, "description", w->description);
    put_text_of(out, "uri", w->uri);
    put_text_of(out, "filter", w->filter);
    put_key(out, "types");
    buf_append_byte(out, '[');
    for (size_t i = 0; i < w->types_count; i++) {
        put_comma(out);
        buf_append_json_string(out, slice_str(w->types[i]));
    }
    buf_append_byte(out, ']');
    if (w->headers_count > 0) put_open(out, "headers");
    for (size_t i = 0; i < w->headers_count; i++) {
        put_text(out, w->headers[i].name, slice_str(w->headers[i].value));
    }
    if (w->headers_count > 0) put_close(out);
    put_text_of(out, "state", webhook_state_name(w->state));
    put_bool(out, "paused", w->paused);
    put_u64(out, "rate_per_s", w->rate_per_s);
    put_u64(out, "concurrency", w->concurrency);
    put_u64_unless_0(out, "disabled_at_ms", w->disabled_at_ms);
    put_u64_unless_0(out, "failing_since_ms", w->failing_since_ms);
    put_text_of(out, "disabled_reason", w->disabled_reason);
    put_key(out, "secrets");
    buf_append_byte(out, '[');
    for (size_t i = 0; i < w->secrets_count; i++) {
        put_comma(out);
        buf_append_byte(out, '{');
        put_text_of(out, "secret", w->secrets[i].text);
        put_u64_unless_0(out, "expires_at_ms", w->secrets[i].expires_at_ms);
        buf_append_byte(out, '}');
    }
    buf_append_str(out, "]}");
    CHECK(!out->overflow);
}

static bool read_text(const struct fields *o, const char *name, char **out, struct refusal *f) {
    struct slice text = slice_of(NULL, 0);
    if (!field_text(o, name, &text, f)) return false;
    webhook_set_text(out, text);
    return true;
}

static bool read_number(const struct fields *o, const char *name, uint32_t min, uint32_t max,
                        uint32_t *out, struct refusal *f) {
    uint64_t n = *out;
    if (!field_u64(o, name, min, max, &n, f)) return false;
    *out = (uint32_t)n;
    return true;
}

static bool read_secrets(const struct fields *o, struct webhook *w, struct refusal *f) {
    size_t count = 0;
    if (!field_objects(o, "secrets", LIMIT_WEBHOOK_SECRETS, &count, f)) return false;
    if (count == 0) return refuse(f, ERR_STORE, "it has no secret");
    for (size_t i = 0; i < count; i++) {
        struct fields item = field_object_at(o, "secrets", i, "secrets.");
        struct webhook_secret *s = &w->secrets[i];
        struct slice text = slice_of(NULL, 0);
        const char *why = NULL;
        if (!field_text(&item, "secret", &text, f) ||
            !field_u64(&item, "expires_at_ms", 0, INT64_MAX, &s->expires_at_ms, f)) {
            return false;
        }
        if (!slice_to_cstr(text, s->text, sizeof s->text) ||
            secret_parse(text, &s->secret, &why) != ERR_OK) {
            return refuse(f, ERR_STORE, "secrets[%zu] %s", i, why == NULL ? "is too long" : why);
        }
        w->secrets_count = i + 1;
    }
    return true;
}

static bool read_state(const struct fields *o, struct webhook *w, struct refusal *f) {
    struct slice name = slice_of(NULL, 0);
    if (!field_text(o, "state", &name, f)) return false;
    if (webhook_state_from_name(name, &w->state)) return true;
    return refuse(f, ERR_STORE, "this version does not know its state");
}

static bool read_all(const struct fields *o, struct webhook *w, struct arena *arena,
                     struct refusal *f) {
    const struct slice *types = NULL;
    const struct text_member *headers = NULL;
    size_t types_count = 0, headers_count = 0;
    if (!field_texts(o, "types", LIMIT_WEBHOOK_TYPES, LIMIT_EVENT_TYPE_BYTES, arena, &types,
                     &types_count, f) ||
        !field_text_members(o, "headers", LIMIT_WEBHOOK_HEADERS, arena, &headers, &headers_count,
                            f)) {
        return false;
    }
    webhook_set_types(w, types, types_count);
    webhook_set_headers(w, headers, headers_count);
    w->concurrency = WEBHOOK_CONCURRENCY_DEFAULT;
    bool ok = field_u64(o, "created_at_ms", 0, INT64_MAX, &w->created_at_ms, f) &&
              field_u64(o, "updated_at_ms", 0, INT64_MAX, &w->updated_at_ms, f) &&
              read_text(o, "name", &w->name, f) &&
              read_text(o, "description", &w->description, f) && read_text(o, "uri", &w->uri, f) &&
              read_text(o, "filter", &w->filter, f) && read_state(o, w, f) &&
              field_bool(o, "paused", &w->paused, f) &&
              read_number(o, "project", PROJECT_DEFAULT, UINT32_MAX - 1, &w->project, f) &&
              read_number(o, "rate_per_s", 0, LIMIT_RATE_PER_S, &w->rate_per_s, f) &&
              read_number(o, "concurrency", 0, LIMIT_WEBHOOK_CONCURRENCY, &w->concurrency, f) &&
              field_u64(o, "disabled_at_ms", 0, INT64_MAX, &w->disabled_at_ms, f) &&
              field_u64(o, "failing_since_ms", 0, INT64_MAX, &w->failing_since_ms, f) &&
              read_text(o, "disabled_reason", &w->disabled_reason, f) && read_secrets(o, w, f);
    if (!ok) return false;
    if (w->uri[0] == '\0' || types_count == 0 || w->concurrency == 0) {
        return refuse(f, ERR_STORE, "it has no %s",
                      w->uri[0] == '\0'  ? "uri"
                      : types_count == 0 ? "types"
                                         : "concurrency");
    }
    return true;
}

static bool id_ok(struct slice id) {
    for (size_t i = 0; i < id.len; i++) {
        uint8_t c = id.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))) return false;
    }
    return id.len == WEBHOOK_ID_BYTES;
}

struct webhook *webhook_decode(struct slice id, struct slice value, struct refusal *f) {
    struct webhook *w = webhook_new();
    struct fields o = {.object = NULL};
    struct arena arena;
    arena_init(&arena);
    bool ok = id_ok(id) || refuse(f, ERR_STORE, "its id is not one of a webhook");
    ok = ok && fields_parse(value, &o, f) && read_all(&o, w, &arena, f);
    if (ok) memcpy(w->id, id.data, id.len);
    fields_free(&o);
    arena_free(&arena);
    if (!ok) webhook_free(&w);
    return w;
}
