/* work: one program run per event of a subscription.
 *
 * The happy path: libbellhop hands an event over; a child is started with the body on its stdin; it
 * exits 0; the event is acknowledged; the broker confirms; one line is printed; the next event.
 *
 * What fails: the program ends otherwise (65 rejects, the rest is a nack with its last words); it
 * cannot be started (nack, and the worker stops with 69); the subscription is gone (the worker
 * finishes what runs and stops with 1); the connection is lost (libbellhop connects again and
 * claims what runs; an ack of which nobody can say any more whether it was taken is shown as
 * unconfirmed, and the event may come once more).
 *
 * Stopping, by a signal or by --count: events that still arrive are held, not settled, because a
 * released event would come right back. When the last child has ended the client is stopped and
 * they are released. A second signal kills the children; their events are released too: the event
 * did nothing wrong. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "base/list.h"
#include "clients/c/bellhop.h"
#include "clients/cli/api.h"
#include "clients/cli/commands.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"
#include "clients/cli/work_child.h"
#include "proto/limits.h"

#define REJECT_STATUS   65
#define CONCURRENCY_MAX 1024
#define EVENT_VARIABLES 7

extern char **environ;

enum work_state { WORK_TAKING, WORK_FINISHING, WORK_KILLING, WORK_STOPPED };

struct work {
    struct cli *cli;
    const char *subscription;
    char **program;
    bool quiet;
    uv_loop_t loop;
    uv_signal_t signals[3];
    struct bellhop *client;
    enum work_state state;
    int exit_code;
    uint32_t concurrency, window;
    uint64_t lease_ms, resume_ms; /* as bellhop_open and bellhop_subscribe take them */
    uint64_t count;               /* settled events after which to stop; UINT64_MAX: none */
    uint64_t claimed;             /* events running, waiting for their confirmation, or settled */
    uint64_t settled;
    size_t running;   /* jobs that are not over, also those that wait for the confirmation */
    struct list jobs; /* with a child */
    struct bellhop_event *held[CONCURRENCY_MAX];
    size_t held_count;
    char **plain_env; /* the environment without the event's variables */
    size_t plain_env_count;
    char *lost; /* last state that was not "connected", or NULL */
};

/* One event in hand; what is printed about it is copied, for the event is gone when settled. */
struct job {
    struct list node;
    struct work *w;
    struct bellhop_event *event;
    struct child *child;
    uint64_t seq, duration_ms;
    uint32_t attempt;
    char *type, *id;
};

static const char *const variables[EVENT_VARIABLES] = {
    "BELLHOP_ID",      "BELLHOP_TYPE",   "BELLHOP_SEQ",     "BELLHOP_SUBJECT",
    "BELLHOP_ATTEMPT", "BELLHOP_SOURCE", "BELLHOP_METADATA"};

static bool is_event_variable(const char *entry) {
    for (size_t i = 0; i < EVENT_VARIABLES; i++) {
        size_t len = strlen(variables[i]);
        if (strncmp(entry, variables[i], len) == 0 && entry[len] == '=') return true;
    }
    return false;
}

static void take_environment(struct work *w) {
    size_t count = 0;
    while (environ[count] != NULL) count++;
    w->plain_env = mem_zalloc((count + 1) * sizeof(*w->plain_env));
    for (size_t i = 0; i < count; i++) {
        if (!is_event_variable(environ[i])) w->plain_env[w->plain_env_count++] = environ[i];
    }
}

/* The environment of one child; the caller frees the first EVENT_VARIABLES entries and the array.
 */
static char **make_environment(const struct work *w, const struct bellhop_info *info) {
    char **env = mem_zalloc((w->plain_env_count + EVENT_VARIABLES + 1) * sizeof(*env));
    env[0] = text_printf("%s=%s", variables[0], info->id);
    env[1] = text_printf("%s=%s", variables[1], info->type);
    env[2] = text_printf("%s=%llu", variables[2], (unsigned long long)info->seq);
    env[3] = text_printf("%s=%s", variables[3], info->subject);
    env[4] = text_printf("%s=%u", variables[4], info->attempt);
    env[5] = text_printf("%s=%s", variables[5], info->source);
    env[6] = text_printf("%s=%s", variables[6], info->metadata);
    memcpy(env + EVENT_VARIABLES, w->plain_env, w->plain_env_count * sizeof(*env));
    return env;
}

static void print_json_text(const char *text) {
    struct buf b;
    buf_init(&b, 64 * 1024);
    CHECK(buf_append_json_string(&b, slice_str(text)));
    fwrite(b.data, 1, b.len, stdout);
    buf_free(&b);
}

