#include "clients/cli/args.h"

#include <stdlib.h>
#include <string.h>

#define NEAREST_BYTES 48 /* longer words than this are not typing errors */

const struct option args_common[] = {
    {.name = "--json", .help = "print JSON, one object per line"},
    {.name = "--ca", .value = "FILE", .help = "authorities to trust with https (BELLHOP_CA)"},
    {.name = "--help", .help = "print this text"},
    {.name = NULL},
};

/* Edits (insert, remove, replace) that turn one text into the other. */
static size_t distance(const char *a, const char *b) {
    size_t a_len = strlen(a), b_len = strlen(b);
    size_t row[NEAREST_BYTES + 1];
    for (size_t j = 0; j <= b_len; j++) row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t above = row[j];
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (above + 1 < best) best = above + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
            diagonal = above;
        }
    }
    return row[b_len];
}

const char *args_nearest(const char *word, const char *const *names, size_t count) {
    const char *nearest = NULL;
    size_t len = strlen(word);
    if (len > NEAREST_BYTES) return NULL;
    size_t least = len / 2 + 1; /* more than half of it wrong is another word */
    for (size_t i = 0; i < count; i++) {
        if (strlen(names[i]) > NEAREST_BYTES) continue;
        size_t edits = distance(word, names[i]);
        if (len >= 3 && strncmp(names[i], word, len) == 0) edits = 1;
        if (edits < least) {
            least = edits;
            nearest = names[i];
        }
    }
    return nearest;
}

static bool is_called(const char *option, const char *name, size_t len) {
    return option != NULL && strlen(option) == len && memcmp(option, name, len) == 0;
}

static const struct option *find_in(const struct option *options, const char *name, size_t len) {
    for (const struct option *o = options; o != NULL && o->name != NULL; o++) {
        if (is_called(o->name, name, len) || is_called(o->also, name, len)) return o;
    }
    return NULL;
}

static size_t names_of(const struct option *options, const char **names, size_t room) {
    size_t count = 0;
    for (const struct option *o = options; o != NULL && o->name != NULL && count < room; o++) {
        names[count++] = o->name;
    }
    return count;
}

static int unknown_option(const struct command *command, const char *name, size_t len) {
    const char *names[32];
    size_t count = names_of(command->options, names, 30);
    count += names_of(args_common, names + count, 32 - count);
    char given[NEAREST_BYTES + 1];
    const char *nearest = NULL;
    if (len <= NEAREST_BYTES) {
        memcpy(given, name, len);
        given[len] = '\0';
        nearest = args_nearest(given, names, count);
    }
    if (nearest != NULL) {
        cli_complain("unknown flag %.*s; did you mean %s?", (int)len, name, nearest);
    } else {
        cli_complain("unknown flag %.*s; see: bellhop %s --help", (int)len, name, command->name);
    }
    return CLI_USAGE;
}

/* Takes argv[*at] as an option, with its value; moves *at to the last word taken. */
static int take_option(struct args *args, const struct command *command, int argc, char **argv,
                       int *at) {
    const char *word = argv[*at];
    if (strcmp(word, "-h") == 0) word = "--help";
    const char *equals = strchr(word, '=');
    size_t len = equals != NULL ? (size_t)(equals - word) : strlen(word);
    const struct option *option = find_in(command->options, word, len);
    if (option == NULL) option = find_in(args_common, word, len);
    if (option == NULL) return unknown_option(command, word, len);
    const char *value = "";
    if (option->value == NULL) {
        if (equals != NULL) {
            cli_complain("%s takes no value", option->name);
            return CLI_USAGE;
        }
    } else if (equals != NULL) {
        value = equals + 1;
    } else if (*at + 1 < argc) {
        value = argv[++*at];
    } else {
        cli_complain("%s needs a value: %s %s", option->name, option->name, option->value);
        return CLI_USAGE;
    }
    if (!option->many && option->value != NULL && args_has(args, option->name)) {
        cli_complain("%s is given twice", option->name);
        return CLI_USAGE;
    }
    args->values[args->values_count++] = (struct arg_value){option, value};
    return 0;
}

static int check_words(const struct args *args, const struct command *command) {
    const char *blank = command->usage[0] != '\0' ? " " : "";
    if (args->words_count < command->words_min) {
        cli_complain("something is missing; usage: bellhop %s%s%s", command->name, blank,
                     command->usage);
        return CLI_USAGE;
    }
    if (args->words_count > command->words_max) {
        const char *extra = args->words[command->words_max];
        if (command->takes_program && args->program == NULL) {
            cli_complain("put -- before the program to run: bellhop %s ... -- %s", command->name,
                         extra);
        } else {
            cli_complain("'%s' is one word too many; usage: bellhop %s%s%s", extra, command->name,
                         blank, command->usage);
        }
        return CLI_USAGE;
    }
    if (command->takes_program && args->program_count == 0) {
        cli_complain("the program to run is missing; usage: bellhop %s %s", command->name,
                     command->usage);
        return CLI_USAGE;
    }
    return 0;
}

int args_parse(struct args *args, const struct command *command, int argc, char **argv) {
    *args = (struct args){0};
    args->words = mem_zalloc(((size_t)argc + 1) * sizeof(*args->words));
    args->values = mem_zalloc(((size_t)argc + 1) * sizeof(*args->values));
    bool options_over = false;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (!options_over && strcmp(word, "--") == 0) {
            if (command->takes_program) {
                args->program = argv + i + 1;
                args->program_count = (size_t)(argc - i - 1);
                break;
            }
            options_over = true;
        } else if (!options_over && word[0] == '-' && word[1] != '\0') {
            int error = take_option(args, command, argc, argv, &i);
            if (error != 0) return error;
        } else {
            args->words[args->words_count++] = word;
        }
    }
    return args_has(args, "--help") ? 0 : check_words(args, command);
}

void args_free(struct args *args) {
    free(args->words);
    free(args->values);
    *args = (struct args){0};
}

const char *args_next(const struct args *args, const char *option, size_t *at) {
    while (*at < args->values_count) {
        const struct arg_value *v = &args->values[(*at)++];
        if (strcmp(v->option->name, option) == 0) return v->value;
    }
    return NULL;
}

const char *args_get(const struct args *args, const char *option) {
    size_t at = 0;
    return args_next(args, option, &at);
}

bool args_has(const struct args *args, const char *option) {
    return args_get(args, option) != NULL;
}

const char *args_word(const struct args *args, size_t i) {
    return i < args->words_count ? args->words[i] : NULL;
}
