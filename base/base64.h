/* base64.h: the standard alphabet (RFC 4648 section 4) and hex, strictly.
 *
 * Pure; the caller owns every buffer. */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include "base/slice.h"

/* Characters that len bytes become, with padding; without a terminator. */
#define BASE64_LEN(len) (((len) + 2) / 3 * 4)

/* Writes BASE64_LEN(in.len) characters and a terminator to out, which must have that room. */
void base64_encode(struct slice in, char *out);
/* Decodes into out[size]. Padding may be absent or complete; blanks, other alphabets, partial
 * padding and non-zero trailing bits are refused. Returns the bytes written, or -1. */
long base64_decode(struct slice in, uint8_t *out, size_t size);

/* Writes 2 * in.len lower-case hex digits and a terminator to out. */
void hex_encode(struct slice in, char *out);

#endif
