/* project.c: what the engine keeps for each tenant. Who may speak for one is not its business.
 *
 * A project ends at its index: an event is offered to its own project's subscriptions only, a
 * cursor that reads the journal asks subscription_wants, and whatever has a name is found by
 * project and name. Rows that do not say their project are keyed by a subscription, which does. */
#include <stdlib.h>

#include "broker/engine/state.h"

struct project *project_find(const struct engine *e, uint32_t id) {
    return map_get(&e->projects, id);
}

struct project *project_get(struct engine *e, uint32_t id) {
    struct project *p = project_find(e, id);
    CHECK(id != 0); /* a command without its project would speak for nobody */
    if (p != NULL) return p;
    p = mem_zalloc(sizeof *p);
    p->id = id;
    p->index = filter_index_new();
    map_add(&e->projects, id, p);
    return p;
}

void projects_drop(struct engine *e) {
    for (size_t i = 0; i < e->projects.cap; i++) {
        struct project *p = e->projects.slots[i].value;
        if (p == NULL) continue;
        filter_index_free(&p->index);
        free(p);
    }
    map_free(&e->projects);
}

void engine_project_stats(const struct engine *e, uint32_t project, struct project_stats *out) {
    const struct project *p = project_find(e, project);
    *out = (struct project_stats){.subscriptions = 0};
    if (p == NULL) return;
    out->totals = p->totals;
    out->subscriptions = p->subs_count;
    out->jobs = p->jobs_count;
    for (size_t i = 0; i < e->subs_count; i++) {
        if (e->subs[i]->project == p) out->attachments += e->subs[i]->attachments_count;
    }
    for (size_t i = 0; i < e->tasks_count; i++) {
        out->tasks_running += e->tasks[i]->project == p && e->tasks[i]->finished_at_ms == 0;
    }
}
