/* task.h: tasks of the broker (replays, dry runs, redrives, purges): started, waited for, in words.
 *
 * May call: api, output, cli. */
#ifndef CLI_TASK_H
#define CLI_TASK_H

#include "clients/cli/api.h"

/* POSTs the request (takes it) and says what was started. With --wait it goes on until the task is
 * over, and says that too; `quietly`: only that. Returns an exit code; a task that somebody
 * cancelled meanwhile is CLI_REFUSED. */
int task_start(struct cli *cli, const char *path, json_t *request, bool wait, bool quietly);
/* "finished replay 7 to batches: seq 100 to 200, 27 acked". The caller frees. */
char *task_show(struct slice task);

#endif
