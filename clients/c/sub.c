/* Subscriptions and the events that came through them.
 *
 * The happy path of an event: DELIVER -> queue -> (handler is called) taken -> settled and freed.
 * Failures: REVOKE or a lost connection. What the handler does not have yet is dropped (a revoked
 * one is given back, for it keeps its place in the window until then); what it has goes to to_tell
 * and, when on_revoked was called, back to taken until the handler settles it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "clients/c/client.h"

#define WINDOW_BYTES_DEFAULT (16 * MIB)

static bool name_is_usable(const char *name) {
    size_t len = strlen(name);
    return len > 0 && len <= LIMIT_NAME_BYTES;
}

static struct slice *copy_texts(const char *const *texts, size_t count) {
    struct slice *copy = mem_alloc(count * sizeof *copy);
    for (size_t i = 0; i < count; i++) copy[i] = slice_str(mem_strdup(texts[i]));
    return copy;
}

static void free_texts(const struct slice *texts, size_t count) {
    for (size_t i = 0; i < count; i++) free((void *)(uintptr_t)texts[i].data);
    free((void *)(uintptr_t)texts);
}

/* False: the policy is not usable. */
static bool copy_policy(struct frame_policy *to, const struct bellhop_policy *from) {
    if (from == NULL) return true;
    if (from->types_count > LIMIT_FILTER_PATTERNS || from->sources_count > LIMIT_FILTER_PATTERNS) {
        return false;
    }
    bool first = from->start != NULL && strcmp(from->start, "first") == 0;
    if (from->start != NULL && !first && strcmp(from->start, "new") != 0) return false;
    *to = (struct frame_policy){
        .present = true,
        .types = copy_texts(from->types, from->types_count),
        .types_count = from->types_count,
        .sources = copy_texts(from->sources, from->sources_count),
        .sources_count = from->sources_count,
        .lease_ms = from->lease_ms,
        .max_fails = from->max_fails == 0 ? UINT64_MAX : from->max_fails,
        .backoff_min_ms = from->backoff_min_ms == 0 ? UINT64_MAX : from->backoff_min_ms,
        .backoff_max_ms = from->backoff_max_ms == 0 ? UINT64_MAX : from->backoff_max_ms,
        .backoff_factor = from->backoff_factor,
        .start = first ? FRAME_START_FIRST : FRAME_START_NEW,
    };
    if (from->start_seq != 0) {
        to->start = FRAME_START_SEQ;
        to->start_value = from->start_seq;
    }
    return true;
}

struct bellhop_sub *bellhop_subscribe(struct bellhop *c, const char *name,
                                      const struct bellhop_sub_options *options) {
    struct frame_policy create = {0};
    if (name == NULL || options == NULL || options->handler == NULL || !name_is_usable(name) ||
        options->concurrency > LIMIT_WINDOW_EVENTS || options->window > LIMIT_WINDOW_EVENTS ||
        options->window_bytes > LIMIT_WINDOW_BYTES || c->phase == BH_STOPPED ||
        !copy_policy(&create, options->create)) {
        return NULL;
    }
    struct bellhop_sub *s = mem_zalloc(sizeof *s);
    struct bellhop_sub_options *o = &s->options;
    s->client = c;
    s->id = ++c->next_sub;
    s->create = create;
    s->options = *options;
    o->create = NULL;
    if (o->concurrency == 0) o->concurrency = 1;
    if (o->window == 0) o->window = 2 * o->concurrency;
    if (o->window > LIMIT_WINDOW_EVENTS) o->window = LIMIT_WINDOW_EVENTS;
    if (o->window_bytes == 0) o->window_bytes = WINDOW_BYTES_DEFAULT;
    memcpy(s->name, name, strlen(name) + 1);
    map_init(&s->held);
    list_init(&s->queue);
    list_init(&s->taken);
    list_init(&s->to_tell);
    list_init(&s->confirms);
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
    free_texts(s->create.types, s->create.types_count);
    free_texts(s->create.sources, s->create.sources_count);
    free(s);
}

