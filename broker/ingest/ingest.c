/* How a webhook comes in, when all is well:
 *   ingest_on_request  finds the source, verifies the raw bytes, reads the envelope and gives the
 *                      engine one PUBLISH whose route has the source's id and the request's handle
 *   ingest_on_effect   the event is durable: answers 200 with its seq
 *
 * What can go wrong: no such source (404), another method (405), a header that is missing, repeated
 * or malformed, a signature that does not match, a time outside the tolerance (401): nothing
 * reaches the engine, the refusal is counted and logged. No room (503): the engine says so in the
 * effect, or ingest_on_head before the body came. The client is gone before the answer: the event
 * stays, a repeat is told the same seq. */
#include "broker/ingest/ingest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "broker/ingest/envelope.h"
#include "broker/ingest/standard_webhooks.h"
#include "broker/json/walk.h"
#include "broker/net/loop.h"

#define PATH_PREFIX "/in/"

/* Who knocks with bad signatures must not fill the log: this many lines in a second, then a count
 * when the next second's first line is written. */
#define LOG_LINES_PER_S 20
#define LOG_ID_BYTES    64

#define MESSAGE_SIZE 256

struct ingest {
    struct ingest_options options;
    struct sources *sources;
    struct hmac *hmac;
    uint64_t log_second;
    uint32_t log_lines;  /* written in that second */
    uint64_t log_silent; /* refusals not logged since the last line */
    char head_message[MESSAGE_SIZE];
    struct buf answer; /* scratch */
};

int ingest_open(struct ingest **out, const struct ingest_options *options, char *error,
                size_t error_size) {
    struct ingest *i = mem_zalloc(sizeof *i);
    i->options = *options;
    buf_init(&i->answer, MESSAGE_SIZE);
    i->sources = sources_new();
    i->hmac = hmac_new();
    *out = NULL;
    if (i->hmac == NULL) {
        snprintf(error, error_size, "libcrypto has no HMAC-SHA256: is its configuration broken?");
        ingest_close(&i);
        return ERR_INTERNAL;
    }
    int err = sources_load(i->sources, options->engine, error, error_size);
    if (err != 0) {
        ingest_close(&i);
        return err;
    }
    *out = i;
    return 0;
}

void ingest_close(struct ingest **i) {
    if (*i == NULL) return;
    hmac_free(&(*i)->hmac);
    sources_free(&(*i)->sources);
    buf_free(&(*i)->answer);
    free(*i);
    *i = NULL;
}

struct sources *ingest_sources(struct ingest *i) {
    return i->sources;
}

/* Names need no encoding: whatever else stands in the path, a '%' or a '/', names no source. */
static struct slice source_name(const struct http_request *r) {
    return slice_from(r->path, sizeof PATH_PREFIX - 1);
}

/* Says that there is no such source, into out. */
static void unknown_source(struct slice name, char out[MESSAGE_SIZE]) {
    bool whole = name.len <= LIMIT_NAME_BYTES;
    snprintf(out, MESSAGE_SIZE,
             "there is no source \"%.*s%s\": create it with POST /v1/sources or check the name",
             whole ? (int)name.len : LIMIT_NAME_BYTES, (const char *)name.data, whole ? "" : "...");
}

enum err ingest_on_head(struct ingest *i, const struct http_request *head, const char **message) {
    if (!slice_eq_str(head->method, "POST")) return ERR_OK;
    if (sources_get(i->sources, source_name(head)) == NULL) {
        unknown_source(source_name(head), i->head_message);
        *message = i->head_message;
        return ERR_NOT_FOUND;
    }
    struct engine_stats stats;
    engine_stats(i->options.engine, &stats);
    if (!stats.room) {
        *message = "the store is nearly full: nothing was taken, send it again later";
        return ERR_NO_ROOM;
    }
    return ERR_OK;
}

static void log_refusal(struct ingest *i, const struct source *source, const struct http_request *r,
                        enum err err) {
    uint64_t second = loop_now_ms(i->options.loop) / 1000;
    if (second != i->log_second) {
        i->log_second = second;
        i->log_lines = 0;
    }
    if (i->log_lines == LOG_LINES_PER_S) {
        i->log_silent++;
        return;
    }
    if (i->log_silent > 0) {
        log_info("%" PRIu64 " more refused webhooks were not logged", i->log_silent);
        i->log_silent = 0;
    }
    i->log_lines++;
    struct slice id = http_header_get(r, STANDARD_WEBHOOKS_ID, NULL);
    if (id.len > LOG_ID_BYTES) id.len = LOG_ID_BYTES;
    log_info("refused a webhook: source %s, peer %s, id %.*s, %s", source->name, r->peer,
             SLICE_ARG(id), err_info((int)err).word);
}

