/* How a webhook comes in, when all is well:
 *   ingest_on_request  finds the source, verifies the raw bytes, reads the envelope (look.c) and
 *                      gives the engine one PUBLISH whose route has the source's id and the
 *                      request's handle
 *   ingest_on_effect   the event is durable: answers 200 with its seq
 *
 * What can go wrong: no such source (404), another method (405), a header that is missing, repeated
 * or malformed, a signature that does not match, a time outside the tolerance (401), no public key
 * known yet (503), more than the source's rate (429): nothing reaches the engine. No room (503):
 * the engine says so in the effect, or ingest_on_head before the body came. Every refusal, also one
 * by the server itself, is counted and logged in ingest_on_refused. The client is gone before the
 * answer: the event stays, a repeat is told the same seq. */
#include "broker/ingest/ingest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/auth/projects.h"
#include "broker/ingest/room.h"

#define PATH_PREFIX "/in/"

#define NOTED_KEEP_BYTES (64 * KIB)
/* A connection has one request under way; some may go and others come within a turn. */
#define NOTED_MAX (4 * LIMIT_CONNECTIONS)

/* Of a verified webhook, until it is durable; in the order of their commands, which is that of
 * their effects. Only when the log wants it. */
struct noted {
    uint64_t handle;
    size_t bytes;
    size_t id_len;
    char id[ACCESS_ID_BYTES];
    char remote[64];
};

int ingest_open(struct ingest **out, const struct ingest_options *options, char *error,
                size_t error_size) {
    struct ingest *i = mem_zalloc(sizeof *i);
    i->options = *options;
    buf_init(&i->answer, LIMIT_BODY_BYTES_HIGHEST + MESSAGE_SIZE);
    buf_init(&i->headers, LIMIT_EVENT_HEADERS_BYTES);
    buf_init(&i->noted, NOTED_MAX * sizeof(struct noted));
    i->sources = sources_new();
    *out = NULL;
    for (size_t k = 0; k < HMAC_DIGESTS; k++) {
        struct hmac *h = hmac_new_digest((enum hmac_digest)k);
        bool there = h != NULL;
        hmac_free(&h);
        if (there) continue;
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
    key_fetch_open(i);
    *out = i;
    return 0;
}

void ingest_close(struct ingest **i) {
    if (*i == NULL) return;
    jwks_free(&(*i)->tools.jwks);
    sources_free(&(*i)->sources);
    buf_free(&(*i)->answer);
    buf_free(&(*i)->headers);
    buf_free(&(*i)->noted);
    free(*i);
    *i = NULL;
}

struct sources *ingest_sources(struct ingest *i) {
    return i->sources;
}

void ingest_refresh(struct ingest *i, uint32_t project, struct slice name) {
    char before[LIMIT_URI_BYTES + 1] = "";
    const struct source *old = sources_get(i->sources, project, name);
    if (old != NULL) snprintf(before, sizeof before, "%s", source_jwks_url(old));
    sources_refresh(i->sources, i->options.engine, project, name, loop_now_ms(i->options.loop));
    key_fetch_changed(i, sources_get(i->sources, project, name), before);
}

void ingest_place(const struct ingest *i, const struct source *source,
                  char out[INGEST_PLACE_BYTES]) {
    const struct project_info *project = projects_get(i->options.projects, source->project);
    bool named = project != NULL && project->id != PROJECT_DEFAULT;
    snprintf(out, INGEST_PLACE_BYTES, "%s%s%s", named ? project->name : "", named ? "/" : "",
             source->name);
}

/* "NAME" or "PROJECT/NAME". */
static struct slice source_name(const struct http_request *r) {
    return slice_from(r->path, sizeof PATH_PREFIX - 1);
}

/* The source that the path names; NULL: there is none. Names need no encoding: whatever else stands
 * in the path, a '%' or another '/', names no source. The default project is never named, so that a
 * source has one address. */
static struct source *find_source(struct ingest *i, const struct http_request *r) {
    struct slice name = source_name(r);
    const uint8_t *slash = name.len == 0 ? NULL : memchr(name.data, '/', name.len);
    if (slash == NULL) return sources_get(i->sources, PROJECT_DEFAULT, name);
    size_t len = (size_t)(slash - name.data);
    const struct project_info *project =
        projects_find(i->options.projects, slice_of(name.data, len));
    if (project == NULL || project->id == PROJECT_DEFAULT) return NULL;
    return sources_get(i->sources, project->id, slice_from(name, len + 1));
}

/* Says that there is no such source, into out. */
static void unknown_source(struct slice name, char out[MESSAGE_SIZE]) {
    bool whole = name.len < INGEST_PLACE_BYTES;
    snprintf(out, MESSAGE_SIZE,
             "there is no source \"%.*s%s\": create it with POST /v1/sources or check the name",
             whole ? (int)name.len : LIMIT_NAME_BYTES, (const char *)name.data, whole ? "" : "...");
}

/* ---- refusals ---- */

/* Whether the source takes one more now. False: *refusal says when; its message is in text. */
static bool rate_open(const struct source *source, uint64_t now_ms, char text[ADMISSION_TEXT_BYTES],
                      struct http_refusal *refusal) {
    uint64_t next_ms = rate_next_ms(&source->rate);
    if (next_ms <= now_ms) return true;
    uint64_t after_s = (next_ms - now_ms + 999) / 1000;
    snprintf(text, ADMISSION_TEXT_BYTES,
             "source \"%s\" takes %" PRIu32
             " webhooks a second: nothing was taken, send it again "
             "in %" PRIu64 " s",
             source->name, source->rate.per_s, after_s);
    *refusal = (struct http_refusal){
        .err = ERR_RATE_LIMITED, .message = text, .retry_after_s = (uint32_t)after_s};
    return false;
}

bool ingest_on_head(struct ingest *i, const struct http_request *head,
                    struct http_refusal *refusal) {
    if (!slice_eq_str(head->method, "POST")) return true;
    const struct source *source = find_source(i, head);
    if (source == NULL) {
        unknown_source(source_name(head), i->head_message);
        *refusal = (struct http_refusal){.err = ERR_NOT_FOUND, .message = i->head_message};
        return false;
    }
    return admission_open(i->options.engine, source->project, i->head_message, refusal) &&
           rate_open(source, loop_now_ms(i->options.loop), i->head_message, refusal);
}

/* What it says its id is; of a source that there is not, by any of the names. */
static struct slice claimed_id(const struct source *source, const struct http_request *r) {
    const char *own = source == NULL ? NULL : source->options.id_header;
    const char *names[] = {own, source == NULL ? NULL : source->scheme->id_header, "webhook-id",
                           "svix-id"};
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        if (names[k] == NULL || names[k][0] == '\0') continue;
        struct slice id = http_header_get(r, names[k], NULL);
        if (id.len > 0) return id;
    }
    return slice_of(NULL, 0);
}

