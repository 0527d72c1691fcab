/* GET /v1/status: for every key where the broker is and how its project does; for the operator's,
 * with manage or admin, also what belongs to all projects. */
#include <unistd.h>

#include "broker/admin/access.h"
#include "broker/admin/answer.h"
#include "broker/admin/query.h"

#define STATUS_BEHIND 5

void totals_put(struct buf *b, const struct engine_totals *totals) {
    put_open(b, "totals");
    put_u64(b, "published", totals->published);
    put_u64(b, "duplicates", totals->duplicates);
    put_u64(b, "refused", totals->refused);
    put_u64(b, "delivered", totals->delivered);
    put_u64(b, "acked", totals->acked);
    put_u64(b, "nacked", totals->nacked);
    put_u64(b, "expired", totals->expired);
    put_u64(b, "dead", totals->dead);
    put_close(b);
}

/* Those that an operator should look at first, by name. */
static void put_behind(struct admin *a, struct buf *b) {
    struct subscription_info behind[STATUS_BEHIND];
    size_t count =
        engine_subscriptions_behind(a->options.engine, a->project, behind, STATUS_BEHIND);
    put_key(b, "behind");
    buf_append_byte(b, '[');
    for (size_t i = 0; i < count; i++) {
        const struct subscription_info *s = &behind[i];
        if (!access_subscription(a, s->name)) continue;
        put_comma(b);
        buf_append_byte(b, '{');
        put_text(b, "name", s->name);
        put_u64(b, "positions", s->next + s->backlog - s->floor);
        put_u64(b, "oldest_ms", s->oldest_ms);
        put_text(b, "why_idle", slice_str(why_idle_name(s->why_idle)));
        buf_append_byte(b, '}');
    }
    buf_append_byte(b, ']');
}

/* Where it is, and whether it takes events: for every key. */
static void put_place(const struct admin *a, struct buf *b, const struct engine_stats *stats) {
    const struct admin_options *o = &a->options;
    put_text(b, "version", slice_str(BELLHOP_VERSION));
    put_u64(b, "uptime_ms", loop_now_ms(o->loop) - a->opened_ms);
    put_text(b, "http", slice_str(o->http_address));
    put_text(b, "workers", slice_str(o->workers_address));
    put_u64(b, "workers_port", o->workers_port);
    put_bool(b, "workers_tls", o->workers_tls);
    put_bool(b, "room", stats->room);
}

void blocked_put(const struct admin *a, struct buf *b, const struct engine_stats *stats) {
    put_text(b, "blocked_by", stats->blocked_by);
    if (stats->blocked_by.len == 0 || stats->blocked_by_project == PROJECT_DEFAULT) return;
    const struct project_info *project =
        projects_get(a->options.projects, stats->blocked_by_project);
    if (project != NULL) put_text(b, "blocked_by_project", slice_str(project->name));
}

/* What belongs to all projects. */
static void put_broker(const struct admin *a, struct buf *b, const struct engine_stats *stats) {
    const struct admin_options *o = &a->options;
    struct store_usage usage;
    store_usage(o->store, &usage);
    put_u64(b, "pid", (uint64_t)getpid());
    put_open(b, "journal");
    put_u64(b, "first_seq", stats->first_seq);
    put_u64(b, "last_seq", stats->last_seq);
    put_close(b);
    put_u64(b, "journal_bytes", stats->journal_bytes);
    put_u64(b, "trimmed", stats->trimmed_total);
    put_open(b, "retention");
    retention_put(b, &stats->retention);
    put_close(b);
    blocked_put(a, b, stats);
    put_open(b, "store");
    put_u64(b, "bytes_used", usage.bytes_used);
    put_u64(b, "bytes_max", usage.bytes_max);
    put_u64(b, "disk_free", usage.disk_free);
    put_close(b);
    put_open(b, "connections");
    put_u64(b, "http", http_server_connections(*o->http));
    put_u64(b, "workers", o->workers_count(o->workers_ctx));
    put_close(b);
    put_open(b, "body_memory");
    size_t memory_max, memory = http_server_body_memory(*o->http, &memory_max);
    put_u64(b, "bytes_used", memory);
    put_u64(b, "bytes_max", memory_max);
    put_close(b);
    put_u64(b, "job_waits", jobs_waiting(o->jobs));
    put_open(b, "all_projects");
    put_u64(b, "projects", projects_count(o->projects));
    put_u64(b, "subscriptions", stats->subscriptions);
    put_u64(b, "tasks_running", stats->tasks_running);
    totals_put(b, &stats->totals);
    put_close(b);
}

/* What belongs to the project that is spoken for. */
static void put_project(struct admin *a, struct buf *b) {
    const struct admin_options *o = &a->options;
    const struct project_info *project = projects_get(o->projects, a->project);
    struct project_stats mine;
    engine_project_stats(o->engine, a->project, &mine);
    CHECK(project != NULL); /* its keys go before it does */
    put_text(b, "project", slice_str(project->name));
    put_u64(b, "sources", sources_count(ingest_sources(o->ingest), a->project));
    put_u64(b, "subscriptions", mine.subscriptions);
    put_u64(b, "tasks_running", mine.tasks_running);
    put_u64(b, "webhooks", registry_count(webhooks_registry(o->webhooks), a->project));
    put_u64(b, "jobs", mine.jobs);
    put_behind(a, b);
    totals_put(b, &mine.totals);
}

void status_show(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct engine_stats stats;
    if (!query_none(a, r)) return;
    engine_stats(a->options.engine, &stats);
    struct buf *b = answer_begin(a);
    put_place(a, b, &stats);
    if (access_sees_broker(a)) put_broker(a, b, &stats);
    put_project(a, b);
    answer_send(a, r->handle, 200);
}
