/* reopen.c: starts the broker's own recovery on data directories, one after another, and says what
 * it finds. The power loss tests give it rebuilt disks; a directory costs a few milliseconds.
 *
 *   reopen WALL_MS        reads requests from stdin, answers each with a line on stdout:
 *   digest DIR            "ok DIGEST": the store opens, and this is the sum of all its rows
 *   read DIR FILE         the same, and what a restarted broker knows and would deliver is in FILE
 *
 * or "bad TEXT": it does not open, does not fit together, or the process that looked has died. Each
 * request runs in a process of its own, because what is damaged may abort it.
 *
 * What a broker would deliver is not computed but tried: a worker with the largest window attaches
 * to every subscription, in a time in which everything is due, and acks what comes until nothing
 * comes any more. FILE has a line per fact (see say_*), in the order of the store; texts are hex.
 * WALL_MS is the time of the first turn, so that equal stores give equal files. */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/engine/engine.h"
#include "storage/record.h"

#define DIGEST_BYTES 16
#define IDLE_TURNS   500 /* turns without a delivery after which the rest is stuck */
#define STEP_MS      1000
#define MAP_BYTES    (8ULL << 30)

struct reopen {
    struct store *store;
    struct engine *engine;
    struct engine_time time;
    FILE *out;
    struct tag_range *acks; /* of the turn: one per delivery, beside whose it is */
    uint64_t *ack_attachments;
    size_t acks_count, acks_cap;
    size_t answered; /* PUBLISHED effects */
};

/* ---- saying ---- */

static void say_hex(FILE *out, struct slice s) {
    if (s.len == 0) fputs(" -", out);
    else fputc(' ', out);
    for (size_t i = 0; i < s.len; i++) fprintf(out, "%02x", s.data[i]);
}

static struct slice sum_of(struct slice s, uint8_t sum[EVP_MAX_MD_SIZE]) {
    unsigned len = 0;
    CHECK(EVP_Digest(s.data == NULL ? (const uint8_t *)"" : s.data, s.len, sum, &len, EVP_sha256(),
                     NULL) == 1);
    return slice_of(sum, DIGEST_BYTES);
}

static void say_sum(FILE *out, struct slice s) {
    uint8_t sum[EVP_MAX_MD_SIZE];
    say_hex(out, sum_of(s, sum));
}

static void say_u64(FILE *out, uint64_t n) {
    fprintf(out, " %llu", (unsigned long long)n);
}

/* journal SEQ DELIVER_AT SOURCE ID TYPE SUM */
static bool say_event(void *ctx, const struct event *e) {
    struct reopen *r = ctx;
    fputs("journal", r->out);
    say_u64(r->out, e->seq);
    say_u64(r->out, e->deliver_at_ms);
    say_hex(r->out, e->source);
    say_hex(r->out, e->id);
    say_hex(r->out, e->type);
    say_sum(r->out, e->body);
    fputc('\n', r->out);
    return true;
}

/* dead SUB SEQ CURSOR FAILS REASON SUM */
struct dead_scan {
    FILE *out;
    struct slice name;
};
static bool say_dead(void *ctx, const struct dead_letter *d) {
    struct dead_scan *scan = ctx;
    fprintf(scan->out, "dead %.*s", SLICE_ARG(scan->name));
    say_u64(scan->out, d->event.seq);
    say_u64(scan->out, d->cursor);
    say_u64(scan->out, d->fails);
    fprintf(scan->out, " %.*s", SLICE_ARG(d->reason));
    say_sum(scan->out, d->event.body);
    fputc('\n', scan->out);
    return true;
}

/* config KEY VALUE */
static void say_config(void *ctx, struct slice key, struct slice value) {
    struct reopen *r = ctx;
    fputs("config", r->out);
    say_hex(r->out, key);
    say_hex(r->out, value);
    fputc('\n', r->out);
}

