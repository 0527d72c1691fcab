/* The log: what its lines look like in both formats whatever a peer sends, and that writing them
 * never waits. stderr is one end of a pipe or a socket here. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/log.h"

#define TIME_LEN 24 /* 2026-11-21T02:48:13.123Z */

static struct capture {
    int saved, read;
    struct buf text;
} out;

static void capture_on(int fds[2]) {
    fflush(stderr);
    out.saved = dup(STDERR_FILENO);
    out.read = fds[0];
    assert_true(out.saved >= 0 && dup2(fds[1], STDERR_FILENO) >= 0);
    close(fds[1]);
    assert_int_equal(fcntl(out.read, F_SETFL, O_NONBLOCK), 0);
}

static void capture_pipe(void) {
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    capture_on(fds);
}

static void capture_off(void) {
    dup2(out.saved, STDERR_FILENO);
    close(out.saved);
    if (out.read >= 0) close(out.read);
    buf_free(&out.text);
}

/* All that has been written since the last time. */
static const char *written(void) {
    char piece[4096];
    ssize_t n;
    buf_clear(&out.text);
    while ((n = read(out.read, piece, sizeof piece)) > 0) {
        assert_true(buf_append(&out.text, piece, (size_t)n));
    }
    assert_true(buf_append_byte(&out.text, '\0'));
    return (const char *)out.text.data;
}

static size_t count(const char *text, const char *what) {
    size_t found = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at++) found++;
    return found;
}

/* Writes one line with a field and compares what follows its level. */
static void expect_field(enum log_format format, struct slice value, const char *line) {
    const struct log_field fields[] = {{.key = "id", .text = value},
                                       {.key = "n", .is_number = true, .number = UINT64_MAX}};
    const size_t begin = format == LOG_JSON ? sizeof "{\"time\":\"" - 1 : sizeof "time=" - 1;
    log_set_format(format);
    log_fields("webhook", fields, 2);
    log_flush();
    const char *got = written();
    assert_true(strlen(got) > begin + TIME_LEN);
    assert_string_equal(got + begin + TIME_LEN, line);
    assert_int_equal(got[begin + TIME_LEN - 1], 'Z');
}

/* The log's poll(2), which a signal interrupts so many times. */
static int interruptions;
struct pollfd;
int poll(struct pollfd *fds, unsigned long count, int wait_ms);
int poll(struct pollfd *fds, unsigned long count, int wait_ms) {
    const struct timespec wait = {.tv_nsec = wait_ms * 1000000L};
    if (interruptions == 0) return (int)syscall(SYS_ppoll, fds, count, &wait, NULL, 0);
    interruptions--;
    errno = EINTR;
    return -1;
}

static int set_up(void **state) {
    (void)state;
    out = (struct capture){.read = -1};
    interruptions = 0;
    buf_init(&out.text, 4 * 1024 * 1024);
    log_set_level(LOG_INFO);
    log_set_format(LOG_LOGFMT);
    signal(SIGPIPE, SIG_IGN);
    alarm(30); /* writing must not wait */
    return 0;
}

