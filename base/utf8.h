/* utf8.h: which bytes are well-formed UTF-8 (Unicode 15, table 3-7). Pure. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length of the well-formed sequence that s[0..len) begins with, 1 to 4; 0 when it begins with none
 * (len must be at least 1). Overlong forms, surrogates and numbers beyond U+10FFFF are none. */
size_t utf8_sequence(const uint8_t *s, size_t len);

#endif
