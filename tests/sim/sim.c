/* The simulator: random commands, crashes, clocks, late durability, bad workers and networks on the
 * engine with a simulated disk, and an oracle that knows what must be true (oracle.h). At the end
 * of each run the faults stop, willing workers take everything, and every event must be accounted
 * for.
 *
 *   sim [--seed S] [--runs N] [--seconds T]   N seeds from S on, or as many as fit into T seconds
 *   sim --seed S --trace                      one run, with everything that was asked and said
 *   sim --seed S --only 3,17,40               the same run without its other steps
 *   --steps K    so many steps instead of the seed's own number
 *   --check N    engine_check after every N-th turn instead of the seed's own choice
 *   --shrink T   seconds to make a failing run short (30); 0: leave it as it is
 *
 * Without arguments: seeds and their number from BELLHOP_TEST_SEED and BELLHOP_RANDOM_RUNS, at most
 * BELLHOP_RANDOM_SECONDS. The runs are a forked child's: what aborts there is shrunk and traced
 * here, and the last line replays it. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/shrink.h"

#define RUNS_DEFAULT 300
#define SEED_SECONDS 120 /* a run takes milliseconds, with sanitizers a tenth of a second */
#define TWICE_ONE_IN 16  /* so many seeds are run again, to see that they say the same */
#define ONLY_MAX     100000

struct options {
    struct plan plan;
    uint64_t runs;
    uint32_t seconds, shrink_s; /* seconds 0: no limit */
    uint32_t *only;
};

/* Shared with the child that runs the seeds. */
struct tally {
    uint64_t seed; /* that is being run */
    uint64_t runs, engine_steps, turns, deliveries, crashes, confirmed, resumed, refused, lost;
    double busy_s; /* of one processor */
};

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t from_environment(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);
    return text != NULL && *text != 0 ? strtoull(text, NULL, 10) : otherwise;
}

/* ---- the child ---- */

static void add(struct tally *t, const struct oracle *o) {
    t->runs++;
    t->engine_steps += o->engine_steps;
    t->turns += o->turns;
    t->deliveries += o->deliveries;
    t->crashes += o->crashes;
    t->confirmed += o->confirmed_total;
    t->resumed += o->resumed;
    t->refused += o->refused;
    t->lost += o->lost;
}

static void run_all(const struct options *options, struct tally *t) {
    struct run *r = mem_alloc(sizeof *r);
    double began_s = seconds(CLOCK_MONOTONIC);
    for (uint64_t i = 0; i < options->runs; i++) {
        struct plan plan = options->plan;
        plan.seed += i;
        t->seed = plan.seed;
        alarm(SEED_SECONDS);
        run_seed(r, &plan);
        add(t, &r->o);
        if (plan.seed % TWICE_ONE_IN == 0 && !plan.trace) {
            uint64_t digest = r->o.digest;
            run_seed(r, &plan);
            CHECK(r->o.digest == digest); /* a seed replays exactly */
            add(t, &r->o);
            t->runs--;
        }
        t->busy_s = seconds(CLOCK_PROCESS_CPUTIME_ID);
        bool late = seconds(CLOCK_MONOTONIC) - began_s > options->seconds;
        if (options->seconds != 0 && late) break;
    }
    free(r);
}

/* ---- what went wrong ---- */

static void print_replay(const struct options *o, const struct plan *plan) {
    fprintf(stderr, "sim --seed %llu", (unsigned long long)plan->seed);
    if (plan->steps != 0) fprintf(stderr, " --steps %u", plan->steps);
    if (o->plan.check_every != 0) fprintf(stderr, " --check %u", o->plan.check_every);
    for (size_t i = 0; i < plan->only_count; i++) {
        fprintf(stderr, "%s%u", i == 0 ? " --only " : ",", plan->only[i]);
    }
    fputc('\n', stderr);
}

