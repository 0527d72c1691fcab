/* Requests: from the caller into libcurl and back.
 *
 * As it goes well: http_client_send takes a transfer from the pool, fills in its easy handle and
 * gives it to the multi handle, which asks to be called at once; at the start of the next turn
 * libcurl connects or takes a connection that is open, and writes; when the answer has come,
 * client_settle finds the message that it is done, makes the result and calls on_done.
 *
 * What can fail: everything of the receiver's and of ours; all of it ends in a result. */
#include "broker/http/client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/http/client_internal.h"
#include "broker/http/strict.h"

#define CONNECTIONS_KEPT       1024
#define POOLED_TRANSFERS       256        /* idle easy handles of some 10 KiB */
#define POOLED_TEXT_BYTES      (16 * KIB) /* kept by each for the lines of the next request */
#define DNS_CACHE_S            60L
#define RECEIVE_BYTES          (4L * KIB)  /* read at a time: answers are short */
#define SEND_BYTES             (16L * KIB) /* written at a time, of a body that is not large */
#define SEND_LARGE_BYTES       (256L * KIB)
#define SYSTEM_AUTHORITIES_DIR "/etc/ssl/certs"

static size_t on_head(char *data, size_t size, size_t count, void *ctx) {
    struct http_transfer *t = ctx;
    size_t len = size * count;
    t->head_bytes += len;
    if (t->head_bytes > LIMIT_RESPONSE_BYTES) {
        t->head_done = false; /* what was whole is one that only informs (1xx) */
        return 0;
    }
    if (len >= 5 && memcmp(data, "HTTP/", 5) == 0) t->head_done = false;
    else if (len <= 2 && (data[0] == '\r' || data[0] == '\n')) t->head_done = true;
    return len;
}

static size_t on_body(char *data, size_t size, size_t count, void *ctx) {
    struct http_transfer *t = ctx;
    size_t len = size * count, room = t->body.max - t->body.len;
    CHECK(buf_append(&t->body, data, len < room ? len : room));
    t->body_bytes += len;
    return t->body_bytes > LIMIT_RESPONSE_BYTES ? 0 : len; /* 0 ends the transfer */
}

/* There is a connection, an old one or a new one. */
static int on_connected(void *ctx, char *to, char *from, int to_port, int from_port) {
    struct http_transfer *t = ctx;
    (void)to;
    (void)from;
    (void)to_port;
    (void)from_port;
    names_leave(t);
    names_learn(t, true);
    return CURL_PREREQFUNC_OK;
}

/* An option that this libcurl knows; what can fail is memory. */
#define SET(option, value) (ok = ok && curl_easy_setopt(easy, option, value) == CURLE_OK)

/* What stays the same for every request of this handle. */
static bool set_options(struct http_transfer *t) {
    struct http_client *c = t->client;
    CURL *easy = t->easy;
    bool ok = true;
    SET(CURLOPT_PRIVATE, t);
    SET(CURLOPT_ERRORBUFFER, t->error);
    SET(CURLOPT_HEADERFUNCTION, on_head);
    SET(CURLOPT_HEADERDATA, t);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_PREREQFUNCTION, on_connected);
    SET(CURLOPT_PREREQDATA, t);
    SET(CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    SET(CURLOPT_OPENSOCKETDATA, t);
    SET(CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    SET(CURLOPT_CLOSESOCKETDATA, c);
    SET(CURLOPT_PROTOCOLS_STR, guard_https_only(c->guard) ? "https" : "http,https");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_USERAGENT, c->user_agent);
    SET(CURLOPT_DNS_CACHE_TIMEOUT, DNS_CACHE_S);
    /* Without this, whoever ends a transfer waits for the resolver's thread, and the loop too. */
    SET(CURLOPT_QUICK_EXIT, 1L);
    SET(CURLOPT_BUFFERSIZE, RECEIVE_BYTES);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    /* A directory is looked into by hash of the issuer; a bundle would be parsed by each
     * connection. Both are asked, so ca_file adds to the system's. */
    SET(CURLOPT_CAPATH, SYSTEM_AUTHORITIES_DIR);
    SET(CURLOPT_CAINFO, c->ca_file);
    return ok;
}

