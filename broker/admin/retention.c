/* /v1/retention: how long the journal and dead letters are kept. What the broker was started with
 * is in the options; what an operator has set since is one config entry of this room and counts
 * from the moment that it is durable. */
#include <inttypes.h>

#include "base/log.h"
#include "broker/admin/answer.h"
#include "broker/admin/query.h"
#include "broker/json/walk.h"

#define CONFIG_KEY  "admin/retention"
#define MAX_BYTES   INT64_MAX
#define VALUE_BYTES 256 /* three names and numbers */

void retention_put(struct buf *b, const struct retention *r) {
    put_u64(b, "max_age_ms", r->max_age_ms);
    put_u64(b, "max_bytes", r->max_bytes);
    put_u64(b, "dead_max_age_ms", r->dead_max_age_ms);
}

/* 0 is no limit. */
static uint64_t smaller(uint64_t a, uint64_t b) {
    if (a == 0 || b == 0) return a + b;
    return a < b ? a : b;
}

static void apply(struct admin *a) {
    const struct retention *own = &a->retention, *started = &a->options.retention;
    struct retention r = {
        .max_age_ms = smaller(own->max_age_ms, started->max_age_ms),
        .max_bytes = smaller(own->max_bytes, started->max_bytes),
        .dead_max_age_ms = smaller(own->dead_max_age_ms, started->dead_max_age_ms),
    };
    engine_set_retention(a->options.engine, &r);
}

/* ---- what is stored ---- */

struct load {
    struct retention retention;
    bool bad;
};

/* Fields of later versions are passed over. */
static bool load_field(void *ctx, const struct json_value *v) {
    struct load *load = ctx;
    struct retention *r = &load->retention;
    if (v->depth != 1) return true;
    uint64_t *out = slice_eq_str(v->path[0], "max_age_ms")        ? &r->max_age_ms
                    : slice_eq_str(v->path[0], "max_bytes")       ? &r->max_bytes
                    : slice_eq_str(v->path[0], "dead_max_age_ms") ? &r->dead_max_age_ms
                                                                  : NULL;
    if (out != NULL && !slice_to_u64(v->raw, out)) load->bad = true;
    return true;
}

static void load_entry(void *ctx, struct slice key, struct slice value) {
    struct load *load = ctx;
    if (!slice_eq_str(key, CONFIG_KEY)) return; /* a longer key that begins alike */
    if (!json_walk(value, 1, load_field, load, NULL)) load->bad = true;
}

int retention_load(struct admin *a) {
    struct load load = {.bad = false};
    engine_config_scan(a->options.engine, slice_str(CONFIG_KEY), load_entry, &load);
    if (load.bad) {
        log_error("the stored entry " CONFIG_KEY
                  " cannot be read: was it written by a newer "
                  "version?");
        return ERR_STORE;
    }
    a->retention = load.retention;
    apply(a);
    return 0;
}

/* ---- requests ---- */

static void answer_retention(struct admin *a, uint64_t handle) {
    struct engine_stats stats;
    engine_stats(a->options.engine, &stats);
    struct buf *b = answer_begin(a);
    retention_put(b, &a->retention);
    put_open(b, "configured");
    retention_put(b, &a->options.retention);
    put_close(b);
    put_u64(b, "oldest_seq", stats.first_seq);
    put_u64(b, "newest_seq", stats.last_seq);
    put_u64(b, "journal_bytes", stats.journal_bytes);
    put_u64(b, "trimmed", stats.trimmed_total);
    blocked_put(a, b, &stats);
    answer_send(a, handle, 200);
}

void retention_show(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    if (query_none(a, r)) answer_retention(a, r->handle);
}

static bool read_retention(const struct fields *o, struct retention *r, struct refusal *f) {
    static const char *const known[] = {"max_age_ms", "max_bytes", "dead_max_age_ms", NULL};
    return fields_known(o, known, f) &&
           field_u64(o, "max_age_ms", 0, LIMIT_AGE_MS_MAX, &r->max_age_ms, f) &&
           field_u64(o, "max_bytes", 0, MAX_BYTES, &r->max_bytes, f) &&
           field_u64(o, "dead_max_age_ms", 0, LIMIT_AGE_MS_MAX, &r->dead_max_age_ms, f);
}

static void retention_updated(struct admin *a, const struct pending *p,
                              const struct effect *effect) {
    if (effect->err != ERR_OK) {
        answer_effect_error(a, effect);
        return;
    }
    apply(a);
    answer_retention(a, p->handle);
}

void retention_update(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    static const char *const none[] = {NULL};
    struct retention wanted = a->retention;
    struct fields o = {.object = NULL};
    struct refusal f;
    if (!query_known(r, none, &f) || !fields_parse(r->body, &o, &f) ||
        !read_retention(&o, &wanted, &f)) {
        answer_refusal(a, r->handle, &f);
        fields_free(&o);
        return;
    }
    fields_free(&o);
    struct buf value;
    buf_init(&value, VALUE_BYTES);
    buf_append_byte(&value, '{');
    retention_put(&value, &wanted);
    put_close(&value);
    CHECK(!value.overflow);
    /* From now on, so that another PATCH of this turn changes its own fields only. */
    a->retention = wanted;
    struct command command = {
        .kind = COMMAND_CONFIG_PUT,
        .u.config = {.key = slice_str(CONFIG_KEY), .value = buf_slice(&value)},
    };
    pending_step(a, r, retention_updated, slice_of(NULL, 0), NULL, &command);
    buf_free(&value);
}
