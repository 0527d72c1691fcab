#include "clients/cli/top.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients/cli/list.h"
#include "clients/cli/output.h"

#define REQUEST_MS 5000
#define PATH_BYTES 4096
#define TOTAL_BYTES                                                                                \
    (256 * 1024 * 1024) /* of all subscriptions: 64 KiB each, 4096 of the largest                  \
                         */

static bool is_passing(long status) {
    return status == 429 || status >= 500;
}

static int get(struct top *t, struct cli *cli, const char *path, struct buf *out) {
    struct http_reply reply;
    int error = http_try(
        cli->http, &(struct http_request){.method = "GET", .path = path, .timeout_ms = REQUEST_MS},
        &reply);
    if (error != 0) return error;
    if (reply.status == 200) {
        *out = reply.body;
        return 0;
    }
    t->refused = reply;
    t->is_refused = true;
    return is_passing(reply.status) ? CLI_UNAVAILABLE : CLI_REFUSED;
}

static double real(struct slice object, const char *field) {
    char *text = json_show(object, field);
    double value = strtod(text, NULL);
    free(text);
    return value;
}

static void add_row(struct top *t, struct slice sub, const char *holder) {
    if (t->rows_count == t->rows_room) {
        t->rows_room = t->rows_room == 0 ? 64 : t->rows_room * 2;
        t->rows = mem_realloc(t->rows, t->rows_room * sizeof(*t->rows));
    }
    struct top_row *row = &t->rows[t->rows_count++];
    *row = (struct top_row){
        .name = json_show(sub, "name"),
        .why_idle = json_show(sub, "why_idle"),
        .backlog = json_number(sub, "backlog", 0),
        .ready = json_number(sub, "ready", 0),
        .leased = json_number(sub, "leased", 0),
        .delayed = json_number(sub, "delayed", 0),
        .blocked = json_number(sub, "blocked", 0),
        .dead = json_number(sub, "dead", 0),
        .oldest_ms = json_number(sub, "oldest_ms", 0),
        .in_per_s = real(sub, "in_per_s"),
        .out_per_s = real(sub, "out_per_s"),
    };
    row->holds = holder[0] != '\0' && strcmp(row->name, holder) == 0;
}

/* One page; *token becomes that of the next, "" after the last. */
static int read_page(struct top *t, struct cli *cli, const char *holder, char **token) {
    struct buf path, page;
    struct slice items, key, item;
    struct json_walk walk;
    buf_init(&path, PATH_BYTES);
    buf_append_str(&path, "/v1/subscriptions?page_size=1000");
    if ((*token)[0] != '\0') http_query(&path, "page_token", *token);
    buf_append_byte(&path, '\0');
    CHECK(!path.overflow);
    int error = get(t, cli, (const char *)path.data, &page);
    buf_free(&path);
    if (error != 0) return error;
    if (!json_find(buf_slice(&page), "subscriptions", &items) || !json_walk_open(&walk, items)) {
        buf_free(&page);
        return CLI_INTERNAL;
    }
    while (json_walk_next(&walk, &key, &item)) {
        if (t->rows_count > 0) buf_append_str(&t->subscriptions, ",");
        buf_append_slice(&t->subscriptions, item);
        add_row(t, item, holder);
    }
    free(*token);
    *token = json_show(buf_slice(&page), "next_page_token");
    buf_free(&page);
    return t->subscriptions.overflow ? CLI_INTERNAL : 0;
}

static int compare_u64(uint64_t a, uint64_t b) {
    return a > b ? -1 : a < b; /* the larger one first */
}

