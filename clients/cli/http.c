#include "clients/cli/http.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients/cli/json_text.h"

#define CONNECT_MS  5000
#define REPLY_BYTES (64 * 1024 * 1024) /* a page of events is at most 4 MiB, one event 16 MiB */

struct http {
    CURL *curl;
    char *url, *host;
    char *authorization; /* header, or NULL */
    const struct cli_tls *tls;
    CURLcode result;
    char error[CURL_ERROR_SIZE];
};

static int bad_url(const char *url, const char *why) {
    cli_complain("BELLHOP_URL is '%s': %s; it should look like " CLI_URL_DEFAULT, url, why);
    return CLI_USAGE;
}

/* Takes the host out of the URL; it must be plain HTTP(S) with nothing behind the path. */
static int parse_url(struct http *h, const char *url) {
    char *scheme = NULL, *host = NULL, *query = NULL;
    int error = 0;
    CURLU *parsed = curl_url();
    CHECK(parsed != NULL);
    CURLUcode code = curl_url_set(parsed, CURLUPART_URL, url, 0);
    if (code != CURLUE_OK) {
        error = bad_url(url,
                        strstr(url, "://") == NULL ? "it has no http://" : curl_url_strerror(code));
        goto out;
    }
    curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0);
    curl_url_get(parsed, CURLUPART_HOST, &host, 0);
    curl_url_get(parsed, CURLUPART_QUERY, &query, 0);
    if (scheme == NULL || (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0)) {
        error = bad_url(url, "it is neither http nor https");
    } else if (host == NULL || query != NULL) {
        error = bad_url(url, "only a scheme, a host, a port and a path may be in it");
    } else {
        h->host = mem_strdup(host);
        h->url = mem_strdup(url);
        for (size_t len = strlen(h->url); len > 0 && h->url[len - 1] == '/'; len--) {
            h->url[len - 1] = '\0';
        }
    }
out:
    curl_free(scheme);
    curl_free(host);
    curl_free(query);
    curl_url_cleanup(parsed);
    return error;
}

static char *bearer(const char *key) {
    if (key == NULL || key[0] == '\0') return NULL;
    size_t size = strlen(key) + sizeof("authorization: Bearer ");
    char *header = mem_alloc(size);
    snprintf(header, size, "authorization: Bearer %s", key);
    return header;
}

int http_open(struct http **out, const char *url, const char *key, const struct cli_tls *tls) {
    *out = NULL;
    if (key != NULL && strpbrk(key, "\r\n") != NULL) {
        cli_complain("BELLHOP_KEY holds a line end");
        return CLI_USAGE;
    }
    CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
    struct http *h = mem_zalloc(sizeof(*h));
    int error = parse_url(h, url);
    if (error != 0) {
        http_close(&h);
        return error;
    }
    h->authorization = bearer(key);
    h->tls = tls;
    h->curl = curl_easy_init();
    CHECK(h->curl != NULL);
    *out = h;
    return 0;
}

void http_close(struct http **h) {
    if (*h == NULL) return;
    curl_easy_cleanup((*h)->curl);
    free((*h)->url);
    free((*h)->host);
    free((*h)->authorization);
    free(*h);
    *h = NULL;
    curl_global_cleanup();
}

const char *http_url(const struct http *h) {
    return h->url;
}

const char *http_host(const struct http *h) {
    return h->host;
}

static size_t on_body(char *data, size_t size, size_t count, void *ctx) {
    struct http_reply *reply = ctx;
    return buf_append(&reply->body, data, size * count) ? size * count : 0;
}

static struct curl_slist *add_header(struct curl_slist *list, const char *header) {
    struct curl_slist *longer = curl_slist_append(list, header);
    CHECK(longer != NULL);
    return longer;
}

static struct curl_slist *headers_of(const struct http *h, const struct http_request *request) {
    struct curl_slist *list = add_header(NULL, "Expect:"); /* no pause before a body */
    if (h->authorization != NULL) list = add_header(list, h->authorization);
    if (request->headers == NULL) return add_header(list, "content-type: application/json");
    for (const char *const *header = request->headers; *header != NULL; header++) {
        list = add_header(list, *header);
    }
    return list;
}

static bool is_loopback(const char *host) {
    return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
           strcmp(host, "[::1]") == 0;
}

static void set_file(CURL *curl, CURLoption option, const char *file) {
    if (file != NULL && file[0] != '\0') curl_easy_setopt(curl, option, file);
}

static void set_request(struct http *h, const struct http_request *request, const char *url,
                        struct http_reply *reply) {
    CURL *curl = h->curl;
    uint64_t timeout_ms = request->timeout_ms != 0 ? request->timeout_ms : HTTP_TIMEOUT_MS;
    curl_easy_reset(curl); /* keeps the connection */
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "bellhop/" BELLHOP_VERSION);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, h->error);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, reply);
    set_file(curl, CURLOPT_CAINFO, h->tls->ca);
    set_file(curl, CURLOPT_SSLCERT, h->tls->cert);
    set_file(curl, CURLOPT_SSLKEY, h->tls->key);
    if (is_loopback(h->host)) curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    if (request->body != NULL) {
        curl_easy_setopt(curl, CURLOPT_POST, 1L);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body->len);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS,
                         request->body->len > 0 ? (const char *)request->body->data : "");
    }
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
}

