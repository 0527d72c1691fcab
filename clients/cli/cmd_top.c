/* top: the subscriptions as they run, again and again.
 *
 * On a terminal the table is drawn in place on the alternate screen, so that what stood there comes
 * back; the signals that end a program are read from a descriptor in the same poll as the keys, so
 * that the terminal is always put back. Anywhere else it prints once; with --json it goes on until
 * somebody ends it.
 *
 * What fails: no broker at the first look (exit 69); later it is waited for, and the last table
 * stays with a line about it. */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "clients/cli/commands.h"
#include "clients/cli/http.h"
#include "clients/cli/output.h"
#include "clients/cli/top.h"
#include "clients/cli/value.h"

#define INTERVAL_MS_MIN 100
#define INTERVAL_MS_MAX (3600 * 1000)

#define SCREEN_OPEN  "\033[?1049h\033[?25l" /* alternate screen, no cursor */
#define SCREEN_CLOSE "\033[?25h\033[?1049l"
#define SCREEN_HOME  "\033[H"
#define LINE_END     "\033[K\r\n" /* clears what was longer before */
#define SCREEN_REST  "\033[J"

struct screen {
    struct cli *cli;
    bool by_name;
    uint64_t interval_ms;
    int signals; /* descriptor */
    bool keys;   /* stdin is a terminal */
    struct termios before;
    struct top top; /* the last good one */
    bool lost;      /* nobody answers now */
};

static uint64_t clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

enum woken { WOKEN_TIME, WOKEN_SIZE, WOKEN_END };

static int open_screen(struct screen *s) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGWINCH);
    CHECK(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
    s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signals < 0) {
        cli_complain("the terminal cannot be watched; --once prints the table");
        return CLI_UNAVAILABLE;
    }
    s->keys = tcgetattr(STDIN_FILENO, &s->before) == 0;
    if (s->keys) {
        struct termios raw = s->before;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw.c_cc[VSUSP] = _POSIX_VDISABLE; /* nobody would put the screen back */
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    fputs(SCREEN_OPEN, stdout);
    return 0;
}

static void close_screen(struct screen *s) {
    fputs(SCREEN_CLOSE, stdout);
    fflush(stdout);
    if (s->keys) tcsetattr(STDIN_FILENO, TCSANOW, &s->before);
    close(s->signals);
}

static void draw(const struct screen *s) {
    struct winsize size = {0};
    size_t lines = 24, columns = 80;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
        lines = size.ws_row;
        columns = size.ws_col;
    }
    fputs(SCREEN_HOME, stdout);
    char *note = s->lost
                     ? text_printf("no broker answers at %s; trying again", http_url(s->cli->http))
                     : text_printf("%s  (q ends)", http_url(s->cli->http));
    text_clean(note);
    if (columns >= 3) text_cut(note, columns);
    printf("%s%s%s" LINE_END, s->lost ? colour_bad(s->cli) : "", note,
           s->lost ? colour_off(s->cli) : "");
    free(note);
    /* The last line stays empty: a line end there would scroll. */
    top_print(&s->top, s->cli, lines > 3 ? lines - 2 : 1, columns, LINE_END);
    fputs(SCREEN_REST, stdout);
    fflush(stdout);
}

/* Reads the keys that wait; whether one of them ends it. */
static bool read_keys(struct screen *s) {
    char keys[64];
    ssize_t got = read(STDIN_FILENO, keys, sizeof(keys));
    if (got <= 0) s->keys = false; /* the terminal is gone: a signal will say so */
    for (ssize_t i = 0; i < got; i++) {
        if (keys[i] == 'q' || keys[i] == 'Q' || keys[i] == 4) return true; /* 4: Ctrl-D */
    }
    return false;
}

