/* args.h: the words of a command line, held against what the command takes.
 *
 * `struct command` is constant data (commands.c). `struct args` is owned by main from args_parse
 * to args_free and borrows the words of argv. Options may stand before and after the other words,
 * as `--name value` or `--name=value`; `--` ends them. --json and --help are known to every
 * command.
 *
 * May call: cli, base. */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include <stddef.h>

#include "clients/cli/cli.h"

struct option {
    const char *name;  /* "--type"; NULL ends a list */
    const char *also;  /* another name for it, or NULL; args_get knows it by the first */
    const char *value; /* what its value is called in the help; NULL: it takes none */
    const char *help;
    bool many; /* may be given more than once */
};

struct args;

struct command {
    const char *name;  /* "source add" */
    const char *usage; /* what follows the name, without --json and --help */
    const char *summary;
    const char *details; /* more lines for --help, or NULL */
    const char *example;
    const struct option *options;
    size_t words_min, words_max;
    bool takes_program; /* `-- CMD [ARG...]` must follow */
    int (*run)(struct cli *cli, const struct args *args);
};

struct arg_value {
    const struct option *option;
    const char *value; /* "" for an option that takes none */
};

struct args {
    const char **words; /* neither options nor their values */
    size_t words_count;
    struct arg_value *values;
    size_t values_count;
    char **program; /* after `--` where the command takes one; ends with NULL */
    size_t program_count;
};

/* Parses argv[0..argc), what follows the command's name. 0, or CLI_USAGE after saying which word
 * is wrong. Free with args_free in either case. */
int args_parse(struct args *args, const struct command *command, int argc, char **argv);
void args_free(struct args *args);

bool args_has(const struct args *args, const char *option);
/* The option's value; NULL when it was not given. */
const char *args_get(const struct args *args, const char *option);
/* The values of an option that may be repeated, one per call, from *at = 0; NULL: no more. */
const char *args_next(const struct args *args, const char *option, size_t *at);
/* The i-th word; NULL when there are fewer. */
const char *args_word(const struct args *args, size_t i);

/* Options that every command knows; ends with a NULL name. */
extern const struct option args_common[];

/* The candidate that is the likeliest meaning of a mistyped word: few letters away, or NULL.
 * `names` are `count` texts. */
const char *args_nearest(const char *word, const char *const *names, size_t count);

#endif
