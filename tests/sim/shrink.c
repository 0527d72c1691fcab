#include "tests/sim/shrink.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUN_SECONDS  60 /* a run takes milliseconds: what takes so long hangs */
#define OUTPUT_BYTES 65536

static void quiet_child(const struct plan *plan, int output) {
    struct run *r = mem_alloc(sizeof *r);
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    alarm(RUN_SECONDS);
    run_seed(r, plan);
    _exit(0);
}

/* The line that says what is wrong, without what differs from run to run. */
static void place_from(char *output, int status, struct failure_place *out) {
    static const char *const marks[] = {
        "check failed: ", "SUMMARY: ", "runtime error: ", "out of memory"};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        char *at = strstr(output, marks[i]);
        if (at == NULL) continue;
        while (at > output && at[-1] != '\n') at--;
        snprintf(out->text, sizeof out->text, "%.*s", (int)strcspn(at, "\n"), at);
        return;
    }
    if (WIFSIGNALED(status)) {
        int number = WTERMSIG(status);
        snprintf(out->text, sizeof out->text, "signal %d%s", number,
                 number == SIGALRM ? ": it does not end" : "");
    } else {
        snprintf(out->text, sizeof out->text, "exit code %d", WEXITSTATUS(status));
    }
}

struct failure_place failure_of(const struct plan *plan) {
    struct failure_place out = {.text = ""};
    struct plan quiet = *plan;
    char *text = mem_zalloc(OUTPUT_BYTES);
    int output = memfd_create("sim", 0), status = 0;
    uint32_t *step =
        mmap(NULL, sizeof *step, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(output >= 0 && step != MAP_FAILED);
    quiet.trace = false;
    quiet.step = step;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) quiet_child(&quiet, output);
    pid_t ended = waitpid(child, &status, 0);
    CHECK(ended == child);
    if (status != 0) {
        ssize_t got = pread(output, text, OUTPUT_BYTES - 1, 0);
        CHECK(got >= 0);
        place_from(text, status, &out);
        out.step = *step;
    }
    munmap(step, sizeof *step);
    close(output);
    free(text);
    return out;
}

struct search {
    const struct plan *plan;
    const struct failure_place *place;
    struct shrunk *best;
    uint32_t *candidate;
    time_t until;
};

static time_t now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec;
}

/* Leaves out [from, from + count) of the best list. True: it still fails there. */
static bool without(struct search *s, size_t from, size_t count) {
    struct shrunk *best = s->best;
    struct plan plan = *s->plan;
    size_t kept = 0;
    for (size_t i = 0; i < best->count; i++) {
        if (i < from || i >= from + count) s->candidate[kept++] = best->steps[i];
    }
    plan.only = s->candidate;
    plan.only_count = kept;
    best->tries++;
    struct failure_place place = failure_of(&plan);
    if (strcmp(place.text, s->place->text) != 0) return false;
    memcpy(best->steps, s->candidate, kept * sizeof *s->candidate);
    best->count = kept;
    /* What comes after the place does not matter. */
    while (best->count > 0 && best->steps[best->count - 1] > place.step) best->count--;
    return true;
}

void shrink(const struct plan *plan, const struct failure_place *place, uint32_t seconds,
            struct shrunk *out) {
    size_t all = plan->only != NULL ? plan->only_count : run_steps(plan);
    *out = (struct shrunk){.steps = mem_alloc(all * sizeof *out->steps), .from = all};
    struct search s = {.plan = plan,
                       .place = place,
                       .best = out,
                       .candidate = mem_alloc(all * sizeof *s.candidate),
                       .until = now_s() + seconds};
    for (size_t i = 0; i < all; i++) {
        uint32_t number = plan->only != NULL ? plan->only[i] : (uint32_t)i + 1;
        if (number <= place->step) out->steps[out->count++] = number;
    }
    size_t chunk = (out->count + 1) / 2;
    while (out->count > 0 && now_s() < s.until) {
        bool any = false;
        /* From the end: what comes late depends on what was early. */
        for (size_t end = out->count; end > 0 && now_s() < s.until;) {
            size_t from = end > chunk ? end - chunk : 0;
            any |= without(&s, from, end - from);
            end = from < out->count ? from : out->count;
        }
        if (chunk == 1 && !any) {
            out->minimal = true;
            break;
        }
        if (chunk > 1) chunk = (chunk + 1) / 2;
    }
    free(s.candidate);
}
