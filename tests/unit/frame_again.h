/* frame_again.h: encodes what a decoder returned, for tests that go there and back. */
#ifndef TESTS_FRAME_AGAIN_H
#define TESTS_FRAME_AGAIN_H

#include <stdio.h>

#include "proto/frame.h"

static inline bool frame_again_client(const struct frame *f, struct buf *b) {
    char name[128], version[128];
    switch (f->op) {
    case FRAME_HELLO:
        slice_to_cstr(f->u.hello.client_name, name, sizeof name);
        slice_to_cstr(f->u.hello.client_version, version, sizeof version);
        return frame_encode_hello(b, f->rid, name, version, f->u.hello.heartbeat_ms,
                                  f->u.hello.resume_ms, f->u.hello.resume);
    case FRAME_AUTH: return frame_encode_auth(b, f);
    case FRAME_SUBSCRIBE: return frame_encode_subscribe(b, f);
    case FRAME_WINDOW:
        return frame_encode_window(b, f->rid, f->sub, f->u.window.events, f->u.window.bytes);
    case FRAME_ACK:
        return frame_encode_ack(b, f->rid, f->sub, f->ranges, f->ranges_count, f->u.ack.confirm);
    case FRAME_NACK:
        return frame_encode_nack(b, f->rid, f->sub, f->ranges, f->ranges_count, f->u.nack.kind,
                                 f->u.nack.delay_ms, &f->u.nack.failure, f->u.nack.confirm);
    case FRAME_EXTEND:
        return frame_encode_extend(b, f->rid, f->sub, f->ranges, f->ranges_count,
                                   f->u.extend.lease_ms, f->u.extend.confirm);
    case FRAME_UNSUBSCRIBE: return frame_encode_unsubscribe(b, f->rid, f->sub);
    case FRAME_PUBLISH:
        return frame_encode_publish(b, f->rid, f->u.publish.events, f->u.publish.count);
    case FRAME_REPLAY: return frame_encode_replay(b, f);
    case FRAME_REDRIVE: return frame_encode_redrive(b, f);
    case FRAME_WAIT: return frame_encode_wait(b, f);
    default: return frame_encode_plain(b, (enum frame_op)f->op, f->rid);
    }
}

static inline bool frame_again_deliver(const struct frame *f, struct buf *b) {
    struct frame_deliver d;
    if (!frame_deliver_begin(&d, b, f->sub, f->u.deliver.lease_ms)) return false;
    for (size_t i = 0; i < f->u.deliver.count; i++) {
        if (!frame_deliver_add(&d, &f->u.deliver.items[i])) return false;
    }
    frame_deliver_end(&d);
    return true;
}

/* False: the frame has no encoder that could say the same (an unknown op), or the buf is full. */
static inline bool frame_again(const struct frame *f, struct buf *b) {
    char reason[4096];
    switch (f->op) {
    case FRAME_UNKNOWN: return false;
    case FRAME_WELCOME: return frame_encode_welcome(b, f->rid, f);
    case FRAME_OK: return frame_encode_ok(b, f->rid, f->u.ok.value);
    case FRAME_ERR:
        return frame_encode_err(b, f->rid, (enum err)f->u.err.number, f->u.err.message,
                                f->u.err.fatal);
    case FRAME_SUBSCRIBED: return frame_encode_subscribed(b, f);
    case FRAME_DELIVER: return frame_again_deliver(f, b);
    case FRAME_SETTLED:
        return frame_encode_settled(b, f->rid, f->sub, f->ranges, f->ranges_count,
                                    f->u.settled.already, f->u.settled.already_count,
                                    f->u.settled.stale, f->u.settled.stale_count);
    case FRAME_LEASE:
        return frame_encode_lease(b, f->sub, f->ranges, f->ranges_count, f->u.lease.remaining_ms);
    case FRAME_STATE:
        if (f->u.state.answer) return frame_encode_state(b, f);
        return frame_encode_state_request(b, f->rid, f->sub, f->u.state.watch);
    case FRAME_QUIET:
        slice_to_cstr(f->u.quiet.reason, reason, sizeof reason);
        return frame_encode_quiet(b, reason, f->u.quiet.deadline_ms);
    case FRAME_REVOKE:
        slice_to_cstr(f->u.revoke.reason, reason, sizeof reason);
        return frame_encode_revoke(b, f->sub, f->ranges, f->ranges_count, reason);
    case FRAME_PUBLISHED:
        return frame_encode_published(b, f->rid, f->u.published.seqs, f->u.published.duplicates,
                                      f->u.published.count);
    case FRAME_GOAWAY:
        slice_to_cstr(f->u.goaway.reason, reason, sizeof reason);
        return frame_encode_goaway(b, reason, f->u.goaway.reconnect_ms);
    case FRAME_ENDED:
        return frame_encode_ended(b, f->sub, (enum err)f->u.ended.number, f->u.ended.message);
    case FRAME_JOB_EVENT: return frame_encode_job_event(b, f);
    case FRAME_CHALLENGE:
        return frame_encode_challenge(b, f->rid, f->u.challenge.mechanism, f->u.challenge.nonce);
    default: return frame_again_client(f, b);
    }
}

#endif
