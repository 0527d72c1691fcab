/* projects.h: the tenants: which projects there are, by name and number.
 *
 * A key speaks for one project, and through it everything that is named: sources, subscriptions,
 * webhooks and jobs are a project's own, and so is every event. What enforces that is the engine
 * (engine.h), which knows projects by number only; here are their names. A number is never used
 * again: what a deleted project left in the journal is nobody's.
 *
 * "default" (PROJECT_DEFAULT) is always there and is not stored. It is the operator's: its keys may
 * see and change what belongs to the whole broker (retention, signing keys, projects, keys).
 *
 * struct projects is owned by main from projects_new to projects_free and comes before the rooms
 * that ask it. Changes are in force at once, here, and stepped as commands of the engine: what they
 * answer leaves when the command is durable. Stored under "project/NAME", and the next number under
 * "next-project". May call: engine, fields, json, base. */
#ifndef AUTH_PROJECTS_H
#define AUTH_PROJECTS_H

#include "broker/engine/engine.h"

#define PROJECT_CONFIG_PREFIX "project/"
#define PROJECT_DEFAULT_NAME  "default"

struct projects;

struct project_info {
    uint32_t id;
    char name[LIMIT_NAME_BYTES + 1];
    uint64_t created_at_ms; /* wall; 0 for the default one */
};

struct projects *projects_new(struct engine *e);
/* Reads what is stored. Non-zero (ERR_STORE): error[size] names what cannot be read. */
MUST_CHECK int projects_load(struct projects *p, char *error, size_t error_size);
void projects_free(struct projects **p);

size_t projects_count(const struct projects *p); /* with the default one */
/* The project of that name; NULL: there is none. Borrowed until the next change. */
const struct project_info *projects_find(const struct projects *p, struct slice name);
/* By number; NULL: there is none (any more). */
const struct project_info *projects_get(const struct projects *p, uint32_t id);
/* In order of name: the first whose name is above `after` (empty: the first); NULL at the end. */
const struct project_info *projects_next(const struct projects *p, struct slice after);

/* Makes one. The name was checked (name_ok) and is free, and there are fewer than LIMIT_PROJECTS.
 * The last command has `route`; those before it, of the same turn, have `part`. */
const struct project_info *projects_create(struct projects *p, struct engine_time time,
                                           struct route part, struct route route,
                                           struct slice name);
/* Forgets one that is not the default: its keys, sources, subscriptions and webhooks are gone. */
void projects_delete(struct projects *p, struct engine_time time, struct route route, uint32_t id);

#endif
