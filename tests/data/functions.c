/* A library as tuning builds them, of functions that were not compiled by TVM: one works, one crashes. */
#include <stdint.h>

static volatile int spent;

int __tvm_ffi_works(void *self, const void *arguments, int32_t count, void *result) {
    for (int i = 0; i < 10000; i++) spent++;
    return 0;
}

int __tvm_ffi_crashes(void *self, const void *arguments, int32_t count, void *result) {
    *(volatile int *)8 = 1;
    return 0;
}

const char *const edgeloop_functions =
    "[[\"crashes\", [[\"float32\", [1, 4]]]], [\"works\", [[\"float32\", [1, 4]], [\"int32\", [3]]]]]";
