/* /healthz and /readyz: whether it lives, and whether it takes events. Neither needs a key, and
 * neither names anything: who may know more asks for /v1/status. */
#include "broker/admin/answer.h"
#include "broker/admin/query.h"

void health_show(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    if (!query_none(a, r)) return;
    put_text(answer_begin(a), "status", slice_str("ok"));
    answer_send(a, r->handle, 200);
}

void ready_show(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct engine_stats stats;
    if (!query_none(a, r)) return;
    engine_stats(a->options.engine, &stats);
    const struct {
        const char *reason;
        bool holds;
    } reasons[] = {
        {"no_room", !stats.room},
        {"blocked", stats.blocked_by.len > 0},
        {"memory", http_server_body_memory_is_scarce(*a->options.http)},
        {"draining", a->waiting.draining},
    };
    bool ready = true;
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].holds) ready = false;
    }
    struct buf *b = answer_begin(a);
    put_bool(b, "ready", ready);
    if (ready) {
        answer_send(a, r->handle, 200);
        return;
    }
    put_key(b, "reasons");
    buf_append_byte(b, '[');
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (!reasons[i].holds) continue;
        put_comma(b);
        buf_append_json_string(b, slice_str(reasons[i].reason));
    }
    buf_append_str(b, "]}\n");
    http_respond(*a->options.http, r->handle, 503, NULL, "Retry-After: 1\r\n", buf_slice(b));
}
