/* login.c: HELLO, CHALLENGE, AUTH and WELCOME, and what an open session's key lets it do.
 *
 * The happy path: HELLO is answered with WELCOME at once where the broker has no keys, else with
 * CHALLENGE, and AUTH then with WELCOME. What goes wrong before WELCOME ends the session. */
#include <openssl/rand.h>
#include <stdio.h>

#include "broker/workers/session.h"

/* Gives it a new token. */
static void make_token(struct session *s) {
    static const char hex[] = "0123456789abcdef";
    uint8_t bytes[SESSION_TOKEN_BYTES];
    int random_ok = RAND_bytes(bytes, sizeof bytes);
    CRYPTO_CHECK(random_ok == 1);
    for (size_t i = 0; i < sizeof bytes; i++) {
        s->token[2 * i] = hex[bytes[i] >> 4];
        s->token[2 * i + 1] = hex[bytes[i] & 15];
    }
}

static bool is_token(struct slice text) {
    if (text.len != 2 * (size_t)SESSION_TOKEN_BYTES) return false;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f')) return false;
    }
    return true;
}

/* One that resumes goes on under the same token, also when that is from before a restart: its
 * worker may lose the connection again before it has claimed everything. Where the old session
 * still has a connection, that one is dead and only its worker knows so yet. A token of another
 * project names nothing here: the number is another one. */
static void name_session(struct session *s, struct slice token) {
    struct map *names = &s->room->by_number;
    bool known = is_token(token) && slice_to_cstr(token, s->token, sizeof s->token);
    if (!known) make_token(s);
    s->number = session_number(s->project, slice_str(s->token));
    if (known) s->resumes = s->number;
    struct session *old = map_remove(names, s->number);
    if (old != NULL) {
        old->token[0] = '\0';
        session_replace(old);
    }
    map_add(names, s->number, s);
}

static uint64_t heartbeat_of(uint64_t wanted_ms) {
    if (wanted_ms == 0) return LIMIT_HEARTBEAT_MS_DEFAULT;
    if (wanted_ms < LIMIT_HEARTBEAT_MS_MIN) return LIMIT_HEARTBEAT_MS_MIN;
    return wanted_ms > LIMIT_HEARTBEAT_MS_MAX ? LIMIT_HEARTBEAT_MS_MAX : wanted_ms;
}

static void welcome(struct session *s, uint32_t rid) {
    struct frame f = {.op = FRAME_WELCOME};
    const struct key *k = session_key(s);
    s->state = SESSION_OPEN;
    s->project = k == NULL ? PROJECT_DEFAULT : k->project;
    name_session(s, slice_str(s->resume));
    f.u.welcome.version = FRAME_VERSION;
    f.u.welcome.server = slice_str("bellhop " BELLHOP_VERSION);
    f.u.welcome.session = slice_str(s->token);
    f.u.welcome.auth = slice_str(s->key == 0 ? "none" : KEY_MECHANISM);
    f.u.welcome.nonce = slice_of(s->nonce, sizeof s->nonce);
    f.u.welcome.heartbeat_ms = s->heartbeat_ms;
    f.u.welcome.frame_max_bytes = s->room->options.frame_max_bytes;
    f.u.welcome.now_ms = loop_wall_ms(s->room->options.loop);
    f.u.welcome.resume_ms = s->resume_ms;
    frame_encode_welcome(session_out(s), rid, &f);
}

static void hello(struct session *s, const struct frame *f) {
    if (f->u.hello.version_min > FRAME_VERSION || f->u.hello.version_max < FRAME_VERSION) {
        session_error(s, f->rid, ERR_BAD_VERSION, "this broker speaks version 1 only", true);
        return;
    }
    uint64_t resume_ms = f->u.hello.resume_ms;
    s->resume_ms = resume_ms > LIMIT_RESUME_MS ? LIMIT_RESUME_MS : (uint32_t)resume_ms;
    s->heartbeat_ms = heartbeat_of(f->u.hello.heartbeat_ms);
    /* What does not fit, or holds a NUL, is no token of ours: it stays empty, which is none. */
    (void)slice_to_cstr(f->u.hello.resume, s->resume, sizeof s->resume);
    int random_ok = RAND_bytes(s->nonce, sizeof s->nonce);
    CRYPTO_CHECK(random_ok == 1);
    if (!auth_required(s->room->options.auth)) {
        welcome(s, f->rid);
        return;
    }
    s->state = SESSION_AUTH;
    frame_encode_challenge(session_out(s), f->rid, slice_str(KEY_MECHANISM),
                           slice_of(s->nonce, sizeof s->nonce));
}

static void authenticate(struct session *s, const struct frame *f) {
    struct auth_proof proof = {
        .key_id = f->u.auth.key_id,
        .broker_nonce = slice_of(s->nonce, sizeof s->nonce),
        .client_nonce = f->u.auth.nonce,
        .proof = f->u.auth.proof,
    };
    const struct key *k = NULL;
    if (!slice_eq_str(f->u.auth.mechanism, KEY_MECHANISM)) {
        session_error(s, f->rid, ERR_UNAUTHENTICATED, "mechanism: want " KEY_MECHANISM, true);
        return;
    }
    enum auth_verdict verdict =
        auth_check_proof(s->room->options.auth, workers_time(s->room), &proof, &k);
    if (verdict != AUTH_OK) {
        session_error(s, f->rid, ERR_UNAUTHENTICATED, auth_verdict_text(verdict), true);
        return;
    }
    s->key = k->number;
    welcome(s, f->rid);
}

void session_login(struct session *s, const struct frame *f) {
    session_touch(s);
    if (s->state == SESSION_HELLO && f->op == FRAME_HELLO) {
        hello(s, f);
    } else if (s->state == SESSION_AUTH && f->op == FRAME_AUTH) {
        authenticate(s, f);
    } else if (s->state == SESSION_AUTH) {
        session_error(s, f->rid, ERR_UNAUTHENTICATED,
                      "this broker asks for a key: AUTH must answer its CHALLENGE", true);
    } else {
        session_error(s, f->rid, ERR_OUT_OF_ORDER, "the first frame must be HELLO", true);
    }
}

/* ---- what the key is good for ---- */

const struct key *session_key(const struct session *s) {
    if (s->key == 0) return NULL;
    const struct key *k = auth_find(s->room->options.auth, s->key);
    CHECK(k != NULL); /* a key that ends takes its sessions along */
    return k;
}

bool session_may(struct session *s, uint32_t rid, unsigned scope, struct slice name) {
    const struct key *k = session_key(s);
    char text[160];
    if (k == NULL) return true;
    if (!key_may(k, scope)) {
        snprintf(text, sizeof text, "this needs a key with the scope %s", scope_name(scope));
    } else if (name.len > 0 && !key_may_subscription(k, name)) {
        snprintf(text, sizeof text, "name: the key is limited to other subscriptions");
    } else {
        return true;
    }
    session_error(s, rid, ERR_PERMISSION_DENIED, text, false);
    return false;
}

void session_check_expiry(struct session *s) {
    const struct key *k = session_key(s);
    if (k == NULL || !key_is_expired(k, loop_wall_ms(s->room->options.loop))) return;
    session_error(s, 0, ERR_UNAUTHENTICATED, auth_verdict_text(AUTH_EXPIRED), true);
}
