/* What an operator says of a source, and how it is stored, under "source/NAME":
 *   {"scheme":"standard-webhooks","created_at_ms":1795251600000,"secrets":["whsec_..."],
 *    "expires":[0],"options":{"tolerance_s":600}}
 * `expires` goes along with `secrets` (0: never); both it and `options` may be absent. */
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <strings.h>

#include "broker/http/guard.h"
#include "broker/ingest/scheme.h"
#include "broker/json/walk.h"

#define TOKEN_BYTES_MIN 16
#define SHOWN_TEXT_MIN  16 /* of a shorter one the last four characters say too much */

#define TEXT(group, name, bytes)                                                                   \
    { #name, OPTION_TEXT, group, offsetof(struct source_options, name), 0, bytes }
#define NUMBER(group, name, max)                                                                   \
    { #name, OPTION_NUMBER, group, offsetof(struct source_options, name), 0, max }
#define BOOL(group, name)                                                                          \
    { #name, OPTION_BOOL, group, offsetof(struct source_options, name), 0, 1 }

const struct source_option source_option_table[] = {
    NUMBER(OPTIONS_ALL, dedupe_ms, LIMIT_AGE_MS_MAX),
    NUMBER(OPTIONS_ALL, dedupe_events, LIMIT_DEDUPE_IDS),
    NUMBER(OPTIONS_ALL, rate_per_s, LIMIT_RATE_PER_S),
    NUMBER(OPTIONS_ALL, rate_burst, LIMIT_RATE_PER_S),
    NUMBER(OPTIONS_TIME, tolerance_s, SOURCE_TOLERANCE_S),
    TEXT(OPTIONS_JWKS, jwks_url, LIMIT_URI_BYTES),
    BOOL(OPTIONS_JWKS, jwks_allow_http),
    TEXT(OPTIONS_JWT, audience, SOURCE_AUDIENCE_BYTES),
    BOOL(OPTIONS_JWT, jwt_unbound_body),
    TEXT(OPTIONS_URL, public_url, LIMIT_URI_BYTES),
    TEXT(OPTIONS_TOKEN, token_header, SOURCE_HEADER_BYTES),
    TEXT(OPTIONS_HMAC, signature_header, SOURCE_HEADER_BYTES),
    TEXT(OPTIONS_HMAC, signature_prefix, SOURCE_PREFIX_BYTES),
    TEXT(OPTIONS_HMAC, algorithm, SOURCE_WORD_BYTES),
    TEXT(OPTIONS_HMAC, encoding, SOURCE_WORD_BYTES),
    TEXT(OPTIONS_HMAC, signed_bytes, SOURCE_TEMPLATE_BYTES),
    TEXT(OPTIONS_HMAC, timestamp_header, SOURCE_HEADER_BYTES),
    TEXT(OPTIONS_ID, id_header, SOURCE_HEADER_BYTES),
    BOOL(OPTIONS_UNSIGNED_ID, trust_id_header),
};
const size_t source_option_count = sizeof source_option_table / sizeof source_option_table[0];

void *source_option_at(struct source_options *o, const struct source_option *option) {
    return (char *)o + option->offset;
}

const void *source_option_in(const struct source_options *o, const struct source_option *option) {
    return (const char *)o + option->offset;
}

static bool is_set(const struct source_options *o, const struct source_option *option) {
    const void *at = source_option_in(o, option);
    switch (option->kind) {
    case OPTION_TEXT: return *(const char *)at != '\0';
    case OPTION_NUMBER: return *(const uint64_t *)at != 0;
    case OPTION_BOOL: return *(const bool *)at;
    }
    UNREACHABLE("every kind is above");
}

const char *source_jwks_url(const struct source *s) {
    if (s->options.jwks_url[0] != '\0') return s->options.jwks_url;
    return s->scheme->jwks_url == NULL ? "" : s->scheme->jwks_url;
}

/* ---- secrets ---- */

static void clear_secret(struct source_secret *secret) {
    verifying_key_free(&secret->public_key);
    hmac_free(&secret->hmac);
    OPENSSL_cleanse(secret, sizeof *secret);
}

void source_clear(struct source *s) {
    for (size_t i = 0; i < s->secrets_count; i++) clear_secret(&s->secrets[i]);
    OPENSSL_cleanse(s, sizeof *s);
}

struct hmac *source_secret_hmac(struct source_secret *secret, enum hmac_digest digest,
                                struct slice key) {
    if (secret->hmac == NULL) secret->hmac = hmac_new_keyed(digest, key);
    return secret->hmac;
}

static bool wrong(const char **why, const char *text) {
    *why = text;
    return false;
}

/* A blank or a line end around a secret is nearly always a mistake of copying, and never seen. */
static bool text_ok(struct slice text, const char **why) {
    if (text.len == 0) return wrong(why, "is empty");
    if (text.len > LIMIT_SECRET_TEXT_BYTES) return wrong(why, "is longer than 128 characters");
    if (text.data[0] == ' ' || text.data[text.len - 1] == ' ') {
        return wrong(why, "begins or ends with a blank");
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < ' ' || text.data[i] == 0x7F) {
            return wrong(why, "holds a line end or another control character");
        }
    }
    return json_utf8_error(text) == text.len ? true : wrong(why, "is not UTF-8");
}

static bool parse_secret(enum scheme_secrets form, struct slice text, struct source_secret *out,
                         const char **why) {
    bool prefixed = slice_starts_with(text, "whsec_");
    switch (form) {
    case SECRETS_WHSEC:
        if (slice_starts_with(text, VERIFYING_KEY_PREFIX)) {
            out->public_key = verifying_key_parse(text, why);
            return out->public_key != NULL;
        }
        return secret_parse(text, &out->key, why) == ERR_OK;
    case SECRETS_OPENAI:
        if (!text_ok(text, why)) return false;
        if (prefixed) return secret_parse(text, &out->key, why) == ERR_OK;
        if (text.len > sizeof out->key.key) return wrong(why, "is longer than 64 characters");
        memcpy(out->key.key, text.data, text.len);
        out->key.len = text.len;
        return true;
    case SECRETS_TEXT: return text_ok(text, why);
    case SECRETS_TOKEN:
        if (!text_ok(text, why)) return false;
        if (memchr(text.data, ' ', text.len) != NULL) return wrong(why, "holds a blank");
        return text.len >= TOKEN_BYTES_MIN ? true : wrong(why, "is shorter than 16 characters");
    case SECRETS_NONE: return wrong(why, "is not wanted: the scheme has no secrets");
    }
    UNREACHABLE("every form is above");
}

bool source_add_secret(struct source *s, struct slice text, uint64_t expires_at_ms,
                       const char **why) {
    if (s->secrets_count == LIMIT_SECRETS) return wrong(why, "is one too many: at most 8");
    struct source_secret *secret = &s->secrets[s->secrets_count];
    *secret = (struct source_secret){.expires_at_ms = expires_at_ms};
    if (!parse_secret(s->scheme->secrets, text, secret, why)) {
        clear_secret(secret);
        return false;
    }
    if (!slice_to_cstr(text, secret->text, sizeof secret->text)) {
        clear_secret(secret);
        return wrong(why, "is longer than 128 characters or holds a NUL");
    }
    s->secrets_count++;
    s->had_secrets = true;
    return true;
}

void source_expire(struct source *s, uint64_t wall_ms) {
    size_t kept = 0;
    for (size_t i = 0; i < s->secrets_count; i++) {
        struct source_secret *secret = &s->secrets[i];
        if (secret->expires_at_ms != 0 && secret->expires_at_ms <= wall_ms) {
            clear_secret(secret);
        } else if (kept++ != i) {
            s->secrets[kept - 1] = *secret;
            OPENSSL_cleanse(secret, sizeof *secret);
        }
    }
    s->secrets_count = kept;
}

void source_show_secret(const struct source_secret *secret, char out[SECRET_SHOWN_BYTES]) {
    if (strlen(secret->text) < SHOWN_TEXT_MIN) snprintf(out, SECRET_SHOWN_BYTES, "...");
    else secret_show(secret->text, out);
}

/* ---- whether it goes together ---- */

static bool refuse(char *why, size_t size, const char *name, const char *text) {
    snprintf(why, size, "options.%s %s", name, text);
    return false;
}

static bool url_ok(const char *url, bool http_too) {
    char origin[LIMIT_URI_BYTES + 8];
    struct slice text = slice_str(url);
    if (!slice_starts_with(text, "https://") && !(http_too && slice_starts_with(text, "http://"))) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] <= ' ' || text.data[i] >= 0x7F || text.data[i] == '#') return false;
    }
    guard_uri_origin(text, origin);
    return origin[0] != '\0';
}

