/* publish: one event from the command line, or many from stdin.
 *
 * The text of `data` is journaled as it was given, so it is checked here and then put into the
 * request untouched; it never goes through a JSON tree that could change a number.
 *
 * --ndjson reads what is there, sends a batch when it is full or when no more input is waiting, and
 * stops at the first line that is not an object: what was sent before is durable and is said. */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/cli/commands.h"
#include "clients/cli/input.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"

#define BATCH_EVENTS 500
#define BATCH_BYTES                                                                                \
    (768 * 1024) /* a batch fits into the smallest common limit of a body, 1 MiB                   \
                  */
#define REQUEST_BYTES (INPUT_BYTES + 1024 * 1024)
#define CHUNK_BYTES   (64 * 1024)

struct batch {
    struct cli *cli;
    struct buf body;                /* {"events":[ and the lines so far */
    size_t events;                  /* in the body */
    uint64_t line;                  /* of the input, from 1 */
    uint64_t first_line, last_line; /* of the events in the body */
    uint64_t sent, duplicates, first_seq, last_seq;
};

/* Prints the answer to one event. */
static void print_published(struct cli *cli, struct slice item) {
    if (cli->json) {
        list_print_json(item);
        return;
    }
    struct slice duplicate;
    bool known = json_find(item, "duplicate", &duplicate) && slice_eq_str(duplicate, "true");
    printf("seq %llu%s\n", (unsigned long long)json_number(item, "seq", 0),
           known ? " (duplicate: this id was journaled before)" : "");
}

static int post(struct cli *cli, struct slice body, struct http_reply *reply) {
    return http_send(cli->http,
                     &(struct http_request){.method = "POST", .path = "/v1/events", .body = &body},
                     reply);
}

static void member(struct buf *b, const char *key, const char *text) {
    if (text == NULL) return;
    buf_printf(b, ",\"%s\":", key);
    buf_append_json_string(b, slice_str(text));
}

/* Bytes that are not UTF-8 would become other characters in JSON. */
static int check_texts(const struct args *args) {
    static const char *const options[] = {"--type", "--subject", "--id"};
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        const char *text = args_get(args, options[i]);
        json_t *value = text != NULL ? json_string(text) : NULL;
        if (text != NULL && value == NULL) {
            cli_complain("%s: '%s' is not UTF-8", options[i], text);
            return CLI_USAGE;
        }
        json_decref(value);
    }
    return 0;
}

/* --delay or --at, as a member of the event. */
static int member_due(struct buf *b, const struct args *args) {
    const char *delay = args_get(args, "--delay"), *at = args_get(args, "--at");
    uint64_t ms;
    if (delay != NULL && at != NULL) {
        cli_complain("--delay and --at exclude each other");
        return CLI_USAGE;
    }
    if (delay != NULL) {
        int error = value_duration_ms("--delay", delay, &ms);
        if (error != 0) return error;
        buf_printf(b, ",\"deliver_after_ms\":%llu", (unsigned long long)ms);
    }
    if (at != NULL) {
        char time[RFC3339_SIZE];
        if (!rfc3339_parse(slice_str(at), &ms)) {
            cli_complain(
                "--at: '%s' is not a time such as 2026-11-21T09:00:00Z; from now on it is "
                "--delay 10m",
                at);
            return CLI_USAGE;
        }
        rfc3339_format(ms, time);
        member(b, "deliver_at", time);
    }
    return 0;
}

/* --webhook-uri and --metadata, as webhook_config. */
static int member_config(struct buf *b, const struct args *args) {
    const char *metadata = args_get(args, "--metadata"), *uri;
    size_t at = 0, count = 0;
    while ((uri = args_next(args, "--webhook-uri", &at)) != NULL) {
        json_t *value = json_string(uri);
        if (value == NULL) {
            cli_complain("--webhook-uri: '%s' is not UTF-8", uri);
            return CLI_USAGE;
        }
        json_decref(value);
        buf_append_str(b, count++ == 0 ? ",\"webhook_config\":{\"uris\":[" : ",");
        buf_append_json_string(b, slice_str(uri));
    }
    if (count == 0) return 0;
    buf_append_str(b, "]");
    if (metadata != NULL) buf_printf(b, ",\"user_metadata\":%s", metadata);
    buf_append_str(b, "}");
    return 0;
}

