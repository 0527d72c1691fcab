/* walk.h: looks into a JSON text without building a tree.
 *
 * One pass of libyajl (RFC 8259, UTF-8 verified) over a whole text. The visitor is told each value
 * down to a depth, when it is complete, as the slice of the text that it is: what is passed on or
 * stored keeps the sender's very bytes, numbers and all. Nothing is allocated per value but a small
 * stack; depth is bounded.
 *
 * Owns nothing after return; slices borrow from the text. May call: base, libyajl (its only user).
 */
#ifndef JSON_WALK_H
#define JSON_WALK_H

#include "base/check.h"
#include "base/slice.h"

enum json_is {
    JSON_IS_NULL,
    JSON_IS_BOOL,
    JSON_IS_NUMBER,
    JSON_IS_STRING,
    JSON_IS_ARRAY,
    JSON_IS_OBJECT
};

#define JSON_WALK_DEPTH  4  /* deepest level that a visitor can ask for */
#define JSON_NESTING_MAX 64 /* a deeper text is refused */

struct json_value {
    enum json_is type;
    /* Where it is: keys from the root; path[i] is the raw key without quotes (escapes are not
     * undone), or an empty slice with data NULL for an array's element. */
    struct slice path[JSON_WALK_DEPTH];
    size_t depth;     /* 0: the whole text's value */
    size_t index;     /* its number within its array or object, from 0 */
    struct slice raw; /* its text, quotes and brackets included */
};

/* Returns false to stop the walk early, which is no error. */
typedef bool json_visit_fn(void *ctx, const struct json_value *value);

struct json_error {
    size_t line, column; /* from 1 */
    char message[160];   /* what is wrong, without the place */
};

/* Walks one JSON text; the visitor sees values of depth 0 .. max_depth, children before parents.
 * False: it is not JSON (or nested too deep), *error (may be NULL) says what and where; the
 * visitor may have seen values before. */
bool json_walk(struct slice text, size_t max_depth, json_visit_fn *visit, void *ctx,
               struct json_error *error);

/* Decodes a raw JSON string (with quotes) into out[size] with a terminator. Returns its length, or
 * -1: not a string, does not fit, or holds U+0000. A lone surrogate becomes U+FFFD. */
long json_string_decode(struct slice raw, char *out, size_t size);

/* The first byte that is not part of well-formed UTF-8 (Unicode 15, table 3-7); text.len: all is.
 */
size_t json_utf8_error(struct slice text);

#endif
