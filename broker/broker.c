/* broker.c: the turn.
 *
 * The happy path of a turn: callbacks of sockets step commands into the engine; right before the
 * loop would block, on_turn takes the engine's turn, submits its batch and, when the store says
 * that it is durable, gives its effects to their rooms, which write answers; then the loop writes
 * them out.
 *
 * What can fail: the store. Then the process says why and exits: a restart is recovery.
 *
 * Stopping: a signal drains. Nobody new comes in and nothing is handed out; HTTP requests under way
 * are answered, workers hear QUIET and finish what they hold. When all have gone, or the drain time
 * is over, or a second signal comes, the last turn writes every position and everything closes.
 * What workers that may resume still hold stays theirs on disk: they claim it after the restart. */
#include "broker/broker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/admin/admin.h"
#include "broker/auth/auth.h"
#include "broker/auth/projects.h"
#include "broker/ingest/access_log.h"
#include "broker/ingest/ingest.h"
#include "broker/jobs/jobs.h"
#include "broker/json/walk.h"
#include "broker/net/address.h"
#include "broker/net/peer.h"
#include "broker/net/tls.h"
#include "broker/webhooks/webhooks.h"
#include "broker/workers/workers.h"

enum room { ROOM_INGEST = 1, ROOM_ADMIN, ROOM_WORKERS, ROOM_WEBHOOKS, ROOM_JOBS, ROOM_AUTH };

struct broker {
    struct loop *loop;
    struct store *store;
    struct engine *engine;
    struct auth *auth;
    struct projects *projects;
    struct http_server *http;
    struct ingest *ingest;
    struct admin *admin;
    struct workers *workers;
    struct webhooks *webhooks;
    struct jobs *jobs;
    struct loop_timer *drain_timer;
    struct tls_server *tls; /* NULL: there is no certificate */
    struct access_log *access_log;
    uint64_t drain_ms;
    bool draining, ending;
    char blocked_by[2 * LIMIT_NAME_BYTES + 16]; /* as the log has it; empty: nobody */
};

static void give_effect(struct broker *b, const struct effect *effect) {
    switch (effect->route.room) {
    case ROOM_INGEST: ingest_on_effect(b->ingest, effect); break;
    case ROOM_ADMIN: admin_on_effect(b->admin, effect); break;
    case ROOM_WORKERS: workers_on_effect(b->workers, effect); break;
    case ROOM_WEBHOOKS: webhooks_on_effect(b->webhooks, effect); break;
    case ROOM_JOBS: jobs_on_effect(b->jobs, effect); break;
    case ROOM_AUTH: break; /* nobody waits for the day of a key's last use */
    default: UNREACHABLE("every command is stepped by one of the rooms");
    }
}

static void on_durable(void *ctx, struct batch *batch) {
    struct broker *b = ctx;
    struct engine_turn *turn = CONTAINER_OF(batch, struct engine_turn, batch);
    engine_durable(b->engine, turn);
    /* Without rooms (--make-key) nobody has asked. */
    size_t count = b->admin == NULL ? 0 : turn->effects_count;
    for (size_t i = 0; i < count; i++) give_effect(b, &turn->effects[i]);
    engine_turn_done(b->engine, turn);
}

/* After a failed commit nothing is known about the disk: no answer may leave the process. */
static _Noreturn void storage_failed(const struct broker *b) {
    log_error("the store failed, stopping without another answer: %s", b->store->error);
    _exit(1);
}

static bool nobody_left(const struct broker *b) {
    return http_server_connections(b->http) == 0 && workers_sessions(b->workers) == 0 &&
           webhooks_busy(b->webhooks) == 0;
}

/* While a subscription blocks the journal every publish is refused: the log says so once. */
static void log_blocked(struct broker *b) {
    struct engine_stats stats;
    char now[sizeof b->blocked_by] = "";
    engine_stats(b->engine, &stats);
    if (stats.blocked_by.len == 0 && b->blocked_by[0] == '\0') return;
    const struct project_info *project = projects_get(b->projects, stats.blocked_by_project);
    bool of_default = project == NULL || project->id == PROJECT_DEFAULT;
    snprintf(now, sizeof now, "%.*s%s%s", SLICE_ARG(stats.blocked_by),
             of_default ? "" : " of project ", of_default ? "" : project->name);
    if (strcmp(now, b->blocked_by) == 0) return;
    memcpy(b->blocked_by, now, sizeof now);
    if (b->blocked_by[0] == '\0') {
        log_info("publishes are taken again: no subscription holds the journal any more");
    } else {
        log_warn(
            "publishes are refused: the journal has its full size and subscription %s still "
            "needs its oldest events",
            b->blocked_by);
    }
}

