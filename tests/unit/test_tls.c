/* TLS of streams: what their users see of ends, pauses and much output, and whose certificate it
 * was. The peer is a child process with OpenSSL on a blocking socket; its exit code is its verdict.
 * The wire itself is looked at by tests/e2e/test_tls.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "broker/net/stream.h"
#include "broker/net/tls.h"

#define MUCH        ((size_t)8 * 1024 * 1024)
#define WATCHDOG_MS 60000

static char dir[] = "/tmp/bellhop-tls-XXXXXX";
static char cert_path[64], key_path[64];

/* A certificate that is its own authority, for servers and clients alike. */
static void make_certificate(void) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    FILE *file;
    assert_non_null(mkdtemp(dir));
    snprintf(cert_path, sizeof cert_path, "%s/a.pem", dir);
    snprintf(key_path, sizeof key_path, "%s/a.key", dir);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_NAME *name = X509_get_subject_name(x);
    X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC, (const uint8_t *)"Door", -1, -1, 0);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)"a, b", -1, -1, 0);
    X509_set_issuer_name(x, name);
    X509_set_pubkey(x, key);
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    assert_non_null(file = fopen(cert_path, "w"));
    PEM_write_X509(file, x);
    fclose(file);
    assert_non_null(file = fopen(key_path, "w"));
    PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
    fclose(file);
    X509_free(x);
    EVP_PKEY_free(key);
}

/* ---- the peer ---- */

typedef int peer_fn(SSL *ssl, int fd);

static int talk(uint16_t port, peer_fn *peer, bool certificate) {
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    SSL_CTX *c = SSL_CTX_new(TLS_client_method());
    if (certificate && (SSL_CTX_use_certificate_chain_file(c, cert_path) != 1 ||
                        SSL_CTX_use_PrivateKey_file(c, key_path, SSL_FILETYPE_PEM) != 1)) {
        return 90;
    }
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) return 91;
    SSL *ssl = SSL_new(c);
    SSL_set_fd(ssl, fd);
    if (SSL_connect(ssl) != 1) return 92;
    return peer(ssl, fd);
}

static bool peer_reads(SSL *ssl, const char *text) {
    char got[64];
    size_t len = 0, want = strlen(text);
    while (len < want) {
        int n = SSL_read(ssl, got + len, (int)(want - len));
        if (n <= 0) return false;
        len += (size_t)n;
    }
    return memcmp(got, text, want) == 0;
}

static bool peer_at_end(SSL *ssl) {
    char byte;
    int rc = SSL_read(ssl, &byte, 1);
    return rc <= 0 && SSL_get_error(ssl, rc) == SSL_ERROR_ZERO_RETURN;
}

/* ---- the world ---- */

struct world {
    struct loop *loop;
    struct tls_server *tls;
    struct listener *listener;
    struct loop_timer *watchdog, *timer;
    struct stream *stream;
    const struct stream_ops *ops;
    size_t bytes; /* that came, each as the one before it and 1 */
    unsigned pieces, ends;
    bool paused, many_pauses;
    size_t write_at_accept;
    char why[256], peer[64];
};

static uint8_t byte_at(size_t i) {
    return (uint8_t)(i + i / 251);
}

static void write_much(struct stream *s, size_t count) {
    uint8_t *bytes = malloc(count);
    for (size_t i = 0; i < count; i++) bytes[i] = byte_at(i);
    stream_write(s, slice_of(bytes, count));
    free(bytes);
}

static void on_resume(void *ctx) {
    struct world *w = ctx;
    w->paused = false;
    stream_resume(w->stream);
}

static void on_data(void *ctx, struct slice bytes) {
    struct world *w = ctx;
    assert_false(w->paused);
    for (size_t i = 0; i < bytes.len; i++, w->bytes++) {
        if (bytes.data[i] != byte_at(w->bytes)) fail_msg("byte %zu is wrong", w->bytes);
    }
    w->pieces++;
    if (!w->many_pauses) return;
    w->paused = true;
    stream_pause(w->stream);
    loop_timer_set(w->timer, 0);
}

static void on_eof(void *ctx) {
    struct world *w = ctx;
    const char *name = stream_peer_name(w->stream);
    assert_false(w->paused);
    w->ends++;
    snprintf(w->peer, sizeof w->peer, "%s", name == NULL ? "nobody" : name);
    stream_write(w->stream, slice_str("goodbye"));
    stream_close_after_write(w->stream, "done");
}

static void on_close(void *ctx, const char *why) {
    struct world *w = ctx;
    snprintf(w->why, sizeof w->why, "%s", why);
    loop_stop(w->loop);
}

static const struct stream_ops ops = {.on_data = on_data, .on_eof = on_eof, .on_close = on_close};