static struct http_transfer *transfer_take(struct http_client *c) {
    struct list *n = list_first(&c->pool);
    struct http_transfer *t;
    if (n != NULL) {
        t = CONTAINER_OF(n, struct http_transfer, node);
        list_unlink(n);
        c->pool_count--;
        return t;
    }
    t = mem_zalloc(sizeof *t);
    t->client = c;
    list_init(&t->node);
    buf_init(&t->body, 0);
    t->easy = curl_easy_init();
    if (t->easy != NULL && !set_options(t)) {
        curl_easy_cleanup(t->easy);
        t->easy = NULL;
    }
    return t;
}

static void transfer_free(struct http_transfer *t) {
    list_unlink(&t->node);
    if (t->easy != NULL) curl_easy_cleanup(t->easy);
    buf_free(&t->body);
    free(t->lines);
    free(t->text);
    free(t);
}

/* Under way no more; its memory waits for the next one, or goes. */
static void transfer_release(struct http_transfer *t) {
    struct http_client *c = t->client;
    list_unlink(&t->node);
    if (t->state != TRANSFER_POOLED) c->active--;
    t->state = TRANSFER_POOLED;
    if (t->easy == NULL || c->pool_count == POOLED_TRANSFERS || t->text_cap > POOLED_TEXT_BYTES ||
        t->body.cap > POOLED_TEXT_BYTES) {
        transfer_free(t);
        return;
    }
    list_push_front(&c->pool, &t->node);
    c->pool_count++;
}

void transfer_move(struct http_transfer *t, enum transfer_state to) {
    struct http_client *c = t->client;
    struct list *lists[] = {
        [TRANSFER_WAITING] = &c->waiting,
        [TRANSFER_RUNNING] = &c->running,
        [TRANSFER_ENDED] = &c->ended,
    };
    CHECK(to != TRANSFER_POOLED);
    if (t->state == TRANSFER_POOLED) c->active++;
    list_unlink(&t->node);
    list_push_back(lists[to], &t->node);
    t->state = to;
}

void transfer_fail_ours(struct http_transfer *t, const char *fmt, ...) {
    va_list args;
    if (!t->ours) {
        va_start(args, fmt);
        vsnprintf(t->why, sizeof t->why, fmt, args);
        va_end(args);
        t->ours = true;
    }
    if (t->state == TRANSFER_RUNNING) return; /* libcurl will tell its end */
    transfer_move(t, TRANSFER_ENDED);
    loop_defer(t->client->loop, &t->client->drive);
    loop_again(t->client->loop);
}

static bool header_ok(const struct http_outbound_header *h) {
    if (*h->name == '\0') return false;
    for (const char *c = h->name; *c != '\0'; c++) {
        if (!strict_is_token_byte((uint8_t)*c)) return false;
    }
    for (const char *c = h->value; *c != '\0'; c++) {
        if (!strict_is_value_byte((uint8_t)*c)) return false;
    }
    return true;
}

/* Lines as libcurl reads them: "Name:" would take a header of its own away, "Name;" sends an empty
 * one. The first two keep it from waiting for 100 (Continue) and from naming a type of its own. */
static bool write_lines(struct http_transfer *t, const struct http_outbound *r) {
    size_t bytes = sizeof "Expect:" + sizeof "Content-Type:", lines = r->headers_count + 2;
    for (size_t i = 0; i < r->headers_count; i++) {
        if (!header_ok(&r->headers[i])) {
            transfer_fail_ours(t, "the header \"%.64s\" cannot be sent", r->headers[i].name);
            return false;
        }
        bytes += strlen(r->headers[i].name) + strlen(r->headers[i].value) + sizeof ": ";
    }
    if (lines > t->lines_cap) {
        t->lines = mem_realloc(t->lines, lines * sizeof *t->lines);
        t->lines_cap = lines;
    }
    if (bytes > t->text_cap) {
        t->text = mem_realloc(t->text, bytes);
        t->text_cap = bytes;
    }
    struct curl_slist *line = t->lines;
    size_t at = 0;
    for (size_t i = 0; i < lines; i++) {
        const struct http_outbound_header *h = i < 2 ? NULL : &r->headers[i - 2];
        const char *name = h != NULL ? h->name : i == 0 ? "Expect" : "Content-Type";
        const char *value = h != NULL ? h->value : "";
        line->data = t->text + at;
        line->next = line + 1;
        at += 1 + (size_t)snprintf(line->data, t->text_cap - at, "%s%s%s", name,
                                   h == NULL        ? ":"
                                   : *value == '\0' ? ";"
                                                    : ": ",
                                   value);
        line++;
    }
    line[-1].next = NULL;
    return true;
}

