/* output.h: what people read: aligned tables, clean text, durations and sizes.
 *
 * A table is owned by the command that made it and freed by table_print. Texts that came from
 * elsewhere are cleaned before they reach a terminal: control characters and bytes that are not
 * UTF-8 become "?".
 *
 * May call: cli, base. */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

#include "clients/cli/cli.h"

#define TABLE_COLUMNS 16

struct table {
    const char *heads[TABLE_COLUMNS]; /* ">NAME" is set to the right */
    size_t columns;
    bool tight;   /* one blank between columns, not two */
    char **cells; /* owns them, row by row */
    size_t cells_count, cells_room;
};

/* heads: texts that live as long as the table, ended by NULL. */
void table_init(struct table *t, const char *const *heads);
/* Appends a cell and takes the heap text; a row is full after as many as there are columns. */
void table_add(struct table *t, char *text);
/* Prints (nothing but `empty` when there is no row) and frees. Each line starts with `indent`. */
void table_print(struct table *t, FILE *out, const struct cli *cli, const char *indent,
                 const char *empty);
/* The end of a list command: prints when there was no error and no --json; frees in any case. */
void table_end(struct table *t, const struct cli *cli, int error, const char *empty);

/* Replaces, in place, what a terminal would act on. */
void text_clean(char *text);
/* The same for a text of several lines: line ends and tabs stay. */
void text_clean_lines(char *text);
/* Characters of so many bytes of clean text; combining and wide ones are counted as one. */
size_t text_width(const char *text, size_t bytes);
/* Cuts to at most `columns` characters, with "..." at the end. */
void text_cut(char *text, size_t columns);
/* The same with "..." in the middle: what names differ in is often their end. */
void text_cut_middle(char *text, size_t columns);
/* Cuts clean text to at most `bytes` bytes, between characters, with "..." at the end. */
void text_cut_bytes(char *text, size_t bytes);
/* A heap text; aborts when memory is out. */
char *text_printf(const char *fmt, ...) PRINTF_LIKE(1, 2);
char *text_vprintf(const char *fmt, va_list list) PRINTF_LIKE(1, 0);
/* Rounded, as what was measured: "850 ms", "12.3 s", "4 m 10 s", "3 h 5 m", "2 d 4 h". The caller
 * frees. */
char *text_duration(uint64_t ms);
/* Exact, as what was set: "250 ms", "30 s", "1 m 30 s 500 ms", "7 d". The caller frees. */
char *text_span(uint64_t ms);
/* "1 event", "2 events": `one` is the singular. The caller frees. */
char *text_count(uint64_t number, const char *one);
/* The same, "-" for 0. The caller frees. */
char *text_age(uint64_t ms);
/* "512 B", "1.0 MiB". The caller frees. */
char *text_bytes(uint64_t bytes);

/* Escape sequences, or "" without colours. */
const char *colour_bold(const struct cli *cli);
const char *colour_good(const struct cli *cli);
const char *colour_bad(const struct cli *cli);
const char *colour_off(const struct cli *cli);

#endif
