/* cli.h: what every command of bellhop is given, and how the program ends.
 *
 * Owned by main from start to exit; commands borrow it until they return. A command returns the
 * exit code of the program, after it said on stderr what went wrong.
 *
 * May call: base. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>

#include "base/check.h"

#define CLI_URL_DEFAULT "http://127.0.0.1:8420"

enum cli_exit {
    CLI_OK = 0,
    CLI_REFUSED = 1,      /* the broker said no */
    CLI_USAGE = 64,       /* unknown command or flag, or a value that cannot be */
    CLI_DATA = 65,        /* what was read is not what it must be, such as JSON */
    CLI_INPUT = 66,       /* a file cannot be read */
    CLI_UNAVAILABLE = 69, /* no broker answers, or the command of `work` cannot be started */
    CLI_INTERNAL = 70,    /* the broker answered something that cannot be understood */
    CLI_OUTPUT = 74,      /* writing to stdout failed */
    CLI_TIMEOUT = 75,     /* `wait`: the time was over */
};

struct http;

/* Files of TLS, PEM; NULL or "": none. */
struct cli_tls {
    const char *ca; /* authorities, instead of the system's: --ca, BELLHOP_CA */
    const char *cert,
        *key; /* what is shown to a broker that asks: BELLHOP_CERT, BELLHOP_CERT_KEY */
};

struct cli {
    struct cli_tls tls;
    struct http *http; /* the broker at BELLHOP_URL */
    bool json;         /* --json: one object per line */
    bool colour;       /* stdout is a terminal and NO_COLOR is not set */
};

/* Writes "bellhop: ...\n" to stderr. Bytes that a terminal would act on are replaced. */
void cli_complain(const char *fmt, ...) PRINTF_LIKE(1, 2);

#endif
