/* Certificates, keys and rules: what every connection of a server begins with.
 *
 * As it goes well: each pair of files becomes an SSL_CTX; a connection begins with the first, and
 * when the client names a host the one whose certificate is for it takes over. A reload makes a
 * whole new set and only then lets the old one go; OpenSSL counts who still uses a part of it.
 * What can fail: files that cannot be read, or do not fit each other. Each is a sentence. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "broker/net/tls_server.h"
#include "proto/limits.h"

/* RFC 9325 section 4.2: ECDHE and AEAD only. The suites of TLS 1.3 are all of that kind. */
#define CIPHERS_1_2 "ECDHE+AESGCM:ECDHE+CHACHA20"
#define GROUPS      "X25519:P-256:P-384"

/* A key that wants a pass phrase is an error: nobody sits at a broker's terminal. */
static int no_pass_phrase(char *out, int size, int writing, void *ctx) {
    (void)out;
    (void)size;
    (void)writing;
    (void)ctx;
    return -1;
}

/* OpenSSL's own words for what went wrong first. */
static const char *reason(void) {
    unsigned long code = ERR_peek_error();
    if (ERR_SYSTEM_ERROR(code)) return strerror(ERR_GET_REASON(code));
    if (ERR_GET_REASON(code) == PEM_R_NO_START_LINE || ERR_GET_REASON(code) == ERR_R_UNSUPPORTED)
        return "it holds no such PEM block";
    if (ERR_GET_REASON(code) == ERR_R_INTERRUPTED_OR_CANCELLED) {
        return "it wants a pass phrase; store it without one, readable by the broker alone";
    }
    const char *text = ERR_reason_error_string(code);
    return text == NULL ? "unknown error" : text;
}

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                       const unsigned char *in, unsigned int in_len, void *ctx) {
    const char *ours = tls_alpn(SSL_get_app_data(ssl));
    size_t len = strlen(ours);
    (void)ctx;
    for (size_t at = 0; at + 1 + in[at] <= in_len; at += (size_t)1 + in[at]) {
        if (in[at] == len && memcmp(in + at + 1, ours, len) == 0) {
            *out = in + at + 1;
            *out_len = in[at];
            return SSL_TLSEXT_ERR_OK;
        }
        if (at + 1 + in[at] == in_len) break;
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL; /* no_application_protocol, RFC 7301 section 3.2 */
}

static int select_certificate(SSL *ssl, int *alert, void *ctx) {
    struct tls_server *s = ctx;
    const char *host = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    (void)alert;
    for (size_t i = 0; host != NULL && i < s->count; i++) {
        X509 *certificate = SSL_CTX_get0_certificate(s->contexts[i]);
        if (X509_check_host(certificate, host, strlen(host), 0, NULL) != 1) continue;
        SSL_set_SSL_CTX(ssl, s->contexts[i]);
        break;
    }
    return SSL_TLSEXT_ERR_OK; /* a name that is not ours gets the first certificate */
}

static SSL_CTX *new_context(struct tls_server *s) {
    SSL_CTX *c = SSL_CTX_new(TLS_server_method());
    CHECK(c != NULL);
    CRYPTO_CHECK(SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION) == 1);
    CRYPTO_CHECK(SSL_CTX_set_max_proto_version(c, 0) == 1);
    CRYPTO_CHECK(SSL_CTX_set_cipher_list(c, CIPHERS_1_2) == 1);
    CRYPTO_CHECK(SSL_CTX_set1_groups_list(c, GROUPS) == 1);
    SSL_CTX_set_security_level(c, 2); /* 112 bits: no RSA below 2048, no SHA-1 */
    SSL_CTX_clear_options(c, SSL_OP_LEGACY_SERVER_CONNECT |
                                 SSL_OP_ALLOW_UNSAFE_LEGACY_RENEGOTIATION |
                                 SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                               SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    CRYPTO_CHECK(SSL_CTX_set_num_tickets(c, 0) == 1);
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS); /* an idle connection keeps none */
    SSL_CTX_set_max_cert_list(c, LIMIT_TLS_MESSAGE_BYTES);
    SSL_CTX_set_default_passwd_cb(c, no_pass_phrase);
    SSL_CTX_set_alpn_select_cb(c, select_alpn, NULL);
    SSL_CTX_set_tlsext_servername_callback(c, select_certificate);
    SSL_CTX_set_tlsext_servername_arg(c, s);
    return c;
}

/* Takes what the text names next, up to a comma. False: there is no more. */
static bool next_file(const char **list, char *out, size_t size) {
    size_t len = strcspn(*list, ",");
    if (len == 0) return false;
    snprintf(out, size, "%.*s", (int)(len < size ? len : size - 1), *list);
    *list += len;
    if (**list == ',') (*list)++;
    return true;
}