static void refuse(struct ingest *i, struct source *source, const struct http_request *r,
                   enum err err, const char *why) {
    source->refused_total++;
    log_refusal(i, source, r, err);
    http_respond_error(*i->options.http, r->handle, err, "%s", why);
}

/* Finds one of the scheme's headers. False: it is there more than once, and which one was signed
 * nobody can say. */
static bool one_header(const struct http_request *r, const char *name, struct slice *out) {
    size_t count = 0;
    *out = http_header_get(r, name, &count);
    return count <= 1;
}

static enum err verify(struct ingest *i, const struct source *source, const struct http_request *r,
                       struct slice *id, const char **why) {
    struct standard_webhooks_request claim = {.body = r->body};
    if (!one_header(r, STANDARD_WEBHOOKS_ID, &claim.id) ||
        !one_header(r, STANDARD_WEBHOOKS_TIMESTAMP, &claim.timestamp) ||
        !one_header(r, STANDARD_WEBHOOKS_SIGNATURE, &claim.signature)) {
        *why = "a webhook- header is there more than once";
        return ERR_SIGNATURE_MALFORMED;
    }
    *id = claim.id;
    return standard_webhooks_verify(i->hmac, source->secrets, source->secrets_count, &claim,
                                    loop_wall_ms(i->options.loop), why);
}

void ingest_on_request(struct ingest *i, const struct http_request *r) {
    struct http_server *http = *i->options.http;
    struct source *source = sources_get(i->sources, source_name(r));
    if (source == NULL) {
        char message[MESSAGE_SIZE];
        unknown_source(source_name(r), message);
        http_respond_error(http, r->handle, ERR_NOT_FOUND, "%s", message);
        return;
    }
    if (!slice_eq_str(r->method, "POST")) {
        static const char body[] =
            "{\"error\":{\"code\":\"method_not_allowed\",\"message\":\"a webhook is a POST\"}}\n";
        http_respond(http, r->handle, 405, NULL, "Allow: POST\r\n", slice_str(body));
        return;
    }
    struct slice id;
    const char *why = NULL;
    enum err err = verify(i, source, r, &id, &why);
    if (err != ERR_OK) {
        refuse(i, source, r, err, why);
        return;
    }

    struct envelope envelope;
    envelope_read(r->body, &envelope);
    struct slice content_type = http_header_get(r, "content-type", NULL);
    if (content_type.len > LIMIT_EVENT_CONTENT_TYPE_BYTES ||
        json_utf8_error(content_type) != content_type.len) {
        content_type.len = 0;
    }
    struct event event = {
        .time_ms = envelope.time_ms,
        .source = slice_str(source->name),
        .id = id,
        .type = envelope.type,
        .subject = envelope.subject,
        .content_type = content_type,
        .metadata = envelope.metadata,
        .body = r->body,
    };
    struct command command = {
        .kind = COMMAND_PUBLISH,
        .route = {.room = i->options.room, .rid = source->id, .handle = r->handle},
        .u.publish = {.events = &event, .count = 1, .project = PROJECT_DEFAULT},
    };
    struct engine_time time = {.now_ms = loop_now_ms(i->options.loop),
                               .wall_ms = loop_wall_ms(i->options.loop)};
    engine_step(i->options.engine, time, &command);
}

void ingest_on_effect(struct ingest *i, const struct effect *effect) {
    struct http_server *http = *i->options.http;
    CHECK(effect->kind == EFFECT_PUBLISHED);
    if (effect->err != ERR_OK) {
        http_respond_error(http, effect->route.handle, effect->err, "%s",
                           effect->message == NULL ? "nothing was taken" : effect->message);
        return;
    }
    CHECK(effect->u.published.count == 1);
    const struct publish_result *result = &effect->u.published.results[0];
    struct source *source = sources_get_by_id(i->sources, effect->route.rid);
    if (source != NULL && result->duplicate) source->duplicates_total++;
    else if (source != NULL) source->accepted_total++;

    buf_clear(&i->answer);
    buf_append_str(&i->answer, "{\"seq\":");
    buf_append_u64(&i->answer, result->seq);
    buf_append_str(&i->answer, result->duplicate ? ",\"duplicate\":true}\n" : "}\n");
    http_respond(http, effect->route.handle, 200, NULL, NULL, buf_slice(&i->answer));
}
