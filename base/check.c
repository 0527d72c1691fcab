#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void check_failed(const char *file, int line, const char *condition) {
    fprintf(stderr, "bellhop: %s:%d: check failed: %s\n", file, line, condition);
    fflush(stderr);
    abort();
}

void *mem_alloc(size_t bytes) {
    void *ptr = malloc(bytes == 0 ? 1 : bytes);
    CHECK(ptr != NULL);
    return ptr;
}

void *mem_zalloc(size_t bytes) {
    void *ptr = calloc(1, bytes == 0 ? 1 : bytes);
    CHECK(ptr != NULL);
    return ptr;
}

void *mem_realloc(void *old, size_t bytes) {
    void *ptr = realloc(old, bytes == 0 ? 1 : bytes);
    CHECK(ptr != NULL);
    return ptr;
}

char *mem_strdup(const char *text) {
    size_t bytes = strlen(text) + 1;
    return memcpy(mem_alloc(bytes), text, bytes);
}
