/* list.h: an intrusive, circular, doubly linked list.
 *
 * The node lives inside the element, so linking never allocates; the element's owner owns the
 * node. A node that is in no list points at itself: list_unlink is then harmless.
 * Invariant: n->next->prev == n && n->prev->next == n.
 *
 * Calls nothing. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *prev, *next;
};

static inline void list_init(struct list *n) {
    n->prev = n->next = n;
}

static inline bool list_empty(const struct list *head) {
    return head->next == head;
}

/* Links n, which is in no list, right before `at`: before the head is the end of the list. */
static inline void list_insert_before(struct list *at, struct list *n) {
    n->prev = at->prev;
    n->next = at;
    at->prev->next = n;
    at->prev = n;
}

static inline void list_push_back(struct list *head, struct list *n) {
    list_insert_before(head, n);
}

static inline void list_push_front(struct list *head, struct list *n) {
    list_insert_before(head->next, n);
}

/* Takes n out of whatever list it is in. */
static inline void list_unlink(struct list *n) {
    n->prev->next = n->next;
    n->next->prev = n->prev;
    list_init(n);
}

/* The first node, or NULL when the list is empty. */
static inline struct list *list_first(struct list *head) {
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): it does not follow list_unlink before free */
    return list_empty(head) ? NULL : head->next;
}

/* Walks the list; `n` may be unlinked in the body, `next_n` must not be. */
#define LIST_FOR(n, next_n, head)                                                                  \
    for (struct list *n = (head)->next, *next_n = n->next; n != (head);                            \
         n = next_n, next_n = n->next)

#endif
