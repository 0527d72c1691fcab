/* /v1/projects (broker/auth/projects.h), for the operator. A change is in force at once; its answer
 * comes when it is durable. */
#include <stdio.h>

#include "base/log.h"
#include "broker/admin/access.h"
#include "broker/admin/query.h"

#define TOKEN_LETTER 'p'
#define CREATE_HINT  "POST /v1/projects makes one, GET /v1/projects lists those that there are"

static const char *const none[] = {NULL};

/* What keeps a project from being deleted. */
struct belongings {
    size_t keys, sources, subscriptions, webhooks;
};

/* Those of webhooks, and the lanes of the events that bring endpoints along. */
static size_t webhook_subscriptions(struct admin *a, uint32_t project) {
    char name[LIMIT_NAME_BYTES + 1] = WEBHOOK_SUBSCRIPTION_PREFIX;
    struct subscription_info info;
    size_t count = 0;
    while (engine_subscription_next(a->options.engine, project, slice_str(name), &info) &&
           slice_starts_with(info.name, WEBHOOK_SUBSCRIPTION_PREFIX)) {
        bool fits = slice_to_cstr(info.name, name, sizeof name);
        CHECK(fits);
        count++;
    }
    return count;
}

static struct belongings belongings_of(struct admin *a, uint32_t project) {
    struct project_stats stats;
    engine_project_stats(a->options.engine, project, &stats);
    return (struct belongings){
        .keys = auth_count_of(a->options.auth, project),
        .sources = sources_count(ingest_sources(a->options.ingest), project),
        .subscriptions = stats.subscriptions - webhook_subscriptions(a, project),
        .webhooks = registry_count(webhooks_registry(a->options.webhooks), project),
    };
}

static void put_name(struct buf *b, const struct project_info *project) {
    put_text(b, "name", slice_str(project->name));
    if (project->created_at_ms != 0) put_time(b, "create_time", project->created_at_ms);
}

static void answer_project(struct admin *a, uint64_t handle, const struct project_info *project,
                           int status) {
    struct project_stats stats;
    struct belongings has = belongings_of(a, project->id);
    engine_project_stats(a->options.engine, project->id, &stats);
    struct buf *b = answer_begin(a);
    put_name(b, project);
    put_u64(b, "keys", has.keys);
    put_u64(b, "sources", has.sources);
    put_u64(b, "subscriptions", has.subscriptions);
    put_u64(b, "webhooks", has.webhooks);
    put_u64(b, "jobs", stats.jobs);
    put_u64(b, "tasks_running", stats.tasks_running);
    put_u64(b, "attachments", stats.attachments);
    totals_put(b, &stats.totals);
    answer_send(a, handle, status);
}

/* ---- create ---- */

static void project_created(struct admin *a, const struct pending *p, const struct effect *effect) {
    const struct project_info *project = projects_find(a->options.projects, slice_str(p->name));
    if (effect->err != ERR_OK || project == NULL) {
        http_respond_error(*a->options.http, p->handle, ERR_DELETED,
                           "the project was deleted in the same moment");
        return;
    }
    answer_project(a, p->handle, project, 201);
}

static bool read_new(struct admin *a, const struct fields *o, struct slice *name,
                     struct refusal *f) {
    static const char *const known[] = {"name", NULL};
    if (!fields_known(o, known, f) || !field_name(o, "name", name, f)) return false;
    if (projects_find(a->options.projects, *name) != NULL) {
        return refuse(f, ERR_ALREADY_EXISTS, "there is a project \"%.*s\" already",
                      SLICE_ARG(*name));
    }
    if (projects_count(a->options.projects) < LIMIT_PROJECTS) return true;
    return refuse(f, ERR_LIMIT_EXCEEDED, "there are %d projects: delete one that nobody needs",
                  LIMIT_PROJECTS);
}

void projects_post(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct slice name = slice_of(NULL, 0);
    struct fields o = {.object = NULL};
    struct refusal f;
    if (query_known(r, none, &f) && fields_parse(r->body, &o, &f) && read_new(a, &o, &name, &f)) {
        const struct pending *p = pending_begin(a, r, project_created, name, NULL);
        (void)projects_create(a->options.projects, admin_time(a), pending_part(a, p),
                              pending_last(a, p), name);
        log_info("projects: %s was made", p->name);
    } else {
        answer_refusal(a, r->handle, &f);
    }
    fields_free(&o);
}

