#include "base/utf8.h"
#include "broker/json/walk.h"

#define HIGH_BITS 0x8080808080808080ULL

size_t json_utf8_error(struct slice text) {
    size_t i = 0;
    while (i < text.len) {
        uint64_t eight;
        if (text.len - i >= sizeof eight) {
            memcpy(&eight, text.data + i, sizeof eight);
            if ((eight & HIGH_BITS) == 0) {
                i += sizeof eight;
                continue;
            }
        }
        size_t n = utf8_sequence(text.data + i, text.len - i);
        if (n == 0) return i;
        i += n;
    }
    return i;
}
