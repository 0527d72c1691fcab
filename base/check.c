#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void check_failed(const char *file, int line, const char *condition) {
    fprintf(stderr, "bellhop: %s:%d: check failed: %s\n", file, line, condition);
    fflush(stderr);
    abort();
}

static void *got(void *ptr, size_t bytes) {
    if (ptr != NULL) return ptr;
    fprintf(stderr, "bellhop: out of memory: %zu bytes are not to be had, stopping\n", bytes);
    fflush(stderr);
    abort();
}

_Noreturn void mem_exhausted(const char *library) {
    fprintf(stderr, "bellhop: out of memory: %s has none, stopping\n", library);
    fflush(stderr);
    abort();
}

void *mem_alloc(size_t bytes) {
    return got(malloc(bytes == 0 ? 1 : bytes), bytes);
}

void *mem_zalloc(size_t bytes) {
    return got(calloc(1, bytes == 0 ? 1 : bytes), bytes);
}

void *mem_realloc(void *old, size_t bytes) {
    return got(realloc(old, bytes == 0 ? 1 : bytes), bytes);
}

char *mem_strdup(const char *text) {
    size_t bytes = strlen(text) + 1;
    return memcpy(mem_alloc(bytes), text, bytes);
}
