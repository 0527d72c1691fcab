/* The TLS of one stream.
 *
 * As it goes well: tls_read drives the handshake until it is done and then reads records out of
 * what was fed; OpenSSL keeps what is not whole yet. What it writes (handshake, alerts, sealed
 * plaintext) lies in the wire until the stream has written it.
 *
 * What can fail: the peer. Before OpenSSL sees a byte of a handshake the gate holds it against our
 * limits: OpenSSL allocates what a message's length announces, up to 128 KiB. Floods of empty
 * records, warnings and key updates are bounded by OpenSSL itself. */
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/net/tls_server.h"

#define WIRE_BYTES_MAX                                                                             \
    (2 * MIB) /* a sealed piece of a stream's output, and answers of TLS itself */
#define RECORD_HEADER  5
#define MESSAGE_HEADER 4
/* RFC 8446 section 5.1 */
#define RECORD_CHANGE_CIPHER_SPEC 20
#define RECORD_HANDSHAKE          22

/* Where the peer's handshake is, by its records and messages (RFC 8446 sections 4 and 5). */
struct gate {
    uint8_t record[RECORD_HEADER], message[MESSAGE_HEADER];
    size_t record_len, message_len; /* of their headers, so far */
    size_t record_left, message_left;
    size_t bytes; /* of the whole handshake */
    unsigned messages;
    bool encrypted; /* its messages cannot be told apart any more */
};

struct tls {
    SSL *ssl;
    const char *alpn;
    struct slice plain;
    struct slice in; /* what was fed and not read yet; borrowed, or in kept */
    struct buf kept, wire;
    struct gate gate;
    enum tls_result after; /* TLS_OK, or what comes after the plaintext that was just given */
    bool up, said_goodbye;
    char *peer_name;
    char why[200];
};

/* ---- OpenSSL's way to the bytes ---- */

static int bio_read(BIO *b, char *out, int size) {
    struct tls *t = BIO_get_data(b);
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
    struct tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    return buf_append(&t->wire, data, (size_t)len) ? len : -1;
}

static long bio_ctrl(BIO *b, int command, long number, void *pointer) {
    (void)b;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO_METHOD *tls_bio_method(void) {
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "stream");
    CRYPTO_CHECK(m != NULL && BIO_meth_set_read(m, bio_read) == 1 &&
                 BIO_meth_set_write(m, bio_write) == 1 && BIO_meth_set_ctrl(m, bio_ctrl) == 1);
    return m;
}

const char *tls_alpn(const struct tls *t) {
    return t->alpn;
}

struct tls *tls_new(struct tls_server *server, const char *alpn, struct slice plain) {
    SSL *ssl = SSL_new(server->contexts[0]);
    BIO *bio = BIO_new(server->bio);
    if (ssl == NULL || bio == NULL) {
        SSL_free(ssl);
        BIO_free(bio);
        ERR_clear_error();
        return NULL;
    }
    struct tls *t = mem_zalloc(sizeof *t);
    t->ssl = ssl;
    t->alpn = alpn;
    t->plain = plain;
    buf_init(&t->kept, SIZE_MAX);
    buf_init(&t->wire, WIRE_BYTES_MAX);
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio); /* takes it */
    SSL_set_app_data(ssl, t);
    SSL_set_accept_state(ssl);
    return t;
}

void tls_free(struct tls **tls) {
    struct tls *t = *tls;
    if (t == NULL) return;
    SSL_free(t->ssl);
    buf_free(&t->kept);
    buf_free(&t->wire);
    free(t->peer_name);
    free(t);
    *tls = NULL;
}

/* ---- failing ---- */

static enum tls_result fail(struct tls *t, const char *why) {
    if (t->after == TLS_FAILED) return TLS_FAILED;
    t->after = TLS_FAILED;
    snprintf(t->why, sizeof t->why, "%s", why);
    return TLS_FAILED;
}

/* After an error of OpenSSL's. Its alert, if any, is on the wire. */
static enum tls_result fail_openssl(struct tls *t) {
    char why[sizeof t->why];
    unsigned long code = ERR_peek_error();
    const char *text = ERR_reason_error_string(code);
    long verified = SSL_get_verify_result(t->ssl);
    const char *when = t->up ? "TLS" : "TLS handshake";
    if (ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED && verified != X509_V_OK) {
        snprintf(why, sizeof why, "%s: the client's certificate is refused: %s", when,
                 X509_verify_cert_error_string(verified));
    } else {
        snprintf(why, sizeof why, "%s: %s", when, text == NULL ? "unknown error" : text);
    }
    ERR_clear_error();
    return fail(t, why);
}

/* ---- the gate ---- */

/* The header of a record, or of a message, is whole. NULL: it may come. */
static const char *gate_record(struct gate *g) {
    g->record_left = (size_t)g->record[3] << 8 | g->record[4];
    if (g->record[0] == RECORD_CHANGE_CIPHER_SPEC) {
        /* Encrypted from here on, but after a first ClientHello a second may follow (RFC 8446
         * section 4.1.4, D.4). */
        g->encrypted = g->messages != 1;
    } else if (g->record[0] != RECORD_HANDSHAKE) {
        g->encrypted = true;
    }
    return NULL;
}

