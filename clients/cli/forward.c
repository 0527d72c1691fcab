/* The happy path: a slot is taken, its request prepared on the loop, curl_easy_perform runs on a
 * thread, the result is told on the loop and the slot is free. What fails (no answer, a timeout,
 * anything but a 2xx) is a result too. */
#include "clients/cli/forward.h"

#include <curl/curl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/base64.h"
#include "base/rfc3339.h"
#include "base/utf8.h"
#include "clients/cli/input.h"
#include "clients/cli/json_text.h"
#include "clients/cli/output.h"

#define TIMEOUT_MS   15000       /* of a request, as the broker's own */
#define ANSWER_BYTES (64 * 1024) /* read of an answer; then the rest is left */
#define KEPT_BYTES   512
#define ID_BYTES     64

struct slot {
    struct forward *forward;
    uv_work_t work;
    bool busy;
    CURL *curl;
    struct curl_slist *headers;
    struct buf body;
    char error[CURL_ERROR_SIZE], answer[KEPT_BYTES + 1];
    size_t answer_len, answer_kept;
    CURLcode code;
    uint64_t begun_ns;
    forward_done *done;
    void *ctx;
};

struct forward {
    struct forward_options options;
    atomic_bool stopping;
    struct slot *slots;
};

int forward_check(const char *url) {
    char *scheme = NULL, *host = NULL;
    CURLU *parsed = curl_url();
    CHECK(parsed != NULL);
    CURLUcode code = curl_url_set(parsed, CURLUPART_URL, url, 0);
    if (code == CURLUE_OK) {
        curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0);
        curl_url_get(parsed, CURLUPART_HOST, &host, 0);
    }
    bool good = scheme != NULL && host != NULL &&
                (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);
    if (!good) {
        cli_complain("--forward: '%s' is not a URL such as http://127.0.0.1:3000/hook", url);
    }
    curl_free(scheme);
    curl_free(host);
    curl_url_cleanup(parsed);
    return good ? 0 : CLI_USAGE;
}

struct forward *forward_open(const struct forward_options *options) {
    struct forward *f = mem_zalloc(sizeof(*f));
    f->options = *options;
    f->slots = mem_zalloc(options->at_once * sizeof(*f->slots));
    for (size_t i = 0; i < options->at_once; i++) {
        f->slots[i].forward = f;
        f->slots[i].curl = curl_easy_init();
        CHECK(f->slots[i].curl != NULL);
    }
    return f;
}

void forward_close(struct forward **out) {
    struct forward *f = *out;
    if (f == NULL) return;
    for (size_t i = 0; i < f->options.at_once; i++) {
        CHECK(!f->slots[i].busy);
        curl_easy_cleanup(f->slots[i].curl);
    }
    free(f->slots);
    free(f);
    *out = NULL;
}

void forward_stop(struct forward *f) {
    atomic_store(&f->stopping, true);
}

/* ---- the body ---- */

static bool says_json(const char *content_type) {
    size_t len = strcspn(content_type, ";");
    while (len > 0 && strchr(" \t", content_type[len - 1]) != NULL) len--;
    if (content_type[0] == '\0') return true;
    if (len == 16 && strncasecmp(content_type, "application/json", len) == 0) return true;
    return len > 5 && strncasecmp(content_type + len - 5, "+json", 5) == 0;
}

static bool is_utf8(struct slice text) {
    for (size_t at = 0; at < text.len;) {
        size_t len = utf8_sequence(text.data + at, text.len - at);
        if (len == 0) return false;
        at += len;
    }
    return true;
}

static void put_base64(struct buf *out, struct slice bytes) {
    buf_append_byte(out, '"');
    char *at = (char *)buf_reserve(out, BASE64_LEN(bytes.len) + 1);
    CHECK(at != NULL);
    base64_encode(bytes, at);
    out->len += BASE64_LEN(bytes.len);
    buf_append_byte(out, '"');
}

static void put_data(const struct bellhop_info *info, struct buf *out) {
    struct slice body = slice_of(info->body, info->body_len);
    char why[200];
    if (body.len > 0 && says_json(info->content_type) &&
        json_valid(body, false, 1, why, sizeof(why))) {
        buf_append_slice(out, body);
        return;
    }
    buf_append_byte(out, '{');
    if (body.len > 0) {
        if (info->content_type[0] != '\0') {
            buf_append_str(out, "\"content_type\":");
            buf_append_json_string(out, slice_str(info->content_type));
            buf_append_byte(out, ',');
        }
        bool text = is_utf8(body);
        buf_append_str(out, text ? "\"text\":" : "\"base64\":");
        if (text) buf_append_json_string(out, body);
        else put_base64(out, body);
    }
    buf_append_byte(out, '}');
}

void forward_body(const struct bellhop_info *info, struct buf *out) {
    char time[RFC3339_SIZE], why[200];
    struct slice metadata = slice_str(info->metadata);
    if (info->source[0] != '\0') {
        buf_append(out, info->body, info->body_len);
        CHECK(!out->overflow);
        return;
    }
    rfc3339_format(info->time_ms != 0 ? info->time_ms : info->received_at_ms, time);
    buf_append_str(out, "{\"type\":");
    buf_append_json_string(out, slice_str(info->type));
    buf_printf(out, ",\"version\":\"v1\",\"timestamp\":\"%s\",\"data\":", time);
    put_data(info, out);
    if (metadata.len > 0) {
        buf_append_str(out, ",\"user_metadata\":");
        if (json_valid(metadata, true, 1, why, sizeof(why))) buf_append_slice(out, metadata);
        else buf_append_json_string(out, metadata);
    }
    buf_append_byte(out, '}');
    CHECK(!out->overflow); /* an escaped byte is six at most */
}

