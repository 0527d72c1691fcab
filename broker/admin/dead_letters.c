/* /v1/dead-letters: what subscriptions gave up on. A list looks at a bounded number of them per
 * request and goes on by its token; redrive and purge are tasks (replays.c shows them). */
#include <inttypes.h>
#include <stdio.h>

#include "base/glob.h"
#include "broker/admin/events.h"
#include "broker/admin/query.h"
#include "broker/engine/filter.h"

#define TOKEN_LETTER 'd'

/* One request looks at so much and reads on with its token. */
#define LOOK_ROWS  4096
#define LOOK_BYTES (32 * MIB)

static const char *const none[] = {NULL};

/* What a list is narrowed to; an absent one lets everything pass. */
struct wanted {
    char subscription[LIMIT_NAME_BYTES + 1];
    bool has_type, has_prefix, has_reason, has_filter;
    char type[LIMIT_EVENT_TYPE_BYTES + 1];
    char subject_prefix[LIMIT_EVENT_SUBJECT_BYTES + 1];
    char reason[16];
    struct filter *filter; /* owned; NULL: every event */
    size_t page_size;
    uint64_t after_seq, after_cursor;
};

struct page {
    const struct wanted *wanted;
    struct buf *out;
    size_t count, rows, bytes; /* written; looked at */
    uint64_t last_seq;         /* of the last one looked at */
    uint32_t last_cursor;
    bool more;
};

static void put_failure(struct buf *b, const struct failure *f) {
    if (f->type.len == 0 && f->message.len == 0 && f->detail.len == 0) return;
    put_open(b, "error");
    put_text_unless_empty(b, "type", f->type);
    put_text_unless_empty(b, "message", f->message);
    put_text_unless_empty(b, "detail", f->detail);
    put_close(b);
}

/* The members of the object; its braces are the caller's. */
static void put_dead(struct buf *b, struct slice subscription, const struct dead_letter *d) {
    put_text(b, "subscription", subscription);
    put_u64(b, "seq", d->event.seq);
    if (d->cursor != 0) put_u64(b, "replay", d->cursor);
    put_time(b, "died_at", d->died_at_ms);
    put_text(b, "reason", d->reason);
    put_u64(b, "fails", d->fails);
    put_u64(b, "deliveries", d->deliveries);
    put_failure(b, &d->failure);
    put_key(b, "event");
    event_put(b, &d->event);
}

/* ---- list ---- */

static bool matches(const struct wanted *w, const struct dead_letter *d) {
    struct filter_subject subject;
    if (w->has_type && !glob_match(slice_str(w->type), d->event.type)) return false;
    if (w->has_prefix && !slice_starts_with(d->event.subject, w->subject_prefix)) return false;
    if (w->has_reason && !slice_eq_str(d->reason, w->reason)) return false;
    if (w->filter == NULL) return true;
    filter_subject_init(&subject, &d->event);
    return filter_match(w->filter, &subject);
}

static bool take(void *ctx, const struct dead_letter *d) {
    struct page *p = ctx;
    size_t size = event_size(&d->event);
    bool wanted = matches(p->wanted, d);
    bool looked_enough = p->rows == LOOK_ROWS || p->bytes >= LOOK_BYTES;
    bool full =
        p->count == p->wanted->page_size || (p->count > 0 && p->out->len + size > LIMIT_PAGE_BYTES);
    if (looked_enough || (wanted && full)) {
        p->more = true;
        return false;
    }
    if (wanted) {
        put_comma(p->out);
        buf_append_byte(p->out, '{');
        put_dead(p->out, slice_str(p->wanted->subscription), d);
        put_close(p->out);
        p->count++;
    }
    p->rows++;
    p->bytes += size;
    p->last_seq = d->event.seq;
    p->last_cursor = d->cursor;
    return true;
}

/* "SEQ-CURSOR" of a token. */
static bool read_place(const char *text, uint64_t *seq, uint64_t *cursor) {
    const char *dash = strchr(text, '-');
    return dash != NULL && slice_to_u64(slice_of(text, (size_t)(dash - text)), seq) &&
           slice_to_u64(slice_str(dash + 1), cursor) && *cursor <= UINT32_MAX;
}

