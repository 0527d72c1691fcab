/* Subscriptions and the events that came through them.
 *
 * The happy path of an event: DELIVER -> queue -> (handler is called) taken -> settled and freed.
 * Failures: REVOKE (lease.c) or a lost connection. What the handler does not have yet is dropped;
 * what it has waits in taken to be claimed (attach.c) or, when that cannot be, becomes an orphan:
 * it goes to to_tell and, when on_revoked was called, back to taken until the handler settles it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "clients/c/client.h"

#define WINDOW_BYTES_DEFAULT (16 * MIB)

bool bh_name_is_usable(const char *name) {
    return name != NULL && name[0] != '\0' && strlen(name) <= LIMIT_NAME_BYTES;
}

static bool options_are_usable(const struct bellhop_sub_options *o) {
    return o != NULL && o->handler != NULL && o->concurrency <= LIMIT_WINDOW_EVENTS &&
           o->window <= LIMIT_WINDOW_EVENTS && o->window_bytes <= LIMIT_WINDOW_BYTES &&
           (o->lease_ms == 0 ||
            (o->lease_ms >= LIMIT_LEASE_MS_MIN && o->lease_ms <= LIMIT_LEASE_MS_MAX)) &&
           (o->create == NULL || strlen(o->create) <= LIMIT_POLICY_BYTES);
}

struct bellhop_sub *bellhop_subscribe(struct bellhop *c, const char *name,
                                      const struct bellhop_sub_options *options) {
    if (!bh_name_is_usable(name) || !options_are_usable(options) || c->phase == BH_STOPPED) {
        return NULL;
    }
    struct bellhop_sub *s = mem_zalloc(sizeof *s);
    struct bellhop_sub_options *o = &s->options;
    s->client = c;
    s->id = ++c->next_sub;
    s->options = *options;
    if (o->create != NULL) o->create = mem_strdup(o->create);
    if (o->concurrency == 0) o->concurrency = 1;
    if (o->window == 0) o->window = 2 * o->concurrency;
    if (o->window > LIMIT_WINDOW_EVENTS) o->window = LIMIT_WINDOW_EVENTS;
    if (o->window_bytes == 0) o->window_bytes = WINDOW_BYTES_DEFAULT;
    memcpy(s->name, name, strlen(name) + 1);
    map_init(&s->held);
    list_init(&s->queue);
    list_init(&s->taken);
    list_init(&s->to_tell);
    list_init(&s->settled);
    list_init(&s->unsure);
    list_init(&s->asks);
    list_init(&s->node);
    list_push_back(&c->subs, &s->node);
    return s;
}

static void free_events(struct list *events) {
    LIST_FOR(n, next, events) free(CONTAINER_OF(n, struct bellhop_event, node));
    list_init(events);
}

void bh_sub_free(struct bellhop_sub *s) {
    free_events(&s->queue);
    free_events(&s->taken);
    free_events(&s->to_tell);
    map_free(&s->held);
    free(s->acks.items);
    free(s->releases.items);
    free((void *)(uintptr_t)s->options.create);
    free(s);
}

struct bellhop_sub *bh_sub_find(struct bellhop *c, uint32_t id) {
    LIST_FOR(n, next, &c->subs) {
        struct bellhop_sub *s = CONTAINER_OF(n, struct bellhop_sub, node);
        if (s->id == id) return s;
    }
    return NULL;
}

void bh_sub_ended(struct bellhop_sub *s, const char *fmt, ...) {
    char text[BH_TEXT_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (s->state == BH_SUB_ENDED) return;
    bh_sub_detach(s, "ended");
    bh_requests_fail_later(s->client, &s->asks);
    s->state = BH_SUB_ENDED;
    if (s->options.on_ended != NULL) s->options.on_ended(s->options.ctx, BELLHOP_EREFUSED, text);
    else bh_finish(s->client, BELLHOP_EREFUSED, "subscription %s: %s", s->name, text);
}

/* Appends a text and its terminator at *at, and moves *at on. */
static const char *put(char **at, struct slice s) {
    char *text = *at;
    if (s.len > 0) memcpy(text, s.data, s.len);
    text[s.len] = '\0';
    *at = text + s.len + 1;
    return text;
}

