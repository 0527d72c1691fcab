/* Arbitrary requests at a door of each scheme. Nobody here knows the secret: whatever is accepted
 * by a scheme that has one is a forgery. What is read from headers and body of any request must
 * stay inside it and inside its bounds; so must arbitrary key sets. */
#include <stdio.h>

#include "broker/ingest/kept_headers.h"
#include "broker/ingest/scheme.h"

#define HEADERS_MAX 16
#define NOW_MS      1614265330000ULL

static struct jwks_set *fetching;

static bool on_start(void *ctx, struct jwks_set *set, const char *url) {
    (void)ctx;
    (void)url;
    fetching = set;
    return true;
}

static void on_cancel(void *ctx, struct jwks_set *set) {
    (void)ctx;
    CHECK(fetching == set);
    fetching = NULL;
}

static struct slice cut_line(struct slice *rest) {
    const uint8_t *end = rest->len == 0 ? NULL : memchr(rest->data, '\n', rest->len);
    size_t len = end == NULL ? rest->len : (size_t)(end - rest->data);
    struct slice line = slice_of(rest->data, len);
    *rest = slice_from(*rest, end == NULL ? len : len + 1);
    return line;
}

/* Lines of "name:value" up to an empty one, then the body; the first line is the query. */
static void read_request(struct slice in, struct http_request *r,
                         struct http_header headers[HEADERS_MAX]) {
    r->query = cut_line(&in);
    while (r->headers_count < HEADERS_MAX) {
        struct slice line = cut_line(&in);
        if (line.len == 0) break;
        const uint8_t *colon = memchr(line.data, ':', line.len);
        size_t len = colon == NULL ? line.len : (size_t)(colon - line.data);
        struct slice value = slice_from(line, colon == NULL ? len : len + 1);
        headers[r->headers_count++] = (struct http_header){slice_of(line.data, len), value};
    }
    r->headers = headers;
    r->body = in;
}

#define SET(option, text) snprintf(s->options.option, sizeof s->options.option, "%s", text)

static void make_source(const struct scheme *scheme, struct source *s) {
    static char secret[LIMIT_SECRET_TEXT_BYTES + 1];
    const char *why = "";
    if (secret[0] == '\0') secret_generate(secret);
    *s = (struct source){.name = "fuzz", .scheme = scheme};
    if (scheme->secrets != SECRETS_NONE) CHECK(source_add_secret(s, slice_str(secret), 0, &why));
    if (scheme->options & OPTIONS_JWKS) SET(jwks_url, "https://keys.example/");
    if (scheme->options & OPTIONS_JWT) SET(audience, "us");
    if (scheme->options & OPTIONS_URL) SET(public_url, "https://door.example/in");
    if (scheme->options & OPTIONS_HMAC) {
        SET(signature_header, "x-signature");
        SET(signed_bytes, "{id}.{timestamp}.{body}");
        SET(id_header, "x-id");
        SET(timestamp_header, "x-time");
    }
    char text[WHY_BYTES];
    CHECK(source_check(s, text, sizeof text));
}

static void check_envelope(const struct scheme *scheme, const struct verification *v) {
    struct envelope e;
    struct buf kept;
    envelope_read(scheme->envelope, v->request, &e);
    if (scheme->read_form != NULL) scheme->read_form(v, &e);
    envelope_read_cloudevent(v->request, true, &e);
    CHECK(e.type.len <= LIMIT_EVENT_TYPE_BYTES && e.subject.len <= LIMIT_EVENT_SUBJECT_BYTES);
    CHECK(e.id.len <= LIMIT_EVENT_ID_BYTES && e.metadata.len <= LIMIT_EVENT_METADATA_BYTES);
    unsigned sum = 0; /* touches every byte, for the sanitizer */
    const struct slice all[] = {e.type, e.subject, e.id, e.metadata};
    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < all[i].len; k++) sum += all[i].data[k];
    }
    CHECK(sum < UINT32_MAX);
    buf_init(&kept, LIMIT_EVENT_HEADERS_BYTES);
    kept_headers_write(v->request, scheme->headers, &kept);
    buf_free(&kept);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct jwks_hooks hooks = {on_start, on_cancel, NULL};
    struct scheme_tools tools = {.jwks = jwks_new(&hooks)};
    struct http_header headers[HEADERS_MAX];
    struct http_request r = {.method = slice_str("POST")};
    struct source source;
    if (size == 0) {
        jwks_free(&tools.jwks);
        return 0;
    }
    size_t count = 0;
    while (scheme_at(count) != NULL) count++;
    const struct scheme *scheme = scheme_at(data[0] % count);
    make_source(scheme, &source);
    read_request(slice_of(data + 1, size - 1), &r, headers);
    struct verification v = {.tools = &tools, .source = &source, .request = &r, .wall_ms = NOW_MS};
    enum err err = scheme_verify(&v);
    CHECK(err != ERR_OK || scheme->secrets == SECRETS_NONE);
    CHECK(err == ERR_OK || v.why[0] != '\0');
    check_envelope(scheme, &v);
    if (fetching != NULL) { /* the body as a key set */
        struct jwks_set *set = fetching;
        fetching = NULL;
        jwks_fetched(set, r.body, NULL, 1, 1);
    }
    source_clear(&source);
    jwks_free(&tools.jwks);
    return 0;
}