/* sub NAME PAUSED LEASE_MS MAX_FAILS FILTER, and its dead letters */
static void say_subscriptions(struct reopen *r) {
    struct subscription_info s = {.name = {NULL, 0}};
    while (engine_subscription_next(r->engine, PROJECT_DEFAULT, s.name, &s)) {
        fprintf(r->out, "sub %.*s %d", SLICE_ARG(s.name), s.paused);
        say_u64(r->out, s.policy.lease_ms);
        say_u64(r->out, s.policy.max_fails);
        say_hex(r->out, s.policy.filter);
        fputc('\n', r->out);
        struct dead_scan scan = {r->out, s.name};
        CHECK(engine_dead_scan(r->engine, PROJECT_DEFAULT, s.name, 0, 0, say_dead, &scan));
    }
}

/* task ID KIND FINISHED SUB FROM TO */
static void say_tasks(struct reopen *r) {
    struct task_info t = {.id = 0};
    while (engine_task_next(r->engine, PROJECT_DEFAULT, t.id, &t)) {
        fprintf(r->out, "task %u %s %d %.*s", t.id, task_kind_name(t.kind), t.finished_at_ms != 0,
                SLICE_ARG(t.subscription));
        say_u64(r->out, t.from);
        say_u64(r->out, t.to);
        fputc('\n', r->out);
    }
}

/* ---- opening ---- */

/* The sum over every row of every table, as the store hands them out. */
static void say_digest(struct store *store, char out[2 * DIGEST_BYTES + 1]) {
    EVP_MD_CTX *sums = EVP_MD_CTX_new();
    uint8_t sum[EVP_MAX_MD_SIZE];
    unsigned len;
    CHECK(sums != NULL && EVP_DigestInit_ex(sums, EVP_sha256(), NULL) == 1);
    for (int table = 0; table < STORE_TABLES; table++) {
        struct store_iter it;
        store_seek(store, (enum store_table)table, slice_of(NULL, 0), &it);
        for (; it.valid; store_next(store, &it)) {
            uint64_t head[] = {(uint64_t)table, it.key.len, it.value.len};
            CHECK(EVP_DigestUpdate(sums, head, sizeof head) == 1);
            CHECK(EVP_DigestUpdate(sums, it.key.data, it.key.len) == 1);
            CHECK(EVP_DigestUpdate(sums, it.value.data, it.value.len) == 1);
        }
        store_iter_end(store, &it);
    }
    store_end_reads(store);
    CHECK(EVP_DigestFinal_ex(sums, sum, &len) == 1);
    EVP_MD_CTX_free(sums);
    for (int i = 0; i < DIGEST_BYTES; i++) snprintf(out + 2 * i, 3, "%02x", sum[i]);
}

/* The end of a request's process. Not exit, which would move the parent's place in its stdin. */
static _Noreturn void finish(void) {
    fflush(stdout);
    _exit(0);
}

static void on_durable(void *ctx, struct batch *batch);

static void open_store(struct reopen *r, const char *directory) {
    struct lmdb_options options = {
        .directory = directory, .map_bytes = MAP_BYTES, .headroom_bytes = 1 << 20};
    char error[512];
    if (lmdb_store_open(&r->store, &options, error, sizeof error) != 0) {
        printf("bad the store does not open: %s\n", error);
        finish();
    }
    r->store->on_durable = on_durable;
    r->store->on_durable_ctx = r;
}

static void open_engine(struct reopen *r) {
    struct engine_options options = {.seed = 1};
    char error[512];
    if (engine_open(&r->engine, r->store, &options, r->time, error, sizeof error) != 0) {
        printf("bad the engine does not open: %s\n", error);
        finish();
    }
    engine_check(r->engine);
}

/* ---- turns ---- */

