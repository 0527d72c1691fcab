/* internal.h: what the files of net/ know of each other's structs. Nobody else includes this.
 *
 * struct loop is owned by whoever called loop_open; streams are the loop's and die in their close
 * callback; listeners, timers and polls die when both libuv and their owner have let go of them.
 *
 * Invariants: a stream is in `dirty` only while it has bytes to write and no write under way; it is
 * in `watched` exactly while a deadline of the sweep applies to it (a TLS handshake or a write
 * under way, or lingering); it is in `shaking` or in `shakes_due` exactly while its handshake is
 * under way. May call: base, libuv. */
#ifndef NET_INTERNAL_H
#define NET_INTERNAL_H

#include <uv.h>

#include "base/buf.h"
#include "base/list.h"
#include "broker/net/stream.h"
#include "broker/net/tls_internal.h"

#define READ_BUFFER_BYTES (64 * 1024) /* one for all streams: on_data borrows it */
#define PLAIN_BYTES       (64 * 1024) /* the same, of what TLS makes of it */
#define SWEEP_MS          1000        /* how often stalled and lingering streams are looked at */
#define LINGER_MS         2000        /* after our last byte we read and drop this long */
#define PEER_TEXT_BYTES   56          /* "[ipv6]:port": 45 + 2 + 6, and the terminator */

struct loop {
    uv_loop_t uv;
    uv_prepare_t prepare;
    uv_timer_t turn_timer;
    uv_timer_t sweep;
    uv_signal_t signals[3];
    loop_turn_fn *turn;
    void *turn_ctx;
    loop_signal_fn *on_signal;
    void *on_signal_ctx;
    uint64_t now_ms, wall_ms; /* of the turn */
    uint64_t armed_at_ms;     /* what turn_timer waits for; UINT64_MAX: it is off */
    uint64_t write_stall_ms;
    uint64_t write_bytes_per_s; /* 0: LIMIT_WRITE_BYTES_PER_S */
    bool in_turn;               /* now_ms and wall_ms were read for this turn */
    bool again;                 /* the next poll must not block */
    bool stopping;              /* loop_stop was called */
    bool stopped;               /* every handle was told to close */
    struct list tasks, dirty, watched;
    struct list streams, listeners, timers, polls;
    size_t streams_count, streams_max;
    size_t closing_count;            /* of the streams: those that hold no descriptor any more */
    struct list shaking;             /* handshakes that wait for their peer, the longest first */
    struct list shakes_due;          /* and those that wait for us */
    size_t shaking_count, due_count; /* in both; of these, in shakes_due */
    struct loop_task shakes;         /* works on those that are due */
    uint64_t shaken_ns;              /* spent on handshakes in this turn */
    bool accept_paused;
    uint64_t accept_logged_ms; /* when a pause was last logged; 0: never */
    uint64_t room_logged_ms;   /* when it was last logged that idle ones make room; 0: never */
    uint64_t room_made;        /* connections that were closed for a new one */
    uint64_t tls_logged_ms;    /* when a failed handshake was last logged; 0: never */
    uint64_t tls_unlogged;     /* others since then */
    uint8_t read_buffer[READ_BUFFER_BYTES];
    uint8_t plain_buffer[PLAIN_BYTES];
};

struct listener {
    uv_poll_t poll;
    struct loop *loop;
    struct list node; /* in loop->listeners */
    listener_accept_fn *fn;
    listener_room_fn *make_room; /* NULL: its user can spare none */
    void *ctx;
    struct listener_tls tls; /* its server is NULL: plain */
    int fd;
    bool closing;  /* uv_close was called */
    bool closed;   /* and has called back */
    bool released; /* its owner has let go */
};

struct pending_write;

struct stream {
    uv_tcp_t tcp;
    struct loop *loop;
    struct list node;    /* in loop->streams */
    struct list dirty;   /* in loop->dirty */
    struct list watched; /* in loop->watched */
    struct list shaking; /* in loop->shaking, or in loop->shakes_due */
    const struct stream_ops *ops;
    void *ctx;
    struct tls *tls;               /* NULL: plain */
    struct buf out;                /* written at the end of the turn */
    size_t sealed;                 /* bytes of `out` that went through TLS already */
    struct pending_write *pending; /* what the kernel would not take at once; NULL: nothing */
    struct loop_task drained;      /* tells on_drain what a flush has brought about */
    struct loop_task resumed;      /* reads on in what TLS still has */
    const char *why;               /* of the close; NULL while open */
    uint64_t handed_bytes;         /* all that has ever left `out` */
    uint64_t taken_bytes; /* of these, what the peer had taken at the last sweep that paid */
    uint64_t deadline_ms; /* while watched; what the peer takes moves it */
    uint64_t peer_group;  /* of net/peer.h */
    bool shake_due;       /* in loop->shakes_due: what was read waits, and no more is read */
    bool paused;
    bool drain_due; /* so much waited that the user may have stopped: on_drain is owed */
    bool eof;       /* the peer's last byte was read */
    bool closing;   /* uv_close was called */
    bool ending;    /* close once what is queued was taken; bytes that arrive are dropped */
    bool lingering; /* our last byte is out, the peer's is not yet in */
    bool peer_is_loopback;
    char peer[PEER_TEXT_BYTES];
};

/* Starts the turn if this is the first callback of it: reads the clocks. */
void loop_enter(struct loop *l);
/* Starts the sweep's timer when something waits for it. */
void loop_sweep_start(struct loop *l);

/* Writes out every dirty stream, one system call each. Runs no callback of a user. */
void streams_flush(struct loop *l);
/* Closes what has stalled or lingered too long. True: some are still watched. */
bool streams_sweep(struct loop *l);
void streams_close_all(struct loop *l, const char *why);
/* A new stream on a connected socket; takes fd also when it fails (NULL). */
struct stream *stream_open(struct loop *l, int fd, const struct listener_tls *tls);

/* Goes on with a handshake that was due. */
void stream_shake(struct stream *s);
/* Closes a stream whose handshake has to make room. */
void stream_give_up_handshake(struct stream *s);

/* A handshake begins; another one may have to go for it. */
void handshake_begin(struct stream *s);
/* It is done, has failed, or its stream closes; harmless when it was so before. */
void handshake_end(struct stream *s);
/* Its peer has sent something. True: work on it now, and tell handshake_worked; false: it is due,
 * and stream_shake is called when it is its turn. */
bool handshake_admit(struct stream *s);
/* So long was worked on it. */
void handshake_worked(struct stream *s, uint64_t ns);
/* Calls stream_shake for those that are due; the task of the loop. */
void handshakes_work(void *ctx);
/* So much is due that nobody new should come in. */
bool handshakes_crowded(const struct loop *l);

/* Streams that hold a descriptor. */
static inline size_t streams_open(const struct loop *l) {
    return l->streams_count - l->closing_count;
}

/* Listens again after a pause when there is room. */
void listeners_resume(struct loop *l);
/* Listens again after a pause: there may be somebody who can make room. */
void listeners_retry(struct loop *l);
void listeners_close_all(struct loop *l);
/* Frees listeners whose owners never closed them, after the loop has ended. */
void listeners_free(struct loop *l);

void polls_close_all(struct loop *l);
/* Frees polls whose owners never stopped them, after the loop has ended. */
void polls_free(struct loop *l);

#endif
