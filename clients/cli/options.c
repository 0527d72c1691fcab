#include "clients/cli/options.h"

#define END                                                                                        \
    { .name = NULL, }

const struct option key_create_options[] = {
    {.name = "--scope",
     .value = "S",
     .help = "publish, consume, manage or admin (everything)",
     .many = true},
    {.name = "--project", .value = "P", .help = "what it speaks for (that of your own key)"},
    {.name = "--source", .value = "GLOB", .help = "sources it may manage (all)", .many = true},
    {.name = "--subscription",
     .value = "GLOB",
     .help = "subscriptions it may use (all)",
     .many = true},
    {.name = "--expire", .value = "TIME", .help = "from now, such as 90d (never)"},
    END};

const struct option key_revoke_options[] = {
    {.name = "--force", .help = "also the last one with the scope admin"},
    {.name = "--yes", .help = "do not ask"},
    END};

const struct option key_ls_options[] = {
    {.name = "--project", .value = "P", .help = "only those of this project"}, END};

const struct option project_rm_options[] = {{.name = "--yes", .help = "do not ask"}, END};

/* Of a webhook; webhook_args.h reads them. */
#define WEBHOOK_OPTIONS                                                                            \
    {.name = "--event",                                                                            \
     .value = "GLOB",                                                                              \
     .help = "types it gets, such as 'batch.*'",                                                   \
     .many = true},                                                                                \
        {.name = "--name", .value = "TEXT", .help = "a name for people"},                          \
        {.name = "--description", .value = "TEXT", .help = "more for people"},                     \
        {.name = "--header",                                                                       \
         .value = "NAME:VALUE",                                                                    \
         .help = "sent with each delivery",                                                        \
         .many = true},                                                                            \
        {.name = "--rate", .value = "N", .help = "deliveries a second at most; 0: no limit (0)"},  \
        {.name = "--concurrency", .value = "N", .help = "deliveries under way at most"}, {         \
        .name = "--filter", .value = "JSON|@FILE", .help = "must hold beside the types"            \
    }

const struct option webhook_create_options[] = {WEBHOOK_OPTIONS, END};

const struct option webhook_update_options[] = {
    {.name = "--uri", .value = "URI", .help = "where it delivers to"},
    WEBHOOK_OPTIONS,
    {.name = "--state", .value = "S", .help = "enabled or disabled"},
    END};

const struct option webhook_rotate_options[] = {
    {.name = "--now", .help = "the secrets before stop at once (after 24 h)"}, END};

const struct option webhook_recover_options[] = {
    {.name = "--since", .value = "TIME", .help = "RFC 3339, or how long ago: 2h"}, END};