/* A token (RFC 9110 section 5.6.2). */
static bool header_name_ok(const char *name) {
    static const char others[] = "!#$%&'*+-.^_`|~0123456789";
    for (const char *c = name; *c != '\0'; c++) {
        char letter = (char)(*c | 0x20);
        if (!(letter >= 'a' && letter <= 'z') && strchr(others, *c) == NULL) return false;
    }
    return true;
}

/* An id is kept, shown and logged: what lets the sender in is none. */
static bool id_is_public(const struct source_options *o) {
    const char *const secret[] = {"authorization", "proxy-authorization", "cookie", o->token_header,
                                  o->signature_header};
    for (size_t i = 0; o->id_header[0] != '\0' && i < sizeof secret / sizeof secret[0]; i++) {
        if (strcasecmp(o->id_header, secret[i]) == 0) return false;
    }
    return true;
}

static bool check_hmac(const struct source_options *o, char *why, size_t size) {
    const char *template = o->signed_bytes[0] == '\0' ? "{body}" : o->signed_bytes, *wrong_how;
    if (o->signature_header[0] == '\0') {
        return refuse(why, size, "signature_header",
                      "must be there: the name of the header that holds the signature");
    }
    if (o->algorithm[0] != '\0' && strcmp(o->algorithm, "sha256") != 0 &&
        strcmp(o->algorithm, "sha1") != 0 && strcmp(o->algorithm, "sha512") != 0) {
        return refuse(why, size, "algorithm", "must be sha256, sha1 or sha512");
    }
    if (o->encoding[0] != '\0' && strcmp(o->encoding, "hex") != 0 &&
        strcmp(o->encoding, "base64") != 0) {
        return refuse(why, size, "encoding", "must be hex or base64");
    }
    if (!scheme_template_ok(template, &wrong_how)) {
        return refuse(why, size, "signed_bytes", wrong_how);
    }
    if (scheme_template_has(template, "{timestamp}") != (o->timestamp_header[0] != '\0')) {
        return refuse(why, size, "timestamp_header",
                      "and {timestamp} in options.signed_bytes go together: a time that is not "
                      "signed says nothing");
    }
    if (scheme_template_has(template, "{id}") && o->id_header[0] == '\0') {
        return refuse(why, size, "id_header", "must be there: options.signed_bytes has {id}");
    }
    return true;
}

