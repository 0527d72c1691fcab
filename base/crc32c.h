/* crc32c.h: the Castagnoli CRC (RFC 3720 appendix B.4; polynomial 0x1EDC6F41, reflected).
 *
 * Guards every value in the store: LMDB has no page checksums. Pure. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The CRC of len bytes. crc32c("123456789", 9) == 0xE3069283. */
uint32_t crc32c(const void *data, size_t len);

#endif
