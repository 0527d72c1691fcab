/* TLS 1.2 and 1.3 as a client: the broker's certificate is verified against the system's
 * authorities or a file, and held against the host of the URL (RFC 9525).
 *
 * What can fail: the files (a sentence, once), and the peer: its certificate, its protocol, a
 * connection that is cut. All is told by bh_tls_why. */
#include "clients/c/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/limits.h"

#define WIRE_BYTES_MAX ((size_t)256 * MIB) /* twice what a connection may owe */
#define PIECE_BYTES    (16 * KIB)          /* the plaintext of a record */

static const unsigned char alpn[] =
    "\x09"
    "bellhop/1"; /* RFC 7301 section 3.1 */

struct bh_trust {
    SSL_CTX *context;
    BIO_METHOD *bio;
};

struct bh_tls {
    SSL *ssl;
    struct slice in; /* what bh_tls_read was given and OpenSSL has not taken yet */
    struct buf wire;
    bool up;
    char why[256];
};

static int bio_read(BIO *b, char *out, int size) {
    struct bh_tls *t = BIO_get_data(b);
    size_t len = (size_t)size < t->in.len ? (size_t)size : t->in.len;
    BIO_clear_retry_flags(b);
    if (len == 0) {
        BIO_set_retry_read(b);
        return -1;
    }
    memcpy(out, t->in.data, len);
    t->in = slice_of(t->in.data + len, t->in.len - len);
    return (int)len;
}

static int bio_write(BIO *b, const char *data, int len) {
    struct bh_tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    return buf_append(&t->wire, data, (size_t)len) ? len : -1;
}

static long bio_ctrl(BIO *b, int command, long number, void *pointer) {
    (void)b;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

/* ---- whom to trust ---- */

static const char *reason(void) {
    unsigned long code = ERR_peek_error();
    if (ERR_SYSTEM_ERROR(code)) return strerror(ERR_GET_REASON(code));
    const char *text = ERR_reason_error_string(code);
    return text == NULL ? "unknown error" : text;
}

static bool is_given(const char *file) {
    return file != NULL && file[0] != '\0';
}

static bool load(SSL_CTX *c, const struct bellhop_options *o, char *error, size_t size) {
    ERR_clear_error();
    if (!is_given(o->ca_file)) {
        CHECK(SSL_CTX_set_default_verify_paths(c) == 1);
    } else if (SSL_CTX_load_verify_file(c, o->ca_file) != 1) {
        snprintf(error, size, "cannot use the authorities in %s: %s", o->ca_file, reason());
        return false;
    }
    if (!is_given(o->cert_file)) return true;
    if (SSL_CTX_use_certificate_chain_file(c, o->cert_file) != 1) {
        snprintf(error, size, "cannot use the certificate %s: %s", o->cert_file, reason());
        return false;
    }
    const char *key = is_given(o->key_file) ? o->key_file : o->cert_file;
    if (SSL_CTX_use_PrivateKey_file(c, key, SSL_FILETYPE_PEM) != 1) {
        snprintf(error, size, "cannot use the private key %s: %s", key, reason());
        return false;
    }
    return true;
}

/* A key that wants a pass phrase is an error: a worker has no terminal. */
static int no_pass_phrase(char *out, int size, int writing, void *ctx) {
    (void)out;
    (void)size;
    (void)writing;
    (void)ctx;
    return -1;
}

struct bh_trust *bh_trust_new(const struct bellhop_options *o, char *error, size_t size) {
    struct bh_trust *t = mem_zalloc(sizeof *t);
    SSL_CTX *c = t->context = SSL_CTX_new(TLS_client_method());
    t->bio = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "connection");
    CHECK(c != NULL && t->bio != NULL);
    CHECK(BIO_meth_set_read(t->bio, bio_read) == 1 && BIO_meth_set_write(t->bio, bio_write) == 1 &&
          BIO_meth_set_ctrl(t->bio, bio_ctrl) == 1);
    CHECK(SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION) == 1);
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_verify(c, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_default_passwd_cb(c, no_pass_phrase);
    CHECK(SSL_CTX_set_alpn_protos(c, alpn, sizeof alpn - 1) == 0);
    bool ok = load(c, o, error, size);
    ERR_clear_error();
    if (!ok) bh_trust_free(&t);
    return t;
}