static void values_of_both_formats(void **state) {
    static const struct {
        const char *value;
        size_t len; /* 0: a C string */
        const char *logfmt, *json;
    } rows[] = {
        {"msg_1", 0, "msg_1", "\"msg_1\""},
        {"a/b:c@d,e-f", 0, "a/b:c@d,e-f", "\"a/b:c@d,e-f\""},
        {"", 0, "\"\"", "\"\""},
        {"a b", 0, "\"a b\"", "\"a b\""},
        {"a=b", 0, "\"a=b\"", "\"a=b\""},
        {"x\" verdict=accepted", 0, "\"x\\\" verdict=accepted\"", "\"x\\\" verdict=accepted\""},
        {"back\\slash", 0, "\"back\\\\slash\"", "\"back\\\\slash\""},
        {"a\nlevel=error", 0, "\"a\\nlevel=error\"", "\"a\\nlevel=error\""},
        {"\r\t", 0, "\"\\u000d\\u0009\"", "\"\\u000d\\u0009\""},
        {"\0", 1, "\"\\u0000\"", "\"\\u0000\""},
        {"\x1b[31m", 0, "\"\\u001b[31m\"", "\"\\u001b[31m\""},
        {"\x7f", 0, "\"\\u007f\"", "\"\\u007f\""},
        {"\xc2\x9b"
         "31m",
         0, "\"\\u009b31m\"", "\"\\u009b31m\""},           /* CSI in one byte of C1 */
        {"\xe2\x80\xa8", 0, "\"\\u2028\"", "\"\\u2028\""}, /* LINE SEPARATOR */
        {"\xe2\x80\xae", 0, "\"\\u202e\"", "\"\\u202e\""}, /* RIGHT-TO-LEFT OVERRIDE */
        {"\xd8\x9c", 0, "\"\\u061c\"", "\"\\u061c\""},     /* ARABIC LETTER MARK */
        {"\xef\xbb\xbf", 0, "\"\\ufeff\"", "\"\\ufeff\""},
        {"\xc3\xbc\xe2\x82\xac\xf0\x9f\x94\x94", 0, "\"\xc3\xbc\xe2\x82\xac\xf0\x9f\x94\x94\"",
         "\"\xc3\xbc\xe2\x82\xac\xf0\x9f\x94\x94\""},
        {"a\xff\xc3", 0, "\"a\xef\xbf\xbd\xef\xbf\xbd\"", "\"a\xef\xbf\xbd\xef\xbf\xbd\""},
        {"\xed\xa0\x80", 0, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"",
         "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* a surrogate */
    };
    (void)state;
    capture_pipe();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char line[512];
        size_t len = rows[i].len > 0 ? rows[i].len : strlen(rows[i].value);
        struct slice value = slice_of(rows[i].value, len);
        snprintf(line, sizeof line, " level=info msg=webhook id=%s n=18446744073709551615\n",
                 rows[i].logfmt);
        expect_field(LOG_LOGFMT, value, line);
        snprintf(
            line, sizeof line,
            "\",\"level\":\"info\",\"msg\":\"webhook\",\"id\":%s,\"n\":18446744073709551615}\n",
            rows[i].json);
        expect_field(LOG_JSON, value, line);
    }
    capture_off();
}

static void long_values_are_cut(void **state) {
    (void)state;
    struct buf value;
    buf_init(&value, 100000);
    capture_pipe();
    for (int kind = 0; kind < 3; kind++) {
        static const char *const bytes[] = {"x", "\x1b", "\xe2\x82\xac"};
        buf_clear(&value);
        for (int i = 0; i < 20000; i++) assert_true(buf_append_str(&value, bytes[kind]));
        const struct log_field fields[] = {{.key = "a", .text = buf_slice(&value)},
                                           {.key = "b", .text = buf_slice(&value)}};
        log_fields("m", fields, 2);
        log_flush();
        const char *got = written();
        assert_true(strlen(got) < 1200);
        assert_int_equal(count(got, "...\""), 2);
        assert_int_equal(count(got, "\xef\xbf\xbd"), 0); /* not within a character */
        assert_int_equal(count(got, "\n"), 1);
    }
    log_write(LOG_WARN, "%s", "a text with a \"quote\" and\na second line");
    assert_non_null(
        strstr(written(), " level=warn msg=\"a text with a \\\"quote\\\" and\\na second line\"\n"));
    capture_off();
    buf_free(&value);
}

static void levels_and_names(void **state) {
    (void)state;
    capture_pipe();
    log_set_level(LOG_WARN);
    log_info("%s", "not this");
    log_fields("nor this", NULL, 0);
    log_flush();
    assert_string_equal(written(), "");
    log_warn("%d lines", 2);
    assert_int_equal(count(written(), "level=warn msg=\"2 lines\"\n"), 1);
    capture_off();
    assert_int_equal(log_level_from_name("debug"), LOG_DEBUG);
    assert_int_equal(log_level_from_name("loud"), -1);
    assert_int_equal(log_format_from_name("json"), LOG_JSON);
    assert_int_equal(log_format_from_name("logfmt"), LOG_LOGFMT);
    assert_int_equal(log_format_from_name("xml"), -1);
}

