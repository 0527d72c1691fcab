/* What bellhopd is told: flags and the file, their units, and what is refused and how. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/config.h"

#define DAY_MS (24ULL * 3600 * 1000)

static char said[4096]; /* what the last read() printed on stderr */

/* config_read with these arguments (up to a NULL), its stderr in `said`. */
static enum config_result read_args(struct config *c, const char *const *args) {
    char *argv[16] = {(char *)"bellhopd"};
    int argc = 1;
    while (args[argc - 1] != NULL) {
        argv[argc] = (char *)args[argc - 1];
        argc++;
    }
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stderr);
    int before = dup(STDERR_FILENO);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    enum config_result result = config_read(c, argc, argv);
    fflush(stderr);
    dup2(before, STDERR_FILENO);
    close(before);
    rewind(file);
    said[fread(said, 1, sizeof said - 1, file)] = '\0';
    fclose(file);
    return result;
}

#define READ(c, ...) read_args((c), (const char *const[]){__VA_ARGS__, NULL})

/* A file with this text; the caller unlinks and frees its path. */
static char *file_with(const char *text) {
    char *path = strdup("/tmp/bellhop-config-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    return path;
}

static void test_defaults(void **state) {
    (void)state;
    struct config c;
    assert_int_equal(read_args(&c, (const char *const[]){NULL}), CONFIG_RUN);
    assert_string_equal(c.http, "127.0.0.1:8420");
    assert_string_equal(c.log, "info");
    assert_int_equal(c.max_body_bytes, 1024 * 1024);
    assert_int_equal(c.restart_grace_ms, 10000);
    assert_int_equal(c.drain_ms, 5000);
    assert_int_equal(c.retain_age_ms, 0);
    assert_int_equal(c.retain_bytes, 0);
    assert_int_equal(c.retain_dead_ms, 30 * DAY_MS);
    config_free(&c);
}

static void test_units(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t ms;
    } spans[] = {{"7d", 7 * DAY_MS}, {"12h", DAY_MS / 2}, {"30m", 1800000}, {"10s", 10000},
                 {"1500ms", 1500},   {"none", 0},         {"0", 0},         {"366d", 366 * DAY_MS}};
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {{"10g", 10ULL << 30}, {"512m", 512 << 20}, {"64k", 65536}, {"1T", 1ULL << 40},
                 {"1234", 1234},       {"none", 0},         {"0", 0}};
    struct config c;
    for (size_t i = 0; i < sizeof spans / sizeof spans[0]; i++) {
        assert_int_equal(READ(&c, "--retain-age", spans[i].text, "--retain-dead", spans[i].text),
                         CONFIG_RUN);
        assert_int_equal(c.retain_age_ms, spans[i].ms);
        assert_int_equal(c.retain_dead_ms, spans[i].ms);
        config_free(&c);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(READ(&c, "--retain-bytes", sizes[i].text), CONFIG_RUN);
        assert_int_equal(c.retain_bytes, sizes[i].bytes);
        config_free(&c);
    }
    assert_int_equal(READ(&c, "--drain-ms", "250", "--restart-grace=3s", "--max-body", "2m",
                          "--max-store", "2g"),
                     CONFIG_RUN);
    assert_int_equal(c.drain_ms, 250);
    assert_int_equal(c.restart_grace_ms, 3000);
    assert_int_equal(c.max_body_bytes, 2 << 20);
    assert_int_equal(c.max_store_bytes, 2ULL << 30);
    config_free(&c);
}

