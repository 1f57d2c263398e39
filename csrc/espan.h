// The contract between Python and the kernels: one launcher per kernel.
//
// Pointers are to device memory of the current device and 16-byte aligned; sizes are checked by
// the caller. A launcher returns once the kernel is queued on `stream`; what it returns is not
// cudaSuccess if the launch failed, or if earlier work on the device did.
#pragma once

#include <cstdint>

#ifdef ESPAN_SHIM
#include "host/cuda.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace espan {

enum class Dtype { float16, bfloat16, float32 };

// Where a picture's channels lie, in groups of 8: planes (N, C/8, H, W, 8), channels_last
// (N, H, W, C/8, 8).
enum class Layout { planes, channels_last };

// out = (y + x) * (sigmoid(y) - 1/2); `size` elements each.
cudaError_t span_gate(
    const void* x, const void* y, void* out, int64_t size, Dtype dtype, cudaStream_t stream);

// Gradients dx, dy of span_gate, given that of its output.
cudaError_t span_gate_backward(
    const void* grad, const void* x, const void* y, void* dx, void* dy, int64_t size, Dtype dtype,
    cudaStream_t stream);

}  // namespace espan