static void fields_wait_for_the_flush_and_keep_their_place(void **state) {
    (void)state;
    capture_pipe();
    log_fields("first", NULL, 0);
    assert_string_equal(written(), "");
    log_info("%s", "second");
    const char *got = written(), *first = strstr(got, "msg=first\n");
    assert_non_null(first);
    assert_non_null(strstr(first, "msg=second\n"));
    for (int i = 0; i < 1000; i++)
        log_fields("many", NULL, 0); /* half of what may wait, and more */
    assert_true(count(written(), "msg=many\n") > 500);
    log_flush();
    assert_true(count(written(), "msg=many\n") > 0);
    capture_off();
}

/* Fills what stderr is until it takes nothing more; returns the bytes. */
static size_t fill(void) {
    static const char zeros[4096];
    size_t all = 0;
    int flags = fcntl(STDERR_FILENO, F_GETFL);
    assert_int_equal(fcntl(STDERR_FILENO, F_SETFL, flags | O_NONBLOCK), 0);
    for (size_t len = sizeof zeros; len > 0; len /= 2) {
        ssize_t n;
        while ((n = write(STDERR_FILENO, zeros, len)) > 0) all += (size_t)n;
    }
    assert_int_equal(fcntl(STDERR_FILENO, F_SETFL, flags), 0); /* as a broker finds it */
    return all;
}

/* Nothing is written while nobody reads; what could not be kept is counted. */
static void write_to_nobody(void) {
    enum { LINES = 3000 };
    size_t filled = fill();
    for (int i = 0; i < LINES; i++) log_info("line %d", i);
    size_t got = 0, kept = 0, dropped = 0;
    while (got < filled) { /* the zeros */
        char piece[4096];
        ssize_t n =
            read(out.read, piece, sizeof piece < filled - got ? sizeof piece : filled - got);
        assert_true(n > 0);
        got += (size_t)n;
    }
    for (int i = 0; i < 200; i++) { /* a pipe holds less than what waits */
        log_flush();
        const char *text = written();
        kept += count(text, "msg=\"line ");
        assert_null(strstr(text, "could not be written"));
    }
    log_info("and on");
    const char *text = written(), *told = strstr(text, "count=");
    assert_non_null(
        strstr(text, "level=warn msg=\"lines of the log could not be written\" count="));
    assert_non_null(told);
    assert_int_equal(sscanf(told, "count=%zu", &dropped), 1);
    assert_int_equal(kept + dropped, LINES);
    assert_true(kept > 100 && dropped > 100);
    assert_int_equal(count(text, "msg=\"and on\"\n"), 1);
    log_info("it is told once");
    assert_null(strstr(written(), "could not be written"));
}

static void a_full_pipe_is_not_waited_for(void **state) {
    (void)state;
    capture_pipe();
    interruptions = 3;
    write_to_nobody();
    assert_int_equal(interruptions, 0);
    capture_off();
}

static void a_full_socket_is_not_waited_for(void **state) {
    int fds[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    capture_on(fds);
    write_to_nobody();
    capture_off();
}

static void a_reader_that_is_gone_does_not_matter(void **state) {
    (void)state;
    capture_pipe();
    close(out.read);
    out.read = -1;
    for (int i = 0; i < 5; i++) log_info("to nobody");
    capture_off();
    buf_init(&out.text, 65536);
    capture_pipe();
    log_info("to somebody");
    const char *got = written();
    assert_int_equal(count(got, "could not be written\" count=5\n"), 1);
    assert_int_equal(count(got, "\n"), 2);
    capture_off();
    /* Nor a stderr that is not there at all. */
    int saved = dup(STDERR_FILENO);
    close(STDERR_FILENO);
    log_info("nowhere");
    assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
    close(saved);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(values_of_both_formats, set_up),
        cmocka_unit_test_setup(long_values_are_cut, set_up),
        cmocka_unit_test_setup(levels_and_names, set_up),
        cmocka_unit_test_setup(fields_wait_for_the_flush_and_keep_their_place, set_up),
        cmocka_unit_test_setup(a_full_pipe_is_not_waited_for, set_up),
        cmocka_unit_test_setup(a_full_socket_is_not_waited_for, set_up),
        cmocka_unit_test_setup(a_reader_that_is_gone_does_not_matter, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
