/* TLS handshakes: so much work per turn, and so many at a time.
 *
 * A handshake costs the server a signature and a key agreement, 1 to 8 ms by the kind of its key,
 * and its client next to nothing. So what a handshake needs is done at once only while this turn
 * has time left for handshakes; then it is due, nothing more is read from its peer, and the next
 * turns go on in the order in which they came. Whoever is connected has a say in every turn.
 *
 * What can go wrong: a flood. While many are due nobody is accepted on a port that speaks TLS. When
 * as many are under way as may be, altogether or of one address, a new one replaces the one whose
 * peer has been silent longest: an honest peer answers at once, one that stalls is what we can
 * spare. Those that wait for us go only when there are no others. */
#include "broker/net/internal.h"
#include "proto/limits.h"

/* A turn then lasts not much longer than one that syncs to a slow disk. One handshake is worked on
 * in any case, so it goes on with a key that takes longer. */
#define TURN_NS (4 * 1000000ULL)
/* With so many due the next one would wait some 100 ms for its turn. */
#define DUE_CROWDED 128

static struct stream *stream_of(struct list *n) {
    return CONTAINER_OF(n, struct stream, shaking);
}

/* How many of the list are the same address's; *oldest becomes the first of them if it is NULL. */
static size_t count_group(struct list *list, uint64_t group, struct stream **oldest) {
    size_t count = 0;
    LIST_FOR(n, next, list) {
        struct stream *s = stream_of(n);
        if (s->peer_group != group) continue;
        if (*oldest == NULL) *oldest = s;
        count++;
    }
    return count;
}

/* Who has to go for s; NULL: nobody. */
static struct stream *find_oldest(struct loop *l, const struct stream *s) {
    struct stream *oldest = NULL;
    if (l->shaking_count >= LIMIT_TLS_HANDSHAKES) {
        struct list *n = list_first(&l->shaking);
        return stream_of(n != NULL ? n : list_first(&l->shakes_due));
    }
    /* Behind a proxy of this machine all the world comes from there. */
    if (s->peer_is_loopback || l->shaking_count < LIMIT_TLS_HANDSHAKES_PER_IP) return NULL;
    size_t count = count_group(&l->shaking, s->peer_group, &oldest);
    count += count_group(&l->shakes_due, s->peer_group, &oldest);
    return count < LIMIT_TLS_HANDSHAKES_PER_IP ? NULL : oldest;
}

void handshake_begin(struct stream *s) {
    struct loop *l = s->loop;
    struct stream *oldest = find_oldest(l, s);
    if (oldest != NULL) stream_give_up_handshake(oldest);
    list_push_back(&l->shaking, &s->shaking);
    l->shaking_count++;
}

static void set_due(struct stream *s, bool due) {
    struct loop *l = s->loop;
    list_unlink(&s->shaking);
    list_push_back(due ? &l->shakes_due : &l->shaking, &s->shaking);
    if (due && !s->shake_due) l->due_count++;
    if (!due && s->shake_due) l->due_count--;
    s->shake_due = due;
}

void handshake_end(struct stream *s) {
    struct loop *l = s->loop;
    if (list_empty(&s->shaking)) return;
    if (s->shake_due) set_due(s, false);
    list_unlink(&s->shaking);
    l->shaking_count--;
}

bool handshake_admit(struct stream *s) {
    struct loop *l = s->loop;
    if (list_empty(&l->shakes_due) && l->shaken_ns < TURN_NS) return true;
    set_due(s, true);
    loop_defer(l, &l->shakes);
    return false;
}

void handshake_worked(struct stream *s, uint64_t ns) {
    s->loop->shaken_ns += ns;
    if (!list_empty(&s->shaking)) set_due(s, false); /* now its peer has to answer */
}

void handshakes_work(void *ctx) {
    struct loop *l = ctx;
    struct list *n;
    loop_again(l); /* for what they have brought */
    while (l->shaken_ns < TURN_NS && (n = list_first(&l->shakes_due)) != NULL) {
        struct stream *s = stream_of(n);
        set_due(s, false);
        stream_shake(s);
    }
    if (!list_empty(&l->shakes_due)) loop_defer(l, &l->shakes);
}

bool handshakes_crowded(const struct loop *l) {
    return l->due_count >= DUE_CROWDED;
}
