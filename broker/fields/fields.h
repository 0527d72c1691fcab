/* fields.h: reading a JSON object that somebody sent, strictly, and why it is refused.
 *
 * A field that is not in the list of known ones is refused by name; a value of the wrong type or
 * outside its bounds is refused with its place ("secrets[2]"). An absent field leaves the output
 * alone. Slices point into the tree (or, where it says so, into the text) and die with fields_free
 * (with the text). The caller owns a struct fields from fields_parse to fields_free.
 *
 * May call: engine.h (name_ok), json, base, jansson. */
#ifndef FIELDS_FIELDS_H
#define FIELDS_FIELDS_H

#include <jansson.h>

#include "base/arena.h"
#include "base/check.h"
#include "base/slice.h"
#include "proto/err.h"

/* Why a request is refused. */
struct refusal {
    enum err err;
    char message[400];
};

/* Fills in *f and returns false, so that a check reads `return refuse(f, ...)`. */
bool refuse(struct refusal *f, enum err err, const char *fmt, ...) PRINTF_LIKE(3, 4);

struct fields {
    json_t *object;
    const char *path;  /* put before a field's name in messages: "" or "backoff." */
    struct slice text; /* of the whole object, borrowed; empty for one inside another */
};

/* Parses a body that must be one JSON object. Given back with fields_free. */
bool fields_parse(struct slice body, struct fields *out, struct refusal *f);
void fields_free(struct fields *o);

/* Every field is in the NULL-terminated list. */
bool fields_known(const struct fields *o, const char *const *known, struct refusal *f);
/* Every field is in one of two lists. */
bool fields_known_in(const struct fields *o, const char *const *known, const char *const *more,
                     struct refusal *f);
bool field_present(const struct fields *o, const char *name);
bool field_required(const struct fields *o, const char *name, struct refusal *f);

bool field_u64(const struct fields *o, const char *name, uint64_t min, uint64_t max, uint64_t *out,
               struct refusal *f);
bool field_real(const struct fields *o, const char *name, double min, double max, double *out,
                struct refusal *f);
bool field_bool(const struct fields *o, const char *name, bool *out, struct refusal *f);
/* RFC 3339 to wall ms. */
bool field_time(const struct fields *o, const char *name, uint64_t *out, struct refusal *f);
bool field_text(const struct fields *o, const char *name, struct slice *out, struct refusal *f);
/* The name of a source or subscription; required. */
bool field_name(const struct fields *o, const char *name, struct slice *out, struct refusal *f);
/* The text of a field's value just as it was sent, a slice of o->text. */
bool field_json(const struct fields *o, const char *name, struct slice *out, struct refusal *f);
/* An object; `path` is that of its fields. out->object is NULL when absent. Borrowed from o. */
bool field_object(const struct fields *o, const char *name, const char *path, struct fields *out,
                  struct refusal *f);
/* At most max_count texts of 1 to max_len bytes; the array is made in the arena. */
bool field_texts(const struct fields *o, const char *name, size_t max_count, size_t max_len,
                 struct arena *arena, const struct slice **out, size_t *count, struct refusal *f);
/* An array of at most max_count objects: how many there are; each is then read with
 * field_object_at, whose `path` is that of its fields. Borrowed from o. */
bool field_objects(const struct fields *o, const char *name, size_t max_count, size_t *count,
                   struct refusal *f);
struct fields field_object_at(const struct fields *o, const char *name, size_t i, const char *path);
/* An object of at most max_count members that are texts, in the order in which they were sent. */
struct text_member {
    const char *name;
    struct slice value;
};
bool field_text_members(const struct fields *o, const char *name, size_t max_count,
                        struct arena *arena, const struct text_member **out, size_t *count,
                        struct refusal *f);

#endif
