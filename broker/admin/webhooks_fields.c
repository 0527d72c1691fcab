/* How the API of webhooks says what is wrong. */
#include <stdio.h>

#include "broker/admin/webhooks.h"

#define SHOWN_BYTES 64 /* of what somebody else chose */

const char type_glob_rule[] =
    "an event type is dotted segments of A-Z a-z 0-9 _ - such as batch.succeeded, and * stands for "
    "any run of characters; GET /v1/event-types lists those that are known";

bool type_glob_ok(struct slice glob) {
    bool empty = true; /* the segment so far */
    for (size_t i = 0; i < glob.len; i++) {
        uint8_t c = glob.data[i];
        bool alnum = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (c == '.' && empty) return false;
        if (c != '.' && !alnum && c != '_' && c != '-' && c != '*') return false;
        empty = c == '.';
    }
    return !empty && glob.len <= LIMIT_EVENT_TYPE_BYTES;
}

bool refuse_value(struct refusal *f, struct slice value, const char *parameter, const char *why) {
    bool whole = value.len <= SHOWN_BYTES;
    if (!whole) value.len = SHOWN_BYTES;
    return refuse(f, ERR_INVALID_REQUEST, "The value '%.*s%s' is not supported for '%s': %s",
                  SLICE_ARG(value), whole ? "" : "...", parameter, why);
}

static int fold(const char **s) {
    while (**s == '_' || **s == '-') ++*s;
    int c = (unsigned char)**s;
    if (c != '\0') ++*s;
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

/* Equal but for case, underscores and hyphens: subscribedEvents is subscribed_events. */
static bool alike(const char *a, const char *b) {
    for (;;) {
        int x = fold(&a), y = fold(&b);
        if (x != y) return false;
        if (x == '\0') return true;
    }
}

static bool refuse_parameter(const char *path, const char *name, const char *const *known,
                             struct refusal *f) {
    char list[240] = "";
    for (size_t i = 0, len = 0; known[i] != NULL && len < sizeof list; i++) {
        if (alike(name, known[i])) {
            return refuse(f, ERR_PARAMETER_UNKNOWN,
                          "Unknown parameter '%s%.*s'. Did you mean '%s%s'?", path, SHOWN_BYTES,
                          name, path, known[i]);
        }
        len +=
            (size_t)snprintf(list + len, sizeof list - len, "%s%s", i == 0 ? "" : ", ", known[i]);
    }
    return refuse(f, ERR_PARAMETER_UNKNOWN, "Unknown parameter '%s%.*s'. %s%s", path, SHOWN_BYTES,
                  name, list[0] == '\0' ? "There are none here" : "The parameters are ", list);
}

bool parameters_known(const struct fields *o, const char *const *known, struct refusal *f) {
    const char *name;
    json_t *value;
    json_object_foreach(o->object, name, value) {
        size_t i = 0;
        while (known[i] != NULL && strcmp(name, known[i]) != 0) i++;
        if (known[i] == NULL) return refuse_parameter(o->path, name, known, f);
    }
    return true;
}

bool parameters_none(const struct http_request *r, struct refusal *f) {
    static const char *const none[] = {NULL};
    struct fields o = {.object = NULL};
    if (r->body.len == 0) return true;
    bool ok = fields_parse(r->body, &o, f) && parameters_known(&o, none, f);
    fields_free(&o);
    return ok;
}
