#include "broker/admin/access.h"

#include <stdio.h>

#include "broker/admin/query.h"
#include "broker/webhooks/registry.h"

/* ---- which key ---- */

static struct slice cut_blanks(struct slice s) {
    while (s.len > 0 && s.data[0] == ' ') s = slice_from(s, 1);
    return s;
}

/* What follows "Bearer " (RFC 6750 section 2.1); another scheme's credentials are no key. */
static struct slice bearer_of(struct slice value) {
    static const char scheme[] = "bearer ";
    const size_t len = sizeof scheme - 1;
    if (value.len < len || !slice_eq_nocase(slice_of(value.data, len), scheme)) {
        return slice_of(value.data, 0);
    }
    return cut_blanks(slice_from(value, len));
}

/* The key is in one of two headers: of two, a proxy and we might each believe another one. */
static enum auth_verdict find_key(struct admin *a, const struct http_request *r) {
    size_t bearers = 0, others = 0;
    struct slice bearer = http_header_get(r, "authorization", &bearers);
    struct slice other = http_header_get(r, "x-goog-api-key", &others);
    if (bearers + others == 0) return AUTH_MISSING;
    if (bearers + others > 1) return AUTH_AMBIGUOUS;
    return auth_check_text(a->options.auth, admin_time(a), bearers > 0 ? bearer_of(bearer) : other,
                           &a->key);
}

bool access_enter(struct admin *a, const struct http_request *r, unsigned scopes,
                  struct refusal *f) {
    char needed[SCOPES_TEXT_BYTES];
    access_leave(a);
    a->project = PROJECT_DEFAULT;
    if (scopes == OPEN || !auth_required(a->options.auth)) return true;
    enum auth_verdict verdict = find_key(a, r);
    if (verdict == AUTH_OK) a->project = a->key->project;
    else return refuse(f, ERR_UNAUTHENTICATED, "%s", auth_verdict_text(verdict));
    if (key_may(a->key, scopes)) return true;
    scopes_format(scopes, " or ", needed, sizeof needed);
    return refuse(f, ERR_PERMISSION_DENIED,
                  "this needs a key with the scope %s; %s does not have it", needed, a->key->id);
}

void access_leave(struct admin *a) {
    a->key = NULL;
    a->project = 0;
}

struct slice access_key_named(const struct admin *a, const struct http_request *r) {
    const size_t begin = sizeof "bh_" - 1;
    struct slice text = bearer_of(http_header_get(r, "authorization", NULL));
    if (text.len == 0) text = http_header_get(r, "x-goog-api-key", NULL);
    if (text.len < begin + KEY_ID_BYTES) return slice_of(NULL, 0);
    const struct key *k = auth_find_id(a->options.auth, slice_of(text.data + begin, KEY_ID_BYTES));
    return k == NULL ? slice_of(NULL, 0) : slice_str(k->id);
}

uint64_t access_key_number(const struct admin *a) {
    return a->key == NULL ? 0 : a->key->number;
}

void access_refuse_held(struct admin *a, uint64_t handle, uint64_t number) {
    http_respond_error(*a->options.http, handle, ERR_UNAUTHENTICATED, "%s",
                       auth_verdict_text(number == 0 ? AUTH_MISSING : AUTH_UNKNOWN));
}

/* ---- which names ---- */

bool access_subscription(const struct admin *a, struct slice name) {
    return a->key == NULL || key_may_subscription(a->key, name);
}

static bool may_subscription(const struct admin *a, struct slice name, struct refusal *f) {
    if (access_subscription(a, name)) return true;
    return refuse(f, ERR_PERMISSION_DENIED, "key %s is limited to other subscriptions", a->key->id);
}

static bool may_source(const struct admin *a, struct slice name, struct refusal *f) {
    if (key_may_source(a->key, name)) return true;
    return refuse(f, ERR_PERMISSION_DENIED, "key %s is limited to other sources", a->key->id);
}