static void warn_of_time(SSL_CTX *c, const char *file) {
    const X509 *certificate = SSL_CTX_get0_certificate(c);
    if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0) {
        log_warn("TLS: the certificate in %s has expired: clients will refuse it", file);
    } else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0) {
        log_warn("TLS: the certificate in %s is not valid yet: clients will refuse it", file);
    }
}

static int load_pair(SSL_CTX *c, const char *cert, const char *key, char *error, size_t size) {
    if (SSL_CTX_use_certificate_chain_file(c, cert) != 1) {
        snprintf(error, size, "cannot use the certificate %s: %s", cert, reason());
        return -1;
    }
    ERR_clear_error();
    if (SSL_CTX_use_PrivateKey_file(c, key, SSL_FILETYPE_PEM) != 1) {
        bool other = ERR_GET_REASON(ERR_peek_error()) == X509_R_KEY_VALUES_MISMATCH ||
                     ERR_GET_REASON(ERR_peek_error()) == X509_R_KEY_TYPE_MISMATCH;
        if (other) {
            snprintf(error, size, "the private key %s is not that of the certificate %s", key,
                     cert);
        } else {
            snprintf(error, size, "cannot use the private key %s: %s", key, reason());
        }
        return -1;
    }
    warn_of_time(c, cert);
    return 0;
}

static int load_client_ca(SSL_CTX *c, const struct tls_options *o, char *error, size_t size) {
    if (o->client_ca == NULL || o->client_ca[0] == '\0') return 0;
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(o->client_ca);
    if (names == NULL || SSL_CTX_load_verify_file(c, o->client_ca) != 1) {
        snprintf(error, size, "cannot use the authorities of clients in %s: %s", o->client_ca,
                 reason());
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return -1;
    }
    SSL_CTX_set_client_CA_list(c, names); /* takes it */
    SSL_CTX_set_verify(c,
                       SSL_VERIFY_PEER | SSL_VERIFY_CLIENT_ONCE |
                           (o->client_optional ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT),
                       NULL);
    return 0;
}

static void free_contexts(SSL_CTX **contexts, size_t count) {
    for (size_t i = 0; i < count; i++) SSL_CTX_free(contexts[i]);
}

/* Makes every context anew. Non-zero: none, and a sentence. */
static int load(struct tls_server *s, SSL_CTX **contexts, size_t *count, char *error, size_t size) {
    const char *certs = s->certs, *keys = s->keys;
    char cert[FILE_BYTES], key[FILE_BYTES];
    ERR_clear_error();
    *count = 0;
    for (;;) {
        bool more = next_file(&certs, cert, sizeof cert);
        if (next_file(&keys, key, sizeof key) != more) {
            snprintf(error, size,
                     "each certificate needs its private key: give as many keys as certificates");
            break;
        }
        if (!more && *count == 0) {
            snprintf(error, size, "there is no certificate");
            break;
        }
        if (!more) return 0;
        if (*count == LIMIT_TLS_CERTIFICATES) {
            snprintf(error, size, "there are more than %d certificates", LIMIT_TLS_CERTIFICATES);
            break;
        }
        SSL_CTX *c = contexts[(*count)++] = new_context(s);
        if (load_pair(c, cert, key, error, size) != 0) break;
        if (load_client_ca(c, &s->options, error, size) != 0) break;
    }
    free_contexts(contexts, *count);
    ERR_clear_error();
    return -1;
}

int tls_server_open(struct tls_server **out, const struct tls_options *options, char *error,
                    size_t error_size) {
    struct tls_server *s = mem_zalloc(sizeof *s);
    s->certs = mem_strdup(options->certs);
    s->keys = mem_strdup(options->keys);
    s->client_ca = mem_strdup(options->client_ca == NULL ? "" : options->client_ca);
    s->options = (struct tls_options){s->certs, s->keys, s->client_ca, options->client_optional};
    s->bio = tls_bio_method();
    *out = NULL;
    if (load(s, s->contexts, &s->count, error, error_size) != 0) {
        s->count = 0;
        tls_server_close(&s);
        return -1;
    }
    *out = s;
    return 0;
}

int tls_server_reload(struct tls_server *s, char *error, size_t error_size) {
    SSL_CTX *fresh[LIMIT_TLS_CERTIFICATES];
    size_t count;
    if (load(s, fresh, &count, error, error_size) != 0) return -1;
    free_contexts(s->contexts, s->count);
    memcpy(s->contexts, fresh, count * sizeof fresh[0]);
    s->count = count;
    return 0;
}

void tls_server_close(struct tls_server **server) {
    struct tls_server *s = *server;
    if (s == NULL) return;
    free_contexts(s->contexts, s->count);
    BIO_meth_free(s->bio);
    free(s->certs);
    free(s->keys);
    free(s->client_ca);
    free(s);
    *server = NULL;
}
