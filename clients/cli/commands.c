#include "clients/cli/commands.h"
#include "clients/cli/options.h"

#define END                                                                                        \
    { .name = NULL, }

static const struct option no_options[] = {END};

static const struct option source_add_options[] = {
    {.name = "--scheme", .value = "S", .help = "how requests are verified (standard-webhooks)"},
    {.name = "--secret",
     .value = "TEXT",
     .help = "a secret of the sender; without one it is made, if the scheme can, and shown once",
     .many = true},
    {.name = "--set",
     .value = "KEY=VALUE",
     .help = "an option of the scheme, such as tolerance_s=600",
     .many = true},
    END};

static const struct option source_update_options[] = {
    {.name = "--secret", .value = "TEXT", .help = "instead of all that are there", .many = true},
    {.name = "--add-secret", .value = "TEXT", .help = "beside those that are there", .many = true},
    {.name = "--expire-previous",
     .value = "TIME",
     .help = "those that were there before expire in so long (24h)"},
    {.name = "--set",
     .value = "KEY=VALUE",
     .help = "an option of the scheme; an empty text, 0 or false: its default",
     .many = true},
    END};

static const struct option source_test_options[] = {
    {.name = "--body", .value = "F", .help = "the file of its body; \"-\": stdin"},
    {.name = "--header", .value = "'NAME: VALUE'", .help = "one of its headers", .many = true},
    {.name = "--query", .value = "TEXT", .help = "what followed the '?' of its URL"},
    {.name = "--at", .value = "TIME", .help = "as if it came then: a time, or \"2h\" ago"},
    END};

/* Which events; filter_args.h reads them. */
#define FILTER_OPTIONS                                                                             \
    {.name = "--type",                                                                             \
     .value = "GLOB",                                                                              \
     .help = "only these types, such as 'batch.*'",                                                \
     .many = true},                                                                                \
        {.name = "--source", .value = "NAME", .help = "only of this source", .many = true},        \
        {.name = "--subject-prefix", .value = "TEXT", .help = "only subjects that begin so"},      \
        {.name = "--meta",                                                                         \
         .value = "KEY=VALUE",                                                                     \
         .help = "only with this in user_metadata",                                                \
         .many = true},                                                                            \
    {                                                                                              \
        .name = "--filter", .value = "JSON|@FILE", .help = "the filter as JSON instead"            \
    }

#define POLICY_OPTIONS                                                                             \
    FILTER_OPTIONS,                                                                                \
        {.name = "--lease", .value = "TIME", .help = "how long an event is a worker's (30s)"},     \
        {.name = "--max-hold", .value = "TIME", .help = "how long renewing can go on (12h)"},      \
        {.name = "--max-age",                                                                      \
         .value = "TIME",                                                                          \
         .help = "older: to the dead letters; 0: never (0)"},                                      \
        {.name = "--max-fails",                                                                    \
         .value = "N",                                                                             \
         .help = "fails until the dead letters; 0: never (20)"},                                   \
        {.name = "--backoff",                                                                      \
         .value = "MIN..MAX[xF]",                                                                  \
         .help = "pauses after fails (1s..10mx2), or a list: 1s,5s,1m"},                           \
        {.name = "--jitter", .value = "0..1", .help = "up to so much of a pause more (0.1)"},      \
        {.name = "--rate", .value = "N", .help = "events a second at most; 0: no limit (0)"},      \
        {.name = "--order",                                                                        \
         .value = "HOW",                                                                           \
         .help = "none, key (the subject) or key:user_metadata.NAME (none)"},                      \
    {                                                                                              \
        .name = "--lag", .value = "HOW",                                                           \
        .help = "what retention does when it lags: block or expire (block)"                        \
    }

static const struct option sub_create_options[] = {
    POLICY_OPTIONS,
    {.name = "--start", .value = "WHERE", .help = "new, first, a seq or a time (new)"},
    END};

static const struct option sub_update_options[] = {POLICY_OPTIONS, END};