static int by_name(const void *a, const void *b) {
    const struct top_row *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static int by_trouble(const void *a, const void *b) {
    const struct top_row *x = a, *y = b;
    int order = compare_u64(x->holds, y->holds);
    if (order == 0) order = compare_u64(x->blocked, y->blocked);
    if (order == 0) order = compare_u64(x->dead, y->dead);
    if (order == 0) order = compare_u64(x->oldest_ms, y->oldest_ms);
    return order != 0 ? order : by_name(a, b);
}

/* A key that is not the operator's hears of its project only, and retention is not for it. */
static bool shows_broker(const struct top *t) {
    struct slice status = buf_slice(&t->status), found;
    return !json_find(status, "project", &found) || json_find(status, "journal", &found);
}

/* The subscription that holds retention up, where it is one of those that are listed. */
static char *holder_name(const struct top *t) {
    struct slice project;
    if (json_find(buf_slice(&t->retention), "blocked_by_project", &project)) return mem_strdup("");
    return json_show(buf_slice(&t->retention), "blocked_by");
}

int top_read(struct top *t, struct cli *cli, bool names) {
    *t = (struct top){0};
    buf_init(&t->subscriptions, TOTAL_BYTES);
    char *token = mem_strdup(""), *holder = NULL;
    int error = get(t, cli, "/v1/status", &t->status);
    if (error == 0 && shows_broker(t)) error = get(t, cli, "/v1/retention", &t->retention);
    if (error == 0) holder = holder_name(t);
    while (error == 0) {
        error = read_page(t, cli, holder, &token);
        if (token[0] == '\0') break;
    }
    if (t->rows_count > 0) {
        qsort(t->rows, t->rows_count, sizeof(*t->rows), names ? by_name : by_trouble);
    }
    free(token);
    free(holder);
    return error;
}

void top_complain(const struct top *t, const struct cli *cli, int error) {
    if (t->is_refused) {
        http_refused(&t->refused);
    } else if (error == CLI_INTERNAL) {
        cli_complain("%s/v1/subscriptions answered something that cannot be understood",
                     http_url(cli->http));
    } else {
        http_complain(cli->http);
    }
}

void top_free(struct top *t) {
    for (size_t i = 0; i < t->rows_count; i++) {
        free(t->rows[i].name);
        free(t->rows[i].why_idle);
    }
    free(t->rows);
    buf_free(&t->status);
    buf_free(&t->retention);
    buf_free(&t->subscriptions);
    if (t->is_refused) buf_free(&t->refused.body);
    *t = (struct top){0};
}

void top_print_json(const struct top *t) {
    fputs("{\"status\":", stdout);
    json_write(stdout, buf_slice(&t->status));
    if (shows_broker(t)) {
        fputs(",\"retention\":", stdout);
        json_write(stdout, buf_slice(&t->retention));
    }
    fputs(",\"subscriptions\":[", stdout);
    json_write(stdout, buf_slice(&t->subscriptions));
    fputs("]}\n", stdout);
}

/* "journal 81.2 KiB, seq 17 to 99; blocked by batches" */
static char *journal_text(const struct top *t) {
    struct slice retention = buf_slice(&t->retention), room;
    unsigned long long oldest = json_number(retention, "oldest_seq", 0);
    unsigned long long newest = json_number(retention, "newest_seq", 0);
    char *size = text_bytes(json_number(retention, "journal_bytes", 0));
    char *holder = json_show(retention, "blocked_by");
    char *project = json_show(retention, "blocked_by_project");
    char *range = newest == 0 || newest < oldest ? mem_strdup("empty")
                                                 : text_printf("seq %llu to %llu", oldest, newest);
    bool full = json_find(buf_slice(&t->status), "room", &room) && slice_eq_str(room, "false");
    char *text = text_printf(
        "journal %s, %s%s%s%s%s%s", size, range, holder[0] != '\0' ? "; BLOCKED BY " : "", holder,
        project[0] != '\0' ? " OF PROJECT " : "", project, full ? "; NO ROOM" : "");
    free(project);
    free(size);
    free(holder);
    free(range);
    return text;
}

/* The same for who sees no journal: "project billing". */
static char *project_text(const struct top *t) {
    struct slice status = buf_slice(&t->status), room;
    char *name = json_show(status, "project");
    bool full = json_find(status, "room", &room) && slice_eq_str(room, "false");
    char *text = text_printf("project %s%s", name, full ? "; NO ROOM" : "");
    free(name);
    return text;
}

static char *workers_text(const struct top *t) {
    uint64_t workers = json_number(buf_slice(&t->status), "connections.workers", 0);
    if (!shows_broker(t)) return mem_strdup("");
    char *number = text_count(workers, "worker connection");
    char *text = text_printf(", %s", number);
    free(number);
    return text;
}

static void add_heading(const struct top *t, FILE *out) {
    struct slice status = buf_slice(&t->status);
    char *journal = shows_broker(t) ? journal_text(t) : project_text(t);
    text_clean(journal);
    char *subs = text_count(t->rows_count, "subscription");
    char *workers = workers_text(t);
    char *replays = text_count(json_number(status, "tasks_running", 0), "replay");
    fprintf(out, "%s\n%s%s, %s running\n\n", journal, subs, workers, replays);
    free(subs);
    free(workers);
    free(replays);
    free(journal);
}

static char *count(uint64_t number) {
    return text_printf("%llu", (unsigned long long)number);
}

static char *rate(double per_s) {
    return text_printf(per_s < 100 ? "%.1f" : "%.0f", per_s);
}

#define NARROW_COLUMNS 100 /* below: no column for BLOCKED, one blank between the others */
#define NAME_COLUMNS   8   /* a name is not cut to less */

/* One row per subscription with the names cut to `name` characters (0: whole). */
static void add_table(const struct top *t, FILE *out, size_t rows, bool narrow, size_t name) {
    static const char *const wide_heads[] = {"NAME",     ">BACKLOG", ">READY",   ">LEASED",
                                             ">DELAYED", ">BLOCKED", ">DEAD",    ">OLDEST",
                                             ">IN/S",    ">OUT/S",   "WHY IDLE", NULL};
    static const char *const narrow_heads[] = {"NAME",     ">BACKLOG", ">READY",  ">LEASED",
                                               ">DELAYED", ">DEAD",    ">OLDEST", ">IN/S",
                                               ">OUT/S",   "WHY IDLE", NULL};
    struct cli plain = {0};
    struct table table;
    table_init(&table, narrow ? narrow_heads : wide_heads);
    table.tight = narrow;
    for (size_t i = 0; i < rows; i++) {
        const struct top_row *row = &t->rows[i];
        char *text = mem_strdup(row->name);
        text_clean(text);
        if (name > 0) text_cut_middle(text, name);
        table_add(&table, text);
        table_add(&table, count(row->backlog));
        table_add(&table, count(row->ready));
        table_add(&table, count(row->leased));
        table_add(&table, count(row->delayed));
        if (!narrow) table_add(&table, count(row->blocked));
        table_add(&table, count(row->dead));
        table_add(&table, text_age(row->oldest_ms));
        table_add(&table, rate(row->in_per_s));
        table_add(&table, rate(row->out_per_s));
        table_add(&table, mem_strdup(row->why_idle));
    }
    table_print(&table, out, &plain, "", "no subscription yet: bellhop sub create NAME");
}

/* Characters of the longest line. */
static size_t longest(const char *text) {
    size_t most = 0;
    while (*text != '\0') {
        size_t wide = text_width(text, strcspn(text, "\n"));
        if (wide > most) most = wide;
        text += strcspn(text, "\n");
        text += *text == '\n';
    }
    return most;
}

static size_t longest_name(const struct top *t, size_t rows) {
    size_t most = 0;
    for (size_t i = 0; i < rows; i++) {
        size_t wide = text_width(t->rows[i].name, strlen(t->rows[i].name));
        if (wide > most) most = wide;
    }
    return most;
}

/* The table, made to fit: the names give way. The caller frees. */
static char *fit_table(const struct top *t, size_t rows, size_t columns) {
    bool narrow = columns > 0 && columns < NARROW_COLUMNS;
    size_t name = 0;
    for (;;) {
        char *text = NULL;
        size_t size = 0;
        FILE *memory = open_memstream(&text, &size);
        CHECK(memory != NULL);
        add_table(t, memory, rows, narrow, name);
        CHECK(fclose(memory) == 0);
        size_t wide = longest(text), most = longest_name(t, rows);
        if (name > 0 || columns == 0 || wide <= columns || most <= NAME_COLUMNS) return text;
        size_t rest = wide - most;
        name = columns > rest + NAME_COLUMNS ? columns - rest : NAME_COLUMNS;
        free(text);
    }
}

#define HEADING_LINES 3
#define HEADS_LINES   (HEADING_LINES + 1)

void top_print(const struct top *t, const struct cli *cli, size_t lines, size_t columns,
               const char *line_end) {
    char *text = NULL;
    size_t size = 0, rows = t->rows_count, number = 0;
    FILE *memory = open_memstream(&text, &size);
    CHECK(memory != NULL);
    if (lines > 0 && rows + HEADS_LINES > lines) {
        rows = lines > HEADS_LINES + 1 ? lines - HEADS_LINES - 1 : 1;
    }
    add_heading(t, memory);
    char *table = fit_table(t, rows, columns);
    fputs(table, memory);
    free(table);
    if (rows < t->rows_count) fprintf(memory, "and %zu more\n", t->rows_count - rows);
    CHECK(fclose(memory) == 0);
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) != NULL && rest != NULL) {
        if (lines > 0 && number >= lines) break;
        if (columns >= 3) text_cut(line, columns);
        bool bold = number == HEADING_LINES && t->rows_count > 0;
        bool bad = number > HEADING_LINES && number - HEADS_LINES < rows &&
                   t->rows[number - HEADS_LINES].holds;
        const char *colour = bold ? colour_bold(cli) : bad ? colour_bad(cli) : "";
        printf("%s%s%s%s", colour, line, colour[0] != '\0' ? colour_off(cli) : "", line_end);
        number++;
    }
    free(text);
}
