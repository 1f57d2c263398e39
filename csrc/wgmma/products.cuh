// wgmma of 64 pixels and N channels: d += a b of halves, accumulated in float.
//
// Layout of d: a warp has 16 of the 64 pixels, a lane pixels g = lane / 4 and g + 8 of these. Of
// channels 8 j to 8 j + 7 it has 2 q = 2 (lane % 4) and 2 q + 1, for pixel g in d[4 j] and
// d[4 j + 1], for pixel g + 8 in d[4 j + 2] and d[4 j + 3]. Call wgmma_fence before the first of a
// group. Results are valid after wgmma_wait; `hold` keeps the compiler from reading them earlier.
#pragma once

#include "common/base.cuh"

namespace espan {

// Orders earlier writes of operand registers and accumulators before the next wgmma.
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Ends a group of wgmma.
__device__ inline void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until all but the last PENDING groups have completed.
template <int PENDING>
__device__ inline void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

template <int COUNT>
__device__ inline void hold(float (&sums)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// to = from, from = next. In asm, because ptxas serialises wgmma around moves of its own.
__device__ inline void take(float& to, float& from, float next) {
    asm volatile("mov.f32 %0, %1;" : "=f"(to) : "f"(from));
    asm volatile("mov.f32 %0, %1;" : "=f"(from) : "f"(next));
}

// d[i] to d[i + 7] as asm operands, and their placeholders in the instruction text.
#define ESPAN_SUMS(i)                                                                         \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define ESPAN_NAMES_0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define ESPAN_NAMES_8 "%8, %9, %10, %11, %12, %13, %14, %15"
#define ESPAN_NAMES_16 "%16, %17, %18, %19, %20, %21, %22, %23"
#define ESPAN_NAMES_24 "%24, %25, %26, %27, %28, %29, %30, %31"
#define ESPAN_NAMES_32 "%32, %33, %34, %35, %36, %37, %38, %39"
#define ESPAN_NAMES_40 "%40, %41, %42, %43, %44, %45, %46, %47"
#define ESPAN_NAMES_48 "%48, %49, %50, %51, %52, %53, %54, %55"
#define ESPAN_NAMES_56 "%56, %57, %58, %59, %60, %61, %62, %63"
#define ESPAN_NAMES_64 "%64, %65, %66, %67, %68, %69, %70, %71"
#define ESPAN_NAMES_72 "%72, %73, %74, %75, %76, %77, %78, %79"
#define ESPAN_NAMES_80 "%80, %81, %82, %83, %84, %85, %86, %87"
#define ESPAN_NAMES_88 "%88, %89, %90, %91, %92, %93, %94, %95"
#define ESPAN_NAMES_TO_8 ESPAN_NAMES_0
#define ESPAN_SUMS_TO_8 ESPAN_SUMS(0)
#define ESPAN_NAMES_TO_16 ESPAN_NAMES_TO_8 ", " ESPAN_NAMES_8
#define ESPAN_SUMS_TO_16 ESPAN_SUMS_TO_8, ESPAN_SUMS(8)
#define ESPAN_NAMES_TO_24 ESPAN_NAMES_TO_16 ", " ESPAN_NAMES_16
#define ESPAN_SUMS_TO_24 ESPAN_SUMS_TO_16, ESPAN_SUMS(16)
#define ESPAN_NAMES_TO_32 ESPAN_NAMES_TO_24 ", " ESPAN_NAMES_24
#define ESPAN_SUMS_TO_32 ESPAN_SUMS_TO_24, ESPAN_SUMS(24)
#define ESPAN_NAMES_TO_40 ESPAN_NAMES_TO_32 ", " ESPAN_NAMES_32
#define ESPAN_SUMS_TO_40 ESPAN_SUMS_TO_32, ESPAN_SUMS(32)
#define ESPAN_NAMES_TO_48 ESPAN_NAMES_TO_40 ", " ESPAN_NAMES_40
#define ESPAN_SUMS_TO_48 ESPAN_SUMS_TO_40, ESPAN_SUMS(40)
#define ESPAN_NAMES_TO_56 ESPAN_NAMES_TO_48 ", " ESPAN_NAMES_48
#define ESPAN_SUMS_TO_56 ESPAN_SUMS_TO_48, ESPAN_SUMS(48)
#define ESPAN_NAMES_TO_64 ESPAN_NAMES_TO_56 ", " ESPAN_NAMES_56
#define ESPAN_SUMS_TO_64 ESPAN_SUMS_TO_56, ESPAN_SUMS(56)
#define ESPAN_NAMES_TO_72 ESPAN_NAMES_TO_64 ", " ESPAN_NAMES_64
#define ESPAN_SUMS_TO_72 ESPAN_SUMS_TO_64, ESPAN_SUMS(64)
#define ESPAN_NAMES_TO_80 ESPAN_NAMES_TO_72 ", " ESPAN_NAMES_72
#define ESPAN_SUMS_TO_80 ESPAN_SUMS_TO_72, ESPAN_SUMS(72)
#define ESPAN_NAMES_TO_84 ESPAN_NAMES_TO_80 ", %80, %81, %82, %83"
#define ESPAN_SUMS_TO_84 ESPAN_SUMS_TO_80, "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83])
#define ESPAN_NAMES_TO_88 ESPAN_NAMES_TO_80 ", " ESPAN_NAMES_80
#define ESPAN_SUMS_TO_88 ESPAN_SUMS_TO_80, ESPAN_SUMS(80)
#define ESPAN_NAMES_TO_96 ESPAN_NAMES_TO_88 ", " ESPAN_NAMES_88
#define ESPAN_SUMS_TO_96 ESPAN_SUMS_TO_88, ESPAN_SUMS(88)


// COUNT sums per thread for CHANNELS = 2 COUNT channels; A to B: the numbers of the operands after
// the sums. First with a and b in shared memory, then with a in registers, laid out as A of mma
// m16n8k16 for the warp's 16 pixels.
#define ESPAN_PRODUCT(COUNT, CHANNELS, A, A1, A2, A3, B)                                        \
    __device__ inline void wgmma(float(&d)[COUNT], uint64_t a, uint64_t b) {                  \
        asm volatile("{ .reg .pred sum; setp.ne.b32 sum, 1, 0; "                              \
                     "wgmma.mma_async.sync.aligned.m64n" #CHANNELS "k16.f32.f16.f16 "         \
                     "{" ESPAN_NAMES_TO_##COUNT "}, %" #A ", %" #A1 ", sum, 1, 1, 0, 0; }"    \
                     : ESPAN_SUMS_TO_##COUNT                                                  \
                     : "l"(a), "l"(b)                                                         \
                     : "memory");                                                             \
    }                                                                                         \
    __device__ inline void wgmma(float(&d)[COUNT], const uint32_t(&a)[4], uint64_t b) {       \
        asm volatile("{ .reg .pred sum; setp.ne.b32 sum, 1, 0; "                              \
                     "wgmma.mma_async.sync.aligned.m64n" #CHANNELS "k16.f32.f16.f16 "         \
                     "{" ESPAN_NAMES_TO_##COUNT "}, {%" #A ", %" #A1 ", %" #A2 ", %" #A3 "}, " \
                     "%" #B ", sum, 1, 1, 0; }"                                               \
                     : ESPAN_SUMS_TO_##COUNT                                                  \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)                     \
                     : "memory");                                                             \
    }

ESPAN_PRODUCT(16, 32, 16, 17, 18, 19, 20)
ESPAN_PRODUCT(24, 48, 24, 25, 26, 27, 28)
ESPAN_PRODUCT(48, 96, 48, 49, 50, 51, 52)
ESPAN_PRODUCT(64, 128, 64, 65, 66, 67, 68)
ESPAN_PRODUCT(72, 144, 72, 73, 74, 75, 76)
ESPAN_PRODUCT(80, 160, 80, 81, 82, 83, 84)
ESPAN_PRODUCT(84, 168, 84, 85, 86, 87, 88)
ESPAN_PRODUCT(96, 192, 96, 97, 98, 99, 100)

}  // namespace espan
