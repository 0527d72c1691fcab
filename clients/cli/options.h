/* options.h: the options of the commands about keys, projects and webhooks; those of the others
 * stand in commands.c. Each list ends with a NULL name.
 *
 * May call: args. */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include "clients/cli/args.h"

extern const struct option key_create_options[], key_ls_options[], key_revoke_options[];
extern const struct option project_rm_options[];
/* What create and update share is read by webhook_args.h. */
extern const struct option webhook_create_options[], webhook_update_options[];
extern const struct option webhook_rotate_options[], webhook_recover_options[];

#endif
