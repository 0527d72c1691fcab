/* main.c: bellhopd, the broker. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/broker.h"

#ifdef __SANITIZE_ADDRESS__
static void name_crashes(void) {
} /* the sanitizer says more */
#else
/* The store is a map of a file: a page that the disk cannot read comes as SIGBUS, and a damaged
 * one, which LMDB has no checksum for, may send it anywhere. Says so, and dies of the signal as
 * before. */
static void on_crash(int signum) {
    static const char bus[] =
        "bellhopd: SIGBUS: the disk cannot be read, or the file of the store was cut off: look "
        "into the kernel's log, then start the broker again or restore a backup\n";
    static const char segv[] =
        "bellhopd: SIGSEGV: the store is damaged (then restore a backup), memory ran out, or this "
        "is an error in Bellhop\n";
    const char *text = signum == SIGBUS ? bus : segv;
    (void)!write(STDERR_FILENO, text, strlen(text));
    raise(signum); /* SA_RESETHAND: its own action now */
}

static void name_crashes(void) {
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_RESETHAND | SA_NODEFER};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
}
#endif

int main(int argc, char **argv) {
    struct config config;
    int code = 0;
    name_crashes();
    switch (config_read(&config, argc, argv)) {
    case CONFIG_RUN:
        log_set_level((enum log_level)log_level_from_name(config.log));
        log_set_format((enum log_format)log_format_from_name(config.log_format));
        code = broker_run(&config);
        break;
    case CONFIG_DONE: break;
    case CONFIG_BAD: code = 2; break;
    }
    config_free(&config);
    return code;
}
