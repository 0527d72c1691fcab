#include "broker/json/members.h"

static void skip_blanks(struct json_members *m) {
    for (; m->at < m->text.len; m->at++) {
        uint8_t c = m->text.data[m->at];
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return;
    }
}

/* One byte, if it is this one. */
static bool take(struct json_members *m, uint8_t c) {
    if (m->at >= m->text.len || m->text.data[m->at] != c) return false;
    m->at++;
    return true;
}

/* A string, the quotes included. False: it does not end. */
static bool skip_string(struct json_members *m) {
    if (!take(m, '"')) return false;
    for (; m->at < m->text.len; m->at++) {
        uint8_t c = m->text.data[m->at];
        if (c == '\\') m->at++;
        else if (c == '"') return take(m, '"');
    }
    return false;
}

static bool skip_nested(struct json_members *m) {
    size_t depth = 0;
    while (m->at < m->text.len) {
        uint8_t c = m->text.data[m->at];
        if (c == '"') {
            if (!skip_string(m)) return false;
            continue;
        }
        m->at++;
        if (c == '{' || c == '[') depth++;
        if ((c == '}' || c == ']') && --depth == 0) return true;
    }
    return false;
}

/* A number, true, false or null. */
static bool skip_word(struct json_members *m) {
    size_t from = m->at;
    for (; m->at < m->text.len; m->at++) {
        uint8_t c = m->text.data[m->at];
        if (c <= ' ' || c == ',' || c == '}') break;
    }
    return m->at > from;
}

static bool skip_value(struct json_members *m) {
    if (m->at >= m->text.len) return false;
    uint8_t c = m->text.data[m->at];
    if (c == '"') return skip_string(m);
    return c == '{' || c == '[' ? skip_nested(m) : skip_word(m);
}

void json_members_init(struct json_members *m, struct slice text) {
    *m = (struct json_members){.text = text};
    skip_blanks(m);
    if (!take(m, '{')) m->at = text.len;
}

bool json_members_next(struct json_members *m, struct slice *name, struct slice *value) {
    skip_blanks(m);
    size_t from = m->at;
    if (!skip_string(m)) return false;
    *name = slice_of(m->text.data + from + 1, m->at - from - 2);
    skip_blanks(m);
    if (!take(m, ':')) return false;
    skip_blanks(m);
    from = m->at;
    if (!skip_value(m)) return false;
    *value = slice_of(m->text.data + from, m->at - from);
    skip_blanks(m);
    take(m, ',');
    return true;
}
