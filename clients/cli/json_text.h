/* json_text.h: looks into JSON text without building a tree.
 *
 * The broker shows the bodies of events as they came in, with numbers that no C type holds and
 * blanks that nobody else removed. Walking the text keeps them exact: what --json prints is what
 * the broker said, on one line. The text was made by the broker; text that is not JSON makes the
 * functions return false, never read outside it.
 *
 * Slices borrow the text. May call: base, jansson. */
#ifndef CLI_JSON_TEXT_H
#define CLI_JSON_TEXT_H

#include <stdio.h>

#include "base/slice.h"

struct json_walk {
    struct slice text;
    size_t at;
    bool object;
};

/* Begins to walk the members of an object or array; false: it is neither. */
bool json_walk_open(struct json_walk *w, struct slice value);
/* The next member; `key` (with its quotes; empty in an array) and `value` are slices of the text.
 * False: there is none. */
bool json_walk_next(struct json_walk *w, struct slice *key, struct slice *value);

/* The value at a path of plain keys such as "journal.last_seq". */
bool json_find(struct slice value, const char *path, struct slice *out);
/* What the value at the path says, for people: a string without quotes and escapes, anything else
 * as its text on one line, "" when there is none. The caller frees. */
char *json_show(struct slice value, const char *path);
/* The number at the path, or `otherwise`. */
uint64_t json_number(struct slice value, const char *path, uint64_t otherwise);

/* Writes the value without blanks and line ends between its parts. */
void json_write(FILE *out, struct slice value);

/* Whether the text is one JSON value; `object`: whether it must be an object. On false, `why`
 * says what is wrong and where; the text begins in line number `line` of its input. */
bool json_valid(struct slice text, bool object, uint64_t line, char *why, size_t why_size);

#endif
