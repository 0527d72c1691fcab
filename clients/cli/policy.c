#include "clients/cli/policy.h"

#include <string.h>

#include "clients/cli/filter_args.h"
#include "clients/cli/value.h"

int policy_read_position(json_t *tree, const char *option, const char *key, const char *text) {
    uint64_t seq;
    char time[RFC3339_SIZE];
    if (strcmp(text, "new") == 0 || strcmp(text, "first") == 0) {
        json_object_set_new(tree, key, json_string(text));
    } else if (slice_to_u64(slice_str(text), &seq) && seq <= INT64_MAX) {
        json_object_set_new(tree, key, json_pack("{s:I}", "seq", (json_int_t)seq));
    } else {
        int error = value_time(option, text, time);
        if (error != 0) return error;
        json_object_set_new(tree, key, json_pack("{s:s}", "time", time));
    }
    return 0;
}

static int read_durations(json_t *tree, const struct args *args) {
    static const char *const options[][2] = {
        {"--lease", "lease_ms"}, {"--max-hold", "max_hold_ms"}, {"--max-age", "max_age_ms"}};
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        const char *text = args_get(args, options[i][0]);
        uint64_t ms;
        if (text == NULL) continue;
        int error = value_duration_ms(options[i][0], text, &ms);
        if (error != 0) return error;
        api_set_u64(tree, options[i][1], ms);
    }
    return 0;
}

static int read_numbers(json_t *tree, const struct args *args) {
    const char *fails = args_get(args, "--max-fails"), *rate = args_get(args, "--rate");
    uint64_t number;
    if (fails != NULL) {
        int error = value_u64("--max-fails", fails, 0, LIMIT_FAILS_MAX, &number);
        if (error != 0) return error;
        api_set_u64(tree, "max_fails", number);
    }
    if (rate != NULL) {
        int error = value_u64("--rate", rate, 0, LIMIT_RATE_PER_S, &number);
        if (error != 0) return error;
        api_set_u64(tree, "rate", number);
    }
    return 0;
}

static int read_backoff(json_t *tree, const struct args *args, bool update) {
    const char *text = args_get(args, "--backoff"), *jitter_text = args_get(args, "--jitter");
    struct value_backoff backoff = {0};
    double jitter = 0;
    if (text == NULL && jitter_text == NULL) return 0;
    if (text == NULL && update) {
        cli_complain(
            "--jitter needs --backoff here: the backoff is replaced as a whole, such as "
            "--backoff 1s..10mx2 --jitter %s",
            jitter_text);
        return CLI_USAGE;
    }
    int error = text != NULL ? value_backoff("--backoff", text, &backoff) : 0;
    if (error == 0 && jitter_text != NULL) {
        error = value_fraction("--jitter", jitter_text, 0, 1, &jitter);
    }
    if (error != 0) return error;
    json_t *object = json_object();
    if (backoff.steps > 0) {
        json_t *list = json_array();
        for (size_t i = 0; i < backoff.steps; i++) {
            json_array_append_new(list, json_integer((json_int_t)backoff.list_ms[i]));
        }
        json_object_set_new(object, "list_ms", list);
    } else if (text != NULL) {
        api_set_u64(object, "min_ms", backoff.min_ms);
        api_set_u64(object, "max_ms", backoff.max_ms);
        if (backoff.factor > 0) json_object_set_new(object, "factor", json_real(backoff.factor));
    }
    if (jitter_text != NULL) json_object_set_new(object, "jitter", json_real(jitter));
    json_object_set_new(tree, "backoff", object);
    return 0;
}

/* none, key, or key:user_metadata.NAME. */
static int read_order(json_t *tree, const struct args *args) {
    const char *text = args_get(args, "--order");
    if (text == NULL) return 0;
    if (strcmp(text, "none") == 0 || strcmp(text, "key") == 0) {
        json_object_set_new(tree, "order", json_string(text));
        return 0;
    }
    if (strncmp(text, "key:user_metadata.", 18) != 0 || text[18] == '\0') {
        cli_complain("--order: '%s' is none of: none, key (the subject), key:user_metadata.NAME",
                     text);
        return CLI_USAGE;
    }
    json_t *order = json_object();
    json_object_set_new(tree, "order", order);
    return api_set_text(order, "--order", "key", text + 4);
}

static int read_lag(json_t *tree, const struct args *args) {
    const char *text = args_get(args, "--lag");
    if (text == NULL) return 0;
    if (strcmp(text, "block") != 0 && strcmp(text, "expire") != 0) {
        cli_complain("--lag: '%s' is neither block nor expire", text);
        return CLI_USAGE;
    }
    json_object_set_new(tree, "lag", json_string(text));
    return 0;
}

int policy_read(json_t *tree, const struct args *args, bool update) {
    json_t *filter;
    int error = filter_args_read(args, &filter);
    if (error != 0) return error;
    if (filter != NULL) json_object_set_new(tree, "filter", filter);
    error = read_durations(tree, args);
    if (error == 0) error = read_numbers(tree, args);
    if (error == 0) error = read_backoff(tree, args, update);
    if (error == 0) error = read_order(tree, args);
    if (error == 0) error = read_lag(tree, args);
    return error;
}
