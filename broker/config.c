#include "broker/config.h"

#include <cyaml/cyaml.h>
#include <errno.h>
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

/* ---- the table ----
 *
 * Everything that can be set, once: flag, key in the file, kind, field of struct config, bounds. */

enum kind {
    KIND_TEXT,
    KIND_BYTES,  /* 1048576, 64k, 512m, 10g */
    KIND_MILLIS, /* 5000, 1500ms, 10s, 1m */
    KIND_SPAN,   /* 7d, 12h, 30m, 10s, 1500ms, none */
    KIND_ROOM,   /* as BYTES, or none */
    KIND_LIST,   /* a text; given again, it is added after a comma */
    KIND_YES,    /* yes or no */
    KIND_COUNT,  /* a number, or none */
};

#define STORE_BYTES_MIN (2 * LMDB_HEADROOM_BYTES_DEFAULT)
#define DAY_MS          (24ULL * 3600 * 1000)

/*  X(name,    flag,            key,             kind,   field,            lowest, highest) */
#define SETTINGS(X)                                                                                \
    X(HTTP, "http", "http", TEXT, http, 0, 0)                                                      \
    X(WORKERS, "workers", "workers", TEXT, workers, 0, 0)                                          \
    X(DATA, "data", "data", TEXT, data, 0, 0)                                                      \
    X(LOG, "log", "log", TEXT, log, 0, 0)                                                          \
    X(LOG_FORMAT, "log-format", "log_format", TEXT, log_format, 0, 0)                              \
    X(ACCESS_LOG, "access-log", "access_log", TEXT, access_log, 0, 0)                              \
    X(PER_IP, "max-per-ip", "max_per_ip", COUNT, max_per_ip, 0, LIMIT_CONNECTIONS)                 \
    X(BODY, "max-body", "max_body", BYTES, max_body_bytes, 1024, LIMIT_BODY_BYTES_HIGHEST)         \
    X(BODY_MEMORY, "max-body-memory", "max_body_memory", BYTES, max_body_memory_bytes, 2048,       \
      INT64_MAX)                                                                                   \
    X(IDS, "dedupe-ids", "dedupe_ids", COUNT, dedupe_ids, 1000, LIMIT_DEDUPE_IDS)                  \
    X(STORE, "max-store", "max_store", BYTES, max_store_bytes, STORE_BYTES_MIN, INT64_MAX)         \
    X(GRACE, "restart-grace", "restart_grace", MILLIS, restart_grace_ms, 0,                        \
      LIMIT_RESTART_GRACE_MS)                                                                      \
    X(DRAIN, "drain-ms", "drain_ms", MILLIS, drain_ms, 0, LIMIT_DRAIN_MS)                          \
    X(AGE, "retain-age", "retain_age", SPAN, retain_age_ms, 0, LIMIT_AGE_MS_MAX)                   \
    X(SIZE, "retain-bytes", "retain_bytes", ROOM, retain_bytes, 0, INT64_MAX)                      \
    X(DEAD, "retain-dead", "retain_dead", SPAN, retain_dead_ms, 0, LIMIT_AGE_MS_MAX)               \
    X(INSECURE, "insecure", "insecure", YES, insecure, 0, 0)                                       \
    X(TLS_CERT, "tls-cert", "tls_cert", LIST, tls_cert, 0, 0)                                      \
    X(TLS_KEY, "tls-key", "tls_key", LIST, tls_key, 0, 0)                                          \
    X(TLS_HTTP, "tls-http", "tls_http", YES, tls_http, 0, 0)                                       \
    X(TLS_WORKERS, "tls-workers", "tls_workers", YES, tls_workers, 0, 0)                           \
    X(TLS_CLIENT_CA, "tls-client-ca", "tls_client_ca", TEXT, tls_client_ca, 0, 0)                  \
    X(TLS_CLIENT, "tls-client", "tls_client", TEXT, tls_client, 0, 0)                              \
    X(ALLOW, "webhook-allow", "webhook_allow", LIST, webhook_allow, 0, 0)                          \
    X(HTTPS, "webhook-https-only", "webhook_https_only", YES, webhook_https_only, 0, 0)            \
    X(CA, "webhook-ca", "webhook_ca", TEXT, webhook_ca, 0, 0)                                      \
    X(KEY, "webhook-key", "webhook_key", TEXT, webhook_key, 0, 0)                                  \
    X(SIGNATURE, "webhook-signature", "webhook_signature", TEXT, webhook_signature, 0, 0)          \
    X(AUDIENCE, "webhook-audience", "webhook_audience", TEXT, webhook_audience, 0, 0)              \
    X(TIMEOUT, "webhook-timeout", "webhook_timeout", MILLIS, webhook_timeout_ms, 100, 60000)       \
    X(MAX_AGE, "webhook-max-age", "webhook_max_age", SPAN, webhook_max_age_ms, 1000, 30 * DAY_MS)  \
    X(BACKOFF_MIN, "webhook-backoff-min", "webhook_backoff_min", MILLIS, webhook_backoff_min_ms,   \
      10, LIMIT_BACKOFF_MS_MAX)                                                                    \
    X(BACKOFF_MAX, "webhook-backoff-max", "webhook_backoff_max", MILLIS, webhook_backoff_max_ms,   \
      10, LIMIT_BACKOFF_MS_MAX)                                                                    \
    X(DISABLE, "webhook-disable-after", "webhook_disable_after", SPAN, webhook_disable_after_ms,   \
      0, LIMIT_AGE_MS_MAX)

