/* /v1/sources: those of the key's project. The registry is the ingest room's; what is stored goes
 * through the engine's config and comes back into the registry when it is durable, before the
 * answer goes out. */
#include <stdio.h>

#include "broker/admin/query.h"

#define TOKEN_LETTER 's'
#define CREATE_HINT  "create it with POST /v1/sources or check the name"

static void put_secrets(struct buf *b, const struct source *s) {
    char shown[SECRET_SHOWN_BYTES];
    bool expiring = false;
    put_key(b, "secrets");
    buf_append_byte(b, '[');
    for (size_t i = 0; i < s->secrets_count; i++) {
        source_show_secret(&s->secrets[i], shown);
        put_comma(b);
        buf_append_json_string(b, slice_str(shown));
        expiring = expiring || s->secrets[i].expires_at_ms != 0;
    }
    buf_append_byte(b, ']');
    if (!expiring) return;
    put_key(b, "expiring_secrets");
    buf_append_byte(b, '[');
    for (size_t i = 0; i < s->secrets_count; i++) {
        if (s->secrets[i].expires_at_ms == 0) continue;
        source_show_secret(&s->secrets[i], shown);
        put_comma(b);
        buf_append_byte(b, '{');
        put_text(b, "secret", slice_str(shown));
        put_time(b, "expire_time", s->secrets[i].expires_at_ms);
        buf_append_byte(b, '}');
    }
    buf_append_byte(b, ']');
}

/* Those that were set. */
static void put_options(struct buf *b, const struct source_options *o) {
    put_open(b, "options");
    for (size_t i = 0; i < source_option_count; i++) {
        const struct source_option *option = &source_option_table[i];
        const void *at = source_option_in(o, option);
        switch (option->kind) {
        case OPTION_TEXT: put_text_unless_empty(b, option->name, slice_str(at)); break;
        case OPTION_NUMBER:
            if (*(const uint64_t *)at != 0) put_u64(b, option->name, *(const uint64_t *)at);
            break;
        case OPTION_BOOL:
            if (*(const bool *)at) put_bool(b, option->name, true);
            break;
        }
    }
    put_close(b);
}

static void put_key_set(struct admin *a, struct buf *b, const struct source *s) {
    const struct jwks_set *set = ingest_key_set(a->options.ingest, s);
    size_t count;
    if (set == NULL) return;
    jwks_keys(set, &count);
    put_open(b, "public_keys");
    put_text(b, "url", slice_str(source_jwks_url(s)));
    put_u64(b, "known", count);
    if (jwks_fetched_at(set) != 0) put_time(b, "fetch_time", jwks_fetched_at(set));
    put_text_unless_empty(b, "trouble", slice_str(jwks_trouble(set)));
    put_close(b);
}

/* Without keys, and for those of the default project, there is nothing to tell. */
static void put_project(struct admin *a, struct buf *b, const struct source *s) {
    const struct project_info *project = projects_get(a->options.projects, s->project);
    if (project == NULL || project->id == PROJECT_DEFAULT) return;
    put_text(b, "project", slice_str(project->name));
}

static void put_source(struct admin *a, struct buf *b, struct source *s) {
    char place[INGEST_PLACE_BYTES], path[sizeof "/in/" + INGEST_PLACE_BYTES];
    ingest_place(a->options.ingest, s, place);
    snprintf(path, sizeof path, "/in/%s", place);
    source_expire(s, loop_wall_ms(a->options.loop));
    put_text(b, "name", slice_str(s->name));
    put_project(a, b, s);
    put_text(b, "scheme", slice_str(s->scheme->name));
    put_secrets(b, s);
    put_options(b, &s->options);
    put_key_set(a, b, s);
    put_text(b, "url_path", slice_str(path));
    put_time(b, "create_time", s->created_at_ms);
    put_u64(b, "accepted", s->accepted_total);
    put_u64(b, "duplicates", s->duplicates_total);
    put_u64(b, "refused", s->refused_total);
}

static struct source *source_get(struct admin *a, struct slice name) {
    return sources_get(ingest_sources(a->options.ingest), a->project, name);
}

/* ---- what a request says of one ---- */

