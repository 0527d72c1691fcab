/* Schemes that are an HMAC in a header, by rule. */
#include <openssl/crypto.h>
#include <stdio.h>

#include "base/base64.h"
#include "broker/ingest/scheme.h"
#include "broker/signature/standard_webhooks.h"

static const char *const pieces[] = {"{id}", "{timestamp}", "{body}"};
enum { PIECE_ID, PIECE_TIMESTAMP, PIECE_BODY, PIECES };

/* ---- templates of signed bytes ---- */

/* The piece that the text begins with, or PIECES. */
static size_t piece_at(const char *text) {
    size_t i = 0;
    while (i < PIECES && strncmp(text, pieces[i], strlen(pieces[i])) != 0) i++;
    return i;
}

bool scheme_template_has(const char *text, const char *piece) {
    return strstr(text, piece) != NULL;
}

bool scheme_template_ok(const char *text, const char **why) {
    unsigned seen[PIECES] = {0};
    size_t before = PIECES; /* the piece that ended right here */
    for (const char *at = text; *at != '\0';) {
        size_t piece = piece_at(at);
        if (piece == PIECES) {
            if (*at == '{' || *at == '}') {
                *why = "may hold {id}, {timestamp} and {body}, and no other brace";
                return false;
            }
            before = PIECES;
            at++;
            continue;
        }
        /* Where an id ends must be told by a byte that no id has. */
        if (before != PIECES && (before == PIECE_ID || piece == PIECE_ID)) {
            *why = "needs a separator beside {id}";
            return false;
        }
        if (seen[piece]++ > 0) {
            *why = "has a piece twice";
            return false;
        }
        before = piece;
        at += strlen(pieces[piece]);
    }
    if (seen[PIECE_BODY] == 1) return true;
    *why = "must hold {body}: what is not signed can be changed by anybody";
    return false;
}

/* What stands between the pieces, which no id may hold: out[SOURCE_TEMPLATE_BYTES + 1]. */
static void separators_of(const char *text, char out[SOURCE_TEMPLATE_BYTES + 1]) {
    size_t len = 0;
    while (*text != '\0' && len < SOURCE_TEMPLATE_BYTES) {
        size_t piece = piece_at(text);
        if (piece == PIECES) out[len++] = *text++;
        else text += strlen(pieces[piece]);
    }
    out[len] = '\0';
}

struct hmac_rule scheme_rule_of(const struct source_options *o) {
    struct hmac_rule rule = {
        .signature = o->signature_header,
        .id = o->id_header[0] == '\0' ? NULL : o->id_header,
        .timestamp = o->timestamp_header[0] == '\0' ? NULL : o->timestamp_header,
        .prefix = o->signature_prefix,
        .signed_bytes = o->signed_bytes[0] == '\0' ? "{body}" : o->signed_bytes,
    };
    if (strcmp(o->algorithm, "sha1") == 0) rule.digest = HMAC_SHA1;
    if (strcmp(o->algorithm, "sha512") == 0) rule.digest = HMAC_SHA512;
    if (strcmp(o->encoding, "base64") == 0) rule.encoding = ENCODING_BASE64;
    return rule;
}

/* ---- one request ---- */

/* What its headers say. */
struct shown {
    struct slice id, timestamp;
    uint64_t timestamp_s;
    bool has_time;
    uint8_t signatures[LIMIT_SIGNATURES][HMAC_BYTES_MAX];
    size_t count;
};

