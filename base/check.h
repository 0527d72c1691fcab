/* check.h: assertions that stay on in production.
 *
 * CHECK is for what cannot happen unless Bellhop itself is wrong. It prints the place and the
 * condition and aborts: a restart is recovery, a guess is data loss. What a peer, a disk or a
 * person can cause is never a CHECK but an error value.
 *
 * Owns nothing. Calls only log-free stdio and abort(3), so that it works in any state. */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

#include <stddef.h>

#define MUST_CHECK             __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

/* Aborts with a message that names file, line and condition. Never returns. */
_Noreturn void check_failed(const char *file, int line, const char *condition);

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0)) check_failed(__FILE__, __LINE__, #condition);       \
    } while (0)

/* Ends the process as CHECK does, with the reason: a library has failed at what nothing but memory
 * can prevent, and says no more than that. CRYPTO_CHECK is for calls of OpenSSL. */
_Noreturn void mem_exhausted(const char *library);
#define CRYPTO_CHECK(condition)                                                                    \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0)) mem_exhausted("OpenSSL");                           \
    } while (0)

/* A branch that cannot be reached; the text says why. */
#define UNREACHABLE(why) check_failed(__FILE__, __LINE__, "unreachable: " why)

/* The struct that holds `member`, from a pointer to the member. */
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* malloc, calloc, realloc and free that say so and abort when memory is exhausted. For sizes that
 * our own limits bound; sizes that a peer chooses are checked against limits.h before they come
 * here. */
void *mem_alloc(size_t bytes) MUST_CHECK;
void *mem_zalloc(size_t bytes) MUST_CHECK;
void *mem_realloc(void *ptr, size_t bytes) MUST_CHECK;
char *mem_strdup(const char *text) MUST_CHECK;

#endif
