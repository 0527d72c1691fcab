/* Arbitrary bytes as one frame. It must be refused or decode; what decodes is encoded again, and
 * from then on decoding and encoding change nothing. */
#include <stdlib.h>

#include "base/check.h"
#include "proto/frame.h"
#include "tests/unit/frame_again.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Bytes -> frame -> bytes. False: it did not decode, or has no encoder. */
static bool once_more(struct frame_decoder *d, struct slice in, struct buf *out, bool must) {
    struct frame f;
    const char *why = NULL;
    enum err err = frame_decode(d, in, &f, &why);
    CHECK(why != NULL && (err == ERR_OK) == (why[0] == '\0'));
    CHECK(!must || err == ERR_OK);
    return err == ERR_OK && frame_again(&f, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct frame_decoder *d = frame_decoder_new();
    struct buf first, second;
    uint8_t *exact = malloc(size + 4); /* as large as the frame: a read past its end is seen */
    CHECK(exact != NULL);
    buf_init(&first, 64 << 20);
    buf_init(&second, 64 << 20);
    exact[0] = (uint8_t)(size >> 24);
    exact[1] = (uint8_t)(size >> 16);
    exact[2] = (uint8_t)(size >> 8);
    exact[3] = (uint8_t)size;
    if (size > 0) memcpy(exact + 4, data, size);

    size_t frame_len = 0;
    struct slice in = slice_of(exact, size + 4);
    CHECK(frame_split(in, size, &frame_len) == 1 && frame_len == size + 4);
    if (once_more(d, in, &first, false)) {
        CHECK(once_more(d, buf_slice(&first), &second, true));
        CHECK(slice_eq(buf_slice(&first), buf_slice(&second)));
    }
    buf_free(&first);
    buf_free(&second);
    free(exact);
    frame_decoder_free(&d);
    return 0;
}