static bool read_reason(const struct http_request *r, struct wanted *w, struct refusal *f) {
    static const char *const reasons[] = {"max_fails", "expired", "rejected"};
    int found = http_query_get(r, "reason", w->reason, sizeof w->reason);
    w->has_reason = found != 0;
    if (!w->has_reason) return true;
    for (size_t i = 0; found > 0 && i < sizeof reasons / sizeof reasons[0]; i++) {
        if (strcmp(w->reason, reasons[i]) == 0) return true;
    }
    return refuse(f, ERR_INVALID_REQUEST,
                  "the query parameter reason must be max_fails, expired or rejected");
}

static bool read_filter(struct admin *a, const struct http_request *r, struct wanted *w,
                        struct refusal *f) {
    char why[320];
    char *text = arena_alloc(&a->arena, LIMIT_HTTP_TARGET_BYTES);
    bool has_filter;
    if (!query_text(r, "filter", text, LIMIT_HTTP_TARGET_BYTES, &has_filter, f)) return false;
    if (!has_filter) return true;
    enum err err = filter_compile(slice_str(text), &w->filter, why, sizeof why);
    return err == ERR_OK || refuse(f, err, "%s", why);
}

static bool read_wanted(struct admin *a, const struct http_request *r, struct wanted *w,
                        struct refusal *f) {
    static const char *const known[] = {"subscription", "type",      "subject_prefix", "reason",
                                        "filter",       "page_size", "page_token",     NULL};
    char token[TOKEN_SIZE];
    bool has_name, has_token;
    return query_known(r, known, f) &&
           query_text(r, "subscription", w->subscription, sizeof w->subscription, &has_name, f) &&
           (has_name ||
            refuse(f, ERR_INVALID_REQUEST, "the query parameter subscription is required")) &&
           query_text(r, "type", w->type, sizeof w->type, &w->has_type, f) &&
           query_text(r, "subject_prefix", w->subject_prefix, sizeof w->subject_prefix,
                      &w->has_prefix, f) &&
           read_reason(r, w, f) && read_filter(a, r, w, f) &&
           query_page_size(r, &w->page_size, f) &&
           query_token(r, TOKEN_LETTER, token, &has_token, f) &&
           (!has_token || read_place(token, &w->after_seq, &w->after_cursor) || refuse_token(f));
}

static void answer_list(struct admin *a, uint64_t handle, const struct wanted *w) {
    struct page page = {.wanted = w, .out = answer_begin(a)};
    struct slice subscription = slice_str(w->subscription);
    char place[TOKEN_SIZE];
    put_key(page.out, "dead_letters");
    buf_append_byte(page.out, '[');
    if (!engine_dead_scan(a->options.engine, a->project, subscription, w->after_seq,
                          (uint32_t)w->after_cursor, take, &page)) {
        answer_not_found(a, handle, "subscription", subscription, "check the name");
        return;
    }
    buf_append_byte(page.out, ']');
    if (page.more) {
        snprintf(place, sizeof place, "%" PRIu64 "-%" PRIu32, page.last_seq, page.last_cursor);
        put_token(page.out, TOKEN_LETTER, place);
    }
    answer_send(a, handle, 200);
}

void dead_letters_list(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct wanted w = {.filter = NULL};
    struct refusal f;
    if (read_wanted(a, r, &w, &f)) answer_list(a, r->handle, &w);
    else answer_refusal(a, r->handle, &f);
    filter_free(&w.filter);
}

/* ---- one ---- */

struct one {
    struct buf *out;
    struct slice subscription;
    uint64_t seq;
    uint32_t cursor;
    bool found;
    uint32_t other; /* a replay that fed the same event, which is here; 0: none was met */
};

static bool take_one(void *ctx, const struct dead_letter *d) {
    struct one *o = ctx;
    if (d->event.seq != o->seq) return false;
    o->found = d->cursor == o->cursor;
    if (o->found) put_dead(o->out, o->subscription, d);
    else o->other = d->cursor;
    return false;
}

