/* listen: the events of a subscription to an HTTP server nearby, as webhooks.
 *
 * The happy path: a subscription is made (or one that exists is used), libbellhop hands an event
 * over, it is POSTed, a 2xx acknowledges it, one line is printed; at the end the subscription that
 * was made here is deleted.
 *
 * What fails: the server answers otherwise or not at all (a nack: the event comes again after the
 * backoff); the subscription is gone (it stops with 1); the connection to the broker is lost
 * (libbellhop connects again). A signal lets the requests that run end; the second one does not,
 * and their events are given back. */
#include <openssl/rand.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "clients/cli/commands.h"
#include "clients/cli/filter_args.h"
#include "clients/cli/forward.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/policy.h"
#include "clients/cli/value.h"

#define CONCURRENCY_MAX 64

enum listen_state { LISTEN_TAKING, LISTEN_FINISHING, LISTEN_KILLING, LISTEN_STOPPED };

struct listen {
    struct cli *cli;
    char *subscription;
    bool made; /* here: it is deleted at the end */
    const char *url;
    char secret_text[SIGNING_SECRET_BYTES]; /* made here; else "" */
    struct signing_secret secret;
    uv_loop_t loop;
    uv_signal_t signals[3];
    struct bellhop *client;
    struct bellhop_sub *sub;
    struct forward *forward;
    enum listen_state state;
    int exit_code;
    uint64_t concurrency, count, taken, settled; /* count: settled events after which to stop */
    size_t running;
    char *lost; /* last state that was not "connected", or NULL */
};

struct request {
    struct listen *l;
    struct bellhop_event *event;
};

static void print_member(const char *key, const char *text) {
    struct buf b;
    buf_init(&b, 64 * 1024);
    buf_append_json_string(&b, slice_str(text));
    printf(",\"%s\":%.*s", key, (int)b.len, (const char *)b.data);
    buf_free(&b);
}

static void print_result(const struct listen *l, const struct bellhop_info *info,
                         const char *verdict, const struct forward_result *result) {
    if (l->cli->json) {
        printf("{\"seq\":%llu", (unsigned long long)info->seq);
        print_member("type", info->type);
        printf(",\"attempt\":%u,\"status\":%ld,\"verdict\":\"%s\",\"duration_ms\":%llu",
               info->attempt, result->status, verdict, (unsigned long long)result->duration_ms);
        if (result->error[0] != '\0') print_member("error", result->error);
        printf("}\n");
    } else {
        bool good = strcmp(verdict, "ack") == 0;
        char *took = text_duration(result->duration_ms), *type = mem_strdup(info->type);
        char *status = text_printf("%ld", result->status);
        text_clean(type);
        printf("seq %llu  %s  attempt %u  %s%s%s  %s%s%s\n", (unsigned long long)info->seq, type,
               info->attempt, good ? colour_good(l->cli) : colour_bad(l->cli),
               good ? status : verdict, colour_off(l->cli), took,
               result->error[0] != '\0' ? "  " : "", result->error);
        free(took);
        free(type);
        free(status);
    }
    fflush(stdout);
}

static void stop_when_idle(struct listen *l) {
    bool over = l->state != LISTEN_TAKING || l->settled >= l->count;
    if (!over || l->running > 0 || l->state == LISTEN_STOPPED) return;
    l->state = LISTEN_STOPPED;
    bellhop_stop(l->client);
}

static void finish(struct listen *l, int exit_code) {
    if (l->exit_code == CLI_OK) l->exit_code = exit_code;
    if (l->state == LISTEN_TAKING) l->state = LISTEN_FINISHING;
    bellhop_sub_pause(l->sub);
    stop_when_idle(l);
}

static void on_forwarded(void *ctx, const struct forward_result *result) {
    struct request *r = ctx;
    struct listen *l = r->l;
    const struct bellhop_info *info = bellhop_event_info(r->event);
    bool good = result->status >= 200 && result->status <= 299;
    print_result(l, info, good ? "ack" : result->stopped ? "release" : "nack", result);
    if (good) {
        bellhop_ack(r->event);
    } else if (result->stopped) {
        bellhop_release(r->event);
    } else {
        char *type = result->status == 0 ? mem_strdup("no answer")
                                         : text_printf("status %ld", result->status);
        bellhop_nack(r->event, BELLHOP_DELAY_POLICY,
                     &(struct bellhop_failure){.type = type, .message = result->error});
        free(type);
    }
    l->running--;
    l->settled++;
    free(r);
    stop_when_idle(l);
}

