/* A client's life.
 *
 * The happy path: bellhop_open arms the timer; the loop's first turn connects; from then on each
 * turn (bh_turn, right before the loop blocks) does what is due, calls handlers, writes what they
 * settled and published, and arms the timer for the next deadline. bellhop_stop wakes the loop; the
 * turn then sends DRAIN, gives back what no handler has, waits for the rest and for answers, says
 * CLOSE, waits for the end of the stream and stops the loop. bellhop_close frees.
 * Failures: a lost connection (bh_lost: wait and connect again, and go on where it was when the
 * broker has granted that); an error that trying again cannot mend (bh_finish). A handler that does
 * not settle within BH_STOP_MS of a stop is left behind. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "clients/c/client.h"
#include "clients/c/tls.h"

static void on_timer(uv_timer_t *timer) {
    (void)timer; /* it only ends the loop's wait: the turn follows */
}

uint64_t bh_now_ms(const struct bellhop *c) {
    return uv_now(c->loop);
}

void bh_say(struct bellhop *c, const char *fmt, ...) {
    char text[BH_TEXT_BYTES];
    va_list args;
    if (c->options.on_state == NULL || c->closing) return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    c->options.on_state(c->options.ctx, text);
}

/* What a lost connection takes with it: all, or (reason NULL) what cannot be claimed. */
static void detach_all(struct bellhop *c, const char *reason, bool also_waiting) {
    bh_connection_drop(c);
    if (reason == NULL) bh_settle_again(c);
    LIST_FOR(n, next, &c->subs) bh_sub_detach(CONTAINER_OF(n, struct bellhop_sub, node), reason);
    bh_requests_lost(c, also_waiting);
}

void bh_finish(struct bellhop *c, int error, const char *fmt, ...) {
    va_list args;
    if (c->phase == BH_STOPPED) return;
    va_start(args, fmt);
    vsnprintf(c->text, sizeof c->text, fmt, args);
    va_end(args);
    c->result = error;
    c->phase = BH_STOPPED;
    detach_all(c, "lost", true);
    /* The next turn tells whose publishes failed, says "stopped" and ends the loop. */
    if (!c->closing) uv_timer_start(&c->timer, on_timer, 0, 0);
}

/* There is something to claim on the next connection. */
static bool has_claims(struct bellhop *c) {
    if (c->session_len == 0) return false;
    LIST_FOR(n, next, &c->subs) {
        struct bellhop_sub *s = CONTAINER_OF(n, struct bellhop_sub, node);
        if (s->running > 0 || !list_empty(&s->settled) || !list_empty(&s->unsure)) return true;
    }
    return false;
}

/* How long to wait before the next attempt: between half of a doubling step and the step. */
static uint64_t pause_ms(struct bellhop *c) {
    uint64_t high = BH_PAUSE_MAX_MS;
    uint64_t max = has_claims(c) ? BH_PAUSE_CLAIMS_MS : BH_PAUSE_MAX_MS;
    if (c->attempts < 8) high = (uint64_t)BH_PAUSE_MIN_MS << (c->attempts + 1);
    if (high > max) high = max;
    c->attempts++;
    return high / 2 + prng_below(&c->prng, high / 2 + 1);
}

void bh_lost(struct bellhop *c, const char *fmt, ...) {
    char text[BH_TEXT_BYTES];
    va_list args;
    if (c->phase == BH_STOPPED) return;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    uint64_t now_ms = bh_now_ms(c);
    bool steady = c->phase >= BH_READY && now_ms - c->ready_at_ms >= BH_STEADY_MS;
    bool said_goodbye = c->phase == BH_LEAVING;
    if (c->leave == BH_LEAVE_STOP) {
        bh_finish(c, 0, "%s", said_goodbye ? "" : text);
        return;
    }
    if (steady) c->attempts = 0;
    if (said_goodbye) c->session_len = 0; /* the broker has let go of everything */
    uint64_t wait_ms = pause_ms(c), asked_ms = c->reconnect_ms;
    if (asked_ms > BH_ASKED_PAUSE_MAX_MS) asked_ms = BH_ASKED_PAUSE_MAX_MS;
    /* What the broker asked for, and a little more: others were asked the same. */
    if (asked_ms > 0) wait_ms = asked_ms + prng_below(&c->prng, asked_ms / 4 + 1);
    c->reconnect_ms = 0;
    c->leave = BH_STAY;
    c->drain_sent = c->drained = c->choked = c->quiet = false;
    c->phase = BH_WAITING;
    c->deadline_ms = now_ms + wait_ms;
    memcpy(c->text, text, sizeof c->text);
    detach_all(c, c->session_len > 0 ? NULL : "lost", false);
    bh_say(c, "disconnected: %s", text);
}

