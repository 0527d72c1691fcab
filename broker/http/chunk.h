/* chunk.h: the framing of a chunked body, byte by byte (RFC 9112 section 7.1).
 *
 * A machine that runs over the raw bytes in front of llhttp and refuses what llhttp would let
 * through: bare CR or LF anywhere in the framing, folded or malformed trailers, extensions and
 * trailers without end, a body above its maximum. It keeps numbers, no bytes. Its owner embeds it.
 *
 * May call: base, proto/err.h, proto/limits.h, http/strict.h. */
#ifndef HTTP_CHUNK_H
#define HTTP_CHUNK_H

#include "base/slice.h"
#include "proto/err.h"

enum chunk_state {
    CHUNK_SIZE_FIRST, /* at least one hex digit comes */
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER_FIRST, /* a trailer or the empty line that ends the body */
    CHUNK_TRAILER_NAME,
    CHUNK_TRAILER_VALUE,
    CHUNK_TRAILER_LF,
    CHUNK_LAST_LF,
    CHUNK_END,
};

struct chunk_scan {
    enum chunk_state state;
    uint64_t left;          /* of the size being read, then of the data still to come */
    uint64_t total;         /* data announced so far, this chunk included */
    uint64_t max;           /* of total */
    uint32_t digits_len;    /* of this chunk size */
    uint32_t extension_len; /* of this chunk-size line */
    uint32_t trailers_len;
    bool quoted, escaped; /* in the extension: within "...", behind a backslash in there */
};

void chunk_init(struct chunk_scan *c, uint64_t body_max_bytes);
/* Looks at the bytes up to the end of the body or of `in`, and stops right behind the ';' where an
 * extension begins and behind the CR where it ends. *used becomes how many are fine; the body is
 * complete when state is CHUNK_END. Anything but ERR_OK is final; *why says the reason. */
enum err chunk_feed(struct chunk_scan *c, struct slice in, size_t *used, const char **why);

#endif
