/* admission.h: whether an event would be journaled at all, asked when the head of a request is
 * there, so that nobody sends a body in vain. The engine asks itself again with the whole event.
 *
 * Pure. May call: engine (stats), http/server.h (the form of a refusal). */
#ifndef INGEST_ADMISSION_H
#define INGEST_ADMISSION_H

#include "broker/engine/engine.h"
#include "broker/http/server.h"

#define ADMISSION_TEXT_BYTES 320

/* False: *refusal says why no event of the project is taken now (503); its message is static, or in
 * text. */
bool admission_open(const struct engine *e, uint32_t project, char text[ADMISSION_TEXT_BYTES],
                    struct http_refusal *refusal);

#endif
