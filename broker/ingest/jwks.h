/* jwks.h: JSON Web Key Sets (RFC 7517) of providers, by URL: kept, and fetched in time.
 *
 * Whoever asks for keys gets those that are known, at once. Fetches go on beside: when a set is
 * asked for first, when it is older than JWKS_AGE_MS, and when a signature fits none of its keys,
 * but then at most once in JWKS_RETRY_MS, whatever is sent. A fetch that fails leaves the keys as
 * they are.
 *
 * Sources of all projects that name the same URL share its set: the keys are public, and the limits
 * above hold for a URL, whoever asks. So a set stays as long as a source uses it, and until
 * JWKS_RETRY_MS after its last fetch: nobody's many URLs push out those of others, and making a
 * source anew brings no fetch. While there are JWKS_LEFT that nobody uses any more, nothing is
 * fetched for a URL that is new: who changes a source all the time cannot make us fetch all the
 * time.
 *
 * What is fetched is at most LIMIT_RESPONSE_BYTES and has JWKS_FETCH_MS; redirects are
 * not followed; a set's keys are fit for the algorithm of their type and nothing else.
 *
 * Owned by its room from jwks_new to jwks_free. The fetching itself is the room's: it calls `start`
 * and tells the end with jwks_fetched. May call: signature/verifying_key.h, json, base. */
#ifndef INGEST_JWKS_H
#define INGEST_JWKS_H

#include "base/check.h"
#include "base/slice.h"
#include "broker/signature/verifying_key.h"

#define JWKS_AGE_MS       600000
#define JWKS_RETRY_MS     60000
#define JWKS_FIRST_MS     5000 /* before a second try while no key is known; doubles to the above */
#define JWKS_FETCH_MS     10000
#define JWKS_KEYS         32 /* of one set; the rest is left */
#define JWKS_LEFT         256
#define JWKS_FETCHES      256 /* under way at a time */
#define JWKS_TROUBLE_SIZE 256

struct jwks;
struct jwks_set;

struct jwks_hooks {
    /* Begins a fetch. False: not possible now. Otherwise jwks_fetched comes, later. */
    bool (*start)(void *ctx, struct jwks_set *set, const char *url);
    /* Ends the fetch of a set that goes away; no jwks_fetched comes. */
    void (*cancel)(void *ctx, struct jwks_set *set);
    void *ctx;
};

struct jwks *jwks_new(const struct jwks_hooks *hooks);
void jwks_free(struct jwks **j);

/* One source more uses this URL; one less: harmless for a URL that is not used. */
void jwks_use(struct jwks *j, const char *url);
void jwks_leave(struct jwks *j, const char *url, uint64_t now_ms);

/* The set of a URL; it lives until the next call of this or of jwks_leave. */
struct jwks_set *jwks_get(struct jwks *j, const char *url, uint64_t now_ms);
/* Its keys, borrowed until the next call of jwks_get or jwks_fetched; NULL and *count 0: none is
 * known. */
const struct verifying_key *const *jwks_keys(const struct jwks_set *set, size_t *count);
/* No key of it fits. True: a fetch is under way, another answer may come of it. */
bool jwks_miss(struct jwks *j, struct jwks_set *set, uint64_t now_ms);
/* The end of a fetch: the body of a 200, or in words what went wrong (trouble not NULL). */
void jwks_fetched(struct jwks_set *set, struct slice body, const char *trouble, uint64_t now_ms,
                  uint64_t wall_ms);
/* When the keys were fetched last, 0: never; and what went wrong since then, "": nothing. */
uint64_t jwks_fetched_at(const struct jwks_set *set);
const char *jwks_trouble(const struct jwks_set *set);
/* A pointer of the room's, for `cancel`. */
void **jwks_set_ctx(struct jwks_set *set);

#endif