int http_try(struct http *h, const struct http_request *request, struct http_reply *reply) {
    *reply = (struct http_reply){0};
    buf_init(&reply->body, REPLY_BYTES);
    size_t size = strlen(h->url) + strlen(request->path) + 1;
    char *url = mem_alloc(size);
    snprintf(url, size, "%s%s", h->url, request->path);
    struct curl_slist *headers = headers_of(h, request);
    h->error[0] = '\0';
    set_request(h, request, url, reply);
    curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, headers);
    h->result = curl_easy_perform(h->curl);
    if (h->result == CURLE_OK) {
        curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &reply->status);
    } else {
        buf_free(&reply->body);
    }
    curl_slist_free_all(headers);
    free(url);
    switch (h->result) {
    case CURLE_OK: return 0;
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM: return CLI_INPUT;
    default: return CLI_UNAVAILABLE;
    }
}

/* What to do about the wrong port or an alert of TLS; "" where nothing is known. With TLS 1.3 a
 * server refuses the client's certificate only after the handshake. */
static const char *hint_of(const char *why) {
    static const char *const hints[][2] = {
        {"wrong version number", "\n  this port does not speak TLS: is BELLHOP_URL http://?"},
        {"no application protocol",
         "\n  BELLHOP_URL wants the HTTP port: is this that of workers?"},
        {"HTTP/0.9", "\n  BELLHOP_URL wants the HTTP port: is this that of workers?"},
        {"certificate required",
         "\n  the broker wants a client certificate: BELLHOP_CERT and BELLHOP_CERT_KEY"},
        {"handshake failure",
         "\n  perhaps the broker wants a client certificate: BELLHOP_CERT and BELLHOP_CERT_KEY"},
        {"alert unknown ca",
         "\n  the broker does not know who signed the client certificate in BELLHOP_CERT"},
        {"certificate expired", "\n  the client certificate in BELLHOP_CERT has expired"},
    };
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++) {
        if (strstr(why, hints[i][0]) != NULL) return hints[i][1];
    }
    return "";
}

void http_complain(const struct http *h) {
    const char *why = h->error[0] != '\0' ? h->error : curl_easy_strerror(h->result);
    switch (h->result) {
    case CURLE_COULDNT_CONNECT:
        cli_complain(
            "no broker answers at %s (%s)\n"
            "  start one with: bellhopd\n"
            "  or say where it is: export BELLHOP_URL=http://HOST:PORT",
            h->url, why);
        break;
    case CURLE_COULDNT_RESOLVE_HOST:
        cli_complain("%s: %s; BELLHOP_URL says where the broker is", h->url, why);
        break;
    case CURLE_PEER_FAILED_VERIFICATION:
        cli_complain(
            "%s: its certificate is not trusted (%s)\n"
            "  say who has signed it: --ca FILE, or export BELLHOP_CA=FILE",
            h->url, why);
        break;
    case CURLE_SSL_CACERT_BADFILE:
        cli_complain(
            "the authorities in '%s' cannot be read (%s)\n"
            "  --ca and BELLHOP_CA want a PEM file of certificates",
            h->tls->ca, why);
        break;
    case CURLE_SSL_CERTPROBLEM:
        cli_complain(
            "the client certificate cannot be used (%s)\n"
            "  BELLHOP_CERT wants a PEM file of it, BELLHOP_CERT_KEY one of its own key",
            why);
        break;
    case CURLE_OPERATION_TIMEDOUT:
        cli_complain(
            "%s did not answer in time (%s); whether the request was carried out is not "
            "known",
            h->url, why);
        break;
    default: cli_complain("%s: %s%s", h->url, why, hint_of(why)); break;
    }
}

int http_refused(const struct http_reply *reply) {
    struct slice body = buf_slice(&reply->body);
    struct slice unused;
    if (!json_find(body, "error.message", &unused)) {
        cli_complain("HTTP status %ld without an error of a Bellhop broker: is BELLHOP_URL right?",
                     reply->status);
        return CLI_REFUSED;
    }
    char *message = json_show(body, "error.message");
    char *code = json_show(body, "error.code");
    bool of_key = strcmp(code, "unauthenticated") == 0;
    cli_complain(
        "%s (%s, HTTP %ld)%s", message, code, reply->status,
        of_key ? "\n  the key is sent from the environment: export BELLHOP_KEY=bh_..." : "");
    free(message);
    free(code);
    return CLI_REFUSED;
}

int http_send(struct http *h, const struct http_request *request, struct http_reply *reply) {
    int error = http_try(h, request, reply);
    if (error != 0) {
        http_complain(h);
        return error;
    }
    if (reply->status >= 200 && reply->status <= 299) return 0;
    error = http_refused(reply);
    buf_free(&reply->body);
    return error;
}

int http_get(struct http *h, const char *path, struct http_reply *reply) {
    return http_send(h, &(struct http_request){.method = "GET", .path = path}, reply);
}

void http_escape(struct buf *b, const char *text) {
    for (; *text != '\0'; text++) {
        char c = *text;
        bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                     strchr("-._~", c) != NULL;
        if (plain) {
            buf_append_byte(b, (uint8_t)c);
        } else {
            buf_printf(b, "%%%02X", (unsigned)(uint8_t)c);
        }
    }
}

void http_query(struct buf *path, const char *key, const char *value) {
    if (value == NULL) return;
    bool first = path->len == 0 || memchr(path->data, '?', path->len) == NULL;
    buf_printf(path, "%c%s=", first ? '?' : '&', key);
    http_escape(path, value);
}