static int publish_one(struct cli *cli, const struct args *args, struct slice data, bool has_data) {
    const char *metadata = args_get(args, "--metadata");
    char why[200];
    int error = check_texts(args);
    if (error != 0) return error;
    if (has_data && !json_valid(data, false, 1, why, sizeof(why))) {
        cli_complain("the data is not JSON: %s", why);
        return CLI_DATA;
    }
    if (metadata != NULL && !json_valid(slice_str(metadata), true, 1, why, sizeof(why))) {
        cli_complain("--metadata is not a JSON object: %s", why);
        return CLI_USAGE;
    }
    struct buf body;
    buf_init(&body, REQUEST_BYTES);
    buf_append_str(&body, "{\"type\":");
    buf_append_json_string(&body, slice_str(args_get(args, "--type")));
    member(&body, "subject", args_get(args, "--subject"));
    member(&body, "id", args_get(args, "--id"));
    error = member_config(&body, args);
    if (metadata != NULL && !args_has(args, "--webhook-uri")) {
        buf_printf(&body, ",\"user_metadata\":%s", metadata);
    }
    if (has_data) {
        buf_append_str(&body, ",\"data\":");
        buf_append_slice(&body, data);
    }
    if (error == 0) error = member_due(&body, args);
    buf_append_str(&body, "}");
    if (error == 0 && body.overflow) {
        cli_complain("the event is longer than any broker takes");
        error = CLI_DATA;
    }
    struct http_reply reply;
    if (error == 0) error = post(cli, buf_slice(&body), &reply);
    buf_free(&body);
    if (error != 0) return error;
    print_published(cli, buf_slice(&reply.body));
    buf_free(&reply.body);
    return CLI_OK;
}

static void batch_clear(struct batch *b) {
    buf_clear(&b->body);
    buf_append_str(&b->body, "{\"events\":[");
    b->events = 0;
}

static int batch_send(struct batch *b) {
    if (b->events == 0) return 0;
    struct http_reply reply;
    struct slice items, key, item, duplicate;
    struct json_walk walk;
    CHECK(buf_append_str(&b->body, "]}"));
    int error = post(b->cli, buf_slice(&b->body), &reply);
    if (error != 0) {
        unsigned long long first = b->first_line, last = b->last_line;
        if (error == CLI_REFUSED) {
            cli_complain("none of the lines %llu to %llu was taken; events[0] is line %llu", first,
                         last, first);
        } else {
            cli_complain(
                "lines %llu to %llu: it is not known whether they were taken; what has an id can "
                "be published again without harm",
                first, last);
        }
        return error;
    }
    if (!json_find(buf_slice(&reply.body), "events", &items) || !json_walk_open(&walk, items)) {
        cli_complain("the answer to a batch has no 'events'");
        error = CLI_INTERNAL;
        goto out;
    }
    while (json_walk_next(&walk, &key, &item)) {
        uint64_t seq = json_number(item, "seq", 0);
        if (b->cli->json) list_print_json(item);
        b->sent++;
        if (json_find(item, "duplicate", &duplicate) && slice_eq_str(duplicate, "true")) {
            b->duplicates++;
            continue;
        }
        if (b->first_seq == 0) b->first_seq = seq;
        b->last_seq = seq;
    }
    fflush(stdout);
    batch_clear(b);
out:
    buf_free(&reply.body);
    return error;
}

static int batch_add(struct batch *b, struct slice line) {
    char why[200];
    b->line++;
    while (line.len > 0 && strchr(" \t\r", line.data[line.len - 1]) != NULL) line.len--;
    if (line.len == 0) return 0;
    if (!json_valid(line, true, b->line, why, sizeof(why))) {
        cli_complain("line %llu is not a JSON object: %s", (unsigned long long)b->line, why);
        return CLI_DATA;
    }
    if (b->events > 0 && b->body.len + line.len > BATCH_BYTES) {
        int error = batch_send(b);
        if (error != 0) return error;
    }
    if (b->events > 0) buf_append_str(&b->body, ",");
    buf_append_slice(&b->body, line);
    CHECK(!b->body.overflow);
    if (b->events++ == 0) b->first_line = b->line;
    b->last_line = b->line;
    return b->events == BATCH_EVENTS ? batch_send(b) : 0;
}

