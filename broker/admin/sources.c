/* /v1/sources. The registry is the ingest room's; what is stored goes through the engine's config
 * and comes back into the registry when it is durable, before the answer goes out. */
#include <stdio.h>

#include "broker/admin/query.h"

#define TOKEN_LETTER 's'
#define CREATE_HINT  "create it with POST /v1/sources or check the name"

/* Of a secret's text this many last characters are shown: enough to tell two apart. */
#define SHOWN_CHARS 4

static void put_source(struct buf *b, const struct source *s) {
    char path[LIMIT_NAME_BYTES + 8];
    snprintf(path, sizeof path, "/in/%s", s->name);
    put_text(b, "name", slice_str(s->name));
    put_text(b, "scheme", slice_str(source_scheme_name(s->scheme)));
    put_key(b, "secrets");
    buf_append_byte(b, '[');
    for (size_t i = 0; i < s->secrets_count; i++) {
        const char *text = s->secret_texts[i];
        bool prefix = slice_starts_with(slice_str(text), "whsec_");
        put_comma(b);
        buf_printf(b, "\"%s...%s\"", prefix ? "whsec_" : "", text + strlen(text) - SHOWN_CHARS);
    }
    buf_append_byte(b, ']');
    put_text(b, "url_path", slice_str(path));
    put_time(b, "create_time", s->created_at_ms);
    put_u64(b, "accepted", s->accepted_total);
    put_u64(b, "duplicates", s->duplicates_total);
    put_u64(b, "refused", s->refused_total);
}

static void refuse_existing(struct admin *a, uint64_t handle, struct slice name) {
    http_respond_error(*a->options.http, handle, ERR_ALREADY_EXISTS,
                       "there is a source \"%.*s\" already: delete it first or take another name",
                       SLICE_ARG(name));
}

/* ---- create ---- */

static bool read_scheme(const struct fields *o, struct source *s, struct refusal *f) {
    struct slice scheme = slice_str(source_scheme_name(SCHEME_STANDARD_WEBHOOKS));
    if (!field_text(o, "scheme", &scheme, f)) return false;
    if (source_scheme_from_name(scheme, &s->scheme)) return true;
    return refuse(f, ERR_INVALID_REQUEST, "scheme must be \"standard-webhooks\"");
}

static bool add_secret(struct source *s, struct slice text, struct refusal *f) {
    size_t i = s->secrets_count;
    const char *why = "";
    if (source_secret_parse(text, &s->secrets[i], &why) != ERR_OK) {
        return refuse(f, ERR_INVALID_REQUEST, "secrets[%zu] %s", i, why);
    }
    bool fits = slice_to_cstr(text, s->secret_texts[i], sizeof s->secret_texts[i]);
    CHECK(fits); /* it was parsed */
    s->secrets_count++;
    return true;
}

/* The secrets that were given, or one that is made here: generated[] is empty otherwise. */
static bool read_secrets(struct admin *a, const struct fields *o, struct source *s,
                         char generated[LIMIT_SECRET_TEXT_BYTES + 1], struct refusal *f) {
    const struct slice *texts = NULL;
    size_t count = 0;
    generated[0] = '\0';
    if (!field_present(o, "secrets")) {
        source_secret_generate(generated);
        return add_secret(s, slice_str(generated), f);
    }
    if (!field_texts(o, "secrets", LIMIT_SECRETS, LIMIT_SECRET_TEXT_BYTES, &a->arena, &texts,
                     &count, f)) {
        return false;
    }
    if (count == 0) {
        return refuse(f, ERR_INVALID_REQUEST,
                      "secrets must hold 1 to %d secrets; leave it out and one is made for you",
                      LIMIT_SECRETS);
    }
    for (size_t i = 0; i < count; i++) {
        if (!add_secret(s, texts[i], f)) return false;
    }
    return true;
}

static bool read_source(struct admin *a, const struct fields *o, struct source *s,
                        char generated[LIMIT_SECRET_TEXT_BYTES + 1], struct refusal *f) {
    static const char *const known[] = {"name", "scheme", "secrets", NULL};
    struct slice name;
    if (!fields_known(o, known, f) || !field_name(o, "name", &name, f)) return false;
    bool fits = slice_to_cstr(name, s->name, sizeof s->name);
    CHECK(fits); /* name_ok */
    s->created_at_ms = loop_wall_ms(a->options.loop);
    return read_scheme(o, s, f) && read_secrets(a, o, s, generated, f);
}

