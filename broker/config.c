#include "broker/config.h"

#include <cyaml/cyaml.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/slice.h"
#include "proto/limits.h"
#include "storage/store.h"

static const char help[] =
    "bellhopd " BELLHOP_VERSION
    ": takes webhooks in, keeps them, hands them to workers.\n"
    "\n"
    "usage: bellhopd [options]\n"
    "  --http ADDRESS:PORT     HTTP: webhooks in and the API   (127.0.0.1:8420)\n"
    "  --workers ADDRESS:PORT  the worker protocol             (127.0.0.1:8421)\n"
    "  --data DIR              the journal and everything else (./bellhop-data)\n"
    "  --config FILE           YAML: http, workers, data, log, max_body, max_store\n"
    "  --max-body BYTES        largest body of an event        (1048576)\n"
    "  --max-store BYTES       the store may grow to this      (274877906944)\n"
    "  --log LEVEL             error, warn, info or debug      (info)\n"
    "  --version, --help\n"
    "\n"
    "Port 0 takes any free port; the ports in use are printed at start. SIGTERM and SIGINT stop\n"
    "it cleanly. Keys do not exist yet: it serves loopback addresses only.\n"
    "\n"
    "example: bellhopd --data /var/lib/bellhop --http 127.0.0.1:8420\n";

/* ---- the file ---- */

struct file_config {
    char *http, *workers, *data, *log;
    uint64_t *max_body, *max_store;
};

static const cyaml_schema_field_t file_fields[] = {
    CYAML_FIELD_STRING_PTR("http", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_config,
                           http, 1, 256),
    CYAML_FIELD_STRING_PTR("workers", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_config,
                           workers, 1, 256),
    CYAML_FIELD_STRING_PTR("data", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_config,
                           data, 1, 4096),
    CYAML_FIELD_STRING_PTR("log", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_config, log,
                           1, 16),
    CYAML_FIELD_UINT_PTR("max_body", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_config,
                         max_body),
    CYAML_FIELD_UINT_PTR("max_store", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_config,
                         max_store),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t file_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct file_config, file_fields),
};

/* libcyaml reports the place and the key by its log: that is what a person needs to see. */
static void print_cyaml_log(cyaml_log_t level, void *ctx, const char *fmt, va_list args) {
    (void)level;
    (void)ctx;
    fputs("bellhopd: ", stderr);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    vfprintf(stderr, fmt, args);
#pragma GCC diagnostic pop
}

static void take_text(char **to, const char *from) {
    if (from == NULL) return;
    free(*to);
    *to = mem_strdup(from);
}

static bool read_file(struct config *c, const char *path) {
    const cyaml_config_t options = {
        .log_fn = print_cyaml_log,
        .log_level = CYAML_LOG_ERROR,
        .mem_fn = cyaml_mem,
    };
    struct file_config *file = NULL;
    cyaml_err_t err =
        cyaml_load_file(path, &options, &file_schema, (cyaml_data_t **)(void *)&file, NULL);
    if (err != CYAML_OK) {
        fprintf(stderr,
                "bellhopd: cannot use the configuration file %s: %s; its keys are http, workers, "
                "data, log, max_body and max_store\n",
                path, cyaml_strerror(err));
        return false;
    }
    if (file != NULL) {
        take_text(&c->http, file->http);
        take_text(&c->workers, file->workers);
        take_text(&c->data, file->data);
        take_text(&c->log, file->log);
        if (file->max_body != NULL) c->max_body_bytes = *file->max_body;
        if (file->max_store != NULL) c->max_store_bytes = *file->max_store;
    }
    cyaml_free(&options, &file_schema, file, 0);
    return true;
}

/* ---- the flags ---- */

enum flag {
    FLAG_HTTP = 256,
    FLAG_WORKERS,
    FLAG_DATA,
    FLAG_CONFIG,
    FLAG_BODY,
    FLAG_STORE,
    FLAG_LOG
};

