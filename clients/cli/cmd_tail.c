/* tail: follows the journal. Each request is held by the broker until there is something; its
 * token says where the next one goes on. When the broker goes away after the first answer, tail
 * says so once and tries again until it is back. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clients/cli/commands.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"

#define WAIT_MS      30000
#define PATIENCE_MS  15000 /* over WAIT_MS, before a request counts as lost */
#define RETRY_MS_MIN 100
#define RETRY_MS_MAX 5000
#define PATH_BYTES   (16 * 1024)

struct tail {
    struct cli *cli;
    const struct args *args;
    uint64_t from_seq;
    uint64_t left;  /* events to show; UINT64_MAX: no end */
    char *token;    /* of the next page; "": from_seq */
    bool connected; /* an answer came at least once */
};

/* The token of the journal's end: no event is as late as this time. */
static int find_end(struct cli *cli, char **token) {
    struct http_reply reply;
    int error = http_get(cli->http, "/v1/events?since=9999-12-31T23:59:59Z&wait_ms=0", &reply);
    if (error != 0) return error;
    *token = json_show(buf_slice(&reply.body), "next_page_token");
    buf_free(&reply.body);
    if ((*token)[0] != '\0') return 0;
    free(*token);
    cli_complain("the answer has no 'next_page_token' to go on from");
    return CLI_INTERNAL;
}

static void make_path(const struct tail *t, struct buf *path) {
    char number[32];
    buf_init(path, PATH_BYTES);
    buf_append_str(path, "/v1/events");
    snprintf(number, sizeof(number), "%d", WAIT_MS);
    http_query(path, "wait_ms", number);
    http_query(path, "type", args_get(t->args, "--type"));
    http_query(path, "source", args_get(t->args, "--source"));
    if (t->token[0] != '\0') {
        http_query(path, "page_token", t->token);
    } else {
        snprintf(number, sizeof(number), "%llu", (unsigned long long)t->from_seq);
        http_query(path, "from_seq", number);
    }
    buf_append_byte(path, '\0');
}

static void print_field(struct slice event, const char *before, const char *path, int wide) {
    char *text = json_show(event, path);
    text_clean(text);
    int own = (int)text_width(text, strlen(text));
    if (text[0] != '\0' || wide > 0)
        printf("%s%s%*s", before, text, own < wide ? wide - own : 0, "");
    free(text);
}

static void print_event(struct cli *cli, struct slice event) {
    if (cli->json) {
        list_print_json(event);
        return;
    }
    printf("%s", colour_bold(cli));
    print_field(event, "", "seq", 6);
    printf("%s", colour_off(cli));
    print_field(event, "  ", "received_at", 0);
    print_field(event, "  ", "type", 26);
    struct slice source;
    if (!json_find(event, "source", &source)) printf("  -"); /* what follows is the subject */
    print_field(event, "  ", "source", 0);
    print_field(event, "  ", "subject", 0);
    print_field(event, "  id ", "id", 0);
    print_field(event, "  ", "user_metadata", 0);
    putchar('\n');
}

static int show_page(struct tail *t, struct slice page) {
    struct slice items, key, event;
    struct json_walk walk;
    if (!json_find(page, "events", &items) || !json_walk_open(&walk, items)) {
        cli_complain("the answer has no 'events'");
        return CLI_INTERNAL;
    }
    while (t->left > 0 && json_walk_next(&walk, &key, &event)) {
        print_event(t->cli, event);
        if (t->left != UINT64_MAX) t->left--;
    }
    fflush(stdout);
    char *token = json_show(page, "next_page_token");
    if (token[0] == '\0') {
        cli_complain("the answer has no 'next_page_token' to go on from");
        free(token);
        return CLI_INTERNAL;
    }
    free(t->token);
    t->token = token;
    return 0;
}

/* Waits after a request that found no broker; *pause_ms grows. */
static void pause_retry(const struct tail *t, uint64_t *pause_ms) {
    if (*pause_ms == 0) {
        http_complain(t->cli->http);
        cli_complain("trying again until it is back");
        *pause_ms = RETRY_MS_MIN;
    }
    struct timespec span = {.tv_sec = (time_t)(*pause_ms / 1000),
                            .tv_nsec = (long)(*pause_ms % 1000) * 1000000};
    nanosleep(&span, NULL);
    *pause_ms = *pause_ms * 2 < RETRY_MS_MAX ? *pause_ms * 2 : RETRY_MS_MAX;
}

static bool is_passing(long status) {
    return status == 429 || status >= 502;
}

static int follow(struct tail *t) {
    uint64_t pause_ms = 0;
    while (t->left > 0) {
        struct buf path;
        struct http_reply reply;
        make_path(t, &path);
        if (path.overflow) {
            cli_complain("--type is longer than a request may be");
            buf_free(&path);
            return CLI_USAGE;
        }
        int error = http_try(t->cli->http,
                             &(struct http_request){.method = "GET",
                                                    .path = (const char *)path.data,
                                                    .timeout_ms = WAIT_MS + PATIENCE_MS},
                             &reply);
        buf_free(&path);
        if (error != 0 && !t->connected) {
            http_complain(t->cli->http);
            return error;
        }
        if (error != 0 || (t->connected && is_passing(reply.status))) {
            if (error == 0) buf_free(&reply.body);
            pause_retry(t, &pause_ms);
            continue;
        }
        if (pause_ms != 0) cli_complain("the broker is back");
        pause_ms = 0;
        t->connected = true;
        error = reply.status == 200 ? show_page(t, buf_slice(&reply.body)) : http_refused(&reply);
        buf_free(&reply.body);
        if (error != 0) return error;
    }
    return CLI_OK;
}

int cmd_tail(struct cli *cli, const struct args *args) {
    struct tail t = {.cli = cli, .args = args, .left = UINT64_MAX};
    const char *count = args_get(args, "--count"), *from = args_get(args, "--from");
    const char *source = args_get(args, "--source");
    int error = 0;
    if (source != NULL) error = value_name("source", source);
    if (error == 0 && count != NULL) {
        error = value_u64("--count", count, 1, UINT64_MAX - 1, &t.left);
    }
    if (error == 0 && from != NULL) error = value_u64("--from", from, 1, INT64_MAX, &t.from_seq);
    if (error == 0 && from == NULL) error = find_end(cli, &t.token);
    if (error != 0) return error;
    t.connected = from == NULL;
    if (from != NULL) t.token = mem_strdup("");
    error = follow(&t);
    free(t.token);
    return error;
}
