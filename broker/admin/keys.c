/* /v1/keys (broker/auth/auth.h). A change is in force at once; its answer comes when it is durable.
 */
#include <stdio.h>

#include "base/log.h"
#include "broker/admin/access.h"
#include "broker/admin/query.h"

#define TOKEN_LETTER 'k'
#define CREATE_HINT  "it never was, or it was revoked: GET /v1/keys lists those that there are"
#define DAY_MS       (24ULL * 3600 * 1000)

static const char *const none[] = {NULL};

void admin_on_key_ended(void *ctx, uint64_t number) {
    struct admin *a = ctx;
    waiting_on_key_ended(a, number);
    job_waits_on_key_ended(a, number);
}

static void put_one(const struct admin *a, struct buf *b, const struct key *k) {
    const struct project_info *project = projects_get(a->options.projects, k->project);
    CHECK(project != NULL); /* it is not deleted before its keys */
    put_text(b, "id", slice_str(k->id));
    put_text(b, "name", slice_str(k->name));
    put_text(b, "project", slice_str(project->name));
    key_put_rights(b, k);
    put_time(b, "create_time", k->created_at_ms);
    if (k->expires_at_ms != 0) put_time(b, "expire_time", k->expires_at_ms);
    if (k->used_day != 0) put_time(b, "last_used_day", k->used_day * DAY_MS);
}

static bool read_name(const struct fields *o, char out[LIMIT_KEY_NAME_BYTES + 1],
                      struct refusal *f) {
    struct slice name = slice_of(NULL, 0);
    if (!field_text(o, "name", &name, f)) return false;
    if (!field_present(o, "name")) return true;
    if (name.len > 0 && slice_to_cstr(name, out, LIMIT_KEY_NAME_BYTES + 1)) return true;
    return refuse(f, ERR_INVALID_REQUEST, "name must be a text of 1 to %d bytes without NUL",
                  LIMIT_KEY_NAME_BYTES);
}

/* null: it does not expire. */
static bool read_expiry(struct admin *a, const struct fields *o, uint64_t *out, struct refusal *f) {
    if (json_is_null(json_object_get(o->object, "expire_time"))) {
        *out = 0;
        return true;
    }
    uint64_t expires_at_ms = *out;
    if (!field_time(o, "expire_time", &expires_at_ms, f)) return false;
    if (!field_present(o, "expire_time") || expires_at_ms > loop_wall_ms(a->options.loop)) {
        *out = expires_at_ms;
        return true;
    }
    return refuse(f, ERR_INVALID_REQUEST,
                  "expire_time must be in the future: DELETE ends a key now");
}

/* The project of that name, if this request may hear of it; else ERR_NOT_FOUND, as if there were
 * none. */
static const struct project_info *find_project(struct admin *a, struct slice name,
                                               struct refusal *f) {
    const struct project_info *project = projects_find(a->options.projects, name);
    if (project != NULL && (access_is_operator(a) || project->id == a->project)) return project;
    if (name.len > LIMIT_NAME_BYTES) name.len = LIMIT_NAME_BYTES;
    refuse(f, ERR_NOT_FOUND, "there is no project \"%.*s\": POST /v1/projects makes one",
           SLICE_ARG(name));
    return NULL;
}

/* ---- create ---- */

static bool read_project(struct admin *a, const struct fields *o, uint32_t *out,
                         struct refusal *f) {
    struct slice name = slice_of(NULL, 0);
    *out = a->project;
    if (!field_text(o, "project", &name, f)) return false;
    if (!field_present(o, "project")) return true;
    const struct project_info *project = find_project(a, name, f);
    if (project != NULL) *out = project->id;
    return project != NULL;
}

static bool read_new(struct admin *a, const struct fields *o, struct key *k, struct refusal *f) {
    static const char *const known[] = {"name",          "project",     "scopes", "sources",
                                        "subscriptions", "expire_time", NULL};
    if (!fields_known(o, known, f) || !field_required(o, "name", f) || !read_name(o, k->name, f) ||
        !read_project(a, o, &k->project, f) || !key_read_rights(o, k, f) ||
        !read_expiry(a, o, &k->expires_at_ms, f)) {
        return false;
    }
    if (auth_required(a->options.auth)) return true;
    if (k->project == PROJECT_DEFAULT && (k->scopes & SCOPE_ADMIN) != 0) return true;
    return refuse(f, ERR_INVALID_REQUEST,
                  "the first key must be one of the project " PROJECT_DEFAULT_NAME
                  " with the scope admin: from then on keys are asked for, and nobody else could "
                  "make another");
}

