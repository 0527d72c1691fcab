/* What it costs to know many ids: bench_dedupe DIR [IDS]. Publishes so many small events with ids
 * of their own into a new store in DIR, restarts, and says the memory and the times. Every id is
 * then sent again in part, and must be known. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "broker/engine/engine.h"
#include "storage/store.h"

#define IDS_DEFAULT 10000000
#define MAP_BYTES   (64ULL << 30)
#define AGAIN_STEP  1009 /* of the ids, every so many are sent again */

struct bench {
    struct store *store;
    struct engine *engine;
    uint64_t ids;
    uint64_t duplicates;
};

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Anonymous memory: LMDB's map is file memory. */
static double anon_mib(void) {
    char line[256];
    double kib = 0;
    FILE *f = fopen("/proc/self/status", "re");
    CHECK(f != NULL);
    while (fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "RssAnon:", 8) == 0) kib = strtod(line + 8, NULL);
    }
    fclose(f);
    return kib / 1024;
}

static void on_durable(void *ctx, struct batch *batch) {
    struct bench *b = ctx;
    struct engine_turn *turn = CONTAINER_OF(batch, struct engine_turn, batch);
    engine_durable(b->engine, turn);
    for (size_t i = 0; i < turn->effects_count; i++) {
        const struct effect *f = &turn->effects[i];
        for (size_t k = 0; k < f->u.published.count; k++) {
            b->duplicates += f->u.published.results[k].duplicate;
        }
    }
    engine_turn_done(b->engine, turn);
}

static void open_engine(struct bench *b, struct engine_time time) {
    const struct engine_options options = {
        .seed = 1, .dedupe_ids = (uint32_t)b->ids, .dedupe_ms = 24ULL * 3600 * 1000};
    char error[512];
    if (engine_open(&b->engine, b->store, &options, time, error, sizeof error) != 0) {
        fprintf(stderr, "bench_dedupe: %s\n", error);
        exit(1);
    }
    engine_set_room(b->engine, true);
}

/* Ids from, from + step, ... below b->ids, in commands of the largest size and turns of eight. */
static void publish(struct bench *b, uint64_t from, uint64_t step, struct engine_time time) {
    static struct event events[LIMIT_PUBLISH_EVENTS];
    static char texts[LIMIT_PUBLISH_EVENTS][32];
    for (uint64_t at = from; at < b->ids;) {
        for (int commands = 0; commands < 8 && at < b->ids; commands++) {
            size_t count = 0;
            for (; count < LIMIT_PUBLISH_EVENTS && at < b->ids; count++, at += step) {
                snprintf(texts[count], sizeof texts[count], "msg_%016llx",
                         (unsigned long long)(at * 0x9e3779b97f4a7c15ULL));
                events[count] =
                    (struct event){.source = slice_str("bench"), .id = slice_str(texts[count])};
            }
            const struct command c = {.kind = COMMAND_PUBLISH,
                                      .project = PROJECT_DEFAULT,
                                      .u.publish = {.events = events, .count = count}};
            engine_step(b->engine, time, &c);
        }
        struct engine_turn *turn = engine_end_turn(b->engine, time);
        if (turn != NULL && store_submit(b->store, &turn->batch) != 0) {
            fprintf(stderr, "bench_dedupe: %s\n", b->store->error);
            exit(1);
        }
        store_end_reads(b->store);
    }
}

int main(int argc, char **argv) {
    struct bench b = {.ids = argc > 2 ? strtoull(argv[2], NULL, 10) : IDS_DEFAULT};
    const struct engine_time time = {.now_ms = 1000, .wall_ms = 1795251600000};
    char error[512];
    if (argc < 2 || b.ids == 0 || b.ids > UINT32_MAX) {
        fprintf(stderr, "bench_dedupe DIR [IDS]\n");
        return 2;
    }
    const struct lmdb_options options = {
        .directory = argv[1], .map_bytes = MAP_BYTES, .headroom_bytes = 1 << 20};
    if (lmdb_store_open(&b.store, &options, error, sizeof error) != 0) {
        fprintf(stderr, "bench_dedupe: %s\n", error);
        return 1;
    }
    b.store->on_durable = on_durable;
    b.store->on_durable_ctx = &b;
    open_engine(&b, time);
    double began = now_s(), empty = anon_mib();
    publish(&b, 0, 1, time);
    printf("%llu ids published in %.1f s\n", (unsigned long long)b.ids, now_s() - began);
    engine_close(&b.engine);
    empty = anon_mib();
    began = now_s();
    open_engine(&b, time);
    double took = now_s() - began, mib = anon_mib() - empty;
    printf("start: %.2f s\nmemory: %.1f MiB, %.1f bytes an id\n", took, mib,
           mib * 1024 * 1024 / (double)b.ids);
    began = now_s();
    publish(&b, 0, AGAIN_STEP, time);
    uint64_t again = (b.ids + AGAIN_STEP - 1) / AGAIN_STEP;
    printf("%llu of %llu repeats known, %.1f us each\n", (unsigned long long)b.duplicates,
           (unsigned long long)again, (now_s() - began) / (double)again * 1e6);
    engine_close(&b.engine);
    store_close(b.store);
    return b.duplicates == again ? 0 : 1;
}
