#include "clients/cli/output.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void table_init(struct table *t, const char *const *heads) {
    *t = (struct table){0};
    while (heads[t->columns] != NULL) {
        CHECK(t->columns < TABLE_COLUMNS);
        t->heads[t->columns] = heads[t->columns];
        t->columns++;
    }
}

void table_add(struct table *t, char *text) {
    if (t->cells_count == t->cells_room) {
        t->cells_room = t->cells_room == 0 ? 64 : t->cells_room * 2;
        t->cells = mem_realloc(t->cells, t->cells_room * sizeof(*t->cells));
    }
    text_clean(text);
    t->cells[t->cells_count++] = text;
}

size_t text_width(const char *text, size_t bytes) {
    size_t count = 0;
    for (size_t i = 0; i < bytes; i++) count += ((uint8_t)text[i] & 0xC0) != 0x80;
    return count;
}

static size_t width(const char *text) {
    return text_width(text, strlen(text));
}

static void print_cell(const struct table *t, size_t c, FILE *out, const char *text, size_t wide) {
    size_t pad = wide - width(text);
    bool right = t->heads[c][0] == '>', last = c + 1 == t->columns;
    if (right) fprintf(out, "%*s", (int)pad, "");
    fputs(text, out);
    if (!right && !last) fprintf(out, "%*s", (int)pad, "");
    fputs(last ? "\n" : t->tight ? " " : "  ", out);
}

static void print_heads(const struct table *t, FILE *out, const struct cli *cli,
                        const size_t *wide) {
    fputs(colour_bold(cli), out);
    for (size_t c = 0; c < t->columns; c++) {
        bool right = t->heads[c][0] == '>', last = c + 1 == t->columns;
        const char *head = t->heads[c] + right;
        if (last && cli->colour) {
            fprintf(out, "%*s%s%s\n", right ? (int)(wide[c] - width(head)) : 0, "", head,
                    colour_off(cli));
        } else {
            print_cell(t, c, out, head, wide[c]);
        }
    }
}

void table_print(struct table *t, FILE *out, const struct cli *cli, const char *indent,
                 const char *empty) {
    size_t wide[TABLE_COLUMNS];
    CHECK(t->columns > 0 && t->cells_count % t->columns == 0);
    for (size_t c = 0; c < t->columns; c++) wide[c] = width(t->heads[c]) - (t->heads[c][0] == '>');
    for (size_t i = 0; i < t->cells_count; i++) {
        size_t w = width(t->cells[i]);
        if (w > wide[i % t->columns]) wide[i % t->columns] = w;
    }
    if (t->cells_count == 0) {
        fprintf(out, "%s%s\n", indent, empty);
    } else if (t->heads[0][0] != '\0') {
        fputs(indent, out);
        print_heads(t, out, cli, wide);
    }
    for (size_t i = 0; i < t->cells_count; i++) {
        size_t c = i % t->columns;
        if (c == 0) fputs(indent, out);
        print_cell(t, c, out, t->cells[i], wide[c]);
        free(t->cells[i]);
    }
    free(t->cells);
    t->cells = NULL;
    t->cells_count = t->cells_room = 0;
}

void table_end(struct table *t, const struct cli *cli, int error, const char *empty) {
    if (error == 0 && !cli->json) {
        table_print(t, stdout, cli, "", empty);
        return;
    }
    for (size_t i = 0; i < t->cells_count; i++) free(t->cells[i]);
    free(t->cells);
    *t = (struct table){0};
}

/* Bytes of the UTF-8 character at text, 0 when it is none (RFC 3629: no overlong forms, no
 * surrogates, nothing above U+10FFFF) or a C1 control. */
static size_t character(const uint8_t *text) {
    if (text[0] < 0x80) return text[0] >= 0x20 && text[0] != 0x7F;
    size_t len = text[0] >= 0xF0 ? 4 : text[0] >= 0xE0 ? 3 : 2;
    if (text[0] < 0xC2 || text[0] > 0xF4) return 0;
    for (size_t i = 1; i < len; i++) {
        if ((text[i] & 0xC0) != 0x80) return 0;
    }
    if (text[0] == 0xC2 && text[1] < 0xA0) return 0;
    if (text[0] == 0xE0 && text[1] < 0xA0) return 0;
    if (text[0] == 0xED && text[1] > 0x9F) return 0;
    if (text[0] == 0xF0 && text[1] < 0x90) return 0;
    if (text[0] == 0xF4 && text[1] > 0x8F) return 0;
    return len;
}

