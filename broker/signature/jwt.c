#include "broker/signature/jwt.h"

#include "broker/json/walk.h"

static bool cut_part(struct slice *rest, struct slice *part) {
    const uint8_t *dot = rest->len == 0 ? NULL : memchr(rest->data, '.', rest->len);
    if (dot == NULL) return false;
    *part = slice_of(rest->data, (size_t)(dot - rest->data));
    *rest = slice_from(*rest, part->len + 1);
    return true;
}

static bool is_base64url(struct slice s) {
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.data[i], letter = c | 0x20;
        if (!(letter >= 'a' && letter <= 'z') && !(c >= '0' && c <= '9') && c != '-' && c != '_') {
            return false;
        }
    }
    return s.len > 0;
}

bool jwt_looks_so(struct slice token) {
    struct slice header, claims;
    return cut_part(&token, &header) && cut_part(&token, &claims) && is_base64url(header) &&
           is_base64url(claims) && is_base64url(token);
}

struct reading {
    struct jwt *out;
    const char *audience;
    const char *why; /* NULL: nothing is wrong so far */
};

static void take_text(struct reading *r, const struct json_value *v, char *out, size_t size) {
    if (json_string_decode(v->raw, out, size) < 0) r->why = "has a member of another form";
}

static bool take_header(void *ctx, const struct json_value *v) {
    struct reading *r = ctx;
    if (v->depth != 1) return true;
    if (slice_eq_str(v->path[0], "alg")) take_text(r, v, r->out->alg, sizeof r->out->alg);
    if (slice_eq_str(v->path[0], "kid")) take_text(r, v, r->out->kid, sizeof r->out->kid);
    if (slice_eq_str(v->path[0], "crit")) r->why = "has a header `crit`";
    return r->why == NULL;
}

/* NumericDate: its fraction does not matter. */
static void take_date(struct reading *r, const struct json_value *v, uint64_t *out) {
    const uint8_t *point = memchr(v->raw.data, '.', v->raw.len);
    struct slice whole = v->raw;
    if (point != NULL) whole.len = (size_t)(point - v->raw.data);
    if (!slice_to_u64(whole, out) || *out == 0 || *out > UINT32_MAX * 64ULL) {
        r->why = "has a date that is no number of seconds since 1970";
    }
}

static void take_audience(struct reading *r, const struct json_value *v) {
    char text[512];
    if (json_string_decode(v->raw, text, sizeof text) < 0 || r->audience[0] == '\0') return;
    if (strcmp(text, r->audience) == 0) r->out->audience_fits = true;
}

static bool take_claim(void *ctx, const struct json_value *v) {
    struct reading *r = ctx;
    struct jwt *out = r->out;
    if (v->depth == 0 && v->type != JSON_IS_OBJECT) r->why = "has claims that are no object";
    if (v->depth == 0) return true;
    struct slice name = v->path[0];
    if (slice_eq_str(name, "aud")) take_audience(r, v);
    if (v->depth != 1) return true;
    if (slice_eq_str(name, "exp")) take_date(r, v, &out->exp);
    if (slice_eq_str(name, "nbf")) take_date(r, v, &out->nbf);
    if (slice_eq_str(name, "iat")) take_date(r, v, &out->iat);
    if (slice_eq_str(name, "jti")) take_text(r, v, out->jti, sizeof out->jti);
    if (slice_eq_str(name, "body_sha256")) {
        take_text(r, v, out->body_sha256, sizeof out->body_sha256);
    }
    return r->why == NULL;
}

static bool read_part(struct slice part, json_visit_fn *take, size_t depth, struct reading *r) {
    uint8_t text[JWT_PART_BYTES];
    long len = base64url_decode(part, text, sizeof text);
    if (len < 0) {
        r->why = "is not base64url";
    } else if (!json_walk(slice_of(text, (size_t)len), depth, take, r, NULL) && r->why == NULL) {
        r->why = "holds no JSON";
    }
    return r->why == NULL;
}

bool jwt_read(struct slice token, const char *audience, struct jwt *out, const char **why) {
    struct reading r = {.out = out, .audience = audience};
    struct slice rest = token, header, claims;
    *out = (struct jwt){.exp = 0};
    if (!cut_part(&rest, &header) || !cut_part(&rest, &claims)) {
        *why = "does not have three parts";
        return false;
    }
    long len = base64url_decode(rest, out->signature, sizeof out->signature);
    if (len <= 0) r.why = "has no signature in base64url";
    out->signature_len = len > 0 ? (size_t)len : 0;
    out->signed_part = slice_of(token.data, token.len - rest.len - 1);
    bool good = r.why == NULL && read_part(header, take_header, 1, &r) &&
                read_part(claims, take_claim, 2, &r);
    *why = r.why;
    return good;
}