static void on_event(void *ctx, struct bellhop_event *event) {
    struct listen *l = ctx;
    struct request *r = mem_zalloc(sizeof(*r));
    r->l = l;
    r->event = event;
    l->taken++;
    l->running++;
    if (l->taken == l->count) bellhop_sub_pause(l->sub);
    forward_send(l->forward, bellhop_event_info(event), on_forwarded, r);
}

static void on_ended(void *ctx, int error, const char *message) {
    cli_complain("%s", message[0] != '\0' ? message : bellhop_strerror(error));
    finish(ctx, CLI_REFUSED);
}

static void on_state(void *ctx, const char *state) {
    struct listen *l = ctx;
    if (strcmp(state, "connected") == 0) {
        if (l->lost != NULL) cli_complain("connected again");
        free(l->lost);
        l->lost = NULL;
        return;
    }
    if (l->state == LISTEN_STOPPED || (l->lost != NULL && strcmp(l->lost, state) == 0)) return;
    free(l->lost);
    l->lost = mem_strdup(state);
    if (strncmp(state, "refused", 7) == 0 || strncmp(state, "stopped", 7) == 0) {
        cli_complain("%s", state);
        finish(l, CLI_REFUSED);
    } else if (strncmp(state, "quiet", 5) == 0) {
        cli_complain("the broker is about to stop (%s)", state);
    } else {
        cli_complain("%s; trying again", state);
    }
}

static void on_signal(uv_signal_t *handle, int number) {
    struct listen *l = handle->data;
    if (l->state == LISTEN_TAKING) {
        if (l->running > 0) cli_complain("waiting for the server's answer; once more to give up");
        finish(l, CLI_OK);
    } else if (l->state == LISTEN_FINISHING) {
        l->state = LISTEN_KILLING;
        l->exit_code = 128 + number;
        forward_stop(l->forward);
    }
}

static int open_client(struct listen *l, const char *url) {
    struct bellhop_options options = {
        .loop = &l->loop, .name = "bellhop listen", .on_state = on_state, .ctx = l};
    int code = api_workers_open(l->cli, url, &options, &l->client);
    if (code != CLI_OK) return code;
    struct bellhop_sub_options sub = {.handler = on_event,
                                      .on_ended = on_ended,
                                      .ctx = l,
                                      .concurrency = (uint32_t)l->concurrency,
                                      .window = (uint32_t)l->concurrency};
    l->sub = bellhop_subscribe(l->client, l->subscription, &sub);
    CHECK(l->sub != NULL);
    return 0;
}

static int run(struct listen *l, const char *url) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    CHECK(uv_loop_init(&l->loop) == 0);
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < 3; i++) {
        CHECK(uv_signal_init(&l->loop, &l->signals[i]) == 0);
        CHECK(uv_signal_start(&l->signals[i], on_signal, numbers[i]) == 0);
        l->signals[i].data = l;
        uv_unref((uv_handle_t *)&l->signals[i]);
    }
    l->forward = forward_open(&(struct forward_options){
        .loop = &l->loop, .url = l->url, .secret = &l->secret, .at_once = l->concurrency});
    int error = open_client(l, url);
    if (error != 0) l->exit_code = error;
    else uv_run(&l->loop, UV_RUN_DEFAULT);
    forward_stop(l->forward);
    if (l->client != NULL) bellhop_close(&l->client);
    for (size_t i = 0; i < 3; i++) uv_close((uv_handle_t *)&l->signals[i], NULL);
    uv_run(&l->loop, UV_RUN_DEFAULT);
    forward_close(&l->forward);
    CHECK(uv_loop_close(&l->loop) == 0);
    free(l->lost);
    return l->exit_code;
}

