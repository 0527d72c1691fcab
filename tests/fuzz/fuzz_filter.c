/* Arbitrary filters and events. The input is a filter, then an event's type, source, subject,
 * user_metadata and endpoints, with NULs between. A text compiles or is refused with a reason; what
 * compiles has a text that compiles to itself; `not` of it matches exactly the other events; the
 * index offers it for each event that it matches, once. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "broker/engine/filter.h"

/* Takes what stands before the next NUL, or everything. */
static struct slice next_part(struct slice *rest) {
    const uint8_t *nul = rest->len == 0 ? NULL : memchr(rest->data, 0, rest->len);
    struct slice part = nul == NULL ? *rest : slice_of(rest->data, (size_t)(nul - rest->data));
    *rest = slice_from(*rest, nul == NULL ? rest->len : part.len + 1);
    return part;
}

static bool match(const struct filter *f, const struct event *event) {
    struct filter_subject s;
    filter_subject_init(&s, event);
    bool result = filter_match(f, &s);
    CHECK(filter_match(f, &s) == result); /* also when user_metadata is parsed by now */
    return result;
}

static void count_offer(void *ctx, void *owner) {
    CHECK(owner == ctx);
    ++*(size_t *)ctx;
}

static size_t offers(struct filter_index *x, const struct event *event, size_t *owner) {
    struct filter_subject s;
    filter_subject_init(&s, event);
    *owner = 0;
    filter_index_candidates(x, &s, count_offer, owner);
    return *owner;
}

static void check_index(const struct filter *f, const struct event *event, bool matches) {
    struct filter_index *x = filter_index_new();
    size_t owner;
    filter_index_add(x, f, &owner);
    size_t count = offers(x, event, &owner);
    CHECK(count <= 1);
    CHECK(count == 1 || !matches);
    filter_index_remove(x, f, &owner);
    CHECK(offers(x, event, &owner) == 0);
    filter_index_free(&x);
}

static void check_text(const struct filter *f) {
    struct filter *again;
    char why[300];
    CHECK(filter_compile(filter_text(f), &again, why, sizeof why) == ERR_OK);
    CHECK(slice_eq(filter_text(again), filter_text(f)));
    filter_free(&again);
}

static void check_inverse(struct slice json, const struct event *event, bool matches) {
    static const char before[] = "{\"not\":";
    char text[LIMIT_FILTER_BYTES];
    if (json.len == 0 || json.len > sizeof text - sizeof before) return;
    int len = snprintf(text, sizeof text, "%s%.*s}", before, SLICE_ARG(json));
    struct filter *inverse;
    char why[300];
    /* It can be too deep or have too many parts now. */
    if (filter_compile(slice_of(text, (size_t)len), &inverse, why, sizeof why) != ERR_OK) return;
    CHECK(match(inverse, event) != matches);
    filter_free(&inverse);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice rest = slice_of(data, size);
    struct slice json = next_part(&rest);
    struct event event = {.seq = 0};
    event.type = next_part(&rest);
    event.source = next_part(&rest);
    event.subject = next_part(&rest);
    event.metadata = next_part(&rest);
    event.endpoints = next_part(&rest);

    struct filter *f = NULL;
    char why[300] = "";
    enum err err = filter_compile(json, &f, why, sizeof why);
    CHECK((err == ERR_OK) == (f != NULL));
    CHECK(err == ERR_OK || (err == ERR_BAD_FILTER && strncmp(why, "filter", 6) == 0));
    if (f != NULL) {
        bool matches = match(f, &event);
        check_text(f);
        check_inverse(json, &event, matches);
        check_index(f, &event, matches);
    }
    filter_free(&f);

    if (!filter_name_ok(json)) return 0;
    struct filter_subject s;
    filter_subject_init(&s, &event);
    uint8_t scratch[FILTER_VALUE_BYTES_MIN];
    struct slice value;
    if (filter_subject_value(&s, json, scratch, sizeof scratch, &value)) {
        CHECK(value.len == 0 || value.data[0] + value.data[value.len - 1] < 511);
    }
    return 0;
}
