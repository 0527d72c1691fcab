/* The attempts that are kept for people.
 *
 * Failed ones are entries of the engine's config, "attempt/ID/SLOT", in a ring of
 * LIMIT_WEBHOOK_ATTEMPTS_KEPT slots per webhook: they survive a restart, and the breaker bounds how
 * often one is written. Of successes the last few are in memory: writing each would cost as much as
 * the delivery itself. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/fields/fields.h"
#include "broker/fields/put.h"
#include "broker/webhooks/room.h"

#define PREFIX          "attempt/"
#define KEY_BYTES       (sizeof PREFIX + WEBHOOK_ID_BYTES + 8)
#define VALUE_BYTES_MAX (16 * KIB)
#define ENTRIES_MAX     (LIMIT_WEBHOOK_ATTEMPTS_KEPT + RECENT_KEPT)

const char *history_error(const struct http_result *res) {
    return res->failure == HTTP_ANSWERED ? "status" : http_failure_name(res->failure);
}

void history_success(struct registered *r, const struct attempt *a, const struct http_result *res,
                     uint64_t wall_ms) {
    if (r->recent == NULL) r->recent = mem_zalloc(RECENT_KEPT * sizeof *r->recent);
    struct recent *n = &r->recent[r->recent_next++ % RECENT_KEPT];
    *n = (struct recent){
        .at_ms = wall_ms,
        .seq = a->seq,
        .duration_ms = res->duration_ms,
        .number = a->fails + 1,
        .status = res->status,
    };
    snprintf(n->type, sizeof n->type, "%.*s", (int)sizeof n->type - 1, a->type);
}

/* ---- on disk ---- */

static void prefix_of(const char *id, char out[KEY_BYTES]) {
    snprintf(out, KEY_BYTES, PREFIX "%s/", id);
}

/* What an endpoint answered, as a text that JSON readers take: NUL is none. */
static void put_response(struct buf *b, struct slice response) {
    char shown[LIMIT_WEBHOOK_RESPONSE_KEPT];
    CHECK(response.len <= sizeof shown);
    for (size_t i = 0; i < response.len; i++) {
        shown[i] = response.data[i] == '\0' ? '?' : (char)response.data[i];
    }
    put_text(b, "response", slice_of(shown, response.len));
}

static void encode(struct buf *b, uint64_t number, const struct attempt_info *i) {
    buf_append_byte(b, '{');
    put_u64(b, "n", number);
    put_u64(b, "at_ms", i->at_ms);
    put_u64(b, "seq", i->seq);
    put_text(b, "type", i->type);
    put_u64(b, "number", i->number);
    put_u64(b, "status", (uint64_t)i->status);
    put_text(b, "error", i->error);
    put_text(b, "detail", i->detail);
    put_response(b, i->response);
    put_u64(b, "duration_ms", i->duration_ms);
    put_u64(b, "next_attempt_ms", i->next_attempt_ms);
    buf_append_byte(b, '}');
    CHECK(!b->overflow); /* every part is bounded */
}

/* Slices of *out point into `o`. False: it was written by something else. */
static bool decode(struct slice value, struct fields *o, uint64_t *number,
                   struct attempt_info *out) {
    struct refusal f;
    uint64_t attempt = 0, status = 0;
    *out = (struct attempt_info){.ok = false};
    if (!fields_parse(value, o, &f)) return false;
    bool ok = field_u64(o, "n", 0, UINT64_MAX, number, &f) &&
              field_u64(o, "at_ms", 0, UINT64_MAX, &out->at_ms, &f) &&
              field_u64(o, "seq", 0, UINT64_MAX, &out->seq, &f) &&
              field_text(o, "type", &out->type, &f) &&
              field_u64(o, "number", 0, UINT32_MAX, &attempt, &f) &&
              field_u64(o, "status", 0, 999, &status, &f) &&
              field_text(o, "error", &out->error, &f) &&
              field_text(o, "detail", &out->detail, &f) &&
              field_text(o, "response", &out->response, &f) &&
              field_u64(o, "duration_ms", 0, UINT64_MAX, &out->duration_ms, &f) &&
              field_u64(o, "next_attempt_ms", 0, UINT64_MAX, &out->next_attempt_ms, &f);
    out->number = (uint32_t)attempt;
    out->status = (int)status;
    return ok;
}

static void find_newest(void *ctx, struct slice key, struct slice value) {
    uint64_t *next = ctx, number = 0;
    struct attempt_info info;
    struct fields o = {.object = NULL};
    (void)key;
    if (decode(value, &o, &number, &info) && number >= *next) *next = number + 1;
    fields_free(&o);
}

