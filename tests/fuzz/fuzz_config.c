/* Arbitrary bytes as the YAML file of bellhopd, and as the value of each flag. Either everything is
 * set within its bounds, or something is said on stderr that names the program and a place.
 *
 * The first byte says what the rest is: 0 to 11 the value of a flag, anything else the file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "broker/config.h"
#include "proto/limits.h"

#define PATH_SIZE 64

static const char *const flags[] = {
    "--http",       "--workers",      "--data",          "--log",
    "--max-body",   "--max-store",    "--restart-grace", "--drain-ms",
    "--retain-age", "--retain-bytes", "--retain-dead",   "--config",
};
#define FLAGS (sizeof flags / sizeof flags[0])

/* config_read with its stderr in *said, which the caller frees. */
static enum config_result read_config(struct config *c, char *flag, char *value, char **said) {
    char program[] = "bellhopd";
    char *argv[] = {program, flag, value, NULL};
    size_t len = 0;
    FILE *before = stderr, *memory = open_memstream(said, &len);
    CHECK(memory != NULL);
    stderr = memory; /* glibc's is a variable */
    enum config_result result = config_read(c, 3, argv);
    stderr = before;
    fclose(memory);
    return result;
}

static void check_bounds(const struct config *c) {
    CHECK(c->http != NULL && c->workers != NULL && c->data != NULL);
    CHECK(log_level_from_name(c->log) >= 0);
    CHECK(c->max_body_bytes >= 1024 && c->max_body_bytes <= LIMIT_BODY_BYTES_HIGHEST);
    CHECK(c->max_store_bytes > 0 && c->max_store_bytes <= INT64_MAX);
    CHECK(c->restart_grace_ms <= LIMIT_RESTART_GRACE_MS && c->drain_ms <= LIMIT_DRAIN_MS);
    CHECK(c->retain_age_ms <= LIMIT_AGE_MS_MAX && c->retain_dead_ms <= LIMIT_AGE_MS_MAX);
    CHECK(c->retain_bytes <= INT64_MAX);
}

static void check_read(const char *flag, char *value) {
    struct config c;
    char own[PATH_SIZE];
    char *said = NULL;
    snprintf(own, sizeof own, "%s", flag);
    enum config_result result = read_config(&c, own, value, &said);
    CHECK(result == CONFIG_RUN || result == CONFIG_BAD);
    if (result == CONFIG_RUN) check_bounds(&c);
    else CHECK(strncmp(said, "bellhopd: ", 10) == 0);
    free(said);
    config_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    const uint8_t *text = data + 1;
    size_t len = size - 1;
    if (data[0] < FLAGS) {
        char *value = mem_alloc(len + 1);
        if (len > 0) memcpy(value, text, len);
        value[len] = '\0';
        check_read(flags[data[0]], value);
        free(value);
        return 0;
    }
    char path[PATH_SIZE];
    int fd = memfd_create("config", MFD_CLOEXEC);
    CHECK(fd >= 0 && write(fd, text, len) == (ssize_t)len);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    check_read("--config", path);
    close(fd);
    return 0;
}