static bool set_request(struct http_transfer *t, const struct http_outbound *r) {
    CURL *easy = t->easy;
    bool ok = true;
    SET(CURLOPT_URL, r->uri);
    SET(CURLOPT_HTTPHEADER, t->lines);
    if (r->get) {
        SET(CURLOPT_POSTFIELDS, NULL);
        SET(CURLOPT_HTTPGET, 1L);
        return ok;
    }
    SET(CURLOPT_POST, 1L);
    SET(CURLOPT_UPLOAD_BUFFERSIZE, r->body.len > 4 * SEND_BYTES ? SEND_LARGE_BYTES : SEND_BYTES);
    SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.len);
    SET(CURLOPT_POSTFIELDS, r->body.len == 0 ? "" : (const char *)r->body.data);
    return ok;
}

void transfer_run(struct http_transfer *t, uint64_t timeout_ms) {
    CURL *easy = t->easy;
    bool ok = true;
    SET(CURLOPT_TIMEOUT_MS, timeout_ms < LONG_MAX ? (long)timeout_ms : LONG_MAX);
    CURLMcode rc = ok ? curl_multi_add_handle(t->client->multi, easy) : CURLM_OUT_OF_MEMORY;
    if (rc == CURLM_OK) transfer_move(t, TRANSFER_RUNNING);
    else transfer_fail_ours(t, "the request could not begin: %s", curl_multi_strerror(rc));
}

struct http_transfer *http_client_send(struct http_client *c, const struct http_outbound *r) {
    struct http_transfer *t = transfer_take(c);
    CHECK(!c->closing && r->timeout_ms > 0);
    t->on_done = r->on_done;
    t->ctx = r->ctx;
    t->started_ms = loop_now_ms(c->loop);
    t->timeout_ms = r->timeout_ms;
    buf_clear(&t->body);
    t->body.max = r->response_max;
    t->head_bytes = t->body_bytes = 0;
    t->head_done = t->ours = false;
    t->opened = t->refused = 0;
    t->why[0] = t->error[0] = '\0';
    transfer_move(t, TRANSFER_WAITING);
    if (t->easy == NULL) {
        transfer_fail_ours(t, "no memory for a request");
    } else if (write_lines(t, r)) {
        if (!set_request(t, r)) transfer_fail_ours(t, "no memory for a request");
        else if (names_enter(t, slice_str(r->uri))) transfer_run(t, t->timeout_ms);
    }
    return t;
}

void http_client_cancel(struct http_client *c, struct http_transfer *t) {
    CHECK(t->client == c && t->state != TRANSFER_POOLED);
    if (t->state == TRANSFER_RUNNING) {
        CHECK(curl_multi_remove_handle(c->multi, t->easy) == CURLM_OK);
    }
    names_leave(t);
    transfer_release(t);
}

/* Takes it out of libcurl, tells its user, keeps its memory for the next. */
static void finish(struct http_transfer *t, CURLcode code) {
    struct http_client *c = t->client;
    struct http_result result;
    if (t->state == TRANSFER_RUNNING) {
        CHECK(curl_multi_remove_handle(c->multi, t->easy) == CURLM_OK);
    }
    names_leave(t);
    result_make(t, code, &result);
    if (result.failure == HTTP_DNS) names_learn(t, false);
    /* Under way no more, but in the pool only when on_done has returned: what it sends must not
     * take this one. */
    list_unlink(&t->node);
    c->active--;
    t->state = TRANSFER_POOLED;
    t->on_done(t->ctx, &result);
    transfer_release(t);
}

