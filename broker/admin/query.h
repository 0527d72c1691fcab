/* query.h: reading the query of a request, strictly, and the tokens of pages.
 *
 * An absent parameter leaves the output alone. A token is a letter that names the list, a version
 * and the place to go on from ("e1-18"); clients do not look into it.
 *
 * May call: answer.h, http, base. */
#ifndef ADMIN_QUERY_H
#define ADMIN_QUERY_H

#include "broker/admin/answer.h"

/* Every parameter is in the NULL-terminated list, and there once. */
bool query_known(const struct http_request *r, const char *const *known, struct refusal *f);
/* There is no parameter. False: it was answered. */
bool query_none(struct admin *a, const struct http_request *r);
/* There is nothing to say beside the path: the body is empty, or an object without fields. */
bool query_no_body(const struct http_request *r, struct refusal *f);
/* The value as text; *found (may be NULL) tells whether it is there. */
bool query_text(const struct http_request *r, const char *name, char *out, size_t size, bool *found,
                struct refusal *f);
bool query_u64(const struct http_request *r, const char *name, uint64_t min, uint64_t max,
               uint64_t *out, bool *found, struct refusal *f);
bool query_time(const struct http_request *r, const char *name, uint64_t *out, bool *found,
                struct refusal *f);

#define TOKEN_SIZE (LIMIT_NAME_BYTES + 8)

/* page_size with its default and bounds. */
bool query_page_size(const struct http_request *r, size_t *out, struct refusal *f);
/* page_token of the list `letter`; out becomes the place, or empty when there is no token. */
bool query_token(const struct http_request *r, char letter, char out[TOKEN_SIZE], bool *found,
                 struct refusal *f);
/* Refuses a token that does not say a place of its list. */
bool refuse_token(struct refusal *f);

/* Appends next_page_token for a place of the list. */
void put_token(struct buf *b, char letter, const char *place);

/* What a list that has pages and no other parameter is asked for. */
struct list_page {
    size_t size;
    char after[TOKEN_SIZE]; /* the place after which it goes on; empty: from the start */
    bool has_after;
};
bool query_list_page(const struct http_request *r, char letter, struct list_page *out,
                     struct refusal *f);

#endif
