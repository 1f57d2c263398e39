// Instructions of sm_90a: warpgroup matrix products, mbarriers, bulk copies. PTX on the device,
// emulated in the host build.
//
// Shared memory has its own byte addresses. Two proxies access it: ld, st, stmatrix and ldmatrix
// through the generic proxy, wgmma and bulk copies through the async proxy, which sees generic
// stores only after fence_async in the storing thread.
#pragma once

#include "common/ptx.cuh"

namespace espan {

using Address = uint32_t;

// The threads and warps of a warpgroup, and the pixels (rows of A) of a wgmma.
constexpr int WARPGROUP = 128, WARPGROUP_WARPS = 4, WARPGROUP_PIXELS = 64;

// A matrix in shared memory, made of dense core matrices of 8 rows of 16 bytes. The stride between
// core matrices is `along_k` bytes along K and 128 bytes across it.
struct Matrix {
    Address start;
    int along_k;

    __device__ uint64_t descriptor() const {
        return uint64_t(start >> 4 & 0x3fff) | uint64_t(along_k >> 4) << 16 |
               uint64_t(128 >> 4) << 32;
    }
};

// `descriptor` advanced by `bytes`; addresses stay below 256 KiB.
__device__ inline uint64_t moved(uint64_t descriptor, int bytes) {
    return descriptor + (bytes >> 4);
}

}  // namespace espan

#ifdef ESPAN_SHIM
#include "host/warpgroup.h"
#else
#include "wgmma/products.cuh"

namespace espan {

// The block's dynamic shared memory, of `bytes`.
#define SHARED_BYTES(name, bytes)                                    \
    extern __shared__ __align__(128) unsigned char name##_memory[]; \
    const espan::Address name = static_cast<uint32_t>(__cvta_generic_to_shared(name##_memory))

__device__ inline void store_shared(Address to, uint4 value) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(to), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
                 : "memory");
}

// Stores four or two 8 x 8 matrices of halves, matrix i from words[i], in ldmatrix's layout: lane l
// passes the address of row l % 8 of matrix l / 8.
__device__ inline void store_matrices(Address row, const uint32_t (&words)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(row), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3])
                 : "memory");
}

__device__ inline void store_matrices(Address row, const uint32_t (&words)[2]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};"
                 :
                 : "r"(row), "r"(words[0]), "r"(words[1])
                 : "memory");
}

__device__ inline void load_matrices(uint32_t (&words)[4], Address row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(row)
                 : "memory");
}

__device__ inline void load_matrices(uint32_t (&words)[2], Address row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(words[0]), "=r"(words[1])
                 : "r"(row)
                 : "memory");
}

// Makes this thread's stores visible to subsequent wgmma and bulk copies.
__device__ inline void fence_async() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// A barrier counts `arrivals` and pending bytes; when both are complete it enters its next phase.
// Phases have parity 0, 1, 0, ...
__device__ inline void mbarrier_init(Address barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

// Makes this thread's initialised barriers visible to bulk copies.
__device__ inline void mbarrier_fence_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline void mbarrier_arrive(Address barrier) {
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0]; }" ::"r"(barrier)
                 : "memory");
}

// Arrives and adds `bytes` of bulk copies to the pending count.
__device__ inline void mbarrier_arrive_expecting(Address barrier, int bytes) {
    asm volatile("{ .reg .b64 state; "
                 "mbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1; }" ::"r"(barrier),
                 "r"(bytes)
                 : "memory");
}

__device__ inline bool mbarrier_is_past(Address barrier, uint32_t parity) {
    uint32_t past;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; "
                 "selp.u32 %0, 1, 0, p; }"
                 : "=r"(past)
                 : "r"(barrier), "r"(parity)
                 : "memory");
    return past;
}

// Starts copying `bytes`, a multiple of 16, from from[i] to shared memory; `barrier` counts them.
// Called by one thread.
__device__ inline void bulk_load(
    Address to, Global<const uint4> from, int64_t i, int bytes, Address barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1], %2, [%3];"
                 :
                 : "r"(to), "l"(from.data + i), "r"(bytes), "r"(barrier)
                 : "memory");
}

// Starts copying `bytes` from shared memory to to[i]. bulk_commit ends a group of such copies.
__device__ inline void bulk_store(Global<uint4> to, int64_t i, Address from, int bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;"
                 :
                 : "l"(to.data + i), "r"(from), "r"(bytes)
                 : "memory");
}

__device__ inline void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Waits until all but the last PENDING groups of this thread have read their shared memory.
template <int PENDING>
__device__ inline void bulk_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory");
}

// Raises or lowers the register count of each thread of the warpgroup.
template <int COUNT>
__device__ inline void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

template <int COUNT>
__device__ inline void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// Waits until earlier kernels on the stream have ended and their writes are visible.
__device__ inline void wait_for_earlier_kernels() {
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

// Allows the next kernel on the stream to start when resources are free.
__device__ inline void let_next_kernel_start() {
    asm volatile("griddepcontrol.launch_dependents;");
}

// Launches a kernel that may start before the previous one ends, if `overlap`. The kernel must call
// wait_for_earlier_kernels before it accesses memory that other kernels write.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_overlapping(
    void (*kernel)(Parameters...), int64_t blocks, int threads, int bytes, bool overlap,
    cudaStream_t stream, Arguments... arguments) {
    if (const auto error = cudaFuncSetAttribute(
            reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
            bytes)) {
        return error;
    }
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = bytes;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = overlap ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace espan
#endif