static bool read_option(const struct fields *o, const struct source_option *option,
                        struct source_options *out, struct refusal *f) {
    void *at = source_option_at(out, option);
    struct slice text = slice_of(NULL, 0);
    if (!field_present(o, option->name)) return true;
    switch (option->kind) {
    case OPTION_NUMBER: return field_u64(o, option->name, option->min, option->max, at, f);
    case OPTION_BOOL: return field_bool(o, option->name, at, f);
    case OPTION_TEXT: break;
    }
    if (!field_text(o, option->name, &text, f)) return false;
    if (slice_to_cstr(text, at, option->max + 1)) return true;
    return refuse(f, ERR_INVALID_REQUEST, "options.%s: at most %llu bytes, and no NUL",
                  option->name, (unsigned long long)option->max);
}

/* Those that are there take the place of what the source has. */
static bool read_options(const struct fields *o, struct source_options *out, struct refusal *f) {
    const char *known[32] = {NULL};
    struct fields options;
    CHECK(source_option_count < sizeof known / sizeof known[0]);
    if (!field_object(o, "options", "options.", &options, f)) return false;
    if (options.object == NULL) return true;
    for (size_t i = 0; i < source_option_count; i++) known[i] = source_option_table[i].name;
    if (!fields_known(&options, known, f)) return false;
    for (size_t i = 0; i < source_option_count; i++) {
        if (!read_option(&options, &source_option_table[i], out, f)) return false;
    }
    return true;
}

static bool read_scheme(const struct fields *o, struct source *s, struct refusal *f) {
    struct slice name = slice_str(scheme_default()->name);
    if (!field_text(o, "scheme", &name, f)) return false;
    s->scheme = scheme_find(name);
    if (s->scheme != NULL) return true;
    char names[200] = "";
    size_t len = 0;
    for (size_t i = 0; scheme_at(i) != NULL; i++) {
        len += (size_t)snprintf(names + len, sizeof names - len, "%s%s", i == 0 ? "" : ", ",
                                scheme_at(i)->name);
        CHECK(len < sizeof names);
    }
    return refuse(f, ERR_INVALID_REQUEST, "scheme must be one of %s", names);
}

/* One secret: its text, or {"secret":"...","expire_time":"..."}. */
static bool read_secret(const struct fields *o, const char *list, size_t i, const json_t *item,
                        struct source *s, struct refusal *f) {
    static const char *const known[] = {"secret", "expire_time", NULL};
    struct slice text = slice_of(NULL, 0);
    uint64_t expires_at_ms = 0;
    const char *why = "";
    if (json_is_string(item)) {
        text = slice_of(json_string_value(item), json_string_length(item));
    } else if (json_is_object(item)) {
        char path[64];
        snprintf(path, sizeof path, "%s[%zu].", list, i);
        struct fields each = field_object_at(o, list, i, path);
        if (!fields_known(&each, known, f) || !field_required(&each, "secret", f) ||
            !field_text(&each, "secret", &text, f) ||
            !field_time(&each, "expire_time", &expires_at_ms, f)) {
            return false;
        }
    } else {
        return refuse(f, ERR_INVALID_REQUEST,
                      "%s[%zu] must be a text, or an object with secret and expire_time", list, i);
    }
    if (source_add_secret(s, text, expires_at_ms, &why)) return true;
    return refuse(f, ERR_INVALID_REQUEST, "%s[%zu] %s", list, i, why);
}

/* Adds those of a list to the source's. */
static bool read_secrets(const struct fields *o, const char *list, struct source *s,
                         struct refusal *f) {
    const json_t *array = json_object_get(o->object, list);
    if (array == NULL) return true;
    if (!json_is_array(array)) {
        return refuse(f, ERR_INVALID_REQUEST, "%s must be a list of secrets", list);
    }
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (!read_secret(o, list, i, json_array_get(array, i), s, f)) return false;
    }
    return true;
}

static bool check_source(const struct source *s, struct refusal *f) {
    char why[WHY_BYTES];
    return source_check(s, why, sizeof why) || refuse(f, ERR_INVALID_REQUEST, "%s", why);
}

/* ---- create and update ---- */

static bool read_new(struct admin *a, const struct fields *o, struct source *s,
                     char generated[LIMIT_SECRET_TEXT_BYTES + 1], struct refusal *f) {
    static const char *const known[] = {"name", "scheme", "secrets", "options", NULL};
    struct slice name;
    const char *why = "";
    generated[0] = '\0';
    if (!fields_known(o, known, f) || !field_name(o, "name", &name, f)) return false;
    bool fits = slice_to_cstr(name, s->name, sizeof s->name);
    CHECK(fits); /* name_ok */
    s->created_at_ms = loop_wall_ms(a->options.loop);
    if (!read_scheme(o, s, f) || !read_options(o, &s->options, f) ||
        !read_secrets(o, "secrets", s, f)) {
        return false;
    }
    if (!field_present(o, "secrets") && s->scheme->makes_secret && source_jwks_url(s)[0] == '\0') {
        secret_generate(generated);
        bool good = source_add_secret(s, slice_str(generated), 0, &why);
        CHECK(good); /* what is made here is good for every scheme that makes one */
    }
    return check_source(s, f);
}