static void test_refused(void **state) {
    (void)state;
    /* flag, value, what the message must hold beside the flag and the value */
    static const char *const bad[][3] = {
        {"--webhook-https-only", "maybe", "yes or no"},
        {"--webhook-signature", "rs512", "v1a or jwt"},
        {"--webhook-timeout", "1ms", "milliseconds"},
        {"--webhook-max-age", "none", "milliseconds"},
        {"--max-per-ip", "many", "a number"},
        {"--max-per-ip", "16001", "16000"},
        {"--dedupe-ids", "999", "1000"},
        {"--dedupe-ids", "none", "1000"},
        {"--retain-age", "7", "7d"},
        {"--retain-age", "d", "7d"},
        {"--retain-age", "7w", "7d"},
        {"--retain-age", "-1d", "7d"},
        {"--retain-age", "7 d", "7d"},
        {"--retain-age", "", "7d"},
        {"--retain-age", "367d", "31622400000"},
        {"--retain-age", "999999999999999999d", "7d"},
        {"--retain-dead", "99999999999999999999s", "none"},
        {"--retain-bytes", "10x", "10g"},
        {"--retain-bytes", "99999999t", "10g"},
        {"--retain-bytes", "9223372036854775808", "9223372036854775807"},
        {"--drain-ms", "none", "10s"},
        {"--drain-ms", "600001", "600000"},
        {"--restart-grace", "1h", "600000"},
        {"--max-body", "1023", "1024"},
        {"--max-body", "17m", "16777216"},
        {"--max-body", "none", "512m"},
        {"--max-store", "1m", "bytes"},
        {"--log", "loud", "debug"},
        {"--tls-http", "yes", "tls-cert"},
        {"--tls-workers", "yes", "tls-cert"},
        {"--make-key", "", "name"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct config c;
        assert_int_equal(READ(&c, bad[i][0], bad[i][1]), CONFIG_BAD);
        assert_non_null(strstr(said, bad[i][0] + 2));
        assert_non_null(strstr(said, bad[i][1]));
        assert_non_null(strstr(said, bad[i][2]));
        config_free(&c);
    }
}

static void test_file(void **state) {
    (void)state;
    struct config c;
    char *path = file_with(
        "retain_age: 7d\nretain_bytes: 10g\nretain_dead: none\ndrain_ms: 100\n"
        "restart_grace: 2s\nmax_body: 2048\nlog: debug\n");
    assert_int_equal(READ(&c, "--drain-ms", "9", "--config", path), CONFIG_RUN);
    assert_int_equal(c.retain_age_ms, 7 * DAY_MS);
    assert_int_equal(c.retain_bytes, 10ULL << 30);
    assert_int_equal(c.retain_dead_ms, 0);
    assert_int_equal(c.drain_ms, 9); /* the flag wins, wherever it stands */
    assert_int_equal(c.restart_grace_ms, 2000);
    assert_int_equal(c.max_body_bytes, 2048);
    assert_string_equal(c.log, "debug");
    config_free(&c);
    unlink(path);
    free(path);
}

static void test_bad_file(void **state) {
    (void)state;
    static const char *const bad[][2] = {
        {"retain_age: 7\n", "retain_age"},
        {"max_body: big\n", "max_body"},
        {"retain-age: 7d\n", "retain_age"}, /* the keys are listed */
        {"drain_ms: [1]\n", "drain_ms"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct config c;
        char *path = file_with(bad[i][0]);
        assert_int_equal(READ(&c, "--config", path), CONFIG_BAD);
        assert_non_null(strstr(said, path));
        assert_non_null(strstr(said, bad[i][1]));
        config_free(&c);
        unlink(path);
        free(path);
    }
    struct config c;
    assert_int_equal(READ(&c, "--config", "/nowhere/at/all"), CONFIG_BAD);
    assert_non_null(strstr(said, "/nowhere/at/all: No such file"));
    assert_null(strstr(said, "retain_age")); /* the keys help nobody here */
    config_free(&c);
}

static void test_webhooks(void **state) {
    (void)state;
    struct config c;
    assert_int_equal(read_args(&c, (const char *const[]){NULL}), CONFIG_RUN);
    assert_string_equal(c.webhook_allow, "");
    assert_int_equal(c.webhook_https_only, 0);
    assert_string_equal(c.webhook_signature, "v1a");
    assert_int_equal(c.webhook_timeout_ms, 15000);
    assert_int_equal(c.webhook_max_age_ms, DAY_MS);
    assert_int_equal(c.webhook_backoff_min_ms, 5000);
    assert_int_equal(c.webhook_backoff_max_ms, 5 * 3600 * 1000);
    assert_int_equal(c.webhook_disable_after_ms, 5 * DAY_MS);
    config_free(&c);

    /* A list grows with each flag, and goes on from what the file has. */
    char *path = file_with("webhook_allow: 10.1.0.0/16, fd00::/8\nwebhook_https_only: yes\n");
    assert_int_equal(READ(&c, "--webhook-allow", "127.0.0.0/8", "--config", path, "--webhook-allow",
                          "::1/128", "--webhook-signature", "jwt"),
                     CONFIG_RUN);
    assert_string_equal(c.webhook_allow, "10.1.0.0/16, fd00::/8,127.0.0.0/8,::1/128");
    assert_int_equal(c.webhook_https_only, 1);
    assert_string_equal(c.webhook_signature, "jwt");
    config_free(&c);
    unlink(path);
    free(path);

    assert_int_equal(READ(&c, "--webhook-https-only", "no", "--webhook-disable-after", "none"),
                     CONFIG_RUN);
    assert_int_equal(c.webhook_https_only, 0);
    assert_int_equal(c.webhook_disable_after_ms, 0);
    config_free(&c);

    assert_int_equal(READ(&c, "--webhook-backoff-min", "2m", "--webhook-backoff-max", "1m"),
                     CONFIG_BAD);
    assert_non_null(strstr(said, "webhook-backoff-min"));
    config_free(&c);
}

static void test_count(void **state) {
    (void)state;
    struct config c;
    static const struct {
        const char *text;
        uint64_t n;
    } counts[] = {{"16", 16}, {"none", 0}, {"0", 0}, {"16000", 16000}};
    assert_int_equal(read_args(&c, (const char *const[]){NULL}), CONFIG_RUN);
    assert_int_equal(c.max_per_ip, 1024);
    config_free(&c);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        assert_int_equal(READ(&c, "--max-per-ip", counts[i].text), CONFIG_RUN);
        assert_int_equal(c.max_per_ip, counts[i].n);
        config_free(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_units),
        cmocka_unit_test(test_refused),  cmocka_unit_test(test_file),
        cmocka_unit_test(test_bad_file), cmocka_unit_test(test_webhooks),
        cmocka_unit_test(test_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