static void print_verdict(const struct job *job, const char *verdict, const char *error) {
    const struct work *w = job->w;
    if (w->quiet) return;
    if (w->cli->json) {
        printf("{\"seq\":%llu,\"type\":", (unsigned long long)job->seq);
        print_json_text(job->type);
        printf(",\"id\":");
        print_json_text(job->id);
        printf(",\"attempt\":%u,\"verdict\":\"%s\",\"duration_ms\":%llu", job->attempt, verdict,
               (unsigned long long)job->duration_ms);
        if (error[0] != '\0') {
            printf(",\"error\":");
            print_json_text(error);
        }
        printf("}\n");
    } else {
        bool good = strcmp(verdict, "ack") == 0;
        char *took = text_duration(job->duration_ms);
        printf("seq %llu  %s%s%s  attempt %u  %s%s%s  %s%s%s\n", (unsigned long long)job->seq,
               job->type, job->id[0] != '\0' ? "  id " : "", job->id, job->attempt,
               good ? colour_good(w->cli) : colour_bad(w->cli), verdict, colour_off(w->cli), took,
               error[0] != '\0' ? "  " : "", error);
        free(took);
    }
    fflush(stdout);
}

/* When nothing runs any more and nothing more is wanted: say goodbye. Who was told twice to stop
 * does not wait for confirmations either. */
static void stop_when_idle(struct work *w) {
    bool over = w->state != WORK_TAKING || w->settled >= w->count;
    bool idle = w->state == WORK_KILLING ? list_empty(&w->jobs) : w->running == 0;
    if (!over || !idle || w->state == WORK_STOPPED) return;
    w->state = WORK_STOPPED;
    bellhop_stop(w->client);
    for (size_t i = 0; i < w->held_count; i++) bellhop_release(w->held[i]);
    w->held_count = 0;
}

static void finish(struct work *w, int exit_code) {
    if (w->exit_code == CLI_OK) w->exit_code = exit_code;
    if (w->state == WORK_TAKING) w->state = WORK_FINISHING;
    stop_when_idle(w);
}

static void begin_job(struct work *w, struct bellhop_event *event);

/* The job is over: `counts` says whether it was settled. */
static void end_job(struct job *job, bool counts) {
    struct work *w = job->w;
    w->running--;
    if (counts) {
        w->settled++;
    } else {
        w->claimed--;
    }
    free(job->type);
    free(job->id);
    free(job);
    stop_when_idle(w);
    while (w->state == WORK_TAKING && w->held_count > 0 && w->claimed < w->count) {
        struct bellhop_event *first = w->held[0];
        memmove(w->held, w->held + 1, --w->held_count * sizeof(w->held[0]));
        begin_job(w, first);
    }
}

static void on_acked(void *ctx, int error, bool stale) {
    struct job *job = ctx;
    if (error != 0) {
        print_verdict(job, "unconfirmed", bellhop_strerror(error));
        end_job(job, false);
        return;
    }
    print_verdict(job, stale ? "stale" : "ack",
                  stale ? "the lease had run out and the event is with somebody else" : "");
    end_job(job, true);
}

/* What went wrong, in parts for the broker and as one line for the operator. */
struct verdict_error {
    char *type, *message, *detail; /* "exit status 3", the last line, the last lines */
    char *text;                    /* "exit status 3: the last line" */
};

static void error_free(struct verdict_error *e) {
    free(e->type);
    free(e->message);
    free(e->detail);
    free(e->text);
}

/* Takes the texts; cleans them and cuts them to what the broker keeps. */
static struct verdict_error error_make(char *type, char *message, char *detail) {
    struct verdict_error e = {.type = type, .message = message, .detail = detail};
    text_clean(e.type);
    text_clean(e.message);
    text_clean_lines(e.detail);
    text_cut_bytes(e.type, LIMIT_ERROR_TYPE_BYTES);
    text_cut_bytes(e.message, LIMIT_ERROR_MESSAGE_BYTES);
    e.text = text_printf("%s%s%s", e.type, e.message[0] != '\0' ? ": " : "", e.message);
    return e;
}

static struct verdict_error describe(const struct child_exit *end) {
    return error_make(end->signal != 0
                          ? text_printf("signal %d (%s)", end->signal, strsignal(end->signal))
                          : text_printf("exit status %lld", (long long)end->status),
                      mem_strdup(end->last_line), mem_strdup(end->last_lines));
}

static struct bellhop_failure failure_of(const struct verdict_error *e) {
    return (struct bellhop_failure){.type = e->type, .message = e->message, .detail = e->detail};
}

