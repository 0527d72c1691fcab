/* What became of a request: libcurl's code and our own notes, as one of enum http_failure and a
 * sentence for people. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "broker/http/client_internal.h"

const char *http_failure_name(enum http_failure f) {
    static const char *const names[] = {
        [HTTP_ANSWERED] = "answered",
        [HTTP_DNS] = "dns",
        [HTTP_FORBIDDEN] = "forbidden_address",
        [HTTP_CONNECT] = "connect",
        [HTTP_TLS] = "tls",
        [HTTP_TIMEOUT] = "timeout",
        [HTTP_BROKEN] = "broken",
        [HTTP_OURS] = "internal",
    };
    CHECK((size_t)f < sizeof names / sizeof names[0]);
    return names[f];
}

static long info_long(struct http_transfer *t, CURLINFO info) {
    long value = 0;
    CHECK(curl_easy_getinfo(t->easy, info, &value) == CURLE_OK);
    return value;
}

static uint64_t info_us(struct http_transfer *t, CURLINFO info) {
    curl_off_t value = 0;
    CHECK(curl_easy_getinfo(t->easy, info, &value) == CURLE_OK);
    return value < 0 ? 0 : (uint64_t)value;
}

static const char *info_text(struct http_transfer *t, CURLINFO info) {
    const char *value = NULL;
    CHECK(curl_easy_getinfo(t->easy, info, &value) == CURLE_OK);
    return value == NULL ? "" : value;
}

/* libcurl has no code for a lookup that it could not even begin. */
static enum http_failure of_lookup(const struct http_transfer *t) {
    return strstr(t->error, "thread failed to start") != NULL ? HTTP_OURS : HTTP_DNS;
}

/* The status stands, whatever became of the rest: not after a head that only informs. */
static bool is_whole_head(struct http_transfer *t) {
    long status = info_long(t, CURLINFO_RESPONSE_CODE);
    return t->head_done && (status >= 200 || status == 101);
}

static enum http_failure of_connect(struct http_transfer *t) {
    if (t->refused > 0 && t->opened == 0) return HTTP_FORBIDDEN;
    /* No local port is free for one more connection to there. */
    return info_long(t, CURLINFO_OS_ERRNO) == EADDRNOTAVAIL ? HTTP_OURS : HTTP_CONNECT;
}

static enum http_failure classify(struct http_transfer *t, CURLcode code) {
    /* libcurl is content with a head that ended in the middle. */
    if (t->state == TRANSFER_RUNNING && code == CURLE_OK) {
        return is_whole_head(t) ? HTTP_ANSWERED : HTTP_BROKEN;
    }
    if (t->ours) return HTTP_OURS;
    switch (code) {
    case CURLE_OPERATION_TIMEDOUT: return HTTP_TIMEOUT;
    case CURLE_COULDNT_RESOLVE_HOST: return of_lookup(t);
    case CURLE_COULDNT_CONNECT: return of_connect(t);
    case CURLE_UNSUPPORTED_PROTOCOL: /* also what an answer of HTTP/0.9 would be */
        if (t->head_bytes > 0 || info_us(t, CURLINFO_PRETRANSFER_TIME_T) > 0) return HTTP_BROKEN;
        snprintf(t->why, sizeof t->why, "only https:// is taken");
        return HTTP_FORBIDDEN;
    case CURLE_OUT_OF_MEMORY:
    case CURLE_FAILED_INIT:
    case CURLE_BAD_FUNCTION_ARGUMENT:
    case CURLE_UNKNOWN_OPTION:
    case CURLE_URL_MALFORMAT:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ENGINE_NOTFOUND:
    case CURLE_SSL_ENGINE_SETFAILED:
    case CURLE_SSL_ENGINE_INITFAILED: return HTTP_OURS;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_CRL_BADFILE: return HTTP_TLS;
    default: return is_whole_head(t) ? HTTP_ANSWERED : HTTP_BROKEN;
    }
}

