/* err.h: every error that a client can see, in one table.
 *
 * A row: the name in code, the word on the wire of HTTP, the number on the wire of the worker
 * protocol, the HTTP status, and whether the same request may work later. Ranges of the numbers:
 * 1xx protocol, 2xx identity, 3xx state, 4xx request and limits, 5xx server. Anyone may include
 * this. Functions return 0 or an enum err; a message, where there is one, travels beside it. */
#ifndef PROTO_ERR_H
#define PROTO_ERR_H

#include <stdbool.h>
#include <stddef.h>

/*  X(name,               word,                 number, status, retryable) */
#define ERR_TABLE(X)                                                                               \
    X(BAD_FRAME, "bad_frame", 101, 400, false)                                                     \
    X(FRAME_TOO_BIG, "frame_too_big", 102, 413, false)                                             \
    X(UNSUPPORTED_OP, "unsupported_op", 103, 501, false)                                           \
    X(BAD_VERSION, "bad_version", 104, 505, false)                                                 \
    X(OUT_OF_ORDER, "out_of_order", 105, 400, false)                                               \
    X(TIMEOUT, "timeout", 106, 408, true)                                                          \
    X(BAD_HTTP, "bad_http", 107, 400, false)                                                       \
    X(METHOD_NOT_ALLOWED, "method_not_allowed", 108, 405, false)                                   \
    X(HEAD_TOO_LARGE, "head_too_large", 109, 431, false)                                           \
    X(UNAUTHENTICATED, "unauthenticated", 201, 401, false)                                         \
    X(PERMISSION_DENIED, "permission_denied", 202, 403, false)                                     \
    X(SIGNATURE_MISSING, "signature_missing", 203, 401, false)                                     \
    X(SIGNATURE_MALFORMED, "signature_malformed", 204, 401, false)                                 \
    X(SIGNATURE_MISMATCH, "signature_mismatch", 205, 401, false)                                   \
    X(TIMESTAMP_TOO_OLD, "timestamp_too_old", 206, 401, false)                                     \
    X(TIMESTAMP_IN_FUTURE, "timestamp_in_future", 207, 401, false)                                 \
    X(NOT_FOUND, "not_found", 301, 404, false)                                                     \
    X(ALREADY_EXISTS, "already_exists", 302, 409, false)                                           \
    X(POLICY_MISMATCH, "policy_mismatch", 303, 409, false)                                         \
    X(OUT_OF_RANGE, "out_of_range", 304, 400, false)                                               \
    X(UNKNOWN_TAG, "unknown_tag", 305, 400, false)                                                 \
    X(DELETED, "deleted", 306, 410, false)                                                         \
    X(NOT_RUNNING, "not_running", 307, 409, false)                                                 \
    X(NOT_EMPTY, "not_empty", 308, 409, false)                                                     \
    X(INVALID_REQUEST, "invalid_request", 401, 400, false)                                         \
    X(PARAMETER_UNKNOWN, "parameter_unknown", 402, 400, false)                                     \
    X(TOO_LARGE, "too_large", 403, 413, false)                                                     \
    X(LIMIT_EXCEEDED, "limit_exceeded", 404, 429, true)                                            \
    X(BAD_FILTER, "bad_filter", 405, 400, false)                                                   \
    X(BAD_POLICY, "bad_policy", 406, 400, false)                                                   \
    X(WINDOW_TOO_LARGE, "window_too_large", 407, 400, false)                                       \
    X(RATE_LIMITED, "rate_limited", 408, 429, true)                                                \
    X(NO_ROOM, "no_room", 501, 503, true)                                                          \
    X(OVERLOADED, "overloaded", 502, 503, true)                                                    \
    X(SHUTTING_DOWN, "shutting_down", 503, 503, true)                                              \
    X(INTERNAL, "internal", 504, 500, false)                                                       \
    X(STORE, "store", 505, 500, false)                                                             \
    X(BLOCKED, "blocked", 506, 503, true)                                                          \
    X(KEYS_UNAVAILABLE, "keys_unavailable", 507, 503, true)

enum err {
    ERR_OK = 0,
#define ERR_ENUM(name, word, number, status, retryable) ERR_##name = (number),
    ERR_TABLE(ERR_ENUM)
#undef ERR_ENUM
};

struct err_info {
    enum err err;
    const char *word;
    int status;
    bool retryable;
};

/* The row of an error. A number that is not in the table (a newer peer's) has the word "unknown",
 * status 500. */
static inline struct err_info err_info(int err) {
    static const struct err_info rows[] = {
#define ERR_ROW(name, word, number, status, retryable) {ERR_##name, word, status, retryable},
        ERR_TABLE(ERR_ROW)
#undef ERR_ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if ((int)rows[i].err == err) return rows[i];
    }
    return (struct err_info){(enum err)err, err == ERR_OK ? "ok" : "unknown",
                             err == ERR_OK ? 200 : 500, false};
}

#endif
