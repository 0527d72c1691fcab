/* forward.h: events POSTed to an HTTP server as a webhook of the broker brings them.
 *
 * The body of an event that was ingested (it has a source) goes out as it came in; one that was
 * published is put into the envelope {type, version, timestamp, data, user_metadata} that
 * docs/http-api.md describes. Requests run on libuv's threads, so that the loop never waits.
 *
 * A struct forward is owned by its opener; forward_close needs every request to have ended. May
 * call: signing, json_text, output, cli, base, bellhop.h (struct bellhop_info), libcurl, libuv. */
#ifndef CLI_FORWARD_H
#define CLI_FORWARD_H

#include <uv.h>

#include "base/buf.h"
#include "clients/c/bellhop.h"
#include "clients/cli/signing.h"

struct forward;

struct forward_options {
    uv_loop_t *loop;                     /* borrowed */
    const char *url;                     /* borrowed; forward_check */
    const struct signing_secret *secret; /* borrowed */
    size_t at_once;                      /* requests under way, at most */
};

struct forward_result {
    long status;       /* 0: no answer; error says why */
    bool stopped;      /* by forward_stop */
    const char *error; /* what went wrong: "HTTP 500: first line of the answer"; "" for a 2xx */
    uint64_t duration_ms;
};
/* `result` borrows until return. */
typedef void forward_done(void *ctx, const struct forward_result *result);

/* Whether it is a URL that can be posted to: 0, or CLI_USAGE after saying what is wrong. */
int forward_check(const char *url);
struct forward *forward_open(const struct forward_options *options);
void forward_close(struct forward **f);
/* Sends the event; `done` comes once, on the loop. `info` is borrowed until then. */
void forward_send(struct forward *f, const struct bellhop_info *info, forward_done *done,
                  void *ctx);
/* Ends what is under way soon. */
void forward_stop(struct forward *f);

/* What an event's request carries: the body is appended to `out`. */
void forward_body(const struct bellhop_info *info, struct buf *out);
const char *forward_content_type(const struct bellhop_info *info);

#endif
