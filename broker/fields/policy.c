/* Three kinds of wrong: a value of another type or a field that does not exist (fields.h's errors),
 * a value that passes its bounds or contradicts another (bad_policy), and a filter that does not
 * compile (bad_filter). Bounds are looked at here, where the place is known and before a number is
 * narrowed; what depends on two fields is policy_check's. */
#include "broker/fields/policy.h"

#include <stdio.h>

#include "broker/fields/put.h"

#define ORDER_PREFIX "user_metadata."
#define WHY_SIZE     320

const char *const policy_field_names[] = {
    "filter",  "lease_ms", "max_hold_ms", "max_age_ms", "max_fails",
    "backoff", "rate",     "order",       "lag",        NULL,
};

/* ---- reading ---- */

/* A number of the right type that passes its bounds is the policy's mistake, not the request's. */
static bool as_bound(const struct fields *o, const char *name, struct refusal *f) {
    const json_t *v = json_object_get(o->object, name);
    if (json_is_integer(v)) f->err = ERR_BAD_POLICY;
    return false;
}

static bool bounded_u64(const struct fields *o, const char *name, uint64_t min, uint64_t max,
                        uint64_t *out, struct refusal *f) {
    return field_u64(o, name, min, max, out, f) || as_bound(o, name, f);
}

static bool bounded_u32(const struct fields *o, const char *name, uint32_t max, uint32_t *out,
                        struct refusal *f) {
    uint64_t n = *out;
    if (!bounded_u64(o, name, 0, max, &n, f)) return false;
    *out = (uint32_t)n;
    return true;
}

static bool bounded_permille(const struct fields *o, const char *name, double min, double max,
                             uint32_t *out, struct refusal *f) {
    double n = (double)*out / 1000.0;
    if (!field_real(o, name, min, max, &n, f)) {
        if (json_is_real(json_object_get(o->object, name))) f->err = ERR_BAD_POLICY;
        return as_bound(o, name, f);
    }
    *out = (uint32_t)(n * 1000.0 + 0.5);
    return true;
}

static bool read_steps(const struct fields *backoff, struct arena *a, struct policy *p,
                       struct refusal *f) {
    const json_t *list = json_object_get(backoff->object, "list_ms");
    size_t count = json_array_size(list);
    if (!json_is_array(list)) {
        return refuse(f, ERR_INVALID_REQUEST, "backoff.list_ms must be an array of numbers");
    }
    if (count == 0 || count > LIMIT_BACKOFF_STEPS) {
        return refuse(f, ERR_BAD_POLICY, "backoff.list_ms must have 1 to %d steps",
                      LIMIT_BACKOFF_STEPS);
    }
    uint64_t *steps = arena_alloc(a, count * sizeof *steps);
    for (size_t i = 0; i < count; i++) {
        const json_t *step = json_array_get(list, i);
        json_int_t ms = json_integer_value(step);
        if (!json_is_integer(step) || ms < 0 || ms > LIMIT_BACKOFF_MS_MAX) {
            return refuse(f, json_is_integer(step) ? ERR_BAD_POLICY : ERR_INVALID_REQUEST,
                          "backoff.list_ms[%zu] must be a whole number from 0 to %d", i,
                          LIMIT_BACKOFF_MS_MAX);
        }
        steps[i] = (uint64_t)ms;
    }
    p->backoff_list_ms = steps;
    p->backoff_list_count = (uint32_t)count;
    return true;
}

/* A backoff is taken as a whole: what it does not say has its default, not its old value. */
static bool read_backoff(const struct fields *o, struct arena *a, struct policy *p,
                         struct refusal *f) {
    static const char *const known[] = {"min_ms", "max_ms", "factor", "list_ms", "jitter", NULL};
    static const char *const growing[] = {"min_ms", "max_ms", "factor"};
    const struct policy fresh = policy_default();
    struct fields backoff;
    if (!field_object(o, "backoff", "backoff.", &backoff, f)) return false;
    if (backoff.object == NULL) return true;
    p->backoff_min_ms = fresh.backoff_min_ms;
    p->backoff_max_ms = fresh.backoff_max_ms;
    p->backoff_factor_permille = fresh.backoff_factor_permille;
    p->backoff_jitter_permille = fresh.backoff_jitter_permille;
    p->backoff_list_ms = NULL;
    p->backoff_list_count = 0;
    if (!fields_known(&backoff, known, f) ||
        !bounded_permille(&backoff, "jitter", 0, 1, &p->backoff_jitter_permille, f)) {
        return false;
    }
    if (!field_present(&backoff, "list_ms")) {
        return bounded_u64(&backoff, "min_ms", 0, LIMIT_BACKOFF_MS_MAX, &p->backoff_min_ms, f) &&
               bounded_u64(&backoff, "max_ms", 0, LIMIT_BACKOFF_MS_MAX, &p->backoff_max_ms, f) &&
               bounded_permille(&backoff, "factor", 1, 100, &p->backoff_factor_permille, f);
    }
    for (size_t i = 0; i < sizeof growing / sizeof growing[0]; i++) {
        if (!field_present(&backoff, growing[i])) continue;
        return refuse(f, ERR_BAD_POLICY,
                      "backoff has list_ms and %s: give a list, or min_ms, max_ms and factor",
                      growing[i]);
    }
    return read_steps(&backoff, a, p, f);
}

