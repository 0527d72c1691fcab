/* limits.h: every maximum of Bellhop, in one place.
 *
 * A buffer is made with its maximum and a length that a peer chose is held against one of these
 * before anything is allocated. Numbers only: anyone may include this. */
#ifndef PROTO_LIMITS_H
#define PROTO_LIMITS_H

#define KIB 1024
#define MIB (1024 * KIB)

/* Names of sources and subscriptions: [A-Za-z0-9][A-Za-z0-9._-]*. */
#define LIMIT_NAME_BYTES 64

/* The parts of an event. */
#define LIMIT_EVENT_ID_BYTES           256
#define LIMIT_EVENT_TYPE_BYTES         256
#define LIMIT_EVENT_SUBJECT_BYTES      1024
#define LIMIT_EVENT_CONTENT_TYPE_BYTES 256
#define LIMIT_EVENT_METADATA_BYTES     (16 * KIB)
#define LIMIT_EVENT_HEADERS_BYTES      (8 * KIB)
#define LIMIT_BODY_BYTES_DEFAULT       (1 * MIB)      /* --max-body */
#define LIMIT_BODY_BYTES_HIGHEST       (16 * MIB)     /* what --max-body may be set to */
#define LIMIT_BODY_MEMORY_BYTES        (256ULL * MIB) /* --max-body-memory */
#define LIMIT_EVENT_BYTES                                                                          \
    (LIMIT_BODY_BYTES_HIGHEST + LIMIT_EVENT_METADATA_BYTES + LIMIT_EVENT_HEADERS_BYTES +           \
     LIMIT_EVENT_ENDPOINTS_BYTES + 4 * KIB)
/* Of a dynamic webhook_config. */
#define LIMIT_ENDPOINTS             8
#define LIMIT_URI_BYTES             2048
#define LIMIT_EVENT_ENDPOINTS_BYTES (LIMIT_ENDPOINTS * (LIMIT_URI_BYTES + 1))

/* One publish, over HTTP or the worker protocol. */
#define LIMIT_PUBLISH_EVENTS 1024

/* Sources. */
#define LIMIT_SOURCES           10000 /* of all projects */
#define LIMIT_SECRETS           8     /* per source */
#define LIMIT_SECRET_TEXT_BYTES 128   /* whsec_ and the base64 of 64 bytes, rounded up */
#define LIMIT_SIGNATURES        16    /* looked at per request */

/* Subscriptions. */
#define LIMIT_SUBSCRIPTIONS   100000     /* of all projects, those of webhooks too */
#define LIMIT_FILTER_BYTES    (32 * KIB) /* of its JSON text */
#define LIMIT_FILTER_NODES    512        /* globs, names and conditions of one filter */
#define LIMIT_FILTER_DEPTH    8          /* all, any and not within each other */
#define LIMIT_FILTER_IN       64         /* values of one "in" */
#define LIMIT_OUTSTANDING     100000     /* entries of one subscription between floor and next */
#define LIMIT_LEASE_MS_MIN    100
#define LIMIT_LEASE_MS_MAX    (12 * 3600 * 1000) /* one lease; EXTEND renews it */
#define LIMIT_HOLD_MS_MAX     (7 * 24 * 3600 * 1000)
#define LIMIT_AGE_MS_MAX      (366ULL * 24 * 3600 * 1000) /* max_age_ms, and retention's */
#define LIMIT_BACKOFF_MS_MAX  (24 * 3600 * 1000)
#define LIMIT_BACKOFF_STEPS   32 /* of a backoff list */
#define LIMIT_FAILS_MAX       1000000
#define LIMIT_RATE_PER_S      1000000
#define LIMIT_ORDER_KEY_BYTES 128
/* The failure that a nack tells. */
#define LIMIT_ERROR_TYPE_BYTES    128
#define LIMIT_ERROR_MESSAGE_BYTES 512
#define LIMIT_ERROR_DETAIL_BYTES  (2 * KIB)
/* deliver_at of an event: so far ahead at most. */
#define LIMIT_DELIVER_LATER_MS (30ULL * 24 * 3600 * 1000)

/* Jobs. */
#define LIMIT_JOBS                100000         /* known at a time */
#define LIMIT_JOBS_BYTES          (256ULL * MIB) /* of their ids, URIs and metadata */
#define LIMIT_JOB_EVENTS          64             /* seqs kept of one job: the last ones */
#define LIMIT_JOB_TTL_MS_MAX      (30ULL * 24 * 3600 * 1000)
#define LIMIT_JOB_TTL_MS_DEFAULT  (48ULL * 3600 * 1000)
#define LIMIT_JOB_KEPT_MS         (7ULL * 24 * 3600 * 1000) /* after its last event or its TTL */
#define LIMIT_JOB_LOOK_BACK       65536 /* events looked back for when a job is put */
#define LIMIT_JOB_WAITS           20000 /* requests held for jobs, HTTP and workers together */
#define LIMIT_JOB_WAIT_TYPES      16
#define LIMIT_JOB_WAIT_MS_DEFAULT 60000
#define LIMIT_JOB_WAIT_MS_MAX     600000

