/* Jobs that clients have registered. */
#include "proto/limits.h"
#include "storage/record.h"
#include "storage/record_bytes.h"

#define JOB_VERSION 2 /* 2: project */
#define JOB_BYTES   (4 + 5 * 8 + 1 + 4 * 2)

_Static_assert(LIMIT_EVENT_SUBJECT_BYTES <= UINT16_MAX, "the id has a u16 length");
_Static_assert(LIMIT_EVENT_ENDPOINTS_BYTES <= UINT16_MAX, "endpoints have a u16 length");
_Static_assert(LIMIT_EVENT_METADATA_BYTES <= UINT16_MAX, "metadata has a u16 length");

struct slice record_job_encode(struct arena *a, const struct record_job *j) {
    CHECK(j->id.len <= LIMIT_EVENT_SUBJECT_BYTES && j->count <= LIMIT_JOB_EVENTS);
    CHECK(j->endpoints.len <= LIMIT_EVENT_ENDPOINTS_BYTES);
    CHECK(j->metadata.len <= LIMIT_EVENT_METADATA_BYTES);
    size_t texts = j->id.len + j->endpoints.len + j->metadata.len;
    struct writer w = record_start(a, JOB_VERSION, JOB_BYTES + texts + (size_t)j->count * (8 + 1));
    write_u32(&w, j->project);
    write_u64(&w, j->created_at_ms);
    write_u64(&w, j->updated_at_ms);
    write_u64(&w, j->due_at_ms);
    write_u64(&w, j->ended_at_ms);
    write_u64(&w, j->events_total);
    write_u8(&w, j->flags);
    write_u16(&w, j->id.len);
    write_u16(&w, j->endpoints.len);
    write_u16(&w, j->metadata.len);
    write_u16(&w, j->count);
    write_slice(&w, j->id);
    write_slice(&w, j->endpoints);
    write_slice(&w, j->metadata);
    for (uint32_t i = 0; i < j->count; i++) {
        write_u64(&w, j->seqs[i]);
        write_u8(&w, j->states[i]);
    }
    return record_seal(&w);
}

static bool read_noted(struct reader *r, struct arena *a, struct record_job *j) {
    uint64_t *seqs = arena_alloc(a, j->count * sizeof *seqs);
    uint8_t *states = arena_alloc(a, j->count);
    for (uint32_t i = 0; i < j->count; i++) {
        seqs[i] = read_u64(r);
        states[i] = read_u8(r);
        if (seqs[i] <= (i == 0 ? 0 : seqs[i - 1])) return false;
    }
    j->seqs = seqs;
    j->states = states;
    return true;
}

bool record_job_decode(struct arena *a, struct slice value, struct record_job *out) {
    struct reader r = record_open(value, JOB_VERSION);
    struct record_job j = {.project = r.version < 2 ? PROJECT_DEFAULT : read_u32(&r)};
    j.created_at_ms = read_u64(&r);
    j.updated_at_ms = read_u64(&r);
    j.due_at_ms = read_u64(&r);
    j.ended_at_ms = read_u64(&r);
    j.events_total = read_u64(&r);
    j.flags = read_u8(&r);
    j.id.len = read_u16(&r);
    j.endpoints.len = read_u16(&r);
    j.metadata.len = read_u16(&r);
    j.count = read_u16(&r);
    j.id = read_slice(&r, j.id.len);
    j.endpoints = read_slice(&r, j.endpoints.len);
    j.metadata = read_slice(&r, j.metadata.len);
    if (r.bad || j.count > LIMIT_JOB_EVENTS || !read_noted(&r, a, &j)) return false;
    if (!record_done(&r)) return false;
    *out = j;
    return true;
}
