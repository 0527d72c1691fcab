/* input.h: bodies from a file, stdin or the command line.
 *
 * May call: args, cli, base. */
#ifndef CLI_INPUT_H
#define CLI_INPUT_H

#include "base/buf.h"
#include "clients/cli/args.h"

/* Largest body that is read: more than any broker takes. */
#define INPUT_BYTES (32 * 1024 * 1024)

/* Fills `out` (initialised here, freed by the caller in any case) with what --file or the word
 * says; "-" stands for stdin. `given` becomes false when there is neither. 0, CLI_USAGE for both at
 * once, CLI_INPUT for a file that cannot be read. */
int input_read(const struct args *args, const char *word, struct buf *out, bool *given);

/* Appends the file's bytes ("-" stands for stdin) to `out`, which may hold INPUT_BYTES. 0,
 * CLI_INPUT when it cannot be read, CLI_DATA when it is longer. */
int input_file(const char *name, struct buf *out);

#endif