struct bellhop_event *bh_event_new(struct bellhop_sub *s, const struct frame_item *item) {
    const struct event *e = &item->event;
    size_t bytes = e->id.len + e->type.len + e->source.len + e->subject.len + e->content_type.len +
                   e->metadata.len + e->headers.len + e->body.len + 8;
    struct bellhop_event *event = mem_alloc(sizeof *event + bytes);
    char *at = (char *)(event + 1);
    *event =
        (struct bellhop_event){.sub = s, .tag = item->tag, .flags = item->flags, .attached = true};
    event->info = (struct bellhop_info){
        .seq = e->seq,
        .time_ms = e->time_ms,
        .received_at_ms = e->received_at_ms,
        .body_len = e->body.len,
        .attempt = item->fails == UINT32_MAX ? item->fails : item->fails + 1,
        .deliveries = item->deliveries,
        .replay = (item->flags & FRAME_FLAG_REPLAY) != 0,
        .redriven = (item->flags & FRAME_FLAG_REDRIVEN) != 0,
    };
    event->info.id = put(&at, e->id);
    event->info.type = put(&at, e->type);
    event->info.source = put(&at, e->source);
    event->info.subject = put(&at, e->subject);
    event->info.content_type = put(&at, e->content_type);
    event->info.metadata = put(&at, e->metadata);
    event->info.headers = put(&at, e->headers);
    event->info.body = put(&at, e->body);
    list_init(&event->node);
    return event;
}

const char *bh_sub_deliver(struct bellhop_sub *s, const struct frame *f) {
    if (s->state != BH_SUB_ON) return s->state == BH_SUB_ENDED ? NULL : "DELIVER before SUBSCRIBED";
    if (f->u.deliver.lease_ms > 0) s->lease_ms = f->u.deliver.lease_ms;
    if (s->held.len == 0) bh_sub_extend_afresh(s);
    for (size_t i = 0; i < f->u.deliver.count; i++) {
        const struct frame_item *item = &f->u.deliver.items[i];
        if (s->held.len >= s->options.window) return "DELIVER above the window";
        if (item->tag <= s->tag_last) return "DELIVER of a tag that is not new";
        s->tag_last = item->tag;
        struct bellhop_event *e = bh_event_new(s, item);
        map_add(&s->held, e->tag, e);
        list_push_back(&s->queue, &e->node);
    }
    return NULL;
}

bool bh_sub_is_shut(const struct bellhop_sub *s) {
    return s->paused || s->client->quiet || s->client->leave != BH_STAY;
}

bool bh_sub_can_pump(const struct bellhop_sub *s) {
    return s->state == BH_SUB_ON && !bh_sub_is_shut(s) && s->running < s->options.concurrency &&
           !list_empty(&s->queue);
}

void bh_sub_pump(struct bellhop_sub *s) {
    while (bh_sub_can_pump(s)) {
        struct list *n = list_first(&s->queue);
        list_unlink(n);
        list_push_back(&s->taken, n);
        s->running++;
        s->options.handler(s->options.ctx, CONTAINER_OF(n, struct bellhop_event, node));
    }
}

/* What the handler does not have leaves this client. */
static void empty_queue(struct bellhop_sub *s, bool give_back) {
    for (struct list *n; (n = list_first(&s->queue)) != NULL;) {
        struct bellhop_event *e = CONTAINER_OF(n, struct bellhop_event, node);
        if (give_back) bh_tags_add(&s->releases, e->tag);
        CHECK(map_remove(&s->held, e->tag) == e);
        list_unlink(n);
        free(e);
    }
}

void bh_sub_release_queue(struct bellhop_sub *s) {
    empty_queue(s, true);
}

void bh_sub_detach(struct bellhop_sub *s, const char *reason) {
    empty_queue(s, false);
    s->releases.len = 0;
    s->claims = 0;
    if (s->state != BH_SUB_ENDED) s->state = BH_SUB_IDLE;
    if (reason == NULL) return;
    LIST_FOR(n, next, &s->to_tell) {
        bh_event_orphan(CONTAINER_OF(n, struct bellhop_event, node), reason);
    }
    LIST_FOR(m, next_m, &s->taken) {
        struct bellhop_event *e = CONTAINER_OF(m, struct bellhop_event, node);
        if (e->attached) bh_event_orphan(e, reason);
    }
    bh_settle_forget(s);
}

const struct bellhop_info *bellhop_event_info(const struct bellhop_event *e) {
    return &e->info;
}
