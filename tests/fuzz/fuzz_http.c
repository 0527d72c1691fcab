/* The HTTP parser: the same bytes, whole and in random pieces, must give the same events, and what
 * is accepted must keep the promises that the rest of the server relies on.
 *
 * The input's first byte seeds the splits; the rest is what a client sends. */
#include <stdlib.h>

#include "base/prng.h"
#include "broker/http/parser.h"

#define BODY_MAX_BYTES 4096

static void note(struct buf *trace, const char *what, struct slice bytes) {
    CHECK(buf_printf(trace, "%s %zu:", what, bytes.len));
    CHECK(buf_append_slice(trace, bytes));
    CHECK(buf_append_byte(trace, '\n'));
}

static void note_request(struct buf *trace, const struct http_parser *p, const char *what) {
    const struct http_request *r = &p->request;
    CHECK(r->method.len > 0 && r->path.len > 0 && r->path.data[0] == '/');
    CHECK(r->headers_count <= LIMIT_HTTP_HEADERS && r->body.len <= BODY_MAX_BYTES);
    CHECK(memchr(r->path.data, '\n', r->path.len) == NULL);
    note(trace, what, r->method);
    note(trace, "path", r->path);
    note(trace, "query", r->query);
    for (size_t i = 0; i < r->headers_count; i++) {
        CHECK(r->headers[i].name.len > 0);
        note(trace, "name", r->headers[i].name);
        note(trace, "value", r->headers[i].value);
    }
    note(trace, p->keep_alive ? "keep" : "close", r->body);
}

/* Feeds one piece, as often as the parser asks for it. False: it was refused. */
static bool feed_piece(struct http_parser *p, struct slice piece, struct buf *trace) {
    for (;;) {
        size_t used;
        enum http_step step = http_parser_feed(p, piece, &used);
        CHECK(used <= piece.len);
        piece = slice_from(piece, used);
        switch (step) {
        case STEP_MORE: CHECK(piece.len == 0); return true;
        case STEP_HEAD: note_request(trace, p, "head"); break;
        case STEP_REQUEST:
            note_request(trace, p, "request");
            http_parser_reset(p);
            if (piece.len == 0) return true;
            break;
        case STEP_REFUSED:
            CHECK(p->err != ERR_OK && p->message != NULL);
            note(trace, err_info((int)p->err).word, slice_str(p->message));
            return false;
        }
    }
}

static void run(struct slice in, struct prng *splits, struct buf *trace) {
    struct http_parser *p = mem_alloc(sizeof *p);
    bool going = true;
    http_parser_init(p, BODY_MAX_BYTES);
    while (in.len > 0 && going) {
        size_t n = in.len;
        if (splits != NULL && prng_below(splits, 8) != 0) n = 1 + (size_t)prng_below(splits, 16);
        if (n > in.len) n = in.len;
        /* A copy of its own, so that a read past the piece is seen. */
        uint8_t *piece = mem_alloc(n);
        memcpy(piece, in.data, n);
        going = feed_piece(p, slice_of(piece, n), trace);
        free(piece);
        in = slice_from(in, n);
    }
    http_parser_free(p);
    free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct prng splits;
    struct buf whole, split;
    if (size < 2) return 0;
    prng_seed(&splits, data[0]);
    buf_init(&whole, (size_t)64 * MIB);
    buf_init(&split, (size_t)64 * MIB);
    run(slice_of(data + 1, size - 1), NULL, &whole);
    run(slice_of(data + 1, size - 1), &splits, &split);
    CHECK(slice_eq(buf_slice(&whole), buf_slice(&split)));
    buf_free(&whole);
    buf_free(&split);
    return 0;
}
