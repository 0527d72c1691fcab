/* state.c: how a worker's subscription stands: asked for once, or told while it changes. */
#include "broker/workers/session.h"

static bool read_state(const struct session *s, const struct session_sub *entry,
                       struct sub_state *out) {
    struct subscription_info info;
    struct slice name = slice_of(entry->name, entry->name_len);
    if (!engine_subscription_get(s->room->options.engine, s->project, name, &info)) return false;
    *out = (struct sub_state){
        .ready = info.ready,
        .leased = info.leased,
        .delayed = info.delayed,
        .blocked = info.blocked,
        .dead = info.dead,
        .backlog = info.backlog,
        .oldest_ms = info.oldest_ms,
        .in_per_s = info.in_per_s,
        .out_per_s = info.out_per_s,
        .paused = info.paused,
        .why_idle = info.why_idle,
    };
    return true;
}

static bool state_same(const struct sub_state *a, const struct sub_state *b) {
    return a->ready == b->ready && a->leased == b->leased && a->delayed == b->delayed &&
           a->blocked == b->blocked && a->dead == b->dead && a->backlog == b->backlog &&
           a->oldest_ms == b->oldest_ms && a->in_per_s == b->in_per_s &&
           a->out_per_s == b->out_per_s && a->paused == b->paused && a->why_idle == b->why_idle;
}

static void tell(struct session *s, uint32_t rid, struct session_sub *entry,
                 const struct sub_state *state) {
    struct frame f = {.op = FRAME_STATE, .rid = rid, .sub = entry->sub};
    f.u.state.ready = state->ready;
    f.u.state.leased = state->leased;
    f.u.state.delayed = state->delayed;
    f.u.state.blocked = state->blocked;
    f.u.state.dead = state->dead;
    f.u.state.backlog = state->backlog;
    f.u.state.oldest_ms = state->oldest_ms;
    f.u.state.in_per_s = state->in_per_s;
    f.u.state.out_per_s = state->out_per_s;
    f.u.state.paused = state->paused;
    f.u.state.why_idle = slice_str(why_idle_name(state->why_idle));
    frame_encode_state(session_out(s), &f);
    entry->told = *state;
    session_touch(s);
}

void session_state_request(struct session *s, const struct frame *f, struct session_sub *entry) {
    struct sub_state state;
    if (!read_state(s, entry, &state)) {
        session_error(s, f->rid, ERR_NOT_FOUND, "sub: its subscription does not exist", false);
        return;
    }
    entry->watched = f->u.state.watch;
    tell(s, f->rid, entry, &state);
}

void session_state_watch(struct session *s) {
    /* A socket that does not drain is not filled further: the next change is told when it does. */
    if (s->held) return;
    for (size_t i = 0; i < s->subs_count; i++) {
        struct session_sub *entry = &s->subs[i];
        struct sub_state state;
        if (!entry->watched || entry->gone || !read_state(s, entry, &state)) continue;
        if (!state_same(&state, &entry->told)) tell(s, 0, entry, &state);
    }
}
