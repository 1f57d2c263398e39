// Instructions that C++ cannot express: PTX on the device, emulated in the host build.
//
// A fragment is the part of a matrix held by one lane of a warp, as in the PTX ISA. With
// g = lane / 4 and q = lane % 4, mma m16n8k16 has
//   A (16 x 16): a[0] row g, columns 2q and 2q + 1; a[1] row g + 8; a[2], a[3] 8 columns further;
//   B (16 x 8):  b0 rows 2q and 2q + 1 of column g; b1 8 rows further;
//   D (16 x 8):  d[0], d[1] row g, columns 2q and 2q + 1; d[2], d[3] row g + 8.
#pragma once

#include "common/base.cuh"

#ifdef ESPAN_SHIM
#include "host/instructions.h"
#else
namespace espan {

// Loads four 8 x 8 matrices of halves, a[i] from matrix i. Lane l passes the address of row l % 8
// of matrix l / 8: the 16 bytes at rows[word].
__device__ inline void ldmatrix_x4(uint32_t (&a)[4], Shared<uint32_t> rows, int word) {
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(rows.data + word));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(address));
}

// Loads two matrices, a[0] and a[1]; the addresses of lanes 16 to 31 are ignored.
__device__ inline void ldmatrix_x2(uint32_t (&a)[4], Shared<uint32_t> rows, int word) {
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(rows.data + word));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(a[0]), "=r"(a[1])
                 : "r"(address));
}

// d += a * b: exact products of halves, accumulated in float.
__device__ inline void mma_m16n8k16(
    float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same with 8 columns of A, a[0] and a[1], and 8 rows of B, b0.
__device__ inline void mma_m16n8k8(float (&d)[4], const uint32_t (&a)[4], uint32_t b0) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(b0));
}

// The same, accumulated in half: a word has two columns, d[0] of row g, d[1] of row g + 8.
__device__ inline void mma_m16n8k16(
    uint32_t (&d)[2], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 "
        "{%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%0, %1};"
        : "+r"(d[0]), "+r"(d[1])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline void mma_m16n8k8(uint32_t (&d)[2], const uint32_t (&a)[4], uint32_t b0) {
    asm("mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3}, {%4}, {%0, %1};"
        : "+r"(d[0]), "+r"(d[1])
        : "r"(a[0]), "r"(a[1]), "r"(b0));
}

// Starts copying 16 bytes from from[i] to to[word]; writes zeros and reads nothing if not `inside`.
// Visible to this thread after cp_async_wait, to others after a subsequent barrier.
__device__ inline void cp_async16(
    Shared<uint32_t> to, int word, Global<const uint32_t> from, int64_t i, bool inside) {
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to.data + word));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(address), "l"(from.data + (inside ? i : 0)), "r"(inside ? 16 : 0)
                 : "memory");
}

// Ends a group of copies.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all but the last `PENDING` groups of this thread have completed.
template <int PENDING>
__device__ inline void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Starts loading the cache line of from[i] into L2.
__device__ inline void prefetch_l2(Global<const uint32_t> from, int64_t i) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(from.data + i));
}

// Waits until `threads` threads (a multiple of 32) have reached barrier `id` by sync or arrive.
__device__ inline void bar_sync(int id, int threads) {
    asm volatile("barrier.cta.sync.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Arrives at barrier `id` without waiting.
__device__ inline void bar_arrive(int id, int threads) {
    asm volatile("barrier.cta.arrive.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Synchronises the warp and makes its lanes' writes visible to each other.
__device__ inline void warp_sync() { __syncwarp(); }

// Tells the compiler that the value is uniform across the warp.
__device__ inline int warp_uniform(int value) { return __shfl_sync(0xffffffff, value, 0); }

// Volatile, so that the compiler rereads it where needed instead of keeping it in a register.
__device__ inline int lane_id() {
    int lane;
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

// Relative error 2^-11.
__device__ inline float tanh_approx(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The larger magnitude of two halves, in each half of a word; the halves of `most` are not
// negative. Infinities and NaN compare larger than all numbers.
__device__ inline uint32_t max_magnitudes(uint32_t most, uint32_t word) {
    return __vmaxu2(most, word & 0x7fff7fff);
}

// Packs two halves into a word, `low` in its low bits.
__device__ inline uint32_t pack_half2(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
}

__device__ inline float2 unpack_half2(uint32_t word) {
    return __half22float2(reinterpret_cast<const __half2&>(word));
}

}  // namespace espan
#endif
