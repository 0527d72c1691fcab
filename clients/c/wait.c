/* Waits for the events of jobs.
 *
 * The happy path: a wait is made in `waits` of the client; the turn that has a connection sends
 * WAIT with the time that is left; JOB_EVENT ends it.
 * Failures: the connection is lost, the broker stops (it then answers that nothing came), or it
 * holds a question for less than was asked: the wait stays and is asked again, with what is left of
 * its time; nothing is missed in between, for the broker looks at the job's past events. A wait
 * whose time is over without a connection, and every wait of a client that stops, ends with
 * ECLOSED; what the broker refuses with EREFUSED. */
#include <stdlib.h>

#include "clients/c/client.h"

/* What the user asked. Its texts follow the struct. */
struct bh_wait {
    struct slice id;
    struct slice types[LIMIT_JOB_WAIT_TYPES];
    size_t types_count;
    uint64_t after_seq;
    uint64_t until_ms, again_ms; /* by bh_clock_ms; again: not asked before */
};

static bool question_is_usable(const char *job, const struct bellhop_wait_options *o,
                               size_t *bytes) {
    if (job == NULL || job[0] == '\0' || strlen(job) > LIMIT_EVENT_SUBJECT_BYTES) return false;
    if (o->types_count > LIMIT_JOB_WAIT_TYPES) return false;
    *bytes = strlen(job);
    for (size_t i = 0; i < o->types_count; i++) {
        const char *type = o->types[i];
        if (type == NULL || type[0] == '\0' || strlen(type) > LIMIT_EVENT_TYPE_BYTES) return false;
        *bytes += strlen(type);
    }
    return true;
}

static struct slice keep(uint8_t **at, const char *text) {
    struct slice kept = slice_of(*at, strlen(text));
    memcpy(*at, text, kept.len);
    *at += kept.len;
    return kept;
}

int bellhop_wait(struct bellhop *c, const char *job, const struct bellhop_wait_options *options,
                 bellhop_waited *done, void *ctx) {
    static const struct bellhop_wait_options plain;
    const struct bellhop_wait_options *o = options == NULL ? &plain : options;
    size_t bytes = 0;
    if (done == NULL || !question_is_usable(job, o, &bytes)) return BELLHOP_EARGUMENT;
    if (c->phase == BH_STOPPED || c->leave == BH_LEAVE_STOP) return BELLHOP_ECLOSED;
    struct bh_wait *w = mem_zalloc(sizeof *w + bytes);
    uint8_t *at = (uint8_t *)(w + 1);
    uint64_t now_ms = bh_clock_ms(), left_ms = o->timeout_ms;
    if (left_ms == 0) left_ms = LIMIT_JOB_WAIT_MS_DEFAULT;
    if (o->timeout_ms == BELLHOP_WAIT_LOOK) left_ms = 0;
    w->id = keep(&at, job);
    w->types_count = o->types_count;
    for (size_t i = 0; i < o->types_count; i++) w->types[i] = keep(&at, o->types[i]);
    w->after_seq = o->after_seq;
    w->until_ms = left_ms > BH_NEVER - now_ms ? BH_NEVER : now_ms + left_ms;
    struct bh_request *r = bh_request_new(c, BH_WAIT);
    r->wait = w;
    r->waited = done;
    r->ctx = ctx;
    list_unlink(&r->node);
    list_push_back(&c->waits, &r->node);
    return 0;
}

/* Waits may be sent now. */
static bool may_ask(struct bellhop *c) {
    const struct buf *out = bh_out(c);
    return c->phase == BH_READY && c->leave == BH_STAY && !c->quiet && out != NULL &&
           out->len < BH_OUT_BYTES;
}

/* When a wait that was not sent is given up. */
static uint64_t give_up_at(const struct bh_wait *w) {
    return w->until_ms > BH_NEVER - BH_WAIT_GRACE_MS ? BH_NEVER : w->until_ms + BH_WAIT_GRACE_MS;
}

static void ask(struct bellhop *c, struct bh_request *r, uint64_t now_ms) {
    const struct bh_wait *w = r->wait;
    struct frame f = {.rid = r->rid};
    uint64_t left_ms = w->until_ms > now_ms ? w->until_ms - now_ms : 0;
    f.u.wait.id = w->id;
    f.u.wait.types = w->types;
    f.u.wait.types_count = w->types_count;
    f.u.wait.after_seq = w->after_seq;
    f.u.wait.timeout_ms = left_ms < LIMIT_JOB_WAIT_MS_MAX ? left_ms : LIMIT_JOB_WAIT_MS_MAX;
    r->asked = true;
    bh_encoded(c, frame_encode_wait(bh_out(c), &f));
}

void bh_waits_send(struct bellhop *c) {
    uint64_t now_ms = bh_clock_ms();
    LIST_FOR(n, next, &c->waits) {
        struct bh_request *r = CONTAINER_OF(n, struct bh_request, node);
        if (r->asked) continue;
        if (may_ask(c) && now_ms >= r->wait->again_ms) {
            ask(c, r, now_ms);
        } else if (now_ms >= give_up_at(r->wait)) {
            bh_request_fail_later(c, r, BELLHOP_ECLOSED, "no broker answered within the time");
        }
    }
}

uint64_t bh_waits_at(struct bellhop *c) {
    uint64_t first_ms = BH_NEVER;
    bool may = may_ask(c);
    LIST_FOR(n, next, &c->waits) {
        const struct bh_request *r = CONTAINER_OF(n, struct bh_request, node);
        uint64_t at_ms = may ? r->wait->again_ms : give_up_at(r->wait);
        if (!r->asked && at_ms < first_ms) first_ms = at_ms;
    }
    return first_ms;
}

void bh_waits_lost(struct bellhop *c, bool for_good) {
    if (for_good) bh_requests_fail_later(c, &c->waits);
    LIST_FOR(n, next, &c->waits) {
        struct bh_request *r = CONTAINER_OF(n, struct bh_request, node);
        r->asked = false;
        r->wait->again_ms = 0;
    }
}

/* Nothing came, and there is time left: it is asked again. */
static bool wait_on(struct bellhop *c, struct bh_request *r) {
    uint64_t again_ms = bh_clock_ms() + BH_WAIT_AGAIN_MS;
    if (again_ms >= r->wait->until_ms) return false;
    r->asked = false;
    r->wait->again_ms = again_ms;
    map_add(&c->requests, r->rid, r);
    list_push_back(&c->waits, &r->node);
    return true;
}

void bh_waited(struct bellhop *c, struct bh_request *r, const struct frame *f) {
    char state[32];
    const struct frame_item *item = f->u.job_event.item;
    if (f->u.job_event.seq == 0 && wait_on(c, r)) return;
    if (!slice_to_cstr(f->u.job_event.state, state, sizeof state)) state[0] = '\0';
    struct bellhop_event *event = item == NULL ? NULL : bh_event_new(NULL, item);
    struct bellhop_job job = {.state = state,
                              .overdue = f->u.job_event.overdue,
                              .seq = f->u.job_event.seq,
                              .event = event == NULL ? NULL : &event->info};
    r->waited(r->ctx, 0, "", &job);
    free(event);
    bh_request_free(r);
}