static void on_child_end(void *ctx, const struct child_exit *end) {
    struct job *job = ctx;
    struct work *w = job->w;
    list_unlink(&job->node);
    job->duration_ms = end->duration_ms;
    if (end->signal == 0 && end->status == 0) {
        bellhop_ack_confirm(job->event, on_acked, job);
        return;
    }
    struct verdict_error error = describe(end);
    struct bellhop_failure failure = failure_of(&error);
    bool killed = w->state == WORK_KILLING && end->signal != 0;
    if (killed) {
        bellhop_release(job->event);
        print_verdict(job, "release", "stopped by the operator");
    } else if (end->signal == 0 && end->status == REJECT_STATUS) {
        bellhop_reject(job->event, &failure);
        print_verdict(job, "reject", error.text);
    } else {
        bellhop_nack(job->event, BELLHOP_DELAY_POLICY, &failure);
        print_verdict(job, "nack", error.text);
    }
    error_free(&error);
    end_job(job, !killed);
}

static void begin_job(struct work *w, struct bellhop_event *event) {
    const struct bellhop_info *info = bellhop_event_info(event);
    struct job *job = mem_zalloc(sizeof(*job));
    job->w = w;
    job->event = event;
    job->seq = info->seq;
    job->attempt = info->attempt;
    job->type = mem_strdup(info->type);
    job->id = mem_strdup(info->id);
    list_init(&job->node);
    w->claimed++;
    w->running++;
    char **env = make_environment(w, info);
    text_clean(job->type);
    text_clean(job->id);
    int error = child_start(&job->child, &w->loop, w->program, env,
                            slice_of(info->body, info->body_len), on_child_end, job);
    for (size_t i = 0; i < EVENT_VARIABLES; i++) free(env[i]);
    free(env);
    if (error == 0) {
        list_push_back(&w->jobs, &job->node);
        return;
    }
    struct verdict_error why = error_make(text_printf("cannot start %s", w->program[0]),
                                          mem_strdup(uv_strerror(error)), mem_strdup(""));
    struct bellhop_failure failure = failure_of(&why);
    cli_complain("%s", why.text);
    bellhop_nack(event, BELLHOP_DELAY_POLICY, &failure);
    print_verdict(job, "nack", why.text);
    error_free(&why);
    if (w->exit_code == CLI_OK) w->exit_code = CLI_UNAVAILABLE;
    if (w->state == WORK_TAKING) w->state = WORK_FINISHING;
    end_job(job, true);
}

static void on_event(void *ctx, struct bellhop_event *event) {
    struct work *w = ctx;
    if (w->state == WORK_TAKING && w->claimed < w->count) {
        begin_job(w, event);
    } else if (w->state != WORK_STOPPED && w->held_count < w->concurrency) {
        w->held[w->held_count++] = event;
    } else {
        bellhop_release(event);
    }
}

static void on_ended(void *ctx, int error, const char *message) {
    struct work *w = ctx;
    cli_complain("%s", message != NULL && message[0] != '\0' ? message : bellhop_strerror(error));
    finish(w, CLI_REFUSED);
}

static void on_state(void *ctx, const char *state) {
    struct work *w = ctx;
    if (strcmp(state, "connected") == 0) {
        if (w->lost != NULL && !w->quiet) cli_complain("connected again");
        free(w->lost);
        w->lost = NULL;
        return;
    }
    if (w->state == WORK_STOPPED || (w->lost != NULL && strcmp(w->lost, state) == 0)) return;
    free(w->lost);
    w->lost = mem_strdup(state);
    if (strncmp(state, "refused", 7) == 0 || strncmp(state, "stopped", 7) == 0) {
        cli_complain("%s", state);
        finish(w, CLI_REFUSED);
    } else if (strncmp(state, "quiet", 5) == 0) {
        if (!w->quiet) cli_complain("the broker is about to stop (%s)", state);
    } else if (!w->quiet) {
        cli_complain("%s; trying again", state);
    }
}

static void on_signal(uv_signal_t *handle, int number) {
    struct work *w = handle->data;
    if (w->state == WORK_TAKING) {
        if (w->running > 0 && !w->quiet) {
            cli_complain("finishing what runs; once more to kill it");
        }
        finish(w, CLI_OK);
        return;
    }
    if (w->state != WORK_FINISHING) return;
    w->state = WORK_KILLING;
    w->exit_code = 128 + number;
    LIST_FOR(node, next, &w->jobs) {
        child_kill(CONTAINER_OF(node, struct job, node)->child, SIGKILL);
    }
    stop_when_idle(w);
}

static void catch_signals(struct work *w) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    signal(SIGPIPE, SIG_IGN); /* a program that does not read its stdin */
    for (size_t i = 0; i < 3; i++) {
        CHECK(uv_signal_init(&w->loop, &w->signals[i]) == 0);
        CHECK(uv_signal_start(&w->signals[i], on_signal, numbers[i]) == 0);
        w->signals[i].data = w;
        uv_unref((uv_handle_t *)&w->signals[i]);
    }
}

