/* webhook_args.h: a webhook's fields from the options of `webhook create` and `webhook update`, and
 * its path.
 *
 * Only options that were given become fields. May call: filter_args, value, api, cli, jansson. */
#ifndef CLI_WEBHOOK_ARGS_H
#define CLI_WEBHOOK_ARGS_H

#include "clients/cli/api.h"

/* 0 or an exit code, after saying what is wrong. */
int webhook_args_read(json_t *tree, const struct args *args);
/* "/v1/webhooks/ID" of the first word, and what follows. The caller frees. */
char *webhook_path(const struct args *args, const char *verb);
/* `before`, the text percent-encoded, `after`. The caller frees. */
char *webhook_escaped(const char *before, const char *text, const char *after);

#endif