static void source_created(struct admin *a, const struct pending *p, const struct effect *effect) {
    struct sources *sources = ingest_sources(a->options.ingest);
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    sources_refresh(sources, a->options.engine, slice_str(p->name));
    const struct source *s = sources_get(sources, slice_str(p->name));
    CHECK(s != NULL);
    struct buf *b = answer_begin(a);
    put_source(b, s);
    put_text_unless_empty(b, "secret", slice_str(p->secret));
    answer_send(a, p->handle, 201);
}

static void store_source(struct admin *a, const struct http_request *r, const struct source *s,
                         const char *generated) {
    char key[sizeof SOURCE_CONFIG_PREFIX + LIMIT_NAME_BYTES];
    struct buf value;
    snprintf(key, sizeof key, SOURCE_CONFIG_PREFIX "%s", s->name);
    buf_init(&value, 4 * KIB);
    source_encode(s, &value);
    CHECK(!value.overflow);
    struct command command = {
        .kind = COMMAND_CONFIG_PUT,
        .u.config = {.key = slice_str(key), .value = buf_slice(&value)},
    };
    pending_step(a, r, source_created, slice_str(s->name), generated, &command);
    explicit_bzero(value.data, value.len);
    buf_free(&value);
}

void sources_create(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    static const char *const none[] = {NULL};
    struct source s = {.id = 0};
    char generated[LIMIT_SECRET_TEXT_BYTES + 1];
    struct fields o = {.object = NULL};
    struct refusal f;
    if (!query_known(r, none, &f) || !fields_parse(r->body, &o, &f) ||
        !read_source(a, &o, &s, generated, &f)) {
        answer_refusal(a, r->handle, &f);
    } else if (sources_get(ingest_sources(a->options.ingest), slice_str(s.name)) != NULL ||
               pending_exists(a, source_created, slice_str(s.name))) {
        refuse_existing(a, r->handle, slice_str(s.name));
    } else {
        store_source(a, r, &s, generated);
    }
    fields_free(&o);
    explicit_bzero(&s, sizeof s);
    explicit_bzero(generated, sizeof generated);
}

/* ---- the rest ---- */

static void source_deleted(struct admin *a, const struct pending *p, const struct effect *effect) {
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    sources_refresh(ingest_sources(a->options.ingest), a->options.engine, slice_str(p->name));
    answer_begin(a);
    answer_send(a, p->handle, 200);
}

/* The source that the path names, or NULL after an answer. */
static struct source *find(struct admin *a, const struct http_request *r, struct slice name) {
    static const char *const none[] = {NULL};
    struct refusal f;
    if (!query_known(r, none, &f)) {
        answer_refusal(a, r->handle, &f);
        return NULL;
    }
    struct source *s = sources_get(ingest_sources(a->options.ingest), name);
    if (s == NULL) answer_not_found(a, r->handle, "source", name, CREATE_HINT);
    return s;
}

void sources_show(struct admin *a, const struct http_request *r, struct slice last) {
    const struct source *s = find(a, r, last);
    if (s == NULL) return;
    put_source(answer_begin(a), s);
    answer_send(a, r->handle, 200);
}

void sources_delete(struct admin *a, const struct http_request *r, struct slice last) {
    const struct source *s = find(a, r, last);
    if (s == NULL) return;
    char key[sizeof SOURCE_CONFIG_PREFIX + LIMIT_NAME_BYTES];
    snprintf(key, sizeof key, SOURCE_CONFIG_PREFIX "%s", s->name);
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
    const struct source *s = sources_next(sources, slice_str(page.after)), *shown = NULL;
    for (size_t i = 0; s != NULL && i < page.size; i++) {
        put_comma(b);
        buf_append_byte(b, '{');
        put_source(b, s);
        buf_append_byte(b, '}');
        shown = s;
        s = sources_next(sources, slice_str(s->name));
    }
    buf_append_byte(b, ']');
    if (s != NULL && shown != NULL) put_token(b, TOKEN_LETTER, shown->name);
    answer_send(a, r->handle, 200);
}
