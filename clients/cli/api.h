/* api.h: requests whose body is a JSON tree, where the worker port is, and the question before an
 * act that cannot be undone.
 *
 * A tree is owned by the command that made it; api_send takes it. A reply belongs to the caller,
 * who frees it with buf_free(&reply.body).
 *
 * May call: http, cli, args, libbellhop, jansson. */
#ifndef CLI_API_H
#define CLI_API_H

#include <jansson.h>

#include "clients/c/bellhop.h"
#include "clients/cli/args.h"
#include "clients/cli/http.h"
#include "clients/cli/json_text.h"

/* Sends `tree` (takes it; NULL: no body) and expects a 2xx; anything else is said on stderr and
 * becomes the exit code, with nothing to free. */
int api_send(struct cli *cli, const char *method, const char *path, json_t *tree,
             struct http_reply *reply);
/* The JSON text of --json, or `text` for people, which is freed; frees the reply. Returns CLI_OK.
 */
int api_done(struct cli *cli, struct http_reply *reply, char *text);
void api_set_u64(json_t *tree, const char *key, uint64_t value);
/* Sets `key` to what the option says; CLI_USAGE when that is not UTF-8. */
int api_set_text(json_t *tree, const char *option, const char *key, const char *value);

/* bellhop[s]://[key@]host:port of the worker port: what BELLHOP_WORKERS says (with TLS when
 * BELLHOP_URL is https, or as its own bellhop:// or bellhops:// says), or the status. The caller
 * frees. 0 or an exit code. */
int api_workers_url(struct cli *cli, char **url);

/* Opens a client of the worker port with the certificates that the command line names; `options`
 * has the rest. 0, or an exit code after a complaint. */
int api_workers_open(const struct cli *cli, const char *url, struct bellhop_options *options,
                     struct bellhop **out);

/* Before anything is asked of the broker: whether somebody can say yes. 0, or CLI_USAGE when there
 * is no --yes and stdin is no terminal; `act` says what --yes would do. */
int api_can_confirm(const struct args *args, const char *act);
/* Asks `question` on stderr unless --yes was given. 0, or CLI_REFUSED: nothing is to be done. */
int api_confirm(const struct args *args, const char *question);

#endif
