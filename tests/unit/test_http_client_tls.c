/* The outbound client and TLS: whom it trusts, HTTP/2, and what it says when it does not.
 *
 * The server is Node's (it speaks HTTP/2 and 1.1), the certificates are made by openssl(1) for each
 * run of the program. */
#include <sys/wait.h>
#include <unistd.h>

#include "http_world.h"

#define LOCAL "127.0.0.0/8, ::1"

/* argv: key, certificate, "h2" or "h1". Prints its port; ends with its standard input. */
static const char server_js[] =
    "const [key, cert, version] = process.argv.slice(1);"
    "const fs = require('fs');"
    "const options = {key: fs.readFileSync(key), cert: fs.readFileSync(cert), allowHTTP1: true};"
    "const server = version === 'h2' ? require('http2').createSecureServer(options)"
    "    : require('https').createServer(options);"
    "let sockets = 0, waiting = [];"
    "server.on('secureConnection', () => { sockets++; });"
    "server.on('request', (request, response) => {"
    "    let body = '';"
    "    request.on('data', (data) => { body += data; });"
    "    request.on('end', () => {"
    "        const end = () => {"
    "            response.writeHead(request.url === '/503' ? 503 : 200, {'Retry-After': '9'});"
    "            if (request.url === '/huge') response.end(Buffer.alloc(10 << 20, 'x'));"
    "            else response.end(request.httpVersion + ' ' + sockets + ' ' + body.length);"
    "        };"
    "        if (request.url === '/silent') return;"
    "        if (request.url !== '/with-five') return end();"
    "        waiting.push(end);"
    "        if (waiting.length === 5) for (const one of waiting) one();"
    "    });"
    "});"
    "server.listen(0, '127.0.0.1', () => { console.log(server.address().port); });"
    "process.stdin.on('end', () => { process.exit(0); }).resume();";

static char dir[] = "/tmp/bellhop-tls-XXXXXX";

struct path {
    char text[64];
};

static struct path in_dir(const char *name, const char *suffix) {
    struct path p;
    snprintf(p.text, sizeof p.text, "%s/%s%s", dir, name, suffix);
    return p;
}

/* Runs a program with its standard input and output on pipes (or the null device). */
static pid_t start(const char *const argv[], int *input, int *output) {
    int in[2], out[2];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[1]);
        close(out[0]);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    *input = in[1];
    *output = out[0];
    return pid;
}

static void make_certificate(const char *name, const char *host) {
    struct path key = in_dir(name, ".key"), cert = in_dir(name, ".pem");
    char subject[64], alternative[64];
    int input, output, status;
    snprintf(subject, sizeof subject, "/CN=%s", host);
    snprintf(alternative, sizeof alternative, "subjectAltName=DNS:%s", host);
    const char *const argv[] = {
        "openssl", "req",    "-x509", "-newkey", "ec",    "-pkeyopt", "ec_paramgen_curve:P-256",
        "-nodes",  "-days",  "2",     "-subj",   subject, "-addext",  alternative,
        "-keyout", key.text, "-out",  cert.text, NULL,
    };
    pid_t pid = start(argv, &input, &output);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    close(input);
    close(output);
    if (status != 0) fail_msg("openssl ended with %d", status);
}

struct server {
    pid_t pid;
    int input, output;
    unsigned port;
};

static void server_start(struct server *s, const char *certificate, const char *version) {
    struct path key = in_dir(certificate, ".key"), cert = in_dir(certificate, ".pem");
    const char *const argv[] = {"node", "-e", server_js, key.text, cert.text, version, NULL};
    char line[16];
    size_t len = 0;
    uint64_t port;
    s->pid = start(argv, &s->input, &s->output);
    while (len < sizeof line && read(s->output, line + len, 1) == 1 && line[len] != '\n') len++;
    if (!slice_to_u64(slice_of(line, len), &port)) fail_msg("node did not start");
    s->port = (unsigned)port;
}

static void server_stop(struct server *s) {
    int status;
    close(s->input);
    close(s->output);
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
}

static void call_tls(struct world *w, struct call *c, const char *host, unsigned port,
                     const char *path, uint64_t timeout_ms) {
    char uri[128];
    snprintf(uri, sizeof uri, "https://%s:%u%s", host, port, path);
    c->path = path;
    call_uri(w, w->client, c, uri, slice_str("12345"), timeout_ms);
}