static uint64_t sooner(uint64_t a_ms, uint64_t b_ms) {
    return a_ms < b_ms ? a_ms : b_ms;
}

static uint64_t on_turn(void *ctx, uint64_t now_ms) {
    struct broker *b = ctx;
    struct engine_time time = {now_ms, loop_wall_ms(b->loop)};
    if (b->draining && nobody_left(b)) b->ending = true;
    if (b->ending) {
        workers_end(b->workers);
        engine_flush(b->engine);
    }
    engine_set_room(b->engine, store_room(b->store) == STORE_ROOM_OK);
    struct engine_turn *turn = engine_end_turn(b->engine, time);
    if (turn != NULL && store_submit(b->store, &turn->batch) != 0) storage_failed(b);
    log_blocked(b);
    uint64_t wanted_ms = jobs_on_turn(b->jobs, now_ms); /* its answers become frames and bodies */
    workers_on_turn(b->workers);
    wanted_ms = sooner(wanted_ms, admin_on_turn(b->admin, now_ms));
    wanted_ms = sooner(wanted_ms, webhooks_on_turn(b->webhooks, now_ms));
    wanted_ms = sooner(wanted_ms, access_log_on_turn(b->access_log, now_ms));
    uint64_t deadline_ms = engine_next_deadline(b->engine, time);
    store_end_reads(b->store);
    if (b->ending) {
        loop_timer_stop(&b->drain_timer);
        loop_stop(b->loop);
    }
    return sooner(deadline_ms, wanted_ms);
}

static void on_drain_over(void *ctx) {
    struct broker *b = ctx;
    b->ending = true;
}

static void reload(struct broker *b) {
    char error[512];
    if (b->tls == NULL) {
        log_info("SIGHUP: there is no certificate to read again");
    } else if (tls_server_reload(b->tls, error, sizeof error) != 0) {
        log_error("SIGHUP: the certificates stay as they were: %s", error);
    } else {
        log_info("SIGHUP: new connections use the certificates as they are now");
    }
}

static void on_signal(void *ctx, int signum) {
    struct broker *b = ctx;
    if (signum == SIGHUP) {
        reload(b);
        return;
    }
    if (b->draining) {
        b->ending = true;
        return;
    }
    log_info("signal %d: stopping; a second one stops at once", signum);
    b->draining = true;
    http_server_drain(b->http);
    jobs_drain(b->jobs);
    admin_drain(b->admin);
    webhooks_drain(b->webhooks);
    workers_drain(b->workers, b->drain_ms);
    b->drain_timer = loop_timer_start(b->loop, b->drain_ms, 0, on_drain_over, b);
}

/* ---- HTTP requests to their rooms ---- */

static bool on_head(void *ctx, const struct http_request *head, struct http_refusal *refusal) {
    struct broker *b = ctx;
    if (slice_starts_with(head->path, "/in/")) return ingest_on_head(b->ingest, head, refusal);
    return admin_on_head(b->admin, head, refusal);
}

static void on_request(void *ctx, const struct http_request *request) {
    struct broker *b = ctx;
    if (slice_starts_with(request->path, "/in/")) ingest_on_request(b->ingest, request);
    else admin_on_request(b->admin, request);
}

static void on_refused(void *ctx, const struct http_request *request,
                       const struct http_refusal *refusal) {
    struct broker *b = ctx;
    if (slice_starts_with(request->path, "/in/")) ingest_on_refused(b->ingest, request, refusal);
    else admin_on_refused(b->admin, request, refusal);
}

static void on_gone(void *ctx, uint64_t handle) {
    struct broker *b = ctx;
    admin_on_gone(b->admin, handle);
}

static void on_half_closed(void *ctx, uint64_t handle) {
    struct broker *b = ctx;
    admin_on_half_closed(b->admin, handle);
}

static size_t count_sessions(void *ctx) {
    struct broker *b = ctx;
    return workers_sessions(b->workers);
}

/* ---- opening and closing ---- */