static void answer_no_letter(struct admin *a, uint64_t handle, const struct one *o) {
    char name[LIMIT_NAME_BYTES + 1];
    bool fits = slice_to_cstr(o->subscription, name, sizeof name);
    CHECK(fits); /* there is such a subscription */
    if (o->cursor != 0) {
        http_respond_error(*a->options.http, handle, ERR_NOT_FOUND,
                           "\"%s\" has no dead letter with seq %" PRIu64 " that replay %" PRIu32
                           " fed",
                           name, o->seq, o->cursor);
    } else if (o->other != 0) {
        http_respond_error(*a->options.http, handle, ERR_NOT_FOUND,
                           "\"%s\" has a dead letter with seq %" PRIu64 ", but replay %" PRIu32
                           " fed it: name that replay too",
                           name, o->seq, o->other);
    } else {
        http_respond_error(*a->options.http, handle, ERR_NOT_FOUND,
                           "\"%s\" has no dead letter with seq %" PRIu64, name, o->seq);
    }
}

/* `last` is "SUBSCRIPTION/SEQ". */
void dead_letters_show(struct admin *a, const struct http_request *r, struct slice last) {
    static const char *const known[] = {"replay", NULL};
    const uint8_t *slash = memchr(last.data, '/', last.len);
    CHECK(slash != NULL); /* the route has it */
    struct slice name = slice_of(last.data, (size_t)(slash - last.data));
    struct slice number = slice_from(last, name.len + 1);
    struct refusal f;
    uint64_t seq = 0, replay = 0;
    if (!query_known(r, known, &f) || !query_u64(r, "replay", 1, UINT32_MAX, &replay, NULL, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    struct one one = {.out = answer_begin(a), .subscription = name, .cursor = (uint32_t)replay};
    bool is_seq = slice_to_u64(number, &seq) && seq > 0;
    one.seq = seq;
    /* The scan begins behind the place before the one that is asked for. */
    uint64_t after_seq = replay > 0 || !is_seq ? seq : seq - 1;
    uint32_t after_cursor = replay > 0 ? (uint32_t)replay - 1 : UINT32_MAX;
    if (!engine_dead_scan(a->options.engine, a->project, name, after_seq, after_cursor, take_one,
                          &one)) {
        answer_not_found(a, r->handle, "subscription", name, "check the name");
    } else if (!is_seq) {
        answer_not_found(a, r->handle, "dead letter", number,
                         "it is named by its seq, a number, and replay=ID if a replay fed it");
    } else if (!one.found) {
        answer_no_letter(a, r->handle, &one);
    } else {
        answer_send(a, r->handle, 200);
    }
}

/* ---- redrive and purge ---- */

static bool read_task(const struct fields *o, struct command *c, struct refusal *f) {
    static const char *const known[] = {"subscription", "seq", "filter", NULL};
    static const char *const rate_too[] = {"rate", NULL};
    bool redrive = c->u.task.kind == TASK_REDRIVE;
    uint64_t rate = 0;
    if (!fields_known_in(o, known, redrive ? rate_too : none, f) ||
        !field_name(o, "subscription", &c->u.task.name, f) ||
        !field_u64(o, "seq", 1, INT64_MAX, &c->u.task.from_seq, f) ||
        !field_json(o, "filter", &c->u.task.filter, f) ||
        !field_u64(o, "rate", 0, LIMIT_RATE_PER_S, &rate, f)) {
        return false;
    }
    c->u.task.to_seq = c->u.task.from_seq;
    c->u.task.rate_per_s = (uint32_t)rate;
    return true;
}

static void start_task(struct admin *a, const struct http_request *r, enum task_kind kind) {
    struct command command = {.kind = COMMAND_TASK_CREATE, .u.task = {.kind = kind}};
    struct fields o = {.object = NULL};
    struct refusal f;
    if (query_known(r, none, &f) && fields_parse(r->body, &o, &f) && read_task(&o, &command, &f)) {
        task_step(a, r, &command);
    } else {
        answer_refusal(a, r->handle, &f);
    }
    fields_free(&o);
}

void dead_letters_redrive(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    start_task(a, r, TASK_REDRIVE);
}

void dead_letters_purge(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    start_task(a, r, TASK_PURGE);
}
