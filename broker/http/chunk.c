#include "broker/http/chunk.h"

#include "broker/http/strict.h"
#include "proto/limits.h"

void chunk_init(struct chunk_scan *c, uint64_t body_max_bytes) {
    *c = (struct chunk_scan){.state = CHUNK_SIZE_FIRST, .max = body_max_bytes};
}

static int hex_value(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static enum err bad(const char *text, const char **why) {
    *why = text;
    return ERR_BAD_HTTP;
}

static enum err size_digit(struct chunk_scan *c, uint8_t byte, const char **why) {
    int digit = hex_value(byte);
    if (digit < 0) return bad("a chunk size is not a hexadecimal number", why);
    if (++c->digits_len > 16) return bad("a chunk size has more than 16 digits", why);
    c->state = CHUNK_SIZE;
    c->left = c->left * 16 + (uint64_t)digit;
    /* Held against the maximum at each digit, so left can never overflow. */
    if (c->left > c->max - c->total) {
        *why = "the body is larger than this server takes";
        return ERR_TOO_LARGE;
    }
    return ERR_OK;
}

static enum err size_byte(struct chunk_scan *c, uint8_t byte, const char **why) {
    if (byte == '\r') c->state = CHUNK_SIZE_LF;
    else if (byte == ';') c->state = CHUNK_EXTENSION;
    else return size_digit(c, byte, why);
    return ERR_OK;
}

static enum err extension_byte(struct chunk_scan *c, uint8_t byte, const char **why) {
    if (byte == '\r') {
        /* To a reader who heeds quotes this line has not ended. */
        if (c->quoted) return bad("a quoted chunk extension is not closed", why);
        c->state = CHUNK_SIZE_LF;
        return ERR_OK;
    }
    if (!strict_is_value_byte(byte)) return bad("a chunk extension has a control character", why);
    if (byte == '"' && !c->escaped) c->quoted = !c->quoted;
    c->escaped = c->quoted && !c->escaped && byte == '\\';
    if (++c->extension_len > LIMIT_HTTP_CHUNK_EXT_BYTES) {
        *why = "a chunk extension is longer than 256 bytes";
        return ERR_HEAD_TOO_LARGE;
    }
    return ERR_OK;
}

static enum err line_end(struct chunk_scan *c, uint8_t byte, const char **why) {
    if (byte != '\n') return bad("a CR without LF stands in the framing of the body", why);
    switch (c->state) {
    case CHUNK_SIZE_LF:
        c->total += c->left;
        c->digits_len = c->extension_len = 0;
        c->state = c->left == 0 ? CHUNK_TRAILER_FIRST : CHUNK_DATA;
        break;
    case CHUNK_DATA_LF: c->state = CHUNK_SIZE_FIRST; break;
    case CHUNK_TRAILER_LF: c->state = CHUNK_TRAILER_FIRST; break;
    case CHUNK_LAST_LF: c->state = CHUNK_END; break;
    default: UNREACHABLE("only states that wait for LF come here");
    }
    return ERR_OK;
}

static enum err trailer_byte(struct chunk_scan *c, uint8_t byte, const char **why) {
    if (++c->trailers_len > LIMIT_HTTP_HEAD_BYTES) {
        *why = "the trailers are longer than 16 KiB";
        return ERR_HEAD_TOO_LARGE;
    }
    if (c->state == CHUNK_TRAILER_VALUE) {
        if (byte == '\r') c->state = CHUNK_TRAILER_LF;
        else if (!strict_is_value_byte(byte)) {
            return bad("a trailer value has a control character", why);
        }
        return ERR_OK;
    }
    if (c->state == CHUNK_TRAILER_FIRST && byte == '\r') c->state = CHUNK_LAST_LF;
    else if (strict_is_token_byte(byte)) c->state = CHUNK_TRAILER_NAME;
    else if (c->state == CHUNK_TRAILER_NAME && byte == ':') c->state = CHUNK_TRAILER_VALUE;
    else return bad("a trailer name is empty, folded, not a token, or has no colon", why);
    return ERR_OK;
}

static enum err step(struct chunk_scan *c, uint8_t byte, const char **why) {
    switch (c->state) {
    case CHUNK_SIZE_FIRST: return size_digit(c, byte, why);
    case CHUNK_SIZE: return size_byte(c, byte, why);
    case CHUNK_EXTENSION: return extension_byte(c, byte, why);
    case CHUNK_DATA_CR:
        if (byte != '\r') return bad("the data of a chunk does not end where its size says", why);
        c->state = CHUNK_DATA_LF;
        return ERR_OK;
    case CHUNK_SIZE_LF:
    case CHUNK_DATA_LF:
    case CHUNK_TRAILER_LF:
    case CHUNK_LAST_LF: return line_end(c, byte, why);
    case CHUNK_TRAILER_FIRST:
    case CHUNK_TRAILER_NAME:
    case CHUNK_TRAILER_VALUE: return trailer_byte(c, byte, why);
    case CHUNK_DATA:
    case CHUNK_END: break;
    }
    UNREACHABLE("data is skipped and the end is not fed");
}

enum err chunk_feed(struct chunk_scan *c, struct slice in, size_t *used, const char **why) {
    size_t at = 0;
    enum err err = ERR_OK;
    bool in_extension = c->state == CHUNK_EXTENSION;
    while (at < in.len && c->state != CHUNK_END) {
        if (in_extension != (c->state == CHUNK_EXTENSION)) break;
        if (c->state == CHUNK_DATA) {
            size_t n = in.len - at < c->left ? in.len - at : (size_t)c->left;
            at += n;
            c->left -= n;
            if (c->left == 0) c->state = CHUNK_DATA_CR;
            continue;
        }
        err = step(c, in.data[at], why);
        if (err != ERR_OK) break;
        at++;
    }
    *used = at;
    return err;
}
