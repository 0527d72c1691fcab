#include "broker/ingest/access_log.h"

#include <stdlib.h>

#include "base/log.h"

#define FIELDS_MAX 10
#define PATH_BYTES 128

struct access_log {
    enum access_what what;
    uint64_t second; /* of the last refusal */
    uint32_t lines;  /* written in it */
    uint64_t silent; /* refusals without a line that nobody has been told of */
};

struct access_log *access_log_new(enum access_what what) {
    struct access_log *l = mem_zalloc(sizeof *l);
    l->what = what;
    return l;
}

void access_log_free(struct access_log **l) {
    free(*l);
    *l = NULL;
}

/* ---- the fields of a line ---- */

struct line {
    struct log_field fields[FIELDS_MAX];
    size_t count;
};

static void add_text(struct line *l, const char *key, struct slice text) {
    CHECK(l->count < FIELDS_MAX);
    l->fields[l->count++] = (struct log_field){.key = key, .text = text};
}

static void add_number(struct line *l, const char *key, uint64_t number) {
    CHECK(l->count < FIELDS_MAX);
    l->fields[l->count++] = (struct log_field){.key = key, .is_number = true, .number = number};
}

static struct slice cut(struct slice s, size_t most) {
    return s.len > most ? slice_of(s.data, most) : s;
}

/* Who mistakes the text of a key or of a secret for a name finds it in no log. */
static struct slice without_secrets(struct slice path) {
    static const char *const begins[] = {"bh_", "whsec_", "whsk_"};
    for (size_t i = 0; i < sizeof begins / sizeof begins[0]; i++) {
        const uint8_t *at = memmem(path.data, path.len, begins[i], strlen(begins[i]));
        if (at != NULL) path.len = (size_t)(at - path.data) + strlen(begins[i]);
    }
    return path;
}

static void add_webhook(struct line *l, const struct access_webhook *w) {
    add_text(l, "source", cut(w->source, ACCESS_PLACE_BYTES));
    add_text(l, "remote", w->remote);
    add_text(l, "id", cut(w->id, ACCESS_ID_BYTES));
}

static void add_refusal(struct line *l, enum err err, const char *why) {
    struct err_info info = err_info((int)err);
    add_text(l, "verdict", slice_str("refused"));
    add_number(l, "status", (uint64_t)info.status);
    add_text(l, "reason", slice_str(info.word));
    if (why != NULL) add_text(l, "why", slice_str(why));
}

/* ---- lines ---- */

bool access_log_wants_accepted(const struct access_log *l) {
    return l != NULL && l->what == ACCESS_ALL;
}

void access_log_accepted(struct access_log *l, const struct access_webhook *w, const char *verdict,
                         uint64_t seq) {
    struct line line = {.count = 0};
    if (!access_log_wants_accepted(l)) return;
    add_webhook(&line, w);
    add_text(&line, "verdict", slice_str(verdict));
    add_number(&line, "status", 200);
    add_number(&line, "bytes", w->bytes);
    if (seq > 0) add_number(&line, "seq", seq);
    log_fields("webhook", line.fields, line.count);
}

/* A second with more refusals than lines is over. */
static void tell_silent(struct access_log *l, uint64_t second) {
    struct line line = {.count = 0};
    if (l->silent == 0 || second == l->second) return;
    add_number(&line, "count", l->silent);
    log_fields("more refusals than these were not logged", line.fields, line.count);
    l->silent = 0;
}

bool access_log_takes_refusal(struct access_log *l, uint64_t now_ms) {
    uint64_t second = now_ms / 1000;
    if (l == NULL || l->what == ACCESS_NONE) return false;
    tell_silent(l, second);
    if (second != l->second) l->lines = 0;
    l->second = second;
    if (l->lines == ACCESS_LINES_PER_S) {
        l->silent++;
        return false;
    }
    l->lines++;
    return true;
}

void access_log_webhook_refused(struct access_log *l, const struct access_webhook *w, enum err err,
                                const char *why) {
    struct line line = {.count = 0};
    struct access_webhook shown = *w;
    CHECK(l != NULL);
    shown.source = without_secrets(w->source); /* perhaps there is no such source */
    add_webhook(&line, &shown);
    add_refusal(&line, err, why);
    if (w->bytes > 0) add_number(&line, "bytes", w->bytes);
    log_fields("webhook", line.fields, line.count);
}

void access_log_request_refused(struct access_log *l, const struct access_request *r, enum err err,
                                const char *why) {
    struct line line = {.count = 0};
    CHECK(l != NULL);
    if (r->method.len > 0) add_text(&line, "method", r->method);
    if (r->path.len > 0) add_text(&line, "path", cut(without_secrets(r->path), PATH_BYTES));
    add_text(&line, "remote", r->remote);
    if (r->key.len > 0) add_text(&line, "key", r->key);
    add_refusal(&line, err, why);
    log_fields("request", line.fields, line.count);
}

uint64_t access_log_on_turn(struct access_log *l, uint64_t now_ms) {
    if (l != NULL) tell_silent(l, now_ms / 1000);
    log_flush();
    return l == NULL || l->silent == 0 ? UINT64_MAX : (l->second + 1) * 1000;
}