void bh_broken(struct bellhop *c, const char *why) {
    if (!c->welcomed) {
        bh_finish(c, BELLHOP_EPROTOCOL, "%s port %u is not a Bellhop broker's port for workers: %s",
                  c->url.host, c->url.port, why);
    } else {
        bh_lost(c, "the broker broke the protocol: %s", why);
    }
}

/* Leaving, by bellhop_stop or GOAWAY. */
static void leave(struct bellhop *c, uint64_t now_ms) {
    if (c->leave == BH_STAY || c->phase != BH_READY) return;
    if (!c->drain_sent) {
        struct bh_request *r = bh_request_new(c, BH_DRAIN);
        c->drain_sent = true;
        bh_encoded(c, frame_encode_plain(bh_out(c), FRAME_DRAIN, r->rid));
    }
    bool quiet = c->drained && list_empty(&c->in_flight) &&
                 (c->leave == BH_LEAVE_GOAWAY || list_empty(&c->waiting));
    LIST_FOR(n, next, &c->subs) {
        const struct bellhop_sub *s = CONTAINER_OF(n, struct bellhop_sub, node);
        if (s->held.len > 0 || s->settled.next != &s->settled) quiet = false;
    }
    if (!quiet && now_ms < c->leave_at_ms) return;
    bh_encoded(c, frame_encode_plain(bh_out(c), FRAME_CLOSE, 0));
    c->phase = BH_LEAVING;
    c->deadline_ms = now_ms + BH_GOODBYE_MS;
}

/* What the clock says. */
static void due(struct bellhop *c, uint64_t now_ms) {
    if (c->stop_asked && c->leave != BH_LEAVE_STOP) {
        c->leave = BH_LEAVE_STOP;
        c->leave_at_ms = now_ms + BH_STOP_MS;
        if (c->phase < BH_READY) bh_finish(c, 0, "%s", "");
    }
    if (c->choked) bh_lost(c, "the broker takes nothing");
    switch (c->phase) {
    case BH_READY: bh_session_beat(c, now_ms); break;
    case BH_STOPPED: break;
    default:
        if (now_ms < c->deadline_ms) break;
        if (c->phase == BH_WAITING) bh_connection_open(c);
        else if (c->phase == BH_LEAVING) bh_lost(c, "the broker did not end the connection");
        else bh_lost(c, "%s port %u does not answer", c->url.host, c->url.port);
    }
}

/* First half of a subscription's turn: the user's code runs. */
static void serve_sub(struct bellhop *c, struct bellhop_sub *s) {
    bh_sub_tell(s);
    if (c->phase != BH_READY) return;
    if (bh_sub_wants(s)) bh_sub_ask(s);
    if (bh_sub_is_shut(s)) bh_sub_release_queue(s);
    bh_sub_pump(s);
}

/* Second half: what that code did is written. */
static void write_sub(struct bellhop *c, struct bellhop_sub *s, uint64_t now_ms) {
    if (c->phase != BH_READY) return;
    bh_settle_send(s);
    bh_sub_extend_due(s, now_ms);
    bh_sub_write(s);
}

static uint64_t next_deadline(struct bellhop *c) {
    uint64_t at = c->phase == BH_READY ? bh_session_beat_at(c) : c->deadline_ms;
    uint64_t waits_at = bh_waits_at(c);
    if (waits_at < at) at = waits_at;
    if (c->phase != BH_READY) return at;
    if (c->choked) return 0;
    if (c->leave != BH_STAY && c->leave_at_ms < at) at = c->leave_at_ms;
    uint64_t barrier_at = bh_barrier_at(c);
    if (barrier_at < at) at = barrier_at;
    LIST_FOR(n, next, &c->subs) {
        const struct bellhop_sub *s = CONTAINER_OF(n, struct bellhop_sub, node);
        uint64_t extend_at = bh_sub_extend_at(s);
        bool shut_late = bh_sub_is_shut(s) && !list_empty(&s->queue);
        if (bh_sub_can_pump(s) || bh_sub_wants(s) || shut_late || !list_empty(&s->to_tell)) {
            return 0;
        }
        if (extend_at < at) at = extend_at;
    }
    return at;
}