static bool check_options(const struct source *s, char *why, size_t size) {
    const struct source_options *o = &s->options;
    const char *const headers[][2] = {{"token_header", o->token_header},
                                      {"signature_header", o->signature_header},
                                      {"timestamp_header", o->timestamp_header},
                                      {"id_header", o->id_header}};
    for (size_t i = 0; i < source_option_count; i++) {
        const struct source_option *option = &source_option_table[i];
        if (!is_set(o, option) || option->group == OPTIONS_ALL ||
            (s->scheme->options & option->group) != 0) {
            continue;
        }
        snprintf(why, size, "options.%s is none of scheme \"%s\"", option->name, s->scheme->name);
        return false;
    }
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        if (!header_name_ok(headers[i][1])) {
            return refuse(why, size, headers[i][0], "is no name of a header");
        }
    }
    if (!id_is_public(o)) {
        return refuse(why, size, "id_header",
                      "must be another header than the one with the token or the signature: an id "
                      "is shown and logged");
    }
    if (o->jwks_url[0] != '\0' && !url_ok(o->jwks_url, o->jwks_allow_http)) {
        return refuse(why, size, "jwks_url",
                      "must be an https:// URL (http:// with options.jwks_allow_http)");
    }
    if ((s->scheme->options & OPTIONS_URL) != 0 && !url_ok(o->public_url, true)) {
        return refuse(why, size, "public_url",
                      "must be the whole http(s):// URL that the provider calls: it is signed");
    }
    if (o->rate_burst != 0 && o->rate_per_s == 0) {
        return refuse(why, size, "rate_burst",
                      "goes with options.rate_per_s: set both, or this to 0 too");
    }
    return (s->scheme->options & OPTIONS_HMAC) == 0 || check_hmac(o, why, size);
}

bool source_check(const struct source *s, char *why, size_t size) {
    if (!check_options(s, why, size)) return false;
    bool keys = s->scheme->secrets == SECRETS_NONE || source_jwks_url(s)[0] != '\0';
    if (s->secrets_count > 0 || keys) return true;
    snprintf(why, size, "secrets must hold 1 to %d secrets%s", LIMIT_SECRETS,
             s->scheme->makes_secret ? "; leave it out and one is made for you"
                                     : ": the provider shows its own");
    return false;
}

/* ---- the stored form ---- */

static void encode_option(const struct source_options *o, const struct source_option *option,
                          struct buf *out) {
    const void *at = source_option_in(o, option);
    buf_printf(out, "\"%s\":", option->name);
    if (option->kind == OPTION_TEXT) buf_append_json_string(out, slice_str(at));
    if (option->kind == OPTION_NUMBER) buf_append_u64(out, *(const uint64_t *)at);
    if (option->kind == OPTION_BOOL) buf_append_str(out, "true");
}

