/* How the text of a value is found: libyajl tells where a token ends (bytes consumed) but not where
 * it began. Between two tokens that it reports there are only blanks, commas and colons, so a token
 * begins at the first other byte after the end of the one before.
 *
 * A number at the very end of the text is the exception: it could go on, so libyajl reports it only
 * when it is told that the text is over, and then it counts the bytes of its own last blank. Such a
 * token ends where the text ends. */
#include "broker/json/walk.h"

#include <stdio.h>
#include <stdlib.h>
#include <yajl/yajl_parse.h>

/* libyajl asks for its handle, lexer and state stack (below 1 KiB) for every text, and for a
 * decoding buffer of 2 KiB for the first escape; what does not fit here comes from the heap. */
#define SCRATCH_BYTES 4096

struct scratch {
    size_t used;
    _Alignas(16) uint8_t bytes[SCRATCH_BYTES];
};

/* Precedes every block, so that realloc knows how much there is to copy. */
struct block {
    _Alignas(16) size_t len;
};

struct walk {
    struct slice text;
    size_t max_depth;
    json_visit_fn *visit;
    void *visit_ctx;
    yajl_handle parser;
    size_t end;     /* of the last token reported */
    size_t open;    /* arrays and objects that are open now */
    bool finishing; /* the text is over: see above */
    bool stopped;   /* by the visitor */
    bool too_deep;
    struct {
        size_t start; /* of its text */
        size_t count; /* values in it so far */
    } levels[JSON_WALK_DEPTH + 1];
    struct json_value value; /* its path is kept up to date */
};

static bool in_scratch(const struct scratch *s, const void *p) {
    return (const uint8_t *)p >= s->bytes && (const uint8_t *)p < s->bytes + SCRATCH_BYTES;
}

static void *scratch_malloc(void *ctx, size_t len) {
    struct scratch *s = ctx;
    size_t need = sizeof(struct block) + (len + 15) / 16 * 16;
    struct block *b;
    if (need <= SCRATCH_BYTES - s->used) {
        b = (struct block *)(void *)(s->bytes + s->used);
        s->used += need;
    } else {
        b = mem_alloc(need);
    }
    b->len = len;
    return b + 1;
}

static void scratch_free(void *ctx, void *p) {
    if (p != NULL && !in_scratch(ctx, p)) free((struct block *)p - 1);
}

static void *scratch_realloc(void *ctx, void *p, size_t len) {
    void *fresh = scratch_malloc(ctx, len);
    if (p == NULL) return fresh;
    size_t old_len = ((struct block *)p - 1)->len;
    memcpy(fresh, p, old_len < len ? old_len : len);
    scratch_free(ctx, p);
    return fresh;
}

/* What stands between two tokens. */
static const bool between[256] = {
    [' '] = true, ['\t'] = true, ['\n'] = true, ['\r'] = true, [','] = true, [':'] = true};

/* Where the token that was just reported begins; moves on behind it. */
static size_t take_token(struct walk *w) {
    size_t start = w->end;
    while (start < w->text.len && between[w->text.data[start]]) start++;
    w->end = w->finishing ? w->text.len : yajl_get_bytes_consumed(w->parser);
    CHECK(w->end > start && w->end <= w->text.len);
    return start;
}

/* A value of depth w->open is complete; it began at start. */
static int tell(struct walk *w, enum json_is type, size_t start) {
    size_t depth = w->open;
    if (depth > w->max_depth) return 1;
    w->value.type = type;
    w->value.depth = depth;
    w->value.index = depth == 0 ? 0 : w->levels[depth - 1].count++;
    w->value.raw = slice_of(w->text.data + start, w->end - start);
    if (w->visit(w->visit_ctx, &w->value)) return 1;
    w->stopped = true;
    return 0;
}

static int on_null(void *ctx) {
    return tell(ctx, JSON_IS_NULL, take_token(ctx));
}

static int on_boolean(void *ctx, int is_true) {
    (void)is_true;
    return tell(ctx, JSON_IS_BOOL, take_token(ctx));
}

static int on_number(void *ctx, const char *digits, size_t len) {
    (void)digits;
    (void)len;
    return tell(ctx, JSON_IS_NUMBER, take_token(ctx));
}

static int on_string(void *ctx, const unsigned char *decoded, size_t len) {
    (void)decoded;
    (void)len;
    return tell(ctx, JSON_IS_STRING, take_token(ctx));
}

static int on_key(void *ctx, const unsigned char *decoded, size_t len) {
    (void)decoded;
    (void)len;
    struct walk *w = ctx;
    size_t start = take_token(w);
    if (w->open <= JSON_WALK_DEPTH) {
        w->value.path[w->open - 1] = slice_of(w->text.data + start + 1, w->end - start - 2);
    }
    return 1;
}