static void stopped(struct bellhop *c) {
    uv_timer_stop(&c->timer);
    uv_prepare_stop(&c->prepare);
    if (c->text[0] == '\0') bh_say(c, "stopped");
    else bh_say(c, "stopped: %s", c->text);
    if (c->owns_loop) uv_stop(c->loop);
}

static void on_turn(uv_prepare_t *prepare) {
    struct bellhop *c = CONTAINER_OF(prepare, struct bellhop, prepare);
    uint64_t now_ms = bh_now_ms(c);
    due(c, now_ms);
    LIST_FOR(n, next, &c->subs) serve_sub(c, CONTAINER_OF(n, struct bellhop_sub, node));
    bh_requests_finish(c);
    bh_requests_send(c);
    bh_waits_send(c);
    LIST_FOR(m, next_m, &c->subs) {
        write_sub(c, CONTAINER_OF(m, struct bellhop_sub, node), now_ms);
    }
    bh_barrier_due(c, now_ms);
    leave(c, now_ms);
    bh_connection_flush(c);
    if (c->closing) return;
    if (c->phase == BH_STOPPED) {
        bh_requests_finish(c); /* a write may have failed just now */
        stopped(c);
        return;
    }
    uint64_t at_ms = list_empty(&c->finished) ? next_deadline(c) : now_ms;
    uv_timer_start(&c->timer, on_timer, at_ms > now_ms ? at_ms - now_ms : 0, 0);
}

static void on_wake(uv_async_t *async) {
    struct bellhop *c = CONTAINER_OF(async, struct bellhop, async);
    c->stop_asked = true;
}

static void free_client(struct bellhop *c) {
    LIST_FOR(n, next, &c->subs) bh_sub_free(CONTAINER_OF(n, struct bellhop_sub, node));
    map_free(&c->requests);
    frame_decoder_free(&c->decoder);
    bh_trust_free(&c->trust);
    free((char *)(uintptr_t)c->options.ca_file);
    free((char *)(uintptr_t)c->options.cert_file);
    free((char *)(uintptr_t)c->options.key_file);
    if (c->owns_loop) {
        CHECK(uv_loop_close(c->loop) == 0);
        free(c->loop);
    }
    explicit_bzero(c->url.key, sizeof c->url.key);
    free(c);
}

void bh_unpend(struct bellhop *c) {
    CHECK(c->pending > 0);
    c->pending--;
    if (c->pending == 0 && c->closing && !c->owns_loop) free_client(c);
}

static void on_async_closed(uv_handle_t *handle) {
    bh_unpend(CONTAINER_OF(handle, struct bellhop, async));
}

static void on_prepare_closed(uv_handle_t *handle) {
    bh_unpend(CONTAINER_OF(handle, struct bellhop, prepare));
}

static void on_timer_closed(uv_handle_t *handle) {
    bh_unpend(CONTAINER_OF(handle, struct bellhop, timer));
}

/* The loop and the handles on it. A loop of its own is allocated apart, so that the client can be
 * freed from a closing callback of somebody else's. */
static int open_loop(struct bellhop *c) {
    int status = 0;
    c->loop = c->options.loop;
    if (c->loop == NULL) {
        c->owns_loop = true;
        c->loop = mem_zalloc(sizeof *c->loop);
        status = uv_loop_init(c->loop);
        if (status != 0) {
            free(c->loop);
            return status;
        }
    }
    status = uv_async_init(c->loop, &c->async, on_wake);
    if (status != 0) {
        if (c->owns_loop) {
            CHECK(uv_loop_close(c->loop) == 0);
            free(c->loop);
        }
        return status;
    }
    CHECK(uv_prepare_init(c->loop, &c->prepare) == 0 && uv_timer_init(c->loop, &c->timer) == 0);
    c->pending = 3;
    CHECK(uv_prepare_start(&c->prepare, on_turn) == 0);
    uv_unref((uv_handle_t *)&c->async);
    uv_unref((uv_handle_t *)&c->prepare);
    return uv_timer_start(&c->timer, on_timer, 0, 0);
}