static void on_accept(void *ctx, struct stream *s) {
    struct world *w = ctx;
    w->stream = s;
    stream_attach(s, &ops, w);
    stream_write(s, slice_str("hello"));
    if (w->write_at_accept == 0) return;
    write_much(s, w->write_at_accept);
    stream_close_after_write(s, "all written");
}

static void on_watchdog(void *ctx) {
    struct world *w = ctx;
    loop_stop(w->loop);
}

/* Runs one connection to its end; the peer must be content. */
static void run(struct world *w, peer_fn *peer, bool certificate) {
    char error[256];
    uint16_t port;
    int status;
    struct tls_options options = {cert_path, key_path, certificate ? cert_path : NULL, false};
    assert_int_equal(loop_open(&w->loop), 0);
    assert_int_equal(tls_server_open(&w->tls, &options, error, sizeof error), 0);
    assert_int_equal(listener_open(w->loop, "127.0.0.1:0", on_accept, w, &w->listener, &port, error,
                                   sizeof error),
                     0);
    listener_set_tls(w->listener, &(struct listener_tls){w->tls, "test", slice_str("plain")});
    w->watchdog = loop_timer_start(w->loop, WATCHDOG_MS, 0, on_watchdog, w);
    w->timer = loop_timer_start(w->loop, WATCHDOG_MS, 0, on_resume, w);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) _exit(talk(port, peer, certificate));
    loop_run(w->loop);
    listener_close(&w->listener);
    loop_timer_stop(&w->watchdog);
    loop_timer_stop(&w->timer);
    loop_close(&w->loop);
    tls_server_close(&w->tls);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (status != 0) fail_msg("the peer says %d; the stream: %s", WEXITSTATUS(status), w->why);
}

/* ---- the tests ---- */

static int cut_off(SSL *ssl, int fd) {
    uint8_t bytes[] = {byte_at(0), byte_at(1), byte_at(2)};
    if (!peer_reads(ssl, "hello")) return 1;
    if (SSL_write(ssl, bytes, sizeof bytes) != sizeof bytes) return 2;
    close(fd);
    return 0;
}

/* What was whole has come; the end is no end but an error. */
static void test_cut_off(void **state) {
    struct world w = {0};
    (void)state;
    run(&w, cut_off, false);
    assert_int_equal(w.bytes, 3);
    assert_int_equal(w.ends, 0);
    assert_non_null(strstr(w.why, "close_notify"));
}

static int says_goodbye(SSL *ssl, int fd) {
    (void)fd;
    if (!peer_reads(ssl, "hello")) return 1;
    SSL_shutdown(ssl);
    if (!peer_reads(ssl, "goodbye")) return 2;
    return peer_at_end(ssl) ? 0 : 3;
}

/* After the peer's close_notify it can still be answered, and is told the end too. */
static void test_close_notify(void **state) {
    struct world w = {0};
    (void)state;
    run(&w, says_goodbye, false);
    assert_int_equal(w.ends, 1);
    assert_string_equal(w.why, "done");
    assert_string_equal(w.peer, "nobody");
}

static void test_peer_name(void **state) {
    struct world w = {0};
    (void)state;
    run(&w, says_goodbye, true);
    assert_string_equal(w.peer, "CN=a\\, b,O=Door");
}

static int sends_much(SSL *ssl, int fd) {
    uint8_t *bytes = malloc(MUCH);
    (void)fd;
    for (size_t i = 0; i < MUCH; i++) bytes[i] = byte_at(i);
    if (SSL_write(ssl, bytes, (int)MUCH) != (int)MUCH) return 1;
    SSL_shutdown(ssl);
    if (!peer_reads(ssl, "hello") || !peer_reads(ssl, "goodbye")) return 2;
    return peer_at_end(ssl) ? 0 : 3;
}

/* A pause after every piece: nothing comes while it lasts, nothing is lost, and the end comes last
 * and once. */
static void test_pauses(void **state) {
    struct world w = {.many_pauses = true};
    (void)state;
    run(&w, sends_much, false);
    assert_int_equal(w.bytes, MUCH);
    assert_int_equal(w.ends, 1);
    assert_true(w.pieces >= 16);
}

static int reads_much(SSL *ssl, int fd) {
    static uint8_t bytes[10000];
    size_t len = 0;
    (void)fd;
    if (!peer_reads(ssl, "hello")) return 1;
    while (len < MUCH) {
        int n = SSL_read(ssl, bytes, sizeof bytes);
        if (n <= 0) return 2;
        for (int i = 0; i < n; i++, len++) {
            if (bytes[i] != byte_at(len)) return 3;
        }
    }
    return peer_at_end(ssl) ? 0 : 4;
}

/* Written before the handshake, more than the kernel takes at once, and closed behind it. */
static void test_much_output(void **state) {
    struct world w = {.write_at_accept = MUCH};
    (void)state;
    run(&w, reads_much, false);
    assert_string_equal(w.why, "all written");
}