static void clean(char *text, const char *allowed) {
    uint8_t *at = (uint8_t *)text;
    while (*at != '\0') {
        size_t len = character(at);
        if (len == 0 && strchr(allowed, *at) == NULL) *at = '?';
        at += len == 0 ? 1 : len;
    }
}

void text_clean(char *text) {
    clean(text, "");
}

void text_clean_lines(char *text) {
    clean(text, "\n\t");
}

void text_cut(char *text, size_t columns) {
    CHECK(columns >= 3);
    if (width(text) <= columns) return;
    size_t count = 0;
    char *at = text;
    for (;; at++) {
        bool first = ((uint8_t)*at & 0xC0) != 0x80;
        if (first && count++ == columns - 3) break;
    }
    memcpy(at, "...", 4); /* three characters at least were cut off, and the terminator */
}

/* The character number `count` of the text, or its end. */
static char *character_at(char *text, size_t count) {
    while (*text != '\0' && (((uint8_t)*text & 0xC0) == 0x80 || count-- > 0)) text++;
    return text;
}

void text_cut_middle(char *text, size_t columns) {
    CHECK(columns >= 3);
    size_t wide = width(text);
    if (wide <= columns) return;
    size_t tail = (columns - 3) / 2, head = columns - 3 - tail;
    char *rest = character_at(text, wide - tail), *at = character_at(text, head);
    memcpy(at, "...", 3); /* four characters at least were cut off */
    memmove(at + 3, rest, strlen(rest) + 1);
}

void text_cut_bytes(char *text, size_t bytes) {
    CHECK(bytes >= 3);
    if (strlen(text) <= bytes) return;
    size_t end = bytes - 3;
    while (end > 0 && ((uint8_t)text[end] & 0xC0) == 0x80) end--;
    memcpy(text + end, "...", 4);
}

char *text_vprintf(const char *fmt, va_list list) {
    char *text = NULL;
    int len = vasprintf(&text, fmt, list);
    CHECK(len >= 0);
    return text;
}

char *text_printf(const char *fmt, ...) {
    va_list list;
    va_start(list, fmt);
    char *text = text_vprintf(fmt, list);
    va_end(list);
    return text;
}

char *text_duration(uint64_t ms) {
    unsigned long long s = ms / 1000;
    if (ms < 1000) return text_printf("%llu ms", (unsigned long long)ms);
    if (s < 60) return text_printf("%llu.%llu s", s, (unsigned long long)(ms % 1000 / 100));
    if (s < 3600) return text_printf("%llu m %llu s", s / 60, s % 60);
    if (s < 86400) return text_printf("%llu h %llu m", s / 3600, s % 3600 / 60);
    return text_printf("%llu d %llu h", s / 86400, s % 86400 / 3600);
}

char *text_span(uint64_t ms) {
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
    char *text = mem_strdup("");
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        uint64_t number = ms / units[i].ms;
        ms %= units[i].ms;
        bool last = i + 1 == sizeof(units) / sizeof(units[0]);
        if (number == 0 && (!last || text[0] != '\0')) continue;
        char *longer = text_printf("%s%s%llu %s", text, text[0] != '\0' ? " " : "",
                                   (unsigned long long)number, units[i].name);
        free(text);
        text = longer;
    }
    return text;
}

char *text_count(uint64_t number, const char *one) {
    return text_printf("%llu %s%s", (unsigned long long)number, one, number == 1 ? "" : "s");
}

char *text_age(uint64_t ms) {
    return ms == 0 ? mem_strdup("-") : text_duration(ms);
}

char *text_bytes(uint64_t bytes) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    if (bytes < 1024) return text_printf("%llu B", (unsigned long long)bytes);
    double size = (double)bytes / 1024;
    size_t unit = 0;
    while (size >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        size /= 1024;
        unit++;
    }
    return text_printf("%.1f %s", size, units[unit]);
}

const char *colour_bold(const struct cli *cli) {
    return cli->colour ? "\033[1m" : "";
}

const char *colour_good(const struct cli *cli) {
    return cli->colour ? "\033[32m" : "";
}

const char *colour_bad(const struct cli *cli) {
    return cli->colour ? "\033[31m" : "";
}

const char *colour_off(const struct cli *cli) {
    return cli->colour ? "\033[0m" : "";
}
