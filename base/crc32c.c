#include "base/crc32c.h"

#include <string.h>

/* One table entry for a byte: eight steps of the reflected polynomial. Computed rather than
 * written out: 256 constants would say less than these lines. */
static uint32_t step(uint32_t crc) {
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82F63B78u & (0u - (crc & 1)));
    return crc;
}

static uint32_t crc32c_soft(uint32_t crc, const uint8_t *p, size_t len) {
    for (size_t i = 0; i < len; i++) crc = (crc >> 8) ^ step((crc ^ p[i]) & 0xFF);
    return crc;
}

#if defined(__x86_64__)
/* SSE 4.2 has the instruction since 2008; asked at run time because the build is for any x86-64. */
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *p,
                                                               size_t len) {
    uint64_t wide = crc;
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        wide = __builtin_ia32_crc32di(wide, word);
    }
    crc = (uint32_t)wide;
    for (; len > 0; p++, len--) crc = __builtin_ia32_crc32qi(crc, *p);
    return crc;
}
#endif

uint32_t crc32c(const void *data, size_t len) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) return ~crc32c_sse42(~0u, data, len);
#endif
    return ~crc32c_soft(~0u, data, len);
}
