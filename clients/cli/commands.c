#include "clients/cli/commands.h"

#define END                                                                                        \
    { .name = NULL, }

static const struct option no_options[] = {END};

static const struct option source_add_options[] = {
    {.name = "--scheme", .value = "S", .help = "how requests are verified (standard-webhooks)"},
    {.name = "--secret",
     .value = "whsec_...",
     .help = "a secret of the sender; without one it is made and shown once",
     .many = true},
    END};

static const struct option sub_create_options[] = {
    {.name = "--type", .value = "GLOB", .help = "take these types, such as batch.*", .many = true},
    {.name = "--source", .value = "NAME", .help = "take events of this source", .many = true},
    {.name = "--lease", .value = "TIME", .help = "how long an event is a worker's (30s)"},
    {.name = "--max-fails", .value = "N", .help = "fails until the dead letters; 0: never (20)"},
    {.name = "--backoff", .value = "MIN,MAX,FACTOR", .help = "pauses after fails (1s,10m,2)"},
    {.name = "--start", .value = "WHERE", .help = "new, first, a seq or a time (new)"},
    END};

static const struct option publish_options[] = {
    {.name = "--type", .value = "T", .help = "the event's type, such as order.paid"},
    {.name = "--subject", .value = "S", .help = "what it is about, such as order-17"},
    {.name = "--id", .value = "ID", .help = "makes publishing again harmless"},
    {.name = "--metadata", .value = "JSON", .help = "an object that travels along"},
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
    {.name = "--quiet", .help = "print nothing about the events"},
    END};

static const struct option tail_options[] = {
    {.name = "--from", .value = "N", .help = "begin at this seq (at the end)"},
    {.name = "--type", .value = "GLOB", .help = "only these types"},
    {.name = "--source", .value = "S", .help = "only events of this source"},
    {.name = "--count", .value = "N", .help = "stop after N events"},
    END};

static const struct option replay_options[] = {
    {.name = "--from-seq", .value = "N", .help = "the first event"},
    {.name = "--to-seq", .value = "N", .help = "the last event (the end of the journal now)"},
    {.name = "--since", .value = "TIME", .help = "RFC 3339, or how long ago: 2h"},
    {.name = "--until", .value = "TIME", .help = "likewise (now)"},
    {.name = "--wait", .help = "return when every event is settled"},
    END};

const struct command commands[] = {
    {.name = "status",
     .usage = "",
     .summary = "what the broker is doing",
     .example = "bellhop status",
     .options = no_options,
     .run = cmd_status},
    {.name = "source add",
     .usage = "NAME [--scheme S] [--secret whsec_...]...",
     .summary = "open a door for a provider's webhooks",
     .example = "bellhop source add gemini",
     .options = source_add_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_source_add},
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
    {.name = "sub create",
     .usage = "NAME [--type GLOB]... [--source NAME]... [--lease TIME] [--max-fails N] "
              "[--backoff MIN,MAX,FACTOR] [--start WHERE]",
     .summary = "create a subscription",
     .details = "Creating one that exists with the same policy is harmless; with another policy it "
                "is\nrefused.",
     .example = "bellhop sub create batches --type 'batch.*' --lease 5m --max-fails 5",
     .options = sub_create_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_sub_create},
    {.name = "sub ls",
     .usage = "",
     .summary = "list the subscriptions",
     .example = "bellhop sub ls",
     .options = no_options,
     .run = cmd_sub_ls},
    {.name = "sub show",
     .usage = "NAME",
     .summary = "everything about one subscription",
     .example = "bellhop sub show batches",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_sub_show},
    {.name = "sub rm",
     .usage = "NAME",
     .summary = "delete a subscription, its retries and its dead letters",
     .example = "bellhop sub rm batches",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_sub_rm},
    {.name = "publish",
     .usage = "--type T [--subject S] [--id ID] [--metadata JSON] [DATA | --file F | -]\n"
              "       bellhop publish --ndjson",
     .summary = "journal an event",
     .details = "DATA is JSON; \"-\" reads it from stdin. With --ndjson each line of stdin is an "
                "object\nas POST /v1/events takes it: {\"type\":\"order.paid\",\"data\":{...}}; "
                "they are sent in\nbatches of up to 500.",
     .example = "bellhop publish --type order.paid --id order-17 '{\"total\":12}'",
     .options = publish_options,
     .words_max = 1,
     .run = cmd_publish},
    {.name = "send",
     .usage = "SOURCE [--secret whsec_...] [--id ID] [--timestamp T] {BODY | --file F | -}",
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
     .usage = "SUB [--concurrency N] [--count N] [--window N] [--quiet] -- CMD [ARG...]",
     .summary = "run a program for each event",
     .details =
         "CMD gets the body on stdin, and BELLHOP_ID, BELLHOP_TYPE, BELLHOP_SEQ, BELLHOP_SUBJECT,\n"
         "BELLHOP_ATTEMPT, BELLHOP_SOURCE and BELLHOP_METADATA in its environment.\n"
         "  exit 0        acknowledges\n"
         "  exit 65       rejects: to the dead letters now\n"
         "  anything else fails: again after the backoff; the last line of stderr is kept\n"
         "The lease is renewed while CMD runs. SIGINT or SIGTERM: what runs is finished, nothing "
         "more\nis taken; the second one kills what runs and gives its events back.",
     .example = "bellhop work batches --concurrency 4 -- ./handle-batch.sh",
     .options = work_options,
     .words_min = 1,
     .words_max = 1,
     .takes_program = true,
     .run = cmd_work},
    {.name = "tail",
     .usage = "[--from N] [--type GLOB] [--source S] [--count N]",
     .summary = "follow the journal",
     .example = "bellhop tail --type 'batch.*'",
     .options = tail_options,
     .run = cmd_tail},
    {.name = "replay",
     .usage = "SUB {--from-seq N [--to-seq N] | --since TIME [--until TIME]} [--wait]",
     .summary = "feed a range of the journal to a subscription again",
     .details = "The live position of the subscription does not move.",
     .example = "bellhop replay audit --since 2h --wait",
     .options = replay_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_replay},
    {.name = "replay ls",
     .usage = "",
     .summary = "list the replays",
     .example = "bellhop replay ls",
     .options = no_options,
     .run = cmd_replay_ls},
    {.name = "dlq ls",
     .usage = "SUB",
     .summary = "list the dead letters of a subscription",
     .example = "bellhop dlq ls batches",
     .options = no_options,
     .words_min = 1,
     .words_max = 1,
     .run = cmd_dlq_ls},
};

const size_t commands_count = sizeof(commands) / sizeof(commands[0]);