static int hex_value(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Exactly `bytes` of them. */
static bool decode(const struct hmac_rule *rule, struct slice text, uint8_t out[HMAC_BYTES_MAX],
                   size_t bytes) {
    uint8_t decoded[HMAC_BYTES_MAX + 1];
    if (rule->encoding == ENCODING_BASE64) {
        if (base64_decode(text, decoded, bytes + 1) != (long)bytes) return false;
        memcpy(out, decoded, bytes);
        return true;
    }
    if (text.len != 2 * bytes) return false;
    for (size_t i = 0; i < bytes; i++) {
        int high = hex_value(text.data[2 * i]), low = hex_value(text.data[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        out[i] = (uint8_t)(high * 16 + low);
    }
    return true;
}

static enum err refuse_signature(struct verification *v, const struct hmac_rule *rule) {
    bool hex = rule->encoding == ENCODING_HEX;
    return verification_refuse(
        v, ERR_SIGNATURE_MALFORMED, "%s is not %s%s%s%s and the %s of %zu bytes", rule->signature,
        rule->list == LIST_PAIRS ? "t=TIME," : "", rule->prefix,
        rule->list == LIST_PAIRS ? "=" : "", rule->prefix[0] == '\0' ? "plain" : "",
        hex ? "hex" : "base64", hmac_bytes(rule->digest));
}

static enum err take_time(struct verification *v, const char *what, struct slice text,
                          struct shown *claim) {
    claim->timestamp = text;
    claim->has_time = true;
    if (slice_to_u64(text, &claim->timestamp_s)) return ERR_OK;
    return verification_refuse(v, ERR_SIGNATURE_MALFORMED,
                               "%s is not a whole number of seconds since 1970", what);
}

/* "t=TIME,v1=SIGNATURE,...": pairs of other names are skipped; one without '=' is no pair. */
static enum err read_pairs(struct verification *v, const struct hmac_rule *rule,
                           struct slice header, struct shown *claim) {
    size_t bytes = hmac_bytes(rule->digest), seen = 0, times = 0;
    while (header.len > 0) {
        const uint8_t *comma = memchr(header.data, ',', header.len);
        size_t len = comma == NULL ? header.len : (size_t)(comma - header.data);
        struct slice pair = slice_of(header.data, len);
        header = slice_from(header, comma == NULL ? len : len + 1);
        const uint8_t *equals = memchr(pair.data, '=', pair.len);
        if (equals == NULL) return refuse_signature(v, rule);
        struct slice name = slice_of(pair.data, (size_t)(equals - pair.data));
        struct slice value = slice_from(pair, name.len + 1);
        if (slice_eq_str(name, "t")) {
            if (times++ > 0) return refuse_signature(v, rule);
            enum err err = take_time(v, "t of the signature", value, claim);
            if (err != ERR_OK) return err;
        } else if (slice_eq_str(name, rule->prefix) && seen++ < LIMIT_SIGNATURES) {
            if (decode(rule, value, claim->signatures[claim->count], bytes)) claim->count++;
        }
    }
    return times == 1 && claim->count > 0 ? ERR_OK : refuse_signature(v, rule);
}

static enum err read_claim(struct verification *v, const struct hmac_rule *rule,
                           struct shown *claim) {
    struct slice header;
    enum err err = verification_header(v, rule->signature, &header);
    if (err != ERR_OK) return err;
    if (rule->list == LIST_PAIRS) return read_pairs(v, rule, header, claim);
    if (scheme_template_has(rule->signed_bytes, pieces[PIECE_TIMESTAMP])) {
        struct slice text;
        if ((err = verification_header(v, rule->timestamp, &text)) != ERR_OK) return err;
        if ((err = take_time(v, rule->timestamp, text, claim)) != ERR_OK) return err;
    }
    if (scheme_template_has(rule->signed_bytes, pieces[PIECE_ID])) {
        char separators[SOURCE_TEMPLATE_BYTES + 1];
        if ((err = verification_header(v, rule->id, &claim->id)) != ERR_OK) return err;
        separators_of(rule->signed_bytes, separators);
        if (!webhook_id_ok(claim->id, separators)) {
            return verification_refuse(v, ERR_SIGNATURE_MALFORMED,
                                       "%s holds a separator of the signed bytes, a control "
                                       "character, more than 256 bytes, or is not UTF-8",
                                       rule->id);
        }
    }
    if (!slice_starts_with(header, rule->prefix)) return refuse_signature(v, rule);
    if (!decode(rule, slice_from(header, strlen(rule->prefix)), claim->signatures[0],
                hmac_bytes(rule->digest))) {
        return refuse_signature(v, rule);
    }
    claim->count = 1;
    return ERR_OK;
}

static void mac(struct hmac *h, const struct hmac_rule *rule, const struct shown *claim,
                struct slice body, uint8_t out[HMAC_BYTES_MAX]) {
    const struct slice values[PIECES] = {claim->id, claim->timestamp, body};
    const char *at = rule->signed_bytes;
    hmac_again(h);
    while (*at != '\0') {
        size_t piece = piece_at(at), len = 0;
        if (piece < PIECES) {
            hmac_add(h, values[piece]);
            at += strlen(pieces[piece]);
            continue;
        }
        while (at[len] != '\0' && piece_at(at + len) == PIECES) len++;
        hmac_add(h, slice_of(at, len));
        at += len;
    }
    hmac_end(h, out);
}

enum err scheme_verify_hmac(struct verification *v) {
    struct source *s = v->source;
    struct hmac_rule own;
    struct shown claim = {.count = 0};
    const struct hmac_rule *rule = s->scheme->rule;
    uint8_t expected[HMAC_BYTES_MAX];
    bool match = false;
    if (rule == NULL) {
        own = scheme_rule_of(&s->options);
        rule = &own;
    }
    enum err err = read_claim(v, rule, &claim);
    if (err != ERR_OK) return err;
    for (size_t i = 0; i < s->secrets_count && !match; i++) {
        struct source_secret *secret = &s->secrets[i];
        struct hmac *h = source_secret_hmac(secret, rule->digest, slice_str(secret->text));
        mac(h, rule, &claim, v->request->body, expected);
        for (size_t j = 0; j < claim.count; j++) {
            match |= CRYPTO_memcmp(expected, claim.signatures[j], hmac_bytes(rule->digest)) == 0;
        }
        if (match) verification_by_secret(v, "", i);
    }
    OPENSSL_cleanse(expected, sizeof expected);
    if (!match) {
        return verification_refuse(v, ERR_SIGNATURE_MISMATCH,
                                   "%s was not made with a secret of this source over these bytes",
                                   rule->signature);
    }
    v->id = claim.id;
    v->signed_time = claim.timestamp;
    if (!claim.has_time) return ERR_OK;
    return verification_time(v, rule->list == LIST_PAIRS ? "t of the signature" : rule->timestamp,
                             claim.timestamp_s);
}