/* How far it had come when the time was over. */
static void say_timeout(struct http_transfer *t) {
    const char *what;
    char status[64];
    if (t->head_done) {
        snprintf(status, sizeof status, "status %ld came, but the response did not end",
                 info_long(t, CURLINFO_RESPONSE_CODE));
        what = status;
    } else if (info_us(t, CURLINFO_PRETRANSFER_TIME_T) > 0) {
        what = "no response came";
    } else if (info_us(t, CURLINFO_NAMELOOKUP_TIME_T) > 0) {
        struct slice uri = slice_str(info_text(t, CURLINFO_EFFECTIVE_URL));
        bool tls = uri.len > 5 && slice_eq_nocase(slice_of(uri.data, 5), "https");
        what = tls ? "there was no TLS connection" : "there was no connection";
    } else {
        what = "the name was not resolved";
    }
    snprintf(t->why, sizeof t->why, "%s within %llu ms", what, (unsigned long long)t->timeout_ms);
}

static void say(struct http_transfer *t, enum http_failure failure, CURLcode code) {
    long os = info_long(t, CURLINFO_OS_ERRNO);
    const char *text = t->error[0] != '\0' ? t->error : curl_easy_strerror(code);
    if (t->ours || failure == HTTP_FORBIDDEN) return; /* said already */
    if (failure == HTTP_TIMEOUT) {
        say_timeout(t);
    } else if (t->head_bytes > LIMIT_RESPONSE_BYTES) {
        snprintf(t->why, sizeof t->why, "the head of the response is longer than %d bytes",
                 LIMIT_RESPONSE_BYTES);
    } else if (code == CURLE_OK) {
        snprintf(t->why, sizeof t->why, "closed before the head of the response was whole");
    } else if (code == CURLE_COULDNT_CONNECT && os != 0) {
        snprintf(t->why, sizeof t->why, "%s (%s)", text, strerror((int)os));
    } else {
        snprintf(t->why, sizeof t->why, "%s", text);
    }
}

/* Where the connection was made to, by this request or by one before it. */
static void say_address(struct http_transfer *t, char out[64]) {
    const char *ip = info_text(t, CURLINFO_PRIMARY_IP);
    bool six = strchr(ip, ':') != NULL;
    if (*ip == '\0') return;
    if (t->opened > 0 && info_us(t, CURLINFO_CONNECT_TIME_T) == 0) return;
    snprintf(out, 64, "%s%s%s:%ld", six ? "[" : "", ip, six ? "]" : "",
             info_long(t, CURLINFO_PRIMARY_PORT));
}

void result_make(struct http_transfer *t, CURLcode code, struct http_result *out) {
    struct curl_header *header;
    memset(out, 0, sizeof *out);
    out->failure = classify(t, code);
    out->detail = "";
    out->body = slice_of(NULL, 0);
    out->retry_after = slice_of(NULL, 0);
    if (t->state != TRANSFER_RUNNING) {
        out->duration_ms = loop_now_ms(t->client->loop) - t->started_ms;
        out->detail = t->why;
        return;
    }
    out->duration_ms = info_us(t, CURLINFO_TOTAL_TIME_T) / 1000;
    if (out->failure != HTTP_FORBIDDEN && out->failure != HTTP_DNS) say_address(t, out->address);
    if (out->failure != HTTP_ANSWERED) {
        say(t, out->failure, code);
        out->detail = t->why;
        return;
    }
    out->status = (int)info_long(t, CURLINFO_RESPONSE_CODE);
    out->body = buf_slice(&t->body);
    /* Of the last head; a response that needs no retry is not searched. */
    if ((out->status < 200 || out->status > 299) &&
        curl_easy_header(t->easy, "Retry-After", 0, CURLH_HEADER, -1, &header) == CURLHE_OK) {
        out->retry_after = slice_str(header->value);
    }
}
