/* bellhop: the command line of the Bellhop webhook event broker. Finds the command in the table,
 * parses its words, opens the connection, runs it; and everything that `help` prints. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/cli/commands.h"
#include "clients/cli/http.h"
#include "clients/cli/output.h"

#define NAMES_MAX 96

void cli_complain(const char *fmt, ...) {
    va_list list;
    va_start(list, fmt);
    char *text = text_vprintf(fmt, list);
    va_end(list);
    /* Our own line ends stay; everything else that is not text goes. */
    fflush(stdout);
    fputs("bellhop: ", stderr);
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) != NULL) {
        text_clean(line);
        fprintf(stderr, "%s\n", line);
    }
    free(text);
}

static void print_overview(FILE *out) {
    fputs(
        "bellhop: the command line of the Bellhop webhook event broker\n\n"
        "usage: bellhop COMMAND [ARG...]\n\n",
        out);
    for (size_t i = 0; i < commands_count; i++) {
        fprintf(out, "  %-18s %s\n", commands[i].name, commands[i].summary);
    }
    fputs(
        "  help               this text, or that of a command: bellhop help work\n"
        "\n"
        "Every command takes --help, and --json for one JSON object per line.\n"
        "\n"
        "environment:\n"
        "  BELLHOP_URL      the broker's HTTP address (" CLI_URL_DEFAULT
        ")\n"
        "  BELLHOP_WORKERS  HOST:PORT of its worker port, when it is not the one it reports\n"
        "  BELLHOP_CA       PEM file of the authorities to trust with https, instead of the "
        "system's\n"
        "  BELLHOP_CERT, BELLHOP_CERT_KEY\n"
        "                   PEM files of a certificate and its key, for a broker that wants one\n"
        "  BELLHOP_KEY      the key, where the broker asks for one: bh_...\n"
        "  BELLHOP_SECRET   signs what `send` and `listen` send, instead of --secret\n"
        "  NO_COLOR         no colours on a terminal\n"
        "\n"
        "exit codes:\n"
        "  0   done\n"
        "  1   the broker refused, with its message and code on stderr; or you said no\n"
        "  64  unknown command or flag, or a value that cannot be\n"
        "  65  the input is not what it must be, such as JSON\n"
        "  66  a file cannot be read\n"
        "  69  no broker answers; for `work`: the program cannot be started\n"
        "  70  the broker's answer cannot be understood\n"
        "  74  writing to stdout failed\n"
        "  75  `wait`: nothing came within the time\n"
        "  128+N  `work` or `listen` was told twice to stop, the second time by signal N\n",
        out);
}

static void print_options(const struct option *options) {
    for (const struct option *o = options; o != NULL && o->name != NULL; o++) {
        char *left = text_printf("%s%s%s%s%s", o->name, o->also != NULL ? ", " : "",
                                 o->also != NULL ? o->also : "", o->value != NULL ? " " : "",
                                 o->value != NULL ? o->value : "");
        printf("  %-26s %s%s\n", left, o->help, o->many ? " (may be repeated)" : "");
        free(left);
    }
}

static void print_help(const struct command *command) {
    printf("bellhop %s: %s\n\nusage: bellhop %s%s%s\n\n", command->name, command->summary,
           command->name, command->usage[0] != '\0' ? " " : "", command->usage);
    print_options(command->options);
    print_options(args_common);
    if (command->details != NULL) printf("\n%s\n", command->details);
    printf("\nexample:\n  %s\n", command->example);
}

/* The commands whose name begins with the word `group`, such as "source". */
static bool print_group(FILE *out, const char *group) {
    size_t len = strlen(group);
    bool any = false;
    for (size_t i = 0; i < commands_count; i++) {
        const char *name = commands[i].name;
        if (strncmp(name, group, len) != 0 || (name[len] != ' ' && name[len] != '\0')) continue;
        fprintf(out, "  bellhop %s%s%s\n      %s\n", name, commands[i].usage[0] != '\0' ? " " : "",
                commands[i].usage, commands[i].summary);
        any = true;
    }
    return any;
}

static bool is_help(const char *word) {
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
}

/* The command named by the first one or two words; *used: how many of them. The longer name wins:
 * `replay ls` is not a replay to a subscription called ls. */
static const struct command *find_command(int argc, char **argv, int *used) {
    const struct command *found = NULL;
    for (size_t i = 0; i < commands_count; i++) {
        const char *name = commands[i].name;
        size_t len = strlen(argv[0]);
        if (strcmp(name, argv[0]) == 0 && found == NULL) {
            found = &commands[i];
            *used = 1;
        } else if (argc > 1 && strncmp(name, argv[0], len) == 0 && name[len] == ' ' &&
                   strcmp(name + len + 1, argv[1]) == 0) {
            found = &commands[i];
            *used = 2;
        }
    }
    return found;
}

static bool is_group(const char *word) {
    size_t len = strlen(word);
    for (size_t i = 0; i < commands_count; i++) {
        if (strncmp(commands[i].name, word, len) == 0 && commands[i].name[len] == ' ') return true;
    }
    return false;
}