void bh_trust_free(struct bh_trust **trust) {
    struct bh_trust *t = *trust;
    if (t == NULL) return;
    SSL_CTX_free(t->context);
    BIO_meth_free(t->bio);
    free(t);
    *trust = NULL;
}

/* ---- one connection ---- */

static bool is_address(const char *host) {
    uint8_t bytes[16];
    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

struct bh_tls *bh_tls_new(struct bh_trust *trust, const char *host) {
    struct bh_tls *t = mem_zalloc(sizeof *t);
    BIO *bio = BIO_new(trust->bio);
    t->ssl = SSL_new(trust->context);
    CHECK(bio != NULL && t->ssl != NULL);
    buf_init(&t->wire, WIRE_BYTES_MAX);
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio); /* takes it */
    if (is_address(host)) {
        CHECK(X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->ssl), host) == 1);
    } else {
        SSL_set_hostflags(t->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        CHECK(SSL_set1_host(t->ssl, host) == 1);
        CHECK(SSL_set_tlsext_host_name(t->ssl, host) == 1);
    }
    SSL_set_connect_state(t->ssl);
    return t;
}

void bh_tls_free(struct bh_tls **tls) {
    struct bh_tls *t = *tls;
    if (t == NULL) return;
    SSL_free(t->ssl);
    buf_free(&t->wire);
    free(t);
    *tls = NULL;
}

static void explain(struct bh_tls *t) {
    unsigned long code = ERR_peek_error();
    const char *text = ERR_reason_error_string(code);
    long verified = SSL_get_verify_result(t->ssl);
    switch (ERR_GET_REASON(code)) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
        snprintf(t->why, sizeof t->why, "the broker's certificate is refused: %s",
                 X509_verify_cert_error_string(verified));
        break;
    case SSL_R_WRONG_VERSION_NUMBER:
        snprintf(t->why, sizeof t->why,
                 "the peer does not speak TLS: is it bellhop:// and not bellhops://?");
        break;
    default: snprintf(t->why, sizeof t->why, "TLS: %s", text == NULL ? "unknown error" : text);
    }
    ERR_clear_error();
}

/* What a call of OpenSSL that did not succeed means. BH_TLS_OK: it needs more bytes. */
static enum bh_tls_result outcome(struct bh_tls *t, int rc) {
    switch (SSL_get_error(t->ssl, rc)) {
    case SSL_ERROR_WANT_READ: return BH_TLS_OK;
    case SSL_ERROR_ZERO_RETURN: return BH_TLS_END;
    default: explain(t); return BH_TLS_FAILED;
    }
}

enum bh_tls_result bh_tls_read(struct bh_tls *t, struct slice raw, struct buf *in) {
    t->in = raw;
    ERR_clear_error();
    if (!t->up) {
        int rc = SSL_do_handshake(t->ssl);
        if (rc != 1) return outcome(t, rc);
        t->up = true;
    }
    for (;;) {
        size_t got;
        uint8_t *at = buf_reserve(in, PIECE_BYTES);
        if (at == NULL) {
            snprintf(t->why, sizeof t->why, "the broker sends more than a frame may be");
            return BH_TLS_FAILED;
        }
        int rc = SSL_read_ex(t->ssl, at, PIECE_BYTES, &got);
        if (rc != 1) return outcome(t, rc);
        in->len += got;
    }
}

bool bh_tls_is_up(const struct bh_tls *t) {
    return t->up;
}

bool bh_tls_seal(struct bh_tls *t, struct slice plain) {
    size_t written;
    CHECK(t->up);
    ERR_clear_error();
    return SSL_write_ex(t->ssl, plain.data, plain.len, &written) == 1 && written == plain.len;
}

void bh_tls_goodbye(struct bh_tls *t) {
    if (!t->up) return;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl); /* the peer's own is not waited for */
    ERR_clear_error();
}

struct buf *bh_tls_wire(struct bh_tls *t) {
    return &t->wire;
}

const char *bh_tls_why(const struct bh_tls *t) {
    return t->why;
}