static enum woken wait_until(struct screen *s, uint64_t until_ms) {
    for (;;) {
        uint64_t now_ms = clock_ms();
        if (now_ms >= until_ms) return WOKEN_TIME;
        struct pollfd fds[2] = {{.fd = s->signals, .events = POLLIN},
                                {.fd = s->keys ? STDIN_FILENO : -1, .events = POLLIN}};
        if (poll(fds, 2, (int)(until_ms - now_ms)) <= 0) continue;
        struct signalfd_siginfo info;
        if (fds[0].revents != 0 && read(s->signals, &info, sizeof(info)) == sizeof(info)) {
            return info.ssi_signo == SIGWINCH ? WOKEN_SIZE : WOKEN_END;
        }
        if (fds[1].revents != 0 && read_keys(s)) return WOKEN_END;
    }
}

/* Asks again and keeps the answer; what is not there now may come back. */
static int refresh(struct screen *s) {
    struct top next;
    int error = top_read(&next, s->cli, s->by_name);
    s->lost = error == CLI_UNAVAILABLE;
    if (error == 0) {
        top_free(&s->top);
        s->top = next;
        return 0;
    }
    if (!s->lost) {
        close_screen(s);
        top_complain(&next, s->cli, error);
    }
    top_free(&next);
    return s->lost ? 0 : error;
}

/* s->top holds the first answer. */
static int watch(struct screen *s) {
    int error = open_screen(s);
    if (error != 0) return error;
    uint64_t until_ms = clock_ms() + s->interval_ms;
    draw(s);
    for (;;) {
        enum woken woken = wait_until(s, until_ms);
        if (woken == WOKEN_END) break;
        if (woken == WOKEN_TIME) {
            error = refresh(s);
            if (error != 0) return error;
            until_ms = clock_ms() + s->interval_ms;
        }
        draw(s);
    }
    close_screen(s);
    return CLI_OK;
}

/* One object per interval, until somebody ends it. */
static int print_objects(struct screen *s, bool once) {
    for (;;) {
        if (!s->lost) top_print_json(&s->top);
        fflush(stdout);
        if (once || ferror(stdout)) return CLI_OK;
        struct timespec span = {.tv_sec = (time_t)(s->interval_ms / 1000),
                                .tv_nsec = (long)(s->interval_ms % 1000) * 1000000};
        nanosleep(&span, NULL);
        struct top next;
        bool was_lost = s->lost;
        int error = top_read(&next, s->cli, s->by_name);
        s->lost = error == CLI_UNAVAILABLE;
        if (error != 0 && !(s->lost && was_lost)) top_complain(&next, s->cli, error);
        if (s->lost && !was_lost) cli_complain("trying again until it is back");
        if (error == 0) {
            top_free(&s->top);
            s->top = next;
        } else {
            top_free(&next);
            if (!s->lost) return error;
        }
    }
}

int cmd_top(struct cli *cli, const struct args *args) {
    const char *interval = args_get(args, "--interval"), *sort = args_get(args, "--sort");
    struct screen s = {.cli = cli, .interval_ms = 1000};
    bool once = args_has(args, "--once");
    if (sort != NULL && strcmp(sort, "name") != 0 && strcmp(sort, "trouble") != 0) {
        cli_complain("--sort: '%s' is neither trouble nor name", sort);
        return CLI_USAGE;
    }
    s.by_name = sort != NULL && strcmp(sort, "name") == 0;
    int error = interval != NULL ? value_duration_ms("--interval", interval, &s.interval_ms) : 0;
    if (error != 0) return error;
    if (s.interval_ms < INTERVAL_MS_MIN || s.interval_ms > INTERVAL_MS_MAX) {
        cli_complain("--interval: '%s' is not from 100ms to 1h", interval);
        return CLI_USAGE;
    }
    error = top_read(&s.top, cli, s.by_name);
    if (error != 0) {
        top_complain(&s.top, cli, error);
        if (error == CLI_UNAVAILABLE && s.top.is_refused) error = CLI_REFUSED;
    } else if (cli->json) {
        error = print_objects(&s, once);
    } else if (!once && isatty(STDOUT_FILENO)) {
        error = watch(&s);
    } else {
        top_print(&s.top, cli, 0, 0, "\n");
    }
    top_free(&s.top);
    return error;
}