/* deliver SUB SEQ LIVE|REPLAY|REDRIVE FAILS SUM */
static void take_delivery(struct reopen *r, const struct effect *f) {
    struct subscription_info s = {.name = {NULL, 0}};
    for (uint64_t i = 0; i < f->u.deliver.attachment; i++) {
        CHECK(engine_subscription_next(r->engine, PROJECT_DEFAULT, s.name, &s));
    }
    const char *how = f->u.deliver.replay ? "replay" : f->u.deliver.redrive ? "redrive" : "live";
    fprintf(r->out, "deliver %.*s", SLICE_ARG(s.name));
    say_u64(r->out, f->u.deliver.event.seq);
    fprintf(r->out, " %s %u", how, f->u.deliver.fails);
    say_sum(r->out, f->u.deliver.event.body);
    fputc('\n', r->out);
    if (r->acks_count == r->acks_cap) {
        r->acks_cap = r->acks_cap == 0 ? 1024 : 2 * r->acks_cap;
        r->acks = realloc(r->acks, r->acks_cap * sizeof *r->acks);
        r->ack_attachments = realloc(r->ack_attachments, r->acks_cap * sizeof *r->ack_attachments);
        CHECK(r->acks != NULL && r->ack_attachments != NULL);
    }
    r->acks[r->acks_count] = (struct tag_range){f->u.deliver.tag, f->u.deliver.tag};
    r->ack_attachments[r->acks_count++] = f->u.deliver.attachment;
}

/* again COUNT, or a line per event that would be taken in a second time: fresh SEQ */
static void take_published(struct reopen *r, const struct effect *f) {
    size_t again = 0;
    if (f->err != ERR_OK) fprintf(r->out, "fresh 0\n");
    for (size_t i = 0; f->err == ERR_OK && i < f->u.published.count; i++) {
        if (f->u.published.results[i].duplicate) again++;
        else fprintf(r->out, "fresh %llu\n", (unsigned long long)f->u.published.results[i].seq);
    }
    r->answered += again;
}

static void on_durable(void *ctx, struct batch *batch) {
    struct reopen *r = ctx;
    struct engine_turn *turn = CONTAINER_OF(batch, struct engine_turn, batch);
    engine_durable(r->engine, turn);
    for (size_t i = 0; i < turn->effects_count; i++) {
        const struct effect *f = &turn->effects[i];
        if (f->kind == EFFECT_DELIVER) take_delivery(r, f);
        else if (f->kind == EFFECT_PUBLISHED) take_published(r, f);
        else if (f->err != ERR_OK) fprintf(r->out, "refused %s\n", f->message);
    }
    engine_turn_done(r->engine, turn);
}

static void run_turn(struct reopen *r) {
    r->time.now_ms += STEP_MS;
    r->time.wall_ms += STEP_MS;
    engine_set_room(r->engine, true);
    struct engine_turn *turn = engine_end_turn(r->engine, r->time);
    if (turn != NULL && store_submit(r->store, &turn->batch) != 0) {
        printf("bad the store cannot be written: %s\n", r->store->error);
        finish();
    }
    store_end_reads(r->store);
}

/* ---- what a restarted broker does ---- */

static bool publish_again(void *ctx, const struct event *e) {
    struct reopen *r = ctx;
    struct event again = {.source = e->source, .id = e->id, .type = e->type};
    struct command c = {.kind = COMMAND_PUBLISH,
                        .project = PROJECT_DEFAULT,
                        .u.publish = {.events = &again, .count = 1}};
    if (e->id.len > 0) engine_step(r->engine, r->time, &c);
    return true;
}

static void attach_everywhere(struct reopen *r) {
    struct subscription_info s = {.name = {NULL, 0}};
    uint64_t attachment = 0;
    while (engine_subscription_next(r->engine, PROJECT_DEFAULT, s.name, &s)) {
        struct command resume = {.kind = COMMAND_SUBSCRIPTION_PAUSE,
                                 .project = PROJECT_DEFAULT,
                                 .u.pause = {.name = s.name}};
        struct command attach = {.kind = COMMAND_ATTACH,
                                 .project = PROJECT_DEFAULT,
                                 .u.attach = {.attachment = ++attachment,
                                              .name = s.name,
                                              .window_events = LIMIT_WINDOW_EVENTS,
                                              .window_bytes = LIMIT_WINDOW_BYTES}};
        if (s.paused) engine_step(r->engine, r->time, &resume);
        engine_step(r->engine, r->time, &attach);
    }
}