static void print_start(const struct listen *l) {
    if (l->cli->json) {
        printf("{\"subscription\":\"%s\",\"created\":%s", l->subscription,
               l->made ? "true" : "false");
        print_member("forward", l->url);
        if (l->secret_text[0] != '\0') print_member("secret", l->secret_text);
        printf("}\n");
    } else {
        printf("forwarding subscription %s%s to %s\n", l->subscription,
               l->made ? " (deleted at the end)" : "", l->url);
        if (l->secret_text[0] != '\0') printf("  signed with %s\n", l->secret_text);
    }
    fflush(stdout);
}

/* Makes the subscription, or finds that it is there already with this filter. */
static int create(struct listen *l, const struct args *args, bool named) {
    const char *from = args_get(args, "--from");
    struct http_reply reply;
    json_t *filter, *tree = json_object();
    int error = filter_args_read(args, &filter);
    if (error == 0 && filter != NULL) json_object_set_new(tree, "filter", filter);
    if (error == 0 && from != NULL) {
        error = policy_read_position(tree, "--from (new, first, a seq or a time)", "start", from);
    }
    if (error != 0) {
        json_decref(tree);
        return error;
    }
    json_object_set_new(tree, "name", json_string(l->subscription));
    /* Left behind by a kill it must not hold up retention. */
    if (!named) json_object_set_new(tree, "lag", json_string("expire"));
    error = api_send(l->cli, "POST", "/v1/subscriptions", tree, &reply);
    if (error != 0) return error;
    l->made = reply.status == 201;
    if (!l->made && from != NULL) {
        cli_complain("%s exists already: --from does not move it; bellhop sub seek does",
                     l->subscription);
    }
    buf_free(&reply.body);
    return 0;
}

static int take_subscription(struct listen *l, const struct args *args) {
    const char *name = args_get(args, "--subscription");
    bool define = filter_args_given(args) || args_has(args, "--from");
    if (name != NULL) {
        int error = value_name("subscription", name);
        if (error != 0) return error;
        l->subscription = mem_strdup(name);
        return define ? create(l, args, true) : 0;
    }
    uint8_t random[4];
    char hex[2 * sizeof(random) + 1];
    CHECK(RAND_bytes(random, sizeof(random)) == 1);
    hex_encode(slice_of(random, sizeof(random)), hex);
    l->subscription = text_printf("listen-%s", hex);
    return create(l, args, false);
}

static int take_secret(struct listen *l, const struct args *args) {
    const char *text = args_get(args, "--secret");
    if (text == NULL) text = getenv("BELLHOP_SECRET");
    if (text == NULL || text[0] == '\0') {
        signing_make(l->secret_text);
        text = l->secret_text;
    }
    return signing_parse(text, &l->secret);
}

static int take_counts(struct listen *l, const struct args *args) {
    const char *concurrency = args_get(args, "--concurrency"), *count = args_get(args, "--count");
    int error = 0;
    l->concurrency = 1;
    l->count = UINT64_MAX;
    if (concurrency != NULL) {
        error = value_u64("--concurrency", concurrency, 1, CONCURRENCY_MAX, &l->concurrency);
    }
    if (error == 0 && count != NULL) {
        error = value_u64("--count", count, 1, UINT64_MAX - 1, &l->count);
    }
    return error;
}

int cmd_listen(struct cli *cli, const struct args *args) {
    struct listen *l = mem_zalloc(sizeof(*l));
    char *url = NULL;
    int error = 0;
    l->cli = cli;
    l->url = args_get(args, "--forward");
    if (l->url == NULL) {
        cli_complain("--forward is missing: bellhop listen --forward http://127.0.0.1:3000/hook");
        error = CLI_USAGE;
    }
    if (error == 0) error = forward_check(l->url);
    if (error == 0) error = take_counts(l, args);
    if (error == 0) error = take_secret(l, args);
    if (error == 0) error = api_workers_url(cli, &url);
    if (error == 0) error = take_subscription(l, args);
    if (error == 0) {
        print_start(l);
        error = run(l, url);
    }
    if (l->made) {
        char *path = text_printf("/v1/subscriptions/%s", l->subscription);
        struct http_reply reply;
        if (api_send(cli, "DELETE", path, NULL, &reply) == 0) buf_free(&reply.body);
        else cli_complain("%s is left: bellhop sub rm %s", l->subscription, l->subscription);
        free(path);
    }
    signing_forget(&l->secret);
    free(l->subscription);
    free(url);
    free(l);
    return error;
}