enum setting_id {
#define SETTING_ID(name, ...) SETTING_##name,
    SETTINGS(SETTING_ID)
#undef SETTING_ID
        SETTINGS_COUNT
};

static const struct setting {
    const char *flag, *key;
    enum kind kind;
    size_t offset; /* in struct config */
    uint64_t min, max;
} settings[SETTINGS_COUNT] = {
#define SETTING_ROW(name, flag, key, kind, field, min, max)                                        \
    {flag, key, KIND_##kind, offsetof(struct config, field), min, max},
    SETTINGS(SETTING_ROW)
#undef SETTING_ROW
};

static const char help[] =
    "bellhopd " BELLHOP_VERSION
    ": takes webhooks in, keeps them, hands them to workers.\n"
    "\n"
    "usage: bellhopd [options]\n"
    "  --http ADDRESS:PORT     HTTP: webhooks in and the API   (127.0.0.1:8420)\n"
    "  --workers ADDRESS:PORT  the worker protocol             (127.0.0.1:8421)\n"
    "  --data DIR              the journal and everything else (./bellhop-data)\n"
    "  --config FILE           YAML; its keys are the names of these options, with _ for -\n"
    "  --max-body SIZE         largest body of an event        (1m)\n"
    "  --max-body-memory SIZE  bodies of all requests together (256m)\n"
    "  --max-per-ip NUMBER     HTTP connections of one address, or none; loopback has no limit\n"
    "                                                          (1024)\n"
    "  --dedupe-ids NUMBER     ids of events that are remembered, 16 bytes each (1000000)\n"
    "  --max-store SIZE        the store may grow to this      (256g)\n"
    "  --retain-age TIME       how long events are kept        (none: for ever)\n"
    "  --retain-bytes SIZE     how large the journal may get   (none: no limit of its own)\n"
    "  --retain-dead TIME      how long dead letters are kept  (30d)\n"
    "  --restart-grace MS      after a start, how long workers may come back for what they held\n"
    "                                                          (10000)\n"
    "  --drain-ms MS           on SIGTERM, how long workers may finish what they hold (5000)\n"
    "  --log LEVEL             error, warn, info or debug      (info)\n"
    "  --log-format logfmt|json                                (logfmt)\n"
    "  --access-log refused|all|none  which webhooks have a line in the log (refused)\n"
    "  --insecure yes|no       serve other addresses than loopback without any key (no)\n"
    "  --make-key NAME         make a key for everything, print it and end; the broker must not "
    "run\n"
    "  --version, --help\n"
    "TLS, on both ports (docs/operations.md):\n"
    "  --tls-cert FILE --tls-key FILE  PEM chain and private key; repeatable in pairs: the "
    "client's\n"
    "                          SNI chooses. SIGHUP reads them again\n"
    "  --tls-http yes|no, --tls-workers yes|no  which port speaks it (yes when there is a "
    "--tls-cert)\n"
    "  --tls-client-ca FILE    authorities of client certificates, PEM (none are asked for)\n"
    "  --tls-client required|optional                          (required)\n"
    "webhooks that are sent (docs/operations.md):\n"
    "  --webhook-allow CIDR    private addresses that they may go to; repeatable (none)\n"
    "  --webhook-https-only yes|no                             (no)\n"
    "  --webhook-timeout TIME  of one attempt                  (15s)\n"
    "  --webhook-max-age TIME  how long an event is tried      (24h)\n"
    "  --webhook-backoff-min TIME, --webhook-backoff-max TIME  (5s, doubling to 5h)\n"
    "  --webhook-disable-after TIME  of nothing but failure, or none (5d)\n"
    "  --webhook-signature v1a|jwt   of dynamic webhooks       (v1a)\n"
    "  --webhook-audience TEXT aud of a jwt                    (the URI it is sent to)\n"
    "  --webhook-key FILE      private key that signs them     (made at the first start)\n"
    "  --webhook-ca FILE       further authorities for TLS, PEM\n"
    "\n"
    "SIZE: bytes, or a number with k, m, g or t. TIME: a number with ms, s, m, h or d, or none.\n"
    "Port 0 takes any free port; the ports in use are printed at start. SIGTERM and SIGINT stop\n"
    "it cleanly, a second one at once.\n"
    "\n"
    "example: bellhopd --data /var/lib/bellhop --retain-age 14d --retain-bytes 50g\n";

/* ---- values ---- */

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit size_units[] = {
    {"", 1}, {"k", 1024}, {"m", 1024 * 1024}, {"g", 1ULL << 30}, {"t", 1ULL << 40}, {0},
};
/* Without a unit: milliseconds, where the name of the setting says so. */
static const struct unit millis_units[] = {
    {"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}, {"d", DAY_MS}, {0},
};
static const struct unit *const span_units = millis_units + 1;

/* A number and one of the units. */
static bool parse_scaled(const char *text, const struct unit *units, uint64_t *out) {
    size_t digits = strspn(text, "0123456789");
    uint64_t n;
    if (!slice_to_u64(slice_of(text, digits), &n)) return false;
    for (; units->name != NULL; units++) {
        if (!slice_eq_nocase(slice_str(text + digits), units->name)) continue;
        if (n > UINT64_MAX / units->factor) return false;
        *out = n * units->factor;
        return true;
    }
    return false;
}

static bool parse_value(enum kind kind, const char *text, uint64_t *out) {
    bool may_be_none = kind == KIND_SPAN || kind == KIND_ROOM || kind == KIND_COUNT;
    if (may_be_none && (strcmp(text, "none") == 0 || strcmp(text, "0") == 0)) {
        *out = 0;
        return true;
    }
    switch (kind) {
    case KIND_BYTES:
    case KIND_ROOM: return parse_scaled(text, size_units, out);
    case KIND_MILLIS: return parse_scaled(text, millis_units, out);
    case KIND_SPAN: return parse_scaled(text, span_units, out);
    case KIND_COUNT: return slice_to_u64(slice_str(text), out);
    case KIND_YES:
        *out = strcmp(text, "yes") == 0 || strcmp(text, "true") == 0;
        return *out == 1 || strcmp(text, "no") == 0 || strcmp(text, "false") == 0;
    case KIND_TEXT:
    case KIND_LIST: break;
    }
    UNREACHABLE("a text is no number");
}

static const char *wanted(enum kind kind) {
    switch (kind) {
    case KIND_BYTES: return "a size: bytes, or a number with k, m, g or t, such as 512m";
    case KIND_ROOM: return "a size such as 10g, 512m or 64k, or none";
    case KIND_MILLIS: return "a time: milliseconds, or a number with ms, s or m, such as 10s";
    case KIND_SPAN: return "a time such as 7d, 12h, 30m, 10s or 1500ms, or none";
    case KIND_YES: return "yes or no";
    case KIND_COUNT: return "a number, or none";
    case KIND_TEXT:
    case KIND_LIST: break;
    }
    UNREACHABLE("any text will do");
}

/* Behind the bounds of a value. */
static const char *unit_of(enum kind kind) {
    if (kind == KIND_BYTES || kind == KIND_ROOM) return " bytes";
    return kind == KIND_COUNT ? "" : " milliseconds";
}

static void take_text(char **to, const char *from) {
    free(*to);
    *to = mem_strdup(from);
}

static void add_text(char **to, const char *more) {
    size_t size = strlen(*to) + strlen(more) + 2;
    char *both = mem_alloc(size);
    snprintf(both, size, "%s%s%s", *to, **to == '\0' ? "" : ",", more);
    free(*to);
    *to = both;
}

/* Sets it. False: `place` (a flag, or a file and its key) and what is wrong was printed. */
static bool set(struct config *c, enum setting_id id, const char *place, const char *text) {
    const struct setting *s = &settings[id];
    void *field = (char *)c + s->offset;
    uint64_t n;
    if (s->kind == KIND_TEXT) {
        take_text(field, text);
        return true;
    }
    if (s->kind == KIND_LIST) {
        add_text(field, text);
        return true;
    }
    if (!parse_value(s->kind, text, &n)) {
        fprintf(stderr, "bellhopd: %s: '%s' is not %s\n", place, text, wanted(s->kind));
        return false;
    }
    if (s->kind != KIND_YES && (n < s->min || n > s->max)) {
        fprintf(stderr, "bellhopd: %s: '%s' must be %llu to %llu%s\n", place, text,
                (unsigned long long)s->min, (unsigned long long)s->max, unit_of(s->kind));
        return false;
    }
    memcpy(field, &n, sizeof n);
    return true;
}

/* ---- the file ---- */

struct file_config {
    char *values[SETTINGS_COUNT];
};

static const cyaml_schema_field_t file_fields[] = {
#define SETTING_FIELD(name, flag, key, ...)                                                        \
    CYAML_FIELD_STRING_PTR(key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file_config,      \
                           values[SETTING_##name], 1, 4096),
    SETTINGS(SETTING_FIELD)
#undef SETTING_FIELD
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

static bool read_file(struct config *c, const char *path) {
    const cyaml_config_t options = {
        .log_fn = print_cyaml_log,
        .log_level = CYAML_LOG_ERROR,
        .mem_fn = cyaml_mem,
    };
    struct file_config *file = NULL;
    bool ok = true;
    cyaml_err_t err =
        cyaml_load_file(path, &options, &file_schema, (cyaml_data_t **)(void *)&file, NULL);
    if (err != CYAML_OK) {
        fprintf(stderr, "bellhopd: cannot use the configuration file %s: %s", path,
                err == CYAML_ERR_FILE_OPEN ? strerror(errno) : cyaml_strerror(err));
        if (err == CYAML_ERR_INVALID_KEY) fputs("; its keys are", stderr);
        for (int i = 0; err == CYAML_ERR_INVALID_KEY && i < SETTINGS_COUNT; i++) {
            fprintf(stderr, " %s", settings[i].key);
        }
        fputs("\n", stderr);
        return false;
    }
    for (int i = 0; file != NULL && ok && i < SETTINGS_COUNT; i++) {
        char place[512];
        if (file->values[i] == NULL) continue;
        snprintf(place, sizeof place, "%s: %s", path, settings[i].key);
        ok = set(c, (enum setting_id)i, place, file->values[i]);
    }
    cyaml_free(&options, &file_schema, file, 0);
    return ok;
}

/* ---- the flags ---- */

#define FLAG_SETTINGS 256 /* and from there on one for each setting */
#define FLAG_CONFIG   (FLAG_SETTINGS + SETTINGS_COUNT)
#define FLAG_MAKE_KEY (FLAG_CONFIG + 1) /* an act, not a setting: it is in no file */

static const struct option flags[] = {
#define SETTING_FLAG(name, flag, ...)                                                              \
    {flag, required_argument, NULL, FLAG_SETTINGS + SETTING_##name},
    SETTINGS(SETTING_FLAG)
#undef SETTING_FLAG
        {"config", required_argument, NULL, FLAG_CONFIG},
    {"make-key", required_argument, NULL, FLAG_MAKE_KEY},
    {"version", no_argument, NULL, 'v'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static bool set_flag(struct config *c, int flag, const char *text) {
    enum setting_id id = (enum setting_id)(flag - FLAG_SETTINGS);
    char place[64];
    CHECK(flag >= FLAG_SETTINGS && id < SETTINGS_COUNT); /* what is in the table */
    snprintf(place, sizeof place, "--%s", settings[id].flag);
    return set(c, id, place, text);
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
        case FLAG_MAKE_KEY:
            if (*optarg == '\0') { /* or a broker would start, without the key */
                fputs("bellhopd: --make-key: '' is not a name for the key\n", stderr);
                return CONFIG_BAD;
            }
            take_text(&c->make_key, optarg);
            break;
        case 'v': puts("bellhopd " BELLHOP_VERSION); return CONFIG_DONE;
        case 'h': fputs(help, stdout); return CONFIG_DONE;
        default:
            if (!set_flag(c, flag, optarg)) return CONFIG_BAD;
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

const char *config_exposed(const struct config *c) {
    if (!is_loopback(c->http)) return c->http;
    return is_loopback(c->workers) ? NULL : c->workers;
}

static size_t count_files(const char *list) {
    size_t count = *list == '\0' ? 0 : 1;
    for (; *list != '\0'; list++) count += *list == ',';
    return count;
}

static bool check_tls(const struct config *c) {
    size_t certs = count_files(c->tls_cert), keys = count_files(c->tls_key);
    if (certs != keys) {
        fprintf(
            stderr,
            "bellhopd: tls-cert, tls-key: there are %zu certificates and %zu keys: give one key "
            "for each certificate, in the same order\n",
            certs, keys);
        return false;
    }
    if (strcmp(c->tls_client, "required") != 0 && strcmp(c->tls_client, "optional") != 0) {
        fprintf(stderr, "bellhopd: tls-client: '%s' is not required or optional\n", c->tls_client);
        return false;
    }
    if (certs == 0 && (c->tls_http == 1 || c->tls_workers == 1)) {
        fprintf(stderr, "bellhopd: %s: yes needs a tls-cert and its tls-key\n",
                c->tls_http == 1 ? "tls-http" : "tls-workers");
        return false;
    }
    if (c->tls_client_ca[0] != '\0' && certs == 0) {
        fputs("bellhopd: tls-client-ca: client certificates need TLS: give a tls-cert\n", stderr);
        return false;
    }
    return true;
}

static enum config_result check(const struct config *c) {
    if (log_level_from_name(c->log) < 0) {
        fprintf(stderr, "bellhopd: log: '%s' is not error, warn, info or debug\n", c->log);
        return CONFIG_BAD;
    }
    if (log_format_from_name(c->log_format) < 0) {
        fprintf(stderr, "bellhopd: log-format: '%s' is not logfmt or json\n", c->log_format);
        return CONFIG_BAD;
    }
    if (strcmp(c->access_log, "refused") != 0 && strcmp(c->access_log, "all") != 0 &&
        strcmp(c->access_log, "none") != 0) {
        fprintf(stderr, "bellhopd: access-log: '%s' is not refused, all or none\n", c->access_log);
        return CONFIG_BAD;
    }
    if (c->max_body_memory_bytes / 2 < c->max_body_bytes) {
        fprintf(stderr,
                "bellhopd: max-body-memory: must be at least twice max-body: %llu bytes or more\n",
                2 * (unsigned long long)c->max_body_bytes);
        return CONFIG_BAD;
    }
    if (!check_tls(c)) return CONFIG_BAD;
    if (strcmp(c->webhook_signature, "v1a") != 0 && strcmp(c->webhook_signature, "jwt") != 0) {
        fprintf(stderr, "bellhopd: webhook-signature: '%s' is not v1a or jwt\n",
                c->webhook_signature);
        return CONFIG_BAD;
    }
    if (c->webhook_backoff_min_ms > c->webhook_backoff_max_ms) {
        fputs("bellhopd: webhook-backoff-min: must not be above webhook-backoff-max\n", stderr);
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
        .log_format = mem_strdup("logfmt"),
        .access_log = mem_strdup("refused"),
        .max_body_bytes = LIMIT_BODY_BYTES_DEFAULT,
        .max_body_memory_bytes = LIMIT_BODY_MEMORY_BYTES,
        .max_per_ip = LIMIT_HTTP_PER_IP,
        .dedupe_ids = 1000000,
        .max_store_bytes = LMDB_MAP_BYTES_DEFAULT,
        .restart_grace_ms = 10000,
        .drain_ms = 5000,
        .retain_dead_ms = 30 * DAY_MS,
        .make_key = mem_strdup(""),
        .tls_cert = mem_strdup(""),
        .tls_key = mem_strdup(""),
        .tls_http = CONFIG_IF_CERT,
        .tls_workers = CONFIG_IF_CERT,
        .tls_client_ca = mem_strdup(""),
        .tls_client = mem_strdup("required"),
        .webhook_allow = mem_strdup(""),
        .webhook_ca = mem_strdup(""),
        .webhook_key = mem_strdup(""),
        .webhook_signature = mem_strdup("v1a"),
        .webhook_audience = mem_strdup(""),
        .webhook_timeout_ms = 15000,
        .webhook_max_age_ms = DAY_MS,
        .webhook_backoff_min_ms = 5000,
        .webhook_backoff_max_ms = 5 * 3600 * 1000,
        .webhook_disable_after_ms = 5 * DAY_MS,
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
    free(c->log_format);
    free(c->access_log);
    free(c->make_key);
    free(c->tls_cert);
    free(c->tls_key);
    free(c->tls_client_ca);
    free(c->tls_client);
    free(c->webhook_allow);
    free(c->webhook_ca);
    free(c->webhook_key);
    free(c->webhook_signature);
    free(c->webhook_audience);
    *c = (struct config){0};
}