static void ack_all(struct reopen *r) {
    for (size_t i = 0; i < r->acks_count; i++) {
        struct command c = {
            .kind = COMMAND_ACK,
            .u.settle = {.attachment = r->ack_attachments[i], .ranges = &r->acks[i], .count = 1}};
        engine_step(r->engine, r->time, &c);
    }
    r->acks_count = 0;
}

static bool all_settled(struct reopen *r) {
    struct subscription_info s = {.name = {NULL, 0}};
    struct engine_stats stats;
    engine_stats(r->engine, &stats);
    while (engine_subscription_next(r->engine, PROJECT_DEFAULT, s.name, &s)) {
        uint64_t waiting = s.ready + s.leased + s.delayed + s.blocked;
        if (s.floor <= stats.last_seq || waiting > 0) return false;
    }
    return stats.tasks_running == 0;
}

static void drain(struct reopen *r) {
    attach_everywhere(r);
    for (int idle = 0; idle < IDLE_TURNS && (idle == 0 || !all_settled(r)); idle++) {
        run_turn(r);
        if (r->acks_count > 0) idle = 0;
        ack_all(r);
    }
    if (!all_settled(r)) fprintf(r->out, "stuck\n");
    engine_check(r->engine);
}

static void read_all(struct reopen *r, const char *file) {
    r->out = fopen(file, "w");
    if (r->out == NULL) {
        printf("bad cannot write %s\n", file);
        finish();
    }
    open_engine(r);
    struct engine_stats stats;
    engine_stats(r->engine, &stats);
    fprintf(r->out, "range %llu %llu\n", (unsigned long long)stats.first_seq,
            (unsigned long long)stats.last_seq);
    uint32_t scan = UINT32_MAX;
    engine_events_scan(r->engine, PROJECT_DEFAULT, 1, &scan, say_event, r);
    say_subscriptions(r);
    say_tasks(r);
    engine_config_scan(r->engine, slice_of(NULL, 0), say_config, r);
    scan = UINT32_MAX;
    engine_events_scan(r->engine, PROJECT_DEFAULT, 1, &scan, publish_again, r);
    run_turn(r);
    fprintf(r->out, "again %zu\n", r->answered);
    drain(r);
    engine_close(&r->engine);
    CHECK(fclose(r->out) == 0);
}

/* ---- requests ---- */

/* In a process of its own. */
static _Noreturn void answer(const char *verb, const char *directory, const char *file,
                             uint64_t wall_ms) {
    struct reopen r = {.time = {.now_ms = 1000, .wall_ms = wall_ms}};
    char digest[2 * DIGEST_BYTES + 1];
    log_set_level(LOG_ERROR);
    open_store(&r, directory);
    say_digest(r.store, digest);
    if (strcmp(verb, "read") == 0) read_all(&r, file);
    store_close(r.store);
    printf("ok %s\n", digest);
    finish();
}

static void serve(char *line, uint64_t wall_ms) {
    char *at = line, *verb = strsep(&at, " \n"), *directory = strsep(&at, " \n");
    char *file = strsep(&at, " \n");
    int status = 0;
    if (directory == NULL) {
        printf("bad request\n");
        return;
    }
    pid_t pid = fork();
    if (pid == 0) answer(verb, directory, file == NULL ? "" : file, wall_ms);
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        printf("bad cannot fork: %s\n", strerror(errno));
    } else if (WIFSIGNALED(status)) {
        printf("bad recovery died of signal %d\n", WTERMSIG(status));
    } else if (WEXITSTATUS(status) != 0) {
        printf("bad recovery ended with %d\n", WEXITSTATUS(status));
    }
}

int main(int argc, char **argv) {
    char line[8192];
    uint64_t wall_ms;
    if (argc != 2 || !slice_to_u64(slice_str(argv[1]), &wall_ms)) {
        fputs("usage: reopen WALL_MS, then requests on stdin\n", stderr);
        return 2;
    }
    while (fgets(line, sizeof line, stdin) != NULL) {
        serve(line, wall_ms);
        fflush(stdout);
    }
    return 0;
}
