/* room.h: what the files of the ingest room share; nobody else includes it. */
#ifndef INGEST_ROOM_H
#define INGEST_ROOM_H

#include "base/buf.h"
#include "broker/ingest/ingest.h"
#include "broker/net/loop.h"

#define MESSAGE_SIZE 256

struct ingest {
    struct ingest_options options;
    struct sources *sources;
    struct scheme_tools tools;
    struct http_client *client; /* NULL: none (yet) */
    uint64_t log_second;
    uint32_t log_lines;  /* written in that second */
    uint64_t log_silent; /* refusals not logged since the last line */
    char head_message[MESSAGE_SIZE];
    struct buf answer, headers; /* scratch */
};

/* key_fetch.c: makes tools.jwks. */
void key_fetch_open(struct ingest *i);
/* Begins to fetch what the source needs; harmless when it needs nothing. */
void key_fetch_expect(struct ingest *i, const struct source *source);

#endif
