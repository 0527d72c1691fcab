/* GET /v1/status and /healthz. */
#include <unistd.h>

#include "broker/admin/answer.h"
#include "broker/admin/query.h"

#define STATUS_BEHIND 5

static bool no_query(struct admin *a, const struct http_request *r) {
    static const char *const none[] = {NULL};
    struct refusal f;
    if (query_known(r, none, &f)) return true;
    answer_refusal(a, r->handle, &f);
    return false;
}

static void put_totals(struct buf *b, const struct engine_stats *stats) {
    put_open(b, "totals");
    put_u64(b, "published", stats->published_total);
    put_u64(b, "duplicates", stats->duplicates_total);
    put_u64(b, "refused", stats->refused_total);
    put_u64(b, "delivered", stats->delivered_total);
    put_u64(b, "acked", stats->acked_total);
    put_u64(b, "nacked", stats->nacked_total);
    put_u64(b, "expired", stats->expired_total);
    put_u64(b, "dead", stats->dead_total);
    put_close(b);
}

/* Those that an operator should look at first, by name. */
static void put_behind(struct admin *a, struct buf *b) {
    struct subscription_info behind[STATUS_BEHIND];
    size_t count = engine_subscriptions_behind(a->options.engine, behind, STATUS_BEHIND);
    put_key(b, "behind");
    buf_append_byte(b, '[');
    for (size_t i = 0; i < count; i++) {
        const struct subscription_info *s = &behind[i];
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

void status_show(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    const struct admin_options *o = &a->options;
    struct engine_stats stats;
    struct store_usage usage;
    if (!no_query(a, r)) return;
    engine_stats(o->engine, &stats);
    store_usage(o->store, &usage);
    struct buf *b = answer_begin(a);
    put_text(b, "version", slice_str(BELLHOP_VERSION));
    put_u64(b, "pid", (uint64_t)getpid());
    put_u64(b, "uptime_ms", loop_now_ms(o->loop) - a->opened_ms);
    put_text(b, "http", slice_str(o->http_address));
    put_text(b, "workers", slice_str(o->workers_address));
    put_u64(b, "workers_port", o->workers_port);
    put_bool(b, "workers_tls", o->workers_tls);
    put_open(b, "journal");
    put_u64(b, "first_seq", stats.first_seq);
    put_u64(b, "last_seq", stats.last_seq);
    put_close(b);
    put_u64(b, "journal_bytes", stats.journal_bytes);
    put_u64(b, "trimmed", stats.trimmed_total);
    put_open(b, "retention");
    retention_put(b, &stats.retention);
    put_close(b);
    put_text(b, "blocked_by", stats.blocked_by);
    put_bool(b, "room", stats.room);
    put_open(b, "store");
    put_u64(b, "bytes_used", usage.bytes_used);
    put_u64(b, "bytes_max", usage.bytes_max);
    put_u64(b, "disk_free", usage.disk_free);
    put_close(b);
    put_open(b, "connections");
    put_u64(b, "http", http_server_connections(*o->http));
    put_u64(b, "workers", o->workers_count(o->workers_ctx));
    put_close(b);
    put_u64(b, "sources", sources_count(ingest_sources(o->ingest)));
    put_u64(b, "subscriptions", stats.subscriptions);
    put_u64(b, "tasks_running", stats.tasks_running);
    put_u64(b, "webhooks", registry_count(webhooks_registry(o->webhooks)));
    put_u64(b, "jobs", engine_jobs_count(o->engine));
    put_u64(b, "job_waits", jobs_waiting(o->jobs));
    put_behind(a, b);
    put_totals(b, &stats);
    answer_send(a, r->handle, 200);
}

void health_show(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    if (!no_query(a, r)) return;
    put_text(answer_begin(a), "status", slice_str("ok"));
    answer_send(a, r->handle, 200);
}