/* Webhooks (outbound). */
#define LIMIT_WEBHOOKS              10000
#define LIMIT_WEBHOOK_TYPES         64 /* subscribed_events of one */
#define LIMIT_WEBHOOK_HEADERS       16
#define LIMIT_WEBHOOK_TEXT_BYTES    1024 /* name, description, value of a header */
#define LIMIT_WEBHOOK_SECRETS       8    /* unexpired ones of one */
#define LIMIT_WEBHOOK_CONCURRENCY   64
#define LIMIT_WEBHOOK_RESPONSE_KEPT 512        /* bytes of a response that an attempt keeps */
#define LIMIT_RESPONSE_BYTES        (64 * KIB) /* read of a response, then the rest is left */
#define LIMIT_WEBHOOK_ATTEMPTS_KEPT 64         /* failed ones per endpoint, on disk */
#define LIMIT_OUTBOUND_REQUESTS     4096       /* under way at a time */
#define LIMIT_OUTBOUND_BYTES        (64 * MIB) /* of their bodies */

/* HTTP (RFC 9112); the times are absolute, from the first byte. */
#define LIMIT_HTTP_HEAD_BYTES       (16 * KIB)
#define LIMIT_HTTP_HEADERS          100
#define LIMIT_HTTP_TARGET_BYTES     (8 * KIB)
#define LIMIT_HTTP_CHUNK_EXT_BYTES  256        /* per chunk-size line */
#define LIMIT_HTTP_SMALL_BODY_BYTES (64 * KIB) /* taken also when memory for bodies is scarce */
#define LIMIT_HTTP_HEAD_MS          5000
#define LIMIT_HTTP_BODY_GRACE_MS    5000 /* then the body must come at the rate below */
#define LIMIT_HTTP_BODY_BYTES_PER_S 1024
#define LIMIT_HTTP_IDLE_MS          30000
#define LIMIT_DEDUPE_IDS            100000000 /* --dedupe-ids: 16 bytes of memory each */
#define LIMIT_HTTP_PER_IP           1024      /* --max-per-ip: connections of one address */
#define LIMIT_WRITE_STALL_MS        30000 /* a peer that takes nothing for this long is closed */
#define LIMIT_WRITE_BYTES_PER_S     1024  /* what output that waits must be taken at */
#define LIMIT_CONNECTIONS           16000 /* HTTP and workers together; also bounded by RLIMIT_NOFILE */

/* TLS, on either port; its handshake has LIMIT_HANDSHAKE_MS. */
#define LIMIT_TLS_MESSAGE_BYTES   (32 * KIB)  /* of a handshake; a client's certificates are one */
#define LIMIT_TLS_HANDSHAKE_BYTES (128 * KIB) /* of all that a peer sends for it */
#define LIMIT_TLS_CERTIFICATES    64
/* Handshakes that are not done, on both ports together: who waited longest goes for a new one. */
#define LIMIT_TLS_HANDSHAKES        2048
#define LIMIT_TLS_HANDSHAKES_PER_IP 256 /* of one address; loopback has no limit of its own */

/* The worker protocol. */
#define LIMIT_FRAME_OVERHEAD_BYTES      (64 * KIB) /* a frame is at most --max-body and this */
#define LIMIT_FRAME_BYTES_BEFORE_AUTH   (4 * KIB)
#define LIMIT_HANDSHAKE_MS              5000
#define LIMIT_HEARTBEAT_MS_DEFAULT      10000
#define LIMIT_HEARTBEAT_MS_MIN          1000
#define LIMIT_HEARTBEAT_MS_MAX          300000
#define LIMIT_SUBSCRIPTIONS_PER_SESSION 64
#define LIMIT_WAITS_PER_SESSION         1024
#define LIMIT_WINDOW_EVENTS             16384
#define LIMIT_WINDOW_BYTES              (64 * MIB)
#define LIMIT_RANGES                    1024       /* tag ranges of one ACK, NACK or EXTEND */
#define LIMIT_RESUME_MS                 600000     /* grace that a worker may ask for in HELLO */
#define LIMIT_SESSION_TOKEN_BYTES       64         /* `session` of WELCOME, `resume` of HELLO */
#define LIMIT_RESTART_GRACE_MS          600000     /* --restart-grace */
#define LIMIT_DRAIN_MS                  600000     /* --drain-ms */
#define LIMIT_POLICY_BYTES              (48 * KIB) /* JSON text of a policy in SUBSCRIBE */
#define LIMIT_DELIVER_BYTES             (256 * KIB) /* a DELIVER frame is closed when it passes this */
#define LIMIT_SESSION_OUT_BYTES         (64 * MIB) /* frames of one turn for one session */
#define LIMIT_WRITE_QUEUE_BYTES                                                                    \
    (8 * MIB) /* per connection; above it nothing more is handed out                               \
               */

/* Projects, with the one that is always there. */
#define LIMIT_PROJECTS 1000

/* Keys. */
#define LIMIT_KEYS           4096
#define LIMIT_KEYS_SPARED    64 /* of them for whom the broker belongs to, whatever others make */
#define LIMIT_KEY_NAME_BYTES 128
#define LIMIT_KEY_GLOBS      8   /* of sources and of subscriptions */
#define LIMIT_KEY_TEXT_BYTES 128 /* that a client keeps; a key has 59 */

/* Lists. */
#define LIMIT_PAGE_SIZE_DEFAULT 50
#define LIMIT_PAGE_SIZE         1000
#define LIMIT_PAGE_BYTES        (4 * MIB) /* a page ends early rather than pass this */
#define LIMIT_WAIT_MS           60000     /* longest wait_ms of GET /v1/events */

#endif