int bellhop_open(struct bellhop **out, const char *url, const struct bellhop_options *options) {
    struct bh_url parsed;
    uint64_t seed = 0;
    *out = NULL;
    if (url == NULL) return BELLHOP_EARGUMENT;
    if (!bh_url_parse(&parsed, url)) return BELLHOP_EURL;
    struct bellhop *c = mem_zalloc(sizeof *c);
    if (options != NULL) c->options = *options;
    if (c->options.resume_ms == 0) c->options.resume_ms = BH_RESUME_MS;
    if (c->options.resume_ms == BELLHOP_RESUME_OFF) c->options.resume_ms = 0;
    if (c->options.resume_ms > LIMIT_RESUME_MS) c->options.resume_ms = LIMIT_RESUME_MS;
    c->url = parsed;
    const char *name = c->options.name;
    if (name == NULL) name = program_invocation_short_name;
    snprintf(c->name, sizeof c->name, "%s", name);
    list_init(&c->subs);
    list_init(&c->waiting);
    list_init(&c->in_flight);
    list_init(&c->finished);
    list_init(&c->waits);
    map_init(&c->requests);
    int status = open_loop(c);
    if (status != 0) {
        free(c);
        return status;
    }
    const char **files[] = {&c->options.ca_file, &c->options.cert_file, &c->options.key_file};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (*files[i] != NULL) *files[i] = mem_strdup(*files[i]);
    }
    c->decoder = frame_decoder_new();
    c->leave_at_ms = BH_NEVER;
    c->next_rid = 1; /* HELLO's */
    if (uv_random(NULL, NULL, &seed, sizeof seed, 0, NULL) != 0) seed = uv_hrtime();
    prng_seed(&c->prng, seed);
    *out = c;
    return 0;
}

int bellhop_run(struct bellhop *c) {
    struct sigaction old;
    if (!c->owns_loop) return BELLHOP_EARGUMENT;
    /* A broker that goes away in the middle of a write must not kill the program. */
    if (sigaction(SIGPIPE, NULL, &old) == 0 && old.sa_handler == SIG_DFL) signal(SIGPIPE, SIG_IGN);
    c->looping = true;
    while (c->phase != BH_STOPPED) uv_run(c->loop, UV_RUN_DEFAULT);
    uv_run(c->loop, UV_RUN_NOWAIT);
    c->looping = false;
    return c->result;
}

void bellhop_stop(struct bellhop *c) {
    uv_async_send(&c->async);
}

void bellhop_close(struct bellhop **client) {
    struct bellhop *c = *client;
    if (c == NULL) return;
    CHECK(!c->looping); /* with a loop of its own: after bellhop_run, not from a callback */
    *client = NULL;
    if (bh_out(c) != NULL && c->phase == BH_READY) {
        LIST_FOR(n, next, &c->subs) bh_settle_send(CONTAINER_OF(n, struct bellhop_sub, node));
        frame_encode_plain(bh_out(c), FRAME_CLOSE, 0);
        bh_connection_flush(c);
    }
    bh_finish(c, 0, "%s", "");
    c->closing = true;
    bh_requests_finish(c);
    uv_close((uv_handle_t *)&c->async, on_async_closed);
    uv_close((uv_handle_t *)&c->prepare, on_prepare_closed);
    uv_close((uv_handle_t *)&c->timer, on_timer_closed);
    if (!c->owns_loop) return;
    while (c->pending > 0) uv_run(c->loop, UV_RUN_ONCE);
    free_client(c);
}

const char *bellhop_error(const struct bellhop *c) {
    return c->text;
}

const char *bellhop_strerror(int error) {
    switch (error) {
    case 0: return "no error";
    case BELLHOP_EURL: return "the URL is not bellhop://[key@]host[:port], or bellhops:// for TLS";
    case BELLHOP_EREFUSED: return "refused";
    case BELLHOP_EPROTOCOL: return "the peer does not speak Bellhop's protocol";
    case BELLHOP_ECLOSED: return "the connection was lost before the answer";
    case BELLHOP_EARGUMENT: return "an argument is not usable";
    default: return uv_strerror(error);
    }
}
