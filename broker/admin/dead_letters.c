/* GET /v1/dead-letters: what a subscription gave up on. */
#include <inttypes.h>
#include <stdio.h>

#include "broker/admin/events.h"
#include "broker/admin/query.h"

#define TOKEN_LETTER 'd'

struct page {
    struct buf *out;
    struct slice subscription;
    size_t size, count;
    uint64_t last_seq; /* of the last one written */
    uint32_t last_cursor;
    bool more;
};

static bool take(void *ctx, const struct dead_letter *d) {
    struct page *p = ctx;
    bool too_many = p->count == p->size;
    bool too_big = p->count > 0 && p->out->len + event_size(&d->event) > LIMIT_PAGE_BYTES;
    if (too_many || too_big) {
        p->more = true;
        return false;
    }
    struct buf *b = p->out;
    put_comma(b);
    buf_append_byte(b, '{');
    put_text(b, "subscription", p->subscription);
    put_u64(b, "seq", d->event.seq);
    if (d->cursor != 0) put_u64(b, "replay", d->cursor);
    put_time(b, "died_at", d->died_at_ms);
    put_text(b, "reason", d->reason);
    put_u64(b, "fails", d->fails);
    put_u64(b, "deliveries", d->deliveries);
    put_text_unless_empty(b, "error", d->error);
    put_key(b, "event");
    event_put(b, &d->event);
    buf_append_byte(b, '}');
    p->count++;
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

void dead_letters_list(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    static const char *const known[] = {"subscription", "page_size", "page_token", NULL};
    struct refusal f;
    struct page page = {.count = 0};
    char name[LIMIT_NAME_BYTES + 1], token[TOKEN_SIZE];
    bool has_name, has_token;
    uint64_t after_seq = 0, after_cursor = 0;
    bool ok = query_known(r, known, &f) &&
              query_text(r, "subscription", name, sizeof name, &has_name, &f) &&
              (has_name ||
               refuse(&f, ERR_INVALID_REQUEST, "the query parameter subscription is required")) &&
              query_page_size(r, &page.size, &f) &&
              query_token(r, TOKEN_LETTER, token, &has_token, &f) &&
              (!has_token || read_place(token, &after_seq, &after_cursor) || refuse_token(&f));
    if (!ok) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    page.out = answer_begin(a);
    page.subscription = slice_str(name);
    put_key(page.out, "dead_letters");
    buf_append_byte(page.out, '[');
    if (!engine_dead_scan(a->options.engine, page.subscription, after_seq, (uint32_t)after_cursor,
                          take, &page)) {
        answer_not_found(a, r->handle, "subscription", page.subscription, "check the name");
        return;
    }
    buf_append_byte(page.out, ']');
    if (page.more) {
        snprintf(token, sizeof token, "%" PRIu64 "-%" PRIu32, page.last_seq, page.last_cursor);
        put_token(page.out, TOKEN_LETTER, token);
    }
    answer_send(a, r->handle, 200);
}