/* The command that was meant, as "source add" or only "source"; NULL: no idea. The caller frees. */
static char *guess(int argc, char **argv) {
    const char *names[NAMES_MAX], *seconds[NAMES_MAX];
    char *firsts[NAMES_MAX];
    bool group = is_group(argv[0]);
    CHECK(commands_count <= NAMES_MAX);
    for (size_t i = 0; i < commands_count; i++) {
        names[i] = commands[i].name;
        firsts[i] = text_printf("%.*s", (int)strcspn(names[i], " "), names[i]);
        /* Only the second word is in doubt when the first is that of a group. */
        bool inside = group && strcmp(firsts[i], argv[0]) == 0 && strchr(names[i], ' ') != NULL;
        seconds[i] = inside ? strchr(names[i], ' ') + 1 : "";
    }
    const char *nearest = NULL;
    if (argc > 1 && group) {
        nearest = args_nearest(argv[1], seconds, commands_count);
        for (size_t i = 0; nearest != NULL && i < commands_count; i++) {
            if (seconds[i] == nearest) nearest = names[i];
        }
    } else if (argc > 1) {
        char *both = text_printf("%s %s", argv[0], argv[1]);
        nearest = args_nearest(both, names, commands_count);
        free(both);
    }
    if (nearest == NULL) {
        nearest = args_nearest(argv[0], (const char *const *)firsts, commands_count);
    }
    char *copy = nearest != NULL ? mem_strdup(nearest) : NULL;
    for (size_t i = 0; i < commands_count; i++) free(firsts[i]);
    return copy;
}

static int unknown_command(int argc, char **argv) {
    bool group = is_group(argv[0]);
    if (group && argc == 1) {
        fprintf(stderr, "bellhop: %s what?\n\n", argv[0]);
        print_group(stderr, argv[0]);
        return CLI_USAGE;
    }
    if (group && is_help(argv[1])) {
        print_group(stdout, argv[0]);
        return CLI_OK;
    }
    char *meant = guess(argc, argv);
    const char *second = group ? argv[1] : "";
    if (meant != NULL && strcmp(meant, argv[0]) != 0) {
        cli_complain("unknown command '%s%s%s'; did you mean: bellhop %s", argv[0],
                     group ? " " : "", second, meant);
    } else {
        cli_complain("unknown command '%s%s%s'; see: bellhop help%s%s", argv[0], group ? " " : "",
                     second, group ? " " : "", group ? argv[0] : "");
    }
    free(meant);
    return CLI_USAGE;
}

static int help(int argc, char **argv) {
    int used = 0;
    if (argc == 0 || is_help(argv[0])) {
        print_overview(stdout);
        return CLI_OK;
    }
    const struct command *command = find_command(argc, argv, &used);
    if (command != NULL && used == argc) {
        print_help(command);
        return CLI_OK;
    }
    if (argc == 1 && print_group(stdout, argv[0])) return CLI_OK;
    return unknown_command(argc, argv);
}

static int run_command(const struct command *command, const struct args *args) {
    const char *url = getenv("BELLHOP_URL");
    struct cli cli = {
        .tls = {args_get(args, "--ca"), getenv("BELLHOP_CERT"), getenv("BELLHOP_CERT_KEY")},
        .json = args_has(args, "--json"),
        .colour = isatty(STDOUT_FILENO) && getenv("NO_COLOR") == NULL,
    };
    if (url == NULL || url[0] == '\0') url = CLI_URL_DEFAULT;
    if (cli.tls.ca == NULL) cli.tls.ca = getenv("BELLHOP_CA");
    int error = http_open(&cli.http, url, getenv("BELLHOP_KEY"), &cli.tls);
    if (error == 0) error = command->run(&cli, args);
    http_close(&cli.http);
    return error;
}

static int dispatch(int argc, char **argv) {
    if (argc == 0) {
        print_overview(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[0], "--version") == 0 || strcmp(argv[0], "version") == 0) {
        puts("bellhop " BELLHOP_VERSION);
        return CLI_OK;
    }
    if (is_help(argv[0])) return help(argc - 1, argv + 1);
    int used = 0;
    const struct command *command = find_command(argc, argv, &used);
    if (command == NULL && argv[0][0] == '-') {
        cli_complain("unknown flag %s; bellhop help lists the commands", argv[0]);
        return CLI_USAGE;
    }
    if (command == NULL) return unknown_command(argc, argv);
    struct args args;
    int error = args_parse(&args, command, argc - used, argv + used);
    if (error == 0 && args_has(&args, "--help")) {
        print_help(command);
    } else if (error == 0) {
        error = run_command(command, &args);
    }
    args_free(&args);
    return error;
}

int main(int argc, char **argv) {
    int code = dispatch(argc > 0 ? argc - 1 : 0, argv + 1);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == CLI_OK) {
        cli_complain("writing to stdout failed");
        code = CLI_OUTPUT;
    }
    return code;
}
