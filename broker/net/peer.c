#include "broker/net/peer.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

/* The IPv4 address that this one is or stands for. */
static bool find_ipv4(const struct sockaddr_storage *a, uint32_t *out) {
    if (a->ss_family == AF_INET) {
        *out = ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr);
        return true;
    }
    if (a->ss_family != AF_INET6) return false;
    const struct in6_addr *six = &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
    if (!IN6_IS_ADDR_V4MAPPED(six)) return false;
    memcpy(out, six->s6_addr + 12, sizeof *out);
    *out = ntohl(*out);
    return true;
}

uint64_t peer_group(const struct sockaddr_storage *a) {
    uint32_t four;
    /* ::/16 is given to nobody, so no IPv6 network has such a number. */
    if (find_ipv4(a, &four)) return (uint64_t)0xFFFF << 32 | four;
    if (a->ss_family != AF_INET6) return 0;
    const uint8_t *bytes = ((const struct sockaddr_in6 *)(const void *)a)->sin6_addr.s6_addr;
    uint64_t group = 0;
    for (int i = 0; i < 8; i++) group = group << 8 | bytes[i];
    return group;
}

bool peer_is_loopback(const struct sockaddr_storage *a) {
    uint32_t four;
    if (find_ipv4(a, &four)) return four >> 24 == 127;
    return a->ss_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}