static int on_open(void *ctx) {
    struct walk *w = ctx;
    size_t start = take_token(w);
    if (w->open == JSON_NESTING_MAX) {
        w->too_deep = true;
        return 0;
    }
    if (w->open <= JSON_WALK_DEPTH) {
        w->levels[w->open].start = start;
        w->levels[w->open].count = 0;
    }
    /* What an array's elements have; an object's first key comes before its first value. */
    if (w->open < JSON_WALK_DEPTH) w->value.path[w->open] = slice_of(NULL, 0);
    w->open++;
    return 1;
}

static int close_as(struct walk *w, enum json_is type) {
    take_token(w);
    w->open--;
    if (w->open > w->max_depth) return 1;
    return tell(w, type, w->levels[w->open].start);
}

static int on_object_end(void *ctx) {
    return close_as(ctx, JSON_IS_OBJECT);
}

static int on_array_end(void *ctx) {
    return close_as(ctx, JSON_IS_ARRAY);
}

static const yajl_callbacks callbacks = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_open,
    .yajl_map_key = on_key,
    .yajl_end_map = on_object_end,
    .yajl_start_array = on_open,
    .yajl_end_array = on_array_end,
};

/* Fills in line and column of the byte at `at`; columns count characters. */
static void set_place(struct json_error *error, struct slice text, size_t at) {
    error->line = error->column = 1;
    for (size_t i = 0; i < at && i < text.len; i++) {
        if (text.data[i] == '\n') {
            error->line++;
            error->column = 1;
        } else if ((text.data[i] & 0xC0) != 0x80) {
            error->column++;
        }
    }
}

/* libyajl's words for what is wrong, without the line end that it appends. */
static void set_message(struct json_error *error, yajl_handle parser) {
    unsigned char *text = yajl_get_error(parser, 0, NULL, 0);
    snprintf(error->message, sizeof error->message, "%s", (const char *)text);
    yajl_free_error(parser, text);
    error->message[strcspn(error->message, "\n")] = '\0';
}

static void explain(struct walk *w, struct json_error *error) {
    size_t at = yajl_get_bytes_consumed(w->parser);
    if (w->finishing) at = w->text.len;
    else if (at > 0) at--; /* as a rule it has read past the byte that it did not like */
    set_place(error, w->text, at);
    if (w->too_deep) {
        snprintf(error->message, sizeof error->message, "nested deeper than %d levels",
                 JSON_NESTING_MAX);
    } else {
        set_message(error, w->parser);
    }
}

/* The first byte after the last token that is no blank; text.len: there is none. */
static size_t rest_at(const struct walk *w) {
    size_t at = w->end;
    while (at < w->text.len && memchr(" \t\r\n", w->text.data[at], 4) != NULL) at++;
    return at;
}

/* Fills in *error (may be NULL) and returns false. */
static bool fail(struct json_error *error, struct slice text, size_t at, const char *message) {
    if (error == NULL) return false;
    set_place(error, text, at);
    snprintf(error->message, sizeof error->message, "%s", message);
    return false;
}

/* What libyajl is too kind to: overlong UTF-8 and surrogates, and vertical tabs and form feeds as
 * blanks (in a string no control character may stand, so they may stand nowhere). */
static bool bytes_ok(struct slice text, struct json_error *error) {
    size_t bad = json_utf8_error(text);
    if (bad < text.len) return fail(error, text, bad, "the text is not UTF-8");
    for (int c = '\v'; c <= '\f' && text.len > 0; c++) {
        const uint8_t *at = memchr(text.data, c, text.len);
        if (at != NULL) return fail(error, text, (size_t)(at - text.data), "a control character");
    }
    return true;
}

bool json_walk(struct slice text, size_t max_depth, json_visit_fn *visit, void *ctx,
               struct json_error *error) {
    CHECK(max_depth <= JSON_WALK_DEPTH);
    if (!bytes_ok(text, error)) return false;

    struct scratch scratch;
    scratch.used = 0;
    yajl_alloc_funcs memory = {scratch_malloc, scratch_realloc, scratch_free, &scratch};
    struct walk w = {.text = text, .max_depth = max_depth, .visit = visit, .visit_ctx = ctx};
    w.parser = yajl_alloc(&callbacks, &memory, &w);
    CHECK(w.parser != NULL);
    /* bytes_ok has verified UTF-8 better than its own check would. */
    yajl_config(w.parser, yajl_dont_validate_strings, 1);

    yajl_status status = yajl_parse(w.parser, text.data, text.len);
    if (status == yajl_status_ok) {
        w.finishing = true;
        status = yajl_complete_parse(w.parser);
    }
    bool ok = status == yajl_status_ok || w.stopped;
    if (!ok && error != NULL) explain(&w, error);
    /* libyajl takes a string that begins after the value and never ends for no token at all. */
    if (ok && !w.stopped && rest_at(&w) < text.len) {
        ok = fail(error, text, rest_at(&w), "text after the end of the value");
    }
    yajl_free(w.parser);
    return ok;
}