void history_failure(struct webhooks *w, struct registered *r, const struct attempt *a,
                     const struct http_result *res, uint64_t wall_ms, uint64_t next_attempt_ms) {
    const struct attempt_info info = {
        .at_ms = wall_ms,
        .seq = a->seq,
        .type = slice_str(a->type),
        .number = a->fails + 1,
        .status = res->status,
        .error = slice_str(history_error(res)),
        .detail = slice_str(res->detail),
        .response = res->body,
        .duration_ms = res->duration_ms,
        .next_attempt_ms = next_attempt_ms,
    };
    char key[KEY_BYTES];
    struct buf value;
    prefix_of(r->id, key);
    if (r->history_next == 0) {
        r->history_next = 1;
        engine_config_scan(w->options.engine, slice_str(key), find_newest, &r->history_next);
    }
    uint64_t number = r->history_next++;
    snprintf(key, sizeof key, PREFIX "%s/%02" PRIu64, r->id, number % LIMIT_WEBHOOK_ATTEMPTS_KEPT);
    buf_init(&value, VALUE_BYTES_MAX);
    encode(&value, number, &info);
    struct command c = {
        .kind = COMMAND_CONFIG_PUT,
        .u.config = {.key = slice_str(key), .value = buf_slice(&value)},
    };
    webhooks_step(w, &c, RID_NONE, 0);
    buf_free(&value);
}

/* ---- for people ---- */

struct entry {
    struct attempt_info info;
    struct fields fields; /* that its slices point into; object NULL: none */
    uint64_t order;
};

struct collected {
    struct entry v[ENTRIES_MAX];
    size_t count;
};

static void collect(void *ctx, struct slice key, struct slice value) {
    struct collected *c = ctx;
    (void)key;
    if (c->count == ENTRIES_MAX) return;
    struct entry *e = &c->v[c->count];
    e->fields.object = NULL;
    if (decode(value, &e->fields, &e->order, &e->info)) c->count++;
    else fields_free(&e->fields);
}

static int newest_first(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    if (x->info.at_ms != y->info.at_ms) return x->info.at_ms < y->info.at_ms ? 1 : -1;
    return x->order < y->order ? 1 : x->order > y->order ? -1 : 0;
}

static void collect_recent(const struct registered *r, struct collected *c) {
    for (size_t i = 0; r != NULL && r->recent != NULL && i < RECENT_KEPT; i++) {
        const struct recent *n = &r->recent[i];
        if (n->at_ms == 0 || c->count == ENTRIES_MAX) continue;
        c->v[c->count++] = (struct entry){
            .info = {.at_ms = n->at_ms,
                     .seq = n->seq,
                     .type = slice_str(n->type),
                     .number = n->number,
                     .ok = true,
                     .status = n->status,
                     .duration_ms = n->duration_ms},
            .order = UINT64_MAX,
        };
    }
}

void webhooks_attempts(struct webhooks *w, const struct webhook *webhook, attempt_fn *fn,
                       void *ctx) {
    struct collected *c = mem_zalloc(sizeof *c);
    char prefix[KEY_BYTES];
    prefix_of(webhook->id, prefix);
    engine_config_scan(w->options.engine, slice_str(prefix), collect, c);
    collect_recent(registered_find(w, webhook->id), c);
    qsort(c->v, c->count, sizeof c->v[0], newest_first);
    for (size_t i = 0; i < c->count && fn(ctx, &c->v[i].info); i++) {
    }
    for (size_t i = 0; i < c->count; i++) fields_free(&c->v[i].fields);
    free(c);
}

struct keys_found {
    char v[LIMIT_WEBHOOK_ATTEMPTS_KEPT][KEY_BYTES];
    size_t count;
};

static void collect_key(void *ctx, struct slice key, struct slice value) {
    struct keys_found *k = ctx;
    (void)value;
    if (k->count == LIMIT_WEBHOOK_ATTEMPTS_KEPT) return;
    if (slice_to_cstr(key, k->v[k->count], KEY_BYTES)) k->count++;
}

void webhooks_forget(struct webhooks *w, const char *id) {
    struct keys_found *found = mem_zalloc(sizeof *found);
    char prefix[KEY_BYTES];
    prefix_of(id, prefix);
    engine_config_scan(w->options.engine, slice_str(prefix), collect_key, found);
    for (size_t i = 0; i < found->count; i++) {
        struct command c = {.kind = COMMAND_CONFIG_DELETE,
                            .u.config = {.key = slice_str(found->v[i])}};
        webhooks_step(w, &c, RID_NONE, 0);
    }
    free(found);
}