static const struct option sub_seek_options[] = {
    {.name = "--to", .value = "WHERE", .help = "new, first, a seq, or a time (2h: so long ago)"},
    {.name = "--yes", .help = "do not ask"},
    END};

static const struct option sub_rm_options[] = {{.name = "--yes", .help = "do not ask"}, END};

static const struct option top_options[] = {
    {.name = "--interval", .value = "TIME", .help = "between two looks (1s)"},
    {.name = "--once", .help = "print it once and end"},
    {.name = "--sort", .value = "HOW", .help = "trouble (first) or name (trouble)"},
    END};

static const struct option publish_options[] = {
    {.name = "--type", .value = "T", .help = "the event's type, such as order.paid"},
    {.name = "--subject", .value = "S", .help = "what it is about, such as order-17"},
    {.name = "--id", .value = "ID", .help = "makes publishing again harmless"},
    {.name = "--metadata", .value = "JSON", .help = "an object that travels along"},
    {.name = "--webhook-uri",
     .value = "URI",
     .help = "delivers it there, not to the registered webhooks",
     .many = true},
    {.name = "--delay", .value = "TIME", .help = "deliver it so much later, up to 30d"},
    {.name = "--at", .value = "TIME", .help = "deliver it then: 2026-11-21T09:00:00Z"},
    {.name = "--file", .value = "F", .help = "the data is in this file"},
    {.name = "--ndjson", .help = "read one event per line from stdin"},
    END};

static const struct option send_options[] = {
    {.name = "--secret", .value = "whsec_...", .help = "signs; or BELLHOP_SECRET"},
    {.name = "--id", .value = "ID", .help = "the webhook-id (a new one)"},
    {.name = "--timestamp", .value = "T", .help = "unix seconds or a time (now)"},
    {.name = "--content-type", .value = "T", .help = "(application/json when the body is JSON)"},
    {.name = "--file", .value = "F", .help = "the body is in this file"},
    END};

static const struct option work_options[] = {
    {.name = "--concurrency", .value = "N", .help = "programs that run at once (1)"},
    {.name = "--count", .value = "N", .help = "stop after N settled events"},
    {.name = "--window", .value = "N", .help = "events held here, waiting ones too (2 x N)"},
    {.name = "--lease", .value = "TIME", .help = "of this worker's events (the subscription's)"},
    {.name = "--resume", .value = "TIME", .help = "keep them over a lost connection (5s)"},
    {.name = "--quiet", .help = "print nothing about the events"},
    END};

static const struct option listen_options[] = {
    {.name = "--forward", .value = "URL", .help = "where each event is POSTed"},
    FILTER_OPTIONS,
    {.name = "--from", .value = "WHERE", .help = "new, first, a seq or a time (new)"},
    {.name = "--subscription", .value = "NAME", .help = "use this one, or make it (a new one)"},
    {.name = "--secret", .value = "whsec_...", .help = "signs; or BELLHOP_SECRET (a new one)"},
    {.name = "--concurrency", .value = "N", .help = "requests that run at once (1)"},
    {.name = "--count", .value = "N", .help = "stop after N events"},
    END};

static const struct option job_put_options[] = {
    {.name = "--uri",
     .value = "URI",
     .help = "its events go there, not to the registered webhooks",
     .many = true},
    {.name = "--metadata", .value = "JSON", .help = "an object that travels with its events"},
    {.name = "--ttl", .value = "TIME", .help = "without a final event it is overdue then (48h)"},
    END};

static const struct option wait_options[] = {
    {.name = "--timeout", .value = "TIME", .help = "how long at most; 0: only look (60s)"},
    {.name = "--type",
     .value = "GLOB",
     .help = "events that count (what ends it or asks for action)",
     .many = true},
    {.name = "--after-seq", .value = "N", .help = "only events above it"},
    END};

static const struct option tail_options[] = {
    {.name = "--from", .value = "N", .help = "begin at this seq (at the end)"},
    {.name = "--type", .value = "GLOB", .help = "only these types"},
    {.name = "--source", .value = "S", .help = "only events of this source"},
    {.name = "--count", .value = "N", .help = "stop after N events"},
    END};

