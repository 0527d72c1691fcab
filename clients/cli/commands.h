/* commands.h: every command of bellhop: the table, and the functions it names.
 *
 * Each command reads its words with args_word and its options with args_get, says on stderr what
 * is wrong, and returns the program's exit code (cli.h).
 *
 * May call: args, cli. */
#ifndef CLI_COMMANDS_H
#define CLI_COMMANDS_H

#include "clients/cli/args.h"

extern const struct command commands[];
extern const size_t commands_count;

int cmd_status(struct cli *cli, const struct args *args);
int cmd_top(struct cli *cli, const struct args *args);
int cmd_source_add(struct cli *cli, const struct args *args);
int cmd_source_update(struct cli *cli, const struct args *args);
int cmd_source_show(struct cli *cli, const struct args *args);
int cmd_source_test(struct cli *cli, const struct args *args);
int cmd_source_ls(struct cli *cli, const struct args *args);
int cmd_source_rm(struct cli *cli, const struct args *args);
int cmd_sub_create(struct cli *cli, const struct args *args);
int cmd_sub_update(struct cli *cli, const struct args *args);
int cmd_sub_ls(struct cli *cli, const struct args *args);
int cmd_sub_show(struct cli *cli, const struct args *args);
int cmd_sub_stats(struct cli *cli, const struct args *args);
int cmd_sub_pause(struct cli *cli, const struct args *args);
int cmd_sub_resume(struct cli *cli, const struct args *args);
int cmd_sub_seek(struct cli *cli, const struct args *args);
int cmd_sub_rm(struct cli *cli, const struct args *args);
int cmd_publish(struct cli *cli, const struct args *args);
int cmd_send(struct cli *cli, const struct args *args);
int cmd_work(struct cli *cli, const struct args *args);
int cmd_listen(struct cli *cli, const struct args *args);
int cmd_webhook_create(struct cli *cli, const struct args *args);
int cmd_webhook_ls(struct cli *cli, const struct args *args);
int cmd_webhook_show(struct cli *cli, const struct args *args);
int cmd_webhook_update(struct cli *cli, const struct args *args);
int cmd_webhook_rm(struct cli *cli, const struct args *args);
int cmd_webhook_ping(struct cli *cli, const struct args *args);
int cmd_webhook_rotate(struct cli *cli, const struct args *args);
int cmd_webhook_enable(struct cli *cli, const struct args *args);
int cmd_webhook_disable(struct cli *cli, const struct args *args);
int cmd_webhook_pause(struct cli *cli, const struct args *args);
int cmd_webhook_resume(struct cli *cli, const struct args *args);
int cmd_webhook_attempts(struct cli *cli, const struct args *args);
int cmd_webhook_resend(struct cli *cli, const struct args *args);
int cmd_webhook_recover(struct cli *cli, const struct args *args);
int cmd_webhook_keys(struct cli *cli, const struct args *args);
int cmd_webhook_rotate_key(struct cli *cli, const struct args *args);
int cmd_webhook_endpoints(struct cli *cli, const struct args *args);
int cmd_event_types(struct cli *cli, const struct args *args);
int cmd_key_create(struct cli *cli, const struct args *args);
int cmd_key_ls(struct cli *cli, const struct args *args);
int cmd_key_revoke(struct cli *cli, const struct args *args);
int cmd_project_create(struct cli *cli, const struct args *args);
int cmd_project_ls(struct cli *cli, const struct args *args);
int cmd_project_show(struct cli *cli, const struct args *args);
int cmd_project_rm(struct cli *cli, const struct args *args);
int cmd_job_put(struct cli *cli, const struct args *args);
int cmd_job_show(struct cli *cli, const struct args *args);
int cmd_wait(struct cli *cli, const struct args *args);
int cmd_tail(struct cli *cli, const struct args *args);
int cmd_replay(struct cli *cli, const struct args *args);
int cmd_replay_ls(struct cli *cli, const struct args *args);
int cmd_replay_show(struct cli *cli, const struct args *args);
int cmd_replay_cancel(struct cli *cli, const struct args *args);
int cmd_dlq_ls(struct cli *cli, const struct args *args);
int cmd_dlq_show(struct cli *cli, const struct args *args);
int cmd_dlq_redrive(struct cli *cli, const struct args *args);
int cmd_dlq_purge(struct cli *cli, const struct args *args);
int cmd_retention_show(struct cli *cli, const struct args *args);
int cmd_retention_set(struct cli *cli, const struct args *args);

#endif