/* The address as bound: the host that was asked for with the port that is in use. */
static void bound_address(const char *asked, uint16_t port, char *out, size_t size) {
    const char *colon = strrchr(asked, ':');
    int host_len = colon == NULL ? 0 : (int)(colon - asked);
    snprintf(out, size, "%.*s:%u", host_len, asked, port);
}

static int open_store(struct broker *b, const struct config *c, char *error, size_t size) {
    struct lmdb_options options = {
        .directory = c->data,
        .map_bytes = c->max_store_bytes,
        .headroom_bytes = LMDB_HEADROOM_BYTES_DEFAULT,
    };
    int err = lmdb_store_open(&b->store, &options, error, size);
    if (err != 0) return err;
    b->store->on_durable = on_durable;
    b->store->on_durable_ctx = b;
    struct engine_options engine_options = {
        .seed = loop_seed(),
        .dedupe_ids = (uint32_t)c->dedupe_ids,
        .restart_grace_ms = (uint32_t)c->restart_grace_ms,
        .jobs_room = ROOM_JOBS,
    };
    struct engine_time time = {loop_now_ms(b->loop), loop_wall_ms(b->loop)};
    return engine_open(&b->engine, b->store, &engine_options, time, error, size);
}

static int open_tls(struct broker *b, const struct config *c, char *error, size_t size) {
    struct tls_options options = {
        .certs = c->tls_cert,
        .keys = c->tls_key,
        .client_ca = c->tls_client_ca,
        .client_optional = strcmp(c->tls_client, "optional") == 0,
    };
    if (c->tls_cert[0] == '\0') return 0;
    return tls_server_open(&b->tls, &options, error, size);
}

/* A key of a project that there is not would speak for nobody, or some day for somebody else. */
static int check_keys(const struct broker *b, char *error, size_t size) {
    for (const struct key *k = auth_next(b->auth, 0); k != NULL;
         k = auth_next(b->auth, k->number)) {
        if (projects_get(b->projects, k->project) != NULL) continue;
        snprintf(error, size, "the stored key \"%s\" is of project %u, which there is not", k->id,
                 k->project);
        return ERR_STORE;
    }
    return 0;
}

static int open_auth(struct broker *b, char *error, size_t size) {
    b->auth = auth_new(b->engine, ROOM_AUTH);
    b->projects = projects_new(b->engine);
    int err = auth_load(b->auth, error, size);
    if (err == 0) err = projects_load(b->projects, error, size);
    if (err == 0) err = check_keys(b, error, size);
    store_end_reads(b->store);
    return err;
}

/* Only this machine reaches it; or it is no address, which is refused when it is opened. */
static bool is_local(const char *address) {
    struct sockaddr_storage a;
    char error[256];
    return address_parse(address, &a, error, sizeof error) != 0 || peer_is_loopback(&a);
}

/* A network sees what is not TLS. */
static void warn_clear(const struct config *c) {
    bool tls = c->tls_cert[0] != '\0';
    if (!is_local(c->http) && !(tls && c->tls_http != 0)) {
        log_warn(
            "--http %s is plain HTTP: keys and webhooks cross the network in clear; %s, or let "
            "only "
            "a proxy that speaks TLS reach it",
            c->http, tls ? "leave out --tls-http no" : "give it --tls-cert and --tls-key");
    }
    if (!is_local(c->workers) && !(tls && c->tls_workers != 0)) {
        log_warn("--workers %s is without TLS: events cross the network in clear (keys do not); %s",
                 c->workers,
                 tls ? "leave out --tls-workers no" : "give it --tls-cert and --tls-key");
    }
}

/* Who reaches a broker without keys may do everything. */
static int check_exposure(const struct broker *b, const struct config *c, char *error,
                          size_t size) {
    const char *exposed = config_exposed(c);
    bool keys = auth_required(b->auth);
    if (exposed != NULL && !keys && c->insecure == 0) {
        snprintf(error, size,
                 "%s is not a loopback address, and there is no key: anyone who reaches it could "
                 "read and publish. Make a key first (bellhopd --data %s --make-key admin), or say "
                 "--insecure yes",
                 exposed, c->data);
        return ERR_UNAUTHENTICATED;
    }
    if (exposed != NULL && !keys) {
        log_warn("%s: there is no key, and --insecure: anyone who reaches it may do everything",
                 exposed);
    } else if (!keys) {
        log_info(
            "there is no key: whoever is on this machine may do everything. The first one, from "
            "which on keys are asked for, is made with: bellhop key create NAME --scope admin");
    }
    warn_clear(c);
    return 0;
}

