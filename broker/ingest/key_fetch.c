/* Fetching key sets: jwks.c says when, the outbound client does it. The URL is the operator's, and
 * still its address must pass the client's guard: what resolves a name is not the operator's. */
#include <stdio.h>
#include <stdlib.h>

#include "broker/http/client.h"
#include "broker/ingest/room.h"

struct fetch {
    struct ingest *ingest;
    struct jwks_set *set;
    struct http_transfer *transfer;
};

static void on_done(void *ctx, const struct http_result *result) {
    struct fetch *f = ctx;
    struct loop *loop = f->ingest->options.loop;
    char trouble[JWKS_TROUBLE_SIZE];
    bool good = result->failure == HTTP_ANSWERED && result->status == 200;
    if (result->failure == HTTP_ANSWERED) {
        snprintf(trouble, sizeof trouble, "it answered with status %d", result->status);
    } else {
        snprintf(trouble, sizeof trouble, "%s: %s", http_failure_name(result->failure),
                 result->detail);
    }
    *jwks_set_ctx(f->set) = NULL;
    jwks_fetched(f->set, result->body, good ? NULL : trouble, loop_now_ms(loop),
                 loop_wall_ms(loop));
    free(f);
}

static bool start(void *ctx, struct jwks_set *set, const char *url) {
    static const struct http_outbound_header accept = {"Accept", "application/json"};
    struct ingest *i = ctx;
    if (i->client == NULL) return false;
    struct fetch *f = mem_zalloc(sizeof *f);
    f->ingest = i;
    f->set = set;
    *jwks_set_ctx(set) = f;
    const struct http_outbound request = {
        .uri = url,
        .get = true,
        .headers = &accept,
        .headers_count = 1,
        .timeout_ms = JWKS_FETCH_MS,
        .response_max = LIMIT_RESPONSE_BYTES,
        .on_done = on_done,
        .ctx = f,
    };
    f->transfer = http_client_send(i->client, &request);
    return true;
}

static void cancel(void *ctx, struct jwks_set *set) {
    struct ingest *i = ctx;
    struct fetch *f = *jwks_set_ctx(set);
    http_client_cancel(i->client, f->transfer);
    *jwks_set_ctx(set) = NULL;
    free(f);
}

void key_fetch_open(struct ingest *i) {
    const struct jwks_hooks hooks = {.start = start, .cancel = cancel, .ctx = i};
    i->tools.jwks = jwks_new(&hooks);
    const struct source *source;
    for (size_t k = 0; (source = sources_at(i->sources, k)) != NULL; k++) {
        const char *url = source_jwks_url(source);
        if (url[0] != '\0') jwks_use(i->tools.jwks, url);
    }
}

void key_fetch_changed(struct ingest *i, const struct source *source, const char *before) {
    const char *url = source == NULL ? "" : source_jwks_url(source);
    if (strcmp(url, before) != 0) {
        if (url[0] != '\0') jwks_use(i->tools.jwks, url);
        if (before[0] != '\0') jwks_leave(i->tools.jwks, before, loop_now_ms(i->options.loop));
    }
    if (source != NULL) key_fetch_expect(i, source);
}

void key_fetch_expect(struct ingest *i, const struct source *source) {
    const char *url = source_jwks_url(source);
    if (url[0] != '\0') jwks_get(i->tools.jwks, url, loop_now_ms(i->options.loop));
}

const struct jwks_set *ingest_key_set(struct ingest *i, const struct source *source) {
    const char *url = source_jwks_url(source);
    if (url[0] == '\0') return NULL;
    return jwks_get(i->tools.jwks, url, loop_now_ms(i->options.loop));
}

void ingest_use_client(struct ingest *i, struct http_client *client) {
    if (client == NULL) {
        jwks_free(&i->tools.jwks); /* cancels */
        i->client = NULL;
        key_fetch_open(i);
        return;
    }
    i->client = client;
    const struct source *source;
    for (size_t k = 0; (source = sources_at(i->sources, k)) != NULL; k++) {
        key_fetch_expect(i, source);
    }
}