static bool refuse_order(struct refusal *f) {
    return refuse(f, ERR_INVALID_REQUEST,
                  "order must be \"none\", \"key\" or {\"key\":\"user_metadata.NAME\"}");
}

static bool read_order(const struct fields *o, struct arena *a, struct policy *p,
                       struct refusal *f) {
    static const char *const known[] = {"key", NULL};
    const size_t prefix = sizeof ORDER_PREFIX - 1;
    struct fields order = {.object = json_object_get(o->object, "order"), .path = "order."};
    const char *word = json_string_value(order.object);
    struct slice key = slice_of(NULL, 0);
    if (order.object == NULL) return true;
    if (word != NULL) {
        bool by_key = strcmp(word, "key") == 0;
        if (!by_key && strcmp(word, "none") != 0) return refuse_order(f);
        p->ordered = by_key;
        p->order_key = key;
        return true;
    }
    if (!json_is_object(order.object)) return refuse_order(f);
    if (!fields_known(&order, known, f) || !field_required(&order, "key", f) ||
        !field_text(&order, "key", &key, f)) {
        return false;
    }
    if (!slice_starts_with(key, ORDER_PREFIX) || key.len == prefix) {
        return refuse(f, ERR_BAD_POLICY,
                      "order.key must be \"user_metadata.NAME\"; for the subject, write "
                      "\"order\":\"key\"");
    }
    if (key.len - prefix > LIMIT_ORDER_KEY_BYTES) {
        return refuse(f, ERR_BAD_POLICY, "order.key must name at most %d bytes after \"%s\"",
                      LIMIT_ORDER_KEY_BYTES, ORDER_PREFIX);
    }
    p->ordered = true;
    p->order_key = arena_copy(a, slice_from(key, prefix));
    return true;
}

static bool read_lag(const struct fields *o, struct policy *p, struct refusal *f) {
    struct slice lag = slice_of(NULL, 0);
    if (!field_present(o, "lag")) return true;
    if (!field_text(o, "lag", &lag, f)) return false;
    p->lag = slice_eq_str(lag, "expire") ? LAG_EXPIRE : LAG_BLOCK;
    if (p->lag == LAG_EXPIRE || slice_eq_str(lag, "block")) return true;
    return refuse(f, ERR_INVALID_REQUEST, "lag must be \"block\" or \"expire\"");
}

static bool read_filter(const struct fields *o, struct arena *a, struct policy *p,
                        struct refusal *f) {
    struct slice text = slice_of(NULL, 0);
    if (!field_present(o, "filter")) return true;
    if (!field_json(o, "filter", &text, f)) return false;
    p->filter = arena_copy(a, text);
    return true;
}

bool policy_read_fields(const struct fields *o, struct arena *a, struct policy *out,
                        struct refusal *f) {
    char why[WHY_SIZE];
    struct policy *p = out;
    if (!read_filter(o, a, p, f) ||
        !bounded_u64(o, "lease_ms", LIMIT_LEASE_MS_MIN, LIMIT_LEASE_MS_MAX, &p->lease_ms, f) ||
        !bounded_u64(o, "max_hold_ms", LIMIT_LEASE_MS_MIN, LIMIT_HOLD_MS_MAX, &p->max_hold_ms, f) ||
        !bounded_u64(o, "max_age_ms", 0, LIMIT_AGE_MS_MAX, &p->max_age_ms, f) ||
        !bounded_u32(o, "max_fails", LIMIT_FAILS_MAX, &p->max_fails, f) ||
        !read_backoff(o, a, p, f) || !bounded_u32(o, "rate", LIMIT_RATE_PER_S, &p->rate_per_s, f) ||
        !read_order(o, a, p, f) || !read_lag(o, p, f)) {
        return false;
    }
    enum err err = policy_check(p, why, sizeof why);
    return err == ERR_OK || refuse(f, err, "%s", why);
}