struct bellhop_sub *bh_sub_find(struct bellhop *c, uint32_t id) {
    LIST_FOR(n, next, &c->subs) {
        struct bellhop_sub *s = CONTAINER_OF(n, struct bellhop_sub, node);
        if (s->id == id) return s;
    }
    return NULL;
}

void bh_sub_ask(struct bellhop *c, struct bellhop_sub *s) {
    struct bh_request *r = bh_request_new(c, BH_SUBSCRIBE);
    r->sub = s;
    s->state = BH_SUB_ASKED;
    bh_encoded(
        c, frame_encode_subscribe(bh_out(c), r->rid, s->id, slice_str(s->name), s->options.window,
                                  s->options.window_bytes, s->options.concurrency, &s->create));
}

void bh_sub_ended(struct bellhop_sub *s, const char *fmt, ...) {
    char text[BH_TEXT_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (s->state == BH_SUB_ENDED) return;
    bh_sub_detach(s);
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

static struct bellhop_event *event_new(struct bellhop_sub *s, const struct frame_item *item) {
    const struct event *e = &item->event;
    size_t bytes = e->id.len + e->type.len + e->source.len + e->subject.len + e->content_type.len +
                   e->metadata.len + e->headers.len + e->body.len + 8;
    struct bellhop_event *event = mem_alloc(sizeof *event + bytes);
    char *at = (char *)(event + 1);
    *event = (struct bellhop_event){.sub = s, .tag = item->tag, .attached = true};
    event->info = (struct bellhop_info){
        .seq = e->seq,
        .time_ms = e->time_ms,
        .received_at_ms = e->received_at_ms,
        .body_len = e->body.len,
        .attempt = item->fails == UINT32_MAX ? item->fails : item->fails + 1,
        .deliveries = item->deliveries,
        .replay = (item->flags & FRAME_FLAG_REPLAY) != 0,
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

/* A lease is renewed when a third of it has gone. */
static uint64_t extend_ms(const struct bellhop_sub *s) {
    return s->lease_ms / 3 < BH_PERIOD_MIN_MS ? BH_PERIOD_MIN_MS : s->lease_ms / 3;
}

const char *bh_sub_deliver(struct bellhop_sub *s, const struct frame *f) {
    if (s->state != BH_SUB_ON) return s->state == BH_SUB_ENDED ? NULL : "DELIVER before SUBSCRIBED";
    if (f->u.deliver.lease_ms > 0) s->lease_ms = f->u.deliver.lease_ms;
    if (s->held.len == 0) s->extend_at_ms = bh_now_ms(s->client) + extend_ms(s);
    for (size_t i = 0; i < f->u.deliver.count; i++) {
        const struct frame_item *item = &f->u.deliver.items[i];
        if (s->held.len >= s->options.window) return "DELIVER above the window";
        if (map_get(&s->held, item->tag) != NULL) return "DELIVER of a tag that is held";
        struct bellhop_event *e = event_new(s, item);
        map_add(&s->held, e->tag, e);
        list_push_back(&s->queue, &e->node);
    }
    return NULL;
}

bool bh_sub_can_pump(const struct bellhop_sub *s) {
    return s->state == BH_SUB_ON && s->client->leave == BH_STAY &&
           s->running < s->options.concurrency && !list_empty(&s->queue);
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

/* Gives an event of the queue back. */
static void release_queued(struct bellhop_event *e) {
    struct bellhop_sub *s = e->sub;
    bh_tags_add(&s->releases, e->tag);
    CHECK(map_remove(&s->held, e->tag) == e);
    list_unlink(&e->node);
    free(e);
}

void bh_sub_release_queue(struct bellhop_sub *s) {
    LIST_FOR(n, next, &s->queue) release_queued(CONTAINER_OF(n, struct bellhop_event, node));
}

void bh_sub_revoke(struct bellhop_sub *s, const struct frame_range *ranges, size_t count) {
    struct list *lists[] = {&s->queue, &s->taken};
    for (int which = 0; which < 2; which++) {
        LIST_FOR(n, next, lists[which]) {
            struct bellhop_event *e = CONTAINER_OF(n, struct bellhop_event, node);
            bool hit = false;
            for (size_t i = 0; i < count && !hit; i++) {
                hit = e->tag >= ranges[i].lo && e->tag <= ranges[i].hi;
            }
            if (!hit || !e->attached || e->revoked) continue;
            if (which == 0) {
                release_queued(e);
                continue;
            }
            e->revoked = true;
            list_unlink(n);
            list_push_back(&s->to_tell, n);
        }
    }
}

void bh_sub_detach(struct bellhop_sub *s) {
    LIST_FOR(n, next, &s->queue) {
        struct bellhop_event *e = CONTAINER_OF(n, struct bellhop_event, node);
        CHECK(map_remove(&s->held, e->tag) == e);
        list_unlink(n);
        free(e);
    }
    LIST_FOR(t, next_t, &s->to_tell) {
        struct bellhop_event *e = CONTAINER_OF(t, struct bellhop_event, node);
        if (e->attached) CHECK(map_remove(&s->held, e->tag) == e);
        e->attached = false;
    }
    LIST_FOR(m, next_m, &s->taken) {
        struct bellhop_event *e = CONTAINER_OF(m, struct bellhop_event, node);
        if (!e->attached) continue;
        CHECK(map_remove(&s->held, e->tag) == e);
        e->attached = false;
        if (e->revoked) continue;
        e->revoked = true;
        list_unlink(m);
        list_push_back(&s->to_tell, m);
    }
    bh_settle_forget(s);
    if (s->state != BH_SUB_ENDED) s->state = BH_SUB_IDLE;
}

void bh_sub_tell_revoked(struct bellhop_sub *s) {
    for (struct list *n; (n = list_first(&s->to_tell)) != NULL;) {
        list_unlink(n);
        list_push_back(&s->taken, n);
        if (s->options.on_revoked == NULL || s->client->phase == BH_STOPPED) continue;
        s->options.on_revoked(s->options.ctx, CONTAINER_OF(n, struct bellhop_event, node));
    }
}

static void extend(struct bellhop_sub *s, struct bh_tags *tags) {
    struct bellhop *c = s->client;
    if (tags->len == 0 || bh_out(c) == NULL) return;
    struct frame_range *ranges = mem_alloc(tags->len * sizeof *ranges);
    size_t count = bh_tags_ranges(tags, ranges);
    bool ok = true;
    for (size_t at = 0; at < count && ok; at += LIMIT_RANGES) {
        size_t n = count - at < LIMIT_RANGES ? count - at : LIMIT_RANGES;
        ok = frame_encode_extend(bh_out(c), 0, s->id, ranges + at, n, 0, false);
    }
    free(ranges);
    bh_encoded(c, ok);
}

void bh_sub_extend_due(struct bellhop_sub *s, uint64_t now_ms) {
    struct list *lists[] = {&s->queue, &s->taken};
    struct bh_tags tags = {0};
    if (s->state != BH_SUB_ON || s->lease_ms == 0 || s->held.len == 0 || now_ms < s->extend_at_ms) {
        return;
    }
    s->extend_at_ms = now_ms + extend_ms(s);
    for (int i = 0; i < 2; i++) {
        LIST_FOR(n, next, lists[i]) {
            const struct bellhop_event *e = CONTAINER_OF(n, struct bellhop_event, node);
            if (e->attached && !e->revoked) bh_tags_add(&tags, e->tag);
        }
    }
    extend(s, &tags);
    free(tags.items);
}

const struct bellhop_info *bellhop_event_info(const struct bellhop_event *e) {
    return &e->info;
}

void bellhop_extend(struct bellhop_event *e) {
    uint64_t tag = e->tag;
    struct bh_tags one = {.items = &tag, .len = 1, .cap = 1};
    if (e->attached && !e->revoked) extend(e->sub, &one);
}
