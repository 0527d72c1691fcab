/* address.h: "host:port" as people write it, and sockaddr.
 *
 * host is an IPv4 address, an IPv6 address in brackets or "localhost" (127.0.0.1); names are never
 * resolved. Pure but for inet_pton; the caller owns every buffer. May call: base. */
#ifndef NET_ADDRESS_H
#define NET_ADDRESS_H

#include <sys/socket.h>

#include "base/check.h"
#include "base/slice.h"

/* 0, or -1 with a sentence in error that quotes the text and says what would be right. */
MUST_CHECK int address_parse(const char *text, struct sockaddr_storage *out, char *error,
                             size_t error_size);
/* "127.0.0.1:80", "[::1]:80", or "?" for another family, cut to size. */
void address_format(const struct sockaddr_storage *a, char *out, size_t size);
/* The port of an IPv4 or IPv6 address. */
unsigned address_port(const struct sockaddr_storage *a);
/* Bytes of the sockaddr that the family really has. */
socklen_t address_len(const struct sockaddr_storage *a);

#endif
