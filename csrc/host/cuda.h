// The CUDA names used by kernels and launchers, for a C++ compiler without CUDA.
//
// Together with fibers.h, memory.h and instructions.h it forms the host build (-DESPAN_SHIM), which
// runs the same .cu files on the CPU to find bugs that a GPU test may miss: wrong values, accesses
// out of bounds and missing waits, but not data races within an instruction, nor speed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define threadIdx (espan::shim::self().thread)
#define blockIdx (espan::shim::block())
#define gridDim (espan::shim::grid())

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorIllegalAddress = 700,
};
using std::max;
using std::min;
using cudaStream_t = struct CUstream_st*;

enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };

inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

namespace espan::shim {

// Runs only this number of blocks of a launch, the last ones; 0: all.
inline int64_t& last_blocks() {
    static int64_t count = 0;
    return count;
}

inline void run_last_blocks(int64_t count) { last_blocks() = count; }

// The relative error of tanh_approx; the last bit of x chooses the sign.
inline float& tanh_error() {
    static float error = 0;
    return error;
}

inline void set_tanh_error(float error) { tanh_error() = error; }

}  // namespace espan::shim

// Reports few multiprocessors, so that blocks of a persistent grid process several items; more than
// there are items if only the last blocks run, so that these blocks process the last items.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
    *value = espan::shim::last_blocks() ? 1 << 30 : 3;
    return cudaSuccess;
}

struct Index {
    unsigned x;
};

struct float2 {
    float x, y;
};

struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};

struct __half {
    uint16_t bits;
};

struct __nv_bfloat16 {
    uint16_t bits;
};

namespace espan::shim {

template <typename To, typename From>
To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(To));
    return to;
}

// The message of the last failed launch.
inline std::string& failure() {
    static std::string message;
    return message;
}

// The state of the random order in which threads run.
inline uint64_t& random_state() {
    static uint64_t state = 1;
    return state;
}

inline void seed(uint64_t value) { random_state() = 2 * value + 1; }

}  // namespace espan::shim

inline float __half2float(__half value) {
    return static_cast<float>(espan::shim::bits_as<_Float16>(value.bits));
}

inline __half __float2half_rn(float value) {
    return {espan::shim::bits_as<uint16_t>(static_cast<_Float16>(value))};
}

inline float __bfloat162float(__nv_bfloat16 value) {
    return espan::shim::bits_as<float>(uint32_t(value.bits) << 16);
}

inline __nv_bfloat16 __float2bfloat16_rn(float value) {
    if (std::isnan(value)) return {0x7fff};
    const auto bits = espan::shim::bits_as<uint32_t>(value);
    // To nearest, ties to even.
    return {static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

// NaN becomes 0.
inline float __saturatef(float value) { return std::fmin(std::fmax(value, 0.0f), 1.0f); }
inline uint32_t __float_as_uint(float value) { return espan::shim::bits_as<uint32_t>(value); }
inline float __fmul_rn(float a, float b) { return a * b; }

inline const char* cudaGetErrorName(cudaError_t error) {
    switch (error) {
        case cudaSuccess: return "cudaSuccess";
        case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
        case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
        case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
        case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    }
    return "cudaErrorUnknown";
}

inline const char* cudaGetErrorString(cudaError_t error) {
    if (error == cudaErrorIllegalAddress) return espan::shim::failure().c_str();
    return "reported by the host build";
}