bool client_settle(struct http_client *c) {
    const CURLMsg *message;
    bool told = false;
    int left;
    CHECK(!c->inside);
    c->inside = true;
    while ((message = curl_multi_info_read(c->multi, &left)) != NULL) {
        struct http_transfer *t;
        if (message->msg != CURLMSG_DONE) continue;
        CURLcode code = message->data.result;
        CHECK(curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &t) == CURLE_OK);
        finish(t, code);
        told = true;
    }
    names_admit(c);
    for (struct list *n = list_first(&c->ended); n != NULL; n = list_first(&c->ended)) {
        finish(CONTAINER_OF(n, struct http_transfer, node), CURLE_OK);
        told = true;
    }
    c->inside = false;
    return told;
}

size_t http_client_active(const struct http_client *c) {
    return c->active;
}

/* libcurl would complain of a broken file at each connection; here it is told before the first. */
static bool ca_file_ok(const char *path, char *error, size_t size) {
    static const char mark[] = "-----BEGIN CERTIFICATE-----";
    char line[256];
    bool found = false;
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        snprintf(error, size, "the file of authorities %s cannot be read: %s", path,
                 strerror(errno));
        return false;
    }
    while (!found && fgets(line, sizeof line, f) != NULL) {
        found = strncmp(line, mark, sizeof mark - 1) == 0;
    }
    bool failed = ferror(f) != 0;
    fclose(f);
    if (failed) {
        snprintf(error, size, "the file of authorities %s cannot be read", path);
    } else if (!found) {
        snprintf(error, size, "%s holds no certificate in PEM form (%s)", path, mark);
    }
    return found;
}

int http_client_open(struct loop *l, const struct http_client_options *options,
                     struct http_client **out, char *error, size_t error_size) {
    const char *ca_file =
        options->ca_file != NULL && *options->ca_file != '\0' ? options->ca_file : NULL;
    size_t kept = options->connections_max == 0 ? CONNECTIONS_KEPT : options->connections_max;
    *out = NULL;
    if (ca_file != NULL && !ca_file_ok(ca_file, error, error_size)) return -1;
    /* Counted by libcurl itself: it pairs with the cleanup in http_client_close. */
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        snprintf(error, error_size, "libcurl does not start");
        return -1;
    }
    struct http_client *c = mem_zalloc(sizeof *c);
    c->loop = l;
    c->guard = options->guard;
    c->ca_file = ca_file == NULL ? NULL : mem_strdup(ca_file);
    c->user_agent = options->user_agent;
    c->names_due_ms = UINT64_MAX;
    c->known = mem_zalloc(KNOWN_NAMES * sizeof *c->known);
    list_init(&c->waiting);
    list_init(&c->running);
    list_init(&c->ended);
    list_init(&c->pool);
    c->multi = curl_multi_init();
    if (c->multi == NULL || !sockets_open(c) ||
        curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, (long)kept) != CURLM_OK) {
        snprintf(error, error_size, "libcurl does not start: no memory");
        http_client_close(&c);
        return -1;
    }
    *out = c;
    return 0;
}

void http_client_close(struct http_client **client) {
    struct http_client *c = *client;
    if (c == NULL) return;
    *client = NULL;
    CHECK(!c->inside);
    c->closing = true;
    struct list *lists[] = {&c->waiting, &c->running, &c->ended};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        LIST_FOR(n, next, lists[i]) {
            http_client_cancel(c, CONTAINER_OF(n, struct http_transfer, node));
        }
    }
    LIST_FOR(n, next, &c->pool) {
        transfer_free(CONTAINER_OF(n, struct http_transfer, node));
    }
    if (c->multi != NULL) CHECK(curl_multi_cleanup(c->multi) == CURLM_OK);
    sockets_close(c);
    loop_timer_stop(&c->names_timer);
    curl_global_cleanup();
    free(c->known);
    free(c->ca_file);
    free(c);
}