static int open_client(struct work *w, const char *url) {
    struct bellhop_options options = {.loop = &w->loop,
                                      .name = "bellhop work",
                                      .resume_ms = w->resume_ms,
                                      .on_state = on_state,
                                      .ctx = w};
    int code = api_workers_open(w->cli, url, &options, &w->client);
    if (code != CLI_OK) return code;
    struct bellhop_sub_options sub = {.handler = on_event,
                                      .on_ended = on_ended,
                                      .ctx = w,
                                      .concurrency = w->concurrency,
                                      .window = w->window,
                                      .lease_ms = w->lease_ms};
    if (bellhop_subscribe(w->client, w->subscription, &sub) == NULL) {
        cli_complain("%s", bellhop_error(w->client));
        return CLI_USAGE;
    }
    return 0;
}

static int run(struct work *w, const char *url) {
    CHECK(uv_loop_init(&w->loop) == 0);
    catch_signals(w);
    int error = open_client(w, url);
    if (error != 0) {
        w->state = WORK_STOPPED;
        w->exit_code = error;
    } else {
        uv_run(&w->loop, UV_RUN_DEFAULT);
    }
    if (w->client != NULL) bellhop_close(&w->client);
    for (size_t i = 0; i < 3; i++) uv_close((uv_handle_t *)&w->signals[i], NULL);
    uv_run(&w->loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&w->loop) == 0);
    free(w->lost);
    free(w->plain_env);
    return w->exit_code;
}

/* --lease and --resume. */
static int read_times(struct work *w, const struct args *args) {
    const char *lease = args_get(args, "--lease"), *resume = args_get(args, "--resume");
    if (lease != NULL) {
        int error = value_duration_ms("--lease", lease, &w->lease_ms);
        if (error != 0) return error;
        if (w->lease_ms < LIMIT_LEASE_MS_MIN || w->lease_ms > LIMIT_LEASE_MS_MAX) {
            cli_complain("--lease: '%s' is not from 100ms to 12h; it is renewed while CMD runs",
                         lease);
            return CLI_USAGE;
        }
    }
    if (resume != NULL) {
        int error = value_duration_ms("--resume", resume, &w->resume_ms);
        if (error != 0) return error;
        if (w->resume_ms > LIMIT_RESUME_MS) {
            cli_complain("--resume: '%s' is more than 10m; 0 gives events back at once", resume);
            return CLI_USAGE;
        }
        if (w->resume_ms == 0) w->resume_ms = BELLHOP_RESUME_OFF;
    }
    return 0;
}

/* --concurrency, --count and --window. */
static int read_counts(struct work *w, const struct args *args) {
    const char *concurrency = args_get(args, "--concurrency"), *count = args_get(args, "--count");
    const char *window_text = args_get(args, "--window");
    uint64_t at_once = 1, window = 0;
    int error = 0;
    if (concurrency != NULL) {
        error = value_u64("--concurrency", concurrency, 1, CONCURRENCY_MAX, &at_once);
    }
    if (error == 0 && count != NULL) {
        error = value_u64("--count", count, 1, UINT64_MAX - 1, &w->count);
    }
    if (error == 0 && window_text != NULL) {
        error = value_u64("--window", window_text, 1, LIMIT_WINDOW_EVENTS, &window);
    }
    /* With an end in sight nothing is fetched that would only be given back. */
    if (window == 0 && w->count < 2 * at_once) window = w->count > at_once ? w->count : at_once;
    w->concurrency = (uint32_t)at_once;
    w->window = (uint32_t)window;
    return error;
}

/* A name with a typing error must not cost events their fails, one with each start of a worker. */
static int check_program(const char *program) {
    int error = child_check(program);
    if (error == 0) return 0;
    cli_complain("cannot start %s: %s", program, uv_strerror(error));
    return CLI_UNAVAILABLE;
}

int cmd_work(struct cli *cli, const struct args *args) {
    struct work *w = mem_zalloc(sizeof(*w));
    w->cli = cli;
    w->subscription = args_word(args, 0);
    w->program = args->program;
    w->quiet = args_has(args, "--quiet");
    w->count = UINT64_MAX;
    list_init(&w->jobs);
    char *url = NULL;
    int error = value_name("subscription", w->subscription);
    if (error == 0) error = read_counts(w, args);
    if (error == 0) error = read_times(w, args);
    if (error == 0) error = check_program(w->program[0]);
    if (error == 0) error = api_workers_url(cli, &url);
    if (error != 0) goto out;
    take_environment(w);
    error = run(w, url);
out:
    free(url);
    free(w);
    return error;
}