static bool refuse_start(const char *name, struct refusal *f) {
    return refuse(f, ERR_INVALID_REQUEST,
                  "%s must be \"new\", \"first\", {\"seq\":17} or "
                  "{\"time\":\"2026-11-21T09:00:00Z\"}",
                  name);
}

bool policy_read_start(const struct fields *o, const char *name, enum start_kind *start,
                       uint64_t *value, struct refusal *f) {
    static const char *const known[] = {"seq", "time", "time_ms", NULL};
    char path[32];
    snprintf(path, sizeof path, "%s.", name);
    struct fields place = {.object = json_object_get(o->object, name), .path = path};
    const char *word = json_string_value(place.object);
    if (place.object == NULL) return true;
    if (word != NULL) {
        bool first = strcmp(word, "first") == 0;
        if (!first && strcmp(word, "new") != 0) return refuse_start(name, f);
        *start = first ? START_FIRST : START_NEW;
        *value = 0;
        return true;
    }
    if (!json_is_object(place.object)) return refuse_start(name, f);
    if (!fields_known(&place, known, f) || !field_u64(&place, "seq", 1, INT64_MAX, value, f) ||
        !field_time(&place, "time", value, f) ||
        !field_u64(&place, "time_ms", 0, INT64_MAX, value, f)) {
        return false;
    }
    if (json_object_size(place.object) != 1) return refuse_start(name, f);
    *start = field_present(&place, "seq") ? START_SEQ : START_TIME;
    return true;
}

bool policy_read_text(struct slice json, struct arena *a, struct policy_request *out,
                      struct refusal *f) {
    static const char *const more[] = {"start", NULL};
    struct fields o;
    *out = (struct policy_request){.policy = policy_default(), .start = START_NEW};
    if (json.len == 0) return true;
    bool ok = fields_parse(json, &o, f) && fields_known_in(&o, policy_field_names, more, f) &&
              policy_read_fields(&o, a, &out->policy, f) &&
              policy_read_start(&o, "start", &out->start, &out->start_value, f);
    fields_free(&o);
    return ok;
}

/* ---- writing ---- */

static void put_backoff(struct buf *b, const struct policy *p) {
    put_open(b, "backoff");
    if (p->backoff_list_count > 0) {
        put_key(b, "list_ms");
        buf_append_byte(b, '[');
        for (uint32_t i = 0; i < p->backoff_list_count; i++) {
            put_comma(b);
            buf_append_u64(b, p->backoff_list_ms[i]);
        }
        buf_append_byte(b, ']');
    } else {
        put_u64(b, "min_ms", p->backoff_min_ms);
        put_u64(b, "max_ms", p->backoff_max_ms);
        put_permille(b, "factor", p->backoff_factor_permille);
    }
    put_permille(b, "jitter", p->backoff_jitter_permille);
    put_close(b);
}

static void put_order(struct buf *b, const struct policy *p) {
    char name[sizeof ORDER_PREFIX - 1 + LIMIT_ORDER_KEY_BYTES] = ORDER_PREFIX;
    const size_t prefix = sizeof ORDER_PREFIX - 1;
    if (p->order_key.len == 0) {
        put_text(b, "order", slice_str(p->ordered ? "key" : "none"));
        return;
    }
    CHECK(p->order_key.len <= LIMIT_ORDER_KEY_BYTES); /* it was read here */
    memcpy(name + prefix, p->order_key.data, p->order_key.len);
    put_open(b, "order");
    put_text(b, "key", slice_of(name, prefix + p->order_key.len));
    put_close(b);
}

void policy_put(struct buf *b, const struct policy *p) {
    put_key(b, "filter");
    buf_append_slice(b, p->filter.len == 0 ? slice_str("{}") : p->filter);
    put_u64(b, "lease_ms", p->lease_ms);
    put_u64(b, "max_hold_ms", p->max_hold_ms);
    put_u64(b, "max_age_ms", p->max_age_ms);
    put_u64(b, "max_fails", p->max_fails);
    put_backoff(b, p);
    put_u64(b, "rate", p->rate_per_s);
    put_order(b, p);
    put_text(b, "lag", slice_str(p->lag == LAG_EXPIRE ? "expire" : "block"));
}
