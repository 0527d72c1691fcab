/* job, wait: jobs whose events somebody waits for.
 *
 * wait holds one request at the broker, which answers the moment the event is there. A broker that
 * goes away after its first answer is tried again until the time is over: nothing is missed, for it
 * looks at the job's past events first. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clients/cli/commands.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"
#include "clients/cli/webhook_args.h"
#include "proto/limits.h"

#define TIMEOUT_MS   60000 /* without --timeout */
#define PATIENCE_MS  15000 /* over the time of a request, before it counts as lost */
#define RETRY_MS_MIN 100
#define RETRY_MS_MAX 2000
#define PATH_BYTES   (16 * 1024)

static char *job_path(const struct args *args, const char *verb) {
    return webhook_escaped("/v1/jobs/", args_word(args, 0), verb);
}

/* --uri and --metadata: webhook_config, or user_metadata alone. */
static int read_config(json_t *tree, const struct args *args) {
    const char *uri, *metadata = args_get(args, "--metadata");
    size_t at = 0;
    json_t *config = json_object();
    json_object_set_new(tree, "webhook_config", config);
    json_t *uris = json_array();
    json_object_set_new(config, "uris", uris);
    while ((uri = args_next(args, "--uri", &at)) != NULL) {
        if (json_array_append_new(uris, json_string(uri)) == 0) continue;
        cli_complain("--uri: '%s' is not UTF-8", uri);
        return CLI_USAGE;
    }
    if (metadata != NULL) {
        json_error_t why;
        json_t *value = json_loads(metadata, JSON_REJECT_DUPLICATES, &why);
        if (!json_is_object(value)) {
            cli_complain("--metadata is not a JSON object%s%s", value == NULL ? ": " : "",
                         value == NULL ? why.text : "");
            json_decref(value);
            return CLI_USAGE;
        }
        json_object_set_new(json_array_size(uris) > 0 ? config : tree, "user_metadata", value);
    }
    if (json_array_size(uris) == 0) json_object_del(tree, "webhook_config");
    return 0;
}

int cmd_job_put(struct cli *cli, const struct args *args) {
    const char *ttl = args_get(args, "--ttl");
    struct http_reply reply;
    uint64_t ttl_ms;
    json_t *tree = json_object();
    int error = read_config(tree, args);
    if (error == 0 && ttl != NULL) {
        error = value_duration_ms("--ttl", ttl, &ttl_ms);
        if (error == 0) api_set_u64(tree, "ttl_ms", ttl_ms);
    }
    if (error == 0) {
        char *path = job_path(args, "");
        error = api_send(cli, "PUT", path, json_incref(tree), &reply);
        free(path);
    }
    json_decref(tree);
    if (error != 0) return error;
    char *due = json_show(buf_slice(&reply.body), "due_time");
    char *text =
        text_printf("%s job %s; without a final event it is overdue at %s",
                    reply.status == 201 ? "registered" : "updated", args_word(args, 0), due);
    free(due);
    return api_done(cli, &reply, text);
}

static void line(struct table *t, const char *label, char *value) {
    table_add(t, mem_strdup(label));
    table_add(t, value);
}

static void field_line(struct table *t, const char *label, struct slice job, const char *path) {
    char *value = json_show(job, path);
    if (value[0] == '\0') free(value);
    else line(t, label, value);
}

static void print_job(struct cli *cli, struct slice job) {
    static const char *const heads[] = {"", "", NULL};
    struct table t;
    struct slice overdue, list, key, item;
    struct json_walk walk;
    bool late = json_find(job, "overdue", &overdue) && slice_eq_str(overdue, "true");
    char *state = json_show(job, "state");
    table_init(&t, heads);
    field_line(&t, "id", job, "id");
    line(&t, "state", text_printf("%s%s", state, late ? ", overdue" : ""));
    field_line(&t, "created", job, "create_time");
    field_line(&t, "updated", job, "update_time");
    field_line(&t, "due", job, "due_time");
    field_line(&t, "uris", job, "webhook_config.uris");
    field_line(&t, "metadata", job, "webhook_config.user_metadata");
    field_line(&t, "metadata", job, "user_metadata");
    field_line(&t, "events", job, "events_total");
    if (json_find(job, "events", &list) && json_walk_open(&walk, list)) {
        while (json_walk_next(&walk, &key, &item)) {
            char *type = json_show(item, "type"), *time = json_show(item, "time");
            line(&t, "event",
                 text_printf("seq %llu  %s  %s", (unsigned long long)json_number(item, "seq", 0),
                             time, type));
            free(type);
            free(time);
        }
    }
    table_print(&t, stdout, cli, "", "");
    free(state);
}

int cmd_job_show(struct cli *cli, const struct args *args) {
    struct http_reply reply;
    char *path = job_path(args, "");
    int error = http_get(cli->http, path, &reply);
    free(path);
    if (error != 0) return error;
    if (cli->json) return api_done(cli, &reply, NULL);
    print_job(cli, buf_slice(&reply.body));
    buf_free(&reply.body);
    return CLI_OK;
}

/* ---- wait ---- */

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void pause_ms(uint64_t ms) {
    struct timespec span = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&span, NULL);
}