/* The run once more, for a person. */
static void trace(const struct plan *plan) {
    struct plan loud = *plan;
    loud.trace = true;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct run *r = mem_alloc(sizeof *r);
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        alarm(SEED_SECONDS);
        run_seed(r, &loud);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void explain(const struct options *o, uint64_t seed) {
    struct plan plan = o->plan;
    struct shrunk shrunk = {.steps = NULL};
    plan.seed = seed;
    fprintf(stderr, "\nseed %llu fails\n", (unsigned long long)seed);
    struct failure_place place = failure_of(&plan);
    if (place.text[0] == 0) {
        fprintf(stderr, "but not when it is run alone: memory, or a leak, or it does not replay\n");
    } else if (o->shrink_s != 0) {
        shrink(&plan, &place, o->shrink_s, &shrunk);
        plan.only = shrunk.steps;
        plan.only_count = shrunk.count;
        fprintf(stderr, "%s\nshrunk from %zu steps to %zu in %u tries%s\n", place.text, shrunk.from,
                shrunk.count, shrunk.tries, shrunk.minimal ? "" : ", then time was up");
        trace(&plan);
    }
    fprintf(stderr, "\nreplay: ");
    print_replay(o, &plan);
    free(shrunk.steps);
}

static void summary(const struct tally *t) {
    fprintf(stderr,
            "%llu seeds, %llu engine steps (%llu turns), %llu deliveries, %llu crashes, %llu "
            "confirmed acks, %llu claims granted, %llu refused, %llu answers lost: all hold; "
            "%.0f engine steps/s\n",
            (unsigned long long)t->runs, (unsigned long long)t->engine_steps,
            (unsigned long long)t->turns, (unsigned long long)t->deliveries,
            (unsigned long long)t->crashes, (unsigned long long)t->confirmed,
            (unsigned long long)t->resumed, (unsigned long long)t->refused,
            (unsigned long long)t->lost, (double)t->engine_steps / t->busy_s);
}

static int run_in_child(const struct options *o) {
    int status = 0;
    struct tally *t =
        mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(t != MAP_FAILED);
    t->seed = o->plan.seed;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        run_all(o, t);
        exit(0);
    }
    pid_t ended = waitpid(child, &status, 0);
    CHECK(ended == child);
    if (status == 0) summary(t);
    else explain(o, t->seed);
    munmap(t, sizeof *t);
    return status == 0 ? 0 : 1;
}

/* ---- arguments ---- */

_Noreturn static void usage(void) {
    fprintf(stderr,
            "usage: sim [--seed S] [--runs N] [--seconds T] [--steps K] [--check N] "
            "[--trace] [--only 3,17,40] [--shrink T]\n");
    exit(2);
}

static uint64_t number(const char *text, char **end) {
    if (*text < '0' || *text > '9') usage();
    return strtoull(text, end, 10);
}

static uint64_t whole_number(const char *text) {
    char *end;
    uint64_t n = number(text, &end);
    if (*end != 0) usage();
    return n;
}

static void parse_only(struct options *o, char *at) {
    free(o->only);
    o->only = mem_alloc(ONLY_MAX * sizeof *o->only);
    size_t n = 0;
    for (; n < ONLY_MAX; at++) {
        o->only[n++] = (uint32_t)number(at, &at);
        if (n > 1 && o->only[n - 1] <= o->only[n - 2]) usage();
        if (*at == 0) break;
        if (*at != ',') usage();
    }
    o->plan.only = o->only;
    o->plan.only_count = n;
}

static void parse(struct options *o, int argc, char **argv) {
    static const struct option names[] = {
        {"seed", required_argument, NULL, 's'},
        {"runs", required_argument, NULL, 'r'},
        {"seconds", required_argument, NULL, 't'},
        {"steps", required_argument, NULL, 'k'},
        {"check", required_argument, NULL, 'c'},
        {"shrink", required_argument, NULL, 'x'},
        {"only", required_argument, NULL, 'o'},
        {"trace", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    bool seeded = false, counted = false;
    o->plan.seed = from_environment("BELLHOP_TEST_SEED", 1);
    o->runs = from_environment("BELLHOP_RANDOM_RUNS", RUNS_DEFAULT);
    o->seconds = (uint32_t)from_environment("BELLHOP_RANDOM_SECONDS", 0);
    o->shrink_s = 30;
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        seeded |= c == 's';
        counted |= c == 'r';
        switch (c) {
        case 's': o->plan.seed = whole_number(optarg); break;
        case 'r': o->runs = whole_number(optarg); break;
        case 't': o->seconds = (uint32_t)whole_number(optarg); break;
        case 'k': o->plan.steps = (uint32_t)whole_number(optarg); break;
        case 'c': o->plan.check_every = (uint32_t)whole_number(optarg); break;
        case 'x': o->shrink_s = (uint32_t)whole_number(optarg); break;
        case 'o': parse_only(o, optarg); break;
        case 'v': o->plan.trace = true; break;
        default: usage();
        }
    }
    if (optind < argc || o->plan.steps >= STEP_END - SUBS) usage();
    if (seeded && !counted) o->runs = o->seconds != 0 ? UINT64_MAX : 1;
}

int main(int argc, char **argv) {
    struct options o = {.runs = 0};
    int code = 0;
    parse(&o, argc, argv);
    if (o.plan.trace || o.plan.only != NULL) {
        struct tally t = {.runs = 0};
        run_all(&o, &t);
        summary(&t);
    } else {
        code = run_in_child(&o);
    }
    free(o.only);
    return code;
}
