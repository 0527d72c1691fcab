#include "broker/net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define HOW "write host:port, such as 127.0.0.1:8420, [::1]:8420 or localhost:0"

static bool parse_port(const char *text, uint16_t *out) {
    uint64_t value;
    if (!slice_to_u64(slice_str(text), &value) || value > UINT16_MAX) return false;
    *out = (uint16_t)value;
    return true;
}

static bool parse_host(struct slice host, bool bracketed, struct sockaddr_storage *out) {
    char text[INET6_ADDRSTRLEN];
    struct sockaddr_in *four = (void *)out;
    struct sockaddr_in6 *six = (void *)out;
    if (!slice_to_cstr(host, text, sizeof text)) return false;
    if (bracketed) {
        six->sin6_family = AF_INET6;
        return inet_pton(AF_INET6, text, &six->sin6_addr) == 1;
    }
    four->sin_family = AF_INET;
    return inet_pton(AF_INET, strcmp(text, "localhost") == 0 ? "127.0.0.1" : text,
                     &four->sin_addr) == 1;
}

int address_parse(const char *text, struct sockaddr_storage *out, char *error, size_t error_size) {
    memset(out, 0, sizeof *out);
    bool bracketed = text[0] == '[';
    const char *host_end = bracketed ? strchr(text, ']') : strrchr(text, ':');
    const char *colon = bracketed && host_end != NULL ? host_end + 1 : host_end;
    if (colon == NULL || *colon != ':') {
        snprintf(error, error_size, "\"%.100s\" has no port: %s", text, HOW);
        return -1;
    }
    const char *host = bracketed ? text + 1 : text;
    struct slice name = slice_of(host, (size_t)(host_end - host));
    if (name.len == 0) {
        snprintf(error, error_size, "\"%.100s\" has no host: %s", text, HOW);
        return -1;
    }
    if (!bracketed && memchr(name.data, ':', name.len) != NULL) {
        snprintf(error, error_size, "\"%.100s\": an IPv6 address goes in brackets: %s", text, HOW);
        return -1;
    }
    if (!parse_host(name, bracketed, out)) {
        snprintf(error, error_size, "\"%.100s\": the host is no IP address and not localhost: %s",
                 text, HOW);
        return -1;
    }
    uint16_t port;
    if (!parse_port(colon + 1, &port)) {
        snprintf(error, error_size, "\"%.100s\": the port is not a number from 0 to 65535: %s",
                 text, HOW);
        return -1;
    }
    if (bracketed) ((struct sockaddr_in6 *)(void *)out)->sin6_port = htons(port);
    else ((struct sockaddr_in *)(void *)out)->sin_port = htons(port);
    return 0;
}

void address_format(const struct sockaddr_storage *a, char *out, size_t size) {
    char host[INET6_ADDRSTRLEN] = "?";
    if (a->ss_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)a)->sin_addr, host,
                  sizeof host);
        snprintf(out, size, "%s:%u", host, address_port(a));
    } else if (a->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, host,
                  sizeof host);
        snprintf(out, size, "[%s]:%u", host, address_port(a));
    } else {
        snprintf(out, size, "?");
    }
}

unsigned address_port(const struct sockaddr_storage *a) {
    if (a->ss_family == AF_INET6) {
        return ntohs(((const struct sockaddr_in6 *)(const void *)a)->sin6_port);
    }
    return ntohs(((const struct sockaddr_in *)(const void *)a)->sin_port);
}

socklen_t address_len(const struct sockaddr_storage *a) {
    return a->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}