void ingest_on_refused(struct ingest *i, const struct http_request *r,
                       const struct http_refusal *refusal) {
    struct source *source = find_source(i, r);
    if (source != NULL && slice_eq_str(r->method, "POST")) source->refused_total++;
    if (!access_log_takes_refusal(i->options.log, loop_now_ms(i->options.loop))) return;
    const struct access_webhook line = {
        .source = source_name(r),
        .remote = slice_str(r->peer),
        .id = claimed_id(source, r),
        .bytes = r->body.len,
    };
    /* That there is no such source is said with its name. */
    bool named = refusal->err == ERR_NOT_FOUND;
    access_log_webhook_refused(i->options.log, &line, refusal->err,
                               named ? NULL : refusal->message);
}

/* ---- what the log says of those that are taken ---- */

static void log_challenge(const struct ingest *i, const struct http_request *r) {
    const struct access_webhook line = {
        .source = source_name(r), .remote = slice_str(r->peer), .bytes = r->body.len};
    access_log_accepted(i->options.log, &line, "challenge", 0);
}

static void note(struct ingest *i, const struct http_request *r, struct slice id) {
    struct noted n = {.handle = r->handle, .bytes = r->body.len};
    if (!access_log_wants_accepted(i->options.log)) return;
    n.id_len = id.len > sizeof n.id ? sizeof n.id : id.len;
    if (n.id_len > 0) memcpy(n.id, id.data, n.id_len);
    snprintf(n.remote, sizeof n.remote, "%s", r->peer);
    CHECK(buf_append(&i->noted, &n, sizeof n));
}

/* The one with this handle, which is the next. False: there are none. */
static bool take_noted(struct ingest *i, uint64_t handle, struct noted *out) {
    if (i->noted_at == i->noted.len) return false;
    memcpy(out, i->noted.data + i->noted_at, sizeof *out);
    CHECK(out->handle == handle);
    i->noted_at += sizeof *out;
    if (i->noted_at < i->noted.len) return true;
    i->noted_at = 0;
    if (i->noted.cap > NOTED_KEEP_BYTES) buf_free(&i->noted);
    else buf_clear(&i->noted);
    return true;
}

static void log_published(const struct ingest *i, const struct source *source,
                          const struct noted *n, const struct publish_result *result) {
    char place[INGEST_PLACE_BYTES] = "";
    if (source != NULL) ingest_place(i, source, place); /* else it was deleted since */
    const struct access_webhook line = {
        .source = slice_str(place),
        .remote = slice_str(n->remote),
        .id = slice_of(n->id, n->id_len),
        .bytes = n->bytes,
    };
    access_log_accepted(i->options.log, &line, result->duplicate ? "duplicate" : "accepted",
                        result->seq);
}

