#include <stdlib.h>

#include "clients/cli/commands.h"
#include "clients/cli/list.h"
#include "clients/cli/output.h"

static void line(struct table *t, const char *label, char *value) {
    table_add(t, mem_strdup(label));
    table_add(t, value);
}

static char *blocked_line(struct slice status) {
    char *name = json_show(status, "blocked_by");
    char *project = json_show(status, "blocked_by_project"); /* "": the operator's own */
    char *text = name[0] == '\0'
                     ? mem_strdup("")
                     : text_printf(": FULL, publishes are refused because of %s%s%s", name,
                                   project[0] == '\0' ? "" : " of project ", project);
    free(project);
    free(name);
    return text;
}

static char *journal_line(struct slice status) {
    uint64_t first = json_number(status, "journal.first_seq", 0);
    uint64_t last = json_number(status, "journal.last_seq", 0);
    if (last == 0 || last < first) return mem_strdup("empty");
    char *bytes = text_bytes(json_number(status, "journal_bytes", 0));
    char *blocked = blocked_line(status);
    char *text = text_printf("seq %llu to %llu, %s%s", (unsigned long long)first,
                             (unsigned long long)last, bytes, blocked);
    free(bytes);
    free(blocked);
    return text;
}

static char *store_line(struct slice status) {
    char *used = text_bytes(json_number(status, "store.bytes_used", 0));
    char *max = text_bytes(json_number(status, "store.bytes_max", 0));
    char *disk = text_bytes(json_number(status, "store.disk_free", 0));
    struct slice room;
    bool full = json_find(status, "room", &room) && slice_eq_str(room, "false");
    char *text = text_printf("%s of %s, disk has %s free%s", used, max, disk,
                             full ? ": NO ROOM, new events are refused" : "");
    free(used);
    free(max);
    free(disk);
    return text;
}

static char *counts(struct slice status, const char *const *paths, const char *const *labels) {
    char *text = mem_strdup("");
    for (size_t i = 0; paths[i] != NULL; i++) {
        char *longer = text_printf("%s%s%llu %s", text, i == 0 ? "" : ", ",
                                   (unsigned long long)json_number(status, paths[i], 0), labels[i]);
        free(text);
        text = longer;
    }
    return text;
}

/* Whoever is furthest behind, by name, and why: the first thing to look at. */
static void behind_lines(struct table *t, struct slice status) {
    struct slice list, key, item;
    struct json_walk walk;
    const char *label = "behind";
    if (!json_find(status, "behind", &list) || !json_walk_open(&walk, list)) return;
    for (; json_walk_next(&walk, &key, &item); label = "") {
        char *name = json_show(item, "name"), *why = json_show(item, "why_idle");
        char *age = text_duration(json_number(item, "oldest_ms", 0));
        unsigned long long positions = json_number(item, "positions", 0);
        line(t, label,
             text_printf("%s by %llu event%s, oldest %s (%s)", name, positions,
                         positions == 1 ? "" : "s", age, why));
        free(name);
        free(why);
        free(age);
    }
}

static char *broker_line(struct slice status) {
    char *version = json_show(status, "version");
    char *pid = json_show(status, "pid"); /* "": not for this key */
    char *up = text_duration(json_number(status, "uptime_ms", 0));
    char *text = text_printf("%s%s%s, up %s", version, pid[0] == '\0' ? "" : ", process ", pid, up);
    free(version);
    free(pid);
    free(up);
    return text;
}

/* What the broker tells its operator only. */
static bool shows_broker(struct slice status) {
    struct slice journal;
    return json_find(status, "journal", &journal);
}

static char *project_line(struct slice status) {
    char *name = json_show(status, "project");
    struct slice room;
    bool full = json_find(status, "room", &room) && slice_eq_str(room, "false");
    char *text = text_printf("%s%s", name, full ? ": NO ROOM, new events are refused" : "");
    free(name);
    return text;
}

static char *all_projects_line(struct slice status) {
    static const char *const paths[] = {"all_projects.projects", "all_projects.subscriptions",
                                        "all_projects.totals.published",
                                        "all_projects.totals.acked", NULL};
    static const char *const labels[] = {"projects", "subscriptions", "journaled", "acked"};
    return counts(status, paths, labels);
}

int cmd_status(struct cli *cli, const struct args *args) {
    (void)args;
    struct http_reply reply;
    int error = http_get(cli->http, "/v1/status", &reply);
    if (error != 0) return error;
    struct slice status = buf_slice(&reply.body);
    if (cli->json) {
        list_print_json(status);
    } else {
        static const char *const in_paths[] = {"totals.published", "totals.duplicates",
                                               "totals.refused", NULL};
        static const char *const in_labels[] = {"journaled", "duplicates", "refused"};
        static const char *const out_paths[] = {"totals.delivered", "totals.acked", "totals.nacked",
                                                "totals.expired",   "totals.dead",  NULL};
        static const char *const out_labels[] = {"delivered", "acked", "nacked", "expired", "dead"};
        static const char *const task_paths[] = {"tasks_running", NULL};
        static const char *const task_labels[] = {"running"};
        static const char *const peer_paths[] = {"connections.http", "connections.workers", NULL};
        static const char *const peer_labels[] = {"http", "workers"};
        static const char *const heads[] = {"", "", NULL};
        struct table t;
        table_init(&t, heads);
        line(&t, "broker", broker_line(status));
        line(&t, "http", json_show(status, "http"));
        line(&t, "workers", json_show(status, "workers"));
        if (shows_broker(status)) {
            line(&t, "journal", journal_line(status));
            line(&t, "store", store_line(status));
        }
        if (json_number(status, "all_projects.projects", 1) > 1) {
            line(&t, "all projects", all_projects_line(status));
            line(&t, "project", json_show(status, "project"));
        } else if (!shows_broker(status)) {
            line(&t, "project", project_line(status));
        }
        line(&t, "in", counts(status, in_paths, in_labels));
        line(&t, "out", counts(status, out_paths, out_labels));
        line(&t, "sources", json_show(status, "sources"));
        line(&t, "subscriptions", json_show(status, "subscriptions"));
        behind_lines(&t, status);
        line(&t, "replays", counts(status, task_paths, task_labels));
        if (shows_broker(status)) line(&t, "connections", counts(status, peer_paths, peer_labels));
        table_print(&t, stdout, cli, "", "");
    }
    buf_free(&reply.body);
    return CLI_OK;
}