static void source_stored(struct admin *a, const struct pending *p, const struct effect *effect,
                          int status) {
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    ingest_refresh(a->options.ingest, p->project, slice_str(p->name));
    struct source *s = source_get(a, slice_str(p->name));
    CHECK(s != NULL);
    struct buf *b = answer_begin(a);
    put_source(a, b, s);
    put_text_unless_empty(b, "secret", slice_str(p->secret));
    answer_send(a, p->handle, status);
}

static void source_created(struct admin *a, const struct pending *p, const struct effect *effect) {
    source_stored(a, p, effect, 201);
}

static void source_updated(struct admin *a, const struct pending *p, const struct effect *effect) {
    source_stored(a, p, effect, 200);
}

static void store_source(struct admin *a, const struct http_request *r, const struct source *s,
                         pending_fn *done, const char *generated) {
    char key[SOURCE_KEY_BYTES];
    struct buf value;
    source_config_key(a->project, slice_str(s->name), key);
    buf_init(&value, SOURCE_STORED_BYTES);
    source_encode(s, &value);
    CHECK(!value.overflow);
    struct command command = {
        .kind = COMMAND_CONFIG_PUT,
        .u.config = {.key = slice_str(key), .value = buf_slice(&value)},
    };
    pending_step(a, r, done, slice_str(s->name), generated, &command);
    explicit_bzero(value.data, value.len);
    buf_free(&value);
}

/* Those that are being stored count too. */
static bool may_add(struct admin *a, struct slice name, struct refusal *f) {
    size_t count = sources_count_all(ingest_sources(a->options.ingest));
    if (source_get(a, name) != NULL || pending_exists(a, source_created, name)) {
        return refuse(f, ERR_ALREADY_EXISTS,
                      "there is a source \"%.*s\" already: delete it first or take another name",
                      SLICE_ARG(name));
    }
    if (count + pending_count(a, source_created) < LIMIT_SOURCES) return true;
    return refuse(f, ERR_LIMIT_EXCEEDED,
                  "there are %d sources, those of all projects: delete one that nobody needs",
                  LIMIT_SOURCES);
}

void sources_create(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    static const char *const none[] = {NULL};
    struct source s = {.id = 0};
    char generated[LIMIT_SECRET_TEXT_BYTES + 1] = "";
    struct fields o = {.object = NULL};
    struct refusal f;
    if (!query_known(r, none, &f) || !fields_parse(r->body, &o, &f) ||
        !read_new(a, &o, &s, generated, &f) || !may_add(a, slice_str(s.name), &f)) {
        answer_refusal(a, r->handle, &f);
    } else {
        store_source(a, r, &s, source_created, generated);
    }
    fields_free(&o);
    source_clear(&s);
    explicit_bzero(generated, sizeof generated);
}

/* A source of its own, with everything that is stored of the other one. */
static void copy_source(const struct source *from, struct source *to) {
    struct buf stored;
    const char *why;
    buf_init(&stored, SOURCE_STORED_BYTES);
    source_encode(from, &stored);
    CHECK(!stored.overflow);
    memset(to, 0, sizeof *to);
    bool good = source_decode(buf_slice(&stored), to, &why);
    /* It was taken in; but all of its secrets may have expired since then. */
    CHECK(good || from->secrets_count == 0);
    if (!good) {
        to->scheme = from->scheme;
        to->options = from->options;
        to->created_at_ms = from->created_at_ms;
    }
    to->project = from->project;
    memcpy(to->name, from->name, sizeof to->name);
    explicit_bzero(stored.data, stored.len);
    buf_free(&stored);
}

