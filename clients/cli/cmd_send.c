/* send: what a provider does: signs a body by Standard Webhooks v1 (HMAC-SHA256 over
 * "{id}.{timestamp}.{body}") and posts it to a source. */
#include <openssl/rand.h>
#include <stdlib.h>
#include <time.h>

#include "base/base64.h"
#include "clients/cli/commands.h"
#include "clients/cli/input.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/signing.h"
#include "clients/cli/value.h"

#define ID_BYTES 256

struct sender {
    char id[ID_BYTES + 1];
    char timestamp[32];
    struct signing_secret secret;
};

static int take_secret(struct sender *s, const struct args *args) {
    const char *text = args_get(args, "--secret");
    if (text == NULL) text = getenv("BELLHOP_SECRET");
    if (text == NULL || text[0] == '\0') {
        cli_complain("a secret is needed to sign: --secret whsec_... or BELLHOP_SECRET");
        return CLI_USAGE;
    }
    return signing_parse(text, &s->secret);
}

static int take_id(struct sender *s, const char *id) {
    if (id == NULL) {
        uint8_t random[12];
        char hex[2 * sizeof(random) + 1];
        CHECK(RAND_bytes(random, sizeof(random)) == 1);
        hex_encode(slice_of(random, sizeof(random)), hex);
        snprintf(s->id, sizeof(s->id), "msg_%s", hex);
        return 0;
    }
    bool printable = true;
    for (const char *at = id; *at != '\0'; at++) printable &= *at > ' ' && *at < 0x7F;
    if (!printable || id[0] == '\0' || !slice_to_cstr(slice_str(id), s->id, sizeof(s->id))) {
        cli_complain("--id: it is sent in a header, so 1 to %d printable characters without blanks",
                     ID_BYTES);
        return CLI_USAGE;
    }
    return 0;
}

static int take_timestamp(struct sender *s, const char *text) {
    uint64_t seconds = (uint64_t)time(NULL), wall_ms;
    if (text != NULL && !slice_to_u64(slice_str(text), &seconds)) {
        char rfc3339[RFC3339_SIZE];
        int error = value_time("--timestamp (unix seconds or a time)", text, rfc3339);
        if (error != 0) return error;
        CHECK(rfc3339_parse(slice_str(rfc3339), &wall_ms));
        seconds = wall_ms / 1000;
    }
    snprintf(s->timestamp, sizeof(s->timestamp), "%llu", (unsigned long long)seconds);
    return 0;
}

static void print_sent(struct cli *cli, const struct sender *s, struct slice answer) {
    struct slice duplicate;
    if (cli->json) {
        list_print_json(answer);
        return;
    }
    bool known = json_find(answer, "duplicate", &duplicate) && slice_eq_str(duplicate, "true");
    printf("seq %llu  id %s%s\n", (unsigned long long)json_number(answer, "seq", 0), s->id,
           known ? " (duplicate: this id was journaled before)" : "");
}

static int send_signed(struct cli *cli, const struct sender *s, const struct args *args,
                       struct slice body) {
    char why[200], id[ID_BYTES + 32], timestamp[64], signature[SIGNING_HEADER_BYTES];
    const char *given = args_get(args, "--content-type");
    if (given != NULL && strpbrk(given, "\r\n") != NULL) {
        cli_complain("--content-type holds a line end");
        return CLI_USAGE;
    }
    bool json = json_valid(body, false, 1, why, sizeof(why));
    char *type = text_printf("content-type: %s", given != NULL ? given
                                                 : json        ? "application/json"
                                                               : "application/octet-stream");
    char *path = text_printf("/in/%s", args_word(args, 0));
    snprintf(id, sizeof(id), "webhook-id: %s", s->id);
    snprintf(timestamp, sizeof(timestamp), "webhook-timestamp: %s", s->timestamp);
    signing_header(&s->secret, s->id, s->timestamp, body, signature);
    const char *headers[] = {type, id, timestamp, signature, NULL};
    struct http_reply reply;
    int error = http_send(
        cli->http,
        &(struct http_request){.method = "POST", .path = path, .body = &body, .headers = headers},
        &reply);
    free(path);
    free(type);
    if (error != 0) return error;
    print_sent(cli, s, buf_slice(&reply.body));
    buf_free(&reply.body);
    return CLI_OK;
}

/* SOURCE, or PROJECT/SOURCE: what the source's address has behind /in/. */
static int check_source(const char *text) {
    const char *slash = strchr(text, '/');
    if (slash == NULL) return value_name("source", text);
    char *project = text_printf("%.*s", (int)(slash - text), text);
    int error = value_name("project", project);
    free(project);
    return error != 0 ? error : value_name("source", slash + 1);
}

int cmd_send(struct cli *cli, const struct args *args) {
    struct sender s = {0};
    struct buf body;
    bool given;
    int error = check_source(args_word(args, 0));
    if (error == 0) error = take_secret(&s, args);
    if (error == 0) error = take_id(&s, args_get(args, "--id"));
    if (error == 0) error = take_timestamp(&s, args_get(args, "--timestamp"));
    if (error != 0) return error;
    error = input_read(args, args_word(args, 1), &body, &given);
    if (error == 0 && !given) {
        cli_complain("the body is missing: give it as a word, with --file F, or - for stdin");
        error = CLI_USAGE;
    }
    if (error == 0) error = send_signed(cli, &s, args, buf_slice(&body));
    buf_free(&body);
    signing_forget(&s.secret);
    return error;
}