/* ---- requests and effects ---- */

/* The handshake of CloudEvents' webhooks: a sender asks whether it may send here at all. What it
 * sends is verified one by one, so whoever asks may. A name that no header can carry back, or that
 * is none, gets no consent. */
static bool answer_handshake(struct http_server *http, const struct source *source,
                             const struct http_request *r) {
    char extra[LIMIT_HTTP_HEAD_BYTES / 8];
    struct slice origin = http_header_get(r, "webhook-request-origin", NULL);
    struct slice rate = http_header_get(r, "webhook-request-rate", NULL);
    uint64_t number = 0, most = source->options.rate_per_s * 60; /* a minute */
    if (origin.len == 0 || origin.len > 253) return false;
    for (size_t k = 0; k < origin.len; k++) {
        if (origin.data[k] <= ' ' || origin.data[k] >= 0x7F) return false;
    }
    bool asked = slice_to_u64(rate, &number) && number > 0;
    char said[24] = "*";
    if (most > 0 && (!asked || number > most)) number = most;
    if (number > 0) snprintf(said, sizeof said, "%" PRIu64, number);
    snprintf(extra, sizeof extra,
             "Allow: POST\r\nWebHook-Allowed-Origin: %.*s\r\nWebHook-Allowed-Rate: %s\r\n",
             SLICE_ARG(origin), said);
    http_respond(http, r->handle, 200, NULL, extra, slice_str("{}\n"));
    return true;
}

static void answer_other_method(struct http_server *http, const struct source *source,
                                const struct http_request *r) {
    static const struct http_refusal refusal = {.err = ERR_METHOD_NOT_ALLOWED,
                                                .message = "a webhook is a POST",
                                                .extra = "Allow: POST\r\n"};
    if (slice_eq_str(r->method, "OPTIONS") && answer_handshake(http, source, r)) return;
    http_respond_refusal(http, r->handle, &refusal);
}

void ingest_on_request(struct ingest *i, const struct http_request *r) {
    struct http_server *http = *i->options.http;
    struct source *source = find_source(i, r);
    if (source == NULL) {
        char message[MESSAGE_SIZE];
        unknown_source(source_name(r), message);
        http_respond_error(http, r->handle, ERR_NOT_FOUND, "%s", message);
        return;
    }
    if (!slice_eq_str(r->method, "POST")) {
        answer_other_method(http, source, r);
        return;
    }
    struct http_refusal refusal;
    struct ingest_verdict verdict;
    struct engine_time time = {.now_ms = loop_now_ms(i->options.loop),
                               .wall_ms = loop_wall_ms(i->options.loop)};
    source_expire(source, time.wall_ms);
    ingest_look(i, source, r, time.wall_ms, &verdict);
    if (verdict.err != ERR_OK) {
        http_respond_error(http, r->handle, verdict.err, "%s", verdict.verification.why);
        return;
    }
    /* Only here: what somebody forges is not to use up what the sender may send. */
    if (!rate_open(source, time.now_ms, i->head_message, &refusal)) {
        http_respond_refusal(http, r->handle, &refusal);
        return;
    }
    rate_take(&source->rate, time.now_ms);
    if (verdict.challenge) {
        log_challenge(i, r);
        http_respond(http, r->handle, 200, NULL, NULL, verdict.answer);
        return;
    }
    struct command command = {
        .kind = COMMAND_PUBLISH,
        .project = source->project,
        .route = {.room = i->options.room, .rid = source->id, .handle = r->handle},
        .u.publish = {.events = &verdict.event,
                      .count = 1,
                      .dedupe_ms = source->options.dedupe_ms,
                      .dedupe_events = source->options.dedupe_events,
                      .dedupe_by_body = verdict.dedupe_by_body},
    };
    note(i, r, verdict.event.id);
    engine_step(i->options.engine, time, &command);
}

void ingest_on_effect(struct ingest *i, const struct effect *effect) {
    struct http_server *http = *i->options.http;
    struct noted noted;
    bool logged = take_noted(i, effect->route.handle, &noted);
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
    if (logged) log_published(i, source, &noted, result);

    buf_clear(&i->answer);
    buf_append_str(&i->answer, "{\"seq\":");
    buf_append_u64(&i->answer, result->seq);
    buf_append_str(&i->answer, result->duplicate ? ",\"duplicate\":true}\n" : "}\n");
    http_respond(http, effect->route.handle, 200, NULL, NULL, buf_slice(&i->answer));
}
