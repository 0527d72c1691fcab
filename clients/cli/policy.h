/* policy.h: a subscription's policy and position, from the options of `sub create`, `sub update`
 * and `sub seek`, as the fields that docs/http-api.md names.
 *
 * Only options that were given become fields: what is left out is the broker's to decide.
 *
 * May call: filter_args, value, api, cli, jansson. */
#ifndef CLI_POLICY_H
#define CLI_POLICY_H

#include "clients/cli/api.h"

/* Sets the fields of every policy option that was given. `update`: the backoff is replaced as a
 * whole, so that a jitter cannot come alone. 0 or an exit code, after saying what is wrong. */
int policy_read(json_t *tree, const struct args *args, bool update);
/* Sets `key` to a position: new, first, a seq or a time. `option` is for the complaint. */
int policy_read_position(json_t *tree, const char *option, const char *key, const char *text);

#endif
