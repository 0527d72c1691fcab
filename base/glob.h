/* glob.h: patterns over dotted names such as event types.
 *
 * `*` stands for any run of characters, also an empty one and also across dots: `batch.*` matches
 * `batch.succeeded` and `batch.item.done`, `*` matches everything. Every other character stands
 * for itself. Pure; linear in text times stars, without recursion. */
#ifndef BASE_GLOB_H
#define BASE_GLOB_H

#include "base/slice.h"

bool glob_match(struct slice pattern, struct slice text);

#endif