void source_encode(const struct source *s, struct buf *out) {
    bool any = false;
    buf_printf(out, "{\"scheme\":\"%s\",\"created_at_ms\":%" PRIu64 ",\"secrets\":[",
               s->scheme->name, s->created_at_ms);
    for (size_t i = 0; i < s->secrets_count; i++) {
        if (i > 0) buf_append_byte(out, ',');
        buf_append_json_string(out, slice_str(s->secrets[i].text));
    }
    buf_append_str(out, "],\"expires\":[");
    for (size_t i = 0; i < s->secrets_count; i++) {
        buf_printf(out, "%s%" PRIu64, i > 0 ? "," : "", s->secrets[i].expires_at_ms);
    }
    buf_append_str(out, "],\"options\":{");
    for (size_t i = 0; i < source_option_count; i++) {
        if (!is_set(&s->options, &source_option_table[i])) continue;
        if (any) buf_append_byte(out, ',');
        encode_option(&s->options, &source_option_table[i], out);
        any = true;
    }
    buf_append_str(out, "}}");
}

struct decode {
    struct source *out;
    const char *why; /* NULL: nothing is wrong so far */
    /* The scheme, which says how to read a secret, may stand behind them. */
    struct slice secrets[LIMIT_SECRETS];
    uint64_t expires[LIMIT_SECRETS];
    size_t count;
};

static void take_option(struct decode *d, const struct json_value *v) {
    for (size_t i = 0; i < source_option_count; i++) {
        const struct source_option *option = &source_option_table[i];
        if (!slice_eq_str(v->path[1], option->name)) continue;
        void *at = source_option_at(&d->out->options, option);
        bool good = true;
        switch (option->kind) {
        case OPTION_TEXT: good = json_string_decode(v->raw, at, option->max + 1) >= 0; break;
        case OPTION_NUMBER: good = slice_to_u64(v->raw, at); break;
        case OPTION_BOOL: *(bool *)at = slice_eq_str(v->raw, "true"); break;
        }
        if (!good) d->why = "an option has another form";
    }
}

static void take_secret(struct decode *d, const struct json_value *v) {
    if (d->count == LIMIT_SECRETS) d->why = "it has too many secrets";
    else if (v->type != JSON_IS_STRING) d->why = "a secret is not a text";
    else d->secrets[d->count++] = v->raw;
}

/* Fields of later versions are passed over. */
static bool take_field(void *ctx, const struct json_value *v) {
    struct decode *d = ctx;
    if (v->depth == 2 && slice_eq_str(v->path[0], "secrets")) take_secret(d, v);
    if (v->depth == 2 && slice_eq_str(v->path[0], "options")) take_option(d, v);
    if (v->depth == 2 && slice_eq_str(v->path[0], "expires") && v->index < LIMIT_SECRETS &&
        !slice_to_u64(v->raw, &d->expires[v->index])) {
        d->why = "a time of expires is no number";
    }
    if (v->depth != 1) return d->why == NULL;
    if (slice_eq_str(v->path[0], "created_at_ms")) {
        if (!slice_to_u64(v->raw, &d->out->created_at_ms)) d->why = "created_at_ms is no number";
    } else if (slice_eq_str(v->path[0], "scheme")) {
        char name[32];
        long len = json_string_decode(v->raw, name, sizeof name);
        d->out->scheme = len < 0 ? NULL : scheme_find(slice_of(name, (size_t)len));
        if (d->out->scheme == NULL) d->why = "this version does not know its scheme";
    }
    return d->why == NULL;
}

static void add_secrets(struct decode *d) {
    char text[LIMIT_SECRET_TEXT_BYTES + 1];
    for (size_t i = 0; i < d->count && d->why == NULL; i++) {
        long len = json_string_decode(d->secrets[i], text, sizeof text);
        if (len < 0) d->why = "a secret is not a text";
        else source_add_secret(d->out, slice_of(text, (size_t)len), d->expires[i], &d->why);
    }
    OPENSSL_cleanse(text, sizeof text);
}

bool source_decode(struct slice value, struct source *out, const char **why) {
    char wrong_how[WHY_BYTES];
    struct decode d = {.out = out};
    out->scheme = NULL;
    out->secrets_count = 0;
    out->had_secrets = false;
    memset(&out->options, 0, sizeof out->options);
    if (!json_walk(value, 2, take_field, &d, NULL)) d.why = "it is not JSON";
    if (d.why == NULL && out->scheme == NULL) d.why = "it has no scheme";
    if (d.why == NULL) add_secrets(&d);
    if (d.why == NULL && !source_check(out, wrong_how, sizeof wrong_how)) {
        d.why = "its options or secrets do not go together";
    }
    *why = d.why;
    if (d.why == NULL) return true;
    for (size_t i = 0; i < out->secrets_count; i++) clear_secret(&out->secrets[i]);
    out->secrets_count = 0;
    return false;
}
