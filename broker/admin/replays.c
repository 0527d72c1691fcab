/* /v1/replays. */
#include <inttypes.h>
#include <stdio.h>

#include "broker/admin/fields.h"
#include "broker/admin/query.h"

#define TOKEN_LETTER 'r'

static void put_replay(struct buf *b, const struct replay_info *r) {
    bool running = r->finished_at_ms == 0;
    put_u64(b, "id", r->id);
    put_text_unless_empty(b, "subscription", r->subscription);
    put_text(b, "state", slice_str(running ? "running" : "finished"));
    put_u64(b, "from_seq", r->from);
    put_u64(b, "to_seq", r->to);
    put_u64(b, "next", r->next);
    put_u64(b, "outstanding", r->outstanding);
    put_u64(b, "acked", r->acked_total);
    put_time(b, "create_time", r->created_at_ms);
    if (!running) put_time(b, "finish_time", r->finished_at_ms);
}

static bool read_range(const struct fields *o, struct command *c, struct refusal *f) {
    bool seqs = field_present(o, "from_seq") || field_present(o, "to_seq");
    bool times = field_present(o, "since") || field_present(o, "until");
    if (seqs && times) {
        return refuse(f, ERR_INVALID_REQUEST,
                      "give from_seq and to_seq, or since and until, not of both");
    }
    if (!field_u64(o, "from_seq", 1, INT64_MAX, &c->u.replay.from_seq, f) ||
        !field_u64(o, "to_seq", 1, INT64_MAX, &c->u.replay.to_seq, f) ||
        !field_time(o, "since", &c->u.replay.from_time_ms, f) ||
        !field_time(o, "until", &c->u.replay.to_time_ms, f)) {
        return false;
    }
    if (!field_present(o, "from_seq") && !field_present(o, "since")) {
        return refuse(f, ERR_INVALID_REQUEST, "from_seq or since is required");
    }
    if (c->u.replay.to_seq != 0 && c->u.replay.to_seq < c->u.replay.from_seq) {
        return refuse(f, ERR_INVALID_REQUEST, "to_seq must not be below from_seq");
    }
    return true;
}

static bool read_replay(const struct fields *o, struct command *c, struct refusal *f) {
    static const char *const known[] = {"subscription", "from_seq", "to_seq",
                                        "since",        "until",    NULL};
    return fields_known(o, known, f) && field_name(o, "subscription", &c->u.replay.name, f) &&
           read_range(o, c, f);
}

static void replay_created(struct admin *a, const struct pending *p, const struct effect *effect) {
    struct replay_info info;
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    if (!engine_replay_get(a->options.engine, (uint32_t)effect->u.done.id, &info)) {
        http_respond_error(*a->options.http, p->handle, ERR_DELETED,
                           "the replay was created and forgotten at once");
        return;
    }
    put_replay(answer_begin(a), &info);
    answer_send(a, p->handle, 201);
}

void replays_create(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    static const char *const none[] = {NULL};
    struct command command = {.kind = COMMAND_REPLAY_CREATE};
    struct fields o = {.object = NULL};
    struct refusal f;
    if (query_known(r, none, &f) && fields_parse(r->body, &o, &f) &&
        read_replay(&o, &command, &f)) {
        pending_step(a, r, replay_created, command.u.replay.name, NULL, &command);
    } else {
        answer_refusal(a, r->handle, &f);
    }
    fields_free(&o);
}

void replays_show(struct admin *a, const struct http_request *r, struct slice last) {
    static const char *const none[] = {NULL};
    struct refusal f;
    struct replay_info info;
    uint64_t id = 0;
    if (!query_known(r, none, &f)) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    if (!slice_to_u64(last, &id) || id > UINT32_MAX ||
        !engine_replay_get(a->options.engine, (uint32_t)id, &info)) {
        answer_not_found(a, r->handle, "replay", last, "a replay is named by its id, a number");
        return;
    }
    put_replay(answer_begin(a), &info);
    answer_send(a, r->handle, 200);
}

void replays_list(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    struct refusal f;
    struct list_page page;
    uint64_t after = 0;
    bool ok =
        query_list_page(r, TOKEN_LETTER, &page, &f) &&
        (!page.has_after || (slice_to_u64(slice_str(page.after), &after) && after <= UINT32_MAX) ||
         refuse_token(&f));
    if (!ok) {
        answer_refusal(a, r->handle, &f);
        return;
    }
    struct buf *b = answer_begin(a);
    put_key(b, "replays");
    buf_append_byte(b, '[');
    struct replay_info info;
    bool more = engine_replay_next(a->options.engine, (uint32_t)after, &info);
    for (size_t i = 0; more && i < page.size; i++) {
        put_comma(b);
        buf_append_byte(b, '{');
        put_replay(b, &info);
        buf_append_byte(b, '}');
        after = info.id;
        more = engine_replay_next(a->options.engine, (uint32_t)after, &info);
    }
    buf_append_byte(b, ']');
    if (more) {
        snprintf(page.after, sizeof page.after, "%" PRIu64, after);
        put_token(b, TOKEN_LETTER, page.after);
    }
    answer_send(a, r->handle, 200);
}
