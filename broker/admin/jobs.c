/* /v1/jobs: registering a job, and what is known of it. Waiting for it is jobs_wait.c's. */
#include "broker/admin/jobs.h"

#include "broker/admin/query.h"
#include "broker/admin/webhooks.h"
#include "broker/json/walk.h"

#define SHOWN_BYTES 200 /* of an id, in messages */

static const char *const none[] = {NULL};

/* ---- the id ---- */

static int hex_value(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* RFC 3986 section 2.1: in a path a plus is a plus. */
static bool percent_decode(struct slice raw, uint8_t *out, size_t *len) {
    *len = 0;
    for (size_t i = 0; i < raw.len; i++) {
        uint8_t byte = raw.data[i];
        if (byte == '%') {
            if (raw.len - i < 3) return false;
            int high = hex_value(raw.data[i + 1]), low = hex_value(raw.data[i + 2]);
            if (high < 0 || low < 0) return false;
            byte = (uint8_t)(high * 16 + low);
            i += 2;
        }
        if (byte == '\0') return false;
        out[(*len)++] = byte;
    }
    return true;
}

bool job_id_read(struct admin *a, struct slice raw, struct slice *out, struct refusal *f) {
    uint8_t *id = arena_alloc(&a->arena, raw.len + 1);
    size_t len = 0;
    if (!percent_decode(raw, id, &len)) {
        return refuse(f, ERR_INVALID_REQUEST,
                      "the job's id in the path has a broken percent escape or a NUL");
    }
    *out = slice_of(id, len);
    if (json_utf8_error(*out) != len) {
        return refuse(f, ERR_INVALID_REQUEST, "the job's id in the path is not UTF-8");
    }
    if (len <= LIMIT_EVENT_SUBJECT_BYTES) return true;
    return refuse(f, ERR_INVALID_REQUEST, "a job's id has 1 to %d bytes, as a subject has",
                  LIMIT_EVENT_SUBJECT_BYTES);
}

void job_answer_unknown(struct admin *a, uint64_t handle, struct slice id) {
    bool whole = id.len <= SHOWN_BYTES;
    if (!whole) id.len = SHOWN_BYTES;
    http_respond_error(*a->options.http, handle, ERR_NOT_FOUND,
                       "there is no job \"%.*s%s\": register it with PUT /v1/jobs/ID before it "
                       "starts",
                       SLICE_ARG(id), whole ? "" : "...");
}

/* ---- one as JSON ---- */

static void put_events(struct admin *a, struct buf *b, const struct job_info *job) {
    struct event event;
    put_key(b, "events");
    buf_append_byte(b, '[');
    for (size_t i = 0; i < job->seqs_count; i++) {
        if (!engine_event_get(a->options.engine, a->project, job->seqs[i], &event)) continue;
        put_comma(b);
        buf_append_byte(b, '{');
        put_u64(b, "seq", event.seq);
        put_text(b, "type", event.type);
        put_time(b, "time", event.time_ms != 0 ? event.time_ms : event.received_at_ms);
        buf_append_byte(b, '}');
    }
    buf_append_byte(b, ']');
}

void put_job(struct admin *a, struct buf *b, const struct job_info *job) {
    put_text(b, "id", job->id);
    put_text(b, "state", slice_str(job_state_name(job->state)));
    put_time(b, "create_time", job->created_at_ms);
    put_time(b, "update_time", job->updated_at_ms);
    put_time(b, "due_time", job->due_at_ms);
    put_bool(b, "overdue", job->overdue);
    webhook_config_put(b, job->endpoints, job->metadata);
    if (job->endpoints.len == 0 && job->metadata.len > 0) {
        put_key(b, "user_metadata");
        buf_append_slice(b, job->metadata);
    }
    put_events(a, b, job);
    put_u64(b, "events_total", job->events_total);
}

void jobs_show(struct admin *a, const struct http_request *r, struct slice last) {
    struct slice id = slice_of(NULL, 0);
    struct refusal f;
    struct job_info job;
    if (!query_known(r, none, &f) || !job_id_read(a, last, &id, &f)) {
        answer_refusal(a, r->handle, &f);
    } else if (!engine_job_get(a->options.engine, a->project, id, &job)) {
        job_answer_unknown(a, r->handle, id);
    } else {
        put_job(a, answer_begin(a), &job);
        answer_send(a, r->handle, 200);
    }
}

/* ---- put ---- */

static bool read_metadata(const struct fields *o, struct webhook_config *config,
                          struct refusal *f) {
    struct fields inside;
    if (!field_present(o, "user_metadata")) return true;
    if (config->metadata.len > 0) {
        return refuse(f, ERR_INVALID_REQUEST,
                      "give user_metadata, or webhook_config.user_metadata, not both");
    }
    if (!field_object(o, "user_metadata", "", &inside, f) ||
        !field_json(o, "user_metadata", &config->metadata, f)) {
        return false;
    }
    if (config->metadata.len <= LIMIT_EVENT_METADATA_BYTES) return true;
    return refuse(f, ERR_INVALID_REQUEST, "user_metadata must have at most %d bytes of JSON",
                  LIMIT_EVENT_METADATA_BYTES);
}

static bool read_job(struct admin *a, const struct http_request *r, struct fields *o,
                     struct command *c, struct refusal *f) {
    static const char *const known[] = {"webhook_config", "user_metadata", "ttl_ms", NULL};
    struct webhook_config config = {.endpoints = slice_of(NULL, 0)};
    struct slice text = slice_of(NULL, 0);
    c->u.job.ttl_ms = LIMIT_JOB_TTL_MS_DEFAULT;
    if (r->body.len == 0) return true;
    if (!fields_parse(r->body, o, f) || !fields_known(o, known, f) ||
        !field_json(o, "webhook_config", &text, f)) {
        return false;
    }
    if (field_present(o, "webhook_config") &&
        !webhook_config_read(a, text, "webhook_config", false, &config, f)) {
        return false;
    }
    if (!read_metadata(o, &config, f) ||
        !field_u64(o, "ttl_ms", 1, LIMIT_JOB_TTL_MS_MAX, &c->u.job.ttl_ms, f)) {
        return false;
    }
    c->u.job.endpoints = config.endpoints;
    c->u.job.metadata = config.metadata;
    return true;
}

static void job_written(struct admin *a, const struct pending *p, const struct effect *effect) {
    struct job_info job;
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
    } else if (!engine_job_get(a->options.engine, a->project, slice_str(p->name), &job)) {
        http_respond_error(*a->options.http, p->handle, ERR_DELETED,
                           "the job was forgotten in the same moment");
    } else {
        put_job(a, answer_begin(a), &job);
        answer_send(a, p->handle, effect->u.done.created ? 201 : 200);
    }
}

void jobs_put(struct admin *a, const struct http_request *r, struct slice last) {
    struct command command = {.kind = COMMAND_JOB_PUT};
    struct fields o = {.object = NULL};
    struct refusal f;
    if (query_known(r, none, &f) && job_id_read(a, last, &command.u.job.id, &f) &&
        read_job(a, r, &o, &command, &f)) {
        if (command.u.job.endpoints.len > 0) {
            webhooks_expect_endpoints(a->options.webhooks, a->project, command.u.job.endpoints);
        }
        pending_step(a, r, job_written, command.u.job.id, NULL, &command);
    } else {
        answer_refusal(a, r->handle, &f);
    }
    fields_free(&o);
}
