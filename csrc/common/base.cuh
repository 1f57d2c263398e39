// Shared by all kernels: memory access, launches and conversions of element types.
//
// Kernels access memory only through Global and Shared. On the device these are bare pointers; in
// the host build they are bounds-checked, and an access out of bounds fails the launch.
#pragma once

#include "launchers.h"

#ifdef ESPAN_SHIM
#include "host/memory.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace espan {

template <typename T>
struct Global {
    T* data;

    __host__ __device__ Global(T* data, int64_t /*size*/) : data(data) {}

    __device__ T load(int64_t i) const { return data[i]; }
    __device__ uint4 load16(int64_t i) const {
        return *reinterpret_cast<const uint4*>(data + i);
    }
    __device__ void store(int64_t i, T value) const { data[i] = value; }
    __device__ void store16(int64_t i, uint4 value) const {
        *reinterpret_cast<uint4*>(data + i) = value;
    }
    // The same memory as elements of another type.
    template <typename U>
    __device__ Global<U> as() const {
        return {reinterpret_cast<U*>(data), 0};
    }
    // The same memory starting at element i.
    __device__ Global from(int64_t i) const { return {data + i, 0}; }
};

// Memory that no kernel in flight writes, safe to read before wait_for_earlier_kernels.
template <typename T>
using Constant = Global<T>;

template <typename T>
struct Shared {
    T* data;

    __device__ T load(int i) const { return data[i]; }
    __device__ void store(int i, T value) const { data[i] = value; }
    // The same memory as elements of another type.
    template <typename U>
    __device__ Shared<U> as() const {
        return {reinterpret_cast<U*>(data)};
    }
};

// A block's shared array `name` of `size` elements.
#define SHARED(T, name, size)                        \
    __shared__ __align__(16) T name##_memory[size]; \
    const espan::Shared<T> name { name##_memory }

template <typename... Parameters, typename... Arguments>
cudaError_t launch(
    void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t stream,
    Arguments... arguments) {
    kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(arguments...);
    return cudaGetLastError();
}

// The block's dynamic shared memory, from launch_with_shared, as array `name`.
#define DYNAMIC_SHARED(T, name, size)                             \
    extern __shared__ __align__(16) unsigned char name##_memory[]; \
    const espan::Shared<T> name { reinterpret_cast<T*>(name##_memory) }

// Like launch, with `bytes` of dynamic shared memory per block. max_bytes: of any launch of this
// kernel. It is a setting of the kernel, so all threads that launch it must set the same value.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_with_shared(
    void (*kernel)(Parameters...), int64_t blocks, int threads, int bytes, int max_bytes,
    cudaStream_t stream, Arguments... arguments) {
    if (const auto error = cudaFuncSetAttribute(
            reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
            max_bytes)) {
        return error;
    }
    kernel<<<static_cast<unsigned>(blocks), threads, bytes, stream>>>(arguments...);
    return cudaGetLastError();
}

}  // namespace espan
#endif

namespace espan {

// The maximum number of blocks in the first dimension of a grid.
constexpr int64_t MAX_BLOCKS = 0x7fffffff;

template <typename Integer>
__host__ __device__ constexpr Integer ceil_div(Integer a, Integer b) {
    return (a + b - 1) / b;
}

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(__half value) { return __half2float(value); }
__device__ inline float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

__device__ inline void from_float(float& to, float value) { to = value; }
__device__ inline void from_float(__half& to, float value) { to = __float2half_rn(value); }
__device__ inline void from_float(__nv_bfloat16& to, float value) {
    to = __float2bfloat16_rn(value);
}

// Calls run(T()) with the element type of `dtype`.
template <typename Run>
cudaError_t with_type(Dtype dtype, Run run) {
    switch (dtype) {
        case Dtype::float16: return run(__half());
        case Dtype::bfloat16: return run(__nv_bfloat16());
        case Dtype::float32: return run(float());
        case Dtype::uint8: break;
    }
    return cudaErrorInvalidValue;
}

}  // namespace espan
