/* Who may look up a name now.
 *
 * libcurl starts a thread for each lookup, and a resolver that does not answer keeps it for half a
 * minute. So at most LOOKUPS_MAX requests are in that phase at a time, and the others wait in the
 * order in which they came; their time runs. A request whose name was connected to lately does not
 * wait: its lookup, if it needs one at all, is quick, and endpoints that work are not held up by
 * names that do not. */
#include <stdio.h>

#include "base/hash.h"
#include "broker/http/client_internal.h"

#define LOOKUPS_MAX  256
#define KNOWN_FOR_MS (10ULL * 60 * 1000)

static struct known_name *known_place(const struct http_transfer *t) {
    return &t->client->known[t->name_hash % KNOWN_NAMES];
}

static bool is_known(const struct http_transfer *t) {
    const struct known_name *k = known_place(t);
    return k->hash == t->name_hash && k->until_ms > loop_now_ms(t->client->loop);
}

void names_learn(struct http_transfer *t, bool good) {
    if (t->name_hash == 0) return;
    if (good) {
        *known_place(t) = (struct known_name){
            .hash = t->name_hash,
            .until_ms = loop_now_ms(t->client->loop) + KNOWN_FOR_MS,
        };
    } else if (is_known(t)) {
        *known_place(t) = (struct known_name){0};
    }
}

static uint64_t end_ms(const struct http_transfer *t) {
    return t->started_ms + t->timeout_ms;
}

static void on_waited_long(void *ctx) {
    (void)client_settle(ctx); /* a callback of the loop: its turn follows */
}

/* The timer is for those that wait: what libcurl has ends by libcurl's own. */
static void timer_set(struct http_client *c, uint64_t at_ms) {
    uint64_t now_ms = loop_now_ms(c->loop);
    uint64_t after_ms = at_ms > now_ms ? at_ms - now_ms : 0;
    c->names_due_ms = at_ms;
    if (at_ms == UINT64_MAX) loop_timer_stop(&c->names_timer);
    else if (c->names_timer != NULL) loop_timer_set(c->names_timer, after_ms);
    else c->names_timer = loop_timer_start(c->loop, after_ms, 0, on_waited_long, c);
}

bool names_enter(struct http_transfer *t, struct slice uri) {
    struct http_client *c = t->client;
    struct slice name = guard_uri_name(uri);
    t->name_hash = name.len == 0 ? 0 : hash_bytes(0, name);
    if (t->name_hash == 0 || is_known(t)) return true;
    if (c->lookups == LOOKUPS_MAX) {
        if (end_ms(t) < c->names_due_ms) timer_set(c, end_ms(t));
        return false;
    }
    t->looking = true;
    c->lookups++;
    return true;
}

void names_leave(struct http_transfer *t) {
    struct http_client *c = t->client;
    if (!t->looking) return;
    t->looking = false;
    c->lookups--;
    if (!list_empty(&c->waiting) && !c->closing) loop_defer(c->loop, &c->drive);
}

void names_admit(struct http_client *c) {
    uint64_t now_ms = loop_now_ms(c->loop), first_ms = UINT64_MAX;
    if (list_empty(&c->waiting) && c->names_timer == NULL) return;
    LIST_FOR(n, next, &c->waiting) {
        struct http_transfer *t = CONTAINER_OF(n, struct http_transfer, node);
        if (end_ms(t) <= now_ms) {
            transfer_fail_ours(t, "no name lookup came free within %llu ms: %u are under way",
                               (unsigned long long)t->timeout_ms, LOOKUPS_MAX);
        } else if (c->lookups < LOOKUPS_MAX) {
            t->looking = true;
            c->lookups++;
            transfer_run(t, end_ms(t) - now_ms);
        } else if (end_ms(t) < first_ms) {
            first_ms = end_ms(t);
        }
    }
    timer_set(c, first_ms);
}
