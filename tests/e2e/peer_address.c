/* peer_address.c: a preloaded getpeername that lets this machine's addresses look like others', so
 * that what counts addresses can be tried without a second machine, a namespace or root.
 *
 * 127.0.0.0/16 stays what it is. 127.A.B.C becomes 10.A.B.C, and with A of 200 or more
 * 2001:db8:A:B::C. */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

typedef int getpeername_fn(int, struct sockaddr *, socklen_t *);

static void make_six(const struct sockaddr_in *four, struct sockaddr_in6 *six) {
    const unsigned char *byte = (const unsigned char *)&four->sin_addr;
    *six = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = four->sin_port};
    inet_pton(AF_INET6, "2001:db8::", &six->sin6_addr);
    six->sin6_addr.s6_addr[5] = byte[1];
    six->sin6_addr.s6_addr[7] = byte[2];
    six->sin6_addr.s6_addr[15] = byte[3];
}

int getpeername(int fd, struct sockaddr *restrict out, socklen_t *restrict len) {
    static getpeername_fn *real;
    struct sockaddr_in four;
    socklen_t room = *len;
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "getpeername");
    int rc = real(fd, out, len);
    if (rc != 0 || out->sa_family != AF_INET || room < sizeof(struct sockaddr_in6)) return rc;
    memcpy(&four, out, sizeof four);
    unsigned char *byte = (unsigned char *)&four.sin_addr;
    if (byte[0] != 127 || byte[1] == 0) return rc;
    if (byte[1] >= 200) {
        struct sockaddr_in6 six;
        make_six(&four, &six);
        memcpy(out, &six, sizeof six);
        *len = sizeof six;
    } else {
        byte[0] = 10;
        memcpy(out, &four, sizeof four);
    }
    return rc;
}
