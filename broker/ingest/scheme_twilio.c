/* Twilio: HMAC-SHA1 with the auth token over the URL that was called and, of a form, every
 * parameter: name and value by order of name; of a body that is no form the URL holds the hash. The
 * URL is configured, because only the operator knows under which name the world reaches this
 * broker; a query is taken from the request. */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "base/buf.h"
#include "broker/ingest/scheme.h"
#include "broker/json/walk.h"

#define SIGNATURE_HEADER "x-twilio-signature"
#define SHA1_BYTES       20
#define SHA256_HEX       64
#define PARAMS_MAX       512

struct param {
    struct slice name, value; /* decoded */
};

struct form {
    struct param params[PARAMS_MAX];
    size_t count;
    uint8_t *bytes; /* that the slices lie in */
};

static int hex_value(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Decodes to *at and moves it on. False: a broken escape. */
static bool decode(struct slice in, uint8_t **at, struct slice *out) {
    uint8_t *start = *at;
    for (size_t i = 0; i < in.len; i++) {
        uint8_t c = in.data[i];
        if (c == '%') {
            if (in.len - i < 3) return false;
            int high = hex_value(in.data[i + 1]), low = hex_value(in.data[i + 2]);
            if (high < 0 || low < 0) return false;
            c = (uint8_t)(high * 16 + low);
            i += 2;
        } else if (c == '+') {
            c = ' ';
        }
        *(*at)++ = c;
    }
    *out = slice_of(start, (size_t)(*at - start));
    return true;
}

static int compare(struct slice a, struct slice b) {
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len == 0 ? 0 : memcmp(a.data, b.data, len);
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static int by_name_and_value(const void *a, const void *b) {
    const struct param *x = a, *y = b;
    int order = compare(x->name, y->name);
    return order != 0 ? order : compare(x->value, y->value);
}

/* Reads the body as a form, in the order of names. False: it is none. form->bytes is the caller's
 * to free in either case. */
static bool read_form(struct slice body, struct form *form) {
    form->count = 0;
    form->bytes = mem_alloc(body.len + 1);
    uint8_t *at = form->bytes;
    while (body.len > 0) {
        const uint8_t *amp = memchr(body.data, '&', body.len);
        size_t len = amp == NULL ? body.len : (size_t)(amp - body.data);
        struct slice pair = slice_of(body.data, len);
        body = slice_from(body, amp == NULL ? len : len + 1);
        const uint8_t *equals = pair.len == 0 ? NULL : memchr(pair.data, '=', pair.len);
        if (equals == NULL || form->count == PARAMS_MAX) return false;
        struct slice name = slice_of(pair.data, (size_t)(equals - pair.data));
        struct param *p = &form->params[form->count++];
        if (!decode(name, &at, &p->name) || !decode(slice_from(pair, name.len + 1), &at, &p->value))
            return false;
    }
    qsort(form->params, form->count, sizeof form->params[0], by_name_and_value);
    return true;
}

/* The bytes that were signed, appended; of a repeated value once. */
static void append_form(const struct form *form, struct buf *out) {
    for (size_t i = 0; i < form->count; i++) {
        const struct param *p = &form->params[i];
        if (i > 0 && by_name_and_value(p, p - 1) == 0) continue;
        buf_append_slice(out, p->name);
        buf_append_slice(out, p->value);
    }
}

static void append_url(const struct verification *v, struct buf *out) {
    const char *url = v->source->options.public_url;
    buf_append_str(out, url);
    if (v->request->query.len == 0 || strchr(url, '?') != NULL) return;
    buf_append_byte(out, '?');
    buf_append_slice(out, v->request->query);
}

/* The URL says the hash of the body: 1 it is that of this one, 0 it says none, -1 another one. */
static int check_hash(const struct verification *v) {
    char text[SHA256_HEX + 1], hex[SHA256_HEX + 1];
    uint8_t digest[SHA256_HEX / 2];
    struct slice body = v->request->body;
    int found = http_query_get(v->request, "bodySHA256", text, sizeof text);
    if (found == 0) return 0;
    if (found < 0 || http_query_repeated(v->request, "bodySHA256")) return -1;
    CRYPTO_CHECK(EVP_Digest(body.data == NULL ? (const void *)"" : body.data, body.len, digest,
                            NULL, EVP_sha256(), NULL) == 1);
    hex_encode(slice_of(digest, sizeof digest), hex);
    bool same = strlen(text) == SHA256_HEX;
    for (size_t i = 0; i < SHA256_HEX && same; i++) {
        if (text[i] >= 'A' && text[i] <= 'F') text[i] = (char)(text[i] + 'a' - 'A');
    }
    return same && CRYPTO_memcmp(text, hex, SHA256_HEX) == 0 ? 1 : -1;
}

static bool matches(struct verification *v, struct slice message, const uint8_t claimed[]) {
    struct source *s = v->source;
    uint8_t expected[HMAC_BYTES_MAX];
    bool match = false;
    for (size_t i = 0; i < s->secrets_count && !match; i++) {
        struct source_secret *secret = &s->secrets[i];
        struct hmac *h = source_secret_hmac(secret, HMAC_SHA1, slice_str(secret->text));
        hmac_again(h);
        hmac_add(h, message);
        hmac_end(h, expected);
        match = CRYPTO_memcmp(expected, claimed, SHA1_BYTES) == 0;
        if (match) verification_by_secret(v, "", i);
    }
    OPENSSL_cleanse(expected, sizeof expected);
    return match;
}

enum err scheme_verify_twilio(struct verification *v) {
    uint8_t claimed[SHA1_BYTES + 1];
    struct slice header;
    enum err err = verification_header(v, SIGNATURE_HEADER, &header);
    if (err != ERR_OK) return err;
    if (base64_decode(header, claimed, sizeof claimed) != SHA1_BYTES) {
        return verification_refuse(v, ERR_SIGNATURE_MALFORMED,
                                   SIGNATURE_HEADER " is not the base64 of 20 bytes");
    }
    int hashed = check_hash(v);
    if (hashed < 0) {
        return verification_refuse(v, ERR_SIGNATURE_MISMATCH,
                                   "bodySHA256 of the URL is not the hash of this body");
    }
    struct buf message;
    buf_init(&message, v->request->body.len + v->request->query.len + LIMIT_URI_BYTES + 1);
    append_url(v, &message);
    if (hashed == 0) {
        struct form *form = mem_alloc(sizeof *form);
        bool is_form = read_form(v->request->body, form);
        if (is_form) append_form(form, &message);
        free(form->bytes);
        free(form);
        if (!is_form) {
            buf_free(&message);
            return verification_refuse(v, ERR_SIGNATURE_MALFORMED,
                                       "the body is no form and the URL has no bodySHA256: nothing "
                                       "says that it is Twilio's");
        }
    }
    CHECK(!message.overflow);
    bool match = matches(v, buf_slice(&message), claimed);
    /* Over what was signed: a body may be written in more than one way. */
    struct slice signed_bytes = buf_slice(&message);
    if (match) verification_hash_id(v, &signed_bytes, 1);
    buf_free(&message);
    if (match) return ERR_OK;
    return verification_refuse(v, ERR_SIGNATURE_MISMATCH,
                               SIGNATURE_HEADER
                               " was not made with a token of this source over "
                               "its public_url and these parameters");
}

/* ---- what a form says ---- */

static struct slice param_of(const struct form *form, const char *name) {
    for (size_t i = 0; i < form->count; i++) {
        if (slice_eq_str(form->params[i].name, name)) return form->params[i].value;
    }
    return slice_of(NULL, 0);
}

static struct slice take(struct slice value, char *out, size_t size) {
    if (value.len >= size || json_utf8_error(value) != value.len) return slice_of(NULL, 0);
    if (value.len > 0) memcpy(out, value.data, value.len);
    return slice_of(out, value.len);
}

void scheme_read_twilio(const struct verification *v, struct envelope *out) {
    static const struct {
        const char *status, *subject, *kind;
    } forms[] = {
        {"MessageStatus", "MessageSid", "message"},
        {"CallStatus", "CallSid", "call"},
        {"SmsStatus", "MessageSid", "message"},
        {"RecordingStatus", "RecordingSid", "recording"},
    };
    struct form *form = mem_alloc(sizeof *form);
    if (read_form(v->request->body, form)) {
        for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
            struct slice status = param_of(form, forms[i].status);
            if (status.len == 0 || status.len > 64 || json_utf8_error(status) != status.len) {
                continue;
            }
            int len = snprintf(out->type_text, sizeof out->type_text, "%s.%.*s", forms[i].kind,
                               SLICE_ARG(status));
            out->type = slice_of(out->type_text, (size_t)len);
            out->subject =
                take(param_of(form, forms[i].subject), out->subject_text, sizeof out->subject_text);
            break;
        }
    }
    free(form->bytes);
    free(form);
}