static const struct option replay_options[] = {
    {.name = "--from", .also = "--from-seq", .value = "SEQ", .help = "the first event"},
    {.name = "--to", .also = "--to-seq", .value = "SEQ", .help = "the last event (the newest now)"},
    {.name = "--since", .value = "TIME", .help = "RFC 3339, or how long ago: 2h"},
    {.name = "--until", .value = "TIME", .help = "likewise (now)"},
    FILTER_OPTIONS,
    {.name = "--rate", .value = "N", .help = "events a second at most (no limit)"},
    {.name = "--dry-run", .help = "only count, and wait for the count"},
    {.name = "--wait", .help = "return when every event is settled"},
    END};

static const struct option dlq_ls_options[] = {
    {.name = "--type", .value = "GLOB", .help = "only these types"},
    {.name = "--subject-prefix", .value = "TEXT", .help = "only subjects that begin so"},
    {.name = "--reason", .value = "R", .help = "max_fails, expired or rejected"},
    {.name = "--filter", .value = "JSON|@FILE", .help = "only events that match"},
    END};

static const struct option dlq_show_options[] = {
    {.name = "--replay", .value = "ID", .help = "the one that this replay fed"}, END};

/* Which dead letters. */
#define LETTER_OPTIONS                                                                             \
    {.name = "--seq", .value = "N", .help = "this one"}, {.name = "--all", .help = "all of them"}, \
        FILTER_OPTIONS

static const struct option dlq_redrive_options[] = {
    LETTER_OPTIONS,
    {.name = "--rate", .value = "N", .help = "events a second at most (no limit)"},
    {.name = "--wait", .help = "return when they are given back"},
    END};

static const struct option dlq_purge_options[] = {
    LETTER_OPTIONS,
    {.name = "--yes", .help = "do not ask"},
    {.name = "--wait", .help = "return when they are removed"},
    END};

static const struct option retention_set_options[] = {
    {.name = "--max-age", .value = "TIME", .help = "of events; 0: no limit"},
    {.name = "--max-bytes", .value = "SIZE", .help = "of the journal, such as 10g; 0: no limit"},
    {.name = "--dead-max-age", .value = "TIME", .help = "of dead letters; 0: no limit"},
    END};