static const char *gate_message(struct gate *g) {
    g->message_left = (size_t)g->message[1] << 16 | (size_t)g->message[2] << 8 | g->message[3];
    g->message_len = 0;
    g->messages++;
    if (g->message_left > LIMIT_TLS_MESSAGE_BYTES) {
        return "TLS handshake: a message is longer than 32 KiB";
    }
    return NULL;
}

static const char *gate_byte(struct gate *g, uint8_t byte) {
    if (g->record_left == 0) {
        g->record[g->record_len++] = byte;
        if (g->record_len < RECORD_HEADER) return NULL;
        g->record_len = 0;
        return gate_record(g);
    }
    g->record_left--;
    if (g->record[0] != RECORD_HANDSHAKE) return NULL;
    if (g->message_left > 0) {
        g->message_left--;
        return NULL;
    }
    g->message[g->message_len++] = byte;
    return g->message_len == MESSAGE_HEADER ? gate_message(g) : NULL;
}

/* NULL: the peer may go on. */
static const char *gate_check(struct gate *g, struct slice raw) {
    if (g->bytes == 0 && raw.len > 0 && raw.data[0] != RECORD_HANDSHAKE) {
        return "it does not speak TLS, and this port does";
    }
    g->bytes += raw.len;
    if (g->bytes > LIMIT_TLS_HANDSHAKE_BYTES) return "TLS handshake: it is longer than 128 KiB";
    for (size_t i = 0; i < raw.len && !g->encrypted; i++) {
        const char *why = gate_byte(g, raw.data[i]);
        if (why != NULL) return why;
    }
    return NULL;
}

/* ---- in ---- */

void tls_feed(struct tls *t, struct slice raw) {
    CHECK(t->in.len == 0);
    t->in = raw;
    if (t->up || t->after != TLS_OK) return;
    bool first = t->gate.bytes == 0;
    const char *why = gate_check(&t->gate, raw);
    if (why == NULL) return;
    if (first && raw.data[0] != RECORD_HANDSHAKE) buf_append_slice(&t->wire, t->plain);
    fail(t, why);
}

bool tls_has_input(const struct tls *t) {
    return t->in.len > 0 || t->after != TLS_OK || SSL_has_pending(t->ssl) == 1;
}

void tls_keep(struct tls *t) {
    if (t->in.len == 0) {
        buf_free(&t->kept);
    } else if (t->kept.len > 0) {
        buf_consume(&t->kept, t->kept.len - t->in.len);
    } else {
        CHECK(buf_append_slice(&t->kept, t->in));
    }
    t->in = buf_slice(&t->kept);
}

static void note_peer(struct tls *t) {
    const X509 *certificate = SSL_get0_peer_certificate(t->ssl);
    if (certificate == NULL) return;
    char *text = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    CHECK(bio != NULL);
    X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
    long len = BIO_get_mem_data(bio, &text);
    t->peer_name = mem_alloc((size_t)len + 1);
    if (len > 0) memcpy(t->peer_name, text, (size_t)len);
    t->peer_name[len] = '\0';
    BIO_free(bio);
}

/* What a call of OpenSSL that did not succeed means. TLS_OK: it needs more bytes. */
static enum tls_result outcome(struct tls *t, int rc) {
    switch (SSL_get_error(t->ssl, rc)) {
    case SSL_ERROR_WANT_READ: return TLS_OK;
    case SSL_ERROR_ZERO_RETURN: return t->after = TLS_END;
    default: return fail_openssl(t);
    }
}

enum tls_result tls_read(struct tls *t, uint8_t *out, size_t size, size_t *len) {
    *len = 0;
    if (t->after != TLS_OK) return t->after;
    ERR_clear_error();
    if (!t->up) {
        int rc = SSL_do_handshake(t->ssl);
        if (rc != 1) return outcome(t, rc);
        t->up = true;
        note_peer(t);
    }
    while (*len < size) {
        size_t got;
        int rc = SSL_read_ex(t->ssl, out + *len, size - *len, &got);
        if (rc != 1) {
            enum tls_result result = outcome(t, rc);
            return *len > 0 ? TLS_OK : result; /* the rest comes with the next call */
        }
        *len += got;
    }
    return TLS_OK;
}

/* ---- out ---- */

bool tls_is_up(const struct tls *t) {
    return t->up;
}

bool tls_has_failed(const struct tls *t) {
    return t->after == TLS_FAILED;
}

bool tls_seal(struct tls *t, struct slice plain) {
    size_t written;
    CHECK(t->up && t->after != TLS_FAILED);
    ERR_clear_error();
    return SSL_write_ex(t->ssl, plain.data, plain.len, &written) == 1 && written == plain.len;
}

void tls_goodbye(struct tls *t) {
    if (!t->up || t->after == TLS_FAILED || t->said_goodbye) return;
    t->said_goodbye = true;
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl); /* 0: the peer's own is not there, and is not waited for */
    ERR_clear_error();
}

struct buf *tls_wire(struct tls *t) {
    return &t->wire;
}

const char *tls_why(const struct tls *t) {
    return t->why;
}

const char *tls_peer_name(const struct tls *t) {
    return t->peer_name;
}