/* Adds every complete line of the input; at its end also the last one without a line end. */
static int take_lines(struct batch *b, struct buf *input, bool end) {
    size_t at = 0;
    int error = 0;
    while (error == 0 && at < input->len) {
        const uint8_t *newline = memchr(input->data + at, '\n', input->len - at);
        if (newline == NULL && !end) break;
        size_t len = newline != NULL ? (size_t)(newline - (input->data + at)) : input->len - at;
        error = batch_add(b, slice_of(input->data + at, len));
        at += len + (newline != NULL);
    }
    buf_consume(input, at);
    return error;
}

/* Reads until the end; a line may be as long as a body. */
static int read_lines(struct batch *b, struct buf *input) {
    for (;;) {
        struct pollfd waiting = {.fd = STDIN_FILENO, .events = POLLIN};
        if (b->events > 0 && poll(&waiting, 1, 0) == 0) {
            int error = batch_send(b);
            if (error != 0) return error;
        }
        uint8_t *room = buf_reserve(input, CHUNK_BYTES);
        if (room == NULL) {
            cli_complain("line %llu is longer than 32 MiB", (unsigned long long)b->line + 1);
            return CLI_DATA;
        }
        ssize_t got = read(STDIN_FILENO, room, CHUNK_BYTES);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            cli_complain("stdin: %s", strerror(errno));
            return CLI_INPUT;
        }
        input->len += (size_t)got;
        int error = take_lines(b, input, got == 0);
        if (error != 0) return error;
        if (got == 0) return batch_send(b);
    }
}

static int publish_lines(struct cli *cli) {
    struct batch b = {.cli = cli};
    struct buf input;
    buf_init(&b.body, REQUEST_BYTES);
    buf_init(&input, INPUT_BYTES + CHUNK_BYTES);
    batch_clear(&b);
    int error = read_lines(&b, &input);
    if (!cli->json) {
        char *events = text_count(b.sent - b.duplicates, "event");
        printf("published %s", events);
        free(events);
        if (b.first_seq != 0) {
            printf(" (seq %llu to %llu)", (unsigned long long)b.first_seq,
                   (unsigned long long)b.last_seq);
        }
        if (b.duplicates != 0) {
            char *duplicates = text_count(b.duplicates, "duplicate");
            printf(", %s", duplicates);
            free(duplicates);
        }
        putchar('\n');
    }
    buf_free(&b.body);
    buf_free(&input);
    return error;
}

int cmd_publish(struct cli *cli, const struct args *args) {
    if (args_has(args, "--ndjson")) {
        static const char *const others[] = {"--type",     "--subject",     "--id",
                                             "--metadata", "--file",        "--delay",
                                             "--at",       "--webhook-uri", NULL};
        for (size_t i = 0; others[i] != NULL; i++) {
            if (!args_has(args, others[i])) continue;
            cli_complain("%s and --ndjson exclude each other: each line says it all", others[i]);
            return CLI_USAGE;
        }
        const char *word = args_word(args, 0);
        if (word != NULL && strcmp(word, "-") != 0) {
            cli_complain("--ndjson reads events from stdin; '%s' is one word too many", word);
            return CLI_USAGE;
        }
        return publish_lines(cli);
    }
    if (!args_has(args, "--type")) {
        cli_complain("--type is missing: bellhop publish --type order.paid '{\"total\":12}'");
        return CLI_USAGE;
    }
    struct buf data;
    bool given;
    int error = input_read(args, args_word(args, 0), &data, &given);
    if (error == 0) error = publish_one(cli, args, buf_slice(&data), given);
    buf_free(&data);
    return error;
}