static struct slice first_segment(struct slice path) {
    const uint8_t *slash = path.len == 0 ? NULL : memchr(path.data, '/', path.len);
    return slash == NULL ? path : slice_of(path.data, (size_t)(slash - path.data));
}

/* Asks about the text in a field of the body. What is no object, or has no such text, is refused by
 * the handler, which parses the same bytes in the same way. */
static bool may_body(struct admin *a, const struct http_request *r, const char *field,
                     bool (*may)(const struct admin *a, struct slice name, struct refusal *f),
                     struct refusal *f) {
    struct fields o = {.object = NULL};
    struct slice name = slice_of(NULL, 0);
    struct refusal unsaid;
    bool said = fields_parse(r->body, &o, &unsaid) && field_present(&o, field) &&
                field_text(&o, field, &name, &unsaid);
    bool ok = !said || may(a, name, f);
    fields_free(&o);
    return ok;
}

static bool may_query(struct admin *a, const struct http_request *r, struct refusal *f) {
    char name[LIMIT_NAME_BYTES + 1];
    bool found = false;
    struct refusal unsaid;
    if (!query_text(r, "subscription", name, sizeof name, &found, &unsaid) || !found) return true;
    return may_subscription(a, slice_str(name), f);
}

static bool may_webhook(struct admin *a, struct slice id, struct refusal *f) {
    char name[sizeof WEBHOOK_SUBSCRIPTION_PREFIX + LIMIT_NAME_BYTES];
    if (id.len > LIMIT_NAME_BYTES) return true; /* there is none */
    snprintf(name, sizeof name, WEBHOOK_SUBSCRIPTION_PREFIX "%.*s", SLICE_ARG(id));
    return may_subscription(a, slice_str(name), f);
}

static bool may_task(struct admin *a, struct slice id, struct refusal *f) {
    struct task_info info;
    uint64_t number = 0;
    if (!slice_to_u64(id, &number) || number > UINT32_MAX ||
        !engine_task_get(a->options.engine, a->project, (uint32_t)number, &info)) {
        return true;
    }
    return may_subscription(a, info.subscription, f);
}

bool access_is_operator(const struct admin *a) {
    return a->project == PROJECT_DEFAULT;
}

bool access_sees_broker(const struct admin *a) {
    return access_is_operator(a) &&
           (a->key == NULL || (key_may(a->key, SCOPE_MANAGE) && !key_is_limited(a->key)));
}

bool access_touch(struct admin *a, const struct http_request *r, enum touch touch,
                  struct slice last, struct refusal *f) {
    if (touch == TOUCHES_BROKER && !access_is_operator(a)) {
        return refuse(
            f, ERR_PERMISSION_DENIED,
            "this belongs to the whole broker: it needs a key of the project " PROJECT_DEFAULT_NAME
            ", and %s is of another one",
            a->key->id);
    }
    if (a->key == NULL || !key_is_limited(a->key)) return true;
    switch (touch) {
    case TOUCHES_NOTHING: return true;
    case TOUCHES_BROKER:
    case TOUCHES_ALL:
        return refuse(f, ERR_PERMISSION_DENIED,
                      "key %s is limited to some sources or subscriptions: this needs one that is "
                      "not",
                      a->key->id);
    case SUBSCRIPTION_IN_PATH: return may_subscription(a, first_segment(last), f);
    case SUBSCRIPTION_IN_QUERY: return may_query(a, r, f);
    case SUBSCRIPTION_IN_BODY: return may_body(a, r, "subscription", may_subscription, f);
    case NAME_IN_BODY: return may_body(a, r, "name", may_subscription, f);
    case SOURCE_IN_PATH: return may_source(a, last, f);
    case SOURCE_IN_BODY: return may_body(a, r, "name", may_source, f);
    case WEBHOOK_IN_PATH: return may_webhook(a, last, f);
    /* "webhook.*" and "*" match it, the name of a single one does not. */
    case TOUCHES_WEBHOOKS: return may_webhook(a, slice_str(""), f);
    case TASK_IN_PATH: return may_task(a, last, f);
    }
    UNREACHABLE("every route has one of these");
}
