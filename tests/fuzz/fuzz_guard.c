/* The guard's readers of text: URIs, allow-lists, Retry-After.
 *
 * The input's first byte chooses the options. A URI that is taken must have an origin that is taken
 * too and is its own origin; a host that inet_aton(3) would make an address of must be judged as
 * that address. */
#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "broker/http/client.h"

static struct guard *open_with(const char *allow, bool https_only) {
    struct guard *g;
    char error[256] = "";
    const struct guard_options options = {.allow = allow, .https_only = https_only};
    if (guard_open(&g, &options, error, sizeof error) == 0) return g;
    CHECK(g == NULL && error[0] != '\0');
    return NULL;
}

static void check_address(const struct guard *g, const char *origin) {
    char host[256], why[256];
    struct sockaddr_in a = {.sin_family = AF_INET};
    const char *from = strstr(origin, "://") + 3;
    size_t len = (size_t)(strrchr(from, ':') - from);
    if (*from == '[' || len >= sizeof host) return;
    memcpy(host, from, len);
    host[len] = '\0';
    a.sin_port = htons((uint16_t)strtoul(from + len + 1, NULL, 10));
    if (inet_aton(host, &a.sin_addr) == 0) return;
    CHECK(guard_address_ok(g, (const struct sockaddr *)&a, why, sizeof why));
}

static void check_uri(const struct guard *g, struct slice uri) {
    char why[256] = "", origin[LIMIT_URI_BYTES + 8], again[LIMIT_URI_BYTES + 8];
    struct slice name = guard_uri_name(uri);
    guard_uri_origin(uri, origin);
    if (!guard_uri_ok(g, uri, why, sizeof why)) {
        CHECK(why[0] != '\0');
        return;
    }
    CHECK(uri.len > 0 && uri.len <= LIMIT_URI_BYTES && memchr(uri.data, '#', uri.len) == NULL);
    CHECK(strncmp(origin, "http://", 7) == 0 || strncmp(origin, "https://", 8) == 0);
    for (const char *c = origin; *c != '\0'; c++) CHECK(isgraph(*c) && !isupper(*c) && *c != '@');
    guard_uri_origin(slice_str(origin), again);
    CHECK(strcmp(origin, again) == 0);
    CHECK(guard_uri_ok(g, slice_str(origin), why, sizeof why));
    CHECK(name.len == 0 || (name.data >= uri.data && name.data + name.len <= uri.data + uri.len));
    check_address(g, origin);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char text[4096];
    if (size == 0) return 0;
    struct slice in = slice_of(data + 1, size - 1);
    struct guard *g = open_with(data[0] & 2 ? "127.0.0.0/8 ::1" : "", data[0] & 1);
    check_uri(g, in);
    guard_free(&g);
    if (slice_to_cstr(in, text, sizeof text)) {
        g = open_with(text, false);
        if (g != NULL) check_uri(g, slice_str("http://127.0.0.1:22/"));
        guard_free(&g);
    }
    uint64_t ms = http_retry_after_ms(in, 1700000000000);
    CHECK(ms == UINT64_MAX || in.len > 0);
    return 0;
}