static bool read_changes(struct admin *a, const struct fields *o, struct source *s,
                         struct refusal *f) {
    static const char *const known[] = {"secrets", "add_secrets", "previous_expire_time", "options",
                                        NULL};
    uint64_t expire_ms = 0;
    if (!fields_known(o, known, f) || !field_time(o, "previous_expire_time", &expire_ms, f)) {
        return false;
    }
    if (field_present(o, "previous_expire_time") && !field_present(o, "add_secrets")) {
        return refuse(f, ERR_INVALID_REQUEST,
                      "previous_expire_time goes with add_secrets: it is when the secrets that are "
                      "there now expire");
    }
    if (field_present(o, "secrets") && field_present(o, "add_secrets")) {
        return refuse(f, ERR_INVALID_REQUEST,
                      "give secrets, which replaces all of them, or add_secrets");
    }
    for (size_t i = 0; i < s->secrets_count && expire_ms != 0; i++) {
        uint64_t *old = &s->secrets[i].expires_at_ms;
        if (*old == 0 || *old > expire_ms) *old = expire_ms;
    }
    if (field_present(o, "secrets")) {
        for (size_t i = 0; i < s->secrets_count; i++) s->secrets[i].expires_at_ms = 1;
    }
    source_expire(s, loop_wall_ms(a->options.loop));
    return read_options(o, &s->options, f) && read_secrets(o, "secrets", s, f) &&
           read_secrets(o, "add_secrets", s, f) && check_source(s, f);
}

/* ---- the rest ---- */

static void source_deleted(struct admin *a, const struct pending *p, const struct effect *effect) {
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    ingest_refresh(a->options.ingest, p->project, slice_str(p->name));
    answer_begin(a);
    answer_send(a, p->handle, 200);
}

/* The source that the path names, or NULL after an answer. */
static struct source *find(struct admin *a, const struct http_request *r, struct slice name) {
    if (!query_none(a, r)) return NULL;
    struct source *s = source_get(a, name);
    if (s == NULL) answer_not_found(a, r->handle, "source", name, CREATE_HINT);
    return s;
}

void sources_show(struct admin *a, const struct http_request *r, struct slice last) {
    struct source *s = find(a, r, last);
    if (s == NULL) return;
    put_source(a, answer_begin(a), s);
    answer_send(a, r->handle, 200);
}

static void refuse_busy(struct admin *a, uint64_t handle, struct slice name) {
    http_respond_error(*a->options.http, handle, ERR_LIMIT_EXCEEDED,
                       "another change of source \"%.*s\" is being stored: try again",
                       SLICE_ARG(name));
}

void sources_update(struct admin *a, const struct http_request *r, struct slice last) {
    const struct source *old = find(a, r, last);
    struct source s;
    struct fields o = {.object = NULL};
    struct refusal f;
    if (old == NULL) return;
    if (pending_exists(a, source_updated, last) || pending_exists(a, source_deleted, last)) {
        refuse_busy(a, r->handle, last);
        return;
    }
    copy_source(old, &s);
    if (!fields_parse(r->body, &o, &f) || !read_changes(a, &o, &s, &f)) {
        answer_refusal(a, r->handle, &f);
    } else {
        store_source(a, r, &s, source_updated, NULL);
    }
    fields_free(&o);
    source_clear(&s);
}

void sources_delete(struct admin *a, const struct http_request *r, struct slice last) {
    const struct source *s = find(a, r, last);
    if (s == NULL) return;
    if (pending_exists(a, source_updated, last)) {
        refuse_busy(a, r->handle, last);
        return;
    }
    char key[SOURCE_KEY_BYTES];
    source_config_key(a->project, slice_str(s->name), key);
    struct command command = {.kind = COMMAND_CONFIG_DELETE, .u.config = {.key = slice_str(key)}};
    pending_step(a, r, source_deleted, slice_str(s->name), NULL, &command);
}

void sources_list(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct refusal f;
    struct list_page page;
    if (!query_list_page(r, TOKEN_LETTER, &page, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    struct sources *sources = ingest_sources(a->options.ingest);
    struct buf *b = answer_begin(a);
    put_key(b, "sources");
    buf_append_byte(b, '[');
    struct source *s = sources_next(sources, a->project, slice_str(page.after)), *shown = NULL;
    for (size_t i = 0; s != NULL && i < page.size; i++) {
        put_comma(b);
        buf_append_byte(b, '{');
        put_source(a, b, s);
        buf_append_byte(b, '}');
        shown = s;
        s = sources_next(sources, a->project, slice_str(s->name));
    }
    buf_append_byte(b, ']');
    if (s != NULL && shown != NULL) put_token(b, TOKEN_LETTER, shown->name);
    answer_send(a, r->handle, 200);
}