/* ---- many handshakes ---- */

#define CALLERS 200

/* What a client says first; the same for all. */
static size_t client_hello(uint8_t *out, size_t size) {
    SSL_CTX *c = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(c);
    BIO *sent = BIO_new(BIO_s_mem());
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), sent);
    SSL_connect(ssl);
    int len = BIO_read(sent, out, (int)size);
    assert_true(len > 0 && (size_t)len < size);
    SSL_free(ssl);
    SSL_CTX_free(c);
    return (size_t)len;
}

struct crowd {
    struct loop *loop;
    struct pollfd callers[CALLERS];
    size_t answered, most; /* callers so far, and in one turn */
};

/* How many were answered since the last turn. */
static uint64_t count_answers(void *ctx, uint64_t now_ms) {
    struct crowd *c = ctx;
    size_t answered = 0;
    (void)now_ms;
    assert_true(poll(c->callers, CALLERS, 0) >= 0);
    for (size_t i = 0; i < CALLERS; i++) answered += (c->callers[i].revents & POLLIN) != 0;
    if (answered - c->answered > c->most) c->most = answered - c->answered;
    c->answered = answered;
    if (answered == CALLERS) loop_stop(c->loop);
    return UINT64_MAX;
}

static void on_caller_gone(void *ctx, const char *why) {
    (void)ctx;
    (void)why;
}

static void on_caller(void *ctx, struct stream *s) {
    static const struct stream_ops caller_ops = {
        .on_data = on_data, .on_eof = on_eof, .on_close = on_caller_gone};
    stream_attach(s, &caller_ops, ctx);
}

/* Their first messages are there before the loop runs: no turn works on more of them than its time
 * for handshakes allows, and each is worked on. */
static void test_turns_between_handshakes(void **state) {
    struct world w = {0};
    struct crowd crowd = {.most = 0};
    char error[256];
    uint16_t port;
    uint8_t hello[4096];
    size_t len = client_hello(hello, sizeof hello);
    struct tls_options options = {cert_path, key_path, NULL, false};
    (void)state;
    assert_int_equal(loop_open(&w.loop), 0);
    assert_int_equal(tls_server_open(&w.tls, &options, error, sizeof error), 0);
    assert_int_equal(listener_open(w.loop, "127.0.0.1:0", on_caller, &w, &w.listener, &port, error,
                                   sizeof error),
                     0);
    listener_set_tls(w.listener, &(struct listener_tls){w.tls, "test", slice_str("")});
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (size_t i = 0; i < CALLERS; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
        assert_int_equal(write(fd, hello, len), (ssize_t)len);
        crowd.callers[i] = (struct pollfd){.fd = fd, .events = POLLIN};
    }
    crowd.loop = w.loop;
    loop_set_turn(w.loop, count_answers, &crowd);
    w.watchdog = loop_timer_start(w.loop, WATCHDOG_MS, 0, on_watchdog, &w);
    loop_run(w.loop);
    loop_timer_stop(&w.watchdog);
    listener_close(&w.listener);
    loop_close(&w.loop);
    tls_server_close(&w.tls);
    for (size_t i = 0; i < CALLERS; i++) close(crowd.callers[i].fd);
    assert_int_equal(crowd.answered, CALLERS);
    /* 4 ms for each turn: a hundred would be 40 us for one, and no machine is that fast. */
    assert_in_range(crowd.most, 1, CALLERS / 2);
}

static void expect_refused(const char *certs, const char *keys, const char *part) {
    struct tls_server *s;
    char error[256];
    struct tls_options options = {certs, keys, NULL, false};
    assert_int_not_equal(tls_server_open(&s, &options, error, sizeof error), 0);
    assert_null(s);
    if (strstr(error, part) == NULL) fail_msg("%s", error);
}

static void test_options(void **state) {
    char two[160], three[240], keys[160];
    (void)state;
    snprintf(two, sizeof two, "%s,%s", cert_path, cert_path);
    snprintf(three, sizeof three, "%s,%s/none", cert_path, dir);
    snprintf(keys, sizeof keys, "%s,%s", key_path, key_path);
    expect_refused("", "", "there is no certificate");
    expect_refused(two, key_path, "needs its private key");
    expect_refused(three, keys, "none: No such file");
    expect_refused(cert_path, cert_path, "it holds no such PEM block");
    expect_refused(key_path, key_path, "cannot use the certificate");
}

static int remove_certificate(void **state) {
    (void)state;
    unlink(cert_path);
    unlink(key_path);
    return rmdir(dir);
}

static int prepare(void **state) {
    (void)state;
    make_certificate();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_close_notify),
        cmocka_unit_test(test_peer_name),
        cmocka_unit_test(test_pauses),
        cmocka_unit_test(test_much_output),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_turns_between_handshakes),
    };
    return cmocka_run_group_tests(tests, prepare, remove_certificate);
}