/* --type, joined by commas. 0, or CLI_USAGE. */
static int join_types(const struct args *args, struct buf *types) {
    const char *type;
    size_t at = 0;
    while ((type = args_next(args, "--type", &at)) != NULL) {
        if (type[0] == '\0' || strchr(type, ',') != NULL) {
            cli_complain("--type: '%s' is not one type or glob; give --type for each", type);
            return CLI_USAGE;
        }
        if (types->len > 0) buf_append_byte(types, ',');
        buf_append_str(types, type);
    }
    buf_append_byte(types, '\0');
    if (!types->overflow) return 0;
    cli_complain("--type: that is more than a request may hold");
    return CLI_USAGE;
}

static char *wait_path(const struct args *args, const char *types, const char *after,
                       uint64_t left_ms) {
    char timeout[32];
    struct buf b;
    char *start = job_path(args, ":wait");
    snprintf(timeout, sizeof(timeout), "%llums", (unsigned long long)left_ms);
    buf_init(&b, 4 * PATH_BYTES);
    buf_append_str(&b, start);
    http_query(&b, "timeout", timeout);
    if (types[0] != '\0') http_query(&b, "types", types);
    http_query(&b, "after_seq", after);
    char *path = text_printf("%.*s", (int)b.len, (const char *)b.data);
    free(start);
    buf_free(&b);
    return path;
}

static void print_event(struct cli *cli, struct slice job, struct slice event) {
    static const char *const bodies[] = {"body", "body_text", "body_base64"};
    char *id = json_show(job, "id"), *state = json_show(job, "state");
    char *type = json_show(event, "type"), *time = json_show(event, "received_at");
    if (cli->json) {
        list_print_json(job);
    } else {
        text_clean(id);
        text_clean(type);
        printf("%s is %s: %s, seq %llu, %s\n", id, state, type,
               (unsigned long long)json_number(event, "seq", 0), time);
        for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
            char *body = json_show(event, bodies[i]);
            text_clean_lines(body);
            if (body[0] != '\0') printf("  %s\n", body);
            free(body);
        }
    }
    free(id);
    free(state);
    free(type);
    free(time);
}

/* An answer came: 0 and *over when there is nothing more to wait for, or an exit code. */
static int take_answer(struct cli *cli, struct slice job, bool last, const char *timeout,
                       bool *over) {
    struct slice event;
    *over = json_find(job, "event", &event);
    if (*over) {
        print_event(cli, job, event);
        return CLI_OK;
    }
    if (!last) return CLI_OK;
    char *id = json_show(job, "id"), *state = json_show(job, "state");
    *over = true;
    if (cli->json) list_print_json(job);
    cli_complain("nothing came within %s: %s is %s", timeout, id, state);
    free(id);
    free(state);
    return CLI_TIMEOUT;
}

static bool is_passing(long status) {
    return status == 429 || status >= 502;
}

static int wait_until(struct cli *cli, const struct args *args, const char *types,
                      const char *timeout, uint64_t until_ms) {
    const char *after = args_get(args, "--after-seq");
    uint64_t retry_ms = 0;
    bool connected = false, over = false;
    int error = CLI_OK;
    while (error == CLI_OK && !over) {
        uint64_t now = now_ms(), left_ms = until_ms > now ? until_ms - now : 0;
        if (left_ms > LIMIT_JOB_WAIT_MS_MAX) left_ms = LIMIT_JOB_WAIT_MS_MAX;
        struct http_reply reply;
        char *path = wait_path(args, types, after, left_ms);
        struct http_request request = {
            .method = "GET", .path = path, .timeout_ms = left_ms + PATIENCE_MS};
        error = http_try(cli->http, &request, &reply);
        free(path);
        bool last = now_ms() >= until_ms;
        bool lost = error != 0 || is_passing(reply.status);
        if (lost && connected && !last) {
            if (error == 0) buf_free(&reply.body);
            else if (retry_ms == 0) http_complain(cli->http);
            if (retry_ms == 0) cli_complain("trying again until it is back");
            retry_ms = retry_ms == 0 ? RETRY_MS_MIN : 2 * retry_ms;
            if (retry_ms > RETRY_MS_MAX) retry_ms = RETRY_MS_MAX;
            pause_ms(retry_ms);
            error = CLI_OK;
            continue;
        }
        if (error != 0) {
            http_complain(cli->http);
            return error;
        }
        connected = true;
        retry_ms = 0;
        if (reply.status != 200) error = http_refused(&reply);
        else error = take_answer(cli, buf_slice(&reply.body), last, timeout, &over);
        buf_free(&reply.body);
        /* It ended early: the broker is about to stop, or takes no more. */
        if (error == CLI_OK && !over && now_ms() - now < RETRY_MS_MIN) pause_ms(RETRY_MS_MIN);
    }
    return error;
}

int cmd_wait(struct cli *cli, const struct args *args) {
    const char *timeout = args_get(args, "--timeout"), *after = args_get(args, "--after-seq");
    uint64_t timeout_ms = TIMEOUT_MS, number;
    struct buf types;
    int error = 0;
    buf_init(&types, PATH_BYTES);
    if (timeout != NULL) error = value_duration_ms("--timeout", timeout, &timeout_ms);
    else timeout = "60s";
    if (error == 0 && after != NULL) error = value_u64("--after-seq", after, 0, INT64_MAX, &number);
    if (error == 0) error = join_types(args, &types);
    if (error == 0) {
        error = wait_until(cli, args, (const char *)types.data, timeout, now_ms() + timeout_ms);
    }
    buf_free(&types);
    return error;
}