/* ---- show ---- */

/* The project that the path names, or NULL after an answer. */
static const struct project_info *find(struct admin *a, const struct http_request *r,
                                       struct slice name) {
    struct refusal f;
    if (!query_known(r, none, &f)) {
        answer_refusal(a, r->handle, &f);
        return NULL;
    }
    const struct project_info *project = projects_find(a->options.projects, name);
    if (project == NULL) answer_not_found(a, r->handle, "project", name, CREATE_HINT);
    return project;
}

void projects_show(struct admin *a, const struct http_request *r, struct slice last) {
    const struct project_info *project = find(a, r, last);
    if (project != NULL) answer_project(a, r->handle, project, 200);
}

void projects_list(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct refusal f;
    struct list_page page;
    if (!query_list_page(r, TOKEN_LETTER, &page, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    struct buf *b = answer_begin(a);
    put_key(b, "projects");
    buf_append_byte(b, '[');
    const struct project_info *shown = NULL;
    const struct project_info *project = projects_next(a->options.projects, slice_str(page.after));
    for (size_t i = 0; project != NULL && i < page.size; i++) {
        put_comma(b);
        buf_append_byte(b, '{');
        put_name(b, project);
        put_close(b);
        shown = project;
        project = projects_next(a->options.projects, slice_str(project->name));
    }
    buf_append_byte(b, ']');
    if (project != NULL && shown != NULL) put_token(b, TOKEN_LETTER, shown->name);
    answer_send(a, r->handle, 200);
}

/* ---- delete ---- */

static void project_deleted(struct admin *a, const struct pending *p, const struct effect *effect) {
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    answer_begin(a);
    answer_send(a, p->handle, 200);
}

/* A source or webhook that is being stored counts only when it is durable. */
static bool is_changing(const struct admin *a, uint32_t project) {
    LIST_FOR(n, next, &a->pendings) {
        if (CONTAINER_OF(n, struct pending, link)->project == project) return true;
    }
    return false;
}

static void count_things(char *out, size_t size, size_t count, const char *thing) {
    size_t len = strlen(out);
    if (count == 0) return;
    snprintf(out + len, size - len, "%s%zu %s%s", len == 0 ? "" : ", ", count, thing,
             count == 1 ? "" : "s");
}

static bool may_delete(struct admin *a, const struct project_info *project, struct refusal *f) {
    char things[160] = "";
    if (project->id == PROJECT_DEFAULT) {
        return refuse(f, ERR_INVALID_REQUEST,
                      "the project " PROJECT_DEFAULT_NAME " is the operator's: it stays");
    }
    struct belongings has = belongings_of(a, project->id);
    count_things(things, sizeof things, has.sources, "source");
    count_things(things, sizeof things, has.subscriptions, "subscription");
    count_things(things, sizeof things, has.webhooks, "webhook");
    count_things(things, sizeof things, has.keys, "key");
    if (things[0] != '\0') {
        return refuse(
            f, ERR_NOT_EMPTY,
            "project \"%s\" has %s: delete its sources, subscriptions and webhooks with a "
            "key of its own, then revoke its keys",
            project->name, things);
    }
    if (!is_changing(a, project->id)) return true;
    return refuse(f, ERR_LIMIT_EXCEEDED, "a change in project \"%s\" is being stored: try again",
                  project->name);
}

void projects_remove(struct admin *a, const struct http_request *r, struct slice last) {
    const struct project_info *project = find(a, r, last);
    struct refusal f;
    if (project == NULL) return;
    if (!query_no_body(r, &f) || !may_delete(a, project, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    const struct pending *p = pending_begin(a, r, project_deleted, slice_str(project->name), NULL);
    log_info("projects: %s was deleted", p->name);
    webhooks_forget_project(a->options.webhooks, project->id);
    projects_delete(a->options.projects, admin_time(a), pending_last(a, p), project->id);
}