static void key_created(struct admin *a, const struct pending *p, const struct effect *effect) {
    const struct key *k = auth_find_id(a->options.auth, slice_str(p->name));
    if (effect->err != ERR_OK || k == NULL) {
        http_respond_error(*a->options.http, p->handle, ERR_DELETED,
                           "the key was revoked in the same moment");
        return;
    }
    struct buf *b = answer_begin(a);
    put_one(a, b, k);
    put_text(b, "key", slice_str(p->secret));
    answer_send(a, p->handle, 201);
    if (b->data != NULL) explicit_bzero(b->data, b->len);
}

/* One command whose answer `done` writes. */
static struct route begin(struct admin *a, const struct http_request *r, pending_fn *done,
                          const char *id) {
    return pending_last(a, pending_begin(a, r, done, slice_str(id), NULL));
}

void keys_create(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct key asked = {.number = 0};
    char text[KEY_TEXT_BYTES + 1];
    struct fields o = {.object = NULL};
    struct refusal f;
    bool ok =
        query_known(r, none, &f) && fields_parse(r->body, &o, &f) && read_new(a, &o, &asked, &f);
    fields_free(&o);
    if (!ok) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    size_t most = access_is_operator(a) ? LIMIT_KEYS : LIMIT_KEYS - LIMIT_KEYS_SPARED;
    if (auth_count(a->options.auth) >= most) {
        http_respond_error(*a->options.http, r->handle, ERR_LIMIT_EXCEEDED,
                           "there are %zu keys, those of all projects, or more: revoke one that "
                           "nobody needs",
                           most);
        return;
    }
    /* Its id, which is the pending's name, is not known before it is made. */
    char id[] = "000000000000";
    struct pending *p = pending_begin(a, r, key_created, slice_str(id), NULL);
    const struct key *k =
        auth_create(a->options.auth, admin_time(a), pending_last(a, p), &asked, text);
    CHECK(k != NULL && sizeof id == sizeof k->id);
    memcpy(p->name, k->id, sizeof k->id);
    memcpy(p->secret, text, sizeof text);
    explicit_bzero(text, sizeof text);
    log_info("keys: %s of project %s was made", k->id,
             projects_get(a->options.projects, k->project)->name);
}

/* ---- show ---- */

/* A key of another project is none, but for the operator. */
static bool is_seen(const struct admin *a, const struct key *k) {
    return access_is_operator(a) || k->project == a->project;
}

/* The key that the path names, or NULL after an answer. */
static const struct key *find(struct admin *a, const struct http_request *r, struct slice id,
                              const char *const *known) {
    struct refusal f;
    if (!query_known(r, known, &f)) {
        answer_refusal(a, r->handle, &f);
        return NULL;
    }
    const struct key *k = auth_find_id(a->options.auth, id);
    if (k != NULL && !is_seen(a, k)) k = NULL;
    if (k == NULL) answer_not_found(a, r->handle, "key", id, CREATE_HINT);
    return k;
}

void keys_show(struct admin *a, const struct http_request *r, struct slice last) {
    const struct key *k = find(a, r, last, none);
    if (k == NULL) return;
    put_one(a, answer_begin(a), k);
    answer_send(a, r->handle, 200);
}

/* What a list is narrowed to. */
struct wanted {
    size_t page_size;
    uint32_t project; /* 0: all that are seen */
    uint64_t after;   /* number of a key; 0: from the first one */
};

static bool read_wanted(struct admin *a, const struct http_request *r, struct wanted *w,
                        struct refusal *f) {
    static const char *const known[] = {"project", "page_size", "page_token", NULL};
    char project[LIMIT_NAME_BYTES + 1], token[TOKEN_SIZE];
    bool has_project = false, has_token = false;
    if (!query_known(r, known, f) ||
        !query_text(r, "project", project, sizeof project, &has_project, f) ||
        !query_page_size(r, &w->page_size, f) ||
        !query_token(r, TOKEN_LETTER, token, &has_token, f)) {
        return false;
    }
    if (has_project) {
        const struct project_info *found = find_project(a, slice_str(project), f);
        if (found == NULL) return false;
        w->project = found->id;
    }
    if (!has_token) return true;
    const struct key *after = auth_find_id(a->options.auth, slice_str(token));
    if (after == NULL || !is_seen(a, after)) return refuse_token(f);
    w->after = after->number;
    return true;
}

