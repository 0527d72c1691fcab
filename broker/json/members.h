/* members.h: the members of a JSON object that is known to be one.
 *
 * For text that was walked (walk.h) before it was taken in: user_metadata of journaled events,
 * which is asked for its members for each event when filters need them. Nothing is validated again,
 * which makes it several times faster than a walk. It never reads outside the text; of a text that
 * is no JSON it gives members that mean nothing, or none.
 *
 * Owns nothing; slices borrow from the text. May call: base. */
#ifndef JSON_MEMBERS_H
#define JSON_MEMBERS_H

#include "base/slice.h"

struct json_members {
    struct slice text;
    size_t at;
};

/* At the first member; of anything but an object there are none. */
void json_members_init(struct json_members *m, struct slice text);
/* The next member in the order of the text: its name as it is written, without the quotes, and its
 * value's text. False: there is none. */
bool json_members_next(struct json_members *m, struct slice *name, struct slice *value);

#endif
