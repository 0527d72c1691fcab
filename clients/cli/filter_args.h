/* filter_args.h: a filter (docs/filters.md) from the options of a command, and in words.
 *
 * --type, --source, --subject-prefix and --meta KEY=VALUE build one; --filter gives the whole of it
 * as JSON, or as @FILE. Both at once are refused: which of them counts would be a guess.
 *
 * May call: api, input, args, cli, jansson. */
#ifndef CLI_FILTER_ARGS_H
#define CLI_FILTER_ARGS_H

#include "clients/cli/api.h"

/* Whether any of the options was given. */
bool filter_args_given(const struct args *args);
/* The filter, or NULL when no option was given; the caller owns it. 0 or an exit code, after saying
 * what is wrong. */
int filter_args_read(const struct args *args, json_t **out);
/* --filter alone, where the other options mean something else; NULL when it was not given. */
int filter_args_json(const struct args *args, json_t **out);
/* "batch.*,video.* from gemini", the filter's JSON when it says more, or "everything". `object` has
 * it as its member "filter". The caller frees. */
char *filter_show(struct slice object);

#endif