static void who_is_trusted(void **state) {
    static const struct {
        const char *certificate, *authority, *host, *says; /* NULL: it is trusted */
    } rows[] = {
        {"good", "good", "localhost", NULL},
        {"good", NULL, "localhost", "self-signed certificate"},
        {"good", "other", "localhost", "self-signed certificate"},
        {"good", "both", "localhost", NULL},
        {"good", "good", "127.0.0.1", "127.0.0.1"}, /* not the name that it was made for */
        {"other", "other", "localhost", "localhost"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct path ca = {""};
        struct call c = {0};
        struct server s;
        struct world w;
        if (rows[i].authority != NULL) ca = in_dir(rows[i].authority, ".pem");
        server_start(&s, rows[i].certificate, "h2");
        world_open(&w, LOCAL, ca.text);
        call_tls(&w, &c, rows[i].host, s.port, "/", 20000);
        world_run(&w);
        if (rows[i].says == NULL) expect_answer(&c, 200, "2.0 1 5");
        else expect_failure(&c, HTTP_TLS, rows[i].says);
        world_close(&w);
        server_stop(&s);
    }
}

static struct {
    struct call calls[5], next, huge, after;
    struct server server;
} h2;

static void one_more(struct call *c) {
    struct world *w = c->world;
    if (w->done == 5) call_tls(w, &h2.next, "localhost", h2.server.port, "/503", 20000);
    else if (c == &h2.next) call_tls(w, &h2.huge, "localhost", h2.server.port, "/huge", 20000);
    else if (c == &h2.huge) call_tls(w, &h2.after, "localhost", h2.server.port, "/", 20000);
}

/* The first ones come before it is known that one connection does for all. */
static void http_2(void **state) {
    struct path ca = in_dir("good", ".pem");
    struct world w;
    (void)state;
    memset(&h2, 0, sizeof h2);
    server_start(&h2.server, "good", "h2");
    world_open(&w, LOCAL, ca.text);
    h2.next.then = h2.huge.then = one_more;
    for (int i = 0; i < 5; i++) {
        h2.calls[i].then = one_more;
        call_tls(&w, &h2.calls[i], "localhost", h2.server.port, "/with-five", 20000);
    }
    world_run(&w);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(h2.calls[i].status, 200);
        assert_int_equal(strncmp(h2.calls[i].body, "2.0 ", 4), 0);
    }
    assert_int_equal(h2.next.status, 503);
    assert_string_equal(h2.next.retry_after, "9");
    assert_int_equal(h2.huge.failure, HTTP_ANSWERED);
    assert_int_equal(h2.huge.status, 200);
    assert_int_equal(h2.huge.body_len, 1024);
    assert_int_equal(h2.after.status, 200);
    world_close(&w);
    server_stop(&h2.server);
}

static void http_1_1_over_tls(void **state) {
    struct path ca = in_dir("good", ".pem");
    struct call c = {0}, silent = {0};
    struct server s;
    struct world w;
    (void)state;
    server_start(&s, "good", "h1");
    world_open(&w, LOCAL, ca.text);
    call_tls(&w, &c, "localhost", s.port, "/", 20000);
    call_tls(&w, &silent, "localhost", s.port, "/silent", 1000);
    world_run(&w);
    assert_int_equal(c.failure, HTTP_ANSWERED);
    assert_int_equal(strncmp(c.body, "1.1 ", 4), 0);
    expect_failure(&silent, HTTP_TIMEOUT, "within 1000 ms");
    world_close(&w);
    server_stop(&s);
}

/* Each side takes the other for what it is not. */
static void tls_and_none(void **state) {
    struct call plain = {.path = "http"}, tls = {0};
    struct server s;
    struct world w;
    char uri[64];
    (void)state;
    server_start(&s, "good", "h1");
    world_open(&w, LOCAL, NULL);
    snprintf(uri, sizeof uri, "http://localhost:%u/", s.port);
    call_uri(&w, w.client, &plain, uri, slice_str("x"), 20000);
    call_tls(&w, &tls, "localhost", w.port, "/ok", 300);
    world_run(&w);
    assert_true(plain.failure == HTTP_BROKEN ||
                (plain.failure == HTTP_ANSWERED && plain.status == 400));
    expect_failure(&tls, HTTP_TIMEOUT, "there was no TLS connection within 300 ms");
    world_close(&w);
    server_stop(&s);
}

static void files_of_authorities(void **state) {
    struct path none = in_dir("none", ".pem"), key = in_dir("good", ".key");
    const struct {
        const char *path, *says;
    } rows[] = {
        {none.text, "cannot be read: No such file or directory"},
        {dir, "cannot be read"},
        {key.text, "holds no certificate in PEM form"},
    };
    struct world w;
    (void)state;
    world_open(&w, LOCAL, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct http_client *client;
        char error[256] = "";
        const struct http_client_options options = {.guard = w.guard, .ca_file = rows[i].path};
        assert_int_not_equal(http_client_open(w.loop, &options, &client, error, sizeof error), 0);
        assert_null(client);
        if (strstr(error, rows[i].says) == NULL || strstr(error, rows[i].path) == NULL) {
            fail_msg("%s", error);
        }
    }
    world_close(&w);
}

/* good.pem and other.pem in one file. */
static void join_certificates(void) {
    struct path paths[] = {in_dir("other", ".pem"), in_dir("good", ".pem")};
    struct path both = in_dir("both", ".pem");
    char line[256];
    FILE *out = fopen(both.text, "w");
    assert_non_null(out);
    for (int i = 0; i < 2; i++) {
        FILE *in = fopen(paths[i].text, "r");
        assert_non_null(in);
        while (fgets(line, sizeof line, in) != NULL) fputs(line, out);
        fclose(in);
    }
    fclose(out);
}

static int make_files(void **state) {
    (void)state;
    if (mkdtemp(dir) == NULL) return -1;
    make_certificate("good", "localhost");
    make_certificate("other", "other.example");
    join_certificates();
    return 0;
}

static int remove_files(void **state) {
    static const char *const names[] = {"good.key", "good.pem", "other.key", "other.pem",
                                        "both.pem"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) unlink(in_dir(names[i], "").text);
    return rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_trusted),       cmocka_unit_test(http_2),
        cmocka_unit_test(http_1_1_over_tls),    cmocka_unit_test(tls_and_none),
        cmocka_unit_test(files_of_authorities),
    };
    return cmocka_run_group_tests(tests, make_files, remove_files);
}
