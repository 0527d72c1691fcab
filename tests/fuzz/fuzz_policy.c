/* Arbitrary text as a subscription's policy. It is refused with a reason, or it is read; what is
 * read is accepted by the engine, is shown as JSON that reads as itself, is the policy that the
 * engine has (creating it once more is no conflict) and comes back the same from the store. */
#include <string.h>

#include "base/check.h"
#include "broker/fields/policy.h"
#include "broker/fields/put.h"
#include "broker/json/walk.h"
#include "tests/unit/engine_world.h"

#define NAME "fuzzed"

struct answer {
    enum err err;
    bool created;
};

static void note_done(void *ctx, const struct effect *e) {
    struct answer *a = ctx;
    CHECK(e->kind == EFFECT_DONE);
    a->err = e->err;
    a->created = e->u.done.created;
}

/* The policy's members in braces; out is freed by the caller. */
static struct slice show(struct buf *out, const struct policy *p) {
    buf_init(out, 1 << 20);
    buf_append_byte(out, '{');
    policy_put(out, p);
    put_close(out);
    CHECK(!out->overflow);
    return buf_slice(out);
}

/* Shown, read and shown again it is the same. */
static void check_text(const struct policy *p, struct arena *arena) {
    struct buf first, second;
    struct policy_request again;
    struct refusal f;
    struct slice text = show(&first, p);
    CHECK(policy_read_text(text, arena, &again, &f));
    CHECK(again.start == START_NEW);
    CHECK(slice_eq(text, show(&second, &again.policy)));
    buf_free(&first);
    buf_free(&second);
}

static struct policy policy_of_engine(struct world *w) {
    struct subscription_info info;
    bool found = engine_subscription_get(w->engine, PROJECT_DEFAULT, slice_str(NAME), &info);
    CHECK(found);
    return info.policy;
}

static void create(struct world *w, const struct policy *p, struct answer *answer) {
    struct command c = {.kind = COMMAND_SUBSCRIPTION_CREATE, .project = PROJECT_DEFAULT};
    c.u.create.name = slice_str(NAME);
    c.u.create.policy = *p;
    *answer = (struct answer){.err = ERR_STORE};
    world_run(w, &c);
}

static void check_engine(const struct policy *p, struct arena *arena) {
    struct answer answer;
    struct world w = {.quiet = true, .on_effect = note_done, .on_effect_ctx = &answer};
    struct buf before, after;
    world_open(&w);
    create(&w, p, &answer);
    CHECK(answer.err == ERR_OK && answer.created);
    struct policy kept = policy_of_engine(&w);
    check_text(&kept, arena);
    show(&before, &kept);
    create(&w, p, &answer);
    CHECK(answer.err == ERR_OK && !answer.created);
    struct policy_request shown;
    struct refusal f;
    CHECK(policy_read_text(buf_slice(&before), arena, &shown, &f));
    create(&w, &shown.policy, &answer);
    CHECK(answer.err == ERR_OK && !answer.created);
    world_crash(&w);
    kept = policy_of_engine(&w);
    CHECK(slice_eq(buf_slice(&before), show(&after, &kept)));
    store_end_reads(w.store);
    buf_free(&before);
    buf_free(&after);
    world_close(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena arena;
    struct policy_request r;
    struct refusal f = {.err = ERR_OK};
    arena_init(&arena);
    if (policy_read_text(slice_of(data, size), &arena, &r, &f)) {
        CHECK(r.start <= START_TIME);
        check_text(&r.policy, &arena);
        check_engine(&r.policy, &arena);
    } else {
        struct slice why = slice_str(f.message);
        CHECK(f.err == ERR_INVALID_REQUEST || f.err == ERR_PARAMETER_UNKNOWN ||
              f.err == ERR_BAD_POLICY || f.err == ERR_BAD_FILTER);
        CHECK(why.len > 0);
    }
    arena_free(&arena);
    return 0;
}