/* The first one after `number` that is to be listed. */
static const struct key *next_wanted(const struct admin *a, const struct wanted *w,
                                     uint64_t number) {
    const struct key *k = auth_next(a->options.auth, number);
    while (k != NULL && (!is_seen(a, k) || (w->project != 0 && k->project != w->project))) {
        k = auth_next(a->options.auth, k->number);
    }
    return k;
}

void keys_list(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct refusal f;
    struct wanted w = {.project = 0};
    const struct key *shown = NULL;
    if (!read_wanted(a, r, &w, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    struct buf *b = answer_begin(a);
    put_key(b, "keys");
    buf_append_byte(b, '[');
    const struct key *k = next_wanted(a, &w, w.after);
    for (size_t i = 0; k != NULL && i < w.page_size && b->len < LIMIT_PAGE_BYTES; i++) {
        put_comma(b);
        buf_append_byte(b, '{');
        put_one(a, b, k);
        put_close(b);
        shown = k;
        k = next_wanted(a, &w, k->number);
    }
    buf_append_byte(b, ']');
    if (k != NULL && shown != NULL) put_token(b, TOKEN_LETTER, shown->id);
    answer_send(a, r->handle, 200);
}

/* ---- change and revoke ---- */

static void key_changed(struct admin *a, const struct pending *p, const struct effect *effect) {
    const struct key *k = auth_find_id(a->options.auth, slice_str(p->name));
    if (effect->err != ERR_OK || k == NULL) {
        http_respond_error(*a->options.http, p->handle, ERR_DELETED,
                           "the key was revoked in the same moment");
        return;
    }
    put_one(a, answer_begin(a), k);
    answer_send(a, p->handle, 200);
}

void keys_update(struct admin *a, const struct http_request *r, struct slice last) {
    static const char *const known[] = {"name", "expire_time", NULL};
    const struct key *k = find(a, r, last, none);
    struct fields o = {.object = NULL};
    struct refusal f;
    if (k == NULL) return;
    char name[LIMIT_KEY_NAME_BYTES + 1];
    uint64_t expires_at_ms = k->expires_at_ms;
    memcpy(name, k->name, sizeof name);
    if (fields_parse(r->body, &o, &f) && fields_known(&o, known, &f) && read_name(&o, name, &f) &&
        read_expiry(a, &o, &expires_at_ms, &f)) {
        struct route route = begin(a, r, key_changed, k->id);
        auth_update(a->options.auth, admin_time(a), route, k->number, name, expires_at_ms);
    } else {
        answer_refusal(a, r->handle, &f);
    }
    fields_free(&o);
}

static void key_revoked(struct admin *a, const struct pending *p, const struct effect *effect) {
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    answer_begin(a);
    answer_send(a, p->handle, 200);
}

/* Without an operator's admin key nobody can make another but who has the broker's machine. */
static bool may_revoke(struct admin *a, const struct http_request *r, const struct key *k,
                       struct refusal *f) {
    char force[8];
    bool said = false;
    uint64_t now_ms = loop_wall_ms(a->options.loop);
    bool is_operator = auth_is_operator(k, now_ms);
    if (!query_text(r, "force", force, sizeof force, &said, f)) return false;
    if (said && strcmp(force, "yes") != 0 && strcmp(force, "no") != 0) {
        return refuse(f, ERR_INVALID_REQUEST, "the query parameter force must be yes or no");
    }
    if (!is_operator || auth_operators(a->options.auth, now_ms) > 1 || (said && force[0] == 'y')) {
        return true;
    }
    return refuse(f, ERR_INVALID_REQUEST,
                  "key %s is the last one of the project " PROJECT_DEFAULT_NAME
                  " with the scope admin: make another one first, or add "
                  "?force=yes (bellhop key revoke --force); then only bellhopd "
                  "--make-key can make keys",
                  k->id);
}

void keys_revoke(struct admin *a, const struct http_request *r, struct slice last) {
    static const char *const known[] = {"force", NULL};
    const struct key *k = find(a, r, last, known);
    struct refusal f;
    if (k == NULL) return;
    if (!query_no_body(r, &f) || !may_revoke(a, r, k, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    log_info("keys: %s was revoked", k->id);
    struct route route = begin(a, r, key_revoked, k->id);
    a->key = NULL; /* it may be this one */
    auth_revoke(a->options.auth, admin_time(a), route, k->number);
}
