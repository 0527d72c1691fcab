/* config.h: what bellhopd was told, by flags and by a YAML file.
 *
 * Owned by main; every text in it lives until config_free. A flag wins over the file, the file over
 * the default. May call: base, libcyaml (its only user). */
#ifndef BROKER_CONFIG_H
#define BROKER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_IF_CERT 2 /* yes if there is a certificate, else no */

struct config {
    char *http;        /* "127.0.0.1:8420" */
    char *workers;     /* "127.0.0.1:8421" */
    char *data;        /* "./bellhop-data" */
    char *log;         /* "info" */
    char *log_format;  /* "logfmt" or "json" */
    char *access_log;  /* "refused", "all" or "none" */
    char *make_key;    /* make a key of this name, and end; "" */
    uint64_t insecure; /* 0 or 1: serve an exposed address without keys */
    uint64_t max_body_bytes, max_body_memory_bytes;
    uint64_t dedupe_ids; /* of events, remembered for sure */
    uint64_t max_per_ip; /* HTTP connections of one address; 0: no limit */
    uint64_t max_store_bytes;
    uint64_t restart_grace_ms;
    uint64_t drain_ms;
    uint64_t retain_age_ms, retain_bytes, retain_dead_ms; /* 0: for ever, without limit */
    /* TLS of both ports: files, separated by commas; "": none. */
    char *tls_cert, *tls_key;
    uint64_t tls_http, tls_workers; /* 0, 1 (then there is a certificate) or CONFIG_IF_CERT */
    char *tls_client_ca;
    char *tls_client; /* "required" or "optional" */
    /* Outbound webhooks. */
    char *webhook_allow;            /* CIDR blocks, separated by commas; "" */
    uint64_t webhook_https_only;    /* 0 or 1 */
    char *webhook_ca, *webhook_key; /* files; "" */
    char *webhook_signature;        /* of dynamic ones: "v1a" or "jwt" */
    char *webhook_audience;         /* of a JWT; "": the URI */
    uint64_t webhook_timeout_ms, webhook_max_age_ms;
    uint64_t webhook_backoff_min_ms, webhook_backoff_max_ms;
    uint64_t webhook_disable_after_ms; /* 0: never */
};

enum config_result { CONFIG_RUN, CONFIG_DONE, CONFIG_BAD };

/* Reads the arguments and the file they name. CONFIG_DONE: --help or --version was printed.
 * CONFIG_BAD: what is wrong, where and what to do was printed on stderr. */
enum config_result config_read(struct config *c, int argc, char **argv);
/* The first of the addresses that other machines may reach; NULL: there is none. */
const char *config_exposed(const struct config *c);
void config_free(struct config *c);

#endif
