#include "broker/ingest/admission.h"

#include <stdio.h>

bool admission_open(const struct engine *e, uint32_t project, char text[ADMISSION_TEXT_BYTES],
                    struct http_refusal *refusal) {
    struct engine_stats stats;
    engine_stats(e, &stats);
    if (!stats.room) {
        *refusal = (struct http_refusal){
            .err = ERR_NO_ROOM,
            .message = "the store is nearly full: nothing was taken, send it again later",
        };
        return false;
    }
    if (stats.blocked_by.len == 0) return true;
    *refusal = (struct http_refusal){.err = ERR_BLOCKED, .message = text};
    if (stats.blocked_by_project == project) {
        snprintf(text, ADMISSION_TEXT_BYTES,
                 "the journal has its full size and subscription \"%.*s\" still needs its oldest "
                 "events: nothing was taken; let it catch up, seek it forward, or set its lag to "
                 "expire",
                 SLICE_ARG(stats.blocked_by));
    } else {
        refusal->message =
            "the journal has its full size and a subscription of another project still needs its "
            "oldest events: nothing was taken, send it again later";
    }
    return false;
}
