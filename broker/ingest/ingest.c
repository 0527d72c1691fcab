/* How a webhook comes in, when all is well:
 *   ingest_on_request  finds the source, verifies the raw bytes, reads the envelope (look.c) and
 *                      gives the engine one PUBLISH whose route has the source's id and the
 *                      request's handle
 *   ingest_on_effect   the event is durable: answers 200 with its seq
 *
 * What can go wrong: no such source (404), another method (405), a header that is missing, repeated
 * or malformed, a signature that does not match, a time outside the tolerance (401), no public key
 * known yet (503): nothing reaches the engine, the refusal is counted and logged. No room (503):
 * the engine says so in the effect, or ingest_on_head before the body came. The client is gone
 * before the answer: the event stays, a repeat is told the same seq. */
#include "broker/ingest/ingest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "broker/ingest/room.h"

#define PATH_PREFIX "/in/"

/* Who knocks with bad signatures must not fill the log: this many lines in a second, then a count
 * when the next second's first line is written. */
#define LOG_LINES_PER_S 20
#define LOG_ID_BYTES    64

int ingest_open(struct ingest **out, const struct ingest_options *options, char *error,
                size_t error_size) {
    struct ingest *i = mem_zalloc(sizeof *i);
    i->options = *options;
    buf_init(&i->answer, LIMIT_BODY_BYTES_HIGHEST + MESSAGE_SIZE);
    buf_init(&i->headers, LIMIT_EVENT_HEADERS_BYTES);
    i->sources = sources_new();
    key_fetch_open(i);
    *out = NULL;
    for (size_t k = 0; k < HMAC_DIGESTS; k++) {
        i->tools.hmacs[k] = hmac_new_digest((enum hmac_digest)k);
        if (i->tools.hmacs[k] != NULL) continue;
        snprintf(error, error_size,
                 "libcrypto has no HMAC with SHA-256, SHA-1 and SHA-512: is its configuration "
                 "broken?");
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
    jwks_free(&(*i)->tools.jwks);
    for (size_t k = 0; k < HMAC_DIGESTS; k++) hmac_free(&(*i)->tools.hmacs[k]);
    sources_free(&(*i)->sources);
    buf_free(&(*i)->answer);
    buf_free(&(*i)->headers);
    free(*i);
    *i = NULL;
}

struct sources *ingest_sources(struct ingest *i) {
    return i->sources;
}

void ingest_refresh(struct ingest *i, struct slice name) {
    sources_refresh(i->sources, i->options.engine, name);
    const struct source *source = sources_get(i->sources, name);
    if (source != NULL) key_fetch_expect(i, source);
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
    struct slice id = http_header_get(r, "webhook-id", NULL);
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

/* The handshake of CloudEvents' webhooks: a sender asks whether it may send here at all. What it
 * sends is verified one by one, so whoever asks may. A name that no header can carry back, or that
 * is none, gets no consent. */
static bool answer_handshake(struct http_server *http, const struct http_request *r) {
    char extra[LIMIT_HTTP_HEAD_BYTES / 8];
    struct slice origin = http_header_get(r, "webhook-request-origin", NULL);
    struct slice rate = http_header_get(r, "webhook-request-rate", NULL);
    uint64_t number = 0;
    if (origin.len == 0 || origin.len > 253) return false;
    for (size_t k = 0; k < origin.len; k++) {
        if (origin.data[k] <= ' ' || origin.data[k] >= 0x7F) return false;
    }
    bool asked = slice_to_u64(rate, &number) && number > 0;
    char said[24] = "*";
    if (asked) snprintf(said, sizeof said, "%" PRIu64, number);
    snprintf(extra, sizeof extra,
             "Allow: POST\r\nWebHook-Allowed-Origin: %.*s\r\nWebHook-Allowed-Rate: %s\r\n",
             SLICE_ARG(origin), said);
    http_respond(http, r->handle, 200, NULL, extra, slice_str("{}\n"));
    return true;
}

static void answer_other_method(struct http_server *http, const struct http_request *r) {
    static const char body[] =
        "{\"error\":{\"code\":\"method_not_allowed\",\"message\":\"a webhook is a POST\"}}\n";
    if (slice_eq_str(r->method, "OPTIONS") && answer_handshake(http, r)) return;
    http_respond(http, r->handle, 405, NULL, "Allow: POST\r\n", slice_str(body));
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
        answer_other_method(http, r);
        return;
    }
    struct ingest_verdict verdict;
    struct engine_time time = {.now_ms = loop_now_ms(i->options.loop),
                               .wall_ms = loop_wall_ms(i->options.loop)};
    source_expire(source, time.wall_ms);
    ingest_look(i, source, r, time.wall_ms, &verdict);
    if (verdict.err != ERR_OK) {
        refuse(i, source, r, verdict.err, verdict.verification.why);
        return;
    }
    if (verdict.challenge) {
        http_respond(http, r->handle, 200, NULL, NULL, verdict.answer);
        return;
    }
    struct command command = {
        .kind = COMMAND_PUBLISH,
        .route = {.room = i->options.room, .rid = source->id, .handle = r->handle},
        .u.publish = {.events = &verdict.event,
                      .count = 1,
                      .project = PROJECT_DEFAULT,
                      .dedupe_ms = source->options.dedupe_ms,
                      .dedupe_by_body = verdict.dedupe_by_body},
    };
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
