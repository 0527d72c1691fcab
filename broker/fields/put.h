/* put.h: JSON written field by field into a struct buf.
 *
 * A put_ function appends `"name":value` with a comma where one is due; the buffer must be inside
 * an object (put_comma: or an array). The caller owns every buffer, and looks at its `overflow`
 * once at the end. May call: base. */
#ifndef FIELDS_PUT_H
#define FIELDS_PUT_H

#include "base/buf.h"

/* A comma, unless the object or array has just been opened. */
void put_comma(struct buf *b);
void put_key(struct buf *b, const char *name);
void put_text(struct buf *b, const char *name, struct slice value);
void put_text_unless_empty(struct buf *b, const char *name, struct slice value);
void put_u64(struct buf *b, const char *name, uint64_t value);
void put_bool(struct buf *b, const char *name, bool value);
/* With `digits` (0 to 9) behind the point; a value that JSON cannot say is 0. */
void put_real(struct buf *b, const char *name, double value, int digits);
/* A number of thousandths, without zeros at its end: 1500 is 1.5. */
void put_permille(struct buf *b, const char *name, uint32_t permille);
void put_time(struct buf *b, const char *name, uint64_t wall_ms);
/* `"name":{`, to be closed with put_close. */
void put_open(struct buf *b, const char *name);
void put_close(struct buf *b);

#endif
