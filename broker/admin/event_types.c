/* GET /v1/event-types: the types that are known, with the members of `data`. Any other dotted type
 * can be published and subscribed to as well. */
#include "broker/admin/query.h"

#define FIELDS_MAX 5

struct member {
    const char *name, *type, *description;
};
struct event_type {
    const char *type, *description;
    struct member members[FIELDS_MAX]; /* those without a name are not there */
};

#define BATCH_ID                                                                                   \
    { "id", "string", "the batch" }
#define INTERACTION_ID                                                                             \
    { "id", "string", "the interaction" }
#define ERROR_CODE                                                                                 \
    { "error_code", "string", "why, as a code" }
#define ERROR_MESSAGE                                                                              \
    { "error_message", "string", "why, in words" }

static const struct event_type types[] = {
    {"batch.succeeded",
     "a batch of the Gemini API is finished",
     {BATCH_ID, {"output_file_uri", "string", "its results, when its input was a file"}}},
    {"batch.failed",
     "a batch ended with a system or validation error",
     {BATCH_ID, ERROR_CODE, ERROR_MESSAGE}},
    {"batch.cancelled", "a batch was cancelled by its user", {BATCH_ID}},
    {"batch.expired", "a batch was not finished in time", {BATCH_ID}},
    {"interaction.requires_action",
     "an interaction waits for the result of a function call",
     {INTERACTION_ID}},
    {"interaction.completed",
     "a long-running interaction of the Gemini API is finished",
     {INTERACTION_ID}},
    {"interaction.failed",
     "an interaction ended with a system or validation error",
     {INTERACTION_ID, ERROR_CODE, ERROR_MESSAGE}},
    {"interaction.cancelled", "an interaction was cancelled", {INTERACTION_ID}},
    {"video.generated",
     "a video of the Gemini API is there",
     {{"id", "string", "the operation"},
      {"output_file_uri", "string", "the video"},
      {"file_name", "string", "the name of its file"}}},
    {"webhook.ping",
     "a test that POST /v1/webhooks/{id}:ping sends to that webhook; it is not in the journal",
     {{"id", "string", "the webhook"}}},
    {"webhook.disabled",
     "Bellhop disabled a webhook after nothing but failed deliveries, or because it answered 410",
     {{"id", "string", "the webhook"},
      {"name", "string", "its name, when it has one"},
      {"uri", "string", "where it delivered to"},
      {"reason", "string", "why, in words"},
      {"failing_since", "string", "since when nothing was delivered (RFC 3339)"}}},
    {"job.overdue",
     "a job saw no final event within its time to live",
     {{"id", "string", "the job"},
      {"ttl_ms", "integer", "its time to live"},
      {"registered_at", "string", "when it was registered (RFC 3339)"}}},
};
#define TYPES (sizeof types / sizeof types[0])

static void put_members(struct buf *b, const struct event_type *t) {
    put_key(b, "fields");
    buf_append_byte(b, '[');
    for (size_t i = 0; i < FIELDS_MAX && t->members[i].name != NULL; i++) {
        put_comma(b);
        buf_append_byte(b, '{');
        put_text(b, "name", slice_str(t->members[i].name));
        put_text(b, "type", slice_str(t->members[i].type));
        put_text(b, "description", slice_str(t->members[i].description));
        buf_append_byte(b, '}');
    }
    buf_append_byte(b, ']');
}

void event_types_list(struct admin *a, const struct http_request *r, struct slice last) {
    (void)last;
    if (!query_none(a, r)) return;
    struct buf *b = answer_begin(a);
    put_key(b, "event_types");
    buf_append_byte(b, '[');
    for (size_t i = 0; i < TYPES; i++) {
        put_comma(b);
        buf_append_byte(b, '{');
        put_text(b, "type", slice_str(types[i].type));
        put_text(b, "description", slice_str(types[i].description));
        put_members(b, &types[i]);
        buf_append_byte(b, '}');
    }
    buf_append_byte(b, ']');
    answer_send(a, r->handle, 200);
}