static int open_webhooks(struct broker *b, const struct config *c, char *error, size_t size) {
    struct webhooks_options options = {
        .engine = b->engine,
        .projects = b->projects,
        .loop = b->loop,
        .room = ROOM_WEBHOOKS,
        .allow = c->webhook_allow,
        .https_only = c->webhook_https_only != 0,
        .ca_file = c->webhook_ca,
        .key_file = c->webhook_key,
        .alg = strcmp(c->webhook_signature, "jwt") == 0 ? SIGNING_RS256 : SIGNING_ED25519,
        .audience = c->webhook_audience,
        .timeout_ms = c->webhook_timeout_ms,
        .max_age_ms = c->webhook_max_age_ms,
        .backoff_min_ms = c->webhook_backoff_min_ms,
        .backoff_max_ms = c->webhook_backoff_max_ms,
        .disable_after_ms = c->webhook_disable_after_ms,
    };
    return webhooks_open(&b->webhooks, &options, error, size);
}

static enum access_what access_what(const char *name) {
    if (strcmp(name, "all") == 0) return ACCESS_ALL;
    return strcmp(name, "none") == 0 ? ACCESS_NONE : ACCESS_REFUSED;
}

static int open_rooms(struct broker *b, const struct config *c, char *error, size_t size) {
    b->access_log = access_log_new(access_what(c->access_log));
    struct ingest_options ingest_options = {
        .engine = b->engine,
        .projects = b->projects,
        .loop = b->loop,
        .http = &b->http,
        .room = ROOM_INGEST,
        .log = b->access_log,
    };
    int err = ingest_open(&b->ingest, &ingest_options, error, size);
    if (err != 0) return err;
    err = open_webhooks(b, c, error, size);
    if (err != 0) return err;
    ingest_use_client(b->ingest, webhooks_client(b->webhooks));
    b->jobs = jobs_open(b->engine);
    uint16_t http_port, workers_port;
    struct workers_options workers_options = {
        .engine = b->engine,
        .auth = b->auth,
        .loop = b->loop,
        .room = ROOM_WORKERS,
        .jobs = b->jobs,
        .frame_max_bytes = c->max_body_bytes + LIMIT_FRAME_OVERHEAD_BYTES,
        .tls = c->tls_workers != 0 ? b->tls : NULL,
    };
    err = workers_open(&b->workers, &workers_options, c->workers, &workers_port, error, size);
    if (err != 0) return err;
    struct http_server_options http_options = {
        .body_max_bytes = c->max_body_bytes,
        .body_memory_bytes = c->max_body_memory_bytes,
        .on_head = on_head,
        .on_request = on_request,
        .on_gone = on_gone,
        .on_half_closed = on_half_closed,
        .on_refused = on_refused,
        .connections_per_ip = c->max_per_ip,
        .tls = c->tls_http != 0 ? b->tls : NULL,
        .ctx = b,
    };
    err = http_server_open(b->loop, c->http, &http_options, &b->http, &http_port, error, size);
    if (err != 0) return err;
    char http_address[300], workers_address[300];
    bound_address(c->http, http_port, http_address, sizeof http_address);
    bound_address(c->workers, workers_port, workers_address, sizeof workers_address);
    struct admin_options admin_options = {
        .engine = b->engine,
        .auth = b->auth,
        .projects = b->projects,
        .store = b->store,
        .loop = b->loop,
        .http = &b->http,
        .ingest = b->ingest,
        .webhooks = b->webhooks,
        .jobs = b->jobs,
        .room = ROOM_ADMIN,
        .http_address = http_address,
        .http_tls = http_options.tls != NULL,
        .http_local = is_local(c->http),
        .workers_address = workers_address,
        .workers_port = workers_port,
        .workers_tls = workers_options.tls != NULL,
        .workers_count = count_sessions,
        .workers_ctx = b,
        .log = b->access_log,
        .body_max_bytes = c->max_body_bytes,
        .retention =
            {
                .max_age_ms = c->retain_age_ms,
                .max_bytes = c->retain_bytes,
                .dead_max_age_ms = c->retain_dead_ms,
            },
    };
    err = admin_open(&b->admin, &admin_options);
    if (err != 0) {
        snprintf(error, size, "%s: a stored setting cannot be read; the log says which", c->data);
        return err;
    }
    /* Whoever reads "ready" may signal at once. */
    loop_set_turn(b->loop, on_turn, b);
    loop_set_signals(b->loop, on_signal, b);
    printf("bellhopd: %s on %s\nbellhopd: workers%s on %s\nbellhopd: ready\n",
           http_options.tls != NULL ? "https" : "http", http_address,
           workers_options.tls != NULL ? " (TLS)" : "", workers_address);
    fflush(stdout);
    return 0;
}

