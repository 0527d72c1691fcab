/* peer.h: whom a peer counts as, when connections are counted.
 *
 * One caller is one IPv4 address, or one /64 of IPv6: that is what a single line is given, so
 * counting whole IPv6 addresses would count nothing. Pure. May call: base. */
#ifndef NET_PEER_H
#define NET_PEER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* The same for all who count as one; different for an IPv4 address and an IPv6 network. An IPv4
 * address in IPv6 clothes (::ffff:a.b.c.d) is that IPv4 address. 0 for another family. */
uint64_t peer_group(const struct sockaddr_storage *a);
/* 127.0.0.0/8, also in IPv6 clothes, or ::1. */
bool peer_is_loopback(const struct sockaddr_storage *a);

#endif