const char *forward_content_type(const struct bellhop_info *info) {
    bool own = info->source[0] != '\0' && info->content_type[0] != '\0';
    return own ? info->content_type : "application/json";
}

/* ---- the request ---- */

static void add_header(struct slot *s, const char *name, const char *value) {
    char *line = text_printf("%s%s", name, value);
    struct curl_slist *longer = curl_slist_append(s->headers, line);
    CHECK(longer != NULL);
    s->headers = longer;
    free(line);
}

static void make_headers(struct slot *s, const struct bellhop_info *info) {
    char id[ID_BYTES], timestamp[32], signature[SIGNING_HEADER_BYTES];
    s->headers = NULL;
    /* The same over all attempts, so that a receiver can tell a repetition. */
    snprintf(id, sizeof(id), "msg_listen_%llu", (unsigned long long)info->seq);
    snprintf(timestamp, sizeof(timestamp), "%lld", (long long)time(NULL));
    signing_header(s->forward->options.secret, id, timestamp, buf_slice(&s->body), signature);
    add_header(s, "content-type: ", forward_content_type(info));
    add_header(s, "webhook-id: ", id);
    add_header(s, "webhook-timestamp: ", timestamp);
    add_header(s, signature, "");
    add_header(s, "Expect:", ""); /* no pause before a body */
}

static size_t on_answer(char *data, size_t size, size_t count, void *ctx) {
    struct slot *s = ctx;
    size_t len = size * count, room = KEPT_BYTES - s->answer_kept;
    if (room > len) room = len;
    memcpy(s->answer + s->answer_kept, data, room);
    s->answer_kept += room;
    s->answer_len += len;
    return s->answer_len > ANSWER_BYTES ? 0 : len;
}

static int on_progress(void *ctx, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    struct slot *s = ctx;
    (void)a;
    (void)b;
    (void)c;
    (void)d;
    return atomic_load(&s->forward->stopping);
}

static void set_request(struct slot *s) {
    CURL *curl = s->curl;
    curl_easy_reset(curl); /* keeps the connection */
    curl_easy_setopt(curl, CURLOPT_URL, s->forward->options.url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "bellhop/" BELLHOP_VERSION);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)TIMEOUT_MS);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, s->error);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_answer);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, s);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, s->headers);
    curl_easy_setopt(curl, CURLOPT_POST, 1L);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)s->body.len);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, s->body.len > 0 ? (const char *)s->body.data : "");
}

static void on_thread(uv_work_t *work) {
    struct slot *s = CONTAINER_OF(work, struct slot, work);
    s->code = curl_easy_perform(s->curl);
}

/* "HTTP 500: the first line of the answer", or why there is none. The caller frees. */
static char *describe(struct slot *s, long status) {
    if (status == 0) {
        return mem_strdup(s->error[0] != '\0' ? s->error : curl_easy_strerror(s->code));
    }
    if (status >= 200 && status <= 299) return mem_strdup("");
    s->answer[s->answer_kept] = '\0';
    s->answer[strcspn(s->answer, "\r\n")] = '\0';
    char *text = text_printf("HTTP %ld%s%s", status, s->answer[0] != '\0' ? ": " : "", s->answer);
    text_clean(text);
    return text;
}

static void on_over(uv_work_t *work, int cancelled) {
    struct slot *s = CONTAINER_OF(work, struct slot, work);
    struct forward_result result = {0};
    CHECK(cancelled == 0);
    bool left = s->code == CURLE_WRITE_ERROR && s->answer_len > ANSWER_BYTES;
    if (s->code == CURLE_OK || left) {
        curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &result.status);
    }
    char *error = describe(s, result.status);
    result.stopped = s->code == CURLE_ABORTED_BY_CALLBACK;
    result.error = error;
    result.duration_ms = (uv_hrtime() - s->begun_ns) / 1000000;
    curl_slist_free_all(s->headers);
    buf_free(&s->body);
    s->busy = false;
    s->done(s->ctx, &result);
    free(error);
}

void forward_send(struct forward *f, const struct bellhop_info *info, forward_done *done,
                  void *ctx) {
    size_t i = 0;
    while (i < f->options.at_once && f->slots[i].busy) i++;
    CHECK(i < f->options.at_once);
    struct slot *s = &f->slots[i];
    s->busy = true;
    s->done = done;
    s->ctx = ctx;
    s->error[0] = '\0';
    s->answer_len = s->answer_kept = 0;
    s->begun_ns = uv_hrtime();
    buf_init(&s->body, 7 * (size_t)INPUT_BYTES);
    forward_body(info, &s->body);
    make_headers(s, info);
    set_request(s);
    CHECK(uv_queue_work(f->options.loop, &s->work, on_thread, on_over) == 0);
}
