/* list.h: resources of the API: a whole list, page by page; removal of one.
 *
 * May call: http, json_text, output, value, cli. */
#ifndef CLI_LIST_H
#define CLI_LIST_H

#include "clients/cli/http.h"
#include "clients/cli/json_text.h"

/* Called per item; `item` borrows until return. */
typedef void list_item(void *ctx, struct slice item);

/* Gets `path` (with a query or without) and the pages after it, and hands over every member of the
 * array `key`. With --json the items are printed and `each` is not called. Returns an exit code. */
int list_each(struct cli *cli, const char *path, const char *key, list_item *each, void *ctx);
/* Prints one JSON value on a line of its own. */
void list_print_json(struct slice item);
/* DELETEs `path` + `name` and says so; `what` is the kind of resource. Returns an exit code. */
int list_remove(struct cli *cli, const char *what, const char *path, const char *name);

#endif