const struct command commands[] = {
    {.name = "status",
     .usage = "",
     .summary = "what the broker is doing",
     .example = "bellhop status",
     .options = no_options,
     .run = cmd_status},
    {.name = "top",
     .usage = "[--interval TIME] [--once] [--sort HOW]",
     .summary = "watch the subscriptions live",
     .details = "On a terminal it is drawn in place until q or Ctrl-C; anywhere else it is printed "
                "once. With "
                "--json\nan object is printed per interval. BACKLOG is what the subscription has "
                "not read yet, READY what\nit has and hands out next. In trouble first: what holds "
                "retention up, then the most blocked,\ndead, and the oldest. Below 100 columns "
                "there is no BLOCKED, and names are cut.",
     .example = "bellhop top --interval 2s",
     .options = top_options,
     .run = cmd_top},
    {.name = "source add",
     .usage = "NAME [--scheme S] [--secret TEXT]... [--set KEY=VALUE]...",
     .summary = "open a door for a provider's webhooks",
     .details =
         "Schemes: standard-webhooks, gemini, openai, github, stripe, slack, shopify, twilio, "
         "hmac,\nbearer, none. Their options: docs/providers.md.",
     .example = "bellhop source add gemini\n"
                "  bellhop source add calls --scheme twilio --secret TOKEN "
                "--set public_url=https://hooks.example/in/calls",
     .options = source_add_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_source_add},
    {.name = "source show",
     .usage = "NAME",
     .summary = "show a door: its secrets' ends, options, keys and counts",
     .example = "bellhop source show gemini",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_source_show},
    {.name = "source update",
     .usage = "NAME [--secret TEXT]... [--add-secret TEXT]... [--expire-previous TIME]\n"
              "           [--set KEY=VALUE]...",
     .summary = "change the secrets or options of a door",
     .example = "bellhop source update gemini --add-secret whsec_... --expire-previous 24h",
     .options = source_update_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_source_update},
    {.name = "source test",
     .usage = "NAME [--body F] [--header 'NAME: VALUE']... [--query TEXT] [--at TIME]",
     .summary = "say whether a saved request would be taken in, and why not",
     .details = "Nothing is journaled. Exits with 1 when it would be refused.",
     .example =
         "bellhop source test gh --body push.json --header 'X-Hub-Signature-256: sha256=...'",
     .options = source_test_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_source_test},
    {.name = "source ls",
     .usage = "",
     .summary = "list the sources",
     .example = "bellhop source ls",
     .options = no_options,
     .run = cmd_source_ls},
    {.name = "source rm",
     .usage = "NAME",
     .summary = "close a door; its events stay",
     .example = "bellhop source rm gemini",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_source_rm},
    {.name = "key create",
     .usage = "NAME --scope S [--scope S]... [--project P] [--source GLOB]...\n"
              "           [--subscription GLOB]... [--expire TIME]",
     .summary = "make a key; it is shown once",
     .details =
         "Scopes: publish journals events; consume reads, and works on subscriptions; manage makes "
         "and\nchanges sources, subscriptions and webhooks; admin is all of these, and keys.\n"
         "The first key must be one of the project default with the scope admin. From then on the "
         "broker\nasks everybody for one: BELLHOP_KEY holds the one that this program sends.",
     .example = "bellhop key create ops --scope admin\n"
                "  bellhop key create billing --scope consume --subscription 'billing.*' --expire "
                "90d\n"
                "  bellhop key create team-a-admin --scope admin --project team-a",
     .options = key_create_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_key_create},
    {.name = "key ls",
     .usage = "[--project P]",
     .summary = "list the keys, without what is secret of them",
     .example = "bellhop key ls",
     .options = key_ls_options,
     .run = cmd_key_ls},
    {.name = "key revoke",
     .usage = "ID [--force] [--yes]",
     .summary = "end a key at once, with its sessions",
     .example = "bellhop key revoke akx3ce1ez3ei",
     .options = key_revoke_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_key_revoke},
    {.name = "project create",
     .usage = "NAME",
     .summary = "make a project: names, events and keys of its own",
     .details = "A key speaks for one project and sees nothing of the others. This needs a key of "
                "the project\ndefault with the scope admin.",
     .example = "bellhop project create billing\n"
                "  bellhop key create billing-admin --scope admin --project billing",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_project_create},
    {.name = "project ls",
     .usage = "",
     .summary = "list the projects",
     .example = "bellhop project ls",
     .options = no_options,
     .run = cmd_project_ls},
    {.name = "project show",
     .usage = "NAME",
     .summary = "show a project: what it has, and its counts",
     .example = "bellhop project show billing",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_project_show},
    {.name = "project rm",
     .usage = "NAME [--yes]",
     .summary = "delete a project that has nothing left",
     .example = "bellhop project rm billing",
     .options = project_rm_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_project_rm},
    {.name = "sub create",
     .usage = "NAME [--type GLOB]... [--source NAME]... [--subject-prefix TEXT]\n"
              "           [--meta KEY=VALUE]... [--filter JSON|@FILE] [--lease TIME] "
              "[--max-hold TIME]\n"
              "           [--max-age TIME] [--max-fails N] [--backoff MIN..MAX[xF]] [--jitter J] "
              "[--rate N]\n"
              "           [--order HOW] [--lag HOW] [--start WHERE]",
     .summary = "create a subscription",
     .details = "Creating one that exists with the same policy is harmless; with another policy it "
                "is\nrefused. Every option of the filter must hold; --filter can say more than "
                "they can:\n"
                "{\"any\":[{\"types\":[\"batch.*\"]},{\"user_metadata\":{\"priority\":\"high\"}}]}",
     .example = "bellhop sub create batches --type 'batch.*' --meta priority=high --lease 5m\n"
                "  bellhop sub create mail --backoff 1s,5s,1m --max-fails 4 --max-age 1d\n"
                "  bellhop sub create accounts --order key:user_metadata.account --start first",
     .options = sub_create_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_sub_create},
    {.name = "sub update",
     .usage = "NAME [--type GLOB]... [--source NAME]... [--subject-prefix TEXT]\n"
              "           [--meta KEY=VALUE]... [--filter JSON|@FILE] [--lease TIME] "
              "[--max-hold TIME]\n"
              "           [--max-age TIME] [--max-fails N] [--backoff MIN..MAX[xF]] [--jitter J] "
              "[--rate N]\n"
              "           [--order HOW] [--lag HOW]",
     .summary = "change the policy of a subscription",
     .details = "What is not named stays. The filter and the backoff are replaced as a whole; "
                "--filter '{}' takes\neverything. Where it reads on is changed by: bellhop sub "
                "seek.",
     .example = "bellhop sub update batches --lease 10m --rate 50",
     .options = sub_update_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_sub_update},
    {.name = "sub ls",
     .usage = "",
     .summary = "list the subscriptions",
     .example = "bellhop sub ls",
     .options = no_options,
     .run = cmd_sub_ls},
    {.name = "sub show",
     .usage = "NAME",
     .summary = "how a subscription is defined",
     .example = "bellhop sub show batches",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_sub_show},
    {.name = "sub stats",
     .usage = "NAME",
     .summary = "how a subscription runs, with why it is idle, and its definition",
     .example = "bellhop sub stats batches",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_sub_stats},
    {.name = "sub pause",
     .usage = "NAME",
     .summary = "hand nothing out, keep the queue",
     .details = "It stays so over a restart of the broker. What workers have can be settled.",
     .example = "bellhop sub pause batches",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_sub_pause},
    {.name = "sub resume",
     .usage = "NAME",
     .summary = "hand out again",
     .example = "bellhop sub resume batches",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_sub_resume},
    {.name = "sub seek",
     .usage = "NAME --to {new|first|SEQ|TIME} [--yes]",
     .summary = "move where a subscription reads on",
     .details = "What it has out is forgotten: the leases are revoked, and its retries are not "
                "made. Delayed\nevents, dead letters and replays stay. To see events again "
                "without moving it: bellhop replay.",
     .example = "bellhop sub seek batches --to 2026-11-21T09:00:00Z",
     .options = sub_seek_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_sub_seek},
    {.name = "sub rm",
     .usage = "NAME [--yes]",
     .summary = "delete a subscription, its retries, delayed events and dead letters",
     .example = "bellhop sub rm batches",
     .options = sub_rm_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_sub_rm},
    {.name = "publish",
     .usage = "--type T [--subject S] [--id ID] [--metadata JSON] [--webhook-uri URI]...\n"
              "           [--delay TIME | --at TIME] [DATA | --file F | -]\n"
              "       bellhop publish --ndjson",
     .summary = "journal an event",
     .details = "DATA is JSON; \"-\" reads it from stdin. With --ndjson each line of stdin is an "
                "object\nas POST /v1/events takes it: {\"type\":\"order.paid\",\"data\":{...}}; "
                "they are sent in\nbatches of up to 500.",
     .example = "bellhop publish --type order.paid --id order-17 '{\"total\":12}'\n"
                "  bellhop publish --type reminder.due --delay 10m '{\"order\":17}'",
     .options = publish_options,
     .words_max = 1,
     .run = cmd_publish},
    {.name = "send",
     .usage = "[PROJECT/]SOURCE [--secret whsec_...] [--id ID] [--timestamp T]\n"
              "           {BODY | --file F | -}",
     .summary = "sign a body like a provider and post it to a source",
     .details =
         "Signs by Standard Webhooks (v1). A secret on the command line can be seen by other "
         "users\nof the machine; BELLHOP_SECRET cannot.",
     .example = "bellhop send gemini '{\"type\":\"batch.succeeded\",\"data\":{\"id\":\"b1\"}}'",
     .options = send_options,
     .words_min = 1,
     .words_max = 2,
     .run = cmd_send},
    {.name = "work",
     .usage = "SUB [--concurrency N] [--count N] [--window N] [--lease TIME]\n"
              "           [--resume TIME] [--quiet] -- CMD [ARG...]",
     .summary = "run a program for each event",
     .details =
         "CMD gets the body on stdin, and BELLHOP_ID, BELLHOP_TYPE, BELLHOP_SEQ, BELLHOP_SUBJECT,\n"
         "BELLHOP_ATTEMPT, BELLHOP_SOURCE and BELLHOP_METADATA in its environment.\n"
         "  exit 0        acknowledges\n"
         "  exit 65       rejects: to the dead letters now\n"
         "  anything else fails: again after the backoff\n"
         "The last lines of stderr are kept with a failure. The lease is renewed while CMD runs, "
         "up "
         "to the\nsubscription's max hold. CMD does not notice a lost connection or a restart of "
         "the "
         "broker when it\nis back within --resume; with --resume 0 its event goes to somebody "
         "else. "
         "SIGINT or SIGTERM: what\nruns is finished, nothing more is taken; the second one kills "
         "what "
         "runs and gives its events back.",
     .example = "bellhop work batches --concurrency 4 --lease 10m -- ./handle-batch.sh",
     .options = work_options,
     .words_min = 1,
     .words_max = 1,
     .takes_program = true,
     .run = cmd_work},
    {.name = "listen",
     .usage =
         "--forward URL [--type GLOB]... [--source NAME]... [--subject-prefix TEXT]\n"
         "           [--meta KEY=VALUE]... [--filter JSON|@FILE] [--from WHERE] "
         "[--subscription NAME]\n           [--secret whsec_...] [--concurrency N] [--count N]",
     .summary = "POST events to an HTTP server nearby, as webhooks",
     .details = "For development without a public address. What the server gets is what a webhook "
                "would bring:\nthe same body, signed by Standard Webhooks v1. A 2xx acknowledges; "
                "anything else is a fail, and the\nevent comes again after the subscription's "
                "backoff. A subscription that is made here is deleted at\nthe end.",
     .example = "bellhop listen --forward http://127.0.0.1:3000/hook --type 'batch.*'",
     .options = listen_options,
     .run = cmd_listen},
    {.name = "webhook create",
     .usage = "URI --event GLOB... [--name TEXT] [--description TEXT]\n"
              "           [--header NAME:VALUE]... [--rate N] [--concurrency N] "
              "[--filter JSON|@FILE]",
     .summary = "deliver events to a URI, signed",
     .details = "The secret is made here and shown once: bellhop webhook rotate makes another. "
                "The receiver\nverifies with it: docs/receiving.md.",
     .example = "bellhop webhook create https://example.com/hook --event 'batch.*' --name batches",
     .options = webhook_create_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_webhook_create},
    {.name = "webhook ls",
     .usage = "",
     .summary = "list the webhooks",
     .example = "bellhop webhook ls",
     .options = no_options,
     .run = cmd_webhook_ls},
    {.name = "webhook show",
     .usage = "ID",
     .summary = "how a webhook is defined, and how it does",
     .example = "bellhop webhook show k0h9q38f6ejj1g9j7cgcdsauadmbewegl79f",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_webhook_show},
    {.name = "webhook update",
     .usage = "ID [--uri URI] [--event GLOB]... [--name TEXT] [--description TEXT]\n"
              "           [--header NAME:VALUE]... [--rate N] [--concurrency N] "
              "[--filter JSON|@FILE] [--state S]",
     .summary = "change a webhook",
     .details = "What is not named stays. The events, the headers and the filter are replaced as a "
                "whole.",
     .example = "bellhop webhook update ID --event 'batch.*' --event video.generated",
     .options = webhook_update_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_webhook_update},
    {.name = "webhook rm",
     .usage = "ID [--yes]",
     .summary = "delete a webhook, its undelivered events and its dead letters",
     .example = "bellhop webhook rm ID",
     .options = sub_rm_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_webhook_rm},
    {.name = "webhook ping",
     .usage = "ID",
     .summary = "send webhook.ping now, whatever the webhook's state",
     .example = "bellhop webhook ping ID",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_webhook_ping},
    {.name = "webhook rotate",
     .usage = "ID [--now]",
     .summary = "give a webhook a new secret",
     .details = "For 24 hours deliveries are signed with the secrets before as well, so that the "
                "receiver can change\nover; with --now they are not.",
     .example = "bellhop webhook rotate ID",
     .options = webhook_rotate_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_webhook_rotate},
    {.name = "webhook enable",
     .usage = "ID",
     .summary = "deliver again, also after it was disabled by failures",
     .example = "bellhop webhook enable ID",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_webhook_enable},
    {.name = "webhook disable",
     .usage = "ID",
     .summary = "deliver nothing; what waits grows old",
     .example = "bellhop webhook disable ID",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_webhook_disable},
    {.name = "webhook pause",
     .usage = "ID",
     .summary = "deliver nothing for a while; what waits does not grow old",
     .example = "bellhop webhook pause ID",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_webhook_pause},
    {.name = "webhook resume",
     .usage = "ID",
     .summary = "deliver again after a pause",
     .example = "bellhop webhook resume ID",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_webhook_resume},
    {.name = "webhook attempts",
     .usage = "ID",
     .summary = "what became of its latest deliveries, newest first",
     .example = "bellhop webhook attempts ID",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_webhook_attempts},
    {.name = "webhook resend",
     .usage = "ID SEQ",
     .summary = "deliver one event again",
     .details = "It has the webhook-id that it had before, so that a receiver can tell.",
     .example = "bellhop webhook resend ID 17",
     .options = no_options,
     .words_min = 2,
     .words_max = 2,
     .run = cmd_webhook_resend},
    {.name = "webhook recover",
     .usage = "ID --since TIME",
     .summary = "deliver again what ended as a dead letter since then",
     .example = "bellhop webhook recover ID --since 2d",
     .options = webhook_recover_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_webhook_recover},
    {.name = "webhook keys",
     .usage = "",
     .summary = "list the keys that sign deliveries to URIs that events bring",
     .example = "bellhop webhook keys",
     .options = no_options,
     .run = cmd_webhook_keys},
    {.name = "webhook rotate-key",
     .usage = "",
     .summary = "sign with the next key, and publish another one ahead",
     .example = "bellhop webhook rotate-key",
     .options = no_options,
     .run = cmd_webhook_rotate_key},
    {.name = "webhook endpoints",
     .usage = "",
     .summary = "list the endpoints that events brought, as far as they are known now",
     .example = "bellhop webhook endpoints",
     .options = no_options,
     .run = cmd_webhook_endpoints},
    {.name = "event-types",
     .usage = "",
     .summary = "the event types that are known, with what their data holds",
     .details = "Types are open: any other can be published and subscribed to as well.",
     .example = "bellhop event-types",
     .options = no_options,
     .run = cmd_event_types},
    {.name = "job put",
     .usage = "ID [--uri URI]... [--metadata JSON] [--ttl TIME]",
     .summary = "register a job before it starts",
     .details =
         "Events whose subject is the ID are its events: they take its URIs and metadata, "
         "and can be waited\nfor. Without a final event within the time to live, job.overdue "
         "is published.",
     .example = "bellhop job put batches/123 --uri https://example.com/done --ttl 24h",
     .options = job_put_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_job_put},
    {.name = "job show",
     .usage = "ID",
     .summary = "the state of a job, and its events",
     .example = "bellhop job show batches/123",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_job_show},
    {.name = "wait",
     .usage = "JOB [--timeout TIME] [--type GLOB]... [--after-seq N]",
     .summary = "wait for the event of a job, without polling",
     .details =
         "Ends the moment the event is there, and prints it: exit code 0, whatever the event "
         "says. 75: nothing\ncame within the time. 1: the broker refused, such as for a job "
         "that is not registered.",
     .example = "bellhop wait batches/123 --timeout 10m",
     .options = wait_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_wait},
    {.name = "tail",
     .usage = "[--from N] [--type GLOB] [--source S] [--count N]",
     .summary = "follow the journal",
     .example = "bellhop tail --type 'batch.*'",
     .options = tail_options,
     .run = cmd_tail},
    {.name = "replay",
     .usage = "SUB {--from SEQ [--to SEQ] | --since TIME [--until TIME]} [--type GLOB]...\n"
              "           [--source NAME]... [--subject-prefix TEXT] [--meta KEY=VALUE]... "
              "[--filter JSON|@FILE]\n           [--rate N] [--dry-run] [--wait]",
     .summary = "feed a range of the journal to a subscription again",
     .details =
         "The live position of the subscription does not move. What is fed must also pass the "
         "subscription's own filter.\nSee also: bellhop replay ls, replay show, replay cancel.",
     .example = "bellhop replay audit --since 2h --type 'order.*' --dry-run\n"
                "  bellhop replay audit --since 2h --type 'order.*' --rate 50 --wait",
     .options = replay_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_replay},
    {.name = "replay ls",
     .usage = "",
     .summary = "list the replays, dry runs, redrives and purges",
     .example = "bellhop replay ls",
     .options = no_options,
     .run = cmd_replay_ls},
    {.name = "replay show",
     .usage = "ID",
     .summary = "how far a replay, redrive or purge is",
     .example = "bellhop replay show 7",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_replay_show},
    {.name = "replay cancel",
     .usage = "ID",
     .summary = "stop a replay, redrive or purge where it is",
     .details = "It feeds nothing more; what is with workers stays theirs until they settle it.",
     .example = "bellhop replay cancel 7",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_replay_cancel},
    {.name = "dlq ls",
     .usage = "SUB [--type GLOB] [--subject-prefix TEXT] [--reason R] [--filter JSON|@FILE]",
     .summary = "list the dead letters of a subscription",
     .example = "bellhop dlq ls batches --reason max_fails",
     .options = dlq_ls_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_dlq_ls},
    {.name = "dlq show",
     .usage = "SUB SEQ [--replay ID]",
     .summary = "a dead letter with its error and the body of its event",
     .example = "bellhop dlq show batches 18",
     .options = dlq_show_options,
     .words_min = 2,
     .words_max = 2,
     .run = cmd_dlq_show},
    {.name = "dlq redrive",
     .usage = "SUB {--seq N | --all | [--type GLOB]... [--source NAME]...\n"
              "           [--subject-prefix TEXT] [--meta KEY=VALUE]... | --filter JSON|@FILE}\n   "
              "        [--rate N] [--wait]",
     .summary = "give dead letters back to their subscription",
     .details = "They start again with no fail counted. Dead letters that come later are not part "
                "of it. How "
                "far it is:\nbellhop replay show ID.",
     .example = "bellhop dlq redrive batches --type 'batch.*' --rate 20 --wait",
     .options = dlq_redrive_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_dlq_redrive},
    {.name = "dlq purge",
     .usage = "SUB {--seq N | --all | [--type GLOB]... [--source NAME]...\n"
              "           [--subject-prefix TEXT] [--meta KEY=VALUE]... | --filter JSON|@FILE}\n   "
              "        [--yes] [--wait]",
     .summary = "remove dead letters for good",
     .example = "bellhop dlq purge batches --seq 18",
     .options = dlq_purge_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_dlq_purge},
    {.name = "retention show",
     .usage = "",
     .summary = "how long events and dead letters are kept, and what is there",
     .example = "bellhop retention show",
     .options = no_options,
     .run = cmd_retention_show},
    {.name = "retention set",
     .usage = "[--max-age TIME] [--max-bytes SIZE] [--dead-max-age TIME]",
     .summary = "set how long events and dead letters are kept",
     .details = "What the broker was started with counts where it is smaller. What is leased "
                "or, with --lag\nblock, unread is kept; delayed events and dead letters have a "
                "copy of their own.",
     .example = "bellhop retention set --max-age 7d --max-bytes 10g --dead-max-age 30d",
     .options = retention_set_options,
     .run = cmd_retention_set},
};

const size_t commands_count = sizeof(commands) / sizeof(commands[0]);