static const struct option flags[] = {
    {"http", required_argument, NULL, FLAG_HTTP},
    {"workers", required_argument, NULL, FLAG_WORKERS},
    {"data", required_argument, NULL, FLAG_DATA},
    {"config", required_argument, NULL, FLAG_CONFIG},
    {"max-body", required_argument, NULL, FLAG_BODY},
    {"max-store", required_argument, NULL, FLAG_STORE},
    {"log", required_argument, NULL, FLAG_LOG},
    {"version", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static bool take_number(const char *flag, const char *text, uint64_t *out) {
    if (slice_to_u64(slice_str(text), out)) return true;
    fprintf(stderr, "bellhopd: %s: '%s' is not a number of bytes\n", flag, text);
    return false;
}

/* The file is read first, wherever --config stands, so that flags win. */
static enum config_result read_flags(struct config *c, int argc, char **argv, bool config_only) {
    int flag;
    optind = 1;
    while ((flag = getopt_long(argc, argv, "hv", flags, NULL)) != -1) {
        if (flag == '?') {
            if (config_only) continue; /* reported by the second pass */
            fputs("bellhopd: see bellhopd --help\n", stderr);
            return CONFIG_BAD;
        }
        if (config_only != (flag == FLAG_CONFIG)) continue;
        switch (flag) {
        case FLAG_CONFIG:
            if (!read_file(c, optarg)) return CONFIG_BAD;
            break;
        case FLAG_HTTP: take_text(&c->http, optarg); break;
        case FLAG_WORKERS: take_text(&c->workers, optarg); break;
        case FLAG_DATA: take_text(&c->data, optarg); break;
        case FLAG_LOG: take_text(&c->log, optarg); break;
        case FLAG_BODY:
            if (!take_number("--max-body", optarg, &c->max_body_bytes)) return CONFIG_BAD;
            break;
        case FLAG_STORE:
            if (!take_number("--max-store", optarg, &c->max_store_bytes)) return CONFIG_BAD;
            break;
        case 'v': puts("bellhopd " BELLHOP_VERSION); return CONFIG_DONE;
        case 'h': fputs(help, stdout); return CONFIG_DONE;
        default: UNREACHABLE("getopt_long returns what is in the table");
        }
    }
    if (optind < argc && !config_only) {
        fprintf(stderr, "bellhopd: unexpected argument '%s'; see bellhopd --help\n", argv[optind]);
        return CONFIG_BAD;
    }
    return CONFIG_RUN;
}

/* Whether only this machine can reach it. */
static bool is_loopback(const char *address) {
    return strncmp(address, "127.", 4) == 0 || strncmp(address, "localhost:", 10) == 0 ||
           strncmp(address, "[::1]:", 6) == 0;
}

static enum config_result check(const struct config *c) {
    const char *const addresses[][2] = {{"http", c->http}, {"workers", c->workers}};
    for (size_t i = 0; i < 2; i++) {
        if (is_loopback(addresses[i][1])) continue;
        fprintf(
            stderr,
            "bellhopd: %s: %s is not a loopback address; without keys anyone who reaches it could "
            "read and publish. Use 127.0.0.1:PORT and put a proxy in front\n",
            addresses[i][0], addresses[i][1]);
        return CONFIG_BAD;
    }
    if (c->max_body_bytes < 1024 || c->max_body_bytes > LIMIT_BODY_BYTES_HIGHEST) {
        fprintf(stderr, "bellhopd: --max-body (max_body): must be 1024 to %d bytes\n",
                LIMIT_BODY_BYTES_HIGHEST);
        return CONFIG_BAD;
    }
    if (c->max_store_bytes < 2 * LMDB_HEADROOM_BYTES_DEFAULT) {
        fprintf(stderr, "bellhopd: --max-store (max_store): must be at least %llu bytes\n",
                2 * LMDB_HEADROOM_BYTES_DEFAULT);
        return CONFIG_BAD;
    }
    if (log_level_from_name(c->log) < 0) {
        fprintf(stderr, "bellhopd: log: '%s' is not error, warn, info or debug\n", c->log);
        return CONFIG_BAD;
    }
    return CONFIG_RUN;
}

enum config_result config_read(struct config *c, int argc, char **argv) {
    *c = (struct config){
        .http = mem_strdup("127.0.0.1:8420"),
        .workers = mem_strdup("127.0.0.1:8421"),
        .data = mem_strdup("./bellhop-data"),
        .log = mem_strdup("info"),
        .max_body_bytes = LIMIT_BODY_BYTES_DEFAULT,
        .max_store_bytes = LMDB_MAP_BYTES_DEFAULT,
    };
    opterr = 0;
    enum config_result result = read_flags(c, argc, argv, true);
    opterr = 1;
    if (result == CONFIG_RUN) result = read_flags(c, argc, argv, false);
    if (result == CONFIG_RUN) result = check(c);
    return result;
}

void config_free(struct config *c) {
    free(c->http);
    free(c->workers);
    free(c->data);
    free(c->log);
    *c = (struct config){0};
}
