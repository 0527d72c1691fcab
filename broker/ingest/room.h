/* room.h: what the files of the ingest room share; nobody else includes it. */
#ifndef INGEST_ROOM_H
#define INGEST_ROOM_H

#include "base/buf.h"
#include "broker/ingest/access_log.h"
#include "broker/ingest/admission.h"
#include "broker/ingest/ingest.h"
#include "broker/net/loop.h"

#define MESSAGE_SIZE 256

struct ingest {
    struct ingest_options options;
    struct sources *sources;
    struct scheme_tools tools;
    struct http_client *client; /* NULL: none (yet) */
    struct buf noted; /* of struct noted: what its log says of webhooks that are being stored */
    size_t noted_at;  /* the first that has not been answered */
    char head_message[ADMISSION_TEXT_BYTES];
    struct buf answer, headers; /* scratch */
};

/* key_fetch.c: makes tools.jwks, for the sources that there are. */
void key_fetch_open(struct ingest *i);
/* A source has changed, come or gone; `before`: its URL until then, or "". */
void key_fetch_changed(struct ingest *i, const struct source *source, const char *before);
/* Begins to fetch what the source needs; harmless when it needs nothing. */
void key_fetch_expect(struct ingest *i, const struct source *source);

#endif
