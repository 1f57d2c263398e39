// Waits for mbarriers. With ESPAN_CUDA_TRAP a wait of more than a second prints the thread and the
// barrier and ends the kernel, so a deadlock costs a second.
#pragma once

#include "wgmma/instructions.cuh"

#if defined(ESPAN_CUDA_TRAP) && !defined(ESPAN_SHIM)
#include <cstdio>
#endif

namespace espan::wgmma_rows {

#ifdef ESPAN_SHIM
__device__ inline void wait_past(Address barrier, uint32_t parity, const char* what) {
    shim::wait_past(barrier, parity, what);
}
#elif defined(ESPAN_CUDA_TRAP)
__device__ inline uint64_t nanoseconds() {
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

__device__ inline void wait_past(Address barrier, uint32_t parity, const char* what) {
    constexpr uint64_t LONGEST = 1000000000;
    for (const uint64_t start = nanoseconds(); !mbarrier_is_past(barrier, parity);) {
        if (nanoseconds() - start < LONGEST) continue;
        printf(
            "block %u, role %u, thread %u: waits for %s, barrier %u, parity %u\n", blockIdx.x,
            threadIdx.x / WARPGROUP, threadIdx.x, what, barrier, parity);
        asm volatile("trap;");
    }
}
#else
__device__ inline void wait_past(Address barrier, uint32_t parity, const char* /*what*/) {
    while (!mbarrier_is_past(barrier, parity)) {
    }
}
#endif

}  // namespace espan::wgmma_rows
