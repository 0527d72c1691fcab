/* The LMDB store: how much room is left, and what the kernel is told about the journal.
 *
 * Used pages are counted from the size that LMDB keeps of every tree: a dozen numbers, exact, and
 * no walk over its freelist, which has a record per transaction and can be hundreds of MiB. Pages
 * of the file that no tree uses are free. LMDB never gives them back to the file system but writes
 * to them again, so they are room even when the disk is full.
 *
 * What the count cannot see: a value larger than a page needs free pages in a row, and the pages
 * that the last two commits freed are not for the next one yet. Free pages inside the file count
 * for half therefore, and the headroom is for the rest. */
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "storage/lmdb_internal.h"

#define ROOM_LOOK_MS    100       /* the disk is others' too */
#define ANNOUNCE_BYTES  (4 << 20) /* about 5 ms of an ordinary disk's reading: ahead of any walk */
#define FREELIST_HANDLE 0         /* LMDB keeps its freelist as the tree with this handle */

struct space {
    uint64_t used, reusable, untouched; /* bytes of the map: in trees, free in the file, beyond */
    uint64_t disk_free;
};

static uint64_t pages_of(struct lmdb *l, MDB_txn *txn, MDB_dbi dbi) {
    MDB_stat stat;
    int rc = mdb_stat(txn, dbi, &stat);
    if (rc != 0) lmdb_read_failed(l, "cannot count the pages of the store", rc);
    return stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
}

/* Free bytes for us; none when the file system does not say, which stops the taking in. */
static uint64_t disk_free(struct lmdb *l) {
    struct statvfs fs;
    if (fstatvfs(l->directory_fd, &fs) != 0) return 0;
    return (uint64_t)fs.f_bavail * fs.f_frsize;
}

static struct space measure(struct lmdb *l) {
    bool reading = l->readers_open > 0;
    MDB_txn *txn = lmdb_snapshot(l);
    MDB_envinfo info;
    MDB_stat stat;
    mdb_env_info(l->env, &info);
    mdb_env_stat(l->env, &stat);
    uint64_t pages = 2; /* the meta pages */
    pages += pages_of(l, txn, FREELIST_HANDLE) + pages_of(l, txn, l->main);
    for (int i = 0; i < STORE_TABLES; i++) pages += pages_of(l, txn, l->tables[i]);
    if (!reading) lmdb_end_reads(&l->store); /* nobody else will end it */

    uint64_t file_pages = info.me_last_pgno + 1;
    if (pages > file_pages) lmdb_read_failed(l, "the store has a wrong size", MDB_CORRUPTED);
    return (struct space){.used = pages * stat.ms_psize,
                          .reusable = (file_pages - pages) * stat.ms_psize,
                          .untouched = info.me_mapsize - file_pages * stat.ms_psize,
                          .disk_free = disk_free(l)};
}

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

enum store_room lmdb_room(struct store *s) {
    struct lmdb *l = CONTAINER_OF(s, struct lmdb, store);
    CHECK(!l->failed);
    uint64_t now = now_ms();
    /* While room is low every write is one that may have freed some. */
    uint64_t step_bytes = l->room == STORE_ROOM_LOW ? 1 : l->room_step_bytes;
    if (now - l->room_checked_ms < ROOM_LOOK_MS && l->bytes_since_room < step_bytes) return l->room;
    struct space space = measure(l);
    uint64_t growth = space.untouched < space.disk_free ? space.untouched : space.disk_free;
    uint64_t room = growth + space.reusable / 2;
    /* It comes back an eighth later than it went, so that it does not flap. */
    uint64_t need = l->headroom_bytes;
    if (l->room == STORE_ROOM_LOW) need += need / 8;
    enum store_room before = l->room;
    l->room = room < need ? STORE_ROOM_LOW : STORE_ROOM_OK;
    l->room_checked_ms = now;
    l->bytes_since_room = 0;
    if (l->room != before) {
        log_warn("room for events in %s is %s: %llu MiB in the file, %llu MiB free on the disk",
                 l->directory, l->room == STORE_ROOM_LOW ? "low: new ones are refused" : "back",
                 (unsigned long long)space.reusable >> 20,
                 (unsigned long long)space.disk_free >> 20);
    }
    return l->room;
}

void lmdb_usage(struct store *s, struct store_usage *out) {
    struct lmdb *l = CONTAINER_OF(s, struct lmdb, store);
    CHECK(!l->failed);
    struct space space = measure(l);
    *out = (struct store_usage){.bytes_used = space.used,
                                .bytes_max = space.used + space.reusable + space.untouched,
                                .disk_free = space.disk_free};
}

/* Events that were written one after the other lie in the map nearly so, so a walk that reaches a
 * value will soon reach the bytes behind it. Touching a page that is not in memory stops the whole
 * loop for a disk read; MADV_WILLNEED starts the read and returns. Steps of 4 MiB keep the calls
 * rare (each looks at 1,024 pages, about 50 us when all are there), and the next step is announced
 * when half of one is left. */
void lmdb_announce(struct lmdb *l, struct slice value) {
    uintptr_t at = (uintptr_t)value.data, end = at + value.len;
    struct lmdb_window *w = NULL;
    for (size_t i = 0; i < LMDB_WINDOWS && w == NULL; i++) {
        if (at >= l->windows[i].from && at < l->windows[i].to) w = &l->windows[i];
    }
    if (w != NULL && end + ANNOUNCE_BYTES / 2 < w->to) return;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (w == NULL) {
        w = &l->windows[l->next_window++ % LMDB_WINDOWS];
        w->to = at & ~(page - 1);
    }
    uintptr_t from = w->to;
    w->from = at;
    w->to = (from > end ? from : (end + page - 1) & ~(page - 1)) + ANNOUNCE_BYTES;
    /* Only advice: what lies beyond the map or the file is refused, and that is fine. */
    (void)madvise((void *)from, w->to - from, MADV_WILLNEED);
}
