#include "clients/cli/input.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define CHUNK_BYTES (64 * 1024)

static int read_all(int fd, const char *name, struct buf *out) {
    for (;;) {
        uint8_t *room = buf_reserve(out, CHUNK_BYTES);
        if (room == NULL) {
            cli_complain("%s: more than 32 MiB", name);
            return CLI_DATA;
        }
        ssize_t got = read(fd, room, CHUNK_BYTES);
        if (got == 0) return 0;
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            cli_complain("%s: %s", name, strerror(errno));
            return CLI_INPUT;
        }
        out->len += (size_t)got;
    }
}

int input_file(const char *name, struct buf *out) {
    if (strcmp(name, "-") == 0) return read_all(STDIN_FILENO, "stdin", out);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        cli_complain("%s: %s", name, strerror(errno));
        return CLI_INPUT;
    }
    int error = read_all(fd, name, out);
    close(fd);
    return error;
}

int input_read(const struct args *args, const char *word, struct buf *out, bool *given) {
    const char *file = args_get(args, "--file");
    buf_init(out, INPUT_BYTES + CHUNK_BYTES);
    *given = file != NULL || word != NULL;
    if (file != NULL && word != NULL) {
        cli_complain("either --file or '%s', not both", word);
        return CLI_USAGE;
    }
    if (!*given) return 0;
    if (file != NULL) return input_file(file, out);
    if (strcmp(word, "-") == 0) return input_file(word, out);
    buf_append_str(out, word); /* an argument is shorter than INPUT_BYTES */
    return 0;
}
