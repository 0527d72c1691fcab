/* frame_read.h: reading msgpack bytes (msgpack.org's spec.md) without trusting them.
 *
 * Of the decoder alone; nobody else includes this. It is ours and not msgpack-c's because that
 * allocates an array by the length it claims: 20 bytes can ask for gigabytes. Here a frame is first
 * walked once (frame_read_check); after that every header in it is known to be whole, nothing is
 * nested deeper than FRAME_DEPTH_MAX, and no count is larger than the bytes that are there.
 *
 * struct fields then takes one array's elements in order. Its error sticks: a decoder asks for all
 * fields and looks once. It borrows the frame's bytes; so do the slices it returns.
 * May call: base, proto/err.h. */
#ifndef PROTO_FRAME_READ_H
#define PROTO_FRAME_READ_H

#include "base/slice.h"
#include "proto/err.h"

#define FRAME_DEPTH_MAX 8 /* arrays and maps within each other, the frame's own included */

struct fields {
    const uint8_t *at, *end;
    uint32_t left;   /* elements of the present array that were not read yet */
    enum err err;    /* the first thing that was wrong, 0 while all is well */
    const char *why; /* static text: which field */
};

/* Walks one msgpack value that must fill `body` exactly. False: *why says what is wrong. Refused:
 * ext types, the unused byte 0xc1, depth, lengths that pass the end, bytes after the value. */
bool frame_read_check(struct slice body, const char **why);

/* Reads op and rid of a frame that may be broken further on: what cannot be read stays 0. */
void frame_read_start(struct slice body, uint64_t *op, uint32_t *rid);

/* Notes the first error; returns false. */
bool fields_fail(struct fields *f, enum err err, const char *why);

/* need_: the field must be there. opt_: when it is nil or was left out, `missing` stands for it.
 * A wrong type or a number above max is ERR_BAD_FRAME with `why`; 0, false or empty returns. */
uint64_t need_uint(struct fields *f, uint64_t max, const char *why);
uint64_t opt_uint(struct fields *f, uint64_t missing, uint64_t max, const char *why);
bool opt_bool(struct fields *f, bool missing, const char *why);
/* A finite number, written as an integer or as a float. */
double opt_number(struct fields *f, double missing, const char *why);
/* str or bin. */
struct slice need_bytes(struct fields *f, const char *why);
struct slice opt_bytes(struct fields *f, const char *why);
/* Skips one field; harmless when there is none. */
void fields_skip(struct fields *f);

/* Whether the next field is there and an array, or a map: where more than one type will do. */
bool fields_is_array(const struct fields *f);
bool fields_is_map(const struct fields *f);

/* Goes into the array that is the next field: *outer keeps how many fields the outer one has left,
 * f->left becomes the count. False: it is nil or missing (when optional) or not an array. A map is
 * entered likewise, with two fields (key, value) for each of its pairs. After true, fields_leave
 * skips what was not read and goes back out. */
bool fields_enter_array(struct fields *f, bool optional, uint32_t *outer, const char *why);
bool fields_enter_map(struct fields *f, bool optional, uint32_t *outer, const char *why);
void fields_leave(struct fields *f, uint32_t outer);

/* Within a map: the next key. False at the end or after an error. Keys that are not text come as
 * an empty slice. The value must then be read or skipped. */
bool fields_key(struct fields *f, struct slice *key);

#endif
