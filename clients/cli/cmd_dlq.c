#include <stdlib.h>

#include "clients/cli/commands.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"
#include "clients/cli/value.h"

static void on_letter(void *ctx, struct slice item) {
    static const char *const fields[] = {"seq",        "event.type", "event.subject", "reason",
                                         "deliveries", "fails",      "died_at"};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        table_add(ctx, json_show(item, fields[i]));
    }
    char *error = json_show(item, "error");
    text_clean(error);
    text_cut(error, 60);
    table_add(ctx, error);
}

int cmd_dlq_ls(struct cli *cli, const struct args *args) {
    static const char *const heads[] = {">SEQ",   "TYPE", "SUBJECT", "REASON", ">DELIVERIES",
                                        ">FAILS", "DIED", "ERROR",   NULL};
    const char *name = args_word(args, 0);
    int error = value_name("subscription", name);
    if (error != 0) return error;
    struct table t;
    table_init(&t, heads);
    char *path = text_printf("/v1/dead-letters?page_size=200&subscription=%s", name);
    error = list_each(cli, path, "dead_letters", on_letter, &t);
    free(path);
    table_end(&t, cli, error, "no dead letter");
    return error;
}
