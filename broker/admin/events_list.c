/* GET /v1/events and /v1/events/{seq}. One request looks at a bounded slice of the journal and
 * answers with what it found there and a token to go on; with wait_ms a request that found nothing
 * up to the end of the journal is held (events_wait.c). */
#include <inttypes.h>
#include <stdio.h>

#include "base/glob.h"
#include "broker/admin/events.h"
#include "broker/admin/query.h"

#define SCAN_EVENTS 20000 /* journal positions that one request looks at */

#define TOKEN_LETTER 'e'

struct page {
    const struct events_query *query;
    struct buf *out;
    size_t count;
    uint64_t next;
    bool full;
};

static bool matches(const struct events_query *q, const struct event *e) {
    return (!q->has_type || glob_match(slice_str(q->type), e->type)) &&
           (!q->has_source || slice_eq_str(e->source, q->source)) &&
           (!q->has_subject || slice_eq_str(e->subject, q->subject)) &&
           e->received_at_ms >= q->since_ms;
}

static bool take(void *ctx, const struct event *e) {
    struct page *p = ctx;
    if (matches(p->query, e)) {
        if (p->count > 0 && p->out->len + event_size(e) > LIMIT_PAGE_BYTES) {
            p->full = true;
            return false;
        }
        put_comma(p->out);
        event_put(p->out, e);
        p->count++;
        p->full = p->count == p->query->page_size;
    }
    p->next = e->seq + 1;
    return !p->full;
}

static uint64_t last_seq(const struct admin *a) {
    struct engine_stats stats;
    engine_stats(a->options.engine, &stats);
    return stats.last_seq;
}

size_t events_page(struct admin *a, struct events_query *q, uint32_t *scan) {
    struct page page = {.query = q, .out = answer_begin(a), .next = q->next};
    put_key(page.out, "events");
    buf_append_byte(page.out, '[');
    uint64_t next = engine_events_scan(a->options.engine, q->project, q->next, scan, take, &page);
    buf_append_byte(page.out, ']');
    /* A full page goes on at what did not fit; else behind what was looked at, which may all have
     * been of other projects. */
    q->next = page.full ? page.next : next;
    return page.count;
}

void events_page_send(struct admin *a, uint64_t handle, const struct events_query *q) {
    if (q->wait || q->next <= last_seq(a)) {
        char place[TOKEN_SIZE - 3];
        snprintf(place, sizeof place, "%" PRIu64, q->next);
        put_token(&a->out, TOKEN_LETTER, place);
    }
    answer_send(a, handle, 200);
}

static bool parse_start(struct admin *a, const struct http_request *r, struct events_query *q,
                        struct refusal *f) {
    char token[TOKEN_SIZE];
    bool has_token, has_from, has_since;
    q->next = 1;
    if (!query_token(r, TOKEN_LETTER, token, &has_token, f) ||
        !query_u64(r, "from_seq", 1, INT64_MAX, &q->next, &has_from, f) ||
        !query_time(r, "since", &q->since_ms, &has_since, f)) {
        return false;
    }
    if (has_from && has_since) {
        return refuse(f, ERR_INVALID_REQUEST, "from_seq and since exclude each other: give one");
    }
    if (has_token) {
        return (slice_to_u64(slice_str(token), &q->next) && q->next > 0 && q->next <= INT64_MAX) ||
               refuse_token(f);
    }
    if (has_since) q->next = engine_seq_at_time(a->options.engine, q->since_ms);
    return true;
}

static bool parse_query(struct admin *a, const struct http_request *r, struct events_query *q,
                        struct refusal *f) {
    static const char *const known[] = {"from_seq",  "since",      "type",    "source", "subject",
                                        "page_size", "page_token", "wait_ms", NULL};
    *q = (struct events_query){.project = a->project, .next = 1};
    return query_known(r, known, f) &&
           query_text(r, "type", q->type, sizeof q->type, &q->has_type, f) &&
           query_text(r, "source", q->source, sizeof q->source, &q->has_source, f) &&
           query_text(r, "subject", q->subject, sizeof q->subject, &q->has_subject, f) &&
           query_page_size(r, &q->page_size, f) &&
           query_u64(r, "wait_ms", 0, LIMIT_WAIT_MS, &q->wait_ms, &q->wait, f) &&
           parse_start(a, r, q, f);
}

void events_list(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct events_query q;
    struct refusal f;
    if (!parse_query(a, r, &q, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    uint32_t scan = SCAN_EVENTS;
    size_t count = events_page(a, &q, &scan);
    bool at_end = q.next > last_seq(a);
    if (count == 0 && at_end && q.wait_ms > 0 && !a->waiting.draining) {
        if (waiting_hold(a, r->handle, &q)) return;
        http_respond_error(*a->options.http, r->handle, ERR_OVERLOADED,
                           "too many requests wait for events: try again later");
        return;
    }
    events_page_send(a, r->handle, &q);
}

static void answer_no_event(struct admin *a, uint64_t handle, struct slice seq) {
    struct engine_stats stats;
    char range[96];
    engine_stats(a->options.engine, &stats);
    if (stats.last_seq == 0) {
        snprintf(range, sizeof range, "the journal is empty");
    } else {
        snprintf(range, sizeof range,
                 "the oldest in the journal is %" PRIu64 ", the newest %" PRIu64, stats.first_seq,
                 stats.last_seq);
    }
    answer_not_found(a, handle, "event", seq, range);
}

void events_show(struct admin *a, const struct http_request *r, struct slice last) {
    struct event event;
    uint64_t seq;
    if (!query_none(a, r)) return;
    if (!slice_to_u64(last, &seq) || seq == 0) {
        answer_not_found(a, r->handle, "event", last,
                         "an event is named by its seq, a number of the journal");
        return;
    }
    if (!engine_event_get(a->options.engine, a->project, seq, &event)) {
        answer_no_event(a, r->handle, last);
        return;
    }
    buf_clear(&a->out);
    event_put(&a->out, &event);
    a->out.len--; /* answer_send ends the object */
    answer_send(a, r->handle, 200);
}
