/* top.h: what `bellhop top` shows: the state of the broker at one moment, and its text.
 *
 * A view is owned by the command from top_read to top_free; it holds the broker's answers and
 * borrows nothing else.
 *
 * May call: http, json_text, list, output, cli. */
#ifndef CLI_TOP_H
#define CLI_TOP_H

#include "clients/cli/http.h"
#include "clients/cli/json_text.h"

struct top_row {
    char *name, *why_idle;
    uint64_t backlog, ready, leased, delayed, blocked, dead, oldest_ms;
    double in_per_s, out_per_s;
    bool holds; /* retention cannot go on because of it */
};

struct top {
    struct buf status;        /* the broker's answer */
    struct buf retention;     /* the same; empty: not for this key */
    struct buf subscriptions; /* its objects, with commas between them */
    struct top_row *rows;
    size_t rows_count, rows_room;
    struct http_reply refused; /* what came instead */
    bool is_refused;
};

/* Asks the broker, without a word on stderr. 0; CLI_UNAVAILABLE when it may answer later; another
 * exit code when it will not. top_complain says which; top_free in each case. Rows are sorted by
 * name, or the ones in trouble first: what holds retention up, blocked, dead letters, oldest. */
int top_read(struct top *t, struct cli *cli, bool by_name);
void top_complain(const struct top *t, const struct cli *cli, int error);
void top_free(struct top *t);

/* One line: {"status":{...},"retention":{...},"subscriptions":[...]}, all of them the API's;
 * without retention for a key that does not see it. */
void top_print_json(const struct top *t);
/* The header and the table: at most `lines` lines of at most `columns` characters (0: no bound),
 * each with `line_end` behind it.
 * Names are cut and columns moved together before one is lost. */
void top_print(const struct top *t, const struct cli *cli, size_t lines, size_t columns,
               const char *line_end);

#endif
