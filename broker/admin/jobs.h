/* jobs.h: what the files of /v1/jobs share. May call: room.h, answer.h, engine, base. */
#ifndef ADMIN_JOBS_H
#define ADMIN_JOBS_H

#include "broker/admin/answer.h"

/* The job's id from the end of a path: percent-decoded into the arena. */
bool job_id_read(struct admin *a, struct slice raw, struct slice *out, struct refusal *f);
/* Appends a job's members. */
void put_job(struct admin *a, struct buf *b, const struct job_info *job);
/* Answers 404 for an id that is not registered. */
void job_answer_unknown(struct admin *a, uint64_t handle, struct slice id);

#endif