static void close_all(struct broker *b) {
    if (b->admin != NULL) admin_close(&b->admin);
    if (b->http != NULL) http_server_close(&b->http);
    if (b->workers != NULL) workers_close(&b->workers);
    if (b->jobs != NULL) jobs_close(&b->jobs);
    if (b->ingest != NULL) ingest_use_client(b->ingest, NULL); /* it is the webhooks room's */
    if (b->webhooks != NULL) webhooks_close(&b->webhooks);
    if (b->ingest != NULL) ingest_close(&b->ingest);
    projects_free(&b->projects);
    auth_free(&b->auth);
    if (b->engine != NULL) engine_close(&b->engine);
    if (b->store != NULL) store_close(b->store);
    loop_close(&b->loop);
    tls_server_close(&b->tls);
    access_log_free(&b->access_log);
}

/* Every connection is a file: asks for as many as the system lets this process have. */
static void raise_open_files(void) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0) log_warn("the limit of open files stays as it is");
}

/* Offline: the lock of the store tells whether a broker runs. */
static int make_key(struct broker *b, const struct config *c, char *error, size_t size) {
    struct key asked = {.project = PROJECT_DEFAULT, .scopes = SCOPE_ADMIN};
    char text[KEY_TEXT_BYTES + 1];
    struct slice name = slice_str(c->make_key);
    if (json_utf8_error(name) != name.len || !slice_to_cstr(name, asked.name, sizeof asked.name)) {
        snprintf(error, size, "--make-key: want a name of at most %d bytes, in UTF-8",
                 LIMIT_KEY_NAME_BYTES);
        return ERR_INVALID_REQUEST;
    }
    int err = open_store(b, c, error, size);
    if (err == 0) err = open_auth(b, error, size);
    if (err != 0) return err;
    struct engine_time time = {loop_now_ms(b->loop), loop_wall_ms(b->loop)};
    const struct key *k =
        auth_create(b->auth, time, (struct route){.room = ROOM_AUTH}, &asked, text);
    if (k == NULL) {
        snprintf(error, size, "there are %d keys already", LIMIT_KEYS);
        return ERR_LIMIT_EXCEEDED;
    }
    struct engine_turn *turn = engine_end_turn(b->engine, time);
    CHECK(turn != NULL);
    if (store_submit(b->store, &turn->batch) != 0) storage_failed(b);
    store_end_reads(b->store);
    fprintf(stderr, "bellhopd: made key %s for everything; it is shown this once:\n", k->id);
    puts(text);
    explicit_bzero(text, sizeof text);
    return 0;
}

static int open_all(struct broker *b, const struct config *c, char *error, size_t size) {
    int err = open_tls(b, c, error, size);
    if (err == 0) err = open_store(b, c, error, size);
    if (err == 0) err = open_auth(b, error, size);
    if (err == 0) err = check_exposure(b, c, error, size);
    if (err == 0) err = open_rooms(b, c, error, size);
    return err;
}

int broker_run(const struct config *config) {
    struct broker b = {.drain_ms = config->drain_ms};
    char error[512] = "out of memory";
    raise_open_files();
    if (loop_open(&b.loop) != 0) {
        fputs(
            "bellhopd: cannot make an event loop: is the limit of open files (ulimit -n) too "
            "low?\n",
            stderr);
        return 1;
    }
    bool serves = config->make_key[0] == '\0';
    int err = serves ? open_all(&b, config, error, sizeof error)
                     : make_key(&b, config, error, sizeof error);
    if (err != 0) fprintf(stderr, "bellhopd: %s\n", error);
    if (err != 0 || !serves) {
        if (b.workers != NULL) workers_end(b.workers);
        loop_stop(b.loop); /* what was opened closes in an empty run */
    }
    loop_run(b.loop);
    if (err == 0 && serves) log_info("stopped");
    close_all(&b);
    return err == 0 ? 0 : 1;
}
